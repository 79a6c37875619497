//! How often windows of each spacing are taken: as long as they say something new. Of a number of bursts to come one is
//! drawn that has a window, and the window stands for all of them, whatever it shows: fewer windows make a count less
//! certain, but neither smaller nor larger. (Were it to stand for the bursts before it, what is new would get the time of
//! what was known.)

use rand::Rng;

use crate::profile::calls::SPACINGS;
use crate::sample::bursts::{News, Weight};

/// After so many windows without anything new only every second one is taken, after so many more every fourth, and so
/// on. One with something new undoes as many.
const QUIET: u64 = 8;
const MOST_QUIET: u64 = 4 * QUIET;

/// After so many calls, whatever they are calls of, half of the windows are taken, after twice as many a third.
const PLENTY: u64 = 4000;

/// At least one of so many bursts has a window: a new phase of the program is noticed soon.
const MOST: u64 = 16;

/// What is known of the windows of one spacing.
#[derive(Debug, Clone, Copy, Default)]
struct Spacing {
    /// Bursts that the last window drawn stands for, how many of them are still to come, and how many are to come before
    /// the one with the window; `None` when that has been.
    stands_for: u64,
    left: u64,
    before: Option<u64>,
    /// Calls that were seen to begin.
    calls: u64,
    /// Windows without anything new, less those with.
    quiet: u64,
    /// Calls by the weight of their window, and by its square.
    weighted: f64,
    squares: f64,
}

/// When windows of which spacing are due.
#[derive(Debug, Default)]
pub struct Pace([Spacing; SPACINGS]);

impl Pace {
    /// Whether this burst has a window of a spacing: for how many bursts it stands. To be asked once a burst.
    pub fn due(&mut self, spacing: usize) -> Option<Weight> {
        let known = self.0.get_mut(spacing)?;
        if known.left == 0 {
            let every = (1 + known.calls / PLENTY).max(1 << (known.quiet / QUIET));
            known.stands_for = every.min(MOST);
            known.left = known.stands_for;
            known.before = Some(rand::rng().random_range(0..known.stands_for));
        }
        known.left -= 1;
        let before = known.before?;
        known.before = before.checked_sub(1);
        (before == 0).then_some(known.stands_for)
    }

    /// Takes note of a window and of its weight.
    pub fn note(&mut self, spacing: usize, news: News, weight: Weight) {
        if let Some(known) = self.0.get_mut(spacing) {
            known.quiet = if news.of_rare {
                known.quiet.saturating_sub(QUIET)
            } else {
                (known.quiet + 1).min(MOST_QUIET)
            };
            known.calls = known.calls.saturating_add(news.calls);
            let weighted = news.calls as f64 * weight as f64;
            known.weighted += weighted;
            known.squares += weighted * weight as f64;
        }
    }

    /// By spacing, what the weighted counts have to be multiplied by to be as certain as that many calls counted one by
    /// one (Kish, Survey Sampling, 1965: the effective size of a weighted sample).
    pub fn certainty(&self) -> [f64; SPACINGS] {
        self.0.map(|known| {
            if known.squares > 0.0 {
                known.weighted / known.squares
            } else {
                1.0
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Windows taken in so many bursts, each with so many calls, and what they stand for.
    fn taken(pace: &mut Pace, bursts: u64, calls: u64, of_rare: bool) -> (u64, u64) {
        let (mut windows, mut stands_for) = (0, 0);
        for _ in 0..bursts {
            if let Some(weight) = pace.due(0) {
                windows += 1;
                stands_for += weight;
                pace.note(0, News { calls, of_rare }, weight);
            }
        }
        (windows, stands_for)
    }

    #[test]
    fn what_is_known_well_is_looked_at_less_and_less() {
        let mut pace = Pace::default();
        assert_eq!(taken(&mut pace, 100, 10, true), (100, 100));
        assert_eq!(pace.certainty()[0], 1.0);
        let (windows, stands_for) = taken(&mut pace, 10_000, 10, false);
        assert!((600..800).contains(&windows), "{windows}");
        assert!(stands_for.abs_diff(10_000) < MOST);
        let certainty = pace.certainty()[0];
        assert!(certainty < 0.1 && certainty >= 1.0 / MOST as f64);
        // Something new: soon all again.
        taken(&mut pace, 2 * MOST, 10, true);
        assert!(taken(&mut pace, 100, 10, true).0 > 30);
    }

    #[test]
    fn new_calls_without_end_are_looked_at_less_too() {
        let mut pace = Pace::default();
        let (windows, stands_for) = taken(&mut pace, 10_000, 60, true);
        assert!((900..1500).contains(&windows), "{windows}");
        assert!(stands_for.abs_diff(10_000) < MOST);
        assert_eq!(pace.due(SPACINGS), None);
    }
}
