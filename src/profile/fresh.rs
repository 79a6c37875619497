//! Which invocations are new among the samples that count.
//!
//! A run says what is new since the thread's previous run. Where that one does not count (it is outside of a stretch of
//! time, or the thread did not run in `--mode cpu`), what was new in it is new in the next one that counts and still has
//! it. So a call that is on the stack in a part of a recording is one of that part's calls, whenever it began. Runs are compared
//! with those of the same outermost frame, as when they were recorded.

use std::ops::Range;

use rustc_hash::{FxHashMap, FxHashSet};

use super::{FunctionId, Profile, Run, RunState, StackId, Tables, ThreadId};

/// Follows the runs of a profile in their order.
pub(super) struct Fresh<'a> {
    tables: &'a Tables,
    timeline: bool,
    /// The outermost function of each stack.
    roots: Vec<FunctionId>,
    /// Depths of calls that have begun and did not count yet, by thread and outermost function.
    waiting: FxHashMap<(ThreadId, FunctionId), Waiting>,
    /// Of which some run counted already.
    counted: FxHashSet<(ThreadId, FunctionId)>,
}

/// Calls that have begun and did not count yet.
#[derive(Debug, Clone)]
struct Waiting {
    depths: Range<u32>,
    /// The last stack that had them.
    stack: StackId,
}

impl<'a> Fresh<'a> {
    pub(super) fn of(profile: &'a Profile) -> Fresh<'a> {
        let tables = &profile.tables;
        let mut roots: Vec<FunctionId> = Vec::with_capacity(tables.stacks().len());
        for stack in tables.stacks() {
            let outer = stack.parent.and_then(|parent| roots.get(parent.index()));
            let own = || tables.get_frame(stack.frame).function;
            roots.push(outer.copied().unwrap_or_else(own));
        }
        Fresh {
            tables,
            timeline: profile.has_timeline(),
            roots,
            waiting: FxHashMap::default(),
            counted: FxHashSet::default(),
        }
    }

    /// The depths of calls that are new in the next run, beside those that it says itself; none where it does not count.
    pub(super) fn next(&mut self, run: &Run, counts: bool) -> Range<u32> {
        let none = 0..0;
        let depth = self.tables.get_stack(run.stack).depth;
        let own = run.fresh(depth);
        let Some(root) = self.roots.get(run.stack.index()) else {
            return none;
        };
        let key = (run.thread, *root);
        // Without the order of time it is known of each run when it came first, and so what was before the first that counts.
        if !self.timeline && self.counted.contains(&key) {
            return none;
        }
        let old = self.waiting.get(&key).map(|waiting| waiting.depths.clone());
        // What is further in than this has ended, or is new.
        let old = old.map_or(none.clone(), |old| {
            old.start..old.end.min(depth + 1).min(own.unwrap_or(u32::MAX))
        });
        if counts {
            self.waiting.remove(&key);
            if !self.timeline {
                self.counted.insert(key);
            }
            return old;
        }
        let depths = match (own, old.is_empty()) {
            (Some(own), true) => own..depth + 1,
            (Some(own), false) if own == old.end => old.start..depth + 1,
            // With a call in between that is no new one: what is behind that is forgotten.
            _ => old,
        };
        match depths.is_empty() {
            true => drop(self.waiting.remove(&key)),
            false => {
                let stack = run.stack;
                self.waiting.insert(key, Waiting { depths, stack });
            }
        }
        none
    }

    /// Runs without any time that stand for all that did not count: what had begun in them.
    pub(super) fn left(self) -> Vec<Run> {
        let mut left: Vec<Run> = Vec::new();
        for ((thread, _), Waiting { depths, stack }) in self.waiting {
            let mut own = Some(stack);
            while let Some(outer) = own.filter(|at| self.tables.get_stack(*at).depth >= depths.end)
            {
                own = self.tables.get_stack(outer).parent;
            }
            let fresh_from = u16::try_from(depths.start).unwrap_or(u16::MAX);
            left.extend(own.map(|stack| Run {
                thread,
                stack,
                wall_us: 0,
                cpu_us: 0,
                count: 0,
                fresh_from,
                state: RunState::ELSEWHERE,
            }));
        }
        left.sort_by_key(|run| (run.thread, run.stack));
        left
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Sample;
    use super::super::{
        CallTree, Filter, FunctionKind, Mode, ProcessId, Recorder, Selection, ThreadInfo,
    };
    use super::*;

    #[test]
    fn without_a_timeline_what_came_before_the_first_run_that_counts_is_known() {
        let mut recorder = Recorder::without_timeline();
        recorder.profile.processes.push(Default::default());
        for thread in 0..2 {
            let id = recorder.add_thread(ThreadInfo {
                process: ProcessId(0),
                os_id: thread + 1,
                python_id: thread + 1,
                name: None,
                started_us: 0,
            });
            let samples = [
                ("main wait", Some(0), 0),
                ("main", None, 1),
                ("main wait", Some(1), 1),
            ];
            for (names, fresh_from, on_cpu) in samples {
                let tables = &mut recorder.profile.tables;
                let mut stack = None;
                for name in names.split(' ') {
                    let function = tables.function("a.py", 1, name, FunctionKind::Python);
                    let frame = tables.frame(function, 1);
                    stack = Some(tables.stack(stack, frame));
                }
                recorder.add(Sample {
                    thread: id,
                    stack: stack.expect("a stack"),
                    count: 1,
                    wall_us: 1000,
                    cpu_us: 0,
                    fresh_from,
                    state: RunState(on_cpu),
                });
            }
        }
        let profile = recorder.profile;
        let filter = Filter {
            mode: Mode::Cpu,
            ..Filter::default()
        };
        let calls = profile.stats(&filter).rows.into_iter();
        let calls: Vec<_> = calls
            .map(|row| (profile.tables.name(row.function), row.ncalls))
            .collect();
        assert_eq!(calls, [("main", 2), ("wait", 2)]);
    }

    const THREADS: u64 = 3;

    /// A thread of a program that calls at random, and who is on its stack: function and number of the call.
    #[derive(Default)]
    struct Program {
        seed: u64,
        calls: u64,
        stack: Vec<(u32, u64)>,
    }

    impl Program {
        fn random(&mut self, below: u64) -> u64 {
            self.seed = self.seed.wrapping_mul(6364136223846793005).wrapping_add(1);
            (self.seed >> 33) % below
        }

        /// Goes on; gives the depth from which on calls are new.
        fn go_on(&mut self) -> Option<u16> {
            let kept = match self.stack.len() {
                0 => 0,
                1 => 1,
                length if self.random(4) == 0 => 1 + self.random(length as u64) as usize,
                length => length,
            };
            self.stack.truncate(kept);
            let more = match self.stack.is_empty() {
                true => 1,
                false => self.random(3),
            };
            for _ in 0..more {
                self.calls += 1;
                // One function is the outermost.
                let function = if self.stack.is_empty() {
                    0
                } else {
                    1 + self.random(4)
                };
                self.stack.push((function as u32, self.calls));
            }
            (more > 0).then_some(kept as u16)
        }
    }

    /// The calls of a sample: thread, whether it used a CPU, functions with numbers of calls.
    type Taken = (u64, bool, Vec<(u32, u64)>);

    /// A recording, and the calls by sample.
    fn recorded(seed: u64) -> (Profile, Vec<Taken>) {
        let mut recorder = Recorder::default();
        recorder.profile.processes.push(Default::default());
        let mut programs: Vec<Program> = Vec::new();
        for thread in 0..THREADS {
            recorder.add_thread(ThreadInfo {
                process: ProcessId(0),
                os_id: thread + 1,
                python_id: thread + 1,
                name: None,
                started_us: 0,
            });
            programs.push(Program {
                seed: seed * THREADS + thread,
                calls: thread << 32,
                stack: Vec::new(),
            });
        }
        let mut truth = Vec::new();
        for _ in 0..200 {
            for (thread, program) in (0..).zip(&mut programs) {
                let fresh_from = program.go_on();
                let on_cpu = program.random(3) > 0;
                let tables = &mut recorder.profile.tables;
                let mut stack = None;
                for (name, _) in &program.stack {
                    let name = format!("f{name}");
                    let function = tables.function("a.py", 1, &name, FunctionKind::Python);
                    let frame = tables.frame(function, 1);
                    stack = Some(tables.stack(stack, frame));
                }
                recorder.add(Sample {
                    thread: ThreadId(thread),
                    stack: stack.expect("a stack"),
                    count: 1,
                    wall_us: 1000,
                    cpu_us: 0,
                    fresh_from,
                    state: RunState(u8::from(on_cpu)),
                });
                truth.push((u64::from(thread), on_cpu, program.stack.clone()));
            }
        }
        recorder.profile.meta.duration_us = 200_000;
        (recorder.profile, truth)
    }

    #[test]
    fn a_part_has_the_calls_that_are_on_the_stack_in_it() {
        for seed in 0..20 {
            let (profile, truth) = recorded(seed);
            for (from, to, mode, only, focus) in [
                (0, 200, Mode::Wall, None, None),
                (0, 200, Mode::Cpu, None, None),
                (50, 60, Mode::Wall, None, None),
                (150, 151, Mode::Wall, None, None),
                (50, 120, Mode::Cpu, Some(1), None),
                (20, 200, Mode::Wall, None, Some(3)),
                (20, 100, Mode::Cpu, None, Some(2)),
            ] {
                let selection = Selection {
                    from_us: (from > 0).then_some(from * 1000),
                    to_us: Some(to * 1000),
                    focus: focus.and_then(|name| regex::Regex::new(&format!("f{name}")).ok()),
                    ..Selection::default()
                };
                let part = selection
                    .narrowed(&profile)
                    .expect("possible")
                    .expect("a part");
                let filter = Filter {
                    mode,
                    only: only.map(ThreadId),
                    ..Filter::default()
                };
                let stats =
                    super::super::CallStats::of(&CallTree::of(&part, &filter), &part.tables);
                let mut calls: FxHashSet<(u32, u64)> = FxHashSet::default();
                for (at, (thread, on_cpu, stack)) in truth.iter().enumerate() {
                    let when = at as u64 / THREADS;
                    if (from..to).contains(&when)
                        && (mode == Mode::Wall || *on_cpu)
                        && only.is_none_or(|only| u64::from(only) == *thread)
                        && focus.is_none_or(|focus| stack.iter().any(|call| call.0 == focus))
                    {
                        calls.extend(stack);
                    }
                }
                for row in &stats.rows {
                    let name = part.tables.name(row.function);
                    let of = calls.iter().filter(|call| format!("f{}", call.0) == name);
                    assert_eq!(
                        row.ncalls,
                        of.count() as u64,
                        "{seed} {from}-{to} {mode:?} {name}"
                    );
                    let by_caller: u64 = row.callers.iter().map(|(_, edge)| edge.ncalls).sum();
                    assert_eq!(by_caller, if name == "f0" { 0 } else { row.ncalls });
                    assert!(
                        row.callers.iter().all(|(_, edge)| edge.ncalls > 0),
                        "{name}"
                    );
                }
            }
        }
    }
}
