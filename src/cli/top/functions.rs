//! The table of functions, and who called one and what it called.

use super::data::Computed;
use super::page::{Page, Row, SMALL, Stands, in_held_order, key_of};
use super::tree::Look;
use crate::profile::{EdgeStats, FunctionId, FunctionStats, Tables};
use crate::units::printable;
use crate::view::stats::{SortKey, rows};

/// Columns from which on there is room for times per call.
const WIDE: u16 = 88;

/// pstats' table.
pub fn functions(computed: &Computed, tables: &Tables, sort: SortKey, look: &Look<'_>) -> Page {
    let wide = look.width >= WIDE;
    let stats = &computed.stats;
    let whole = whole(computed);
    let mut list: Vec<usize> = rows::order(stats, tables, sort)
        .into_iter()
        .filter(|at| {
            let row = &stats.rows[*at];
            // What only rests, where resting does not count, is no row.
            (row.cumtime > 0.0 || stats.exact) && look.matches(tables, row.function)
        })
        .collect();
    let key = |function: FunctionId| key_of((1u8, function));
    in_held_order(&mut list, look.held, |at| key(stats.rows[*at].function));
    let mut page = Page {
        head: format!("{}   %tot filename:lineno(function)", rows::headings(wide)),
        ..Page::default()
    };
    let mut other: (usize, f64) = (0, 0.0);
    let folds = look.fold && look.pattern.is_none();
    for at in list {
        let row = &stats.rows[at];
        if folds && row.tottime < SMALL * whole && row.cumtime < SMALL * whole {
            other = (other.0 + 1, other.1 + row.tottime);
            continue;
        }
        page.rows.push(function_row(
            row,
            tables,
            whole,
            wide,
            look,
            key(row.function),
        ));
    }
    if other.0 > 0 {
        let blank = rows::headings(wide).len();
        page.rows.push(Row {
            key: key_of(2u8),
            columns: format!(
                "{:<blank$} {:>6}",
                format!("{:>18.3}", other.1),
                share(other.1, whole)
            ),
            name: format!("other: {} below 0.5 % each (o: show)", plural(other.0)),
            stands: Stands::Other,
            ..Row::default()
        });
    }
    page
}

fn plural(functions: usize) -> String {
    match functions {
        1 => "1 function".to_string(),
        more => format!("{more} functions"),
    }
}

/// Seconds that all samples weigh together.
fn whole(computed: &Computed) -> f64 {
    if computed.stats.exact {
        computed.stats.total_tottime()
    } else {
        computed.whole_ns as f64 / 1e9
    }
}

fn share(part: f64, whole: f64) -> String {
    if whole > 0.0 && part.is_finite() {
        format!("{:.1}", (100.0 * part / whole).clamp(0.0, 999.9))
    } else {
        "-".to_string()
    }
}

fn function_row(
    row: &FunctionStats,
    tables: &Tables,
    whole: f64,
    wide: bool,
    look: &Look<'_>,
    key: u64,
) -> Row {
    let percent = share(row.tottime, whole);
    Row {
        key,
        columns: format!("{} {percent:>6}", rows::numbers(row, wide)),
        name: printable(&look.name(tables, row.function)).into_owned(),
        heat: if whole > 0.0 {
            row.tottime / whole
        } else {
            0.0
        },
        stands: Stands::Function(row.function),
        ..Row::default()
    }
}

/// The key of the function's own row between its callers and callees.
pub fn own_key(function: FunctionId) -> u64 {
    key_of((4u8, function))
}

/// Callers above the function, callees below it.
pub fn calls(
    computed: &Computed,
    tables: &Tables,
    function: Option<FunctionId>,
    look: &Look<'_>,
) -> Page {
    let mut page = Page {
        head: format!(
            "{}   %tot callers, the function, callees",
            rows::headings(false)
        ),
        empty: "choose a function first: 1, then Enter on it".to_string(),
        ..Page::default()
    };
    let Some(function) = function else {
        return page;
    };
    let whole = whole(computed);
    let edge_row = |other: FunctionId, edge: &EdgeStats, side: u8, sign: &str| Row {
        key: key_of((side, other)),
        columns: format!(
            "{} {:>6}",
            rows::edge_numbers(edge),
            share(edge.cumtime, whole)
        ),
        name: format!("{sign} {}", printable(&look.name(tables, other))),
        heat: if whole > 0.0 {
            edge.cumtime / whole
        } else {
            0.0
        },
        stands: Stands::Function(other),
        ..Row::default()
    };
    let by_time = |a: &(FunctionId, EdgeStats), b: &(FunctionId, EdgeStats)| {
        b.1.cumtime.total_cmp(&a.1.cumtime).then(a.0.cmp(&b.0))
    };
    let mut callers: Vec<(FunctionId, EdgeStats)> = Vec::new();
    let mut callees = Vec::new();
    let mut own = None;
    for row in &computed.stats.rows {
        if row.function == function {
            callers.extend(row.callers.iter().copied());
            own = Some(row);
        }
        let calls = row.callers.iter().filter(|(caller, _)| *caller == function);
        callees.extend(calls.map(|(_, edge)| (row.function, *edge)));
    }
    callers.sort_by(by_time);
    callees.sort_by(by_time);
    in_held_order(&mut callers, look.held, |(other, _)| key_of((3u8, *other)));
    in_held_order(&mut callees, look.held, |(other, _)| key_of((5u8, *other)));
    let rows = callers
        .iter()
        .map(|(other, edge)| edge_row(*other, edge, 3, "<-"));
    page.rows.extend(rows);
    let middle = match own {
        Some(row) => Row {
            strong: true,
            ..function_row(row, tables, whole, false, look, own_key(function))
        },
        None => Row {
            key: own_key(function),
            columns: format!(
                "{:>width$}",
                "no samples",
                width = rows::headings(false).len() + 7
            ),
            name: printable(&look.name(tables, function)).into_owned(),
            strong: true,
            stands: Stands::Function(function),
            ..Row::default()
        },
    };
    page.rows.push(middle);
    let rows = callees
        .iter()
        .map(|(other, edge)| edge_row(*other, edge, 5, "->"));
    page.rows.extend(rows);
    page
}
