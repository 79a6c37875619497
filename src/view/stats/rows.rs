//! Rows of the table one by one, for views that lay them out themselves.

use super::sort::{SortKey, SortRow};
use super::{calls, f8, per_call};
use crate::formats::pstats::dict::Key;
use crate::profile::{CallStats, EdgeStats, FunctionId, FunctionStats, Tables};

/// The name of a function as pstats prints it.
pub fn name(tables: &Tables, function: FunctionId, strip_dirs: bool, qualnames: bool) -> String {
    let file = tables.file(function);
    let key = Key {
        file: if strip_dirs {
            file.rsplit('/').next().unwrap_or_default()
        } else {
            file
        },
        line: tables.line(function),
        name: tables.shown_name(function, qualnames).into(),
    };
    key.standard_name()
}

/// Positions of the rows of `stats`, sorted.
pub fn order(stats: &CallStats, tables: &Tables, key: SortKey) -> Vec<usize> {
    let names: Vec<String> = match key {
        SortKey::StandardName => {
            let rows = stats.rows.iter();
            rows.map(|row| name(tables, row.function, false, false))
                .collect()
        }
        _ => Vec::new(),
    };
    let rows: Vec<SortRow<'_>> = stats
        .rows
        .iter()
        .enumerate()
        .map(|(at, row)| SortRow {
            ncalls: row.ncalls,
            primitive: row.primitive,
            tottime: row.tottime,
            cumtime: row.cumtime,
            file: tables.file(row.function),
            line: tables.line(row.function),
            name: tables.name(row.function),
            standard_name: names.get(at).map_or("", String::as_str),
        })
        .collect();
    let mut list: Vec<usize> = (0..rows.len()).collect();
    list.sort_by(|&left, &right| key.compare(&rows[left], &rows[right]));
    list
}

/// The headings of [`numbers`].
pub fn headings(per_call: bool) -> &'static str {
    match per_call {
        true => "   ncalls  tottime  percall  cumtime  percall",
        false => "   ncalls  tottime  cumtime",
    }
}

/// The columns before the name, with or without the times per call.
pub fn numbers(row: &FunctionStats, with_per_call: bool) -> String {
    let calls = calls(row.ncalls, row.primitive, row.lower_bound);
    let (own, whole) = (f8(row.tottime), f8(row.cumtime));
    if !with_per_call {
        return format!("{calls:>9} {own} {whole}");
    }
    let own_each = per_call(row.tottime, row.ncalls, row.lower_bound);
    let whole_each = per_call(row.cumtime, row.primitive, row.lower_bound);
    format!("{calls:>9} {own} {own_each} {whole} {whole_each}")
}

/// The columns of what passed from a caller to whom it called.
pub fn edge_numbers(edge: &EdgeStats) -> String {
    let calls = calls(edge.ncalls, edge.primitive, edge.lower_bound);
    if edge.count_only {
        return format!("{calls:>9} {:>8} {:>8}", "", "");
    }
    format!("{calls:>9} {} {}", f8(edge.tottime), f8(edge.cumtime))
}
