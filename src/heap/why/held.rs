//! By how much what containers and attributes hold has grown, whatever the types.

use rustc_hash::FxHashMap;

use super::counted::{Counted, Side};
use super::shared::Place;
use super::{Change, Reason, Row};
use crate::heap::graph::ObjectId;

/// What a holder holds more than before.
#[derive(Debug, Clone, Default)]
pub struct Held {
    bytes: i64,
    objects: i64,
    /// What came to it.
    came: Vec<ObjectId>,
    /// The form of its path in the new heap.
    pub form: Option<u32>,
    /// One that grew itself at that path.
    pub grown: Option<ObjectId>,
}

/// By how much what holders hold has grown, whatever the types: objects that no other new one holds, and what these hold.
#[derive(Debug, Default)]
pub struct Holders {
    by_key: FxHashMap<u32, Held>,
}

impl Holders {
    pub fn add(&mut self, counted: &Counted<'_, '_>, sign: i64) {
        let side = counted.side;
        for object in 0..side.graph.len() as ObjectId {
            let is_top = counted
                .is_top
                .get(object as usize)
                .copied()
                .unwrap_or(false);
            if !is_top || !counted.has(object) || side.fold.is_part(object) {
                continue;
            }
            let Some(form) = side.forms.known(object).map(|form| side.forms.holder(form)) else {
                continue;
            };
            let bytes = i64::try_from(counted.sum(object)).unwrap_or(i64::MAX);
            if let Some(held) = self.count(side, form, sign.saturating_mul(bytes)) {
                held.objects += sign;
                if sign > 0 {
                    held.came.push(object);
                    held.form = Some(form);
                }
            }
        }
    }

    pub fn count(&mut self, side: &Side<'_>, form: u32, bytes: i64) -> Option<&mut Held> {
        let held = self.by_key.entry(side.key_of(form)?).or_default();
        held.bytes = held.bytes.saturating_add(bytes);
        Some(held)
    }

    pub fn of(&self, key: u32) -> i64 {
        self.by_key.get(&key).map_or(0, |held| held.bytes)
    }

    /// A row for each holder that holds more.
    pub fn rows(&self, new: &Side<'_>) -> Vec<Row> {
        let grown = self.by_key.iter().filter(|(_, held)| held.bytes > 0);
        let of: i64 = grown.clone().map(|(_, held)| held.objects.max(0)).sum();
        let rows = grown.filter_map(|(key, held)| {
            Some(Row {
                reason: Reason {
                    path: new.forms.text(held.form?),
                    change: Change::Holds,
                    objects: u64::try_from(held.objects).unwrap_or(0),
                    of: u64::try_from(of).unwrap_or(0),
                    retained: u64::try_from(held.bytes).unwrap_or(0),
                    also: Vec::new(),
                },
                bytes: held.bytes,
                holder: Some(*key),
                place: match held.came.is_empty() {
                    true => Place::Old,
                    false => Place::Below,
                },
                came: match held.came.is_empty() {
                    true => held.grown.into_iter().collect(),
                    false => held.came.clone(),
                },
            })
        });
        rows.collect()
    }
}
