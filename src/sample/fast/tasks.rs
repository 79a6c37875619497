//! asyncio's tasks: the list of them, and the stack of each along what it awaits.
//!
//! Coroutines change only while they run, so suspended tasks are looked at again only as often as a small share of
//! the time allows; which task a thread runs is told from the thread's own stack in every sample. One look reads
//! all that the look before it has read in one go, and the rest piece by piece. What it shows was there at one instant: the
//! thread that can run Python stood still, as in every sample, or a second reading found the same.

use std::ops::Range;

use rustc_hash::{FxHashMap, FxHashSet};

use super::FastReader;
use super::awaits::{Awaits, State};
use super::codes::read_text;
use super::compose::{self, Family, MOST_PARENTS};
use super::names::Dicts;
use crate::layout::asyncio::{self, AsyncioDebug, TaskList};
use crate::layout::{self, CoroutineOffsets, object};
use crate::profile::{FrameId, FunctionKind, Tables};
use crate::sample::tasks::{MOST_TASKS, TaskStacks};
use crate::sample::{Fault, FrameSample, ThreadStacks};
use crate::target::memory::Memory;
use crate::target::{cpu, runtime};

/// One part in this many of the time goes into looking at suspended tasks.
const SHARE: u64 = 33;

/// It takes a part of this of the time, and less of it the longer it is not there.
const PLACE_SHARE: u64 = 8;

/// The shortest and the longest time until the place of the lists is looked for again: `asyncio` may not be imported yet.
const PLACE_US: (u64, u64) = (2_000, 250_000);

/// Bytes of a task that are read where its size is not known, and most that are read.
const TASK_BYTES: usize = 192;
const MOST_TASK_BYTES: usize = 512;

/// Most slots of a set that are read.
const MOST_SLOTS: u64 = 1 << 20;

/// Most names of tasks that are told apart.
const MOST_NAMES: usize = 10_000;

/// From the link to the next task of a ring to that to the one before (Include/internal/pycore_llist.h).
const LINK_BACK: u64 = 8;

/// After so many tasks in a row that a ring had at the last look, no new ones are expected.
const OLD_IN_A_ROW: usize = 64;

/// With more tasks than that, a look at which most of them are new is made twice: each takes 20 us.
const MANY_NEW: usize = 50;

/// Looks in a row until no chain consists of parts that may not have been there together.
const LOOKS: usize = 2;

/// Copies in a row until the program stood still while one was made: it goes on where it has got another CPU.
const COPIES: usize = 3;

/// Readings of a task in a row until it did not change meanwhile. One that always does is shown as at the look before.
/// After so many of those in one look, others are read once: each reading may take 20 us.
const READINGS: usize = 4;
const MOST_CHANGING: usize = 100;

/// Whether the copy of what the last look read has a task too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Age {
    Old,
    New,
}

/// A look at all tasks.
struct Look<'a> {
    place: &'a Place,
    now_us: u64,
    /// How often we had been interrupted before it.
    pauses: u64,
    /// Tasks that changed whenever they were read.
    changing: FxHashSet<u64>,
    found: Vec<Found>,
    /// All tasks so far.
    met: FxHashSet<u64>,
    /// Tasks that are in the copy.
    later: Vec<u64>,
    /// How many are not.
    new: usize,
}

/// Where the tasks are.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Place {
    Rings(AsyncioDebug),
    /// Set objects: of weak references, and of tasks.
    Sets {
        weak: Vec<u64>,
        plain: Vec<u64>,
        /// Dicts from loops to the tasks that they run.
        current: Vec<u64>,
    },
}

/// What one look found of a task.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) address: u64,
    name: u64,
    coro: u64,
    /// What waits for it, as far as the task itself knows; tasks or other futures.
    pub(super) awaited_by: Vec<u64>,
    /// The future that it waits for.
    pub(super) awaits: u64,
    pub(super) state: State,
    pub(super) frames: Vec<FrameSample>,
    /// What was read for it, by position.
    pieces: Range<usize>,
    /// Its turn among those that were read later than the copy was made; 0 for all that were in it.
    pub(super) turn: usize,
    /// Whether it is known to have stayed as it was read until the end of the look.
    pub(super) stayed: bool,
}

impl Found {
    /// The object that it has for its name.
    pub(super) fn name(&self) -> u64 {
        self.name
    }
}

/// The name of a task.
#[derive(Debug, Clone)]
pub(super) struct Name {
    object: u64,
    coro: u64,
    text: String,
    root: FrameId,
}

/// What is known of the tasks of one process.
#[derive(Debug)]
pub struct Tasks {
    offsets: CoroutineOffsets,
    pub(super) place: Option<Place>,
    /// When it is looked for next.
    place_us: u64,
    next_us: u64,
    /// Whether they were looked at since the process is at rest: they are what they were.
    at_rest: bool,
    /// Where in a task its coroutine is, where nothing tells.
    coro: Option<usize>,
    pub(super) awaits: Awaits,
    /// The same for tasks that are found running.
    pub(super) live: Awaits,
    /// Places of the tasks that ran during the last look and were not seen to wait since.
    pub(super) ran_in_look: Vec<usize>,
    /// Number of frames and innermost frame of each thread when it was last looked at for a task that runs.
    pub(super) looked: Vec<(usize, Option<FrameSample>)>,
    pub(super) names: FxHashMap<u64, Name>,
    /// Names told apart so far.
    roots: usize,
    /// By the address of a task's outermost frame: its place among the tasks.
    pub(super) by_frame: FxHashMap<u64, usize>,
    /// Counts changes of stacks.
    version: u64,
    /// Counts tasks.
    ids: u64,
}

impl Tasks {
    /// Nothing known yet.
    pub fn new(offsets: CoroutineOffsets) -> Tasks {
        Tasks {
            offsets,
            place: None,
            place_us: 0,
            next_us: 0,
            at_rest: false,
            coro: None,
            awaits: Awaits::default(),
            live: Awaits::default(),
            ran_in_look: Vec::new(),
            looked: Vec::new(),
            ids: 0,
            names: FxHashMap::default(),
            roots: 0,
            by_frame: FxHashMap::default(),
            version: 0,
        }
    }

    /// The first frame of a task: `<task NAME>`.
    pub(super) fn name<M: Memory>(
        &mut self,
        reader: &FastReader<M>,
        found: &Found,
        tables: &mut Tables,
    ) {
        let known = self.names.get(&found.address);
        if known.is_some_and(|name| name.object == found.name && name.coro == found.coro) {
            return;
        }
        let text = reader.task_name(found.name);
        if known.is_some_and(|name| name.text == text) {
            let known = self.names.get_mut(&found.address);
            if let Some(name) = known {
                (name.object, name.coro) = (found.name, found.coro);
            }
            return;
        }
        self.roots += 1;
        let shown = if self.roots > MOST_NAMES {
            "<task, one of many>".to_string()
        } else {
            format!("<task {text}>")
        };
        let function = tables.function("~", 0, &shown, FunctionKind::Builtin);
        let name = Name {
            object: found.name,
            coro: found.coro,
            text,
            root: tables.frame(function, 0),
        };
        self.names.insert(found.address, name);
    }

    /// The name of a task that was named.
    pub(super) fn text_of(&self, address: u64) -> String {
        let name = self.names.get(&address);
        name.map_or_else(String::new, |name| name.text.clone())
    }

    /// A number for a task that was not there before, and one for a stack that was not.
    pub(super) fn next(&mut self) -> (u64, u64) {
        self.ids += 1;
        self.version += 1;
        (self.ids, self.version)
    }

    pub(super) fn root_of(&self, address: u64) -> Option<FrameSample> {
        self.names.get(&address).map(|name| FrameSample {
            frame: name.root,
            invocation: address,
            instruction: 0,
            code: 0,
            from_c: true,
        })
    }
}

impl<M: Memory> FastReader<M> {
    /// Looks at the tasks when it is time, and finds out which thread runs which.
    pub(super) fn look_at_tasks(
        &mut self,
        tables: &mut Tables,
        threads: &ThreadStacks,
        stacks: &mut TaskStacks,
        at_rest: bool,
    ) -> Result<(), Fault> {
        let Some(mut tasks) = self.tasks.take() else {
            return Ok(());
        };
        let start_us = self.epoch.elapsed().as_micros() as u64;
        let mut outcome = Ok(());
        tasks.at_rest &= at_rest;
        if start_us >= tasks.next_us && !tasks.at_rest {
            let mut begin_us = start_us;
            outcome = self.scan(&mut tasks, tables, threads, stacks, &mut begin_us);
            tasks.at_rest = at_rest && outcome.is_ok() && tasks.place.is_some();
            let end_us = self.epoch.elapsed().as_micros() as u64;
            let took_us = end_us.saturating_sub(begin_us);
            tasks.next_us = end_us.saturating_add(took_us.saturating_mul(SHARE));
        }
        self.find_running(&mut tasks, tables, threads, stacks, start_us);
        self.tasks = Some(tasks);
        // A list that changed while it was read is read again later; what was known is good meanwhile.
        match outcome {
            Err(Fault::Torn) => Ok(()),
            outcome => outcome,
        }
    }

    fn scan(
        &mut self,
        tasks: &mut Tasks,
        tables: &mut Tables,
        threads: &ThreadStacks,
        stacks: &mut TaskStacks,
        begin_us: &mut u64,
    ) -> Result<(), Fault> {
        let now_us = *begin_us;
        if tasks.place.is_none() {
            if now_us < tasks.place_us {
                return Ok(());
            }
            tasks.place = self.find_tasks(tasks.offsets);
            // Done once, or seldom: the looks need not make up for it by coming later.
            *begin_us = self.epoch.elapsed().as_micros() as u64;
            let took_us = begin_us.saturating_sub(now_us);
            // Most programs that import it do so when they start.
            let pause_us = took_us
                .saturating_mul(PLACE_SHARE)
                .max(now_us / PLACE_SHARE);
            let pause_us = pause_us.clamp(PLACE_US.0, PLACE_US.1);
            tasks.place_us = begin_us.saturating_add(pause_us);
        }
        let Some(place) = tasks.place.clone() else {
            return Ok(());
        };
        let is_first = tasks.ids == 0;
        let mut look = self.gather(tasks, tables, &place, threads, now_us)?;
        for _ in 1..LOOKS {
            // Where most of it was read piece by piece, what lives for milliseconds was gone before its turn came.
            let many_new = look.new > MANY_NEW && look.new * 2 > look.met.len();
            if !many_new {
                self.see_who_stayed(tasks, &mut look, threads)?;
                if Family::new(&look.found).is_whole_everywhere() {
                    break;
                }
            }
            // Now it can be copied in one go.
            if is_first {
                *begin_us = self.epoch.elapsed().as_micros() as u64;
            }
            look = self.gather(tasks, tables, &place, threads, now_us)?;
        }
        self.see_who_stayed(tasks, &mut look, threads)?;
        stacks.cut |= look.met.len() > MOST_TASKS;
        stacks.looked += look.met.len() as u64;
        compose::compose(tasks, &look.found, &mut look.changing, stacks);
        stacks.changing += look.changing.len() as u64;
        Ok(())
    }

    /// Finds out which of the tasks near those that were read late are still as they were read: only then they were there
    /// together.
    fn see_who_stayed(
        &mut self,
        tasks: &Tasks,
        look: &mut Look<'_>,
        threads: &ThreadStacks,
    ) -> Result<(), Fault> {
        if look.found.iter().all(|found| found.turn == 0) {
            return Ok(());
        }
        if look.pauses == cpu::pauses() && self.stands_still(threads)? {
            look.found.iter_mut().for_each(|found| found.turn = 0);
            return Ok(());
        }
        for at in Family::new(&look.found).near_late() {
            if let Some(found) = look.found.get_mut(at) {
                found.stayed = tasks.awaits.are_same(&self.memory, found.pieces.clone());
            }
        }
        Ok(())
    }

    /// Reads all tasks.
    fn gather<'a>(
        &mut self,
        tasks: &mut Tasks,
        tables: &mut Tables,
        place: &'a Place,
        threads: &ThreadStacks,
        now_us: u64,
    ) -> Result<Look<'a>, Fault> {
        self.follow_holder(threads);
        let mut pauses = cpu::pauses();
        tasks.awaits.begin(&self.memory)?;
        let mut is_one_instant = pauses == cpu::pauses() && self.stands_still(threads)?;
        for _ in 1..COPIES {
            if is_one_instant {
                break;
            }
            self.follow_holder(threads);
            pauses = cpu::pauses();
            tasks.awaits.copy(&self.memory)?;
            is_one_instant = pauses == cpu::pauses() && self.stands_still(threads)?;
        }
        if !is_one_instant {
            tasks.awaits.copy_again(&self.memory)?;
        }
        let mut look = Look {
            place,
            now_us,
            pauses,
            changing: FxHashSet::default(),
            found: Vec::new(),
            later: Vec::new(),
            met: FxHashSet::default(),
            new: 0,
        };
        match place {
            Place::Rings(debug) => self.rings(tasks, tables, debug, &mut look)?,
            Place::Sets { weak, plain, .. } => {
                for set in weak {
                    for reference in self.members(&mut tasks.awaits, *set)? {
                        let target = reference.saturating_add(asyncio::WEAK_OBJECT);
                        if let Some(task) = tasks.awaits.word(&self.memory, target) {
                            self.meet(tasks, tables, &mut look, task);
                        }
                    }
                }
                for set in plain {
                    for task in self.members(&mut tasks.awaits, *set)? {
                        self.meet(tasks, tables, &mut look, task);
                    }
                }
            }
        }
        // Those that are shown already stay.
        let mut later = std::mem::take(&mut look.later);
        later.truncate(MOST_TASKS);
        look.found.truncate(MOST_TASKS - later.len());
        for address in later {
            self.take_task(tasks, tables, &mut look, address);
        }
        Ok(look)
    }

    /// Reads a task at once when there is no copy of it: what is new may be gone soon, and while the old ones are read
    /// the program may go on. Tasks that live for milliseconds would be missed beside thousands of others.
    fn meet(
        &mut self,
        tasks: &mut Tasks,
        tables: &mut Tables,
        look: &mut Look<'_>,
        address: u64,
    ) -> Age {
        if !look.met.insert(address) {
            return Age::Old;
        }
        let (size, coro) = match look.place {
            Place::Rings(debug) => (debug.task_size, Some(debug.coro)),
            Place::Sets { .. } => (TASK_BYTES as u64, tasks.coro.map(|at| at as u64)),
        };
        let has_task = usize::try_from(size).is_ok_and(|size| tasks.awaits.has(address, size));
        let is_old = has_task
            && coro.is_none_or(|offset| {
                let coro = tasks
                    .awaits
                    .word(&self.memory, address.saturating_add(offset));
                coro.is_some_and(|coro| tasks.awaits.has_coroutine(coro))
            });
        if is_old {
            look.later.push(address);
            return Age::Old;
        }
        look.new += 1;
        if look.found.len() < MOST_TASKS {
            self.take_task(tasks, tables, look, address);
        }
        Age::New
    }

    /// Reads a task, and keeps it unless it has ended.
    fn take_task(
        &mut self,
        tasks: &mut Tasks,
        tables: &mut Tables,
        look: &mut Look<'_>,
        address: u64,
    ) {
        let readings = if look.changing.len() < MOST_CHANGING {
            READINGS
        } else {
            1
        };
        for reading in 0..readings {
            tasks.awaits.begin_task(reading > 0);
            let first = tasks.awaits.read_so_far();
            let found = self.read_task(tasks, tables, look.place, address, look.now_us);
            let copied = tasks.awaits.was_copied();
            if !(copied || tasks.awaits.is_same(&self.memory)) {
                self.retried += 1;
                continue;
            }
            tasks.awaits.begin_task(false);
            if let Some(mut found) = found.filter(|found| found.state != State::Ended) {
                found.pieces = first..tasks.awaits.read_so_far();
                found.turn = if copied { 0 } else { look.found.len() + 1 };
                tasks.name(self, &found, tables);
                look.found.push(found);
            }
            return;
        }
        tasks.awaits.begin_task(false);
        look.changing.insert(address);
    }

    /// Where the lists of tasks are; `None` while asyncio is not there.
    fn find_tasks(&self, offsets: CoroutineOffsets) -> Option<Place> {
        match offsets.tasks {
            TaskList::Rings => {
                let data = match &self.dead {
                    None => runtime::writable_data(self.pid, &self.memory, "_asyncio"),
                    Some(dead) => {
                        let regions = &dead.regions;
                        runtime::writable_data_in(regions, None, &self.memory, "_asyncio")
                    }
                };
                data.iter()
                    .find_map(|data| AsyncioDebug::find(data))
                    .map(Place::Rings)
            }
            TaskList::Sets {
                weak,
                plain,
                current,
            } => {
                let dicts = Dicts::new(&self.offsets, &self.memory);
                let (mut weak_sets, mut plain_sets) = (Vec::new(), Vec::new());
                let mut currents = Vec::new();
                for interpreter in &self.interpreters {
                    let Some(globals) = dicts.module(interpreter.address, "asyncio.tasks") else {
                        continue;
                    };
                    let sets = weak.iter().filter_map(|name| dicts.find(globals, name));
                    weak_sets.extend(sets.filter_map(|set| dicts.attribute(set, "data")));
                    plain_sets.extend(plain.iter().filter_map(|name| dicts.find(globals, name)));
                    currents.extend(dicts.find(globals, current));
                }
                (!weak_sets.is_empty()).then_some(Place::Sets {
                    weak: weak_sets,
                    plain: plain_sets,
                    current: currents,
                })
            }
        }
    }

    /// The tasks of all rings: the newest ones, which stand last, then all from the first on.
    fn rings(
        &mut self,
        tasks: &mut Tasks,
        tables: &mut Tables,
        debug: &AsyncioDebug,
        look: &mut Look<'_>,
    ) -> Result<(), Fault> {
        let threads = self
            .threads
            .iter()
            .map(|thread| thread.address.saturating_add(debug.thread_ring));
        let interpreters = self
            .interpreters
            .iter()
            .map(|interpreter| interpreter.address.saturating_add(debug.interpreter_ring));
        let rings: Vec<u64> = threads.chain(interpreters).collect();
        for (ring, back) in rings
            .iter()
            .flat_map(|ring| [(*ring, true), (*ring, false)])
        {
            let step = if back { LINK_BACK } else { 0 };
            let mut link = ring.saturating_add(step);
            let mut node = tasks.awaits.word(&self.memory, link).ok_or(Fault::Torn)?;
            // A thread without asyncio has none. The ring may change while we walk: what is a task counts all the
            // same, for to look again until it stands still would show the quiet moments only.
            let (mut milestone, mut steps, mut old) = (0, 0usize, 0);
            while node != 0 && node != ring && node != milestone && steps <= MOST_TASKS {
                if steps.is_power_of_two() {
                    milestone = node;
                }
                steps += 1;
                let Some(task) = node.checked_sub(debug.node) else {
                    break;
                };
                if !tasks.awaits.is_task(&self.memory, task) {
                    break;
                }
                match self.meet(tasks, tables, look, task) {
                    Age::Old => old += 1,
                    Age::New => old = 0,
                }
                if back && old > OLD_IN_A_ROW {
                    break;
                }
                link = node.saturating_add(step);
                match tasks.awaits.word(&self.memory, link) {
                    Some(next) => node = next,
                    None => break,
                }
            }
        }
        Ok(())
    }

    /// The members of a set object.
    fn members(&self, awaits: &mut Awaits, set: u64) -> Result<Vec<u64>, Fault> {
        let mut head = [0; 48];
        awaits
            .read(&self.memory, set, &mut head)
            .ok_or(Fault::Torn)?;
        let mask = layout::word(&head, asyncio::SET_MASK).unwrap_or(0);
        let table = layout::word(&head, asyncio::SET_TABLE).unwrap_or(0);
        if mask >= MOST_SLOTS {
            return Err(Fault::Torn);
        }
        let mut entries = vec![0; (mask as usize + 1) * 16];
        awaits
            .read(&self.memory, table, &mut entries)
            .ok_or(Fault::Torn)?;
        let key = |entry: &[u8]| {
            // A slot that was left has a dummy with the hash -1.
            let (key, hash) = (layout::word(entry, 0)?, layout::word(entry, 8)?);
            (key != 0 && hash != u64::MAX).then_some(key)
        };
        Ok(entries.chunks_exact(16).filter_map(key).collect())
    }

    /// The name of a task from the object that it has for it.
    pub(super) fn task_name(&self, object: u64) -> String {
        read_text(&self.offsets, &self.memory, object)
            .or_else(|| {
                // A name that nobody has asked for is only a number yet.
                let dicts = Dicts::new(&self.offsets, &self.memory);
                dicts.int(object).map(|number| format!("Task-{number}"))
            })
            .unwrap_or_else(|| "?".to_string())
    }

    pub(super) fn read_task(
        &mut self,
        tasks: &mut Tasks,
        tables: &mut Tables,
        place: &Place,
        address: u64,
        now_us: u64,
    ) -> Option<Found> {
        let in_sets = matches!(place, Place::Sets { .. });
        if in_sets && !tasks.awaits.is_task(&self.memory, address) {
            return None;
        }
        let mut bytes = [0; MOST_TASK_BYTES];
        let size = match place {
            Place::Rings(debug) => usize::try_from(debug.task_size).ok()?,
            Place::Sets { .. } => TASK_BYTES,
        };
        let bytes = bytes.get_mut(..size.min(MOST_TASK_BYTES))?;
        tasks.awaits.read(&self.memory, address, bytes)?;
        let member = |offset: u64| layout::word(bytes, usize::try_from(offset).ok()?);
        let mut found = Found {
            address,
            ..Found::default()
        };
        match place {
            Place::Rings(debug) => {
                found.name = member(debug.name)?;
                found.coro = member(debug.coro)?;
                let waiter = member(debug.awaited_by)?;
                let is_set = bytes.get(usize::try_from(debug.awaited_by_is_set).ok()?);
                if is_set.is_some_and(|flag| *flag != 0) {
                    let mut waiters = self.members(&mut tasks.awaits, waiter).unwrap_or_default();
                    waiters.truncate(MOST_PARENTS);
                    found.awaited_by = waiters;
                } else if waiter != 0 {
                    found.awaited_by.push(waiter);
                }
            }
            Place::Sets { .. } => {
                let at = match tasks.coro {
                    Some(at) => at,
                    // The coroutine is the only one that a task holds; its name follows it.
                    None => (16..size - 8).step_by(8).find(|at| {
                        let object = layout::word(bytes, *at).unwrap_or(0);
                        tasks.awaits.is_coroutine(&self.memory, object)
                    })?,
                };
                tasks.coro = Some(at);
                found.coro = layout::word(bytes, at)?;
                found.name = layout::word(bytes, at + 8)?;
                found.awaited_by = self.waiters(&mut tasks.awaits, address);
            }
        }
        let mut walk = super::awaits::Walk {
            offsets: &self.offsets,
            coroutine: &tasks.offsets,
            memory: &self.memory,
            codes: &mut self.codes,
            tables,
            now_us,
        };
        let end = tasks
            .awaits
            .follow(&mut walk, found.coro, &mut found.frames);
        found.state = end.state;
        found.awaits = end.future;
        Some(found)
    }
}

/// The type of an object.
pub fn type_of(awaits: &mut Awaits, memory: &impl Memory, address: u64) -> Option<u64> {
    awaits.word(memory, address.checked_add(object::TYPE as u64)?)
}
