//! Where a process has its Python runtime: `_PyRuntime`, the version, and the C library's rseq area.
//!
//! Looked up in the dynamic symbols of what is mapped (see `elf`); a Python whose symbols are stripped is left to
//! `locate`, which reads files.

use regex::bytes::Regex;

use super::elf::Symbols;
use super::locate::{self, Version};
use super::maps::{self, Region};
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
    let regions = maps::regions(pid).unwrap_or_default();
    let program = process::executable(pid).map(|path| path.to_string_lossy().into_owned());
    let found = look(memory, &regions, program.as_deref());
    let address = match found.address {
        Some(address) => address,
        None => by_files(pid)?,
    };
    let mut head = vec![0; debug_offsets::SIZE];
    memory
        .read(address, &mut head)
        .map_err(|_| not_readable(pid))?;
    let version = match version_of(memory, &regions, address, &head, found.hex) {
        Some(version) => version,
        None => locate::version(pid)?,
    };
    Ok(Runtime {
        address,
        version,
        code_type: found.code_type,
        rseq: found.rseq,
        head,
    })
}

/// The runtime in memory that is no living process's; `None` where no symbol tells.
pub fn find_in(memory: &impl Memory, regions: &[Region], program: Option<&str>) -> Option<Runtime> {
    let found = look(memory, regions, program);
    let address = match found.address {
        Some(address) => address,
        None => by_cookie(memory, regions)?,
    };
    let mut head = vec![0; debug_offsets::SIZE];
    memory.read(address, &mut head).ok()?;
    Some(Runtime {
        address,
        version: version_of(memory, regions, address, &head, found.hex)?,
        code_type: found.code_type,
        rseq: found.rseq,
        head,
    })
}

/// What symbols tell.
#[derive(Default)]
struct Found {
    address: Option<u64>,
    code_type: Option<u64>,
    hex: Option<u32>,
    rseq: Option<i64>,
}

fn look(memory: &impl Memory, regions: &[Region], program: Option<&str>) -> Found {
    let mut found = Found::default();
    for binary in binaries(regions, program) {
        let name = binary.path.rsplit('/').next().unwrap_or_default();
        let is_loader = name.starts_with("ld-linux") || name.starts_with("ld-2");
        if found.address.is_none()
            && !is_loader
            && let Some((address, code_type, hex)) = python_in(memory, &binary)
        {
            found.address = Some(address);
            (found.code_type, found.hex) = (code_type, hex);
        }
        if is_loader && found.rseq.is_none() {
            found.rseq = rseq_offset(memory, &binary);
        }
    }
    found
}

/// The block of offsets that starts the runtime (3.13 and newer) in the data of a binary, whose file is not there.
fn by_cookie(memory: &impl Memory, regions: &[Region]) -> Option<u64> {
    for region in regions
        .iter()
        .filter(|region| region.writable() && region.of_file())
    {
        let mut bytes = vec![0; usize::try_from(region.size().min(DATA_LIMIT)).ok()?];
        if memory.read(region.start, &mut bytes).is_err() {
            continue;
        }
        let known = |block: &[u8]| debug_offsets::version_hex(block).and_then(version::from_hex);
        let at = (0..bytes.len())
            .step_by(8)
            .find(|at| bytes.get(*at..).and_then(known).is_some());
        if let Some(at) = at {
            return Some(region.start + at as u64);
        }
    }
    None
}

/// The version by what the runtime's `head` or a symbol's `hex` says, else by the text that `Py_GetVersion` keeps.
fn version_of(
    memory: &impl Memory,
    regions: &[Region],
    address: u64,
    head: &[u8],
    hex: Option<u32>,
) -> Option<Version> {
    let hex = debug_offsets::version_hex(head).or(hex);
    match hex.and_then(version::from_hex) {
        Some(release) => Some(Version {
            major: release.major,
            minor: release.minor,
            patch: release.micro,
            suffix: release.suffix,
            free_threaded: debug_offsets::is_free_threaded(head),
        }),
        // Before 3.11 no symbol has it.
        None => version_in_memory(memory, regions, address),
    }
}

/// The version from the text that `Py_GetVersion` keeps (Python/getversion.c), such as `3.8.18 (default, `: in
/// the writable memory of the binary that holds `_PyRuntime`, whose file may be deleted or replaced by now.
fn version_in_memory(memory: &impl Memory, regions: &[Region], runtime: u64) -> Option<Version> {
    let writable = |region: &&Region| region.readable() && region.writable();
    let regions: Vec<&Region> = regions.iter().filter(writable).collect();
    let inside = regions.iter().position(|region| region.holds(runtime))?;
    let pattern = Regex::new(r"3\.(\d{1,2})\.(\d{1,2})((?:a|b|rc)\d{1,2})?\+? \(").ok()?;
    let mut end = regions.get(inside)?.start;
    for region in regions.get(inside..)? {
        // What follows without a gap is the rest of the binary's data.
        if region.start != end {
            break;
        }
        end = region.end;
        let mut bytes = vec![0; usize::try_from(region.size().min(DATA_LIMIT)).ok()?];
        memory.read(region.start, &mut bytes).ok()?;
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

/// The writable data of the binaries that hold Python or are called `prefix`, as far as it comes from their files.
pub fn writable_data(pid: Pid, memory: &impl Memory, prefix: &str) -> Vec<Vec<u8>> {
    let program = process::executable(pid).map(|path| path.to_string_lossy().into_owned());
    let wanted = |region: &Region| {
        let name = region.name.rsplit('/').next().unwrap_or_default();
        let starts = [prefix, "python", "libpython"];
        starts.iter().any(|start| name.starts_with(start))
            || Some(region.name.as_str()) == program.as_deref()
    };
    let mut found = Vec::new();
    for region in maps::regions(pid).unwrap_or_default() {
        let of_file = region.readable() && region.writable() && region.name.starts_with('/');
        if !of_file || !wanted(&region) {
            continue;
        }
        let mut bytes = vec![0; usize::try_from(region.size().min(DATA_LIMIT)).unwrap_or(0)];
        if memory.read(region.start, &mut bytes).is_ok() {
            found.push(bytes);
        }
    }
    found
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
    let version = locate::version(pid)?;
    locate::symbol(pid, "_PyRuntime").ok_or_else(|| {
        Error::new(
            ErrorKind::UnsupportedPython,
            format!("cannot read process {pid}"),
            format!("its Python {version} has no symbol _PyRuntime"),
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
/// the rest that may hold one.
fn binaries(regions: &[Region], program: Option<&str>) -> Vec<Binary> {
    let mut found: Vec<Binary> = regions.iter().filter_map(first_mapping).collect();
    let rank = |binary: &Binary| {
        let path = binary
            .path
            .strip_suffix(" (deleted)")
            .unwrap_or(&binary.path);
        let name = path.rsplit('/').next().unwrap_or_default();
        if name.starts_with("libpython") {
            0
        } else if Some(path) == program {
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

fn first_mapping(region: &Region) -> Option<Binary> {
    let is_first = region.offset == 0 && region.readable() && region.name.starts_with('/');
    is_first.then(|| Binary {
        start: region.start,
        path: region.name.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binaries_are_tried_in_the_order_of_their_names() {
        let region = |start: u64, offset: u64, name: &str| Region {
            start,
            end: start + 0x1000,
            permissions: *b"r--p",
            offset,
            name: name.to_string(),
            ..Region::default()
        };
        let regions = [
            region(0x1000, 0, "/usr/lib/x.so"),
            region(0x3000, 0, "/opt/my app (deleted)"),
            region(0x5000, 0x1000, "/lib/libpython3.11.so.1.0"),
            region(0x7000, 0, "/lib/libpython3.11.so.1.0"),
            region(0x9000, 0, "[stack]"),
            region(0xb000, 0, ""),
        ];
        let found: Vec<u64> = binaries(&regions, Some("/opt/my app"))
            .iter()
            .map(|binary| binary.start)
            .collect();
        assert_eq!(found, [0x7000, 0x3000, 0x1000]);
    }
}
