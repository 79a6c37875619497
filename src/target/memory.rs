//! Memory of a process that goes on running: single and vectored reads (process_vm_readv(2)).
//!
//! Nothing is assumed of what is read; a read that fails part-way says how far it got.

pub mod constants;
pub mod copy;
pub mod core;
pub mod headroom;
pub mod moment;
pub mod pages;
mod refusals;
mod reserve;
mod room;
pub mod stopped;

use std::time::Duration;

use rustc_hash::FxHashSet;

use super::process;
use crate::units::{Pid, Tid};
use stopped::{Guard, Refusal};

/// Most ranges that the kernel takes in one call (UIO_MAXIOV).
pub const MOST_RANGES: usize = 1024;

/// Why memory could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// Nothing is mapped there.
    Nowhere,
    /// The process is gone.
    Gone,
    /// The kernel does not allow it.
    Denied,
}

/// A range of the target's memory. The same layout as the kernel's `struct iovec`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Range {
    /// First byte.
    pub address: usize,
    /// Bytes.
    pub length: usize,
}

/// Something that holds a process's memory.
pub trait Memory {
    /// Fills `into` from `address`, or fails.
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Unreadable>;

    /// Copies `ranges` one after the other to the start of `into`, in one system call for every
    /// [`MOST_RANGES`] of them; gives the number of bytes copied, which is less than all of them where a range
    /// is not mapped.
    fn read_ranges(&self, ranges: &[Range], into: &mut [u8]) -> Result<usize, Unreadable>;

    /// The word at `address`.
    fn read_word(&self, address: u64) -> Result<u64, Unreadable> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    /// Whether [`Memory::read`] gives so much at this address from a copy that was taken before.
    fn is_copy(&self, _address: u64, _length: usize) -> bool {
        false
    }

    /// Reads as [`Memory::read`] does, but never from a copy that was taken before.
    fn read_now(&self, address: u64, into: &mut [u8]) -> Result<(), Unreadable> {
        self.read(address, into)
    }
}

/// The memory of a running process.
#[derive(Debug, Clone, Copy)]
pub struct Live {
    pid: Pid,
}

impl Live {
    /// The memory of `pid`.
    pub fn new(pid: Pid) -> Live {
        Live { pid }
    }
}

impl Memory for Live {
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Unreadable> {
        let range = Range {
            address: usize::try_from(address).map_err(|_| Unreadable::Nowhere)?,
            length: into.len(),
        };
        let copied = self.read_ranges(&[range], into)?;
        if copied == into.len() {
            Ok(())
        } else {
            Err(Unreadable::Nowhere)
        }
    }

    fn read_ranges(&self, ranges: &[Range], into: &mut [u8]) -> Result<usize, Unreadable> {
        let mut done = 0;
        for batch in ranges.chunks(MOST_RANGES) {
            let wanted: usize = batch.iter().map(|range| range.length).sum();
            let Some(room) = into.get_mut(done..).filter(|room| room.len() >= wanted) else {
                return Ok(done);
            };
            let local = libc::iovec {
                iov_base: room.as_mut_ptr().cast(),
                iov_len: wanted,
            };
            // SAFETY: `local` names `wanted` bytes of `room`, which is borrowed for writing and at least that
            // long. `batch` has the layout of `struct iovec` (repr(C): address, length); the kernel only reads
            // the array, and takes its addresses as the other process's, so that no address in it can touch
            // our memory.
            let copied = unsafe {
                libc::process_vm_readv(
                    self.pid.0,
                    &raw const local,
                    1,
                    batch.as_ptr().cast(),
                    batch.len() as libc::c_ulong,
                    0,
                )
            };
            match usize::try_from(copied) {
                Ok(copied) => {
                    done += copied;
                    if copied < wanted {
                        return Ok(done);
                    }
                }
                Err(_) => {
                    return match std::io::Error::last_os_error().raw_os_error() {
                        Some(libc::ESRCH) => Err(Unreadable::Gone),
                        Some(libc::EPERM) => Err(Unreadable::Denied),
                        _ if done > 0 => Ok(done),
                        _ => Err(Unreadable::Nowhere),
                    };
                }
            }
        }
        Ok(done)
    }
}

/// Keeps threads of a process stopped until it is dropped.
#[derive(Debug)]
pub struct Stopped {
    guard: Option<Guard>,
}

impl Stopped {
    /// The threads that stand still; `None` where all of them do, by somebody else's doing.
    pub fn threads(&self) -> Option<FxHashSet<Tid>> {
        let guard = self.guard.as_ref()?;
        Some(guard.threads().collect())
    }
}

/// How often it is tried to stop a process before that counts as forbidden, and the pause between tries.
const HOLD_ATTEMPTS: usize = 4;
const HOLD_PAUSE: Duration = Duration::from_micros(500);

/// Stops processes.
#[derive(Debug)]
pub struct Stopper {
    pid: Pid,
}

impl Stopper {
    /// For the process `pid`.
    pub fn new(pid: Pid) -> Option<Stopper> {
        process::is_alive(pid).then_some(Stopper { pid })
    }

    /// Stops all its threads until the answer is dropped; `None` when that is not possible. A process that
    /// someone else has stopped stands still anyway, and is left as it is.
    pub fn stop(&self) -> Option<Stopped> {
        self.hold(Guard::all)
    }

    /// The same for some of its threads.
    pub fn stop_some(&self, tids: &[Tid]) -> Option<Stopped> {
        self.hold(|pid| Guard::some(pid, tids))
    }

    fn hold(&self, stop: impl Fn(Pid) -> Result<Guard, Refusal>) -> Option<Stopped> {
        for attempt in 0..HOLD_ATTEMPTS {
            if attempt > 0 {
                // Another tracer may hold it for a moment.
                std::thread::sleep(HOLD_PAUSE);
            }
            if process::stat(self.pid)?.state == 'T' {
                return Some(Stopped { guard: None });
            }
            if let Ok(guard) = stop(self.pid) {
                return Some(Stopped { guard: Some(guard) });
            }
        }
        None
    }
}

/// Text up to a NUL at `address`, at most `limit` bytes of it.
pub fn read_c_string(memory: &impl Memory, address: u64, limit: usize) -> Option<String> {
    let mut text = Vec::new();
    // Not beyond a page at a time: the next one may not be mapped.
    let mut next = address;
    while text.len() < limit {
        let in_page = 4096 - usize::try_from(next % 4096).ok()?;
        let mut piece = vec![0; in_page.min(64).min(limit - text.len())];
        memory.read(next, &mut piece).ok()?;
        if let Some(end) = piece.iter().position(|byte| *byte == 0) {
            text.extend_from_slice(&piece[..end]);
            break;
        }
        next = next.checked_add(piece.len() as u64)?;
        text.extend_from_slice(&piece);
    }
    Some(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_memory_is_read_and_holes_are_told() {
        let me = Live::new(Pid(std::process::id() as i32));
        let text = *b"a known text\0";
        let range = |address: usize| Range { address, length: 5 };
        let mut into = [0; 10];
        let ranges = [range(text.as_ptr() as usize), range(8)];
        assert_eq!(me.read_ranges(&ranges, &mut into), Ok(5));
        assert_eq!(&into[..5], b"a kno");
        assert_eq!(me.read_word(8), Err(Unreadable::Nowhere));
        let found = read_c_string(&me, text.as_ptr() as u64, 100);
        assert_eq!(found.as_deref(), Some("a known text"));
    }
}
