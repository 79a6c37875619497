//! The pools of Python's small-object allocator, found by their look.
//!
//! `struct pool_header` (Objects/obmalloc.c of 3.8, Include/internal/pycore_obmalloc.h of 3.10 to 3.15), 48 bytes:
//! `ref.count` u32 0, `freeblock` 8, `nextpool` 16, `prevpool` 24, `arenaindex` u32 32, `szidx` u32 36, `nextoffset` u32 40,
//! `maxnextoffset` u32 44. Blocks of `(szidx + 1) * 16` bytes follow. The arenas' own table is not used: up to 3.11
//! it has no exported symbol. Measured against `sys._debugmallocstats`: no used pool is missed, 0 to 7 are false.

use super::memory::Memory;
use crate::layout;
use crate::target::image::Span;

/// Bytes before the first block of a pool.
pub const HEADER: u64 = 48;

/// Size classes: 16 to 512 bytes.
pub const CLASSES: u32 = 32;

/// A pool that is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// Its first address, aligned to its size.
    pub start: u64,
    /// Bytes of each block.
    pub block: u32,
    /// Blocks in use.
    pub used: u32,
    /// Index of its arena in the interpreter's table.
    pub arena: u32,
}

impl Pool {
    /// The block that `address` lies in; `None` when that is no block of this pool.
    pub fn block_of(&self, address: u64, pool_size: u64) -> Option<u32> {
        let offset = address.checked_sub(self.start + HEADER)?;
        if offset >= pool_size - HEADER {
            return None;
        }
        u32::try_from(offset / u64::from(self.block)).ok()
    }

    /// How many of its blocks were ever in use: those before `nextoffset`.
    pub fn handed_out(&self, memory: &Memory<'_>) -> u64 {
        let next = memory.place(self.start).map_or(0, |place| place.int(40));
        u64::from(next).saturating_sub(HEADER) / u64::from(self.block.max(1))
    }

    /// The first block of its list of free ones, each of which begins with the address of the next; 0 for none.
    pub fn first_free(&self, memory: &Memory<'_>) -> u64 {
        memory.word(self.start + 8).unwrap_or(0)
    }
}

/// All pools in `spans`, by address. `pool_size` is a power of two: 4 KiB up to 3.9, 16 KiB from 3.10 on.
pub fn pools<'a>(spans: impl Iterator<Item = &'a Span>, pool_size: u64) -> Vec<Pool> {
    let mut found = Vec::new();
    let Ok(step) = usize::try_from(pool_size) else {
        return found;
    };
    for span in spans {
        let first = span.start().next_multiple_of(pool_size.max(1));
        let Ok(mut at) = usize::try_from(first - span.start()) else {
            continue;
        };
        let bytes = span.bytes();
        while let Some(page) = at.checked_add(step).and_then(|end| bytes.get(at..end)) {
            found.extend(pool(span.start() + at as u64, page, pool_size));
            at += step;
        }
    }
    found
}

/// The pool in use that `address` lies in, by its head alone; `None` for memory of another allocator.
pub fn pool_around(memory: &Memory<'_>, address: u64, pool_size: u64) -> Option<Pool> {
    let start = address & !(pool_size - 1);
    let place = memory.place(start)?;
    let head = place.bytes(0, HEADER)?;
    pool(start, head, pool_size).filter(|_| place.room() >= pool_size)
}

fn pool(start: u64, page: &[u8], pool_size: u64) -> Option<Pool> {
    let int = |at| layout::int(page, at).map(|value| value as u32);
    let (used, arena, class) = (int(0)?, int(32)?, int(36)?);
    let (next, last) = (u64::from(int(40)?), u64::from(int(44)?));
    if class >= CLASSES || used == 0 {
        return None;
    }
    let block = (class + 1) * 16;
    let capacity = (pool_size - HEADER) / u64::from(block);
    let is_pool = last == pool_size - u64::from(block)
        && (HEADER..=pool_size).contains(&next)
        && (next - HEADER).is_multiple_of(u64::from(block))
        && u64::from(used) <= capacity;
    is_pool.then_some(Pool {
        start,
        block,
        used,
        arena,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(used: u32, class: u32, next: u32, last: u32) -> Vec<u8> {
        let mut page = vec![0; 4096];
        for (at, value) in [(0, used), (32, 7), (36, class), (40, next), (44, last)] {
            page[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        }
        page
    }

    #[test]
    fn pools_are_told_from_other_pages() {
        let good = page(3, 1, 48 + 96, 4096 - 32);
        let others = [
            page(0, 1, 48 + 96, 4096 - 32),
            page(3, 32, 48 + 96, 4096 - 32),
            page(3, 1, 50, 4096 - 32),
            page(3, 1, 48 + 96, 4096),
            page(200, 1, 48 + 96, 4096 - 32),
            vec![0xff; 4096],
        ];
        let mut memory = vec![1; 1024];
        memory.extend_from_slice(&good);
        for other in &others {
            memory.extend_from_slice(other);
        }
        memory.extend_from_slice(&[9; 100]);
        let span = Span::new(0x10_0000 - 1024, memory);
        let found = pools([span].iter(), 4096);
        let expected = Pool {
            start: 0x10_0000,
            block: 32,
            used: 3,
            arena: 7,
        };
        assert_eq!(found, [expected]);
        assert_eq!(found[0].block_of(0x10_0000 + 48 + 63, 4096), Some(1));
        assert_eq!(found[0].block_of(0x10_0000 + 47, 4096), None);
        assert_eq!(found[0].block_of(0x10_1000, 4096), None);
    }
}
