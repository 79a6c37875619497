//! What a session remembers of a thread from sample to sample.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::calls::Roots;
use super::collections::{self, Collection, Collectors, Collects};
use super::{FrameSample, ThreadStack, states};
use crate::profile::record::Sample;
use crate::profile::{ProcessId, Recorder, RunState, StackId, Tables, ThreadId, ThreadInfo};
use crate::target::threads::{self, Threads};
use crate::units::Tid;

/// Samples after which a thread's own clock is right about it: one that lives for less may end before its next sample,
/// and then only the process's clock tells what it used.
const YOUNG: u8 = 3;

/// For how long a thread that was seen on a CPU is taken to be there still, without asking the kernel, while it goes on holding
/// the GIL, or goes on without it: two reads in `/proc` cost more than a whole sample does otherwise.
const BELIEVED_US: u64 = 1000;

/// What is remembered of a thread between samples.
pub struct Slot {
    pub id: ThreadId,
    /// As the reader gave it; 0 for not known (yet).
    pub os_id: u64,
    pub tid: Option<Tid>,
    pub frames: Vec<FrameSample>,
    /// The stack up to each of `frames`.
    pub stacks: Vec<StackId>,
    pub stack: Option<StackId>,
    /// What was recorded of it: the same, with `<GC>` where it collected.
    shown: Option<StackId>,
    /// What the kernel said of it for this sample.
    pub seen: Option<threads::Activity>,
    /// When it was asked, whether the thread ran Python then, and [`ThreadStack::version`].
    asked_us: u64,
    asked_runs: bool,
    asked_version: u64,
    pub last_us: u64,
    pub last_cpu_ns: u64,
    /// CPU time that no sample on a CPU has accounted for yet; below zero where samples have accounted in advance.
    pub pending_cpu_ns: i64,
    /// Whether it has no Python on its stack now and then: some of its CPU time is no sample's.
    pub visits: bool,
    /// Samples for which it counts as new: what they were given in advance is made up for after them.
    pub young: u8,
    pub generation: u64,
    /// As [`ThreadStack::version`] at the last sample that was added, and its state.
    pub version: u64,
    pub state: RunState,
    /// Whether it is taken to rest in this sample.
    pub rests: bool,
    /// Samples of its rest that have yet to be added, and the time of the last one.
    pub rested: u32,
    pub rested_until_us: u64,
    /// The last sample with what is its task's of it; empty where it ran none.
    pub whole: Vec<FrameSample>,
    /// Samples with another outermost frame than that of `frames`.
    pub roots: Roots,
    /// The collection of garbage that it was seen in last.
    collection: Collection,
}

/// What the reader says of the stacks that are added.
pub struct Evidence<'a, F> {
    /// Who collects garbage.
    pub collectors: &'a mut Collectors,
    /// Whether the process has no other thread with Python, be its stack read or not.
    pub is_alone: bool,
    /// [`super::StackReader::leads`].
    pub leads: F,
    /// [`super::StackReader::is_exact`]: frames of stacks that need not have existed as a whole are no evidence of calls.
    pub is_exact: bool,
    /// [`super::rest::Running::share`].
    pub running: f64,
    /// Most time to come that a sample stands for, microseconds: the first one of all also has the time before it.
    pub most_ahead_us: u64,
    /// Time and CPU time that the sample stands for, where that is known, microseconds; `None` for the time since the last one.
    pub given: Option<(u64, u64)>,
}

impl Slot {
    /// Asks the kernel about the thread. One that runs Python and was on a CPU for nearly all of the time
    /// since its last sample is there still; others, which may have fallen asleep just now, are looked at.
    pub fn look(&mut self, os_threads: &mut Threads, runs_python: bool, now_us: u64) {
        self.asked_us = now_us;
        let since_us = now_us.saturating_sub(self.last_us);
        let busy_ns = runs_python.then_some(since_us.saturating_mul(900).max(1));
        self.seen = self.tid.and_then(|tid| os_threads.activity(tid, busy_ns));
    }

    /// Asks the kernel about the thread, unless it was on a CPU a moment ago and has gone on in the same way; whether it was
    /// asked.
    pub fn look_at(&mut self, os_threads: &mut Threads, thread: &ThreadStack, now_us: u64) -> bool {
        let runs_python = thread.runs_python();
        let goes_on = match runs_python {
            true => self.asked_runs,
            false => !self.asked_runs && self.asked_version == thread.version,
        };
        let goes_on = goes_on && thread.version != 0;
        if goes_on
            && self.seen.is_some_and(|seen| seen.on_cpu)
            && now_us.saturating_sub(self.asked_us) < BELIEVED_US
        {
            return false;
        }
        (self.asked_runs, self.asked_version) = (runs_python, thread.version);
        self.look(os_threads, runs_python, now_us);
        true
    }

    /// Takes note of the id of a thread that had none yet, or none that was known.
    pub fn learn_id(&mut self, recorder: &mut Recorder, os_threads: &mut Threads, os_id: u64) {
        let inner = i32::try_from(os_id).ok().filter(|inner| *inner > 0);
        let Some(tid) = inner.and_then(|inner| os_threads.resolve(inner)) else {
            return;
        };
        self.os_id = os_id;
        if self.tid.is_some() {
            return;
        }
        self.tid = Some(tid);
        self.seen = os_threads.activity(tid, None);
        self.last_cpu_ns = self.cpu_ns();
        if let Some(known) = recorder.profile.threads.get_mut(self.id.index()) {
            known.os_id = u64::try_from(tid.0).unwrap_or(0);
        }
    }

    /// Whether it was asleep and has run no Python since.
    pub fn may_rest(&self, thread: &ThreadStack) -> bool {
        thread.version != 0
            && thread.version == self.version
            && !thread.runs_python()
            && self.seen.is_some_and(|seen| !seen.on_cpu)
    }

    pub fn cpu_ns(&self) -> u64 {
        self.seen.map_or(0, |seen| seen.cpu_ns)
    }

    /// Takes back what its last sample stands for beyond the end of the recording.
    pub fn cut(&self, recorder: &mut Recorder, now_us: u64) {
        let wall_us = self.last_us.saturating_sub(now_us);
        let in_advance_us = self.pending_cpu_ns.saturating_neg().max(0) as u64 / 1000;
        recorder.cut(self.id, wall_us, in_advance_us.min(wall_us));
    }

    /// Adds the samples of its rest.
    pub fn settle(&mut self, recorder: &mut Recorder) {
        if let Some(stack) = self.shown
            && self.rested > 0
        {
            recorder.add(Sample {
                thread: self.id,
                stack,
                count: self.rested,
                wall_us: self.rested_until_us.saturating_sub(self.last_us),
                cpu_us: 0,
                fresh_from: None,
                state: self.state,
            });
            self.last_us = self.rested_until_us;
            self.rested = 0;
        }
    }

    /// Takes over the name that the thread has by now.
    pub fn name(&self, recorder: &mut Recorder, thread: &ThreadStack) {
        if thread.name.is_some()
            && let Some(known) = recorder.profile.threads.get_mut(self.id.index())
            && known.name != thread.name
        {
            known.name.clone_from(&thread.name);
        }
    }

    /// Counts a sample for later when the thread rests in it; `false` when it does not, or had run a task.
    pub fn rests_on(&mut self, thread: &ThreadStack, until_us: u64) -> bool {
        let rests =
            self.rests && self.version == thread.version && !self.state.has(RunState::ELSEWHERE);
        if rests {
            self.rested += 1;
            self.rested_until_us = until_us;
        }
        rests
    }

    /// Counts a sample for later of a thread that has been off the CPU since the last one, which stands for `time_us`.
    pub fn stays_off(&mut self, thread: &ThreadStack, waits: bool, time_us: u64) -> bool {
        let same = self.version == thread.version && self.state.has(RunState::ON_CPU) == waits;
        if same {
            let from_us = match self.rested {
                0 => self.last_us,
                _ => self.rested_until_us,
            };
            self.rested += 1;
            self.rested_until_us = from_us.saturating_add(time_us);
        }
        same
    }

    /// Adds one sample. The time of a thread that runs a task, whose coroutines start at depth `task`, is the task's.
    pub fn add(
        &mut self,
        recorder: &mut Recorder,
        evidence: &mut Evidence<'_, impl FnMut(u32, u32, u32) -> bool>,
        thread: &ThreadStack,
        task: Option<usize>,
        until_us: u64,
    ) -> Added {
        self.settle(recorder);
        let frames = thread
            .frames
            .get(..task.unwrap_or(thread.frames.len()))
            .unwrap_or_default();
        let profile = &mut recorder.profile;
        let tables = &mut profile.tables;
        let last = if self.whole.is_empty() {
            &self.frames
        } else {
            &self.whole
        };
        let all_fresh = self
            .roots
            .fresh_from(tables, &mut evidence.leads, last, &thread.frames)
            .filter(|_| evidence.is_exact || last.is_empty());
        let fresh = all_fresh.filter(|depth| *depth < frames.len());
        let stack = self.intern(tables, frames);
        let mut state = states::run_state(thread, self.seen);
        let on_cpu = state.has(RunState::ON_CPU);
        let stood_still = thread.version != 0 && thread.version == self.version;
        let mut used_ns = 0;
        if let Some(seen) = self.seen.filter(|_| evidence.given.is_none()) {
            used_ns = seen.cpu_ns.saturating_sub(self.last_cpu_ns);
            self.pending_cpu_ns = self.pending_cpu_ns.saturating_add_unsigned(used_ns);
            self.last_cpu_ns = seen.cpu_ns;
        }
        // CPU time goes to stacks that were seen on a CPU, not to the sleep that followed, unless there was only one. A
        // sample on a CPU stands for CPU time to come, as for wall time to come, and what is used less than that is made
        // up for by the next ones: a thread that ends before it is seen twice has its time too.
        let wall_us = until_us.saturating_sub(self.last_us);
        let runs_for = |runnable_us: u64| (runnable_us as f64 * evidence.running) as u64;
        let ahead_us = runs_for(wall_us.min(evidence.most_ahead_us));
        let due_us = match (on_cpu, self.seen) {
            // No clock to ask: what ran is taken to have run all the time.
            (true, None) => wall_us as i64,
            (true, Some(_)) if self.young > 0 => ahead_us as i64,
            (true, Some(_)) => (self.pending_cpu_ns / 1000).saturating_add(ahead_us as i64),
            (false, _) if stood_still => (used_ns as i64).min(self.pending_cpu_ns) / 1000,
            (false, _) => 0,
        };
        self.young = self.young.saturating_sub(1);
        let mut cpu_us = due_us.max(0) as u64;
        if self.visits {
            // Of the time of a thread that is in Python now and then, samples with Python have no more than their own.
            cpu_us = cpu_us.min(runs_for(wall_us));
        }
        if let Some((_, given_us)) = evidence.given {
            cpu_us = given_us;
        } else if self.seen.is_some() {
            self.pending_cpu_ns -= cpu_us as i64 * 1000;
        }
        let tables = &mut recorder.profile.tables;
        let shown = frames.iter().map(|frame| frame.frame);
        let called = match self.collection.is_under_way() || thread.collects {
            true => collections::called(tables, shown.clone()),
            false => None,
        };
        let is_certain = called.is_some() || evidence.is_alone;
        let collects = evidence.collectors.ask(self.id, thread, is_certain);
        if collects == Collects::No {
            state = state.without(RunState::GC);
        }
        let kept = match task {
            Some(_) => state.with(RunState::ELSEWHERE),
            None => state,
        };
        let is_shown = task.is_none() && collects == Collects::Yes;
        let shown = (self.collection).show(tables, &self.stacks, shown, fresh, is_shown, called);
        let (stack_shown, fresh_shown) = shown.unwrap_or((stack, fresh));
        recorder.add(Sample {
            thread: self.id,
            stack: stack_shown,
            count: 1,
            wall_us,
            cpu_us: if task.is_some() { 0 } else { cpu_us },
            fresh_from: fresh_shown.and_then(super::countable),
            state: kept,
        });
        let moved = self.stack != Some(stack) || all_fresh.is_some();
        self.frames.clear();
        self.frames.extend_from_slice(frames);
        self.whole.clear();
        if task.is_some() {
            self.whole.extend_from_slice(&thread.frames);
        }
        (self.stack, self.shown) = (Some(stack), Some(stack_shown));
        self.last_us = until_us;
        (self.version, self.state) = (thread.version, kept);
        Added {
            state,
            wall_us,
            cpu_us,
            fresh: all_fresh,
            happened: moved || thread.runs_python() || on_cpu || used_ns > 0 || self.seen.is_none(),
        }
    }

    /// It is a thread that was seen before, with its last samples; what passed since is nobody's time.
    fn is_back(&mut self, recorder: &mut Recorder, gone: Gone) {
        recorder.add(Sample {
            thread: gone.id,
            stack: gone.stack,
            count: 0,
            wall_us: self.last_us.saturating_sub(gone.last_us),
            cpu_us: 0,
            fresh_from: None,
            state: RunState::ELSEWHERE,
        });
        self.id = gone.id;
        self.roots = gone.roots;
        self.young = 0;
        if gone.unseen {
            return;
        }
        self.last_cpu_ns = gone.last_cpu_ns;
        self.pending_cpu_ns = gone.pending_cpu_ns;
        self.visits = true;
    }

    /// The stack of `frames`: that of the last sample as far as they are the same.
    fn intern(&mut self, tables: &mut Tables, frames: &[FrameSample]) -> StackId {
        let pairs = self.frames.iter().zip(frames).zip(&self.stacks);
        let same = pairs.take_while(|((a, b), _)| a.frame == b.frame).count();
        self.stacks.truncate(same);
        let mut stack = self.stacks.last().copied();
        for sample in frames.iter().skip(same) {
            let next = tables.stack(stack, sample.frame);
            self.stacks.push(next);
            stack = Some(next);
        }
        stack.unwrap_or(StackId(0))
    }
}

/// Threads that come and go: one that has no Python on its stack for a while (a callback from C that has returned, an
/// interpreter that is starting) is the same one when it is back.
#[derive(Default)]
pub struct Comings {
    /// By Python's ident and the kernel's id.
    gone: FxHashMap<(u64, u64), Gone>,
    /// Those whose samples are remembered, the first that went first.
    remembered: VecDeque<(u64, u64)>,
}

/// Most threads that are gone of which the last samples are remembered.
const MOST_REMEMBERED: usize = 64;

/// A thread that had nothing to show when it was looked at last.
#[derive(Debug)]
struct Gone {
    id: ThreadId,
    stack: StackId,
    /// Until when its time is recorded.
    last_us: u64,
    /// Its last samples: what is there again need not be new.
    roots: Roots,
    /// Its clock at the last of them, and the CPU time that none has accounted for.
    last_cpu_ns: u64,
    pending_cpu_ns: i64,
    /// Whether it was we who did not look: what it used meanwhile is not known to be of what it shows.
    unseen: bool,
}

impl Comings {
    /// Nobody looked at those that are gone.
    pub fn all_unseen(&mut self) {
        for gone in self.gone.values_mut() {
            gone.unseen = true;
        }
    }

    /// The slot of a thread that has none; `last_us`: end of the time of the sample before.
    pub fn slot(
        &mut self,
        recorder: &mut Recorder,
        os_threads: &mut Threads,
        thread: &ThreadStack,
        last_us: u64,
    ) -> Slot {
        let inner = os_threads.identify(thread.os_id, thread.python_id);
        let tid = inner.and_then(|inner| os_threads.resolve(inner));
        let seen = tid.and_then(|tid| os_threads.activity(tid, None));
        let os_id = tid.map_or(0, |tid| tid.0 as u64);
        let mut slot = Slot {
            id: ThreadId(0),
            os_id: thread.os_id,
            tid,
            frames: Vec::new(),
            stacks: Vec::new(),
            stack: None,
            seen,
            asked_us: 0,
            asked_runs: false,
            asked_version: 0,
            last_us,
            last_cpu_ns: seen.map_or(0, |seen| seen.cpu_ns),
            pending_cpu_ns: 0,
            visits: false,
            young: YOUNG,
            generation: 0,
            version: 0,
            state: RunState::default(),
            rests: false,
            rested: 0,
            rested_until_us: 0,
            whole: Vec::new(),
            roots: Roots::default(),
            shown: None,
            collection: Collection::default(),
        };
        match self.gone.remove(&(thread.python_id, os_id)) {
            Some(gone) => slot.is_back(recorder, gone),
            None => {
                slot.id = recorder.add_thread(ThreadInfo {
                    process: ProcessId(0),
                    os_id,
                    python_id: thread.python_id,
                    name: thread.name.clone(),
                    started_us: last_us,
                });
            }
        }
        slot
    }

    /// The thread of this slot has no Python any more, or is another one by now: adds what has yet to be added.
    pub fn gone(&mut self, recorder: &mut Recorder, slot: &mut Slot) {
        slot.settle(recorder);
        let info = recorder.profile.threads.get(slot.id.index());
        if let (Some(info), Some(stack)) = (info, slot.stack)
            && info.os_id != 0
        {
            let mut roots = std::mem::take(&mut slot.roots);
            roots.add(if slot.whole.is_empty() {
                &slot.frames
            } else {
                &slot.whole
            });
            let gone = Gone {
                id: slot.id,
                stack,
                last_us: slot.last_us,
                roots,
                last_cpu_ns: slot.last_cpu_ns,
                pending_cpu_ns: slot.pending_cpu_ns,
                unseen: false,
            };
            let key = (info.python_id, info.os_id);
            self.gone.insert(key, gone);
            self.remembered.push_back(key);
            if self.remembered.len() > MOST_REMEMBERED
                && let Some(oldest) = self.remembered.pop_front()
                && let Some(gone) = self.gone.get_mut(&oldest)
            {
                gone.roots = Roots::forgotten();
            }
        }
    }
}

/// What a sample showed of a thread.
pub struct Added {
    pub state: RunState,
    /// The time that it stands for, and CPU time, microseconds.
    pub wall_us: u64,
    pub cpu_us: u64,
    /// The depth from which on there are new calls, in its task too.
    pub fresh: Option<usize>,
    /// Whether the thread may have done something since the last sample.
    pub happened: bool,
}

/// The stack of `frames`, outermost first; there is at least one.
pub fn intern(tables: &mut Tables, frames: &[FrameSample]) -> StackId {
    let mut stack = None;
    for sample in frames {
        stack = Some(tables.stack(stack, sample.frame));
    }
    stack.unwrap_or(StackId(0))
}
