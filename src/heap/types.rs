//! Types of the target, each resolved once: what it is called, how big its instances are, and how to find what
//! they refer to. What is not laid out as a type is none.

mod native;

use rustc_hash::FxHashMap;

use super::Heap;
use crate::layout::InstanceDict;
use crate::layout::heap::{Embedded, Field, Prehead};
use native::{inner_names, native_kind};

/// Bits of `tp_flags` (Include/object.h).
pub mod flag {
    /// Instances have values behind them (3.13 and newer).
    pub const INLINE_VALUES: u64 = 1 << 2;
    /// Weak references are kept before instances (3.12 and newer).
    pub const MANAGED_WEAKREF: u64 = 1 << 3;
    /// The dict is kept before instances (3.11 and newer).
    pub const MANAGED_DICT: u64 = 1 << 4;
    /// Made at run time.
    pub const HEAP: u64 = 1 << 9;
    /// The collector knows instances.
    pub const GC: u64 = 1 << 14;
    /// Instances are ints.
    pub const LONG: u64 = 1 << 24;
    /// Instances are tuples.
    pub const TUPLE: u64 = 1 << 26;
    /// Instances are types.
    pub const TYPE: u64 = 1 << 31;
}

/// Offsets in a type (Include/cpython/object.h); the same in all versions.
pub mod field {
    /// `tp_name`.
    pub const NAME: u32 = 24;
    /// `tp_basicsize`.
    pub const BASIC: u32 = 32;
    /// `tp_itemsize`.
    pub const ITEM: u32 = 40;
    /// `tp_dealloc`.
    pub const DEALLOC: u32 = 48;
    /// `tp_flags`.
    pub const FLAGS: u32 = 168;
    /// `tp_traverse`.
    pub const TRAVERSE: u32 = 184;
    /// `tp_base`.
    pub const BASE: u32 = 256;
    /// `tp_dict`.
    pub const DICT: u32 = 264;
    /// `tp_dictoffset`.
    pub const DICT_OFFSET: u32 = 288;
    /// `tp_bases`.
    pub const BASES: u32 = 336;
    /// `tp_mro`.
    pub const MRO: u32 = 344;
    /// `tp_cache`.
    pub const CACHE: u32 = 352;
    /// `tp_subclasses`.
    pub const SUBCLASSES: u32 = 360;
}

/// Bases of a class are followed this far; deeper ones are not believed.
const BASES: usize = 200;
/// Metatypes of metatypes.
const METATYPES: usize = 8;
/// Longest `tp_name` that is kept.
const NAME_LIMIT: usize = 1000;
/// Most slots of one class.
const SLOTS: u64 = 4096;
/// Bytes of a `PyMemberDef` and its type `T_OBJECT_EX`.
const MEMBER: u64 = 40;
const OBJECT_EX: u32 = 16;

/// How the size of an instance is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sizing {
    /// `tp_basicsize` and `ob_size` items.
    Default,
    /// By the number of its digits.
    Int,
    /// By its characters.
    Text,
    /// `allocated` pointers.
    List,
    /// By its allocated bytes.
    ByteArray,
    /// Keys and values, where they are its own.
    Dict,
    /// Those and its nodes.
    OrderedDict,
    /// A table, where it is not inside.
    Set,
    /// A type.
    Type,
    /// A type of ctypes that has what ctypes knows of it behind it (3.13 and newer).
    CType,
    /// A type of pointers of ctypes, as any other, but what it points to is in its dict's struct (up to 3.12).
    PointerType,
    /// The dict of a type of ctypes (up to 3.12).
    StgDict,
    /// A scalar of numpy, with so many bytes of value.
    Scalar(u64),
    /// The same with as many bytes as it has items.
    ScalarText,
    /// One with fields (`numpy.void`), with the bytes of its type of items.
    ScalarRecord,
    /// Its memo and its buffer.
    Pickler,
    /// Its memo, marks and texts.
    Unpickler,
    /// Bytecode and extras.
    Code,
    /// Slots.
    Frame,
    /// The frame inside.
    Generator,
    /// Blocks.
    Deque,
    /// `allocated` items of the descriptor's size.
    Array,
    /// Its buffer, where it is its own.
    BytesIo,
    /// Without its buffer, which counts where what is allocated does.
    StringIo,
    /// Its ring of items.
    Queue,
    /// Its buffer.
    Buffered,
    /// Codes.
    Struct,
    /// Words of digits.
    Decimal,
    /// Children.
    Element,
    /// Dimensions and data that it owns.
    NdArray,
    /// An index for each pool.
    Product,
    /// An index for each item of a combination.
    Combinations,
    /// The same and one for each item of the pool.
    Permutations,
}

/// What the word of a generator's object is that its kinds share (Objects/genobject.c).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// A generator never sets it: anything may stand there.
    Unset,
    /// `cr_origin` of a coroutine, which the collector need not visit.
    Origin,
    /// The finalizer of an asynchronous generator.
    Finalizer,
}

/// How the references of an instance are found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Holding {
    /// In these fields.
    Fields(&'static [Field]),
    /// In these fields, which its `tp_traverse` does not visit.
    Unvisited(&'static [Field]),
    /// Items inside.
    Tuple,
    /// The same, and as many more beyond `ob_size`, or this many in all.
    StructSeq(StructSeq),
    /// A pointer to items.
    List,
    /// Keys and values.
    Dict,
    /// Those and a factory.
    DefaultDict,
    /// Those and an order.
    OrderedDict,
    /// A table.
    Set,
    /// Blocks.
    Deque,
    /// A code object.
    Code,
    /// A frame.
    Frame,
    /// A frame inside.
    Generator(Hook),
    /// A type.
    Type,
    /// A dict and a state.
    Module,
    /// A function written in C.
    Builtin,
    /// A cache, its links and its function.
    LruCache,
    /// Children.
    Element,
    /// A base, a descriptor and perhaps items.
    NdArray,
    /// `numpy.void`: its type of items, what it is a view of, and objects in its fields.
    Record,
    /// Keys, values and nodes of a context's tree.
    TreeNode,
    /// Nodes of one.
    TreeArray,
    /// A ring of items.
    Queue,
    /// What several iterators over one have still to give, and where it goes on.
    TeeData,
    /// A buffer and a dict.
    BytesIo,
    /// Handlers of events, behind a pointer.
    Expat,
    /// Not known: whatever looks like an object.
    Unknown,
}

/// Length of a structseq.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StructSeq {
    /// In all.
    All(u64),
    /// Beyond `ob_size`.
    More(u64),
}

/// Where a class's instances have their attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attributes {
    /// Nowhere, or in a field that is known otherwise.
    None,
    /// A dict at this offset; from the end where it is negative.
    At(i64),
    /// Before the object: values or a dict (3.11); whether the dict is visited too.
    ValuesOrDict(bool),
    /// Before the object: tagged values or a dict (3.12).
    Tagged,
    /// Before the object: a dict; behind it values, if this is true (3.13 and newer).
    Inline(bool),
}

/// What is known of a type.
#[derive(Debug, Clone)]
pub struct TypeInfo {
    /// Its address.
    pub address: u64,
    /// Its name as `type.__module__ + '.' + type.__qualname__` gives it, builtins bare.
    pub name: String,
    /// `tp_name`.
    pub tp_name: String,
    /// `tp_basicsize`.
    pub basic: u64,
    /// `tp_itemsize`.
    pub item: u64,
    /// `tp_flags`.
    pub flags: u64,
    /// `tp_base`.
    pub base: u64,
    /// `tp_traverse`.
    pub traverse: u64,
    /// Bytes before an instance that count.
    pub pre: u64,
    /// How big instances are.
    pub sizing: Sizing,
    /// What they refer to.
    pub holding: Holding,
    /// Bytes of a base whose layout is known, from which on one that is not known starts.
    pub scan: Option<(u32, u32)>,
    /// What words of a struct that is scanned are called.
    pub inner: &'static [Field],
    /// Slots: offset and address of the name.
    pub slots: Vec<(u32, u64)>,
    /// Where attributes are.
    pub attributes: Attributes,
    /// `ht_cached_keys`.
    pub cached_keys: u64,
    /// Whether an instance's `tp_traverse` visits its type.
    pub visits_type: bool,
    /// Whether instances refer to nothing at all, and their size is found without looking further.
    pub leaf: bool,
}

impl TypeInfo {
    /// Whether the collector knows instances.
    pub fn is_gc(&self) -> bool {
        self.flags & flag::GC != 0
    }

    /// Whether instances are types.
    pub fn is_meta(&self) -> bool {
        self.flags & flag::TYPE != 0
    }

    /// Whether it was made at run time, and so is the collector's.
    pub fn is_heap(&self) -> bool {
        self.flags & flag::HEAP != 0
    }
}

/// The part of a type that decides on its instances' layout.
#[derive(Debug, Clone, Copy)]
struct Head {
    address: u64,
    meta: u64,
    name: u64,
    basic: u64,
    item: u64,
    flags: u64,
    base: u64,
    traverse: u64,
    dealloc: u64,
    dict_offset: i64,
}

/// The head of the type at `address`; `None` when it is none.
fn head(heap: &Heap, address: u64) -> Option<Head> {
    let place = heap.memory.place(address)?;
    let get = |offset| place.word(offset);
    let head = Head {
        address,
        meta: get(8)?,
        name: get(field::NAME)?,
        basic: get(field::BASIC)?,
        item: get(field::ITEM)?,
        flags: get(field::FLAGS)?,
        base: get(field::BASE)?,
        traverse: get(field::TRAVERSE)?,
        dealloc: get(field::DEALLOC)?,
        dict_offset: get(field::DICT_OFFSET)? as i64,
    };
    let fits = place.room() >= heap.layout.type_size
        && (16..1 << 20).contains(&head.basic)
        && head.item < 1 << 16
        && is_metatype(heap, head.meta);
    fits.then_some(head)
}

/// Whether `meta` is the metatype of `msgspec.Struct` and its classes, which hold what their members say and nothing else. With
/// `gc=False` the collector does not know them, and their `tp_dealloc` is msgspec's own.
fn is_struct(heap: &Heap, mut meta: u64) -> bool {
    for _ in 0..METATYPES {
        if meta == heap.type_type || meta == 0 {
            break;
        }
        let name = heap.memory.word(meta.wrapping_add(field::NAME.into()));
        let name = name.and_then(|name| heap.memory.c_string(name, NAME_LIMIT));
        if name.is_some_and(|name| name == "msgspec._core.StructMeta") {
            return true;
        }
        let base = heap.memory.word(meta.wrapping_add(field::BASE.into()));
        meta = base.unwrap_or(0);
    }
    false
}

/// Whether the object at `address` is `type` or a class derived from it.
fn is_metatype(heap: &Heap, mut address: u64) -> bool {
    for _ in 0..METATYPES {
        if address == heap.type_type {
            return true;
        }
        let Some(place) = heap.memory.place(address) else {
            return false;
        };
        if place.word_or_0(field::FLAGS) & flag::TYPE == 0 {
            return false;
        }
        address = place.word_or_0(8);
    }
    false
}

/// Resolves the type at `address`; `None` when there is none.
pub fn resolve(heap: &Heap, address: u64) -> Option<TypeInfo> {
    let own = head(heap, address)?;
    let layout = &heap.layout;
    let tp_name = match heap.memory.c_string(own.name, NAME_LIMIT) {
        Some(name) => name,
        None if heap.is_cut() => format!("<class at {address:#x}, name missing>"),
        None => return None,
    };
    let is_class =
        |head: &Head| head.flags & flag::HEAP != 0 && head.dealloc == heap.subtype_dealloc;

    // The nearest base that C code made decides on the layout.
    let mut native = own;
    for _ in 0..BASES {
        if !is_class(&native) || native.base == 0 {
            break;
        }
        native = head(heap, native.base)?;
    }
    let is_struct = is_struct(heap, own.meta);
    let (sizing, holding, scan) = match is_struct {
        true => (Sizing::Default, Holding::Fields(&[]), None),
        false => native_kind(heap, &native),
    };

    // What a class statement adds: slots, a dict, the type.
    let mut slots = Vec::new();
    let mut base = own;
    let is_python = is_struct || (is_class(&own) && own.flags & flag::GC != 0);
    if is_python {
        for _ in 0..BASES {
            let adds = match is_struct {
                true => base.flags & flag::HEAP != 0,
                false => base.traverse == heap.subtype_traverse,
            };
            if !adds {
                break;
            }
            add_slots(heap, &base, &mut slots);
            match head(heap, base.base) {
                Some(next) => base = next,
                None => break,
            }
        }
    }
    let mut attributes = Attributes::None;
    if is_python {
        attributes = attributes_of(heap, &own, own.dict_offset != base.dict_offset);
    }
    let is_late = !matches!(
        heap.offsets.dict.instance,
        InstanceDict::DictOffset | InstanceDict::ValuesOrDict
    );
    if is_late && attributes == Attributes::None && native.flags & flag::MANAGED_DICT != 0 {
        attributes = attributes_of(heap, &own, true);
    }
    let base_is_static = base.flags & flag::HEAP == 0;
    let python_visits = is_python
        && (is_struct || own.traverse == heap.subtype_traverse)
        && own.flags & flag::HEAP != 0
        && (base.traverse == 0 || base_is_static || !layout.visits_type);
    let native_visits = layout.visits_type
        && native.flags & flag::HEAP != 0
        && native.traverse != 0
        && !(is_python && base.traverse == 0);
    let is_heap = own.flags & flag::HEAP != 0;
    let cached_keys = if is_heap {
        let place = heap.memory.place(address)?;
        place.word_or_0(heap.offsets.dict.cached_keys)
    } else {
        0
    };
    let leaf = !is_heap
        && matches!(holding, Holding::Fields([]))
        && scan.is_none()
        && attributes == Attributes::None;
    Some(TypeInfo {
        address,
        name: printed_name(heap, &own, &tp_name),
        tp_name,
        basic: own.basic,
        item: own.item,
        flags: own.flags,
        base: own.base,
        traverse: own.traverse,
        pre: prehead(layout.prehead, own.flags),
        sizing,
        holding,
        scan,
        inner: inner_names(heap, &native),
        slots,
        attributes,
        cached_keys,
        visits_type: python_visits || native_visits,
        leaf,
    })
}

fn prehead(prehead: Prehead, flags: u64) -> u64 {
    let managed = match prehead {
        Prehead::Collector => 0,
        Prehead::ManagedDict => flag::MANAGED_DICT,
        Prehead::Managed | Prehead::ManagedNotStatic => flag::MANAGED_DICT | flag::MANAGED_WEAKREF,
    };
    let before = if flags & managed != 0 { 16 } else { 0 };
    before + if flags & flag::GC != 0 { 16 } else { 0 }
}

fn add_slots(heap: &Heap, class: &Head, slots: &mut Vec<(u32, u64)>) {
    let Some(place) = heap.memory.place(class.address) else {
        return;
    };
    let count = place.word_or_0(16);
    let members = heap
        .memory
        .word(class.meta.wrapping_add(field::BASIC.into()))
        .and_then(|basic| class.address.checked_add(basic));
    let Some(members) = members.filter(|_| class.flags & flag::HEAP != 0 && count <= SLOTS) else {
        return;
    };
    for index in 0..count {
        let Some(member) = heap.memory.place(members + index * MEMBER) else {
            return;
        };
        let offset = member.word_or_0(16);
        if member.int(8) == OBJECT_EX && offset < 1 << 20 {
            slots.push((offset as u32, member.word_or_0(0)));
        }
    }
}

fn attributes_of(heap: &Heap, own: &Head, has_own: bool) -> Attributes {
    let managed = own.flags & flag::MANAGED_DICT != 0;
    match heap.offsets.dict.instance {
        InstanceDict::ValuesOrDict if managed => Attributes::ValuesOrDict(has_own),
        _ if !has_own || own.dict_offset == 0 => Attributes::None,
        InstanceDict::TaggedValues if managed => Attributes::Tagged,
        InstanceDict::InlineValues(_) if managed => Attributes::Inline(
            own.flags & flag::INLINE_VALUES != 0 && heap.layout.embedded != Embedded::None,
        ),
        _ => Attributes::At(own.dict_offset),
    }
}

/// The name as `type.__module__` and `type.__qualname__` give it (Objects/typeobject.c, type_repr).
fn printed_name(heap: &Heap, own: &Head, tp_name: &str) -> String {
    if own.flags & flag::HEAP == 0 {
        return tp_name
            .strip_prefix("builtins.")
            .unwrap_or(tp_name)
            .to_string();
    }
    let qualname = heap
        .memory
        .word(own.address + u64::from(heap.layout.qualname))
        .and_then(|address| heap.text(address));
    let module = heap
        .type_entry(own.address, "__module__")
        .and_then(|address| heap.text(address));
    match (module, qualname) {
        (Some(module), Some(name)) if module == "builtins" => name,
        (Some(module), Some(name)) => format!("{module}.{name}"),
        // Where the module's name is missing: it may be any.
        (None, Some(name)) if heap.is_cut() && !tp_name.contains('.') => format!("?.{name}"),
        (None, Some(name)) if !tp_name.contains('.') => name,
        _ => tp_name.to_string(),
    }
}

/// Index of a type in a [`Types`].
pub type TypeIndex = u32;

const NONE: TypeIndex = TypeIndex::MAX;
const CACHE: usize = 1024;

/// Types as one thread meets them.
#[derive(Debug, Clone)]
pub struct Types {
    list: Vec<TypeInfo>,
    by_address: FxHashMap<u64, TypeIndex>,
    cache: Vec<(u64, TypeIndex)>,
}

impl Default for Types {
    fn default() -> Types {
        Types {
            list: Vec::new(),
            by_address: FxHashMap::default(),
            cache: vec![(0, NONE); CACHE],
        }
    }
}

impl Types {
    /// The type at `address`, resolved when it is met for the first time; `None` when there is none.
    #[inline]
    pub fn find(&mut self, heap: &Heap, address: u64) -> Option<TypeIndex> {
        let slot = ((address >> 4) ^ (address >> 14)) as usize % CACHE;
        let (known, index) = self.cache[slot];
        if known == address {
            return (index != NONE).then_some(index);
        }
        let index = self.find_slowly(heap, address);
        self.cache[slot] = (address, index);
        (index != NONE).then_some(index)
    }

    fn find_slowly(&mut self, heap: &Heap, address: u64) -> TypeIndex {
        if let Some(index) = self.by_address.get(&address) {
            return *index;
        }
        let index = match resolve(heap, address) {
            Some(info) => {
                self.list.push(info);
                (self.list.len() - 1) as TypeIndex
            }
            None => NONE,
        };
        self.by_address.insert(address, index);
        index
    }

    /// The type at `address` alone.
    pub fn resolved(&mut self, heap: &Heap, address: u64) -> Option<TypeInfo> {
        let index = self.find(heap, address)?;
        Some(self.get(index).clone())
    }

    /// A type that was found.
    #[inline]
    pub fn get(&self, index: TypeIndex) -> &TypeInfo {
        &self.list[index as usize]
    }

    /// All of them, by index.
    pub fn all(&self) -> &[TypeInfo] {
        &self.list
    }
}
