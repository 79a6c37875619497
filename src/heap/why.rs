//! Why types grew: which paths hold what is new, what it keeps alive, and which objects grew where they were.
//!
//! What is new is known where objects have an identity (`heap/identity.rs`): those of the old heap that are gone from a path
//! are set off against those that came to it, so that what is replaced again and again is no growth. Between
//! processes paths are compared with paths: all that a form of path holds now with all that it held before.

mod counted;
mod grouped;
mod held;
mod shared;

use rustc_hash::{FxHashMap, FxHashSet};

use self::counted::{Counted, Side};
use self::held::{Grouped, Holders};
pub use self::shared::Also;
use self::shared::{Asked, Place};
use super::diff::{self, Fates};
use super::fold::Fold;
use super::graph::{Graph, ObjectId};
use super::identity::Identity;
use super::paths::{FormKeys, Paths};

/// Types that are told about.
const MOST_TYPES: usize = 10;

/// The name among types under which holders are told, whatever they hold.
pub const ALL_TYPES: &str = "(all types)";

/// Paths of a type that are told.
const MOST_PATHS: usize = 10;

/// Paths are told until they explain this much of a type's growth, in per cent.
const ENOUGH: u64 = 90;

/// Steps of a path to a single object that are written.
const STEPS: usize = 24;

/// What happened at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Objects came, and others of the type went: what is new is known.
    New {
        /// How many came.
        came: u64,
        /// How many went.
        gone: u64,
        /// What is certain of these numbers.
        least: Least,
    },
    /// Objects that were there take more.
    Grew,
    /// What a container or attribute holds takes more, with its own growth: under [`ALL_TYPES`].
    Holds,
    /// The heaps are of two processes: so many are there now, so many were before.
    Paths {
        /// Now.
        now: u64,
        /// Before.
        before: u64,
    },
    /// What was there before is not known.
    Unknown,
}

/// What is certain of numbers of objects that came and went. An object that replaced another one of its type at its address and
/// path counts as that one; one that was moved to another path counts as new, and as gone from where it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Least {
    /// So many of those that came are new: nothing of their type and size was at their addresses before.
    pub came: u64,
    /// So many of those that went are gone: nothing such is at their addresses now.
    pub gone: u64,
    /// Objects of the type at the path that count as those that were there: each may be another one.
    pub stayed: u64,
    /// So many of all of the type that came are new.
    pub of: u64,
    /// Whether no more of them may be new.
    pub of_is_exact: bool,
}

/// A path, and what it has to do with the growth of a type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// Such as `leak_app.REGISTRY.by_path[*][*]`.
    pub path: String,
    /// What happened there.
    pub change: Change,
    /// By how many objects there are more; under [`Change::Grew`] how many grew.
    pub objects: u64,
    /// Of so many of the type in all.
    pub of: u64,
    /// Bytes that these objects keep alive, nothing counted twice and only what is new; under [`Change::Grew`] by how much
    /// the objects themselves grew.
    pub retained: u64,
    /// Under [`Change::Holds`]: where it is, when it is in several places, each with its bytes, the most first.
    pub parts: Vec<(String, u64)>,
    /// Who else holds what came there.
    pub also: Vec<Also>,
}

/// A type and what holds what is new of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeReason {
    /// The type.
    pub name: String,
    /// The paths, those that keep most alive first.
    pub reasons: Vec<Reason>,
    /// Paths that are not among them, their objects and what these keep alive beyond the others.
    pub rest: (u64, u64, u64),
}

/// Two heaps compared object by object.
#[derive(Debug, Default)]
pub struct Compared {
    /// What became of the objects of each type; `None` when it is not known which are the same.
    pub fates: Option<Vec<Fates>>,
    /// Why the types grew.
    pub reasons: Vec<TypeReason>,
}

/// Why there are more instances, or more bytes of them, of each of `types` in `new` than in `old`; all of them, where there
/// is no `old`. Under [`ALL_TYPES`] it is told who holds what is new, whatever that is.
pub fn reasons<'t>(
    old: Option<&Graph>,
    new: &Graph,
    types: impl IntoIterator<Item = &'t str>,
) -> Vec<TypeReason> {
    compare(old, new, types).reasons
}

/// The same, with what became of all objects.
pub fn compare<'t>(
    old: Option<&Graph>,
    new: &Graph,
    types: impl IntoIterator<Item = &'t str>,
) -> Compared {
    let empty = Graph::default();
    let before = old.unwrap_or(&empty);
    let (old_fold, new_fold) = (Fold::of(before), Fold::of(new));
    let (old_paths, new_paths) = (Paths::of(before, &old_fold), Paths::of(new, &new_fold));
    let mut keys = FormKeys::default();
    let old_side = Side::of(before, &old_fold, &old_paths, &mut keys);
    let new_side = Side::of(new, &new_fold, &new_paths, &mut keys);
    let mut identity = Identity::of(before, new).filter(|_| old.is_some());
    if let Some(identity) = &mut identity {
        identity.settle(before, new, |before, now| {
            let key = new_side.key(now);
            key.is_some() && old_side.key(before) == key
        });
    }
    let wanted: FxHashSet<&str> = types.into_iter().collect();
    let known = match (&identity, old) {
        (Some(identity), _) => Known::Objects(identity),
        (None, Some(_)) => Known::Paths,
        (None, None) => Known::Nothing,
    };
    Compared {
        fates: identity
            .as_ref()
            .map(|identity| diff::fates(before, new, identity)),
        reasons: match wanted.is_empty() {
            true => Vec::new(),
            false => explain(&old_side, &new_side, known, &wanted, &keys),
        },
    }
}

/// What is known of the old heap's objects.
#[derive(Debug, Clone, Copy)]
enum Known<'i> {
    Objects(&'i Identity),
    Paths,
    Nothing,
}

/// The objects of a type at a form of path.
#[derive(Debug, Default)]
struct Pile {
    came: Vec<ObjectId>,
    gone: Vec<ObjectId>,
    /// How many of both have the other heap's object of their type at their address, which may be the same one.
    moved: (u64, u64),
    /// Objects that were there before.
    stayed: u64,
    /// By how many bytes objects grew that were there before, and how many did; one of them.
    grew: i64,
    grown: u64,
    example: ObjectId,
}

/// A reason, and what it is ranked by.
struct Row {
    reason: Reason,
    bytes: i64,
    /// The key of what holds the objects.
    holder: Option<u32>,
    /// What came there, or the one object that grew there, as `place` says.
    came: Vec<ObjectId>,
    place: Place,
}

fn signed(old: u64, new: u64) -> i64 {
    let clamped = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    clamped(new).saturating_sub(clamped(old))
}

#[allow(clippy::too_many_lines)]
fn explain(
    old: &Side<'_>,
    new: &Side<'_>,
    known: Known<'_>,
    wanted: &FxHashSet<&str>,
    keys: &FormKeys,
) -> Vec<TypeReason> {
    let mut names: Vec<&str> = wanted.iter().copied().collect();
    names.sort_unstable();
    let by_paths = !matches!(known, Known::Objects(_));
    let (came, gone) = match known {
        Known::Objects(identity) => {
            let still = identity.still_there(old.graph);
            (
                Counted::of(new, by_paths, |object| identity.before(object).is_none()),
                Counted::of(old, by_paths, |object| !still[object as usize]),
            )
        }
        Known::Paths | Known::Nothing => (
            Counted::of(new, by_paths, |_| true),
            Counted::of(old, by_paths, |_| true),
        ),
    };
    let is_moved: [Vec<bool>; 2] = match known {
        Known::Objects(identity) => identity.in_place(old.graph),
        Known::Paths | Known::Nothing => Default::default(),
    };
    let mut piles: FxHashMap<(u32, u32), Pile> = FxHashMap::default();
    // Objects of each type in all, and those that no root reaches too.
    let mut all: Vec<Pile> = names.iter().map(|_| Pile::default()).collect();
    for counted in [&gone, &came] {
        let is_new = std::ptr::eq(counted, &came);
        let types = counted.side.types(&names);
        for object in 0..counted.side.graph.len() as ObjectId {
            let type_id = counted.side.graph.type_ids.get(object as usize);
            let wanted = type_id.and_then(|id| types.get(*id as usize).copied().flatten());
            let Some(at) = wanted.filter(|_| counted.has(object)) else {
                continue;
            };
            let pile = counted
                .side
                .key(object)
                .map(|key| piles.entry((at, key)).or_default());
            for pile in pile.into_iter().chain(all.get_mut(at as usize)) {
                let [gone_moved, came_moved] = &is_moved;
                let is_moved = |side: &[bool]| side.get(object as usize).copied() == Some(true);
                match is_new {
                    true => {
                        pile.came.push(object);
                        pile.moved.0 += u64::from(is_moved(came_moved));
                    }
                    false => {
                        pile.gone.push(object);
                        pile.moved.1 += u64::from(is_moved(gone_moved));
                    }
                }
            }
        }
    }
    let mut holders = Holders::default();
    if let Known::Objects(identity) = known {
        holders.add(&came, 1);
        holders.add(&gone, -1);
        let types = new.types(&names);
        for object in 0..new.graph.len() as ObjectId {
            let Some(before) = identity.before(object) else {
                continue;
            };
            let grew = signed(old.size(before), new.size(object));
            let type_id = new.graph.type_ids.get(object as usize);
            let at = type_id.and_then(|id| types.get(*id as usize).copied().flatten());
            if let Some(all) = at.and_then(|at| all.get_mut(at as usize)) {
                all.stayed += 1;
            }
            let Some(key) = new.key(object) else {
                continue;
            };
            let mut pile = at.map(|at| piles.entry((at, key)).or_default());
            if let Some(pile) = &mut pile {
                pile.stayed += 1;
            }
            if grew == 0 {
                continue;
            }
            if let Some(form) = new.forms.known(object)
                && let Some(held) = holders.count(new, form, grew)
            {
                held.form = Some(form);
                held.grown = Some(object);
            }
            let Some(pile) = pile else {
                continue;
            };
            pile.grew = pile.grew.saturating_add(grew);
            if grew > 0 {
                pile.grown += 1;
                pile.example = object;
            }
        }
    }
    let mut rows: Vec<Vec<Row>> = names.iter().map(|_| Vec::new()).collect();
    // What was replaced at its path. What else went made room at another one, and takes nothing from what came.
    let mut replaced: Vec<i64> = names.iter().map(|_| 0).collect();
    for ((at, key), pile) in &piles {
        let (Some(rows), Some(all)) = (rows.get_mut(*at as usize), all.get(*at as usize)) else {
            continue;
        };
        if let Some(replaced) = replaced
            .get_mut(*at as usize)
            .filter(|_| !pile.gone.is_empty())
        {
            let least = came.together(&pile.came).min(gone.together(&pile.gone));
            *replaced = replaced.saturating_add(signed(0, least));
        }
        rows.extend(came_row(pile, &came, &gone, known, all, *key));
        if pile.grown > 0 && pile.grew > 0 {
            rows.push(grown_row(pile, new, *key));
        }
    }
    let holders = match known {
        Known::Objects(_) => {
            let numbers = came.numbers();
            let objects_of = |object: ObjectId| numbers.get(object as usize).copied().unwrap_or(0);
            holders.grouped(keys, new, objects_of)
        }
        Known::Paths | Known::Nothing => Grouped::default(),
    };
    let mut told: Vec<(i64, i64, bool, Told)> = Vec::new();
    for (((name, rows), all), replaced) in names.iter().zip(rows).zip(&all).zip(replaced) {
        let grew = rows.iter().filter(|row| row.reason.change == Change::Grew);
        let grew = grew.fold(0i64, |sum, row| sum.saturating_add(row.bytes));
        let came = came.together(&all.came);
        let net = signed(gone.together(&all.gone), came);
        let total = signed(0, came).saturating_sub(replaced).max(net);
        let total = total.saturating_add(grew);
        let Some(told_of) = of_type(name, rows, total) else {
            continue;
        };
        let (bytes, holder) = told_of.first;
        let rank = match (by_paths, holder) {
            (false, Some(holder)) => holders.of(holder).max(bytes),
            _ => bytes,
        };
        // Of a class and the dict of its instances, which are one at their paths, the class comes first.
        told.push((rank, bytes, *name != "dict", told_of));
    }
    told.sort_by(|a, b| {
        let rank = |told: &(i64, i64, bool, Told)| (told.0, told.1, told.2);
        let name = |told: &(i64, i64, bool, Told)| told.3.reason.name.clone();
        rank(b).cmp(&rank(a)).then_with(|| name(a).cmp(&name(b)))
    });
    told.truncate(MOST_TYPES);
    let held = wanted.contains(ALL_TYPES).then(|| {
        let rows = holders.rows(new);
        let total = rows
            .iter()
            .fold(0i64, |sum, row| sum.saturating_add(row.bytes));
        of_type(ALL_TYPES, rows, total)
    });
    let told = told.into_iter().map(|(.., told)| told);
    let mut told: Vec<Told> = held.flatten().into_iter().chain(told).collect();
    let piles: Vec<Asked<'_>> = told
        .iter()
        .flat_map(|told| &told.came)
        .map(|(place, objects)| Asked {
            objects,
            place: *place,
        })
        .collect();
    let mut others = shared::find(&came, !by_paths, &piles).into_iter();
    for told in &mut told {
        for reason in &mut told.reason.reasons {
            reason.also = others.next().unwrap_or_default();
        }
    }
    told.into_iter().map(|told| told.reason).collect()
}

/// What is told of a type, and the bytes and holder of its first row.
struct Told {
    first: (i64, Option<u32>),
    reason: TypeReason,
    /// What came to the path of each reason.
    came: Vec<(Place, Vec<ObjectId>)>,
}

/// What came to a path, set off against what went; `None` when that is no growth.
fn came_row(
    pile: &Pile,
    came: &Counted<'_, '_>,
    gone: &Counted<'_, '_>,
    known: Known<'_>,
    all: &Pile,
    key: u32,
) -> Option<Row> {
    let example = *pile.came.first()?;
    let (now, before) = (pile.came.len() as u64, pile.gone.len() as u64);
    let of = all.came.len() as u64;
    let objects = now.saturating_sub(before);
    let own = |counted: &Counted<'_, '_>, objects: &[ObjectId]| {
        let sizes = objects.iter().map(|object| counted.side.size(*object));
        sizes.fold(0u64, u64::saturating_add)
    };
    let by_paths = matches!(known, Known::Paths);
    // As many as before: what others hold is told of these, so that holders of holders are not named for it.
    let bytes = match by_paths && objects == 0 {
        true => signed(own(gone, &pile.gone), own(came, &pile.came)),
        false => signed(gone.together(&pile.gone), came.together(&pile.came)),
    };
    if bytes <= 0 {
        return None;
    }
    let side = came.side;
    let form = side.forms.known(example)?;
    let path = match (known, now) {
        (Known::Objects(_), 1) => side.paths.text(example, STEPS)?,
        _ => side.forms.text(form),
    };
    let change = match known {
        Known::Objects(_) => Change::New {
            came: now,
            gone: before,
            least: Least {
                came: now.saturating_sub(pile.moved.0),
                gone: before.saturating_sub(pile.moved.1),
                stayed: pile.stayed,
                of: of.saturating_sub(all.moved.0),
                of_is_exact: all.moved.0 == 0 && all.stayed == 0,
            },
        },
        Known::Paths if objects == 0 => Change::Grew,
        Known::Paths => Change::Paths { now, before },
        Known::Nothing => Change::Unknown,
    };
    let objects = if change == Change::Grew { now } else { objects };
    Some(Row {
        reason: Reason {
            path,
            change,
            objects,
            of,
            retained: u64::try_from(bytes).unwrap_or(0),
            parts: Vec::new(),
            also: Vec::new(),
        },
        bytes,
        holder: side.key_of(side.forms.holder(form)).or(Some(key)),
        came: match change {
            Change::Grew => Vec::new(),
            _ => pile.came.clone(),
        },
        place: Place::There,
    })
}

/// Objects of a path that were there before and take more now.
fn grown_row(pile: &Pile, new: &Side<'_>, key: u32) -> Row {
    let path = match pile.grown {
        1 => new.paths.text(pile.example, STEPS),
        _ => None,
    };
    let form = new.forms.known(pile.example).unwrap_or(u32::MAX);
    Row {
        reason: Reason {
            path: path.unwrap_or_else(|| new.forms.text(form)),
            change: Change::Grew,
            objects: pile.grown,
            of: pile.grown,
            retained: u64::try_from(pile.grew).unwrap_or(0),
            parts: Vec::new(),
            also: Vec::new(),
        },
        bytes: pile.grew,
        holder: Some(key),
        came: match pile.grown {
            1 => vec![pile.example],
            _ => Vec::new(),
        },
        place: Place::Old,
    }
}

/// The rows of one type that explain enough of `total` bytes, and the rest.
fn of_type(name: &str, mut rows: Vec<Row>, total: i64) -> Option<Told> {
    rows.sort_by(|a, b| {
        let rank = |row: &Row| (row.bytes, row.reason.objects);
        rank(b)
            .cmp(&rank(a))
            .then_with(|| a.reason.path.cmp(&b.reason.path))
    });
    let total = total.max(rows.first()?.bytes);
    let enough = i128::from(total) * i128::from(ENOUGH);
    let mut explained = 0i64;
    let mut told = 0;
    for row in rows.iter().take(MOST_PATHS) {
        if i128::from(explained) * 100 >= enough {
            break;
        }
        explained = explained.saturating_add(row.bytes);
        told += 1;
    }
    let left = rows.split_off(told);
    let came = left.iter().filter(|row| row.reason.change != Change::Grew);
    let rest = (
        left.len() as u64,
        came.map(|row| row.reason.objects).sum(),
        u64::try_from(total.saturating_sub(explained)).unwrap_or(0),
    );
    let first = rows.first().map(|row| (row.bytes, row.holder))?;
    let rows = rows.into_iter();
    let (reasons, came) = rows.map(|row| (row.reason, (row.place, row.came))).unzip();
    Some(Told {
        first,
        reason: TypeReason {
            name: name.to_string(),
            reasons,
            rest,
        },
        came,
    })
}

#[cfg(test)]
mod tests {
    use super::super::graph::testing::lists;
    use super::*;

    fn told(rows: &[TypeReason]) -> Vec<(String, Change, u64, u64, u64)> {
        let reasons = rows.iter().flat_map(|row| &row.reasons);
        let told = reasons.map(|row| {
            (
                row.path.clone(),
                row.change,
                row.objects,
                row.of,
                row.retained,
            )
        });
        told.collect()
    }

    #[test]
    fn each_path_has_only_its_own_and_the_biggest_comes_first() {
        let old = lists(&[vec![], vec![]], &[0, 1]);
        // One big list below 0, three small ones below 1.
        let mut new = lists(
            &[vec![2], vec![3, 4, 5], vec![], vec![], vec![], vec![]],
            &[0, 1],
        );
        new.sizes[2] = 40_000;
        let rows = reasons(Some(&old), &new, ["list"]);
        let change = Change::New {
            came: 1,
            gone: 0,
            least: Least {
                came: 1,
                stayed: 0,
                gone: 0,
                of: 4,
                of_is_exact: false,
            },
        };
        assert_eq!(
            told(&rows),
            [("module0[0]".to_string(), change, 1, 4, 40_000)]
        );
        assert_eq!(rows[0].rest, (1, 3, 103 + 104 + 105));
    }

    #[test]
    fn what_went_elsewhere_hides_no_path() {
        // Three lists below 0 are gone; two came below 1 and two below 2, which are nearly as much.
        let old = lists(
            &[vec![3, 4, 5], vec![], vec![], vec![], vec![], vec![]],
            &[0, 1, 2],
        );
        let mut new = lists(
            &[
                vec![],
                vec![3, 4],
                vec![5, 6],
                vec![],
                vec![],
                vec![],
                vec![],
            ],
            &[0, 1, 2],
        );
        for (at, address) in new.addresses.iter_mut().enumerate().skip(3) {
            *address = 0x9000 + 64 * at as u64;
        }
        let rows = reasons(Some(&old), &new, ["list"]);
        let paths: Vec<String> = told(&rows).into_iter().map(|row| row.0).collect();
        assert_eq!(paths, ["module2[*]", "module1[*]"]);
        assert_eq!(rows[0].rest.0, 0);
    }

    #[test]
    fn holders_are_told_whatever_they_hold() {
        let old = lists(&[vec![1], vec![]], &[0]);
        let mut new = lists(&[vec![1], vec![2, 2], vec![3], vec![]], &[0]);
        new.sizes[1] += 50;
        let rows = told(&reasons(Some(&old), &new, [ALL_TYPES]));
        assert_eq!(
            rows,
            [(
                "module0[*]".to_string(),
                Change::Holds,
                1,
                1,
                50 + 102 + 103
            )]
        );
    }

    #[test]
    fn an_old_list_that_grew_is_told_apart_from_what_is_new() {
        let old = lists(&[vec![1], vec![]], &[0]);
        let mut new = lists(&[vec![1], vec![]], &[0]);
        new.sizes[1] += 5000;
        assert_eq!(
            told(&reasons(Some(&old), &new, ["list"])),
            [("module0[0]".to_string(), Change::Grew, 1, 1, 5000)]
        );
    }

    #[test]
    fn what_is_replaced_is_no_growth() {
        let old = lists(&[vec![1], vec![2, 3], vec![], vec![]], &[0]);
        let mut new = lists(&[vec![1], vec![2, 3], vec![], vec![]], &[0]);
        new.addresses[2] += 0x100_000;
        new.addresses[3] += 0x100_000;
        assert!(reasons(Some(&old), &new, ["list"]).is_empty());
    }

    #[test]
    fn other_processes_are_compared_by_their_paths() {
        let old = lists(&[vec![1], vec![]], &[0]);
        let mut new = lists(&[vec![1, 2, 3], vec![], vec![], vec![]], &[0]);
        for address in &mut new.addresses {
            *address += 0x100_000;
        }
        let rows = told(&reasons(Some(&old), &new, ["list"]));
        let change = Change::Paths { now: 3, before: 1 };
        assert_eq!(
            rows[0],
            (
                "module0[*]".to_string(),
                change,
                2,
                4,
                101 + 102 + 103 - 101
            )
        );
        let rows = told(&reasons(None, &new, ["list"]));
        assert_eq!(rows[0].1, Change::Unknown);
    }

    #[test]
    fn what_only_types_without_growth_hold_is_no_reason() {
        let graph = lists(&[vec![1], vec![]], &[0]);
        assert!(reasons(Some(&graph), &graph, ["list", "dict"]).is_empty());
        assert!(reasons(Some(&graph), &graph, []).is_empty());
    }
}
