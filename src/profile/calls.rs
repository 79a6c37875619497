//! How often functions were called, where samples alone cannot tell: what bursts of snapshots saw, and the estimate
//! from it.
//!
//! A burst is a series of windows, each of snapshots at one spacing, the finest first. A caller-callee edge has as
//! many *boundaries* as pairs of consecutive snapshots between which a new call of the callee began. Calls are
//! boundaries by time inside windows, times the whole time, with two corrections:
//!
//! - Calls that begin and end between two snapshots are missed. How many, a finer spacing shows: of its snapshots
//!   every fourth is taken, and what that misses is compared with all of them. Below the finest spacing a
//!   Poisson process is assumed, from [`POISSON_FROM`] on; beyond [`REFUSED_FROM`] the number is a lower bound.
//! - The target loses some time to each snapshot, which takes cache lines away from it: wide spacings lose less of
//!   the time than close ones. The loss by snapshot is fitted together with the rate (a grid over the loss, Poisson
//!   counts, a weak prior), so that the answer is that of a target that nobody looks at.

use super::{FunctionId, FunctionKind, ProcessId, ThreadId};

/// Number of spacings of a burst, the finest first.
pub const SPACINGS: usize = 4;

/// Of a finer spacing so many snapshots make one of the next.
pub const COARSER: usize = 4;

/// Spacings whose snapshots hold the innermost frames only.
const SHALLOW: usize = 2;

/// Boundaries for each pair of snapshots from which on the process is taken for a Poisson process.
const POISSON_FROM: f64 = 0.15;

/// The same, from which on nothing can be said but that there are at least so many calls.
const REFUSED_FROM: f64 = 0.6;

/// The same, as a finer spacing makes us expect it, up to which a coarser one is of use. Not as the coarser one shows
/// it: objects that alternate between two addresses hide every second call from it.
const COARSE_TO: f64 = 0.35;

/// The same, up to which what a spacing misses is small, should no finer one show it.
const UNSEEN_TO: f64 = 0.12;

/// Boundaries that say enough of what is missed.
const ENOUGH: u64 = 20;

/// Prior of the time that a snapshot costs the target: mean and deviation in nanoseconds. Measured from 0 (functions
/// whose body is in C) to 250 (loops of bytecode).
const LOSS_MEAN_NS: f64 = 80.0;
const LOSS_DEVIATION_NS: f64 = 120.0;

/// A call that takes as many sampling periods is seen by the ordinary samples.
const LONG_PERIODS: f64 = 3.0;

/// What all windows of one spacing amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SpacingTotals {
    /// Time inside of windows, nanoseconds.
    pub time_ns: u64,
    /// Pairs of consecutive snapshots.
    pub pairs: u64,
}

/// What the windows of one spacing saw of one edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EdgeCounts {
    /// New calls.
    pub boundaries: u64,
    /// Pairs of snapshots whose second one shows the edge.
    pub pairs: u64,
    /// New calls that would have been seen with every [`COARSER`]th snapshot only.
    pub coarse: u64,
    /// Of `boundaries` those that show in what the callers do: the others show only in that the callee was not there in
    /// the snapshot before, and calls that follow each other at once do not show at all.
    pub told: u64,
}

/// One edge of one thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BurstEdge {
    /// The thread.
    pub thread: ThreadId,
    /// Who called.
    pub caller: FunctionId,
    /// What was called.
    pub callee: FunctionId,
    /// By spacing.
    pub counts: [EdgeCounts; SPACINGS],
}

/// What bursts saw of one process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bursts {
    /// The process; its position.
    pub process: u32,
    /// The time that the windows stand for, microseconds.
    pub duration_us: u64,
    /// By spacing.
    pub totals: [SpacingTotals; SPACINGS],
    /// Edges that were seen.
    pub edges: Vec<BurstEdge>,
}

impl Bursts {
    /// The process.
    pub fn process(&self) -> ProcessId {
        ProcessId(self.process)
    }
}

/// Where a number of calls comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallSource {
    /// Turns of loops that make the call once in each.
    Iterator,
    /// Watch.
    Watchpoint,
    /// Ordinary samples: the calls are long enough to be seen.
    Samples,
    /// Bursts.
    Bursts,
    /// At least so many.
    LowerBound,
}

impl CallSource {
    /// The word in files.
    pub fn name(self) -> &'static str {
        match self {
            CallSource::Iterator => "iterator",
            CallSource::Samples => "samples",
            CallSource::Watchpoint => "watchpoint",
            CallSource::Bursts => "bursts",
            CallSource::LowerBound => "lower-bound",
        }
    }
}

/// An estimated number of calls.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CallEstimate {
    /// Calls.
    pub calls: f64,
    /// Standard error of `calls`; `None` for a lower bound.
    pub error: Option<f64>,
    /// Where it comes from.
    pub source: CallSource,
}

/// Calls along one edge from what bursts saw of it; `None` when they saw no call. Calls of C functions that do not show in
/// their callers are a lower bound.
pub fn estimate(
    totals: &[SpacingTotals; SPACINGS],
    counts: &[EdgeCounts; SPACINGS],
    duration_us: u64,
    callee: FunctionKind,
) -> Option<CallEstimate> {
    let hidden = callee != FunctionKind::Python && counts.iter().all(|counts| counts.told == 0);
    let share = |at: usize| counts[at].boundaries as f64 / counts[at].pairs.max(1) as f64;
    let usable = usable(counts, share);
    let mut terms: Vec<Term> = Vec::new();
    let (mut factor, mut variance) = (1.0, 0.0);
    let mut bound = false;
    // Boundaries by nanosecond while the edge is there, by the finest spacing that says enough.
    let mut finest: Option<f64> = None;
    let known = |terms: &[Term]| terms.iter().any(|term| term.counted >= ENOUGH as f64);
    for at in 0..SPACINGS {
        let (total, count) = (totals[at], counts[at]);
        if total.pairs == 0 {
            continue;
        }
        let share = share(at);
        if at == 0 && count.boundaries > 0 {
            bound = share > REFUSED_FROM;
            if share >= POISSON_FROM && !bound {
                factor = -(1.0 - share).ln() / share;
                variance = 0.01;
            }
        }
        if at > 0 {
            let finer = counts[at - 1];
            if finer.coarse >= ENOUGH {
                factor *= finer.boundaries as f64 / finer.coarse as f64;
                variance += (1.0 / finer.coarse as f64 - 1.0 / finer.boundaries as f64).max(0.0);
            } else if share > UNSEEN_TO && known(&terms) {
                break;
            }
        }
        let spacing_ns = total.time_ns as f64 / total.pairs as f64;
        if finest.is_some_and(|density| density * spacing_ns > COARSE_TO) {
            break;
        }
        if finest.is_none() && count.boundaries >= ENOUGH {
            finest = Some(share / spacing_ns);
        }
        if usable[at] {
            terms.push(Term {
                calls: count.boundaries as f64 * factor,
                counted: count.boundaries as f64,
                variance,
                time_ns: total.time_ns as f64,
                spacing_ns,
            });
        }
        if bound {
            break;
        }
    }
    let counted: f64 = terms.iter().map(|term| term.counted).sum();
    if counted == 0.0 {
        return None;
    }
    let (rate, deviation) = fit(&terms);
    let bound = bound || hidden;
    let duration_ns = duration_us as f64 * 1000.0;
    if !(rate * duration_ns).is_finite() {
        return None;
    }
    Some(CallEstimate {
        calls: rate * duration_ns,
        error: (!bound).then_some(deviation * duration_ns),
        source: if bound {
            CallSource::LowerBound
        } else {
            CallSource::Bursts
        },
    })
}

/// Spacings with shallow snapshots are left out for calls that are long enough to be seen well by wider ones: such a
/// call may be deeper than those snapshots reach.
fn usable(counts: &[EdgeCounts; SPACINGS], share: impl Fn(usize) -> f64) -> [bool; SPACINGS] {
    let mut usable = [true; SPACINGS];
    for (at, usable) in usable.iter_mut().enumerate().take(SHALLOW) {
        let wider = |at: usize| counts[at].boundaries >= ENOUGH;
        *usable = !((at + 1..SPACINGS).any(wider) && share(at + 1) < 0.02);
    }
    usable
}

struct Term {
    calls: f64,
    counted: f64,
    /// Relative variance of the factor that made `calls` of `counted`.
    variance: f64,
    time_ns: f64,
    spacing_ns: f64,
}

/// Calls a nanosecond, and the standard error of that.
fn fit(terms: &[Term]) -> (f64, f64) {
    let finest = terms.first().map_or(1000.0, |term| term.spacing_ns);
    let calls: f64 = terms.iter().map(|term| term.calls).sum();
    let counted: f64 = terms.iter().map(|term| term.counted).sum();
    let factors: f64 = terms.iter().map(|term| term.counted * term.variance).sum();
    let own_variance = (1.0 + factors) / counted;
    let mut points: Vec<(f64, f64)> = Vec::new();
    let mut best = f64::NEG_INFINITY;
    for step in 0..=100 {
        let loss_ns = f64::from(step) * 5.0;
        if loss_ns > 0.6 * finest {
            break;
        }
        let exposure = |term: &Term| term.time_ns * (1.0 - loss_ns / term.spacing_ns);
        let rate = calls / terms.iter().map(exposure).sum::<f64>();
        let mut fits = -((loss_ns - LOSS_MEAN_NS) / LOSS_DEVIATION_NS).powi(2) / 2.0;
        for term in terms {
            let expected = rate * exposure(term);
            if expected > 0.0 {
                // Poisson counts, made wider by what the factor adds.
                let spread = expected * (1.0 + term.counted * term.variance);
                fits -= (term.calls - expected).powi(2) / (2.0 * spread);
            }
        }
        best = best.max(fits);
        points.push((fits, rate));
    }
    let weights: f64 = points.iter().map(|(fits, _)| (fits - best).exp()).sum();
    let mean = points.iter().map(|(fits, rate)| (fits - best).exp() * rate);
    let mean = mean.sum::<f64>() / weights;
    let spread = points
        .iter()
        .map(|(fits, rate)| (fits - best).exp() * (rate - mean).powi(2));
    let spread = spread.sum::<f64>() / weights;
    (mean, (spread + mean * mean * own_variance).sqrt())
}

/// Which estimate stands for the calls of an edge: `sampled` calls that samples told apart, what bursts say, the
/// time spent in all calls together, and the sampling period.
pub fn choose(
    sampled: u64,
    bursts: Option<CallEstimate>,
    time_us: f64,
    period_us: f64,
) -> CallEstimate {
    let seen = sampled as f64;
    let long = |calls: f64| calls > 0.0 && time_us / calls >= LONG_PERIODS * period_us;
    let from_samples = CallEstimate {
        calls: seen,
        // Half of what would be missed, were the durations spread as those of a Poisson process.
        error: Some(seen * (period_us * seen / (4.0 * time_us.max(1.0))).min(1.0)),
        source: CallSource::Samples,
    };
    if let Some(bursts) = bursts {
        // A lower bound says that samples miss calls as well.
        let more = bursts
            .error
            .is_none_or(|error| bursts.calls > seen + 3.0 * error);
        if long(seen) && !more {
            return from_samples;
        }
        // What samples told apart were calls.
        return CallEstimate {
            calls: bursts.calls.max(seen),
            ..bursts
        };
    }
    if long(seen) {
        return from_samples;
    }
    CallEstimate {
        calls: seen,
        error: None,
        source: CallSource::LowerBound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};

    const PYTHON: FunctionKind = FunctionKind::Python;
    const SPACING_NS: [f64; SPACINGS] = [1000.0, 4000.0, 16_000.0, 100_000.0];
    const PAIRS: [u64; SPACINGS] = [64_000, 16_000, 16_000, 24_000];

    /// Snapshots of a target that calls one function again and again, and loses `loss_ns` to each snapshot.
    fn simulate(
        mean_us: f64,
        regular: bool,
        loss_ns: f64,
        seed: u64,
    ) -> ([SpacingTotals; SPACINGS], [EdgeCounts; SPACINGS]) {
        let mut random = rand::rngs::StdRng::seed_from_u64(seed);
        let mut totals = [SpacingTotals::default(); SPACINGS];
        let mut counts = [EdgeCounts::default(); SPACINGS];
        let mut draw = || {
            if regular {
                mean_us * 1000.0 * random.random_range(0.9..1.1)
            } else {
                -mean_us * 1000.0 * random.random_range(f64::MIN_POSITIVE..1.0f64).ln()
            }
        };
        for at in 0..SPACINGS {
            let (mut left, mut since_coarse) = (draw() * 0.5, 0);
            for pair in 0..PAIRS[at] {
                left -= SPACING_NS[at] - loss_ns;
                let mut began = 0;
                while left < 0.0 {
                    left += draw();
                    began += 1;
                }
                since_coarse += began;
                counts[at].boundaries += u64::from(began > 0);
                counts[at].told += u64::from(began > 0);
                if pair % COARSER as u64 == COARSER as u64 - 1 {
                    counts[at].coarse += u64::from(since_coarse > 0);
                    since_coarse = 0;
                }
            }
            counts[at].pairs = PAIRS[at];
            totals[at].pairs = PAIRS[at];
            totals[at].time_ns = (PAIRS[at] as f64 * SPACING_NS[at]) as u64;
        }
        (totals, counts)
    }

    #[test]
    fn calls_of_every_length_are_estimated() {
        let mut seed = 1;
        for mean_us in [8.0, 20.0, 50.0, 200.0, 1000.0, 3000.0] {
            for regular in [true, false] {
                for loss_ns in [0.0, 220.0] {
                    seed += 1;
                    let (totals, counts) = simulate(mean_us, regular, loss_ns, seed);
                    let found = estimate(&totals, &counts, 10_000_000, PYTHON).expect("calls");
                    let truth = 1e7 / mean_us;
                    let (error, ratio) = (found.error.expect("error"), found.calls / truth);
                    println!(
                        "{mean_us} us, {regular}, {loss_ns}: {ratio:.3} +- {:.3}",
                        error / truth
                    );
                    let allowed = 4.0 * error / truth + if mean_us < 10.0 { 0.12 } else { 0.05 };
                    assert!(
                        (ratio - 1.0).abs() < allowed,
                        "{mean_us} {regular} {loss_ns} {ratio}"
                    );
                    assert!(
                        error / truth < if mean_us < 10.0 { 0.2 } else { 0.1 },
                        "{mean_us} {error}"
                    );
                    assert_eq!(found.source, CallSource::Bursts);
                }
            }
        }
    }

    #[test]
    fn calls_that_are_too_short_are_a_lower_bound() {
        let (totals, counts) = simulate(0.6, true, 0.0, 9);
        let found = estimate(&totals, &counts, 1_000_000, PYTHON).expect("calls");
        assert_eq!(found.source, CallSource::LowerBound);
        assert_eq!(found.error, None);
        assert!(found.calls < 1e6 / 0.6 * 1.3, "{}", found.calls);
    }

    #[test]
    fn calls_of_c_that_do_not_show_in_their_callers_are_a_lower_bound() {
        let (totals, mut counts) = simulate(50.0, true, 0.0, 7);
        for counts in &mut counts {
            counts.told = 0;
        }
        let found = |kind| estimate(&totals, &counts, 1_000_000, kind).expect("calls");
        assert_eq!(found(FunctionKind::Builtin).error, None);
        assert_eq!(found(FunctionKind::Builtin).source, CallSource::LowerBound);
        assert_eq!(found(PYTHON).source, CallSource::Bursts);
    }

    #[test]
    fn nothing_seen_is_no_estimate() {
        let (totals, _) = simulate(20.0, true, 0.0, 3);
        assert_eq!(estimate(&totals, &Default::default(), 1000, PYTHON), None);
        let nothing = estimate(&Default::default(), &Default::default(), 0, PYTHON);
        assert_eq!(nothing, None);
    }

    #[test]
    fn numbers_of_a_damaged_file_do_no_harm() {
        let most = [EdgeCounts {
            boundaries: u64::MAX,
            pairs: 0,
            coarse: u64::MAX,
            told: 1,
        }; SPACINGS];
        for totals in [
            [SpacingTotals {
                time_ns: 0,
                pairs: 1,
            }; SPACINGS],
            [SpacingTotals {
                time_ns: u64::MAX,
                pairs: u64::MAX,
            }; SPACINGS],
        ] {
            let _ = estimate(&totals, &most, u64::MAX, PYTHON);
        }
    }

    #[test]
    fn long_calls_are_taken_from_samples() {
        let bursts = |calls, error| CallEstimate {
            calls,
            error: Some(error),
            source: CallSource::Bursts,
        };
        let chosen = |sampled, found, time_us| choose(sampled, found, time_us, 1000.0);
        let long = chosen(100, Some(bursts(110.0, 10.0)), 500_000.0);
        assert_eq!((long.calls, long.source), (100.0, CallSource::Samples));
        let short = chosen(100, Some(bursts(9000.0, 90.0)), 500_000.0);
        assert_eq!((short.calls, short.source), (9000.0, CallSource::Bursts));
        let fewer = chosen(100, Some(bursts(60.0, 10.0)), 90_000.0);
        assert_eq!((fewer.calls, fewer.source), (100.0, CallSource::Bursts));
        assert_eq!(chosen(3, None, 3000.0).source, CallSource::LowerBound);
        assert_eq!(chosen(3, None, 90_000.0).source, CallSource::Samples);
    }
}
