//! Who holds what, asked about programs that leak in known ways and about what they say of themselves.

mod common;

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
    ("InThreadLocal", "", "[*]"),
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
                path.starts_with(begin) && path.ends_with(end),
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
    let modules = [
        "heap", "retained", &file, "--by", "module", "--json", "--limit", "100000",
    ];
    let modules = biopsy(&modules).ok().json();
    let rows = modules["holders"].as_array().expect("rows");
    let sum: u64 = rows
        .iter()
        .filter_map(|row| row["retained_bytes"].as_u64())
        .sum();
    assert_eq!(Some(sum), modules["total_bytes"].as_u64());
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

/// 200,000 objects of 48 bytes at least in small blocks, 30 MB in one large block, and then every second object let go.
const MEMORY: &str = "
import sys
class Small(object):
    __slots__ = ('a', 'b', 'c', 'd')
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
