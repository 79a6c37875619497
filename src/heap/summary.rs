//! A summary as a file: JSON that other programs read, and that is read back to be compared. A field is never lost or renamed within a
//! version.

use std::time::SystemTime;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

use super::census::{Census, Counting, Doubts, TypeCount, Unsure};
use super::diff::Amount;
use crate::error::{Error, ErrorKind, Result};
use crate::target::process;
use crate::units::printable;

/// What a summary's `schema` is.
pub const SUMMARY: &str = "biopsy.heap-summary/1";

/// Times as `2026-11-22T01:51:24.123Z`.
pub fn time_text(time: SystemTime) -> String {
    DateTime::<Utc>::from(time).to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Objects and bytes, in JSON.
#[derive(Debug, Serialize, Deserialize, Clone, Copy)]
pub struct TotalDocument {
    /// How many.
    pub objects: u64,
    /// Their sizes.
    pub bytes: u64,
}

impl From<Amount> for TotalDocument {
    fn from(amount: Amount) -> Self {
        TotalDocument {
            objects: amount.objects,
            bytes: amount.bytes,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct TypeDocument {
    #[serde(rename = "type")]
    name: String,
    objects: u64,
    bytes: u64,
}

#[derive(Serialize, Deserialize, Default)]
struct DoubtsDocument {
    torn: u64,
    unreadable: u64,
    conservative: u64,
    /// Bytes that a core file lacks since it was cut short.
    #[serde(default, skip_serializing_if = "is_zero")]
    missing_bytes: u64,
    /// Types of which the objects are that `conservative` counts, and classes whose own `__sizeof__` is not run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    unknown_layout: Vec<UnsureDocument>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    own_sizeof: Vec<UnsureDocument>,
}

#[derive(Serialize, Deserialize)]
struct UnsureDocument {
    #[serde(rename = "type")]
    name: String,
    objects: u64,
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for a reference"
)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn unsure(found: &[(String, u64)]) -> Vec<UnsureDocument> {
    let document = |(name, objects): &(String, u64)| UnsureDocument {
        name: name.clone(),
        objects: *objects,
    };
    found.iter().map(document).collect()
}

fn read_unsure(found: Vec<UnsureDocument>) -> Vec<(String, u64)> {
    found
        .into_iter()
        .map(|row| (row.name, row.objects))
        .collect()
}

impl From<&Census> for DoubtsDocument {
    fn from(census: &Census) -> Self {
        let doubts = census.doubts;
        DoubtsDocument {
            torn: doubts.torn,
            unreadable: doubts.unreadable,
            conservative: doubts.conservative,
            missing_bytes: doubts.missing,
            unknown_layout: unsure(&census.unsure.layout),
            own_sizeof: unsure(&census.unsure.size),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct SummaryDocument {
    schema: String,
    python: String,
    pid: Option<i32>,
    command: String,
    taken_at: String,
    pause_ms: Option<f64>,
    rss_bytes: Option<u64>,
    /// `reachable` or `muppy`.
    counting: String,
    /// Whether all numbers are lower bounds, as those of a core file that was cut short.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    lower_bounds: bool,
    #[serde(default)]
    doubts: DoubtsDocument,
    /// Of all types, whether they are listed or not.
    total: TotalDocument,
    types: Vec<TypeDocument>,
}

/// `biopsy.heap-summary/1` with those of its types that are `chosen`.
pub fn write<'a>(
    census: &Census,
    chosen: impl IntoIterator<Item = &'a TypeCount>,
) -> Result<String> {
    let (objects, bytes) = census.total();
    let document = SummaryDocument {
        schema: SUMMARY.to_string(),
        python: census.python.clone(),
        pid: census.pid,
        command: census.command.clone(),
        taken_at: time_text(census.taken_at),
        pause_ms: census.pause_ms,
        rss_bytes: census.rss_bytes,
        counting: match census.counting {
            Counting::Reachable => "reachable",
            Counting::Muppy => "muppy",
        }
        .to_string(),
        lower_bounds: census.is_cut(),
        doubts: census.into(),
        total: TotalDocument { objects, bytes },
        types: chosen.into_iter().map(type_document).collect(),
    };
    serde_json::to_string_pretty(&document)
        .map(|text| text + "\n")
        .map_err(|error| Error::new(ErrorKind::Failed, "cannot write JSON", error.to_string()))
}

fn type_document(row: &TypeCount) -> TypeDocument {
    TypeDocument {
        name: row.name.clone(),
        objects: row.objects,
        bytes: row.bytes,
    }
}

/// Reads a summary back; `name` is the file's.
pub fn read(name: &str, data: &[u8]) -> Result<Census> {
    let bad = |offset: usize, why: String| {
        Error::bad_file(format!("cannot read {name}"), offset as u64, why)
    };
    let document: SummaryDocument = serde_json::from_slice(data).map_err(|error| {
        let why = error.to_string();
        let why = why.split(" at line ").next().unwrap_or_default();
        bad(
            offset_of(data, error.line(), error.column()),
            format!("it is no summary in JSON ({})", printable(why)),
        )
    })?;
    if document.schema != SUMMARY {
        let schema = printable(&document.schema);
        return Err(bad(0, format!("its schema is {schema}, not {SUMMARY}")));
    }
    let counting = match document.counting.as_str() {
        "reachable" => Counting::Reachable,
        "muppy" => Counting::Muppy,
        other => {
            let other = printable(other);
            return Err(bad(0, format!("its counting '{other}' is not known")));
        }
    };
    let taken_at = DateTime::parse_from_rfc3339(&document.taken_at)
        .map_err(|error| bad(0, format!("its taken_at is no time ({error})")))?;
    let types = document.types.into_iter().map(|row| TypeCount {
        name: row.name,
        objects: row.objects,
        bytes: row.bytes,
    });
    let census = Census {
        counting,
        python: document.python,
        pid: document.pid,
        command: process::without_arguments(&document.command),
        taken_at: taken_at.into(),
        pause_ms: document.pause_ms,
        rss_bytes: document.rss_bytes,
        types: types.collect(),
        doubts: Doubts {
            torn: document.doubts.torn,
            unreadable: document.doubts.unreadable,
            conservative: document.doubts.conservative,
            missing: document.doubts.missing_bytes,
        },
        unsure: Unsure {
            layout: read_unsure(document.doubts.unknown_layout),
            size: read_unsure(document.doubts.own_sizeof),
        },
    };
    if census.total() != (document.total.objects, document.total.bytes) {
        return Err(Error::new(
            ErrorKind::BadFile,
            format!("cannot read {name}"),
            "it does not have all types (its types do not add up to its total)",
        )
        .hint("make it without --type, --limit and --min-size"));
    }
    Ok(census)
}

/// Where line and column (from 1) are.
fn offset_of(data: &[u8], line: usize, column: usize) -> usize {
    let before: usize = data
        .split_inclusive(|byte| *byte == b'\n')
        .take(line.saturating_sub(1))
        .map(<[u8]>::len)
        .sum();
    (before + column.saturating_sub(1)).min(data.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn census() -> Census {
        Census {
            counting: Counting::Muppy,
            python: "3.12.1".to_string(),
            pid: Some(42),
            command: "python a.py".to_string(),
            taken_at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_763_776_284_123),
            pause_ms: Some(8.5),
            rss_bytes: Some(1 << 24),
            types: vec![
                TypeCount {
                    name: "dict".to_string(),
                    objects: 3,
                    bytes: 300,
                },
                TypeCount {
                    name: "a \"b\" \u{1b}".to_string(),
                    objects: 1,
                    bytes: 20,
                },
            ],
            doubts: Doubts {
                missing: 0,
                torn: 1,
                unreadable: 2,
                conservative: 3,
            },
            unsure: Unsure {
                layout: vec![("a.Type".to_string(), 3)],
                size: Vec::new(),
            },
        }
    }

    #[test]
    fn a_summary_comes_back_as_it_was() {
        let census = census();
        let text = write(&census, &census.types).expect("JSON");
        assert_eq!(read("x", text.as_bytes()).expect("read"), census);
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(value["schema"], SUMMARY);
        assert_eq!(value["taken_at"], "2025-11-22T01:51:24.123Z");
        assert_eq!(value["total"]["bytes"], 320);
    }

    #[test]
    fn what_is_no_whole_summary_is_refused_with_the_place() {
        let part = write(&census(), census().types.first()).expect("JSON");
        let error = read("x", part.as_bytes()).expect_err("partial");
        assert!(error.to_string().contains("all types"), "{error}");
        let whole = write(&census(), &census().types).expect("JSON");
        let cut = &whole[..whole.len() / 2];
        let error = read("x", cut.as_bytes()).expect_err("cut").to_string();
        assert!(
            error.contains("(at byte ") && !error.contains('\n'),
            "{error}"
        );
        for wrong in [
            whole.replace("heap-summary/1", "heap-diff/1"),
            whole.replace("muppy", "other"),
            whole.replace("2025-", "x"),
            whole.replace("300", "-3"),
            "{}".to_string(),
            "[]".to_string(),
        ] {
            let error = read("x", wrong.as_bytes()).expect_err("wrong");
            assert_eq!(error.kind(), ErrorKind::BadFile, "{wrong}");
        }
    }
}
