//! The data of a page as text that no HTML can misread: JSON and columns of numbers, deflated, in base64.
//!
//! ```text
//! page    base64 (RFC 4648, padded) of a zlib stream (RFC 1950) of: u32 little-endian, the length of the JSON; the
//!         JSON; the columns one after the other, each value a LEB128 varint of at most 64 bits
//! JSON    has `columns`: [name, number of values] of each, in order
//! ```

use std::io::{self, Write};

use base64::engine::general_purpose::STANDARD;
use base64::write::EncoderWriter;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use serde::Serialize;

/// Columns of numbers, as they will stand behind the JSON.
#[derive(Debug, Default)]
pub(crate) struct Columns {
    /// Name and number of values.
    pub(crate) names: Vec<(&'static str, usize)>,
    bytes: Vec<u8>,
}

impl Columns {
    /// Adds a column.
    pub(crate) fn add(&mut self, name: &'static str, values: impl Iterator<Item = u64>) {
        let mut count = 0;
        for mut value in values {
            while value >= 0x80 {
                self.bytes.push(value as u8 | 0x80);
                value >>= 7;
            }
            self.bytes.push(value as u8);
            count += 1;
        }
        self.names.push((name, count));
    }
}

/// 0, -1, 1, -2 … as 0, 1, 2, 3 ….
pub(crate) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// Writes `head`, which names the columns, and `columns`.
pub(crate) fn write(
    head: &impl Serialize,
    columns: &Columns,
    out: &mut dyn Write,
) -> io::Result<()> {
    let json = serde_json::to_vec(head)?;
    let length = u32::try_from(json.len())
        .map_err(|_| io::Error::new(io::ErrorKind::FileTooLarge, "too many names"))?;
    let mut zlib = ZlibEncoder::new(EncoderWriter::new(out, &STANDARD), Compression::new(6));
    zlib.write_all(&length.to_le_bytes())?;
    zlib.write_all(&json)?;
    zlib.write_all(&columns.bytes)?;
    zlib.finish()?.finish()?;
    Ok(())
}

/// What [`write`] wrote: the JSON and all columns.
#[cfg(test)]
pub(crate) fn read(text: &str) -> (serde_json::Value, Vec<Vec<u64>>) {
    use base64::Engine;
    use std::io::Read;
    let packed = STANDARD.decode(text).expect("base64");
    let mut raw = Vec::new();
    flate2::read::ZlibDecoder::new(&packed[..])
        .read_to_end(&mut raw)
        .expect("zlib");
    let end = 4 + u32::from_le_bytes(raw[..4].try_into().expect("four")) as usize;
    let head: serde_json::Value = serde_json::from_slice(&raw[4..end]).expect("JSON");
    let mut bytes = raw[end..].iter();
    let mut number = || {
        let (mut value, mut shift) = (0u64, 0);
        loop {
            let byte = *bytes.next().expect("a byte");
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    };
    let counts = head["columns"].as_array().expect("columns").iter();
    let counts: Vec<u64> = counts.filter_map(|column| column[1].as_u64()).collect();
    let columns = counts.iter();
    let columns = columns
        .map(|count| (0..*count).map(|_| number()).collect())
        .collect();
    assert!(bytes.next().is_none());
    (head, columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_come_back() {
        let mut columns = Columns::default();
        columns.add("a", [0, 1, 127, 128, 300, u64::MAX].into_iter());
        columns.add("none", std::iter::empty());
        columns.add("b", [-3i64, 4].into_iter().map(zigzag));
        let head = serde_json::json!({"columns": columns.names, "x": "</script>"});
        let mut out = Vec::new();
        write(&head, &columns, &mut out).expect("written");
        let (back, values) = read(std::str::from_utf8(&out).expect("text"));
        assert_eq!(back["x"], "</script>");
        assert_eq!(values[0], [0, 1, 127, 128, 300, u64::MAX]);
        assert_eq!((values[1].len(), values[2].clone()), (0, vec![5, 8]));
    }
}
