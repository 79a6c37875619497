//! New calls between consecutive snapshots of a window, counted by caller and callee for each spacing.
//!
//! Nothing here reads a process: snapshots come decoded, and what is counted goes to [`Bursts`].

use rustc_hash::FxHashMap;

use crate::profile::calls::{BurstEdge, Bursts, COARSER, EdgeCounts, SPACINGS, SpacingTotals};
use crate::profile::{Function, FunctionId, FunctionKind, ProcessId, Profile, Tables, ThreadId};

/// Most edges that are kept; of a program that never repeats itself nothing can be counted anyway.
const MOST_EDGES: usize = 200_000;

/// Calls of an edge that were seen in windows of one spacing, up to which more of them are worth a look: an error of 10 %.
const RARE: u64 = 100;

/// A frame in a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeenFrame {
    /// What tells invocations apart, such as its address.
    pub invocation: u64,
    /// Its function.
    pub function: FunctionId,
    /// Its code object, as [`Ways`] knows it.
    pub code: u32,
    /// The instruction it is at.
    pub unit: u32,
    /// Fingerprint of its local variables; 0 for not known.
    pub locals: u64,
}

/// One snapshot of one thread. All of a window begin with the same outermost frame.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// When, in nanoseconds.
    pub at_ns: u64,
    /// Frames, outermost first.
    pub frames: Vec<SeenFrame>,
    /// Whether frames further in were there that could not be told.
    pub cut: bool,
}

/// Whether one invocation of a code object can get from one instruction to another.
pub trait Ways {
    /// From `from` to `to`.
    fn leads(&self, code: u32, from: u32, to: u32) -> bool;
}

/// Other invocations than before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fresh {
    /// The depth from which on there are.
    pub from: usize,
    /// Whether that shows only in that there was nothing at that depth before.
    pub appeared: bool,
}

/// The depth from which on `now` shows other invocations than `before`; `None` when there is no sign of any.
pub fn fresh_from(ways: &impl Ways, before: &[SeenFrame], now: &[SeenFrame]) -> Option<Fresh> {
    let shown = |from| {
        Some(Fresh {
            from,
            appeared: false,
        })
    };
    for (depth, frame) in now.iter().enumerate() {
        let Some(old) = before.get(depth) else {
            return Some(Fresh {
                from: depth,
                appeared: true,
            });
        };
        if frame.invocation != old.invocation
            || frame.function != old.function
            || frame.code != old.code
        {
            return shown(depth);
        }
        let moved = frame.unit != old.unit;
        if moved && !ways.leads(frame.code, old.unit, frame.unit) {
            return shown(depth);
        }
        let changed = frame.locals != old.locals && frame.locals != 0 && old.locals != 0;
        // Who waits for a callee neither moves nor changes its variables.
        if (moved || changed) && depth + 1 < now.len() {
            return shown(depth + 1);
        }
    }
    None
}

/// A thread as bursts know it: Python's ident, and the OS's id (0 for not known).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ThreadKey {
    /// `threading.get_ident()`.
    pub python_id: u64,
    /// OS thread id in the target's PID namespace.
    pub os_id: u64,
}

/// What bursts have counted so far.
#[derive(Debug, Default)]
pub struct Tally {
    /// Windows by spacing.
    pub totals: [SpacingTotals; SPACINGS],
    edges: FxHashMap<(ThreadKey, FunctionId, FunctionId), [EdgeCounts; SPACINGS]>,
    /// Invocations as last seen.
    known: Vec<SeenFrame>,
}

/// What a window brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct News {
    /// Pairs of snapshots between which a new call began.
    pub calls: u64,
    /// Whether one of them was along an edge that has not been seen often.
    pub of_rare: bool,
}

/// How much of the time a window stands for beside the others: those at rest are taken less often.
pub type Weight = u64;

impl Tally {
    /// Counts one window of snapshots. Two that are further apart than `longest_ns` are not compared.
    pub fn count(
        &mut self,
        ways: &impl Ways,
        thread: ThreadKey,
        spacing: usize,
        snapshots: &[Snapshot],
        longest_ns: u64,
        weight: Weight,
    ) -> News {
        let mut news = News::default();
        let step = |at: usize| {
            let (before, now) = (snapshots.get(at.wrapping_sub(1))?, snapshots.get(at)?);
            let gap_ns = now.at_ns.saturating_sub(before.at_ns);
            (gap_ns <= longest_ns).then_some(gap_ns)
        };
        for (at, now) in snapshots.iter().enumerate() {
            let Some(gap_ns) = step(at) else {
                self.known.clone_from(&now.frames);
                continue;
            };
            if let Some(totals) = self.totals.get_mut(spacing) {
                totals.time_ns = totals.time_ns.saturating_add(gap_ns.saturating_mul(weight));
                totals.pairs = totals.pairs.saturating_add(weight);
            }
            let fresh = self.advance(ways, now);
            news.calls += u64::from(fresh.is_some_and(|fresh| fresh.from < now.frames.len()));
            for (depth, pair) in now.frames.windows(2).enumerate() {
                let Some(counts) = self.counts(thread, spacing, pair) else {
                    return news;
                };
                counts.pairs = counts.pairs.saturating_add(weight);
                let callee = depth + 1;
                if let Some(fresh) = fresh.filter(|fresh| callee >= fresh.from) {
                    news.of_rare |= counts.boundaries < RARE.saturating_mul(weight);
                    counts.boundaries = counts.boundaries.saturating_add(weight);
                    if callee > fresh.from || !fresh.appeared {
                        counts.told = counts.told.saturating_add(weight);
                    }
                }
            }
        }
        // The same with fewer snapshots, up to the same end.
        let last = snapshots.len().saturating_sub(1);
        for (at, now) in snapshots.iter().enumerate() {
            if at == 0 || step(at).is_none() {
                self.known.clone_from(&now.frames);
            } else if at % COARSER == 0 || at == last || step(at + 1).is_none() {
                let fresh = self.advance(ways, now);
                let from = fresh.map_or(usize::MAX, |fresh| fresh.from);
                for pair in now.frames.windows(2).skip(from.saturating_sub(1)) {
                    if let Some(counts) = self.counts(thread, spacing, pair) {
                        counts.coarse = counts.coarse.saturating_add(weight);
                    }
                }
            }
        }
        news
    }

    /// Multiplies what was counted, by spacing: weighted counts are less certain than as many single ones.
    pub fn scale(&mut self, by: [f64; SPACINGS]) {
        for (at, by) in by.into_iter().enumerate() {
            let scaled = |count: &mut u64| *count = (*count as f64 * by).round() as u64;
            if let Some(totals) = self.totals.get_mut(at) {
                scaled(&mut totals.time_ns);
                scaled(&mut totals.pairs);
            }
            for counts in self.edges.values_mut().filter_map(|edge| edge.get_mut(at)) {
                scaled(&mut counts.boundaries);
                scaled(&mut counts.pairs);
                scaled(&mut counts.coarse);
                scaled(&mut counts.told);
            }
        }
    }

    /// Compares a snapshot with what was known, and knows it then; what is new in it.
    fn advance(&mut self, ways: &impl Ways, now: &Snapshot) -> Option<Fresh> {
        let fresh = fresh_from(ways, &self.known, &now.frames);
        if !now.cut || fresh.is_some() {
            self.known.clear();
            self.known.extend_from_slice(&now.frames);
        } else {
            // What could not be told is as it was, unless the last one that could be told has run meanwhile.
            let last = now.frames.len().wrapping_sub(1);
            let ran = match (self.known.get(last), now.frames.last()) {
                (Some(old), Some(frame)) => old.unit != frame.unit || old.locals != frame.locals,
                _ => false,
            };
            for (old, frame) in self.known.iter_mut().zip(&now.frames) {
                *old = *frame;
            }
            if ran {
                self.known.truncate(now.frames.len());
            }
        }
        fresh
    }

    fn counts(
        &mut self,
        thread: ThreadKey,
        spacing: usize,
        pair: &[SeenFrame],
    ) -> Option<&mut EdgeCounts> {
        let [caller, callee] = pair else {
            return None;
        };
        let key = (thread, caller.function, callee.function);
        if self.edges.len() >= MOST_EDGES && !self.edges.contains_key(&key) {
            return None;
        }
        self.edges.entry(key).or_default().get_mut(spacing)
    }
}

/// What the bursts of one process brought in.
#[derive(Debug, Default)]
pub struct Harvest {
    /// Counts.
    pub tally: Tally,
    /// Names of the functions in them.
    pub tables: Tables,
    /// The time that they stand for, microseconds.
    pub duration_us: u64,
}

impl Harvest {
    /// Adds it to the profile of its process. Threads and functions that no sample has seen are left out.
    pub fn add_to(&self, profile: &mut Profile, process: ProcessId) {
        let mut edges = Vec::new();
        for ((thread, caller, callee), counts) in &self.tally.edges {
            if counts.iter().all(|counts| counts.boundaries == 0) {
                continue;
            }
            // Idents are used again: the last thread that had it, and the OS's id if it is known.
            let found = profile
                .threads
                .iter()
                .rposition(|info| info.process == process && info.python_id == thread.python_id);
            let Some(found) = found else {
                continue;
            };
            edges.push(BurstEdge {
                thread: ThreadId(found as u32),
                caller: moved(&self.tables, &mut profile.tables, *caller),
                callee: moved(&self.tables, &mut profile.tables, *callee),
                counts: *counts,
            });
        }
        edges.sort_unstable_by_key(|edge| (edge.thread, edge.caller, edge.callee));
        profile.bursts.push(Bursts {
            process: process.0,
            duration_us: self.duration_us,
            totals: self.tally.totals,
            edges,
        });
    }
}

fn moved(from: &Tables, to: &mut Tables, function: FunctionId) -> FunctionId {
    let Function {
        file,
        line,
        name,
        kind,
    } = from.get_function(function);
    let kind: FunctionKind = kind;
    to.function(from.text(file), line, from.text(name), kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Code 1 has a loop from 10 back to 5.
    struct Loop;

    impl Ways for Loop {
        fn leads(&self, code: u32, from: u32, to: u32) -> bool {
            to >= from || (code == 1 && from <= 10 && to >= 5)
        }
    }

    const THREAD: ThreadKey = ThreadKey {
        python_id: 1,
        os_id: 1,
    };

    /// `invocation:function:unit:locals`; the code is the function.
    fn frames(text: &str) -> Vec<SeenFrame> {
        text.split_whitespace()
            .map(|part| {
                let numbers: Vec<u64> = part.split(':').map(|n| n.parse().expect("n")).collect();
                SeenFrame {
                    invocation: numbers[0],
                    function: FunctionId(numbers[1] as u32),
                    code: numbers[1] as u32,
                    unit: numbers[2] as u32,
                    locals: numbers[3],
                }
            })
            .collect()
    }

    fn window(texts: &[&str]) -> Vec<Snapshot> {
        let snapshot = |(at, text): (usize, &&str)| Snapshot {
            at_ns: at as u64 * 1000,
            frames: frames(text.trim_end_matches('+')),
            cut: text.ends_with('+'),
        };
        texts.iter().enumerate().map(snapshot).collect()
    }

    fn counted(texts: &[&str], caller: u32, callee: u32) -> EdgeCounts {
        let mut tally = Tally::default();
        tally.count(&Loop, THREAD, 1, &window(texts), 1500, 1);
        let key = (THREAD, FunctionId(caller), FunctionId(callee));
        tally
            .edges
            .get(&key)
            .map_or_else(EdgeCounts::default, |c| c[1])
    }

    #[test]
    fn each_kind_of_evidence_is_a_boundary() {
        let check = |before: &str, now: &str, expected: Option<usize>| {
            assert_eq!(
                fresh_from(&Loop, &frames(before), &frames(now)).map(|fresh| fresh.from),
                expected,
                "{before} | {now}"
            );
        };
        check("8:1:7:3 9:2:4:5", "8:1:7:3 9:2:4:5", None);
        check("8:1:7:3 9:2:4:5", "8:1:7:3 9:3:4:5", Some(1));
        check("8:1:7:3 9:2:4:5", "8:1:7:3 10:2:4:5", Some(1));
        check("7:1:7:3 9:2:4:5", "8:1:7:3 9:2:4:5", Some(0));
        check("8:1:7:3 9:2:4:5", "8:1:9:3 9:2:4:5", Some(1));
        check("8:1:7:3 9:2:4:5", "8:1:7:4 9:2:4:5", Some(1));
        check("8:1:7:0 9:2:4:5", "8:1:7:4 9:2:4:5", None);
        check("8:1:7:3 9:2:4:5", "8:1:7:3 9:2:3:5", Some(1));
        check("8:2:1:3 9:1:9:5", "8:2:1:3 9:1:5:5", None);
        check("8:2:1:3 9:1:9:5", "8:2:1:3 9:1:4:5", Some(1));
        check("8:1:7:3 9:2:4:5", "8:1:7:3 9:2:4:6", None);
        check("8:1:7:3", "8:1:7:3 9:2:4:5", Some(1));
        check("8:1:7:3 9:2:4:5", "8:1:7:3", None);
    }

    #[test]
    fn boundaries_are_counted_by_edge() {
        let texts = [
            "8:1:7:1 9:2:4:5",
            "8:1:7:1 9:2:6:5",
            "8:1:7:2 9:2:4:5",
            "8:1:7:2",
            "8:1:7:2 9:2:4:5",
        ];
        let counts = counted(&texts, 1, 2);
        assert_eq!((counts.boundaries, counts.pairs), (2, 3));
        assert_eq!(counts.told, 1);
        assert_eq!(counts.coarse, 1);
    }

    #[test]
    fn what_is_cut_off_is_as_it_was() {
        let texts = [
            "8:1:7:1 9:2:4:5 10:3:1:1",
            "8:1:7:1 9:2:4:5 +",
            "8:1:7:1 9:2:4:5 10:3:1:1",
        ];
        assert_eq!(counted(&texts, 2, 3).boundaries, 0);
        let texts = [texts[0], "8:1:7:1 9:2:4:6 +", "8:1:7:1 9:2:4:6 10:3:1:1"];
        assert_eq!(counted(&texts, 2, 3).boundaries, 1);
        let texts = [
            "8:1:7:1 9:2:4:5 10:3:1:1",
            "8:1:7:2 9:2:4:5 +",
            "8:1:7:2 9:2:4:5 10:3:1:1",
        ];
        assert_eq!(counted(&texts, 2, 3).boundaries, 1);
        assert_eq!(counted(&texts, 1, 2).boundaries, 1);
    }

    #[test]
    fn snapshots_far_apart_are_not_compared() {
        let mut tally = Tally::default();
        let mut snapshots = window(&["8:1:7:1 9:2:4:5", "8:1:7:2 9:2:4:5", "8:1:7:3 9:2:4:5"]);
        snapshots[2].at_ns = 9000;
        tally.count(&Loop, THREAD, 0, &snapshots, 1500, 1);
        assert_eq!(tally.totals[0].pairs, 1);
        assert_eq!(tally.totals[0].time_ns, 1000);
        let key = (THREAD, FunctionId(1), FunctionId(2));
        assert_eq!(tally.edges[&key][0].boundaries, 1);
    }
}
