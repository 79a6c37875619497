//! What a session says of how its samples were taken.

use super::ProcessSampler;
use crate::sample::tasks::MOST_TASKS;

/// Share of looks at suspended tasks that may come to nothing without a word about it.
const MOST_CHANGING: f64 = 0.01;

impl ProcessSampler<'_> {
    /// Notes how the reader read. It may have become approximate on the way, so this is asked at its end.
    pub(super) fn note_reader(&mut self) {
        self.part.exact_stacks &= self.opened.reader.is_exact();
        self.part.reader = self.opened.reader.describe();
        let caveats = self.opened.reader.caveats();
        for note in self.opened.fallback.take().into_iter().chain(caveats) {
            if !self.part.notes.contains(&note) {
                self.part.notes.push(note);
            }
        }
    }

    /// Notes what is worth telling of the threads' states.
    pub(super) fn note_states(&mut self) {
        let now_us = self.shared.now_us();
        self.unseen.gap(self.last_us, now_us);
        let end_us = self.last_us.min(now_us);
        let duration_us = end_us.saturating_sub(self.part.opened_us);
        let mut notes = self.remarks.notes(&self.part.recorder.profile, duration_us);
        notes.extend(self.unseen.note_passed());
        let duration_us = now_us.saturating_sub(self.part.opened_us);
        notes.extend(self.unseen.note(duration_us));
        notes.extend(self.unseen.note_late(duration_us));
        if self.shared.options.subprocesses {
            for note in &mut notes {
                *note = format!("process {}: {note}", self.pid);
            }
        }
        if self.tasks.cut {
            notes.push(format!(
                "there were more tasks than can be looked at: only {MOST_TASKS} of them are shown"
            ));
        }
        let (looked, changing) = (self.tasks.looked, self.tasks.changing);
        if changing as f64 > MOST_CHANGING * looked as f64 {
            notes.push(format!(
                "{:.1} % of suspended tasks changed while they were read, and were taken to be as at the look before",
                100.0 * changing as f64 / looked as f64
            ));
        }
        self.part.notes.append(&mut notes);
    }
}
