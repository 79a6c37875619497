//! The memory of a living process, copied while it stands still for as short as can be.
//!
//! Before the stop: find the runtime, list the pages that exist, reserve and fill our own memory, wait for a moment at
//! which the heap is in order. During it: list again, copy with two threads. After it: all the rest.
//!
//! Copied is what is private to the process: writable memory, and what was writable before. Shared memory is not:
//! it holds no Python objects.
//!
//! What a fork has left shared until it is written is read through `/proc/PID/mem`, at half the speed: the kernel (5.19 and
//! newer) gives a process its own copy of each such page that process_vm_readv(2) reads (`gup_must_unshare`), so that a
//! worker of a server that forks would grow by all of its parent's heap.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use log::debug;

use super::constants::Unwritten;
use super::moment::{HeapState, Signs};
use super::pages::{PAGE, Pages, Run};
use super::refusals::{ended, failed, refused, traced};
use super::room::{Layout, Places, Room};
use super::stopped::Guard;
use super::{Live, Unreadable};
use crate::error::{Error, ErrorKind, Result};
use crate::target::image::{Captured, Held, Image, Residence, Span};
use crate::target::runtime::{self, Runtime};
use crate::target::{access, maps, process, threads};
use crate::units::Pid;

/// Whether the process is stopped for the copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pause {
    /// All its threads are.
    #[default]
    Stop,
    /// It runs on, and what it changes meanwhile is torn.
    Running,
}

/// What to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CaptureOptions {
    /// How.
    pub pause: Pause,
    /// Read `mappings` with what is resident of each, which takes as long as the copy.
    pub mappings: bool,
}

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// What the interpreters were doing.
    pub moment: HeapState,
    /// How often the process was stopped, until a good moment was met.
    pub stops: u32,
    /// Bytes copied.
    pub copied: u64,
    /// Bytes that could not be copied and are zero in the image; the guard pages of stacks are among them where
    /// they are no mappings of their own (glibc 2.42).
    pub unreadable: u64,
}

/// How long a good moment is waited for: first one at which the lock is free, then one without a collection.
const PATIENCE: Duration = Duration::from_millis(200);

/// Stops that may turn out to be at a bad moment.
const MOST_STOPS: u32 = 50;

/// Bytes of one copy: what a CPU's second cache holds. 4 KB is half as fast, 4 MB a tenth slower.
const CHUNK: u64 = 256 << 10;

/// Runs of one copy (UIO_MAXIOV is 1024).
const MOST_RUNS: usize = 512;

/// Copies the memory of `pid`.
pub fn capture(pid: Pid, options: CaptureOptions) -> Result<(Captured, Report)> {
    attempt(pid, options).map_err(|error| {
        // One that is ending loses its memory before it is seen to have ended, and fails in all kinds of ways.
        let known = [
            ErrorKind::NoSuchProcess,
            ErrorKind::ProcessEnded,
            ErrorKind::NotPython,
        ];
        let empty = || maps::regions(pid).is_ok_and(|regions| regions.is_empty());
        if !known.contains(&error.kind()) && (!process::is_alive(pid) || empty()) {
            ended(pid)
        } else {
            error
        }
    })
}

fn attempt(pid: Pid, options: CaptureOptions) -> Result<(Captured, Report)> {
    access::check(pid)?;
    let memory = Live::new(pid);
    let runtime = runtime::find(pid, &memory)?;
    let signs = Signs::find(&memory, &runtime);
    let manner = manner(pid, options.pause)?;
    let mut pages = Pages::open(pid).map_err(|_| access::not_permitted(pid))?;
    let before = Layout::of(pid, &mut pages).map_err(|_| ended(pid))?;
    let shared = pages.shared(&before.present).map_err(|_| ended(pid))?;
    let room = Room::prepare(pid, &before)?;
    let job = Job {
        pid,
        memory,
        runtime: &runtime,
        signs,
        manner,
        before,
        shared,
    };
    // In a thread of its own: the kernel lets go of all that a thread traces when it ends.
    let taken = std::thread::scope(|scope| {
        scope
            .spawn(|| job.take(&mut pages, room))
            .join()
            .unwrap_or_else(|_| Err(failed(pid, "copying it failed")))
    })?;
    taken.captured(pid, runtime, options)
}

/// How the process is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Stop,
    /// Stopped by Ctrl-Z or SIGSTOP: held nevertheless, as it may be continued.
    StoppedBySignal,
    /// This tracer has stopped it.
    StoppedBy(Pid),
    Run,
}

fn manner(pid: Pid, pause: Pause) -> Result<Manner> {
    if pause == Pause::Running {
        return Ok(Manner::Run);
    }
    if let Some(tracer) = process::tracer(pid) {
        return match still(pid) {
            Some(_) => Ok(Manner::StoppedBy(tracer)),
            None => Err(traced(pid, tracer)),
        };
    }
    match process::require_alive(pid)?.state {
        'T' => Ok(Manner::StoppedBySignal),
        _ => Ok(Manner::Stop),
    }
}

/// The threads and how often each was given a CPU, when all of them stand still.
fn still(pid: Pid) -> Option<Vec<(i32, u64)>> {
    let threads = threads::switches(pid)?;
    threads
        .into_iter()
        .map(|(tid, state, switches)| matches!(state, 't' | 'T').then_some((tid.0, switches)))
        .collect()
}

struct Job<'a> {
    pid: Pid,
    memory: Live,
    runtime: &'a Runtime,
    signs: Option<Signs>,
    manner: Manner,
    before: Layout,
    /// Pages that other processes map too.
    shared: Vec<Run>,
}

struct Taken {
    spans: Vec<Span>,
    regions: Vec<maps::Region>,
    present: Vec<Run>,
    report: Report,
    held: Held,
    taken_at: SystemTime,
    rss: Option<u64>,
}

impl Job<'_> {
    fn take(&self, pages: &mut Pages, room: Room) -> Result<Taken> {
        let still_before = match self.manner {
            Manner::StoppedBy(_) => still(self.pid),
            _ => None,
        };
        let mut waited = Duration::ZERO;
        let (guard, moment, stops, lost) = self.stop(&mut waited)?;
        let taken_at = SystemTime::now();
        let mut now = Layout::of(self.pid, pages).map_err(|_| ended(self.pid))?;
        self.check_same(&now)?;
        let places = room.places(self.pid, &mut now)?;
        let copied = self.copy(&now.present, &places)?;
        let rss = process::resident(self.pid);
        let pause = guard.map(Guard::release);
        // Only now: what is written while it stands still is a longer pause.
        debug!(
            "process {}: copied at a moment that was {moment:?}, waited for {:.1} ms; {stops} stops, {:.1} ms in all",
            self.pid,
            1e3 * waited.as_secs_f64(),
            1e3 * (pause.unwrap_or_default() + lost).as_secs_f64()
        );
        let held = match (self.manner, pause) {
            (Manner::Stop, Some(pause)) => Held::Stopped(pause + lost),
            (Manner::Run, _) => Held::Running,
            _ => Held::Already,
        };
        if let Manner::StoppedBy(tracer) = self.manner
            && still(self.pid) != still_before
        {
            return Err(traced(self.pid, tracer));
        }
        now.fill_from_files(self.pid, &places);
        let report = Report {
            moment,
            stops,
            copied: copied.bytes,
            unreadable: copied.unreadable,
        };
        // SAFETY: the copy has ended, its threads too, and nothing else writes there.
        let spans = unsafe { places.into_spans() };
        Ok(Taken {
            spans,
            regions: now.regions,
            present: now.present,
            report,
            held,
            taken_at,
            rss,
        })
    }

    /// Stops the process, at a good moment where one comes, which is `waited` for; gives what the moment is like, how many stops
    /// it took, and how long the vain ones were.
    fn stop(&self, waited: &mut Duration) -> Result<(Option<Guard>, HeapState, u32, Duration)> {
        let holds = matches!(self.manner, Manner::Stop | Manner::StoppedBySignal);
        let (mut stops, mut lost) = (0, Duration::ZERO);
        let mut deadline = Instant::now() + PATIENCE;
        let mut wanted = HeapState::Quiet;
        loop {
            if let (Some(signs), Manner::Stop) = (&self.signs, self.manner) {
                let since = Instant::now();
                let met = signs.wait(&self.memory, wanted, deadline);
                *waited += since.elapsed();
                if !met.map_err(|why| self.unreadable(why))? && wanted < HeapState::Collecting {
                    wanted = next(wanted);
                    deadline = Instant::now() + PATIENCE;
                    continue;
                }
            }
            let guard = if holds {
                Some(Guard::all(self.pid).map_err(|why| refused(self.pid, why))?)
            } else {
                None
            };
            stops += u32::from(guard.is_some());
            let moment = match &self.signs {
                Some(signs) => {
                    let read = signs.read(&self.memory);
                    read.map_err(|why| self.unreadable(why))?
                }
                None => HeapState::Unknown,
            };
            let again = self.manner == Manner::Stop && self.signs.is_some() && moment > wanted;
            match guard {
                Some(guard) if again && stops < MOST_STOPS => lost += guard.release(),
                guard => return Ok((guard, moment, stops, lost)),
            }
        }
    }

    /// Fails when the process is another program by now.
    fn check_same(&self, now: &Layout) -> Result<()> {
        if now.regions.is_empty() {
            return Err(ended(self.pid));
        }
        let find = |layout: &Layout, what: &dyn Fn(&maps::Region) -> bool| {
            let region = layout.regions.iter().find(|region| what(region))?;
            Some((region.end, region.name.clone()))
        };
        let stack = |region: &maps::Region| region.name == "[stack]";
        let python = |region: &maps::Region| region.holds(self.runtime.address);
        let same = find(now, &stack) == find(&self.before, &stack)
            && find(now, &python).map(|found| found.1)
                == find(&self.before, &python).map(|found| found.1);
        if same {
            Ok(())
        } else {
            Err(failed(
                self.pid,
                "it started another program meanwhile (exec)",
            ))
        }
    }

    fn unreadable(&self, why: Unreadable) -> Error {
        match why {
            Unreadable::Denied => access::not_permitted(self.pid),
            Unreadable::Gone => ended(self.pid),
            Unreadable::Nowhere => failed(self.pid, "its Python is not there any more"),
        }
    }

    /// Copies the pages `present` to their places.
    fn copy(&self, present: &[Run], places: &Places) -> Result<Copied> {
        let pid = self.pid;
        let (shared, own) = pieces(present, places)
            .into_iter()
            .partition::<Vec<_>, _>(|piece| self.is_shared(piece));
        let file = match shared.is_empty() {
            true => None,
            false => File::open(format!("/proc/{pid}/mem")).ok(),
        };
        // Where that cannot be opened, the other way is left.
        let (shared, own) = match &file {
            Some(_) => (shared, own),
            None => (Vec::new(), [own, shared].concat()),
        };
        let jobs = jobs(&own);
        let (next, gone) = (AtomicUsize::new(0), AtomicBool::new(false));
        let next_shared = AtomicUsize::new(0);
        let (bytes, unreadable) = (AtomicU64::new(0), AtomicU64::new(0));
        let count = |done: Option<Copied>| match done {
            Some(done) => {
                bytes.fetch_add(done.bytes, Ordering::Relaxed);
                unreadable.fetch_add(done.unreadable, Ordering::Relaxed);
            }
            None => gone.store(true, Ordering::Relaxed),
        };
        let work = || {
            while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed))
                && !gone.load(Ordering::Relaxed)
            {
                count(copy_pieces(pid, own.get(job.clone()).unwrap_or_default()));
            }
            while let Some(file) = &file
                && let Some(piece) = shared.get(next_shared.fetch_add(1, Ordering::Relaxed))
                && !gone.load(Ordering::Relaxed)
            {
                count(copy_shared(file, piece));
            }
        };
        std::thread::scope(|scope| {
            if std::thread::available_parallelism().is_ok_and(|cpus| cpus.get() > 1)
                && jobs.len() + shared.len() > 1
            {
                scope.spawn(work);
            }
            work();
        });
        if gone.into_inner() {
            return Err(ended(pid));
        }
        Ok(Copied {
            bytes: bytes.into_inner(),
            unreadable: unreadable.into_inner(),
        })
    }

    fn is_shared(&self, piece: &Piece) -> bool {
        let end = piece.from + piece.length as u64;
        let at = self.shared.partition_point(|run| run.end <= piece.from);
        self.shared.get(at).is_some_and(|run| run.start < end)
    }
}

/// The next best moment.
fn next(wanted: HeapState) -> HeapState {
    match wanted {
        HeapState::Quiet => HeapState::LockHeld,
        _ => HeapState::Collecting,
    }
}

impl Taken {
    fn captured(
        self,
        pid: Pid,
        runtime: Runtime,
        options: CaptureOptions,
    ) -> Result<(Captured, Report)> {
        let constants = Unwritten::new(pid, &self.regions);
        let mut image = Image::new(self.spans, Some(Box::new(constants)));
        let mut mappings = Vec::new();
        if options.mappings {
            let (found, sharing) = maps::mappings(pid).map_err(|_| ended(pid))?;
            mappings = found;
            image = image.with_residence(Residence {
                present: self
                    .present
                    .iter()
                    .map(|run| (run.start, run.end))
                    .collect(),
                sharing,
            });
        }
        let captured = Captured {
            image,
            runtime,
            pid: Some(pid),
            command: process::without_arguments(&process::command_line(pid)),
            taken_at: self.taken_at,
            held: self.held,
            rss: self.rss,
            mappings,
            threads: threads::names(pid),
            static_data: maps::static_data(&Live::new(pid), &self.regions),
            dead: None,
        };
        Ok((captured, self.report))
    }
}

/// What was copied.
struct Copied {
    bytes: u64,
    unreadable: u64,
}

/// Some bytes of the target and where they go.
#[derive(Debug, Clone, Copy)]
struct Piece {
    from: u64,
    to: usize,
    length: usize,
}

/// The runs, each cut into parts of at most [`CHUNK`] bytes that have one place.
fn pieces(present: &[Run], places: &Places) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for run in present {
        let mut start = run.start;
        while start < run.end {
            let end = run.end.min((start / CHUNK + 1) * CHUNK);
            let part = Run { start, end };
            if let Some(to) = places.of(part) {
                pieces.push(Piece {
                    from: start,
                    to,
                    length: part.size() as usize,
                });
            }
            start = end;
        }
    }
    pieces
}

/// Ranges of pieces that one call copies.
fn jobs(pieces: &[Piece]) -> Vec<std::ops::Range<usize>> {
    let mut jobs = Vec::new();
    let (mut first, mut bytes) = (0, 0);
    for (index, piece) in pieces.iter().enumerate() {
        bytes += piece.length as u64;
        if bytes >= CHUNK || index + 1 - first >= MOST_RUNS || index + 1 == pieces.len() {
            jobs.push(first..index + 1);
            (first, bytes) = (index + 1, 0);
        }
    }
    jobs
}

/// Copies `pieces`; pages that cannot be read stay zero. `None` when the process is gone.
fn copy_pieces(pid: Pid, pieces: &[Piece]) -> Option<Copied> {
    let mut done = Copied {
        bytes: 0,
        unreadable: 0,
    };
    let vector = |address: usize, length| libc::iovec {
        iov_base: address as *mut libc::c_void,
        iov_len: length,
    };
    let mut rest: Vec<Piece> = pieces.to_vec();
    while !rest.is_empty() {
        let local: Vec<libc::iovec> = rest.iter().map(|p| vector(p.to, p.length)).collect();
        let remote: Vec<libc::iovec> = rest
            .iter()
            .map(|p| vector(p.from as usize, p.length))
            .collect();
        // SAFETY: each local range is inside a reservation that the caller holds, and of which no slice exists yet
        // (`pieces` took it from there); pieces do not overlap, and each is given to one thread. The remote ranges
        // are addresses in the other process.
        let copied = unsafe {
            libc::process_vm_readv(
                pid.0,
                local.as_ptr(),
                local.len() as libc::c_ulong,
                remote.as_ptr(),
                remote.len() as libc::c_ulong,
                0,
            )
        };
        let copied = match usize::try_from(copied) {
            Ok(copied) => copied,
            Err(_) if std::io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT) => 0,
            Err(_) => return None,
        };
        done.bytes += copied as u64;
        skip(&mut rest, copied);
        // What stopped it is the page that comes next.
        if let Some(first) = rest.first() {
            let page = ((first.from / PAGE + 1) * PAGE - first.from) as usize;
            let page = page.min(first.length);
            done.unreadable += page as u64;
            skip(&mut rest, page);
        }
    }
    Some(done)
}

/// Copies one piece through `/proc/PID/mem`; pages that cannot be read stay zero. `None` when the process is gone: its
/// memory ends at once then.
fn copy_shared(file: &File, piece: &Piece) -> Option<Copied> {
    let mut done = 0;
    let mut unreadable = 0;
    while done < piece.length {
        let from = piece.from + done as u64;
        // SAFETY: the bytes from `to + done` on are inside a reservation that the caller holds, and of which no slice exists
        // yet (`pieces` took it from there); pieces do not overlap, and each is given to one thread.
        let read = unsafe {
            libc::pread(
                file.as_raw_fd(),
                (piece.to + done) as *mut libc::c_void,
                piece.length - done,
                from as libc::off_t,
            )
        };
        match usize::try_from(read) {
            Ok(0) => return None,
            Ok(read) => done += read,
            Err(_) => {
                let page = ((from / PAGE + 1) * PAGE - from) as usize;
                let page = page.min(piece.length - done);
                unreadable += page as u64;
                done += page;
            }
        }
    }
    Some(Copied {
        bytes: done as u64 - unreadable,
        unreadable,
    })
}

/// Takes the first `bytes` away.
fn skip(pieces: &mut Vec<Piece>, mut bytes: usize) {
    let whole = pieces.iter().take_while(|piece| {
        let fits = piece.length <= bytes;
        bytes -= if fits { piece.length } else { 0 };
        fits
    });
    let whole = whole.count();
    pieces.drain(..whole);
    if let Some(first) = pieces.first_mut() {
        first.from += bytes as u64;
        first.to += bytes;
        first.length -= bytes;
    }
}
