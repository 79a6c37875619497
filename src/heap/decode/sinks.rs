//! What takes references: bare targets for counting, named ones for the graph.

use super::{Name, Rest, Sink};
use crate::heap::Heap;
use crate::heap::memory::each_word;

/// References that may be looked at, as a multiple of the words in the image. Real heaps need less than one.
const AFFORDABLE: u64 = 2;

/// How many references a sink can still afford.
fn allowance(heap: &Heap) -> u64 {
    heap.memory.size() / 8 * AFFORDABLE + (1 << 20)
}

fn spend(left: &mut u64, count: u64) -> bool {
    let enough = *left >= count;
    *left = left.saturating_sub(count);
    enough
}

/// Targets alone.
#[derive(Debug)]
pub struct Targets {
    /// References.
    pub targets: Vec<u64>,
    /// Words that may be some.
    pub found: Vec<u64>,
    left: u64,
}

impl Targets {
    /// None yet.
    pub fn new(heap: &Heap) -> Targets {
        Targets {
            targets: Vec::new(),
            found: Vec::new(),
            left: allowance(heap),
        }
    }
}

impl Sink for Targets {
    #[inline]
    fn field(&mut self, target: u64, _: Name) {
        if target != 0 {
            self.targets.push(target);
        }
    }

    #[inline]
    fn item(&mut self, target: u64) {
        if target != 0 {
            self.targets.push(target);
        }
    }

    fn borrowed(&mut self, target: u64) {
        self.item(target);
    }

    #[inline]
    fn items(&mut self, words: &[u8]) {
        self.targets
            .extend(each_word(words).filter(|word| *word != 0));
    }

    #[inline]
    fn found(&mut self, word: u64, _: Option<&'static str>) {
        if word >= 1 << 16 && word & 7 == 0 {
            self.found.push(word);
        }
    }

    fn rest(&mut self, _: Rest) {}

    fn wants_names(&self) -> bool {
        false
    }

    fn afford(&mut self, count: u64) -> bool {
        spend(&mut self.left, count)
    }
}

/// Targets with their names.
#[derive(Debug)]
pub struct Named {
    /// References with a name.
    pub fields: Vec<(u64, Name)>,
    /// The others.
    pub targets: Vec<u64>,
    /// What those are.
    pub rest: Rest,
    /// Words that may be references, and what they are called where that is known.
    pub found: Vec<(u64, Option<&'static str>)>,
    left: u64,
}

impl Named {
    /// None yet.
    pub fn new(heap: &Heap) -> Named {
        Named {
            fields: Vec::new(),
            targets: Vec::new(),
            rest: Rest::Nothing,
            found: Vec::new(),
            left: allowance(heap),
        }
    }

    /// Empty again, for the next object.
    pub fn clear(&mut self) {
        self.fields.clear();
        self.targets.clear();
        self.found.clear();
        self.rest = Rest::Nothing;
    }
}

impl Sink for Named {
    fn field(&mut self, target: u64, name: Name) {
        if target != 0 {
            self.fields.push((target, name));
        }
    }

    fn item(&mut self, target: u64) {
        if target != 0 {
            self.targets.push(target);
        }
    }

    fn items(&mut self, words: &[u8]) {
        self.targets
            .extend(each_word(words).filter(|word| *word != 0));
    }

    fn found(&mut self, word: u64, name: Option<&'static str>) {
        if word >= 1 << 16 && word & 7 == 0 {
            self.found.push((word, name));
        }
    }

    fn rest(&mut self, rest: Rest) {
        self.rest = rest;
    }

    fn wants_names(&self) -> bool {
        true
    }

    fn afford(&mut self, count: u64) -> bool {
        spend(&mut self.left, count)
    }
}
