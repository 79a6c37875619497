//! One self-contained HTML page of a heap, offline: types, who holds how much as a treemap and a tree, paths to the instances of a
//! type, caches, where the resident memory is, what grew between two heaps and over time.
//!
//! It is packed as the pages of profiles are. What is small is folded, so that a page of any heap is of some megabytes.

mod tree;

use std::io::{self, Write};
use std::time::SystemTime;

use rustc_hash::FxHashMap;
use serde::Serialize;

use super::holders::{STEPS, shown};
use super::reasons::{reason_text, rest_text};
use crate::error::{Error, Result};
use crate::formats::html;
use crate::formats::html::pack::{self, Columns};
use crate::heap::caches;
use crate::heap::census::Census;
use crate::heap::diff::CensusDiff;
use crate::heap::fold::Fold;
use crate::heap::graph::{Graph, ObjectId};
use crate::heap::growth::History;
use crate::heap::paths::Paths;
use crate::heap::retained::Retained;
use crate::heap::rss::{Account, Part};
use crate::heap::why::TypeReason;
use crate::units::printable;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPTS: [&str; 5] = [
    include_str!("model.js"),
    include_str!("types.js"),
    include_str!("map.js"),
    include_str!("parts.js"),
    include_str!("main.js"),
];

/// Types that are shown, those of which paths are told, and paths of each.
const MOST_TYPES: usize = 4000;
const MOST_WITH_PATHS: usize = 300;
const MOST_FORMS: usize = 12;

/// Caches and modules that are shown.
const MOST_CACHES: usize = 500;
const MOST_MODULES: usize = 500;

/// Types of which the growth over time is drawn, and those that did not change if there are no others.
const MOST_LINES: usize = 30;
const MOST_LEVEL: usize = 10;

/// What a page is made of; what is not known is left out of it.
#[derive(Debug)]
pub struct Page<'a> {
    /// What it is of.
    pub title: String,
    /// Where it comes from and what is not sure.
    pub note: String,
    /// The objects, the new ones of a comparison.
    pub census: &'a Census,
    /// Who holds them.
    pub graph: Option<&'a Graph>,
    /// Where the resident memory is.
    pub account: Option<&'a Account>,
    /// What changed.
    pub diff: Option<&'a CensusDiff>,
    /// Why.
    pub reasons: &'a [TypeReason],
    /// The numbers over time.
    pub history: Option<&'a History>,
}

#[derive(Debug, Default, Serialize)]
struct Head {
    title: String,
    note: String,
    /// What retained bytes are.
    sizes: &'static str,
    objects: u64,
    bytes: u64,
    /// Bytes that any root reaches.
    whole: Option<u64>,
    old: Option<(u64, u64)>,
    /// Whether numbers are lower bounds.
    least: bool,
    types: Vec<TypeRow>,
    /// Types that are left out.
    more_types: usize,
    kinds: Vec<String>,
    texts: Vec<String>,
    /// Name, objects, retained, own bytes.
    modules: Vec<(String, u64, u64, u64)>,
    parts: Vec<PartRow>,
    rss: Option<u64>,
    swap: u64,
    caches: Vec<CacheRow>,
    more_caches: usize,
    history: Option<Lines>,
    columns: Vec<(&'static str, usize)>,
}

#[derive(Debug, Default, Serialize)]
struct TypeRow {
    name: String,
    objects: u64,
    bytes: u64,
    old: Option<(u64, u64)>,
    retained: Option<u64>,
    /// Forms of paths and how many instances are reached so; none where they were not looked for.
    paths: Option<Vec<(String, u64)>>,
    /// Forms that are left out, and their instances.
    more: (usize, u64),
    why: Vec<String>,
}

#[derive(Debug, Serialize)]
struct PartRow {
    name: &'static str,
    words: &'static str,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct CacheRow {
    function: String,
    place: String,
    hits: u64,
    misses: u64,
    size: u64,
    limit: Option<u64>,
    retained: u64,
    path: Option<String>,
}

/// Numbers at moments.
#[derive(Debug, Serialize)]
struct Lines {
    seconds: Vec<f64>,
    rss: Vec<Option<u64>>,
    objects: Vec<u64>,
    bytes: Vec<u64>,
    /// Name, objects and bytes at each moment.
    types: Vec<(String, Vec<u64>, Vec<u64>)>,
    more: usize,
}

/// Writes the page.
pub fn write(page: &Page<'_>, out: &mut dyn Write) -> Result<()> {
    let mut columns = Columns::default();
    let mut head = head(page);
    if let Some(graph) = page.graph {
        of_graph(graph, &mut head, &mut columns);
    }
    // Until here rows are found by their types' names.
    for row in &mut head.types {
        row.name = printable(&row.name).into_owned();
    }
    head.columns = columns.names.clone();
    let mut out = io::BufWriter::with_capacity(1 << 16, out);
    let scripts = [&html::READING[..], &SCRIPTS].concat();
    html::fill(PAGE, &[html::STYLE, STYLE], &scripts, &mut out, |out| {
        pack::write(&head, &columns, out)
    })
    .map_err(|error| Error::write("the HTML page", &error))
}

fn head(page: &Page<'_>) -> Head {
    let census = page.census;
    let (objects, bytes) = census.total();
    let mut head = Head {
        title: printable(&page.title).into_owned(),
        note: page.note.clone(),
        objects,
        bytes,
        least: census.is_cut(),
        old: page.diff.map(|diff| (diff.old.objects, diff.old.bytes)),
        ..Head::default()
    };
    head.types = match page.diff {
        Some(diff) => {
            let amount = |amount: Option<crate::heap::diff::Amount>| {
                amount.map_or((0, 0), |amount| (amount.objects, amount.bytes))
            };
            let rows = diff.rows.iter().map(|row| {
                let (objects, bytes) = amount(row.new);
                TypeRow {
                    name: row.name.clone(),
                    objects,
                    bytes,
                    old: Some(amount(row.old)),
                    ..TypeRow::default()
                }
            });
            rows.collect()
        }
        None => {
            let rows = census.types.iter().map(|row| TypeRow {
                name: row.name.clone(),
                objects: row.objects,
                bytes: row.bytes,
                ..TypeRow::default()
            });
            rows.collect()
        }
    };
    let weight = |row: &TypeRow| {
        let old = row.old.map_or(0, |(_, bytes)| bytes);
        std::cmp::Reverse((row.bytes.max(old), row.bytes.abs_diff(old), row.objects))
    };
    head.types
        .sort_by_cached_key(|row| (weight(row), row.name.clone()));
    head.more_types = head.types.len().saturating_sub(MOST_TYPES);
    head.types.truncate(MOST_TYPES);
    let mut reasons: FxHashMap<&str, &TypeReason> = page
        .reasons
        .iter()
        .map(|reason| (reason.name.as_str(), reason))
        .collect();
    for row in &mut head.types {
        if let Some(found) = reasons.remove(row.name.as_str()) {
            row.why = words(found);
        }
    }
    // What is of all types together, and types that are not among the rows.
    for found in page
        .reasons
        .iter()
        .filter(|reason| reasons.contains_key(reason.name.as_str()))
    {
        head.types.push(TypeRow {
            name: found.name.clone(),
            why: words(found),
            ..TypeRow::default()
        });
    }
    if let Some(account) = page.account {
        let is_split = account.is_split();
        let parts = Part::SHOWN.into_iter().filter(|part| account.of(*part) > 0);
        head.parts = parts
            .map(|part| PartRow {
                name: part.name(),
                words: part.description(is_split),
                bytes: account.of(part),
            })
            .collect();
        head.rss = account.rss;
        head.swap = account.swap;
    }
    head.history = page.history.map(lines);
    head
}

fn words(found: &TypeReason) -> Vec<String> {
    let reasons = found.reasons.iter();
    let told = reasons.map(|reason| format!("{} {}", shown(&reason.path), reason_text(reason)));
    told.chain(rest_text(found.rest)).collect()
}

/// The types that changed most in bytes between the first moment and the last, those that went up first.
fn lines(history: &History) -> Lines {
    let change = |points: &[(u64, u64)]| {
        let first = points.first().map_or(0, |point| point.1);
        points.last().map_or(0, |point| point.1) as i128 - i128::from(first)
    };
    let mut types: Vec<(&str, Vec<(u64, u64)>)> = history.types().collect();
    types.sort_by(|(a, of_a), (b, of_b)| {
        let by_change = change(of_b).cmp(&change(of_a));
        let by_size = || of_b.last().cmp(&of_a.last());
        by_change.then_with(by_size).then_with(|| a.cmp(b))
    });
    let all = types.len();
    let mut level = 0;
    types.retain(|(_, points)| {
        let changed = points.windows(2).any(|pair| pair[0] != pair[1]);
        level += usize::from(!changed);
        changed || level <= MOST_LEVEL
    });
    types.truncate(MOST_LINES);
    let more = all - types.len();
    let moments = history.moments();
    let begin = moments.first().map(|moment| moment.at);
    let since = |at: SystemTime| begin.and_then(|begin| at.duration_since(begin).ok());
    Lines {
        seconds: moments
            .iter()
            .map(|moment| since(moment.at).unwrap_or_default().as_secs_f64())
            .collect(),
        rss: moments.iter().map(|moment| moment.rss).collect(),
        objects: moments.iter().map(|moment| moment.total.0).collect(),
        bytes: moments.iter().map(|moment| moment.total.1).collect(),
        types: types
            .into_iter()
            .map(|(name, points)| {
                let (objects, bytes) = points.into_iter().unzip();
                (shown(name), objects, bytes)
            })
            .collect(),
        more,
    }
}

fn of_graph(graph: &Graph, head: &mut Head, columns: &mut Columns) {
    let fold = Fold::of(graph);
    // Neither needs the other.
    let (retained, paths) = std::thread::scope(|scope| {
        let paths = scope.spawn(|| Paths::of(graph, &fold));
        let retained = Retained::of(graph, &fold);
        (
            retained,
            paths.join().unwrap_or_else(|_| Paths::of(graph, &fold)),
        )
    });
    head.whole = Some(retained.whole());
    head.sizes = graph.counted.description();
    let rows = tree::rows(graph, &retained);
    (head.kinds, head.texts) = tree::columns(graph, &paths, &rows, columns);
    let by_type = retained.by_type();
    let by_type: FxHashMap<&str, u64> = by_type
        .iter()
        .map(|row| (row.name.as_str(), row.retained))
        .collect();
    for row in &mut head.types {
        row.retained = by_type.get(row.name.as_str()).copied();
    }
    let modules = retained.by_module();
    let modules = modules.iter().take(MOST_MODULES);
    head.modules = modules
        .map(|row| (shown(&row.name), row.objects, row.retained, row.shallow))
        .collect();
    of_types(graph, &paths, head);
    let all = caches::sorted(graph, &retained);
    head.more_caches = all.len().saturating_sub(MOST_CACHES);
    head.caches = all
        .iter()
        .take(MOST_CACHES)
        .map(|(cache, bytes)| CacheRow {
            function: shown(graph.name(cache.function)),
            place: format!("{}:{}", shown(graph.name(cache.file)), cache.line),
            hits: cache.hits,
            misses: cache.misses,
            size: cache.size,
            limit: cache.limit,
            retained: *bytes,
            path: paths.text(cache.object, STEPS).map(|text| shown(&text)),
        })
        .collect();
}

/// How the instances of the types are reached that hold most or are most.
fn of_types(graph: &Graph, paths: &Paths<'_>, head: &mut Head) {
    let mut wanted: Vec<usize> = (0..head.types.len()).collect();
    wanted.sort_by_key(|at| {
        let row = &head.types[*at];
        std::cmp::Reverse((
            row.why.len().min(1),
            row.retained.unwrap_or(0).max(row.bytes),
        ))
    });
    wanted.truncate(MOST_WITH_PATHS);
    let places: FxHashMap<String, usize> = wanted
        .iter()
        .enumerate()
        .map(|(place, at)| (head.types[*at].name.clone(), place))
        .collect();
    let place_of: Vec<Option<usize>> = graph
        .types
        .iter()
        .map(|kind| places.get(graph.name(kind.name)).copied())
        .collect();
    let mut instances: Vec<Vec<ObjectId>> = vec![Vec::new(); wanted.len()];
    for (object, kind) in graph.type_ids.iter().enumerate() {
        let place = place_of.get(*kind as usize).copied().flatten();
        if let Some(list) = place.and_then(|place| instances.get_mut(place)) {
            list.push(object as ObjectId);
        }
    }
    for (at, objects) in wanted.into_iter().zip(instances) {
        let forms = paths.forms(objects);
        let row = &mut head.types[at];
        let rest = forms.iter().skip(MOST_FORMS);
        row.more = (
            forms.len().saturating_sub(MOST_FORMS),
            rest.map(|form| form.objects).sum(),
        );
        let told = forms.iter().take(MOST_FORMS);
        row.paths = Some(told.map(|form| (shown(&form.text), form.objects)).collect());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_loaded_or_made_of_text() {
        for script in SCRIPTS {
            for word in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "new Function",
                "fetch(",
                "XMLHttpRequest",
                "import(",
            ] {
                assert!(!script.contains(word), "{word}");
            }
        }
        assert!(!PAGE.contains("http:") && !PAGE.contains("https:") && !STYLE.contains("url("));
    }
}
