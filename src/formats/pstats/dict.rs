//! The dict that a `.prof` file holds and `pstats.Stats` works on: rows by `(file, line, name)`, each with
//! its callers, in a fixed order; and what `strip_dirs()` makes of it.
//!
//! Semantics: `Lib/pstats.py` of CPython 3.11 to 3.13.

use std::borrow::Cow;

use rustc_hash::FxHashMap;

use crate::profile::{CallStats, EdgeStats, FunctionId, Tables};

/// pstats' name of a function; ordered as Python orders such tuples.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key<'a> {
    /// File as the code object has it; `~` for C functions.
    pub file: &'a str,
    /// First line, 1-based; 0 for C functions.
    pub line: u32,
    /// Name, with the label of its group when there are several.
    pub name: Cow<'a, str>,
}

impl Key<'_> {
    /// `file:line(name)`, or `{name}` for a C function: `pstats.func_std_string`.
    pub fn standard_name(&self) -> String {
        if self.file != "~" || self.line != 0 {
            return format!("{}:{}({})", self.file, self.line, self.name);
        }
        match self
            .name
            .strip_prefix('<')
            .and_then(|name| name.strip_suffix('>'))
        {
            Some(inner) => format!("{{{inner}}}"),
            None => self.name.to_string(),
        }
    }
}

/// Position of a [`Key`] in its [`StatsDict`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(u32);

/// One row.
#[derive(Debug, Clone, PartialEq)]
pub struct DictRow {
    /// The function.
    pub key: KeyId,
    /// Calls, recursive ones included.
    pub ncalls: u64,
    /// Calls that were not recursive.
    pub primitive: u64,
    /// Own time, seconds.
    pub tottime: f64,
    /// Cumulative time, seconds.
    pub cumtime: f64,
    /// Callers, each once.
    pub callers: Vec<(KeyId, EdgeStats)>,
    /// Whether there were at least so many calls; so is a sum of rows one of which has such a number.
    pub lower_bound: bool,
}

/// The dict, with the sums that pstats takes once, before it strips.
#[derive(Debug, Clone, Default)]
pub struct StatsDict<'a> {
    keys: Vec<Key<'a>>,
    ids: FxHashMap<Key<'a>, KeyId>,
    rows: Vec<DictRow>,
    /// Position of a key's row, by key.
    row_of: Vec<Option<u32>>,
    edges: FxHashMap<(u32, KeyId), u32>,
    /// All calls.
    pub total_calls: u128,
    /// All calls that were not recursive.
    pub primitive_calls: u128,
    /// All own time, seconds, added in row order.
    pub total_tottime: f64,
    /// Functions called by the profiler itself, as very old profilers mark them.
    pub top_level: Vec<KeyId>,
}

/// The caller that stands for the profiler itself.
const PROFILER: (&str, u32, &str) = ("jprofile", 0, "profiler");

impl<'a> StatsDict<'a> {
    /// The dict of `stats`. Rows of different groups are told apart by a label after the name,
    /// which is the qualified one where `qualnames` says so and it is known.
    pub fn of(stats: &'a CallStats, tables: &'a Tables, qualnames: bool) -> StatsDict<'a> {
        let mut dict = StatsDict::default();
        let mut known: FxHashMap<(u32, FunctionId), KeyId> = FxHashMap::default();
        let mut key_of = |dict: &mut StatsDict<'a>, group: u32, function: FunctionId| {
            *known.entry((group, function)).or_insert_with(|| {
                let name = tables.shown_name(function, qualnames);
                let label = if stats.groups.len() > 1 {
                    stats
                        .groups
                        .get(group as usize)
                        .filter(|label| !label.is_empty())
                } else {
                    None
                };
                dict.key(Key {
                    file: tables.file(function),
                    line: tables.line(function),
                    name: match label {
                        Some(label) => Cow::Owned(format!("{name} [{label}]")),
                        None => Cow::Borrowed(name),
                    },
                })
            })
        };
        for row in &stats.rows {
            let key = key_of(&mut dict, row.group, row.function);
            let callers = row
                .callers
                .iter()
                .map(|(caller, edge)| (key_of(&mut dict, row.group, *caller), *edge))
                .collect();
            dict.add(DictRow {
                key,
                ncalls: row.ncalls,
                primitive: row.primitive,
                tottime: row.tottime,
                cumtime: row.cumtime,
                callers,
                lower_bound: row.lower_bound,
            });
        }
        for row in &dict.rows {
            dict.total_calls += u128::from(row.ncalls);
            dict.primitive_calls += u128::from(row.primitive);
            dict.total_tottime += row.tottime;
            let called_by_profiler = row.callers.iter().any(|(caller, _)| {
                let key = &dict.keys[caller.0 as usize];
                (key.file, key.line, &*key.name) == PROFILER
            });
            if called_by_profiler {
                dict.top_level.push(row.key);
            }
        }
        dict
    }

    /// The dict with file names without folders; functions that become equal are added up.
    #[must_use]
    pub fn strip_dirs(self) -> StatsDict<'a> {
        let mut stripped = StatsDict {
            total_calls: self.total_calls,
            primitive_calls: self.primitive_calls,
            total_tottime: self.total_tottime,
            ..StatsDict::default()
        };
        let ids: Vec<KeyId> = self
            .keys
            .into_iter()
            .map(|key| {
                let file = key.file.rsplit('/').next().unwrap_or_default();
                stripped.key(Key { file, ..key })
            })
            .collect();
        for row in self.rows {
            // Callers of one row that become equal are not added: pstats keeps the last of them.
            let mut callers: Vec<(KeyId, EdgeStats)> = Vec::with_capacity(row.callers.len());
            let mut places: FxHashMap<KeyId, usize> = FxHashMap::default();
            for (caller, edge) in row.callers {
                let caller = ids[caller.0 as usize];
                let place = *places.entry(caller).or_insert(callers.len());
                match callers.get_mut(place) {
                    Some(slot) => slot.1 = edge,
                    None => callers.push((caller, edge)),
                }
            }
            stripped.add(DictRow {
                key: ids[row.key.0 as usize],
                callers,
                ..row
            });
        }
        for key in self.top_level {
            let key = ids[key.0 as usize];
            if !stripped.top_level.contains(&key) {
                stripped.top_level.push(key);
            }
        }
        stripped
    }

    /// The rows, in order.
    pub fn rows(&self) -> &[DictRow] {
        &self.rows
    }

    /// All functions, those that only occur as callers included; [`KeyId::index`] is the position.
    pub fn keys(&self) -> &[Key<'a>] {
        &self.keys
    }

    /// The name of a function of this dict.
    pub fn get(&self, id: KeyId) -> &Key<'a> {
        &self.keys[id.0 as usize]
    }

    /// The row of a function; `None` for one that only occurs as a caller.
    pub fn row(&self, id: KeyId) -> Option<&DictRow> {
        self.row_of[id.0 as usize].and_then(|at| self.rows.get(at as usize))
    }

    fn key(&mut self, key: Key<'a>) -> KeyId {
        let next = KeyId(self.keys.len() as u32);
        let (keys, row_of) = (&mut self.keys, &mut self.row_of);
        *self.ids.entry(key).or_insert_with_key(|key| {
            keys.push(key.clone());
            row_of.push(None);
            next
        })
    }

    /// Adds a row, to the one of the same function if there is one.
    fn add(&mut self, row: DictRow) {
        let at = match self.row_of[row.key.0 as usize] {
            Some(at) => at,
            None => {
                let at = self.rows.len() as u32;
                self.row_of[row.key.0 as usize] = Some(at);
                self.rows.push(DictRow {
                    callers: Vec::with_capacity(row.callers.len()),
                    ..row
                });
                self.add_callers(at, row.callers);
                return;
            }
        };
        let target = &mut self.rows[at as usize];
        target.ncalls = target.ncalls.saturating_add(row.ncalls);
        target.primitive = target.primitive.saturating_add(row.primitive);
        target.tottime += row.tottime;
        target.cumtime += row.cumtime;
        target.lower_bound |= row.lower_bound;
        self.add_callers(at, row.callers);
    }

    fn add_callers(&mut self, at: u32, callers: Vec<(KeyId, EdgeStats)>) {
        let target = &mut self.rows[at as usize].callers;
        for (caller, edge) in callers {
            let place = *self
                .edges
                .entry((at, caller))
                .or_insert(target.len() as u32);
            match target.get_mut(place as usize) {
                Some((_, sum)) => {
                    sum.ncalls = sum.ncalls.saturating_add(edge.ncalls);
                    sum.primitive = sum.primitive.saturating_add(edge.primitive);
                    sum.tottime += edge.tottime;
                    sum.cumtime += edge.cumtime;
                    sum.count_only &= edge.count_only;
                    sum.lower_bound |= edge.lower_bound;
                }
                None => target.push((caller, edge)),
            }
        }
    }
}

impl KeyId {
    /// The position in [`StatsDict::keys`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}
