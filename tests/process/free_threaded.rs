//! Builds without a GIL, in which threads run Python at the same time: from the command line.

use crate::common;

use std::process::Command;
use std::time::Duration;

use common::{
    PATIENCE, Python, Running, Target, alone, biopsy, biopsy_command, find_program, in_company,
    not_here, run, say,
};

/// Two workers at once, each with 4 ms of CPU time in `left` for 1.1 in `right`, and one that naps. A line asks for the CPU time
/// that the program has used, and the time on the clock.
const PARALLEL: &str = r#"
import sys, threading, time
stop = False
def left(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
def right(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
def work():
    while not stop:
        left(0.004)
        right(0.0011)
def naps():
    while not stop:
        time.sleep(0.01)
threads = [threading.Thread(target=work), threading.Thread(target=work), threading.Thread(target=naps)]
for thread in threads:
    thread.start()
print("ready", flush=True)
for line in sys.stdin:
    print(time.process_time(), time.perf_counter(), flush=True)
stop = True
"#;

/// Points that a share of CPU time may differ by, beside three times what chance makes of so many samples.
const SHARE: f64 = 1.5;

/// The part of the kernel's count of CPU time by which the sum of all samples may be wrong.
const CPU: f64 = 0.05;

/// How often that is measured where others were in the way.
const TRIES: usize = 3;

fn start(python: &Python) -> Target {
    let stage = python.stage();
    // It is read before it says that it is ready.
    python.start(&[&stage.put("parallel.py", PARALLEL)])
}

/// What a program says when it is asked.
fn numbers(target: &mut Target) -> Vec<f64> {
    target.tell("");
    let line = target.line();
    let words = line.split_ascii_whitespace();
    words.map(|word| word.parse().expect("seconds")).collect()
}

fn seconds(profile: &serde_json::Value, name: &str, what: &str) -> f64 {
    let functions = profile["functions"].as_array().expect("functions");
    let row = functions.iter().find(|row| row["name"] == name);
    row.map_or(0.0, |row| row[what].as_f64().expect("seconds"))
}

#[test]
fn known_shares_of_threads_that_run_at_once_are_found() {
    let _alone = alone();
    for python in Python::free_threaded() {
        let mut target = start(python);
        let pid = target.pid.to_string();
        for reader in ["auto", "same-cpu"] {
            for left in (0..TRIES).rev() {
                let words = [
                    "attach", &pid, "-q", "-d", "2", "-r", "2k", "--mode", "cpu", "--reader",
                    reader, "-f", "json",
                ];
                let before = numbers(&mut target);
                let profile = biopsy(&words).ok().json();
                let after = numbers(&mut target);
                let samples = profile["samples"].as_f64().expect("a number");
                let (a, b) = (
                    seconds(&profile, "left", "cumtime_s"),
                    seconds(&profile, "right", "cumtime_s"),
                );
                let share = 100.0 * a / (a + b);
                let expected = 100.0 * 4.0 / 5.1;
                let chance = 300.0 * (0.78 * 0.22 / samples).sqrt();
                // Cores in use, by the samples and by the program's own count, which is of a little more time.
                let time = profile["duration_s"].as_f64().expect("seconds");
                let cores = seconds(&profile, "work", "cumtime_s") / time;
                let own = (after[0] - before[0]) / (after[1] - before[1]);
                let told = format!(
                    "{python} {reader}: left {share:.1} % ({expected:.1} %), {cores:.3} cores ({own:.3}); {samples} samples, {} given up",
                    profile["given_up"]
                );
                say(&told);
                let is_right = (share - expected).abs() <= SHARE + chance
                    && (cores / own - 1.0).abs() <= CPU
                    && profile["reader"]
                        .as_str()
                        .is_some_and(|name| !name.contains("GIL"));
                if is_right {
                    break;
                }
                assert!(left > 0, "{told}");
            }
        }
    }
}

/// One thread collects garbage, of which there is none, for a part of the time that it knows itself; another one runs beside it.
const COLLECTS: &str = r#"
import gc, sys, threading, time
gc.disable()
keep = [[[] for _ in range(1000)] for _ in range(60)]
spent = began = 0.0
def note(phase, info):
    global spent, began
    if phase == "start":
        began = time.perf_counter()
    else:
        spent += time.perf_counter() - began
gc.callbacks.append(note)
def spin(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass
def collector():
    while True:
        spin(0.02)
        gc.collect()
def spinner():
    while True:
        spin(0.01)
for target in (collector, spinner):
    threading.Thread(target=target, daemon=True).start()
print("ready", flush=True)
for line in sys.stdin:
    print(spent, time.perf_counter(), flush=True)
"#;

/// Points by which the share of time of collections may be wrong: others have the CPU as well, and its ends are not seen.
const COLLECTION: f64 = 6.0;

#[test]
fn the_thread_that_stops_the_others_is_the_one_that_collects() {
    let _alone = alone();
    for python in Python::free_threaded() {
        let stage = python.stage();
        let mut target = python.start(&[&stage.put("collects.py", COLLECTS)]);
        let pid = target.pid.to_string();
        for reader in ["auto", "same-cpu"] {
            for left in (0..TRIES).rev() {
                let before = numbers(&mut target);
                let words = [
                    "attach", &pid, "-q", "-d", "1", "--reader", reader, "-f", "json",
                ];
                let profile = biopsy(&words).ok().json();
                let after = numbers(&mut target);
                let own = 100.0 * (after[0] - before[0]) / (after[1] - before[1]);
                let duration = profile["duration_s"].as_f64().expect("seconds");
                let seen = 100.0 * seconds(&profile, "<GC>", "cumtime_s") / duration;
                let told = format!("{python} {reader}: garbage {seen:.1} %, its own {own:.1} %");
                say(&told);
                if (seen - own).abs() <= COLLECTION {
                    break;
                }
                assert!(left > 0, "{told}");
            }
        }
    }
}

#[test]
fn what_needs_a_gil_is_refused_by_name() {
    let _company = in_company();
    for python in Python::free_threaded() {
        let mut target = start(python);
        let pid = target.pid.to_string();
        for words in [
            &["attach", &pid, "-d", "1", "--mode", "gil"][..],
            &["attach", &pid, "-d", "1", "--async"],
            &["attach", &pid, "-d", "1", "--reader", "py-spy"],
            &["dump", &pid, "--locals"],
            &["dump", &pid, "--async"],
            &["heap", "summary", &pid],
            &["calls", &pid, "left"],
        ] {
            let ran = biopsy(words);
            let code = ran.code();
            assert!(code != 0, "{ran}");
            let named = format!("Python {} is a free-threaded build", python.version);
            ran.refused(code, &named);
        }
        target.assert_free();
    }
}

#[test]
fn calls_are_not_counted_and_one_note_says_so() {
    let _company = in_company();
    for python in Python::free_threaded() {
        let target = start(python);
        let pid = target.pid.to_string();
        for reader in ["auto", "same-cpu"] {
            let ran = biopsy(&["attach", &pid, "-d", "0.5", "--reader", reader]).ok();
            let notes: Vec<&str> = ran.stderr.lines().collect();
            assert_eq!(notes.len(), 1, "{ran}");
            assert!(notes[0].contains("lower bounds") && notes[0].contains("free-threaded"));
            assert!(ran.stdout.contains("ncalls are lower bounds"), "{ran}");
            assert!(ran.stdout.contains("(left)"), "{ran}");
        }
    }
}

#[test]
fn stacks_are_dumped_with_their_lines() {
    let _company = in_company();
    for python in Python::free_threaded() {
        let mut target = start(python);
        let pid = target.pid.to_string();
        let line = |name: &str| {
            let lines = PARALLEL.lines().enumerate();
            let mut found = lines.filter(|(_, text)| text.contains(name));
            found.next().expect("a line").0 + 1
        };
        for options in [&[][..], &["--blocking"]] {
            let ran = biopsy(&[&["dump", &pid][..], options].concat()).ok();
            assert!(
                ran.stdout.contains(&format!("Python {}", python.version)),
                "{ran}"
            );
            assert!(
                !ran.stdout.contains("gil") && !ran.stdout.contains("GIL"),
                "{ran}"
            );
            let naps = "naps (";
            let wanted = format!("parallel.py:{})", line("time.sleep"));
            let nap = ran.stdout.lines().find(|line| line.contains(naps));
            assert!(nap.is_some_and(|line| line.ends_with(&wanted)), "{ran}");
            let main = format!("parallel.py:{})", line("for line in sys.stdin"));
            assert!(ran.stdout.contains(&main), "{ran}");
        }
        let ran = biopsy(&["ps"]).ok();
        let row = ran
            .stdout
            .lines()
            .find(|line| line.trim_start().starts_with(&pid));
        assert!(
            row.is_some_and(|row| row.contains(&python.version)),
            "{ran}"
        );
        target.assert_free();
    }
}

#[test]
fn without_the_right_to_interrupt_each_thread_is_read_on_its_cpu() {
    let _company = in_company();
    let Some(capsh) = find_program("capsh").filter(|_| common::is_root()) else {
        not_here("capsh and root");
        return;
    };
    for python in Python::free_threaded() {
        let target = start(python);
        let pid = target.pid.to_string();
        let words = ["attach", &pid, "-q", "-d", "0.5", "-f", "json"];
        let biopsy = biopsy_command(&words);
        let mut command = Command::new(&capsh);
        command
            .args([
                "--drop=cap_bpf,cap_perfmon,cap_sys_admin",
                "--",
                "-c",
                "exec \"$0\" \"$@\"",
            ])
            .arg(biopsy.get_program())
            .args(words);
        let profile = run(&mut command).ok().json();
        let reader = profile["reader"].as_str().expect("a reader");
        assert!(!reader.contains("interrupts"), "{reader}");
        assert!(
            reader.contains("on the CPU of each thread") || reader.contains("approximate"),
            "{reader}"
        );
        assert!(seconds(&profile, "left", "cumtime_s") > 0.0);
        assert!(seconds(&profile, "naps", "cumtime_s") > 0.3);
    }
}

#[test]
fn a_killed_biopsy_leaves_it_running() {
    let _company = in_company();
    for python in Python::free_threaded() {
        let mut target = start(python);
        let pid = target.pid.to_string();
        for (at, options) in [
            &["--reader", "auto"][..],
            &["--reader", "same-cpu"],
            &["--blocking"],
        ]
        .iter()
        .enumerate()
        {
            let words = [&["attach", &pid, "-q", "-r", "10k"][..], options].concat();
            let mut attach = Running::start(&mut biopsy_command(&words), b"");
            std::thread::sleep(Duration::from_millis(150 + 30 * at as u64));
            attach.kill();
            attach.finish(PATIENCE);
            target.tell("");
            assert!(!target.line().is_empty(), "{python}");
            target.assert_free();
        }
    }
}

#[test]
fn a_program_is_run_sampled_and_exactly() {
    let _company = in_company();
    let code = "import threading\n\
                def f(n): return sum(range(n))\n\
                def work():\n    for _ in range(3000): f(1000)\n\
                threads = [threading.Thread(target=work) for _ in range(2)]\n\
                for thread in threads: thread.start()\n\
                for thread in threads: thread.join()\n";
    for python in Python::free_threaded() {
        let stage = python.stage();
        let script = stage.put("program.py", code);
        let program = python.command[0].as_str();
        let ran = biopsy(&[
            "run", "-q", "-f", "json", "--python", program, "--", &script,
        ])
        .ok();
        assert!(seconds(&ran.json(), "f", "cumtime_s") > 0.0, "{ran}");
        let words = [
            "run", "-q", "--exact", "-f", "json", "--python", program, "--", &script,
        ];
        let ran = biopsy(&words).ok();
        let profile = ran.json();
        let functions = profile["functions"].as_array().expect("functions");
        let row = functions.iter().find(|row| row["name"] == "f");
        assert_eq!(row.expect("f")["ncalls"], 6000, "{ran}");
    }
}
