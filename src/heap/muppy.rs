//! What `muppy.get_objects()` and `pympler.summary` of pympler 1.1 give: tracked objects without frames, the
//! untracked ones that they refer to directly, and rows by muppy's names.

use rustc_hash::FxHashMap;

use super::Heap;
use super::census::Doubts;
use super::decode::sinks::Targets;
use super::decode::{references, size};
use super::memory::{Bits, Place};
use super::types::{Holding, TypeIndex, TypeInfo, Types, field, flag};
use super::walk::{Count, follow, is_conservative, plausible};
use crate::layout::heap::GC_HEAD;

/// What muppy sees.
#[derive(Debug)]
pub struct Seen {
    /// The objects.
    pub objects: Bits,
    /// What was not sure.
    pub doubts: Doubts,
}

/// Finds them.
pub fn find(heap: &Heap, types: &mut Types) -> Seen {
    let tracked = Bits::new(&heap.memory);
    let objects = Bits::new(&heap.memory);
    let mut doubts = heap.doubts;
    let mut sink = Targets::new(heap);
    for head in heap.young.iter().rev() {
        let whole = follow(heap, *head, &tracked, |object| {
            let Some(place) = heap.memory.place(object) else {
                return;
            };
            let Some(index) = types.find(heap, place.word_or_0(8)) else {
                doubts.unreadable += 1;
                return;
            };
            let info = types.get(index);
            if info.holding == Holding::Frame {
                return;
            }
            objects.set_alone(place.bit());
            doubts.conservative += u64::from(is_conservative(info));
            sink.targets.clear();
            sink.found.clear();
            doubts.torn += u64::from(references(heap, info, &place, false, &mut sink).is_err());
            for target in &sink.targets {
                match object_at(heap, types, *target) {
                    Some((place, index)) => enter(types.get(index), &place, &objects),
                    None => doubts.unreadable += 1,
                }
            }
            for word in &sink.found {
                if let Some((place, index)) = plausible(heap, types, *word) {
                    enter(types.get(index), &place, &objects);
                }
            }
        });
        doubts.torn += u64::from(!whole);
    }
    Seen { objects, doubts }
}

fn object_at<'a>(
    heap: &Heap<'a>,
    types: &mut Types,
    target: u64,
) -> Option<(Place<'a>, TypeIndex)> {
    let place = heap.memory.place(target)?;
    let index = types.find(heap, place.word(8)?)?;
    Some((place, index))
}

/// An untracked object counts.
fn enter(info: &TypeInfo, place: &Place, objects: &Bits) {
    if !is_tracked(info, place) && info.holding != Holding::Frame {
        objects.set_alone(place.bit());
    }
}

/// `gc.is_tracked`.
pub fn is_tracked(info: &TypeInfo, place: &Place) -> bool {
    let is_static_type = info.is_meta() && place.word_or_0(field::FLAGS) & flag::HEAP == 0;
    info.is_gc()
        && !is_static_type
        && place
            .word_before(GC_HEAD as usize)
            .is_some_and(|next| next & !3 != 0)
}

/// Rows with muppy's names.
pub fn rows(heap: &Heap, types: &mut Types, seen: &mut Seen) -> FxHashMap<String, Count> {
    let mut rows: FxHashMap<String, Count> = FxHashMap::default();
    let mut plain: Vec<Count> = Vec::new();
    let doubts = &mut seen.doubts;
    heap.memory
        .each_set(&seen.objects, 0, seen.objects.len(), |_, place| {
            let Some(index) = types.find(heap, place.word_or_0(8)) else {
                return;
            };
            let info = types.get(index);
            let bytes = size::size(heap, info, &place).unwrap_or_else(|| {
                doubts.torn += 1;
                info.basic
            });
            let count = match own_row(heap, info, &place) {
                Some(name) => rows.entry(name).or_default(),
                None => {
                    let index = index as usize;
                    if plain.len() <= index {
                        plain.resize(index + 1, (0, 0));
                    }
                    &mut plain[index]
                }
            };
            count.0 += 1;
            count.1 = count.1.saturating_add(bytes);
        });
    for (index, count) in plain
        .into_iter()
        .enumerate()
        .filter(|(_, count)| count.0 > 0)
    {
        let name = row_name(heap, types, index as TypeIndex);
        let row = rows.entry(name).or_default();
        row.0 += count.0;
        row.1 = row.1.saturating_add(count.1);
    }
    rows
}

/// Functions and modules have rows by their names (pympler/summary.py, `representations`); only those that are
/// exactly of these types.
fn own_row(heap: &Heap, info: &TypeInfo, place: &Place) -> Option<String> {
    if info.is_heap() {
        return None;
    }
    match info.holding {
        Holding::Module => {
            let name = module_name(heap, place).unwrap_or_else(|| "?".to_string());
            Some(format!("module({name})"))
        }
        Holding::Fields(fields) if info.tp_name == "function" => {
            let (_, offset) = fields.iter().find(|(name, _)| *name == "__name__")?;
            let name = heap
                .text(place.word(*offset)?)
                .unwrap_or_else(|| "?".to_string());
            Some(format!("function ({name})"))
        }
        _ => None,
    }
}

/// `__name__` of a module.
pub fn module_name(heap: &Heap, place: &Place) -> Option<String> {
    heap.text(heap.dict_entry(place.word(16)?, "__name__")?)
}

/// `str(type(object))` without brackets: classes of enums print themselves in another way.
fn row_name(heap: &Heap, types: &mut Types, index: TypeIndex) -> String {
    let info = types.get(index).clone();
    let own_name = || {
        let name = info.name.rsplit('.').next().unwrap_or(&info.name);
        name.to_string()
    };
    let meta = heap.memory.word(info.address.wrapping_add(8)).unwrap_or(0);
    let Some(meta) = types.find(heap, meta) else {
        return info.name;
    };
    let mut meta = types.get(meta).clone();
    for _ in 0..32 {
        match meta.name.as_str() {
            "enum.EnumMeta" => return format!("<enum '{}'>", own_name()),
            "enum.EnumType" if is_flag(heap, types, &info) => {
                return format!("<flag '{}'>", own_name());
            }
            "enum.EnumType" => return format!("<enum '{}'>", own_name()),
            _ => {}
        }
        match types.find(heap, meta.base) {
            Some(base) => meta = types.get(base).clone(),
            None => break,
        }
    }
    info.name
}

fn is_flag(heap: &Heap, types: &mut Types, info: &TypeInfo) -> bool {
    let bases = heap
        .memory
        .word(info.address + u64::from(field::MRO))
        .and_then(|mro| heap.tuple_items(mro));
    bases.is_some_and(|bases| {
        super::memory::each_word(bases).take(200).any(|base| {
            types
                .find(heap, base)
                .is_some_and(|base| types.get(base).name == "enum.Flag")
        })
    })
}
