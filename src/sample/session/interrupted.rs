//! Samples of threads that are read in their timer interrupts: one thread each, some milliseconds after it was taken, and those
//! of threads that sleep.
//!
//! An interrupt stands for the time in which its thread ran since its last one; a look at a thread that sleeps, or waits for a
//! CPU, for the time of that. The ring of interrupts is read every [`DRAIN`] while threads run all the time, and once a period, but at
//! most every [`LOOK`], where some of them are off the CPU now and then or copies are not whole: the next plan knows what they lack.

use std::sync::atomic::Ordering;
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::ProcessSampler;
use crate::profile::RunState;
use crate::sample::slot::{Evidence, Slot};
use crate::sample::{Fault, Interrupted, Sleeper, ThreadStacks};
use crate::target::threads::Activity;

/// How long the ring is left alone.
const DRAIN: Duration = Duration::from_millis(10);

/// The shortest time between looks.
const LOOK: Duration = Duration::from_millis(1);

impl ProcessSampler<'_> {
    /// Takes the samples since the last call; how many there are.
    pub(super) fn sample_interrupts(&mut self) -> Result<u64, Fault> {
        let mut stacks = std::mem::take(&mut self.stacks);
        let mut slots = std::mem::take(&mut self.slots);
        let given_up = self.part.given_up;
        let outcome = self.take_interrupts(&mut slots, &mut stacks);
        let learns = self.part.given_up > given_up;
        let outcome = outcome.and_then(|seen| {
            let sleeping = self.take_sleepers(&mut slots, &mut stacks)?;
            Ok((seen, sleeping))
        });
        self.stacks = stacks;
        self.slots = slots;
        if !self.opened.reader.is_interrupting() {
            self.go_on_without();
        }
        let (seen, (sleeping, changed)) = outcome?;
        let now_us = self.shared.now_us();
        self.unseen.gap(self.last_us, now_us);
        self.unsampled.look(self.pid, now_us);
        self.last_us = now_us;
        self.looks_soon = changed > 0 || learns;
        self.rest.note(seen > 0 || self.looks_soon, now_us);
        Ok(seen.max(u64::from(sleeping > 0)))
    }

    /// How many periods the next sample may stand for.
    pub(super) fn next_periods(&self, period: Duration) -> u32 {
        if !self.opened.reader.is_interrupting() {
            return self.rest.periods(self.last_us, period);
        }
        let time = match self.looks_soon {
            true => LOOK,
            false => DRAIN,
        };
        let periods = time.as_nanos() / period.as_nanos().max(1);
        let rest = self.rest.periods(self.last_us, period);
        u32::try_from(periods).map_or(rest, |periods| periods.max(rest).max(1))
    }

    /// The reader reads in another way from now on: CPU time is asked for from here on.
    fn go_on_without(&mut self) {
        let now_us = self.shared.now_us();
        for slot in self.slots.values_mut() {
            slot.look(&mut self.os_threads, false, now_us);
            slot.last_cpu_ns = slot.cpu_ns();
            slot.pending_cpu_ns = 0;
        }
        self.stacks = ThreadStacks::default();
    }

    fn take_interrupts(
        &mut self,
        slots: &mut FxHashMap<u64, Slot>,
        stacks: &mut ThreadStacks,
    ) -> Result<u64, Fault> {
        let mut seen = 0;
        loop {
            let tables = &mut self.part.recorder.profile.tables;
            let glimpse = match self.opened.reader.next_interrupt(tables, stacks) {
                None => return Ok(seen),
                Some(Interrupted::GivenUp(count)) => {
                    self.give_up(count);
                    continue;
                }
                Some(Interrupted::Seen(glimpse)) => glimpse,
            };
            self.give_up(glimpse.lost);
            let Some(thread) = stacks.threads.get(glimpse.thread) else {
                continue;
            };
            if thread.frames.is_empty() {
                continue;
            }
            seen += 1;
            let is_alone = stacks.threads.len() == 1;
            let Some(slot) = self.known_slot(slots, thread) else {
                continue;
            };
            slot.seen = Some(Activity::running());
            if glimpse.unseen_us > 0 {
                slot.settle(&mut self.part.recorder);
                slot.last_us = slot.last_us.saturating_add(glimpse.unseen_us);
            }
            let given = (glimpse.ran_us, glimpse.ran_us);
            let state = self.put(slot, thread, given, is_alone);
            self.part.has_states |= state.has(RunState::ON_CPU) && !thread.gil.is_empty();
            self.generation_of(slots, thread.python_id);
        }
    }

    /// Takes note that a thread is there.
    fn generation_of(&mut self, slots: &mut FxHashMap<u64, Slot>, python_id: u64) {
        if let Some(slot) = slots.get_mut(&python_id) {
            slot.generation = self.generation;
        }
    }

    fn put(
        &mut self,
        slot: &mut Slot,
        thread: &crate::sample::ThreadStack,
        given: (u64, u64),
        is_alone: bool,
    ) -> RunState {
        let reader = &mut self.opened.reader;
        let mut evidence = Evidence {
            collectors: &mut self.collectors,
            is_alone,
            is_exact: reader.is_exact(),
            running: 1.0,
            most_ahead_us: 0,
            given: Some(given),
            leads: |code, from, to| reader.leads(code, from, to),
        };
        self.remarks.note(slot, thread);
        let recorder = &mut self.part.recorder;
        slot.name(recorder, thread);
        // What it rested before is not of the time that is given.
        slot.settle(recorder);
        let until_us = slot.last_us.saturating_add(given.0);
        slot.add(recorder, &mut evidence, thread, None, until_us)
            .state
    }

    /// Looks at the threads that sleep; how many there are, and how many of them have been awake meanwhile.
    fn take_sleepers(
        &mut self,
        slots: &mut FxHashMap<u64, Slot>,
        stacks: &mut ThreadStacks,
    ) -> Result<(usize, usize), Fault> {
        let mut sleepers: Vec<Sleeper> = Vec::new();
        let tables = &mut self.part.recorder.profile.tables;
        let reader = &mut self.opened.reader;
        reader.read_sleepers(tables, stacks, &mut sleepers)?;
        let now_us = self.shared.now_us();
        self.generation += 1;
        let mut changed = 0;
        for thread in &stacks.threads {
            if !thread.frames.is_empty() && !thread.gone {
                self.known_slot(slots, thread);
            }
            // One of which too little was copied has no frames for now: it is there all the same.
            if !thread.gone {
                self.generation_of(slots, thread.python_id);
            }
        }
        let is_alone = stacks.threads.len() == 1;
        for sleeper in &sleepers {
            let Some(thread) = stacks.threads.get(sleeper.thread) else {
                continue;
            };
            changed += usize::from(sleeper.changed);
            let Some(slot) = slots.get_mut(&thread.python_id) else {
                continue;
            };
            if thread.frames.is_empty() || thread.gone {
                continue;
            }
            slot.name(&mut self.part.recorder, thread);
            let time_us = sleeper.time_us;
            if !sleeper.changed && slot.stays_off(thread, sleeper.waits, time_us) {
                continue;
            }
            slot.seen = match sleeper.waits {
                true => Some(Activity::running()),
                false => {
                    slot.look(&mut self.os_threads, false, now_us);
                    // It was asleep when it was read.
                    slot.seen.map(Activity::asleep)
                }
            };
            self.put(slot, thread, (time_us, 0), is_alone);
        }
        let generation = self.generation;
        let recorder = &mut self.part.recorder;
        let comings = &mut self.comings;
        slots.retain(|_, slot| {
            let kept = slot.generation == generation;
            if !kept {
                comings.gone(recorder, slot);
            }
            kept
        });
        self.part.has_states |= stacks.threads.iter().any(|thread| !thread.gil.is_empty());
        Ok((sleepers.len(), changed))
    }

    /// Takes the samples of one instant, in whichever way the reader reads; how many.
    pub(super) fn take(&mut self, ahead: Duration) -> Result<u64, Fault> {
        let taken = match self.opened.reader.is_interrupting() {
            true => self.sample_interrupts()?,
            false => {
                self.sample(ahead)?;
                1
            }
        };
        self.part.samples += taken;
        self.shared
            .progress
            .samples
            .fetch_add(taken, Ordering::Relaxed);
        Ok(taken)
    }
}
