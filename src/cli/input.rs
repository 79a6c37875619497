//! Recordings and other profiles from files.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::formats::{collapsed, registry};
use crate::profile::Profile;

/// Larger files are refused rather than read into memory.
const LIMIT: u64 = 4 << 30;

/// What is said of numbers of which nobody knows what they count.
pub const UNIT_UNKNOWN: &str = "the file does not say what its numbers count: shown as microseconds; if they are samples (py-spy, \
     profiling.sampling), say how long one is: --period 10ms for py-spy's default of 100 Hz";

/// What files are called in titles: their names without folders.
pub fn titles(paths: &[PathBuf]) -> String {
    let name = |path: &PathBuf| match path.file_name() {
        Some(name) => name.to_string_lossy().into_owned(),
        None => path.display().to_string(),
    };
    let names: Vec<String> = paths.iter().map(name).collect();
    names.join(" + ")
}

/// Reads a `.biopsy` recording, a `.prof` file, a `.lprof` file or collapsed stacks; `-` is stdin. `period`: the numbers of collapsed
/// stacks are samples of so much time each.
pub fn read_with(path: &Path, period: Option<Duration>) -> Result<Profile> {
    let shown = path.display().to_string();
    let data = read_bytes(path)?;
    // Where nothing was sampled, such a file has no line.
    let named = || registry::by_file_name(path).is_ok_and(|format| format.name == "collapsed");
    if data.is_empty() && named() {
        return Ok(collapsed::without_stacks());
    }
    let head = &data[..data.len().min(64 << 10)];
    let format = registry::sniff(head).ok_or_else(|| {
        let why = if data.is_empty() {
            "it is empty".to_string()
        } else {
            "it is no biopsy recording, no pstats file, no line_profiler file and no collapsed stacks (at byte 0)"
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
    let read = match period {
        None => importer.import(&data),
        Some(_) if format.name == "collapsed" => collapsed::import_with(&data, period),
        Some(_) => {
            return Err(Error::usage(
                format!("cannot use --period for {shown}"),
                "it says itself how long its samples are",
            )
            .hint("--period is for collapsed stacks, whose numbers may count anything"));
        }
    };
    read.map_err(|error| error.within(shown))
}

/// Fails for a profile that has nothing but times by line.
pub fn check_functions(profile: &Profile, path: &Path) -> Result<()> {
    if !profile.has_line_times() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::NotAvailable,
        format!("cannot show the functions of {}", path.display()),
        "a line profile has times by line alone",
    )
    .hint("its lines: biopsy report FILE"))
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
