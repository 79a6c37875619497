//! Ten minutes at 10 kHz of a program that calls, recurses and resumes generators in threads: what biopsy's memory
//! does meanwhile, and whether the shares are those of the program's own clocks at the end.

use crate::common;

use std::time::{Duration, Instant};

use common::{Python, Running, alone, biopsy_command, say};
use serde_json::Value;

/// `BIOPSY_SOAK_SECONDS` takes another time.
const SECONDS: u64 = 600;

/// Looks at the memory in all.
const LOOKS: u64 = 20;

const RATE: &str = "10k";

/// What it may take for a program with few functions; and by how much it may grow once it has seen them all.
const MOST_BYTES: u64 = 64 << 20;
const MOST_GROWTH: u64 = 1 << 20;

const PROGRAM: &str = "
import json, sys, threading, time
told = {}
def leaf(n): return sum(range(n))
def middle(n): return leaf(n) + leaf(n + 1)
def calls():
    for n in range(200): middle(n % 50)
def recursion(n=12): return n if n < 2 else recursion(n - 1) + recursion(n - 2)
def numbers(n):
    for i in range(n): yield i * i
def doubled(inner):
    for i in inner: yield 2 * i
def generators(): return sum(doubled(doubled(numbers(400))))
turns = [threading.Lock() for _ in range(3)]
def work(at, function):
    # One after the other, so that the clock tells what each computed and nothing of waiting for the others. It is one
    # that needs no system call: after those the scheduler likes to switch, and samples that are late come there.
    while True:
        turns[at].acquire()
        started = time.perf_counter()
        for _ in range(100): function()
        told[function.__name__] = told.get(function.__name__, 0.0) + time.perf_counter() - started
        turns[(at + 1) % 3].release()
for turn in turns: turn.acquire()
kinds = enumerate((calls, recursion, generators))
threads = [threading.Thread(target=work, args=kind, daemon=True) for kind in kinds]
for thread in threads: thread.start()
turns[0].release()
print('ready', flush=True)
for line in sys.stdin:
    print(json.dumps(told), flush=True)
";

/// Resident bytes of a process.
fn rss(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

#[test]
#[ignore = "takes ten minutes; measures, prints"]
fn memory_stays_bounded_for_ten_minutes_at_10_khz() {
    let _alone = alone();
    let asked = std::env::var("BIOPSY_SOAK_SECONDS").ok();
    let seconds = asked
        .and_then(|text| text.parse().ok())
        .unwrap_or(SECONDS)
        .max(LOOKS);
    let mut target = Python::any().start(&["-c", PROGRAM]);
    let mut clocks = || -> Value {
        target.tell("");
        serde_json::from_str(&target.line()).expect("JSON")
    };
    let before = clocks();
    let (pid, duration) = (target.pid.to_string(), seconds.to_string());
    let words = [
        "attach", &pid, "-r", RATE, "-d", &duration, "-f", "json", "-q",
    ];
    let mut sampling = Running::start(&mut biopsy_command(&words), b"");
    let started = Instant::now();
    let (mut most, mut settled) = (0, 0);
    for look in 1..=LOOKS {
        // The last one just before the end.
        let due = Duration::from_secs(seconds).mul_f64(look as f64 / LOOKS as f64 - 0.01);
        std::thread::sleep(due.saturating_sub(started.elapsed()));
        assert!(sampling.is_running(), "it has ended early");
        let bytes = rss(sampling.pid());
        most = most.max(bytes);
        if look <= LOOKS / 4 {
            settled = most;
        }
        say(format_args!(
            "{:>4.0} s: {:.1} MiB; the target has {:.1} MiB",
            started.elapsed().as_secs_f64(),
            bytes as f64 / f64::from(1 << 20),
            rss(target.pid) as f64 / f64::from(1 << 20),
        ));
    }
    let ran = sampling.finish(Duration::from_secs(120)).ok();
    let mut clocks = || -> Value {
        target.tell("");
        serde_json::from_str(&target.line()).expect("JSON")
    };
    let after = clocks();
    let result = ran.json();
    let samples = result["samples"].as_u64().expect("a number");
    say(format_args!(
        "{samples} samples, {} given up, {} retried, {:.0} us late on average",
        result["given_up"],
        result["retried"],
        result["mean_lateness_s"].as_f64().expect("a number") * 1e6
    ));
    let functions = result["functions"].as_array().expect("functions");
    for name in ["calls", "recursion", "generators"] {
        let clock = |told: &Value| told[name].as_f64().unwrap_or(0.0);
        let own = clock(&after) - clock(&before);
        let row = functions.iter().find(|row| row["name"] == name);
        let found = row.expect("a row")["cumtime_s"].as_f64().expect("a number");
        say(format_args!(
            "{name}: {found:.2} s of {own:.2} s: {:.3}",
            found / own
        ));
        // Without a real-time priority short turns come out a quarter too low at this rate.
        assert!(
            (0.5..1.5).contains(&(found / own)),
            "{name}: {found} s of {own} s on this machine"
        );
    }
    assert!(
        most < MOST_BYTES && most - settled < MOST_GROWTH,
        "{settled} bytes after a quarter of the time, {most} at most"
    );
    target.assert_free();
}
