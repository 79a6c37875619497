//! States of threads beside what programs know of themselves: CPU time by thread for who held the GIL and who
//! waited for it, `gc.callbacks` for garbage collection, and the system calls that threads sleep in.

use crate::common;

use common::{Python, Target, alone, biopsy, biopsy_command, in_company, not_here, run, say};
use serde_json::Value;

const SECONDS: f64 = 1.2;

fn seconds(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| panic!("{value} is no number"))
}

/// Interpreters whose threads have a CPU clock of their own, and whose GIL is known.
fn pythons() -> impl Iterator<Item = &'static Python> {
    if Python::all().iter().all(|python| python.minor < 8) {
        not_here("an interpreter from 3.8 on");
    }
    Python::all().iter().filter(|python| python.minor >= 8)
}

struct Recorded {
    /// What the program printed at its end.
    truth: Value,
    /// `biopsy.profile/1`.
    profile: Value,
    /// What was said beside it.
    notes: String,
}

fn recorded(python: &Python, what: &str, options: &[&str]) -> Recorded {
    eprintln!("{python} {what} {options:?}");
    let stage = python.stage();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("profile.json");
    let file = file.to_str().expect("UTF-8");
    let seconds = SECONDS.to_string();
    let program = python.words(&[&stage.fixture("thread_states.py"), what, &seconds]);
    let mut words: Vec<&str> = vec!["run", "-o", file];
    words.extend(options);
    words.push("--");
    words.extend(program.iter().map(String::as_str));
    let ran = biopsy(&words).ok();
    let truth = ran.stdout.lines().find(|line| line.starts_with('{'));
    let text = std::fs::read_to_string(file).expect("a profile");
    let profile: Value = serde_json::from_str(&text).expect("JSON");
    // A thread that has no Python on its stack for a moment, as the first one while Python starts, is one thread still.
    let threads = profile["threads"].as_array().expect("threads");
    let mut ids: Vec<u64> = threads
        .iter()
        .filter_map(|one| one["id"].as_u64())
        .collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), threads.len(), "{python} {what}: {threads:?}");
    Recorded {
        truth: serde_json::from_str(truth.expect("the program's own numbers")).expect("JSON"),
        profile,
        notes: ran.stderr,
    }
}

fn thread<'a>(profile: &'a Value, name: &str) -> &'a Value {
    let threads = profile["threads"].as_array().expect("threads");
    let found = threads.iter().find(|thread| thread["name"] == name);
    &found.unwrap_or_else(|| panic!("no thread {name} in {threads:?}"))["states"]
}

/// Whether two shares are the same but for `off`.
fn near(python: &Python, what: &str, found: f64, expected: f64, off: f64) {
    eprintln!("  {what}: {found:.3}, program {expected:.3}");
    assert!(
        (found - expected).abs() <= off,
        "{python}, {what}: {found} and not {expected}"
    );
}

#[test]
fn who_holds_the_gil_and_who_waits_for_it() {
    let _alone = alone();
    for python in pythons() {
        let got = recorded(python, "fighters", &[]);
        for name in ["fight-0", "fight-1"] {
            let states = thread(&got.profile, name);
            let wall = seconds(&states["wall_s"]);
            let truth = &got.truth["threads"][name];
            // Who computes in Python holds the GIL whenever it uses a CPU.
            let used = seconds(&truth["cpu_s"]) / seconds(&truth["wall_s"]);
            let held = seconds(&states["gil_s"]) / wall;
            let waited = seconds(&states["gil_wait_s"]) + seconds(&states["on_cpu_without_gil_s"]);
            common::say(format_args!(
                "  {name}: held {held:.3}, waited {:.3}; on a CPU by its own clock {used:.3}",
                waited / wall
            ));
            // A busy machine may take the CPU away from who holds it.
            assert!(
                held > used - 0.1 && held < 0.75,
                "{python}, {name}: {states}"
            );
            // What is left is waiting: for the GIL, or for a CPU with or without it.
            near(python, "held or waited", held + waited / wall, 1.0, 0.1);
            assert!(
                seconds(&states["gil_wait_s"]) > 0.2 * wall,
                "{python}: {states}"
            );
        }
        let main = thread(&got.profile, "MainThread");
        assert!(
            seconds(&main["idle_s"]) > 0.8 * SECONDS,
            "{python}, it waits in join: {main}"
        );
        // The two, and the first one too where a busy machine let it wait for more than a tenth of its time.
        let waited = seconds(&main["gil_wait_s"]) / seconds(&main["wall_s"]);
        let threads = if waited > 0.1 { 3 } else { 2 };
        assert!(
            got.notes
                .contains(&format!("{threads} threads waited for it")),
            "{python}, the first one waited {waited:.3}: {}",
            got.notes
        );
        assert!(
            seconds(&got.profile["states"]["gil_held_s"]) > 0.8 * SECONDS,
            "{python}"
        );
    }
}

#[test]
fn c_code_without_the_gil_runs_and_waits_for_nobody() {
    let _alone = alone();
    for python in pythons() {
        let got = recorded(python, "released", &[]);
        let states = thread(&got.profile, "crunch-0");
        let wall = seconds(&states["wall_s"]);
        assert!(
            seconds(&states["on_cpu_without_gil_s"]) > 0.85 * wall,
            "{python}: {states}"
        );
        assert!(
            seconds(&states["gil_wait_s"]) < 0.05 * wall,
            "{python}: {states}"
        );
        assert!(!got.notes.contains("the GIL"), "{python}: {}", got.notes);
    }
}

#[test]
fn threads_that_follow_each_other_at_the_same_place_are_told_apart() {
    let _alone = alone();
    for python in pythons() {
        let got = recorded(python, "relay", &[]);
        for number in 0..4 {
            let name = format!("leg-{number}");
            let states = thread(&got.profile, &name);
            let truth = &got.truth["threads"][&name];
            // A process at rest is looked at up to 16 ms apart. Wide, for busy machines: one thread taken for two, or two for
            // one, is off by 0.3.
            let wall = seconds(&truth["wall_s"]);
            near(python, &name, seconds(&states["wall_s"]), wall, 0.1);
            // On a busy machine it also waits for a CPU, which is no sleep.
            let used = seconds(&truth["cpu_s"]);
            let on_cpu = seconds(&states["on_cpu_s"]);
            let most = if used > 0.1 * wall { wall } else { used };
            assert!(
                on_cpu > used - 0.1 && on_cpu < most + 0.1,
                "{python}, {name}: {states}, {truth}"
            );
        }
        let threads = got.profile["threads"].as_array().expect("threads");
        assert_eq!(threads.len(), 5, "{python}: {threads:?}");
    }
}

#[test]
fn garbage_collection_takes_as_long_as_its_callbacks_say() {
    let _alone = alone();
    for python in pythons() {
        let got = recorded(python, "garbage", &[]);
        let truth = seconds(&got.truth["gc_s"]);
        let found = seconds(&got.profile["states"]["gc_s"]);
        near(python, "gc", found / SECONDS, truth / SECONDS, 0.1);
        // The row has the time of finalizers and callbacks too.
        let rows = got.profile["functions"].as_array().expect("functions");
        let row = rows.iter().find(|row| row["name"] == "<GC>");
        let all = seconds(&row.expect("a row")["cumtime_s"]);
        near(python, "<GC>", all / SECONDS, truth / SECONDS, 0.1);
        let note = format!("{python}: {}", got.notes);
        assert!(got.notes.contains("garbage was collected"), "{note}");
    }
}

/// Finalizers that sleep in one thread, while another one has the lock and the interpreter says that it collects.
const COLLECTED: &str = "
import gc, threading, time
class Node:
    def __init__(self): self.me = self
    def __del__(self): time.sleep(0.0005)
def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
def other():
    while not done: fib(15)
done = False
thread = threading.Thread(target=other)
thread.start()
end = time.perf_counter() + 1.5
while time.perf_counter() < end:
    nodes = [Node() for _ in range(20)]
    del nodes
    gc.collect()
done = True
thread.join()
";

#[test]
fn a_collection_is_the_row_of_the_thread_that_collects() {
    let _shared = in_company();
    for python in pythons() {
        let stage = python.stage();
        let words = python.words(&[&stage.put("collected.py", COLLECTED)]);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        for reader in ["same-cpu", "interrupt"] {
            let options = ["run", "-q", "--reader", reader, "-f", "collapsed", "--"];
            let text = biopsy(&[&options[..], &words].concat()).ok().stdout;
            let time = |is_wanted: &dyn Fn(&str) -> bool| -> f64 {
                let lines = text.lines().filter(|line| is_wanted(line));
                let times = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
                times.sum::<f64>() / 1e6
            };
            let collected = time(&|line| line.contains(";<GC>;__del__"));
            let wrong = time(&|line| line.contains("<GC>") && line.contains("fib"));
            say(format_args!(
                "{python}, {reader}: finalizers {collected:.2} s, others {wrong:.2} s"
            ));
            assert!(wrong == 0.0, "{python}, {reader}: {text}");
            // Threads that sleep are seen seldom there, and until one is seen to collect it is not known whose it is.
            let least = if reader == "interrupt" { 0.2 } else { 0.8 };
            assert!(collected > least, "{python}, {reader}: {text}");
        }
    }
}

#[test]
fn modes_count_what_the_states_say() {
    let _alone = alone();
    let python = Python::any();
    let total = |got: &Recorded| seconds(&got.profile["total_tottime_s"]);
    // Of two threads that fight and one that waits for them, one holds the GIL at a time.
    let gil = recorded(python, "fighters", &["--mode", "gil"]);
    let held = seconds(&gil.profile["states"]["gil_held_s"]);
    near(python, "gil", total(&gil), held, 0.01);
    near(python, "held", held / SECONDS, 1.0, 0.2);
    let cpu = recorded(python, "fighters", &["--mode", "cpu"]);
    let used: f64 = ["fight-0", "fight-1"]
        .iter()
        .map(|name| seconds(&cpu.truth["threads"][name]["cpu_s"]))
        .sum();
    near(python, "cpu", total(&cpu), used, 0.2 * SECONDS);
    // What C code does without the GIL is CPU time, but no time of the GIL.
    let gil = recorded(python, "released", &["--mode", "gil"]);
    assert!(total(&gil) < 0.3 * SECONDS, "{}", total(&gil));
    let cpu = recorded(python, "released", &["--mode", "cpu"]);
    assert!(total(&cpu) > 0.7 * SECONDS, "{}", total(&cpu));
}

/// `except` and `finally` blocks that an exception entered, what they call, and generators among that; nothing else.
#[test]
fn time_with_an_exception_is_that_of_who_handles_one() {
    let _company = in_company();
    for python in pythons() {
        let stage = python.stage();
        let script = stage.fixture("handled.py");
        let file = |name: &str| stage.path().join(name).to_str().expect("UTF-8").to_string();
        let (json, recording) = (file("out.json"), file("out.biopsy"));
        let mut words = vec![
            "run",
            "-q",
            "--mode",
            "exception",
            "-o",
            &json,
            "-o",
            &recording,
            "--",
        ];
        let program = python.words(&[&script, "0.2"]);
        words.extend(program.iter().map(String::as_str));
        biopsy(&words).ok();
        let profile: Value =
            serde_json::from_str(&std::fs::read_to_string(json).expect("written")).expect("JSON");
        let functions = profile["functions"].as_array().expect("functions");
        let time = |name: &str| {
            let row = functions.iter().find(|row| row["name"] == name);
            row.map_or(0.0, |row| seconds(&row["cumtime_s"]))
        };
        let those = [
            "handling",
            "finalizing",
            "generator_handles",
            "generator_called",
            "asleep",
        ];
        for name in those {
            // Of a machine that is busy some turns take longer.
            near(python, name, time(name).min(0.2), 0.2, 0.02);
        }
        for name in [
            "plain",
            "cleaning",
            "after",
            "caller_of_generator",
            "beside",
        ] {
            assert_eq!(time(name), 0.0, "{python}: {name}");
        }
        for row in functions {
            assert_eq!(row["ncalls_from"], "lower-bound", "{python}: {row}");
        }
        // The recording has the rest of the time too.
        let all = biopsy(&["report", &recording, "--mode", "wall", "-f", "json"])
            .ok()
            .json();
        let functions = all["functions"].as_array().expect("functions");
        assert!(
            functions.iter().any(|row| row["name"] == "plain"),
            "{python}"
        );
        let again = biopsy(&["report", &recording, "-f", "json"]).ok().json();
        assert_eq!(again["functions"], profile["functions"], "{python}");
    }
}

#[test]
fn who_handled_an_exception_is_not_known_of_every_recording() {
    let _company = in_company();
    let stage = Python::any().stage();
    let recording = stage.path().join("out.biopsy");
    let recording = recording.to_str().expect("UTF-8");
    let words = Python::any().words(&["-c", "sum(range(3000000))"]);
    let mut all = vec!["run", "-q", "-o", recording, "--"];
    all.extend(words.iter().map(String::as_str));
    biopsy(&all).ok();
    let refused = biopsy(&["report", recording, "--mode", "exception"]);
    assert_ne!(refused.code(), 0);
    assert!(
        refused
            .stderr
            .contains("does not say which threads handled one")
            && refused.stderr.contains("--mode exception"),
        "{}",
        refused.stderr
    );
}

/// One thread that holds the GIL in long calls of C, and two that only want it now and then.
const CONVOY: &str = "
import json, threading, time
def hog():
    while time.time() < end: sum(range(200000))
def polite():
    while time.time() < end:
        json.dumps({'a': 1})
        time.sleep(0.001)
end = time.time() + 1.5
threads = [threading.Thread(target=work) for work in (hog, polite, polite)]
for thread in threads: thread.start()
for thread in threads: thread.join()
";

#[test]
fn who_made_whom_wait_is_told() {
    let _alone = alone();
    for python in pythons() {
        let stage = python.stage();
        let words = python.words(&[&stage.put("convoy.py", CONVOY)]);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let recording = stage.path().join("convoy.biopsy");
        let recording = recording.to_str().expect("UTF-8");
        let options = ["run", "-q", "-o", recording, "--"];
        biopsy(&[&options[..], &words].concat()).ok();
        let shown = |format: &[&str]| {
            let words = ["report", recording, "-q", "--mode", "gil"];
            biopsy(&[&words[..], format].concat()).ok()
        };
        let document = shown(&["-f", "json"]).json();
        let waits = document["gil_waits"].as_array().expect("waits");
        let all: f64 = waits.iter().map(|wait| seconds(&wait["waited_s"])).sum();
        let of_states = seconds(&document["states"]["gil_waited_s"]);
        assert!(
            (all - of_states).abs() < 0.01,
            "{python}: {all} of {of_states}"
        );
        // Two threads wait for nearly all of the time, for the one that holds the GIL in sum().
        let first = &waits[0];
        let sum = "<built-in method builtins.sum>";
        assert_eq!(first["holder"]["name"], sum, "{python}: {first}");
        assert_eq!(
            first["holder"]["caller"]["name"], "hog",
            "{python}: {first}"
        );
        let share = seconds(&first["waited_s"]) / all;
        say(format_args!(
            "{python}: {all:.2} s of waiting, {share:.2} for sum"
        ));
        assert!(share > 0.6 && all > 1.5, "{python}: {waits:#?}");
        let table = shown(&["-l", "3"]).stdout;
        assert!(
            table.contains("who made whom wait for the GIL: "),
            "{python}: {table}"
        );
        assert!(
            table.contains("{built-in method builtins.sum} in "),
            "{python}: {table}"
        );
    }
}

#[test]
fn sleepers_are_shown_with_what_they_sleep_in() {
    let _shared = in_company();
    for python in pythons() {
        eprintln!("{python}");
        let stage = python.stage();
        let mut target = python.start(&[&stage.fixture("thread_states.py"), "sleepers"]);
        let pid = target.pid.to_string();
        for options in [&["--json"][..], &["--json", "--blocking"]] {
            let dump = biopsy(&[&["dump", &pid], options].concat()).ok().json();
            check_sleepers(python, &target, &dump);
        }
        let text = biopsy(&["dump", &pid]).ok().stdout;
        assert!(
            text.contains("(idle (epoll_wait)): \"sleep_in_epoll\""),
            "{text}"
        );
        target.assert_free();
        target.tell("");
        assert!(target.wait().success());
    }
}

fn check_sleepers(python: &Python, target: &Target, dump: &Value) {
    let threads = dump["threads"].as_array().expect("threads");
    assert_eq!(threads.len(), 7, "{python}");
    for thread in threads {
        let name = thread["name"].as_str().expect("name");
        let call = thread["system_call"].as_str().expect("a system call");
        let expected: &[&str] = match name {
            "sleep_in_epoll" => &["epoll_wait", "epoll_pwait"],
            "sleep_in_poll" => &["poll", "ppoll"],
            "sleep_in_read" | "MainThread" => &["read"],
            "sleep_in_accept" => &["accept", "accept4"],
            "sleep_in_sleep" => &["select", "pselect6", "clock_nanosleep", "restart_syscall"],
            "sleep_in_lock" => &["futex"],
            other => panic!("a thread {other}"),
        };
        // The kernel's own number, as /proc has it.
        let os_id = &thread["os_id"];
        let own = std::fs::read_to_string(format!("/proc/{}/task/{os_id}/syscall", target.pid));
        assert!(
            expected.contains(&call),
            "{python}, {name}: {call}, {own:?}"
        );
        assert_eq!(thread["state"], "idle", "{python}, {name}");
        assert_eq!(
            thread["activity"],
            format!("idle ({call})"),
            "{python}, {name}"
        );
        assert_eq!(thread["waits_for_gil"], false, "{python}, {name}");
    }
}

#[test]
fn a_recording_keeps_the_states() {
    let _alone = alone();
    let python = Python::any();
    let stage = python.stage();
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| {
        folder
            .path()
            .join(name)
            .to_str()
            .expect("UTF-8")
            .to_string()
    };
    let (recording, direct, later) = (path("a.biopsy"), path("a.json"), path("b.json"));
    let program = python.words(&[&stage.fixture("thread_states.py"), "fighters", "0.5"]);
    let mut words = vec!["run", "-q", "-o", &recording, "-o", &direct, "--"];
    words.extend(program.iter().map(String::as_str));
    biopsy(&words).ok();
    run(&mut biopsy_command(&[
        "report", &recording, "-q", "-o", &later,
    ]))
    .ok();
    let read = |file: &str| -> Value {
        let text = std::fs::read_to_string(file).expect("a file");
        serde_json::from_str(&text).expect("JSON")
    };
    let (direct, later) = (read(&direct), read(&later));
    assert!(seconds(&direct["states"]["gil_waited_s"]) > 0.0);
    assert_eq!(direct["states"], later["states"]);
    assert_eq!(direct["threads"], later["threads"]);
}
