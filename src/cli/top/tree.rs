//! The call tree by function, folded and unfolded.

use rustc_hash::{FxHashMap, FxHashSet};

use super::data::Computed;
use super::page::{Page, Row, SMALL, Stands, in_held_order, key_of};
use crate::profile::{FunctionId, Tables};
use crate::units::printable;
use crate::view::stats::rows;

/// Levels that are indented; deeper ones say their depth.
const MOST_INDENT: usize = 24;

/// How rows are looked at.
pub struct Look<'a> {
    pub held: Option<&'a FxHashMap<u64, usize>>,
    pub pattern: Option<&'a regex::Regex>,
    /// Whether small rows are folded into one.
    pub fold: bool,
    /// Whether files are named with their folders.
    pub paths: bool,
    pub width: u16,
}

impl Look<'_> {
    pub fn name(&self, tables: &Tables, function: FunctionId) -> String {
        rows::name(tables, function, !self.paths, false)
    }

    pub fn matches(&self, tables: &Tables, function: FunctionId) -> bool {
        let pattern = self.pattern;
        pattern.is_none_or(|pattern| pattern.is_match(&rows::name(tables, function, false, false)))
    }
}

/// A function below the same callers, whatever lines they were at.
#[derive(Debug)]
pub struct Node {
    pub parent: Option<usize>,
    pub function: FunctionId,
    /// Tells it apart by its path.
    pub key: u64,
    depth: usize,
    own_ns: u64,
    total_ns: u64,
    calls: u64,
    children: Vec<usize>,
    /// Whether there were at least so many calls, and nobody knows how many more.
    lower_bound: bool,
    /// Whether it or something below it is looked for.
    wanted: bool,
}

/// The tree with lines merged.
#[derive(Debug, Default)]
pub struct Folded {
    pub nodes: Vec<Node>,
    roots: Vec<usize>,
}

impl Folded {
    pub fn of(computed: &Computed, tables: &Tables) -> Folded {
        let tree = &computed.tree;
        let mut folded = Folded::default();
        let rows = computed.stats.rows.iter().filter(|row| row.lower_bound);
        let bounds: FxHashSet<FunctionId> = rows.map(|row| row.function).collect();
        let mut known: FxHashMap<(Option<usize>, FunctionId), usize> = FxHashMap::default();
        let mut places: Vec<usize> = Vec::with_capacity(tree.nodes.len());
        for (at, node) in tree.nodes.iter().enumerate() {
            let parent = node.parent.map(|parent| places[parent as usize]);
            let function = tree.function(tables, at as u32);
            let nodes = &mut folded.nodes;
            let place = *known.entry((parent, function)).or_insert_with(|| {
                let above = parent.map_or((0, 0), |parent| {
                    (nodes[parent].key, nodes[parent].depth + 1)
                });
                nodes.push(Node {
                    parent,
                    function,
                    key: key_of((above.0, function)),
                    depth: above.1,
                    own_ns: 0,
                    total_ns: 0,
                    calls: 0,
                    children: Vec::new(),
                    lower_bound: bounds.contains(&function),
                    wanted: true,
                });
                nodes.len() - 1
            });
            let into = &mut folded.nodes[place];
            into.own_ns = into.own_ns.saturating_add(node.self_wall_ns);
            into.total_ns = into.total_ns.saturating_add(node.total_wall_ns);
            into.calls = into.calls.saturating_add(node.calls);
            places.push(place);
        }
        for at in 0..folded.nodes.len() {
            if folded.nodes[at].total_ns == 0 {
                continue;
            }
            match folded.nodes[at].parent {
                Some(parent) => folded.nodes[parent].children.push(at),
                None => folded.roots.push(at),
            }
        }
        folded
    }

    /// The biggest first, or as they are held.
    fn in_order(&self, siblings: &[usize], held: Option<&FxHashMap<u64, usize>>) -> Vec<usize> {
        let mut list = siblings.to_vec();
        list.sort_by_key(|at| (std::cmp::Reverse(self.nodes[*at].total_ns), *at));
        in_held_order(&mut list, held, |at| self.nodes[*at].key);
        list
    }

    /// Opens the path on which most of the time is, from `from` or the top, as long as the next has that share of the time of
    /// the one above it, and would not be folded for being small.
    pub fn open_hot_path(&self, from: Option<usize>, least: f64, open: &mut FxHashSet<u64>) {
        let whole: u64 = self.roots.iter().map(|at| self.nodes[*at].total_ns).sum();
        let small = (SMALL * whole as f64) as u64;
        let mut at = from;
        loop {
            let siblings = at.map_or(&self.roots, |at| &self.nodes[at].children);
            let hottest = siblings.iter().max_by_key(|at| self.nodes[**at].total_ns);
            if let Some(at) = at {
                open.insert(self.nodes[at].key);
            }
            let Some(next) = hottest else {
                return;
            };
            let above = at.map_or(0, |at| self.nodes[at].total_ns);
            if self.nodes[*next].total_ns < small.max((above as f64 * least) as u64) {
                return;
            }
            at = Some(*next);
        }
    }

    /// Marks what matches, with all that leads there.
    fn mark_wanted(&mut self, tables: &Tables, look: &Look<'_>) {
        let mut known: FxHashMap<FunctionId, bool> = FxHashMap::default();
        for at in (0..self.nodes.len()).rev() {
            let function = self.nodes[at].function;
            let own = *known
                .entry(function)
                .or_insert_with(|| look.matches(tables, function));
            let below = self.nodes[at]
                .children
                .iter()
                .any(|child| self.nodes[*child].wanted);
            self.nodes[at].wanted = own || below;
        }
    }

    pub fn page(
        &mut self,
        computed: &Computed,
        tables: &Tables,
        open: &FxHashSet<u64>,
        look: &Look<'_>,
    ) -> Page {
        let filtered = look.pattern.is_some();
        if filtered {
            self.mark_wanted(tables, look);
        }
        let whole = computed.whole_ns.max(1) as f64;
        let mut page = Page {
            head: "  TOTAL%    OWN%  CUMTIME    CALLS  FUNCTION".to_string(),
            ..Page::default()
        };
        let is_small = |at: usize| (self.nodes[at].total_ns as f64) < SMALL * whole;
        let mut todo: Vec<Result<usize, Row>> = Vec::new();
        let add =
            |siblings: &[usize], depth: usize, above: u64, todo: &mut Vec<Result<usize, Row>>| {
                let list = self.in_order(siblings, look.held);
                let wanted = list.into_iter().filter(|at| self.nodes[*at].wanted);
                let (small, big): (Vec<usize>, Vec<usize>) =
                    wanted.partition(|at| look.fold && !filtered && is_small(*at));
                if !small.is_empty() {
                    let sum: u64 = small.iter().map(|at| self.nodes[*at].total_ns).sum();
                    let name = format!("{}+ other: {} (o: show)", indent(depth), small.len());
                    todo.push(Err(Row {
                        key: key_of((above, 7u8)),
                        columns: columns(sum, 0, None, whole),
                        name,
                        stands: Stands::Other,
                        ..Row::default()
                    }));
                }
                todo.extend(big.into_iter().rev().map(Ok));
            };
        add(&self.roots, 0, 0, &mut todo);
        while let Some(next) = todo.pop() {
            let at = match next {
                Ok(at) => at,
                Err(row) => {
                    page.rows.push(row);
                    continue;
                }
            };
            let node = &self.nodes[at];
            let is_open = filtered || open.contains(&node.key);
            let sign = match (node.children.is_empty(), is_open) {
                (true, _) => ' ',
                (_, true) => '-',
                (_, false) => '+',
            };
            page.rows.push(Row {
                key: node.key,
                columns: columns(
                    node.total_ns,
                    node.own_ns,
                    // Where there is time, there was a call.
                    Some((node.calls.max(1), node.lower_bound)),
                    whole,
                ),
                name: format!(
                    "{}{sign} {}",
                    indent(node.depth),
                    printable(&look.name(tables, node.function))
                ),
                heat: node.total_ns as f64 / whole,
                stands: Stands::Node(at),
                ..Row::default()
            });
            if is_open {
                add(&node.children, node.depth + 1, node.key, &mut todo);
            }
        }
        page
    }
}

fn indent(depth: usize) -> String {
    if depth <= MOST_INDENT {
        return " ".repeat(depth);
    }
    format!("{:<1$}", format!("[{depth}]"), MOST_INDENT)
}

fn columns(total_ns: u64, own_ns: u64, calls: Option<(u64, bool)>, whole: f64) -> String {
    let percent = |us: u64| format!("{:.1}%", 100.0 * us as f64 / whole);
    let calls = calls.map_or(String::new(), |(calls, bound)| {
        format!("{}{calls}", if bound { ">=" } else { "" })
    });
    format!(
        "{:>8} {:>7} {:>8.3} {calls:>8} ",
        percent(total_ns),
        percent(own_ns),
        total_ns as f64 / 1e9
    )
}
