//! A part of a profile: the samples that go through a function or do not, in a stretch of time, without some frames.
//!
//! Meaning of the patterns: those of pprof (`FilterSamplesByName` of google/pprof): a regular expression that is found
//! anywhere in a function's name (or qualified name) or its file. Samples that are left out become another timeline's
//! ([`RunState::ELSEWHERE`]), so that the order in time of the others stays.

use regex::Regex;
use rustc_hash::FxHashSet;

use super::fresh::Fresh;
use super::{
    CallStats, CallTree, FunctionId, FunctionKind, GC, Origin, Profile, Run, RunState, StackId,
    Tables, TreeNode,
};
use crate::error::{Error, ErrorKind, Result};

/// What is shown; everything by default.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Only samples with such a function on the stack.
    pub focus: Option<Regex>,
    /// No samples with such a function on the stack.
    pub ignore: Option<Regex>,
    /// Frames of such functions are taken out; what they called is their callers'.
    pub hide: Option<Regex>,
    /// From this time on, microseconds since the start of the recording.
    pub from_us: Option<u64>,
    /// Up to this time, microseconds since the start of the recording.
    pub to_us: Option<u64>,
    /// Garbage collection is no row of its own.
    pub no_gc: bool,
}

impl Selection {
    /// Whether it takes when things happened.
    pub fn needs_timeline(&self) -> bool {
        self.from_us.is_some() || self.to_us.is_some()
    }

    fn is_all(&self) -> bool {
        let patterns = [&self.focus, &self.ignore, &self.hide];
        patterns.iter().all(|pattern| pattern.is_none()) && !self.needs_timeline()
    }

    /// The part of `profile` that is shown; `None` for all of it. Fails where it takes a time that the profile does not
    /// know.
    pub fn narrowed(&self, profile: &Profile) -> Result<Option<Profile>> {
        // What was traced has no such row.
        if self.is_all() && (!self.no_gc || profile.exact.is_some()) {
            return Ok(None);
        }
        let mut narrowed = profile.clone();
        self.apply(&mut narrowed)?;
        Ok(Some(narrowed))
    }

    fn apply(&self, profile: &mut Profile) -> Result<()> {
        if self.needs_timeline() {
            self.cut(profile)?;
        }
        if profile.has_line_times() {
            return Err(Error::new(
                ErrorKind::NotAvailable,
                "cannot show a part of it",
                "the profile has times by line, and no stacks",
            ));
        }
        if !self.is_all() {
            // Hits are of the whole.
            profile.lines = None;
        }
        let marks = Marks::of(self, &profile.tables);
        if profile.exact.is_some() {
            self.narrow_exact(profile, &marks);
        } else {
            self.narrow_runs(profile, &marks);
        }
        profile.meta.narrowed = self.words(profile.meta.duration_us);
        Ok(())
    }

    /// For people: `from 3 s to 5 s of 10.00 s, through 'burn'`.
    fn words(&self, duration_us: u64) -> String {
        let seconds = |us: u64| us as f64 / 1e6;
        let mut parts = Vec::new();
        if self.needs_timeline() {
            let from = self.from_us.unwrap_or(0);
            let to = self.to_us.unwrap_or(duration_us).min(duration_us);
            let (from, to) = (seconds(from.min(to)), seconds(to));
            parts.push(format!("from {from} s to {to} s"));
        }
        let patterns = [
            ("stacks with", &self.focus),
            ("stacks without", &self.ignore),
            ("no frames of", &self.hide),
        ];
        for (what, pattern) in patterns {
            if let Some(pattern) = pattern {
                parts.push(format!("{what} '{pattern}'"));
            }
        }
        parts.join(", ")
    }

    /// Cuts off what was before and after the time that is wanted.
    fn cut(&self, profile: &mut Profile) -> Result<()> {
        if profile.meta.origin != Origin::Sampled || !profile.has_timeline() {
            return Err(Error::new(
                ErrorKind::NotAvailable,
                "cannot show a stretch of time",
                "the profile does not say when things happened",
            )
            .hint("a recording does: biopsy run -o FILE.biopsy -- COMMAND"));
        }
        let (from, to) = (self.from_us.unwrap_or(0), self.to_us.unwrap_or(u64::MAX));
        if from >= to {
            return Err(Error::usage(
                "cannot show a stretch of time",
                "--from is not before --to",
            ));
        }
        if from > profile.meta.duration_us {
            return Err(Error::usage(
                "cannot show a stretch of time",
                format!(
                    "--from is behind the end: the recording has {:.2} s",
                    profile.meta.duration_us as f64 / 1e6
                ),
            ));
        }
        let started = profile.threads.iter().map(|info| info.started_us);
        let started: Vec<u64> = started.collect();
        let mut before = Fresh::of(profile);
        let mut clocks = started.clone();
        for run in &profile.runs {
            if let Some(clock) = clocks.get_mut(run.thread.index())
                && *clock < from
            {
                *clock = clock.saturating_add(u64::from(run.wall_us));
                if *clock <= from {
                    before.next(run, false);
                }
            }
        }
        let before = before.left();
        let mut clocks = started;
        profile.runs.retain_mut(|run| {
            let Some(clock) = clocks.get_mut(run.thread.index()) else {
                return false;
            };
            let begin = *clock;
            *clock = clock.saturating_add(u64::from(run.wall_us));
            trim(run, begin, *clock, from, to)
        });
        profile.runs.splice(0..0, before);
        for info in &mut profile.threads {
            info.started_us = info.started_us.max(from);
        }
        // They are of the whole recording.
        profile.counts.clear();
        Ok(())
    }

    fn narrow_runs(&self, profile: &mut Profile, marks: &Marks) {
        let wanted = self.wanted_stacks(&profile.tables, marks);
        let hides = marks.hide.contains(&true);
        let shown = hides.then(|| Shown::of(&mut profile.tables, marks));
        for run in &mut profile.runs {
            let stack = run.stack;
            if !wanted[stack.index()] {
                run.state = run.state.with(RunState::ELSEWHERE);
            }
            if let Some(shown) = &shown {
                match shown.stacks[stack.index()] {
                    Some(new) => {
                        run.fresh_from = shown.fresh_from(&profile.tables, run);
                        run.stack = new;
                    }
                    None => {
                        run.fresh_from = u16::MAX;
                        run.state = run.state.with(RunState::ELSEWHERE);
                    }
                }
            }
        }
        // Calls were counted wherever they came from: they are those that are shown where all of a function's are.
        let whole = |function: FunctionId| {
            self.ignore.is_none() && (self.focus.is_none() || marks.focus[function.index()])
        };
        profile
            .counts
            .retain(|counted| whole(counted.function) && !marks.hide[counted.function.index()]);
        for counted in &mut profile.counts {
            counted
                .callers
                .retain(|(caller, _)| !marks.hide[caller.index()]);
        }
    }

    /// Whether samples of each stack count.
    fn wanted_stacks(&self, tables: &Tables, marks: &Marks) -> Vec<bool> {
        let mut found: Vec<(bool, bool)> = Vec::with_capacity(tables.stacks().len());
        for stack in tables.stacks() {
            let function = tables.get_frame(stack.frame).function.index();
            let below = stack
                .parent
                .map_or((false, false), |parent| found[parent.index()]);
            found.push((
                below.0 || marks.focus[function],
                below.1 || marks.ignore[function],
            ));
        }
        let wanted = |(focus, ignored): (bool, bool)| (self.focus.is_none() || focus) && !ignored;
        found.into_iter().map(wanted).collect()
    }

    /// Exact rows know no stacks: what is shown of them is estimated, as the stacks are.
    fn narrow_exact(&self, profile: &mut Profile, marks: &Marks) {
        let (tree, _) = profile.tree(&super::Filter::default());
        let tables = &profile.tables;
        let mut narrow = CallTree {
            groups: tree.groups.clone(),
            ..CallTree::default()
        };
        // Of each node: its place in the new tree, and whether a function in focus or an ignored one is on its path.
        let mut places: Vec<(Option<u32>, bool, bool)> = Vec::with_capacity(tree.nodes.len());
        for (at, node) in tree.nodes.iter().enumerate() {
            let function = tree.function(tables, at as u32).index();
            let below = node.parent.map(|parent| places[parent as usize]);
            let (parent, focus, ignored) = below.unwrap_or_default();
            let (focus, ignored) = (
                focus || marks.focus[function],
                ignored || marks.ignore[function],
            );
            let counts = (self.focus.is_none() || focus) && !ignored;
            let own_ns = if counts { node.self_wall_ns } else { 0 };
            if marks.hide[function] {
                if let Some(parent) = parent.and_then(|at| narrow.nodes.get_mut(at as usize)) {
                    parent.self_wall_ns = parent.self_wall_ns.saturating_add(own_ns);
                }
                places.push((parent, focus, ignored));
                continue;
            }
            places.push((Some(narrow.nodes.len() as u32), focus, ignored));
            narrow.nodes.push(TreeNode {
                parent,
                self_wall_ns: own_ns,
                calls: if counts { node.calls } else { 0 },
                ..*node
            });
        }
        narrow.sum_totals();
        let narrow = without_empty(&narrow);
        let mut stats = CallStats::of(&narrow, tables);
        let rows = profile.exact.iter().flat_map(|exact| &exact.rows);
        let bounds: FxHashSet<FunctionId> = rows
            .filter(|row| row.lower_bound)
            .map(|row| row.function)
            .collect();
        for row in &mut stats.rows {
            row.lower_bound = bounds.contains(&row.function);
            for (_, edge) in &mut row.callers {
                edge.lower_bound = row.lower_bound;
            }
        }
        profile.exact = Some(stats);
        profile.estimated = Some(narrow);
    }
}

/// Makes `run`, which went from `begin` to `end`, what of it lies between `from` and `to`; says whether there is any.
fn trim(run: &mut Run, begin: u64, end: u64, from: u64, to: u64) -> bool {
    let (first, last) = (begin.max(from), end.min(to));
    if begin == end {
        return begin >= from && begin < to;
    }
    if first >= last {
        return false;
    }
    let part = (last - first) as f64 / (end - begin) as f64;
    run.wall_us = (last - first).min(u64::from(u32::MAX)) as u32;
    run.cpu_us = (f64::from(run.cpu_us) * part).round() as u32;
    run.count = ((f64::from(run.count) * part).round() as u32).max(1);
    true
}

/// The tree without nodes that have neither time nor calls below them.
fn without_empty(tree: &CallTree) -> CallTree {
    let mut used: Vec<bool> = (tree.nodes.iter())
        .map(|node| node.self_wall_ns > 0 || node.calls > 0)
        .collect();
    for at in (0..tree.nodes.len()).rev() {
        if let (true, Some(parent)) = (used[at], tree.nodes[at].parent) {
            used[parent as usize] = true;
        }
    }
    let mut places: Vec<u32> = Vec::with_capacity(tree.nodes.len());
    let mut kept = CallTree {
        groups: tree.groups.clone(),
        ..CallTree::default()
    };
    for (node, used) in tree.nodes.iter().zip(used) {
        places.push(kept.nodes.len() as u32);
        if used {
            let parent = node.parent.map(|parent| places[parent as usize]);
            kept.nodes.push(TreeNode { parent, ..*node });
        }
    }
    kept
}

/// Which functions each pattern means.
struct Marks {
    focus: Vec<bool>,
    ignore: Vec<bool>,
    hide: Vec<bool>,
}

impl Marks {
    fn of(selection: &Selection, tables: &Tables) -> Marks {
        let of = |pattern: &Option<Regex>| -> Vec<bool> {
            let functions = 0..tables.functions().len() as u32;
            let found = |function: FunctionId| {
                pattern.as_ref().is_some_and(|regex| {
                    regex.is_match(tables.name(function))
                        || regex.is_match(tables.file(function))
                        || tables
                            .qualname(function)
                            .is_some_and(|name| regex.is_match(name))
                })
            };
            functions.map(|at| found(FunctionId(at))).collect()
        };
        let mut hide = of(&selection.hide);
        for (at, function) in tables.functions().iter().enumerate() {
            let is_gc =
                function.kind == FunctionKind::Builtin && tables.name(FunctionId(at as u32)) == GC;
            if let (true, true, Some(hide)) = (selection.no_gc, is_gc, hide.get_mut(at)) {
                *hide = true;
            }
        }
        Marks {
            focus: of(&selection.focus),
            ignore: of(&selection.ignore),
            hide,
        }
    }
}

/// Stacks without the frames that are hidden.
struct Shown {
    /// `None` where nothing is left.
    stacks: Vec<Option<StackId>>,
    hidden: Vec<bool>,
}

impl Shown {
    fn of(tables: &mut Tables, marks: &Marks) -> Shown {
        let old: Vec<super::StackNode> = tables.stacks().to_vec();
        let mut stacks: Vec<Option<StackId>> = Vec::with_capacity(old.len());
        let mut hidden = Vec::with_capacity(old.len());
        for stack in old {
            let parent = stack.parent.and_then(|parent| stacks[parent.index()]);
            let function = tables.get_frame(stack.frame).function;
            let hide = marks.hide[function.index()];
            hidden.push(hide);
            stacks.push(match hide {
                true => parent,
                false => Some(tables.stack(parent, stack.frame)),
            });
        }
        Shown { stacks, hidden }
    }

    /// The same invocations as before are new, as far as they are shown.
    fn fresh_from(&self, tables: &Tables, run: &Run) -> u16 {
        let depth = tables.get_stack(run.stack).depth;
        let Some(fresh_from) = run.fresh(depth) else {
            return u16::MAX;
        };
        let mut at = Some(run.stack);
        let mut fresh = 0;
        for _ in fresh_from..=depth {
            let Some(stack) = at else { break };
            fresh += u32::from(!self.hidden[stack.index()]);
            at = tables.get_stack(stack).parent;
        }
        let shown = self.stacks[run.stack.index()].map_or(0, |new| tables.get_stack(new).depth + 1);
        match fresh {
            0 => u16::MAX,
            fresh => u16::try_from(shown.saturating_sub(fresh)).unwrap_or(u16::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Sample;
    use super::super::{Filter, ProcessId, Recorder, ThreadInfo};
    use super::*;

    /// Stacks outermost first, of 1 ms each; all of whose frames from the given depth on are new.
    fn profile(samples: &[(&str, u16)]) -> Profile {
        let mut recorder = Recorder::default();
        recorder.profile.processes.push(Default::default());
        let thread = recorder.add_thread(ThreadInfo {
            process: ProcessId(0),
            os_id: 1,
            python_id: 1,
            name: None,
            started_us: 500,
        });
        for (text, fresh_from) in samples {
            let tables = &mut recorder.profile.tables;
            let mut stack = None;
            for name in text.split(' ') {
                let function =
                    tables.function("/x/a.py", 1, name, super::super::FunctionKind::Python);
                let frame = tables.frame(function, 1);
                stack = Some(tables.stack(stack, frame));
            }
            recorder.add(Sample {
                thread,
                stack: stack.expect("not empty"),
                count: 1,
                wall_us: 1000,
                cpu_us: 500,
                fresh_from: Some(*fresh_from),
                state: RunState::ON_CPU,
            });
        }
        let mut profile = recorder.profile;
        profile.meta.duration_us = 500 + 1000 * samples.len() as u64;
        profile
    }

    /// `name calls own/cumulative milliseconds` of each row.
    fn rows(profile: &Profile) -> Vec<String> {
        let stats = profile.stats(&Filter::default());
        let mut rows: Vec<String> = (stats.rows.iter())
            .map(|row| {
                let name = profile.tables.name(row.function);
                let (own, all) = (row.tottime * 1e3, row.cumtime * 1e3);
                format!("{name} {} {own:.1}/{all:.1}", row.ncalls)
            })
            .collect();
        rows.sort();
        rows
    }

    fn narrowed(profile: &Profile, selection: Selection) -> Vec<String> {
        let part = selection.narrowed(profile).expect("possible");
        rows(part.as_ref().unwrap_or(profile))
    }

    fn regex(text: &str) -> Option<Regex> {
        Regex::new(text).ok()
    }

    #[test]
    fn patterns_choose_stacks_and_frames() {
        let profile = profile(&[
            ("main wrap f", 0),
            ("main wrap g", 2),
            ("main f", 1),
            ("wrap", 0),
        ]);
        assert_eq!(narrowed(&profile, Selection::default()), rows(&profile));
        let focus = Selection {
            focus: regex("^f$"),
            ..Selection::default()
        };
        assert_eq!(
            narrowed(&profile, focus),
            ["f 2 2.0/2.0", "main 1 0.0/2.0", "wrap 1 0.0/1.0"]
        );
        let ignore = Selection {
            ignore: regex("wrap"),
            ..Selection::default()
        };
        assert_eq!(
            narrowed(&profile, ignore),
            ["f 1 1.0/1.0", "main 1 0.0/1.0"]
        );
        // What is left of a stack is its callers'; a stack of which nothing is left does not count.
        let hide = Selection {
            hide: regex("wrap|g"),
            ..Selection::default()
        };
        assert_eq!(narrowed(&profile, hide), ["f 2 2.0/2.0", "main 1 1.0/3.0"]);
        let file = Selection {
            focus: regex(r"/x/.*\.py"),
            ..Selection::default()
        };
        assert_eq!(narrowed(&profile, file), rows(&profile));
    }

    #[test]
    fn times_cut_runs_at_both_ends() {
        let profile = profile(&[("main f", 0), ("main g", 1), ("main f", 1)]);
        let part = |from_us, to_us| {
            let selection = Selection {
                from_us,
                to_us,
                ..Selection::default()
            };
            selection.narrowed(&profile)
        };
        // The thread began at 0.5 ms.
        let cut = part(Some(1000), Some(2250))
            .expect("possible")
            .expect("a part");
        assert_eq!(rows(&cut), ["f 1 0.5/0.5", "g 1 0.8/0.8", "main 1 0.0/1.2"]);
        assert_eq!(cut.threads[0].started_us, 1000);
        assert!(part(Some(2), Some(2)).is_err());
        assert!(part(Some(4000), None).is_err());
        assert_eq!(cut.meta.narrowed, "from 0.001 s to 0.00225 s");
    }
}
