//! `biopsy run --exact --lines` beside line_profiler and beside a counter that has nothing in common with ours.

use std::collections::BTreeMap;

use super::{exact_command, outside, usable};
use crate::common::{Python, Ran, biopsy, in_company, not_here, run};

/// Hits by function (`name:first line`) and line.
type Hits = BTreeMap<(String, u32), BTreeMap<u32, u64>>;

const SCRIPT: &str = "every_line.py";

/// The hits in line_profiler's table, functions without their class.
fn table(text: &str) -> Hits {
    let mut hits = Hits::new();
    let mut function = None;
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix("Function: ") {
            let (name, first) = heading.split_once(" at line ").expect("a heading");
            let name = name.rsplit('.').next().unwrap_or(name);
            function = Some((name.to_string(), first.parse().expect("a line")));
        } else if let (Some(function), Some(number), Some(count)) = (
            &function,
            line.get(..6).and_then(|text| text.trim().parse().ok()),
            line.get(7..16).and_then(|text| text.trim().parse().ok()),
        ) {
            let lines: &mut BTreeMap<u32, u64> = hits.entry(function.clone()).or_default();
            lines.insert(number, count);
        }
    }
    hits
}

fn counted(python: &Python, options: &[&str], arguments: &[&str]) -> Ran {
    let options = [&["-q", "--lines"][..], options].concat();
    run(&mut exact_command(&options, python, arguments)).ok()
}

fn of(hits: &Hits, name: &str) -> BTreeMap<u32, u64> {
    let found = hits.iter().find(|((function, _), _)| function == name);
    found.map(|(_, lines)| lines.clone()).unwrap_or_default()
}

/// Counts the lines of the script's code by itself: trace functions, or LINE events of all code.
const COUNTER: &str = r#"
import json, sys
path = sys.argv[1]
hits = {}
def count(code, line):
    if code.co_filename == path:
        lines = hits.setdefault('%s:%d' % (code.co_name, code.co_firstlineno), {})
        lines[line] = lines.get(line, 0) + 1
def trace(frame, event, arg):
    if event == 'line':
        count(frame.f_code, frame.f_lineno)
    return trace
with open(path) as file:
    code = compile(file.read(), path, 'exec')
names = {'__name__': '__main__', '__file__': path}
sys.argv = [path]
if sys.version_info >= (3, 12):
    events = sys.monitoring.events
    sys.monitoring.use_tool_id(2, 'counter')
    sys.monitoring.register_callback(2, events.LINE, count)
    # Without an event of its own a RESUME hides the line that it is in.
    sys.monitoring.register_callback(2, events.PY_START, lambda code, offset: None)
    sys.monitoring.set_events(2, events.LINE | events.PY_START)
    exec(code, names)
    sys.monitoring.set_events(2, 0)
else:
    sys.settrace(trace)
    exec(code, names)
    sys.settrace(None)
print(json.dumps(hits))
"#;

#[test]
fn hits_are_those_that_an_independent_counter_has() {
    let _shared = in_company();
    let mut wrong = Vec::new();
    for python in Python::all().iter().filter(|python| usable(python)) {
        eprintln!("{python}");
        let stage = python.stage();
        let script = stage.fixture(SCRIPT);
        let theirs = run(&mut python.command(&["-c", COUNTER, &script])).ok();
        let last = theirs.stdout.lines().last().expect("JSON");
        let theirs: BTreeMap<String, BTreeMap<u32, u64>> =
            serde_json::from_str(last).expect("JSON");
        let ran = counted(python, &[], &[&script]);
        let ours = table(&ran.stdout);
        assert!(theirs.len() > 20, "{theirs:?}");
        for (function, lines) in &theirs {
            let (name, first) = function.split_once(':').expect("name:line");
            let key = (name.to_string(), first.parse().expect("a line"));
            if ours.get(&key) != Some(lines) {
                wrong.push(format!(
                    "{python} {function}: {:?}, counted {lines:?}",
                    ours.get(&key)
                ));
            }
        }
        let names = ours
            .keys()
            .filter(|(name, first)| !theirs.contains_key(&format!("{name}:{first}")));
        wrong.extend(names.map(|name| format!("{python}: {name:?} was not called")));
        // Functions of one line, which line_profiler does not see from 3.13 on.
        assert_eq!(
            of(&ours, "one").into_values().collect::<Vec<_>>(),
            [5],
            "{ran}"
        );
        assert_eq!(
            of(&ours, "gen_one").into_values().collect::<Vec<_>>(),
            [5],
            "{ran}"
        );
        // What the program imports is not its own.
        assert!(!ran.stdout.contains("/asyncio/"), "{ran}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The functions of the script, each under line_profiler's decorator.
const DECORATED: &str = r#"
import inspect, sys, line_profiler
profiler = line_profiler.LineProfiler()
path = sys.argv[1]
with open(path) as file:
    code = compile(file.read(), path, 'exec')
names = {'__name__': 'every_line', '__file__': path}
exec(code, names)
for name, value in list(names.items()):
    if inspect.isfunction(value) and value.__code__.co_filename == path and name not in ('deco', 'forks'):
        names[name] = profiler(value)
names['main']()
profiler.dump_stats(sys.argv[2])
"#;

#[test]
fn hits_are_line_profilers_and_its_files_are_ours() {
    let _shared = in_company();
    let Some(python) = Python::with_module("line_profiler") else {
        return not_here("line_profiler (bash .ci/run makes a venv with it)");
    };
    let stage = python.stage();
    let script = stage.fixture(SCRIPT);
    let [theirs, ours] = ["theirs.lprof", "ours.lprof"].map(|name| outside(&stage, name));
    run(&mut python.command(&["-c", DECORATED, &script, &theirs])).ok();
    let ran = counted(&python, &["-o", &ours], &[&script]);
    let read = |path: &str| biopsy(&["report", path]).ok().stdout;
    let (their_hits, our_hits) = (table(&read(&theirs)), table(&ran.stdout));
    assert!(their_hits.len() > 9, "{their_hits:?}");
    for ((name, first), lines) in &their_hits {
        // Newer ones have qualified names.
        let name = name.rsplit('.').next().expect("a name");
        assert_eq!(
            our_hits.get(&(name.to_string(), *first)),
            Some(lines),
            "{name}"
        );
    }
    for path in [&theirs, &ours] {
        let shown = run(&mut python.command(&["-m", "line_profiler", path])).ok();
        let blocks = |text: &str| -> std::collections::BTreeSet<String> {
            let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
            let text = lines.join("\n");
            // line_profiler cuts a module's lines off at its first function.
            let blocks = text
                .split("\n\nTotal time")
                .filter(|block| !block.contains("<module>"));
            let blocks = blocks.map(|block| {
                // Of what has no name line_profiler shows what follows it, too.
                let heading = block.lines().find(|line| line.starts_with("Function: "));
                let is_unnamed = heading.is_some_and(|line| line.contains("> at line "));
                let is_shown = |line: &&str| {
                    let hits = line.get(7..16).is_some_and(|hits| !hits.trim().is_empty());
                    hits || !is_unnamed || !line.starts_with("    ")
                };
                let lines: Vec<&str> = block.trim_end().lines().filter(is_shown).collect();
                lines.join("\n")
            });
            blocks.collect()
        };
        let (theirs, ours) = (blocks(&shown.stdout), blocks(&read(path)));
        let differences: Vec<&String> = theirs.symmetric_difference(&ours).collect();
        assert!(differences.is_empty(), "{path}: {differences:#?}");
    }
    // It comes back from our own recording.
    let [recording, again] = ["a.biopsy", "again.lprof"].map(|name| outside(&stage, name));
    biopsy(&["report", "-q", &theirs, "-o", &recording]).ok();
    biopsy(&["report", "-q", &recording, "-o", &again]).ok();
    assert_eq!(read(&again), read(&theirs));
    // The functions that are named, and no others.
    let functions_of = |text: &str| -> Vec<String> {
        let lines = text
            .lines()
            .filter_map(|line| line.strip_prefix("Function: "));
        let names = lines.filter_map(|line| line.split(" at line ").next());
        names.map(str::to_string).collect()
    };
    let first = functions_of(&read(&theirs));
    assert!(first.len() > 1, "{first:?}");
    let (name, chosen) = (&first[0], outside(&stage, "chosen.lprof"));
    biopsy(&["report", "-q", &recording, "--lines", name, "-o", &chosen]).ok();
    assert_eq!(functions_of(&read(&chosen)), [name.as_str()]);
    let words = [
        "report", "-q", &recording, "--lines", "no.such", "-o", &chosen,
    ];
    biopsy(&words).refused(1, "no lines of 'no.such'");
    for arguments in [&["-o", "x.prof"][..], &["--callers"], &["--focus", "x"]] {
        let words = [&["report", "-q", theirs.as_str()][..], arguments].concat();
        biopsy(&words).expect_code(1);
    }
    biopsy(&["diff", &theirs, &ours]).refused(1, "line profile");
}

#[test]
fn functions_are_named_as_for_calls_and_threads_count_together() {
    let _shared = in_company();
    for python in Python::all().iter().filter(|python| usable(python)) {
        eprintln!("{python}");
        let stage = python.stage();
        let script = stage.fixture(SCRIPT);
        let line = 1 + crate::common::fixture_text(SCRIPT)
            .lines()
            .position(|line| line.contains("n -= 1"))
            .expect("a line of A.m");
        let at_line = format!("{SCRIPT}:{line}");
        let ran = counted(
            python,
            &["__main__.fib", &at_line, "*.th?"],
            &[&script, "threads"],
        );
        // Whether or not a sample found it; older code objects do not know it.
        let heading = if python.minor >= 11 {
            "Function: A.m at"
        } else {
            "Function: m at"
        };
        assert!(ran.stdout.contains(heading), "{python}{ran}");
        let hits = table(&ran.stdout);
        let names: Vec<&str> = hits.keys().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["fib", "m", "thr"], "{python}{ran}");
        let thr: Vec<u64> = of(&hits, "thr").into_values().collect();
        assert_eq!(thr, [4, 80_004, 80_000, 4], "{python}{ran}");
        let none = run(&mut exact_command(
            &["--lines", "no.such"],
            python,
            &[&script],
        ))
        .ok();
        assert!(none.stderr.contains("no hits of 'no.such'"), "{none}");
    }
}

#[test]
fn a_program_that_is_counted_by_lines_notices_nothing() {
    let _shared = in_company();
    for python in Python::all().iter().filter(|python| usable(python)) {
        eprintln!("{python}");
        let stage = python.stage();
        let (script, own) = (stage.fixture("exits.py"), stage.fixture(SCRIPT));
        let mut all = vec![
            vec![script.as_str(), "argv", "a b", "-o", "x"],
            vec![&script, "code", "7"],
            vec![&script, "raise"],
            vec![&script, "exit-text", "so long"],
            vec![&script, "signal", "TERM"],
            vec![&script, "signal", "INT"],
            vec![&script, "atexit"],
            vec![&script, "threads"],
            vec![&own, "traced"],
            vec![&own, "deep"],
            vec!["-c", "1/0"],
            vec!["/nonexistent/script.py"],
        ];
        if python.minor >= 12 {
            all.push(vec![&own, "monitored"]);
        }
        for arguments in all {
            let plain = run(&mut python.command(&arguments));
            let table = outside(&stage, "table");
            let options = ["-q", "--lines", "-o", &table, "-f", "table"];
            let ours = run(&mut exact_command(&options, python, &arguments));
            assert_eq!(ours.code(), plain.code(), "{python}{plain}{ours}");
            assert_eq!(ours.stdout, plain.stdout, "{python}{plain}{ours}");
            let said: Vec<&str> = (ours.stderr.lines())
                .filter(|line| !line.starts_with("biopsy:"))
                .collect();
            assert_eq!(
                said,
                plain.stderr.lines().collect::<Vec<_>>(),
                "{python}{plain}{ours}"
            );
            let traced = arguments.contains(&"traced") && python.minor < 12;
            if arguments.contains(&"traced") || arguments.contains(&"monitored") {
                let table = std::fs::read_to_string(&table).expect("a table");
                assert_eq!(table.contains(" >=67 "), traced, "{python}{table}");
            }
        }
    }
}
