//! What the heap commands say where it is needed: the cause of growth in reports, resident memory beside objects, what was
//! meant by a name that is not there, what cannot be compared.

use crate::common;

use common::{Python, biopsy};
use serde_json::Value;

/// Interpreters whose heaps can be read, and that see our folders.
fn readable() -> impl Iterator<Item = &'static Python> {
    let here = |python: &&Python| python.minor >= 8 && python.root.is_none();
    Python::all().iter().filter(here)
}

const JOBS: &str = "
class Session(object): pass
kept = []
class Job(object):
    def run(self):
        kept.extend(Session() for _ in range(1000))
def handle_request():
    Job().run()
";

const MAIN: &str = "
import jobs
for _ in range(3):
    jobs.handle_request()
";

#[test]
fn the_cause_of_growth_is_in_each_report() {
    let _company = common::in_company();
    for python in readable() {
        let stage = python.stage();
        stage.put("jobs.py", JOBS);
        let script = stage.put("main.py", MAIN);
        let file = |name: &str| stage.path().join(name).display().to_string();
        let (markdown, junit, json) = (file("a.md"), file("a.xml"), file("a.json"));
        let words = [
            "heap",
            "run",
            "--python",
            &python.command[0],
            "--at",
            "call:jobs:handle_request",
            "--why",
            "--fail-on",
            "jobs.*:+100",
            "--report",
            &markdown,
            "--report",
            &junit,
            "--report",
            &json,
            "--",
            &script,
        ];
        let ran = biopsy(&words).expect_code(3);
        let cause = "jobs.kept[*]";
        assert!(
            ran.stdout.contains(&format!("jobs.Session: {cause} holds")),
            "{python}: {ran}"
        );
        let read = |path: &str| std::fs::read_to_string(path).expect("written");
        let text = read(&markdown);
        assert!(
            text.contains(&format!("- `jobs.Session`: `{cause}` holds")),
            "{python}: {text}"
        );
        let text = read(&junit);
        let failure = text.split("<failure").nth(1).expect("a failure");
        let failure = failure.split("</failure>").next().expect("its end");
        assert!(failure.contains(cause), "{python}: {text}");
        let document: Value = serde_json::from_str(&read(&json)).expect("JSON");
        let why = document["why"].as_array().expect("reasons");
        let row = why
            .iter()
            .find(|row| row["type"] == "jobs.Session")
            .expect("a reason");
        assert_eq!(row["path"], cause, "{python}: {document:#}");
        assert_eq!(row["objects"], 2000, "{python}: {document:#}");
        // A baseline of its own: what is new since then.
        let baseline = file("base.heap");
        let first = [
            "heap",
            "run",
            "-q",
            "--python",
            &python.command[0],
            "--at",
            "call:jobs:handle_request:before:1",
            "--count",
            "1",
            "-o",
            &baseline,
            "--",
            &script,
        ];
        biopsy(&first).ok();
        let taken = file("base.1.heap");
        let compared = biopsy(&[
            "heap",
            "run",
            "--python",
            &python.command[0],
            "--why",
            "--baseline",
            &taken,
            "--",
            &script,
        ])
        .ok();
        assert!(
            compared
                .stdout
                .contains("jobs.Session: jobs.kept[*] holds +3000 of 3000"),
            "{python}: {compared}"
        );
    }
    biopsy(&["heap", "run", "--why", "--", "-c", "0"]).refused(2, "only one snapshot");
}

#[test]
fn a_name_that_is_not_there_is_told_with_what_was_meant() {
    let _company = common::in_company();
    for python in readable() {
        let stage = python.stage();
        stage.put("jobs.py", JOBS);
        let script = stage.put("main.py", MAIN);
        for (moment, told) in [
            ("jobs:handle_requst", "did you mean handle_request?"),
            ("jobs:handle", "did you mean handle_request?"),
            ("jobs:Job.rum", "did you mean run?"),
            (
                "jbos:handle_request",
                "the module was never imported; did you mean jobs?",
            ),
            ("nothing_alike:f", "the module was never imported"),
            ("__main__:wrk", "the program has made no such function"),
        ] {
            let at = format!("call:{moment}");
            let words = [
                "heap",
                "run",
                "--python",
                &python.command[0],
                "--at",
                &at,
                "--",
                &script,
            ];
            let ran = biopsy(&words).refused(1, told);
            assert!(ran.stderr.contains(moment), "{python}: {ran}");
            assert!(
                told.contains("mean") || !ran.stderr.contains("mean"),
                "{python}: {ran}"
            );
        }
    }
}

#[test]
fn resident_memory_and_the_cause_are_watched_to_the_end() {
    let _company = common::in_company();
    // All is gone at its end, as when an interpreter takes itself apart.
    let program = "
import time
class Leak(object): pass
kept = [[Leak() for _ in range(60000)]]
print('ready', flush=True)
for _ in range(40):
    kept.append([Leak() for _ in range(500)])
    time.sleep(0.1)
del kept[:]
time.sleep(4)
";
    let python = Python::any();
    let stage = python.stage();
    let script = stage.put("grow.py", program);
    let target = python.start(&[&script]);
    let pid = target.pid.to_string();
    let ran = biopsy(&["heap", "watch", &pid, "--every", "1s", "--why"]).ok();
    let step = ran.stdout.lines().find(|line| line.starts_with("after "));
    let step = step.unwrap_or_else(|| panic!("{ran}"));
    let rss = step.split("; RSS ").nth(1);
    assert!(
        rss.is_some_and(|rss| rss.contains("iB (+") || rss.contains("iB (-")),
        "{step}"
    );
    assert!(ran.stderr.contains("is left out of what grew"), "{ran}");
    assert!(
        ran.stdout
            .contains("__main__.Leak: __main__.kept[*][*] holds >="),
        "{ran}"
    );
    assert!(ran.stderr.contains("has ended"), "{ran}");
    let one = python.start(&[
        "-c",
        "import time; print('ready', flush=True); time.sleep(1)",
    ]);
    let pid = one.pid.to_string();
    let ran = biopsy(&["heap", "watch", &pid, "--every", "30s", "--why"]).ok();
    assert!(ran.stderr.contains("there was no second summary"), "{ran}");
}

#[test]
fn heaps_of_two_versions_are_compared_with_a_warning() {
    let _company = common::in_company();
    let mut pythons = readable();
    let (Some(old), Some(new)) = (pythons.next(), pythons.next()) else {
        common::not_here("two interpreters");
        return;
    };
    let snapshot = |python: &Python| {
        let stage = python.stage();
        let file = stage.path().join("a.heap").display().to_string();
        let code = "import time; print('ready', flush=True); time.sleep(100)";
        let target = python.start(&["-c", code]);
        biopsy(&[
            "heap",
            "snapshot",
            &target.pid.to_string(),
            "-q",
            "-o",
            &file,
        ])
        .ok();
        (stage, file)
    };
    let (one, other) = (snapshot(old), snapshot(new));
    let report = one.0.path().join("a.md").display().to_string();
    let ran = biopsy(&[
        "heap", "diff", &one.1, &other.1, "--json", "--report", &report,
    ])
    .ok();
    let told = format!(
        "the old heap is of Python {}, the new one of {}",
        old.version, new.version
    );
    assert!(ran.stderr.contains(&told), "{ran}");
    assert!(
        std::fs::read_to_string(&report)
            .expect("written")
            .contains(&told)
    );
    assert_eq!(ran.json()["old_python"], old.version);
    let same = biopsy(&["heap", "diff", &one.1, &one.1]).ok();
    assert!(!same.stderr.contains("is of Python"), "{same}");
    let listed = biopsy(&["heap", "objects", &one.1, "--type", "dict", "--json"]).ok();
    let row: Value =
        serde_json::from_str(listed.stdout.lines().next().expect("one")).expect("JSON");
    let address = row["address"].as_str().expect("text, as in all documents");
    biopsy(&["heap", "path", &one.1, "--address", address]).ok();
}
