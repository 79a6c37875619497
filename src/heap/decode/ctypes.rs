//! What ctypes keeps of a C type: up to 3.12 in the class's dict (`StgDictObject`), since then behind the class itself
//! (`StgInfo`, Modules/_ctypes/ctypes.h). Both have the same fields.

use super::{Name, Sink, Torn};
use crate::heap::Heap;
use crate::heap::memory::Place;
use crate::heap::types::{TypeInfo, field};

/// Bytes of a plain dict, behind which a `StgDictObject` goes on.
const DICT: u32 = 48;

/// What types of functions have, from [`Fields::function`] on.
const FUNCTION: [&str; 4] = ["argtypes", "converters", "restype", "checker"];

/// Where its fields are.
struct Fields {
    length: u32,
    elements: u32,
    proto: u32,
    /// Those of [`FUNCTION`].
    function: u32,
    /// `pointer_type` (3.14 and newer) and `module`.
    others: &'static [(&'static str, u32)],
    format: u32,
    dimensions: u32,
}

/// Those of the struct in this Python, from the start of `size`.
const fn fields(minor: u32) -> Fields {
    let (others, format): (&'static [(&'static str, u32)], u32) = match minor {
        ..=12 => (&[], 120),
        13 => (&[("module", 112)], 128),
        _ => (&[("pointer_type", 112), ("module", 120)], 136),
    };
    Fields {
        length: 16,
        elements: 40,
        proto: 48,
        function: 80,
        others,
        format,
        dimensions: format + 8,
    }
}

/// What `StgDict` objects count beyond a dict of their size.
pub fn dict_extra(heap: &Heap, info: &TypeInfo, place: &Place) -> Option<u64> {
    // The struct is counted twice beyond the dict (`PyCStgDict_sizeof`).
    let twice = info.basic.checked_sub(DICT.into())?;
    Some(twice + owned(heap, &place.shifted(DICT)?)?)
}

/// What a `StgDict` refers to beyond what all dicts do; no collector visits it.
pub fn dict_references(heap: &Heap, place: &Place, sink: &mut impl Sink) {
    let fields = fields(heap.layout.minor);
    for (name, offset) in FUNCTION.into_iter().zip((fields.function..).step_by(8)) {
        sink.field(place.word_or_0(DICT + offset), Name::Field(name));
    }
}

/// What a class counts beyond its type's own size.
pub fn class_extra(heap: &Heap, place: &Place) -> Option<u64> {
    owned(heap, &info_of(heap, place)?)
}

/// The text of the format, the list of elements, and the dimensions.
fn owned(heap: &Heap, info: &Place) -> Option<u64> {
    let fields = fields(heap.layout.minor);
    let bounded = |count: u64| (count < 1 << 24).then_some(count);
    let format = info.word(fields.format)?;
    let format = match format {
        0 => 0,
        text => heap.memory.c_string(text, 1 << 16)?.len() as u64 + 1,
    };
    let elements = match info.word(fields.elements)? {
        0 => 0,
        _ => 8 * (bounded(info.word(fields.length)?)? + 1),
    };
    Some(format + elements + 8 * bounded(info.int(fields.dimensions).into())?)
}

/// The `StgInfo` of a class, from `size` on: behind what all classes have, aligned as `PyObject_GetTypeData` does.
fn info_of<'a>(heap: &Heap<'a>, place: &Place<'a>) -> Option<Place<'a>> {
    let basic = heap.memory.word(heap.type_type + u64::from(field::BASIC))?;
    let start = basic.checked_next_multiple_of(16)?;
    // `initialized` comes first.
    place.shifted(u32::try_from(start + 8).ok()?)
}

/// What a class refers to beyond what all classes do.
pub fn class_references(heap: &Heap, place: &Place, sink: &mut impl Sink) -> Result<(), Torn> {
    let fields = fields(heap.layout.minor);
    if heap.layout.minor <= 12 {
        // The dict's own `tp_traverse` is a plain dict's.
        let dict = place.word(field::DICT).ok_or(Torn)?;
        let dict = heap.memory.place(dict).ok_or(Torn)?;
        let proto = dict.word(DICT + fields.proto).ok_or(Torn)?;
        sink.field(proto, Name::Field("proto"));
        return Ok(());
    }
    let info = info_of(heap, place).ok_or(Torn)?;
    let function = (fields.function..).step_by(8);
    let all = [("proto", fields.proto)]
        .into_iter()
        .chain(FUNCTION.into_iter().zip(function))
        .chain(fields.others.iter().copied());
    for (name, offset) in all {
        sink.field(info.word(offset).ok_or(Torn)?, Name::Field(name));
    }
    Ok(())
}
