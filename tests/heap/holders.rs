//! Who holds what, asked about programs that leak in known ways and about what they say of themselves.

use crate::common;

use std::collections::BTreeSet;

use common::{Python, Target, biopsy};
use serde_json::Value;

/// Interpreters whose heaps can be read.
fn readable() -> impl Iterator<Item = &'static Python> {
    Python::all().iter().filter(|python| python.minor >= 8)
}

fn leaks(python: &Python) -> (Target, String) {
    let stage = python.stage();
    let path = stage.fixture("leaks.py");
    let mut target = python.start(&[&path]);
    grow(&mut target);
    let pid = target.pid.to_string();
    (target, pid)
}

fn grow(target: &mut Target) {
    target.tell("");
    let line = target.line();
    assert!(line.starts_with("grown "), "{line}");
}

/// How each class of leaks.py is held: what the path begins and ends with.
const HELD: [(&str, &str, &str); 10] = [
    ("InRegistry", "__main__.REGISTRY.by_path[*]", "[*]"),
    ("InCache", "__main__.cached.cache[*]", ""),
    ("InClosure", "__main__.ADD.__closure__", ".cell_contents[*]"),
    ("InGenerator", "__main__.GENERATOR.", "kept>[*]"),
    ("InThreadLocal", "__main__.LOCAL.", "[*][*][*]"),
    ("InClassAttribute", "__main__.Holder.kept[*]", ""),
    ("InWeakKeys", "__main__.WEAK.data[*]", ""),
    ("InCycle", "__main__.CYCLES[*].other.record", ""),
    ("InTask", "", "kept_by_task>[*]"),
    ("InFrame", "<thread ", "in_thread()>.kept_in_frame[*]"),
];

#[test]
fn every_kind_of_leak_is_named_by_its_path_on_each_interpreter() {
    let _company = common::in_company();
    for python in readable() {
        let (mut target, pid) = leaks(python);
        let folder = tempfile::tempdir().expect("a folder");
        let before = folder.path().join("before.heap").display().to_string();
        biopsy(&["heap", "snapshot", &pid, "-q", "-o", &before]).ok();
        grow(&mut target);
        let all = [
            "heap",
            "diff",
            &before,
            &pid,
            "--why",
            "--json",
            "--type",
            "__main__.In*",
        ];
        let why = biopsy(&all).ok().json();
        let rows = why["why"].as_array().expect("reasons").clone();
        for (class, begin, end) in HELD {
            let name = format!("__main__.{class}");
            let row = rows.iter().find(|row| row["type"] == name.as_str());
            let row = row.unwrap_or_else(|| panic!("{python}: no reason for {class}: {why:#}"));
            let path = row["path"].as_str().expect("a path");
            assert!(
                path.starts_with(begin) && path.ends_with(end) && !path.contains("<inside>"),
                "{python}: {class}: {path}"
            );
            assert_eq!(
                (&row["objects"], &row["of"]),
                (&100.into(), &100.into()),
                "{python}: {row}"
            );
            // Each keeps itself and its text, at least.
            assert!(
                row["retained_bytes"].as_u64() > Some(100 * 80),
                "{python}: {row}"
            );
        }
        let path = biopsy(&["heap", "path", &before, "--type", "__main__.InRegistry"]).ok();
        assert_eq!(
            path.stdout, "__main__.REGISTRY.by_path[*][*] × 100\n",
            "{python}"
        );
        target.assert_free();
    }
}

#[test]
fn what_only_evaluation_stacks_hold_has_its_path_on_each_interpreter() {
    let _company = common::in_company();
    for python in readable() {
        let stage = python.stage();
        let mut target = python.start(&[&stage.fixture("heap_stacks.py")]);
        let pid = target.pid.to_string();
        for (class, function, count) in [
            ("InLoop", "loop", 100),
            ("InCall", "call", 100),
            // One is the argument of the key function.
            ("InSorted", "in_sorted", 99),
            ("InGenerator", "generator", 100),
        ] {
            let name = format!("__main__.{class}");
            let found = biopsy(&["heap", "path", &pid, "--type", &name, "--json"]).ok();
            let document = found.json();
            let shapes = document["paths"].as_array().expect("paths");
            let held = shapes.iter().find(|shape| shape["objects"] == count);
            let held = held.unwrap_or_else(|| panic!("{python}: {class}: {document:#}"));
            let path = held["path"].as_str().expect("a path");
            let (thread, rest) = path
                .strip_prefix("<thread ")
                .and_then(|path| path.split_once(", "))
                .unwrap_or_else(|| panic!("{python}: {class}: {path}"));
            assert!(
                rest.starts_with(&format!("{function}()>.<stack>")) && rest.ends_with("[*]"),
                "{python}: {class}: {path}"
            );
            let task = format!("/proc/{pid}/task/{thread}");
            assert!(std::path::Path::new(&task).exists(), "{python}: {path}");
        }
        let gone = biopsy(&["heap", "summary", &pid, "--type", "__main__.Gone", "--json"]).ok();
        assert_eq!(gone.json()["types"], serde_json::json!([]), "{python}");
        target.assert_free();
    }
}

#[test]
fn caches_are_listed_as_cache_info_has_them_on_each_interpreter() {
    let _company = common::in_company();
    for python in readable() {
        let (mut target, pid) = leaks(python);
        let document = biopsy(&["heap", "caches", &pid, "--json"]).ok().json();
        let rows = document["caches"].as_array().expect("rows");
        // The one without a limit comes first.
        let unbounded = rows
            .iter()
            .position(|row| row["function"] == "__main__.cached");
        let bounded = rows
            .iter()
            .position(|row| row["function"] == "__main__.bounded");
        let (unbounded, bounded) = (unbounded.expect("a row"), bounded.expect("a row"));
        assert!(unbounded < bounded, "{python}: {document:#}");
        let (cached, limited) = (&rows[unbounded], &rows[bounded]);
        assert_eq!(cached["limit"], Value::Null, "{python}");
        for (row, size, misses) in [(cached, 100, 100), (limited, 50, 100)] {
            assert_eq!(row["size"], size, "{python}: {row}");
            assert_eq!(row["misses"], misses, "{python}: {row}");
            assert_eq!(row["hits"], 0, "{python}: {row}");
            assert!(
                row["file"].as_str().expect("a file").ends_with("leaks.py"),
                "{row}"
            );
        }
        assert_eq!(limited["limit"], 50, "{python}");
        assert!(cached["retained_bytes"].as_u64() > limited["retained_bytes"].as_u64());
        target.assert_free();
    }
}

/// Prints the addresses of an object and of what `gc.get_referrers` says about it, without those of the asking frame.
const REFERRERS: &str = r#"
import gc, sys
class Thing:
    pass
class Slotted:
    __slots__ = ("held",)
thing = Thing()
in_list = [thing, 1]
in_tuple = (thing, [])
in_dict = {1: thing}
in_set = {thing}
in_slot = Slotted()
in_slot.held = thing
in_attribute = Thing()
in_attribute.held = [thing]
gc.collect()
found = [holder for holder in gc.get_referrers(thing) if not type(holder).__name__ == "frame"]
print("ready", id(thing), id(globals()), *[id(holder) for holder in found], flush=True)
sys.stdin.readline()
"#;

#[test]
fn referrers_are_those_that_the_collector_knows() {
    let _company = common::in_company();
    for python in readable() {
        let stage = python.stage();
        let path = stage.put("referrers.py", REFERRERS);
        let mut target = python.start(&[&path]);
        let numbers: Vec<u64> = target
            .ready
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        let (thing, globals) = (numbers[0], numbers[1]);
        let expected: BTreeSet<u64> = numbers[2..].iter().copied().collect();
        assert!(expected.len() >= 7, "{python}: {expected:?}");
        let pid = target.pid.to_string();
        let asked = [
            "heap",
            "referrers",
            &pid,
            "--depth",
            "1",
            "--max",
            "50",
            "--json",
            "--address",
        ];
        let asked: Vec<&str> = asked.into_iter().collect();
        let address = thing.to_string();
        let document = biopsy(&[&asked[..], &[address.as_str()]].concat())
            .ok()
            .json();
        let found = document["object"]["referrers"]
            .as_array()
            .expect("referrers");
        let addresses: BTreeSet<u64> = found
            .iter()
            .map(|node| node["address"].as_str().expect("an address"))
            .map(|text| u64::from_str_radix(text.trim_start_matches("0x"), 16).expect("hex"))
            .collect();
        // The globals are shown as the module that they are part of; a local `found` in them holds nothing of it.
        let mut missing: Vec<u64> = expected.difference(&addresses).copied().collect();
        missing.retain(|address| *address != globals);
        assert!(missing.is_empty(), "{python}: {missing:x?} of {document:#}");
        let more = addresses.difference(&expected).count();
        assert!(more <= 1, "{python}: {document:#}");
        let steps: BTreeSet<&str> = found
            .iter()
            .filter_map(|node| node["by"].as_str())
            .collect();
        for step in [".thing", "[0]", "[<int>]", ".<member>", ".held"] {
            assert!(steps.contains(step), "{python}: no {step} in {steps:?}");
        }
        target.assert_free();
    }
}

#[test]
fn retained_sizes_add_up_and_a_snapshot_says_the_same() {
    let _company = common::in_company();
    let python = Python::any();
    let (mut target, pid) = leaks(python);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("a.heap").display().to_string();
    biopsy(&["heap", "snapshot", &pid, "-q", "-o", &file]).ok();
    let by_module = |sizes: &str| {
        let modules = [
            "heap", "retained", &file, "--by", "module", "--json", "--limit", "100000", "--sizes",
            sizes,
        ];
        let modules = biopsy(&modules).ok().json();
        let rows = modules["holders"].as_array().expect("rows");
        let sum: u64 = rows
            .iter()
            .filter_map(|row| row["retained_bytes"].as_u64())
            .sum();
        assert_eq!(Some(sum), modules["total_bytes"].as_u64());
        sum
    };
    by_module("blocks");
    let sum = by_module("getsizeof");
    let summary = biopsy(&["heap", "summary", &file, "--json"]).ok().json();
    // What only C code holds is no module's, but it is somebody's.
    assert_eq!(Some(sum), summary["total"]["bytes"].as_u64());
    let objects = ["heap", "retained", &file, "--type", "*.Registry", "--json"];
    let objects = biopsy(&objects).ok().json();
    let registry = &objects["holders"][0];
    assert_eq!(registry["path"], "__main__.REGISTRY");
    // 100 records of at least 48 bytes with a text of at least 50.
    assert!(
        registry["retained_bytes"].as_u64() > Some(9800),
        "{registry}"
    );
    assert!(registry["objects"].as_u64() > Some(200), "{registry}");
    let tree = biopsy(&[
        "heap", "retained", &file, "--tree", "--depth", "2", "--limit", "2",
    ])
    .ok();
    assert!(tree.stdout.contains("├─ "), "{tree}");
    target.assert_free();
}

#[test]
fn what_cannot_be_found_is_said() {
    let _company = common::in_company();
    let (mut target, pid) = leaks(Python::any());
    biopsy(&["heap", "path", &pid, "--address", "0x10"]).refused(1, "no object at 0x10");
    biopsy(&["heap", "referrers", &pid, "--type", "nosuch.Type"])
        .refused(1, "no object of a type nosuch.Type");
    biopsy(&["heap", "path", &pid, "--address", "1", "--type", "x"])
        .refused(2, "wrong command line");
    biopsy(&["heap", "referrers", &pid]).refused(2, "wrong command line");
    let dot = ["heap", "referrers", &pid, "--type", "*.Registry", "--dot"];
    biopsy(&dot).refused(2, "wrong command line");
    target.assert_free();
}

/// Resident memory of a process as `/proc/PID/smaps_rollup` has it, in bytes.
fn smaps_rss(pid: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("readable");
    let line = text
        .lines()
        .find(|line| line.starts_with("Rss:"))
        .expect("a line");
    let kib = line
        .split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse::<u64>().ok());
    1024 * kib.expect("a number")
}

/// 200,000 objects of 48 bytes at least in small blocks, 30 MB in one large block, and then every second object let go;
/// 100,000 lists with storage of 32 bytes each; 50,000 rings that are not collected, of 64 bytes each and storage of 32;
/// 50,000 objects of 96 bytes that nothing refers to and that are never freed.
const MEMORY: &str = "
import ctypes, gc, sys
gc.collect()
gc.disable()
class Small(object):
    __slots__ = ('a', 'b', 'c', 'd')
lists = [list((1, 2, 3)) for _ in range(100000)]
for _ in range(50000):
    ring = []
    ring.append(ring)
keep = ctypes.pythonapi.Py_IncRef
keep.argtypes = [ctypes.py_object]
keep.restype = None
for number in range(50000):
    keep(b'%060d' % number)
kept = [Small() for _ in range(400000)]
large = b'x' * 30000000
del kept[::2]
print('ready', flush=True)
sys.stdin.readline()
";

#[test]
fn resident_memory_adds_up_on_each_interpreter() {
    let _company = common::in_company();
    for python in readable() {
        let stage = python.stage();
        let path = stage.put("memory.py", MEMORY);
        let mut target = python.start(&[&path]);
        let pid = target.pid.to_string();
        let document = biopsy(&["heap", "rss", &pid, "--json"]).ok().json();
        let total = document["total_bytes"].as_u64().expect("a total");
        let kernel = smaps_rss(target.pid);
        let apart = (total as f64 - kernel as f64).abs() / kernel as f64;
        assert!(
            apart < 0.02,
            "{python}: {total} here, {kernel} in smaps_rollup"
        );
        let part = |name: &str| {
            let parts = document["parts"].as_array().expect("parts");
            let found = parts.iter().find(|part| part["part"] == name);
            found
                .and_then(|part| part["resident_bytes"].as_u64())
                .expect("a part")
        };
        // 200,000 of 16 (up to 3.8: 16 more for the collector, which slots do not need) and 32 bytes.
        let objects = part("pymalloc-objects");
        assert!(
            (200_000 * 48..60_000_000).contains(&objects),
            "{python}: {document:#}"
        );
        // As many were let go, block by block.
        assert!(
            part("pymalloc-free-blocks") > 150_000 * 48,
            "{python}: {document:#}"
        );
        for (name, bytes, more) in [
            // The interpreter's own and classes' dicts are there too.
            ("pymalloc-storage", 150_000 * 32, 1_500_000),
            ("pymalloc-garbage", 50_000 * 64, 500_000),
            ("pymalloc-unreferenced", 50_000 * 96, 100_000),
        ] {
            common::say(format_args!("{python}: {name} {} of {bytes}", part(name)));
            assert!(
                (bytes..bytes + more).contains(&part(name)),
                "{python}: {name} of {bytes}: {document:#}"
            );
        }
        assert!(
            part("large-blocks") + part("malloc-heap") > 30_000_000,
            "{python}: {document:#}"
        );
        assert!(
            part("files") > 0 && part("stacks") > 0,
            "{python}: {document:#}"
        );
        let file = stage.path().join("a.heap").display().to_string();
        biopsy(&["heap", "snapshot", &pid, "-q", "-o", &file]).ok();
        let saved = biopsy(&["heap", "rss", &file, "--json"]).ok().json();
        let again = saved["total_bytes"].as_u64().expect("a total");
        assert!(again.abs_diff(total) < total / 50, "{python}");
        target.assert_free();
    }
}

/// Address of an object in a document, as a number.
fn address_of(node: &Value) -> u64 {
    let text = node["address"].as_str().expect("an address");
    u64::from_str_radix(text.trim_start_matches("0x"), 16).expect("hex")
}

#[test]
fn referrers_and_paths_of_random_objects_are_those_that_the_program_finds() {
    let _company = common::in_company();
    for (seed, python) in (1..).zip(readable()) {
        let stage = python.stage();
        let script = stage.fixture("random_objects.py");
        let mut target = python.start(&[&script, &seed.to_string()]);
        let mut asked: Vec<Vec<u64>> = Vec::new();
        loop {
            let line = target.line();
            let mut words = line.split_whitespace();
            match words.next() {
                Some("asked") => {
                    asked.push(
                        words
                            .map(|word| word.parse().expect("an address"))
                            .collect(),
                    );
                }
                other => break assert_eq!(other, Some("done"), "{python}"),
            }
        }
        let file = stage.path().join("a.heap").display().to_string();
        let pid = target.pid.to_string();
        biopsy(&["heap", "snapshot", &pid, "-q", "--values", "-o", &file]).ok();
        let (mut evaluated, mut steps) = (0, 0);
        for row in &asked {
            let [object, expected @ ..] = row.as_slice() else {
                panic!("{python}: {row:?}");
            };
            let address = object.to_string();
            let one = ["--address", &address, "--json"];
            let referrers = ["heap", "referrers", &file, "--depth", "1", "--max", "5000"];
            let document = biopsy(&[&referrers[..], &one].concat()).ok().json();
            let nodes = document["object"]["referrers"].as_array().expect("a list");
            let found: BTreeSet<u64> = nodes.iter().map(address_of).collect();
            let expected: BTreeSet<u64> = expected.iter().copied().collect();
            assert_eq!(found, expected, "{python}: {object:#x}: {document:#}");
            let document = biopsy(&[&["heap", "path", &file][..], &one].concat())
                .ok()
                .json();
            let path = document["paths"][0]["path"].as_str().expect("a path");
            assert!(path.starts_with('_') || path.starts_with('<'), "{path}");
            if path.contains('<') || path.contains('…') {
                continue;
            }
            target.tell(path);
            assert_eq!(target.line(), address, "{python}: {path}");
            evaluated += 1;
            steps += path.matches(['.', '[']).count();
        }
        common::say(format_args!(
            "{python}: {evaluated} of {} paths evaluated, {steps} steps",
            asked.len()
        ));
        assert!(evaluated >= 30, "{python}: only {evaluated}");
        target.assert_free();
    }
}

#[test]
fn containers_that_grew_are_listed_with_both_counts() {
    let _company = common::in_company();
    for python in readable() {
        let (mut target, pid) = leaks(python);
        let folder = tempfile::tempdir().expect("a folder");
        let old = folder.path().join("old.heap").display().to_string();
        let new = folder.path().join("new.heap").display().to_string();
        biopsy(&["heap", "snapshot", &pid, "-q", "-o", &old]).ok();
        grow(&mut target);
        biopsy(&["heap", "snapshot", &pid, "-q", "-o", &new]).ok();
        for (subject, items) in [(pid.as_str(), "150"), (new.as_str(), "0")] {
            let words = [
                "heap", "caches", subject, "--since", &old, "--items", items, "--json",
            ];
            let document = biopsy(&words).ok().json();
            let rows = document["containers"].as_array().expect("rows");
            let row = |path: &str| rows.iter().find(|row| row["path"] == path);
            for path in [
                "__main__.CYCLES",
                "__main__.Holder.kept",
                "__main__.WEAK.data",
            ] {
                let row = row(path).unwrap_or_else(|| panic!("{python}: no {path}: {document:#}"));
                assert_eq!(
                    (&row["items"], &row["items_before"]),
                    (&200.into(), &100.into())
                );
                assert!(row["retained_bytes"].as_u64() > Some(200 * 48), "{row}");
            }
            // Neither what is inside another container, nor what stayed as it was.
            assert!(row("__main__.REGISTRY.by_path").is_none(), "{document:#}");
            assert!(
                rows.iter()
                    .all(|row| row["items"].as_u64() > row["items_before"].as_u64())
            );
        }
        let table = biopsy(&["heap", "caches", &new, "--since", &old]).ok();
        assert!(
            table.stdout.contains("more than 100 items that grew since"),
            "{table}"
        );
        let alone = biopsy(&["heap", "caches", &new, "--json"]).ok().json();
        assert_eq!(alone["containers"], Value::Null);
        biopsy(&["heap", "caches", &new, "--items", "5"]).refused(2, "wrong command line");
        target.assert_free();
    }
}

#[test]
fn keys_are_shown_as_python_writes_them_only_when_values_are_asked_for() {
    let _company = common::in_company();
    let python = Python::any();
    let stage = python.stage();
    let text = "
import sys
class Thing: pass
things = {'it\\'s \\x1b[31m': [Thing()], 12: [Thing()], -5 << 70: [Thing()], b'\\xff': [Thing()], 'x' * 1000000: [Thing()]}
setattr(Thing, 'y' * 1000000, [Thing()])
setattr(Thing, 'lone \\udc80', [Thing()])
print('ready', flush=True)
sys.stdin.readline()
";
    let path = stage.put("keys.py", text);
    let mut target = python.start(&[&path]);
    let pid = target.pid.to_string();
    let forms = |more: &[&str]| -> BTreeSet<String> {
        let objects = [
            "heap",
            "objects",
            &pid,
            "--type",
            "__main__.Thing",
            "--json",
        ];
        let listed = biopsy(&objects).ok();
        let rows = listed.stdout.lines();
        rows.map(|row| {
            let row: Value = serde_json::from_str(row).expect("JSON");
            let address = row["address"].as_str().expect("an address");
            let asked = ["heap", "path", &pid, "--count", "1", "--address", address];
            biopsy(&[&asked[..], more].concat())
                .ok()
                .stdout
                .trim_end()
                .to_string()
        })
        .collect()
    };
    let plain = forms(&[]);
    let names = plain
        .iter()
        .filter(|path| !path.starts_with("__main__.things[<"));
    // Of the path 15 characters are our own and 3 the index; 200 are shown.
    let long = format!(
        "__main__.Thing.{}… (+{} characters)",
        "y".repeat(185),
        1_000_000 - 185 + 3
    );
    // What is no identifier is a value, also as the name of an attribute.
    let expected = ["__main__.Thing.__dict__[<str>][0]", long.as_str()];
    assert_eq!(names.collect::<Vec<_>>(), expected, "{plain:?}");
    let shown = forms(&["--values"]);
    for wanted in [
        "things['it\\'s \\x1b[31m'][0]",
        "things[12][0]",
        "things[b'\\xff'][0]",
    ] {
        let wanted = format!("__main__.{wanted}");
        assert!(shown.contains(&wanted), "no {wanted} in {shown:?}");
    }
    assert!(
        shown
            .iter()
            .all(|path| path.len() < 240 && !path.contains('\u{1b}')),
        "{shown:?}"
    );
    assert!(shown.iter().any(|path| path.contains("xxx…'")), "{shown:?}");
    target.assert_free();
}

#[test]
fn the_data_of_numpy_arrays_has_its_row() {
    let _company = common::in_company();
    let Some(python) = Python::with_numpy() else {
        return;
    };
    let stage = python.stage();
    let text = "
import sys, numpy
large = numpy.ones(10_000_000)
untouched = numpy.zeros(50_000_000)
small = [numpy.ones(100) for _ in range(20_000)]
print('ready', flush=True)
sys.stdin.readline()
";
    let path = stage.put("arrays.py", text);
    let mut target = python.start(&[&path]);
    let pid = target.pid.to_string();
    let document = biopsy(&["heap", "rss", &pid, "--json"]).ok().json();
    let parts = document["parts"].as_array().expect("parts");
    let found = parts.iter().find(|part| part["part"] == "numpy-data");
    let bytes = found.and_then(|part| part["resident_bytes"].as_u64());
    let touched = 8 * (10_000_000 + 20_000 * 100);
    // Their heads are counted with them.
    assert!(
        (touched..touched + 4_000_000).contains(&bytes.expect("a row")),
        "{touched}: {document:#}"
    );
    assert!(document["numpy_bytes"].as_u64() > Some(touched + 8 * 50_000_000));
    target.assert_free();
}

#[test]
fn a_core_file_and_a_snapshot_answer_as_the_process_does() {
    let _company = common::in_company();
    let Some(gcore) = common::find_program("gcore") else {
        common::not_here("gcore");
        return;
    };
    let Some(python) = readable().find(|python| python.root.is_none()) else {
        common::not_here("an interpreter whose heap can be read");
        return;
    };
    let (mut target, pid) = leaks(python);
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name).display().to_string();
    let made = std::process::Command::new(gcore)
        .args(["-o", &file("core"), &pid])
        .output()
        .expect("started");
    let core = file(&format!("core.{pid}"));
    assert!(std::path::Path::new(&core).is_file(), "{made:?}");
    let snapshot = file("a.heap");
    biopsy(&["heap", "snapshot", &pid, "-q", "-o", &snapshot]).ok();
    let kept = ["--type", "__main__.In*"];
    let asked: [&[&str]; 6] = [
        &["caches"],
        &["path", kept[0], kept[1]],
        &["referrers", kept[0], kept[1], "--depth", "3"],
        &["retained", "--limit", "50"],
        &["retained", "--by", "type"],
        &["objects", kept[0], kept[1], "--json"],
    ];
    for words in asked {
        let of = |target: &str| {
            let [command, rest @ ..] = words else {
                unreachable!("each has a command");
            };
            biopsy(&[&["heap", command, target][..], rest].concat())
                .ok()
                .stdout
        };
        let expected = of(&pid);
        assert!(expected.lines().count() > 2, "{words:?}: {expected}");
        assert_eq!(of(&core), expected, "{words:?}");
        assert_eq!(of(&snapshot), expected, "{words:?}");
    }
    let types =
        |target: &str| biopsy(&["heap", "summary", target, "--json"]).ok().json()["types"].take();
    assert_eq!(types(&core), types(&pid));
    biopsy(&["heap", "rss", &core]).refused(1, "a core file does not say what was resident");
    target.assert_free();
}
