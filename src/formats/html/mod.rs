//! One self-contained HTML page: a flame graph and a sortable table, offline, nothing loaded from anywhere
//! (its content security policy forbids it).
//!
//! The numbers are embedded as JSON in which `<`, `>` and `&` are escapes, so that no name can end the
//! script element; the script sets names as text only.

use std::io::{self, BufWriter, Write};

use rustc_hash::FxHashMap;
use serde::Serialize;

use super::{ExportOptions, Exporter, Loss};
use crate::error::{Error, Result};
use crate::profile::{CallStats, CallTree, Certainty, FunctionKind, Origin, Profile};
use crate::units::{printable, several};

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// A stack with less than this part of its group's time is narrower than a tenth of a pixel.
const SMALLEST_PART: u64 = 20_000;

/// `.html` pages.
#[derive(Debug, Clone, Copy)]
pub struct Html;

impl Exporter for Html {
    fn export(
        &self,
        profile: &Profile,
        options: &ExportOptions,
        out: &mut dyn Write,
    ) -> Result<Vec<Loss>> {
        let (tree, estimated) = profile.tree(&options.filter);
        let stats = match &profile.exact {
            Some(_) => profile.stats(&options.filter),
            None => CallStats::of(&tree, &profile.tables),
        };
        let (nodes, left_out) = Nodes::of(&tree, profile);
        let data = Data::of(profile, options, &stats, &tree, nodes);
        let mut out = BufWriter::with_capacity(1 << 16, out);
        write_page(&data, &mut out).map_err(|error| Error::write("the HTML page", &error))?;
        let mut losses = Vec::new();
        if left_out > 0 {
            losses.push(format!(
                "{} left out of the flame graph, each less than 0.005 % of the time",
                several(left_out as u64, "stack")
            ));
        }
        if estimated {
            losses.push("the profile has no stacks; those shown are estimates".to_string());
        }
        Ok(losses)
    }
}

/// Fills in the page's three places, `@CSS@`, `@DATA@` and `@JS@`.
fn write_page(data: &Data, out: &mut dyn Write) -> io::Result<()> {
    let mut rest = PAGE;
    while let Some((before, after)) = rest.split_once('@') {
        out.write_all(before.as_bytes())?;
        let (name, after) = after.split_once('@').unwrap_or((after, ""));
        match name {
            "CSS" => out.write_all(STYLE.as_bytes())?,
            "JS" => out.write_all(SCRIPT.as_bytes())?,
            _ => {
                let mut serializer = serde_json::Serializer::with_formatter(&mut *out, InScript);
                data.serialize(&mut serializer)?;
            }
        }
        rest = after;
    }
    out.write_all(rest.as_bytes())?;
    out.flush()
}

/// JSON that may stand inside of a script element.
struct InScript;

impl serde_json::ser::Formatter for InScript {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        out: &mut W,
        text: &str,
    ) -> io::Result<()> {
        for part in text.split_inclusive(['<', '>', '&']) {
            let plain = part.trim_end_matches(['<', '>', '&']);
            out.write_all(plain.as_bytes())?;
            for c in part.get(plain.len()..).unwrap_or_default().chars() {
                write!(out, "\\u{:04x}", c as u32)?;
            }
        }
        Ok(())
    }
}

#[derive(Serialize)]
struct Data {
    title: String,
    note: String,
    groups: Vec<String>,
    /// Wall time of each group, nanoseconds.
    total: Vec<u64>,
    /// Name, file, first line, kind (0 Python, 1 C, 2 native).
    functions: Vec<(String, String, u32, u8)>,
    /// Function, group, calls, primitive calls, own and cumulative time in seconds, 1 where the calls are a lower bound.
    rows: Vec<(u32, u32, u64, u64, f64, f64, u8)>,
    nodes: Nodes,
}

/// Columns of the tree's nodes: parent (-1 for none), function, group, total and own wall time in
/// nanoseconds.
#[derive(Serialize, Default)]
struct Nodes(Vec<i64>, Vec<u32>, Vec<u32>, Vec<u64>, Vec<u64>);

impl Nodes {
    /// The nodes that are wide enough to be seen, and how many are not.
    fn of(tree: &CallTree, profile: &Profile) -> (Nodes, usize) {
        let least: Vec<u64> = group_totals(tree)
            .iter()
            .map(|ns| ns / SMALLEST_PART)
            .collect();
        let all = Nodes::by_function(tree, profile);
        let mut nodes = Nodes::default();
        let mut places: Vec<i64> = Vec::with_capacity(all.0.len());
        let mut left_out = 0;
        for at in 0..all.0.len() {
            let (parent, group, total) = (all.0[at], all.2[at], all.3[at]);
            // A node's total is never more than its parent's: parents of what is kept are kept.
            if total <= least[group as usize] {
                left_out += usize::from(total > 0);
                places.push(-1);
                continue;
            }
            places.push(nodes.0.len() as i64);
            let parent = usize::try_from(parent).ok();
            nodes.0.push(parent.map_or(-1, |parent| places[parent]));
            nodes.1.push(all.1[at]);
            nodes.2.push(group);
            nodes.3.push(total);
            nodes.4.push(all.4[at]);
        }
        (nodes, left_out)
    }

    /// The whole tree, with the lines of a function as one: a call is one box, whatever it did on which line.
    fn by_function(tree: &CallTree, profile: &Profile) -> Nodes {
        let mut nodes = Nodes::default();
        let mut known: FxHashMap<(i64, u32, u32), usize> = FxHashMap::default();
        let mut places: Vec<i64> = Vec::with_capacity(tree.nodes.len());
        for (at, node) in tree.nodes.iter().enumerate() {
            let parent = node.parent.map_or(-1, |parent| places[parent as usize]);
            let function = tree.function(&profile.tables, at as u32).0;
            let place = *known
                .entry((parent, function, node.group))
                .or_insert_with(|| {
                    nodes.0.push(parent);
                    nodes.1.push(function);
                    nodes.2.push(node.group);
                    nodes.3.push(0);
                    nodes.4.push(0);
                    nodes.0.len() - 1
                });
            nodes.3[place] = nodes.3[place].saturating_add(node.total_wall_ns);
            nodes.4[place] = nodes.4[place].saturating_add(node.self_wall_ns);
            places.push(place as i64);
        }
        nodes
    }
}

/// Wall time of each group, nanoseconds.
fn group_totals(tree: &CallTree) -> Vec<u64> {
    let mut totals = vec![0; tree.groups.len()];
    for node in &tree.nodes {
        let total: &mut u64 = &mut totals[node.group as usize];
        *total = total.saturating_add(node.self_wall_ns);
    }
    totals
}

impl Data {
    fn of(
        profile: &Profile,
        options: &ExportOptions,
        stats: &CallStats,
        tree: &CallTree,
        nodes: Nodes,
    ) -> Data {
        let tables = &profile.tables;
        let function = |(at, f): (usize, &crate::profile::Function)| {
            let id = crate::profile::FunctionId(at as u32);
            let file = printable(options.file_name(tables.text(f.file)));
            let kind = match f.kind {
                FunctionKind::Python => 0,
                FunctionKind::Builtin => 1,
                FunctionKind::Native => 2,
            };
            (
                printable(tables.shown_name(id, options.qualnames)).into_owned(),
                file.into_owned(),
                f.line,
                kind,
            )
        };
        let finite = |value: f64| if value.is_finite() { value } else { 0.0 };
        let rows = stats.rows.iter().map(|row| {
            let (tottime, cumtime) = (finite(row.tottime), finite(row.cumtime));
            (
                row.function.0,
                row.group,
                row.ncalls,
                row.primitive,
                tottime,
                cumtime,
                u8::from(row.lower_bound),
            )
        });
        let title = match options.title(profile) {
            "" => "Python",
            title => title,
        };
        Data {
            title: printable(title).into_owned(),
            note: note(profile, options, stats.certainty(tree)),
            groups: stats
                .groups
                .iter()
                .map(|label| printable(label).into_owned())
                .collect(),
            total: group_totals(tree),
            functions: tables
                .functions()
                .iter()
                .enumerate()
                .map(function)
                .collect(),
            rows: rows.collect(),
            nodes,
        }
    }
}

/// What the numbers are, in one line.
fn note(profile: &Profile, options: &ExportOptions, certainty: Certainty) -> String {
    let meta = &profile.meta;
    let text = match meta.origin {
        Origin::Exact => "exact calls and times; the flame graph is estimated: calls may stand beside their callers".to_string(),
        Origin::Collapsed if meta.unit_is_unknown() => {
            "from collapsed stacks: the unit is not known".to_string()
        }
        Origin::Collapsed => "from collapsed stacks".to_string(),
        Origin::Sampled => {
            let rate = if meta.rate_hz > 0.0 {
                format!("{} Hz", meta.rate_hz)
            } else {
                "full speed".to_string()
            };
            let approximate = if meta.approximate_stacks {
                "; stacks are approximate"
            } else {
                ""
            };
            format!(
                "{}sampled at {rate} for {:.2} s, mode {}: {}, {} given up; {}\
                 {approximate}",
                if meta.python.is_empty() {
                    String::new()
                } else {
                    format!("Python {}, ", printable(&meta.python))
                },
                meta.duration_us as f64 / 1e6,
                options.filter.mode.name(),
                several(meta.samples, "sample"),
                meta.given_up,
                certainty.words("ncalls"),
            )
        }
    };
    text + &printable(&meta.shown())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_ends_the_script() {
        let mut profile = Profile::default();
        let name = "</script><!--<script>&\u{2028}";
        profile
            .tables
            .function("a.py", 1, name, FunctionKind::Python);
        let mut out = Vec::new();
        Html.export(&profile, &ExportOptions::default(), &mut out)
            .expect("writes");
        let page = String::from_utf8(out).expect("UTF-8");
        let (_, data) = page.split_once("id=\"data\">").expect("data");
        let (data, _) = data.split_once("</script>").expect("an end");
        assert!(!data.contains(['<', '>', '&']));
        let value: serde_json::Value = serde_json::from_str(data).expect("JSON");
        assert_eq!(value["functions"][0][0], printable(name).as_ref());
        assert_eq!(page.matches("</script>").count(), 2);
    }

    #[test]
    fn a_function_is_one_box_whatever_its_lines() {
        use crate::profile::{Group, TreeNode};
        let mut profile = Profile::default();
        let tables = &mut profile.tables;
        let main = tables.function("a.py", 1, "main", FunctionKind::Python);
        let work = tables.function("a.py", 9, "work", FunctionKind::Python);
        let frames = [(main, 2), (main, 3), (work, 10), (work, 11)];
        let frames = frames.map(|(function, line)| tables.frame(function, line));
        let node = |parent, frame, own_ns, total_ns| TreeNode {
            parent,
            frame,
            group: 0,
            self_wall_ns: own_ns,
            self_cpu_ns: 0,
            total_wall_ns: total_ns,
            total_cpu_ns: 0,
            calls: 1,
            samples: 1,
        };
        let tree = CallTree {
            nodes: vec![
                node(None, frames[0], 0, 6000),
                node(None, frames[1], 1000, 5000),
                node(Some(0), frames[2], 6000, 6000),
                node(Some(1), frames[3], 4000, 4000),
            ],
            groups: vec![Group {
                label: String::new(),
            }],
            ..CallTree::default()
        };
        let (nodes, left_out) = Nodes::of(&tree, &profile);
        assert_eq!(left_out, 0);
        assert_eq!(nodes.0, [-1, 0]);
        assert_eq!(nodes.1, [main.0, work.0]);
        assert_eq!(
            (nodes.3, nodes.4),
            (vec![11_000, 10_000], vec![1000, 10_000])
        );
    }
}
