//! Containers and other types whose references are not in fields alone.

use super::dict;
use super::size::{DEQUE_BLOCK, DEQUE_ITEMS};
use super::{Name, Rest, Sink, Torn, ctypes, modules};
use crate::heap::Heap;
use crate::heap::memory::{Place, each_word};
use crate::heap::types::{Holding, Sizing, StructSeq, TypeInfo, field};
use crate::layout::heap::Field;

/// Names of descriptors, and other fields that no collector visits, by `tp_name`.
const UNVISITED: [(&str, &[Field]); 6] = [
    (
        "getset_descriptor",
        &[("__name__", 24), ("__qualname__", 32)],
    ),
    (
        "method_descriptor",
        &[("__name__", 24), ("__qualname__", 32)],
    ),
    (
        "wrapper_descriptor",
        &[("__name__", 24), ("__qualname__", 32)],
    ),
    (
        "member_descriptor",
        &[("__name__", 24), ("__qualname__", 32)],
    ),
    (
        "classmethod_descriptor",
        &[("__name__", 24), ("__qualname__", 32)],
    ),
    ("property", &[("__name__", 48)]),
];

/// A method's flags, behind its name and function; `METH_METHOD` says that it keeps its class.
const METHOD_FLAGS: u64 = 16;
const METH_METHOD: u32 = 0x200;

/// The mark of a set's slot whose key is gone.
const DUMMY_HASH: u64 = u64::MAX;

/// Types that keep a pointer to something that is no object and looks like one: their words are not looked at.
const OPAQUE: [&str; 1] = ["PyCapsule"];

/// Items inside the object.
pub fn tuple(heap: &Heap, place: &Place, count: u64, sink: &mut impl Sink) -> Result<(), Torn> {
    sink.rest(Rest::Items);
    let bytes = count.checked_mul(8).ok_or(Torn)?;
    let items = place
        .bytes(heap.layout.tuple_items.into(), bytes)
        .ok_or(Torn)?;
    if !sink.afford(count) {
        return Err(Torn);
    }
    sink.items(items);
    Ok(())
}

/// Items elsewhere.
pub fn list(heap: &Heap, place: &Place, sink: &mut impl Sink) -> Result<(), Torn> {
    sink.rest(Rest::Items);
    let count = place.word(16).ok_or(Torn)?;
    let items = heap
        .memory
        .words(place.word(24).ok_or(Torn)?, count)
        .ok_or(Torn)?;
    if !sink.afford(count) {
        return Err(Torn);
    }
    sink.items(items);
    Ok(())
}

/// What looks like an object in a struct that is not known.
pub fn unknown(info: &TypeInfo, place: &Place, sink: &mut impl Sink) -> Result<(), Torn> {
    if OPAQUE.contains(&info.tp_name.as_str()) {
        return Ok(());
    }
    let (from, to) = info.scan.unwrap_or((16, info.basic as u32));
    scan(info, place, from, to, sink)?;
    if info.item == 8 {
        let count = (place.word(16).ok_or(Torn)? as i64).unsigned_abs();
        let bytes = count.checked_mul(8).ok_or(Torn)?;
        let items = place.bytes(info.basic, bytes).ok_or(Torn)?;
        if !sink.afford(count) {
            return Err(Torn);
        }
        each_word(items).for_each(|word| sink.found(word, None));
    }
    Ok(())
}

/// The words from `from` to `to`.
pub fn scan(
    info: &TypeInfo,
    place: &Place,
    from: u32,
    to: u32,
    sink: &mut impl Sink,
) -> Result<(), Torn> {
    let length = u64::from(to.saturating_sub(from)) / 8 * 8;
    let words = place.bytes(from.into(), length).ok_or(Torn)?;
    if !sink.afford(length / 8) {
        return Err(Torn);
    }
    if sink.wants_names() && !info.inner.is_empty() {
        for (word, at) in each_word(words).zip((from..).step_by(8)) {
            let known = info.inner.iter().find(|(_, offset)| *offset == at);
            sink.found(word, known.map(|(name, _)| *name));
        }
    } else {
        each_word(words).for_each(|word| sink.found(word, None));
    }
    Ok(())
}

/// Fields that no `tp_traverse` visits.
pub fn unvisited(heap: &Heap, info: &TypeInfo, place: &Place, sink: &mut impl Sink) {
    if info.is_heap() {
        return;
    }
    if let Some((_, fields)) = UNVISITED.iter().find(|(name, _)| *name == info.tp_name) {
        for (name, offset) in *fields {
            let word = place.word_or_0(*offset);
            // A property's name is only there from 3.10 on; elsewhere it is another field of the same size.
            if *name != "__name__" || heap.memory.place(word).is_some() {
                sink.field(word, Name::Field(name));
            }
        }
    }
}

/// The rest of the known layouts.
pub fn others(
    heap: &Heap,
    info: &TypeInfo,
    place: &Place,
    full: bool,
    sink: &mut impl Sink,
) -> Result<(), Torn> {
    let get = |offset: u32| place.word(offset).ok_or(Torn);
    match info.holding {
        Holding::StructSeq(length) => {
            let count = match length {
                StructSeq::All(count) => count,
                StructSeq::More(count) => get(16)?.checked_add(count).ok_or(Torn)?,
            };
            tuple(heap, place, count, sink)
        }
        Holding::DefaultDict => {
            sink.field(get(48)?, Name::Field("default_factory"));
            sink.rest(Rest::Pairs);
            dict::references(heap, place, full, sink)
        }
        Holding::OrderedDict => ordered_dict(heap, place, full, sink),
        Holding::Set => set(heap, place, sink),
        Holding::Deque => deque(heap, place, sink),
        Holding::Code if full => code(heap, place, sink),
        Holding::Type => {
            heap_type(heap, place, full, sink)?;
            match info.sizing {
                Sizing::CType | Sizing::PointerType => ctypes::class_references(heap, place, sink),
                _ => Ok(()),
            }
        }
        Holding::Module => module(heap, place, full, sink),
        Holding::Builtin => builtin(heap, place, sink),
        Holding::LruCache => lru_cache(heap, place, sink),
        Holding::Element => element(heap, place, sink),
        Holding::NdArray if full => modules::array(heap, place, sink),
        Holding::Record if full => modules::record(heap, place, sink),
        Holding::TreeNode => modules::tree_node(heap, place, sink),
        Holding::TreeArray => modules::tree_array(place, sink),
        Holding::TeeData => modules::tee_data(place, sink),
        Holding::Queue => modules::queue(heap, place, sink),
        Holding::BytesIo => modules::bytes_io(heap, place, full, sink),
        Holding::Expat => modules::parser(heap, info, place, full, sink),
        _ => Ok(()),
    }
}

fn ordered_dict(heap: &Heap, place: &Place, full: bool, sink: &mut impl Sink) -> Result<(), Torn> {
    sink.field(place.word(96).ok_or(Torn)?, Name::Field("__dict__"));
    sink.rest(Rest::Pairs);
    if !full {
        let mut node = place.word(48).ok_or(Torn)?;
        while node != 0 {
            let link = heap.memory.place(node).ok_or(Torn)?;
            sink.item(link.word(0).ok_or(Torn)?);
            node = link.word(16).ok_or(Torn)?;
            if !sink.afford(1) {
                return Err(Torn);
            }
        }
    }
    dict::references(heap, place, full, sink)
}

fn set(heap: &Heap, place: &Place, sink: &mut impl Sink) -> Result<(), Torn> {
    sink.rest(Rest::Members);
    let slots = place
        .word(32)
        .and_then(|mask| mask.checked_add(1))
        .ok_or(Torn)?;
    let words = slots.checked_mul(2).ok_or(Torn)?;
    let table = heap
        .memory
        .words(place.word(40).ok_or(Torn)?, words)
        .ok_or(Torn)?;
    if !sink.afford(slots) {
        return Err(Torn);
    }
    let mut words = each_word(table);
    while let (Some(key), Some(hash)) = (words.next(), words.next()) {
        if hash != DUMMY_HASH {
            sink.item(key);
        }
    }
    Ok(())
}

fn deque(heap: &Heap, place: &Place, sink: &mut impl Sink) -> Result<(), Torn> {
    sink.rest(Rest::Items);
    let get = |offset: u32| place.word(offset).ok_or(Torn);
    let mut left = get(16)?;
    let (mut block, mut index) = (get(24)?, get(40)?);
    while left > 0 {
        let count = left.min(DEQUE_ITEMS.checked_sub(index).ok_or(Torn)?);
        let words = heap.memory.words(block, DEQUE_BLOCK / 8).ok_or(Torn)?;
        if count == 0 || !sink.afford(count) {
            return Err(Torn);
        }
        let from = (1 + index) as usize * 8;
        sink.items(words.get(from..from + count as usize * 8).ok_or(Torn)?);
        // The pointer to the next block is the last word.
        block = each_word(words).last().ok_or(Torn)?;
        left -= count;
        index = 0;
    }
    Ok(())
}

fn code(heap: &Heap, place: &Place, sink: &mut impl Sink) -> Result<(), Torn> {
    for (name, offset) in heap.layout.code.fields {
        sink.field(place.word(*offset).ok_or(Torn)?, Name::Field(name));
    }
    if let Some((offset, count)) = heap.layout.code.cached {
        let block = place.word(offset).ok_or(Torn)?;
        if block != 0 {
            let words = heap.memory.words(block, count.into()).ok_or(Torn)?;
            each_word(words).for_each(|word| sink.field(word, Name::Field("_co_cached")));
        }
    }
    Ok(())
}

fn heap_type(heap: &Heap, place: &Place, full: bool, sink: &mut impl Sink) -> Result<(), Torn> {
    let fields = [
        ("__dict__", field::DICT),
        ("tp_cache", field::CACHE),
        ("__mro__", field::MRO),
        ("__bases__", field::BASES),
        ("__base__", field::BASE),
    ];
    for (name, offset) in fields {
        sink.field(place.word(offset).ok_or(Torn)?, Name::Field(name));
    }
    if let Some(offset) = heap.layout.module {
        sink.field(place.word(offset).ok_or(Torn)?, Name::Field("ht_module"));
    }
    if full {
        let qualname = heap.layout.qualname;
        sink.field(
            place.word_or_0(field::SUBCLASSES),
            Name::Field("tp_subclasses"),
        );
        for (name, offset) in [
            ("__name__", qualname - 16),
            ("ht_slots", qualname - 8),
            ("__qualname__", qualname),
        ] {
            sink.field(place.word_or_0(offset), Name::Field(name));
        }
        let cached = place.word_or_0(heap.offsets.dict.cached_keys);
        if cached != 0 {
            let keys = dict::Keys::read(heap, cached).ok_or(Torn)?;
            if !sink.afford(keys.count) {
                return Err(Torn);
            }
            let each = keys.each(heap, 0, |key, _| {
                sink.field(key, Name::Field("ht_cached_keys"));
                true
            });
            each.ok_or(Torn)?;
        }
    }
    Ok(())
}

/// What a type that C code laid out refers to; no collector visits it.
pub fn static_type(heap: &Heap, place: &Place, sink: &mut impl Sink) -> Result<(), Torn> {
    let fields = [
        ("__dict__", field::DICT),
        ("tp_cache", field::CACHE),
        ("__mro__", field::MRO),
        ("__bases__", field::BASES),
        ("__base__", field::BASE),
        ("tp_subclasses", field::SUBCLASSES),
    ];
    for (name, offset) in fields {
        let word = place.word(offset).ok_or(Torn)?;
        // From 3.12 on some hold an index.
        if word >= 1 << 16 {
            sink.field(word, Name::Field(name));
        }
    }
    let own = heap.static_states.iter();
    for state in own.filter(|state| state.kind == place.address()) {
        sink.field(state.dict, Name::Field("__dict__"));
        sink.field(state.subclasses, Name::Field("tp_subclasses"));
    }
    Ok(())
}

/// Its dict, and what looks like an object in the state of its C code.
fn module(heap: &Heap, place: &Place, full: bool, sink: &mut impl Sink) -> Result<(), Torn> {
    sink.field(place.word(16).ok_or(Torn)?, Name::Field("__dict__"));
    let layout = &heap.layout.module_object;
    if full {
        // `md_name` follows `md_weaklist`, which follows the state.
        sink.field(place.word_or_0(layout.state + 16), Name::Field("__name__"));
    }
    let state = place.word(layout.state).ok_or(Torn)?;
    let (size, traverse) = match layout.definition {
        None => (
            place.word_or_0(layout.size),
            place.word_or_0(layout.traverse),
        ),
        Some(definition) => match place.word(definition).ok_or(Torn)? {
            0 => (0, 0),
            at => {
                let get = |offset: u32| {
                    heap.memory
                        .any_word(at.wrapping_add(offset.into()))
                        .unwrap_or(0)
                };
                (get(layout.size), get(layout.traverse))
            }
        },
    };
    if state != 0 && (size as i64) > 0 && (traverse != 0 || full) {
        let words = heap.memory.words(state, size / 8).ok_or(Torn)?;
        if !sink.afford(size / 8) {
            return Err(Torn);
        }
        each_word(words).for_each(|word| sink.found(word, None));
    }
    Ok(())
}

fn builtin(heap: &Heap, place: &Place, sink: &mut impl Sink) -> Result<(), Torn> {
    sink.field(place.word(24).ok_or(Torn)?, Name::Field("__self__"));
    sink.field(place.word(32).ok_or(Torn)?, Name::Field("__module__"));
    if let Some(offset) = heap.layout.method_class {
        let method = place.word(16).ok_or(Torn)?;
        let flags = heap
            .memory
            .any_word(method.wrapping_add(METHOD_FLAGS))
            .unwrap_or(0);
        if flags as u32 & METH_METHOD != 0 {
            sink.field(place.word(offset).ok_or(Torn)?, Name::Field("mm_class"));
        }
    }
    Ok(())
}

fn lru_cache(heap: &Heap, place: &Place, sink: &mut impl Sink) -> Result<(), Torn> {
    for (name, offset) in heap.layout.lru_cache {
        sink.field(place.word(*offset).ok_or(Torn)?, Name::Field(name));
    }
    sink.rest(Rest::Items);
    // The root of the ring of links is the wrapper itself.
    let mut link = place.word(24).ok_or(Torn)?;
    while link != place.address() {
        let at = heap.memory.place(link).ok_or(Torn)?;
        sink.item(at.word(40).ok_or(Torn)?);
        sink.item(at.word(48).ok_or(Torn)?);
        if heap.layout.lru_link_types {
            sink.item(at.word(8).ok_or(Torn)?);
        }
        link = at.word(24).ok_or(Torn)?;
        if !sink.afford(1) {
            return Err(Torn);
        }
    }
    Ok(())
}

fn element(heap: &Heap, place: &Place, sink: &mut impl Sink) -> Result<(), Torn> {
    for (name, offset) in [("tag", 16), ("text", 24), ("tail", 32)] {
        // The lowest bit says that a list of texts is still to be joined.
        sink.field(place.word(offset).ok_or(Torn)? & !1, Name::Field(name));
    }
    let extra = place.word(40).ok_or(Torn)?;
    if extra == 0 {
        return Ok(());
    }
    let extra = heap.memory.place(extra).ok_or(Torn)?;
    sink.field(extra.word(0).ok_or(Torn)?, Name::Field("attrib"));
    sink.rest(Rest::Items);
    let count = extra.word(8).ok_or(Torn)?;
    let children = heap
        .memory
        .words(extra.word(24).ok_or(Torn)?, count)
        .ok_or(Torn)?;
    if !sink.afford(count) {
        return Err(Torn);
    }
    sink.items(children);
    Ok(())
}
