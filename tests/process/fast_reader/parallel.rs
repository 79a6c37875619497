//! Threads that run Python at the same time, in builds without a GIL: none of their stacks is one that cannot have been, however
//! it is read.

use crate::common::in_company;
use std::time::{Duration, Instant};

use biopsy::profile::Tables;
use biopsy::sample::fast::{FastOptions, FastReader};
use biopsy::sample::{Fault, StackReader, ThreadStacks};

use super::interrupts::watch_most;
use super::random::impossible;
use super::running::{Running, free_threaded};
use super::{ids, is_legal, names};

/// Stacks of each program that have to be right, and the longest time for them.
const STACKS: u64 = 10_000;
const LONGEST: f64 = 5.0;

type Judge<'a> = &'a dyn Fn(&Tables, &biopsy::sample::ThreadStack) -> Option<String>;

/// Stacks that were read, wrong ones, and samples that were given up.
fn read(reader: &mut FastReader, judge: Judge<'_>) -> (u64, u64, u64, String) {
    let (mut tables, mut stacks) = (Tables::default(), ThreadStacks::default());
    let (mut read, mut wrong, mut torn, mut example) = (0, 0, 0, String::new());
    let started = Instant::now();
    while read < STACKS && started.elapsed().as_secs_f64() < LONGEST {
        std::thread::sleep(Duration::from_micros(60));
        match reader.read(&mut tables, &mut stacks) {
            Ok(()) => {}
            Err(Fault::Torn) => {
                torn += 1;
                continue;
            }
            Err(fault) => panic!("{fault:?}"),
        }
        for stack in stacks
            .threads
            .iter()
            .filter(|stack| !stack.frames.is_empty())
        {
            assert!(!stack.holds_gil && stack.gil.is_empty());
            read += 1;
            if let Some(what) = judge(&tables, stack) {
                wrong += 1;
                example = what;
            }
        }
    }
    (read, wrong, torn, example)
}

/// In its interrupts, where that can be, and from outside; what is wrong.
fn check(name: &str, running: &Running, judge: Judge<'_>) -> Vec<String> {
    let mut failures = Vec::new();
    let mut reader = running.open(FastOptions {
        interrupt_ns: Some(100_000),
        ..FastOptions::default()
    });
    if reader.is_interrupting() {
        let seen = watch_most(&mut reader, LONGEST, STACKS, judge);
        let told = format!("{name}, {}: {seen:?}", reader.describe());
        eprintln!("{told}");
        let given_up = seen.given_up as f64 > 0.03 * seen.interrupts as f64;
        if seen.wrong > 0 || given_up || seen.interrupts < 1000 || !reader.is_interrupting() {
            failures.push(told);
        }
    } else {
        eprintln!("skipped: {:?}", reader.caveats());
    }
    drop(reader);
    let mut reader = running.open(FastOptions::default());
    if !reader.is_exact() {
        eprintln!("skipped: {}", reader.describe());
        return failures;
    }
    let (read, wrong, torn, example) = read(&mut reader, judge);
    let described = reader.describe();
    let told = format!("{name}, {described}: {read} stacks, {wrong} wrong, {torn} torn {example}");
    eprintln!("{told}");
    if wrong > 0 || torn as f64 > 0.02 * read as f64 || read < 1000 || !reader.is_exact() {
        failures.push(told);
    }
    failures
}

#[test]
fn threads_that_run_at_the_same_time_have_stacks_that_can_be() {
    let _company = in_company();
    let mut failures = Vec::new();
    for python in free_threaded() {
        let mut running = Running::start(&python, "stacks_alternating.py", &["threads"]);
        assert_eq!(running.line().trim(), "ready");
        std::thread::sleep(Duration::from_millis(100));
        let is_made_up = |tables: &Tables, stack: &biopsy::sample::ThreadStack| {
            let names = names(tables, &ids(stack));
            (!is_legal(&names)).then(|| names.join(" "))
        };
        failures.extend(check(
            &format!("{python} alternating"),
            &running,
            &is_made_up,
        ));
        let (running, calls) = Running::start_random(&python, 11, true, 40.0);
        std::thread::sleep(Duration::from_millis(100));
        let is_made_up = |tables: &Tables, stack: &biopsy::sample::ThreadStack| {
            impossible(tables, stack, "random.py", &calls).map(|call| format!("{call:?}"))
        };
        failures.extend(check(&format!("{python} random"), &running, &is_made_up));
    }
    assert!(failures.is_empty(), "{failures:#?}");
}
