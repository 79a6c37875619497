//! Objects to check a layout by, from places that have nothing to do with each other: both ends of the collector's
//! lists, the interpreter's modules and what is in them, its builtins, and the types of all of these. A link that is
//! broken somewhere hides some of them, not all.

use super::decode::dict::{self, Keys};
use super::open::LINK_MASK;
use super::types::field;
use super::{Heap, fragments};
use crate::layout::heap::GC_HEAD;

/// Objects from each end of each list.
const FROM_A_LIST: usize = 7500;

/// Entries of one dict that are looked at, and objects in all.
const FROM_A_DICT: usize = 2000;
const MOST: usize = 100_000;

/// `md_dict` of a module, in all versions (Include/internal/pycore_moduleobject.h).
const MODULE_DICT: u64 = 16;

/// Candidates, and what they should have come from and did not.
#[derive(Debug, Default)]
pub struct Candidates {
    /// Addresses of objects, each once; what is damaged may be among them.
    pub objects: Vec<u64>,
    /// Dicts of the interpreter or of modules that could not be read.
    pub lost: u64,
}

/// Finds them.
pub fn find(heap: &Heap) -> Candidates {
    let mut found = Candidates::default();
    from_lists(heap, &mut found.objects);
    for interpreter in &heap.interpreters {
        let sysdict = heap.layout.sysdict;
        for offset in [sysdict, sysdict + 8] {
            let dict = heap.memory.word(interpreter.wrapping_add(offset.into()));
            from_dict(heap, dict.unwrap_or(0), &mut found);
        }
        let modules = interpreter.wrapping_add(heap.offsets.interpreter.modules.into());
        let first = found.objects.len();
        from_dict(heap, heap.memory.word(modules).unwrap_or(0), &mut found);
        for at in first..found.objects.len() {
            // Anything can be in `sys.modules`.
            let value = found.objects.get(at).copied().unwrap_or(0);
            if is_module(heap, value) {
                let dict = heap.memory.word(value.wrapping_add(MODULE_DICT));
                from_dict(heap, dict.unwrap_or(0), &mut found);
            }
        }
    }
    let types: Vec<u64> = found
        .objects
        .iter()
        .filter_map(|object| heap.memory.word(object.wrapping_add(8)))
        .collect();
    found.objects.extend(types);
    found.objects.sort_unstable();
    found.objects.dedup();
    found
}

/// Adds objects of a core file that was cut short, from wherever they are.
pub fn add_fragments(heap: &Heap, objects: &mut Vec<u64>) {
    let mut types = Vec::new();
    fragments::each(heap, |object| {
        types.extend(heap.memory.word(object.wrapping_add(8)));
        objects.push(object);
        objects.len() < MOST
    });
    objects.extend(types);
    objects.sort_unstable();
    objects.dedup();
}

fn from_lists(heap: &Heap, objects: &mut Vec<u64>) {
    for head in heap.permanent.iter().chain(heap.young.iter().rev()) {
        for end in [0, 8] {
            let mut link = *head;
            for _ in 0..FROM_A_LIST {
                let next = heap.memory.word(link + end).unwrap_or(0) & LINK_MASK;
                if next == *head || heap.memory.place(next).is_none() {
                    break;
                }
                objects.push(next + GC_HEAD);
                link = next;
            }
        }
    }
}

fn is_module(heap: &Heap, object: u64) -> bool {
    let name = || {
        let kind = heap.memory.word(object.wrapping_add(8))?;
        let name = heap.memory.word(kind.wrapping_add(field::NAME.into()))?;
        heap.memory.c_string(name, 8)
    };
    name().as_deref() == Some("module")
}

/// The values of a dict; none where there is none yet.
fn from_dict(heap: &Heap, dict: u64, found: &mut Candidates) {
    if dict == 0 {
        return;
    }
    let read = || {
        let place = heap.memory.place(dict)?;
        let keys = Keys::read(heap, place.word(dict::KEYS)?)?;
        let values = place.word(dict::VALUES)?;
        let (mut left, room) = (FROM_A_DICT, MOST.saturating_sub(found.objects.len()));
        let mut objects = Vec::new();
        keys.each(heap, values, |key, value| {
            left -= 1;
            if key != 0 && heap.memory.place(value).is_some() {
                objects.push(value);
            }
            left > 0 && objects.len() < room
        })?;
        Some(objects)
    };
    match read() {
        Some(objects) => found.objects.extend(objects),
        None => found.lost += 1,
    }
}
