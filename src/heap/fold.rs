//! Dicts that are part of another object, so that holders and paths read like Python.
//!
//! The `__dict__` of a module, class or instance and the module or class are one thing to a person: whoever refers
//! to the dict (every function of a module does, as its globals) holds the owner.

use super::graph::{Graph, Label, ObjectId};

/// The name of the field that folds its target into the owner.
pub const FOLDED_FIELD: &str = "__dict__";

/// For each object the one that it is part of; most are their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fold {
    owners: Vec<ObjectId>,
}

impl Fold {
    /// Finds the dicts with one owner. Those shared by several owners (`a.__dict__ = b.__dict__`) stay alone.
    pub fn of(graph: &Graph) -> Fold {
        let mut owners: Vec<ObjectId> = (0..graph.len() as ObjectId).collect();
        let field = graph.names.iter().position(|name| name == FOLDED_FIELD);
        let Some(field) = field.and_then(|field| u32::try_from(field).ok()) else {
            return Fold { owners };
        };
        // Which reference of each shape it is.
        let places: Vec<Option<usize>> = graph
            .shapes
            .iter()
            .map(|shape| {
                shape
                    .labels
                    .iter()
                    .position(|label| *label == Label::Field(field))
            })
            .collect();
        let mut shared = Vec::new();
        for (object, shape) in graph.shape_ids.iter().enumerate() {
            let object = object as ObjectId;
            let place = places.get(*shape as usize).copied().flatten();
            let Some(dict) = place.and_then(|place| graph.references(object).get(place)) else {
                continue;
            };
            match owners.get_mut(*dict as usize) {
                Some(owner) if *owner == *dict && object != *dict => *owner = object,
                Some(owner) if *owner != object => shared.push(*dict),
                _ => {}
            }
        }
        for dict in shared {
            if let Some(owner) = owners.get_mut(dict as usize) {
                *owner = dict;
            }
        }
        // An owner that is itself a part (a class as the `__dict__` of something) would make chains; one step is enough.
        for object in 0..owners.len() {
            let owner = owners[object];
            if owner as usize != object && owners.get(owner as usize) != Some(&owner) {
                owners[object] = object as ObjectId;
            }
        }
        Fold { owners }
    }

    /// The object that `object` is part of, which may be itself.
    pub fn owner(&self, object: ObjectId) -> ObjectId {
        self.owners.get(object as usize).copied().unwrap_or(object)
    }

    /// Whether it is part of another object.
    pub fn is_part(&self, object: ObjectId) -> bool {
        self.owner(object) != object
    }
}

/// References between whole objects, parts folded into their owners, in flat arrays; object ids stay those of the
/// graph, parts have none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adjacency {
    starts: Vec<u64>,
    ends: Vec<ObjectId>,
}

impl Adjacency {
    /// What each object refers to.
    pub fn forward(graph: &Graph, fold: &Fold) -> Adjacency {
        Adjacency::build(graph, fold, |from, to| (from, to))
    }

    /// What refers to each object.
    pub fn backward(graph: &Graph, fold: &Fold) -> Adjacency {
        Adjacency::build(graph, fold, |from, to| (to, from))
    }

    fn build(
        graph: &Graph,
        fold: &Fold,
        turn: impl Fn(ObjectId, ObjectId) -> (ObjectId, ObjectId),
    ) -> Adjacency {
        let count = graph.len();
        let each = |visit: &mut dyn FnMut(usize, ObjectId)| {
            for object in 0..count as ObjectId {
                let from = fold.owner(object);
                for target in graph.references(object) {
                    let to = fold.owner(*target);
                    if to != from && (to as usize) < count {
                        let (key, value) = turn(from, to);
                        visit(key as usize, value);
                    }
                }
            }
        };
        // Counting sort: how many, where each begins, then the values.
        let mut starts = vec![0u64; count + 1];
        each(&mut |key, _| starts[key + 1] += 1);
        for at in 0..count {
            starts[at + 1] += starts[at];
        }
        let total = usize::try_from(starts[count]).unwrap_or(0);
        let mut ends = vec![0; total];
        let mut next = starts.clone();
        each(&mut |key, value| {
            let at = next[key];
            next[key] += 1;
            if let Some(place) = usize::try_from(at).ok().and_then(|at| ends.get_mut(at)) {
                *place = value;
            }
        });
        Adjacency { starts, ends }
    }

    /// The objects at the other ends; one may be there several times.
    pub fn of(&self, object: ObjectId) -> &[ObjectId] {
        let at = object as usize;
        let range = self.starts.get(at).zip(self.starts.get(at + 1));
        range
            .and_then(|(from, to)| self.ends.get(*from as usize..*to as usize))
            .unwrap_or_default()
    }
}
