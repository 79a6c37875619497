//! Stopping the target for a sample: only the threads that Python knows, so that others are never disturbed.
//!
//! The threads of the last sample are stopped; which others there are is not known before. A stack is taken when
//! its thread stands still, or when the lock that the thread needs has not changed hands since before the copy, and
//! its last holder stands still: then nobody has run. So it is the last holder that has to be stopped: where it is
//! not yet, it is stopped as well and the stacks are read again.

use std::time::Duration;

use rustc_hash::FxHashSet;

use super::lists::os_id;
use super::{FastReader, Stillness, fault};
use crate::sample::{Fault, ThreadStacks};
use crate::target::memory::{Memory, Stopped, Unreadable};
use crate::target::process;
use crate::units::Tid;

/// How often the list of threads is read while they run, to find those to stop.
const MOST_LOOKS: usize = 8;

/// How often a last holder that cannot be stopped is looked for again before all threads of the process are stopped,
/// and the pause before.
const MOST_MISSES: usize = 8;
const STARTING: Duration = Duration::from_micros(50);

/// What stands still until this is dropped.
#[derive(Debug, Default)]
pub(super) struct Held {
    stopped: Vec<Stopped>,
    /// Addresses of the thread states whose threads stand still.
    threads: FxHashSet<u64>,
    /// Their ids in the kernel.
    tids: FxHashSet<Tid>,
    /// How often a last holder could not be stopped.
    missed: usize,
    all: bool,
}

impl Held {
    /// Whether the thread with the state at `address` stands still.
    pub(super) fn has(&self, address: u64) -> bool {
        self.all || self.threads.contains(&address)
    }

    /// Whether every thread of the process does.
    pub(super) fn is_all(&self) -> bool {
        self.all
    }
}

impl<M: Memory> FastReader<M> {
    /// Stops the threads that Python has, as far as they are known, when samples are to stop the target.
    pub(super) fn hold(&mut self, stacks: &mut ThreadStacks) -> Result<Held, Fault> {
        let mut held = Held {
            all: self.stillness == Stillness::Dead,
            ..Held::default()
        };
        if self.stopper.is_none() {
            return Ok(held);
        }
        for _ in 0..MOST_LOOKS {
            if self.stale {
                // A first look at who there is. It may be wrong, as they run: it is read again when they stand.
                match self.relist() {
                    Ok(()) => {}
                    Err(Fault::Torn) => continue,
                    Err(other) => return Err(other),
                }
                self.arrange(stacks);
                self.stale = true;
            } else if self.rearrange || stacks.threads.len() != self.threads.len() {
                self.arrange(stacks);
            }
            self.hold_known(&mut held, stacks);
            if !held.threads.is_empty() {
                return Ok(held);
            }
            self.stale = true;
        }
        // They have no ids that can be found.
        self.hold_all(&mut held)?;
        Ok(held)
    }

    /// Stops the thread with the state at `holder` as well.
    pub(super) fn hold_holder(
        &mut self,
        held: &mut Held,
        holder: u64,
        stacks: &mut ThreadStacks,
    ) -> Result<(), Fault> {
        // One that is starting had no id before; and one may have taken the place of another that ended.
        for (thread, stack) in self.threads.iter().zip(&mut stacks.threads) {
            if !held.has(thread.address) {
                stack.os_id = os_id(&mut self.os_threads, &self.memory, &self.offsets, thread);
            }
        }
        self.tids = None;
        self.hold_known(held, stacks);
        if held.has(holder) {
            return Ok(());
        }
        held.missed += 1;
        if held.missed > MOST_MISSES {
            return self.hold_all(held);
        }
        // It has ended, and the list is old; or it is starting, where another one ended.
        self.stale = true;
        std::thread::sleep(STARTING);
        Ok(())
    }

    fn hold_known(&mut self, held: &mut Held, stacks: &ThreadStacks) {
        let known = match self.tids.take() {
            Some(known) => known,
            None => self.resolve(stacks),
        };
        let ids = known.iter().map(|(_, tid)| *tid);
        let new: Vec<Tid> = ids.filter(|tid| !held.tids.contains(tid)).collect();
        let stopper = self.stopper.as_ref().filter(|_| !new.is_empty());
        if let Some(stopped) = stopper.and_then(|stopper| stopper.stop_some(&new)) {
            match stopped.threads() {
                Some(standing) => held.tids.extend(standing),
                None => held.tids.extend(&new),
            }
            held.stopped.push(stopped);
        }
        let standing = known.iter().filter(|(_, tid)| held.tids.contains(tid));
        held.threads = standing.map(|(address, _)| *address).collect();
        self.tids = Some(known);
    }

    /// Stops every thread of the process.
    fn hold_all(&self, held: &mut Held) -> Result<(), Fault> {
        // Nothing can be stopped twice.
        *held = Held::default();
        let Some(stopper) = &self.stopper else {
            return Ok(());
        };
        match stopper.stop() {
            Some(stopped) => held.stopped.push(stopped),
            None if process::is_alive(self.pid) => return Err(fault(Unreadable::Denied)),
            None => return Err(fault(Unreadable::Gone)),
        }
        held.all = true;
        Ok(())
    }

    /// The states of the threads whose ids are known, with these.
    fn resolve(&mut self, stacks: &ThreadStacks) -> Vec<(u64, Tid)> {
        let mut known = Vec::new();
        for (thread, stack) in self.threads.iter().zip(&stacks.threads) {
            // The state may be another thread's than its ident says.
            let os_id = match thread.user {
                Some(user) if user == thread.ident => stack.os_id,
                Some(user) => {
                    let mut stacks = stacks.threads.iter();
                    let own = stacks.find(|stack| stack.python_id == user);
                    own.map_or(0, |own| own.os_id)
                }
                None => 0,
            };
            let inner = i32::try_from(os_id).ok().filter(|inner| *inner > 0);
            if let Some(tid) = inner.and_then(|inner| self.os_threads.resolve(inner)) {
                known.push((thread.address, tid));
            }
        }
        known
    }
}
