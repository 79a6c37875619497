//! From tasks that were read one by one to stacks: each below those of the tasks that wait for it.

use rustc_hash::{FxHashMap, FxHashSet};

use super::awaits::State;
use super::tasks::{Found, Tasks};
use crate::sample::FrameSample;
use crate::sample::tasks::{TaskStack, TaskStacks, TaskState};

/// Tasks above a task that are shown.
pub(super) const MOST_PARENTS: usize = 128;

/// Most frames of all stacks of one look together.
const MOST_FRAMES: usize = 4 << 20;

/// Who waits for whom among the tasks of one look.
#[derive(Debug)]
pub(super) struct Family<'a> {
    all: &'a [Found],
    place: FxHashMap<u64, usize>,
    /// Who waits for a task directly, where the task itself does not know.
    waits: FxHashMap<u64, usize>,
}

impl<'a> Family<'a> {
    pub(super) fn new(all: &'a [Found]) -> Family<'a> {
        let addresses = all.iter().enumerate();
        let waiting = all
            .iter()
            .enumerate()
            .filter(|(_, found)| found.awaits != 0);
        Family {
            all,
            place: addresses.map(|(at, found)| (found.address, at)).collect(),
            waits: waiting.map(|(at, found)| (found.awaits, at)).collect(),
        }
    }

    /// Addresses and places of the tasks that wait for one.
    fn parents(&self, found: &Found) -> Vec<(u64, usize)> {
        let known = found
            .awaited_by
            .iter()
            .filter_map(|parent| self.place.get(parent));
        let places = known.chain(self.waits.get(&found.address)).copied();
        let mut parents: Vec<(u64, usize)> = places
            .filter_map(|at| Some((self.all.get(at)?.address, at)))
            .collect();
        parents.sort_unstable();
        parents.dedup();
        parents
    }

    /// A task and those above it in its stack, which are the first of each one's parents.
    fn line(&self, at: usize, parents: &[Option<usize>]) -> Vec<usize> {
        let mut line = vec![at];
        let mut next = parents.get(at).copied().flatten();
        while let Some(parent) = next
            && line.len() <= MOST_PARENTS
            && !line.contains(&parent)
        {
            line.push(parent);
            next = parents.get(parent).copied().flatten();
        }
        line
    }

    fn first_parents(&self) -> Vec<Option<usize>> {
        let first = |found| self.parents(found).first().map(|(_, at)| *at);
        self.all.iter().map(first).collect()
    }

    /// Places of the tasks that were read later than the copy was made, and of those around them that have to have
    /// stayed: without any other task at either end there is nothing to fit together.
    pub(super) fn near_late(&self) -> Vec<usize> {
        let mut met: FxHashSet<usize> = FxHashSet::default();
        let late = |at: &usize| self.all.get(*at).is_some_and(|found| found.turn > 0);
        let mut open: Vec<usize> = (0..self.all.len()).filter(late).collect();
        while let Some(at) = open.pop() {
            let Some(found) = self.all.get(at) else {
                continue;
            };
            let parents = self.parents(found);
            if !parents.is_empty() {
                met.insert(at);
            }
            for (_, parent) in parents {
                if met.insert(parent) {
                    open.push(parent);
                }
            }
        }
        met.into_iter().collect()
    }

    /// Whether all tasks of a line stood as they were found at one time: when the last of them was read.
    fn is_whole(&self, line: &[usize]) -> bool {
        let found = || line.iter().filter_map(|at| self.all.get(*at));
        let last = found().map(|found| found.turn).max().unwrap_or(0);
        found().all(|found| found.turn == last || found.stayed)
    }

    /// Whether that is so for all.
    pub(super) fn is_whole_everywhere(&self) -> bool {
        if self.all.iter().all(|found| found.turn == 0) {
            return true;
        }
        let parents = self.first_parents();
        (0..self.all.len()).all(|at| self.is_whole(&self.line(at, &parents)))
    }
}

/// Which tasks are shown in the stack of another one only. Where tasks wait for each other, one of them has to be shown
/// for itself.
fn told_below(lines: &[Vec<usize>], counted: &[bool]) -> Vec<bool> {
    let mut below = vec![false; lines.len()];
    let mark = |marks: &mut Vec<bool>, line: &[usize]| {
        for at in line.iter().skip(1) {
            if let Some(mark) = marks.get_mut(*at) {
                *mark = true;
            }
        }
    };
    let is = |marks: &[bool], at: usize| marks.get(at).copied().unwrap_or(false);
    for (at, line) in lines.iter().enumerate() {
        if is(counted, at) {
            mark(&mut below, line);
        }
    }
    let mut told = vec![false; lines.len()];
    let shown = |at: usize| is(counted, at) && !is(&below, at);
    for (_, line) in lines.iter().enumerate().filter(|(at, _)| shown(*at)) {
        mark(&mut told, line);
    }
    for (at, line) in lines.iter().enumerate() {
        if is(&below, at) && is(counted, at) && !is(&told, at) {
            mark(&mut told, line);
            if let Some(own) = told.get_mut(at) {
                *own = false;
            }
        }
    }
    told
}

/// Tasks that were there before stay as they were.
fn keep(kept: impl Iterator<Item = TaskStack>, tasks: &mut Tasks, stacks: &mut TaskStacks) {
    for before in kept {
        let first = before.frames.get(before.own + 1);
        if let Some(first) = first {
            let known = tasks.by_frame.entry(first.invocation);
            known.or_insert(stacks.tasks.len());
        }
        if before.ran {
            tasks.ran_in_look.push(stacks.tasks.len());
        }
        stacks.tasks.push(before);
    }
}

/// Puts together what was found: each task's stack with those of the tasks that wait for it above. A stack of which not
/// all was there at the same time is none: that task, and those that are `changing`, stay as they were, if they were
/// there.
pub(super) fn compose(
    tasks: &mut Tasks,
    all: &[Found],
    changing: &mut FxHashSet<u64>,
    stacks: &mut TaskStacks,
) {
    let family = Family::new(all);
    let first_parents = family.first_parents();
    let lines: Vec<Vec<usize>> = (0..all.len())
        .map(|at| family.line(at, &first_parents))
        .collect();
    let mut counted: Vec<bool> = lines.iter().map(|line| family.is_whole(line)).collect();
    // By name too: another task may have got the address.
    let mut old: FxHashMap<(u64, String), TaskStack> = std::mem::take(&mut stacks.tasks)
        .into_iter()
        .map(|task| ((task.address, task.name.clone()), task))
        .collect();
    tasks.by_frame.clear();
    tasks.ran_in_look.clear();
    let mut room = MOST_FRAMES;
    for ((at, found), line) in all.iter().enumerate().zip(&lines) {
        let members = || line.iter().rev().filter_map(|at| all.get(*at));
        let length: usize = members().map(|found| found.frames.len() + 1).sum();
        let name = tasks.text_of(found.address);
        let before = old.remove(&(found.address, name.clone()));
        let is_whole = counted.get(at).copied().unwrap_or(false);
        let kept = before
            .as_ref()
            .filter(|before| !is_whole && !before.unknown);
        let mut frames: Vec<FrameSample> = Vec::new();
        let mut own = 0;
        let mut is_known = is_whole || kept.is_some();
        if let Some(kept) = kept {
            frames.clone_from(&kept.frames);
            own = kept.own;
        } else if length <= room {
            for found in members() {
                own = frames.len();
                frames.extend(tasks.root_of(found.address));
                frames.extend_from_slice(&found.frames);
            }
        } else {
            stacks.cut = true;
            frames.extend(tasks.root_of(found.address));
            is_known = false;
        }
        room = room.saturating_sub(frames.len());
        if let Some(counted) = counted.get_mut(at) {
            *counted = is_known;
        }
        if !is_whole {
            changing.insert(found.address);
        }
        if let Some(first) = found.frames.first() {
            tasks.by_frame.insert(first.invocation, at);
        }
        // Of what it called when it ran nothing was read: that stack is none to wait in.
        let ran = found.state == State::Executing || kept.is_some_and(|kept| kept.ran);
        if ran && is_known {
            tasks.ran_in_look.push(at);
        }
        let (mut id, mut version) = tasks.next();
        if let Some(before) = before {
            id = before.id;
            if before.frames == frames {
                version = before.version;
            }
        }
        stacks.tasks.push(TaskStack {
            address: found.address,
            id,
            name,
            state: match found.state {
                State::Created => TaskState::Created,
                State::Executing => TaskState::Running,
                _ => TaskState::Suspended,
            },
            awaited_by: family
                .parents(found)
                .into_iter()
                .map(|(address, _)| address)
                .collect(),
            frames,
            own,
            version,
            unknown: !is_known,
            ran,
            told_below: false,
        });
    }
    for (told, task) in told_below(&lines, &counted)
        .into_iter()
        .zip(&mut stacks.tasks)
    {
        task.told_below = told;
    }
    let left = old.into_values();
    keep(
        left.filter(|before| changing.contains(&before.address) && !before.unknown),
        tasks,
        stacks,
    );
    stacks.look += 1;
    tasks
        .names
        .retain(|address, _| family.place.contains_key(address) || changing.contains(address));
}
