//! Rows per function, as pstats has them: calls, own and cumulative time, callers.
//!
//! Semantics are those of CPython's `Modules/_lsprof.c`: a function's cumulative time counts the time
//! during which it is anywhere on the stack once, however often it recurses; a caller's share counts
//! the time in which that caller-callee pair is on the stack once.

use rustc_hash::FxHashMap;

use super::{CallTree, FunctionId, Tables};
use crate::units;

/// What passed along one caller-callee edge.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct EdgeStats {
    /// Calls, recursive ones included.
    pub ncalls: u64,
    /// Calls that were not recursive through this edge.
    pub primitive: u64,
    /// Own time of the callee in those calls, seconds.
    pub tottime: f64,
    /// Cumulative time of the callee in those calls, seconds.
    pub cumtime: f64,
    /// Whether only `ncalls` is known (files of the pure-Python `profile` module).
    pub count_only: bool,
    /// Whether there were at least so many calls, and nobody knows how many more.
    pub lower_bound: bool,
}

/// One row of the table.
#[derive(Debug, Clone, PartialEq)]
pub struct FunctionStats {
    /// The function.
    pub function: FunctionId,
    /// Position in [`CallStats::groups`].
    pub group: u32,
    /// Calls, recursive ones included.
    pub ncalls: u64,
    /// Calls that were not recursive.
    pub primitive: u64,
    /// Seconds in the function itself.
    pub tottime: f64,
    /// Seconds in the function and all it calls.
    pub cumtime: f64,
    /// Who called it, in the order of the source.
    pub callers: Vec<(FunctionId, EdgeStats)>,
    /// Whether there were at least so many calls, and nobody knows how many more: then there is no time per call
    /// either. Never for exact rows.
    pub lower_bound: bool,
}

/// All rows, in the order of the source.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CallStats {
    /// The rows.
    pub rows: Vec<FunctionStats>,
    /// Labels of what is kept apart; one empty label when nothing is.
    pub groups: Vec<String>,
    /// Whether calls and times are exact rather than sampled.
    pub exact: bool,
}

impl CallStats {
    /// Rows of a sampled call tree.
    pub fn of(tree: &CallTree, tables: &Tables) -> CallStats {
        let mut rows = Rows::default();
        // Positions of the rows and edges that are open on the way down, with how often.
        let mut open_rows: FxHashMap<usize, u32> = FxHashMap::default();
        let mut open_edges: FxHashMap<(usize, FunctionId), u32> = FxHashMap::default();
        let mut leaving: Vec<(usize, Option<(usize, FunctionId)>)> = Vec::new();
        let (roots, children) = tree.children();
        let mut todo: Vec<Step> = roots.into_iter().rev().map(Step::Enter).collect();
        let is_bound = |group, function| tree.known_calls(group, function).is_none();
        while let Some(step) = todo.pop() {
            match step {
                Step::Leave => {
                    if let Some((row, edge)) = leaving.pop() {
                        decrement(&mut open_rows, &row);
                        if let Some(edge) = edge {
                            decrement(&mut open_edges, &edge);
                        }
                    }
                }
                Step::Enter(at) => {
                    let node = &tree.nodes[at as usize];
                    let row = rows.position(node.group, tree.function(tables, at), is_bound);
                    let edge = node.parent.map(|p| (row, tree.function(tables, p)));
                    let (tottime, cumtime) = (seconds(node.self_wall_ns), node.total_wall_ns);
                    let open = open_rows.entry(row).or_insert(0);
                    let stats = &mut rows.rows[row];
                    stats.ncalls += node.calls;
                    stats.tottime += tottime;
                    if *open == 0 {
                        stats.primitive += node.calls;
                        stats.cumtime += seconds(cumtime);
                    }
                    *open += 1;
                    if let Some(edge) = edge {
                        let open = open_edges.entry(edge).or_insert(0);
                        let stats = rows.edge(edge);
                        stats.ncalls += node.calls;
                        stats.tottime += tottime;
                        if *open == 0 {
                            stats.primitive += node.calls;
                            stats.cumtime += seconds(cumtime);
                        }
                        *open += 1;
                    }
                    leaving.push((row, edge));
                    todo.push(Step::Leave);
                    todo.extend(children[at as usize].iter().rev().map(|&c| Step::Enter(c)));
                }
            }
        }
        rows.into_stats(tree)
    }

    /// How sure the numbers of calls are, of the rows that were made of `tree`.
    pub fn certainty(&self, tree: &CallTree) -> Certainty {
        let mut errors: Vec<f64> = self
            .rows
            .iter()
            .filter_map(|row| tree.known_calls(row.group, row.function))
            .map(|(calls, error)| error / calls.max(1.0))
            .collect();
        let middle = errors.len() / 2;
        Certainty {
            estimates: errors.len(),
            lower_bounds: self.rows.len() - errors.len(),
            median_error: (!errors.is_empty())
                .then(|| *errors.select_nth_unstable_by(middle, f64::total_cmp).1),
        }
    }

    /// The sum of all rows' own time, seconds, added in row order as pstats does.
    pub fn total_tottime(&self) -> f64 {
        self.rows.iter().fold(0.0, |sum, row| sum + row.tottime)
    }

    /// The rows of one group.
    #[must_use]
    pub fn group(&self, group: u32) -> CallStats {
        CallStats {
            rows: self
                .rows
                .iter()
                .filter(|row| row.group == group)
                .map(|row| FunctionStats {
                    group: 0,
                    ..row.clone()
                })
                .collect(),
            groups: vec![self.groups[group as usize].clone()],
            exact: self.exact,
        }
    }
}

/// How sure the numbers of calls in sampled rows are.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Certainty {
    /// Rows whose number is an estimate with an error.
    pub estimates: usize,
    /// Rows whose number is a lower bound.
    pub lower_bounds: usize,
    /// Median of the estimates' errors, as a part of the number.
    pub median_error: Option<f64>,
}

impl Certainty {
    /// What `noun`, the numbers of calls, are: `ncalls: 12 estimates (± 3 % in the median), 40 lower bounds`.
    pub fn words(&self, noun: &str) -> String {
        // A tenth of a per cent is as fine as an estimate of an error gets, and no estimate is certain.
        let error = match self.median_error {
            Some(error) if error < 0.0095 => {
                format!(" (± {:.1} % in the median)", (error * 100.0).max(0.1))
            }
            Some(error) if error.is_finite() => {
                format!(" (± {:.0} % in the median)", error * 100.0)
            }
            _ => String::new(),
        };
        let several = |count: usize, word| units::several(count as u64, word);
        match (self.estimates, self.lower_bounds) {
            (0, 0) => "no calls were seen".to_string(),
            (_, 0) => format!("{noun} are estimates{error}"),
            (0, _) => format!("{noun} are lower bounds"),
            (estimates, lower_bounds) => format!(
                "{noun}: {}{error}, {}",
                several(estimates, "estimate"),
                several(lower_bounds, "lower bound")
            ),
        }
    }
}

impl CallTree {
    /// The estimated number of calls of a function in a group, and its error; `None` where nothing is known but that
    /// there were at least as many as the tree has.
    pub fn known_calls(&self, group: u32, function: FunctionId) -> Option<(f64, f64)> {
        let found = self.estimates.get(&(group, function))?;
        found.error.map(|error| (found.calls, error))
    }
}

enum Step {
    Enter(u32),
    Leave,
}

fn decrement<K: std::hash::Hash + Eq>(open: &mut FxHashMap<K, u32>, key: &K) {
    if let Some(count) = open.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            open.remove(key);
        }
    }
}

/// Nanoseconds to seconds.
pub fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

#[derive(Default)]
struct Rows {
    rows: Vec<FunctionStats>,
    positions: FxHashMap<(u32, FunctionId), usize>,
    edges: FxHashMap<(usize, FunctionId), usize>,
}

impl Rows {
    fn position(
        &mut self,
        group: u32,
        function: FunctionId,
        is_bound: impl Fn(u32, FunctionId) -> bool,
    ) -> usize {
        *self.positions.entry((group, function)).or_insert_with(|| {
            self.rows.push(FunctionStats {
                function,
                group,
                ncalls: 0,
                primitive: 0,
                tottime: 0.0,
                cumtime: 0.0,
                callers: Vec::new(),
                lower_bound: is_bound(group, function),
            });
            self.rows.len() - 1
        })
    }

    fn edge(&mut self, edge: (usize, FunctionId)) -> &mut EdgeStats {
        let callers = &mut self.rows[edge.0].callers;
        let at = *self.edges.entry(edge).or_insert_with(|| {
            callers.push((edge.1, EdgeStats::default()));
            callers.len() - 1
        });
        &mut callers[at].1
    }

    /// A function that has been seen was called: a row has at least one call, or pstats' readers
    /// would divide by zero where there is time.
    fn into_stats(mut self, tree: &CallTree) -> CallStats {
        for row in &mut self.rows {
            row.primitive = row.primitive.max(1);
            row.ncalls = row.ncalls.max(row.primitive);
            for (_, edge) in &mut row.callers {
                edge.ncalls = edge.ncalls.max(1);
                edge.primitive = edge.primitive.min(edge.ncalls);
                edge.lower_bound = row.lower_bound;
            }
        }
        CallStats {
            rows: self.rows,
            groups: tree.groups.iter().map(|g| g.label.clone()).collect(),
            exact: false,
        }
    }
}

impl super::Profile {
    /// Rows per function: the exact ones when there are, else those of the samples that count.
    pub fn stats(&self, filter: &super::Filter) -> CallStats {
        match &self.exact {
            Some(exact) => exact.clone(),
            None => CallStats::of(&CallTree::of(self, filter), &self.tables),
        }
    }

    /// The call tree: of the samples that count, or estimated from exact rows, which have no stacks.
    /// The flag says whether it is such an estimate.
    pub fn tree(&self, filter: &super::Filter) -> (CallTree, bool) {
        match &self.exact {
            Some(_) if self.estimated.is_some() => {
                (self.estimated.clone().unwrap_or_default(), true)
            }
            Some(exact) => {
                // Frames need ids; an estimate names functions at their first line.
                (super::estimate::tree(exact, &self.tables), true)
            }
            None => (CallTree::of(self, filter), false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Sample;
    use super::super::{
        CallEstimate, CallSource, Counted, Filter, FunctionKind, ProcessId, Recorder, RunState,
        ThreadId, ThreadInfo,
    };
    use super::*;

    /// `samples`: stacks outermost first, `name:line`, each of 1 ms; fresh_from as given.
    fn record(samples: &[(&str, Option<u16>)]) -> Recorder {
        let mut recorder = Recorder::default();
        recorder.profile.processes.push(Default::default());
        let thread = recorder.add_thread(ThreadInfo {
            process: ProcessId(0),
            os_id: 1,
            python_id: 1,
            name: None,
            started_us: 0,
        });
        for (text, fresh_from) in samples {
            let tables = &mut recorder.profile.tables;
            let mut stack = None;
            for part in text.split(' ') {
                let (name, line) = part.split_once(':').expect("name:line");
                let function = tables.function("a.py", 1, name, FunctionKind::Python);
                let frame = tables.frame(function, line.parse().expect("line"));
                stack = Some(tables.stack(stack, frame));
            }
            recorder.add(Sample {
                thread,
                stack: stack.expect("not empty"),
                count: 1,
                wall_us: 1000,
                cpu_us: 500,
                fresh_from: *fresh_from,
                state: RunState::ON_CPU,
            });
        }
        recorder
    }

    #[test]
    fn frames_deeper_than_depths_are_counted_are_not_new_in_every_sample() {
        let deep = ["f:1"; 70_000].join(" ");
        let recorder = record(&[(&deep, Some(0)), (&deep, None), (&deep, None)]);
        let profile = &recorder.profile;
        let stats = profile.stats(&Filter::of(profile));
        let calls: Vec<u64> = stats.rows.iter().map(|row| row.ncalls).collect();
        assert_eq!(calls, [70_000]);
    }

    fn row<'a>(stats: &'a CallStats, tables: &Tables, name: &str) -> &'a FunctionStats {
        stats
            .rows
            .iter()
            .find(|row| tables.name(row.function) == name)
            .expect("row")
    }

    #[test]
    fn recursion_counts_cumulative_time_once() {
        let recorder = record(&[
            ("main:1 fib:2", Some(0)),
            ("main:1 fib:2 fib:2", Some(2)),
            ("main:1 fib:2 fib:2 fib:3", Some(3)),
            ("main:1 fib:2 fib:3", Some(2)),
        ]);
        let profile = &recorder.profile;
        let stats = profile.stats(&Filter::default());
        let fib = row(&stats, &profile.tables, "fib");
        assert_eq!((fib.ncalls, fib.primitive), (4, 1));
        assert!((fib.cumtime - 0.004).abs() < 1e-12);
        assert!((fib.tottime - 0.004).abs() < 1e-12);
        let from_main = fib
            .callers
            .iter()
            .find(|c| profile.tables.name(c.0) == "main");
        assert_eq!(from_main.map(|c| c.1.ncalls), Some(1));
        let from_fib = fib
            .callers
            .iter()
            .find(|c| profile.tables.name(c.0) == "fib");
        let from_fib = from_fib.expect("recursive edge").1;
        assert_eq!((from_fib.ncalls, from_fib.primitive), (3, 2));
        assert!((from_fib.cumtime - 0.003).abs() < 1e-12);
        let main = row(&stats, &profile.tables, "main");
        assert_eq!((main.ncalls, main.primitive), (1, 1));
    }

    #[test]
    fn what_was_not_counted_is_a_lower_bound_along_all_edges() {
        let mut samples = vec![("main:1 f:2", Some(0))];
        samples.extend([("main:1 f:2 g:3", Some(2)); 8]);
        samples.push(("main:1 f:2 h:1", Some(2)));
        let mut recorder = record(&samples);
        for (name, calls, error, source) in [
            ("main", 1.0, Some(0.02), CallSource::Samples),
            ("f", 3.2, Some(0.16), CallSource::Watchpoint),
            ("g", 70.0, None, CallSource::LowerBound),
        ] {
            let profile = &mut recorder.profile;
            let function = (profile.tables).function("a.py", 1, name, FunctionKind::Python);
            profile.counts.push(Counted {
                thread: ThreadId(0),
                function,
                estimate: CallEstimate {
                    calls,
                    error,
                    source,
                },
                callers: Vec::new(),
            });
        }
        let profile = &recorder.profile;
        let tree = CallTree::of(profile, &Filter::default());
        let stats = CallStats::of(&tree, &profile.tables);
        let bound = |name| {
            let row = row(&stats, &profile.tables, name);
            let of_edges = row
                .callers
                .iter()
                .all(|c| c.1.lower_bound == row.lower_bound);
            assert!(of_edges, "{name}");
            row.lower_bound
        };
        assert_eq!(
            ["main", "f", "g", "h"].map(bound),
            [false, false, true, true]
        );
        let calls = |name| row(&stats, &profile.tables, name).ncalls;
        assert_eq!(["main", "f", "g", "h"].map(calls), [1, 3, 70, 1]);
        assert!(stats.group(0).rows.iter().any(|row| row.lower_bound));
        let certainty = stats.certainty(&tree);
        assert_eq!((certainty.estimates, certainty.lower_bounds), (2, 2));
        assert_eq!(certainty.median_error, Some(0.16 / 3.2));
        // Of a tree without estimates nothing is known but that what is there was called.
        let bare = CallTree {
            estimates: FxHashMap::default(),
            ..tree
        };
        let stats = CallStats::of(&bare, &profile.tables);
        assert!(stats.rows.iter().all(|row| row.lower_bound));
        assert_eq!(
            stats.certainty(&bare).words("ncalls"),
            "ncalls are lower bounds"
        );
    }

    #[test]
    fn certainty_is_told_in_few_words() {
        let words = |estimates, lower_bounds, median_error| {
            let certainty = Certainty {
                estimates,
                lower_bounds,
                median_error,
            };
            certainty.words("ncalls")
        };
        for (certainty, expected) in [
            (
                words(12, 40, Some(0.031)),
                "ncalls: 12 estimates (± 3 % in the median), 40 lower bounds",
            ),
            (
                words(1, 1, Some(0.004)),
                "ncalls: 1 estimate (± 0.4 % in the median), 1 lower bound",
            ),
            (
                words(3, 0, Some(0.0)),
                "ncalls are estimates (± 0.1 % in the median)",
            ),
            (
                words(3, 0, Some(0.0096)),
                "ncalls are estimates (± 1 % in the median)",
            ),
            (words(3, 0, Some(f64::NAN)), "ncalls are estimates"),
            (words(0, 3, None), "ncalls are lower bounds"),
            (words(0, 0, None), "no calls were seen"),
        ] {
            assert_eq!(certainty, expected);
        }
    }

    #[test]
    fn filtered_out_first_samples_still_leave_one_call() {
        let mut recorder = record(&[("main:1 f:2", Some(0)), ("main:1 f:3", None)]);
        recorder.profile.runs[0].state = RunState::default();
        let filter = Filter {
            mode: super::super::Mode::Cpu,
            ..Filter::default()
        };
        let stats = recorder.profile.stats(&filter);
        assert!(stats.rows.iter().all(|row| row.ncalls == 1));
        assert!((stats.total_tottime() - 0.001).abs() < 1e-12);
    }
}
