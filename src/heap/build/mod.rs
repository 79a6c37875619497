//! The graph: a second pass over all objects in the order of their addresses, cut into one part a processor.
//!
//! An object's id is its rank in the bitmap of the first pass, so that no map from addresses to ids is needed.

mod caches;
mod labels;
mod part;
mod reach;
mod texts;

use super::decode::dict::{self, Keys};
use super::graph::{Graph, NameId, Rest, Root, Type, flags};
use super::memory::Bits;
use super::types::{Holding, Types, field, flag};
use super::{Heap, roots, steps, walk};
use rustc_hash::FxHashSet;

use crate::error::{Error, ErrorKind, Result};

use labels::Names;
use part::Part;
use roots::Reason;

/// What all parts look up.
pub(super) struct Ids<'h> {
    pub seen: &'h Bits,
    pub ranks: &'h [u32],
    /// Number of objects.
    pub total: u32,
    /// Objects that `muppy.get_objects()` has, as far as known.
    pub muppy: &'h Bits,
    /// Objects on the lists that `gc.get_objects()` shows.
    pub young: &'h Bits,
}

impl Heap<'_> {
    /// All objects with their references. With `values`, short texts of the keys of mappings are kept;
    /// without, only of what names something. Fails for more than 4 billion objects.
    pub fn graph(&self, values: bool) -> Result<Graph> {
        let walked = walk::walk(self);
        let (ranks, total) = walked.seen.ranks();
        let Ok(count) = u32::try_from(total) else {
            return Err(Error::new(
                ErrorKind::NotAvailable,
                "cannot keep the object graph",
                format!("{total} objects are more than it has room for"),
            ));
        };
        let mut types = Types::default();
        for info in walked.counts.iter().flat_map(|(types, _)| types.all()) {
            types.find(self, info.address);
        }
        let muppy = Bits::new(&self.memory);
        let ids = Ids {
            seen: &walked.seen,
            ranks: &ranks,
            total: count,
            muppy: &muppy,
            young: &walked.young,
        };
        let parts = self.parts(&ids, &types, total, values);
        let mut names = Names::default();
        let mut graph = join(parts, &mut names, total);
        self.mark_muppy(&ids, &mut graph);
        graph.types = types
            .all()
            .iter()
            .map(|info| Type {
                name: names.intern(&info.name),
                object: self.id(&ids, info.address),
            })
            .collect();
        // What names something is kept whole; it goes before what `values` cut.
        let named = std::mem::take(&mut graph.texts);
        texts::add_keys(self, &types, &mut graph, &mut names, values);
        graph.texts.extend(named);
        if values {
            texts::add_values(self, &types, &mut graph, &mut names);
        }
        caches::add(self, &types, &mut graph, &mut names);
        graph.roots = self.roots(&ids, &types, &mut names);
        self.add_static_types(&types, &mut graph);
        if self.layout.minor < 12 {
            add_extensions(&types, &mut graph, &mut names);
        }
        let borrowed = self.interned_strings(&ids, &graph);
        reach::add_tracked(&mut graph, borrowed);
        graph.texts.sort_by_key(|(object, _)| *object);
        graph.texts.dedup_by_key(|(object, _)| *object);
        graph.names = names.into_list();
        graph.missing = self.captured.missing();
        Ok(graph)
    }

    /// The id of the object at `address`.
    fn id(&self, ids: &Ids, address: u64) -> Option<u32> {
        let place = self.memory.place(address)?;
        ids.seen.rank(ids.ranks, place.bit())
    }

    /// One part a thread, each with about as many objects.
    fn parts(&self, ids: &Ids, types: &Types, total: u64, values: bool) -> Vec<Part> {
        let share = total / self.threads as u64 + 1;
        let cut = |index: usize| {
            let before = share * index as u64;
            ids.ranks.partition_point(|rank| u64::from(*rank) < before)
        };
        std::thread::scope(|scope| {
            let running: Vec<_> = (0..self.threads)
                .map(|index| {
                    let from = if index == 0 { 0 } else { cut(index) };
                    let to = if index + 1 == self.threads {
                        ids.seen.len()
                    } else {
                        cut(index + 1)
                    };
                    scope.spawn(move || part::build(self, ids, types.clone(), from..to, values))
                })
                .collect();
            running
                .into_iter()
                .filter_map(|part| part.join().ok())
                .collect()
        })
    }

    /// Only when all parts are done it is known which untracked objects a tracked one refers to.
    fn mark_muppy(&self, ids: &Ids, graph: &mut Graph) {
        let mut next = 0;
        self.memory
            .each_set(ids.seen, 0, ids.seen.len(), |_, place| {
                if let Some(bits) = graph.flags.get_mut(next)
                    && ids.muppy.has(place.bit())
                {
                    *bits |= flags::MUPPY;
                }
                next += 1;
            });
    }

    /// Strings that dicts of interned ones borrow, each with the root that it is known by where nothing else leads to it.
    fn interned_strings(&self, ids: &Ids, graph: &Graph) -> Vec<(u32, Root)> {
        let mut found = Vec::new();
        for (_, dict) in &self.interned {
            let id = self.id(ids, *dict);
            let root = graph.roots.iter().find(|(object, _)| Some(*object) == id);
            let (Some((_, root)), Some(place)) = (root, self.memory.place(*dict)) else {
                continue;
            };
            let Some(keys) = place
                .word(dict::KEYS)
                .and_then(|keys| Keys::read(self, keys))
            else {
                continue;
            };
            // What cannot be read has been told by those who look at the dict itself.
            let _ = keys.each(self, 0, |key, value| {
                let place = self.memory.place(key).filter(|_| value != 0);
                if place.is_some_and(|place| !self.is_immortal(&place)) {
                    found.extend(self.id(ids, key).map(|id| (id, root.clone())));
                }
                true
            });
        }
        found
    }

    fn roots(&self, ids: &Ids, types: &Types, names: &mut Names) -> Vec<(u32, Root)> {
        let mut found = Vec::new();
        // What is not the main interpreter's says whose it is.
        let text = |names: &mut Names, address: u64, interpreter: u64| -> NameId {
            let text = self.text(address).unwrap_or_else(|| "?".to_string());
            match interpreter {
                0 => names.intern(&text),
                other => names.intern(&format!("{}{text}", steps::in_interpreter(other))),
            }
        };
        let all = roots::find(self);
        for (object, reason) in &all {
            let Some(id) = self.id(ids, *object) else {
                continue;
            };
            let root = match *reason {
                Reason::Module { name, interpreter } => {
                    Root::Module(text(names, name, interpreter))
                }
                Reason::Frame {
                    thread,
                    depth,
                    function,
                    local,
                    interpreter,
                } => Root::Frame {
                    thread,
                    depth,
                    function: text(names, function, interpreter),
                    local: local.map(|local| text(names, local, 0)),
                },
                Reason::Thread { thread, name } => Root::Thread {
                    thread,
                    field: names.intern(name),
                },
                Reason::Interpreter { .. } | Reason::StaticType => continue,
            };
            found.push((id, root));
        }
        for (object, reason) in &all {
            if let (Some(id), Reason::Interpreter { field, interpreter }) =
                (self.id(ids, *object), reason)
            {
                let name = match *interpreter {
                    0 => names.intern(field),
                    other => names.intern(&format!("{}{field}", steps::in_interpreter(other))),
                };
                found.push((id, Root::Interpreter(name)));
            }
        }
        // Those that have instances, and those that only their list knows.
        let fixed = types.all().iter().filter(|info| !info.is_heap());
        let known = all.iter();
        let known = known.filter(|(_, reason)| matches!(reason, Reason::StaticType));
        let mut fixed: Vec<u32> = fixed
            .map(|info| info.address)
            .chain(known.map(|(object, _)| *object))
            .filter_map(|address| self.id(ids, address))
            .collect();
        fixed.sort_unstable();
        fixed.dedup();
        found.extend(fixed.into_iter().map(|id| (id, Root::StaticType)));
        found
    }
}

impl Heap<'_> {
    /// Static types that have no instances and are on no list: they are data of a program or a library, and never garbage.
    fn add_static_types(&self, types: &Types, graph: &mut Graph) {
        let is_type = |object: usize| {
            let id = graph.type_ids.get(object).copied().unwrap_or(u32::MAX);
            let info = types.all().get(id as usize);
            info.is_some_and(|info| info.holding == Holding::Type)
        };
        let is_static = |object: usize| {
            let address = graph.addresses.get(object).copied().unwrap_or(0);
            let flags = self.memory.word(address.wrapping_add(field::FLAGS.into()));
            flags.is_some_and(|flags| flags & flag::HEAP == 0)
        };
        let found = (0..graph.len()).filter(|object| is_type(*object) && is_static(*object));
        let found: Vec<_> = found
            .map(|object| (object as u32, Root::StaticType))
            .collect();
        let mut known: FxHashSet<u32> = FxHashSet::default();
        let fixed = |(object, root): &(u32, Root)| match root {
            Root::StaticType => Some(*object),
            _ => None,
        };
        known.extend(graph.roots.iter().filter_map(fixed));
        let new = found
            .into_iter()
            .filter(|(object, _)| !known.contains(object));
        graph.roots.extend(new);
    }
}

/// The dict `extensions` of Python/import.c (up to 3.11), a static variable: no other dict has definitions of modules, which no program
/// in Python gets to see.
fn add_extensions(types: &Types, graph: &mut Graph, names: &mut Names) {
    let is = |object: u32, wanted: &str| {
        let id = graph.type_ids.get(object as usize).copied();
        let info = id.and_then(|id| types.all().get(id as usize));
        info.is_some_and(|info| !info.is_heap() && info.tp_name == wanted)
    };
    let found = (0..graph.len() as u32).find(|object| {
        let shape = graph.shape_ids.get(*object as usize);
        let shape = shape.and_then(|shape| graph.shapes.get(*shape as usize));
        let labels = shape
            .filter(|shape| shape.rest == Rest::Pairs)
            .map(|shape| shape.labels.len());
        let pairs = labels.and_then(|labels| graph.references(*object).get(labels..));
        let mut values = pairs.unwrap_or_default().iter().skip(1).step_by(2);
        values.len() > 0 && is(*object, "dict") && values.all(|value| is(*value, "moduledef"))
    });
    if let Some(dict) = found {
        let name = names.intern("extensions");
        graph.roots.push((dict, Root::Interpreter(name)));
    }
}

/// The parts one after the other, with names and shapes made common.
fn join(parts: Vec<Part>, names: &mut Names, total: u64) -> Graph {
    let total = usize::try_from(total).unwrap_or(0);
    let mut graph = Graph::default();
    let mut shapes = labels::Shapes::default();
    // Array by array, so that no more than one of them is there twice.
    macro_rules! append {
        ($parts:ident, $field:ident) => {
            for part in &mut $parts {
                let mut piece = std::mem::take(&mut part.$field);
                if graph.$field.is_empty() {
                    graph.$field = piece;
                    let more = total.saturating_sub(graph.$field.len());
                    graph.$field.reserve_exact(more);
                } else {
                    graph.$field.append(&mut piece);
                }
            }
        };
    }
    let mut parts = parts;
    append!(parts, addresses);
    append!(parts, type_ids);
    append!(parts, sizes);
    append!(parts, blocks);
    append!(parts, refcounts);
    append!(parts, flags);
    for part in &mut parts {
        graph.debug_blocks |= part.debug_blocks;
        let local_names = std::mem::take(&mut part.names).into_list();
        let renamed: Vec<NameId> = local_names.iter().map(|name| names.intern(name)).collect();
        let local_shapes = std::mem::take(&mut part.shapes).into_list();
        let reshaped: Vec<u32> = local_shapes
            .into_iter()
            .map(|shape| shapes.intern(&labels::renamed(shape, &renamed)))
            .collect();
        let shape = |id: &u32| reshaped.get(*id as usize).copied().unwrap_or(0);
        graph.shape_ids.extend(part.shape_ids.iter().map(shape));
        let name = |id: &NameId| renamed.get(*id as usize).copied().unwrap_or(0);
        graph
            .texts
            .extend(part.texts.iter().map(|(object, id)| (*object, name(id))));
        part.shape_ids = Vec::new();
    }
    graph.shapes = shapes.into_list();
    let edges = parts.iter().map(|part| part.targets.len()).sum();
    graph.starts.reserve_exact(total + 1);
    graph.targets.reserve_exact(edges);
    graph.starts.push(0);
    for part in parts {
        let before = graph.targets.len() as u64;
        graph
            .starts
            .extend(part.ends.iter().map(|end| before + end));
        graph.targets.extend(part.targets);
    }
    graph
}
