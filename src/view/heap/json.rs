//! The JSON documents of the heap commands. A field is never lost or renamed within
//! a version.

pub mod holders;
mod why;

use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};
use crate::heap::Object;
use crate::heap::census::Census;
use crate::heap::diff::{Actual, Broken, CensusDiff, DiffRow, Fates};
use crate::heap::graph::Sizes;
use crate::heap::growth::Growing;
use crate::heap::summary::{self, TotalDocument, time_text};
use crate::heap::why::TypeReason;
use crate::view::heap::Rows;
use crate::view::heap::diff::Comparison;
use crate::view::heap::watch::Step;

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

/// `biopsy.heap-summary/1` of the chosen rows.
pub fn summary(census: &Census, rows: &Rows) -> Result<String> {
    let (chosen, _) = rows.of_types(&census.types);
    summary::write(census, chosen)
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
    why: Vec<why::ReasonDocument<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    why_rest: Vec<why::RestDocument<'a>>,
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
        why: why::reasons(comparison.reasons),
        why_rest: why::rests(comparison.reasons),
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
        why: Vec<why::ReasonDocument<'a>>,
        why_rest: Vec<why::RestDocument<'a>>,
    }
    line(&Document {
        schema: "biopsy.heap-why/1",
        why_sizes: sizes.name(),
        why: why::reasons(rows),
        why_rest: why::rests(rows),
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
