//! When a thread was on a CPU, waited for one, or slept, from what the kernel tells of its coming and going: the time that its
//! samples stand for.
//!
//! A thread that is sampled in its timer interrupt is seen only while it runs, and one that sleeps, or waits for a CPU, only from
//! outside. So each kind of sample stands for its own kind of time since the last one of that kind: together they have all of
//! it, whichever kind is rarer.

use std::collections::VecDeque;

use crate::target::interrupt::Switch;

/// Most comings and goings that wait for their samples.
const MOST_WAITING: usize = 16_384;

/// Time of waiting for a CPU that is left to the next wait.
const SHORTEST_NS: u64 = 100_000;

/// What a thread does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    /// Not known yet.
    Unknown,
    Runs,
    /// It would, but it is another one's turn.
    Ready,
    Sleeps,
}

/// What is known of a thread's time.
#[derive(Debug)]
pub struct Presence {
    doing: Doing,
    /// Up to when time has been told apart.
    until_ns: u64,
    /// Comings and goings after that.
    waiting: VecDeque<Switch>,
    /// Time on a CPU, of waiting for one, and asleep, which no sample stands for yet.
    ran_ns: u64,
    waited_ns: u64,
    slept_ns: u64,
}

/// How a thread is off the CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Off {
    /// It would go on, but it is another one's turn.
    Waits,
    /// It sleeps.
    Sleeps,
}

impl Presence {
    /// A thread that is known from now on.
    pub fn new(now_ns: u64) -> Presence {
        Presence {
            doing: Doing::Unknown,
            until_ns: now_ns,
            waiting: VecDeque::new(),
            ran_ns: 0,
            waited_ns: 0,
            slept_ns: 0,
        }
    }

    /// Takes note of what happened, in order of time.
    pub fn note(&mut self, switch: Switch) {
        if self.waiting.len() >= MOST_WAITING {
            self.waiting.clear();
            self.waiting.push_back(Switch::Lost);
        }
        self.waiting.push_back(switch);
    }

    /// Tells the time up to `now_ns` apart.
    pub fn advance(&mut self, now_ns: u64) {
        while let Some(next) = self.waiting.front().copied() {
            let (at_ns, doing, before) = match next {
                Switch::In { at_ns } => (at_ns, Doing::Runs, Some(Doing::Sleeps)),
                Switch::Out { at_ns, ready: true } => (at_ns, Doing::Ready, Some(Doing::Runs)),
                Switch::Out { at_ns, .. } => (at_ns, Doing::Sleeps, Some(Doing::Runs)),
                Switch::Lost => (self.until_ns, Doing::Unknown, None),
                Switch::Sample { .. } => (self.until_ns, self.doing, None),
            };
            if at_ns > now_ns {
                break;
            }
            if self.doing == Doing::Unknown
                && let Some(before) = before
            {
                self.doing = before;
            }
            self.count(at_ns);
            self.doing = doing;
            self.waiting.pop_front();
        }
        self.count(now_ns);
    }

    fn count(&mut self, now_ns: u64) {
        let time_ns = now_ns.saturating_sub(self.until_ns);
        self.until_ns = self.until_ns.max(now_ns);
        match self.doing {
            Doing::Runs => self.ran_ns += time_ns,
            Doing::Ready => self.waited_ns += time_ns,
            Doing::Sleeps => self.slept_ns += time_ns,
            // Until it is known what it was.
            Doing::Unknown => self.until_ns -= time_ns.min(self.until_ns),
        }
    }

    /// It runs now, whatever was told.
    pub fn runs(&mut self) {
        self.doing = Doing::Runs;
    }

    /// It sleeps now, as the kernel says, if nothing else is known.
    pub fn sleeps(&mut self) {
        if self.doing == Doing::Unknown && self.waiting.is_empty() {
            self.doing = Doing::Sleeps;
        }
    }

    /// Whether it is not known what it does.
    pub fn is_unknown(&self) -> bool {
        self.doing == Doing::Unknown
    }

    /// How it is off the CPU; `None` when it is not, as far as is known, or only for as long as a sample takes on its CPU.
    pub fn off(&self) -> Option<Off> {
        match self.doing {
            Doing::Ready if self.waited_ns < SHORTEST_NS => None,
            Doing::Ready => Some(Off::Waits),
            Doing::Sleeps => Some(Off::Sleeps),
            Doing::Runs | Doing::Unknown => None,
        }
    }

    /// Whole microseconds in which it ran, since this was asked last.
    pub fn take_ran_us(&mut self) -> u64 {
        take_us(&mut self.ran_ns)
    }

    /// The same of the time off the CPU, of one kind.
    pub fn take_off_us(&mut self, off: Off) -> u64 {
        take_us(match off {
            Off::Waits => &mut self.waited_ns,
            Off::Sleeps => &mut self.slept_ns,
        })
    }
}

fn take_us(ns: &mut u64) -> u64 {
    let us = *ns / 1000;
    *ns %= 1000;
    us
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_time_is_one_kind_or_the_other() {
        let mut presence = Presence::new(1_000_000);
        let goes = |at_ns, ready| Switch::Out { at_ns, ready };
        presence.note(goes(1_100_000, false));
        presence.note(Switch::In { at_ns: 2_000_000 });
        presence.note(goes(2_500_000, true));
        presence.note(Switch::In { at_ns: 2_800_000 });
        assert!(presence.is_unknown());
        presence.advance(1_900_000);
        assert_eq!(presence.off(), Some(Off::Sleeps));
        assert_eq!(presence.take_ran_us(), 100);
        assert_eq!(presence.take_off_us(Off::Sleeps), 800);
        presence.advance(2_600_000);
        assert_eq!(presence.off(), Some(Off::Waits));
        assert_eq!(presence.take_off_us(Off::Waits), 100);
        presence.advance(3_000_000);
        assert_eq!(presence.off(), None);
        assert_eq!(presence.take_ran_us(), 700);
        assert_eq!(presence.take_off_us(Off::Waits), 200);
        assert_eq!(presence.take_off_us(Off::Sleeps), 100);
        assert_eq!(presence.take_off_us(Off::Sleeps), 0);
        presence.note(Switch::Lost);
        presence.advance(4_000_000);
        assert!(presence.is_unknown());
        presence.sleeps();
        presence.advance(4_000_500);
        assert_eq!(presence.take_off_us(Off::Sleeps), 1000);
        presence.runs();
        presence.advance(4_001_600);
        assert_eq!(presence.take_ran_us(), 1);
    }
}
