//! Which thread of the recording a thread of a sample is.

use rustc_hash::FxHashMap;

use super::ProcessSampler;
use crate::sample::ThreadStack;
use crate::sample::slot::Slot;

impl ProcessSampler<'_> {
    /// The slot of a thread, as it is now; `None` for one that is none of the process's.
    pub(super) fn known_slot<'s>(
        &mut self,
        slots: &'s mut FxHashMap<u64, Slot>,
        thread: &ThreadStack,
    ) -> Option<&'s mut Slot> {
        if thread.gone {
            self.remarks.gone.insert(thread.python_id);
            return None;
        }
        let slot = slots
            .entry(thread.python_id)
            .or_insert_with(|| self.new_slot(thread));
        // Idents are used again by later threads; a thread that is starting has no id of the OS yet.
        if slot.os_id == 0 {
            slot.learn_id(&mut self.part.recorder, &mut self.os_threads, thread.os_id);
        } else if thread.os_id != 0 && slot.os_id != thread.os_id {
            let recorder = &mut self.part.recorder;
            self.comings.gone(recorder, slot);
            if let Some(watching) = &mut self.watching {
                watching.gone(slot.id);
            }
            *slot = self.new_slot(thread);
        }
        self.unseen.stack(thread.frames.len());
        Some(slot)
    }

    fn new_slot(&mut self, thread: &ThreadStack) -> Slot {
        let (recorder, os_threads) = (&mut self.part.recorder, &mut self.os_threads);
        self.comings
            .slot(recorder, os_threads, thread, self.last_us)
    }

    /// What was between the last sample and now nobody saw, and it is nobody's: threads are there again after a time in which
    /// they were elsewhere.
    pub(super) fn pass_over(&mut self) {
        if self.generation == 0 || self.opened.reader.is_interrupting() {
            return;
        }
        let now_us = self.shared.now_us();
        for slot in self.slots.values_mut() {
            self.comings.gone(&mut self.part.recorder, slot);
            // A window over that time would be one in which the thread was not seen.
            if let Some(watching) = &mut self.watching {
                watching.gone(slot.id);
            }
        }
        self.slots.clear();
        self.comings.all_unseen();
        self.unseen.pass_over(self.last_us, now_us);
        self.last_us = now_us;
    }
}
