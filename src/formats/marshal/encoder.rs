//! Writes marshal: the few objects that a profile is made of.
//!
//! Only what version 2 of the format has is written, which all of Python 2.7 to 3.15 read; the exception
//! is at [`SHARED_FROM`].

use std::collections::HashMap;
use std::io::{self, Write};

use super::FLAG_REF;

/// Texts from this length on are written once and then referred to.
///
/// References came with Python 3.4, so that 2.7 cannot read a file that has one; but a file that repeats a
/// name of a million characters for each caller could be read by nobody. Paths end at 4096 on Linux.
const SHARED_FROM: usize = 4097;

/// Writes objects one after the other; what is inside of what is up to the caller.
pub struct Encoder<'a, W: Write> {
    out: W,
    shared: HashMap<&'a str, u32>,
}

impl<'a, W: Write> Encoder<'a, W> {
    /// An encoder that writes to `out`.
    pub fn new(out: W) -> Self {
        Encoder {
            out,
            shared: HashMap::new(),
        }
    }

    /// Begins a dict; keys and values follow in turn.
    pub fn begin_dict(&mut self) -> io::Result<()> {
        self.out.write_all(b"{")
    }

    /// Ends the dict.
    pub fn end_dict(&mut self) -> io::Result<()> {
        self.out.write_all(b"0")
    }

    /// Begins a tuple; `length` objects follow.
    pub fn begin_tuple(&mut self, length: u8) -> io::Result<()> {
        self.out.write_all(b"(")?;
        self.out.write_all(&u32::from(length).to_le_bytes())
    }

    /// A str. Fails when it is longer than the 2 GiB that the format can say.
    pub fn text(&mut self, text: &'a str) -> io::Result<()> {
        if text.len() >= SHARED_FROM {
            if let Some(number) = self.shared.get(text) {
                self.out.write_all(b"r")?;
                return self.out.write_all(&number.to_le_bytes());
            }
            self.shared.insert(text, self.shared.len() as u32);
            self.out.write_all(&[b'u' | FLAG_REF])?;
        } else {
            self.out.write_all(b"u")?;
        }
        let length = i32::try_from(text.len()).map_err(io::Error::other)?;
        self.out.write_all(&length.to_le_bytes())?;
        self.out.write_all(text.as_bytes())
    }

    /// An int.
    pub fn int(&mut self, value: u64) -> io::Result<()> {
        if let Ok(small) = i32::try_from(value) {
            self.out.write_all(b"i")?;
            return self.out.write_all(&small.to_le_bytes());
        }
        let digits = (u64::BITS - value.leading_zeros()).div_ceil(15);
        self.out.write_all(b"l")?;
        self.out.write_all(&digits.to_le_bytes())?;
        for place in 0..digits {
            let digit = (value >> (15 * place)) as u16 & 0x7fff;
            self.out.write_all(&digit.to_le_bytes())?;
        }
        Ok(())
    }

    /// A float, bit for bit.
    pub fn float(&mut self, value: f64) -> io::Result<()> {
        self.out.write_all(b"g")?;
        self.out.write_all(&value.to_le_bytes())
    }

    /// Writes out what is still buffered.
    pub fn finish(mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Value, read};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_long_text_is_written_once() {
        let long = "x".repeat(SHARED_FROM);
        let mut data = Vec::new();
        let mut encoder = Encoder::new(&mut data);
        encoder.begin_tuple(3).expect("vec");
        for text in [&long, "short", &long] {
            encoder.text(text).expect("vec");
        }
        encoder.finish().expect("vec");
        assert!(data.len() < SHARED_FROM + 50);
        assert_eq!(read(&data).expect("own bytes").strings, [&long, "short"]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(number in any::<u64>(), float in any::<f64>(), text in ".{0,20}") {
            let mut data = Vec::new();
            let mut encoder = Encoder::new(&mut data);
            encoder.begin_tuple(3).expect("vec");
            encoder.int(number >> 1).expect("vec");
            encoder.float(float).expect("vec");
            encoder.text(&text).expect("vec");
            encoder.finish().expect("vec");
            let document = read(&data).expect("own bytes");
            let Value::Tuple(items) = document.root.value else { panic!("tuple") };
            prop_assert!(matches!(items[0].value, Value::Int(read) if read as u64 == number >> 1));
            prop_assert!(matches!(items[1].value, Value::Float(read) if read.to_bits() == float.to_bits()));
            prop_assert_eq!(&document.strings[0], &text);
        }
    }
}
