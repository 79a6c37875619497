//! Lines of functions as line_profiler has them: how often each was hit, and the time until the function's next line.
//!
//! The time of a line is that of all samples in which it is the innermost line of its function: what it calls is in it,
//! and a function that calls itself has each moment once. So a function's lines add up to its cumulative time. Hits
//! are counted in the program, or come from a file; samples know none.

use std::collections::BTreeMap;

use rustc_hash::{FxHashMap, FxHashSet};

use super::{CallTree, Filter, FunctionId, FunctionKind, Profile, Split, Tables};

/// Seconds in a unit of time where no file says otherwise: those of samples are whole microseconds.
pub const UNIT: f64 = 1e-6;

/// What was counted of one line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LineCount {
    /// The line, from 1.
    pub line: u32,
    /// How often it began.
    pub hits: u64,
    /// Time in [`LineCounts::unit`]; 0 where samples tell it.
    pub time: f64,
    /// Whether it began at least so often: samples saw it.
    pub at_least: bool,
}

/// What was counted of lines.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LineCounts {
    /// Seconds in a unit of the lines' times.
    pub unit: f64,
    /// Whether there were at least so many hits: the counting was broken off.
    pub at_least: bool,
    /// The functions that were counted, each once, with their lines in order, each once.
    pub functions: Vec<(FunctionId, Vec<LineCount>)>,
}

/// How often a line was hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hits {
    /// Counted.
    Counted(u64),
    /// At least so often.
    AtLeast(u64),
}

/// A line in a table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LineRow {
    /// The line; 0 when it is not known which.
    pub line: u32,
    /// How often it was hit, where that was counted.
    pub hits: Option<Hits>,
    /// New calls of the function that were first seen at this line: it was hit at least as often, unless the function
    /// is a generator or coroutine, whose resumptions look the same.
    pub seen: u64,
    /// Time in [`LineTables::unit`].
    pub time: f64,
}

/// The lines of a function.
#[derive(Debug, Clone, PartialEq)]
pub struct LineTable {
    /// The function.
    pub function: FunctionId,
    /// In order, each line once.
    pub rows: Vec<LineRow>,
    /// Whether its hits were counted.
    pub counted: bool,
}

impl LineTable {
    /// The sum of its lines' times.
    pub fn total(&self) -> f64 {
        self.rows.iter().fold(0.0, |sum, row| sum + row.time)
    }
}

/// The lines of all functions, those with the most time first.
#[derive(Debug, Clone, PartialEq)]
pub struct LineTables {
    /// Seconds in a unit of the times.
    pub unit: f64,
    /// A table a function.
    pub tables: Vec<LineTable>,
}

impl Profile {
    /// The lines of all functions with any; `None` where the profile has times by function alone.
    pub fn line_tables(&self, filter: &Filter) -> Option<LineTables> {
        let mut found = match (&self.lines, &self.exact) {
            (Some(counts), _) if self.has_line_times() => LineTables {
                unit: counts.unit,
                tables: counts
                    .functions
                    .iter()
                    .map(|(function, lines)| LineTable {
                        function: *function,
                        rows: lines.iter().map(|line| row(counts, line)).collect(),
                        counted: true,
                    })
                    .collect(),
            },
            (_, Some(_)) => return None,
            _ => self.sampled_lines(filter),
        };
        let tables = &self.tables;
        found.tables.sort_by_cached_key(|table| {
            // Times are not negative: their bits have their order.
            let time = table.total().max(0.0).to_bits();
            let function = table.function;
            (
                std::cmp::Reverse(time),
                tables.file(function).to_string(),
                tables.line(function),
                tables.name(function).to_string(),
                function,
            )
        });
        Some(found)
    }

    /// Whether the times of lines are those of a line profiler, without samples.
    pub fn has_line_times(&self) -> bool {
        self.meta.origin == super::Origin::Exact && self.exact.is_none() && self.lines.is_some()
    }

    fn sampled_lines(&self, filter: &Filter) -> LineTables {
        let (tree, _) = CallTree::seen(self, filter, Split::Merged);
        let mut lines: FxHashMap<FunctionId, BTreeMap<u32, LineRow>> = FxHashMap::default();
        let new = |line| LineRow {
            line,
            hits: None,
            seen: 0,
            time: 0.0,
        };
        for (function, costs) in line_costs(&tree, &self.tables) {
            if self.tables.get_function(function).kind != FunctionKind::Python {
                continue;
            }
            let rows = lines.entry(function).or_default();
            for (line, cost) in costs {
                rows.entry(line).or_insert_with(|| new(line)).time = cost.total_ns as f64 / 1e3;
            }
        }
        let tells_calls =
            self.meta.origin == super::Origin::Sampled && !self.meta.approximate_stacks;
        for node in tree.nodes.iter().filter(|_| tells_calls) {
            let frame = self.tables.get_frame(node.frame);
            let rows = lines.get_mut(&frame.function);
            if let Some(row) = rows.and_then(|rows| rows.get_mut(&frame.line)) {
                row.seen = row.seen.saturating_add(node.calls);
            }
        }
        let mut counted: FxHashSet<FunctionId> = FxHashSet::default();
        // What was counted is of all threads and the whole time.
        let whole = filter.thread.is_none() && filter.only.is_none();
        if let Some(counts) = self.lines.as_ref().filter(|_| whole) {
            for (function, of) in &counts.functions {
                counted.insert(*function);
                let rows = lines.entry(*function).or_default();
                for line in of.iter().filter(|line| line.hits > 0) {
                    let place = rows.entry(line.line).or_insert_with(|| new(line.line));
                    place.hits = row(counts, line).hits;
                }
            }
        }
        let tables = lines.into_iter().filter_map(|(function, rows)| {
            let rows: Vec<LineRow> = rows
                .into_values()
                .filter(|row| row.time > 0.0 || row.hits.is_some())
                .collect();
            (!rows.is_empty()).then_some(LineTable {
                function,
                rows,
                counted: counted.contains(&function),
            })
        });
        LineTables {
            unit: UNIT,
            tables: tables.collect(),
        }
    }
}

fn row(counts: &LineCounts, line: &LineCount) -> LineRow {
    let hits = match counts.at_least || line.at_least {
        true => Hits::AtLeast(line.hits),
        false => Hits::Counted(line.hits),
    };
    LineRow {
        line: line.line,
        hits: Some(hits),
        seen: 0,
        time: line.time,
    }
}

impl LineCounts {
    /// Adds those of another profile, whose functions have the ids `functions` here.
    pub fn add(&mut self, more: &LineCounts, functions: &[FunctionId]) {
        let mut places: FxHashMap<FunctionId, usize> = FxHashMap::default();
        for (at, (function, _)) in self.functions.iter().enumerate() {
            places.entry(*function).or_insert(at);
        }
        self.at_least |= more.at_least;
        let scale = match self.unit > 0.0 {
            true => more.unit / self.unit,
            false => 1.0,
        };
        for (function, lines) in &more.functions {
            let Some(function) = functions.get(function.index()).copied() else {
                continue;
            };
            let place = *places.entry(function).or_insert_with(|| {
                self.functions.push((function, Vec::new()));
                self.functions.len() - 1
            });
            let Some((_, into)) = self.functions.get_mut(place) else {
                continue;
            };
            let mut sums: BTreeMap<u32, LineCount> =
                into.iter().map(|line| (line.line, *line)).collect();
            for line in lines {
                let sum = sums.entry(line.line).or_insert(LineCount {
                    hits: 0,
                    time: 0.0,
                    ..*line
                });
                sum.hits = sum.hits.saturating_add(line.hits);
                sum.at_least |= line.at_least;
                sum.time += line.time * scale;
            }
            *into = sums.into_values().collect();
        }
    }
}

/// Times in nanoseconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    /// Of the line itself.
    pub own_ns: u64,
    /// With all that it called, while it is the innermost line of its function.
    pub total_ns: u64,
}

/// The cost of each line of each function; line 0 stands for what is not known.
pub fn line_costs(tree: &CallTree, tables: &Tables) -> FxHashMap<FunctionId, BTreeMap<u32, Cost>> {
    let mut costs: FxHashMap<FunctionId, BTreeMap<u32, Cost>> = FxHashMap::default();
    // The lines of each function that are open on the way down.
    let open = std::cell::RefCell::new(FxHashMap::<FunctionId, Vec<u32>>::default());
    tree.walk(
        |at| {
            let Some(node) = tree.nodes.get(at as usize) else {
                return;
            };
            let frame = tables.get_frame(node.frame);
            let lines = costs.entry(frame.function).or_default();
            let mut open = open.borrow_mut();
            let outer = open.entry(frame.function).or_default();
            let line = lines.entry(frame.line).or_default();
            line.own_ns = line.own_ns.saturating_add(node.self_wall_ns);
            line.total_ns = line.total_ns.saturating_add(node.total_wall_ns);
            if let Some(line) = outer.last().and_then(|outer| lines.get_mut(outer)) {
                line.total_ns = line.total_ns.saturating_sub(node.total_wall_ns);
            }
            outer.push(frame.line);
        },
        |at| {
            let Some(node) = tree.nodes.get(at as usize) else {
                return;
            };
            let function = tables.get_frame(node.frame).function;
            if let Some(outer) = open.borrow_mut().get_mut(&function) {
                outer.pop();
            }
        },
    );
    costs
}
