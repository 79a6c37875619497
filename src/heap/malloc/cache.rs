//! malloc's caches of threads: `tcache_perthread_struct` (malloc/malloc.c), which lies in a chunk of its thread's arena.
//!
//! Up to glibc 2.29 it has 64 counts of a byte, then 64 pointers to the first chunks; up to 2.41 the counts have two bytes;
//! then there are 76 numbers of two bytes of the chunks that have room yet, and 76 pointers. So it is known by its
//! size, and by lists that are as long as it says.

use rustc_hash::FxHashSet;

use super::{FLAGS, LEAST_CHUNK, MAPPED, Places, Range, holds, unmasked};
use crate::heap::memory::{Memory, Place};

/// How the lengths of lists are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counts {
    Bytes,
    Words,
    /// What is left of a number that is the same for all lists.
    Room,
}

/// Size of the chunk, lists, and how their lengths are kept.
const FORMS: [(u64, u32, Counts); 3] = [
    (0x250, 64, Counts::Bytes),
    (0x290, 64, Counts::Words),
    (0x300, 76, Counts::Room),
];

const PAGE: u64 = 4096;

/// Lists of chunks of one size; those behind are for ranges of sizes.
const OF_ONE_SIZE: u32 = 64;

/// The longest list that a setting can ask for.
const LONGEST: u64 = u16::MAX as u64;

/// The chunks in all caches.
pub(super) fn chunks(memory: &Memory<'_>, places: &Places) -> Vec<Range> {
    let mut found = Vec::new();
    for (start, end) in &places.heaps {
        let mut at = start.next_multiple_of(16);
        while at < *end {
            // Pages that were never touched may lie between two pieces of the image.
            let bytes = memory.place(at).and_then(|place| {
                let length = place.room().min(end - at) / 16 * 16;
                place.bytes(0, length)
            });
            let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) else {
                at = (at / PAGE + 1) * PAGE;
                continue;
            };
            for (index, head) in bytes.chunks_exact(16).enumerate() {
                let size = head
                    .last_chunk()
                    .map_or(0, |word| u64::from_le_bytes(*word));
                let mut forms = FORMS.iter();
                if let Some(form) = forms.find(|(bytes, ..)| size & !FLAGS == *bytes)
                    && size & MAPPED == 0
                    && let Some(cache) = Cache::at(memory, places, at + 16 * index as u64, form)
                {
                    found.extend(cache.chunks().unwrap_or_default());
                }
            }
            at += bytes.len() as u64;
        }
    }
    found
}

/// What may be the cache of a thread.
struct Cache<'a> {
    memory: &'a Memory<'a>,
    places: &'a Places,
    /// Its chunk.
    place: Place<'a>,
    lists: u32,
    counts: Counts,
}

impl<'a> Cache<'a> {
    /// What may begin at the chunk `at`, unless that is free.
    fn at(
        memory: &'a Memory<'a>,
        places: &'a Places,
        at: u64,
        (_, lists, counts): &(u64, u32, Counts),
    ) -> Option<Self> {
        let is_free = holds(&places.free, at) || holds(&places.top, at);
        let place = memory.place(at).filter(|_| !is_free)?;
        Some(Cache {
            memory,
            places,
            place,
            lists: *lists,
            counts: *counts,
        })
    }

    /// Its chunks; `None` when it is no cache.
    fn chunks(&self) -> Option<Vec<Range>> {
        [true, false]
            .into_iter()
            .find_map(|is_masked| self.chunks_of(is_masked))
    }

    fn chunks_of(&self, is_masked: bool) -> Option<Vec<Range>> {
        let width = if self.counts == Counts::Bytes { 1 } else { 2 };
        let entries = 16 + (self.lists * width).next_multiple_of(8);
        let mut found = Vec::new();
        let mut room = None;
        for list in 0..self.lists {
            let count = match self.counts {
                Counts::Bytes => u64::from(self.place.byte(16 + list)),
                _ => u64::from(self.place.int(16 + 2 * list) as u16),
            };
            let first = self.place.word(entries + 8 * list)?;
            let length = self.list(first, list, is_masked, &mut found)?;
            let fits = match self.counts {
                Counts::Bytes | Counts::Words => length == count,
                // Lists that a setting switches off have no room and no chunks.
                Counts::Room if list >= OF_ONE_SIZE || (count, length) == (0, 0) => true,
                Counts::Room => *room.get_or_insert(count + length) == count + length,
            };
            if !fits {
                return None;
            }
        }
        (!found.is_empty()).then_some(found)
    }

    /// Adds the chunks of a list; gives its length.
    fn list(&self, first: u64, list: u32, is_masked: bool, found: &mut Vec<Range>) -> Option<u64> {
        let size = LEAST_CHUNK + 16 * u64::from(list);
        let (mut entry, mut length) = (first, 0);
        let mut known = FxHashSet::default();
        while entry != 0 {
            let place = self.memory.place(entry)?;
            let bytes = place.word_before(8)? & !FLAGS;
            let fits = if list < OF_ONE_SIZE {
                bytes == size
            } else {
                bytes >= size
            };
            let chunk = entry.wrapping_sub(16);
            let inside = holds(&self.places.heaps, chunk) && bytes <= place.room() + 16;
            if !fits || !inside || length >= LONGEST || !known.insert(entry) {
                return None;
            }
            found.push((chunk, chunk + bytes));
            length += 1;
            let next = place.word_or_0(0);
            entry = if is_masked {
                unmasked(entry, next)
            } else {
                next
            };
        }
        Some(length)
    }
}
