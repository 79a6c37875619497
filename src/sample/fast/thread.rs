//! One Python thread: what is remembered of it between samples, and the walk along its frames in a copy of its
//! memory.

use rustc_hash::FxHashSet;

use super::handled::Handled;
use super::window::Window;
use crate::layout::{self, CurrentFrame, DataStackOffsets, Instruction, Offsets, at};
use crate::target::memory::Memory;

/// Longest chain of frames that is followed; Python's own limit is 1,000 unless raised.
pub const DEEPEST: usize = 1 << 17;

/// Most chunks of one data stack (16 KiB each or more).
const MOST_CHUNKS: usize = 8192;

/// Largest chunk that is believed.
const LARGEST_CHUNK: u64 = 32 << 20;

/// No chunk is beyond this.
const HIGHEST: u64 = 1 << 57;

/// Copied beyond the top of the data stack, so that a few more calls do not cost another read.
const SLACK: u64 = 768;

/// Copied of a frame that is an object on the heap; those of small functions are 400 to 500 bytes long.
const HEAP_FRAME: u64 = 512;
const PAGE: u64 = 4096;

/// Frames outside of the data stack that are remembered beyond those of the last stack. Where all frames are
/// heap objects they lie next to each other and cost little.
const SPARE_FRAMES: usize = 24;
const SPARE_HEAP_FRAMES: usize = 400;

/// Frames on the heap are forgotten when they were in none of the noted ones of so many walks.
const NOTED_WALKS: u32 = 8;
const REMEMBERED_WALKS: u32 = 1024;

/// Most frames outside of the data stack that are remembered at all.
const MOST_LOOSE: usize = DEEPEST + 1024;

/// Stacks of heap frames that are longer than this are deep: their outer frames are too much to be copied at one
/// instant. So many inner ones are still, and the rest is chosen anew when fewer or more than that are left of them.
pub const DEEP: usize = 2048;
const INNER_FRAMES: usize = 256;
const FEWEST_INNER: usize = 32;
const MOST_INNER: usize = 1024;

/// A name that was found so often is the thread's: many give themselves one at their start.
pub const NAMED: u8 = 2;

/// A frame as it lies in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RawFrame {
    /// Its address.
    pub address: u64,
    /// Its code object.
    pub code: u64,
    /// Its instruction as stored, and of which copy of the bytecode it is.
    pub instruction: u64,
    pub copy: u32,
    /// Whether C called its function.
    pub from_c: bool,
}

/// A piece of a data stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Chunk {
    address: u64,
    size: u64,
    /// Bytes in use, from its start; of the newest one that is known only from the thread state.
    used: u64,
}

/// A Python thread.
#[derive(Debug)]
pub struct Thread {
    /// Its thread state.
    pub address: u64,
    /// Its interpreter state.
    pub interpreter: u64,
    /// Index of the lock that it needs.
    pub domain: usize,
    /// Newer and older thread.
    pub links: [u64; 2],
    /// `pthread_self()`.
    pub ident: u64,
    /// `pthread_self()` of the thread that uses it; `None` when that is not known. Before 3.13 a thread may use a state that
    /// another one made.
    pub user: Option<u64>,
    /// The outermost frame when its user was looked for.
    pub searched: u64,
    /// Tells it from an earlier thread at the same place with the same ident.
    pub unique_id: u64,
    /// Whether it may have run since its stack was read.
    pub dirty: bool,
    /// How often the kernel had given it a CPU when it was read, off the CPU; `None` where that is not known.
    pub slices: Option<u64>,
    /// Last stack that was read, outermost frame first.
    pub raw: Vec<RawFrame>,
    /// Where each frame of `raw` is among all frames, those of C functions too.
    pub places: Vec<u32>,
    /// Whether all code objects of `raw` have been known for long.
    pub settled: bool,
    /// When its innermost code object was looked at last.
    pub looked_us: u64,
    /// How often its name was found, up to [`NAMED`].
    pub named: u8,
    /// Its index before the list of threads was read anew.
    pub was: Option<usize>,
    /// Exceptions that it handles.
    pub handled: Handled,
    cframe: u64,
    /// Oldest first.
    chunks: Vec<Chunk>,
    planned_end: u64,
    /// Frames outside of the data stack.
    loose: Vec<u64>,
    /// Of a deep stack of heap frames the outer ones, and the innermost of those.
    outer: FxHashSet<u64>,
    outer_from: Option<u64>,
    /// Those of them that were on the stack in some of the last walks, and the number of walks so far.
    seen: FxHashSet<u64>,
    walks: u32,
    /// Whether the wanted ranges have changed.
    pub replan: bool,
}

/// How a walk ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Walk {
    /// The whole stack; whether everything was in the copy, or some was read later.
    Whole {
        /// Read later.
        late: bool,
    },
    /// More has to be copied.
    Again,
    /// The thread is not what it was: the list of threads must be read anew.
    Stale,
    /// Not a stack.
    Broken,
    /// More frames than are followed.
    TooDeep,
}

/// Bytes of a thread state that are copied.
pub fn state_length(offsets: &Offsets) -> u64 {
    let thread = &offsets.thread;
    let current = match thread.current {
        CurrentFrame::Thread(offset) => offset,
        CurrentFrame::CFrame { cframe, .. } => cframe,
    };
    let stack = thread.stack.map_or(0, |stack| stack.chunk.max(stack.top));
    let ids = thread.thread_id.max(thread.unique_id);
    let handled = thread.handled.innermost;
    let ids = ids.max(thread.attached.map_or(0, |attached| attached.state));
    u64::from(current.max(stack).max(ids).max(handled)) + 8
}

/// Bytes of a frame that are copied.
pub fn frame_length(offsets: &Offsets) -> usize {
    let frame = &offsets.frame;
    let last = frame.previous.max(frame.code).max(frame.instruction);
    at(last
        .max(frame.owner.unwrap_or(0))
        .max(frame.bytecode_copy.unwrap_or(0))
        .max(frame.value_stack.unwrap_or(0)))
        + 8
}

impl Thread {
    /// A thread of which nothing is known but where it is.
    pub fn new(address: u64, interpreter: u64, domain: usize) -> Thread {
        Thread {
            address,
            interpreter,
            domain,
            links: [0; 2],
            ident: 0,
            user: None,
            searched: 0,
            unique_id: 0,
            dirty: true,
            slices: None,
            raw: Vec::new(),
            places: Vec::new(),
            settled: false,
            looked_us: 0,
            named: 0,
            was: None,
            handled: Handled::default(),
            cframe: 0,
            chunks: Vec::new(),
            planned_end: 0,
            loose: Vec::new(),
            outer: FxHashSet::default(),
            outer_from: None,
            seen: FxHashSet::default(),
            walks: 0,
            replan: true,
        }
    }

    /// Where the evaluation loop that runs it has its `_PyCFrame`, on the C stack (3.11 and 3.12).
    pub fn cframe(&self, offsets: &Offsets) -> Option<u64> {
        let kept = matches!(offsets.thread.current, CurrentFrame::CFrame { .. });
        Some(self.cframe).filter(|_| kept)
    }

    /// Adds what has to be copied of it; of frames outside of the data stack only up to so many, and none where there is no data
    /// stack.
    pub fn want_but(&mut self, most: usize, offsets: &Offsets, window: &mut Window) {
        let loose = std::mem::take(&mut self.loose);
        if offsets.thread.stack.is_some() {
            self.loose.extend(loose.iter().rev().take(most));
        }
        self.want(offsets, window);
        self.loose = loose;
    }

    /// Remembers frames outside of the data stack.
    pub fn remember(&mut self, frames: impl Iterator<Item = u64>) {
        for frame in frames {
            if self.loose.len() < MOST_LOOSE && !self.loose.contains(&frame) {
                self.loose.push(frame);
            }
        }
    }

    /// Finds out where its data stack is, if that is not known.
    pub fn find_stack(&mut self, offsets: &Offsets, memory: &impl Memory) {
        let Some(stack) = offsets.thread.stack.filter(|_| self.chunks.is_empty()) else {
            return;
        };
        let word = |offset: u32| {
            memory
                .read_word(self.address.checked_add(u64::from(offset))?)
                .ok()
        };
        if let (Some(chunk), Some(top)) = (word(stack.chunk), word(stack.top)) {
            self.find_chunks(&stack, memory, chunk, top);
        }
    }

    /// From where to where its newest frames are; nowhere before 3.11.
    pub fn newest_chunk(&self) -> (u64, u64) {
        self.chunks.last().map_or((0, 0), |chunk| {
            let end = self
                .planned_end
                .min(chunk.address.saturating_add(chunk.size));
            (chunk.address, end.max(chunk.address))
        })
    }

    /// Adds what has to be copied of it.
    pub fn want(&mut self, offsets: &Offsets, window: &mut Window) {
        self.replan = false;
        window.want(self.address, state_length(offsets));
        if let CurrentFrame::CFrame { size, .. } = offsets.thread.current {
            window.want(self.cframe, u64::from(size));
        }
        self.handled.want(&offsets.thread.handled, window);
        if let Some((newest, older)) = self.chunks.split_last() {
            for chunk in older {
                window.want_lasting(chunk.address, chunk.used);
            }
            let end = self
                .planned_end
                .min(newest.address.saturating_add(newest.size));
            window.want(newest.address, end.saturating_sub(newest.address));
        }
        let length = frame_length(offsets) as u64;
        for frame in &self.loose {
            if self.outer.contains(frame) {
                window.want_lasting(*frame, length);
                continue;
            }
            let whole = match offsets.thread.stack {
                Some(_) => length,
                // With the evaluation stack of most: read for itself it would cost another system call. Up to the end of
                // the page, for what follows may not be mapped.
                None => length.max(HEAP_FRAME.min(PAGE - frame % PAGE)),
            };
            window.want(*frame, whole);
        }
    }

    /// Takes over which threads are beside it in the list; whether they are others than before.
    pub fn take_links(&mut self, offsets: &Offsets, window: &Window) -> bool {
        let mut hint = 0;
        let mut word = |offset: u32| {
            let address = self.address.checked_add(u64::from(offset))?;
            layout::word(window.get(address, 8, &mut hint)?, 0)
        };
        let (prev, next) = (word(offsets.thread.prev), word(offsets.thread.next));
        let links = [prev.unwrap_or(self.links[0]), next.unwrap_or(self.links[1])];
        let changed = links != self.links;
        self.links = links;
        changed
    }

    /// Follows the frames from the innermost to the outermost one; they are in `frames` then, innermost first.
    pub fn walk(
        &mut self,
        offsets: &Offsets,
        memory: &impl Memory,
        window: &Window,
        frames: &mut Vec<RawFrame>,
    ) -> Walk {
        frames.clear();
        let mut hint = 0;
        let length = state_length(offsets) as usize;
        let Some(state) = window.get(self.address, length, &mut hint) else {
            return Walk::Again;
        };
        let word = |offset: u32| layout::word(state, at(offset)).unwrap_or(0);
        let thread = &offsets.thread;
        if [word(thread.prev), word(thread.next)] != self.links
            || word(thread.interp) != self.interpreter
            || word(thread.thread_id) != self.ident
            || word(thread.unique_id) != self.unique_id
        {
            return Walk::Stale;
        }
        if let Some(stack) = thread.stack {
            let (chunk, top) = (word(stack.chunk), word(stack.top));
            if self.chunks.last().map_or(0, |newest| newest.address) != chunk {
                self.replan = true;
                self.dirty = true;
                return if self.find_chunks(&stack, memory, chunk, top) {
                    Walk::Again
                } else {
                    Walk::Broken
                };
            }
            self.plan_top(top);
        }
        let innermost = word(thread.handled.innermost);
        let Some(beside) = self
            .handled
            .follow(&thread.handled, memory, window, innermost)
        else {
            return Walk::Broken;
        };
        self.replan |= beside;
        let walk = match thread.current {
            CurrentFrame::Thread(offset) => {
                self.follow(offsets, memory, window, word(offset), frames)
            }
            CurrentFrame::CFrame { cframe, .. } => {
                self.follow_cframes(offsets, memory, window, word(cframe), frames)
            }
        };
        match walk {
            Walk::Whole { late } => Walk::Whole {
                late: late || beside,
            },
            other => other,
        }
    }

    /// 3.11 and 3.12 switch `cframe` before they store the new one's current frame: when what is there is no
    /// stack, the one before it has the stack of that instant.
    fn follow_cframes(
        &mut self,
        offsets: &Offsets,
        memory: &impl Memory,
        window: &Window,
        cframe: u64,
        frames: &mut Vec<RawFrame>,
    ) -> Walk {
        let CurrentFrame::CFrame {
            current,
            previous,
            size,
            ..
        } = offsets.thread.current
        else {
            return Walk::Broken;
        };
        let mut late = false;
        if cframe != self.cframe {
            self.cframe = cframe;
            self.replan = true;
        }
        let mut from = cframe;
        for _ in 0..2 {
            let mut bytes = [0; 32];
            let Some(room) = bytes.get_mut(..at(size)) else {
                return Walk::Broken;
            };
            match window.get(from, room.len(), &mut 0) {
                Some(copied) => room.copy_from_slice(copied),
                None => {
                    late = true;
                    if memory.read(from, room).is_err() {
                        return Walk::Broken;
                    }
                }
            }
            let innermost = layout::word(&bytes, at(current)).unwrap_or(0);
            frames.clear();
            match self.follow(offsets, memory, window, innermost, frames) {
                Walk::Whole { late: more } => return Walk::Whole { late: late || more },
                Walk::Broken => {}
                other => return other,
            }
            from = layout::word(&bytes, at(previous)).unwrap_or(0);
            if from == 0 {
                break;
            }
        }
        Walk::Broken
    }

    fn follow(
        &mut self,
        offsets: &Offsets,
        memory: &impl Memory,
        window: &Window,
        innermost: u64,
        frames: &mut Vec<RawFrame>,
    ) -> Walk {
        let layout = &offsets.frame;
        let length = frame_length(offsets);
        let bottom = self.bottom(offsets);
        let newest = self.chunks.last().map_or(0..0, |chunk| {
            chunk.address..chunk.address.saturating_add(chunk.size)
        });
        let always_from_c = layout.owner.is_none();
        let mut scratch = [0; 160];
        let (mut late, mut rooted, mut only_shims) = (false, false, true);
        let (mut hint, mut address, mut loose) = (0, innermost, 0usize);
        let known = self.loose.len();
        // Where the chain was at the last power of two of steps: to be there again means a cycle (Brent).
        let mut milestone = 0;
        for step in 0..DEEPEST {
            if address == 0 || address == milestone {
                break;
            }
            if step.is_power_of_two() {
                milestone = address;
            }
            let bytes = match window.get(address, length, &mut hint) {
                Some(bytes) => bytes,
                None => {
                    let Some(room) = scratch.get_mut(..length) else {
                        return Walk::Broken;
                    };
                    if memory.read(address, room).is_err() {
                        return Walk::Broken;
                    }
                    late = true;
                    if !newest.contains(&address) && self.loose.len() < MOST_LOOSE {
                        self.loose.push(address);
                    }
                    room
                }
            };
            loose += usize::from(!newest.contains(&address));
            rooted |= Some(address) == bottom;
            let word = |offset: u32| layout::word(bytes, at(offset)).unwrap_or(0);
            let is_shim = layout
                .owner
                .and_then(|offset| bytes.get(at(offset)))
                .is_some_and(|owner| *owner >= layout.first_shim_owner);
            if is_shim {
                if let Some(callee) = frames.last_mut() {
                    callee.from_c = true;
                }
            } else {
                only_shims = false;
                let instruction = match layout.coding {
                    Instruction::Pointer => word(layout.instruction),
                    _ => word(layout.instruction) & 0xffff_ffff,
                };
                let copy = layout.bytecode_copy;
                let copy = copy.and_then(|offset| layout::int(bytes, at(offset)));
                frames.push(RawFrame {
                    address,
                    code: word(layout.code) & !layout.tag_mask,
                    instruction,
                    copy: copy.unwrap_or(0) as u32,
                    from_c: always_from_c
                        || layout
                            .is_entry
                            .and_then(|offset| bytes.get(at(offset)))
                            .is_some_and(|entry| *entry != 0),
                });
            }
            address = word(layout.previous);
        }
        self.replan |= self.loose.len() > known;
        // A chain that never ends, or one that does not pass through the frame that all stacks have in common:
        // no stack.
        if address != 0 && address != milestone {
            return Walk::TooDeep;
        }
        if address != 0 || (bottom.is_some() && !rooted && !only_shims) {
            return Walk::Broken;
        }
        self.forget_loose(offsets, loose, frames, &newest);
        if offsets.thread.stack.is_none() {
            self.forget_unseen(frames);
            self.part(frames);
        }
        Walk::Whole { late }
    }

    /// Keeps the remembered frames from growing: cut down to those of this stack.
    fn forget_loose(
        &mut self,
        offsets: &Offsets,
        in_use: usize,
        frames: &[RawFrame],
        newest: &std::ops::Range<u64>,
    ) {
        let spare = match offsets.thread.stack {
            Some(_) => SPARE_FRAMES,
            None => SPARE_HEAP_FRAMES,
        };
        if self.loose.len() > 2 * in_use + spare {
            self.loose.clear();
            let outside = frames
                .iter()
                .map(|frame| frame.address)
                .filter(|address| !newest.contains(address));
            self.loose.extend(outside);
            self.replan = true;
        }
    }

    /// Heap frames: forgets those that have not been on the stack lately, each of which may cost a range.
    fn forget_unseen(&mut self, frames: &[RawFrame]) {
        self.walks = self.walks.wrapping_add(1);
        if self.walks.is_multiple_of(NOTED_WALKS) {
            self.seen.extend(frames.iter().map(|frame| frame.address));
        }
        if self.walks.is_multiple_of(REMEMBERED_WALKS) {
            self.loose.retain(|frame| self.seen.contains(frame));
            self.seen.clear();
            self.replan = true;
        }
    }

    /// Heap frames: chooses those that lie so deep that they hardly ever change.
    fn part(&mut self, frames: &[RawFrame]) {
        if frames.len() <= DEEP {
            if self.outer_from.take().is_some() {
                self.outer.clear();
                self.replan = true;
            }
            return;
        }
        let inner = frames.get(..MOST_INNER).unwrap_or(frames);
        let at = self
            .outer_from
            .and_then(|from| inner.iter().position(|frame| frame.address == from));
        if at.is_some_and(|at| at >= FEWEST_INNER) {
            return;
        }
        let outer = frames.get(INNER_FRAMES..).unwrap_or_default();
        self.outer.clear();
        self.outer.extend(outer.iter().map(|frame| frame.address));
        self.outer_from = outer.first().map(|frame| frame.address);
        self.replan = true;
    }

    /// The frame that every stack of this thread ends in; `None` when there is none.
    fn bottom(&self, offsets: &Offsets) -> Option<u64> {
        let stack = offsets.thread.stack?;
        let lowest = self.chunks.first()?;
        let bottom = lowest.address.checked_add(u64::from(stack.bottom_frame))?;
        // Nothing pushed: a generator that was resumed from C with no Python function around it.
        let empty = self.chunks.len() == 1 && self.top() == bottom;
        (!empty).then_some(bottom)
    }

    fn top(&self) -> u64 {
        self.chunks
            .last()
            .map_or(0, |newest| newest.address.saturating_add(newest.used))
    }

    /// Notes the top of the newest chunk.
    fn plan_top(&mut self, top: u64) {
        let Some(newest) = self.chunks.last_mut() else {
            return;
        };
        newest.used = top.saturating_sub(newest.address).min(newest.size);
        let top = newest.address + newest.used;
        let grown = top.saturating_add(SLACK / 4) > self.planned_end;
        let shrunk = top.saturating_add(4 * SLACK) < self.planned_end;
        if grown || shrunk {
            self.planned_end = top.saturating_add(SLACK);
            self.replan = true;
        }
    }

    /// Reads the headers of the chunks from `newest` on; those that are known already are kept.
    fn find_chunks(
        &mut self,
        offsets: &DataStackOffsets,
        memory: &impl Memory,
        newest: u64,
        top: u64,
    ) -> bool {
        let mut found = Vec::new();
        let mut address = newest;
        while address != 0 {
            let mut head = [0; 24];
            if found.len() == MOST_CHUNKS || memory.read(address, &mut head).is_err() {
                self.chunks.clear();
                return false;
            }
            let word = |offset: u32| layout::word(&head, at(offset)).unwrap_or(0);
            let size = word(offsets.chunk_size);
            let used = word(offsets.chunk_top)
                .saturating_mul(8)
                .saturating_add(u64::from(offsets.chunk_data));
            if size > LARGEST_CHUNK || address > HIGHEST {
                self.chunks.clear();
                return false;
            }
            found.push(Chunk {
                address,
                size,
                used: used.min(size),
            });
            if let Some(index) = self
                .chunks
                .iter()
                .position(|known| known.address == address)
            {
                self.chunks.truncate(index);
                break;
            }
            address = word(offsets.chunk_previous);
        }
        if address == 0 {
            self.chunks.clear();
        }
        self.chunks.extend(found.into_iter().rev());
        self.planned_end = 0;
        self.plan_top(top);
        true
    }
}
