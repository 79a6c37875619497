//! Every thread's stack, once.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::choose::{self, Patience};
use super::pyspy::{self, ReaderOptions};
use super::{Fault, Locals, ThreadStacks};
use crate::error::{Error, ErrorKind, Result};
use crate::profile::Tables;
use crate::target::process;
use crate::target::threads::{self, Threads};
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
    /// Whether two reads in a row were equal (or the target was stopped).
    pub steady: bool,
}

/// One thread.
#[derive(Debug, Clone, PartialEq)]
pub struct DumpThread {
    /// `threading.get_ident()`.
    pub python_id: u64,
    /// OS thread id; 0 when unknown.
    pub os_id: u64,
    /// Name, when `threading` knows one.
    pub name: Option<String>,
    /// Whether it held the GIL.
    pub holds_gil: bool,
    /// Whether it ran or was ready to run; `None` when unknown.
    pub on_cpu: Option<bool>,
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
    for _ in 0..READS {
        match opened.reader.read(&mut tables, &mut stacks) {
            Ok(()) => {
                let mut threads = describe(pid, &tables, &stacks, &mut os_threads);
                for thread in &mut threads {
                    let tid = i32::try_from(thread.os_id).ok().map(Tid);
                    if let Some(seen) = tid.and_then(|tid| undisturbed.get(&tid)) {
                        thread.on_cpu = Some(seen.on_cpu);
                    }
                }
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
        steady,
    })
}

fn same(a: &[DumpThread], b: &[DumpThread]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.frames == b.frames)
}

fn describe(
    pid: Pid,
    tables: &Tables,
    stacks: &ThreadStacks,
    os_threads: &mut Threads,
) -> Vec<DumpThread> {
    let describe = |(at, thread): (usize, &super::ThreadStack)| {
        let inner = match i32::try_from(thread.os_id) {
            Ok(0) | Err(_) => threads::pthread_tid(pid, thread.python_id),
            Ok(inner) => Some(inner),
        };
        let tid = inner.and_then(|inner| os_threads.resolve(inner));
        let mut frames: Vec<DumpFrame> = thread
            .frames
            .iter()
            .enumerate()
            .map(|(depth, sample)| {
                let frame = tables.get_frame(sample.frame);
                DumpFrame {
                    file: tables.file(frame.function).to_string(),
                    line: frame.line,
                    first_line: tables.line(frame.function),
                    name: tables.name(frame.function).to_string(),
                    locals: stacks
                        .locals
                        .get(at)
                        .and_then(|frames| frames.get(depth))
                        .cloned(),
                }
            })
            .collect();
        frames.reverse();
        DumpThread {
            python_id: thread.python_id,
            os_id: tid.map_or(thread.os_id, |tid| tid.0 as u64),
            name: thread.name.clone(),
            holds_gil: thread.holds_gil,
            on_cpu: tid
                .and_then(|tid| os_threads.activity(tid, None))
                .map(|seen| seen.on_cpu),
            frames,
        }
    };
    stacks.threads.iter().enumerate().map(describe).collect()
}
