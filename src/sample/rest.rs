//! Rest: which threads need not be looked at again, and how long a process that does nothing may be left alone.
//!
//! A thread rests when it was asleep, has run no Python since (the reader can say so without reading its stack), and
//! has not used the CPU. That is told for all resting threads at once: the process's CPU clock has then grown by
//! just what the others have used. One that woke up less than a tick ago, in C and without taking the GIL, is
//! noticed a sample later.

use std::time::Duration;

use crate::target::threads;
use crate::units::Pid;

/// A sample stands for more time the longer nothing has happened: for this part of that time, so that work that
/// begins meanwhile is seen unless it is shorter than that.
const PART_OF_REST: u64 = 32;

/// The longest time that one sample stands for, unless the rate is lower.
const LONGEST_US: u64 = 16_000;

/// What is known of a process at rest.
#[derive(Debug)]
pub struct Rest {
    pid: Pid,
    /// CPU time of the process without that of the threads that are known, at the last sample.
    others_ns: Option<u64>,
    /// Since when nothing has happened.
    since_us: Option<u64>,
}

impl Rest {
    /// Nothing is known yet.
    pub fn new(pid: Pid) -> Rest {
        Rest {
            pid,
            others_ns: None,
            since_us: None,
        }
    }

    /// Whether resting threads have used no CPU since the last call. `known_ns`: the sum of the clocks of all
    /// threads, of the resting ones as they were.
    pub fn goes_on(&mut self, known_ns: u64) -> bool {
        // Wrapping: threads that have ended are in the process's clock still.
        let others = threads::process_cpu_ns(self.pid).map(|all| all.wrapping_sub(known_ns));
        let same = others.is_some() && others == self.others_ns;
        self.others_ns = others;
        same
    }

    /// Takes note of a sample in which no thread rests: the process's clock, which takes longer the more threads it
    /// has, was not asked.
    pub fn nobody(&mut self) {
        self.others_ns = None;
    }

    /// Takes note of the clocks after all threads have been looked at.
    pub fn looked_at_all(&mut self, known_ns: u64) {
        self.goes_on(known_ns);
    }

    /// Takes note of a sample: whether anything has happened in it or since the one before.
    pub fn note(&mut self, happened: bool, now_us: u64) {
        if happened {
            self.since_us = None;
        } else {
            self.since_us.get_or_insert(now_us);
        }
    }

    /// Whether nothing had happened in the last sample.
    pub fn is_on(&self) -> bool {
        self.since_us.is_some()
    }

    /// How many periods the next sample may stand for.
    pub fn periods(&self, now_us: u64, period: Duration) -> u32 {
        let Some(since_us) = self.since_us else {
            return 1;
        };
        let rested_us = now_us.saturating_sub(since_us);
        let time_us = (rested_us / PART_OF_REST).min(LONGEST_US);
        let periods = u128::from(time_us) * 1000 / period.as_nanos().max(1);
        u32::try_from(periods).map_or(1, |periods| periods.max(1))
    }
}

/// CPU time that threads are seen runnable for until it is compared with what the process has used, microseconds.
const RUNNABLE_US: u64 = 50_000;

/// For which part of the time in which threads of a process are seen runnable they run: on a busy machine they wait for
/// a CPU as well, which their state does not tell, and a thread that has ended has no clock that would.
#[derive(Debug)]
pub struct Running {
    pid: Pid,
    share: f64,
    runnable_us: u64,
    used_ns: Option<u64>,
}

impl Running {
    /// Taken to run all the time, as long as nothing is known.
    pub fn new(pid: Pid) -> Running {
        Running {
            pid,
            share: 1.0,
            runnable_us: 0,
            used_ns: threads::process_cpu_ns(pid),
        }
    }

    /// The share, at most 1.
    pub fn share(&self) -> f64 {
        self.share
    }

    /// Takes note of the time for which samples of runnable threads stood.
    pub fn note(&mut self, runnable_us: u64) {
        self.runnable_us += runnable_us;
        if self.runnable_us < RUNNABLE_US {
            return;
        }
        let used_ns = threads::process_cpu_ns(self.pid);
        if let (Some(used), Some(before)) = (used_ns, self.used_ns) {
            let share = used.saturating_sub(before) as f64 / 1e3 / self.runnable_us as f64;
            self.share = (0.7 * self.share + 0.3 * share).min(1.0);
        }
        (self.runnable_us, self.used_ns) = (0, used_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_stand_for_more_the_longer_a_rest_is() {
        let mut rest = Rest::new(Pid(std::process::id() as i32));
        let period = Duration::from_millis(1);
        assert_eq!(rest.periods(1_000_000, period), 1);
        assert!(!rest.is_on());
        rest.note(false, 1_000_000);
        assert!(rest.is_on());
        assert_eq!(rest.periods(1_063_000, period), 1);
        assert_eq!(rest.periods(1_128_000, period), 4);
        assert_eq!(rest.periods(9_000_000, period), 16);
        assert_eq!(rest.periods(9_000_000, Duration::from_millis(10)), 1);
        rest.note(true, 9_000_001);
        rest.note(false, 9_000_002);
        assert_eq!(rest.periods(9_000_003, period), 1);
    }

    #[test]
    fn our_own_clock_grows_when_we_work() {
        let mut rest = Rest::new(Pid(std::process::id() as i32));
        assert!(!rest.goes_on(0));
        let started = std::time::Instant::now();
        while started.elapsed() < Duration::from_millis(20) {}
        assert!(!rest.goes_on(0));
    }
}
