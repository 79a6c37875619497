//! What a process has mapped and never writes to: names and tables in the read-only parts of its binaries.
//!
//! Read from the process while it lives, page by page as needed; from the mapped files when it has ended.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::sync::{Mutex, PoisonError};

use rustc_hash::FxHashMap;

use super::pages::PAGE;
use super::{Live, Memory};
use crate::target::image::Constants;
use crate::target::maps::Region;
use crate::units::Pid;

/// Pages that are kept: 16 MB.
const MOST_PAGES: usize = 4096;

/// Files that are kept open.
const MOST_FILES: usize = 128;

/// The mappings' file: by the kernel's own link to it where we may use that, else by its path, if that still leads to
/// the same file. Never a device or a pipe.
pub fn open_mapped(pid: Pid, region: &Region) -> Option<File> {
    if !region.of_file() {
        return None;
    }
    let (start, end) = (region.start, region.end);
    let paths = [
        format!("/proc/{pid}/map_files/{start:x}-{end:x}"),
        format!("/proc/{pid}/root{}", region.name),
    ];
    paths.into_iter().find_map(|path| {
        let is_it = |data: &fs::Metadata| data.is_file() && data.ino() == region.inode;
        fs::metadata(&path).ok().filter(is_it)?;
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
        let file = File::options()
            .read(true)
            .custom_flags(flags)
            .open(&path)
            .ok()?;
        file.metadata().ok().filter(is_it)?;
        Some(file)
    })
}

/// Inode and device, which the regions of one file have in common.
pub type FileId = (u64, String);

/// The read-only memory of a process.
#[derive(Debug)]
pub struct Unwritten {
    /// `None` for a process that is no more.
    memory: Option<Live>,
    regions: Vec<Region>,
    /// By inode and device of their regions.
    files: Vec<(FileId, File)>,
    cache: Mutex<FxHashMap<u64, Box<[u8]>>>,
}

impl Unwritten {
    /// That of `pid`, which has `regions` mapped.
    pub fn new(pid: Pid, regions: &[Region]) -> Unwritten {
        let unwritten = |region: &&Region| {
            region.readable() && !region.writable() && region.private() && !region.special()
        };
        let regions: Vec<Region> = regions.iter().filter(unwritten).cloned().collect();
        let mut files: Vec<(FileId, File)> = Vec::new();
        for region in &regions {
            if files.len() == MOST_FILES {
                break;
            }
            let key = (region.inode, region.device.clone());
            if files.iter().all(|(known, _)| *known != key)
                && let Some(file) = open_mapped(pid, region)
            {
                files.push((key, file));
            }
        }
        Unwritten {
            memory: Some(Live::new(pid)),
            regions,
            files,
            cache: Mutex::default(),
        }
    }

    /// That of a process that is no more: what `files` have at `regions`, which are in the order of their addresses.
    pub fn of_files(regions: Vec<Region>, files: Vec<(FileId, File)>) -> Unwritten {
        Unwritten {
            memory: None,
            regions,
            files,
            cache: Mutex::default(),
        }
    }

    fn region(&self, address: u64) -> Option<&Region> {
        let after = self
            .regions
            .partition_point(|region| region.start <= address);
        let region = self.regions.get(after.checked_sub(1)?)?;
        region.holds(address).then_some(region)
    }

    /// The page at `start`, a multiple of its size.
    fn page(&self, start: u64) -> Option<Box<[u8]>> {
        let region = self.region(start)?;
        let mut bytes = vec![0; PAGE as usize].into_boxed_slice();
        let read = |memory: &Live| memory.read(start, &mut bytes).is_ok();
        if self.memory.as_ref().is_some_and(read) {
            return Some(bytes);
        }
        let is_it = |key: &FileId| key.0 == region.inode && key.1 == region.device;
        let (_, file) = self.files.iter().find(|(key, _)| is_it(key))?;
        let at = region.offset.checked_add(start - region.start)?;
        // Beyond the end of the file the last page is zero.
        let read = file.read_at(&mut bytes, at).ok()?;
        (read > 0).then_some(bytes)
    }
}

impl Constants for Unwritten {
    fn read(&self, address: u64, into: &mut [u8]) -> bool {
        let Some(end) = address.checked_add(into.len() as u64) else {
            return false;
        };
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let mut at = address;
        while at < end {
            let start = at / PAGE * PAGE;
            if !cache.contains_key(&start) {
                let Some(page) = self.page(start) else {
                    return false;
                };
                if cache.len() >= MOST_PAGES {
                    cache.clear();
                }
                cache.insert(start, page);
            }
            let to = end.min(start + PAGE);
            let from = (at - start) as usize..(to - start) as usize;
            let done = (at - address) as usize..(to - address) as usize;
            let (Some(bytes), Some(room)) = (
                cache.get(&start).and_then(|page| page.get(from)),
                into.get_mut(done),
            ) else {
                return false;
            };
            room.copy_from_slice(bytes);
            at = to;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::maps;

    static TEXT: &str = "constants are read from the process and from its file alike";

    #[test]
    fn the_process_and_its_files_say_the_same() {
        let me = Pid(std::process::id() as i32);
        let mut unwritten = Unwritten::new(me, &maps::regions(me).expect("maps"));
        let address = TEXT.as_ptr() as u64;
        for pid in [me, Pid(i32::MAX - 1)] {
            unwritten.memory = Some(Live::new(pid));
            unwritten.cache = Mutex::default();
            let mut into = vec![0; TEXT.len()];
            assert!(unwritten.read(address, &mut into), "{pid}");
            assert_eq!(into, TEXT.as_bytes());
        }
        assert!(!unwritten.read(8, &mut [0; 4]));
        assert!(!unwritten.read(u64::MAX - 1, &mut [0; 4]));
        let region = unwritten.region(address).expect("mapped").clone();
        assert!(region.holds(address) && open_mapped(me, &region).is_some());
    }
}
