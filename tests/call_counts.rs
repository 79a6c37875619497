//! Numbers of calls beside the exact ones that the program itself keeps, in every interpreter that has frames on a
//! data stack: by bursts, by the turns of loops, and what `--no-bursts` leaves; and the same numbers again from a recording.

mod common;

use biopsy::layout::tables::for_version;
use common::{Python, Stage, alone, biopsy, biopsy_command, not_here, run, say};
use serde_json::Value;

/// Wide, for busy machines. What a quiet one reaches is printed.
const ALLOWED: f64 = 0.25;

struct Counted {
    truth: Value,
    profile: Value,
    recording: String,
}

/// Samples `call_counts.py` from its start to its end.
fn count(python: &Python, stage: &Stage, options: &[&str], arguments: &[&str]) -> Counted {
    let file = |name: &str| stage.path().join(name).to_str().expect("UTF-8").to_string();
    let (json, recording) = (file("out.json"), file("out.biopsy"));
    let mut words: Vec<String> = ["run", "-q", "-o", &json, "-o", &recording]
        .iter()
        .chain(options)
        .map(|word| word.to_string())
        .collect();
    words.push("--".to_string());
    let script = stage.fixture("call_counts.py");
    words.extend(python.words(&[&[script.as_str()], arguments].concat()));
    let ran = run(&mut biopsy_command(&words)).ok();
    let last = ran.stdout.lines().last().expect("a line");
    let text = std::fs::read_to_string(json).expect("written");
    Counted {
        truth: serde_json::from_str(last).expect("JSON"),
        profile: serde_json::from_str(&text).expect("JSON"),
        recording,
    }
}

fn function<'a>(profile: &'a Value, name: &str) -> &'a Value {
    let functions = profile["functions"].as_array().expect("functions");
    functions
        .iter()
        .find(|function| function["name"] == name)
        .unwrap_or_else(|| panic!("no row of {name}"))
}

/// Estimated by exact number of calls; says what was found.
fn ratio(python: &Python, counted: &Counted, name: &str) -> f64 {
    let row = function(&counted.profile, name);
    let truth = counted.truth["counts"][name].as_f64().expect("count");
    let ratio = row["ncalls"].as_f64().expect("ncalls") / truth;
    say(format_args!(
        "{python}: {name}: {} calls, {} estimated from {} with a standard error of {}: {ratio:.3}",
        truth, row["ncalls"], row["ncalls_from"], row["ncalls_error"]
    ));
    assert!(row["primitive_calls"].as_u64() <= row["ncalls"].as_u64());
    ratio
}

fn versions() -> Vec<&'static Python> {
    let found: Vec<&Python> = Python::all().iter().filter(|p| p.minor >= 11).collect();
    if found.is_empty() {
        not_here("python 3.11 or newer");
    }
    found
}

#[test]
fn calls_of_all_lengths_are_counted() {
    let _alone = alone();
    if std::thread::available_parallelism().map_or(1, |cpus| cpus.get()) < 2 {
        not_here("a second CPU, from which bursts are taken");
        return;
    }
    let mut wrong = Vec::new();
    for python in versions() {
        let stage = python.stage();
        let names = [
            "c_20",
            "loop_20",
            "c_200",
            "loop_200",
            "c_1000",
            "loop_5000",
        ];
        let arguments = [&["--seconds", "6", "--loop", "while"], &names[..]].concat();
        let counted = count(python, &stage, &[], &arguments);
        for name in names {
            let ratio = ratio(python, &counted, name);
            let row = function(&counted.profile, name);
            let calls = row["ncalls"].as_f64().expect("ncalls");
            let error = row["ncalls_error"].as_f64().expect("an error") / calls;
            if (ratio - 1.0).abs() > ALLOWED.max(4.0 * error) || error > 0.15 {
                wrong.push(format!("{python}: {name}: {ratio:.3}, error {error:.3}"));
            }
            let expected: &[&str] = match name {
                "loop_5000" => &["samples", "bursts"],
                _ => &["bursts"],
            };
            let from = row["ncalls_from"].as_str().expect("text");
            assert!(expected.contains(&from), "{python}: {name}: {from}");
        }
        let again = biopsy(&["report", &counted.recording, "-f", "json"]).ok();
        let again = again.json();
        for name in names {
            assert_eq!(function(&again, name), function(&counted.profile, name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn calls_of_every_turn_of_a_loop_are_exact() {
    let _alone = alone();
    for python in versions() {
        let kinds = [
            ("for", &[][..]),
            ("unrolled", &["--no-bursts"]),
            ("counter", &["--no-bursts"]),
        ];
        for (loop_, options) in kinds {
            let stage = python.stage();
            let names = ["c_20", "loop_50", "c_1000", "loop_5000"];
            let arguments = [&["--seconds", "3", "--loop", loop_], &names[..]].concat();
            let counted = count(python, &stage, options, &arguments);
            let rows = names.iter().map(|name| {
                let row = function(&counted.profile, name);
                (
                    *name,
                    row,
                    counted.truth["counts"][name].as_f64().expect("count"),
                )
            });
            let mut rows: Vec<(&str, &Value, f64)> = rows.collect();
            // Each call of those makes one of this.
            let sums = rows.iter().filter(|(name, ..)| name.starts_with('c'));
            let sums = sums.map(|(.., truth)| truth).sum();
            let sum = "<built-in method builtins.sum>";
            rows.push((sum, function(&counted.profile, sum), sums));
            for (name, row, truth) in rows {
                let calls = row["ncalls"].as_f64().expect("ncalls");
                let error = row["ncalls_error"].as_f64().unwrap_or(f64::INFINITY);
                let text = format!(
                    "{python}: {loop_}: {name}: {truth} calls, {calls} from {} with a standard error of {error}: {:.4}",
                    row["ncalls_from"],
                    calls / truth,
                );
                say(format_args!("{text}"));
                assert_eq!(row["ncalls_from"], "iterator", "{text}");
                let allowed = (0.01 * truth).max(5.0 * error);
                assert!((calls - truth).abs() < allowed, "a busy machine? {text}");
                assert!(error < 0.03 * truth, "a busy machine? {text}");
            }
        }
    }
}

#[test]
fn all_that_counts_turns_is_known() {
    let _alone = alone();
    for python in versions() {
        for loop_ in [
            "zip", "map", "deque", "array", "reversed", "count", "repeat", "keys", "counter",
            "down", "numbered",
        ] {
            let stage = python.stage();
            let arguments = ["--seconds", "1", "--loop", loop_, "c_200"];
            let counted = count(python, &stage, &["--no-bursts"], &arguments);
            let row = function(&counted.profile, "c_200");
            let truth = counted.truth["counts"]["c_200"].as_f64().expect("count");
            let calls = row["ncalls"].as_f64().expect("ncalls");
            let error = row["ncalls_error"].as_f64().unwrap_or(f64::INFINITY);
            let text = format!(
                "{python}: {loop_}: {truth} calls, {calls} from {} with a standard error of {error}: {:.4}",
                row["ncalls_from"],
                calls / truth,
            );
            say(format_args!("{text}"));
            assert_eq!(row["ncalls_from"], "iterator", "{text}");
            let allowed = (0.02 * truth).max(5.0 * error);
            assert!((calls - truth).abs() < allowed, "a busy machine? {text}");
        }
    }
}

#[test]
fn calls_that_turns_leave_out_are_not_called_exact() {
    let _alone = alone();
    for python in versions() {
        let stage = python.stage();
        let arguments = ["--seconds", "2", "--loop", "branch", "c_50", "loop_200"];
        let counted = count(python, &stage, &[], &arguments);
        for name in ["c_50", "loop_200"] {
            ratio(python, &counted, name);
            let row = function(&counted.profile, name);
            assert_ne!(row["ncalls_from"], "iterator", "{python}: {row}");
        }
    }
}

/// As `loop_shapes.py` prints them.
type LoopShape = (String, u32, String, String, u32, Option<String>, bool);

#[test]
fn loops_and_what_they_call_once_are_found() {
    let bytes = |hex: &str| -> Vec<u8> {
        let byte = |at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("hex");
        (0..hex.len() / 2).map(byte).collect()
    };
    let mut wrong = Vec::new();
    for python in versions() {
        let opcodes = for_version(3, python.minor)
            .and_then(|offsets| offsets.opcodes)
            .expect("opcodes");
        let stage = python.stage();
        let mut target = python.start(&[&stage.fixture("loop_shapes.py")]);
        let mut shapes = 0;
        loop {
            let line = target.line();
            if line == "end" {
                break;
            }
            shapes += 1;
            let (name, stack_size, code, exceptions, unit, every, steady): LoopShape =
                serde_json::from_str(&line).expect("JSON");
            let found = opcodes.loops(&bytes(&code), &bytes(&exceptions), stack_size);
            let found = found.unwrap_or_else(|| panic!("{python}: no loops for {line}"));
            let site = found.site(unit).filter(|site| site.once);
            let of = site.map(|site| {
                if site.of.is_some() {
                    "turn"
                } else {
                    "invocation"
                }
            });
            let is_steady = site.is_some_and(|site| site.steady);
            if of != every.as_deref() || is_steady != steady {
                wrong.push(format!("{python}: {name}: {of:?}, steady: {is_steady}"));
            }
        }
        assert!(shapes > 20, "{python}: {shapes}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn without_bursts_samples_count_what_they_can() {
    let _alone = alone();
    for python in versions() {
        let stage = python.stage();
        let arguments = ["--seconds", "2", "--loop", "while", "c_20", "loop_5000"];
        let counted = count(python, &stage, &["--no-bursts"], &arguments);
        let long = ratio(python, &counted, "loop_5000");
        assert!((long - 1.0).abs() < ALLOWED, "{python}: {long}");
        assert_eq!(
            function(&counted.profile, "loop_5000")["ncalls_from"],
            "samples"
        );
        let short = ratio(python, &counted, "c_20");
        assert!(short < 0.5, "{python}: {short}");
        let row = function(&counted.profile, "c_20");
        assert_eq!(row["ncalls_from"], "lower-bound");
        assert_eq!(row["ncalls_error"], Value::Null);
    }
}
