//! Core files: what a process's memory was when it died, or when gcore(1) looked (core(5); System V gABI chapters 4
//! and 5; notes as in include/uapi/linux/elfcore.h and fs/binfmt_elf.c).
//!
//! Memory that showed an unchanged file is not in a core; it is read from the file where that is still the one that
//! was mapped, which its first page, build id included, tells.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::constants::{FileId, Unwritten};
use super::copy::Report;
use super::headroom;
use super::moment::{Moment, Signs};
use super::pages::{PAGE, Run, append};
use super::reserve::Reservation;
use super::room::Places;
use super::{Memory, Range, Unreadable};
use crate::error::{Error, ErrorKind, Result};
use crate::layout::{int, word};
use crate::target::image::{Captured, Held, Image, Mapping, ThreadName};
use crate::target::maps::{self, Region};
use crate::target::{process, runtime};
use crate::units::{Pid, format_bytes, printable};

/// Machine of the ELF header: x86-64 or AArch64.
const MACHINE: u16 = if cfg!(target_arch = "x86_64") {
    62
} else {
    183
};

const ET_CORE: u16 = 4;
const PT_LOAD: i32 = 1;
const PT_NOTE: i32 = 4;
const NT_PRSTATUS: i32 = 1;
const NT_PRPSINFO: i32 = 3;
const NT_FILE: i32 = 0x4649_4c45;

/// More segments mean that their number stands in the first section's `sh_info`.
const PN_XNUM: u16 = 0xffff;

/// Segments that are read, and bytes of notes: 1,000 threads have 5 MB.
const MOST_SEGMENTS: u64 = 1 << 20;
const MOST_NOTES: u64 = 256 << 20;

/// Files that are opened.
const MOST_FILES: usize = 512;

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
}

/// What the notes say.
#[derive(Debug, Default)]
struct Notes {
    pid: Option<i32>,
    name: String,
    command: String,
    threads: Vec<i32>,
    files: Vec<Mapped>,
}

/// A mapped file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mapped {
    start: u64,
    end: u64,
    offset: u64,
    path: String,
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
    let loads: Vec<Segment> = loads(&segments);
    let spans = core.memory(&loads)?;
    let mut regions = regions(&loads, &notes.files);
    // SAFETY: `memory` has read all there is, and nobody else knows these reservations.
    let image = Image::new(unsafe { spans.into_spans() }, None);
    let (files, replaced) = open_files(&image, &mut regions);
    let constants = Unwritten::of_files(regions.clone(), files);
    let (image, constants) = (image, Box::new(constants));
    let image = image.with_constants(constants);
    let memory = Still(&image);
    let runtime = runtime::find_in(&memory, &regions, None)
        .ok_or_else(|| core.no_python(&notes, &regions, &replaced))?;
    let moment = Signs::find(&memory, &runtime)
        .and_then(|signs| signs.read(&memory).ok())
        .unwrap_or(Moment::Unknown);
    let report = Report {
        moment,
        stops: 0,
        copied: loads.iter().map(|load| load.file_size).sum(),
        unreadable: 0,
    };
    let captured = Captured {
        runtime,
        pid: notes.pid.map(Pid),
        command: process::without_arguments(&printable(&notes.command)),
        taken_at: core.taken_at(),
        held: Held::Core,
        rss: None,
        mappings: regions.iter().map(mapping).collect(),
        threads: thread_names(&notes),
        static_data: maps::static_data(&regions),
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

    fn truncated(&self, wanted: u64) -> Error {
        let missing = format_bytes(wanted.saturating_sub(self.length));
        self.bad(self.length, &format!("it is cut short: {missing} are missing"))
            .hint("a limit on core files (ulimit -c) or a full disk cuts them; gcore PID makes a whole one")
    }

    fn bytes(&self, offset: u64, length: u64) -> Result<Vec<u8>> {
        let end = offset
            .checked_add(length)
            .ok_or_else(|| self.bad(offset, "its size makes no sense"))?;
        if end > self.length {
            return Err(self.truncated(end));
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
            notes.add(&self.bytes(segment.offset, segment.file_size)?);
        }
        Ok(notes)
    }

    /// All memory that is in the file.
    fn memory(&self, loads: &[Segment]) -> Result<Places> {
        let mut pieces = Vec::new();
        let mut held = 0u64;
        for load in loads.iter().filter(|load| load.file_size > 0) {
            let end = load.offset.checked_add(load.file_size);
            let end =
                end.ok_or_else(|| self.bad(load.offset, "a segment's size makes no sense"))?;
            if end > self.length {
                return Err(self.truncated(end));
            }
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

    fn taken_at(&self) -> std::time::SystemTime {
        let modified = self.file.metadata().and_then(|data| data.modified());
        modified.unwrap_or(std::time::SystemTime::UNIX_EPOCH)
    }

    /// Why no runtime was found.
    fn no_python(&self, notes: &Notes, regions: &[Region], replaced: &[String]) -> Error {
        let is_python = |region: &&Region| {
            let name = region.name.rsplit('/').next().unwrap_or_default();
            name.starts_with("python") || name.starts_with("libpython")
        };
        match regions.iter().find(is_python) {
            Some(region) => {
                let name = printable(&region.name).into_owned();
                let why = if replaced.contains(&region.name) {
                    format!("{name} is not the file any more that the core was made with")
                } else {
                    format!("its program, {name}, is not on this machine")
                };
                Error::new(ErrorKind::CannotRead, self.what(), why)
                    .hint("read it where the program ran, with the same files installed")
            }
            None => {
                let name = printable(&notes.name).into_owned();
                let why = format!("{name} is not a Python process, or one that is not known");
                Error::new(ErrorKind::NotPython, self.what(), why)
            }
        }
    }
}

impl Notes {
    /// Reads a note segment: heads of three words (length of the name and of the contents, type), both padded to 4.
    fn add(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some((kind, contents, after)) = note(rest) {
            match kind {
                NT_PRSTATUS => self.threads.extend(int(contents, 32)),
                NT_PRPSINFO => {
                    self.pid = int(contents, 24).filter(|pid| *pid > 0);
                    self.name = text(contents.get(40..56).unwrap_or_default());
                    self.command = text(contents.get(56..136).unwrap_or_default());
                }
                NT_FILE => self.files = mapped(contents).unwrap_or_default(),
                _ => {}
            }
            rest = after;
        }
    }
}

/// The first note: its type, contents, and what follows it.
fn note(bytes: &[u8]) -> Option<(i32, &[u8], &[u8])> {
    let length = |at| usize::try_from(int(bytes, at)?).ok();
    let name = length(0)?.checked_next_multiple_of(4)?;
    let (start, size) = (name.checked_add(12)?, length(4)?);
    let contents = bytes.get(start..start.checked_add(size)?)?;
    let after = start.checked_add(size.checked_next_multiple_of(4)?)?;
    Some((
        int(bytes, 8)?,
        contents,
        bytes.get(after..).unwrap_or_default(),
    ))
}

/// Text up to a NUL.
fn text(bytes: &[u8]) -> String {
    let end = bytes
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default())
        .trim_end()
        .to_string()
}

/// `NT_FILE`: count, page size, then start, end and offset in pages of each, then their names.
fn mapped(bytes: &[u8]) -> Option<Vec<Mapped>> {
    let (count, page) = (word(bytes, 0)?, word(bytes, 8)?);
    let size = usize::try_from(count.checked_mul(24)?).ok()?;
    let table = bytes.get(16..size.checked_add(16)?)?;
    let names = bytes.get(size + 16..)?.split(|byte| *byte == 0);
    let entry = |(entry, name): (&[u8], &[u8])| {
        let (start, end) = (word(entry, 0)?, word(entry, 8)?);
        (start < end).then_some(())?;
        Some(Mapped {
            start,
            end,
            offset: word(entry, 16)?.checked_mul(page)?,
            path: String::from_utf8_lossy(name).into_owned(),
        })
    };
    Some(
        table
            .chunks_exact(24)
            .zip(names)
            .filter_map(entry)
            .collect(),
    )
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
            });
        }
    }
    regions.extend(others.iter().map(region));
    regions.sort_by_key(|region| region.start);
    regions
}

/// Opens the files of `regions`; gives them and the names of those that are others than those that were mapped.
fn open_files(image: &Image, regions: &mut [Region]) -> (Vec<(FileId, File)>, Vec<String>) {
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
            _ => files.push((id, file)),
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
    let name = |tid: &i32| ThreadName {
        tid: *tid,
        name: if Some(*tid) == notes.pid {
            notes.name.clone()
        } else {
            String::new()
        },
    };
    notes.threads.iter().map(name).collect()
}

/// An image as memory.
struct Still<'a>(&'a Image);

impl Memory for Still<'_> {
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Unreadable> {
        if self.0.read(address, into) {
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
            if self.read(range.address as u64, room).is_err() {
                break;
            }
            done += range.length;
        }
        Ok(done)
    }
}
