//! The source of a function with what each line costs.

use std::sync::Arc;

use super::data::Computed;
use super::page::{Page, Row, key_of};
use super::tree::Look;
use crate::cli::sources::Sources;
use crate::profile::lines::{Cost, line_costs};
use crate::profile::{FunctionId, FunctionKind, Tables};
use crate::units::{Pid, printable};
use crate::view::stats::{rows, source_text};

/// Letters of a line that are kept; the rest is beyond the edge.
const MOST_LETTERS: usize = 500;

/// Lines above the function's first one that are shown, and as many that follow its last one with a cost.
const AROUND: usize = 3;

/// The lines of `function`, and the place of the hottest.
pub fn page(
    computed: &Computed,
    tables: &Tables,
    function: Option<FunctionId>,
    sources: &mut Sources,
    pid: Option<Pid>,
    look: &Look<'_>,
) -> (Page, Option<u64>) {
    let mut page = Page {
        empty: "choose a function first: 1, then 4 on it".to_string(),
        ..Page::default()
    };
    let Some(function) = function else {
        return (page, None);
    };
    let name = printable(&rows::name(tables, function, !look.paths, false)).into_owned();
    page.head = format!("  line   own s  cum s {name}");
    if tables.get_function(function).kind == FunctionKind::Builtin {
        page.empty = format!("{name} is no Python function: it has no lines");
        return (page, None);
    }
    if computed.estimated {
        page.empty = "this profile has times by function, and none by line".to_string();
        return (page, None);
    }
    let costs = line_costs(&computed.tree, tables)
        .remove(&function)
        .unwrap_or_default();
    let text = read(sources, pid, tables.file(function));
    let hottest = costs
        .iter()
        .max_by_key(|(_, cost)| (cost.own_ns, cost.total_ns))
        .map(|(line, _)| key_of(*line));
    let whole = computed.whole_ns.max(1) as f64;
    let row = |line: u32, text: &str, strong: bool| {
        let cost = costs.get(&line).copied().unwrap_or_default();
        Row {
            key: key_of(line),
            columns: format!(
                "{:>6} {:>7} {:>6}",
                if line == 0 {
                    "-".to_string()
                } else {
                    line.to_string()
                },
                seconds(cost.own_ns),
                seconds(cost.total_ns)
            ),
            name: text.to_string(),
            heat: heat(cost) as f64 / whole,
            bar: true,
            strong,
            ..Row::default()
        }
    };
    let first = tables.line(function);
    let Some(text) = text else {
        page.head.push_str(" (no source here)");
        page.empty = format!("no samples in {name}");
        page.rows = costs.keys().map(|line| row(*line, "", false)).collect();
        return (page, hottest);
    };
    if costs.contains_key(&0) {
        page.rows.push(row(0, "(lines that are not known)", false));
    }
    let last = costs
        .keys()
        .next_back()
        .copied()
        .unwrap_or(first)
        .max(first) as usize;
    let from = (first as usize).saturating_sub(AROUND + 1);
    let until = end_of(&text, first as usize, last).max(last) + AROUND;
    for (at, line) in text.iter().enumerate().take(until).skip(from) {
        let cut: String = line.chars().take(MOST_LETTERS).collect();
        let line = u32::try_from(at + 1).unwrap_or(u32::MAX);
        page.rows.push(row(line, &source_text(&cut), line == first));
    }
    // Lines that the file no longer has.
    let beyond = costs.keys().filter(|line| **line as usize > text.len());
    page.rows
        .extend(beyond.map(|line| row(*line, "(the file has no such line)", false)));
    (page, hottest)
}

/// A file as the process sees it, in its container and from its folder; else as we see it.
fn read(sources: &mut Sources, pid: Option<Pid>, file: &str) -> Option<Arc<Vec<String>>> {
    let theirs = pid.map(|pid| match file.starts_with('/') {
        true => format!("/proc/{pid}/root{file}"),
        false => format!("/proc/{pid}/cwd/{file}"),
    });
    let found = theirs.and_then(|path| sources.read(&path));
    found.or_else(|| sources.read(file))
}

/// The last line of what begins at `first` (1-based) and is indented more than it.
fn end_of(text: &[String], first: usize, last: usize) -> usize {
    let depth = |line: &String| line.len() - line.trim_start().len();
    let Some(own) = first.checked_sub(1).and_then(|at| text.get(at)).map(depth) else {
        return last;
    };
    let next = text
        .iter()
        .enumerate()
        .skip(last.max(first))
        .find(|(_, line)| !line.trim().is_empty() && depth(line) <= own);
    next.map_or(text.len(), |(at, _)| at).min(last + 200)
}

fn heat(cost: Cost) -> u64 {
    cost.own_ns.max(cost.total_ns)
}

fn seconds(us: u64) -> String {
    match us {
        0 => ".".to_string(),
        ns => format!("{:.3}", ns as f64 / 1e9),
    }
}
