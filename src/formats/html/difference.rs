//! The page of a difference: the stacks of both profiles as one tree, with the times of each, and the rows of both.
//!
//! It is the page of a profile of two threads, the newer profile and the older one, without a timeline; either can give
//! the boxes their widths.

use std::io::{BufWriter, Write};

use rustc_hash::FxHashMap;
use serde::Serialize;

use super::data::{Cell, Head, Thread, View, put_cells, put_columns_of_functions, put_nodes};
use super::pack::Columns;
use super::sources::File;
use super::write_page;
use crate::error::{Error, Result};
use crate::formats::Loss;
use crate::formats::flamegraph::DifferentialOptions;
use crate::profile::diff::{DiffRow, Side};
use crate::profile::{CallTree, FunctionId, Profile};
use crate::units::printable;

/// A function's numbers on both sides, the older one first; `None` where it does not occur.
#[derive(Debug, Serialize)]
pub(super) struct Row(Option<Numbers>, Option<Numbers>);

/// Calls, 1 where they are a lower bound, own and cumulative seconds.
type Numbers = (u64, u8, f64, f64);

/// Writes the page that compares `old` with `new`, whose functions `rows` has matched.
pub fn write_difference(
    old: &Profile,
    new: &Profile,
    options: &DifferentialOptions,
    rows: &[DiffRow],
    out: &mut dyn Write,
) -> Result<Vec<Loss>> {
    let mut columns = Columns::default();
    let (functions, files) = functions(rows, options);
    put_columns_of_functions(rows.len(), &mut columns);
    let filter = &options.export.filter;
    let ((new_tree, new_estimated), (old_tree, old_estimated)) =
        (new.tree(filter), old.tree(filter));
    let total = |tree: &CallTree| {
        let own = tree.nodes.iter().map(|node| node.self_wall_ns);
        own.fold(0u64, u64::saturating_add) as f64
    };
    let scale = match options.normalise && total(&old_tree) > 0.0 {
        true => total(&new_tree) / total(&old_tree),
        false => 1.0,
    };
    let sides = [(new, &new_tree, 1.0), (old, &old_tree, scale)];
    let Merged { nodes, cells, runs } = merge(sides, rows);
    put_nodes(&nodes, &mut columns);
    put_cells(&cells, nodes.len(), &mut columns);
    let names = ["newer", "older"];
    let thread = |(label, runs): (&str, usize)| Thread {
        label: label.to_string(),
        process: 0,
        started_us: 0,
        runs,
    };
    let estimated = new_estimated || old_estimated;
    let [old_name, new_name] = [(old, 0), (new, 1)].map(|(profile, at): (&Profile, usize)| {
        match profile.meta.command.as_str() {
            "" => printable(&options.names[at]).into_owned(),
            command => printable(command).into_owned(),
        }
    });
    let head = Head {
        title: format!("{old_name} → {new_name}"),
        note: note(old, new, options, scale),
        approximate: old.meta.approximate_stacks || new.meta.approximate_stacks,
        estimated,
        exact: false,
        unit_unknown: new.meta.unit_is_unknown() || old.meta.unit_is_unknown(),
        mode: filter.mode.name(),
        tick_ns: 1,
        timeline: false,
        slice_us: 0,
        has_states: false,
        duration_us: 0,
        functions,
        files,
        threads: names.into_iter().zip(runs).map(thread).collect(),
        processes: vec![String::new()],
        views: vec![
            View::empty("widths: the newer profile", 0),
            View::empty("widths: the older profile", 1),
        ],
        difference: Some(
            rows.iter()
                .map(|row| Row(row.old.map(numbers), row.new.map(numbers)))
                .collect(),
        ),
        columns: columns.names.clone(),
    };
    let mut out = BufWriter::with_capacity(1 << 16, out);
    write_page(&head, &columns, &mut out).map_err(|error| Error::write("the HTML page", &error))?;
    Ok(match estimated {
        true => vec!["stacks are estimated from caller edges".to_string()],
        false => Vec::new(),
    })
}

/// The stacks of both sides as one tree.
#[derive(Default)]
struct Merged {
    nodes: Vec<(Option<u32>, u32)>,
    cells: Vec<Cell>,
    /// How many of the cells are of each side.
    runs: Vec<usize>,
}

/// Puts the trees of the newer and the older side, each with what its times are multiplied by, together.
fn merge(sides: [(&Profile, &CallTree, f64); 2], rows: &[DiffRow]) -> Merged {
    let mut known: FxHashMap<(Option<u32>, u32), u32> = FxHashMap::default();
    let Merged {
        mut nodes,
        mut cells,
        mut runs,
    } = Merged::default();
    for (side, (profile, tree, scale)) in sides.into_iter().enumerate() {
        let place_of: FxHashMap<FunctionId, u32> = (0..)
            .zip(rows)
            .filter_map(|(at, row)| Some((row.functions[1 - side]?, at)))
            .collect();
        let before = cells.len();
        let mut places: Vec<Option<u32>> = Vec::with_capacity(tree.nodes.len());
        for node in &tree.nodes {
            let above = node
                .parent
                .and_then(|parent| places.get(parent as usize).copied()?);
            let function = profile.tables.get_frame(node.frame).function;
            // A function without a row has no time either: its place is its caller's.
            let place = place_of.get(&function).map(|row| {
                *known.entry((above, *row)).or_insert_with(|| {
                    nodes.push((above, *row));
                    nodes.len() as u32 - 1
                })
            });
            let place = place.or(above);
            places.push(place);
            let own = (node.self_wall_ns as f64 * scale).round() as u64;
            if let Some(node) = place.filter(|_| own > 0) {
                let (wall, weight) = (own, own);
                cells.push(Cell {
                    node,
                    wall,
                    weight,
                    state: 0,
                });
            }
        }
        runs.push(cells.len() - before);
    }
    Merged { nodes, cells, runs }
}

fn numbers(side: Side) -> Numbers {
    let time = |seconds: f64| if seconds.is_finite() { seconds } else { 0.0 };
    let (own, total) = (time(side.tottime), time(side.cumtime));
    (side.ncalls, u8::from(side.lower_bound), own, total)
}

type Named = Vec<(String, u32, u32, u8)>;

fn functions(rows: &[DiffRow], options: &DifferentialOptions) -> (Named, Vec<File>) {
    let mut places: FxHashMap<&str, u32> = FxHashMap::default();
    let mut files = Vec::new();
    let mut functions = Vec::with_capacity(rows.len());
    for row in rows {
        let file = *places.entry(&row.file).or_insert_with(|| {
            files.push(File::without_text(options.export.file_name(&row.file)));
            files.len() as u32 - 1
        });
        let name = row.qualname.as_ref().filter(|_| options.export.qualnames);
        let name = printable(name.unwrap_or(&row.name)).into_owned();
        functions.push((name, file, row.line, u8::from(row.line == 0)));
    }
    (functions, files)
}

fn note(old: &Profile, new: &Profile, options: &DifferentialOptions, scale: f64) -> String {
    let seconds = |profile: &Profile| profile.stats(&options.export.filter).total_tottime();
    let (before, after) = (seconds(old), seconds(new));
    let scaled = match options.normalise {
        true => format!("; in the picture the older one is scaled by {scale:.4}"),
        false => String::new(),
    };
    let times = match new.meta.unit_is_unknown() || old.meta.unit_is_unknown() {
        true => "the unit of the numbers is not known".to_string(),
        false => format!(
            "old {before:.3} s, new {after:.3} s, change {:+.3} s",
            after - before
        ),
    };
    format!(
        "{times}; red: more time than before, blue: less{scaled}{}",
        printable(&new.meta.shown())
    )
}
