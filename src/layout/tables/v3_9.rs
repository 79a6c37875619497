//! CPython 3.9: `offsetof` compiled against its headers; self-checked in each target
//! (`DEBUG` builds differ). Source: the headers of 3.9.18.

use crate::layout::{
    Bytecode, CodeOffsets, CurrentFrame, DictKeys, DictOffsets, FrameOffsets, GcOffsets, GcPlace,
    GilOffsets, GilPlace, InstanceDict, Instruction, InterpreterOffsets, LineCoding, Offsets,
    TextOffsets, ThreadOffsets, opcodes,
};

/// Offsets of CPython 3.9.
pub const OFFSETS: Offsets = Offsets {
    interpreters_head: 32,
    initialized: 20,
    gil: GilOffsets {
        place: GilPlace::Runtime(352),
        last_holder: 8,
        locked: 16,
        switch_number: 24,
        size: 32,
        whole: 208,
    },
    gc: GcOffsets {
        place: GcPlace::Interpreter(616),
        collecting: 200,
        check: Some((24, 96)),
    },
    interpreter: InterpreterOffsets {
        next: 0,
        id: 24,
        threads_head: 8,
        modules: 856,
    },
    thread: ThreadOffsets {
        prev: 0,
        next: 8,
        interp: 16,
        thread_id: 176,
        native_id: None,
        unique_id: 256,
        current: CurrentFrame::Thread(24),
        stack: None,
    },
    frame: FrameOffsets {
        previous: 24,
        code: 32,
        tag_mask: 0,
        instruction: 104,
        coding: Instruction::ByteIndex,
        owner: None,
        first_shim_owner: 255,
        is_entry: None,
        localsplus: 360,
        value_stack: Some(64),
    },
    code: CodeOffsets {
        constants: 56,
        filename: 104,
        name: 112,
        first_line: 40,
        line_table: 120,
        lines: LineCoding::Lnotab,
        bytecode: Bytecode::Bytes(48),
        nlocalsplus: None,
        stack_size: 32,
        flags: 36,
        exception_table: None,
        head: 128,
    },
    text: TextOffsets {
        ascii_data: 48,
        compact_data: 72,
    },
    dict: DictOffsets {
        keys: DictKeys::Sized,
        instance: InstanceDict::DictOffset,
        cached_keys: 864,
    },
    opcodes: Some(opcodes::V3_9),
    coroutine: None,
};
