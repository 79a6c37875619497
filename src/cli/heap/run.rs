//! `biopsy heap run`: start a program, take snapshots of it at named moments, and hold the last one against rules.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::args::{CountingArgs, FormArgs, ReportArgs, RowArgs, SizesArgs};
use super::diff::{RuleArgs, Verdict, rules_need};
use super::input::PauseArgs;
use super::{put, summary};
use crate::cli::output;
use crate::error::{Error, ErrorKind, Result};
use crate::heap::census::{Census, Counting};
use crate::heap::graph::Graph;
use crate::heap::run::{Moment, WatchOptions, Watched};
use crate::heap::subject::Subject;
use crate::target::{disk, launch};
use crate::units::{parse_duration, printable};

/// Start a program and take snapshots of its heap at named moments. Its streams are its own; its exit code becomes
/// ours unless a rule is broken (3).
///
/// Moments of a program are told by a small script that stands in for `sitecustomize`; the program imports nothing
/// of ours. `--at exit` is after the main module, threads and exit handlers. `--at call:MODULE:FUNCTION` is after
/// each call of a function (`Class.method` too); add `:before` or `:both` for other sides, and `:N` for every Nth
/// call: `call:myapp.jobs:run:before:100`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// When to take a snapshot: exit, or call:MODULE:FUNCTION[:before|after|both][:N]; repeatable [default: exit]
    #[arg(long, value_name = "MOMENT")]
    at: Vec<Moment>,
    /// Take one every so often too: 10, 10s, 5m
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    every: Option<Duration>,
    /// At most so many of calls and by the clock
    #[arg(long, value_name = "N", default_value = "100")]
    count: u64,
    /// Write the snapshots; several are numbered: NAME.1.heap, NAME.2.heap
    #[arg(short, long, value_name = "NAME.heap")]
    output: Option<PathBuf>,
    /// Compare the last snapshot with this one: a snapshot, or what `heap summary --json` wrote
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    #[command(flatten)]
    rules: RuleArgs,
    /// Tell for the types that grew since the baseline, or since the first snapshot, which paths hold their new instances and
    /// what these keep alive; in the reports too
    #[arg(long, conflicts_with = "muppy")]
    why: bool,
    #[command(flatten)]
    sizes: SizesArgs,
    #[command(flatten)]
    pause: PauseArgs,
    /// Keep short reprs of values in the snapshots too: they may be secrets
    #[arg(long)]
    values: bool,
    #[command(flatten)]
    counting: CountingArgs,
    #[command(flatten)]
    rows: RowArgs,
    #[command(flatten)]
    form: FormArgs,
    #[command(flatten)]
    reports: ReportArgs,
    /// No notes
    #[arg(short, long)]
    quiet: bool,
    /// The interpreter for scripts, -m and -c
    #[arg(long, value_name = "PATH", default_value = "python3")]
    python: String,
    /// What to run: script.py ARGS, -m MODULE ARGS, -c CODE, or any program
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
    command: Vec<String>,
}

pub fn run(args: RunArgs, out: &mut dyn Write) -> Result<u8> {
    let mut moments = args.at.clone();
    if moments.is_empty() && args.every.is_none() {
        moments.push(Moment::Exit);
    }
    args.reports.check()?;
    if let Some(path) = &args.output {
        disk::check_writable(path)?;
    }
    let baseline = args
        .baseline
        .as_deref()
        .map(|path| read_baseline(path, &args));
    let baseline = baseline.transpose()?;
    let counting = baseline
        .as_ref()
        .map_or(args.counting.counting(), |(census, _)| census.counting);
    if args.why && counting != Counting::Reachable {
        let what = "the baseline was counted with --muppy, which does not tell who holds what";
        return Err(Error::usage("cannot tell why types grew", what));
    }
    let options = WatchOptions {
        moments,
        every: args.every,
        count: args.count,
        output: args.output.clone(),
        capture: args.pause.options(false),
        values: args.values,
        counting,
        graphs: args.why,
    };
    if baseline.is_none() && options.is_one() {
        let error = match (args.rules.is_empty(), args.why) {
            (false, _) => Some(rules_need("there is only one snapshot")),
            (true, true) => {
                let what = "there is only one snapshot";
                Some(Error::usage("cannot tell why types grew", what))
            }
            (true, false) => None,
        };
        if let Some(error) = error {
            return Err(error.hint(
                "name what to compare with: --baseline FILE; or take several: --at call:MODULE:FUNCTION",
            ));
        }
    }
    let words = launch::words(&args.command, &args.python);
    let wrote = |path: &Path, moment: &str| {
        if !args.quiet {
            eprintln!("biopsy: wrote {} ({})", path.display(), printable(moment));
        }
    };
    let mut watched = Watched::start(&words, options, &output::note, &wrote)?;
    let code = watched.until_ended()?;
    let Some(mut last) = watched.last.take() else {
        return no_snapshot(&args, &mut watched, code);
    };
    if !args.quiet {
        for failure in &watched.failures {
            eprintln!("biopsy: note: {failure}");
        }
    }
    // Of a single one there is nothing before it but itself.
    let is_alone = baseline.is_none() && watched.first.is_none();
    let alone = || Some((last.census.clone(), None));
    let old = baseline.or(watched.first.take()).or_else(alone);
    let compares = args.baseline.is_some() || !args.rules.is_empty() || args.why;
    let Some((old, mut old_graph)) = old.filter(|_| compares) else {
        let form = args.form.form();
        let rows = args.rows.rows(form);
        if args.output.is_none() || !args.reports.is_empty() {
            let source = args.pause.source();
            if args.output.is_none() {
                put(out, &summary::in_form(form, &last.census, source, &rows)?)?;
            }
            args.reports.write(|form| {
                summary::in_form(form, &last.census, source, &args.rows.rows(form))
            })?;
        }
        return Ok(code);
    };
    let mut verdict = Verdict::of(&old, &last.census, &args.rules)?;
    if let Some(graph) = last.graph.as_mut().filter(|_| !is_alone) {
        let graphs = old_graph.iter_mut().chain([&mut *graph]);
        verdict.sizes = args.sizes.choose(graphs);
        verdict.explain(old_graph.as_ref(), graph, &args.rows);
    }
    let old_name = match &args.baseline {
        Some(path) => path.display().to_string(),
        None => "the first snapshot".to_string(),
    };
    let names = (old_name.as_str(), last.name.as_str());
    let text = verdict.in_form(args.form.form(), names, &args.rows)?;
    put(out, &text)?;
    args.reports
        .write(|form| verdict.in_form(form, names, &args.rows))?;
    match verdict.exit_code() {
        0 => Ok(code),
        broken => Ok(broken),
    }
}

/// What to compare with: read before the program starts.
fn read_baseline(path: &Path, args: &RunArgs) -> Result<(Census, Option<Graph>)> {
    let mut subject = Subject::of_file(path, &output::note)?;
    subject.whole("what grew", "what is missing may have been there")?;
    let counting = subject.counting().unwrap_or(args.counting.counting());
    let census = subject.census(counting)?;
    let graph = match subject {
        Subject::Summary(_) => None,
        subject => args.why.then(|| subject.graph(false)).transpose()?,
    };
    Ok((census, graph))
}

/// No moment came: the program's own failure says more than ours.
fn no_snapshot(args: &RunArgs, watched: &mut Watched<'_>, code: u8) -> Result<u8> {
    let why = if watched.told && args.every.is_none() {
        "none of the moments came (a signal, os._exit or exec ends a program without them)"
    } else if args.every.is_some() {
        "the program was over before"
    } else {
        "no Python started, or it reads neither PYTHONPATH nor sitecustomize (-I, -E, -S)"
    };
    let failure = watched.failures.pop().or(watched.missed.take());
    let error = match failure {
        Some(failure) => failure,
        None => Error::new(ErrorKind::Failed, "no snapshot was taken", why),
    };
    if code == 0 {
        return Err(error);
    }
    eprintln!("biopsy: {error}");
    Ok(code)
}
