//! Targets that die, become others, stand still, are held by a debugger or write nonsense into what is read, in the
//! middle of sampling: no crash, no hang, and what could not be read is counted.

mod common;

use std::process::Command;
use std::time::{Duration, Instant};

use common::{Python, Ran, biopsy_command, find_program, not_here, run, send_signal, tracer};

/// How long biopsy samples, and the most that it may take for that.
const SECONDS: &str = "1.8";
const PATIENCE: Duration = Duration::from_secs(20);

/// Most memory that biopsy may map, KiB.
const MOST_KIB: u32 = 4_000_000;

/// What a target does after it said `ready`; each goes on for two seconds at least, unless it ends.
const DEEDS: [(&str, &str); 7] = [
    ("dies", "time.sleep(0.5); os.kill(os.getpid(), 9)"),
    ("ends", "work(0.5)"),
    (
        "execs",
        "work(0.5); os.execv(sys.executable, [sys.executable, '-c', \
         'import time\\nend = time.time() + 2\\nwhile time.time() < end: pass'])",
    ),
    (
        "execs no Python",
        "work(0.5); os.execv('/bin/sleep', ['sleep', '2'])",
    ),
    (
        "forks",
        "
for _ in range(40):
    pid = os.fork()
    if pid == 0:
        work(0.01)
        os._exit(0)
    os.waitpid(pid, 0)
    work(0.03)
",
    ),
    (
        "loads modules",
        "
import importlib, pkgutil
work(0.3)
for module in list(pkgutil.iter_modules())[:160]:
    if module.name not in ('antigravity', 'this', 'idlelib', 'turtle', '__main__', 'turtledemo', 'tkinter'):
        try:
            importlib.import_module(module.name)
        except BaseException:
            pass
work(1)
",
    ),
    (
        "makes code and frees it",
        "
end = time.time() + 2
while time.time() < end:
    space = {}
    exec('def made():\\n' + '    sum(range(50))\\n' * 20, space)
    space['made']()
",
    ),
];

const PROGRAM: &str = "
import os, sys, time
def work(seconds):
    end = time.time() + seconds
    while time.time() < end:
        sum(range(100))
print('ready', flush=True)
";

/// Samples `pid`, with bounds on memory.
fn sample(pid: i32, out: &std::path::Path) -> Ran {
    let biopsy = biopsy_command(&["attach"]);
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("ulimit -v {MOST_KIB}; exec \"$0\" \"$@\"")])
        .arg(biopsy.get_program())
        .args([
            "attach",
            &pid.to_string(),
            "-q",
            "-r",
            "1000",
            "-d",
            SECONDS,
            "-o",
        ])
        .arg(out);
    let started = Instant::now();
    let ran = run(&mut command);
    assert!(started.elapsed() < PATIENCE, "{ran}");
    assert!(!ran.stderr.contains("panicked"), "{ran}");
    assert!(ran.code() <= 8, "{ran}");
    ran
}

/// Samples that were taken and given up.
fn counts(out: &std::path::Path) -> (u64, u64) {
    let text = std::fs::read_to_string(out).expect("a result");
    let result: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let number = |key: &str| result[key].as_u64().expect("a number");
    (number("samples"), number("given_up"))
}

#[test]
fn whatever_a_target_does_meanwhile_is_survived() {
    let folder = tempfile::tempdir().expect("a folder");
    for python in Python::all().iter().filter(|python| python.minor >= 8) {
        for (name, deed) in DEEDS {
            let target = python.start(&["-c", &format!("{PROGRAM}{deed}")]);
            let out = folder.path().join("out.json");
            let ran = sample(target.pid, &out);
            let (samples, given_up) = counts(&out);
            common::say(format_args!(
                "{} {name}: {samples} samples, {given_up} given up, {:.2?}, code {}",
                python.version,
                ran.took,
                ran.code()
            ));
            assert!(samples > 50, "{} {name}{ran}", python.version);
        }
    }
}

#[test]
fn a_target_that_writes_nonsense_does_no_harm() {
    let folder = tempfile::tempdir().expect("a folder");
    for python in Python::all().iter().filter(|python| python.minor >= 8) {
        let stage = python.stage();
        let program = stage.fixture("hostile.py");
        for seed in ["1", "2", "3"] {
            let target = python.start(&[&program, seed]);
            let out = folder.path().join("out.json");
            let ran = sample(target.pid, &out);
            let (samples, given_up) = counts(&out);
            common::say(format_args!(
                "{} hostile {seed}: {samples} samples, {given_up} given up, {:.2?}, code {}",
                python.version,
                ran.took,
                ran.code()
            ));
        }
    }
}

#[test]
fn a_target_that_is_stopped_or_debugged_stays_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let python = Python::any();
    let strace = find_program("strace");
    if strace.is_none() {
        not_here("strace");
    }
    for debugged in [false, true] {
        let target = python.start(&["-c", &format!("{PROGRAM}work(60)")]);
        let pid = target.pid;
        let mut debugger = None;
        let meanwhile = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(400));
            if !debugged {
                send_signal("STOP", pid);
                std::thread::sleep(Duration::from_millis(500));
                assert_eq!(common::state(pid), Some('T'));
                send_signal("CONT", pid);
            }
        });
        if let (true, Some(strace)) = (debugged, &strace) {
            let mut command = Command::new(strace);
            command.args(["-f", "-o", "/dev/null", "-p", &pid.to_string()]);
            command.stderr(std::process::Stdio::null());
            debugger = Some(command.spawn().expect("strace"));
            common::wait_until("strace traces", || tracer(pid) != Some(0));
        }
        let out = folder.path().join("out.json");
        sample(pid, &out).ok();
        meanwhile.join().expect("stopped and continued");
        let (samples, given_up) = counts(&out);
        common::say(format_args!(
            "debugged {debugged}: {samples} samples, {given_up} given up"
        ));
        assert!(samples > 100);
        if let Some(mut debugger) = debugger {
            assert_eq!(tracer(pid), Some(debugger.id() as i32));
            send_signal("INT", debugger.id() as i32);
            let _ = debugger.wait();
        }
    }
}
