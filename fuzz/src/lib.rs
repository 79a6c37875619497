//! What the targets share: memory that is counted, and files of blocks that are put together from their contents.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator, counted.
struct Counted;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed on to the system's allocator as it came; the counters touch no memory of it.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above; the memory came from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counted = Counted;

/// Memory that a reader may take beside what the bytes justify: a decompressor's, and what errors say.
const SLACK: usize = 4 << 20;

/// Runs `read`, which may take `factor` bytes of memory for each of `length`.
pub fn bounded<T>(length: usize, factor: usize, read: impl FnOnce() -> T) -> T {
    bounded_but(SLACK, length, factor, read)
}

/// The same of a reader that may take `slack` bytes however short the file is.
pub fn bounded_but<T>(slack: usize, length: usize, factor: usize, read: impl FnOnce() -> T) -> T {
    let before = NOW.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let result = read();
    let most = PEAK.load(Ordering::Relaxed) - before;
    assert!(
        most <= length * factor + slack,
        "{most} bytes of memory for {length} bytes"
    );
    result
}

/// A file of blocks in the form that targets take, which has no checksums, no lengths and no compression to get wrong: totals of the
/// index (16 bits each), then kind (8 bits), length (16 bits) and contents of each block.
#[derive(Debug, Default)]
pub struct Parts {
    /// What the index says of the numbers of rows; none in a recording.
    pub totals: Vec<u64>,
    /// Kinds and contents.
    pub blocks: Vec<(u32, Vec<u8>)>,
}

impl Parts {
    /// What `data` means; what is cut short ends where the data does.
    pub fn read(mut data: &[u8], totals: usize) -> Parts {
        let mut take = |count: usize| {
            let (taken, rest) = data.split_at(count.min(data.len()));
            data = rest;
            taken
        };
        let half = |bytes: &[u8]| {
            let two = [bytes.first(), bytes.get(1)].map(|byte| byte.copied().unwrap_or(0));
            usize::from(u16::from_le_bytes(two))
        };
        let totals = (0..totals).map(|_| half(take(2)) as u64).collect();
        let mut blocks = Vec::new();
        while let [kind, length @ ..] = take(3)
            && !length.is_empty()
        {
            blocks.push((u32::from(*kind), take(half(length)).to_vec()));
        }
        Parts { totals, blocks }
    }
}

/// Appends a block of the format that `src/blocks/mod.rs` describes; gives its length.
pub fn put_block(out: &mut Vec<u8>, kind: u32, raw: &[u8]) -> u64 {
    let mut stored = zstd::bulk::compress(raw, 1).expect("packs");
    let least = raw.len().saturating_sub(4096).div_ceil(64);
    if let Some(missing) = least
        .checked_sub(stored.len())
        .filter(|missing| *missing > 0)
    {
        stored.extend(0x184d_2a50_u32.to_le_bytes());
        stored.extend((missing as u32).to_le_bytes());
        stored.resize(stored.len() + missing, 0);
    }
    let begin = out.len();
    for number in [kind, stored.len() as u32, raw.len() as u32] {
        out.extend(number.to_le_bytes());
    }
    let mut crc = crc32fast::Hasher::new();
    crc.update(&out[begin..]);
    crc.update(&stored);
    out.extend(crc.finalize().to_le_bytes());
    out.extend(stored);
    (out.len() - begin) as u64
}

/// Appends a number in LEB128.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a column: the first varint byte of every value, then the second of each that has one, and so on.
pub fn put_column(out: &mut Vec<u8>, values: &[u64]) {
    let mut open = values.to_vec();
    while !open.is_empty() {
        out.extend(
            open.iter()
                .map(|v| (v & 0x7f) as u8 | u8::from(*v >= 0x80) << 7),
        );
        open.retain(|v| *v >= 0x80);
        open.iter_mut().for_each(|v| *v >>= 7);
    }
}

/// Writes what was read in every form that shows a tree of it: what a file says must not only be read.
pub fn show(profile: &biopsy::profile::Profile) {
    for name in [
        "json",
        "collapsed",
        "pstats",
        "callgrind",
        "lprof",
        "biopsy",
    ] {
        let format = biopsy::formats::registry::by_name(name).expect("known");
        let exporter = format.exporter().expect("written");
        // Not every profile has what every format shows.
        let _ = exporter.export(profile, &Default::default(), &mut std::io::sink());
    }
}
