//! Our own memory that copies of the target's go to: reserved by address, filled with pages before the target is
//! stopped. Copying into pages that are there already, and huge, is three times as fast.

use std::io;
use std::sync::Arc;

use super::pages::{Run, append};

/// Bytes of a huge page on x86-64; elsewhere a bound that does no harm.
const HUGE: u64 = 2 << 20;

/// A huge page is used where this much of it will be needed: three quarters.
const WORTH_HUGE: u64 = HUGE / 4 * 3;

/// Runs of small pages with less than this between them are made in one go.
const SMALL_GAP: u64 = 64 << 10;

/// `MADV_POPULATE_WRITE` (Linux 5.14).
const MADV_POPULATE_WRITE: libc::c_int = 23;

/// Room for the target's addresses `start..end`, all zero until it is written to.
#[derive(Debug)]
pub struct Reservation {
    /// What was mapped.
    mapped: (usize, usize),
    /// Where `start` is, the same in its huge page as in the target.
    base: usize,
    start: u64,
    end: u64,
}

impl Reservation {
    /// Reserves addresses, no memory.
    pub fn new(start: u64, end: u64) -> io::Result<Reservation> {
        let too_big = || io::Error::from(io::ErrorKind::OutOfMemory);
        let length = end
            .checked_sub(start)
            .and_then(|size| size.checked_add(2 * HUGE));
        let length = length
            .and_then(|length| usize::try_from(length).ok())
            .ok_or_else(too_big)?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new private mapping at an address of the kernel's choice touches nothing of ours.
        let mapped = unsafe { libc::mmap(std::ptr::null_mut(), length, access, flags, -1, 0) };
        if mapped == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mapped = mapped as usize;
        let base = mapped.next_multiple_of(HUGE as usize) + (start % HUGE) as usize;
        Ok(Reservation {
            mapped: (mapped, length),
            base,
            start,
            end,
        })
    }

    /// Whether `run` is in it.
    pub fn holds(&self, run: Run) -> bool {
        self.start <= run.start && run.end <= self.end && run.start <= run.end
    }

    /// The part of `run` that is in it.
    pub fn part(&self, run: Run) -> Option<Run> {
        let (start, end) = (run.start.max(self.start), run.end.min(self.end));
        (start < end).then_some(Run { start, end })
    }

    /// Where we have the target's address, which has to be in the reservation, up to its end.
    pub fn place(&self, address: u64) -> Option<usize> {
        let within = (self.start..=self.end).contains(&address);
        within.then(|| self.base + (address - self.start) as usize)
    }

    /// Gets memory for that part of one of [`population`]'s runs which is in here.
    pub fn populate(&self, run: Run, huge: bool) -> io::Result<()> {
        let Some(run) = self.part(run) else {
            return Ok(());
        };
        let place = self.base + (run.start - self.start) as usize;
        let length = run.size() as usize;
        let pointer = place as *mut libc::c_void;
        // SAFETY: `run` is inside this reservation, which is ours alone and lives as long as `self`; the advice
        // changes no bytes of it.
        let populated = unsafe {
            if huge {
                // Where there are none, small ones do.
                libc::madvise(pointer, length, libc::MADV_HUGEPAGE);
            }
            libc::madvise(pointer, length, MADV_POPULATE_WRITE)
        };
        if populated == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        // An older kernel: pages come as they are written to.
        if error.raw_os_error() == Some(libc::EINVAL) {
            return Ok(());
        }
        Err(error)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` mapped. Slices of it hold an `Arc`, so none is left.
        unsafe {
            libc::munmap(self.mapped.0 as *mut libc::c_void, self.mapped.1);
        }
    }
}

/// Which runs to populate for `present` pages, and whether with huge pages; none twice.
pub fn population(present: &[Run]) -> Vec<(Run, bool)> {
    let mut huge: Vec<Run> = Vec::new();
    let mut needed: Option<(u64, u64)> = None;
    let mut count = |block: u64, bytes: u64, last: bool| match &mut needed {
        Some((at, sum)) if *at == block => *sum += bytes,
        other => {
            if let Some((at, sum)) = other.take()
                && sum >= WORTH_HUGE
            {
                let start = at * HUGE;
                append(
                    &mut huge,
                    Run {
                        start,
                        end: start + HUGE,
                    },
                );
            }
            *other = (!last).then_some((block, bytes));
        }
    };
    for run in present {
        let mut start = run.start;
        while start < run.end {
            let end = (start / HUGE + 1) * HUGE;
            count(start / HUGE, end.min(run.end) - start, false);
            start = end;
        }
    }
    count(u64::MAX, 0, true);
    let mut all: Vec<(Run, bool)> = Vec::new();
    for (run, huge) in around(present, &huge) {
        match all.last_mut() {
            Some((last, false)) if !huge && run.start - last.end < SMALL_GAP => last.end = run.end,
            _ => all.push((run, huge)),
        }
    }
    all
}

/// The parts of `present` outside of `huge`, and `huge` itself, by address.
fn around(present: &[Run], huge: &[Run]) -> Vec<(Run, bool)> {
    let mut all: Vec<(Run, bool)> = huge.iter().map(|run| (*run, true)).collect();
    for run in present {
        let mut start = run.start;
        let first = huge.partition_point(|block| block.end <= run.start);
        for block in huge
            .iter()
            .skip(first)
            .take_while(|block| block.start < run.end)
        {
            if start < block.start {
                let end = block.start;
                all.push((Run { start, end }, false));
            }
            start = block.end;
        }
        if start < run.end {
            all.push((
                Run {
                    start,
                    end: run.end,
                },
                false,
            ));
        }
    }
    all.sort_unstable_by_key(|(run, _)| run.start);
    all
}

/// Part of a reservation that nobody writes to any more.
#[derive(Debug, Clone)]
pub struct Slice {
    whole: Arc<Reservation>,
    place: usize,
    length: usize,
}

impl Slice {
    /// The part `run`; `None` where it is outside.
    ///
    /// # Safety
    ///
    /// Nothing may write to that part of the reservation's memory from now on.
    pub unsafe fn new(whole: &Arc<Reservation>, run: Run) -> Option<Slice> {
        let place = whole.place(run.start).filter(|_| whole.holds(run))?;
        Some(Slice {
            whole: whole.clone(),
            place,
            length: run.size() as usize,
        })
    }
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        debug_assert!(self.place >= self.whole.mapped.0);
        // SAFETY: `place` and `length` are inside the reservation (`new` checked it), which is mapped readable and
        // lives as long as `whole` is held, so as long as the answer's borrow. Every page of it is zero or was
        // written by the kernel, and `new`'s caller promised that nothing writes to it now.
        unsafe { std::slice::from_raw_parts(self.place as *const u8, self.length) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huge_pages_only_where_they_are_needed() {
        let run = |start: u64, end: u64| Run { start, end };
        let mega = 1 << 20;
        assert_eq!(population(&[]), []);
        // A stack with one page, an arena of 5 MiB, and one page near it.
        let present = [
            run(0x1000, 0x2000),
            run(8 * mega, 13 * mega),
            run(13 * mega + 0x2000, 13 * mega + 0x3000),
        ];
        let expected = [
            (run(0x1000, 0x2000), false),
            (run(8 * mega, 12 * mega), true),
            (run(12 * mega, 13 * mega + 0x3000), false),
        ];
        assert_eq!(population(&present), expected);
    }

    #[test]
    fn what_is_written_is_read_at_its_address() {
        let start = 0x7f00_0012_3000;
        let whole = Arc::new(Reservation::new(start, start + 0x10_0000).expect("room"));
        let run = |from: u64, to: u64| Run {
            start: start + from,
            end: start + to,
        };
        whole.populate(run(0, 0x10_0000), true).expect("memory");
        let place = whole.place(start + 0x5000).expect("inside");
        // SAFETY: inside the reservation, of which no slice is made yet.
        unsafe { (place as *mut u8).write(7) };
        // SAFETY: nobody writes any more.
        let slice = unsafe { Slice::new(&whole, run(0x4000, 0x6000)) }.expect("inside");
        assert_eq!((slice.as_ref().len(), slice.as_ref()[0x1000]), (0x2000, 7));
        // SAFETY: as above.
        assert!(unsafe { Slice::new(&whole, run(0x4000, 0x10_1000)) }.is_none());
        assert_eq!(whole.place(start - 1), None);
    }
}
