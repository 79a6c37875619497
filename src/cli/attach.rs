//! `biopsy attach`: sample a running process.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Args;

use super::args::{LinesArgs, OutputArgs, SampleArgs, SelectArgs, TargetArgs, ViewArgs};
use super::output::{self, Outputs, Shown};
use super::progress::ProgressLine;
use crate::error::{Error, ErrorKind, Result};
use crate::profile::Filter;
use crate::sample::session::{self, Progress, Root};
use crate::target::signals::{self, OnSignal};

/// Sample a running process: cProfile's table, or files for every viewer.
#[derive(Debug, Args)]
pub struct AttachArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    sample: SampleArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    view: ViewArgs,
    #[command(flatten)]
    lines: LinesArgs,
    #[command(flatten)]
    select: SelectArgs,
}

pub fn run(args: AttachArgs, out: &mut dyn Write) -> Result<()> {
    let interactive = std::io::stdout().is_terminal();
    let shown = Shown {
        table: output::table_options(&args.view, interactive)?,
        lines: args.lines.lines.clone(),
        ..Shown::default()
    };
    let table = args.view.ask_for_table() || shown.lines.is_some();
    let outputs = Outputs::prepare(&args.output, table)?;
    let selection = args.select.selection()?;
    let pid = args.target.pid()?;
    let stop = Arc::new(AtomicBool::new(false));
    signals::handle(OnSignal::Stop(stop.clone()))?;
    let progress = Arc::new(Progress::default());
    if !args.output.quiet {
        let _ = progress.tell.set(output::note);
    }
    let line = ProgressLine::show(progress.clone(), args.output.quiet);
    let outcome = session::record(
        Root::Running(pid),
        &(args.sample).options(outputs.need_timeline() || selection.needs_timeline()),
        stop,
        progress,
    );
    drop(line);
    let outcome = outcome?;
    let profile = &outcome.profile;
    let mut notes = outcome.notes;
    notes.extend(output::why_empty(profile));
    if !args.output.quiet {
        notes.iter().for_each(|text| output::note(text));
    }
    outputs.write(profile, &selection, &Filter::of(profile), &shown, out)?;
    if profile.meta.samples == 0 {
        return Err(Error::new(
            ErrorKind::Failed,
            format!("no sample of process {pid}"),
            format!("{} were given up", profile.meta.given_up),
        ));
    }
    Ok(())
}
