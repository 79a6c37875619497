//! When to sample: one instant drawn evenly from each period, so that no rhythm of the target can stay in
//! step with us, and how late we were.
//!
//! Evenly within each period rather than exponential gaps (as py-spy draws them): both are unbiased, but
//! stratified instants give estimates with about half the variance.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::RngExt;

use crate::units::Rate;

/// A sleep that is longer than that can be ended by [`std::thread::Thread::unpark`].
const NAP: Duration = Duration::from_millis(50);

/// Up to this rate samples go first: they take a quarter of a CPU at most.
const MOST_HZ_FIRST: f64 = 10_000.0;

/// A sample that takes as long as this is long; for how long we do not go first after it.
const LONG: Duration = Duration::from_millis(1);
const REST: Duration = Duration::from_millis(20);

/// What is so much too late was stopped, and has not waited for its turn.
const AWAY: Duration = Duration::from_secs(1);

/// The shortest slice that the scheduler gives.
const SLICE_NS: u64 = 100_000;

/// Draws sampling instants and sleeps until them.
#[derive(Debug)]
pub struct Clock {
    period: Duration,
    start: Instant,
    index: u64,
    /// Periods that the next instant stands for.
    stretch: u32,
    /// End of those that the last instant stands for.
    end: Option<Instant>,
    lateness: Duration,
    waits: u64,
    /// Whether the last wait ended so late that it was no matter of who runs when.
    was_away: bool,
    turn: Turn,
    /// When this thread may go first again, after something that took long.
    back: Option<Instant>,
}

impl Clock {
    /// A clock that starts now. With `brief`, samples take microseconds, and may go before whatever else runs on the
    /// target's CPU.
    pub fn new(rate: Rate, brief: bool) -> Clock {
        set_timer_slack();
        let brief = brief && rate.hz().is_some_and(|hz| hz <= MOST_HZ_FIRST);
        Clock {
            turn: ask_for_turns(brief),
            back: None,
            period: rate
                .hz()
                .map_or(Duration::ZERO, |hz| Duration::from_secs_f64(1.0 / hz)),
            start: Instant::now(),
            index: 0,
            stretch: 1,
            end: None,
            lateness: Duration::ZERO,
            waits: 0,
            was_away: false,
        }
    }

    /// Sleeps until the next instant; false when `stop` was set meanwhile: whoever sets it unparks this thread. Periods
    /// that have passed already are skipped: a late sampler takes fewer samples, not a burst of them.
    pub fn wait(&mut self, stop: &AtomicBool) -> bool {
        if stop.load(Ordering::Relaxed) {
            return false;
        }
        if self.period.is_zero() {
            return true;
        }
        if self.back.is_some_and(|back| Instant::now() >= back) {
            self.back = None;
            schedule(libc::SCHED_FIFO, 1);
        }
        let elapsed = self.start.elapsed();
        let current = (elapsed.as_secs_f64() / self.period.as_secs_f64()) as u64;
        self.index = self.index.max(current);
        let jitter = rand::rng().random_range(0.0..1.0);
        let periods = f64::from(self.stretch);
        let due = self.start + self.period.mul_f64(self.index as f64 + periods * jitter);
        self.index += u64::from(self.stretch);
        self.end = Some(self.start + self.period.mul_f64(self.index as f64));
        self.stretch = 1;
        loop {
            if stop.load(Ordering::Relaxed) {
                return false;
            }
            let now = Instant::now();
            let Some(left) = due
                .checked_duration_since(now)
                .filter(|left| !left.is_zero())
            else {
                let late = now.saturating_duration_since(due);
                self.was_away = late >= AWAY;
                if !self.was_away {
                    self.lateness += late;
                    self.waits += 1;
                }
                return true;
            };
            if left > NAP {
                std::thread::park_timeout(left);
            } else {
                std::thread::sleep(left);
            }
        }
    }

    /// Takes note of how long a sample took. After a long one this thread does not go first for a while: whatever keeps
    /// it busy, others get their share of the CPU.
    pub fn took(&mut self, time: Duration) {
        if time >= LONG && self.turn == Turn::First {
            if self.back.is_none() {
                schedule(libc::SCHED_OTHER, 0);
            }
            self.back = Some(Instant::now() + REST.max(time * 4));
        }
    }

    /// The time between instants; zero for none.
    pub fn period(&self) -> Duration {
        self.period
    }

    /// How many periods `time` is; none where there are no periods.
    pub fn periods(&self, time: Duration) -> u64 {
        if self.period.is_zero() {
            return 0;
        }
        (time.as_secs_f64() / self.period.as_secs_f64()) as u64
    }

    /// Draws the next instant from the next `periods` together, for which its sample stands then, whatever it shows.
    /// (Were it to stand for the time since the one before, what begins after a long gap would get too much.)
    pub fn stretch(&mut self, periods: u32) {
        self.stretch = periods.max(1);
    }

    /// The time from now on that the last instant stands for.
    pub fn ahead(&self) -> Duration {
        self.end.map_or(Duration::ZERO, |end| {
            end.saturating_duration_since(Instant::now())
        })
    }

    /// Whether the last wait was [`AWAY`] too long: we were stopped (Ctrl-Z), or the machine was.
    pub fn was_away(&self) -> bool {
        self.was_away
    }

    /// Mean lateness in microseconds.
    pub fn mean_lateness_us(&self) -> f64 {
        if self.waits == 0 {
            0.0
        } else {
            self.lateness.as_secs_f64() * 1e6 / self.waits as f64
        }
    }
}

/// The head of `struct sched_attr` (include/uapi/linux/sched/types.h), version 0.
#[repr(C)]
struct SchedAttributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime_ns: u64,
    deadline_ns: u64,
    period_ns: u64,
}

/// How this thread gets a CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// As the user has arranged it (`nice`, `chrt`).
    AsItIs,
    /// Before all ordinary threads.
    First,
    /// Soon, for a short time.
    Soon,
}

/// Asks the scheduler to let this thread run as soon as it wakes. Without it a target that has just woken on the same CPU
/// keeps it for milliseconds, often until it falls asleep or hands its work to another thread: samples would then be
/// late just while the target works, and show it asleep.
///
/// `SCHED_FIFO` where it is permitted and `first` says so: there is no better place from which to see short turns of
/// threads. Else a short slice: from Linux 6.12 on, a task with a shorter slice preempts one with a longer slice when it
/// wakes (kernel/sched/fair.c, PREEMPT_SHORT); earlier kernels ignore the slice.
fn ask_for_turns(first: bool) -> Turn {
    // SAFETY: both calls only tell how the calling thread (0) is scheduled. The kernel is asked itself: musl has a
    // sched_getscheduler() that always fails.
    let arranged = unsafe {
        libc::syscall(libc::SYS_sched_getscheduler, 0) != libc::c_long::from(libc::SCHED_OTHER)
            || libc::getpriority(libc::PRIO_PROCESS, 0) != 0
    };
    if arranged {
        Turn::AsItIs
    } else if first && schedule(libc::SCHED_FIFO, 1) {
        Turn::First
    } else {
        schedule(libc::SCHED_OTHER, 0);
        Turn::Soon
    }
}

/// Sets policy and priority of this thread; whether that was permitted. It ends with the thread: children are ordinary.
fn schedule(policy: i32, priority: u32) -> bool {
    let attributes = SchedAttributes {
        size: size_of::<SchedAttributes>() as u32,
        policy: policy as u32,
        flags: libc::SCHED_FLAG_RESET_ON_FORK as u64,
        nice: 0,
        priority,
        runtime_ns: if priority == 0 { SLICE_NS } else { 0 },
        deadline_ns: 0,
        period_ns: 0,
    };
    // SAFETY: sched_setattr reads `size` bytes from a valid struct of that size and changes how the calling
    // thread (0) is scheduled, nothing else.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) == 0 }
}

/// Asks the kernel to wake this thread on time: by default it may be 50 microseconds late.
fn set_timer_slack() {
    // SAFETY: PR_SET_TIMERSLACK takes one integer, the slack in nanoseconds, and changes nothing but the
    // calling thread's timers.
    unsafe {
        libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_hertz_takes_a_thousand_instants_a_second() {
        let mut clock = Clock::new(Rate::Hz(1000.0), false);
        let stop = AtomicBool::new(false);
        let started = Instant::now();
        let mut instants = 0;
        while started.elapsed() < Duration::from_millis(200) {
            assert!(clock.wait(&stop));
            instants += 1;
        }
        // Never more than one a period, whatever the machine does; fewer when it is busy.
        let periods = started.elapsed().as_millis() as u64 + 1;
        assert!(instants <= periods, "{instants} in {periods} periods");
        assert!(clock.mean_lateness_us() >= 0.0);
        assert_eq!(clock.periods(Duration::from_micros(2500)), 2);
        assert_eq!(
            Clock::new(Rate::Max, true).periods(Duration::from_secs(1)),
            0
        );
    }

    #[test]
    fn a_stretched_instant_stands_for_all_of_its_periods() {
        let mut clock = Clock::new(Rate::Hz(1000.0), false);
        let stop = AtomicBool::new(false);
        assert!(clock.wait(&stop));
        assert!(clock.ahead() <= Duration::from_millis(1));
        clock.stretch(20);
        assert!(clock.wait(&stop));
        let taken = clock.index;
        let end = clock.end.expect("an end");
        assert!(clock.ahead() <= Duration::from_millis(20));
        assert!(clock.wait(&stop));
        // The next one lies in a period after all of these.
        assert!(Instant::now() >= end);
        assert!(clock.index > taken);
        assert!(clock.ahead() <= Duration::from_millis(1));
    }

    #[test]
    fn a_stop_ends_a_long_wait() {
        let mut clock = Clock::new(Rate::Hz(0.01), false);
        let stop = AtomicBool::new(false);
        let waiting = std::thread::current();
        let started = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(20));
                stop.store(true, Ordering::SeqCst);
                waiting.unpark();
            });
            assert!(!clock.wait(&stop));
        });
        assert!(started.elapsed() < Duration::from_secs(5));
    }
}
