//! Numbers and texts of our binary files: varints, zigzag, columns, and a reader of them that never reads
//! past the end. What the words mean is said where the formats are described.

use crate::error::{Error, Result};

/// A varint's bytes, as a vector of its own; for few values.
#[cfg(test)]
pub fn varint(value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, value);
    out
}

/// Appends a varint.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a text.
pub fn put_text(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Appends a float, bit for bit.
pub fn put_f64(out: &mut Vec<u8>, value: f64) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Small numbers of either sign as small numbers.
pub fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// The number that [`zigzag`] was given.
pub fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Appends a column; `values` is used up. Places where bytes of another distribution begin go to `cuts`.
pub fn put_column(out: &mut Vec<u8>, values: &mut Vec<u64>, cuts: &mut Vec<usize>) {
    while !values.is_empty() {
        cuts.push(out.len());
        let mut kept = 0;
        for at in 0..values.len() {
            let value = values[at];
            if value < 0x80 {
                out.push(value as u8);
            } else {
                out.push(value as u8 | 0x80);
                values[kept] = value >> 7;
                kept += 1;
            }
        }
        values.truncate(kept);
    }
}

/// Reads one block's contents; errors name the block's place in the file.
#[derive(Debug, Clone)]
pub struct Cursor<'a> {
    rest: &'a [u8],
    what: &'static str,
    offset: u64,
}

impl<'a> Cursor<'a> {
    /// Reads `data`, the contents of the block at `offset`; an error says that the file is `what`.
    pub fn new(data: &'a [u8], what: &'static str, offset: u64) -> Cursor<'a> {
        Cursor {
            rest: data,
            what,
            offset,
        }
    }

    /// An error in this block.
    pub fn bad(&self, why: impl std::fmt::Display) -> Error {
        Error::bad_file(self.what, self.offset, why)
    }

    /// The next `length` bytes.
    pub fn take(&mut self, length: u64) -> Result<&'a [u8]> {
        let split = usize::try_from(length)
            .ok()
            .and_then(|at| self.rest.split_at_checked(at));
        let Some((taken, rest)) = split else {
            return Err(self.bad("a block ends too early"));
        };
        self.rest = rest;
        Ok(taken)
    }

    /// One byte.
    pub fn byte(&mut self) -> Result<u8> {
        let taken = self.take(1)?;
        Ok(taken.first().copied().unwrap_or(0))
    }

    /// A varint.
    pub fn varint(&mut self) -> Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= part(byte, shift).ok_or_else(|| self.bad("a number has too many bits"))?;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.bad("a number has too many bits"))
    }

    /// A zigzag varint that is a process id.
    pub fn varint_i32(&mut self) -> Result<i32> {
        let value = unzigzag(self.varint()?);
        i32::try_from(value).map_err(|_| self.bad("a process id is out of range"))
    }

    /// A float, bit for bit.
    pub fn f64(&mut self) -> Result<f64> {
        let bytes = self.take(8)?;
        Ok(bytes.try_into().map_or(0.0, f64::from_le_bytes))
    }

    /// A text.
    pub fn text(&mut self) -> Result<&'a str> {
        let length = self.varint()?;
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes).map_err(|_| self.bad("a text is not UTF-8"))
    }

    /// A number of rows, of which each takes at least `least` bytes.
    pub fn rows(&mut self, least: usize) -> Result<usize> {
        let count = self.varint()?;
        match usize::try_from(count) {
            Ok(rows) if rows <= self.rest.len() / least => Ok(rows),
            _ => Err(self.bad(format_args!("{count} rows do not fit into their block"))),
        }
    }

    /// A position in a table of `length` rows.
    pub fn index(&mut self, length: usize, what: &str) -> Result<u32> {
        let value = self.varint()?;
        self.check_index(value as i64, length, what)
    }

    /// The same for a number that was worked out.
    pub fn check_index(&self, value: i64, length: usize, what: &str) -> Result<u32> {
        match u32::try_from(value) {
            Ok(index) if (index as usize) < length => Ok(index),
            _ => Err(self.bad(format_args!("{what} {value} is not one of {length}"))),
        }
    }

    /// A column of `count` values. What is allocated is bounded by the bytes that are there.
    pub fn column(&mut self, count: usize) -> Result<Vec<u64>> {
        let first = self.take(count as u64)?;
        let mut values: Vec<u64> = first.iter().map(|&byte| u64::from(byte & 0x7f)).collect();
        let mut open: Vec<u32> = longer(first).map(|at| at as u32).collect();
        let mut shift = 7;
        while !open.is_empty() {
            let bytes = self.take(open.len() as u64)?;
            for (&at, &byte) in open.iter().zip(bytes) {
                let bits =
                    part(byte, shift).ok_or_else(|| self.bad("a number has too many bits"))?;
                if let Some(value) = values.get_mut(at as usize) {
                    *value |= bits;
                }
            }
            let mut bytes = bytes.iter();
            open.retain(|_| bytes.next().is_some_and(|&byte| byte >= 0x80));
            shift += 7;
        }
        Ok(values)
    }

    /// Fails when something is left.
    pub fn end(&self) -> Result<()> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(self.bad(format_args!(
                "{} bytes too many in a block",
                self.rest.len()
            )))
        }
    }
}

/// Positions of the bytes that are not the last of their value.
fn longer(bytes: &[u8]) -> impl Iterator<Item = usize> + '_ {
    bytes
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte >= 0x80)
        .map(|(at, _)| at)
}

/// The seven bits of `byte` in their place; `None` when they do not fit into 64.
fn part(byte: u8, shift: u32) -> Option<u64> {
    let bits = u64::from(byte & 0x7f);
    match shift {
        0..=56 => Some(bits << shift),
        63 if byte <= 1 => Some(bits << 63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_size_come_back() {
        let mut numbers = vec![
            0,
            1,
            127,
            128,
            300,
            16_383,
            16_384,
            u64::MAX,
            u64::MAX >> 1,
            1 << 63,
        ];
        numbers.extend((0..64).map(|bit| 1u64 << bit));
        let mut out = Vec::new();
        put_column(&mut out, &mut numbers.clone(), &mut Vec::new());
        let mut cursor = Cursor::new(&out, "bad", 0);
        assert_eq!(cursor.column(numbers.len()).expect("column"), numbers);
        cursor.end().expect("nothing left");
        for number in numbers {
            assert_eq!(
                Cursor::new(&varint(number), "bad", 0)
                    .varint()
                    .expect("varint"),
                number
            );
            assert_eq!(zigzag(unzigzag(number)), number);
        }
    }

    #[test]
    fn numbers_with_too_many_bits_are_errors() {
        assert!(Cursor::new(&[0xff; 12], "bad", 0).varint().is_err());
        assert!(Cursor::new(&[0xff; 12], "bad", 0).column(1).is_err());
        assert!(Cursor::new(&[0x80; 3], "bad", 0).varint().is_err());
        assert!(Cursor::new(&[], "bad", 0).column(1).is_err());
        assert!(
            Cursor::new(&[0xff, 0xff, 0x7f, 1], "bad", 0)
                .rows(1)
                .is_err()
        );
    }
}
