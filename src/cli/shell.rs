//! `biopsy completions` and `biopsy man`, both made from the definition of the command line.

use std::io::Write;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Opt;
use crate::error::{Error, Result};

/// Print a completion script for a shell.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Print the manual page.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Of this command, such as attach, or heap summary [default: of biopsy as a whole]
    command: Vec<String>,
}

pub fn completions(args: &CompletionsArgs, out: &mut dyn Write) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Opt::command(), "biopsy", &mut text);
    write(out, &text)
}

pub fn man(args: &ManArgs, out: &mut dyn Write) -> Result<()> {
    let mut command = Opt::command();
    command.build();
    let mut page = command;
    let mut shown = "biopsy".to_string();
    for name in &args.command {
        shown = format!("{shown}-{name}");
        page = page
            .find_subcommand(name)
            .cloned()
            .ok_or_else(|| {
                Error::usage(
                    format!("no command '{name}'"),
                    "there is no manual page for it",
                )
                .hint("see: biopsy --help")
            })?
            .display_name(&shown);
    }
    let mut text = Vec::new();
    clap_mangen::Man::new(page)
        .render(&mut text)
        .map_err(|error| Error::write("the manual page", &error))?;
    write(out, &text)
}

fn write(out: &mut dyn Write, text: &[u8]) -> Result<()> {
    out.write_all(text)
        .and_then(|()| out.flush())
        .map_err(|error| Error::write("stdout", &error))
}
