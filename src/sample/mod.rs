//! Stacks over time: a [`StackReader`] reads the stacks of one process at one instant, [`session`] does so
//! again and again and fills a profile.

pub mod builtins;
pub mod calls;
pub mod choose;
pub mod clock;
mod collections;
pub mod counts;
pub mod dump;
pub mod fast;
pub mod interpreters;
pub mod pyspy;
pub mod rest;
pub mod session;
mod slot;
mod sources;
pub mod states;
pub mod tasks;
pub mod timings;
pub mod writers;

use std::time::Duration;

use crate::profile::{FrameId, FunctionId, Mode, Tables};
use crate::target::watchpoint::Access;
use crate::units::Rate;

/// One frame of a stack that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameSample {
    /// Function and running line.
    pub frame: FrameId,
    /// What tells two invocations apart, such as the frame's address; 0 when the reader cannot say.
    pub invocation: u64,
    /// Index of the running instruction, where the reader can say; other readers give 0.
    pub instruction: u32,
    /// Code object, where the reader can say, for [`StackReader::leads`]; 0 otherwise.
    pub code: u32,
    /// Whether C code called the function, not another Python function by the interpreter's own loop; true where the
    /// reader cannot say.
    pub from_c: bool,
}

/// The stack of one Python thread.
#[derive(Debug, Clone, Default)]
pub struct ThreadStack {
    /// `threading.get_ident()`.
    pub python_id: u64,
    /// OS thread id in the target's PID namespace; 0 when it is not known. Readers that take it from Python alone may give
    /// one that is another process's: see [`crate::target::threads::Threads::identify`].
    pub os_id: u64,
    /// Whether no thread of the process is behind it: it ended, or stayed in the process that this one was forked from.
    pub gone: bool,
    /// Name, when `threading` knows one.
    pub name: Option<String>,
    /// In which interpreter its frames are, and where its own stack continues another interpreter's; `None` for the main
    /// interpreter, and where the reader cannot say. See [`interpreters`].
    pub inside: Option<interpreters::Inside>,
    /// Whether it held the GIL.
    pub holds_gil: bool,
    /// Whether it ran Python without one: in free-threaded builds each thread says so for itself.
    pub attached: bool,
    /// Whether it held the GIL while its interpreter was collecting garbage, or, where there is none, was the one that collected.
    pub collects: bool,
    /// Whether it handled an exception; false where that is not looked at.
    pub handles: bool,
    /// Addresses of the lock that it needs; empty when the reader does not know, or there is none.
    pub gil: std::ops::Range<u64>,
    /// Equal numbers in two samples mean that the thread has run no Python in between: it was not read again. 0 when
    /// the reader cannot say.
    pub version: u64,
    /// Frames, outermost first; may be empty.
    pub frames: Vec<FrameSample>,
}

impl ThreadStack {
    /// Whether it ran Python, as far as Python says.
    pub fn runs_python(&self) -> bool {
        self.holds_gil || self.attached
    }
}

/// What has to be watched to count the calls of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watchable {
    /// Where.
    pub address: u64,
    /// What happens there: a write at the beginning and the end of each call, or an execution at the beginning.
    pub access: Access,
    /// Whether something else may happen there as often as calls: the code object of a function that is made anew again and
    /// again.
    pub shared: bool,
}

/// Local variables of one frame: name and short repr.
pub type Locals = Vec<(String, String)>;

/// The stacks of all Python threads of a process at one instant. Reused from sample to sample.
#[derive(Debug, Clone, Default)]
pub struct ThreadStacks {
    /// The threads; only the first `count` are valid.
    pub threads: Vec<ThreadStack>,
    /// Locals for `dump --locals`: for each thread, for each frame outermost first. Empty otherwise.
    pub locals: Vec<Vec<Locals>>,
}

/// Why a sample could not be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The memory changed while it was read, or made no sense.
    Torn,
    /// The process has ended or runs another program now.
    Gone,
    /// Reading is not permitted (any more).
    Denied,
}

/// A thread in one of its timer interrupts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Glimpse {
    /// Its index in [`ThreadStacks`].
    pub thread: usize,
    /// Time in which it ran since its last one, microseconds.
    pub ran_us: u64,
    /// Time in which it ran before the first one that could be read, but for a period: nobody knows where.
    pub unseen_us: u64,
    /// Interrupts since the last one of which nothing was kept.
    pub lost: u64,
}

/// What came of an interrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupted {
    /// The stack of the thread is in [`ThreadStacks`].
    Seen(Glimpse),
    /// So many could not be used.
    GivenUp(u64),
}

/// A thread that is off the CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sleeper {
    /// Its index in [`ThreadStacks`].
    pub thread: usize,
    /// Whether it would go on, but waits for a CPU.
    pub waits: bool,
    /// Time of that, or asleep, since it was seen so last, microseconds.
    pub time_us: u64,
    /// Whether it has been on a CPU since it was seen off one last.
    pub changed: bool,
}

/// Reads the stacks of one process.
pub trait StackReader {
    /// Reads all threads' stacks; names go into `tables`. On a fault `stacks` holds nothing of use.
    fn read(&mut self, tables: &mut Tables, stacks: &mut ThreadStacks) -> Result<(), Fault>;

    /// Brings `stacks` up to date with asyncio's tasks, after `threads` were read. Finds none where the reader was not
    /// opened for it. Names go into the same `tables`. `at_rest`: no thread had done anything in the sample before this
    /// one, so tasks need not be looked at twice.
    fn read_tasks(
        &mut self,
        _tables: &mut Tables,
        _threads: &ThreadStacks,
        _stacks: &mut tasks::TaskStacks,
        _at_rest: bool,
    ) -> Result<(), Fault> {
        Ok(())
    }

    /// Whether running threads are read in their timer interrupts: by [`StackReader::next_interrupt`], again and again until
    /// there is none, and then [`StackReader::read_sleepers`], in place of [`StackReader::read`].
    fn is_interrupting(&self) -> bool {
        false
    }

    /// Brings the stack of the thread of the next interrupt up to date; `None` when there is none.
    fn next_interrupt(
        &mut self,
        _tables: &mut Tables,
        _stacks: &mut ThreadStacks,
    ) -> Option<Interrupted> {
        None
    }

    /// Brings the list of threads and the stacks of those that are off the CPU up to date.
    fn read_sleepers(
        &mut self,
        _tables: &mut Tables,
        _stacks: &mut ThreadStacks,
        _sleepers: &mut Vec<Sleeper>,
    ) -> Result<(), Fault> {
        Ok(())
    }

    /// Which reader this is and why it was chosen, for people.
    fn describe(&self) -> String;

    /// What cannot be promised of its stacks, and why, where that was not asked for; what it does not show.
    fn caveats(&self) -> Vec<String> {
        Vec::new()
    }

    /// Reads that samples took beyond their first since this was asked last; 0 where the reader cannot say.
    fn take_retried(&mut self) -> u64 {
        0
    }

    /// Whether a stack that was read is known to have existed as a whole.
    fn is_exact(&self) -> bool;

    /// What has to be watched to count the calls of a function that was read: its code object as in
    /// [`FrameSample::code`], 0 for a C function. `None` where its calls leave no trace.
    fn watchable(&mut self, code: u32, function: FunctionId) -> Option<Watchable> {
        let _ = (code, function);
        None
    }

    /// Whether one invocation of a code object ([`FrameSample::code`]) can get from an instruction to another one;
    /// true where the reader cannot say.
    fn leads(&mut self, code: u32, from: u32, to: u32) -> bool {
        let _ = (code, from, to);
        true
    }

    /// Whether one invocation of a code object ([`FrameSample::code`]) can execute the instruction at `unit` a second
    /// time; true where the reader cannot say.
    fn repeats(&mut self, code: u32, unit: u32) -> bool {
        let _ = (code, unit);
        true
    }
}

/// How stacks are to be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ReaderChoice {
    /// As fits best.
    #[default]
    Auto,
    /// In the threads' own timer interrupts.
    Interrupt,
    /// From outside, on the CPU of the GIL's holder.
    SameCpu,
    /// By py-spy's reader.
    PySpy,
}

/// How to sample.
#[derive(Debug, Clone)]
pub struct SampleOptions {
    /// Samples a second.
    pub rate: Rate,
    /// How stacks are read.
    pub reader: ReaderChoice,
    /// Stop after this time; `None` for the target's end or a signal.
    pub duration: Option<Duration>,
    /// Which samples count; recorded for the outputs, all are taken.
    pub mode: Mode,
    /// Keep threads apart in the outputs.
    pub threads: bool,
    /// Follow child processes.
    pub subprocesses: bool,
    /// Stop the target for each sample.
    pub blocking: bool,
    /// Native frames too.
    pub native: bool,
    /// Leave C functions out.
    pub no_builtins: bool,
    /// Stacks along await chains, asyncio's tasks as roots.
    pub tasks: bool,
    /// No watchpoints for call counts.
    pub no_counts: bool,
    /// Keep no timeline: memory does not grow with time.
    pub no_timeline: bool,
}

/// The depth from which on calls are new, where a recording has room for it; deeper ones are not counted.
fn countable(depth: usize) -> Option<u16> {
    u16::try_from(depth).ok().filter(|depth| *depth < u16::MAX)
}
