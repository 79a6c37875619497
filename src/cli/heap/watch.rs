//! `biopsy heap watch`: a summary, then the difference again and again, and what grew all the time.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;

use super::args::{CountingArgs, Form, RowArgs, SizesArgs};
use super::html::PageArgs;
use super::input::PauseArgs;
use super::put;
use crate::cli::args::TargetArgs;
use crate::cli::output::note;
use crate::error::{Error, ErrorKind, Result};
use crate::heap::census::Census;
use crate::heap::diff::{self, CensusDiff};
use crate::heap::graph::{Graph, Sizes};
use crate::heap::growth::{Growing, History};
use crate::heap::subject::Source;
use crate::heap::why::{self, TypeReason};
use crate::target::process;
use crate::target::signals::{self, OnSignal};
use crate::units::{Pid, parse_duration};
use crate::view::heap::json;
use crate::view::heap::page::Page;
use crate::view::heap::reasons::reasons;
use crate::view::heap::watch::Step;
use crate::view::heap::{Rows, summary, watch};

/// How often a stop signal and the process's end are looked for.
const TICK: Duration = Duration::from_millis(50);

/// Clears a terminal and goes to its first line (ECMA-48: ED 2, CUP).
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Print a summary of a process, then every so often what changed since, as muppy's SummaryTracker does; at the
/// end, or on Ctrl-C, the types that grew in every step and how fast.
///
/// With --type these types are followed instead, as ClassTracker does: their number and bytes at each step.
#[derive(Debug, Args)]
pub struct WatchArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Time between two summaries: 10, 10s, 5m
    #[arg(short, long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    every: Duration,
    /// Stop after so many differences [default: at the process's end, or Ctrl-C]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    #[command(flatten)]
    pause: PauseArgs,
    #[command(flatten)]
    counting: CountingArgs,
    /// At the end, tell for the types that grew in every step which paths hold their new instances, and what these keep
    /// alive
    #[arg(long, conflicts_with = "muppy")]
    why: bool,
    #[command(flatten)]
    sizes: SizesArgs,
    #[command(flatten)]
    rows: RowArgs,
    /// Print JSON, one document a line: biopsy.heap-step/1 for each step, biopsy.heap-growth/1 at the end
    #[arg(long, help_heading = "Output")]
    json: bool,
    #[command(flatten)]
    page: PageArgs,
}

pub fn run(args: &WatchArgs, out: &mut dyn Write) -> Result<()> {
    args.page.check()?;
    let pid = args.target.pid()?;
    let stop = Arc::new(AtomicBool::new(false));
    signals::handle(OnSignal::Stop(stop.clone()))?;
    let started = Instant::now();
    let mut program = process::program(pid);
    let (first, source, mut first_graph) = look(pid, args)?;
    let mut screen = Screen {
        args,
        rows: if args.json {
            args.rows.all_rows()
        } else {
            args.rows.rows(Form::Table)
        },
        redraw: !args.json && std::io::stdout().is_terminal(),
        steps: 0,
        note: summary::note(&first, source),
        out,
    };
    screen.first(&first, source)?;
    let mut growing = Growing::from(&first);
    let mut over_time = OverTime::of(args, &first, source)?;
    let mut before = first;
    let mut latest_graph = None;
    // How many objects there were, and what grew, before a step at which most of them went and did not come again.
    let mut whole: Option<(u64, Growing, Option<Graph>)> = None;
    let mut ended = None;
    let (mut taken, mut failed) = (0u32, false);
    while !stop.load(Ordering::SeqCst) && args.count.is_none_or(|count| u64::from(taken) < count) {
        taken = taken.saturating_add(1);
        let due = started + args.every.saturating_mul(taken);
        if !wait(pid, due, &stop) {
            if !stop.load(Ordering::SeqCst) {
                ended = Some(process::gone(pid));
            }
            break;
        }
        let now = process::program(pid);
        let (census, source, graph) = match look(pid, args) {
            Ok(read) => read,
            // It called exec, and is not yet what it will be.
            Err(_) if !failed && process::is_alive(pid) && process::program(pid) != program => {
                failed = true;
                continue;
            }
            Err(error) => {
                ended = Some(error);
                break;
            }
        };
        if now != program {
            let command = process::without_arguments(&process::command_line(pid));
            note(&format!(
                "process {pid} has called exec and runs another program now ({command}): what follows is its own growth"
            ));
            (program, failed, first_graph) = (now, false, graph);
            (latest_graph, whole) = (None, None);
            screen.note = summary::note(&census, source);
            screen.first(&census, source)?;
            growing = Growing::from(&census);
            over_time = OverTime::of(args, &census, source)?;
            before = census;
            continue;
        }
        let diff = diff::censuses(&before, &census)?;
        let most = whole.as_ref().map_or(before.total().0, |(most, ..)| *most);
        if census.total().0 >= most / 2 {
            whole = None;
        } else if whole.is_none() {
            whole = Some((most, growing.clone(), latest_graph.take()));
        }
        growing.step(&census);
        screen.step(&growing, &census, &diff, before.rss_bytes)?;
        over_time.add(&census)?;
        before = census;
        latest_graph = graph;
    }
    let mut let_go = false;
    // The interpreter lets go of everything when it ends, which says nothing of what grew.
    if let (Some((_, earlier, graph)), false) = (whole, process::is_alive(pid)) {
        note(&format!(
            "process {pid} let go of most objects at its end, which is left out of what grew"
        ));
        (growing, latest_graph) = (earlier, graph);
        let_go = true;
    }
    screen.end(&growing)?;
    match (&mut first_graph, &mut latest_graph) {
        (Some(old), Some(new)) => {
            let sizes = args.sizes.choose([&mut *old, &mut *new].into_iter());
            let reasons = screen.why(&growing, old, new, sizes)?;
            // Who held what before is no part of the numbers after.
            over_time.write(&before, (!let_go).then_some(&*new), &reasons)?;
        }
        (Some(_), None) => note("nothing can be said of why: there was no second summary"),
        (None, _) => {}
    }
    args.page.show();
    ended.map_or(Ok(()), |error| as_end(pid, error))
}

/// That the process has ended is no error.
fn as_end(pid: Pid, error: Error) -> Result<()> {
    if is_end(&error) || !process::is_alive(pid) {
        note(&format!("process {pid} has ended"));
        return Ok(());
    }
    Err(error)
}

/// One summary. The reasons at the end are of the same moment as the numbers, as a process may end before the next one.
fn look(pid: Pid, args: &WatchArgs) -> Result<(Census, Source, Option<Graph>)> {
    let mut subject = args.pause.open_process(pid)?;
    let (census, source) = (subject.census(args.counting.counting())?, subject.source());
    let graph = args.why.then(|| subject.graph(false)).transpose()?;
    Ok((census, source, graph))
}

/// The page of what was seen so far, written anew at each step: it is there whatever ends us.
struct OverTime<'a> {
    args: &'a WatchArgs,
    first: Census,
    source: Source,
    history: History,
}

impl<'a> OverTime<'a> {
    fn of(args: &'a WatchArgs, first: &Census, source: Source) -> Result<OverTime<'a>> {
        let mut found = OverTime {
            args,
            first: first.clone(),
            source,
            history: History::default(),
        };
        found.add(first)?;
        Ok(found)
    }

    fn add(&mut self, census: &Census) -> Result<()> {
        if !self.args.page.is_wanted() {
            return Ok(());
        }
        self.history.add(census);
        self.write(census, None, &[])
    }

    fn write(&self, census: &Census, graph: Option<&Graph>, reasons: &[TypeReason]) -> Result<()> {
        self.args.page.write(&Page {
            title: summary::title(census),
            note: summary::note(census, self.source),
            census,
            graph,
            account: None,
            diff: Some(&diff::censuses(&self.first, census)?),
            reasons,
            history: Some(&self.history),
        })
    }
}

fn is_end(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NoSuchProcess | ErrorKind::ProcessEnded
    )
}

/// Waits until `due`; false when a stop signal came or the process ended before.
fn wait(pid: Pid, due: Instant, stop: &AtomicBool) -> bool {
    loop {
        if stop.load(Ordering::SeqCst) || !process::is_alive(pid) {
            return false;
        }
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        std::thread::sleep(left.min(TICK));
    }
}

/// What is written as it comes.
struct Screen<'a> {
    args: &'a WatchArgs,
    rows: Rows,
    /// The latest step takes the place of the one before.
    redraw: bool,
    steps: u64,
    note: String,
    out: &'a mut dyn Write,
}

impl Screen<'_> {
    fn first(&mut self, census: &Census, source: Source) -> Result<()> {
        let step = Step {
            since: Duration::ZERO,
            census,
            diff: None,
            rss_before: None,
        };
        let text = if self.args.json {
            json::step(0, &step, &self.rows)?
        } else if self.rows.types.is_empty() {
            summary::text(census, source, &self.rows)
        } else {
            format!("{}\n\n{}", self.note, watch::classes(&step, &self.rows))
        };
        let clear = if self.redraw { CLEAR } else { "" };
        put(self.out, &format!("{clear}{text}"))
    }

    fn step(
        &mut self,
        growing: &Growing,
        census: &Census,
        diff: &CensusDiff,
        rss_before: Option<u64>,
    ) -> Result<()> {
        self.steps = growing.steps();
        let step = Step {
            since: Duration::from_secs_f64(growing.seconds()),
            census,
            diff: Some(diff),
            rss_before,
        };
        if self.args.json {
            return put(self.out, &json::step(self.steps, &step, &self.rows)?);
        }
        let text = if self.rows.types.is_empty() {
            watch::difference(&step, &self.rows)
        } else {
            watch::classes(&step, &self.rows)
        };
        if !self.redraw {
            return put(self.out, &format!("\n{text}"));
        }
        let growth = watch::growth(growing, &self.rows);
        put(
            self.out,
            &format!("{CLEAR}{}\n\n{text}\n{growth}", self.note),
        )
    }

    fn why(
        &mut self,
        growing: &Growing,
        old: &Graph,
        new: &Graph,
        sizes: Sizes,
    ) -> Result<Vec<TypeReason>> {
        let mut grown = growing.growths();
        grown.retain(|growth| self.rows.wants(&growth.name));
        let all = self.rows.wants(why::ALL_TYPES);
        let all = all.then_some(why::ALL_TYPES).into_iter();
        let names = all.chain(grown.iter().map(|growth| growth.name.as_str()));
        let rows = why::reasons(Some(old), new, names);
        let text = if self.args.json {
            json::why(&rows, sizes)?
        } else {
            reasons(&rows, sizes)
        };
        put(self.out, &text)?;
        Ok(rows)
    }

    fn end(&mut self, growing: &Growing) -> Result<()> {
        if self.args.json {
            return put(self.out, &json::growth(growing, &self.rows)?);
        }
        // The last drawing has it.
        if self.redraw && growing.steps() > 0 {
            return Ok(());
        }
        put(
            self.out,
            &format!("\n{}", watch::growth(growing, &self.rows)),
        )
    }
}
