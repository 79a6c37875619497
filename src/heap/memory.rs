//! Words of the image at a few nanoseconds each, and bitmaps over it.
//!
//! The address space is cut into pieces of a megabyte; a flat table per 8 GB says which span a piece starts in.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::target::image::Image;

const PIECE: u32 = 20;
const TABLE: u32 = 13;
/// Addresses of user space have 47 bits.
const TABLES: usize = 1 << (47 - PIECE - TABLE);
/// Spans looked at one after the other in a piece before it is searched by halves.
const STEPS: usize = 4;

#[derive(Debug, Clone, Copy)]
struct Run<'a> {
    start: u64,
    bytes: &'a [u8],
    /// Bit of its first word in a [`Bits`].
    bit: usize,
}

/// Fast access to an image.
#[derive(Debug)]
pub struct Memory<'a> {
    image: &'a Image,
    runs: Vec<Run<'a>>,
    roots: Vec<u32>,
    tables: Vec<u32>,
    bits: usize,
}

/// A place in the image: the span it is in and where.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    bytes: &'a [u8],
    at: usize,
    address: u64,
    bit: usize,
}

impl<'a> Place<'a> {
    /// Its address.
    #[inline]
    pub fn address(&self) -> u64 {
        self.address
    }

    /// The place `offset` bytes on, in the same span.
    pub fn shifted(&self, offset: u32) -> Option<Place<'a>> {
        let at = self.at + offset as usize;
        (at < self.bytes.len()).then(|| Place {
            at,
            address: self.address + u64::from(offset),
            bit: self.bit + offset as usize / 8,
            ..*self
        })
    }

    /// The word `offset` bytes on.
    #[inline]
    pub fn word(&self, offset: u32) -> Option<u64> {
        word_at(self.bytes, self.at + offset as usize)
    }

    /// The same, 0 when it is beyond the span.
    #[inline]
    pub fn word_or_0(&self, offset: u32) -> u64 {
        self.word(offset).unwrap_or(0)
    }

    /// The word `back` bytes before.
    #[inline]
    pub fn word_before(&self, back: usize) -> Option<u64> {
        word_at(self.bytes, self.at.checked_sub(back)?)
    }

    /// The 32 bits `offset` bytes on, 0 beyond the span.
    #[inline]
    pub fn int(&self, offset: u32) -> u32 {
        let at = self.at + offset as usize;
        let bytes = self.bytes.get(at..at + 4);
        bytes.map_or(0, |bytes| {
            u32::from_le_bytes(bytes.try_into().unwrap_or_default())
        })
    }

    /// The byte `offset` bytes on, 0 beyond the span.
    #[inline]
    pub fn byte(&self, offset: u32) -> u8 {
        self.bytes
            .get(self.at + offset as usize)
            .copied()
            .unwrap_or(0)
    }

    /// Bytes from here to the end of the span.
    #[inline]
    pub fn room(&self) -> u64 {
        (self.bytes.len() - self.at) as u64
    }

    /// `length` bytes from `offset` on, when all are in the span.
    pub fn bytes(&self, offset: u64, length: u64) -> Option<&'a [u8]> {
        let from = (self.at as u64).checked_add(offset)?;
        let to = from.checked_add(length)?;
        self.bytes
            .get(usize::try_from(from).ok()?..usize::try_from(to).ok()?)
    }

    /// Its bit in a [`Bits`].
    #[inline]
    pub fn bit(&self) -> usize {
        self.bit
    }
}

#[inline]
fn word_at(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

impl<'a> Memory<'a> {
    /// For `image`.
    pub fn new(image: &'a Image) -> Memory<'a> {
        let mut runs = Vec::with_capacity(image.spans().len());
        let mut bits = 0usize;
        for span in image.spans() {
            let bytes = span.bytes();
            if span.start() >> 47 != 0 || span.end() >> 47 != 0 {
                continue;
            }
            runs.push(Run {
                start: span.start(),
                bytes,
                bit: bits,
            });
            // One more word: a span may start between two multiples of eight.
            bits += (bytes.len() / 8 + 2).next_multiple_of(64);
        }
        let mut roots = vec![u32::MAX; TABLES];
        let mut tables: Vec<u32> = Vec::new();
        for (index, run) in runs.iter().enumerate().rev() {
            let last = (run.start + run.bytes.len() as u64 - 1) >> PIECE;
            for piece in (run.start >> PIECE)..=last {
                let root = &mut roots[(piece >> TABLE) as usize];
                if *root == u32::MAX {
                    *root = tables.len() as u32;
                    tables.resize(tables.len() + (1 << TABLE), u32::MAX);
                }
                // From the last span to the first, so that the first one of a piece stays.
                tables[*root as usize + (piece as usize & ((1 << TABLE) - 1))] = index as u32;
            }
        }
        Memory {
            image,
            runs,
            roots,
            tables,
            bits,
        }
    }

    /// Where `address` is, if it is in the image and a multiple of eight.
    #[inline]
    pub fn place(&self, address: u64) -> Option<Place<'a>> {
        if address & 7 != 0 || address >> 47 != 0 {
            return None;
        }
        self.any_place(address)
    }

    /// Where `address` is, aligned or not.
    #[inline]
    pub fn any_place(&self, address: u64) -> Option<Place<'a>> {
        let piece = address >> PIECE;
        let root = *self.roots.get((piece >> TABLE) as usize)? as usize;
        let piece = root.wrapping_add(piece as usize & ((1 << TABLE) - 1));
        let first = *self.tables.get(piece)? as usize;
        for run in self.runs.get(first..)?.iter().take(STEPS) {
            let at = address.checked_sub(run.start)?;
            if at < run.bytes.len() as u64 {
                return Some(Memory::at(run, at as usize, address));
            }
        }
        let after = self.runs.partition_point(|run| run.start <= address);
        let run = self.runs.get(after.checked_sub(1)?)?;
        let at = usize::try_from(address - run.start).ok()?;
        (at < run.bytes.len()).then(|| Memory::at(run, at, address))
    }

    #[inline]
    fn at(run: &Run<'a>, at: usize, address: u64) -> Place<'a> {
        Place {
            bytes: run.bytes,
            at,
            address,
            bit: run.bit + ((address >> 3) - (run.start >> 3)) as usize,
        }
    }

    /// The word at `address`.
    #[inline]
    pub fn word(&self, address: u64) -> Option<u64> {
        self.place(address)?.word(0)
    }

    /// The `count` words at `address`; `None` when they are not all in one span.
    #[inline]
    pub fn words(&self, address: u64, count: u64) -> Option<&'a [u8]> {
        if count == 0 {
            return Some(&[]);
        }
        let place = self.place(address)?;
        if count > place.room() / 8 {
            return None;
        }
        place.bytes(0, count * 8)
    }

    /// Fills `into` from the image or from what never changes.
    pub fn read(&self, address: u64, into: &mut [u8]) -> bool {
        self.image.read(address, into)
    }

    /// The word at `address`, which may be in memory that never changes.
    pub fn any_word(&self, address: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes)
            .then(|| u64::from_le_bytes(bytes))
    }

    /// Text up to a NUL at `address`, of which `limit` bytes are kept.
    pub fn c_string(&self, address: u64, limit: usize) -> Option<String> {
        let mut text = Vec::new();
        while text.len() < limit {
            let mut byte = [0];
            if !self.read(address.checked_add(text.len() as u64)?, &mut byte) {
                return None;
            }
            if byte[0] == 0 {
                break;
            }
            text.push(byte[0]);
        }
        Some(String::from_utf8_lossy(&text).into_owned())
    }

    /// Bytes in all spans.
    pub fn size(&self) -> u64 {
        self.image.size()
    }

    /// Bits that a [`Bits`] over this needs.
    pub fn bit_count(&self) -> usize {
        self.bits
    }

    /// Calls `each` with the address and place of every bit that is set, by address, for the words `from..to` of
    /// `bits`.
    pub fn each_set(
        &self,
        bits: &Bits,
        from: usize,
        to: usize,
        mut each: impl FnMut(u64, Place<'a>),
    ) {
        let mut index = self
            .runs
            .partition_point(|run| run.bit / 64 <= from)
            .saturating_sub(1);
        for word in from..to.min(bits.words.len()) {
            let mut value = bits.words[word].load(Ordering::Relaxed);
            while value != 0 {
                let bit = word * 64 + value.trailing_zeros() as usize;
                value &= value - 1;
                while self.runs.get(index + 1).is_some_and(|next| next.bit <= bit) {
                    index += 1;
                }
                let Some(run) = self.runs.get(index) else {
                    return;
                };
                let address = ((run.start >> 3) + (bit - run.bit) as u64) << 3;
                if let Some(at) = address.checked_sub(run.start).map(|at| at as usize)
                    && at < run.bytes.len()
                {
                    each(address, Memory::at(run, at, address));
                }
            }
        }
    }
}

/// The words in `bytes`, whose length is a multiple of eight.
#[inline]
pub fn each_word(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    bytes
        .chunks_exact(8)
        .map(|chunk| u64::from_le_bytes(chunk.try_into().unwrap_or_default()))
}

/// One bit for each eight bytes of an image.
#[derive(Debug, Default)]
pub struct Bits {
    words: Vec<AtomicU64>,
}

impl Bits {
    /// None set.
    pub fn new(memory: &Memory) -> Bits {
        let mut words = Vec::new();
        words.resize_with(memory.bit_count() / 64, || AtomicU64::new(0));
        Bits { words }
    }

    /// Whether it is set.
    #[inline]
    pub fn has(&self, bit: usize) -> bool {
        self.words
            .get(bit / 64)
            .is_some_and(|word| word.load(Ordering::Relaxed) & (1 << (bit % 64)) != 0)
    }

    /// Sets it; whether it was clear before. Of several threads, one is told so.
    #[inline]
    pub fn set(&self, bit: usize) -> bool {
        let mask = 1 << (bit % 64);
        self.words
            .get(bit / 64)
            .is_some_and(|word| word.fetch_or(mask, Ordering::Relaxed) & mask == 0)
    }

    /// The same for a map that only one thread changes, which is faster.
    #[inline]
    pub fn set_alone(&self, bit: usize) -> bool {
        let mask = 1 << (bit % 64);
        let Some(word) = self.words.get(bit / 64) else {
            return false;
        };
        let value = word.load(Ordering::Relaxed);
        word.store(value | mask, Ordering::Relaxed);
        value & mask == 0
    }

    /// Number of words.
    pub fn len(&self) -> usize {
        self.words.len()
    }

    /// For each word, how many bits are set before it, and how many there are in all.
    pub fn ranks(&self) -> (Vec<u32>, u64) {
        let mut total = 0u64;
        let ranks = self
            .words
            .iter()
            .map(|word| {
                let before = total as u32;
                total += u64::from(word.load(Ordering::Relaxed).count_ones());
                before
            })
            .collect();
        (ranks, total)
    }

    /// The place of `bit` among those set, if it is.
    #[inline]
    pub fn rank(&self, ranks: &[u32], bit: usize) -> Option<u32> {
        let word = self.words.get(bit / 64)?.load(Ordering::Relaxed);
        let mask = 1u64 << (bit % 64);
        if word & mask == 0 {
            return None;
        }
        Some(ranks.get(bit / 64)? + (word & (mask - 1)).count_ones())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::image::Span;

    #[test]
    fn places_are_found_in_every_span_and_nowhere_else() {
        let spans = vec![
            Span::new(0x1000, vec![1; 16]),
            Span::new(0x2000, vec![2; 8]),
            Span::new(0x10_0000 - 8, vec![3; 32]),
            Span::new(0x7fff_ffff_0000, vec![4; 64]),
        ];
        let image = Image::new(spans, None);
        let memory = Memory::new(&image);
        assert_eq!(memory.word(0x1008), Some(0x0101_0101_0101_0101));
        assert_eq!(memory.word(0x1010), None);
        assert_eq!(memory.word(0x2000), Some(0x0202_0202_0202_0202));
        assert_eq!(memory.word(0x10_0000), Some(0x0303_0303_0303_0303));
        assert_eq!(memory.word(0x7fff_ffff_0038), Some(0x0404_0404_0404_0404));
        for nowhere in [
            0,
            1,
            0x1001,
            0x7fff_ffff_0040,
            u64::MAX,
            1 << 47,
            u64::MAX - 7,
        ] {
            assert_eq!(memory.word(nowhere), None, "{nowhere:x}");
        }
        assert!(memory.words(0x1000, 1 << 61).is_none());
    }

    #[test]
    fn bits_come_back_in_order() {
        let spans = vec![
            Span::new(0x1000, vec![0; 4096]),
            Span::new(0x9000, vec![0; 4096]),
        ];
        let image = Image::new(spans, None);
        let memory = Memory::new(&image);
        let bits = Bits::new(&memory);
        let addresses = [0x1000, 0x1008, 0x1ff8, 0x9000, 0x9ff0];
        for address in addresses.iter().rev() {
            let place = memory.place(*address).expect("mapped");
            assert!(bits.set(place.bit()) && !bits.set(place.bit()));
        }
        let mut found = Vec::new();
        memory.each_set(&bits, 0, bits.len(), |address, _| found.push(address));
        assert_eq!(found, addresses);
        let mut second = Vec::new();
        let middle = bits.len() / 2;
        memory.each_set(&bits, 0, middle, |address, _| second.push(address));
        memory.each_set(&bits, middle, bits.len(), |address, _| second.push(address));
        assert_eq!(second, addresses);
        let (ranks, total) = bits.ranks();
        assert_eq!(total, 5);
        let place = memory.place(0x9000).expect("mapped");
        assert_eq!(bits.rank(&ranks, place.bit()), Some(3));
        assert_eq!(bits.rank(&ranks, place.bit() + 1), None);
    }
}
