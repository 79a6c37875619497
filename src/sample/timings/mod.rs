//! Every call of a few functions, counted while a process runs: hardware watchpoints on the reference counts of their
//! code objects in every thread, which each call writes when it begins and when it ends.
//!
//! A hit costs its thread some microseconds, which are taken out of durations. Where hits would take more than
//! [`MOST_COST`] of a thread's CPU time (and more than a little of all time), only windows at random moments are watched from then on, and what they show stands
//! for the rest.

mod callers;
mod durations;
mod pairing;
mod threads;
mod windows;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::RngExt;

pub use callers::{Caller, Seen};
pub use durations::Durations;

use super::counts::cost::{Cost, TRIALS};
use super::writers::{FrameEnds, Writers};
use crate::error::{Error, ErrorKind, Result};
use crate::target::memory::{Live, Memory};
use crate::target::watchpoint::{self, REGISTERS, Refusal};
use crate::target::{access, process};
use crate::units::Pid;
use pairing::{Rules, Tally, Window, Write};
use threads::{Hit, Thread, Watches};
use windows::{Shown, Windows};

/// Functions that can be counted at a time.
pub const MOST_FUNCTIONS: usize = REGISTERS;

/// Share of a thread's CPU time that hits may take.
pub const MOST_COST: f64 = 0.10;

/// Share of the time that hits may take of it in any case: a thread that sleeps is not slowed by them.
const NO_COST: f64 = 0.02;

/// How often hits are taken: a thread's room for them lasts for 50 ms and more.
const TAKE: Duration = Duration::from_millis(2);
/// How often their share of the CPU time is looked at, and whether everything is still there.
const LOOK: Duration = Duration::from_millis(200);
/// The length of a window, and most windows' lengths between two.
const WINDOW: Duration = Duration::from_millis(20);
const LONGEST_REST: f64 = 100.0;
/// Hits from which the cost of one is measured, how many of these measurements count, and how often one is made: what else
/// the machine does changes it.
const CALIBRATION: u32 = 200;
const CALIBRATIONS: usize = 5;
const CALIBRATE: Duration = Duration::from_millis(300);

/// A function to count.
#[derive(Debug, Clone)]
pub struct Word {
    /// The code object.
    pub address: u64,
    /// Whether a call only makes a generator or coroutine, whose end says when that is freed.
    pub lazy: bool,
    /// `co_filename`, `co_firstlineno`, `co_name`, for stacks.
    pub file: String,
    /// See there.
    pub first_line: u32,
    /// See there.
    pub name: String,
}

/// How to count.
pub struct CountOptions<'a> {
    /// Stop after this time; `None` for the target's end or `stop`.
    pub duration: Option<Duration>,
    /// Watch all the time, whatever it costs.
    pub everything: bool,
    /// Ends it.
    pub stop: &'a AtomicBool,
    /// The minor version of Python 3.
    pub minor: u32,
    /// Called when counting has begun.
    pub began: &'a (dyn Fn() + Sync),
}

/// How a number of calls came about.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sure {
    /// Each was seen.
    Counted,
    /// There may be more.
    AtLeast,
    /// From windows; with the standard error.
    Estimated(f64),
}

/// What was found of one function.
#[derive(Debug)]
pub struct Counted {
    /// Calls, or objects made by calls.
    pub calls: f64,
    /// How sure.
    pub sure: Sure,
    /// Durations of calls, or lifetimes.
    pub durations: Durations,
    /// Calls that an exception left and whose end is not known.
    pub left: u64,
    /// Function objects that were made of it.
    pub created: u64,
    /// Times at which its code object was read.
    pub reads: u64,
    /// Stacks.
    pub seen: Seen,
    /// What to know about it.
    pub notes: Vec<String>,
}

/// What was found.
#[derive(Debug)]
pub struct Outcome {
    /// By function.
    pub functions: Vec<Counted>,
    /// For how long, seconds.
    pub seconds: f64,
    /// Threads that were watched, at the end and those that have ended.
    pub threads: u64,
    /// Of these, threads that came meanwhile.
    pub came: u64,
    /// Threads that could not be watched.
    pub unwatched: u64,
    /// Hits, and what one costs.
    pub hits: u64,
    /// Nanoseconds.
    pub cost_ns: u64,
    /// Share of the time in which was watched.
    pub watched: f64,
    /// Stacks that were sampled.
    pub stacks: u64,
    /// What to know about all of it.
    pub notes: Vec<String>,
}

/// Counts until the time is over, `stop` is set, or the process ends.
pub fn count(
    pid: Pid,
    words: &[Word],
    writers: Writers,
    options: &CountOptions,
) -> Result<Outcome> {
    watchpoint::allow_descriptors();
    let costs: Vec<u64> = (0..CALIBRATIONS)
        .map(|_| watchpoint::cost_of_a_hit_at_work(CALIBRATION))
        .collect::<Result<_, Refusal>>()
        .map_err(|why| refused(pid, why))?;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sampler = scope.spawn(|| callers::watch(pid, words, &over));
        let mut counter = Counter::new(pid, words, writers, options, costs);
        let result = counter.run();
        over.store(true, Ordering::SeqCst);
        sampler.thread().unpark();
        let (seen, stacks) = sampler.join().unwrap_or_default();
        result.map(|()| counter.outcome(seen, stacks))
    })
}

fn refused(pid: Pid, why: Refusal) -> Error {
    let what = format!("cannot count calls in process {pid}");
    match why {
        Refusal::NotPermitted => Error::new(
            ErrorKind::NotPermitted,
            what,
            "hardware watchpoints are not permitted",
        )
        .hint(watchpoint::what_permits()),
        Refusal::NotAvailable => Error::new(
            ErrorKind::NotAvailable,
            what,
            "this kernel or machine has no hardware watchpoints for it",
        )
        .hint(watchpoint::what_permits()),
        Refusal::Busy => Error::new(
            ErrorKind::Failed,
            what,
            "its debug registers are in use, by a debugger or another biopsy",
        ),
        Refusal::Gone => process::gone(pid),
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    Always,
    Window {
        since_ns: u64,
        hits: u64,
        calls: [u64; REGISTERS],
        /// CPU time and waiting, nanoseconds.
        times: (u64, u64),
    },
    Rest {
        since_ns: u64,
        until_ns: u64,
    },
}

struct Counter<'a> {
    pid: Pid,
    words: &'a [Word],
    options: &'a CountOptions<'a>,
    memory: Live,
    writers: Writers,
    watches: Watches,
    tallies: Vec<Tally>,
    /// What a hit cost when that was measured last.
    costs: Vec<u64>,
    /// What a hit costs with all that follows it: what it threw out of the caches is no time of the program either.
    whole_cost: Option<Cost>,
    calibrated: Instant,
    gone: [bool; REGISTERS],
    rules: Rules,
    phase: Phase,
    windows: Windows,
    /// Lengths of a window between two.
    rest: f64,
    rest_ns: u64,
    began_ns: u64,
    ended_ns: u64,
    type_of_code: u64,
    counts: Vec<Option<u64>>,
    died: bool,
}

impl<'a> Counter<'a> {
    fn new(
        pid: Pid,
        words: &'a [Word],
        writers: Writers,
        options: &'a CountOptions<'a>,
        costs: Vec<u64>,
    ) -> Counter<'a> {
        let words = words.get(..words.len().min(REGISTERS)).unwrap_or_default();
        let addresses: Vec<u64> = words.iter().map(|word| word.address).collect();
        let ends = FrameEnds::of(options.minor);
        let memory = Live::new(pid);
        let type_of_code = addresses
            .first()
            .and_then(|first| memory.read_word(first.wrapping_add(8)).ok());
        Counter {
            pid,
            words,
            options,
            memory,
            rules: Rules {
                ends,
                knows_keep: writers.knows_keep,
                cost_ns: median(&costs),
                window: None,
            },
            writers,
            watches: Watches::new(pid, &addresses),
            tallies: words.iter().map(|_| Tally::default()).collect(),
            costs,
            whole_cost: watchpoint::cost_of_a_hit(TRIALS).ok().map(Cost::new),
            calibrated: Instant::now(),
            gone: [false; REGISTERS],
            phase: Phase::Always,
            windows: Windows::default(),
            rest: 1.0,
            rest_ns: 0,
            began_ns: 0,
            ended_ns: 0,
            type_of_code: type_of_code.unwrap_or(0),
            counts: Vec::new(),
            died: false,
        }
    }

    fn run(&mut self) -> Result<()> {
        self.counts = self.reference_counts();
        self.refresh();
        if self.watches.len() == 0 {
            access::check(self.pid)?;
            let why = self.watches.refused.values().next().copied();
            return Err(refused(self.pid, why.unwrap_or(Refusal::Gone)));
        }
        self.began_ns = watchpoint::now_ns();
        (self.options.began)();
        let until = self.options.duration.map(|time| Instant::now() + time);
        let mut looked = Instant::now();
        loop {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if self.options.stop.load(Ordering::Relaxed) || left.is_some_and(|left| left.is_zero())
            {
                break;
            }
            std::thread::sleep(left.map_or(TAKE, |left| left.min(TAKE)));
            self.take();
            if !self.refresh() {
                self.died = true;
                break;
            }
            self.turn();
            if looked.elapsed() >= LOOK {
                looked = Instant::now();
                if !self.look() {
                    self.died = true;
                    break;
                }
            }
        }
        self.ended_ns = watchpoint::now_ns();
        if let Phase::Rest { since_ns, .. } = self.phase {
            self.rest_ns += self.ended_ns.saturating_sub(since_ns);
        }
        self.watches.pause();
        self.take();
        self.close();
        Ok(())
    }

    fn reference_counts(&self) -> Vec<Option<u64>> {
        let count = |word: &Word| {
            let count = self.memory.read_word(word.address).ok()?;
            Some(count & 0xffff_ffff)
        };
        self.words.iter().map(count).collect()
    }

    /// Takes hits and gives each to its function.
    fn take(&mut self) {
        let (mut watches, mut each) = self.split();
        watches.take(&mut each);
        drop(each);
        self.watches = watches;
        self.rules.cost_ns = median(&self.costs).min(self.watches.short_gap_ns());
    }

    fn refresh(&mut self) -> bool {
        let (mut watches, mut each) = self.split();
        let alive = watches.refresh(&mut each);
        drop(each);
        self.watches = watches;
        alive && process::is_alive(self.pid)
    }

    /// The watches, and what to do with their hits.
    fn split(&mut self) -> (Watches, impl FnMut(&mut Thread, Hit)) {
        let watches = std::mem::replace(&mut self.watches, Watches::new(self.pid, &[]));
        let memory = self.memory;
        let (writers, tallies, rules, words) =
            (&mut self.writers, &mut self.tallies, self.rules, self.words);
        let each = move |thread: &mut Thread, hit: Hit| {
            let write = Write {
                role: writers.role_in(&memory, hit.instruction),
                instruction: hit.instruction,
                at_ns: hit.at_ns,
                index: hit.index,
            };
            let place = (tallies.get_mut(hit.word), thread.calls.get_mut(hit.word));
            if let (Some(tally), Some(calls)) = place {
                if words.get(hit.word).is_some_and(|word| word.lazy) {
                    calls.take_lazy(write, tally);
                } else {
                    calls.take(write, tally, rules);
                }
            }
        };
        (watches, each)
    }

    fn calls(&self) -> [u64; REGISTERS] {
        let mut calls = [0; REGISTERS];
        for (index, calls) in calls.iter_mut().enumerate() {
            *calls = self.calls_of(index);
        }
        calls
    }

    fn calls_of(&self, index: usize) -> u64 {
        let (Some(tally), Some(word)) = (self.tallies.get(index), self.words.get(index)) else {
            return 0;
        };
        match (word.lazy, self.rules.ends) {
            (false, ends) => tally.calls(ends, self.rules.knows_keep),
            // The call's frame is one reference more, the generator's is another one.
            (true, FrameEnds::AsCalls | FrameEnds::Late) => tally.added / 2,
            (true, FrameEnds::Apart) => tally.added,
        }
    }

    /// What is pending was a call; what is under way will not be seen to end.
    fn close(&mut self) {
        for thread in self.watches.threads() {
            let all = thread
                .calls
                .iter_mut()
                .zip(&mut self.tallies)
                .zip(self.words);
            for ((calls, tally), word) in all {
                calls.close(tally, word.lazy);
            }
        }
    }

    /// Whether all is still as it was; begins with windows when hits cost too much.
    fn look(&mut self) -> bool {
        for (index, word) in self.words.iter().enumerate() {
            let kind = self.memory.read_word(word.address.wrapping_add(8));
            if let Some(gone) = self.gone.get_mut(index)
                && !*gone
                && kind != Ok(self.type_of_code)
            {
                *gone = true;
                self.watches.give_up(index);
            }
        }
        if self.words.iter().zip(self.gone).all(|(_, gone)| gone) {
            return false;
        }
        if self.calibrated.elapsed() >= CALIBRATE {
            self.calibrate();
        }
        let (share, of_all) = self.watches.busiest(self.rules.cost_ns);
        if self.phase == Phase::Always
            && share > MOST_COST
            && of_all > NO_COST
            && !self.options.everything
        {
            self.close();
            self.watches.pause();
            let paused_ns = watchpoint::now_ns();
            self.take();
            self.close();
            self.rest = share / MOST_COST;
            self.begin_rest(paused_ns);
        }
        true
    }

    /// Measures the cost of a hit again, and takes the median of the last few.
    fn calibrate(&mut self) {
        self.calibrated = Instant::now();
        if let Ok(cost_ns) = watchpoint::cost_of_a_hit_at_work(CALIBRATION) {
            self.costs.remove(0);
            self.costs.push(cost_ns);
        }
        if let (Some(cost), Ok(own_ns)) = (&mut self.whole_cost, watchpoint::cost_of_a_hit(TRIALS))
        {
            cost.measured(own_ns);
        }
        self.rules.cost_ns = median(&self.costs).min(self.watches.short_gap_ns());
    }

    /// What a hit takes of the time of a window.
    fn lost_to_a_hit_ns(&mut self) -> f64 {
        let least_ns = self.rules.cost_ns as f64;
        let whole_ns = self.whole_cost.as_ref().map_or(0.0, Cost::ns);
        whole_ns
            .max(least_ns)
            .min(self.watches.short_gap_ns() as f64)
    }

    /// Nothing has been watched since `paused_ns`.
    fn begin_rest(&mut self, paused_ns: u64) {
        let jitter = rand::rng().random_range(0.5..1.5);
        let lengths = (self.rest - 1.0).clamp(0.0, LONGEST_REST) * jitter;
        let length_ns = (WINDOW.as_nanos() as f64 * lengths) as u64;
        self.phase = Phase::Rest {
            since_ns: paused_ns,
            until_ns: watchpoint::now_ns() + length_ns,
        };
    }

    /// Begins and ends windows.
    fn turn(&mut self) {
        let now_ns = watchpoint::now_ns();
        match self.phase {
            Phase::Always => {}
            Phase::Rest {
                since_ns: rested_ns,
                until_ns,
            } if now_ns >= until_ns => {
                self.rules.window = Some(Window {
                    length_ns: WINDOW.as_nanos() as u64,
                    stands_for: self.rest.max(1.0),
                });
                let (hits, calls, times) = (self.watches.hits, self.calls(), self.watches.times());
                self.watches.go_on();
                // On a busy machine that took a while, which is of the rest.
                let since_ns = watchpoint::now_ns();
                self.rest_ns += since_ns.saturating_sub(rested_ns);
                self.phase = Phase::Window {
                    since_ns,
                    hits,
                    calls,
                    times,
                };
            }
            Phase::Window {
                since_ns,
                hits,
                calls,
                times,
            } if now_ns.saturating_sub(since_ns) >= WINDOW.as_nanos() as u64 => {
                self.watches.pause();
                let now_ns = watchpoint::now_ns();
                self.take();
                self.close();
                let hits = self.watches.hits.saturating_sub(hits) as f64;
                let mut new = self.calls();
                for (new, old) in new.iter_mut().zip(calls) {
                    *new = new.saturating_sub(old);
                }
                let lost = hits * self.lost_to_a_hit_ns() / 1e9;
                self.windows.shown.push(Shown {
                    seconds: now_ns.saturating_sub(since_ns) as f64 / 1e9,
                    lost,
                    calls: new,
                });
                let (cpu_ns, waited_ns) = self.watches.times();
                self.windows.cpu += cpu_ns.saturating_sub(times.0) as f64 / 1e9;
                self.windows.waited += waited_ns.saturating_sub(times.1) as f64 / 1e9;
                // So that a quiet window does not begin a costly time.
                self.rest = self.windows.cost_of_late() / MOST_COST;
                self.begin_rest(now_ns);
            }
            Phase::Rest { .. } | Phase::Window { .. } => {}
        }
    }

    fn outcome(mut self, seen: Vec<Seen>, stacks: u64) -> Outcome {
        let seconds = self.ended_ns.saturating_sub(self.began_ns).max(1) as f64 / 1e9;
        let unwatched = self.watches.refused.len() as u64;
        let counts = self.reference_counts();
        // Of a thread that came meanwhile nobody saw the first calls, and of a short-lived one hardly any.
        let is_lower = self.watches.lost || unwatched > 0 || self.watches.came > 0;
        let mut notes = Vec::new();
        if self.watches.lost {
            notes.push(
                "some hits were lost, as this machine is too busy: the calls are a lower bound"
                    .to_string(),
            );
        }
        if unwatched > 0 {
            notes.push(format!(
                "{unwatched} threads could not be watched (descriptors, or debug registers in use): their calls are missing"
            ));
        }
        if self.watches.came > 0 {
            notes.push(format!(
                "{} threads came meanwhile, and their first milliseconds were not watched: the calls are a lower bound",
                self.watches.came
            ));
        }
        if !self.windows.shown.is_empty() {
            notes.push(format!(
                "calls are so many that watching all of them would take more than {:.0} % of a thread's time: watched in {} \
                 windows of {} ms, and estimated (~) from these; calls longer than that have no duration here; --all watches \
                 everything",
                MOST_COST * 100.0,
                self.windows.shown.len(),
                WINDOW.as_millis()
            ));
        }
        let checked =
            self.windows.shown.is_empty() && !is_lower && self.watches.came == 0 && !self.died;
        let mut functions = Vec::new();
        let calls = self.calls();
        let tallies = std::mem::take(&mut self.tallies);
        let mut seen = seen.into_iter();
        for (index, tally) in tallies.into_iter().enumerate() {
            let mut notes = self.notes_of(index, &tally);
            if let (true, Some(Some(before)), Some(Some(after))) =
                (checked, self.counts.get(index), counts.get(index))
            {
                let off = (*after as i64 - *before as i64 - tally.balance).unsigned_abs();
                if off > 16 && off * 20 > tally.added {
                    notes.push(format!(
                        "its reference count does not follow the writes that were seen (off by {off}): the number of calls may be \
                         wrong"
                    ));
                }
            }
            let counted = calls.get(index).copied().unwrap_or(0);
            let (calls, sure) = self.estimate(index, counted, is_lower, &mut notes);
            functions.push(Counted {
                calls,
                sure,
                durations: tally.durations,
                left: tally.left,
                created: tally.created,
                reads: tally.reads,
                seen: seen.next().unwrap_or_default(),
                notes,
            });
        }
        Outcome {
            functions,
            seconds,
            threads: self.watches.len() as u64 + self.watches.ended,
            came: self.watches.came,
            unwatched,
            hits: self.watches.hits,
            cost_ns: self.rules.cost_ns,
            watched: (1.0 - self.rest_ns as f64 / 1e9 / seconds).clamp(0.0, 1.0),
            stacks,
            notes,
        }
    }

    fn notes_of(&self, index: usize, tally: &Tally) -> Vec<String> {
        let mut notes = Vec::new();
        if self.gone.get(index) == Some(&true) {
            notes.push("its code object was freed meanwhile; counted until then".to_string());
        }
        if tally.unknown > 0 {
            notes.push(format!(
                "{} writes could not be told apart: there may be as many more calls",
                tally.unknown
            ));
        }
        if tally.left > 0 {
            notes.push(format!(
                "{} calls have no duration: an exception left them, and Python 3.11 does not tell when",
                tally.left
            ));
        }
        if self.rules.ends == FrameEnds::AsCalls
            && !self.words.get(index).is_some_and(|word| word.lazy)
        {
            notes.push(
                "before 3.11, a call that an exception leaves lasts until its traceback is freed"
                    .to_string(),
            );
        }
        let median = tally.durations.percentiles([0.5]);
        if median.is_some_and(|[median]| median * 4 < self.rules.cost_ns) {
            notes.push(format!(
                "watching a call takes {:.1} us, far more than the call: durations below a microsecond or two are not sure",
                2.0 * self.rules.cost_ns as f64 / 1e3
            ));
        }
        if !self.writers.knows_create {
            notes.push(
                "this Python has no symbols: each function object made of it counts as two calls more".to_string(),
            );
        }
        notes
    }

    /// The number of calls, where only windows were watched.
    fn estimate(
        &self,
        index: usize,
        counted: u64,
        is_lower: bool,
        notes: &mut Vec<String>,
    ) -> (f64, Sure) {
        let at_least = (counted as f64, Sure::AtLeast);
        if self.windows.shown.is_empty() {
            return match is_lower {
                true => at_least,
                false => (counted as f64, Sure::Counted),
            };
        }
        let found = self
            .windows
            .estimate(index, counted, self.rest_ns as f64 / 1e9);
        if found.1 == Sure::AtLeast {
            notes.push(
                "its calls are too short beside what watching one costs, or too few windows were watched: the number is a lower \
                 bound"
                    .to_string(),
            );
        }
        found
    }
}

fn median(values: &[u64]) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or(0)
}
