//! Who waits for a task, told by what is called when it is done: before 3.14 asyncio notes it nowhere else.
//!
//! `await` leaves the waiting task itself; `gather`, `shield`, `wait` and `wait_for` leave a function or a partial that
//! holds the future which the waiting task awaits; a `TaskGroup` its own method, and it knows its task.

use super::FastReader;
use super::awaits::{Awaits, FutureClass, Kind};
use super::codes::read_text;
use super::names::Dicts;
use crate::layout::asyncio;
use crate::layout::object;
use crate::target::memory::Memory;

/// Most callbacks that are looked at for one task, and how many futures one may lead through.
const MOST_CALLBACKS: usize = 64;
const DEEPEST: usize = 8;

/// Most cells of a closure and arguments of a partial that are looked at.
const MOST_CELLS: u64 = 16;

/// The functions of `asyncio.tasks` that pass on that a task is done.
const PASS_ON: [&str; 3] = ["_done_callback", "_inner_done_callback", "_on_completion"];

/// Those waiting for one task, as far as they are known.
struct Waiters {
    tasks: Vec<u64>,
    /// Futures that were looked at, and how many callbacks may be looked at still.
    met: Vec<u64>,
    left: usize,
}

impl<M: Memory> FastReader<M> {
    /// The tasks that wait for a task.
    pub(super) fn waiters(&self, awaits: &mut Awaits, task: u64) -> Vec<u64> {
        let mut waiters = Waiters {
            tasks: Vec::new(),
            met: Vec::new(),
            left: MOST_CALLBACKS,
        };
        self.follow_future(awaits, task, &mut waiters);
        waiters.tasks
    }

    fn follow_future(&self, awaits: &mut Awaits, future: u64, waiters: &mut Waiters) {
        if waiters.met.len() >= DEEPEST || waiters.met.contains(&future) {
            return;
        }
        waiters.met.push(future);
        let word = |awaits: &mut Awaits, from: u64, offset: u64| {
            awaits.word(&self.memory, from.checked_add(offset)?)
        };
        if let Some(first) = word(awaits, future, asyncio::CALLBACK).filter(|first| *first != 0) {
            self.follow_callback(awaits, first, waiters);
        }
        let more = word(awaits, future, asyncio::CALLBACKS).unwrap_or(0);
        if more == 0 || awaits.kind_of(&self.memory, more) != Kind::List {
            return;
        }
        let count = word(awaits, more, object::SIZE as u64).unwrap_or(0);
        let items = word(awaits, more, asyncio::ITEMS).unwrap_or(0);
        for at in 0..count.min(waiters.left as u64) {
            // A tuple of the callback and its context.
            let callback = word(awaits, items, at * 8)
                .and_then(|pair| word(awaits, pair, asyncio::ITEMS))
                .unwrap_or(0);
            if callback != 0 {
                self.follow_callback(awaits, callback, waiters);
            }
        }
    }

    fn follow_callback(&self, awaits: &mut Awaits, callback: u64, waiters: &mut Waiters) {
        if waiters.left == 0 {
            return;
        }
        waiters.left -= 1;
        let memory = &self.memory;
        let word = |awaits: &mut Awaits, from: u64, offset: u64| {
            awaits.word(memory, from.checked_add(offset)?)
        };
        let held = match awaits.kind_of(memory, callback) {
            Kind::Builtin => {
                let bound = word(awaits, callback, asyncio::BOUND_SELF).unwrap_or(0);
                if bound != 0 && awaits.is_task(memory, bound) {
                    waiters.tasks.push(bound);
                }
                return;
            }
            Kind::Method => {
                let bound = word(awaits, callback, asyncio::BOUND_SELF).unwrap_or(0);
                if bound != 0 && awaits.kind_of(memory, bound) == Kind::TaskGroup {
                    let dicts = Dicts::new(&self.offsets, memory);
                    let parent =
                        awaits.parent_of_group(bound, || dicts.attribute(bound, "_parent_task"));
                    waiters.tasks.extend(parent);
                }
                return;
            }
            Kind::Function => {
                let name = word(awaits, callback, asyncio::FUNCTION_NAME).unwrap_or(0);
                let passes_on = awaits.passes_on(name, || {
                    read_text(&self.offsets, memory, name)
                        .is_some_and(|name| PASS_ON.contains(&name.as_str()))
                });
                match word(awaits, callback, asyncio::CLOSURE) {
                    Some(closure) if passes_on => closure,
                    _ => return,
                }
            }
            Kind::Partial => word(awaits, callback, asyncio::PARTIAL_ARGUMENTS).unwrap_or(0),
            _ => return,
        };
        if held == 0 {
            return;
        }
        let count = word(awaits, held, object::SIZE as u64).unwrap_or(0);
        for at in 0..count.min(MOST_CELLS) {
            let Some(mut value) = word(awaits, held, asyncio::ITEMS + at * 8).filter(|at| *at != 0)
            else {
                continue;
            };
            if awaits.kind_of(memory, value) == Kind::Cell {
                value = word(awaits, value, asyncio::CELL_VALUE).unwrap_or(0);
            }
            if value != 0 && awaits.class_of(memory, value) == FutureClass::Future {
                self.follow_future(awaits, value, waiters);
            }
        }
    }
}
