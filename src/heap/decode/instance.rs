//! What a class statement adds to an instance: slots and a dict, or values in place of one.

use super::dict::{Keys, values_start};
use super::{Name, Sink, Torn};
use crate::heap::Heap;
use crate::heap::memory::{Place, each_word};
use crate::heap::types::{Attributes, TypeInfo, flag};
use crate::layout::heap::{Embedded, IntSize};

/// The dict, three words before the object, and in 3.11 its values, four words before it.
const DICT_BEFORE: usize = 24;
/// See [`DICT_BEFORE`].
const VALUES_BEFORE: usize = 32;

/// Bytes of the values behind an instance: how many there is room for, and whether they are in use.
const CAPACITY: u32 = 0;
const VALID: u32 = 3;

/// Slots and attributes.
#[inline]
pub fn references(
    heap: &Heap,
    info: &TypeInfo,
    place: &Place,
    full: bool,
    sink: &mut impl Sink,
) -> Result<(), Torn> {
    for (offset, name) in &info.slots {
        sink.field(place.word(*offset).ok_or(Torn)?, Name::Slot(*name));
    }
    let dict = Name::Field("__dict__");
    match info.attributes {
        Attributes::None => {}
        Attributes::At(offset) => {
            let at = dict_offset(heap, info, place, offset).ok_or(Torn)?;
            sink.field(place.word(at).ok_or(Torn)?, dict);
        }
        Attributes::ValuesOrDict(visits_dict) => {
            let block = place.word_before(VALUES_BEFORE).ok_or(Torn)?;
            if block != 0 {
                values(heap, info, block, None, sink)?;
            }
            if visits_dict || full {
                sink.field(place.word_before(DICT_BEFORE).ok_or(Torn)?, dict);
            }
        }
        Attributes::Tagged => {
            let word = place.word_before(DICT_BEFORE).ok_or(Torn)?;
            if word & 1 == 0 {
                sink.field(word, dict);
            } else {
                values(heap, info, word.wrapping_add(1), None, sink)?;
            }
        }
        Attributes::Inline(has_values) => {
            let word = place.word_before(DICT_BEFORE).ok_or(Torn)?;
            let block = place.shifted(info.basic as u32).filter(|_| has_values);
            let valid = block.is_some_and(|block| block.byte(VALID) != 0);
            let by_dict = heap.layout.embedded == Embedded::ByDict && word != 0;
            if let Some(block) = block.filter(|_| valid && !by_dict) {
                values(
                    heap,
                    info,
                    block.address(),
                    Some(block.byte(CAPACITY).into()),
                    sink,
                )?;
                if full {
                    sink.field(word, dict);
                }
            } else {
                sink.field(word, dict);
            }
        }
    }
    Ok(())
}

/// Where the dict pointer is, from the object's start.
fn dict_offset(heap: &Heap, info: &TypeInfo, place: &Place, offset: i64) -> Option<u32> {
    if offset > 0 {
        return u32::try_from(offset).ok();
    }
    let size = place.word(16)?;
    let items = match heap.layout.int {
        IntSize::Tag if info.flags & flag::LONG != 0 => size >> 3,
        _ => (size as i64).unsigned_abs(),
    };
    let end = items
        .checked_mul(info.item)?
        .checked_add(info.basic)?
        .checked_next_multiple_of(8)?;
    u32::try_from(end.checked_add_signed(offset)?).ok()
}

/// The values in `block`, named by the keys that all instances share.
fn values(
    heap: &Heap,
    info: &TypeInfo,
    block: u64,
    capacity: Option<u64>,
    sink: &mut impl Sink,
) -> Result<(), Torn> {
    let keys = Keys::read(heap, info.cached_keys);
    let count = match (capacity, &keys) {
        (Some(capacity), _) => capacity,
        (None, Some(keys)) => keys.count,
        (None, None) => return Err(Torn),
    };
    let start = values_start(heap, block);
    let values = heap.memory.words(start, count).ok_or(Torn)?;
    if !sink.afford(count) {
        return Err(Torn);
    }
    let names = keys.filter(|_| sink.wants_names()).and_then(|keys| {
        let words = heap.memory.words(keys.entries, keys.count * keys.stride)?;
        let stride = keys.stride as usize;
        Some(each_word(words).skip(stride - 2).step_by(stride))
    });
    match names {
        Some(mut names) => {
            for value in each_word(values) {
                let name = names.next().map_or(Name::Field("?"), Name::Attribute);
                sink.field(value, name);
            }
        }
        None => each_word(values).for_each(|value| sink.field(value, Name::Field("?"))),
    }
    Ok(())
}
