//! A process's memory that stands still: a copy made while it was stopped, or a core file's.
//!
//! Spans are sorted and do not overlap; neighbouring mappings are one span. Pages that were never touched are
//! zero. What is in a span is as hostile as all that comes from a target.

use std::time::{Duration, SystemTime};

use super::maps::{Region, StaticData};
use super::runtime::Runtime;
use super::threads::Activity;
use crate::units::Pid;

/// A run of memory without a gap.
pub struct Span {
    start: u64,
    bytes: Box<dyn AsRef<[u8]> + Send + Sync>,
}

impl Span {
    /// The memory `bytes`, which starts at `start` in the target.
    pub fn new(start: u64, bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> Span {
        Span {
            start,
            bytes: Box::new(bytes),
        }
    }

    /// Its first address.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// What is in it.
    pub fn bytes(&self) -> &[u8] {
        (*self.bytes).as_ref()
    }

    /// The first address behind it.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.bytes().len() as u64)
    }
}

impl std::fmt::Debug for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Span({:#x}-{:#x})", self.start, self.end())
    }
}

/// Memory that does not change while the program runs and is not in the image: names in read-only sections.
pub trait Constants: Send + Sync {
    /// Fills `into` from `address`; false when that cannot be read.
    fn read(&self, address: u64, into: &mut [u8]) -> bool;
}

/// Who shares the resident pages of a mapping, from `/proc/PID/smaps` (proc_pid_smaps(5)). All in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sharing {
    /// First address of the mapping.
    pub start: u64,
    /// Each page divided by the number of processes that map it (`Pss`).
    pub pss: u64,
    /// Mapped by this process alone.
    pub private: u64,
    /// Mapped by others too.
    pub shared: u64,
    /// In huge pages: transparent ones of anonymous memory, shared memory and files.
    pub huge: u64,
    /// In pages of hugetlbfs, which are not counted as resident.
    pub hugetlb: u64,
}

/// What of a process was resident.
#[derive(Debug, Default)]
pub struct Residence {
    /// Start and end of the runs of private pages that were resident or swapped out, by address.
    pub present: Vec<(u64, u64)>,
    /// Who shares them, by mapping.
    pub sharing: Vec<Sharing>,
}

/// The memory.
pub struct Image {
    spans: Vec<Span>,
    constants: Option<Box<dyn Constants>>,
    residence: Option<Residence>,
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&self.spans).finish()
    }
}

/// The first, else the second.
struct Either(Box<dyn Constants>, Box<dyn Constants>);

impl Constants for Either {
    fn read(&self, address: u64, into: &mut [u8]) -> bool {
        self.0.read(address, into) || self.1.read(address, into)
    }
}

impl Image {
    /// An image of `spans`, of which those that overlap an earlier one are left out.
    pub fn new(mut spans: Vec<Span>, constants: Option<Box<dyn Constants>>) -> Image {
        spans.sort_by_key(Span::start);
        let mut end = 0;
        spans.retain(|span| {
            let fits = span.start() >= end && !span.bytes().is_empty();
            if fits {
                end = span.end();
            }
            fits
        });
        Image {
            spans,
            constants,
            residence: None,
        }
    }

    /// The same with what was resident.
    pub fn with_residence(self, residence: Residence) -> Image {
        Image {
            residence: Some(residence),
            ..self
        }
    }

    /// What was resident, where that is known.
    pub fn residence(&self) -> Option<&Residence> {
        self.residence.as_ref()
    }

    /// The same with `constants` for what is not in it.
    pub fn with_constants(self, constants: Box<dyn Constants>) -> Image {
        Image {
            constants: Some(constants),
            ..self
        }
    }

    /// The same with `more` where neither it nor what it has for constants knows.
    pub fn and_constants(self, more: Box<dyn Constants>) -> Image {
        Image {
            constants: Some(match self.constants {
                Some(first) => Box::new(Either(first, more)),
                None => more,
            }),
            ..self
        }
    }

    /// The same with `more` spans, as far as they are elsewhere.
    pub fn with_spans(self, more: Vec<Span>) -> Image {
        let mut spans = self.spans;
        spans.extend(more);
        Image {
            residence: self.residence,
            ..Image::new(spans, self.constants)
        }
    }

    /// The spans, by address.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// Bytes in all spans.
    pub fn size(&self) -> u64 {
        self.spans
            .iter()
            .map(|span| span.bytes().len() as u64)
            .sum()
    }

    /// The `length` bytes at `address`, when all of them are in one span.
    pub fn bytes(&self, address: u64, length: usize) -> Option<&[u8]> {
        let after = self.spans.partition_point(|span| span.start() <= address);
        let span = self.spans.get(after.checked_sub(1)?)?;
        let from = usize::try_from(address - span.start()).ok()?;
        span.bytes().get(from..from.checked_add(length)?)
    }

    /// Reads `into` from the image or from what never changes; false when neither has all of it.
    pub fn read(&self, address: u64, into: &mut [u8]) -> bool {
        if let Some(bytes) = self.bytes(address, into.len()) {
            into.copy_from_slice(bytes);
            return true;
        }
        self.constants
            .as_ref()
            .is_some_and(|constants| constants.read(address, into))
    }
}

/// How the memory was held while it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// Every thread was stopped for this long.
    Stopped(Duration),
    /// It ran meanwhile: what was being changed is torn.
    Running,
    /// It was stopped already, by someone else.
    Already,
    /// A core file.
    Core,
}

/// An OS thread of the process at that moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThreadName {
    /// Its id, as the process's own PID namespace has it where that is known.
    pub tid: i32,
    /// `comm`.
    pub name: String,
}

/// One mapping of the process, from `/proc/PID/smaps` or a core file's headers. All sizes in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// Such as `rw-p`.
    pub permissions: String,
    /// Path or `[heap]`, `[stack]`; empty for anonymous memory.
    pub name: String,
    /// Resident.
    pub rss: u64,
    /// Resident and private to the process: clean and dirty.
    pub private: u64,
    /// Resident and anonymous.
    pub anonymous: u64,
    /// Swapped out.
    pub swap: u64,
}

/// A thread of a process that is no more, as a core file has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeadThread {
    /// Its id, in the process's own PID namespace.
    pub tid: i32,
    /// Its thread pointer, which is `pthread_self()`; 0 when not known.
    pub pointer: u64,
    /// What it did; `None` when not known.
    pub activity: Option<Activity>,
    /// The signal that it was given last; 0 for none.
    pub signal: i32,
}

/// What a core file has beside memory.
#[derive(Debug, Clone, Default)]
pub struct Dead {
    /// Its threads, the one that died first.
    pub threads: Vec<DeadThread>,
    /// Its mappings.
    pub regions: Vec<Region>,
    /// What the core does not have, for people.
    pub caveats: Vec<String>,
    /// Bytes of memory that it does not have since it was cut short.
    pub missing: u64,
    /// Where `type` was, when symbols and what is left told.
    pub type_type: Option<u64>,
}

/// A process at one moment.
#[derive(Debug)]
pub struct Captured {
    /// Its memory.
    pub image: Image,
    /// Its Python.
    pub runtime: Runtime,
    /// The process, when it is one; a core file says which it was, where it does.
    pub pid: Option<Pid>,
    /// Its command line without arguments, which may be secrets.
    pub command: String,
    /// When.
    pub taken_at: SystemTime,
    /// How it was held.
    pub held: Held,
    /// Resident memory, in bytes; `None` where that is not known.
    pub rss: Option<u64>,
    /// Its mappings.
    pub mappings: Vec<Mapping>,
    /// Its threads.
    pub threads: Vec<ThreadName>,
    /// Written data of the program and its libraries, by address: no allocator gave it out.
    pub static_data: Vec<StaticData>,
    /// What else is known of it when it is a core file.
    pub dead: Option<Box<Dead>>,
}

impl Captured {
    /// Bytes of memory that are missing since the core file was cut short; 0 of what was not.
    pub fn missing(&self) -> u64 {
        self.dead.as_ref().map_or(0, |dead| dead.missing)
    }

    /// Whether it is a core file that was cut short.
    pub fn is_cut(&self) -> bool {
        self.missing() > 0
    }
}
