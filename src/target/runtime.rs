//! Where a process has its Python runtime: `_PyRuntime`, the version, and the C library's rseq area.
//!
//! Looked up in what is mapped (see `candidates`), files aside; what is not found there is left to `locate`, which reads
//! files.

mod candidates;

use regex::bytes::Regex;

use candidates::{Found, Python};

use super::locate::{self, Version};
use super::maps::{self, Region};
use super::memory::{Live, Memory};
use super::process;
use crate::error::{Error, ErrorKind, Result};
use crate::layout::{Offsets, debug_offsets, tables, version, word};
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
    /// The versions of other Pythons that are alive in the same process.
    pub others: Vec<Version>,
}

/// What is said of a second Python that is alive in a process.
pub fn second(pid: Pid, other: &Version, read: &Version) -> String {
    format!("process {pid} runs a second Python in it: {other} is not read, only {read} is")
}

/// Most bytes of one mapping that are searched for the version's text.
const DATA_LIMIT: u64 = 8 << 20;

/// Finds the runtime of `pid`; fails when it has none. Of several the one that is alive.
pub fn find(pid: Pid, memory: &impl Memory) -> Result<Runtime> {
    let regions = maps::regions(pid).unwrap_or_default();
    let program = process::executable(pid).map(|path| path.to_string_lossy().into_owned());
    let found = candidates::find(memory, &regions, program.as_deref());
    if let Some(runtime) = choose(memory, &regions, &found) {
        return Ok(runtime);
    }
    if found.older {
        let version = locate::version(pid);
        let which = version.map_or_else(
            |_| "its Python is older than 3.7".to_string(),
            |version| format!("it is Python {version}"),
        );
        return Err(unsupported(
            pid,
            &format!("{which}, and our own reader knows 3.8 to 3.15"),
        ));
    }
    let address = by_files(pid)?;
    let mut head = vec![0; debug_offsets::SIZE];
    memory
        .read(address, &mut head)
        .map_err(|_| not_readable(pid))?;
    let version = match version_of(memory, &regions, address, &head, None) {
        Some(version) => version,
        None => locate::version(pid)?,
    };
    Ok(Runtime {
        address,
        version,
        code_type: None,
        rseq: found.rseq,
        head,
        others: Vec::new(),
    })
}

/// The version of the Python in a process that [`access::check`] lets us read.
pub fn version(pid: Pid) -> Result<Version> {
    match find(pid, &Live::new(pid)) {
        Ok(runtime) => Ok(runtime.version),
        Err(_) => locate::version(pid),
    }
}

/// The runtime in memory that is no living process's; `None` where nothing tells.
pub fn find_in(memory: &impl Memory, regions: &[Region], program: Option<&str>) -> Option<Runtime> {
    let found = candidates::find(memory, regions, program);
    choose(memory, regions, &found)
}

/// The first that is alive. Where none is, the first that there is, which is starting; unless the one in use is one that
/// has no symbol.
fn choose(memory: &impl Memory, regions: &[Region], found: &Found) -> Option<Runtime> {
    let known = |pythons: &[Python]| {
        let known = pythons
            .iter()
            .filter_map(|python| read(memory, regions, python, found.rseq));
        known.partition(|runtime: &Runtime| runtime.is_alive(memory))
    };
    let (mut living, mut dead): (Vec<Runtime>, Vec<Runtime>) = known(&found.pythons);
    if living.is_empty() {
        let hidden = known(&candidates::without_symbols(memory, regions));
        living = hidden.0;
        dead.extend(hidden.1);
    }
    if living.is_empty() {
        return dead.into_iter().next().filter(|_| !found.older);
    }
    let mut chosen = living.remove(0);
    chosen.others = living.into_iter().map(|other| other.version).collect();
    Some(chosen)
}

/// What a candidate's memory says; `None` where it cannot be read or tells no version.
fn read(
    memory: &impl Memory,
    regions: &[Region],
    python: &Python,
    rseq: Option<i64>,
) -> Option<Runtime> {
    let mut head = vec![0; debug_offsets::SIZE];
    memory.read(python.runtime, &mut head).ok()?;
    Some(Runtime {
        address: python.runtime,
        version: version_of(memory, regions, python.runtime, &head, python.hex)?,
        code_type: python.code_type,
        rseq,
        head,
        others: Vec::new(),
    })
}

impl Runtime {
    /// Where things are in it; `None` for versions that are not known and for heads that do not agree with what is known.
    pub fn offsets(&self) -> Option<Offsets> {
        let Version {
            major,
            minor,
            free_threaded,
            ..
        } = self.version;
        let table = tables::for_build(major, minor, free_threaded)?;
        if debug_offsets::version_hex(&self.head).is_none() {
            return (self.version.minor < 13).then_some(table);
        }
        debug_offsets::apply(&self.head, self.version.minor, table).ok()
    }

    /// Whether it has an interpreter: a libpython that was merely loaded has none, nor has one that is starting or was
    /// finalised.
    fn is_alive(&self, memory: &impl Memory) -> bool {
        let offsets = self.offsets();
        let list = match &offsets {
            Some(offsets) => u64::from(offsets.interpreters_head),
            // Even of versions that are not known this field has always had its place in the block.
            None if debug_offsets::version_hex(&self.head).is_some() => {
                word(&self.head, 40).unwrap_or(0)
            }
            // 3.7: two ints, `finalizing`, `interpreters.mutex` (Include/internal/pystate.h).
            None => 24,
        };
        let head = self.address.checked_add(list);
        let interpreter = head.and_then(|head| memory.read_word(head).ok());
        match (interpreter, &offsets) {
            (None | Some(0), _) => false,
            (Some(address), Some(offsets)) => candidates::is_interpreter(memory, offsets, address),
            (Some(address), None) => memory.read_word(address).is_ok(),
        }
    }
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
    let mut end = regions.get(inside)?.start;
    for region in regions.get(inside..)? {
        // What follows without a gap is the rest of the binary's data.
        if region.start != end {
            break;
        }
        end = region.end;
        let mut bytes = vec![0; usize::try_from(region.size().min(DATA_LIMIT)).ok()?];
        memory.read(region.start, &mut bytes).ok()?;
        if let Some(version) = version_text(&bytes) {
            return Some(version);
        }
    }
    None
}

/// The version in a text such as `3.8.18 (default, `.
pub fn version_text(bytes: &[u8]) -> Option<Version> {
    let pattern = Regex::new(r"3\.(\d{1,2})\.(\d{1,2})((?:a|b|rc)\d{1,2})?\+? \(").ok()?;
    let found = pattern.captures(bytes)?;
    let text = |group| {
        found
            .get(group)
            .and_then(|m| std::str::from_utf8(m.as_bytes()).ok())
    };
    Some(Version {
        major: 3,
        minor: text(1)?.parse().ok()?,
        patch: text(2)?.parse().ok()?,
        suffix: text(3).unwrap_or_default().to_string(),
        free_threaded: false,
    })
}

/// The writable data of the binaries that hold Python or are called `prefix`, as far as it comes from their files.
pub fn writable_data(pid: Pid, memory: &impl Memory, prefix: &str) -> Vec<Vec<u8>> {
    let program = process::executable(pid).map(|path| path.to_string_lossy().into_owned());
    let regions = maps::regions(pid).unwrap_or_default();
    writable_data_in(&regions, program.as_deref(), memory, prefix)
}

/// The same in memory that is no living process's.
pub fn writable_data_in(
    regions: &[Region],
    program: Option<&str>,
    memory: &impl Memory,
    prefix: &str,
) -> Vec<Vec<u8>> {
    let wanted = |region: &Region| {
        let name = region.name.rsplit('/').next().unwrap_or_default();
        let starts = [prefix, "python", "libpython"];
        starts.iter().any(|start| name.starts_with(start)) || Some(region.name.as_str()) == program
    };
    let mut found = Vec::new();
    for region in regions {
        let of_file = region.readable() && region.writable() && region.name.starts_with('/');
        if !of_file || !wanted(region) {
            continue;
        }
        let mut bytes = vec![0; usize::try_from(region.size().min(DATA_LIMIT)).unwrap_or(0)];
        if memory.read(region.start, &mut bytes).is_ok() {
            found.push(bytes);
        }
    }
    found
}

/// The address as py-spy finds it, from the symbol tables of files.
fn by_files(pid: Pid) -> Result<u64> {
    let version = locate::version(pid)?;
    locate::symbol(pid, "_PyRuntime").ok_or_else(|| {
        let why = format!("its Python {version} has no symbol _PyRuntime");
        unsupported(pid, &why)
    })
}

/// The error for what our own readers do not know.
fn unsupported(pid: Pid, why: &str) -> Error {
    let what = format!("cannot read process {pid}");
    Error::new(ErrorKind::UnsupportedPython, what, why)
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
