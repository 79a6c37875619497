//! The heap commands as a person runs them, on living programs: what they print, in each form, and how they end.

use crate::common;

use std::path::Path;
use std::time::Duration;

use common::{Python, Ran, Stage, Target, biopsy, biopsy_command, not_here, run, send_signal};
use serde_json::Value;

/// Interpreters whose heaps can be read.
fn readable() -> impl Iterator<Item = &'static Python> {
    Python::all().iter().filter(|python| python.minor >= 8)
}

/// Interpreters that can be started with our folder on their path: a chroot does not have it.
fn startable() -> Vec<&'static Python> {
    readable()
        .filter(|python| {
            if python.root.is_some() {
                not_here(format!(
                    "a way to put a moment into {python}, which stands in a chroot"
                ));
            }
            python.root.is_none()
        })
        .collect()
}

/// Makes 100 sessions, and 50 more for each line that it reads; ends with 7.
const SESSIONS: &str = r#"
import sys
class Session(object):
    def __init__(self, number):
        self.number = number
kept = [Session(number) for number in range(100)]
print("ready", flush=True)
for line in sys.stdin:
    kept.extend([Session(number) for number in range(50)])
    print("more", flush=True)
sys.exit(7)
"#;

/// Calls `work.run` ten times, each of which keeps one job, and ends with 5.
const WORK: &str = "
class Job(object):
    pass
kept = []
def run(number):
    kept.append(Job())
    return number
";
const WORKER: &str = "
import sys
import work
for number in range(10):
    assert work.run(number) == number
sys.exit(5)
";

fn sessions(python: &Python, stage: &Stage) -> Target {
    let path = stage.put("sessions.py", SESSIONS);
    python.start(&[&path])
}

fn file(stage: &Stage, name: &str) -> String {
    stage.path().join(name).display().to_string()
}

/// Objects of a type in a summary or the change in a difference.
fn objects_of(document: &Value, name: &str) -> Option<i64> {
    let rows = document["types"].as_array()?;
    let row = rows.iter().find(|row| row["type"] == name)?;
    row["objects"].as_i64()
}

#[test]
fn a_summary_counts_what_the_program_made_on_each_interpreter() {
    let _company = common::in_company();
    for python in readable() {
        let stage = python.stage();
        let mut target = sessions(python, &stage);
        let pid = target.pid.to_string();
        let table = biopsy(&["heap", "summary", &pid, "--limit", "all"]).ok();
        let lines: Vec<&str> = table.stdout.lines().collect();
        assert!(lines[0].starts_with("everything reachable: "), "{table}");
        assert!(
            lines[0].contains(&format!("Python {}", python.version)),
            "{table}"
        );
        assert!(lines[0].contains("stopped for "), "{table}");
        assert!(lines[2].trim_start().starts_with("types | "), "{table}");
        assert!(lines[3].chars().all(|c| "= |".contains(c)), "{table}");
        let row = lines
            .iter()
            .find(|line| line.contains("__main__.Session |"));
        let row = row.unwrap_or_else(|| panic!("{python}{table}"));
        assert!(row.contains("|         100 |"), "{python}: {row}");

        let json = biopsy(&["heap", "summary", &pid, "--json"]).ok().json();
        assert_eq!(json["schema"], "biopsy.heap-summary/1");
        assert_eq!(json["python"], python.version.as_str());
        assert_eq!(json["pid"], target.pid);
        assert!(json["pause_ms"].as_f64().is_some_and(|pause| pause > 0.0));
        assert_eq!(objects_of(&json, "__main__.Session"), Some(100), "{python}");
        let sum: i64 = json["types"]
            .as_array()
            .expect("rows")
            .iter()
            .filter_map(|row| row["objects"].as_i64())
            .sum();
        assert_eq!(json["total"]["objects"], sum);

        let muppy = biopsy(&["heap", "summary", &pid, "--muppy", "--json"])
            .ok()
            .json();
        assert_eq!(muppy["counting"], "muppy");
        assert_eq!(
            objects_of(&muppy, "__main__.Session"),
            Some(100),
            "{python}"
        );
        assert!(muppy["total"]["objects"].as_i64() < Some(sum), "{python}");

        let listed = biopsy(&["heap", "objects", &pid, "--type", "*.Session", "--json"]).ok();
        let listed: Vec<Value> = listed
            .stdout
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        assert_eq!(listed.len(), 100, "{python}");
        assert!(
            listed.iter().all(|object| object["refcount"] == 1),
            "{python}"
        );
        target.assert_free();
    }
}

#[test]
fn snapshots_summaries_and_processes_compare_and_rules_break() {
    let _company = common::in_company();
    for python in readable() {
        let stage = python.stage();
        let mut target = sessions(python, &stage);
        let pid = target.pid.to_string();
        let (old, new) = (file(&stage, "old.heap"), file(&stage, "new.heap"));
        let snapshot = |path: &str| biopsy(&["heap", "snapshot", &pid, "-o", path]).ok();
        snapshot(&old);
        let summary = biopsy(&["heap", "summary", &pid, "--json"]).ok();
        let summary_path = file(&stage, "old.json");
        std::fs::write(&summary_path, &summary.bytes).expect("written");
        target.tell("more");
        assert_eq!(target.line(), "more");
        snapshot(&new);
        let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&new).expect("there"));
        assert_eq!(mode & 0o777, 0o600);

        for (a, b) in [(&old, &new), (&summary_path, &pid), (&summary_path, &new)] {
            let diff = biopsy(&["heap", "diff", a, b, "--json", "--fail-on", "*.Session:+50"]).ok();
            let diff = diff.json();
            assert_eq!(
                objects_of(&diff, "__main__.Session"),
                Some(50),
                "{python} {a} {b}"
            );
            assert_eq!(diff["broken"], Value::Array(Vec::new()));
            let broken = biopsy(&["heap", "diff", a, b, "--fail-on", "*.Session:+49"]);
            let broken = broken.expect_code(3);
            let verdict = "*.Session:+49 is broken by __main__.Session: +50 objects";
            assert!(broken.stderr.contains(verdict), "{broken}");
            assert!(
                broken.stdout.contains("__main__.Session |         +50 |"),
                "{broken}"
            );
        }
        // Object by object, where both are of one process.
        let diff = biopsy(&["heap", "diff", &old, &new, "--json"]).ok().json();
        let fates = diff["objects"].as_array().expect("objects");
        let row = fates.iter().find(|row| row["type"] == "__main__.Session");
        let row = row.expect("sessions");
        assert_eq!(row["new"]["objects"], 50, "{python}");
        assert_eq!(row["survived"]["objects"], 100, "{python}");
        assert_eq!(row["gone"]["objects"], 0, "{python}");
        target.assert_free();
    }
}

#[test]
fn a_difference_is_written_in_each_form() {
    let _company = common::in_company();
    let python = Python::any();
    let stage = python.stage();
    let mut target = sessions(python, &stage);
    let pid = target.pid.to_string();
    let old = file(&stage, "old.json");
    let summary = biopsy(&["heap", "summary", &pid, "--json"]).ok();
    std::fs::write(&old, &summary.bytes).expect("written");
    target.tell("more");
    target.line();
    let (markdown, junit) = (file(&stage, "diff.md"), file(&stage, "diff.xml"));
    biopsy(&[
        "heap",
        "diff",
        &old,
        &pid,
        "--fail-on",
        "*.Session:+10",
        "--fail-on",
        "total:+1GiB",
        "--report",
        &markdown,
        "--report",
        &junit,
    ])
    .expect_code(3);

    let text = std::fs::read_to_string(&junit).expect("written");
    let document = roxmltree::Document::parse(&text).expect("XML");
    let suites = document.root_element();
    assert_eq!(suites.attribute("tests"), Some("2"));
    assert_eq!(suites.attribute("failures"), Some("1"));
    let case = document
        .descendants()
        .find(|node| node.attribute("name") == Some("*.Session:+10"))
        .expect("a test of each rule");
    let message = case
        .first_element_child()
        .and_then(|node| node.attribute("message"));
    assert_eq!(
        message,
        Some("*.Session:+10 is broken by __main__.Session: +50 objects")
    );

    let text = std::fs::read_to_string(&markdown).expect("written");
    let tables: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
    let columns = |line: &str| line.matches(" |").count();
    let types = tables
        .iter()
        .position(|line| line.starts_with("| type |"))
        .expect("a table of types");
    assert_eq!(tables[types + 1], "| --- | ---: | ---: | ---: | ---: |");
    assert!(
        tables[types..].iter().all(|line| columns(line) == 5),
        "{text}"
    );
    assert!(text.contains("| `__main__.Session` | +50 |"), "{text}");

    let junit = biopsy(&["heap", "summary", &pid, "--format", "junit"]).ok();
    roxmltree::Document::parse(&junit.stdout).expect("XML");
    let markdown = biopsy(&[
        "heap", "summary", &pid, "--format", "markdown", "--limit", "2",
    ])
    .ok();
    assert!(
        markdown.stdout.contains("\n| --- | ---: | ---: |\n"),
        "{markdown}"
    );
}

#[test]
fn the_table_is_the_one_that_pympler_prints() {
    let _company = common::in_company();
    let Some(venv) = common::venv() else {
        return not_here("a venv with pympler");
    };
    let python = venv.join("bin/python");
    let asks = |code: &str, arguments: &[&str]| -> Ran {
        let mut command = std::process::Command::new(&python);
        run(command.args(["-c", code]).args(arguments))
    };
    if asks("import pympler", &[]).code() != 0 {
        return not_here("pympler in the venv");
    }
    let stage = Python::any().stage();
    let target = sessions(Python::any(), &stage);
    let snapshot = file(&stage, "a.heap");
    biopsy(&["heap", "snapshot", &target.pid.to_string(), "-o", &snapshot]).ok();
    let json = biopsy(&["heap", "summary", &snapshot, "--json", "--sort", "type"]).ok();
    let path = file(&stage, "a.json");
    std::fs::write(&path, &json.bytes).expect("written");
    let printed = asks(
        "import json, sys\n\
         from pympler import summary\n\
         rows = json.load(open(sys.argv[1]))['types']\n\
         summary.print_([[row['type'], row['objects'], row['bytes']] for row in rows],\n\
                        sort=sys.argv[2], limit=int(sys.argv[3]))",
        &[&path, "#", "25"],
    );
    let printed = printed.ok();
    let ours = biopsy(&[
        "heap", "summary", &snapshot, "--sort", "count", "--limit", "25",
    ])
    .ok();
    let table: String = ours.stdout.split_inclusive('\n').skip(2).take(27).collect();
    assert_eq!(table, printed.stdout, "{ours}");
}

#[test]
fn watching_names_what_grows_in_every_step_until_the_end() {
    let _company = common::in_company();
    let python = Python::any();
    let stage = python.stage();
    let path = stage.put(
        "growing.py",
        "import time\nclass Session: pass\nkept = []\nprint('ready', flush=True)\n\
         while True:\n    kept.append(Session()); time.sleep(0.002)\n",
    );
    let target = python.start(&[&path]);
    let pid = target.pid.to_string();
    let watched = biopsy(&["heap", "watch", &pid, "--every", "300ms", "--count", "3"]).ok();
    assert_eq!(watched.stdout.matches("\nafter ").count(), 3, "{watched}");
    assert!(watched.stdout.contains("3 steps over "), "{watched}");
    let end = watched.stdout.rsplit("grew in every one").next();
    assert!(
        end.is_some_and(|end| end.contains("__main__.Session")),
        "{watched}"
    );
    assert!(!watched.stdout.contains('\x1b'), "{watched}");

    // To the program's end: what was gathered is written.
    let arguments = [
        "heap",
        "watch",
        &pid,
        "--every",
        "300ms",
        "--type",
        "*.Session",
        "--json",
    ];
    let watching = common::Running::start(&mut biopsy_command(&arguments), b"");
    std::thread::sleep(Duration::from_millis(2000));
    send_signal("KILL", target.pid);
    let watched = watching.finish(common::PATIENCE).ok();
    let lines: Vec<Value> = watched
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let (growth, steps) = lines.split_last().expect("lines");
    assert_eq!(growth["schema"], "biopsy.heap-growth/1");
    assert_eq!(growth["types"][0]["type"], "__main__.Session");
    assert!(growth["types"][0]["objects_per_minute"].as_f64() > Some(0.0));
    for (number, step) in steps.iter().enumerate() {
        assert_eq!(step["schema"], "biopsy.heap-step/1");
        assert_eq!(step["step"], number);
    }
    assert!(watched.stderr.contains("has ended"), "{watched}");
}

#[test]
fn ctrl_c_ends_watching_with_what_was_gathered() {
    let _company = common::in_company();
    let python = Python::any();
    let stage = python.stage();
    let mut target = sessions(python, &stage);
    let arguments = ["heap", "watch", &target.pid.to_string(), "--every", "100ms"];
    let watching = common::Running::start(&mut biopsy_command(&arguments), b"");
    std::thread::sleep(Duration::from_millis(1500));
    send_signal("INT", watching.pid());
    let watched = watching.finish(common::PATIENCE).ok();
    assert!(
        watched.stdout.contains("no type grew in every one"),
        "{watched}"
    );
    target.assert_free();
}

fn worker(stage: &Stage) -> String {
    stage.put("work.py", WORK);
    stage.put("worker.py", WORKER)
}

fn heap_run(python: &Python, options: &[&str], command: &[&str]) -> Ran {
    let mut words = vec!["heap", "run", "--python", &python.command[0]];
    words.extend(options);
    words.push("--");
    words.extend(command);
    biopsy(&words)
}

#[test]
fn moments_of_a_program_come_on_each_interpreter() {
    let _company = common::in_company();
    for python in startable() {
        let stage = python.stage();
        let path = worker(&stage);
        let ran = heap_run(python, &["--json", "--type", "work.*"], &[&path]).expect_code(5);
        assert_eq!(
            objects_of(&ran.json(), "work.Job"),
            Some(10),
            "{python}{ran}"
        );

        let name = file(&stage, "jobs.heap");
        let options = [
            "--at",
            "call:work:run:both:5",
            "-o",
            &name,
            "--fail-on",
            "work.*:+5",
            "--json",
        ];
        let ran = heap_run(python, &options, &[&path]).expect_code(3);
        // Before the 5th call there are 4 jobs, after the 10th 10.
        assert_eq!(
            objects_of(&ran.json(), "work.Job"),
            Some(6),
            "{python}{ran}"
        );
        let jobs = |number: u32| {
            let path = file(&stage, &format!("jobs.{number}.heap"));
            let summary = biopsy(&["heap", "summary", &path, "--json"]).ok().json();
            objects_of(&summary, "work.Job")
        };
        let counts: Vec<Option<i64>> = (1..=4).map(jobs).collect();
        assert_eq!(
            counts,
            [Some(4), Some(5), Some(9), Some(10)],
            "{python}{ran}"
        );
        assert!(!Path::new(&file(&stage, "jobs.5.heap")).exists());
    }
}

#[test]
fn a_run_is_held_against_a_baseline() {
    let _company = common::in_company();
    let python = Python::any();
    let stage = python.stage();
    let path = worker(&stage);
    let baseline = file(&stage, "main.heap");
    let few = stage.put("few.py", "import work\nwork.run(1)\n");
    heap_run(python, &["-o", &baseline], &[&few]).ok();
    let report = file(&stage, "report.xml");
    let against = |rule: &str| {
        heap_run(
            python,
            &[
                "--baseline",
                &baseline,
                "--fail-on",
                rule,
                "--report",
                &report,
            ],
            &[&path],
        )
    };
    against("work.*:+9").expect_code(5);
    let broken = against("work.*:+8").expect_code(3);
    assert!(broken.stderr.contains("work.Job: +9 objects"), "{broken}");
    let text = std::fs::read_to_string(&report).expect("written");
    assert!(roxmltree::Document::parse(&text).is_ok());
    // The same program twice: the bootstrap adds nothing that grows.
    let same = heap_run(
        python,
        &[
            "--baseline",
            &baseline,
            "--fail-on",
            "objects:+50",
            "--json",
        ],
        &[&few],
    );
    same.ok();
}

#[test]
fn snapshots_by_the_clock_need_nothing_in_the_program() {
    let _company = common::in_company();
    let python = Python::any();
    let stage = python.stage();
    let path = stage.put(
        "sleep.py",
        "import time, sys\ntime.sleep(1.5)\nsys.exit(4)\n",
    );
    let name = file(&stage, "clock.heap");
    let ran = heap_run(python, &["--every", "400ms", "-o", &name], &[&path]).expect_code(4);
    assert!(Path::new(&file(&stage, "clock.1.heap")).exists(), "{ran}");
    assert!(ran.stderr.contains("by the clock"), "{ran}");
}

#[test]
fn a_flask_application_tells_of_its_requests() {
    let _company = common::in_company();
    let Some(venv) = common::venv() else {
        return not_here("a venv with Flask");
    };
    let stage = Python::any().stage();
    stage.put(
        "shop.py",
        "from flask import Flask\n\
         class Basket: pass\n\
         app = Flask(__name__)\n\
         baskets = []\n\
         @app.route('/buy')\n\
         def buy():\n    baskets.append(Basket())\n    return 'bought'\n",
    );
    let path = stage.put(
        "requests.py",
        "from shop import app\n\
         client = app.test_client()\n\
         for number in range(6):\n    assert client.get('/buy').data == b'bought'\n",
    );
    let python = venv.join("bin/python").display().to_string();
    let probe = run(std::process::Command::new(&python).args(["-c", "import flask"]));
    if probe.code() != 0 {
        return not_here("Flask in the venv");
    }
    let ran = biopsy(&[
        "heap",
        "run",
        "--python",
        &python,
        "--at",
        "call:shop:buy:3",
        "--fail-on",
        "shop.Basket:+2",
        "--json",
        "--",
        &path,
    ])
    .expect_code(3);
    assert_eq!(objects_of(&ran.json(), "shop.Basket"), Some(3), "{ran}");
}

#[test]
fn what_cannot_be_done_is_said_in_one_line() {
    let _company = common::in_company();
    biopsy(&["heap", "summary", "999999999"]).refused(1, "no such process");
    biopsy(&["heap", "summary", "/etc/passwd"]).refused(1, "no heap snapshot");
    biopsy(&["heap", "summary", "./none.heap"]).refused(1, "no such file");
    biopsy(&["heap", "summary"]).refused(2, "no heap");
    biopsy(&["heap"]).refused(2, "wrong command line");
    biopsy(&["heap", "diff", "a", "b", "--fail-on", "total"]).refused(2, "--fail-on");
    biopsy(&["heap", "run", "--at", "noon", "--", "x.py"]).refused(2, "--at");
    biopsy(&["heap", "run", "--", "python3", "-I", "x.py"]).refused(2, "-I");
    biopsy(&["heap", "run", "--fail-on", "total:+1%", "--", "x.py"]).refused(2, "one snapshot");
    biopsy(&["heap", "snapshot", "1", "-o", "/nonexistent/x.heap"]).refused(1, "folder");
    let stage = Python::any().stage();
    let code = stage.put("end.py", "import os\nos._exit(0)\n");
    heap_run(Python::any(), &[], &[&code]).refused(1, "none of the moments came");
    let code = stage.put("none.py", "import json\n");
    heap_run(Python::any(), &["--at", "call:json:nothing"], &[&code]).refused(1, "json:nothing");
    for python in Python::all().iter().filter(|python| python.minor < 8) {
        let target = python.start(&["-c", "print('ready', flush=True); input()"]);
        let ran = biopsy(&["heap", "summary", &target.pid.to_string()]);
        assert!(ran.stderr.contains("3.8 to 3.15"), "{python}{ran}");
        ran.refused(1, &python.version);
    }
}

#[test]
fn heaps_of_two_versions_are_compared_with_a_note() {
    let pythons: Vec<&Python> = Python::all().iter().filter(|p| p.minor >= 8).collect();
    let [first, .., last] = pythons.as_slice() else {
        return not_here("two versions of Python");
    };
    let waits = ["-c", "print('ready', flush=True); input()"];
    let (old, new) = (first.start(&waits), last.start(&waits));
    let (old, new) = (old.pid.to_string(), new.pid.to_string());
    let ran = biopsy(&["heap", "diff", &old, &new]).ok();
    let said = "change with the version";
    assert!(ran.stderr.contains(said), "{}", ran.stderr);
    assert_eq!(biopsy(&["heap", "diff", &old, &old]).ok().stderr, "");
}
