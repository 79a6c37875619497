//! `.lprof` files of line_profiler: a pickled `LineStats`, whose `timings` are a dict
//! `{(file, first line, name): [(line, hits, time), ...]}` and whose `unit` is the seconds in a unit of the times.
//!
//! Spec: `line_profiler/line_profiler.py` and `_line_profiler.pyx` of line_profiler 3.0 to 5.1, which read each other's
//! files. The class is written as the one of the compiled part, which all of them have. A line that was not hit cannot
//! stand in such a file: its readers divide by the hits.
//!
//! Hits that are lower bounds are told in an attribute of our own, which line_profiler keeps and does not read: `biopsy_at_least`,
//! a dict `{(file, first line, name): [line, ...]}`.

mod pickle;

use std::collections::BTreeMap;
use std::io::Write;

use rustc_hash::{FxHashMap, FxHashSet};

use self::pickle::{Document, Encoder, NodeId, Value, bad};
use super::{ExportOptions, Exporter, Importer, Loss, unsaid};
use crate::error::{Error, ErrorKind, Result};
use crate::profile::tables::Function;
use crate::profile::{
    FunctionId, FunctionKind, Hits, LineCount, LineCounts, LineTable, Meta, Origin, Profile,
    StringId, Tables,
};
use crate::units::several;

/// The class that all versions of line_profiler know.
const CLASS: (&str, &str) = ("line_profiler._line_profiler", "LineStats");

/// The attribute with the lines whose hits are lower bounds.
const AT_LEAST: &str = "biopsy_at_least";

/// Bytes at the beginning of a file in which the class is named.
const HEAD: usize = 256;

/// Reads and writes `.lprof` files.
#[derive(Debug, Clone, Copy)]
pub struct Lprof;

impl Exporter for Lprof {
    fn export(
        &self,
        profile: &Profile,
        options: &ExportOptions,
        out: &mut dyn Write,
    ) -> Result<Vec<Loss>> {
        let Some(mut found) = profile.line_tables(&options.filter) else {
            return Err(Error::new(
                ErrorKind::NotAvailable,
                "cannot write lines",
                "the profile counts functions and knows no lines",
            )
            .hint("count them: biopsy run --exact --lines -o FILE.lprof -- COMMAND"));
        };
        let counted = profile.lines.is_some();
        found.tables.retain(|table| match &options.line_functions {
            Some(functions) => functions.contains(&table.function),
            None => table.counted || !counted,
        });
        let tables = &profile.tables;
        let mut losses: Vec<Loss> = unsaid(profile).into_iter().collect();
        let (mut rows, mut unhit) = (0, 0.0);
        // By table.
        let mut bounds: Vec<(&LineTable, Vec<u32>)> = Vec::new();
        let failed = |error| Error::write("the line_profiler file", &error);
        let mut encoder = Encoder::new(out);
        let mut write = || {
            encoder.begin_object(CLASS.0, CLASS.1)?;
            encoder.text("timings")?;
            encoder.begin_dict()?;
            let put_key = |encoder: &mut Encoder<'_>, table: &LineTable| {
                encoder.text(options.file_name(tables.file(table.function)))?;
                encoder.int(u64::from(tables.line(table.function)))?;
                // As line_profiler 5 has it, where it is known.
                encoder.text(tables.shown_name(table.function, true))?;
                encoder.end_tuple()
            };
            for table in &found.tables {
                put_key(&mut encoder, table)?;
                encoder.begin_list()?;
                let mut at_least = Vec::new();
                for row in &table.rows {
                    let hits = match row.hits {
                        Some(Hits::Counted(hits)) => hits,
                        Some(Hits::AtLeast(hits)) => hits,
                        // It was there when a sample came.
                        None if !table.counted && row.line > 0 => 1,
                        None => 0,
                    };
                    if hits == 0 {
                        unhit += row.time;
                        continue;
                    }
                    rows += 1;
                    if !matches!(row.hits, Some(Hits::Counted(_))) {
                        at_least.push(row.line);
                    }
                    encoder.int(u64::from(row.line))?;
                    encoder.int(hits)?;
                    encoder.number(row.time)?;
                    encoder.end_tuple()?;
                }
                encoder.end_list()?;
                if !at_least.is_empty() {
                    bounds.push((table, at_least));
                }
            }
            encoder.end_dict()?;
            encoder.text("unit")?;
            encoder.float(found.unit)?;
            if !bounds.is_empty() {
                encoder.text(AT_LEAST)?;
                encoder.begin_dict()?;
                for (table, lines) in &bounds {
                    put_key(&mut encoder, table)?;
                    encoder.begin_list()?;
                    for line in lines {
                        encoder.int(u64::from(*line))?;
                    }
                    encoder.end_list()?;
                }
                encoder.end_dict()?;
            }
            encoder.end_object()
        };
        write().map_err(failed)?;
        let bounds: usize = bounds.iter().map(|(_, lines)| lines.len()).sum();
        if bounds > 0 {
            let of = several(rows, "line");
            losses.push(format!(
                "the hits of {bounds} of {of} are lower bounds, which biopsy reads in the file and line_profiler does not"
            ));
        }
        if unhit > 0.0 {
            let seconds = unhit * found.unit;
            losses.push(format!(
                "{seconds:.3} s on lines without a hit, such as the beginning of a call, are left out"
            ));
        }
        Ok(losses)
    }
}

impl Importer for Lprof {
    fn recognises(&self, head: &[u8]) -> bool {
        let class = CLASS.1.as_bytes();
        let begin = head.get(..head.len().min(HEAD)).unwrap_or_default();
        head.first() == Some(&0x80)
            && head
                .get(1)
                .is_some_and(|version| *version <= pickle::HIGHEST)
            && begin.windows(class.len()).any(|bytes| bytes == class)
    }

    fn import(&self, data: &[u8]) -> Result<Profile> {
        let document = pickle::read(data)?;
        let state = match document.get(document.root) {
            Value::Object {
                class,
                state: Some(state),
            } if is_class(&document, *class) => *state,
            _ => {
                return Err(bad(
                    document.at(document.root),
                    "not a LineStats of line_profiler",
                ));
            }
        };
        let timings = attribute(&document, state, "timings")?;
        let unit = attribute(&document, state, "unit")?;
        let seconds = number(&document, unit).filter(|unit| unit.is_finite() && *unit > 0.0);
        let seconds = seconds.ok_or_else(|| bad(document.at(unit), "no unit of time"))?;
        let mut reader = Reader {
            document: &document,
            tables: Tables::default(),
            texts: FxHashMap::default(),
            left: data.len(),
        };
        let bounds = optional(&document, state, AT_LEAST);
        let bounds = bounds.map(|node| reader.bounds(node)).transpose()?;
        let mut functions = reader.timings(timings)?;
        for (function, lines) in &mut functions {
            let of = bounds.as_ref().and_then(|bounds| bounds.get(function));
            for line in lines {
                line.at_least = of.is_some_and(|of| of.contains(&line.line));
            }
        }
        Ok(Profile {
            meta: Meta {
                origin: Origin::Exact,
                ..Meta::default()
            },
            tables: reader.tables,
            lines: Some(LineCounts {
                unit: seconds,
                at_least: false,
                functions,
            }),
            ..Profile::default()
        })
    }
}

fn is_class(document: &Document<'_>, class: NodeId) -> bool {
    match document.get(class) {
        Value::Class { module, name } => {
            *name == CLASS.1
                && module
                    .split('.')
                    .any(|part| part.ends_with("line_profiler"))
        }
        _ => false,
    }
}

/// What an object has under a name.
fn attribute(document: &Document<'_>, state: NodeId, wanted: &str) -> Result<NodeId> {
    optional(document, state, wanted)
        .ok_or_else(|| bad(document.at(state), format_args!("no {wanted} in it")))
}

/// What an object has under a name, if anything.
fn optional(document: &Document<'_>, state: NodeId, wanted: &str) -> Option<NodeId> {
    let pairs = match document.get(state) {
        Value::Dict(pairs) => pairs.as_slice(),
        _ => &[],
    };
    let is_wanted = |key: NodeId| matches!(document.get(key), Value::Text(text) if text == wanted);
    let found = pairs.iter().rev().find(|(key, _)| is_wanted(*key));
    found.map(|(_, value)| *value)
}

fn number(document: &Document<'_>, node: NodeId) -> Option<f64> {
    match document.get(node) {
        Value::Int(value) => Some(*value as f64),
        Value::Float(value) => Some(*value),
        _ => None,
    }
}

struct Reader<'a> {
    document: &'a Document<'a>,
    tables: Tables,
    /// Texts that are in the tables: one may be referred to by every function.
    texts: FxHashMap<NodeId, StringId>,
    /// Rows that the size of the file allows: a list may be referred to by every function too.
    left: usize,
}

impl Reader<'_> {
    fn timings(&mut self, node: NodeId) -> Result<Vec<(FunctionId, Vec<LineCount>)>> {
        let document = self.document;
        let Value::Dict(pairs) = document.get(node) else {
            return Err(bad(document.at(node), "timings that are no dict"));
        };
        let mut places: FxHashMap<FunctionId, usize> = FxHashMap::default();
        let mut functions = Vec::new();
        for (key, value) in pairs {
            let function = self.function(*key)?;
            let lines = self.lines(*value)?;
            // Of equal keys a dict keeps the last.
            match places.get(&function).and_then(|at| functions.get_mut(*at)) {
                Some(place) => *place = (function, lines),
                None => {
                    places.insert(function, functions.len());
                    functions.push((function, lines));
                }
            }
        }
        Ok(functions)
    }

    /// The lines of each function whose hits are lower bounds.
    fn bounds(&mut self, node: NodeId) -> Result<FxHashMap<FunctionId, FxHashSet<u32>>> {
        let document = self.document;
        let unexpected = || {
            let what = "lower bounds that are no dict of lists of lines";
            bad(document.at(node), what)
        };
        let Value::Dict(pairs) = document.get(node) else {
            return Err(unexpected());
        };
        let mut bounds: FxHashMap<FunctionId, FxHashSet<u32>> = FxHashMap::default();
        for (key, value) in pairs {
            let Value::List(lines) = document.get(*value) else {
                return Err(unexpected());
            };
            self.spend(*value, lines.len())?;
            let of = bounds.entry(self.function(*key)?).or_default();
            for line in lines {
                of.insert(self.line(*line).ok_or_else(unexpected)?);
            }
        }
        Ok(bounds)
    }

    /// A list of so many may be there as often as it is referred to, but not for ever.
    fn spend(&mut self, node: NodeId, rows: usize) -> Result<()> {
        let left = self.left.checked_sub(rows);
        let more = "more lines than the file has room for";
        self.left = left.ok_or_else(|| bad(self.document.at(node), more))?;
        Ok(())
    }

    fn function(&mut self, key: NodeId) -> Result<FunctionId> {
        let document = self.document;
        let unexpected = || bad(document.at(key), "not a function: (file, line, name)");
        let Value::Tuple(parts) = document.get(key) else {
            return Err(unexpected());
        };
        let [file, line, name] = parts.as_slice() else {
            return Err(unexpected());
        };
        let line = self.line(*line).ok_or_else(unexpected)?;
        let (Some(file), Some(name)) = (self.text(*file), self.text(*name)) else {
            return Err(unexpected());
        };
        Ok(self.tables.add_function(Function {
            file,
            line,
            name,
            kind: FunctionKind::Python,
        }))
    }

    fn text(&mut self, node: NodeId) -> Option<StringId> {
        if let Some(known) = self.texts.get(&node) {
            return Some(*known);
        }
        let Value::Text(text) = self.document.get(node) else {
            return None;
        };
        let id = self.tables.string(text);
        self.texts.insert(node, id);
        Some(id)
    }

    fn line(&self, node: NodeId) -> Option<u32> {
        match self.document.get(node) {
            Value::Int(value) => u32::try_from(*value).ok(),
            _ => None,
        }
    }

    fn lines(&mut self, node: NodeId) -> Result<Vec<LineCount>> {
        let document = self.document;
        let (Value::List(rows) | Value::Tuple(rows)) = document.get(node) else {
            return Err(bad(document.at(node), "lines that are no list"));
        };
        self.spend(node, rows.len())?;
        let mut lines: BTreeMap<u32, LineCount> = BTreeMap::new();
        for row in rows {
            let unexpected = || bad(document.at(*row), "not a line: (line, hits, time)");
            let Value::Tuple(parts) = document.get(*row) else {
                return Err(unexpected());
            };
            let [line, hits, time] = parts.as_slice() else {
                return Err(unexpected());
            };
            let line = self.line(*line).ok_or_else(unexpected)?;
            let hits = match document.get(*hits) {
                Value::Int(hits) => u64::try_from(*hits).ok(),
                // Files of several runs, added up by line_profiler.
                Value::Float(hits) if *hits >= 0.0 && *hits < 1e18 => Some(hits.round() as u64),
                _ => None,
            };
            let hits = hits.ok_or_else(unexpected)?;
            let time = number(document, *time).filter(|time| time.is_finite() && *time >= 0.0);
            let time = time.ok_or_else(unexpected)?;
            let sum = lines.entry(line).or_insert(LineCount {
                line,
                hits: 0,
                time: 0.0,
                at_least: false,
            });
            sum.hits = sum.hits.saturating_add(hits);
            sum.time += time;
        }
        Ok(lines.into_values().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of line_profiler 4.0.2 on Python 3.8: `timings` of one function, `unit` 1e-09.
    const THEIRS: &[u8] = b"\x80\x05\x95\x7a\x00\x00\x00\x00\x00\x00\x00\x8c\x1cline_profiler._line_profiler\x94\x8c\tLineStats\x94\x93\x94)\x81\x94}\x94(\x8c\x07timings\x94}\x94\x8c\x05ex.py\x94K\x02\x8c\x01f\x94\x87\x94]\x94(K\x03K\x01M\xb2\x04\x87\x94K\x04M,\x01J\xc4.\x01\x00\x87\x94es\x8c\x04unit\x94G>\x11.\x0b\xe8&\xd6\x95ub.";

    fn import(data: &[u8]) -> Result<Profile> {
        assert!(Lprof.recognises(data));
        Lprof.import(data)
    }

    fn export(profile: &Profile) -> Vec<u8> {
        let mut out = Vec::new();
        let losses = Lprof.export(profile, &ExportOptions::default(), &mut out);
        assert!(losses.is_ok_and(|losses| losses.is_empty()));
        out
    }

    #[test]
    fn line_profilers_file_is_read_and_comes_back() {
        let profile = import(THEIRS).expect("read");
        assert!(profile.has_line_times());
        let counts = profile.lines.clone().expect("lines");
        assert_eq!(counts.unit, 1e-9);
        let line = |line, hits, time| LineCount {
            line,
            hits,
            time,
            at_least: false,
        };
        let rows = vec![line(3, 1, 1202.0), line(4, 300, 77_508.0)];
        assert_eq!(counts.functions, [(FunctionId(0), rows)]);
        let tables = &profile.tables;
        let function = FunctionId(0);
        assert_eq!(
            (
                tables.file(function),
                tables.line(function),
                tables.name(function)
            ),
            ("ex.py", 2, "f")
        );
        let again = import(&export(&profile)).expect("read");
        assert_eq!(again.lines, profile.lines);
        assert_eq!(again.tables.strings(), profile.tables.strings());
    }

    #[test]
    fn lower_bounds_come_back() {
        let mut profile = import(THEIRS).expect("read");
        for whole in [false, true] {
            if let Some(counts) = &mut profile.lines {
                counts.at_least = whole;
                counts.functions[0].1[1].at_least = true;
            }
            let mut out = Vec::new();
            let losses = Lprof.export(&profile, &ExportOptions::default(), &mut out);
            let of = if whole { 2 } else { 1 };
            assert!(
                losses
                    .is_ok_and(|said| said[0].starts_with(&format!("the hits of {of} of 2 lines")))
            );
            let again = import(&out).expect("read");
            let hits = again.line_tables(&Default::default()).expect("lines");
            let hits: Vec<_> = hits.tables[0].rows.iter().map(|row| row.hits).collect();
            let first = if whole {
                Hits::AtLeast(1)
            } else {
                Hits::Counted(1)
            };
            assert_eq!(hits, [Some(first), Some(Hits::AtLeast(300))]);
        }
    }

    #[test]
    fn large_and_broken_numbers_come_back() {
        let mut profile = import(THEIRS).expect("read");
        if let Some(counts) = &mut profile.lines {
            counts.unit = 1e-6 / 3.0;
            for (_, lines) in &mut counts.functions {
                *lines = [0u32, 30, 36, 63]
                    .map(|bits| LineCount {
                        line: 10 + bits,
                        hits: (1 << bits) - u64::from(bits == 63),
                        time: 2f64.powi(bits as i32) + f64::from(bits % 4 / 2) / 3.0,
                        at_least: false,
                    })
                    .to_vec();
            }
        }
        let again = import(&export(&profile)).expect("read");
        assert_eq!(again.lines, profile.lines);
    }

    #[test]
    fn damaged_files_are_errors() {
        for length in 0..THEIRS.len() {
            assert!(Lprof.import(&THEIRS[..length]).is_err(), "{length}");
        }
        for at in 0..THEIRS.len() {
            for bit in 0..8 {
                let mut data = THEIRS.to_vec();
                data[at] ^= 1 << bit;
                // Some are other numbers; none does harm.
                if let Ok(profile) = Lprof.import(&data) {
                    assert!(
                        profile
                            .lines
                            .is_some_and(|lines| lines.functions.len() <= 1)
                    );
                }
            }
        }
    }

    #[test]
    fn other_pickles_are_not_run() {
        let class = |module: &str, name: &str| format!("c{module}\n{name}\n").into_bytes();
        let pickle = |parts: &[&[u8]]| [b"\x80\x02", parts.concat().as_slice(), b"."].concat();
        let text = |text: &str| {
            [
                b"X",
                &(text.len() as u32).to_le_bytes()[..],
                text.as_bytes(),
            ]
            .concat()
        };
        for data in [
            pickle(&[&class("os", "system"), &text("touch /tmp/x"), b"\x85R"]),
            pickle(&[&class("os", "LineStats"), b")\x81}b"]),
            pickle(&[&class("line_profiler", "LineStats"), b")\x81}b"]),
            pickle(&[&class("line_profiler", "LineStats"), b")\x81"]),
            pickle(&[&class("line_profiler", "LineStats")]),
            pickle(&[b"N"]),
            pickle(&[b""]),
            b"\x80\x02}.garbage".to_vec(),
        ] {
            assert!(Lprof.import(&data).is_err(), "{data:?}");
        }
    }

    /// Each of the lists has the one before it twice: a reader that follows all of them never ends.
    #[test]
    fn what_is_shared_is_not_copied() {
        let mut data =
            b"\x80\x02cline_profiler\nLineStats\n)\x81}(X\x07\x00\x00\x00timings}(".to_vec();
        data.extend(b"]q\x00");
        for _ in 0..64 {
            data.extend(b"0](h\x00h\x00eq\x00");
        }
        data.extend(b"0");
        data.extend(b"](");
        for line in 0..200u8 {
            data.extend([b'K', line, b'K', 1, b'K', 1, 0x87]);
        }
        data.extend(b"eq\x010");
        for name in 0..200u8 {
            data.extend(b"X\x01\x00\x00\x00fK");
            data.push(name);
            data.extend(b"X\x01\x00\x00\x00g\x87h\x01");
        }
        data.extend(b"uX\x04\x00\x00\x00unitG>\x11.\x0b\xe8&\xd6\x95ub.");
        let error = import(&data)
            .expect_err("40,000 lines in 4,000 bytes")
            .to_string();
        assert!(error.contains("more lines than"), "{error}");
    }
}
