//! Texts in the target, and what its dicts have under a name.

use super::Heap;
use super::decode::dict::Keys;
use super::types::field;
use crate::layout::{at, object};

/// Entries of a dict among which a name is looked for.
const ENTRIES: usize = 1 << 16;

impl Heap<'_> {
    /// What the dict of the type at `class` has under `name`.
    pub fn type_entry(&self, class: u64, name: &str) -> Option<u64> {
        let own = self.memory.word(class + u64::from(field::DICT))?;
        let shared = self.static_states.iter().find(|state| state.kind == class);
        let dict = match shared {
            Some(state) if own < 1 << 16 => state.dict,
            _ => own,
        };
        self.dict_entry(dict, name)
    }

    /// What a dict has under the string `name`.
    pub fn dict_entry(&self, dict: u64, name: &str) -> Option<u64> {
        let place = self.memory.place(dict)?;
        let keys = Keys::read(self, place.word(32)?)?;
        let values = place.word(40)?;
        let (mut found, mut left) = (None, ENTRIES);
        keys.each(self, values, |key, value| {
            left -= 1;
            if value != 0 && self.text_is(key, name) {
                found = Some(value);
            }
            found.is_none() && left > 0
        });
        found
    }

    /// Whether the object at `address` is the ASCII string `expected`.
    pub fn text_is(&self, address: u64, expected: &str) -> bool {
        let Some(place) = self.memory.place(address) else {
            return false;
        };
        let length = expected.len() as u64;
        let ascii = place.int(32) & 0x60 == 0x60;
        ascii
            && place.word(16) == Some(length)
            && place.bytes(at(self.offsets.text.ascii_data) as u64, length)
                == Some(expected.as_bytes())
    }

    /// The text of the string at `address`, cut at [`crate::layout::object::TEXT_LIMIT`] characters.
    pub fn text(&self, address: u64) -> Option<String> {
        let place = self.memory.place(address)?;
        let head = place.bytes(0, place.room().min(object::TEXT_HEAD as u64))?;
        // A string at the very end of a span may have no room for the longest head.
        let mut padded = [0; object::TEXT_HEAD];
        padded[..head.len()].copy_from_slice(head);
        let text = object::text(&padded, self.offsets.text)?;
        let length = u64::from(text.length) * u64::from(text.width);
        let data = place.bytes(text.data.into(), length)?;
        Some(object::decode_text(data, text))
    }
}
