//! Which samples count, and what is kept apart.

use super::{Profile, Run, RunState, ThreadId};

/// Which samples count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// All, as cProfile counts.
    #[default]
    Wall,
    /// Those of threads on a CPU.
    Cpu,
    /// Those of threads that held the GIL.
    Gil,
    /// Those of threads that handled an exception.
    Exception,
}

impl Mode {
    /// The word of the command line.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Wall => "wall",
            Mode::Cpu => "cpu",
            Mode::Gil => "gil",
            Mode::Exception => "exception",
        }
    }
}

/// What is kept apart in an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Split {
    /// All samples in one.
    #[default]
    Merged,
    /// A group for each process.
    Processes,
    /// A group for each thread (of each process).
    Threads,
}

/// Which runs of a profile an output is made of.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter {
    /// By state.
    pub mode: Mode,
    /// By thread: part of the name, or an OS or Python thread id in decimal or hex. `None` for all.
    pub thread: Option<String>,
    /// The one thread that counts, of those that `thread` lets through; `None` for all.
    pub only: Option<ThreadId>,
    /// What is kept apart.
    pub split: Split,
}

impl Filter {
    /// What the recording was made for: its mode; processes apart when there are several; threads apart
    /// when it was asked for.
    pub fn of(profile: &Profile) -> Filter {
        Filter {
            mode: profile.meta.mode,
            thread: None,
            only: None,
            split: if profile.meta.split_threads {
                Split::Threads
            } else if profile.processes.len() > 1 {
                Split::Processes
            } else {
                Split::Merged
            },
        }
    }

    /// Whether samples in `state` count.
    pub fn accepts_state(&self, state: RunState) -> bool {
        match self.mode {
            _ if state.has(RunState::ELSEWHERE) => false,
            Mode::Wall => true,
            Mode::Cpu => state.has(RunState::ON_CPU),
            Mode::Gil => state.has(RunState::GIL),
            Mode::Exception => state.has(RunState::HANDLES),
        }
    }

    /// What a run that counts weighs, microseconds: the time that passed; for [`Mode::Cpu`] the CPU time that
    /// was used in it, where that was recorded, so that waiting for a CPU does not count.
    pub fn weight_us(&self, profile: &Profile, run: &Run) -> u32 {
        if self.mode == Mode::Cpu && profile.meta.has_cpu_time {
            run.cpu_us
        } else {
            run.wall_us
        }
    }

    /// Which threads count, by position.
    pub fn threads(&self, profile: &Profile) -> Vec<bool> {
        profile
            .threads
            .iter()
            .enumerate()
            .map(|(at, info)| match &self.thread {
                _ if self.only.is_some_and(|only| only.index() != at) => false,
                None => true,
                Some(wanted) => {
                    info.os_id.to_string() == *wanted
                        || info.python_id.to_string() == *wanted
                        || format!("{:#x}", info.python_id) == wanted.to_lowercase()
                        || info
                            .name
                            .as_ref()
                            .is_some_and(|name| name.contains(wanted.as_str()))
                }
            })
            .collect()
    }

    /// The runs that count, in recorded order.
    pub fn runs<'a>(&'a self, profile: &'a Profile) -> impl Iterator<Item = &'a Run> + 'a {
        self.indexed_runs(profile).map(|(_, run)| run)
    }

    /// The same with their positions.
    pub fn indexed_runs<'a>(
        &'a self,
        profile: &'a Profile,
    ) -> impl Iterator<Item = (usize, &'a Run)> + 'a {
        let threads = self.threads(profile);
        let runs = profile.runs.iter().enumerate();
        runs.filter(move |(_, run)| threads[run.thread.index()] && self.accepts_state(run.state))
    }
}
