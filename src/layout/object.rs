//! Object heads, strings and bytes objects from their bytes (Include/cpython/unicodeobject.h).

use super::{TextOffsets, at, int, word};
use crate::units::cut_mark;

/// `PyObject`. The constants below are of builds with a GIL; in others all that comes after the head lies further on by the same
/// number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectOffsets {
    /// `ob_type`.
    pub kind: u32,
    /// Size of the head: what follows is `ob_size`, of objects of variable size, or the object's own.
    pub head: u32,
    /// Reference counts.
    pub references: References,
}

/// Reference counts of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum References {
    /// The lower half of `ob_refcnt`.
    One(u32),
    /// Those of the thread that made it, an int, and those of all others, a word with two more bits (free-threaded builds).
    Split {
        /// `ob_ref_local`.
        local: u32,
        /// `ob_ref_shared`.
        shared: u32,
    },
}

impl ObjectOffsets {
    /// Where a field lies that has `offset` in builds with a GIL.
    pub fn place(&self, offset: usize) -> usize {
        offset
            .saturating_add(self.head as usize)
            .saturating_sub(SIZE)
    }

    /// Whether an object that begins with `head` has no reference: it is taken apart, or what is left of it.
    pub fn is_dead(&self, head: &[u8]) -> bool {
        match self.references {
            References::One(count) => int(head, count as usize) == Some(0),
            References::Split { local, shared } => {
                int(head, local as usize) == Some(0)
                    && word(head, shared as usize).is_some_and(|word| word >> 2 == 0)
            }
        }
    }
}

/// `ob_type` of every object.
pub const TYPE: usize = 8;

/// `ob_size` of objects of variable size.
pub const SIZE: usize = 16;

/// The characters of a bytes object.
pub const BYTES_DATA: u64 = 32;

/// `tp_name` of a type.
pub const TYPE_NAME: usize = 24;

/// Offset of `tp_flags` in a type (Include/cpython/object.h, the same from 3.6 to 3.15).
pub const TYPE_FLAGS: usize = 168;

/// Its bit for `int` and the classes made of it: `Py_TPFLAGS_LONG_SUBCLASS` (Include/object.h).
pub const IS_INT: u64 = 1 << 24;

/// The same for `str`: `Py_TPFLAGS_UNICODE_SUBCLASS`.
pub const IS_TEXT: u64 = 1 << 28;

/// The same for exceptions: `Py_TPFLAGS_BASE_EXC_SUBCLASS`.
pub const IS_EXCEPTION: u64 = 1 << 30;

/// Longest name or path that is kept, in characters; longer ones are cut.
pub const TEXT_LIMIT: u64 = 4096;

/// Bytes of a string's head.
pub const TEXT_HEAD: usize = 64;

/// Most bytes of an int object behind its head that are of use.
pub const INT_REST: usize = 16;

/// How an int object says how many digits it has and its sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntSize {
    /// `ob_size`, negative for negative numbers (up to 3.11).
    Signed,
    /// `lv_tag`: three bits, of which the lower two are 2 for negative numbers, then the number of digits.
    Tagged,
}

/// The value of an int object of up to two digits of 30 bits each, from what follows its head (`PyLongObject`,
/// Include/cpython/longintrepr.h).
pub fn small_int(rest: &[u8; INT_REST], coding: IntSize) -> Option<i64> {
    let size = word(rest, 0)?;
    let (digits, negative) = match coding {
        IntSize::Signed => ((size as i64).unsigned_abs(), (size as i64) < 0),
        IntSize::Tagged => (size >> 3, size & 3 == 2),
    };
    let digit =
        |index: usize| int(rest, 8 + 4 * index).map(|digit| i64::from(digit as u32 & 0x3fff_ffff));
    let value = match digits {
        0 => 0,
        1 => digit(0)?,
        2 => digit(0)? | digit(1)? << 30,
        _ => return None,
    };
    Some(if negative { -value } else { value })
}

/// Where a string's characters are and how wide they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text {
    /// Bytes from the object's start.
    pub data: u32,
    /// Bytes a character: 1, 2 or 4.
    pub width: u8,
    /// Characters, at most [`TEXT_LIMIT`].
    pub length: u32,
    /// Characters beyond those.
    pub cut: u64,
}

/// Decodes the head of a compact string; `None` when it is none.
pub fn text(head: &[u8], offsets: TextOffsets) -> Option<Text> {
    let length = word(head, at(offsets.length)).filter(|length| *length < 1 << 48)?;
    // From the kind on: three bits of it, compact, ASCII.
    let state = (int(head, at(offsets.state))? as u32).checked_shr(offsets.kind_bit)?;
    let (kind, compact, ascii) = (state & 7, (state >> 3) & 1, (state >> 4) & 1);
    if compact == 0 || !matches!(kind, 1 | 2 | 4) || (ascii == 1 && kind != 1) {
        return None;
    }
    Some(Text {
        data: if ascii == 1 {
            offsets.ascii_data
        } else {
            offsets.compact_data
        },
        width: kind as u8,
        length: length.min(TEXT_LIMIT) as u32,
        cut: length.saturating_sub(TEXT_LIMIT),
    })
}

/// The characters in `data`; lone surrogates and impossible code points are replaced. Of a text that was cut it is said
/// how much, as [`crate::units::cut_mark`] says it.
pub fn decode_text(data: &[u8], text: Text) -> String {
    let mut letters = decode(data, text.width);
    if text.cut > 0 {
        letters.push_str(&cut_mark(text.cut));
    }
    letters
}

fn decode(data: &[u8], width: u8) -> String {
    let replaced = |code: u32| char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
    match width {
        1 => data.iter().map(|byte| char::from(*byte)).collect(),
        2 => data
            .chunks_exact(2)
            .map(|c| replaced(u32::from(u16::from_ne_bytes([c[0], c[1]]))))
            .collect(),
        _ => data
            .chunks_exact(4)
            .map(|c| replaced(u32::from_ne_bytes([c[0], c[1], c[2], c[3]])))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_widths_are_decoded() {
        assert_eq!(decode(b"caf\xe9", 1), "café");
        assert_eq!(decode(&[0x34, 0x12, 0x00, 0xd8], 2), "\u{1234}\u{fffd}");
        assert_eq!(
            decode(&[0, 0xf6, 1, 0, 0, 0, 0x7f, 0], 4),
            "\u{1f600}\u{fffd}"
        );
    }

    /// As they were in 3.11.7 and 3.12.1.
    #[test]
    fn ints_of_up_to_two_digits_have_their_values() {
        let rest = |size: i64, digits: [u32; 2]| {
            let mut bytes = [0; INT_REST];
            bytes[..8].copy_from_slice(&size.to_ne_bytes());
            bytes[8..12].copy_from_slice(&digits[0].to_ne_bytes());
            bytes[12..].copy_from_slice(&digits[1].to_ne_bytes());
            bytes
        };
        let signed = |size, digits| small_int(&rest(size, digits), IntSize::Signed);
        let tagged = |size, digits| small_int(&rest(size, digits), IntSize::Tagged);
        assert_eq!(signed(0, [9, 9]), Some(0));
        assert_eq!(signed(-1, [7, 9]), Some(-7));
        assert_eq!(signed(2, [5, 1]), Some((1 << 30) + 5));
        assert_eq!(signed(3, [0, 0]), None);
        assert_eq!(tagged(1, [0, 0]), Some(0));
        assert_eq!(tagged(8, [7, 9]), Some(7));
        assert_eq!(tagged(10, [7, 9]), Some(-7));
        assert_eq!(tagged(16, [5, 1]), Some((1 << 30) + 5));
        assert_eq!(tagged(-1, [5, 1]), None);
    }

    #[test]
    fn what_is_no_string_is_refused() {
        let offsets = TextOffsets {
            length: 16,
            state: 32,
            kind_bit: 2,
            ascii_data: 40,
            compact_data: 56,
        };
        assert_eq!(text(&[0; 64], offsets), None);
        assert_eq!(text(&[0xff; 64], offsets), None);
        assert_eq!(text(&[0; 8], offsets), None);
    }
}
