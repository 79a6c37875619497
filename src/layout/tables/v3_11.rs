//! CPython 3.11: `offsetof` compiled against its headers; self-checked in each target
//! (`DEBUG` builds differ). Source: the headers of 3.11.7.

use crate::layout::asyncio::{StackTop, TaskList, YieldFrom};
use crate::layout::{
    Bytecode, CodeOffsets, CoroutineOffsets, CurrentFrame, DataStackOffsets, DictKeys, DictOffsets,
    FrameOffsets, GcOffsets, GcPlace, GilOffsets, GilPlace, InstanceDict, Instruction,
    InterpreterOffsets, LineCoding, Offsets, TextOffsets, ThreadOffsets, opcodes,
};

/// Offsets of CPython 3.11.
pub const OFFSETS: Offsets = Offsets {
    interpreters_head: 40,
    initialized: 24,
    gil: GilOffsets {
        place: GilPlace::Runtime(360),
        last_holder: 8,
        locked: 16,
        switch_number: 24,
        size: 32,
        whole: 208,
    },
    gc: GcOffsets {
        place: GcPlace::Interpreter(648),
        collecting: 200,
        check: Some((24, 96)),
    },
    interpreter: InterpreterOffsets {
        next: 0,
        id: 48,
        threads_head: 16,
        modules: 888,
    },
    thread: ThreadOffsets {
        prev: 0,
        next: 8,
        interp: 16,
        thread_id: 152,
        native_id: Some(160),
        unique_id: 240,
        current: CurrentFrame::CFrame {
            cframe: 56,
            current: 8,
            previous: 16,
            size: 24,
        },
        stack: Some(DataStackOffsets {
            chunk: 296,
            top: 304,
            chunk_previous: 0,
            chunk_size: 8,
            chunk_top: 16,
            chunk_data: 24,
            bottom_frame: 32,
        }),
    },
    frame: FrameOffsets {
        previous: 48,
        code: 32,
        tag_mask: 0,
        instruction: 56,
        coding: Instruction::Pointer,
        owner: Some(69),
        first_shim_owner: 3,
        is_entry: Some(68),
        localsplus: 72,
        value_stack: None,
    },
    code: CodeOffsets {
        constants: 24,
        filename: 112,
        name: 120,
        first_line: 72,
        line_table: 136,
        lines: LineCoding::Locations,
        bytecode: Bytecode::Inline(184),
        nlocalsplus: Some(76),
        stack_size: 68,
        flags: 48,
        exception_table: Some(40),
        head: 144,
    },
    text: TextOffsets {
        ascii_data: 48,
        compact_data: 72,
    },
    dict: DictOffsets {
        keys: DictKeys::Log2,
        instance: InstanceDict::ValuesOrDict,
        cached_keys: 872,
    },
    opcodes: Some(opcodes::V3_11),
    coroutine: Some(CoroutineOffsets {
        frame_state: 75,
        iframe: 80,
        created: -2,
        suspended: (-1, -1),
        executing: 0,
        yield_from: YieldFrom::NextResume,
        top: StackTop::Depth(64),
        tasks: TaskList::Sets {
            weak: &["_all_tasks"],
            plain: &[],
            current: "_current_tasks",
        },
    }),
};
