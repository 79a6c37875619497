//! The tree of holders (dominator tree) as a page has it: what holds much stands for itself, what holds little is folded by
//! type, and the bytes of a holder are always its own and those below it.

use std::collections::BinaryHeap;

use rustc_hash::FxHashMap;

use crate::formats::html::pack::Columns;
use crate::heap::graph::{Graph, NameId, ObjectId};
use crate::heap::paths::Paths;
use crate::heap::retained::{Holder, Retained};
use crate::view::heap::holders::{STEPS, shown};

/// Rows of the tree, and those that have a path.
const MOST_ROWS: usize = 60_000;
const MOST_PATHS: usize = 12_000;

/// Holders below one that stand for themselves, and types into which the rest is folded.
const MOST_CHILDREN: usize = 400;
const MOST_TYPES: usize = 40;

/// Levels: a list of a million links is as deep.
const DEEPEST: u32 = 300;

/// What holds less than this part of everything, or of what holds it, is folded.
const LEAST_SHARE: u64 = 100_000;
const LEAST_BELOW: u64 = 2000;

/// A row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    /// The row above it; `None` at the top.
    pub(super) above: Option<u32>,
    /// Name of the type; `None` where objects of several types are folded.
    pub(super) kind: Option<NameId>,
    /// Objects that the row stands for.
    pub(super) objects: u64,
    pub(super) retained: u64,
    pub(super) held: u64,
    pub(super) shallow: u64,
    /// The object where it stands for one.
    pub(super) object: Option<ObjectId>,
    /// Whether what is below it is among the rows.
    pub(super) is_open: bool,
}

/// The rows, each behind the one above it.
pub(super) fn rows(graph: &Graph, retained: &Retained<'_>) -> Vec<Row> {
    rows_within(graph, retained, MOST_ROWS)
}

fn rows_within(graph: &Graph, retained: &Retained<'_>, most: usize) -> Vec<Row> {
    let least = retained.whole() / LEAST_SHARE;
    let mut rows: Vec<Row> = Vec::new();
    // What is to be opened, what holds most first.
    let mut open: BinaryHeap<(u64, std::cmp::Reverse<u32>, u32)> = BinaryHeap::new();
    let add = |above: Option<(u32, ObjectId)>,
               depth: u32,
               rows: &mut Vec<Row>,
               open: &mut BinaryHeap<_>| {
        let all = retained.children(above.map(|(_, object)| object), usize::MAX);
        let least = above.map_or(least, |(_, object)| {
            least.max(retained.holder(object).retained / LEAST_BELOW)
        });
        let alone = all
            .iter()
            .take(MOST_CHILDREN)
            .take_while(|holder| holder.retained >= least)
            .count();
        // One more is no more than a group of one.
        let (alone, small) = all.split_at(if all.len() - alone == 1 {
            all.len()
        } else {
            alone
        });
        let above = above.map(|(row, _)| row);
        for holder in alone {
            let at = u32::try_from(rows.len()).unwrap_or(u32::MAX);
            rows.push(Row {
                above,
                kind: Some(type_of(graph, holder.object)),
                objects: 1,
                retained: holder.retained,
                held: holder.held,
                shallow: holder.shallow,
                object: Some(holder.object),
                is_open: holder.held == 1,
            });
            if holder.held > 1 && depth < DEEPEST {
                open.push((holder.retained, std::cmp::Reverse(at), depth));
            }
        }
        rows.extend(groups(graph, above, small));
    };
    add(None, 0, &mut rows, &mut open);
    while let Some((_, std::cmp::Reverse(at), depth)) = open.pop() {
        if rows.len() >= most {
            break;
        }
        let Some(object) = rows.get(at as usize).and_then(|row| row.object) else {
            continue;
        };
        add(Some((at, object)), depth + 1, &mut rows, &mut open);
        if let Some(row) = rows.get_mut(at as usize) {
            row.is_open = true;
        }
    }
    rows
}

fn type_of(graph: &Graph, object: ObjectId) -> NameId {
    let id = graph.type_ids.get(object as usize);
    let kind = id.and_then(|id| graph.types.get(*id as usize));
    kind.map_or(0, |kind| kind.name)
}

/// Small holders by type; the types of which there is least in one row.
fn groups(graph: &Graph, above: Option<u32>, small: &[Holder]) -> Vec<Row> {
    let mut groups: FxHashMap<NameId, Row> = FxHashMap::default();
    for holder in small {
        let kind = type_of(graph, holder.object);
        let row = groups.entry(kind).or_insert(Row {
            above,
            kind: Some(kind),
            objects: 0,
            retained: 0,
            held: 0,
            shallow: 0,
            object: None,
            is_open: true,
        });
        let one = Row { objects: 1, ..*row };
        let one = Row {
            retained: holder.retained,
            held: holder.held,
            shallow: holder.shallow,
            ..one
        };
        *row = sum(row, &one);
    }
    let mut groups: Vec<Row> = groups.into_values().collect();
    groups.sort_by_key(|row| (std::cmp::Reverse(row.retained), row.kind));
    let rest = groups.split_off(groups.len().min(MOST_TYPES));
    let rest = rest.into_iter().reduce(|all, row| Row {
        kind: None,
        ..sum(&all, &row)
    });
    groups.extend(rest);
    for row in &mut groups {
        // What they hold is not shown one by one.
        row.is_open = row.held == row.objects;
    }
    groups
}

fn sum(a: &Row, b: &Row) -> Row {
    Row {
        objects: a.objects + b.objects,
        retained: a.retained.saturating_add(b.retained),
        held: a.held + b.held,
        shallow: a.shallow.saturating_add(b.shallow),
        ..*a
    }
}

/// The rows as columns; the names of types and the paths that these number.
pub(super) fn columns(
    graph: &Graph,
    paths: &Paths<'_>,
    rows: &[Row],
    columns: &mut Columns,
) -> (Vec<String>, Vec<String>) {
    let mut kinds: Vec<String> = Vec::new();
    let mut known: FxHashMap<NameId, u64> = FxHashMap::default();
    let mut numbers = Vec::with_capacity(rows.len());
    for row in rows {
        numbers.push(row.kind.map_or(0, |kind| {
            *known.entry(kind).or_insert_with(|| {
                kinds.push(shown(graph.name(kind)));
                kinds.len() as u64
            })
        }));
    }
    let mut biggest: Vec<usize> = (0..rows.len())
        .filter(|at| rows[*at].object.is_some())
        .collect();
    biggest.sort_by_key(|at| std::cmp::Reverse(rows[*at].retained));
    biggest.truncate(MOST_PATHS);
    let mut texts: Vec<String> = Vec::new();
    let mut path_of = vec![0u64; rows.len()];
    for at in biggest {
        let object = rows[at].object;
        if let Some(text) = object.and_then(|object| paths.text(object, STEPS)) {
            texts.push(shown(&text));
            path_of[at] = texts.len() as u64;
        }
    }
    let back = rows.iter().enumerate();
    let back = back.map(|(at, row)| row.above.map_or(0, |above| at as u64 - u64::from(above)));
    columns.add("row_back", back);
    columns.add("row_kind", numbers.into_iter());
    columns.add("row_path", path_of.into_iter());
    columns.add("row_objects", rows.iter().map(|row| row.objects));
    columns.add("row_retained", rows.iter().map(|row| row.retained));
    columns.add("row_held", rows.iter().map(|row| row.held));
    columns.add("row_shallow", rows.iter().map(|row| row.shallow));
    columns.add("row_open", rows.iter().map(|row| u64::from(row.is_open)));
    (kinds, texts)
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::heap::fold::Fold;
    use crate::heap::graph::testing::lists;

    #[test]
    fn bytes_of_a_row_are_its_own_and_those_below_it() {
        let mut rng = SmallRng::seed_from_u64(7);
        for round in 0..200 {
            let count = rng.random_range(1..400usize);
            let edges: Vec<Vec<ObjectId>> = (0..count)
                .map(|_| {
                    let many = if rng.random_bool(0.05) { 60 } else { 3 };
                    let degree = rng.random_range(0..many);
                    (0..degree)
                        .map(|_| rng.random_range(0..count as ObjectId))
                        .collect()
                })
                .collect();
            let graph = lists(&edges, &[0, (count / 2) as ObjectId]);
            let fold = Fold::of(&graph);
            let retained = Retained::of(&graph, &fold);
            let rows = rows_within(&graph, &retained, 20 + round * 2);
            let mut below = vec![(0u64, 0u64); rows.len()];
            let mut top = 0;
            for (at, row) in rows.iter().enumerate() {
                match row.above {
                    Some(above) => {
                        assert!((above as usize) < at);
                        below[above as usize].0 += row.retained;
                        below[above as usize].1 += row.held;
                    }
                    None => top += row.retained,
                }
            }
            assert_eq!(top, retained.whole());
            for (row, (bytes, objects)) in rows.iter().zip(below) {
                if row.object.is_some() && row.is_open {
                    assert_eq!((row.retained, row.held), (row.shallow + bytes, 1 + objects));
                } else {
                    assert_eq!((bytes, objects), (0, 0));
                }
            }
        }
    }

    #[test]
    fn a_list_of_any_length_is_cut_where_it_is_deep() {
        let links: Vec<Vec<ObjectId>> = (0..100_000)
            .map(|at| {
                if at + 1 < 100_000 {
                    vec![at + 1]
                } else {
                    Vec::new()
                }
            })
            .collect();
        let graph = lists(&links, &[0]);
        let fold = Fold::of(&graph);
        let retained = Retained::of(&graph, &fold);
        let rows = rows(&graph, &retained);
        assert_eq!(rows.len(), DEEPEST as usize + 1);
        assert!(!rows[DEEPEST as usize].is_open);
    }
}
