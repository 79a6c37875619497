//! No file, however it was damaged or made up, makes the reader of snapshots panic or take memory out of
//! proportion to the file. A binary of its own: its allocator counts.
//!
//! The files are taken apart and put together here by the words of the format's description, without the crate's
//! own code, with checksums that fit: what the reader then meets are contents that no writer would write.

// What a test did not expect is its failure, in what several tests share too.
#![allow(
    missing_docs,
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    clippy::unwrap_used
)]

#[path = "heap/graphs.rs"]
mod graphs;

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use biopsy::error::{Error, ErrorKind};
use biopsy::heap::census::Counting;
use biopsy::heap::graph::{Label, Root};
use biopsy::heap::store::{self, Reader};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

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

/// What the most memory is for each byte of a file: a name, say, is a `String` of 24 bytes and what it holds, and
/// the vector of them doubles. The worst that was seen is 49.
const FACTOR: usize = 64;

/// Memory beside that: the decompressor's, and what errors say.
const SLACK: usize = 1 << 20;

/// How reading `data` in every way ends, and the most memory that it took.
fn read(data: &[u8]) -> (Result<(), Error>, usize) {
    let before = NOW.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let result = catch_unwind(AssertUnwindSafe(|| {
        let mut reader = Reader::new(Cursor::new(data))?;
        let census = reader.census(Counting::Reachable).map(drop);
        let objects = reader.for_each_object(|_, _| Ok(()));
        let graph = reader.graph().map(drop);
        census.and(objects).and(graph)
    }));
    let most = PEAK.load(Ordering::Relaxed) - before;
    (result.expect("no panic"), most)
}

fn judge(what: &str, data: &[u8]) -> bool {
    let (result, memory) = read(data);
    let most = FACTOR * data.len() + SLACK;
    assert!(
        memory <= most,
        "{what}: {memory} bytes for a file of {}",
        data.len()
    );
    if let Err(error) = &result {
        let known = [ErrorKind::BadFile, ErrorKind::NotAvailable].contains(&error.kind());
        assert!(known, "{what}: {error}");
        let text = error.to_string();
        assert!(
            error.kind() != ErrorKind::BadFile || text.contains("(at byte "),
            "{what}: {text}"
        );
    }
    result.is_ok()
}

fn small_file() -> Vec<u8> {
    let mut graph = graphs::users(12);
    graph.roots = vec![
        (3, Root::Module(1)),
        (
            1,
            Root::Frame {
                thread: 7,
                depth: 2,
                function: 0,
                local: Some(4),
            },
        ),
        (5, Root::Interpreter(2)),
        (0, Root::StaticType),
        (9, Root::Tracked),
    ];
    graph.shapes[1].labels = vec![Label::Found, Label::Local(1), Label::Field(2)];
    graph.texts = vec![(1, 1), (4, 0), (17, 3)];
    graph.types[0].object = Some(2);
    let head = graphs::head();
    let census = graphs::census(&head, Counting::Reachable, graphs::rows(&graph));
    let mut out = Vec::new();
    store::write(&head, &[census], &graph, &mut out).expect("writes");
    out
}

/// Kinds and raw contents of all blocks, the index included.
fn take_apart(data: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let number = |at: usize| u32::from_le_bytes(data[at..at + 4].try_into().expect("four"));
    let (mut at, mut blocks) = (12, Vec::new());
    while at < data.len() - 16 {
        let (kind, stored, raw) = (number(at), number(at + 4) as usize, number(at + 8) as usize);
        let stored = &data[at + 16..at + 16 + stored];
        let contents = zstd::bulk::decompress(stored, raw).expect("unpacks");
        blocks.push((kind, contents));
        at += 16 + stored.len();
    }
    blocks
}

fn put_block(out: &mut Vec<u8>, kind: u32, raw: &[u8], least: usize) -> u64 {
    let mut stored = zstd::bulk::compress(raw, 3).expect("packs");
    let least = least.max(raw.len().saturating_sub(4096).div_ceil(64));
    if stored.len() < least {
        // A skippable frame.
        let missing = least - stored.len();
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

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A column: the first varint byte of every value, then the second of each that has one, and so on.
fn put_column(out: &mut Vec<u8>, values: &[u64]) {
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

/// A file of these blocks, with an index that says so and counts rows as `totals` does.
fn put_together(blocks: &[(u32, Vec<u8>)], totals: &[u64; 7], least: usize) -> Vec<u8> {
    let mut out = b"BIOPSYHP\x01\0\0\0".to_vec();
    let lengths: Vec<u64> = blocks
        .iter()
        .map(|(kind, raw)| put_block(&mut out, *kind, raw, if *kind == 1 { 0 } else { least }))
        .collect();
    let index = out.len() as u64;
    let mut raw = Vec::new();
    for &total in totals {
        put_varint(&mut raw, total);
    }
    put_varint(&mut raw, blocks.len() as u64);
    let kinds: Vec<u64> = blocks.iter().map(|(kind, _)| u64::from(*kind)).collect();
    put_column(&mut raw, &kinds);
    put_column(&mut raw, &lengths);
    put_block(&mut out, 0, &raw, 0);
    out.extend(index.to_le_bytes());
    out.extend(b"BIOPSYHE");
    out
}

/// The totals that stand at the start of an index.
fn totals(index: &[u8]) -> [u64; 7] {
    let mut bytes = index.iter();
    [(); 7].map(|()| {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = *bytes.next().expect("a byte");
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    })
}

fn mutate(bytes: &mut Vec<u8>, random: &mut SmallRng) {
    if bytes.is_empty() {
        bytes.push(random.random());
        return;
    }
    let at = random.random_range(0..bytes.len());
    match random.random_range(0..6) {
        0 => bytes[at] ^= 1 << random.random_range(0..8),
        1 => bytes[at] = random.random(),
        2 => bytes[at] = [0, 0x7f, 0x80, 0xff][random.random_range(0..4)],
        3 => bytes.truncate(at),
        4 => bytes.insert(at, random.random()),
        _ => {
            bytes.splice(at..at, [0xff; 9]);
        }
    }
}

/// One test: another one beside it would be counted too.
#[test]
fn no_file_does_harm() {
    let data = small_file();
    assert!(judge("whole", &data));
    let blocks = take_apart(&data);
    let (index, parts) = blocks.split_last().expect("blocks");
    let right = totals(&index.1);
    assert!(judge("put together", &put_together(parts, &right, 100)));
    let mut random = SmallRng::seed_from_u64(15);
    for _ in 0..5000 {
        let mut damaged = data.clone();
        for _ in 0..random.random_range(1..4) {
            mutate(&mut damaged, &mut random);
        }
        assert!(damaged == data || !judge("damaged", &damaged));
    }
    let mut taken = 0;
    for _ in 0..20_000 {
        let mut parts = parts.to_vec();
        let mut totals = right;
        for _ in 0..random.random_range(1..4) {
            let at = random.random_range(0..parts.len());
            match random.random_range(0..20) {
                0 => {
                    parts.remove(at);
                }
                1 => parts.push(parts[at].clone()),
                2 => {
                    totals[random.random_range(0..7)] =
                        random.random::<u64>() >> random.random_range(0..64)
                }
                3 => parts[at].0 = random.random_range(0..14),
                _ => mutate(&mut parts[at].1, &mut random),
            }
            if parts.is_empty() {
                break;
            }
        }
        taken += usize::from(judge("made up", &put_together(&parts, &totals, 100)));
    }
    // Otherwise all were refused at the door.
    assert!((200..18_000).contains(&taken), "{taken} were taken");
    bombs(&parts[0].1);
    objects_one_by_one_take_little();
}

/// Objects are read in memory that does not grow with their number.
fn objects_one_by_one_take_little() {
    let graph = graphs::users(60_000);
    assert!(graph.len() > 450_000);
    let mut data = Vec::new();
    store::write(&graphs::head(), &[], &graph, &mut data).expect("writes");
    drop(graph);
    let before = NOW.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let mut reader = Reader::new(Cursor::new(&data)).expect("opens");
    let mut count = 0;
    let counted = reader.for_each_object(|_, _| {
        count += 1;
        Ok(())
    });
    counted.expect("objects");
    assert!(count > 450_000);
    let most = PEAK.load(Ordering::Relaxed) - before;
    assert!(most < 16 << 20, "{most} bytes");
}

/// Small files that say that they are large.
fn bombs(head: &[u8]) {
    let head = (1, head.to_vec());
    let rows = 4 << 20;
    let mut raw = Vec::new();
    put_varint(&mut raw, rows);
    raw.resize(raw.len() + rows as usize, 0);
    let huge = u64::MAX >> 8;
    // Empty names, shapes, roots: few bytes each in the file, many in memory.
    for (kind, place) in [
        (5, 0),
        (6, 1),
        (7, 2),
        (8, 3),
        (9, 4),
        (10, 5),
        (11, 6),
        (4, 0),
        (2, 0),
        (3, 0),
    ] {
        for total in [0, rows, huge] {
            let mut totals = [0; 7];
            totals[place] = total;
            let file = put_together(&[head.clone(), (kind, raw.clone())], &totals, 0);
            assert!(file.len() < 100_000);
            let is_table = (5..=11).contains(&kind);
            let (result, _) = read(&file);
            assert!(result.is_err() || !is_table, "{kind} {total}");
            judge("a bomb", &file);
        }
    }
    // As many empty names as a file may have.
    let rows = 200_000;
    let mut raw = Vec::new();
    put_varint(&mut raw, rows);
    raw.resize(raw.len() + rows as usize, 0);
    let names = put_together(
        &[head.clone(), (5, raw)],
        &[rows, 0, 0, 0, 0, 0, 0],
        rows as usize,
    );
    let mut reader = Reader::new(Cursor::new(&names)).expect("opens");
    assert_eq!(reader.graph().expect("names").names.len(), rows as usize);
    judge("names", &names);
    // As many blocks as a file may have.
    let many = vec![(77, Vec::new()); 50_000];
    judge(
        "blocks",
        &put_together(&[&[head][..], &many].concat(), &[0; 7], 0),
    );
}
