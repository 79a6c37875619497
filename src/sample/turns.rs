//! Turns of `for` loops between samples: how often every call was made that each turn of a loop makes exactly once.
//!
//! Between two samples that show one execution of a loop in one invocation of its function, the difference of the
//! positions of the iterator is the number of turns, whatever the rate. The time of such intervals beside all time in the
//! loop says how much of it was not seen: the turns before the first look at an execution and after the last one.

use rustc_hash::FxHashMap;

use super::{FrameSample, LoopSeen, ThreadStack};
use crate::profile::loops::{Every, LoopEdge};
use crate::profile::{FunctionId, Profile, Tables, ThreadId};

/// Most loops that are counted.
const MOST_LOOPS: usize = 100_000;

/// Most functions that are called in one loop, and most calls of one of them.
const MOST_CALLEES: usize = 32;
const MOST_SITES: usize = 32;

/// What the sample of a thread before this one showed of its loops.
#[derive(Debug, Default)]
pub struct Seen {
    loops: Vec<LoopSeen>,
    /// The time from the look before that one.
    passed_us: u64,
    /// When that was, and whether samples without a look have followed; `None` before the first look.
    at_us: Option<u64>,
    skipped: bool,
    /// The depth from which on there were other invocations since then.
    fresh_from: Option<usize>,
}

/// A loop: thread, function, code object, head; without a head what is in no loop.
type Key = (ThreadId, FunctionId, u32, Option<u32>);

#[derive(Debug, Default)]
struct Counted {
    turns: u64,
    seen_us: u64,
    whole_us: u64,
    looks: u64,
    executions: u64,
    mistaken: u64,
    callees: Vec<Callee>,
}

#[derive(Debug)]
struct Callee {
    function: FunctionId,
    sites: Vec<u32>,
    steady: bool,
    time_us: u64,
}

/// The loops of a process.
#[derive(Debug, Default)]
pub struct Turning {
    counted: FxHashMap<Key, Counted>,
}

impl Turning {
    /// Adds a sample of a thread, whose frames are `frames` and of which `fresh_from` is as in [`super::calls::fresh_from`], which is
    /// what is given back, with what the turns of loops say.
    pub fn add(
        &mut self,
        tables: &Tables,
        seen: &mut Seen,
        thread: (ThreadId, &ThreadStack),
        frames: &[FrameSample],
        fresh_from: Option<usize>,
        until_us: u64,
    ) -> Option<usize> {
        let (id, stack) = thread;
        let sooner = |a: Option<usize>, b: Option<usize>| match (a, b) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (one, other) => one.or(other),
        };
        seen.fresh_from = sooner(seen.fresh_from, fresh_from);
        if !stack.looked {
            seen.skipped = true;
            return fresh_from;
        }
        let passed_us = seen.at_us.map_or(0, |at_us| until_us.saturating_sub(at_us));
        let mut found = fresh_from;
        for now in &stack.loops {
            let depth = now.depth as usize;
            let Some(frame) = frames.get(depth) else {
                continue;
            };
            let key = (
                id,
                tables.get_frame(frame.frame).function,
                frame.code,
                now.head,
            );
            if self.counted.len() >= MOST_LOOPS && !self.counted.contains_key(&key) {
                continue;
            }
            let counted = self.counted.entry(key).or_default();
            if let Some((site, callee)) = now.site.zip(frames.get(depth + 1)) {
                let function = tables.get_frame(callee.frame).function;
                counted.called(function, site.unit, site.steady, passed_us);
            }
            if now.head.is_none() {
                continue;
            }
            counted.looks += 1;
            let same = seen.fresh_from.is_none_or(|fresh| depth < fresh);
            let before = seen
                .loops
                .iter()
                .find(|before| same && (before.depth, before.head) == (now.depth, now.head));
            // Before the first look at an execution no more than an interval as usual is taken for its time.
            counted.whole_us += match before {
                Some(_) => passed_us,
                None => passed_us.min(seen.passed_us),
            };
            match (before, before.and_then(|before| before.turns), now.turns) {
                (None, ..) => counted.executions += 1,
                (_, Some(before), Some(now)) if before.0 == now.0 && before.1 <= now.1 => {
                    counted.turns = counted.turns.saturating_add(now.1 - before.1);
                    counted.seen_us += passed_us;
                    if now.1 > before.1 && !seen.skipped && depth + 1 < frames.len() {
                        found = sooner(found, Some(depth + 1));
                    }
                }
                (_, Some(_), Some(_)) => {
                    counted.executions += 1;
                    counted.mistaken += 1;
                }
                _ => {}
            }
        }
        seen.loops.clone_from(&stack.loops);
        (seen.at_us, seen.skipped, seen.fresh_from) = (Some(until_us), false, None);
        seen.passed_us = passed_us;
        found
    }

    /// Adds what was counted to the profile, in the order of threads and functions.
    pub fn add_to(&self, profile: &mut Profile) {
        let mut edges = Vec::new();
        for ((thread, caller, _, head), counted) in &self.counted {
            for callee in &counted.callees {
                let shared = |other: &Callee| {
                    other.function != callee.function
                        && other.sites.iter().any(|site| callee.sites.contains(site))
                };
                // A call that calls one function or another does not say how often each.
                let is_known = head.is_none() || counted.seen_us > 0;
                if !is_known || counted.callees.iter().any(shared) {
                    continue;
                }
                edges.push(LoopEdge {
                    thread: *thread,
                    caller: *caller,
                    callee: callee.function,
                    every: match head {
                        Some(_) => Every::Turn,
                        None => Every::Invocation,
                    },
                    sites: callee.sites.len() as u64,
                    steady: callee.steady,
                    turns: counted.turns,
                    seen_us: counted.seen_us,
                    whole_us: counted.whole_us,
                    looks: counted.looks,
                    executions: counted.executions,
                    mistaken: counted.mistaken,
                    time_us: callee.time_us,
                });
            }
        }
        edges.sort_unstable_by_key(|edge| {
            (
                edge.thread,
                edge.caller,
                edge.callee,
                edge.turns,
                edge.time_us,
            )
        });
        profile.loops.extend(edges);
    }
}

impl Counted {
    fn called(&mut self, function: FunctionId, site: u32, steady: bool, time_us: u64) {
        let known = self
            .callees
            .iter()
            .position(|callee| callee.function == function);
        if known.is_none() && self.callees.len() < MOST_CALLEES {
            self.callees.push(Callee {
                function,
                sites: Vec::new(),
                steady: true,
                time_us: 0,
            });
        }
        let callee = match known {
            Some(known) => self.callees.get_mut(known),
            None => self
                .callees
                .last_mut()
                .filter(|last| last.function == function),
        };
        let Some(callee) = callee else {
            return;
        };
        if !callee.sites.contains(&site) {
            if callee.sites.len() == MOST_SITES {
                return;
            }
            callee.sites.push(site);
        }
        callee.steady &= steady;
        callee.time_us = callee.time_us.saturating_add(time_us);
    }
}
