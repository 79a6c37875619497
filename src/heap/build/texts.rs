//! Texts of objects: what names something, and short values on request.

use super::labels::Names;
use crate::heap::Heap;
use crate::heap::decode::size;
use crate::heap::graph::{Graph, ObjectId, Rest};
use crate::heap::memory::Place;
use crate::heap::muppy;
use crate::heap::repr::{Repr, SHORT};
use crate::heap::types::{Holding, Sizing, TypeInfo, Types};
use crate::heap::values::{attribute_keys, is_identifier};

/// The text of an object that has a name: a function, module or type.
pub fn of(heap: &Heap, info: &TypeInfo, place: &Place) -> Option<String> {
    match info.holding {
        Holding::Type => crate::heap::types::resolve(heap, place.address()).map(|info| info.name),
        Holding::Module => muppy::module_name(heap, place),
        Holding::Fields(fields) if info.tp_name == "function" && !info.is_heap() => {
            let find = |wanted| fields.iter().find(|(name, _)| *name == wanted);
            let (_, offset) = find("__qualname__").or_else(|| find("__name__"))?;
            heap.text(place.word(*offset)?)
        }
        _ => None,
    }
}

/// Keys of mappings by what they are: strings by their first letters, others as Python reads them.
pub fn add_values(heap: &Heap, types: &Types, graph: &mut Graph, names: &mut Names) {
    let mut keys: Vec<ObjectId> = Vec::new();
    for id in 0..graph.len() as ObjectId {
        let shape = graph.shape_ids.get(id as usize);
        let shape = shape.and_then(|shape| graph.shapes.get(*shape as usize));
        if let Some(shape) = shape.filter(|shape| shape.rest == Rest::Pairs) {
            let references = graph.references(id).iter().skip(shape.labels.len());
            keys.extend(references.step_by(2));
        }
    }
    keys.sort_unstable();
    keys.dedup();
    let mut repr = Repr::new(heap, types.clone());
    for key in keys {
        let at = key as usize;
        let (Some(address), Some(type_id)) = (graph.addresses.get(at), graph.type_ids.get(at))
        else {
            continue;
        };
        let text = match types.all().get(*type_id as usize) {
            Some(info) if info.name == "str" => heap.text(*address).map(|text| cut(&text)),
            Some(info) if !matches!(info.holding, Holding::Type | Holding::Module) => {
                repr.literal(*address)
            }
            _ => None,
        };
        if let Some(text) = text {
            graph.texts.push((key, names.intern(&text)));
        }
    }
}

/// The first letters.
fn cut(text: &str) -> String {
    let mut short: String = text.chars().take(SHORT).collect();
    if text.chars().count() > SHORT {
        short.push('…');
    }
    short
}

/// Strings that are keys of the dict of a module, class or instance, or of a function's defaults; without `values` those
/// that are identifiers.
pub fn add_keys(heap: &Heap, types: &Types, graph: &mut Graph, names: &mut Names, values: bool) {
    let dict = names.intern("__dict__");
    let defaults = names.intern("__kwdefaults__");
    let cached = names.intern("ht_cached_keys");
    let keys = attribute_keys(graph, &[dict, defaults], cached);
    for key in keys {
        let address = graph.addresses.get(key as usize).copied().unwrap_or(0);
        let info = graph
            .type_ids
            .get(key as usize)
            .and_then(|type_id| types.all().get(*type_id as usize));
        let is_text = info.is_some_and(|info| {
            let place = heap.memory.place(address);
            info.sizing == Sizing::Text
                && place.is_some_and(|place| size::size(heap, info, &place).is_some())
        });
        let text = heap.text(address).filter(|_| is_text);
        if let Some(text) = text.filter(|text| values || is_identifier(text)) {
            graph.texts.push((key, names.intern(&text)));
        }
    }
}
