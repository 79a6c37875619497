//! What `top` has gathered: totals, the last seconds, and what each thread did last; or a file.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::profile::record::Sample;
use crate::profile::states::{self, StateTimes};
use crate::profile::{
    CallStats, CallTree, Filter, FrameId, Function, FunctionId, Mode, Origin, ProcessId,
    ProcessInfo, Profile, Recorder, RunState, StackId, StringId, Tables, ThreadId, ThreadInfo,
};
use crate::sample::session::Progress;
use crate::sample::session::live::News;

/// The length of the window beside the totals.
pub const WINDOW: Duration = Duration::from_secs(10);

/// While the picture stands still, no more samples than this wait.
const MOST_WAITING: usize = 4 << 20;

/// A thread of which so many looks brought no sample is told as gone.
const GONE: u64 = 8;

/// Which part of what was gathered is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    pub recent: bool,
    pub mode: Mode,
    pub thread: Option<ThreadId>,
}

impl Choice {
    pub fn filter(self) -> Filter {
        Filter {
            mode: self.mode,
            only: self.thread,
            ..Filter::default()
        }
    }
}

/// What the views are made of.
#[derive(Debug, Default)]
pub struct Computed {
    pub stats: CallStats,
    pub tree: CallTree,
    /// Whether the tree was estimated from times by function: then no lines are known.
    pub estimated: bool,
    /// By thread.
    pub states: Vec<StateTimes>,
    /// CPU time that each thread used, microseconds: one that is ready to run uses none.
    pub cpu_us: Vec<u64>,
    /// What all stacks weigh together.
    pub whole_ns: u64,
    /// The time that is looked at, seconds.
    pub seconds: f64,
}

/// How a thread was seen last.
#[derive(Debug, Clone, Copy, Default)]
pub struct Last {
    pub state: RunState,
    pub stack: Option<StackId>,
    /// The look that brought it.
    pub look: u64,
}

/// Ids of one process's tables to ours.
#[derive(Debug, Default)]
struct Ids {
    strings: Vec<StringId>,
    functions: Vec<FunctionId>,
    frames: Vec<FrameId>,
    stacks: Vec<StackId>,
    threads: Vec<ThreadId>,
}

/// All that was gathered.
pub struct Data {
    totals: Recorder,
    ids: Vec<Ids>,
    /// From when to when, and what came in that time.
    recent: VecDeque<(Instant, Instant, Vec<Sample>)>,
    /// The same of what is not counted yet.
    waiting: VecDeque<(Instant, Instant, Vec<Sample>)>,
    pub last: Vec<Last>,
    pub look: u64,
    pub lost: u64,
    pub reader: String,
    pub approximate: bool,
    pub timeline_ended: bool,
    /// Whether the process has ended: no thread does anything any more.
    pub ended: bool,
    since: Instant,
    until: Instant,
    /// When it was asked last: the answer, which is taken at the next look, goes up to then.
    asked: Instant,
    /// Until when all has been taken.
    covered: Instant,
    is_file: bool,
}

impl Data {
    /// Nothing yet.
    pub fn live() -> Data {
        let mut data = Data::of_file(Profile::default());
        data.is_file = false;
        data.reset();
        data
    }

    /// A recording.
    pub fn of_file(profile: Profile) -> Data {
        let mut totals = Recorder::default();
        totals.profile = profile;
        let profile = &totals.profile;
        Data {
            reader: profile.meta.reader.clone(),
            approximate: profile.meta.approximate_stacks,
            last: vec![Last::default(); profile.threads.len()],
            totals,
            ids: Vec::new(),
            recent: VecDeque::new(),
            waiting: VecDeque::new(),
            look: 0,
            lost: 0,
            timeline_ended: false,
            ended: false,
            since: Instant::now(),
            until: Instant::now(),
            asked: Instant::now(),
            covered: Instant::now(),
            is_file: true,
        }
    }

    /// Whether a thread or task is there still, as far as the last looks tell.
    pub fn is_living(&self, at: usize) -> bool {
        let last = self.last.get(at).copied().unwrap_or_default();
        !self.ended && last.look + GONE >= self.look
    }

    pub fn is_file(&self) -> bool {
        self.is_file
    }

    pub fn profile(&self) -> &Profile {
        &self.totals.profile
    }

    pub fn tables(&self) -> &Tables {
        &self.totals.profile.tables
    }

    /// Takes in what is new, and asks for more. While `paused`, samples wait.
    pub fn take(&mut self, progress: &Progress, paused: bool) {
        self.look += 1;
        let feed = &progress.feed;
        let mut samples = Vec::new();
        feed.take(|part, news| self.take_part(part, news, &mut samples));
        feed.ask();
        let from = self.covered;
        self.covered = std::mem::replace(&mut self.asked, Instant::now());
        self.waiting.push_back((from, self.covered, samples));
        let waiting: usize = self.waiting.iter().map(|(.., samples)| samples.len()).sum();
        if !paused || waiting > MOST_WAITING {
            self.go_on();
        }
    }

    /// Nothing was sampled for so long: that time is as if it had not been.
    pub fn skip(&mut self, away: Duration) {
        let marks = [
            &mut self.since,
            &mut self.until,
            &mut self.asked,
            &mut self.covered,
        ];
        let windows = self.recent.iter_mut().chain(&mut self.waiting);
        let windows = windows.flat_map(|(from, until, _)| [from, until]);
        for mark in windows.chain(marks) {
            *mark += away;
        }
    }

    /// Counts the samples that wait.
    pub fn go_on(&mut self) {
        let now = self.covered;
        self.until = now;
        for (.., samples) in &self.waiting {
            for sample in samples {
                self.totals.add(*sample);
            }
        }
        self.recent.append(&mut self.waiting);
        while let Some((_, until, _)) = self.recent.front()
            && now.duration_since(*until) > WINDOW
        {
            self.recent.pop_front();
        }
    }

    /// Forgets all samples; names and threads stay known.
    pub fn reset(&mut self) {
        let old = std::mem::replace(&mut self.totals, Recorder::without_timeline()).profile;
        for info in old.threads {
            self.totals.add_thread(info);
        }
        let profile = &mut self.totals.profile;
        profile.tables = old.tables;
        profile.processes = old.processes;
        profile.meta.origin = Origin::Sampled;
        profile.meta.has_cpu_time = true;
        self.recent.clear();
        self.waiting.clear();
        self.since = self.covered;
        self.until = self.covered;
    }

    /// Whether any of the processes has a GIL, as far as is known: free-threaded builds have none.
    pub fn has_gil(&self) -> bool {
        let processes = &self.totals.profile.processes;
        let without = |process: &ProcessInfo| process.python.ends_with('t');
        processes.is_empty() || !processes.iter().all(without)
    }

    fn take_part(&mut self, part: usize, news: &mut News, samples: &mut Vec<Sample>) {
        while self.ids.len() <= part {
            self.ids.push(Ids::default());
            self.totals.profile.processes.push(Default::default());
        }
        let profile = &mut self.totals.profile;
        profile.processes[part].clone_from(&news.process);
        if !news.reader.is_empty() {
            self.reader.clone_from(&news.reader);
            self.approximate |= !news.exact_stacks;
        }
        self.timeline_ended |= news.timeline_ended;
        self.lost = self.lost.saturating_add(std::mem::take(&mut news.lost));
        let ids = &mut self.ids[part];
        ids.follow(&news.tables, &mut profile.tables);
        for (at, info) in news.threads.iter().enumerate() {
            let info = ThreadInfo {
                process: ProcessId(part as u32),
                ..info.clone()
            };
            match ids.threads.get(at) {
                Some(known) => profile.threads[known.index()].name = info.name,
                None => {
                    ids.threads.push(ThreadId(profile.threads.len() as u32));
                    profile.threads.push(info);
                }
            }
        }
        // The recorder has to know threads as well as the profile does.
        let threads = std::mem::take(&mut self.totals.profile.threads);
        self.totals.know(threads);
        self.last
            .resize(self.totals.profile.threads.len(), Last::default());
        for sample in news.samples.drain(..) {
            let sample = Sample {
                thread: ids.threads[sample.thread.index()],
                stack: ids.stacks[sample.stack.index()],
                ..sample
            };
            self.last[sample.thread.index()] = Last {
                state: sample.state,
                stack: Some(sample.stack),
                look: self.look,
            };
            samples.push(sample);
        }
    }

    /// Computes what the views are made of.
    pub fn compute(&mut self, choice: Choice) -> Computed {
        if !choice.recent || self.is_file {
            let seconds = match self.is_file {
                true => self.totals.profile.meta.duration_us as f64 / 1e6,
                false => self.until.duration_since(self.since).as_secs_f64(),
            };
            return computed(&self.totals.profile, choice, seconds);
        }
        let mut recorder = Recorder::without_timeline();
        recorder.profile.meta = self.totals.profile.meta.clone();
        recorder.profile.tables = std::mem::take(&mut self.totals.profile.tables);
        recorder.know(std::mem::take(&mut self.totals.profile.threads));
        // What is on a thread's stack when the window begins was called, whenever that was. What stands above a task is of others.
        let is_thread = |info: &ThreadInfo| info.os_id != 0;
        let threads = recorder.profile.threads.iter();
        let mut begins: Vec<bool> = threads.map(is_thread).collect();
        for (_, _, samples) in &self.recent {
            for sample in samples {
                let mut sample = *sample;
                if let Some(begins) = begins.get_mut(sample.thread.index())
                    && std::mem::replace(begins, false)
                {
                    sample.fresh_from = Some(0);
                }
                recorder.add(sample);
            }
        }
        let from = self.recent.front().map_or(self.since, |(from, _, _)| *from);
        let span = self.until.duration_since(from);
        let computed = computed(&recorder.profile, choice, span.as_secs_f64());
        self.totals.profile.tables = recorder.profile.tables;
        self.totals.profile.threads = recorder.profile.threads;
        computed
    }
}

fn computed(profile: &Profile, choice: Choice, seconds: f64) -> Computed {
    let filter = choice.filter();
    let (tree, estimated) = profile.tree(&filter);
    let stats = match &profile.exact {
        Some(exact) => exact.clone(),
        None => CallStats::of(&tree, &profile.tables),
    };
    let whole_ns = tree.total_wall_ns();
    let mut cpu_us = vec![0u64; profile.threads.len()];
    for run in &profile.runs {
        if let Some(sum) = cpu_us.get_mut(run.thread.index()) {
            *sum = sum.saturating_add(run.cpu_us.into());
        }
    }
    let states = states::times(profile, &Filter::default());
    // What a program did until its end is shown before that end is.
    let longest_us = states.iter().map(|times| times.wall_us).max();
    let seconds = seconds.max(longest_us.unwrap_or(0) as f64 / 1e6);
    Computed {
        cpu_us,
        stats,
        estimated,
        states,
        whole_ns,
        seconds,
        tree,
    }
}

impl Ids {
    /// Makes our ids for all that is new in `from`.
    fn follow(&mut self, from: &Tables, to: &mut Tables) {
        let new = from.strings().iter().skip(self.strings.len());
        self.strings
            .extend(new.map(|text: &Arc<str>| to.string(text)));
        for function in from.functions().iter().skip(self.functions.len()) {
            self.functions.push(to.add_function(Function {
                file: self.strings[function.file.index()],
                name: self.strings[function.name.index()],
                ..*function
            }));
        }
        for frame in from.frames().iter().skip(self.frames.len()) {
            let function = self.functions[frame.function.index()];
            self.frames.push(to.frame(function, frame.line));
        }
        for node in from.stacks().iter().skip(self.stacks.len()) {
            let parent = node.parent.map(|parent| self.stacks[parent.index()]);
            let stack = to.stack(parent, self.frames[node.frame.index()]);
            self.stacks.push(stack);
        }
    }
}
