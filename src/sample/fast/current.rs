//! Which task a thread runs, in each sample: the one whose outermost coroutine is on the thread's stack.
//!
//! Tasks come and go between two looks at all of them, and get each other's addresses. So one that seems to run is
//! asked for its name, and where a thread seems to run none, the interpreter's own note of the running task is read.

use super::FastReader;
use super::awaits::State;
use super::names::Dicts;
use super::tasks::{Found, Place, Tasks};
use crate::profile::Tables;
use crate::sample::tasks::{MOST_TASKS, Running, TaskStack, TaskStacks, TaskState};
use crate::sample::{FrameSample, ThreadStacks};
use crate::target::memory::Memory;

impl<M: Memory> FastReader<M> {
    /// Finds out which thread runs which task.
    pub(super) fn find_running(
        &mut self,
        tasks: &mut Tasks,
        tables: &mut Tables,
        threads: &ThreadStacks,
        stacks: &mut TaskStacks,
        now_us: u64,
    ) {
        if tasks.place.is_none() {
            return;
        }
        std::mem::swap(&mut tasks.awaits, &mut tasks.live);
        tasks.awaits.forget();
        match_frames(tasks, threads, stacks);
        let running = stacks.running.clone();
        for running in running {
            let Some(task) = stacks.tasks.get(running.task) else {
                continue;
            };
            let place = tasks.place.clone();
            let same = place
                .and_then(|place| self.read_task(tasks, tables, &place, task.address, now_us))
                .is_some_and(|now| self.task_name(now.name()) == task.name);
            if !same {
                let of_task = |known: &mut usize| *known == running.task;
                tasks.by_frame.retain(|_, known| !of_task(known));
                stacks.running.retain(|known| *known != running);
            }
        }
        if look_for_new(tasks, threads, stacks) {
            self.find_current(tasks, tables, threads, stacks, now_us);
            match_frames(tasks, threads, stacks);
        }
        self.read_again(tasks, tables, stacks, now_us);
        std::mem::swap(&mut tasks.awaits, &mut tasks.live);
    }

    /// Reads the stacks of tasks that ran during the last look, once they wait.
    fn read_again(
        &mut self,
        tasks: &mut Tasks,
        tables: &mut Tables,
        stacks: &mut TaskStacks,
        now_us: u64,
    ) {
        stacks.read_again.clear();
        let Some(place) = tasks
            .place
            .clone()
            .filter(|_| !tasks.ran_in_look.is_empty())
        else {
            return;
        };
        for at in std::mem::take(&mut tasks.ran_in_look) {
            if stacks.running.iter().any(|running| running.task == at) {
                tasks.ran_in_look.push(at);
                continue;
            }
            let Some(address) = stacks.tasks.get(at).map(|task| task.address) else {
                continue;
            };
            tasks.awaits.begin_task(true);
            let found = self.read_task(tasks, tables, &place, address, now_us);
            let same = tasks.awaits.is_same(&self.memory);
            tasks.awaits.begin_task(false);
            let runs = |found: &Found| found.state == State::Executing;
            if !same || found.as_ref().is_some_and(runs) {
                tasks.ran_in_look.push(at);
                continue;
            }
            let Some(found) = found.filter(|found| found.state == State::Suspended) else {
                continue;
            };
            let name = self.task_name(found.name());
            let Some(task) = stacks.tasks.get_mut(at).filter(|task| task.name == name) else {
                continue;
            };
            let invocation = |frame: Option<&FrameSample>| frame.map(|frame| frame.invocation);
            if invocation(task.frames.get(task.own + 1)) == invocation(found.frames.first()) {
                task.frames.truncate(task.own + 1);
                task.frames.extend_from_slice(&found.frames);
                task.version = tasks.next().1;
                task.ran = false;
                stacks.read_again.push(at);
            }
        }
    }

    /// Adds tasks that run but were not there at the last look.
    fn find_current(
        &mut self,
        tasks: &mut Tasks,
        tables: &mut Tables,
        threads: &ThreadStacks,
        stacks: &mut TaskStacks,
        now_us: u64,
    ) {
        let Some(place) = tasks.place.clone() else {
            return;
        };
        let mut current = Vec::new();
        match &place {
            Place::Rings(debug) => {
                for (at, thread) in self.threads.iter().enumerate() {
                    let mut stack = threads.threads.get(at).into_iter();
                    if stacks.run_by(at).is_none() && stack.any(|stack| !stack.frames.is_empty()) {
                        let word = thread.address.saturating_add(debug.running_task);
                        current.extend(self.memory.read_word(word).ok());
                    }
                }
            }
            Place::Sets { current: dicts, .. } => {
                let reader = Dicts::new(&self.offsets, &self.memory);
                for dict in dicts {
                    let entries = reader.entries(*dict).unwrap_or_default();
                    current.extend(entries.into_iter().map(|(_, task)| task));
                }
            }
        }
        for address in current.into_iter().filter(|address| *address != 0) {
            let Some(found) = self.read_task(tasks, tables, &place, address, now_us) else {
                continue;
            };
            let Some(first) = found.frames.first().copied() else {
                continue;
            };
            let runs = threads.threads.iter().any(|thread| {
                let mut frames = thread.frames.iter();
                frames.any(|frame| frame.invocation == first.invocation)
            });
            if !runs || tasks.by_frame.contains_key(&first.invocation) {
                continue;
            }
            tasks.name(self, &found, tables);
            let parent = found.awaited_by.iter().find_map(|address| {
                let mut known = stacks.tasks.iter();
                known.find(|task| task.address == *address && task.is_known())
            });
            let (mut frames, mut awaited_by) = (Vec::new(), Vec::new());
            if let Some(parent) = parent {
                frames.clone_from(&parent.frames);
                awaited_by.push(parent.address);
            }
            let own = frames.len();
            frames.extend(tasks.root_of(address));
            frames.extend_from_slice(&found.frames);
            let (id, version) = tasks.next();
            tasks.by_frame.insert(first.invocation, stacks.tasks.len());
            stacks.tasks.push(TaskStack {
                address,
                id,
                name: tasks.text_of(address),
                state: TaskState::Running,
                awaited_by,
                frames,
                own,
                version,
                unknown: true,
                ran: false,
                told_below: false,
            });
        }
    }
}

/// Whether a thread may run a task that is not known yet.
fn look_for_new(tasks: &mut Tasks, threads: &ThreadStacks, stacks: &TaskStacks) -> bool {
    let mut worthwhile = false;
    tasks.looked.resize(threads.threads.len(), (0, None));
    for (at, (thread, looked)) in threads.threads.iter().zip(&mut tasks.looked).enumerate() {
        let now = (thread.frames.len(), thread.frames.last().copied());
        let moved = std::mem::replace(looked, now) != now;
        worthwhile |= (moved || thread.holds_gil) && stacks.run_by(at).is_none();
    }
    worthwhile && stacks.tasks.len() < 2 * MOST_TASKS
}

/// Finds the outermost coroutines of tasks on the threads' stacks.
fn match_frames(tasks: &Tasks, threads: &ThreadStacks, stacks: &mut TaskStacks) {
    stacks.running.clear();
    if tasks.by_frame.is_empty() {
        return;
    }
    for (thread, stack) in threads.threads.iter().enumerate() {
        let mut frames = stack.frames.iter().enumerate().rev();
        let found = frames.find_map(|(depth, frame)| {
            let task = tasks.by_frame.get(&frame.invocation)?;
            (depth > 0).then_some(Running {
                thread,
                depth,
                task: *task,
            })
        });
        stacks.running.extend(found);
    }
}
