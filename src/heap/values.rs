//! What is a name, and may be shown and kept; and what is a value of the program, and may be a secret.
//!
//! Names are those of types, functions, modules, variables, and the keys of the dict of a module, class or instance
//! that are identifiers. Any other key is a value: `session.__dict__['token 17']` may hold as much as any dict.

use rustc_hash::FxHashSet;

use super::graph::{Graph, Label, ObjectId, Rest};
use super::steps;

/// What stands for an attribute whose name is a value.
pub const HIDDEN: &str = "<str>";

/// Whether Python could write it behind a dot; of a text that was cut, what is left of it.
pub fn is_identifier(text: &str) -> bool {
    let cut = text.split_once("… (+").filter(|(_, mark)| {
        let count = mark.strip_suffix(" characters)");
        count.is_some_and(|count| count.bytes().all(|digit| digit.is_ascii_digit()))
    });
    let text = cut.map_or(text, |(left, _)| left);
    let mut letters = text.chars();
    let first = letters.next();
    first.is_some_and(|letter| letter.is_alphabetic() || letter == '_')
        && letters.all(|letter| letter.is_alphanumeric() || letter == '_')
}

/// The keys of the dicts of modules, classes and instances and of functions' defaults, in order; `dicts` are the ids of
/// the names `__dict__` and `__kwdefaults__`, `cached` that of `ht_cached_keys`.
pub fn attribute_keys(graph: &Graph, dicts: &[u32], cached: u32) -> Vec<ObjectId> {
    let mut keys: Vec<ObjectId> = Vec::new();
    let shape_of = |id: ObjectId| {
        let shape = graph.shape_ids.get(id as usize)?;
        graph.shapes.get(*shape as usize)
    };
    let is_dict = |label: &Label| matches!(label, Label::Field(name) if dicts.contains(name));
    for id in 0..graph.len() as ObjectId {
        let Some(shape) = shape_of(id) else {
            continue;
        };
        for (label, target) in shape.labels.iter().zip(graph.references(id)) {
            if *label == Label::Field(cached) {
                keys.push(*target);
            }
            let pairs = shape_of(*target).filter(|pairs| pairs.rest == Rest::Pairs);
            if let Some(pairs) = pairs.filter(|_| is_dict(label)) {
                let references = graph.references(*target).iter().skip(pairs.labels.len());
                keys.extend(references.step_by(2));
            }
        }
    }
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// Takes the texts of values out of a graph that was kept with them.
pub fn hide(graph: &mut Graph) {
    let id = |graph: &Graph, name: &str| {
        let at = graph.names.iter().position(|known| known == name);
        at.and_then(|at| u32::try_from(at).ok())
    };
    let none = u32::MAX;
    let dict = id(graph, "__dict__").unwrap_or(none);
    let defaults = id(graph, "__kwdefaults__").unwrap_or(none);
    let cached = id(graph, "ht_cached_keys").unwrap_or(none);
    let keys = attribute_keys(graph, &[dict, defaults], cached);
    let types: FxHashSet<ObjectId> = graph.types.iter().filter_map(|kind| kind.object).collect();
    let mut texts = std::mem::take(&mut graph.texts);
    texts.retain(|(object, text)| {
        let is_named = matches!(steps::type_name(graph, *object), "module" | "function");
        let is_key = keys.binary_search(object).is_ok() && is_identifier(graph.name(*text));
        is_named || is_key || types.contains(object)
    });
    graph.texts = texts;
    let is_value: Vec<bool> = graph
        .names
        .iter()
        .map(|name| !is_identifier(name))
        .collect();
    let hidden = u32::try_from(graph.names.len()).unwrap_or(none);
    graph.names.push(HIDDEN.to_string());
    let labels = graph.shapes.iter_mut().flat_map(|shape| &mut shape.labels);
    for label in labels {
        if let Label::Attribute(name) = label
            && is_value.get(*name as usize).copied().unwrap_or(false)
        {
            *name = hidden;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_told_from_values() {
        for name in [
            "a",
            "_x1",
            "größe",
            "名前",
            "__dict__",
            "aaa… (+12 characters)",
        ] {
            assert!(is_identifier(name), "{name}");
        }
        for value in [
            "",
            "1a",
            "a b",
            "a-b",
            "key=secret",
            "a.b",
            "\u{fffd}",
            "/x",
        ] {
            assert!(!is_identifier(value), "{value}");
        }
    }
}
