//! The source files of what was sampled: where they are, and what tells whether they are the same later.
//!
//! Names in code objects may be relative: to the folder in which the process was when it was told them, which is
//! taken to be its present one, or that of its environment (`PWD`) where the file is not there.
//!
//! Their text is kept too, so that what is shown beside the lines later is the code that ran.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use rustc_hash::FxHashSet;

use crate::profile::{FunctionKind, MOST_TEXT, SourceFile, Tables};
use crate::units::Pid;

/// Files that are read at most, and bytes of one and of all of them: some 100 ms.
const MOST_FILES: usize = 20_000;
const MOST_BYTES: u64 = 16 << 20;
const MOST_BYTES_OF_ALL: u64 = 256 << 20;
/// Bytes of text that are kept of all files together: some 8 MB of a recording. What a program runs has rarely a tenth of it.
const MOST_TEXT_OF_ALL: u64 = 32 << 20;

/// Our own folder, which is that of a program that we `started`: it may have left it before we look.
pub fn own_folder(started: bool) -> Option<PathBuf> {
    std::env::current_dir().ok().filter(|_| started)
}

/// Folders that relative names may be meant from, the likelier first.
pub fn folders(pid: Pid, started_in: Option<PathBuf>) -> Vec<PathBuf> {
    let present = fs::read_link(format!("/proc/{pid}/cwd")).ok();
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let mut words = environment.split(|byte| *byte == 0);
    let told = words.find_map(|word| word.strip_prefix(b"PWD="));
    let told = told.map(|path| PathBuf::from(std::ffi::OsStr::from_bytes(path)));
    let mut folders: Vec<PathBuf> = started_in.into_iter().chain(present).chain(told).collect();
    folders.retain(|folder| folder.is_absolute());
    folders.dedup();
    folders
}

/// The files of all Python functions in `tables`; `folders` are those of the process `pid`, which may have ended.
pub fn gather(pid: Pid, folders: &[PathBuf], tables: &Tables) -> Vec<SourceFile> {
    let mut names: FxHashSet<&str> = FxHashSet::default();
    let mut left = Left {
        bytes: MOST_BYTES_OF_ALL,
        text: MOST_TEXT_OF_ALL,
    };
    let mut found = Vec::new();
    for function in tables.functions() {
        let name = tables.text(function.file);
        if function.kind != FunctionKind::Python || names.len() >= MOST_FILES || !names.insert(name)
        {
            continue;
        }
        let places = folders.iter().map(|folder| folder.join(name));
        let mut sources = places.filter_map(|path| look(pid, name, &path, &mut left));
        found.extend(sources.next());
    }
    found
}

/// Bytes that may still be read, and kept.
struct Left {
    bytes: u64,
    text: u64,
}

/// The file as the process sees it, or as we do when it has ended.
fn look(pid: Pid, name: &str, path: &Path, left: &mut Left) -> Option<SourceFile> {
    let text = path.to_str()?;
    let inside = PathBuf::from(format!("/proc/{pid}/root{text}"));
    let open = |path: &Path| {
        let meta = fs::metadata(path).ok()?;
        let readable = meta.is_file() && meta.len() <= MOST_BYTES.min(left.bytes);
        readable.then(|| File::open(path).ok())?
    };
    let file = open(&inside).or_else(|| open(path))?;
    let meta = file.metadata().ok()?;
    let mut bytes = Vec::new();
    (&file).take(MOST_BYTES).read_to_end(&mut bytes).ok()?;
    let size = bytes.len() as u64;
    left.bytes = left.bytes.saturating_sub(size);
    let modified = meta.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(SourceFile {
        file: name.to_string(),
        path: text.to_string(),
        modified_ms: modified.as_millis() as u64,
        size,
        hash: crc32fast::hash(&bytes),
        text: (size <= MOST_TEXT.min(left.text)).then(|| {
            left.text -= size;
            Arc::from(String::from_utf8_lossy(&bytes))
        }),
    })
}
