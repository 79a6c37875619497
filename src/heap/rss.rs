//! Where the resident memory of a process is: Python objects, the allocators' slack, C's heap, files, stacks.
//!
//! Every mapping's resident bytes (`Rss` of `/proc/PID/smaps`) go to exactly one row, so the rows add up to what the
//! kernel says. Mappings with pools of pymalloc are split by what the blocks are used for (`heap/uses.rs`), free blocks of
//! pools in use, free pools; malloc's heaps by what its arenas say (`heap/malloc.rs`). Blocks in use count as resident as
//! far as their mapping has room; free memory, arenas and large blocks count page by page.

use super::Heap;
use super::graph::Graph;
use super::malloc::{self, HEAP_MAX, Malloc, Places, common};
use super::pymalloc::{self, Pool};
use super::roots;
use super::uses::{Use, Uses};
use crate::error::{Error, ErrorKind, Result};
use crate::target::image::{Mapping, Sharing};
use crate::units::Pid;

/// What a row is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// Blocks of pymalloc that hold an object that a root leads to.
    Objects,
    /// Those that hold an object that only the collector's lists know.
    Garbage,
    /// Those that objects keep their contents in.
    Storage,
    /// Those that look like objects that nothing known refers to.
    Unreferenced,
    /// Other blocks of pymalloc in use.
    OtherBlocks,
    /// Free blocks in pools that are in use.
    FreeBlocks,
    /// Pools without a block in use.
    FreePools,
    /// `[heap]`, malloc's main arena: its blocks in use, or all of it where malloc's state is not known.
    MainHeap,
    /// The same of malloc's arenas of other threads.
    ThreadHeaps,
    /// Data of numpy arrays.
    Numpy,
    /// Blocks that malloc mapped: large lists, dicts, strings, and C's own. All other anonymous memory too where malloc's
    /// state is not known.
    LargeBlocks,
    /// Stacks.
    Stacks,
    /// Pages of files that were copied when the process wrote to them, and data of the program and its libraries.
    ProgramData,
    /// Pages of files as they are, shared with who maps them too: code, constants, mapped data.
    Files,
    /// Shared memory.
    Shared,
    /// Mappings of the kernel's.
    Kernel,
    /// Free blocks of malloc's: in its bins, and in caches of threads.
    MallocFree,
    /// Free memory at the ends of malloc's heaps.
    MallocTop,
    /// Anonymous memory that nobody is known to have asked for.
    Anonymous,
}

impl Part {
    /// All parts, in the order in which snapshots keep them.
    pub const ALL: [Part; 19] = [
        Part::Objects,
        Part::Garbage,
        Part::Storage,
        Part::Unreferenced,
        Part::OtherBlocks,
        Part::FreeBlocks,
        Part::FreePools,
        Part::Numpy,
        Part::MainHeap,
        Part::ThreadHeaps,
        Part::LargeBlocks,
        Part::Stacks,
        Part::ProgramData,
        Part::Files,
        Part::Shared,
        Part::Kernel,
        Part::MallocFree,
        Part::MallocTop,
        Part::Anonymous,
    ];

    /// All parts, in the order in which they are shown.
    pub const SHOWN: [Part; 19] = [
        Part::Objects,
        Part::Garbage,
        Part::Storage,
        Part::Unreferenced,
        Part::OtherBlocks,
        Part::FreeBlocks,
        Part::FreePools,
        Part::Numpy,
        Part::MainHeap,
        Part::ThreadHeaps,
        Part::MallocFree,
        Part::MallocTop,
        Part::LargeBlocks,
        Part::Anonymous,
        Part::Stacks,
        Part::ProgramData,
        Part::Files,
        Part::Shared,
        Part::Kernel,
    ];

    /// The word for it in files.
    pub fn name(self) -> &'static str {
        match self {
            Part::Objects => "pymalloc-objects",
            Part::Garbage => "pymalloc-garbage",
            Part::Storage => "pymalloc-storage",
            Part::Unreferenced => "pymalloc-unreferenced",
            Part::OtherBlocks => "pymalloc-other",
            Part::FreeBlocks => "pymalloc-free-blocks",
            Part::FreePools => "pymalloc-free-pools",
            Part::Numpy => "numpy-data",
            Part::MainHeap => "malloc-heap",
            Part::ThreadHeaps => "malloc-thread-heaps",
            Part::LargeBlocks => "large-blocks",
            Part::Stacks => "stacks",
            Part::ProgramData => "program-data",
            Part::Files => "files",
            Part::Shared => "shared",
            Part::Kernel => "kernel",
            Part::MallocFree => "malloc-free",
            Part::MallocTop => "malloc-top",
            Part::Anonymous => "anonymous",
        }
    }

    /// What it is, in words; unless malloc's heaps are split, they are whole.
    pub fn description(self, is_split: bool) -> &'static str {
        match self {
            Part::MainHeap if !is_split => "malloc's heap: used and free blocks",
            Part::ThreadHeaps if !is_split => {
                "malloc's heaps of other threads: used and free blocks"
            }
            Part::LargeBlocks if !is_split => {
                "other anonymous memory: large blocks of Python (over 512 bytes) and C"
            }
            Part::Objects => "reachable Python objects in pymalloc's blocks",
            Part::Garbage => {
                "Python objects that only the collector knows: not collected yet, or held by C code"
            }
            Part::Storage => "storage of objects in pymalloc's blocks: small dicts, lists and sets",
            Part::Unreferenced => {
                "pymalloc blocks like objects that nothing known refers to: references lost by C code, or held by it"
            }
            Part::OtherBlocks => "other pymalloc blocks in use: C code",
            Part::FreeBlocks => "free blocks in pymalloc's pools",
            Part::FreePools => "free pools in pymalloc's arenas",
            Part::Numpy => "data of numpy arrays",
            Part::MainHeap => "malloc's heap: blocks in use, of Python (over 512 bytes) and C",
            Part::ThreadHeaps => "malloc's heaps of other threads: blocks in use",
            Part::LargeBlocks => "large blocks that malloc mapped, of Python and C: in use",
            Part::Stacks => "stacks",
            Part::ProgramData => {
                "data of the program and its libraries: pages of files, copied on write"
            }
            Part::Files => "files mapped: code, constants, data",
            Part::Shared => "shared memory",
            Part::Kernel => "the kernel's mappings",
            Part::MallocFree => "free blocks in malloc's heaps",
            Part::MallocTop => "free ends of malloc's heaps",
            Part::Anonymous => "other anonymous memory",
        }
    }
}

/// Where the memory is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Account {
    /// Resident bytes of each part, in the order of [`Part::ALL`].
    pub parts: [u64; Part::ALL.len()],
    /// Swapped out, of all parts.
    pub swap: u64,
    /// Resident memory as the kernel counts it for the whole process; `None` where that is not known.
    pub rss: Option<u64>,
    /// `sys.getsizeof` of all reachable objects, in bytes: those in large blocks and their storage included.
    pub objects_bytes: u64,
    /// Of that, the data that numpy arrays own.
    pub numpy_bytes: u64,
    /// What malloc has; `None` in snapshots that were taken before this was read.
    pub malloc: Option<Malloc>,
    /// Who shares the pages; `None` as for `malloc`.
    pub sharing: Option<Pages>,
}

/// Who shares the resident pages of a process. All in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pages {
    /// Each page divided by the number of processes that map it.
    pub pss: u64,
    /// Mapped by this process alone.
    pub private: u64,
    /// Mapped by others too.
    pub shared: u64,
    /// Pages of files that were copied when the process wrote to them.
    pub copied: u64,
    /// In huge pages.
    pub huge: u64,
    /// In pages of hugetlbfs, which the kernel does not count as resident.
    pub hugetlb: u64,
    /// `pss` of each part, in the order of [`Part::ALL`].
    pub parts: [u64; Part::ALL.len()],
}

impl Account {
    /// Resident bytes of all parts.
    pub fn total(&self) -> u64 {
        self.parts.iter().sum()
    }

    /// Resident bytes of one part.
    pub fn of(&self, part: Part) -> u64 {
        let at = Part::ALL.iter().position(|known| *known == part);
        at.and_then(|at| self.parts.get(at)).copied().unwrap_or(0)
    }

    /// Whether malloc's heaps are split into used and free.
    pub fn is_split(&self) -> bool {
        let malloc = self.malloc.as_ref();
        malloc.is_some_and(|malloc| malloc.why.is_none())
    }

    /// The same as [`Account::of`], each page divided by the number of processes that map it; `None` where that is not
    /// known.
    pub fn pss_of(&self, part: Part) -> Option<u64> {
        let at = Part::ALL.iter().position(|known| *known == part)?;
        self.sharing.as_ref()?.parts.get(at).copied()
    }

    /// Counts who shares a mapping, of which each part got what it has more than in `before`.
    fn count_sharing(&mut self, shares: &Sharing, before: &[u64; Part::ALL.len()], rss: u64) {
        let Some(pages) = &mut self.sharing else {
            return;
        };
        for (sum, more) in [
            (&mut pages.pss, shares.pss),
            (&mut pages.private, shares.private),
            (&mut pages.shared, shares.shared),
            (&mut pages.huge, shares.huge),
            (&mut pages.hugetlb, shares.hugetlb),
        ] {
            *sum = sum.saturating_add(more);
        }
        for ((sum, now), before) in pages.parts.iter_mut().zip(&self.parts).zip(before) {
            let bytes = u128::from(now.saturating_sub(*before)) * u128::from(shares.pss);
            let share = bytes / u128::from(rss.max(1));
            *sum = sum.saturating_add(u64::try_from(share).unwrap_or(u64::MAX));
        }
    }

    fn add(&mut self, part: Part, bytes: u64) {
        let at = Part::ALL.iter().position(|known| *known == part);
        if let Some(place) = at.and_then(|at| self.parts.get_mut(at)) {
            *place = place.saturating_add(bytes);
        }
    }
}

/// One process of several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// What it was named as.
    pub name: String,
    /// Which it is; `None` for a snapshot.
    pub process: Option<Pid>,
    /// Its memory.
    pub account: Account,
}

/// Several processes, which may share pages.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Family {
    /// They, in the order in which they were named.
    pub members: Vec<Member>,
    /// Resident bytes with each physical page counted once; `None` where the kernel does not tell which pages they have.
    pub once: Option<u64>,
}

impl Family {
    /// The sum of `of` over all.
    pub fn sum(&self, of: impl Fn(&Account) -> u64) -> u64 {
        let each = self.members.iter().map(|member| of(&member.account));
        each.fold(0, u64::saturating_add)
    }

    /// Each page divided by the number of processes that map it, added up: what all have together as long as no other
    /// process shares their pages, and less if one does.
    pub fn pss(&self) -> u64 {
        self.sum(|account| account.sharing.map_or(0, |pages| pages.pss))
    }

    /// Whether the heaps of malloc of all are split into used and free.
    pub fn is_split(&self) -> bool {
        self.members.iter().all(|member| member.account.is_split())
    }
}

/// Part of a mapping that belongs to pymalloc.
#[derive(Debug, Clone, Copy, Default)]
struct Share {
    /// Resident bytes of its arenas.
    arenas: u64,
    /// Bytes of its pools in use, their heads included.
    used_pools: u64,
    /// Bytes of all blocks in use.
    blocks: u64,
    /// Of those, by use: [`IN_USE`].
    uses: [u64; IN_USE.len()],
    /// Resident bytes of data of numpy arrays.
    numpy: u64,
    /// Resident bytes of malloc's heaps, and what of them is free, in the midst and at the ends.
    heaps: u64,
    free: u64,
    top: u64,
    /// Resident bytes of blocks that malloc mapped; `None` where malloc's state is not known.
    mapped: Option<u64>,
}

/// Uses of blocks that have a row of their own; blocks in use that have none of these are the rest.
const IN_USE: [(Use, Part); 4] = [
    (Use::Object, Part::Objects),
    (Use::Garbage, Part::Garbage),
    (Use::Storage, Part::Storage),
    (Use::Unreferenced, Part::Unreferenced),
];

/// `PyArrayObject.data` (numpy/core/include/numpy/ndarraytypes.h).
const NUMPY_DATA: u32 = 16;

impl Heap<'_> {
    /// Where the resident memory is. Fails for images without sizes of mappings, such as core files.
    pub fn account(&self, graph: &Graph) -> Result<Account> {
        let captured = self.captured();
        if captured.mappings.iter().all(|mapping| mapping.rss == 0) {
            return Err(Error::new(
                ErrorKind::NotAvailable,
                "cannot tell where the resident memory is",
                "a core file does not say what was resident",
            )
            .hint("ask about the living process, or a snapshot of it"));
        }
        let mut pools = pymalloc::pools(
            captured.image.spans().iter().filter(|span| {
                captured.mappings.iter().any(|mapping| {
                    may_have_pools(mapping)
                        && mapping.start < span.end()
                        && span.start() < mapping.end
                })
            }),
            self.layout.pool_size,
        );
        let of_pools: Vec<malloc::Range> = pools
            .iter()
            .map(|pool| (pool.start, pool.start + self.layout.pool_size))
            .collect();
        let (malloc, places) = malloc::read(captured, &self.memory, &of_pools);
        // Arenas have mappings of their own: what looks like a pool in malloc's memory is none.
        pools.retain(|pool| !places.has(pool.start));
        let uses = Uses::of(self, graph, &pools);
        let mut arrays = self.arrays(graph);
        let numpy_bytes = arrays.iter().map(|(start, end)| end - start).sum();
        clip(&mut arrays);
        let idents = roots::idents(self);
        let everywhere = [(0, u64::MAX)];
        let residence = captured.image.residence();
        let found = Found {
            present: residence.map_or(&everywhere[..], |found| &found.present),
            is_split: malloc.why.is_none(),
            places,
            arrays,
        };
        let mut account = Account {
            rss: captured.rss,
            objects_bytes: graph
                .sizes
                .iter()
                .fold(0, |sum, size| sum.saturating_add(*size)),
            numpy_bytes,
            malloc: Some(malloc),
            sharing: residence.map(|_| Pages::default()),
            ..Account::default()
        };
        let sharing = residence.map_or(&[][..], |found| &found.sharing);
        let mut before: Option<&Mapping> = None;
        for (index, mapping) in captured.mappings.iter().enumerate() {
            account.swap = account.swap.saturating_add(mapping.swap);
            let guard = before.is_some_and(|before| {
                before.end == mapping.start && before.permissions.starts_with("---")
            });
            let part = kind(mapping, guard, &idents);
            let parts = account.parts;
            match part {
                Part::LargeBlocks | Part::MainHeap | Part::ThreadHeaps => {
                    let share = self.share(mapping, &pools, &uses, &found);
                    split(&mut account, mapping, part, share);
                }
                Part::ProgramData | Part::Files if mapping.permissions.ends_with('p') => {
                    let copied = mapping.anonymous.min(mapping.rss);
                    account.add(Part::ProgramData, copied);
                    account.add(Part::Files, mapping.rss - copied);
                    if let Some(pages) = &mut account.sharing {
                        pages.copied = pages.copied.saturating_add(copied);
                    }
                }
                _ => account.add(part, mapping.rss),
            }
            let shares = sharing.get(index);
            if let Some(shares) = shares.filter(|shares| shares.start == mapping.start) {
                account.count_sharing(shares, &parts, mapping.rss);
            }
            before = Some(mapping);
        }
        Ok(account)
    }

    /// The data of each numpy array that owns some, by address.
    fn arrays(&self, graph: &Graph) -> Vec<malloc::Range> {
        let is_array: Vec<bool> = graph
            .types
            .iter()
            .map(|kind| graph.name(kind.name) == "numpy.ndarray")
            .collect();
        let mut found: Vec<(u64, u64)> = Vec::new();
        for ((address, type_id), size) in graph
            .addresses
            .iter()
            .zip(&graph.type_ids)
            .zip(&graph.sizes)
        {
            if is_array.get(*type_id as usize).copied().unwrap_or(false) {
                let place = self.memory.place(*address);
                let data = place.and_then(|place| place.word(NUMPY_DATA));
                found.extend(data.map(|data| (data, data.saturating_add(*size))));
            }
        }
        found.sort_unstable();
        found
    }

    /// What of a mapping is pymalloc's.
    fn share(
        &self,
        mapping: &Mapping,
        pools: &[Pool],
        uses: &Uses<'_>,
        found: &Found<'_>,
    ) -> Share {
        let from = pools.partition_point(|pool| pool.start < mapping.start);
        let to = pools.partition_point(|pool| pool.start < mapping.end);
        let places = &found.places;
        let mut share = Share {
            numpy: found.resident(&found.arrays, mapping),
            heaps: found.resident(&places.heaps, mapping),
            free: found.resident(&places.free, mapping),
            top: found.resident(&places.top, mapping),
            mapped: found
                .is_split
                .then(|| found.resident(&places.mapped, mapping)),
            ..Share::default()
        };
        let mut arena_end = 0;
        for (index, pool) in pools.iter().enumerate().take(to).skip(from) {
            share.used_pools += self.layout.pool_size;
            if pool.start >= arena_end {
                // The first pool in use of an arena, or of what is left of one.
                arena_end = (pool.start + self.layout.arena_size).min(mapping.end);
                share.arenas += found.resident(&[(pool.start, arena_end)], mapping);
            }
            let block = u64::from(pool.block);
            for known in uses
                .of_pool(index)
                .iter()
                .filter(|known| **known != Use::Free)
            {
                share.blocks += block;
                let row = IN_USE.iter().position(|(row, _)| row == known);
                if let Some(bytes) = row.and_then(|row| share.uses.get_mut(row)) {
                    *bytes += block;
                }
            }
        }
        share
    }
}

/// Ends each range where the next one begins: the sizes of arrays have their heads in them, which lie elsewhere.
fn clip(ranges: &mut [malloc::Range]) {
    let mut next = u64::MAX;
    for range in ranges.iter_mut().rev() {
        range.1 = range.1.min(next);
        next = range.0;
    }
}

/// Where what was found.
struct Found<'a> {
    /// Runs of resident pages.
    present: &'a [malloc::Range],
    /// Whether malloc's state is known.
    is_split: bool,
    places: Places,
    /// Data of numpy arrays. Large ones lie in several mappings, as numpy asks for huge pages from the first full one on.
    arrays: Vec<malloc::Range>,
}

impl Found<'_> {
    /// Resident bytes of `ranges` in `mapping`.
    fn resident(&self, ranges: &[malloc::Range], mapping: &Mapping) -> u64 {
        common(ranges, self.present, (mapping.start, mapping.end))
    }
}

fn may_have_pools(mapping: &Mapping) -> bool {
    mapping.permissions.starts_with("rw-p")
        && (mapping.name.is_empty()
            || mapping.name == "[heap]"
            || mapping.name.starts_with("[anon"))
}

fn kind(mapping: &Mapping, guard: bool, idents: &[u64]) -> Part {
    let name = mapping.name.as_str();
    let private = mapping.permissions.ends_with('p');
    // The thread's own block, whose address is its ident, lies in the mapping of its stack.
    let has_thread = idents
        .iter()
        .any(|ident| (mapping.start..mapping.end).contains(ident));
    match name {
        "[heap]" => Part::MainHeap,
        "[vdso]" | "[vvar]" | "[vvar_vclock]" | "[vsyscall]" => Part::Kernel,
        _ if name.starts_with("[stack") => Part::Stacks,
        _ if !private => {
            let shared = name.starts_with("/dev/shm/")
                || name.starts_with("/memfd:")
                || name.starts_with("/SYSV")
                || name.starts_with("/dev/zero")
                || name.is_empty();
            if shared { Part::Shared } else { Part::Files }
        }
        _ if name.starts_with('/') => {
            if mapping.permissions.contains('w') {
                Part::ProgramData
            } else {
                Part::Files
            }
        }
        _ if guard && has_thread => Part::Stacks,
        _ if mapping.start.is_multiple_of(HEAP_MAX) && mapping.end - mapping.start <= HEAP_MAX => {
            Part::ThreadHeaps
        }
        _ => Part::LargeBlocks,
    }
}

/// Gives the resident bytes of a mapping to its parts.
fn split(account: &mut Account, mapping: &Mapping, part: Part, share: Share) {
    let mut left = mapping.rss;
    let mut give = |part: Part, bytes: u64| {
        let bytes = bytes.min(left);
        left -= bytes;
        account.add(part, bytes);
    };
    give(Part::MallocTop, share.top);
    give(Part::MallocFree, share.free);
    for ((_, part), bytes) in IN_USE.iter().zip(share.uses) {
        give(*part, bytes);
    }
    give(
        Part::OtherBlocks,
        share.blocks.saturating_sub(share.uses.iter().sum()),
    );
    give(
        Part::FreeBlocks,
        share.used_pools.saturating_sub(share.blocks),
    );
    give(
        Part::FreePools,
        share.arenas.saturating_sub(share.used_pools),
    );
    give(Part::Numpy, share.numpy);
    match (part, share.mapped) {
        (Part::LargeBlocks, Some(mapped)) => {
            let used = share.heaps.saturating_sub(share.free + share.top);
            give(Part::ThreadHeaps, used);
            give(Part::LargeBlocks, mapped.saturating_sub(share.numpy));
            give(Part::Anonymous, u64::MAX);
        }
        (part, _) => give(part, u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(start: u64, end: u64, permissions: &str, name: &str, rss: u64) -> Mapping {
        Mapping {
            start,
            end,
            permissions: permissions.to_string(),
            name: name.to_string(),
            rss,
            ..Mapping::default()
        }
    }

    #[test]
    fn each_mapping_has_its_part() {
        let part = |permissions: &str, name: &str, guard: bool| {
            kind(
                &mapping(0x1000, 0x9000, permissions, name, 1),
                guard,
                &[0x8000],
            )
        };
        assert_eq!(part("rw-p", "[heap]", false), Part::MainHeap);
        assert_eq!(part("rw-p", "[stack]", false), Part::Stacks);
        assert_eq!(part("rw-p", "", true), Part::Stacks);
        assert_eq!(part("rw-p", "", false), Part::LargeBlocks);
        assert_eq!(part("r-xp", "/usr/bin/python3", false), Part::Files);
        assert_eq!(
            part("rw-p", "/usr/lib/libpython3.11.so", false),
            Part::ProgramData
        );
        assert_eq!(part("rw-s", "/dev/shm/x", false), Part::Shared);
        assert_eq!(part("rw-s", "/tmp/data", false), Part::Files);
        assert_eq!(part("r-xp", "[vdso]", false), Part::Kernel);
        let heap = mapping(HEAP_MAX, HEAP_MAX + 0x21000, "rw-p", "", 1);
        assert_eq!(kind(&heap, false, &[]), Part::ThreadHeaps);
    }

    #[test]
    fn parts_add_up_to_what_is_resident() {
        let mut account = Account::default();
        let share = Share {
            arenas: 1 << 20,
            used_pools: 400_000,
            uses: [100_000, 0, 50_000, 0],
            blocks: 300_000,
            numpy: 5000,
            mapped: Some(100_000),
            ..Share::default()
        };
        let whole = mapping(0, 2 << 20, "rw-p", "", 2 << 20);
        split(&mut account, &whole, Part::LargeBlocks, share);
        assert_eq!(account.total(), 2 << 20);
        assert_eq!(account.of(Part::Objects), 100_000);
        assert_eq!(account.of(Part::Storage), 50_000);
        assert_eq!(account.of(Part::OtherBlocks), 150_000);
        assert_eq!(account.of(Part::Numpy), 5000);
        assert_eq!(account.of(Part::FreeBlocks), 100_000);
        assert_eq!(account.of(Part::LargeBlocks), 95_000);
        assert_eq!(account.of(Part::Anonymous), (1 << 20) - 100_000);
        assert_eq!(account.of(Part::FreePools), (1 << 20) - 400_000);
        // Hardly anything of it was ever touched.
        let mut account = Account::default();
        let touched = mapping(0, 2 << 20, "rw-p", "", 350_000);
        split(&mut account, &touched, Part::LargeBlocks, share);
        assert_eq!(account.total(), 350_000);
        assert_eq!(account.of(Part::FreePools), 0);
    }
}
