//! What only the state of a thread, an interpreter or the runtime holds: `PyThreadState` (Include/cpython/pystate.h),
//! `PyInterpreterState` and `_PyRuntimeState` (Include/internal/pycore_interp.h, pycore_runtime.h). `offsetof`
//! compiled against each version's headers (x86-64, with the GIL).

use super::Field;

/// Where an interpreter keeps the functions of `atexit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtExit {
    /// Pointer to an array of pointers and an int that counts them, in the state of the module that this field of the
    /// interpreter points at (3.8, 3.9).
    Module(u32),
    /// Both at this offset of the interpreter (3.10 to 3.13).
    Array(u32),
    /// A list (3.14 and newer).
    List(u32),
}

/// Callables of `sys.monitoring`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Monitoring {
    /// `monitoring_callables`: one array of events for each of [`Monitoring::TOOLS`] tools.
    pub callables: u32,
    /// Events of each tool.
    pub events: u32,
    /// `monitoring_tool_names`.
    pub names: u32,
}

impl Monitoring {
    /// `PY_MONITORING_TOOL_IDS`.
    pub const TOOLS: u32 = 8;
}

/// Objects that stand side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// What they are called together.
    pub name: &'static str,
    /// Where the first one is.
    pub start: u32,
    /// How many.
    pub words: u32,
    /// What the first one is, by `tp_name`, since the place moves between patch releases; else all are types.
    pub first: Option<&'static str>,
}

/// `ast_state`: the types of `_ast` and the objects of which there is one each, behind some ints.
const fn ast(start: u32, words: u32) -> Range {
    Range {
        name: "ast_state",
        start,
        words,
        first: Some("ast.AST"),
    }
}

/// `cached_objects.generic_type` and those that follow, of `typing`.
const fn typing(start: u32) -> Range {
    Range {
        name: "cached_types",
        start,
        words: 6,
        first: None,
    }
}

/// What the runtime has of extension modules and of parsers of arguments (Include/internal/pycore_import.h, pycore_hashtable.h,
/// Include/cpython/modsupport.h; 3.12 and newer).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extensions {
    /// `imports.extensions.hashtable`: for each module that was made in one phase (PEP 489 calls it so) what it was made from.
    pub table: u32,
    /// The copy of a module's dict in such a value: `m_base.m_copy` of the definition (3.12), `m_dict->copied` (Python/import.c).
    pub copy: u32,
    /// `getargs.static_parsers`: the first of those that C code has used.
    pub parsers: u32,
}

impl Extensions {
    /// `nbuckets` and `buckets` of the table.
    pub const BUCKETS: [u32; 2] = [8, 16];
    /// Next one, key and value of an entry.
    pub const ENTRY: [u32; 3] = [0, 16, 24];
    /// `kwtuple` and `next` of a parser.
    pub const PARSER: [u32; 2] = [56, 64];
}

/// Where those references are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// In a thread's state.
    pub thread: &'static [Field],
    /// `exc_info` in it: the innermost of a chain of `_PyErr_StackItem`.
    pub exc_info: u32,
    /// What such an item holds.
    pub handled: &'static [Field],
    /// `previous_item` in it.
    pub previous: u32,
    /// In an interpreter's state. Each is a list where it is any object at all.
    pub lists: &'static [Field],
    /// In the same place, of any type.
    pub others: &'static [Field],
    /// In the same place, arrays of objects and structs of nothing else.
    pub ranges: &'static [Range],
    /// Functions of `atexit`.
    pub at_exit: AtExit,
    /// Callables of `sys.monitoring` (3.12 and newer).
    pub monitoring: Option<Monitoring>,
    /// `cached_objects.interned_strings` in an interpreter, where the collector knows that dict (3.14 and newer). Differs between
    /// patch releases: looked for from here.
    pub interned: Option<u32>,
    /// `signals.handlers` in the runtime (3.12 and newer); before that they are in a static array.
    pub signals: Option<u32>,
    /// What the runtime holds.
    pub runtime: &'static [Field],
    /// What it has of extension modules.
    pub extensions: Option<Extensions>,
}

/// Words of an entry of the signal handlers: an int and a function.
pub const HANDLER: u64 = 16;
/// `Py_NSIG` on Linux; there is no signal 0.
pub const SIGNALS: u64 = 65;

const HANDLED_3: &[Field] = &[
    ("handled_exception_type", 0),
    ("handled_exception", 8),
    ("handled_exception_traceback", 16),
];
const HANDLED: &[Field] = &[("handled_exception", 0)];

/// The thread's fields, by `c_profileobj`, those of the exception that is being raised, `dict`, `async_exc`,
/// `async_gen_firstiter`, which is followed by the finalizer and the context, and others.
macro_rules! thread {
    ($profile:literal, $raised:tt, $dict:literal, $asynchronous:literal, $firstiter:literal $(, $name:literal: $at:literal)*) => {
        thread!(@ $raised [("profile_function", $profile),
            ("trace_function", $profile + 8),
            ("dict", $dict),
            ("async_exception", $asynchronous),
            ("asyncgen_firstiter", $firstiter),
            ("asyncgen_finalizer", $firstiter + 8),
            ("context", $firstiter + 16),
            $(($name, $at),)*])
    };
    (@ [$raised:literal] [$($field:expr),* $(,)?]) => {
        &[$($field,)* ("raised_exception", $raised)]
    };
    (@ [$raised:literal, 3] [$($field:expr),* $(,)?]) => {
        &[
            $($field,)*
            ("raised_exception_type", $raised),
            ("raised_exception", $raised + 8),
            ("raised_exception_traceback", $raised + 16),
        ]
    };
}

macro_rules! lists {
    ($audit:literal, $fork:literal) => {
        &[
            ("audit_hooks", $audit),
            ("at_fork_before", $fork),
            ("at_fork_after_in_parent", $fork + 8),
            ("at_fork_after_in_child", $fork + 16),
        ]
    };
}

/// `faulthandler.fatal_error.file` and `faulthandler.thread.file`.
macro_rules! faulthandler {
    ($enabled:literal, $later:literal) => {
        &[
            ("faulthandler_file", $enabled),
            ("faulthandler_later_file", $later),
        ]
    };
}

/// `table` and `parsers` of [`Extensions`]; the copy is at the same place in both structs.
const fn extensions(table: u32, parsers: u32) -> Option<Extensions> {
    Some(Extensions {
        table,
        copy: 32,
        parsers,
    })
}

/// Of Python 3.`minor`.
pub fn of(minor: u32) -> Option<&'static Held> {
    HELD.get(minor.checked_sub(8)? as usize)
}

const HELD: [Held; 8] = [
    Held {
        thread: thread!(72, [88, 3], 152, 168, 224, "on_delete_data": 208),
        exc_info: 144,
        handled: HANDLED_3,
        previous: 24,
        lists: lists!(2704, 2624),
        others: &[("import_func", 560)],
        ranges: &[],
        at_exit: AtExit::Module(2656),
        monitoring: None,
        interned: None,
        signals: None,
        runtime: &[],
        extensions: None,
    },
    Held {
        thread: thread!(72, [88, 3], 152, 168, 224, "on_delete_data": 208),
        exc_info: 144,
        handled: HANDLED_3,
        previous: 24,
        lists: lists!(3536, 3456),
        others: &[("import_func", 1392)],
        ranges: &[],
        at_exit: AtExit::Module(3488),
        monitoring: None,
        interned: None,
        signals: None,
        runtime: &[],
        extensions: None,
    },
    Held {
        thread: thread!(72, [88, 3], 152, 168, 224, "on_delete_data": 208),
        exc_info: 144,
        handled: HANDLED_3,
        previous: 24,
        lists: lists!(3504, 3424),
        others: &[("import_func", 1360)],
        ranges: &[ast(13_344, 234)],
        at_exit: AtExit::Array(3488),
        monitoring: None,
        interned: None,
        signals: None,
        runtime: &[],
        extensions: None,
    },
    Held {
        thread: thread!(80, [96, 3], 128, 144, 208, "on_delete_data": 192),
        exc_info: 120,
        handled: HANDLED,
        previous: 8,
        lists: lists!(3552, 3480),
        others: &[("import_func", 1416)],
        ranges: &[ast(7176, 235)],
        at_exit: AtExit::Array(3536),
        monitoring: None,
        interned: None,
        signals: None,
        runtime: &[],
        extensions: None,
    },
    Held {
        thread: thread!(80, [96], 112, 128, 192, "on_delete_data": 176),
        exc_info: 104,
        handled: HANDLED,
        previous: 8,
        lists: lists!(267_208, 3872),
        others: &[("import_func", 984), ("errnomap", 273_400)],
        ranges: &[ast(273_448, 242), typing(383_048)],
        at_exit: AtExit::Array(3944),
        monitoring: Some(Monitoring {
            callables: 381_784,
            events: 17,
            names: 382_872,
        }),
        interned: None,
        signals: Some(464),
        runtime: faulthandler!(2608, 2632),
        extensions: extensions(1928, 2584),
    },
    Held {
        thread: thread!(96, [112], 128, 144, 192, "threading_local_key": 288, "threading_local_sentinel": 296),
        exc_info: 120,
        handled: HANDLED,
        previous: 8,
        lists: lists!(10_808, 10_632),
        others: &[
            ("import_func", 7696),
            ("errnomap", 82_640),
            ("not_shareable_error", 10_624),
        ],
        ranges: &[ast(82_704, 243), typing(194_440)],
        at_exit: AtExit::Array(10_712),
        monitoring: Some(Monitoring {
            callables: 193_176,
            events: 17,
            names: 194_264,
        }),
        interned: None,
        signals: Some(1080),
        runtime: faulthandler!(9920, 9944),
        extensions: extensions(2544, 9896),
    },
    Held {
        thread: thread!(96, [112], 128, 144, 192, "threading_local_key": 288, "threading_local_sentinel": 296,
            "running_loop": 864, "running_task": 872),
        exc_info: 120,
        handled: HANDLED,
        previous: 8,
        lists: lists!(10_912, 10_696),
        others: &[
            ("import_func", 7728),
            ("warnings_context", 10_776),
            ("errnomap", 79_888),
            ("not_shareable_error", 10_688),
        ],
        ranges: &[ast(79_952, 246), typing(224_736)],
        at_exit: AtExit::List(10_792),
        monitoring: Some(Monitoring {
            callables: 223_280,
            events: 19,
            names: 224_496,
        }),
        interned: Some(224_624),
        signals: Some(1256),
        runtime: faulthandler!(10_128, 10_160),
        extensions: extensions(2728, 10_104),
    },
    Held {
        thread: thread!(120, [136], 152, 168, 216, "threading_local_key": 328, "threading_local_sentinel": 336,
            "running_loop": 1024, "running_task": 1032),
        exc_info: 144,
        handled: HANDLED,
        previous: 8,
        lists: lists!(10_888, 10_672),
        others: &[
            ("import_func", 7632),
            ("warnings_context", 10_752),
            ("errnomap", 79_896),
            ("not_shareable_error", 10_648),
            ("lazy_import_func", 7640),
            ("lazy_imports_filter", 7656),
            ("lazy_modules", 7664),
            ("lazy_pending_submodules", 7672),
        ],
        ranges: &[ast(79_960, 248), typing(224_936)],
        at_exit: AtExit::List(10_768),
        monitoring: Some(Monitoring {
            callables: 223_552,
            events: 19,
            names: 224_768,
        }),
        interned: Some(224_896),
        signals: Some(1384),
        runtime: faulthandler!(10_248, 10_288),
        extensions: extensions(2848, 10_224),
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::heap::for_version;
    use crate::layout::tables::MINORS;

    #[test]
    fn every_version_that_is_known_has_a_row_and_no_field_twice() {
        for minor in MINORS.filter(|minor| for_version(3, *minor).is_some()) {
            let held = of(minor).expect("a row");
            for fields in [
                held.thread,
                held.lists,
                held.others,
                held.handled,
                held.runtime,
            ] {
                for (at, (name, offset)) in fields.iter().enumerate() {
                    let again = fields[..at]
                        .iter()
                        .any(|known| known.0 == *name || known.1 == *offset);
                    assert!(!again, "{name} of 3.{minor}");
                }
            }
        }
        assert!(of(7).is_none() && of(16).is_none());
    }
}
