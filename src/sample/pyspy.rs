//! Stacks through the py-spy crate: every version from 3.6 on, and native frames.
//!
//! Nothing outside of this file sees py-spy's types. py-spy gives one line number a frame, either the
//! running one or the function's first one. Both are needed, so the first lines are learnt: when a frame
//! (file, qualified name, running line) is new, the stacks are read once more for first lines; a frame is
//! paired with the one at the same depth when everything outside of it is the same in both.

use std::cell::Cell;
use std::panic::AssertUnwindSafe;
use std::sync::Once;

use py_spy::config::{Config, LineNo, LockingStrategy};
use py_spy::stack_trace::{Frame as SpyFrame, StackTrace};
use py_spy::{Pid as SpyPid, PythonSpy};
use rustc_hash::{FxHashMap, FxHashSet};

use super::{Fault, FrameSample, Locals, ReaderChoice, StackReader, ThreadStack, ThreadStacks};
use crate::error::{Error, ErrorKind, Result};
use crate::profile::{FrameId, FunctionKind, Tables};
use crate::target::access;
use crate::target::locate::{self, Version};
use crate::target::memory::{Stopped, Stopper};
use crate::target::process;
use crate::target::threads::Threads;
use crate::units::{Pid, Tid};

/// How often stacks are read again to learn first lines before an estimate is used.
const LEARNING_READS: usize = 3;

/// How often new threads are stopped too before all of the process are.
const HOLDS: usize = 8;

/// Longest name or path that is kept, in characters; longer ones are cut.
const NAME_LIMIT: usize = 1024;

/// What to read beside Python frames, and how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReaderOptions {
    /// Stop the target while its stacks are read.
    pub blocking: bool,
    /// Native frames too; needs `blocking` and the cargo feature `native`.
    pub native: bool,
    /// Locals too (for `dump`).
    pub locals: bool,
    /// Stay away from the target's CPU (rates above 20 kHz): our own reader's stacks are approximate then.
    pub cross_cpu: bool,
    /// Leave C functions out (our own reader shows those that Python functions call).
    pub no_builtins: bool,
    /// asyncio's tasks too: our own reader's only.
    pub tasks: bool,
    /// Which threads handle exceptions: our own reader's only.
    pub exceptions: bool,
    /// Which reader.
    pub choice: ReaderChoice,
    /// Time between samples, nanoseconds; 0 for as fast as can be.
    pub period_ns: u64,
}

/// Reads stacks through py-spy.
pub struct PySpyReader {
    spy: PythonSpy,
    pid: Pid,
    /// Stops the target for each read, when that was asked for.
    stopper: Option<Stopper>,
    /// The threads that the last read found, by ident: those that are stopped for the next one.
    known: FxHashMap<u64, Tid>,
    os_threads: Threads,
    locals: bool,
    first_lines: FirstLines,
    /// py-spy names 3.11's functions by their qualified names, older ones' by `co_name`.
    qualified: bool,
}

impl std::fmt::Debug for PySpyReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PySpyReader")
            .field("pid", &self.pid)
            .finish_non_exhaustive()
    }
}

/// Fails unless this build can do what `options` ask for.
pub fn check_options(options: ReaderOptions) -> Result<()> {
    if options.native && cfg!(not(feature = "native")) {
        return Err(Error::new(
            ErrorKind::NotAvailable,
            "cannot read native frames",
            "this biopsy was built without them",
        )
        .hint("install libunwind's development package (Debian: libunwind-dev), then build with: cargo install --features native ..."));
    }
    if options.native && !options.blocking {
        return Err(Error::usage(
            "cannot read native frames",
            "a native stack stands still only while the target is stopped",
        )
        .hint("add --blocking: the target is stopped for each sample"));
    }
    Ok(())
}

impl PySpyReader {
    /// Opens the process; it must have a Python that has started.
    pub fn open(pid: Pid, options: ReaderOptions) -> Result<(PySpyReader, Version)> {
        check_options(options)?;
        let config = Config {
            blocking: if options.blocking {
                LockingStrategy::AlreadyLocked
            } else {
                LockingStrategy::NonBlocking
            },
            native: options.native,
            dump_locals: u64::from(options.locals),
            lineno: LineNo::LastInstruction,
            collect_thread_names: true,
            full_filenames: true,
            ..Config::default()
        };
        let spy = guarded(|| PythonSpy::new(pid.0 as SpyPid, &config))
            .ok_or_else(|| not_opened(pid, &"its memory makes no sense"))?
            .map_err(|error| not_opened(pid, &error))?;
        let version = Version {
            major: spy.version.major as u32,
            minor: spy.version.minor as u32,
            patch: spy.version.patch as u32,
            suffix: spy.version.release_flags.clone(),
            free_threaded: false,
        };
        if version.major != 3 || !locate::MINORS.contains(&version.minor) || version.minor >= 13 {
            // Refuses what is not supported with the right words.
            let version = locate::version(pid)?;
            if version.free_threaded {
                let why = format!("Python {version} is a free-threaded build that is not known");
                let what = format!("cannot read process {pid}");
                return Err(Error::new(ErrorKind::UnsupportedPython, what, why));
            }
        }
        let qualified = version.minor >= 11;
        let stopper = if options.blocking {
            Some(Stopper::new(pid).ok_or_else(|| process::gone(pid))?)
        } else {
            None
        };
        let mut reader = PySpyReader {
            spy,
            pid,
            stopper,
            known: FxHashMap::default(),
            os_threads: Threads::new(pid),
            locals: options.locals,
            first_lines: FirstLines::default(),
            qualified,
        };
        if reader.stopper.is_some() && !options.native {
            // A first look at who there is. It may be wrong, as they run.
            for _ in 0..HOLDS {
                let traces = reader.read_lines(LineNo::LastInstruction);
                reader.learn_threads(&traces.unwrap_or_default());
                if !reader.known.is_empty() {
                    break;
                }
            }
        }
        // py-spy finds interpreters in ones that are still starting; a first read proves it. Native frames
        // can be read only of a target that stands still.
        let held = reader.hold(false);
        let first_read = held.and_then(|_held| reader.read_lines(LineNo::First));
        first_read.map_err(|fault| match fault {
            Fault::Denied => access::refused(pid),
            Fault::Gone => process::gone(pid),
            Fault::Torn => Error::new(
                ErrorKind::Failed,
                format!("cannot read process {pid}"),
                "its Python has no readable stack (still starting, or one of more than 4,096 frames, which py-spy's reader does not follow?)",
            ),
        })?;
        Ok((reader, version))
    }

    fn read_lines(&mut self, lines: LineNo) -> Result<Vec<StackTrace>, Fault> {
        self.spy.config.lineno = lines;
        match guarded(|| self.spy.get_stack_traces()) {
            Some(Ok(traces)) => Ok(traces),
            _ if !process::is_alive(self.pid) => Err(Fault::Gone),
            _ => Err(Fault::Torn),
        }
    }

    /// Stops the known threads, or `all` that there are, until the answer is dropped, when samples are to do so.
    fn hold(&self, all: bool) -> Result<Option<Stopped>, Fault> {
        let Some(stopper) = &self.stopper else {
            return Ok(None);
        };
        // To find out which is which py-spy may look at the registers of any thread, for native frames.
        if !all && !self.known.is_empty() && !self.spy.config.native {
            let known: Vec<Tid> = self.known.values().copied().collect();
            if let Some(stopped) = stopper.stop_some(&known) {
                return Ok(Some(stopped));
            }
        }
        match stopper.stop() {
            Some(stopped) => Ok(Some(stopped)),
            None if process::is_alive(self.pid) => Err(Fault::Denied),
            None => Err(Fault::Gone),
        }
    }

    /// Takes note of which threads there are.
    fn learn_threads(&mut self, traces: &[StackTrace]) {
        self.known.clear();
        for trace in traces {
            let inner = trace.os_thread_id.and_then(|id| i32::try_from(id).ok());
            let native = inner.and_then(|inner| u64::try_from(inner).ok());
            let inner = self
                .os_threads
                .identify(native.unwrap_or(0), trace.thread_id);
            if let Some(tid) = inner.and_then(|inner| self.os_threads.resolve(inner)) {
                self.known.insert(trace.thread_id, tid);
            }
        }
    }

    /// Whether all threads of `traces` stood still while they were read.
    fn all_stood(&self, standing: &FxHashSet<Tid>, traces: &[StackTrace]) -> bool {
        traces.iter().all(|trace| {
            let tid = self.known.get(&trace.thread_id);
            // One that is starting has no stack.
            trace.frames.is_empty() || tid.is_some_and(|tid| standing.contains(tid))
        })
    }

    /// Reads with all threads that are read at rest, where they are to be.
    fn read_held(&mut self) -> Result<(Vec<Stopped>, Vec<StackTrace>), Fault> {
        let mut held = Vec::from_iter(self.hold(false)?);
        let mut traces = self.read_lines(LineNo::LastInstruction)?;
        let by_name = |stopped: &Stopped| (!self.spy.config.native).then(|| stopped.threads());
        let Some(mut standing) = held.first().and_then(by_name).flatten() else {
            return Ok((held, traces));
        };
        for _ in 0..HOLDS {
            if self.all_stood(&standing, &traces) {
                return Ok((held, traces));
            }
            self.learn_threads(&traces);
            let known = self.known.values().copied();
            let new: Vec<Tid> = known.filter(|tid| !standing.contains(tid)).collect();
            let stopper = self.stopper.as_ref().filter(|_| !new.is_empty());
            if let Some(stopped) = stopper.and_then(|stopper| stopper.stop_some(&new)) {
                standing.extend(stopped.threads().unwrap_or_default());
                held.push(stopped);
            }
            // A thread that cannot be found has ended, in all likelihood.
            traces = self.read_lines(LineNo::LastInstruction)?;
        }
        // Their ids cannot be found. None can be stopped twice.
        held.clear();
        held.extend(self.hold(true)?);
        traces = self.read_lines(LineNo::LastInstruction)?;
        Ok((held, traces))
    }

    /// Reads once, and again for first lines where a frame is new.
    fn read_traces(&mut self) -> Result<Vec<StackTrace>, Fault> {
        let (_held, traces) = self.read_held()?;
        for _ in 0..LEARNING_READS {
            if !self.first_lines.any_unknown(&traces) {
                break;
            }
            let locals = std::mem::take(&mut self.spy.config.dump_locals);
            let firsts = self.read_lines(LineNo::First);
            self.spy.config.dump_locals = locals;
            match firsts {
                Ok(firsts) => self.first_lines.learn(&traces, &firsts),
                Err(Fault::Torn) => {}
                Err(fault) => return Err(fault),
            }
        }
        Ok(traces)
    }

    fn frame(&mut self, tables: &mut Tables, frame: &SpyFrame) -> FrameId {
        let line = u32::try_from(frame.line).unwrap_or(0);
        if let Some(module) = &frame.module {
            let file = if frame.filename.is_empty() {
                module
            } else {
                &frame.filename
            };
            let function = tables.function(cut(file), 0, cut(&frame.name), FunctionKind::Native);
            return tables.frame(function, line);
        }
        let name = if self.qualified {
            frame.name.rsplit('.').next().unwrap_or(&frame.name)
        } else {
            &frame.name
        };
        let first = self.first_lines.of(frame);
        let function =
            tables.function(cut(&frame.filename), first, cut(name), FunctionKind::Python);
        if self.qualified {
            tables.set_qualname(function, cut(&frame.name));
        }
        tables.frame(function, line)
    }
}

impl StackReader for PySpyReader {
    fn read(&mut self, tables: &mut Tables, stacks: &mut ThreadStacks) -> Result<(), Fault> {
        let traces = self.read_traces()?;
        stacks.threads.clear();
        stacks.locals.clear();
        for trace in traces {
            // py-spy lists innermost frames first.
            let frames = trace
                .frames
                .iter()
                .rev()
                .map(|frame| FrameSample {
                    frame: self.frame(tables, frame),
                    invocation: 0,
                    instruction: 0,
                    code: 0,
                    from_c: true,
                })
                .collect();
            if self.locals {
                stacks
                    .locals
                    .push(trace.frames.iter().rev().map(locals).collect());
            }
            stacks.threads.push(ThreadStack {
                python_id: trace.thread_id,
                os_id: trace.os_thread_id.unwrap_or(0),
                name: trace.thread_name,
                holds_gil: trace.owns_gil,
                frames,
                ..ThreadStack::default()
            });
        }
        Ok(())
    }

    fn describe(&self) -> String {
        "py-spy's reader".to_string()
    }

    fn is_exact(&self) -> bool {
        self.stopper.is_some()
    }
}

thread_local! {
    /// Whether this thread is in py-spy's code.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Calls into py-spy, which may panic on memory that makes no sense (seen: an addition that overflows in the
/// moment of an exec); `None` then, without the message that a panic writes.
fn guarded<T>(call: impl FnOnce() -> T) -> Option<T> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !GUARDED.get() {
                hook(info);
            }
        }));
    });
    GUARDED.set(true);
    let result = std::panic::catch_unwind(AssertUnwindSafe(call));
    GUARDED.set(false);
    result.ok()
}

fn not_opened(pid: Pid, error: &dyn std::fmt::Display) -> Error {
    match locate::version(pid) {
        Err(error) => error,
        Ok(version) if let Some(file) = locate::odd_mapping(pid) => Error::new(
            ErrorKind::NotAvailable,
            format!("cannot read process {pid}"),
            format!(
                "local variables, native frames, and Python 3.6 and 3.7 (this is {version}) are not read where a file \
                 is mapped whose name is no UTF-8: {file}"
            ),
        ),
        Ok(version) => Error::new(
            ErrorKind::Failed,
            format!("cannot read process {pid}"),
            format!(
                "Python {version} has no interpreter that can be read (still starting, or a stack of more than 4,096 frames, which py-spy's reader does not follow?): {error}"
            ),
        ),
    }
}

fn locals(frame: &SpyFrame) -> Locals {
    frame
        .locals
        .iter()
        .flatten()
        .map(|local| {
            (
                cut(&local.name).to_string(),
                local.repr.clone().unwrap_or_else(|| "?".to_string()),
            )
        })
        .collect()
}

fn cut(text: &str) -> &str {
    match text.char_indices().nth(NAME_LIMIT) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

/// First lines of functions by file, name and running line.
#[derive(Debug, Default)]
struct FirstLines {
    files: FxHashMap<String, FxHashMap<String, Functions>>,
}

/// The functions of one name in one file.
#[derive(Debug, Default)]
struct Functions {
    /// Running line to first line.
    known: FxHashMap<i32, u32>,
    /// All first lines seen.
    firsts: Vec<u32>,
}

impl FirstLines {
    fn any_unknown(&self, traces: &[StackTrace]) -> bool {
        let unknown = |frame: &SpyFrame| {
            frame.module.is_none()
                && !self
                    .files
                    .get(&frame.filename)
                    .and_then(|names| names.get(&frame.name))
                    .is_some_and(|functions| functions.known.contains_key(&frame.line))
        };
        traces.iter().any(|trace| trace.frames.iter().any(unknown))
    }

    /// Pairs running lines with the first lines of a read that followed at once.
    fn learn(&mut self, running: &[StackTrace], firsts: &[StackTrace]) {
        for trace in running {
            let Some(other) = firsts
                .iter()
                .find(|other| other.thread_id == trace.thread_id)
            else {
                continue;
            };
            let pairs = trace.frames.iter().rev().zip(other.frames.iter().rev());
            for (frame, first) in pairs {
                if frame.name != first.name || frame.filename != first.filename {
                    break;
                }
                let Some(line) = u32::try_from(first.line)
                    .ok()
                    .filter(|_| frame.module.is_none())
                else {
                    continue;
                };
                // A function's lines do not stand before its first; another function of the same name
                // was read then. Line 0 stands for "no line".
                if first.line > frame.line && frame.line > 0 {
                    break;
                }
                let functions = self
                    .files
                    .entry(frame.filename.clone())
                    .or_default()
                    .entry(frame.name.clone())
                    .or_default();
                functions.known.entry(frame.line).or_insert(line);
                if !functions.firsts.contains(&line) {
                    functions.firsts.push(line);
                }
            }
        }
    }

    /// The first line of a frame's function: as learnt; else the nearest one before it of the same name;
    /// else the running line itself.
    fn of(&mut self, frame: &SpyFrame) -> u32 {
        let line = u32::try_from(frame.line).unwrap_or(0);
        let functions = self
            .files
            .get(&frame.filename)
            .and_then(|names| names.get(&frame.name));
        let Some(functions) = functions else {
            return line;
        };
        functions
            .known
            .get(&frame.line)
            .copied()
            .unwrap_or_else(|| {
                let before = functions
                    .firsts
                    .iter()
                    .copied()
                    .filter(|first| *first <= line)
                    .max();
                before
                    .or_else(|| functions.firsts.first().copied())
                    .unwrap_or(line)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(frames: &[(&str, i32)]) -> StackTrace {
        StackTrace {
            pid: 1,
            thread_id: 1,
            thread_name: None,
            os_thread_id: None,
            active: true,
            owns_gil: false,
            frames: frames
                .iter()
                .map(|(name, line)| SpyFrame {
                    name: name.to_string(),
                    filename: "a.py".to_string(),
                    module: None,
                    short_filename: None,
                    line: *line,
                    locals: None,
                    is_entry: false,
                    is_shim_entry: false,
                })
                .collect(),
            process_info: None,
        }
    }

    #[test]
    fn first_lines_are_learnt_from_the_outside_in() {
        let mut lines = FirstLines::default();
        let running = [trace(&[("leaf", 25), ("main", 3)])];
        assert!(lines.any_unknown(&running));
        // The leaf has changed between the two reads; main is learnt all the same.
        lines.learn(&running, &[trace(&[("other", 40), ("main", 1)])]);
        assert!(lines.any_unknown(&running));
        lines.learn(&running, &[trace(&[("leaf", 20), ("main", 1)])]);
        assert!(!lines.any_unknown(&running));
        assert_eq!(lines.of(&running[0].frames[0]), 20);
        assert_eq!(lines.of(&running[0].frames[1]), 1);
        // Another function of the same name further down is not mixed up with it.
        let other = [trace(&[("leaf", 55), ("main", 3)])];
        assert_eq!(lines.of(&other[0].frames[0]), 20);
        lines.learn(&other, &[trace(&[("leaf", 50), ("main", 1)])]);
        assert_eq!(lines.of(&other[0].frames[0]), 50);
        assert_eq!(lines.of(&running[0].frames[0]), 20);
    }

    #[test]
    fn a_first_line_after_the_running_line_is_not_believed() {
        let mut lines = FirstLines::default();
        let running = [trace(&[("leaf", 25)])];
        lines.learn(&running, &[trace(&[("leaf", 50)])]);
        assert!(lines.any_unknown(&running));
    }

    #[test]
    fn a_panic_in_a_reader_is_a_failed_read() {
        assert_eq!(guarded(|| 1), Some(1));
        assert_eq!(guarded(|| panic!("torn")), None::<i32>);
    }

    #[test]
    fn native_frames_without_blocking_are_refused() {
        let options = ReaderOptions {
            native: true,
            ..ReaderOptions::default()
        };
        assert!(check_options(options).is_err());
    }
}
