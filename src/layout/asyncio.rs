//! Coroutines and asyncio's tasks: where a suspended coroutine keeps what it waits for, and where the list of tasks
//! is (Objects/genobject.c `_PyGen_yf`, Modules/_asynciomodule.c of 3.11 to 3.15).

use super::word;

/// How to tell that the top of a suspended coroutine's stack is what it waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum YieldFrom {
    /// The instruction after the one where it stands is a `RESUME` with an argument of 2 or more, in its low bits
    /// (3.11, 3.12).
    NextResume,
    /// The frame's state has this value.
    State(i8),
}

/// Where the top of a suspended frame's evaluation stack is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StackTop {
    /// Int in the frame: how many words from the first local variable on are in use.
    Depth(u32),
    /// Pointer in the frame, this many words behind what a coroutine waits for.
    Pointer(u32, u32),
}

/// Where asyncio keeps its tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskList {
    /// In sets of `asyncio.tasks`: of weak references in attribute `data` of a `WeakSet`, or of tasks.
    Sets {
        /// Names of the `WeakSet`s.
        weak: &'static [&'static str],
        /// Names of the plain sets.
        plain: &'static [&'static str],
        /// Name of the dict from loops to the tasks that they run.
        current: &'static str,
    },
    /// In a ring through the tasks of each thread; the section `.AsyncioDebug` says where (3.14 and newer).
    Rings,
}

/// `PyGenObject` and its relatives, and asyncio's tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CoroutineOffsets {
    /// Signed byte: the frame's state.
    pub frame_state: u32,
    /// The frame.
    pub iframe: u32,
    /// State of one that has not begun.
    pub created: i8,
    /// First and last state of suspended ones.
    pub suspended: (i8, i8),
    /// State of one that runs.
    pub executing: i8,
    /// How to tell that it waits for another one.
    pub yield_from: YieldFrom,
    /// Where that one is.
    pub top: StackTop,
    /// The tasks.
    pub tasks: TaskList,
}

/// `PySetObject`: mask and table of entries of 16 bytes, the key first; the same in all versions.
pub const SET_MASK: usize = 32;
/// See [`SET_MASK`].
pub const SET_TABLE: usize = 40;
/// `wr_object` of a weak reference.
pub const WEAK_OBJECT: u64 = 16;
/// `tp_base` of a type; the same in all versions that have tasks to show.
pub const TYPE_BASE: u64 = 256;
/// What iterators of awaitables hold first: coroutine wrappers, `anext` and `asend` awaitables, future iterators.
pub const FIRST_MEMBER: u64 = 16;

/// `fut_callback0` and `fut_callbacks` of a future or task: what is called when it is done. These and what follows are
/// the same in 3.11 to 3.13, where they are needed.
pub const CALLBACK: u64 = 24;
/// See [`CALLBACK`].
pub const CALLBACKS: u64 = 40;
/// `ob_item` of a list, or the first item of a tuple.
pub const ITEMS: u64 = 24;
/// `m_self` of a C function and `im_self` of a method.
pub const BOUND_SELF: u64 = 24;
/// `func_name` of a function.
pub const FUNCTION_NAME: u64 = 32;
/// `func_closure` of a function.
pub const CLOSURE: u64 = 72;
/// `args` of a `functools.partial`.
pub const PARTIAL_ARGUMENTS: u64 = 24;
/// `ob_ref` of a cell.
pub const CELL_VALUE: u64 = 16;

/// Bytes of `Py_AsyncioModuleDebugOffsets` (3.14 and 3.15).
pub const DEBUG_SIZE: usize = 13 * 8;

/// `Py_AsyncioModuleDebugOffsets`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AsyncioDebug {
    /// Size of a task.
    pub task_size: u64,
    /// Its name: a string, or the int of a name that was not asked for yet.
    pub name: u64,
    /// The task, or set of tasks, that waits for it.
    pub awaited_by: u64,
    /// Byte: whether that is a set.
    pub awaited_by_is_set: u64,
    /// Its coroutine.
    pub coro: u64,
    /// Its node of the ring.
    pub node: u64,
    /// Ring of tasks whose thread has ended, in the interpreter state.
    pub interpreter_ring: u64,
    /// The task that runs, in the thread state.
    pub running_task: u64,
    /// Ring of tasks, in the thread state.
    pub thread_ring: u64,
}

impl AsyncioDebug {
    /// Decodes what may be that struct; `None` when it can be none.
    pub fn decode(bytes: &[u8]) -> Option<AsyncioDebug> {
        let field = |index: usize| word(bytes, index * 8);
        let task_size = field(0)?;
        let (is_task, is_set) = (field(3)?, field(4)?);
        let (interpreter_size, interpreter_ring) = (field(7)?, field(8)?);
        let (thread_size, running_loop, running_task) = (field(9)?, field(10)?, field(11)?);
        let found = AsyncioDebug {
            task_size,
            name: field(1)?,
            awaited_by: field(2)?,
            awaited_by_is_set: is_set,
            coro: field(5)?,
            node: field(6)?,
            interpreter_ring,
            running_task,
            thread_ring: field(12)?,
        };
        let members = [found.name, found.awaited_by, found.coro];
        let in_task = |offset: u64| offset >= 16 && offset < task_size && offset + 8 <= task_size;
        let fits = (64..4096).contains(&task_size)
            && (1024..16 << 20).contains(&interpreter_size)
            && (256..65_536).contains(&thread_size)
            && is_set == is_task.wrapping_add(1)
            && is_set < task_size
            && members
                .iter()
                .all(|offset| offset.is_multiple_of(8) && in_task(*offset))
            && found.node.is_multiple_of(8)
            && found.node >= 16
            && found.node < task_size
            && found.node + 16 <= task_size
            && running_task == running_loop.wrapping_add(8)
            && found.thread_ring > running_task
            && found.thread_ring < thread_size
            && interpreter_ring.is_multiple_of(8)
            && interpreter_ring < interpreter_size;
        fits.then_some(found)
    }

    /// The struct somewhere in the data of a binary; `None` when it is not there.
    pub fn find(data: &[u8]) -> Option<AsyncioDebug> {
        let starts = (0..data.len().saturating_sub(DEBUG_SIZE - 1)).step_by(8);
        starts
            .filter_map(|start| data.get(start..start + DEBUG_SIZE))
            .find_map(AsyncioDebug::decode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(words: [u64; 13]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    // As in the _asyncio module of 3.14.10 and the executable of 3.15.2.
    const V3_14: [u64; 13] = [
        168, 136, 96, 108, 109, 128, 152, 225_864, 10_880, 936, 864, 872, 880,
    ];
    const V3_15: [u64; 13] = [
        168, 136, 96, 108, 109, 128, 152, 226_240, 10_856, 1104, 1024, 1032, 1048,
    ];

    #[test]
    fn the_struct_is_found_among_other_data() {
        for words in [V3_14, V3_15] {
            let data = [vec![7; 4096], bytes(words), vec![0; 64]].concat();
            let found = AsyncioDebug::find(&data).expect("found");
            assert_eq!(
                (found.coro, found.node, found.thread_ring),
                (128, 152, words[12])
            );
        }
        assert_eq!(AsyncioDebug::find(&[0; 4096]), None);
        assert_eq!(AsyncioDebug::find(&[0xff; 4096]), None);
        assert_eq!(AsyncioDebug::find(&bytes(V3_14)[1..]), None);
    }

    #[test]
    fn offsets_beyond_their_structs_are_refused() {
        for index in 0..13 {
            let mut words = V3_14;
            words[index] = u64::MAX - 7;
            assert_eq!(AsyncioDebug::decode(&bytes(words)), None, "{index}");
        }
    }
}
