//! What some words of structs are called whose references are found by looking: asyncio's futures and tasks
//! (Modules/_asynciomodule.c, `FutureObj_HEAD` and `TaskObj`), thread locals (Modules/_threadmodule.c, `localobject`),
//! csv's writers (Modules/_csv.c, `WriterObj`), connections of sqlite3, contexts of ssl (Modules/_ssl.c, `PySSLContext`), instances of ctypes (Modules/_ctypes/ctypes.h,
//! `CDataObject`). Names only: a word that is not listed is found all the same.

use super::Field;
use super::Row;
use super::fields::find;

/// A task: its future's words, then `task_fut_waiter`, `task_coro`, `task_name`, `task_context`.
macro_rules! task {
    ($result:literal, $waiter:literal $(, $traceback:literal)?) => {
        &[
            $(("_exception_tb", $traceback),)?
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
    ($result:literal $(, $traceback:literal)?) => {
        &[
            $(("_exception_tb", $traceback),)?
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

/// What every instance of a type of ctypes has.
macro_rules! cdata {
    ($($more:expr),*) => {
        &[
            ("_b_base_", 32),
            ("_objects", 64),
            ("b_value", 80),
            ("b_value", 88),
            $($more),*
        ]
    };
}

/// What the words of instances of the type called `name` are called.
pub fn of(minor: u32, name: &str) -> &'static [Field] {
    find(INNER, minor, name).unwrap_or_default()
}

const DEQUE_ITERATOR: &[Field] = &[("deque", 32)];

/// `PyCFuncPtrObject`.
const FUNCTION: &[Field] = cdata!(
    ("thunk", 96),
    ("callable", 104),
    ("converters", 112),
    ("argtypes", 120),
    ("restype", 128),
    ("checker", 136),
    ("errcheck", 144)
);

/// `pysqlite_Connection` (Modules/_sqlite/connection.h) from `row_factory` on. Up to 3.10 the callbacks are there, then pointers to a
/// `callback_context` each.
macro_rules! connection {
    ($factory:literal, $trace:literal) => {
        &[
            ("row_factory", $factory),
            ("text_factory", $factory + 8),
            ("trace_callback", $trace),
            ("progress_handler", $trace + 8),
            ("authorizer", $trace + 16),
        ]
    };
}

const CALLBACKS: &[Field] = &[("sni_callback", 40), ("_msg_callback", 64)];
const MORE_CALLBACKS: &[Field] = &[
    ("sni_callback", 40),
    ("_msg_callback", 64),
    ("psk_client_callback", 96),
    ("psk_server_callback", 104),
];

const INNER: &[Row] = &[
    (8, 10, "sqlite3.Connection", connection!(112, 128)),
    (11, 11, "sqlite3.Connection", connection!(96, 112)),
    (12, 14, "sqlite3.Connection", connection!(104, 120)),
    (15, 15, "sqlite3.Connection", connection!(88, 104)),
    (8, 12, "_ssl._SSLContext", CALLBACKS),
    (13, 15, "_ssl._SSLContext", MORE_CALLBACKS),
    (8, 8, "_asyncio.Task", task!(56, 104)),
    (9, 9, "_asyncio.Task", task!(56, 144)),
    (10, 10, "_asyncio.Task", task!(64, 152, 56)),
    (11, 12, "_asyncio.Task", task!(64, 128, 56)),
    (13, 13, "_asyncio.Task", task!(64, 112, 56)),
    (14, 15, "_asyncio.Task", task!(64, 120, 56)),
    (8, 9, "_asyncio.Future", future!(56)),
    (10, 15, "_asyncio.Future", future!(64, 56)),
    (
        8,
        12,
        "_thread._local",
        &[("args", 24), ("kw", 32), ("dummies", 48)],
    ),
    (
        13,
        15,
        "_thread._local",
        &[("args", 16), ("kw", 24), ("localdicts", 40)],
    ),
    (8, 15, "_thread._localdummy", &[("localdict", 16)]),
    (8, 12, "_queue.SimpleQueue", &[("lst", 32)]),
    (8, 15, "_csv.writer", &[("write", 16), ("dialect", 24)]),
    (
        8,
        15,
        "_csv.reader",
        &[("input_iter", 16), ("dialect", 24), ("fields", 32)],
    ),
    (8, 11, "_collections._deque_iterator", DEQUE_ITERATOR),
    (
        8,
        11,
        "_collections._deque_reverse_iterator",
        DEQUE_ITERATOR,
    ),
    (12, 15, "collections._deque_iterator", DEQUE_ITERATOR),
    (
        12,
        15,
        "collections._deque_reverse_iterator",
        DEQUE_ITERATOR,
    ),
    (8, 15, "_ctypes._CData", cdata!()),
    (8, 15, "_ctypes.Array", cdata!()),
    (8, 15, "_ctypes.Structure", cdata!()),
    (8, 15, "_ctypes.Union", cdata!()),
    (8, 15, "_ctypes._Pointer", cdata!()),
    (8, 15, "_ctypes._SimpleCData", cdata!()),
    (8, 15, "_ctypes.CFuncPtr", FUNCTION),
    (8, 15, "_ctypes.PyCFuncPtr", FUNCTION),
];
