//! Profiles to and from files. A format's bytes never depend on a terminal, a process or a clock.
//!
//! Each format has one file; [`registry`] lists them with their names and what each loses.

pub mod callgrind;
pub mod collapsed;
mod depth;
pub mod firefox;
pub mod flamegraph;
pub mod html;
pub mod json;
pub mod lprof;
pub mod marshal;
pub mod pprof;
pub mod pstats;
pub mod recording;
pub mod registry;
pub mod speedscope;

use std::io::Write;

use crate::error::{Error, ErrorKind, Result};
use crate::profile::{Filter, FunctionId, Profile};

/// What an output is made of and how.
#[derive(Debug, Clone, Default)]
pub struct ExportOptions {
    /// Which samples count and what is kept apart.
    pub filter: Filter,
    /// File names without folders, as `pstats.Stats.strip_dirs()` has them.
    pub strip_dirs: bool,
    /// Qualified names, where they are known, in pictures.
    pub qualnames: bool,
    /// The functions whose lines are meant; `None` for all of them.
    pub line_functions: Option<Vec<FunctionId>>,
    /// What the profile is called where no command is known, such as the name of its file; empty for nothing.
    pub title: String,
}

impl ExportOptions {
    /// The command of what was recorded, else the title.
    pub fn title<'a>(&'a self, profile: &'a Profile) -> &'a str {
        match profile.meta.command.as_str() {
            "" => &self.title,
            command => command,
        }
    }

    /// A file name as this output is to show it.
    pub fn file_name<'a>(&self, file: &'a str) -> &'a str {
        match file.rfind('/') {
            Some(at) if self.strip_dirs => file.get(at + 1..).unwrap_or(file),
            _ => file,
        }
    }
}

/// Something that the format could not carry and left out; said to the user once.
pub type Loss = String;

/// What formats leave out that have no place for words about the numbers.
fn unsaid(profile: &Profile) -> Option<Loss> {
    let approximate = profile.meta.approximate_stacks;
    approximate.then(|| "approximate stacks, which the file has no place to say".to_string())
}

/// The same, of formats with numbers of calls that do not show that they are lower bounds in `bounds` of `rows`.
fn unsaid_bounds(bounds: usize, rows: usize, seen_by: &str) -> Option<Loss> {
    let functions = if rows == 1 { "function" } else { "functions" };
    (bounds > 0)
        .then(|| format!("the calls of {bounds} of {rows} {functions} are lower bounds, {seen_by}"))
}

/// Fails for a profile of which it is not known when things happened.
fn check_timeline(profile: &Profile) -> Result<()> {
    if profile.has_timeline() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::NotAvailable,
        "cannot write when things happened",
        "the profile was recorded without a timeline",
    ))
}

/// Writes a profile.
pub trait Exporter: Sync {
    /// Whether it shows when things happened: most that do refuse a profile without a timeline.
    fn needs_timeline(&self) -> bool {
        false
    }

    /// Writes `profile` to `out` and says what was left out. Fails only when `out` fails or the profile
    /// has nothing that the format could show.
    fn export(
        &self,
        profile: &Profile,
        options: &ExportOptions,
        out: &mut dyn Write,
    ) -> Result<Vec<Loss>>;
}

/// Reads a profile.
pub trait Importer: Sync {
    /// Whether `head` (the first bytes of a file, at most 64 KiB) looks like this format.
    fn recognises(&self, head: &[u8]) -> bool;

    /// Reads a whole file. The bytes are hostile: every length is bounded by what is there, and errors
    /// name the offset.
    fn import(&self, data: &[u8]) -> Result<Profile>;
}
