//! A target that writes nonsense into everything that we read: no panic, bounded time and memory.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use super::{FastOptions, FastReader};
use crate::layout::{GilPlace, Offsets, tables};
use crate::profile::Tables;
use crate::sample::tasks::TaskStacks;
use crate::sample::{StackReader, ThreadStacks};
use crate::target::locate::Version;
use crate::target::memory::{Memory, Range, Unreadable};
use crate::target::runtime::Runtime;
use crate::units::Pid;

/// Where everything is.
const HEAP: u64 = 0x10_0000;
const RUNTIME: u64 = 0x20_0000;
const INTERPRETER: u64 = 0x30_0000;
const THREAD: u64 = 0x40_0000;
const GIL: u64 = 0x50_0000;
const CODE_TYPE: u64 = HEAP;

/// Memory with lists of interpreters and threads, and a lock, that make sense; all else is something else at
/// every read, most of it addresses nearby.
struct Hostile {
    random: RefCell<StdRng>,
    fixed: Vec<(u64, u64)>,
}

impl Hostile {
    fn new(offsets: &Offsets, seed: u64) -> Hostile {
        let thread = &offsets.thread;
        let gil = match offsets.gil.place {
            GilPlace::Runtime(offset) => RUNTIME + u64::from(offset),
            GilPlace::Interpreter(_) => GIL,
        };
        let at = |base: u64, offset: u32| base + u64::from(offset);
        let mut fixed = vec![
            (at(RUNTIME, offsets.interpreters_head), INTERPRETER),
            (at(INTERPRETER, offsets.interpreter.next), 0),
            (at(INTERPRETER, offsets.interpreter.threads_head), THREAD),
            (at(THREAD, thread.prev), 0),
            (at(THREAD, thread.next), 0),
            (at(THREAD, thread.interp), INTERPRETER),
            (at(THREAD, thread.thread_id), 77),
            (at(gil, offsets.gil.last_holder), THREAD),
            (at(gil, offsets.gil.switch_number), 5),
        ];
        if let GilPlace::Interpreter(offset) = offsets.gil.place {
            fixed.push((at(INTERPRETER, offset), GIL));
        }
        Hostile {
            random: RefCell::new(StdRng::seed_from_u64(seed)),
            fixed,
        }
    }

    fn fill(&self, address: u64, into: &mut [u8]) {
        let mut random = self.random.borrow_mut();
        random.fill_bytes(into);
        for word in into.chunks_exact_mut(8) {
            let value: u64 = match random.random_range(0..10) {
                0 => 0,
                1 => random.random_range(0..300),
                2 => u64::MAX - random.random_range(0..64),
                3 => continue,
                4 => 1 << random.random_range(0..64),
                5 => CODE_TYPE,
                _ => HEAP + 8 * random.random_range(0..512),
            };
            word.copy_from_slice(&value.to_ne_bytes());
        }
        for (place, value) in &self.fixed {
            if let Some(offset) = place.checked_sub(address)
                && let Some(word) = into.get_mut(offset as usize..offset as usize + 8)
            {
                word.copy_from_slice(&value.to_ne_bytes());
            }
        }
    }
}

impl Memory for Hostile {
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Unreadable> {
        if self.random.borrow_mut().random_range(0..200) == 0 {
            return Err(Unreadable::Nowhere);
        }
        self.fill(address, into);
        Ok(())
    }

    fn read_ranges(&self, ranges: &[Range], into: &mut [u8]) -> Result<usize, Unreadable> {
        let mut done = 0;
        for range in ranges {
            self.fill(range.address as u64, &mut into[done..done + range.length]);
            done += range.length;
        }
        Ok(done)
    }
}

#[test]
fn nonsense_in_memory_costs_neither_a_panic_nor_much_time() {
    let builds = tables::MINORS.flat_map(|minor| [(minor, false), (minor, true)]);
    for (minor, free_threaded) in builds {
        let Some(offsets) = tables::for_build(3, minor, free_threaded) else {
            continue;
        };
        let started = Instant::now();
        for seed in 0..20 {
            let runtime = Runtime {
                address: RUNTIME,
                version: Version {
                    major: 3,
                    minor,
                    patch: 0,
                    suffix: String::new(),
                    free_threaded,
                },
                code_type: Some(CODE_TYPE),
                rseq: None,
                head: Vec::new(),
                others: Vec::new(),
            };
            let options = FastOptions {
                cross_cpu: true,
                tasks: true,
                ..FastOptions::default()
            };
            let pid = Pid(std::process::id() as i32);
            let memory = Hostile::new(&offsets, seed);
            let mut reader = FastReader::new(pid, memory, offsets, &runtime, options);
            let mut tables = Tables::default();
            let mut stacks = ThreadStacks::default();
            let mut tasks = TaskStacks::default();
            for _ in 0..50 {
                // Whether nonsense is refused or taken for a stack: it must do no harm.
                let _ = reader.read(&mut tables, &mut stacks);
                let _ = reader.read_tasks(&mut tables, &stacks, &mut tasks, false);
            }
            assert!(reader.threads.len() <= 1);
            assert!(tables.strings().iter().all(|text| text.len() < 20_000));
        }
        assert!(started.elapsed() < Duration::from_secs(60), "3.{minor}");
    }
}
