//! Who alone keeps what alive: the dominator tree, and retained sizes from it.
//!
//! An object dominates another when every path from a root to the other one leads through it; its retained size is
//! what would go if it went. Semi-NCA (Georgiadis, Tarjan and Werneck, "Finding Dominators in Practice", 2006), with a root
//! above all roots, iterative: chains in heaps are millions long.

use super::fold::{Adjacency, Fold};
use super::graph::{Graph, ObjectId, Root};

/// No object: the root above all roots, or not reached.
const NONE: u32 = u32::MAX;

/// The dominator tree of a graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dominators {
    /// The immediate dominator of each object, [`NONE`] below the root of all and for what is not reached.
    parents: Vec<u32>,
    /// Bytes that each object retains, itself and its parts included; 0 for parts and for what is not reached.
    retained: Vec<u64>,
    /// Objects that each retains, itself and its parts included.
    counts: Vec<u32>,
    reached: Vec<bool>,
}

/// Numbers in the order in which a depth-first search meets the objects; 0 is the root of all.
struct Search {
    /// Object of each number; entry 0 is unused.
    objects: Vec<u32>,
    /// Number of each object, 0 when it was not met.
    numbers: Vec<u32>,
    /// Parent's number in the search tree.
    parents: Vec<u32>,
}

fn search(forward: &Adjacency, roots: &[ObjectId], count: usize) -> Search {
    let mut found = Search {
        objects: vec![NONE],
        numbers: vec![0; count],
        parents: vec![0],
    };
    // Pairs of an object and how many of its references were followed.
    let mut open: Vec<(ObjectId, u32)> = Vec::new();
    let enter = |found: &mut Search, object: ObjectId, parent: u32| -> bool {
        match found.numbers.get_mut(object as usize) {
            Some(number) if *number == 0 => {
                *number = found.objects.len() as u32;
                found.objects.push(object);
                found.parents.push(parent);
                true
            }
            _ => false,
        }
    };
    for root in roots {
        if !enter(&mut found, *root, 0) {
            continue;
        }
        open.push((*root, 0));
        while let Some((object, followed)) = open.last_mut() {
            let (object, at) = (*object, *followed as usize);
            match forward.of(object).get(at) {
                Some(target) => {
                    *followed += 1;
                    let number = found.numbers[object as usize];
                    if enter(&mut found, *target, number) {
                        open.push((*target, 0));
                    }
                }
                None => {
                    open.pop();
                }
            }
        }
    }
    found
}

/// The number with the least semidominator on the path from `vertex` up to the part already linked, with the path
/// compressed behind it.
fn evaluate(
    vertex: u32,
    linked_from: u32,
    ancestors: &mut [u32],
    labels: &mut [u32],
    semi: &[u32],
    path: &mut Vec<u32>,
) -> u32 {
    if vertex < linked_from {
        return vertex;
    }
    path.clear();
    let mut at = vertex;
    while ancestors[at as usize] >= linked_from {
        path.push(at);
        at = ancestors[at as usize];
    }
    // From the top down, so that each takes over what is already the least above it.
    while let Some(below) = path.pop() {
        let above = ancestors[below as usize];
        if semi[labels[above as usize] as usize] < semi[labels[below as usize] as usize] {
            labels[below as usize] = labels[above as usize];
        }
        ancestors[below as usize] = ancestors[above as usize];
    }
    labels[vertex as usize]
}

impl Dominators {
    /// The tree of `graph` below its roots; roots that only the collector's lists know ([`Root::Tracked`]) count
    /// like all others.
    pub fn of(graph: &Graph, fold: &Fold) -> Dominators {
        let count = graph.len();
        let roots: Vec<ObjectId> = graph
            .roots
            .iter()
            .filter(|(object, root)| {
                (*object as usize) < count && !matches!(root, Root::StaticType)
            })
            .chain(
                graph
                    .roots
                    .iter()
                    .filter(|(_, root)| matches!(root, Root::StaticType)),
            )
            .map(|(object, _)| fold.owner(*object))
            .collect();
        let found = {
            let forward = Adjacency::forward(graph, fold);
            search(&forward, &roots, count)
        };
        let parents = immediate(graph, fold, &roots, &found);
        Dominators::sum(graph, fold, &found, &parents)
    }

    /// Adds the sizes up, from the leaves to the roots.
    fn sum(graph: &Graph, fold: &Fold, found: &Search, dominators: &[u32]) -> Dominators {
        let count = graph.len();
        let mut tree = Dominators {
            parents: vec![NONE; count],
            retained: vec![0; count],
            counts: vec![0; count],
            reached: vec![false; count],
        };
        for (object, size) in graph.bytes().iter().enumerate() {
            let owner = fold.owner(object as ObjectId) as usize;
            if found.numbers.get(owner).copied().unwrap_or(0) != 0 {
                tree.retained[owner] = tree.retained[owner].saturating_add(*size);
                tree.counts[owner] = tree.counts[owner].saturating_add(1);
                tree.reached[object] = true;
            }
        }
        for number in (1..found.objects.len()).rev() {
            let object = found.objects[number] as usize;
            let parent = dominators[number];
            if parent == 0 {
                continue;
            }
            let parent = found.objects[parent as usize];
            tree.parents[object] = parent;
            let (retained, held) = (tree.retained[object], tree.counts[object]);
            let above = &mut tree.retained[parent as usize];
            *above = above.saturating_add(retained);
            let above = &mut tree.counts[parent as usize];
            *above = above.saturating_add(held);
        }
        tree
    }

    /// The object that alone holds `object`; `None` when several roots or none do.
    pub fn parent(&self, object: ObjectId) -> Option<ObjectId> {
        self.parents
            .get(object as usize)
            .copied()
            .filter(|parent| *parent != NONE)
    }

    /// Bytes that go when `object` goes; 0 for a part of another object.
    pub fn retained(&self, object: ObjectId) -> u64 {
        self.retained.get(object as usize).copied().unwrap_or(0)
    }

    /// Objects that go when `object` goes, itself included.
    pub fn held(&self, object: ObjectId) -> u32 {
        self.counts.get(object as usize).copied().unwrap_or(0)
    }

    /// Whether any root reaches it.
    pub fn is_reached(&self, object: ObjectId) -> bool {
        self.reached.get(object as usize).copied().unwrap_or(false)
    }
}

/// Immediate dominators, by number.
fn immediate(graph: &Graph, fold: &Fold, roots: &[ObjectId], found: &Search) -> Vec<u32> {
    let vertices = found.objects.len();
    let mut semi: Vec<u32> = (0..vertices as u32).collect();
    let mut labels = semi.clone();
    let mut ancestors = found.parents.clone();
    let backward = Adjacency::backward(graph, fold);
    let mut path = Vec::new();
    let mut is_root = vec![false; vertices];
    for root in roots {
        if let Some(number) = found.numbers.get(*root as usize) {
            is_root[*number as usize] = true;
        }
    }
    for vertex in (1..vertices as u32).rev() {
        let mut least = found.parents[vertex as usize];
        if is_root[vertex as usize] {
            least = 0;
        } else {
            for source in backward.of(found.objects[vertex as usize]) {
                let source = found.numbers[*source as usize];
                if source == 0 {
                    continue;
                }
                let best = evaluate(
                    source,
                    vertex + 1,
                    &mut ancestors,
                    &mut labels,
                    &semi,
                    &mut path,
                );
                least = least.min(semi[best as usize]);
            }
        }
        semi[vertex as usize] = least;
    }
    let mut dominators = found.parents.clone();
    for vertex in 1..vertices {
        let mut above = dominators[vertex];
        while above > semi[vertex] {
            above = dominators[above as usize];
        }
        dominators[vertex] = above;
    }
    dominators
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::super::graph::testing::{lists, name, object, shape};
    use super::super::graph::{Label, Rest};
    use super::*;

    /// What the roots reach, without going through `removed`.
    fn reached(graph: &Graph, removed: Option<ObjectId>) -> Vec<bool> {
        let mut seen = vec![false; graph.len()];
        let mut open: Vec<ObjectId> = graph.roots.iter().map(|(object, _)| *object).collect();
        while let Some(object) = open.pop() {
            if Some(object) == removed || seen[object as usize] {
                continue;
            }
            seen[object as usize] = true;
            open.extend_from_slice(graph.references(object));
        }
        seen
    }

    fn random(random: &mut StdRng) -> Graph {
        let count = random.random_range(1..60usize);
        let edges = random.random_range(0..4usize);
        let targets: Vec<Vec<ObjectId>> = (0..count)
            .map(|_| {
                (0..random.random_range(0..=edges))
                    .map(|_| random.random_range(0..count) as ObjectId)
                    .collect()
            })
            .collect();
        let roots: Vec<ObjectId> = (0..random.random_range(0..4usize))
            .map(|_| random.random_range(0..count) as ObjectId)
            .collect();
        lists(&targets, &roots)
    }

    #[test]
    fn retained_is_what_goes_when_the_object_goes() {
        let mut source = StdRng::seed_from_u64(5);
        let mut compared = 0;
        for _ in 0..2000 {
            let graph = random(&mut source);
            let tree = Dominators::of(&graph, &Fold::of(&graph));
            let all = reached(&graph, None);
            for object in 0..graph.len() as ObjectId {
                assert_eq!(tree.is_reached(object), all[object as usize]);
                let left = reached(&graph, Some(object));
                let gone = (0..graph.len()).filter(|at| all[*at] && !left[*at]);
                let (bytes, count) = gone.fold((0, 0), |(bytes, count), at| {
                    (bytes + graph.sizes[at], count + 1)
                });
                assert_eq!((tree.retained(object), tree.held(object)), (bytes, count));
                compared += usize::from(all[object as usize]);
            }
        }
        assert!(compared > 5000, "{compared} objects were reached");
    }

    #[test]
    fn a_chain_of_a_million_is_no_recursion() {
        let count = 1_000_000;
        let targets: Vec<Vec<ObjectId>> =
            (0..count).map(|at| vec![(at + 1).min(count - 1)]).collect();
        let graph = lists(&targets, &[0]);
        let tree = Dominators::of(&graph, &Fold::of(&graph));
        assert_eq!(tree.held(0), count);
        assert_eq!(tree.parent(count - 1), Some(count - 2));
    }

    #[test]
    fn the_dict_of_a_module_is_the_module() {
        let mut graph = Graph::default();
        let dict_name = name(&mut graph, "__dict__");
        let globals = name(&mut graph, "__globals__");
        let module = shape(&mut graph, &[Label::Field(dict_name)], Rest::Nothing);
        let pairs = shape(&mut graph, &[], Rest::Pairs);
        let function = shape(&mut graph, &[Label::Field(globals)], Rest::Nothing);
        let leaf = shape(&mut graph, &[], Rest::Nothing);
        object(&mut graph, "module", 72, module, &[1]);
        object(&mut graph, "dict", 232, pairs, &[2, 3]);
        object(&mut graph, "str", 50, leaf, &[]);
        object(&mut graph, "list", 1000, leaf, &[]);
        // A running function of the module holds its globals directly.
        object(&mut graph, "function", 136, function, &[1]);
        let own = name(&mut graph, "app");
        graph.roots = vec![
            (0, Root::Module(own)),
            (
                4,
                Root::Frame {
                    thread: 1,
                    depth: 0,
                    function: own,
                    local: None,
                },
            ),
        ];
        let fold = Fold::of(&graph);
        assert!(fold.is_part(1));
        let tree = Dominators::of(&graph, &fold);
        assert_eq!(tree.retained(0), 72 + 232 + 50 + 1000);
        assert_eq!(tree.parent(3), Some(0));
        assert_eq!(tree.retained(1), 0);
        assert_eq!(tree.retained(4), 136);
    }
}
