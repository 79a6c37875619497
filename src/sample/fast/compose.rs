//! From tasks that were read one by one to stacks: each below those of the tasks that wait for it.

use rustc_hash::{FxHashMap, FxHashSet};

use super::awaits::State;
use super::tasks::{Found, Tasks};
use crate::sample::tasks::{TaskStack, TaskStacks, TaskState};

/// Tasks above a task that are shown.
pub(super) const MOST_PARENTS: usize = 16;

/// Whether a task stood as it was found when another one was read.
fn is_at_once(task: &Found, other: &Found) -> bool {
    let turns = (task.turn, other.turn);
    turns == (0, 0) || (task.stayed && turns.0 <= turns.1)
}

/// Places of the tasks above those that were read later than the copy was made.
pub(super) fn parents_of_late(all: &[Found]) -> Vec<usize> {
    let addresses = all.iter().enumerate();
    let place: FxHashMap<u64, usize> = addresses.map(|(at, found)| (found.address, at)).collect();
    let waiting = all
        .iter()
        .enumerate()
        .filter(|(_, found)| found.awaits != 0);
    let waits: FxHashMap<u64, usize> = waiting.map(|(at, found)| (found.awaits, at)).collect();
    let late = all.iter().enumerate().filter(|(_, found)| found.turn > 0);
    let mut open: Vec<usize> = late.map(|(at, _)| at).collect();
    let mut met: FxHashSet<usize> = FxHashSet::default();
    while let Some(found) = open.pop().and_then(|at| all.get(at)) {
        let known = found
            .awaited_by
            .iter()
            .filter_map(|parent| place.get(parent));
        for parent in known.chain(waits.get(&found.address)) {
            if met.insert(*parent) {
                open.push(*parent);
            }
        }
    }
    met.into_iter().collect()
}

/// Puts together what was found: each task's stack with those of the tasks that wait for it above, as long as those were
/// there at the same time. Those that are `changing` stay as they were, if they were there.
pub(super) fn compose(
    tasks: &mut Tasks,
    all: &[Found],
    changing: &FxHashSet<u64>,
    stacks: &mut TaskStacks,
) {
    let place: FxHashMap<u64, usize> = all
        .iter()
        .enumerate()
        .map(|(at, found)| (found.address, at))
        .collect();
    // Who waits for a task directly, where the task itself does not know.
    let waits: FxHashMap<u64, u64> = all
        .iter()
        .filter(|found| found.awaits != 0)
        .map(|found| (found.awaits, found.address))
        .collect();
    let parents_of = |found: &Found| -> Vec<u64> {
        let known = found.awaited_by.iter().copied();
        let direct = waits.get(&found.address).copied();
        let mut parents: Vec<u64> = known
            .chain(direct)
            .filter(|parent| place.contains_key(parent))
            .collect();
        parents.sort_unstable();
        parents.dedup();
        parents
    };
    // By name too: another task may have got the address.
    let mut old: FxHashMap<(u64, String), TaskStack> = std::mem::take(&mut stacks.tasks)
        .into_iter()
        .map(|task| ((task.address, task.name.clone()), task))
        .collect();
    tasks.by_frame.clear();
    for (at, found) in all.iter().enumerate() {
        let awaited_by = parents_of(found);
        let mut line = vec![found];
        let mut parent = awaited_by.first().copied();
        while let Some(next) = parent
            .and_then(|parent| place.get(&parent))
            .and_then(|at| all.get(*at))
            && line.len() <= MOST_PARENTS
            && line.last().is_some_and(|below| is_at_once(next, below))
            && !line.iter().any(|known| known.address == next.address)
        {
            line.push(next);
            parent = parents_of(next).first().copied();
        }
        let mut frames = Vec::new();
        let mut own = 0;
        for found in line.iter().rev() {
            own = frames.len();
            frames.extend(tasks.root_of(found.address));
            frames.extend_from_slice(&found.frames);
        }
        if let Some(first) = found.frames.first() {
            tasks.by_frame.insert(first.invocation, at);
        }
        let name = tasks.text_of(found.address);
        let before = old.remove(&(found.address, name.clone()));
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
            awaited_by,
            frames,
            own,
            version,
            transient: false,
        });
    }
    for before in old.into_values() {
        if changing.contains(&before.address) && !before.transient {
            let first = before.frames.get(before.own + 1);
            if let Some(first) = first {
                let known = tasks.by_frame.entry(first.invocation);
                known.or_insert(stacks.tasks.len());
            }
            stacks.tasks.push(before);
        }
    }
    stacks.look += 1;
    tasks
        .names
        .retain(|address, _| place.contains_key(address) || changing.contains(address));
}
