//! Bytes of the allocators' blocks that an object takes: what is free again when it goes.
//!
//! Beside what `sys.getsizeof` counts these have the values of instances (3.11 and newer), what the allocators round up to,
//! links and spare blocks; shared keys are their type's. A block of pymalloc is as large as its pool says, one of glibc's
//! malloc as its chunk's head says (malloc/malloc.c, `struct malloc_chunk`), where that is plausible; of another
//! malloc it is taken to be rounded up in the same way. The allocators' own tables and free blocks are nobody's.

use super::dict::{self, Keys};
use super::modules::{self, ring};
use super::size::{self, DEQUE_BLOCK, DEQUE_ITEMS, Size};
use crate::heap::Heap;
use crate::heap::memory::Place;
use crate::heap::pymalloc;
use crate::heap::types::{Attributes, Holding, Sizing, TypeInfo, field, flag};
use crate::layout::InstanceDict;
use crate::layout::heap::{ByteArray, Embedded};

/// The most bytes that pymalloc gives; more come from malloc.
const SMALL: u64 = 512;
/// Blocks are multiples of this, pymalloc's as well as malloc's.
const UNIT: u64 = 16;
/// malloc's word before a block, and its smallest chunk.
const CHUNK_HEAD: u64 = 8;
const LEAST_CHUNK: u64 = 32;
/// A chunk may be larger than what was asked for by a rest too small for a chunk, and objects with items by one more of them.
const CHUNK_SLACK: u64 = 64;
/// Chunks that are mappings of their own are whole pages.
const PAGE: u64 = 4096;
/// Bits of a chunk's size word: mapped by itself, and the one that is never set.
const IS_MAPPED: u64 = 2;
const NO_FLAG: u64 = 8;

/// What the debug hooks write before a block (Objects/obmalloc.c, `_PyMem_DebugRawAlloc`): the size, big-endian, a letter
/// and seven times 0xfd; and how many bytes they add at least, before and behind.
const DEBUG_MARK: u64 = 0xfd_fdfd_fdfd_fdfd;
const DEBUG_LETTERS: [u8; 3] = *b"rmo";
const DEBUG_BEFORE: u64 = 16;
const DEBUG_BYTES: u64 = 24;

/// Pools that are remembered.
const POOLS: usize = 1024;
/// Longest documentation of a class that is measured.
const DOC_LIMIT: usize = 1 << 16;
/// `tp_doc`.
const DOC: u32 = 176;
/// Most spare blocks of a deque.
const SPARE_BLOCKS: u64 = 16;

/// Sizes of blocks, as one thread asks for them.
#[derive(Debug)]
pub struct Allocators<'h, 'a> {
    heap: &'h Heap<'a>,
    /// Pools by start, and the size of their blocks; 0 for what is none.
    pools: Vec<(u64, u32)>,
    /// A pool's size is two to the power of this.
    pool_bits: u32,
    debug: bool,
}

impl<'h, 'a> Allocators<'h, 'a> {
    /// Those of `heap`.
    pub fn new(heap: &'h Heap<'a>) -> Self {
        Allocators {
            heap,
            pools: vec![(u64::MAX, 0); POOLS],
            pool_bits: heap.layout.pool_size.trailing_zeros(),
            debug: false,
        }
    }

    /// Whether blocks have the bytes that debug hooks add (`PYTHONMALLOC=debug`, `-X dev`).
    pub fn is_debug(&self) -> bool {
        self.debug
    }

    /// The bytes of all blocks of the object of type `info` at `place`, whose `sys.getsizeof` is `size`.
    #[inline]
    pub fn object(&mut self, info: &TypeInfo, place: &Place, size: Size) -> u64 {
        if info.is_meta() && place.word_or_0(field::FLAGS) & flag::HEAP == 0 {
            // A static type: the program's data.
            return 0;
        }
        let own = self.own(info, place, size);
        if info.leaf && matches!(info.sizing, Sizing::Default | Sizing::Int) {
            return own;
        }
        let values = self.values(info, place).unwrap_or(0);
        let others = match info.sizing {
            Sizing::Default if info.holding != Holding::Queue => 0,
            // What points nowhere is torn, and said to be where its size is found.
            _ => self.others(info, place, size).unwrap_or(0),
        };
        own.saturating_add(values).saturating_add(others)
    }

    /// The block that the object itself is in.
    #[inline]
    fn own(&mut self, info: &TypeInfo, place: &Place, size: Size) -> u64 {
        let start = place.address().wrapping_sub(info.pre);
        let inside = match info.sizing {
            Sizing::Type => items_end(info, place, 1),
            Sizing::Frame => size.inside.saturating_add(size.outside),
            _ => size.inside,
        };
        let asked = inside.saturating_add(info.pre);
        if asked <= SMALL
            && let Some(block) = self.pool(start).filter(|block| *block >= asked)
        {
            return block;
        }
        let inline = match info.attributes {
            Attributes::Inline(true) => {
                let values = place.shifted(info.basic as u32);
                values.map_or(0, |values| values_size(u64::from(values.byte(0))))
            }
            _ => 0,
        };
        self.beyond_pools(start, asked.saturating_add(inline))
    }

    /// Values in a block of their own, of an instance without a dict (3.11, 3.12).
    fn values(&mut self, info: &TypeInfo, place: &Place) -> Option<u64> {
        let values = match info.attributes {
            Attributes::ValuesOrDict(_) => place.word_before(32)?,
            Attributes::Tagged => match place.word_before(24)? {
                word if word & 1 != 0 => word.wrapping_add(1),
                _ => 0,
            },
            _ => 0,
        };
        Some(self.values_block(values, 0))
    }

    /// The block of the values at `values`, of which there are `count` at least; nothing for those that lie behind
    /// their instance.
    fn values_block(&mut self, values: u64, count: u64) -> u64 {
        if values == 0 {
            return 0;
        }
        let memory = &self.heap.memory;
        match (self.heap.offsets.dict.instance, self.heap.layout.embedded) {
            (InstanceDict::DictOffset, _) => self.block(values, count.saturating_mul(8)),
            (_, Embedded::None) => {
                // Their order is in bytes before them, whose number is in the last of these.
                let before = values.wrapping_sub(1);
                let prefix = memory.any_place(before).map_or(0, |place| place.byte(0));
                let asked = count.saturating_mul(8).saturating_add(prefix.into());
                self.block(values.wrapping_sub(prefix.into()), asked)
            }
            _ => {
                let place = memory.place(values);
                let is_embedded = place.is_none_or(|place| place.byte(dict::IS_EMBEDDED) != 0);
                let capacity = place.map_or(0, |place| u64::from(place.byte(0)));
                match is_embedded {
                    true => 0,
                    false => self.block(values, values_size(capacity)),
                }
            }
        }
    }

    /// Keys and values of a dict, where they are its own.
    #[inline]
    fn dict(&mut self, place: &Place) -> Option<u64> {
        let (address, values) = (place.word(dict::KEYS)?, place.word(dict::VALUES)?);
        let keys = Keys::read(self.heap, address)?;
        let table = match keys.refs {
            1 => self.block(address, keys.size),
            _ => 0,
        };
        let count = match self.heap.offsets.dict.instance {
            InstanceDict::DictOffset => keys.slots,
            _ => keys.count,
        };
        Some(table.saturating_add(self.values_block(values, count)))
    }

    /// All other blocks that an object has for itself.
    fn others(&mut self, info: &TypeInfo, place: &Place, size: Size) -> Option<u64> {
        let heap = self.heap;
        let each = |block: u64, count: u64| Some(block.saturating_mul(count));
        match info.sizing {
            Sizing::Text if size.outside == 0 => return Some(0),
            Sizing::Text => return self.text(place),
            Sizing::List => {
                return Some(self.block(place.word(24)?, size.outside));
            }
            Sizing::Dict => return self.dict(place),
            Sizing::OrderedDict => {
                let nodes = match place.word(48)? {
                    0 => 0,
                    first => each(self.block(first, 32), place.word(dict::USED)?)?,
                };
                let table = self.block(place.word(64)?, place.word(72)?.checked_mul(8)?);
                return Some(
                    self.dict(place)?
                        .saturating_add(nodes)
                        .saturating_add(table),
                );
            }
            Sizing::Set if size.outside > 0 => {
                return Some(self.block(place.word(40)?, size.outside));
            }
            Sizing::Type => {
                let doc = place.word(DOC)?;
                let text = heap.memory.c_string(doc, DOC_LIMIT);
                let doc = text.map_or(0, |text| self.block(doc, text.len() as u64 + 1));
                let keys = self.block(place.word(heap.offsets.dict.cached_keys)?, size.outside);
                return Some(doc.saturating_add(keys));
            }
            Sizing::Code if heap.layout.code.old.is_none() => {
                let extra = self.block(place.word(heap.layout.code.extra)?, size.outside);
                let cached = match heap.layout.code.cached {
                    Some((offset, count)) => self.block(place.word(offset)?, u64::from(count) * 8),
                    None => 0,
                };
                return Some(extra.saturating_add(cached));
            }
            Sizing::Deque => {
                let used = place.word(40)?.checked_add(place.word(16)?)?;
                let spare = match heap.layout.minor >= 11 {
                    true => place.word(72)?.min(SPARE_BLOCKS),
                    false => 0,
                };
                let count = used.div_ceil(DEQUE_ITEMS).saturating_add(spare);
                return each(self.block(place.word(24)?, DEQUE_BLOCK), count);
            }
            Sizing::Element if size.outside > 0 => {
                let extra = place.word(40)?;
                let children = heap.memory.place(extra)?.word(24)?;
                let head = self.block(extra, size::ELEMENT_EXTRA);
                let more = size.outside.saturating_sub(size::ELEMENT_EXTRA);
                return Some(head.saturating_add(match more {
                    0 => 0,
                    more => self.block(children, more),
                }));
            }
            Sizing::NdArray => {
                let (data, bytes) = size::owned_data(heap, place)?;
                let shape = self.block(place.word(32)?, size.outside.checked_sub(bytes)?);
                return Some(shape.saturating_add(self.block(data, bytes)));
            }
            _ => {}
        }
        // One block that all that counts outside is in.
        let (start, asked) = match info.sizing {
            Sizing::Frame | Sizing::Set | Sizing::Element => return Some(0),
            Sizing::ByteArray => match heap.layout.bytearray {
                ByteArray::Bytes(offset) => (place.word(offset)?, size.outside),
                ByteArray::Allocated => (place.word(32)?, size.outside),
            },
            Sizing::Array => (place.word(24)?, size.outside),
            Sizing::BytesIo => {
                let buffer = modules::own_buffer(heap, place);
                (buffer.map_or(0, |buffer| buffer.address()), size.outside)
            }
            Sizing::StringIo => {
                let characters = size::bounded(heap, place.word(40)?, 4)?;
                (place.word(16)?, characters * 4)
            }
            Sizing::Buffered => (place.word(56)?, size.outside),
            Sizing::ScalarRecord => match modules::owns_record(place) {
                true => (place.word(modules::RECORD)?, size.outside),
                false => return Some(0),
            },
            Sizing::Struct => (place.word(32)?, size.outside),
            Sizing::Decimal => (place.word(64)?, size.outside),
            _ if info.holding == Holding::Queue => {
                let capacity = size::bounded(heap, place.word(ring::CAPACITY)?, 8)?;
                (place.word(ring::ITEMS)?, capacity * 8)
            }
            _ => return Some(rounded(size.outside)),
        };
        Some(match size.outside {
            0 if !matches!(info.sizing, Sizing::StringIo) && info.holding != Holding::Queue => 0,
            _ => self.block(start, asked),
        })
    }

    /// Characters, where they are not in the object, and the same in UTF-8 and as `wchar_t`.
    fn text(&mut self, place: &Place) -> Option<u64> {
        let mut sum = 0u64;
        for (start, asked) in size::text_buffers(self.heap, place)?.into_iter().flatten() {
            sum = sum.saturating_add(self.block(start, asked));
        }
        Some(sum)
    }

    /// The block at `start`, for which `asked` bytes were asked; nothing for no address.
    fn block(&mut self, start: u64, asked: u64) -> u64 {
        if start == 0 {
            return 0;
        }
        if asked <= SMALL
            && let Some(block) = self.pool(start).filter(|block| *block >= asked)
        {
            return block;
        }
        self.beyond_pools(start, asked)
    }

    /// The size of the blocks of the pool that `address` lies in.
    #[inline]
    fn pool(&mut self, address: u64) -> Option<u64> {
        let number = address >> self.pool_bits;
        let start = number << self.pool_bits;
        let known = self.pools.get_mut(number as usize % POOLS)?;
        if known.0 != start {
            *known = (start, block_size(self.heap, address));
        }
        let is_block = known.1 != 0 && address - start >= pymalloc::HEADER;
        is_block.then(|| u64::from(known.1))
    }

    /// A block that pymalloc did not give.
    #[cold]
    fn beyond_pools(&mut self, start: u64, asked: u64) -> u64 {
        let memory = &self.heap.memory;
        let before = |start: u64| memory.word(start.wrapping_sub(8)).unwrap_or(0);
        let (mut begin, mut bytes) = (start, asked);
        let mark = before(start);
        if mark >> 8 == DEBUG_MARK && DEBUG_LETTERS.contains(&(mark as u8)) {
            let said = memory.word(start.wrapping_sub(DEBUG_BEFORE));
            let said = said.map_or(0, u64::swap_bytes);
            if (asked..=asked.saturating_add(CHUNK_SLACK)).contains(&said) {
                self.debug = true;
                begin = start.wrapping_sub(DEBUG_BEFORE);
                bytes = said.saturating_add(DEBUG_BYTES);
            }
        }
        if let Some(size) = chunk(begin, before(begin), bytes) {
            return size;
        }
        let data = &self.heap.captured.static_data;
        let after = data.partition_point(|data| data.range.start <= start);
        let is_static = after
            .checked_sub(1)
            .and_then(|at| data.get(at))
            .is_some_and(|data| data.range.contains(&start));
        if is_static { 0 } else { rounded(bytes) }
    }
}

/// The size of the blocks of the pool that `address` lies in; 0 for none.
#[cold]
fn block_size(heap: &Heap<'_>, address: u64) -> u32 {
    let pool = pymalloc::pool_around(&heap.memory, address, heap.layout.pool_size);
    pool.map_or(0, |pool| pool.block)
}

/// Bytes of values with room for so many, behind their instance or alone (3.13 and newer): a head, the values, their order.
fn values_size(capacity: u64) -> u64 {
    8 + capacity * 8 + capacity.next_multiple_of(8)
}

/// Where the items of an object end, `more` of them than it says.
fn items_end(info: &TypeInfo, place: &Place, more: u64) -> u64 {
    let count = place.word_or_0(16).saturating_add(more);
    count.saturating_mul(info.item).saturating_add(info.basic)
}

/// What allocators make of so many bytes; 0 of none.
fn rounded(asked: u64) -> u64 {
    let head = if asked > SMALL { CHUNK_HEAD } else { 0 };
    let asked = asked.saturating_add(head);
    asked.checked_next_multiple_of(UNIT).unwrap_or(u64::MAX)
}

/// The size of a chunk of glibc's malloc, of which `word` is the head, where it can be one of `asked` bytes at `start`.
fn chunk(start: u64, word: u64, asked: u64) -> Option<u64> {
    let size = word & !(UNIT - 1);
    let least = asked.checked_add(CHUNK_HEAD)?;
    let least = least.checked_next_multiple_of(UNIT)?.max(LEAST_CHUNK);
    let most = match word & IS_MAPPED {
        0 => least.checked_add(CHUNK_SLACK)?,
        // With one more page where the block is aligned.
        _ => least.checked_add(2 * PAGE)?,
    };
    let fits = start.is_multiple_of(UNIT)
        && word & NO_FLAG == 0
        && (least..=most).contains(&size)
        && (word & IS_MAPPED == 0 || size.is_multiple_of(PAGE));
    fits.then_some(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_believed_where_it_is_as_large_as_glibc_makes_it() {
        let at = 0x7000_0010;
        // The previous chunk is in use, the arena is another thread's.
        for flags in [0, 1, 4, 5] {
            assert_eq!(chunk(at, 1040 | flags, 1024), Some(1040));
        }
        assert_eq!(chunk(at, 0x21, 1), Some(32));
        // With a rest that is too small for a chunk.
        assert_eq!(chunk(at, 1056 | 1, 1024), Some(1056));
        // By itself: whole pages.
        assert_eq!(chunk(at, 204_800 | 2, 200_000), Some(204_800));
        assert_eq!(chunk(at, 204_816 | 2, 200_000), None);
        let wrong = [
            (at, 0),
            (at, 1024 | 1),
            (at, 1040 | 8),
            (at, 4096 | 1),
            (at + 8, 1040 | 1),
            (at, u64::MAX),
        ];
        for (start, word) in wrong {
            assert_eq!(chunk(start, word, 1024), None, "{start:x} {word:x}");
        }
        assert_eq!(chunk(at, 1040, u64::MAX), None);
    }

    #[test]
    fn sizes_are_rounded_as_allocators_do() {
        let sizes = [0, 1, 16, 17, 512, 513, 1000].map(rounded);
        assert_eq!(sizes, [0, 16, 16, 32, 512, 528, 1008]);
        assert_eq!(rounded(u64::MAX), u64::MAX);
        // A head, three values, their order in eight bytes.
        assert_eq!(values_size(3), 40);
    }
}
