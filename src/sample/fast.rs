//! Our own stack reader, for CPython 3.8 to 3.15: one vectored read a sample, decoded here; the target is not
//! stopped.
//!
//! Only the thread that holds the GIL can change Python stacks. So we move to the CPU on which the last holder
//! runs: while we are there it is not, and one copy shows all stacks as they are at that instant. The copy ends
//! with the words of the lock and the number of the CPU, which prove that this was so. A thread that cannot have
//! held the lock since its stack was read is not read again. Where the CPU may not be shared, a copy is taken from
//! another one and called approximate.

mod attempt;
mod awaits;
mod callbacks;
mod codes;
mod compose;
mod current;
mod decode;
mod handled;
mod hold;
#[cfg(test)]
mod hostile;
mod interrupts;
mod lists;
mod lock;
mod names;
mod presence;
mod tasks;
mod thread;
mod users;
mod window;

use std::time::{Duration, Instant};

use log::debug;

pub use codes::read_text;

use codes::Codes;
use handled::Handling;
use names::Naming;
use tasks::Tasks;
use thread::{RawFrame, Thread};
use window::Window;

use rustc_hash::FxHashSet;

use super::Watchable;
use super::builtins::Builtins;
use super::tasks::TaskStacks;
use super::{Fault, Interrupted, Sleeper, StackReader, ThreadStack, ThreadStacks};
use crate::error::{Error, ErrorKind, Result};
use crate::layout::debug_offsets::{self, Mismatch};
use crate::layout::{Offsets, tables};
use crate::profile::{FunctionId, Tables};
use crate::target::access;
use crate::target::cpu::Pin;
use crate::target::image::{Captured, Image};
use crate::target::locate::Version;
use crate::target::maps::Region;
use crate::target::memory::{Live, Memory, Range, Stopper, Unreadable};
use crate::target::runtime::{self, Runtime};
use crate::target::threads::Threads;
use crate::units::{Pid, Tid};

/// Why a target is not read on its own CPU, where that was not asked for.
const CLOSED_CPUS: &str = "the target's CPUs are not open to us";

/// Lists of threads in one sample before it is given up.
const MOST_LISTS: usize = 5;

/// How the target is kept from changing while it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stillness {
    /// We run on its CPU.
    SameCpu,
    /// Its threads are stopped, as far as they matter: see [`hold`].
    Stopped,
    /// Not at all.
    None,
    /// It is a core file.
    Dead,
}

/// What is known of a core file's process, and what of it is not there.
#[derive(Debug, Default)]
struct DeadTarget {
    regions: Vec<Region>,
    /// Whether the list of threads goes on where nothing can be read.
    lost_threads: bool,
    /// Idents of the threads of which frames are missing.
    lost_frames: FxHashSet<u64>,
}

/// What to keep in mind when reading.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FastOptions {
    /// Stop the target for each sample.
    pub blocking: bool,
    /// Stay away from the target's CPU: stacks are approximate.
    pub cross_cpu: bool,
    /// Leave C functions out.
    pub no_builtins: bool,
    /// Look at asyncio's tasks.
    pub tasks: bool,
    /// Look at which threads handle an exception.
    pub exceptions: bool,
    /// Read stacks in timer interrupts, so much CPU time apart, where that can be.
    pub interrupt_ns: Option<u64>,
    /// The same of a process in which threads run Python at the same time.
    pub parallel_interrupt_ns: Option<u64>,
}

/// A GIL and who had it when it was read last; where there is none, a thread that always has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Domain {
    address: u64,
    holder: u64,
    locked: bool,
    switches: u64,
    /// Whether the holder's interpreter was collecting garbage.
    collecting: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Interpreter {
    address: u64,
    /// 0 for the main one.
    id: u64,
    threads_head: u64,
    /// Address of the word that says whether garbage is being collected, and of that which says by which thread; 0 when it is
    /// not known.
    collecting: u64,
    collector: u64,
}

/// Reads stacks on its own.
#[derive(Debug)]
pub struct FastReader<M: Memory = Live> {
    pid: Pid,
    memory: M,
    offsets: Offsets,
    runtime: u64,
    /// Of Python 3.
    minor: u32,
    rseq: Option<i64>,
    stillness: Stillness,
    stopper: Option<Stopper>,
    why_approximate: Option<&'static str>,
    pin: Pin,
    os_threads: Threads,
    /// States of threads whose ids in the kernel are known; `None` where they have to be looked up.
    tids: Option<Vec<(u64, Tid)>>,
    interpreters: Vec<Interpreter>,
    domains: Vec<Domain>,
    threads: Vec<Thread>,
    /// Whether the list of threads has to be read, and how often it was.
    stale: bool,
    lists: u64,
    /// Whether there are threads whose names are not known for sure.
    unnamed: bool,
    naming: Naming,
    /// Whether `ThreadStacks` has to be arranged anew.
    rearrange: bool,
    codes: Codes,
    /// `None` where C functions are not shown.
    builtins: Option<Builtins>,
    /// `None` where asyncio's tasks are not looked at.
    tasks: Option<Tasks>,
    /// Which exceptions are handled, where that is looked at.
    handling: Option<Handling>,
    window: Window,
    /// The domain and holder that `window` is planned for.
    planned: Option<(usize, u64)>,
    /// Whether nobody but that holder is copied.
    alone: bool,
    /// Whether the words of the lock are among what is copied, not after it.
    lock_inside: bool,
    /// Where the interpreter of that holder says whether it collects garbage, and in which thread; 0 when that is not known.
    collecting: u64,
    collector: u64,
    frames: Vec<RawFrame>,
    /// Stacks that were decoded so far.
    version: u64,
    epoch: Instant,
    /// The sample in which the lists were read last.
    relisted_us: Option<u64>,
    /// When the users of other threads' states were looked for last.
    users_searched_us: Option<u64>,
    /// Reads beyond the first of a sample that nobody has asked for yet.
    retried: u64,
    /// Copies made for the sample so far.
    copies: u32,
    /// The version that is read, and those of other Pythons in the process, which are not.
    python: Version,
    others: Vec<Version>,
    /// Whether there were stacks with more frames than are followed.
    too_deep: bool,
    /// Frames of the longest stack that was followed.
    longest: usize,
    /// `None` for what lives.
    dead: Option<DeadTarget>,
    /// Where threads are read in their timer interrupts.
    interruptions: Option<Box<interrupts::Interruptions>>,
    /// Why they are not, where that was asked for.
    why_not_interrupted: Option<String>,
    /// Whether they ever were.
    was_interrupted: bool,
}

impl<'a> FastReader<&'a Image> {
    /// Opens a core file.
    pub fn of_core(captured: &'a Captured, options: FastOptions) -> Result<FastReader<&'a Image>> {
        // A process of this machine that has its id is another one.
        let pid = captured.pid.unwrap_or(Pid(0));
        let options = FastOptions {
            blocking: true,
            ..options
        };
        let mut reader = FastReader::over(pid, &captured.image, &captured.runtime, options)?;
        let dead = captured.dead.as_deref().cloned().unwrap_or_default();
        reader.os_threads = Threads::of_dead(&dead.threads);
        reader.stillness = Stillness::Dead;
        reader.codes.trusting = true;
        reader.dead = Some(DeadTarget {
            regions: dead.regions,
            ..DeadTarget::default()
        });
        Ok(reader)
    }
}

impl FastReader<Live> {
    /// Opens a process whose Python has started.
    pub fn open(pid: Pid, options: FastOptions) -> Result<(FastReader, Version)> {
        let memory = Live::new(pid);
        let runtime = runtime::find(pid, &memory)?;
        let mut reader = FastReader::over(pid, memory, &runtime, options)?;
        if options.blocking {
            let stopper = Stopper::new(pid).ok_or_else(|| crate::target::process::gone(pid))?;
            reader.stopper = Some(stopper);
        }
        reader.self_check()?;
        debug!("process {pid}: _PyRuntime at {:#x}", runtime.address);
        if let Some(period_ns) = options.interrupt_ns {
            reader.why_not_interrupted = reader.start_interrupts(period_ns).err();
        } else if let Some(period_ns) = options.parallel_interrupt_ns
            && reader.offsets.is_free_threaded()
        {
            // Where that cannot be, each thread is proved by itself from outside, which nobody has to be told.
            if let Err(why) = reader.start_interrupts(period_ns) {
                debug!("process {pid}: threads are not read in their timer interrupts: {why}");
            }
        }
        Ok((reader, runtime.version))
    }
}

/// Why `--async` cannot be done.
pub fn no_tasks(pid: Pid, version: &Version) -> Error {
    let why = match version.free_threaded {
        true => format!("Python {version} is a free-threaded build, in which they are not read"),
        false => format!(
            "stacks along await chains are shown from Python 3.11 on, and this is {version}"
        ),
    };
    Error::new(
        ErrorKind::NotAvailable,
        format!("cannot show the tasks of process {pid}"),
        why,
    )
    .hint("leave out --async: threads are shown as they are")
}

/// The offsets for a runtime; fails for versions that are not known and for blocks that do not agree.
fn offsets_for(pid: Pid, runtime: &Runtime) -> Result<Offsets> {
    let version = &runtime.version;
    let refused = |kind, why: String| Error::new(kind, format!("cannot read process {pid}"), why);
    let table = tables::for_build(version.major, version.minor, version.free_threaded);
    let table = table.ok_or_else(|| {
        let (first, last) = (tables::MINORS.start(), tables::MINORS.end());
        refused(
            ErrorKind::UnsupportedPython,
            format!("Python {version} is not known to our own reader (3.{first} to 3.{last} are)"),
        )
    })?;
    if debug_offsets::version_hex(&runtime.head).is_none() && version.minor < 13 {
        return Ok(table);
    }
    debug_offsets::apply(&runtime.head, version.minor, table).map_err(|mismatch| {
        let why = match mismatch {
            Mismatch::NoCookie => "has no block of debug offsets".to_string(),
            Mismatch::FreeThreaded => "is a free-threaded build".to_string(),
            Mismatch::UnknownVersion => {
                "has a block of debug offsets that is not known".to_string()
            }
            Mismatch::Field(name) => format!("differs from its table in {name}"),
        };
        refused(
            ErrorKind::UnsupportedPython,
            format!("Python {version} {why}"),
        )
    })
}

impl<M: Memory> FastReader<M> {
    /// Reads `memory`, which may be a copy; names of threads and the CPUs to follow are those of `pid`. Nothing is
    /// stopped, and nothing is read yet. Fails for Pythons that are not known.
    pub fn over(
        pid: Pid,
        memory: M,
        runtime: &Runtime,
        options: FastOptions,
    ) -> Result<FastReader<M>> {
        let offsets = offsets_for(pid, runtime)?;
        if options.tasks && offsets.coroutine.is_none() {
            return Err(no_tasks(pid, &runtime.version));
        }
        Ok(FastReader::new(pid, memory, offsets, runtime, options))
    }

    fn new(
        pid: Pid,
        memory: M,
        offsets: Offsets,
        runtime: &Runtime,
        options: FastOptions,
    ) -> FastReader<M> {
        let mut pin = Pin::new();
        let (stillness, why_approximate) = if options.blocking {
            (Stillness::Stopped, None)
        } else if options.cross_cpu {
            (
                Stillness::None,
                Some("the rate is too high to share the target's CPU"),
            )
        } else if !pin.may_follow(pid) {
            (Stillness::None, Some(CLOSED_CPUS))
        } else {
            (Stillness::SameCpu, None)
        };
        FastReader {
            pid,
            memory,
            offsets,
            runtime: runtime.address,
            minor: runtime.version.minor,
            rseq: runtime.rseq,
            stillness,
            stopper: None,
            why_approximate,
            pin,
            os_threads: Threads::new(pid),
            tids: None,
            interpreters: Vec::new(),
            domains: Vec::new(),
            threads: Vec::new(),
            stale: true,
            lists: 0,
            unnamed: true,
            naming: Naming::default(),
            rearrange: true,
            codes: Codes::new(offsets, runtime.code_type),
            tasks: offsets.coroutine.filter(|_| options.tasks).map(Tasks::new),
            handling: options.exceptions.then(Handling::default),
            builtins: (!options.no_builtins).then(|| Builtins::new(offsets)),
            window: Window::default(),
            planned: None,
            alone: false,
            lock_inside: false,
            collecting: 0,
            collector: 0,
            frames: Vec::new(),
            version: 0,
            epoch: Instant::now(),
            relisted_us: None,
            users_searched_us: None,
            retried: 0,
            copies: 0,
            python: runtime.version.clone(),
            others: runtime.others.clone(),
            too_deep: false,
            longest: 0,
            dead: None,
            interruptions: None,
            why_not_interrupted: None,
            was_interrupted: false,
        }
    }

    /// What the last sample copied in one system call: for measurements of how near to that a sample is.
    pub fn ranges(&self) -> &[Range] {
        self.window.ranges()
    }

    /// Whether Python has been initialised and not yet finalised.
    fn is_initialized(&self) -> bool {
        let offset = self.offsets.interpreters_head - self.offsets.initialized;
        let address = self.runtime.checked_add(offset.into());
        let word = address.and_then(|address| self.memory.read_word(address).ok());
        word.is_some_and(|word| word as u32 == 1)
    }

    /// A first read: some thread has a stack that ends where stacks end. Without one the offsets are not right, or Python
    /// is still starting; unless it says that it has started, and is in C just now that another program called it from.
    fn self_check(&mut self) -> Result<()> {
        let mut tables = Tables::default();
        let mut stacks = ThreadStacks::default();
        let mut outcome = Err(Fault::Torn);
        for _ in 0..20 {
            outcome = self.read(&mut tables, &mut stacks);
            if outcome != Err(Fault::Torn) {
                break;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        let has_frames = |thread: &ThreadStack| !thread.frames.is_empty();
        let found =
            outcome.is_ok() && (stacks.threads.iter().any(has_frames) || self.is_initialized());
        // Ids of `tables` must not be used in another one.
        self.codes = Codes::new(self.offsets, self.codes.code_type());
        if let Some(builtins) = &mut self.builtins {
            *builtins = Builtins::new(self.offsets);
        }
        self.threads.clear();
        (self.stale, self.rearrange, self.planned) = (true, true, None);
        self.naming = Naming::default();
        self.retried = 0;
        if found {
            return Ok(());
        }
        let kind = match outcome {
            Err(Fault::Gone) => ErrorKind::ProcessEnded,
            Err(Fault::Denied) => return Err(access::refused(self.pid)),
            _ => ErrorKind::Failed,
        };
        let why = match self.too_deep {
            true => format!(
                "its stack has more than {} frames, which are not read",
                thread::DEEPEST
            ),
            false if self.longest > thread::DEEP => format!(
                "a stack of {} frames was not found standing still for as long as it takes to copy",
                self.longest
            ),
            false => "its Python has no readable stack (still starting?)".to_string(),
        };
        Err(Error::new(
            kind,
            format!("cannot read process {}", self.pid),
            why,
        ))
    }
}

fn fault(error: Unreadable) -> Fault {
    match error {
        Unreadable::Nowhere => Fault::Torn,
        Unreadable::Gone => Fault::Gone,
        Unreadable::Denied => Fault::Denied,
    }
}

impl<M: Memory> StackReader for FastReader<M> {
    /// `tables` must be the same at every call.
    fn read(&mut self, tables: &mut Tables, stacks: &mut ThreadStacks) -> Result<(), Fault> {
        let now_us = self.epoch.elapsed().as_micros() as u64;
        let heads = self.codes.heads();
        let objects = self.builtins.iter_mut().flat_map(Builtins::heads);
        self.window.set_extras(heads.chain(objects));
        let mut held = self.hold(stacks)?;
        self.look_for_changes()?;
        if self.codes.trim() {
            for thread in &mut self.threads {
                thread.raw.clear();
                (thread.dirty, thread.slices) = (true, None);
            }
            self.planned = None;
        }
        if self.stale {
            self.relist()?;
            for thread in &mut self.threads {
                (thread.dirty, thread.slices) = (true, None);
            }
        }
        if self.rearrange || stacks.threads.len() != self.threads.len() {
            self.arrange(stacks);
        }
        let (mut domain, mut again) = (0, 0);
        while domain < self.domains.len() {
            let lists = self.lists;
            self.read_domain(domain, tables, stacks, &mut held, now_us)?;
            domain += 1;
            if lists != self.lists && self.offsets.is_free_threaded() {
                // They are others now.
                (domain, again) = (0, again + 1);
                if again > MOST_LISTS {
                    return Err(Fault::Torn);
                }
            }
        }
        self.name_threads(stacks, now_us);
        if self.interpreters.len() > 1 {
            self.tell_interpreters(tables, stacks, now_us);
        }
        for (thread, stack) in self.threads.iter().zip(&mut stacks.threads) {
            let lock = self.domains.get(thread.domain);
            let runs = lock.is_some_and(|lock| lock.locked && lock.holder == thread.address);
            let without_lock = self.offsets.is_free_threaded();
            (stack.holds_gil, stack.attached) = (runs && !without_lock, runs && without_lock);
            stack.collects = runs && lock.is_some_and(|lock| lock.collecting);
            // Whoever runs is there, whatever its ids say: it may be the state of another thread that this one uses.
            stack.gone &= !runs;
        }
        Ok(())
    }

    fn read_tasks(
        &mut self,
        tables: &mut Tables,
        threads: &ThreadStacks,
        stacks: &mut TaskStacks,
        at_rest: bool,
    ) -> Result<(), Fault> {
        self.look_at_tasks(tables, threads, stacks, at_rest)
    }

    fn is_interrupting(&self) -> bool {
        self.interruptions.is_some()
    }

    fn next_interrupt(
        &mut self,
        tables: &mut Tables,
        stacks: &mut ThreadStacks,
    ) -> Option<Interrupted> {
        self.take_interrupt(tables, stacks)
    }

    fn read_sleepers(
        &mut self,
        tables: &mut Tables,
        stacks: &mut ThreadStacks,
        sleepers: &mut Vec<Sleeper>,
    ) -> Result<(), Fault> {
        self.look_at_sleeping(tables, stacks, sleepers)
    }

    fn describe(&self) -> String {
        if self.interruptions.is_some() {
            return "own reader, in the timer interrupts of the threads".to_string();
        }
        match (self.stillness, self.why_approximate) {
            (Stillness::SameCpu, _) if self.offsets.is_free_threaded() => {
                "own reader, on the CPU of each thread".to_string()
            }
            (Stillness::SameCpu, _) => "own reader, on the CPU of the GIL's holder".to_string(),
            (Stillness::Stopped, _) => "own reader, target stopped for each sample".to_string(),
            (Stillness::Dead, _) => "own reader, of a core file".to_string(),
            (Stillness::None, why) => format!(
                "own reader, from another CPU ({}): approximate stacks",
                why.unwrap_or("the target's CPU may not be shared")
            ),
        }
    }

    fn caveats(&self) -> Vec<String> {
        let pid = self.pid;
        let closed = self.why_approximate.filter(|why| *why == CLOSED_CPUS);
        let approximate = closed.map(|why| {
            format!("stacks are approximate: {why}, so process {pid} goes on while it is read")
        });
        let deep = self.too_deep.then(|| {
            format!(
                "process {pid} had stacks of more than {} frames, which are not read: their time is missing",
                thread::DEEPEST
            )
        });
        let others = self
            .others
            .iter()
            .map(|other| runtime::second(pid, other, &self.python));
        let lost_threads = self.dead.as_ref().filter(|dead| dead.lost_threads);
        let lost_threads = lost_threads.map(|_| {
            "the core file lacks a part of the list of threads: more are there than are shown"
                .to_string()
        });
        let lost = self.dead.as_ref().map_or(0, |dead| dead.lost_frames.len());
        let lost_frames = (lost > 0).then(|| {
            format!("of {lost} threads there are frames that are not shown: the core file lacks what they need")
        });
        let otherwise = self.why_not_interrupted.as_ref().map(|why| {
            format!(
                "threads are not read in their timer interrupts: {why}; they are read from outside"
            )
        });
        let doubtful = self.is_doubtful().then(|| {
            "the program drops code objects: a stack that was read in a timer interrupt may have the name of a function that was gone".to_string()
        });
        deep.into_iter()
            .chain(otherwise)
            .chain(doubtful)
            .chain(approximate)
            .chain(others)
            .chain(lost_threads)
            .chain(lost_frames)
            .collect()
    }

    fn take_retried(&mut self) -> u64 {
        std::mem::take(&mut self.retried)
    }

    fn is_exact(&self) -> bool {
        (self.interruptions.is_some() || self.stillness != Stillness::None) && !self.is_doubtful()
    }

    fn watchable(&mut self, code: u32, function: FunctionId) -> Option<Watchable> {
        match code.checked_sub(1) {
            Some(index) => self.codes.watchable(&self.memory, index),
            None => self.builtins.as_ref()?.watchable(&self.memory, function),
        }
    }

    fn leads(&mut self, code: u32, from: u32, to: u32) -> bool {
        self.codes.leads_to(&self.memory, code, from, to)
    }

    fn repeats(&mut self, code: u32, unit: u32) -> bool {
        self.codes.repeats(&self.memory, code, unit)
    }
}
