//! On which CPU this thread runs, which ones the target may use, and whether we were interrupted.
//!
//! While we run on the CPU of a thread of the target, that thread does not: its memory stands still without
//! being stopped. [`Pin`] keeps us on a CPU and puts the old mask back when it is dropped.

use crate::units::{Pid, Tid};

/// CPUs as the kernel counts them (sched_setaffinity(2)).
type Mask = libc::cpu_set_t;

/// Most CPUs in a mask.
const MOST_CPUS: u32 = 8 * size_of::<Mask>() as u32;

/// Keeps the calling thread on one CPU.
pub struct Pin {
    old: Option<Mask>,
    cpu: Option<u32>,
}

impl std::fmt::Debug for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pin").field("cpu", &self.cpu).finish()
    }
}

impl Default for Pin {
    fn default() -> Pin {
        Pin::new()
    }
}

impl Pin {
    /// Not pinned yet.
    pub fn new() -> Pin {
        Pin {
            old: affinity(0),
            cpu: None,
        }
    }

    /// Whether we are pinned to `cpu`, and are there: who manages cpusets may have moved us, mask and all.
    pub fn is_on(&self, cpu: u32) -> bool {
        self.cpu == Some(cpu) && current() == Some(cpu)
    }

    /// Lets the thread run where it could before.
    pub fn let_go(&mut self) {
        if let (Some(old), Some(_)) = (self.old, self.cpu.take()) {
            set_affinity(&old);
        }
    }

    /// Moves to `cpu` and stays there; false where that is not allowed.
    pub fn move_to(&mut self, cpu: u32) -> bool {
        if self.is_on(cpu) {
            return true;
        }
        if cpu >= MOST_CPUS || self.old.is_none() {
            return false;
        }
        let mut mask = empty();
        // SAFETY: `cpu` is below the number of bits in `mask`.
        unsafe { libc::CPU_SET(cpu as usize, &mut mask) };
        let moved = set_affinity(&mask);
        if moved {
            self.cpu = Some(cpu);
        }
        moved && current() == Some(cpu)
    }

    /// Whether every CPU that the target may run on is open to us.
    pub fn may_follow(&mut self, target: Pid) -> bool {
        let (Some(theirs), Some(old)) = (affinity(target.0), self.old) else {
            return false;
        };
        // The kernel cuts the mask to what our cpuset allows without saying so.
        let followed = set_affinity(&theirs) && affinity(0).is_some_and(|got| equal(&got, &theirs));
        set_affinity(&old);
        self.cpu = None;
        followed
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.let_go();
    }
}

/// Where the calling thread is.
fn current() -> Option<u32> {
    // SAFETY: takes nothing, and reads what the kernel keeps for the calling thread.
    u32::try_from(unsafe { libc::sched_getcpu() }).ok()
}

fn empty() -> Mask {
    // SAFETY: cpu_set_t is an array of integers, for which all zeroes is a value.
    unsafe { std::mem::zeroed() }
}

fn equal(a: &Mask, b: &Mask) -> bool {
    // SAFETY: compares two initialised values.
    unsafe { libc::CPU_EQUAL(a, b) }
}

fn affinity(thread: i32) -> Option<Mask> {
    let mut mask = empty();
    // SAFETY: the kernel writes at most `size_of` bytes to `mask`.
    let done = unsafe { libc::sched_getaffinity(thread, size_of::<Mask>(), &raw mut mask) };
    (done == 0).then_some(mask)
}

fn set_affinity(mask: &Mask) -> bool {
    // SAFETY: the kernel only reads `size_of` bytes of `mask`; 0 is the calling thread.
    unsafe { libc::sched_setaffinity(0, size_of::<Mask>(), mask) == 0 }
}

/// How often the calling thread has left its CPU so far, of its own accord or not: equal numbers before and
/// after something prove that it ran without a pause.
pub fn pauses() -> u64 {
    // SAFETY: rusage is plain integers, for which all zeroes is a value; the kernel fills it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage);
        usage
    };
    (usage.ru_nvcsw as u64).wrapping_add(usage.ru_nivcsw as u64)
}

/// The CPU that a thread ran on last: field 39 of `/proc/PID/task/TID/stat` (proc_pid_stat(5)).
pub fn last_cpu(pid: Pid, tid: Tid) -> Option<u32> {
    // The name in parentheses may be anything; what follows the last one is plain text.
    let stat = std::fs::read(format!("/proc/{pid}/task/{tid}/stat")).ok()?;
    let rest = stat.rsplit(|byte| *byte == b')').next()?;
    let rest = std::str::from_utf8(rest).ok()?;
    rest.split_ascii_whitespace().nth(36)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_stays_until_it_is_let_go() {
        let me = Pid(std::process::id() as i32);
        let before = affinity(0).expect("a mask");
        let cpu = last_cpu(me, Tid(me.0)).expect("a CPU");
        {
            let mut pin = Pin::new();
            assert!(pin.may_follow(me));
            assert!(!pin.move_to(MOST_CPUS));
            if pin.move_to(cpu) {
                assert!(pin.is_on(cpu));
                assert!(!pin.is_on(cpu + 1));
                pin.let_go();
                assert!(!pin.is_on(cpu));
            }
        }
        assert!(equal(&before, &affinity(0).expect("a mask")));
        let pauses_before = pauses();
        std::thread::sleep(std::time::Duration::from_millis(1));
        assert!(pauses() > pauses_before);
    }
}
