//! What CPython's structs look like: offsets as data, bytes in and values out.
//!
//! One [`Offsets`] a minor version (`tables`). What differs between versions in kind, not only in place, is an
//! enum in it, so that nothing outside of `tables` ever asks for a version. No I/O here.

pub mod asyncio;
pub mod debug_offsets;
pub mod gc;
pub mod heap;
pub mod linetable;
pub mod object;
pub mod opcodes;
pub mod tables;
pub mod version;

pub use self::object::{IntSize, ObjectOffsets, References};
pub use asyncio::CoroutineOffsets;
pub use gc::{GcOffsets, GcPlace};
pub use opcodes::{LineEntry, Monitored, Opcodes, Shape};

/// Where the words of the interpreter lock are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GilPlace {
    /// At this offset in `_PyRuntime` (up to 3.11): one for all interpreters.
    Runtime(u32),
    /// Behind the pointer at this offset in the interpreter state (3.12 and newer).
    Interpreter(u32),
}

/// `struct _gil_runtime_state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GilOffsets {
    /// The struct.
    pub place: GilPlace,
    /// Thread state that holds it or held it last.
    pub last_holder: u32,
    /// Int: 1 while it is held.
    pub locked: u32,
    /// Counts the times at which another thread than the last one took it.
    pub switch_number: u32,
    /// Size of what has to be read.
    pub size: u32,
    /// Size of the whole struct: a thread that waits for the lock sleeps on an address in it.
    pub whole: u32,
}

/// `PyInterpreterState`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InterpreterOffsets {
    /// Next interpreter.
    pub next: u32,
    /// Its id; 0 of the main one.
    pub id: u32,
    /// Newest thread state.
    pub threads_head: u32,
    /// `sys.modules`.
    pub modules: u32,
}

/// Where a thread's innermost frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CurrentFrame {
    /// In the thread state.
    Thread(u32),
    /// In the `_PyCFrame` that the thread state points to, which lies on the C stack (3.11, 3.12).
    CFrame {
        /// Pointer in the thread state.
        cframe: u32,
        /// Current frame in the `_PyCFrame`.
        current: u32,
        /// The one before it.
        previous: u32,
        /// Size of the struct.
        size: u32,
    },
}

/// The thread's own stack of frames (3.11 and newer).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataStackOffsets {
    /// Newest chunk, in the thread state.
    pub chunk: u32,
    /// First free word of the newest chunk, in the thread state.
    pub top: u32,
    /// In a chunk: the one before it.
    pub chunk_previous: u32,
    /// In a chunk: its size in bytes.
    pub chunk_size: u32,
    /// In a chunk that is not the newest: words in use.
    pub chunk_top: u32,
    /// In a chunk: its words.
    pub chunk_data: u32,
    /// In the lowest chunk: the frame that every stack ends in. Word 0 is never used.
    pub bottom_frame: u32,
}

/// The exceptions that a thread handles: a chain of `_PyErr_StackItem`, one for the thread and one for each generator that it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandledOffsets {
    /// The innermost one, in the thread state (`exc_info`).
    pub innermost: u32,
    /// In an item: the exception; null or None where there is none.
    pub value: u32,
    /// In an item: the one around it.
    pub previous: u32,
}

/// Where a thread says what it does with Python, in builds in which no lock says so (free-threaded ones).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attached {
    /// Int in the thread state.
    pub state: u32,
    /// What it is while the thread runs Python; in C that needs none, or asleep, it is another one.
    pub runs: i32,
}

/// `PyThreadState`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThreadOffsets {
    /// Newer thread.
    pub prev: u32,
    /// Older thread.
    pub next: u32,
    /// Its interpreter.
    pub interp: u32,
    /// `threading.get_ident()`, which is `pthread_self()`.
    pub thread_id: u32,
    /// OS thread id in the target's PID namespace (3.11 and newer).
    pub native_id: Option<u32>,
    /// `id`, a number that no other thread state of the interpreter has or had (`PyThreadState_GetID()`): states,
    /// idents and the list's links are those of ended threads again, often at once.
    pub unique_id: u32,
    /// Exceptions that it handles.
    pub handled: HandledOffsets,
    /// In free-threaded builds, whether it runs Python: each thread for itself.
    pub attached: Option<Attached>,
    /// Innermost frame.
    pub current: CurrentFrame,
    /// Data stack; `None` where frames are objects on the heap.
    pub stack: Option<DataStackOffsets>,
}

/// What a frame stores of where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instruction {
    /// Int: byte offset into the bytecode, -1 before the first one.
    ByteIndex,
    /// Int: index of the 2-byte unit, -1 before the first one.
    UnitIndex,
    /// Pointer to a unit.
    Pointer,
}

impl Instruction {
    /// The unit that a stored instruction stands for, in bytecode that starts at `start`; beyond every bytecode before the
    /// first one.
    pub fn unit(self, stored: u64, start: u64) -> u32 {
        match self {
            Instruction::ByteIndex => (stored as u32) / 2,
            Instruction::UnitIndex => stored as u32,
            Instruction::Pointer => {
                u32::try_from(stored.wrapping_sub(start) / 2).unwrap_or(u32::MAX)
            }
        }
    }
}

/// `PyFrameObject` (up to 3.10) or `_PyInterpreterFrame`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameOffsets {
    /// The caller.
    pub previous: u32,
    /// Code object, with the bits of `tag_mask` clear.
    pub code: u32,
    /// Low bits of `code` that are no part of the address.
    pub tag_mask: u64,
    /// Where it is.
    pub instruction: u32,
    /// How to read `instruction`.
    pub coding: Instruction,
    /// Byte that says who owns the frame's memory; `None` where frames are objects, and C calls every function.
    pub owner: Option<u32>,
    /// Owners from this one on are no frames of Python functions.
    pub first_shim_owner: u8,
    /// Byte that is not 0 if C called this frame's function; where there is none, a frame of a shim lies between.
    pub is_entry: Option<u32>,
    /// First local variable.
    pub localsplus: u32,
    /// Pointer to the evaluation stack; where there is none it follows the local variables.
    pub value_stack: Option<u32>,
    /// Int: index of the copy of the bytecode that it executes, where threads have copies of their own.
    pub bytecode_copy: Option<u32>,
}

/// Where a code object's instructions are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bytecode {
    /// In the bytes object at this offset.
    Bytes(u32),
    /// In the code object itself from this offset on; `ob_size` counts the units.
    Inline(u32),
}

/// How a code object maps instructions to lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineCoding {
    /// `co_lnotab` with signed line deltas (3.6 to 3.9; Objects/lnotab_notes.txt).
    Lnotab,
    /// `co_linetable` of PEP 626 (3.10).
    Pep626,
    /// Location table of PEP 657 (3.11 and newer; Objects/locations.md).
    Locations,
}

/// `PyCodeObject`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeOffsets {
    /// `co_consts`.
    pub constants: u32,
    /// `co_filename`.
    pub filename: u32,
    /// `co_name`.
    pub name: u32,
    /// `co_firstlineno`.
    pub first_line: u32,
    /// `co_lnotab` or `co_linetable`.
    pub line_table: u32,
    /// How to read it.
    pub lines: LineCoding,
    /// Instructions.
    pub bytecode: Bytecode,
    /// `co_nlocalsplus` where there is one.
    pub nlocalsplus: Option<u32>,
    /// `co_stacksize`.
    pub stack_size: u32,
    /// `co_flags`.
    pub flags: u32,
    /// Pointer to the copies of its bytecode, of which each thread may have one: their number, then as many pointers
    /// (`co_tlbc`).
    pub bytecode_copies: Option<u32>,
    /// `co_exceptiontable` where there is one.
    pub exception_table: Option<u32>,
    /// Where the opcodes are that those of monitored code stand for (3.12 and newer).
    pub monitored: Option<Monitored>,
    /// Bytes from the start that hold all of the above.
    pub head: u32,
}

impl CodeOffsets {
    /// `co_qualname`: behind the name wherever code objects hold their instructions (3.11 and newer).
    pub fn qualname(&self) -> Option<u32> {
        matches!(self.bytecode, Bytecode::Inline(_)).then_some(self.name + 8)
    }
}

/// `PyASCIIObject` and `PyCompactUnicodeObject`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextOffsets {
    /// How many characters there are.
    pub length: u32,
    /// Word with the kind of string.
    pub state: u32,
    /// Lowest bit of its kind in that word; of the bits above, one says whether it is compact, and the next one ASCII.
    pub kind_bit: u32,
    /// Where the characters of an ASCII string start.
    pub ascii_data: u32,
    /// Where those of other compact strings start.
    pub compact_data: u32,
}

/// How dict keys are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DictKeys {
    /// Up to 3.10: `dk_size` slots of 1, 2, 4 or 8 bytes, then entries of 24 bytes.
    Sized,
    /// From 3.11 on: sizes as logarithms; entries of 16 bytes when all keys are strings.
    Log2,
}

/// Where the attributes of a plain instance are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstanceDict {
    /// Dict pointer at the type's `tp_dictoffset`.
    DictOffset,
    /// 3.11: four words before the object its values or null, three words before it its dict or null.
    ValuesOrDict,
    /// 3.12: three words before the object its values with bit 0 set, or its dict.
    TaggedValues,
    /// 3.13 and newer: so many bytes before the object its dict or null; values behind the object.
    InlineValues(u32),
}

/// Dicts and instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DictOffsets {
    /// Keys.
    pub keys: DictKeys,
    /// Instances.
    pub instance: InstanceDict,
    /// `ht_cached_keys` in a heap type.
    pub cached_keys: u32,
}

impl DictOffsets {
    /// How ints are stored, which changed in 3.12 with much else.
    pub fn ints(&self) -> IntSize {
        match self.instance {
            InstanceDict::DictOffset | InstanceDict::ValuesOrDict => IntSize::Signed,
            InstanceDict::TaggedValues | InstanceDict::InlineValues(_) => IntSize::Tagged,
        }
    }
}

/// All offsets of one version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offsets {
    /// Newest interpreter, in `_PyRuntime`.
    pub interpreters_head: u32,
    /// Int: 1 from when Python is initialised until it is finalised; so far before `interpreters_head`.
    pub initialized: u32,
    /// The lock.
    pub gil: GilOffsets,
    /// The garbage collector.
    pub gc: GcOffsets,
    /// Interpreter state.
    pub interpreter: InterpreterOffsets,
    /// Thread state.
    pub thread: ThreadOffsets,
    /// Frames.
    pub frame: FrameOffsets,
    /// Code objects.
    pub code: CodeOffsets,
    /// What all objects begin with.
    pub object: ObjectOffsets,
    /// Strings.
    pub text: TextOffsets,
    /// Dicts.
    pub dict: DictOffsets,
    /// Opcodes and the evaluation stack; `None` where C functions are not told apart.
    pub opcodes: Option<Opcodes>,
    /// Coroutines and tasks; `None` where stacks along await chains are not shown.
    pub coroutine: Option<CoroutineOffsets>,
}

impl Offsets {
    /// Whether threads run Python at the same time, and none of them has a lock for that.
    pub fn is_free_threaded(&self) -> bool {
        self.thread.attached.is_some()
    }
}

/// An offset as an index; all are small.
pub fn at(offset: u32) -> usize {
    offset as usize
}

/// The little-endian word at `offset`, `None` beyond the end.
pub fn word(bytes: &[u8], offset: usize) -> Option<u64> {
    let bytes = bytes.get(offset..offset.checked_add(8)?)?;
    Some(u64::from_ne_bytes(bytes.try_into().ok()?))
}

/// The 32-bit integer at `offset`, `None` beyond the end.
pub fn int(bytes: &[u8], offset: usize) -> Option<i32> {
    let bytes = bytes.get(offset..offset.checked_add(4)?)?;
    Some(i32::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_read_beyond_the_end() {
        assert_eq!(word(&[1, 0, 0, 0, 0, 0, 0, 0], 0), Some(1));
        assert_eq!(word(&[0; 8], 1), None);
        assert_eq!(word(&[0; 8], usize::MAX), None);
        assert_eq!(int(&[2, 0, 0, 0], 0), Some(2));
        assert_eq!(int(&[0; 3], 0), None);
    }
}
