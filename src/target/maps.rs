//! The mappings of a process: `/proc/PID/maps` and `/proc/PID/smaps` (proc_pid_maps(5), proc_pid_smaps(5)).
//!
//! ```text
//! 7f0a1000-7f0a2000 r--p 00001000 08:01 123    /opt/my python/lib (x).so
//! Rss:                   4 kB
//! ```
//!
//! A name may hold anything but a newline, which the kernel writes as `\012`. Lines that make no sense are left out.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::ops::Range;

use super::elf;
use super::image::{Mapping, Sharing};
use super::memory::Memory;
use crate::units::Pid;

/// More mappings than that are not read; the kernel's own limit, vm.max_map_count, is 65,530 unless raised.
const MOST_MAPPINGS: usize = 1 << 20;

/// Longest line that is kept: a path has 4,096 bytes, and each may be written as four.
const LONGEST_LINE: usize = 20_000;

/// One line of `maps`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Region {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// Such as `rw-p`.
    pub permissions: [u8; 4],
    /// Where in the file it starts.
    pub offset: u64,
    /// Device of the file, as `maps` writes it, such as `08:01`.
    pub device: String,
    /// Inode of the file; 0 for memory that no file is behind.
    pub inode: u64,
    /// Path, with ` (deleted)` behind it where that is so, or `[heap]`, `[stack]`; empty for anonymous memory.
    pub name: String,
}

impl Region {
    /// Whether it may be read.
    pub fn readable(&self) -> bool {
        self.permissions[0] == b'r'
    }

    /// Whether the process may write to it.
    pub fn writable(&self) -> bool {
        self.permissions[1] == b'w'
    }

    /// Whether it holds code.
    pub fn executable(&self) -> bool {
        self.permissions[2] == b'x'
    }

    /// Whether what is written there is seen by this process alone.
    pub fn private(&self) -> bool {
        self.permissions[3] == b'p'
    }

    /// Whether it is one of the kernel's own: `[vvar]`, `[vdso]`, `[vsyscall]`, `[vvar_vclock]`, `[uprobes]`.
    pub fn special(&self) -> bool {
        self.name.starts_with("[v") || self.name == "[uprobes]"
    }

    /// Whether a file is behind it.
    pub fn of_file(&self) -> bool {
        self.inode != 0
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.end - self.start
    }

    /// Whether `address` is in it.
    pub fn holds(&self, address: u64) -> bool {
        (self.start..self.end).contains(&address)
    }
}

/// Written data of a program or a library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticData {
    /// Its addresses.
    pub range: Range<u64>,
    /// Path of the file.
    pub file: String,
}

/// Written data of the program and its libraries in `regions`, which are by address: private pages of files, and what
/// follows them at once without a name, which is their zeroed data as far as their headers in `memory` say.
pub fn static_data(memory: &impl Memory, regions: &[Region]) -> Vec<StaticData> {
    let mut found: Vec<StaticData> = Vec::new();
    for region in regions
        .iter()
        .filter(|region| region.writable() && region.private())
    {
        match found.last_mut() {
            Some(last) if last.range.end == region.start && region.name.is_empty() => {
                last.range.end = region.end
            }
            _ if region.of_file() => found.push(StaticData {
                range: region.start..region.end,
                file: region.name.clone(),
            }),
            _ => {}
        }
    }
    // Memory that the program asked for may lie right behind them.
    let mut next = regions
        .iter()
        .filter(|region| region.of_file() && region.offset == 0)
        .peekable();
    let mut head: Option<&Region> = None;
    for data in &mut found {
        while let Some(region) = next.next_if(|region| region.start <= data.range.start) {
            head = Some(region);
        }
        let end = head
            .filter(|head| head.name == data.file)
            .and_then(|head| elf::data_end(memory, head.start))
            .filter(|end| *end > data.range.start);
        data.range.end = end.map_or(data.range.end, |end| data.range.end.min(end));
    }
    found
}

/// The mappings of `pid`, by address.
pub fn regions(pid: Pid) -> io::Result<Vec<Region>> {
    let file = File::open(format!("/proc/{pid}/maps"))?;
    let mut found = Vec::new();
    each_line(file, |line| {
        found.extend(region(line));
        found.len() < MOST_MAPPINGS
    })?;
    found.sort_by_key(|region| region.start);
    Ok(found)
}

/// The mappings of `pid` with what of them is resident and who shares it, both by address. Slow for big processes: the
/// kernel looks at every page.
pub fn mappings(pid: Pid) -> io::Result<(Vec<Mapping>, Vec<Sharing>)> {
    let file = File::open(format!("/proc/{pid}/smaps"))?;
    let mut found: Vec<(Mapping, Sharing)> = Vec::new();
    each_line(file, |line| {
        if let Some(region) = region(line) {
            let sharing = Sharing {
                start: region.start,
                ..Sharing::default()
            };
            let mapping = Mapping {
                start: region.start,
                end: region.end,
                permissions: String::from_utf8_lossy(&region.permissions).into_owned(),
                name: region.name,
                ..Mapping::default()
            };
            found.push((mapping, sharing));
        } else if let (Some((mapping, sharing)), Some((field, bytes))) =
            (found.last_mut(), amount(line))
        {
            let slot = match field {
                b"Rss" => &mut mapping.rss,
                b"Private_Clean" | b"Private_Dirty" => {
                    sharing.private = sharing.private.saturating_add(bytes);
                    &mut mapping.private
                }
                b"Anonymous" => &mut mapping.anonymous,
                b"Swap" => &mut mapping.swap,
                b"Pss" => &mut sharing.pss,
                b"Shared_Clean" | b"Shared_Dirty" => &mut sharing.shared,
                b"AnonHugePages" | b"ShmemPmdMapped" | b"FilePmdMapped" => &mut sharing.huge,
                b"Private_Hugetlb" | b"Shared_Hugetlb" => &mut sharing.hugetlb,
                _ => return true,
            };
            *slot = slot.saturating_add(bytes);
        }
        found.len() < MOST_MAPPINGS
    })?;
    found.sort_by_key(|(mapping, _)| mapping.start);
    Ok(found.into_iter().unzip())
}

/// Gives `take` each line without its newline, until it says false.
fn each_line(file: impl Read, mut take: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        if line.ends_with(b"\n") {
            line.pop();
        }
        line.truncate(LONGEST_LINE);
        if !take(&line) {
            return Ok(());
        }
    }
}

/// A line of `maps`, or the head of a block in `smaps`.
fn region(line: &[u8]) -> Option<Region> {
    let mut fields = line.splitn(6, |byte| *byte == b' ');
    let mut text = || std::str::from_utf8(fields.next()?).ok();
    let (start, end) = text()?.split_once('-')?;
    let hex = |digits| u64::from_str_radix(digits, 16).ok();
    let (start, end) = (hex(start)?, hex(end)?);
    let permissions: [u8; 4] = text()?.as_bytes().try_into().ok()?;
    let (offset, device, inode) = (hex(text()?)?, text()?.to_string(), text()?.parse().ok()?);
    let name = fields.next().unwrap_or_default().trim_ascii_start();
    (start < end).then(|| Region {
        start,
        end,
        permissions,
        offset,
        device,
        inode,
        name: String::from_utf8_lossy(name).into_owned(),
    })
}

/// `Rss:     4 kB` as a name and bytes.
fn amount(line: &[u8]) -> Option<(&[u8], u64)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (field, rest) = line.split_at_checked(colon)?;
    let rest = std::str::from_utf8(rest.get(1..)?).ok()?;
    let kilobytes: u64 = rest.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some((field, kilobytes.checked_mul(1024)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::memory::Live;

    #[test]
    fn lines_are_read_whatever_the_file_is_called() {
        let found = region(
            b"7f0a1000-7f0a2000 rw-p 00001000 08:01 123    /opt/a b/\xff: 4 kB\\012 (deleted)",
        )
        .expect("a region");
        assert_eq!((found.start, found.end), (0x7f0a_1000, 0x7f0a_2000));
        assert!(found.readable() && found.writable() && !found.executable() && found.private());
        assert_eq!((found.offset, found.inode), (0x1000, 123));
        assert_eq!(found.name, "/opt/a b/\u{fffd}: 4 kB\\012 (deleted)");
        let anonymous = region(b"1000-2000 ---p 00000000 00:00 0 ").expect("a region");
        assert!(anonymous.name.is_empty() && !anonymous.readable() && !anonymous.of_file());
        for nonsense in [
            &b""[..],
            b"2000-1000 rw-p 0 00:00 0",
            b"1000-2000 rw 0 00:00 0",
            b"Rss: 4 kB",
            b"\xff-\xff rw-p 0 0 0",
        ] {
            assert_eq!(region(nonsense), None, "{nonsense:?}");
        }
        assert_eq!(amount(b"Rss:        8 kB"), Some((&b"Rss"[..], 8192)));
        assert_eq!(amount(b"VmFlags: rd wr"), None);
        assert_eq!(amount(b"Rss: 99999999999999999999 kB"), None);
    }

    #[test]
    fn our_own_stack_is_listed_and_resident() {
        let me = Pid(std::process::id() as i32);
        let here = &raw const me as u64;
        let regions = regions(me).expect("readable");
        let region = regions.iter().find(|region| region.holds(here));
        assert!(region.is_some_and(|region| region.writable() && region.private()));
        let (mappings, sharing) = mappings(me).expect("readable");
        let mapping = mappings.iter().find(|m| (m.start..m.end).contains(&here));
        assert!(mapping.is_some_and(|m| m.rss >= 4096 && m.private >= 4096 && m.anonymous >= 4096));
        let shared = sharing
            .iter()
            .find(|shared| Some(shared.start) == mapping.map(|m| m.start));
        assert!(shared.is_some_and(|shared| shared.pss >= 4096 && shared.private >= 4096));
    }

    #[test]
    fn data_of_files_has_its_zeroed_rest_and_no_more() {
        let region = |start, end, permissions: &[u8; 4], inode, name: &str| Region {
            start,
            end,
            permissions: *permissions,
            inode,
            name: name.to_string(),
            ..Region::default()
        };
        let regions = [
            region(0x1000, 0x2000, b"r-xp", 7, "/lib/a.so"),
            region(0x2000, 0x3000, b"rw-p", 7, "/lib/a.so"),
            region(0x3000, 0x4000, b"rw-p", 0, ""),
            region(0x4000, 0x5000, b"rw-p", 0, "[heap]"),
            region(0x6000, 0x7000, b"rw-p", 0, ""),
            region(0x7000, 0x8000, b"rw-s", 9, "/dev/shm/b"),
        ];
        let found = static_data(&Live::new(Pid(1)), &regions);
        assert!(
            found.len() == 1 && found[0].range == (0x2000..0x4000) && found[0].file == "/lib/a.so",
            "{found:x?}"
        );
        assert!(static_data(&Live::new(Pid(1)), &[]).is_empty());
    }
}
