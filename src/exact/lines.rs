//! Hits of lines that the bootstrap counted, and samples that do not show it.

use rustc_hash::FxHashSet;

use crate::error::{Error, Result};
use crate::formats::marshal::{self, Document, Item, Value};
use crate::profile::lines::UNIT;
use crate::profile::{
    FrameId, FunctionId, FunctionKind, LineCount, LineCounts, Profile, StackId, Tables,
};
use crate::units::printable;

/// Adds what `data` says to a profile of the same program, and gives what is to be said about it.
pub(super) fn add(profile: &mut Profile, data: &[u8]) -> Result<Vec<String>> {
    let document = marshal::read(data)?;
    let Value::Dict(pairs) = &document.root.value else {
        return Err(bad(&document.root));
    };
    let mut counts = LineCounts {
        unit: UNIT,
        ..LineCounts::default()
    };
    let mut notes = Vec::new();
    let mut known: FxHashSet<FunctionId> = FxHashSet::default();
    for (key, value) in pairs.iter() {
        match text(&document, key) {
            Some("at_least") => counts.at_least = matches!(value.value, Value::Bool(true)),
            Some("not_found") => {
                let words = items(value)?
                    .iter()
                    .filter_map(|word| text(&document, word));
                notes.extend(words.map(|word| {
                    format!(
                        "no hits of '{}': no such function was called",
                        printable(word)
                    )
                }));
            }
            Some("lines") => {
                for row in items(value)? {
                    let (function, hits) = function(&document, row, &mut profile.tables)?;
                    if known.insert(function) {
                        counts.functions.push((function, hits));
                    }
                }
            }
            Some("qualnames") => {
                for row in items(value)? {
                    name(&document, row, &mut profile.tables)?;
                }
            }
            _ => return Err(bad(key)),
        }
    }
    if counts.at_least {
        notes.push(
            "hits are lower bounds: the program set a trace function of its own, or has too many functions"
                .to_string(),
        );
    }
    profile.lines = Some(counts);
    Ok(notes)
}

/// Takes over a function's qualified name.
fn name(document: &Document, row: &Item, tables: &mut Tables) -> Result<()> {
    let [file, first, name, qualname] = items(row)? else {
        return Err(bad(row));
    };
    let (Some(file), Some(first), Some(name), Some(qualname)) = (
        text(document, file),
        number(first),
        text(document, name),
        text(document, qualname),
    ) else {
        return Err(bad(row));
    };
    let function = tables.function(file, first, name, FunctionKind::Python);
    tables.set_qualname(function, qualname);
    Ok(())
}

fn function(
    document: &Document,
    row: &Item,
    tables: &mut Tables,
) -> Result<(FunctionId, Vec<LineCount>)> {
    let [file, first, name, lines] = items(row)? else {
        return Err(bad(row));
    };
    let (Some(file), Some(first), Some(name)) =
        (text(document, file), number(first), text(document, name))
    else {
        return Err(bad(row));
    };
    let function = tables.function(file, first, name, FunctionKind::Python);
    let mut hits: Vec<LineCount> = Vec::new();
    for pair in items(lines)? {
        let [line, count] = items(pair)? else {
            return Err(bad(pair));
        };
        let (Some(line), Value::Int(count)) = (number(line), &count.value) else {
            return Err(bad(pair));
        };
        let hit = LineCount {
            line,
            hits: u64::try_from(*count).unwrap_or(0),
            time: 0.0,
            at_least: false,
        };
        // Sorted, each once.
        if hits.last().is_some_and(|last| last.line >= line) {
            return Err(bad(pair));
        }
        hits.push(hit);
    }
    Ok((function, hits))
}

fn bad(item: &Item) -> Error {
    marshal::unexpected(item.at, "not what counts lines writes")
}

fn items(item: &Item) -> Result<&[Item]> {
    match &item.value {
        Value::Tuple(items) | Value::List(items) => Ok(items),
        _ => Err(bad(item)),
    }
}

fn text<'a>(document: &'a Document, item: &Item) -> Option<&'a str> {
    match item.value {
        Value::Text(at) => document.strings.get(at).map(String::as_str),
        _ => None,
    }
}

fn number(item: &Item) -> Option<u32> {
    match item.value {
        Value::Int(value) => u32::try_from(value).ok(),
        _ => None,
    }
}

/// Takes frames of the file `own` out of all stacks. The time of samples in which one is the innermost goes to nobody:
/// it is that of counting.
pub(super) fn without_frames(profile: &mut Profile, own: &str) {
    let tables = &mut profile.tables;
    let is_own: Vec<bool> = (0..tables.frames().len() as u32)
        .map(|id| {
            let function = tables.get_frame(FrameId(id)).function;
            tables.file(function) == own
        })
        .collect();
    let stacks = tables.stacks().to_vec();
    // What stands for each stack, and whether the time in it is ours: what we call is ours too, but the program is
    // called by us.
    let mut shown: Vec<(Option<StackId>, bool)> = Vec::with_capacity(stacks.len());
    // How many of ours are outside of it.
    let mut depths: Vec<u16> = Vec::with_capacity(stacks.len());
    for node in &stacks {
        let outer = node.parent.map(|parent| shown[parent.index()]);
        let depth = node.parent.map_or(0, |parent| depths[parent.index()]);
        let (parent, counting) = outer.unwrap_or((None, false));
        if is_own[node.frame.index()] {
            shown.push((parent, parent.is_some()));
            depths.push(match parent {
                None => depth.saturating_add(1),
                Some(_) => depth,
            });
        } else if counting {
            shown.push((parent, true));
            depths.push(depth);
        } else {
            shown.push((Some(tables.stack(parent, node.frame)), false));
            depths.push(depth);
        }
    }
    profile.sources.retain(|source| source.file != own);
    profile.runs.retain_mut(|run| {
        let at = run.stack.index();
        let (Some(stack), ours) = shown[at] else {
            return false;
        };
        run.stack = stack;
        if run.fresh_from != u16::MAX {
            run.fresh_from = run.fresh_from.saturating_sub(depths[at]);
        }
        if ours {
            run.wall_us = 0;
            run.cpu_us = 0;
        }
        true
    });
}
