//! Numbers of calls beside the exact ones that the program itself keeps, in every interpreter that has frames on a
//! data stack; what `--no-bursts` leaves; and the same numbers again from a recording.

mod common;

use common::{Python, Stage, alone, biopsy, biopsy_command, not_here, run, say};
use serde_json::Value;

/// Wide, for busy machines. What a quiet one reaches is printed.
const ALLOWED: f64 = 0.2;

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
        let arguments = [&["--seconds", "5"], &names[..]].concat();
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
fn without_bursts_samples_count_what_they_can() {
    let _alone = alone();
    for python in versions() {
        let stage = python.stage();
        let arguments = ["--seconds", "2", "c_20", "loop_5000"];
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
