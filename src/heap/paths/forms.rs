//! What many paths have in common: their steps without indices and keys.
//!
//! The forms of one graph are a tree that grows from the roots; [`FormKeys`] numbers those of several graphs alike.

use rustc_hash::FxHashMap;

use super::{NONE, Paths};
use crate::heap::graph::{NameId, ObjectId, Root};
use crate::heap::steps::{self, Step};

/// Repeats of one step that a form keeps; more are one form (the links of a list).
const REPEATS: u8 = 3;

/// Steps that a form keeps: what lies deeper is one form with it.
const DEEPEST: u16 = 64;

/// One step at the end of a form.
#[derive(Debug, Clone, Copy)]
struct FormNode {
    /// The form before it; [`NONE`] when this is a root.
    before: u32,
    /// The step, or for a root its index and object.
    end: End,
    /// How often the same step came before, at most [`REPEATS`].
    repeats: u8,
    /// Steps before it.
    depth: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum End {
    Root(u32, ObjectId),
    /// A variable of a function, and a field of a thread's state: of whichever thread.
    Frame(NameId, Option<NameId>),
    Thread(NameId),
    /// A root that has no name but its object's type: all of a type are one.
    Unnamed(u8, u32),
    Step(Step),
    /// More steps, whatever they are.
    Deeper,
}

/// Forms that were seen, each once; a tree that grows from the roots.
#[derive(Debug)]
pub struct Forms<'a, 'b> {
    paths: &'b Paths<'a>,
    nodes: Vec<FormNode>,
    known: FxHashMap<(u32, End), u32>,
    /// Form of each object, [`NONE`] until it is asked for.
    of_object: Vec<u32>,
    /// The thread of each, where its path begins in one.
    thread_of: FxHashMap<ObjectId, i32>,
    /// Threads of forms that are roots.
    threads: FxHashMap<u32, Threads>,
}

/// In which threads a path begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// In this one, by its OS id.
    One(i32),
    /// In so many.
    Many(usize),
    /// In several.
    Several,
}

impl Threads {
    /// How a path begins, up to what it is that they have.
    fn text(self) -> String {
        match self {
            Threads::One(thread) => steps::thread_name(thread),
            Threads::Many(count) => format!("<{count} threads"),
            Threads::Several => "<several threads".to_string(),
        }
    }

    /// With one more.
    fn and(self, other: i32) -> Threads {
        match self {
            Threads::One(thread) if thread == other => self,
            _ => Threads::Several,
        }
    }
}

impl<'a, 'b> Forms<'a, 'b> {
    /// None yet.
    pub fn new(paths: &'b Paths<'a>) -> Self {
        Forms {
            paths,
            nodes: Vec::new(),
            known: FxHashMap::default(),
            of_object: vec![NONE; paths.graph.len()],
            thread_of: FxHashMap::default(),
            threads: FxHashMap::default(),
        }
    }

    /// The form of the path to `object`, which some root reaches.
    pub fn of(&mut self, object: ObjectId) -> u32 {
        // Up to what is known, then down again.
        let mut up = Vec::new();
        let mut at = object;
        let mut thread = None;
        let mut form = loop {
            let known = self.of_object.get(at as usize).copied().unwrap_or(NONE);
            if known != NONE {
                thread = self.thread_of.get(&at).copied();
                break known;
            }
            up.push(at);
            match self.paths.before(at) {
                Ok((owner, _)) => at = owner,
                Err(_) => break NONE,
            }
        };
        form = self.named(form, at, !up.is_empty());
        while let Some(object) = up.pop() {
            form = match self.paths.before(object) {
                Err(root) => {
                    let node = self.node(NONE, self.root(root, object));
                    thread = self.thread(root);
                    if let Some(thread) = thread {
                        let known = self.threads.get(&node);
                        let threads = known.map_or(Threads::One(thread), |known| known.and(thread));
                        self.threads.insert(node, threads);
                    }
                    node
                }
                Ok(_) if self.paths.is_fold_step(object) => form,
                Ok((_, step)) => self.node(form, End::Step(step.general())),
            };
            if let Some(place) = self.of_object.get_mut(object as usize) {
                *place = form;
            }
            if let Some(thread) = thread {
                self.thread_of.insert(object, thread);
            }
            form = self.named(form, object, !up.is_empty());
        }
        form
    }

    /// The form of `object` as the beginning of longer ones: static types, which are all one, each have their name there.
    fn named(&mut self, form: u32, object: ObjectId, is_longer: bool) -> u32 {
        match self.paths.before(object) {
            Err(root) if is_longer && self.paths.type_text(object).is_some() => {
                let root = u32::try_from(root).unwrap_or(NONE);
                self.node(NONE, End::Root(root, object))
            }
            _ => form,
        }
    }

    /// The thread in which the path to an object begins whose form was asked for.
    pub fn thread_of(&self, object: ObjectId) -> Option<i32> {
        self.thread_of.get(&object).copied()
    }

    /// The thread of a root.
    fn thread(&self, root: usize) -> Option<i32> {
        match self.paths.graph.roots.get(root)? {
            (_, Root::Frame { thread, .. } | Root::Thread { thread, .. }) => Some(*thread),
            _ => None,
        }
    }

    /// The form of the path to `object`, when it was asked for before.
    pub fn known(&self, object: ObjectId) -> Option<u32> {
        let form = self.of_object.get(object as usize).copied();
        form.filter(|form| *form != NONE)
    }

    fn root(&self, root: usize, object: ObjectId) -> End {
        let graph = self.paths.graph;
        let kind = match graph.roots.get(root) {
            Some((_, found)) if found.is_unnamed() => super::rank(found),
            Some((
                _,
                Root::Frame {
                    function, local, ..
                },
            )) => return End::Frame(*function, *local),
            Some((_, Root::Thread { field, .. })) => return End::Thread(*field),
            _ => return End::Root(u32::try_from(root).unwrap_or(NONE), object),
        };
        let type_id = graph.type_ids.get(object as usize);
        End::Unnamed(kind, type_id.copied().unwrap_or(NONE))
    }

    fn node(&mut self, before: u32, end: End) -> u32 {
        let above = self.nodes.get(before as usize).copied();
        let (end, repeats, depth) = match above {
            Some(above) if above.end == End::Deeper => return before,
            Some(above) if above.depth >= DEEPEST => (End::Deeper, 0, DEEPEST),
            Some(above) if above.end == end => (end, above.repeats + 1, above.depth + 1),
            Some(above) => (end, 0, above.depth + 1),
            None => (end, 0, 0),
        };
        if repeats > REPEATS {
            return before;
        }
        if let Some(known) = self.known.get(&(before, end)) {
            return *known;
        }
        let node = u32::try_from(self.nodes.len()).unwrap_or(NONE);
        self.nodes.push(FormNode {
            before,
            end,
            repeats,
            depth,
        });
        self.known.insert((before, end), node);
        node
    }

    /// The form of what holds the objects of `form`: of `a[*]` that of `a`, of `a.b` itself.
    pub fn holder(&self, form: u32) -> u32 {
        match self.nodes.get(form as usize) {
            Some(FormNode {
                before,
                end: End::Step(step),
                ..
            }) if step.is_element() => *before,
            _ => form,
        }
    }

    /// The function that has the variable `form`, with its thread.
    pub fn function_text(&self, form: u32) -> Option<String> {
        let End::Frame(function, _) = self.nodes.get(form as usize)?.end else {
            return None;
        };
        let threads = self.threads.get(&form).copied();
        let thread = threads.map_or(String::new(), Threads::text);
        Some(format!("{thread}, {}()>", self.paths.graph.name(function)))
    }

    /// The form without its last step; nothing of a root.
    pub fn before(&self, form: u32) -> Option<u32> {
        let node = self.nodes.get(form as usize)?;
        (node.before != NONE).then_some(node.before)
    }

    /// Whether `form` is `above` or begins with it.
    pub fn is_below(&self, form: u32, above: u32) -> bool {
        let mut at = form;
        while at != above {
            match self.nodes.get(at as usize) {
                Some(node) => at = node.before,
                None => return false,
            }
        }
        true
    }

    /// Such as `leak_app.REGISTRY.by_path[*][*]`.
    pub fn text(&self, form: u32) -> String {
        self.text_in(form, None)
    }

    /// The same with the threads in which it begins, where these are known.
    pub fn text_in(&self, form: u32, threads: Option<Threads>) -> String {
        let mut back = Vec::new();
        let mut at = form;
        while let Some(node) = self.nodes.get(at as usize) {
            back.push(*node);
            if node.before == NONE {
                break;
            }
            at = node.before;
        }
        let threads = threads.or_else(|| self.threads.get(&at).copied());
        let mut text = threads.map_or(String::new(), Threads::text);
        let ends = back.iter().rev().map(|node| self.end_text(node));
        text.extend(ends);
        text
    }

    /// What `node` adds to the text of the form before it; of what a thread has what follows the thread.
    fn end_text(&self, node: &FormNode) -> String {
        let graph = self.paths.graph;
        let mut text = String::new();
        match node.end {
            End::Root(root, object) => {
                if let Some((_, root)) = graph.roots.get(root as usize) {
                    text = self.paths.begin(root, object);
                }
            }
            End::Frame(function, local) => {
                let local = local.map_or("<stack>", |local| graph.name(local));
                text = format!(", {}()>.{local}", graph.name(function));
            }
            End::Thread(field) => text = format!(">.{}", graph.name(field)),
            End::Unnamed(kind, type_id) => {
                let root = graph
                    .roots
                    .iter()
                    .find(|(_, root)| super::rank(root) == kind);
                if let (Some((_, root)), Some(found)) = (root, graph.types.get(type_id as usize)) {
                    text = format!("{} {}", steps::root(graph, root), graph.name(found.name));
                }
            }
            End::Step(step) => {
                step.write(graph, &mut text);
                if node.repeats == REPEATS {
                    text.push('…');
                }
            }
            End::Deeper => text.push_str(" … "),
        }
        text
    }
}

/// How what a key stands for hangs on what is before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// It is a root.
    Root,
    /// It is an element of a container.
    Element,
    /// It has a name there: an attribute, a field, a variable.
    Named,
}

/// Numbers for forms that are the same for the same text, whatever graph they come from.
#[derive(Debug, Default)]
pub struct FormKeys {
    known: FxHashMap<(u32, String), u32>,
    /// The key before each, which has a lower number.
    before: Vec<(u32, Hold)>,
}

impl FormKeys {
    /// The keys of all forms that `forms` has seen, by form. Threads have other numbers in each process, so that
    /// variables are told by their functions.
    pub fn of(&mut self, forms: &Forms<'_, '_>) -> Vec<u32> {
        let mut keys: Vec<u32> = Vec::with_capacity(forms.nodes.len());
        // A form stands behind the one before it.
        for node in &forms.nodes {
            let mut before = keys.get(node.before as usize).copied().unwrap_or(NONE);
            if let End::Frame(function, _) = node.end {
                // Variables of a function have that in common.
                let function = format!(", {}()>", forms.paths.graph.name(function));
                before = self.key(NONE, function, Hold::Root);
            }
            let hold = match node.end {
                End::Step(step) if step.is_element() => Hold::Element,
                _ if before == NONE => Hold::Root,
                _ => Hold::Named,
            };
            keys.push(self.key(before, forms.end_text(node), hold));
        }
        keys
    }

    fn key(&mut self, before: u32, text: String, hold: Hold) -> u32 {
        let next = u32::try_from(self.before.len()).unwrap_or(NONE);
        let key = *self.known.entry((before, text)).or_insert(next);
        if key == next {
            self.before.push((before, hold));
        }
        key
    }

    /// The key before `key`, and how that holds it; nothing before a root.
    pub fn before(&self, key: u32) -> Option<(u32, Hold)> {
        let found = self.before.get(key as usize).copied();
        found.filter(|(_, hold)| *hold != Hold::Root)
    }
}
