//! The interpreter's own block of offsets, `_Py_DebugOffsets`, at the start of `_PyRuntime` from 3.13 on
//! (Include/internal/pycore_runtime.h of 3.13, pycore_debug_offsets.h of 3.14 and 3.15).
//!
//! The order of its fields is another in every minor version. Members of the runtime and interpreter states move
//! between patch releases, so the block's values are taken for them; everything else must agree with the table.

use super::{CurrentFrame, GcPlace, GilPlace, Offsets};

/// The first eight bytes.
pub const COOKIE: &[u8; 8] = b"xdebugpy";

/// Bytes to read at `_PyRuntime`; more than any known block has.
pub const SIZE: usize = 1024;

/// Offsets of the runtime and interpreter states beyond this are not believed (the state of 3.15 has 226 KB).
const LARGEST: u64 = 4 << 20;

/// Why the block cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mismatch {
    /// It does not start with the cookie.
    NoCookie,
    /// A build without a GIL, where one with it was expected, or the other way round.
    FreeThreaded,
    /// This field is not what the table of this version says.
    Field(&'static str),
    /// No layout of the block is known for this version.
    UnknownVersion,
}

/// Positions of the block's fields, in bytes.
struct Positions {
    runtime_state_interpreters_head: usize,
    interpreter_state_id: usize,
    interpreter_state_next: usize,
    interpreter_state_threads_head: usize,
    interpreter_state_gc: usize,
    gc_collecting: usize,
    interpreter_state_imports_modules: usize,
    interpreter_state_ceval_gil: usize,
    gil: usize,
    gil_locked: usize,
    gil_holder: usize,
    thread_state_prev: usize,
    thread_state_next: usize,
    thread_state_interp: usize,
    thread_state_current_frame: usize,
    thread_state_thread_id: usize,
    thread_state_native_thread_id: usize,
    thread_state_datastack_chunk: usize,
    interpreter_frame_previous: usize,
    interpreter_frame_executable: usize,
    interpreter_frame_instr_ptr: usize,
    interpreter_frame_localsplus: usize,
    interpreter_frame_owner: usize,
    code_filename: usize,
    code_name: usize,
    code_linetable: usize,
    code_firstlineno: usize,
    code_co_code_adaptive: usize,
    unicode_asciiobject_size: usize,
    /// `tlbc_index` of frames and `co_tlbc` of code objects, where threads have copies of the bytecode.
    bytecode_copies: Option<(usize, usize)>,
}

const V3_13: Positions = Positions {
    runtime_state_interpreters_head: 40,
    interpreter_state_id: 56,
    interpreter_state_next: 64,
    interpreter_state_threads_head: 72,
    interpreter_state_gc: 80,
    gc_collecting: 576,
    interpreter_state_imports_modules: 88,
    interpreter_state_ceval_gil: 112,
    gil: 120,
    gil_locked: 136,
    gil_holder: 144,
    thread_state_prev: 160,
    thread_state_next: 168,
    thread_state_interp: 176,
    thread_state_current_frame: 184,
    thread_state_thread_id: 192,
    thread_state_native_thread_id: 200,
    thread_state_datastack_chunk: 208,
    interpreter_frame_previous: 232,
    interpreter_frame_executable: 240,
    interpreter_frame_instr_ptr: 248,
    interpreter_frame_localsplus: 256,
    interpreter_frame_owner: 264,
    code_filename: 280,
    code_name: 288,
    code_linetable: 304,
    code_firstlineno: 312,
    code_co_code_adaptive: 344,
    unicode_asciiobject_size: 560,
    bytecode_copies: None,
};

const V3_14: Positions = Positions {
    runtime_state_interpreters_head: 40,
    interpreter_state_id: 56,
    interpreter_state_next: 64,
    interpreter_state_threads_head: 72,
    interpreter_state_gc: 88,
    gc_collecting: 656,
    interpreter_state_imports_modules: 96,
    interpreter_state_ceval_gil: 120,
    gil: 128,
    gil_locked: 144,
    gil_holder: 152,
    thread_state_prev: 184,
    thread_state_next: 192,
    thread_state_interp: 200,
    thread_state_current_frame: 208,
    thread_state_thread_id: 216,
    thread_state_native_thread_id: 224,
    thread_state_datastack_chunk: 232,
    interpreter_frame_previous: 256,
    interpreter_frame_executable: 264,
    interpreter_frame_instr_ptr: 272,
    interpreter_frame_localsplus: 280,
    interpreter_frame_owner: 288,
    code_filename: 320,
    code_name: 328,
    code_linetable: 344,
    code_firstlineno: 352,
    code_co_code_adaptive: 384,
    unicode_asciiobject_size: 640,
    bytecode_copies: Some((304, 392)),
};

const V3_15: Positions = Positions {
    runtime_state_interpreters_head: 40,
    interpreter_state_id: 56,
    interpreter_state_next: 64,
    interpreter_state_threads_head: 72,
    interpreter_state_gc: 88,
    gc_collecting: 760,
    interpreter_state_imports_modules: 96,
    interpreter_state_ceval_gil: 120,
    gil: 128,
    gil_locked: 144,
    gil_holder: 152,
    thread_state_prev: 184,
    thread_state_next: 192,
    thread_state_interp: 200,
    thread_state_current_frame: 208,
    thread_state_thread_id: 240,
    thread_state_native_thread_id: 248,
    thread_state_datastack_chunk: 256,
    interpreter_frame_previous: 320,
    interpreter_frame_executable: 328,
    interpreter_frame_instr_ptr: 336,
    interpreter_frame_localsplus: 344,
    interpreter_frame_owner: 352,
    code_filename: 384,
    code_name: 392,
    code_linetable: 408,
    code_firstlineno: 416,
    code_co_code_adaptive: 448,
    unicode_asciiobject_size: 736,
    bytecode_copies: Some((368, 456)),
};

/// The version that a block gives (`PY_VERSION_HEX`); `None` when `block` is none.
pub fn version_hex(block: &[u8]) -> Option<u32> {
    if !block.starts_with(COOKIE) {
        return None;
    }
    u32::try_from(super::word(block, 8)?).ok()
}

/// Whether a block is that of a free-threaded build.
pub fn is_free_threaded(block: &[u8]) -> bool {
    block.starts_with(COOKIE) && super::word(block, 16).is_some_and(|word| word & 1 == 1)
}

fn positions(minor: u32) -> Option<Positions> {
    match minor {
        13 => Some(V3_13),
        14 => Some(V3_14),
        15 => Some(V3_15),
        _ => None,
    }
}

/// The collector's state in the interpreter state, and in that the word that says that it is at work; `None` when
/// `block` is none or its values make no sense.
pub fn gc(block: &[u8], minor: u32) -> Option<(u32, u32)> {
    let at = positions(minor).filter(|_| block.starts_with(COOKIE))?;
    let offset = |position| {
        let value = super::word(block, position)?;
        u32::try_from(value).ok().filter(|_| value < LARGEST)
    };
    Some((offset(at.interpreter_state_gc)?, offset(at.gc_collecting)?))
}

/// What the block must say: its name, where, and what; `gil` is where the block has the lock's fields from, and `current` the
/// field with the running frame.
fn known(
    at: &Positions,
    table: &Offsets,
    gil: u64,
    current: u32,
) -> [(&'static str, usize, u64); 20] {
    let (thread, frame, code) = (table.thread, table.frame, table.code);
    [
        (
            "gil locked",
            at.gil_locked,
            gil.wrapping_add(table.gil.locked.into()),
        ),
        (
            "gil holder",
            at.gil_holder,
            gil.wrapping_add(table.gil.last_holder.into()),
        ),
        ("thread prev", at.thread_state_prev, thread.prev.into()),
        ("thread next", at.thread_state_next, thread.next.into()),
        (
            "thread interp",
            at.thread_state_interp,
            thread.interp.into(),
        ),
        (
            "current_frame",
            at.thread_state_current_frame,
            current.into(),
        ),
        (
            "thread_id",
            at.thread_state_thread_id,
            thread.thread_id.into(),
        ),
        (
            "native_thread_id",
            at.thread_state_native_thread_id,
            thread.native_id.unwrap_or(0).into(),
        ),
        (
            "datastack_chunk",
            at.thread_state_datastack_chunk,
            thread.stack.map_or(0, |s| s.chunk).into(),
        ),
        (
            "frame previous",
            at.interpreter_frame_previous,
            frame.previous.into(),
        ),
        (
            "frame executable",
            at.interpreter_frame_executable,
            frame.code.into(),
        ),
        (
            "frame instr_ptr",
            at.interpreter_frame_instr_ptr,
            frame.instruction.into(),
        ),
        (
            "frame localsplus",
            at.interpreter_frame_localsplus,
            frame.localsplus.into(),
        ),
        (
            "frame owner",
            at.interpreter_frame_owner,
            frame.owner.unwrap_or(0).into(),
        ),
        ("co_filename", at.code_filename, code.filename.into()),
        ("co_name", at.code_name, code.name.into()),
        ("co_linetable", at.code_linetable, code.line_table.into()),
        (
            "co_firstlineno",
            at.code_firstlineno,
            code.first_line.into(),
        ),
        (
            "gc collecting",
            at.gc_collecting,
            table.gc.collecting.into(),
        ),
        (
            "str size",
            at.unicode_asciiobject_size,
            table.text.ascii_data.into(),
        ),
    ]
}

/// `table` with what the block knows better; fails where they cannot both be right.
pub fn apply(block: &[u8], minor: u32, table: Offsets) -> Result<Offsets, Mismatch> {
    if !block.starts_with(COOKIE) {
        return Err(Mismatch::NoCookie);
    }
    if is_free_threaded(block) != table.is_free_threaded() {
        return Err(Mismatch::FreeThreaded);
    }
    let at = positions(minor).ok_or(Mismatch::UnknownVersion)?;
    let get = |position: usize, name| super::word(block, position).ok_or(Mismatch::Field(name));
    let moved = |position: usize, name| {
        let value = get(position, name)?;
        u32::try_from(value)
            .ok()
            .filter(|_| value < LARGEST && value.is_multiple_of(8))
            .ok_or(Mismatch::Field(name))
    };
    let mut offsets = table;
    offsets.interpreters_head = moved(at.runtime_state_interpreters_head, "interpreters_head")?;
    offsets.interpreter.id = moved(at.interpreter_state_id, "interpreter id")?;
    offsets.interpreter.next = moved(at.interpreter_state_next, "interpreter next")?;
    offsets.interpreter.threads_head = moved(at.interpreter_state_threads_head, "threads_head")?;
    offsets.interpreter.modules = moved(at.interpreter_state_imports_modules, "modules")?;
    offsets.gc.place = GcPlace::Interpreter(moved(at.interpreter_state_gc, "interpreter gc")?);
    offsets.gil.place = GilPlace::Interpreter(moved(at.interpreter_state_ceval_gil, "ceval.gil")?);

    let gil = get(at.gil, "gil")?;
    let CurrentFrame::Thread(current) = table.thread.current else {
        return Err(Mismatch::Field("current_frame"));
    };
    for (name, position, expected) in known(&at, &table, gil, current) {
        if get(position, name)? != expected {
            return Err(Mismatch::Field(name));
        }
    }
    if let super::Bytecode::Inline(start) = table.code.bytecode
        && get(at.code_co_code_adaptive, "co_code_adaptive")? != u64::from(start)
    {
        return Err(Mismatch::Field("co_code_adaptive"));
    }
    if let (Some(index), Some(copies)) = (table.frame.bytecode_copy, table.code.bytecode_copies) {
        let (tlbc_index, co_tlbc) = at.bytecode_copies.ok_or(Mismatch::Field("tlbc_index"))?;
        if get(tlbc_index, "tlbc_index")? != u64::from(index) {
            return Err(Mismatch::Field("tlbc_index"));
        }
        if get(co_tlbc, "co_tlbc")? != u64::from(copies) {
            return Err(Mismatch::Field("co_tlbc"));
        }
    }
    Ok(offsets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::tables::{for_build, for_version};

    #[test]
    fn a_block_that_is_none_or_too_short_is_refused() {
        let table = for_version(3, 14).expect("a table");
        assert_eq!(apply(b"", 14, table), Err(Mismatch::NoCookie));
        assert!(apply(COOKIE, 14, table).is_err());
        let mut block = vec![0u8; SIZE];
        block[..8].copy_from_slice(COOKIE);
        assert!(matches!(apply(&block, 14, table), Err(Mismatch::Field(_))));
        block[16] = 1;
        assert_eq!(apply(&block, 14, table), Err(Mismatch::FreeThreaded));
        // Nor is a block taken for the table of the other build.
        let without_gil = for_build(3, 14, true).expect("a table");
        assert!(matches!(
            apply(&block, 14, without_gil),
            Err(Mismatch::Field(_))
        ));
        block[16] = 0;
        assert_eq!(apply(&block, 14, without_gil), Err(Mismatch::FreeThreaded));
        assert_eq!(apply(&block, 16, table), Err(Mismatch::UnknownVersion));
    }
}
