//! Which C function a callable on the evaluation stack is, named as cProfile names it
//! (Modules/_lsprof.c `normalizeUserObj`): `<built-in method builtins.sum>`, `<method 'insert' of 'list' objects>`.
//!
//! Classes have no row of their own in cProfile, so they have none here: their time is their caller's.

use rustc_hash::FxHashMap;

use super::Watchable;
use crate::layout::{self, ObjectOffsets, Offsets, at, object};
use crate::profile::{FrameId, FunctionId, FunctionKind, Tables};
use crate::target::memory::{Memory, Range, read_c_string};
use crate::target::watchpoint::Access;

/// PyCFunctionObject: `m_ml`, `m_self`, `m_module`; PyDescrObject: `d_type`, `d_name`; the same in all versions that
/// have opcodes, but for the size of the objects' heads.
const M_ML: usize = 16;
const M_SELF: usize = 24;
const M_MODULE: usize = 32;
const D_TYPE: usize = 16;
const D_NAME: usize = 24;
const D_METHOD: usize = 40;

/// PyMethodDef: `ml_meth`, after `ml_name`.
const ML_METH: u64 = 8;

/// PyTypeObject: `tp_methods`, `tp_base`.
const TP_METHODS: usize = 232;
const TP_BASE: usize = 256;

/// Size of a PyMethodDef, and most of them in one type.
const METHOD_DEF: u64 = 32;
const MOST_METHODS: u64 = 1024;

/// Most bases that are looked at.
const MOST_BASES: usize = 64;

/// Longest name of a function or type, in bytes.
const NAME_LIMIT: usize = 256;

/// How long an object is believed to be what it was. Functions of modules, methods of types, and what is no C
/// function live on: the next sample copies their first bytes along, and they are only read by themselves if that
/// has not happened for so long.
const BELIEVED_US: u64 = 20_000;
const BELIEVED_UNSEEN_US: u64 = 40_000;

/// Bytes that tell what an object is, and most of them where heads of objects are larger.
const HEAD: usize = 40;
const MOST_HEAD: usize = 56;

/// Most objects that one sample copies.
const MOST_WANTED: usize = 4;

/// Most objects and functions that are remembered; then all are forgotten.
const MOST_KNOWN: usize = 100_000;

/// What a type's objects are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Function,
    MethodDescriptor,
    Module,
    Other,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    head: [u64; 4],
    frame: Option<FrameId>,
    /// Lives about as long as its module or type.
    lasts: bool,
    checked_us: u64,
}

/// C functions that were seen.
#[derive(Debug)]
pub struct Builtins {
    offsets: Offsets,
    kinds: FxHashMap<u64, Kind>,
    objects: FxHashMap<u64, Known>,
    /// By type of the object, `m_ml` or `d_name`, and type of self.
    frames: FxHashMap<[u64; 3], FrameId>,
    /// Addresses of their method definitions.
    definitions: FxHashMap<FunctionId, u64>,
    /// Objects that the next sample is to copy, and those that this one has copied.
    wanted: Vec<u64>,
    copied: Vec<u64>,
}

impl Builtins {
    /// None yet.
    pub fn new(offsets: Offsets) -> Builtins {
        Builtins {
            offsets,
            kinds: FxHashMap::default(),
            objects: FxHashMap::default(),
            frames: FxHashMap::default(),
            definitions: FxHashMap::default(),
            wanted: Vec::new(),
            copied: Vec::new(),
        }
    }

    /// What a sample is to copy of objects, so that it can be seen whether they are what they were.
    pub fn heads(&mut self) -> impl Iterator<Item = Range> + '_ {
        std::mem::swap(&mut self.wanted, &mut self.copied);
        self.wanted.clear();
        let length = self.offsets.object.place(HEAD);
        self.copied.iter().map(move |address| Range {
            address: *address as usize,
            length,
        })
    }

    /// Whether an object that was looked at `age_us` ago may still be believed to be what it was; the next sample copies
    /// it where that is no longer sure.
    fn is_believed(&mut self, address: u64, age_us: u64) -> bool {
        if age_us < BELIEVED_US {
            return true;
        }
        if self.copied.contains(&address) {
            return false;
        }
        if self.wanted.len() < MOST_WANTED && !self.wanted.contains(&address) {
            self.wanted.push(address);
        }
        age_us < BELIEVED_UNSEEN_US
    }

    /// The frame of the C function that the object at `address` is; `None` for all other callables.
    pub fn find(
        &mut self,
        memory: &impl Memory,
        tables: &mut Tables,
        address: u64,
        now_us: u64,
    ) -> Option<FrameId> {
        let known = self.objects.get(&address).copied();
        if let Some(known) = known
            && known.lasts
            && self.is_believed(address, now_us.saturating_sub(known.checked_us))
        {
            return known.frame;
        }
        if self.objects.len() > MOST_KNOWN || self.frames.len() > MOST_KNOWN {
            self.objects.clear();
            self.frames.clear();
            self.kinds.clear();
        }
        // Others may be short-lived, such as a bound method of a list: never told by their address alone.
        let mut bytes = [0; MOST_HEAD];
        let object = self.offsets.object;
        let bytes = bytes.get_mut(..object.place(HEAD))?;
        memory.read(address, bytes).ok()?;
        if object.is_dead(bytes) {
            // Bound for this call, which is over: what is left of it is its end.
            return None;
        }
        let word = |offset| layout::word(bytes, object.place(offset)).unwrap_or(0);
        let kind = layout::word(bytes, at(object.kind)).unwrap_or(0);
        let head = [kind, word(M_ML), word(M_SELF), word(M_MODULE)];
        if let Some(known) = known
            && known.head == head
            && now_us < known.checked_us.saturating_add(BELIEVED_US)
        {
            return known.frame;
        }
        if let Some(known) = self.objects.get_mut(&address)
            && known.head == head
            && known.lasts
        {
            known.checked_us = now_us;
            return known.frame;
        }
        let kind = self.kind(memory, head[0])?;
        let (frame, lasts) = match kind {
            Kind::MethodDescriptor => {
                let frame = self.descriptor(memory, tables, head[0], word(D_TYPE), word(D_NAME));
                let method = address
                    .checked_add(object.place(D_METHOD) as u64)
                    .and_then(|at| memory.read_word(at).ok());
                if let (Some(frame), Some(method)) = (frame, method) {
                    self.define(tables, frame, method);
                }
                (frame, true)
            }
            Kind::Function => {
                let found = self.function(memory, tables, head);
                if let (Some(frame), _) = found {
                    self.define(tables, frame, word(M_ML));
                }
                found
            }
            Kind::Module | Kind::Other => (None, true),
        };
        self.objects.insert(
            address,
            Known {
                head,
                frame,
                lasts,
                checked_us: now_us,
            },
        );
        frame
    }

    fn define(&mut self, tables: &Tables, frame: FrameId, definition: u64) {
        let function = tables.get_frame(frame).function;
        if self.definitions.len() < MOST_KNOWN {
            self.definitions.entry(function).or_insert(definition);
        }
    }

    /// Where each call of a C function begins: at `ml_meth` of its PyMethodDef.
    pub fn watchable(&self, memory: &impl Memory, function: FunctionId) -> Option<Watchable> {
        let definition = self.definitions.get(&function)?;
        let address = memory.read_word(definition.checked_add(ML_METH)?).ok()?;
        (address != 0).then_some(Watchable {
            address,
            access: Access::Execute,
            shared: false,
        })
    }

    fn kind(&mut self, memory: &impl Memory, kind: u64) -> Option<Kind> {
        if let Some(&known) = self.kinds.get(&kind) {
            return Some(known);
        }
        let found = match type_name(&self.offsets.object, memory, kind)?.as_str() {
            "builtin_function_or_method" | "builtin_method" => Kind::Function,
            "method_descriptor" => Kind::MethodDescriptor,
            "module" => Kind::Module,
            _ => Kind::Other,
        };
        self.kinds.insert(kind, found);
        Some(found)
    }

    fn descriptor(
        &mut self,
        memory: &impl Memory,
        tables: &mut Tables,
        kind: u64,
        owner: u64,
        name: u64,
    ) -> Option<FrameId> {
        let key = [kind, name, owner];
        if let Some(&frame) = self.frames.get(&key) {
            return Some(frame);
        }
        let owner = type_name(&self.offsets.object, memory, owner)?;
        let name = super::fast::read_text(&self.offsets, memory, name)?;
        let frame = row(tables, &format!("<method '{name}' of '{owner}' objects>"));
        self.frames.insert(key, frame);
        Some(frame)
    }

    /// The frame of a function of a module, or of a method bound to something; whether it lasts.
    fn function(
        &mut self,
        memory: &impl Memory,
        tables: &mut Tables,
        head: [u64; 4],
    ) -> (Option<FrameId>, bool) {
        let [kind, definition, bound_to, module] = head;
        let type_of = |address: u64| {
            memory
                .read_word(address.checked_add(u64::from(self.offsets.object.kind))?)
                .ok()
        };
        let self_type = if bound_to == 0 {
            None
        } else {
            type_of(bound_to)
        };
        let of_module = match self_type {
            None => true,
            Some(kind) => self.kind(memory, kind) == Some(Kind::Module),
        };
        let key = [
            kind,
            definition,
            if of_module { 0 } else { self_type.unwrap_or(0) },
        ];
        if let Some(&frame) = self.frames.get(&key) {
            return (Some(frame), of_module);
        }
        let name = memory
            .read_word(definition)
            .ok()
            .and_then(|name| read_c_string(memory, name, NAME_LIMIT));
        let Some(name) = name else {
            return (None, false);
        };
        let text = if of_module {
            match super::fast::read_text(&self.offsets, memory, module) {
                Some(module) => format!("<built-in method {module}.{name}>"),
                None => format!("<built-in method {name}>"),
            }
        } else {
            let owner = self_type
                .and_then(|kind| owner(&self.offsets.object, memory, kind, definition))
                .and_then(|owner| type_name(&self.offsets.object, memory, owner));
            match owner {
                Some(owner) => format!("<method '{name}' of '{owner}' objects>"),
                None => format!("<built-in method {name}>"),
            }
        };
        let frame = row(tables, &text);
        self.frames.insert(key, frame);
        (Some(frame), of_module)
    }
}

/// The type among `kind` and its bases whose methods hold `definition`.
fn owner(object: &ObjectOffsets, memory: &impl Memory, kind: u64, definition: u64) -> Option<u64> {
    let field = |kind: u64, offset| {
        let place = kind.checked_add(object.place(offset) as u64)?;
        memory.read_word(place).ok()
    };
    let mut kind = kind;
    for _ in 0..MOST_BASES {
        let methods = field(kind, TP_METHODS)?;
        if methods != 0 && holds(memory, methods, definition) {
            return Some(kind);
        }
        kind = field(kind, TP_BASE)?;
        if kind == 0 {
            break;
        }
    }
    None
}

/// Whether a table of methods, which ends with one that has no name, has `definition`: another type's table may
/// follow it.
fn holds(memory: &impl Memory, methods: u64, definition: u64) -> bool {
    let offset = definition.wrapping_sub(methods);
    if !offset.is_multiple_of(METHOD_DEF) || offset / METHOD_DEF >= MOST_METHODS {
        return false;
    }
    let mut table = vec![0; offset as usize];
    memory.read(methods, &mut table).is_ok()
        && table
            .chunks_exact(METHOD_DEF as usize)
            .all(|entry| layout::word(entry, 0) != Some(0))
}

/// The name of a type: `tp_name`.
pub fn type_name(object: &ObjectOffsets, memory: &impl Memory, kind: u64) -> Option<String> {
    let place = kind.checked_add(object.place(object::TYPE_NAME) as u64)?;
    let name = memory.read_word(place).ok()?;
    read_c_string(memory, name, NAME_LIMIT)
}

fn row(tables: &mut Tables, name: &str) -> FrameId {
    let function = tables.function("~", 0, name, FunctionKind::Builtin);
    tables.frame(function, 0)
}
