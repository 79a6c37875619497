//! Iterators that count: how often the next value was taken of one, by its bytes (Objects/rangeobject.c, listobject.c,
//! tupleobject.c, enumobject.c, dictobject.c, setobject.c, unicodeobject.c, bytesobject.c, bytearrayobject.c,
//! Modules/itertoolsmodule.c, _collectionsmodule.c, arraymodule.c of 3.11 to 3.15). `zip` and `map` take one value of each of
//! theirs in turn (Python/bltinmodule.c, `zipobject`, `mapobject`), so the first one counts for them.
//!
//! Positions are good for differences only: a `range` of 3.12 and newer does not say where it began.

use super::object::REFERENCES;
use super::{at, int, word};

/// Most bytes of an iterator that are of use.
pub const HEAD: usize = 56;

/// Beyond this a position makes no sense.
const HIGHEST: u64 = 1 << 62;

/// How a word tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counts {
    /// One more with each value.
    Up,
    /// One less.
    Down,
    /// It points to a tuple of the iterators that a value is taken of each.
    Wraps,
}

/// A type of iterators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CountingIterator {
    /// Name of the type.
    pub name: &'static str,
    counts: Counts,
    /// The word that counts.
    position: u32,
    /// A word that never changes.
    fixed: u32,
}

const fn iterator(
    name: &'static str,
    counts: Counts,
    position: u32,
    fixed: u32,
) -> CountingIterator {
    CountingIterator {
        name,
        counts,
        position,
        fixed,
    }
}

/// Those that are the same in all versions.
static COMMON: [CountingIterator; 23] = [
    iterator("list_iterator", Counts::Up, 16, 24),
    iterator("tuple_iterator", Counts::Up, 16, 24),
    iterator("str_iterator", Counts::Up, 16, 24),
    iterator("str_ascii_iterator", Counts::Up, 16, 24),
    iterator("bytes_iterator", Counts::Up, 16, 24),
    iterator("enumerate", Counts::Up, 16, 24),
    iterator("dict_keyiterator", Counts::Down, 48, 16),
    iterator("dict_valueiterator", Counts::Down, 48, 16),
    iterator("dict_itemiterator", Counts::Down, 48, 16),
    iterator("dict_reversekeyiterator", Counts::Down, 48, 16),
    iterator("dict_reversevalueiterator", Counts::Down, 48, 16),
    iterator("dict_reverseitemiterator", Counts::Down, 48, 16),
    iterator("set_iterator", Counts::Down, 40, 16),
    iterator("list_reverseiterator", Counts::Down, 16, 24),
    iterator("reversed", Counts::Down, 16, 24),
    iterator("bytearray_iterator", Counts::Up, 16, 24),
    iterator("array.arrayiterator", Counts::Up, 16, 24),
    iterator("_collections._deque_iterator", Counts::Down, 48, 32),
    iterator("collections._deque_iterator", Counts::Down, 48, 32),
    iterator("itertools.count", Counts::Up, 16, 32),
    iterator("itertools.repeat", Counts::Down, 24, 16),
    iterator("zip", Counts::Wraps, 24, 24),
    iterator("map", Counts::Wraps, 16, 16),
];

/// How a `range` iterates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeIterator {
    /// `index, start, step, len`: the first one rises (3.11).
    Index,
    /// `start, step, len`: what is left falls (3.12 and newer).
    Left,
}

/// The range iterator of each kind.
static RANGES: [CountingIterator; 2] = [
    iterator("range_iterator", Counts::Up, 16, 40),
    iterator("range_iterator", Counts::Down, 32, 24),
];

impl RangeIterator {
    /// The iterators of a version by the name of their type.
    pub fn find(self, name: &str) -> Option<&'static CountingIterator> {
        let range = match self {
            RangeIterator::Index => RANGES.first(),
            RangeIterator::Left => RANGES.last(),
        };
        range
            .into_iter()
            .chain(&COMMON)
            .find(|known| known.name == name)
    }
}

/// What the bytes of an iterator say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Values taken, from some start on.
    pub taken: u64,
    /// Differs between iterators over different things.
    pub over: u64,
}

impl CountingIterator {
    /// Bytes of it that are of use.
    pub fn length(&self) -> usize {
        at(self.position.max(self.fixed)) + 8
    }

    /// Address of the tuple that begins with the iterator that counts for it, where it does not count itself.
    pub fn wraps(&self, bytes: &[u8]) -> Option<u64> {
        word(bytes, at(self.position)).filter(|_| self.counts == Counts::Wraps)
    }

    /// Decodes that many bytes of one; `None` when it is dead, at its end, makes no sense, or does not count itself.
    pub fn position(&self, bytes: &[u8]) -> Option<Position> {
        if int(bytes, REFERENCES)? == 0 {
            return None;
        }
        let value = word(bytes, at(self.position)).filter(|value| *value < HIGHEST)?;
        Some(Position {
            taken: match self.counts {
                Counts::Up => value,
                Counts::Down => HIGHEST - value,
                Counts::Wraps => return None,
            },
            over: word(bytes, at(self.fixed))?,
        })
    }
}

/// The number in a word of an evaluation stack that is no pointer (`PyStackRef_TagInt` of 3.15).
pub fn tagged_number(word: u64) -> Option<u64> {
    (word & 3 == 3)
        .then_some(word >> 2)
        .filter(|number| *number < HIGHEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(words: &[u64]) -> Vec<u8> {
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        bytes.resize(HEAD, 0);
        bytes
    }

    /// Words as they were in `iter(range(1003, 10000, 2))` after three values, in 3.11.7 and 3.12.1.
    #[test]
    fn values_that_were_taken_are_counted() {
        let index = RangeIterator::Index.find("range_iterator").expect("known");
        let before = index
            .position(&bytes(&[1, 7, 1, 1003, 2, 4499]))
            .expect("position");
        let after = index
            .position(&bytes(&[1, 7, 3, 1003, 2, 4499]))
            .expect("position");
        assert_eq!((after.taken - before.taken, after.over), (2, before.over));
        let left = RangeIterator::Left.find("range_iterator").expect("known");
        let before = left
            .position(&bytes(&[1, 7, 1005, 2, 4498]))
            .expect("position");
        let after = left
            .position(&bytes(&[1, 7, 1009, 2, 4496]))
            .expect("position");
        assert_eq!((after.taken - before.taken, after.over), (2, before.over));
    }

    #[test]
    fn what_is_no_position_is_refused() {
        let list = RangeIterator::Left.find("list_iterator").expect("known");
        assert_eq!(list.position(&bytes(&[0, 7, 3, 4])), None);
        assert_eq!(list.position(&bytes(&[1, 7, u64::MAX, 4])), None);
        assert_eq!(list.position(&[1; 20]), None);
        assert_eq!(RangeIterator::Index.find("generator"), None);
        assert_eq!(tagged_number(7 << 2 | 3), Some(7));
        assert_eq!(tagged_number(7 << 2), None);
    }
}
