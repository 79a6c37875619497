//! The JSON documents about who holds memory. A field is never lost or renamed within a version.

use crate::view::heap::holders::PathRow;
use rustc_hash::FxHashMap;
use serde::Serialize;
use serde_json::{Value, json};

use crate::error::{Error, ErrorKind, Result};
use crate::heap::caches::CacheRow;
use crate::heap::containers::Grown;
use crate::heap::graph::{Graph, ObjectId};
use crate::heap::paths::Paths;
use crate::heap::referrers::{Group, Referrer};
use crate::heap::retained::{GroupRetained, Holder};
use crate::heap::rss::{Account, Family, Part};
use crate::heap::steps::{self, Step};
use crate::view::heap::holders::STEPS;

fn text(document: &impl Serialize) -> Result<String> {
    serde_json::to_string_pretty(document)
        .map(|text| text + "\n")
        .map_err(|error| Error::new(ErrorKind::Failed, "cannot write JSON", error.to_string()))
}

fn address(graph: &Graph, object: ObjectId) -> Value {
    graph
        .addresses
        .get(object as usize)
        .map_or(Value::Null, |address| json!(format!("{address:#x}")))
}

fn step(graph: &Graph, step: Option<Step>) -> Value {
    step.map_or(Value::Null, |step| {
        let mut text = String::new();
        step.write(graph, &mut text);
        json!(text)
    })
}

/// `biopsy.heap-retained/1`, by object. All bytes are as `sizes` says: `blocks` of the allocators (`debug-blocks` with what
/// their debug hooks add), or `getsizeof`.
pub fn holders(
    graph: &Graph,
    paths: &Paths<'_>,
    rows: &[Holder],
    whole: u64,
    chained: u64,
) -> Result<String> {
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({
                "address": address(graph, row.object),
                "type": steps::type_name(graph, row.object),
                "retained_bytes": row.retained,
                "objects": row.held,
                "bytes": row.shallow,
                "path": paths.text(row.object, STEPS),
            })
        })
        .collect();
    text(&json!({
        "schema": "biopsy.heap-retained/1",
        "by": "object",
        "sizes": graph.counted.name(),
        "total_bytes": whole,
        "holders": rows,
        "left_out_of_chains": chained,
    }))
}

/// `biopsy.heap-retained/1`, by type or module.
pub fn groups(graph: &Graph, rows: &[GroupRetained], by: &str, whole: u64) -> Result<String> {
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({
                by: row.name,
                "retained_bytes": row.retained,
                "objects": row.objects,
                "bytes": row.shallow,
            })
        })
        .collect();
    text(&json!({
        "schema": "biopsy.heap-retained/1",
        "by": by,
        "sizes": graph.counted.name(),
        "total_bytes": whole,
        "holders": rows,
    }))
}

fn roots(graph: &Graph, roots: &[usize]) -> Vec<String> {
    let found = roots.iter().filter_map(|root| graph.roots.get(*root));
    found.map(|(_, root)| steps::root(graph, root)).collect()
}

/// As deep as the tree, which is bounded by `--depth`.
fn referrer(graph: &Graph, node: &Referrer) -> Value {
    let children: Vec<Value> = node
        .children
        .iter()
        .map(|child| referrer(graph, child))
        .collect();
    json!({
        "address": address(graph, node.object),
        "type": steps::type_name(graph, node.object),
        "bytes": graph.sizes.get(node.object as usize),
        "by": step(graph, node.step),
        "cycle": node.is_cycle,
        "seen": node.is_seen,
        "beyond_depth": node.beyond,
        "roots": roots(graph, &node.roots),
        "referrers": children,
        "hidden": node.hidden,
    })
}

/// `biopsy.heap-referrers/1` of one object: the tree, and the same as a graph with each object once, and one edge for all
/// references of an object to another one that are called the same.
pub fn referrers(graph: &Graph, tree: &Referrer, is_cut: bool) -> Result<String> {
    let mut nodes = Vec::new();
    // Two keys of a dict are called the same where their texts are not kept.
    let mut edges: Vec<(ObjectId, ObjectId, Value, u64)> = Vec::new();
    let mut known: FxHashMap<(ObjectId, ObjectId, String), usize> = FxHashMap::default();
    let mut is_deeper = false;
    let mut open = vec![tree];
    while let Some(node) = open.pop() {
        if !node.is_seen && !node.is_cycle {
            nodes.push(json!({
                "address": address(graph, node.object),
                "type": steps::type_name(graph, node.object),
                "bytes": graph.sizes.get(node.object as usize),
                "roots": roots(graph, &node.roots),
                "hidden": node.hidden,
            }));
        }
        is_deeper |= node.beyond > 0;
        for child in &node.children {
            let by = step(graph, child.step);
            let key = (child.object, node.object, by.to_string());
            let at = *known.entry(key).or_insert(edges.len());
            match edges.get_mut(at) {
                Some((.., references)) => *references += 1,
                None => edges.push((child.object, node.object, by, 1)),
            }
            open.push(child);
        }
    }
    let edges: Vec<Value> = edges
        .into_iter()
        .map(|(from, to, by, references)| {
            json!({
                "from": address(graph, from),
                "to": address(graph, to),
                "by": by,
                "references": references,
            })
        })
        .collect();
    text(&json!({
        "schema": "biopsy.heap-referrers/1",
        "object": referrer(graph, tree),
        "nodes": nodes,
        "edges": edges,
        "cut": is_cut || is_deeper,
        "cut_by_depth": is_deeper,
    }))
}

fn group(graph: &Graph, node: &Group) -> Value {
    let children: Vec<Value> = node
        .children
        .iter()
        .map(|child| group(graph, child))
        .collect();
    json!({
        "type": node.type_name,
        "objects": node.objects,
        "references": node.references,
        "by": step(graph, node.step),
        "roots": roots(graph, &node.roots),
        "referrers": children,
        "hidden": node.hidden,
    })
}

/// `biopsy.heap-referrers/1` of the instances of a type.
pub fn referrer_groups(graph: &Graph, tree: &Group) -> Result<String> {
    text(&json!({"schema": "biopsy.heap-referrers/1", "type": group(graph, tree)}))
}

/// `biopsy.heap-path/1`. `type` and `other_forms` are there where each row is of another type, `such_as` with `--values`.
pub fn paths(graph: &Graph, rows: &[PathRow], hidden: usize) -> Result<String> {
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| {
            let mut shown = json!({
                "path": row.form.text,
                "objects": row.form.objects,
                "example": address(graph, row.form.example),
            });
            if let Some(kind) = &row.kind {
                shown["type"] = json!(kind);
                shown["other_forms"] = json!(row.others);
            }
            if let Some(path) = &row.such_as {
                shown["such_as"] = json!(path);
            }
            shown
        })
        .collect();
    let mut document = json!({"schema": "biopsy.heap-path/1", "paths": rows, "hidden": hidden});
    if graph.missing > 0 {
        document["lower_bounds"] = json!(true);
    }
    text(&document)
}

/// `biopsy.heap-caches/1`. No limit is null; so are `containers` when they were not asked for, and a count that there was
/// not.
pub fn caches(
    graph: &Graph,
    rows: &[CacheRow],
    paths: &[String],
    grown: Option<&[Grown]>,
) -> Result<String> {
    let rows: Vec<Value> = rows
        .iter()
        .zip(paths)
        .map(|((cache, retained), path)| {
            json!({
                "function": graph.name(cache.function),
                "file": graph.name(cache.file),
                "line": cache.line,
                "hits": cache.hits,
                "misses": cache.misses,
                "size": cache.size,
                "limit": cache.limit,
                "retained_bytes": retained,
                "address": address(graph, cache.object),
                "path": (!path.is_empty()).then_some(path),
            })
        })
        .collect();
    let containers: Option<Vec<Value>> = grown.map(|grown| {
        let row = |row: &Grown| {
            json!({
                "path": row.path,
                "type": steps::type_name(graph, row.object),
                "items": row.items,
                "items_before": row.before,
                "retained_bytes": row.retained,
                "address": address(graph, row.object),
            })
        };
        grown.iter().map(row).collect()
    });
    text(&json!({
        "schema": "biopsy.heap-caches/1",
        "sizes": graph.counted.name(),
        "caches": rows,
        "containers": containers,
    }))
}

/// `biopsy.heap-rss/1`. Resident bytes by part; the parts add up to the total. What is not known is null.
pub fn account(account: &Account) -> Result<String> {
    text(&account_value(account))
}

fn account_value(account: &Account) -> Value {
    let is_split = account.is_split();
    let parts: Vec<Value> = Part::SHOWN
        .into_iter()
        .map(|part| {
            json!({
                "part": part.name(),
                "what": part.description(is_split),
                "resident_bytes": account.of(part),
                "pss_bytes": account.pss_of(part),
            })
        })
        .collect();
    let malloc = account.malloc.as_ref().map(|malloc| {
        let known = |bytes: u64| malloc.why.is_none().then_some(bytes);
        json!({
            "allocator": Some(&malloc.allocator).filter(|name| !name.is_empty()),
            "why_not_split": malloc.why,
            "arenas": known(malloc.arenas),
            "system_bytes": known(malloc.system),
            "used_bytes": known(malloc.used()),
            "free_bytes": known(malloc.free),
            "top_bytes": known(malloc.top),
            "cached_bytes": known(malloc.cached),
            "mapped_blocks": known(malloc.mapped_blocks),
            "mapped_bytes": known(malloc.mapped),
            "torn_lists": known(malloc.torn),
        })
    });
    let sharing = account.sharing.as_ref().map(|pages| {
        json!({
            "pss_bytes": pages.pss,
            "private_bytes": pages.private,
            "shared_bytes": pages.shared,
            "copied_on_write_bytes": pages.copied,
            "huge_pages_bytes": pages.huge,
            "hugetlb_bytes": pages.hugetlb,
        })
    });
    json!({
        "schema": "biopsy.heap-rss/1",
        "total_bytes": account.total(),
        "rss_bytes": account.rss,
        "swap_bytes": account.swap,
        "objects_bytes": account.objects_bytes,
        "numpy_bytes": account.numpy_bytes,
        "sharing": sharing,
        "malloc": malloc,
        "parts": parts,
    })
}

/// `biopsy.heap-rss-family/1`: each process as `biopsy.heap-rss/1`, and all together.
pub fn family(family: &Family) -> Result<String> {
    let processes: Vec<Value> = family
        .members
        .iter()
        .map(|member| {
            let mut value = account_value(&member.account);
            if let Some(fields) = value.as_object_mut() {
                fields.remove("schema");
                fields.insert("target".to_string(), json!(member.name));
            }
            value
        })
        .collect();
    let parts: Vec<Value> = Part::SHOWN
        .into_iter()
        .map(|part| {
            json!({
                "part": part.name(),
                "what": part.description(family.is_split()),
                "resident_bytes": family.sum(|account| account.of(part)),
                "pss_bytes": family.sum(|account| account.pss_of(part).unwrap_or(0)),
            })
        })
        .collect();
    text(&json!({
        "schema": "biopsy.heap-rss-family/1",
        "sum_bytes": family.sum(Account::total),
        "once_bytes": family.once.unwrap_or(family.pss()),
        "counted_by": if family.once.is_some() { "pagemap" } else { "pss" },
        "pss_bytes": family.pss(),
        "private_bytes": family.sum(|account| account.sharing.map_or(0, |pages| pages.private)),
        "processes": processes,
        "parts": parts,
    }))
}
