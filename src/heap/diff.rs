//! What grew and what shrank between two heaps: by type from two summaries, as `pympler.summary.get_diff`
//! has it, and object by object from two graphs of one process.

mod rules;

use rustc_hash::FxHashMap;

pub use self::rules::{Actual, Broken, Rule, evaluate};
use super::census::{Census, Counting};
use super::graph::{Graph, ObjectId};
use super::identity::Identity;
use crate::error::{Error, ErrorKind, Result};

/// A number of objects and their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amount {
    /// Number of objects.
    pub objects: u64,
    /// Their `sys.getsizeof` added up, in bytes.
    pub bytes: u64,
}

impl Amount {
    fn add(&mut self, objects: u64, bytes: u64) {
        self.objects = self.objects.saturating_add(objects);
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// One type in both summaries; a side is `None` where the type has no row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiffRow {
    /// Name of the type, or of one of muppy's rows.
    pub name: String,
    /// In the old summary.
    pub old: Option<Amount>,
    /// In the new summary.
    pub new: Option<Amount>,
}

impl DiffRow {
    /// New objects minus old.
    pub fn objects(&self) -> i64 {
        change(self.old, self.new, |amount| amount.objects)
    }

    /// New bytes minus old.
    pub fn bytes(&self) -> i64 {
        change(self.old, self.new, |amount| amount.bytes)
    }
}

fn change(old: Option<Amount>, new: Option<Amount>, of: impl Fn(Amount) -> u64) -> i64 {
    signed(of(old.unwrap_or_default()), of(new.unwrap_or_default()))
}

/// `new - old`, at most what fits.
fn signed(old: u64, new: u64) -> i64 {
    let difference = i128::from(new) - i128::from(old);
    i64::try_from(difference).unwrap_or(if new > old { i64::MAX } else { i64::MIN })
}

/// Two summaries compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CensusDiff {
    /// All objects of the old one.
    pub old: Amount,
    /// All objects of the new one.
    pub new: Amount,
    /// All types of either, those that did not change too: by how many bytes they grew, the most first, then by
    /// objects and name.
    pub rows: Vec<DiffRow>,
}

impl CensusDiff {
    /// New objects minus old.
    pub fn objects(&self) -> i64 {
        signed(self.old.objects, self.new.objects)
    }

    /// New bytes minus old.
    pub fn bytes(&self) -> i64 {
        signed(self.old.bytes, self.new.bytes)
    }
}

/// Compares two summaries. Fails when they did not count the same way.
pub fn censuses(old: &Census, new: &Census) -> Result<CensusDiff> {
    if old.counting != new.counting {
        let counted = |census: &Census| match census.counting {
            Counting::Reachable => "everything reachable",
            Counting::Muppy => "what muppy.get_objects() counts",
        };
        return Err(Error::new(
            ErrorKind::Failed,
            "cannot compare the heaps",
            format!(
                "the old one counts {}, the new one {}",
                counted(old),
                counted(new)
            ),
        ));
    }
    let total = |census: &Census| {
        let (objects, bytes) = census.total();
        Amount { objects, bytes }
    };
    let mut by_name: FxHashMap<&str, [Option<Amount>; 2]> = FxHashMap::default();
    for (side, census) in [old, new].into_iter().enumerate() {
        for row in &census.types {
            let sides = by_name.entry(&row.name).or_default();
            let amount = sides[side].get_or_insert_default();
            amount.add(row.objects, row.bytes);
        }
    }
    let rows = by_name.into_iter().map(|(name, [old, new])| DiffRow {
        name: name.to_string(),
        old,
        new,
    });
    let mut rows: Vec<DiffRow> = rows.collect();
    rows.sort_by(|a, b| {
        let growth = |row: &DiffRow| (row.bytes(), row.objects());
        growth(b).cmp(&growth(a)).then_with(|| a.name.cmp(&b.name))
    });
    Ok(CensusDiff {
        old: total(old),
        new: total(new),
        rows,
    })
}

/// What became of the objects of one type.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fates {
    /// Name of the type.
    pub name: String,
    /// In the new heap only.
    pub new: Amount,
    /// In the old heap only.
    pub gone: Amount,
    /// In both, as far as [`Identity`] can tell; with the bytes of the new one.
    pub survived: Amount,
    /// Bytes by which those that survived grew.
    pub grew: i64,
    /// Of those in the new heap only, so many have one of the old heap's, of their type and size, at their address.
    pub in_place: u64,
}

/// Compares two heaps of one process object by object. Rows by type name, no order.
pub fn fates(old: &Graph, new: &Graph, identity: &Identity) -> Vec<Fates> {
    let mut table = FatesTable::default();
    let (old_rows, new_rows) = (table.ids(old), table.ids(new));
    let size = |graph: &Graph, object: ObjectId| {
        let size = graph.sizes.get(object as usize);
        size.copied().unwrap_or(0)
    };
    let [_, in_place] = identity.in_place(old);
    for object in 0..new.len() as ObjectId {
        let bytes = size(new, object);
        let row = table.row(new, &new_rows, object);
        match identity.before(object) {
            None => {
                row.new.add(1, bytes);
                let is_in_place = in_place.get(object as usize).copied();
                row.in_place += u64::from(is_in_place.unwrap_or(false));
            }
            Some(before) => {
                row.survived.add(1, bytes);
                let grew = signed(size(old, before), bytes);
                row.grew = row.grew.saturating_add(grew);
            }
        }
    }
    let still = identity.still_there(old);
    for object in 0..old.len() as ObjectId {
        if !still.get(object as usize).copied().unwrap_or(false) {
            let bytes = size(old, object);
            table.row(old, &old_rows, object).gone.add(1, bytes);
        }
    }
    table.rows
}

/// Rows by type name.
#[derive(Debug, Default)]
struct FatesTable {
    rows: Vec<Fates>,
    by_name: FxHashMap<String, usize>,
    /// For a type that no heap names.
    nowhere: Fates,
}

impl FatesTable {
    /// The rows of the types of `graph`.
    fn ids(&mut self, graph: &Graph) -> Vec<usize> {
        let names = graph.types.iter().map(|found| graph.name(found.name));
        let id = |name: &str| match self.by_name.get(name) {
            Some(&id) => id,
            None => {
                let id = self.rows.len();
                self.by_name.insert(name.to_string(), id);
                self.rows.push(Fates {
                    name: name.to_string(),
                    ..Fates::default()
                });
                id
            }
        };
        names.map(id).collect()
    }

    fn row(&mut self, graph: &Graph, rows: &[usize], object: ObjectId) -> &mut Fates {
        let type_id = graph.type_ids.get(object as usize);
        let row = type_id.and_then(|id| rows.get(*id as usize));
        let row = row.and_then(|row| self.rows.get_mut(*row));
        row.unwrap_or(&mut self.nowhere)
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::heap::census::{Doubts, TypeCount, Unsure};
    use crate::heap::graph::testing::lists;

    fn census(counting: Counting, rows: &[(&str, u64, u64)]) -> Census {
        let types = rows.iter().map(|&(name, objects, bytes)| TypeCount {
            name: name.to_string(),
            objects,
            bytes,
        });
        Census {
            counting,
            python: "3.12.1".to_string(),
            pid: Some(1),
            command: String::new(),
            taken_at: UNIX_EPOCH,
            pause_ms: None,
            rss_bytes: None,
            types: types.collect(),
            doubts: Doubts::default(),
            unsure: Unsure::default(),
        }
    }

    #[test]
    fn rows_that_came_went_and_stayed() {
        let old = census(
            Counting::Muppy,
            &[("dict", 10, 1000), ("gone", 2, 64), ("same", 1, 1)],
        );
        let new = census(
            Counting::Muppy,
            &[("dict", 12, 900), ("new", 3, 300), ("same", 1, 1)],
        );
        let diff = censuses(&old, &new).expect("same counting");
        let found: Vec<(&str, i64, i64)> = diff
            .rows
            .iter()
            .map(|row| (row.name.as_str(), row.objects(), row.bytes()))
            .collect();
        assert_eq!(
            found,
            [
                ("new", 3, 300),
                ("same", 0, 0),
                ("gone", -2, -64),
                ("dict", 2, -100)
            ]
        );
        assert_eq!((diff.objects(), diff.bytes()), (3, 136));
        assert_eq!(diff.rows[0].old, None);
        assert_eq!(diff.rows[2].new, None);
    }

    #[test]
    fn other_ways_of_counting_do_not_compare() {
        let (old, new) = (
            census(Counting::Muppy, &[]),
            census(Counting::Reachable, &[]),
        );
        let text = censuses(&old, &new).expect_err("differ").to_string();
        assert!(
            text.contains("muppy") && text.contains("everything reachable"),
            "{text}"
        );
    }

    #[test]
    fn changes_beyond_numbers_are_cut() {
        assert_eq!(signed(0, u64::MAX), i64::MAX);
        assert_eq!(signed(u64::MAX, 0), i64::MIN);
        assert_eq!(signed(u64::MAX, u64::MAX - 1), -1);
    }

    #[test]
    fn objects_are_new_gone_or_there_still() {
        let old = lists(&[vec![1, 2], vec![], vec![]], &[0]);
        let mut new = lists(&[vec![1, 3], vec![], vec![], vec![]], &[0]);
        new.sizes[1] += 24;
        let identity = Identity::of(&old, &new).expect("one process");
        let amount = |objects, bytes| Amount { objects, bytes };
        assert_eq!(
            fates(&old, &new, &identity),
            [Fates {
                name: "list".to_string(),
                new: amount(2, 102 + 103),
                gone: amount(1, 102),
                survived: amount(2, 100 + 101 + 24),
                grew: 24,
                // Another list is where the one was that is gone.
                in_place: 1,
            }]
        );
    }
}
