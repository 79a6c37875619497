//! A program that is started and of which snapshots are taken at its moments, until it ends.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicI32;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::{Moment, Prepared, Told};
use crate::error::{Error, ErrorKind, Result};
use crate::heap::census::{Census, Counting};
use crate::heap::graph::Graph;
use crate::heap::save;
use crate::heap::subject::{self, Tell, open_heap};
use crate::target::launch::{self, Launched};
use crate::target::memory::copy::CaptureOptions;
use crate::target::process;
use crate::target::signals::{self, OnSignal};
use crate::units::{Pid, printable};

/// Failures that are remembered.
const MOST_FAILURES: usize = 8;

/// What the snapshot of the end is called.
const AT_EXIT: &str = "at exit";

/// The same for the clock.
const BY_THE_CLOCK: &str = "by the clock";

/// Processes between the program that was started and the Python that tells of itself.
const MOST_PARENTS: usize = 64;

/// What happens while the program runs.
enum Event {
    Told(Told),
    Ended(Result<u8>),
}

/// When snapshots are taken, how, and what of them is kept.
#[derive(Debug, Clone)]
pub struct WatchOptions {
    /// Moments of the program.
    pub moments: Vec<Moment>,
    /// One every so often too.
    pub every: Option<Duration>,
    /// At most so many, but for that of the end.
    pub count: u64,
    /// Where they are written, numbered unless there can be only one.
    pub output: Option<PathBuf>,
    /// How the process is held.
    pub capture: CaptureOptions,
    /// Keep short reprs of values in the files.
    pub values: bool,
    /// What is counted.
    pub counting: Counting,
    /// Keep the graphs too.
    pub graphs: bool,
}

impl WatchOptions {
    /// Whether the only snapshot is that of the end.
    pub fn is_one(&self) -> bool {
        self.moments == [Moment::Exit] && self.every.is_none()
    }
}

/// A snapshot that was taken.
#[derive(Debug)]
pub struct Taken {
    /// Its file, else its moment.
    pub name: String,
    /// Its objects by type.
    pub census: Census,
    /// Where graphs are kept.
    pub graph: Option<Graph>,
}

/// Who is told of each snapshot that was written: its file and its moment.
pub type Wrote<'a> = &'a dyn Fn(&Path, &str);

/// A program under way.
pub struct Watched<'a> {
    options: WatchOptions,
    tell: Tell<'a>,
    wrote: Wrote<'a>,
    prepared: Option<Prepared>,
    events: Receiver<Event>,
    started: Pid,
    /// The Python that tells.
    python: Pid,
    /// Whether it told anything.
    pub told: bool,
    taken: u64,
    /// The first snapshot, once there are two.
    pub first: Option<(Census, Option<Graph>)>,
    /// The last one.
    pub last: Option<Taken>,
    /// Snapshots that could not be taken, and moments that will not come.
    pub failures: Vec<Error>,
    /// The latest failure by the clock.
    pub missed: Option<Error>,
}

impl<'a> Watched<'a> {
    /// Starts a program.
    pub fn start(
        words: &[String],
        options: WatchOptions,
        tell: Tell<'a>,
        wrote: Wrote<'a>,
    ) -> Result<Watched<'a>> {
        let (sender, events) = mpsc::channel();
        let prepared = if options.moments.is_empty() {
            None
        } else {
            let mut prepared = Prepared::new(&options.moments, words)?;
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
            options,
            tell,
            wrote,
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
    pub fn until_ended(&mut self) -> Result<u8> {
        let mut due = self.options.every.map(|every| Instant::now() + every);
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
                    due = self.options.every.map(|every| Instant::now() + every);
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
                let name = match self.options.moments.get(*moment) {
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
        if self.taken >= self.options.count && moment != AT_EXIT {
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
        let path = self.options.output.as_ref().map(|path| self.numbered(path));
        if let Some(path) = &path {
            save::check_room(pid, path)?;
        }
        let started = save::started(pid);
        let capture = CaptureOptions {
            mappings: path.is_some(),
            ..self.options.capture
        };
        let captured = subject::capture(pid, capture, self.tell)?;
        let census = match &path {
            Some(path) => {
                let census = save::save(&captured, started, path, self.options.values)?;
                if self.options.counting == Counting::Reachable {
                    census
                } else {
                    open_heap(&captured)?.census(self.options.counting)
                }
            }
            None => open_heap(&captured)?.census(self.options.counting),
        };
        let name = match &path {
            Some(path) => path.display().to_string(),
            None => moment.to_string(),
        };
        if let Some(path) = &path {
            (self.wrote)(path, moment);
        }
        let graph = self
            .options
            .graphs
            .then(|| open_heap(&captured)?.graph(false));
        Ok(Taken {
            name,
            census,
            graph: graph.transpose()?,
        })
    }

    /// The file of the next snapshot: `NAME.2.heap` when there may be several.
    fn numbered(&self, path: &Path) -> PathBuf {
        if self.options.is_one() {
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
