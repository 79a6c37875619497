//! Types that CPython lays out at build time: by what symbols they are found, and what their headers say of them (Objects/,
//! Modules/_collectionsmodule.c; the same in 3.8 to 3.15). For memory in which the types themselves are missing.

use super::{HeapOffsets, for_version};

/// `Py_TPFLAGS_HAVE_GC` and the flags that tell instances' layouts (Include/object.h).
const GC: u64 = 1 << 14;
const LONG: u64 = 1 << 24;
const LIST: u64 = 1 << 25;
const TUPLE: u64 = 1 << 26;
const BYTES: u64 = 1 << 27;
const TEXT: u64 = 1 << 28;
const DICT: u64 = 1 << 29;
const TYPE: u64 = 1 << 31;

/// The flags that [`StaticType::flags`] tells.
pub const FLAGS: u64 = GC | LONG | LIST | TUPLE | BYTES | TEXT | DICT | TYPE;

/// A type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StaticType {
    /// Of its address.
    pub symbol: &'static str,
    /// `tp_name`, as [`HeapOffsets::known_sizes`] has it.
    pub name: &'static str,
    /// `tp_itemsize`, where instances are sized by it.
    pub item: u64,
    /// `tp_flags`, as far as [`FLAGS`] go.
    pub flags: u64,
    /// `tp_base`, by its symbol.
    pub base: &'static str,
}

const OBJECT: &str = "PyBaseObject_Type";

/// The symbol of the type `type`.
pub const TYPE_TYPE: &str = "PyType_Type";

const fn row(symbol: &'static str, name: &'static str, item: u64, flags: u64) -> StaticType {
    StaticType {
        symbol,
        name,
        item,
        flags,
        base: OBJECT,
    }
}

/// Those that nearly all objects are of, and that the dynamic symbols tell of.
pub const TYPES: &[StaticType] = &[
    row(TYPE_TYPE, "type", 40, GC | TYPE),
    row("PyDict_Type", "dict", 0, GC | DICT),
    row("PyTuple_Type", "tuple", 8, GC | TUPLE),
    row("PyList_Type", "list", 0, GC | LIST),
    row("PySet_Type", "set", 0, GC),
    row("PyFrozenSet_Type", "frozenset", 0, GC),
    row("PyUnicode_Type", "str", 0, TEXT),
    row("PyLong_Type", "int", 4, LONG),
    row("PyBytes_Type", "bytes", 1, BYTES),
    row("PyByteArray_Type", "bytearray", 0, 0),
    row("PyFloat_Type", "float", 0, 0),
    row("PyProperty_Type", "property", 0, GC),
    row("PyStaticMethod_Type", "staticmethod", 0, GC),
    row("PyClassMethod_Type", "classmethod", 0, GC),
    row("PyFunction_Type", "function", 0, GC),
    row("PyModule_Type", "module", 0, GC),
    row("PyCell_Type", "cell", 0, GC),
    row("PyMethod_Type", "method", 0, GC),
    row("PyCFunction_Type", "builtin_function_or_method", 0, GC),
    row("PyCode_Type", "code", 0, 0),
    row("PyGen_Type", "generator", 0, GC),
    row("PyDictProxy_Type", "mappingproxy", 0, GC),
    row("PyGetSetDescr_Type", "getset_descriptor", 0, GC),
    row("PyMethodDescr_Type", "method_descriptor", 0, GC),
    row("PyWrapperDescr_Type", "wrapper_descriptor", 0, GC),
    row("PyMemberDescr_Type", "member_descriptor", 0, GC),
    row("PySlice_Type", "slice", 0, GC),
    row("_PyWeakref_RefType", "weakref", 0, GC),
    row("_PyWeakref_RefType", "weakref.ReferenceType", 0, GC),
    StaticType {
        base: "PyDict_Type",
        ..row("PyODict_Type", "collections.OrderedDict", 0, GC | DICT)
    },
    StaticType {
        base: "",
        ..row(OBJECT, "object", 0, 0)
    },
];

/// The types of a version: each with its `tp_basicsize`.
pub fn of(minor: u32) -> impl Iterator<Item = (&'static StaticType, u64)> {
    let known: &[(&str, u64)] =
        for_version(3, minor).map_or(&[], |layout: HeapOffsets| layout.known_sizes);
    // In 3.10 it was given another name by one of the patch releases.
    let is_known = move |kind: &&StaticType| minor != 10 || kind.name != "weakref";
    TYPES.iter().filter(is_known).filter_map(|kind| {
        let (_, basic) = known.iter().find(|(name, _)| *name == kind.name)?;
        Some((kind, *basic))
    })
}

/// Offsets in a type (Include/cpython/object.h).
mod field {
    pub const TYPE: usize = 8;
    pub const NAME: usize = 24;
    pub const BASIC: usize = 32;
    pub const ITEM: usize = 40;
    pub const FLAGS: usize = 168;
    pub const TRAVERSE: usize = 184;
    pub const BASE: usize = 256;
    pub const DICT_OFFSET: usize = 288;
}

/// What a type at `address` looks like, as far as it is known: `name` is where its name is.
pub fn image(
    layout: &HeapOffsets,
    (kind, basic): (&StaticType, u64),
    address: u64,
    name: u64,
    find: impl Fn(&str) -> u64,
) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(layout.type_size).unwrap_or(0)];
    let mut put = |at: usize, word: u64| {
        if let Some(room) = bytes.get_mut(at..at + 8) {
            room.copy_from_slice(&word.to_le_bytes());
        }
    };
    put(0, 1);
    put(field::TYPE, find(TYPE_TYPE));
    put(field::NAME, name);
    put(field::BASIC, basic);
    put(field::ITEM, kind.item);
    put(field::FLAGS, kind.flags);
    // Not the function, but what no other type has there.
    put(
        field::TRAVERSE,
        if kind.flags & GC != 0 { address } else { 0 },
    );
    if !kind.base.is_empty() {
        put(field::BASE, find(kind.base));
    }
    put(field::DICT_OFFSET, dict_offset(kind.name));
    bytes
}

/// `tp_dictoffset` of the types that are derived from in Python (Objects/typeobject.c, moduleobject.c, funcobject.c,
/// odictobject.c).
fn dict_offset(name: &str) -> u64 {
    match name {
        "type" => 264,
        "module" => 16,
        "staticmethod" | "classmethod" => 24,
        "collections.OrderedDict" => 96,
        _ => 0,
    }
}
