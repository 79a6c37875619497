//! Objects and memory of a Python process, from an image of it: what there is, how big it is, and who holds it.
//!
//! [`Heap::open`] finds the collector's lists and checks the layout; [`Heap::census`] counts, [`Heap::objects`]
//! lists, [`Heap::graph`] keeps everything with its references.

mod build;
pub mod caches;
mod candidates;
pub mod census;
pub mod containers;
mod decode;
pub mod diff;
pub mod dominators;
pub mod fold;
mod fragments;
pub mod functions;
pub mod graph;
pub mod growth;
pub mod identity;
pub mod locals;
pub mod malloc;
mod memory;
mod muppy;
mod names;
mod objects;
mod open;
pub mod paths;
mod pymalloc;
pub mod referrers;
mod repr;
pub mod retained;
mod roots;
pub mod rss;
pub mod run;
pub mod save;
pub mod steps;
pub mod store;
pub mod subject;
pub mod summary;
mod types;
mod uses;
pub mod values;
mod walk;
pub mod why;

use crate::layout::Offsets;
use crate::layout::heap::{HeapOffsets, RefCount};
use crate::target::image::Captured;

pub use objects::{Object, Referents};

use census::Doubts;
use memory::{Memory, Place};

/// What one interpreter keeps of a static type.
#[derive(Debug, Clone, Copy)]
struct StaticState {
    kind: u64,
    dict: u64,
    /// `tp_subclasses`.
    subclasses: u64,
}

/// Python's heap in an image.
#[derive(Debug)]
pub struct Heap<'a> {
    captured: &'a Captured,
    memory: Memory<'a>,
    offsets: Offsets,
    layout: HeapOffsets,
    interpreters: Vec<u64>,
    /// Heads of the collectors' lists that `gc.get_objects()` shows, youngest first, then those that it does not.
    young: Vec<u64>,
    permanent: Vec<u64>,
    /// The type `type`.
    type_type: u64,
    /// `subtype_dealloc` and `subtype_traverse`, which classes made by a class statement have.
    subtype_dealloc: u64,
    subtype_traverse: u64,
    /// `dk_lookup` of dicts whose keys are not all strings (up to 3.10).
    general_lookup: u64,
    /// What of static types belongs to an interpreter (3.12 and newer).
    static_states: Vec<StaticState>,
    /// Interpreters, each with the dict of its interned strings (3.14 and newer).
    interned: Vec<(u64, u64)>,
    /// What was not sure when it was opened.
    doubts: Doubts,
    threads: usize,
}

impl<'a> Heap<'a> {
    /// What the heap is in.
    pub fn captured(&self) -> &'a Captured {
        self.captured
    }

    /// Whether it is of a core file that was cut short, so that all numbers are lower bounds.
    pub fn is_cut(&self) -> bool {
        self.captured.is_cut()
    }

    /// Work with so many threads, at least one; as many as there are processors unless this says otherwise.
    #[must_use]
    pub fn with_threads(mut self, threads: usize) -> Heap<'a> {
        self.threads = threads.max(1);
        self
    }

    /// The reference count of the object at `place`, as it is stored.
    fn refcount(&self, place: &Place) -> u64 {
        match self.layout.refcount {
            RefCount::Word => place.word_or_0(0),
            RefCount::Low | RefCount::LowAndFlags => place.int(0).into(),
        }
    }

    /// Whether a reference count says that its object lives as long as the interpreter.
    fn is_immortal(&self, place: &Place) -> bool {
        match self.layout.refcount {
            RefCount::Word => false,
            RefCount::Low => place.int(0) == u32::MAX,
            RefCount::LowAndFlags => place.int(0) >> 31 == 1,
        }
    }

    /// Whether the first word at `place` can be a reference count: what is on a free list starts with a pointer.
    fn counts_references(&self, place: &Place) -> bool {
        let word = place.word_or_0(0);
        match self.layout.refcount {
            RefCount::Word => word != 0 && word >> 40 == 0,
            RefCount::Low => word != 0 && word >> 32 == 0,
            RefCount::LowAndFlags => {
                word as u32 != 0 && (word >> 32) & 0xffff == 0 && word >> 56 == 0
            }
        }
    }

    /// The items of the tuple at `address`, as words.
    fn tuple_items(&self, address: u64) -> Option<&'a [u8]> {
        let place = self.memory.place(address)?;
        let bytes = place.word(16)?.checked_mul(8)?;
        place.bytes(self.layout.tuple_items.into(), bytes)
    }
}
