//! Who else holds what came: objects may be in a list and in a dict, and stay as long as either is there.
//!
//! Another holder is a reference to an object, or to what came with it and holds it, from an object that a root reaches on
//! another way: neither through the object itself (a child that knows its parent) nor through the holder that is named.

use rustc_hash::{FxHashMap, FxHashSet};

use super::counted::Counted;
use crate::heap::graph::{ObjectId, Root};
use crate::heap::steps::{self, Step};

/// Objects above one that came that are looked at, as long as they came too.
const CLIMBED: usize = 8;
/// Steps of a path that are looked through for an object; what lies deeper is not named as a holder.
const FOLLOWED: usize = 64;
/// Other holders of the objects at a path that are named, and the least of these objects that they hold, one in so many.
const MOST: usize = 2;
const LEAST: u64 = 100;
/// Most references that are remembered.
const REFERENCES: usize = 1 << 24;

/// Another holder of objects at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Also {
    /// Such as `app.BY_ID[*]`.
    pub path: String,
    /// How many of the objects that came it holds.
    pub objects: u64,
    /// Of so many.
    pub of: u64,
    /// Whether it is the holder that is named, by another name: one dict that is in two places.
    pub same: bool,
}

/// Objects that share a path, and which other holders of theirs are asked for.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'o> {
    /// The objects.
    pub objects: &'o [ObjectId],
    /// What they have to do with the path.
    pub place: Place,
}

/// What objects have to do with the path that is told of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It leads to them.
    There,
    /// It leads to what holds them, where that has a form.
    Below(Option<u32>),
    /// It leads to them, and they were there before.
    Old,
}

/// Where a reference comes from: the form of its owner's path, or a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum From {
    Form(u32, Step),
    Root(u32),
}

/// An object's name for what is the same for many: where the reference comes from, how far above them it ends, and whether that
/// is the holder that is named.
type Key = (From, usize, bool);

/// The others that hold the objects of each of `piles`, which came to one form of path each. `climbs`: whether what holds
/// them and came too is looked at.
pub fn find(came: &Counted<'_, '_>, climbs: bool, piles: &[Asked<'_>]) -> Vec<Vec<Also>> {
    let side = came.side;
    let chains = |place: Place, object: ObjectId| match place {
        Place::There | Place::Below(_) => chain(came, climbs, object),
        Place::Old => Vec::new(),
    };
    let holders_of = |place: Place, object: ObjectId, chain: &[ObjectId]| match place {
        Place::There | Place::Below(_) => container(came, climbs, chain),
        Place::Old => Some(side.fold.owner(object)),
    };
    let mut wanted = vec![false; side.graph.len()];
    for (place, object) in piles
        .iter()
        .flat_map(|pile| pile.objects.iter().map(|object| (pile.place, *object)))
    {
        let chain = chains(place, object);
        let named = holders_of(place, object, &chain);
        for object in chain.into_iter().chain(named) {
            if let Some(wanted) = wanted.get_mut(object as usize) {
                *wanted = true;
            }
        }
    }
    let Some(references) = references(came, &wanted) else {
        return piles.iter().map(|_| Vec::new()).collect();
    };
    let found = piles.iter().map(|pile| {
        let mut holders: FxHashMap<ObjectId, Vec<From>> = FxHashMap::default();
        let mut counts: FxHashMap<Key, (u64, ObjectId)> = FxHashMap::default();
        for object in pile.objects {
            let mut chain = chains(pile.place, *object);
            let own = chain.len();
            let container = holders_of(pile.place, *object, &chain);
            let top = chain.last().copied();
            let form = top.and_then(|top| side.forms.known(top));
            let named = match pile.place {
                Place::Below(Some(whole)) => Some(whole),
                _ => form.map(|form| side.forms.holder(form)),
            };
            chain.extend(container);
            let mut known: FxHashSet<Key> = FxHashSet::default();
            for (above, at) in chain.iter().enumerate() {
                let same = above >= own;
                let others = holders
                    .entry(*at)
                    .or_insert_with(|| others(came, *at, &references));
                for other in others {
                    let is_named = match (*other, named) {
                        (From::Form(form, _), Some(named)) => side.forms.is_below(form, named),
                        _ => false,
                    };
                    // A variable of a running function is no other place.
                    let is_passing = same && is_frame(came, *other);
                    let key = (*other, above, same);
                    if !is_named && !is_passing && known.insert(key) {
                        counts.entry(key).or_insert((0, *object)).0 += 1;
                    }
                }
            }
        }
        let of = pile.objects.len() as u64;
        let mut by_text: FxHashMap<(bool, String), u64> = FxHashMap::default();
        for ((from, above, same), (objects, example)) in counts {
            let mut chain = chains(pile.place, example);
            chain.extend(holders_of(pile.place, example, &chain));
            let text = match chain.get(above) {
                Some(container) if same && pile.place != Place::There => {
                    text(came, from, &[*container], *container)
                }
                _ => text(came, from, chain.get(..=above).unwrap_or_default(), example),
            };
            // The same words may stand for several: then the most of one are certain.
            let known = by_text.entry((same, text)).or_insert(0);
            *known = objects.max(*known);
        }
        let mut all: Vec<Also> = by_text
            .into_iter()
            .filter(|(_, objects)| objects.saturating_mul(LEAST) >= of)
            .map(|((same, path), objects)| Also {
                path,
                objects,
                of,
                same,
            })
            .collect();
        all.sort_by(|a, b| b.objects.cmp(&a.objects).then_with(|| a.path.cmp(&b.path)));
        let (same, mut found): (Vec<Also>, Vec<Also>) = all.into_iter().partition(|also| also.same);
        found.truncate(MOST);
        found.extend(same.into_iter().take(MOST));
        found
    });
    found.collect()
}

/// An object, whole, and those above it on its path that came too, the nearest first.
fn chain(came: &Counted<'_, '_>, climbs: bool, object: ObjectId) -> Vec<ObjectId> {
    let side = came.side;
    let mut chain = vec![side.fold.owner(object)];
    while let Some(at) = chain.last().filter(|_| climbs && chain.len() < CLIMBED) {
        match side.paths.before(*at) {
            Ok((owner, _)) if came.has(owner) && came.has(side.fold.owner(owner)) => {
                chain.push(side.fold.owner(owner));
            }
            _ => break,
        }
    }
    chain
}

/// What holds the last of `chain` on its path and was there before, where that is a container or an instance: modules, classes
/// and functions have names of their own everywhere.
fn container(came: &Counted<'_, '_>, climbs: bool, chain: &[ObjectId]) -> Option<ObjectId> {
    let side = came.side;
    let (owner, _) = side.paths.before(*chain.last()?).ok()?;
    let owner = side.fold.owner(owner);
    let is_new = climbs && came.has(owner);
    let has_name = steps::text_of(side.graph, owner).is_some()
        || ["module", "function", "frame"].contains(&steps::type_name(side.graph, owner));
    (!is_new && !has_name).then_some(owner)
}

/// Whether a reference is a running function's.
fn is_frame(came: &Counted<'_, '_>, from: From) -> bool {
    let roots = &came.side.graph.roots;
    match from {
        From::Root(root) => matches!(roots.get(root as usize), Some((_, Root::Frame { .. }))),
        From::Form(_, step) => matches!(step, Step::Local(_)),
    }
}

/// A reference to an object that is wanted: the object, then its owner and position, or the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Reference {
    to: ObjectId,
    from: Option<ObjectId>,
    position: u32,
}

/// All references to wanted objects but those on their own paths, sorted; `None` when these are too many.
fn references(came: &Counted<'_, '_>, wanted: &[bool]) -> Option<Vec<Reference>> {
    let side = came.side;
    let is_wanted = |object: ObjectId| wanted.get(object as usize).copied().unwrap_or(false);
    let mut found = Vec::new();
    for owner in 0..side.graph.len() as ObjectId {
        if !side.paths.is_reached(owner) {
            continue;
        }
        for (position, target) in side.graph.references(owner).iter().enumerate() {
            let to = side.fold.owner(*target);
            if is_wanted(to) && side.fold.owner(owner) != to {
                if found.len() >= REFERENCES {
                    return None;
                }
                found.push(Reference {
                    to,
                    from: Some(owner),
                    position: position as u32,
                });
            }
        }
    }
    for (position, (object, _)) in side.graph.roots.iter().enumerate() {
        let to = side.fold.owner(*object);
        if is_wanted(to) && side.paths.is_named_root(position) {
            found.push(Reference {
                to,
                from: None,
                position: position as u32,
            });
        }
    }
    found.sort_unstable();
    Some(found)
}

/// Where the references to `object` come from that are not its own path's and do not lead through it.
fn others(came: &Counted<'_, '_>, object: ObjectId, references: &[Reference]) -> Vec<From> {
    let side = came.side;
    let start = references.partition_point(|reference| reference.to < object);
    let references = references.iter().skip(start);
    let own = side.paths.before(object);
    let mut found: FxHashSet<From> = FxHashSet::default();
    for reference in references.take_while(|reference| reference.to == object) {
        let position = reference.position as usize;
        let from = match reference.from {
            None if own == Err(position) => continue,
            None => From::Root(reference.position),
            Some(owner) => {
                let step = steps::step(side.graph, side.fold, owner, position);
                // The variables of a running function are roots; up to 3.10 its frame is an object that has them too.
                let is_variable = matches!(step, Step::Local(_));
                let is_own =
                    own == Ok((owner, step)) || (is_variable && side.paths.before(owner).is_err());
                let form = side.forms.known(owner);
                let Some(form) = form.filter(|_| !is_own && is_apart(came, owner, object)) else {
                    continue;
                };
                From::Form(form, step.general())
            }
        };
        found.insert(from);
    }
    found.into_iter().collect()
}

/// Whether the path to `owner` begins at a root that has a name, and does not lead through `object`.
fn is_apart(came: &Counted<'_, '_>, owner: ObjectId, object: ObjectId) -> bool {
    let side = came.side;
    let mut at = owner;
    for _ in 0..FOLLOWED {
        if side.fold.owner(at) == object {
            return false;
        }
        match side.paths.before(at) {
            Ok((above, _)) => at = above,
            Err(root) => return side.paths.is_named_root(root),
        }
    }
    false
}

/// The path by which another holder holds `object`, which is the first of `chain`, or a part of it; the last of the chain is
/// what it refers to.
fn text(came: &Counted<'_, '_>, from: From, chain: &[ObjectId], object: ObjectId) -> String {
    let side = came.side;
    let mut text = match from {
        From::Form(form, step) => {
            let mut text = side.forms.text(form);
            step.write(side.graph, &mut text);
            text
        }
        From::Root(root) => match side.graph.roots.get(root as usize) {
            Some((_, root)) => steps::root(side.graph, root),
            None => String::new(),
        },
    };
    // From there the path is that of the object.
    let mut back = Vec::new();
    let mut at = object;
    while let Some(last) = chain.last() {
        if side.fold.owner(at) == *last || back.len() > FOLLOWED {
            break;
        }
        let Ok((owner, step)) = side.paths.before(at) else {
            break;
        };
        if !side.paths.is_fold_step(at) {
            back.push(step.general());
        }
        at = owner;
    }
    for step in back.iter().rev() {
        step.write(side.graph, &mut text);
    }
    text
}
