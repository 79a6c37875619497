//! How far the loops are in which the innermost frames of a thread wait: positions of the iterators on their evaluation
//! stacks, and local variables to which each turn adds a number.
//!
//! What an iterator says is copied with the stack: its address is that of the sample before. A new one is read beside
//! the copy, at once. Most of the time there is one of them, and samples that follow each other by less than half a
//! millisecond do not all look.

use rustc_hash::FxHashMap;

use super::codes::Codes;
use super::locals::Fingerprint;
use super::thread::{RawFrame, Thread};
use super::window::Window;
use crate::layout::iterators::{CountingIterator, HEAD, Position, tagged_number};
use crate::layout::opcodes::{Addend, Counter, Loops, Outer};
use crate::layout::{self, Offsets, at, object};
use crate::sample::{LoopSeen, LoopSite, ThreadStack};
use crate::target::memory::{Memory, Range, read_c_string};

/// Most loops of a thread that are told in one sample, and most iterators that are looked at for them: each costs a
/// range of the copy, 0.3 to 0.4 us.
const MOST_LOOPS: usize = 4;
const MOST_ITERATORS: u32 = 2;

/// Samples that follow the last look by less than that do not look.
const LOOK_US: u64 = 500;

/// Most calls in no loop on the way from a loop inwards.
const MOST_CALLS: usize = 8;

/// Most ranges of iterators that are copied with a sample, of all threads.
const MOST_WATCHED: usize = 6;

/// Most iterators around iterators that are looked into (`zip`, `map`).
const MOST_WRAPPED: usize = 3;

/// Most code objects in which loops are searched for in one sample.
const MOST_SEARCHED: u32 = 4;

/// Innermost frames that are looked at.
const MOST_FRAMES: usize = 64;

/// Loops around a loop that are looked at.
const MOST_AROUND: usize = 4;

/// Most types that are remembered; then all are forgotten.
const MOST_TYPES: usize = 10_000;

/// Longest name of a type, in bytes.
const NAME_LIMIT: usize = 64;

/// Positions are not negative, counters may be.
const ZERO: u64 = 1 << 61;

/// Where to look.
pub struct Sight<'a, M> {
    /// Offsets.
    pub offsets: &'a Offsets,
    /// The copy.
    pub window: &'a Window,
    /// The target.
    pub memory: &'a M,
}

/// What counts.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Iterator(&'static CountingIterator),
    Int,
}

/// What is remembered from sample to sample.
#[derive(Debug, Default)]
pub struct Turns {
    /// Types that count by address; `None` for all others.
    types: FxHashMap<u64, Option<Kind>>,
    /// Iterators that were looked at in this sample, with the bytes that are of use.
    watched: Vec<Range>,
    /// When the next sample may look, the time of this one, whether it does, and what it may still look at.
    due_us: u64,
    now_us: u64,
    looks: bool,
    iterators: u32,
    searches: u32,
    /// Empty between looks, but for its room.
    calls: Vec<LoopSeen>,
}

impl Turns {
    /// Begins a sample; gives what it is to copy.
    pub fn begin(&mut self, now_us: u64) -> impl Iterator<Item = Range> + '_ {
        self.now_us = now_us;
        self.looks = now_us >= self.due_us;
        self.searches = MOST_SEARCHED;
        let mut count = 0;
        if self.looks {
            self.due_us = now_us.saturating_add(LOOK_US);
            count = self.watched.len();
        }
        self.watched.drain(..count)
    }

    /// Looks at the loops of a thread whose frames have been decoded.
    pub fn look<M: Memory>(
        &mut self,
        sight: &Sight<'_, M>,
        codes: &mut Codes,
        thread: &Thread,
        stack: &mut ThreadStack,
    ) {
        stack.loops.clear();
        let looks = self.looks && sight.offsets.range_iterator.is_some();
        stack.looked_us = looks.then_some(self.now_us);
        if !looks {
            return;
        }
        // There may have been an attempt before this one in the same sample.
        self.iterators = MOST_ITERATORS;
        let mut loops = 0;
        // Calls on the way to a loop yet to come.
        let mut calls = std::mem::take(&mut self.calls);
        calls.clear();
        let frames = thread.raw.iter().zip(&thread.places).zip(&thread.words);
        for ((raw, place), words) in frames.rev().take(MOST_FRAMES) {
            let found = stack.frames.get(at(*place)).and_then(|frame| {
                let index = frame.code.checked_sub(1)?;
                let loops = codes.loops(sight.memory, index, &mut self.searches)?;
                thread.is_on_stack(raw.address).then_some((frame, loops))
            });
            let Some((frame, found)) = found else {
                calls.clear();
                continue;
            };
            let of = found.at(frame.instruction);
            let site = found
                .site(frame.instruction)
                .filter(|site| site.once && site.of == of);
            let site = site.map(|site| LoopSite {
                unit: site.first,
                steady: site.steady,
            });
            let seen = LoopSeen {
                depth: *place,
                head: None,
                site,
                nested: false,
                turns: None,
            };
            let counts = |of: usize| found.loops.get(of).filter(|found| found.counts);
            match of.and_then(|of| Some((of, counts(of)?))) {
                Some((of, head)) => {
                    if site.is_some() {
                        stack.loops.append(&mut calls);
                    }
                    calls.clear();
                    stack.loops.push(LoopSeen {
                        head: Some(head.head),
                        nested: head.outer != Outer::None,
                        turns: self.turns(sight, found, of, raw, *words),
                        ..seen
                    });
                    loops += 1;
                    if loops == MOST_LOOPS {
                        break;
                    }
                }
                None if of.is_none() && site.is_some() && calls.len() < MOST_CALLS => {
                    calls.push(seen);
                }
                None => calls.clear(),
            }
        }
        self.calls = calls;
    }

    /// Which execution of a loop it is, by its iterator and the turns of those around it, and how far it is.
    fn turns<M: Memory>(
        &mut self,
        sight: &Sight<'_, M>,
        loops: &Loops,
        of: usize,
        raw: &RawFrame,
        words: u32,
    ) -> Option<(u64, u64)> {
        let variables = u64::from(sight.offsets.frame.localsplus);
        let variables = raw.address.checked_add(variables)?;
        let bottom = variables.checked_add(8 * u64::from(words))?;
        let mut which = Fingerprint::default();
        let mut taken = None;
        let mut at = of;
        for _ in 0..MOST_AROUND {
            let found = loops.loops.get(at)?;
            let by_iterator = found
                .slot
                .and_then(|slot| self.iterated(sight, bottom, slot));
            let (iterator, position) = by_iterator.or_else(|| {
                let counter = found.counter.filter(|counter| counter.local < words)?;
                self.counted(sight, variables, counter)
            })?;
            which.add(iterator);
            which.add(position.over);
            if taken.is_none() {
                taken = Some(position.taken);
            } else {
                which.add(position.taken);
            }
            match found.outer {
                Outer::None => return Some((which.finish(), taken?)),
                Outer::Counted(outer) => at = outer,
                Outer::Other => return None,
            }
        }
        None
    }

    /// The iterator in a slot of the evaluation stack, and its position.
    fn iterated<M: Memory>(
        &mut self,
        sight: &Sight<'_, M>,
        bottom: u64,
        slot: u32,
    ) -> Option<(u64, Position)> {
        let place = bottom.checked_add(8 * u64::from(slot))?;
        let bytes = sight.window.get(place, 16, &mut 0);
        let word = |offset| bytes.and_then(|bytes| layout::word(bytes, offset));
        let address = word(0)? & !sight.offsets.frame.tag_mask;
        // 3.15 keeps the position in a sequence beside it.
        let number = word(8).and_then(tagged_number);
        let position = match number.filter(|_| sight.offsets.counts_beside()) {
            Some(taken) => Position { taken, over: 0 },
            None => self.position(sight, address)?,
        };
        Some((address, position))
    }

    /// How far a variable has counted. Executions of its loop are told apart by that it goes back.
    fn counted<M: Memory>(
        &mut self,
        sight: &Sight<'_, M>,
        variables: u64,
        counter: Counter,
    ) -> Option<(u64, Position)> {
        let Addend::Number(adds) = counter.adds else {
            return None;
        };
        let place = variables.checked_add(8 * u64::from(counter.local))?;
        let word = layout::word(sight.window.get(place, 8, &mut 0)?, 0)?;
        let address = word & !sight.offsets.frame.tag_mask;
        if address == 0 {
            return None;
        }
        self.iterators = self.iterators.checked_sub(1)?;
        let mut bytes = [0; object::INT_HEAD];
        match sight.window.get(address, object::INT_HEAD, &mut 0) {
            Some(copied) => bytes.copy_from_slice(copied),
            None => sight.memory.read(address, &mut bytes).ok()?,
        }
        let Kind::Int = self.kind(sight, layout::word(&bytes, object::TYPE)?)? else {
            return None;
        };
        // Most have two places, in turn.
        self.watch(address, object::INT_HEAD);
        let value = object::small_int(&bytes, sight.offsets.dict.ints())?;
        let turns = (value * adds.signum()).div_euclid(adds.checked_abs()?);
        let taken = ZERO.checked_add_signed(turns)?;
        Some((0, Position { taken, over: 0 }))
    }

    /// The position of the iterator at `address`.
    fn position<M: Memory>(&mut self, sight: &Sight<'_, M>, address: u64) -> Option<Position> {
        self.iterators = self.iterators.checked_sub(1)?;
        let mut address = address;
        for _ in 0..MOST_WRAPPED {
            let mut bytes = [0; HEAD];
            let copied = sight.window.get(address, object::TYPE + 8, &mut 0);
            if copied.is_none() {
                sight.memory.read(address, &mut bytes).ok()?;
            }
            let kind = layout::word(copied.unwrap_or(&bytes), object::TYPE)?;
            let Kind::Iterator(kind) = self.kind(sight, kind)? else {
                return None;
            };
            self.watch(address, kind.length());
            let bytes = match copied {
                Some(_) => sight.window.get(address, kind.length(), &mut 0)?,
                None => &bytes,
            };
            let Some(tuple) = kind.wraps(bytes) else {
                return kind.position(bytes);
            };
            let first = tuple.checked_add(u64::from(sight.offsets.tuple_items))?;
            self.watch(first, 8);
            address = match sight.window.get(first, 8, &mut 0) {
                Some(bytes) => layout::word(bytes, 0)?,
                None => sight.memory.read_word(first).ok()?,
            };
        }
        None
    }

    /// Has the next sample that looks copy some bytes.
    fn watch(&mut self, address: u64, length: usize) {
        let range = Range {
            address: address as usize,
            length,
        };
        if self.watched.len() < MOST_WATCHED && !self.watched.contains(&range) {
            self.watched.push(range);
        }
    }

    fn kind<M: Memory>(&mut self, sight: &Sight<'_, M>, kind: u64) -> Option<Kind> {
        if let Some(known) = self.types.get(&kind) {
            return *known;
        }
        if self.types.len() > MOST_TYPES {
            self.types.clear();
        }
        let name = kind.checked_add(object::TYPE_NAME as u64)?;
        let name = sight.memory.read_word(name).ok()?;
        let name = read_c_string(sight.memory, name, NAME_LIMIT)?;
        let found = match (name.as_str(), sight.offsets.range_iterator) {
            ("int", _) => Some(Kind::Int),
            (name, Some(range)) => range.find(name).map(Kind::Iterator),
            _ => None,
        };
        self.types.insert(kind, found);
        found
    }
}
