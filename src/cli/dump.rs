//! `biopsy dump`: every thread's stack, once.

use std::io::Write;

use clap::Args;

use super::args::TargetArgs;
use super::json;
use crate::error::{Error, Result};
use crate::sample::dump;
use crate::sample::pyspy::ReaderOptions;
use crate::view::stacks;

/// Print every thread's stack, once, innermost frame first.
#[derive(Debug, Args)]
pub struct DumpArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Local variables too, each as a short repr
    #[arg(long)]
    locals: bool,
    /// Stop the target while it is read [default: never stopped]
    #[arg(long)]
    blocking: bool,
    /// Native frames too; needs --blocking and a build with them
    #[arg(long)]
    native: bool,
    /// asyncio's tasks too, each with its coroutines along what it awaits (3.11 and newer)
    #[arg(long = "async", conflicts_with_all = ["native", "locals"])]
    tasks: bool,
    /// Print JSON (biopsy.dump/1)
    #[arg(long)]
    json: bool,
}

pub fn run(args: &DumpArgs, out: &mut dyn Write) -> Result<()> {
    let options = ReaderOptions {
        blocking: args.blocking,
        native: args.native,
        locals: args.locals,
        cross_cpu: false,
        no_builtins: true,
        tasks: args.tasks,
    };
    let dump = dump::dump(args.target.pid()?, options)?;
    if args.json {
        return out
            .write_all(json::dump(&dump)?.as_bytes())
            .and_then(|()| out.flush())
            .map_err(|error| Error::write("stdout", &error));
    }
    stacks::write_dump(&dump, out)?;
    if dump.tasks_cut {
        eprintln!("biopsy: note: there are too many tasks to show: some were left out");
    }
    for note in &dump.notes {
        eprintln!("biopsy: note: {note}");
    }
    if !dump.steady {
        eprintln!(
            "biopsy: note: the stacks kept changing while they were read; --blocking stops the target for it"
        );
    }
    Ok(())
}
