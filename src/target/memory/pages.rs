//! Which pages of a process exist: `/proc/PID/pagemap` (Documentation/admin-guide/mm/pagemap.rst).
//!
//! Pages that a process never touched must not be read: that maps a page of zeros into the target, where its page
//! tables grow by it.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use crate::target::maps::Region;
use crate::units::Pid;

/// Bytes of a page. Targets with larger pages are of other architectures.
pub const PAGE: u64 = 4096;

/// Addresses `start..end`, whole pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
}

impl Run {
    /// Bytes.
    pub fn size(&self) -> u64 {
        self.end - self.start
    }
}

/// Adds `run` to runs in the order of their addresses; those that touch become one.
pub fn append(runs: &mut Vec<Run>, run: Run) {
    match runs.last_mut() {
        Some(last) if last.end == run.start => last.end = run.end,
        _ => runs.push(run),
    }
}

/// `PAGEMAP_SCAN`, Linux 6.7 and newer: `_IOWR('f', 16, struct pm_scan_arg)` (include/uapi/linux/fs.h).
const PAGEMAP_SCAN: u64 = 0xc060_6610;
const PAGE_IS_FILE: u64 = 1 << 2;
const PAGE_IS_PRESENT: u64 = 1 << 3;
const PAGE_IS_SWAPPED: u64 = 1 << 4;
const PAGE_IS_PFNZERO: u64 = 1 << 5;

/// `struct pm_scan_arg`.
#[repr(C)]
#[derive(Default)]
struct ScanArguments {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// `struct page_region`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct PageRegion {
    start: u64,
    end: u64,
    categories: u64,
}

/// Runs that one `PAGEMAP_SCAN` gives.
const SCAN_RUNS: usize = 4096;

/// Pages that are looked up in one read where there is no `PAGEMAP_SCAN`.
const READ_PAGES: u64 = 8192;

/// Bits of a word of the file.
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const OF_FILE: u64 = 1 << 61;
const EXCLUSIVE: u64 = 1 << 56;
const FRAME: u64 = (1 << 55) - 1;

/// The pages of one process.
#[derive(Debug)]
pub struct Pages {
    file: File,
    found: Vec<PageRegion>,
    can_scan: bool,
}

impl Pages {
    /// Those of `pid`.
    pub fn open(pid: Pid) -> io::Result<Pages> {
        Ok(Pages {
            file: File::open(format!("/proc/{pid}/pagemap"))?,
            found: vec![PageRegion::default(); SCAN_RUNS],
            can_scan: true,
        })
    }

    /// Adds to `runs` the pages of `region` that are resident or swapped out; of memory that is not writable only
    /// those that are the process's own, and not its file's any more.
    pub fn present(&mut self, region: &Region, runs: &mut Vec<Run>) -> io::Result<()> {
        let own = !region.writable();
        if self.can_scan {
            match self.scan(region, own, PAGE_IS_PRESENT | PAGE_IS_SWAPPED, runs) {
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTTY | libc::EINVAL)) => {
                    self.can_scan = false;
                }
                other => return other,
            }
        }
        self.look_up(region, own, runs)
    }

    /// The pages of `runs` that are no file's and that other processes map too: what a fork left shared.
    pub fn shared(&self, runs: &[Run]) -> io::Result<Vec<Run>> {
        let mut found = Vec::new();
        for run in runs {
            self.each_word(*run, |at, word| {
                if word & (PRESENT | OF_FILE | EXCLUSIVE) == PRESENT {
                    append(
                        &mut found,
                        Run {
                            start: at,
                            end: at + PAGE,
                        },
                    );
                }
            })?;
        }
        Ok(found)
    }

    /// Gives `take` the number of the page frame of each resident page of `region`, all pages of zeros left out where the
    /// kernel can tell them. False when it hides the numbers: that takes CAP_SYS_ADMIN.
    pub fn frames(&mut self, region: &Region, take: &mut dyn FnMut(u64)) -> io::Result<bool> {
        let mut runs = Vec::new();
        let whole = Run {
            start: region.start,
            end: region.end,
        };
        let scanned = self
            .can_scan
            .then(|| self.scan(region, false, PAGE_IS_PRESENT, &mut runs));
        match scanned {
            Some(Err(error))
                if matches!(error.raw_os_error(), Some(libc::ENOTTY | libc::EINVAL)) =>
            {
                self.can_scan = false;
                runs = vec![whole];
            }
            Some(other) => other?,
            None => runs.push(whole),
        }
        let mut are_known = true;
        for run in runs {
            self.each_word(run, |_, word| {
                if word & PRESENT != 0 {
                    let frame = word & FRAME;
                    are_known &= frame != 0;
                    take(frame);
                }
            })?;
        }
        Ok(are_known)
    }

    fn scan(
        &mut self,
        region: &Region,
        own: bool,
        anyof: u64,
        runs: &mut Vec<Run>,
    ) -> io::Result<()> {
        let file = if own { PAGE_IS_FILE } else { 0 };
        let mut start = region.start;
        while start < region.end {
            let mut arguments = ScanArguments {
                size: size_of::<ScanArguments>() as u64,
                start,
                end: region.end,
                vec: self.found.as_mut_ptr() as u64,
                vec_len: self.found.len() as u64,
                // The page of zeros needs no copy.
                category_inverted: PAGE_IS_PFNZERO | file,
                category_mask: PAGE_IS_PFNZERO | file,
                category_anyof_mask: anyof,
                return_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
                ..ScanArguments::default()
            };
            // SAFETY: the kernel reads and writes one `pm_scan_arg`, which `arguments` is (repr(C), the same
            // fields, its size said in it), and writes at most `vec_len` elements of `page_region` to `vec`, which
            // is `found`, borrowed for writing and as long as that.
            let count = unsafe {
                libc::ioctl(self.file.as_raw_fd(), PAGEMAP_SCAN as _, &raw mut arguments)
            };
            let Ok(count) = usize::try_from(count) else {
                return Err(io::Error::last_os_error());
            };
            let mut done = start;
            for found in self.found.get(..count).unwrap_or_default() {
                let (from, to) = (found.start.max(done), found.end.min(region.end));
                done = done.max(to);
                if from < to {
                    append(
                        runs,
                        Run {
                            start: from,
                            end: to,
                        },
                    );
                }
            }
            // `walk_end` is where the kernel's own room for 512 runs was full for the last time, also after it went on
            // from there to the end (fs/proc/task_mmu.c of 6.18, pagemap_scan_backout_range).
            done = done.max(arguments.walk_end);
            if count < self.found.len() || done <= start {
                return Ok(());
            }
            start = done;
        }
        Ok(())
    }

    fn look_up(&mut self, region: &Region, own: bool, runs: &mut Vec<Run>) -> io::Result<()> {
        let whole = Run {
            start: region.start,
            end: region.end,
        };
        self.each_word(whole, |at, word| {
            let wanted = if own {
                word & SWAPPED != 0 || word & (PRESENT | OF_FILE) == PRESENT
            } else {
                word & (PRESENT | SWAPPED) != 0
            };
            if wanted {
                append(
                    runs,
                    Run {
                        start: at,
                        end: at + PAGE,
                    },
                );
            }
        })
    }

    /// Gives `each` the address of every page of `run` and its word in the file.
    fn each_word(&self, run: Run, mut each: impl FnMut(u64, u64)) -> io::Result<()> {
        let mut bytes = vec![0; (run.size() / PAGE).min(READ_PAGES) as usize * 8];
        let mut start = run.start;
        while start < run.end {
            let pages = ((run.end - start) / PAGE).min(READ_PAGES);
            let Some(room) = bytes.get_mut(..pages as usize * 8).filter(|_| pages > 0) else {
                return Ok(());
            };
            let read = self.file.read_at(room, start / PAGE * 8)?;
            let words = room.get(..read).unwrap_or_default().chunks_exact(8);
            for (index, word) in words.enumerate() {
                let word = word.try_into().map_or(0, u64::from_ne_bytes);
                each(start + index as u64 * PAGE, word);
            }
            if read < 8 {
                return Ok(());
            }
            start += read as u64 / 8 * PAGE;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::maps;

    #[test]
    fn both_ways_find_the_pages_that_were_touched() {
        let length = 64 * PAGE as usize;
        let nothing = std::ptr::null_mut();
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base = unsafe {
            libc::mmap(
                nothing,
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                flags,
                -1,
                0,
            )
        };
        assert_ne!(base, libc::MAP_FAILED);
        for page in [3, 4, 9] {
            // SAFETY: within the mapping.
            unsafe {
                base.cast::<u8>()
                    .add(page * PAGE as usize)
                    .write_volatile(1)
            };
        }
        let start = base as u64;
        let mut region = maps::Region {
            start,
            end: start + length as u64,
            ..maps::Region::default()
        };
        let run = |from: u64, to: u64| Run {
            start: start + from * PAGE,
            end: start + to * PAGE,
        };
        both_find(&mut region, &[run(3, 5), run(9, 10)]);
        // SAFETY: mapped above, not used any more.
        unsafe { libc::munmap(base, length) };
    }

    /// More runs than the kernel keeps at a time (512), and than one call gives.
    #[test]
    fn a_mapping_of_many_runs_is_listed_once() {
        for count in [600, 5000] {
            let length = 2 * count * PAGE as usize;
            let nothing = std::ptr::null_mut();
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let writable = libc::PROT_READ | libc::PROT_WRITE;
            // SAFETY: a new mapping at an address of the kernel's choice.
            let base = unsafe { libc::mmap(nothing, length, writable, flags, -1, 0) };
            assert_ne!(base, libc::MAP_FAILED);
            // SAFETY: the mapping that was just made.
            unsafe { libc::madvise(base, length, libc::MADV_NOHUGEPAGE) };
            let start = base as u64;
            let mut expected = Vec::new();
            for page in (0..2 * count).step_by(2) {
                // SAFETY: within the mapping.
                unsafe {
                    base.cast::<u8>()
                        .add(page * PAGE as usize)
                        .write_volatile(1)
                };
                let at = start + page as u64 * PAGE;
                expected.push(Run {
                    start: at,
                    end: at + PAGE,
                });
            }
            let mut region = maps::Region {
                start,
                end: start + length as u64,
                ..maps::Region::default()
            };
            both_find(&mut region, &expected);
            // SAFETY: mapped above, not used any more.
            unsafe { libc::munmap(base, length) };
        }
    }

    fn both_find(region: &mut maps::Region, expected: &[Run]) {
        let me = Pid(std::process::id() as i32);
        for permissions in [*b"rw-p", *b"r--p"] {
            region.permissions = permissions;
            for can_scan in [true, false] {
                let mut pages = Pages::open(me).expect("our own");
                pages.can_scan = can_scan;
                let mut runs = Vec::new();
                pages.present(region, &mut runs).expect("read");
                assert_eq!(runs, expected, "{can_scan}");
            }
        }
    }
}
