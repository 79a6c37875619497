//! Stacks that were copied in timer interrupts: none that cannot have been, and few that are given up.

use crate::common::in_company;
use std::time::{Duration, Instant};

use biopsy::profile::Tables;
use biopsy::sample::fast::{FastOptions, FastReader};
use biopsy::sample::{Fault, Interrupted, StackReader, ThreadStack, ThreadStacks};

use super::random::impossible;
use super::running::{Running, all_pythons, truth_seconds};
use super::{ids, is_legal, is_of_one_number, names};

/// What was seen of a program.
#[derive(Debug, Default)]
pub struct Seen {
    pub interrupts: u64,
    asleep: u64,
    pub given_up: u64,
    lost: u64,
    pub wrong: u64,
    example: String,
}

/// For so long it is not known whether addresses of code objects are used again.
const LEARNING: Duration = Duration::from_millis(100);

/// A reader that interrupts, or a word about why there is none.
fn open(running: &Running) -> Option<FastReader> {
    let reader = running.open(FastOptions {
        // An unoptimised build takes its time to decode.
        interrupt_ns: Some(500_000),
        ..FastOptions::default()
    });
    if !reader.is_interrupting() {
        eprintln!("skipped: {:?}", reader.caveats());
        return None;
    }
    Some(reader)
}

/// Reads for some seconds, and lets `judge` say what is wrong with a stack.
fn watch(
    reader: &mut FastReader,
    seconds: f64,
    judge: impl Fn(&Tables, &ThreadStack) -> Option<String>,
) -> Seen {
    watch_most(reader, seconds, u64::MAX, judge)
}

/// The same, until so many interrupts were seen.
pub fn watch_most(
    reader: &mut FastReader,
    seconds: f64,
    most: u64,
    judge: impl Fn(&Tables, &ThreadStack) -> Option<String>,
) -> Seen {
    let (mut tables, mut stacks) = (Tables::default(), ThreadStacks::default());
    let (mut seen, mut sleepers) = (Seen::default(), Vec::new());
    let started = Instant::now();
    while started.elapsed().as_secs_f64() < seconds
        && reader.is_interrupting()
        && seen.interrupts < most
    {
        while let Some(interrupt) = reader.next_interrupt(&mut tables, &mut stacks) {
            match interrupt {
                Interrupted::Seen(glimpse) => {
                    seen.interrupts += 1;
                    seen.lost += glimpse.lost;
                    let wrong = judge(&tables, &stacks.threads[glimpse.thread]);
                    seen.wrong += u64::from(wrong.is_some());
                    seen.example = wrong.unwrap_or(seen.example);
                }
                Interrupted::GivenUp(count) => {
                    seen.given_up += u64::from(started.elapsed() > LEARNING);
                    seen.lost += count - 1;
                }
            }
        }
        match reader.read_sleepers(&mut tables, &mut stacks, &mut sleepers) {
            Ok(()) | Err(Fault::Torn) => {}
            Err(fault) => panic!("{fault:?}"),
        }
        for sleeper in &sleepers {
            seen.asleep += 1;
            let wrong = judge(&tables, &stacks.threads[sleeper.thread]);
            seen.wrong += u64::from(wrong.is_some());
            seen.example = wrong.unwrap_or(seen.example);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    seen
}

#[test]
fn no_stack_that_an_interrupt_copied_is_made_up() {
    let _company = in_company();
    let seconds = truth_seconds();
    let mut failures = Vec::new();
    for python in all_pythons() {
        for kind in ["calls", "generators", "threads"] {
            let mut running = Running::start(&python, "stacks_alternating.py", &[kind]);
            assert_eq!(running.line().trim(), "ready");
            std::thread::sleep(Duration::from_millis(100));
            let Some(mut reader) = open(&running) else {
                return;
            };
            let seen = watch(&mut reader, seconds, |tables, stack| {
                let names = names(tables, &ids(stack));
                (!is_legal(&names)).then(|| names.join(" "))
            });
            let told = format!("{} {kind}: {seen:?}", python);
            eprintln!("{told}");
            if seen.wrong > 0
                || seen.given_up as f64 > 0.02 * seen.interrupts as f64
                || seen.interrupts < 100
                || !reader.is_interrupting()
            {
                failures.push(format!("{told} {:?}", reader.caveats()));
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn random_programs_in_their_interrupts_hold_only_calls_that_can_happen() {
    let _company = in_company();
    let seconds = truth_seconds();
    let asked = std::env::var("TRUTH_SEED").ok();
    let first: u64 = asked.and_then(|text| text.parse().ok()).unwrap_or(1);
    let mut failures = Vec::new();
    for (seed, python) in (first..).zip(all_pythons()) {
        for threads in [false, true] {
            let (running, calls) = Running::start_random(&python, seed, threads, seconds + 20.0);
            std::thread::sleep(Duration::from_millis(100));
            let Some(mut reader) = open(&running) else {
                return;
            };
            let seen = watch(&mut reader, seconds, |tables, stack| {
                impossible(tables, stack, "random.py", &calls).map(|call| format!("{call:?}"))
            });
            let told = format!("{} seed {seed} {threads}: {seen:?}", python);
            eprintln!("{told}");
            if seen.wrong > 0
                || seen.given_up as f64 > 0.02 * seen.interrupts as f64
                || seen.interrupts < 100
                || !reader.is_interrupting()
            {
                failures.push(format!("{told} {:?}", reader.caveats()));
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn code_that_comes_and_goes_is_told_apart_in_interrupts() {
    let _company = in_company();
    let mut failures = Vec::new();
    for python in all_pythons() {
        for kind in ["exec", "threads", "waits", "interpreters"] {
            let mut running = Running::start(&python, "stacks_churn.py", &[kind]);
            assert_eq!(running.line().trim(), "ready");
            std::thread::sleep(Duration::from_millis(200));
            let Some(mut reader) = open(&running) else {
                return;
            };
            let seen = watch(&mut reader, 1.0, |tables, stack| {
                let names = names(tables, &ids(stack));
                (!is_of_one_number(&names)).then(|| names.join(" "))
            });
            // What cannot be read so is read from outside, and that is told. Before it is found out that addresses of code
            // objects are used again some names may be those of others, and then no stack is called exact.
            let exact = reader.is_exact();
            let told = format!(
                "{} {kind}: {seen:?} exact {exact} {:?}",
                python,
                reader.caveats()
            );
            eprintln!("{told}");
            if (seen.wrong > 0 && exact)
                || seen.wrong > 20
                || (kind == "interpreters" && reader.is_interrupting())
                || (reader.is_interrupting() && exact) != reader.caveats().is_empty()
            {
                failures.push(told);
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}
