//! What a sample costs: measures and prints, asserts nothing. Run with
//! `cargo test --release --test fast_reader -- --ignored --nocapture --test-threads=1`.

use crate::common::in_company;
use std::time::{Duration, Instant};

use biopsy::profile::Tables;
use biopsy::sample::fast::FastOptions;
use biopsy::sample::{StackReader, ThreadStacks};
use biopsy::target::memory::{Live, Memory};

use super::running::{Running, pythons};

/// Times of the same thing again and again.
#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    fn us(&mut self, share: f64) -> f64 {
        self.0.sort();
        let at = (self.0.len() as f64 * share) as usize;
        self.0.get(at).map_or(0.0, Duration::as_secs_f64) * 1e6
    }
}

/// A sample of 44 frames at 1 kHz, at 10 kHz, and flat out from another CPU; beside it, in turn, the system call that
/// copies the same ranges and nothing else, and one that copies 64 bytes.
#[test]
#[ignore = "measures, prints"]
fn cost_of_a_sample() {
    let _company = in_company();
    for python in pythons() {
        let mut running = Running::start(&python, "stacks_deep_calls.py", &[]);
        assert_eq!(running.line().trim(), "ready");
        std::thread::sleep(Duration::from_millis(100));
        let live = Live::new(running.pid());
        for (pause_us, count) in [(900u64, 1500usize), (50, 10_000), (0, 10_000)] {
            let mut reader = running.open(FastOptions {
                cross_cpu: pause_us == 0,
                ..FastOptions::default()
            });
            let mut tables = Tables::default();
            let mut stacks = ThreadStacks::default();
            let (mut whole, mut floor, mut small) =
                (Times::default(), Times::default(), Times::default());
            let (mut depth, mut torn, mut ranges, mut bytes) = (0, 0, 0, 0);
            let mut room = vec![0; 1 << 20];
            let pause = || {
                if pause_us > 0 {
                    std::thread::sleep(Duration::from_micros(pause_us));
                }
            };
            for _ in 0..count {
                pause();
                let before = Instant::now();
                if reader.read(&mut tables, &mut stacks).is_err() {
                    torn += 1;
                    continue;
                }
                whole.0.push(before.elapsed());
                depth += stacks.threads[0].frames.len();
                let size: usize = reader.ranges().iter().map(|range| range.length).sum();
                ranges += reader.ranges().len();
                bytes += size;
                pause();
                let before = Instant::now();
                let copied = live.read_ranges(reader.ranges(), &mut room[..size]);
                floor.0.push(before.elapsed());
                copied.expect("is read");
                pause();
                let before = Instant::now();
                let copied = live.read(reader.ranges()[0].address as u64, &mut room[..64]);
                small.0.push(before.elapsed());
                copied.expect("is read");
            }
            let taken = whole.0.len().max(1);
            eprintln!(
                "3.{} pause {pause_us:>3} us: sample p10 {:.2} p50 {:.2} p90 {:.2}; its copy p10 {:.2} p50 {:.2}; 64 \
                 bytes p10 {:.2} p50 {:.2}; {:.2} times the copy; {:.1} ranges, {} bytes, depth {:.1}; torn {torn}",
                python.minor,
                whole.us(0.1),
                whole.us(0.5),
                whole.us(0.9),
                floor.us(0.1),
                floor.us(0.5),
                small.us(0.1),
                small.us(0.5),
                whole.us(0.5) / floor.us(0.5),
                ranges as f64 / taken as f64,
                bytes / taken,
                depth as f64 / taken as f64,
            );
        }
    }
}

/// CPU time of this thread in seconds.
fn cpu_time() -> f64 {
    let thread = std::fs::read_to_string("/proc/thread-self/schedstat").expect("schedstat");
    let ns: f64 = thread
        .split(' ')
        .next()
        .and_then(|n| n.parse().ok())
        .expect("a number");
    ns / 1e9
}

/// CPU time of a period at 1 kHz on the target's CPU: to wake up alone, with the copy, and with the whole sample.
#[test]
#[ignore = "measures, prints"]
fn cost_of_a_period() {
    let _company = in_company();
    for python in pythons() {
        let mut running = Running::start(&python, "stacks_deep_calls.py", &[]);
        assert_eq!(running.line().trim(), "ready");
        std::thread::sleep(Duration::from_millis(100));
        let live = Live::new(running.pid());
        let mut reader = running.open(FastOptions::default());
        let mut tables = Tables::default();
        let mut stacks = ThreadStacks::default();
        let mut room = vec![0; 1 << 20];
        let mut spent = [0.0; 3];
        const ROUNDS: usize = 10;
        const PERIODS: usize = 200;
        for round in 0..3 * ROUNDS {
            let before = cpu_time();
            for _ in 0..PERIODS {
                std::thread::sleep(Duration::from_micros(950));
                match round % 3 {
                    0 => {}
                    1 => {
                        let _ = live.read_ranges(reader.ranges(), &mut room);
                    }
                    _ => {
                        let _ = reader.read(&mut tables, &mut stacks);
                    }
                }
            }
            spent[round % 3] += cpu_time() - before;
        }
        let us = spent.map(|seconds| seconds * 1e6 / (ROUNDS * PERIODS) as f64);
        eprintln!(
            "3.{}: a period at 1 kHz costs {:.1} us to wake, {:.1} with a copy, {:.1} with a sample",
            python.minor, us[0], us[1], us[2]
        );
    }
}

/// What 160 sleeping threads cost us at 1 kHz.
#[test]
#[ignore = "measures, prints"]
fn cost_of_idle_threads() {
    let _company = in_company();
    for python in pythons() {
        for (threads, kind) in [("0", "idle"), ("160", "idle"), ("160", "busy")] {
            let mut running = Running::start(&python, "idle_threads.py", &[threads, kind]);
            assert_eq!(running.line().trim(), "ready");
            std::thread::sleep(Duration::from_millis(300));
            let mut reader = running.open(FastOptions::default());
            let mut tables = Tables::default();
            let mut stacks = ThreadStacks::default();
            reader.read(&mut tables, &mut stacks).expect("a sample");
            let (before, started) = (cpu_time(), Instant::now());
            let (mut times, mut torn) = (Times::default(), 0);
            for _ in 0..2000 {
                std::thread::sleep(Duration::from_micros(950));
                let began = Instant::now();
                torn += u32::from(reader.read(&mut tables, &mut stacks).is_err());
                times.0.push(began.elapsed());
            }
            let (cpu, wall) = (cpu_time() - before, started.elapsed().as_secs_f64());
            eprintln!(
                "3.{} {threads} {kind}: {:.0} Hz, {:.2} % of a core, read p50 {:.2} us, {} threads, torn {torn}",
                python.minor,
                2000.0 / wall,
                100.0 * cpu / wall,
                times.us(0.5),
                stacks.threads.len()
            );
        }
    }
}
