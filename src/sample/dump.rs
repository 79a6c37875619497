//! Every thread's stack, once.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::choose::{self, Patience};
use super::fast::{FastOptions, FastReader};
use super::pyspy::{self, ReaderOptions};
use super::tasks::{TaskStack, TaskStacks, TaskState};
use super::{Fault, FrameSample, Locals, StackReader, ThreadStacks, interpreters, states};
use crate::error::{Error, ErrorKind, Result};
use crate::profile::{RunState, Tables};
use crate::target::image::Captured;
use crate::target::threads::{Activity, Threads};
use crate::target::{process, signals, syscalls};
use crate::units::{Pid, Tid};

/// Reads until two in a row agree, so that a moving stack is not shown half old, half new.
const READS: usize = 25;

/// All stacks of a process at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Dump {
    /// The process.
    pub pid: Pid,
    /// Its Python.
    pub python: String,
    /// Its command line.
    pub command: String,
    /// Its Python threads.
    pub threads: Vec<DumpThread>,
    /// Its asyncio tasks; `None` when they were not asked for.
    pub tasks: Option<Vec<DumpTask>>,
    /// Whether some tasks were left out, since there are too many.
    pub tasks_cut: bool,
    /// Whether two reads in a row were equal (or the target was stopped).
    pub steady: bool,
    /// What else the user should know.
    pub notes: Vec<String>,
}

/// One asyncio task.
#[derive(Debug, Clone, PartialEq)]
pub struct DumpTask {
    /// Its name.
    pub name: String,
    /// `running`, `suspended`, or `created` when it has not begun.
    pub state: &'static str,
    /// `threading.get_ident()` of the thread that runs it.
    pub python_id: Option<u64>,
    /// Names of the tasks that wait for it.
    pub awaited_by: Vec<String>,
    /// Frames, innermost first: its coroutines, and what the innermost one calls while it runs.
    pub frames: Vec<DumpFrame>,
}

/// One thread.
#[derive(Debug, Clone, PartialEq)]
pub struct DumpThread {
    /// `threading.get_ident()`.
    pub python_id: u64,
    /// OS thread id; 0 when unknown.
    pub os_id: u64,
    /// Whether the process has no such thread.
    pub gone: bool,
    /// Name, when `threading` knows one.
    pub name: Option<String>,
    /// Whether it held the GIL.
    pub holds_gil: bool,
    /// Whether it ran or was ready to run; `None` when unknown.
    pub on_cpu: Option<bool>,
    /// Whether it waited for the GIL.
    pub waits_for_gil: bool,
    /// Whether it was collecting garbage.
    pub collects: bool,
    /// The signal that it was given, by name, when that ended the process and this is its core file.
    pub signal: Option<&'static str>,
    /// The system call that it slept in, by name or number; `None` when it did not sleep, or the kernel does not say.
    pub system_call: Option<String>,
    /// Frames, innermost first.
    pub frames: Vec<DumpFrame>,
}

/// One frame.
#[derive(Debug, Clone, PartialEq)]
pub struct DumpFrame {
    /// File, as the code object has it.
    pub file: String,
    /// Running line, 1-based; 0 when unknown.
    pub line: u32,
    /// First line of the function.
    pub first_line: u32,
    /// Name.
    pub name: String,
    /// Its address; 0 when not known.
    pub address: u64,
    /// Local variables, when asked for.
    pub locals: Option<Locals>,
}

impl DumpThread {
    /// `active+gil`, `active`, `idle`: as py-spy's dump says.
    pub fn state(&self) -> &'static str {
        match (self.holds_gil, self.on_cpu) {
            (true, Some(false)) => "idle+gil",
            (true, _) => "active+gil",
            (false, Some(true)) => "active",
            (false, Some(false)) => "idle",
            (false, None) => "unknown",
        }
    }

    /// The same in full: `active+gil (collecting garbage)`, `waiting for the GIL`, `idle (epoll_wait)`.
    pub fn activity(&self) -> String {
        let state = self.state();
        if let Some(signal) = self.signal {
            return format!("{state}, ended by {signal}");
        }
        match &self.system_call {
            _ if self.gone => {
                "no thread of this process: it ended, or a fork left it behind".to_string()
            }
            _ if self.collects => format!("{state} (collecting garbage)"),
            _ if self.waits_for_gil => "waiting for the GIL".to_string(),
            Some(call) if self.on_cpu == Some(false) => format!("{state} ({call})"),
            _ => state.to_string(),
        }
    }
}

/// Reads all stacks of `pid`.
pub fn dump(pid: Pid, options: ReaderOptions) -> Result<Dump> {
    pyspy::check_options(options)?;
    let never = AtomicBool::new(false);
    let mut os_threads = Threads::new(pid);
    // A thread that we stop and let go runs for a moment, however deep its sleep was.
    let undisturbed = if options.blocking {
        os_threads.activities()
    } else {
        FxHashMap::default()
    };
    let mut opened = choose::open_patiently(
        pid,
        options,
        Patience::For(Duration::from_millis(500)),
        &never,
    )?;
    let mut tables = Tables::default();
    let mut last: Option<Vec<DumpThread>> = None;
    let mut steady = false;
    // The same one for all reads: readers look names up rarely and leave them there.
    let mut stacks = ThreadStacks::default();
    let mut tasks = TaskStacks::default();
    for _ in 0..READS {
        let mut outcome = opened.reader.read(&mut tables, &mut stacks);
        if outcome.is_ok() && options.tasks {
            outcome = opened
                .reader
                .read_tasks(&mut tables, &stacks, &mut tasks, false);
        }
        match outcome {
            Ok(()) => {
                let shown = interpreters::shown(&stacks, options.tasks);
                let threads = describe(&tables, &shown, &mut os_threads, &undisturbed);
                steady = options.blocking || last.as_ref().is_some_and(|last| same(last, &threads));
                last = Some(threads);
                if steady {
                    break;
                }
            }
            Err(Fault::Torn) => {}
            Err(Fault::Denied) => return Err(crate::target::access::refused(pid)),
            Err(Fault::Gone) => return Err(process::gone(pid)),
        }
    }
    let threads = last.ok_or_else(|| {
        Error::new(
            ErrorKind::Failed,
            format!("cannot read process {pid}"),
            format!("its stacks changed during each of {READS} reads"),
        )
        .hint("add --blocking: the target is stopped for the read")
    })?;
    Ok(Dump {
        pid,
        python: opened.version.to_string(),
        command: process::command_line(pid),
        threads,
        tasks: options
            .tasks
            .then(|| describe_tasks(&tables, &stacks, &tasks)),
        tasks_cut: tasks.cut,
        steady,
        notes: opened
            .fallback
            .take()
            .into_iter()
            .chain(opened.reader.caveats())
            .collect(),
    })
}

/// Reads all stacks in a core file, without local variables.
pub fn dump_core(captured: &Captured, tasks: bool) -> Result<Dump> {
    let options = FastOptions {
        no_builtins: true,
        tasks,
        ..FastOptions::default()
    };
    let dead = captured.dead.as_deref();
    let known = dead.map_or(&[][..], |dead| &dead.threads);
    let mut reader = FastReader::of_core(captured, options)?;
    let mut tables = Tables::default();
    let (mut stacks, mut found) = (ThreadStacks::default(), TaskStacks::default());
    let read = reader.read(&mut tables, &mut stacks).and_then(|()| {
        let (tables, stacks) = (&mut tables, &stacks);
        reader.read_tasks(tables, stacks, &mut found, false)
    });
    let caveats = dead.map_or(&[][..], |dead| &dead.caveats);
    read.map_err(|_| {
        let why = match caveats {
            [] => "it has no list of Python's threads that makes sense".to_string(),
            caveats => caveats.join("; "),
        };
        Error::new(
            ErrorKind::Failed,
            "cannot read the stacks in the core file",
            why,
        )
    })?;
    let shown = interpreters::shown(&stacks, tasks);
    let undisturbed = FxHashMap::default();
    let mut os_threads = Threads::of_dead(known);
    let mut threads = describe(&tables, &shown, &mut os_threads, &undisturbed);
    for thread in &mut threads {
        let mut known = known.iter();
        let own = known.find(|known| u64::try_from(known.tid) == Ok(thread.os_id));
        thread.signal = own.and_then(|own| signals::fatal(own.signal));
    }
    Ok(Dump {
        pid: captured.pid.unwrap_or(Pid(0)),
        python: captured.runtime.version.to_string(),
        command: captured.command.clone(),
        threads,
        tasks: tasks.then(|| describe_tasks(&tables, &stacks, &found)),
        tasks_cut: found.cut,
        steady: true,
        notes: caveats.iter().cloned().chain(reader.caveats()).collect(),
    })
}

fn same(a: &[DumpThread], b: &[DumpThread]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.frames == b.frames)
}

fn describe(
    tables: &Tables,
    stacks: &ThreadStacks,
    os_threads: &mut Threads,
    undisturbed: &FxHashMap<Tid, Activity>,
) -> Vec<DumpThread> {
    let describe = |(at, thread): (usize, &super::ThreadStack)| {
        let inner = os_threads.identify(thread.os_id, thread.python_id);
        let tid = inner.and_then(|inner| os_threads.resolve(inner));
        let mut frames: Vec<DumpFrame> = thread
            .frames
            .iter()
            .enumerate()
            .map(|(depth, sample)| DumpFrame {
                locals: stacks
                    .locals
                    .get(at)
                    .and_then(|frames| frames.get(depth))
                    .cloned(),
                ..describe_frame(tables, sample)
            })
            .collect();
        frames.reverse();
        let seen = tid.and_then(|tid| match undisturbed.get(&tid) {
            Some(seen) => Some(*seen),
            None => os_threads.activity(tid, None),
        });
        let state = states::run_state(thread, seen);
        DumpThread {
            python_id: thread.python_id,
            os_id: tid.map_or(0, |tid| tid.0 as u64),
            gone: thread.gone,
            name: thread.name.clone(),
            holds_gil: thread.holds_gil,
            on_cpu: seen.map(|seen| seen.on_cpu),
            waits_for_gil: state.has(RunState::GIL_WAIT),
            collects: state.has(RunState::GC),
            signal: None,
            system_call: seen.and_then(|seen| seen.wait).map(|wait| {
                let name = syscalls::name(wait.number).map(str::to_string);
                name.unwrap_or_else(|| format!("system call {}", wait.number))
            }),
            frames,
        }
    };
    stacks.threads.iter().enumerate().map(describe).collect()
}

fn describe_frame(tables: &Tables, sample: &FrameSample) -> DumpFrame {
    let frame = tables.get_frame(sample.frame);
    DumpFrame {
        file: tables.file(frame.function).to_string(),
        line: frame.line,
        first_line: tables.line(frame.function),
        name: tables.name(frame.function).to_string(),
        address: sample.invocation,
        locals: None,
    }
}

fn describe_tasks(tables: &Tables, stacks: &ThreadStacks, tasks: &TaskStacks) -> Vec<DumpTask> {
    let names: FxHashMap<u64, &str> = tasks
        .tasks
        .iter()
        .map(|task| (task.address, task.name.as_str()))
        .collect();
    let describe = |(at, task): (usize, &TaskStack)| {
        let running = tasks.running.iter().find(|running| running.task == at);
        let thread = running.and_then(|running| stacks.threads.get(running.thread));
        let own = task.frames.get(task.own + 1..).unwrap_or_default();
        let frames = match (running, thread) {
            (Some(running), Some(thread)) => thread.frames.get(running.depth..),
            _ => Some(own),
        };
        let frames = frames.unwrap_or_default();
        DumpTask {
            name: task.name.clone(),
            state: match task.state {
                _ if running.is_some() => "running",
                TaskState::Created => "created",
                TaskState::Running => "running",
                TaskState::Suspended => "suspended",
            },
            python_id: thread.map(|thread| thread.python_id),
            awaited_by: task
                .awaited_by
                .iter()
                .filter_map(|address| names.get(address))
                .map(|name| (*name).to_string())
                .collect(),
            frames: frames
                .iter()
                .rev()
                .map(|sample| describe_frame(tables, sample))
                .collect(),
        }
    };
    tasks.tasks.iter().enumerate().map(describe).collect()
}
