//! `biopsy heap snapshot`: the object graph of a process in a file.

use std::path::PathBuf;

use clap::Args;

use super::input::PauseArgs;
use crate::cli::args::TargetArgs;
use crate::error::Result;
use crate::heap::save;
use crate::view::heap::{counted, summary};

/// Keep the object graph of a process in a file: types, sizes, addresses, references, and the names of attributes,
/// variables and modules.
///
/// The file is readable by its owner alone, and holds no values unless --values asks for them.
#[derive(Debug, Args)]
pub struct SnapshotArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// The file to write
    #[arg(short, long, value_name = "FILE.heap")]
    output: PathBuf,
    #[command(flatten)]
    pause: PauseArgs,
    /// Keep short reprs of values too: they may be secrets
    #[arg(long)]
    values: bool,
    /// No notes
    #[arg(short, long)]
    quiet: bool,
}

pub fn run(args: &SnapshotArgs) -> Result<()> {
    let pid = args.target.pid()?;
    save::check_room(pid, &args.output)?;
    let started = save::started(pid);
    let captured = args.pause.capture(pid, true)?;
    let census = save::save(&captured, started, &args.output, args.values)?;
    if !args.quiet {
        let (objects, _) = census.total();
        let pause = census.pause_ms.map_or(String::new(), |pause| {
            format!(", stopped for {pause:.1} ms")
        });
        let doubts = summary::doubts(&census).map_or(String::new(), |doubts| format!("; {doubts}"));
        eprintln!(
            "biopsy: wrote {}: {}{pause}{doubts}",
            args.output.display(),
            counted(objects, "object", "objects")
        );
    }
    Ok(())
}
