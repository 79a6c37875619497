//! `biopsy run`: start a program and sample it, or profile it exactly, to its end.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use clap::Args;

use super::args::{OutputArgs, SampleArgs, SelectArgs, ViewArgs};
use super::output::{self, Outputs, Shown};
use super::progress::ProgressLine;
use crate::error::{Error, ErrorKind, Result};
use crate::exact;
use crate::profile::{Filter, Profile};
use crate::sample::session::{self, Outcome, Progress, Root};
use crate::target::launch::{self, Launched};
use crate::target::signals::{self, OnSignal};

/// Start a program and sample it to its end. Its streams are its own, its exit code becomes ours.
#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    sample: SampleArgs,
    /// Real call counts and times by the target's own cProfile (slower), instead of samples
    #[arg(long, help_heading = "Sampling", conflicts_with_all = ["rate", "duration", "from", "to", "mode", "subprocesses", "blocking", "native", "threads", "no_builtins", "tasks", "no_counts"])]
    exact: bool,
    /// The interpreter for scripts, -m and -c
    #[arg(long, value_name = "PATH", default_value = "python3")]
    python: String,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    view: ViewArgs,
    /// line_profiler's table instead: time by source line, of all functions or of those that FUNCTION means: a name, the end
    /// of module.qualname, a pattern over that, file.py:LINE. With --exact the hits of each line are counted, in the program's
    /// own code or in the functions that are named
    #[arg(long, value_name = "FUNCTION", num_args = 0.., help_heading = "Table")]
    lines: Option<Vec<String>>,
    #[command(flatten)]
    select: SelectArgs,
    /// What to run: script.py ARGS, -m MODULE ARGS, -c CODE, or any program
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
    pub command: Vec<String>,
}

pub fn run(args: RunArgs, out: &mut dyn Write) -> Result<u8> {
    let interactive = std::io::stdout().is_terminal();
    let mut shown = Shown {
        table: output::table_options(&args.view, interactive)?,
        lines: match (&args.lines, args.exact) {
            // Those that were counted are those that are meant.
            (Some(_), true) => Some(Vec::new()),
            (lines, _) => lines.clone(),
        },
        ..Shown::default()
    };
    let table = args.view.ask_for_table() || shown.lines.is_some();
    let outputs = Outputs::prepare(&args.output, table)?;
    let selection = args.select.selection()?;
    let words = launch::words(&args.command, &args.python);
    let counting = match (&args.lines, args.exact) {
        (None, true) => return run_exact(&args, &words, &outputs, &shown, out),
        (Some(functions), true) => Some(exact::Prepared::new(&words, Some(functions))?),
        (_, false) => None,
    };
    let started = counting
        .as_ref()
        .map_or(words.as_slice(), exact::Prepared::words);
    if args.sample.follows() {
        launch::adopt_orphans();
    }
    let mut launched = start(started)?;
    let stop = Arc::new(AtomicBool::new(false));
    let progress = Arc::new(Progress::default());
    if !args.output.quiet {
        let _ = progress.tell.set(output::note);
    }
    // The program writes to the same terminal: a line that redraws itself would get in its way.
    let line = ProgressLine::show(progress.clone(), args.output.quiet || interactive);
    let root = Root::Started(launched.pid());
    let waiter = {
        let stop = stop.clone();
        std::thread::spawn(move || {
            let status = launched.wait();
            // Children that outlive the program are followed no longer.
            stop.store(true, Ordering::SeqCst);
            status.map(launch::exit_code)
        })
    };
    let mut options = (args.sample).options(outputs.need_timeline() || selection.needs_timeline());
    // The interpreter is busy with counting lines: what it calls is not what the program calls.
    options.no_counts |= counting.is_some();
    let outcome = session::record(root, &options, stop, progress);
    drop(line);
    let end = || {
        waiter.join().unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::Failed,
                "cannot wait for the program",
                "the thread that waits has failed",
            ))
        })
    };
    if let Some(counting) = counting {
        let code = end()?;
        let mut outcome = outcome.unwrap_or_else(|error| Outcome {
            profile: Profile::default(),
            notes: vec![error.to_string()],
        });
        let notes = counting.add_lines(&mut outcome.profile, &words)?;
        outcome.notes.extend(notes);
        let notes = outcome.notes;
        if outcome.profile.lines.is_none() {
            // Nothing says which were counted.
            shown.lines.clone_from(&args.lines);
        }
        let written = write(&args, &outcome.profile, notes, &outputs, &shown, out);
        return finish(written, code);
    }
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(error) => {
            let code = end()?;
            // The program's own failure says more than ours.
            if code == 0 {
                return Err(error);
            }
            let outcome = Outcome {
                profile: Profile::default(),
                notes: vec![error.to_string()],
            };
            let written = write(
                &args,
                &outcome.profile,
                outcome.notes,
                &outputs,
                &shown,
                out,
            );
            return finish(written, code);
        }
    };
    let mut notes = outcome.notes;
    if notes.is_empty() {
        notes.extend(output::why_empty(&outcome.profile));
    }
    // After --duration the program goes on; its results need not wait for it.
    let written = write(&args, &outcome.profile, notes, &outputs, &shown, out);
    finish(written, end()?)
}

/// Starts the program. Signals are handled from before, so that none can end biopsy alone.
fn start(words: &[String]) -> Result<Launched> {
    let running = Arc::new(AtomicI32::new(0));
    signals::handle(OnSignal::PassOn(running.clone()))?;
    Launched::start(words, running)
}

fn run_exact(
    args: &RunArgs,
    words: &[String],
    outputs: &Outputs,
    shown: &Shown,
    out: &mut dyn Write,
) -> Result<u8> {
    let prepared = exact::Prepared::new(words, None)?;
    let mut launched = start(prepared.words())?;
    let status = launched.wait()?;
    let code = launch::exit_code(status);
    match prepared.profile(words)? {
        Some(profile) => {
            let written = write(args, &profile, Vec::new(), outputs, shown, out);
            finish(written, code)
        }
        None if code != 0 => {
            eprintln!(
                "biopsy: no profile: the program did not end in a way that lets cProfile's results be written"
            );
            Ok(code)
        }
        None => Err(Error::new(
            ErrorKind::Failed,
            "cannot read the program's profile",
            "it ended without writing one (os._exit, or exec?)",
        )
        .hint("sample it instead: leave out --exact")),
    }
}

fn write(
    args: &RunArgs,
    profile: &Profile,
    notes: Vec<String>,
    outputs: &Outputs,
    shown: &Shown,
    out: &mut dyn Write,
) -> Result<()> {
    if !args.output.quiet {
        notes.iter().for_each(|text| output::note(text));
    }
    let selection = args.select.selection()?;
    outputs.write(profile, &selection, &Filter::of(profile), shown, out)
}

/// The exit code: the program's own, unless it is 0 and our part failed.
fn finish(written: Result<()>, code: u8) -> Result<u8> {
    match written {
        Ok(()) => Ok(code),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(code),
        Err(error) if code == 0 => Err(error),
        Err(error) => {
            eprintln!("biopsy: {error}");
            Ok(code)
        }
    }
}
