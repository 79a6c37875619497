//! From an image to a heap that can be walked: offsets, interpreters, the collector's lists, and proof that all of
//! that fits. What does not fit is an error that names it.

use rustc_hash::FxHashMap;

use super::Heap;
use super::decode::dict::{self, Keys};
use super::memory::{Memory, each_word};
use super::types::{self, field, flag};
use crate::error::{Error, ErrorKind, Result};
use crate::layout::debug_offsets::{self, Mismatch};
use crate::layout::heap::{
    self as layout, GC_HEAD, GENERATION_STRIDE, HeapOffsets, StaticTypes, fields,
};
use crate::layout::{GcOffsets, GcPlace};
use crate::layout::{Offsets, tables};
use crate::target::image::{Captured, Held};
use crate::target::runtime::Runtime;

/// Most interpreters of one process.
const INTERPRETERS: usize = 4096;
/// Objects of the collector's lists that are looked at for the checks.
const SAMPLE: usize = 60_000;
/// Most entries of an interpreter's static types, and bytes of its state that are searched for them.
const STATIC_TYPES: u64 = 512;
const STATE: u64 = 512 << 10;

/// Clears the marks that a collection leaves in the words of a list.
pub const LINK_MASK: u64 = !3;

impl<'a> Heap<'a> {
    /// Opens the heap in `captured`; fails for a Python that is not known, and when the layout does not fit.
    pub fn open(captured: &'a Captured) -> Result<Heap<'a>> {
        let (offsets, layout) = offsets_for(captured)?;
        let memory = Memory::new(&captured.image);
        let mut heap = Heap {
            captured,
            memory,
            offsets,
            layout,
            interpreters: Vec::new(),
            young: Vec::new(),
            permanent: Vec::new(),
            type_type: 0,
            subtype_dealloc: 0,
            subtype_traverse: 0,
            general_lookup: 0,
            static_dicts: Vec::new(),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
        };
        heap.interpreters = heap.find_interpreters()?;
        heap.find_lists()?;
        let sample = heap.sample();
        heap.type_type = heap
            .find_type_type(&sample)
            .ok_or_else(|| heap.misfit("no object on the collector's lists has a type"))?;
        heap.find_subtype_functions(&sample)?;
        heap.find_general_lookup()?;
        heap.check_sizes(&sample)?;
        heap.find_static_dicts();
        Ok(heap)
    }

    fn misfit(&self, why: impl Into<String>) -> Error {
        misfit(self.captured, why)
    }

    fn find_interpreters(&self) -> Result<Vec<u64>> {
        let runtime = self.captured.runtime.address;
        let head = runtime.wrapping_add(self.offsets.interpreters_head.into());
        let mut found = Vec::new();
        let mut next = self.memory.word(head).unwrap_or(0);
        while next != 0 && !found.contains(&next) && found.len() < INTERPRETERS {
            if self.memory.place(next).is_none() {
                break;
            }
            found.push(next);
            next = self
                .memory
                .word(next.wrapping_add(self.offsets.interpreter.next.into()))
                .unwrap_or(0);
        }
        if found.is_empty() {
            return Err(self.misfit("_PyRuntime.interpreters.head leads nowhere"));
        }
        Ok(found)
    }

    /// The heads of all lists, each of which must be part of a ring.
    fn find_lists(&mut self) -> Result<()> {
        let Runtime {
            version,
            head,
            address,
            ..
        } = &self.captured.runtime;
        let place = GcOffsets::of(version.minor, head)
            .ok_or_else(|| self.misfit("the collector's place is not known"))?
            .place;
        let gc = self.layout.gc;
        let collectors: Vec<u64> = match place {
            GcPlace::Runtime(offset) => vec![address.wrapping_add(offset.into())],
            GcPlace::Interpreter(offset) => {
                let each = self.interpreters.iter();
                each.map(|interpreter| interpreter.wrapping_add(offset.into()))
                    .collect()
            }
        };
        for (index, base) in collectors.iter().enumerate() {
            let young = (0..3).map(|index| gc.generations + index * GENERATION_STRIDE);
            let heads: Vec<u64> = young
                .chain([gc.permanent])
                .map(|at| base.wrapping_add(at.into()))
                .collect();
            if let Some(broken) = heads.iter().position(|head| !self.is_ring(*head)) {
                // An interpreter that is being made or taken down has none yet or no more.
                if index + 1 < collectors.len() {
                    continue;
                }
                let name = [
                    "generations[0]",
                    "generations[1]",
                    "generations[2]",
                    "permanent_generation",
                ];
                return Err(self.misfit(format!(
                    "the collector's list {} is no ring",
                    name.get(broken).unwrap_or(&"?")
                )));
            }
            self.young.extend(heads.iter().take(3));
            self.permanent.extend(heads.get(3));
        }
        Ok(())
    }

    /// Whether the neighbours of a list's head know it. In an image of a running process only the pointers are
    /// looked at: its lists change while they are copied.
    fn is_ring(&self, head: u64) -> bool {
        let Some(place) = self.memory.place(head) else {
            return false;
        };
        let (next, previous) = (
            place.word_or_0(0) & LINK_MASK,
            place.word_or_0(8) & LINK_MASK,
        );
        let word = |address: u64| self.memory.word(address).map(|word| word & LINK_MASK);
        let (back, forth) = (word(next.wrapping_add(8)), word(previous));
        match self.captured.held {
            Held::Running => back.is_some() && forth.is_some(),
            _ => back == Some(head) && forth == Some(head),
        }
    }

    /// Objects from both ends of the lists, oldest generation first.
    fn sample(&self) -> Vec<u64> {
        let mut found = Vec::new();
        for head in self.permanent.iter().chain(self.young.iter().rev()) {
            for end in [0, 8] {
                let mut link = *head;
                for _ in 0..SAMPLE / 8 {
                    let next = self.memory.word(link + end).unwrap_or(0) & LINK_MASK;
                    if next == *head || self.memory.place(next).is_none() {
                        break;
                    }
                    found.push(next + GC_HEAD);
                    link = next;
                }
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// `type`: the type of types, and its own.
    fn find_type_type(&self, sample: &[u64]) -> Option<u64> {
        let type_of = |object: u64| self.memory.word(object.wrapping_add(8));
        sample.iter().find_map(|object| {
            let mut at = type_of(*object)?;
            for _ in 0..8 {
                let next = type_of(at)?;
                if next == at {
                    let name = self.memory.word(at.wrapping_add(field::NAME.into()))?;
                    return (self.memory.c_string(name, 8)? == "type").then_some(at);
                }
                at = next;
            }
            None
        })
    }

    /// What most types made at run time have as `tp_dealloc`: the classes that a class statement makes.
    fn find_subtype_functions(&mut self, sample: &[u64]) -> Result<()> {
        let mut seen: FxHashMap<(u64, u64), u32> = FxHashMap::default();
        // Types of what is on the lists count too, should they not be on them themselves.
        let kinds = sample
            .iter()
            .filter_map(|object| self.memory.word(object.wrapping_add(8)));
        let mut objects: Vec<u64> = sample.iter().copied().chain(kinds).collect();
        objects.sort_unstable();
        objects.dedup();
        for object in &objects {
            let Some(place) = self.memory.place(*object) else {
                continue;
            };
            let meta = place.word_or_0(8);
            let Some(flags) = self.memory.word(meta.wrapping_add(field::FLAGS.into())) else {
                continue;
            };
            let traverse = place.word_or_0(field::TRAVERSE);
            if flags & flag::TYPE != 0
                && place.word_or_0(field::FLAGS) & flag::HEAP != 0
                && traverse != 0
            {
                *seen
                    .entry((place.word_or_0(field::DEALLOC), traverse))
                    .or_default() += 1;
            }
        }
        let most = seen.into_iter().max_by_key(|(_, count)| *count);
        let ((dealloc, traverse), _) =
            most.ok_or_else(|| self.misfit("no class is on the collector's lists"))?;
        self.subtype_dealloc = dealloc;
        self.subtype_traverse = traverse;
        Ok(())
    }

    /// The lookup function of a dict with keys that are not strings: `object.__subclasses__` has addresses for keys.
    fn find_general_lookup(&mut self) -> Result<()> {
        if self.offsets.dict.keys == crate::layout::DictKeys::Log2 {
            return Ok(());
        }
        let found = (|| {
            let object = self.memory.word(self.type_type + u64::from(field::BASE))?;
            let subclasses = self.memory.word(object + u64::from(field::SUBCLASSES))?;
            let place = self.memory.place(subclasses)?;
            let keys_at = place.word(dict::KEYS)?;
            let lookup = self.memory.word(keys_at.checked_add(16)?)?;
            let keys = Keys::read(self, keys_at)?;
            let mut is_int = false;
            keys.each(self, 0, |key, _| {
                let kind = self.memory.word(key.wrapping_add(8)).unwrap_or(0);
                let flags = self
                    .memory
                    .word(kind.wrapping_add(field::FLAGS.into()))
                    .unwrap_or(0);
                is_int = flags & flag::LONG != 0;
                !is_int
            });
            is_int.then_some(lookup)
        })();
        self.general_lookup = found
            .ok_or_else(|| self.misfit("object.__subclasses__ is no dict with ints for keys"))?;
        Ok(())
    }

    /// Types that every program has must be as big as the table says.
    fn check_sizes(&self, sample: &[u64]) -> Result<()> {
        let mut seen: FxHashMap<u64, ()> = FxHashMap::default();
        let mut types: Vec<u64> = vec![self.type_type];
        let mut add = |address: u64| {
            if seen.insert(address, ()).is_none() {
                types.push(address);
            }
        };
        let type_of = |object: u64| self.memory.word(object.wrapping_add(8));
        for object in sample {
            let Some(kind) = type_of(*object) else {
                continue;
            };
            add(kind);
        }
        let mut checked = 0;
        for address in types {
            let Some(info) = types::resolve(self, address).filter(|info| !info.is_heap()) else {
                continue;
            };
            let known = self
                .layout
                .known_sizes
                .iter()
                .find(|(name, _)| *name == info.tp_name);
            if let Some((name, expected)) = known {
                if info.basic != *expected {
                    return Err(self.misfit(format!(
                        "tp_basicsize of {name} is {}, {expected} expected",
                        info.basic
                    )));
                }
                checked += 1;
            }
        }
        if checked < 8 {
            return Err(self.misfit("the types of the interpreter were not found"));
        }
        self.check_function(sample)
    }

    /// The fields of a function lead to a code object and a string.
    fn check_function(&self, sample: &[u64]) -> Result<()> {
        let name_of = |object: u64| {
            let kind = self.memory.word(object.wrapping_add(8))?;
            self.memory
                .c_string(self.memory.word(kind.wrapping_add(field::NAME.into()))?, 32)
        };
        let Some(fields) = fields::of(self.layout.minor, "function") else {
            return Ok(());
        };
        let function = sample
            .iter()
            .find(|object| name_of(**object).as_deref() == Some("function"));
        let Some(function) = function else {
            return Ok(());
        };
        for (field, expected) in [
            ("__code__", "code"),
            ("__name__", "str"),
            ("__globals__", "dict"),
        ] {
            let offset = fields
                .iter()
                .find(|(name, _)| *name == field)
                .map_or(0, |(_, offset)| *offset);
            let target = self.memory.word(function.wrapping_add(offset.into()));
            if target.and_then(name_of).as_deref() != Some(expected) {
                return Err(self.misfit(format!("{field} of a function is no {expected}")));
            }
        }
        Ok(())
    }

    /// Dicts of static types, which each interpreter has for itself (3.12 and newer). The table is looked for by
    /// its contents when it is not where it was in the release that the layout was taken from.
    fn find_static_dicts(&mut self) {
        let Some(place) = self.layout.static_types else {
            return;
        };
        let mut found = Vec::new();
        for interpreter in &self.interpreters {
            let Some(start) = self.static_table(*interpreter, place) else {
                continue;
            };
            for index in 0..STATIC_TYPES {
                let entry = start + index * u64::from(place.stride);
                let Some(kind) = self.memory.word(entry) else {
                    break;
                };
                let dict = self.memory.word(entry + u64::from(place.dict)).unwrap_or(0);
                let is_type = self.memory.word(kind.wrapping_add(8)) == Some(self.type_type);
                if kind == 0 || !is_type {
                    break;
                }
                if dict != 0 {
                    found.push((kind, dict));
                }
            }
        }
        self.static_dicts = found;
    }

    fn static_table(&self, interpreter: u64, place: StaticTypes) -> Option<u64> {
        // A static type knows its place in the table, counted from 1.
        let index = self
            .memory
            .word(self.type_type + u64::from(field::SUBCLASSES))?;
        let index = index.checked_sub(1).filter(|index| *index < STATIC_TYPES)?;
        let stride = u64::from(place.stride);
        let fits = |start: u64| {
            self.memory.word(start + index * stride) == Some(self.type_type)
                && (0..8).all(|index| {
                    let kind = self.memory.word(start + index * stride).unwrap_or(0);
                    self.memory.word(kind.wrapping_add(8)) == Some(self.type_type)
                })
        };
        let expected = interpreter + u64::from(place.entries);
        if fits(expected) {
            return Some(expected);
        }
        let room = self.memory.place(interpreter)?.room().min(STATE) / 8;
        let words = self.memory.words(interpreter, room)?;
        each_word(words).enumerate().find_map(|(at, word)| {
            let start = (interpreter + at as u64 * 8).checked_sub(index * stride)?;
            (word == self.type_type && fits(start)).then_some(start)
        })
    }
}

fn misfit(captured: &Captured, why: impl Into<String>) -> Error {
    let python = &captured.runtime.version;
    let of = match captured.pid {
        Some(pid) => format!("cannot read the heap of process {pid}"),
        None => "cannot read the heap".to_string(),
    };
    Error::new(
        ErrorKind::UnsupportedPython,
        of,
        format!(
            "its Python {python} differs from what is known of it: {}",
            why.into()
        ),
    )
}

/// The offsets for the Python in `captured`; fails for one that is not known, for free-threaded builds, and when the
/// interpreter's own block of offsets says something else.
fn offsets_for(captured: &Captured) -> Result<(Offsets, HeapOffsets)> {
    let Runtime { version, head, .. } = &captured.runtime;
    let of = match captured.pid {
        Some(pid) => format!("cannot read the heap of process {pid}"),
        None => "cannot read the heap".to_string(),
    };
    let refused = |why: String| Error::new(ErrorKind::UnsupportedPython, of.clone(), why);
    if version.free_threaded || debug_offsets::is_free_threaded(head) {
        return Err(refused(format!(
            "Python {version} is a free-threaded build, whose heap has no lists of objects"
        )));
    }
    let known = tables::for_version(version.major, version.minor)
        .zip(layout::for_version(version.major, version.minor));
    let Some((offsets, layout)) = known else {
        let (first, last) = (tables::MINORS.start(), tables::MINORS.end());
        return Err(refused(format!(
            "heaps of Python {version} are not known (3.{first} to 3.{last} are)"
        )));
    };
    let wrong = |mismatch| {
        let why = match mismatch {
            Mismatch::NoCookie => "its block of offsets is missing".to_string(),
            Mismatch::FreeThreaded => "it is a free-threaded build".to_string(),
            Mismatch::UnknownVersion => "its block of offsets is not known".to_string(),
            Mismatch::Field(name) => format!("{name} is elsewhere"),
        };
        misfit(captured, why)
    };
    let offsets = if layout.debug_sysdict.is_some() {
        debug_offsets::apply(head, version.minor, offsets).map_err(wrong)?
    } else {
        offsets
    };
    let layout = layout::checked(head, layout).map_err(wrong)?;
    Ok((offsets, layout))
}
