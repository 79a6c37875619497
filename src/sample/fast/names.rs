//! Names of threads as `threading` has them: `sys.modules['threading']._active`, a dict of `Thread` objects by
//! ident, and each one's `_name`.
//!
//! Read rarely, while the target may change it: what makes no sense is left out, and tried again later.

use rustc_hash::FxHashMap;

use super::codes::{is_a, read_text};
use crate::layout::{self, DictKeys, InstanceDict, Offsets, at, object};
use crate::target::memory::{Memory, Range};

/// How long after a thread has come its name is looked up again, and for as long as it has none: twice as long each time,
/// up to [`LAST_LOOK_US`]. Threads enter their names some time after their states are there, and others never do.
const FIRST_LOOK_US: u64 = 50_000;
const LAST_LOOK_US: u64 = 1_000_000;

/// How often all names are looked up: threads may be renamed.
const RENAMED_US: u64 = 10_000_000;

/// Keys whose lengths are read at once.
const KEYS_AT_ONCE: usize = 256;

/// Most entries of a dict that are looked at.
const MOST_ENTRIES: u64 = 1 << 20;

/// `ma_keys` and `ma_values` (PyDictObject), `md_dict` (PyModuleObject), `tp_basicsize` and `tp_dictoffset`
/// (PyTypeObject): the same in all versions that have a table, but for the size of the objects' heads.
const MA_KEYS: usize = 32;
const MA_VALUES: usize = 40;
const MD_DICT: usize = 16;
const TP_BASICSIZE: usize = 32;
const TP_DICTOFFSET: usize = 288;

/// Longest head of an object.
const HEAD: usize = 32;

/// When to look for names of threads. Times are microseconds since some start.
#[derive(Debug, Default)]
pub struct Naming {
    /// When names were looked up last, and all of them.
    looked_us: Option<u64>,
    looked_at_all_us: Option<u64>,
    /// How long after the last look the next one comes.
    wait_us: u64,
}

/// Which names are to be looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Those of threads that have none yet, or have just come.
    Missing,
    /// All.
    All,
}

impl Naming {
    /// There are new threads.
    pub fn threads_came(&mut self) {
        self.wait_us = FIRST_LOOK_US;
    }

    /// Which names to look up now, where those of some threads are `missing` or not.
    pub fn wanted(&mut self, missing: bool, now_us: u64) -> Option<Wanted> {
        let due = |since: Option<u64>, wait_us: u64| {
            since.is_none_or(|since| now_us >= since.saturating_add(wait_us))
        };
        let wanted = if due(self.looked_at_all_us, RENAMED_US) {
            self.looked_at_all_us = Some(now_us);
            Wanted::All
        } else if missing && due(self.looked_us, self.wait_us) {
            Wanted::Missing
        } else {
            return None;
        };
        self.wait_us = (self.wait_us * 2).clamp(FIRST_LOOK_US, LAST_LOOK_US);
        self.looked_us = Some(now_us);
        Some(wanted)
    }
}

/// Reads the names of those threads that are wanted, by ident.
pub fn read_names(
    offsets: &Offsets,
    memory: &impl Memory,
    interpreter: u64,
    wanted: impl Fn(u64) -> bool,
) -> Option<FxHashMap<u64, String>> {
    let dicts = Dicts::new(offsets, memory);
    let globals = dicts.module(interpreter, "threading")?;
    let active = dicts.find(globals, "_active")?;
    let mut names = FxHashMap::default();
    for (key, value) in dicts.entries(active)? {
        let Some(ident) = dicts.int(key).filter(|ident| wanted(*ident)) else {
            continue;
        };
        let name = dicts
            .attribute(value, "_name")
            .and_then(|name| read_text(offsets, memory, name));
        if let Some(name) = name {
            names.insert(ident, name);
        }
    }
    Some(names)
}

/// Reads dicts and instances of a process.
pub struct Dicts<'a, M> {
    offsets: &'a Offsets,
    memory: &'a M,
}

impl<'a, M: Memory> Dicts<'a, M> {
    /// Of this process.
    pub fn new(offsets: &'a Offsets, memory: &'a M) -> Dicts<'a, M> {
        Dicts { offsets, memory }
    }

    /// The globals of a module of an interpreter.
    pub fn module(&self, interpreter: u64, name: &str) -> Option<u64> {
        let modules = self.word(interpreter, u64::from(self.offsets.interpreter.modules))?;
        let module = self.find(modules, name)?;
        self.field(module, MD_DICT)
    }

    fn word(&self, address: u64, offset: u64) -> Option<u64> {
        self.memory.read_word(address.checked_add(offset)?).ok()
    }

    /// A field of an object, which is at `offset` in builds with a GIL.
    fn field(&self, object: u64, offset: usize) -> Option<u64> {
        self.word(object, self.offsets.object.place(offset) as u64)
    }

    /// The value of a string key.
    pub fn find(&self, dict: u64, name: &str) -> Option<u64> {
        self.with_key(&self.entries(dict)?, name)
    }

    /// The value of an (ASCII) string among keys. Only those of its length are read whole.
    fn with_key(&self, entries: &[(u64, u64)], name: &str) -> Option<u64> {
        let mut ranges = Vec::new();
        let mut lengths = vec![0; entries.len().min(KEYS_AT_ONCE) * 8];
        for batch in entries.chunks(KEYS_AT_ONCE) {
            ranges.clear();
            ranges.extend(batch.iter().map(|(key, _)| {
                Range {
                    address: usize::try_from(*key)
                        .unwrap_or(0)
                        .saturating_add(at(self.offsets.text.length)),
                    length: 8,
                }
            }));
            let read = self.memory.read_ranges(&ranges, &mut lengths).ok()?;
            for (index, (key, value)) in batch.iter().enumerate().take(read / 8) {
                if layout::word(&lengths, index * 8) == Some(name.len() as u64)
                    && read_text(self.offsets, self.memory, *key).is_some_and(|text| text == name)
                {
                    return Some(*value);
                }
            }
        }
        None
    }

    /// Keys and values of a dict.
    pub fn entries(&self, dict: u64) -> Option<Vec<(u64, u64)>> {
        let keys = self.field(dict, MA_KEYS)?;
        let values = self.field(dict, MA_VALUES)?;
        let keys = self.keys(keys)?;
        if values == 0 {
            return Some(keys.into_iter().filter(|(_, value)| *value != 0).collect());
        }
        // Keys shared with other instances: the values are elsewhere, in the same order.
        let start = match self.offsets.dict.instance {
            InstanceDict::InlineValues(_) => values.checked_add(8)?,
            _ => values,
        };
        self.with_values(&keys, start)
    }

    fn with_values(&self, keys: &[(u64, u64)], start: u64) -> Option<Vec<(u64, u64)>> {
        let mut bytes = vec![0; keys.len() * 8];
        self.memory.read(start, &mut bytes).ok()?;
        let values = (0..keys.len()).filter_map(|index| layout::word(&bytes, index * 8));
        Some(
            keys.iter()
                .zip(values)
                .filter(|(_, value)| *value != 0)
                .map(|((key, _), value)| (*key, value))
                .collect(),
        )
    }

    /// Keys and values of a `PyDictKeysObject`; deleted entries are left in, with value 0.
    fn keys(&self, address: u64) -> Option<Vec<(u64, u64)>> {
        let mut head = [0; 40];
        self.memory.read(address, &mut head).ok()?;
        let byte = |offset: usize| head.get(offset).copied().map(u32::from);
        let (indices, entries, size, key_at, count) = match self.offsets.dict.keys {
            DictKeys::Sized => {
                let slots = layout::word(&head, 8)?;
                let width = match slots {
                    0..=0xff => 1,
                    0x100..=0xffff => 2,
                    0x1_0000..=0xffff_ffff => 4,
                    _ => return None,
                };
                (
                    40u64,
                    slots.checked_mul(width)?,
                    24usize,
                    8usize,
                    layout::word(&head, 32)?,
                )
            }
            DictKeys::Log2 => {
                let index_bytes = 1u64.checked_shl(byte(9)?)?;
                // Kind 0 holds any keys, with their hashes; the others only strings.
                let (size, key_at) = if byte(10)? == 0 { (24, 8) } else { (16, 0) };
                (32, index_bytes, size, key_at, layout::word(&head, 24)?)
            }
        };
        if count > MOST_ENTRIES || entries > MOST_ENTRIES * 16 {
            return None;
        }
        let mut bytes = vec![0; usize::try_from(count).ok()? * size];
        let start = address.checked_add(indices)?.checked_add(entries)?;
        self.memory.read(start, &mut bytes).ok()?;
        Some(
            bytes
                .chunks_exact(size)
                .filter_map(|entry| {
                    Some((
                        layout::word(entry, key_at)?,
                        layout::word(entry, key_at + 8)?,
                    ))
                })
                .filter(|(key, _)| *key != 0)
                .collect(),
        )
    }

    /// An attribute in an instance's own dict.
    pub fn attribute(&self, instance: u64, name: &str) -> Option<u64> {
        let kind = self.word(instance, u64::from(self.offsets.object.kind))?;
        let before = |words: u64| self.memory.read_word(instance.checked_sub(words * 8)?).ok();
        let keys_of_type = || {
            let keys = self.word(kind, u64::from(self.offsets.dict.cached_keys))?;
            self.keys(keys)
        };
        let in_values = |start: u64| {
            let values = self.with_values(&keys_of_type()?, start)?;
            self.with_key(&values, name)
        };
        match self.offsets.dict.instance {
            InstanceDict::DictOffset => {
                let offset = self.field(kind, TP_DICTOFFSET)?;
                self.find(self.word(instance, offset)?, name)
            }
            InstanceDict::ValuesOrDict => match (before(4)?, before(3)?) {
                (0, dict) => self.find(dict, name),
                (values, _) => in_values(values),
            },
            InstanceDict::TaggedValues => match before(3)? {
                tagged if tagged & 1 == 1 => in_values(tagged.checked_add(1)?),
                dict => self.find(dict, name),
            },
            InstanceDict::InlineValues(dict) => {
                let size = self.field(kind, TP_BASICSIZE)?;
                let block = instance.checked_add(size)?;
                let valid = self.word(block, 0)?.to_ne_bytes();
                // capacity, size, embedded, valid.
                match (valid[3], before(u64::from(dict) / 8)?) {
                    (1, _) => in_values(block.checked_add(8)?),
                    (_, dict) => self.find(dict, name),
                }
            }
        }
    }

    /// An int object that is not negative and has up to 60 bits.
    pub fn int(&self, address: u64) -> Option<u64> {
        let mut bytes = [0; HEAD + object::INT_REST];
        let head = at(self.offsets.object.head);
        let bytes = bytes.get_mut(..head.checked_add(object::INT_REST)?)?;
        self.memory.read(address, bytes).ok()?;
        if !is_a(self.offsets, self.memory, bytes, object::IS_INT) {
            return None;
        }
        let rest = bytes.get(head..)?.try_into().ok()?;
        let value = object::small_int(rest, self.offsets.dict.ints())?;
        u64::try_from(value).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_missing_are_looked_up_soon_and_then_more_and_more_rarely() {
        let mut naming = Naming::default();
        assert_eq!(naming.wanted(false, 7), Some(Wanted::All));
        assert_eq!(naming.wanted(false, 5_000_000), None);
        let mut looks = |from: u64, to: u64| {
            let times = (from..to).step_by(1000);
            let looks: Vec<u64> = times
                .filter(|now| naming.wanted(true, *now) == Some(Wanted::Missing))
                .map(|now| now - from)
                .collect();
            naming.threads_came();
            looks
        };
        assert_eq!(
            looks(100_000, 3_000_000),
            [0, 100_000, 300_000, 700_000, 1_500_000, 2_500_000]
        );
        assert_eq!(looks(3_000_000, 3_120_000), [0, 100_000]);
        assert_eq!(naming.wanted(false, 10_000_007), Some(Wanted::All));
    }
}
