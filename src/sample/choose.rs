//! Which reader, and opening it: a process may have only just started.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use log::debug;

use super::fast::{self, FastOptions, FastReader};
use super::pyspy::{PySpyReader, ReaderOptions};
use super::{ReaderChoice, StackReader};
use crate::error::{Error, ErrorKind, Result};
use crate::layout::tables;
use crate::target::locate::{ProgramKind, Version};
use crate::target::memory::Live;
use crate::target::{access, locate, process, runtime};
use crate::units::Pid;

/// The shortest time between two timer interrupts of a thread, which each take microseconds of it.
const SHORTEST_NS: u64 = 50_000;

/// A reader and what it reads.
pub struct Opened {
    /// The reader.
    pub reader: Box<dyn StackReader>,
    /// The target's Python.
    pub version: Version,
    /// Why it is not our own reader, where that was not asked for, and what is lost.
    pub fallback: Option<String>,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened")
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// How long to wait for a Python that is starting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Until it is readable, has ended, or the stop flag is set: for programs that we start.
    Forever,
    /// This long.
    For(Duration),
}

/// Opens `pid` once.
pub fn open(pid: Pid, options: ReaderOptions) -> Result<Opened> {
    let opened = open_best(pid, options)?;
    let (version, reader) = (&opened.version, opened.reader.describe());
    debug!("process {pid}: Python {version}, {reader}");
    if let Some(why) = &opened.fallback {
        debug!("process {pid}: {why}");
    }
    Ok(opened)
}

fn open_best(pid: Pid, options: ReaderOptions) -> Result<Opened> {
    access::check(pid)?;
    if locate::kind(pid) != ProgramKind::Python && runtime::find(pid, &Live::new(pid)).is_err() {
        // Says what it is; goes on when a Python is linked into another program.
        locate::version(pid)?;
    }
    let ours = !options.native && !options.locals && options.choice != ReaderChoice::PySpy;
    let mut fallback = None;
    if ours {
        match open_fast(pid, options) {
            Err(error) if error.kind() == ErrorKind::UnsupportedPython => {
                fallback = Some(error.why().to_string());
            }
            opened => return opened,
        }
    }
    if !ours
        && let Ok(version) = runtime::version(pid)
        && version.free_threaded
    {
        return Err(Error::new(
            ErrorKind::NotAvailable,
            format!("cannot read process {pid} in that way"),
            format!(
                "Python {version} is a free-threaded build, which py-spy's reader does not know"
            ),
        )
        .hint("leave out --native, --locals and --reader py-spy: stacks are read without them"));
    }
    let (reader, version) = PySpyReader::open(pid, options)?;
    // A Python that was still loading when we looked: our own reader knows it by now.
    if ours && tables::for_version(version.major, version.minor).is_some() {
        match open_fast(pid, options) {
            Err(error) if error.kind() == ErrorKind::UnsupportedPython => {}
            opened => return opened,
        }
    }
    if options.tasks {
        return Err(fast::no_tasks(pid, &version));
    }
    if options.exceptions {
        return Err(Error::new(
            ErrorKind::NotAvailable,
            format!("cannot tell which threads of process {pid} handle exceptions"),
            fallback.unwrap_or_else(|| "that takes biopsy's own reader".to_string()),
        )
        .hint("leave out --mode exception"));
    }
    Ok(Opened {
        reader: Box::new(reader),
        version,
        fallback: fallback.map(|why| {
            format!(
                "stacks are read by py-spy's reader: {why}; they are approximate unless the target is stopped (--blocking), \
                 C functions are not shown, and calls are not counted"
            )
        }),
    })
}

/// Our own reader; `UnsupportedPython` for a version that it does not know, or a Python in which it finds no symbols.
fn open_fast(pid: Pid, options: ReaderOptions) -> Result<Opened> {
    let wants_interrupts = options.choice == ReaderChoice::Interrupt;
    let interrupt_ns = (options.period_ns > 0).then(|| options.period_ns.max(SHORTEST_NS));
    let fast = FastOptions {
        blocking: options.blocking,
        cross_cpu: options.cross_cpu,
        no_builtins: options.no_builtins,
        tasks: options.tasks,
        exceptions: options.exceptions,
        interrupt_ns: interrupt_ns.filter(|_| wants_interrupts),
        parallel_interrupt_ns: interrupt_ns.filter(|_| options.choice == ReaderChoice::Auto),
    };
    let (reader, version) = FastReader::open(pid, fast)?;
    let aimless = wants_interrupts && options.period_ns == 0;
    Ok(Opened {
        reader: Box::new(reader),
        version,
        fallback: aimless.then(|| {
            "threads are not read in their timer interrupts: `-r max` has no period; they are read from outside".to_string()
        }),
    })
}

/// A process that is starting is tried again after this part of the time for which that has been so.
const PART_OF_START: u32 = 8;

/// The shortest and the longest time between two tries.
const SHORTEST_TRY: Duration = Duration::from_micros(500);
const LONGEST_TRY: Duration = Duration::from_millis(50);

/// Opens `pid`, trying again while it is starting.
pub fn open_patiently(
    pid: Pid,
    options: ReaderOptions,
    patience: Patience,
    stop: &AtomicBool,
) -> Result<Opened> {
    let started = Instant::now();
    let mut before: Option<Error> = None;
    let is_other = |error: &Error| {
        let kind = error.kind();
        matches!(kind, ErrorKind::NotPython | ErrorKind::UnsupportedPython)
    };
    loop {
        let error = match open(pid, options) {
            Ok(opened) => return Ok(opened),
            Err(error) => error,
        };
        let is_over = matches!(
            error.kind(),
            ErrorKind::NoSuchProcess | ErrorKind::ProcessEnded
        );
        // What it was says more than that it is over.
        if let Some(other) = before.take_if(|before| is_over && is_other(before)) {
            return Err(other);
        }
        let final_kind = matches!(
            error.kind(),
            ErrorKind::Usage
                | ErrorKind::NotAvailable
                | ErrorKind::NotPermitted
                | ErrorKind::NoSuchProcess
                | ErrorKind::ProcessEnded
        );
        // What is no Python yet may become one by exec, but only a program that we started is likely to.
        let waits_for_exec = patience == Patience::Forever;
        let hopeless = !waits_for_exec && is_other(&error);
        let out_of_time = match patience {
            Patience::Forever => false,
            Patience::For(limit) => started.elapsed() >= limit,
        };
        // Before the stop: whoever waits for a program that we started sets that when it has ended.
        if !final_kind && !process::is_alive(pid) {
            return Err(ended_early(pid, error));
        }
        if final_kind || hopeless || out_of_time || stop.load(Ordering::Relaxed) {
            return Err(error);
        }
        if before.as_ref().map(Error::why) != Some(error.why()) {
            debug!("tried again: {error}");
        }
        before = Some(error);
        // What it does between its start and our next try is never seen.
        let pause = started.elapsed() / PART_OF_START;
        std::thread::sleep(pause.clamp(SHORTEST_TRY, LONGEST_TRY));
    }
}

fn ended_early(pid: Pid, error: Error) -> Error {
    if matches!(
        error.kind(),
        ErrorKind::NotPython | ErrorKind::UnsupportedPython
    ) {
        return error;
    }
    Error::new(
        ErrorKind::ProcessEnded,
        format!("cannot read process {pid}"),
        "it ended before its Python could be read",
    )
}
