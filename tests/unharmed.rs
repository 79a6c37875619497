//! What biopsy does to its targets, which is nothing: it is killed at random moments, meets stopped targets,
//! and leaves; the programs go on, untraced and without one failed call.

mod common;

use std::time::{Duration, Instant};

use common::{
    PATIENCE, Python, Running, Target, biopsy, biopsy_command, in_company, send_signal, state,
    tracer, wait_until,
};
use rand::Rng;

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
    let words = [&["attach", &pid, "-d", "1.5"], options].concat();
    let attach = Running::start(&mut biopsy_command(&words), b"");
    std::thread::sleep(Duration::from_millis(400));
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
