//! Python's marshal, as far as `.prof` files need it: what the objects of such a file are, and a writer of
//! the few that we write.
//!
//! Spec: `Python/marshal.c` of CPython 2.7 to 3.15 (versions 0 to 5 of the format). Every type is read, since
//! `python -m profile` writes a code object where a name should be, which may hold any constant; what
//! cannot mean anything in a profile is read past. Every length is bounded by the bytes that are there,
//! references are shared and never copied, and errors name the offset.

mod encoder;

use std::rc::Rc;

pub use self::encoder::Encoder;
use crate::error::{Error, Result};

/// What errors say has failed.
const WHAT: &str = "cannot read the profile";

/// A profile nests 5 deep: dict, row, callers, caller, number. The rest is room for code objects, which
/// hold those of the functions in them.
const MAX_DEPTH: u32 = 64;

/// Set in a type byte when the object may be referred to later.
const FLAG_REF: u8 = 0x80;

/// An object and where it begins.
#[derive(Debug, Clone)]
pub struct Item {
    /// Offset of its type byte.
    pub at: u64,
    /// The object.
    pub value: Value,
}

/// An object; shared ones are cheap to clone.
#[derive(Debug, Clone)]
pub enum Value {
    /// `None`.
    None,
    /// `True`, `False`.
    Bool(bool),
    /// An int that fits.
    Int(i64),
    /// A float, bit for bit.
    Float(f64),
    /// Text or bytes, or what stands for a code object: a position in [`Document::strings`].
    Text(usize),
    /// A tuple.
    Tuple(Rc<[Item]>),
    /// A list.
    List(Rc<[Item]>),
    /// A dict's pairs in the order of the file, repeated keys included.
    Dict(Rc<[(Item, Item)]>),
    /// What was read past: sets, slices, complex numbers, ints that do not fit.
    Other,
}

/// All that was read.
#[derive(Debug, Clone)]
pub struct Document {
    /// The outermost object.
    pub root: Item,
    /// The texts, each as often as the file spells it out.
    pub strings: Vec<String>,
    /// Where the object ends.
    pub end: usize,
}

/// Reads the object at the start of `data`; what follows it is not looked at, as in Python.
pub fn read(data: &[u8]) -> Result<Document> {
    let mut reader = Reader {
        data,
        at: 0,
        strings: Vec::new(),
        references: Vec::new(),
        interned: Vec::new(),
    };
    match reader.item(0)? {
        Some(root) => Ok(Document {
            root,
            strings: reader.strings,
            end: reader.at,
        }),
        None => Err(Error::bad_file(WHAT, 0, "nothing in it")),
    }
}

/// The error for an object at `at` that is not what it should be.
pub fn unexpected(at: u64, why: impl std::fmt::Display) -> Error {
    Error::bad_file(WHAT, at, why)
}

struct Reader<'a> {
    data: &'a [u8],
    at: usize,
    strings: Vec<String>,
    /// Objects with [`FLAG_REF`]; `None` while one is being read.
    references: Vec<Option<Value>>,
    /// Python 2's own list of interned strings, for its `R`.
    interned: Vec<Value>,
}

impl<'a> Reader<'a> {
    /// The next object; `None` for the NULL that ends a dict.
    fn item(&mut self, depth: u32) -> Result<Option<Item>> {
        let at = self.at as u64;
        if depth > MAX_DEPTH {
            return Err(unexpected(at, "nested too deep for a profile"));
        }
        let code = self.byte()?;
        let kind = code & !FLAG_REF;
        let value = match kind {
            b'0' => return Ok(None),
            // Python gives these no reference number, flagged or not.
            b'N' => {
                return Ok(Some(Item {
                    at,
                    value: Value::None,
                }));
            }
            b'F' | b'T' => {
                let value = Value::Bool(kind == b'T');
                return Ok(Some(Item { at, value }));
            }
            b'.' | b'S' => {
                return Ok(Some(Item {
                    at,
                    value: Value::Other,
                }));
            }
            b'r' => {
                let value = self.reference(at)?;
                return Ok(Some(Item { at, value }));
            }
            _ => {
                // A container is numbered before what is in it.
                let slot = (code & FLAG_REF != 0).then(|| {
                    self.references.push(None);
                    self.references.len() - 1
                });
                let value = self.value(kind, at, depth)?;
                if let Some(place) = slot.and_then(|slot| self.references.get_mut(slot)) {
                    *place = Some(value.clone());
                }
                value
            }
        };
        Ok(Some(Item { at, value }))
    }

    fn value(&mut self, kind: u8, at: u64, depth: u32) -> Result<Value> {
        match kind {
            b'i' => Ok(Value::Int(i64::from(self.i32()?))),
            b'I' => Ok(Value::Int(i64::from_le_bytes(self.array()?))),
            b'l' => self.long(at),
            b'g' => Ok(Value::Float(f64::from_le_bytes(self.array()?))),
            b'f' => self.float_text(at),
            b'z' | b'Z' => {
                let length = usize::from(self.byte()?);
                self.text(length)
            }
            b's' | b'u' | b'a' | b'A' => {
                let length = self.length()?;
                self.text(length)
            }
            b't' => {
                let length = self.length()?;
                let value = self.text(length)?;
                self.interned.push(value.clone());
                Ok(value)
            }
            b'R' => {
                let number = self.length()?;
                self.interned
                    .get(number)
                    .cloned()
                    .ok_or_else(|| unexpected(at, "a reference to a string that is not there"))
            }
            b'(' => {
                let length = self.length()?;
                Ok(Value::Tuple(self.items(length, depth)?))
            }
            b')' => {
                let length = usize::from(self.byte()?);
                Ok(Value::Tuple(self.items(length, depth)?))
            }
            b'[' => {
                let length = self.length()?;
                Ok(Value::List(self.items(length, depth)?))
            }
            b'{' => self.dict(depth),
            b'c' => self.code(at, depth),
            b'<' | b'>' => {
                let length = self.length()?;
                self.items(length, depth)?;
                Ok(Value::Other)
            }
            b':' => {
                self.items(3, depth)?;
                Ok(Value::Other)
            }
            b'y' => {
                self.bytes(16)?;
                Ok(Value::Other)
            }
            b'x' => {
                for _ in 0..2 {
                    let length = usize::from(self.byte()?);
                    self.bytes(length)?;
                }
                Ok(Value::Other)
            }
            _ => Err(unexpected(
                at,
                format!("type code {kind:#04x}, which marshal does not have"),
            )),
        }
    }

    fn items(&mut self, length: usize, depth: u32) -> Result<Rc<[Item]>> {
        // An item takes at least a byte.
        if length > self.data.len() - self.at {
            return Err(self.cut());
        }
        // A length alone buys no more memory than a small file may use; the rest comes as items are read.
        let mut items = Vec::with_capacity(length.min(64));
        for _ in 0..length {
            let at = self.at as u64;
            match self.item(depth + 1)? {
                Some(item) => items.push(item),
                None => return Err(unexpected(at, "an end where an object should be")),
            }
        }
        Ok(items.into())
    }

    fn dict(&mut self, depth: u32) -> Result<Value> {
        let mut pairs = Vec::new();
        while let Some(key) = self.item(depth + 1)? {
            let at = self.at as u64;
            match self.item(depth + 1)? {
                Some(value) => pairs.push((key, value)),
                None => return Err(unexpected(at, "a key without a value")),
            }
        }
        Ok(Value::Dict(pairs.into()))
    }

    fn reference(&mut self, at: u64) -> Result<Value> {
        let number = self.length()?;
        match self.references.get(number) {
            Some(Some(value)) => Ok(value.clone()),
            Some(None) => Err(unexpected(at, "an object that contains itself")),
            None => Err(unexpected(at, "a reference to an object that is not there")),
        }
    }

    /// Digits of 15 bits, lowest first; the sign is that of their number.
    fn long(&mut self, at: u64) -> Result<Value> {
        let count = self.i32()?;
        let mut value: i128 = 0;
        // 5 digits hold 75 bits, and Python writes no leading zeros.
        if count.unsigned_abs() > 5 {
            self.bytes((count.unsigned_abs() as usize).saturating_mul(2))?;
            return Ok(Value::Other);
        }
        for place in 0..count.unsigned_abs() {
            let digit = u16::from_le_bytes(self.array()?);
            if digit >= 1 << 15 {
                return Err(unexpected(at, "a damaged number"));
            }
            value |= i128::from(digit) << (15 * place);
        }
        let value = if count < 0 { -value } else { value };
        Ok(i64::try_from(value).map_or(Value::Other, Value::Int))
    }

    /// A code object, as text. Its layout depends on the version of Python, which no file says: the first
    /// object is bytes and shows how many numbers stand before it, and only since 3.11 is the fifth.
    ///
    /// ```text
    /// 2.7   4 numbers  code consts names varnames freevars cellvars filename name LINE lnotab
    /// 3.0   5          the same
    /// 3.8   6          the same
    /// 3.11  5          code consts names names kinds filename name qualname LINE linetable exceptions
    /// ```
    fn code(&mut self, at: u64, depth: u32) -> Result<Value> {
        let rest = self.data.get(self.at..).unwrap_or_default();
        // Flags may look like the letter too; a length or reference number behind it has to make sense.
        let is_bytes = |numbers: &&usize| match rest.get(**numbers * 4..) {
            Some([code, a, b, c, d, rest @ ..]) => {
                let number = u32::from_le_bytes([*a, *b, *c, *d]) as usize;
                match code & !FLAG_REF {
                    b's' => number <= rest.len(),
                    b'r' => number < self.references.len(),
                    _ => false,
                }
            }
            _ => false,
        };
        let numbers = match [4_usize, 5, 6].iter().find(is_bytes) {
            Some(numbers) => *numbers,
            None => return Err(unexpected(at, "a code object that is damaged or cut short")),
        };
        self.bytes(numbers * 4)?;
        let mut parts = self.items(5, depth)?.to_vec();
        let newer = parts
            .last()
            .is_some_and(|kinds| matches!(kinds.value, Value::Text(_)));
        parts.extend_from_slice(&self.items(3, depth)?);
        let line = self.i32()?;
        self.items(if newer { 2 } else { 1 }, depth)?;
        let text = |place: usize| match parts.get(place).map(|part| &part.value) {
            Some(Value::Text(at)) => self.strings.get(*at).map_or("?", String::as_str),
            _ => "?",
        };
        let (file, name) = if newer {
            (text(5), text(6))
        } else {
            (text(6), text(7))
        };
        // As repr() has it, without the address.
        let text = format!("<code object {name}, file \"{file}\", line {line}>");
        self.strings.push(text);
        Ok(Value::Text(self.strings.len() - 1))
    }

    /// Version 0 and 1 of the format have floats as text.
    fn float_text(&mut self, at: u64) -> Result<Value> {
        let length = usize::from(self.byte()?);
        std::str::from_utf8(self.bytes(length)?)
            .ok()
            .and_then(|text| text.parse().ok())
            .map(Value::Float)
            .ok_or_else(|| unexpected(at, "a damaged number"))
    }

    fn text(&mut self, length: usize) -> Result<Value> {
        let bytes = self.bytes(length)?;
        self.strings.push(decode_text(bytes));
        Ok(Value::Text(self.strings.len() - 1))
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_le_bytes(self.array()?))
    }

    fn length(&mut self) -> Result<usize> {
        let at = self.at as u64;
        usize::try_from(self.i32()?).map_err(|_| unexpected(at, "a negative length"))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes = self.bytes(N)?;
        bytes.try_into().map_err(|_| self.cut())
    }

    fn bytes(&mut self, length: usize) -> Result<&'a [u8]> {
        let rest = self.data.get(self.at..).unwrap_or_default();
        let bytes = rest.get(..length).ok_or_else(|| self.cut())?;
        self.at += length;
        Ok(bytes)
    }

    fn cut(&self) -> Error {
        unexpected(self.data.len() as u64, "cut short")
    }
}

/// UTF-8 as Python writes it. Lone surrogates, which it lets through and Rust has no place for, become
/// their escapes (`\udc80`), so that names that differ stay different; so do bytes of other codings.
fn decode_text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    let mut rest = bytes;
    loop {
        let error = match std::str::from_utf8(rest) {
            Ok(valid) => {
                text.push_str(valid);
                return text;
            }
            Err(error) => error,
        };
        let (valid, damaged) = rest.split_at(error.valid_up_to());
        text.push_str(&String::from_utf8_lossy(valid));
        rest = match damaged {
            [0xed, middle @ 0xa0..=0xbf, last @ 0x80..=0xbf, rest @ ..] => {
                let code = 0xd000 | u32::from(middle & 0x3f) << 6 | u32::from(last & 0x3f);
                text.push_str(&format!("\\u{code:x}"));
                rest
            }
            [byte, rest @ ..] => {
                text.push_str(&format!("\\x{byte:02x}"));
                rest
            }
            [] => return text,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text_of(data: &[u8]) -> String {
        let document = read(data).expect("valid");
        match document.root.value {
            Value::Text(at) => document.strings[at].clone(),
            other => format!("{other:?}"),
        }
    }

    fn error_of(data: &[u8]) -> String {
        read(data).expect_err("damaged").to_string()
    }

    #[test]
    fn numbers_of_every_coding() {
        // Each as marshal.dumps() of CPython 3.11 or 2.7 writes it.
        for (data, expected) in [
            (&b"i\xff\xff\xff\xff"[..], "Int(-1)"),
            (b"\xe9\x07\x00\x00\x00", "Int(7)"),
            (b"I\x00\x00\x00\x00\x01\x00\x00\x00", "Int(4294967296)"),
            (
                b"l\x03\x00\x00\x00\x00\x00\x00\x00\x04\x00",
                "Int(4294967296)",
            ),
            (
                b"l\xfb\xff\xff\xff\x00\x00\x00\x00\x00\x00\x00\x00\x08\x00",
                "Int(-9223372036854775808)",
            ),
            (b"g\x9a\x99\x99\x99\x99\x99\xb9?", "Float(0.1)"),
            (b"f\x030.5", "Float(0.5)"),
            (b"T", "Bool(true)"),
            (b"N", "None"),
        ] {
            assert_eq!(
                format!("{:?}", read(data).expect(expected).root.value),
                expected
            );
        }
        assert!(error_of(b"l\x06\x00\x00\x00").contains("cut short (at byte 5)"));
        assert!(error_of(b"l\x01\x00\x00\x00\xff\xff").contains("damaged number (at byte 0)"));
        let huge = b"l\x05\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x08\x00";
        assert!(matches!(
            read(huge).expect("valid").root.value,
            Value::Other
        ));
    }

    #[test]
    fn strings_of_every_coding() {
        assert_eq!(text_of(b"u\x03\x00\x00\x00a\xc3\xa9"), "aé");
        assert_eq!(text_of(b"\xf4\x01\x00\x00\x00x"), "x");
        assert_eq!(text_of(b"z\x02ab"), "ab");
        assert_eq!(text_of(b"\xda\x02ab"), "ab");
        assert_eq!(text_of(b"A\x02\x00\x00\x00ab"), "ab");
        assert_eq!(text_of(b"s\x02\x00\x00\x00a\xff"), "a\\xff");
        // '\udc80x'.encode('utf8', 'surrogatepass')
        assert_eq!(text_of(b"u\x04\x00\x00\x00\xed\xb2\x80x"), "\\udc80x");
    }

    #[test]
    fn references_are_numbered_as_python_numbers_them() {
        // marshal.dumps((a := 'ab', (a, a))): the tuple is 0, the text 1.
        let document =
            read(b"\xa9\x02\xda\x02ab)\x02r\x01\x00\x00\x00r\x01\x00\x00\x00").expect("valid");
        assert_eq!(document.strings, ["ab"]);
        // Python 2 has a list of its own for interned strings.
        assert_eq!(
            read(b"(\x02\x00\x00\x00t\x01\x00\x00\x00aR\x00\x00\x00\x00")
                .expect("py2")
                .strings
                .len(),
            1
        );
        assert!(error_of(b"\xa9\x01r\x00\x00\x00\x00").contains("contains itself (at byte 2)"));
        assert!(error_of(b")\x01r\x00\x00\x00\x00").contains("not there (at byte 2)"));
    }

    #[test]
    fn damage_is_named_with_its_place() {
        assert!(error_of(b"").contains("cut short (at byte 0)"));
        assert!(error_of(b"(\xff\xff\xff\x7fi").contains("cut short (at byte 6)"));
        assert!(error_of(b"(\xff\xff\xff\xff").contains("negative length (at byte 1)"));
        assert!(error_of(b"{N0").contains("a key without a value (at byte 2)"));
        assert!(error_of(b"{NN?").contains("type code 0x3f"));
        assert!(error_of(b"c\x00\x00").contains("damaged or cut short (at byte 0)"));
        assert!(error_of(&[b'['; 500]).contains("cut short"));
        assert!(error_of(&b"\x29\x01".repeat(500)).contains("nested too deep"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(data in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&data);
        }
    }
}
