//! Stacks along await chains in a recording: each asyncio task has a timeline of its own, like a thread, with the
//! task as its outermost frame. While a thread runs a task, its time counts there and not for the thread.

use rustc_hash::FxHashMap;

use super::{FrameSample, ThreadStack};
use crate::profile::record::Sample;
use crate::profile::{ProcessId, Recorder, RunState, StackId, ThreadId, ThreadInfo};

/// Most tasks of one process that are looked at.
pub const MOST_TASKS: usize = 10_000;

/// Tasks that have a timeline of their own; later ones share those of tasks that have ended.
const MOST_TIMELINES: usize = 1000;

/// What stays as it was is recorded at least this often: a run holds no more than 71 minutes.
const LONGEST_US: u64 = 60_000_000;

/// How a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskState {
    /// It has not begun.
    Created,
    /// It waits for something.
    Suspended,
    /// It was running when it was looked at.
    Running,
}

/// One asyncio task.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskStack {
    /// The task object.
    pub address: u64,
    /// Tells it apart from other tasks that have or had the same address.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// How it stands.
    pub state: TaskState,
    /// Tasks that wait for it.
    pub awaited_by: Vec<u64>,
    /// Frames, outermost first: the tasks that wait for it with their coroutines, the task, its coroutines.
    pub frames: Vec<FrameSample>,
    /// Where the task itself is among `frames`.
    pub own: usize,
    /// Changes whenever `frames` do.
    pub version: u64,
    /// Whether nothing is known of it while it does not run: it was found running since the tasks were looked at, or
    /// changed whenever it was.
    pub unknown: bool,
    /// Whether it ran in the last look, and was not seen to wait since: `frames` lacks what it called.
    pub ran: bool,
    /// Whether it only waits for another task: that one's stack has this one's above it, and its time.
    pub told_below: bool,
}

impl TaskStack {
    /// Whether `frames` are what it waits in.
    pub fn is_known(&self) -> bool {
        !(self.unknown || self.ran)
    }

    /// Whether its time is recorded while it does not run.
    fn has_time(&self) -> bool {
        self.is_known() && !self.told_below
    }
}

/// A thread that runs a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Running {
    /// Place of the thread among those of the sample.
    pub thread: usize,
    /// Depth of the task's outermost coroutine on the thread's stack; not 0.
    pub depth: usize,
    /// Place of the task.
    pub task: usize,
}

/// The tasks of a process.
#[derive(Debug, Clone, Default)]
pub struct TaskStacks {
    /// As they were when they were looked at last.
    pub tasks: Vec<TaskStack>,
    /// Which of them run now.
    pub running: Vec<Running>,
    /// Whether some were left out, since there are too many.
    pub cut: bool,
    /// Places of those whose stack was read again since the last sample.
    pub read_again: Vec<usize>,
    /// Counts how often they were looked at.
    pub look: u64,
    /// Tasks in all looks together, and how many of them changed while they were read: those are as at the look before.
    pub looked: u64,
    /// See `looked`.
    pub changing: u64,
}

impl TaskStacks {
    /// The task that a thread runs.
    pub fn run_by(&self, thread: usize) -> Option<Running> {
        let mut running = self.running.iter();
        running.find(|running| running.thread == thread).copied()
    }
}

/// The timeline of a task.
#[derive(Debug)]
struct Timeline {
    id: ThreadId,
    /// Whether another task may have it later.
    shared: bool,
    stack: StackId,
    /// Version of the frames, when the task was not running.
    version: Option<u64>,
    /// Until when its time is recorded, and the sample up to which it is.
    last_us: u64,
    generation: u64,
    /// The look at the tasks that had it last.
    look: u64,
    /// As [`TaskStack::has_time`], when it was recorded last.
    has_time: bool,
}

/// The state of a task that does not run.
fn waiting(has_time: bool) -> RunState {
    match has_time {
        true => RunState::default(),
        false => RunState::ELSEWHERE,
    }
}

impl Timeline {
    /// Records the samples from the last recorded one up to the one before `moment`: the task stayed as it was.
    fn catch_up(&mut self, recorder: &mut Recorder, moment: Moment) {
        let missed = moment.generation.saturating_sub(self.generation + 1);
        if missed == 0 {
            return;
        }
        recorder.add(Sample {
            thread: self.id,
            stack: self.stack,
            count: u32::try_from(missed).unwrap_or(u32::MAX),
            wall_us: moment.last_us.saturating_sub(self.last_us),
            cpu_us: 0,
            fresh_from: None,
            // Of a task that no look has seen yet nobody knows whether it waits or has ended. Those that a look sees
            // and that end before the next one stand for it.
            state: waiting(self.has_time),
        });
        self.last_us = moment.last_us;
        self.generation += missed;
    }
}

/// A timeline whose task has ended.
#[derive(Debug)]
struct Free {
    id: ThreadId,
    stack: StackId,
    last_us: u64,
}

/// What a thread spent on the task that it runs.
#[derive(Debug, Clone, Copy)]
pub struct Spent {
    /// Which task.
    pub running: Running,
    /// The thread's state.
    pub state: RunState,
    /// CPU time, microseconds.
    pub cpu_us: u64,
    /// The depth of the thread's stack from which on there are new calls.
    pub fresh: Option<usize>,
}

/// The timelines of all tasks.
#[derive(Debug, Default)]
pub struct Timelines {
    /// By [`TaskStack::id`].
    by_task: FxHashMap<u64, Timeline>,
    free: Vec<Free>,
    count: usize,
    /// The look that the timelines are of.
    look: u64,
    /// Tasks that ran in the last sample.
    ran: Vec<usize>,
}

/// When a sample was taken.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// The end of the time that it stands for, microseconds since the session's start.
    pub now_us: u64,
    /// The same of the sample before.
    pub last_us: u64,
    /// Counts samples.
    pub generation: u64,
}

impl Timelines {
    /// Adds one sample of all tasks. What stays as it was is recorded when that ends.
    pub fn add(
        &mut self,
        recorder: &mut Recorder,
        tasks: &TaskStacks,
        threads: &[ThreadStack],
        spent: &[Spent],
        moment: Moment,
    ) {
        let running = spent.iter().map(|spent| spent.running.task);
        let ran = std::mem::replace(&mut self.ran, running.clone().collect());
        if tasks.look == self.look {
            let again = tasks.read_again.iter().copied();
            let mut moved: Vec<usize> = running.chain(ran).chain(again).collect();
            moved.sort_unstable();
            moved.dedup();
            for at in moved {
                let spent = spent.iter().find(|spent| spent.running.task == at);
                if let Some(task) = tasks.tasks.get(at)
                    && (spent.is_some() || task.is_known())
                {
                    self.add_task(recorder, task, threads, spent, moment, tasks.look);
                }
            }
            return;
        }
        self.look = tasks.look;
        for (at, task) in tasks.tasks.iter().enumerate() {
            let spent = spent.iter().find(|spent| spent.running.task == at);
            self.add_task(recorder, task, threads, spent, moment, tasks.look);
        }
        let ended: Vec<Timeline> = self
            .by_task
            .extract_if(|_, timeline| timeline.look != tasks.look)
            .map(|(_, timeline)| timeline)
            .collect();
        for timeline in ended {
            self.close(recorder, timeline, moment);
        }
    }

    /// Records the rest of a task that has ended.
    fn close(&mut self, recorder: &mut Recorder, mut timeline: Timeline, moment: Moment) {
        timeline.catch_up(recorder, moment);
        if timeline.shared {
            self.free.push(Free {
                id: timeline.id,
                stack: timeline.stack,
                last_us: timeline.last_us,
            });
        }
    }

    /// Records what is not recorded yet, after the last sample, which is the one before `moment`, and takes back the
    /// time after `moment` that it stands for.
    pub fn finish(&mut self, recorder: &mut Recorder, moment: Moment) {
        for timeline in self.by_task.values_mut() {
            timeline.catch_up(recorder, moment);
            let ahead_us = timeline.last_us.saturating_sub(moment.now_us);
            recorder.cut(timeline.id, ahead_us, ahead_us);
        }
    }

    fn add_task(
        &mut self,
        recorder: &mut Recorder,
        task: &TaskStack,
        threads: &[ThreadStack],
        spent: Option<&Spent>,
        moment: Moment,
        look: u64,
    ) {
        if !self.by_task.contains_key(&task.id) {
            if spent.is_none() && !task.has_time() {
                return;
            }
            let timeline = self.open(recorder, task, moment);
            self.by_task.insert(task.id, timeline);
        }
        let Some(timeline) = self.by_task.get_mut(&task.id) else {
            return;
        };
        timeline.look = look;
        let idle = spent.is_none()
            && timeline.version == Some(task.version)
            && timeline.has_time == task.has_time();
        if idle && moment.now_us.saturating_sub(timeline.last_us) < LONGEST_US {
            return;
        }
        timeline.catch_up(recorder, moment);
        timeline.has_time = task.has_time();
        timeline.generation = moment.generation;
        let mut fresh = None;
        let version = spent.is_none().then_some(task.version);
        if version.is_none() || version != timeline.version {
            let mut frames = task.frames.clone();
            if let Some(spent) = spent {
                frames.truncate(task.own + 1);
                let running = threads.get(spent.running.thread);
                let inner = running.and_then(|thread| thread.frames.get(spent.running.depth..));
                frames.extend_from_slice(inner.unwrap_or_default());
            }
            timeline.stack = super::slot::intern(&mut recorder.profile.tables, &frames);
            // Only who runs calls, and what is new is known from the thread's samples. Tasks at rest show coroutines
            // whose calls counted when they ran; those above a task count on timelines of their own.
            fresh = spent.and_then(|spent| {
                let depth = spent.fresh?.saturating_sub(spent.running.depth);
                Some(task.own + 1 + depth).filter(|depth| *depth < frames.len())
            });
            timeline.version = version;
        }
        recorder.add(Sample {
            thread: timeline.id,
            stack: timeline.stack,
            count: 1,
            wall_us: moment.now_us.saturating_sub(timeline.last_us),
            cpu_us: spent.map_or(0, |spent| spent.cpu_us),
            fresh_from: fresh.and_then(super::countable),
            state: spent.map_or_else(|| waiting(task.has_time()), |spent| spent.state),
        });
        timeline.last_us = moment.now_us;
    }

    /// A timeline for a task that is new.
    fn open(&mut self, recorder: &mut Recorder, task: &TaskStack, moment: Moment) -> Timeline {
        let shares = self.count >= MOST_TIMELINES;
        let free = if shares { self.free.pop() } else { None };
        let id = match free {
            Some(free) => {
                // Time passes on it without a task.
                recorder.add(Sample {
                    thread: free.id,
                    stack: free.stack,
                    count: 1,
                    wall_us: moment.last_us.saturating_sub(free.last_us),
                    cpu_us: 0,
                    fresh_from: None,
                    state: RunState::ELSEWHERE,
                });
                free.id
            }
            None => {
                self.count += 1;
                recorder.add_thread(ThreadInfo {
                    process: ProcessId(0),
                    os_id: 0,
                    python_id: task.address,
                    name: Some(if shares {
                        "more tasks".to_string()
                    } else {
                        format!("task {}", task.name)
                    }),
                    started_us: moment.last_us,
                })
            }
        };
        Timeline {
            id,
            shared: shares,
            stack: StackId(0),
            version: None,
            last_us: moment.last_us,
            generation: moment.generation.saturating_sub(1),
            look: 0,
            has_time: task.has_time(),
        }
    }
}
