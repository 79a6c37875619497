//! Texts of objects: what names something, and short values on request.

use std::fmt::Write as _;

use super::labels::Names;
use crate::heap::Heap;
use crate::heap::decode::size;
use crate::heap::graph::Graph;
use crate::heap::memory::Place;
use crate::heap::muppy;
use crate::heap::types::{Holding, Sizing, TypeInfo, Types};
use crate::heap::values::{attribute_keys, is_identifier};
use crate::layout::heap::IntSize;
use crate::layout::object;

/// Most characters of a value that are kept.
const SHORT: usize = 60;

/// The text of an object: of functions, modules and types always, of others with `values`.
pub fn of(heap: &Heap, info: &TypeInfo, place: &Place, values: bool) -> Option<String> {
    match info.holding {
        Holding::Type => crate::heap::types::resolve(heap, place.address()).map(|info| info.name),
        Holding::Module => muppy::module_name(heap, place),
        Holding::Fields(fields) if info.tp_name == "function" && !info.is_heap() => {
            let find = |wanted| fields.iter().find(|(name, _)| *name == wanted);
            let (_, offset) = find("__qualname__").or_else(|| find("__name__"))?;
            heap.text(place.word(*offset)?)
        }
        _ if values => value(heap, info, place),
        _ => None,
    }
}

/// A short repr of an int, float or bytes, and the first letters of a string.
fn value(heap: &Heap, info: &TypeInfo, place: &Place) -> Option<String> {
    match info.sizing {
        Sizing::Int => int(heap, place),
        Sizing::Text => {
            let text = heap.text(place.address())?;
            let mut short: String = text.chars().take(SHORT).collect();
            if text.chars().count() > SHORT {
                short.push('…');
            }
            Some(short)
        }
        _ if info.tp_name == "float" => Some(f64::from_bits(place.word(16)?).to_string()),
        _ if info.tp_name == "bytes" => {
            let length = place.word(16)?;
            let bytes = place.bytes(object::BYTES_DATA, length.min(SHORT as u64))?;
            let more = if length > SHORT as u64 { "…" } else { "" };
            Some(format!("b'{}{more}'", bytes.escape_ascii()))
        }
        _ => None,
    }
}

/// An int of up to two digits of 30 bits; for longer ones how long they are.
fn int(heap: &Heap, place: &Place) -> Option<String> {
    let word = place.word(16)?;
    let (digits, negative) = match heap.layout.int {
        IntSize::Tag => (word >> 3, word & 3 == 2),
        IntSize::Signed(_) => ((word as i64).unsigned_abs(), (word as i64) < 0),
    };
    let magnitude = match digits {
        0 => 0,
        1 => u64::from(place.int(24)),
        2 => u64::from(place.int(24)) | u64::from(place.int(28)) << 30,
        _ => return Some(format!("int of {digits} digits of 30 bits")),
    };
    let mut text = String::new();
    if negative && magnitude != 0 {
        text.push('-');
    }
    write!(text, "{magnitude}").ok()?;
    Some(text)
}

/// Strings that are keys of the dict of a module, class or instance; without `values` those that are identifiers.
pub fn add_keys(heap: &Heap, types: &Types, graph: &mut Graph, names: &mut Names, values: bool) {
    let dict = names.intern("__dict__");
    let cached = names.intern("ht_cached_keys");
    let keys = attribute_keys(graph, dict, cached);
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
