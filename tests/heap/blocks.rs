//! What `heap retained` says of a structure beside what is free when it goes, as tracemalloc in the process itself sees it;
//! on every interpreter whose heap is read.

use crate::common;

use std::collections::BTreeMap;
use std::path::Path;

use biopsy::heap::census::Counting;
use biopsy::heap::store::{self, Reader};
use common::{Python, Target, biopsy, say};

/// Interpreters whose heaps can be read.
fn readable() -> impl Iterator<Item = &'static Python> {
    Python::all().iter().filter(|python| python.minor >= 8)
}

/// What each global structure of heap_blocks.py retains.
fn retained(pid: i32, more: &[&str]) -> BTreeMap<String, u64> {
    let pid = pid.to_string();
    let mut words = vec!["heap", "retained", &pid, "--json", "--limit", "5000"];
    words.extend(more);
    let document = biopsy(&words).ok().json();
    let rows = document["holders"].as_array().expect("holders").clone();
    rows.iter()
        .filter_map(|row| {
            let name = row["path"].as_str()?.strip_prefix("__main__.kept_")?;
            let is_whole = !name.contains(['.', '[', '<']);
            is_whole.then(|| Some((name.to_string(), row["retained_bytes"].as_u64()?)))?
        })
        .collect()
}

/// Name, bytes as they were asked for and bytes of blocks of each structure that the program frees.
fn freed(target: &mut Target) -> Vec<(String, u64, u64)> {
    target.tell("");
    let mut rows = Vec::new();
    loop {
        let line = target.line();
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["done"] => return rows,
            [name, asked, blocks] => {
                let number = |text: &str| text.parse().expect("a number");
                rows.push((name.to_string(), number(asked), number(blocks)));
            }
            _ => panic!("{line}"),
        }
    }
}

/// Fails unless each structure is said to retain what is free when it goes, within 3 per cent.
fn assert_right(what: &str, target: &mut Target) {
    let found = retained(target.pid, &[]);
    let mut wrong = Vec::new();
    for (name, asked, blocks) in freed(target) {
        let said = found.get(&name).copied().unwrap_or(0);
        let off = 100.0 * (said as f64 / blocks as f64 - 1.0);
        let line =
            format!("{what}: {name}: {said} said, {blocks} freed ({asked} asked for): {off:+.1} %");
        match off.abs() {
            3.0.. => wrong.push(line),
            1.0.. => say(line),
            _ => {}
        }
    }
    target.assert_free();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_goes_is_what_retained_says_on_each_interpreter() {
    let _company = common::in_company();
    for python in readable() {
        let stage = python.stage();
        let mut target = python.start(&[&stage.fixture("heap_blocks.py")]);
        assert_right(&python.to_string(), &mut target);
    }
}

#[test]
fn other_allocators_are_told_apart() {
    let _company = common::in_company();
    for (allocator, sizes) in [("malloc", "blocks"), ("debug", "debug-blocks")] {
        let python = Python::any();
        let stage = python.stage();
        let mut command = python.command(&[&stage.fixture("heap_blocks.py")]);
        command.env("PYTHONMALLOC", allocator);
        let mut target = Target::start(&mut command);
        let pid = target.pid.to_string();
        let document = biopsy(&["heap", "retained", &pid, "--json"]).ok().json();
        assert_eq!(document["sizes"], sizes);
        assert_right(&format!("{python} with {allocator}"), &mut target);
    }
}

/// Arrays of all sizes that own their data, one after the other as KINDS of heap_blocks.py.
const ARRAYS: &str = "\
import numpy
KINDS = {
    'arrays_of_numpy': lambda: [numpy.zeros(at % 400) for at in range(N)],
    'large_arrays': lambda: [numpy.zeros(100000 + 7 * at) for at in range(10)],
    'tables': lambda: [numpy.ones((at, 7, 3), 'f4') for at in range(100)],
}
";

#[test]
fn arrays_of_numpy_are_as_large_as_what_they_own() {
    let Some(python) = Python::with_numpy() else {
        return;
    };
    let _company = common::in_company();
    let stage = python.stage();
    let program = common::fixture_text("heap_blocks.py");
    let (head, tail) = program.split_once("def blocks(").expect("two halves");
    let text = format!("{head}{ARRAYS}\ndef blocks({tail}");
    let mut target = python.start(&[&stage.put("arrays.py", &text)]);
    assert_right(&python.to_string(), &mut target);
}

/// Writes the snapshot at `path` as a biopsy did that knew no blocks.
fn without_blocks(path: &Path, into: &Path) {
    let mut reader = Reader::open(path).expect("opens");
    let head = reader.head().clone();
    let censuses = [Counting::Reachable, Counting::Muppy]
        .map(|counting| reader.census(counting).expect("a summary"));
    let mut graph = reader.graph().expect("a graph");
    assert!(graph.has_blocks());
    graph.blocks.clear();
    let mut file = std::fs::File::create(into).expect("created");
    store::write(&head, &censuses, &graph, &mut file).expect("written");
}

#[test]
fn snapshots_have_blocks_and_older_ones_say_that_they_do_not() {
    let _company = common::in_company();
    let python = Python::any();
    let code = "
import functools, sys
class User:
    def __init__(self, number): self.number, self.name = number, 'user%d' % number
@functools.lru_cache(None)
def cached(number): return User(number)
USERS = [User(at) for at in range(20000)]
cached(1)
print('ready', flush=True); sys.stdin.readline()
USERS += [User(at) for at in range(20000)]
print('grown', flush=True); sys.stdin.readline()
";
    let mut target = python.start(&["-c", code]);
    let pid = target.pid.to_string();
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let text = |name: &str| path(name).display().to_string();
    let (new, old, grown) = (text("new.heap"), text("old.heap"), text("grown.heap"));
    biopsy(&["heap", "snapshot", &pid, "-q", "-o", &new]).ok();
    without_blocks(&path("new.heap"), &path("old.heap"));

    let document = |words: &[&str]| {
        let ran = biopsy(words).ok();
        (ran.json(), ran.stderr)
    };
    let living = document(&["heap", "retained", &pid, "--json"]);
    assert_eq!(living.0["sizes"], "blocks");
    assert_eq!(document(&["heap", "retained", &new, "--json"]), living);
    let counted = document(&["heap", "retained", &new, "--sizes", "getsizeof", "--json"]);
    let (older, note) = document(&["heap", "retained", &old, "--json"]);
    assert_eq!(counted.0["sizes"], "getsizeof");
    assert_eq!((&older, counted.1.as_str()), (&counted.0, ""));
    assert!(
        note.contains("has no sizes of blocks: sizes are those of sys.getsizeof"),
        "{note}"
    );
    let whole = |document: &serde_json::Value| document["total_bytes"].as_u64().expect("bytes");
    assert!(whole(&living.0) > whole(&counted.0) + 20_000 * 16);
    let table = biopsy(&["heap", "retained", &old, "--by", "type"])
        .ok()
        .stdout;
    assert!(
        table.contains("reachable; sizes as sys.getsizeof counts\n"),
        "{table}"
    );
    let table = biopsy(&["heap", "caches", &new]).ok().stdout;
    assert!(
        table.starts_with("sizes in the allocators' blocks\n"),
        "{table}"
    );
    assert_eq!(
        document(&["heap", "caches", &old, "--json"]).0["sizes"],
        "getsizeof"
    );

    target.tell("");
    assert_eq!(target.line(), "grown");
    biopsy(&["heap", "snapshot", &pid, "-q", "-o", &grown]).ok();
    let why = |old: &str, more: &[&str]| {
        let mut words = vec![
            "heap",
            "diff",
            old,
            &grown,
            "--why",
            "--json",
            "--type",
            "__main__.User",
        ];
        words.extend(more);
        let (document, _) = document(&words);
        let bytes = document["why"][0]["retained_bytes"]
            .as_u64()
            .expect("bytes");
        (document["why_sizes"].clone(), bytes)
    };
    let blocks = why(&new, &[]);
    let counted = why(&new, &["--sizes", "getsizeof"]);
    assert_eq!(
        (blocks.0, &counted.0),
        ("blocks".into(), &"getsizeof".into())
    );
    assert_eq!(why(&old, &[]), counted);
    // An instance, its name and mostly its number; of what getsizeof leaves out most is the attributes.
    assert!(
        blocks.1 > counted.1 + 20_000 * 16,
        "{blocks:?} {counted:?}",
        blocks = blocks.1
    );
    target.assert_free();
}
