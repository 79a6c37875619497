//! Named pipes, by which a program that we start can tell us something.

use std::ffi::CString;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Makes a named pipe that its owner alone can use, and opens it to read and write, so that neither side ever
/// waits for the other to open it.
pub fn create(path: &Path) -> std::io::Result<File> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: mkfifo(3) reads a string that ends with a zero byte and outlives the call.
    if unsafe { libc::mkfifo(name.as_ptr(), 0o600) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    File::options().read(true).write(true).open(path)
}
