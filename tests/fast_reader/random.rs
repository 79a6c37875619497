//! Random programs, of which every call that can happen is known with its line: no stack may hold any other.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use biopsy::profile::{FunctionKind, Tables};
use biopsy::sample::fast::FastOptions;
use biopsy::sample::{Fault, StackReader, ThreadStack, ThreadStacks};

use crate::running::{Call, Running, pythons, truth_seconds};

/// The first call in the stack that cannot happen; `None` when there is none. Frames of other files are passed over.
fn impossible(
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

#[test]
fn stacks_of_random_programs_hold_only_calls_that_can_happen() {
    let seconds = truth_seconds();
    let asked = std::env::var("TRUTH_SEED").ok();
    let first: u64 = asked.and_then(|text| text.parse().ok()).unwrap_or(1);
    let mut failures = Vec::new();
    for (seed, python) in (first..).zip(pythons()) {
        for threads in [false, true] {
            let (running, calls) = Running::start_random(&python, seed, threads, seconds + 20.0);
            std::thread::sleep(Duration::from_millis(100));
            let mut reader = running.open(FastOptions::default());
            if !reader.is_exact() {
                eprintln!("skipped: {}", reader.describe());
                return;
            }
            let (mut tables, mut stacks) = (Tables::default(), ThreadStacks::default());
            let (mut taken, mut torn, mut frames) = (0u32, 0u32, 0usize);
            let mut wrong = Vec::new();
            let started = Instant::now();
            while started.elapsed().as_secs_f64() < seconds {
                std::thread::sleep(Duration::from_micros(60));
                match reader.read(&mut tables, &mut stacks) {
                    Ok(()) => taken += 1,
                    Err(Fault::Torn) => {
                        torn += 1;
                        continue;
                    }
                    Err(fault) => panic!("{fault:?}"),
                }
                for stack in &stacks.threads {
                    frames += stack.frames.len();
                    wrong.extend(impossible(&tables, stack, "random.py", &calls));
                }
            }
            eprintln!(
                "3.{} seed {seed}{}: {taken} samples, {frames} frames, {} impossible, {torn} given up {:?}",
                python.minor,
                if threads { ", three threads" } else { "" },
                wrong.len(),
                wrong.first()
            );
            if !wrong.is_empty()
                || f64::from(torn) > 0.01 * f64::from(taken)
                || taken < 100
                || frames < 500
            {
                failures.push(format!(
                    "3.{} seed {seed} {threads}: {wrong:?}, {torn} of {taken}",
                    python.minor
                ));
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}
