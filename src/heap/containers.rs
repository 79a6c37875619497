//! Lists, dicts and other containers that modules and classes hold by name, and which of them grew between two heaps.
//!
//! By name means through attributes alone: `app.CACHE`, `app.Class.registry`, `app.server.sessions`; and through what functions
//! close over or have as defaults, where memoizing decorators keep their results. A container inside another one is that
//! one's growth.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::fold::Fold;
use super::graph::{Graph, ObjectId, Rest, Root};
use super::retained::Retained;
use super::steps::{self, Step};

/// Names after the module's that are followed.
const NAMES: u8 = 4;

/// A container that grew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grown {
    /// It.
    pub object: ObjectId,
    /// Such as `app.server.sessions`.
    pub path: String,
    /// Items, or pairs of a mapping.
    pub items: u64,
    /// As many it had before; `None` when it was not there.
    pub before: Option<u64>,
    /// Bytes that would go with it.
    pub retained: u64,
}

/// Containers of `new` with more than `least` items that have more than they had in `old`, those that grew most first.
/// With `same_process` a container is the same when its address and type are, else when its path is.
pub fn grown(
    old: &Graph,
    new: &Graph,
    retained: &Retained<'_>,
    same_process: bool,
    least: u64,
) -> Vec<Grown> {
    let before = Named::of(old, &Fold::of(old));
    let by_path: FxHashMap<String, u64> = before
        .containers(old)
        .map(|(place, items)| (before.path(old, place), items))
        .collect();
    let same_object = |object: ObjectId| {
        let address = new.addresses.get(object as usize)?;
        let known = old.object_at(*address).filter(|_| same_process)?;
        let same_type = steps::type_name(old, known) == steps::type_name(new, object);
        items(old, known).filter(|_| same_type)
    };
    let now = Named::of(new, &Fold::of(new));
    let mut rows: Vec<Grown> = now
        .containers(new)
        .filter(|(_, items)| *items > least)
        .filter_map(|(place, items)| {
            let object = now.places.get(place)?.object;
            let path = now.path(new, place);
            let before = same_object(object).or_else(|| by_path.get(&path).copied());
            (items > before.unwrap_or(0)).then(|| Grown {
                object,
                path,
                items,
                before,
                retained: retained.holder(object).retained,
            })
        })
        .collect();
    let growth = |row: &Grown| row.items - row.before.unwrap_or(0);
    rows.sort_by(|a, b| {
        growth(b)
            .cmp(&growth(a))
            .then_with(|| b.retained.cmp(&a.retained))
            .then_with(|| a.path.cmp(&b.path))
    });
    rows
}

/// How many items a container has; `None` for what is none.
fn items(graph: &Graph, object: ObjectId) -> Option<u64> {
    let shape = graph.shape_ids.get(object as usize)?;
    let shape = graph.shapes.get(*shape as usize)?;
    let count = graph.references(object).len();
    let count = count.checked_sub(shape.labels.len())? as u64;
    match shape.rest {
        Rest::Nothing => None,
        Rest::Items | Rest::Members => Some(count),
        Rest::Pairs => Some(count / 2),
    }
}

/// Whether a step leads from a function to the values that are its own.
fn step_into_function(graph: &Graph, step: Step) -> bool {
    let Step::Field(name) = step else {
        return false;
    };
    let name = graph.name(name);
    matches!(name, "__closure__" | "__defaults__" | "__kwdefaults__")
}

/// An object that has a name, and how it is reached.
#[derive(Debug, Clone, Copy)]
struct NamedPlace {
    object: ObjectId,
    /// The place that it was reached from and how, or the module's index among the roots.
    from: Result<(usize, Step), usize>,
    depth: u8,
}

/// All objects that attributes alone lead to.
#[derive(Debug, Default)]
struct Named {
    places: Vec<NamedPlace>,
    /// Which of them are part of another one: no containers of their own.
    is_part: Vec<bool>,
}

impl Named {
    fn of(graph: &Graph, fold: &Fold) -> Named {
        let mut found = Named::default();
        let mut seen = vec![false; graph.len()];
        let mut open = VecDeque::new();
        for (index, (object, root)) in graph.roots.iter().enumerate() {
            if matches!(root, Root::Module(_)) {
                let object = fold.owner(*object);
                found.enter(fold, object, Err(index), 0, &mut seen, &mut open);
            }
        }
        while let Some(at) = open.pop_front() {
            let Some(place) = found.places.get(at).copied() else {
                break;
            };
            for (position, target) in graph.references(place.object).iter().enumerate() {
                let step = steps::step(graph, fold, place.object, position);
                let part = fold.owner(*target) == place.object && *target != place.object;
                let within = found.within(graph, &place);
                let is_name = match step {
                    Step::Attribute(_) | Step::Field(_) => true,
                    // What a function closes over, and what its parameters are when they are not given, have names too.
                    Step::Item(_) | Step::Value(_) | Step::ValueOf(_) | Step::Entry(_) => within,
                    _ => false,
                };
                let is_free = part || within || step_into_function(graph, step);
                let depth = place.depth + u8::from(!is_free);
                if is_name && depth <= NAMES {
                    let from = Ok((at, step));
                    found.enter(fold, *target, from, depth, &mut seen, &mut open);
                }
            }
        }
        found
    }

    fn enter(
        &mut self,
        fold: &Fold,
        object: ObjectId,
        from: Result<(usize, Step), usize>,
        depth: u8,
        seen: &mut [bool],
        open: &mut VecDeque<usize>,
    ) {
        let Some(seen) = seen.get_mut(object as usize).filter(|seen| !**seen) else {
            return;
        };
        *seen = true;
        let is_part = fold.is_part(object);
        // A part is no step of its own: it goes first.
        match is_part {
            true => open.push_front(self.places.len()),
            false => open.push_back(self.places.len()),
        }
        self.is_part.push(is_part);
        self.places.push(NamedPlace {
            object,
            from,
            depth,
        });
    }

    /// Whether a place is the tuple or dict of a function's own.
    fn within(&self, graph: &Graph, place: &NamedPlace) -> bool {
        place
            .from
            .is_ok_and(|(_, step)| step_into_function(graph, step))
    }

    /// The containers and how many items they have.
    fn containers<'s>(&'s self, graph: &'s Graph) -> impl Iterator<Item = (usize, u64)> + 's {
        let places = self.places.iter().zip(&self.is_part).enumerate();
        places.filter_map(|(at, (place, is_part))| {
            let own = self.within(graph, place);
            let items = items(graph, place.object).filter(|_| !is_part && !own)?;
            Some((at, items))
        })
    }

    fn path(&self, graph: &Graph, place: usize) -> String {
        let mut back = Vec::new();
        let mut at = place;
        let mut text = loop {
            match self.places.get(at).map(|place| place.from) {
                Some(Ok((from, step))) => {
                    if !self.is_part.get(at).copied().unwrap_or(false) {
                        back.push(step);
                    }
                    at = from;
                }
                Some(Err(root)) => match graph.roots.get(root) {
                    Some((_, root)) => break steps::root(graph, root),
                    None => return String::new(),
                },
                None => return String::new(),
            }
        };
        for step in back.into_iter().rev() {
            step.write(graph, &mut text);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heap::graph::Label;
    use crate::heap::graph::testing::{name, object, shape};

    /// `app`, whose list has `listed` items and whose class has a dict of `mapped`, with a list in it.
    fn app(listed: usize, mapped: usize) -> Graph {
        let mut graph = Graph::default();
        let labels: Vec<Label> = ["LIST", "Class"]
            .iter()
            .map(|text| Label::Attribute(name(&mut graph, text)))
            .collect();
        let module = shape(&mut graph, &labels, Rest::Nothing);
        let kept = Label::Attribute(name(&mut graph, "kept"));
        let class = shape(&mut graph, &[kept], Rest::Nothing);
        let items = shape(&mut graph, &[], Rest::Items);
        let pairs = shape(&mut graph, &[], Rest::Pairs);
        object(&mut graph, "module", 72, module, &[1, 2]);
        object(&mut graph, "list", 100, items, &vec![4; listed]);
        object(&mut graph, "type", 900, class, &[3]);
        object(&mut graph, "dict", 200, pairs, &vec![4; 2 * mapped]);
        object(&mut graph, "list", 100, items, &[4; 500]);
        let app = name(&mut graph, "app");
        graph.roots.push((0, Root::Module(app)));
        graph
    }

    fn rows(old: &Graph, new: &Graph, least: u64) -> Vec<(String, u64, Option<u64>)> {
        let fold = Fold::of(new);
        let retained = Retained::of(new, &fold);
        let both = [true, false].map(|same| grown(old, new, &retained, same, least));
        assert_eq!(both[0], both[1]);
        let rows = both[0].iter();
        rows.map(|row| (row.path.clone(), row.items, row.before))
            .collect()
    }

    #[test]
    fn what_grew_is_named_and_what_did_not_is_left_out() {
        let old = app(10, 50);
        assert_eq!(
            rows(&old, &app(40, 250), 20),
            [
                ("app.Class.kept".to_string(), 250, Some(50)),
                ("app.LIST".to_string(), 40, Some(10)),
            ]
        );
        assert_eq!(
            rows(&old, &app(40, 50), 20),
            [("app.LIST".to_string(), 40, Some(10))]
        );
        assert!(rows(&old, &app(40, 250), 250).is_empty());
        assert_eq!(
            rows(&Graph::default(), &app(40, 0), 0),
            [("app.LIST".to_string(), 40, None)]
        );
    }
}
