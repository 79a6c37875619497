//! Calls of a function in the whole time from watches in parts of it.
//!
//! Watches begin at samples, so their beginnings are spread evenly over the thread's CPU time, and how much of that time the
//! function was on the stack is known from all samples, thousands of them. So watches are of two strata: begun with the
//! function on the stack, and without. In each the mean number of calls by time of watches of the same length, times
//! the time of the stratum, has no bias, whatever the program does; all watches of a function are cut to the same length for that.
//! Where the program changes meanwhile, each watch stands for the time around it.
//!
//! Two ways, which differ in how long watches are:
//!
//! - Functions that are called often are watched for less than the time between two samples. Time that hits take is taken off.
//! - Others are watched over whole intervals between samples. There the calls that began are known exactly from the hits and the
//!   number of invocations on the stack at both ends. Where calls are long, samples see nearly all of them; then watches tell
//!   only how many they miss.

use super::tally::{EDGES, Edge, Watched};
use crate::profile::{CallEstimate, CallSource};

/// Watches begun with the function on the stack, below which nothing is said.
const FEWEST: usize = 3;

/// The same of a function that calls itself.
const FEWEST_OF_RECURSION: usize = 24;

/// Of the time without the function on the stack so little does not matter when nobody has watched there.
const NEGLIGIBLE: f64 = 0.08;

/// Watches that end at their limit, as a share of all, from which on a function is called often; and the share of the
/// time in watches that hits take.
const OFTEN_SPENT: f64 = 0.05;
const OFTEN_LOST: f64 = 0.2;

/// The quantile of how much time watches cover to which all are cut: those that are shorter are drawn out.
const CUT: f64 = 0.15;

/// Watches that were planned with knowledge, from which on the others are left out.
const SEEING: usize = 6;

/// Samples that see each call, from which on most calls are seen.
const SEEN_CALLS: f64 = 1.5;

/// The error that is always there, as a share, of short watches and of whole intervals between samples: a sample leaves a program
/// with cold caches, some of them for longer than is left out.
const LEAST: [f64; 2] = [0.1, 0.015];

/// By this the spread of watches is too small an error: measured on programs that count their own calls.
const SPREAD: f64 = 1.5;

/// Watches that reached their limit before they counted, as a share of all, from which on nothing is said; and by how much more
/// calls than in the others there may have been in them.
const MOST_DROWNED: f64 = 0.1;
const DENSER: f64 = 3.0;

/// How unsure a number is where threads take turns, as a share of it.
const TURNS: f64 = 0.1;

/// The longest share of the time in which nobody watched, up to which the rest says enough of it; and by how much of
/// such a share a number is taken to be unsure, since programs change.
const LONGEST_UNWATCHED: f64 = 0.25;
const CHANGE: f64 = 0.25;

/// A caller with this share of a function's time matters: calls of different callers take different times.
const MIXED: f64 = 0.05;

/// An error as a share of the number, from which on the number is no more than a lower bound.
const MOST: f64 = 0.4;

/// Calls shorter than that many times what a hit costs are too much slowed down by being watched.
const SHORTEST_OF_COST: f64 = 0.16;

/// Short watches that are near each other in time, and most such groups.
const SEGMENT: usize = 16;
const MOST_SEGMENTS: usize = 16;

/// Watches in a row that stand for the time around them together.
const BLOCK: usize = 5;

/// What each sample makes the program lose, nanoseconds: it comes back to cold caches. Watches leave that time out.
const COLD_LOSS_NS: f64 = 10_000.0;

/// Variance of a number of events of which none was seen (half a one, as with Jeffreys' prior).
const UNSEEN: f64 = 0.5;

/// What is known of a function in a thread.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// Its watches.
    pub watches: &'a [Watched],
    /// Its callers, with their part of the time.
    pub edges: &'a [Edge],
    /// CPU time of the thread with the function on the stack, and without, nanoseconds.
    pub on_ns: f64,
    /// The same without.
    pub off_ns: f64,
    /// CPU time from one sample to the next, nanoseconds.
    pub period_ns: f64,
    /// Samples with it on the stack.
    pub on_samples: u64,
    /// Calls that samples told apart.
    pub seen: u64,
    /// Whether no other thread of the program takes turns with this one.
    pub is_alone: bool,
    /// Most invocations on the stack at a time.
    pub deepest: u32,
    /// Watches that reached their limit before they counted.
    pub drowned: u64,
    /// Of all hits those that end a call; 1 where a hit is the beginning of a call.
    pub share: f64,
    /// Whether hits come in pairs, at the beginning and at the end of a call.
    pub paired: bool,
    /// Whether they alternate: beginning, end, beginning, since it never was on the stack twice.
    pub alternates: bool,
    /// How often it came onto the stack, as samples saw it.
    pub runs: u64,
    /// Cost of a hit, nanoseconds, and its standard error as a share of it.
    pub cost_ns: f64,
    /// That error.
    pub cost_error: f64,
}

/// A sum over one stratum.
#[derive(Debug, Clone, Copy, Default)]
struct Stratum {
    calls: f64,
    variance: f64,
    /// Squares of variances, each by its degrees of freedom.
    doubt: f64,
    /// Variance of what was never seen.
    unseen: f64,
}

impl Evidence<'_> {
    /// At least so many calls there were.
    fn bound(&self) -> CallEstimate {
        let counted: f64 = self
            .watches
            .iter()
            .map(|watch| {
                let hits: f64 = watch.parts.iter().map(|part| part.hits).sum();
                // A call that was going on at the beginning or the end is half seen.
                (hits.max(watch.hits_ns.len() as f64) * self.share - 0.5).max(0.0)
            })
            .sum();
        let counted = if counted.is_finite() {
            counted.floor()
        } else {
            0.0
        };
        CallEstimate {
            calls: counted.max(self.seen as f64),
            error: None,
            source: CallSource::LowerBound,
        }
    }

    /// The strata with their times; nearly all of the time may be in the first.
    fn strata(&self) -> impl Iterator<Item = (usize, f64)> + use<> {
        let off_ns = match self.off_matters() {
            true => Some((1, self.off_ns)),
            false => None,
        };
        // What is called for so short a time is as often called as in the rest.
        let on_ns = self.on_ns + if off_ns.is_none() { self.off_ns } else { 0.0 };
        std::iter::once((0, on_ns)).chain(off_ns)
    }

    fn off_matters(&self) -> bool {
        self.off_ns > NEGLIGIBLE * (self.on_ns + self.off_ns)
    }

    /// The number of calls.
    pub fn estimate(&self) -> CallEstimate {
        let begun_on = self.watches.iter().filter(|watch| watch.on);
        let begun_off = self.watches.len() - begun_on.clone().count();
        let begun_on: Vec<&Watched> = begun_on.collect();
        if begun_on.len() < FEWEST
            || self.share <= 0.0
            || (self.off_matters() && begun_off < FEWEST)
        {
            return self.bound();
        }
        // Bursts of calls that nobody could watch, and calls of itself, which come in bursts too.
        let drowned = self.drowned as f64 / (self.drowned as f64 + self.watches.len() as f64);
        let recurs = self.deepest > 1;
        if drowned > MOST_DROWNED || (recurs && begun_on.len() < FEWEST_OF_RECURSION) {
            return self.bound();
        }
        let spent = begun_on.iter().filter(|watch| watch.spent).count() as f64;
        let covered: f64 = begun_on.iter().map(|watch| watch.covered_ns).sum();
        let lost: f64 = begun_on.iter().map(|watch| watch.lost_ns).sum();
        let often = spent > OFTEN_SPENT * begun_on.len() as f64
            || lost > OFTEN_LOST * (covered + lost).max(1.0);
        let found = match often {
            true => self.of_short_watches().map(|found| (found, false)),
            false => self.of_whole_samples(),
        };
        let Some((found, is_seen)) = found else {
            return self.bound();
        };
        // Of a time in which nobody watched nothing is known, unless samples see the calls.
        let unwatched = if is_seen {
            0.0
        } else {
            self.longest_unwatched(often)
        };
        if unwatched > LONGEST_UNWATCHED {
            return self.bound();
        }
        let calls = found.calls.max(self.seen as f64);
        // Of calls that are timed one by one each has a hit's cost in its time.
        let of_call = match often && self.alternates {
            true => self.cost_ns * calls / self.on_ns.max(1.0),
            false => 0.0,
        };
        let slowed = (lost / covered.max(1.0)).max(of_call) * self.cost_error;
        let mixed = self
            .edges
            .iter()
            .filter(|edge| edge.ns > MIXED * self.on_ns)
            .count()
            > 1;
        let spread = match (often, mixed || recurs) {
            (true, true) => 1.5 * SPREAD,
            _ => SPREAD,
        };
        let error = (spread * found.error())
            .hypot(calls * slowed)
            .hypot(calls * CHANGE * unwatched)
            .hypot(calls * DENSER * drowned)
            .hypot(if self.is_alone { 0.0 } else { calls * TURNS })
            .hypot(if often {
                calls * self.error_of_time()
            } else {
                0.0
            })
            .hypot(calls * LEAST.get(usize::from(!often)).copied().unwrap_or(0.0));
        if !(calls.is_finite() && error.is_finite())
            || calls < 0.5
            || error > MOST * calls.max(1.0) && error > 1.0
        {
            return self.bound();
        }
        CallEstimate {
            calls,
            error: Some(error),
            source: CallSource::Watchpoint,
        }
    }

    /// From the first part of each watch, of the same length in all that are near each other in time.
    fn of_short_watches(&self) -> Option<Stratum> {
        let planned = || self.watches.iter().filter(|watch| !watch.blind);
        let mut watches: Vec<&Watched> = match planned().filter(|watch| watch.on).count() >= SEEING
        {
            true => planned().collect(),
            false => self.watches.iter().collect(),
        };
        watches.sort_unstable_by(|a, b| begun_ns(a).total_cmp(&begun_ns(b)));
        let warm = (1.0 - COLD_LOSS_NS / self.period_ns).clamp(0.8, 1.0);
        let count = watches.len();
        let segments = (count / SEGMENT).clamp(1, MOST_SEGMENTS);
        let mut seen: Vec<Short> = Vec::with_capacity(count);
        for segment in 1..=segments {
            let (first, last) = (count * (segment - 1) / segments, count * segment / segments);
            cut_alike(watches.get(first..last)?, self.share, &mut seen)?;
        }
        let calls = self.sum(&seen, |point| point.calls);
        let on_ns = self.sum(&seen, |point| point.on_ns).calls;
        let found = if self.alternates && on_ns > 0.0 && calls.calls > 0.0 {
            // How long calls are varies less than how many there are in a watch; and the time in all of them is known.
            let each = calls.calls / on_ns;
            let rest = self.sum(&seen, |point| point.calls - each * point.on_ns);
            Stratum {
                calls: each * self.on_ns,
                ..rest.scaled(self.on_ns / on_ns)
            }
        } else {
            calls
        }
        .scaled(warm);
        // A call takes less than a hit: what is left of the time is a guess.
        let each_ns = self.on_ns / found.calls.max(1.0);
        (each_ns >= SHORTEST_OF_COST * self.cost_ns).then_some(found)
    }

    /// The clocks of all strata at the end.
    fn whole(&self) -> [f64; STRATA] {
        let edge = |at: usize| self.edges.get(at).map_or(0.0, |edge| edge.ns);
        let mut whole = [0.0; STRATA];
        for (at, place) in whole.iter_mut().enumerate().take(EDGES) {
            *place = edge(at);
        }
        let first: f64 = whole.iter().sum();
        whole[EDGES] = (self.on_ns - first).max(0.0);
        whole[EDGES + 1] = self.off_ns;
        whole
    }

    /// The sum over the whole time of a value of each watch.
    fn sum(&self, seen: &[Short], value: impl Fn(&Short) -> f64) -> Stratum {
        let unit = self.share.powi(2);
        // What is usual by time, for where nobody has watched: on the stack, and not.
        let usual = |on: bool| {
            let points = seen.iter().filter(|p| (p.stratum <= EDGES) == on);
            let (values, times) = points.fold((0.0, 0.0), |sum, point| {
                (sum.0 + value(point), sum.1 + point.length_ns)
            });
            if times > 0.0 { values / times } else { 0.0 }
        };
        let (on, off) = (usual(true), usual(false));
        let mut sum = Stratum::default();
        for (stratum, whole_ns) in self.whole().into_iter().enumerate() {
            let inside = seen.iter().filter(|p| p.stratum == stratum);
            let points: Vec<Point> = inside
                .map(|point| Point {
                    at_ns: point.at_ns,
                    calls: value(point),
                    time_ns: point.length_ns,
                })
                .collect();
            let is_watched = seen.iter().any(|point| point.stratum == EDGES + 1);
            let usual = match stratum <= EDGES {
                true => on,
                false if is_watched => off,
                // Little time, or there would be watches: called half as often, give or take as much.
                false => on / 2.0,
            };
            sum.add(integral(points, whole_ns, usual, unit));
        }
        sum
    }

    /// How far the time on the stack, which samples tell, may be off: a share of it.
    fn error_of_time(&self) -> f64 {
        let samples = self.on_samples.max(1) as f64;
        let (runs, all) = (self.runs.max(1) as f64, (self.on_ns + self.off_ns).max(1.0));
        // Short runs come by chance; of long ones only the ends do.
        let length = (samples / runs).max(1.0);
        let each = 1.0 / 6.0 + 5.0 / 6.0 / length.powi(2);
        (runs * each).sqrt() / samples * (self.off_ns / all).sqrt()
    }

    /// From whole intervals between samples.
    fn of_whole_samples(&self) -> Option<(Stratum, bool)> {
        let plain = self.sum_of_parts(0.0)?;
        let each_samples = self.on_samples as f64 / plain.calls.max(1.0);
        if each_samples < SEEN_CALLS {
            return Some((plain, false));
        }
        let beside = self.sum_of_parts(1.0)?;
        let found = Stratum {
            calls: beside.calls + self.seen as f64,
            ..beside
        };
        // What samples saw, watches have to see.
        let missing = -beside.calls;
        if missing > 1.0 + 0.1 * self.seen as f64 && missing > 3.0 * beside.error() {
            return None;
        }
        let is_better = found.error() < plain.error();
        Some(
            match is_better || self.longest_unwatched(false) > LONGEST_UNWATCHED {
                true => (found, true),
                false => (plain, false),
            },
        )
    }

    /// The longest time between two watches, as a share of all such time: of those that began with the function on the
    /// stack, in the time with it there; where it is called often, of all, for each has seen calls.
    fn longest_unwatched(&self, often: bool) -> f64 {
        let (watches, end) = match often {
            true => (
                self.watches.iter().map(begun_ns).collect(),
                self.on_ns + self.off_ns,
            ),
            false => {
                let on = self.watches.iter().filter(|watch| watch.on);
                (
                    on.map(|watch| watch.at_ns[0]).collect::<Vec<f64>>(),
                    self.on_ns,
                )
            }
        };
        let mut places: Vec<f64> = watches.into_iter().chain([0.0, end]).collect();
        places.sort_unstable_by(f64::total_cmp);
        let gaps = places.windows(2).map(|pair| match pair {
            [from, to] => to - from,
            _ => 0.0,
        });
        gaps.fold(0.0, f64::max) / end.max(1.0)
    }

    /// Calls that began, less `seen` times those that samples told apart.
    fn sum_of_parts(&self, seen: f64) -> Option<Stratum> {
        let more = if self.paired { 0.5 } else { 0.0 };
        let mut sum = Stratum::default();
        for (kind, whole_ns) in self.strata() {
            let points: Vec<Point> = self
                .watches
                .iter()
                .filter_map(|watch| {
                    let part = watch.parts.get(kind)?;
                    (part.cpu_ns > 0.0).then(|| Point {
                        at_ns: watch.at_ns.get(kind).copied().unwrap_or(0.0),
                        calls: part.hits * self.share + part.more * more - seen * part.seen,
                        time_ns: part.cpu_ns,
                    })
                })
                .collect();
            sum.add(total(points, whole_ns, 1.0));
        }
        sum.calls.is_finite().then_some(sum)
    }
}

impl Stratum {
    fn add(&mut self, other: Stratum) {
        self.calls += other.calls;
        self.variance += other.variance;
        self.doubt += other.doubt;
        self.unseen += other.unseen;
    }

    /// The same in another unit.
    fn scaled(self, by: f64) -> Stratum {
        Stratum {
            calls: self.calls * by,
            variance: self.variance * by * by,
            doubt: self.doubt * by.powi(4),
            unseen: self.unseen * by * by,
        }
    }

    /// The standard error. Of few watches the spread is not well known either: three errors are to be as sure as ever
    /// (Student's t; degrees of freedom by Welch and Satterthwaite).
    fn error(&self) -> f64 {
        let freedom = (self.variance.powi(2) / self.doubt.max(f64::MIN_POSITIVE)).max(1.0);
        let few = 1.0 + 8.0 / freedom.powf(1.6);
        (self.variance * few * few + self.unseen).sqrt()
    }
}

/// What a watch saw of one stratum.
#[derive(Debug, Clone, Copy)]
struct Point {
    /// When it began, by the clock of the stratum.
    at_ns: f64,
    /// Calls.
    calls: f64,
    /// In so much time.
    time_ns: f64,
}

/// Calls in the whole time of a stratum. Watches that follow each other stand for the time around them, and how they differ
/// from each other says how sure that is. `unit` is the variance of one event.
fn total(mut points: Vec<Point>, whole_ns: f64, unit: f64) -> Stratum {
    points.sort_unstable_by(|a, b| a.at_ns.total_cmp(&b.at_ns));
    let count = points.len();
    let watched_ns: f64 = points.iter().map(|point| point.time_ns).sum();
    let blocks = (count / BLOCK).max(1);
    let mut sum = Stratum::default();
    let (mut from, mut from_ns) = (0, 0.0);
    let mut freedom = 0usize;
    for block in 1..=blocks {
        let to = count * block / blocks;
        let Some(inside) = points.get(from..to).filter(|inside| !inside.is_empty()) else {
            continue;
        };
        let last_ns = inside.last().map_or(0.0, |point| point.at_ns);
        let to_ns = points
            .get(to)
            .map_or(whole_ns, |next| f64::midpoint(last_ns, next.at_ns));
        let width_ns = (to_ns - from_ns).max(0.0);
        let time_ns: f64 = inside.iter().map(|point| point.time_ns).sum();
        let calls: f64 = inside.iter().map(|point| point.calls).sum();
        let rate = calls / time_ns.max(1.0);
        let spread: f64 = inside
            .iter()
            .map(|point| (point.calls - rate * point.time_ns).powi(2))
            .sum();
        let inside = inside.len() as f64;
        let scale = width_ns / time_ns.max(1.0);
        // What was watched is known; the rest is not.
        let left = (1.0 - 1.0 / scale.max(1.0)).max(0.0);
        sum.calls += rate * width_ns;
        sum.variance += spread * inside / (inside - 1.0).max(1.0) * scale * scale * left;
        freedom += inside as usize - 1;
        (from, from_ns) = (to, to_ns);
    }
    let scale = whole_ns / watched_ns.max(1.0);
    let left = (1.0 - 1.0 / scale.max(1.0)).max(0.0);
    sum.doubt = sum.variance.powi(2) / freedom.max(1) as f64;
    sum.unseen = UNSEEN * unit * left * left * scale * scale;
    sum
}

/// Strata of short watches: by caller, all other callers, not on the stack.
const STRATA: usize = EDGES + 2;

/// What a short watch saw.
#[derive(Debug, Clone, Copy)]
struct Short {
    stratum: usize,
    /// When it began, by the clock of the stratum.
    at_ns: f64,
    /// How long it is.
    length_ns: f64,
    calls: f64,
    /// Time with the function on the stack.
    on_ns: f64,
}

/// Cuts watches that are near each other in time to the same length.
fn cut_alike(watches: &[&Watched], share: f64, seen: &mut Vec<Short>) -> Option<()> {
    let mut reached: Vec<f64> = watches.iter().map(|watch| reach_ns(watch)).collect();
    reached.sort_unstable_by(f64::total_cmp);
    let length_ns = *reached.get((reached.len() as f64 * CUT) as usize)?;
    if length_ns < 1.0 {
        return None;
    }
    seen.extend(watches.iter().map(|watch| {
        let reach_ns = reach_ns(watch);
        let (hits, on_ns) = within(watch, length_ns.min(reach_ns));
        let longer = length_ns / length_ns.min(reach_ns).max(1.0);
        // The last hit ended it: half of it is at the end.
        let half = if longer > 1.0 && is_cut(watch) {
            0.5
        } else {
            0.0
        };
        let stratum = match watch.on {
            true => watch.edge.min(EDGES),
            false => EDGES + 1,
        };
        Short {
            stratum,
            at_ns: strata_at(watch).get(stratum).copied().unwrap_or(0.0),
            length_ns,
            calls: (hits - half).max(0.0) * longer * share,
            on_ns: on_ns * longer,
        }
    }));
    Some(())
}

/// The sum over the whole time of a stratum, in which each watch stands for the time around it; `usual` is what is taken
/// where there is none. How sure it is, the differences between neighbours say. `unit` is the variance of one event.
fn integral(mut points: Vec<Point>, whole_ns: f64, usual: f64, unit: f64) -> Stratum {
    if points.is_empty() {
        let calls = usual * whole_ns;
        return Stratum {
            calls,
            variance: calls.powi(2),
            doubt: calls.powi(4),
            unseen: 0.0,
        };
    }
    points.sort_unstable_by(|a, b| a.at_ns.total_cmp(&b.at_ns));
    let rate = |point: &Point| point.calls / point.time_ns.max(1.0);
    let mut sum = Stratum::default();
    let mut from_ns = 0.0;
    let widths: Vec<f64> = (0..points.len())
        .map(|at| {
            let here_ns = points.get(at).map_or(0.0, |point| point.at_ns);
            let next = points.get(at + 1);
            let to_ns = next.map_or(whole_ns, |next| f64::midpoint(here_ns, next.at_ns));
            let width_ns = (to_ns - from_ns).max(0.0);
            from_ns = to_ns;
            width_ns
        })
        .collect();
    for (point, width_ns) in points.iter().zip(&widths) {
        sum.calls += rate(point) * width_ns;
        sum.unseen += unit * (width_ns / point.time_ns.max(1.0)).powi(2);
    }
    // One of them alone says nothing about how it would differ from another one.
    sum.variance = match points.as_slice() {
        [_] => sum.calls.powi(2),
        _ => {
            points
                .windows(2)
                .zip(widths.windows(2))
                .map(|(points, widths)| match (points, widths) {
                    ([a, b], [left, right]) => {
                        (rate(a) - rate(b)).powi(2) / 2.0 * (left.powi(2) + right.powi(2)) / 2.0
                    }
                    _ => 0.0,
                })
                .sum::<f64>()
                * points.len() as f64
                / (points.len() - 1) as f64
        }
    };
    let freedom = (points.len() as f64 - 1.0).max(1.0) / 1.5;
    sum.doubt = sum.variance.powi(2) / freedom.max(1.0);
    // Half an event in all of them together.
    sum.unseen *= UNSEEN / points.len() as f64;
    sum
}

/// CPU time of the thread at the beginning of a watch.
fn begun_ns(watch: &Watched) -> f64 {
    watch.at_ns.iter().sum()
}

/// The clocks of all strata then.
fn strata_at(watch: &Watched) -> [f64; STRATA] {
    let [on_ns, off_ns] = watch.at_ns;
    let mut clocks = [0.0; STRATA];
    for (place, ns) in clocks.iter_mut().zip(watch.edges_at_ns) {
        *place = ns;
    }
    let first: f64 = clocks.iter().sum();
    clocks[EDGES] = (on_ns - first).max(0.0);
    clocks[EDGES + 1] = off_ns;
    clocks
}

/// How far the hits that are remembered reach.
fn reach_ns(watch: &Watched) -> f64 {
    match watch.hits_ns.last() {
        Some(last) if watch.hits_ns.len() >= super::tally::MOST_HITS => f64::from(*last),
        _ => watch.covered_ns,
    }
}

/// Hits, and CPU time between a hit that begins a call and the one that ends it, in the first `until_ns` of a watch.
fn within(watch: &Watched, until_ns: f64) -> (f64, f64) {
    let (mut hits, mut on_ns) = (0.0, 0.0);
    let begins = |at: usize| watch.begins >> (at % 64) & 1 == 1;
    // A sample that falls on a hit sees a frame whose call has just ended, or not begun yet: the first hit knows better.
    let (mut on, mut since_ns) = (watch.on, 0.0);
    if !watch.hits_ns.is_empty() {
        on = !begins(0);
    }
    for (at, at_ns) in watch.hits_ns.iter().copied().map(f64::from).enumerate() {
        if at_ns > until_ns {
            break;
        }
        if at_ns >= 0.0 {
            hits += 1.0;
            if on {
                on_ns += at_ns - since_ns;
            }
            since_ns = at_ns;
        }
        on = begins(at);
    }
    if on {
        on_ns += until_ns - since_ns;
    }
    (hits, on_ns)
}

fn is_cut(watch: &Watched) -> bool {
    watch.spent || watch.hits_ns.len() >= super::tally::MOST_HITS
}

#[cfg(test)]
#[path = "simulated.rs"]
mod simulated;
