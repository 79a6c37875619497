//! How often functions are called, counted while samples are taken: by watchpoints on what each call writes.
//!
//! Every call of a Python function writes the reference count of its code object twice, once when its frame is pushed and
//! once when it is cleared; every call of a C function executes its first instruction (facts measured on 3.8 to 3.15:
//! Python/ceval.c `_PyEvalFramePushAndInit`, `_PyEval_FrameClearAndPop`; Objects/frameobject.c up to 3.10). A watchpoint
//! sees each of them, in one thread, at a cost of microseconds each. So functions are watched for short stretches of time that
//! begin at samples, when it is known what is on the stack, and [`estimate`] tells from them how often they were called in all.
//!
//! Nothing is written to the target, it is not stopped, and what watches cost it is kept to a share of its time ([`plan`]).

pub(super) mod cost;
mod dilation;
mod estimate;
mod plan;
mod tally;
mod thread;

use rand::rngs::SmallRng;
use rustc_hash::{FxHashMap, FxHashSet};

use cost::Cost;
use estimate::Evidence;
use plan::Purse;
use tally::Tally;
use thread::{Current, Thread};

use super::writers::{FrameEnds, Meaning, Role, Sequence, Writers};
use super::{FrameSample, StackReader, Watchable};
use crate::profile::{CallEstimate, CallSource, Counted, FunctionId, Tables, ThreadId};
use crate::target::memory::Live;
use crate::target::watchpoint::{self, Access, REGISTERS, Refusal, Watch};
use crate::units::{Pid, Tid};

/// Most functions that are remembered of a thread.
const MOST_FUNCTIONS: usize = 50_000;

/// Most threads that are watched at a time: five descriptors and 36 KiB each.
const MOST_THREADS: usize = 64;

/// Threads of which everything is remembered, whether they have ended or not.
const MOST_REMEMBERED: usize = 256;

/// Samples after which it is found out anew which functions take most of the time.
const HOT_EVERY: u64 = 64;

/// Registers for watches of any length; the others are for short ones.
const LONG_REGISTERS: usize = 2;

/// CPU time after the beginning of a watch that is left out: the thread comes back from a switch and finds its data out
/// of the caches, so it is slow (by a third in the first 20 us, by a twentieth after 50).
const COLD_NS: f64 = 60_000.0;

/// Share of the CPU time of all threads from which on a thread is alone: others that take turns with it at the lock slow it
/// down now and then, which watches see too little of.
const ALONE: f64 = 0.95;

/// CPU time after which a function that could not be watched is asked again, nanoseconds.
const AGAIN_NS: f64 = 3e8;

/// Calls that began and calls that ended in watches, by how much of their sum they may differ.
const UNEVEN: f64 = 0.05;

/// Writes of which nobody knows what they are, as a share of all, from which on nothing is said; likewise frames that outlive
/// their call where their making cannot be told from a call.
const MOST_UNKNOWN: f64 = 0.02;

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
    words: Words,
    refused: Option<Refusal>,
    /// Whether registers were taken by others, and whether any was to be had.
    busy: bool,
    has_watched: bool,
    /// Results of threads that have ended, and what is known from samples alone.
    done: FxHashMap<(ThreadId, FunctionId), CallEstimate>,
    bounds: FxHashSet<(ThreadId, FunctionId)>,
    /// CPU time of all threads.
    cpu_ns: f64,
    /// CPU time at which the cost of a hit is measured next.
    measure_at_ns: f64,
    lost: u64,
}

/// What writes to reference counts mean in the process.
#[derive(Debug)]
struct Words {
    memory: Live,
    writers: Writers,
    frames: FrameEnds,
}

impl Words {
    fn meaning(&mut self, sequence: &mut Sequence, instruction: u64, tally: &mut Tally) -> Meaning {
        let memory = self.memory;
        let role = self.writers.role_in(&memory, instruction);
        tally.writes += 1;
        tally.unknown += u64::from(role == Role::Unknown);
        tally.frame_ends += u64::from(role == Role::FrameEnd);
        let meaning = sequence.take(role, self.frames);
        match meaning {
            Meaning::Begin => tally.calls[0] += 1,
            Meaning::End => tally.calls[1] += 1,
            Meaning::NoBegin => tally.calls[0] = tally.calls[0].saturating_sub(1),
            Meaning::Nothing => {}
        }
        meaning
    }

    /// Whether hits of a function are its calls' beginnings and ends and nothing else.
    fn are_calls(&self, tally: &Tally, watchable: &Watchable) -> bool {
        let most = MOST_UNKNOWN * tally.writes as f64;
        let kept = self.frames == FrameEnds::Apart && !self.writers.knows_keep;
        let made = watchable.shared && !self.writers.knows_create;
        // Frames in a cycle, which end with a collection of garbage; code objects that were read and are kept.
        let [begun, ended] = tally.calls.map(|calls| calls as f64);
        let even = (begun - ended).abs() <= UNEVEN * (begun + ended) + 3.0 * (begun + ended).sqrt();
        tally.unknown as f64 <= most && !(kept && tally.frame_ends as f64 > most) && !made && even
    }

    /// Whether calls of a function are seen to end when they do.
    fn ends_in_time(&self, tally: &Tally) -> bool {
        tally.frame_ends == 0 || self.frames == FrameEnds::Apart
    }
}

/// What has to be known before calls can be counted.
pub struct Prepared {
    /// What a hit costs, nanoseconds.
    cost_ns: u64,
    writers: Writers,
}

impl Prepared {
    /// Finds it out, in some tens of milliseconds: for the first watchpoint of a machine the kernel waits, and all symbols are
    /// read. The process has Python 3.`minor`. Fails where there are no watchpoints.
    pub fn find(pid: Pid, minor: u32) -> Result<Prepared, Refusal> {
        Ok(Prepared {
            cost_ns: watchpoint::cost_of_a_hit(cost::TRIALS)?,
            writers: Writers::find(pid, minor),
        })
    }
}

impl Watching {
    /// The process has Python 3.`minor`.
    pub fn new(pid: Pid, minor: u32, prepared: Prepared) -> Watching {
        Watching {
            threads: FxHashMap::default(),
            open: 0,
            cost: Cost::new(prepared.cost_ns),
            purse: Purse::default(),
            random: rand::make_rng(),
            words: Words {
                memory: Live::new(pid),
                writers: prepared.writers,
                frames: FrameEnds::of(minor),
            },
            refused: None,
            busy: false,
            has_watched: false,
            done: FxHashMap::default(),
            bounds: FxHashSet::default(),
            cpu_ns: 0.0,
            measure_at_ns: cost::EVERY_NS,
            lost: 0,
        }
    }

    /// Why no thread could be watched, if that is so.
    pub fn refused(&self) -> Option<Refusal> {
        let busy = (self.busy && !self.has_watched).then_some(Refusal::Busy);
        self.refused.or(busy)
    }

    /// Takes over a sample of a thread, which has been added to the profile, ends watches and begins others.
    pub fn sample(&mut self, tables: &Tables, reader: &mut dyn StackReader, shown: &Shown<'_>) {
        let random = &mut self.random;
        let thread = self.threads.entry(shown.thread);
        let thread = thread.or_insert_with(|| Thread::new(random));
        thread.take(&self.cost, &mut self.words, &mut self.lost);
        thread.show(tables, shown, &mut self.random);
        let cpu_ns = shown.cpu_ns as f64;
        thread.cpu_ns += cpu_ns;
        self.cpu_ns += cpu_ns;
        if self.cpu_ns >= self.measure_at_ns {
            self.measure_at_ns = self.cpu_ns + cost::EVERY_NS;
            if let Ok(own_ns) = watchpoint::cost_of_a_hit(cost::TRIALS) {
                self.cost.measured(own_ns);
            }
        }
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
            let at = top.frame.frame;
            thread.dilation.sample(at, cpu_ns, &mut self.random);
            let own = thread.tallies.get_mut(top.tally as usize);
            if let Some(own) = own {
                own.own_ns += cpu_ns;
            }
        }
        self.purse.earn(cpu_ns);
        thread.advance(&mut self.purse, &mut self.random);
        thread.rests = false;
        if shown.on_cpu && !thread.closed && self.purse.has_any() && thread.dilation.allows() {
            if thread.watch.is_none() {
                self.make_room();
                if self.open >= MOST_THREADS || !watchpoint::has_descriptors(1 + REGISTERS) {
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
            tally.hopeless_ns = plan::hopeless_ns(self.cost.ns());
            tally.is_cheap = plan.is_cheap();
            plan::next(tally, kind, thread.cpu_ns, &mut self.random);
            let key = thread.keys.get(chosen as usize).copied();
            let known = thread.watchables.get_mut(chosen as usize);
            let (Some(key), Some(known)) = (key, known) else {
                return;
            };
            let watchable = *known.get_or_insert_with(|| reader.watchable(key.0, key.1));
            let Some(watchable) = watchable else {
                // It may be asked again: a C function is not known before it was seen, for one.
                *known = None;
                tally.due = [0, 1].map(|kind| (tally.clock_ns(kind, thread.cpu_ns), AGAIN_NS));
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
                    self.has_watched = true;
                    let mut current = Current::new(chosen, watchable.access, plan, &thread.clock);
                    current.begin(tally, kind == 0, thread.cpu_ns);
                    if let Some(place) = thread.currents.get_mut(register) {
                        *place = Some(current);
                    }
                }
                Err(Refusal::Busy) => {
                    // A debugger has this one.
                    self.busy = true;
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
            thread.take(&self.cost, &mut self.words, &mut self.lost);
            thread.rest();
        }
        if self.threads.len() > MOST_REMEMBERED {
            self.forget();
        }
    }

    /// Threads that have ended are told by their numbers alone.
    fn forget(&mut self) {
        let resting = |thread: &mut Thread| thread.rests;
        let ended: Vec<_> = self
            .threads
            .extract_if(|_, thread| resting(thread))
            .collect();
        for (id, thread) in ended {
            self.open -= usize::from(thread.watch.is_some());
            self.add(id, thread);
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
        for (id, thread) in std::mem::take(&mut self.threads) {
            self.add(id, thread);
        }
        // A sum of which one part is no more than a lower bound is one.
        let mut done = std::mem::take(&mut self.done);
        done.retain(|key, estimate| estimate.error.is_none() || !self.bounds.contains(key));
        done.into_iter()
            .map(|((thread, function), estimate)| Counted {
                thread,
                function,
                estimate,
                callers: Vec::new(),
            })
            .collect()
    }

    /// Adds what is known of a thread to the results.
    fn add(&mut self, id: ThreadId, mut thread: Thread) {
        thread.take(&self.cost, &mut self.words, &mut self.lost);
        thread.close();
        let cpu_ns = thread.cpu_ns;
        for tally in &mut thread.tallies {
            tally.settle(cpu_ns);
        }
        let keys = std::mem::take(&mut thread.keys);
        for ((key, tally), watchable) in keys.iter().zip(&thread.tallies).zip(&thread.watchables) {
            let Some(watchable) = watchable.flatten() else {
                continue;
            };
            let estimate = self.estimate(&thread, tally, &watchable);
            if estimate.error.is_none() && estimate.calls <= tally.seen as f64 {
                // No more than what samples say.
                self.bounds.insert((id, key.1));
                continue;
            }
            self.done
                .entry((id, key.1))
                .and_modify(|sum| *sum = added(*sum, estimate))
                .or_insert(estimate);
        }
    }

    fn estimate(&self, thread: &Thread, tally: &Tally, watchable: &Watchable) -> CallEstimate {
        let on_ns = tally.on_ns(thread.cpu_ns);
        let evidence = Evidence {
            watches: &tally.watches,
            edges: &tally.edges,
            on_ns,
            off_ns: (thread.cpu_ns - on_ns - tally.born_ns).max(0.0),
            is_alone: thread.cpu_ns > ALONE * self.cpu_ns,
            deepest: tally.deepest,
            drowned: tally.drowned,
            period_ns: thread.cpu_ns / thread.samples.max(1) as f64,
            on_samples: tally.on_samples(thread.samples),
            seen: tally.seen,
            share: match watchable.access {
                Access::Execute => 1.0,
                Access::Write if self.words.are_calls(tally, watchable) => 0.5,
                Access::Write => 0.0,
            },
            paired: watchable.access == Access::Write,
            alternates: watchable.access == Access::Write
                && tally.deepest <= 1
                && self.words.ends_in_time(tally),
            runs: tally.runs,
            cost_ns: self.cost.ns(),
            cost_error: self.cost.error(),
        };
        evidence.estimate()
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
