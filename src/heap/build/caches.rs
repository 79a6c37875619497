//! The `functools.lru_cache` wrappers of a heap: function, hits, misses, size and limit.

use super::labels::Names;
use crate::heap::Heap;
use crate::heap::graph::{Cache, Graph, ObjectId};
use crate::heap::memory::Place;
use crate::heap::types::{Holding, Types, resolve};
use crate::layout::heap::lru;

/// Adds the wrappers to `graph`, whose types are `types`.
pub fn add(heap: &Heap, types: &Types, graph: &mut Graph, names: &mut Names) {
    let is_wrapper: Vec<bool> = types
        .all()
        .iter()
        .map(|info| info.holding == Holding::LruCache)
        .collect();
    for (at, type_id) in graph.type_ids.iter().enumerate() {
        if !is_wrapper.get(*type_id as usize).copied().unwrap_or(false) {
            continue;
        }
        let address = graph.addresses.get(at).copied().unwrap_or(0);
        let place = heap.memory.place(address);
        if let Some(cache) = place.and_then(|place| cache(heap, at as ObjectId, &place, names)) {
            graph.caches.push(cache);
        }
    }
}

fn cache(heap: &Heap, object: ObjectId, place: &Place, names: &mut Names) -> Option<Cache> {
    let limit = place.word(lru::MAXSIZE)? as i64;
    let dict = heap.memory.place(place.word(lru::CACHE)?);
    let wrapped = heap.memory.place(place.word(lru::FUNCTION)?);
    let function = wrapped.and_then(|wrapped| function(heap, &wrapped));
    let (name, file, line) = function.unwrap_or_else(|| ("?".into(), String::new(), 0));
    Some(Cache {
        object,
        function: names.intern(&name),
        file: names.intern(&file),
        line,
        hits: place.word(lru::HITS)?,
        misses: place.word(lru::MISSES)?,
        size: dict.and_then(|dict| dict.word(16)).unwrap_or(0),
        limit: u64::try_from(limit).ok(),
    })
}

/// Module and qualified name, file and first line of a function.
fn function(heap: &Heap, place: &Place) -> Option<(String, String, u32)> {
    let info = resolve(heap, place.word(8)?)?;
    let Holding::Fields(fields) = info.holding else {
        return Some((info.name.clone(), String::new(), 0));
    };
    let find = |wanted: &str| {
        let found = fields.iter().find(|(name, _)| *name == wanted);
        found.and_then(|(_, offset)| place.word(*offset))
    };
    let name = find("__qualname__").or_else(|| find("__name__"))?;
    let name = heap.text(name)?;
    let name = match find("__module__").and_then(|module| heap.text(module)) {
        Some(module) => format!("{module}.{name}"),
        None => name,
    };
    let code = find("__code__").and_then(|code| heap.memory.place(code));
    let file = code
        .as_ref()
        .and_then(|code| heap.text(code.word(heap.offsets.code.filename)?));
    let line = code.map_or(0, |code| code.int(heap.offsets.code.first_line));
    Some((name, file.unwrap_or_default(), line))
}
