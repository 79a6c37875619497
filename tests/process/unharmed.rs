//! What biopsy does to its targets, which is nothing: it is killed at random moments, meets stopped targets,
//! and leaves; the programs go on, untraced and without one failed call.

use crate::common;

use std::time::{Duration, Instant};

use biopsy::target::watchpoint::{self, Access, REGISTERS, Refusal, Watch};
use biopsy::units::Tid;
use common::{
    PATIENCE, Python, Running, Target, biopsy, biopsy_command, in_company, not_here, say,
    send_signal, state, tracer, wait_until,
};
use rand::RngExt;

/// Threads that work, wait with epoll and sleep; each counts its rounds and says what went wrong. `report`
/// on stdin asks for `ROUNDS... ERRORS`.
const CHECKED: &str = "
import select, socket, sys, threading, time
rounds = [0, 0, 0]
errors = []
def guarded(target):
    def loop():
        try:
            while True:
                target()
        except BaseException as error:
            errors.append(repr(error))
    return loop
def work():
    if sum(range(2000)) != 1999000:
        raise AssertionError('wrong sum')
    rounds[0] += 1
left, right = socket.socketpair()
poll = select.epoll()
poll.register(right.fileno(), select.EPOLLIN)
def echo():
    left.send(b'x')
    events = poll.poll(5)
    if events != [(right.fileno(), select.EPOLLIN)] or right.recv(1) != b'x':
        raise AssertionError(repr(events))
    time.sleep(0.001)
    rounds[1] += 1
def nap():
    start = time.monotonic()
    time.sleep(0.005)
    if time.monotonic() - start < 0.005:
        raise AssertionError('woken too early')
    rounds[2] += 1
for target in (work, echo, nap):
    thread = threading.Thread(target=guarded(target))
    thread.daemon = True
    thread.start()
print('ready', flush=True)
for line in sys.stdin:
    print(' '.join(map(str, rounds)), errors, flush=True)
";

/// Asks until every thread has made rounds since the answer before; no errors on the way.
fn assert_goes_on(target: &mut Target, when: &str) {
    let mut ask = || -> Vec<u64> {
        target.tell("report");
        let line = target.line();
        let (numbers, errors) = line.split_once('[').expect("errors");
        assert_eq!(errors, "]", "{when}");
        numbers
            .split_ascii_whitespace()
            .map(|word| word.parse().expect("number"))
            .collect()
    };
    let before = ask();
    wait_until(&format!("all threads of the target go on, {when}"), || {
        ask().iter().zip(&before).all(|(now, before)| now > before)
    });
    target.assert_free();
}

#[test]
fn fifty_of_fifty_targets_survive_a_killed_biopsy() {
    let _shared = in_company();
    let mut random = rand::rng();
    let pythons = Python::all();
    let mut killed_at_work = 0;
    for round in 0..5 {
        let mut targets: Vec<(Target, &Python)> = (0..10)
            .map(|at| {
                let python = &pythons[at % pythons.len()];
                (python.start(&["-c", CHECKED]), python)
            })
            .collect();
        for (target, python) in &mut targets {
            let pid = target.pid.to_string();
            for options in [
                &["-q"][..],
                &["-q", "--blocking"],
                &["-q", "--blocking", "-r", "max"],
            ] {
                let words = [&["attach", &pid], options].concat();
                let mut attach = Running::start(&mut biopsy_command(&words), b"");
                std::thread::sleep(Duration::from_micros(random.random_range(0..150_000)));
                attach.kill();
                let ran = attach.finish(PATIENCE);
                killed_at_work += u32::from(ran.code() == 137);
                // The kernel lets go of what was traced before it reports our end.
                wait_until("it is traced by nobody", || tracer(target.pid) == Some(0));
                assert_goes_on(target, &format!("{python}, round {round}, {options:?}"));
            }
        }
    }
    assert_eq!(
        killed_at_work, 150,
        "each was killed while it attached or sampled"
    );
}

/// The threads of a process.
fn threads(pid: i32) -> Vec<Tid> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/task")).expect("runs");
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names
        .map(|name| Tid(name.parse().expect("a thread id")))
        .collect()
}

/// Sets all watchpoints that a thread has, at addresses where it has nothing, and lets go of them.
fn has_all_registers(tid: Tid) -> Result<(), Refusal> {
    let mut watch = Watch::open(tid)?;
    for register in 0..REGISTERS {
        watch.set(
            register,
            0x1000 + 8 * register as u64,
            Access::Write,
            Some(1),
        )?;
    }
    Ok(())
}

#[test]
fn counting_leaves_nothing_behind() {
    let _shared = in_company();
    if let Err(why) = watchpoint::cost_of_a_hit(10) {
        not_here(format!("hardware watchpoints: {why:?}"));
        return;
    }
    let mut random = rand::rng();
    let pythons = Python::all();
    let pythons = pythons.iter().filter(|python| python.minor >= 8);
    let mut targets: Vec<(Target, &Python)> = pythons
        .map(|python| (python.start(&["-c", CHECKED]), python))
        .collect();
    for round in 0..60 {
        let at = round / 2 % targets.len();
        let (target, python) = &mut targets[at];
        let pid = target.pid.to_string();
        let words = match round % 2 {
            0 => vec!["attach", &pid, "-q"],
            _ => vec!["calls", &pid, "__main__.work", "__main__.nap", "--all"],
        };
        let when = format!("{python}, round {round}, {words:?}");
        let mut counting = Running::start(&mut biopsy_command(&words), b"");
        std::thread::sleep(Duration::from_micros(random.random_range(0..400_000)));
        counting.kill();
        let ran = counting.finish(PATIENCE);
        assert_eq!(ran.code(), 137, "it ended by itself: {when}{ran}");
        // The kernel closes descriptors before it reports our end.
        for tid in threads(target.pid) {
            assert_eq!(has_all_registers(tid), Ok(()), "{when}: thread {tid:?}");
        }
        assert_goes_on(target, &when);
    }
}

#[test]
fn a_stopped_target_is_read_and_stays_stopped() {
    let _shared = in_company();
    for python in Python::all() {
        eprintln!("{python}");
        let mut target = python.start(&["-c", CHECKED]);
        let pid = target.pid.to_string();
        send_signal("STOP", target.pid);
        wait_until("it is stopped", || state(target.pid) == Some('T'));
        for options in [&[][..], &["--blocking"]] {
            let ran = biopsy(&[&["dump", &pid], options].concat()).ok();
            assert!(
                ran.stdout.contains("nap") || ran.stdout.contains("loop"),
                "{ran}"
            );
            assert_eq!(
                state(target.pid),
                Some('T'),
                "{python}: stopped by someone else{ran}"
            );
            let ran = biopsy(&[&["attach", &pid, "-d", "0.3", "-q"], options].concat()).ok();
            assert!(ran.stdout.contains("(loop)"), "{python} {options:?}{ran}");
            assert_eq!(
                state(target.pid),
                Some('T'),
                "{python}: stopped by someone else{ran}"
            );
        }
        send_signal("CONT", target.pid);
        assert_goes_on(&mut target, "after SIGCONT");
        for options in [&["-q"][..], &["-q", "--blocking"]] {
            stopped_in_the_middle(python, &mut target, options);
        }
    }
}

/// Stopped and continued while it is sampled: it stays stopped in between, and all ends well.
fn stopped_in_the_middle(python: &Python, target: &mut Target, options: &[&str]) {
    let pid = target.pid.to_string();
    let words = [&["attach", &pid, "-d", "1"], options].concat();
    let attach = Running::start(&mut biopsy_command(&words), b"");
    std::thread::sleep(Duration::from_millis(250));
    send_signal("STOP", target.pid);
    std::thread::sleep(Duration::from_millis(100));
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(300) {
        let now = state(target.pid);
        assert!(
            matches!(now, Some('T' | 't')),
            "{python} {options:?}: stopped, but {now:?}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    send_signal("CONT", target.pid);
    let ran = attach.finish(PATIENCE).ok();
    assert!(ran.stdout.contains("(work)"), "{python} {options:?}{ran}");
    assert!(
        !ran.stderr.contains("may not be read"),
        "{python} {options:?}{ran}"
    );
    assert_goes_on(
        target,
        &format!("{python}, stopped and continued while sampled {options:?}"),
    );
}

/// What the target did while it was biopsy that stood still is nobody's: one stack had all of it, and its CPU time twice.
#[test]
fn a_sampler_that_was_stopped_gives_that_time_to_nobody() {
    let _shared = in_company();
    for mode in ["wall", "cpu"] {
        let mut target = Python::any().start(&["-c", CHECKED]);
        let pid = target.pid.to_string();
        let words = ["attach", &pid, "-d", "4", "--mode", mode, "-f", "json"];
        let attach = Running::start(&mut biopsy_command(&words), b"");
        std::thread::sleep(Duration::from_millis(1000));
        send_signal("STOP", attach.pid());
        std::thread::sleep(Duration::from_millis(2000));
        send_signal("CONT", attach.pid());
        let ran = attach.finish(PATIENCE).ok();
        let document = ran.json();
        let threads = document["threads"].as_array().expect("threads").len() as f64;
        let seconds = document["total_tottime_s"].as_f64().expect("seconds");
        assert!(
            (0.1..=2.3 * threads).contains(&seconds),
            "{mode}: {seconds} s of {threads} threads{ran}"
        );
        assert!(ran.stderr.contains("biopsy did not run for "), "{ran}");
        assert_goes_on(&mut target, "after its sampler was stopped");
    }
}

#[test]
fn two_that_stop_the_same_target_get_by() {
    let _shared = in_company();
    let python = Python::any();
    let mut target = python.start(&["-c", CHECKED]);
    let pid = target.pid.to_string();
    let words = [
        "attach",
        &pid,
        "--blocking",
        "-d",
        "1.5",
        "-r",
        "200",
        "-q",
        "-f",
        "json",
    ];
    let attach = || Running::start(&mut biopsy_command(&words), b"");
    for running in [attach(), attach()] {
        let profile = running.finish(PATIENCE).ok().json();
        let lasted = profile["duration_s"].as_f64().expect("duration");
        assert!(lasted > 1.3, "the other one ended it after {lasted} s");
    }
    assert_goes_on(&mut target, "after two at once");
}

#[test]
fn a_target_is_as_fast_afterwards() {
    let _shared = in_company();
    let python = Python::any();
    let mut target = python.start(&["-c", CHECKED]);
    let pid = target.pid.to_string();
    for options in [&["-q"][..], &["-q", "--blocking"], &["-q", "-r", "max"]] {
        biopsy(&[&["attach", &pid, "-d", "0.5"], options].concat()).ok();
        assert_goes_on(&mut target, "after attach");
    }
    let maps = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("maps");
    let before = maps(target.pid)
        .lines()
        .filter(|line| line.contains('/'))
        .count();
    biopsy(&["attach", &pid, "-d", "0.3", "-q"]).ok();
    let after = maps(target.pid)
        .lines()
        .filter(|line| line.contains('/'))
        .count();
    assert_eq!(after, before, "nothing was loaded into it");
}

/// Threads that Python knows nothing of, and threads of Python that work, and come and go.
const NATIVES: &str = "
import ctypes, sys, threading
libc = ctypes.CDLL(None)
sleep = ctypes.cast(libc.sleep, ctypes.c_void_p)
for _ in range(100):
    thread = ctypes.c_ulong()
    if libc.pthread_create(ctypes.byref(thread), None, sleep, ctypes.c_void_p(3600)):
        raise OSError('pthread_create')
print('ready', flush=True)
sys.stdin.readline()
def leaf():
    return sum(range(2000))
def work():
    while True:
        leaf()
def brief():
    return sum(range(50000))
def come_and_go():
    while True:
        thread = threading.Thread(target=brief)
        thread.start()
        thread.join()
for target in (work, come_and_go):
    thread = threading.Thread(target=target)
    thread.daemon = True
    thread.start()
print('going', flush=True)
sys.stdin.readline()
";

/// How often a thread gave up its CPU, and who traces it; fails when it is stopped.
fn look_at_native(pid: i32, tid: i32) -> (String, String) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/status")).expect("alive");
    let field = |name: &str| {
        let mut lines = status.lines();
        let found = lines.find_map(|line| line.strip_prefix(name));
        found.expect(name).trim().to_string()
    };
    assert!(field("State:").starts_with('S'), "{}", field("State:"));
    (field("voluntary_ctxt_switches:"), field("TracerPid:"))
}

#[test]
fn threads_that_python_does_not_know_are_not_stopped_by_blocking() {
    let _shared = in_company();
    for python in Python::all() {
        let mut target = python.start(&["-c", NATIVES]);
        let listed = std::fs::read_dir(format!("/proc/{}/task", target.pid)).expect("alive");
        let names = listed.map(|entry| entry.expect("readable").file_name());
        let natives: Vec<i32> = names
            .map(|name| {
                name.to_str()
                    .and_then(|name| name.parse().ok())
                    .expect("a number")
            })
            .filter(|tid| *tid != target.pid)
            .collect();
        assert_eq!(natives.len(), 100, "{python}");
        target.tell("go");
        assert_eq!(target.line(), "going", "{python}");
        let look = || -> Vec<(String, String)> {
            let all = natives.iter();
            all.map(|tid| look_at_native(target.pid, *tid)).collect()
        };
        // All of them sleep, once they have got there.
        std::thread::sleep(Duration::from_millis(20));
        let before = look();
        let pid = target.pid.to_string();
        let words = [
            "attach",
            &pid,
            "--blocking",
            "-d",
            "1",
            "-r",
            "500",
            "-q",
            "-f",
            "collapsed",
        ];
        let mut attach = Running::start(&mut biopsy_command(&words), b"");
        let (mut polls, mut held) = (0, 0);
        while attach.is_running() {
            assert_eq!(look(), before, "{python}: woken or traced");
            held += u32::from(tracer(target.pid) != Some(0));
            polls += 1;
        }
        let ran = attach.finish(PATIENCE).ok();
        assert_eq!(look(), before, "{python}: woken or traced");
        assert!(
            held > 0,
            "{python}: Python's threads were never seen stopped in {polls} looks"
        );
        target.assert_free();
        let mut seen = [0, 0];
        for line in ran.stdout.lines() {
            let (stack, count) = line.rsplit_once(' ').expect("a stack and a number");
            let frames: Vec<&str> = stack.split(';').collect();
            for (at, (callee, caller)) in [("leaf (", "work ("), ("brief (", "run (")]
                .iter()
                .enumerate()
            {
                if let Some(found) = frames.iter().position(|frame| frame.starts_with(callee)) {
                    assert!(
                        found > 0 && frames[found - 1].starts_with(caller),
                        "{python}: {line}"
                    );
                    seen[at] += count.parse::<u64>().expect("a number");
                }
            }
        }
        say(format_args!(
            "{python}: {polls} looks, {held} of them while it was held; seen {seen:?}"
        ));
        // A thread that lives for a moment may be missed on a busy machine.
        assert!(seen[0] > 0, "{python}{ran}");
    }
}

/// Threads blocked in ten kinds of system calls; it says which of them came back.
const BLOCKED: &str = include_str!("../../fixtures/programs/blocked_calls.py");

/// Kills of each of the two commands.
const HEAP_KILLS: usize = 64;

#[test]
fn all_targets_survive_a_killed_heap_command() {
    let _shared = in_company();
    let mut random = rand::rng();
    let pythons: Vec<&Python> = Python::all()
        .iter()
        .filter(|python| python.minor >= 8)
        .collect();
    let (mut killed, mut held, mut early) = (0, 0, 0);
    for (at, python) in pythons.iter().enumerate() {
        let mut target = python.start(&["-c", BLOCKED]);
        let pid = target.pid.to_string();
        let folder = tempfile::tempdir().expect("a folder");
        let output = folder.path().join("out.heap");
        let snapshot = [
            "heap",
            "snapshot",
            &pid,
            "-o",
            output.to_str().expect("UTF-8"),
            "-q",
        ];
        let summary = ["heap", "summary", &pid];
        for words in [&snapshot[..], &summary] {
            let whole = biopsy(words).ok().took;
            let kills = (at..HEAP_KILLS).step_by(pythons.len());
            for _ in kills {
                let mut running = Running::start(&mut biopsy_command(words), b"");
                std::thread::sleep(whole.mul_f64(random.random_range(0.0..1.0)));
                held += u32::from(tracer(target.pid) != Some(0));
                running.kill();
                killed += usize::from(running.finish(PATIENCE).code() == 137);
                wait_until("it is traced by nobody", || tracer(target.pid) == Some(0));
                target.assert_free();
                let left = std::fs::read_dir(folder.path()).expect("the folder");
                let left: Vec<_> = left
                    .map(|entry| entry.expect("readable").file_name())
                    .collect();
                assert_eq!(left, ["out.heap"], "{python}: left behind by {words:?}");
            }
        }
        target.tell("report");
        let line = target.line();
        let rest = line
            .strip_prefix("60000 ")
            .unwrap_or_else(|| panic!("{line}"));
        let (raw, back) = rest.split_once(' ').expect("two numbers");
        assert_eq!(back, "[]", "{python}: came back");
        early += raw.parse::<usize>().expect("a number");
        for task in std::fs::read_dir(format!("/proc/{}/task", target.pid)).expect("alive") {
            let name = task.expect("readable").file_name();
            let tid: i32 = name
                .to_str()
                .and_then(|name| name.parse().ok())
                .expect("a number");
            assert_eq!(tracer(tid), Some(0), "{python}: thread {tid}");
            assert!(
                !matches!(state(tid), Some('t' | 'T')),
                "{python}: thread {tid}"
            );
        }
        assert!(target.wait().success(), "{python}: {}", target.stderr());
        assert_eq!(target.stderr(), "", "{python}");
    }
    // Of calls that the kernel does not restart, one may come back when biopsy dies between stop and cure.
    say(format_args!(
        "{killed} killed, {held} of them while they held the target; {early} raw calls came back with EINTR"
    ));
    assert!(
        killed > HEAP_KILLS && held > 0 && early < HEAP_KILLS,
        "{killed} {held} {early}"
    );
}
