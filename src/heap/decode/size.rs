//! `sys.getsizeof` of an object, to the byte, from its memory.

use super::ctypes;
use super::dict;
use super::frames;
use super::modules::{self, ring};
use crate::heap::Heap;
use crate::heap::memory::Place;
use crate::heap::types::{Sizing, TypeInfo, field, flag};
use crate::layout::heap::{ByteArray, IntSize, Prehead};
use crate::layout::word;

/// Bytes of a deque's block, and the items in it.
pub const DEQUE_BLOCK: u64 = 528;
/// See [`DEQUE_BLOCK`].
pub const DEQUE_ITEMS: u64 = 64;
/// What an `Element` has beyond itself when it has children or attributes; the first few children are in it.
pub const ELEMENT_EXTRA: u64 = 64;
/// Most codes of a `Struct` that are looked at.
const STRUCT_CODES: u64 = 1 << 16;
/// Longest opcode caches and number of dimensions that are believed.
const DIMENSIONS: u64 = 64;

/// What `sys.getsizeof` counts of an object, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// From its address on.
    pub inside: u64,
    /// In memory that it points to.
    pub outside: u64,
    /// Before its address.
    pub before: u64,
}

impl Size {
    /// The sum.
    #[inline]
    pub fn bytes(&self) -> u64 {
        // That it can be added is known since it was found.
        self.inside
            .saturating_add(self.outside)
            .saturating_add(self.before)
    }
}

/// The size of the object of type `info` at `place`; `None` when it cannot be what it says.
#[inline]
pub fn size(heap: &Heap, info: &TypeInfo, place: &Place) -> Option<u64> {
    parts(heap, info, place).map(|size| size.bytes())
}

/// The same by parts.
#[inline]
pub fn parts(heap: &Heap, info: &TypeInfo, place: &Place) -> Option<Size> {
    let (inside, outside) = match info.sizing {
        Sizing::Default => (default_size(info, place)?, 0),
        Sizing::Int => (int_size(heap, info, place)?, 0),
        Sizing::Text => text_size(heap, place)?,
        Sizing::List => {
            let allocated = bounded(heap, place.word(32)?, 8)?;
            if allocated != 0 && heap.memory.words(place.word(24)?, allocated).is_none() {
                return None;
            }
            (info.basic, allocated * 8)
        }
        Sizing::Dict => (info.basic, dict::extra_size(heap, place)?),
        _ => other_size(heap, info, place)?,
    };
    if inside > place.room() {
        return None;
    }
    let before = pre_size(heap, info, place);
    inside.checked_add(outside)?.checked_add(before)?;
    Some(Size {
        inside,
        outside,
        before,
    })
}

/// What precedes the object and counts.
#[inline]
pub fn pre_size(heap: &Heap, info: &TypeInfo, place: &Place) -> u64 {
    if info.is_meta() && place.word_or_0(field::FLAGS) & flag::HEAP == 0 {
        return match heap.layout.prehead {
            Prehead::Collector => 0,
            Prehead::ManagedNotStatic if place.word_or_0(8) == heap.type_type => 0,
            _ => info.pre,
        };
    }
    info.pre
}

/// `count` when so many items of `width` bytes can be in the image at all.
pub fn bounded(heap: &Heap, count: u64, width: u64) -> Option<u64> {
    (count <= heap.memory.size() / width.max(1)).then_some(count)
}

#[inline]
fn default_size(info: &TypeInfo, place: &Place) -> Option<u64> {
    if info.item == 0 {
        return Some(info.basic);
    }
    let count = place.word(16)?;
    count.checked_mul(info.item)?.checked_add(info.basic)
}

#[inline]
fn int_size(heap: &Heap, info: &TypeInfo, place: &Place) -> Option<u64> {
    let word = place.word(16)?;
    match heap.layout.int {
        IntSize::Tag => (word >> 3).max(1).checked_mul(4)?.checked_add(info.basic),
        IntSize::Signed(least) => (word as i64)
            .unsigned_abs()
            .max(least)
            .checked_mul(4)?
            .checked_add(24),
    }
}

/// Bytes inside the object and elsewhere.
#[inline]
fn text_size(heap: &Heap, place: &Place) -> Option<(u64, u64)> {
    let length = place.word(16)?;
    let state = place.int(32);
    let text = &heap.offsets.text;
    if state & ASCII == ASCII {
        let inside = length.checked_add(u64::from(text.ascii_data) + 1)?;
        let wide = heap.layout.text_wide && place.word(40)? != 0;
        let outside = if wide {
            length.checked_add(1)?.checked_mul(4)?
        } else {
            0
        };
        return Some((inside, outside));
    }
    let inside = if state & COMPACT != 0 {
        let characters = length.checked_add(1)?.checked_mul(kind(state))?;
        characters.checked_add(text.compact_data.into())?
    } else {
        heap.layout.text_size
    };
    let outside = text_buffers(heap, place)?
        .into_iter()
        .flatten()
        .try_fold(0u64, |sum, (_, bytes)| sum.checked_add(bytes))?;
    bounded(heap, outside, 1)?;
    Some((inside, outside))
}

/// Bits of a string's state: its characters follow its head; the same and they are ASCII.
const COMPACT: u32 = 0x20;
const ASCII: u32 = 0x60;

/// Bytes of a character.
fn kind(state: u32) -> u64 {
    u64::from(state >> 2 & 7)
}

/// Address and bytes of what a string has elsewhere: its characters, the same in UTF-8, and as `wchar_t`.
#[inline]
pub fn text_buffers(heap: &Heap, place: &Place) -> Option<[Option<(u64, u64)>; 3]> {
    let length = place.word(16)?.checked_add(1)?;
    let state = place.int(32);
    let mut found = [None; 3];
    if state & ASCII == ASCII {
        let wide = if heap.layout.text_wide {
            place.word(40)?
        } else {
            0
        };
        if wide != 0 {
            found[2] = Some((wide, length.checked_mul(4)?));
        }
        return Some(found);
    }
    let is_compact = state & COMPACT != 0;
    // The characters of a compact string follow its head, so that no pointer to them can be in it.
    let data = match is_compact {
        true => None,
        false => Some(place.word(heap.layout.text_size as u32 - 8)?),
    };
    if let Some(data) = data.filter(|data| *data != 0) {
        found[0] = Some((data, length.checked_mul(kind(state))?));
    }
    let utf8_at = heap.offsets.text.ascii_data;
    let (utf8_length, utf8) = (place.word(utf8_at)?, place.word(utf8_at + 8)?);
    if utf8 != 0 && Some(utf8) != data {
        found[1] = Some((utf8, utf8_length.checked_add(1)?));
    }
    if heap.layout.text_wide {
        let wide = place.word(40)?;
        // Of a compact string with 4-byte characters `wstr` is its own data.
        let own = is_compact && kind(state) == 4;
        if wide != 0 && Some(wide) != data && !own {
            found[2] = Some((wide, place.word(64)?.checked_add(1)?.checked_mul(4)?));
        }
    }
    Some(found)
}

fn other_size(heap: &Heap, info: &TypeInfo, place: &Place) -> Option<(u64, u64)> {
    let basic = info.basic;
    let outside = match info.sizing {
        Sizing::OrderedDict => {
            let nodes = if place.word(48)? != 0 {
                bounded(heap, place.word(dict::USED)?, 32)? * 32
            } else {
                0
            };
            dict::extra_size(heap, place)? + bounded(heap, place.word(72)?, 8)? * 8 + nodes
        }
        Sizing::Set => {
            let address = place.word(40)?;
            let slots = bounded(heap, place.word(32)?.checked_add(1)?, 16)?;
            // The small table is the part of the set that has eight slots.
            let inside = slots == 8 && address == place.address() + 64;
            if inside { 0 } else { slots * 16 }
        }
        Sizing::Type | Sizing::PointerType => {
            if place.word(field::FLAGS)? & flag::HEAP == 0 {
                return Some((heap.layout.type_size, 0));
            }
            let cached = place.word(heap.offsets.dict.cached_keys)?;
            let keys = match cached {
                0 => 0,
                _ => dict::Keys::read(heap, cached)?.size,
            };
            return Some((heap.layout.heap_type_size, keys));
        }
        Sizing::CType => {
            let members = place.word(16)?.checked_mul(info.item)?;
            let own = basic.checked_add(members)?;
            return Some((own, ctypes::class_extra(heap, place)?));
        }
        Sizing::StgDict => {
            let extra = ctypes::dict_extra(heap, info, place)?;
            dict::extra_size(heap, place)?.checked_add(extra)?
        }
        Sizing::Scalar(bytes) => return Some((basic, bytes)),
        Sizing::ScalarText => {
            let length = place.word(16)?;
            return Some((basic.checked_add(length)?, length));
        }
        Sizing::ScalarRecord => modules::record_size(heap, place)?,
        Sizing::Pickler => pickler(heap, place)?,
        Sizing::Unpickler => unpickler(heap, place)?,
        Sizing::Code => return code_size(heap, info, place),
        Sizing::Frame => return frames::frame_size(heap, place),
        Sizing::Generator => return Some((frames::generator_size(heap, place)?, 0)),
        Sizing::Deque => {
            let used = place.word(40)?.checked_add(place.word(16)?)?;
            bounded(heap, used, 8)?.div_ceil(DEQUE_ITEMS) * DEQUE_BLOCK
        }
        Sizing::ByteArray => {
            let allocated = bounded(heap, place.word(24)?, 1)?;
            match heap.layout.bytearray {
                ByteArray::Bytes(_) if allocated > 0 => allocated + 33,
                _ => allocated,
            }
        }
        Sizing::Array => {
            let mut descriptor = [0; 8];
            if !heap.memory.read(place.word(40)?, &mut descriptor) {
                return None;
            }
            let width = word(&descriptor, 0)? >> 32;
            bounded(heap, place.word(32)?, width)? * width.min(64)
        }
        Sizing::BytesIo => match modules::own_buffer(heap, place) {
            Some(bytes) => bounded(heap, bytes.word(16)?, 1)? + 33,
            None => 0,
        },
        Sizing::Queue => bounded(heap, place.word(ring::CAPACITY)?, 8)? * 8,
        Sizing::Buffered => match place.word(56)? {
            0 => 0,
            _ => bounded(heap, place.word(120)?, 1)?,
        },
        Sizing::Struct => struct_codes(heap, place.word(32)?)? * 32,
        Sizing::Decimal => match place.byte(24) & 0xe0 {
            0 => bounded(heap, place.word(56)?, 8)? * 8,
            _ => 0,
        },
        Sizing::Element => element(heap, place)?,
        Sizing::NdArray => array_size(heap, place)?,
        // Modules/itertoolsmodule.c: the pools or the pool come first, the length behind indices and result.
        Sizing::Product => heap.tuple_items(place.word(16)?)?.len() as u64,
        Sizing::Combinations => bounded(heap, place.word(40)?, 8)? * 8,
        Sizing::Permutations => {
            heap.tuple_items(place.word(16)?)?.len() as u64 + bounded(heap, place.word(48)?, 8)? * 8
        }
        _ => 0,
    };
    Some((basic, outside))
}

/// Bytes of an element's attributes and children (Modules/_elementtree.c: up to four of these are part of the first block).
fn element(heap: &Heap, place: &Place) -> Option<u64> {
    let extra = place.word(40)?;
    if extra == 0 {
        return Some(0);
    }
    let more = heap.memory.place(extra)?;
    let is_inside = more.word(24)? == extra.wrapping_add(32);
    let outside = match is_inside {
        true => 0,
        false => bounded(heap, more.word(16)?, 8)? * 8,
    };
    Some(ELEMENT_EXTRA + outside)
}

fn struct_codes(heap: &Heap, codes: u64) -> Option<u64> {
    let mut count = 0;
    while heap.memory.word(codes.checked_add(count * 32)?)? != 0 {
        count += 1;
        if count > STRUCT_CODES {
            return None;
        }
    }
    Some(count + 1)
}

fn code_size(heap: &Heap, info: &TypeInfo, place: &Place) -> Option<(u64, u64)> {
    let code = &heap.layout.code;
    let extra = match place.word(code.extra)? {
        0 => 0,
        block => {
            let count = heap.memory.word(block)?;
            8 + 8 * bounded(heap, count, 8)?
        }
    };
    let Some(old) = code.old else {
        let inside = place
            .word(16)?
            .checked_mul(info.item)?
            .checked_add(info.basic)?;
        return Some((inside.checked_next_multiple_of(8)?, extra));
    };
    let mut outside = extra;
    let cells = place.word(old.cellvars)?;
    if place.word(old.cell2arg)? != 0 && cells != 0 {
        outside += bounded(heap, heap.memory.place(cells)?.word(16)?, 8)? * 8;
    }
    if place.word(old.opcache)? != 0 {
        let length = heap.memory.place(place.word(old.code)?)?.word(16)?;
        outside += bounded(heap, length, 1)? / 2
            + u64::from(place.byte(old.opcache_size)) * old.opcache_entry;
    }
    Some((info.basic, outside))
}

/// Dimensions, and data that the array owns (numpy/core/src/multiarray/methods.c, array_sizeof).
fn array_size(heap: &Heap, place: &Place) -> Option<u64> {
    let dimensions = u64::from(place.int(24));
    if dimensions > DIMENSIONS {
        return None;
    }
    Some(16 * dimensions + owned_data(heap, place)?.1)
}

/// Address and bytes of the data that an array owns; none for a view.
pub fn owned_data(heap: &Heap, place: &Place) -> Option<(u64, u64)> {
    const OWNS_DATA: u32 = 4;
    let dimensions = u64::from(place.int(24));
    if place.int(64) & OWNS_DATA == 0 || dimensions > DIMENSIONS {
        return Some((0, 0));
    }
    let descriptor = heap.memory.place(place.word(56)?)?;
    let width = modules::item_size(&descriptor);
    let lengths = heap.memory.words(place.word(32)?, dimensions)?;
    let count = crate::heap::memory::each_word(lengths).try_fold(1u64, u64::checked_mul)?;
    let bytes = count.checked_mul(width)?;
    (bytes < 1 << 47).then_some((place.word(16)?, bytes))
}

/// The memo of a `Pickler` and its buffer, a bytes object (`_pickle_Pickler___sizeof___impl`, Modules/_pickle.c).
fn pickler(heap: &Heap, place: &Place) -> Option<u64> {
    let memo = match place.word(16)? {
        0 => 0,
        memo => {
            // Mask, used, allocated and the table.
            let entries = heap.memory.word(memo.checked_add(16)?)?;
            32 + 16 * bounded(heap, entries, 16)?
        }
    };
    // 3.13 has no `pers_func_self`.
    let buffer = if heap.layout.minor == 13 { 56 } else { 64 };
    let buffer = match place.word(buffer)? {
        0 => 0,
        buffer => {
            let length = heap.memory.place(buffer)?.word(16)?;
            33 + bounded(heap, length, 1)?
        }
    };
    Some(memo + buffer)
}

/// The memo of an `Unpickler`, its marks and its texts (`_pickle_Unpickler___sizeof___impl`).
fn unpickler(heap: &Heap, place: &Place) -> Option<u64> {
    // `input_line` and `encoding`; `errors` and `marks` follow, and `marks_size` behind `num_marks`.
    let (line, encoding) = match heap.layout.minor {
        ..=12 => (152, 224),
        13 => (144, 216),
        14 => (152, 240),
        _ => (160, 248),
    };
    let array = |array: u32, count: u32| match place.word(array)? {
        0 => Some(0),
        _ => Some(8 * bounded(heap, place.word(count)?, 8)?),
    };
    let text = |at: u32| match place.word(at)? {
        0 => Some(0),
        text => Some(heap.memory.c_string(text, 1 << 16)?.len() as u64 + 1),
    };
    let arrays = array(24, 32)? + array(encoding + 16, encoding + 32)?;
    Some(arrays + text(line)? + text(encoding)? + text(encoding + 8)?)
}
