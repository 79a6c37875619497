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

/// Intervals at whose ends two executions were taken for one and shown to be two, by looks. More of them mean that
/// executions are too short: two that end in one interval may look like one, which happens to half the square of it.
const MOST_MISTAKEN: f64 = 0.2;

/// Standard deviation of the part of an execution that is not seen, in intervals: that of the sum of two uniform parts.
const UNSEEN_DEVIATION: f64 = 0.41;

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
        let (looks, executions) = (edge.looks as f64, edge.executions as f64);
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
        calls += sites * turns * (whole_us / seen_us).max(1.0);
        let mistaken = (edge.mistaken as f64 / looks).powi(2) / 2.0 * sites * turns;
        variance += (sites * rate).powi(2) * (ends.powi(2) + rest.powi(2))
            + sites * executions
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
    settled(caller.calls * sites, error, time_us / edge_us, steady, bursts)
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
    // Other calls of the same function are taken to be as long.
    let more = (1.0 / share).max(1.0);
    let found = CallEstimate {
        calls: calls * more,
        error: Some(error.hypot(calls * (more - 1.0))),
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
