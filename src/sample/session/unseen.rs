//! How long a process went without a sample: what happened then is not known, and a table must not look as if it were.

/// Shorter gaps are what a busy machine makes.
const SHORTEST_US: u64 = 100_000;

/// Gaps between samples that are taken as fast as they can be: who has the CPU then is another program, or the target itself.
const LATE_US: u64 = 4_000;

/// Share of the duration without a sample that needs a word.
const WORTH_TELLING: f64 = 0.05;

/// Frames of a stack that takes long to read.
const DEEP: usize = 5000;

/// The time of all gaps.
#[derive(Debug, Default)]
pub struct Unseen {
    us: u64,
    /// The time of those between samples that were taken as fast as they could be.
    late_us: u64,
    deepest: usize,
    /// The time of those that are nobody's.
    passed_us: u64,
}

impl Unseen {
    /// Counts the time from the end of the last sample to the next one, or to the end.
    pub fn gap(&mut self, last_us: u64, now_us: u64) {
        let gap_us = now_us.saturating_sub(last_us);
        if gap_us >= SHORTEST_US {
            self.us += gap_us;
        }
    }

    /// The same where the next sample was to be taken at once.
    pub fn late(&mut self, last_us: u64, now_us: u64) {
        let gap_us = now_us.saturating_sub(last_us);
        if gap_us >= LATE_US {
            self.late_us += gap_us;
        }
    }

    /// What is worth telling of the time in which samples were late.
    pub fn note_late(&self, duration_us: u64) -> Option<String> {
        let is_told = self.late_us as f64 > WORTH_TELLING * duration_us as f64;
        is_told.then(|| {
            format!(
                "{:.2} s of {:.2} s went by between samples that are more than {} ms apart: the machine is too busy for --rate max; functions \
                 that sleep may have got time of others",
                self.late_us as f64 / 1e6,
                duration_us as f64 / 1e6,
                LATE_US / 1000
            )
        })
    }

    /// The same of a time in which we were stopped.
    pub fn pass_over(&mut self, last_us: u64, now_us: u64) {
        self.passed_us += now_us.saturating_sub(last_us);
    }

    /// What is to be told of the time in which we were stopped.
    pub fn note_passed(&self) -> Option<String> {
        (self.passed_us > 0).then(|| {
            format!(
                "biopsy did not run for {:.2} s: what happened then is in none of the numbers",
                self.passed_us as f64 / 1e6
            )
        })
    }

    /// Notes how deep a stack was.
    pub fn stack(&mut self, frames: usize) {
        self.deepest = self.deepest.max(frames);
    }

    /// What is worth telling of it.
    pub fn note(&self, duration_us: u64) -> Option<String> {
        if (self.us as f64) < WORTH_TELLING * duration_us as f64 || self.us == 0 {
            return None;
        }
        let why = match self.deepest >= DEEP {
            true => format!(
                " (stacks were up to {} frames deep, which takes long to read)",
                self.deepest
            ),
            false => String::new(),
        };
        Some(format!(
            "there was no sample for {:.2} s of {:.2} s{why}: that time went to the samples after it, and before the first and after the last to none",
            self.us as f64 / 1e6,
            duration_us as f64 / 1e6
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_at_the_highest_rate_are_told() {
        let mut unseen = Unseen::default();
        unseen.late(1000, 4900);
        assert_eq!(unseen.note_late(4000), None);
        unseen.late(4900, 9000);
        assert_eq!(unseen.note_late(100_000), None);
        let note = unseen.note_late(50_000).expect("a note");
        assert!(note.starts_with("0.00 s of 0.05 s went by"), "{note}");
    }

    #[test]
    fn long_gaps_are_told() {
        let mut unseen = Unseen::default();
        unseen.gap(1000, 90_000);
        unseen.gap(90_000, 80_000);
        assert_eq!(unseen.note(100_000), None);
        unseen.gap(100_000, 600_000);
        unseen.stack(50_000);
        assert_eq!(unseen.note(20_000_000), None);
        let note = unseen.note(2_000_000).expect("a note");
        assert!(
            note.starts_with("there was no sample for 0.50 s of 2.00 s (stacks were up to 50000")
        );
    }
}
