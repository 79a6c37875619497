//! How far the `for` loops are in which the innermost frames of a thread wait: positions of the iterators on their
//! evaluation stacks.
//!
//! What an iterator says is copied with the stack: its address is that of the sample before. A new one is read beside
//! the copy, at once. Most of the time there is one of them, and most samples that follow each other by less than a
//! millisecond do not look at all.

use rustc_hash::FxHashMap;

use super::codes::Codes;
use super::locals::fingerprint;
use super::thread::{RawFrame, Thread};
use super::window::Window;
use crate::layout::iterators::{CountingIterator, HEAD, Position, tagged_number};
use crate::layout::opcodes::{Loops, Outer};
use crate::layout::{self, Offsets, at, object};
use crate::sample::{LoopSeen, LoopSite, ThreadStack};
use crate::target::memory::{Memory, Range, read_c_string};

/// Most loops of a thread that are told in one sample, and most iterators that are looked at for them: each costs a
/// range of the copy, 0.3 to 0.4 us.
const MOST_LOOPS: usize = 4;
const MOST_ITERATORS: u32 = 2;

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

/// Where to look.
pub struct Sight<'a, M> {
    /// Offsets.
    pub offsets: &'a Offsets,
    /// The copy.
    pub window: &'a Window,
    /// The target.
    pub memory: &'a M,
}

/// What is remembered from sample to sample.
#[derive(Debug, Default)]
pub struct Turns {
    /// Types of iterators by address; `None` for all other types.
    types: FxHashMap<u64, Option<&'static CountingIterator>>,
    /// Iterators that were looked at in this sample, with the bytes that are of use.
    watched: Vec<Range>,
    /// Whether this sample looks, and what it may still look at.
    looks: bool,
    iterators: u32,
    searches: u32,
}

impl Turns {
    /// Begins a sample. What it is to copy is added to `ranges`.
    pub fn begin(&mut self, looks: bool, ranges: &mut Vec<Range>) {
        self.looks = looks;
        (self.iterators, self.searches) = (MOST_ITERATORS, MOST_SEARCHED);
        if looks {
            ranges.append(&mut self.watched);
        }
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
        stack.looked = self.looks && sight.offsets.range_iterator.is_some();
        if !stack.looked {
            return;
        }
        let frames = thread.raw.iter().zip(&thread.places).zip(&thread.words);
        for ((raw, place), words) in frames.rev().take(MOST_FRAMES) {
            let Some(frame) = stack.frames.get(at(*place)) else {
                continue;
            };
            let Some(index) = frame.code.checked_sub(1) else {
                continue;
            };
            let Some(loops) = codes.loops(sight.memory, index, &mut self.searches) else {
                continue;
            };
            let Some(of) = loops.at(frame.instruction) else {
                continue;
            };
            let Some(found) = loops.loops.get(of).filter(|found| found.counts) else {
                continue;
            };
            if !thread.is_on_stack(raw.address) {
                continue;
            }
            let site = loops.site(frame.instruction);
            let site = site.filter(|site| site.once && site.of == of);
            stack.loops.push(LoopSeen {
                depth: *place,
                head: found.head,
                site: site.map(|site| LoopSite {
                    unit: site.first,
                    steady: site.steady,
                }),
                turns: self.turns(sight, loops, of, raw, *words),
            });
            if stack.loops.len() == MOST_LOOPS {
                break;
            }
        }
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
        let first = u64::from(sight.offsets.frame.localsplus) + 8 * u64::from(words);
        let bottom = raw.address.checked_add(first)?;
        let mut which = Vec::new();
        let mut taken = None;
        let mut at = of;
        for _ in 0..MOST_AROUND {
            let found = loops.loops.get(at)?;
            let place = bottom.checked_add(8 * u64::from(found.slot))?;
            let bytes = sight.window.get(place, 16, &mut 0);
            let word = |offset| bytes.and_then(|bytes| layout::word(bytes, offset));
            let address = word(0)? & !sight.offsets.frame.tag_mask;
            // 3.15 keeps the position in a sequence beside it.
            let number = word(8).and_then(tagged_number);
            let position = match number.filter(|_| sight.offsets.counts_beside()) {
                Some(taken) => Position { taken, over: 0 },
                None => self.position(sight, address)?,
            };
            which.extend_from_slice(&address.to_ne_bytes());
            which.extend_from_slice(&position.over.to_ne_bytes());
            if taken.is_none() {
                taken = Some(position.taken);
            } else {
                which.extend_from_slice(&position.taken.to_ne_bytes());
            }
            match found.outer {
                Outer::None => return Some((fingerprint(&which), taken?)),
                Outer::For(outer) => at = outer,
                Outer::Other => return None,
            }
        }
        None
    }

    /// The position of the iterator at `address`.
    fn position<M: Memory>(&mut self, sight: &Sight<'_, M>, address: u64) -> Option<Position> {
        self.iterators = self.iterators.checked_sub(1)?;
        let mut bytes = [0; HEAD];
        let copied = sight.window.get(address, object::TYPE + 8, &mut 0);
        let fresh = copied.is_none();
        if fresh {
            sight.memory.read(address, &mut bytes).ok()?;
        }
        let kind = layout::word(copied.unwrap_or(&bytes), object::TYPE)?;
        let kind = self.kind(sight, kind)?;
        self.watched.push(Range {
            address: address as usize,
            length: kind.length(),
        });
        if fresh {
            return kind.position(&bytes);
        }
        kind.position(sight.window.get(address, kind.length(), &mut 0)?)
    }

    fn kind<M: Memory>(
        &mut self,
        sight: &Sight<'_, M>,
        kind: u64,
    ) -> Option<&'static CountingIterator> {
        if let Some(known) = self.types.get(&kind) {
            return *known;
        }
        if self.types.len() > MOST_TYPES {
            self.types.clear();
        }
        let name = kind.checked_add(object::TYPE_NAME as u64)?;
        let name = sight.memory.read_word(name).ok()?;
        let name = read_c_string(sight.memory, name, NAME_LIMIT)?;
        let found = sight.offsets.range_iterator.and_then(|range| range.find(&name));
        self.types.insert(kind, found);
        found
    }
}
