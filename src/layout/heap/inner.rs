//! What some words of structs are called whose references are found by looking: asyncio's futures and tasks
//! (Modules/_asynciomodule.c, `FutureObj_HEAD` and `TaskObj`), thread locals (Modules/_threadmodule.c, `localobject`),
//! csv's writers (Modules/_csv.c, `WriterObj`). Names only: a word that is not listed is found all the same.

use super::{Field, TypeFields};

/// A task: its future's words, then `task_fut_waiter`, `task_coro`, `task_name`, `task_context`.
macro_rules! task {
    ($result:literal, $waiter:literal) => {
        &[
            ("_loop", 16),
            ("_callbacks", 24),
            ("_callback_context", 32),
            ("_callbacks", 40),
            ("_exception", 48),
            ("_result", $result),
            ("_source_traceback", $result + 8),
            ("_fut_waiter", $waiter),
            ("_coro", $waiter + 8),
            ("_name", $waiter + 16),
            ("_context", $waiter + 24),
        ]
    };
}

macro_rules! future {
    ($result:literal) => {
        &[
            ("_loop", 16),
            ("_callbacks", 24),
            ("_callback_context", 32),
            ("_callbacks", 40),
            ("_exception", 48),
            ("_result", $result),
            ("_source_traceback", $result + 8),
        ]
    };
}

const LOCAL_TO_3_12: &[Field] = &[("args", 24), ("kw", 32), ("dummies", 48)];
const LOCAL_FROM_3_13: &[Field] = &[("args", 16), ("kw", 24), ("localdicts", 40)];
const DUMMY: TypeFields = ("_thread._localdummy", &[("localdict", 16)]);
const WRITER: TypeFields = ("_csv.writer", &[("write", 16), ("dialect", 24)]);

/// 3.8.
pub const V3_8: &[TypeFields] = &[
    ("_asyncio.Task", task!(56, 104)),
    ("_asyncio.Future", future!(56)),
    ("_thread._local", LOCAL_TO_3_12),
    DUMMY,
    WRITER,
];

/// 3.9.
pub const V3_9: &[TypeFields] = &[
    ("_asyncio.Task", task!(56, 144)),
    ("_asyncio.Future", future!(56)),
    ("_thread._local", LOCAL_TO_3_12),
    DUMMY,
    WRITER,
];

/// 3.10.
pub const V3_10: &[TypeFields] = &[
    ("_asyncio.Task", task!(64, 152)),
    ("_asyncio.Future", future!(64)),
    ("_thread._local", LOCAL_TO_3_12),
    DUMMY,
    WRITER,
];

/// 3.11 and 3.12.
pub const V3_11: &[TypeFields] = &[
    ("_asyncio.Task", task!(64, 128)),
    ("_asyncio.Future", future!(64)),
    ("_thread._local", LOCAL_TO_3_12),
    DUMMY,
    WRITER,
];

/// 3.13.
pub const V3_13: &[TypeFields] = &[
    ("_asyncio.Task", task!(64, 112)),
    ("_asyncio.Future", future!(64)),
    ("_thread._local", LOCAL_FROM_3_13),
    DUMMY,
    WRITER,
];

/// 3.14 and 3.15.
pub const V3_14: &[TypeFields] = &[
    ("_asyncio.Task", task!(64, 120)),
    ("_asyncio.Future", future!(64)),
    ("_thread._local", LOCAL_FROM_3_13),
    DUMMY,
    WRITER,
];
