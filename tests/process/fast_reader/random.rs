//! Random programs, of which every call that can happen is known with its line: no stack may hold any other.

use crate::common::in_company;
use std::collections::HashSet;
use std::time::{Duration, Instant};

use biopsy::profile::{FunctionKind, Tables};
use biopsy::sample::fast::FastOptions;
use biopsy::sample::{Fault, StackReader, ThreadStack, ThreadStacks};
use biopsy::target::memory::{Live, Memory, Range, Unreadable};

use super::running::{Call, Running, all_pythons, truth_seconds};

/// The first call in the stack that cannot happen; `None` when there is none. Frames of other files are passed over.
pub fn impossible(
    tables: &Tables,
    stack: &ThreadStack,
    script: &str,
    calls: &HashSet<Call>,
) -> Option<Call> {
    let own: Vec<(String, u32)> = stack
        .frames
        .iter()
        .map(|sample| tables.get_frame(sample.frame))
        .filter(|frame| tables.get_function(frame.function).kind == FunctionKind::Python)
        .filter(|frame| tables.file(frame.function).ends_with(script))
        .map(|frame| {
            let name = tables.name(frame.function);
            let name = name.rsplit_once('.').map_or(name, |(_, last)| last);
            (name.to_string(), frame.line)
        })
        .collect();
    // Innermost last.
    own.windows(2)
        .map(|pair| (pair[0].0.clone(), pair[0].1, pair[1].0.clone()))
        .find(|call| !calls.contains(call))
}

/// Seconds that a busy machine may take longer; the programs run for longer than that.
const MORE: f64 = 15.0;

/// What was seen of a program.
#[derive(Debug, Default)]
struct Seen {
    taken: u32,
    torn: u32,
    frames: usize,
    wrong: Vec<Call>,
}

/// For so many seconds, and on a busy machine for up to [`MORE`] more until so many samples were taken.
fn watch(reader: &mut impl StackReader, calls: &HashSet<Call>, seconds: f64, fewest: u32) -> Seen {
    let (mut tables, mut stacks) = (Tables::default(), ThreadStacks::default());
    let mut seen = Seen::default();
    let started = Instant::now();
    let is_enough = |seen: &Seen, elapsed: f64| {
        elapsed >= seconds + MORE
            || elapsed >= seconds && seen.taken >= fewest && seen.frames >= 5 * fewest as usize
    };
    while !is_enough(&seen, started.elapsed().as_secs_f64()) {
        std::thread::sleep(Duration::from_micros(60));
        match reader.read(&mut tables, &mut stacks) {
            Ok(()) => seen.taken += 1,
            Err(Fault::Torn) => {
                seen.torn += 1;
                continue;
            }
            Err(fault) => panic!("{fault:?}"),
        }
        for stack in &stacks.threads {
            seen.frames += stack.frames.len();
            let wrong = impossible(&tables, stack, "random.py", calls);
            seen.wrong.extend(wrong);
        }
    }
    seen
}

/// Reads that come late, except for those of many places at once: what is read after the copy of a sample is then
/// seldom of the same instant.
#[derive(Debug)]
struct Late(Live);

impl Memory for Late {
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Unreadable> {
        let started = Instant::now();
        // Not asleep: the program would go on at once, and that is seen.
        while started.elapsed() < Duration::from_micros(100) {
            std::hint::spin_loop();
        }
        self.0.read(address, into)
    }

    fn read_ranges(&self, ranges: &[Range], into: &mut [u8]) -> Result<usize, Unreadable> {
        self.0.read_ranges(ranges, into)
    }
}

fn watch_random_programs(
    mut open: impl FnMut(&Running, &HashSet<Call>, f64) -> Option<Seen>,
    fewest: u32,
    most_torn: f64,
) {
    let seconds = truth_seconds();
    let asked = std::env::var("TRUTH_SEED").ok();
    let first: u64 = asked.and_then(|text| text.parse().ok()).unwrap_or(1);
    let mut failures = Vec::new();
    for (seed, python) in (first..).zip(all_pythons()) {
        for threads in [false, true] {
            let (running, calls) = Running::start_random(&python, seed, threads, seconds + 20.0);
            std::thread::sleep(Duration::from_millis(100));
            let Some(seen) = open(&running, &calls, seconds) else {
                return;
            };
            let name = format!(
                "{} seed {seed}{}: {} samples, {} frames, {} given up, impossible: {:?}",
                python,
                if threads { ", three threads" } else { "" },
                seen.taken,
                seen.frames,
                seen.torn,
                seen.wrong
            );
            eprintln!("{name}");
            // Threads that run at the same time leave less of the CPUs to us.
            let fewest = if python.free_threaded {
                fewest / 10
            } else {
                fewest
            };
            if !seen.wrong.is_empty()
                || f64::from(seen.torn) > most_torn * f64::from(seen.taken)
                || seen.taken < fewest
                || seen.frames < 5 * fewest as usize
            {
                failures.push(name);
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn stacks_of_random_programs_hold_only_calls_that_can_happen() {
    let _company = in_company();
    watch_random_programs(
        |running, calls, seconds| {
            let mut reader = running.open(FastOptions::default());
            if !reader.is_exact() {
                eprintln!("skipped: {}", reader.describe());
                return None;
            }
            Some(watch(&mut reader, calls, seconds, 100))
        },
        100,
        0.01,
    );
}

#[test]
fn what_is_read_after_the_copy_is_of_the_same_instant() {
    let _company = in_company();
    watch_random_programs(
        |running, calls, seconds| {
            let mut reader = running.open_over(Late(Live::new(running.pid())));
            if !reader.is_exact() {
                eprintln!("skipped: {}", reader.describe());
                return None;
            }
            Some(watch(&mut reader, calls, seconds, 20))
        },
        20,
        f64::INFINITY,
    );
}
