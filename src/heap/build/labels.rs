//! Names and shapes, each kept once.

use rustc_hash::FxHashMap;

use crate::heap::Heap;
use crate::heap::decode::Name;
use crate::heap::graph::{Label, NameId, Rest, Shape};
use crate::heap::values::{HIDDEN, is_identifier};

/// Longest C string that names a slot.
const SLOT_NAME: usize = 1000;

/// Texts, and those that were read from the target by their address.
#[derive(Debug, Default)]
pub struct Names {
    list: Vec<String>,
    by_text: FxHashMap<String, NameId>,
    by_address: FxHashMap<u64, NameId>,
    by_field: FxHashMap<usize, NameId>,
    /// Whether attributes whose name is no identifier are called by it.
    values: bool,
}

impl Names {
    /// None yet; with `values` attributes are called by their names whatever these are.
    pub fn new(values: bool) -> Names {
        Names {
            values,
            ..Names::default()
        }
    }

    /// The id of `text`.
    pub fn intern(&mut self, text: &str) -> NameId {
        if let Some(id) = self.by_text.get(text) {
            return *id;
        }
        let id = self.list.len() as NameId;
        self.list.push(text.to_string());
        self.by_text.insert(text.to_string(), id);
        id
    }

    /// The label for a name of the target.
    pub fn label(&mut self, heap: &Heap, name: Name) -> Label {
        match name {
            Name::Attribute(address) => {
                let values = self.values;
                let text = || match heap.text(address) {
                    Some(text) if !values && !is_identifier(&text) => Some(HIDDEN.to_string()),
                    text => text,
                };
                Label::Attribute(self.read(address, text))
            }
            Name::Local(address) => Label::Local(self.read(address, || heap.text(address))),
            Name::Slot(address) => {
                Label::Attribute(self.read(address, || heap.memory.c_string(address, SLOT_NAME)))
            }
            Name::Field(text) => Label::Field(self.field(text)),
            Name::Stack => Label::Field(self.field("stack")),
        }
    }

    fn field(&mut self, text: &'static str) -> NameId {
        // A text of ours is known by its address.
        let address = text.as_ptr() as usize;
        match self.by_field.get(&address) {
            Some(id)
                if self
                    .list
                    .get(*id as usize)
                    .is_some_and(|known| known == text) =>
            {
                *id
            }
            _ => {
                let id = self.intern(text);
                self.by_field.insert(address, id);
                id
            }
        }
    }

    fn read(&mut self, address: u64, text: impl Fn() -> Option<String>) -> NameId {
        if let Some(id) = self.by_address.get(&address) {
            return *id;
        }
        let id = self.intern(text().as_deref().unwrap_or("?"));
        self.by_address.insert(address, id);
        id
    }

    /// The texts by id.
    pub fn into_list(self) -> Vec<String> {
        self.list
    }
}

/// Shapes.
#[derive(Debug, Default)]
pub struct Shapes {
    list: Vec<Shape>,
    known: FxHashMap<Shape, u32>,
}

impl Shapes {
    /// The id of `shape`.
    pub fn intern(&mut self, shape: &Shape) -> u32 {
        if let Some(id) = self.known.get(shape) {
            return *id;
        }
        let id = self.list.len() as u32;
        self.list.push(shape.clone());
        self.known.insert(shape.clone(), id);
        id
    }

    /// The id of `shape`, when it is that of `guess`.
    #[inline]
    pub fn is(&self, guess: u32, shape: &Shape) -> bool {
        self.list.get(guess as usize) == Some(shape)
    }

    /// The shapes by id.
    pub fn into_list(self) -> Vec<Shape> {
        self.list
    }
}

/// No label and no items.
pub fn empty() -> Shape {
    Shape {
        labels: Vec::new(),
        rest: Rest::Nothing,
    }
}

/// `shape` with other ids for its names.
pub fn renamed(mut shape: Shape, names: &[NameId]) -> Shape {
    let rename = |id: NameId| names.get(id as usize).copied().unwrap_or(0);
    for label in &mut shape.labels {
        *label = match *label {
            Label::Attribute(id) => Label::Attribute(rename(id)),
            Label::Field(id) => Label::Field(rename(id)),
            Label::Local(id) => Label::Local(rename(id)),
            Label::Found => Label::Found,
        };
    }
    shape
}
