//! `biopsy heap`: objects and memory of a Python process. One file a command.

mod args;
mod caches;
mod diff;
mod html;
pub(super) mod input;
mod objects;
mod path;
mod referrers;
mod retained;
mod rss;
mod run;
mod snapshot;
mod summary;
mod watch;

use std::io::Write;

use clap::{Args, Subcommand};

use crate::error::{Error, Result};

const EXAMPLES: &str = "\
Memory grows? In this order:
  biopsy heap snapshot 4711 -o before.heap       now, then let it grow
  biopsy heap diff before.heap 4711 --why        which types grew, and what holds them
  biopsy heap caches 4711 --since before.heap    which caches and containers grew
  biopsy heap path 4711 --type myapp.User        how such objects are reached
  biopsy heap rss 4711                           no type grew: where the resident memory is

Others:
  biopsy heap summary 4711                       type | # objects | total size, as muppy prints it
  biopsy heap watch 4711 --every 1m              the difference again and again
  biopsy heap html 4711 -o heap.html --open      a page: treemap, paths, caches, resident memory
  biopsy heap run --at exit --baseline main.heap --fail-on 'myapp.*:+100' -- -m pytest
                                                 a step in CI";

/// Objects and memory of a process: summaries, snapshots, differences.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, subcommand_required = true, arg_required_else_help = false)]
pub struct HeapArgs {
    #[command(subcommand)]
    command: HeapCommand,
}

#[derive(Debug, Subcommand)]
enum HeapCommand {
    /// Count objects by type, as muppy prints it
    Summary(summary::SummaryArgs),
    /// Print one line an object: address, type, size, reference count
    Objects(objects::ObjectsArgs),
    /// Keep the object graph of a process in a file
    Snapshot(snapshot::SnapshotArgs),
    /// Compare two heaps: what grew, what shrank; rules for CI
    Diff(diff::DiffArgs),
    /// Print a summary, then the difference again and again
    Watch(watch::WatchArgs),
    /// Print who keeps most memory alive
    Retained(retained::RetainedArgs),
    /// Print who refers to an object or to the instances of a type
    Referrers(referrers::ReferrersArgs),
    /// Print how an object or the instances of a type are reached from a root
    Path(path::PathArgs),
    /// List the caches of functions: hits, misses, size, limit
    Caches(caches::CachesArgs),
    /// Tell where the resident memory is: objects, free blocks, malloc, files, stacks
    Rss(rss::RssArgs),
    /// Write a page to explore a heap with
    Html(html::HtmlArgs),
    /// Start a program and take snapshots at named moments
    Run(run::RunArgs),
}

/// Runs the command; gives the exit code.
pub fn run(args: HeapArgs, out: &mut dyn Write) -> Result<u8> {
    match args.command {
        HeapCommand::Summary(args) => summary::run(&args, out).map(|()| 0),
        HeapCommand::Objects(args) => objects::run(&args, out).map(|()| 0),
        HeapCommand::Snapshot(args) => snapshot::run(&args).map(|()| 0),
        HeapCommand::Diff(args) => diff::run(&args, out),
        HeapCommand::Watch(args) => watch::run(&args, out).map(|()| 0),
        HeapCommand::Retained(args) => retained::run(&args, out).map(|()| 0),
        HeapCommand::Referrers(args) => referrers::run(&args, out).map(|()| 0),
        HeapCommand::Path(args) => path::run(&args, out).map(|()| 0),
        HeapCommand::Caches(args) => caches::run(&args, out).map(|()| 0),
        HeapCommand::Rss(args) => rss::run(&args, out).map(|()| 0),
        HeapCommand::Html(args) => html::run(&args).map(|()| 0),
        HeapCommand::Run(args) => run::run(args, out),
    }
}

/// Writes to our stdout.
fn put(out: &mut dyn Write, text: &str) -> Result<()> {
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Error::write("stdout", &error))
}
