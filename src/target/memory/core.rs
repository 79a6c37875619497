//! Core files: what a process's memory was when it died, or when gcore(1) looked (core(5); System V gABI chapters 4
//! and 5; notes as in include/uapi/linux/elfcore.h and fs/binfmt_elf.c).
//!
//! Memory that showed an unchanged file is not in a core; it is read from the file where that is still the one that
//! was mapped, which its first page, build id included, tells.

mod builds;
mod missing;
mod notes;
mod remains;

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::SystemTime;

use super::constants::{FileId, Unwritten};
use super::copy::Report;
use super::headroom;
use super::moment::{HeapState, Signs};
use super::pages::{PAGE, Run, append};
use super::reserve::Reservation;
use super::room::Places;
use super::{Memory, Range, Unreadable};
use crate::error::{Error, ErrorKind, Result};
use crate::layout::{int, word};
use crate::target::image::{Captured, Dead, DeadThread, Held, Image, Mapping, ThreadName};
use crate::target::maps::{self, Region};
use crate::target::{process, runtime};
use crate::units::{Pid, format_bytes, printable};
use notes::{Mapped, Notes};

/// Machine of the ELF header: x86-64 or AArch64.
const MACHINE: u16 = if cfg!(target_arch = "x86_64") {
    62
} else {
    183
};

const ET_CORE: u16 = 4;
const PT_LOAD: i32 = 1;
const PT_NOTE: i32 = 4;

/// More segments mean that their number stands in the first section's `sh_info`.
const PN_XNUM: u16 = 0xffff;

/// Segments that are read, and bytes of notes: 1,000 threads have 5 MB.
const MOST_SEGMENTS: u64 = 1 << 20;
const MOST_NOTES: u64 = 256 << 20;

/// Files that are opened.
const MOST_FILES: usize = 512;

/// What to do about a core file that was cut short.
pub const WHOLE_CORE: &str = "a limit on core files or a full disk cuts them: ulimit -c unlimited before the program starts, or gcore PID while it runs, makes a whole one";

/// Bytes of one read.
const CHUNK: usize = 1 << 20;

/// Whether `head`, a file's first bytes, is that of a core.
pub fn is_core(head: &[u8]) -> bool {
    head.starts_with(b"\x7fELF") && half(head, 16) == Some(ET_CORE)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(
        bytes.get(at..at.checked_add(2)?)?.try_into().ok()?,
    ))
}

/// A program header.
#[derive(Debug, Clone, Copy)]
struct Segment {
    kind: i32,
    flags: i32,
    offset: u64,
    address: u64,
    file_size: u64,
    memory_size: u64,
    /// How much of `file_size` the file ends before.
    missing: u64,
}

/// A core file that is being read.
struct Core<'a> {
    path: &'a Path,
    file: File,
    length: u64,
}

/// Reads the core file `path`.
pub fn read(path: &Path) -> Result<(Captured, Report)> {
    let core = Core::open(path)?;
    let segments = core.segments()?;
    let notes = core.notes(&segments)?;
    let mut loads: Vec<Segment> = loads(&segments);
    core.cut(&mut loads);
    let spans = core.memory(&loads)?;
    let regions = regions(&loads, &notes.files);
    // SAFETY: `memory` has read all there is, and nobody else knows these reservations.
    let image = Image::new(unsafe { spans.into_spans() }, None);
    let (files, replaced) = open_files(&image, &regions, core.taken_at());
    // What was there and is cut off may have been written to: the file does not tell what it was.
    let is_whole = |region: &&Region| {
        let cut = |load: &&Segment| load.missing > 0 && region.holds(load.address);
        !loads.iter().any(|load| cut(&load))
    };
    let unwritten: Vec<Region> = regions.iter().filter(is_whole).cloned().collect();
    let image = image.with_constants(Box::new(Unwritten::of_files(unwritten, files)));
    let missing: u64 = loads.iter().map(|load| load.missing).sum();
    let found = runtime::find_in(&&image, &regions, None);
    let remains = match missing {
        0 => None,
        _ => remains::find(&image, &regions),
    };
    let type_type = remains.as_ref().map(|remains| remains.type_type);
    let (rest, image) = match remains {
        Some(rest) => {
            let image = image.with_spans(rest.types).and_constants(rest.constants);
            (Some(rest.runtime), image)
        }
        None => (None, image),
    };
    let runtime = match found.or(rest) {
        Some(runtime) => runtime,
        None if missing > 0 || notes.is_cut => return Err(core.truncated(missing)),
        None => return Err(core.no_python(&image, &notes, &regions, &replaced)),
    };
    let memory = &image;
    let moment = Signs::find(&memory, &runtime)
        .and_then(|signs| signs.read(&memory).ok())
        .unwrap_or(HeapState::Unknown);
    let dead = Dead {
        caveats: core.caveats(&image, &loads, &notes, &regions, &replaced),
        missing,
        type_type,
        threads: notes.threads.clone(),
        regions,
    };
    let report = Report {
        moment,
        stops: 0,
        copied: loads.iter().map(|load| load.file_size).sum(),
        unreadable: missing,
    };
    let captured = Captured {
        runtime,
        pid: notes.pid.map(Pid),
        command: process::without_arguments(&printable(&notes.command)),
        taken_at: core.taken_at(),
        held: Held::Core,
        rss: None,
        mappings: dead.regions.iter().map(mapping).collect(),
        threads: thread_names(&notes),
        static_data: maps::static_data(&memory, &dead.regions),
        dead: Some(Box::new(dead)),
        image,
    };
    Ok((captured, report))
}

impl Core<'_> {
    fn open(path: &Path) -> Result<Core<'_>> {
        let shown = printable(&path.to_string_lossy()).into_owned();
        let unreadable = |error: &io::Error| Error::read(&shown, error);
        let file = File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(path)
            .map_err(|error| unreadable(&error))?;
        let data = file.metadata().map_err(|error| unreadable(&error))?;
        if !data.is_file() {
            let error = io::Error::from(io::ErrorKind::InvalidInput);
            return Err(unreadable(&error));
        }
        Ok(Core {
            path,
            file,
            length: data.len(),
        })
    }

    fn what(&self) -> String {
        format!(
            "cannot read core file {}",
            printable(&self.path.to_string_lossy())
        )
    }

    fn bad(&self, offset: u64, why: &str) -> Error {
        Error::bad_file(self.what(), offset, why)
    }

    /// The error for a file that lacks so many bytes, and with them what tells what was in it.
    fn truncated(&self, missing: u64) -> Error {
        let missing = format_bytes(missing);
        let why = format!(
            "it is cut short: {missing} are missing, and with them what tells where Python is"
        );
        self.bad(self.length, &why).hint(WHOLE_CORE)
    }

    /// Cuts the segments to what the file has of them.
    fn cut(&self, loads: &mut [Segment]) {
        for load in loads {
            let there = self.length.saturating_sub(load.offset).min(load.file_size);
            load.missing = load.file_size - there;
            load.file_size = there;
        }
    }

    /// What cannot be known of what was in the process.
    fn caveats(
        &self,
        image: &Image,
        loads: &[Segment],
        notes: &Notes,
        regions: &[Region],
        replaced: &[String],
    ) -> Vec<String> {
        let mut caveats = Vec::new();
        let missing: u64 = loads.iter().map(|load| load.missing).sum();
        if notes.is_cut {
            let text = "the core file is cut short before it says which process it is of, and what its threads and files are";
            caveats.push(text.to_string());
        }
        if missing > 0 {
            let all: u64 = loads.iter().map(|load| load.file_size + load.missing).sum();
            caveats.push(format!(
                "the core file is cut short: {} of the {} of memory in it are missing{}, and what was there is not shown",
                format_bytes(missing),
                format_bytes(all),
                missing::kinds(loads, regions)
            ));
        }
        let first = regions.iter().filter(|region| region.offset == 0);
        for region in
            first.filter(|region| is_python(&region.name) && replaced.contains(&region.name))
        {
            let difference = builds::difference(image, region, true);
            caveats.push(format!(
                "{difference}; what it had and the core has not is not shown"
            ));
        }
        let absent = regions.iter().find(|region| {
            is_python(&region.name)
                && region.of_file()
                && open_regular(Path::new(&region.name)).is_none()
        });
        if let Some(absent) = absent {
            let difference = builds::difference(image, absent, false);
            caveats.push(format!(
                "{difference}: what it had and the core has not is not shown"
            ));
        }
        caveats
    }

    fn bytes(&self, offset: u64, length: u64) -> Result<Vec<u8>> {
        if length == 0 {
            return Ok(Vec::new());
        }
        let end = offset
            .checked_add(length)
            .ok_or_else(|| self.bad(offset, "its size makes no sense"))?;
        if end > self.length {
            return Err(self.truncated(end - self.length));
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        self.file
            .read_exact_at(&mut bytes, offset)
            .map_err(|error| Error::read(printable(&self.path.to_string_lossy()), &error))?;
        Ok(bytes)
    }

    fn segments(&self) -> Result<Vec<Segment>> {
        let head = self.bytes(0, 64)?;
        if !is_core(&head) {
            return Err(self.bad(0, "it is no core file"));
        }
        // Class 2 is 64 bits, data 1 is little-endian.
        if head.get(4..6) != Some(&[2, 1]) || half(&head, 18) != Some(MACHINE) {
            return Err(Error::new(
                ErrorKind::UnsupportedPython,
                self.what(),
                "it is of another architecture",
            )
            .hint("use a biopsy built for the architecture that the core was made on"));
        }
        let broken = || self.bad(32, "its program headers make no sense");
        let (table, size) = (word(&head, 32).ok_or_else(broken)?, half(&head, 54));
        let size = size.filter(|size| *size >= 56).ok_or_else(broken)?;
        let mut count = u64::from(half(&head, 56).unwrap_or(0));
        if count == u64::from(PN_XNUM) {
            let sections = word(&head, 40).ok_or_else(broken)?;
            let first = self.bytes(sections, 64)?;
            count = int(&first, 44)
                .and_then(|count| u64::try_from(count).ok())
                .ok_or_else(broken)?;
        }
        if count > MOST_SEGMENTS {
            return Err(broken());
        }
        let headers = self.bytes(table, count * u64::from(size))?;
        let segment = |bytes: &[u8]| {
            Some(Segment {
                kind: int(bytes, 0)?,
                flags: int(bytes, 4)?,
                offset: word(bytes, 8)?,
                address: word(bytes, 16)?,
                file_size: word(bytes, 32)?,
                memory_size: word(bytes, 40)?,
                missing: 0,
            })
        };
        Ok(headers
            .chunks_exact(usize::from(size))
            .filter_map(segment)
            .collect())
    }

    fn notes(&self, segments: &[Segment]) -> Result<Notes> {
        let mut notes = Notes::default();
        for segment in segments.iter().filter(|segment| segment.kind == PT_NOTE) {
            if segment.file_size > MOST_NOTES {
                return Err(self.bad(segment.offset, "its notes are too long"));
            }
            let there = self.length.saturating_sub(segment.offset);
            notes.is_cut |= there < segment.file_size;
            // gcore writes them last: of one that is cut short they are gone.
            notes.add(&self.bytes(segment.offset, segment.file_size.min(there))?);
        }
        Ok(notes)
    }

    /// All memory that is in the file.
    fn memory(&self, loads: &[Segment]) -> Result<Places> {
        let mut pieces = Vec::new();
        let mut held = 0u64;
        for load in loads.iter().filter(|load| load.file_size > 0) {
            // Each byte of the file is in one segment at most.
            held = held.saturating_add(load.file_size);
            if held > self.length {
                return Err(self.bad(load.offset, "its segments hold more than the file"));
            }
            append(
                &mut pieces,
                Run {
                    start: load.address,
                    end: load.address + load.file_size,
                },
            );
        }
        let blocks = self
            .file
            .metadata()
            .map_or(self.length, |data| data.blocks() * 512);
        let (needed, room) = (blocks.min(self.length), headroom::here());
        let addresses: u64 = pieces
            .iter()
            .fold(0, |sum: u64, piece| sum.saturating_add(piece.size()));
        if needed > room.memory || addresses > room.addresses {
            let why = format!(
                "it holds {} of memory, and {} are {}",
                format_bytes(needed),
                format_bytes(room.memory),
                room.limit
            );
            return Err(Error::new(ErrorKind::Failed, self.what(), why));
        }
        let no_room = |error: io::Error| {
            Error::new(
                ErrorKind::Failed,
                self.what(),
                format!("no memory for it: {error}"),
            )
        };
        let places = pieces
            .into_iter()
            .map(|piece| Ok((piece, Reservation::new(piece.start, piece.end)?)))
            .collect::<io::Result<Vec<_>>>()
            .map_err(no_room)?;
        let places = Places::new(places);
        for load in loads.iter().filter(|load| load.file_size > 0) {
            self.fill(load, &places)?;
        }
        Ok(places)
    }

    /// Copies a segment to its place; holes of the file are left alone, they are zero already.
    fn fill(&self, load: &Segment, places: &Places) -> Result<()> {
        let run = Run {
            start: load.address,
            end: load.address + load.file_size,
        };
        let Some(place) = places.of(run) else {
            return Ok(());
        };
        let end = load.offset + load.file_size;
        let mut buffer = vec![0; CHUNK];
        let mut at = load.offset;
        while at < end {
            at = self.data_from(at).min(end);
            let length = (end - at).min(CHUNK as u64) as usize;
            let Some(room) = buffer.get_mut(..length).filter(|room| !room.is_empty()) else {
                break;
            };
            self.file
                .read_exact_at(room, at)
                .map_err(|error| Error::read(printable(&self.path.to_string_lossy()), &error))?;
            let to = place + (at - load.offset) as usize;
            // SAFETY: the segment's `file_size` bytes are inside one reservation from `place` on (`of` checked it),
            // of which no slice is made yet; `length` does not go beyond them.
            unsafe { std::ptr::copy_nonoverlapping(room.as_ptr(), to as *mut u8, length) };
            at += length as u64;
        }
        Ok(())
    }

    /// Where data starts at or after `offset`.
    fn data_from(&self, offset: u64) -> u64 {
        let Ok(from) = libc::off_t::try_from(offset) else {
            return offset;
        };
        // SAFETY: moves the position of our own file, which nobody reads by.
        let found = unsafe { libc::lseek(self.file.as_raw_fd(), from, libc::SEEK_DATA) };
        match u64::try_from(found) {
            Ok(found) => found,
            Err(_) if io::Error::last_os_error().raw_os_error() == Some(libc::ENXIO) => self.length,
            Err(_) => offset,
        }
    }

    fn taken_at(&self) -> SystemTime {
        let modified = self.file.metadata().and_then(|data| data.modified());
        modified.unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// Why no runtime was found.
    fn no_python(
        &self,
        image: &Image,
        notes: &Notes,
        regions: &[Region],
        replaced: &[String],
    ) -> Error {
        let first = regions.iter().filter(|region| region.offset == 0);
        let first = first.filter(|region| is_python(&region.name));
        // Of a program and its library that one is told of which is there and another one.
        let region = first.max_by_key(|region| replaced.contains(&region.name));
        match region {
            Some(region) => {
                let is_replaced = replaced.contains(&region.name);
                let why = builds::difference(image, region, is_replaced);
                Error::new(ErrorKind::CannotRead, self.what(), why).hint(
                    "read it where the program ran, with the same files installed: of a container, in that container",
                )
            }
            None => {
                let name = printable(&notes.name).into_owned();
                let why = format!("{name} is not a Python process, or one that is not known");
                Error::new(ErrorKind::NotPython, self.what(), why)
            }
        }
    }
}

/// Whether a file is called as programs and libraries with a Python in them are.
fn is_python(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    name.starts_with("python") || name.starts_with("libpython")
}

/// The memory segments by address, without those that overlap an earlier one or make no sense.
fn loads(segments: &[Segment]) -> Vec<Segment> {
    let mut loads: Vec<Segment> = segments
        .iter()
        .filter(|s| s.kind == PT_LOAD)
        .copied()
        .collect();
    loads.sort_by_key(|load| load.address);
    let mut end = 0;
    loads.retain(|load| {
        let size = load.memory_size.max(load.file_size);
        let next = load.address.checked_add(size);
        let fits = load.address >= end && size > 0 && load.address % PAGE == 0;
        match next.filter(|_| fits) {
            Some(next) => {
                end = next;
                true
            }
            None => false,
        }
    });
    loads
}

/// The mappings, with the names of their files. The inode is the number of the file in the list.
fn regions(loads: &[Segment], files: &[Mapped]) -> Vec<Region> {
    let mut paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
    paths.sort_unstable();
    paths.dedup();
    let mut files: Vec<&Mapped> = files.iter().collect();
    files.sort_by_key(|file| file.start);
    let mut others = Vec::new();
    let region = |load: &Segment| {
        let after = files.partition_point(|file| file.start <= load.address);
        let file = after.checked_sub(1).and_then(|at| files.get(at));
        let file = file.filter(|file| load.address < file.end);
        let flag = |bit: i32, letter: u8| if load.flags & bit != 0 { letter } else { b'-' };
        let index = file.and_then(|file| paths.binary_search(&file.path.as_str()).ok());
        Region {
            start: load.address,
            end: load.address + load.memory_size.max(load.file_size),
            permissions: [flag(4, b'r'), flag(2, b'w'), flag(1, b'x'), b'p'],
            offset: file.map_or(0, |file| {
                file.offset.saturating_add(load.address - file.start)
            }),
            inode: index.map_or(0, |index| index as u64 + 1),
            name: file.map(|file| file.path.clone()).unwrap_or_default(),
            ..Region::default()
        }
    };
    let mut regions: Vec<Region> = loads.iter().map(region).collect();
    // gcore leaves out what it does not dump, but for its name.
    let mut end = 0;
    for file in &files {
        let before = regions.partition_point(|region| region.start < file.end);
        let free = before
            .checked_sub(1)
            .and_then(|at| regions.get(at))
            .map_or(0, |region| region.end);
        let start = file.start.max(free).max(end);
        if start < file.end && start % PAGE == 0 {
            end = file.end;
            others.push(Segment {
                kind: PT_LOAD,
                flags: 4,
                offset: 0,
                address: start,
                file_size: 0,
                memory_size: file.end - start,
                missing: 0,
            });
        }
    }
    regions.extend(others.iter().map(region));
    regions.sort_by_key(|region| region.start);
    regions
}

/// Opens the files of `regions`; gives them and the names of those that are others than those that were mapped.
fn open_files(
    image: &Image,
    regions: &[Region],
    taken_at: SystemTime,
) -> (Vec<(FileId, File)>, Vec<String>) {
    let (mut files, mut replaced): (Vec<(FileId, File)>, Vec<String>) = (Vec::new(), Vec::new());
    for region in regions
        .iter()
        .filter(|region| region.of_file() && region.offset == 0)
    {
        let id = (region.inode, region.device.clone());
        if files.len() == MOST_FILES || files.iter().any(|(known, _)| *known == id) {
            continue;
        }
        let Some(file) = open_regular(Path::new(&region.name)) else {
            continue;
        };
        match image.bytes(region.start, PAGE as usize) {
            // What is in a core of a read-only page is what was mapped: a file that differs is another one.
            Some(page) if !region.writable() => {
                let mut bytes = vec![0; page.len()];
                let read = file.read_at(&mut bytes, 0).unwrap_or(0);
                if read == 0 || bytes != page {
                    replaced.push(region.name.clone());
                    continue;
                }
                files.push((id, file));
            }
            // Nothing tells, but for its age: one that came after the core is another one.
            _ => {
                let changed = file.metadata().and_then(|data| data.modified());
                match changed.is_ok_and(|changed| changed > taken_at) {
                    true => replaced.push(region.name.clone()),
                    false => files.push((id, file)),
                }
            }
        }
    }
    (files, replaced)
}

fn open_regular(path: &Path) -> Option<File> {
    let is_file = |data: &std::fs::Metadata| data.is_file();
    std::fs::metadata(path).ok().filter(is_file)?;
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
    let file = File::options()
        .read(true)
        .custom_flags(flags)
        .open(path)
        .ok()?;
    file.metadata().ok().filter(is_file)?;
    Some(file)
}

fn mapping(region: &Region) -> Mapping {
    Mapping {
        start: region.start,
        end: region.end,
        permissions: String::from_utf8_lossy(&region.permissions).into_owned(),
        name: region.name.clone(),
        ..Mapping::default()
    }
}

/// Only the main thread's name is in a core.
fn thread_names(notes: &Notes) -> Vec<ThreadName> {
    let name = |thread: &DeadThread| ThreadName {
        tid: thread.tid,
        name: if Some(thread.tid) == notes.pid {
            notes.name.clone()
        } else {
            String::new()
        },
    };
    notes.threads.iter().map(name).collect()
}

impl Memory for &Image {
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Unreadable> {
        if Image::read(self, address, into) {
            Ok(())
        } else {
            Err(Unreadable::Nowhere)
        }
    }

    fn read_ranges(&self, ranges: &[Range], into: &mut [u8]) -> Result<usize, Unreadable> {
        let mut done: usize = 0;
        for range in ranges {
            let Some(room) = into.get_mut(done..done.saturating_add(range.length)) else {
                break;
            };
            if Memory::read(self, range.address as u64, room).is_err() {
                break;
            }
            done += range.length;
        }
        Ok(done)
    }
}
