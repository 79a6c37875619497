//! Where a process may have a Python runtime: `_PyRuntime` in the dynamic symbols of each binary that is mapped (see `elf`),
//! and what a runtime looks like where symbols are stripped. A process may hold several: an extension may bring a libpython
//! of its own. Which one is alive is judged by `runtime`.

use super::super::elf::Symbols;
use super::super::maps::Region;
use super::super::memory::Memory;
use super::{DATA_LIMIT, version_text};
use crate::layout::{self, Offsets, at, debug_offsets, tables, version};

/// Most Pythons in one process that are looked at.
const MOST_PYTHONS: usize = 16;

/// A mapped binary: address of its first byte, and its path.
struct Binary {
    start: u64,
    path: String,
}

/// What symbols tell.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Those of binaries called python or libpython first, then the program's, then others.
    pub(super) pythons: Vec<Python>,
    /// Whether there is a Python older than 3.7, which has no such symbol.
    pub(super) older: bool,
    /// See [`Runtime`](super::Runtime).
    pub(super) rseq: Option<i64>,
}

/// A runtime's place.
#[derive(Debug)]
pub(super) struct Python {
    /// `_PyRuntime`.
    pub(super) runtime: u64,
    /// `PyCode_Type`.
    pub(super) code_type: Option<u64>,
    /// What `Py_Version` holds (3.11 and newer).
    pub(super) hex: Option<u32>,
}

/// All that symbols tell of.
pub(super) fn find(memory: &impl Memory, regions: &[Region], program: Option<&str>) -> Found {
    let mut found = Found::default();
    for binary in binaries(regions, program) {
        let name = binary.path.rsplit('/').next().unwrap_or_default();
        if name.starts_with("ld-linux") || name.starts_with("ld-2") {
            found.rseq = found.rseq.or_else(|| rseq_offset(memory, &binary));
        } else if found.pythons.len() < MOST_PYTHONS
            && let Some(symbols) = Symbols::of_binary(memory, binary.start)
        {
            found.pythons.extend(python_in(memory, &symbols));
            found.older |= is_older(memory, &symbols);
        }
    }
    found
}

/// `_PyRuntime`, `PyCode_Type` and `Py_Version` of one binary.
fn python_in(memory: &impl Memory, symbols: &Symbols) -> Option<Python> {
    let runtime = symbols.find(memory, "_PyRuntime")?;
    let hex = symbols.find(memory, "Py_Version").and_then(|address| {
        let word = memory.read_word(address).ok()?;
        u32::try_from(word & 0xffff_ffff).ok()
    });
    Some(Python {
        runtime,
        code_type: symbols.find(memory, "PyCode_Type"),
        hex,
    })
}

/// Whether a binary holds a Python older than 3.7.
fn is_older(memory: &impl Memory, symbols: &Symbols) -> bool {
    symbols.find(memory, "_PyThreadState_Current").is_some()
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

/// Whether `address` is an interpreter state: it has a thread, and that knows it.
pub(super) fn is_interpreter(memory: &impl Memory, offsets: &Offsets, address: u64) -> bool {
    let word = |base: u64, offset: u32| {
        let address = base.checked_add(offset.into()).filter(|_| base != 0)?;
        memory.read_word(address).ok()
    };
    word(address, offsets.interpreter.threads_head)
        .and_then(|thread| word(thread, offsets.thread.interp))
        == Some(address)
}

/// Runtimes that no symbol tells of.
pub(super) fn without_symbols(memory: &impl Memory, regions: &[Region]) -> Vec<Python> {
    let mut found = by_cookie(memory, regions);
    if found.is_empty() {
        found.extend(by_pointer(memory, regions));
    }
    let python = |runtime| Python {
        runtime,
        code_type: None,
        hex: None,
    };
    found.into_iter().map(python).collect()
}

/// The block of offsets that starts the runtime (3.13 and newer) in the data of a binary, whose file is not there.
fn by_cookie(memory: &impl Memory, regions: &[Region]) -> Vec<u64> {
    let known = |block: &[u8]| debug_offsets::version_hex(block).and_then(version::from_hex);
    let nameless = are_nameless(regions);
    let data = regions
        .iter()
        .filter(|region| region.writable() && (nameless || region.of_file()));
    data.filter_map(|region| {
        let mut bytes = vec![0; usize::try_from(region.size().min(DATA_LIMIT)).ok()?];
        memory.read(region.start, &mut bytes).ok()?;
        let at = (0..bytes.len())
            .step_by(8)
            .find(|at| bytes.get(*at..).and_then(known).is_some())?;
        region.start.checked_add(at as u64)
    })
    .take(MOST_PYTHONS)
    .collect()
}

/// Whether it is not known of what files the regions are: of a core file that was cut before they are named. Any of them may
/// be a binary's then.
fn are_nameless<'a>(regions: impl IntoIterator<Item = &'a Region>) -> bool {
    let mut regions = regions.into_iter();
    regions.all(|region| region.name.is_empty())
}

/// An initialised runtime before 3.13 in the data of a binary: `initialized` is 1, and the list's head is an interpreter.
fn by_pointer(memory: &impl Memory, regions: &[Region]) -> Option<u64> {
    let writable = |region: &&Region| region.readable() && region.writable();
    let regions: Vec<&Region> = regions.iter().filter(writable).collect();
    let nameless = are_nameless(regions.iter().copied());
    for (index, first) in regions.iter().enumerate() {
        if !first.of_file() && !nameless {
            continue;
        }
        // What follows without a gap and a name is the rest of the binary's data.
        let rest = regions.get(index + 1..).unwrap_or_default();
        let mut end = first.end;
        for region in rest {
            if region.start != end || !region.name.is_empty() {
                break;
            }
            end = region.end;
        }
        let size = (end - first.start).min(DATA_LIMIT);
        let mut bytes = vec![0; usize::try_from(size).ok()?];
        if memory.read(first.start, &mut bytes).is_err() {
            continue;
        }
        let Some(version) = version_text(&bytes) else {
            continue;
        };
        let Some(offsets) = tables::for_version(version.major, version.minor) else {
            continue;
        };
        let runtime_at = |head: usize| {
            let initialized = head.checked_sub(at(offsets.initialized))?;
            let flag = bytes.get(initialized..initialized.checked_add(4)?)?;
            let interpreter = layout::word(&bytes, head)?;
            let head = first.start.checked_add(head as u64)?;
            let known = || is_interpreter(memory, &offsets, interpreter);
            let runtime = head.checked_sub(offsets.interpreters_head.into())?;
            (flag == [1, 0, 0, 0] && interpreter != 0 && known()).then_some(runtime)
        };
        if let Some(runtime) = (0..bytes.len()).step_by(8).find_map(runtime_at) {
            return Some(runtime);
        }
    }
    None
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
