//! What is known of one function in one thread: how long it was on the stack, calls that samples told apart, and what
//! watches saw of it.

use super::COLD_NS;

/// Most watches that are remembered of a function, each with most of its hits.
pub const MOST_WATCHES: usize = 512;
pub const MOST_HITS: usize = 64;

/// Callers of a function that are strata of their own.
pub const EDGES: usize = 4;

/// Hits do not follow each other faster, nanoseconds.
const SHORTEST_NS: f64 = 50.0;

/// Most callers of a function that are told apart.
const MOST_EDGES: usize = 32;

/// One stretch of time in which a function was watched.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Watched {
    /// Whether the function was on the stack when it began, and what had called it: [`Tally::edges`].
    pub on: bool,
    pub edge: usize,
    /// CPU time below each of the first callers up to its beginning.
    pub edges_at_ns: [f64; EDGES],
    /// CPU time up to its beginning during which the function was on the stack, and was not, nanoseconds.
    pub at_ns: [f64; 2],
    /// CPU time that it covers, without what hits cost.
    pub covered_ns: f64,
    /// What hits cost in that time.
    pub lost_ns: f64,
    /// Whether it was planned when nothing was known of the function yet: its limit may be far too low.
    pub blind: bool,
    /// Whether it ended at its limit of hits, not when it was planned to.
    pub spent: bool,
    /// Times of the first hits since `covered_ns` began, without what hits cost, nanoseconds: negative for those before it.
    pub hits_ns: Vec<f32>,
    /// Which of these begin a call: the lowest bit is the first one.
    pub begins: u64,
    /// By whole samples, those that show the function and those that do not.
    pub parts: [Part; 2],
}

/// Intervals between samples in a watch.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Part {
    /// CPU time without what hits cost, nanoseconds.
    pub cpu_ns: f64,
    /// Hits.
    pub hits: f64,
    /// How many more invocations were on the stack at the ends than at the beginnings.
    pub more: f64,
    /// Calls that samples told apart.
    pub seen: f64,
}

/// A caller.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Edge {
    /// The tally of the caller; `None` for no caller.
    pub caller: Option<u32>,
    /// CPU time, nanoseconds.
    pub ns: f64,
}

/// One function in one thread.
#[derive(Debug, Default)]
pub struct Tally {
    /// Invocations on the stack now.
    pub depth: u32,
    /// Most of them at a time, and how often the first one came.
    pub deepest: u32,
    pub runs: u64,
    /// CPU time of the thread when the first of them was seen, nanoseconds; samples likewise.
    pub since_ns: f64,
    pub since_samples: u64,
    /// CPU time and samples with the function on the stack, without those since then.
    on_ns: f64,
    on_samples: u64,
    /// Callers of the innermost invocation, with the CPU time in which they were; the last one for all others if there
    /// are very many.
    pub edges: Vec<Edge>,
    /// The one of now, and since when.
    edge: usize,
    edge_since_ns: f64,
    /// CPU time of the thread before the function was seen first.
    pub born_ns: f64,
    /// Watches that reached their limit before they counted: while it is called too often to be watched.
    pub drowned: u64,
    /// CPU time with the function innermost.
    pub own_ns: f64,
    /// Calls that samples told apart.
    pub seen: u64,
    /// The same in the sample that is being added.
    pub seen_now: u32,
    /// When the last watch began, with the function on the stack and without, by the clocks of these; and the time to the next.
    pub due: [(f64, f64); 2],
    /// What a watch is expected to cost, in costs of ten hits.
    pub expected_cost: f64,
    /// Whether the last watch was planned to be long, for the function is called rarely.
    pub is_cheap: bool,
    /// CPU time from hit to hit below which nothing can be told of it.
    pub hopeless_ns: f64,
    /// Watches that began with the function on the stack, and without.
    pub begun: [u64; 2],
    /// Hits, and CPU time without what hits cost, in watches of both kinds.
    pub hits: [u64; 2],
    /// Hits a nanosecond in watches that ended at their limit, and how many these were.
    pub dense: (f64, u64),
    pub covered_ns: [f64; 2],
    pub watches: Vec<Watched>,
    /// Writes of all kinds in watches; of these, those of which it is not known what they are, and frames that have outlived
    /// their call.
    pub writes: u64,
    pub unknown: u64,
    pub frame_ends: u64,
    /// Of these, beginnings and ends of calls.
    pub calls: [u64; 2],
}

impl Tally {
    /// CPU time with the function on the stack up to `now_ns` of the thread's CPU time.
    pub fn on_ns(&self, now_ns: f64) -> f64 {
        match self.depth {
            0 => self.on_ns,
            _ => self.on_ns + (now_ns - self.since_ns).max(0.0),
        }
    }

    /// Samples with the function on the stack, out of `samples` of the thread.
    pub fn on_samples(&self, samples: u64) -> u64 {
        match self.depth {
            0 => self.on_samples,
            _ => self.on_samples + samples.saturating_sub(self.since_samples),
        }
    }

    /// CPU time with the function on the stack (0), or without (1).
    pub fn clock_ns(&self, kind: usize, now_ns: f64) -> f64 {
        match kind {
            0 => self.on_ns(now_ns),
            _ => now_ns - self.on_ns(now_ns) - self.born_ns,
        }
    }

    /// One more invocation is on the stack, called by `caller`.
    pub fn enter(&mut self, now_ns: f64, samples: u64, caller: Option<u32>) {
        if self.depth == 0 {
            (self.since_ns, self.since_samples) = (now_ns, samples);
            self.runs += 1;
        }
        self.called_by(now_ns, caller);
        self.depth += 1;
        self.deepest = self.deepest.max(self.depth);
    }

    /// One less is; `caller` is that of the innermost one that is left.
    pub fn leave(&mut self, now_ns: f64, samples: u64, caller: Option<u32>) {
        if self.depth == 1 {
            self.on_ns = self.on_ns(now_ns);
            self.on_samples = self.on_samples(samples);
        }
        self.called_by(now_ns, caller);
        self.depth = self.depth.saturating_sub(1);
    }

    /// The innermost invocation has another caller from now on.
    fn called_by(&mut self, now_ns: f64, caller: Option<u32>) {
        self.settle(now_ns);
        let known = self.edges.iter().position(|edge| edge.caller == caller);
        self.edge = match known {
            Some(at) => at,
            None if self.edges.len() < MOST_EDGES => {
                self.edges.push(Edge { caller, ns: 0.0 });
                self.edges.len() - 1
            }
            None => MOST_EDGES - 1,
        };
    }

    /// Adds the time up to now to the caller of now.
    pub fn settle(&mut self, now_ns: f64) {
        let passed = now_ns - self.edge_since_ns;
        if self.depth > 0
            && let Some(edge) = self.edges.get_mut(self.edge)
        {
            edge.ns += passed;
        }
        self.edge_since_ns = now_ns;
    }

    /// The caller of the innermost invocation, its place among `edges`; and the times of the first of these up to now.
    pub fn edge(&mut self, now_ns: f64) -> (usize, [f64; EDGES]) {
        self.settle(now_ns);
        let times = std::array::from_fn(|at| self.edges.get(at).map_or(0.0, |edge| edge.ns));
        (self.edge, times)
    }

    /// Notes a watch that reached its limit while the thread was cold, after so many hits in so much time: the next ones get a
    /// higher limit.
    pub fn drown(&mut self, hits: u64, passed_ns: f64, blind: bool) {
        self.note_dense(hits as f64 / passed_ns.clamp(hits as f64 * SHORTEST_NS, COLD_NS));
        self.drowned += u64::from(!blind);
    }

    fn note_dense(&mut self, rate: f64) {
        let (sum, count) = self.dense;
        self.dense = ((sum * count as f64 + rate) / (count + 1) as f64, count + 1);
    }

    /// Adds a watch; of very many each is kept with the same probability, which `draw` (evenly below its argument)
    /// decides.
    pub fn add(&mut self, watched: Watched, draw: impl FnOnce(u64) -> u64) {
        let kind = usize::from(!watched.on);
        if let Some(covered) = self.covered_ns.get_mut(kind) {
            *covered += watched.covered_ns;
        }
        if let Some(begun) = self.begun.get_mut(kind) {
            *begun += 1;
        }
        let hits: f64 = watched.parts.iter().map(|part| part.hits).sum();
        if watched.spent {
            self.note_dense(hits / (watched.covered_ns + COLD_NS));
        }
        if let Some(all) = self.hits.get_mut(kind) {
            *all += hits as u64;
        }
        if self.watches.len() < MOST_WATCHES {
            self.watches.push(watched);
            return;
        }
        let all = self.begun.iter().sum::<u64>().max(1);
        let place = draw(all) as usize;
        if let Some(known) = self.watches.get_mut(place) {
            *known = watched;
        }
    }
}
