//! Counts of whole heaps: as pympler's muppy counts them, as a random heap counts itself, and objects in places
//! where they are easily missed.

use crate::common;

use std::collections::{HashMap, HashSet};

use biopsy::heap::Heap;
use biopsy::heap::census::{Census, Counting};
use biopsy::heap::graph::{Label, Root, flags};
use biopsy::target::image::Captured;
use biopsy::target::memory::copy::{CaptureOptions, capture};
use biopsy::units::Pid;
use common::{Python, biopsy, in_company, not_here, say};

const FIRST_MINOR: u32 = 8;

fn captured(pid: i32) -> Captured {
    capture(Pid(pid), CaptureOptions::default())
        .expect("captured")
        .0
}

fn pythons() -> impl Iterator<Item = &'static Python> {
    Python::all()
        .iter()
        .filter(|python| python.minor >= FIRST_MINOR)
}

fn rows(census: &Census) -> HashMap<&str, (u64, u64)> {
    let rows = census.types.iter();
    rows.map(|row| (row.name.as_str(), (row.objects, row.bytes)))
        .collect()
}

/// The folder of a package for Python code alone, if the test venv has it.
fn package(name: &str) -> Option<std::path::PathBuf> {
    let library = std::fs::read_dir(common::venv()?.join("lib")).ok()?;
    let mut folders = library
        .flatten()
        .map(|folder| folder.path().join("site-packages").join(name));
    folders.find(|folder| folder.is_dir())
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder").flatten() {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            std::fs::copy(from, to).expect("copied");
        }
    }
}

#[test]
fn rows_are_those_of_muppy() {
    let _noise = in_company();
    let Some(pympler) = package("pympler") else {
        return not_here("pympler in the test venv");
    };
    for python in pythons() {
        let stage = python.stage();
        copy(&pympler, &stage.path().join("pympler"));
        let program = stage.fixture("heap_muppy.py");
        let (folder, out) = (stage.inside("."), stage.inside("rows.txt"));
        let target = python.start(&[&program, &folder, &out]);
        let captured = captured(target.pid);
        let census = Heap::open(&captured)
            .expect("opened")
            .census(Counting::Muppy);
        let found = rows(&census);
        let text = std::fs::read_to_string(stage.path().join("rows.txt")).expect("rows");
        let expected: Vec<(String, u64, u64)> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("a row"))
            .collect();
        let (mut equal, mut other) = (0, Vec::new());
        for (name, objects, bytes) in &expected {
            match found.get(name.as_str()) {
                Some(counts) if *counts == (*objects, *bytes) => equal += 1,
                counts => other.push(format!("{name}: {counts:?}, {objects} {bytes} expected")),
            }
        }
        let (objects, bytes) = census.total();
        let (muppys, muppys_bytes) = expected
            .iter()
            .fold((0, 0), |sum, row| (sum.0 + row.1, sum.1 + row.2));
        say(format_args!(
            "{python}: {equal} of {} rows equal; {objects} objects, {bytes} bytes; muppy {muppys}, {muppys_bytes}\n    {}",
            expected.len(),
            other.join("\n    ")
        ));
        let ours = [
            "__main__.User",
            "function (inner)",
            "module(__main__)",
            "float",
        ];
        for name in ours {
            let row = expected.iter().find(|row| row.0 == name);
            let row = row.unwrap_or_else(|| panic!("{python}: muppy has no {name}"));
            assert_eq!(found.get(name), Some(&(row.1, row.2)), "{python}: {name}");
        }
        assert!(
            equal * 100 >= expected.len() * 98,
            "{python}: {}",
            other.join("\n")
        );
        // Within two in a hundred: muppy also sees what it makes itself.
        assert!(
            objects.abs_diff(muppys) * 50 < muppys,
            "{python}: {objects} objects, muppy {muppys}"
        );
    }
}

#[test]
fn a_random_heap_is_counted_as_it_counts_itself() {
    let _noise = in_company();
    for (seed, python) in pythons().enumerate() {
        let stage = python.stage();
        let program = stage.fixture("heap_random.py");
        let target = python.start(&[&program, &(seed + 1).to_string()]);
        let expected: HashMap<String, (u64, u64)> =
            serde_json::from_str(target.ready.trim_start_matches("ready ")).expect("JSON");
        assert!(expected.len() >= 10, "{python}: {expected:?}");
        let captured = captured(target.pid);
        let mut totals = Vec::new();
        for threads in [1, 2, 5] {
            let heap = Heap::open(&captured).expect("opened").with_threads(threads);
            let census = heap.census(Counting::Reachable);
            let found = rows(&census);
            for (name, counts) in &expected {
                let name = format!("__main__.{name}");
                assert_eq!(
                    found.get(name.as_str()),
                    Some(counts),
                    "{python}, seed {}: {name}",
                    seed + 1
                );
            }
            assert_eq!(
                (census.doubts.torn, census.doubts.unreadable),
                (0, 0),
                "{python}"
            );
            totals.push(census.total());
        }
        assert!(
            totals.iter().all(|total| *total == totals[0]),
            "{python}: {totals:?}"
        );
    }
}

#[test]
fn objects_in_hidden_places_are_found() {
    let _noise = in_company();
    for python in pythons() {
        let stage = python.stage();
        let program = stage.fixture("heap_shapes.py");
        let target = python.start(&[&program]);
        let captured = captured(target.pid);
        let heap = Heap::open(&captured).expect("opened");
        let census = heap.census(Counting::Reachable);
        let found = rows(&census);
        let count = |name: &str| found.get(name).map_or(0, |(objects, _)| *objects);
        assert_eq!(count("__main__.Frozen"), 1234, "{python}");
        if target.ready.contains("second") {
            assert_eq!(count("__main__.Elsewhere"), 777, "{python}");
        } else {
            not_here(format!("a second interpreter in {python}"));
        }
        let graph = heap.graph(false).expect("a graph");
        let secrets = graph.roots.iter().filter(|(_, root)| match root {
            Root::Frame {
                function,
                local: Some(local),
                ..
            } => graph.name(*function) == "wait_with_locals" && graph.name(*local) == "secret",
            _ => false,
        });
        // Each thread has a string of its own.
        let secrets: HashSet<u32> = secrets.map(|(object, _)| *object).collect();
        let texts = secrets.iter().filter(|object| {
            let type_id = graph.type_ids[**object as usize];
            graph.name(graph.types[type_id as usize].name) == "str"
        });
        assert_eq!(texts.count(), 3, "{python}");
    }
}

#[test]
fn the_graph_agrees_with_counts_and_names_its_references() {
    let _noise = in_company();
    for (seed, python) in pythons().enumerate() {
        let stage = python.stage();
        let program = stage.fixture("heap_random.py");
        let target = python.start(&[&program, &(seed + 50).to_string()]);
        let captured = captured(target.pid);
        let heap = Heap::open(&captured).expect("opened");
        let graph = heap.graph(false).expect("a graph");
        let single = Heap::open(&captured)
            .expect("opened")
            .with_threads(1)
            .graph(false)
            .expect("a graph");
        assert_eq!(graph.addresses, single.addresses, "{python}");
        assert_eq!(graph.targets, single.targets, "{python}");
        for (counting, flag) in [(Counting::Reachable, 0), (Counting::Muppy, flags::MUPPY)] {
            let (objects, bytes) = heap.census(counting).total();
            let chosen = (0..graph.len()).filter(|id| graph.flags[*id] & flag == flag);
            let counted = chosen.fold((0, 0), |sum, id| (sum.0 + 1, sum.1 + graph.sizes[id]));
            assert_eq!(counted, (objects, bytes), "{python}: {counting:?}");
        }
        let mut listed = Vec::new();
        heap.objects(Counting::Reachable, &mut |object| {
            listed.push(object.address)
        });
        assert_eq!(listed, graph.addresses, "{python}");
        // Every `Item` has its attributes by name, in itself or in a dict; every `Slots` its slots.
        let mut slots = 0;
        for id in 0..graph.len() as u32 {
            let name = graph.name(graph.types[graph.type_ids[id as usize] as usize].name);
            let shape = &graph.shapes[graph.shape_ids[id as usize] as usize];
            assert!(shape.labels.len() <= graph.references(id).len(), "{python}");
            if name == "__main__.Slots" {
                slots += 1;
                let labels = shape.labels.iter();
                let named = labels.filter(
                    |label| matches!(label, Label::Attribute(name) if graph.name(*name) == "a"),
                );
                assert_eq!(named.count(), 1, "{python}");
            }
        }
        assert!(slots > 0, "{python}");
        let modules = graph.roots.iter().filter_map(|(_, root)| match root {
            Root::Module(name) => Some(graph.name(*name)),
            _ => None,
        });
        assert!(modules.clone().any(|name| name == "__main__"), "{python}");
    }
}

/// Classes whose sizes only their own code knows.
const OWN_SIZES: &str = "
import sys
class Blob:
    def __sizeof__(self): return 1000
class Sub(Blob): pass
class Fine: pass
kept = [Blob() for _ in range(5)], [Sub() for _ in range(3)], [Fine()]
print('ready', flush=True)
sys.stdin.readline()
";

#[test]
fn types_that_are_not_sure_are_named() {
    for python in Python::all().iter().filter(|python| python.minor >= 8) {
        let target = python.start(&["-c", OWN_SIZES]);
        let pid = target.pid.to_string();
        let document = biopsy(&["heap", "summary", &pid, "--json"]).ok().json();
        let doubts = &document["doubts"];
        let own = serde_json::json!([
            {"type": "__main__.Blob", "objects": 5},
            {"type": "__main__.Sub", "objects": 3},
        ]);
        assert_eq!(doubts["own_sizeof"], own, "{python}");
        let unknown = doubts["unknown_layout"].as_array().expect("types").iter();
        let objects: u64 = unknown.filter_map(|row| row["objects"].as_u64()).sum();
        assert_eq!(doubts["conservative"], objects, "{python}");
        let text = biopsy(&["heap", "summary", &pid, "--limit", "1"]).ok();
        let said = "which is not run: __main__.Blob 5, __main__.Sub 3";
        assert!(text.stdout.contains(said), "{python}: {}", text.stdout);
        // A snapshot says the same.
        let stage = python.stage();
        let file = stage.path().join("kept.heap");
        let file = file.to_str().expect("UTF-8");
        biopsy(&["heap", "snapshot", &pid, "-o", file]).ok();
        for counting in [&[][..], &["--muppy"]] {
            let [of_file, living] = [file, &pid].map(|what| {
                let words = [&["heap", "summary", what, "--json"][..], counting].concat();
                biopsy(&words).ok().json()["doubts"].clone()
            });
            assert_eq!(of_file, living, "{python}");
        }
        let retained = biopsy(&["heap", "retained", &pid, "--limit", "1"]).ok();
        assert!(
            retained.stderr.contains(said),
            "{python}: {}",
            retained.stderr
        );
    }
}
