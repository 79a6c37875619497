//! What a session remembers of a thread from sample to sample.

use super::{FrameSample, ThreadStack};
use crate::profile::record::Sample;
use crate::profile::{Recorder, RunState, StackId, ThreadId};
use crate::target::threads::{self, Threads};
use crate::units::Tid;

/// What is remembered of a thread between samples.
pub struct Slot {
    pub id: ThreadId,
    /// As the reader gave it; 0 for not known (yet).
    pub os_id: u64,
    pub tid: Option<Tid>,
    pub frames: Vec<FrameSample>,
    pub stack: Option<StackId>,
    /// What the kernel said of it for this sample.
    pub seen: Option<threads::Activity>,
    pub last_us: u64,
    pub last_cpu_ns: u64,
    /// CPU time that no sample on a CPU has accounted for yet.
    pub pending_cpu_ns: u64,
    pub generation: u64,
    /// As [`ThreadStack::version`] at the last sample that was added, and its state.
    pub version: u64,
    pub state: RunState,
    /// Whether it is taken to rest in this sample.
    pub rests: bool,
    /// Samples of its rest that have yet to be added, and the time of the last one.
    pub rested: u32,
    pub rested_until_us: u64,
}

impl Slot {
    /// Asks the kernel about the thread. One that holds the GIL and was on a CPU for nearly all of the time
    /// since its last sample is there still; others, which may have fallen asleep just now, are looked at.
    pub fn look(&mut self, os_threads: &mut Threads, holds_gil: bool, now_us: u64) {
        let since_us = now_us.saturating_sub(self.last_us);
        let busy_ns = holds_gil.then_some(since_us.saturating_mul(900).max(1));
        self.seen = self.tid.and_then(|tid| os_threads.activity(tid, busy_ns));
    }

    /// Whether it was asleep and has run no Python since.
    pub fn may_rest(&self, thread: &ThreadStack) -> bool {
        thread.version != 0
            && thread.version == self.version
            && !thread.holds_gil
            && self.seen.is_some_and(|seen| !seen.on_cpu)
    }

    pub fn cpu_ns(&self) -> u64 {
        self.seen.map_or(0, |seen| seen.cpu_ns)
    }

    /// Adds the samples of its rest.
    pub fn settle(&mut self, recorder: &mut Recorder) {
        if let Some(stack) = self.stack
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
}
