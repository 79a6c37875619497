//! From what windows showed to the number of calls in all of the time.

use super::Sure;
use crate::target::watchpoint::REGISTERS;

/// How sure the cost of a hit is in other threads: they lose more where the exception throws out what they work on.
const COST_ERROR: f64 = 0.2;
/// Where hits take a larger share of the CPU time, nothing can be taken out.
const FULL: f64 = 0.75;

/// What one window showed.
#[derive(Debug, Clone, Copy)]
pub struct Shown {
    /// Its length, seconds.
    pub seconds: f64,
    /// What hits took, seconds.
    pub lost: f64,
    /// Calls that began in it, by function.
    pub calls: [u64; REGISTERS],
}

/// All windows.
#[derive(Debug, Default)]
pub struct Windows {
    /// Each.
    pub shown: Vec<Shown>,
    /// CPU time that the threads used in them, seconds.
    pub cpu: f64,
    /// Time for which they waited for a CPU, seconds.
    pub waited: f64,
}

impl Windows {
    /// Share of their CPU time that hits took in the last few windows.
    pub fn cost_of_late(&self) -> f64 {
        let last = self.shown.iter().rev().take(10);
        let (lost, seconds) = last.fold((0.0, 0.0), |sum, shown| {
            (sum.0 + shown.lost, sum.1 + shown.seconds)
        });
        // Of the CPU time, as far as it is less than the time.
        let all: f64 = self.shown.iter().map(|shown| shown.seconds).sum();
        let busy = (self.cpu / all.max(1e-9)).clamp(0.05, 1.0);
        (lost / (seconds * busy).max(1e-9)).min(1.0)
    }

    /// The number of calls of the function `index`, of which `counted` were seen and the rest happened in `rest` seconds
    /// between windows. The time in a window counts without what hits took, and without the waiting for a CPU that came
    /// with that. A rate is the mean of the windows' rates, each with the same weight: as windows begin at random, that is
    /// right whatever hits cost.
    pub fn estimate(&self, index: usize, counted: u64, rest: f64) -> (f64, Sure) {
        let of = |shown: &Shown| shown.calls.get(index).copied().unwrap_or(0) as f64;
        let number = self.shown.len() as f64;
        let sum = |what: fn(&Shown) -> f64| self.shown.iter().map(what).sum::<f64>();
        let (seconds, lost) = (sum(|shown| shown.seconds), sum(|shown| shown.lost));
        let counted = counted as f64;
        if self.shown.len() < 3 {
            return (counted, Sure::AtLeast);
        }
        if lost > FULL * self.cpu.min(seconds) {
            // As many a second as there were with all that hits took.
            let slowed = self.shown.iter().map(of).sum::<f64>() / seconds;
            return (counted + rest * slowed, Sure::AtLeast);
        }
        let waits = 1.0 + self.waited / self.cpu.max(1e-9);
        let natural =
            |shown: &Shown| (shown.seconds - shown.lost * waits).max(shown.seconds * (1.0 - FULL));
        let rates: Vec<f64> = self
            .shown
            .iter()
            .map(|shown| of(shown) / natural(shown))
            .collect();
        let mean = rates.iter().sum::<f64>() / number;
        let spread = rates.iter().map(|rate| (rate - mean).powi(2)).sum::<f64>();
        let error = (spread / (number - 1.0) / number).sqrt();
        let share = (lost * waits / seconds).min(FULL);
        let systematic = mean * COST_ERROR * share / (1.0 - share);
        // At least a call.
        let error = (rest * error.hypot(systematic)).max(1.0);
        (counted + rest * mean, Sure::Estimated(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    fn windows(number: usize, lost: f64, waited: f64, mut calls: impl FnMut() -> u64) -> Windows {
        let shown = (0..number).map(|_| Shown {
            seconds: 0.02,
            lost,
            calls: [calls(), 0, 0, 0],
        });
        let shown: Vec<Shown> = shown.collect();
        Windows {
            cpu: 0.02 * number as f64 - waited,
            waited,
            shown,
        }
    }

    #[test]
    fn time_that_hits_take_is_no_time() {
        // 100 calls in the half of each window that was the program's.
        let half = windows(50, 0.01, 0.0, || 100);
        let (calls, sure) = half.estimate(0, 7, 10.0);
        assert!((calls - 100_007.0).abs() < 1e-3, "{calls}");
        assert!(
            matches!(sure, Sure::Estimated(error) if (19_000.0..21_000.0).contains(&error)),
            "{sure:?}"
        );
        assert_eq!(half.estimate(1, 0, 10.0).0, 0.0);
        // Half of the time it waited for a CPU: of the rest, half went to hits.
        let (calls, _) = windows(50, 0.005, 0.5, || 50).estimate(0, 0, 10.0);
        assert!((calls - 50_000.0).abs() < 1e-3, "{calls}");
    }

    #[test]
    fn the_error_is_that_of_the_windows() {
        let mut random = StdRng::seed_from_u64(2);
        let mut within = 0;
        for _ in 0..200 {
            let some = windows(40, 0.0, 0.0, || random.random_range(0..200));
            let (calls, sure) = some.estimate(0, 0, 1.0);
            let Sure::Estimated(error) = sure else {
                panic!("{sure:?}")
            };
            within += usize::from((calls - 99.5 / 0.02).abs() < 2.0 * error);
        }
        assert!((180..=200).contains(&within), "{within}");
    }

    #[test]
    fn what_cannot_be_told_is_a_lower_bound() {
        let full = windows(50, 0.019, 0.0, || 1000);
        let (calls, sure) = full.estimate(0, 50_000, 1.0);
        assert!((calls - 100_000.0).abs() < 1e-3 && sure == Sure::AtLeast);
        let busy = windows(50, 0.009, 0.5, || 500);
        assert_eq!(busy.estimate(0, 0, 1.0).1, Sure::AtLeast);
        assert_eq!(Windows::default().estimate(0, 5, 1.0), (5.0, Sure::AtLeast));
        assert_eq!(Windows::default().cost_of_late(), 0.0);
    }
}
