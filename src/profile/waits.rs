//! Who made whom wait: which functions held the GIL while others waited for it, from the times at which threads were seen in
//! both states.

use rustc_hash::FxHashMap;

use super::{Filter, FunctionId, FunctionKind, Profile, Run, RunState, Tables, ThreadId};

/// Where a thread was: its innermost function, and who called it where that is a function of C.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The innermost function.
    pub function: FunctionId,
    /// Its caller; `None` for a function of Python's, which has a file and a line.
    pub caller: Option<FunctionId>,
}

/// Time in which one function waited for the GIL while another one held it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// Where the thread was that held it; `None` where no thread was seen to.
    pub holder: Option<Place>,
    /// Where the thread was that waited.
    pub waiter: Place,
    /// Microseconds, of all threads that waited, added up.
    pub waited_us: u64,
}

/// A part of the time of a thread.
#[derive(Debug, Clone, Copy)]
struct Span {
    begin_us: u64,
    end_us: u64,
    place: Place,
    thread: ThreadId,
}

/// Locks of their own (sub-interpreters) are held by more than one thread at a time: who waits for which one is not known then.
const MOST_HELD: f64 = 1.05;

/// Spans of holders that are looked at for one that waits: they follow each other.
const MOST_HOLDERS: usize = 1 << 16;

/// The waits, the longest first; `None` where it is not known when threads did what, or for which lock they waited.
pub fn waits(profile: &Profile, filter: &Filter) -> Option<Vec<Wait>> {
    if !profile.has_timeline() || !profile.meta.has_states {
        return None;
    }
    let wanted = filter.threads(profile);
    let mut sums: FxHashMap<(Option<Place>, Place), u64> = FxHashMap::default();
    for (holders, waiters) in spans(profile) {
        let first = holders.first().map_or(0, |span| span.begin_us);
        let end = holders.iter().map(|span| span.end_us).max().unwrap_or(0);
        let held: u64 = holders.iter().map(|span| span.end_us - span.begin_us).sum();
        if held as f64 > MOST_HELD * end.saturating_sub(first).max(1) as f64 {
            return None;
        }
        let mut from = 0;
        for waiter in waiters {
            while holders
                .get(from)
                .is_some_and(|holder| holder.end_us <= waiter.begin_us)
            {
                from += 1;
            }
            if wanted.get(waiter.thread.index()) != Some(&true) {
                continue;
            }
            let mut left_us = waiter.end_us - waiter.begin_us;
            let holders = holders.iter().skip(from).take(MOST_HOLDERS);
            for holder in holders.take_while(|holder| holder.begin_us < waiter.end_us) {
                let begin_us = holder.begin_us.max(waiter.begin_us);
                let both_us = holder.end_us.min(waiter.end_us).saturating_sub(begin_us);
                // Two may be seen to hold it within a sample: no moment counts twice.
                let both_us = both_us.min(left_us);
                if both_us > 0 && holder.thread != waiter.thread {
                    left_us -= both_us;
                    *sums.entry((Some(holder.place), waiter.place)).or_default() += both_us;
                }
            }
            if left_us > 0 {
                *sums.entry((None, waiter.place)).or_default() += left_us;
            }
        }
    }
    let mut found: Vec<Wait> = sums
        .into_iter()
        .map(|((holder, waiter), waited_us)| Wait {
            holder,
            waiter,
            waited_us,
        })
        .collect();
    found.sort_by_key(|wait| (std::cmp::Reverse(wait.waited_us), wait.holder, wait.waiter));
    Some(found)
}

/// For each process the times in which its threads held the lock, and those in which they waited for it, in the order of time.
fn spans(profile: &Profile) -> Vec<(Vec<Span>, Vec<Span>)> {
    let mut found = vec![(Vec::new(), Vec::new()); profile.processes.len().max(1)];
    let begun = profile.threads.iter().map(|thread| thread.started_us);
    let mut ends: Vec<u64> = begun.collect();
    for run in &profile.runs {
        let (Some(end), Some(thread)) = (
            ends.get_mut(run.thread.index()),
            profile.threads.get(run.thread.index()),
        ) else {
            continue;
        };
        let begin_us = *end;
        *end = begin_us.saturating_add(run.wall_us.into());
        let span = Span {
            begin_us,
            end_us: *end,
            place: innermost(&profile.tables, run),
            thread: run.thread,
        };
        if let Some((holders, waiters)) = found.get_mut(thread.process.index()) {
            if run.state.has(RunState::GIL) {
                holders.push(span);
            } else if run.state.has(RunState::GIL_WAIT) {
                waiters.push(span);
            }
        }
    }
    for (holders, waiters) in &mut found {
        holders.sort_by_key(|span| (span.begin_us, span.end_us));
        waiters.sort_by_key(|span| (span.begin_us, span.end_us));
    }
    found
}

fn innermost(tables: &Tables, run: &Run) -> Place {
    let node = tables.get_stack(run.stack);
    let function = tables.get_frame(node.frame).function;
    let is_python = tables.get_function(function).kind == FunctionKind::Python;
    let caller = node.parent.filter(|_| !is_python).map(|parent| {
        let frame = tables.get_stack(parent).frame;
        tables.get_frame(frame).function
    });
    Place { function, caller }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::record::Sample;
    use crate::profile::{ProcessId, ProcessInfo, Recorder, ThreadInfo};

    /// Threads by their runs: name of the function, state, microseconds.
    fn recorded(threads: &[&[(&str, RunState, u64)]]) -> Profile {
        let mut recorder = Recorder::default();
        recorder.profile.meta.has_states = true;
        recorder.profile.processes.push(ProcessInfo {
            pid: 1,
            parent: 0,
            python: String::new(),
            command: String::new(),
        });
        for runs in threads {
            let thread = recorder.add_thread(ThreadInfo {
                process: ProcessId(0),
                os_id: 1,
                python_id: 1,
                name: None,
                started_us: 0,
            });
            for (name, state, wall_us) in *runs {
                let tables = &mut recorder.profile.tables;
                let function = tables.function("a.py", 1, name, FunctionKind::Python);
                let frame = tables.frame(function, 1);
                let stack = tables.stack(None, frame);
                recorder.add(Sample {
                    thread,
                    stack,
                    count: 1,
                    wall_us: *wall_us,
                    cpu_us: 0,
                    fresh_from: Some(0),
                    state: *state,
                });
            }
        }
        recorder.profile
    }

    fn named(profile: &Profile) -> Option<Vec<(String, String, u64)>> {
        let name = |place: Place| profile.tables.name(place.function).to_string();
        let found = waits(profile, &Filter::default())?;
        Some(
            found
                .iter()
                .map(|wait| {
                    let holder = wait.holder.map_or("?".to_string(), name);
                    (holder, name(wait.waiter), wait.waited_us)
                })
                .collect(),
        )
    }

    #[test]
    fn each_moment_of_waiting_has_its_holder() {
        let (gil, wait, idle) = (RunState::GIL, RunState::GIL_WAIT, RunState::default());
        let profile = recorded(&[
            &[
                ("a", gil, 40),
                ("b", gil, 30),
                ("b", idle, 100),
                ("a", wait, 20),
            ],
            &[
                ("x", idle, 10),
                ("x", wait, 80),
                ("x", gil, 80),
                ("y", gil, 30),
            ],
        ]);
        let text = |a: &str, b: &str, us| (a.to_string(), b.to_string(), us);
        assert_eq!(
            named(&profile),
            Some(vec![
                text("a", "x", 30),
                text("b", "x", 30),
                text("?", "x", 20),
                text("y", "a", 20),
            ])
        );
    }

    #[test]
    fn who_waits_for_which_of_several_locks_is_not_known() {
        let (gil, wait) = (RunState::GIL, RunState::GIL_WAIT);
        let profile = recorded(&[&[("a", gil, 100)], &[("b", gil, 100)], &[("c", wait, 100)]]);
        assert_eq!(named(&profile), None);
    }
}
