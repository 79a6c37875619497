//! The ring of memory in which the kernel puts a thread's events (perf_event_open(2), "MMAP layout").

use std::fs::File;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use perf_event_open_sys::bindings::{
    PERF_RECORD_LOST, PERF_RECORD_MISC_SWITCH_OUT, PERF_RECORD_MISC_SWITCH_OUT_PREEMPT,
    PERF_RECORD_SAMPLE, PERF_RECORD_SWITCH, perf_event_mmap_page,
};

/// Size of a page (x86-64).
const PAGE: usize = 4096;

/// Pages of events where nobody wants more: a power of two. A hit takes 32 bytes.
pub const PAGES: usize = 8;

/// Bytes of events.
const SIZE: usize = PAGES * PAGE;

/// Half of that.
pub const HALF: usize = SIZE / 2;

/// What the kernel wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record {
    /// An event's sample.
    Sample {
        /// Which event.
        id: u64,
        /// Nanoseconds.
        at_ns: u64,
        /// The instruction pointer.
        instruction: u64,
    },
    /// The thread came onto a CPU.
    In {
        /// Nanoseconds.
        at_ns: u64,
    },
    /// The thread left it.
    Out {
        /// Nanoseconds.
        at_ns: u64,
        /// Whether it could have gone on: it was another one's turn.
        ready: bool,
    },
    /// There was no room for more.
    Lost,
}

/// The ring; unmapped when dropped.
#[derive(Debug)]
pub struct Ring {
    /// Bytes of events: a power of two.
    size: usize,
    page: NonNull<perf_event_mmap_page>,
}

// SAFETY: the mapping belongs to the process, not to a thread, and is only read and written through `&mut self`.
unsafe impl Send for Ring {}

impl Ring {
    /// That of an event, which has none yet.
    pub fn of(event: &File, pages: usize) -> Option<Ring> {
        let size = pages.next_power_of_two() * PAGE;
        // SAFETY: a new mapping at an address that the kernel chooses.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                PAGE + size,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                event.as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return None;
        }
        Some(Ring {
            size,
            page: NonNull::new(address.cast())?,
        })
    }

    /// How far the kernel has written: the same as before means that nothing has happened since.
    pub fn head(&self) -> u64 {
        let page = self.page.as_ptr();
        // SAFETY: the word is inside the first page of our mapping and aligned; the kernel writes it while we read it, so it is
        // taken as an atomic.
        let head = unsafe { AtomicU64::from_ptr(&raw mut (*page).data_head) };
        head.load(Ordering::Acquire)
    }

    /// Hands over all records since the last call.
    pub fn take(&mut self, mut each: impl FnMut(Record)) {
        let page = self.page.as_ptr();
        // SAFETY: both words are inside the first page of our mapping and aligned; the kernel writes `data_head` while we
        // read it, so both are taken as atomics.
        let (head, tail) = unsafe {
            (
                AtomicU64::from_ptr(&raw mut (*page).data_head),
                AtomicU64::from_ptr(&raw mut (*page).data_tail),
            )
        };
        let end = head.load(Ordering::Acquire);
        let mut at = tail.load(Ordering::Relaxed);
        while end.wrapping_sub(at) >= 8 && end.wrapping_sub(at) <= self.size as u64 {
            let head = self.word(at);
            let (kind, misc, size) = (head as u32, (head >> 32) as u16, head >> 48);
            if size < 8 || size > end.wrapping_sub(at) {
                break;
            }
            let word = |index: u64| self.word(at.wrapping_add(8 * index));
            let last = size / 8 - 1;
            // The trailer of records that are no samples: time, identifier.
            let trailer_ns = || word(last.saturating_sub(1));
            if kind == PERF_RECORD_SAMPLE && size >= 32 {
                each(Record::Sample {
                    id: word(1),
                    instruction: word(2),
                    at_ns: word(3),
                });
            } else if kind == PERF_RECORD_SWITCH && size >= 24 {
                let at_ns = trailer_ns();
                each(match misc & PERF_RECORD_MISC_SWITCH_OUT as u16 {
                    0 => Record::In { at_ns },
                    _ => Record::Out {
                        at_ns,
                        ready: misc & PERF_RECORD_MISC_SWITCH_OUT_PREEMPT as u16 != 0,
                    },
                });
            } else if kind == PERF_RECORD_LOST {
                each(Record::Lost);
            }
            at = at.wrapping_add(size);
        }
        tail.store(end, Ordering::Release);
    }

    /// The word at a position; records are multiples of 8 bytes, so none is cut at the end of the ring.
    fn word(&self, at: u64) -> u64 {
        let offset = PAGE + (at as usize & (self.size - 8));
        // SAFETY: `offset` is a multiple of 8 of at most PAGE + size - 8, inside of the mapping. The kernel does not write
        // there before `data_tail` has passed it.
        unsafe { self.page.as_ptr().byte_add(offset).cast::<u64>().read() }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the mapping that `of` made, which nobody else knows.
        unsafe { libc::munmap(self.page.as_ptr().cast(), PAGE + self.size) };
    }
}
