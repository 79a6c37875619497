//! Room on a file system, and files that have no name until they are whole.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

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
pub fn unnamed(folder: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_TMPFILE)
        .mode(0o600)
        .open(folder)
}

/// Gives an unnamed file the name `path`, in the folder that it was made in; what had that name goes.
pub fn name(file: &File, path: &Path) -> io::Result<()> {
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
    fn there_is_room_somewhere_and_none_where_nothing_is() {
        assert!(free(Path::new("/")).is_some());
        assert_eq!(free(Path::new("/nonexistent/folder")), None);
        assert_eq!(free(Path::new("/proc")), Some(0));
    }
}
