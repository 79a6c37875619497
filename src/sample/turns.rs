//! Turns of `for` loops between samples: how often every call was made that each turn of a loop makes exactly once.
//!
//! Between two samples that show one execution of a loop in one invocation of its function, the difference of the
//! positions of the iterator is the number of turns, whatever the rate. The time of such intervals beside all time in the
//! loop says how much of it was not seen: the turns before the first look at an execution and after the last one.

use rustc_hash::FxHashMap;

use super::{FrameSample, LoopSeen, LoopSite, ThreadStack};
use crate::profile::loops::{Every, LoopEdge};
use crate::profile::{FunctionId, Profile, Tables, ThreadId};

/// Most loops that are counted.
const MOST_LOOPS: usize = 100_000;

/// Of the time in a loop so much has to be in executions that showed what they call, when not all call the same.
const LEAST_TOLD: f64 = 0.9;

/// Most functions that are called in one loop, and most calls of one of them.
const MOST_CALLEES: usize = 32;
const MOST_SITES: usize = 32;

/// What the sample of a thread before this one showed of its loops.
#[derive(Debug, Default)]
pub struct Seen {
    running: Vec<Running>,
    /// About the usual time from one look to the next.
    usual_us: u64,
    /// When that was, and whether samples without a look have followed; `None` before the first look.
    at_us: Option<u64>,
    skipped: bool,
    /// The depth from which on there were other invocations since then.
    fresh_from: Option<usize>,
}

/// An execution of a loop, or of a call in no loop.
#[derive(Debug)]
struct Running {
    key: Key,
    last: LoopSeen,
    sums: Sums,
    /// What its calls called.
    called: Vec<(LoopSite, FunctionId)>,
}

/// A loop: thread, function, code object, head; without a head what is in no loop.
type Key = (ThreadId, FunctionId, u32, Option<u32>);

/// Turns that were counted; see [`LoopEdge`].
#[derive(Debug, Default, Clone, Copy)]
struct Sums {
    turns: u64,
    seen_us: u64,
    whole_us: u64,
    looks: u64,
    executions: u64,
    mistaken: u64,
}

#[derive(Debug, Default)]
struct Counted {
    sums: Sums,
    callees: Vec<Callee>,
}

#[derive(Debug)]
struct Callee {
    function: FunctionId,
    sites: Vec<u32>,
    steady: bool,
    time_us: u64,
    /// Executions in which it was seen to be called.
    sums: Sums,
    /// Whether one of its calls called something else in the same execution.
    mixed: bool,
}

/// The loops of a process.
#[derive(Debug, Default)]
pub struct Turning {
    counted: FxHashMap<Key, Counted>,
}

impl Sums {
    fn add(&mut self, other: Sums) {
        self.turns = self.turns.saturating_add(other.turns);
        self.seen_us = self.seen_us.saturating_add(other.seen_us);
        self.whole_us = self.whole_us.saturating_add(other.whole_us);
        self.looks = self.looks.saturating_add(other.looks);
        self.executions = self.executions.saturating_add(other.executions);
        self.mistaken = self.mistaken.saturating_add(other.mistaken);
    }
}

impl Turning {
    /// Adds a sample of a thread, whose frames are `frames` and of which `fresh_from` is as in
    /// [`super::calls::fresh_from`], which is what is given back, with what the turns of loops say.
    pub fn add(
        &mut self,
        tables: &Tables,
        seen: &mut Seen,
        thread: (ThreadId, &ThreadStack),
        frames: &[FrameSample],
        fresh_from: Option<usize>,
    ) -> Option<usize> {
        let (id, stack) = thread;
        let sooner = |a: Option<usize>, b: Option<usize>| match (a, b) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (one, other) => one.or(other),
        };
        seen.fresh_from = sooner(seen.fresh_from, fresh_from);
        let Some(now_us) = stack.looked_us else {
            seen.skipped = true;
            return fresh_from;
        };
        let passed_us = seen.at_us.map_or(0, |at_us| now_us.saturating_sub(at_us));
        seen.usual_us = (7 * seen.usual_us + passed_us).div_ceil(8);
        let mut found = fresh_from;
        let mut before = std::mem::take(&mut seen.running);
        for now in &stack.loops {
            let depth = now.depth as usize;
            let Some(frame) = frames.get(depth) else {
                continue;
            };
            let function = tables.get_frame(frame.frame).function;
            let key = (id, function, frame.code, now.head);
            if self.counted.len() >= MOST_LOOPS && !self.counted.contains_key(&key) {
                continue;
            }
            let called = now.site.zip(frames.get(depth + 1));
            let called = called.map(|(site, at)| (site, tables.get_frame(at.frame).function));
            if let Some((site, callee)) = called {
                let counted = self.counted.entry(key).or_default();
                counted.called(callee, site, passed_us);
            }
            if now.head.is_none() {
                continue;
            }
            let same = seen.fresh_from.is_none_or(|fresh| depth < fresh);
            let is_it = |old: &Running| {
                same && (old.last.depth, old.last.head) == (now.depth, now.head) && old.key == key
            };
            let old = before
                .iter()
                .position(is_it)
                .map(|at| before.swap_remove(at));
            let mut running = self.go_on(old, key, now, (passed_us, seen.usual_us));
            let turns = running.last.turns.zip(now.turns);
            let has_turned = turns.is_some_and(|(last, now)| last != now);
            if has_turned && !seen.skipped && depth + 1 < frames.len() {
                found = sooner(found, Some(depth + 1));
            }
            running.last = *now;
            if let Some(called) = called
                && !running.called.contains(&called)
                && running.called.len() < MOST_CALLEES
            {
                running.called.push(called);
            }
            seen.running.push(running);
        }
        before.iter().for_each(|running| self.end(running));
        (seen.at_us, seen.skipped, seen.fresh_from) = (Some(now_us), false, None);
        found
    }

    /// The execution that `now` is of, with the turns since `old`. The time since the look before comes with the usual one.
    fn go_on(
        &mut self,
        old: Option<Running>,
        key: Key,
        now: &LoopSeen,
        (passed_us, usual_us): (u64, u64),
    ) -> Running {
        let of = |turns: (u64, u64)| turns.0;
        let mut mistaken = 0;
        if let Some(mut old) = old {
            let turned = match (old.last.turns, now.turns) {
                (Some((of, before)), Some((is, after))) if of == is => after.checked_sub(before),
                (Some(_), Some(_)) => None,
                // Not known in between: its time counts, not its turns.
                _ => Some(0),
            };
            if let Some(turns) = turned {
                let is_known = old.last.turns.is_some() && now.turns.is_some();
                old.sums.add(Sums {
                    turns,
                    seen_us: if is_known { passed_us } else { 0 },
                    whole_us: passed_us,
                    looks: 1,
                    ..Sums::default()
                });
                return old;
            }
            // The turns of the loops around it tell one execution from the next.
            mistaken = u64::from(!now.nested || old.last.turns.map(of) == now.turns.map(of));
            self.end(&old);
        }
        Running {
            key,
            last: *now,
            sums: Sums {
                // The interval in which it began stands for what is not seen of it, before the first look and after the last
                // one: half of it and half of another one are. One that is much longer than usual does not.
                whole_us: passed_us.min(3 * usual_us),
                looks: 1,
                executions: 1,
                mistaken,
                ..Sums::default()
            },
            called: Vec::new(),
        }
    }

    /// Counts an execution that has ended, or is looked at no more.
    fn end(&mut self, running: &Running) {
        let counted = self.counted.entry(running.key).or_default();
        counted.sums.add(running.sums);
        for callee in &mut counted.callees {
            let mut calls = running.called.iter();
            if calls.any(|(_, function)| *function == callee.function) {
                callee.sums.add(running.sums);
                let mut others = running.called.iter();
                callee.mixed |= others.any(|(site, function)| {
                    *function != callee.function && callee.sites.contains(&site.unit)
                });
            }
        }
    }

    /// Counts the executions that a thread is in.
    pub fn finish(&mut self, seen: &mut Seen) {
        let running = std::mem::take(&mut seen.running);
        running.iter().for_each(|running| self.end(running));
    }

    /// Adds what was counted to the profile, in the order of threads and functions.
    pub fn add_to(&self, profile: &mut Profile) {
        let mut edges = Vec::new();
        for ((thread, caller, _, head), counted) in &self.counted {
            for callee in &counted.callees {
                let Some(sums) = counted.sums_of(callee) else {
                    continue;
                };
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
                    turns: sums.turns,
                    seen_us: sums.seen_us,
                    whole_us: sums.whole_us,
                    looks: sums.looks,
                    executions: sums.executions,
                    mistaken: sums.mistaken,
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
    fn called(&mut self, function: FunctionId, site: LoopSite, time_us: u64) {
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
                sums: Sums::default(),
                mixed: false,
            });
        }
        let at = known.unwrap_or(self.callees.len().saturating_sub(1));
        let callee = self.callees.get_mut(at);
        let Some(callee) = callee.filter(|callee| callee.function == function) else {
            return;
        };
        if !callee.sites.contains(&site.unit) {
            if callee.sites.len() == MOST_SITES {
                return;
            }
            callee.sites.push(site.unit);
        }
        callee.steady &= site.steady;
        callee.time_us = callee.time_us.saturating_add(time_us);
    }

    /// The turns that called `callee`: all of them when its calls have called nothing else; when others do so in other
    /// executions, those of its own. `None` when that cannot be told.
    fn sums_of(&self, callee: &Callee) -> Option<Sums> {
        let shares = |other: &&Callee| {
            let mut sites = other.sites.iter();
            sites.any(|site| callee.sites.contains(site))
        };
        let sharing = self.callees.iter().filter(shares);
        if sharing.clone().count() <= 1 {
            return Some(self.sums);
        }
        let told_us = sharing.map(|other| other.sums.whole_us as f64).sum::<f64>();
        let is_told = told_us > 0.0 && told_us >= LEAST_TOLD * self.sums.whole_us as f64;
        (callee.steady && !callee.mixed && is_told).then_some(callee.sums)
    }
}
