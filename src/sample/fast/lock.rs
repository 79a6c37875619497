//! Which words say whether a thread runs Python: those of the lock that it needs, or, in free-threaded builds, its own.
//!
//! There each thread is a domain of its own, which it always holds: it is proved by itself that it stood still. One that the kernel
//! has not given a CPU since then is not read again.

use super::thread::Thread;
use super::window::Window;
use super::{Domain, FastReader, Interpreter, Stillness, fault};
use crate::layout::{self, Offsets, at};
use crate::sample::{Fault, ThreadStack, ThreadStacks};
use crate::target::memory::{Memory, Range};
use crate::units::Tid;

/// Where the words are that say whether a thread holds its interpreter's lock, and whether that interpreter collects garbage; 0 where
/// that is not known.
pub(super) struct LockWords {
    lock: Range,
    collecting: u64,
    collector: u64,
}

impl LockWords {
    pub(super) fn of(
        offsets: &Offsets,
        thread: &Thread,
        domains: &[Domain],
        interpreters: &[Interpreter],
    ) -> LockWords {
        let lock = domains.get(thread.domain).copied().unwrap_or_default();
        let mut interpreters = interpreters.iter();
        let interpreter = interpreters.find(|one| one.address == thread.interpreter);
        LockWords {
            lock: lock.words(offsets),
            collecting: interpreter.map_or(0, |one| one.collecting),
            collector: interpreter.map_or(0, |one| one.collector),
        }
    }

    pub(super) fn want(&self, window: &mut Window) {
        window.want(self.lock.address as u64, self.lock.length as u64);
        window.want(self.collecting, 4);
        window.want(self.collector, 8);
    }

    /// Says of a stack what a window has of them.
    pub(super) fn tell(
        &self,
        offsets: &Offsets,
        thread: &Thread,
        window: &Window,
        stack: &mut ThreadStack,
    ) {
        let lock = window.get(self.lock.address as u64, self.lock.length, &mut 0);
        let lock = Domain::default().read(offsets, lock.unwrap_or_default());
        let runs = lock.locked && (offsets.is_free_threaded() || lock.holder == thread.address);
        let collects = collects(window, self.collecting, self.collector, thread.address);
        (stack.holds_gil, stack.attached) = (false, false);
        match offsets.is_free_threaded() {
            true => stack.attached = runs,
            false => stack.holds_gil = runs,
        }
        stack.collects = runs && collects;
    }
}

/// Whether the interpreter with these words collects garbage, in the thread with the state at `thread` where it says which.
pub(super) fn collects(window: &Window, collecting: u64, collector: u64, thread: u64) -> bool {
    let word = window.get(collecting, 4, &mut 0);
    let is_collecting = word.and_then(|word| layout::int(word, 0)) == Some(1);
    let by = window.get(collector, 8, &mut 0);
    is_collecting && (collector == 0 || by.and_then(|word| layout::word(word, 0)) == Some(thread))
}

impl Domain {
    /// That of a thread which needs no lock.
    pub(super) fn of_thread(state: u64) -> Domain {
        Domain {
            address: state,
            holder: state,
            ..Domain::default()
        }
    }

    /// The words that say who runs.
    pub(super) fn words(&self, offsets: &Offsets) -> Range {
        let (address, length) = match offsets.thread.attached {
            Some(attached) => (self.address.saturating_add(u64::from(attached.state)), 4),
            None => (self.address, at(offsets.gil.size)),
        };
        Range {
            address: address as usize,
            length,
        }
    }

    /// The same domain as those words say that it is.
    pub(super) fn read(self, offsets: &Offsets, words: &[u8]) -> Domain {
        if let Some(attached) = offsets.thread.attached {
            return Domain {
                locked: layout::int(words, 0) == Some(attached.runs),
                ..self
            };
        }
        let gil = &offsets.gil;
        let word = |offset: u32| layout::word(words, at(offset)).unwrap_or(0);
        Domain {
            holder: word(gil.last_holder),
            locked: layout::int(words, at(gil.locked)) == Some(1),
            switches: word(gil.switch_number),
            ..self
        }
    }
}

impl<M: Memory> FastReader<M> {
    /// Where no lock tells that the lists have changed: whether they have.
    pub(super) fn look_for_changes(&mut self) -> Result<(), Fault> {
        if self.offsets.is_free_threaded() && !self.stale {
            self.stale = !self.same_lists()?;
        }
        Ok(())
    }

    /// How often the kernel has given a CPU to the thread of a domain that is one thread's; `None` where that proves nothing.
    pub(super) fn slices(&mut self, domain: usize, stacks: &ThreadStacks) -> Option<u64> {
        if !self.offsets.is_free_threaded() || self.stillness != Stillness::SameCpu {
            return None;
        }
        let tid = self.tid_of(domain, stacks)?;
        let slices = self.os_threads.slices(tid);
        // It has ended.
        self.stale |= slices.is_none();
        slices.filter(|slices| *slices > 0)
    }

    fn tid_of(&mut self, domain: usize, stacks: &ThreadStacks) -> Option<Tid> {
        let stack = stacks.threads.get(domain)?;
        let inner = i32::try_from(stack.os_id).ok().filter(|inner| *inner > 0);
        self.os_threads.resolve(inner?)
    }

    /// Whether a thread that was read has not been given a CPU since, of which `slices` is the number now.
    pub(super) fn has_not_run(&self, domain: usize, slices: Option<u64>) -> bool {
        let thread = self.threads.get(domain);
        slices.is_some() && thread.is_some_and(|thread| thread.slices == slices)
    }

    /// Whether the words of a domain have not changed hands since they were read.
    pub(super) fn same_lock(&self, domain: usize) -> Result<bool, Fault> {
        let Some(lock) = self.domains.get(domain) else {
            return Ok(false);
        };
        if self.offsets.is_free_threaded() {
            // Whose thread it is stands still, or is not asked for this.
            return Ok(true);
        }
        let gil = &self.offsets.gil;
        let word = |offset: u32| {
            let address = lock.address.checked_add(u64::from(offset));
            let address = address.ok_or(Fault::Torn)?;
            self.memory.read_word(address).map_err(fault)
        };
        Ok(word(gil.switch_number)? == lock.switches && word(gil.last_holder)? == lock.holder)
    }
}
