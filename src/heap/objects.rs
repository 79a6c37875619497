//! Counts and lists of objects.

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;

use super::census::{Census, Counting, Doubts, TypeCount, Unsure};
use super::decode::sinks::Targets;
use super::decode::{references, size};
use super::graph::Graph;
use super::memory::Bits;
use super::types::{TypeInfo, Types, field, flag, resolve};
use super::walk::{self, Count};
use super::{Heap, muppy};
use crate::target::image::Held;

/// Bases of a class that are followed.
const BASES: usize = 200;

/// One object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Object<'t> {
    /// Its address, which is its `id()`.
    pub address: u64,
    /// Its type.
    pub kind: &'t str,
    /// `sys.getsizeof`, in bytes.
    pub bytes: u64,
    /// Its reference count as it is stored; large for what lives as long as the interpreter.
    pub refcount: u64,
}

impl Heap<'_> {
    /// Objects by type.
    pub fn census(&self, counting: Counting) -> Census {
        let (rows, doubts, types) = match counting {
            Counting::Reachable => {
                let walked = walk::walk(self);
                let types = walked.counts.iter().map(|(types, _)| types.clone());
                let types: Vec<Types> = types.collect();
                (merge(&walked.counts), walked.doubts, types)
            }
            Counting::Muppy => {
                let mut types = Types::default();
                let mut seen = muppy::find(self, &mut types);
                let rows = muppy::rows(self, &mut types, &mut seen);
                (rows, seen.doubts, vec![types])
            }
        };
        let captured = self.captured;
        let count = |name: &str| rows.get(name).map_or(0, |(objects, _)| *objects);
        let all = || types.iter().flat_map(Types::all);
        let unsure = Unsure {
            layout: most_first(
                // muppy follows what the collector knows, and no other objects.
                all().filter(|info| {
                    let is_followed = info.is_gc() || counting == Counting::Reachable;
                    walk::is_conservative(info) && is_followed
                }),
                count,
            ),
            size: most_first(all().filter(|info| self.has_own_sizeof(info)), count),
        };
        Census {
            counting,
            python: captured.runtime.version.to_string(),
            pid: captured.pid.map(|pid| pid.0),
            command: captured.command.clone(),
            taken_at: captured.taken_at,
            pause_ms: match captured.held {
                Held::Stopped(pause) => Some(pause.as_secs_f64() * 1e3),
                Held::Running | Held::Already | Held::Core => None,
            },
            rss_bytes: captured.rss,
            types: rows
                .into_iter()
                .map(|(name, (objects, bytes))| TypeCount {
                    name,
                    objects,
                    bytes,
                })
                .collect(),
            doubts,
            unsure,
        }
    }

    /// Classes of `graph`'s objects that have a `__sizeof__` in Python, as in [`Unsure::size`].
    pub fn own_sizes(&self, graph: &Graph) -> Vec<(String, u64)> {
        let mut counts = vec![0; graph.types.len()];
        for type_id in &graph.type_ids {
            if let Some(count) = counts.get_mut(*type_id as usize) {
                *count += 1;
            }
        }
        let mut named: FxHashMap<&str, u64> = FxHashMap::default();
        let mut types = Vec::new();
        for (found, count) in graph.types.iter().zip(counts) {
            *named.entry(graph.name(found.name)).or_default() += count;
            let address = found.object.and_then(|id| graph.addresses.get(id as usize));
            types.extend(address.and_then(|address| resolve(self, *address)));
        }
        let own = types.iter().filter(|info| self.has_own_sizeof(info));
        most_first(own, |name| named.get(name).copied().unwrap_or(0))
    }

    /// Whether a class or one of its bases has a `__sizeof__` that is written in Python.
    fn has_own_sizeof(&self, info: &TypeInfo) -> bool {
        let mut class = info.address;
        for _ in 0..BASES {
            let flags = self.memory.word(class.wrapping_add(field::FLAGS.into()));
            // What C laid out at once has none.
            if flags.is_none_or(|flags| flags & flag::HEAP == 0) {
                return false;
            }
            if let Some(found) = self.type_entry(class, "__sizeof__") {
                let kind = self.memory.word(found.wrapping_add(8));
                let kind = kind.and_then(|kind| resolve(self, kind));
                return kind.is_some_and(|kind| kind.tp_name == "function");
            }
            class = self
                .memory
                .word(class.wrapping_add(field::BASE.into()))
                .unwrap_or(0);
        }
        false
    }

    /// Calls `each` with every object, by address, and says what was not sure.
    pub fn objects(&self, counting: Counting, each: &mut dyn FnMut(Object)) -> Doubts {
        let mut types = Types::default();
        let (seen, doubts) = match counting {
            Counting::Reachable => {
                let walked = walk::walk(self);
                (walked.seen, walked.doubts)
            }
            Counting::Muppy => {
                let seen = muppy::find(self, &mut types);
                (seen.objects, seen.doubts)
            }
        };
        self.list(&seen, &mut types, each);
        doubts
    }

    fn list(&self, seen: &Bits, types: &mut Types, each: &mut dyn FnMut(Object)) {
        self.memory.each_set(seen, 0, seen.len(), |address, place| {
            let Some(index) = types.find(self, place.word_or_0(8)) else {
                return;
            };
            let info = types.get(index);
            each(Object {
                address,
                kind: &info.name,
                bytes: size::size(self, info, &place).unwrap_or(info.basic),
                refcount: self.refcount(&place),
            });
        });
    }
}

/// What one object refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Referents {
    /// As `gc.get_referents` gives them, in no certain order, some more than once.
    pub addresses: Vec<u64>,
    /// Found by looking at a struct that is not known.
    pub conservative: bool,
}

impl Heap<'_> {
    /// What `gc.get_referents` gives for the object at `address`; `None` when there is no object, or it is torn.
    pub fn referents(&self, address: u64) -> Option<Referents> {
        let mut types = Types::default();
        let place = self.memory.place(address)?;
        let index = types.find(self, place.word(8)?)?;
        let info = types.get(index).clone();
        let mut sink = Targets::new(self);
        references(self, &info, &place, false, &mut sink).ok()?;
        let conservative = walk::is_conservative(&info) || !sink.found.is_empty();
        let mut addresses = sink.targets;
        let found = sink.found.into_iter();
        addresses.extend(found.filter(|word| walk::plausible(self, &mut types, *word).is_some()));
        Some(Referents {
            addresses,
            conservative,
        })
    }
}

/// The names of `types` that have objects, with how many.
fn most_first<'t>(
    types: impl Iterator<Item = &'t TypeInfo>,
    count: impl Fn(&str) -> u64,
) -> Vec<(String, u64)> {
    let names: BTreeSet<&str> = types.map(|info| info.name.as_str()).collect();
    let counted = names
        .into_iter()
        .map(|name| (name.to_string(), count(name)));
    let mut found: Vec<(String, u64)> = counted.filter(|(_, objects)| *objects > 0).collect();
    found.sort_by_key(|(_, objects)| std::cmp::Reverse(*objects));
    found
}

/// One row a name: several types may have the same.
fn merge(counts: &[(Types, Vec<Count>)]) -> FxHashMap<String, Count> {
    let mut rows: FxHashMap<String, Count> = FxHashMap::default();
    for (types, counts) in counts {
        for (info, (objects, bytes)) in types.all().iter().zip(counts) {
            if *objects > 0 {
                let row = rows.entry(info.name.clone()).or_default();
                row.0 += objects;
                row.1 = row.1.saturating_add(*bytes);
            }
        }
    }
    rows
}
