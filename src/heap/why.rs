//! Why a type grew: which path holds most of its new instances, and what they keep alive.

use rustc_hash::FxHashSet;

use super::fold::Fold;
use super::graph::{Graph, ObjectId};
use super::paths::Paths;
use super::retained::Retained;

/// The path that holds most of some objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// Such as `leak_app.REGISTRY.by_path[*][*]`.
    pub path: String,
    /// How many of the objects it holds.
    pub objects: u64,
    /// How many there are in all.
    pub of: u64,
    /// Bytes that all of the objects keep alive, nothing counted twice.
    pub retained: u64,
}

/// A type and what holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeReason {
    /// The type.
    pub name: String,
    /// What holds most of its new instances.
    pub reason: Reason,
}

/// Why there are instances of each of `types` in `new`: of those that `old` does not have, when it is of the same
/// process, else of all. Types that nothing holds are left out.
pub fn reasons<'t>(
    old: Option<&Graph>,
    new: &Graph,
    types: impl IntoIterator<Item = &'t str>,
) -> Vec<TypeReason> {
    let fold = Fold::of(new);
    let paths = Paths::of(new, &fold);
    let retained = Retained::of(new, &fold);
    let empty = Graph::default();
    types
        .into_iter()
        .filter_map(|name| {
            let objects = new_instances(old.unwrap_or(&empty), new, name);
            let reason = reason(&paths, &retained, &objects)?;
            Some(TypeReason {
                name: name.to_string(),
                reason,
            })
        })
        .collect()
}

/// What holds most of `objects`; `None` when no root reaches any of them.
pub fn reason(paths: &Paths<'_>, retained: &Retained<'_>, objects: &[ObjectId]) -> Option<Reason> {
    let form = paths.forms(objects.iter().copied()).into_iter().next()?;
    Some(Reason {
        path: form.text,
        objects: form.objects,
        of: objects.len() as u64,
        retained: together(retained, objects),
    })
}

/// Bytes that `objects` keep alive: of those below one another only the upper ones count.
fn together(retained: &Retained<'_>, objects: &[ObjectId]) -> u64 {
    let set: FxHashSet<ObjectId> = objects
        .iter()
        .map(|object| retained.holder(*object).object)
        .collect();
    // Chains of the same type are millions long: what is known to have one of the set above is not climbed again.
    let mut below: FxHashSet<ObjectId> = FxHashSet::default();
    let mut clear: FxHashSet<ObjectId> = FxHashSet::default();
    let mut sum = 0u64;
    for object in &set {
        let mut climbed = Vec::new();
        let mut at = retained.dominators().parent(*object);
        let is_below = loop {
            match at {
                None => break false,
                Some(above) if set.contains(&above) || below.contains(&above) => break true,
                Some(above) if clear.contains(&above) => break false,
                Some(above) => {
                    climbed.push(above);
                    at = retained.dominators().parent(above);
                }
            }
        };
        if is_below {
            below.extend(climbed);
        } else {
            clear.extend(climbed);
            sum = sum.saturating_add(retained.dominators().retained(*object));
        }
    }
    sum
}

/// The objects of `new` of types called `type_name` that `old` does not have: same address, type and size. Several
/// types may have one name.
pub fn new_instances(old: &Graph, new: &Graph, type_name: &str) -> Vec<ObjectId> {
    let called = |graph: &Graph| -> Vec<bool> {
        let names = graph.types.iter().map(|found| graph.name(found.name));
        names.map(|name| name == type_name).collect()
    };
    let (called_old, called_new) = (called(old), called(new));
    let has = |called: &[bool], graph: &Graph, at: usize| {
        let type_id = graph.type_ids.get(at).map(|id| *id as usize);
        type_id
            .and_then(|id| called.get(id).copied())
            .unwrap_or(false)
    };
    let survived = |at: usize| {
        let address = new.addresses.get(at);
        let before = address.and_then(|address| old.object_at(*address));
        before.is_some_and(|before| {
            let before = before as usize;
            has(&called_old, old, before) && old.sizes.get(before) == new.sizes.get(at)
        })
    };
    (0..new.len())
        .filter(|at| has(&called_new, new, *at) && !survived(*at))
        .map(|at| at as ObjectId)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::fold::Fold;
    use super::super::graph::testing::lists;
    use super::*;

    #[test]
    fn the_reason_names_the_path_and_what_it_keeps() {
        // A list of three lists, of which the second holds the third; one more is held elsewhere.
        let graph = lists(
            &[
                vec![1],
                vec![2, 3],
                vec![],
                vec![4],
                vec![],
                vec![6],
                vec![],
            ],
            &[0, 5],
        );
        let fold = Fold::of(&graph);
        let paths = Paths::of(&graph, &fold);
        let retained = Retained::of(&graph, &fold);
        let found = reason(&paths, &retained, &[2, 3, 4, 6]).expect("a reason");
        assert_eq!(found.path, "module0[*][*]");
        assert_eq!((found.objects, found.of), (2, 4));
        assert_eq!(found.retained, 102 + (103 + 104) + 106);
        assert_eq!(reason(&paths, &retained, &[]), None);
    }

    #[test]
    fn survivors_are_not_new() {
        let old = lists(&[vec![], vec![]], &[0]);
        let mut new = lists(&[vec![], vec![], vec![]], &[0]);
        new.sizes[1] += 8;
        assert_eq!(new_instances(&old, &new, "list"), [1, 2]);
        assert!(new_instances(&old, &new, "dict").is_empty());
    }
}
