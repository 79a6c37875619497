//! Stacks that were copied in the timer interrupts of their own threads (`target::interrupt`), decoded some milliseconds later,
//! and those of threads that are off the CPU, read from outside.
//!
//! A thread that is interrupted stands still while it is copied; so the copy is all that may be read of what changes: its
//! state, its frames and their evaluation stacks, the lock. Code objects and C functions are read when the copy is decoded, and
//! where one of them may have been another one at the interrupt, the sample is given up. A thread that sleeps, or waits for a CPU,
//! stands still until it comes onto one, which the kernel tells.

mod plans;

use std::collections::VecDeque;

use rand::RngExt;
use rustc_hash::FxHashSet;

use plans::{Layout, blocks, load};

use super::lock::LockWords;
use super::presence::{Off, Presence};
use super::thread::{Thread, Walk};
use super::window::{Beside, Window};
use super::{FastReader, Stillness, decode::Decoder, fault};
use crate::layout;
use crate::profile::Tables;
use crate::sample::{Fault, Glimpse, Interrupted, Sleeper, ThreadStacks};
use crate::target::interrupt::program::{self, Plan, record};
use crate::target::interrupt::{Interrupts, MOST_THREADS, Switches};
use crate::target::memory::{Memory, Range};
use crate::target::watchpoint::{self, Refusal};
use crate::units::Tid;

/// How long frames outside of the data stack are followed, in plans; twice as long each time that it was too short, up to a
/// limit. They lie elsewhere than they did where generators run; where they do not, each step costs the thread a read.
const FOLLOWED: u32 = 100;
const LONGEST_FOLLOWED: u32 = 10_000;

/// Plans before the end of that in which the places of those frames are noted: they may be the same ones all the time.
const LEARNT: u32 = 5;

/// Copies that are given up among the last [`TRIED`] before threads are read in another way.
const TRIED: u64 = 2000;
const MOST_GIVEN_UP: f64 = 0.1;

/// How long the time between interrupts stays the same, and how far it may be from what was asked for: a program that turns as
/// often as it is interrupted would be seen at the same place each time. Samples stand for the time that passed, whatever
/// that is.
const SAME_PERIOD_US: u64 = 50_000;
const SPREAD: f64 = 0.2;

/// Addresses of code objects that were used again after which a program is one that makes and drops them all the time.
const MOST_REPLACED: u64 = 2;

/// Threads that run no Python and are known for that; then they are forgotten.
const MOST_STRANGERS: usize = 4096;

/// After which time, at first and at most, is looked again at who the threads are of which that is not known, microseconds.
const SOON_US: u64 = 1000;
const LATER_US: u64 = 100_000;

/// Reads of the lists of threads for one sample.
const RELISTS: usize = 8;

/// A thread that is interrupted.
#[derive(Debug)]
struct Known {
    /// Its state.
    address: u64,
    tid: Tid,
    room: u32,
    switches: Switches,
    presence: Presence,
    layouts: VecDeque<Layout>,
    plan: Plan,
    sequence: u64,
    /// [`Switches::count`] when it was read asleep.
    read_at: Option<u64>,
    /// Whether a copy of it was whole yet.
    was_whole: bool,
    /// Plans for which frames outside of the data stack are still followed, and for how many they are the next time.
    follows: u32,
    followed: u32,
    /// Whether it is to be planned anew, and whether heads are among what is copied.
    replan: bool,
    has_heads: bool,
}

/// The interrupts of a process.
#[derive(Debug)]
pub(super) struct Interruptions {
    source: Interrupts,
    known: Vec<Known>,
    rooms: Vec<u32>,
    /// Threads that were interrupted without being known, and those of them that run no Python.
    met: FxHashSet<u64>,
    strangers: FxHashSet<u64>,
    record: Vec<u8>,
    /// Where the numbers of threads are, and what was read there.
    places: Vec<Range>,
    ids: Vec<u8>,
    window: Window,
    versions: u64,
    /// Copies that were tried and given up, lately.
    tried: u64,
    given_up: u64,
    /// Whether too many of the [`TRIED`] before these were given up. Once can be: the first copies of each thread are made by
    /// plans that know nothing of its stack.
    was_bad: bool,
    /// The time between interrupts that was asked for, and until when the one that was drawn is kept.
    period_ns: u64,
    drawn_until_us: u64,
    /// When to look again at who the threads are of which that is not known yet, and how long that takes: one that is starting has
    /// a state before it has an id, and once it sleeps nothing tells that it has.
    look_again_us: Option<u64>,
    look_again_in_us: u64,
    /// Whether the ring has been read dry since the last look at all threads.
    is_dry: bool,
    first: bool,
}

/// How far it went with a copy.
enum Copied {
    Whole,
    /// Not a stack, or not all of it.
    Part,
    Stale,
}

impl<M: Memory> FastReader<M> {
    /// Whether stacks that interrupts copied may have code objects that were gone: what has their addresses now is seen later only.
    pub(super) fn is_doubtful(&self) -> bool {
        self.was_interrupted && self.codes.replaced > 0
    }

    /// Reads stacks in timer interrupts from now on, a `period_ns` of CPU time apart; the error says why that cannot be.
    pub(super) fn start_interrupts(&mut self, period_ns: u64) -> Result<(), String> {
        if self.tasks.is_some() {
            return Err("tasks are looked at from outside".to_string());
        }
        if self.handling.is_some() {
            return Err("--mode exception looks at more than an interrupt copies".to_string());
        }
        if !matches!(self.stillness, Stillness::SameCpu | Stillness::None) {
            return Err("the target is stopped for each sample".to_string());
        }
        let source = Interrupts::open(period_ns, self.offsets.is_free_threaded())?;
        self.was_interrupted = true;
        self.interruptions = Some(Box::new(Interruptions {
            source,
            known: Vec::new(),
            rooms: (0..MOST_THREADS).collect(),
            met: FxHashSet::default(),
            strangers: FxHashSet::default(),
            record: Vec::new(),
            places: Vec::new(),
            ids: Vec::new(),
            window: Window::default(),
            versions: 0,
            tried: 0,
            given_up: 0,
            was_bad: false,
            period_ns,
            drawn_until_us: 0,
            look_again_us: None,
            look_again_in_us: SOON_US,
            is_dry: false,
            first: true,
        }));
        self.stale = true;
        self.codes.beware(self.epoch.elapsed().as_micros() as u64);
        Ok(())
    }

    /// Goes on without: by what was done before.
    fn end_interrupts(&mut self, why: &str) {
        self.interruptions = None;
        self.why_not_interrupted = Some(why.to_string());
        self.codes.late = false;
        for thread in &mut self.threads {
            thread.dirty = true;
        }
        self.planned = None;
    }

    /// Whether the threads are those that they were: one that has ended leaves its place in the list to the next one, with the
    /// same ident.
    fn same_threads(&mut self) -> bool {
        let Some(all) = &mut self.interruptions else {
            return true;
        };
        let place = u64::from(self.offsets.thread.unique_id);
        all.places.clear();
        all.places.extend(self.threads.iter().map(|thread| Range {
            address: thread.address.wrapping_add(place) as usize,
            length: 8,
        }));
        all.ids.resize(8 * self.threads.len(), 0);
        let read = self.memory.read_ranges(&all.places, &mut all.ids);
        let mut ids = all.ids.chunks_exact(8).zip(&self.threads);
        read == Ok(all.ids.len())
            && ids.all(|(id, thread)| layout::word(id, 0) == Some(thread.unique_id))
    }

    /// Brings the list of threads up to date, and what is known of each.
    fn look_at_lists(&mut self, stacks: &mut ThreadStacks) -> Result<(), Fault> {
        let now_us = self.epoch.elapsed().as_micros() as u64;
        let again = self.interruptions.as_ref().is_some_and(|all| {
            let due = all.look_again_us;
            due.is_some_and(|due| due <= now_us)
        });
        let has_changed = self.stale || !self.same_lists().unwrap_or(false) || !self.same_threads();
        if has_changed || again {
            let mut outcome = Err(Fault::Torn);
            for _ in 0..RELISTS {
                outcome = self.relist();
                if outcome != Err(Fault::Torn) {
                    break;
                }
            }
            outcome?;
        }
        if self.rearrange || stacks.threads.len() != self.threads.len() {
            self.arrange(stacks);
            self.sync(stacks);
            let threads = self.threads.len();
            if let Some(all) = &mut self.interruptions {
                all.look_again_in_us = match has_changed {
                    true => SOON_US,
                    false => LATER_US.min(2 * all.look_again_in_us),
                };
                let is_missing = all.known.len() < threads;
                all.look_again_us = is_missing.then(|| now_us + all.look_again_in_us);
            }
        }
        Ok(())
    }

    /// One [`Known`] for each thread with a kernel thread.
    fn sync(&mut self, stacks: &ThreadStacks) {
        if self.interpreters.len() > 1 {
            return self.end_interrupts("the process has sub-interpreters");
        }
        let Some(mut all) = self.interruptions.take() else {
            return;
        };
        let mut wanted: Vec<(u64, Tid)> = Vec::new();
        for (thread, stack) in self.threads.iter().zip(&stacks.threads) {
            let inner = i32::try_from(stack.os_id).ok().filter(|inner| *inner > 0);
            let tid = inner.and_then(|inner| self.os_threads.resolve(inner));
            wanted.extend(tid.map(|tid| (thread.address, tid)));
        }
        let (mut kept, gone): (Vec<_>, Vec<_>) = all
            .known
            .drain(..)
            .partition(|known| wanted.contains(&(known.address, known.tid)));
        for known in gone {
            all.source.forget(known.tid);
            all.rooms.push(known.room);
        }
        let mut failed = None;
        for (address, tid) in wanted {
            if kept.iter().any(|known| known.address == address) {
                continue;
            }
            let now_ns = watchpoint::now_ns();
            let number = tid.0 as u64;
            // Threads that are started later are interrupted with those that started them.
            let inherits = !all.first || all.met.contains(&number);
            let opened = Switches::open(tid).and_then(|switches| match inherits {
                true => Ok(switches),
                false => all.source.start(tid).map(|()| switches),
            });
            let switches = match opened {
                Ok(switches) => switches,
                // It has ended.
                Err(Refusal::Gone) => continue,
                Err(why) => {
                    failed = Some(format!("threads cannot be interrupted ({why:?})"));
                    break;
                }
            };
            let Some(room) = all.rooms.pop() else {
                failed = Some(format!("there are more than {MOST_THREADS} threads"));
                break;
            };
            all.strangers.remove(&number);
            kept.push(Known {
                address,
                tid,
                room,
                switches,
                presence: Presence::new(now_ns),
                layouts: VecDeque::new(),
                plan: Plan::default(),
                sequence: 0,
                read_at: None,
                was_whole: false,
                follows: FOLLOWED,
                followed: FOLLOWED,
                replan: true,
                has_heads: false,
            });
        }
        let strangers = all.met.drain();
        let strangers: Vec<u64> = strangers
            .filter(|met| !kept.iter().any(|known| known.tid.0 as u64 == *met))
            .collect();
        if all.strangers.len() > MOST_STRANGERS {
            all.strangers.clear();
        }
        all.strangers.extend(strangers);
        all.known = kept;
        all.first = false;
        self.interruptions = Some(all);
        if let Some(why) = failed {
            self.end_interrupts(&why);
        }
    }

    /// The next stack that was copied in an interrupt; `None` when there is none left.
    pub(super) fn take_interrupt(
        &mut self,
        tables: &mut Tables,
        stacks: &mut ThreadStacks,
    ) -> Option<Interrupted> {
        loop {
            let mut all = self.interruptions.take()?;
            if all.is_dry {
                all.is_dry = false;
                for known in &mut all.known {
                    let presence = &mut known.presence;
                    known.switches.take(|switch| presence.note(switch));
                }
            }
            let mut bytes = std::mem::take(&mut all.record);
            let found = all.source.next(&mut bytes);
            let outcome = match found {
                true => self.take_record(&mut all, &bytes, tables, stacks),
                false => None,
            };
            all.record = bytes;
            all.is_dry |= !found;
            let mut bad_twice = false;
            if all.tried >= TRIED {
                let is_bad = all.given_up as f64 > MOST_GIVEN_UP * all.tried as f64;
                bad_twice = std::mem::replace(&mut all.was_bad, is_bad) && is_bad;
                (all.tried, all.given_up) = (0, 0);
            }
            self.interruptions = Some(all);
            if bad_twice {
                self.end_interrupts("too many of the copies were not whole");
            }
            if outcome.is_some() || !found {
                return outcome;
            }
        }
    }

    fn take_record(
        &mut self,
        all: &mut Interruptions,
        bytes: &[u8],
        tables: &mut Tables,
        stacks: &mut ThreadStacks,
    ) -> Option<Interrupted> {
        let word = |offset| layout::word(bytes, offset).unwrap_or(0);
        let tid = word(record::TID);
        let mut known = all.known.iter_mut();
        let Some(known) = known.find(|known| known.tid.0 as u64 == tid) else {
            if !all.strangers.contains(&tid) {
                all.met.insert(tid);
                self.stale = true;
            }
            return None;
        };
        if word(record::VERSION) == 0 {
            return None;
        }
        let at_ns = word(record::AT_NS);
        known.presence.advance(at_ns);
        known.presence.runs();
        let version = word(record::VERSION);
        let mut layouts = known.layouts.iter();
        let layout = layouts.find(|layout| layout.version == version);
        let sequence = word(record::SEQUENCE);
        // Another room counts for itself.
        let lost = match known.sequence {
            0 => 0,
            before => sequence.saturating_sub(before.saturating_add(1)),
        };
        let lost = layout.map_or(0, |_| lost);
        if layout.is_some() {
            known.sequence = sequence;
        }
        all.tried += 1 + lost;
        let place = self
            .threads
            .iter()
            .position(|thread| thread.address == known.address);
        let copied = match (layout, place) {
            (Some(layout), Some(place)) if word(record::VERSION_AFTER) == version => {
                load(&mut all.window, layout, bytes);
                let window = std::mem::take(&mut all.window);
                let now_us = self.epoch_us(at_ns);
                let copied = self.decode_copy(place, &window, tables, stacks, now_us);
                all.window = window;
                copied
            }
            _ => Copied::Part,
        };
        match (copied, place) {
            (Copied::Whole, Some(place)) => {
                if (1..=LEARNT).contains(&known.follows)
                    && let Some(layout) = known.layouts.back()
                    && let Some(thread) = self.threads.get_mut(place)
                {
                    let skipped = usize::from(known.plan.indirect != program::DIRECT);
                    let blocks = blocks(layout, bytes).skip(skipped);
                    thread.remember(blocks.map(|(range, _)| range.address as u64));
                }
                let ran_us = known.presence.take_ran_us();
                // Until a first plan knew of the stack, copies were in vain.
                let unseen_us = match std::mem::replace(&mut known.was_whole, true) {
                    true => 0,
                    false => ran_us.saturating_sub(all.period_ns / 1000),
                };
                Some(Interrupted::Seen(Glimpse {
                    thread: place,
                    ran_us: ran_us - unseen_us,
                    unseen_us,
                    lost,
                }))
            }
            (copied, _) => {
                self.stale |= matches!(copied, Copied::Stale);
                if known.follows == 0 {
                    known.followed = LONGEST_FOLLOWED.min(2 * known.followed);
                    known.replan = true;
                }
                known.follows = known.followed;
                all.given_up += 1 + lost;
                Some(Interrupted::GivenUp(1 + lost))
            }
        }
    }

    /// A time of `CLOCK_MONOTONIC` as microseconds since this reader began.
    fn epoch_us(&self, at_ns: u64) -> u64 {
        let ago_us = watchpoint::now_ns().saturating_sub(at_ns) / 1000;
        (self.epoch.elapsed().as_micros() as u64).saturating_sub(ago_us)
    }

    /// Decodes a thread's stack from a copy alone.
    fn decode_copy(
        &mut self,
        place: usize,
        window: &Window,
        tables: &mut Tables,
        stacks: &mut ThreadStacks,
        now_us: u64,
    ) -> Copied {
        let (Some(thread), Some(stack)) =
            (self.threads.get_mut(place), stacks.threads.get_mut(place))
        else {
            return Copied::Stale;
        };
        // That others came or went beside it in the list says nothing of its stack.
        self.stale |= thread.take_links(&self.offsets, window);
        match thread.walk(&self.offsets, &self.memory, window, &mut self.frames) {
            Walk::Whole { late: false } => {}
            Walk::Stale => return Copied::Stale,
            _ => return Copied::Part,
        }
        let memory = Beside::copy_of(window, &self.memory);
        self.codes.late = true;
        let mut decoder = Decoder {
            offsets: &self.offsets,
            memory: &memory,
            codes: &mut self.codes,
            builtins: self.builtins.as_mut(),
            tables,
            now_us,
            approximate: false,
            lost: None,
        };
        let whole = decoder.decode(thread, &self.frames, stack);
        self.codes.late = false;
        if !whole || memory.has_missed() {
            thread.raw.clear();
            thread.places.clear();
            stack.frames.clear();
            return Copied::Part;
        }
        self.longest = self.longest.max(self.frames.len());
        self.version += 1;
        stack.version = self.version;
        let words = LockWords::of(&self.offsets, thread, &self.domains, &self.interpreters);
        words.tell(&self.offsets, thread, window, stack);
        stack.gone = false;
        Copied::Whole
    }

    /// Brings the stacks of threads that sleep up to date, after all interrupts were taken.
    pub(super) fn look_at_sleeping(
        &mut self,
        tables: &mut Tables,
        stacks: &mut ThreadStacks,
        sleepers: &mut Vec<Sleeper>,
    ) -> Result<(), Fault> {
        sleepers.clear();
        if self.codes.trim() {
            for thread in &mut self.threads {
                thread.raw.clear();
            }
        }
        if self.codes.replaced > MOST_REPLACED {
            self.end_interrupts("the program makes code objects and drops them all the time");
        }
        self.look_at_lists(stacks)?;
        let Some(mut all) = self.interruptions.take() else {
            return Ok(());
        };
        let now_us = self.epoch.elapsed().as_micros() as u64;
        if now_us >= all.drawn_until_us {
            let factor = rand::rng().random_range(1.0 - SPREAD..1.0 + SPREAD);
            all.source
                .set_period((all.period_ns as f64 * factor) as u64);
            all.drawn_until_us = now_us.saturating_add(SAME_PERIOD_US);
        }
        let mut outcome = Ok(());
        for known in &mut all.known {
            let position = |thread: &Thread| thread.address == known.address;
            let Some(place) = self.threads.iter().position(position) else {
                continue;
            };
            let count = known.switches.count();
            let presence = &mut known.presence;
            known.switches.take(|switch| presence.note(switch));
            presence.advance(watchpoint::now_ns());
            if presence.is_unknown() {
                let doing = self.os_threads.activity(known.tid, None);
                match doing {
                    Some(doing) if !doing.on_cpu && known.switches.count() == count => {
                        presence.sleeps();
                    }
                    Some(_) => {}
                    None => self.stale = true,
                }
            }
            let Some(off) = presence.off() else {
                continue;
            };
            let unchanged = known.read_at == Some(count);
            if !unchanged {
                let read = self.read_sleeper(&mut all.window, place, tables, stacks, now_us);
                match read {
                    Ok(Copied::Whole) if known.switches.count() == count => {}
                    Ok(Copied::Stale) => {
                        self.stale = true;
                        continue;
                    }
                    Ok(_) => continue,
                    Err(error) => {
                        outcome = Err(error);
                        break;
                    }
                }
                known.read_at = Some(count);
            }
            sleepers.push(Sleeper {
                thread: place,
                waits: off == Off::Waits,
                time_us: known.presence.take_off_us(off),
                changed: !unchanged,
            });
        }
        self.interruptions = Some(all);
        outcome?;
        if self.interruptions.is_some() {
            self.name_threads(stacks, now_us);
            self.plan_interrupts();
        }
        Ok(())
    }

    /// Reads the stack of a thread that sleeps, as far as is known.
    fn read_sleeper(
        &mut self,
        window: &mut Window,
        place: usize,
        tables: &mut Tables,
        stacks: &mut ThreadStacks,
        now_us: u64,
    ) -> Result<Copied, Fault> {
        for _ in 0..3 {
            let Some(thread) = self.threads.get_mut(place) else {
                return Ok(Copied::Stale);
            };
            let Some(stack) = stacks.threads.get_mut(place) else {
                return Ok(Copied::Stale);
            };
            let words = LockWords::of(&self.offsets, thread, &self.domains, &self.interpreters);
            window.clear();
            thread.want(&self.offsets, window);
            words.want(window);
            window.plan(std::iter::empty());
            window.fill(&self.memory).map_err(fault)?;
            match thread.walk(&self.offsets, &self.memory, window, &mut self.frames) {
                Walk::Whole { .. } => {}
                Walk::Again => continue,
                Walk::Stale => return Ok(Copied::Stale),
                Walk::Broken | Walk::TooDeep => return Ok(Copied::Part),
            }
            let memory = Beside::new(window, &self.memory);
            let mut decoder = Decoder {
                offsets: &self.offsets,
                memory: &memory,
                codes: &mut self.codes,
                builtins: self.builtins.as_mut(),
                tables,
                now_us,
                approximate: false,
                lost: None,
            };
            if !decoder.decode(thread, &self.frames, stack) {
                thread.raw.clear();
                thread.places.clear();
                stack.frames.clear();
                return Ok(Copied::Part);
            }
            self.longest = self.longest.max(self.frames.len());
            self.version += 1;
            stack.version = self.version;
            words.tell(&self.offsets, thread, window, stack);
            return Ok(Copied::Whole);
        }
        Ok(Copied::Part)
    }
}
