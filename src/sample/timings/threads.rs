//! The threads of a process with a watchpoint on each word in every one of them: those that are there, those that come,
//! and those that go.

use rustc_hash::FxHashMap;

use super::pairing::ThreadCalls;
use crate::target::threads::{self, Threads};
use crate::target::watchpoint::{self, Access, Event, REGISTERS, Refusal, Watch};
use crate::units::{Pid, Tid};

/// Pages of events a thread, each of 128 hits; fewer where that is not permitted.
const PAGES: [usize; 3] = [64, 8, 1];

/// Most threads that are watched: five descriptors each, and a quarter of a megabyte.
const MOST: usize = 2000;

/// One hit.
#[derive(Debug, Clone, Copy)]
pub struct Hit {
    /// Index of the word.
    pub word: usize,
    /// Nanoseconds.
    pub at_ns: u64,
    /// Address behind the instruction that wrote.
    pub instruction: u64,
    /// Hits of the thread before it.
    pub index: u64,
}

/// A thread that is watched.
#[derive(Debug)]
pub struct Thread {
    watch: Watch,
    /// Calls under way, by word.
    pub calls: [ThreadCalls; REGISTERS],
    hits: u64,
    last_ns: u64,
    /// Hits and CPU time when the share of hits was looked at last.
    before: (u64, u64),
}

/// All of them.
#[derive(Debug)]
pub struct Watches {
    pid: Pid,
    words: Vec<Option<u64>>,
    threads: FxHashMap<Tid, Thread>,
    /// Threads that cannot be watched, and why.
    pub refused: FxHashMap<Tid, Refusal>,
    clocks: Threads,
    /// Threads that came since the first look.
    pub came: u64,
    /// Threads that were watched and have ended.
    pub ended: u64,
    /// Whether hits were lost.
    pub lost: bool,
    /// Times between two hits of a thread, lately.
    gaps: Gaps,
    /// All hits.
    pub hits: u64,
    first: bool,
    on: bool,
    /// When [`Watches::busiest`] was asked last, nanoseconds.
    asked_ns: u64,
}

/// Times between hits that are remembered, and from how many on something is said of them.
const GAPS: usize = 1024;
const FEWEST_GAPS: usize = 64;

/// The last [`GAPS`] times between hits, nanoseconds.
#[derive(Debug, Default)]
struct Gaps {
    last: Vec<u64>,
    next: usize,
    /// Those that came since [`Gaps::short_ns`] was found.
    new: usize,
    short_ns: u64,
}

impl Gaps {
    fn note(&mut self, gap_ns: u64) {
        match self.last.get_mut(self.next) {
            Some(place) => *place = gap_ns,
            None => self.last.push(gap_ns),
        }
        self.next = (self.next + 1) % GAPS;
        self.new += 1;
    }

    /// The first quartile. Two hits a call make half of all gaps short where calls, or the times between them, are; the
    /// shortest of all would be that of a hit that cost least, which is far from what most cost on a busy machine.
    fn short_ns(&mut self) -> u64 {
        if self.last.len() < FEWEST_GAPS {
            return u64::MAX;
        }
        if self.new >= GAPS / 4 || self.short_ns == 0 {
            self.new = 0;
            let mut sorted = self.last.clone();
            let quarter = sorted.len() / 4;
            self.short_ns = *sorted.select_nth_unstable(quarter).1;
        }
        self.short_ns
    }
}

/// Descriptors of a thread's watchpoints.
const DESCRIPTORS: usize = 1 + REGISTERS;

impl Watches {
    /// None yet.
    pub fn new(pid: Pid, words: &[u64]) -> Watches {
        Watches {
            pid,
            words: words.iter().take(REGISTERS).copied().map(Some).collect(),
            threads: FxHashMap::default(),
            refused: FxHashMap::default(),
            clocks: Threads::new(pid),
            came: 0,
            ended: 0,
            lost: false,
            gaps: Gaps::default(),
            hits: 0,
            first: true,
            on: true,
            asked_ns: 0,
        }
    }

    /// The time between two hits that follow soon on each other: a hit costs no more.
    pub fn short_gap_ns(&mut self) -> u64 {
        self.gaps.short_ns()
    }

    /// How many are watched.
    pub fn len(&self) -> usize {
        self.threads.len()
    }

    /// Brings the list up to date; hands what ended threads still had to `each`. False when the process has none any more.
    pub fn refresh(&mut self, each: &mut dyn FnMut(&mut Thread, Hit)) -> bool {
        let listed = threads::listed(self.pid);
        for tid in &listed {
            if self.threads.contains_key(tid) || self.refused.contains_key(tid) {
                continue;
            }
            self.came += u64::from(!self.first);
            match self.watch(*tid) {
                Ok(thread) => {
                    self.threads.insert(*tid, thread);
                }
                Err(Refusal::Gone) => {}
                Err(why) => {
                    self.refused.insert(*tid, why);
                }
            }
        }
        self.first = false;
        if self.threads.len() + self.refused.len() > listed.len() {
            let gone: Vec<Tid> = self
                .threads
                .keys()
                .filter(|tid| listed.binary_search(tid).is_err())
                .copied()
                .collect();
            for tid in gone {
                if let Some(mut thread) = self.threads.remove(&tid) {
                    self.take_of(&mut thread, each);
                    self.ended += 1;
                }
            }
        }
        !listed.is_empty()
    }

    fn watch(&self, tid: Tid) -> Result<Thread, Refusal> {
        if self.threads.len() >= MOST || !watchpoint::has_descriptors(DESCRIPTORS) {
            return Err(Refusal::Busy);
        }
        let mut watch = Err(Refusal::NotAvailable);
        for pages in PAGES {
            watch = Watch::open_with(tid, pages);
            if !matches!(watch, Err(Refusal::NotPermitted | Refusal::NotAvailable)) {
                break;
            }
        }
        let mut watch = watch?;
        if self.on {
            set(&mut watch, &self.words)?;
        }
        Ok(Thread {
            watch,
            calls: Default::default(),
            hits: 0,
            last_ns: 0,
            before: (0, 0),
        })
    }

    /// Hands over all hits since the last time, those of a thread in order.
    pub fn take(&mut self, each: &mut dyn FnMut(&mut Thread, Hit)) {
        let mut threads = std::mem::take(&mut self.threads);
        for thread in threads.values_mut() {
            self.take_of(thread, each);
        }
        self.threads = threads;
    }

    fn take_of(&mut self, thread: &mut Thread, each: &mut dyn FnMut(&mut Thread, Hit)) {
        let mut hits = Vec::new();
        let mut lost = false;
        thread.watch.take(|event| match event {
            Event::Hit {
                register,
                at_ns,
                instruction,
            } => hits.push((register, at_ns, instruction)),
            Event::Lost => lost = true,
            Event::In { .. } | Event::Out { .. } => {}
        });
        self.lost |= lost;
        for (word, at_ns, instruction) in hits {
            let gap = at_ns.saturating_sub(thread.last_ns);
            if thread.last_ns > 0 && gap > 0 {
                self.gaps.note(gap);
            }
            thread.last_ns = at_ns;
            let index = thread.hits;
            thread.hits += 1;
            self.hits += 1;
            let hit = Hit {
                word,
                at_ns,
                instruction,
                index,
            };
            each(thread, hit);
        }
    }

    /// The largest share of its CPU time that a thread has lost since this was asked last, and the largest share of all time.
    pub fn busiest(&mut self, cost_ns: u64) -> (f64, f64) {
        let now_ns = watchpoint::now_ns();
        let passed_ns = now_ns.saturating_sub(self.asked_ns).max(1);
        let is_first = std::mem::replace(&mut self.asked_ns, now_ns) == 0;
        let mut most = (0.0f64, 0.0f64);
        for (tid, thread) in &mut self.threads {
            let (hits, cpu_ns) = thread.before;
            let new = thread.hits - hits;
            if new == 0 && hits > 0 {
                continue;
            }
            let Some(activity) = self.clocks.activity(*tid, None) else {
                continue;
            };
            thread.before = (thread.hits, activity.cpu_ns);
            let used_ns = activity.cpu_ns.saturating_sub(cpu_ns);
            if cpu_ns > 0 && used_ns > 0 && !is_first {
                let lost_ns = new as f64 * cost_ns as f64;
                most.0 = most.0.max(lost_ns / used_ns as f64);
                most.1 = most.1.max(lost_ns / passed_ns as f64);
            }
        }
        (most.0.min(1.0), most.1.min(1.0))
    }

    /// CPU time of the threads that were hit, and the time for which they waited for a CPU, nanoseconds.
    pub fn times(&self) -> (u64, u64) {
        let hit = self.threads.iter().filter(|(_, thread)| thread.hits > 0);
        hit.filter_map(|(tid, _)| threads::times(self.pid, *tid))
            .fold((0, 0), |sum, times| (sum.0 + times.0, sum.1 + times.1))
    }

    /// Watches nothing until [`Watches::go_on`].
    pub fn pause(&mut self) {
        self.on = false;
        for thread in self.threads.values_mut() {
            for word in 0..REGISTERS {
                thread.watch.clear(word);
            }
        }
    }

    /// Watches again.
    pub fn go_on(&mut self) {
        self.on = true;
        for (tid, thread) in &mut self.threads {
            match set(&mut thread.watch, &self.words) {
                Ok(()) | Err(Refusal::Gone) => {}
                Err(why) => {
                    self.refused.insert(*tid, why);
                }
            }
        }
    }

    /// Watches one of the words no more: it is no code object any longer.
    pub fn give_up(&mut self, word: usize) {
        if let Some(place) = self.words.get_mut(word) {
            *place = None;
        }
        for thread in self.threads.values_mut() {
            thread.watch.clear(word);
        }
    }

    /// Every thread.
    pub fn threads(&mut self) -> impl Iterator<Item = &mut Thread> {
        self.threads.values_mut()
    }
}

fn set(watch: &mut Watch, words: &[Option<u64>]) -> Result<(), Refusal> {
    for (word, address) in words.iter().enumerate() {
        if let Some(address) = address {
            watch.set(word, *address, Access::Write, None)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_hit_costs_at_most_is_not_the_least_that_one_cost() {
        let mut gaps = Gaps::default();
        assert_eq!(gaps.short_ns(), u64::MAX);
        // Calls of nothing 20 us apart; a hit costs 5 us, one in twenty half as much.
        for hit in 0..3000u64 {
            let cost = if hit % 20 == 7 { 2_500 } else { 5_000 };
            gaps.note(cost + if hit % 2 == 0 { 100 } else { 20_000 });
        }
        assert_eq!(gaps.short_ns(), 5_100);
        // They have become dearer since.
        for hit in 0..2000u64 {
            gaps.note(8_000 + if hit % 2 == 0 { 100 } else { 20_000 });
        }
        assert_eq!(gaps.short_ns(), 8_100);
    }
}
