//! `biopsy run --exact` beside the interpreter's own `python -m cProfile`: the same call counts, and a program
//! that notices nothing.

mod lines;

use crate::common;

use std::collections::BTreeMap;
use std::process::Command;

use common::{
    PATIENCE, Python, Running, Stage, biopsy, biopsy_command, in_company, run, send_signal,
};
use serde_json::Value;

/// Call counts of a `.prof` file as pstats of the same interpreter reads them: `file:line(name)` to
/// (primitive, all), of functions in files of that folder and of C functions.
const COUNTS: &str = r#"
import json, pstats, sys
stats = pstats.Stats(sys.argv[1]).stats
print(json.dumps({"%s:%s(%s)" % key: value[:2] for key, value in stats.items()}))
"#;

/// The same, counted by cProfile itself. Not through its `create_stats`: of two functions with one name on one
/// line, such as two lambdas, that keeps only the last.
const CPROFILE: &str = r#"
import cProfile, json, sys
path = sys.argv[1]
with open(path, "rb") as file:
    code = compile(file.read(), path, "exec")
names = {"__name__": "__main__", "__file__": path}
profiler = cProfile.Profile()
profiler.runctx(code, names, names)
counts = {}
for entry in profiler.getstats():
    key = "%s:%s(%s)" % cProfile.label(entry.code)
    primitive, calls = counts.get(key, (0, 0))
    counts[key] = (primitive + entry.callcount - entry.reccallcount, calls + entry.callcount)
print(json.dumps(counts))
"#;

type Counts = BTreeMap<String, (u64, u64)>;

fn counts(python: &Python, path: &str) -> Counts {
    let ran = run(&mut python.command(&["-c", COUNTS, path])).ok();
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}{ran}"))
}

fn exact_command(options: &[&str], python: &Python, arguments: &[&str]) -> Command {
    let mut words = vec!["run".to_string(), "--exact".to_string()];
    words.extend(options.iter().map(|word| word.to_string()));
    words.push("--".to_string());
    words.extend(python.words(arguments));
    biopsy_command(&words)
}

/// Whether `--exact` can be put before this interpreter's command line.
fn usable(python: &Python) -> bool {
    if python.root.is_some() {
        common::not_here(format_args!(
            "a way to put --exact before {python}, which stands in a chroot"
        ));
    }
    python.root.is_none()
}

fn outside(stage: &Stage, name: &str) -> String {
    stage.path().join(name).to_str().expect("UTF-8").to_string()
}

/// The program's own functions: those of its file and of code that it made itself.
fn own(counts: &Counts) -> Counts {
    let is_own =
        |function: &str| function.contains("mixed_lines.py:") || function.starts_with("<template");
    counts
        .iter()
        .filter(|(function, _)| is_own(function))
        .map(|(k, v)| (k.clone(), *v))
        .collect()
}

#[test]
fn calls_are_those_that_cprofile_counts() {
    let _shared = in_company();
    let mut wrong = Vec::new();
    for python in Python::all().iter().filter(|python| usable(python)) {
        eprintln!("{python}");
        let stage = python.stage();
        let script = stage.fixture("mixed_lines.py");
        let theirs = run(&mut python.command(&["-c", CPROFILE, &script])).ok();
        let (printed, counted) = theirs
            .stdout
            .trim_end()
            .rsplit_once('\n')
            .expect("two lines");
        let ours_path = outside(&stage, "ours.prof");
        let ours = run(&mut exact_command(
            &["-q", "-o", &ours_path],
            python,
            &[&script],
        ))
        .ok();
        assert_eq!(ours.stdout.trim_end(), printed, "{python}");
        let expected: Counts = serde_json::from_str(counted).expect("JSON");
        let found = counts(python, &stage.inside("ours.prof"));
        let (own_expected, own_found) = (own(&expected), own(&found));
        assert!(own_expected.len() > 40, "{own_expected:?}");
        let all: std::collections::BTreeSet<&String> =
            own_found.keys().chain(own_expected.keys()).collect();
        let differences: Vec<String> = all
            .into_iter()
            .filter(|function| own_found.get(*function) != own_expected.get(*function))
            .map(|function| {
                let of = |counts: &Counts| counts.get(function).copied();
                format!(
                    "{function}: {:?}, cProfile {:?}",
                    of(&own_found),
                    of(&own_expected)
                )
            })
            .collect();
        if !differences.is_empty() {
            wrong.push(format!("{python}:\n  {}", differences.join("\n  ")));
        }
        // C functions that the program calls; what it imports may call them as well, and cProfile's own command
        // has imported some of that before it counts.
        for (function, calls) in &expected {
            let of_program = [
                "builtins.sorted",
                "builtins.abs",
                "'sort' of 'list'",
                "builtins.max",
            ];
            if of_program.iter().any(|name| function.contains(name)) {
                assert!(found.get(function) >= Some(calls), "{python}: {function}");
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_program_notices_nothing() {
    let _shared = in_company();
    for python in Python::all().iter().filter(|python| usable(python)) {
        eprintln!("{python}");
        let stage = python.stage();
        let script = stage.fixture("exits.py");
        let module = stage.path().join("exits").with_extension("");
        let folder = module.parent().expect("folder");
        for arguments in [
            &[script.as_str(), "argv", "a b", "-o", "x"][..],
            &["-m", "exits", "argv", "--exact"],
            &["-O", "-W", "ignore", &script, "argv"],
            &[&script, "code", "7"],
            &[&script, "raise"],
            &[&script, "exit-text", "so long"],
            &[&script, "signal", "TERM"],
            &[&script, "signal", "INT"],
            &[&script, "atexit"],
            &[
                "-c",
                "import sys; print(sys.argv, __name__, __file__ if '__file__' in dir() else None)",
                "x",
                "y",
            ],
            &["-c", "1/0"],
            &["-c", "import sys; sys.exit(sys.argv[1])", "bye"],
            &[&stage.put("wrong.py", "def f(:\n"), "x"],
            &["/nonexistent/script.py"],
            &["-m", "no_such_module_anywhere"],
        ] {
            let plain = run(python.command(arguments).current_dir(folder));
            let table = outside(&stage, "table");
            let mut command =
                exact_command(&["-q", "-o", &table, "-f", "table"], python, arguments);
            let ours = run(command.current_dir(folder));
            assert_eq!(ours.code(), plain.code(), "{python}{plain}{ours}");
            assert_eq!(ours.stdout, plain.stdout, "{python}{plain}{ours}");
            // Said by biopsy beside: that a killed program left no profile.
            let said: Vec<&str> = ours
                .stderr
                .lines()
                .filter(|line| !line.starts_with("biopsy:"))
                .collect();
            let expected: Vec<&str> = plain.stderr.lines().collect();
            assert_eq!(said, expected, "{python}{plain}{ours}");
        }
    }
}

#[test]
fn every_thread_is_counted() {
    let _shared = in_company();
    for python in Python::all().iter().filter(|python| usable(python)) {
        eprintln!("{python}");
        let stage = python.stage();
        let script = stage.fixture("exits.py");
        let path = outside(&stage, "a.prof");
        let ran = run(&mut exact_command(
            &["-q", "-o", &path],
            python,
            &[&script, "threads"],
        ))
        .ok();
        let said: Value = ran.json();
        let found = counts(python, &path);
        let job = found
            .iter()
            .find(|(function, _)| function.ends_with("(job)"))
            .expect("job");
        assert_eq!(Some(job.1.1), said["job"].as_u64(), "{python}{ran}");
    }
}

#[test]
fn every_output_comes_from_an_exact_run() {
    let _shared = in_company();
    let python = Python::any();
    if !usable(python) {
        return;
    }
    let stage = python.stage();
    let script = stage.fixture("mixed_lines.py");
    let names = [
        "a.prof",
        "callgrind.out.a",
        "a.svg",
        "a.collapsed",
        "a.speedscope.json",
        "a.gecko.json",
        "a.pb.gz",
        "a.json",
        "a.biopsy",
    ];
    let paths: Vec<String> = names.iter().map(|name| outside(&stage, name)).collect();
    let options: Vec<&str> = paths
        .iter()
        .flat_map(|path| ["-o", path.as_str()])
        .collect();
    let ran = run(&mut exact_command(&options, python, &[&script])).ok();
    for path in &paths {
        assert!(
            std::fs::metadata(path).expect("written").len() > 100,
            "{path}{ran}"
        );
    }
    let document: Value =
        serde_json::from_slice(&std::fs::read(&paths[7]).expect("read")).expect("JSON");
    assert_eq!(document["calls_exact"], true);
    let table = |path: &str| {
        let ran = biopsy(&["report", path, "-s", "ncalls,name", "--strip-dirs"]).ok();
        let rows: Vec<String> = ran.stdout.lines().skip(1).map(str::to_string).collect();
        rows.join("\n")
    };
    assert_eq!(
        table(&paths[8]),
        table(&paths[0]),
        "from .biopsy and from .prof"
    );
}

#[test]
fn an_interrupted_program_leaves_its_counts() {
    let _shared = in_company();
    for python in Python::all().iter().filter(|python| usable(python)) {
        let stage = python.stage();
        let code = "import time\ndef step(): time.sleep(0.01)\ndef main():\n    open('started', 'w')\n    while True: step()\nmain()\n";
        let script = stage.put("endless.py", code);
        let path = outside(&stage, "a.prof");
        let mut command = exact_command(&["-q", "-o", &path], python, &[&script]);
        let running = Running::start(command.current_dir(stage.path()), b"");
        common::wait_until("it is under way", || stage.path().join("started").exists());
        std::thread::sleep(std::time::Duration::from_millis(200));
        send_signal("INT", running.pid());
        let ran = running.finish(PATIENCE);
        let code = if python.minor < 8 { 1 } else { 130 };
        let ran = ran.expect_code(code);
        assert!(ran.stderr.contains("KeyboardInterrupt"), "{ran}");
        let steps = counts(python, &path);
        assert!(
            steps
                .iter()
                .any(|(function, calls)| function.ends_with("(step)") && calls.1 > 5),
            "{steps:?}"
        );
    }
}

/// The bootstrap's own test in one interpreter (about half a minute each; `python3.X tests/exact_bootstrap.py` runs it
/// in any): what a program sees of itself, its tracebacks and exit status byte by byte beside a plain run,
/// counts and times of threads.
#[test]
fn the_bootstraps_own_test_passes() {
    let _shared = in_company();
    let python = Python::any();
    common::say(format_args!("the bootstrap's own test: {python} only"));
    let script = common::project().join("tests/exact_bootstrap.py");
    let script = script.to_str().expect("UTF-8");
    let ran = common::run_with(&mut python.command(&[script]), b"", 4 * PATIENCE);
    assert_eq!(ran.code(), 0, "{python}{ran}");
}
