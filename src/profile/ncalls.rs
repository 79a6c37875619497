//! Which number of calls each edge of a call tree and each row gets: from loops, from samples or from bursts.

use rustc_hash::FxHashMap;

use super::calls::{CallEstimate, CallSource, choose, estimate};
use super::loops::{self, LoopEdge};
use super::{CallTree, FunctionId, Profile};

/// Most functions on the way from a loop to a call that are looked at for its number.
const MOST_ROUNDS: usize = 64;

/// What makes an edge of a tree: group, caller, callee.
type Edge = (u32, FunctionId, FunctionId);

/// What makes a row: group, function.
type Row = (u32, FunctionId);

/// Numbers of calls by row.
type Rows = FxHashMap<Row, CallEstimate>;

/// What is known of an edge.
struct Known {
    nodes: Vec<u32>,
    sampled: u64,
    time_us: u64,
    bursts: Option<CallEstimate>,
    loops: Vec<LoopEdge>,
}

impl Known {
    /// The number of calls that is best; `caller` is the number of those of the caller, where it is settled.
    fn settle(&self, caller: Option<CallEstimate>, period_us: f64) -> CallEstimate {
        let time_us = self.time_us as f64;
        let counted = caller.filter(|caller| caller.source == CallSource::Iterator);
        loops::estimate(&self.loops, time_us, self.bursts)
            .or_else(|| loops::estimate_below(&self.loops, time_us, self.bursts, counted?))
            .unwrap_or_else(|| choose(self.sampled, self.bursts, time_us, period_us))
    }

    /// Whether the caller's number of calls is of use.
    fn asks_caller(&self) -> bool {
        let mut loops = self.loops.iter();
        loops.any(|edge| edge.every == loops::Every::Invocation)
    }
}

/// Replaces the calls of a tree's nodes, counted in samples, by the best estimate; gives it by group and function.
/// `groups` has each thread's group.
pub(super) fn apply(
    profile: &Profile,
    threads: &[bool],
    groups: &[u32],
    tree: &mut CallTree,
) -> Rows {
    let period_us = period_us(profile);
    let mut rows = Rows::default();
    let mut edges = known_edges(profile, threads, groups, tree);
    for node in &tree.nodes {
        if node.parent.is_none() {
            let function = profile.tables.get_frame(node.frame).function;
            let time_us = node.total_wall_us as f64;
            let found = choose(node.calls, None, time_us, period_us);
            add(&mut rows, (node.group, function), found);
        }
    }
    // Callers before their callees, as far as there is such an order; each round settles one more of them at least.
    for round in 0.. {
        if edges.is_empty() {
            break;
        }
        let mut open: FxHashMap<Row, u32> = FxHashMap::default();
        for (group, _, callee) in edges.keys() {
            *open.entry((*group, *callee)).or_default() += 1;
        }
        let waits = |edge: &Edge, known: &Known| {
            known.asks_caller() && open.contains_key(&(edge.0, edge.1))
        };
        let mut ready: Vec<Edge> = edges
            .iter()
            .filter(|(edge, known)| !waits(edge, known))
            .map(|(edge, _)| *edge)
            .collect();
        let is_cycle = ready.is_empty() || round == MOST_ROUNDS;
        if is_cycle {
            ready = edges.keys().copied().collect();
        }
        let mut settled = Vec::with_capacity(ready.len());
        for edge in ready {
            let Some(known) = edges.remove(&edge) else {
                continue;
            };
            let caller = rows.get(&(edge.0, edge.1)).copied();
            let chosen = known.settle(caller.filter(|_| !is_cycle), period_us);
            spread(
                tree,
                &known.nodes,
                known.sampled,
                known.time_us,
                chosen.calls,
            );
            settled.push(((edge.0, edge.2), chosen));
        }
        for (row, chosen) in settled {
            add(&mut rows, row, chosen);
        }
    }
    rows
}

/// What is known of each edge of the tree.
fn known_edges(
    profile: &Profile,
    threads: &[bool],
    groups: &[u32],
    tree: &CallTree,
) -> FxHashMap<Edge, Known> {
    let mut edges: FxHashMap<Edge, Known> = FxHashMap::default();
    for (at, node) in tree.nodes.iter().enumerate() {
        let Some(parent) = node.parent else {
            continue;
        };
        let caller = tree.function(&profile.tables, parent);
        let callee = tree.function(&profile.tables, at as u32);
        let known = edges
            .entry((node.group, caller, callee))
            .or_insert_with(|| Known {
                nodes: Vec::new(),
                sampled: 0,
                time_us: 0,
                bursts: None,
                loops: Vec::new(),
            });
        known.nodes.push(at as u32);
        known.sampled += node.calls;
        known.time_us += node.total_wall_us;
    }
    let group = |thread: usize| {
        let counts = threads.get(thread) == Some(&true);
        counts.then(|| groups.get(thread).copied().unwrap_or(0))
    };
    for bursts in &profile.bursts {
        for edge in &bursts.edges {
            let known = group(edge.thread.index())
                .and_then(|group| edges.get_mut(&(group, edge.caller, edge.callee)));
            let Some(known) = known else {
                continue;
            };
            let kind = profile.tables.get_function(edge.callee).kind;
            let found = estimate(&bursts.totals, &edge.counts, bursts.duration_us, kind);
            known.bursts = match (known.bursts, found) {
                (Some(sum), Some(found)) => Some(added(sum, found)),
                (one, other) => one.or(other),
            };
        }
    }
    for edge in &profile.loops {
        let known = group(edge.thread.index())
            .and_then(|group| edges.get_mut(&(group, edge.caller, edge.callee)));
        if let Some(known) = known {
            known.loops.push(*edge);
        }
    }
    edges
}

fn add(rows: &mut Rows, row: Row, found: CallEstimate) {
    rows.entry(row)
        .and_modify(|sum| *sum = added(*sum, found))
        .or_insert(found);
}

/// Makes the calls of `nodes` add up to `calls`, in the proportion of the calls sampled or of the time.
fn spread(tree: &mut CallTree, nodes: &[u32], sampled: u64, time_us: u64, calls: f64) {
    if calls as u64 == sampled {
        return;
    }
    let by_calls = sampled > 0;
    let whole = if by_calls { sampled } else { time_us }.max(1) as f64;
    let (mut passed, mut given) = (0.0, 0u64);
    for &at in nodes {
        let node = &mut tree.nodes[at as usize];
        let part = if by_calls {
            node.calls
        } else {
            node.total_wall_us
        };
        passed += part as f64;
        let up_to = (calls * (passed / whole)).round() as u64;
        node.calls = up_to.saturating_sub(given);
        given = given.max(up_to);
    }
}

/// The sum of two numbers of calls; it comes from where most of them come from.
fn added(a: CallEstimate, b: CallEstimate) -> CallEstimate {
    let source = if a.calls >= b.calls { a } else { b }.source;
    let error = match (a.error, b.error) {
        (Some(a), Some(b)) => Some(a.hypot(b)),
        (one, other) if source != CallSource::LowerBound => one.or(other),
        _ => None,
    };
    CallEstimate {
        calls: a.calls + b.calls,
        error,
        source,
    }
}

fn period_us(profile: &Profile) -> f64 {
    let meta = &profile.meta;
    if meta.rate_hz > 0.0 {
        1e6 / meta.rate_hz
    } else {
        meta.duration_us as f64 / meta.samples.max(1) as f64
    }
}
