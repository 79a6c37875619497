//! What only C structs hold: a thread's handled exception, context and hooks; functions that an interpreter calls at
//! its end, at a fork or on an event; signal handlers.

use std::borrow::Cow;

use rustc_hash::FxHashSet;

use super::{Reason, id, is_object_at};
use crate::heap::Heap;
use crate::heap::memory::Place;
use crate::heap::steps::quoted;
use crate::heap::types::Types;
use crate::layout::heap::held::{self, AtExit, Extensions, HANDLER, Monitoring, SIGNALS};

/// In how many bytes of an interpreter's state its collector is.
const WITHIN: u64 = 1 << 20;
/// Most exceptions of one thread that are handled inside of each other.
const HANDLED: usize = 1 << 16;
/// Most functions of `atexit`.
const FUNCTIONS: u64 = 1 << 16;
/// Most bytes of a file and a module's name.
const KEY: usize = 4096 + 256;
/// Most bytes of a library's data that are searched for the signal handlers.
const DATA: u64 = 16 << 20;

/// What the state of a thread holds beside its frames.
pub fn thread(heap: &Heap, tid: i32, state: &Place, roots: &mut Vec<(u64, Reason)>) {
    let Some(held) = held::of(heap.layout.minor) else {
        return;
    };
    let mut put = |target: u64, name: &'static str| {
        if is_something(heap, target) {
            roots.push((target, Reason::Thread { thread: tid, name }));
        }
    };
    for (name, offset) in held.thread {
        put(state.word_or_0(*offset), name);
    }
    // From the innermost exception that is being handled to those that were handled when it was raised; generators
    // that run are in between.
    let mut item = state.word_or_0(held.exc_info);
    let mut followed = FxHashSet::default();
    while item != 0 && followed.len() < HANDLED && followed.insert(item) {
        let Some(place) = heap.memory.place(item) else {
            return;
        };
        for (name, offset) in held.handled {
            put(place.word_or_0(*offset), name);
        }
        item = place.word_or_0(held.previous);
    }
}

/// What an interpreter's state holds beside its modules.
pub fn interpreter(heap: &Heap, interpreter: u64, roots: &mut Vec<(u64, Reason)>) {
    let Some(held) = held::of(heap.layout.minor) else {
        return;
    };
    let word = |offset: u32| {
        let at = interpreter.wrapping_add(offset.into());
        heap.memory.word(at).unwrap_or(0)
    };
    let mut put = |target: u64, name: Cow<'static, str>| {
        if is_something(heap, target) {
            let interpreter = id(heap, interpreter);
            let field = name;
            roots.push((target, Reason::Interpreter { field, interpreter }));
        }
    };
    for (name, offset) in held.lists {
        let target = word(*offset);
        if type_name(heap, target).as_deref() == Some("list") {
            put(target, Cow::Borrowed(name));
        }
    }
    for (name, offset) in held.others {
        put(word(*offset), Cow::Borrowed(name));
    }
    for range in held.ranges {
        // Elsewhere in another patch release, or not set up.
        let first = range.first.filter(|_| range.words > 0);
        let is_there = first.is_none_or(|first| {
            let target = word(range.start);
            let found = is_object_at(heap, target)
                .then(|| Types::default().resolved(heap, target))
                .flatten();
            found.is_some_and(|found| found.tp_name == first)
        });
        for at in (0..range.words).filter(|_| is_there) {
            let target = word(range.start + 8 * at);
            if first.is_some() || type_name(heap, target).as_deref() == Some("type") {
                put(target, Cow::Borrowed(range.name));
            }
        }
    }
    for (_, dict) in heap.interned.iter().filter(|(of, _)| *of == interpreter) {
        put(*dict, Cow::Borrowed("interned_strings"));
    }
    let array = match held.at_exit {
        AtExit::List(offset) => {
            put(word(offset), Cow::Borrowed("atexit"));
            None
        }
        AtExit::Array(offset) => Some(interpreter.wrapping_add(offset.into())),
        AtExit::Module(offset) => {
            let state = heap.memory.place(word(offset));
            state.and_then(|module| module.word(heap.layout.module_object.state))
        }
    };
    for (index, function) in at_exit(heap, array).into_iter().enumerate() {
        for target in function {
            put(target, Cow::Owned(format!("atexit[{index}]")));
        }
    }
    if let Some(monitoring) = held.monitoring {
        for tool in 0..Monitoring::TOOLS {
            put(
                word(monitoring.names + tool * 8),
                Cow::Borrowed("monitoring_tool_names"),
            );
            for event in 0..monitoring.events {
                let offset = monitoring.callables + (tool * monitoring.events + event) * 8;
                put(
                    word(offset),
                    Cow::Owned(format!("monitoring_callables[{tool}]")),
                );
            }
        }
    }
}

/// What collectors hold: `gc.garbage` and `gc.callbacks`, whether or not the module is imported.
pub fn collectors(heap: &Heap, roots: &mut Vec<(u64, Reason)>) {
    // Each has three lists that are shown.
    for head in heap.young.iter().step_by(3) {
        let base = head.wrapping_sub(heap.layout.gc.generations.into());
        let before = heap.interpreters.iter().filter(|own| **own <= base);
        let own = before.max().filter(|own| base - **own < WITHIN);
        for (name, offset) in heap.layout.gc.lists {
            let at = base.wrapping_add((*offset).into());
            let target = heap.memory.word(at).unwrap_or(0);
            if type_name(heap, target).as_deref() == Some("list") {
                let reason = Reason::Interpreter {
                    field: Cow::Borrowed(name),
                    interpreter: own.map_or(0, |own| id(heap, *own)),
                };
                roots.push((target, reason));
            }
        }
    }
}

/// What belongs to no interpreter: functions of signals, files of `faulthandler`.
pub fn runtime(heap: &Heap, roots: &mut Vec<(u64, Reason)>) {
    let Some(held) = held::of(heap.layout.minor) else {
        return;
    };
    let runtime = heap.captured.runtime.address;
    for (name, offset) in held.runtime {
        let at = runtime.wrapping_add((*offset).into());
        let target = heap.memory.word(at).unwrap_or(0);
        if is_something(heap, target) {
            let reason = Reason::Interpreter {
                field: Cow::Borrowed(name),
                interpreter: 0,
            };
            roots.push((target, reason));
        }
    }
    if let Some(held) = held.extensions {
        extensions(heap, runtime, held, roots);
    }
    let table = match held.signals {
        Some(offset) => Some(runtime.wrapping_add(offset.into())),
        None => find_handlers(heap, runtime),
    };
    for (signal, target) in table.into_iter().flat_map(|table| {
        (1..SIGNALS).map(move |signal| (signal, table.wrapping_add(signal * HANDLER + 8)))
    }) {
        let target = heap.memory.word(target).unwrap_or(0);
        // None, and what stands for the default and for nothing, are ints and in the module.
        let name = type_name(heap, target);
        if name.is_some_and(|name| name != "NoneType" && name != "int") {
            let reason = Reason::Interpreter {
                field: Cow::Owned(format!("signal_handlers[{signal}]")),
                interpreter: 0,
            };
            roots.push((target, reason));
        }
    }
}

/// Copies of the dicts of extension modules, and the names of keyword arguments that parsers of C code made.
fn extensions(heap: &Heap, runtime: u64, held: Extensions, roots: &mut Vec<(u64, Reason)>) {
    let word = |at: u64, offset: u32| heap.memory.word(at.wrapping_add(offset.into()));
    let mut put = |target: u64, kind: &str, field: Cow<'static, str>| {
        if type_name(heap, target).as_deref() == Some(kind) {
            let interpreter = 0;
            roots.push((target, Reason::Interpreter { field, interpreter }));
        }
    };
    let [count, buckets] = Extensions::BUCKETS;
    let [next, key, value] = Extensions::ENTRY;
    let mut left = FUNCTIONS;
    let table = word(runtime, held.table).and_then(|table| heap.memory.place(table));
    let buckets = table.and_then(|table| {
        let count = table.word(count)?.min(FUNCTIONS);
        heap.memory.words(table.word(buckets)?, count)
    });
    for mut entry in crate::heap::memory::each_word(buckets.unwrap_or_default()) {
        while entry != 0 && left > 0 {
            left -= 1;
            let Some(found) = heap.memory.place(entry) else {
                break;
            };
            // File and name, with a colon between.
            let name = heap.memory.c_string(found.word_or_0(key), KEY);
            let name = name.as_deref().and_then(|name| name.rsplit(':').next());
            let field = format!("extensions[{}].m_copy", quoted(name.unwrap_or("?")));
            let copy = word(found.word_or_0(value), held.copy).unwrap_or(0);
            put(copy, "dict", Cow::Owned(field));
            entry = found.word_or_0(next);
        }
    }
    let [names, next] = Extensions::PARSER;
    let mut parser = word(runtime, held.parsers).unwrap_or(0);
    let mut followed = FxHashSet::default();
    while parser != 0 && (followed.len() as u64) < FUNCTIONS && followed.insert(parser) {
        let Some(found) = heap.memory.place(parser) else {
            return;
        };
        let field = Cow::Borrowed("getargs_parsers[*].kwtuple");
        put(found.word_or_0(names), "tuple", field);
        parser = found.word_or_0(next);
    }
}

/// Function, arguments and keyword arguments of each function of `atexit`, from a pointer to an array of pointers that
/// is followed by their number.
fn at_exit(heap: &Heap, array: Option<u64>) -> Vec<[u64; 3]> {
    let found = array.and_then(|array| {
        let array = heap.memory.place(array)?;
        let count = u64::from(array.int(8)).min(FUNCTIONS);
        let words = heap.memory.words(array.word(0)?, count)?;
        let each = crate::heap::memory::each_word(words);
        // Those that were unregistered are null.
        Some(
            each.filter_map(|entry| {
                let entry = heap.memory.place(entry)?;
                Some([0, 8, 16].map(|offset| entry.word_or_0(offset)))
            })
            .collect(),
        )
    });
    found.unwrap_or_default()
}

/// The static array `Handlers` of Modules/signalmodule.c (up to 3.11), in the data of the binary that has the runtime:
/// each entry has 0 or 1 and an object, and that of signal 32, which is the C library's own, has None.
fn find_handlers(heap: &Heap, runtime: u64) -> Option<u64> {
    let spans = heap.captured.image.spans();
    let own = spans
        .iter()
        .position(|span| (span.start()..span.end()).contains(&runtime))?;
    let joins = |a: usize, b: usize| {
        let ends = spans.get(a).zip(spans.get(b));
        ends.is_some_and(|(a, b)| a.end() == b.start())
    };
    let mut last = own;
    while joins(last, last + 1) {
        last += 1;
    }
    let mut first = own;
    while first > 0 && joins(first - 1, first) {
        first -= 1;
    }
    // What joins may be long: the data of the binary is around the runtime.
    let start = spans.get(first)?.start().max(runtime.saturating_sub(DATA));
    let start = start.next_multiple_of(HANDLER);
    let end = spans.get(last)?.end().min(runtime.saturating_add(DATA));
    let length = SIGNALS * HANDLER;
    let mut at = start;
    while at + length <= end {
        let Some(place) = heap.memory.place(at) else {
            at += HANDLER;
            continue;
        };
        // The last one that does not fit decides how far the next candidate is.
        let wrong = (1..SIGNALS).rev().find(|signal| {
            let offset = (*signal * HANDLER) as u32;
            let function = place.word_or_0(offset + 8);
            place.word_or_0(offset) > 1 || function == 0 || function & 7 != 0
        });
        match wrong {
            Some(wrong) => at += wrong * HANDLER,
            None => {
                let reserved = place.word_or_0((32 * HANDLER) as u32 + 8);
                let is_table = type_name(heap, reserved).as_deref() == Some("NoneType")
                    && (1..SIGNALS).all(|signal| {
                        is_object_at(heap, place.word_or_0((signal * HANDLER) as u32 + 8))
                    });
                if is_table {
                    return Some(at);
                }
                at += HANDLER;
            }
        }
    }
    None
}

/// Whether an object is there that is not None.
fn is_something(heap: &Heap, target: u64) -> bool {
    target != 0 && type_name(heap, target).is_some_and(|name| name != "NoneType")
}

/// Name of the type of the object at `target`, if one is there.
fn type_name(heap: &Heap, target: u64) -> Option<String> {
    if !is_object_at(heap, target) {
        return None;
    }
    let kind = heap.memory.word(target + 8)?;
    Some(Types::default().resolved(heap, kind)?.tp_name)
}
