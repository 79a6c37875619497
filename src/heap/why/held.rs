//! By how much what containers and attributes hold has grown, whatever the types.

use rustc_hash::FxHashMap;

use super::counted::{Counted, Side};
use super::grouped::{self, Holder};
use super::shared::Place;
use super::{Change, Reason, Row};
use crate::heap::graph::ObjectId;
use crate::heap::paths::FormKeys;

/// What a holder holds more than before.
#[derive(Debug, Clone, Default)]
pub struct Held {
    pub bytes: i64,
    pub objects: i64,
    /// What came to it.
    pub came: Vec<ObjectId>,
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

    /// Those that hold more, in pieces where it is spread over many places of one; `objects_of` says how many objects
    /// came with one.
    pub fn grouped(
        &self,
        keys: &FormKeys,
        new: &Side<'_>,
        objects_of: impl Fn(ObjectId) -> u64,
    ) -> Grouped {
        let by_key = self.by_key.iter().map(|(key, held)| (*key, held));
        let holders = grouped::holders(keys, new, by_key, objects_of);
        let mut bytes = FxHashMap::default();
        for holder in &holders {
            bytes.insert(holder.key, holder.bytes);
            for (form, _) in &holder.parts {
                let key = new.key_of(*form);
                key.and_then(|key| bytes.insert(key, holder.bytes));
            }
        }
        Grouped { holders, bytes }
    }
}

/// Holders as they are told.
#[derive(Debug, Default)]
pub struct Grouped {
    holders: Vec<Holder>,
    /// What holds the objects at each key, in all.
    bytes: FxHashMap<u32, i64>,
}

impl Grouped {
    pub fn of(&self, key: u32) -> i64 {
        self.bytes.get(&key).copied().unwrap_or(0)
    }

    /// A row for each.
    pub fn rows(self, new: &Side<'_>) -> Vec<Row> {
        let objects = self.holders.iter().map(|holder| holder.objects.max(0));
        let of: i64 = objects.sum();
        let row = |holder: Holder| {
            let is_whole = new.key_of(holder.form) == Some(holder.key);
            let path = match is_whole {
                true => new.forms.text(holder.form),
                false => new.forms.function_text(holder.form).unwrap_or_default(),
            };
            let unsigned = |number: i64| u64::try_from(number).unwrap_or(0);
            let mut parts: Vec<(String, u64)> = holder
                .parts
                .iter()
                .map(|(form, bytes)| (new.forms.text(*form), unsigned(*bytes)))
                .collect();
            parts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
            Row {
                reason: Reason {
                    path,
                    change: Change::Holds,
                    objects: unsigned(holder.objects),
                    of: unsigned(of),
                    retained: unsigned(holder.bytes),
                    parts,
                    also: Vec::new(),
                },
                bytes: holder.bytes,
                holder: Some(holder.key),
                place: match holder.came.is_empty() {
                    true => Place::Old,
                    false => Place::Below(is_whole.then_some(holder.form)),
                },
                came: match holder.came.is_empty() {
                    true => holder.grown.into_iter().collect(),
                    false => holder.came,
                },
            }
        };
        self.holders.into_iter().map(row).collect()
    }
}
