//! Is it a CPython that we can read, and which version? Symbols and the version are found by py-spy's
//! `PythonProcessInfo`, which looks at the program and libpython through `/proc/PID`, so containers,
//! chroots and deleted programs work.

use py_spy::binary_parser::{BinaryInfo, parse_binary};
use py_spy::python_process_info::{
    ContainsAddr, PythonProcessInfo, get_python_version, is_python_lib,
};
use remoteprocess::ProcessMemory;

use super::maps::{self, Region};
use super::memory::Memory;
use super::{access, elf, process};
use crate::error::{Error, ErrorKind, Result};
use crate::units::{Pid, printable};

/// What kind of program it seems to be, from the names of its files alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProgramKind {
    /// A CPython: its program is called python, or it has loaded a libpython.
    Python,
    /// A PyPy, GraalPy or other implementation, which is not supported.
    OtherPython(&'static str),
    /// No sign of Python; it may still have one linked in statically.
    Unknown,
}

/// A version of CPython.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// 3 for all that is supported.
    pub major: u32,
    /// Such as 11.
    pub minor: u32,
    /// Such as 7; [`Version::UNKNOWN`] where nothing tells.
    pub patch: u32,
    /// `a1`, `b2`, `rc1`, or nothing for a release.
    pub suffix: String,
    /// Whether it is a free-threaded build (no GIL).
    pub free_threaded: bool,
}

impl Version {
    /// A patch release that is not known.
    pub const UNKNOWN: u32 = u32::MAX;
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.", self.major, self.minor)?;
        match self.patch {
            Version::UNKNOWN => f.write_str("?")?,
            patch => write!(f, "{patch}{}", self.suffix)?,
        }
        if self.free_threaded {
            f.write_str("t")
        } else {
            Ok(())
        }
    }
}

/// The oldest and newest minor versions of Python 3 that can be read.
pub const MINORS: std::ops::RangeInclusive<u32> = 6..=15;

/// What the names of a process's program and mapped files say.
pub fn kind(pid: Pid) -> ProgramKind {
    let Some(program) = process::executable(pid) else {
        // Not permitted, in all likelihood; what it was started as is told to everybody.
        return process::names(pid)
            .iter()
            .find_map(|name| kind_of_file(name))
            .unwrap_or(ProgramKind::Unknown);
    };
    let program = program
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    if let Some(kind) = kind_of_file(&program) {
        return kind;
    }
    let regions = maps::regions(pid).unwrap_or_default();
    let files = regions.iter().filter(|region| region.name.contains('/'));
    files
        .filter_map(|region| region.name.rsplit('/').next())
        .find_map(|name| kind_of_file(name).filter(|_| name.starts_with("lib")))
        .unwrap_or(ProgramKind::Unknown)
}

fn kind_of_file(name: &str) -> Option<ProgramKind> {
    let stem = name.strip_prefix("lib").unwrap_or(name);
    let versioned = |stem: &str, word: &str| {
        stem.strip_prefix(word)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(|c: char| !c.is_alphabetic()))
    };
    if versioned(stem, "python") {
        Some(ProgramKind::Python)
    } else if stem.starts_with("pypy") {
        Some(ProgramKind::OtherPython("PyPy"))
    } else if stem.starts_with("graalpy") || stem.starts_with("pythonvm") {
        Some(ProgramKind::OtherPython("GraalPy"))
    } else {
        None
    }
}

/// The version of a process that [`access::check`] lets us read; fails when it is not a CPython, or not
/// one that is supported.
pub fn version(pid: Pid) -> Result<Version> {
    if let ProgramKind::OtherPython(name) = kind(pid) {
        return Err(unsupported(pid, name));
    }
    let opened = remoteprocess::Process::new(pid.0).map_err(|_| process::gone(pid))?;
    let info = read_info(pid).map_err(|error| not_python(pid, &error))?;
    let has_symbols = [
        "_PyRuntime",
        "Py_Version",
        "Py_GetVersion",
        "interp_head",
        "Py_IsInitialized",
    ]
    .iter()
    .any(|name| info.get_symbol(name).is_some());
    if !has_symbols && kind(pid) == ProgramKind::Unknown {
        return Err(not_python(pid, "no Python in it"));
    }
    let version = get_python_version(&info, &opened).map_err(|error| not_python(pid, &error))?;
    let version = Version {
        major: version.major as u32,
        minor: version.minor as u32,
        patch: version.patch as u32,
        suffix: version.release_flags.clone(),
        free_threaded: info
            .get_symbol("_PyRuntime")
            .is_some_and(|address| is_free_threaded(&opened, *address)),
    };
    if version.major != 3 || !MINORS.contains(&version.minor) {
        return Err(unsupported(pid, &format!("Python {version}")));
    }
    Ok(version)
}

/// The mappings, as py-spy asks for them.
struct Mapped(Vec<Region>);

impl ContainsAddr for Mapped {
    fn contains_addr(&self, address: usize) -> bool {
        self.0.iter().any(|region| region.holds(address as u64))
    }
}

/// What the files of the program and libpython say. `PythonProcessInfo::new` reads the mappings as text, and fails for a
/// process that has mapped any file whose name is no UTF-8.
fn read_info(pid: Pid) -> Result<PythonProcessInfo, String> {
    let regions = maps::regions(pid).map_err(|error| error.to_string())?;
    // With the ` (deleted)` behind it that the mappings have too.
    let program = std::fs::read_link(format!("/proc/{pid}/exe"));
    let program = program.map(|path| path.to_string_lossy().into_owned());
    let is_program =
        |region: &&Region| region.executable() && Some(&region.name) == program.as_ref().ok();
    let first = regions.iter().find(is_program).or_else(|| regions.first());
    let first = first.ok_or("it has no memory")?;
    let program_file = format!("/proc/{pid}/exe");
    let python = parse_binary(program_file.as_ref(), first.start, first.size());
    let is_library = |region: &&Region| region.executable() && is_python_lib(&region.name);
    let library = regions.iter().filter(is_library);
    let library = library
        .min_by_key(|region| region.offset)
        .map(|region| library_info(pid, region))
        .transpose()?;
    let python = match (python, &library) {
        (Ok(python), _) => Some(python),
        (Err(_), Some(_)) => None,
        (Err(error), None) => return Err(error.to_string()),
    };
    Ok(PythonProcessInfo {
        python_binary: python,
        libpython_binary: library,
        maps: Box::new(Mapped(regions)),
        python_filename: program_file.into(),
        dockerized: false,
    })
}

/// The file of a libpython that is mapped at `region`: by its path, or, where that is no text, as what is mapped, which
/// takes root.
fn library_info(pid: Pid, region: &Region) -> Result<BinaryInfo, String> {
    let paths = [
        format!("/proc/{pid}/root{}", region.name),
        format!("/proc/{pid}/map_files/{:x}-{:x}", region.start, region.end),
    ];
    let parse = |path: &String| parse_binary(path.as_ref(), region.start, region.size());
    let found = paths.iter().find_map(|path| parse(path).ok());
    found.ok_or_else(|| format!("{} cannot be read", printable(&region.name)))
}

/// A mapped file whose name is no UTF-8: py-spy's reader takes no process that has one.
pub fn odd_mapping(pid: Pid) -> Option<String> {
    let regions = maps::regions(pid).unwrap_or_default();
    let replaced = |region: &Region| region.name.contains(char::REPLACEMENT_CHARACTER);
    let odd = regions.into_iter().find(replaced)?;
    Some(printable(&odd.name).into_owned())
}

/// The address of a symbol of the Python in a process, from its files' symbol tables.
pub fn symbol(pid: Pid, name: &str) -> Option<u64> {
    let info = read_info(pid).ok()?;
    info.get_symbol(name).copied()
}

/// All symbols of the Python in a process, from its files' symbol tables, by address.
pub fn symbols(pid: Pid) -> Vec<(u64, String)> {
    let Ok(info) = read_info(pid) else {
        return Vec::new();
    };
    let binaries = [info.python_binary, info.libpython_binary];
    let mut symbols: Vec<(u64, String)> = binaries
        .into_iter()
        .flatten()
        .flat_map(|binary| binary.symbols)
        .map(|(name, address)| (address, name))
        .collect();
    symbols.sort_unstable();
    symbols
}

/// Where the functions of the binary start that holds Python's, rising; empty when that is not known.
pub fn function_starts(pid: Pid, memory: &impl Memory, symbols: &[(u64, String)]) -> Vec<u64> {
    let known = symbols.iter().find(|(_, name)| name == "PyFunction_New");
    let regions = maps::regions(pid).unwrap_or_default();
    let binary = known.and_then(|(address, _)| {
        let code = regions.iter().find(|region| region.holds(*address))?;
        let same = |region: &&Region| {
            (region.inode, &region.device) == (code.inode, &code.device)
                && region.offset == 0
                && region.start <= code.start
        };
        regions.iter().rfind(same)
    });
    binary.map_or_else(Vec::new, |region| {
        elf::function_starts(memory, region.start)
    })
}

/// From 3.13 on `_PyRuntime` starts with `_Py_DebugOffsets`: cookie, version, free_threaded
/// (Include/internal/pycore_runtime.h of 3.13, pycore_debug_offsets.h of 3.14).
fn is_free_threaded(process: &remoteprocess::Process, runtime: u64) -> bool {
    let mut head = [0u8; 24];
    process.read(runtime as usize, &mut head).is_ok() && &head[..8] == b"xdebugpy" && head[16] == 1
}

/// The error for a Python that is not supported, `name` such as `PyPy` or `Python 2.7.18`.
fn unsupported(pid: Pid, name: &str) -> Error {
    Error::new(
        ErrorKind::UnsupportedPython,
        format!("cannot read process {pid}"),
        format!("{name} is not supported"),
    )
    .hint(format!(
        "CPython 3.{} to 3.{} is",
        MINORS.start(),
        MINORS.end()
    ))
}

/// Most processes that one has started of which it is asked whether they are Python, for a hint.
const MOST_BELOW: usize = 64;

/// Why a process cannot be read as Python: gone, forbidden, or not Python at all.
fn not_python(pid: Pid, reason: impl std::fmt::Display) -> Error {
    if let Err(error) = access::check(pid) {
        return error;
    }
    let program = process::executable(pid).unwrap_or_default();
    let why = match kind(pid) {
        ProgramKind::OtherPython(name) => return unsupported(pid, name),
        ProgramKind::Python => format!("its Python could not be recognised: {reason}"),
        ProgramKind::Unknown => format!("{} is not a Python process", program.display()),
    };
    let error = Error::new(
        ErrorKind::NotPython,
        format!("cannot read process {pid}"),
        why,
    );
    // A bootloader, a shell or a supervisor.
    let tree = process::tree(pid);
    let mut below = tree.into_iter().skip(1).take(MOST_BELOW);
    match below.find(|child| kind(*child) == ProgramKind::Python) {
        Some(child) => error.hint(format!(
            "process {child}, which it started, is one: {}",
            process::short_command_line(child)
        )),
        None => error.hint("biopsy ps lists the Python processes of this machine"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_tell_the_implementation() {
        for name in [
            "python",
            "python3",
            "python3.11",
            "python3.13t",
            "libpython3.11.so.1.0",
        ] {
            assert_eq!(kind_of_file(name), Some(ProgramKind::Python), "{name}");
        }
        assert_eq!(
            kind_of_file("pypy3.10"),
            Some(ProgramKind::OtherPython("PyPy"))
        );
        assert_eq!(
            kind_of_file("libpypy3.10-c.so"),
            Some(ProgramKind::OtherPython("PyPy"))
        );
        for name in ["bash", "pythonic", "libpythonize.so", "ls"] {
            assert_eq!(kind_of_file(name), None, "{name}");
        }
    }
}
