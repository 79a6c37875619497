//! Where a process has its Python runtime: `_PyRuntime`, the version, and the C library's rseq area.
//!
//! Looked up in the dynamic symbols of what is mapped (see `elf`); a Python whose symbols are stripped is left to
//! `locate`, which reads files.

use std::fs;

use regex::bytes::Regex;

use super::elf::Symbols;
use super::locate::{self, Version};
use super::memory::Memory;
use super::process;
use crate::error::{Error, ErrorKind, Result};
use crate::layout::{debug_offsets, version};
use crate::units::Pid;

/// A runtime that was found.
#[derive(Debug, Clone)]
pub struct Runtime {
    /// `_PyRuntime`.
    pub address: u64,
    /// The version.
    pub version: Version,
    /// `PyCode_Type`.
    pub code_type: Option<u64>,
    /// Offset of the rseq area from the thread pointer (glibc 2.35 and newer, x86-64): `pthread_self() + this` is
    /// its address.
    pub rseq: Option<i64>,
    /// The block of offsets that starts the runtime (3.13 and newer), else other bytes of it.
    pub head: Vec<u8>,
}

/// Most bytes of one mapping that are searched for the version's text.
const DATA_LIMIT: u64 = 8 << 20;

/// A mapped binary: address of its first byte, and its path.
struct Binary {
    start: u64,
    path: String,
}

/// Finds the runtime of `pid`; fails when it has none.
pub fn find(pid: Pid, memory: &impl Memory) -> Result<Runtime> {
    let mut found = None;
    let mut rseq = None;
    for binary in binaries(pid) {
        let name = binary.path.rsplit('/').next().unwrap_or_default();
        let is_loader = name.starts_with("ld-linux") || name.starts_with("ld-2");
        if found.is_none() && !is_loader {
            found = python_in(memory, &binary);
        }
        if is_loader && rseq.is_none() {
            rseq = rseq_offset(memory, &binary);
        }
    }
    let (address, code_type, hex) = match found {
        Some(found) => found,
        None => (by_files(pid)?, None, None),
    };
    let mut head = vec![0; debug_offsets::SIZE];
    memory
        .read(address, &mut head)
        .map_err(|_| not_readable(pid))?;
    let hex = debug_offsets::version_hex(&head).or(hex);
    let version = match hex.and_then(version::from_hex) {
        Some(release) => Version {
            major: release.major,
            minor: release.minor,
            patch: release.micro,
            suffix: release.suffix,
            free_threaded: debug_offsets::is_free_threaded(&head),
        },
        // Before 3.11 no symbol has it.
        None => match version_in_memory(pid, memory, address) {
            Some(version) => version,
            None => locate::version(pid)?,
        },
    };
    Ok(Runtime {
        address,
        version,
        code_type,
        rseq,
        head,
    })
}

/// The version from the text that `Py_GetVersion` keeps (Python/getversion.c), such as `3.8.18 (default, `: in
/// the writable memory of the binary that holds `_PyRuntime`, whose file may be deleted or replaced by now.
fn version_in_memory(pid: Pid, memory: &impl Memory, runtime: u64) -> Option<Version> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let ranges: Vec<(u64, u64)> = maps.lines().filter_map(writable_range).collect();
    let inside = ranges
        .iter()
        .position(|(start, end)| (*start..*end).contains(&runtime))?;
    let pattern = Regex::new(r"3\.(\d{1,2})\.(\d{1,2})((?:a|b|rc)\d{1,2})?\+? \(").ok()?;
    let mut end = ranges.get(inside)?.0;
    for range in ranges.get(inside..)? {
        // What follows without a gap is the rest of the binary's data.
        if range.0 != end {
            break;
        }
        end = range.1;
        let length = (range.1 - range.0).min(DATA_LIMIT);
        let mut bytes = vec![0; usize::try_from(length).ok()?];
        memory.read(range.0, &mut bytes).ok()?;
        if let Some(found) = pattern.captures(&bytes) {
            let text = |group| {
                found
                    .get(group)
                    .and_then(|m| std::str::from_utf8(m.as_bytes()).ok())
            };
            return Some(Version {
                major: 3,
                minor: text(1)?.parse().ok()?,
                patch: text(2)?.parse().ok()?,
                suffix: text(3).unwrap_or_default().to_string(),
                free_threaded: false,
            });
        }
    }
    None
}

fn writable_range(line: &str) -> Option<(u64, u64)> {
    let mut fields = line.split(' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let address = |hex| u64::from_str_radix(hex, 16).ok();
    let range = (address(start)?, address(end)?);
    (fields.next()?.starts_with("rw") && range.0 < range.1).then_some(range)
}

/// `_PyRuntime`, `PyCode_Type` and `Py_Version` of one binary.
fn python_in(memory: &impl Memory, binary: &Binary) -> Option<(u64, Option<u64>, Option<u32>)> {
    let symbols = Symbols::of_binary(memory, binary.start)?;
    let runtime = symbols.find(memory, "_PyRuntime")?;
    let code_type = symbols.find(memory, "PyCode_Type");
    let hex = symbols.find(memory, "Py_Version").and_then(|address| {
        let word = memory.read_word(address).ok()?;
        u32::try_from(word & 0xffff_ffff).ok()
    });
    Some((runtime, code_type, hex))
}

/// `__rseq_offset`, unless the C library did not register the area.
fn rseq_offset(memory: &impl Memory, binary: &Binary) -> Option<i64> {
    if cfg!(not(target_arch = "x86_64")) {
        return None;
    }
    let symbols = Symbols::of_binary(memory, binary.start)?;
    let size = symbols.find(memory, "__rseq_size")?;
    let size = memory.read_word(size).ok()? & 0xffff_ffff;
    if size == 0 {
        return None;
    }
    let offset = memory
        .read_word(symbols.find(memory, "__rseq_offset")?)
        .ok()? as i64;
    // The area lies in the thread's own block, below or above the thread pointer.
    (-(1 << 20)..1 << 20).contains(&offset).then_some(offset)
}

/// The address as py-spy finds it, from the symbol tables of files.
fn by_files(pid: Pid) -> Result<u64> {
    locate::version(pid)?;
    locate::symbol(pid, "_PyRuntime").ok_or_else(|| {
        Error::new(
            ErrorKind::UnsupportedPython,
            format!("cannot read process {pid}"),
            "its Python has no symbol _PyRuntime",
        )
    })
}

fn not_readable(pid: Pid) -> Error {
    if process::is_alive(pid) {
        Error::new(
            ErrorKind::Failed,
            format!("cannot read process {pid}"),
            "its Python runtime is not mapped",
        )
    } else {
        process::gone(pid)
    }
}

/// The binaries mapped from their first byte on: those called python or libpython first, then the program, then
/// the rest that may hold one. `/proc/PID/maps`: `START-END PERMS OFFSET DEV INODE PATH`.
fn binaries(pid: Pid) -> Vec<Binary> {
    let maps = fs::read(format!("/proc/{pid}/maps")).unwrap_or_default();
    let maps = String::from_utf8_lossy(&maps);
    let mut found: Vec<Binary> = maps.lines().filter_map(first_mapping).collect();
    let program = process::executable(pid).map(|path| path.to_string_lossy().into_owned());
    let rank = |binary: &Binary| {
        let path = binary
            .path
            .strip_suffix(" (deleted)")
            .unwrap_or(&binary.path);
        let name = path.rsplit('/').next().unwrap_or_default();
        if name.starts_with("libpython") {
            0
        } else if Some(path) == program.as_deref() {
            1
        } else if name.starts_with("python") {
            2
        } else {
            3
        }
    };
    found.sort_by_key(rank);
    found
}

fn first_mapping(line: &str) -> Option<Binary> {
    let mut fields = line.splitn(6, ' ');
    let (range, _permissions, offset) = (fields.next()?, fields.next()?, fields.next()?);
    let (_device, _inode) = (fields.next()?, fields.next()?);
    let path = fields.next()?.trim_start();
    let (start, _) = range.split_once('-')?;
    if offset.bytes().any(|digit| digit != b'0') || !path.starts_with('/') {
        return None;
    }
    Some(Binary {
        start: u64::from_str_radix(start, 16).ok()?,
        path: path.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_first_mappings_of_files_count() {
        let line = "7f0a1000-7f0a2000 r--p 00000000 08:01 123    /opt/my python/lib (x).so";
        let binary = first_mapping(line).expect("a mapping");
        assert_eq!(binary.start, 0x7f0a_1000);
        assert_eq!(binary.path, "/opt/my python/lib (x).so");
        for other in [
            "7f0a1000-7f0a2000 r--p 00001000 08:01 123    /usr/lib/x.so",
            "7ffd0000-7ffd1000 rw-p 00000000 00:00 0      [stack]",
            "7ffd0000-7ffd1000 rw-p 00000000 00:00 0 ",
            "",
        ] {
            assert!(first_mapping(other).is_none(), "{other}");
        }
    }
}
