//! Copies of a process's memory: they hold what the process holds, and the process never notices.

use crate::common;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use biopsy::error::{Error, ErrorKind};
use biopsy::target::image::{Captured, Held};
use biopsy::target::memory::Live;
use biopsy::target::memory::copy::{CaptureOptions, Pause, Report, capture};
use biopsy::target::memory::moment::{HeapState, Signs};
use biopsy::target::memory::stopped::Guard;
use biopsy::target::{maps, runtime};
use biopsy::units::Pid;
use common::{
    PATIENCE, Python, Ran, Running, Target, find_program, in_company, is_root, not_here, run, say,
    send_signal, state, tracer, wait_until,
};
use rand::RngExt;

/// Those whose heaps are read.
fn pythons() -> impl Iterator<Item = &'static Python> {
    Python::all().iter().filter(|python| python.minor >= 8)
}

/// Holds some megabytes and sleeps.
const HOLDER: &str = "
import sys, threading, time
store = [{'k': i, 'v': [str(i)]} for i in range(20000)]
# Not time.sleep: an interrupted select() writes the time that is left to the stack.
threading.Thread(target=threading.Event().wait, daemon=True).start()
time.sleep(0.3)
print('ready', flush=True)
for line in sys.stdin:
    print(len(store), flush=True)
";

fn take(target: &Target, options: CaptureOptions) -> (Captured, Report) {
    capture(Pid(target.pid), options).unwrap_or_else(|error| panic!("{error}"))
}

/// Compares a copy with what the kernel says is in the process, which stands still; gives the bytes compared.
fn assert_equal(python: &Python, target: &Target, captured: &Captured) -> u64 {
    let memory = File::open(format!("/proc/{}/mem", target.pid)).expect("root or the same user");
    let mut compared = 0;
    for region in maps::regions(Pid(target.pid)).expect("maps") {
        if !region.readable() || !region.writable() || !region.private() || region.special() {
            continue;
        }
        let mut start = region.start;
        while start < region.end {
            let mut length = (region.end - start).min(1 << 20) as usize;
            let mut theirs = vec![0; length];
            if memory.read_exact_at(&mut theirs, start).is_err() {
                length = 4096;
                theirs.truncate(length);
                if memory.read_exact_at(&mut theirs, start).is_err() {
                    // Nor can the process: the guard page of a stack (MADV_GUARD_INSTALL), or behind a file's end.
                    theirs.fill(0);
                }
            }
            let ours = captured
                .image
                .bytes(start, length)
                .unwrap_or_else(|| panic!("{python}: {start:#x} of {region:?} is not in the copy"));
            if let Some(at) = (0..length).find(|at| ours[*at] != theirs[*at]) {
                panic!(
                    "{python}: byte {:#x} of {region:?} differs",
                    start + at as u64
                );
            }
            compared += length as u64;
            start += length as u64;
        }
    }
    compared
}

#[test]
fn a_copy_holds_what_the_process_holds() {
    let _shared = in_company();
    for python in pythons() {
        // The kernel writes to the rseq area of a thread that runs on another CPU after a stop.
        let mut command = python.command(&["-c", HOLDER]);
        let mut target = Target::start(command.env("GLIBC_TUNABLES", "glibc.pthread.rseq=0"));
        // It is on its way to read stdin.
        std::thread::sleep(std::time::Duration::from_millis(50));
        let (captured, report) = take(&target, CaptureOptions::default());
        target.assert_free();
        let Held::Stopped(pause) = captured.held else {
            panic!("{python}: {:?}", captured.held);
        };
        send_signal("STOP", target.pid);
        wait_until("it is stopped", || state(target.pid) == Some('T'));
        let compared = assert_equal(python, &target, &captured);
        say(format_args!(
            "{python}: {compared} bytes equal, {report:?}, stopped for {pause:.1?}"
        ));
        assert!(
            report.copied > 4 << 20 && report.unreadable <= 4096,
            "{report:?}"
        );
        assert_eq!(captured.runtime.version.to_string(), python.version);
        assert!(captured.rss.is_some_and(|rss| rss > report.copied / 2));
        assert_eq!(captured.threads.len(), 2);
        // Stopped by someone else, it is copied too, and stays as it is.
        let (again, _) = take(
            &target,
            CaptureOptions {
                pause: Pause::Stop,
                mappings: true,
            },
        );
        assert_eq!(again.held, Held::Already);
        wait_until("it is stopped again", || state(target.pid) == Some('T'));
        assert_eq!(assert_equal(python, &target, &again), compared);
        let resident: u64 = again.mappings.iter().map(|mapping| mapping.rss).sum();
        assert!(resident > report.copied / 2, "{resident}");
        let (running, _) = take(
            &target,
            CaptureOptions {
                pause: Pause::Running,
                mappings: false,
            },
        );
        assert_eq!(running.held, Held::Running);
        assert_eq!(assert_equal(python, &target, &running), compared);
        send_signal("CONT", target.pid);
        target.tell("report");
        assert_eq!(target.line(), "20000", "{python}");
    }
}

/// Not a test: `BIOPSY_CAPTURE=PID` makes this binary a program that copies that process once, or until it is killed.
#[test]
fn capturer() {
    let _company = in_company();
    let Some(pid) = std::env::var("BIOPSY_CAPTURE")
        .ok()
        .and_then(|pid| pid.parse().ok())
    else {
        return;
    };
    let again = std::env::var_os("BIOPSY_CAPTURE_AGAIN").is_some();
    loop {
        let start = std::time::Instant::now();
        match capture(Pid(pid), CaptureOptions::default()) {
            Ok((captured, report)) => say(format_args!(
                "captured {:?} in {:.1?}, {report:?}, peak {}",
                captured.held,
                start.elapsed(),
                peak()
            )),
            Err(error) => {
                say(format_args!("refused {:?}: {error}", error.kind()));
                for hint in error.hints() {
                    say(format_args!("hint {hint}"));
                }
            }
        }
        if !again {
            return;
        }
    }
}

/// This binary as a program that copies `pid`, once or again and again.
fn capturer_of(pid: i32, again: bool) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("our own path"));
    command.args([
        "--exact",
        "capture::capturer",
        "--nocapture",
        "--test-threads=1",
    ]);
    command.env("BIOPSY_CAPTURE", pid.to_string());
    if again {
        command.env("BIOPSY_CAPTURE_AGAIN", "1");
    }
    command
}

/// Our own largest resident memory so far.
fn peak() -> String {
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    line.expect("VmHWM")
        .split_ascii_whitespace()
        .skip(1)
        .collect()
}

/// Threads blocked in ten kinds of system calls, none of which may ever come back; three of them called past Python,
/// which would call again. A line on stdin asks for what came back.
const BLOCKED: &str = include_str!("../../fixtures/programs/blocked_calls.py");

/// How many calls past Python came back early; fails when one came back that Python should have seen to.
fn came_back(target: &mut Target) -> u32 {
    target.tell("report");
    let line = target.line();
    let rest = line
        .strip_prefix("60000 ")
        .unwrap_or_else(|| panic!("{line}"));
    let (raw, back) = rest.split_once(' ').expect("two numbers");
    assert_eq!(back, "[]", "came back");
    raw.parse().expect("a number")
}

#[test]
fn no_call_of_a_copied_process_comes_back() {
    let _shared = in_company();
    for python in pythons() {
        let mut target = python.start(&["-c", BLOCKED]);
        for _ in 0..20 {
            let (captured, _) = take(&target, CaptureOptions::default());
            assert!(matches!(captured.held, Held::Stopped(_)));
        }
        target.assert_free();
        assert_eq!(came_back(&mut target), 0, "{python}");
        target.wait();
    }
}

#[test]
fn all_targets_survive_a_killed_copier() {
    let _shared = in_company();
    let mut random = rand::rng();
    let (mut at_work, mut early, mut kills) = (0, 0, 0);
    for python in pythons() {
        let mut target = python.start(&["-c", BLOCKED]);
        for _ in 0..20 {
            let mut copier = Running::start(&mut capturer_of(target.pid, true), b"");
            std::thread::sleep(Duration::from_micros(random.random_range(2_000..80_000)));
            at_work += u32::from(tracer(target.pid) != Some(0));
            copier.kill();
            copier.finish(PATIENCE);
            kills += 1;
            wait_until("it is traced by nobody", || tracer(target.pid) == Some(0));
            target.assert_free();
        }
        early += came_back(&mut target);
        target.wait();
    }
    // Of calls that the kernel does not restart, one may come back when the copier dies between stop and cure.
    say(format_args!(
        "{kills} killed, {at_work} of them while they held the target; {early} raw calls came back with EINTR"
    ));
    assert!(at_work > 0 && early < kills);
}

/// Starts and ends threads and processes all the time.
const CHURN: &str = "
import subprocess, sys, threading
done = [0, 0]
def threads():
    while True:
        others = [threading.Thread(target=sum, args=(range(1000),)) for _ in range(10)]
        for other in others:
            other.start()
        for other in others:
            other.join()
        done[0] += 1
def processes():
    while True:
        subprocess.run(['true'], check=True)
        done[1] += 1
for target in (threads, threads, processes):
    threading.Thread(target=target, daemon=True).start()
print('ready', flush=True)
for line in sys.stdin:
    print(*done, flush=True)
";

#[test]
fn every_thread_stands_still_however_many_come_and_go() {
    let _shared = in_company();
    let python = Python::any();
    let mut target = python.start(&["-c", CHURN]);
    let mut seen = 0;
    for _ in 0..300 {
        let guard = Guard::all(Pid(target.pid)).expect("ours");
        let tasks = std::fs::read_dir(format!("/proc/{}/task", target.pid)).expect("there");
        for task in tasks.flatten() {
            let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            let state = stat
                .rsplit(") ")
                .next()
                .and_then(|rest| rest.chars().next());
            // D: on its way into the kernel's deep sleep of vfork, from which it cannot return but by stopping.
            assert!(
                matches!(state, Some('t' | 'Z' | 'X' | 'D') | None),
                "{stat}"
            );
            seen += 1;
        }
        drop(guard);
    }
    assert!(seen > 900, "{seen}");
    let mut ask = || -> Vec<u32> {
        target.tell("report");
        target
            .line()
            .split(' ')
            .map(|word| word.parse().expect("a number"))
            .collect()
    };
    let before = ask();
    wait_until("threads and processes come and go", || {
        ask().iter().zip(&before).all(|(now, before)| now > before)
    });
    target.assert_free();
}

#[test]
fn a_collection_is_seen_and_waited_for() {
    let _shared = in_company();
    let program = "
import gc, sys, time
store = [[i] for i in range(300000)]
print('ready', flush=True)
sys.stdin.readline()
while True:
    gc.collect()
    time.sleep(0.005)
";
    for python in pythons() {
        let mut target = python.start(&["-c", program]);
        let memory = Live::new(Pid(target.pid));
        let runtime = runtime::find(Pid(target.pid), &memory).expect("a runtime");
        let signs = Signs::find(&memory, &runtime).expect("known");
        let look = || {
            std::thread::sleep(Duration::from_micros(100));
            signs.read(&memory).expect("alive")
        };
        // On its way to read the line.
        std::thread::sleep(Duration::from_millis(100));
        assert!(
            (0..400).all(|_| look() == HeapState::Quiet),
            "{python} waits for a line"
        );
        target.tell("go");
        let (mut collecting, mut quiet) = (0, 0);
        wait_until("both were seen", || {
            for _ in 0..50 {
                let moment = look();
                collecting += u32::from(moment == HeapState::Collecting);
                quiet += u32::from(collecting > 0 && moment == HeapState::Quiet);
            }
            collecting > 40 && quiet > 4
        });
        for _ in 0..5 {
            let (_, report) = take(&target, CaptureOptions::default());
            assert_eq!(report.moment, HeapState::Quiet, "{python}: {report:?}");
        }
        target.assert_free();
    }
}

#[test]
fn a_busy_process_is_copied_with_its_lock_held() {
    let _shared = in_company();
    let python = Python::any();
    let target = python.start(&[
        "-c",
        "print('ready', flush=True)\nwhile True: sum(range(1000))",
    ]);
    // It lets go of the lock to write its line.
    std::thread::sleep(Duration::from_millis(200));
    let (_, report) = take(&target, CaptureOptions::default());
    assert_eq!(report.moment, HeapState::LockHeld, "{report:?}");
}

/// What `capturer` said, in a process of its own.
fn said(command: &mut Command, words: &[&str]) -> Ran {
    let ran = run(command).ok();
    for word in words {
        assert!(ran.stderr.contains(word), "no {word:?}{ran}");
    }
    ran
}

#[test]
fn another_tracer_is_named_and_one_that_stopped_it_is_no_hindrance() {
    let _shared = in_company();
    let python = Python::any();
    let target = python.start(&["-c", HOLDER]);
    let pid = target.pid.to_string();
    if find_program("strace").is_some() {
        let strace = Running::start(
            Command::new("strace").args(["-f", "-o", "/dev/null", "-p", &pid]),
            b"",
        );
        wait_until("it is traced", || tracer(target.pid) == Some(strace.pid()));
        // Attaching stops it for a moment.
        std::thread::sleep(Duration::from_millis(100));
        let error = capture(Pid(target.pid), CaptureOptions::default()).expect_err("traced");
        let tracer = format!("process {} (strace) traces it", strace.pid());
        assert!(error.to_string().contains(&tracer), "{error}");
        assert!(error.hints().any(|hint| hint.contains("--pause none")));
        let running = CaptureOptions {
            pause: Pause::Running,
            mappings: false,
        };
        assert_eq!(take(&target, running).0.held, Held::Running);
        send_signal("INT", strace.pid());
        strace.finish(PATIENCE);
    } else {
        not_here("strace");
    }
    if find_program("gdb").is_some() {
        let mut gdb = Command::new("gdb");
        gdb.args(["-nx", "-batch", "-p", &pid, "-ex", "shell sleep 3"]);
        let gdb = Running::start(&mut gdb, b"");
        wait_until("gdb holds it", || state(target.pid) == Some('t'));
        std::thread::sleep(Duration::from_millis(1000));
        let (captured, _) = take(&target, CaptureOptions::default());
        assert_eq!(captured.held, Held::Already);
        assert!(assert_equal(python, &target, &captured) > 4 << 20);
        gdb.finish(PATIENCE);
    } else {
        not_here("gdb");
    }
    wait_until("it is free", || tracer(target.pid) == Some(0));
}

#[test]
fn what_stands_in_the_way_is_said_before_the_stop() {
    let _shared = in_company();
    let python = Python::any();
    let program = HOLDER.replace("store =", "ballast = b'x' * 400000000; store =");
    let mut target = python.start(&["-c", &program]);
    let limited = |kilobytes: u32, pid: i32| {
        let mut command = Command::new("sh");
        let exe = std::env::current_exe().expect("our own path");
        command.arg("-c").arg(format!(
            "ulimit -v {kilobytes}; exec {} --exact capture::capturer --nocapture --test-threads=1",
            exe.display()
        ));
        command.env("BIOPSY_CAPTURE", pid.to_string());
        command
    };
    let words = ["refused Failed", "address space limit (ulimit -v)", "hint"];
    said(&mut limited(500_000, target.pid), &words);
    target.assert_free();
    // Little room for addresses, and enough for what is there.
    let small = python.start(&["-c", HOLDER]);
    said(&mut limited(500_000, small.pid), &["captured Stopped"]);
    if is_root() && find_program("setpriv").is_some() {
        let folder = tempfile::tempdir().expect("a folder");
        let copy = folder.path().join("capturer");
        std::fs::copy(std::env::current_exe().expect("our own path"), &copy).expect("copied");
        let open = |path: &Path| {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(path, mode).expect("ours");
        };
        open(folder.path());
        open(&copy);
        let mut nobody = Command::new("setpriv");
        nobody.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]);
        nobody.arg(&copy).args([
            "--exact",
            "capture::capturer",
            "--nocapture",
            "--test-threads=1",
        ]);
        nobody.env("BIOPSY_CAPTURE", target.pid.to_string());
        said(
            &mut nobody,
            &["refused NotPermitted", "another user", "hint"],
        );
        target.assert_free();
    } else {
        not_here("root with setpriv");
    }
}

fn without_digits(error: &Error) -> String {
    error
        .to_string()
        .replace(|letter: char| letter.is_ascii_digit(), "")
}

#[test]
fn a_process_that_ends_or_becomes_another_meanwhile() {
    let _shared = in_company();
    let mut random = rand::rng();
    let python = Python::any();
    let (mut copied, mut refused) = (0, BTreeMap::new());
    for round in 0..40 {
        let target = python.start(&["-c", HOLDER]);
        let pid = target.pid;
        let delay = Duration::from_micros(random.random_range(0..30_000));
        let killer = std::thread::spawn(move || {
            std::thread::sleep(delay);
            send_signal("KILL", pid);
        });
        loop {
            match capture(Pid(pid), CaptureOptions::default()) {
                Ok((captured, _)) => {
                    assert!(captured.image.size() > 4 << 20);
                    copied += 1;
                }
                Err(error) => {
                    let kind = error.kind();
                    let ends = [ErrorKind::ProcessEnded, ErrorKind::NoSuchProcess];
                    assert!(ends.contains(&kind), "round {round}: {kind:?} {error}");
                    *refused.entry(without_digits(&error)).or_insert(0) += 1;
                    break;
                }
            }
        }
        killer.join().expect("ended");
    }
    say(format_args!(
        "killed while copied: {copied} copies, refusals {refused:?}"
    ));
    let again = "import os, sys; print('ready', flush=True)
os.execv(sys.executable, [sys.executable, '-c', sys.argv[1], sys.argv[1]])";
    let target = python.start(&["-c", again, again]);
    let (mut copied, mut refused) = (0, BTreeMap::new());
    for _ in 0..60 {
        match capture(Pid(target.pid), CaptureOptions::default()) {
            Ok(_) => copied += 1,
            Err(error) => {
                let kind = error.kind();
                assert!(
                    !matches!(kind, ErrorKind::NotPermitted | ErrorKind::Usage),
                    "{error}"
                );
                *refused.entry(without_digits(&error)).or_insert(0) += 1;
            }
        }
    }
    say(format_args!(
        "exec while copied: {copied} copies, refusals {refused:?}"
    ));
}
