//! Adds one profile to another, as `pstats.Stats.add` does: calls and times of equal functions are summed.

use rustc_hash::FxHashMap;

use super::{CallStats, EdgeStats, FunctionId, FunctionStats, Origin, Profile};
use crate::error::{Error, ErrorKind, Result};

impl Profile {
    /// Adds all of `other`, which was recorded at another time. Fails for profiles whose numbers are of different kinds.
    pub fn add(&mut self, other: &Profile) -> Result<()> {
        let (one, two) = (&self.meta, &other.meta);
        let differ = |what: &str| {
            let why = format!("they are of different kinds: {what}");
            Error::new(ErrorKind::NotAvailable, "cannot add the profiles", why)
        };
        if one.origin != two.origin || one.unit_is_unknown() != two.unit_is_unknown() {
            let kind = |origin| match origin {
                Origin::Sampled => "sampled",
                Origin::Exact => "traced",
                Origin::Collapsed => "collapsed stacks",
            };
            let (one, two) = (kind(one.origin), kind(two.origin));
            return Err(differ(&format!("{one} and {two}")));
        }
        if self.has_line_times() != other.has_line_times() {
            return Err(differ("times by line and by function"));
        }
        if one.mode != two.mode {
            let (one, two) = (one.mode.name(), two.mode.name());
            return Err(differ(&format!("modes {one} and {two}")));
        }
        if let (Some(sum), Some(more)) = (&mut self.exact, &other.exact) {
            let functions = self.tables.take_functions(&other.tables);
            for &function in &functions {
                let line = self.tables.line(function);
                self.tables.frame(function, line);
            }
            add_rows(sum, more, &functions);
        } else {
            self.absorb(other);
        }
        let meta = &mut self.meta;
        let seconds = |us: u64| us as f64 / 1e6;
        let asked = meta.rate_hz * seconds(meta.duration_us)
            + other.meta.rate_hz * seconds(other.meta.duration_us);
        meta.duration_us = meta.duration_us.saturating_add(other.meta.duration_us);
        if meta.rate_hz != other.meta.rate_hz {
            // Full speed is no number.
            let known = meta.rate_hz > 0.0 && other.meta.rate_hz > 0.0;
            let mean = asked / seconds(meta.duration_us).max(1e-6);
            meta.rate_hz = if known {
                (mean * 10.0).round() / 10.0
            } else {
                0.0
            };
        }
        meta.samples = meta.samples.saturating_add(other.meta.samples);
        meta.given_up = meta.given_up.saturating_add(other.meta.given_up);
        meta.retried = meta.retried.saturating_add(other.meta.retried);
        meta.approximate_stacks |= other.meta.approximate_stacks;
        meta.has_cpu_time &= other.meta.has_cpu_time;
        meta.has_states &= other.meta.has_states;
        Ok(())
    }
}

/// `functions` has the id here of each function of `more`. Rows and callers that are new stand behind the others.
fn add_rows(sum: &mut CallStats, more: &CallStats, functions: &[FunctionId]) {
    let mut places: FxHashMap<FunctionId, usize> = FxHashMap::default();
    for (at, row) in sum.rows.iter().enumerate() {
        places.entry(row.function).or_insert(at);
    }
    sum.exact &= more.exact;
    for row in &more.rows {
        let function = functions[row.function.index()];
        let callers = row.callers.iter();
        let callers = callers.map(|(caller, edge)| (functions[caller.index()], *edge));
        let Some(&at) = places.get(&function) else {
            places.insert(function, sum.rows.len());
            sum.rows.push(FunctionStats {
                function,
                group: 0,
                callers: callers.collect(),
                ..row.clone()
            });
            continue;
        };
        let into = &mut sum.rows[at];
        into.ncalls = into.ncalls.saturating_add(row.ncalls);
        into.primitive = into.primitive.saturating_add(row.primitive);
        into.tottime += row.tottime;
        into.cumtime += row.cumtime;
        into.lower_bound |= row.lower_bound;
        let mut known: FxHashMap<FunctionId, usize> = FxHashMap::default();
        for (place, (caller, _)) in into.callers.iter().enumerate() {
            known.insert(*caller, place);
        }
        for (caller, edge) in callers {
            match known.get(&caller).and_then(|&at| into.callers.get_mut(at)) {
                Some((_, sum)) => add_edge(sum, &edge),
                None => into.callers.push((caller, edge)),
            }
        }
    }
}

fn add_edge(sum: &mut EdgeStats, edge: &EdgeStats) {
    sum.ncalls = sum.ncalls.saturating_add(edge.ncalls);
    sum.primitive = sum.primitive.saturating_add(edge.primitive);
    sum.tottime += edge.tottime;
    sum.cumtime += edge.cumtime;
    sum.count_only |= edge.count_only;
    sum.lower_bound |= edge.lower_bound;
}
