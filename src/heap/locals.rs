//! Local variables of frames, each with a short repr.

use super::Heap;
use super::decode::sinks::Named;
use super::decode::{Name, frames};
use super::repr::Repr;
use super::types::Types;

/// Most variables of one frame that are shown.
const MOST: usize = 200;

/// Characters of one value.
const LONGEST: usize = 128;

/// Reads the local variables of frames.
#[derive(Debug)]
pub struct Locals<'h, 'm> {
    heap: &'h Heap<'m>,
    repr: Repr<'h, 'm>,
    sink: Named,
}

impl<'h, 'm> Locals<'h, 'm> {
    /// For frames of `heap`.
    pub fn new(heap: &'h Heap<'m>) -> Self {
        Locals {
            heap,
            repr: Repr::new(heap, Types::default()),
            sink: Named::new(heap),
        }
    }

    /// Name and short repr of each variable that is set in the frame at `address`; as far as can be read.
    pub fn of_frame(&mut self, address: u64) -> Vec<(String, String)> {
        let heap = self.heap;
        let Some(place) = heap.memory.place(address) else {
            return Vec::new();
        };
        self.sink.clear();
        let is_object = heap.layout.frame.frame.is_none();
        // What comes before a frame turned out to be torn is there.
        let _ = if is_object {
            frames::frame_references(heap, &place, true, &mut self.sink)
        } else {
            frames::inner_references(heap, &place, true, &mut self.sink)
        };
        let mut found = Vec::new();
        for (value, name) in self.sink.fields.iter().take(MOST) {
            let Name::Local(name) = name else {
                continue;
            };
            let mut text = self.repr.describe(*value);
            if text.chars().count() > LONGEST {
                text = text.chars().take(LONGEST).collect();
                text.push('…');
            }
            found.push((heap.text(*name).unwrap_or_else(|| "?".to_string()), text));
        }
        found
    }
}
