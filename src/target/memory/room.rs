//! What of a process is to be copied, and the room that is made for it before it is stopped.

use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::constants::open_mapped;
use super::headroom;
use super::pages::{Pages, Run, append};
use super::refusals::{ended, failed};
use super::reserve::{Reservation, Slice, population};
use crate::error::{Error, ErrorKind, Result};
use crate::target::image::Span;
use crate::target::maps::{self, Region};
use crate::units::{Pid, format_bytes};

/// Memory without a gap is cut where pages were never touched for this long: some programs reserve terabytes.
const LONGEST_HOLE: u64 = 64 << 20;

/// The same where addresses are scarce (`ulimit -v`).
const SHORTER_HOLE: u64 = 1 << 20;

/// Room for what is mapped between the preparation and the stop, beside what there was. Addresses only.
const SLACK: u64 = 64 << 20;

/// A file's pages that the process has not touched yet are read for mappings with at most this much of it: the
/// data of binaries, not a database.
const MOST_OF_FILE: u64 = 16 << 20;

/// The memory of a process at one moment.
#[derive(Debug)]
pub struct Layout {
    /// All that is mapped.
    pub regions: Vec<Region>,
    /// Pages to copy, by address.
    pub present: Vec<Run>,
    /// What becomes spans.
    pub pieces: Vec<Run>,
    /// The same cut where addresses are scarce.
    small_pieces: Vec<Run>,
    /// Index into `regions`, and a part of it that shows its file still and was not touched.
    untouched: Vec<(usize, Run)>,
}

impl Layout {
    /// That of `pid`; fails when it is gone.
    pub fn of(pid: Pid, pages: &mut Pages) -> io::Result<Layout> {
        let regions = maps::regions(pid)?;
        let mut layout = Layout {
            regions: Vec::new(),
            present: Vec::new(),
            pieces: Vec::new(),
            small_pieces: Vec::new(),
            untouched: Vec::new(),
        };
        let mut found = Vec::new();
        for (index, region) in regions.iter().enumerate() {
            if !region.readable() || !region.private() || region.special() {
                continue;
            }
            if !region.writable() && region.executable() {
                continue;
            }
            found.clear();
            pages.present(region, &mut found)?;
            if region.writable() {
                layout.add_writable(index, region, &found);
            } else {
                for run in &found {
                    append(&mut layout.pieces, *run);
                    append(&mut layout.small_pieces, *run);
                }
            }
            for run in &found {
                append(&mut layout.present, *run);
            }
        }
        layout.regions = regions;
        Ok(layout)
    }

    fn add_writable(&mut self, index: usize, region: &Region, present: &[Run]) {
        cut(region, present, LONGEST_HOLE, &mut self.pieces);
        cut(region, present, SHORTER_HOLE, &mut self.small_pieces);
        if !region.of_file() {
            return;
        }
        let touched: u64 = present.iter().map(Run::size).sum();
        if region.size() - touched.min(region.size()) > MOST_OF_FILE {
            return;
        }
        let mut start = region.start;
        let ends = present.iter().map(|run| (run.start, run.end));
        for (from, to) in ends.chain([(region.end, region.end)]) {
            if start < from {
                self.untouched.push((index, Run { start, end: from }));
            }
            start = to;
        }
    }

    /// Puts the contents of files where the process has not touched its mapping of them.
    pub fn fill_from_files(&self, pid: Pid, places: &Places) {
        let mut open = None;
        for (index, run) in &self.untouched {
            let Some(region) = self.regions.get(*index) else {
                continue;
            };
            if !matches!(&open, Some((known, _)) if known == index) {
                open = Some((*index, open_mapped(pid, region)));
            }
            let Some((_, Some(file))) = &open else {
                continue;
            };
            let Some(to) = places.of(*run) else {
                continue;
            };
            let mut bytes = vec![0; run.size() as usize];
            let offset = region.offset.saturating_add(run.start - region.start);
            let read = read_fully(file, &mut bytes, offset);
            // SAFETY: `run` is inside the reservation, whose memory starts at `to` there; no slice of it was made
            // yet and its copy is over, so nobody else reads or writes it. `read` is at most the length of both.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to as *mut u8, read) };
        }
    }
}

fn read_fully(file: &std::fs::File, into: &mut [u8], offset: u64) -> usize {
    let mut done = 0;
    while let Some(room) = into.get_mut(done..).filter(|room| !room.is_empty()) {
        match file.read_at(room, offset.saturating_add(done as u64)) {
            Ok(0) | Err(_) => break,
            Ok(read) => done += read,
        }
    }
    done
}

/// Adds `region` to `pieces` without its holes of at least `longest`.
fn cut(region: &Region, present: &[Run], longest: u64, pieces: &mut Vec<Run>) {
    let mut start = region.start;
    let mut last = region.start;
    for run in present {
        if run.start - last >= longest {
            if start < last {
                append(pieces, Run { start, end: last });
            }
            start = run.start;
        }
        last = run.end;
    }
    let end = if region.end - last >= longest {
        last
    } else {
        region.end
    };
    if start < end {
        append(pieces, Run { start, end });
    }
}

/// Our memory for a copy.
#[derive(Debug)]
pub struct Room {
    reservations: Vec<Arc<Reservation>>,
    scarce: bool,
}

/// Memory that one thread populates at a time.
const POPULATED: u64 = 32 << 20;

/// The parts of a run between multiples of [`POPULATED`], which huge pages do not straddle.
fn parts(run: Run) -> impl Iterator<Item = Run> {
    let mut start = run.start;
    std::iter::from_fn(move || {
        let end = run.end.min((start / POPULATED + 1) * POPULATED);
        let part = Run { start, end };
        start = end;
        (part.start < part.end).then_some(part)
    })
}

/// Populates with two threads where there are two processors: clearing pages is most of what a copy costs us.
fn populate(jobs: &[(&Reservation, Run, bool)]) -> io::Result<()> {
    let next = AtomicUsize::new(0);
    let work = || -> io::Result<()> {
        while let Some((reservation, run, huge)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            reservation.populate(*run, *huge)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let two = std::thread::available_parallelism().is_ok_and(|cpus| cpus.get() > 1);
        let other = (two && jobs.len() > 1).then(|| scope.spawn(work));
        let own = work();
        let other = other.map_or(Ok(()), |other| {
            other
                .join()
                .unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
        });
        own.and(other)
    })
}

impl Room {
    /// Makes it; fails when there is not enough memory.
    pub fn prepare(pid: Pid, layout: &Layout) -> Result<Room> {
        let headroom = headroom::here();
        let wide = clusters(&layout.pieces);
        let size = |runs: &[Run]| runs.iter().map(Run::size).sum::<u64>();
        let needed = size(&layout.present);
        let too_big = |left: u64, limit: &str| {
            let (needed, left) = (format_bytes(needed), format_bytes(left));
            Error::new(
                ErrorKind::Failed,
                format!("cannot copy process {pid}"),
                format!("its copy needs {needed} of memory, and {left} are {limit}"),
            )
            .hint("free memory or raise that limit; the process was not stopped")
        };
        if needed > headroom.memory {
            return Err(too_big(headroom.memory, headroom.limit));
        }
        let scarce = size(&wide) > headroom.addresses;
        let chosen = if scarce {
            layout.small_pieces.clone()
        } else {
            wide
        };
        let reserve = |run: &Run| Reservation::new(run.start, run.end).map(Arc::new);
        let short = |_| too_big(headroom.memory.min(headroom.addresses), headroom.limit);
        let reservations = chosen
            .iter()
            .map(reserve)
            .collect::<io::Result<Vec<_>>>()
            .map_err(short)?;
        let mut jobs: Vec<(&Reservation, Run, bool)> = Vec::new();
        for reservation in &reservations {
            let inside: Vec<Run> = layout
                .present
                .iter()
                .filter_map(|run| reservation.part(*run))
                .collect();
            for (run, huge) in population(&inside) {
                let parts = parts(run).map(|part| (&**reservation, part, huge));
                jobs.extend(parts);
            }
        }
        populate(&jobs).map_err(short)?;
        Ok(Room {
            reservations,
            scarce,
        })
    }

    /// The room for `layout`, which is what there is now: that made before, and more where that does not do.
    pub fn places(mut self, pid: Pid, layout: &mut Layout) -> Result<Places> {
        if self.scarce {
            std::mem::swap(&mut layout.pieces, &mut layout.small_pieces);
        }
        let mut places = Vec::with_capacity(layout.pieces.len());
        for piece in &layout.pieces {
            let known = self.reservations.iter().find(|known| known.holds(*piece));
            let place = match known {
                Some(known) => known.clone(),
                None => {
                    let new = Reservation::new(piece.start, piece.end)
                        .map_err(|error| failed(pid, format!("no memory for its copy: {error}")))?;
                    let new = Arc::new(new);
                    self.reservations.push(new.clone());
                    new
                }
            };
            places.push((*piece, place));
        }
        if places.is_empty() {
            return Err(ended(pid));
        }
        Ok(Places(places))
    }
}

/// What becomes spans, by address, and where each is copied to.
#[derive(Debug)]
pub struct Places(Vec<(Run, Arc<Reservation>)>);

impl Places {
    /// Of pieces that do not overlap, by address, each with a reservation that holds it.
    pub fn new(pieces: Vec<(Run, Reservation)>) -> Places {
        let shared = |(piece, place)| (piece, Arc::new(place));
        Places(pieces.into_iter().map(shared).collect())
    }

    /// Where the target's `run`, which is inside one of them, goes to.
    pub fn of(&self, run: Run) -> Option<usize> {
        let after = self
            .0
            .partition_point(|(piece, _)| piece.start <= run.start);
        let (piece, place) = self.0.get(after.checked_sub(1)?)?;
        if run.end > piece.end {
            return None;
        }
        place.place(run.start)
    }

    /// The spans, of memory that nobody writes to any more.
    ///
    /// # Safety
    ///
    /// All writing to what [`Places::of`] gave must be over.
    pub unsafe fn into_spans(self) -> Vec<Span> {
        let span = |(piece, place): (Run, Arc<Reservation>)| {
            // SAFETY: pieces do not overlap, and the caller promised that nobody writes to any of them.
            let slice = unsafe { Slice::new(&place, piece) }?;
            Some(Span::new(piece.start, slice))
        };
        self.0.into_iter().filter_map(span).collect()
    }
}

/// Pieces that are near each other, as one, each with [`SLACK`] on both sides.
fn clusters(pieces: &[Run]) -> Vec<Run> {
    let mut found: Vec<Run> = Vec::new();
    for piece in pieces {
        match found.last_mut() {
            Some(last) if piece.start - last.end <= 2 * SLACK => last.end = piece.end,
            _ => found.push(*piece),
        }
    }
    for run in &mut found {
        run.start = run.start.saturating_sub(SLACK);
        run.end = run.end.saturating_add(SLACK);
    }
    found
}
