//! `biopsy report`: print or convert a recording, a file of cProfile's own, or collapsed stacks.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::args::{CliMode, LinesArgs, OutputArgs, SelectArgs, ViewArgs};
use super::input;
use super::output::{self, Outputs, Shown};
use crate::error::{Error, ErrorKind, Result};
use crate::profile::{Filter, Mode, Origin, Profile, Split};
use crate::units::parse_duration;
use crate::view::stats::View;

/// Print or convert a .biopsy recording, a .prof file (cProfile's own too), a .lprof file of line_profiler or collapsed stacks.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// The file; - for stdin. Several are added up, as pstats' add does
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    view: ViewArgs,
    #[command(flatten)]
    select: SelectArgs,
    /// Who called each function
    #[arg(long, help_heading = "Table", conflicts_with_all = ["callees", "lines"])]
    callers: bool,
    /// Whom each function called
    #[arg(long, help_heading = "Table", conflicts_with = "lines")]
    callees: bool,
    #[command(flatten)]
    lines: LinesArgs,
    /// Only this thread: part of its name, or its id
    #[arg(long, value_name = "THREAD")]
    thread: Option<String>,
    /// Keep threads apart
    #[arg(long)]
    threads: bool,
    /// Which samples count: wall, cpu, gil, or exception where it was recorded with that [default: as recorded]
    #[arg(long)]
    mode: Option<CliMode>,
    /// Collapsed stacks: the numbers count samples, one each TIME, such as 10ms for py-spy's default of 100 Hz
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    period: Option<Duration>,
}

pub fn run(args: ReportArgs, out: &mut dyn Write) -> Result<()> {
    let interactive = std::io::stdout().is_terminal();
    let mut shown = Shown {
        table: output::table_options(&args.view, interactive)?,
        lines: args.lines.lines.clone(),
        ..Shown::default()
    };
    shown.table.view = match (args.callers, args.callees) {
        (true, _) => View::Callers,
        (_, true) => View::Callees,
        _ => View::Stats,
    };
    let selection = args.select.selection()?;
    let table =
        args.view.ask_for_table() || shown.table.view != View::Stats || shown.lines.is_some();
    let outputs = Outputs::prepare(&args.output, table)?;
    let (profile, split) = read(&args)?;
    let filter = filter(&args, &profile, split)?;
    if profile.has_line_times() {
        if shown.table.view != View::Stats {
            return Err(Error::new(
                ErrorKind::NotAvailable,
                format!("cannot show callers in {}", input::titles(&args.files)),
                "a line profile has times by line alone",
            ));
        }
        // There is nothing else in it.
        shown.lines.get_or_insert_default();
    }
    // print_callers and print_callees have no such line.
    if profile.meta.origin != Origin::Sampled
        && shown.table.view == View::Stats
        && !profile.has_line_times()
    {
        let lines: Vec<String> = args.files.iter().map(|file| file_line(file)).collect();
        shown.heading = Some(lines.join("\n"));
    }
    shown.title = input::titles(&args.files);
    if !args.output.quiet && profile.meta.unit_is_unknown() {
        eprintln!("biopsy: note: {}", input::UNIT_UNKNOWN);
    }
    if shown.lines.is_some() && profile.exact.is_some() && outputs.has_table() {
        return Err(Error::usage(
            format!("cannot show lines of {}", shown.title),
            "exact profiles have times by function, not by line",
        )
        .hint("sample the program: biopsy run -o FILE.biopsy -- ..."));
    }
    let is_alone = args.files.len() == 1 && args.output.is_empty() && !table;
    outputs.write(&profile, &selection, &filter, &shown, out)?;
    if interactive && is_alone && !args.output.quiet && !profile.has_line_times() {
        let file = args.files.first().map(|file| file.display().to_string());
        if let Some(file) = file.filter(|file| file != "-") {
            output::note(&format!(
                "browse it: biopsy top {}",
                shell_words::quote(&file)
            ));
        }
    }
    Ok(())
}

/// All files added up, and what is kept apart in them.
fn read(args: &ReportArgs) -> Result<(Profile, Split)> {
    let mut sum: Option<(Profile, Split)> = None;
    let several = args.files.len() > 1;
    for file in &args.files {
        let mut profile = input::read_with(file, args.period)?;
        let wants_exceptions = args.mode.map(Mode::from) == Some(Mode::Exception);
        if wants_exceptions && profile.meta.mode != Mode::Exception {
            return Err(Error::new(
                ErrorKind::NotAvailable,
                format!("cannot show exceptions in {}", file.display()),
                "it does not say which threads handled one",
            )
            .hint("sample with --mode exception"));
        }
        if let Some(mode) = args.mode.filter(|_| several) {
            profile.meta.mode = mode.into();
        }
        let split = Filter::of(&profile).split;
        match &mut sum {
            None => sum = Some((profile, split)),
            Some((sum, all)) => {
                sum.add(&profile)
                    .map_err(|error| error.within(file.display().to_string()))?;
                *all = (*all).max(split);
            }
        }
    }
    sum.ok_or_else(|| Error::usage("no file", "name one to report"))
}

fn filter(args: &ReportArgs, profile: &Profile, split: Split) -> Result<Filter> {
    let mut filter = Filter {
        split,
        ..Filter::of(profile)
    };
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
            format!("no thread '{thread}' in {}", input::titles(&args.files)),
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
