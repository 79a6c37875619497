//! `biopsy heap caches`: the results that functions keep.

use std::io::Write;

use clap::Args;

use super::args::SizesArgs;
use super::input::GraphArgs;
use super::put;
use crate::cli::args::parse_limit;
use crate::error::Result;
use crate::heap::fold::Fold;
use crate::heap::paths::Paths;
use crate::heap::retained::Retained;
use crate::heap::{caches, containers};
use crate::view::heap::holders;
use crate::view::heap::json::holders as json;

/// List every functools.lru_cache and functools.cache: hits, misses, size, limit and the memory that it keeps;
/// those without a limit first, then by memory. With --since, also the lists, dicts and other containers of modules and
/// classes that grew.
#[derive(Debug, Args)]
pub struct CachesArgs {
    #[command(flatten)]
    target: GraphArgs,
    /// Also list containers that modules and classes hold by name (app.CACHE, app.Class.kept, app.server.sessions), or their
    /// functions in closures and defaults, and that grew since this older heap: a snapshot, a core file or a process id
    #[arg(long, value_name = "OLD")]
    since: Option<String>,
    /// Of these only those with more than so many items
    #[arg(long, value_name = "N", default_value_t = 100, requires = "since")]
    items: u64,
    /// At most this many rows in each list, or "all" [default: all]
    #[arg(short, long, value_name = "N", value_parser = parse_limit)]
    limit: Option<usize>,
    #[command(flatten)]
    sizes: SizesArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Steps of the path to a cache.
const STEPS: usize = 12;

pub fn run(args: &CachesArgs, out: &mut dyn Write) -> Result<()> {
    let since = args.since.as_deref();
    let old = since.map(|old| args.target.pause().open(old)).transpose()?;
    let new = args.target.open()?;
    for subject in old.iter().chain([&new]) {
        subject.whole("what the caches keep", "caches may be missing")?;
    }
    let same_process = old.as_ref().is_some_and(|old| old.is_same_process(&new));
    let old = old.map(|old| old.graph(false)).transpose()?;
    let mut graph = args.target.graph_of(new)?;
    args.sizes.choose(std::iter::once(&mut graph));
    let fold = Fold::of(&graph);
    let retained = Retained::of(&graph, &fold);
    let limit = args.limit.unwrap_or(usize::MAX);
    let mut rows = caches::sorted(&graph, &retained);
    rows.truncate(limit);
    let grown = old.map(|old| {
        let mut grown = containers::grown(&old, &graph, &retained, same_process, args.items);
        grown.truncate(limit);
        grown
    });
    let ways = Paths::of(&graph, &fold);
    let paths: Vec<String> = rows
        .iter()
        .map(|(cache, _)| ways.text(cache.object, STEPS).unwrap_or_default())
        .collect();
    let text = if args.json {
        json::caches(&graph, &rows, &paths, grown.as_deref())?
    } else {
        let mut text = holders::caches(&graph, &rows, &paths);
        if let (Some(grown), Some(since)) = (grown, since) {
            text.push('\n');
            text.push_str(&holders::containers(&graph, &grown, since, args.items));
        }
        text
    };
    put(out, &text)
}
