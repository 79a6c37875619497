//! From the writes to one code object's reference count to calls: which of them begin and which end one, and how long it
//! took. Pure: writes in order of time, thread by thread.
//!
//! A thread's calls of one function nest, so the end that comes next belongs to the call that began last. What is no
//! call is known by its [`Role`], and some of it only by what comes directly before or after: the code object is loaded
//! before a function is made of it, and released after that.

use rustc_hash::{FxHashMap, FxHashSet};

use super::durations::Durations;
use crate::sample::writers::{FrameEnds, Role};

/// Deepest nesting of calls that is followed; the outermost ones are forgotten beyond it.
const DEEPEST: usize = 1 << 16;

/// One write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Write {
    /// What it is.
    pub role: Role,
    /// The instruction.
    pub instruction: u64,
    /// Nanoseconds.
    pub at_ns: u64,
    /// Hits of the thread before it, of whatever function: each of them took time.
    pub index: u64,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    at_ns: u64,
    index: u64,
}

/// What is known of an instruction that adds.
#[derive(Debug, Clone, Copy, Default)]
struct Adder {
    count: u64,
    /// Of these, with no call under way in the thread.
    outermost: u64,
    /// Of these, followed at once by one that takes.
    brief: u64,
}

/// One function, all threads.
#[derive(Debug, Default)]
pub struct Tally {
    adders: FxHashMap<u64, Adder>,
    enders: FxHashSet<u64>,
    /// Durations of calls whose beginning and end were seen.
    pub durations: Durations,
    /// Calls that were left by an exception and whose end is not known for that.
    pub left: u64,
    /// Function objects made.
    pub created: u64,
    /// Reads of `f_code` and the like.
    pub reads: u64,
    /// Frame objects that have ended apart from their call.
    pub frame_ends: u64,
    /// Writes of which it could not be told what they do.
    pub unknown: u64,
    /// All references that were added and taken.
    pub balance: i64,
    /// Additions, of whatever kind but reads.
    pub added: u64,
    /// Ends that belong to no beginning that was seen: calls that were under way.
    pub unmatched: u64,
}

impl Tally {
    /// Calls that began.
    pub fn calls(&self, ends: FrameEnds, knows_keep: bool) -> u64 {
        self.adders
            .values()
            .filter(|adder| !self.keeps(adder, ends, knows_keep))
            .map(|adder| adder.count)
            .sum()
    }

    /// Whether an instruction that adds does so for frames that outlive their call: hardly ever first, always followed by the
    /// call's end, and such frames have ended. Only where no symbol tells.
    fn keeps(&self, adder: &Adder, ends: FrameEnds, knows_keep: bool) -> bool {
        ends == FrameEnds::Apart
            && !knows_keep
            && self.frame_ends > 0
            && adder.outermost * 20 <= adder.count
            && adder.brief == adder.count
    }
}

/// The calls of one function in one thread.
#[derive(Debug, Default)]
pub struct ThreadCalls {
    open: Vec<Open>,
    /// An addition of which the next write tells what it was.
    pending: Option<Write>,
    reads: u64,
    after_create: bool,
}

/// How to take writes.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// How calls end.
    pub ends: FrameEnds,
    /// Whether [`Role::Keep`] is told.
    pub knows_keep: bool,
    /// What a hit costs.
    pub cost_ns: u64,
    /// The window in which writes are seen; `None` for always.
    pub window: Option<Window>,
}

/// A part of the time in which writes are seen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    /// Its length, nanoseconds.
    pub length_ns: u64,
    /// The time that it stands for, in lengths of it.
    pub stands_for: f64,
}

impl ThreadCalls {
    /// Takes the next write.
    pub fn take(&mut self, write: Write, tally: &mut Tally, rules: Rules) {
        let after_create = std::mem::take(&mut self.after_create);
        let is_more = matches!(
            write.role,
            Role::Add | Role::Create | Role::Read | Role::Keep
        );
        match write.role {
            Role::Unknown => tally.unknown += 1,
            _ => tally.balance += if is_more { 1 } else { -1 },
        }
        tally.added += u64::from(is_more && write.role != Role::Read);
        match write.role {
            Role::Create => {
                // What was added before it was the load of the code object.
                self.after_create = self.pending.take().is_some();
                tally.created += 1;
            }
            Role::Add => {
                self.settle(tally, false);
                self.pending = Some(write);
            }
            Role::Read => {
                self.settle(tally, false);
                self.reads += 1;
                tally.reads += 1;
            }
            Role::Keep | Role::FunctionEnd | Role::Unknown => self.settle(tally, false),
            Role::FrameEnd => {
                self.settle(tally, false);
                tally.frame_ends += 1;
                if rules.ends == FrameEnds::Late && self.open.pop().is_some() {
                    tally.left += 1;
                }
            }
            Role::Sub if after_create => {}
            Role::Sub => self.end(write, tally, rules),
        }
    }

    /// The same for a function whose calls only make an object that runs later. Such objects are made and freed in no order:
    /// only their number is known, from [`Tally::added`].
    pub fn take_lazy(&mut self, write: Write, tally: &mut Tally) {
        if matches!(write.role, Role::Create) && self.pending.is_some() {
            tally.added = tally.added.saturating_sub(1);
        }
        self.pending = (write.role == Role::Add).then_some(write);
        match write.role {
            Role::Unknown => tally.unknown += 1,
            Role::Add => {
                tally.added += 1;
                tally.balance += 1;
            }
            Role::Create | Role::Read | Role::Keep => tally.balance += 1,
            Role::Sub | Role::FunctionEnd | Role::FrameEnd => tally.balance -= 1,
        }
        tally.created += u64::from(write.role == Role::Create);
    }

    fn end(&mut self, write: Write, tally: &mut Tally, rules: Rules) {
        if let Some(pending) = self.pending {
            let adder = tally.adders.entry(pending.instruction).or_default();
            let (count, brief) = (adder.count, adder.brief);
            let as_if = Adder {
                count: count + 1,
                brief: brief + 1,
                outermost: adder.outermost + u64::from(self.open.is_empty()),
            };
            if tally.keeps(&as_if, rules.ends, rules.knows_keep) {
                self.pending = None;
                tally.adders.insert(pending.instruction, as_if);
            } else {
                self.settle(tally, true);
            }
        }
        if self.reads > 0 && !tally.enders.contains(&write.instruction) {
            self.reads -= 1;
            return;
        }
        if self.reads == 0 {
            tally.enders.insert(write.instruction);
        }
        let Some(open) = self.open.pop() else {
            tally.unmatched += 1;
            return;
        };
        let passed = write.at_ns.saturating_sub(open.at_ns);
        let cost = write
            .index
            .saturating_sub(open.index)
            .saturating_mul(rules.cost_ns);
        let duration = passed.saturating_sub(cost);
        // A window holds a long call with less probability than a short one.
        let weight = match rules.window {
            None => 1.0,
            Some(window) => {
                let length = window.length_ns;
                // Of calls nearly as long as a window too few are seen to say more.
                let left = length.saturating_sub(passed).max(length / 4 + 1);
                window.stands_for * length as f64 / left as f64
            }
        };
        tally.durations.add(duration, weight);
    }

    /// What was pending is a call.
    fn settle(&mut self, tally: &mut Tally, brief: bool) {
        let Some(write) = self.pending.take() else {
            return;
        };
        let adder = tally.adders.entry(write.instruction).or_default();
        adder.count += 1;
        adder.brief += u64::from(brief);
        adder.outermost += u64::from(self.open.is_empty());
        if self.open.len() >= DEEPEST {
            self.open.remove(0);
        }
        self.open.push(Open {
            at_ns: write.at_ns,
            index: write.index,
        });
    }

    /// Nothing is seen from here on: what is pending was a call, and what is under way is forgotten.
    pub fn close(&mut self, tally: &mut Tally, lazy: bool) {
        if !lazy {
            self.settle(tally, false);
        }
        *self = ThreadCalls::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    const COST: u64 = 7_000;

    fn rules(ends: FrameEnds, knows_keep: bool) -> Rules {
        Rules {
            ends,
            knows_keep,
            cost_ns: COST,
            window: None,
        }
    }

    /// Writes as a program of a known course would make them.
    struct Course {
        writes: Vec<Write>,
        now_ns: u64,
        durations: Vec<u64>,
        calls: u64,
        random: StdRng,
        ends: FrameEnds,
        named: bool,
    }

    impl Course {
        fn new(seed: u64, ends: FrameEnds, named: bool) -> Course {
            Course {
                writes: Vec::new(),
                now_ns: 1_000_000,
                durations: Vec::new(),
                calls: 0,
                random: StdRng::seed_from_u64(seed),
                ends,
                named,
            }
        }

        fn write(&mut self, role: Role, instruction: u64) {
            self.writes.push(Write {
                role,
                instruction,
                at_ns: self.now_ns,
                index: self.writes.len() as u64,
            });
            self.now_ns += COST;
        }

        fn work(&mut self) -> u64 {
            let time = self.random.random_range(0..100_000);
            self.now_ns += time;
            time
        }

        /// A call, which may call itself, make a function of the same code, read its frame, or raise; how long it took.
        fn call(&mut self, depth: u32) -> u64 {
            let made = self.random.random_bool(0.2);
            if made {
                self.write(Role::Add, 1);
                self.write(Role::Create, 2);
                self.write(Role::Sub, 3);
            }
            let enter = if self.random.random_bool(0.5) { 10 } else { 11 };
            self.write(Role::Add, enter);
            self.calls += 1;
            let mut time = self.work();
            for _ in 0..self.random.random_range(0..3) {
                if depth > 0 {
                    time += self.call(depth - 1);
                    time += self.work();
                }
            }
            let raises = self.ends != FrameEnds::AsCalls && self.random.random_bool(0.2);
            match (raises, self.ends) {
                (true, FrameEnds::Late) => self.write(Role::FrameEnd, 31),
                (true, _) => {
                    let role = if self.named { Role::Keep } else { Role::Add };
                    self.write(role, 30);
                    self.write(Role::Sub, 20);
                    self.durations.push(time);
                    self.write(Role::FrameEnd, 31);
                }
                (false, _) => {
                    self.write(Role::Sub, 20);
                    self.durations.push(time);
                }
            }
            if made {
                self.write(Role::FunctionEnd, 4);
            }
            time
        }
    }

    fn tally(course: &Course) -> Tally {
        let rules = rules(course.ends, course.named);
        let (mut tally, mut calls) = (Tally::default(), ThreadCalls::default());
        for write in &course.writes {
            calls.take(*write, &mut tally, rules);
        }
        calls.close(&mut tally, false);
        tally
    }

    #[test]
    fn random_call_trees_are_counted_and_timed_exactly() {
        for seed in 0..300 {
            for ends in [FrameEnds::AsCalls, FrameEnds::Late, FrameEnds::Apart] {
                let mut course = Course::new(seed, ends, true);
                for _ in 0..5 {
                    course.call(4);
                    course.work();
                }
                let tally = tally(&course);
                assert_eq!(tally.calls(ends, true), course.calls, "{seed} {ends:?}");
                assert_eq!(
                    tally.durations.count() + tally.left,
                    course.calls,
                    "{seed} {ends:?}"
                );
                assert_eq!((tally.balance, tally.unmatched, tally.unknown), (0, 0, 0));
                course.durations.sort_unstable();
                let shares = [0.0, 0.25, 0.5, 0.75, 1.0];
                let found = tally.durations.percentiles(shares).unwrap_or_default();
                let truth = |share: f64| {
                    let rank = (share * course.durations.len() as f64).ceil() as usize;
                    course
                        .durations
                        .get(rank.saturating_sub(1))
                        .copied()
                        .unwrap_or(0)
                };
                assert_eq!(found, shares.map(truth), "{seed} {ends:?}");
            }
        }
    }

    /// Without symbols, frames that outlive their call are known once the first of them has ended.
    #[test]
    fn kept_frames_are_no_calls_where_no_symbol_tells() {
        for seed in 0..100 {
            let mut course = Course::new(seed, FrameEnds::Apart, false);
            for _ in 0..50 {
                course.call(2);
            }
            let tally = tally(&course);
            assert!(tally.frame_ends > 0);
            // What was seen before that may be wrong by a call or two.
            let off = tally.calls(FrameEnds::Apart, false).abs_diff(course.calls);
            assert!(
                off <= 3 + course.calls / 50,
                "{seed}: {off} of {}",
                course.calls
            );
        }
    }

    #[test]
    fn reads_of_the_code_are_no_calls() {
        let mut course = Course::new(1, FrameEnds::Apart, true);
        for round in 0..20 {
            course.write(Role::Add, 10);
            course.calls += 1;
            if round % 2 == 1 {
                course.write(Role::Read, 40);
                course.write(Role::Sub, 41);
            }
            course.now_ns += 50_000;
            course.write(Role::Sub, 20);
        }
        let tally = tally(&course);
        assert_eq!(tally.calls(FrameEnds::Apart, true), 20);
        assert_eq!(tally.reads, 10);
        assert_eq!(tally.durations.percentiles([0.5, 1.0]), Some([50_000; 2]));
    }

    #[test]
    fn calls_that_were_under_way_are_not_counted() {
        let mut course = Course::new(1, FrameEnds::Apart, true);
        course.write(Role::Sub, 20);
        course.write(Role::Sub, 20);
        course.call(3);
        let tally = tally(&course);
        assert_eq!(tally.calls(FrameEnds::Apart, true), course.calls);
        assert_eq!(tally.unmatched, 2);
    }

    #[test]
    fn any_writes_are_taken() {
        let roles = [
            Role::Add,
            Role::Sub,
            Role::Create,
            Role::Read,
            Role::FunctionEnd,
            Role::FrameEnd,
            Role::Keep,
            Role::Unknown,
        ];
        let mut random = StdRng::seed_from_u64(5);
        for ends in [FrameEnds::AsCalls, FrameEnds::Late, FrameEnds::Apart] {
            let (mut tally, mut calls) = (Tally::default(), ThreadCalls::default());
            for index in 0..100_000 {
                let write = Write {
                    role: roles[random.random_range(0..roles.len())],
                    instruction: random.random_range(0..6),
                    at_ns: random.random_range(0..1000),
                    index,
                };
                let mut rules = rules(ends, index % 2 == 0);
                rules.window = (index % 3 == 0).then_some(Window {
                    length_ns: 500,
                    stands_for: 3.0,
                });
                calls.take(write, &mut tally, rules);
            }
            calls.close(&mut tally, false);
            let _ = tally.calls(ends, false);
            let _ = tally.durations.percentiles([0.5]);
        }
    }
}
