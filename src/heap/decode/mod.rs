//! From an object's memory to its size and to what it refers to.
//!
//! References come in two strengths: what the type's `tp_traverse` visits, as `gc.get_referents` gives it, and all
//! of them: string keys of dicts, the fields of code objects, names, items of object arrays too.

pub mod blocks;
pub mod ctypes;
pub mod dict;
pub mod frames;
mod instance;
mod items;
mod modules;
pub mod sinks;
pub mod size;

use super::Heap;
use super::memory::Place;
use super::types::{Holding, Sizing, TypeInfo};

/// The object is not what its head says: it was caught in the middle of a change, or was never one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Torn;

/// What a reference is called, by the address of a text in the target where there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Name {
    /// An attribute, by its string object.
    Attribute(u64),
    /// A slot, by its C string.
    Slot(u64),
    /// A field of the interpreter's own struct.
    Field(&'static str),
    /// A local variable, by its string object.
    Local(u64),
    /// On an evaluation stack.
    Stack,
}

/// What items are called.
pub use super::graph::Rest;

/// Takes the references of one object: those with a name first, then items. Null ones are not for it to see.
pub trait Sink {
    /// A reference with a name. 0 is none.
    fn field(&mut self, target: u64, name: Name);

    /// One of many. 0 is none.
    fn item(&mut self, target: u64);

    /// One that is not counted: it goes when all others that have it are gone. Only what looks for all objects follows it.
    fn borrowed(&mut self, _target: u64) {}

    /// Many, as words.
    fn items(&mut self, words: &[u8]);

    /// A word of a struct that is not known; may be anything. Of some it is known what they are called.
    fn found(&mut self, word: u64, name: Option<&'static str>);

    /// What items are, when there can be any.
    fn rest(&mut self, rest: Rest);

    /// Whether names are of any use.
    fn wants_names(&self) -> bool;

    /// Whether so many more references may be looked at. A chain of objects that all claim the same million of
    /// items would never end otherwise.
    fn afford(&mut self, count: u64) -> bool;
}

/// Gives `sink` what the object of type `info` at `place` refers to.
pub fn references(
    heap: &Heap,
    info: &TypeInfo,
    place: &Place,
    full: bool,
    sink: &mut impl Sink,
) -> Result<(), Torn> {
    if !full && !info.is_gc() {
        return Ok(());
    }
    if info.is_meta() && place.word_or_0(super::types::field::FLAGS) & super::types::flag::HEAP == 0
    {
        // The collector does not know static types.
        return if full {
            items::static_type(heap, place, sink)
        } else {
            Ok(())
        };
    }
    instance::references(heap, info, place, full, sink)?;
    if info.visits_type || (full && info.is_heap()) {
        sink.field(info.address, Name::Field("__class__"));
    }
    native_references(heap, info, place, full, sink)?;
    Ok(())
}

/// What a layout that C code made refers to.
fn native_references(
    heap: &Heap,
    info: &TypeInfo,
    place: &Place,
    full: bool,
    sink: &mut impl Sink,
) -> Result<(), Torn> {
    match info.holding {
        Holding::Fields(fields) => {
            for (name, offset) in fields {
                sink.field(place.word(*offset).ok_or(Torn)?, Name::Field(name));
            }
            if full {
                items::unvisited(heap, info, place, sink);
            }
        }
        Holding::Unvisited(fields) => {
            for (name, offset) in fields.iter().filter(|_| full) {
                sink.field(place.word(*offset).ok_or(Torn)?, Name::Field(name));
            }
        }
        Holding::Dict => {
            if full && info.sizing == Sizing::StgDict {
                ctypes::dict_references(heap, place, sink);
            }
            sink.rest(Rest::Pairs);
            dict::references(heap, place, full, sink)?;
        }
        Holding::List => items::list(heap, place, sink)?,
        Holding::Tuple => items::tuple(heap, place, place.word(16).ok_or(Torn)?, sink)?,
        Holding::Frame => frames::frame_references(heap, place, full, sink)?,
        Holding::Generator(hook) => {
            frames::generator_references(heap, place, hook, full, sink)?;
        }
        Holding::Unknown => {
            if full || info.traverse != 0 {
                items::unknown(info, place, sink)?;
            }
            // Before 3.11 the collector does not see what a memo holds.
            if full || heap.layout.minor >= 11 {
                modules::pickle_memo(heap, info, place, sink)?;
            }
            if heap.layout.minor >= 11 {
                modules::sql_callbacks(heap, info, place, sink);
            }
        }
        _ => items::others(heap, info, place, full, sink)?,
    }
    if let Some((from, to)) = info.scan.filter(|_| info.holding != Holding::Unknown) {
        items::scan(info, place, from, to, sink)?;
    }
    Ok(())
}
