//! Frames and what holds them: frame objects, generators, and the stacks of threads.

use std::borrow::Cow;

use super::{Name, Sink, Torn};
use crate::heap::Heap;
use crate::heap::memory::{Place, each_word};
use crate::heap::types::Hook;
use crate::layout::heap::{Field, FrameSlots, HeapFrameOffsets, StackEnd};
use crate::layout::{Bytecode, Instruction, object};

/// Most slots of a frame that are believed.
const SLOTS: u64 = 1 << 20;
/// Most bytes of bytecode, or of an exception table, that are walked for the depth of a stack.
const BYTECODE: u64 = 128 << 10;
/// `gi_frame_state` from which on a generator's frame is gone.
const CLEARED: u8 = 4;

/// A reference with the low bits that mark it clear; 0 for an int that is no object.
pub fn untagged(heap: &Heap, word: u64) -> u64 {
    let mask = heap.offsets.frame.tag_mask;
    if mask != 0 && word & mask == mask {
        0
    } else {
        word & !mask
    }
}

/// Words that hold slots of frames of `code`.
fn slots(heap: &Heap, code: u64) -> Option<u64> {
    let place = heap.memory.place(code)?;
    let int = |offset| u64::from(place.int(offset));
    let offsets = &heap.offsets;
    let count = match heap.layout.frame.slots {
        FrameSlots::Counted => locals_count(heap, &place)? + int(offsets.code.stack_size),
        FrameSlots::Sum => int(offsets.code.nlocalsplus?) + int(offsets.code.stack_size),
        FrameSlots::FrameSize(at) => {
            int(at).checked_sub(u64::from(offsets.frame.localsplus) / 8)?
        }
    };
    (count < SLOTS).then_some(count)
}

/// Local variables, cells and free variables of `code`.
pub fn locals_count(heap: &Heap, code: &Place) -> Option<u64> {
    if let Some(nlocalsplus) = heap.offsets.code.nlocalsplus {
        return Some(u64::from(code.int(nlocalsplus))).filter(|count| *count < SLOTS);
    }
    let old = heap.layout.code.old?;
    let length = |offset| {
        heap.memory
            .place(code.word(offset)?)?
            .word(16)
            .filter(|count| *count < SLOTS)
    };
    Some(u64::from(code.int(old.nlocals)) + length(old.cellvars)? + length(old.freevars)?)
}

/// `sys.getsizeof` of a frame object without what precedes it: inside of it, and elsewhere.
pub fn frame_size(heap: &Heap, place: &Place) -> Option<(u64, u64)> {
    let layout = &heap.layout.frame;
    let Some(frame) = layout.frame else {
        // One slot is part of the struct.
        let slots = slots(heap, place.word(heap.offsets.frame.code)?)?;
        return Some(((layout.object_size + 8 * slots as u32 - 8).into(), 0));
    };
    let inner = heap.memory.place(place.word(frame)?)?;
    let code = untagged(heap, inner.word(heap.offsets.frame.code)?);
    let own = u64::from(heap.offsets.frame.localsplus) + 8 * slots(heap, code)?;
    Some((layout.object_size.into(), own))
}

/// `sys.getsizeof` of a generator that holds its frame, without what precedes it.
pub fn generator_size(heap: &Heap, place: &Place) -> Option<u64> {
    let layout = heap.layout.generator?;
    let code = untagged(heap, place.word(layout.frame + heap.offsets.frame.code)?);
    Some(u64::from(layout.frame + heap.offsets.frame.localsplus) + 8 * slots(heap, code)?)
}

/// A frame object.
pub fn frame_references(
    heap: &Heap,
    place: &Place,
    full: bool,
    sink: &mut impl Sink,
) -> Result<(), Torn> {
    let layout = &heap.layout.frame;
    for (name, offset) in layout.object {
        sink.field(place.word(*offset).ok_or(Torn)?, Name::Field(name));
    }
    let Some(frame) = layout.frame else {
        return old_slots(heap, place, sink);
    };
    let inner = heap
        .memory
        .place(place.word(frame).ok_or(Torn)?)
        .ok_or(Torn)?;
    let owner = heap.offsets.frame.owner.map(|offset| inner.byte(offset));
    if owner == Some(layout.owned_by_object) {
        inner_references(heap, &inner, full, sink)?;
    }
    Ok(())
}

/// Local variables and the evaluation stack of a frame object up to 3.10.
fn old_slots(heap: &Heap, place: &Place, sink: &mut impl Sink) -> Result<(), Torn> {
    let offsets = &heap.offsets.frame;
    let code = heap
        .memory
        .place(place.word(offsets.code).ok_or(Torn)?)
        .ok_or(Torn)?;
    let count = locals_count(heap, &code).ok_or(Torn)?;
    let locals = place
        .bytes(offsets.localsplus.into(), count * 8)
        .ok_or(Torn)?;
    named_locals(heap, &code, locals, sink)?;
    let Some(value_stack) = offsets.value_stack else {
        return Ok(());
    };
    let stack = place.word(value_stack).ok_or(Torn)?;
    let depth = stored_end(heap, place, stack).unwrap_or(0);
    let values = heap.memory.words(stack, depth).ok_or(Torn)?;
    each_word(values).for_each(|value| sink.field(value, Name::Stack));
    Ok(())
}

/// A generator that holds its frame.
pub fn generator_references(
    heap: &Heap,
    place: &Place,
    hook: Hook,
    full: bool,
    sink: &mut impl Sink,
) -> Result<(), Torn> {
    let layout = heap.layout.generator.ok_or(Torn)?;
    for (name, offset) in layout.fields {
        sink.field(place.word(*offset).ok_or(Torn)?, Name::Field(name));
    }
    let name = match hook {
        Hook::Finalizer => Some("ag_finalizer"),
        Hook::Origin if full => Some("cr_origin"),
        Hook::Origin | Hook::Unset => None,
    };
    if let Some(name) = name {
        let held = place.word(layout.finalizer).ok_or(Torn)?;
        sink.field(held, Name::Field(name));
    }
    // A signed byte: what is below 0 has not started or is suspended.
    if (place.byte(layout.state) as i8) < CLEARED as i8 {
        let frame = place.shifted(layout.frame).ok_or(Torn)?;
        inner_references(heap, &frame, full, sink)?;
    } else if layout.keeps_code {
        let code = place
            .word(layout.frame + heap.offsets.frame.code)
            .ok_or(Torn)?;
        sink.field(untagged(heap, code), Name::Field("gi_code"));
    }
    Ok(())
}

/// An interpreter frame (3.11 and newer), of a generator, a frame object or a thread.
pub fn inner_references(
    heap: &Heap,
    frame: &Place,
    full: bool,
    sink: &mut impl Sink,
) -> Result<(), Torn> {
    let layout: &HeapFrameOffsets = &heap.layout.frame;
    let put = |fields: &'static [Field], sink: &mut _| {
        for (name, offset) in fields {
            let word = frame.word(*offset).ok_or(Torn)?;
            Sink::field(sink, untagged(heap, word), Name::Field(name));
        }
        Ok(())
    };
    put(layout.inner, sink)?;
    if full {
        put(layout.borrowed, sink)?;
    }
    let (locals, stack) = slots_in_use(heap, frame).ok_or(Torn)?;
    let code = untagged(heap, frame.word(heap.offsets.frame.code).ok_or(Torn)?);
    let code = heap.memory.place(code).ok_or(Torn)?;
    named_locals(heap, &code, locals, sink)?;
    each_word(stack).for_each(|value| sink.field(untagged(heap, value), Name::Stack));
    Ok(())
}

/// The local variables of an interpreter frame and what is on its evaluation stack, which a running one does not
/// tell.
fn slots_in_use<'a>(heap: &Heap, frame: &Place<'a>) -> Option<(&'a [u8], &'a [u8])> {
    let offsets = &heap.offsets.frame;
    let code = untagged(heap, frame.word(offsets.code)?);
    let locals = locals_count(heap, &heap.memory.place(code)?)?;
    let first = frame.address().checked_add(u64::from(offsets.localsplus))?;
    let used = stored_end(heap, frame, first).unwrap_or(locals);
    let all = frame.bytes(offsets.localsplus.into(), used.checked_mul(8)?)?;
    // A frame that is being set up may have fewer.
    Some(all.split_at(usize::try_from(locals * 8).ok()?.min(all.len())))
}

/// Where a frame says that its evaluation stack ends, in words from `first`; a running one does not say.
fn stored_end(heap: &Heap, frame: &Place, first: u64) -> Option<u64> {
    match heap.layout.frame.end {
        StackEnd::Pointer(at) => {
            let end = frame.word(at).filter(|end| *end != 0)?;
            // What ends before it begins is no stack: beyond every limit.
            Some(end.checked_sub(first).map_or(u64::MAX, |bytes| bytes / 8))
        }
        StackEnd::Depth(at) | StackEnd::Top(at) => u64::try_from(frame.int(at) as i32).ok(),
    }
}

/// What a thread's frame has on its evaluation stack where it does not say so itself: the depth is that before the
/// instruction that it runs. May hold words that are no objects any more. Empty where that cannot be told.
pub fn running_values<'a>(heap: &Heap<'a>, frame: &Place<'a>) -> &'a [u8] {
    find_running_values(heap, frame).unwrap_or(&[])
}

fn find_running_values<'a>(heap: &Heap<'a>, frame: &Place<'a>) -> Option<&'a [u8]> {
    let offsets = &heap.offsets;
    let code = heap
        .memory
        .place(untagged(heap, frame.word(offsets.frame.code)?))?;
    let locals = locals_count(heap, &code)?;
    let first = match offsets.frame.value_stack {
        Some(at) => frame.word(at)?,
        None => {
            let slots = u64::from(offsets.frame.localsplus).checked_add(8 * locals)?;
            frame.address().checked_add(slots)?
        }
    };
    if stored_end(heap, frame, first).is_some() {
        return None;
    }
    let (bytes, start, length) = match offsets.code.bytecode {
        Bytecode::Inline(at) => (code, u64::from(at), code.word(16)?.checked_mul(2)?),
        Bytecode::Bytes(at) => {
            let bytes = heap.memory.place(code.word(at)?)?;
            (bytes, object::BYTES_DATA, bytes.word(16)?)
        }
    };
    if length > BYTECODE {
        return None;
    }
    let mut bytecode = Cow::Borrowed(bytes.bytes(start, length)?);
    if let Some(monitored) = offsets.code.monitored {
        let read = |address, into: &mut [u8]| heap.memory.read(address, into);
        monitored.restore(&offsets.opcodes?, code.address(), bytecode.to_mut(), read);
    }
    let table = offsets.code.exception_table.and_then(|at| {
        let table = heap.memory.place(code.word(at)?)?;
        let length = table.word(16).filter(|length| *length <= BYTECODE)?;
        table.bytes(object::BYTES_DATA, length)
    });
    let stored = match offsets.frame.coding {
        Instruction::Pointer => frame.word(offsets.frame.instruction)?,
        _ => u64::from(frame.int(offsets.frame.instruction)),
    };
    let unit = offsets.frame.coding.unit(stored, code.address() + start);
    let depth = offsets.opcodes?.depth(
        &bytecode,
        table.unwrap_or_default(),
        code.int(offsets.code.stack_size),
        unit as usize,
    )?;
    heap.memory.words(first, depth.into())
}

/// Local variables, each with its name.
fn named_locals(
    heap: &Heap,
    code: &Place,
    locals: &[u8],
    sink: &mut impl Sink,
) -> Result<(), Torn> {
    if !sink.afford(locals.len() as u64 / 8) {
        return Err(Torn);
    }
    if !sink.wants_names() {
        each_word(locals).for_each(|value| sink.field(untagged(heap, value), Name::Stack));
        return Ok(());
    }
    let names = local_names(heap, code);
    for (index, value) in each_word(locals).enumerate() {
        let name = names
            .get(index)
            .map_or(Name::Stack, |name| Name::Local(*name));
        sink.field(untagged(heap, value), name);
    }
    Ok(())
}

/// Addresses of the names of a code object's local variables, in the order of their slots.
pub fn local_names(heap: &Heap, code: &Place) -> Vec<u64> {
    let tuple = |offset| {
        let items = code
            .word(offset)
            .and_then(|address| heap.tuple_items(address));
        items.map(each_word).into_iter().flatten()
    };
    match heap.layout.code.old {
        Some(old) => tuple(old.varnames)
            .chain(tuple(old.cellvars))
            .chain(tuple(old.freevars))
            .take(SLOTS as usize)
            .collect(),
        None => {
            let field = heap
                .layout
                .code
                .fields
                .iter()
                .find(|(name, _)| *name == "co_localsplusnames");
            field
                .map(|(_, offset)| tuple(*offset).take(SLOTS as usize).collect())
                .unwrap_or_default()
        }
    }
}
