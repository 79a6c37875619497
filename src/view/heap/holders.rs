//! Who holds memory, for people: retained sizes, referrers, paths. Names come from the target and are escaped and cut.

use std::fmt::Write as _;

use rustc_hash::FxHashMap;

use super::counted;
use crate::heap::caches::CacheRow;
use crate::heap::containers::Grown;
use crate::heap::graph::{Graph, NameId, ObjectId};
use crate::heap::paths::{Form, Paths};
use crate::heap::referrers::{Group, Referrer};
use crate::heap::retained::{GroupRetained, Holder, Retained};
use crate::heap::steps;
use crate::units::{format_bytes, printable, shortened};
use crate::view::table;

/// Steps of a path that are shown.
pub const STEPS: usize = 24;

/// Characters of a name or path that are shown.
const LETTERS: usize = 200;

/// `text` safe to print, and how much of it is left out said.
pub fn shown(text: &str) -> String {
    printable(&shortened(text, LETTERS)).into_owned()
}

fn share(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".to_string();
    }
    format!("{:.1}", 100.0 * part as f64 / whole as f64)
}

/// The table of single holders.
pub fn holders(
    graph: &Graph,
    paths: &Paths<'_>,
    rows: &[Holder],
    whole: u64,
    lines: Lines,
) -> String {
    let header = ["retained", "%", "objects", "shallow", "type", "path"];
    let mut folded = of_threads(graph, paths, rows, lines);
    folded.sort_by_key(|line| std::cmp::Reverse(line.sum.retained));
    folded.truncate(lines.most);
    let rows = folded.iter().map(|line| {
        // There may be more of the same beyond the last row.
        let least = if line.threads.len() > 1 && !lines.is_all {
            ">="
        } else {
            ""
        };
        let path = match (line.threads.len(), &line.rest) {
            (threads @ 2.., Some(rest)) => shown(&format!("<{least}{threads} threads{rest}")),
            _ => path(paths, line.sum.object),
        };
        vec![
            format!("{least}{}", format_bytes(line.sum.retained)),
            share(line.sum.retained, whole),
            format!("{least}{}", line.sum.held),
            format!("{least}{}", format_bytes(line.sum.shallow)),
            shown(steps::type_name(graph, line.sum.object)),
            path,
        ]
    });
    table::columns(&header, &[0, 1, 2, 3], rows)
}

/// The thread in which a path begins, and what follows its name.
fn in_thread(path: &str) -> Option<(String, String)> {
    let path = path.strip_prefix("<thread ")?;
    let end = path.find(|c: char| !c.is_ascii_digit() && c != '?')?;
    let (thread, rest) = path.split_at_checked(end)?;
    Some((thread.to_string(), rest.to_string()))
}

/// How many lines a table of holders has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lines {
    /// At most.
    pub most: usize,
    /// Whether it was made of all objects.
    pub is_all: bool,
}

/// A line of such a table: one object, or those of threads that do the same.
struct HolderLine {
    sum: Holder,
    threads: Vec<String>,
    /// The path behind the name of a thread.
    rest: Option<String>,
}

/// The rows with those made one that have the same type and path but for the thread: none of them can be below another one.
fn of_threads(graph: &Graph, paths: &Paths<'_>, rows: &[Holder], lines: Lines) -> Vec<HolderLine> {
    let mut folded: Vec<HolderLine> = Vec::new();
    let mut known: FxHashMap<(NameId, String), usize> = FxHashMap::default();
    let mut single = 0;
    for row in rows {
        let begun = paths
            .in_thread(row.object)
            .then(|| in_thread(&paths.text(row.object, STEPS)?))
            .flatten();
        let (thread, rest) = begun.unzip();
        let type_id = graph.type_ids.get(row.object as usize);
        let kind = type_id.and_then(|id| graph.types.get(*id as usize));
        let key = rest.clone().zip(kind).map(|(rest, kind)| (kind.name, rest));
        let line = key
            .as_ref()
            .and_then(|key| folded.get_mut(*known.get(key)?));
        if let (Some(line), Some(thread)) = (line, &thread)
            && !line.threads.contains(thread)
        {
            line.sum.retained = line.sum.retained.saturating_add(row.retained);
            line.sum.held = line.sum.held.saturating_add(row.held);
            line.sum.shallow = line.sum.shallow.saturating_add(row.shallow);
            line.threads.push(thread.clone());
            continue;
        }
        // No more of these are shown.
        if key.is_none() {
            single += 1;
            if single > lines.most {
                continue;
            }
        }
        if let Some(key) = key {
            known.entry(key).or_insert(folded.len());
        }
        folded.push(HolderLine {
            sum: *row,
            threads: thread.into_iter().collect(),
            rest,
        });
    }
    folded
}

/// The table of types or modules; `what` is the last column's name.
pub fn groups(rows: &[GroupRetained], what: &str, whole: u64) -> String {
    let header = ["retained", "%", "objects", "shallow", what];
    let rows = rows.iter().map(|row| {
        vec![
            format_bytes(row.retained),
            share(row.retained, whole),
            row.objects.to_string(),
            format_bytes(row.shallow),
            shown(&row.name),
        ]
    });
    table::columns(&header, &[0, 1, 2, 3], rows)
}

fn path(paths: &Paths<'_>, object: ObjectId) -> String {
    paths
        .text(object, STEPS)
        .map_or_else(|| "-".to_string(), |text| shown(&text))
}

/// How far a tree of holders is unfolded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unfold {
    /// Levels.
    pub depth: usize,
    /// Children of one holder.
    pub children: usize,
    /// Holders of fewer bytes are not shown.
    pub least: u64,
}

/// The dominator tree from the top.
pub fn holders_tree(
    graph: &Graph,
    paths: &Paths<'_>,
    retained: &Retained<'_>,
    whole: u64,
    unfold: Unfold,
) -> String {
    let mut text = String::new();
    // What is still to be printed, the next one last; with the bars before it.
    let mut open: Vec<(Holder, String, usize, bool)> = Vec::new();
    let push = |open: &mut Vec<_>, found: Vec<Holder>, bars: &str, depth: usize| {
        let found: Vec<Holder> = found
            .into_iter()
            .filter(|holder| holder.retained >= unfold.least)
            .collect();
        let count = found.len();
        for (at, holder) in found.into_iter().enumerate().rev() {
            open.push((holder, bars.to_string(), depth, at + 1 == count));
        }
    };
    push(&mut open, retained.children(None, unfold.children), "", 0);
    while let Some((holder, bars, depth, is_last)) = open.pop() {
        let branch = match (depth, is_last) {
            (0, _) => "",
            (_, true) => "└─ ",
            (_, false) => "├─ ",
        };
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "{:>10} {:>5} %  {bars}{branch}{} ({}, {} objects)",
            format_bytes(holder.retained),
            share(holder.retained, whole),
            path(paths, holder.object),
            shown(steps::type_name(graph, holder.object)),
            holder.held,
        );
        if depth + 1 < unfold.depth {
            let below = match (depth, is_last) {
                (0, _) => String::new(),
                (_, true) => format!("{bars}   "),
                (_, false) => format!("{bars}│  "),
            };
            let children = retained.children(Some(holder.object), unfold.children);
            push(&mut open, children, &below, depth + 1);
        }
    }
    text
}

/// One line of a tree: bars, text, and what follows below.
struct Line<'a, T> {
    node: &'a T,
    bars: String,
    depth: usize,
    is_last: bool,
}

/// Lays a tree out with bars; `text` gives a node's line, `hidden` how many children are not shown.
fn draw<'a, T>(
    top: &'a T,
    text: impl Fn(&'a T) -> String,
    children: impl Fn(&'a T) -> &'a [T],
    hidden: impl Fn(&'a T) -> u64,
) -> String {
    let mut drawn = String::new();
    let mut open = vec![Line {
        node: top,
        bars: String::new(),
        depth: 0,
        is_last: true,
    }];
    while let Some(line) = open.pop() {
        let branch = match (line.depth, line.is_last) {
            (0, _) => "",
            (_, true) => "└─ ",
            (_, false) => "├─ ",
        };
        let _ = writeln!(drawn, "{}{branch}{}", line.bars, text(line.node));
        let below = match (line.depth, line.is_last) {
            (0, _) => String::new(),
            (_, true) => format!("{}   ", line.bars),
            (_, false) => format!("{}│  ", line.bars),
        };
        let more = hidden(line.node);
        if more > 0 {
            let _ = writeln!(drawn, "{below}   ({more} more below, not shown)");
        }
        let children = children(line.node);
        for (at, child) in children.iter().enumerate().rev() {
            open.push(Line {
                node: child,
                bars: below.clone(),
                depth: line.depth + 1,
                is_last: at + 1 == children.len(),
            });
        }
    }
    drawn
}

fn roots_text(graph: &Graph, roots: &[usize]) -> String {
    let Some((_, root)) = roots.first().and_then(|root| graph.roots.get(*root)) else {
        return String::new();
    };
    let more = match roots.len() {
        1 => String::new(),
        count => format!(" and {} more", count - 1),
    };
    format!("  <- {}{more}", shown(&steps::root(graph, root)))
}

fn object_text(graph: &Graph, object: ObjectId) -> String {
    let at = object as usize;
    format!(
        "{} at {:#x}, {}",
        shown(steps::type_name(graph, object)),
        graph.addresses.get(at).copied().unwrap_or(0),
        format_bytes(graph.sizes.get(at).copied().unwrap_or(0)),
    )
}

/// The tree of who refers to one object.
pub fn referrers(graph: &Graph, tree: &Referrer) -> String {
    let text = |node: &Referrer| {
        let mut how = String::new();
        if let Some(step) = node.step {
            step.write(graph, &mut how);
            how = format!("{}  of  ", shown(&how));
        }
        let again = match node.beyond {
            _ if node.is_cycle => "  (cycle)".to_string(),
            0 if node.is_seen => "  (its referrers are told at its first place)".to_string(),
            0 => String::new(),
            beyond => format!(
                "  ({} deeper than --depth)",
                counted(beyond, "reference", "references")
            ),
        };
        format!(
            "{how}{}{again}{}",
            object_text(graph, node.object),
            roots_text(graph, &node.roots)
        )
    };
    draw(tree, text, |node| &node.children, |node| node.hidden)
}

/// The tree of who refers to the instances of a type.
pub fn referrer_groups(graph: &Graph, tree: &Group) -> String {
    let text = |node: &Group| {
        let mut how = String::new();
        if let Some(step) = node.step {
            step.write(graph, &mut how);
            how = format!(
                "{}{} references by {}  of  ",
                least(graph),
                node.references,
                shown(&how)
            );
        }
        format!(
            "{how}{}{} x {}{}",
            least(graph),
            node.objects,
            shown(&node.type_name),
            roots_text(graph, &node.roots)
        )
    };
    draw(tree, text, |node| &node.children, |node| node.hidden)
}

/// What stands before numbers: nothing, or that they are lower bounds.
fn least(graph: &Graph) -> &'static str {
    if graph.missing > 0 { ">=" } else { "" }
}

/// Paths to one object, a line each.
pub fn paths(rows: &[PathRow]) -> String {
    rows.iter()
        .map(|row| shown(&row.form.text) + "\n")
        .collect()
}

/// A line of `heap path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathRow {
    /// The type that it is the only line of.
    pub kind: Option<String>,
    /// A path, or what several have in common.
    pub form: Form,
    /// One of them with its keys and indices.
    pub such_as: Option<String>,
    /// Forms of the type that have no line.
    pub others: usize,
}

impl PathRow {
    /// One of several of the same type.
    pub fn of(form: Form) -> PathRow {
        PathRow {
            kind: None,
            form,
            such_as: None,
            others: 0,
        }
    }
}

/// The forms of paths, with how many objects have them.
pub fn forms(graph: &Graph, rows: &[PathRow]) -> String {
    let mut text = String::new();
    for row in rows {
        if let Some(kind) = &row.kind {
            let _ = write!(text, "{}: ", shown(kind));
        }
        let (path, least) = (shown(&row.form.text), least(graph));
        let _ = write!(text, "{path} × {least}{}", row.form.objects);
        if let Some(path) = &row.such_as {
            let _ = write!(text, ", such as {}", shown(path));
        }
        let _ = match row.others {
            0 => writeln!(text),
            1 => writeln!(text, " (and 1 other form)"),
            others => writeln!(text, " (and {others} other forms)"),
        };
    }
    text
}

/// The table of caches.
pub fn caches(graph: &Graph, rows: &[CacheRow], paths: &[String]) -> String {
    if rows.is_empty() {
        return "no functools.lru_cache or functools.cache\n".to_string();
    }
    let header = [
        "limit", "size", "hits", "misses", "retained", "function", "where", "address", "path",
    ];
    let rows = rows.iter().zip(paths).map(|((cache, retained), path)| {
        let address = graph.addresses.get(cache.object as usize);
        let file = graph.name(cache.file);
        let place = match file {
            "" => String::new(),
            file => format!("{}:{}", shown(file), cache.line),
        };
        vec![
            cache
                .limit
                .map_or("none".to_string(), |limit| limit.to_string()),
            cache.size.to_string(),
            cache.hits.to_string(),
            cache.misses.to_string(),
            format_bytes(*retained),
            shown(graph.name(cache.function)),
            place,
            format!("{:#x}", address.copied().unwrap_or(0)),
            shown(path),
        ]
    });
    let table = table::columns(&header, &[0, 1, 2, 3, 4], rows);
    format!("{}\n\n{table}", graph.counted.description())
}

/// The table of containers that grew since the heap `old`, each with more than `least` items.
pub fn containers(graph: &Graph, rows: &[Grown], old: &str, least: u64) -> String {
    let what = format!(
        "containers of modules and classes with more than {least} items that grew since {}",
        shown(old)
    );
    if rows.is_empty() {
        return format!("no {what}\n");
    }
    let header = ["items", "before", "retained", "type", "path"];
    let rows = rows.iter().map(|row| {
        vec![
            row.items.to_string(),
            row.before
                .map_or("-".to_string(), |before| before.to_string()),
            format_bytes(row.retained),
            shown(steps::type_name(graph, row.object)),
            shown(&row.path),
        ]
    });
    let table = table::columns(&header, &[0, 1, 2], rows);
    format!("{what}; {}:\n{table}", graph.counted.description())
}

/// The tree of referrers in Graphviz's language: arrows from the referrer to what it refers to, as objgraph draws them.
pub fn referrers_dot(graph: &Graph, tree: &Referrer) -> String {
    let mut text = String::from(
        "digraph referrers {\n  node [shape=box, style=filled, fillcolor=white, fontname=\"sans\"];\n",
    );
    let mut seen = rustc_hash::FxHashSet::default();
    let mut open = vec![tree];
    while let Some(node) = open.pop() {
        if seen.insert(node.object) {
            let root = node.roots.first().and_then(|root| graph.roots.get(*root));
            let colour = match (root, node.step) {
                (_, None) => ", fillcolor=\"#ffd0d0\"",
                (Some(_), _) => ", fillcolor=\"#d0f0d0\"",
                _ => "",
            };
            let mut label = object_text(graph, node.object);
            if let Some((_, root)) = root {
                label = format!("{}\n{label}", shown(&steps::root(graph, root)));
            }
            let _ = writeln!(
                text,
                "  o{} [label={}{colour}];",
                node.object,
                dot_text(&label)
            );
        }
        for child in &node.children {
            let mut how = String::new();
            if let Some(step) = child.step {
                step.write(graph, &mut how);
            }
            let label = dot_text(&shown(&how));
            let _ = writeln!(
                text,
                "  o{} -> o{} [label={label}];",
                child.object, node.object
            );
            open.push(child);
        }
    }
    text.push_str("}\n");
    text
}

fn dot_text(text: &str) -> String {
    let escaped = text
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n");
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heap::fold::Fold;
    use crate::heap::graph::testing::lists;
    use crate::heap::referrers::{Limits, Referrers};

    const LIMITS: Limits = Limits {
        depth: 3,
        children: 2,
    };

    #[test]
    fn trees_have_bars_roots_and_cycles() {
        let graph = lists(&[vec![1], vec![2], vec![1], vec![2], vec![2]], &[0]);
        let fold = Fold::of(&graph);
        let asked = Referrers::new(&graph, &fold);
        let text = referrers(&graph, &asked.tree(2, LIMITS).0);
        let expected = "\
list at 0x1080, 102 B
   (1 more below, not shown)
├─ [0]  of  list at 0x1040, 101 B
│  ├─ [0]  of  list at 0x1000, 100 B  <- module0
│  └─ [0]  of  list at 0x1080, 102 B  (cycle)
└─ [0]  of  list at 0x10c0, 103 B
";
        assert_eq!(text, expected);
        let text = referrer_groups(&graph, &asked.groups("list", &[2], LIMITS));
        assert!(
            text.starts_with("1 x list\n└─ 3 references by [*]  of  3 x list\n"),
            "{text}"
        );
        let dot = referrers_dot(&graph, &asked.tree(2, LIMITS).0);
        assert!(dot.contains("  o1 -> o2 [label=\"[0]\"];\n"), "{dot}");
    }

    #[test]
    fn holders_are_told_with_their_paths() {
        let graph = lists(&[vec![1, 2], vec![3], vec![], vec![]], &[0]);
        let fold = Fold::of(&graph);
        let paths = Paths::of(&graph, &fold);
        let retained = Retained::of(&graph, &fold);
        let text = holders(
            &graph,
            &paths,
            &retained.by_object(2, |_| true),
            406,
            Lines {
                most: 2,
                is_all: true,
            },
        );
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[1].split_whitespace().collect::<Vec<_>>().join(" "),
            "406 B 100.0 4 100 B list module0"
        );
        assert!(lines[2].ends_with("module0[0]"), "{text}");
        let unfold = Unfold {
            depth: 3,
            children: 5,
            least: 0,
        };
        let tree = holders_tree(&graph, &paths, &retained, 406, unfold);
        let expected = "     \
     406 B 100.0 %  module0 (list, 4 objects)
     204 B  50.2 %  ├─ module0[0] (list, 2 objects)
     103 B  25.4 %  │  └─ module0[0][0] (list, 1 objects)
     102 B  25.1 %  └─ module0[1] (list, 1 objects)
";
        assert_eq!(tree, expected);
    }

    #[test]
    fn names_are_cut_and_the_cut_is_said() {
        let long = "\u{1b}[31m".repeat(100_000);
        let text = shown(&long);
        assert!(text.chars().count() < 1200 && text.ends_with("(+499800 characters)"));
        assert!(!text.contains('\u{1b}'));
    }
}
