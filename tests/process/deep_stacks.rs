//! Stacks of tens of thousands of frames: sampled, and what could not be is told.

use crate::common;

use common::{Python, alone, biopsy};

const DEEP: &str = "
import sys, time
sys.setrecursionlimit(2_000_000)
def burn():
    print('ready', flush=True)
    end = time.perf_counter() + 120
    while time.perf_counter() < end: pass
def deep(n):
    if n: deep(n - 1)
    else: burn()
deep(int(sys.argv[1]))
";

/// The same in a thread whose C stack is large enough for versions that keep a C frame for each of Python's.
const DEEP_THREAD: &str = "
import sys, threading, time
sys.setrecursionlimit(2_000_000)
threading.stack_size(1 << 30)
def burn():
    print('ready', flush=True)
    end = time.perf_counter() + 120
    while time.perf_counter() < end: pass
def deep(n):
    if n: deep(n - 1)
    else: burn()
thread = threading.Thread(target=deep, args=(int(sys.argv[1]),))
thread.start()
thread.join()
";

/// Older versions keep a C frame for each of Python's.
fn pythons() -> impl Iterator<Item = &'static Python> {
    Python::all().iter().filter(|python| python.minor >= 11)
}

#[test]
fn time_of_deep_stacks_is_there_or_told_to_be_missing() {
    let _alone = alone();
    for python in pythons() {
        let stage = python.stage();
        for depth in ["50000", "100000"] {
            let mut target = python.start(&[&stage.put("deep.py", DEEP), depth]);
            let pid = target.pid.to_string();
            let ran = biopsy(&["attach", &pid, "-d", "1", "-f", "json"]).ok();
            let document = ran.json();
            let rows = document["functions"].as_array().expect("functions");
            let seconds = rows
                .iter()
                .find(|row| row["name"] == "deep")
                .and_then(|row| row["cumtime_s"].as_f64())
                .unwrap_or(0.0);
            let duration = document["duration_s"].as_f64().expect("seconds");
            eprintln!("{python} {depth}: {seconds} s of {duration} s");
            assert!(
                (0.9..1.05).contains(&(seconds / duration))
                    || ran.stderr.contains("there was no sample for"),
                "{python} {depth}: {seconds} s of {duration} s, {}",
                ran.stderr
            );
            target.assert_free();
        }
    }
}

/// Where each frame is an object on the heap, a deep stack is spread over many ranges of memory.
#[test]
fn deep_stacks_of_threads_are_read_on_all_versions() {
    let _alone = alone();
    for python in Python::all() {
        let stage = python.stage();
        let script = stage.put("deep.py", DEEP_THREAD);
        let mut target = python.start(&[&script, "50000"]);
        let pid = target.pid.to_string();
        let dumped = biopsy(&["dump", &pid, "--json"]);
        if python.minor < 8 {
            // py-spy's reader ends at 4,096 frames.
            assert!(
                dumped.stderr.contains("4,096 frames"),
                "{python}: {}",
                dumped.stderr
            );
            target.assert_free();
            continue;
        }
        let dumped = dumped.ok().json();
        let threads = dumped["threads"].as_array().expect("threads");
        let deepest = threads
            .iter()
            .map(|thread| thread["frames"].as_array().map_or(0, Vec::len))
            .max();
        assert!(deepest > Some(50_000), "{python}: {deepest:?}");
        let ran = biopsy(&["attach", &pid, "-d", "1", "-f", "json"]).ok();
        let document = ran.json();
        let rows = document["functions"].as_array().expect("functions");
        let row = rows.iter().find(|row| row["name"] == "deep");
        let seconds = row.and_then(|row| row["cumtime_s"].as_f64());
        assert!(
            seconds.is_some_and(|seconds| seconds > 0.9)
                || ran.stderr.contains("there was no sample for"),
            "{python}: {seconds:?} s, {}",
            ran.stderr
        );
        target.assert_free();
    }
}

#[test]
fn stacks_that_are_too_deep_are_named() {
    let _alone = alone();
    for python in pythons() {
        let stage = python.stage();
        let mut target = python.start(&[&stage.put("deep.py", DEEP), "140000"]);
        let pid = target.pid.to_string();
        let ran = biopsy(&["attach", &pid, "-d", "1"]);
        assert!(
            ran.stderr.contains("more than 131072 frames"),
            "{python}: {}",
            ran.stderr
        );
        target.assert_free();
    }
}
