//! The `functools.lru_cache` wrappers of a heap: function, hits, misses, size and limit.

use super::labels::Names;
use crate::heap::Heap;
use crate::heap::graph::{Cache, Graph, ObjectId};
use crate::heap::memory::Place;
use crate::heap::types::{Holding, Types, field, resolve};
use crate::layout::heap::{Field, lru};

/// Callables in callables that are followed, and bases of a class.
const DEEPEST: usize = 8;
const BASES: usize = 64;

/// Longest name of a C function.
const NAME: usize = 1000;

/// `func` of a partial, `__func__` of a method, `cm_callable` and `sm_callable`.
const CALLED: u32 = 16;

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
    let function = wrapped.and_then(|wrapped| callable(heap, &wrapped, 0));
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

/// What is called when the object at `place` is, by module and qualified name, with file and first line where it is a
/// function: of a partial what it calls, of an instance its class's `__call__`.
fn callable(heap: &Heap, place: &Place, depth: usize) -> Option<(String, String, u32)> {
    if depth > DEEPEST {
        return None;
    }
    let info = resolve(heap, place.word(8)?)?;
    let inner = |offset: u32| {
        let inner = heap.memory.place(place.word(offset)?)?;
        callable(heap, &inner, depth + 1)
    };
    let unknown = || Some((info.name.clone(), String::new(), 0));
    match (info.tp_name.as_str(), info.holding) {
        ("function", Holding::Fields(fields)) => function(heap, place, fields),
        ("method" | "staticmethod" | "classmethod", _) if !info.is_heap() => {
            inner(CALLED).or_else(unknown)
        }
        (_, Holding::LruCache) => inner(lru::FUNCTION).or_else(unknown),
        (_, Holding::Type) => {
            let class = resolve(heap, place.address())?;
            Some((class.name, String::new(), 0))
        }
        (_, Holding::Builtin) => {
            let method = heap.memory.any_word(place.word(16)?)?;
            let name = heap.memory.c_string(method, NAME)?;
            let module = heap.text(place.word(32)?);
            let name = module.map_or(name.clone(), |module| format!("{module}.{name}"));
            Some((name, String::new(), 0))
        }
        _ if info.name == "functools.partial" => {
            let (name, file, line) = inner(CALLED)?;
            Some((format!("functools.partial({name})"), file, line))
        }
        _ => {
            let mut class = info.address;
            for _ in 0..BASES {
                if let Some(call) = heap.type_entry(class, "__call__") {
                    let call = heap.memory.place(call)?;
                    let found = callable(heap, &call, depth + 1);
                    let (_, file, line) = found.unwrap_or_default();
                    return Some((format!("{}.__call__", info.name), file, line));
                }
                class = heap.memory.word(class + u64::from(field::BASE))?;
            }
            unknown()
        }
    }
}

/// Module and qualified name, file and first line of a function.
fn function(heap: &Heap, place: &Place, fields: &[Field]) -> Option<(String, String, u32)> {
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
