//! How often functions are called, counted while samples are taken: by watchpoints on what each call writes.
//!
//! Every call of a Python function writes the reference count of its code object twice, once when its frame is pushed and
//! once when it is cleared; every call of a C function executes its first instruction (facts measured on 3.8 to 3.15:
//! Python/ceval.c `_PyEvalFramePushAndInit`, `_PyEval_FrameClearAndPop`; Objects/frameobject.c up to 3.10). A watchpoint
//! sees each of them, in one thread, at a cost of microseconds each. So functions are watched for short stretches of time that
//! begin at samples, when it is known what is on the stack, and [`estimate`] tells from them how often they were called in all.
//!
//! Nothing is written to the target, it is not stopped, and what watches cost it is kept to a share of its time ([`plan`]).

mod cost;
mod estimate;
mod plan;
mod tally;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rustc_hash::{FxHashMap, FxHashSet};

use cost::Cost;
use estimate::Evidence;
use plan::{Plan, Purse};
use tally::{MOST_HITS, Part, Tally, Watched};

use super::{FrameSample, StackReader, Watchable};
use crate::profile::{CallEstimate, CallSource, Counted, FunctionId, Tables, ThreadId};
use crate::target::watchpoint::{self, Access, Event, REGISTERS, Refusal, Watch};
use crate::units::Tid;

/// Hits by which the cost of one is measured at the start.
const TRIALS: u32 = 100;

/// Most functions that are remembered of a thread.
const MOST_FUNCTIONS: usize = 50_000;

/// Most threads that are watched at a time: five descriptors and 36 KiB each.
const MOST_THREADS: usize = 64;

/// Samples after which it is found out anew which functions take most of the time.
const HOT_EVERY: u64 = 64;

/// Registers for watches of any length; the others are for short ones.
const LONG_REGISTERS: usize = 2;

/// CPU time after the beginning of a watch that is left out: the thread comes back from a switch and finds its data out
/// of the caches, so it is slow (by a third in the first 20 us, by a thirtieth after 45).
const COLD_NS: f64 = 40_000.0;

/// A place that ends calls so much more often than it begins them ends calls.
const CLEARLY: u64 = 4;

/// Share of hits that ends calls where each call has two: as good as a half.
const HALF: std::ops::RangeInclusive<f64> = 0.46..=0.54;

/// A thread as a sample showed it.
#[derive(Debug)]
pub struct Shown<'a> {
    /// Its place in the profile.
    pub thread: ThreadId,
    /// Its id in the kernel.
    pub tid: Option<Tid>,
    /// Its stack, outermost first.
    pub frames: &'a [FrameSample],
    /// The depth from which on frames are other invocations than in the sample before.
    pub fresh_from: Option<usize>,
    /// CPU time that the sample stands for, nanoseconds.
    pub cpu_ns: u64,
    /// Whether it was on a CPU.
    pub on_cpu: bool,
}

/// A function: its code object and what is there, since another one may get its address; 0 for C functions.
type Key = (u32, FunctionId);

/// Counts the calls of one process.
#[derive(Debug)]
pub struct Watching {
    threads: FxHashMap<ThreadId, Thread>,
    open: usize,
    cost: Cost,
    purse: Purse,
    random: SmallRng,
    /// Places that write reference counts when a call begins or ends: how often they did the one and the other.
    places: FxHashMap<u64, [u64; 2]>,
    refused: Option<Refusal>,
    lost: u64,
}

/// A watch that is under way.
#[derive(Debug)]
struct Current {
    tally: u32,
    access: Access,
    plan: Plan,
    watched: Watched,
    /// The thread's clock at its beginning.
    began_ns: f64,
    /// Hits, and those that were left when the last sample was taken.
    hits: u64,
    hits_before: u64,
    /// Invocations on the stack at its beginning, and at the sample before.
    depth_at_first: u32,
    depth_before: u32,
    /// Clock, and cost of hits, at the sample before.
    clock_before_ns: f64,
    lost_before_ns: f64,
    /// The clock, and the cost of hits, when its limit was reached.
    spent_at: Option<(f64, f64)>,
}

/// One thread.
#[derive(Debug)]
struct Thread {
    watch: Option<Watch>,
    /// Not to be opened again.
    closed: bool,
    /// Whether it had no Python on its stack when it was looked at last.
    rests: bool,
    by_key: FxHashMap<Key, u32>,
    keys: Vec<Key>,
    tallies: Vec<Tally>,
    watchables: Vec<Option<Option<Watchable>>>,
    levels: Vec<Level>,
    /// Functions that take most of the time, as found every [`HOT_EVERY`] samples.
    hot: Vec<u32>,
    currents: [Option<Current>; REGISTERS],
    /// CPU time of all samples, and their number.
    cpu_ns: f64,
    samples: u64,
    clock: ThreadClock,
}

/// A frame of the last sample.
#[derive(Debug, Clone, Copy)]
struct Level {
    tally: u32,
    frame: FrameSample,
}

/// CPU time of a thread without what hits cost it, as far as its events tell.
#[derive(Debug, Default)]
struct ThreadClock {
    /// Nanoseconds.
    ns: f64,
    /// What hits have cost.
    lost_ns: f64,
    /// When it was looked at last, while the thread is on a CPU.
    running_since: Option<u64>,
    /// Whether the last event was a hit.
    after_hit: bool,
}

impl ThreadClock {
    fn advance(&mut self, at_ns: u64, is_hit: bool, cost: &mut Cost) {
        if let Some(since) = self.running_since {
            let passed = at_ns.saturating_sub(since);
            if is_hit && self.after_hit {
                cost.gap(passed);
            }
            let cost_ns = if is_hit { cost.ns() } else { 0.0 };
            // Less than nothing, now and then: costs differ, and on average it is right.
            self.ns += passed as f64 - cost_ns;
            self.lost_ns += cost_ns;
        }
        self.after_hit = is_hit;
    }
}

impl Watching {
    /// Measures what a hit costs; fails where there are no watchpoints.
    pub fn new() -> Result<Watching, Refusal> {
        let cost_ns = watchpoint::cost_of_a_hit(TRIALS)?;
        Ok(Watching {
            threads: FxHashMap::default(),
            open: 0,
            cost: Cost::new(cost_ns),
            purse: Purse::default(),
            random: SmallRng::from_os_rng(),
            places: FxHashMap::default(),
            refused: None,
            lost: 0,
        })
    }

    /// Why no thread could be watched, if that is so.
    pub fn refused(&self) -> Option<Refusal> {
        self.refused
    }

    /// Takes over a sample of a thread, which has been added to the profile, ends watches and begins others.
    pub fn sample(&mut self, tables: &Tables, reader: &mut dyn StackReader, shown: &Shown<'_>) {
        let thread = self.threads.entry(shown.thread).or_insert_with(Thread::new);
        thread.take(&mut self.cost, &mut self.places, &mut self.lost);
        thread.show(tables, shown, &mut self.random);
        let cpu_ns = shown.cpu_ns as f64;
        thread.cpu_ns += cpu_ns;
        thread.samples += 1;
        if thread.samples.is_multiple_of(HOT_EVERY) {
            thread.hot = plan::hot(&thread.tallies, thread.cpu_ns);
            for at in &thread.hot {
                if let Some(tally) = thread.tallies.get_mut(*at as usize) {
                    plan::hasten(tally, thread.cpu_ns, &mut self.random);
                }
            }
        }
        if let Some(top) = thread.levels.last() {
            let own = thread.tallies.get_mut(top.tally as usize);
            if let Some(own) = own {
                own.own_ns += cpu_ns;
            }
        }
        self.purse.earn(cpu_ns);
        thread.advance(&mut self.purse, &mut self.random);
        thread.rests = false;
        if shown.on_cpu && !thread.closed && self.purse.has_any() {
            if thread.watch.is_none() {
                self.make_room();
                if self.open >= MOST_THREADS {
                    return;
                }
            }
            self.begin(reader, shown);
        }
    }

    /// Begins watches in registers that are free.
    fn begin(&mut self, reader: &mut dyn StackReader, shown: &Shown<'_>) {
        let Some(thread) = self.threads.get_mut(&shown.thread) else {
            return;
        };
        let period_ns = thread.cpu_ns / thread.samples.max(1) as f64;
        let mut refused = FxHashSet::default();
        let mut register = 0;
        while register < REGISTERS {
            if thread.currents.get(register).is_none_or(Option::is_some) {
                register += 1;
                continue;
            }
            let (watched, purse) = (&thread.currents, &self.purse);
            let chosen = plan::choose(
                &thread.tallies,
                thread.levels.iter().map(|level| level.tally),
                &thread.hot,
                thread.cpu_ns,
                purse,
                &mut self.random,
                |at, tally| {
                    let is_watched = watched.iter().flatten().any(|c| c.tally == at);
                    let fits = register < LONG_REGISTERS || plan::plan(tally, period_ns).is_short();
                    !is_watched && fits && !refused.contains(&at)
                },
            );
            let Some(chosen) = chosen else {
                return;
            };
            let Some(tally) = thread.tallies.get_mut(chosen as usize) else {
                return;
            };
            let kind = usize::from(tally.depth == 0);
            let plan = plan::plan(tally, period_ns);
            tally.expected_cost = plan.expected / 10.0;
            plan::next(tally, kind, thread.cpu_ns, &mut self.random);
            let key = thread.keys.get(chosen as usize).copied();
            let known = thread.watchables.get_mut(chosen as usize);
            let (Some(key), Some(known)) = (key, known) else {
                return;
            };
            let watchable = *known.get_or_insert_with(|| reader.watchable(key.0, key.1));
            let Some(watchable) = watchable else {
                // It is not due again.
                tally.due = [(f64::INFINITY, 1.0); 2];
                refused.insert(chosen);
                continue;
            };
            if thread.watch.is_none() {
                let Some(tid) = shown.tid else {
                    return;
                };
                match Watch::open(tid) {
                    Ok(watch) => {
                        thread.watch = Some(watch);
                        self.open += 1;
                    }
                    Err(why) => {
                        thread.closed = true;
                        self.refused = Some(why);
                        return;
                    }
                }
            }
            let Some(watch) = &mut thread.watch else {
                return;
            };
            self.purse.set();
            let set = watch.set(
                register,
                watchable.address,
                watchable.access,
                Some(plan.limit),
            );
            match set {
                Ok(()) => {
                    let (edge, edges_at_ns) = tally.edge(thread.cpu_ns);
                    let at_ns = [0, 1].map(|kind| tally.clock_ns(kind, thread.cpu_ns));
                    let current = Current {
                        tally: chosen,
                        access: watchable.access,
                        plan,
                        watched: Watched {
                            on: kind == 0,
                            blind: plan.blind,
                            edge,
                            edges_at_ns,
                            at_ns,
                            ..Watched::default()
                        },
                        began_ns: thread.clock.ns,
                        hits: 0,
                        hits_before: 0,
                        depth_at_first: tally.depth,
                        depth_before: tally.depth,
                        clock_before_ns: thread.clock.ns,
                        lost_before_ns: thread.clock.lost_ns,
                        spent_at: None,
                    };
                    if let Some(place) = thread.currents.get_mut(register) {
                        *place = Some(current);
                    }
                }
                Err(Refusal::Busy) => {
                    // A debugger has this one.
                    register += 1;
                }
                Err(Refusal::Gone) => {
                    thread.close();
                    self.open = self.open.saturating_sub(1);
                    return;
                }
                Err(_) => {
                    refused.insert(chosen);
                }
            }
        }
    }

    /// A thread has ended, or has no Python on its stack any more.
    pub fn gone(&mut self, thread: ThreadId) {
        if let Some(thread) = self.threads.get_mut(&thread) {
            thread.take(&mut self.cost, &mut self.places, &mut self.lost);
            thread.rest();
        }
    }

    /// Closes the watches of threads that have ended, to make room for others.
    fn make_room(&mut self) {
        if self.open < MOST_THREADS {
            return;
        }
        for thread in self.threads.values_mut().filter(|thread| thread.rests) {
            self.open -= usize::from(thread.watch.take().is_some());
        }
    }

    /// The calls of all functions that were watched.
    pub fn finish(mut self) -> Vec<Counted> {
        let threads = std::mem::take(&mut self.threads);
        let mut found: FxHashMap<(ThreadId, FunctionId), CallEstimate> = FxHashMap::default();
        for (id, mut thread) in threads {
            thread.take(&mut self.cost, &mut self.places, &mut self.lost);
            thread.close();
            let cpu_ns = thread.cpu_ns;
            for tally in &mut thread.tallies {
                tally.settle(cpu_ns);
            }
            let keys = std::mem::take(&mut thread.keys);
            for ((key, tally), watchable) in
                keys.iter().zip(&thread.tallies).zip(&thread.watchables)
            {
                let Some(watchable) = watchable.flatten() else {
                    continue;
                };
                let estimate = self.estimate(&thread, tally, &watchable);
                found
                    .entry((id, key.1))
                    .and_modify(|sum| *sum = added(*sum, estimate))
                    .or_insert(estimate);
            }
        }
        found
            .into_iter()
            .map(|((thread, function), estimate)| Counted {
                thread,
                function,
                estimate,
                callers: Vec::new(),
            })
            .collect()
    }

    fn estimate(&self, thread: &Thread, tally: &Tally, watchable: &Watchable) -> CallEstimate {
        let on_ns = tally.on_ns(thread.cpu_ns);
        let evidence = Evidence {
            watches: &tally.watches,
            edges: &tally.edges,
            on_ns,
            off_ns: (thread.cpu_ns - on_ns).max(0.0),
            period_ns: thread.cpu_ns / thread.samples.max(1) as f64,
            on_samples: tally.on_samples(thread.samples),
            seen: tally.seen,
            share: match watchable.access {
                Access::Execute => 1.0,
                Access::Write => self.share_of_ends(tally, watchable.shared),
            },
            paired: watchable.access == Access::Write,
            alternates: watchable.access == Access::Write
                && !watchable.shared
                && tally.deepest <= 1,
            runs: tally.runs,
            cost_ns: self.cost.ns(),
            cost_error: self.cost.error(),
        };
        evidence.estimate()
    }

    /// Of the writes to a code object's reference count, those that end calls: half of them, unless something else writes
    /// there too.
    fn share_of_ends(&self, tally: &Tally, shared: bool) -> f64 {
        let ends = |instruction: u64| {
            let [begun, ended] = self.places.get(&instruction).copied().unwrap_or_default();
            ended > CLEARLY * begun && ended >= CLEARLY
        };
        let all: u64 = tally.sites.iter().map(|site| site.hits).sum();
        let ended = tally.sites.iter().filter(|site| ends(site.instruction));
        let ended: u64 = ended.map(|site| site.hits).sum();
        let share = ended as f64 / all.max(1) as f64;
        if HALF.contains(&share) || (!shared && ended == 0) || all < 8 {
            return if shared && ended == 0 { 0.0 } else { 0.5 };
        }
        share
    }
}

impl Thread {
    fn new() -> Thread {
        Thread {
            watch: None,
            closed: false,
            rests: false,
            by_key: FxHashMap::default(),
            keys: Vec::new(),
            tallies: Vec::new(),
            watchables: Vec::new(),
            levels: Vec::new(),
            hot: Vec::new(),
            currents: Default::default(),
            cpu_ns: 0.0,
            samples: 0,
            clock: ThreadClock::default(),
        }
    }

    /// Nothing is on its stack any more; watches that are under way end without a result.
    fn rest(&mut self) {
        self.rests = true;
        self.currents = Default::default();
        if let Some(watch) = &mut self.watch {
            (0..REGISTERS).for_each(|register| watch.clear(register));
        }
        self.pop(0);
    }

    /// Ends all watches; what they saw since the last sample is dropped.
    fn close(&mut self) {
        self.watch = None;
        self.closed = true;
        self.currents = Default::default();
    }

    /// Takes what has happened since the last sample.
    fn take(&mut self, cost: &mut Cost, places: &mut FxHashMap<u64, [u64; 2]>, lost: &mut u64) {
        let Some(watch) = &mut self.watch else {
            return;
        };
        let (clock, currents, tallies) = (&mut self.clock, &mut self.currents, &mut self.tallies);
        let watchables = &self.watchables;
        watch.take(|event| match event {
            Event::In { at_ns } => {
                clock.running_since = Some(at_ns);
                clock.after_hit = false;
            }
            Event::Out { at_ns } => {
                clock.advance(at_ns, false, cost);
                clock.running_since = None;
            }
            Event::Lost => *lost += 1,
            Event::Hit {
                register,
                at_ns,
                instruction,
            } => {
                clock.advance(at_ns, true, cost);
                clock.running_since = Some(at_ns);
                let Some(Some(current)) = currents.get_mut(register) else {
                    return;
                };
                current.hits += 1;
                let since_ns = clock.ns - current.began_ns - COLD_NS;
                if current.watched.hits_ns.len() < MOST_HITS {
                    current.watched.hits_ns.push(since_ns as f32);
                }
                if current.hits >= u64::from(current.plan.limit) {
                    current.spent_at.get_or_insert((clock.ns, clock.lost_ns));
                }
                let Some(tally) = tallies.get_mut(current.tally as usize) else {
                    return;
                };
                tally.site(instruction);
                let shared = watchables.get(current.tally as usize);
                let shared = shared
                    .copied()
                    .flatten()
                    .flatten()
                    .is_some_and(|w| w.shared);
                if current.access == Access::Write && !shared && current.depth_at_first <= 1 {
                    // On the stack once: the first write is a return, the next one a call.
                    let ends = (current.hits % 2 == 1) == (current.depth_at_first == 1);
                    if let Some(count) = places
                        .entry(instruction)
                        .or_default()
                        .get_mut(usize::from(ends))
                    {
                        *count += 1;
                    }
                }
            }
        });
    }

    /// Takes over the stack of a sample.
    fn show(&mut self, tables: &Tables, shown: &Shown<'_>, random: &mut SmallRng) {
        let fresh = shown.fresh_from.unwrap_or(usize::MAX);
        let key = |frame: &FrameSample| (frame.code, tables.get_frame(frame.frame).function);
        let mut same = 0;
        for (level, frame) in self.levels.iter_mut().zip(shown.frames).take(fresh) {
            let known = &level.frame;
            let is_equal = known.frame == frame.frame && known.code == frame.code;
            if !is_equal && key(known) != key(frame) {
                break;
            }
            level.frame = *frame;
            same += 1;
        }
        self.pop(same);
        for (depth, frame) in shown.frames.iter().enumerate().skip(same) {
            let Some(at) = self.tally(key(frame), random) else {
                break;
            };
            let Some(tally) = self.tallies.get_mut(at as usize) else {
                break;
            };
            let caller = self.levels.last().map(|level| level.tally);
            tally.enter(self.cpu_ns, self.samples, caller);
            // What was never seen before was called once at least.
            if depth >= fresh || tally.seen == 0 {
                tally.seen += 1;
                tally.seen_now += 1;
            }
            self.levels.push(Level {
                tally: at,
                frame: *frame,
            });
        }
    }

    /// Takes frames off the stack until `kept` are left.
    fn pop(&mut self, kept: usize) {
        while self.levels.len() > kept
            && let Some(level) = self.levels.pop()
        {
            let Some(tally) = self.tallies.get_mut(level.tally as usize) else {
                continue;
            };
            // A function that calls itself: who has called the invocation that is left?
            let mut caller = None;
            if tally.depth > 1 {
                let below = self.levels.iter().rposition(|l| l.tally == level.tally);
                let below = below.and_then(|at| at.checked_sub(1));
                caller = below.and_then(|at| self.levels.get(at)).map(|l| l.tally);
            }
            tally.leave(self.cpu_ns, self.samples, caller);
        }
    }

    /// The place of a function's tally.
    fn tally(&mut self, key: Key, random: &mut SmallRng) -> Option<u32> {
        if let Some(&at) = self.by_key.get(&key) {
            return Some(at);
        }
        if self.tallies.len() >= MOST_FUNCTIONS {
            return None;
        }
        let at = self.tallies.len() as u32;
        let mut tally = Tally::default();
        // Not on the stack until now.
        plan::next(&mut tally, 1, self.cpu_ns, random);
        self.by_key.insert(key, at);
        self.keys.push(key);
        self.watchables.push(None);
        self.tallies.push(tally);
        Some(at)
    }

    /// Adds the last interval between samples to the watches that are under way, and ends those that are due.
    fn advance(&mut self, purse: &mut Purse, random: &mut SmallRng) {
        for register in 0..REGISTERS {
            let Some(Some(current)) = self.currents.get_mut(register) else {
                continue;
            };
            let Some(tally) = self.tallies.get_mut(current.tally as usize) else {
                continue;
            };
            let now = (self.clock.ns, self.clock.lost_ns);
            let (until_ns, until_lost_ns) = current.spent_at.unwrap_or(now);
            let hits = current.hits - current.hits_before;
            let kind = match (current.spent_at, tally.depth) {
                // How it ends is not known.
                (Some(_), _) => usize::from(!current.watched.on),
                (None, depth) => usize::from(depth == 0),
            };
            if let Some(part) = current.watched.parts.get_mut(kind) {
                let whole = current.spent_at.is_none();
                let more = f64::from(tally.depth) - f64::from(current.depth_before);
                *part = Part {
                    cpu_ns: part.cpu_ns + (until_ns - current.clock_before_ns).max(0.0),
                    hits: part.hits + hits as f64,
                    more: part.more + if whole { more } else { 0.0 },
                    seen: part.seen
                        + if whole {
                            f64::from(tally.seen_now)
                        } else {
                            0.0
                        },
                };
            }
            let lost_ns = self.clock.lost_ns - current.lost_before_ns;
            let covered_ns = (until_ns - current.began_ns - COLD_NS).max(0.0);
            current.watched.covered_ns = covered_ns;
            current.watched.lost_ns += (until_lost_ns - current.lost_before_ns).max(0.0);
            purse.spend(lost_ns / self.watched_now().max(1) as f64);
            let Some(Some(current)) = self.currents.get_mut(register) else {
                continue;
            };
            let Some(tally) = self.tallies.get_mut(current.tally as usize) else {
                continue;
            };
            current.hits_before = current.hits;
            current.depth_before = tally.depth;
            current.clock_before_ns = self.clock.ns;
            current.lost_before_ns = self.clock.lost_ns;
            current.watched.spent = current.spent_at.is_some();
            if current.watched.spent || covered_ns >= current.plan.length_ns {
                let watched = std::mem::take(&mut current.watched);
                if let Some(place) = self.currents.get_mut(register) {
                    *place = None;
                }
                if covered_ns > 0.0 {
                    tally.add(watched, |below| random.random_range(0..below));
                }
                if let Some(watch) = &mut self.watch {
                    watch.clear(register);
                }
            }
        }
        for level in &self.levels {
            if let Some(tally) = self.tallies.get_mut(level.tally as usize) {
                tally.seen_now = 0;
            }
        }
    }

    fn watched_now(&self) -> usize {
        self.currents.iter().flatten().count()
    }
}

fn added(a: CallEstimate, b: CallEstimate) -> CallEstimate {
    let error = match (a.error, b.error) {
        (Some(a), Some(b)) => Some(a.hypot(b)),
        _ => None,
    };
    CallEstimate {
        calls: a.calls + b.calls,
        error,
        source: match error {
            Some(_) => CallSource::Watchpoint,
            None => CallSource::LowerBound,
        },
    }
}
