//! Blocks of our binary files: bytes that are compressed, checked, and bounded in what they unpack to.
//!
//! ```text
//! block   kind u32, stored u32, raw u32, crc u32 (little-endian), then `stored` bytes
//!         crc: CRC-32 (IEEE) of kind, stored and raw as they stand in the file and of the stored bytes
//!         stored bytes: one or more zstd frames (RFC 8878) which decompress to `raw` bytes together;
//!         raw <= 64 * stored + 4096 (a writer that packs better pads with a skippable frame), so that
//!         the size of the file bounds what a reader has to allocate
//! ```

pub mod bytes;

use zstd::bulk::{Compressor, Decompressor};

use self::bytes::put_column;
use crate::error::{Error, ErrorKind, Result};

/// Bytes before a block's contents.
pub const BLOCK_HEAD: usize = 16;

/// Raw bytes for each stored one that a block may have. Runs of a busy server pack to less than half;
/// what packs to a 64th says next to nothing.
const MAX_RATIO: u64 = 64;

/// Raw bytes that a block may have beyond the ratio: small blocks of equal bytes pack well.
const RATIO_SLACK: u64 = 4096;

/// Parts smaller than this are packed together with the next: a zstd frame of its own has a header and
/// code tables.
const PART_BYTES: usize = 4096;

/// zstd's default: columns of noise leave nothing for a longer search to find.
const LEVEL: i32 = 3;

/// The most that `stored` bytes may unpack to.
pub fn most_raw(stored: u64) -> u64 {
    stored.saturating_mul(MAX_RATIO).saturating_add(RATIO_SLACK)
}

/// Gathers the contents of one block after the other and packs them.
pub struct Packer {
    compressor: Compressor<'static>,
    /// What is written, for errors.
    what: &'static str,
    /// Contents of the block that is being made.
    pub raw: Vec<u8>,
    /// Where in `raw` bytes of another distribution begin.
    pub cuts: Vec<usize>,
}

impl Packer {
    /// A packer for the file `what`.
    pub fn new(what: &'static str) -> Result<Packer> {
        Ok(Packer {
            compressor: Compressor::new(LEVEL).map_err(|error| Error::write(what, &error))?,
            what,
            raw: Vec::new(),
            cuts: Vec::new(),
        })
    }

    /// Appends a column; `values` is used up.
    pub fn column(&mut self, values: &mut Vec<u64>) {
        put_column(&mut self.raw, values, &mut self.cuts);
    }

    /// The block of what has been gathered, which is used up; padded to at least `least` stored bytes.
    pub fn block(&mut self, kind: u32, least: u64) -> Result<Vec<u8>> {
        let mut stored = Vec::new();
        let mut begin = 0;
        self.cuts.push(self.raw.len());
        for &cut in &self.cuts {
            if cut - begin >= PART_BYTES || cut == self.raw.len() {
                let packed = self.compressor.compress(&self.raw[begin..cut]);
                stored.extend(packed.map_err(|error| Error::write(self.what, &error))?);
                begin = cut;
            }
            if begin == self.raw.len() {
                break;
            }
        }
        let raw_needs = (self.raw.len() as u64).saturating_sub(RATIO_SLACK);
        pad(&mut stored, raw_needs.div_ceil(MAX_RATIO).max(least));
        let too_big = || {
            let what = format!("cannot write {}", self.what);
            let why = "a name or a block is larger than 4 GiB";
            Error::new(ErrorKind::CannotWrite, what, why)
        };
        let raw = u32::try_from(self.raw.len()).map_err(|_| too_big())?;
        u32::try_from(stored.len()).map_err(|_| too_big())?;
        self.raw.clear();
        self.cuts.clear();
        Ok(block(kind, raw, &stored))
    }
}

/// Appends a skippable frame when `stored` has less than `least` bytes.
fn pad(stored: &mut Vec<u8>, least: u64) {
    if let Some(missing) = least.checked_sub(stored.len() as u64)
        && missing > 0
    {
        stored.extend_from_slice(&0x184d_2a50_u32.to_le_bytes());
        stored.extend_from_slice(&(missing as u32).to_le_bytes());
        stored.resize(stored.len() + missing as usize, 0);
    }
}

/// A block's head and contents.
pub fn block(kind: u32, raw: u32, stored: &[u8]) -> Vec<u8> {
    let mut block = Vec::with_capacity(BLOCK_HEAD + stored.len());
    for number in [kind, stored.len() as u32, raw, 0] {
        block.extend_from_slice(&number.to_le_bytes());
    }
    block.extend_from_slice(stored);
    let crc = checksum(&block[..12], stored);
    block[12..16].copy_from_slice(&crc.to_le_bytes());
    block
}

/// CRC-32 of a block: the head's first twelve bytes and the contents.
fn checksum(head: &[u8], stored: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(stored);
    hasher.finalize()
}

/// A little-endian number at `at`.
pub fn number(data: &[u8], at: usize) -> Option<u32> {
    let bytes = data.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

/// What stands before a block's contents.
#[derive(Debug, Clone, Copy)]
pub struct BlockHead {
    /// What is in it.
    pub kind: u32,
    /// Bytes in the file behind the head.
    pub stored: u32,
    /// Bytes that they unpack to.
    pub raw: u32,
    /// Checksum.
    crc: u32,
}

impl BlockHead {
    /// Reads the head at the start of `data`; `None` when it is cut short.
    pub fn read(data: &[u8]) -> Option<BlockHead> {
        Some(BlockHead {
            kind: number(data, 0)?,
            stored: number(data, 4)?,
            raw: number(data, 8)?,
            crc: number(data, 12)?,
        })
    }
}

/// Checks and unpacks blocks.
pub struct Unpacker {
    decompressor: Decompressor<'static>,
    /// Contents of the block that was unpacked last.
    pub raw: Vec<u8>,
}

impl Unpacker {
    /// An unpacker for the file `what`.
    pub fn new(what: &'static str) -> Result<Unpacker> {
        Ok(Unpacker {
            decompressor: Decompressor::new().map_err(|error| Error::read(what, &error))?,
            raw: Vec::new(),
        })
    }

    /// Fails, with the reason, unless `stored` is what `head` says and may be unpacked.
    pub fn check(head: &BlockHead, stored: &[u8]) -> Result<(), &'static str> {
        let mut bytes = [0; 12];
        for (at, number) in [head.kind, head.stored, head.raw].into_iter().enumerate() {
            bytes[4 * at..4 * at + 4].copy_from_slice(&number.to_le_bytes());
        }
        if checksum(&bytes, stored) != head.crc {
            return Err("a block is damaged: its checksum is wrong");
        }
        if u64::from(head.raw) > most_raw(u64::from(head.stored)) {
            return Err("a block would unpack to more than the format allows");
        }
        Ok(())
    }

    /// Unpacks a block that was checked into `raw`.
    pub fn unpack(&mut self, head: &BlockHead, stored: &[u8]) -> Result<(), &'static str> {
        self.raw.clear();
        self.raw.reserve_exact(head.raw as usize);
        match self
            .decompressor
            .decompress_to_buffer(stored, &mut self.raw)
        {
            Ok(size) if size == head.raw as usize => Ok(()),
            _ => Err("a block cannot be unpacked"),
        }
    }
}
