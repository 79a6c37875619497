//! CPython 3.12: `offsetof` compiled against its headers; self-checked in each target
//! (`DEBUG` builds differ). Source: the headers of 3.12.1.

use crate::layout::asyncio::{StackTop, TaskList, YieldFrom};
use crate::layout::{
    Bytecode, CodeOffsets, CoroutineOffsets, CurrentFrame, DataStackOffsets, DictKeys, DictOffsets,
    FrameOffsets, GcOffsets, GcPlace, GilOffsets, GilPlace, InstanceDict, Instruction,
    InterpreterOffsets, LineCoding, Offsets, TextOffsets, ThreadOffsets, opcodes,
};

/// Offsets of CPython 3.12.
pub const OFFSETS: Offsets = Offsets {
    interpreters_head: 40,
    initialized: 24,
    gil: GilOffsets {
        place: GilPlace::Interpreter(384),
        last_holder: 8,
        locked: 16,
        switch_number: 24,
        size: 32,
        whole: 208,
    },
    gc: GcOffsets {
        place: GcPlace::Interpreter(112),
        collecting: 200,
        check: Some((24, 96)),
    },
    interpreter: InterpreterOffsets {
        next: 0,
        id: 8,
        threads_head: 72,
        modules: 944,
    },
    thread: ThreadOffsets {
        prev: 0,
        next: 8,
        interp: 16,
        thread_id: 136,
        native_id: Some(144),
        unique_id: 224,
        current: CurrentFrame::CFrame {
            cframe: 56,
            current: 0,
            previous: 8,
            size: 16,
        },
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
        tag_mask: 0,
        instruction: 56,
        coding: Instruction::Pointer,
        owner: Some(70),
        first_shim_owner: 3,
        is_entry: None,
        localsplus: 72,
        value_stack: None,
    },
    code: CodeOffsets {
        constants: 24,
        filename: 112,
        name: 120,
        first_line: 68,
        line_table: 136,
        lines: LineCoding::Locations,
        bytecode: Bytecode::Inline(192),
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
        instance: InstanceDict::TaggedValues,
        cached_keys: 880,
    },
    opcodes: Some(opcodes::V3_12),
    coroutine: Some(CoroutineOffsets {
        frame_state: 67,
        iframe: 72,
        created: -2,
        suspended: (-1, -1),
        executing: 0,
        yield_from: YieldFrom::NextResume,
        top: StackTop::Depth(64),
        tasks: TaskList::Sets {
            weak: &["_scheduled_tasks"],
            plain: &["_eager_tasks"],
            current: "_current_tasks",
        },
    }),
};
