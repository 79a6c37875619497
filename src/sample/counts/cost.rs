//! What a hit costs the thread that is watched: the time that has to be taken off to know how fast it runs unwatched.
//!
//! A first value is measured on ourselves. But a hit costs more where it throws the program's data out of the caches, and
//! with what else the machine does; so the program's own hits tell it: where hits follow each other as closely as
//! they can (a function that returns and is called again at once), the time between them is the cost and little else. It
//! matters just there: where no two hits are close, what is taken off is small.

/// Width of a bin, nanoseconds, and how many there are.
const BIN_NS: u64 = 50;
const BINS: usize = 1200;

/// Hits that follow each other at once, before they are believed.
const ENOUGH: u64 = 40;

/// Of all gaps so many are taken to be too short to be true.
const LOWEST: f64 = 0.01;

/// Gaps up to so many times the shortest are hits that follow each other at once; of all gaps they have to be so many.
const CLOSE: f64 = 1.12;
const LEAST_CLOSE: f64 = 0.04;

/// The work between two hits that cannot be closer: a return and a call.
const LEAST_WORK_NS: f64 = 60.0;

/// How far the program's own hits may be from ours.
const FARTHEST: std::ops::RangeInclusive<f64> = 0.5..=2.0;

/// Hits after which what was learnt counts half: the machine changes.
const HALF_AFTER: u64 = 20_000;

/// What follows a hit is slower too, for its data was thrown out of the caches: by this much of the cost, measured with
/// functions of known length (0.2 to 1 us, the more the more code runs in between).
const AFTERMATH: f64 = 1.08;

/// How sure the cost is, as a share of it: where hits follow each other at once, and else.
const SURE: f64 = 0.05;
const UNSURE: f64 = 0.08;

/// The cost of a hit.
#[derive(Debug, Clone)]
pub struct Cost {
    prior_ns: f64,
    bins: Vec<u64>,
    gaps: u64,
    current_ns: f64,
    is_sure: bool,
    /// Gaps since it was worked out last.
    since: u64,
}

impl Cost {
    /// With what it costs ourselves.
    pub fn new(prior_ns: u64) -> Cost {
        let prior_ns = prior_ns as f64;
        Cost {
            prior_ns,
            bins: vec![0; BINS],
            gaps: 0,
            current_ns: prior_ns,
            is_sure: false,
            since: 0,
        }
    }

    /// Nanoseconds.
    pub fn ns(&self) -> f64 {
        self.current_ns * AFTERMATH
    }

    /// Its standard error, as a share of it.
    pub fn error(&self) -> f64 {
        if self.is_sure { SURE } else { UNSURE }
    }

    /// Notes the time between two hits of a thread that ran all the time.
    pub fn gap(&mut self, ns: u64) {
        let bin = usize::try_from(ns / BIN_NS).unwrap_or(usize::MAX);
        let Some(bin) = self.bins.get_mut(bin) else {
            return;
        };
        *bin += 1;
        self.gaps += 1;
        self.since += 1;
        if self.since >= ENOUGH && self.since * 16 >= self.gaps {
            self.since = 0;
            self.work_out();
        }
        if self.gaps >= HALF_AFTER {
            self.bins.iter_mut().for_each(|bin| *bin /= 2);
            self.gaps = self.bins.iter().sum();
        }
    }

    fn work_out(&mut self) {
        let skipped = (self.gaps as f64 * LOWEST) as u64;
        let mut passed = 0;
        let first = self.bins.iter().position(|count| {
            passed += count;
            passed > skipped
        });
        let Some(first) = first else { return };
        let shortest_ns = (first as u64 * BIN_NS) as f64;
        if !FARTHEST.contains(&(shortest_ns / self.prior_ns)) {
            // No two hits are close: none costs more than that.
            self.current_ns = self.prior_ns.min(shortest_ns.max(self.prior_ns / 2.0));
            self.is_sure = false;
            return;
        }
        let last = ((shortest_ns * CLOSE) as u64 / BIN_NS) as usize;
        let close = self.bins.iter().enumerate().take(last + 1).skip(first);
        let (mut count, mut sum) = (0u64, 0.0);
        for (bin, hits) in close {
            count += hits;
            sum += *hits as f64 * (bin as f64 + 0.5) * BIN_NS as f64;
        }
        let share = count as f64 / self.gaps.max(1) as f64;
        self.is_sure = count >= ENOUGH && share >= LEAST_CLOSE;
        self.current_ns = match self.is_sure {
            true => (sum / count as f64 - LEAST_WORK_NS).max(1.0),
            false => self.prior_ns.min(shortest_ns),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_hits_tell_the_cost() {
        let mut cost = Cost::new(9000);
        assert_eq!((cost.ns(), cost.error()), (9000.0 * AFTERMATH, UNSURE));
        for at in 0..2000u64 {
            // A return and a call at once, and a function of 30 us.
            cost.gap(10_060 + at % 400);
            cost.gap(40_000 + at % 3000);
        }
        let found = cost.ns() / AFTERMATH;
        assert!((found - 10_200.0).abs() < 60.0, "{found}");
        assert_eq!(cost.error(), SURE);
    }

    #[test]
    fn hits_far_from_each_other_leave_what_it_costs_us() {
        let mut cost = Cost::new(9000);
        for at in 0..2000 {
            cost.gap(30_000 + at);
        }
        assert_eq!((cost.ns(), cost.error()), (9000.0 * AFTERMATH, UNSURE));
        let mut cost = Cost::new(9000);
        for at in 0..2000 {
            cost.gap(7000 + at * 20);
        }
        assert!(cost.ns() <= 7500.0 * AFTERMATH, "{}", cost.ns());
    }
}
