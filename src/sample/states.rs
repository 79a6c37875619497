//! What a thread was doing when it was sampled, from what the reader and the kernel say of it; and what is worth
//! telling about that after a session.

use rustc_hash::FxHashSet;

use super::ThreadStack;
use super::slot::Slot;
use crate::profile::states::{self, Contention};
use crate::profile::{Filter, Profile, RunState, ThreadId};
use crate::target::threads::Activity;

/// Shares of the time below which waiting for the GIL, and collecting garbage, are not worth a line.
const LEAST_WAITED: f64 = 0.02;
const LEAST_COLLECTED: f64 = 0.05;

/// The state of a thread. `seen` is what the kernel said of it, `None` where it could not be asked.
pub fn run_state(thread: &ThreadStack, seen: Option<Activity>) -> RunState {
    let mut state = RunState::default();
    // Without a kernel thread to ask, the holder of the GIL is taken to run.
    if seen.map_or(thread.runs_python(), |seen| seen.on_cpu) {
        state = state.with(RunState::ON_CPU);
    }
    if thread.handles {
        state = state.with(RunState::HANDLES);
    }
    if thread.runs_python() && thread.collects {
        state = state.with(RunState::GC);
    }
    if thread.holds_gil {
        state = state.with(RunState::GIL);
    } else if waits_for_gil(thread, seen) {
        state = state.with(RunState::GIL_WAIT);
    }
    state
}

/// Whether it sleeps on one of the lock's own words.
fn waits_for_gil(thread: &ThreadStack, seen: Option<Activity>) -> bool {
    seen.and_then(|seen| seen.wait)
        .is_some_and(|wait| wait.is_futex_in(&thread.gil))
}

/// Lines about threads that were in each other's way, and about garbage collection, for a recording of one process
/// that took `duration_us` and has so many GILs.
fn contention(profile: &Profile, duration_us: u64, gils: usize) -> Vec<String> {
    let gils_us = duration_us.saturating_mul(gils.max(1) as u64);
    let sums = Contention::of(&states::times(profile, &Filter::default()));
    let share = |part: u64, whole: u64| {
        if whole == 0 {
            0.0
        } else {
            (part as f64 / whole as f64).min(1.0)
        }
    };
    let percent = |part, whole| (100.0 * share(part, whole)).round();
    let mut notes = Vec::new();
    if sums.waiting_threads > 0 && share(sums.they_waited_us, duration_us) >= LEAST_WAITED {
        let threads = match sums.waiting_threads {
            1 => "1 thread".to_string(),
            count => format!("{count} threads"),
        };
        let held = match gils {
            0 | 1 => "the GIL was".to_string(),
            several => format!("the {several} GILs were"),
        };
        notes.push(format!(
            "{held} held {} % of the time; {threads} waited for it, {} % of their time",
            percent(sums.held_us, gils_us),
            percent(sums.they_waited_us, sums.their_us),
        ));
    }
    if share(sums.gc_us, duration_us) >= LEAST_COLLECTED {
        notes.push(format!(
            "garbage was collected {} % of the time",
            percent(sums.gc_us, duration_us)
        ));
    }
    notes
}

/// What is worth telling of the threads of a process after a session.
#[derive(Debug, Default)]
pub struct Remarks {
    /// Idents of those that are none of the process's: their stacks are left out.
    pub gone: FxHashSet<u64>,
    /// Those of which it was not known for a sample which of the process's they are.
    unknown: FxHashSet<ThreadId>,
    /// Addresses of the GILs of those that were seen.
    gils: FxHashSet<u64>,
    /// Most of them that a program had which this process was before.
    most_gils: usize,
}

impl Remarks {
    /// Takes note of a thread in a sample.
    pub fn note(&mut self, slot: &Slot, thread: &ThreadStack) {
        if slot.tid.is_none() {
            self.unknown.insert(slot.id);
        }
        if !thread.gil.is_empty() && !self.gils.contains(&thread.gil.start) {
            self.gils.insert(thread.gil.start);
        }
    }

    /// The process is another program from now on, with a GIL of its own in the place of the ones before.
    pub fn another_program(&mut self) {
        self.most_gils = self.most_gils.max(self.gils.len());
        self.gils.clear();
    }

    /// Lines about them, for a recording of one process that took `duration_us`.
    pub fn notes(&self, profile: &Profile, duration_us: u64) -> Vec<String> {
        let gils = self.most_gils.max(self.gils.len());
        let mut notes = contention(profile, duration_us, gils);
        if gils > 1 {
            notes.push(format!(
                "interpreters have GILs of their own, {} in all: the time for which a GIL was held is that of all of \
                 them, added up",
                gils
            ));
        }
        let stacks = match self.gone.len() {
            1 => "a stack was left out whose thread is none".to_string(),
            count => format!("{count} stacks were left out whose threads are none"),
        };
        if !self.gone.is_empty() {
            notes.push(format!(
                "{stacks} of the process: it ended, or a fork left it behind"
            ));
        }
        let threads = &profile.threads;
        let still = |id: &&ThreadId| threads.get(id.index()).is_some_and(|info| info.os_id == 0);
        let unknown = self.unknown.iter().filter(still).count();
        if unknown > 0 {
            let threads = if unknown == 1 { "thread" } else { "threads" };
            notes.push(format!(
                "the CPU time of {unknown} {threads} is the time of holding the GIL: which of the process's threads it \
                 belongs to is not known"
            ));
        }
        notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_does_not_wait() {
        let mut thread = ThreadStack {
            holds_gil: true,
            ..ThreadStack::default()
        };
        let busy = RunState::ON_CPU.with(RunState::GIL);
        assert_eq!(run_state(&thread, None), busy);
        assert_eq!(run_state(&thread, Some(Activity::default())), RunState::GIL);
        thread.collects = true;
        assert_eq!(run_state(&thread, None), busy.with(RunState::GC));
        thread.holds_gil = false;
        assert_eq!(run_state(&thread, None), RunState::default());
        // Without a GIL.
        thread.attached = true;
        let collects = RunState::ON_CPU.with(RunState::GC);
        assert_eq!(run_state(&thread, None), collects);
        thread.collects = false;
        let asleep = Some(Activity::default());
        assert_eq!(run_state(&thread, asleep), RunState::default());
    }
}
