//! Looking at a session while it runs: samplers hand over what is new when they are asked, and never wait for
//! whoever looks.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::family::Gathered;
use super::finish::finish;
use super::{Outcome, Part, ProcessSampler, Root, Shared};
use crate::error::{Error, ErrorKind, Result};
use crate::profile::record::Sample;
use crate::profile::{ProcessInfo, Tables, ThreadInfo};
use crate::sample::SampleOptions;
use crate::sample::tasks::Moment;
use crate::units::Pid;

/// Without somebody who takes them, no more samples than this are kept for a look.
const MOST_SAMPLES: usize = 1 << 20;

/// Runs beyond which the timeline is given up, so that a view may stay open for weeks: 96 MiB.
const MOST_RUNS: usize = 4 << 20;

/// How long a sampler may take to hand over all it has.
const HAND_OVER: Duration = Duration::from_secs(3);

/// What a session shows while it runs; nothing until [`Feed::open`].
#[derive(Debug, Default)]
pub struct Feed {
    is_open: AtomicBool,
    asked: AtomicU64,
    context: OnceLock<Context>,
    parts: Mutex<Vec<Arc<PartFeed>>>,
}

/// What a session was started for.
#[derive(Debug)]
struct Context {
    root: Root,
    options: SampleOptions,
    epoch: Instant,
    started_at_ms: u64,
}

/// What one sampler shows.
#[derive(Debug)]
pub struct PartFeed {
    pid: Pid,
    news: Mutex<News>,
    wants_all: AtomicBool,
    all: Mutex<Option<Part>>,
    ended: AtomicBool,
}

/// What is new of one process.
#[derive(Debug, Default)]
pub struct News {
    /// The process.
    pub process: ProcessInfo,
    /// Names and stacks so far; ids stay what they are.
    pub tables: Tables,
    /// Threads so far.
    pub threads: Vec<ThreadInfo>,
    /// Samples that nobody has taken yet.
    pub samples: Vec<Sample>,
    /// Samples that came to nobody, for too long.
    pub lost: u64,
    /// Which reader reads, and whether its stacks are known to have existed as a whole.
    pub reader: String,
    /// See `reader`.
    pub exact_stacks: bool,
    /// Whether the timeline was given up.
    pub timeline_ended: bool,
    /// The number of the question that this answers.
    answered: u64,
}

impl Feed {
    /// From now on there is somebody who looks.
    pub fn open(&self) {
        self.is_open.store(true, Ordering::Relaxed);
    }

    /// Asks all samplers for what is new; they answer at their next sample.
    pub fn ask(&self) {
        self.asked.fetch_add(1, Ordering::Relaxed);
    }

    /// Calls `each` with the news of every process, which may be empty.
    pub fn take(&self, mut each: impl FnMut(usize, &mut News)) {
        let parts = lock(&self.parts).clone();
        for (at, part) in parts.iter().enumerate() {
            each(at, &mut lock(&part.news));
        }
    }

    /// All that was gathered so far, as the session's end would give it.
    pub fn gathered(&self) -> Result<Outcome> {
        let none = || Error::new(ErrorKind::Failed, "nothing was gathered", "no sample yet");
        let context = self.context.get().ok_or_else(none)?;
        let parts = lock(&self.parts).clone();
        for part in &parts {
            part.wants_all.store(true, Ordering::SeqCst);
        }
        let since = Instant::now();
        let mut found = Vec::new();
        for part in parts {
            loop {
                if let Some(all) = lock(&part.all).take() {
                    found.push((part.pid, Ok(all)));
                    break;
                }
                // What a process left behind that has ended comes with the session's end.
                if part.ended.load(Ordering::SeqCst) {
                    break;
                }
                if since.elapsed() > HAND_OVER {
                    let why = "its sampler gave no answer";
                    let what = format!("cannot look at process {}", part.pid);
                    return Err(Error::new(ErrorKind::Failed, what, why));
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        if found.is_empty() {
            return Err(none());
        }
        let end_us = context.epoch.elapsed().as_micros() as u64;
        let (root, options) = (context.root, &context.options);
        let gathered = Gathered {
            parts: found,
            notes: Vec::new(),
            python_child: None,
        };
        finish(gathered, root, options, context.started_at_ms, end_us, None)
    }

    pub(super) fn began(&self, root: Root, shared: &Shared, started_at_ms: u64) {
        self.context.get_or_init(|| Context {
            root,
            options: shared.options.clone(),
            epoch: shared.epoch,
            started_at_ms,
        });
    }

    /// A place for a sampler to show what it has; `None` when nobody looks.
    pub(super) fn part(&self, pid: Pid) -> Option<Arc<PartFeed>> {
        if !self.is_open.load(Ordering::Relaxed) {
            return None;
        }
        let part = Arc::new(PartFeed {
            pid,
            news: Mutex::default(),
            wants_all: AtomicBool::new(false),
            all: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        lock(&self.parts).push(part.clone());
        Some(part)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ProcessSampler<'_> {
    /// Begins to keep what there is to show, where somebody looks.
    pub(super) fn start_showing(&mut self) {
        self.feed = self.shared.progress.feed.part(self.pid);
        self.part.recorder.log = self.feed.as_ref().map(|_| Vec::new());
    }

    /// Hands over what is new when it was asked for. Where the one who asked is at it, that is left for the next sample.
    pub(super) fn show(&mut self) {
        let Some(feed) = self.feed.clone() else {
            return;
        };
        if feed.wants_all.swap(false, Ordering::SeqCst) {
            self.catch_up();
            let mut part = self.part.clone();
            part.recorder.log = None;
            part.exact_stacks &= self.opened.reader.is_exact();
            part.reader = self.opened.reader.describe();
            *lock(&feed.all) = Some(part);
        }
        let asked = self.shared.progress.feed.asked.load(Ordering::Relaxed);
        let Ok(mut news) = feed.news.try_lock() else {
            return;
        };
        if news.answered == asked {
            self.bound_log(&mut news);
            return;
        }
        news.answered = asked;
        self.catch_up();
        self.hand_over(&mut news);
    }

    /// Adds what has yet to be added of threads at rest and of tasks, up to the last sample.
    fn catch_up(&mut self) {
        let moment = Moment {
            now_us: self.last_us,
            last_us: self.last_us,
            generation: self.generation + 1,
        };
        let recorder = &mut self.part.recorder;
        for slot in self.slots.values_mut() {
            slot.settle(recorder);
        }
        self.timelines.finish(recorder, moment);
    }

    /// Hands over the last of it.
    pub(super) fn end_showing(&mut self) {
        if let Some(feed) = self.feed.take() {
            self.hand_over(&mut lock(&feed.news));
            self.part.recorder.log = None;
            feed.ended.store(true, Ordering::SeqCst);
        }
    }

    fn bound_log(&mut self, news: &mut News) {
        if let Some(log) = &mut self.part.recorder.log
            && log.len() > MOST_SAMPLES
        {
            news.lost = news.lost.saturating_add(log.len() as u64);
            log.clear();
        }
    }

    fn hand_over(&mut self, news: &mut News) {
        if self.part.recorder.profile.runs.len() > MOST_RUNS {
            self.part.recorder.forget_timeline();
        }
        self.bound_log(news);
        let recorder = &mut self.part.recorder;
        let profile = &recorder.profile;
        news.tables.follow(&profile.tables);
        news.threads.clone_from(&profile.threads);
        if let Some(process) = profile.processes.first() {
            news.process.clone_from(process);
        }
        news.exact_stacks = self.opened.reader.is_exact();
        news.reader = self.opened.reader.describe();
        news.timeline_ended = !profile.has_timeline();
        let log = recorder.log.as_mut();
        news.samples.append(log.unwrap_or(&mut Vec::new()));
    }
}
