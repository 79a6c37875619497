//! From frames as they lie in memory to functions and lines, and to the C functions that they call.

use rustc_hash::FxHashSet;

use super::super::builtins::Builtins;
use super::super::{FrameSample, ThreadStack};
use super::codes::{CodeId, Codes};
use super::thread::{RawFrame, Thread};
use super::window::Beside;
use crate::layout::{Offsets, at};
use crate::profile::Tables;
use crate::target::memory::Memory;

/// How long a stack that looks the same as before is believed to be of the same code objects.
const LOOK_US: u64 = 10_000;

/// What decoding one sample needs.
pub struct Decoder<'a, M> {
    /// Offsets.
    pub offsets: &'a Offsets,
    /// The target and the copy.
    pub memory: &'a Beside<'a, M>,
    /// Code objects.
    pub codes: &'a mut Codes,
    /// C functions, where they are shown.
    pub builtins: Option<&'a mut Builtins>,
    /// Names and frames.
    pub tables: &'a mut Tables,
    /// Time of the sample.
    pub now_us: u64,
    /// Whether a stack may lack its innermost frames.
    pub approximate: bool,
    /// Of a core file, the threads of which frames could not be read: what is not there will not come.
    pub lost: Option<&'a mut FxHashSet<u64>>,
}

impl<M: Memory> Decoder<'_, M> {
    /// Puts `frames` (innermost first) into `stack` (outermost first); frames that were there in the last sample
    /// stay as they are. False when one of them is none.
    pub fn decode(
        &mut self,
        thread: &mut Thread,
        frames: &[RawFrame],
        stack: &mut ThreadStack,
    ) -> bool {
        let depth = frames.len();
        let mut same = thread
            .raw
            .iter()
            .zip(frames.iter().rev())
            .take_while(|(old, new)| old == new)
            .count();
        if !thread.settled {
            same = 0;
        }
        let is_whole = same == depth && same == thread.raw.len();
        let is_calling = stack.frames.len() > thread.places.last().map_or(0, |last| at(*last) + 1);
        if is_whole && !is_calling && self.now_us < thread.looked_us.saturating_add(LOOK_US) {
            // A C function may have been called meanwhile by the same instruction.
            if let Some(raw) = thread.raw.last()
                && let Some(code) = self
                    .codes
                    .find(self.memory, self.tables, raw.code, self.now_us)
            {
                self.add_builtin(*raw, code, stack);
            }
            return true;
        }
        // The innermost frame is looked at anew, for its code object may be another one by now.
        same = same.min(depth.saturating_sub(1));
        thread.looked_us = self.now_us;
        thread.settled |= same == 0;
        thread.raw.truncate(same);
        thread.places.truncate(same);
        let kept = thread.places.last().map_or(0, |last| at(*last) + 1);
        stack.frames.truncate(kept);
        let mut caller = None;
        if let Some(raw) = thread.raw.last() {
            caller = self
                .codes
                .find(self.memory, self.tables, raw.code, self.now_us)
                .map(|code| (*raw, code));
        }
        for raw in frames.iter().rev().skip(same) {
            let Some(code) = self
                .codes
                .find(self.memory, self.tables, raw.code, self.now_us)
            else {
                if let Some(lost) = &mut self.lost {
                    lost.insert(thread.ident);
                    continue;
                }
                // A frame that was just left; its callers are there.
                return self.approximate && !stack.frames.is_empty();
            };
            let Some(unit) = self
                .codes
                .unit(self.memory, code, raw.instruction, raw.copy)
            else {
                return false;
            };
            let Some(frame) = self.codes.frame(self.memory, self.tables, code, unit) else {
                return false;
            };
            if let Some((caller, code)) = caller.filter(|_| raw.from_c) {
                self.add_builtin(caller, code, stack);
            }
            thread.settled &= self.codes.is_settled(code, self.now_us);
            thread.raw.push(*raw);
            if self.codes.is_shim(code)
                && let Some(below) = stack.frames.len().checked_sub(1)
            {
                thread.places.push(below as u32);
                caller = Some((*raw, code));
                continue;
            }
            thread.places.push(stack.frames.len() as u32);
            stack.frames.push(FrameSample {
                frame,
                invocation: raw.address,
                instruction: unit,
                code: code.index() + 1,
                from_c: raw.from_c,
            });
            caller = Some((*raw, code));
        }
        if let Some((leaf, code)) = caller {
            self.add_builtin(leaf, code, stack);
        }
        true
    }

    /// Adds the C function that a frame is calling, if it is calling one.
    fn add_builtin(&mut self, raw: RawFrame, code: CodeId, stack: &mut ThreadStack) {
        if self.builtins.is_none() {
            return;
        }
        let unit = self
            .codes
            .unit(self.memory, code, raw.instruction, raw.copy);
        let slots = unit.and_then(|unit| self.codes.callable_slots(self.memory, code, unit));
        let Some(slots) = slots else {
            return;
        };
        let frame = &self.offsets.frame;
        let first = match frame.value_stack {
            None => raw.address.wrapping_add(u64::from(frame.localsplus)),
            Some(offset) => {
                let at = raw.address.wrapping_add(u64::from(offset));
                let Some(first) = self.memory.changing_word(at) else {
                    return;
                };
                first
            }
        };
        for slot in slots.into_iter().flatten() {
            let address = first.wrapping_add(8 * u64::from(slot));
            let Some(callable) = self.memory.changing_word(address) else {
                return;
            };
            let callable = callable & !self.offsets.frame.tag_mask;
            if callable == 0 {
                continue;
            }
            let found = self.builtins.as_mut().and_then(|builtins| {
                builtins.find(self.memory, self.tables, callable, self.now_us)
            });
            if let Some(frame) = found {
                stack.frames.push(FrameSample {
                    frame,
                    // There is none of its own: the caller's, told apart from it.
                    invocation: raw.address | 1,
                    instruction: 0,
                    code: 0,
                    from_c: false,
                });
            }
            return;
        }
    }
}
