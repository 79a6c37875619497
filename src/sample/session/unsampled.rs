//! CPU time of threads that ended before a sample found them, or after their last one: a server with a thread for each request
//! loses a part of its time to such threads, the more the less often it can be sampled. The kernel counts it, for all that have
//! ended together, so it is known how much it is and not of which functions.

use rustc_hash::{FxHashMap, FxHashSet};

use super::{ProcessSampler, Shared};
use crate::profile::record::Sample;
use crate::profile::{
    FunctionKind, Mode, ProcessId, Recorder, Run, RunState, ThreadId, ThreadInfo, UNSAMPLED,
};
use crate::target::threads;
use crate::units::{Pid, Tid};

/// How often the kernel is asked: what ended since is not known where the process has ended too.
const EVERY_US: u64 = 1_000_000;

/// The part of the process's CPU time from which on it is shown: clocks of running threads are behind by up to a tick.
const LEAST: f64 = 0.01;

/// Most threads of which all are asked about: 10 us each.
const MOST_THREADS: usize = 1000;

/// CPU time of the process and of its threads.
#[derive(Debug, Clone, Default)]
struct Clocks {
    process_ns: u64,
    threads_ns: FxHashMap<Tid, u64>,
}

impl Clocks {
    fn of(pid: Pid) -> Option<Clocks> {
        let listed = threads::listed(pid);
        if listed.len() > MOST_THREADS {
            return None;
        }
        let time = |tid: Tid| Some((tid, threads::times(pid, tid)?.0));
        let threads_ns = listed.into_iter().filter_map(time).collect();
        // After the threads' own: one that ends in between is not counted twice.
        let process_ns = threads::process_cpu_ns(pid)?;
        Some(Clocks {
            process_ns,
            threads_ns,
        })
    }

    /// CPU time since `before`, and the part of it of threads that have ended.
    fn since(&self, before: &Clocks) -> (u64, u64) {
        let all = self.process_ns.saturating_sub(before.process_ns);
        let of_living = self.threads_ns.iter().map(|(tid, now)| {
            let then = before.threads_ns.get(tid).copied().unwrap_or(0);
            now.saturating_sub(then)
        });
        let of_living = of_living.fold(0, u64::saturating_add);
        (all, all.saturating_sub(of_living))
    }
}

/// What the kernel has counted since the beginning.
#[derive(Debug, Default)]
pub struct Unsampled {
    before: Option<Clocks>,
    asked_us: u64,
    all_ns: u64,
    ended_ns: u64,
    /// The threads that had not ended when the kernel was asked last.
    living: FxHashSet<Tid>,
}

impl Unsampled {
    /// From now on, where CPU time is shown. Time of tasks is no thread's.
    pub fn new(pid: Pid, shared: &Shared) -> Unsampled {
        let is_wanted = shared.options.mode == Mode::Cpu && !shared.options.tasks;
        Unsampled {
            before: is_wanted.then(|| Clocks::of(pid)).flatten(),
            asked_us: shared.now_us(),
            ..Unsampled::default()
        }
    }

    /// Asks the kernel when it is time for that.
    pub fn look(&mut self, pid: Pid, now_us: u64) {
        if self.before.is_some() && now_us.saturating_sub(self.asked_us) >= EVERY_US {
            self.asked_us = now_us;
            self.ask(pid);
        }
    }

    fn ask(&mut self, pid: Pid) {
        let Some(before) = &self.before else {
            return;
        };
        // A process that has ended has no threads any more, nor one that is about to.
        let now = Clocks::of(pid).filter(|now| !now.threads_ns.is_empty());
        if let Some(now) = now {
            (self.all_ns, self.ended_ns) = now.since(before);
            self.living = now.threads_ns.into_keys().collect();
        }
    }

    /// Adds what samples do not account for. `last`: the threads that the last sample saw.
    pub fn add(mut self, pid: Pid, recorder: &mut Recorder, last: &FxHashSet<ThreadId>) {
        self.ask(pid);
        // Which have ended is what the kernel said when it was asked: a process that is killed has lost some of those that
        // the last sample saw.
        let has_ended = |thread: ThreadId| {
            let os_id = recorder
                .profile
                .threads
                .get(thread.index())
                .map(|info| info.os_id);
            match os_id
                .and_then(|id| i32::try_from(id).ok())
                .filter(|id| *id != 0)
            {
                Some(tid) => !self.living.contains(&Tid(tid)),
                None => !last.contains(&thread),
            }
        };
        let of_ended = |run: &&Run| has_ended(run.thread);
        let runs = recorder.profile.runs.iter().filter(of_ended);
        let sampled_us: u64 = runs.map(|run| u64::from(run.cpu_us)).sum();
        let missing_us = (self.ended_ns / 1000).saturating_sub(sampled_us);
        if missing_us as f64 * 1000.0 < LEAST * self.all_ns.max(1) as f64 {
            return;
        }
        let tables = &mut recorder.profile.tables;
        let function = tables.function("~", 0, UNSAMPLED, FunctionKind::Builtin);
        let frame = tables.frame(function, 0);
        let stack = tables.stack(None, frame);
        let thread = recorder.add_thread(ThreadInfo {
            process: ProcessId(0),
            os_id: 0,
            python_id: 0,
            name: Some(UNSAMPLED.to_string()),
            started_us: 0,
        });
        let mut left_us = missing_us;
        while left_us > 0 {
            // A run has room for an hour.
            let cpu_us = left_us.min(u64::from(u32::MAX));
            left_us -= cpu_us;
            recorder.add(Sample {
                thread,
                stack,
                count: 0,
                wall_us: 0,
                cpu_us,
                fresh_from: None,
                state: RunState::ON_CPU,
            });
        }
    }
}

impl ProcessSampler<'_> {
    /// Adds CPU time that samples do not account for.
    pub(super) fn add_unsampled(&mut self) {
        let last = self.slots.values().map(|slot| slot.id).collect();
        let unsampled = std::mem::take(&mut self.unsampled);
        unsampled.add(self.pid, &mut self.part.recorder, &last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clocks(process_ns: u64, threads: &[(i32, u64)]) -> Clocks {
        Clocks {
            process_ns,
            threads_ns: threads.iter().map(|(tid, ns)| (Tid(*tid), *ns)).collect(),
        }
    }

    #[test]
    fn what_no_living_thread_has_used_is_of_those_that_ended() {
        let before = clocks(1000, &[(1, 500), (2, 300)]);
        // 2 has used 50 more and ended, 3 came, 4 came and went.
        let now = clocks(1000 + 400 + 50 + 30 + 7, &[(1, 900), (3, 30)]);
        assert_eq!(now.since(&before), (487, 57));
        assert_eq!(before.since(&now), (0, 0));
    }

    #[test]
    fn only_what_samples_do_not_account_for_is_added() {
        let missing = |ended_us: u64, is_living: bool| {
            let mut recorder = Recorder::default();
            let tables = &mut recorder.profile.tables;
            let function = tables.function("a.py", 1, "work", FunctionKind::Python);
            let frame = tables.frame(function, 2);
            let stack = tables.stack(None, frame);
            let thread = recorder.add_thread(ThreadInfo {
                process: ProcessId(0),
                os_id: 1,
                python_id: 2,
                name: None,
                started_us: 0,
            });
            recorder.add(Sample {
                thread,
                stack,
                count: 1,
                wall_us: 600,
                cpu_us: 600,
                fresh_from: None,
                state: RunState::ON_CPU,
            });
            let unsampled = Unsampled {
                all_ns: 2_000_000,
                ended_ns: ended_us * 1000,
                living: is_living.then_some(Tid(1)).into_iter().collect(),
                ..Unsampled::default()
            };
            // It was there in the last sample, whether or not it had ended when the kernel was asked.
            let last = [thread].into_iter().collect();
            unsampled.add(Pid(0), &mut recorder, &last);
            let run = recorder.profile.runs.get(1);
            run.map(|run| (run.wall_us, run.cpu_us))
        };
        assert_eq!(missing(900, false), Some((0, 300)));
        assert_eq!(missing(900, true), Some((0, 900)));
        assert_eq!(missing(600, false), None);
        assert_eq!(missing(610, false), None, "less than a hundredth of all");
    }
}
