//! The JSON documents of the heap commands, and reading a summary back. A field is never lost or renamed within
//! a version.

use std::time::SystemTime;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

use super::why_json;
use crate::error::{Error, ErrorKind, Result};
use crate::heap::Object;
use crate::heap::census::{Census, Counting, Doubts, TypeCount, Unsure};
use crate::heap::diff::{Actual, Amount, Broken, CensusDiff, DiffRow, Fates};
use crate::heap::graph::Sizes;
use crate::heap::growth::Growing;
use crate::heap::why::TypeReason;
use crate::target::process;
use crate::view::heap::Rows;
use crate::view::heap::diff::Comparison;
use crate::view::heap::watch::Step;

/// What a summary's `schema` is.
pub const SUMMARY: &str = "biopsy.heap-summary/1";

fn failed(error: &serde_json::Error) -> Error {
    Error::new(ErrorKind::Failed, "cannot write JSON", error.to_string())
}

fn text(document: &impl Serialize) -> Result<String> {
    serde_json::to_string_pretty(document)
        .map(|text| text + "\n")
        .map_err(|error| failed(&error))
}

/// A document in one line.
fn line(document: &impl Serialize) -> Result<String> {
    serde_json::to_string(document)
        .map(|text| text + "\n")
        .map_err(|error| failed(&error))
}

/// Times as `2026-11-22T01:51:24.123Z`.
fn time_text(time: SystemTime) -> String {
    DateTime::<Utc>::from(time).to_rfc3339_opts(SecondsFormat::Millis, true)
}

#[derive(Serialize, Deserialize, Clone, Copy)]
struct TotalDocument {
    objects: u64,
    bytes: u64,
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

/// `biopsy.heap-summary/1` of the chosen rows.
pub fn summary(census: &Census, rows: &Rows) -> Result<String> {
    let (objects, bytes) = census.total();
    let (chosen, _) = rows.of_types(&census.types);
    text(&SummaryDocument {
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
    })
}

fn type_document(row: &TypeCount) -> TypeDocument {
    TypeDocument {
        name: row.name.clone(),
        objects: row.objects,
        bytes: row.bytes,
    }
}

/// Reads a summary back; `name` is the file's.
pub fn read_summary(name: &str, data: &[u8]) -> Result<Census> {
    let bad = |offset: usize, why: String| {
        Error::bad_file(format!("cannot read {name}"), offset as u64, why)
    };
    let document: SummaryDocument = serde_json::from_slice(data).map_err(|error| {
        let why = error.to_string();
        let why = why.split(" at line ").next().unwrap_or_default();
        bad(
            offset_of(data, error.line(), error.column()),
            format!(
                "it is no summary in JSON ({})",
                crate::units::printable(why)
            ),
        )
    })?;
    if document.schema != SUMMARY {
        let schema = crate::units::printable(&document.schema);
        return Err(bad(0, format!("its schema is {schema}, not {SUMMARY}")));
    }
    let counting = match document.counting.as_str() {
        "reachable" => Counting::Reachable,
        "muppy" => Counting::Muppy,
        other => {
            let other = crate::units::printable(other);
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

#[derive(Serialize)]
struct ObjectDocument<'a> {
    address: String,
    #[serde(rename = "type")]
    name: &'a str,
    bytes: u64,
    refcount: u64,
}

/// One object in one line.
pub fn object(object: &Object) -> Result<String> {
    line(&ObjectDocument {
        address: format!("{:#x}", object.address),
        name: object.kind,
        bytes: object.bytes,
        refcount: object.refcount,
    })
}

#[derive(Serialize)]
struct ChangeDocument {
    objects: i64,
    bytes: i64,
}

#[derive(Serialize)]
struct DiffTypeDocument<'a> {
    #[serde(rename = "type")]
    name: &'a str,
    objects: i64,
    bytes: i64,
    old: TotalDocument,
    new: TotalDocument,
}

#[derive(Serialize)]
struct BrokenDocument<'a> {
    rule: &'a str,
    /// Null for rules about all objects.
    #[serde(rename = "type")]
    name: Option<&'a str>,
    /// By how much it grew, in the unit of the rule; null for per cent of nothing.
    actual: Option<f64>,
    /// `objects`, `bytes` or `percent`.
    unit: &'static str,
}

#[derive(Serialize)]
struct FatesDocument<'a> {
    #[serde(rename = "type")]
    name: &'a str,
    new: TotalDocument,
    gone: TotalDocument,
    survived: TotalDocument,
    /// Bytes by which those that survived grew.
    grew_bytes: i64,
    /// Of the new ones, so many have a gone one's address, type and size: moved to another holder, or the address was used again.
    new_at_old_addresses: u64,
}

#[derive(Serialize)]
struct DiffDocument<'a> {
    schema: &'static str,
    old: &'a str,
    new: &'a str,
    /// Versions of Python, with which the sizes of objects change.
    old_python: &'a str,
    new_python: &'a str,
    total: ChangeDocument,
    types: Vec<DiffTypeDocument<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    objects: Option<Vec<FatesDocument<'a>>>,
    rules: &'a [String],
    broken: Vec<BrokenDocument<'a>>,
    /// What the bytes of `why` are: `blocks` of the allocators (`debug-blocks` with what their debug hooks add), or
    /// `getsizeof`, as all others are.
    #[serde(skip_serializing_if = "Option::is_none")]
    why_sizes: Option<&'static str>,
    /// Why types grew, where that was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    why: Vec<why_json::ReasonDocument<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    why_rest: Vec<why_json::RestDocument<'a>>,
}

fn diff_rows<'a>(diff: &'a CensusDiff, rows: &Rows) -> Vec<DiffTypeDocument<'a>> {
    let changed = diff
        .rows
        .iter()
        .filter(|row| row.objects() != 0 || row.bytes() != 0);
    let (chosen, _) = rows.choose(changed, |row: &DiffRow| {
        (
            &row.name,
            i128::from(row.bytes()),
            i128::from(row.objects()),
        )
    });
    chosen
        .into_iter()
        .map(|row| DiffTypeDocument {
            name: &row.name,
            objects: row.objects(),
            bytes: row.bytes(),
            old: row.old.unwrap_or_default().into(),
            new: row.new.unwrap_or_default().into(),
        })
        .collect()
}

fn broken_document(broken: &Broken) -> BrokenDocument<'_> {
    let (actual, unit) = match broken.actual {
        Actual::Objects(objects) => (objects as f64, "objects"),
        Actual::Bytes(bytes) => (bytes as f64, "bytes"),
        Actual::Percent(percent) => (percent, "percent"),
    };
    BrokenDocument {
        rule: &broken.rule,
        name: broken.name.as_deref(),
        actual: actual.is_finite().then_some(actual),
        unit,
    }
}

/// `biopsy.heap-diff/1` of the chosen rows that changed.
pub fn diff(comparison: &Comparison, rows: &Rows) -> Result<String> {
    let fates = |fates: &Fates| fates.new.objects > 0 || fates.gone.objects > 0 || fates.grew != 0;
    text(&DiffDocument {
        schema: "biopsy.heap-diff/1",
        old: comparison.old,
        new: comparison.new,
        old_python: comparison.pythons.0,
        new_python: comparison.pythons.1,
        total: ChangeDocument {
            objects: comparison.types.objects(),
            bytes: comparison.types.bytes(),
        },
        types: diff_rows(comparison.types, rows),
        objects: comparison.fates.map(|all| {
            all.iter()
                .filter(|row| fates(row) && rows.wants(&row.name))
                .map(|row| FatesDocument {
                    name: &row.name,
                    new: row.new.into(),
                    gone: row.gone.into(),
                    survived: row.survived.into(),
                    grew_bytes: row.grew,
                    new_at_old_addresses: row.in_place,
                })
                .collect()
        }),
        rules: comparison.rules,
        broken: comparison.broken.iter().map(broken_document).collect(),
        why_sizes: (!comparison.reasons.is_empty()).then(|| comparison.sizes.name()),
        why: why_json::reasons(comparison.reasons),
        why_rest: why_json::rests(comparison.reasons),
    })
}

#[derive(Serialize)]
struct StepDocument<'a> {
    schema: &'static str,
    /// 0 for the first summary.
    step: u64,
    taken_at: String,
    seconds: f64,
    pause_ms: Option<f64>,
    rss_bytes: Option<u64>,
    total: TotalDocument,
    change: ChangeDocument,
    /// All wanted types in step 0, those that changed later.
    types: Vec<DiffTypeDocument<'a>>,
}

/// `biopsy.heap-why/1`: at the end of `heap watch --why`, in one line.
pub fn why(rows: &[TypeReason], sizes: Sizes) -> Result<String> {
    #[derive(Serialize)]
    struct Document<'a> {
        schema: &'static str,
        why_sizes: &'static str,
        why: Vec<why_json::ReasonDocument<'a>>,
        why_rest: Vec<why_json::RestDocument<'a>>,
    }
    line(&Document {
        schema: "biopsy.heap-why/1",
        why_sizes: sizes.name(),
        why: why_json::reasons(rows),
        why_rest: why_json::rests(rows),
    })
}

/// `biopsy.heap-step/1`: a step of `heap watch` in one line.
pub fn step(number: u64, step: &Step, rows: &Rows) -> Result<String> {
    let (objects, bytes) = step.census.total();
    let types = match step.diff {
        Some(diff) => diff_rows(diff, rows),
        None => {
            let (chosen, _) = rows.of_types(&step.census.types);
            chosen
                .into_iter()
                .map(|row| DiffTypeDocument {
                    name: &row.name,
                    objects: 0,
                    bytes: 0,
                    old: TotalDocument {
                        objects: row.objects,
                        bytes: row.bytes,
                    },
                    new: TotalDocument {
                        objects: row.objects,
                        bytes: row.bytes,
                    },
                })
                .collect()
        }
    };
    line(&StepDocument {
        schema: "biopsy.heap-step/1",
        step: number,
        taken_at: time_text(step.census.taken_at),
        seconds: step.since.as_secs_f64(),
        pause_ms: step.census.pause_ms,
        rss_bytes: step.census.rss_bytes,
        total: TotalDocument { objects, bytes },
        change: ChangeDocument {
            objects: step.diff.map_or(0, CensusDiff::objects),
            bytes: step.diff.map_or(0, CensusDiff::bytes),
        },
        types,
    })
}

#[derive(Serialize)]
struct GrowthTypeDocument {
    #[serde(rename = "type")]
    name: String,
    objects: i64,
    bytes: i64,
    objects_per_minute: f64,
    bytes_per_minute: f64,
}

#[derive(Serialize)]
struct GrowthDocument {
    schema: &'static str,
    steps: u64,
    seconds: f64,
    types: Vec<GrowthTypeDocument>,
}

/// `biopsy.heap-growth/1`: the types that grew in every step, in one line.
pub fn growth(growing: &Growing, rows: &Rows) -> Result<String> {
    line(&GrowthDocument {
        schema: "biopsy.heap-growth/1",
        steps: growing.steps(),
        seconds: growing.seconds(),
        types: growing
            .growths()
            .into_iter()
            .filter(|row| rows.wants(&row.name))
            .map(|row| GrowthTypeDocument {
                name: row.name,
                objects: row.objects,
                bytes: row.bytes,
                objects_per_minute: row.objects_per_minute,
                bytes_per_minute: row.bytes_per_minute,
            })
            .collect(),
    })
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
        let text = summary(&census, &Rows::default()).expect("JSON");
        assert_eq!(read_summary("x", text.as_bytes()).expect("read"), census);
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(value["schema"], SUMMARY);
        assert_eq!(value["taken_at"], "2025-11-22T01:51:24.123Z");
        assert_eq!(value["total"]["bytes"], 320);
    }

    #[test]
    fn what_is_no_whole_summary_is_refused_with_the_place() {
        let rows = Rows {
            limit: Some(1),
            ..Rows::default()
        };
        let part = summary(&census(), &rows).expect("JSON");
        let error = read_summary("x", part.as_bytes()).expect_err("partial");
        assert!(error.to_string().contains("all types"), "{error}");
        let whole = summary(&census(), &Rows::default()).expect("JSON");
        let cut = &whole[..whole.len() / 2];
        let error = read_summary("x", cut.as_bytes())
            .expect_err("cut")
            .to_string();
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
            let error = read_summary("x", wrong.as_bytes()).expect_err("wrong");
            assert_eq!(error.kind(), ErrorKind::BadFile, "{wrong}");
        }
    }
}
