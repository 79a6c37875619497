//! CPython 3.14: `offsetof` compiled against its headers; checked in each target against its own `_Py_DebugOffsets`
//! (`DEBUG` builds differ). Source: the headers of 3.14.10.

use crate::layout::asyncio::{StackTop, TaskList, YieldFrom};
use crate::layout::{
    Bytecode, CodeOffsets, CoroutineOffsets, CurrentFrame, DataStackOffsets, DictKeys, DictOffsets,
    FrameOffsets, GcOffsets, GcPlace, GilOffsets, GilPlace, InstanceDict, Instruction,
    InterpreterOffsets, LineCoding, Offsets, TextOffsets, ThreadOffsets, opcodes,
};

/// Offsets of CPython 3.14.
pub const OFFSETS: Offsets = Offsets {
    interpreters_head: 808,
    initialized: 32,
    gil: GilOffsets {
        place: GilPlace::Interpreter(16),
        last_holder: 8,
        locked: 16,
        switch_number: 24,
        size: 32,
        whole: 208,
    },
    gc: GcOffsets {
        place: GcPlace::Interpreter(7408),
        collecting: 192,
        check: None,
    },
    interpreter: InterpreterOffsets {
        next: 7272,
        id: 7280,
        threads_head: 7344,
        modules: 7688,
    },
    thread: ThreadOffsets {
        prev: 0,
        next: 8,
        interp: 16,
        thread_id: 152,
        native_id: Some(160),
        unique_id: 224,
        current: CurrentFrame::Thread(72),
        stack: Some(DataStackOffsets {
            chunk: 232,
            top: 240,
            chunk_previous: 0,
            chunk_size: 8,
            chunk_top: 16,
            chunk_data: 24,
            bottom_frame: 32,
        }),
    },
    frame: FrameOffsets {
        previous: 8,
        code: 0,
        tag_mask: 3,
        instruction: 56,
        coding: Instruction::Pointer,
        owner: Some(74),
        first_shim_owner: 3,
        is_entry: None,
        localsplus: 80,
        value_stack: None,
    },
    code: CodeOffsets {
        constants: 24,
        filename: 112,
        name: 120,
        first_line: 68,
        line_table: 136,
        lines: LineCoding::Locations,
        bytecode: Bytecode::Inline(208),
        nlocalsplus: Some(72),
        stack_size: 64,
        flags: 48,
        exception_table: Some(40),
        head: 144,
    },
    text: TextOffsets {
        ascii_data: 40,
        compact_data: 56,
    },
    dict: DictOffsets {
        keys: DictKeys::Log2,
        instance: InstanceDict::InlineValues,
        cached_keys: 880,
    },
    opcodes: Some(opcodes::V3_14),
    coroutine: Some(CoroutineOffsets {
        frame_state: 67,
        iframe: 72,
        created: -3,
        suspended: (-2, -1),
        executing: 0,
        yield_from: YieldFrom::State(-1),
        top: StackTop::Pointer(64, 1),
        tasks: TaskList::Rings,
    }),
};
