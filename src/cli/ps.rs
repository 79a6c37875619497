//! `biopsy ps`: the Python processes of this machine.

use std::io::{IsTerminal, Write};

use clap::Args;

use crate::error::{Error, Result};
use crate::target::list;
use crate::view::json;
use crate::view::table;

/// List the Python processes of this machine: pid, version, user, memory, threads, CPU, command.
#[derive(Debug, Args)]
pub struct PsArgs {
    /// Print JSON (biopsy.ps/1)
    #[arg(long)]
    json: bool,
}

pub fn run(args: &PsArgs, out: &mut dyn Write) -> Result<()> {
    let processes = list::python_processes()?;
    let text = if args.json {
        json::processes(&processes)?
    } else {
        let width = std::io::stdout()
            .is_terminal()
            .then(terminal_size::terminal_size)
            .flatten()
            .map(|(width, _)| width.0);
        table::processes(&processes, width)
    };
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Error::write("stdout", &error))
}
