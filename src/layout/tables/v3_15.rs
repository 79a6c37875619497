//! CPython 3.15: `offsetof` compiled against its headers; checked in each target against its own `_Py_DebugOffsets`
//! (`DEBUG` builds differ). Source: the headers of 3.15.2.

use crate::layout::asyncio::{StackTop, TaskList, YieldFrom};
use crate::layout::{
    Bytecode, CodeOffsets, CoroutineOffsets, CurrentFrame, DataStackOffsets, DictKeys, DictOffsets,
    FrameOffsets, GcOffsets, GcPlace, GilOffsets, GilPlace, InstanceDict, Instruction,
    InterpreterOffsets, LineCoding, Offsets, TextOffsets, ThreadOffsets, opcodes,
};

/// Offsets of CPython 3.15.
pub const OFFSETS: Offsets = Offsets {
    interpreters_head: 936,
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
        place: GcPlace::Interpreter(7400),
        collecting: 112,
        check: None,
    },
    interpreter: InterpreterOffsets {
        next: 7264,
        id: 7272,
        threads_head: 7336,
        modules: 7592,
    },
    thread: ThreadOffsets {
        prev: 0,
        next: 8,
        interp: 16,
        thread_id: 176,
        native_id: Some(184),
        unique_id: 248,
        current: CurrentFrame::Thread(72),
        stack: Some(DataStackOffsets {
            chunk: 256,
            top: 264,
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
        cached_keys: 888,
    },
    opcodes: Some(opcodes::V3_15),
    coroutine: Some(CoroutineOffsets {
        frame_state: 67,
        iframe: 72,
        created: 0,
        suspended: (1, 3),
        executing: 4,
        yield_from: YieldFrom::State(2),
        top: StackTop::Pointer(64, 2),
        tasks: TaskList::Rings,
    }),
};
