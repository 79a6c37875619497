//! The blocks of a snapshot's file, one at a time: found, checked and unpacked.

use std::io::{self, Read, Seek, SeekFrom};

use super::{END_MAGIC, FOOTER, MAGIC, MOST_RAW, MOST_ROWS, MOST_TEXT, WHAT, kind, rows_per_byte};
use crate::blocks::bytes::Cursor;
use crate::blocks::{BLOCK_HEAD, BlockHead, Unpacker};
use crate::error::{Error, Result};

/// Bytes before the first block.
pub(super) const BEGIN: u64 = MAGIC.len() as u64 + 4;

/// What is read, for errors of the system.
pub(super) const SNAPSHOT: &str = "the snapshot";

/// Where a block is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) kind: u32,
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// An error at `offset`.
pub(super) fn bad(offset: u64, why: impl std::fmt::Display) -> Error {
    Error::bad_file(WHAT, offset, why)
}

/// The blocks of a file, read one at a time.
pub(super) struct Blocks<R> {
    pub(super) source: R,
    /// The bytes of the block that was read last, as they stand in the file.
    pub(super) stored: Vec<u8>,
    pub(super) unpacker: Unpacker,
    /// The file's name, for errors.
    pub(super) name: Option<String>,
}

impl<R> std::fmt::Debug for Blocks<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Blocks").field(&self.name).finish()
    }
}

impl<R> Blocks<R> {
    /// The same error, with the file's name.
    pub(super) fn named(&self, error: Error) -> Error {
        match &self.name {
            Some(name) => error.within(name),
            None => error,
        }
    }
}

impl<R: Read + Seek> Blocks<R> {
    /// Where the index of a file of so many bytes is, by its footer.
    pub(super) fn find_index(&mut self, length: u64) -> Result<Entry> {
        let footer = length
            .checked_sub(FOOTER)
            .filter(|footer| *footer >= BEGIN)
            .ok_or_else(|| bad(length, "the file is cut short: its end is missing"))?;
        let mut bytes = [0; FOOTER as usize];
        self.read(footer, length, |stored| {
            bytes.copy_from_slice(stored);
        })?;
        let (offset, magic) = bytes.split_at(8);
        if magic != END_MAGIC {
            return Err(bad(length, "the file is cut short: its end is missing"));
        }
        let offset = offset.try_into().map_or(0, u64::from_le_bytes);
        if offset < BEGIN || offset > footer {
            return Err(bad(footer, "its last bytes do not lead to its index"));
        }
        Ok(Entry {
            kind: kind::INDEX,
            offset,
            length: footer - offset,
        })
    }

    /// Reads the bytes from `from` up to `to`, which are in the file.
    pub(super) fn read(&mut self, from: u64, to: u64, take: impl FnOnce(&[u8])) -> Result<()> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::UnexpectedEof => bad(from, "the file is cut short"),
            _ => Error::read(SNAPSHOT, &error),
        };
        let length = usize::try_from(to.saturating_sub(from));
        let length = length.map_err(|_| bad(from, "a block is too large"))?;
        self.source.seek(SeekFrom::Start(from)).map_err(failed)?;
        self.stored.clear();
        self.stored.resize(length, 0);
        self.source.read_exact(&mut self.stored).map_err(failed)?;
        take(&self.stored);
        Ok(())
    }

    /// Reads and unpacks the block at `entry`, whose bytes are in the file.
    pub(super) fn block(&mut self, entry: &Entry) -> Result<Block<'_>> {
        let offset = entry.offset;
        self.read(offset, offset.saturating_add(entry.length), |_| ())
            .map_err(|error| self.named(error))?;
        let name = &self.name;
        let bad = |why: &str| match name {
            Some(name) => bad(offset, why).within(name),
            None => bad(offset, why),
        };
        let head = BlockHead::read(&self.stored);
        let stored = self.stored.get(BLOCK_HEAD..).unwrap_or_default();
        let head = head
            .filter(|head| head.kind == entry.kind && head.stored as usize == stored.len())
            .ok_or_else(|| bad("the block that should be here is not"))?;
        Unpacker::check(&head, stored).map_err(bad)?;
        if head.raw > MOST_RAW {
            return Err(bad("a block would unpack to more than the format allows"));
        }
        self.unpacker.unpack(&head, stored).map_err(bad)?;
        Ok(Block {
            cursor: Cursor::new(&self.unpacker.raw, WHAT, offset),
            budget: entry.length.saturating_mul(rows_per_byte(entry.kind)),
        })
    }
}

/// A block's contents.
pub(super) struct Block<'a> {
    pub(super) cursor: Cursor<'a>,
    /// Rows that it may still have.
    pub(super) budget: u64,
}

impl Block<'_> {
    /// Reads the number of rows of columns.
    pub(super) fn column_rows(&mut self) -> Result<usize> {
        let rows = self.cursor.rows(1)?;
        if rows > MOST_ROWS {
            return Err(self.cursor.bad("a block has too many rows"));
        }
        spend(&self.cursor, &mut self.budget, rows)?;
        Ok(rows)
    }

    /// Reads rows of varying size, to the end of the block.
    pub(super) fn each(&mut self, mut read: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        let rows = self.cursor.rows(1)?;
        spend(&self.cursor, &mut self.budget, rows)?;
        for _ in 0..rows {
            read(self)?;
        }
        self.cursor.end()
    }
}

/// Takes so many rows from what a block may have.
pub(super) fn spend(cursor: &Cursor<'_>, budget: &mut u64, rows: usize) -> Result<()> {
    let left = budget.checked_sub(rows as u64);
    *budget = left.ok_or_else(|| cursor.bad("a block has more rows than its size allows"))?;
    Ok(())
}

/// A text of the length that the format allows.
pub(super) fn text<'a>(cursor: &mut Cursor<'a>) -> Result<&'a str> {
    let text = cursor.text()?;
    if text.len() > MOST_TEXT {
        return Err(cursor.bad("a text is longer than the format allows"));
    }
    Ok(text)
}
