//! Groups of arguments that several commands share, and what they turn into.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::error::{Error, Result};
use crate::profile::{Mode, Selection};
use crate::sample::{ReaderChoice, SampleOptions};
use crate::target::list;
use crate::units::{Pid, Rate, parse_duration, parse_moment};

/// Which process.
#[derive(Debug, Clone, Args)]
pub struct TargetArgs {
    /// Process id
    #[arg(value_name = "PID", value_parser = parse_pid)]
    pid: Option<i32>,
    /// The one Python process that has this in its command line
    #[arg(long, value_name = "PATTERN", conflicts_with = "pid")]
    name: Option<String>,
}

/// A process id; what else it may have been meant to be is told.
fn parse_pid(text: &str) -> std::result::Result<i32, String> {
    match text.parse::<i32>() {
        Ok(pid) if pid > 0 => Ok(pid),
        _ if std::path::Path::new(text).is_file() => Err(
            "it is a file, not a process id (biopsy report reads recordings, biopsy dump and biopsy heap core files)"
                .to_string(),
        ),
        _ => Err("it is not a process id (--name PATTERN finds a process by its command line)".to_string()),
    }
}

impl TargetArgs {
    /// The process that is meant.
    pub fn pid(&self) -> Result<Pid> {
        match (self.pid, &self.name) {
            (Some(pid), _) => Ok(Pid(pid)),
            (None, Some(pattern)) => list::find_by_name(pattern),
            (None, None) => Err(Error::usage("no process", "give a PID or --name PATTERN")
                .hint("biopsy ps lists the Python processes of this machine")),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ModeArg {
    /// All samples, as cProfile counts
    Wall,
    /// Threads on a CPU
    Cpu,
    /// Threads that hold the GIL; free-threaded builds have none
    Gil,
    /// Threads that handle an exception: in `except` and `finally` blocks that it entered, and what they call
    Exception,
}

impl From<ModeArg> for Mode {
    fn from(mode: ModeArg) -> Mode {
        match mode {
            ModeArg::Wall => Mode::Wall,
            ModeArg::Cpu => Mode::Cpu,
            ModeArg::Gil => Mode::Gil,
            ModeArg::Exception => Mode::Exception,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ReaderArg {
    /// As fits best
    Auto,
    /// In the threads' own timer interrupts: root, or CAP_BPF and CAP_PERFMON; calls are not counted. Fits best for free-threaded builds
    Interrupt,
    /// From outside, on the CPU of the GIL's holder; without a GIL, on that of each thread
    SameCpu,
    /// By py-spy's reader
    PySpy,
}

impl From<ReaderArg> for ReaderChoice {
    fn from(reader: ReaderArg) -> ReaderChoice {
        match reader {
            ReaderArg::Auto => ReaderChoice::Auto,
            ReaderArg::Interrupt => ReaderChoice::Interrupt,
            ReaderArg::SameCpu => ReaderChoice::SameCpu,
            ReaderArg::PySpy => ReaderChoice::PySpy,
        }
    }
}

/// How to sample.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Sampling")]
pub struct SampleArgs {
    /// Samples a second, such as 1000 or 10k, or "max"
    #[arg(short, long, value_name = "HZ", default_value = "1000")]
    rate: Rate,
    /// How stacks are read
    #[arg(long, value_enum, default_value = "auto")]
    reader: ReaderArg,
    /// Stop after this time: 30, 30s, 5m [default: to the end, or Ctrl-C]
    #[arg(short, long, value_name = "TIME", value_parser = parse_duration)]
    duration: Option<Duration>,
    /// Which samples count
    #[arg(long, value_enum, default_value = "wall")]
    mode: ModeArg,
    /// Keep threads apart in every output
    #[arg(long)]
    threads: bool,
    /// Follow child processes; each keeps its own rows
    #[arg(long)]
    subprocesses: bool,
    /// Stop the target for each sample [default: never stopped]
    #[arg(long)]
    blocking: bool,
    /// Native (C, C++, Rust) frames too; needs --blocking and a build with them
    #[arg(long)]
    native: bool,
    /// Do not attribute time to C functions [default: attributed, on 3.8 and newer]
    #[arg(long)]
    no_builtins: bool,
    /// Stacks along await chains, with asyncio's tasks as roots; suspended tasks too (3.11 and newer)
    #[arg(long = "async", conflicts_with = "native")]
    tasks: bool,
    /// No watchpoints for call counts
    #[arg(long, alias = "no-bursts")]
    no_counts: bool,
}

impl SampleArgs {
    /// Whether child processes are followed.
    pub fn follows(&self) -> bool {
        self.subprocesses
    }

    /// Plain options; `timeline` says whether it matters when things happened.
    pub fn options(&self, timeline: bool) -> SampleOptions {
        SampleOptions {
            rate: self.rate,
            reader: self.reader.into(),
            duration: self.duration,
            mode: self.mode.into(),
            threads: self.threads,
            subprocesses: self.subprocesses,
            blocking: self.blocking,
            native: self.native,
            no_builtins: self.no_builtins,
            tasks: self.tasks,
            // Watchpoints count all calls, not those while an exception is handled.
            no_counts: self.no_counts || self.mode == ModeArg::Exception,
            // Who made whom wait is seen in what happened at the same time.
            no_timeline: !timeline && self.mode != ModeArg::Gil,
        }
    }
}

/// Where results go.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Write a file; its name chooses the format. Repeat it for several files
    #[arg(short, long = "output", value_name = "FILE")]
    pub outputs: Vec<PathBuf>,
    /// Format of the one -o, or of stdout: table, pstats, callgrind, flamegraph, collapsed, speedscope,
    /// gecko, pprof, html, json, lprof, biopsy
    #[arg(short, long, value_name = "NAME")]
    pub format: Option<String>,
    /// Open the page (or the flame graph) of -o in the browser: $BROWSER, else xdg-open
    #[arg(long)]
    pub open: bool,
    /// No progress, no notes
    #[arg(short, long)]
    pub quiet: bool,
}

impl OutputArgs {
    /// Whether nothing is said of where results go.
    pub fn is_empty(&self) -> bool {
        self.outputs.is_empty() && self.format.is_none()
    }
}

/// What of a profile is shown.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "What is shown")]
pub struct SelectArgs {
    /// Only stacks with a function whose name or file matches (pprof's meaning)
    #[arg(long, value_name = "REGEX")]
    focus: Option<String>,
    /// No stacks with a function whose name or file matches
    #[arg(long, value_name = "REGEX")]
    ignore: Option<String>,
    /// Take out frames whose name or file matches: their time is their callers'
    #[arg(long, value_name = "REGEX")]
    hide: Option<String>,
    /// From this time of the recording on: 5, 5s, 250ms
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    from: Option<Duration>,
    /// Up to this time of the recording
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    to: Option<Duration>,
    /// Garbage collection is time of the function that it interrupts, and no row `<GC>`
    #[arg(long)]
    no_gc: bool,
}

impl SelectArgs {
    /// Plain options.
    pub fn selection(&self) -> Result<Selection> {
        let regex = |option: &str, text: &Option<String>| {
            let Some(text) = text else {
                return Ok(None);
            };
            let regex = regex::RegexBuilder::new(text).size_limit(1 << 20).build();
            regex.map(Some).map_err(|error| {
                let why = error.to_string();
                let why = why.lines().last().unwrap_or("it is no regular expression");
                Error::usage(
                    format!("cannot use {option} '{text}'"),
                    why.trim_start_matches("error: "),
                )
            })
        };
        let us = |time: Option<Duration>| {
            time.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
        };
        Ok(Selection {
            focus: regex("--focus", &self.focus)?,
            ignore: regex("--ignore", &self.ignore)?,
            hide: regex("--hide", &self.hide)?,
            from_us: us(self.from),
            to_us: us(self.to),
            no_gc: self.no_gc,
        })
    }
}

/// How the table looks.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Table")]
pub struct ViewArgs {
    /// Order of the rows: any key of pstats' sort_stats, such as cumulative, tottime, ncalls; repeatable
    /// [default: cumulative]
    #[arg(short, long = "sort", value_name = "KEY", value_delimiter = ',')]
    pub sort: Vec<String>,
    /// Restrict the rows as print_stats does: a number, a fraction or a regular expression; repeatable
    /// [default: 30 rows on a terminal, all otherwise]
    #[arg(
        short,
        long = "limit",
        value_name = "N|FRACTION|REGEX",
        allow_hyphen_values = true
    )]
    pub limit: Vec<String>,
    /// File names without folders
    #[arg(long)]
    pub strip_dirs: bool,
    /// Qualified names, A.foo instead of foo, in tables and pictures; known of Python 3.11 and newer
    #[arg(long)]
    pub qualnames: bool,
}

/// Lines instead of functions.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Table")]
pub struct LinesArgs {
    /// line_profiler's table instead: time by source line, of all functions or of those that FUNCTION means: a name, the end
    /// of module.qualname, a pattern over that, file.py:LINE; repeatable
    #[arg(long, value_name = "FUNCTION", num_args = 0..=1)]
    pub lines: Option<Vec<String>>,
}

impl ViewArgs {
    /// Whether something is said of the table that has no meaning without one.
    pub fn ask_for_table(&self) -> bool {
        !(self.sort.is_empty() && self.limit.is_empty())
    }
}

impl From<CliMode> for Mode {
    fn from(mode: CliMode) -> Mode {
        mode.0.into()
    }
}

/// `--mode` where it may be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CliMode(ModeArg);

impl clap::builder::ValueParserFactory for CliMode {
    type Parser = clap::builder::ValueParser;

    fn value_parser() -> Self::Parser {
        use clap::builder::TypedValueParser;
        clap::builder::ValueParser::new(
            clap::builder::EnumValueParser::<ModeArg>::new().map(CliMode),
        )
    }
}

/// A number of rows, or `all`.
pub fn parse_limit(text: &str) -> Result<usize, String> {
    if text == "all" {
        return Ok(usize::MAX);
    }
    text.parse()
        .map_err(|_| "expected a number of rows, or all".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_as_people_type_them() {
        assert_eq!(parse_limit("10"), Ok(10));
        assert_eq!(parse_limit("all"), Ok(usize::MAX));
        assert!(parse_limit("-1").is_err() && parse_limit("many").is_err());
    }
}
