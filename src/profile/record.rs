//! The profile itself: meta data, processes, threads, and samples as runs.
//!
//! A *run* is one or more consecutive samples of a thread that saw the same stack in the same state
//! with no call boundary between them. Idle threads therefore cost one run however long they sleep,
//! which is what bounds the memory of a long recording (24 bytes a run).

use rustc_hash::FxHashMap;

use super::aggregate::CallStats;
use super::counts::Counted;
use super::lines::LineCounts;
use super::{FrameId, ProcessId, StackId, Tables, ThreadId};

/// Where the numbers come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Origin {
    /// Samples taken by biopsy.
    #[default]
    Sampled,
    /// Exact counts and times of a deterministic profiler (`--exact`, a `.prof` file, or a `.lprof` file).
    Exact,
    /// Stacks with weights, whose unit is mostly unknown, from a collapsed-stack file.
    Collapsed,
}

/// Facts about a recording as a whole.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Meta {
    /// Where the numbers come from.
    pub origin: Origin,
    /// The target's command line, for people.
    pub command: String,
    /// Version of the target's Python such as `3.11.7`; empty when unknown.
    pub python: String,
    /// Process id of the (first) target; 0 when unknown.
    pub pid: i32,
    /// `wall`, `cpu` or `gil`: what the recording was asked to show.
    pub mode: super::Mode,
    /// Samples a second that were asked for; 0 for full speed or not sampled.
    pub rate_hz: f64,
    /// Start of the recording, milliseconds since 1970-01-01 UTC; 0 when unknown.
    pub started_at_ms: u64,
    /// Length of the recording in microseconds of wall time.
    pub duration_us: u64,
    /// Sampling instants at which the target was read.
    pub samples: u64,
    /// Sampling instants (times processes) at which nothing usable could be read.
    pub given_up: u64,
    /// Reads beyond the first of a sample: something had to be learnt first, or the target moved on meanwhile.
    pub retried: u64,
    /// Mean lateness of a sampling instant, microseconds.
    pub mean_lateness_us: f64,
    /// Whether stacks were read without a guarantee that each existed as a whole.
    pub approximate_stacks: bool,
    /// Whether every sample stopped the target.
    pub blocking: bool,
    /// Whether threads are to be kept apart in outputs.
    pub split_threads: bool,
    /// Whether CPU time was recorded.
    pub has_cpu_time: bool,
    /// Whether it was recorded who waited for the GIL and who collected garbage.
    pub has_states: bool,
    /// Whether it is known that the numbers of [`Origin::Collapsed`] are times.
    pub times_known: bool,
    /// What of the recording is shown, for people; empty for all.
    pub narrowed: String,
    /// The reader that was used and why, for people.
    pub reader: String,
}

impl Meta {
    /// Whether nobody knows what the numbers count.
    pub fn unit_is_unknown(&self) -> bool {
        self.origin == Origin::Collapsed && !self.times_known
    }

    /// `; shown: from 3 s`, where not all is shown.
    pub fn shown(&self) -> String {
        match self.narrowed.as_str() {
            "" => String::new(),
            what => format!("; shown: {what}"),
        }
    }
}

/// A process of the recording.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ProcessInfo {
    /// Process id.
    pub pid: i32,
    /// Process id of its parent; 0 when unknown.
    pub parent: i32,
    /// Version of its Python; empty when unknown.
    pub python: String,
    /// Command line, for people.
    pub command: String,
}

/// A source file as it was when its functions were recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Its name in code objects.
    pub file: String,
    /// Where it was.
    pub path: String,
    /// When it was changed last, milliseconds since 1970-01-01 UTC.
    pub modified_ms: u64,
    /// Its size in bytes.
    pub size: u64,
    /// CRC-32 of its bytes.
    pub hash: u32,
    /// Its text at that time, where it was kept: see [`MOST_TEXT`].
    pub text: Option<std::sync::Arc<str>>,
}

/// Bytes of the text of one source file that is kept; the largest of the standard library have 300 KiB.
pub const MOST_TEXT: u64 = 1 << 20;

/// A thread of the recording.
#[derive(Debug, Clone, PartialEq)]
pub struct ThreadInfo {
    /// The process it belongs to.
    pub process: ProcessId,
    /// OS thread id; 0 when unknown.
    pub os_id: u64,
    /// Python's thread ident (`threading.get_ident()`); 0 when unknown.
    pub python_id: u64,
    /// Name given by `threading`, when known.
    pub name: Option<String>,
    /// When it was first accounted for, microseconds since the start of the recording. Its runs follow
    /// each other from here without a gap.
    pub started_us: u64,
}

/// The state of a thread when it was sampled; bits may be combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct RunState(pub u8);

impl RunState {
    /// The thread was running or ready to run, as the kernel says.
    pub const ON_CPU: RunState = RunState(1);
    /// The thread held the GIL.
    pub const GIL: RunState = RunState(2);
    /// The thread waited for the GIL.
    pub const GIL_WAIT: RunState = RunState(4);
    /// A garbage collection was under way in this thread.
    pub const GC: RunState = RunState(8);
    /// The time is another timeline's: the thread ran a task that has its own.
    pub const ELSEWHERE: RunState = RunState(16);
    /// Handled an exception; recorded for [`super::Mode::Exception`] only.
    pub const HANDLES: RunState = RunState(32);

    /// Whether all bits of `other` are set.
    pub fn has(self, other: RunState) -> bool {
        self.0 & other.0 == other.0
    }

    /// The state but for the bits of `other`.
    #[must_use]
    pub fn without(self, other: RunState) -> RunState {
        RunState(self.0 & !other.0)
    }

    /// Both states' bits.
    #[must_use]
    pub fn with(self, other: RunState) -> RunState {
        RunState(self.0 | other.0)
    }
}

/// Consecutive samples of one thread with the same stack and state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The thread.
    pub thread: ThreadId,
    /// The stack that was seen.
    pub stack: StackId,
    /// Wall time that passed since the thread's previous run, microseconds.
    pub wall_us: u32,
    /// CPU time that the thread used in that time, microseconds.
    pub cpu_us: u32,
    /// Number of samples.
    pub count: u32,
    /// Depth (0-based from the outermost frame) from which on the frames are other invocations than
    /// those of the thread's previous run; 65,535 when none is, or when it is not known so far in.
    pub fresh_from: u16,
    /// The state.
    pub state: RunState,
}

impl Run {
    /// The depth from which on frames of a stack of `depth` are new invocations; `None` when none is.
    pub fn fresh(&self, depth: u32) -> Option<u32> {
        let fresh_from = u32::from(self.fresh_from);
        (self.fresh_from != u16::MAX && fresh_from <= depth).then_some(fresh_from)
    }
}

/// A recording, or what could be read of one from a file.
#[derive(Debug, Clone, Default)]
pub struct Profile {
    /// Facts about the whole.
    pub meta: Meta,
    /// Names and stacks.
    pub tables: Tables,
    /// Processes; `ProcessId` is the position.
    pub processes: Vec<ProcessInfo>,
    /// Threads; `ThreadId` is the position.
    pub threads: Vec<ThreadInfo>,
    /// Samples; those of one thread are in the order of time, unless there are `repeats`.
    pub runs: Vec<Run>,
    /// How many runs each of `runs` stands for, where equal ones were merged whenever they came: then there is no
    /// timeline. Empty where there is one.
    pub repeats: Vec<u32>,
    /// Calls that were counted, at most one row for a function in a thread; none where nothing was counted.
    pub counts: Vec<Counted>,
    /// Source files of the functions, as far as they could be read while recording.
    pub sources: Vec<SourceFile>,
    /// What was counted of lines, or is all that there is (then the origin is [`Origin::Exact`], without `exact`).
    pub lines: Option<LineCounts>,
    /// Exact statistics, when the origin is [`Origin::Exact`]: there are no stacks then.
    pub exact: Option<CallStats>,
    /// The tree that stands for the stacks of `exact` where only a part is shown; else it is estimated when asked for.
    pub estimated: Option<super::CallTree>,
}

impl Profile {
    /// A profile of exact statistics; makes sure that each function has a frame at its first line, which
    /// stands for it in estimated stacks.
    pub fn from_exact(mut tables: Tables, meta: Meta, exact: CallStats) -> Profile {
        for row in &exact.rows {
            tables.frame(row.function, tables.line(row.function));
            for (caller, _) in &row.callers {
                tables.frame(*caller, tables.line(*caller));
            }
        }
        Profile {
            meta,
            tables,
            exact: Some(exact),
            ..Profile::default()
        }
    }

    /// Whether the order of runs is that of time.
    pub fn has_timeline(&self) -> bool {
        self.repeats.is_empty()
    }

    /// How many runs the one at `index` stands for.
    pub fn times(&self, index: usize) -> u32 {
        self.repeats.get(index).copied().unwrap_or(1)
    }

    /// Adds all that `other` recorded of other processes at the same time.
    pub fn absorb(&mut self, other: &Profile) {
        if !(self.has_timeline() && other.has_timeline()) {
            self.repeats.resize(self.runs.len(), 1);
            let more = (0..other.runs.len()).map(|index| other.times(index));
            self.repeats.extend(more);
        }
        let process_base = self.processes.len() as u32;
        let thread_base = self.threads.len() as u32;
        let from = &other.tables;
        let to = &mut self.tables;
        let functions = to.take_functions(from);
        let frames: Vec<FrameId> = from
            .frames()
            .iter()
            .map(|f| to.frame(functions[f.function.index()], f.line))
            .collect();
        let mut stacks: Vec<StackId> = Vec::with_capacity(from.stacks().len());
        for node in from.stacks() {
            let parent = node.parent.map(|parent| stacks[parent.index()]);
            stacks.push(to.stack(parent, frames[node.frame.index()]));
        }
        match (&mut self.lines, &other.lines) {
            (Some(sum), Some(more)) => sum.add(more, &functions),
            (Some(sum), None) => sum.at_least = true,
            (None, Some(more)) => {
                let mut sum = LineCounts {
                    unit: more.unit,
                    // Nobody counted in what is here already.
                    at_least: !self.processes.is_empty(),
                    functions: Vec::new(),
                };
                sum.add(more, &functions);
                self.lines = Some(sum);
            }
            (None, None) => {}
        }
        self.processes.extend(other.processes.iter().cloned());
        self.threads
            .extend(other.threads.iter().map(|info| ThreadInfo {
                process: ProcessId(info.process.0 + process_base),
                ..info.clone()
            }));
        for source in &other.sources {
            if !self.sources.contains(source) {
                self.sources.push(source.clone());
            }
        }
        self.counts.extend(other.counts.iter().map(|counted| {
            Counted {
                thread: ThreadId(counted.thread.0 + thread_base),
                function: functions[counted.function.index()],
                estimate: counted.estimate,
                callers: counted
                    .callers
                    .iter()
                    .map(|(caller, share)| (functions[caller.index()], *share))
                    .collect(),
            }
        }));
        self.runs.extend(other.runs.iter().map(|run| Run {
            thread: ThreadId(run.thread.0 + thread_base),
            stack: stacks[run.stack.index()],
            ..*run
        }));
    }

    /// A person's name of a thread: `MainThread (4711)`, `thread 4711`.
    pub fn thread_label(&self, thread: ThreadId) -> String {
        let info = &self.threads[thread.index()];
        let id = if info.os_id != 0 {
            info.os_id.to_string()
        } else if let (0, Some(name)) = (info.python_id, &info.name) {
            return name.clone();
        } else {
            format!("{:#x}", info.python_id)
        };
        match &info.name {
            Some(name) => format!("{name} ({id})"),
            None => format!("thread {id}"),
        }
    }

    /// A person's name of a process: `4711 python3 server.py`.
    pub fn process_label(&self, process: ProcessId) -> String {
        let info = &self.processes[process.index()];
        if info.command.is_empty() {
            format!("process {}", info.pid)
        } else {
            format!("process {} {}", info.pid, info.command)
        }
    }
}

/// Adds samples to a [`Profile`], merging what belongs to one run.
#[derive(Debug, Clone, Default)]
pub struct Recorder {
    /// The profile so far.
    pub profile: Profile,
    /// Position of each thread's last run.
    last: Vec<Option<usize>>,
    /// Position of the run that equal ones are merged into; `None` where each stays, for a timeline.
    merged: Option<FxHashMap<RunKey, usize>>,
    /// Every sample that was added since somebody took them; `None` where nobody looks.
    pub log: Option<Vec<Sample>>,
}

/// What merged runs have in common.
type RunKey = (ThreadId, StackId, RunState, u16);

/// One sample of one thread, or several that saw the same, as [`Recorder::add`] takes it. Times are since the
/// thread's previous sample.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// The thread.
    pub thread: ThreadId,
    /// Its stack.
    pub stack: StackId,
    /// Number of samples.
    pub count: u32,
    /// Wall time in microseconds.
    pub wall_us: u64,
    /// CPU time in microseconds.
    pub cpu_us: u64,
    /// As [`Run::fresh_from`]; `None` when no frame is a new invocation.
    pub fresh_from: Option<u16>,
    /// State at the sample.
    pub state: RunState,
}

impl Recorder {
    /// One that keeps no timeline: memory then grows with what the target does, not with time.
    pub fn without_timeline() -> Recorder {
        Recorder {
            merged: Some(FxHashMap::default()),
            ..Recorder::default()
        }
    }

    /// From now on keeps no timeline, and merges what there is.
    pub fn forget_timeline(&mut self) {
        if self.merged.is_some() {
            return;
        }
        let runs = std::mem::take(&mut self.profile.runs);
        let log = self.log.take();
        self.merged = Some(FxHashMap::default());
        self.last.fill(None);
        for run in runs {
            self.add(Sample {
                thread: run.thread,
                stack: run.stack,
                count: run.count,
                wall_us: run.wall_us.into(),
                cpu_us: run.cpu_us.into(),
                fresh_from: (run.fresh_from != u16::MAX).then_some(run.fresh_from),
                state: run.state,
            });
        }
        self.log = log;
    }

    /// Has `threads` as its own from now on: those that it had, with more behind them.
    pub fn know(&mut self, threads: Vec<ThreadInfo>) {
        self.last.resize(threads.len(), None);
        self.profile.threads = threads;
    }

    /// Adds a thread.
    pub fn add_thread(&mut self, info: ThreadInfo) -> ThreadId {
        self.profile.threads.push(info);
        self.last.push(None);
        ThreadId(self.profile.threads.len() as u32 - 1)
    }

    /// Takes wall and CPU time away from the last run of a thread.
    pub fn cut(&mut self, thread: ThreadId, wall_us: u64, cpu_us: u64) {
        let last = self.last.get(thread.index()).copied().flatten();
        if let Some(run) = last.and_then(|at| self.profile.runs.get_mut(at)) {
            run.wall_us = run.wall_us.saturating_sub(clamp_u32(wall_us));
            run.cpu_us = run.cpu_us.saturating_sub(clamp_u32(cpu_us));
        }
    }

    /// Adds one sample.
    pub fn add(&mut self, sample: Sample) {
        if let Some(log) = &mut self.log {
            log.push(sample);
        }
        let last = self.last[sample.thread.index()];
        if sample.fresh_from.is_none()
            && let Some(run) = last.map(|at| &mut self.profile.runs[at])
            && run.stack == sample.stack
            && run.state == sample.state
            && run.grow(&sample)
        {
            return;
        }
        let run = Run {
            thread: sample.thread,
            stack: sample.stack,
            wall_us: clamp_u32(sample.wall_us),
            cpu_us: clamp_u32(sample.cpu_us),
            count: sample.count,
            fresh_from: sample.fresh_from.unwrap_or(u16::MAX),
            state: sample.state,
        };
        let at = self.profile.runs.len();
        if let Some(merged) = &mut self.merged {
            let key = (run.thread, run.stack, run.state, run.fresh_from);
            let known = merged.insert(key, at);
            if let Some(known) = known
                && self.profile.runs[known].grow(&sample)
            {
                merged.insert(key, known);
                self.profile.repeats[known] = self.profile.repeats[known].saturating_add(1);
                self.last[sample.thread.index()] = Some(known);
                return;
            }
            self.profile.repeats.push(1);
        }
        self.last[sample.thread.index()] = Some(at);
        self.profile.runs.push(run);
    }
}

impl Run {
    /// Adds a sample that saw the same; false when there is no room for it.
    fn grow(&mut self, sample: &Sample) -> bool {
        let (Some(wall_us), Some(cpu_us), Some(count)) = (
            add_u32(self.wall_us, sample.wall_us),
            add_u32(self.cpu_us, sample.cpu_us),
            self.count.checked_add(sample.count),
        ) else {
            return false;
        };
        (self.wall_us, self.cpu_us, self.count) = (wall_us, cpu_us, count);
        true
    }
}

fn add_u32(a: u32, b: u64) -> Option<u32> {
    u32::try_from(u64::from(a) + b).ok()
}

/// 71 minutes without a sample of a living thread do not happen; were they to, the excess is cut.
fn clamp_u32(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::FunctionKind;

    #[test]
    fn an_idle_thread_is_one_run() {
        let mut recorder = Recorder::default();
        let tables = &mut recorder.profile.tables;
        let function = tables.function("a.py", 1, "wait", FunctionKind::Python);
        let frame = tables.frame(function, 2);
        let stack = tables.stack(None, frame);
        let thread = recorder.add_thread(ThreadInfo {
            process: ProcessId(0),
            os_id: 1,
            python_id: 1,
            name: None,
            started_us: 0,
        });
        let mut sample = Sample {
            thread,
            stack,
            count: 1,
            wall_us: 1000,
            cpu_us: 0,
            fresh_from: Some(0),
            state: RunState::default(),
        };
        recorder.add(sample);
        sample.fresh_from = None;
        for _ in 0..999 {
            recorder.add(sample);
        }
        sample.state = RunState::ON_CPU;
        recorder.add(sample);
        let runs = &recorder.profile.runs;
        assert_eq!(runs.len(), 2);
        assert_eq!((runs[0].count, runs[0].wall_us), (1000, 1_000_000));
        assert_eq!(std::mem::size_of::<Run>(), 24);
        recorder.cut(thread, 300, 0);
        assert_eq!(recorder.profile.runs[1].wall_us, 700);
    }

    #[test]
    fn without_a_timeline_equal_runs_are_one_and_count_as_many() {
        let tables_of = |recorder: &mut Recorder| {
            let tables = &mut recorder.profile.tables;
            let function = tables.function("a.py", 1, "work", FunctionKind::Python);
            let stacks = [2, 3].map(|line| {
                let frame = tables.frame(function, line);
                tables.stack(None, frame)
            });
            let thread = recorder.add_thread(ThreadInfo {
                process: ProcessId(0),
                os_id: 1,
                python_id: 1,
                name: None,
                started_us: 0,
            });
            (stacks, thread)
        };
        let record = |mut recorder: Recorder| {
            let (stacks, thread) = tables_of(&mut recorder);
            for turn in 0..1000usize {
                recorder.add(Sample {
                    thread,
                    stack: stacks[turn % 2],
                    count: 1,
                    wall_us: 100_000_000,
                    cpu_us: 10,
                    fresh_from: (turn % 3 == 0).then_some(0),
                    state: RunState::default(),
                });
            }
            recorder.profile
        };
        let (whole, merged) = (
            record(Recorder::default()),
            record(Recorder::without_timeline()),
        );
        assert!(whole.has_timeline() && !merged.has_timeline());
        assert_eq!(whole.runs.len(), 1000);
        // Two lines, fresh or not, and 42 samples of 100 s in 2^32 us.
        assert!(merged.runs.len() < 1000 / 42 + 5, "{}", merged.runs.len());
        let sum = |profile: &Profile| {
            let runs = profile.runs.iter().enumerate();
            runs.fold((0, 0, 0), |(wall, count, fresh), (at, run)| {
                let new = if run.fresh_from == 0 {
                    profile.times(at)
                } else {
                    0
                };
                (
                    wall + u64::from(run.wall_us),
                    count + run.count,
                    fresh + new,
                )
            })
        };
        assert_eq!(sum(&whole), sum(&merged));
        let trees = [&whole, &merged].map(|profile| {
            let tree = crate::profile::CallTree::of(profile, &crate::profile::Filter::default());
            tree.nodes
                .iter()
                .map(|node| (node.calls, node.self_wall_ns, node.samples))
                .collect::<Vec<_>>()
        });
        assert_eq!(trees[0], trees[1]);
        let mut both = whole.clone();
        both.absorb(&merged);
        assert_eq!(both.repeats.len(), both.runs.len());
    }

    #[test]
    fn what_was_counted_keeps_its_thread_and_functions() {
        use crate::profile::{CallEstimate, CallSource};
        let part = |names: [&str; 2]| {
            let mut profile = Profile::default();
            let mut function = |name| {
                let tables = &mut profile.tables;
                tables.function("a.py", 1, name, FunctionKind::Python)
            };
            let [function, caller] = names.map(&mut function);
            profile.processes.push(ProcessInfo::default());
            profile.threads.push(ThreadInfo {
                process: ProcessId(0),
                os_id: 1,
                python_id: 1,
                name: None,
                started_us: 0,
            });
            profile.counts.push(Counted {
                thread: ThreadId(0),
                function,
                estimate: CallEstimate {
                    calls: 7.0,
                    error: Some(1.0),
                    source: CallSource::Watchpoint,
                },
                callers: vec![(caller, 1.0)],
            });
            profile
        };
        let mut all = part(["f", "main"]);
        all.absorb(&part(["main", "g"]));
        let [_, added] = all.counts.as_slice() else {
            panic!("two rows");
        };
        assert_eq!(added.thread, ThreadId(1));
        assert_eq!(all.tables.name(added.function), "main");
        let names = added
            .callers
            .iter()
            .map(|(caller, _)| all.tables.name(*caller));
        assert_eq!(names.collect::<Vec<_>>(), ["g"]);
    }
}
