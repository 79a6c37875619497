//! The shortest paths from roots to objects, and what thousands of them have in common.

mod forms;

use std::collections::VecDeque;

use rustc_hash::{FxHashMap, FxHashSet};

pub use self::forms::{FormKeys, Forms, Hold, Threads};
use super::fold::Fold;
use super::graph::{Graph, ObjectId, Root};
use super::steps::{self, Step};

/// No object, or not reached.
const NONE: u32 = u32::MAX;

/// Steps that [`Paths::several`] writes of each path.
const STEPS: usize = 24;

/// How an object was first reached.
#[derive(Debug, Clone, Copy)]
struct Via {
    /// The owner of the reference; [`NONE`] for a root.
    owner: u32,
    /// Position of the reference, or the index of the root.
    position: u32,
}

/// Shortest paths to all objects: modules before frames before the interpreter's own state, and what only the collector's
/// lists know last.
#[derive(Debug)]
pub struct Paths<'a> {
    graph: &'a Graph,
    fold: &'a Fold,
    via: Vec<Via>,
    reached: Vec<bool>,
}

/// One form of a path, shared by many objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form {
    /// Such as `leak_app.REGISTRY.by_path[*][*]`.
    pub text: String,
    /// How many objects have it.
    pub objects: u64,
    /// One of them.
    pub example: ObjectId,
}

fn rank(root: &Root) -> u8 {
    match root {
        Root::Module(_) => 0,
        Root::Frame { .. } | Root::Thread { .. } => 1,
        Root::Interpreter(_) => 2,
        Root::StaticType => 3,
        Root::Tracked => 4,
        Root::Garbage => 5,
    }
}

/// Waves in which roots are followed, each after all that the ones before reach.
const WAVES: u8 = 3;

/// The dict of a thread's state has the values of thread locals, which are known by the name of the local; strings that are
/// interned have better holders than the dict of all of them; objects that only the lists know come last.
fn wave_of(graph: &Graph, root: &Root) -> u8 {
    match root {
        Root::Thread { field, .. } if graph.name(*field) == "dict" => 1,
        Root::Interpreter(field) if graph.name(*field).ends_with("interned_strings") => 1,
        Root::Tracked | Root::Garbage => 2,
        _ => 0,
    }
}

impl<'a> Paths<'a> {
    /// Searches the whole graph, breadth first.
    pub fn of(graph: &'a Graph, fold: &'a Fold) -> Paths<'a> {
        let count = graph.len();
        let mut paths = Paths {
            graph,
            fold,
            via: vec![
                Via {
                    owner: NONE,
                    position: NONE
                };
                count
            ],
            reached: vec![false; count],
        };
        let mut order: Vec<usize> = (0..graph.roots.len()).collect();
        order.sort_by_key(|at| graph.roots.get(*at).map(|(_, root)| rank(root)));
        let mut open = VecDeque::new();
        for wave in 0..WAVES {
            for at in &order {
                let Some((object, root)) = graph.roots.get(*at) else {
                    continue;
                };
                if wave_of(graph, root) == wave {
                    let position = u32::try_from(*at).unwrap_or(NONE);
                    // Who holds the dict of a module (as its globals) holds the module.
                    paths.enter(
                        fold.owner(*object),
                        Via {
                            owner: NONE,
                            position,
                        },
                        &mut open,
                    );
                }
            }
            while let Some(object) = open.pop_front() {
                paths.follow(object, &mut open);
            }
        }
        paths
    }

    fn enter(&mut self, object: ObjectId, via: Via, open: &mut VecDeque<ObjectId>) {
        let at = object as usize;
        if let Some(reached) = self.reached.get_mut(at).filter(|reached| !**reached) {
            *reached = true;
            self.via[at] = via;
            // A part is no step of its own: it goes first.
            if self.fold.is_part(object) {
                open.push_front(object);
            } else {
                open.push_back(object);
            }
        }
    }

    fn follow(&mut self, object: ObjectId, open: &mut VecDeque<ObjectId>) {
        let graph = self.graph;
        for (position, target) in graph.references(object).iter().enumerate() {
            let via = Via {
                owner: object,
                position: u32::try_from(position).unwrap_or(NONE),
            };
            self.enter(*target, via, open);
        }
    }

    /// Whether any root reaches it.
    pub fn is_reached(&self, object: ObjectId) -> bool {
        self.reached.get(object as usize).copied().unwrap_or(false)
    }

    /// Whether the root says more than that something is there, and holds what it leads to.
    pub fn is_named_root(&self, root: usize) -> bool {
        let root = self.graph.roots.get(root).map(|(_, root)| root);
        root.is_some_and(|root| !root.is_unnamed() && wave_of(self.graph, root) == 0)
    }

    /// The step that led to `object` and the object that it came from; the root's index where it is one.
    pub fn before(&self, object: ObjectId) -> Result<(ObjectId, Step), usize> {
        let via = self.via.get(object as usize).copied().unwrap_or(Via {
            owner: NONE,
            position: NONE,
        });
        if via.owner == NONE {
            return Err(via.position as usize);
        }
        let step = steps::step(self.graph, self.fold, via.owner, via.position as usize);
        Ok((via.owner, step))
    }

    /// The path to `object`, such as `leak_app.REGISTRY.by_path['/order'][812]`; `None` when nothing reaches it. Of
    /// paths with more than `limit` steps the middle is left out, and how many steps that are is said.
    pub fn text(&self, object: ObjectId, limit: usize) -> Option<String> {
        if !self.is_reached(object) {
            return None;
        }
        let mut back = Vec::new();
        let mut at = object;
        let root = loop {
            match self.before(at) {
                Ok((owner, step)) => {
                    if !self.is_fold_step(at) {
                        back.push(step);
                    }
                    at = owner;
                }
                Err(root) => break root,
            }
        };
        let (_, root) = self.graph.roots.get(root)?;
        let mut text = self.begin(root, at);
        let half = (limit / 2).max(1);
        let cut = back.len().saturating_sub(2 * half);
        for (number, step) in back.iter().rev().enumerate() {
            if cut > 0 && number == half {
                text.push_str(&format!(" … {cut} more … "));
            }
            if cut == 0 || number < half || number >= half + cut {
                step.write(self.graph, &mut text);
            }
        }
        Some(text)
    }

    /// Whether the path to `object` begins in a thread.
    pub fn in_thread(&self, object: ObjectId) -> bool {
        let mut at = object;
        while self.is_reached(at) {
            match self.before(at) {
                Ok((owner, _)) => at = owner,
                Err(root) => {
                    let root = self.graph.roots.get(root).map(|(_, root)| root);
                    return matches!(root, Some(Root::Frame { .. } | Root::Thread { .. }));
                }
            }
        }
        false
    }

    /// Paths to `object` that differ in their last reference, the shortest first, at most `count`; `direct` are the
    /// references to it.
    pub fn several(
        &self,
        object: ObjectId,
        direct: &[(ObjectId, Step)],
        count: usize,
    ) -> Vec<String> {
        let object = self.fold.owner(object);
        let mut found: Vec<(usize, String)> = Vec::new();
        found.extend(self.text(object, STEPS).map(|text| (0, text)));
        for (owner, step) in direct {
            let Some(length) = self.length_without(*owner, object) else {
                continue;
            };
            if let Some(mut text) = self.text(*owner, STEPS) {
                step.write(self.graph, &mut text);
                if found.iter().all(|(_, known)| *known != text) {
                    found.push((length + 1, text));
                }
            }
        }
        found.sort();
        found.truncate(count);
        found.into_iter().map(|(_, text)| text).collect()
    }

    /// References on the way to `object`; `None` when the way leads through `other` or there is none.
    fn length_without(&self, object: ObjectId, other: ObjectId) -> Option<usize> {
        let mut length = 0;
        let mut at = object;
        loop {
            if self.fold.owner(at) == other || !self.is_reached(at) {
                return None;
            }
            match self.before(at) {
                Ok((owner, _)) => at = owner,
                Err(_) => return Some(length),
            }
            length += 1;
        }
    }

    fn begin(&self, root: &Root, object: ObjectId) -> String {
        let text = steps::root(self.graph, root);
        match root {
            Root::StaticType => match self.type_text(object) {
                Some(name) => format!("{text} {name}"),
                None => format!("{text} {}", steps::type_name(self.graph, object)),
            },
            Root::Tracked | Root::Garbage => {
                format!("{text} {}", steps::type_name(self.graph, object))
            }
            _ => text,
        }
    }

    /// The name of a type that C code laid out, where `object` is one and its own path begins with it.
    fn type_text(&self, object: ObjectId) -> Option<&str> {
        let root = self.before(object).err()?;
        match self.graph.roots.get(root) {
            Some((_, Root::StaticType)) => steps::text_of(self.graph, object),
            _ => None,
        }
    }

    /// Whether it was reached as the `__dict__` that is part of its owner.
    pub fn is_fold_step(&self, object: ObjectId) -> bool {
        let via = self.via.get(object as usize);
        via.is_some_and(|via| via.owner != NONE && self.fold.owner(object) == via.owner)
    }

    /// The forms of the paths to `objects`, those that most share first.
    pub fn forms(&self, objects: impl IntoIterator<Item = ObjectId>) -> Vec<Form> {
        let mut forms = Forms::new(self);
        let mut found: FxHashMap<u32, (u64, ObjectId)> = FxHashMap::default();
        let mut threads: FxHashMap<u32, FxHashSet<i32>> = FxHashMap::default();
        for object in objects {
            if !self.is_reached(object) {
                continue;
            }
            let form = forms.of(object);
            found.entry(form).or_insert((0, object)).0 += 1;
            if let Some(thread) = forms.thread_of(object) {
                threads.entry(form).or_default().insert(thread);
            }
        }
        // Roots may be called the same: a variable of a function that runs several times.
        let mut by_text: FxHashMap<String, (u64, ObjectId)> = FxHashMap::default();
        for (form, (objects, example)) in found {
            let threads = threads.get(&form).and_then(|threads| {
                let first = threads.iter().next()?;
                Some(match threads.len() {
                    1 => Threads::One(*first),
                    several => Threads::Many(several),
                })
            });
            let text = forms.text_in(form, threads);
            let known = by_text.entry(text).or_insert((0, example));
            known.0 += objects;
            known.1 = known.1.min(example);
        }
        let mut found: Vec<Form> = by_text
            .into_iter()
            .map(|(text, (objects, example))| Form {
                text,
                objects,
                example,
            })
            .collect();
        found.sort_by(|a, b| b.objects.cmp(&a.objects).then_with(|| a.text.cmp(&b.text)));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::super::graph::testing::{lists, name, object, shape};
    use super::super::graph::{Label, Rest};
    use super::*;

    /// `leak_app.REGISTRY` with `.by_path`, a dict of lists with 3 records each.
    fn registry() -> Graph {
        let mut graph = Graph::default();
        let dict_name = name(&mut graph, "__dict__");
        let by_path = name(&mut graph, "by_path");
        let module = shape(&mut graph, &[Label::Field(dict_name)], Rest::Nothing);
        let registry = shape(&mut graph, &[Label::Attribute(by_path)], Rest::Nothing);
        let pairs = shape(&mut graph, &[], Rest::Pairs);
        let items = shape(&mut graph, &[], Rest::Items);
        let leaf = shape(&mut graph, &[], Rest::Nothing);
        object(&mut graph, "module", 72, module, &[1]);
        object(&mut graph, "dict", 232, pairs, &[2, 3]);
        object(&mut graph, "str", 57, leaf, &[]);
        object(&mut graph, "leak_app.Registry", 48, registry, &[4]);
        object(&mut graph, "dict", 232, pairs, &[5, 6, 7, 8]);
        object(&mut graph, "str", 55, leaf, &[]);
        object(&mut graph, "list", 88, items, &[9, 10, 11]);
        object(&mut graph, "str", 55, leaf, &[]);
        object(&mut graph, "list", 88, items, &[12, 13, 14]);
        for _ in 0..6 {
            object(&mut graph, "leak_app.Record", 48, leaf, &[]);
        }
        let (own, key, order) = (
            name(&mut graph, "leak_app"),
            name(&mut graph, "REGISTRY"),
            name(&mut graph, "/ord'er\n"),
        );
        graph.roots.push((0, Root::Module(own)));
        graph.texts = vec![(2, key), (5, order)];
        graph
    }

    #[test]
    fn paths_read_like_python() {
        let graph = registry();
        let fold = Fold::of(&graph);
        let paths = Paths::of(&graph, &fold);
        assert_eq!(
            paths.text(11, 20).as_deref(),
            Some("leak_app.REGISTRY.by_path['/ord\\'er\\n'][2]")
        );
        assert_eq!(
            paths.text(12, 20).as_deref(),
            Some("leak_app.REGISTRY.by_path[<str>][0]")
        );
        let forms = paths.forms(9..15);
        assert_eq!(forms.len(), 1);
        assert_eq!(forms[0].text, "leak_app.REGISTRY.by_path[*][*]");
        assert_eq!(forms[0].objects, 6);
    }

    #[test]
    fn the_links_of_a_long_list_are_one_form() {
        let count = 200_000;
        let targets: Vec<Vec<ObjectId>> =
            (0..count).map(|at| vec![(at + 1).min(count - 1)]).collect();
        let graph = lists(&targets, &[0]);
        let fold = Fold::of(&graph);
        let paths = Paths::of(&graph, &fold);
        let forms = paths.forms(0..count);
        assert_eq!(forms[0].text, "module0[*][*][*][*]…");
        assert_eq!(forms[0].objects, u64::from(count) - 4);
        let text = paths.text(count - 1, 4).expect("reached");
        assert_eq!(text, "module0[0][0] … 199995 more … [0][0]");
    }

    #[test]
    fn what_no_root_reaches_has_no_path() {
        let graph = lists(&[vec![], vec![0]], &[0]);
        let fold = Fold::of(&graph);
        let paths = Paths::of(&graph, &fold);
        assert!(paths.is_reached(0) && !paths.is_reached(1));
        assert_eq!(paths.text(1, 10), None);
        assert!(paths.forms([1]).is_empty());
    }
}
