//! Where a walk starts beside the collector's lists: the state of each interpreter, its modules and static types,
//! and the frames of its threads.

mod held;

use std::borrow::Cow;

use rustc_hash::FxHashSet;

use super::decode::dict::Keys;
use super::decode::sinks::Named;
use super::decode::{Name, frames, references};
use super::memory::{Place, each_word};
use super::types::Types;
use super::{Heap, fragments};
use crate::layout::CurrentFrame;
use crate::target::threads;

/// Most frames of all threads and modules that are followed.
const FRAMES: usize = 1 << 20;
const MODULES: u64 = 1 << 20;
/// Most frames whose bytecode is walked for what is on their evaluation stacks: of a hostile target each may be long.
const WALKED: usize = 20_000;

/// Offset of `header.self` in `struct pthread`.
const HEADER_SELF: u32 = 16;
/// Highest id of a thread (`PID_MAX_LIMIT` of Linux).
const MOST_TID: i32 = 1 << 22;

/// Why something is a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// A module.
    Module {
        /// The string that names it.
        name: u64,
        /// Id of the interpreter, 0 of the main one; so below.
        interpreter: u64,
    },
    /// A local variable, by the string that names it, or a value on the stack.
    Frame {
        /// OS id of the thread, 0 when not known.
        thread: i32,
        /// 0 innermost.
        depth: u32,
        /// The string that names the function.
        function: u64,
        /// The variable.
        local: Option<u64>,
        interpreter: u64,
    },
    /// A field of a thread's state.
    Thread {
        /// OS id of the thread, 0 when not known.
        thread: i32,
        /// What it is.
        name: &'static str,
    },
    /// A field of the interpreter's state.
    Interpreter {
        field: Cow<'static, str>,
        interpreter: u64,
    },
    /// A type that C code laid out.
    StaticType,
}

/// All roots with their reasons.
pub fn find(heap: &Heap) -> Vec<(u64, Reason)> {
    let mut roots = Vec::new();
    for interpreter in &heap.interpreters {
        state(heap, *interpreter, &mut roots);
        modules(heap, *interpreter, &mut roots);
        thread_stacks(heap, *interpreter, &mut roots);
        held::interpreter(heap, *interpreter, &mut roots);
    }
    if heap.interpreters.is_empty() {
        modules_by_links(heap, &mut roots);
    }
    held::collectors(heap, &mut roots);
    held::runtime(heap, &mut roots);
    roots.push((heap.type_type, Reason::StaticType));
    for state in &heap.static_states {
        roots.push((state.kind, Reason::StaticType));
    }
    roots
}

/// An interpreter's id; 0 of the main one.
fn id(heap: &Heap, interpreter: u64) -> u64 {
    let offset = heap.offsets.interpreter.id;
    let id = heap.memory.word(interpreter.wrapping_add(offset.into()));
    id.unwrap_or(0)
}

fn state(heap: &Heap, interpreter: u64, roots: &mut Vec<(u64, Reason)>) {
    let sysdict = heap.layout.sysdict;
    let known = [
        ("sysdict", sysdict),
        ("builtins", sysdict + 8),
        ("modules", heap.offsets.interpreter.modules),
    ];
    for (name, offset) in known.iter().chain(heap.layout.interpreter) {
        let target = heap
            .memory
            .word(interpreter.wrapping_add((*offset).into()))
            .unwrap_or(0);
        // Some move between patch releases, and lead to nothing then.
        if is_object_at(heap, target) {
            let reason = Reason::Interpreter {
                field: Cow::Borrowed(name),
                interpreter: id(heap, interpreter),
            };
            roots.push((target, reason));
        }
    }
}

/// Whether an object is there, as far as it shows.
fn is_object_at(heap: &Heap, address: u64) -> bool {
    let place = heap.memory.place(address);
    place
        .filter(|place| heap.counts_references(place))
        .and_then(|place| Types::default().find(heap, place.word(8)?))
        .is_some()
}

fn modules(heap: &Heap, interpreter: u64, roots: &mut Vec<(u64, Reason)>) {
    let at = interpreter.wrapping_add(heap.offsets.interpreter.modules.into());
    let keys = heap.memory.word(at).and_then(|dict| {
        let place = heap.memory.place(dict)?;
        Some((Keys::read(heap, place.word(32)?)?, place.word(40)?))
    });
    let Some((keys, values)) = keys.filter(|(keys, _)| keys.count < MODULES) else {
        return;
    };
    let interpreter = id(heap, interpreter);
    keys.each(heap, values, |name, value| {
        if value != 0 && name != 0 {
            roots.push((value, Reason::Module { name, interpreter }));
        }
        true
    });
}

/// Modules of a core file that lacks the interpreters, and with them the list of modules.
fn modules_by_links(heap: &Heap, roots: &mut Vec<(u64, Reason)>) {
    let mut types = Types::default();
    // `md_name` follows `md_weaklist`, which follows the state.
    let name_at = heap.layout.module_object.state + 16;
    let mut left = MODULES;
    fragments::each(heap, |object| {
        let place = heap.memory.place(object);
        let kind = place.and_then(|place| types.find(heap, place.word(8)?));
        if kind.is_some_and(|kind| types.get(kind).tp_name == "module") {
            let name = place.map_or(0, |place| place.word_or_0(name_at));
            roots.push((
                object,
                Reason::Module {
                    name,
                    interpreter: 0,
                },
            ));
            left -= 1;
        }
        left > 0
    });
}

/// Idents of all threads that Python knows: addresses in their stacks' mappings (`pthread_self()`).
pub fn idents(heap: &Heap) -> Vec<u64> {
    let offsets = &heap.offsets;
    let mut found = Vec::new();
    let mut followed = FxHashSet::default();
    for interpreter in &heap.interpreters {
        let head = interpreter.wrapping_add(offsets.interpreter.threads_head.into());
        let mut thread = heap.memory.word(head).unwrap_or(0);
        while followed.insert(thread) {
            let Some(place) = heap.memory.place(thread) else {
                break;
            };
            found.push(place.word_or_0(offsets.thread.thread_id));
            thread = place.word_or_0(offsets.thread.next);
        }
    }
    found
}

fn thread_stacks(heap: &Heap, interpreter: u64, roots: &mut Vec<(u64, Reason)>) {
    let offsets = &heap.offsets;
    let mut thread = heap
        .memory
        .word(interpreter.wrapping_add(offsets.interpreter.threads_head.into()))
        .unwrap_or(0);
    let id = id(heap, interpreter);
    // Threads and frames that were followed: a ring of them ends where it began.
    let mut followed = FxHashSet::default();
    while followed.insert(thread) {
        let Some(place) = heap.memory.place(thread) else {
            return;
        };
        let user = User {
            tid: tid(heap, &place, id),
            interpreter: id,
        };
        let frame = match offsets.thread.current {
            CurrentFrame::Thread(offset) => place.word(offset),
            CurrentFrame::CFrame {
                cframe, current, ..
            } => place
                .word(cframe)
                .and_then(|cframe| heap.memory.word(cframe.wrapping_add(current.into()))),
        };
        stack(heap, user, frame.unwrap_or(0), &mut followed, roots);
        held::thread(heap, user.tid, &place, roots);
        thread = place.word_or_0(offsets.thread.next);
    }
}

/// Whose frames they are.
#[derive(Debug, Clone, Copy)]
struct User {
    /// OS id of the thread, 0 when not known.
    tid: i32,
    interpreter: u64,
}

/// The kernel's id of the thread with the state at `place`; 0 when it is not known. What the C library keeps is right in a
/// process that was forked without Python's knowledge too, where Python has the parent's.
fn tid(heap: &Heap, place: &Place, interpreter: u64) -> i32 {
    let thread = &heap.offsets.thread;
    // Up to 3.12 a thread may run code in another interpreter on a state that a third one made.
    let is_own = thread.stack.is_some() && matches!(thread.current, CurrentFrame::Thread(_));
    if interpreter != 0 && !is_own {
        return 0;
    }
    let native = thread
        .native_id
        .map_or(0, |offset| place.int(offset) as i32);
    pthread_tid(heap, place.word_or_0(thread.thread_id)).unwrap_or(native)
}

/// The kernel's id of the thread with glibc's `struct pthread` at `ident`, which holds its own address in
/// `header.self` (sysdeps/x86_64/nptl/tls.h); 0 of one that a fork left behind.
fn pthread_tid(heap: &Heap, ident: u64) -> Option<i32> {
    let own = heap.memory.place(ident)?.word(HEADER_SELF)?;
    let address = ident.checked_add(threads::PTHREAD_TID_OFFSET)?;
    let tid = heap.memory.place(address)?.int(0) as i32;
    (own == ident && (0..=MOST_TID).contains(&tid)).then_some(tid)
}

/// The frames from `frame` outwards.
fn stack(
    heap: &Heap,
    user: User,
    mut frame: u64,
    followed: &mut FxHashSet<u64>,
    roots: &mut Vec<(u64, Reason)>,
) {
    let offsets = &heap.offsets.frame;
    let mut sink = Named::new(heap);
    let mut depth = 0;
    while followed.len() < FRAMES && followed.insert(frame) {
        let Some(place) = heap.memory.place(frame) else {
            return;
        };
        let is_shim = offsets
            .owner
            .is_some_and(|owner| place.byte(owner) >= offsets.first_shim_owner);
        let walks = followed.len() <= WALKED;
        if !is_shim && !frame_roots(heap, user, depth, walks, &place, &mut sink, roots) {
            return;
        }
        depth += u32::from(!is_shim);
        frame = place.word_or_0(offsets.previous);
    }
}

/// What one frame holds, with `walks` that on its evaluation stack too; false when that is too much.
fn frame_roots(
    heap: &Heap,
    user: User,
    depth: u32,
    walks: bool,
    place: &Place,
    sink: &mut Named,
    roots: &mut Vec<(u64, Reason)>,
) -> bool {
    let code = frames::untagged(heap, place.word_or_0(heap.offsets.frame.code));
    let function = heap
        .memory
        .place(code)
        .map_or(0, |code| function_name(heap, &code));
    let reason = |local| Reason::Frame {
        thread: user.tid,
        depth,
        function,
        local,
        interpreter: user.interpreter,
    };
    sink.clear();
    let is_object = heap.layout.frame.frame.is_none();
    if is_object {
        roots.push((place.address(), reason(None)));
    }
    let result = if is_object {
        match heap
            .memory
            .word(place.address() + 8)
            .and_then(|kind| Types::default().resolved(heap, kind))
        {
            Some(info) => references(heap, &info, place, false, sink),
            None => return true,
        }
    } else {
        frames::inner_references(heap, place, true, sink)
    };
    for (target, name) in &sink.fields {
        let local = match name {
            Name::Local(name) => Some(*name),
            Name::Stack => None,
            // An object's own fields are found through it.
            _ if is_object => continue,
            _ => None,
        };
        roots.push((*target, reason(local)));
    }
    let running = if walks {
        frames::running_values(heap, place)
    } else {
        &[]
    };
    for value in each_word(running) {
        let value = frames::untagged(heap, value);
        if is_object_at(heap, value) {
            roots.push((value, reason(None)));
        }
    }
    // A frame that is torn is left; its callers are not.
    result.is_ok() || sink.fields.len() < FRAMES
}

/// The string that names the function of a code object.
fn function_name(heap: &Heap, code: &Place) -> u64 {
    let fields = heap.layout.code.fields;
    let find = |wanted: &str| fields.iter().find(|(name, _)| *name == wanted);
    let field = find("co_qualname").or_else(|| find("co_name"));
    field.map_or(0, |(_, offset)| code.word_or_0(*offset))
}
