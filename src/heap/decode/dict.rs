//! Dicts: their keys objects, entries and values (Objects/dictobject.c, Include/internal/pycore_dict.h).

use super::{Sink, Torn};
use crate::heap::Heap;
use crate::heap::memory::{Place, each_word};
use crate::layout::DictKeys;
use crate::layout::heap::Embedded;

/// `ma_used`, `ma_keys` and `ma_values` of a dict.
pub const USED: u32 = 16;
/// See [`USED`].
pub const KEYS: u32 = 32;
/// See [`USED`].
pub const VALUES: u32 = 40;

/// Byte of an instance's values that says whether they lie behind it.
pub const IS_EMBEDDED: u32 = 2;
/// Bytes before the values themselves where they may be embedded.
const VALUES_HEAD: u64 = 8;

/// A keys object.
#[derive(Debug, Clone, Copy)]
pub struct Keys {
    /// `dk_refcnt`.
    pub refs: u64,
    /// Address of the first entry.
    pub entries: u64,
    /// Words of an entry: key and value, or hash, key and value.
    pub stride: u64,
    /// Entries in use.
    pub count: u64,
    /// Values of a split dict.
    pub slots: u64,
    /// Its bytes.
    pub size: u64,
    /// Whether all keys are strings, so that the collector does not visit them.
    pub unicode: bool,
}

impl Keys {
    /// The keys object at `address`; `None` when there is none, or its entries are not all mapped.
    pub fn read(heap: &Heap, address: u64) -> Option<Keys> {
        let place = heap.memory.place(address)?;
        let keys = match heap.offsets.dict.keys {
            DictKeys::Log2 => {
                let shape = place.word(8)?;
                let (log2_size, log2_index, kind) =
                    (shape & 0xff, shape >> 8 & 0xff, shape >> 16 & 0xff);
                if log2_size > 48 || log2_index > 51 {
                    return None;
                }
                let stride = if kind == 0 { 3 } else { 2 };
                let (usable, count) = (place.word(16)?, place.word(24)?);
                Keys {
                    refs: place.word(0)?,
                    entries: address + 32 + (1 << log2_index),
                    stride,
                    count,
                    slots: count.checked_add(usable)?,
                    size: 32 + (1 << log2_index) + usable_fraction(1 << log2_size) * stride * 8,
                    unicode: kind != 0,
                }
            }
            DictKeys::Sized => {
                let size = place.word(8)?;
                if size > 1 << 48 {
                    return None;
                }
                let width = match size {
                    0..=0xff => 1,
                    0x100..=0xffff => 2,
                    0x1_0000..=0xffff_ffff => 4,
                    _ => 8,
                };
                Keys {
                    refs: place.word(0)?,
                    entries: address + 40 + width * size,
                    stride: 3,
                    count: place.word(32)?,
                    slots: usable_fraction(size),
                    size: 40 + width * size + usable_fraction(size) * 24,
                    unicode: place.word(16)? != heap.general_lookup,
                }
            }
        };
        let room = place.room();
        let used =
            (keys.entries - address).checked_add(keys.count.checked_mul(keys.stride * 8)?)?;
        (used <= room && keys.size <= room && keys.slots <= keys.size).then_some(keys)
    }

    /// Calls `each` with key and value of every entry, `values` instead of those in the entries where it is not 0;
    /// until that gives false.
    pub fn each(
        &self,
        heap: &Heap,
        values: u64,
        mut each: impl FnMut(u64, u64) -> bool,
    ) -> Option<()> {
        let entries = heap.memory.words(self.entries, self.count * self.stride)?;
        let key = self.stride as usize - 2;
        if values == 0 {
            for entry in entries.chunks_exact(self.stride as usize * 8) {
                if !each(word(entry, key), word(entry, key + 1)) {
                    break;
                }
            }
        } else {
            let values = heap.memory.words(values_start(heap, values), self.count)?;
            for (entry, value) in entries
                .chunks_exact(self.stride as usize * 8)
                .zip(each_word(values))
            {
                if !each(word(entry, key), value) {
                    break;
                }
            }
        }
        Some(())
    }
}

#[inline]
fn word(bytes: &[u8], index: usize) -> u64 {
    bytes.get(index * 8..index * 8 + 8).map_or(0, |word| {
        u64::from_le_bytes(word.try_into().unwrap_or_default())
    })
}

fn usable_fraction(size: u64) -> u64 {
    (size << 1) / 3
}

/// The first value of a values block.
pub fn values_start(heap: &Heap, values: u64) -> u64 {
    match heap.layout.embedded {
        Embedded::None => values,
        _ => values.wrapping_add(VALUES_HEAD),
    }
}

/// `sys.getsizeof` beyond the basic size.
#[inline]
pub fn extra_size(heap: &Heap, place: &Place) -> Option<u64> {
    let keys = Keys::read(heap, place.word(KEYS)?)?;
    let values = if place.word(VALUES)? != 0 {
        keys.slots * 8
    } else {
        0
    };
    Some(values + if keys.refs == 1 { keys.size } else { 0 })
}

/// What a dict refers to: what its `tp_traverse` visits, or with `full` keys and values in turn.
#[inline]
pub fn references(
    heap: &Heap,
    place: &Place,
    full: bool,
    sink: &mut impl Sink,
) -> Result<(), Torn> {
    let keys = Keys::read(heap, place.word(KEYS).ok_or(Torn)?).ok_or(Torn)?;
    let values = place.word(VALUES).ok_or(Torn)?;
    if !sink.afford(keys.count) {
        return Err(Torn);
    }
    if !full && keys.unicode {
        if values != 0 {
            let embedded = heap.layout.embedded == Embedded::ByInstance
                && heap
                    .memory
                    .any_place(values)
                    .is_some_and(|v| v.byte(IS_EMBEDDED) != 0);
            if embedded {
                return Ok(());
            }
            let values = heap
                .memory
                .words(values_start(heap, values), keys.count)
                .ok_or(Torn)?;
            sink.items(values);
            return Ok(());
        }
        return keys
            .each(heap, 0, |_, value| {
                sink.item(value);
                true
            })
            .ok_or(Torn);
    }
    // A string that is interned and mortal is not counted by the dict of all of them, and goes without it.
    let interned = heap
        .interned
        .iter()
        .any(|(_, dict)| *dict == place.address());
    let borrowed = |key: u64| {
        let place = heap.memory.place(key);
        full && interned && place.is_some_and(|place| !heap.is_immortal(&place))
    };
    let visited = keys.each(heap, values, |key, value| {
        if value != 0 && borrowed(key) {
            sink.borrowed(key);
        } else if value != 0 {
            sink.item(key);
            sink.item(value);
        }
        true
    });
    visited.ok_or(Torn)
}
