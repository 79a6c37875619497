//! What samples allocate once everything has been seen.

use crate::common::in_company;
use std::time::Duration;

use biopsy::profile::Tables;
use biopsy::sample::fast::FastOptions;
use biopsy::sample::{StackReader, ThreadStacks};

use super::running::{Running, pythons};

/// Samples before, and those that are looked at; and how often that is done again where there are too many allocations:
/// on a busy machine it takes long until everything has been seen.
const BEFORE: u32 = 2000;
const SAMPLES: u32 = 1000;
const TRIES: u32 = 5;

/// Most allocations of those: now and then something new is seen, or more is copied than before.
const MOST: u64 = SAMPLES as u64 / 10;

#[test]
fn samples_of_what_is_known_allocate_nothing() {
    let _company = in_company();
    let mut failures = Vec::new();
    for (seed, python) in (1..).zip(pythons()) {
        for threads in [false, true] {
            let (running, _) = Running::start_random(&python, seed, threads, 60.0);
            let mut reader = running.open(FastOptions::default());
            let (mut tables, mut stacks) = (Tables::default(), ThreadStacks::default());
            let mut sample = || {
                std::thread::sleep(Duration::from_micros(200));
                let _ = reader.read(&mut tables, &mut stacks);
            };
            (0..BEFORE).for_each(|_| sample());
            let mut found = allocation_counter::AllocationInfo::default();
            for _ in 0..TRIES {
                found = allocation_counter::measure(|| (0..SAMPLES).for_each(|_| sample()));
                if found.count_total <= MOST {
                    break;
                }
            }
            let text = format!(
                "3.{}{}: {} allocations in {SAMPLES} samples, {} bytes",
                python.minor,
                if threads { ", three threads" } else { "" },
                found.count_total,
                found.bytes_total
            );
            eprintln!("{text}");
            if found.count_total > MOST {
                failures.push(text);
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}
