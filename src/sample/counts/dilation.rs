//! By how much watchpoints slow a thread down that it does not run into, and how long it is left without any for that.
//!
//! A watchpoint costs more than its hits. While one is set, a store that crosses a cache line takes 8 ns more on Intel Xeons
//! (whatever the kind of breakpoint): C code that copies misaligned vectors, as list.insert does up to 3.13, is four times as
//! slow, and its share of the time is too large. Which programs have such code cannot be told beforehand. So times with and
//! without watchpoints take turns, whatever the program does, and where it is in both is compared: a place that is seen more
//! often with them is slowed down, and they are set so much less.

use rand::RngExt;
use rand::rngs::SmallRng;
use rustc_hash::FxHashMap;

use crate::profile::FrameId;

/// Share of the program's time that may be lost to this.
const LOSS: f64 = 0.01;

/// Share of the time in which watchpoints may be set: until something is known, and least and most after that.
const UNKNOWN: f64 = 0.4;
const LEAST: f64 = 0.05;
const MOST: f64 = 0.85;

/// CPU time after which something is known, and after which half of it is forgotten, nanoseconds.
const KNOWN_NS: f64 = 3e9;
const FORGOTTEN_NS: f64 = 20e9;

/// CPU time in which watchpoints may be set, at a time, nanoseconds: drawn evenly, so that no rhythm of the program is in step.
const TURN_NS: std::ops::Range<f64> = 20e6..60e6;

/// Turns that are compared at least, and standard errors from which on a difference is believed.
const LEAST_TURNS: f64 = 8.0;
const BELIEVED: f64 = 3.0;

/// Most places that are remembered; those with little of the time go first.
const MOST_PLACES: usize = 512;

/// CPU time, nanoseconds: in turns in which watchpoints were set, and without any.
type Times = [f64; 2];

/// A function's line that was running.
#[derive(Debug, Default, Clone, Copy)]
struct Place {
    times: Times,
    /// By how much more of the time was spent there with watchpoints, summed over all turns, and the sum of squares.
    excess: f64,
    squares: f64,
}

/// Turns with watchpoints and without.
#[derive(Debug)]
pub struct Dilation {
    /// Whether watchpoints may be set, and for how much CPU time in this pair of turns.
    allows: bool,
    length_ns: f64,
    /// This pair of turns.
    passed: Times,
    places_now: FxHashMap<FrameId, Times>,
    /// All of them.
    turns: f64,
    all: Times,
    places: FxHashMap<FrameId, Place>,
    share: f64,
}

impl Dilation {
    pub fn new(random: &mut SmallRng) -> Dilation {
        Dilation {
            allows: true,
            length_ns: random.random_range(TURN_NS),
            passed: [0.0; 2],
            places_now: FxHashMap::default(),
            turns: 0.0,
            all: [0.0; 2],
            places: FxHashMap::default(),
            share: UNKNOWN,
        }
    }

    /// Whether watchpoints may be set now.
    pub fn allows(&self) -> bool {
        self.allows
    }

    /// Takes over a sample at a place, which stands for so much of the thread's CPU time.
    pub fn sample(&mut self, at: FrameId, cpu_ns: f64, random: &mut SmallRng) {
        // Which turn it is does not depend on where the program is; whether any watchpoint is set would.
        let kind = usize::from(!self.allows);
        let [with_ns, without_ns] = &mut self.passed;
        *(if kind == 0 { with_ns } else { without_ns }) += cpu_ns;
        if let Some(place_ns) = self.places_now.entry(at).or_default().get_mut(kind) {
            *place_ns += cpu_ns;
        }
        let [with_ns, without_ns] = self.passed;
        if self.allows && with_ns >= self.length_ns {
            self.allows = false;
        } else if !self.allows && without_ns >= with_ns * (1.0 / self.share - 1.0) {
            self.settle();
            self.allows = true;
            self.length_ns = random.random_range(TURN_NS);
        }
    }

    /// Adds a pair of turns to what is known.
    fn settle(&mut self) {
        let [with_ns, without_ns] = std::mem::take(&mut self.passed);
        let whole_ns = with_ns + without_ns;
        for (at, [there_with, there_without]) in self.places_now.drain() {
            let place = self.places.entry(at).or_default();
            let excess = (there_with * without_ns - there_without * with_ns) / whole_ns.max(1.0);
            place.excess += excess;
            place.squares += excess * excess;
            place.times[0] += there_with;
            place.times[1] += there_without;
        }
        self.turns += 1.0;
        self.all[0] += with_ns;
        self.all[1] += without_ns;
        if self.places.len() > MOST_PLACES {
            let little_ns = (self.all[0] + self.all[1]) / MOST_PLACES as f64;
            self.places
                .retain(|_, place| place.times[0] + place.times[1] >= little_ns);
        }
        if self.all[0] + self.all[1] > FORGOTTEN_NS {
            let half = |value: &mut f64| *value *= 0.5;
            half(&mut self.turns);
            self.all.iter_mut().for_each(half);
            for place in self.places.values_mut() {
                place.times.iter_mut().for_each(half);
                half(&mut place.excess);
                half(&mut place.squares);
            }
        }
        self.share = self.share_of_time();
    }

    /// Share of the time in which watchpoints may be set.
    fn share_of_time(&self) -> f64 {
        let loss = self.loss();
        let known = self.all[0] + self.all[1] >= KNOWN_NS;
        let most = if known { MOST } else { UNKNOWN };
        (LOSS / loss.max(1e-9)).clamp(LEAST, most)
    }

    /// Standard error of a place's excess, from the differences between turns.
    fn error(&self, place: &Place) -> f64 {
        let mean = place.excess / self.turns;
        (place.squares - mean * place.excess).max(0.0).sqrt()
    }

    /// Share of the time that is lost while watchpoints are set, by places that are believed to be slowed down.
    fn loss(&self) -> f64 {
        if self.turns < LEAST_TURNS {
            return 0.0;
        }
        let [with_ns, without_ns] = self.all.map(|ns| ns.max(1.0));
        let slowed = self
            .places
            .values()
            .filter(|place| place.excess > BELIEVED * self.error(place))
            .map(|place| place.times[0] / with_ns - place.times[1] / without_ns);
        let excess: f64 = slowed.filter(|excess| *excess > 0.0).sum();
        excess / (1.0 - excess).max(0.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    /// The share with watchpoints at the end, where the second of two places takes `slow` times as long with them.
    fn share(slow: f64, phase_ns: f64, seed: u64) -> f64 {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut dilation = Dilation::new(&mut random);
        let (mut work_ns, mut place) = (0.0, 0);
        for _ in 0..10_000 {
            dilation.sample(FrameId(place), 1e6, &mut random);
            let with = dilation.allows();
            // In its phase the program spends a twentieth of its work there, else a hundredth.
            let busy = phase_ns > 0.0 && (work_ns / phase_ns) as u64 % 2 == 1;
            let part = if busy { 0.01 } else { 0.05 };
            let time = part * if with { slow } else { 1.0 };
            work_ns += 1e6 * (1.0 - part) / (1.0 - part + time);
            place = u32::from(random.random_bool(time / (1.0 - part + time)));
        }
        dilation.share
    }

    #[test]
    fn what_is_slowed_down_is_left_without_watchpoints() {
        for seed in 0..20 {
            assert!(share(1.0, 0.0, seed) > 0.4, "seed {seed}");
            assert!(share(4.0, 0.0, seed) < 0.15, "seed {seed}");
        }
    }

    #[test]
    fn phases_of_the_program_are_not_taken_for_it() {
        let high = |seed: &u64| share(1.0, 0.7e9, *seed) > 0.4;
        assert!((0..20).filter(high).count() >= 19);
    }
}
