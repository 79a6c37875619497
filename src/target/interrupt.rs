//! Copies of a thread's memory that are taken in its own timer interrupt: a `cpu-clock` perf event for each thread, with an
//! eBPF program that copies what was planned into a ring ([`program`]). The thread loses the time of the interrupt and no
//! turn on its CPU, and what is copied is of one instant, for nobody else runs in it.
//!
//! Beside that, a thread's coming and going on the CPU ([`Switches`]): when it is asleep, and that it has not run since.
//!
//! Linux 5.8, `CAP_BPF` and `CAP_PERFMON`, or root. Everything ends when the descriptors are closed, which the kernel does
//! when we die.

mod bpf;
pub mod program;

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use perf_event_open_sys::bindings::{
    PERF_COUNT_SW_CPU_CLOCK, PERF_COUNT_SW_DUMMY, PERF_TYPE_SOFTWARE, perf_event_attr,
};
use perf_event_open_sys::ioctls;
use rustc_hash::FxHashMap;

pub use super::watchpoint::ring::Record as Switch;
use super::watchpoint::ring::Ring;
use super::watchpoint::{self, Refusal};
use crate::units::Tid;
use program::Plan;

/// Bytes of the ring: what a drain every 10 ms finds of a thread at 10 kHz, and small enough for the second cache.
const RING: usize = 1 << 20;

/// The same where threads run at the same time, on the CPU of whoever drains it too.
const LARGE_RING: usize = 8 << 20;

/// Most threads that can have a plan at a time: a room is 64 KiB.
pub const MOST_THREADS: u32 = 128;

/// Pages of a thread's coming and going: 128 records each.
const SWITCH_PAGES: usize = 4;

/// `PROC_PID_INIT_INO` (include/linux/proc_ns.h): the PID namespace in which threads have the ids that the kernel counts by.
const FIRST_NAMESPACE: &str = "pid:[4026531836]";

/// Copies threads in their timer interrupts.
#[derive(Debug)]
pub struct Interrupts {
    plans: File,
    /// Kept open for the program.
    _rooms: File,
    ring: bpf::RingBuffer,
    program: File,
    period_ns: u64,
    clocks: FxHashMap<Tid, File>,
}

fn refused(what: &str, error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            format!("{what} is not permitted (it takes root, or CAP_BPF and CAP_PERFMON)")
        }
        Some(libc::ENOSYS) => format!("this kernel has no eBPF for {what}"),
        _ => format!("{what} failed: {error}"),
    }
}

impl Interrupts {
    /// Makes maps and loads the program; no thread is interrupted yet. `at_once`: many of them may run at the same time. The error
    /// says why not, for people.
    pub fn open(period_ns: u64, at_once: bool) -> Result<Interrupts, String> {
        let namespace = std::fs::read_link("/proc/self/ns/pid");
        if namespace.is_ok_and(|name| name.as_os_str() != FIRST_NAMESPACE) {
            return Err("biopsy runs in a PID namespace of its own (a container)".to_string());
        }
        let create = |made: io::Result<File>| made.map_err(|error| refused("an eBPF map", &error));
        let plans = create(bpf::hash(size_of::<Plan>(), MOST_THREADS))?;
        let rooms = create(bpf::array(program::ROOM, MOST_THREADS))?;
        let ring = bpf::RingBuffer::new(if at_once { LARGE_RING } else { RING });
        let ring = ring.map_err(|error| refused("an eBPF ring buffer", &error))?;
        let code = program::assemble(plans.as_raw_fd(), rooms.as_raw_fd(), ring.descriptor());
        let program = bpf::load(&code).map_err(|(error, log)| {
            // The last lines say what was wrong.
            let lines: Vec<&str> = log.lines().collect();
            let end = lines.get(lines.len().saturating_sub(4)..);
            let log = end.unwrap_or_default().join("; ");
            match log.is_empty() {
                true => refused("an eBPF program", &error),
                false => format!("the kernel's verifier refuses the eBPF program: {log}"),
            }
        })?;
        Ok(Interrupts {
            plans,
            _rooms: rooms,
            ring,
            program,
            period_ns,
            clocks: FxHashMap::default(),
        })
    }

    /// Interrupts a thread, and those that it starts from now on, each time that it has been on a CPU for the period.
    pub fn start(&mut self, tid: Tid) -> Result<(), Refusal> {
        if self.clocks.contains_key(&tid) {
            return Ok(());
        }
        let mut attributes = perf_event_attr {
            size: size_of::<perf_event_attr>() as u32,
            type_: PERF_TYPE_SOFTWARE,
            config: u64::from(PERF_COUNT_SW_CPU_CLOCK),
            ..perf_event_attr::default()
        };
        attributes.__bindgen_anon_1.sample_period = self.period_ns;
        attributes.set_disabled(1);
        attributes.set_inherit(1);
        attributes.set_inherit_thread(1);
        let clock = watchpoint::open(&mut attributes, tid)?;
        let program = self.program.as_raw_fd() as u32;
        // SAFETY: ioctls with numbers as their arguments on a descriptor that we own.
        let started = unsafe {
            ioctls::SET_BPF(clock.as_raw_fd(), program) == 0
                && ioctls::ENABLE(clock.as_raw_fd(), 0) == 0
        };
        if !started {
            return Err(Refusal::NotAvailable);
        }
        self.clocks.insert(tid, clock);
        Ok(())
    }

    /// What is copied of a thread from now on.
    pub fn set_plan(&self, tid: Tid, plan: &Plan) -> Result<(), String> {
        let key = u32::try_from(tid.0).unwrap_or(0);
        bpf::update(&self.plans, key, plan).map_err(|error| refused("an eBPF map", &error))
    }

    /// Nothing more is copied of a thread.
    pub fn forget(&self, tid: Tid) {
        // There is none when the thread never had a plan.
        let _ = bpf::delete(&self.plans, u32::try_from(tid.0).unwrap_or(0));
    }

    /// The time between interrupts.
    pub fn period_ns(&self) -> u64 {
        self.period_ns
    }

    /// Changes the time between interrupts.
    pub fn set_period(&mut self, period_ns: u64) {
        self.period_ns = period_ns;
        let period = period_ns;
        for clock in self.clocks.values() {
            // SAFETY: the kernel reads 8 bytes at `period`; the descriptor is ours.
            unsafe { ioctls::PERIOD(clock.as_raw_fd(), (&raw const period) as u64) };
        }
    }

    /// Takes the next record, laid out as [`program::record`] says; false when there is none.
    pub fn next(&mut self, record: &mut Vec<u8>) -> bool {
        self.ring.next(record)
    }
}

/// The coming and going of a thread on the CPU.
#[derive(Debug)]
pub struct Switches {
    ring: Ring,
    /// Owns the ring.
    _event: File,
}

impl Switches {
    /// From now on.
    pub fn open(tid: Tid) -> Result<Switches, Refusal> {
        let mut attributes = watchpoint::attributes();
        attributes.type_ = PERF_TYPE_SOFTWARE;
        attributes.config = u64::from(PERF_COUNT_SW_DUMMY);
        attributes.set_context_switch(1);
        attributes.set_disabled(0);
        let event = watchpoint::open(&mut attributes, tid)?;
        let ring = Ring::of(&event, SWITCH_PAGES).ok_or(Refusal::NotAvailable)?;
        Ok(Switches {
            ring,
            _event: event,
        })
    }

    /// Tells all that has happened since the last call, in order.
    pub fn take(&mut self, each: impl FnMut(Switch)) {
        self.ring.take(each);
    }

    /// The same number as before means that the thread has neither come nor gone since.
    pub fn count(&self) -> u64 {
        self.ring.head()
    }
}

#[cfg(test)]
mod tests {
    use super::program::{Part, record};
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn own_tid() -> Tid {
        // SAFETY: takes nothing and returns a number.
        Tid(unsafe { libc::gettid() })
    }

    fn word(bytes: &[u8], at: usize) -> u64 {
        crate::layout::word(bytes, at).unwrap_or(0)
    }

    /// Uses the CPU for so long, whoever else does.
    fn spin(ms: u64) {
        let own = || {
            let pid = crate::units::Pid(std::process::id().cast_signed());
            crate::target::threads::times(pid, own_tid()).map_or(u64::MAX, |times| times.0)
        };
        let started_ns = own();
        while own().saturating_sub(started_ns) < ms * 1_000_000 {
            for _ in 0..20_000 {
                std::hint::spin_loop();
            }
        }
    }

    /// Interrupts, or a word about why there are none here.
    fn open() -> Option<Interrupts> {
        match Interrupts::open(1_000_000, true) {
            Ok(interrupts) => Some(interrupts),
            Err(why) => {
                assert!(!why.contains("verifier"), "{why}");
                println!("NOT HERE: timer interrupts: {why}");
                None
            }
        }
    }

    #[test]
    fn memory_is_copied_in_the_interrupt() {
        let Some(mut interrupts) = open() else { return };
        let text = [7u8; 3000];
        let mut frames: Vec<[u64; 64]> = vec![[0; 64]; 3];
        let addresses: Vec<u64> = frames.iter().map(|frame| frame.as_ptr() as u64).collect();
        // A chain of three; the second one is inside of a part.
        frames[0][2] = addresses[1];
        frames[1][2] = addresses[2];
        frames[2][5] = 77;
        let head = addresses[0];
        let mut plan = Plan {
            room: 3,
            count: 3,
            version: 9,
            bytes: 3000 + 512 + 8,
            follows: 1,
            innermost: (&raw const head) as u64,
            low: addresses[1],
            high: addresses[1] + 512,
            previous: 16,
            frame: 64,
            ..Plan::default()
        };
        let part = |address, length, offset| Part {
            address,
            length,
            offset,
        };
        plan.parts[0] = part(text.as_ptr() as u64, 3000, 0);
        plan.parts[1] = part(addresses[1], 512, 3000);
        plan.parts[2] = part(8, 8, 3512);
        let me = own_tid();
        interrupts.set_plan(me, &plan).expect("a plan");
        interrupts.start(me).expect("a clock");
        spin(50);
        let mut bytes = Vec::new();
        let mut seen = 0;
        while interrupts.next(&mut bytes) {
            seen += 1;
            assert_eq!(word(&bytes, record::SEQUENCE), seen);
            assert_eq!(word(&bytes, record::VERSION), 9);
            assert_eq!(word(&bytes, record::VERSION_AFTER), 9);
            assert_eq!(word(&bytes, record::FAILED), 1 << 2);
            assert_eq!(word(&bytes, record::TID), me.0 as u64);
            assert_eq!(word(&bytes, record::BYTES), 3520 + 2 * 512);
            assert_eq!(bytes.len(), record::HEAD + 3520 + 2 * 512);
            let data = &bytes[record::HEAD..];
            assert!(data[..3000].iter().all(|byte| *byte == 7));
            assert_eq!(word(data, 3000 + 16), addresses[2]);
            assert_eq!(word(data, 3512), 0);
            assert_eq!(word(data, 3520), addresses[0]);
            assert_eq!(word(data, 3520 + 8 + 16), addresses[1]);
            assert_eq!(word(data, 4032), addresses[2]);
            assert_eq!(word(data, 4032 + 8 + 40), 77);
        }
        assert!(seen > 5, "{seen}");
        // The same by way of a word that has the innermost frame's address.
        plan.indirect = 24;
        let knows = [0, 0, 0, head, 5, 6];
        let innermost = (&raw const knows) as u64;
        plan.innermost = (&raw const innermost) as u64;
        for follows in [0, 1] {
            plan.follows = follows;
            plan.version += 1;
            interrupts.set_plan(me, &plan).expect("a plan");
            spin(5);
            let mut seen = 0;
            while interrupts.next(&mut bytes) {
                if word(&bytes, record::VERSION) != plan.version {
                    continue;
                }
                seen += 1;
                let blocks = if follows == 1 { 3 } else { 1 };
                assert_eq!(bytes.len(), record::HEAD + 3520 + blocks * 512);
                assert_eq!(word(&bytes, record::HEAD + 3520), innermost);
                assert_eq!(word(&bytes, record::HEAD + 3520 + 8 + 24), head);
            }
            assert!(seen > 0);
        }
        drop((text, frames));
        interrupts.forget(me);
        spin(5);
        assert!(interrupts.next(&mut bytes));
        assert_eq!(word(&bytes, record::VERSION), 0);
    }

    #[test]
    fn threads_that_are_started_are_interrupted_too() {
        let Some(mut interrupts) = open() else { return };
        let me = own_tid();
        interrupts.start(me).expect("a clock");
        let other = std::thread::spawn(|| {
            spin(20);
            own_tid()
        });
        let other = other.join().expect("it ends").0 as u64;
        let (mut bytes, mut seen) = (Vec::new(), 0);
        while interrupts.next(&mut bytes) {
            seen += usize::from(word(&bytes, record::TID) == other);
        }
        assert!(seen > 1, "{seen}");
    }

    #[test]
    fn coming_and_going_is_told() {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (send, receive) = std::sync::mpsc::channel();
            let stop = &stop;
            scope.spawn(move || {
                send.send(own_tid()).expect("somebody listens");
                while !stop.load(Ordering::Relaxed) {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
            });
            let tid = receive.recv().expect("a thread");
            let mut switches = match Switches::open(tid) {
                Ok(switches) => switches,
                Err(why) => {
                    println!("NOT HERE: context switches: {why:?}");
                    return stop.store(true, Ordering::Relaxed);
                }
            };
            std::thread::sleep(std::time::Duration::from_millis(30));
            stop.store(true, Ordering::Relaxed);
            let before = switches.count();
            let (mut ins, mut asleep) = (0, 0);
            switches.take(|switch| match switch {
                Switch::In { .. } => ins += 1,
                Switch::Out { ready: false, .. } => asleep += 1,
                _ => {}
            });
            assert!(ins > 1 && asleep > 1 && before > 0, "{ins} {asleep}");
        });
    }
}
