//! The biggest holders: single objects, types and modules by what they keep alive.

use super::dominators::Dominators;
use super::fold::Fold;
use super::graph::{Graph, ObjectId, Root};
use super::steps;

/// An object that keeps others alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// The object.
    pub object: ObjectId,
    /// Bytes that would go with it, its own included.
    pub retained: u64,
    /// Objects that would go with it, itself included.
    pub held: u64,
    /// Its own bytes, those of its parts (`__dict__`) included.
    pub shallow: u64,
}

/// Holders from one of a type to the next one in a chain: a node, its dict, a tuple.
const LINK: usize = 4;

/// Links of a chain of holders that are shown before the rest is left out.
const CHAIN: usize = 3;

/// What instances of a type, or the objects below a module, keep alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupRetained {
    /// Type or module; in brackets what belongs to none.
    pub name: String,
    /// Instances of the type; objects below the module.
    pub objects: u64,
    /// Bytes that would go with all of them; nothing is counted twice within a group.
    pub retained: u64,
    /// Bytes of the objects themselves.
    pub shallow: u64,
}

/// The dominator tree downward, and what is in it.
#[derive(Debug)]
pub struct Retained<'a> {
    graph: &'a Graph,
    fold: &'a Fold,
    tree: Dominators,
    /// Children of each object, in flat arrays; those of no object are the last.
    starts: Vec<u32>,
    children: Vec<ObjectId>,
    shallow: Vec<u64>,
}

impl<'a> Retained<'a> {
    /// Computes the tree of `graph`.
    pub fn of(graph: &'a Graph, fold: &'a Fold) -> Self {
        let tree = Dominators::of(graph, fold);
        let count = graph.len();
        let place = |object: ObjectId| tree.parent(object).map_or(count, |parent| parent as usize);
        let is_whole = |object: &ObjectId| tree.is_reached(*object) && !fold.is_part(*object);
        let objects = || (0..count as ObjectId).filter(is_whole);
        let mut starts = vec![0u32; count + 2];
        for object in objects() {
            starts[place(object) + 1] += 1;
        }
        for at in 0..=count {
            starts[at + 1] += starts[at];
        }
        let mut next = starts.clone();
        let mut children = vec![0; starts[count + 1] as usize];
        for object in objects() {
            let at = place(object);
            children[next[at] as usize] = object;
            next[at] += 1;
        }
        let mut shallow = vec![0u64; count];
        for (object, size) in graph.bytes().iter().enumerate() {
            let whole = &mut shallow[fold.owner(object as ObjectId) as usize];
            *whole = whole.saturating_add(*size);
        }
        Retained {
            graph,
            fold,
            tree,
            starts,
            children,
            shallow,
        }
    }

    /// The tree upward.
    pub fn dominators(&self) -> &Dominators {
        &self.tree
    }

    /// Bytes of all that any root reaches.
    pub fn whole(&self) -> u64 {
        let top = self.below(self.graph.len()).iter();
        top.fold(0, |sum, object| {
            self.tree.retained(*object).saturating_add(sum)
        })
    }

    /// One object as a holder.
    pub fn holder(&self, object: ObjectId) -> Holder {
        let object = self.fold.owner(object);
        Holder {
            object,
            retained: self.tree.retained(object),
            held: u64::from(self.tree.held(object)),
            shallow: self.shallow.get(object as usize).copied().unwrap_or(0),
        }
    }

    fn below(&self, place: usize) -> &[ObjectId] {
        let range = self.starts.get(place).zip(self.starts.get(place + 1));
        range
            .and_then(|(from, to)| self.children.get(*from as usize..*to as usize))
            .unwrap_or_default()
    }

    /// What `object` alone holds directly, the biggest first, at most `most`; `None` for what no single object holds.
    pub fn children(&self, object: Option<ObjectId>, most: usize) -> Vec<Holder> {
        let place = object.map_or(self.graph.len(), |object| object as usize);
        self.biggest(self.below(place).iter().copied(), most)
    }

    /// Whether `object` is deep in a chain of its own type (a list in a list, a node's next one), each of which keeps nearly all that
    /// the one above it keeps: where the chain begins says it all, and a table of the biggest would have nothing else.
    pub fn continues_chain(&self, object: ObjectId) -> bool {
        (0..CHAIN)
            .try_fold(object, |object, _| self.link_above(object))
            .is_some()
    }

    /// The holder of the same type that `object` is nearly all of, up to [`LINK`] steps above it.
    fn link_above(&self, object: ObjectId) -> Option<ObjectId> {
        let type_of = |object: ObjectId| self.graph.type_ids.get(object as usize);
        let most = self.tree.retained(object) / 9 * 10;
        let above = std::iter::successors(self.tree.parent(object), |at| self.tree.parent(*at));
        let mut above = above.take(LINK);
        above.find(|above| type_of(*above) == type_of(object) && self.tree.retained(*above) <= most)
    }

    /// The biggest holders of all, at most `most`, of which `wanted` wants to know.
    pub fn by_object(&self, most: usize, wanted: impl Fn(ObjectId) -> bool) -> Vec<Holder> {
        self.biggest(self.children.iter().copied().filter(|o| wanted(*o)), most)
    }

    /// Keeps no more than twice `most` at a time.
    fn biggest(&self, objects: impl Iterator<Item = ObjectId>, most: usize) -> Vec<Holder> {
        let mut found: Vec<Holder> = Vec::new();
        let room = most.saturating_mul(2).max(64);
        let sort = |found: &mut Vec<Holder>| {
            found.sort_by(|a, b| {
                b.retained
                    .cmp(&a.retained)
                    .then_with(|| a.object.cmp(&b.object))
            });
            found.truncate(most);
        };
        let mut least = 0;
        for object in objects {
            if self.tree.retained(object) < least {
                continue;
            }
            found.push(self.holder(object));
            if found.len() >= room {
                sort(&mut found);
                least = found.last().map_or(0, |holder| holder.retained);
            }
        }
        sort(&mut found);
        found
    }

    /// Retained by type: an instance below another one of the same type is in that one's bytes already.
    pub fn by_type(&self) -> Vec<GroupRetained> {
        let types = self.graph.types.len();
        let mut groups: Vec<(u64, u64, u64)> = vec![(0, 0, 0); types];
        let mut open = vec![0u32; types];
        self.walk(|object, entering| {
            let Some(type_id) = self.graph.type_ids.get(object as usize) else {
                return;
            };
            let at = *type_id as usize;
            let (Some(group), Some(depth)) = (groups.get_mut(at), open.get_mut(at)) else {
                return;
            };
            if !entering {
                *depth -= 1;
                return;
            }
            group.0 += 1;
            group.2 = group.2.saturating_add(self.shallow[object as usize]);
            if *depth == 0 {
                group.1 = group.1.saturating_add(self.tree.retained(object));
            }
            *depth += 1;
        });
        let rows = groups.into_iter().zip(&self.graph.types);
        sorted(
            rows.filter(|(group, _)| group.0 > 0)
                .map(|((objects, retained, shallow), found)| GroupRetained {
                    name: self.graph.name(found.name).to_string(),
                    objects,
                    retained,
                    shallow,
                })
                .collect(),
        )
    }

    /// Every reached byte by the root that alone holds it: modules, threads, or none. Adds up to the whole.
    pub fn by_module(&self) -> Vec<GroupRetained> {
        let mut groups: Vec<GroupRetained> = Vec::new();
        let mut names = rustc_hash::FxHashMap::default();
        let mut roots: Vec<(ObjectId, usize)> = self
            .graph
            .roots
            .iter()
            .enumerate()
            .map(|(at, (object, _))| (self.fold.owner(*object), at))
            .collect();
        roots.sort_unstable();
        for object in self.below(self.graph.len()) {
            let at = roots.partition_point(|(root, _)| root < object);
            let own = roots[at..]
                .iter()
                .take_while(|(root, _)| root == object)
                .filter_map(|(_, root)| self.graph.roots.get(*root));
            let name = self.group_name(own.map(|(_, root)| root));
            let group = *names.entry(name.clone()).or_insert_with(|| {
                groups.push(GroupRetained {
                    name,
                    objects: 0,
                    retained: 0,
                    shallow: 0,
                });
                groups.len() - 1
            });
            let holder = self.holder(*object);
            let group = &mut groups[group];
            group.objects += holder.held;
            group.retained = group.retained.saturating_add(holder.retained);
            group.shallow = group.shallow.saturating_add(holder.shallow);
        }
        sorted(groups)
    }

    fn group_name<'r>(&self, roots: impl Iterator<Item = &'r Root>) -> String {
        let mut best: Option<&Root> = None;
        for root in roots {
            match (root, best) {
                (Root::Module(_), _) => return steps::root(self.graph, root),
                (Root::Frame { .. } | Root::Thread { .. }, _) | (_, None) => best = Some(root),
                (Root::Interpreter(_), Some(Root::Tracked | Root::Garbage | Root::StaticType)) => {
                    best = Some(root);
                }
                _ => {}
            }
        }
        match best {
            Some(Root::Frame {
                thread, function, ..
            }) => {
                let inside = steps::interpreter_of(self.graph.name(*function)).unwrap_or_default();
                format!("{}>{inside}", steps::thread_name(*thread))
            }
            Some(Root::Thread { thread, .. }) => format!("{}>", steps::thread_name(*thread)),
            Some(Root::Interpreter(name)) => {
                let inside = steps::interpreter_of(self.graph.name(*name));
                inside.unwrap_or("<interpreter>").to_string()
            }
            Some(root @ (Root::Tracked | Root::Garbage)) => steps::root(self.graph, root),
            Some(_) => "<interpreter>".to_string(),
            None => "<held by several>".to_string(),
        }
    }

    /// For each whole object what `weight` says of it, of its parts, and of all that it alone holds, added up; and
    /// whether none of those that hold it is heavy, which `is_heavy` says.
    pub fn sums(
        &self,
        weight: impl Fn(ObjectId) -> u64,
        is_heavy: impl Fn(ObjectId) -> bool,
    ) -> (Vec<u64>, Vec<bool>) {
        let count = self.graph.len();
        let mut sums = vec![0u64; count];
        let mut is_top = vec![false; count];
        for object in 0..count as ObjectId {
            let whole = &mut sums[self.fold.owner(object) as usize];
            *whole = whole.saturating_add(weight(object));
        }
        let mut heavy = 0u32;
        self.walk(|object, entering| {
            let at = object as usize;
            if entering {
                is_top[at] = heavy == 0;
                heavy += u32::from(is_heavy(object));
                return;
            }
            heavy -= u32::from(is_heavy(object));
            if let Some(parent) = self.tree.parent(object) {
                sums[parent as usize] = sums[parent as usize].saturating_add(sums[at]);
            }
        });
        (sums, is_top)
    }

    /// Visits every object from the top down: once entering, once leaving. Iterative: trees are millions deep.
    fn walk(&self, mut visit: impl FnMut(ObjectId, bool)) {
        let mut open: Vec<(usize, u32)> = vec![(self.graph.len(), 0)];
        while let Some((place, next)) = open.last_mut() {
            match self.below(*place).get(*next as usize) {
                Some(child) => {
                    *next += 1;
                    visit(*child, true);
                    open.push((*child as usize, 0));
                }
                None => {
                    let done = open.pop().map_or(self.graph.len(), |(place, _)| place);
                    if done != self.graph.len() {
                        visit(done as ObjectId, false);
                    }
                }
            }
        }
    }
}

fn sorted(mut groups: Vec<GroupRetained>) -> Vec<GroupRetained> {
    groups.sort_by(|a, b| {
        b.retained
            .cmp(&a.retained)
            .then_with(|| a.name.cmp(&b.name))
    });
    groups
}

#[cfg(test)]
mod tests {
    use super::super::graph::Rest;
    use super::super::graph::testing::{lists, object, shape};
    use super::*;

    #[test]
    fn holders_come_by_what_they_hold() {
        // 0 -> 1 -> 3 and 0 -> 2; 4 is held by both roots.
        let graph = lists(
            &[vec![1, 2, 4], vec![3], vec![], vec![], vec![], vec![4]],
            &[0, 5],
        );
        let fold = Fold::of(&graph);
        let retained = Retained::of(&graph, &fold);
        let top: Vec<(ObjectId, u64)> = retained
            .by_object(3, |_| true)
            .iter()
            .map(|holder| (holder.object, holder.retained))
            .collect();
        assert_eq!(top, [(0, 100 + 101 + 102 + 103), (1, 101 + 103), (5, 105)]);
        let below: Vec<ObjectId> = retained
            .children(Some(0), 10)
            .iter()
            .map(|holder| holder.object)
            .collect();
        assert_eq!(below, [1, 2]);
        let modules: Vec<(String, u64)> = retained
            .by_module()
            .into_iter()
            .map(|group| (group.name, group.retained))
            .collect();
        let expected = [
            ("module0", 406),
            ("module5", 105),
            ("<held by several>", 104),
        ];
        assert_eq!(
            modules,
            expected.map(|(name, bytes)| (name.to_string(), bytes))
        );
    }

    #[test]
    fn chains_are_known_by_where_they_begin() {
        // 0 -> 1 -> ... -> 39; 35 also has 40 and 41, so what follows it is less than nearly all.
        let mut objects: Vec<Vec<u32>> = (1..40).map(|next| vec![next]).collect();
        objects.extend([vec![], vec![], vec![]]);
        objects[35] = vec![36, 40, 41];
        let graph = lists(&objects, &[0]);
        let fold = Fold::of(&graph);
        let retained = Retained::of(&graph, &fold);
        let beginnings: Vec<ObjectId> = (0..42)
            .filter(|object| !retained.continues_chain(*object))
            .collect();
        // The nearer the end, the greater each one's own part.
        assert_eq!(beginnings, [0, 1, 2, 34, 35, 36, 37, 38, 39, 40, 41]);
    }

    #[test]
    fn a_type_below_itself_counts_once() {
        let mut graph = Graph::default();
        let items = shape(&mut graph, &[], Rest::Items);
        object(&mut graph, "node", 10, items, &[1]);
        object(&mut graph, "node", 20, items, &[2]);
        object(&mut graph, "str", 40, items, &[]);
        graph.roots.push((0, Root::StaticType));
        let fold = Fold::of(&graph);
        let rows = Retained::of(&graph, &fold).by_type();
        assert_eq!(rows[0].name, "node");
        assert_eq!(
            (rows[0].objects, rows[0].retained, rows[0].shallow),
            (2, 70, 30)
        );
        assert_eq!((rows[1].objects, rows[1].retained), (1, 40));
    }
}
