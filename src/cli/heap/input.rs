//! Arguments that say which heap: a living process, a core file, a snapshot, or a summary in JSON; and how a process is held.

use clap::{Args, ValueEnum};

use crate::cli::output;
use crate::error::{Error, Result};
use crate::heap::census::{Census, Counting};
use crate::heap::graph::Graph;
use crate::heap::rss::Account;
use crate::heap::subject::{self, Source, Subject, open_heap};
use crate::target::image::Captured;
use crate::target::list;
use crate::target::memory::copy::{CaptureOptions, Pause};
use crate::units::Pid;
use crate::view::heap::summary;

/// How the target is held while it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PauseArg {
    /// Stopped and copied
    Auto,
    /// Stopped and copied
    Stop,
    /// Not at all: what changes meanwhile is wrong
    None,
}

/// How a living target is held.
#[derive(Debug, Clone, Args)]
pub struct PauseArgs {
    /// How a process is held while it is copied
    #[arg(long, value_enum, value_name = "HOW", default_value = "auto")]
    pause: PauseArg,
    /// Note the sizes of its mappings too.
    #[arg(skip)]
    mappings: bool,
}

impl PauseArgs {
    /// Plain options; with `mappings` these are noted too, which takes longer.
    pub fn options(&self, mappings: bool) -> CaptureOptions {
        CaptureOptions {
            pause: match self.pause {
                PauseArg::Auto | PauseArg::Stop => Pause::Stop,
                PauseArg::None => Pause::Running,
            },
            mappings: mappings || self.mappings,
        }
    }

    /// The same, with the sizes of the mappings noted too, which takes longer.
    pub fn with_mappings(&self) -> PauseArgs {
        PauseArgs {
            mappings: true,
            ..self.clone()
        }
    }

    /// What is told of a summary of a process.
    pub fn source(&self) -> Source {
        match self.pause {
            PauseArg::None => Source::Running,
            PauseArg::Auto | PauseArg::Stop => Source::Held,
        }
    }

    /// Copies a process; with `mappings` these are noted too, which takes longer.
    pub fn capture(&self, pid: Pid, mappings: bool) -> Result<Captured> {
        subject::capture(pid, self.options(mappings), &output::note)
    }

    /// Opens what a person named.
    pub fn open(&self, target: &str) -> Result<Subject> {
        Subject::open(target, self.options(false), &output::note)
    }

    /// Copies a process.
    pub fn open_process(&self, pid: Pid) -> Result<Subject> {
        Subject::of_process(pid, self.options(false), &output::note)
    }
}

/// Which heap.
#[derive(Debug, Clone, Args)]
pub struct HeapTargetArgs {
    /// Process id, snapshot or core file
    #[arg(value_name = "TARGET")]
    target: Option<String>,
    /// The one Python process that has this in its command line
    #[arg(long, value_name = "PATTERN", conflicts_with = "target")]
    name: Option<String>,
    #[command(flatten)]
    pause: PauseArgs,
}

impl HeapTargetArgs {
    /// Opens it; a process is copied.
    pub fn open(&self) -> Result<Subject> {
        self.open_held(&self.pause)
    }

    fn open_held(&self, pause: &PauseArgs) -> Result<Subject> {
        match (&self.target, &self.name) {
            (Some(target), _) => pause.open(target),
            (None, Some(pattern)) => pause.open_process(list::find_by_name(pattern)?),
            (None, None) => Err(no_heap()),
        }
    }
}

/// The error when nothing was named.
pub fn no_heap() -> Error {
    Error::usage(
        "no heap",
        "give a PID, a snapshot, a core file, or --name PATTERN",
    )
    .hint("biopsy ps lists the Python processes of this machine")
}

/// Whose object graph.
#[derive(Debug, Clone, Args)]
pub struct GraphArgs {
    #[command(flatten)]
    target: HeapTargetArgs,
    /// Show the text of keys that are no names, too, cut after 60 letters: they may be secrets. A snapshot has them when it
    /// was taken with --values
    #[arg(long)]
    values: bool,
}

impl GraphArgs {
    /// Opens it.
    pub fn open(&self) -> Result<Subject> {
        self.target.open()
    }

    /// The graph of what was opened.
    pub fn graph_of(&self, subject: Subject) -> Result<Graph> {
        if let Subject::Snapshot(reader) = &subject
            && self.values
            && !reader.head().values
        {
            output::note("this snapshot has no values: it was taken without --values");
        }
        subject.graph(self.values)
    }

    /// The same for sizes: it is said which may be wrong.
    pub fn sized_graph(&self) -> Result<Graph> {
        let subject = self.open()?;
        subject.whole(
            "who keeps how much alive",
            "what is missing may hold the same objects",
        )?;
        let Subject::Image(captured) = subject else {
            return self.graph_of(subject);
        };
        let heap = open_heap(&captured)?;
        let graph = heap.graph(self.values)?;
        if let Some(text) = summary::own_sizes(&heap.own_sizes(&graph)) {
            output::note(&text);
        }
        Ok(graph)
    }

    /// Opens it with the sizes of its mappings, and counts all that can be known of it.
    pub fn whole(&self) -> Result<(Whole, Source)> {
        let mut subject = self.target.open_held(&self.target.pause.with_mappings())?;
        subject.whole(
            "who keeps how much alive",
            "what is missing may hold the same objects",
        )?;
        let source = subject.source();
        let census = subject.census(Counting::Reachable)?;
        let whole = match subject {
            Subject::Image(captured) => {
                let heap = open_heap(&captured)?;
                let graph = heap.graph(self.values)?;
                if let Some(text) = summary::own_sizes(&heap.own_sizes(&graph)) {
                    output::note(&text);
                }
                // A core file has no sizes of mappings.
                let account = heap.account(&graph).ok();
                Whole {
                    census,
                    graph,
                    account,
                }
            }
            Subject::Snapshot(reader) => Whole {
                census,
                account: reader.head().account.clone(),
                graph: self.graph_of(Subject::Snapshot(reader))?,
            },
            summary @ Subject::Summary(_) => Whole {
                census,
                account: None,
                graph: self.graph_of(summary)?,
            },
        };
        Ok((whole, source))
    }

    /// Opens it and reads its graph.
    pub fn graph(&self) -> Result<Graph> {
        self.graph_of(self.open()?)
    }

    /// Whether the texts of keys were asked for.
    pub fn values(&self) -> bool {
        self.values
    }

    /// How a process is held.
    pub fn pause(&self) -> &PauseArgs {
        &self.target.pause
    }
}

/// All that can be known of a heap.
#[derive(Debug)]
pub struct Whole {
    /// Its objects by type.
    pub census: Census,
    /// Who refers to whom.
    pub graph: Graph,
    /// Where the resident memory is; `None` where that is not known.
    pub account: Option<Account>,
}
