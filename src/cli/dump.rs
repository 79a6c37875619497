//! `biopsy dump`: every thread's stack, once.

use std::io::Write;
use std::path::Path;

use clap::Args;

use super::output;
use crate::error::{Error, ErrorKind, Result};
use crate::heap::locals::Locals;
use crate::heap::subject::open_heap;
use crate::sample::dump::{self, Dump};
use crate::sample::pyspy::ReaderOptions;
use crate::target::image::Captured;
use crate::target::locate::{self, ProgramKind};
use crate::target::memory::core;
use crate::target::open::Target;
use crate::target::{list, process};
use crate::units::printable;
use crate::view::json;
use crate::view::stacks;

/// Print every thread's stack, once, innermost frame first: of a process, or of a core file.
#[derive(Debug, Args)]
pub struct DumpArgs {
    /// Process id, or a core file
    #[arg(value_name = "TARGET")]
    target: Option<String>,
    /// The one Python process that has this in its command line
    #[arg(long, value_name = "PATTERN", conflicts_with = "target")]
    name: Option<String>,
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
        ..ReaderOptions::default()
    };
    let pid = match args.target()? {
        Target::Process(pid) => pid,
        Target::Core(path) => return show_core(args, &path, out),
        Target::Snapshot(path) => return Err(no_stacks(&path)),
    };
    if !args.subprocesses {
        return show(args, &dump::dump(pid, options)?, out);
    }
    let (mut first_error, mut shown) = (None, false);
    for process in process::tree(pid) {
        if process != pid && locate::kind(process) == ProgramKind::Unknown {
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

impl DumpArgs {
    fn target(&self) -> Result<Target> {
        match (&self.target, &self.name) {
            (Some(text), _) if !text.is_empty() => Target::of(text),
            (_, Some(pattern)) => list::find_by_name(pattern).map(Target::Process),
            (_, None) => Err(Error::usage(
                "no process",
                "give a PID, a core file or --name PATTERN",
            )
            .hint("biopsy ps lists the Python processes of this machine")),
        }
    }
}

/// Why there is nothing to show of a heap snapshot.
fn no_stacks(path: &Path) -> Error {
    let shown = printable(&path.to_string_lossy()).into_owned();
    Error::new(
        ErrorKind::NotAvailable,
        format!("cannot show the stacks in {shown}"),
        "a heap snapshot has objects and no stacks",
    )
    .hint("biopsy dump reads a living process, or a core file (gcore PID)")
}

/// Prints the stacks in a core file.
fn show_core(args: &DumpArgs, path: &Path, out: &mut dyn Write) -> Result<()> {
    for (given, flag, why) in [
        (
            args.native,
            "--native",
            "native frames are shown of living processes",
        ),
        (
            args.subprocesses,
            "--subprocesses",
            "a core file is of one process",
        ),
    ] {
        if given {
            return Err(Error::new(
                ErrorKind::NotAvailable,
                format!("cannot use {flag} with a core file"),
                why,
            )
            .hint(format!("leave out {flag}")));
        }
    }
    let (captured, _) = core::read(path)?;
    let mut found = dump::dump_core(&captured, args.tasks)?;
    if args.locals {
        add_locals(&captured, &mut found)?;
    }
    show(args, &found, out)
}

/// Adds the local variables of the frames in a core file.
fn add_locals(captured: &Captured, found: &mut Dump) -> Result<()> {
    let heap = open_heap(captured)?;
    let mut locals = Locals::new(&heap);
    for thread in &mut found.threads {
        for frame in &mut thread.frames {
            frame.locals = Some(locals.of_frame(frame.address));
        }
    }
    Ok(())
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
