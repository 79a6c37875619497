//! Samples a process, and its children when asked to, into a profile.
//!
//! Each process has a sampler thread of its own; the caller's thread watches for new children and for the
//! time to stop. Signals, `--duration` and the target's end all end in the same way: samplers return what
//! they have, and the parts are put together.

mod assemble;
mod counting;
mod family;
mod finish;
mod interrupted;
mod known;
pub mod live;
mod notes;
mod progress;
mod unsampled;
mod unseen;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use log::debug;
use rustc_hash::FxHashMap;

use family::Family;
use finish::finish;
pub use progress::Progress;
use unsampled::Unsampled;
use unseen::Unseen;

use super::choose::{self, Opened, Patience};
use super::clock::Clock;
use super::collections::Collectors;
use super::counts::{Prepared, Shown, Watching};
use super::pyspy::{self, ReaderOptions};
use super::rest::{Rest, Running};
use super::slot::{Comings, Evidence, Slot};
use super::sources;
use super::states::Remarks;
use super::tasks::{Moment, Spent, TaskStacks, Timelines};
use super::{Fault, SampleOptions, ThreadStacks, interpreters};
use crate::error::{Error, ErrorKind, Result};
use crate::profile::{Mode, ProcessInfo, Profile, Recorder, RunState};
use crate::target::threads::Threads;
use crate::target::watchpoint::Refusal;
use crate::target::{access, process};
use crate::units::{Pid, Rate};

/// How often new children are looked for.
const CHILD_SCAN: Duration = Duration::from_millis(20);

/// How often a sampler makes sure that its process is still there.
const ALIVE_SCAN: Duration = Duration::from_millis(250);

/// Share of the period by which samples may be late on average without a word about it.
const LATE: f64 = 0.25;

/// How often the stop flag is looked at: each look wakes a CPU that may be asleep, 60 us.
const STOP_SCAN: Duration = Duration::from_millis(150);

/// How long a process whose memory makes no sense any more may take to become readable again (after an
/// exec), before it is given up.
const REOPEN: Duration = Duration::from_secs(2);

/// Faults in a row after which the process is opened anew: it may have called exec.
const FAULTS_BEFORE_REOPEN: u32 = 20;

/// Which process a session starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// One that runs already; an error when it cannot be read.
    Running(Pid),
    /// One that we have just started: waited for until it is readable or has ended.
    Started(Pid),
}

impl Root {
    fn pid(self) -> Pid {
        match self {
            Root::Running(pid) | Root::Started(pid) => pid,
        }
    }
}

/// What a session gathered.
#[derive(Debug)]
pub struct Outcome {
    /// The recording; without samples when the program ended before it could be read.
    pub profile: Profile,
    /// Things that the user should know.
    pub notes: Vec<String>,
}

/// What all samplers of a session share.
#[derive(Clone)]
struct Shared {
    options: SampleOptions,
    /// The folder in which a program was started.
    started_in: Option<std::path::PathBuf>,
    stop: Arc<AtomicBool>,
    progress: Arc<Progress>,
    epoch: Instant,
    /// Samplers that have ended, and the thread that waits for them.
    ended: Arc<AtomicUsize>,
    supervisor: Thread,
    /// When the first process was open.
    opened: Arc<OnceLock<Instant>>,
    /// When and why the root could not be sampled.
    failed: Arc<OnceLock<(Instant, Error)>>,
    /// Children that could not be, in words.
    left_out: Arc<Mutex<Vec<String>>>,
}

impl Shared {
    fn reader_options(&self) -> ReaderOptions {
        ReaderOptions {
            blocking: self.options.blocking,
            native: self.options.native,
            locals: false,
            no_builtins: self.options.no_builtins,
            tasks: self.options.tasks,
            exceptions: self.options.mode == super::Mode::Exception,
            cross_cpu: self.options.rate.hz().is_none_or(|hz| hz > 20_000.0),
            choice: self.options.reader,
            period_ns: self.options.rate.hz().map_or(0, |hz| (1e9 / hz) as u64),
        }
    }

    fn now_us(&self) -> u64 {
        self.epoch.elapsed().as_micros() as u64
    }

    /// Takes note of a child that is left out.
    fn left_out(&self, note: Option<String>) {
        let list = self.left_out.lock();
        list.unwrap_or_else(PoisonError::into_inner).extend(note);
    }

    fn take_left_out(&self) -> Vec<String> {
        std::mem::take(&mut *self.left_out.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What one sampler gathered.
#[derive(Debug, Clone)]
struct Part {
    recorder: Recorder,
    /// When its process was open, microseconds since the session's start.
    opened_us: u64,
    python: String,
    reader: String,
    exact_stacks: bool,
    /// Whether the reader said which lock the threads need.
    has_states: bool,
    samples: u64,
    given_up: u64,
    retried: u64,
    lateness_us: f64,
    notes: Vec<String>,
}

/// Samples from now until `stop` is set, the duration is over, or all processes have ended.
pub fn record(
    root: Root,
    options: &SampleOptions,
    stop: Arc<AtomicBool>,
    progress: Arc<Progress>,
) -> Result<Outcome> {
    let shared = Shared {
        options: options.clone(),
        started_in: sources::own_folder(matches!(root, Root::Started(_))),
        stop,
        progress,
        epoch: Instant::now(),
        ended: Arc::new(AtomicUsize::new(0)),
        supervisor: std::thread::current(),
        opened: Arc::default(),
        failed: Arc::default(),
        left_out: Arc::default(),
    };
    pyspy::check_options(shared.reader_options())?;
    let started_at_ms = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |t| t.as_millis() as u64);
    let command = process::command_line(root.pid());
    let patience = match root {
        Root::Running(_) => Patience::For(Duration::from_millis(500)),
        Root::Started(_) => Patience::Forever,
    };
    shared.progress.feed.began(root, &shared, started_at_ms);
    let mut family = Family::new(root);
    family.spawn(root.pid(), patience, &shared)?;
    let gathered = family.watch(&shared)?;
    let end_us = shared.now_us();
    shared.stop.store(true, Ordering::SeqCst);
    let mut outcome = finish(
        gathered,
        root,
        &shared.options,
        started_at_ms,
        end_us,
        Some(&shared.progress),
    )?;
    if outcome.profile.meta.command.is_empty() {
        outcome.profile.meta.command = command;
    }
    Ok(outcome)
}

/// Samples one process until it ends or the stop flag is set.
fn sample_process(pid: Pid, patience: Patience, shared: &Shared) -> Result<Part> {
    let opened = choose::open_patiently(pid, shared.reader_options(), patience, &shared.stop)?;
    if shared.options.mode == Mode::Gil && opened.version.free_threaded {
        return Err(no_gil(pid, &opened));
    }
    shared.opened.get_or_init(Instant::now);
    shared.supervisor.unpark();
    shared.progress.processes.fetch_add(1, Ordering::Relaxed);
    let mut sampler = ProcessSampler::new(pid, opened, shared);
    sampler.start_watching();
    let folders = sources::folders(pid, shared.started_in.clone());
    sampler.start_showing();
    let options = &shared.options;
    let brief = !(options.tasks || options.blocking || options.native);
    let mut clock = Clock::new(options.rate, brief);
    let mut faults_in_a_row = 0;
    let mut seen_alive = Instant::now();
    while clock.wait(&shared.stop) {
        // A reader need not touch a process in which nothing happens.
        if seen_alive.elapsed() >= ALIVE_SCAN {
            seen_alive = Instant::now();
            if !process::is_alive(pid) {
                break;
            }
        }
        if clock.was_away() {
            sampler.pass_over();
        }
        let began = Instant::now();
        let outcome = sampler.take(clock.ahead());
        clock.took(began.elapsed());
        sampler.count_retried();
        sampler.show();
        match outcome {
            Ok(_) => {
                faults_in_a_row = 0;
                clock.stretch(sampler.next_periods(clock.period()));
            }
            Err(fault) => {
                if !process::is_alive(pid) {
                    break;
                }
                sampler.give_up(clock.periods(began.elapsed()).max(1));
                faults_in_a_row += 1;
                debug!(
                    "process {pid}: a sample is given up, {faults_in_a_row} in a row: {fault:?}"
                );
                // A debugger or another profiler may hold the target for a moment; that passes.
                let forbidden = |error: Error| error.kind() == ErrorKind::NotPermitted;
                if fault == Fault::Denied && access::check(pid).is_err_and(forbidden) {
                    sampler
                        .part
                        .notes
                        .push(format!("process {pid} may not be read any more"));
                    break;
                }
                if faults_in_a_row == FAULTS_BEFORE_REOPEN {
                    faults_in_a_row = 0;
                    debug!("process {pid}: opened anew, it may have called exec");
                    let since = Instant::now();
                    let opened = open_again(pid, shared);
                    sampler.give_up(clock.periods(since.elapsed()));
                    match opened {
                        Ok(opened) => sampler.reopen(opened),
                        Err(error) if has_ended(pid, &error) => break,
                        Err(error) => {
                            sampler.part.notes.push(error.to_string());
                            break;
                        }
                    }
                }
            }
        }
    }
    sampler.note_reader();
    sampler.end_watching();
    sampler.settle();
    sampler.add_unsampled();
    sampler.end_showing();
    let (part, late) = (&sampler.part, clock.mean_lateness_us());
    debug!(
        "process {pid}: {} samples, {} given up, {} reads made again; {late:.0} us late on average",
        part.samples, part.given_up, part.retried
    );
    sampler.note_states();
    if !options.no_timeline {
        let profile = &mut sampler.part.recorder.profile;
        profile.sources = sources::gather(pid, &folders, &profile.tables);
    }
    if !sampler.opened.reader.is_interrupting() {
        sampler.part.lateness_us = clock.mean_lateness_us();
    }
    Ok(sampler.part)
}

/// Why time with the GIL cannot be told.
fn no_gil(pid: Pid, opened: &Opened) -> Error {
    Error::new(
        ErrorKind::NotAvailable,
        format!("cannot tell who holds the GIL of process {pid}"),
        format!(
            "Python {} is a free-threaded build, which has none",
            opened.version
        ),
    )
    .hint("--mode cpu shows the threads that are on a CPU")
}

/// Whether a process that could not be opened has ended.
fn has_ended(pid: Pid, error: &Error) -> bool {
    let is_gone = matches!(
        error.kind(),
        ErrorKind::ProcessEnded | ErrorKind::NoSuchProcess
    );
    is_gone || !process::is_alive(pid)
}

/// Opens a process whose memory makes no sense any more. After an exec it may be no Python for a while: the
/// loader is at work, or a shell stands before the next Python.
fn open_again(pid: Pid, shared: &Shared) -> Result<Opened> {
    let started = Instant::now();
    loop {
        let opened = choose::open_patiently(
            pid,
            shared.reader_options(),
            Patience::For(REOPEN),
            &shared.stop,
        );
        let may_become_python =
            matches!(&opened, Err(error) if error.kind() == ErrorKind::NotPython);
        let stopped = shared.stop.load(Ordering::Relaxed);
        if !may_become_python || stopped || started.elapsed() >= REOPEN || !process::is_alive(pid) {
            return opened;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What the kernel said of the threads of a sample.
#[derive(Default)]
struct Looked {
    /// How many threads with a stack there are.
    threads: usize,
    /// The sum of their clocks.
    known_ns: u64,
    /// Whether any of them rests.
    any_rests: bool,
    /// Whether the kernel was not asked about one of them: its clock is that of a moment ago.
    believed: bool,
}

struct ProcessSampler<'a> {
    pid: Pid,
    opened: Opened,
    shared: &'a Shared,
    part: Part,
    stacks: ThreadStacks,
    os_threads: Threads,
    rest: Rest,
    running: Running,
    /// Who collects garbage.
    collectors: Collectors,
    /// By Python's thread ident.
    slots: FxHashMap<u64, Slot>,
    comings: Comings,
    tasks: TaskStacks,
    timelines: Timelines,
    unseen: Unseen,
    unsampled: Unsampled,
    /// Whether threads that are read in their interrupts sleep now and then, or copies of them were not whole.
    looks_soon: bool,
    last_us: u64,
    generation: u64,
    remarks: Remarks,
    /// Counts calls; `None` where that is not wanted or cannot be.
    watching: Option<Watching>,
    /// Finds out what has to be known before calls are counted.
    preparing: Option<JoinHandle<Result<Prepared, Refusal>>>,
    /// Where it shows what it has; `None` when nobody looks.
    feed: Option<Arc<live::PartFeed>>,
}

impl<'a> ProcessSampler<'a> {
    fn new(pid: Pid, opened: Opened, shared: &'a Shared) -> Self {
        let mut recorder = match shared.options.no_timeline {
            true => Recorder::without_timeline(),
            false => Recorder::default(),
        };
        recorder.profile.processes.push(ProcessInfo {
            pid: pid.0,
            parent: process::stat(pid).map_or(0, |stat| stat.parent.0),
            python: opened.version.to_string(),
            command: process::command_line(pid),
        });
        let part = Part {
            recorder,
            opened_us: shared.now_us(),
            python: opened.version.to_string(),
            reader: String::new(),
            exact_stacks: true,
            has_states: false,
            samples: 0,
            given_up: 0,
            retried: 0,
            lateness_us: 0.0,
            notes: Vec::new(),
        };
        ProcessSampler {
            pid,
            opened,
            shared,
            part,
            stacks: ThreadStacks::default(),
            os_threads: Threads::new(pid),
            rest: Rest::new(pid),
            running: Running::new(pid),
            collectors: Collectors::default(),
            slots: FxHashMap::default(),
            comings: Comings::default(),
            tasks: TaskStacks::default(),
            timelines: Timelines::default(),
            unseen: Unseen::default(),
            unsampled: Unsampled::new(pid, shared),
            looks_soon: true,
            last_us: shared.now_us(),
            generation: 0,
            remarks: Remarks::default(),
            watching: None,
            preparing: None,
            feed: None,
        }
    }

    /// Counts samples at which nothing could be read.
    fn give_up(&mut self, samples: u64) {
        self.part.given_up += samples;
        let all = &self.shared.progress.given_up;
        all.fetch_add(samples, Ordering::Relaxed);
    }

    /// Counts the reads that the last sample took beyond its first.
    fn count_retried(&mut self) {
        let retried = self.opened.reader.take_retried();
        self.part.retried += retried;
        let all = &self.shared.progress.retried;
        all.fetch_add(retried, Ordering::Relaxed);
    }

    /// Goes on with a new reader after an exec: all threads are new.
    fn reopen(&mut self, opened: Opened) {
        self.note_reader();
        self.end_watching();
        self.settle();
        self.opened = opened;
        self.start_watching();
        self.slots.clear();
        self.remarks.another_program();
        self.generation = 0;
        self.comings = Comings::default();
        (self.tasks, self.timelines) = Default::default();
        self.os_threads = Threads::new(self.pid);
        self.rest = Rest::new(self.pid);
        self.running = Running::new(self.pid);
        self.last_us = self.shared.now_us();
        self.part.python = self.opened.version.to_string();
        if let Some(process) = self.part.recorder.profile.processes.first_mut() {
            process.python.clone_from(&self.part.python);
            process.command = process::command_line(self.pid);
        }
    }

    /// Takes one sample of all threads, which stands for the time since the last one and for that `ahead`.
    fn sample(&mut self, ahead: Duration) -> Result<(), Fault> {
        let now_us = self.shared.now_us();
        let until_us = now_us + ahead.as_micros() as u64;
        if self.shared.options.blocking {
            // Stopping the target changes what the kernel says of its threads.
            self.look_at_threads(now_us);
        }
        let tables = &mut self.part.recorder.profile.tables;
        let reader = &mut self.opened.reader;
        reader.read(tables, &mut self.stacks)?;
        if self.shared.options.tasks {
            reader.read_tasks(tables, &self.stacks, &mut self.tasks, self.rest.is_on())?;
        }
        if self.stacks.threads.is_empty() {
            // The interpreter is going down, or is another one's by now: a stale list must not look like rest.
            return Err(Fault::Torn);
        }
        if self.generation == 0 {
            // What was before the first look nobody saw: an interpreter that started, or another program.
            self.unseen.gap(self.last_us, now_us);
            self.last_us = now_us;
        }
        self.generation += 1;
        self.watch_when_ready();
        let stacks = std::mem::take(&mut self.stacks);
        let mut slots = std::mem::take(&mut self.slots);
        let shown = interpreters::shown(&stacks, self.shared.options.tasks);
        let looked = self.look(&mut slots, &shown, now_us);
        if !looked.any_rests {
            self.rest.nobody();
        } else if !looked.believed && !self.rest.goes_on(looked.known_ns) {
            self.wake(&mut slots, now_us);
        }
        let happened = self.add(&mut slots, &shown, now_us, until_us);
        if self.shared.options.rate == Rate::Max && !self.rest.is_on() {
            self.unseen.late(self.last_us, now_us);
        }
        self.rest.note(happened, now_us);
        let generation = self.generation;
        let recorder = &mut self.part.recorder;
        let comings = &mut self.comings;
        let watching = &mut self.watching;
        if slots.len() != looked.threads {
            slots.retain(|_, slot| {
                let kept = slot.generation == generation;
                if !kept {
                    comings.gone(recorder, slot);
                    if let Some(watching) = watching {
                        watching.gone(slot.id);
                    }
                }
                kept
            });
        }
        self.slots = slots;
        self.stacks = stacks;
        self.unseen.gap(self.last_us, now_us);
        self.unsampled.look(self.pid, now_us);
        self.last_us = until_us;
        Ok(())
    }

    /// Asks the kernel about the threads that may have done something.
    fn look(
        &mut self,
        slots: &mut FxHashMap<u64, Slot>,
        stacks: &ThreadStacks,
        now_us: u64,
    ) -> Looked {
        let blocking = self.shared.options.blocking;
        let mut looked = Looked::default();
        for thread in &stacks.threads {
            if thread.frames.is_empty() {
                continue;
            }
            let Some(slot) = self.known_slot(slots, thread) else {
                continue;
            };
            looked.threads += usize::from(slot.generation != self.generation);
            slot.generation = self.generation;
            slot.rests = !blocking && slot.may_rest(thread);
            if !blocking && !slot.rests {
                let asked = slot.look_at(&mut self.os_threads, thread, now_us);
                looked.believed |= !asked;
            }
            looked.any_rests |= slot.rests;
            looked.known_ns = looked.known_ns.wrapping_add(slot.cpu_ns());
        }
        looked
    }

    /// Adds a sample of all threads and tasks; whether a thread may have done something since the last one.
    fn add(
        &mut self,
        slots: &mut FxHashMap<u64, Slot>,
        stacks: &ThreadStacks,
        now_us: u64,
        until_us: u64,
    ) -> bool {
        let most_ahead_us = match self.generation {
            1 => until_us.saturating_sub(now_us),
            _ => u64::MAX,
        };
        let recorder = &mut self.part.recorder;
        let reader = &mut self.opened.reader;
        let mut happened = self.shared.options.blocking;
        let mut spent: Vec<Spent> = Vec::new();
        let mut runnable_us = 0;
        let is_alone = stacks.threads.len() == 1;
        for (at, thread) in stacks.threads.iter().enumerate() {
            let slot = slots.get_mut(&thread.python_id);
            let Some(slot) = slot.filter(|_| !thread.frames.is_empty() && !thread.gone) else {
                continue;
            };
            self.part.has_states |= !thread.gil.is_empty();
            self.remarks.note(slot, thread);
            slot.name(recorder, thread);
            let running = self.tasks.run_by(at);
            if running.is_none() && slot.rests_on(thread, until_us) {
                continue;
            }
            let task = running.map(|running| running.depth);
            let mut evidence = Evidence {
                collectors: &mut self.collectors,
                is_alone,
                is_exact: reader.is_exact(),
                running: self.running.share(),
                most_ahead_us,
                given: None,
                leads: |code, from, to| reader.leads(code, from, to),
            };
            let added = slot.add(recorder, &mut evidence, thread, task, until_us);
            happened |= added.happened;
            if added.state.has(RunState::ON_CPU) {
                runnable_us += added.wall_us;
            }
            if let Some(watching) = &mut self.watching {
                watching.sample(
                    &recorder.profile.tables,
                    reader.as_mut(),
                    &Shown {
                        thread: slot.id,
                        tid: slot.tid,
                        frames: &thread.frames,
                        fresh_from: added.fresh,
                        cpu_ns: added.cpu_us * 1000,
                        on_cpu: added.state.has(RunState::ON_CPU),
                    },
                );
            }
            spent.extend(running.map(|running| Spent {
                running,
                state: added.state,
                cpu_us: added.cpu_us,
                fresh: added.fresh,
            }));
        }
        let moment = Moment {
            now_us: until_us,
            last_us: self.last_us,
            generation: self.generation,
        };
        self.timelines
            .add(recorder, &self.tasks, &stacks.threads, &spent, moment);
        self.running.note(runnable_us);
        happened
    }

    /// Looks at the threads that were taken to rest, when some thread has used the CPU.
    fn wake(&mut self, slots: &mut FxHashMap<u64, Slot>, now_us: u64) {
        let mut known_ns = 0u64;
        for slot in slots.values_mut() {
            if slot.rests {
                slot.look(&mut self.os_threads, false, now_us);
                let seen = slot.seen;
                slot.rests =
                    seen.is_some_and(|seen| !seen.on_cpu && seen.cpu_ns == slot.last_cpu_ns);
            }
            if slot.generation == self.generation {
                known_ns = known_ns.wrapping_add(slot.cpu_ns());
            }
        }
        self.rest.looked_at_all(known_ns);
    }

    /// Adds what has yet to be added of threads at rest and of tasks, and takes back the time to come that
    /// samples stand for.
    fn settle(&mut self) {
        let now_us = self.shared.now_us();
        let moment = Moment {
            now_us,
            last_us: self.last_us,
            generation: self.generation + 1,
        };
        let recorder = &mut self.part.recorder;
        for slot in self.slots.values_mut() {
            slot.settle(recorder);
            slot.cut(recorder, now_us);
        }
        self.timelines.finish(recorder, moment);
    }

    /// Asks the kernel about all threads that are known.
    fn look_at_threads(&mut self, now_us: u64) {
        for slot in self.slots.values_mut() {
            slot.look(&mut self.os_threads, false, now_us);
        }
    }
}
