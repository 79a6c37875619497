//! Why a heap grew, as JSON. A field is never lost or renamed within a version.

use serde::Serialize;

use crate::heap::why::{Change, TypeReason};

#[derive(Serialize)]
pub(super) struct ReasonDocument<'a> {
    #[serde(rename = "type")]
    name: &'a str,
    path: &'a str,
    /// `new`, `grew` (objects that were there take more), `holder` (all that it holds, under `(all types)`), `paths` (two processes: now and before) or `all` (what was there
    /// before is not known).
    kind: &'static str,
    /// Instances more that the path holds, of so many new ones; those that grew.
    objects: u64,
    of: u64,
    /// Those that came and went, or were there; null where that is not known.
    now: Option<u64>,
    before: Option<u64>,
    /// How many of `now`, `before` and `of` are new or gone for certain (the others have one of their type at their address in the
    /// other heap, and may have moved), and how many count as those that were there, each of which may be another one.
    new_at_least: Option<u64>,
    gone_at_least: Option<u64>,
    stayed: Option<u64>,
    of_at_least: Option<u64>,
    /// Bytes that these objects keep alive, or by which they grew.
    retained_bytes: u64,
    /// Of a `holder` that has its growth in several places: these, the most first; empty when it is in one.
    parts: Vec<PartDocument<'a>>,
    /// Others that hold objects that came there: these stay as long as any of them does.
    also_held_by: Vec<AlsoDocument<'a>>,
}

/// A place of a holder, and by how much it holds more.
#[derive(Serialize)]
pub(super) struct PartDocument<'a> {
    path: &'a str,
    retained_bytes: u64,
}

/// Another holder, and how many it holds of those that came.
#[derive(Serialize)]
pub(super) struct AlsoDocument<'a> {
    path: &'a str,
    objects: u64,
    of: u64,
    /// Whether it is the holder at `path` of the reason itself, by another name.
    same_holder: bool,
}

/// What the rows of a type do not tell.
#[derive(Serialize)]
pub(super) struct RestDocument<'a> {
    #[serde(rename = "type")]
    name: &'a str,
    paths: u64,
    objects: u64,
    retained_bytes: u64,
}

/// A document for each reason.
pub(super) fn reasons(rows: &[TypeReason]) -> Vec<ReasonDocument<'_>> {
    let reasons = rows
        .iter()
        .flat_map(|row| row.reasons.iter().map(|reason| (&row.name, reason)));
    reasons
        .map(|(name, reason)| {
            let (kind, now, before) = match reason.change {
                Change::New { came, gone, .. } => ("new", Some(came), Some(gone)),
                Change::Grew => ("grew", None, None),
                Change::Holds => ("holder", None, None),
                Change::Paths { now, before } => ("paths", Some(now), Some(before)),
                Change::Unknown => ("all", None, None),
            };
            let least = match reason.change {
                Change::New { least, .. } => Some(least),
                _ => None,
            };
            ReasonDocument {
                name,
                path: &reason.path,
                kind,
                objects: reason.objects,
                of: reason.of,
                now,
                before,
                new_at_least: least.map(|least| least.came),
                gone_at_least: least.map(|least| least.gone),
                stayed: least.map(|least| least.stayed),
                of_at_least: least.map(|least| least.of),
                retained_bytes: reason.retained,
                parts: reason
                    .parts
                    .iter()
                    .map(|(path, bytes)| PartDocument {
                        path,
                        retained_bytes: *bytes,
                    })
                    .collect(),
                also_held_by: reason
                    .also
                    .iter()
                    .map(|also| AlsoDocument {
                        path: &also.path,
                        objects: also.objects,
                        of: also.of,
                        same_holder: also.same,
                    })
                    .collect(),
            }
        })
        .collect()
}

/// One for what each type does not tell.
pub(super) fn rests(rows: &[TypeReason]) -> Vec<RestDocument<'_>> {
    rows.iter()
        .filter(|row| row.rest.0 > 0)
        .map(|row| RestDocument {
            name: &row.name,
            paths: row.rest.0,
            objects: row.rest.1,
            retained_bytes: row.rest.2,
        })
        .collect()
}
