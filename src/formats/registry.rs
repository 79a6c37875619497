//! The table of formats: name, file names, exporter, importer.

use std::path::Path;

use super::{Exporter, Importer};
use crate::error::{Error, ErrorKind, Result};

/// One row of the table.
pub struct Format {
    /// The word for `--format`.
    pub name: &'static str,
    /// How file names of this format end (or begin, when the pattern ends in `*`), lower case.
    pub patterns: &'static [&'static str],
    /// One line for people.
    pub about: &'static str,
    /// Writes it.
    pub exporter: Option<&'static dyn Exporter>,
    /// Reads it.
    pub importer: Option<&'static dyn Importer>,
}

impl std::fmt::Debug for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Format")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// All formats. More specific file names stand before less specific ones (`.speedscope.json` before
/// `.json`).
pub static FORMATS: &[Format] = &[
    Format {
        name: "pstats",
        patterns: &[".prof", ".pstats"],
        about: "cProfile's own file: python -m pstats, snakeviz, gprof2dot, tuna",
        exporter: Some(&super::pstats::Pstats),
        importer: Some(&super::pstats::Pstats),
    },
    Format {
        name: "callgrind",
        patterns: &["callgrind.out.*", ".callgrind", ".calltree"],
        about: "callgrind with costs by line: KCachegrind, QCachegrind, callgrind_annotate",
        exporter: Some(&super::callgrind::Callgrind),
        importer: None,
    },
    Format {
        name: "flamegraph",
        patterns: &[".svg"],
        about: "flame graph: a browser",
        exporter: Some(&super::flamegraph::FlameGraph),
        importer: None,
    },
    Format {
        name: "collapsed",
        patterns: &[".collapsed", ".folded", ".txt"],
        about: "collapsed stacks: flamegraph.pl, inferno, speedscope",
        exporter: Some(&super::collapsed::Collapsed),
        importer: Some(&super::collapsed::Collapsed),
    },
    Format {
        name: "speedscope",
        patterns: &[".speedscope.json"],
        about: "speedscope",
        exporter: Some(&super::speedscope::Speedscope),
        importer: None,
    },
    Format {
        name: "gecko",
        patterns: &[".gecko.json"],
        about: "Firefox Profiler (processed profile): profiler.firefox.com",
        exporter: Some(&super::firefox::Firefox),
        importer: None,
    },
    Format {
        name: "pprof",
        patterns: &[".pb.gz"],
        about: "pprof: go tool pprof, Pyroscope, Parca",
        exporter: Some(&super::pprof::Pprof),
        importer: None,
    },
    Format {
        name: "html",
        patterns: &[".html", ".htm"],
        about: "one self-contained page, offline: a browser",
        exporter: Some(&super::html::Html),
        importer: None,
    },
    Format {
        name: "lprof",
        patterns: &[".lprof"],
        about: "line_profiler's file, hits and times by line: python -m line_profiler",
        exporter: Some(&super::lprof::Lprof),
        importer: Some(&super::lprof::Lprof),
    },
    Format {
        name: "biopsy",
        patterns: &[".biopsy"],
        about: "the full recording: biopsy report",
        exporter: Some(&super::recording::Recording),
        importer: Some(&super::recording::Recording),
    },
    Format {
        name: "json",
        patterns: &[".json"],
        about: "biopsy's own JSON (biopsy.profile/1): scripts, jq",
        exporter: Some(&super::json::Json),
        importer: None,
    },
];

impl Format {
    /// The exporter, or why there is none.
    pub fn exporter(&self) -> Result<&'static dyn Exporter> {
        self.exporter.ok_or_else(|| {
            Error::new(
                ErrorKind::NotAvailable,
                format!("cannot write {}", self.name),
                "this version of biopsy does not write it yet",
            )
            .hint(
                "a .svg flame graph opens in a browser too; a .biopsy file can be converted later",
            )
        })
    }
}

/// The format with this name.
pub fn by_name(name: &str) -> Result<&'static Format> {
    FORMATS.iter().find(|f| f.name == name).ok_or_else(|| {
        let names: Vec<&str> = FORMATS.iter().map(|f| f.name).collect();
        Error::usage(format!("no format '{name}'"), "see the list")
            .hint(format!("formats: table, {}", names.join(", ")))
    })
}

/// The format that a file name asks for.
pub fn by_file_name(path: &Path) -> Result<&'static Format> {
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().to_lowercase())
        .unwrap_or_default();
    let matching = FORMATS.iter().filter_map(|format| {
        let best = format
            .patterns
            .iter()
            .filter(|p| matches(&name, p))
            .map(|p| p.len())
            .max()?;
        Some((best, format))
    });
    matching
        .max_by_key(|(length, _)| *length)
        .map(|(_, format)| format)
        .ok_or_else(|| {
            Error::usage(
                format!("cannot tell the format of '{}'", path.display()),
                "its name has no known ending",
            )
            .hint(format!("endings: {}", endings().join(" ")))
            .hint("or name the format: --format callgrind")
        })
}

/// The first way to name a file of each format.
fn endings() -> Vec<&'static str> {
    FORMATS
        .iter()
        .filter_map(|format| format.patterns.iter().find(|p| p.starts_with('.')).copied())
        .collect()
}

fn matches(name: &str, pattern: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start) && name.len() > start.len(),
        None => name.ends_with(pattern),
    }
}

/// The format of a file's content.
pub fn sniff(head: &[u8]) -> Option<&'static Format> {
    FORMATS.iter().find(|format| {
        format
            .importer
            .is_some_and(|importer| importer.recognises(head))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_documented() {
        let mut names: Vec<&str> = FORMATS.iter().map(|f| f.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), FORMATS.len());
        assert!(
            FORMATS
                .iter()
                .all(|f| !f.about.is_empty() && !f.patterns.is_empty())
        );
    }

    #[test]
    fn file_names_choose_the_most_specific_format() {
        let of = |name: &str| {
            by_file_name(Path::new(name))
                .map(|f| f.name)
                .unwrap_or("none")
        };
        for (name, format) in [
            ("a.prof", "pstats"),
            ("out/A.PSTATS", "pstats"),
            ("callgrind.out.123", "callgrind"),
            ("callgrind.out.x.json", "callgrind"),
            ("a.calltree", "callgrind"),
            ("a.speedscope.json", "speedscope"),
            ("a.gecko.json", "gecko"),
            ("a.json", "json"),
            ("a.pb.gz", "pprof"),
            ("a.txt", "collapsed"),
            ("a.html", "html"),
            ("a.biopsy", "biopsy"),
            ("a.lprof", "lprof"),
            ("a.doc", "none"),
            ("callgrind.out.", "none"),
        ] {
            assert_eq!(of(name), format, "{name}");
        }
    }
}
