//! The JSON documents about who holds memory. A field is never lost or renamed within a version.

use crate::view::heap::holders::PathRow;
use serde::Serialize;
use serde_json::{Value, json};

use crate::error::{Error, ErrorKind, Result};
use crate::heap::caches::CacheRow;
use crate::heap::containers::Grown;
use crate::heap::graph::{Graph, ObjectId};
use crate::heap::paths::Paths;
use crate::heap::referrers::{Group, Referrer};
use crate::heap::retained::{GroupRetained, Holder};
use crate::heap::rss::{Account, Part};
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

/// `biopsy.heap-retained/1`, by object.
pub fn holders(graph: &Graph, paths: &Paths<'_>, rows: &[Holder], whole: u64) -> Result<String> {
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
        "total_bytes": whole,
        "holders": rows,
    }))
}

/// `biopsy.heap-retained/1`, by type or module.
pub fn groups(rows: &[GroupRetained], by: &str, whole: u64) -> Result<String> {
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
        "roots": roots(graph, &node.roots),
        "referrers": children,
        "hidden": node.hidden,
    })
}

/// `biopsy.heap-referrers/1` of one object: the tree, and the same as a graph with each object and reference once.
pub fn referrers(graph: &Graph, tree: &Referrer, is_cut: bool) -> Result<String> {
    let (mut nodes, mut edges) = (Vec::new(), Vec::new());
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
        for child in &node.children {
            edges.push(json!({
                "from": address(graph, child.object),
                "to": address(graph, node.object),
                "by": step(graph, child.step),
            }));
            open.push(child);
        }
    }
    text(&json!({
        "schema": "biopsy.heap-referrers/1",
        "object": referrer(graph, tree),
        "nodes": nodes,
        "edges": edges,
        "cut": is_cut,
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
    text(&json!({"schema": "biopsy.heap-path/1", "paths": rows, "hidden": hidden}))
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
        "caches": rows,
        "containers": containers,
    }))
}

/// `biopsy.heap-rss/1`. Resident bytes by part; the parts add up to the total.
pub fn account(account: &Account) -> Result<String> {
    let parts: Vec<Value> = Part::ALL
        .into_iter()
        .map(|part| {
            json!({
                "part": part.name(),
                "what": part.description(),
                "resident_bytes": account.of(part),
            })
        })
        .collect();
    text(&json!({
        "schema": "biopsy.heap-rss/1",
        "total_bytes": account.total(),
        "rss_bytes": account.rss,
        "swap_bytes": account.swap,
        "objects_bytes": account.objects_bytes,
        "numpy_bytes": account.numpy_bytes,
        "parts": parts,
    }))
}
