//! Hardware watchpoints in one thread of another process: the CPU's debug registers tell each write to a word, or each
//! execution of an instruction, without a change to the process and without stopping it.
//!
//! Through `perf_event_open` with `PERF_TYPE_BREAKPOINT` (Linux, kernel/events/hw_breakpoint.c), which needs no PMU and
//! works in virtual machines. There are [`REGISTERS`] of them a thread. Each hit costs the thread a debug exception, so a
//! watchpoint takes a limit of hits after which the kernel switches it off by itself. All hits of a thread, and its coming
//! and going on the CPU, go in order of time to one [`Ring`]. Everything is undone when the descriptors are closed, which
//! the kernel does when we die.

pub(super) mod ring;

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};

use perf_event_open_sys::bindings::{
    HW_BREAKPOINT_W, HW_BREAKPOINT_X, PERF_COUNT_SW_DUMMY, PERF_FLAG_FD_CLOEXEC,
    PERF_SAMPLE_IDENTIFIER, PERF_SAMPLE_IP, PERF_SAMPLE_TIME, PERF_TYPE_BREAKPOINT,
    PERF_TYPE_SOFTWARE, perf_event_attr,
};
use perf_event_open_sys::{ioctls, perf_event_open};

use ring::Ring;

use crate::units::Tid;

/// Debug registers of a thread (x86-64).
pub const REGISTERS: usize = 4;

/// Length of what is watched, bytes. The CPU wants an execution to be watched with the length of a `long`.
const LENGTH: u64 = 8;

/// What is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// Writes to the 8 bytes at the address, which is a multiple of 8.
    Write,
    /// Executions of the instruction at the address.
    Execute,
}

/// Why a watchpoint cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The kernel does not let us.
    NotPermitted,
    /// This kernel or machine has none.
    NotAvailable,
    /// All registers of the thread are taken, by a debugger for example.
    Busy,
    /// The thread has ended.
    Gone,
}

/// Something that happened in a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A register's watchpoint was hit.
    Hit {
        /// Which one.
        register: usize,
        /// When, nanoseconds of `CLOCK_MONOTONIC`.
        at_ns: u64,
        /// Address of the instruction after the one that wrote, or of the one that was executed.
        instruction: u64,
    },
    /// The thread came onto a CPU.
    In {
        /// When.
        at_ns: u64,
    },
    /// The thread left the CPU.
    Out {
        /// When.
        at_ns: u64,
    },
    /// Events were lost: nobody had taken the earlier ones.
    Lost,
}

/// One debug register.
#[derive(Debug, Default)]
struct Register {
    file: Option<File>,
    /// The kernel's name of it in the ring.
    id: u64,
    what: Option<(u64, Access)>,
    /// Hits that are left until the kernel switches it off; `None` for no limit.
    left: Option<u32>,
    enabled: bool,
    /// Whether it was switched off by its limit: some kernels do not start such an event again.
    spent: bool,
}

/// The watchpoints of one thread.
#[derive(Debug)]
pub struct Watch {
    tid: Tid,
    /// Owns the ring, and tells when the thread comes and goes.
    carrier: File,
    ring: Ring,
    registers: [Register; REGISTERS],
    carries: bool,
}

impl Watch {
    /// Opens what all watchpoints of a thread share; nothing is watched yet.
    pub fn open(tid: Tid) -> Result<Watch, Refusal> {
        Watch::open_with(tid, ring::PAGES)
    }

    /// The same with so many pages of events, a power of two. Each holds 128 hits.
    pub fn open_with(tid: Tid, pages: usize) -> Result<Watch, Refusal> {
        let mut attributes = attributes();
        attributes.type_ = PERF_TYPE_SOFTWARE;
        attributes.config = u64::from(PERF_COUNT_SW_DUMMY);
        attributes.set_context_switch(1);
        let carrier = open(&mut attributes, tid)?;
        let ring = Ring::of(&carrier, pages).ok_or(Refusal::NotAvailable)?;
        Ok(Watch {
            tid,
            carrier,
            ring,
            registers: Default::default(),
            carries: false,
        })
    }

    /// The thread.
    pub fn tid(&self) -> Tid {
        self.tid
    }

    /// Watches from now on, or from when the thread is next on a CPU. After `limit` hits, if there is one, the kernel
    /// switches it off. Hits that have not been taken with [`Watch::take`] yet are the former watchpoint's.
    pub fn set(
        &mut self,
        register: usize,
        address: u64,
        access: Access,
        limit: Option<u32>,
    ) -> Result<(), Refusal> {
        if !self.carries {
            // SAFETY: an ioctl without an argument on a descriptor that we own.
            unsafe { ioctls::ENABLE(self.carrier.as_raw_fd(), 0) };
            self.carries = true;
        }
        let carrier = self.carrier.as_raw_fd();
        let place = self
            .registers
            .get_mut(register)
            .ok_or(Refusal::NotAvailable)?;
        place.disable();
        let mut attributes = watchpoint(address, access);
        let same = place.what == Some((address, access)) && place.left.is_some() == limit.is_some();
        let kept = match &place.file {
            _ if place.spent => false,
            Some(_) if same => true,
            Some(file) if place.left.is_some() == limit.is_some() => {
                let fd = file.as_raw_fd();
                // SAFETY: `attributes` is a whole perf_event_attr that outlives the call.
                unsafe { ioctls::MODIFY_ATTRIBUTES(fd, &raw mut attributes) == 0 }
            }
            _ => false,
        };
        if !kept {
            place.file = None;
            place.what = None;
            let file = open(&mut attributes, self.tid)?;
            let fd = file.as_raw_fd();
            let mut id = 0u64;
            // SAFETY: the kernel writes 8 bytes to `id`; both descriptors are open.
            let joined =
                unsafe { ioctls::ID(fd, &raw mut id) == 0 && ioctls::SET_OUTPUT(fd, carrier) == 0 };
            if !joined {
                return Err(Refusal::NotAvailable);
            }
            (place.file, place.id, place.spent) = (Some(file), id, false);
        }
        // The kernel adds to what is left of the limit before.
        let remaining = place.left.filter(|_| kept).unwrap_or(0);
        place.what = Some((address, access));
        place.left = limit;
        let Some(file) = &place.file else {
            return Err(Refusal::NotAvailable);
        };
        let fd = file.as_raw_fd();
        // SAFETY: ioctls with a number as their argument on a descriptor that we own.
        let done = unsafe {
            match limit {
                Some(limit) => {
                    let more = i64::from(limit.max(1)) - i64::from(remaining);
                    ioctls::REFRESH(fd, i32::try_from(more).unwrap_or(i32::MAX)) == 0
                }
                None => ioctls::ENABLE(fd, 0) == 0,
            }
        };
        place.enabled = done;
        if !done {
            return Err(last_refusal());
        }
        Ok(())
    }

    /// Watches nothing there any more.
    pub fn clear(&mut self, register: usize) {
        if let Some(place) = self.registers.get_mut(register) {
            place.disable();
        }
        if self.carries && self.registers.iter().all(|place| !place.enabled) {
            // SAFETY: an ioctl without an argument on a descriptor that we own.
            unsafe { ioctls::DISABLE(self.carrier.as_raw_fd(), 0) };
            self.carries = false;
        }
    }

    /// Whether the limit of a register has been reached, as far as events were taken.
    pub fn is_spent(&self, register: usize) -> bool {
        self.registers
            .get(register)
            .is_some_and(|place| place.spent)
    }

    /// Hands over what has happened since the last call, in order of time.
    pub fn take(&mut self, mut event: impl FnMut(Event)) {
        let registers = &mut self.registers;
        self.ring.take(|record| {
            let seen = match record {
                ring::Record::Sample {
                    id,
                    at_ns,
                    instruction,
                } => {
                    let mut places = registers.iter_mut().enumerate();
                    let found = places.find(|(_, place)| place.id == id && place.file.is_some());
                    let Some((register, place)) = found else {
                        return;
                    };
                    if let Some(left) = &mut place.left {
                        *left = left.saturating_sub(1);
                        place.spent |= *left == 0;
                    }
                    Event::Hit {
                        register,
                        at_ns,
                        instruction,
                    }
                }
                ring::Record::In { at_ns } => Event::In { at_ns },
                ring::Record::Out { at_ns, .. } => Event::Out { at_ns },
                ring::Record::Lost => Event::Lost,
            };
            event(seen);
        });
    }

    /// For `poll`: readable when the ring is half full, at an end of file when the thread has ended.
    pub fn descriptor(&self) -> RawFd {
        self.carrier.as_raw_fd()
    }
}

impl Register {
    fn disable(&mut self) {
        if self.enabled
            && let Some(file) = &self.file
        {
            // SAFETY: an ioctl without an argument on a descriptor that we own.
            unsafe { ioctls::DISABLE(file.as_raw_fd(), 0) };
        }
        self.enabled = false;
    }
}

/// What all our events have in common. The ring tells one by its identifier, with the instruction and the time.
pub(super) fn attributes() -> perf_event_attr {
    let mut attributes = perf_event_attr {
        size: size_of::<perf_event_attr>() as u32,
        sample_type: u64::from(PERF_SAMPLE_IP | PERF_SAMPLE_TIME | PERF_SAMPLE_IDENTIFIER),
        clockid: libc::CLOCK_MONOTONIC,
        ..perf_event_attr::default()
    };
    attributes.set_disabled(1);
    attributes.set_exclude_kernel(1);
    attributes.set_exclude_hv(1);
    attributes.set_sample_id_all(1);
    attributes.set_use_clockid(1);
    // A wake-up for each hit would cost the thread more than the hit.
    attributes.set_watermark(1);
    attributes.__bindgen_anon_2.wakeup_watermark = ring::HALF as u32;
    attributes
}

fn watchpoint(address: u64, access: Access) -> perf_event_attr {
    let mut attributes = attributes();
    attributes.type_ = PERF_TYPE_BREAKPOINT;
    attributes.__bindgen_anon_1.sample_period = 1;
    attributes.bp_type = match access {
        Access::Write => HW_BREAKPOINT_W,
        Access::Execute => HW_BREAKPOINT_X,
    };
    attributes.__bindgen_anon_3.bp_addr = address;
    attributes.__bindgen_anon_4.bp_len = LENGTH;
    attributes
}

pub(super) fn open(attributes: &mut perf_event_attr, tid: Tid) -> Result<File, Refusal> {
    // SAFETY: `attributes` is a whole perf_event_attr whose `size` says so.
    let fd = unsafe {
        perf_event_open(
            &raw mut *attributes,
            tid.0,
            -1,
            -1,
            u64::from(PERF_FLAG_FD_CLOEXEC),
        )
    };
    if fd < 0 {
        return Err(last_refusal());
    }
    // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
    Ok(unsafe { File::from_raw_fd(fd) })
}

fn last_refusal() -> Refusal {
    match std::io::Error::last_os_error().raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => Refusal::NotPermitted,
        Some(libc::ESRCH) => Refusal::Gone,
        Some(libc::ENOSPC | libc::EMFILE | libc::ENFILE | libc::EBUSY) => Refusal::Busy,
        _ => Refusal::NotAvailable,
    }
}

/// Allows this process as many descriptors as it may have: each thread that is watched takes up to five. How many that
/// are.
pub fn allow_descriptors() -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel writes to `limit`, then reads it; the soft limit of this process is raised to its hard one.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) != 0 {
            return 0;
        }
        let raised = libc::rlimit {
            rlim_cur: limit.rlim_max,
            ..limit
        };
        if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) == 0 {
            raised.rlim_cur
        } else {
            limit.rlim_cur
        }
    }
}

/// Descriptors that are left for everything else: whoever reads a process opens several a thread.
const SPARE_DESCRIPTORS: u64 = 96;

/// Whether `more` descriptors leave enough of them for the rest of this process.
pub fn has_descriptors(more: usize) -> bool {
    let open = std::fs::read_dir("/proc/self/fd").map_or(usize::MAX, Iterator::count) as u64;
    let allowed = allow_descriptors();
    open.saturating_add(more as u64)
        .saturating_add(SPARE_DESCRIPTORS.max(allowed / 4))
        <= allowed
}

/// Nanoseconds of `CLOCK_MONOTONIC`, the clock of events.
pub fn now_ns() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes to `time`.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// The id of the calling thread.
fn own_tid() -> Tid {
    // SAFETY: a system call without arguments that cannot fail.
    Tid(unsafe { libc::gettid() })
}

/// What a hit costs a thread, nanoseconds: measured on the calling thread, where `hits` writes are watched. Other
/// threads lose more where the exception throws their data out of the caches.
pub fn cost_of_a_hit(hits: u32) -> Result<u64, Refusal> {
    use std::sync::atomic::{AtomicU64, Ordering};
    let word = AtomicU64::new(0);
    let mut watch = Watch::open(own_tid())?;
    let address = (&raw const word) as u64;
    watch.set(0, address, Access::Write, None)?;
    for _ in 0..hits {
        word.fetch_add(1, Ordering::SeqCst);
    }
    watch.clear(0);
    let mut times = Vec::with_capacity(hits as usize);
    watch.take(|event| {
        if let Event::Hit { at_ns, .. } = event {
            times.push(at_ns);
        }
    });
    let mut gaps: Vec<u64> = times
        .windows(2)
        .filter_map(|pair| Some(pair.get(1)?.saturating_sub(*pair.first()?)))
        .collect();
    gaps.sort_unstable();
    gaps.get(gaps.len() / 2)
        .copied()
        .ok_or(Refusal::NotAvailable)
}

/// Bytes that a thread works on between hits: about what an interpreter has in the first cache.
const WORKING: usize = 24 << 10;

/// Rounds of [`cost_of_a_hit_at_work`].
const ROUNDS: usize = 11;

/// The same beside other work: the time that `hits` of them add to work on [`WORKING`] bytes, which each throws out of the
/// caches in part. From the middle one of a few rounds with and without: the best would be less than what most hits cost, and few
/// rounds are so long that another program comes in between.
pub fn cost_of_a_hit_at_work(hits: u32) -> Result<u64, Refusal> {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Instant;
    let word = AtomicU64::new(0);
    let mut watch = Watch::open(own_tid())?;
    let address = (&raw const word) as u64;
    let mut memory = vec![1u8; WORKING];
    let mut work = |hits: u32| {
        let began = Instant::now();
        for _ in 0..hits {
            for line in memory.chunks_mut(64) {
                if let Some(first) = line.first_mut() {
                    *first = std::hint::black_box(first.wrapping_add(1));
                }
            }
            word.fetch_add(1, Ordering::SeqCst);
        }
        began.elapsed().as_nanos() as u64
    };
    let round = (hits / ROUNDS as u32).max(1);
    let (mut with, mut without) = ([0; ROUNDS], [0; ROUNDS]);
    for (with, without) in with.iter_mut().zip(&mut without) {
        *without = work(round);
        watch.set(0, address, Access::Write, None)?;
        *with = work(round);
        watch.clear(0);
        watch.take(|_| {});
    }
    let [with, without] = [with, without].map(|mut rounds| {
        rounds.sort_unstable();
        rounds.get(ROUNDS / 2).copied().unwrap_or_default()
    });
    Ok(with.saturating_sub(without) / u64::from(round))
}

/// What would permit watchpoints, for people.
pub fn what_permits() -> String {
    let level = std::fs::read_to_string("/proc/sys/kernel/perf_event_paranoid");
    let level = level.ok().and_then(|text| text.trim().parse::<i32>().ok());
    match level {
        Some(level) if level > 2 => format!(
            "it takes root, CAP_PERFMON, or kernel.perf_event_paranoid <= 2 (it is {level})"
        ),
        _ => "it takes root or CAP_PERFMON, and a container's seccomp profile must allow perf_event_open"
            .to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Watchpoints of this thread, or a word about why there are none here.
    fn own() -> Option<Watch> {
        match Watch::open(own_tid()) {
            Ok(watch) => Some(watch),
            Err(why) => {
                println!("NOT HERE: hardware watchpoints: {why:?}");
                None
            }
        }
    }

    fn hits(watch: &mut Watch) -> Vec<usize> {
        let mut found = Vec::new();
        watch.take(|event| {
            if let Event::Hit { register, .. } = event {
                found.push(register);
            }
        });
        found
    }

    #[test]
    fn each_write_is_a_hit() {
        let Some(mut watch) = own() else { return };
        let words: [AtomicU64; REGISTERS] = Default::default();
        for round in 0..3 {
            for (register, word) in words.iter().enumerate() {
                let address = (&raw const *word) as u64;
                watch
                    .set(register, address, Access::Write, None)
                    .expect("a register");
            }
            for (register, word) in words.iter().enumerate() {
                for _ in 0..=register {
                    word.fetch_add(1, Ordering::SeqCst);
                }
            }
            let expected = [0, 1, 1, 2, 2, 2, 3, 3, 3, 3];
            assert_eq!(hits(&mut watch), expected, "round {round}");
            watch.clear(0);
            words[0].fetch_add(1, Ordering::SeqCst);
            assert!(hits(&mut watch).is_empty());
        }
    }

    #[test]
    fn a_limit_ends_it_and_it_can_be_set_again() {
        let Some(mut watch) = own() else { return };
        let (one, two) = (AtomicU64::new(0), AtomicU64::new(0));
        for word in [&one, &one, &two, &one] {
            let address = (&raw const *word) as u64;
            watch
                .set(1, address, Access::Write, Some(5))
                .expect("a register");
            for _ in 0..9 {
                word.fetch_add(1, Ordering::SeqCst);
            }
            assert_eq!(hits(&mut watch), [1; 5]);
            assert!(watch.is_spent(1));
        }
        // What was left of a limit does not count for the next one.
        for (limit, writes, found) in [(9, 2, 2), (4, 9, 4), (3, 1, 1), (8, 20, 8)] {
            let address = (&raw const one) as u64;
            watch
                .set(1, address, Access::Write, Some(limit))
                .expect("a register");
            for _ in 0..writes {
                one.fetch_add(1, Ordering::SeqCst);
            }
            assert_eq!(hits(&mut watch).len(), found, "{limit}");
        }
        // Not spent: the same event goes on with another address.
        for word in [&one, &two, &one] {
            let address = (&raw const *word) as u64;
            watch
                .set(1, address, Access::Write, Some(5))
                .expect("a register");
            for _ in 0..3 {
                word.fetch_add(1, Ordering::SeqCst);
            }
            assert_eq!(hits(&mut watch), [1; 3]);
            assert!(!watch.is_spent(1));
        }
    }

    #[test]
    fn executions_are_counted() {
        #[inline(never)]
        fn called(n: u64) -> u64 {
            std::hint::black_box(n) + 1
        }
        let Some(mut watch) = own() else { return };
        let address = called as fn(u64) -> u64 as usize as u64;
        watch
            .set(2, address, Access::Execute, None)
            .expect("a register");
        for n in 0..7 {
            called(n);
        }
        assert_eq!(hits(&mut watch), [2; 7]);
    }

    #[test]
    fn what_is_too_much_is_refused() {
        assert!(matches!(Watch::open(Tid(i32::MAX)), Err(Refusal::Gone)));
        let Some(mut watch) = own() else { return };
        let one = AtomicU64::new(0);
        let address = (&raw const one) as u64;
        assert!(watch.set(REGISTERS, address, Access::Write, None).is_err());
        // An address that nothing can be watched at.
        assert!(watch.set(0, address + 1, Access::Write, None).is_err());
        assert!(watch.set(0, u64::MAX - 7, Access::Write, None).is_err());
        assert!(watch.set(0, address, Access::Write, None).is_ok());
    }

    #[test]
    fn a_hit_has_a_cost() {
        for measured in [cost_of_a_hit(200), cost_of_a_hit_at_work(200)] {
            match measured {
                Ok(cost_ns) => assert!((100..200_000).contains(&cost_ns), "{cost_ns}"),
                Err(why) => println!("NOT HERE: hardware watchpoints: {why:?}"),
            }
        }
    }
}
