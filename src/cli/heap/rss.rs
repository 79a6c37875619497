//! `biopsy heap rss`: where the resident memory is.

use std::io::Write;

use clap::Args;

use super::holders_json as json;
use super::input::HeapTargetArgs;
use super::put;
use crate::error::Result;
use crate::view::heap::rss;

/// Tell where the resident memory of a process is: Python objects, free memory that the allocators keep, C's heap, files,
/// stacks. Answers whether a leak is in Python at all.
#[derive(Debug, Args)]
pub struct RssArgs {
    #[command(flatten)]
    target: HeapTargetArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &RssArgs, out: &mut dyn Write) -> Result<()> {
    let account = args.target.open_with_mappings()?.account()?;
    let text = if args.json {
        json::account(&account)?
    } else {
        rss::text(&account)
    };
    put(out, &text)
}
