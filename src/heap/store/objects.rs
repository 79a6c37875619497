//! Objects to columns and back. What an object is like is told by how it differs from the one of its type
//! before: heaps are made of runs of like objects, whose columns are then runs of zeros.

use crate::blocks::Packer;
use crate::blocks::bytes::{Cursor, put_varint, unzigzag, zigzag};
use crate::error::Result;
use crate::heap::graph::Graph;

/// What the last object of a type was like.
#[derive(Debug, Clone, Copy, Default)]
struct Like {
    size: u64,
    refcount: u32,
    shape: u32,
}

/// What is carried from one block to the next.
#[derive(Debug)]
pub(super) struct State {
    /// By type.
    likes: Vec<Like>,
    /// Number of references of the last object, by shape.
    degrees: Vec<u64>,
    last_address: Option<u64>,
    /// References of all objects so far.
    references: u64,
    /// The most of them.
    most_references: u64,
}

impl State {
    /// For tables of so many types and shapes, and so many references in all.
    pub(super) fn new(types: usize, shapes: usize, most_references: u64) -> State {
        State {
            likes: vec![Like::default(); types],
            degrees: vec![0; shapes],
            last_address: None,
            references: 0,
            most_references,
        }
    }

    /// Number of references of the objects so far.
    pub(super) fn references(&self) -> u64 {
        self.references
    }
}

/// Appends the objects `from..to` of a graph that was checked.
pub(super) fn put(packer: &mut Packer, graph: &Graph, from: usize, to: usize, state: &mut State) {
    let addresses = &graph.addresses[from..to];
    let first = addresses.first().copied().unwrap_or(0);
    let bits = addresses
        .iter()
        .fold(0, |bits, address| bits | (address - first));
    let shift = if bits == 0 { 0 } else { bits.trailing_zeros() };
    put_varint(&mut packer.raw, addresses.len() as u64);
    put_varint(&mut packer.raw, first);
    packer.raw.push(shift as u8);
    let mut values = Vec::with_capacity(addresses.len());
    let mut last = first;
    values.extend(addresses.iter().map(|&address| {
        let step = (address - last) >> shift;
        last = address;
        step
    }));
    packer.column(&mut values);
    values.extend(graph.type_ids[from..to].iter().map(|&id| u64::from(id)));
    packer.column(&mut values);
    values.extend((from..to).map(|at| {
        let like = &mut state.likes[graph.type_ids[at] as usize];
        let size = graph.sizes[at];
        zigzag(size.wrapping_sub(std::mem::replace(&mut like.size, size)) as i64)
    }));
    packer.column(&mut values);
    values.extend((from..to).map(|at| {
        let like = &mut state.likes[graph.type_ids[at] as usize];
        let refcount = graph.refcounts[at];
        let before = std::mem::replace(&mut like.refcount, refcount);
        zigzag(i64::from(refcount) - i64::from(before))
    }));
    packer.column(&mut values);
    values.extend(graph.flags[from..to].iter().map(|&flags| u64::from(flags)));
    packer.column(&mut values);
    values.extend((from..to).map(|at| {
        let like = &mut state.likes[graph.type_ids[at] as usize];
        let shape = graph.shape_ids[at];
        match std::mem::replace(&mut like.shape, shape) {
            before if before == shape => 0,
            _ => u64::from(shape) + 1,
        }
    }));
    packer.column(&mut values);
    values.extend((from..to).map(|at| {
        let before = &mut state.degrees[graph.shape_ids[at] as usize];
        let degree = graph.starts[at + 1] - graph.starts[at];
        zigzag(degree.wrapping_sub(std::mem::replace(before, degree)) as i64)
    }));
    packer.column(&mut values);
}

/// Objects as the graph has them.
#[derive(Debug, Default)]
pub(super) struct Columns {
    pub(super) addresses: Vec<u64>,
    pub(super) type_ids: Vec<u32>,
    pub(super) sizes: Vec<u64>,
    pub(super) refcounts: Vec<u32>,
    pub(super) flags: Vec<u8>,
    pub(super) shape_ids: Vec<u32>,
    /// Where each object's references end.
    pub(super) ends: Vec<u64>,
}

impl Columns {
    /// Makes place for exactly so many objects.
    pub(super) fn reserve(&mut self, objects: usize) {
        self.addresses.reserve_exact(objects);
        self.type_ids.reserve_exact(objects);
        self.sizes.reserve_exact(objects);
        self.refcounts.reserve_exact(objects);
        self.flags.reserve_exact(objects);
        self.shape_ids.reserve_exact(objects);
        self.ends.reserve_exact(objects);
    }

    pub(super) fn clear(&mut self) {
        self.addresses.clear();
        self.type_ids.clear();
        self.sizes.clear();
        self.refcounts.clear();
        self.flags.clear();
        self.shape_ids.clear();
        self.ends.clear();
    }

    /// Appends `count` objects of a block, whose number has been read and found acceptable.
    pub(super) fn read(
        &mut self,
        cursor: &mut Cursor<'_>,
        count: usize,
        state: &mut State,
    ) -> Result<()> {
        let begin = self.type_ids.len();
        self.read_addresses(cursor, count, state)?;
        for value in cursor.column(count)? {
            let id = cursor.check_index(value as i64, state.likes.len(), "type")?;
            self.type_ids.push(id);
        }
        // Each was checked just now.
        let like = |state: &mut State, id: u32| state.likes.get_mut(id as usize).map(|like| *like);
        let types = self.type_ids.get(begin..).unwrap_or_default();
        for (&id, value) in types.iter().zip(cursor.column(count)?) {
            let before = like(state, id).unwrap_or_default();
            let size = before.size.wrapping_add(unzigzag(value) as u64);
            remember(state, id, Like { size, ..before });
            self.sizes.push(size);
        }
        for (&id, value) in types.iter().zip(cursor.column(count)?) {
            let before = like(state, id).unwrap_or_default();
            let refcount = i64::from(before.refcount).checked_add(unzigzag(value));
            let refcount = refcount.and_then(|count| u32::try_from(count).ok());
            let refcount =
                refcount.ok_or_else(|| cursor.bad("a reference count is out of range"))?;
            remember(state, id, Like { refcount, ..before });
            self.refcounts.push(refcount);
        }
        for value in cursor.column(count)? {
            let flags = u8::try_from(value).map_err(|_| cursor.bad("flags are out of range"))?;
            self.flags.push(flags);
        }
        for (&id, value) in types.iter().zip(cursor.column(count)?) {
            let before = like(state, id).unwrap_or_default();
            let shape = match value.checked_sub(1) {
                None => u64::from(before.shape),
                Some(shape) => shape,
            };
            let shape = cursor.check_index(shape as i64, state.degrees.len(), "shape")?;
            remember(state, id, Like { shape, ..before });
            self.shape_ids.push(shape);
        }
        let shapes = self.shape_ids.get(begin..).unwrap_or_default();
        for (&shape, value) in shapes.iter().zip(cursor.column(count)?) {
            if let Some(degree) = state.degrees.get_mut(shape as usize) {
                *degree = degree.wrapping_add(unzigzag(value) as u64);
                let end = state.references.checked_add(*degree);
                state.references = end
                    .filter(|&end| end <= state.most_references)
                    .ok_or_else(|| cursor.bad("objects have more references than there are"))?;
            }
            self.ends.push(state.references);
        }
        Ok(())
    }

    fn read_addresses(
        &mut self,
        cursor: &mut Cursor<'_>,
        count: usize,
        state: &mut State,
    ) -> Result<()> {
        let (first, shift) = (cursor.varint()?, cursor.byte()?);
        for (at, step) in cursor.column(count)?.into_iter().enumerate() {
            let address = match (at, state.last_address) {
                (0, last) => Some(first).filter(|first| last.is_none_or(|last| last < *first)),
                (_, None) => None,
                (_, Some(last)) => Some(step)
                    .filter(|&step| step > 0 && shift < 64 && step <= u64::MAX >> shift)
                    .and_then(|step| last.checked_add(step << shift)),
            };
            let address = address.ok_or_else(|| cursor.bad("addresses do not rise"))?;
            state.last_address = Some(address);
            self.addresses.push(address);
        }
        Ok(())
    }
}

fn remember(state: &mut State, id: u32, like: Like) {
    if let Some(place) = state.likes.get_mut(id as usize) {
        *place = like;
    }
}

/// In what sizes of blocks are counted.
const BLOCK_UNIT: u64 = 16;

/// What of blocks is carried from one block of the file to the next: the size of the last object of each type.
#[derive(Debug)]
pub(super) struct BlockSizes {
    last: Vec<u64>,
}

impl BlockSizes {
    /// For so many types.
    pub(super) fn new(types: usize) -> BlockSizes {
        BlockSizes {
            last: vec![0; types],
        }
    }

    /// Appends the blocks of the objects `from..to` of a graph that was checked.
    pub(super) fn put(&mut self, packer: &mut Packer, graph: &Graph, from: usize, to: usize) {
        packer.raw.push(u8::from(graph.debug_blocks));
        put_varint(&mut packer.raw, (to - from) as u64);
        let mut values = (from..to)
            .map(|at| {
                let size = graph.blocks[at] / BLOCK_UNIT;
                let last = &mut self.last[graph.type_ids[at] as usize];
                zigzag(size.wrapping_sub(std::mem::replace(last, size)) as i64)
            })
            .collect();
        packer.column(&mut values);
    }

    /// Appends those of the next `count` objects to `graph`, which has their types.
    pub(super) fn read(
        &mut self,
        cursor: &mut Cursor<'_>,
        count: usize,
        graph: &mut Graph,
    ) -> Result<()> {
        let begin = graph.blocks.len();
        let types = graph.type_ids.get(begin..).unwrap_or_default();
        if count > types.len() {
            return Err(cursor.bad("there are blocks of more objects than there are"));
        }
        for (&id, value) in types.iter().zip(cursor.column(count)?) {
            let Some(last) = self.last.get_mut(id as usize) else {
                return Err(cursor.bad("a block is of no type"));
            };
            *last = last.wrapping_add(unzigzag(value) as u64);
            let bytes = last.checked_mul(BLOCK_UNIT);
            graph
                .blocks
                .push(bytes.ok_or_else(|| cursor.bad("a block is too large"))?);
        }
        Ok(())
    }
}
