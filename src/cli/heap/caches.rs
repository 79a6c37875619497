//! `biopsy heap caches`: the results that functions keep.

use std::io::Write;

use clap::Args;

use super::holders_json as json;
use super::input::HeapTargetArgs;
use super::put;
use crate::error::Result;
use crate::heap::caches;
use crate::heap::fold::Fold;
use crate::heap::retained::Retained;
use crate::view::heap::holders;

/// List every functools.lru_cache and functools.cache: hits, misses, size, limit and the memory that it keeps;
/// those without a limit first, then by memory.
#[derive(Debug, Args)]
pub struct CachesArgs {
    #[command(flatten)]
    target: HeapTargetArgs,
    /// At most this many rows
    #[arg(short, long, value_name = "N")]
    limit: Option<usize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &CachesArgs, out: &mut dyn Write) -> Result<()> {
    let graph = args.target.open()?.into_graph()?;
    let fold = Fold::of(&graph);
    let retained = Retained::of(&graph, &fold);
    let mut rows = caches::sorted(&graph, &retained);
    rows.truncate(args.limit.unwrap_or(usize::MAX));
    let text = if args.json {
        json::caches(&graph, &rows)?
    } else {
        holders::caches(&graph, &rows)
    };
    put(out, &text)
}
