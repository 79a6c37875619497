//! What the blocks of pymalloc's pools are used for.
//!
//! A block is free when its pool's list of free blocks has it, or when it lies behind what was ever handed out. Of the
//! others, those in which an object begins are objects; those that a word of an object, or of such a block, leads to
//! are storage (tables of dicts, items of lists, links of an OrderedDict); the rest belongs to C code, or was an
//! object of which every reference is lost. Words are taken for pointers whatever they are, so storage is an upper bound.

use rustc_hash::{FxHashMap, FxHashSet};

use super::Heap;
use super::graph::{Graph, flags};
use super::memory::{Memory, each_word};
use super::pymalloc::{HEADER, Pool};

/// What a block is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Nothing.
    Free,
    /// An object that a root leads to.
    Object,
    /// An object that only the collector's lists know.
    Garbage,
    /// Memory of objects.
    Storage,
    /// What looks like an object, and nothing known refers to it.
    Unreferenced,
    /// Anything else.
    Other,
}

/// Bytes of an object outside of pools that are looked at.
const LARGE: u64 = 4096;

/// Types whose instances hold no pointers to storage, and are many.
const PLAIN: [&str; 4] = ["int", "float", "bytes", "bool"];

/// The uses of all blocks of `pools`, which are sorted.
#[derive(Debug)]
pub struct Uses<'p> {
    pools: &'p [Pool],
    pool_size: u64,
    by_start: FxHashMap<u64, u32>,
    /// Where each pool's blocks begin in `uses`; one more entry than pools.
    starts: Vec<usize>,
    uses: Vec<Use>,
}

impl<'p> Uses<'p> {
    /// Looks at every object of `graph` and every block.
    pub fn of(heap: &Heap<'_>, graph: &Graph, pools: &'p [Pool]) -> Self {
        let memory = &heap.memory;
        let mut found = Uses {
            pools,
            pool_size: heap.layout.pool_size,
            by_start: (0..)
                .zip(pools)
                .map(|(at, pool)| (pool.start, at))
                .collect(),
            starts: Vec::with_capacity(pools.len() + 1),
            uses: Vec::new(),
        };
        for pool in pools {
            found.starts.push(found.uses.len());
            found.add_pool(memory, pool);
        }
        found.starts.push(found.uses.len());
        found.mark_objects(graph);
        found.mark_storage(memory, graph);
        found.mark_unreferenced(heap, graph);
        found
    }

    /// The uses of the blocks of the pool at `index`.
    pub fn of_pool(&self, index: usize) -> &[Use] {
        let range = self.starts.get(index).zip(self.starts.get(index + 1));
        range
            .and_then(|(from, to)| self.uses.get(*from..*to))
            .unwrap_or_default()
    }

    /// All blocks in use are anything else, for now.
    fn add_pool(&mut self, memory: &Memory<'_>, pool: &Pool) {
        let first = self.uses.len();
        let block = u64::from(pool.block.max(1));
        let capacity = (self.pool_size - HEADER) / block;
        let handed_out = pool.handed_out(memory).min(capacity);
        for index in 0..capacity {
            self.uses.push(match index < handed_out {
                true => Use::Other,
                false => Use::Free,
            });
        }
        let mut free = pool.first_free(memory);
        for _ in 0..capacity {
            let Some(index) = pool.block_of(free, self.pool_size) else {
                break;
            };
            if let Some(place) = self.uses.get_mut(first + index as usize) {
                *place = Use::Free;
            }
            free = memory.word(free).unwrap_or(0);
        }
    }

    /// The place in `uses` of the block in which `address` lies, and the block's own address.
    #[inline]
    fn find(&self, address: u64) -> Option<(usize, u64)> {
        let (first, last) = (self.pools.first()?, self.pools.last()?);
        if address < first.start || address >= last.start + self.pool_size {
            return None;
        }
        let pool = *self.by_start.get(&(address & !(self.pool_size - 1)))?;
        let (pool, start) = (
            self.pools.get(pool as usize)?,
            *self.starts.get(pool as usize)?,
        );
        let block = pool.block_of(address, self.pool_size)?;
        let at = pool.start + HEADER + u64::from(block) * u64::from(pool.block);
        Some((start + block as usize, at))
    }

    fn mark_objects(&mut self, graph: &Graph) {
        for (address, bits) in graph.addresses.iter().zip(&graph.flags) {
            let found = self.find(*address).map(|(at, _)| at);
            if let Some(place) = found.and_then(|at| self.uses.get_mut(at)) {
                *place = match bits & flags::LOST {
                    0 => Use::Object,
                    _ => Use::Garbage,
                };
            }
        }
    }

    fn mark_storage(&mut self, memory: &Memory<'_>, graph: &Graph) {
        let plain: Vec<bool> = graph
            .types
            .iter()
            .map(|kind| PLAIN.contains(&graph.name(kind.name)))
            .collect();
        let mut open = Vec::new();
        for ((address, type_id), size) in graph
            .addresses
            .iter()
            .zip(&graph.type_ids)
            .zip(&graph.sizes)
        {
            if plain.get(*type_id as usize).copied().unwrap_or(false) {
                continue;
            }
            match self.find(*address) {
                Some((_, block)) => self.follow(memory, block, u64::from(u32::MAX), &mut open),
                None => self.follow(memory, address.saturating_sub(32), *size + 32, &mut open),
            }
            while let Some(block) = open.pop() {
                self.follow(memory, block, u64::from(u32::MAX), &mut open);
            }
        }
    }

    /// Takes the words at `address` for pointers, to the end of its block or for `most` bytes.
    fn follow(&mut self, memory: &Memory<'_>, address: u64, most: u64, open: &mut Vec<u64>) {
        let length = match self.block_size(address) {
            Some(block) => block,
            None => most.min(LARGE),
        };
        let Some(place) = memory.place(address) else {
            return;
        };
        let length = length.min(place.room()) / 8 * 8;
        for word in each_word(place.bytes(0, length).unwrap_or_default()) {
            if let Some((at, block)) = self.find(word)
                && let Some(place) = self.uses.get_mut(at).filter(|known| **known == Use::Other)
            {
                *place = Use::Storage;
                open.push(block);
            }
        }
    }

    fn block_size(&self, address: u64) -> Option<u64> {
        let pool = self
            .by_start
            .get(&(address & !(self.pool_size - 1)))
            .and_then(|pool| self.pools.get(*pool as usize))?;
        pool.block_of(address, self.pool_size)?;
        Some(pool.block.into())
    }

    /// Of what is left, what begins as an object does: a count, and a type that other objects have.
    fn mark_unreferenced(&mut self, heap: &Heap<'_>, graph: &Graph) {
        let types: FxHashSet<u64> = graph
            .types
            .iter()
            .filter_map(|kind| graph.addresses.get(kind.object? as usize).copied())
            .collect();
        let is_object = |address: u64| {
            heap.memory.place(address).is_some_and(|place| {
                heap.counts_references(&place) && types.contains(&place.word_or_0(8))
            })
        };
        for (pool, start) in self.pools.iter().zip(&self.starts) {
            let capacity = (self.pool_size - HEADER) / u64::from(pool.block.max(1));
            for (block, index) in (0..capacity).zip(*start..) {
                let Some(known) = self.uses.get_mut(index).filter(|use_| **use_ == Use::Other)
                else {
                    continue;
                };
                let at = pool.start + HEADER + block * u64::from(pool.block);
                // At once, behind the collector's head, or behind that and two words more.
                let fits = |before: &u64| before + 16 <= u64::from(pool.block);
                if [0, 16, 32]
                    .iter()
                    .any(|before| fits(before) && is_object(at + before))
                {
                    *known = Use::Unreferenced;
                }
            }
        }
    }
}
