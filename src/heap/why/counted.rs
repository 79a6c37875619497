//! Heaps with the forms of all their paths, and sums over those of their objects that count.

use rustc_hash::FxHashSet;

use crate::heap::fold::Fold;
use crate::heap::graph::{Graph, ObjectId};
use crate::heap::paths::{FormKeys, Forms, Paths};
use crate::heap::retained::Retained;

/// One heap, and the forms of all paths in it.
pub struct Side<'g> {
    pub graph: &'g Graph,
    pub fold: &'g Fold,
    pub paths: &'g Paths<'g>,
    pub forms: Forms<'g, 'g>,
    /// The key of each form.
    keys: Vec<u32>,
}

impl<'g> Side<'g> {
    pub fn of(
        graph: &'g Graph,
        fold: &'g Fold,
        paths: &'g Paths<'g>,
        keys: &mut FormKeys,
    ) -> Side<'g> {
        let mut forms = Forms::new(paths);
        for object in 0..graph.len() as ObjectId {
            if paths.is_reached(object) {
                forms.of(object);
            }
        }
        let keys = keys.of(&forms);
        Side {
            graph,
            fold,
            paths,
            forms,
            keys,
        }
    }

    /// The key of the form of an object's path.
    pub fn key(&self, object: ObjectId) -> Option<u32> {
        self.key_of(self.forms.known(object)?)
    }

    pub fn key_of(&self, form: u32) -> Option<u32> {
        self.keys.get(form as usize).copied()
    }

    pub fn size(&self, object: ObjectId) -> u64 {
        let size = self.graph.bytes().get(object as usize);
        size.copied().unwrap_or(0)
    }

    /// Which types have a name of `wanted`, as indices into it.
    pub fn types(&self, wanted: &[&str]) -> Vec<Option<u32>> {
        let names = self.graph.types.iter();
        let names = names.map(|found| self.graph.name(found.name));
        let place = |name: &str| wanted.binary_search(&name).ok();
        names.map(|name| place(name).map(|at| at as u32)).collect()
    }
}

/// The objects of one heap that count: those that came, or those that went.
pub struct Counted<'g, 's> {
    pub side: &'s Side<'g>,
    retained: Retained<'g>,
    is_counted: Vec<bool>,
    /// Bytes of counted objects that each whole object alone holds.
    sums: Vec<u64>,
    /// Whether no counted object holds it alone.
    pub is_top: Vec<bool>,
    /// A dict that is part of its owner counts alone: owners that were there before hold all that came.
    parts_alone: bool,
}

impl<'g, 's> Counted<'g, 's> {
    pub fn of(side: &'s Side<'g>, parts_alone: bool, counts: impl Fn(ObjectId) -> bool) -> Self {
        let retained = Retained::of(side.graph, side.fold);
        let is_counted: Vec<bool> = (0..side.graph.len() as ObjectId).map(counts).collect();
        let has = |object: ObjectId| is_counted.get(object as usize).copied().unwrap_or(false);
        let weight = |object: ObjectId| if has(object) { side.size(object) } else { 0 };
        let (sums, is_top) = retained.sums(weight, has);
        Counted {
            side,
            retained,
            is_counted,
            sums,
            is_top,
            parts_alone,
        }
    }

    pub fn has(&self, object: ObjectId) -> bool {
        self.is_counted
            .get(object as usize)
            .copied()
            .unwrap_or(false)
    }

    /// How many counted objects each whole object alone holds, itself included.
    pub fn numbers(&self) -> Vec<u64> {
        self.retained
            .sums(|object| u64::from(self.has(object)), |_| false)
            .0
    }

    pub fn sum(&self, object: ObjectId) -> u64 {
        self.sums.get(object as usize).copied().unwrap_or(0)
    }

    /// Bytes that `objects` keep alive: of those below one another only the upper ones count.
    pub fn together(&self, objects: &[ObjectId]) -> u64 {
        let mut alone = 0u64;
        let mut set: FxHashSet<ObjectId> = FxHashSet::default();
        for object in objects {
            let owner = self.side.fold.owner(*object);
            if owner != *object && (self.parts_alone || !self.has(owner)) {
                alone = alone.saturating_add(self.side.size(*object));
            } else {
                set.insert(owner);
            }
        }
        // Chains of the same type are millions long: what is known to have one of the set above is not climbed again.
        let mut below: FxHashSet<ObjectId> = FxHashSet::default();
        let mut clear: FxHashSet<ObjectId> = FxHashSet::default();
        let mut sum = alone;
        let tree = self.retained.dominators();
        for object in &set {
            let mut climbed = Vec::new();
            let mut at = tree.parent(*object);
            let is_below = loop {
                match at {
                    None => break false,
                    Some(above) if set.contains(&above) || below.contains(&above) => break true,
                    Some(above) if clear.contains(&above) => break false,
                    Some(above) => {
                        climbed.push(above);
                        at = tree.parent(above);
                    }
                }
            };
            if is_below {
                below.extend(climbed);
            } else {
                clear.extend(climbed);
                sum = sum.saturating_add(self.sum(*object));
            }
        }
        sum
    }
}
