//! From an image to a heap that can be walked: offsets, interpreters, the collector's lists, and proof that all of
//! that fits. What does not fit is an error that names it.

use log::debug;
use rustc_hash::FxHashMap;

use super::candidates::{self, Candidates};
use super::census::Doubts;
use super::decode::dict::{self, Keys};
use super::memory::{Memory, each_word};
use super::types::{self, field, flag};
use super::{Heap, StaticState};
use crate::error::{Error, ErrorKind, Result};
use crate::layout::debug_offsets::{self, Mismatch};
use crate::layout::heap::held;
use crate::layout::heap::{self as layout, GENERATION_STRIDE, HeapOffsets, StaticTypes, fields};
use crate::layout::{GcOffsets, GcPlace};
use crate::layout::{Offsets, tables};
use crate::target::image::{Captured, Held};
use crate::target::memory::core::WHOLE_CORE;
use crate::target::runtime::Runtime;

/// Most interpreters of one process.
const INTERPRETERS: usize = 4096;
/// Of a collector's four lists, how many may have lost their neighbours.
const MOST_BROKEN: usize = 1;
/// Types whose sizes are known that have to be there, and at least so many right ones for each wrong one: where the
/// table is not that of this Python, about as many are wrong as right.
const LEAST_TYPES: u64 = 8;
const MOST_WRONG: u64 = 10;
/// Functions that are checked.
const FUNCTIONS: usize = 64;
/// Most entries of an interpreter's static types, and bytes of its state that are searched for them.
const STATIC_TYPES: u64 = 512;
const STATE: u64 = 512 << 10;
/// Keys that tell the dict of interned strings, and words around its expected place that are looked at.
const INTERNED: usize = 64;
const NEAR: u64 = 512;

/// No function's address.
const NOWHERE: u64 = 1;

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
            static_states: Vec::new(),
            interned: Vec::new(),
            doubts: Doubts {
                missing: captured.missing(),
                ..Doubts::default()
            },
            threads: std::thread::available_parallelism().map_or(1, usize::from),
        };
        heap.interpreters = heap.find_interpreters()?;
        heap.find_lists()?;
        let Candidates { mut objects, lost } = candidates::find(&heap);
        heap.type_type = heap
            .find_type_type(&objects)
            .or_else(|| captured.dead.as_ref()?.type_type)
            .ok_or_else(|| heap.misfit("no object that was found has a type"))?;
        if heap.is_cut() {
            candidates::add_fragments(&heap, &mut objects);
        }
        heap.find_subtype_functions(&objects)?;
        heap.find_general_lookup(&objects)?;
        heap.doubts.torn += heap.check_sizes(&objects)?;
        heap.doubts.unreadable += lost;
        heap.find_static_states();
        heap.interned = heap.find_interned();
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
        if found.is_empty() && self.is_cut() {
            return Ok(self.interpreters_by_threads());
        }
        if found.is_empty() {
            return Err(self.misfit("_PyRuntime.interpreters.head leads nowhere"));
        }
        Ok(found)
    }

    /// Interpreters whose list is missing: each is what its first thread is of. None where they are part of `_PyRuntime`
    /// (3.11 and newer), which is missing too.
    fn interpreters_by_threads(&self) -> Vec<u64> {
        let (threads, interp) = (
            self.offsets.interpreter.threads_head,
            self.offsets.thread.interp,
        );
        let mut found = Vec::new();
        for span in self.captured.image.spans() {
            for (index, word) in each_word(span.bytes()).enumerate() {
                let at = span.start() + index as u64 * 8;
                let Some(interpreter) = at.checked_sub(threads.into()) else {
                    continue;
                };
                let of_thread = self.memory.word(word.wrapping_add(interp.into()));
                let is_it = word != 0
                    && interpreter.is_multiple_of(16)
                    && of_thread == Some(interpreter)
                    && self.has_modules(interpreter);
                if is_it && found.len() < INTERPRETERS {
                    found.push(interpreter);
                }
            }
        }
        found
    }

    /// Whether what would be an interpreter's `modules` is a dict, as far as its keys show.
    fn has_modules(&self, interpreter: u64) -> bool {
        let at = interpreter.wrapping_add(self.offsets.interpreter.modules.into());
        let place = self
            .memory
            .word(at)
            .and_then(|dict| self.memory.place(dict));
        let keys = place.and_then(|place| Keys::read(self, place.word(dict::KEYS)?));
        keys.is_some_and(|keys| keys.count > 0)
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
            let mut broken = heads.iter().map(|head| !self.is_ring(*head));
            let (first, count) = (
                broken.clone().position(|broken| broken),
                broken.by_ref().filter(|broken| *broken).count(),
            );
            // Of a heap that is damaged one or the other may be; in a place that is wrong all are.
            if let Some(first) = first.filter(|_| count > MOST_BROKEN) {
                if self.is_cut() {
                    continue;
                }
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
                    name.get(first).unwrap_or(&"?")
                )));
            }
            self.young.extend(heads.iter().take(3));
            self.permanent.extend(heads.get(3));
        }
        Ok(())
    }

    /// Whether a neighbour of a list's head knows it; both do, but for damage. In an image of a running process only the pointers are
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
            _ => back == Some(head) || forth == Some(head),
        }
    }

    /// `type`: what most types of objects have for a type, its own type, and called so; one of the two may be damaged.
    fn find_type_type(&self, objects: &[u64]) -> Option<u64> {
        let type_of = |object: u64| self.memory.word(object.wrapping_add(8));
        let metas = objects
            .iter()
            .filter_map(|object| type_of(type_of(*object)?));
        let is_type = |meta: &u64| {
            let name = self.memory.word(meta.wrapping_add(field::NAME.into()));
            let name = name.and_then(|name| self.memory.c_string(name, 8));
            type_of(*meta) == Some(*meta) || name.as_deref() == Some("type")
        };
        by_count(metas).into_iter().find(is_type)
    }

    /// What most types made at run time have as `tp_dealloc`: the classes that a class statement makes.
    fn find_subtype_functions(&mut self, objects: &[u64]) -> Result<()> {
        let functions = objects.iter().filter_map(|object| {
            let place = self.memory.place(*object)?;
            let flags = self
                .memory
                .word(place.word(8)?.wrapping_add(field::FLAGS.into()))?;
            let (dealloc, traverse) = (place.word(field::DEALLOC)?, place.word(field::TRAVERSE)?);
            let is_class = flags & flag::TYPE != 0
                && place.word_or_0(field::FLAGS) & flag::HEAP != 0
                && traverse != 0;
            is_class.then_some((dealloc, traverse))
        });
        let mut most = by_count(functions).into_iter();
        let (dealloc, traverse) = match most.next() {
            Some(found) => found,
            // Then there are no instances either.
            None if self.is_cut() => (NOWHERE, NOWHERE),
            None => return Err(self.misfit("no class was found")),
        };
        self.subtype_dealloc = dealloc;
        self.subtype_traverse = traverse;
        Ok(())
    }

    /// The lookup function of a dict with keys that are not strings: `__subclasses__` of a type has addresses for keys.
    fn find_general_lookup(&mut self, objects: &[u64]) -> Result<()> {
        if self.offsets.dict.keys == crate::layout::DictKeys::Log2 {
            return Ok(());
        }
        let lookups = objects
            .iter()
            .filter_map(|object| self.lookup_of_subclasses(*object));
        let found = by_count(lookups).into_iter().next();
        self.general_lookup = match found {
            Some(found) => found,
            // Which dicts have other keys shows in nothing that is told of it.
            None if self.is_cut() => 0,
            None => {
                return Err(self.misfit("__subclasses__ of no type is a dict with ints for keys"));
            }
        };
        Ok(())
    }

    /// The lookup function of a type's `__subclasses__`; `None` for what is no type, or has none.
    fn lookup_of_subclasses(&self, object: u64) -> Option<u64> {
        let place = self.memory.place(object)?;
        if place.word(8)? != self.type_type {
            return None;
        }
        let subclasses = self.memory.place(place.word(field::SUBCLASSES)?)?;
        let keys_at = subclasses.word(dict::KEYS)?;
        let lookup = self.memory.word(keys_at.checked_add(16)?)?;
        let keys = Keys::read(self, keys_at)?;
        let mut is_int = false;
        keys.each(self, 0, |key, _| {
            let kind = self.memory.word(key.wrapping_add(8)).unwrap_or(0);
            let flags = self.memory.word(kind.wrapping_add(field::FLAGS.into()));
            is_int = flags.is_some_and(|flags| flags & flag::LONG != 0);
            // A key that is gone leaves a hole.
            key == 0
        })?;
        is_int.then_some(lookup)
    }

    /// Types that every program has must be as big as the table says, but for a few that are damaged; how many those
    /// are.
    fn check_sizes(&self, objects: &[u64]) -> Result<u64> {
        let mut types: Vec<u64> = objects
            .iter()
            .filter_map(|object| self.memory.word(object.wrapping_add(8)))
            .chain([self.type_type])
            .collect();
        types.sort_unstable();
        types.dedup();
        let (mut checked, mut wrong) = (0, Vec::new());
        for address in types {
            let Some(info) = types::resolve(self, address).filter(|info| !info.is_heap()) else {
                continue;
            };
            let mut known = self.layout.known_sizes.iter();
            let Some((name, expected)) = known.find(|(name, _)| *name == info.tp_name) else {
                continue;
            };
            if info.basic == *expected {
                checked += 1;
            } else {
                wrong.push(format!(
                    "tp_basicsize of {name} is {}, {expected} expected",
                    info.basic
                ));
            }
        }
        let lost = wrong.len() as u64;
        debug!("layout: {checked} types have the size that is expected");
        for why in &wrong {
            debug!("layout: {why}");
        }
        if let Some(first) = wrong.into_iter().next()
            && lost * MOST_WRONG > checked
        {
            return Err(self.misfit(first));
        }
        // Where types are missing, they are known by their symbols, and so is the version.
        if checked < LEAST_TYPES && !self.is_cut() {
            return Err(self.misfit("the types of the interpreter were not found"));
        }
        self.check_functions(objects)?;
        Ok(lost)
    }

    /// The fields of functions lead to a code object, a string and a dict; most of them, as some may be damaged.
    fn check_functions(&self, objects: &[u64]) -> Result<()> {
        let name_of = |object: u64| {
            let kind = self.memory.word(object.wrapping_add(8))?;
            self.memory
                .c_string(self.memory.word(kind.wrapping_add(field::NAME.into()))?, 32)
        };
        let Some(fields) = fields::of(self.layout.minor, "function") else {
            return Ok(());
        };
        let functions: Vec<u64> = objects
            .iter()
            .copied()
            .filter(|object| name_of(*object).as_deref() == Some("function"))
            .take(FUNCTIONS)
            .collect();
        for (field, expected) in [
            ("__code__", "code"),
            ("__name__", "str"),
            ("__globals__", "dict"),
        ] {
            let mut fields = fields.iter();
            let offset = fields.find(|(name, _)| *name == field);
            let offset = offset.map_or(0, |(_, offset)| *offset);
            let fits = |function: &&u64| {
                let target = self.memory.word(function.wrapping_add(offset.into()));
                target.and_then(name_of).as_deref() == Some(expected)
            };
            // What was cut off says nothing.
            let is_there = |function: &&u64| {
                let target = self.memory.word(function.wrapping_add(offset.into()));
                !self.is_cut() || target.and_then(name_of).is_some()
            };
            let told = functions.iter().filter(is_there).count();
            if functions.iter().filter(fits).count() * 2 < told {
                return Err(self.misfit(format!("{field} of a function is no {expected}")));
            }
        }
        Ok(())
    }

    /// Dicts and subclasses of static types, which each interpreter has for itself (3.12 and newer). The table is looked
    /// for by its contents when it is not where it was in the release that the layout was taken from.
    fn find_static_states(&mut self) {
        let Some(place) = self.layout.static_types else {
            return;
        };
        let mut found = Vec::new();
        for interpreter in &self.interpreters {
            let Some(start) = self.static_table(*interpreter, place) else {
                continue;
            };
            self.static_entries(start, place, STATIC_TYPES, &mut found);
            if let Some(entries) = place.builtins {
                let behind = u64::from(entries) * u64::from(place.stride);
                let first = start.wrapping_add(behind + StaticTypes::EXTENSIONS);
                self.static_entries(first, place, StaticTypes::MOST_EXTENSIONS, &mut found);
            }
        }
        self.static_states = found;
    }

    /// Dicts of interned strings: known by their keys, which are strings and their own values.
    fn find_interned(&self) -> Vec<(u64, u64)> {
        let Some(offset) = held::of(self.layout.minor).and_then(|held| held.interned) else {
            return Vec::new();
        };
        let mut kinds = types::Types::default();
        let mut is_named = |address: u64, name: &str| {
            let kind = self.memory.word(address.wrapping_add(8));
            kind.and_then(|kind| kinds.resolved(self, kind))
                .is_some_and(|kind| kind.tp_name == name)
        };
        let mut fits = |dict: u64| {
            if !is_named(dict, "dict") {
                return false;
            }
            let Some(place) = self.memory.place(dict) else {
                return false;
            };
            let Some(keys) = place.word(32).and_then(|keys| Keys::read(self, keys)) else {
                return false;
            };
            let (mut same, mut left) = (0, INTERNED);
            let read = keys.each(self, place.word_or_0(40), |key, value| {
                if value != 0 && (key != value || !is_named(key, "str")) {
                    return false;
                }
                same += usize::from(value != 0);
                left -= 1;
                left > 0
            });
            read.is_some() && left == 0 && same > 0
        };
        let mut found = Vec::new();
        for interpreter in &self.interpreters {
            let mut near = (0..=NEAR).flat_map(|step| {
                let place = interpreter.wrapping_add(offset.into());
                [place.wrapping_add(step * 8), place.wrapping_sub(step * 8)]
            });
            let dict = near.find_map(|at| self.memory.word(at).filter(|dict| fits(*dict)));
            found.extend(dict.map(|dict| (*interpreter, dict)));
        }
        found
    }

    fn static_entries(
        &self,
        start: u64,
        place: StaticTypes,
        most: u64,
        found: &mut Vec<StaticState>,
    ) {
        for index in 0..most {
            let entry = start.wrapping_add(index * u64::from(place.stride));
            let Some(kind) = self.memory.word(entry) else {
                break;
            };
            let is_type = self.memory.word(kind.wrapping_add(8)) == Some(self.type_type);
            if kind == 0 || !is_type {
                break;
            }
            let get = |offset: u32| {
                let at = entry.wrapping_add(offset.into());
                self.memory.word(at).unwrap_or(0)
            };
            found.push(StaticState {
                kind,
                dict: get(place.dict),
                subclasses: get(place.dict + 8),
            });
        }
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

/// Each once, what stands there most often first.
fn by_count<T: Ord + Copy + std::hash::Hash>(all: impl Iterator<Item = T>) -> Vec<T> {
    let mut seen: FxHashMap<T, u32> = FxHashMap::default();
    for one in all {
        *seen.entry(one).or_default() += 1;
    }
    let mut order: Vec<(T, u32)> = seen.into_iter().collect();
    order.sort_unstable_by_key(|(one, count)| (std::cmp::Reverse(*count), *one));
    order.into_iter().map(|(one, _)| one).collect()
}

fn misfit(captured: &Captured, why: impl Into<String>) -> Error {
    let python = &captured.runtime.version;
    let of = match captured.pid {
        Some(pid) => format!("cannot read the heap of process {pid}"),
        None => "cannot read the heap".to_string(),
    };
    // What is missing explains it sooner than a Python that is not as it should be.
    if let Some(caveat) = captured.dead.as_ref().and_then(|dead| dead.caveats.last()) {
        let why = format!("{}; {caveat}", why.into());
        let error = Error::new(ErrorKind::NotAvailable, of, why);
        return match captured.is_cut() {
            true => error.hint(WHOLE_CORE),
            false => error,
        };
    }
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
