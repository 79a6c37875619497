//! From a coroutine along what it awaits to the innermost one.
//!
//! Everything that is read goes through a copy of what the look before it has read. What was not in it is read later, and
//! the program may have gone on meanwhile: then all of a chain is read a second time, and what is the same both times was
//! there together in between.

use std::hash::Hasher;

use rustc_hash::{FxHashMap, FxHasher};

use super::codes::Codes;
use super::fault;
use super::tasks::type_of;
use super::window::Window;
use crate::layout::asyncio::{self, StackTop, YieldFrom};
use crate::layout::{self, CoroutineOffsets, Offsets, at, object};
use crate::profile::Tables;
use crate::sample::{Fault, FrameSample};
use crate::target::cpu;
use crate::target::memory::{Memory, Range, read_c_string};

/// Most coroutines and wrappers of one chain.
const LONGEST: usize = 2000;

/// Most bytes that one look copies ahead, and most ranges of them.
const MOST_BYTES: usize = 16 << 20;
const MOST_RANGES: usize = 200_000;

/// Most pieces that are read for one task: a few for each of its coroutines.
const MOST_OWN: usize = 8 * LONGEST;

/// Copies that are made of the same, should we be interrupted: they take up to milliseconds.
const MOST_COPIES: usize = 4;

/// Bytes of a coroutine and its frame that are read, up to the local variables.
const COROUTINE_BYTES: usize = 192;

/// Most classes that a class of tasks is made from.
const MOST_BASES: usize = 16;

/// Most types that are remembered.
const MOST_TYPES: usize = 10_000;

/// What can be awaited, and what is called when it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A frame of its own.
    Coroutine,
    Generator,
    /// Hands on to its first member.
    Wrapper,
    /// Waits for its first member, a future.
    Future,
    Function,
    Method,
    Builtin,
    Partial,
    List,
    Cell,
    TaskGroup,
    Other,
}

/// Whether an object is a future or a task of `_asyncio`, or of a class made from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FutureClass {
    Task,
    Future,
    Neither,
}

/// How a coroutine stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    /// Not begun.
    Created,
    #[default]
    Suspended,
    Executing,
    /// It has no frame any more, or is no coroutine.
    Ended,
}

/// Where a chain ends.
#[derive(Debug, Clone, Copy, Default)]
pub struct End {
    /// How the outermost coroutine stands.
    pub state: State,
    /// The future that the innermost one waits for; 0 when it waits for none.
    pub future: u64,
}

/// What following a chain needs.
pub struct Walk<'a, M> {
    pub offsets: &'a Offsets,
    pub coroutine: &'a CoroutineOffsets,
    pub memory: &'a M,
    pub codes: &'a mut Codes,
    pub tables: &'a mut Tables,
    pub now_us: u64,
}

/// Something that was read.
#[derive(Debug, Clone, Copy)]
struct Piece {
    address: u64,
    length: usize,
    /// Tells whether its bytes are still the same.
    print: u64,
}

impl Piece {
    fn new(address: u64, bytes: &[u8]) -> Piece {
        let mut hasher = FxHasher::default();
        hasher.write(bytes);
        Piece {
            address,
            length: bytes.len(),
            print: hasher.finish(),
        }
    }

    fn range(&self) -> Range {
        Range {
            address: self.address as usize,
            length: self.length,
        }
    }
}

/// Whether all pieces are what they were.
fn are_same(memory: &impl Memory, pieces: &[Piece]) -> bool {
    let ranges: Vec<Range> = pieces.iter().map(Piece::range).collect();
    let mut bytes = vec![0; pieces.iter().map(|piece| piece.length).sum()];
    let read = memory.read_ranges(&ranges, &mut bytes);
    let mut rest = bytes.as_slice();
    read.is_ok_and(|read| read == bytes.len())
        && pieces.iter().all(|piece| {
            let now = rest.split_off(..piece.length);
            now.is_some_and(|now| Piece::new(piece.address, now).print == piece.print)
        })
}

/// Copies of what was read, and types.
#[derive(Debug, Default)]
pub struct Awaits {
    window: Window,
    /// The same, copied later.
    again: Option<Window>,
    /// What this look has read.
    touched: Vec<Piece>,
    touched_bytes: usize,
    /// What was read for one task, whether all of it was in the copy, and whether the copy is not to be used.
    own: Vec<Piece>,
    late: bool,
    anew: bool,
    kinds: FxHashMap<u64, Kind>,
    /// What the objects of a type are among those made in C.
    classes: FxHashMap<u64, FutureClass>,
    /// In this look: the tasks of `TaskGroup`s, and the names of functions that pass on that a task is done.
    groups: FxHashMap<u64, Option<u64>>,
    names: FxHashMap<u64, bool>,
    /// Whether the instruction at an address is the wait for another coroutine.
    waits: FxHashMap<u64, bool>,
}

impl Awaits {
    /// Copies all that the last look has read.
    pub fn begin(&mut self, memory: &impl Memory) -> Result<(), Fault> {
        self.window.clear();
        self.again = None;
        for piece in self.touched.drain(..) {
            self.window.want(piece.address, piece.length as u64);
        }
        self.touched_bytes = 0;
        self.window.plan([]);
        // Code may have come to an address where other code was.
        self.waits.clear();
        self.groups.clear();
        self.names.clear();
        self.copy(memory)
    }

    /// Copies it anew.
    pub fn copy(&mut self, memory: &impl Memory) -> Result<(), Fault> {
        for _ in 0..MOST_COPIES {
            let pauses = cpu::pauses();
            self.window.fill(memory).map_err(fault)?;
            // On the target's CPU it has not run meanwhile then.
            if cpu::pauses() == pauses {
                break;
            }
        }
        Ok(())
    }

    /// Copies the same once more: of what was copied only that counts which is the same both times.
    pub fn copy_again(&mut self, memory: &impl Memory) -> Result<(), Fault> {
        let mut again = Window::default();
        for range in self.window.ranges() {
            again.want(range.address as u64, range.length as u64);
        }
        again.plan([]);
        again.fill(memory).map_err(fault)?;
        self.again = Some(again);
        Ok(())
    }

    /// Forgets all copies: what is read next is as it is now.
    pub fn forget(&mut self) {
        self.touched.clear();
        self.touched_bytes = 0;
        self.waits.clear();
        self.groups.clear();
        self.names.clear();
        self.window.clear();
        self.window.plan([]);
        self.again = None;
    }

    /// Whether the copy has `length` bytes at `address`.
    pub fn has(&self, address: u64, length: usize) -> bool {
        self.window.get(address, length, &mut 0).is_some()
    }

    /// Whether the copy has a coroutine.
    pub fn has_coroutine(&self, address: u64) -> bool {
        self.has(address, COROUTINE_BYTES / 2)
    }

    /// Begins with another task; with `anew` nothing is taken from the copy.
    pub fn begin_task(&mut self, anew: bool) {
        self.own.clear();
        (self.late, self.anew) = (false, anew);
    }

    /// Whether all that was read for the task was in the copy.
    pub fn was_copied(&self) -> bool {
        !self.late
    }

    /// Reads once more what was read for the task; whether it is the same.
    pub fn is_same(&self, memory: &impl Memory) -> bool {
        are_same(memory, &self.own)
    }

    /// The same for some of what the look has read, by position.
    pub fn are_same(&self, memory: &impl Memory, pieces: std::ops::Range<usize>) -> bool {
        let pieces = self.touched.get(pieces);
        pieces.is_some_and(|pieces| !self.is_full() && are_same(memory, pieces))
    }

    /// Reads from the copy, or from the target.
    pub fn read(&mut self, memory: &impl Memory, address: u64, into: &mut [u8]) -> Option<()> {
        let copied = self.window.get(address, into.len(), &mut 0);
        let is_good = |bytes: &&[u8]| {
            let again = self.again.as_ref();
            !self.anew
                && again.is_none_or(|again| again.get(address, bytes.len(), &mut 0) == Some(*bytes))
        };
        match copied.filter(is_good) {
            Some(bytes) => into.copy_from_slice(bytes),
            None => {
                self.late = true;
                memory.read(address, into).ok()?;
            }
        }
        let piece = Piece::new(address, into);
        if self.own.len() < MOST_OWN {
            self.own.push(piece);
        }
        if !self.is_full() {
            self.touched.push(piece);
            self.touched_bytes += into.len();
        }
        Some(())
    }

    /// How many pieces this look has read.
    pub fn read_so_far(&self) -> usize {
        self.touched.len()
    }

    /// Whether this look has read so much that not all of it is remembered.
    pub fn is_full(&self) -> bool {
        self.touched.len() >= MOST_RANGES || self.touched_bytes >= MOST_BYTES
    }

    /// Reads a word.
    pub fn word(&mut self, memory: &impl Memory, address: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.read(memory, address, &mut bytes)?;
        Some(u64::from_ne_bytes(bytes))
    }

    fn kind(&mut self, memory: &impl Memory, of_type: u64) -> Kind {
        if let Some(kind) = self.kinds.get(&of_type) {
            return *kind;
        }
        let name = of_type
            .checked_add(object::TYPE_NAME as u64)
            .and_then(|address| memory.read_word(address).ok())
            .and_then(|name| read_c_string(memory, name, 64));
        let kind = match name.as_deref() {
            Some("coroutine") => Kind::Coroutine,
            Some("generator" | "async_generator") => Kind::Generator,
            Some(
                "coroutine_wrapper"
                | "anext_awaitable"
                | "async_generator_asend"
                | "async_generator_athrow",
            ) => Kind::Wrapper,
            Some("_asyncio.FutureIter") => Kind::Future,
            Some("function") => Kind::Function,
            Some("method") => Kind::Method,
            Some("builtin_function_or_method") => Kind::Builtin,
            Some("functools.partial") => Kind::Partial,
            Some("list") => Kind::List,
            Some("cell") => Kind::Cell,
            Some("TaskGroup") => Kind::TaskGroup,
            _ => Kind::Other,
        };
        if self.kinds.len() >= MOST_TYPES {
            self.kinds.clear();
        }
        self.kinds.insert(of_type, kind);
        kind
    }

    /// What an object is.
    pub(super) fn kind_of(&mut self, memory: &impl Memory, address: u64) -> Kind {
        match type_of(self, memory, address) {
            Some(of_type) => self.kind(memory, of_type),
            None => Kind::Other,
        }
    }

    /// The task of a `TaskGroup`, which stays the same.
    pub(super) fn parent_of_group(
        &mut self,
        group: u64,
        find: impl FnOnce() -> Option<u64>,
    ) -> Option<u64> {
        *self.groups.entry(group).or_insert_with(find)
    }

    /// Whether a function of this name passes on that a task is done.
    pub(super) fn passes_on(&mut self, name: u64, find: impl FnOnce() -> bool) -> bool {
        *self.names.entry(name).or_insert_with(find)
    }

    /// Whether an object is a task of `_asyncio`, or of a class made from it.
    pub fn is_task(&mut self, memory: &impl Memory, address: u64) -> bool {
        self.class_of(memory, address) == FutureClass::Task
    }

    /// Which of those of `_asyncio` an object is.
    pub(super) fn class_of(&mut self, memory: &impl Memory, address: u64) -> FutureClass {
        let Some(of_type) = type_of(self, memory, address) else {
            return FutureClass::Neither;
        };
        if let Some(known) = self.classes.get(&of_type) {
            return *known;
        }
        let (mut base, mut class) = (of_type, FutureClass::Neither);
        for _ in 0..MOST_BASES {
            let word = |offset: u64| memory.read_word(base.checked_add(offset)?).ok();
            let name =
                word(object::TYPE_NAME as u64).and_then(|name| read_c_string(memory, name, 64));
            class = match name.as_deref() {
                Some("_asyncio.Task") => FutureClass::Task,
                Some("_asyncio.Future") => FutureClass::Future,
                _ => FutureClass::Neither,
            };
            match word(asyncio::TYPE_BASE) {
                Some(next) if class == FutureClass::Neither && next != 0 => base = next,
                _ => break,
            }
        }
        if self.classes.len() >= MOST_TYPES {
            self.classes.clear();
        }
        self.classes.insert(of_type, class);
        class
    }

    /// Whether an object is a coroutine.
    pub fn is_coroutine(&mut self, memory: &impl Memory, address: u64) -> bool {
        type_of(self, memory, address)
            .is_some_and(|of_type| self.kind(memory, of_type) == Kind::Coroutine)
    }

    /// Adds the frames of a chain to `frames`, outermost first.
    pub fn follow<M: Memory>(
        &mut self,
        walk: &mut Walk<'_, M>,
        coroutine: u64,
        frames: &mut Vec<FrameSample>,
    ) -> End {
        let mut end = End {
            state: State::Ended,
            future: 0,
        };
        let mut next = Some(coroutine);
        for _ in 0..LONGEST {
            let Some(address) = next.filter(|address| *address != 0) else {
                break;
            };
            let Some(of_type) = type_of(self, walk.memory, address) else {
                break;
            };
            let member = address.saturating_add(asyncio::FIRST_MEMBER);
            next = match self.kind(walk.memory, of_type) {
                Kind::Coroutine | Kind::Generator => {
                    let (state, awaited) = self.one(walk, address, frames);
                    if end.state == State::Ended {
                        end.state = state;
                    }
                    awaited
                }
                Kind::Wrapper => self.word(walk.memory, member),
                Kind::Future => {
                    end.future = self.word(walk.memory, member).unwrap_or(0);
                    None
                }
                _ => None,
            };
        }
        end
    }

    /// Adds the frame of one coroutine; gives how it stands and what it waits for.
    fn one<M: Memory>(
        &mut self,
        walk: &mut Walk<'_, M>,
        address: u64,
        frames: &mut Vec<FrameSample>,
    ) -> (State, Option<u64>) {
        let (layout, frame) = (walk.coroutine, &walk.offsets.frame);
        let mut bytes = [0; COROUTINE_BYTES];
        let length = at(layout.iframe) + super::thread::frame_length(walk.offsets);
        let Some(bytes) = bytes.get_mut(..length.max(at(layout.iframe + frame.localsplus))) else {
            return (State::Ended, None);
        };
        if self.read(walk.memory, address, bytes).is_none() {
            return (State::Ended, None);
        }
        let in_frame = |offset: u32| layout::word(bytes, at(layout.iframe + offset)).unwrap_or(0);
        let state = bytes.get(at(layout.frame_state)).copied().unwrap_or(0) as i8;
        let stands = if state == layout.created {
            State::Created
        } else if (layout.suspended.0..=layout.suspended.1).contains(&state) {
            State::Suspended
        } else if state == layout.executing {
            State::Executing
        } else {
            return (State::Ended, None);
        };
        let instruction = in_frame(frame.instruction);
        let code = in_frame(frame.code) & !frame.tag_mask;
        let place = address.saturating_add(u64::from(layout.iframe));
        let known = walk
            .codes
            .find(walk.memory, walk.tables, code, walk.now_us)
            .and_then(|id| {
                let unit = walk.codes.unit(walk.memory, id, instruction, 0)?;
                let frame = walk.codes.frame(walk.memory, walk.tables, id, unit)?;
                Some((unit, frame))
            });
        let Some((unit, id)) = known else {
            return (State::Ended, None);
        };
        frames.push(FrameSample {
            frame: id,
            invocation: place,
            instruction: unit,
            code: 0,
            from_c: true,
        });
        let waits = stands == State::Suspended
            && match layout.yield_from {
                YieldFrom::State(value) => state == value,
                YieldFrom::NextResume => self.waits_at(walk.memory, instruction),
            };
        if !waits {
            return (stands, None);
        }
        let locals = place.saturating_add(u64::from(frame.localsplus));
        let top = match layout.top {
            StackTop::Depth(offset) => {
                let depth = layout::int(bytes, at(layout.iframe + offset)).unwrap_or(0);
                match u64::try_from(depth) {
                    Ok(depth @ 1..=0xffff) => locals.saturating_add((depth - 1) * 8),
                    _ => return (stands, None),
                }
            }
            StackTop::Pointer(offset, back) => in_frame(offset).saturating_sub(u64::from(back) * 8),
        };
        // On the coroutine's own stack, which follows its local variables.
        if top < locals || top > locals.saturating_add(0x8_0000) {
            return (stands, None);
        }
        let awaited = self.word(walk.memory, top);
        (stands, awaited.map(|object| object & !frame.tag_mask))
    }

    /// Whether the instruction after the one at `instruction` is that of a coroutine that waits for another one.
    fn waits_at(&mut self, memory: &impl Memory, instruction: u64) -> bool {
        if let Some(known) = self.waits.get(&instruction) {
            return *known;
        }
        let mut unit = [0; 2];
        let next = instruction.saturating_add(2);
        let waits = memory.read(next, &mut unit).is_ok() && unit[1] & 3 >= 2;
        self.waits.insert(instruction, waits);
        waits
    }
}
