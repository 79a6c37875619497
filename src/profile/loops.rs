//! Numbers of calls from turns of `for` loops: what samples saw of calls that every turn makes exactly once.
//!
//! The turns in intervals between two looks at one execution of a loop are exact. What is left are the turns
//! before the first look at an execution and after the last one, half an interval each on average: they are taken to be as
//! fast as the others. Calls that every invocation of a function makes once follow from its number of calls.

use super::calls::{CallEstimate, CallSource};
use super::{FunctionId, ThreadId};

/// Of the time in a loop so much has to be in intervals of known turns.
const LEAST_SEEN: f64 = 0.5;

/// Of the time of a caller-callee edge so much has to be in such calls.
const LEAST_TIME: f64 = 0.8;

/// So much of it is all of it: a function and its caller are timed by different samples.
const NEARLY_ALL: f64 = 0.95;

/// Intervals at whose ends two executions were taken for one and shown to be two, by looks. More of them mean that
/// executions are too short: two that end in one interval may look like one, which happens to half the square of it.
const MOST_MISTAKEN: f64 = 0.2;

/// Standard deviation of the part of an execution that is not seen, in intervals: two uniform parts of intervals that vary.
const UNSEEN_DEVIATION: f64 = 0.6;

/// How far turns that are not seen may differ from the others in speed.
const UNSEEN_SPREAD: f64 = 0.2;

/// Bursts that say so much more or less are believed instead.
const TOLERANCE: f64 = 1.25;

/// What makes a call exactly once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Every {
    /// Every turn of a loop.
    Turn,
    /// Every invocation of the caller, if it returns.
    Invocation,
}

/// One edge of one thread in one loop, or in no loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoopEdge {
    /// The thread.
    pub thread: ThreadId,
    /// The function with the loop.
    pub caller: FunctionId,
    /// What it calls in every turn.
    pub callee: FunctionId,
    /// What makes those calls; without a loop all that follows `steady` but the time in calls is 0.
    pub every: Every,
    /// How many calls there are of it in one turn or invocation.
    pub sites: u64,
    /// Whether no turn or invocation can have called something else.
    pub steady: bool,
    /// Turns that were counted.
    pub turns: u64,
    /// Time in which they were, microseconds.
    pub seen_us: u64,
    /// All time in the loop, microseconds.
    pub whole_us: u64,
    /// Samples that looked at it.
    pub looks: u64,
    /// Executions of the loop that were seen.
    pub executions: u64,
    /// Of them, those that were shown to be others by their iterator alone.
    pub mistaken: u64,
    /// Time in calls of the callee, microseconds.
    pub time_us: u64,
}

/// Calls along one edge from the loops that it was seen in, `edge_us` being all of its time; `None` when they do not tell.
/// Bursts are asked whether they object.
pub fn estimate(
    loops: &[LoopEdge],
    edge_us: f64,
    bursts: Option<CallEstimate>,
) -> Option<CallEstimate> {
    let (mut calls, mut variance, mut time_us) = (0.0, 0.0, 0.0);
    let mut steady = true;
    for edge in loops.iter().filter(|edge| edge.every == Every::Turn) {
        let (turns, sites) = (edge.turns as f64, edge.sites as f64);
        let (seen_us, whole_us) = (edge.seen_us as f64, edge.whole_us as f64);
        let (looks, executions) = (edge.looks.max(1) as f64, edge.executions as f64);
        let is_known = seen_us >= LEAST_SEEN * whole_us
            && edge.mistaken as f64 <= MOST_MISTAKEN * looks
            && turns > 0.0;
        if !is_known {
            // Its time is not accounted for.
            continue;
        }
        let (rate, interval_us) = (turns / seen_us, whole_us / looks);
        let unseen_us = (whole_us - seen_us).max(0.0);
        let ends = UNSEEN_DEVIATION * interval_us * executions.sqrt();
        let rest = UNSEEN_SPREAD * (unseen_us - executions * interval_us).max(0.0);
        // An execution begins with a turn, however short the time before the first look.
        calls += sites * (turns + (rate * unseen_us).max(executions));
        let mistaken = (edge.mistaken as f64 / looks).powi(2) / 2.0 * sites * turns;
        // Whether the last turn that was seen was the last one.
        let last = (rate * interval_us).min(1.0) / 4.0 * executions;
        variance += (sites * rate).powi(2) * (ends.powi(2) + rest.powi(2))
            + sites.powi(2) * last
            + mistaken.powi(2);
        time_us += edge.time_us as f64;
        steady &= edge.steady;
    }
    settled(calls, variance.sqrt(), time_us / edge_us, steady, bursts)
}

/// The same from the number of invocations of the caller.
pub fn estimate_below(
    loops: &[LoopEdge],
    edge_us: f64,
    bursts: Option<CallEstimate>,
    caller: CallEstimate,
) -> Option<CallEstimate> {
    let (mut sites, mut time_us, mut steady) = (0.0f64, 0.0, true);
    for edge in loops.iter().filter(|edge| edge.every == Every::Invocation) {
        sites = sites.max(edge.sites as f64);
        time_us += edge.time_us as f64;
        steady &= edge.steady;
    }
    let error = caller.error? * sites;
    settled(
        caller.calls * sites,
        error,
        time_us / edge_us,
        steady,
        bursts,
    )
}

/// `calls` of an edge of whose time they take `share`, unless bursts object.
fn settled(
    calls: f64,
    error: f64,
    share: f64,
    steady: bool,
    bursts: Option<CallEstimate>,
) -> Option<CallEstimate> {
    if calls < 1.0 || !calls.is_finite() || share.is_nan() || share < LEAST_TIME {
        return None;
    }
    // Other calls of the same function are taken to be as long; a small part is no more than how times are measured.
    let other = (1.0 / share - 1.0).max(0.0);
    let more = if share < NEARLY_ALL { other } else { 0.0 };
    let found = CallEstimate {
        calls: calls * (1.0 + more),
        error: Some(error.hypot(calls * if more > 0.0 { more } else { other / 4.0 })),
        source: CallSource::Iterator,
    };
    let objects = |bursts: CallEstimate| {
        let far = 4.0 * bursts.error.unwrap_or(f64::INFINITY);
        let fewer = bursts.calls * TOLERANCE < found.calls && bursts.calls + far < found.calls;
        let more = bursts.calls > found.calls * TOLERANCE && bursts.calls - far > found.calls;
        // Bursts can miss calls; but where something else may have been called, they know better.
        more || (fewer && !steady)
    };
    let told = steady || bursts.is_some();
    (told && !bursts.is_some_and(objects)).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(turns: u64, seen_us: u64, whole_us: u64) -> LoopEdge {
        LoopEdge {
            thread: ThreadId(0),
            caller: FunctionId(0),
            callee: FunctionId(1),
            every: Every::Turn,
            sites: 1,
            steady: true,
            turns,
            seen_us,
            whole_us,
            looks: whole_us / 1000,
            executions: 10,
            mistaken: 0,
            time_us: whole_us,
        }
    }

    fn bursts(calls: f64, error: f64) -> Option<CallEstimate> {
        Some(CallEstimate {
            calls,
            error: Some(error),
            source: CallSource::Bursts,
        })
    }

    #[test]
    fn what_was_not_seen_is_as_fast_as_the_rest() {
        let found = estimate(&[edge(9900, 990_000, 1_000_000)], 1e6, None).expect("calls");
        assert_eq!(
            (found.calls.round(), found.source),
            (10_000.0, CallSource::Iterator)
        );
        assert!(found.error.expect("error") < 30.0);
        // Long turns: all but the first of each execution.
        let found = estimate(&[edge(90, 990_000, 1_000_000)], 1e6, None).expect("calls");
        assert_eq!(found.calls, 100.0);
        let twice = LoopEdge {
            sites: 2,
            ..edge(9900, 990_000, 1_000_000)
        };
        let found = estimate(&[twice], 1e6, None).expect("calls");
        assert_eq!(found.calls.round(), 20_000.0);
    }

    #[test]
    fn what_does_not_tell_is_left_to_others() {
        let good = edge(9900, 990_000, 1_000_000);
        let none = |edge: LoopEdge, edge_us: f64, bursts| {
            assert_eq!(estimate(&[edge], edge_us, bursts), None, "{edge:?}");
        };
        // Mostly called elsewhere; hardly seen; executions that were mixed up.
        none(good, 2e6, None);
        none(edge(100, 400_000, 1_000_000), 1e6, None);
        let mistaken = 300;
        none(LoopEdge { mistaken, ..good }, 1e6, None);
        // Bursts that saw more, or that saw less of what may call something else.
        none(good, 1e6, bursts(20_000.0, 500.0));
        assert!(estimate(&[good], 1e6, bursts(1000.0, 50.0)).is_some());
        let steady = false;
        none(LoopEdge { steady, ..good }, 1e6, bursts(1000.0, 50.0));
        none(LoopEdge { steady, ..good }, 1e6, None);
        let agreed = bursts(9500.0, 500.0);
        assert!(estimate(&[LoopEdge { steady, ..good }], 1e6, agreed).is_some());
    }

    #[test]
    fn calls_of_every_invocation_follow_it() {
        let caller = estimate(&[edge(9900, 990_000, 1_000_000)], 1e6, None).expect("calls");
        let below = LoopEdge {
            every: Every::Invocation,
            sites: 3,
            time_us: 900_000,
            ..edge(0, 0, 0)
        };
        let found = estimate_below(&[below], 900_000.0, None, caller).expect("calls");
        assert_eq!(found.calls.round(), 30_000.0);
        assert_eq!(estimate_below(&[below], 2e6, None, caller), None);
    }

    #[test]
    fn numbers_of_a_damaged_file_do_no_harm() {
        for most in [0, 1, u64::MAX] {
            let edge = LoopEdge {
                sites: most,
                looks: 0,
                executions: most,
                mistaken: most,
                ..edge(most, most, most)
            };
            for edge_us in [0.0, 1.0, f64::MAX] {
                if let Some(found) = estimate(&[edge], edge_us, None) {
                    assert!(found.calls.is_finite());
                }
            }
        }
    }
}
