//! The processes of a session: a sampler thread for each, children as they come, and the end.

use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustc_hash::FxHashSet;

use super::{CHILD_SCAN, Part, Root, STOP_SCAN, Shared, sample_process};
use crate::error::{Error, ErrorKind, Result, io_reason};
use crate::sample::choose::Patience;
use crate::target::locate::{self, ProgramKind};
use crate::target::{launch, process};
use crate::units::Pid;

/// Most processes that are named one by one.
const MOST_NAMED: usize = 8;

/// The processes of a session.
pub(super) struct Family {
    root: Root,
    /// By id and start time, since ids are used again.
    known: FxHashSet<(Pid, u64)>,
    samplers: Vec<(Pid, u64, JoinHandle<Result<Part>>)>,
    /// A child that looks like Python, while children are not followed and the root is no Python.
    python_child: Option<String>,
    /// Whether the root's failure was told.
    told: bool,
}

/// What a family brought.
pub(super) struct Gathered {
    /// Each process's result, the root's first.
    pub(super) parts: Vec<(Pid, Result<Part>)>,
    /// What the user should know.
    pub(super) notes: Vec<String>,
    /// A child that looks like Python and was not followed.
    pub(super) python_child: Option<String>,
}

impl Family {
    /// None sampled yet.
    pub(super) fn new(root: Root) -> Family {
        Family {
            root,
            known: FxHashSet::default(),
            samplers: Vec::new(),
            python_child: None,
            told: false,
        }
    }

    pub(super) fn spawn(&mut self, pid: Pid, patience: Patience, shared: &Shared) -> Result<()> {
        let is_root = pid == self.root.pid();
        let start = match process::stat(pid) {
            Some(stat) => stat.start_ticks,
            // Over already: what it leaves behind is told all the same.
            None if self.root == Root::Started(pid) => 0,
            None if is_root => return Err(process::gone(pid)),
            None => return Ok(()),
        };
        if !self.known.insert((pid, start)) {
            return Ok(());
        }
        let shared = shared.clone();
        let sampler = std::thread::Builder::new()
            .name(format!("sample {pid}"))
            .spawn(move || {
                let part = sample_process(pid, patience, &shared);
                match &part {
                    Err(error) if is_root => {
                        let _ = shared.failed.set((Instant::now(), error.clone()));
                    }
                    Err(error) => shared.left_out(left_out(pid, error)),
                    Ok(_) => {}
                }
                shared.ended.fetch_add(1, Ordering::SeqCst);
                shared.supervisor.unpark();
                part
            })
            .map_err(|error| {
                Error::new(
                    ErrorKind::Failed,
                    "cannot start a thread",
                    io_reason(&error),
                )
            })?;
        self.samplers.push((pid, start, sampler));
        Ok(())
    }

    /// Until `--duration` is over; `None` when there is no such limit (yet). It is counted from the moment when
    /// the process was open or could not be opened, or from the start of a program that may never become a Python.
    fn time_left(&self, shared: &Shared) -> Option<Duration> {
        let limit = shared.options.duration?;
        let since = match (shared.opened.get(), shared.failed.get(), self.root) {
            (Some(opened), _, _) => *opened,
            (None, _, Root::Started(_)) => shared.epoch,
            (None, Some((failed, _)), Root::Running(_)) => *failed,
            (None, None, Root::Running(_)) => return None,
        };
        Some(limit.saturating_sub(since.elapsed()))
    }

    /// Looks for children and for the end.
    pub(super) fn watch(mut self, shared: &Shared) -> Result<Gathered> {
        let followed = shared.options.subprocesses;
        loop {
            let left = self.time_left(shared);
            if left == Some(Duration::ZERO) {
                shared.stop.store(true, Ordering::SeqCst);
            }
            // Before it is asked whether all have ended: the root may fail at once and its children not.
            if followed && !shared.stop.load(Ordering::Relaxed) {
                self.find_children(shared)?;
            }
            let ended = shared.ended.load(Ordering::SeqCst) == self.samplers.len();
            if shared.stop.load(Ordering::Relaxed) || ended {
                self.samplers
                    .iter()
                    .for_each(|(_, _, sampler)| sampler.thread().unpark());
                break;
            }
            let mut nap = STOP_SCAN;
            if followed {
                nap = CHILD_SCAN;
                self.tell_failure(shared);
            } else if shared.opened.get().is_none() && matches!(self.root, Root::Started(_)) {
                nap = CHILD_SCAN;
                self.look_for_python();
            }
            // A sampler that is open or has ended wakes us.
            std::thread::park_timeout(left.map_or(nap, |left| left.min(nap)));
        }
        let outlives = self.outliving();
        let join = |(pid, _, sampler): (Pid, u64, JoinHandle<Result<Part>>)| {
            let part = sampler.join().unwrap_or_else(|_| {
                Err(Error::new(
                    ErrorKind::Failed,
                    format!("cannot sample process {pid}"),
                    "the sampler failed",
                ))
            });
            (pid, part)
        };
        let parts: Vec<_> = self.samplers.into_iter().map(join).collect();
        let mut notes = shared.take_left_out();
        let sampled = outlives.into_iter().filter(|(pid, _)| {
            let part = parts.iter().find(|(known, _)| known == pid);
            part.is_some_and(|(_, part)| part.is_ok())
        });
        notes.extend(sampled.map(|(pid, command)| {
            format!(
                "process {pid} ({command}) goes on after the program's end: it is left out from then on; biopsy attach {pid} \
                 samples it"
            )
        }));
        let over = notes.len().saturating_sub(MOST_NAMED);
        if over > 0 {
            notes.truncate(MOST_NAMED);
            notes.push(format!("{over} more processes are left out in such ways"));
        }
        let ended = early_ends(&parts);
        if ended > 0 {
            notes.push(format!(
                "child processes that ended before they could be read: {ended}; they are left out"
            ));
        }
        Ok(Gathered {
            parts,
            notes,
            python_child: self.python_child,
        })
    }

    /// Starts to sample what is new in the tree. Orphans of a program that we started are our children.
    fn find_children(&mut self, shared: &Shared) -> Result<()> {
        let mut todo: Vec<Pid> = self.known.iter().map(|(pid, _)| *pid).collect();
        if matches!(self.root, Root::Started(_)) {
            let me = Pid(std::process::id() as i32);
            launch::reap_orphans(me, self.root.pid());
            todo.push(me);
        }
        while let Some(pid) = todo.pop() {
            for child in process::children(pid) {
                let before = self.known.len();
                self.spawn(child, Patience::Forever, shared)?;
                if self.known.len() > before {
                    todo.push(child);
                }
            }
        }
        Ok(())
    }

    /// Says at once that the root cannot be read, while its children are followed.
    fn tell_failure(&mut self, shared: &Shared) {
        if let Some((_, error)) = shared.failed.get()
            && !self.told
        {
            self.told = true;
            shared
                .progress
                .say(&format!("{error}; only its children are followed"));
        }
    }

    /// Whether a program that is no Python itself has started one.
    fn look_for_python(&mut self) {
        let mut todo = vec![self.root.pid()];
        while let Some(pid) = todo.pop()
            && self.python_child.is_none()
        {
            for child in process::children(pid) {
                if locate::kind(child) != ProgramKind::Unknown {
                    self.python_child = Some(format!(
                        "process {child}, {}",
                        process::short_command_line(child)
                    ));
                }
                todo.push(child);
            }
        }
    }

    /// What is sampled and goes on though the program that we started has ended.
    fn outliving(&self) -> Vec<(Pid, String)> {
        if matches!(self.root, Root::Running(_)) || process::is_alive(self.root.pid()) {
            return Vec::new();
        }
        let alive = self.samplers.iter().filter(|(pid, start, _)| {
            process::is_alive(*pid)
                && process::stat(*pid).is_some_and(|stat| stat.start_ticks == *start)
        });
        alive
            .map(|(pid, _, _)| (*pid, process::short_command_line(*pid)))
            .collect()
    }
}

/// What to say of a child that could not be sampled; `None` for what is no Python, or has ended.
fn left_out(pid: Pid, error: &Error) -> Option<String> {
    let known = match error.kind() {
        ErrorKind::UnsupportedPython => true,
        ErrorKind::NotPermitted => locate::kind(pid) != ProgramKind::Unknown,
        _ => false,
    };
    let command = match process::short_command_line(pid) {
        command if command.is_empty() => String::new(),
        command => format!(" ({command})"),
    };
    known.then(|| format!("process {pid}{command} is left out: {}", error.why()))
}

/// How many children ended before they could be read.
fn early_ends(parts: &[(Pid, Result<Part>)]) -> usize {
    let children = parts.iter().skip(1);
    children
        .filter(|(_, part)| {
            part.as_ref()
                .is_err_and(|error| error.kind() == ErrorKind::ProcessEnded)
        })
        .count()
}
