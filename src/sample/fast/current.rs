//! Which task a thread runs, in each sample: the one whose outermost coroutine is on the thread's stack.
//!
//! Tasks come and go between two looks at all of them, and get each other's addresses. So one that seems to run is
//! asked for its name, and where a thread seems to run none, the interpreter's own note of the running task is read.

use super::FastReader;
use super::names::Dicts;
use super::tasks::{Place, Tasks};
use crate::profile::Tables;
use crate::sample::ThreadStacks;
use crate::sample::tasks::{MOST_TASKS, Running, TaskStack, TaskStacks, TaskState};
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
        std::mem::swap(&mut tasks.awaits, &mut tasks.live);
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
                known.find(|task| task.address == *address && !task.unknown)
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
