//! `.prof` files: the dict `{(file, line, name): (cc, nc, tt, ct, {caller: (nc, cc, tt, ct)})}` in marshal,
//! read by `pstats`, snakeviz, gprof2dot and tuna.
//!
//! Spec: `Lib/cProfile.py` (`snapshot_stats`; the counts of a caller stand the other way round than those
//! of a row) and `Lib/pstats.py` of CPython 3.11. Also read: files of Python 2, of the pure-Python
//! `profile` module (a caller is a count alone), and of 3.15's sampling profiler.
//!
//! Behind the dict, where Python does not look, stands a text of ours in files that were made of samples:
//! `biopsy lower bounds 0-7 9`, the places of the rows whose calls are lower bounds.

pub mod dict;

use std::io::{BufWriter, Write};
use std::rc::Rc;

use rustc_hash::FxHashMap;

use self::dict::{Key, StatsDict};
use super::marshal::{self, Document, Encoder, Item, Value, unexpected};
use super::{ExportOptions, Exporter, Importer, Loss, unsaid, unsaid_bounds};
use crate::error::{Error, Result};
use crate::profile::{
    CallStats, EdgeStats, FunctionId, FunctionKind, FunctionStats, Meta, Origin, Profile, Tables,
};

/// What the text behind the dict begins with.
const BOUNDS: &str = "biopsy lower bounds";

/// Reads and writes `.prof` files.
#[derive(Debug, Clone, Copy)]
pub struct Pstats;

impl Exporter for Pstats {
    fn export(
        &self,
        profile: &Profile,
        options: &ExportOptions,
        out: &mut dyn Write,
    ) -> Result<Vec<Loss>> {
        let stats = profile.stats(&options.filter);
        let mut dict = StatsDict::of(&stats, &profile.tables, false);
        if options.strip_dirs {
            dict = dict.strip_dirs();
        }
        let bounds = (!stats.exact).then(|| bounds_text(&dict));
        write_dict(&dict, bounds.as_deref(), out)
            .map_err(|error| Error::write("the pstats file", &error))?;
        let mut losses = Vec::new();
        if stats.groups.len() > 1 {
            losses.push(
                "the file has no threads or processes: each function has a row for each of them, with \
                 the label in its name"
                    .to_string(),
            );
        }
        losses.extend(unsaid(profile));
        let bounds = dict.rows().iter().filter(|row| row.lower_bound).count();
        let seen_by = "which biopsy reads in the file and pstats does not";
        losses.extend(unsaid_bounds(bounds, dict.rows().len(), seen_by));
        Ok(losses)
    }
}

/// The places of the rows whose calls are lower bounds.
fn bounds_text(dict: &StatsDict<'_>) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for (at, _) in (dict.rows().iter().enumerate()).filter(|(_, row)| row.lower_bound) {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == at => *last = at,
            _ => ranges.push((at, at)),
        }
    }
    let mut text = BOUNDS.to_string();
    for (first, last) in ranges {
        text.push_str(&match first == last {
            true => format!(" {first}"),
            false => format!(" {first}-{last}"),
        });
    }
    text
}

/// The same of a file, of which `data` is what lies behind the dict, at `offset`; `None` where it does not say that it was
/// made of samples.
fn read_bounds(data: &[u8], offset: u64, rows: usize) -> Result<Option<Vec<bool>>> {
    // What others may have written there is nothing to Python either.
    if data.first() != Some(&b'u') {
        return Ok(None);
    }
    let bad = || unexpected(offset, "what is behind the functions is damaged");
    let document = marshal::read(data).map_err(|_| bad())?;
    let Value::Text(at) = document.root.value else {
        return Err(bad());
    };
    let text = document.strings.get(at).map_or("", String::as_str);
    let Some(text) = text.strip_prefix(BOUNDS) else {
        return Ok(None);
    };
    let mut bounds = vec![false; rows];
    for range in text.split_whitespace() {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse::<usize>().ok(), last.parse::<usize>().ok());
        let (Some(first), Some(end)) = (first, last.and_then(|last| last.checked_add(1))) else {
            return Err(bad());
        };
        bounds.get_mut(first..end).ok_or_else(bad)?.fill(true);
    }
    Ok(Some(bounds))
}

fn write_dict(
    dict: &StatsDict<'_>,
    bounds: Option<&str>,
    out: &mut dyn Write,
) -> std::io::Result<()> {
    let mut encoder = Encoder::new(BufWriter::new(out));
    encoder.begin_dict()?;
    if dict.rows().is_empty() {
        // pstats refuses an empty dict.
        encoder.begin_tuple(3)?;
        encoder.text("~")?;
        encoder.int(0)?;
        encoder.text("<no samples>")?;
        encoder.begin_tuple(5)?;
        encoder.int(0)?;
        encoder.int(0)?;
        encoder.float(0.0)?;
        encoder.float(0.0)?;
        encoder.begin_dict()?;
        encoder.end_dict()?;
    }
    for row in dict.rows() {
        write_key(&mut encoder, dict.get(row.key))?;
        encoder.begin_tuple(5)?;
        encoder.int(row.primitive)?;
        encoder.int(row.ncalls)?;
        encoder.float(row.tottime)?;
        encoder.float(row.cumtime)?;
        encoder.begin_dict()?;
        for (caller, edge) in &row.callers {
            write_key(&mut encoder, dict.get(*caller))?;
            if edge.count_only {
                encoder.int(edge.ncalls)?;
                continue;
            }
            encoder.begin_tuple(4)?;
            encoder.int(edge.ncalls)?;
            encoder.int(edge.primitive)?;
            encoder.float(edge.tottime)?;
            encoder.float(edge.cumtime)?;
        }
        encoder.end_dict()?;
    }
    encoder.end_dict()?;
    if let Some(bounds) = bounds {
        encoder.text(bounds)?;
    }
    encoder.finish()
}

fn write_key<'a, W: Write>(encoder: &mut Encoder<'a, W>, key: &'a Key<'_>) -> std::io::Result<()> {
    encoder.begin_tuple(3)?;
    encoder.text(key.file)?;
    encoder.int(u64::from(key.line))?;
    encoder.text(&key.name)
}

impl Importer for Pstats {
    fn recognises(&self, head: &[u8]) -> bool {
        // A dict whose first key is a tuple of 3, or of 1 as 3.15's `('__sampled__',)`.
        let [first, rest @ ..] = head else {
            return false;
        };
        let plain = |byte: u8| byte & 0x7f;
        let length = match rest {
            [code, length, ..] if plain(*code) == b')' => u32::from(*length),
            [code, a, b, c, d, ..] if plain(*code) == b'(' => u32::from_le_bytes([*a, *b, *c, *d]),
            _ => return false,
        };
        plain(*first) == b'{' && (length == 3 || length == 1)
    }

    fn import(&self, data: &[u8]) -> Result<Profile> {
        let document = marshal::read(data)?;
        let Value::Dict(pairs) = &document.root.value else {
            return Err(unexpected(0, "not a dict, as a pstats file should be"));
        };
        let mut builder = Builder {
            strings: vec![None; document.strings.len()],
            document: &document,
            tables: Tables::default(),
            rows: Vec::new(),
            edges_left: data.len(),
        };
        let behind = data.get(document.end..).unwrap_or_default();
        let bounds = read_bounds(behind, document.end as u64, pairs.len())?;
        // What `profiling.sampling` (3.15) writes as calls are samples. A row that is there has been called once at least.
        let sampled = pairs.iter().any(|(key, _)| builder.is_sampled_marker(key));
        let mut places: FxHashMap<FunctionId, usize> = FxHashMap::default();
        for (at, (key, value)) in pairs.iter().enumerate() {
            if builder.is_sampled_marker(key) {
                continue;
            }
            let function = builder.function(key)?;
            let mut row = builder.row(function, value)?;
            if sampled {
                (row.ncalls, row.primitive) = (1, 1);
                for (_, edge) in &mut row.callers {
                    (edge.ncalls, edge.primitive) = (1, 1);
                }
            }
            if sampled || bounds.as_ref().and_then(|bounds| bounds.get(at)) == Some(&true) {
                row.lower_bound = true;
                row.callers
                    .iter_mut()
                    .for_each(|(_, edge)| edge.lower_bound = true);
            }
            // As in a Python dict, the last of equal keys counts, at the place of the first.
            let place = *places.entry(function).or_insert(builder.rows.len());
            match builder.rows.get_mut(place) {
                Some(slot) => *slot = row,
                None => builder.rows.push(row),
            }
        }
        if builder.rows.is_empty() {
            return Err(unexpected(0, "there is no function in it"));
        }
        let exact = CallStats {
            rows: builder.rows,
            groups: vec![String::new()],
            exact: bounds.is_none() && !sampled,
        };
        let meta = Meta {
            origin: Origin::Exact,
            duration_us: (exact.total_tottime() * 1e6).max(0.0) as u64,
            ..Meta::default()
        };
        Ok(Profile::from_exact(builder.tables, meta, exact))
    }
}

struct Builder<'a> {
    document: &'a Document,
    tables: Tables,
    rows: Vec<FunctionStats>,
    /// The texts of the document that are interned already: a file may refer to a long one often.
    strings: Vec<Option<crate::profile::StringId>>,
    /// A caller takes more than a byte. A file with more of them refers to one dict again and again,
    /// which no profiler writes, and which would take time without end.
    edges_left: usize,
}

impl Builder<'_> {
    fn is_sampled_marker(&self, key: &Item) -> bool {
        match items(key).map(|items| &**items) {
            Some([only]) => match only.value {
                Value::Text(at) => self
                    .document
                    .strings
                    .get(at)
                    .is_some_and(|text| text == "__sampled__"),
                _ => false,
            },
            _ => false,
        }
    }

    fn function(&mut self, key: &Item) -> Result<FunctionId> {
        let Some([file, line, name]) = items(key).map(|items| &**items) else {
            return Err(unexpected(key.at, "a function is not (file, line, name)"));
        };
        let file = self.text(file)?;
        let Value::Int(number) = line.value else {
            return Err(unexpected(line.at, "a line that is not a number"));
        };
        // Generated code may have any line.
        let line = u32::try_from(number.max(0)).unwrap_or(u32::MAX);
        let name = self.text(name)?;
        let builtin = line == 0 && self.tables.text(file) == "~";
        Ok(self.tables.add_function(crate::profile::Function {
            file,
            line,
            name,
            kind: if builtin {
                FunctionKind::Builtin
            } else {
                FunctionKind::Python
            },
        }))
    }

    fn text(&mut self, item: &Item) -> Result<crate::profile::StringId> {
        let Value::Text(at) = item.value else {
            return Err(unexpected(item.at, "a name that is not text"));
        };
        let (Some(text), Some(slot)) = (self.document.strings.get(at), self.strings.get_mut(at))
        else {
            return Err(unexpected(item.at, "a name that is not there"));
        };
        Ok(*slot.get_or_insert_with(|| self.tables.string(text)))
    }

    fn row(&mut self, function: FunctionId, value: &Item) -> Result<FunctionStats> {
        let Some([primitive, ncalls, tottime, cumtime, rest @ ..]) = items(value).map(|v| &**v)
        else {
            return Err(unexpected(
                value.at,
                "a row is not (cc, nc, tt, ct, callers)",
            ));
        };
        let mut row = FunctionStats {
            function,
            group: 0,
            ncalls: count(ncalls)?,
            primitive: count(primitive)?,
            tottime: time(tottime)?,
            cumtime: time(cumtime)?,
            callers: Vec::new(),
            lower_bound: false,
        };
        match rest {
            [] => {}
            [callers] => row.callers = self.callers(callers)?,
            _ => {
                return Err(unexpected(
                    value.at,
                    "a row is not (cc, nc, tt, ct, callers)",
                ));
            }
        }
        Ok(row)
    }

    fn callers(&mut self, item: &Item) -> Result<Vec<(FunctionId, EdgeStats)>> {
        let Value::Dict(pairs) = &item.value else {
            return Err(unexpected(item.at, "callers that are not a dict"));
        };
        self.edges_left = self
            .edges_left
            .checked_sub(pairs.len())
            .ok_or_else(|| unexpected(item.at, "the same callers again and again"))?;
        let mut callers: Vec<(FunctionId, EdgeStats)> = Vec::with_capacity(pairs.len());
        let mut places: FxHashMap<FunctionId, usize> = FxHashMap::default();
        for (key, value) in pairs.iter() {
            let caller = self.function(key)?;
            let edge = edge(value)?;
            let place = *places.entry(caller).or_insert(callers.len());
            match callers.get_mut(place) {
                Some(slot) => slot.1 = edge,
                None => callers.push((caller, edge)),
            }
        }
        Ok(callers)
    }
}

fn edge(value: &Item) -> Result<EdgeStats> {
    match items(value).map(|items| &**items) {
        Some([ncalls, primitive, tottime, cumtime]) => Ok(EdgeStats {
            ncalls: count(ncalls)?,
            primitive: count(primitive)?,
            tottime: time(tottime)?,
            cumtime: time(cumtime)?,
            count_only: false,
            lower_bound: false,
        }),
        Some(_) => Err(unexpected(value.at, "a caller is not (nc, cc, tt, ct)")),
        None => {
            let ncalls = count(value)?;
            Ok(EdgeStats {
                ncalls,
                primitive: ncalls,
                count_only: true,
                ..EdgeStats::default()
            })
        }
    }
}

fn items(item: &Item) -> Option<&Rc<[Item]>> {
    match &item.value {
        Value::Tuple(items) | Value::List(items) => Some(items),
        _ => None,
    }
}

/// Sampling profilers that do not know the number of calls write -1 (pyinstrument): 0 here.
fn count(item: &Item) -> Result<u64> {
    match item.value {
        Value::Int(count) => Ok(u64::try_from(count).unwrap_or(0)),
        Value::Bool(count) => Ok(u64::from(count)),
        // A cast saturates and makes nothing of NaN.
        Value::Float(count) => Ok(count as u64),
        _ => Err(unexpected(
            item.at,
            "a number of calls that is no number or too large",
        )),
    }
}

/// Times may be negative: `profile` takes a calibrated overhead off. They have to be finite.
fn time(item: &Item) -> Result<f64> {
    match item.value {
        Value::Int(seconds) => Ok(seconds as f64),
        Value::Float(seconds) if seconds.is_finite() => Ok(seconds),
        Value::Float(_) => Err(unexpected(item.at, "a time that is not finite")),
        _ => Err(unexpected(item.at, "a time that is not a number")),
    }
}
