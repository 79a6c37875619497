//! When a session counts calls, and what it says when it cannot.

use super::ProcessSampler;
use crate::sample::counts::{Prepared, Watching};
use crate::target::watchpoint::{self, Refusal};

/// Beyond this rate a program comes back from samples so often that stretches between them tell nothing of its speed.
const MOST_HZ: f64 = 3000.0;

impl ProcessSampler<'_> {
    /// Begins to count calls where that is wanted and does not get in the way of how samples are taken.
    pub(super) fn start_watching(&mut self) {
        let reader = self.shared.reader_options();
        let apart = reader.blocking || reader.native || reader.cross_cpu;
        if self.shared.options.no_counts || apart {
            return;
        }
        if self.opened.version.free_threaded {
            self.part.notes.push(
                "numbers of calls are lower bounds: calls leave no trace in free-threaded Python, whose code objects are not counted as used"
                    .to_string(),
            );
            return;
        }
        if self.opened.reader.is_interrupting() {
            self.part.notes.push(
                "numbers of calls are lower bounds: they are not counted where threads are read in their interrupts"
                    .to_string(),
            );
            return;
        }
        if self.shared.options.rate.hz().is_some_and(|hz| hz > MOST_HZ) {
            self.part.notes.push(format!(
                "numbers of calls are lower bounds: they are not counted at rates above {MOST_HZ} Hz"
            ));
            return;
        }
        // Samples do not wait for it.
        let (pid, minor) = (self.pid, self.opened.version.minor);
        let prepare = move || Prepared::find(pid, minor);
        self.preparing = std::thread::Builder::new().spawn(prepare).ok();
    }

    /// Begins to count once it is known what that takes.
    pub(super) fn watch_when_ready(&mut self) {
        if self
            .preparing
            .as_ref()
            .is_none_or(|thread| !thread.is_finished())
        {
            return;
        }
        match self.prepared() {
            Some(Ok(prepared)) => {
                let minor = self.opened.version.minor;
                self.watching = Some(Watching::new(self.pid, minor, prepared));
            }
            Some(Err(why)) => self.note_refusal(why),
            None => {}
        }
    }

    /// What was found out for counting, once it is.
    fn prepared(&mut self) -> Option<Result<Prepared, Refusal>> {
        let thread = self.preparing.take()?;
        Some(thread.join().unwrap_or(Err(Refusal::NotAvailable)))
    }

    /// Ends the counting and keeps what it brought.
    pub(super) fn end_watching(&mut self) {
        if let Some(Err(why)) = self.prepared() {
            self.note_refusal(why);
        }
        let Some(watching) = self.watching.take() else {
            return;
        };
        if let Some(why) = watching.refused() {
            self.note_refusal(why);
        }
        self.part.recorder.profile.counts.extend(watching.finish());
    }

    fn note_refusal(&mut self, why: Refusal) {
        log::debug!("process {}: hardware watchpoints: {why:?}", self.pid);
        let why = match why {
            Refusal::NotPermitted => format!("not permitted; {}", watchpoint::what_permits()),
            Refusal::NotAvailable => "this kernel or machine has none, or the limit of locked memory (ulimit -l) is too small"
                    .to_string(),
            Refusal::Busy => "another program uses them, or there are no descriptors left (ulimit -n)".to_string(),
            // It has ended before it could be watched.
            Refusal::Gone => return,
        };
        let note = format!(
            "numbers of calls are lower bounds: they are counted by hardware watchpoints ({why})"
        );
        if !self.part.notes.contains(&note) {
            self.part.notes.push(note);
        }
    }
}
