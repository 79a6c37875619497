//! Bursts: windows of many snapshots of the thread that has the GIL, taken from another CPU, to count calls that are
//! shorter than a sampling period.
//!
//! The closest snapshots are copied in one system call; the wider ones are timed one by one. A snapshot is the word
//! that says where the innermost frame is and a piece of the data stack, which the target may change meanwhile:
//! one that makes no stack (frames that are not adjacent, callers that are not at a call) is left out, and frames
//! further in than the innermost one after the copy are cut off. The stack is read as a whole just before, by a
//! reader of its own, so that code objects are known by then.

mod decoding;
mod pace;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::codes::Codes;
use super::thread::RawFrame;
use super::{FastOptions, FastReader, fault};
use crate::error::{ErrorKind, Result};
use crate::layout::{self, CurrentFrame, at};
use crate::profile::Tables;
use crate::profile::calls::SPACINGS;
use crate::sample::bursts::{Harvest, SeenFrame, Snapshot, Tally, ThreadKey, Ways, Weight};
use crate::sample::clock::Clock;
use crate::sample::{Fault, StackReader, ThreadStacks};
use crate::target::cpu;
use crate::target::memory::{MOST_RANGES, Memory, Range};
use crate::units::{Pid, Rate};
use decoding::{Current, Decoding, cut};
use pace::Pace;

/// Bursts a second.
const RATE_HZ: f64 = 100.0;

/// Of the bursts that would look at a process at rest only every so many is taken, and counts for all of them: a process
/// that sleeps must not cost what one that works does.
const AT_REST: u64 = 32;

/// After a look at a process at rest the next one is drawn from so many periods together, and stands for all of them,
/// whatever it shows.
const STRETCH: u32 = 8;

/// How the windows of one spacing are taken.
struct Manner {
    /// Snapshots of a window; one more than a multiple of four.
    snapshots: usize,
    /// From one to the next; 0 for as close as one system call can.
    spacing_ns: u64,
    /// Innermost frames and bytes of the data stack that are copied.
    frames: usize,
    bytes: u64,
    /// Copied beyond the innermost frame, for calls that follow.
    slack: u64,
}

/// By spacing. A snapshot costs the target 0.1 to 0.25 us: with 50 bursts a second less than a quarter of a percent in all.
const MANNERS: [Manner; SPACINGS] = [
    Manner {
        snapshots: 65,
        spacing_ns: 0,
        frames: 8,
        bytes: 640,
        slack: 256,
    },
    Manner {
        snapshots: 33,
        spacing_ns: 4_000,
        frames: 8,
        bytes: 640,
        slack: 256,
    },
    Manner {
        snapshots: 17,
        spacing_ns: 16_000,
        frames: 4096,
        bytes: 32 << 10,
        slack: 1024,
    },
    Manner {
        snapshots: 25,
        spacing_ns: 100_000,
        frames: 4096,
        bytes: 32 << 10,
        slack: 1024,
    },
];

/// Time before a snapshot that is spun, not slept: a sleeper may wake so late.
const SPIN_NS: u64 = 8_000;

/// Up to this spacing snapshots have to come on time.
const FINE_NS: u64 = 50_000;

/// Snapshots of one system call that are so many times further apart than the closest ones have been interrupted.
const INTERRUPTED: u64 = 2;

/// Closest snapshots are about that far apart at most.
const CLOSE_NS: u64 = 2_000;

/// Most frames outside of the data stack (of generators) that are copied, and most C frames known to hold a current
/// frame (3.11, 3.12).
const MOST_LOOSE: usize = 6;
const MOST_CFRAMES: usize = 3;

/// Bursts for which a C frame is remembered.
const CFRAME_BURSTS: u64 = 3;

/// How long a Python may take to become readable.
const OPENING: Duration = Duration::from_secs(10);

/// Tries to read the stack before a burst.
const ATTEMPTS: usize = 4;

/// What a window copies, and how to understand it.
#[derive(Debug, Default)]
struct Plan {
    thread: u64,
    key: Option<ThreadKey>,
    /// Where the innermost frame may be told (3.11, 3.12).
    cframes: Vec<u64>,
    /// The part of the data stack, then frames outside of it.
    pieces: Vec<Range>,
    /// The frame at which snapshots begin, and its caller, which is taken to stand still.
    lowest: u64,
    caller: Option<SeenFrame>,
    /// Everything that one snapshot copies, and its size.
    ranges: Vec<Range>,
    size: usize,
}

/// `struct _gil_runtime_state`.
#[derive(Debug, Clone, Copy)]
struct LockWords {
    /// Thread state that holds it or held it last.
    holder: u64,
    /// Changes when another thread takes it.
    switches: u64,
    locked: bool,
}

/// Takes bursts.
#[derive(Debug)]
struct Burster<M: Memory> {
    reader: FastReader<M>,
    tables: Tables,
    stacks: ThreadStacks,
    tally: Tally,
    pace: Pace,
    plan: Plan,
    buffer: Vec<u8>,
    times: Vec<(u64, u64)>,
    snapshots: Vec<Snapshot>,
    /// C frames that held the current frame lately, with the burst in which that was seen last.
    cframes: Vec<(u64, u64)>,
    bursts: u64,
    /// Periods that bursts stood for which found the process at rest, since the last of them that was taken.
    rests: u64,
    /// Periods that the next burst stands for.
    stands_for: u32,
    /// Holder and switches of the lock and the holder's time slices, at the burst before.
    seen: (u64, u64, Option<u64>),
    avoided: Option<u32>,
    closest_ns: u64,
    now_us: u64,
}

/// A thread that takes bursts.
#[derive(Debug)]
pub struct Bursting {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Option<Harvest>>,
}

impl Bursting {
    /// Begins; `None` when no thread can be started.
    pub fn start(pid: Pid, no_builtins: bool) -> Option<Bursting> {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let stop = stop.clone();
            std::thread::Builder::new()
                .name(format!("bursts {pid}"))
                // A Python that we do not know, or one that has ended: samples alone count calls then.
                .spawn(move || run(pid, no_builtins, &stop).ok().flatten())
        };
        Some(Bursting {
            stop,
            thread: thread.ok()?,
        })
    }

    /// Ends; what was gathered, if bursts were possible.
    pub fn finish(self) -> Option<Harvest> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.thread().unpark();
        self.thread.join().ok().flatten()
    }
}

/// Takes bursts of the process until `stop` is set or it is gone. `None` where that is not possible: too few CPUs, or
/// a version whose frames are objects on the heap.
fn run(pid: Pid, no_builtins: bool, stop: &AtomicBool) -> Result<Option<Harvest>> {
    let options = FastOptions {
        blocking: false,
        cross_cpu: true,
        no_builtins,
        tasks: false,
    };
    cpu::unpin();
    let started = Instant::now();
    let reader = loop {
        match FastReader::open(pid, options) {
            Ok((reader, _)) => break reader,
            // Still starting, when it has just been started.
            Err(error) if error.kind() == ErrorKind::Failed && started.elapsed() < OPENING => {
                if stop.load(Ordering::Relaxed) {
                    return Ok(None);
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => return Err(error),
        }
    };
    if reader.offsets.thread.stack.is_none() || reader.offsets.opcodes.is_none() {
        return Ok(None);
    }
    let mut burster = Burster::new(reader);
    // What was before is in no window.
    let started = Instant::now();
    let mut clock = Clock::new(Rate::Hz(RATE_HZ), false);
    while clock.wait(stop) {
        let taken = burster.burst();
        clock.stretch(burster.stands_for);
        match taken {
            Ok(true) | Err(Fault::Torn) => {}
            Ok(false) => return Ok(None),
            Err(Fault::Gone | Fault::Denied) => break,
        }
    }
    burster.tally.scale(burster.pace.certainty());
    Ok(Some(Harvest {
        tally: burster.tally,
        tables: burster.tables,
        duration_us: started.elapsed().as_micros() as u64,
    }))
}

impl<M: Memory> Burster<M> {
    fn new(reader: FastReader<M>) -> Burster<M> {
        Burster {
            reader,
            tables: Tables::default(),
            stacks: ThreadStacks::default(),
            tally: Tally::default(),
            pace: Pace::default(),
            plan: Plan::default(),
            buffer: Vec::new(),
            times: Vec::new(),
            snapshots: Vec::new(),
            cframes: Vec::new(),
            bursts: 0,
            rests: 0,
            stands_for: 1,
            seen: (0, 0, None),
            avoided: None,
            closest_ns: CLOSE_NS,
            now_us: 0,
        }
    }

    /// One window of each spacing; false when there is no CPU to take them from.
    fn burst(&mut self) -> Result<bool, Fault> {
        self.bursts += 1;
        let weight = self.weight()?;
        if weight == 0 {
            return Ok(true);
        }
        for (spacing, manner) in MANNERS.iter().enumerate() {
            let Some(passed) = self.pace.due(spacing) else {
                continue;
            };
            let mut learnt = Err(Fault::Torn);
            for _ in 0..ATTEMPTS {
                learnt = self.learn(manner);
                if learnt != Err(Fault::Torn) {
                    break;
                }
            }
            learnt?;
            if !self.keep_away() {
                return Ok(false);
            }
            if self.take(manner)? {
                self.decode(spacing, manner, weight.saturating_mul(passed));
            }
        }
        Ok(true)
    }

    /// What this burst stands for; 0 when it is left out. At rest is a process whose lock is free and whose last holder
    /// has not been on a CPU since the burst before.
    fn weight(&mut self) -> Result<Weight, Fault> {
        let lock = self.lock()?;
        let slices = self.plan.key.and_then(|key| {
            let tid = i32::try_from(key.os_id).ok()?;
            let tid = self.reader.os_threads.resolve(tid)?;
            Some(self.reader.os_threads.activity(tid, None)?.slices)
        });
        let seen = (lock.holder, lock.switches, slices);
        let same = std::mem::replace(&mut self.seen, seen) == seen;
        let stands_for = std::mem::replace(&mut self.stands_for, 1).into();
        if lock.locked || !same || slices.is_none() {
            return Ok(stands_for);
        }
        self.stands_for = STRETCH;
        self.rests += stands_for;
        if self.rests < AT_REST {
            return Ok(0);
        }
        Ok(std::mem::take(&mut self.rests))
    }

    /// Reads the stack of the thread that has the lock or had it last, and plans what to copy of it.
    fn learn(&mut self, manner: &Manner) -> Result<(), Fault> {
        self.reader.read(&mut self.tables, &mut self.stacks)?;
        self.now_us = self.reader.epoch.elapsed().as_micros() as u64;
        let offsets = &self.reader.offsets;
        let lock = self.reader.domains.first().ok_or(Fault::Torn)?;
        let thread = self
            .reader
            .threads
            .iter()
            .position(|thread| thread.address == lock.holder)
            .ok_or(Fault::Torn)?;
        let os_id = self.stacks.threads.get(thread).map_or(0, |s| s.os_id);
        let thread = self.reader.threads.get(thread).ok_or(Fault::Torn)?;
        let cframe = thread.cframe();
        let stack = thread.newest_chunk();
        let inside = |address: u64| stack.contains(&address);
        self.plan.thread = thread.address;
        self.plan.key = Some(ThreadKey {
            python_id: thread.ident,
            os_id,
        });
        let bursts = self.bursts;
        remember(&mut self.cframes, cframe, bursts);

        let raw = &thread.raw;
        let top = raw.iter().rev().find(|frame| inside(frame.address));
        let Some(top) = top.map(|frame| frame.address) else {
            return Err(Fault::Torn);
        };
        let reaches = |frame: &&RawFrame| {
            !inside(frame.address) || frame.address.saturating_add(manner.bytes) >= top
        };
        let within = raw.iter().rev().take(manner.frames).take_while(reaches);
        let mut first = raw.len() - within.count();
        // Begin on the data stack.
        while raw.get(first).is_some_and(|frame| !inside(frame.address)) {
            first += 1;
        }
        let lowest = raw.get(first).ok_or(Fault::Torn)?;
        self.plan.lowest = lowest.address;
        let caller = first.checked_sub(1).and_then(|caller| raw.get(caller));
        let codes = &mut self.reader.codes;
        let size = |codes: &mut Codes, tables: &mut Tables, frame: &RawFrame| {
            let id = codes.find(&self.reader.memory, tables, frame.code, self.now_us)?;
            Some((id, codes.frame_size(id)?))
        };
        self.plan.caller = None;
        if let Some(caller) = caller {
            let (id, _) = size(codes, &mut self.tables, caller).ok_or(Fault::Torn)?;
            self.plan.caller = codes.function(id).map(|function| SeenFrame {
                invocation: caller.address,
                function,
                code: id.index(),
                unit: 0,
                locals: 0,
            });
        }
        let end = top.saturating_add(manner.slack).min(stack.end);
        self.plan.pieces.clear();
        self.plan.pieces.push(Range {
            address: lowest.address as usize,
            length: end.saturating_sub(lowest.address) as usize,
        });
        let loose = raw.iter().skip(first).rev().filter(|f| !inside(f.address));
        for frame in loose.take(MOST_LOOSE) {
            if let Some((_, bytes)) = size(codes, &mut self.tables, frame) {
                self.plan.pieces.push(Range {
                    address: frame.address as usize,
                    length: bytes as usize,
                });
            }
        }
        let word = |address: u64| Range {
            address: address as usize,
            length: 8,
        };
        self.plan.ranges.clear();
        self.plan.cframes.clear();
        match offsets.thread.current {
            CurrentFrame::Thread(offset) => {
                let current = word(thread.address.wrapping_add(u64::from(offset)));
                self.plan.ranges.push(current);
            }
            CurrentFrame::CFrame {
                cframe, current, ..
            } => {
                let pointer = word(thread.address.wrapping_add(u64::from(cframe)));
                self.plan.ranges.push(pointer);
                for (known, _) in &self.cframes {
                    let current = word(known.wrapping_add(u64::from(current)));
                    self.plan.ranges.push(current);
                    self.plan.cframes.push(*known);
                }
            }
        }
        let words = self.plan.ranges.clone();
        self.plan.ranges.extend_from_slice(&self.plan.pieces);
        if manner.spacing_ns != 0 {
            // Where several go into one copy, the next one's words do as well.
            self.plan.ranges.extend(words);
        }
        self.plan.size = self.plan.ranges.iter().map(|range| range.length).sum();
        Ok(())
    }

    /// Moves off the CPU of the target: from there it would be seen to stand still. False when there is no other.
    fn keep_away(&mut self) -> bool {
        let Some(cpu) = self.target_cpu() else {
            return true;
        };
        if self.avoided != Some(cpu) {
            if !self.reader.pin.keep_off(cpu) {
                return false;
            }
            self.avoided = Some(cpu);
        }
        true
    }

    fn target_cpu(&mut self) -> Option<u32> {
        let key = self.plan.key?;
        if let Some(offset) = self.reader.rseq {
            let address = key.python_id.checked_add_signed(offset)?.checked_add(4)?;
            let mut bytes = [0; 4];
            self.reader.memory.read(address, &mut bytes).ok()?;
            if let Ok(cpu) = u32::try_from(i32::from_ne_bytes(bytes)) {
                return Some(cpu);
            }
        }
        let tid = self
            .reader
            .os_threads
            .resolve(i32::try_from(key.os_id).ok()?)?;
        cpu::last_cpu(self.reader.pid, tid)
    }

    /// Takes one window; false when it is of no use.
    fn take(&mut self, manner: &Manner) -> Result<bool, Fault> {
        let lock = self.lock()?;
        let size = self.plan.size;
        self.buffer.resize(size * manner.snapshots, 0);
        self.times.clear();
        let epoch = self.reader.epoch;
        let now_ns = || epoch.elapsed().as_nanos() as u64;
        if manner.spacing_ns == 0 {
            let count = (MOST_RANGES / self.plan.ranges.len().max(1)).min(manner.snapshots);
            let mut ranges = Vec::with_capacity(count * self.plan.ranges.len());
            for _ in 0..count {
                ranges.extend_from_slice(&self.plan.ranges);
            }
            let Some(buffer) = self.buffer.get_mut(..size * count) else {
                return Ok(false);
            };
            // The first copy brings the ranges into our caches.
            let warm = self.plan.ranges.len();
            let _ = self
                .reader
                .memory
                .read_ranges(ranges.get(..warm).unwrap_or_default(), buffer);
            let started = now_ns();
            let copied = self
                .reader
                .memory
                .read_ranges(&ranges, buffer)
                .map_err(fault)?;
            let took = now_ns().saturating_sub(started);
            let each = took / count.max(1) as u64;
            self.closest_ns = self.closest_ns.min(each.max(1));
            if copied != buffer.len() || each > INTERRUPTED * self.closest_ns {
                return Ok(false);
            }
            let time = |at: usize| started + each * at as u64;
            self.times
                .extend((0..count).map(|at| (time(at), time(at) + each)));
        } else {
            let mut due = now_ns();
            for place in self
                .buffer
                .chunks_exact_mut(size.max(1))
                .take(manner.snapshots)
            {
                loop {
                    let now = now_ns();
                    if now >= due {
                        break;
                    }
                    if manner.spacing_ns > FINE_NS {
                        // When it really was is noted; to be late is no harm.
                        std::thread::sleep(Duration::from_nanos(due - now));
                    } else if due - now > SPIN_NS {
                        std::thread::sleep(Duration::from_nanos(due - now - SPIN_NS / 2));
                    } else {
                        std::hint::spin_loop();
                    }
                }
                let before = now_ns();
                let copied = self.reader.memory.read_ranges(&self.plan.ranges, place);
                if copied.map_err(fault)? != place.len() {
                    return Ok(false);
                }
                self.times.push((before, now_ns()));
                due = due.max(before.saturating_sub(manner.spacing_ns / 2)) + manner.spacing_ns;
            }
        }
        // Another thread may have run meanwhile; and a target on our CPU has not run at all.
        let now = self.lock()?;
        let same = (now.holder, now.switches) == (lock.holder, lock.switches);
        Ok(same
            && self
                .target_cpu()
                .is_none_or(|cpu| self.avoided == Some(cpu)))
    }

    /// The words of the lock.
    fn lock(&self) -> Result<LockWords, Fault> {
        let lock = self.reader.domains.first().ok_or(Fault::Torn)?;
        let gil = &self.reader.offsets.gil;
        let mut bytes = [0; 64];
        let room = bytes.get_mut(..at(gil.size)).ok_or(Fault::Torn)?;
        self.reader.memory.read(lock.address, room).map_err(fault)?;
        let word = |offset: u32| layout::word(&bytes, at(offset)).unwrap_or(0);
        Ok(LockWords {
            holder: word(gil.last_holder),
            switches: word(gil.switch_number),
            locked: layout::int(&bytes, at(gil.locked)) == Some(1),
        })
    }

    /// Decodes the copied snapshots and counts what they show.
    fn decode(&mut self, spacing: usize, manner: &Manner, weight: Weight) {
        let Some(key) = self.plan.key else {
            return;
        };
        let size = self.plan.size.max(1);
        let copies: Vec<&[u8]> = self
            .buffer
            .chunks_exact(size)
            .take(self.times.len())
            .collect();
        let mut missed = None;
        self.snapshots.clear();
        let longest_ns = 4 * manner.spacing_ns.max(CLOSE_NS);
        let mut decoder = Decoding {
            reader: &mut self.reader,
            tables: &mut self.tables,
            plan: &self.plan,
            now_us: self.now_us,
        };
        for (at, (copy, (before, after))) in copies.iter().zip(&self.times).enumerate() {
            if after.saturating_sub(*before) > longest_ns / 4 + 4 * CLOSE_NS {
                // We were interrupted.
                continue;
            }
            let later = if manner.spacing_ns == 0 {
                copies.get(at + 1).map(|next| decoder.current(next))
            } else {
                let words = 1 + decoder.plan.cframes.len();
                copy.get(copy.len().saturating_sub(8 * words)..)
                    .map(|words| decoder.current(words))
            };
            match decoder.current(copy) {
                Current::At(innermost) => {
                    let frames = decoder.frames(copy, innermost);
                    if let Some((frames, cut)) = frames.map(|f| cut(f, innermost, later)) {
                        self.snapshots.push(Snapshot {
                            at_ns: *before,
                            frames,
                            cut,
                        });
                    }
                }
                Current::Elsewhere(cframe) => missed = Some(cframe),
            }
        }
        if let Some(cframe) = missed {
            remember(&mut self.cframes, cframe, self.bursts);
        }
        let codes = &self.reader.codes;
        let news = self
            .tally
            .count(codes, key, spacing, &self.snapshots, longest_ns, weight);
        self.pace.note(spacing, news, weight);
    }
}

/// Puts a C frame first and drops those that have not been seen lately.
fn remember(cframes: &mut Vec<(u64, u64)>, cframe: u64, burst: u64) {
    cframes.retain(|(known, seen)| *known != cframe && seen + CFRAME_BURSTS > burst);
    if cframe != 0 {
        cframes.insert(0, (cframe, burst));
    }
    cframes.truncate(MOST_CFRAMES);
}

impl Ways for Codes {
    fn leads(&self, code: u32, from: u32, to: u32) -> bool {
        self.known_shape(code)
            .is_none_or(|shape| shape.leads(from, to))
    }
}
