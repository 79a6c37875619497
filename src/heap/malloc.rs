//! glibc's malloc, read from outside: which memory its arenas have, and which of that is free.
//!
//! `struct malloc_state` (malloc/malloc.c) has had three layouts since glibc 2.26: `mutex`, `flags`, then the heads of the
//! fast bins (behind another int from 2.27 on, none at all from 2.43 on), `top`, `last_remainder`, 127 bins of two
//! pointers, 4 ints, `next`, `next_free`, `attached_threads`, `system_mem`. The main arena lies in the C library's
//! data; its symbol is stripped everywhere, but bins and their chunks point at each other, and `next` of the last arena leads to
//! the first. All else is proved before it is counted: a chunk of a bin is in a heap, has the size that its neighbour says,
//! and its neighbours on the list know it. The caches of threads are found by their look in the same way.

mod cache;

use rustc_hash::FxHashSet;

use super::memory::Memory;
use crate::target::image::{Captured, Mapping};

/// First address and first address behind it.
pub(super) type Range = (u64, u64);

/// Where the fields of an arena are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    /// The first of the heads of the fast bins.
    fast: Option<u64>,
    top: u64,
    bins: u64,
    next: u64,
    system: u64,
    /// What the size of a block with a mapping of its own leaves out.
    mapped: u64,
}

/// glibc 2.43, 2.27 to 2.42, 2.26 and older.
const LAYOUTS: [Layout; 3] = [
    Layout {
        fast: None,
        top: 8,
        bins: 24,
        next: 2072,
        system: 2096,
        mapped: 16,
    },
    Layout {
        fast: Some(16),
        top: 96,
        bins: 112,
        next: 2160,
        system: 2184,
        mapped: 0,
    },
    Layout {
        fast: Some(8),
        top: 88,
        bins: 104,
        next: 2152,
        system: 2176,
        mapped: 0,
    },
];

/// `NBINS - 1`, `NFASTBINS`.
const BINS: u64 = 127;
const FAST_BINS: u64 = 10;

/// Bins of an arena that may look wrong: a thread was inside malloc when it was stopped.
const MOST_WRONG: usize = 3;

/// Heaps of other arenas begin at a multiple of this (malloc/arena.c, HEAP_MAX_SIZE).
pub(super) const HEAP_MAX: u64 = 64 << 20;

/// The smallest chunk, and the bits of its size that say other things: in use before it, mapped, not of the main arena.
const LEAST_CHUNK: u64 = 32;
const FLAGS: u64 = 7;
const MAPPED: u64 = 2;

/// Arenas of a process: eight for each processor.
const MOST_ARENAS: usize = 1 << 14;

/// Lists that may be torn: a thread was inside malloc when it was stopped.
const MOST_TORN: usize = 2;

/// A main arena with less than this is not what the program uses when another allocator is loaded.
const LEAST_MAIN: u64 = 512 << 10;

/// Bytes of a mapping that are searched for the main arena.
const MOST_DATA: u64 = 64 << 20;

/// Libraries that take malloc's place, by the beginning of their files' names.
const OTHERS: [(&str, &str); 8] = [
    ("libjemalloc", "jemalloc"),
    ("libmimalloc", "mimalloc"),
    ("libtcmalloc", "tcmalloc"),
    ("libsnmalloc", "snmalloc"),
    ("librpmalloc", "rpmalloc"),
    ("libtbbmalloc", "tbbmalloc"),
    ("ld-musl", "musl's malloc"),
    ("libc.musl", "musl's malloc"),
];

/// What malloc has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Malloc {
    /// `glibc`, or the allocator that was found in its place; empty when none was.
    pub allocator: String,
    /// Why its heaps are not split; `None` when they are, and then the numbers below are known.
    pub why: Option<String>,
    /// Arenas.
    pub arenas: u64,
    /// Bytes that its arenas have from the system: `arena` of mallinfo2(3).
    pub system: u64,
    /// Free bytes of the arenas: in bins, fast bins, at their ends: `fordblks`.
    pub free: u64,
    /// Of those, at the ends of the heaps: `keepcost` for all arenas.
    pub top: u64,
    /// Bytes in caches of threads, which malloc counts as in use.
    pub cached: u64,
    /// Bytes of blocks that have a mapping of their own: `hblkhd`.
    pub mapped: u64,
    /// How many those are.
    pub mapped_blocks: u64,
    /// Lists that were being changed and were read in part.
    pub torn: u64,
}

impl Malloc {
    /// Bytes in use in arenas, without those in caches of threads.
    pub fn used(&self) -> u64 {
        self.system
            .saturating_sub(self.free)
            .saturating_sub(self.cached)
    }

    fn whole(allocator: &str, why: &str) -> Malloc {
        Malloc {
            allocator: allocator.to_string(),
            why: Some(why.to_string()),
            ..Malloc::default()
        }
    }
}

/// Where what is.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// Heaps, by address.
    pub heaps: Vec<Range>,
    /// Free chunks that are not at the end of a heap, by address, none twice.
    pub free: Vec<Range>,
    /// Free ends of heaps, by address.
    pub top: Vec<Range>,
    /// Blocks with a mapping of their own, by address.
    pub mapped: Vec<Range>,
}

impl Places {
    /// Whether `address` is in a heap, or in a block that malloc mapped.
    pub(super) fn has(&self, address: u64) -> bool {
        holds(&self.heaps, address) || holds(&self.mapped, address)
    }
}

/// Reads malloc's state. In none of `pools`, which are sorted, does a block begin that malloc mapped. What does not
/// fit is said in [`Malloc::why`], and then there are no places.
pub(super) fn read(captured: &Captured, memory: &Memory<'_>, pools: &[Range]) -> (Malloc, Places) {
    let other = other(&captured.mappings);
    let main = find_main(captured, memory);
    let is_used = |(main, layout): &(u64, Layout)| {
        memory.word(main + layout.system).unwrap_or(0) >= LEAST_MAIN
    };
    match (main, other) {
        (main, Some(name)) if !main.as_ref().is_some_and(is_used) => {
            let why = "only glibc's heaps can be split into used and free";
            (Malloc::whole(name, why), Places::default())
        }
        (None, _) => {
            let why = "no arena of glibc's malloc was found";
            (Malloc::whole("", why), Places::default())
        }
        (Some((main, layout)), _) => {
            let reading = Reading::new(captured, memory, layout);
            reading
                .all(main, pools)
                .unwrap_or_else(|why| (Malloc::whole("glibc", why), Places::default()))
        }
    }
}

fn other(mappings: &[Mapping]) -> Option<&'static str> {
    let mut names = mappings.iter().map(|mapping| {
        let path = mapping
            .name
            .strip_suffix(" (deleted)")
            .unwrap_or(&mapping.name);
        path.rsplit('/').next().unwrap_or_default()
    });
    names.find_map(|name| {
        let known = OTHERS.iter().find(|(begin, _)| name.starts_with(begin));
        known.map(|(_, name)| *name)
    })
}

/// The main arena: the C library's data first, then that of any other file, for programs that are linked with it for good.
fn find_main(captured: &Captured, memory: &Memory<'_>) -> Option<(u64, Layout)> {
    let mut places: Vec<(bool, Range)> = Vec::new();
    let mut before: Option<&Mapping> = None;
    for mapping in &captured.mappings {
        let writable = mapping.permissions.starts_with("rw-p");
        let of_file = mapping.name.starts_with('/');
        // Data that is all zeros at first has no file behind it.
        let behind = mapping.name.is_empty()
            && before
                .is_some_and(|before| before.end == mapping.start && before.name.starts_with('/'));
        if writable && (of_file || behind) {
            let named = if of_file { Some(mapping) } else { before };
            let name = named.map_or("", |named| named.name.as_str());
            let name = name.rsplit('/').next().unwrap_or_default();
            let is_libc = name.starts_with("libc.") || name.starts_with("libc-");
            places.push((!is_libc, (mapping.start, mapping.end)));
        }
        before = Some(mapping);
    }
    places.sort_unstable();
    places.into_iter().find_map(|(_, (start, end))| {
        let end = end.min(start.saturating_add(MOST_DATA));
        let mut addresses = (start.next_multiple_of(8)..end).step_by(8);
        addresses.find_map(|address| {
            let fits = |layout: &&Layout| is_arena(memory, address, layout);
            let layout = LAYOUTS.iter().find(fits)?;
            Some((address, *layout))
        })
    })
}

/// Whether an arena begins at `address`: its bins point at themselves when they are empty, else their first and last chunk do;
/// and the ring of all arenas comes back to it.
fn is_arena(memory: &Memory<'_>, address: u64, layout: &Layout) -> bool {
    let Some(place) = memory.place(address) else {
        return false;
    };
    let word = |offset: u64| place.word(offset as u32).unwrap_or(0);
    let mut next = word(layout.next);
    if next == 0 || (next != address && memory.place(next).is_none()) {
        return false;
    }
    let mut wrong = 0;
    for bin in 0..BINS {
        let head = address + layout.bins + 16 * bin - 16;
        let (first, last) = (
            word(layout.bins + 16 * bin),
            word(layout.bins + 16 * bin + 8),
        );
        // The head of a bin is read as a chunk whose links are the bin's.
        let (back, forth) = (first.wrapping_add(24), last.wrapping_add(16));
        let fits = memory.word(back) == Some(head) && memory.word(forth) == Some(head);
        wrong += usize::from(!fits);
        if wrong > MOST_WRONG {
            return false;
        }
    }
    for _ in 0..MOST_ARENAS {
        if next == address {
            return true;
        }
        next = memory.word(next.wrapping_add(layout.next)).unwrap_or(0);
    }
    false
}

/// A pointer as glibc 2.32 and newer keep it in a chunk (PROTECT_PTR), and back.
fn unmasked(at: u64, word: u64) -> u64 {
    (at >> 12) ^ word
}

/// Malloc as far as it is read.
struct Reading<'a> {
    captured: &'a Captured,
    memory: &'a Memory<'a>,
    layout: Layout,
    malloc: Malloc,
    places: Places,
}

impl<'a> Reading<'a> {
    fn new(captured: &'a Captured, memory: &'a Memory<'a>, layout: Layout) -> Self {
        Reading {
            captured,
            memory,
            layout,
            malloc: Malloc {
                allocator: "glibc".to_string(),
                ..Malloc::default()
            },
            places: Places::default(),
        }
    }

    fn all(mut self, main: u64, pools: &[Range]) -> Result<(Malloc, Places), &'static str> {
        let mut arena = main;
        let mut known = FxHashSet::default();
        while known.insert(arena) && known.len() <= MOST_ARENAS {
            self.heaps(arena, arena == main);
            arena = self.word(arena + self.layout.next);
        }
        if arena != main {
            return Err("its arenas are no ring");
        }
        self.places.heaps.sort_unstable();
        disjoint(&mut self.places.heaps);
        for arena in known {
            self.arena(arena)?;
        }
        let most = MOST_TORN * self.malloc.arenas as usize;
        if self.malloc.torn as usize > most {
            return Err("its lists of free memory are torn");
        }
        self.places.top.sort_unstable();
        disjoint(&mut self.places.top);
        self.places.free.sort_unstable();
        disjoint(&mut self.places.free);
        let cached = cache::chunks(self.memory, &self.places);
        let bytes = |ranges: &[Range]| ranges.iter().map(|(start, end)| end - start).sum::<u64>();
        let before = bytes(&self.places.free);
        self.places.free.extend(cached);
        self.places.free.sort_unstable();
        disjoint(&mut self.places.free);
        self.malloc.cached = bytes(&self.places.free) - before;
        self.mapped_blocks(pools);
        Ok((self.malloc, self.places))
    }

    fn word(&self, address: u64) -> u64 {
        self.memory.word(address).unwrap_or(0)
    }

    /// Where the memory of an arena is: `[heap]`, or its chain of heaps, the newest first.
    fn heaps(&mut self, arena: u64, is_main: bool) {
        if is_main {
            let mappings = self.captured.mappings.iter();
            let heaps = mappings.filter(|mapping| mapping.name == "[heap]");
            self.places
                .heaps
                .extend(heaps.map(|mapping| (mapping.start, mapping.end)));
            return;
        }
        let top = self.word(arena + self.layout.top);
        let mut heap = top & !(HEAP_MAX - 1);
        let mut known = FxHashSet::default();
        while heap.is_multiple_of(HEAP_MAX) && known.insert(heap) {
            // `heap_info`: the arena, the heap before, its size.
            let size = self.word(heap.wrapping_add(16));
            if self.word(heap) != arena || !(LEAST_CHUNK..=HEAP_MAX).contains(&size) {
                break;
            }
            self.places.heaps.push((heap, heap + size));
            heap = self.word(heap + 8);
        }
    }

    fn arena(&mut self, arena: u64) -> Result<(), &'static str> {
        self.malloc.arenas += 1;
        let system = self.word(arena + self.layout.system);
        self.malloc.system = self.malloc.system.saturating_add(system);
        let mut free = 0;
        let top = self.word(arena + self.layout.top);
        // Before its first chunk, it is the head of a bin.
        if top != arena + self.layout.bins - 16 {
            let size = self.chunk(top).ok_or("the end of a heap is no chunk")?;
            self.places.top.push((top, top + size));
            self.malloc.top = self.malloc.top.saturating_add(size);
            free += size;
        }
        for bin in 0..BINS {
            let head = arena + self.layout.bins + 16 * bin - 16;
            free = u64::saturating_add(free, self.bin(head));
        }
        if let Some(fast) = self.layout.fast {
            for index in 0..FAST_BINS {
                let first = self.word(arena + fast + 8 * index);
                free = free.saturating_add(self.fast_bin(first, LEAST_CHUNK + 16 * index));
            }
        }
        if free > system {
            return Err("more of it is free than it has");
        }
        self.malloc.free = self.malloc.free.saturating_add(free);
        Ok(())
    }

    /// The size of the chunk at `address`; `None` when that cannot be one.
    fn chunk(&self, address: u64) -> Option<u64> {
        let place = self.memory.place(address)?;
        let word = place.word(8)?;
        let size = word & !FLAGS;
        let fits = size >= 16 && size.is_multiple_of(16) && word & MAPPED == 0;
        (fits && address.is_multiple_of(16) && size <= place.room()).then_some(size)
    }

    /// Bytes of the chunks of a bin.
    fn bin(&mut self, head: u64) -> u64 {
        let (mut before, mut chunk) = (head, self.word(head + 16));
        let mut bytes = 0u64;
        // Each step takes a chunk that knows the one before, so there are no more than the image has room for.
        let mut left = self.captured.image.size() / LEAST_CHUNK;
        while chunk != head {
            let size = self.chunk(chunk).filter(|size| {
                left > 0 && self.word(chunk + 24) == before && self.word(chunk + size) == *size
            });
            let Some(size) = size else {
                self.malloc.torn += 1;
                break;
            };
            left -= 1;
            self.places.free.push((chunk, chunk + size));
            bytes = bytes.saturating_add(size);
            (before, chunk) = (chunk, self.word(chunk + 16));
        }
        bytes
    }

    /// Bytes of the chunks of a fast bin, all of `size`.
    fn fast_bin(&mut self, first: u64, size: u64) -> u64 {
        let is_one = |chunk: u64| self.chunk(chunk) == Some(size);
        let mut found = Vec::new();
        let (mut chunk, mut known) = (first, FxHashSet::default());
        while chunk != 0 {
            if !is_one(chunk) || !known.insert(chunk) {
                self.malloc.torn += 1;
                break;
            }
            found.push((chunk, chunk + size));
            let word = self.word(chunk + 16);
            let masked = unmasked(chunk + 16, word);
            chunk = match word {
                0 => 0,
                word if masked != 0 && !is_one(masked) => word,
                _ => masked,
            };
        }
        let bytes = size * found.len() as u64;
        self.places.free.append(&mut found);
        bytes
    }

    /// Blocks with a mapping of their own: their first page begins with a chunk's head that says so.
    fn mapped_blocks(&mut self, pools: &[Range]) {
        const PAGE: u64 = 4096;
        for mapping in &self.captured.mappings {
            let anonymous = mapping.name.is_empty() || mapping.name.starts_with("[anon");
            if !anonymous || !mapping.permissions.starts_with("rw-p") {
                continue;
            }
            let mut page = mapping.start;
            while page < mapping.end {
                let place = self.memory.place(page);
                let (padding, size) =
                    place.map_or((1, 0), |place| (place.word_or_0(0), place.word_or_0(8)));
                let bytes = (size & !FLAGS).saturating_add(self.layout.mapped);
                let fits = size & FLAGS == MAPPED
                    && !holds(pools, page)
                    && padding == 0
                    && size & !FLAGS != 0
                    && bytes.is_multiple_of(PAGE)
                    && bytes <= mapping.end - page;
                if fits {
                    self.places.mapped.push((page, page + bytes));
                    self.malloc.mapped += bytes;
                    self.malloc.mapped_blocks += 1;
                }
                page += if fits { bytes } else { PAGE };
            }
        }
    }
}

/// Lets go of ranges that overlap one before them.
pub(super) fn disjoint(ranges: &mut Vec<Range>) {
    let mut end = 0;
    ranges.retain(|range| {
        let fits = range.0 >= end;
        if fits {
            end = range.1;
        }
        fits
    });
}

/// Whether `address` is in one of `ranges`, which are sorted and disjoint.
fn holds(ranges: &[Range], address: u64) -> bool {
    let after = ranges.partition_point(|range| range.0 <= address);
    let range = after.checked_sub(1).and_then(|at| ranges.get(at));
    range.is_some_and(|range| address < range.1)
}

/// Bytes that are in `ranges` and in `others` and within `bounds`; both are sorted and disjoint.
pub(super) fn common(ranges: &[Range], others: &[Range], bounds: Range) -> u64 {
    let within = |ranges: &[Range]| {
        let from = ranges.partition_point(|range| range.1 <= bounds.0);
        let to = ranges.partition_point(|range| range.0 < bounds.1);
        from..to.max(from)
    };
    let ranges = ranges.get(within(ranges)).unwrap_or_default();
    let others = others.get(within(others)).unwrap_or_default();
    let (mut left, mut right, mut bytes) = (0, 0, 0);
    while let (Some(one), Some(other)) = (ranges.get(left), others.get(right)) {
        let from = one.0.max(other.0).max(bounds.0);
        let to = one.1.min(other.1).min(bounds.1);
        bytes += to.saturating_sub(from);
        if one.1 < other.1 {
            left += 1;
        } else {
            right += 1;
        }
    }
    bytes
}
