//! Room on a file system, and files that have no name until they are whole.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::error::{Error, ErrorKind, Result, io_reason};

/// Bytes that we may still write on the file system of `path`; `None` when that cannot be told.
pub fn free(path: &Path) -> Option<u64> {
    let name = CString::new(path.as_os_str().as_bytes()).ok()?;
    let mut stat = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: statvfs(3) reads a string that ends with a zero byte, and fills the struct that it is handed.
    if unsafe { libc::statvfs(name.as_ptr(), stat.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: it succeeded, so all of the struct is filled.
    let stat = unsafe { stat.assume_init() };
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// A new file in `folder` without a name, readable by its owner alone: it is gone when we are, whatever ends us. Fails
/// on file systems that have no such files.
fn unnamed(folder: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_TMPFILE)
        .mode(0o600)
        .open(folder)
}

/// Gives an unnamed file the name `path`, in the folder that it was made in; what had that name goes.
fn name(file: &File, path: &Path) -> io::Result<()> {
    let linked = link(file, path);
    if linked.as_ref().map_err(io::Error::kind) != Err(io::ErrorKind::AlreadyExists) {
        return linked;
    }
    // Names cannot be taken over by a link, but by a rename.
    let mut beside = path.as_os_str().to_os_string();
    beside.push(format!(".{}", std::process::id()));
    link(file, Path::new(&beside))?;
    std::fs::rename(&beside, path).inspect_err(|_| {
        let _ = std::fs::remove_file(&beside);
    })
}

fn link(file: &File, path: &Path) -> io::Result<()> {
    let from = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let to = CString::new(path.as_os_str().as_bytes())?;
    let here = libc::AT_FDCWD;
    // SAFETY: linkat(2) reads two strings that end with a zero byte.
    let answer = unsafe {
        libc::linkat(
            here,
            from.as_ptr(),
            here,
            to.as_ptr(),
            libc::AT_SYMLINK_FOLLOW,
        )
    };
    if answer == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Whether `path` names something that is written in place: a pipe, a terminal, `/dev/null`.
pub fn is_special(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| {
        let kind = meta.file_type();
        kind.is_char_device() || kind.is_fifo() || kind.is_block_device() || kind.is_socket()
    })
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Fails unless a file can be made beside `path` and take its place.
pub fn check_writable(path: &Path) -> Result<()> {
    let what = format!("cannot write {}", path.display());
    if path.is_dir() {
        return Err(Error::new(ErrorKind::CannotWrite, what, "it is a folder"));
    }
    if is_special(path) {
        return Ok(());
    }
    // It has no name, so that nothing is left behind if we are killed.
    tempfile::tempfile_in(folder_of(path))
        .map(drop)
        .map_err(|error| {
            let why = match error.kind() {
                io::ErrorKind::NotFound => "its folder does not exist".to_string(),
                _ => io_reason(
                    error
                        .get_ref()
                        .and_then(|e| e.downcast_ref())
                        .unwrap_or(&error),
                ),
            };
            Error::new(ErrorKind::CannotWrite, what, why)
        })
}

/// Writes `path` through a file without a name, or a temporary one beside it, so that a stop at any moment leaves
/// the old file or the new one. A `private` file is readable by its owner alone.
pub fn write_file<T>(
    path: &Path,
    private: bool,
    write: impl FnOnce(&mut dyn Write) -> Result<T>,
) -> Result<T> {
    let shown = path.display();
    let failed = |error: &io::Error| Error::write(shown.to_string(), error);
    if is_special(path) {
        let file = fs::OpenOptions::new()
            .write(true)
            .open(path)
            .map_err(|e| failed(&e))?;
        let mut file = BufWriter::new(file);
        let result = write(&mut file).map_err(|error| error.within(shown.to_string()))?;
        file.flush().map_err(|e| failed(&e))?;
        return Ok(result);
    }
    let folder = folder_of(path);
    let (file, place) = match unnamed(folder) {
        Ok(file) => (file, None),
        // Not every file system has those.
        Err(_) => {
            let temporary = tempfile::NamedTempFile::new_in(folder).map_err(|e| failed(&e))?;
            let (file, place) = temporary.into_parts();
            (file, Some(place))
        }
    };
    let mut file = BufWriter::new(file);
    let result = write(&mut file).map_err(|error| error.within(shown.to_string()))?;
    let file = file.into_inner().map_err(|e| failed(e.error()))?;
    if !private {
        let mode = 0o666 & !umask();
        file.set_permissions(fs::Permissions::from_mode(mode))
            .map_err(|e| failed(&e))?;
    }
    match place {
        Some(place) => place.persist(path).map_err(|e| failed(&e.error))?,
        None => name(&file, path).map_err(|e| failed(&e))?,
    }
    Ok(result)
}

/// The umask of this process, from `/proc` since asking the kernel would change it.
fn umask() -> u32 {
    fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let text = status
                .lines()
                .find_map(|line| line.strip_prefix("Umask:"))?;
            u32::from_str_radix(text.trim(), 8).ok()
        })
        .unwrap_or(0o077)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_gets_its_name_when_it_is_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a");
        let names = || {
            let entries = std::fs::read_dir(folder.path()).expect("the folder");
            entries.count()
        };
        for text in ["one", "two"] {
            let before = names();
            let mut file = unnamed(folder.path()).expect("made");
            std::io::Write::write_all(&mut file, text.as_bytes()).expect("written");
            assert_eq!(names(), before);
            name(&file, &path).expect("named");
            assert_eq!(std::fs::read_to_string(&path).expect("read"), text);
            assert_eq!(names(), 1);
        }
    }

    #[test]
    fn files_replace_their_elders_only_when_whole() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("a.json");
        fs::write(&path, "old").expect("write");
        let failing = write_file(&path, false, |out| {
            out.write_all(b"half").map_err(|e| Error::write("x", &e))?;
            Err::<(), Error>(Error::usage("a", "b"))
        });
        assert!(failing.is_err());
        assert_eq!(fs::read_to_string(&path).expect("read"), "old");
        write_file(&path, true, |out| {
            out.write_all(b"new").map_err(|e| Error::write("x", &e))
        })
        .expect("written");
        assert_eq!(fs::read_to_string(&path).expect("read"), "new");
        assert_eq!(
            fs::metadata(&path).expect("meta").permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(fs::read_dir(folder.path()).expect("list").count(), 1);
    }

    #[test]
    fn there_is_room_somewhere_and_none_where_nothing_is() {
        assert!(free(Path::new("/")).is_some());
        assert_eq!(free(Path::new("/nonexistent/folder")), None);
        assert_eq!(free(Path::new("/proc")), Some(0));
    }
}
