//! A heap that can be asked: a copy of a living process, a core file, a snapshot, or a summary in JSON.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Once;

use rustc_hash::FxHashMap;

use super::census::{Census, Counting, TypeCount};
use super::graph::{Graph, flags};
use super::rss::Account;
use super::store::Reader;
use super::{Heap, Object, summary, values};
use crate::error::{Error, ErrorKind, Result};
use crate::target::image::{Captured, Held};
use crate::target::memory::copy::{self, CaptureOptions, Pause};
use crate::target::memory::moment::HeapState;
use crate::target::open::{self, Target};
use crate::target::process;
use crate::target::runtime::{self, Runtime};
use crate::units::Pid;

/// A larger summary in JSON than this is refused.
const SUMMARY_LIMIT: u64 = 256 << 20;

/// Who is told what a person should know of a heap.
pub type Tell<'a> = &'a dyn Fn(&str);

/// Where a heap's objects come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A living process that was stopped, or copied.
    Held,
    /// A living process that ran on.
    Running,
    /// A file: a snapshot, a summary, a core.
    File,
}

/// Copies a process.
pub fn capture(pid: Pid, options: CaptureOptions, tell: Tell<'_>) -> Result<Captured> {
    let (captured, report) = copy::capture(pid, options).map_err(supported)?;
    if options.pause != Pause::Running && report.moment == HeapState::Collecting {
        tell(&format!(
            "process {pid} was collecting garbage all the time: some of its objects may be missing"
        ));
    }
    tell_others(&captured, tell);
    Ok(captured)
}

/// Says, once, which other Pythons the process has.
fn tell_others(captured: &Captured, tell: Tell<'_>) {
    static SAID: Once = Once::new();
    let Runtime {
        others, version, ..
    } = &captured.runtime;
    if others.is_empty() {
        return;
    }
    SAID.call_once(|| {
        let pid = captured.pid.unwrap_or(Pid(0));
        for other in others {
            tell(&runtime::second(pid, other, version));
        }
    });
}

/// A heap that can be asked.
#[derive(Debug)]
pub enum Subject {
    /// A copy of a process, or a core file.
    Image(Box<Captured>),
    /// A snapshot.
    Snapshot(Box<Reader>),
    /// A summary in JSON.
    Summary(Box<Census>),
}

impl Subject {
    /// What a person named: digits are a process, all else is a file.
    pub fn open(target: &str, options: CaptureOptions, tell: Tell<'_>) -> Result<Subject> {
        match open::process_id(target) {
            Some(pid) => Subject::of_process(pid?, options, tell),
            None => Subject::of_file(Path::new(target), tell),
        }
    }

    /// Copies a process.
    pub fn of_process(pid: Pid, options: CaptureOptions, tell: Tell<'_>) -> Result<Subject> {
        Ok(Subject::Image(Box::new(capture(pid, options, tell)?)))
    }

    /// Opens a file by what is in it.
    pub fn of_file(path: &Path, tell: Tell<'_>) -> Result<Subject> {
        let shown = path.display().to_string();
        // A pipe can be read only once: what comes through one is a summary.
        let is_file = std::fs::metadata(path).is_ok_and(|meta| meta.is_file());
        let known = is_file.then(|| Target::of_file(path)).transpose();
        match known {
            Ok(Some(Target::Snapshot(path))) => {
                return Ok(Subject::Snapshot(Box::new(Reader::open(&path)?)));
            }
            Ok(Some(core)) => {
                let taken = open::open(&core, CaptureOptions::default()).map_err(supported)?;
                if let Some((captured, _)) = taken {
                    let dead = captured.dead.as_deref();
                    for caveat in dead.iter().flat_map(|dead| &dead.caveats) {
                        tell(caveat);
                    }
                    tell_others(&captured, tell);
                    return Ok(Subject::Image(Box::new(captured)));
                }
            }
            Err(error) if error.kind() != ErrorKind::BadFile => return Err(error),
            Ok(None) | Err(_) => {}
        }
        let mut data = Vec::new();
        File::open(path)
            .and_then(|file| file.take(SUMMARY_LIMIT + 1).read_to_end(&mut data))
            .map_err(|error| Error::read(&shown, &error))?;
        let starts = data.iter().find(|byte| !byte.is_ascii_whitespace());
        if starts == Some(&b'{') && data.len() as u64 <= SUMMARY_LIMIT {
            let census = summary::read(&shown, &data)?;
            return Ok(Subject::Summary(Box::new(census)));
        }
        let why = match data.is_empty() {
            true => "it is empty",
            false => "it is no heap snapshot, no core file and no summary in JSON",
        };
        Err(Error::bad_file(format!("cannot read {shown}"), 0, why).hint(
            "biopsy heap snapshot PID -o FILE writes a snapshot, biopsy heap summary PID --json a summary",
        ))
    }

    /// Fails for a core file that was cut short: of `what` nothing is true as long as something is missing.
    pub fn whole(&self, what: &str, why: &str) -> Result<()> {
        let is_cut = match self {
            Subject::Image(captured) => captured.is_cut(),
            Subject::Summary(census) => census.is_cut(),
            Subject::Snapshot(_) => false,
        };
        if !is_cut {
            return Ok(());
        }
        let why = format!("the core file was cut short, and {why}");
        Err(
            Error::new(ErrorKind::NotAvailable, format!("cannot tell {what}"), why)
                .hint("biopsy heap summary, objects, path and referrers show what is left of it"),
        )
    }

    /// Counts its objects.
    pub fn census(&mut self, counting: Counting) -> Result<Census> {
        if counting == Counting::Muppy {
            self.whole(
                "what muppy would count",
                "which objects the collector shows is not known",
            )?;
        }
        match self {
            Subject::Image(captured) => Ok(open_heap(captured)?.census(counting)),
            Subject::Snapshot(reader) => {
                let mut census = reader.census(counting)?;
                // Snapshots of older versions have all of it.
                census.command = process::without_arguments(&census.command);
                Ok(census)
            }
            Subject::Summary(census) if census.counting == counting => Ok((**census).clone()),
            Subject::Summary(_) => Err(Error::new(
                ErrorKind::NotAvailable,
                "cannot count otherwise",
                "a summary has been counted, and only a process, core or snapshot can be counted again",
            )),
        }
    }

    /// Calls `each` with every object, by address.
    pub fn objects(
        &mut self,
        counting: Counting,
        each: &mut dyn FnMut(Object) -> Result<()>,
    ) -> Result<()> {
        if counting == Counting::Muppy {
            self.whole(
                "what muppy would count",
                "which objects the collector shows is not known",
            )?;
        }
        match self {
            Subject::Image(captured) => {
                let mut result = Ok(());
                open_heap(captured)?.objects(counting, &mut |object| {
                    if result.is_ok() {
                        result = each(object);
                    }
                });
                result
            }
            Subject::Snapshot(reader) => {
                let mut objects = reader.objects()?;
                let names = objects.type_names().to_vec();
                while let Some(row) = objects.next_object()? {
                    if counting == Counting::Muppy && row.flags & flags::MUPPY == 0 {
                        continue;
                    }
                    let kind = names.get(row.type_id as usize);
                    each(Object {
                        address: row.address,
                        kind: kind.map_or("?", String::as_str),
                        bytes: row.size,
                        refcount: row.refcount.into(),
                    })?;
                }
                Ok(())
            }
            Subject::Summary(_) => Err(Error::new(
                ErrorKind::NotAvailable,
                "cannot list objects",
                "a summary has counts and no objects",
            )
            .hint("take a snapshot instead: biopsy heap snapshot PID -o FILE.heap")),
        }
    }

    /// Counts those of its objects that have at least `least` bytes.
    pub fn census_of_big(&mut self, least: u64) -> Result<Census> {
        let mut rows: FxHashMap<String, TypeCount> = FxHashMap::default();
        self.objects(Counting::Reachable, &mut |object| {
            if object.bytes >= least {
                if !rows.contains_key(object.kind) {
                    let name = object.kind.to_string();
                    let none = TypeCount {
                        name: name.clone(),
                        objects: 0,
                        bytes: 0,
                    };
                    rows.insert(name, none);
                }
                if let Some(row) = rows.get_mut(object.kind) {
                    row.objects += 1;
                    row.bytes = row.bytes.saturating_add(object.bytes);
                }
            }
            Ok(())
        })?;
        let mut census = self.census(Counting::Reachable)?;
        census.types = rows.into_values().collect();
        Ok(census)
    }

    /// Whether both are of one process, so that an address means the same object in both.
    pub fn is_same_process(&self, other: &Subject) -> bool {
        let of = |subject: &Subject| match subject {
            Subject::Image(captured) => {
                let pid = captured.pid?;
                Some((pid.0, process::stat(pid)?.start_ticks))
            }
            Subject::Snapshot(reader) => Some((reader.head().pid?, reader.head().started?)),
            Subject::Summary(_) => None,
        };
        of(self).is_some_and(|own| of(other) == Some(own))
    }

    /// Where its resident memory is.
    pub fn account(self) -> Result<Account> {
        let missing = |why: &str| {
            Error::new(
                ErrorKind::NotAvailable,
                "cannot tell where the resident memory is",
                why,
            )
            .hint("ask about the living process, or a snapshot of it")
        };
        match self {
            Subject::Image(captured) => {
                let heap = open_heap(&captured)?;
                heap.account(&heap.graph(false)?)
            }
            Subject::Snapshot(reader) => {
                let account = reader.head().account.clone();
                account.ok_or_else(|| missing("this snapshot does not have it"))
            }
            Subject::Summary(_) => Err(missing("a summary has counts of objects only")),
        }
    }

    /// Its object graph, of a process with the texts of values if `shown`; the copy of a process is let go.
    pub fn graph(self, shown: bool) -> Result<Graph> {
        match self {
            Subject::Image(captured) => open_heap(&captured)?.graph(shown),
            Subject::Snapshot(mut reader) => {
                let mut graph = reader.graph()?;
                // One that was taken with values shows them; older versions kept keys that are no names in the others too.
                if !reader.head().values {
                    values::hide(&mut graph);
                }
                Ok(graph)
            }
            Subject::Summary(_) => Err(Error::new(
                ErrorKind::NotAvailable,
                "cannot tell who holds what",
                "a summary has counts and no objects",
            )
            .hint("take a snapshot instead: biopsy heap snapshot PID -o FILE.heap")),
        }
    }

    /// The process that it is a copy of.
    pub fn process(&self) -> Option<Pid> {
        match self {
            Subject::Image(captured) => captured.pid,
            Subject::Snapshot(_) | Subject::Summary(_) => None,
        }
    }

    /// How it counted, when that can't be chosen any more.
    pub fn counting(&self) -> Option<Counting> {
        match self {
            Subject::Summary(census) => Some(census.counting),
            _ => None,
        }
    }

    /// Where it comes from, for the note above a summary.
    pub fn source(&self) -> Source {
        let of = |held: Held| match held {
            Held::Running => Source::Running,
            Held::Core => Source::File,
            Held::Stopped(_) | Held::Already => Source::Held,
        };
        match self {
            Subject::Image(captured) => of(captured.held),
            Subject::Snapshot(reader) => match reader.head().held {
                Held::Running => Source::Running,
                _ => Source::File,
            },
            Subject::Summary(_) => Source::File,
        }
    }
}

/// Opens the heap in an image.
pub fn open_heap(captured: &Captured) -> Result<Heap<'_>> {
    Heap::open(captured).map_err(supported)
}

/// Says which versions can be read, where the version is the reason.
fn supported(error: Error) -> Error {
    match error.kind() {
        ErrorKind::UnsupportedPython => {
            error.hint("heaps of CPython 3.8 to 3.15 can be read, free-threaded builds excepted")
        }
        _ => error,
    }
}
