//! Frames from the copied bytes of a snapshot. The target has run meanwhile: what makes no stack is refused, and what
//! may have been left by then is cut off.

use super::Plan;
use crate::layout::{self, CurrentFrame, Instruction, at};
use crate::profile::{FunctionId, Tables};
use crate::sample::bursts::SeenFrame;
use crate::sample::fast::FastReader;
use crate::sample::fast::codes::CodeId;
use crate::sample::fast::locals::fingerprint;
use crate::sample::fast::thread::frame_length;
use crate::target::memory::Memory;

/// Longest chain that is followed in a snapshot.
const DEEPEST: usize = 8192;

/// Leaves out what is further in than the innermost frame after the copy.
pub fn cut(
    mut frames: Vec<SeenFrame>,
    innermost: u64,
    later: Option<Current>,
) -> (Vec<SeenFrame>, bool) {
    let later = match later {
        None => return (frames, false),
        Some(Current::At(later)) if later == innermost => return (frames, false),
        Some(Current::At(later)) => later,
        Some(Current::Elsewhere(_)) => 0,
    };
    // What lies below both was there all the time. The outermost one always is.
    let kept = frames.iter().position(|frame| {
        let address = frame.invocation & !1;
        address == later || address == innermost
    });
    frames.truncate(kept.map_or(1, |at| at + 1).max(1));
    (frames, true)
}

/// Where the innermost frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Current {
    /// At this address.
    At(u64),
    /// In a C frame that is not known yet.
    Elsewhere(u64),
}

/// Makes frames of copied bytes.
pub struct Decoding<'a, M: Memory> {
    /// Code objects and C functions.
    pub reader: &'a mut FastReader<M>,
    /// Names.
    pub tables: &'a mut Tables,
    /// What was copied.
    pub plan: &'a Plan,
    /// Time of the burst.
    pub now_us: u64,
}

/// A frame of a snapshot on the way.
#[derive(Debug, Clone, Copy)]
struct Found {
    seen: SeenFrame,
    id: CodeId,
    /// Its unit as stored; that of `seen` is the first one of a call.
    unit: u32,
    /// Whether C called it.
    from_c: bool,
    on_stack: bool,
}

impl<M: Memory> Decoding<'_, M> {
    /// Where the innermost frame is, by the words that a copy begins with.
    pub fn current(&self, copy: &[u8]) -> Current {
        let first = layout::word(copy, 0).unwrap_or(0);
        match self.reader.offsets.thread.current {
            CurrentFrame::Thread(_) => Current::At(first),
            CurrentFrame::CFrame { .. } => {
                match self.plan.cframes.iter().position(|known| *known == first) {
                    Some(at) => Current::At(layout::word(copy, 8 + 8 * at).unwrap_or(0)),
                    None => Current::Elsewhere(first),
                }
            }
        }
    }

    /// The bytes at `address` in a copy, and whether they are of the data stack.
    fn bytes<'c>(&self, copy: &'c [u8], address: u64, length: usize) -> Option<(&'c [u8], bool)> {
        let words = self.plan.ranges.len().min(1 + self.plan.cframes.len());
        let mut start = 8 * words;
        for (at, piece) in self.plan.pieces.iter().enumerate() {
            let offset = (address as usize).wrapping_sub(piece.address);
            if offset < piece.length && length <= piece.length - offset {
                let from = start + offset;
                return Some((copy.get(from..from + length)?, at == 0));
            }
            start += piece.length;
        }
        None
    }

    /// The frames from the innermost one at `innermost` on, outermost first; `None` when that is no stack.
    pub fn frames(&mut self, copy: &[u8], innermost: u64) -> Option<Vec<SeenFrame>> {
        let mut found: Vec<Found> = Vec::new();
        let mut address = innermost;
        let length = frame_length(&self.reader.offsets);
        while found.len() < DEEPEST {
            let Some((bytes, on_stack)) = self.bytes(copy, address, length) else {
                // A frame on the C stack, between the caller and a function that C called.
                let callee = found.last_mut()?;
                if !callee.on_stack || callee.from_c {
                    return None;
                }
                callee.from_c = true;
                let callee = callee.seen.invocation;
                address = self.below(copy, callee)?;
                continue;
            };
            let frame = self.frame(copy, bytes, address, on_stack)?;
            let layout = &self.reader.offsets.frame;
            let previous = layout::word(bytes, at(layout.previous))?;
            self.fits(&frame, found.last())?;
            found.push(frame);
            if address == self.plan.lowest {
                break;
            }
            address = previous;
        }
        if found.last()?.seen.invocation != self.plan.lowest {
            return None;
        }
        Some(self.arranged(copy, &found))
    }

    fn frame(&mut self, copy: &[u8], bytes: &[u8], address: u64, on_stack: bool) -> Option<Found> {
        let layout = self.reader.offsets.frame;
        let owner = layout.owner.and_then(|owner| bytes.get(at(owner)))?;
        if *owner >= layout.first_shim_owner {
            return None;
        }
        let code = layout::word(bytes, at(layout.code))? & !layout.tag_mask;
        let codes = &mut self.reader.codes;
        let id = codes.find(&self.reader.memory, self.tables, code, self.now_us)?;
        let stored = layout::word(bytes, at(layout.instruction))?;
        let unit = match layout.coding {
            Instruction::Pointer => codes.unit(id, stored),
            _ => codes.unit(id, stored & 0xffff_ffff),
        };
        let function = codes.function(id)?;
        let from_c = layout
            .is_entry
            .and_then(|entry| bytes.get(at(entry)))
            .is_some_and(|entry| *entry != 0);
        let words = codes.locals(id)?;
        let locals = address.checked_add(u64::from(layout.localsplus))?;
        let locals = self.bytes(copy, locals, words as usize * 8);
        Some(Found {
            seen: SeenFrame {
                invocation: address,
                function,
                code: id.index(),
                unit,
                locals: locals.map_or(0, |(bytes, _)| fingerprint(bytes)),
            },
            id,
            unit,
            from_c,
            on_stack,
        })
    }

    /// Whether `frame` can be the caller of `callee`.
    fn fits(&mut self, frame: &Found, callee: Option<&Found>) -> Option<()> {
        let Some(callee) = callee else {
            return Some(());
        };
        if !callee.on_stack {
            return Some(());
        }
        let codes = &mut self.reader.codes;
        if frame.on_stack {
            let end = frame
                .seen
                .invocation
                .checked_add(codes.frame_size(frame.id)?)?;
            if end != callee.seen.invocation {
                return None;
            }
        }
        if callee.from_c {
            return Some(());
        }
        let shape = codes.shape(&self.reader.memory, frame.id);
        shape
            .is_none_or(|shape| shape.call_at(frame.unit).is_some())
            .then_some(())
    }

    /// The frame on the data stack that ends where `callee` begins.
    fn below(&mut self, copy: &[u8], callee: u64) -> Option<u64> {
        let mut address = self.plan.lowest;
        let layout = self.reader.offsets.frame;
        for _ in 0..DEEPEST {
            let (bytes, _) = self.bytes(copy, address, at(layout.code) + 8)?;
            let code = layout::word(bytes, at(layout.code))? & !layout.tag_mask;
            let codes = &mut self.reader.codes;
            let id = codes.find(&self.reader.memory, self.tables, code, self.now_us)?;
            let next = address.checked_add(codes.frame_size(id)?)?;
            if next == callee {
                return Some(address);
            }
            if next > callee {
                return None;
            }
            address = next;
        }
        None
    }

    /// Outermost first, with the caller that stands still and the C functions between.
    fn arranged(&mut self, copy: &[u8], found: &[Found]) -> Vec<SeenFrame> {
        let mut frames: Vec<SeenFrame> = Vec::with_capacity(found.len() + 2);
        frames.extend(self.plan.caller);
        let mut callees = found.iter().rev().peekable();
        while let Some(frame) = callees.next() {
            let codes = &mut self.reader.codes;
            let shape = codes.shape(&self.reader.memory, frame.id);
            let call = shape.and_then(|shape| shape.call_at(frame.unit));
            let mut seen = frame.seen;
            seen.unit = call.unwrap_or(frame.unit);
            frames.push(seen);
            let calls_c = callees.peek().is_none_or(|callee| callee.from_c);
            if calls_c
                && call.is_some()
                && let Some(function) = self.builtin(copy, frame)
            {
                frames.push(SeenFrame {
                    invocation: seen.invocation | 1,
                    function,
                    code: u32::MAX,
                    unit: 0,
                    locals: 0,
                });
            }
        }
        frames
    }

    /// The C function that a frame is calling.
    fn builtin(&mut self, copy: &[u8], frame: &Found) -> Option<FunctionId> {
        let layout = self.reader.offsets.frame;
        let reader = &mut *self.reader;
        reader.builtins.as_ref()?;
        let slots = reader
            .codes
            .callable_slots(&reader.memory, frame.id, frame.unit)?;
        let first = frame
            .seen
            .invocation
            .wrapping_add(u64::from(layout.localsplus));
        for slot in slots.into_iter().flatten() {
            let (bytes, _) = self.bytes(copy, first.wrapping_add(8 * u64::from(slot)), 8)?;
            let callable = layout::word(bytes, 0)? & !layout.tag_mask;
            if callable == 0 {
                continue;
            }
            let reader = &mut *self.reader;
            let builtins = reader.builtins.as_mut()?;
            let frame = builtins.find(&reader.memory, self.tables, callable, self.now_us)?;
            return Some(self.tables.get_frame(frame).function);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_further_in_than_later_is_cut_off() {
        let frame = |invocation| SeenFrame {
            invocation,
            function: FunctionId(0),
            code: 0,
            unit: 0,
            locals: 0,
        };
        let frames = || [8, 16, 24, 32].map(frame).to_vec();
        let (kept, was_cut) = cut(frames(), 32, Some(Current::At(32)));
        assert_eq!((kept.len(), was_cut), (4, false));
        let (kept, was_cut) = cut(frames(), 32, Some(Current::At(16)));
        assert_eq!((kept.len(), was_cut), (2, true));
        let (kept, was_cut) = cut(frames(), 32, Some(Current::At(40)));
        assert_eq!((kept.len(), was_cut), (4, true));
        let (kept, was_cut) = cut(frames(), 32, Some(Current::Elsewhere(1)));
        assert_eq!((kept.len(), was_cut), (4, true));
        assert_eq!(cut(frames(), 32, None).0.len(), 4);
    }
}
