//! What is known of one thread: its stack at the last sample, its functions, its clock, and the watches that are under way.

use rand::RngExt;
use rand::rngs::SmallRng;
use rustc_hash::FxHashMap;

use super::cost::Cost;
use super::dilation::Dilation;
use super::plan::{self, Plan, Purse};
use super::tally::{MOST_HITS, Part, Tally, Watched};
use super::{COLD_NS, Key, MOST_FUNCTIONS, Shown, Words};
use crate::profile::Tables;
use crate::sample::writers::{Meaning, Sequence};
use crate::sample::{FrameSample, Watchable};
use crate::target::watchpoint::{Access, Event, REGISTERS, Watch};

/// A watch that is under way.
#[derive(Debug)]
pub struct Current {
    pub tally: u32,
    pub access: Access,
    pub plan: Plan,
    pub watched: Watched,
    /// The thread's clock at its beginning.
    pub began_ns: f64,
    /// Writes of all kinds.
    pub writes: u64,
    /// What the next write may be part of.
    pub sequence: Sequence,
    /// Hits, and those that were left when the last sample was taken.
    pub hits: u64,
    pub hits_before: u64,
    /// Invocations on the stack at the sample before.
    pub depth_before: u32,
    /// Clock, and cost of hits, at the sample before.
    pub clock_before_ns: f64,
    pub lost_before_ns: f64,
    /// The clock, and the cost of hits, when its limit was reached.
    pub spent_at: Option<(f64, f64)>,
}

impl Current {
    /// One of the function of a tally, which has yet to [`Current::begin`].
    pub fn new(tally: u32, access: Access, plan: Plan, clock: &ThreadClock) -> Current {
        Current {
            tally,
            access,
            plan,
            watched: Watched::default(),
            began_ns: clock.ns,
            writes: 0,
            sequence: Sequence::default(),
            hits: 0,
            hits_before: 0,
            depth_before: 0,
            clock_before_ns: clock.ns,
            lost_before_ns: clock.lost_ns,
            spent_at: None,
        }
    }

    /// Takes down what is known of its function; `on`: whether that is on the stack.
    pub fn begin(&mut self, tally: &mut Tally, on: bool, cpu_ns: f64) {
        let (edge, edges_at_ns) = tally.edge(cpu_ns);
        self.watched = Watched {
            on,
            blind: self.plan.blind,
            edge,
            edges_at_ns,
            at_ns: [0, 1].map(|kind| tally.clock_ns(kind, cpu_ns)),
            ..Watched::default()
        };
        self.depth_before = tally.depth;
    }
}

/// One thread.
#[derive(Debug)]
pub struct Thread {
    pub watch: Option<Watch>,
    /// Not to be opened again.
    pub closed: bool,
    /// Whether it had no Python on its stack when it was looked at last.
    pub rests: bool,
    pub by_key: FxHashMap<Key, u32>,
    pub keys: Vec<Key>,
    pub tallies: Vec<Tally>,
    pub watchables: Vec<Option<Option<Watchable>>>,
    pub levels: Vec<Level>,
    /// Functions that take most of the time, as found every [`HOT_EVERY`] samples.
    pub hot: Vec<u32>,
    pub currents: [Option<Current>; REGISTERS],
    /// CPU time of all samples, and their number.
    pub cpu_ns: f64,
    pub samples: u64,
    pub dilation: Dilation,
    pub clock: ThreadClock,
}

/// A frame of the last sample.
#[derive(Debug, Clone, Copy)]
pub struct Level {
    pub tally: u32,
    pub frame: FrameSample,
}

/// CPU time of a thread without what hits cost it, as far as its events tell.
#[derive(Debug, Default)]
pub struct ThreadClock {
    /// Nanoseconds.
    pub ns: f64,
    /// What hits have cost.
    pub lost_ns: f64,
    /// When it was looked at last, while the thread is on a CPU.
    pub running_since: Option<u64>,
    /// Whether the last event was a hit.
    pub after_hit: bool,
}

impl ThreadClock {
    pub fn advance(&mut self, at_ns: u64, is_hit: bool, cost: &Cost) {
        if let Some(since) = self.running_since {
            let passed_ns = at_ns.saturating_sub(since) as f64;
            let unwatched_ns = if self.after_hit {
                cost.unwatched_ns(passed_ns)
            } else {
                passed_ns
            };
            self.ns += unwatched_ns;
            self.lost_ns += passed_ns - unwatched_ns;
        }
        self.after_hit = is_hit;
    }
}

impl Thread {
    pub fn new(random: &mut SmallRng) -> Thread {
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
            dilation: Dilation::new(random),
            clock: ThreadClock::default(),
        }
    }

    /// Nothing is on its stack any more; watches that are under way end without a result.
    pub fn rest(&mut self) {
        self.rests = true;
        self.drop_watches();
        self.pop(0);
    }

    /// Ends watches without a result.
    fn drop_watches(&mut self) {
        self.currents = Default::default();
        if let Some(watch) = &mut self.watch {
            (0..REGISTERS).for_each(|register| watch.clear(register));
        }
    }

    /// Ends all watches; what they saw since the last sample is dropped.
    pub fn close(&mut self) {
        self.watch = None;
        self.closed = true;
        self.currents = Default::default();
    }

    /// Takes what has happened since the last sample.
    pub fn take(&mut self, cost: &Cost, words: &mut Words, lost: &mut u64) {
        let Some(watch) = &mut self.watch else {
            return;
        };
        let (clock, currents, tallies) = (&mut self.clock, &mut self.currents, &mut self.tallies);
        let mut is_lost = false;
        watch.take(|event| match event {
            Event::In { at_ns } => {
                clock.running_since = Some(at_ns);
                clock.after_hit = false;
            }
            Event::Out { at_ns } => {
                clock.advance(at_ns, false, cost);
                clock.running_since = None;
            }
            Event::Lost => is_lost = true,
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
                let Some(tally) = tallies.get_mut(current.tally as usize) else {
                    return;
                };
                current.writes += 1;
                if current.writes >= u64::from(current.plan.limit) {
                    current.spent_at.get_or_insert((clock.ns, clock.lost_ns));
                }
                let meaning = match current.access {
                    Access::Execute => Meaning::Begin,
                    Access::Write => words.meaning(&mut current.sequence, instruction, tally),
                };
                match meaning {
                    Meaning::Nothing => return,
                    Meaning::NoBegin => {
                        current.hits = current.hits.saturating_sub(1);
                        // Beyond those that are remembered nothing is taken back.
                        if current.watched.hits_ns.len() as u64 > current.hits {
                            current.watched.hits_ns.pop();
                        }
                        return;
                    }
                    Meaning::Begin | Meaning::End => current.hits += 1,
                }
                let since_ns = clock.ns - current.began_ns - COLD_NS;
                let watched = &mut current.watched;
                if watched.hits_ns.len() < MOST_HITS {
                    let bit = 1 << watched.hits_ns.len();
                    watched.begins &= !bit;
                    watched.begins |= if meaning == Meaning::Begin { bit } else { 0 };
                    watched.hits_ns.push(since_ns as f32);
                }
            }
        });
        if is_lost {
            // Which hits, nobody knows: those that are under way tell nothing.
            *lost += 1;
            self.drop_watches();
        }
    }

    /// Takes over the stack of a sample.
    pub fn show(&mut self, tables: &Tables, shown: &Shown<'_>, random: &mut SmallRng) {
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
        tally.born_ns = self.cpu_ns;
        // Not on the stack until now.
        plan::next(&mut tally, 1, self.cpu_ns, random);
        self.by_key.insert(key, at);
        self.keys.push(key);
        self.watchables.push(None);
        self.tallies.push(tally);
        Some(at)
    }

    /// Adds the last interval between samples to the watches that are under way, and ends those that are due.
    pub fn advance(&mut self, purse: &mut Purse, random: &mut SmallRng) {
        for register in 0..REGISTERS {
            let Some(Some(current)) = self.currents.get_mut(register) else {
                continue;
            };
            let Some(tally) = self.tallies.get_mut(current.tally as usize) else {
                continue;
            };
            let now = (self.clock.ns, self.clock.lost_ns);
            let (until_ns, until_lost_ns) = current.spent_at.unwrap_or(now);
            let hits = current.hits.saturating_sub(current.hits_before);
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
            // Where a turn without watchpoints begins does not depend on what the watch has seen.
            let ends = covered_ns >= current.plan.length_ns || !self.dilation.allows();
            if current.watched.spent || ends {
                let watched = std::mem::take(&mut current.watched);
                let (hits_of_all, passed_ns) = (current.writes, until_ns - current.began_ns);
                if let Some(place) = self.currents.get_mut(register) {
                    *place = None;
                }
                if covered_ns > 0.0 {
                    tally.add(watched, |below| random.random_range(0..below));
                } else if watched.spent {
                    tally.drown(hits_of_all, passed_ns, watched.blind);
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
