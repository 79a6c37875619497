//! What a command is to read: a living process, a core file, or a snapshot of ours; told apart by what they are.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::image::Captured;
use super::memory::copy::{self, CaptureOptions, Report};
use super::memory::core;
use crate::error::{Error, ErrorKind, Result};
use crate::units::{Pid, printable};

/// The first bytes of a heap snapshot.
pub const SNAPSHOT_MAGIC: &[u8; 8] = b"BIOPSYHP";

/// Something that holds a heap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A living process.
    Process(Pid),
    /// A core file.
    Core(PathBuf),
    /// A snapshot.
    Snapshot(PathBuf),
}

impl Target {
    /// What `text` means: digits are a process id, all else is a file's path. Fails when the file cannot be read or
    /// is of neither kind.
    pub fn of(text: &str) -> Result<Target> {
        match process_id(text) {
            Some(pid) => Ok(Target::Process(pid?)),
            None => Target::of_file(Path::new(text)),
        }
    }

    /// What the file `path` is.
    pub fn of_file(path: &Path) -> Result<Target> {
        let shown = printable(&path.to_string_lossy()).into_owned();
        let mut head = Vec::new();
        File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(path)
            .and_then(|file| file.take(64).read_to_end(&mut head))
            .map_err(|error| Error::read(&shown, &error))?;
        if head.starts_with(SNAPSHOT_MAGIC) {
            return Ok(Target::Snapshot(path.to_path_buf()));
        }
        if core::is_core(&head) {
            return Ok(Target::Core(path.to_path_buf()));
        }
        let why = "it is neither a heap snapshot nor a core file";
        Err(
            Error::new(ErrorKind::BadFile, format!("cannot read {shown}"), why)
                .hint("biopsy heap snapshot PID -o FILE writes a snapshot, gcore PID a core file"),
        )
    }
}

/// The process id that `text` is when it is made of digits, or why it is none; `None` for all else.
pub fn process_id(text: &str) -> Option<Result<Pid>> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let wrong = || Error::usage(format!("wrong process id {text}"), "it is out of range");
    let pid = text.parse().ok().filter(|pid| *pid > 0);
    is_number.then(|| pid.map(Pid).ok_or_else(wrong))
}

/// The memory of `target`; `None` for a snapshot, which holds objects and no memory.
pub fn open(target: &Target, options: CaptureOptions) -> Result<Option<(Captured, Report)>> {
    match target {
        Target::Process(pid) => copy::capture(*pid, options).map(Some),
        Target::Core(path) => core::read(path).map(Some),
        Target::Snapshot(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_is_counts_and_not_what_it_is_called() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("core");
        let mut elf = [0; 64];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        for (bytes, kind) in [
            (&b"BIOPSYHP\x01"[..], Some(Target::Snapshot(path.clone()))),
            (
                &[&elf[..16], &[4, 0], &elf[18..]].concat(),
                Some(Target::Core(path.clone())),
            ),
            (&[&elf[..16], &[3, 0], &elf[18..]].concat(), None),
            (b"", None),
            (b"BIOPSY", None),
        ] {
            std::fs::write(&path, bytes).expect("written");
            let found = Target::of(path.to_str().expect("UTF-8"));
            match kind {
                Some(kind) => assert_eq!(found.expect("known"), kind),
                None => assert_eq!(found.expect_err("unknown").kind(), ErrorKind::BadFile),
            }
        }
        assert_eq!(
            Target::of("12").expect("a process"),
            Target::Process(Pid(12))
        );
        let missing = Target::of("./no/such/file").expect_err("missing");
        assert_eq!(missing.kind(), ErrorKind::CannotRead);
    }
}
