//! biopsy's snapshot of a heap, `.heap`: a head, summaries that are ready to print, and the whole [`Graph`].
//!
//! Format version 1. All fixed-size numbers are little-endian; a *varint* is LEB128 (7 bits a byte, lowest
//! first, high bit set on all but the last byte, at most 64 bits), *zigzag* maps 0, -1, 1, -2 … to 0, 1, 2,
//! 3 …; *text* is a varint length in bytes and UTF-8, at most 1 MiB; *option* is u8 0, or u8 1 and the value.
//!
//! ```text
//! file    magic "BIOPSYHP" (8), version u32, blocks, of which INDEX is the last and HEAD the first; footer
//! block   as `blocks/mod.rs` says: kind u32, stored u32, raw u32, crc u32, zstd frames; raw is at most
//!         64 MiB, and rows (SHAPES: rows and labels) at most 1 a byte of the block with its head, in
//!         OBJECTS 2, in REFERENCES and BLOCKS 8 (a writer that packs better pads), and at most 2^18 where columns
//!         are; so that the size of the file bounds what a reader has to allocate
//! footer  offset of INDEX u64, magic "BIOPSYHE" (8)
//! ```
//!
//! A reader goes by the index: it takes the blocks that it needs, skips kinds that it does not know, and
//! ignores bytes after the last field that it knows of HEAD and INDEX. Rows of one table may be spread over
//! several blocks; an id is a row's position in its table. Raw contents by kind:
//!
//! ```text
//! 0 INDEX      varints: number of names, types, shapes, objects, references, roots, texts; varint n, columns:
//!              kind, length (with its head) of the n blocks before this one, which stand without a gap
//! 1 HEAD       once: text python; option zigzag pid; option varint started; text command; taken_at: zigzag
//!              seconds since 1970, varint nanoseconds; held u8 (0 stopped, and varint nanoseconds; 1
//!              running, 2 already, 3 core); option varint rss; flags u8 (1 values); varints torn,
//!              unreadable, conservative
//! 2 MAPPINGS   varint n, n times: varints start, end; texts permissions, name; varints rss, private,
//!              anonymous, swap
//! 3 THREADS    varint n, n times: zigzag tid, text name
//! 4 CENSUS     counting u8 (0 reachable, 1 muppy); varints torn, unreadable, conservative; varint n, n times:
//!              text name, varints objects, bytes. One summary may have several such blocks.
//! 5 NAMES      varint n, n texts
//! 6 TYPES      varint n, columns: name, object (0 for none, else 1 + id)
//! 7 SHAPES     varint n, n times: rest u8 (0 nothing, 1 items, 2 pairs, 3 members), varint m, m labels: u8
//!              (0 found, 1 attribute, 2 field, 3 local), and varint name but after 0
//! 8 OBJECTS    varint n, varint first address, u8 shift, columns:
//!              (address - address before) >> shift, 0 for the first of the block; type; size and refcount
//!              (zigzag of the difference to the object of that type before, 0 before the first); flags;
//!              shape (0 as the object of that type before, else 1 + id); number of references (zigzag of the
//!              difference to the object of that shape before, 0 before the first)
//! 9 REFERENCES varint n, column: zigzag of target - guess. They stand in the order of their objects, and are
//!              cut into blocks anywhere. The guess is the target that the object of this shape before had in
//!              this place, for the first labels + 4 places; behind these the target one place before, or two
//!              in pairs; 0 where there is none.
//! 10 ROOTS     varint n, n times: zigzag of the difference to the object before; u8 (0 module, and varint name;
//!              1 frame, and zigzag thread, varints depth, function, 0 or 1 + name of the local; 2 interpreter,
//!              and varint name; 3 static type; 4 tracked, or garbage when the object's flags say so;
//!              5 thread, and zigzag thread, varint name)
//! 11 TEXTS     varint n, columns: object - object before (all blocks are one row of differences), name
//! 12 CACHES    varint n, n times: varints object, function, file, line, hits, misses, size; option varint limit
//! 13 ACCOUNT    once: varint n, n varints: resident bytes of each part (heap/rss.rs, `Part::ALL`); varint swap; option
//!              varint rss; varints bytes of objects, of numpy arrays
//! 14 BLOCKS    flags u8 (1 with what debug hooks of the allocators add), varint n, column: bytes of all allocators'
//!              blocks of each object, in 16 bytes (zigzag of the difference to the object of that type before, 0
//!              before the first). None in files of biopsies that did not know them.
//! ```
//!
//! A *column* of n values is laid out by bytes: the first varint byte of every value, then the second
//! byte of each value that has one, and so on.

mod file;
mod objects;
mod parts;
mod read;
mod references;
mod write;

use std::io::Read;
use std::path::Path;
use std::time::SystemTime;

pub use self::read::{Counts, ObjectRow, Objects, Reader};
pub use self::write::write;
use super::census::{Census, Counting, Doubts, TypeCount, Unsure};
#[cfg(doc)]
use super::graph::Graph;
use super::rss::Account;
use crate::target::image::{Held, Mapping, ThreadName};

/// What a file begins with.
const MAGIC: &[u8; 8] = crate::target::open::SNAPSHOT_MAGIC;

/// What a file ends with.
const END_MAGIC: &[u8; 8] = b"BIOPSYHE";

/// Bytes of the footer.
const FOOTER: u64 = 16;

/// The format version that is written and read.
const VERSION: u32 = 1;

/// What a file is called in errors about its contents.
const WHAT: &str = "not a whole snapshot";

/// Rows in a block of columns. At 7 columns an object a block takes less than 1 MiB in memory.
const BLOCK_ROWS: usize = 65_536;

/// The most rows that a reader takes in a block of columns.
const MOST_ROWS: usize = 1 << 18;

/// Raw bytes after which a block of rows of varying size is closed.
const BLOCK_BYTES: usize = 1 << 20;

/// The most raw bytes of a block: one row of a large shape may need more than [`BLOCK_BYTES`].
const MOST_RAW: u32 = 64 << 20;

/// The longest text; what is longer is cut.
const MOST_TEXT: usize = 1 << 20;

/// Kinds of blocks.
mod kind {
    pub(super) const INDEX: u32 = 0;
    pub(super) const HEAD: u32 = 1;
    pub(super) const MAPPINGS: u32 = 2;
    pub(super) const THREADS: u32 = 3;
    pub(super) const CENSUS: u32 = 4;
    pub(super) const NAMES: u32 = 5;
    pub(super) const TYPES: u32 = 6;
    pub(super) const SHAPES: u32 = 7;
    pub(super) const OBJECTS: u32 = 8;
    pub(super) const REFERENCES: u32 = 9;
    pub(super) const ROOTS: u32 = 10;
    pub(super) const TEXTS: u32 = 11;
    pub(super) const CACHES: u32 = 12;
    pub(super) const ACCOUNT: u32 = 13;
    pub(super) const BLOCKS: u32 = 14;
    pub(super) const UNSURE: u32 = 15;
}

/// Rows that a block of `kind` may have for each of its bytes, the head included.
fn rows_per_byte(kind: u32) -> u64 {
    match kind {
        kind::OBJECTS => 2,
        kind::REFERENCES | kind::BLOCKS => 8,
        _ => 1,
    }
}

/// What a snapshot says of its process.
#[derive(Debug, Clone, PartialEq)]
pub struct SnapshotHead {
    /// Version of its Python, such as `3.12.1`.
    pub python: String,
    /// The process.
    pub pid: Option<i32>,
    /// When it started, in clock ticks since the machine did (`/proc/PID/stat`): with the PID it says whether
    /// two snapshots are of one process. `None` when not known.
    pub started: Option<u64>,
    /// Its command line without arguments.
    pub command: String,
    /// When the snapshot was taken.
    pub taken_at: SystemTime,
    /// How it was held meanwhile.
    pub held: Held,
    /// Its resident memory, in bytes.
    pub rss: Option<u64>,
    /// Its mappings.
    pub mappings: Vec<Mapping>,
    /// Its threads.
    pub threads: Vec<ThreadName>,
    /// Whether short reprs of values are among the graph's texts.
    pub values: bool,
    /// What was not sure about the graph.
    pub doubts: Doubts,
    /// Where its resident memory was; `None` when that was not asked for.
    pub account: Option<Account>,
}

impl SnapshotHead {
    /// How long the process stood still, in milliseconds; `None` when it was not stopped for the snapshot.
    pub fn pause_ms(&self) -> Option<f64> {
        match self.held {
            Held::Stopped(pause) => Some(pause.as_secs_f64() * 1e3),
            Held::Running | Held::Already | Held::Core => None,
        }
    }

    /// A summary of this process.
    fn census(&self, counting: Counting, types: Vec<TypeCount>, doubts: Doubts) -> Census {
        Census {
            counting,
            python: self.python.clone(),
            pid: self.pid,
            command: self.command.clone(),
            taken_at: self.taken_at,
            pause_ms: self.pause_ms(),
            rss_bytes: self.rss,
            types,
            doubts,
            unsure: Unsure::default(),
        }
    }
}

/// Whether the file at `path` begins as a snapshot does; false for what cannot be read, and for anything
/// that is no regular file.
pub fn is_snapshot(path: &Path) -> bool {
    let mut magic = [0; MAGIC.len()];
    std::fs::metadata(path).is_ok_and(|meta| meta.is_file())
        && std::fs::File::open(path).is_ok_and(|mut file| file.read_exact(&mut magic).is_ok())
        && &magic == MAGIC
}
