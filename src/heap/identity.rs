//! Which objects of one heap are those of an earlier heap of the same process, or of its parent.
//!
//! An address says little: memory is used again, in the same order too. An object is taken for the one that was at its
//! address when its type is, its size is or may change, and something that held it before still does: a root, or an object
//! that is itself the same. What moved to other holders altogether cannot be told from another object in its place; see
//! [`Identity::settle`].

use rustc_hash::{FxHashMap, FxHashSet};

use super::graph::{Graph, ObjectId, Root, flags};

/// No object.
const NONE: u32 = u32::MAX;

/// Types of objects that never change their size: another size is another object.
const FIXED: [&str; 11] = [
    "str",
    "bytes",
    "int",
    "float",
    "complex",
    "bool",
    "tuple",
    "frozenset",
    "code",
    "range",
    "slice",
];

/// References of one object that are looked through; those of larger ones are sorted first.
const FEW: usize = 16;

/// Pairs of objects that are the same.
#[derive(Debug)]
pub struct Identity {
    /// For each new object the old one at its address that it may be, [`NONE`] where there is none.
    candidates: Vec<u32>,
    /// Whether it is.
    is_same: Vec<bool>,
}

impl Identity {
    /// Compares two heaps; `None` when addresses of one say nothing about the other: most modules are elsewhere.
    pub fn of(old: &Graph, new: &Graph) -> Option<Identity> {
        let candidates = candidates(old, new);
        let modules = |graph: &Graph| -> FxHashSet<(String, u64)> {
            let roots = graph.roots.iter();
            let modules = roots.filter_map(|(object, root)| match root {
                Root::Module(name) => {
                    let address = graph.addresses.get(*object as usize)?;
                    Some((graph.name(*name).to_string(), *address))
                }
                _ => None,
            });
            modules.collect()
        };
        let (before, now) = (modules(old), modules(new));
        let same = before.intersection(&now).count();
        if same == 0 || same * 2 < before.len().min(now.len()) {
            return None;
        }
        let mut identity = Identity {
            is_same: vec![false; candidates.len()],
            candidates,
        };
        let was_root: FxHashSet<ObjectId> = old.roots.iter().map(|(object, _)| *object).collect();
        let is_lost = |graph: &Graph, object: ObjectId| {
            let bits = graph.flags.get(object as usize).copied().unwrap_or(0);
            bits & flags::LOST != 0
        };
        let roots = new.roots.iter().map(|(object, _)| *object);
        let mut open: Vec<ObjectId> = roots
            .filter(|object| was_root.contains(&identity.candidate(*object)))
            .collect();
        // What only the collector knows has nobody that could be the same.
        open.extend((0..new.len() as ObjectId).filter(|object| {
            let before = identity.candidate(*object);
            before != NONE && is_lost(new, *object) && is_lost(old, before)
        }));
        identity.spread(old, new, open);
        Some(identity)
    }

    fn candidate(&self, object: ObjectId) -> u32 {
        self.candidates
            .get(object as usize)
            .copied()
            .unwrap_or(NONE)
    }

    /// The old object that `object` is; `None` for a new one.
    pub fn before(&self, object: ObjectId) -> Option<ObjectId> {
        let is_same = self.is_same.get(object as usize).copied().unwrap_or(false);
        is_same.then(|| self.candidate(object))
    }

    /// Which objects of `old` are still there.
    pub fn still_there(&self, old: &Graph) -> Vec<bool> {
        let mut still = vec![false; old.len()];
        for object in 0..self.candidates.len() as ObjectId {
            let before = self.before(object).map(|before| before as usize);
            if let Some(place) = before.and_then(|before| still.get_mut(before)) {
                *place = true;
            }
        }
        still
    }

    /// Which objects of `old`, and which of the new heap, have one of their type and size at their address in the other heap
    /// that is not known to be the same: they moved to other holders, or the address was used again.
    pub fn in_place(&self, old: &Graph) -> [Vec<bool>; 2] {
        let is_open = |object: u32| {
            let before = self.candidate(object);
            (before != NONE && self.before(object).is_none()).then_some(before)
        };
        let mut gone = vec![false; old.len()];
        let new = (0..self.candidates.len() as ObjectId).map(is_open);
        let new = new.map(|before| {
            let place = before.and_then(|before| gone.get_mut(before as usize));
            place.map(|place| *place = true).is_some()
        });
        let new = new.collect();
        [gone, new]
    }

    /// Decides about objects that have no holder in common with those at their addresses: they are the same when
    /// `is_alike` says so of the old and the new one, which compares the forms of their paths.
    pub fn settle(
        &mut self,
        old: &Graph,
        new: &Graph,
        mut is_alike: impl FnMut(ObjectId, ObjectId) -> bool,
    ) {
        let mut open = Vec::new();
        for object in 0..self.candidates.len() as ObjectId {
            let before = self.candidate(object);
            let is_open = before != NONE && !self.is_same[object as usize];
            if is_open && is_alike(before, object) {
                open.push(object);
            }
        }
        self.spread(old, new, open);
    }

    /// Takes the candidates of `open` for the same, and with them those that both the old and the new ones refer to.
    fn spread(&mut self, old: &Graph, new: &Graph, mut open: Vec<ObjectId>) {
        open.retain(|object| self.mark(*object));
        let mut sorted = Vec::new();
        while let Some(object) = open.pop() {
            let referred = old.references(self.candidate(object));
            let is_large = referred.len() > FEW;
            if is_large {
                sorted.clear();
                sorted.extend_from_slice(referred);
                sorted.sort_unstable();
            }
            for (at, target) in new.references(object).iter().enumerate() {
                let before = self.candidate(*target);
                if before == NONE || self.is_same[*target as usize] {
                    continue;
                }
                let still = referred.get(at) == Some(&before)
                    || match is_large {
                        true => sorted.binary_search(&before).is_ok(),
                        false => referred.contains(&before),
                    };
                if still && self.mark(*target) {
                    open.push(*target);
                }
            }
        }
    }

    fn mark(&mut self, object: ObjectId) -> bool {
        match self.is_same.get_mut(object as usize) {
            Some(is_same) if !*is_same => {
                *is_same = true;
                true
            }
            _ => false,
        }
    }
}

/// For each new object the old one at its address, when it has the same type and may have the same size.
fn candidates(old: &Graph, new: &Graph) -> Vec<u32> {
    let mut known: FxHashMap<(String, Option<u64>), u32> = FxHashMap::default();
    let mut kinds = |graph: &Graph| -> Vec<u32> {
        let kind = graph.types.iter().map(|found| {
            let address = found
                .object
                .and_then(|object| graph.addresses.get(object as usize));
            let key = (graph.name(found.name).to_string(), address.copied());
            let next = known.len() as u32;
            *known.entry(key).or_insert(next)
        });
        kind.collect()
    };
    let (old_kinds, new_kinds) = (kinds(old), kinds(new));
    let is_fixed: Vec<bool> = new
        .types
        .iter()
        .map(|found| FIXED.contains(&new.name(found.name)))
        .collect();
    let kind = |kinds: &[u32], graph: &Graph, at: usize| {
        let type_id = graph.type_ids.get(at)?;
        kinds.get(*type_id as usize).copied()
    };
    let mut before = 0;
    let candidate = new.addresses.iter().enumerate().map(|(at, address)| {
        while old
            .addresses
            .get(before)
            .is_some_and(|known| known < address)
        {
            before += 1;
        }
        let is_there = old.addresses.get(before) == Some(address);
        if !is_there || kind(&old_kinds, old, before) != kind(&new_kinds, new, at) {
            return NONE;
        }
        let type_id = new.type_ids.get(at).map_or(0, |id| *id as usize);
        let may_change = !is_fixed.get(type_id).copied().unwrap_or(false);
        match may_change || old.sizes.get(before) == new.sizes.get(at) {
            true => before as u32,
            false => NONE,
        }
    });
    candidate.collect()
}

#[cfg(test)]
mod tests {
    use super::super::graph::testing::{lists, name};
    use super::*;

    #[test]
    fn what_a_common_holder_holds_is_the_same_and_what_grew_there_too() {
        let old = lists(&[vec![1, 2], vec![], vec![]], &[0]);
        let mut new = lists(&[vec![2, 1, 3], vec![], vec![], vec![]], &[0]);
        new.sizes[1] += 8;
        let identity = Identity::of(&old, &new).expect("one process");
        let found: Vec<_> = (0..4).map(|object| identity.before(object)).collect();
        assert_eq!(found, [Some(0), Some(1), Some(2), None]);
        assert_eq!(identity.still_there(&old), [true; 3]);
    }

    #[test]
    fn an_address_that_is_used_again_is_another_object() {
        // The cache at 1 held 3; now the list at 2 holds what is there.
        let old = lists(&[vec![1], vec![3], vec![], vec![]], &[0]);
        let new = lists(&[vec![1, 2], vec![], vec![3], vec![]], &[0]);
        let mut identity = Identity::of(&old, &new).expect("one process");
        assert_eq!(identity.before(3), None);
        assert_eq!(identity.still_there(&old), [true, true, false, false]);
        identity.settle(&old, &new, |before, object| (before, object) == (3, 3));
        assert_eq!(identity.before(3), Some(3));
    }

    #[test]
    fn another_process_says_nothing() {
        let old = lists(&[vec![1], vec![]], &[0]);
        let mut new = old.clone();
        let other = name(&mut new, "other");
        new.roots = vec![(0, Root::Module(other))];
        assert!(Identity::of(&old, &new).is_none());
    }

    #[test]
    fn text_of_another_length_is_another_text() {
        let mut old = lists(&[vec![1], vec![]], &[0]);
        let text = name(&mut old, "str");
        old.types.push(crate::heap::graph::Type {
            name: text,
            object: None,
        });
        old.type_ids[1] = 1;
        let mut new = old.clone();
        assert_eq!(Identity::of(&old, &new).expect("one").before(1), Some(1));
        new.sizes[1] += 1;
        assert_eq!(Identity::of(&old, &new).expect("one").before(1), None);
    }
}
