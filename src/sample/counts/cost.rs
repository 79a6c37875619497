//! What a hit costs the thread that is watched: the time that has to be taken off to know how fast it runs unwatched.
//!
//! The cost itself is measured on ourselves, again and again while samples are taken, on the CPU that the target runs on: it
//! changes by a third within a second on machines that are shared. What follows a hit is slower too, for its data
//! and code were thrown out of the caches: by up to a certain part of the cost, all of which is met only when enough
//! runs until the next hit.

use std::collections::VecDeque;

/// The program's hits cost more than ours, whose caches hold nothing else.
const COLDER: f64 = 1.08;

/// What a hit makes slower after it, as a part of its cost; most of it is over after that many nanoseconds.
/// Measured with functions of 0.3 to 50 us of real programs whose calls are known.
const AFTERMATH: f64 = 0.42;
const OVER_NS: f64 = 1500.0;

/// The standard errors of the cost and of what follows it, as parts of the cost.
const COST_ERROR: f64 = 0.05;
const AFTERMATH_ERROR: f64 = 0.10;

/// Measurements of which the median is taken.
const REMEMBERED: usize = 3;

/// CPU time of the target from one measurement to the next, nanoseconds.
pub const EVERY_NS: f64 = 1e8;

/// Hits of one measurement.
pub const TRIALS: u32 = 6;

/// The cost of a hit.
#[derive(Debug, Clone)]
pub struct Cost {
    measured: VecDeque<f64>,
    current_ns: f64,
}

impl Cost {
    /// With what it costs ourselves.
    pub fn new(own_ns: u64) -> Cost {
        let mut cost = Cost {
            measured: VecDeque::with_capacity(REMEMBERED),
            current_ns: 0.0,
        };
        cost.measured(own_ns);
        cost
    }

    /// It costs ourselves so much by now.
    pub fn measured(&mut self, own_ns: u64) {
        if self.measured.len() >= REMEMBERED {
            self.measured.pop_front();
        }
        self.measured.push_back(COLDER * own_ns as f64);
        let mut sorted: Vec<f64> = self.measured.iter().copied().collect();
        sorted.sort_unstable_by(f64::total_cmp);
        self.current_ns = sorted.get(sorted.len() / 2).copied().unwrap_or(0.0);
    }

    /// The most that a hit costs with all that follows it, nanoseconds.
    pub fn ns(&self) -> f64 {
        self.current_ns * (1.0 + AFTERMATH)
    }

    /// Its standard error, as a share of it.
    pub fn error(&self) -> f64 {
        COST_ERROR.hypot(AFTERMATH_ERROR) / (1.0 + AFTERMATH)
    }

    /// Time that the thread would have taken unwatched for what it did from a hit to another, `passed_ns` later. Less than
    /// nothing, now and then: costs differ, and on average it is right.
    pub fn unwatched_ns(&self, passed_ns: f64) -> f64 {
        let left_ns = passed_ns - self.current_ns;
        let most_ns = AFTERMATH * self.current_ns;
        // Work of t takes t + most (1 - exp(-t / OVER)) after a hit: the inverse, by Newton's way.
        let slope = 1.0 + most_ns / OVER_NS;
        if left_ns <= 0.0 {
            return left_ns / slope;
        }
        let mut work_ns = left_ns / slope;
        for _ in 0..4 {
            let rest = (-work_ns / OVER_NS).exp();
            let takes_ns = work_ns + most_ns * (1.0 - rest);
            work_ns += (left_ns - takes_ns) / (1.0 + most_ns / OVER_NS * rest);
        }
        work_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_hit_costs_is_taken_off() {
        let cost = Cost::new(5000);
        let most = AFTERMATH * 5000.0 * COLDER;
        for work in [0.0, 10.0, 100.0, 700.0, 1500.0, 3000.0, 10_000.0, 1e6, 1e9] {
            let passed = 5000.0 * COLDER + work + most * (1.0 - f64::exp(-work / OVER_NS));
            let found = cost.unwatched_ns(passed);
            assert!((found - work).abs() < 1.0 + work * 1e-6, "{found}, {work}");
        }
        assert!(cost.unwatched_ns(4000.0) < 0.0);
        assert!((cost.ns() - 5000.0 * COLDER - most).abs() < 1.0);
    }

    #[test]
    fn one_strange_measurement_changes_nothing() {
        let mut cost = Cost::new(5000);
        for own in [5000, 5000, 90_000, 5000, 10] {
            cost.measured(own);
        }
        assert_eq!(cost.ns(), Cost::new(5000).ns());
        (0..2).for_each(|_| cost.measured(7000));
        assert_eq!(cost.ns(), Cost::new(7000).ns());
    }
}
