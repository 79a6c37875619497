//! Objects of a core file that was cut short: by the links of the collector's lists, whose heads or links between may be
//! missing. Two neighbours that know each other are on a list, so that nothing is found that is not there.

use super::Heap;
use super::open::LINK_MASK;
use super::types::Types;
use crate::layout::heap::GC_HEAD;

/// Calls `each` with the address of every object that one of its neighbours in a list knows, until that gives false.
pub fn each(heap: &Heap, mut each: impl FnMut(u64) -> bool) {
    let mut types = Types::default();
    let link = |address: u64| heap.memory.word(address).map(|word| word & LINK_MASK);
    for span in heap.captured.image.spans() {
        // Allocators give out multiples of 16.
        let first = span.start().next_multiple_of(16) - span.start();
        let bytes = usize::try_from(first)
            .ok()
            .and_then(|first| span.bytes().get(first..));
        for (index, head) in bytes.unwrap_or_default().chunks_exact(16).enumerate() {
            let (next, previous) = head.split_at(8);
            if next == [0; 8] || previous == [0; 8] {
                continue;
            }
            let at = span.start() + first + index as u64 * 16;
            let (Some(next), Some(previous)) = (link(at), link(at + 8)) else {
                continue;
            };
            let is_linked = (next != at && link(next.wrapping_add(8)) == Some(at))
                || (previous != at && link(previous) == Some(at));
            if !is_linked {
                continue;
            }
            let Some(place) = heap.memory.place(at + GC_HEAD) else {
                continue;
            };
            let kind = place.word_or_0(8);
            let is_object = heap.counts_references(&place)
                && types
                    .find(heap, kind)
                    .is_some_and(|index| types.get(index).is_gc());
            if is_object && !each(place.address()) {
                return;
            }
        }
    }
}
