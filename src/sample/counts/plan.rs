//! Which function is watched next, for how long, and how much all of it may cost the program.

use rand::RngExt;
use rand::rngs::SmallRng;

use super::COLD_NS;
use super::tally::Tally;

/// Share of the program's CPU time that watches may cost, and what they may cost at the beginning, nanoseconds.
const SHARE: f64 = 0.007;
const CREDIT_NS: f64 = 8e6;

/// What may be saved up, and owed at most, nanoseconds.
const MOST_SAVED_NS: f64 = 10e6;
const MOST_OWED_NS: f64 = 3e6;

/// Opening or moving a watchpoint, nanoseconds of the program's time.
const SETTING_NS: f64 = 20_000.0;

/// Hits that a watch is to see, and its limit as a multiple of what is expected; where a function is called often, it is to
/// be watched for so long all the same.
const HITS: f64 = 8.0;
const LIMIT: f64 = 4.0;
const LEAST_NS: f64 = 110_000.0;

/// Least and most limit of hits.
const LIMITS: std::ops::RangeInclusive<u32> = 8..=60;

/// Writes for each beginning or end of a call, at most.
const MOST_WRITES: f64 = 4.0;

/// Longest watch, nanoseconds of CPU time; and those that are short enough for all registers.
const LONGEST_NS: f64 = 3e8;
const SHORT_NS: f64 = 8e6;

/// Length of a watch from which on its hits cost next to nothing beside it: such functions are not watched so much less when
/// others have spent what there is.
const CHEAP_NS: f64 = 2e7;

/// CPU time between the beginnings of two watches of a function of which 1 % of the time is, in time with it on the
/// stack, and without; it grows with the number of watches that there were, doubled at so many.
const GAP_NS: [f64; 2] = [3e6, 60e6];
const DOUBLED_AT: f64 = 40.0;

/// CPU time from hit to hit below which nothing can be told, as so many watches that ended early have shown; such
/// functions are watched by so much less. The more a hit costs, the less is left to be seen between two: a part of that, up
/// to a limit at which functions would be missed whose calls can be told.
const HOPELESS_NS: std::ops::RangeInclusive<f64> = 700.0..=2000.0;
const HOPELESS_OF_COST: f64 = 0.15;
const TRIED: u64 = 2;
const RARELY: f64 = 150.0;

/// Functions with a smaller share of the time are watched less often, down to so much less.
const SMALL: f64 = 0.01;
const MOST_SELDOM: f64 = 20.0;

/// Functions that are not on the stack out of which one is drawn at a sample.
const DRAWS: usize = 2;

/// Share of the time from which on a function is looked at in every sample, and most such functions.
const HOT: f64 = 0.003;
const MOST_HOT: usize = 64;

/// How fast gaps follow what was spent, and how often, nanoseconds of CPU time.
const GAIN: f64 = 0.15;
const STEP_NS: f64 = 20e6;

/// What may be spent, and how rarely functions have to be watched for that.
#[derive(Debug)]
pub struct Purse {
    left_ns: f64,
    /// By this all gaps are longer.
    stretch: f64,
    /// Earned and spent since it was adapted last.
    earned_ns: f64,
    spent_ns: f64,
}

impl Default for Purse {
    fn default() -> Purse {
        Purse {
            left_ns: CREDIT_NS,
            stretch: 1.0,
            earned_ns: 0.0,
            spent_ns: 0.0,
        }
    }
}

impl Purse {
    /// The program has used so much CPU time.
    pub fn earn(&mut self, cpu_ns: f64) {
        let part = cpu_ns * SHARE;
        self.left_ns = (self.left_ns + part).min(MOST_SAVED_NS);
        self.earned_ns += part;
        if self.earned_ns >= STEP_NS * SHARE {
            // What was saved up may be spent within some steps, what is owed has to be saved.
            let goal_ns = (self.earned_ns + self.left_ns / 20.0).max(0.2 * self.earned_ns);
            let beyond = (self.spent_ns / goal_ns - 1.0).clamp(-1.0, 4.0);
            // That nothing is spent while nothing may be says nothing about the gaps.
            let beyond = if self.left_ns < 0.0 {
                beyond.max(0.0)
            } else {
                beyond
            };
            self.stretch = (self.stretch * (GAIN * beyond).exp()).clamp(0.1, 1e4);
            (self.earned_ns, self.spent_ns) = (0.0, 0.0);
        }
    }

    /// Watches have cost the program so much.
    pub fn spend(&mut self, cost_ns: f64) {
        self.left_ns -= cost_ns;
        self.spent_ns += cost_ns;
    }

    /// A watchpoint is opened or moved.
    pub fn set(&mut self) {
        self.spend(SETTING_NS);
    }

    /// Whether anything may be spent.
    pub fn has_any(&self) -> bool {
        self.left_ns > -MOST_OWED_NS
    }
}

/// CPU time from hit to hit below which a function is hopeless, where a hit costs so much.
pub fn hopeless_ns(cost_ns: f64) -> f64 {
    (HOPELESS_OF_COST * cost_ns).clamp(*HOPELESS_NS.start(), *HOPELESS_NS.end())
}

/// Whether hits follow each other too fast, as far as is known.
fn is_dense(tally: &Tally) -> bool {
    tally.dense.0 * tally.hopeless_ns > 1.0
}

/// How a function is to be watched.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plan {
    /// CPU time, nanoseconds; it ends at the first sample after that.
    pub length_ns: f64,
    /// Hits after which it ends at once.
    pub limit: u32,
    /// Hits that are expected.
    pub expected: f64,
    /// Whether nothing is known of the function yet.
    pub blind: bool,
}

impl Plan {
    /// Whether what it costs is next to nothing beside its length.
    pub fn is_cheap(&self) -> bool {
        self.length_ns >= CHEAP_NS
    }

    /// Whether it is short enough for any register.
    pub fn is_short(&self) -> bool {
        self.length_ns <= SHORT_NS
    }
}

/// Hits a nanosecond of CPU time with the function on the stack; `None` where that is not known yet.
fn rate(tally: &Tally, period_ns: f64) -> Option<f64> {
    let [on_hits, off_hits] = tally.hits.map(|hits| hits as f64);
    let [on_ns, off_ns] = tally.covered_ns;
    match tally.begun {
        // What is added are cold starts, in which hits are, but no time that counts.
        [begun, _] if begun >= 2 => Some(on_hits / (on_ns + begun as f64 * COLD_NS)),
        [begun, _] if on_ns + off_ns > 50.0 * period_ns => {
            Some((on_hits + off_hits) / (on_ns + begun as f64 * COLD_NS).max(0.1 * off_ns))
        }
        // All that is known is how often it was hit in watches that ended before they counted.
        _ if tally.dense.1 > 0 => Some(tally.dense.0),
        _ => None,
    }
}

/// The plan for a function, of which watches that began with it on the stack tell how often it is hit.
pub fn plan(tally: &Tally, period_ns: f64) -> Plan {
    let plan = plan_of_hits(tally, period_ns);
    // Writes that are no calls' beginnings or ends count and cost as much as others.
    let hits = tally.calls.iter().sum::<u64>().max(1) as f64;
    let writes = (tally.writes as f64 / hits).clamp(1.0, MOST_WRITES);
    Plan {
        limit: (f64::from(plan.limit) * writes) as u32,
        expected: plan.expected * writes,
        ..plan
    }
}

fn plan_of_hits(tally: &Tally, period_ns: f64) -> Plan {
    let least = *LIMITS.start();
    let Some(rate) = rate(tally, period_ns) else {
        return Plan {
            length_ns: 1.0,
            limit: least,
            expected: f64::from(least),
            blind: true,
        };
    };
    let length_ns = (HITS / rate.max(HITS / LONGEST_NS)).min(LONGEST_NS);
    if length_ns < period_ns {
        // It may be called much more often at times. Where nothing can be told, a few hits say so as well as many.
        let dense = match is_dense(tally) {
            true => 0.0,
            false => rate.max(tally.dense.0),
        };
        let limit = (dense * LEAST_NS).clamp(f64::from(least), f64::from(*LIMITS.end()));
        return Plan {
            length_ns,
            limit: limit as u32,
            expected: limit.min(rate * period_ns),
            blind: false,
        };
    }
    let limit = (LIMIT * rate * length_ns) as u32;
    Plan {
        length_ns,
        limit: limit.clamp(least, *LIMITS.end()),
        expected: rate * length_ns,
        blind: false,
    }
}

/// CPU time from one beginning of a watch to the next, in time with the function on the stack (`kind` 0) or without (1):
/// drawn for each function by itself, so that it does not depend on what else is on the stack.
fn gap_ns(tally: &Tally, kind: usize, now_ns: f64, random: &mut SmallRng) -> f64 {
    let now_ns = now_ns.max(1.0);
    let on = (tally.on_ns(now_ns) / now_ns).clamp(1e-5, 1.0);
    let weight = (tally.own_ns / now_ns + 0.1 * on).clamp(1e-6, 1.0);
    let begun = tally.begun.get(kind).copied().unwrap_or(0) as f64;
    let usual_ns = GAP_NS.get(kind).copied().unwrap_or(1e8) * (1.0 + begun / DOUBLED_AT);
    // Those that cost less are watched more often: the most is learnt for what may be spent.
    let cost = (tally.expected_cost.max(0.1)).sqrt();
    let is_hopeless = tally.dense.1 >= TRIED && is_dense(tally);
    let cost = if is_hopeless { RARELY * cost } else { cost };
    let off_hits = tally.hits.get(1).copied().unwrap_or(0) as f64;
    let off_cost = (0.5 + off_hits / (1.0 + begun) / 5.0).sqrt();
    let scaled_ns = match kind {
        0 => usual_ns * (on / 0.01).sqrt() * (on / weight).sqrt().max(1.0) * cost,
        _ => {
            off_cost * usual_ns * (1.0 - on).max(0.01).sqrt()
                / (weight / 0.01).sqrt().clamp(0.01, 3.0)
        }
    };
    // Many functions have little of the time; what may be spent is for those that people look at.
    let scaled_ns = scaled_ns * (SMALL / weight).clamp(1.0, MOST_SELDOM);
    // Evenly around the usual: no rhythm of the program can stay in step, and each watch stands for about as much time.
    random.random_range(0.5..1.5) * scaled_ns
}

/// The functions that take most of the time, and for whose calls people ask.
pub fn hot(tallies: &[Tally], now_ns: f64) -> Vec<u32> {
    let weight = |tally: &Tally| (tally.own_ns + 0.1 * tally.on_ns(now_ns)) / now_ns.max(1.0);
    let mut hot: Vec<(u32, f64)> = tallies
        .iter()
        .enumerate()
        .map(|(at, tally)| (at as u32, weight(tally)))
        .filter(|(_, weight)| *weight >= HOT)
        .collect();
    hot.sort_unstable_by(|a, b| b.1.total_cmp(&a.1));
    hot.truncate(MOST_HOT);
    hot.into_iter().map(|(at, _)| at).collect()
}

/// Brings forward what is due far too late for what is known of a function by now.
pub fn hasten(tally: &mut Tally, now_ns: f64, random: &mut SmallRng) {
    for kind in 0..2 {
        let gap_ns = gap_ns(tally, kind, now_ns, random);
        if let Some((_, due_ns)) = tally.due.get_mut(kind)
            && *due_ns > 2.0 * gap_ns
            && due_ns.is_finite()
        {
            *due_ns = gap_ns;
        }
    }
}

/// By how much more than the usual time a watch of a function is overdue; `None` when it is not due.
fn overdue(tally: &Tally, kind: usize, now_ns: f64, stretch: f64) -> Option<f64> {
    let (since_ns, gap_ns) = tally.due.get(kind).copied()?;
    let stretch = match tally.is_cheap {
        true => stretch.max(1.0).cbrt(),
        false => stretch,
    };
    let passed = (tally.clock_ns(kind, now_ns) - since_ns) / (gap_ns * stretch).max(1.0);
    (passed >= 1.0).then_some(passed)
}

/// The function to watch next: the one whose watch is most overdue among those on the stack (`levels`), those that take
/// most of the time (`hot`) and some of the others; `may` says whether one may be watched.
pub fn choose(
    tallies: &[Tally],
    levels: impl Iterator<Item = u32>,
    hot: &[u32],
    now_ns: f64,
    purse: &Purse,
    random: &mut SmallRng,
    may: impl Fn(u32, &Tally) -> bool,
) -> Option<u32> {
    let mut best: Option<(f64, u32)> = None;
    let mut look = |at: u32, on: bool| {
        let Some(tally) = tallies.get(at as usize) else {
            return;
        };
        if (tally.depth > 0) != on {
            return;
        }
        if let Some(overdue) = overdue(tally, usize::from(!on), now_ns, purse.stretch)
            && best.is_none_or(|(most, _)| overdue > most)
            && may(at, tally)
        {
            best = Some((overdue, at));
        }
    };
    for level in levels {
        look(level, true);
    }
    hot.iter().for_each(|at| look(*at, false));
    for _ in 0..DRAWS.min(tallies.len()) {
        look(random.random_range(0..tallies.len() as u32), false);
    }
    best.map(|(_, at)| at)
}

/// Sets when a function is due next, after a watch of one kind has begun, or when it was seen first.
pub fn next(tally: &mut Tally, kind: usize, now_ns: f64, random: &mut SmallRng) {
    let gap_ns = gap_ns(tally, kind, now_ns, random);
    let clock_ns = tally.clock_ns(kind, now_ns);
    if let Some(due) = tally.due.get_mut(kind) {
        *due = (clock_ns, gap_ns);
    }
}
