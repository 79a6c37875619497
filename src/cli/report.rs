//! `biopsy report`: print or convert a recording, a file of cProfile's own, or collapsed stacks.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use super::args::{CliMode, OutputArgs, ViewArgs};
use super::input;
use super::output::{self, Outputs, Shown};
use crate::error::{Error, Result};
use crate::profile::{Filter, Origin, Profile, Split};
use crate::view::stats::View;

/// Print or convert a .biopsy recording, a .prof file (cProfile's own too) or collapsed stacks.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// The file; - for stdin
    file: PathBuf,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    view: ViewArgs,
    /// Who called each function
    #[arg(long, help_heading = "Table", conflicts_with = "callees")]
    callers: bool,
    /// Whom each function called
    #[arg(long, help_heading = "Table")]
    callees: bool,
    /// Cost by source line, of all functions or of those whose name matches
    #[arg(long, help_heading = "Table", value_name = "FUNCTION", num_args = 0..=1, conflicts_with_all = ["callers", "callees"])]
    lines: Option<Option<String>>,
    /// Only this thread: part of its name, or its id
    #[arg(long, value_name = "THREAD")]
    thread: Option<String>,
    /// Keep threads apart
    #[arg(long)]
    threads: bool,
    /// Which samples count: wall, cpu, gil [default: as recorded]
    #[arg(long)]
    mode: Option<CliMode>,
}

pub fn run(args: ReportArgs, out: &mut dyn Write) -> Result<()> {
    let interactive = std::io::stdout().is_terminal();
    let mut shown = Shown {
        table: output::table_options(&args.view, interactive)?,
        lines: args.lines.clone(),
        heading: None,
    };
    shown.table.view = match (args.callers, args.callees) {
        (true, _) => View::Callers,
        (_, true) => View::Callees,
        _ => View::Stats,
    };
    let outputs = Outputs::prepare(&args.output)?;
    let profile = input::read(&args.file)?;
    let filter = filter(&args, &profile)?;
    if profile.meta.origin != Origin::Sampled {
        shown.heading = Some(file_line(&args.file));
    }
    if shown.lines.is_some() && profile.exact.is_some() && outputs.has_table() {
        return Err(Error::usage(
            format!("cannot show lines of {}", args.file.display()),
            "exact profiles have times by function, not by line",
        )
        .hint("sample the program: biopsy run -o FILE.biopsy -- ..."));
    }
    outputs.write(&profile, &filter, &shown, out)
}

fn filter(args: &ReportArgs, profile: &Profile) -> Result<Filter> {
    let mut filter = Filter::of(profile);
    if let Some(mode) = args.mode {
        filter.mode = mode.into();
    }
    if args.threads {
        filter.split = Split::Threads;
    }
    filter.thread.clone_from(&args.thread);
    if let Some(thread) = &filter.thread
        && !filter.threads(profile).contains(&true)
    {
        let names: Vec<String> = (0..profile.threads.len().min(8))
            .map(|at| profile.thread_label(crate::profile::ThreadId(at as u32)))
            .collect();
        let has = if names.is_empty() {
            "none".to_string()
        } else {
            names.join(", ")
        };
        return Err(Error::usage(
            format!("no thread '{thread}' in {}", args.file.display()),
            format!("it has: {has}"),
        ));
    }
    Ok(filter)
}

/// The line that pstats prints above its table: the file's time and name.
fn file_line(path: &Path) -> String {
    let time = std::fs::metadata(path)
        .and_then(|meta| meta.modified())
        .ok()
        .map(|time| {
            chrono::DateTime::<chrono::Local>::from(time)
                .format("%a %b %e %H:%M:%S %Y")
                .to_string()
        });
    match time {
        Some(time) => format!("{time}    {}", path.display()),
        None => path.display().to_string(),
    }
}
