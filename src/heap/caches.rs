//! The caches of functions, in the order in which one looks at them.

use super::graph::{Cache, Graph};
use super::retained::Retained;

/// A cache and the bytes that would go with it.
pub type CacheRow = (Cache, u64);

/// Those without a limit first, then by the bytes that they keep.
pub fn sorted(graph: &Graph, retained: &Retained<'_>) -> Vec<CacheRow> {
    let mut rows: Vec<CacheRow> = graph
        .caches
        .iter()
        .map(|cache| (*cache, retained.holder(cache.object).retained))
        .collect();
    rows.sort_by(|(a, a_bytes), (b, b_bytes)| {
        let bounded = a.limit.is_some().cmp(&b.limit.is_some());
        bounded
            .then_with(|| b_bytes.cmp(a_bytes))
            .then_with(|| a.object.cmp(&b.object))
    });
    rows
}
