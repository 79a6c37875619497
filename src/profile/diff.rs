//! Two profiles to matched rows: what got slower, what got faster.

use rustc_hash::FxHashMap;

use super::{CallStats, FunctionId, FunctionStats, Tables};

/// One function in both profiles; a side is `None` where the function does not occur.
#[derive(Debug, Clone, PartialEq)]
pub struct DiffRow {
    /// File, as the new side has it, else the old.
    pub file: String,
    /// First line, likewise.
    pub line: u32,
    /// Name.
    pub name: String,
    /// Qualified name, where that is known.
    pub qualname: Option<String>,
    /// Numbers of the old profile.
    pub old: Option<Side>,
    /// Numbers of the new profile.
    pub new: Option<Side>,
    /// The function in the old profile and in the new one.
    pub functions: [Option<FunctionId>; 2],
}

/// One side's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Side {
    /// Calls.
    pub ncalls: u64,
    /// Whether there were at least so many calls.
    pub lower_bound: bool,
    /// Own time, seconds.
    pub tottime: f64,
    /// Cumulative time, seconds.
    pub cumtime: f64,
}

impl DiffRow {
    /// New minus old own time, seconds.
    pub fn tottime_change(&self) -> f64 {
        self.new.unwrap_or_default().tottime - self.old.unwrap_or_default().tottime
    }

    /// New minus old cumulative time, seconds.
    pub fn cumtime_change(&self) -> f64 {
        self.new.unwrap_or_default().cumtime - self.old.unwrap_or_default().cumtime
    }
}

/// Matches rows by file, line and name; what is left, by file and name where both sides have just one
/// such row: lines move when code above them is edited.
pub fn rows(old: (&CallStats, &Tables), new: (&CallStats, &Tables)) -> Vec<DiffRow> {
    let old_rows = merged(old.0);
    let new_rows = merged(new.0);
    let mut by_key: FxHashMap<(&str, u32, &str), usize> = FxHashMap::default();
    let mut by_name: FxHashMap<(&str, &str), Vec<usize>> = FxHashMap::default();
    for (at, (function, _)) in old_rows.iter().enumerate() {
        let (file, line, name) = key(old.1, *function);
        by_key.insert((file, line, name), at);
        by_name.entry((file, name)).or_default().push(at);
    }
    let mut used = vec![false; old_rows.len()];
    let mut pairs: Vec<Option<usize>> = vec![None; new_rows.len()];
    for (at, (function, _)) in new_rows.iter().enumerate() {
        if let Some(&old_at) = by_key.get(&key(new.1, *function)) {
            pairs[at] = Some(old_at);
            used[old_at] = true;
        }
    }
    let mut unmatched: FxHashMap<(&str, &str), u32> = FxHashMap::default();
    for (at, (function, _)) in new_rows.iter().enumerate() {
        if pairs[at].is_none() {
            let (file, _, name) = key(new.1, *function);
            *unmatched.entry((file, name)).or_default() += 1;
        }
    }
    for (at, (function, _)) in new_rows.iter().enumerate() {
        let (file, _, name) = key(new.1, *function);
        if pairs[at].is_some() || unmatched.get(&(file, name)) != Some(&1) {
            continue;
        }
        let mut left = by_name
            .get(&(file, name))
            .into_iter()
            .flatten()
            .filter(|at| !used[**at]);
        if let (Some(&old_at), None) = (left.next(), left.next()) {
            pairs[at] = Some(old_at);
            used[old_at] = true;
        }
    }
    let row = |tables: &Tables,
               function,
               old: Option<(FunctionId, Side)>,
               new: Option<(FunctionId, Side)>| {
        let (file, line, name) = key(tables, function);
        DiffRow {
            file: file.to_string(),
            line,
            name: name.to_string(),
            qualname: tables.qualname(function).map(str::to_string),
            old: old.map(|(_, side)| side),
            new: new.map(|(_, side)| side),
            functions: [old, new].map(|side| side.map(|(function, _)| function)),
        }
    };
    let mut rows: Vec<DiffRow> = new_rows
        .iter()
        .zip(&pairs)
        .map(|((function, side), pair)| {
            row(
                new.1,
                *function,
                pair.map(|at| old_rows[at]),
                Some((*function, *side)),
            )
        })
        .collect();
    for ((function, side), used) in old_rows.iter().zip(used) {
        if !used {
            rows.push(row(old.1, *function, Some((*function, *side)), None));
        }
    }
    rows
}

fn key(tables: &Tables, function: FunctionId) -> (&str, u32, &str) {
    (
        tables.file(function),
        tables.line(function),
        tables.name(function),
    )
}

/// Groups (threads, processes) of one profile added up.
fn merged(stats: &CallStats) -> Vec<(FunctionId, Side)> {
    let mut positions: FxHashMap<FunctionId, usize> = FxHashMap::default();
    let mut rows: Vec<(FunctionId, Side)> = Vec::new();
    for row in &stats.rows {
        let FunctionStats { function, .. } = row;
        let at = *positions.entry(*function).or_insert_with(|| {
            rows.push((*function, Side::default()));
            rows.len() - 1
        });
        rows[at].1.ncalls += row.ncalls;
        rows[at].1.lower_bound |= row.lower_bound;
        rows[at].1.tottime += row.tottime;
        rows[at].1.cumtime += row.cumtime;
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::FunctionKind;

    fn stats(tables: &mut Tables, rows: &[(&str, u32, f64)]) -> CallStats {
        CallStats {
            rows: rows
                .iter()
                .map(|(name, line, tottime)| FunctionStats {
                    function: tables.function("a.py", *line, name, FunctionKind::Python),
                    group: 0,
                    ncalls: 1,
                    primitive: 1,
                    tottime: *tottime,
                    cumtime: *tottime,
                    callers: Vec::new(),
                    lower_bound: false,
                })
                .collect(),
            groups: vec![String::new()],
            exact: false,
        }
    }

    #[test]
    fn moved_functions_match_and_ambiguous_ones_do_not() {
        let (mut a, mut b) = (Tables::default(), Tables::default());
        let old = stats(
            &mut a,
            &[("f", 1, 1.0), ("g", 5, 1.0), ("x", 7, 1.0), ("x", 9, 1.0)],
        );
        let new = stats(&mut b, &[("f", 1, 2.0), ("g", 6, 4.0), ("x", 8, 1.0)]);
        let rows = rows((&old, &a), (&new, &b));
        let change = |name: &str, line: u32| {
            rows.iter()
                .find(|r| r.name == name && r.line == line)
                .map(DiffRow::tottime_change)
        };
        assert_eq!(change("f", 1), Some(1.0));
        assert_eq!(change("g", 6), Some(3.0));
        assert_eq!(change("x", 8), Some(1.0));
        assert_eq!(change("x", 7), Some(-1.0));
        assert_eq!(rows.len(), 5);
    }
}
