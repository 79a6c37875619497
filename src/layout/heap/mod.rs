//! What the heap's structs look like: where a collector keeps its lists, what precedes an object, and which fields
//! of each builtin type hold references.
//!
//! One [`HeapOffsets`] a minor version. What differs between versions in kind is an enum in it. No I/O here.

mod exceptions;
pub mod fields;
pub mod held;
pub mod inner;
pub mod statics;
mod v3_10;
mod v3_11;
mod v3_12;
mod v3_13;
mod v3_14;
mod v3_15;
mod v3_8;
mod v3_9;

use super::debug_offsets::{self, Mismatch};

/// A field that holds a reference, and what Python code calls it.
pub type Field = (&'static str, u32);

/// Fields of a type: first and last minor version, the type's `tp_name`, its fields.
type Row = (u32, u32, &'static str, &'static [Field]);

/// The lists in a `struct _gc_runtime_state`; where that is, [`super::gc`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GcLists {
    /// `generations[0].head`; the others follow at [`GENERATION_STRIDE`].
    pub generations: u32,
    /// `permanent_generation.head`.
    pub permanent: u32,
    /// Lists of Python that are in the same place.
    pub lists: &'static [Field],
}

/// Bytes of a `struct gc_generation`.
pub const GENERATION_STRIDE: u32 = 24;

/// Bytes of a `PyGC_Head`, which precedes each object that the collector knows.
pub const GC_HEAD: u64 = 16;

/// Where static types keep what belongs to one interpreter (3.12 and newer).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StaticTypes {
    /// First entry, in the interpreter. Differs between patch releases: looked for from here.
    pub entries: u32,
    /// Bytes of an entry; the type is its first word.
    pub stride: u32,
    /// `tp_dict` in an entry, which `tp_subclasses` follows.
    pub dict: u32,
    /// Entries for the interpreter's own types, behind which are those of extension modules (3.13 and newer).
    pub builtins: Option<u32>,
}

impl StaticTypes {
    /// Bytes before the entries of extension modules: how many there are, and the next free one.
    pub const EXTENSIONS: u64 = 16;
    /// `_Py_MAX_MANAGED_STATIC_EXT_TYPES`.
    pub const MOST_EXTENSIONS: u64 = 10;
}

/// What precedes an object and is counted by `sys.getsizeof`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prehead {
    /// The collector's head, except before static types (up to 3.10).
    Collector,
    /// The collector's head and 16 bytes for a managed dict, before static types too (3.11).
    ManagedDict,
    /// The collector's head and 16 bytes for a managed dict or weak references (3.12).
    Managed,
    /// The same, nothing before static types (3.13 and newer).
    ManagedNotStatic,
}

/// How an int tells the number of its digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntSize {
    /// `ob_size` with the sign of the number; at least this many digits are counted (up to 3.11).
    Signed(u64),
    /// `lv_tag` (3.12 and newer).
    Tag,
}

/// What a reference count may look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefCount {
    /// A word (up to 3.11).
    Word,
    /// The low half; all ones: immortal (3.12, 3.13).
    Low,
    /// The low half, with flags in the uppermost 16 bits; the sign bit of the low half: immortal (3.14 and newer).
    LowAndFlags,
}

/// How instances whose values lie behind them are visited when they have a dict too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Embedded {
    /// There are none (up to 3.12).
    None,
    /// The instance visits the values, the dict does not (3.13).
    ByInstance,
    /// The instance visits the dict, which visits the values (3.14 and newer).
    ByDict,
}

/// Module objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModuleOffsets {
    /// `md_state`.
    pub state: u32,
    /// Size of the state: at the first offset in the object at the second one's pointer, if there is a second one.
    pub size: u32,
    /// `m_traverse`, in the same place.
    pub traverse: u32,
    /// `md_def`, where the definition has the above.
    pub definition: Option<u32>,
}

/// Code objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeapCodeOffsets {
    /// References; the collector visits none of them.
    pub fields: &'static [Field],
    /// `co_extra`.
    pub extra: u32,
    /// Pointer to a block of this many more references (3.12 and newer).
    pub cached: Option<(u32, u32)>,
    /// Flags (`co_flags`).
    pub old: Option<OldCode>,
}

/// What only code objects up to 3.10 have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OldCode {
    /// `co_code`.
    pub code: u32,
    /// `co_nlocals`.
    pub nlocals: u32,
    /// `co_varnames`.
    pub varnames: u32,
    /// `co_freevars`.
    pub freevars: u32,
    /// `co_cellvars`.
    pub cellvars: u32,
    /// `co_cell2arg`.
    pub cell2arg: u32,
    /// `co_opcache`.
    pub opcache: u32,
    /// `co_opcache_size`, a byte.
    pub opcache_size: u32,
    /// Bytes of an entry of the opcache.
    pub opcache_entry: u64,
}

/// Where a frame's evaluation stack ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StackEnd {
    /// Pointer behind the last value; null while it runs (3.8, 3.9; 3.14 and newer).
    Pointer(u32),
    /// Int: number of values on the stack; -1 while it runs (3.10).
    Depth(u32),
    /// Int: number of local variables and values on the stack; -1 while it runs (3.11 to 3.13).
    Top(u32),
}

/// How many slots a frame has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameSlots {
    /// Local variables, cells, free variables and stack, each from the code object (up to 3.10).
    Counted,
    /// `co_nlocalsplus` and `co_stacksize` (3.11).
    Sum,
    /// `co_framesize`, in words, the frame's head included (3.12 and newer).
    FrameSize(u32),
}

/// Frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeapFrameOffsets {
    /// References of a frame object.
    pub object: &'static [Field],
    /// Bytes of a frame object before its slots (up to 3.10), or before the frame that it owns.
    pub object_size: u32,
    /// References of an interpreter frame that the collector visits; empty where a frame is its object.
    pub inner: &'static [Field],
    /// Its borrowed ones: globals and builtins.
    pub borrowed: &'static [Field],
    /// Pointer from the frame object to its frame; `None` where a frame is its object.
    pub frame: Option<u32>,
    /// Value of the owner byte of a frame that its frame object owns.
    pub owned_by_object: u8,
    /// End of the evaluation stack.
    pub end: StackEnd,
    /// Number of slots.
    pub slots: FrameSlots,
}

/// Generators that hold their frame (3.11 and newer).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GeneratorOffsets {
    /// References.
    pub fields: &'static [Field],
    /// `ag_origin_or_finalizer`, which only asynchronous generators visit.
    pub finalizer: u32,
    /// The frame.
    pub frame: u32,
    /// `gi_frame_state`, a signed byte: 4 and more, cleared.
    pub state: u32,
    /// Whether a cleared one still visits its code.
    pub keeps_code: bool,
}

/// Where a bytearray has its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteArray {
    /// In memory of its own: `ob_alloc` counts (up to 3.14).
    Allocated,
    /// In a bytes object, at this offset (3.15).
    Bytes(u32),
}

/// How the number of fields of a structseq is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StructSeqLength {
    /// `n_fields` in the type's dict (up to 3.12).
    Dict,
    /// `ob_size` and what the type's basic size has beyond a tuple's (3.13 and newer).
    BasicSize,
}

/// All that is known of one version's heap.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeapOffsets {
    /// The collector.
    pub gc: GcLists,
    /// Objects that an interpreter holds, in its state.
    pub interpreter: &'static [Field],
    /// `sysdict` and `builtins` in an interpreter.
    pub sysdict: u32,
    /// See [`StaticTypes`].
    pub static_types: Option<StaticTypes>,
    /// Bytes of a static type.
    pub type_size: u64,
    /// Bytes of a type made at run time.
    pub heap_type_size: u64,
    /// `ht_qualname`.
    pub qualname: u32,
    /// `ht_module`.
    pub module: Option<u32>,
    /// What precedes objects.
    pub prehead: Prehead,
    /// Ints.
    pub int: IntSize,
    /// Reference counts.
    pub refcount: RefCount,
    /// Bytes of `PyUnicodeObject`.
    pub text_size: u64,
    /// Whether strings may have a `wstr` (up to 3.11).
    pub text_wide: bool,
    /// Values behind instances.
    pub embedded: Embedded,
    /// Items of a tuple.
    pub tuple_items: u32,
    /// Code objects.
    pub code: HeapCodeOffsets,
    /// Frames.
    pub frame: HeapFrameOffsets,
    /// Generators; `None` where their frame is an object of its own.
    pub generator: Option<GeneratorOffsets>,
    /// Modules.
    pub module_object: ModuleOffsets,
    /// Bytearrays.
    pub bytearray: ByteArray,
    /// `mm_class` of a builtin method.
    pub method_class: Option<u32>,
    /// Whether instances of types that C code made at run time visit their type (3.9 and newer).
    pub visits_type: bool,
    /// References of a `functools._lru_cache_wrapper`.
    pub lru_cache: &'static [Field],
    /// Whether it visits the types of its links too (3.10 and newer).
    pub lru_link_types: bool,
    /// Structseqs.
    pub structseq: StructSeqLength,
    /// The minor version, for [`fields::of`] and [`inner::of`].
    pub minor: u32,
    /// Bytes of an arena and of a pool of pymalloc (Objects/obmalloc.c; pycore_obmalloc.h from 3.10 on).
    pub arena_size: u64,
    /// See there.
    pub pool_size: u64,
    /// `tp_basicsize` of types that every interpreter has, to check the above against.
    pub known_sizes: &'static [(&'static str, u64)],
    /// Words of `_Py_DebugOffsets` and what must be in them: position, name, value.
    pub debug: &'static [(u32, &'static str, u64)],
    /// Position in it of `sysdict`, which moves between patch releases.
    pub debug_sysdict: Option<u32>,
}

/// The offsets of a version; `None` for one that is not known.
pub fn for_version(major: u32, minor: u32) -> Option<HeapOffsets> {
    Some(match (major, minor) {
        (3, 8) => v3_8::OFFSETS,
        (3, 9) => v3_9::OFFSETS,
        (3, 10) => v3_10::OFFSETS,
        (3, 11) => v3_11::OFFSETS,
        (3, 12) => v3_12::OFFSETS,
        (3, 13) => v3_13::OFFSETS,
        (3, 14) => v3_14::OFFSETS,
        (3, 15) => v3_15::OFFSETS,
        _ => return None,
    })
}

/// `table` with what the interpreter's own block of offsets knows better; fails where both cannot be right. For a
/// version without such a block the table is taken as it is.
pub fn checked(block: &[u8], table: HeapOffsets) -> Result<HeapOffsets, Mismatch> {
    let Some(sysdict) = table.debug_sysdict else {
        return Ok(table);
    };
    if !block.starts_with(debug_offsets::COOKIE) {
        return Err(Mismatch::NoCookie);
    }
    if debug_offsets::is_free_threaded(block) {
        return Err(Mismatch::FreeThreaded);
    }
    let get = |position: u32| super::word(block, super::at(position));
    for (position, name, expected) in table.debug {
        if get(*position) != Some(*expected) {
            return Err(Mismatch::Field(name));
        }
    }
    let mut offsets = table;
    offsets.sysdict = get(sysdict)
        .filter(|offset| *offset < 4 << 20)
        .and_then(|offset| u32::try_from(offset).ok())
        .ok_or(Mismatch::Field("interpreter_state.sysdict"))?;
    Ok(offsets)
}

/// `lru_cache_object` (Modules/_functoolsmodule.c): the same in 3.8 to 3.15.
pub mod lru {
    /// Dict with the results.
    pub const CACHE: u32 = 72;
    /// Word: calls answered from it.
    pub const HITS: u32 = 80;
    /// The function.
    pub const FUNCTION: u32 = 88;
    /// Signed word: limit, -1 for none.
    pub const MAXSIZE: u32 = 96;
    /// Word: calls not answered from it.
    pub const MISSES: u32 = 104;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::tables::MINORS;

    #[test]
    fn every_minor_version_has_one_table_of_its_own() {
        let tables: Vec<HeapOffsets> = MINORS.filter_map(|minor| for_version(3, minor)).collect();
        assert_eq!(tables.len(), MINORS.count());
        for (index, table) in tables.iter().enumerate() {
            assert!(!tables[..index].contains(table), "table {index} is a copy");
        }
        assert!(for_version(3, 16).is_none());
    }

    #[test]
    fn a_block_that_contradicts_the_table_is_named() {
        let table = for_version(3, 14).expect("a table");
        assert_eq!(checked(b"", table), Err(Mismatch::NoCookie));
        let mut block = vec![0; debug_offsets::SIZE];
        block[..8].copy_from_slice(debug_offsets::COOKIE);
        assert!(matches!(checked(&block, table), Err(Mismatch::Field(_))));
        block[16] = 1;
        assert_eq!(checked(&block, table), Err(Mismatch::FreeThreaded));
    }
}
