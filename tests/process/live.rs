//! Living processes of every interpreter that is here: stacks beside the interpreter's own answer, shares of
//! time beside the program's own clock, depth, threads, recordings, and a program whose file is gone.

use crate::common;

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use common::{Python, Target, alone, biopsy, biopsy_command, in_company, not_here, rows, run};
use serde_json::Value;

type Frame = (String, u64, u64, String);

/// Threads by id: what `threads` of the program's own report or of `biopsy.dump/1` say.
fn own_stacks(target: &Target) -> BTreeMap<u64, (u64, String, Vec<Frame>)> {
    let text = target.ready.strip_prefix("ready ").expect("JSON after it");
    let threads: Vec<Value> = serde_json::from_str(text).expect("JSON");
    let frame = |frame: &Value| {
        let (file, name) = (frame[0].as_str(), frame[3].as_str());
        (
            file.expect("file").to_string(),
            frame[1].as_u64().expect("line"),
            frame[2].as_u64().expect("first line"),
            name.expect("name").to_string(),
        )
    };
    let thread = |thread: &Value| {
        let frames = thread["frames"].as_array().expect("frames");
        let name = thread["name"].as_str().expect("name").to_string();
        (
            thread["id"].as_u64().expect("id"),
            (
                thread["os_id"].as_u64().expect("os_id"),
                name,
                frames.iter().map(frame).collect(),
            ),
        )
    };
    threads.iter().map(thread).collect()
}

fn dumped_frames(thread: &Value) -> Vec<Frame> {
    let text = |value: &Value| value.as_str().expect("text").to_string();
    let number = |value: &Value| value.as_u64().expect("number");
    let frames = thread["frames"].as_array().expect("frames");
    frames
        .iter()
        .map(|frame| {
            (
                text(&frame["file"]),
                number(&frame["line"]),
                number(&frame["first_line"]),
                text(&frame["name"]),
            )
        })
        .collect()
}

#[test]
fn at_least_one_interpreter_is_here() {
    let _company = in_company();
    assert!(!Python::all().is_empty());
}

#[test]
fn stacks_are_what_the_interpreter_itself_says() {
    let _shared = in_company();
    let mut wrong = Vec::new();
    for python in Python::all() {
        eprintln!("{python}");
        let stage = python.stage();
        let mut target = python.start(&[&stage.fixture("blocked.py")]);
        let expected = own_stacks(&target);
        let pid = target.pid.to_string();
        for options in [&["--json"][..], &["--json", "--blocking"]] {
            let dump = biopsy(&[&["dump", &pid], options].concat()).ok().json();
            assert_eq!(dump["schema"], "biopsy.dump/1");
            assert_eq!(dump["pid"], target.pid);
            assert_eq!(dump["python"], python.version.as_str());
            let threads = dump["threads"].as_array().expect("threads");
            assert_eq!(
                threads.len(),
                expected.len() + 1,
                "and the reporter, {python}"
            );
            for thread in threads {
                let id = thread["id"].as_u64().expect("id");
                let Some((os_id, name, frames)) = expected.get(&id) else {
                    assert_eq!(thread["name"], "reporter", "{python}");
                    continue;
                };
                assert_eq!(thread["os_id"], *os_id, "{python}, {name}");
                assert_eq!(thread["name"], name.as_str(), "{python}");
                assert_eq!(thread["state"], "idle", "{python}, {name}");
                let found = dumped_frames(thread);
                if found != *frames {
                    wrong.push(format!(
                        "{python} {options:?}, thread {name}:\n  found    {found:?}\n  expected {frames:?}"
                    ));
                }
            }
        }
        text_and_locals(python, &pid);
        attached(python, &pid, &mut wrong);
        target.assert_free();
        target.tell("");
        assert_eq!(target.line(), "over", "{python}");
        assert!(target.wait().success(), "{python}");
        assert_eq!(target.stderr(), "", "{python}");
    }
    assert!(
        wrong.is_empty(),
        "{} stacks differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// The same stacks through `attach`: every function of the program with its first line, and time near that
/// of the recording.
fn attached(python: &Python, pid: &str, wrong: &mut Vec<String>) {
    let ran = biopsy(&["attach", pid, "-d", "0.3", "-q", "--strip-dirs"]).ok();
    let text = fixture_lines();
    for row in rows(&ran.stdout) {
        let Some((line, name)) = row
            .function
            .strip_prefix("blocked.py:")
            .and_then(|rest| rest.split_once('('))
        else {
            continue;
        };
        let (line, name) = (
            line.parse::<usize>().expect("line"),
            name.trim_end_matches(')'),
        );
        let source = text.get(line.wrapping_sub(1)).map_or("", String::as_str);
        let fits = match name {
            // From 3.8 on it is 1; before, the end of the docstring.
            "<module>" => line <= 7,
            "<genexpr>" => source.contains("sum(") || source.contains("number"),
            "<listcomp>" => source.contains('[') || source.contains("call()"),
            "<lambda>" => source.contains("lambda"),
            "decorated" => source.contains("@twice"),
            "value" => source.contains("@property"),
            "wrapper" => source.contains("@functools.wraps"),
            name => {
                source.contains(&format!("def {name}("))
                    || source.contains(&format!("class {name}:"))
            }
        };
        if !fits {
            wrong.push(format!(
                "{python}, attach: {} is at {source:?}",
                row.function
            ));
        }
        if !(0.1..=0.31 * 12.0).contains(&row.cumtime) {
            wrong.push(format!("{python}, attach: 0.3 s of {row:?}"));
        }
    }
    for function in [
        "park",
        "in_exec",
        "innermost",
        "größe",
        "leaf",
        "branch",
        "Body",
        "step_on",
    ] {
        if !ran.stdout.contains(&format!("({function})")) {
            wrong.push(format!("{python}, attach: no row for {function}{ran}"));
        }
    }
}

fn fixture_lines() -> Vec<String> {
    let text = common::fixture_text("blocked.py");
    text.lines().map(str::to_string).collect()
}

/// The text form says the same as the JSON; locals come with their values.
fn text_and_locals(python: &Python, pid: &str) {
    let text = biopsy(&["dump", pid]).ok();
    assert!(
        text.stdout.contains(&format!("Python {}", python.version)),
        "{text}"
    );
    for words in [
        "\"class body\"",
        "Body (",
        "innermost (",
        "(idle (",
        "blocked.py:22)",
    ] {
        assert!(text.stdout.contains(words), "{python}: no {words}{text}");
    }
    let dump = biopsy(&["dump", pid, "--locals", "--json"]).ok().json();
    let threads = dump["threads"].as_array().expect("threads");
    let plain = threads
        .iter()
        .find(|thread| thread["name"] == "plain")
        .expect("plain");
    let frames = plain["frames"].as_array().expect("frames");
    let frame = frames
        .iter()
        .find(|frame| frame["name"] == "plain")
        .expect("plain");
    assert_eq!(frame["locals"]["answer"], "42", "{python}: {frame}");
    assert_eq!(frame["locals"]["half"], "21", "{python}: {frame}");
    assert_eq!(frame["locals"]["text"], "\"hello\"", "{python}: {frame}");
    let without = biopsy(&["dump", pid, "--json"]).ok();
    assert!(!without.stdout.contains("\"locals\""), "{without}");
    let text = biopsy(&["dump", pid, "--locals"]).ok();
    assert!(text.stdout.contains("answer: 42"), "{text}");
}

const SHARES: [&str; 4] = ["burn_50", "burn_30", "burn_15", "burn_05"];

/// One run: the largest difference in percentage points between sampled and own shares.
fn share_error(python: &Python, script: &str) -> f64 {
    let mut target = python.start(&[script, "--seconds", "3", "--wait"]);
    let pid = target.pid.to_string();
    let sampling = common::Running::start(
        &mut biopsy_command(&["attach", &pid, "--mode", "cpu", "-q", "-f", "json"]),
        b"",
    );
    // It may start once it is watched; the first samples of its waiting are not on a CPU.
    std::thread::sleep(Duration::from_millis(400));
    target.tell("");
    let own: Value = serde_json::from_str(&target.line()).expect("JSON");
    target.wait();
    let profile = sampling.finish(common::PATIENCE).ok().json();
    let functions = profile["functions"].as_array().expect("functions").clone();
    let sampled = |name: &str| {
        let of = |function: &Value| function["tottime_s"].as_f64().expect("number");
        functions
            .iter()
            .filter(|f| f["name"] == name)
            .map(of)
            .sum::<f64>()
    };
    let total: f64 = SHARES.iter().map(|name| sampled(name)).sum();
    let errors =
        SHARES.map(|name| 100.0 * (sampled(name) / total - own[name].as_f64().expect("share")));
    let worst = errors
        .iter()
        .fold(0.0f64, |worst, error| worst.max(error.abs()));
    common::say(format_args!(
        "{python}: off by {errors:.2?} percentage points; {total:.2} s sampled of {:.2} s on a CPU, {:.2} s passed",
        own["seconds"].as_f64().unwrap_or(0.0),
        own["wall"]["seconds"].as_f64().unwrap_or(0.0)
    ));
    worst
}

#[test]
fn shares_of_cpu_are_within_one_and_a_half_points() {
    let _quiet = alone();
    let mut failed = Vec::new();
    for python in Python::all() {
        let stage = python.stage();
        let script = stage.fixture("known_shares.py");
        let good = (0..3).any(|_| share_error(python, &script) <= 1.5);
        if !good {
            failed.push(python.version.clone());
        }
    }
    assert!(
        failed.is_empty(),
        "shares are off three times in a row on {failed:?}"
    );
}

/// One run: by how many percentage points the sampled share of the work differs from the program's own.
fn naps_error(python: &Python, script: &str) -> f64 {
    let mut target = python.start(&[script, "--seconds", "1.2", "--wait"]);
    let pid = target.pid.to_string();
    let sampling = common::Running::start(
        &mut biopsy_command(&["attach", &pid, "-q", "-f", "json"]),
        b"",
    );
    std::thread::sleep(Duration::from_millis(400));
    target.tell("");
    let own: Value = serde_json::from_str(&target.line()).expect("JSON");
    target.wait();
    let profile = sampling.finish(common::PATIENCE).ok().json();
    let functions = profile["functions"].as_array().expect("functions").clone();
    let sampled = |name: &str| {
        let row = functions.iter().find(|function| function["name"] == name);
        row.map_or(0.0, |row| row["cumtime_s"].as_f64().expect("number"))
    };
    let (work, nap) = (sampled("work"), sampled("nap"));
    let share = |value: &Value| value.as_f64().expect("share");
    let own_share = share(&own["work"]) / (share(&own["work"]) + share(&own["nap"]));
    let error = 100.0 * (work / (work + nap) - own_share);
    common::say(format_args!(
        "{python}: work is {:.1} % of the time; off by {error:.2} points; late by {:.0} us",
        100.0 * own_share,
        1e6 * profile["mean_lateness_s"].as_f64().unwrap_or(0.0),
    ));
    error.abs()
}

/// A sampler that is let in only when the target sleeps sees it asleep: lateness must not depend on the state.
#[test]
fn a_target_that_naps_is_not_seen_napping_too_often() {
    let _quiet = alone();
    let mut failed = Vec::new();
    for python in Python::all() {
        let stage = python.stage();
        let script = stage.fixture("naps.py");
        if !(0..3).any(|_| naps_error(python, &script) <= 5.0) {
            failed.push(python.version.clone());
        }
    }
    assert!(failed.is_empty(), "off three times in a row on {failed:?}");
}

const DEEP: &str = "
import sys, threading
def down(level):
    if level == 0:
        threading.Thread(target=lambda: print('ready', flush=True)).start()
        sys.stdin.readline()
        return 0
    return down(level - 1)
def dive():
    down(int(sys.argv[1]))
sys.setrecursionlimit(20000)
threading.stack_size(256 * 1024 * 1024)
thread = threading.Thread(target=dive)
thread.start()
thread.join()
";

#[test]
fn three_thousand_frames_are_all_seen() {
    let _shared = in_company();
    for python in Python::all() {
        eprintln!("{python}");
        let stage = python.stage();
        let mut target = python.start(&[&stage.put("deep.py", DEEP), "3000"]);
        let pid = target.pid.to_string();
        let dump = biopsy(&["dump", &pid, "--json"]).ok().json();
        let count = |thread: &Value| {
            let frames = thread["frames"].as_array().expect("frames");
            frames
                .iter()
                .filter(|frame| frame["name"] == "down")
                .count()
        };
        let threads = dump["threads"].as_array().expect("threads");
        assert_eq!(threads.iter().map(count).max(), Some(3001), "{python}");
        let table = biopsy(&["attach", &pid, "-d", "1.5", "-r", "20", "-q"]).ok();
        let down = rows(&table.stdout)
            .into_iter()
            .find(|row| row.function.ends_with("(down)"))
            .unwrap_or_else(|| panic!("{python}: no row{table}"));
        // Cumulative time counts once for each stack, however often the function is in it.
        assert!(down.cumtime < 3.0, "{python}: {down:?}");
        assert!(down.ncalls.ends_with("/1"), "{python}: {down:?}");
        target.assert_free();
    }
}

#[test]
fn a_recording_gives_the_table_that_attach_gave() {
    let _shared = in_company();
    for python in Python::all() {
        let stage = python.stage();
        let mut target = python.start(&[&stage.fixture("threaded_server.py")]);
        let folder = tempfile::tempdir().expect("folder");
        let path = |name: &str| {
            folder
                .path()
                .join(name)
                .to_str()
                .expect("UTF-8")
                .to_string()
        };
        let (recording, table, json) = (path("a.biopsy"), path("a.table"), path("a.json"));
        let pid = target.pid.to_string();
        let ran = biopsy(&[
            "attach", &pid, "-d", "1", "-r", "500", "-q", "-o", &recording, "-o", &json, "-o", "-",
        ])
        .ok();
        std::fs::write(&table, &ran.stdout).expect("written");
        assert!(
            (1.0..20.0).contains(&ran.took.as_secs_f64()),
            "--duration 1{ran}"
        );
        let again = biopsy(&["report", &recording]).ok();
        assert_eq!(again.stdout, ran.stdout, "{python}");
        let names: Vec<String> = rows(&ran.stdout)
            .into_iter()
            .map(|row| row.function)
            .collect();
        assert!(
            names.iter().any(|name| name.contains("(housekeeping)")),
            "{python}{ran}"
        );
        let document: Value =
            serde_json::from_str(&std::fs::read_to_string(&json).expect("read")).expect("JSON");
        assert_eq!(document["schema"], "biopsy.profile/1");
        assert_eq!(document["python"], python.version.as_str());
        let duration = document["duration_s"].as_f64().expect("duration");
        assert!((0.5..=1.1).contains(&duration), "{python}: {duration} s");
        // Threads apart: from the recording as from the process, under the program's own names.
        let apart = biopsy(&["report", &recording, "--threads"]).ok();
        for name in ["accept loop", "housekeeper", "metrics"] {
            assert!(
                apart.stdout.contains(name),
                "{python}: no thread {name}{apart}"
            );
        }
        let one = biopsy(&["report", &recording, "--thread", "housekeeper"]).ok();
        assert!(one.stdout.contains("(housekeeping)") && !one.stdout.contains("(publish_metrics)"));
        let live = biopsy(&["attach", &pid, "-d", "0.3", "-q", "--threads"]).ok();
        assert!(live.stdout.contains("housekeeper"), "{python}{live}");
        target.assert_free();
    }
}

/// Copies an interpreter and its library away from where they were built, so that they can be deleted.
fn copied_interpreter(python: &Python, folder: &std::path::Path) -> Option<Command> {
    let script = "import sys, sysconfig; print(sys.executable); print(sys.base_prefix); \
                  print(sysconfig.get_config_var('LIBDIR')); print(sysconfig.get_config_var('INSTSONAME'))";
    let said = run(&mut python.command(&["-c", script])).ok();
    let lines: Vec<&str> = said.stdout.lines().collect();
    let executable = std::fs::canonicalize(lines[0]).ok()?;
    std::fs::copy(executable, folder.join("python3")).ok()?;
    let library = std::path::Path::new(lines[2]).join(lines[3]);
    if library.extension().is_some_and(|ending| ending != "a") {
        std::fs::copy(&library, folder.join(lines[3])).ok()?;
    }
    let mut command = Command::new(folder.join("python3"));
    command
        .env("PYTHONHOME", lines[1])
        .env("LD_LIBRARY_PATH", folder);
    Some(command)
}

#[test]
fn a_program_whose_file_is_deleted_or_replaced_is_read() {
    let _shared = in_company();
    let mut wrong = Vec::new();
    for python in Python::all().iter().filter(|python| python.root.is_none()) {
        if python.version.starts_with("3.6.") || python.version.starts_with("3.7.") {
            common::not_here(format_args!(
                "{python} with its file deleted: py-spy opens it by its path"
            ));
            continue;
        }
        for replaced in [false, true] {
            let folder = tempfile::tempdir().expect("folder");
            let Some(mut command) = copied_interpreter(python, folder.path()) else {
                not_here(format!("a copy of {python}"));
                continue;
            };
            let stage = python.stage();
            let mut target = Target::start(command.arg(stage.fixture("blocked.py")));
            for entry in std::fs::read_dir(folder.path()).expect("list").flatten() {
                std::fs::remove_file(entry.path()).expect("deleted");
                if replaced {
                    // As an upgrade does: another file of the same name.
                    std::fs::copy("/bin/sh", entry.path()).expect("replaced");
                }
            }
            let ran = biopsy(&["dump", &target.pid.to_string()]);
            if ran.code() != 0 || !ran.stdout.contains("in_decorated") {
                wrong.push(format!("{python}, replaced: {replaced}{ran}"));
            }
            target.assert_free();
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A class whose `__init__` takes all of the time.
const CONSTRUCTED: &str = "
import time
class Made:
    def __init__(self): self.x = sum(range(2000))
def build(): return [Made() for _ in range(200)]
end = time.time() + 0.7
while time.time() < end: build()
";

/// What the interpreter puts between a class's caller and its `__init__` (3.13 and newer) is nobody's function.
#[test]
fn nothing_stands_between_a_constructor_and_its_caller() {
    let _company = in_company();
    for python in Python::all() {
        let stage = python.stage();
        let words = python.words(&[&stage.put("constructed.py", CONSTRUCTED)]);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let options = ["run", "-q", "-f", "json", "--"];
        let profile = biopsy(&[&options[..], &words].concat()).ok().json();
        let functions = profile["functions"].as_array().expect("functions");
        let inits = functions.iter().filter(|row| row["name"] == "__init__");
        let own = inits.clone().filter(|row| {
            row["file"]
                .as_str()
                .is_some_and(|file| file.ends_with("constructed.py"))
        });
        assert_eq!(own.count(), 1, "{python}: {functions:#?}");
        for row in inits {
            assert_ne!(row["file"], "__init__", "{python}: {row:#}");
        }
    }
}
