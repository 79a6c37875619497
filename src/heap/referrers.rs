//! Who refers to an object, or to the instances of a type: trees upward, a level at a time.
//!
//! A level is one pass over all references, so that nothing has to be indexed for a question about a few objects.

use rustc_hash::{FxHashMap, FxHashSet};

use super::fold::Fold;
use super::graph::{Graph, ObjectId, Root};
use super::steps::{self, Step};

/// Most objects of one group whose referrers are looked for; beyond that the group stands without children.
const GROUP_LIMIT: usize = 4_000_000;

/// References in one tree: more are not followed, and that is said.
pub const MOST_SHOWN: usize = 100_000;

/// Most references of an object itself that are compared with those of its dict.
const ATTRIBUTES: usize = 64;

/// How far the tree goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Levels below the object.
    pub depth: usize,
    /// Children of one node.
    pub children: usize,
}

/// One referrer, and who refers to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Referrer {
    /// The object.
    pub object: ObjectId,
    /// How it refers to the node above; `None` for the object that was asked for.
    pub step: Option<Step>,
    /// Those who refer to it.
    pub children: Vec<Referrer>,
    /// Referrers that are not shown.
    pub hidden: u64,
    /// It stands above in this branch already.
    pub is_cycle: bool,
    /// It stands elsewhere in the tree.
    pub is_seen: bool,
    /// References to it that are not followed since the tree ends there, wherever in the tree it stands.
    pub beyond: u64,
    /// The roots that hold it, as indices into the graph's.
    pub roots: Vec<usize>,
}

/// Referrers of many objects that look alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Type of the referrers.
    pub type_name: String,
    /// How they refer to the group above, in general; `None` for the type that was asked for.
    pub step: Option<Step>,
    /// How many referrers.
    pub objects: u64,
    /// How many references from them to the group above.
    pub references: u64,
    /// Who refers to these.
    pub children: Vec<Group>,
    /// Groups that are not shown.
    pub hidden: u64,
    /// Roots that hold some of them, as indices into the graph's, at most as many as children.
    pub roots: Vec<usize>,
}

/// A reference to one of the objects that were asked about.
struct Found {
    /// Index in the list that was asked about.
    asked: u32,
    owner: ObjectId,
    step: Step,
}

/// Answers questions about one graph.
#[derive(Debug)]
pub struct Referrers<'a> {
    graph: &'a Graph,
    fold: &'a Fold,
    /// The roots of each object that is one.
    roots: FxHashMap<ObjectId, Vec<usize>>,
}

impl<'a> Referrers<'a> {
    /// For `graph`.
    pub fn new(graph: &'a Graph, fold: &'a Fold) -> Self {
        let mut roots: FxHashMap<ObjectId, Vec<usize>> = FxHashMap::default();
        for (at, (object, root)) in graph.roots.iter().enumerate() {
            // That it is on the collector's lists says nothing about who holds it.
            if !matches!(root, Root::Tracked | Root::Garbage) {
                roots.entry(fold.owner(*object)).or_default().push(at);
            }
        }
        Referrers { graph, fold, roots }
    }

    fn roots_of(&self, object: ObjectId) -> Vec<usize> {
        self.roots.get(&object).cloned().unwrap_or_default()
    }

    /// All references to the objects of `asked`, which are whole objects (no parts).
    fn references_to(&self, asked: &[ObjectId]) -> Vec<Found> {
        let mut found = Vec::new();
        self.each_reference_to(asked, |reference| found.push(reference));
        found
    }

    fn each_reference_to(&self, asked: &[ObjectId], mut each: impl FnMut(Found)) {
        let index: FxHashMap<ObjectId, u32> = asked
            .iter()
            .enumerate()
            .map(|(at, object)| (*object, at as u32))
            .collect();
        let wanted: Vec<bool> = (0..self.graph.len() as ObjectId)
            .map(|object| index.contains_key(&self.fold.owner(object)))
            .collect();
        for object in 0..self.graph.len() as ObjectId {
            let owner = self.fold.owner(object);
            for (position, target) in self.graph.references(object).iter().enumerate() {
                if !wanted.get(*target as usize).copied().unwrap_or(false) {
                    continue;
                }
                let whole = self.fold.owner(*target);
                let is_inside = whole == owner && self.fold.is_part(*target);
                if let Some(asked) = index.get(&whole).filter(|_| !is_inside) {
                    let step = steps::step(self.graph, self.fold, object, position);
                    if owner != object && self.has_itself(owner, *target, step) {
                        continue;
                    }
                    each(Found {
                        asked: *asked,
                        owner,
                        step,
                    });
                }
            }
        }
    }

    /// Whether `owner` itself has an attribute that its dict has too: both have it where the values are in the object and the
    /// dict was asked for (3.13 and newer).
    fn has_itself(&self, owner: ObjectId, target: ObjectId, step: Step) -> bool {
        let own = self.graph.references(owner).iter().take(ATTRIBUTES);
        let mut own = own.enumerate().filter(|(_, own)| **own == target);
        own.any(|(position, _)| steps::step(self.graph, self.fold, owner, position) == step)
    }

    /// The references to `object`: owner and how.
    pub fn direct(&self, object: ObjectId) -> Vec<(ObjectId, Step)> {
        let found = self.references_to(&[self.fold.owner(object)]);
        found
            .into_iter()
            .map(|found| (found.owner, found.step))
            .collect()
    }

    /// Of each object of `asked`, the first references to it, at most `most`, and how many more there are.
    fn first_references_to(&self, asked: &[ObjectId], most: usize) -> Vec<(Vec<Found>, u64)> {
        let mut found: Vec<(Vec<Found>, u64)> = asked.iter().map(|_| (Vec::new(), 0)).collect();
        self.each_reference_to(asked, |reference| {
            if let Some((first, more)) = found.get_mut(reference.asked as usize) {
                match first.len() < most {
                    true => first.push(reference),
                    false => *more += 1,
                }
            }
        });
        found
    }

    /// The tree above `object`. Each object is followed once, where it comes first by levels, so that the tree has as many
    /// nodes as there are references in it; with whether it was cut because these are too many. What the last level has is
    /// asked for its referrers too, which are only counted.
    pub fn tree(&self, object: ObjectId, limits: Limits) -> (Referrer, bool) {
        let object = self.fold.owner(object);
        let mut nodes = vec![Node {
            object,
            above: None,
            step: None,
            hidden: 0,
            is_cycle: false,
            is_seen: false,
        }];
        let mut seen: FxHashSet<ObjectId> = FxHashSet::from_iter([object]);
        let mut level = vec![0usize];
        let mut is_cut = false;
        for _ in 0..limits.depth {
            if level.is_empty() {
                break;
            }
            let asked: Vec<ObjectId> = level.iter().map(|node| nodes[*node].object).collect();
            let found = self.first_references_to(&asked, limits.children.min(MOST_SHOWN));
            let mut next = Vec::new();
            for (at, (first, more)) in level.into_iter().zip(found) {
                nodes[at].hidden = more;
                for found in first {
                    if nodes.len() > MOST_SHOWN {
                        nodes[at].hidden += 1;
                        is_cut = true;
                        continue;
                    }
                    let is_new = seen.insert(found.owner);
                    if is_new {
                        next.push(nodes.len());
                    }
                    let is_cycle = !is_new && is_above(&nodes, at, found.owner);
                    nodes.push(Node {
                        object: found.owner,
                        above: Some(at),
                        step: Some(found.step),
                        hidden: 0,
                        is_cycle,
                        is_seen: !is_new && !is_cycle,
                    });
                }
            }
            level = next;
        }
        let mut beyond: FxHashMap<ObjectId, u64> = FxHashMap::default();
        if !level.is_empty() {
            let asked: Vec<ObjectId> = level.iter().map(|node| nodes[*node].object).collect();
            self.each_reference_to(&asked, |reference| {
                if let Some(object) = asked.get(reference.asked as usize) {
                    *beyond.entry(*object).or_insert(0) += 1;
                }
            });
        }
        (self.assemble(nodes, &beyond), is_cut)
    }

    /// Nodes come after the one above them, so that a walk from the end finds every child complete.
    fn assemble(&self, nodes: Vec<Node>, beyond: &FxHashMap<ObjectId, u64>) -> Referrer {
        let mut children: Vec<Vec<Referrer>> = nodes.iter().map(|_| Vec::new()).collect();
        let mut top = None;
        for (at, node) in nodes.iter().enumerate().rev() {
            let mut own = std::mem::take(&mut children[at]);
            own.reverse();
            let referrer = Referrer {
                object: node.object,
                step: node.step,
                children: own,
                hidden: node.hidden,
                is_cycle: node.is_cycle,
                is_seen: node.is_seen,
                beyond: beyond.get(&node.object).copied().unwrap_or(0),
                roots: self.roots_of(node.object),
            };
            match node.above {
                Some(above) => children[above].push(referrer),
                None => top = Some(referrer),
            }
        }
        top.unwrap_or(Referrer {
            object: 0,
            step: None,
            children: Vec::new(),
            hidden: 0,
            is_cycle: false,
            is_seen: false,
            beyond: 0,
            roots: Vec::new(),
        })
    }

    /// The groups above `objects`, which are of the type `type_name`.
    pub fn groups(&self, type_name: &str, objects: &[ObjectId], limits: Limits) -> Group {
        let mut objects: Vec<ObjectId> = objects
            .iter()
            .map(|object| self.fold.owner(*object))
            .collect();
        objects.sort_unstable();
        objects.dedup();
        let mut group = Group {
            type_name: type_name.to_string(),
            step: None,
            objects: objects.len() as u64,
            references: 0,
            children: Vec::new(),
            hidden: 0,
            roots: self.roots_of_all(&objects, limits.children),
        };
        let mut seen: FxHashSet<ObjectId> = objects.iter().copied().collect();
        self.grow(&mut group, &objects, limits, &mut seen);
        group
    }

    fn roots_of_all(&self, objects: &[ObjectId], most: usize) -> Vec<usize> {
        if self.roots.is_empty() {
            return Vec::new();
        }
        let all = objects.iter().flat_map(|object| self.roots_of(*object));
        all.take(most).collect()
    }

    /// Adds the children of `group`, whose members are `objects`. As deep as `limits` says, which is a few levels.
    fn grow(
        &self,
        group: &mut Group,
        objects: &[ObjectId],
        limits: Limits,
        seen: &mut FxHashSet<ObjectId>,
    ) {
        if limits.depth == 0 || objects.is_empty() || objects.len() > GROUP_LIMIT {
            return;
        }
        let mut found: FxHashMap<(&str, Step), (u64, Vec<ObjectId>)> = FxHashMap::default();
        for reference in self.references_to(objects) {
            let key = (
                steps::type_name(self.graph, reference.owner),
                reference.step.general(),
            );
            let (references, owners) = found.entry(key).or_default();
            *references += 1;
            owners.push(reference.owner);
        }
        let mut found: Vec<_> = found.into_iter().collect();
        found.sort_by(|a, b| b.1.0.cmp(&a.1.0).then_with(|| a.0.cmp(&b.0)));
        group.hidden = found.len().saturating_sub(limits.children) as u64;
        for ((type_name, step), (references, mut owners)) in found.into_iter().take(limits.children)
        {
            owners.sort_unstable();
            owners.dedup();
            let mut child = Group {
                type_name: type_name.to_string(),
                step: Some(step),
                objects: owners.len() as u64,
                references,
                children: Vec::new(),
                hidden: 0,
                roots: self.roots_of_all(&owners, limits.children),
            };
            // What stands above already is not followed again.
            owners.retain(|owner| seen.insert(*owner));
            let below = Limits {
                depth: limits.depth - 1,
                ..limits
            };
            self.grow(&mut child, &owners, below, seen);
            group.children.push(child);
        }
    }
}

struct Node {
    object: ObjectId,
    above: Option<usize>,
    step: Option<Step>,
    hidden: u64,
    is_cycle: bool,
    is_seen: bool,
}

fn is_above(nodes: &[Node], from: usize, object: ObjectId) -> bool {
    let mut at = Some(from);
    while let Some(node) = at.and_then(|at| nodes.get(at)) {
        if node.object == object {
            return true;
        }
        at = node.above;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::super::graph::testing::lists;
    use super::*;

    const LIMITS: Limits = Limits {
        depth: 3,
        children: 2,
    };

    #[test]
    fn referrers_are_found_upward_and_cycles_are_marked() {
        // 0 -> 1 -> 2 -> 1, and 3, 4, 5 -> 2
        let graph = lists(
            &[vec![1], vec![2], vec![1], vec![2], vec![2], vec![2]],
            &[0],
        );
        let fold = Fold::of(&graph);
        let (tree, _) = Referrers::new(&graph, &fold).tree(2, LIMITS);
        let above: Vec<ObjectId> = tree.children.iter().map(|child| child.object).collect();
        assert_eq!((above, tree.hidden), (vec![1, 3], 2));
        let one = &tree.children[0];
        assert_eq!(one.step, Some(Step::Item(0)));
        let above: Vec<(ObjectId, bool)> = one
            .children
            .iter()
            .map(|child| (child.object, child.is_cycle))
            .collect();
        assert_eq!(above, [(0, false), (2, true)]);
        assert_eq!(one.children[0].roots, [0]);
    }

    #[test]
    fn what_the_last_level_leaves_out_is_counted() {
        // 0 -> 1, 2 -> 3; 4, 5, 6 -> 0; 1 -> 2
        let graph = lists(
            &[
                vec![1, 2],
                vec![3, 2],
                vec![3],
                vec![],
                vec![0],
                vec![0],
                vec![0],
            ],
            &[4],
        );
        let fold = Fold::of(&graph);
        let referrers = Referrers::new(&graph, &fold);
        let tree = |depth| referrers.tree(3, Limits { depth, children: 9 }).0;
        let beyond = |node: &Referrer| node.children.iter().map(|child| child.beyond).collect();
        let (one, two): (Vec<u64>, Vec<u64>) = (beyond(&tree(1)), beyond(&tree(2).children[0]));
        assert_eq!((one, two), (vec![1, 2], vec![3]));
        // 0 stands below 2 as well, where its referrers are no more told than below 1.
        let again = &tree(2).children[1].children[0];
        assert_eq!((again.object, again.is_seen, again.beyond), (0, true, 3));
        assert_eq!(beyond(&tree(3).children[0]), [0]);
    }

    #[test]
    fn an_object_is_followed_once_however_many_ways_lead_to_it() {
        // Layers of two, each of which holds both of the next layer, and one below the last.
        let layers = 40;
        let mut targets: Vec<Vec<ObjectId>> = (0..layers)
            .flat_map(|layer| {
                let next: Vec<ObjectId> = match layer + 1 < layers {
                    true => vec![2 * layer + 2, 2 * layer + 3],
                    false => vec![2 * layers],
                };
                [next.clone(), next]
            })
            .collect();
        targets.push(vec![]);
        let graph = lists(&targets, &[0]);
        let fold = Fold::of(&graph);
        let limits = Limits {
            depth: 100,
            children: 10,
        };
        let (tree, is_cut) = Referrers::new(&graph, &fold).tree(2 * layers, limits);
        let mut nodes = 0;
        let mut followed = 0;
        let mut open = vec![&tree];
        while let Some(node) = open.pop() {
            nodes += 1;
            followed += u32::from(!node.is_seen && !node.is_cycle);
            assert!(!node.is_seen || node.children.is_empty());
            open.extend(&node.children);
        }
        assert!(!is_cut);
        assert_eq!((nodes, followed), (1 + graph.targets.len(), 2 * layers + 1));
    }

    #[test]
    fn instances_of_a_type_are_grouped_by_who_holds_them() {
        let mut targets: Vec<Vec<ObjectId>> = vec![vec![1, 2], vec![3, 4, 5], vec![6]];
        targets.resize(7, vec![]);
        let graph = lists(&targets, &[0]);
        let fold = Fold::of(&graph);
        let group = Referrers::new(&graph, &fold).groups("list", &[3, 4, 5, 6], LIMITS);
        assert_eq!((group.objects, group.children.len()), (4, 1));
        let child = &group.children[0];
        assert_eq!((child.objects, child.references), (2, 4));
        assert_eq!(child.step, Some(Step::Item(u32::MAX)));
        assert_eq!(child.children[0].objects, 1);
        assert_eq!(child.children[0].roots, [0]);
    }
}
