//! Which number of calls each row and each node of a call tree gets: what was counted while the program was recorded
//! where there is that, and what samples can tell apart as a lower bound.

use rustc_hash::FxHashMap;

use super::counts::{CallEstimate, CallSource, Counted};
use super::{CallTree, Filter, FunctionId, Profile, Split, ThreadId};

/// Most calls of a row; more come from damaged files only.
const MOST_CALLS: f64 = (1u64 << 48) as f64;

/// Standard errors below an estimate at which it stands for a lower bound.
const SURE: f64 = 3.0;

/// What makes a row: group, function.
type Row = (u32, FunctionId);

/// Replaces the calls of a tree's nodes, those that samples tell apart, by what is known best; gives it by group and
/// function. `groups` has each thread's group.
pub(super) fn apply(
    profile: &Profile,
    filter: &Filter,
    groups: &[u32],
    tree: &mut CallTree,
) -> FxHashMap<Row, CallEstimate> {
    let mut rows: FxHashMap<Row, Vec<u32>> = FxHashMap::default();
    for (at, node) in tree.nodes.iter().enumerate() {
        let function = tree.function(&profile.tables, at as u32);
        let nodes = rows.entry((node.group, function)).or_default();
        nodes.push(at as u32);
    }
    let mut counted = counted(profile, filter, groups, tree);
    let mut estimates = FxHashMap::default();
    for (row, nodes) in rows {
        let calls = nodes.iter().map(|at| tree.nodes[*at as usize].calls);
        let seen = calls.fold(0u64, u64::saturating_add);
        let parts = counted.remove(&row).unwrap_or_default();
        let found = if parts.counted.is_empty() {
            bound(seen as f64)
        } else {
            parts.sum()
        };
        // A function that has been seen was called.
        let rounded = found.calls.round() as u64;
        let number = rounded.max(seen).max(1);
        spread(profile, tree, &nodes, number, seen, &parts.shares());
        let calls = if rounded < number {
            number as f64
        } else {
            found.calls
        };
        estimates.insert(row, CallEstimate { calls, ..found });
    }
    estimates
}

fn bound(calls: f64) -> CallEstimate {
    CallEstimate {
        calls,
        error: None,
        source: CallSource::LowerBound,
    }
}

/// Callers with their shares of the calls.
type Shares = FxHashMap<FunctionId, f64>;

/// What is known of a row of which something was counted.
#[derive(Default)]
struct Parts<'a> {
    counted: Vec<&'a Counted>,
    /// Calls that samples tell apart by thread that was seen in the function.
    seen: FxHashMap<ThreadId, u64>,
}

/// What was counted by row, as far as its threads count, with what samples saw in each thread.
fn counted<'a>(
    profile: &'a Profile,
    filter: &Filter,
    groups: &[u32],
    tree: &CallTree,
) -> FxHashMap<Row, Parts<'a>> {
    let threads = filter.threads(profile);
    let mut rows: FxHashMap<Row, Parts<'a>> = FxHashMap::default();
    let wanted = |counted: &&Counted| threads.get(counted.thread.index()) == Some(&true);
    for counted in profile.counts.iter().filter(wanted) {
        if let Some(&group) = groups.get(counted.thread.index()) {
            let parts = rows.entry((group, counted.function)).or_default();
            parts.counted.push(counted);
        }
    }
    if rows.is_empty() {
        return rows;
    }
    let apart;
    let by_thread = if filter.split == Split::Threads {
        tree
    } else {
        (apart, _) = CallTree::seen(profile, filter, Split::Threads);
        &apart
    };
    for (at, node) in by_thread.nodes.iter().enumerate() {
        let function = by_thread.function(&profile.tables, at as u32);
        let group = groups.get(node.group as usize);
        if let Some(parts) = group.and_then(|group| rows.get_mut(&(*group, function))) {
            let seen = parts.seen.entry(ThreadId(node.group)).or_default();
            *seen = seen.saturating_add(node.calls);
        }
    }
    rows
}

impl Parts<'_> {
    /// The calls in all threads together. If one of them is known by a lower bound only, so is the sum; then those that
    /// are estimated count with what they are sure to be.
    fn sum(&self) -> CallEstimate {
        let mut seen = self.seen.clone();
        let (mut calls, mut least, mut variance) = (0.0, 0.0, 0.0);
        let (mut is_bound, mut source) = (false, CallSource::Samples);
        for counted in &self.counted {
            let found = counted.estimate;
            let seen = seen.remove(&counted.thread).unwrap_or(0) as f64;
            calls += found.calls.max(seen);
            match found
                .error
                .filter(|_| found.source != CallSource::LowerBound)
            {
                Some(error) => {
                    least += (found.calls - SURE * error).max(seen);
                    variance += error * error;
                    if found.source == CallSource::Watchpoint {
                        source = CallSource::Watchpoint;
                    }
                }
                None => {
                    least += found.calls.max(seen);
                    is_bound = true;
                }
            }
        }
        for seen in seen.into_values() {
            least += seen as f64;
            is_bound = true;
        }
        if is_bound {
            return bound(least.min(MOST_CALLS));
        }
        CallEstimate {
            calls: calls.min(MOST_CALLS),
            error: Some(variance.sqrt().min(MOST_CALLS)),
            source,
        }
    }

    /// The shares of callers, in all threads together; they add up to at most 1.
    fn shares(&self) -> Shares {
        let calls = self.counted.iter().map(|counted| counted.estimate.calls);
        let whole: f64 = calls.sum();
        let mut shares = Shares::default();
        if whole <= 0.0 {
            return shares;
        }
        for counted in &self.counted {
            let part = counted.estimate.calls / whole;
            for (caller, share) in &counted.callers {
                *shares.entry(*caller).or_default() += part * share;
            }
        }
        shares
    }
}

/// Nodes of one function with the same caller, or with callers of which nothing is known.
struct Pool {
    caller: Option<FunctionId>,
    nodes: Vec<u32>,
    seen: u64,
    time_us: u64,
}

/// Makes the calls of `nodes`, which are those of one function, add up to `number`. Each keeps those that were `seen`. The
/// others make the calls of each caller its share of all, as far as shares are known; within that they are as the time.
fn spread(
    profile: &Profile,
    tree: &mut CallTree,
    nodes: &[u32],
    number: u64,
    seen: u64,
    shares: &Shares,
) {
    let rest = number.saturating_sub(seen);
    if rest == 0 {
        return;
    }
    let pools = pools(profile, tree, nodes, shares);
    let share = |pool: &Pool| {
        let found = pool.caller.and_then(|caller| shares.get(&caller));
        found.copied().unwrap_or(0.0)
    };
    let known: f64 = pools.iter().map(share).sum();
    let lacks = |pool: &Pool| {
        let share = match pool.caller {
            Some(_) => share(pool),
            None => (1.0 - known).max(0.0),
        };
        (share * number as f64 - pool.seen as f64).max(0.0)
    };
    let is_known = pools.iter().map(lacks).sum::<f64>() > 0.0;
    let mut weights: Vec<(u32, f64)> = Vec::with_capacity(nodes.len());
    for pool in &pools {
        let lacks = if is_known { lacks(pool) } else { 1.0 };
        weights.extend(pool.nodes.iter().map(|&at| {
            let time_us = tree.nodes[at as usize].total_wall_ns as f64;
            let part = match pool.time_us {
                0 => 1.0 / pool.nodes.len() as f64,
                whole => time_us / whole as f64,
            };
            (at, lacks * part)
        }));
    }
    let whole: f64 = weights.iter().map(|(_, weight)| weight).sum();
    let (mut passed, mut given) = (0.0, 0);
    let last = weights.len().saturating_sub(1);
    for (place, (at, weight)) in weights.into_iter().enumerate() {
        passed += weight;
        let up_to = match rest as f64 * (passed / whole) {
            _ if place == last => rest,
            up_to => (up_to.round() as u64).clamp(given, rest),
        };
        let node = &mut tree.nodes[at as usize];
        node.calls = node.calls.saturating_add(up_to - given);
        given = up_to;
    }
}

/// The nodes by caller, in their order.
fn pools(profile: &Profile, tree: &CallTree, nodes: &[u32], shares: &Shares) -> Vec<Pool> {
    let mut pools: Vec<Pool> = Vec::new();
    let mut places: FxHashMap<Option<FunctionId>, usize> = FxHashMap::default();
    for &at in nodes {
        let node = &tree.nodes[at as usize];
        let caller = node
            .parent
            .map(|parent| tree.function(&profile.tables, parent));
        let caller = caller.filter(|caller| shares.contains_key(caller));
        let place = *places.entry(caller).or_insert_with(|| {
            pools.push(Pool {
                caller,
                nodes: Vec::new(),
                seen: 0,
                time_us: 0,
            });
            pools.len() - 1
        });
        let pool = &mut pools[place];
        pool.nodes.push(at);
        pool.seen = pool.seen.saturating_add(node.calls);
        pool.time_us = pool.time_us.saturating_add(node.total_wall_ns);
    }
    pools
}

#[cfg(test)]
mod tests {
    use super::super::record::Sample;
    use super::super::{FunctionKind, ProcessId, Recorder, RunState, ThreadInfo};
    use super::*;

    /// Samples of so many threads: thread, stack of names from the outside in, from where on it is new, milliseconds.
    fn record(threads: u32, samples: &[(u32, &str, Option<u16>, u64)]) -> Profile {
        let mut recorder = Recorder::default();
        recorder.profile.processes.push(Default::default());
        for number in 0..threads {
            recorder.add_thread(ThreadInfo {
                process: ProcessId(0),
                os_id: u64::from(number) + 1,
                python_id: u64::from(number) + 100,
                name: None,
                started_us: 0,
            });
        }
        for (thread, names, fresh_from, ms) in samples {
            let tables = &mut recorder.profile.tables;
            let mut stack = None;
            for name in names.split(' ') {
                let function = tables.function("a.py", 1, name, FunctionKind::Python);
                let frame = tables.frame(function, 1);
                stack = Some(tables.stack(stack, frame));
            }
            recorder.add(Sample {
                thread: ThreadId(*thread),
                stack: stack.expect("not empty"),
                count: 1,
                wall_us: ms * 1000,
                cpu_us: 0,
                fresh_from: *fresh_from,
                state: RunState::ON_CPU,
            });
        }
        recorder.profile
    }

    fn function(profile: &mut Profile, name: &str) -> FunctionId {
        profile
            .tables
            .function("a.py", 1, name, FunctionKind::Python)
    }

    fn count(profile: &mut Profile, thread: u32, name: &str, calls: f64, callers: &[(&str, f64)]) {
        let callers = callers.iter();
        let callers = callers.map(|(name, share)| (function(profile, name), *share));
        let callers = callers.collect();
        let function = function(profile, name);
        profile.counts.push(Counted {
            thread: ThreadId(thread),
            function,
            estimate: CallEstimate {
                calls,
                error: Some(calls / 100.0),
                source: CallSource::Watchpoint,
            },
            callers,
        });
    }

    /// Calls of each node of a function by its path, and what is said of their sum.
    fn found(
        profile: &mut Profile,
        filter: &Filter,
        name: &str,
    ) -> (Vec<(String, u64)>, CallEstimate) {
        let function = function(profile, name);
        let tree = CallTree::of(profile, filter);
        let name = |at: u32| profile.tables.name(tree.function(&profile.tables, at));
        let nodes = (0..tree.nodes.len() as u32)
            .filter(|at| tree.function(&profile.tables, *at) == function)
            .map(|at| {
                let mut path: Vec<&str> = tree.path(at).map(name).collect();
                path.reverse();
                (path.join(" "), tree.nodes[at as usize].calls)
            });
        (nodes.collect(), tree.estimates[&(0, function)])
    }

    fn nodes(expected: &[(&str, u64)]) -> Vec<(String, u64)> {
        let owned = expected.iter();
        owned
            .map(|(path, calls)| (path.to_string(), *calls))
            .collect()
    }

    #[test]
    fn what_was_not_counted_is_a_lower_bound() {
        let mut profile = record(
            1,
            &[
                (0, "main f", Some(0), 1),
                (0, "main f", Some(1), 1),
                (0, "main g", None, 1),
            ],
        );
        let (calls, estimate) = found(&mut profile, &Filter::default(), "f");
        assert_eq!(calls, nodes(&[("main f", 2)]));
        assert_eq!(estimate, bound(2.0));
        // Nothing shows that it is new, but it was called.
        let (calls, estimate) = found(&mut profile, &Filter::default(), "g");
        assert_eq!(calls, nodes(&[("main g", 1)]));
        assert_eq!(estimate.calls.round(), 1.0);
    }

    #[test]
    fn what_was_counted_replaces_what_was_seen_unless_that_is_more() {
        let samples = [(0, "main f", Some(0), 1), (0, "main f", Some(1), 1)];
        let mut profile = record(1, &samples);
        count(&mut profile, 0, "f", 1000.4, &[]);
        let (calls, estimate) = found(&mut profile, &Filter::default(), "f");
        assert_eq!(calls, nodes(&[("main f", 1000)]));
        assert_eq!(
            (estimate.calls, estimate.source),
            (1000.4, CallSource::Watchpoint)
        );
        assert!((estimate.error.expect("error") - 10.004).abs() < 1e-9);
        profile.counts[0].estimate.calls = 0.4;
        let (calls, _) = found(&mut profile, &Filter::default(), "f");
        assert_eq!(calls, nodes(&[("main f", 2)]));
    }

    #[test]
    fn a_sum_with_a_bound_in_it_is_a_bound() {
        let samples = [
            (0, "main f", Some(0), 1),
            (1, "run f", Some(0), 1),
            (1, "run f", Some(1), 1),
        ];
        let mut profile = record(2, &samples);
        count(&mut profile, 0, "f", 1000.0, &[]);
        let all = Filter::default();
        let (_, estimate) = found(&mut profile, &all, "f");
        assert_eq!(estimate, bound(1000.0 - 30.0 + 2.0));
        // Of one thread it is none.
        let one = Filter {
            thread: Some("1".to_string()),
            ..Filter::default()
        };
        let (calls, estimate) = found(&mut profile, &one, "f");
        assert_eq!(calls, nodes(&[("main f", 1000)]));
        assert_eq!(estimate.source, CallSource::Watchpoint);
        let apart = Filter {
            split: Split::Threads,
            ..Filter::default()
        };
        let f = function(&mut profile, "f");
        let tree = CallTree::of(&profile, &apart);
        assert_eq!(tree.estimates[&(0, f)].source, CallSource::Watchpoint);
        assert_eq!(tree.estimates[&(1, f)], bound(2.0));
        // Counted in both.
        count(&mut profile, 1, "f", 500.0, &[]);
        let (calls, estimate) = found(&mut profile, &all, "f");
        assert_eq!(calls.iter().map(|(_, calls)| calls).sum::<u64>(), 1500);
        let error = estimate.error.expect("error");
        assert!((error - 10.0f64.hypot(5.0)).abs() < 1e-9);
    }

    #[test]
    fn callers_get_their_shares_and_nodes_their_part_of_the_time() {
        let samples = [
            (0, "main a f", Some(0), 9),
            (0, "main b f", Some(1), 3),
            (0, "main b c f", Some(2), 5),
            (0, "main d b f", Some(1), 1),
            (0, "f", Some(0), 7),
        ];
        let mut profile = record(1, &samples);
        let shares = [("a", 0.1), ("b", 0.8), ("unseen", 0.05)];
        count(&mut profile, 0, "f", 1000.0, &shares);
        let (calls, _) = found(&mut profile, &Filter::default(), "f");
        // 800 of b: 1 seen in each of two places, 3 ms in the first and 1 ms in the other. 100 of nobody known.
        let sum: u64 = calls.iter().map(|(_, calls)| calls).sum();
        assert_eq!(sum, 1000);
        let of = |path: &str| calls.iter().find(|node| node.0 == path).expect("node").1;
        let near = |path: &str, expected: u64| {
            assert!(of(path).abs_diff(expected) <= 1, "{path}: {calls:?}");
        };
        near("main a f", 100);
        near("main b f", 1 + 598);
        near("main d b f", 1 + 199);
        near("main b c f", 1 + 98 * 5 / 12);
        near("f", 1 + 98 * 7 / 12);
    }

    #[test]
    fn numbers_of_a_damaged_file_do_no_harm() {
        let samples = [(0, "main f", Some(0), 0), (0, "main a f", None, 0)];
        for calls in [0.0, 1e-300, f64::MAX] {
            let mut profile = record(1, &samples);
            count(&mut profile, 0, "f", calls, &[("a", 1.0), ("main", 1.0)]);
            count(&mut profile, 0, "f", calls, &[("a", 1.0)]);
            count(&mut profile, 0, "main", calls, &[("a", 0.0)]);
            for name in ["f", "main"] {
                let (nodes, estimate) = found(&mut profile, &Filter::default(), name);
                let sum: u64 = nodes.iter().map(|(_, calls)| calls).sum();
                assert_eq!(sum, estimate.calls.round() as u64);
            }
        }
    }
}
