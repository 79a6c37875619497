//! How long threads ran, held the GIL, waited for it, slept and collected garbage.

use super::{Filter, Profile, Run, RunState};

/// A thread that waits for more than its time divided by this is in want of the GIL: others wait now and then.
const GOOD_PART: u64 = 10;

/// Wall time of one thread by state, microseconds. A moment may count in several of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StateTimes {
    /// All of it.
    pub wall_us: u64,
    /// Running or ready to run.
    pub on_cpu_us: u64,
    /// Holding the GIL.
    pub gil_us: u64,
    /// Waiting for the GIL.
    pub gil_wait_us: u64,
    /// Running without the GIL: C code that has released it.
    pub released_us: u64,
    /// Collecting garbage.
    pub gc_us: u64,
    /// Neither running nor holding the GIL nor waiting for it.
    pub idle_us: u64,
}

impl StateTimes {
    fn add(&mut self, run: &Run) {
        let wall_us = u64::from(run.wall_us);
        let state = run.state;
        let (on_cpu, gil) = (state.has(RunState::ON_CPU), state.has(RunState::GIL));
        let waits = state.has(RunState::GIL_WAIT);
        let parts = [
            (true, &mut self.wall_us),
            (on_cpu, &mut self.on_cpu_us),
            (gil, &mut self.gil_us),
            (waits, &mut self.gil_wait_us),
            (on_cpu && !gil && !waits, &mut self.released_us),
            (state.has(RunState::GC), &mut self.gc_us),
            (!on_cpu && !gil && !waits, &mut self.idle_us),
        ];
        for (counts, sum) in parts {
            if counts {
                *sum = sum.saturating_add(wall_us);
            }
        }
    }
}

/// The time of every thread by state; as many as the profile has threads. Those that the filter leaves out have
/// none. The filter's mode is not asked.
pub fn times(profile: &Profile, filter: &Filter) -> Vec<StateTimes> {
    let mut times = vec![StateTimes::default(); profile.threads.len()];
    let wanted = filter.threads(profile);
    for run in &profile.runs {
        let at = run.thread.index();
        if run.state.has(RunState::ELSEWHERE) {
            continue;
        }
        if wanted.get(at) == Some(&true)
            && let Some(times) = times.get_mut(at)
        {
            times.add(run);
        }
    }
    times
}

/// How threads shared the GIL.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Contention {
    /// Time in which some thread held the GIL, microseconds; of all processes.
    pub held_us: u64,
    /// Time in which threads waited for it, microseconds, added up.
    pub waited_us: u64,
    /// Threads that waited for a good part of their time.
    pub waiting_threads: usize,
    /// Time in which those waited, microseconds, added up.
    pub they_waited_us: u64,
    /// All time of those, microseconds.
    pub their_us: u64,
    /// Time in which garbage was collected, microseconds.
    pub gc_us: u64,
}

impl Contention {
    /// Sums up the threads of `times`.
    pub fn of(times: &[StateTimes]) -> Contention {
        let mut sums = Contention::default();
        for thread in times {
            sums.held_us = sums.held_us.saturating_add(thread.gil_us);
            sums.gc_us = sums.gc_us.saturating_add(thread.gc_us);
            sums.waited_us = sums.waited_us.saturating_add(thread.gil_wait_us);
            if thread.gil_wait_us > thread.wall_us / GOOD_PART {
                sums.waiting_threads += 1;
                sums.they_waited_us = sums.they_waited_us.saturating_add(thread.gil_wait_us);
                sums.their_us = sums.their_us.saturating_add(thread.wall_us);
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::record::Sample;
    use crate::profile::{FunctionKind, ProcessId, Recorder, ThreadInfo};

    #[test]
    fn each_state_has_its_time() {
        let mut recorder = Recorder::default();
        let tables = &mut recorder.profile.tables;
        let function = tables.function("a.py", 1, "work", FunctionKind::Python);
        let frame = tables.frame(function, 2);
        let stack = tables.stack(None, frame);
        let threads = [7, 8].map(|id| {
            recorder.add_thread(ThreadInfo {
                process: ProcessId(0),
                os_id: id,
                python_id: id,
                name: None,
                started_us: 0,
            })
        });
        let busy = RunState::ON_CPU.with(RunState::GIL);
        let samples = [
            (0, busy, 500),
            (0, busy.with(RunState::GC), 250),
            (0, RunState::GIL_WAIT, 250),
            (1, RunState::GIL_WAIT, 600),
            (1, RunState::ON_CPU, 300),
            (1, RunState::default(), 100),
        ];
        for (thread, state, wall_us) in samples {
            recorder.add(Sample {
                thread: threads[thread],
                stack,
                count: 1,
                wall_us,
                cpu_us: 0,
                fresh_from: None,
                state,
            });
        }
        let profile = recorder.profile;
        let times = times(&profile, &Filter::default());
        assert_eq!(times[0].gil_us, 750);
        assert_eq!(times[0].on_cpu_us, 750);
        assert_eq!(times[1].released_us, 300);
        assert_eq!(times[1].idle_us, 100);
        let sums = Contention::of(&times);
        assert_eq!((sums.held_us, sums.gc_us), (750, 250));
        assert_eq!(
            (sums.waiting_threads, sums.they_waited_us, sums.their_us),
            (2, 850, 2000)
        );
        let filter = Filter {
            thread: Some("8".to_string()),
            ..Filter::default()
        };
        assert_eq!(super::times(&profile, &filter)[0], StateTimes::default());
    }
}
