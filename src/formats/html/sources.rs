//! The files of a page's functions, with their text where the recording kept it: that of the code that ran.

use rustc_hash::FxHashMap;
use serde::Serialize;

use crate::formats::ExportOptions;
use crate::profile::{FunctionId, FunctionKind, Profile, SourceFile, StringId};
use crate::units::printable;

/// Bytes of text on a page, of the files with the most time: they pack to about 2 MB.
const MOST_TEXT: usize = 8 << 20;
/// Characters of a line that are shown.
const MOST_LETTERS: usize = 1000;
/// Where tabs end, as terminals and browsers have it.
const TAB: usize = 8;

/// A file.
#[derive(Debug, Serialize)]
pub(super) struct File {
    name: String,
    /// Its text; `None` where there is none, or no room for it.
    text: Option<String>,
    /// What is to be said of the text, or why there is none.
    note: &'static str,
}

impl File {
    /// Of which only the name is told.
    pub(super) fn without_text(name: &str) -> File {
        File {
            name: printable(name).into_owned(),
            text: None,
            note: "",
        }
    }
}

/// The files of all functions, and which one each function is in. `time` is that of a function, as far as it matters which
/// texts there is room for.
pub(super) fn files(
    profile: &Profile,
    options: &ExportOptions,
    time: &FxHashMap<FunctionId, f64>,
) -> (Vec<File>, Vec<u32>) {
    let tables = &profile.tables;
    let mut places: FxHashMap<StringId, u32> = FxHashMap::default();
    let mut names = Vec::new();
    let mut times: Vec<f64> = Vec::new();
    let mut file_of = Vec::with_capacity(tables.functions().len());
    for (at, function) in (0..).zip(tables.functions()) {
        let place = *places.entry(function.file).or_insert_with(|| {
            names.push((tables.text(function.file), false));
            times.push(0.0);
            names.len() as u32 - 1
        });
        names[place as usize].1 |= function.kind == FunctionKind::Python;
        times[place as usize] += time.get(&FunctionId(at)).copied().unwrap_or(0.0);
        file_of.push(place);
    }
    let mut sources: FxHashMap<&str, Vec<&SourceFile>> = FxHashMap::default();
    for source in &profile.sources {
        sources.entry(&source.file).or_default().push(source);
    }
    let mut files: Vec<File> = names
        .iter()
        .map(|(name, _)| File::without_text(options.file_name(name)))
        .collect();
    let mut order: Vec<usize> = (0..files.len()).filter(|at| names[*at].1).collect();
    order.sort_by(|a, b| times[*b].total_cmp(&times[*a]));
    let mut left = MOST_TEXT;
    for at in order {
        let found = sources.get(names[at].0).map_or(&[][..], Vec::as_slice);
        let kept = found
            .iter()
            .find_map(|source| Some((source, source.text.as_deref()?)));
        let file = &mut files[at];
        let Some((source, text)) = kept else {
            file.note = "source missing: it was not kept when this was recorded";
            continue;
        };
        if text.len() > left {
            file.note = "source left out: the page would be too large";
            continue;
        }
        left -= text.len();
        let started_ms = profile.meta.started_at_ms;
        file.text = Some(shown(text));
        file.note = if found.len() > 1 {
            "there are several files of this name: the text may be of another one"
        } else if started_ms > 0 && source.modified_ms > started_ms {
            "the file was changed while it was recorded: the text may be of other code"
        } else {
            ""
        };
    }
    (files, file_of)
}

/// A text with its tabs as spaces, and what could hide or reorder it made visible.
fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        let mut column = 0;
        let mut plain = String::with_capacity(line.len());
        for letter in line.chars().take(MOST_LETTERS) {
            let wide = if letter == '\t' {
                TAB - column % TAB
            } else {
                1
            };
            plain.extend(std::iter::repeat_n(
                if letter == '\t' { ' ' } else { letter },
                wide,
            ));
            column += wide;
        }
        out.push_str(&printable(&plain));
        if line.chars().nth(MOST_LETTERS).is_some() {
            out.push('…');
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_hide_nothing() {
        assert_eq!(shown("a\tb\r\n\u{202e}c"), "a       b\n\\u{202e}c\n");
        assert_eq!(shown(&"x".repeat(2000)).chars().count(), MOST_LETTERS + 2);
    }
}
