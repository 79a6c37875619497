//! Where the resident memory of a process is: Python objects, the allocators' slack, C's heap, files, stacks.
//!
//! Every mapping's resident bytes (`Rss` of `/proc/PID/smaps`) go to exactly one row, so the rows add up to what the
//! kernel says. Mappings with pools of pymalloc are split: blocks that hold a reachable object, other blocks in use (the storage
//! of dicts, lists and sets up to 512 bytes, what C code asked for, and objects that nothing reaches), free blocks of pools
//! in use, free pools. What was never touched is taken to be in free pools first, then in what is no arena.

use super::Heap;
use super::graph::Graph;
use super::pymalloc::{self, Pool};
use super::roots;
use crate::error::{Error, ErrorKind, Result};
use crate::target::image::{Captured, Mapping, Span};

/// What a row is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// Blocks of pymalloc that hold a reachable object.
    Objects,
    /// Other blocks of pymalloc in use.
    OtherBlocks,
    /// Free blocks in pools that are in use.
    FreeBlocks,
    /// Pools without a block in use.
    FreePools,
    /// `[heap]`: malloc's main arena.
    MainHeap,
    /// malloc's arenas of other threads.
    ThreadHeaps,
    /// Anonymous memory else: blocks that malloc mapped (large lists, dicts, strings, numpy's data), and C's own.
    LargeBlocks,
    /// Stacks.
    Stacks,
    /// Written data of the program and its libraries.
    ProgramData,
    /// Pages of files, shared with who maps them too: code, constants, mapped data.
    Files,
    /// Shared memory.
    Shared,
    /// Mappings of the kernel's.
    Kernel,
}

impl Part {
    /// All parts, in the order in which they are shown.
    pub const ALL: [Part; 12] = [
        Part::Objects,
        Part::OtherBlocks,
        Part::FreeBlocks,
        Part::FreePools,
        Part::MainHeap,
        Part::ThreadHeaps,
        Part::LargeBlocks,
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
            Part::OtherBlocks => "pymalloc-other",
            Part::FreeBlocks => "pymalloc-free-blocks",
            Part::FreePools => "pymalloc-free-pools",
            Part::MainHeap => "malloc-heap",
            Part::ThreadHeaps => "malloc-thread-heaps",
            Part::LargeBlocks => "large-blocks",
            Part::Stacks => "stacks",
            Part::ProgramData => "program-data",
            Part::Files => "files",
            Part::Shared => "shared",
            Part::Kernel => "kernel",
        }
    }

    /// What it is, in words.
    pub fn description(self) -> &'static str {
        match self {
            Part::Objects => "reachable Python objects in pymalloc's blocks",
            Part::OtherBlocks => {
                "other pymalloc blocks in use: small storage of dicts, lists and sets; C code; unreachable objects"
            }
            Part::FreeBlocks => "free blocks in pymalloc's pools",
            Part::FreePools => "free pools in pymalloc's arenas",
            Part::MainHeap => "malloc's heap",
            Part::ThreadHeaps => "malloc's heaps of other threads",
            Part::LargeBlocks => {
                "other anonymous memory: large blocks of Python (over 512 bytes) and C, numpy data"
            }
            Part::Stacks => "stacks",
            Part::ProgramData => "data of the program and its libraries",
            Part::Files => "files mapped: code, constants, data",
            Part::Shared => "shared memory",
            Part::Kernel => "the kernel's mappings",
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

    fn add(&mut self, part: Part, bytes: u64) {
        let at = Part::ALL.iter().position(|known| *known == part);
        if let Some(place) = at.and_then(|at| self.parts.get_mut(at)) {
            *place = place.saturating_add(bytes);
        }
    }
}

/// How pymalloc cuts memory up (Objects/obmalloc.c; pycore_obmalloc.h from 3.10 on with `WITH_PYMALLOC_RADIX_TREE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sizes {
    arena: u64,
    pool: u64,
}

/// Part of a mapping that belongs to pymalloc.
#[derive(Debug, Clone, Copy, Default)]
struct Share {
    /// Bytes of its arenas.
    arenas: u64,
    /// Bytes of its pools in use, their heads included.
    used_pools: u64,
    /// Bytes of blocks that hold reachable objects.
    objects: u64,
    /// Bytes of all blocks in use.
    blocks: u64,
}

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
        let sizes = Sizes {
            arena: self.layout.arena_size,
            pool: self.layout.pool_size,
        };
        Ok(account(captured, graph, sizes, &roots::idents(self)))
    }
}

fn account(captured: &Captured, graph: &Graph, sizes: Sizes, idents: &[u64]) -> Account {
    let anonymous = |span: &&Span| {
        captured.mappings.iter().any(|mapping| {
            may_have_pools(mapping) && mapping.start < span.end() && span.start() < mapping.end
        })
    };
    let pools = pymalloc::pools(captured.image.spans().iter().filter(anonymous), sizes.pool);
    let mut account = Account {
        rss: captured.rss,
        ..Account::default()
    };
    let mut before: Option<&Mapping> = None;
    for mapping in &captured.mappings {
        account.swap = account.swap.saturating_add(mapping.swap);
        let guard = before.is_some_and(|before| {
            before.end == mapping.start && before.permissions.starts_with("---")
        });
        let part = kind(mapping, guard, idents);
        if part == Part::LargeBlocks || part == Part::MainHeap {
            let share = share(mapping, &pools, graph, sizes);
            split(&mut account, mapping, part, share);
        } else {
            account.add(part, mapping.rss);
        }
        before = Some(mapping);
    }
    let numpy: Vec<bool> = graph
        .types
        .iter()
        .map(|found| graph.name(found.name) == "numpy.ndarray")
        .collect();
    for (size, type_id) in graph.sizes.iter().zip(&graph.type_ids) {
        account.objects_bytes = account.objects_bytes.saturating_add(*size);
        if numpy.get(*type_id as usize).copied().unwrap_or(false) {
            account.numpy_bytes = account.numpy_bytes.saturating_add(*size);
        }
    }
    account
}

fn may_have_pools(mapping: &Mapping) -> bool {
    mapping.permissions.starts_with("rw-p")
        && (mapping.name.is_empty()
            || mapping.name == "[heap]"
            || mapping.name.starts_with("[anon"))
}

/// malloc gives other threads heaps that begin at a multiple of this (glibc, malloc/arena.c, HEAP_MAX_SIZE).
const THREAD_HEAP: u64 = 64 << 20;

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
        _ if mapping.start.is_multiple_of(THREAD_HEAP)
            && mapping.end - mapping.start <= THREAD_HEAP =>
        {
            Part::ThreadHeaps
        }
        _ => Part::LargeBlocks,
    }
}

/// What of a mapping is pymalloc's.
fn share(mapping: &Mapping, pools: &[Pool], graph: &Graph, sizes: Sizes) -> Share {
    let from = pools.partition_point(|pool| pool.start < mapping.start);
    let to = pools.partition_point(|pool| pool.start < mapping.end);
    let inside = pools.get(from..to).unwrap_or_default();
    let mut share = Share::default();
    let mut arena_end = 0;
    for pool in inside {
        let end = (pool.start + sizes.pool).min(mapping.end);
        share.used_pools += sizes.pool;
        share.blocks += u64::from(pool.used) * u64::from(pool.block);
        if pool.start >= arena_end {
            // The first pool in use of an arena, or of what is left of one.
            arena_end = (pool.start + sizes.arena).min(mapping.end);
            share.arenas += arena_end - pool.start;
        }
        share.objects += objects_in(pool, end, graph, sizes);
    }
    share
}

/// Bytes of the blocks of a pool in which a reachable object begins.
fn objects_in(pool: &Pool, end: u64, graph: &Graph, sizes: Sizes) -> u64 {
    let from = graph
        .addresses
        .partition_point(|address| *address < pool.start);
    let mut blocks = 0u64;
    let mut last = None;
    for address in graph.addresses.get(from..).unwrap_or_default() {
        if *address >= end {
            break;
        }
        let block = pool.block_of(*address, sizes.pool);
        if block.is_some() && block != last {
            blocks += 1;
            last = block;
        }
    }
    blocks.min(u64::from(pool.used)) * u64::from(pool.block)
}

/// Gives the resident bytes of a mapping to its parts.
fn split(account: &mut Account, mapping: &Mapping, part: Part, share: Share) {
    let mut left = mapping.rss;
    let mut give = |part: Part, bytes: u64| {
        let bytes = bytes.min(left);
        left -= bytes;
        account.add(part, bytes);
    };
    give(Part::Objects, share.objects);
    give(
        Part::OtherBlocks,
        share.blocks.saturating_sub(share.objects),
    );
    give(
        Part::FreeBlocks,
        share.used_pools.saturating_sub(share.blocks),
    );
    let size = mapping.end.saturating_sub(mapping.start);
    give(part, size.saturating_sub(share.arenas));
    give(Part::FreePools, u64::MAX);
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
        let heap = mapping(THREAD_HEAP, THREAD_HEAP + 0x21000, "rw-p", "", 1);
        assert_eq!(kind(&heap, false, &[]), Part::ThreadHeaps);
    }

    #[test]
    fn parts_add_up_to_what_is_resident() {
        let mut account = Account::default();
        let share = Share {
            arenas: 1 << 20,
            used_pools: 400_000,
            objects: 100_000,
            blocks: 300_000,
        };
        let whole = mapping(0, 2 << 20, "rw-p", "", 2 << 20);
        split(&mut account, &whole, Part::LargeBlocks, share);
        assert_eq!(account.total(), 2 << 20);
        assert_eq!(account.of(Part::Objects), 100_000);
        assert_eq!(account.of(Part::OtherBlocks), 200_000);
        assert_eq!(account.of(Part::FreeBlocks), 100_000);
        assert_eq!(account.of(Part::LargeBlocks), 1 << 20);
        assert_eq!(account.of(Part::FreePools), (1 << 20) - 400_000);
        // Hardly anything of it was ever touched.
        let mut account = Account::default();
        let touched = mapping(0, 2 << 20, "rw-p", "", 350_000);
        split(&mut account, &touched, Part::LargeBlocks, share);
        assert_eq!(account.total(), 350_000);
        assert_eq!(account.of(Part::FreePools), 0);
    }
}
