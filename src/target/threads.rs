//! The OS side of a target's threads: CPU time, whether it runs, and which kernel thread a Python thread
//! is.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use remoteprocess::ProcessMemory;
use rustc_hash::FxHashMap;

use super::image::{DeadThread, ThreadName};
use super::process;
use crate::units::{Pid, Tid};

/// Offset of `tid` in glibc's `struct pthread` on x86-64 (nptl/descr.h; the ident of a Python thread is
/// the address of that struct). Every value read there is checked against the process's thread list.
pub const PTHREAD_TID_OFFSET: u64 = 720;

/// Open files of one thread in `/proc`.
#[derive(Debug)]
struct ThreadFiles {
    schedstat: Option<File>,
    stat: Option<File>,
    /// Opened when the thread is first seen asleep.
    syscall: Option<File>,
}

/// The system call that a thread sleeps in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// Its number; see [`super::syscalls::name`].
    pub number: i32,
    /// Its first argument; for `futex` the address that is waited on.
    pub argument: u64,
}

impl Wait {
    /// Whether it waits on a futex in `range`.
    pub fn is_futex_in(&self, range: &std::ops::Range<u64>) -> bool {
        super::syscalls::is_futex(self.number) && range.contains(&self.argument)
    }
}

/// What the kernel says of one thread now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Activity {
    /// CPU time used so far, nanoseconds.
    pub cpu_ns: u64,
    /// How often it has been given a CPU so far.
    slices: u64,
    /// Running or ready to run.
    pub on_cpu: bool,
    /// What it sleeps in; `None` when it does not, or the kernel does not say.
    pub wait: Option<Wait>,
}

impl Activity {
    /// That of a thread that runs, of which nothing else is known.
    pub fn running() -> Activity {
        Activity {
            on_cpu: true,
            ..Activity::default()
        }
    }

    /// The same of a thread that sleeps.
    pub fn asleep(self) -> Activity {
        Activity {
            on_cpu: false,
            ..self
        }
    }

    /// That of a thread of a process that died: asleep in `wait`, or busy.
    pub fn at_death(wait: Option<Wait>) -> Activity {
        Activity {
            on_cpu: wait.is_none(),
            wait,
            ..Activity::default()
        }
    }
}

/// The threads of one process.
#[derive(Debug)]
pub struct Threads {
    pid: Pid,
    /// Ids in the target's PID namespace to ours.
    ids: FxHashMap<i32, Tid>,
    files: FxHashMap<Tid, ThreadFiles>,
    last: FxHashMap<Tid, Activity>,
    /// Of a process that is no more, all there is to know.
    dead: Option<Vec<DeadThread>>,
}

impl Threads {
    /// The threads of `pid`.
    pub fn new(pid: Pid) -> Threads {
        Threads {
            pid,
            ids: FxHashMap::default(),
            files: FxHashMap::default(),
            last: FxHashMap::default(),
            dead: None,
        }
    }

    /// The threads of a process that is no more. Its id may be another one's by now, so nothing is asked of the kernel.
    pub fn of_dead(threads: &[DeadThread]) -> Threads {
        Threads {
            dead: Some(threads.to_vec()),
            ..Threads::new(Pid(0))
        }
    }

    /// Our id of the thread that the target calls `inner` (they differ across PID namespaces); `None`
    /// when there is none.
    pub fn resolve(&mut self, inner: i32) -> Option<Tid> {
        if let Some(&tid) = self.ids.get(&inner) {
            return Some(tid);
        }
        self.refresh();
        self.ids.get(&inner).copied()
    }

    /// The thread of the process that is behind a Python thread, by its id in the target's PID namespace: `native` is what
    /// Python keeps as that, 0 for nothing. It is the parent's in a process that was forked without Python's knowledge (uWSGI's
    /// workers), so it counts for nothing unless there is such a thread here; the C library keeps its own up to date at
    /// `ident`. `None` when neither leads to a thread of this process.
    pub fn identify(&mut self, native: u64, ident: u64) -> Option<i32> {
        let native = i32::try_from(native).ok().filter(|native| *native > 0);
        native
            .filter(|native| self.resolve(*native).is_some())
            .or_else(|| self.behind(ident))
    }

    /// The thread whose `struct pthread` is at `ident`, as [`Threads::identify`] gives it.
    pub fn behind(&mut self, ident: u64) -> Option<i32> {
        if let Some(dead) = &self.dead {
            let mut known = dead.iter().filter(|thread| thread.pointer != 0);
            return Some(known.find(|thread| thread.pointer == ident)?.tid);
        }
        pthread_tid(self.pid, ident).filter(|tid| self.resolve(*tid).is_some())
    }

    /// The one thread of a process that has no other.
    pub fn only(&mut self) -> Option<i32> {
        self.refresh();
        let mut ids = self.ids.keys();
        ids.next().copied().filter(|_| ids.next().is_none())
    }

    /// Reads the list of threads anew and forgets those that have ended.
    pub fn refresh(&mut self) {
        self.ids.clear();
        if let Some(dead) = &self.dead {
            let ids = dead.iter().map(|thread| (thread.tid, Tid(thread.tid)));
            self.ids.extend(ids);
            return;
        }
        let Ok(tasks) = fs::read_dir(format!("/proc/{}/task", self.pid)) else {
            return;
        };
        for task in tasks.flatten() {
            let Some(tid) = task.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // One that has ended meanwhile has no status any more, and no other id is its own.
            let Ok(status) = fs::read(task.path().join("status")) else {
                continue;
            };
            // Kernels before 4.1 do not say.
            self.ids.insert(inner_id(&status).unwrap_or(tid), Tid(tid));
        }
        let alive: rustc_hash::FxHashSet<Tid> = self.ids.values().copied().collect();
        self.files.retain(|tid, _| alive.contains(tid));
        self.last.retain(|tid, _| alive.contains(tid));
    }

    /// What all threads do now.
    pub fn activities(&mut self) -> FxHashMap<Tid, Activity> {
        self.refresh();
        let tids: Vec<Tid> = self.ids.values().copied().collect();
        tids.into_iter()
            .filter_map(|tid| Some((tid, self.activity(tid, None)?)))
            .collect()
    }

    /// How often a thread has been given a CPU so far; 0 where the kernel does not say, `None` when it has ended.
    pub fn slices(&mut self, tid: Tid) -> Option<u64> {
        let files = self.files_of(tid);
        let Some(schedstat) = &files.schedstat else {
            return files.stat.as_ref().map(|_| 0);
        };
        let (_, slices) = read_schedstat(schedstat)?;
        Some(slices)
    }

    fn files_of(&mut self, tid: Tid) -> &mut ThreadFiles {
        let pid = self.pid;
        self.files.entry(tid).or_insert_with(|| ThreadFiles {
            schedstat: File::open(format!("/proc/{pid}/task/{tid}/schedstat")).ok(),
            stat: File::open(format!("/proc/{pid}/task/{tid}/stat")).ok(),
            syscall: None,
        })
    }

    /// CPU time and state of a thread; `None` when it has ended. `busy_ns`: CPU time since the last call for it
    /// from which on it is taken to be running still, without asking; `None` to ask. Costs one small read
    /// where that tells the state, else two, and a third when it is asleep and has run since the last call.
    pub fn activity(&mut self, tid: Tid, busy_ns: Option<u64>) -> Option<Activity> {
        if let Some(dead) = &self.dead {
            return dead.iter().find(|thread| thread.tid == tid.0)?.activity;
        }
        let pid = self.pid;
        let before = self.last.get(&tid).copied();
        let files = self.files_of(tid);
        let clock = files.schedstat.as_ref().and_then(read_schedstat);
        if let (Some((cpu_ns, slices)), Some(before)) = (clock, before) {
            // Not given a CPU since it was seen asleep: still asleep. (The clock alone would not do: a running
            // thread's is brought up to date only now and then.)
            let asleep = !before.on_cpu && slices == before.slices && cpu_ns == before.cpu_ns;
            let used_ns = cpu_ns.saturating_sub(before.cpu_ns);
            let busy = busy_ns.is_some_and(|busy_ns| used_ns >= busy_ns);
            if asleep || busy {
                let activity = Activity {
                    cpu_ns,
                    slices,
                    on_cpu: busy,
                    wait: if asleep { before.wait } else { None },
                };
                self.last.insert(tid, activity);
                return Some(activity);
            }
        }
        let Some((state, ticks_ns)) = files.stat.as_ref().and_then(read_stat) else {
            // It has ended; another thread may get its id.
            self.files.remove(&tid);
            self.last.remove(&tid);
            return None;
        };
        let (cpu_ns, slices) = clock.unwrap_or((ticks_ns, 0));
        let on_cpu = state == b'R';
        let mut wait = None;
        if !on_cpu {
            if files.syscall.is_none() {
                files.syscall = File::open(format!("/proc/{pid}/task/{tid}/syscall")).ok();
            }
            wait = files.syscall.as_ref().and_then(read_wait);
        }
        let activity = Activity {
            cpu_ns,
            slices,
            on_cpu,
            wait,
        };
        self.last.insert(tid, activity);
        Some(activity)
    }
}

/// CPU time that a process has used, of all its threads, those that have ended too; `None` when it is gone. A running
/// thread's is brought up to date at each tick and when it gives up its CPU, as in [`Activity`].
pub fn process_cpu_ns(pid: Pid) -> Option<u64> {
    // What clock_getcpuclockid(3) gives after asking the kernel whether there is such a process: `MAKE_PROCESS_CPUCLOCK`
    // with `CPUCLOCK_SCHED` (include/linux/posix-timers_types.h).
    let clock: libc::clockid_t = (!pid.0 << 3) | 2;
    // SAFETY: timespec is plain integers, for which all zeroes is a value; the kernel writes to it alone.
    let time = unsafe {
        let mut time: libc::timespec = std::mem::zeroed();
        (libc::clock_gettime(clock, &raw mut time) == 0).then_some(time)?
    };
    let seconds = u64::try_from(time.tv_sec).ok()?;
    Some(seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).ok()?)
}

/// The kernel thread, in the target's PID namespace, of the Python thread `ident`: for versions before 3.11,
/// which do not keep it, and for processes in which it is wrong. `None` where the C library is not glibc on x86-64, or the value makes no sense.
pub fn pthread_tid(pid: Pid, ident: u64) -> Option<i32> {
    if cfg!(not(target_arch = "x86_64")) {
        return None;
    }
    let opened = remoteprocess::Process::new(pid.0).ok()?;
    let address = ident.checked_add(PTHREAD_TID_OFFSET)?;
    let mut bytes = [0; 4];
    opened
        .read(usize::try_from(address).ok()?, &mut bytes)
        .ok()?;
    Some(i32::from_le_bytes(bytes)).filter(|tid| *tid > 0)
}

/// The threads of `pid` by id, with their names.
pub fn names(pid: Pid) -> Vec<ThreadName> {
    let named = |tid: Tid| {
        let read = |file| fs::read(format!("/proc/{pid}/task/{tid}/{file}")).ok();
        let name = String::from_utf8_lossy(&read("comm")?)
            .trim_end_matches('\n')
            .to_string();
        let status = read("status")?;
        Some(ThreadName {
            tid: inner_id(&status).unwrap_or(tid.0),
            name,
        })
    };
    listed(pid).into_iter().filter_map(named).collect()
}

/// The threads of `pid` with their states and the number of times that each was given a CPU; `None` when one has
/// ended meanwhile.
pub fn switches(pid: Pid) -> Option<Vec<(Tid, char, u64)>> {
    let look = |tid: Tid| {
        let state = process::state_of_thread(pid, tid)?;
        let file = File::open(format!("/proc/{pid}/task/{tid}/schedstat")).ok();
        let slices = file
            .as_ref()
            .and_then(read_schedstat)
            .map_or(0, |read| read.1);
        Some((tid, state, slices))
    };
    listed(pid).into_iter().map(look).collect()
}

/// CPU time that a thread has used, and time for which it waited for a CPU, nanoseconds; `None` when the kernel does not say.
pub fn times(pid: Pid, tid: Tid) -> Option<(u64, u64)> {
    let text = fs::read(format!("/proc/{pid}/task/{tid}/schedstat")).ok()?;
    let mut words = std::str::from_utf8(&text).ok()?.split_ascii_whitespace();
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

/// The threads of `pid`, by id; none when it is gone.
pub fn listed(pid: Pid) -> Vec<Tid> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let mut tids: Vec<Tid> = tasks
        .flatten()
        .filter_map(|task| task.file_name().to_str()?.parse().ok().map(Tid))
        .collect();
    tids.sort_unstable();
    tids
}

/// The innermost id of `NSpid:`.
fn inner_id(status: &[u8]) -> Option<i32> {
    let ids = process::status_field(status, "NSpid:")?;
    ids.split_ascii_whitespace().next_back()?.parse().ok()
}

/// Nanoseconds on a CPU, and the number of times it was given one (Documentation/scheduler/sched-stats.rst).
fn read_schedstat(file: &File) -> Option<(u64, u64)> {
    let mut bytes = [0u8; 96];
    let length = file.read_at(&mut bytes, 0).ok()?;
    let text = std::str::from_utf8(bytes.get(..length)?).ok()?;
    let mut fields = text.split_ascii_whitespace();
    Some((fields.next()?.parse().ok()?, fields.nth(1)?.parse().ok()?))
}

/// `202 0x7f10c0de0048 0x189 ...`: number and arguments in hex; `running`; `-1 ...` outside of a call.
fn read_wait(file: &File) -> Option<Wait> {
    let mut bytes = [0u8; 192];
    let length = file.read_at(&mut bytes, 0).ok()?;
    wait(std::str::from_utf8(bytes.get(..length)?).ok()?)
}

/// Where the stack of a thread ends that sleeps; `None` when it runs, or the kernel does not say.
pub fn stack_pointer(pid: Pid, tid: Tid) -> Option<u64> {
    // `202 0x7f10c0de0048 ... SP PC`, or `-1 SP PC` outside of a call.
    let text = fs::read(format!("/proc/{pid}/task/{tid}/syscall")).ok()?;
    let text = std::str::from_utf8(&text).ok()?;
    let pointer = text.split_ascii_whitespace().rev().nth(1)?;
    u64::from_str_radix(pointer.strip_prefix("0x")?, 16).ok()
}

fn wait(text: &str) -> Option<Wait> {
    let mut fields = text.split_ascii_whitespace();
    let number: i32 = fields.next()?.parse().ok()?;
    let argument = fields.next()?.strip_prefix("0x")?;
    Some(Wait {
        number: Some(number).filter(|number| *number >= 0)?,
        argument: u64::from_str_radix(argument, 16).ok()?,
    })
}

/// State letter, and user plus system time in nanoseconds (clock ticks are 10 ms, USER_HZ is 100).
fn read_stat(file: &File) -> Option<(u8, u64)> {
    let mut bytes = [0u8; 512];
    let length = file.read_at(&mut bytes, 0).ok()?;
    let bytes = bytes.get(..length)?;
    // The name in parentheses may be anything; what follows the last one is plain text.
    let end = bytes.iter().rposition(|byte| *byte == b')')?;
    let text = std::str::from_utf8(bytes.get(end + 1..)?).ok()?;
    let mut fields = text.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let user: u64 = fields.nth(10)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((
        state,
        user.saturating_add(system).saturating_mul(10_000_000),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_main_thread_runs_and_has_a_clock() {
        let pid = std::process::id() as i32;
        let mut threads = Threads::new(Pid(pid));
        let tid = threads.resolve(pid).expect("the main thread");
        let first = threads.activity(tid, None).expect("alive");
        assert!(threads.activity(tid, Some(1000)).expect("alive").cpu_ns >= first.cpu_ns);
        assert_eq!(threads.resolve(-5), None);
    }

    #[test]
    fn a_wait_is_a_call_with_an_argument() {
        let text = "202 0x7f10c0de0048 0x189 0x0 0x0 0x0 0xffffffff 0x7ffd 0x7f10\n";
        let found = wait(text).expect("a wait");
        assert_eq!((found.number, found.argument), (202, 0x7f10_c0de_0048));
        for none in ["running\n", "-1 0x7ffd 0x7f10\n", "", "202", "202 5"] {
            assert_eq!(wait(none), None, "{none:?}");
        }
    }

    #[test]
    fn the_innermost_namespace_counts() {
        assert_eq!(inner_id(b"Name:\tx\xc3\nNSpid:\t100\t7\n"), Some(7));
        assert_eq!(inner_id(b"Name:\tx\n"), None);
    }
}
