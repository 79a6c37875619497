//! Counts and lists of objects.

use rustc_hash::FxHashMap;

use super::census::{Census, Counting, Doubts, TypeCount};
use super::decode::sinks::Targets;
use super::decode::{references, size};
use super::memory::Bits;
use super::types::Types;
use super::walk::{self, Count};
use super::{Heap, muppy};
use crate::target::image::Held;

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
        let (rows, doubts) = match counting {
            Counting::Reachable => {
                let walked = walk::walk(self);
                (merge(&walked.counts), walked.doubts)
            }
            Counting::Muppy => {
                let mut types = Types::default();
                let mut seen = muppy::find(self, &mut types);
                (muppy::rows(self, &mut types, &mut seen), seen.doubts)
            }
        };
        let captured = self.captured;
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
        }
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
