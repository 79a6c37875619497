//! Numbers of calls beside the exact ones that the program itself keeps, in every interpreter, and the same numbers again
//! from a recording.

use crate::common;

use std::sync::Mutex;

use common::{Python, Stage, alone, biopsy, biopsy_command, fixture_text, in_company, run, say};
use serde_json::Value;

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

fn functions(profile: &Value) -> &[Value] {
    profile["functions"].as_array().expect("functions")
}

fn function<'a>(profile: &'a Value, name: &str) -> &'a Value {
    functions(profile)
        .iter()
        .find(|function| function["name"] == name)
        .unwrap_or_else(|| panic!("no row of {name}"))
}

/// What is wrong with what is said of a function's calls; says what was found.
fn check(python: &Python, counted: &Counted, name: &str) -> Option<String> {
    let row = function(&counted.profile, name);
    let truth = counted.truth["counts"][name].as_u64().expect("count");
    let calls = row["ncalls"].as_u64().expect("ncalls");
    let text = format!(
        "{python}: {name}: {truth} calls, {calls} from {} with a standard error of {}",
        row["ncalls_from"], row["ncalls_error"]
    );
    say(format_args!("{text}"));
    assert!(row["primitive_calls"].as_u64() <= row["ncalls"].as_u64());
    let is_right = if row["ncalls_from"] == "lower-bound" {
        row["ncalls_error"].is_null() && (1..=truth).contains(&calls)
    } else {
        let error = row["ncalls_error"].as_f64().expect("an error");
        (calls as f64 - truth as f64).abs() <= 5.0 * error
    };
    (!is_right).then_some(text)
}

/// Without watchpoints no number is more than a lower bound, and none is above the truth.
#[test]
fn without_counts_samples_give_lower_bounds() {
    // What else runs makes bounds lower, not wrong.
    let _company = in_company();
    let mut wrong = Vec::new();
    for python in Python::all() {
        for loop_ in ["while", "for", "generator"] {
            let stage = python.stage();
            let names = ["c_20", "loop_20", "c_1000", "loop_5000", "mixed_200"];
            let arguments = [&["--seconds", "0.6", "--loop", loop_], &names[..]].concat();
            let counted = count(python, &stage, &["--no-counts"], &arguments);
            for name in names {
                wrong.extend(check(python, &counted, name));
            }
            for row in functions(&counted.profile) {
                assert_eq!(row["ncalls_from"], "lower-bound", "{python}: {row}");
            }
            // Each is called once, and runs long.
            let row = function(&counted.profile, "main");
            if row["ncalls"] != 1 {
                wrong.push(format!("{python}: main: {} calls", row["ncalls"]));
            }
            let again = biopsy(&["report", &counted.recording, "-f", "json"]).ok();
            assert_eq!(again.json()["functions"], counted.profile["functions"]);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Programs that count their own calls: shapes on which estimates were wrong that knew nothing but samples.
const PROGRAMS: [&str; 13] = [
    "exceptions",
    "kept_frames",
    "module_nested",
    "attribute_loop",
    "condition",
    "queue_of_callbacks",
    "recursion",
    "coroutines",
    "sort_key",
    "generator_tree",
    "long_calls",
    "fib",
    "made_anew",
];

/// Rows of all programs with a stated error, by how many errors they are off.
#[derive(Default)]
struct Rows {
    errors: Vec<f64>,
    bounds: usize,
    wrong: Vec<String>,
}

impl Rows {
    fn and(mut self, mut other: Rows) -> Rows {
        self.errors.append(&mut other.errors);
        self.bounds += other.bounds;
        self.wrong.append(&mut other.wrong);
        self
    }

    /// Runs one program and checks all that it counts.
    fn check(&mut self, python: &Python, program: &str, options: &[&str]) {
        let stage = python.stage();
        let file = |name: &str| stage.path().join(name).to_str().expect("UTF-8").to_string();
        let (json, truth) = (file("out.json"), file("truth.json"));
        let text = fixture_text(&format!("counts/{program}.py"));
        let script = stage.put(&format!("{program}.py"), &text);
        let mut words: Vec<String> = ["run", "-q", "-o", &json]
            .iter()
            .chain(options)
            .map(|word| word.to_string())
            .collect();
        words.push("--".to_string());
        let inside = stage.inside("truth.json");
        words.extend(python.words(&[script.as_str(), "1.3", &inside]));
        run(&mut biopsy_command(&words)).ok();
        let read = |path: &str| -> Value {
            serde_json::from_str(&std::fs::read_to_string(path).expect("written")).expect("JSON")
        };
        let (profile, truth) = (read(&json), read(&truth));
        for (name, calls) in truth.as_object().expect("counts") {
            let calls = calls.as_f64().expect("a count");
            let named = |row: &&Value| {
                let row_name = row["name"].as_str().unwrap_or_default();
                row_name == name && row["file"].as_str().is_some_and(|f| f.ends_with(".py"))
            };
            for row in functions(&profile).iter().filter(named) {
                let said = row["ncalls"].as_f64().expect("ncalls");
                let text = format!("{python}: {program}: {name}: {calls} calls, {said} said");
                match row["ncalls_error"].as_f64() {
                    Some(error) => {
                        let off = ((said - calls).abs() - 1.0 - 0.01 * calls).max(0.0) / error;
                        self.errors.push(off);
                        if off > 3.0 {
                            say(format_args!("{text} with an error of {error}"));
                        }
                        if off > 8.0 {
                            self.wrong.push(format!("{text} with an error of {error}"));
                        }
                    }
                    None if said > calls => self.wrong.push(format!("{text} as a lower bound")),
                    None => self.bounds += 1,
                }
            }
        }
    }
}

/// Every number is what the program counted itself, within its error, or a lower bound that is one.
#[test]
fn calls_are_counted_or_a_lower_bound() {
    let _alone = alone();
    let permitted = biopsy::target::watchpoint::cost_of_a_hit(50);
    if let Err(why) = permitted {
        say(format_args!("NOT HERE: hardware watchpoints: {why:?}"));
    }
    // Two at a time: each is counted beside a busy CPU.
    let programs = || PROGRAMS.iter().chain(&["threads"]);
    let pythons = Python::all().iter().enumerate();
    let runs = pythons.flat_map(|(at, python)| {
        // py-spy's reader has no counts, of whatever shape.
        let most = if python.minor < 8 { 3 } else { usize::MAX };
        // Every other program on every other version.
        let chosen = programs().skip(at % 2).step_by(2);
        chosen.take(most).map(move |program| (python, *program))
    });
    let runs = Mutex::new(runs);
    let take = || runs.lock().expect("no panic").next();
    let work = || {
        let mut rows = Rows::default();
        while let Some((python, program)) = take() {
            rows.check(python, program, &[]);
        }
        rows
    };
    let rows = std::thread::scope(|scope| {
        let other = scope.spawn(work);
        work().and(other.join().expect("no panic"))
    });
    let far = rows.errors.iter().filter(|off| **off > 3.0).count();
    say(format_args!(
        "{} rows with an error, {far} of them further off than three; {} lower bounds",
        rows.errors.len(),
        rows.bounds
    ));
    assert!(rows.wrong.is_empty(), "{}", rows.wrong.join("\n"));
    // Machines that run tests are busy, and these programs are short.
    assert!(far <= 3 + rows.errors.len() / 25, "{far} rows are false");
    if permitted.is_ok() {
        assert!(
            rows.errors.len() > rows.bounds / 16,
            "hardly any is counted"
        );
    }
}
