//! Recordings and other profiles from files.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::formats::registry;
use crate::profile::Profile;

/// Larger files are refused rather than read into memory.
const LIMIT: u64 = 4 << 30;

/// Reads a `.biopsy` recording, a `.prof` file or collapsed stacks; `-` is stdin.
pub fn read(path: &Path) -> Result<Profile> {
    let shown = path.display().to_string();
    let data = read_bytes(path)?;
    let head = &data[..data.len().min(64 << 10)];
    let format = registry::sniff(head).ok_or_else(|| {
        let why = if data.is_empty() {
            "it is empty".to_string()
        } else {
            "it is no biopsy recording, no pstats file and no collapsed stacks (at byte 0)"
                .to_string()
        };
        Error::new(ErrorKind::BadFile, format!("cannot read {shown}"), why)
    })?;
    let importer = format.importer.ok_or_else(|| {
        Error::new(
            ErrorKind::BadFile,
            format!("cannot read {shown}"),
            "its format is write-only",
        )
    })?;
    importer.import(&data).map_err(|error| error.within(shown))
}

fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    let mut data = Vec::new();
    let failed = |error: &std::io::Error| Error::read(path.display(), error);
    let mut reader: Box<dyn Read> = if path.as_os_str() == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        let file = File::open(path).map_err(|error| failed(&error))?;
        if file.metadata().is_ok_and(|meta| meta.is_dir()) {
            return Err(Error::new(
                ErrorKind::CannotRead,
                format!("cannot read {}", path.display()),
                "it is a folder",
            ));
        }
        Box::new(file)
    };
    reader
        .by_ref()
        .take(LIMIT + 1)
        .read_to_end(&mut data)
        .map_err(|error| failed(&error))?;
    if data.len() as u64 > LIMIT {
        return Err(Error::new(
            ErrorKind::BadFile,
            format!("cannot read {}", path.display()),
            "it is larger than 4 GiB",
        ));
    }
    Ok(data)
}
