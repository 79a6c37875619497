//! `biopsy heap retained`: the biggest holders.

use std::cell::Cell;
use std::io::Write;

use clap::{Args, ValueEnum};

use super::args::SizesArgs;
use super::input::GraphArgs;
use super::put;
use crate::cli::args::parse_limit;
use crate::error::Result;
use crate::glob;
use crate::heap::fold::Fold;
use crate::heap::graph::Graph;
use crate::heap::paths::Paths;
use crate::heap::retained::Retained;
use crate::heap::steps;
use crate::units::parse_bytes;
use crate::view::heap::holders::{self, Lines, Unfold};
use crate::view::heap::json::holders as json;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ByArg {
    /// Single objects
    Object,
    /// All instances of a type together
    Type,
    /// Modules: every byte belongs to the one that alone holds it
    Module,
}

/// Print who keeps most memory alive: what would go if the holder went (dominator tree), in bytes of the allocators' blocks.
#[derive(Debug, Args)]
pub struct RetainedArgs {
    #[command(flatten)]
    target: GraphArgs,
    /// What a row is
    #[arg(long, value_enum, value_name = "WHAT", default_value = "object")]
    by: ByArg,
    /// Print the tree of holders, from the roots down
    #[arg(long, conflicts_with = "by")]
    tree: bool,
    /// Levels of the tree
    #[arg(long, value_name = "N", default_value_t = 4, requires = "tree")]
    depth: usize,
    /// At most this many rows, or "all"; in the tree, children of each holder
    #[arg(short, long, value_name = "N", default_value = "15", value_parser = parse_limit)]
    limit: usize,
    /// Only holders whose type has such a name: myapp.*, dict; repeatable
    #[arg(short, long = "type", value_name = "GLOB")]
    types: Vec<String>,
    #[command(flatten)]
    sizes: SizesArgs,
    /// Only holders that retain at least this: 512, 4KiB, 1MiB
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    min_size: Option<u64>,
    /// Print JSON
    #[arg(long, conflicts_with = "tree")]
    json: bool,
}

/// Objects for each line that are looked at, as far as threads have them.
const THREADS: usize = 64;

pub fn run(args: &RetainedArgs, out: &mut dyn Write) -> Result<()> {
    let mut graph = args.target.sized_graph()?;
    args.sizes.choose(std::iter::once(&mut graph));
    let fold = Fold::of(&graph);
    let by_object = args.by == ByArg::Object;
    // Neither needs the other.
    let (retained, paths) = std::thread::scope(|scope| {
        let paths = by_object.then(|| scope.spawn(|| Paths::of(&graph, &fold)));
        let retained = Retained::of(&graph, &fold);
        let again = |_| Paths::of(&graph, &fold);
        (
            retained,
            paths.map(|paths| paths.join().unwrap_or_else(again)),
        )
    });
    let whole = retained.whole();
    let least = args.min_size.unwrap_or(0);
    let wants = |name: &str| {
        args.types.is_empty() || args.types.iter().any(|glob| glob::matches(glob, name))
    };
    let Some(paths) = paths else {
        let (mut rows, what) = match args.by {
            ByArg::Module => (retained.by_module(), "module"),
            _ => (retained.by_type(), "type"),
        };
        rows.retain(|row| row.retained >= least && wants(&row.name));
        rows.truncate(args.limit);
        let text = if args.json {
            json::groups(&graph, &rows, what, whole)?
        } else {
            note(&graph, whole) + &holders::groups(&rows, what, whole)
        };
        return put(out, &text);
    };
    if args.tree {
        let unfold = Unfold {
            depth: args.depth.min(64),
            children: args.limit,
            least,
        };
        let tree = holders::holders_tree(&graph, &paths, &retained, whole, unfold);
        return put(out, &(note(&graph, whole) + &tree));
    }
    let wanted = wanted_types(&graph, wants);
    // The same variable of many threads is one line: more objects than lines.
    let most = match args.json {
        true => args.limit,
        false => args.limit.saturating_mul(THREADS),
    };
    let chained = Cell::new(0u64);
    let rows = retained.by_object(most, |object| {
        let type_id = graph.type_ids.get(object as usize);
        let is_wanted = retained.dominators().retained(object) >= least
            && type_id.is_some_and(|id| wanted.get(*id as usize).copied().unwrap_or(false));
        let is_chained = is_wanted && retained.continues_chain(object);
        chained.set(chained.get() + u64::from(is_chained));
        is_wanted && !is_chained
    });
    let chained = chained.get();
    let text = if args.json {
        json::holders(&graph, &paths, &rows, whole, chained)?
    } else {
        let lines = Lines {
            most: args.limit,
            is_all: rows.len() < most,
        };
        note(&graph, whole)
            + &holders::holders(&graph, &paths, &rows, whole, lines)
            + &rest(chained)
    };
    put(out, &text)
}

/// Says of what there is no row.
fn rest(chained: u64) -> String {
    match chained {
        0 => String::new(),
        _ => format!(
            "\nwithout {}, each of which keeps nearly all that the one of its type above it keeps\n",
            crate::view::heap::counted(chained, "object deep in a chain", "objects deep in chains")
        ),
    }
}

fn note(graph: &Graph, whole: u64) -> String {
    let reached = crate::units::format_bytes(whole);
    format!(
        "{} objects; {reached} reachable; {}\n\n",
        graph.len(),
        graph.counted.description()
    )
}

/// Which types have a name that `wants` likes.
pub fn wanted_types(graph: &Graph, wants: impl Fn(&str) -> bool) -> Vec<bool> {
    let names = graph.types.iter().map(|found| graph.name(found.name));
    names.map(wants).collect()
}

/// The objects whose type has a name that matches `pattern`.
pub fn instances(graph: &Graph, pattern: &str) -> Vec<u32> {
    let wanted = wanted_types(graph, |name| glob::matches(pattern, name));
    (0..graph.len() as u32)
        .filter(|object| {
            let type_id = graph.type_ids.get(*object as usize);
            type_id.is_some_and(|id| wanted.get(*id as usize).copied().unwrap_or(false))
        })
        .collect()
}

/// What the types of `objects` are called, for a heading: the pattern when they are several.
pub fn kind_of<'a>(graph: &'a Graph, pattern: &'a str, objects: &[u32]) -> &'a str {
    let mut names = objects
        .iter()
        .map(|object| steps::type_name(graph, *object));
    match names.next() {
        Some(first) if names.all(|name| name == first) => first,
        _ => pattern,
    }
}
