//! The lists of interpreters and threads: read when something says that they have changed, with what was known of
//! each thread kept; and the threads' names.

use rustc_hash::FxHashSet;

use super::names::Wanted;
use super::thread::{NAMED, Thread};
use super::{Domain, FastReader, Interpreter, fault, names, thread};
use crate::layout::{self, GcPlace, GilPlace, Offsets, at};
use crate::sample::{Fault, ThreadStack, ThreadStacks};
use crate::target::memory::Memory;
use crate::target::threads::Threads;

/// Most interpreters and threads that are believed.
const MOST_INTERPRETERS: usize = 256;
const MOST_THREADS: usize = 65_536;

impl<M: Memory> FastReader<M> {
    /// Reads the lists of interpreters and threads.
    pub(super) fn relist(&mut self) -> Result<(), Fault> {
        let offsets = self.offsets;
        let mut old = std::mem::take(&mut self.threads);
        self.interpreters.clear();
        self.lists += 1;
        self.planned = None;
        // Until all is read.
        let was_arranged = !self.rearrange;
        (self.stale, self.rearrange) = (true, true);
        let mut domains: Vec<Domain> = Vec::new();
        let mut interpreter = self.word(self.runtime, offsets.interpreters_head)?;
        while interpreter != 0 && self.interpreters.len() < MOST_INTERPRETERS {
            let gil = match offsets.gil.place {
                GilPlace::Runtime(offset) => self.runtime.wrapping_add(u64::from(offset)),
                GilPlace::Interpreter(offset) => self.word(interpreter, offset)?,
            };
            let domain = match domains.iter().position(|domain| domain.address == gil) {
                Some(known) => known,
                // Each thread is one for itself.
                None if offsets.is_free_threaded() => 0,
                None => {
                    let known = self.domains.iter().find(|domain| domain.address == gil);
                    domains.push(known.copied().unwrap_or(Domain {
                        address: gil,
                        ..Domain::default()
                    }));
                    domains.len() - 1
                }
            };
            let head = self.word(interpreter, offsets.interpreter.threads_head)?;
            let mut address = head;
            while address != 0 && self.threads.len() < MOST_THREADS {
                let same = |thread: &Thread| thread.address == address;
                let known = old.iter().position(same);
                let mut state = vec![0; thread::state_length(&offsets) as usize];
                if let Err(error) = self.memory.read(address, &mut state) {
                    match &mut self.dead {
                        Some(dead) => dead.lost_threads = true,
                        None => return Err(fault(error)),
                    }
                    break;
                }
                let word = |offset: u32| layout::word(&state, at(offset)).unwrap_or(0);
                let links = [word(offsets.thread.prev), word(offsets.thread.next)];
                let ident = word(offsets.thread.thread_id);
                let unique_id = word(offsets.thread.unique_id);
                if word(offsets.thread.interp) != interpreter {
                    return Err(Fault::Torn);
                }
                let is_same = |thread: &&mut Thread| {
                    thread.ident == ident
                        && thread.unique_id == unique_id
                        && thread.interpreter == interpreter
                };
                let mut thread = match known.and_then(|index| old.get_mut(index)).filter(is_same) {
                    Some(thread) => {
                        let fresh = Thread::new(0, 0, 0);
                        let mut thread = std::mem::replace(thread, fresh);
                        // Where it is in `ThreadStacks`, which may not have been arranged since.
                        if was_arranged {
                            thread.was = known;
                        }
                        thread
                    }
                    None => Thread::new(address, interpreter, domain),
                };
                thread.handled.wanted = self.handling.is_some();
                thread.domain = domain;
                if offsets.is_free_threaded() {
                    thread.domain = domains.len();
                    domains.push(Domain::of_thread(address));
                }
                thread.links = links;
                (thread.ident, thread.unique_id) = (ident, unique_id);
                if thread.searched == 0 {
                    thread.user = Some(ident);
                }
                self.threads.push(thread);
                address = links[1];
            }
            self.interpreters.push(Interpreter {
                address: interpreter,
                id: self.word(interpreter, offsets.interpreter.id)?,
                threads_head: head,
                collecting: self.find_collecting(interpreter).unwrap_or(0),
                collector: (offsets.gc.collector)
                    .and_then(|offset| interpreter.checked_add(u64::from(offset)))
                    .unwrap_or(0),
            });
            interpreter = self.word(interpreter, offsets.interpreter.next)?;
        }
        self.domains = domains;
        self.rearrange = true;
        self.stale = false;
        if self.threads.is_empty() {
            return Err(Fault::Torn);
        }
        Ok(())
    }

    /// Where an interpreter says whether it is collecting garbage; `None` when that is not where it should be.
    fn find_collecting(&self, interpreter: u64) -> Option<u64> {
        let offsets = &self.offsets.gc;
        let state = match offsets.place {
            GcPlace::Runtime(offset) => self.runtime.checked_add(u64::from(offset))?,
            GcPlace::Interpreter(offset) => interpreter.checked_add(u64::from(offset))?,
        };
        if let Some((young, pointer)) = offsets.check
            && self.word(state, pointer).ok()? != state.checked_add(u64::from(young))?
        {
            return None;
        }
        state.checked_add(u64::from(offsets.collecting))
    }

    fn word(&self, base: u64, offset: u32) -> Result<u64, Fault> {
        let address = base.checked_add(u64::from(offset)).ok_or(Fault::Torn)?;
        self.memory.read_word(address).map_err(fault)
    }

    /// Whether the heads of all lists are what they were.
    pub(super) fn same_lists(&self) -> Result<bool, Fault> {
        let offsets = &self.offsets.interpreter;
        let mut expected = self.word(self.runtime, self.offsets.interpreters_head)?;
        for interpreter in &self.interpreters {
            if interpreter.address != expected
                || self.word(interpreter.address, offsets.threads_head)? != interpreter.threads_head
            {
                return Ok(false);
            }
            expected = self.word(interpreter.address, offsets.next)?;
        }
        Ok(expected == 0)
    }

    /// Puts one entry a thread into `stacks`, in our order.
    pub(super) fn arrange(&mut self, stacks: &mut ThreadStacks) {
        let mut old = std::mem::take(&mut stacks.threads);
        let mut new = false;
        for thread in &mut self.threads {
            let kept = thread.was.and_then(|index| old.get_mut(index));
            let mut stack = match kept {
                Some(stack) if stack.python_id == thread.ident => std::mem::take(stack),
                _ => {
                    thread.raw.clear();
                    thread.dirty = true;
                    new = true;
                    ThreadStack::default()
                }
            };
            if stack.python_id != thread.ident || stack.os_id == 0 {
                stack.python_id = thread.ident;
                stack.os_id = os_id(&mut self.os_threads, &self.memory, &self.offsets, thread);
            }
            let gil = self.domains.get(thread.domain);
            let gil = gil.filter(|_| !self.offsets.is_free_threaded());
            stack.gil = gil.map_or(0..0, |gil| {
                let whole = u64::from(self.offsets.gil.whole);
                gil.address..gil.address.saturating_add(whole)
            });
            stacks.threads.push(stack);
        }
        for (index, thread) in self.threads.iter_mut().enumerate() {
            thread.was = Some(index);
        }
        self.look_for_gone(stacks);
        stacks.locals.clear();
        (self.rearrange, self.tids) = (false, None);
        self.unnamed = self.threads.iter().any(|thread| thread.named < NAMED);
        if new {
            self.naming.threads_came();
        }
    }

    /// Tells the threads whose ids lead to no thread of the process: there is one all the same where the ids cannot be read
    /// (another C library), and none where they can.
    fn look_for_gone(&mut self, stacks: &mut ThreadStacks) {
        if stacks.threads.iter().all(|stack| stack.os_id != 0) {
            return;
        }
        if let [thread] = stacks.threads.as_mut_slice() {
            let only = self.os_threads.only();
            thread.os_id = only.and_then(|only| u64::try_from(only).ok()).unwrap_or(0);
            return;
        }
        let known = stacks.threads.iter().filter(|stack| stack.os_id != 0);
        let can_be_read = known
            .map(|stack| self.os_threads.behind(stack.python_id))
            .any(|tid| tid.is_some());
        for (thread, stack) in self.threads.iter().zip(&mut stacks.threads) {
            // One that is starting has no id yet; before 3.11 that is never kept.
            let has_id = native_id(&self.memory, &self.offsets, thread) != Some(0);
            stack.gone = stack.os_id == 0 && can_be_read && has_id;
        }
    }

    /// Looks up the names of threads when it is time for that.
    pub(super) fn name_threads(&mut self, stacks: &mut ThreadStacks, now_us: u64) {
        let Some(wanted) = self.naming.wanted(self.unnamed, now_us) else {
            return;
        };
        for interpreter in &self.interpreters {
            let is_wanted = |thread: &&Thread| {
                thread.interpreter == interpreter.address
                    && (wanted == Wanted::All || thread.named < NAMED)
            };
            let idents = self.threads.iter().filter(is_wanted);
            let idents: FxHashSet<u64> = idents.map(|thread| thread.ident).collect();
            if idents.is_empty() {
                continue;
            }
            let names =
                names::read_names(&self.offsets, &self.memory, interpreter.address, |ident| {
                    idents.contains(&ident)
                });
            let mut names = names.unwrap_or_default();
            for (thread, stack) in self.threads.iter_mut().zip(&mut stacks.threads) {
                if thread.interpreter == interpreter.address
                    && let Some(name) = names.remove(&thread.ident)
                {
                    thread.named = NAMED.min(thread.named + 1);
                    stack.name = Some(name);
                }
            }
        }
        self.unnamed = self.threads.iter().any(|thread| thread.named < NAMED);
    }
}

/// The kernel's id of a thread, as Python has it: 0 when it is starting. `None` before 3.11.
fn native_id(memory: &impl Memory, offsets: &Offsets, thread: &Thread) -> Option<u64> {
    let address = thread
        .address
        .checked_add(u64::from(offsets.thread.native_id?));
    Some(
        address
            .and_then(|address| memory.read_word(address).ok())
            .unwrap_or(0),
    )
}

/// The kernel's id of a thread, in the target's PID namespace; 0 when it is not known.
pub(super) fn os_id(
    os_threads: &mut Threads,
    memory: &impl Memory,
    offsets: &Offsets,
    thread: &Thread,
) -> u64 {
    let native = native_id(memory, offsets, thread).unwrap_or(0);
    let inner = os_threads.identify(native, thread.ident);
    inner
        .and_then(|inner| u64::try_from(inner).ok())
        .unwrap_or(0)
}
