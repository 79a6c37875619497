//! The objects of a range of addresses, with their references as ids.

use std::ops::Range;

use super::Ids;
use super::labels::{self, Names, Shapes};
use super::texts;
use crate::heap::Heap;
use crate::heap::decode::blocks::Allocators;
use crate::heap::decode::sinks::{Named, Targets};
use crate::heap::decode::{Name, Torn, references, size};
use crate::heap::graph::{Label, NameId, ObjectId, Rest, Shape, flags};
use crate::heap::memory::Place;
use crate::heap::muppy;
use crate::heap::types::{Holding, TypeIndex, TypeInfo, Types};
use crate::heap::walk::{is_conservative, plausible};

/// Arrays as in [`crate::heap::graph::Graph`]; names and shapes are its own.
#[derive(Debug, Default)]
pub struct Part {
    pub addresses: Vec<u64>,
    pub type_ids: Vec<u32>,
    pub sizes: Vec<u64>,
    pub blocks: Vec<u64>,
    pub debug_blocks: bool,
    pub refcounts: Vec<u32>,
    pub flags: Vec<u8>,
    pub shape_ids: Vec<u32>,
    /// Where the references of each object end, in `targets`.
    pub ends: Vec<u64>,
    pub targets: Vec<ObjectId>,
    pub texts: Vec<(ObjectId, NameId)>,
    pub names: Names,
    pub shapes: Shapes,
}

struct Builder<'h, 'a> {
    heap: &'h Heap<'a>,
    ids: &'h Ids<'h>,
    types: Types,
    allocators: Allocators<'h, 'a>,
    part: Part,
    sink: Named,
    visited: Targets,
    shape: Shape,
    /// The shape of the last object of each type.
    last_shapes: Vec<u32>,
}

/// Builds the part for the words `range` of the bitmap; with `values` attributes are called by their names whatever
/// these are.
pub fn build(heap: &Heap, ids: &Ids, types: Types, range: Range<usize>, values: bool) -> Part {
    let first = ids.ranks.get(range.start).copied().unwrap_or(0);
    let end = ids.ranks.get(range.end).copied().unwrap_or(ids.total);
    let count = end.saturating_sub(first) as usize;
    let mut builder = Builder {
        heap,
        ids,
        last_shapes: vec![u32::MAX; types.all().len()],
        types,
        allocators: Allocators::new(heap),
        part: Part {
            names: Names::new(values),
            ..Part::default()
        },
        sink: Named::new(heap),
        visited: Targets::new(heap),
        shape: labels::empty(),
    };
    let part = &mut builder.part;
    part.addresses.reserve_exact(count);
    part.type_ids.reserve_exact(count);
    part.sizes.reserve_exact(count);
    part.blocks.reserve_exact(count);
    part.refcounts.reserve_exact(count);
    part.flags.reserve_exact(count);
    part.shape_ids.reserve_exact(count);
    part.ends.reserve_exact(count);
    let mut id = first;
    heap.memory
        .each_set(ids.seen, range.start, range.end, |_, place| {
            builder.add(id, &place);
            id += 1;
        });
    builder.part.debug_blocks = builder.allocators.is_debug();
    builder.part
}

impl Builder<'_, '_> {
    fn add(&mut self, id: ObjectId, place: &Place) {
        let kind = place.word_or_0(8);
        // Every object has a type that was found in the first pass.
        let index = self.types.find(self.heap, kind).unwrap_or(0);
        let mut bits = self.marks(place, index);
        let (bytes, blocks, whole) = self.size(place, index);
        if !whole {
            bits |= flags::TORN;
        }
        let is_leaf = self
            .types
            .all()
            .get(index as usize)
            .is_none_or(|info| info.leaf);
        self.shape.labels.clear();
        self.shape.rest = Rest::Nothing;
        if !is_leaf {
            bits |= self.references(place, index);
        }
        let part = &mut self.part;
        let last = self.last_shapes.get_mut(index as usize);
        let shape = match last {
            Some(last) if part.shapes.is(*last, &self.shape) => *last,
            last => {
                let id = part.shapes.intern(&self.shape);
                if let Some(last) = last {
                    *last = id;
                }
                id
            }
        };
        part.addresses.push(place.address());
        part.type_ids.push(index);
        part.sizes.push(bytes);
        part.blocks.push(blocks);
        part.refcounts
            .push(u32::try_from(self.heap.refcount(place)).unwrap_or(u32::MAX));
        part.flags.push(bits);
        part.shape_ids.push(shape);
        part.ends.push(part.targets.len() as u64);
        if let Some(info) = self.types.all().get(index as usize)
            && let Some(text) = texts::of(self.heap, info, place)
        {
            part.texts.push((id, part.names.intern(&text)));
        }
    }

    /// `sys.getsizeof`, the bytes of all blocks, and whether it is what its head says.
    fn size(&mut self, place: &Place, index: TypeIndex) -> (u64, u64, bool) {
        let info = self.types.get(index);
        match size::parts(self.heap, info, place) {
            Some(size) => {
                let blocks = self.allocators.object(info, place, size);
                (size.bytes(), blocks, true)
            }
            None => (info.basic, info.basic.next_multiple_of(16), false),
        }
    }

    /// Flags that do not depend on references; and what muppy sees through this object.
    fn marks(&mut self, place: &Place, index: TypeIndex) -> u8 {
        let heap = self.heap;
        let info = self.types.get(index);
        let mut bits = 0;
        if muppy::is_tracked(info, place) {
            bits |= flags::TRACKED;
        }
        if is_conservative(info) {
            bits |= flags::CONSERVATIVE;
        }
        if heap.is_immortal(place) {
            bits |= flags::IMMORTAL;
        }
        if self.ids.young.has(place.bit()) && info.holding != Holding::Frame {
            bits |= flags::MUPPY;
            self.visited.targets.clear();
            self.visited.found.clear();
            // What is torn is marked in the other pass.
            let _ = references(heap, info, place, false, &mut self.visited);
            for target in &self.visited.targets {
                let Some(other) = heap.memory.place(*target) else {
                    continue;
                };
                mark(heap, &mut self.types, self.ids, &other);
            }
            for word in &self.visited.found {
                if let Some((other, _)) = plausible(heap, &mut self.types, *word) {
                    mark(heap, &mut self.types, self.ids, &other);
                }
            }
        }
        bits
    }

    /// Puts the references of an object into the part and their labels into the shape; gives the flags that follow.
    fn references(&mut self, place: &Place, index: TypeIndex) -> u8 {
        let heap = self.heap;
        self.sink.clear();
        let info: &TypeInfo = self.types.get(index);
        let mut bits = match references(heap, info, place, true, &mut self.sink) {
            Ok(()) => 0,
            Err(Torn) => flags::TORN,
        };
        let id = |address: u64| {
            let place = heap.memory.place(address)?;
            self.ids.seen.rank(self.ids.ranks, place.bit())
        };
        for (target, name) in &self.sink.fields {
            if let Some(id) = id(*target) {
                self.part.targets.push(id);
                self.shape.labels.push(self.part.names.label(heap, *name));
            }
        }
        for (word, name) in &self.sink.found {
            if plausible(heap, &mut self.types, *word).is_some()
                && let Some(id) = id(*word)
            {
                bits |= flags::CONSERVATIVE;
                self.part.targets.push(id);
                self.shape.labels.push(match name {
                    Some(name) => self.part.names.label(heap, Name::Field(name)),
                    None => Label::Found,
                });
            }
        }
        self.shape.rest = self.sink.rest;
        if self.sink.rest == Rest::Pairs {
            // A key whose value leads nowhere would turn keys into values.
            for pair in self.sink.targets.chunks_exact(2) {
                if let [key, value] = pair
                    && let (Some(key), Some(value)) = (id(*key), id(*value))
                {
                    self.part.targets.extend([key, value]);
                }
            }
        } else {
            self.part
                .targets
                .extend(self.sink.targets.iter().filter_map(|target| id(*target)));
        }
        bits
    }
}

/// An untracked object that a tracked one refers to is one of muppy's.
fn mark(heap: &Heap, types: &mut Types, ids: &Ids, place: &Place) {
    if ids.muppy.has(place.bit()) {
        return;
    }
    let Some(index) = types.find(heap, place.word_or_0(8)) else {
        return;
    };
    let info = types.get(index);
    if !muppy::is_tracked(info, place) && info.holding != Holding::Frame {
        ids.muppy.set(place.bit());
    }
}
