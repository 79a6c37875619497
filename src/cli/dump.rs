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
    };
    let dump = dump::dump(args.target.pid()?, options)?;
    if args.json {
        return out
            .write_all(json::dump(&dump)?.as_bytes())
            .and_then(|()| out.flush())
            .map_err(|error| Error::write("stdout", &error));
    }
    stacks::write_dump(&dump, out)?;
    if !dump.steady {
        eprintln!(
            "biopsy: note: the stacks kept changing while they were read; --blocking stops the target for it"
        );
    }
    Ok(())
}
