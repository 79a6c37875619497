//! `biopsy heap run`: start a program, take snapshots of it at named moments, and hold the last one against rules.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicI32;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use clap::Args;

use super::args::{CountingArgs, FormArgs, ReportArgs, RowArgs, SizesArgs};
use super::diff::{RuleArgs, Verdict, rules_need};
use super::input::PauseArgs;
use super::{put, snapshot, summary};
use crate::cli::output;
use crate::error::{Error, ErrorKind, Result};
use crate::heap::census::{Census, Counting};
use crate::heap::graph::Graph;
use crate::heap::run::{Moment, Prepared, Told};
use crate::heap::subject::{Subject, open_heap};
use crate::target::launch::{self, Launched};
use crate::target::process;
use crate::target::signals::{self, OnSignal};
use crate::units::{Pid, parse_duration, printable};

/// Failures that are remembered.
const MOST_FAILURES: usize = 8;

/// What the snapshot of the end is called.
const AT_EXIT: &str = "at exit";

/// The same for the clock.
const BY_THE_CLOCK: &str = "by the clock";

/// Processes between the program that was started and the Python that tells of itself.
const MOST_PARENTS: usize = 64;

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
        output::check_writable(path)?;
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
    let is_one = moments == [Moment::Exit] && args.every.is_none();
    if baseline.is_none() && is_one {
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
    let mut watched = Watched::start(&args, moments, counting, &words, is_one)?;
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
fn no_snapshot(args: &RunArgs, watched: &mut Watched, code: u8) -> Result<u8> {
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

/// What happens while the program runs.
enum Event {
    Told(Told),
    Ended(Result<u8>),
}

/// A snapshot that was taken.
struct Taken {
    name: String,
    census: Census,
    /// With --why.
    graph: Option<Graph>,
}

/// A program under way.
struct Watched<'a> {
    args: &'a RunArgs,
    moments: Vec<Moment>,
    counting: Counting,
    is_one: bool,
    prepared: Option<Prepared>,
    events: Receiver<Event>,
    started: Pid,
    /// The Python that tells.
    python: Pid,
    /// Whether it told anything.
    told: bool,
    taken: u64,
    first: Option<(Census, Option<Graph>)>,
    last: Option<Taken>,
    failures: Vec<Error>,
    /// The latest failure by the clock.
    missed: Option<Error>,
}

impl<'a> Watched<'a> {
    fn start(
        args: &'a RunArgs,
        moments: Vec<Moment>,
        counting: Counting,
        words: &[String],
        is_one: bool,
    ) -> Result<Watched<'a>> {
        let (sender, events) = mpsc::channel();
        let prepared = if moments.is_empty() {
            None
        } else {
            let mut prepared = Prepared::new(&moments, words)?;
            let sender = sender.clone();
            prepared.listen(move |told| sender.send(Event::Told(told)).is_ok())?;
            Some(prepared)
        };
        let running = Arc::new(AtomicI32::new(0));
        signals::handle(OnSignal::PassOn(running.clone()))?;
        let environment = prepared.as_ref().map_or(Vec::new(), Prepared::environment);
        let mut launched = Launched::start_with(words, environment, running)?;
        let started = launched.pid();
        std::thread::spawn(move || {
            let code = launched.wait().map(launch::exit_code);
            // Nobody listens any more when biopsy is ending.
            let _ = sender.send(Event::Ended(code));
        });
        Ok(Watched {
            args,
            moments,
            counting,
            is_one,
            prepared,
            events,
            started,
            python: started,
            told: false,
            taken: 0,
            first: None,
            last: None,
            failures: Vec::new(),
            missed: None,
        })
    }

    /// Takes the snapshots until the program ends; gives its exit code.
    fn until_ended(&mut self) -> Result<u8> {
        let mut due = self.args.every.map(|every| Instant::now() + every);
        loop {
            let wait = due.map_or(Duration::MAX, |due| {
                due.saturating_duration_since(Instant::now())
            });
            match self.events.recv_timeout(wait) {
                Ok(Event::Ended(code)) => return code,
                Ok(Event::Told(told)) => {
                    self.meet(&told);
                    if let Some(prepared) = &self.prepared {
                        prepared.go_on();
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.take(BY_THE_CLOCK);
                    due = self.args.every.map(|every| Instant::now() + every);
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Error::new(
                        ErrorKind::Failed,
                        "cannot wait for the program",
                        "the thread that waits has failed",
                    ));
                }
            }
        }
    }

    fn meet(&mut self, told: &Told) {
        self.told = true;
        match told {
            Told::Hello(pid) => {
                if descends(Pid(*pid), self.started) {
                    self.python = Pid(*pid);
                }
            }
            Told::Problem(problem) => self.failures.push(Error::new(
                ErrorKind::Failed,
                "a moment will not come",
                printable(problem),
            )),
            Told::Exit => self.take(AT_EXIT),
            Told::Call { moment, side, call } => {
                let name = match self.moments.get(*moment) {
                    Some(Moment::Call {
                        module, function, ..
                    }) => format!("{side} call {call} of {module}:{function}"),
                    _ => format!("{side} call {call}"),
                };
                self.take(&name);
            }
        }
    }

    fn take(&mut self, moment: &str) {
        if self.taken >= self.args.count && moment != AT_EXIT {
            return;
        }
        match self.snapshot(moment) {
            Ok(taken) => {
                self.taken += 1;
                // What the last one is compared with, where there is no baseline.
                let last = self.last.replace(taken);
                if let (None, Some(last)) = (&self.first, last) {
                    self.first = Some((last.census, last.graph));
                }
            }
            // Before the program is a Python and when it is ending, that is no news.
            Err(error) if moment == BY_THE_CLOCK => self.missed = Some(error),
            Err(error) => {
                if self.failures.len() < MOST_FAILURES {
                    self.failures
                        .push(error.within(format!("no snapshot {}", printable(moment))));
                }
            }
        }
    }

    fn snapshot(&self, moment: &str) -> Result<Taken> {
        let pid = self.python;
        let path = self.args.output.as_ref().map(|path| self.numbered(path));
        if let Some(path) = &path {
            snapshot::check_room(pid, path)?;
        }
        let started = snapshot::started(pid);
        let captured = self.args.pause.capture(pid, path.is_some())?;
        let census = match &path {
            Some(path) => {
                let census = snapshot::save(&captured, started, path, self.args.values)?;
                if self.counting == Counting::Reachable {
                    census
                } else {
                    open_heap(&captured)?.census(self.counting)
                }
            }
            None => open_heap(&captured)?.census(self.counting),
        };
        let name = match &path {
            Some(path) => path.display().to_string(),
            None => moment.to_string(),
        };
        if let (Some(path), false) = (&path, self.args.quiet) {
            eprintln!("biopsy: wrote {} ({})", path.display(), printable(moment));
        }
        let why = self.args.why.then(|| open_heap(&captured)?.graph(false));
        Ok(Taken {
            name,
            census,
            graph: why.transpose()?,
        })
    }

    /// The file of the next snapshot: `NAME.2.heap` when there may be several.
    fn numbered(&self, path: &Path) -> PathBuf {
        if self.is_one {
            return path.to_path_buf();
        }
        let number = self.taken + 1;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let ending = path
            .extension()
            .map_or("heap".into(), |ending| ending.to_string_lossy());
        path.with_file_name(format!("{name}.{number}.{ending}"))
    }
}

/// Whether `pid` is `ancestor`, or has been started by it or one of its children.
fn descends(pid: Pid, ancestor: Pid) -> bool {
    let parent = |pid: &Pid| process::stat(*pid).map(|stat| stat.parent);
    std::iter::successors(Some(pid), parent)
        .take(MOST_PARENTS)
        .any(|pid| pid == ancestor)
}
