//! Objects on the collector's lists that no root reaches: kept by C code, or garbage.

use crate::heap::graph::{Graph, ObjectId, Root, flags};

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
/// of each ring that is left.
pub fn add_tracked(graph: &mut Graph) {
    let count = graph.len() as ObjectId;
    let mut reached = Reached {
        words: vec![0; graph.len() / 64 + 1],
        stack: Vec::new(),
    };
    for (object, _) in &graph.roots {
        reached.add(graph, *object);
    }
    let lost: Vec<ObjectId> = (0..count).filter(|id| !reached.has(*id)).collect();
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
    let is_tracked = |id: ObjectId| {
        let bits = graph.flags.get(id as usize).copied().unwrap_or(0);
        bits & flags::TRACKED != 0
    };
    let mut found = Vec::new();
    for only_first in [true, false] {
        for id in lost.iter().copied().filter(|id| is_tracked(*id)) {
            let waits = only_first && held.binary_search(&id).is_ok();
            if !waits && !reached.has(id) {
                reached.add(graph, id);
                found.push((id, Root::Tracked));
            }
        }
    }
    graph.roots.extend(found);
    for id in lost {
        if let Some(bits) = graph.flags.get_mut(id as usize) {
            *bits |= flags::LOST;
        }
    }
}
