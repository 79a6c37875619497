//! `biopsy dump`: every thread's stack, once.

use std::io::Write;

use clap::Args;

use super::args::TargetArgs;
use super::{json, output};
use crate::error::{Error, ErrorKind, Result};
use crate::sample::dump::{self, Dump};
use crate::sample::pyspy::ReaderOptions;
use crate::target::locate::{self, Kind};
use crate::target::process;
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
    /// Those of all its child processes too, and of theirs
    #[arg(long)]
    subprocesses: bool,
    /// Print JSON (biopsy.dump/1), one document a process
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
    let pid = args.target.pid()?;
    if !args.subprocesses {
        return show(args, &dump::dump(pid, options)?, out);
    }
    let (mut first_error, mut shown) = (None, false);
    for process in process::tree(pid) {
        if process != pid && locate::kind(process) == Kind::Unknown {
            continue;
        }
        match dump::dump(process, options) {
            Ok(dump) => {
                if shown && !args.json {
                    writeln!(out).map_err(|error| Error::write("stdout", &error))?;
                }
                show(args, &dump, out)?;
                shown = true;
            }
            Err(error) if error.kind() == ErrorKind::NotAvailable => return Err(error),
            Err(error) => {
                let command = process::short_command_line(process);
                if process::is_alive(process) {
                    let why = error.why();
                    output::note(&format!("process {process} ({command}) is left out: {why}"));
                }
                first_error.get_or_insert(error);
            }
        }
    }
    match first_error {
        Some(error) if !shown => Err(error),
        _ => Ok(()),
    }
}

/// Prints one process's stacks, and says what is to be said of them.
fn show(args: &DumpArgs, dump: &Dump, out: &mut dyn Write) -> Result<()> {
    if args.json {
        out.write_all(json::dump(dump)?.as_bytes())
            .and_then(|()| out.flush())
            .map_err(|error| Error::write("stdout", &error))?;
    } else {
        stacks::write_dump(dump, out)?;
    }
    if dump.tasks_cut {
        output::note("there are too many tasks to show: some were left out");
    }
    dump.notes.iter().for_each(|text| output::note(text));
    if !dump.steady {
        output::note(
            "the stacks kept changing while they were read; --blocking stops the target for it",
        );
    }
    Ok(())
}
