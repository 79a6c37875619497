//! Layouts of types that C code made, by their names.

use super::{BASES, Head, Holding, Hook, NAME_LIMIT, Sizing, StructSeq, field, flag, head};
use crate::heap::Heap;
use crate::layout::heap::{Field, StructSeqLength, fields, inner};

/// How instances of a type that C code made are laid out: by its name, else by the name of its nearest base that is
/// known; then what lies behind that base is scanned, unless the type has its base's `tp_traverse`.
pub fn native_kind(heap: &Heap, native: &Head) -> (Sizing, Holding, Option<(u32, u32)>) {
    if native.flags & flag::TYPE != 0 {
        let sizing = metatype_sizing(heap, native);
        // What a metatype of C code has beyond `type` is not known, but for those of ctypes.
        let basic = heap.memory.word(heap.type_type + u64::from(field::BASIC));
        let known = basic.unwrap_or(u64::MAX) as u32;
        let grown = sizing == Sizing::Type && u64::from(known) < native.basic;
        let scan = grown.then_some((known, native.basic as u32));
        return (sizing, Holding::Type, scan);
    }
    let name = |head: &Head| {
        heap.memory
            .c_string(head.name, NAME_LIMIT)
            .unwrap_or_default()
    };
    let own_name = name(native);
    // Of what is not known by its name no size is sure but that of its struct.
    if own_name.is_empty() && heap.is_cut() {
        let scan = (native.base != 0).then_some((16, native.basic as u32));
        return (Sizing::Scalar(0), Holding::Unknown, scan);
    }
    if native.flags & flag::TUPLE != 0 && own_name != "tuple" {
        let beyond = native.basic.saturating_sub(heap.layout.tuple_items.into()) / 8;
        let length = match heap.layout.structseq {
            StructSeqLength::BasicSize => StructSeq::More(beyond),
            StructSeqLength::Dict => match field_count(heap, native) {
                Some(count) => StructSeq::All(count),
                None => StructSeq::More(0),
            },
        };
        return (Sizing::Default, Holding::StructSeq(length), None);
    }
    let mut base = *native;
    for _ in 0..BASES {
        let base_name = if base.address == native.address {
            own_name.clone()
        } else {
            name(&base)
        };
        // What a class statement made has a name without a module, which may be that of anything.
        let is_anything = base.flags & flag::HEAP != 0 && !base_name.contains('.');
        let known = known_kind(heap, &base_name).filter(|_| !is_anything);
        if let Some((sizing, holding)) = known {
            let grown = base.address != native.address
                && base.traverse != native.traverse
                && base.basic < native.basic;
            let scan = grown.then_some((base.basic as u32, native.basic as u32));
            return (sizing, holding, scan);
        }
        if base.base == 0 {
            break;
        }
        match head(heap, base.base) {
            Some(next) => base = next,
            None => break,
        }
    }
    if native.base == 0 {
        return (Sizing::Default, Holding::Fields(&[]), None);
    }
    (
        Sizing::Default,
        Holding::Unknown,
        Some((16, native.basic as u32)),
    )
}

/// What is known of the words of a struct that is scanned.
pub fn inner_names(heap: &Heap, native: &Head) -> &'static [Field] {
    let name = heap.memory.c_string(native.name, NAME_LIMIT);
    name.map_or(&[], |name| inner::of(heap.layout.minor, &name))
}

/// `n_fields` in a structseq's dict.
fn field_count(heap: &Heap, native: &Head) -> Option<u64> {
    let value = heap.type_entry(native.address, "n_fields")?;
    let place = heap.memory.place(value)?;
    Some(u64::from(place.int(24)).min(1000))
}

const RANGE: &[Field] = &[("start", 16), ("stop", 24), ("step", 32), ("length", 40)];

fn known_kind(heap: &Heap, name: &str) -> Option<(Sizing, Holding)> {
    let layout = &heap.layout;
    let nothing = Holding::Fields(&[]);
    let listed = fields::of(layout.minor, name).map_or(Holding::Unknown, Holding::Fields);
    Some(match name {
        "int" => (Sizing::Int, nothing),
        "str" => (Sizing::Text, nothing),
        "list" => (Sizing::List, Holding::List),
        "tuple" => (Sizing::Default, Holding::Tuple),
        "dict" | "frozendict" => (Sizing::Dict, Holding::Dict),
        "collections.defaultdict" => (Sizing::Dict, Holding::DefaultDict),
        "collections.OrderedDict" => (Sizing::OrderedDict, Holding::OrderedDict),
        "set" | "frozenset" => (Sizing::Set, Holding::Set),
        "code" => (Sizing::Code, Holding::Code),
        "frame" => (Sizing::Frame, Holding::Frame),
        "generator" | "coroutine" | "async_generator" if layout.generator.is_some() => (
            Sizing::Generator,
            Holding::Generator(match name {
                "generator" => Hook::Unset,
                "coroutine" => Hook::Origin,
                _ => Hook::Finalizer,
            }),
        ),
        "module" => (Sizing::Default, Holding::Module),
        "builtin_function_or_method" | "builtin_method" => (Sizing::Default, Holding::Builtin),
        "functools._lru_cache_wrapper" => (Sizing::Default, Holding::LruCache),
        "collections.deque" => (Sizing::Deque, Holding::Deque),
        "bytearray" => (Sizing::ByteArray, nothing),
        "numpy.bytes_" => (Sizing::ScalarText, nothing),
        "numpy.void" => (Sizing::ScalarRecord, Holding::Record),
        "_pickle.Pickler" => (Sizing::Pickler, Holding::Unknown),
        "_pickle.Unpickler" => (Sizing::Unpickler, Holding::Unknown),
        "StgDict" => (Sizing::StgDict, Holding::Dict),
        "array.array" => (Sizing::Array, nothing),
        "functools.KeyWrapper" if layout.minor < 10 => {
            (Sizing::Default, Holding::Unvisited(fields::KEY_WRAPPER))
        }
        "range" => (Sizing::Default, Holding::Unvisited(RANGE)),
        "moduledef" if layout.minor < 13 => (
            Sizing::Default,
            Holding::Unvisited(fields::MODULE_DEFINITION),
        ),
        "_io.BytesIO" => (Sizing::BytesIo, Holding::BytesIo),
        "pyexpat.xmlparser" => (Sizing::Default, Holding::Expat),
        "_io.StringIO" => (Sizing::StringIo, Holding::Unknown),
        // Up to 3.12 it has a list, which is found.
        "_queue.SimpleQueue" if layout.minor >= 15 => (Sizing::Queue, Holding::Queue),
        "_queue.SimpleQueue" if layout.minor >= 13 => (Sizing::Default, Holding::Queue),
        "hamt_bitmap_node" | "hamt_collision_node" => (Sizing::Default, Holding::TreeNode),
        "hamt_array_node" => (Sizing::Default, Holding::TreeArray),
        "_io.BufferedReader" | "_io.BufferedWriter" | "_io.BufferedRandom" => {
            (Sizing::Buffered, Holding::Unknown)
        }
        "Struct" | "_struct.Struct" => (Sizing::Struct, Holding::Unknown),
        "decimal.Decimal" => (Sizing::Decimal, nothing),
        "xml.etree.ElementTree.Element" => (Sizing::Element, Holding::Element),
        "numpy.ndarray" => (Sizing::NdArray, Holding::NdArray),
        "itertools._tee_dataobject" => (Sizing::Default, Holding::TeeData),
        "itertools.product" => (Sizing::Product, listed),
        "itertools.permutations" => (Sizing::Permutations, listed),
        "itertools.combinations" | "itertools.combinations_with_replacement" => {
            (Sizing::Combinations, listed)
        }
        // Everything is an object: that alone says nothing of a layout.
        "object" => return None,
        _ => match scalar_bytes(name) {
            Some(bytes) => (Sizing::Scalar(bytes), nothing),
            None => {
                let fields = fields::of(layout.minor, name)?;
                (Sizing::Default, Holding::Fields(fields))
            }
        },
    })
}

/// How big the types are that are instances of a metatype that C code made.
fn metatype_sizing(heap: &Heap, native: &Head) -> Sizing {
    let mut base = *native;
    for _ in 0..BASES {
        let name = heap.memory.c_string(base.name, NAME_LIMIT);
        match name.as_deref() {
            Some("_ctypes.CType_Type") if heap.layout.minor >= 13 => return Sizing::CType,
            Some("_ctypes.PyCPointerType") if heap.layout.minor <= 12 => {
                return Sizing::PointerType;
            }
            _ => {}
        }
        match head(heap, base.base) {
            Some(next) if base.base != heap.type_type => base = next,
            _ => break,
        }
    }
    Sizing::Type
}

/// Bytes of the value of a numpy scalar, which `sys.getsizeof` counts although they lie inside (`gentype_sizeof`).
fn scalar_bytes(name: &str) -> Option<u64> {
    Some(match name.strip_prefix("numpy.")? {
        "bool" | "bool_" | "int8" | "uint8" => 1,
        "float16" | "int16" | "uint16" => 2,
        "float32" | "int32" | "uint32" => 4,
        "float64" | "int64" | "uint64" | "longlong" | "ulonglong" | "complex64" => 8,
        "datetime64" | "timedelta64" => 8,
        "longdouble" | "float128" | "complex128" => 16,
        "clongdouble" | "complex256" => 32,
        _ => return None,
    })
}
