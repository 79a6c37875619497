//! What objects of C modules hold that keep it behind pointers of their own: the trees of contexts
//! (Python/hamt.c), queues (Modules/_queuemodule.c), buffers (Modules/_io/bytesio.c), parsers of expat, arrays of numpy.

use super::dict::Keys;
use super::size::owned_data;
use super::{Name, Rest, Sink, Torn};
use crate::heap::Heap;
use crate::heap::memory::{Place, each_word};
use crate::heap::types::{Sizing, TypeInfo};
use crate::layout::heap::IntSize;

/// Pointers of a `hamt_array_node`.
const ARRAY_NODE: u64 = 32;
/// Items of a `hamt_bitmap_node` or `hamt_collision_node`, behind a word of bits or of a hash.
const NODE_ITEMS: u64 = 32;

/// A ring of items: `buf` of a `simplequeueobject` (3.13 and newer).
pub mod ring {
    /// Index of the next item that is taken.
    pub const FIRST: u32 = 32;
    /// Pointer to the items.
    pub const ITEMS: u32 = 40;
    /// Room for so many.
    pub const CAPACITY: u32 = 48;
    /// How many there are.
    pub const COUNT: u32 = 56;
}

/// `bytesio`: the buffer, a bytes object, and the dict.
pub const BUFFER: u32 = 16;
const BYTESIO_DICT: u32 = 40;
/// The minor version from which on `tp_traverse` visits the buffer.
const BUFFER_VISITED: u32 = 12;

/// A node of a context's tree: keys and values, and nodes below it, which have no key.
pub fn tree_node(heap: &Heap, place: &Place, sink: &mut impl Sink) -> Result<(), Torn> {
    let count = place.word(16).ok_or(Torn)?;
    let bytes = count.checked_mul(8).ok_or(Torn)?;
    let items = place.bytes(NODE_ITEMS, bytes).ok_or(Torn)?;
    if !sink.afford(count) {
        return Err(Torn);
    }
    sink.rest(Rest::Pairs);
    let mut words = each_word(items);
    while let (Some(key), Some(value)) = (words.next(), words.next()) {
        if key == 0 {
            sink.field(value, Name::Field("node"));
        } else if heap.memory.place(value).is_some() {
            sink.item(key);
            sink.item(value);
        }
    }
    Ok(())
}

/// A wide node of such a tree.
pub fn tree_array(place: &Place, sink: &mut impl Sink) -> Result<(), Torn> {
    let nodes = place.bytes(16, ARRAY_NODE * 8).ok_or(Torn)?;
    if !sink.afford(ARRAY_NODE) {
        return Err(Torn);
    }
    each_word(nodes).for_each(|node| sink.field(node, Name::Field("node")));
    Ok(())
}

/// `it`, `numread`, `nextlink` and the values that were read (`teedataobject`, Modules/itertoolsmodule.c): those behind them were
/// never written to.
mod tee {
    pub const IT: u32 = 16;
    pub const READ: u32 = 24;
    pub const NEXT: u32 = 32;
    pub const VALUES: u64 = 40;
    /// `LINKCELLS`.
    pub const MOST: u64 = 57;
}

/// What iterators that share another one (`itertools.tee`) have still to give.
pub fn tee_data(place: &Place, sink: &mut impl Sink) -> Result<(), Torn> {
    sink.field(place.word(tee::IT).ok_or(Torn)?, Name::Field("it"));
    sink.field(place.word(tee::NEXT).ok_or(Torn)?, Name::Field("nextlink"));
    let count = u64::from(place.int(tee::READ));
    if count > tee::MOST || !sink.afford(count) {
        return Err(Torn);
    }
    sink.rest(Rest::Items);
    sink.items(place.bytes(tee::VALUES, count * 8).ok_or(Torn)?);
    Ok(())
}

/// A queue whose items are in a ring.
pub fn queue(heap: &Heap, place: &Place, sink: &mut impl Sink) -> Result<(), Torn> {
    let get = |offset| place.word(offset).ok_or(Torn);
    let (first, capacity, count) = (get(ring::FIRST)?, get(ring::CAPACITY)?, get(ring::COUNT)?);
    sink.rest(Rest::Items);
    if count == 0 {
        return Ok(());
    }
    let items = heap.memory.words(get(ring::ITEMS)?, capacity).ok_or(Torn)?;
    if first >= capacity || count > capacity || !sink.afford(count) {
        return Err(Torn);
    }
    let (wrapped, ahead) = items.split_at_checked(first as usize * 8).ok_or(Torn)?;
    let here = (count * 8).min(ahead.len() as u64);
    sink.items(ahead.get(..here as usize).ok_or(Torn)?);
    let rest = count * 8 - here;
    sink.items(wrapped.get(..rest as usize).ok_or(Torn)?);
    Ok(())
}

/// The bytes object that a `BytesIO` writes into, unless it is shared with others; then it is not part of it.
pub fn own_buffer<'a>(heap: &Heap<'a>, place: &Place) -> Option<Place<'a>> {
    let buffer = heap.memory.place(place.word(BUFFER)?)?;
    (heap.refcount(&buffer) <= 1).then_some(buffer)
}

/// A `BytesIO`. From 3.12 on the collector visits its buffer; as `sys.getsizeof` counts one that it has for itself,
/// that is no object of its own here: it would count twice.
pub fn bytes_io(heap: &Heap, place: &Place, full: bool, sink: &mut impl Sink) -> Result<(), Torn> {
    let dict = place.word(BYTESIO_DICT).ok_or(Torn)?;
    sink.field(dict, Name::Field("__dict__"));
    let is_shown = if full {
        own_buffer(heap, place).is_none()
    } else {
        heap.layout.minor >= BUFFER_VISITED
    };
    if is_shown {
        let buffer = place.word(BUFFER).ok_or(Torn)?;
        sink.field(buffer, Name::Field("buffer"));
    }
    Ok(())
}

/// `handler_info` of Modules/pyexpat.c, in the order of `handlers`.
const HANDLERS: [&str; 22] = [
    "StartElementHandler",
    "EndElementHandler",
    "ProcessingInstructionHandler",
    "CharacterDataHandler",
    "UnparsedEntityDeclHandler",
    "NotationDeclHandler",
    "StartNamespaceDeclHandler",
    "EndNamespaceDeclHandler",
    "CommentHandler",
    "StartCdataSectionHandler",
    "EndCdataSectionHandler",
    "DefaultHandler",
    "DefaultHandlerExpand",
    "NotStandaloneHandler",
    "ExternalEntityRefHandler",
    "StartDoctypeDeclHandler",
    "EndDoctypeDeclHandler",
    "EntityDeclHandler",
    "XmlDeclHandler",
    "ElementDeclHandler",
    "AttlistDeclHandler",
    "SkippedEntityHandler",
];
/// Bytes of an `xmlparseobject` that has a `parent`, and where that is (3.14 and newer).
const WITH_PARENT: u64 = 88;
const PARENT: u32 = 24;

/// A parser of expat: its last words are the dict of strings, which the collector does not visit, and the pointer to the handlers.
pub fn parser(
    heap: &Heap,
    info: &TypeInfo,
    place: &Place,
    full: bool,
    sink: &mut impl Sink,
) -> Result<(), Torn> {
    let last = info.basic.checked_sub(8).ok_or(Torn)? as u32;
    if info.basic >= WITH_PARENT {
        let parent = place.word(PARENT).ok_or(Torn)?;
        sink.field(parent, Name::Field("parent"));
    }
    if full {
        let intern = place.word(last.checked_sub(8).ok_or(Torn)?).ok_or(Torn)?;
        sink.field(intern, Name::Field("intern"));
    }
    let handlers = place.word(last).ok_or(Torn)?;
    if handlers == 0 {
        return Ok(());
    }
    let count = HANDLERS.len() as u64;
    let words = heap.memory.words(handlers, count).ok_or(Torn)?;
    if !sink.afford(count) {
        return Err(Torn);
    }
    for (word, name) in each_word(words).zip(HANDLERS) {
        sink.field(word, Name::Field(name));
    }
    Ok(())
}

/// `NPY_OBJECT` and `NPY_VOID`, `type_num` of arrays whose items are references and of those that have fields.
const NUMPY_OBJECT: u32 = 17;
const NUMPY_VOID: u32 = 20;
/// `type_num` of a descriptor.
const TYPE_NUMBER: u32 = 28;
/// Descriptors inside of each other, and references in one item, that are followed.
const DEPTH: usize = 16;
const IN_ITEM: usize = 1 << 16;

/// Its base and its items, where it owns them and they are or have objects. Nothing of it is visited by a collector.
pub fn array(heap: &Heap, place: &Place, sink: &mut impl Sink) -> Result<(), Torn> {
    let descriptor = place.word(56).ok_or(Torn)?;
    sink.field(place.word(48).ok_or(Torn)?, Name::Field("base"));
    sink.field(descriptor, Name::Field("dtype"));
    sink.rest(Rest::Items);
    let (data, bytes) = owned_data(heap, place).ok_or(Torn)?;
    let descriptor = heap.memory.place(descriptor).ok_or(Torn)?;
    let number = descriptor.int(TYPE_NUMBER);
    if bytes == 0 || (number != NUMPY_OBJECT && number != NUMPY_VOID) {
        return Ok(());
    }
    if number == NUMPY_OBJECT {
        let items = heap.memory.words(data, bytes / 8).ok_or(Torn)?;
        if !sink.afford(bytes / 8) {
            return Err(Torn);
        }
        sink.items(items);
        return Ok(());
    }
    fields(heap, &descriptor, data, bytes, sink)
}

/// `obval` of a `PyVoidScalarObject`, behind it its descriptor, flags and base (numpy/core/include/numpy/arrayscalars.h).
pub const RECORD: u32 = 24;
const RECORD_TYPE: u32 = 32;
const RECORD_FLAGS: u32 = 40;
const RECORD_BASE: u32 = 48;
/// `NPY_ARRAY_OWNDATA`.
const OWNS_DATA: u32 = 4;

/// Whether a `numpy.void` has its value for itself.
pub fn owns_record(place: &Place) -> bool {
    place.int(RECORD_FLAGS) & OWNS_DATA != 0
}

/// Bytes of its value, which `sys.getsizeof` counts in a view too (`gentype_sizeof`).
pub fn record_size(heap: &Heap, place: &Place) -> Option<u64> {
    let size = item_size(&heap.memory.place(place.word(RECORD_TYPE)?)?);
    (size < 1 << 47).then_some(size)
}

/// A scalar with fields: those that are objects are its own where it is no view. No collector visits it.
pub fn record(heap: &Heap, place: &Place, sink: &mut impl Sink) -> Result<(), Torn> {
    let descriptor = place.word(RECORD_TYPE).ok_or(Torn)?;
    sink.field(place.word(RECORD_BASE).ok_or(Torn)?, Name::Field("base"));
    sink.field(descriptor, Name::Field("dtype"));
    sink.rest(Rest::Items);
    if !owns_record(place) {
        return Ok(());
    }
    let descriptor = heap.memory.place(descriptor).ok_or(Torn)?;
    let data = place.word(RECORD).ok_or(Torn)?;
    fields(heap, &descriptor, data, item_size(&descriptor), sink)
}

/// The objects in the fields of the items in `bytes` bytes at `data`.
fn fields(
    heap: &Heap,
    descriptor: &Place,
    data: u64,
    bytes: u64,
    sink: &mut impl Sink,
) -> Result<(), Torn> {
    let mut offsets = Vec::new();
    object_offsets(heap, descriptor, 0, 0, &mut offsets);
    let width = item_size(descriptor);
    if offsets.is_empty() || width == 0 {
        return Ok(());
    }
    let count = bytes / width;
    if !sink.afford(count.saturating_mul(offsets.len() as u64)) {
        return Err(Torn);
    }
    for item in 0..count {
        for offset in &offsets {
            // A packed item may begin anywhere.
            let at = data.wrapping_add(item * width).wrapping_add(*offset);
            sink.item(heap.memory.any_word(at).unwrap_or(0));
        }
    }
    Ok(())
}

/// Bytes of an item, `elsize`. numpy 1: int at 32, behind it the alignment, which is never 0; numpy 2: 64 bits at 40,
/// and flags at 32, of which the upper half is not used.
pub fn item_size(descriptor: &Place) -> u64 {
    match descriptor.int(36) {
        0 => descriptor.word_or_0(40),
        _ => u64::from(descriptor.int(32)),
    }
}

/// Offsets in an item of all references that `descriptor`, which begins at `from` in it, says are there.
fn object_offsets(
    heap: &Heap,
    descriptor: &Place,
    from: u64,
    depth: usize,
    offsets: &mut Vec<u64>,
) -> Option<()> {
    if depth > DEPTH || offsets.len() >= IN_ITEM {
        return None;
    }
    if descriptor.int(TYPE_NUMBER) == NUMPY_OBJECT {
        offsets.push(from);
        return Some(());
    }
    // `subarray`, behind it `fields`.
    let subarray = if descriptor.int(36) == 0 { 88 } else { 40 };
    if let Some(inner) = heap.memory.place(descriptor.word(subarray)?) {
        let base = heap.memory.place(inner.word(0)?)?;
        let width = item_size(&base);
        let count = item_size(descriptor)
            .checked_div(width)?
            .min(IN_ITEM as u64);
        for index in 0..count {
            object_offsets(heap, &base, from + index * width, depth + 1, offsets)?;
        }
        return Some(());
    }
    let fields = descriptor.word(subarray + 8)?;
    if fields == 0 {
        return Some(());
    }
    let dict = heap.memory.place(fields)?;
    let keys = Keys::read(heap, dict.word(32)?)?;
    if keys.count > IN_ITEM as u64 {
        return None;
    }
    let mut found = Vec::new();
    keys.each(heap, dict.word(40)?, |_, field| {
        found.push(field);
        true
    });
    // Each value is a tuple of descriptor and offset; a field with a title is there twice.
    let mut fields: Vec<(u64, u64)> = Vec::new();
    for field in found.into_iter().filter(|field| *field != 0) {
        let mut items = each_word(heap.tuple_items(field)?);
        let (inner, offset) = (items.next()?, items.next()?);
        fields.push((offset_of(heap, offset)?, inner));
    }
    fields.sort_unstable();
    fields.dedup();
    for (offset, inner) in fields {
        // One that cannot be read takes the others with it no more than one without objects.
        if let Some(inner) = heap.memory.place(inner) {
            object_offsets(heap, &inner, from + offset, depth + 1, offsets);
        }
    }
    Some(())
}

/// The value of a small int that is not negative.
fn offset_of(heap: &Heap, address: u64) -> Option<u64> {
    let place = heap.memory.place(address)?;
    let digits = match heap.layout.int {
        IntSize::Tag => place.word(16)? >> 3,
        IntSize::Signed(_) => place.word(16)?,
    };
    match digits {
        0 => Some(0),
        1 => Some(place.int(24).into()),
        _ => None,
    }
}

/// Words of a `pysqlite_Connection` that lead to a `callback_context` (Modules/_sqlite/connection.h, 3.11 and newer): callable, module and
/// the module's state, which the connection has too.
const SQL_CALLBACKS: [&str; 3] = ["trace_callback", "progress_handler", "authorizer"];
const SQL_STATE: u32 = 24;

/// The callbacks of a connection of sqlite3.
pub fn sql_callbacks(heap: &Heap, info: &TypeInfo, place: &Place, sink: &mut impl Sink) {
    let named = info.inner.iter();
    for (name, offset) in named.filter(|(name, _)| SQL_CALLBACKS.contains(name)) {
        let context = place.word(*offset).and_then(|at| heap.memory.place(at));
        let Some(context) = context else {
            continue;
        };
        if context.word(16) == place.word(SQL_STATE) {
            sink.field(context.word_or_0(0), Name::Field(name));
            sink.field(context.word_or_0(8), Name::Field("module"));
        }
    }
}

/// What the memo of a `Pickler` or an `Unpickler` holds (Modules/_pickle.c): entries of a table, or an array.
pub fn pickle_memo(
    heap: &Heap,
    info: &TypeInfo,
    place: &Place,
    sink: &mut impl Sink,
) -> Result<(), Torn> {
    let (array, count, stride) = match info.sizing {
        Sizing::Pickler => {
            let memo = place.word(16).ok_or(Torn)?;
            if memo == 0 {
                return Ok(());
            }
            // Mask, used, allocated and the table.
            let word = |at: u64| heap.memory.word(memo.wrapping_add(at)).ok_or(Torn);
            (word(24)?, word(16)?, 2)
        }
        Sizing::Unpickler => {
            let word = |at: u32| place.word(at).ok_or(Torn);
            (word(24)?, word(32)?, 1)
        }
        _ => return Ok(()),
    };
    if array == 0 {
        return Ok(());
    }
    let words = count.checked_mul(stride).ok_or(Torn)?;
    let words = heap.memory.words(array, words).ok_or(Torn)?;
    if !sink.afford(count) {
        return Err(Torn);
    }
    sink.rest(Rest::Items);
    let held = each_word(words).step_by(stride as usize);
    held.filter(|word| *word != 0)
        .for_each(|word| sink.item(word));
    Ok(())
}
