//! The processes of a session: a sampler thread for each, children as they come, and the end.

use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use rustc_hash::FxHashSet;

use super::{CHILD_SCAN, Part, Root, STOP_SCAN, Shared, sample_process};
use crate::error::{Error, ErrorKind, Result, io_reason};
use crate::sample::choose::Patience;
use crate::target::process;
use crate::units::Pid;

/// The processes of a session.
pub(super) struct Family {
    root: Root,
    /// By id and start time, since ids are used again.
    known: FxHashSet<(Pid, u64)>,
    samplers: Vec<(Pid, JoinHandle<Result<Part>>)>,
}

impl Family {
    /// None sampled yet.
    pub(super) fn new(root: Root) -> Family {
        Family {
            root,
            known: FxHashSet::default(),
            samplers: Vec::new(),
        }
    }

    pub(super) fn spawn(&mut self, pid: Pid, patience: Patience, shared: &Shared) -> Result<()> {
        let Some(stat) = process::stat(pid) else {
            return if pid == self.root.pid() {
                Err(process::gone(pid))
            } else {
                Ok(())
            };
        };
        if !self.known.insert((pid, stat.start_ticks)) {
            return Ok(());
        }
        let shared = shared.clone();
        let sampler = std::thread::Builder::new()
            .name(format!("sample {pid}"))
            .spawn(move || {
                let part = sample_process(pid, patience, &shared);
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
        self.samplers.push((pid, sampler));
        Ok(())
    }

    /// Until `--duration` is over; `None` when there is no such limit (yet). It is counted from the moment when
    /// the process was open, or from the start of a program that may never become a Python.
    fn time_left(&self, shared: &Shared) -> Option<Duration> {
        let limit = shared.options.duration?;
        let since = match (shared.opened.get(), self.root) {
            (Some(opened), _) => *opened,
            (None, Root::Started(_)) => shared.epoch,
            (None, Root::Running(_)) => return None,
        };
        Some(limit.saturating_sub(since.elapsed()))
    }

    /// Looks for children and for the end; gives the samplers' results, the root's first.
    pub(super) fn watch(mut self, shared: &Shared) -> Result<Vec<(Pid, Result<Part>)>> {
        let nap = if shared.options.subprocesses {
            CHILD_SCAN
        } else {
            STOP_SCAN
        };
        loop {
            let left = self.time_left(shared);
            if left == Some(Duration::ZERO) {
                shared.stop.store(true, Ordering::SeqCst);
            }
            let ended = shared.ended.load(Ordering::SeqCst) == self.samplers.len();
            if shared.stop.load(Ordering::Relaxed) || ended {
                self.samplers
                    .iter()
                    .for_each(|(_, sampler)| sampler.thread().unpark());
                break;
            }
            if shared.options.subprocesses {
                let mut todo: Vec<Pid> = self.known.iter().map(|(pid, _)| *pid).collect();
                while let Some(pid) = todo.pop() {
                    for child in process::children(pid) {
                        let before = self.known.len();
                        self.spawn(child, Patience::Forever, shared)?;
                        if self.known.len() > before {
                            todo.push(child);
                        }
                    }
                }
            }
            // A sampler that is open or has ended wakes us.
            std::thread::park_timeout(left.map_or(nap, |left| left.min(nap)));
        }
        let join = |(pid, sampler): (Pid, JoinHandle<Result<Part>>)| {
            let part = sampler.join().unwrap_or_else(|_| {
                Err(Error::new(
                    ErrorKind::Failed,
                    format!("cannot sample process {pid}"),
                    "the sampler failed",
                ))
            });
            (pid, part)
        };
        Ok(self.samplers.into_iter().map(join).collect())
    }
}
