//! Estimates beside random programs, of which every call is known.

use super::*;
use crate::sample::counts::tally::Part;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// From one sample to the next, nanoseconds.
const TICK_NS: f64 = 1e6;

/// One function of a program: when calls begin and end.
struct Program {
    calls: Vec<(f64, f64)>,
    end_ns: f64,
}

impl Program {
    /// `next` gives the time up to the next call, and how long that takes.
    fn new(end_ns: f64, mut next: impl FnMut(f64) -> (f64, f64)) -> Program {
        let (mut calls, mut at_ns) = (Vec::new(), 0.0);
        loop {
            let (gap_ns, length_ns) = next(at_ns);
            let from_ns = at_ns + gap_ns;
            at_ns = from_ns + length_ns;
            if at_ns > end_ns {
                return Program { calls, end_ns };
            }
            calls.push((from_ns, at_ns));
        }
    }

    fn is_on(&self, at_ns: f64) -> bool {
        let after = self.calls.partition_point(|call| call.0 <= at_ns);
        after > 0 && self.calls.get(after - 1).is_some_and(|call| call.1 > at_ns)
    }

    fn on_ns(&self, until_ns: f64) -> f64 {
        let parts = self
            .calls
            .iter()
            .map(|(from, to)| (to.min(until_ns) - from).max(0.0));
        parts.sum()
    }

    /// Hits after `from_ns`, in order.
    fn hits(&self, from_ns: f64) -> impl Iterator<Item = f64> + '_ {
        let first = self.calls.partition_point(|call| call.1 <= from_ns);
        let hits = self
            .calls
            .iter()
            .skip(first)
            .flat_map(|call| [call.0, call.1]);
        hits.filter(move |at| *at > from_ns)
    }

    fn watch(&self, begin_ns: f64, ticks: u32, limit: usize) -> Watched {
        let end_ns = (begin_ns + f64::from(ticks) * TICK_NS).min(self.end_ns);
        let hits: Vec<f64> = self
            .hits(begin_ns)
            .take(limit)
            .take_while(|at| *at <= end_ns)
            .collect();
        let spent = hits.len() == limit;
        let until_ns = if spent { hits[limit - 1] } else { end_ns };
        let on = self.is_on(begin_ns);
        let on_ns = self.on_ns(begin_ns);
        let mut parts = [Part::default(); 2];
        let mut from_ns = begin_ns;
        while from_ns < until_ns {
            let to_ns = (from_ns + TICK_NS).min(until_ns);
            let whole = !spent || to_ns < until_ns;
            let (before, after) = (self.is_on(from_ns), self.is_on(to_ns));
            let kind = usize::from(if whole { !after } else { !on });
            let part = &mut parts[kind];
            part.cpu_ns += to_ns - from_ns;
            let inside = hits.iter().filter(|at| **at > from_ns && **at <= to_ns);
            part.hits += inside.count() as f64;
            part.more += match whole {
                true => f64::from(u8::from(after)) - f64::from(u8::from(before)),
                false => 0.0,
            };
            from_ns = to_ns;
        }
        Watched {
            on,
            at_ns: [on_ns, begin_ns - on_ns],
            edges_at_ns: std::array::from_fn(|at| if at == 0 { on_ns } else { 0.0 }),
            covered_ns: until_ns - begin_ns,
            spent,
            hits_ns: hits.iter().map(|at| (at - begin_ns) as f32).collect(),
            begins: if on { !0 / 3 * 2 } else { !0 / 3 },
            parts,
            ..Watched::default()
        }
    }

    /// Watches at even times in which the function is on the stack, and in which it is not.
    fn estimate(&self, random: &mut StdRng, watches: usize, ticks: u32) -> CallEstimate {
        let mut all = Vec::new();
        for on in [true, false] {
            let mut left = watches;
            for _ in 0..100_000 {
                let at_ns = random.random_range(0.0..self.end_ns - 2.0 * TICK_NS);
                if self.is_on(at_ns) == on && left > 0 {
                    all.push(self.watch(at_ns, ticks, 24));
                    left -= 1;
                }
            }
        }
        let on_ns = self.on_ns(self.end_ns);
        let samples = self.end_ns / TICK_NS;
        let edges = [Edge {
            caller: None,
            ns: on_ns,
        }];
        Evidence {
            watches: &all,
            edges: &edges,
            on_ns,
            off_ns: self.end_ns - on_ns,
            period_ns: 1e12,
            on_samples: (samples * on_ns / self.end_ns) as u64,
            seen: 0,
            share: 0.5,
            paired: true,
            alternates: true,
            is_alone: true,
            deepest: 1,
            drowned: 0,
            runs: self.calls.len() as u64,
            cost_ns: 10_000.0,
            cost_error: 0.02,
        }
        .estimate()
    }
}

#[test]
fn random_programs_are_counted_within_the_stated_error() {
    let mut random = StdRng::seed_from_u64(10);
    let (mut errors, mut bounds, mut sum) = (Vec::new(), 0, 0.0);
    for round in 0..150 {
        let length_ns = 10f64.powf(random.random_range(3.8..6.3));
        let gap_ns = length_ns * random.random_range(0.05..4.0);
        let changes = random.random_bool(0.3);
        let spread = random.random_range(0.0..0.9);
        let mut inner = StdRng::seed_from_u64(round);
        let program = Program::new(1e9, |at_ns| {
            let mut draw = |mean: f64| mean * (1.0 + spread * inner.random_range(-1.0..1.0));
            let faster = if changes && at_ns > 5e8 { 0.5 } else { 1.0 };
            (draw(gap_ns) * faster, draw(length_ns) * faster)
        });
        let ticks = (8.0 * length_ns / TICK_NS).ceil() as u32;
        let found = program.estimate(&mut random, 60, ticks);
        let truth = program.calls.len() as f64;
        match found.error {
            Some(error) => {
                let off = (found.calls - truth) / error;
                sum += off;
                errors.push(off.abs());
                assert!(error < 0.5 * truth, "{truth}: {found:?}");
            }
            None => {
                bounds += 1;
                assert!(found.calls <= truth, "{truth}: {found:?}");
            }
        }
    }
    let far = errors.iter().filter(|off| **off > 3.0).count();
    assert!(errors.len() > 110, "{} of 150", errors.len());
    assert!(far <= 2, "{far} of {}; {bounds} bounds", errors.len());
    assert!((sum / errors.len() as f64).abs() < 0.5, "bias");
}

#[test]
fn little_evidence_is_a_lower_bound() {
    let mut random = StdRng::seed_from_u64(3);
    let program = Program::new(1e9, |_| (50_000.0, 50_000.0));
    for watches in 0..3 {
        let found = program.estimate(&mut random, watches, 1);
        assert_eq!((found.error, found.source), (None, CallSource::LowerBound));
        assert!(found.calls <= program.calls.len() as f64);
    }
    // Half of the time nobody has watched.
    let watches: Vec<Watched> = (0..40)
        .map(|at| program.watch(f64::from(at) * 1e7, 1, 24))
        .collect();
    let evidence = Evidence {
        watches: &watches,
        edges: &[],
        on_ns: 5e8,
        off_ns: 5e8,
        period_ns: 1e12,
        on_samples: 500,
        seen: 0,
        share: 0.5,
        paired: true,
        alternates: true,
        is_alone: true,
        deepest: 1,
        drowned: 0,
        runs: 10_000,
        cost_ns: 10_000.0,
        cost_error: 0.02,
    };
    assert_eq!(evidence.estimate().error, None);
}

#[test]
fn numbers_that_make_no_sense_do_no_harm() {
    let mut random = StdRng::seed_from_u64(4);
    for _ in 0..500 {
        let mut any = || match random.random_range(0..4) {
            0 => 0.0,
            1 => f64::MAX,
            2 => -1e9,
            _ => random.random_range(0.0..1e9),
        };
        let watches: Vec<Watched> = (0..8)
            .map(|at| Watched {
                on: at % 2 == 0,
                at_ns: [any(), any()],
                covered_ns: any(),
                lost_ns: any(),
                hits_ns: vec![any() as f32, any() as f32],
                parts: [Part {
                    cpu_ns: any(),
                    hits: any(),
                    more: any(),
                    seen: any(),
                }; 2],
                ..Watched::default()
            })
            .collect();
        let evidence = Evidence {
            watches: &watches,
            edges: &[],
            on_ns: any(),
            off_ns: any(),
            period_ns: any(),
            on_samples: 10,
            seen: 5,
            share: 0.5,
            paired: true,
            alternates: true,
            is_alone: true,
            deepest: 1,
            drowned: 0,
            runs: 3,
            cost_ns: any(),
            cost_error: 0.02,
        };
        let found = evidence.estimate();
        assert!(found.calls.is_finite() && found.calls >= 0.0, "{found:?}");
        assert!(found.error.is_none_or(f64::is_finite));
    }
}
