//! `--reader interrupt` from the command line: known shares, what it falls back to, and what it leaves behind.

use crate::common;

use std::process::Command;
use std::time::Duration;

use common::{
    PATIENCE, Python, Running, alone, biopsy, biopsy_command, find_program, in_company, not_here,
    run, say,
};
use rand::RngExt;

/// Turns of a worker: 4 ms of CPU time in `left` for 1.1 in `right`, and naps. A line asks for the time that each has taken.
const TURNS: &str = r#"
import sys, threading, time
spent = {"left": 0.0, "right": 0.0, "nap": 0.0}
stop = False
def left(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
def right(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
def nap(seconds):
    time.sleep(seconds)
def turns():
    while not stop:
        for kind, seconds in ((left, 0.0033), (nap, 0.0021), (right, 0.0011), (nap, 0.0004), (left, 0.0007)):
            began = time.perf_counter()
            kind(seconds)
            spent[kind.__name__] += time.perf_counter() - began
worker = threading.Thread(target=turns)
worker.start()
print("ready", flush=True)
for line in sys.stdin:
    print(*spent.values(), flush=True)
stop = True
"#;

/// Points that a share of CPU time may differ by, beside three times what chance makes of so many samples.
const CPU: f64 = 1.0;

/// The same of time on the clock: whoever waits for a CPU on a busy machine is seen when we have one.
const WALL: f64 = 5.0;

/// How often that is measured where others were in the way.
const TRIES: usize = 3;

/// Whether a profile was taken in interrupts; a word where it was not.
fn is_interrupting(profile: &serde_json::Value) -> bool {
    let reader = profile["reader"].as_str().expect("a reader");
    let interrupts = reader.contains("timer interrupts");
    if !interrupts {
        not_here(format!("timer interrupts: {reader}"));
    }
    interrupts
}

fn times(profile: &serde_json::Value) -> [f64; 3] {
    ["left", "right", "nap"].map(|name| {
        let functions = profile["functions"].as_array().expect("functions");
        let row = functions.iter().find(|row| row["name"] == name);
        row.map_or(0.0, |row| row["cumtime_s"].as_f64().expect("seconds"))
    })
}

#[test]
fn known_shares_are_found_in_interrupts() {
    let _alone = alone();
    let mut wrong = Vec::new();
    for python in Python::all().iter().filter(|python| python.minor >= 8) {
        let stage = python.stage();
        let mut target = python.start(&[&stage.put("turns.py", TURNS)]);
        let pid = target.pid.to_string();
        let own = |target: &mut common::Target| -> Vec<f64> {
            target.tell("");
            let line = target.line();
            let words = line.split_ascii_whitespace();
            words.map(|word| word.parse().expect("a number")).collect()
        };
        for mode in ["wall", "cpu"] {
            for left in (0..TRIES).rev() {
                let words = [
                    "attach",
                    &pid,
                    "-q",
                    "-d",
                    "1",
                    "-r",
                    "4k",
                    "--no-counts",
                    "-f",
                    "json",
                ];
                let options = ["--reader", "interrupt", "--mode", mode];
                let before = own(&mut target);
                let profile = biopsy(&[&words[..], &options].concat()).ok().json();
                let after = own(&mut target);
                if !is_interrupting(&profile) {
                    return;
                }
                let seen = times(&profile);
                let samples = profile["samples"].as_f64().expect("a number");
                let chance = 300.0 * (0.8 * 0.2 / samples).sqrt();
                let (expected, limit) = match mode {
                    "cpu" => ([4.0, 1.1, 0.0], CPU + chance),
                    _ => ([0, 1, 2].map(|at| after[at] - before[at]), WALL),
                };
                let (all, whole) = (seen.iter().sum::<f64>(), expected.iter().sum::<f64>());
                let shares = |times: [f64; 3], all: f64| times.map(|time| 100.0 * time / all);
                let (seen, expected) = (shares(seen, all), shares(expected, whole));
                let told = format!(
                    "{python} {mode}: {seen:.1?} %, its own {expected:.1?} %; {samples} samples, {} given up",
                    profile["given_up"]
                );
                say(&told);
                let mut pairs = seen.iter().zip(expected);
                if pairs.all(|(a, b)| (a - b).abs() <= limit) {
                    break;
                }
                if left == 0 {
                    wrong.push(told);
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A thread that sleeps for so long each time that it is looked at more than once meanwhile.
const SLEEPER: &str = "
import threading, time
def sleeper():
    while True:
        time.sleep(0.01)
threading.Thread(target=sleeper, daemon=True).start()
print('ready', flush=True)
while True: sum(range(999))
";

#[test]
fn threads_that_sleep_have_all_of_their_time() {
    let _shared = in_company();
    let mut pythons = vec![Python::any()];
    pythons.extend(Python::free_threaded());
    for python in pythons {
        let stage = python.stage();
        let target = python.start(&[&stage.put("sleeper.py", SLEEPER)]);
        let pid = target.pid.to_string();
        let words = [
            "attach",
            &pid,
            "-q",
            "-d",
            "1",
            "--reader",
            "interrupt",
            "-f",
            "json",
        ];
        let profile = biopsy(&words).ok().json();
        if !is_interrupting(&profile) {
            return;
        }
        let functions = profile["functions"].as_array().expect("functions");
        let row = functions.iter().find(|row| row["name"] == "sleeper");
        let slept = row.map_or(0.0, |row| row["cumtime_s"].as_f64().expect("seconds"));
        let all = profile["duration_s"].as_f64().expect("seconds");
        assert!(
            (0.93..1.02).contains(&(slept / all)),
            "{python}: {slept} s of {all}"
        );
    }
}

/// Threads that sleep from their beginning to their end.
const BRIEF: &str = r#"
import threading, time
def brief():
    time.sleep(0.04)
for _ in range(20):
    thread = threading.Thread(target=brief, name="brief")
    thread.start()
    thread.join()
"#;

#[test]
fn threads_that_sleep_from_their_start_are_found() {
    let _shared = in_company();
    let pythons = Python::all().iter().filter(|python| python.minor >= 8);
    for python in pythons.chain(Python::free_threaded()) {
        let stage = python.stage();
        let json = stage.path().join("out.json");
        let json = json.to_str().expect("UTF-8");
        let mut words = vec![
            "run",
            "-q",
            "--no-counts",
            "--reader",
            "interrupt",
            "-o",
            json,
            "--",
        ];
        let program = python.words(&[&stage.put("brief.py", BRIEF)]);
        words.extend(program.iter().map(String::as_str));
        biopsy(&words).ok();
        let text = std::fs::read_to_string(json).expect("written");
        let profile: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        if !is_interrupting(&profile) {
            return;
        }
        let functions = profile["functions"].as_array().expect("functions");
        let row = functions.iter().find(|row| row["name"] == "brief");
        let slept = row.map_or(0.0, |row| row["cumtime_s"].as_f64().expect("seconds"));
        say(format_args!("{python}: {slept:.3} of 0.8 s asleep"));
        // A thread is known some milliseconds after its start, and was seen last some milliseconds before its end.
        assert!((0.4..1.2).contains(&slept), "{python}: {slept}");
    }
}

#[test]
fn without_the_right_to_interrupt_threads_are_read_from_outside() {
    let _shared = in_company();
    let target = Python::any().start(&[
        "-c",
        "print('ready', flush=True)\nwhile True: sum(range(999))",
    ]);
    let pid = target.pid.to_string();
    let words = [
        "attach",
        &pid,
        "-d",
        "0.5",
        "--reader",
        "interrupt",
        "-f",
        "json",
    ];
    let Some(capsh) = find_program("capsh").filter(|_| common::is_root()) else {
        not_here("capsh and root");
        return;
    };
    let biopsy = biopsy_command(&words);
    let mut command = Command::new(capsh);
    command
        .args([
            "--drop=cap_bpf,cap_perfmon,cap_sys_admin",
            "--",
            "-c",
            "exec \"$0\" \"$@\"",
        ])
        .arg(biopsy.get_program())
        .args(words);
    let ran = run(&mut command).ok();
    let notes = ran
        .stderr
        .lines()
        .filter(|line| line.contains("timer interrupts"));
    let notes: Vec<&str> = notes.collect();
    assert_eq!(notes.len(), 1, "{ran}");
    assert!(notes[0].contains("is not permitted"), "{ran}");
    let profile = ran.json();
    assert!(profile["samples"].as_u64() > Some(50), "{ran}");
    assert!(
        !profile["reader"]
            .as_str()
            .expect("a reader")
            .contains("interrupts")
    );
}

#[test]
fn nothing_is_left_of_a_killed_biopsy_that_interrupts() {
    let _shared = in_company();
    let mut random = rand::rng();
    for python in Python::all().iter().filter(|python| python.minor >= 8) {
        let stage = python.stage();
        let mut target = python.start(&[&stage.put("turns.py", TURNS)]);
        let pid = target.pid.to_string();
        for _ in 0..5 {
            let words = ["attach", &pid, "-q", "-r", "10k", "--reader", "interrupt"];
            let mut attach = Running::start(&mut biopsy_command(&words), b"");
            std::thread::sleep(Duration::from_micros(random.random_range(0..400_000)));
            attach.kill();
            attach.finish(PATIENCE);
            for _ in 0..2 {
                target.tell("");
                assert!(!target.line().is_empty(), "{python}");
            }
            target.assert_free();
        }
    }
    let Some(bpftool) = find_program("bpftool") else {
        not_here("bpftool");
        return;
    };
    common::wait_until("no program is left", || {
        let ran = run(Command::new(&bpftool).args(["prog", "show"]));
        !ran.stdout.contains("name biopsy")
    });
}
