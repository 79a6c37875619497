//! Objects on the collector's lists that no root reaches: kept by C code, or garbage.
//!
//! Garbage is told by counting, as the collector does: an object is kept from outside when it has more references than
//! come from the objects that are lost themselves. What that leads to is kept; the rest waits for the collector.

use crate::heap::graph::{Graph, Label, ObjectId, Root, flags};

struct Reached {
    words: Vec<u64>,
    stack: Vec<ObjectId>,
}

impl Reached {
    fn has(&self, id: ObjectId) -> bool {
        let word = self.words.get(id as usize / 64);
        word.is_some_and(|word| word & (1 << (id % 64)) != 0)
    }

    fn add(&mut self, graph: &Graph, from: ObjectId) {
        self.push(from);
        while let Some(id) = self.stack.pop() {
            for target in graph.references(id) {
                self.push(*target);
            }
        }
    }

    fn push(&mut self, id: ObjectId) {
        if let Some(word) = self.words.get_mut(id as usize / 64)
            && *word & (1 << (id % 64)) == 0
        {
            *word |= 1 << (id % 64);
            self.stack.push(id);
        }
    }
}

/// Adds a root for each tracked object that nothing else leads to: first those that no other one refers to, then one
/// of each ring that is left; what is kept by something unseen before what is garbage. Of `borrowed` those get their root that
/// nothing at all leads to.
pub fn add_tracked(graph: &mut Graph, borrowed: Vec<(ObjectId, Root)>) {
    let count = graph.len() as ObjectId;
    let mut reached = Reached {
        words: vec![0; graph.len() / 64 + 1],
        stack: Vec::new(),
    };
    for (object, _) in &graph.roots {
        reached.add(graph, *object);
    }
    let lost: Vec<ObjectId> = (0..count).filter(|id| !reached.has(*id)).collect();
    let mut kept = kept(graph, &lost, &reached);
    let mut held: Vec<ObjectId> = Vec::new();
    for id in &lost {
        held.extend(
            graph
                .references(*id)
                .iter()
                .filter(|target| *target != id && !reached.has(**target)),
        );
    }
    held.sort_unstable();
    held.dedup();
    let mut found = Vec::new();
    for (kind, only_first) in [
        (Root::Tracked, true),
        (Root::Tracked, false),
        (Root::Garbage, true),
        (Root::Garbage, false),
    ] {
        for id in lost.iter().copied().filter(|id| is_tracked(graph, *id)) {
            let is_kept = kept.has(id);
            let waits = only_first && held.binary_search(&id).is_ok();
            if is_kept == (kind == Root::Tracked) && !waits && !reached.has(id) {
                reached.add(graph, id);
                found.push((id, kind.clone()));
            }
        }
    }
    let known = found.len();
    for (id, root) in borrowed {
        if !reached.has(id) {
            reached.add(graph, id);
            kept.add(graph, id);
            found.push((id, root));
        }
    }
    let mut borrowed: Vec<ObjectId> = found.iter().skip(known).map(|(id, _)| *id).collect();
    borrowed.sort_unstable();
    graph.roots.extend(found);
    for id in lost
        .into_iter()
        .filter(|id| borrowed.binary_search(id).is_err())
    {
        let garbage = if kept.has(id) { 0 } else { flags::GARBAGE };
        if let Some(bits) = graph.flags.get_mut(id as usize) {
            *bits |= flags::LOST | garbage;
        }
    }
}

fn is_tracked(graph: &Graph, id: ObjectId) -> bool {
    let bits = graph.flags.get(id as usize).copied().unwrap_or(0);
    bits & flags::TRACKED != 0
}

/// Which of the objects `lost` something keeps that is not among them. Untracked ones are kept by those that refer to them:
/// references to strings and numbers are not all seen.
fn kept(graph: &Graph, lost: &[ObjectId], reached: &Reached) -> Reached {
    let mut references = vec![0u32; lost.len()];
    for id in lost {
        let shape = graph.shape_ids.get(*id as usize);
        let shape = shape.and_then(|shape| graph.shapes.get(*shape as usize));
        let labels = shape.map_or(&[][..], |shape| &shape.labels);
        for (position, target) in graph.references(*id).iter().enumerate() {
            // What was found in an unknown struct may be borrowed: then it is no reference that was counted.
            if labels.get(position) == Some(&Label::Found) || reached.has(*target) {
                continue;
            }
            let place = lost.binary_search(target).ok();
            if let Some(number) = place.and_then(|at| references.get_mut(at)) {
                *number = number.saturating_add(1);
            }
        }
    }
    // What roots reach is not followed again.
    let mut kept = Reached {
        words: reached.words.clone(),
        stack: Vec::new(),
    };
    for (id, references) in lost.iter().zip(references) {
        let bits = graph.flags.get(*id as usize).copied().unwrap_or(0);
        let counted = graph.refcounts.get(*id as usize).copied().unwrap_or(0);
        let immortal = bits & flags::IMMORTAL != 0;
        if is_tracked(graph, *id) && (immortal || counted > references) {
            kept.add(graph, *id);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heap::graph::testing::lists;

    #[test]
    fn rings_are_garbage_and_what_has_more_references_is_kept() {
        // 0 is a module; 1 and 2 a ring, 3 and 4 another one that C code holds, 5 hangs below it, 6 below the first.
        let targets = [
            vec![],
            vec![2],
            vec![1, 6],
            vec![4],
            vec![3, 5],
            vec![],
            vec![],
        ];
        let mut graph = lists(&targets, &[0]);
        graph.flags.fill(flags::TRACKED);
        graph.refcounts[3] = 2;
        add_tracked(&mut graph, Vec::new());
        let garbage = graph.flags.iter().map(|bits| bits & flags::GARBAGE != 0);
        assert_eq!(
            garbage.collect::<Vec<_>>(),
            [false, true, true, false, false, false, true]
        );
        let roots: Vec<_> = graph.roots[1..].to_vec();
        assert_eq!(roots, [(3, Root::Tracked), (1, Root::Garbage)]);
    }
}
