//! When a process may be stopped: a heap is in order while nobody holds the interpreter lock and no collection runs.
//!
//! Both are words in the target's memory that are read while it runs. In 400 stops at random moments of a program that
//! allocates, one of eight met a heap in the middle of a change; with a free lock, none of 144.

use std::time::{Duration, Instant};

use super::{Memory, Range, Unreadable};
use crate::layout::{GcPlace, GilPlace};
use crate::target::runtime::Runtime;

/// Interpreters that are looked at.
const MOST_INTERPRETERS: usize = 64;

/// Between two looks: far less than a thread holds the lock (5 ms), and cheap.
const BETWEEN: Duration = Duration::from_micros(100);

/// What state a heap was in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HeapState {
    /// In order.
    Quiet,
    /// A thread held the interpreter lock and may have been in the middle of a change.
    LockHeld,
    /// A collection was running.
    Collecting,
    /// Of this Python it is not known where it says so.
    Unknown,
}

/// Where a Python says what state its heap is in.
#[derive(Debug, Clone)]
pub struct Signs {
    words: Vec<Range>,
    /// How many of `words` are locks; the rest are collectors.
    locks: usize,
}

impl Signs {
    /// Those of `runtime`; `None` where they are not known.
    pub fn find(memory: &impl Memory, runtime: &Runtime) -> Option<Signs> {
        let offsets = runtime.offsets()?;
        let gc = offsets.gc;
        let behind = |base: u64, offset: u32| base.checked_add(u64::from(offset));
        let head = behind(runtime.address, offsets.interpreters_head)?;
        let mut interpreter = memory.read_word(head).ok()?;
        let (mut locks, mut collectors) = (Vec::new(), Vec::new());
        while interpreter != 0 && locks.len() < MOST_INTERPRETERS {
            let lock = match offsets.gil.place {
                GilPlace::Runtime(offset) => behind(runtime.address, offset)?,
                GilPlace::Interpreter(offset) => {
                    memory.read_word(behind(interpreter, offset)?).ok()?
                }
            };
            locks.push(behind(lock, offsets.gil.locked)?);
            let collector = match gc.place {
                GcPlace::Runtime(offset) => behind(runtime.address, offset)?,
                GcPlace::Interpreter(offset) => behind(interpreter, offset)?,
            };
            collectors.push(behind(collector, gc.collecting)?);
            interpreter = memory
                .read_word(behind(interpreter, offsets.interpreter.next)?)
                .ok()?;
        }
        locks.dedup();
        collectors.dedup();
        let word = |address: &u64| {
            let address = usize::try_from(*address).ok()?;
            Some(Range { address, length: 4 })
        };
        let words = locks
            .iter()
            .chain(&collectors)
            .map(word)
            .collect::<Option<_>>()?;
        (!locks.is_empty()).then_some(Signs {
            words,
            locks: locks.len(),
        })
    }

    /// What they say now.
    pub fn read(&self, memory: &impl Memory) -> Result<HeapState, Unreadable> {
        let mut bytes = vec![0; self.words.len() * 4];
        if memory.read_ranges(&self.words, &mut bytes)? != bytes.len() {
            return Err(Unreadable::Nowhere);
        }
        let (locks, collectors) = bytes.split_at(self.locks * 4);
        // -1 is a lock that was never made; anything but 0 is a collection.
        let held = locks.chunks_exact(4).any(|word| word == 1i32.to_ne_bytes());
        let collecting = collectors.chunks_exact(4).any(|word| word != [0; 4]);
        Ok(if collecting {
            HeapState::Collecting
        } else if held {
            HeapState::LockHeld
        } else {
            HeapState::Quiet
        })
    }

    /// Waits until they say `wanted` or better, at most until `deadline`; whether they did.
    pub fn wait(
        &self,
        memory: &impl Memory,
        wanted: HeapState,
        deadline: Instant,
    ) -> Result<bool, Unreadable> {
        while self.read(memory)? > wanted {
            if Instant::now() >= deadline {
                return Ok(false);
            }
            std::thread::sleep(BETWEEN);
        }
        Ok(true)
    }
}
