//! Threads of a process held still by ptrace(2), and let go whatever happens.
//!
//! They are seized first, which stops nobody, then all interrupted, so that the time between the first and the last
//! one to stop is short; the list of threads is read again until it has no new one. No signal is sent: a process
//! that somebody stopped stays stopped when it is let go, and its parent is told nothing.
//!
//! When we die, by SIGKILL too, the kernel detaches our tracees and they run on. A thread that a stop wakes from a
//! system call goes back to it unseen, but for a few calls that the kernel never restarts: see [`cure`].
//!
//! All of it must happen in one OS thread, which the kernel holds to be the tracer; when that thread ends, the kernel
//! lets go of all that it still holds.

use std::cell::RefCell;
use std::io;
use std::marker::PhantomData;
use std::path::Path;
use std::time::{Duration, Instant};

use rustc_hash::FxHashSet;

use crate::target::process;
use crate::units::{Pid, Tid};

/// A thread that sleeps in the kernel where nothing wakes it (vfork, a dead network disk) counts as held after this
/// long: it cannot get back to its program without stopping.
const ASLEEP_AFTER: Duration = Duration::from_millis(100);

/// All must have stopped by then. Long: the machine may be busy, and a wrong refusal is worse than a wait.
const DEADLINE: Duration = Duration::from_secs(2);

/// How long the wait for threads to stop goes without a sleep; 27 threads take 0.5 ms.
const BUSY_WAIT: Duration = Duration::from_millis(2);

/// How long threads that are to be let go, and run still, are waited for.
const LETTING_GO: Duration = Duration::from_millis(100);

/// Rounds in which new threads are looked for.
const MOST_ROUNDS: usize = 1000;

/// Why threads cannot be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The process has ended, or is about to.
    Gone,
    /// Another process traces it.
    Traced(Pid),
    /// The kernel does not allow it.
    Denied,
    /// This thread did not stop.
    Restless(Tid),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Ours, and runs.
    Seized,
    /// Told to stop.
    Interrupted,
    /// Stands still.
    Stopped,
    /// Met on the way to a stop, with this signal in hand, which is its due.
    WithSignal(i32),
    /// A zombie whose end cannot be taken note of yet, as with a main thread that ended before others.
    Dying,
    /// Is no more.
    Ended,
}

impl Phase {
    fn is_over(self) -> bool {
        matches!(self, Phase::Dying | Phase::Ended)
    }
}

#[derive(Debug, Clone, Copy)]
struct Thread {
    tid: i32,
    /// Whether it is the main one of a program that we started: its end is not for us to take note of, but for who
    /// waits for the program.
    own_child: bool,
    phase: Phase,
}

thread_local! {
    /// Threads that slept in the kernel and so could not be let go by this OS thread yet.
    static LEFT: RefCell<Vec<Thread>> = const { RefCell::new(Vec::new()) };
}

/// Threads that stand still until this is dropped.
#[derive(Debug)]
pub struct Guard {
    threads: Vec<Thread>,
    since: Option<Instant>,
    /// Only the OS thread that holds them can let them go.
    _here: PhantomData<*const ()>,
}

impl Guard {
    /// Stops all threads of `pid`.
    pub fn all(pid: Pid) -> Result<Guard, Refusal> {
        let mut guard = Guard::none();
        let mut known = FxHashSet::default();
        for _ in 0..MOST_ROUNDS {
            let listed = tasks(pid).ok_or(Refusal::Gone)?;
            let new: Vec<i32> = listed
                .into_iter()
                .filter(|tid| known.insert(*tid))
                .collect();
            if new.is_empty() {
                break;
            }
            guard.take(pid, &new)?;
        }
        guard.checked()
    }

    /// Stops those of `tids` that are threads of `pid` still.
    pub fn some(pid: Pid, tids: &[Tid]) -> Result<Guard, Refusal> {
        let mut guard = Guard::none();
        // The id of one that has ended may be that of a thread of another process by now.
        let is_there = |tid: &i32| Path::new(&format!("/proc/{pid}/task/{tid}")).exists();
        let tids: FxHashSet<i32> = tids.iter().map(|tid| tid.0).filter(is_there).collect();
        let tids = Vec::from_iter(tids);
        guard.take(pid, &tids)?;
        guard.checked()
    }

    fn none() -> Guard {
        // Those of an earlier time that have stopped by now must not wait longer.
        LEFT.with_borrow_mut(|left| {
            left.retain_mut(|thread| {
                thread.look();
                !thread.let_go()
            });
        });
        Guard {
            threads: Vec::new(),
            since: None,
            _here: PhantomData,
        }
    }

    fn checked(self) -> Result<Guard, Refusal> {
        let all_ended = self.threads.iter().all(|thread| thread.phase.is_over());
        if all_ended {
            Err(Refusal::Gone)
        } else {
            Ok(self)
        }
    }

    /// Seizes, interrupts and waits for `tids`.
    fn take(&mut self, pid: Pid, tids: &[i32]) -> Result<(), Refusal> {
        let first = self.threads.len();
        let parent = process::stat(pid).map(|stat| stat.parent.0);
        let own_child = parent == i32::try_from(std::process::id()).ok();
        for &tid in tids {
            match seize(tid) {
                Ok(()) => self.threads.push(Thread {
                    tid,
                    own_child: own_child && tid == pid.0,
                    phase: Phase::Seized,
                }),
                Err(error) => match why_not(pid, tid, &error) {
                    Some(refusal) => return Err(refusal),
                    // It has ended, or was left over from an earlier time and is ours already.
                    None => self.threads.extend(left_over(tid)),
                },
            }
        }
        self.since.get_or_insert_with(Instant::now);
        let new = self.threads.get_mut(first..).unwrap_or_default();
        for thread in &mut *new {
            thread.interrupt();
        }
        settle(pid, new)
    }

    /// The threads that stand still, those in the kernel's deep sleep included.
    pub fn threads(&self) -> impl Iterator<Item = Tid> + '_ {
        let held = |thread: &&Thread| !thread.phase.is_over();
        self.threads
            .iter()
            .filter(held)
            .map(|thread| Tid(thread.tid))
    }

    /// Lets them go; gives the time since the first of them may have stopped.
    pub fn release(mut self) -> Duration {
        let since = self.since;
        self.let_go();
        since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn let_go(&mut self) {
        let mut threads = std::mem::take(&mut self.threads);
        threads.retain_mut(|thread| !thread.let_go());
        if threads.is_empty() {
            return;
        }
        let start = Instant::now();
        for thread in &mut threads {
            thread.interrupt();
        }
        while !threads.is_empty() && start.elapsed() < LETTING_GO {
            threads.retain_mut(|thread| {
                thread.look();
                !thread.let_go()
            });
            std::thread::yield_now();
        }
        LEFT.with_borrow_mut(|left| left.append(&mut threads));
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.let_go();
    }
}

impl Thread {
    fn interrupt(&mut self) {
        if self.phase == Phase::Seized {
            self.phase = match request(libc::PTRACE_INTERRUPT, self.tid, 0) {
                Ok(()) => Phase::Interrupted,
                Err(_) => Phase::Ended,
            };
        }
    }

    /// Asks once whether it has stopped.
    fn look(&mut self) {
        if !matches!(
            self.phase,
            Phase::Seized | Phase::Interrupted | Phase::Dying
        ) {
            return;
        }
        let (answer, status) = if self.own_child {
            stop_of(self.tid)
        } else {
            let mut status = 0;
            // SAFETY: `status` is an int of ours that outlives the call.
            let answer =
                unsafe { libc::waitpid(self.tid, &raw mut status, libc::__WALL | libc::WNOHANG) };
            (answer, status)
        };
        if answer == 0 {
            return;
        }
        if answer < 0 || !libc::WIFSTOPPED(status) {
            let interrupted = answer < 0 && errno() == libc::EINTR;
            if !interrupted {
                self.phase = Phase::Ended;
            }
        } else if status >> 16 == libc::PTRACE_EVENT_STOP {
            self.phase = Phase::Stopped;
            // At once: should we be killed from here on, it is done.
            cure(self.tid);
        } else {
            self.phase = Phase::WithSignal(libc::WSTOPSIG(status));
        }
    }

    /// Detaches from it; false when it has to stop first.
    fn let_go(&mut self) -> bool {
        let signal = match self.phase {
            Phase::Stopped => 0,
            Phase::WithSignal(signal) => signal,
            Phase::Ended => return true,
            Phase::Seized | Phase::Interrupted | Phase::Dying => return false,
        };
        if request(libc::PTRACE_DETACH, self.tid, signal).is_err() {
            // Killed while it stood. Its status is ours to take: until then it stays behind as a zombie.
            self.phase = Phase::Interrupted;
            self.look();
            return self.phase == Phase::Ended;
        }
        true
    }
}

/// What waitpid(2) would say, and as it would, but of stops alone.
fn stop_of(tid: i32) -> (i32, i32) {
    // SAFETY: all zero is a valid `siginfo_t`.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let flags = libc::WSTOPPED | libc::WNOHANG | libc::__WALL;
    // SAFETY: the kernel fills one `siginfo_t`; where no thread has stopped `si_pid` is 0. For stops both fields
    // are those of SIGCHLD.
    let (answer, pid, code) = unsafe {
        let answer = libc::waitid(libc::P_PID, tid as libc::id_t, &raw mut info, flags);
        (answer, info.si_pid(), info.si_status())
    };
    // As in WIFSTOPPED: 0x7f, then the signal, then the event.
    (if answer < 0 { answer } else { pid }, code << 8 | 0x7f)
}

/// Waits until all `threads` have stopped.
fn settle(pid: Pid, threads: &mut [Thread]) -> Result<(), Refusal> {
    let start = Instant::now();
    loop {
        let mut missing = None;
        for thread in &mut *threads {
            thread.look();
            match thread.phase {
                Phase::WithSignal(signal) => {
                    // The frame of its handler is made, then it meets the stop that is due.
                    let sent = request(libc::PTRACE_CONT, thread.tid, signal);
                    thread.phase = sent.map_or(Phase::Ended, |()| Phase::Interrupted);
                    missing = Some(thread.tid);
                }
                Phase::Interrupted if start.elapsed() > BUSY_WAIT && has_ended(pid, thread.tid) => {
                    thread.phase = if thread.own_child {
                        Phase::Ended
                    } else {
                        Phase::Dying
                    };
                }
                Phase::Interrupted => missing = Some(thread.tid),
                _ => {}
            }
        }
        let Some(missing) = missing else {
            break;
        };
        let waited = start.elapsed();
        if waited > DEADLINE {
            return Err(Refusal::Restless(Tid(missing)));
        }
        let deep = |thread: &Thread| {
            thread.phase != Phase::Interrupted || state(pid, thread.tid) == Some('D')
        };
        if waited > ASLEEP_AFTER && threads.iter().all(deep) {
            break;
        }
        if waited < BUSY_WAIT {
            std::thread::yield_now();
        } else {
            std::thread::sleep(Duration::from_micros(50));
        }
    }
    Ok(())
}

/// What is behind a failure to seize thread `tid`; `None` when the thread has ended or is ours already.
fn why_not(pid: Pid, tid: i32, error: &io::Error) -> Option<Refusal> {
    if error.raw_os_error() == Some(libc::ESRCH) {
        return None;
    }
    let is_left = LEFT.with_borrow(|left| left.iter().any(|thread| thread.tid == tid));
    if is_left || has_ended(pid, tid) {
        return None;
    }
    let status = std::fs::read(format!("/proc/{pid}/task/{tid}/status"));
    match process::tracer_in(&status.unwrap_or_default()) {
        Some(tracer) => Some(Refusal::Traced(tracer)),
        None => Some(Refusal::Denied),
    }
}

fn left_over(tid: i32) -> Option<Thread> {
    LEFT.with_borrow_mut(|left| {
        let at = left.iter().position(|thread| thread.tid == tid)?;
        Some(left.swap_remove(at))
    })
}

/// The ids of the threads, the main one first; `None` when there is no such process.
fn tasks(pid: Pid) -> Option<Vec<i32>> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let mut tids: Vec<i32> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    tids.sort_unstable_by_key(|tid| (*tid != pid.0, *tid));
    Some(tids)
}

fn state(pid: Pid, tid: i32) -> Option<char> {
    process::state_of_thread(pid, Tid(tid))
}

fn has_ended(pid: Pid, tid: i32) -> bool {
    matches!(state(pid, tid), None | Some('Z' | 'X' | 'x'))
}

fn seize(tid: i32) -> io::Result<()> {
    request(libc::PTRACE_SEIZE, tid, 0)
}

fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// As ptrace(2) is declared in the C library that is built for.
#[cfg(target_env = "gnu")]
type Request = libc::c_uint;
#[cfg(not(target_env = "gnu"))]
type Request = libc::c_int;

/// A request whose last argument is a number, and which reads and writes no memory of ours.
fn request(request: Request, tid: i32, data: i32) -> io::Result<()> {
    let nothing = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: only called with SEIZE, INTERRUPT, CONT and DETACH (ptrace(2)): their address argument is ignored
    // and their data argument is a number, so no memory of ours is touched.
    let answer = unsafe { libc::ptrace(request, tid, nothing, libc::c_long::from(data)) };
    if answer == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Makes a stopped thread's system call go on as if nothing had been. Nearly all do on their own; those below end
/// with EINTR on any stop (signal(7), "Interruption of system calls ... by stop signals"). Where they wait without a
/// limit the call is made to begin anew, as the kernel does with others: -EINTR becomes -ERESTARTNOHAND, which ends
/// with EINTR all the same if a signal's handler is to run. With a limit they are left alone, as it would begin anew
/// too; the program sees EINTR, which Python retries with the time that is left (PEP 475).
#[cfg(target_arch = "x86_64")]
fn cure(tid: i32) {
    const EPOLL_WAIT: u64 = 232;
    const EPOLL_PWAIT: u64 = 281;
    const EPOLL_PWAIT2: u64 = 441;
    const SIGTIMEDWAIT: u64 = 128;
    const SEMOP: u64 = 65;
    const SEMTIMEDOP: u64 = 220;
    /// Kernel-internal, include/linux/errno.h.
    const ERESTARTNOHAND: i64 = 514;
    let nothing = std::ptr::null_mut::<libc::c_void>();
    let mut registers = std::mem::MaybeUninit::<libc::user_regs_struct>::uninit();
    // SAFETY: GETREGS fills a `user_regs_struct`, and `registers` is room for one.
    let answer =
        unsafe { libc::ptrace(libc::PTRACE_GETREGS, tid, nothing, registers.as_mut_ptr()) };
    if answer == -1 {
        return;
    }
    // SAFETY: the kernel filled it, as it did not fail.
    let mut registers = unsafe { registers.assume_init() };
    if registers.rax as i64 != -i64::from(libc::EINTR) {
        return;
    }
    let forever = match registers.orig_rax {
        // An int; the upper half of the register may hold anything.
        EPOLL_WAIT | EPOLL_PWAIT => (registers.r10 as i32) < 0,
        // Pointers to a time.
        EPOLL_PWAIT2 | SEMTIMEDOP => registers.r10 == 0,
        SIGTIMEDWAIT => registers.rdx == 0,
        SEMOP => true,
        _ => false,
    };
    if forever {
        registers.rax = -ERESTARTNOHAND as u64;
        // SAFETY: SETREGS reads one `user_regs_struct`, which `registers` is.
        unsafe {
            libc::ptrace(libc::PTRACE_SETREGS, tid, nothing, &raw const registers);
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn cure(_tid: i32) {}
