//! Which thread runs the code of a sub-interpreter. Up to 3.12 `_xxsubinterpreters` runs code on a state that another thread
//! may have made, whose ident it keeps (Modules/_xxsubinterpretersmodule.c, `_run_script_in_interpreter`). The thread that
//! uses a state has its address on its C stack: the interpreter's loop takes it as an argument.

use rustc_hash::FxHashSet;

use super::FastReader;
use crate::profile::{FunctionKind, Tables};
use crate::sample::interpreters::Inside;
use crate::sample::{FrameSample, ThreadStacks};
use crate::target::maps::{self, Region};
use crate::target::memory::Memory;
use crate::target::threads;
use crate::units::{Pid, Tid};

/// The last version in which a state may have another thread's ident.
const LAST_BORROWED: u32 = 12;

/// How much of a stack is searched, from its outermost frames on: those that entered the interpreter are there.
const SEARCHED: u64 = 128 << 10;

/// How often a user that was not found is looked for again.
const AGAIN_US: u64 = 50_000;

/// Words on a stack that waiting for the GIL takes.
const WAITING: usize = 192;

/// The C stack of a thread.
struct CStack {
    ident: u64,
    range: std::ops::Range<u64>,
    words: Vec<u64>,
    /// How many of them, the innermost ones, may be of waiting for the GIL: whoever does has its holder's state there.
    waiting: usize,
    /// Whether its Python stack ends in a call that runs code in another interpreter.
    enters: bool,
    /// Whether it ran when the kernel was asked how far its stack is in use.
    runs: bool,
}

/// The mapping with a thread's C stack.
fn stack_of(regions: &[Region], pid: Pid, ident: u64, tid: Tid) -> Option<&Region> {
    regions.iter().find(|region| match tid.0 == pid.0 {
        true => region.name == "[stack]",
        // The C library keeps `struct pthread` at the end of the stack.
        false => region.holds(ident) && region.writable(),
    })
}

/// The thread whose stack has the addresses of `state` and its `frames` most often. What earlier calls left may be on others
/// as well, so one that has called something that would put them there goes first, and one that runs where the state's does.
/// A tie tells nothing.
fn most_mentions(
    stacks: &[CStack],
    state: u64,
    frames: &FxHashSet<u64>,
    holds_gil: bool,
) -> Option<u64> {
    let mut counts: Vec<_> = stacks
        .iter()
        .map(|stack| {
            let (words, outer) = (&stack.words, stack.words.get(stack.waiting..));
            let of_frames = words.iter().filter(|word| frames.contains(word)).count();
            let of_state = outer.unwrap_or_default().iter();
            let of_state = of_state.filter(|word| **word == state).count();
            let rank = (stack.enters, holds_gil && stack.runs, of_frames, of_state);
            (rank, stack.ident)
        })
        .filter(|((_, _, of_frames, of_state), _)| of_frames + of_state > 0)
        .collect();
    counts.sort_unstable();
    match counts.as_slice() {
        [.., (second, _), (most, _)] if second == most => None,
        [.., (_, ident)] => Some(*ident),
        [] => None,
    }
}

impl<M: Memory> FastReader<M> {
    /// Says of each stack that is not the main interpreter's which one's it is and which thread's.
    pub(super) fn tell_interpreters(
        &mut self,
        tables: &mut Tables,
        stacks: &mut ThreadStacks,
        now_us: u64,
    ) {
        self.find_users(tables, stacks, now_us);
        for (thread, stack) in self.threads.iter().zip(&mut stacks.threads) {
            let mut interpreters = self.interpreters.iter();
            let interpreter = interpreters.find(|known| known.address == thread.interpreter);
            let id = interpreter.map_or(0, |interpreter| interpreter.id);
            if id == 0 || stack.frames.is_empty() {
                stack.inside = None;
                if id == 0 {
                    continue;
                }
            }
            let known = stack.inside.filter(|known| known.interpreter == id);
            let root = known.map_or_else(
                || {
                    let name = format!("<interpreter {id}>");
                    let function = tables.function("~", 0, &name, FunctionKind::Builtin);
                    FrameSample {
                        frame: tables.frame(function, 0),
                        invocation: thread.address,
                        instruction: 0,
                        code: 0,
                        from_c: true,
                    }
                },
                |known| known.root,
            );
            stack.inside = Some(Inside {
                interpreter: id,
                root,
                user: thread.user,
                state: thread.address,
            });
        }
    }

    /// Looks for the users of states that have begun to run something since they were looked for.
    fn find_users(&mut self, tables: &Tables, stacks: &ThreadStacks, now_us: u64) {
        if self.minor > LAST_BORROWED {
            return;
        }
        let main = self.interpreters.iter().find(|known| known.id == 0);
        let main = main.map_or(0, |interpreter| interpreter.address);
        let begun: Vec<(usize, u64)> = self
            .threads
            .iter()
            .enumerate()
            .filter(|(_, thread)| thread.interpreter != main)
            .filter_map(|(at, thread)| Some((at, thread.raw.first()?.address)))
            .filter(|(at, outermost)| {
                let thread = self.threads.get(*at);
                thread.is_some_and(|thread| thread.searched != *outermost || thread.user.is_none())
            })
            .collect();
        let is_new = |(at, outermost): &(usize, u64)| {
            let thread = self.threads.get(*at);
            thread.is_some_and(|thread| thread.searched != *outermost)
        };
        let due = self
            .users_searched_us
            .is_none_or(|last_us| now_us >= last_us + AGAIN_US);
        if begun.is_empty() || !(due || begun.iter().any(is_new)) {
            return;
        }
        self.users_searched_us = Some(now_us);
        // Of those that are to be stopped, other threads may be meant now.
        self.tids = None;
        let regions = match &self.dead {
            None => maps::regions(self.pid).unwrap_or_default(),
            Some(dead) => dead.regions.clone(),
        };
        let by_cframe = self
            .threads
            .iter()
            .any(|t| t.cframe(&self.offsets).is_some());
        let mut searched: Vec<CStack> = Vec::new();
        for stack in &stacks.threads {
            let ident = stack.python_id;
            let tid = i32::try_from(stack.os_id).ok().filter(|inner| *inner > 0);
            let tid = tid.and_then(|inner| self.os_threads.resolve(inner));
            let Some(tid) = tid.filter(|_| !searched.iter().any(|known| known.ident == ident))
            else {
                continue;
            };
            let Some(region) = stack_of(&regions, self.pid, ident, tid) else {
                continue;
            };
            let top = threads::stack_pointer(self.pid, tid).filter(|top| region.holds(*top));
            let words = match by_cframe {
                true => Vec::new(),
                false => self.words_on_stack(region, ident, top),
            };
            searched.push(CStack {
                ident,
                range: region.start..region.end,
                words,
                waiting: top.map_or(0, |_| WAITING),
                runs: top.is_none(),
                enters: stack.inside.is_none()
                    && stack.frames.last().is_some_and(|innermost| {
                        let function = tables.get_frame(innermost.frame).function;
                        tables.name(function).contains("interpreters.")
                    }),
            });
        }
        for (at, outermost) in begun {
            let Some(thread) = self.threads.get_mut(at) else {
                continue;
            };
            thread.user = match thread.cframe(&self.offsets) {
                Some(cframe) => {
                    let mut stacks = searched.iter();
                    let whose = stacks.find(|stack| stack.range.contains(&cframe));
                    whose.map(|stack| stack.ident)
                }
                None => {
                    let frames = thread.raw.iter().map(|frame| frame.address).collect();
                    let lock = self.domains.get(thread.domain);
                    let holds =
                        lock.is_some_and(|lock| lock.locked && lock.holder == thread.address);
                    most_mentions(&searched, thread.address, &frames, holds)
                }
            };
            thread.searched = outermost;
        }
    }

    /// The words on the outer part of a thread's C stack, as far as it is in use where the kernel says how far that is.
    fn words_on_stack(&self, region: &Region, ident: u64, top: Option<u64>) -> Vec<u64> {
        let end = if region.holds(ident) {
            ident
        } else {
            region.end
        };
        let start = top
            .unwrap_or(region.start)
            .max(end.saturating_sub(SEARCHED))
            & !7;
        let length = usize::try_from(end.saturating_sub(start)).unwrap_or(0);
        let mut bytes = vec![0; length];
        if self.memory.read(start, &mut bytes).is_err() {
            return Vec::new();
        }
        let (words, _) = bytes.as_chunks::<8>();
        words.iter().map(|word| u64::from_le_bytes(*word)).collect()
    }
}
