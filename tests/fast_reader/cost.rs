//! What a sample costs: measures and prints, asserts nothing. Run with
//! `cargo test --release --test fast_reader -- --ignored --nocapture --test-threads=1`.

use std::time::{Duration, Instant};

use biopsy::profile::Tables;
use biopsy::sample::fast::FastOptions;
use biopsy::sample::{StackReader, ThreadStacks};

use crate::running::{Running, pythons};

/// A sample of 44 frames at 1 kHz, at 10 kHz, and flat out from another CPU.
#[test]
#[ignore = "measures, prints"]
fn cost_of_a_sample() {
    for python in pythons() {
        let mut running = Running::start(&python, "stacks_deep_calls.py", &[]);
        assert_eq!(running.line().trim(), "ready");
        std::thread::sleep(Duration::from_millis(100));
        for (pause_us, count) in [(900u64, 2000usize), (50, 20_000), (0, 20_000)] {
            let mut reader = running.open(FastOptions {
                cross_cpu: pause_us == 0,
                ..FastOptions::default()
            });
            let mut tables = Tables::default();
            let mut stacks = ThreadStacks::default();
            let mut times = Vec::new();
            let (mut depth, mut torn) = (0, 0);
            let cpu_before = cpu_time();
            let started = Instant::now();
            for _ in 0..count {
                if pause_us > 0 {
                    std::thread::sleep(Duration::from_micros(pause_us));
                }
                let before = Instant::now();
                if reader.read(&mut tables, &mut stacks).is_err() {
                    torn += 1;
                    continue;
                }
                times.push(before.elapsed());
                depth += stacks.threads[0].frames.len();
            }
            let wall = started.elapsed();
            let cpu = cpu_time() - cpu_before;
            times.sort();
            let at = |share: f64| {
                times
                    .get((times.len() as f64 * share) as usize)
                    .copied()
                    .unwrap_or_default()
            };
            eprintln!(
                "3.{} {:>6.0} Hz: p10 {:?} p50 {:?} p90 {:?}; depth {:.1}; torn {torn}; CPU/sample {:.2} us",
                python.minor,
                count as f64 / wall.as_secs_f64(),
                at(0.1),
                at(0.5),
                at(0.9),
                depth as f64 / times.len().max(1) as f64,
                cpu * 1e6 / count as f64
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

/// What 160 sleeping threads cost us at 1 kHz.
#[test]
#[ignore = "measures, prints"]
fn cost_of_idle_threads() {
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
            let (mut times, mut torn) = (Vec::new(), 0);
            for _ in 0..2000 {
                std::thread::sleep(Duration::from_micros(950));
                let began = Instant::now();
                torn += u32::from(reader.read(&mut tables, &mut stacks).is_err());
                times.push(began.elapsed());
            }
            times.sort();
            let (cpu, wall) = (cpu_time() - before, started.elapsed().as_secs_f64());
            eprintln!(
                "3.{} {threads} {kind}: {:.0} Hz, {:.2} % of a core, read p50 {:?}, {} threads, torn {torn}",
                python.minor,
                2000.0 / wall,
                100.0 * cpu / wall,
                times[1000],
                stacks.threads.len()
            );
        }
    }
}
