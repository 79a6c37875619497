//! Room on a file system.

use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_somewhere_and_none_where_nothing_is() {
        assert!(free(Path::new("/")).is_some());
        assert_eq!(free(Path::new("/nonexistent/folder")), None);
        assert_eq!(free(Path::new("/proc")), Some(0));
    }
}
