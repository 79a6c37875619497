//! References to a column and back. An object's references mostly go to the neighbours of what the object of
//! its shape before referred to from the same place: what is written is how far off that guess is.

use crate::blocks::bytes::{Cursor, unzigzag, zigzag};
use crate::error::Result;
use crate::heap::graph::{ObjectId, Rest, Shape};

/// Places behind the labels for which the object of the same shape before is asked.
const PLACES: usize = 4;

/// Guesses the next target, over all references in their order.
#[derive(Debug)]
pub(super) struct Guesser {
    /// The last target by place, of all shapes one after the other.
    last: Vec<ObjectId>,
    /// Where each shape's places start, how many it has, and how far back to look behind them.
    places: Vec<(usize, usize, usize)>,
    /// The object whose references are next, how many of them there have been, and where they end.
    object: usize,
    place: usize,
}

impl Guesser {
    pub(super) fn new(shapes: &[Shape]) -> Guesser {
        let mut total = 0;
        let places = shapes.iter().map(|shape| {
            let length = shape.labels.len() + PLACES;
            total += length;
            let back = if shape.rest == Rest::Pairs { 2 } else { 1 };
            (total - length, length, back)
        });
        let places = places.collect();
        Guesser {
            last: vec![0; total],
            places,
            object: 0,
            place: 0,
        }
    }

    /// Hands the guess for the next reference to `settle`, which gives the target; `before` has the
    /// targets of all references so far. `None` when there is no object with a reference more, or
    /// `settle` has none.
    fn next(
        &mut self,
        objects: &ObjectShapes<'_>,
        before: &[ObjectId],
        settle: impl FnOnce(ObjectId) -> Option<ObjectId>,
    ) -> Option<ObjectId> {
        while *objects.ends.get(self.object)? <= before.len() as u64 {
            self.object += 1;
            self.place = 0;
        }
        let shape = *objects.shapes.get(self.object)?;
        let (start, length, back) = *self.places.get(shape as usize)?;
        let target = if self.place < length {
            let last = self.last.get_mut(start + self.place)?;
            *last = settle(*last)?;
            *last
        } else {
            let at = before.len().checked_sub(back)?;
            settle(*before.get(at)?)?
        };
        self.place += 1;
        Some(target)
    }

    /// The column of the references `from..to`.
    pub(super) fn column(
        &mut self,
        objects: &ObjectShapes<'_>,
        targets: &[ObjectId],
        from: usize,
        to: usize,
        values: &mut Vec<u64>,
    ) {
        for at in from..to {
            self.next(objects, &targets[..at], |guess| {
                let target = targets[at];
                values.push(zigzag(i64::from(target) - i64::from(guess)));
                Some(target)
            });
        }
    }

    /// Appends the references of a block of `count` to `targets`.
    pub(super) fn read(
        &mut self,
        objects: &ObjectShapes<'_>,
        cursor: &mut Cursor<'_>,
        count: usize,
        targets: &mut Vec<ObjectId>,
    ) -> Result<()> {
        let total = objects.ends.len();
        for value in cursor.column(count)? {
            let target = self.next(objects, targets, |guess| {
                let target = i64::from(guess).checked_add(unzigzag(value))?;
                let target = ObjectId::try_from(target).ok()?;
                ((target as usize) < total).then_some(target)
            });
            let target = target.ok_or_else(|| cursor.bad("a reference leads to no object"))?;
            targets.push(target);
        }
        Ok(())
    }
}

/// What the guess goes by.
#[derive(Debug, Clone, Copy)]
pub(super) struct ObjectShapes<'a> {
    /// Shapes of the objects.
    pub(super) shapes: &'a [u32],
    /// Where their references end.
    pub(super) ends: &'a [u64],
}
