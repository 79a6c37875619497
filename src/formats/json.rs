//! biopsy's own JSON for scripts and jq: one object with `"schema": "biopsy.profile/1"`.
//!
//! Within the version fields are added, never renamed or dropped. What is not known is `null`; numbers are
//! finite. `ncalls_from` is `exact`, where the number is from (`watchpoint`, `samples`), or `lower-bound`: there were at least
//! so many calls, also along each of the row's `callers`. `ncalls_error` is the standard error of an estimate, in tenths; `null`
//! for a lower bound, of which nobody knows how far off it is, and 0 for exact numbers alone. Names are as the target
//! has them, with control characters as JSON escapes.

use std::cmp::Ordering;
use std::io::{self, BufWriter, Write};

use rustc_hash::FxHashMap;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use super::{ExportOptions, Exporter, Loss};
use crate::error::{Error, Result};
use crate::profile::states::{self, Contention, StateTimes};
use crate::profile::waits::{self, Place, Wait};
use crate::profile::{CallEstimate, CallSource};
use crate::profile::{
    CallStats, CallTree, FunctionId, FunctionKind, FunctionStats, Mode, Origin, Profile,
};

/// `.json` files.
#[derive(Debug, Clone, Copy)]
pub struct Json;

impl Exporter for Json {
    fn export(
        &self,
        profile: &Profile,
        options: &ExportOptions,
        out: &mut dyn Write,
    ) -> Result<Vec<Loss>> {
        let mut lines = Lines::default();
        let mut estimates = Estimates::default();
        let stats = if profile.exact.is_some() {
            profile.stats(&options.filter)
        } else {
            let tree = CallTree::of(profile, &options.filter);
            lines = Lines::of(&tree, profile);
            let stats = CallStats::of(&tree, &profile.tables);
            estimates = tree.estimates;
            stats
        };
        let document = Document {
            profile,
            options,
            stats: &stats,
            lines: &lines,
            estimates: &estimates,
        };
        let mut out = BufWriter::with_capacity(1 << 16, out);
        let mut serializer = serde_json::Serializer::with_formatter(&mut out, Escaping);
        let done = document.serialize(&mut serializer).map_err(io::Error::from);
        let done = done
            .and_then(|()| out.write_all(b"\n"))
            .and_then(|()| out.flush());
        done.map_err(|error| Error::write("JSON", &error))?;
        Ok(Vec::new())
    }
}

/// Compact JSON in which characters that act on a terminal are escaped.
struct Escaping;

impl serde_json::ser::Formatter for Escaping {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        out: &mut W,
        text: &str,
    ) -> io::Result<()> {
        let mut rest = text;
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| acts_on_terminal(*c)) {
            out.write_all(rest.get(..at).unwrap_or_default().as_bytes())?;
            write!(out, "\\u{:04x}", c as u32)?;
            rest = rest.get(at + c.len_utf8()..).unwrap_or_default();
        }
        out.write_all(rest.as_bytes())
    }
}

/// Those that JSON lets stand; all are below U+10000.
fn acts_on_terminal(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        || c == '\u{feff}'
}

/// Own time by line of each function in each group, nanoseconds, in the order of lines.
#[derive(Default)]
struct Lines(FxHashMap<(u32, FunctionId), Vec<(u32, u64)>>);

impl Lines {
    fn of(tree: &CallTree, profile: &Profile) -> Lines {
        let mut sums: FxHashMap<(u32, FunctionId, u32), u64> = FxHashMap::default();
        for node in tree.nodes.iter().filter(|node| node.self_wall_ns > 0) {
            let frame = profile.tables.get_frame(node.frame);
            *sums
                .entry((node.group, frame.function, frame.line))
                .or_insert(0) += node.self_wall_ns;
        }
        let mut sums: Vec<_> = sums.into_iter().collect();
        sums.sort_unstable();
        let mut lines = Lines::default();
        for ((group, function, line), wall_ns) in sums {
            lines
                .0
                .entry((group, function))
                .or_default()
                .push((line, wall_ns));
        }
        lines
    }
}

struct Document<'a> {
    profile: &'a Profile,
    options: &'a ExportOptions,
    stats: &'a CallStats,
    lines: &'a Lines,
    estimates: &'a Estimates,
}

/// Calls by group and function.
type Estimates = FxHashMap<(u32, FunctionId), CallEstimate>;

impl Serialize for Document<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let meta = &self.profile.meta;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("schema", "biopsy.profile/1")?;
        map.serialize_entry("python", &known(&meta.python))?;
        map.serialize_entry("pid", &(meta.pid != 0).then_some(meta.pid))?;
        map.serialize_entry("command", &known(&meta.command))?;
        map.serialize_entry("mode", self.options.filter.mode.name())?;
        map.serialize_entry(
            "rate_hz",
            &(meta.rate_hz > 0.0).then(|| finite(meta.rate_hz)),
        )?;
        let duration_s = meta.duration_us as f64 / 1e6;
        map.serialize_entry("duration_s", &duration_s)?;
        map.serialize_entry("samples", &meta.samples)?;
        map.serialize_entry("given_up", &meta.given_up)?;
        map.serialize_entry("retried", &meta.retried)?;
        map.serialize_entry("calls_exact", &self.stats.exact)?;
        map.serialize_entry("approximate_stacks", &meta.approximate_stacks)?;
        map.serialize_entry("origin", origin(meta.origin))?;
        map.serialize_entry(
            "started_at_ms",
            &(meta.started_at_ms != 0).then_some(meta.started_at_ms),
        )?;
        let rate = (meta.duration_us > 0).then(|| finite(meta.samples as f64 / duration_s));
        map.serialize_entry("rate_reached_hz", &rate)?;
        map.serialize_entry("mean_lateness_s", &finite(meta.mean_lateness_us / 1e6))?;
        if !meta.narrowed.is_empty() {
            map.serialize_entry("shown", &meta.narrowed)?;
        }
        if meta.origin == Origin::Collapsed {
            map.serialize_entry("times_known", &meta.times_known)?;
        }
        map.serialize_entry("blocking", &meta.blocking)?;
        map.serialize_entry("reader", &known(&meta.reader))?;
        map.serialize_entry("total_tottime_s", &self.time(self.stats.total_tottime()))?;
        map.serialize_entry("processes", &Rows(|| self.processes()))?;
        let times = states::times(self.profile, &self.options.filter);
        map.serialize_entry("states", &self.states(&times))?;
        let mut order: Vec<&FunctionStats> = self.stats.rows.iter().collect();
        order.sort_by(|a, b| self.compare(a, b));
        map.serialize_entry("functions", &Rows(|| order.iter().map(|row| self.row(row))))?;
        map.serialize_entry("threads", &Rows(|| self.threads(&times)))?;
        let filter = &self.options.filter;
        let waits = (filter.mode == Mode::Gil).then(|| waits::waits(self.profile, filter));
        if let Some(waits) = waits.flatten() {
            let waits = waits.get(..MOST_WAITS).unwrap_or(&waits);
            map.serialize_entry(
                "gil_waits",
                &Rows(|| waits.iter().map(|wait| self.wait(wait))),
            )?;
        }
        map.end()
    }
}

/// Rows that are made one at a time while they are written.
struct Rows<F>(F);

impl<F: Fn() -> I, I: Iterator<Item: Serialize>> Serialize for Rows<F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((self.0)())
    }
}

#[derive(Serialize)]
struct FunctionRow<'a> {
    file: &'a str,
    line: u32,
    name: &'a str,
    /// `None` where the target has none (before 3.11) or the source does not tell.
    qualname: Option<&'a str>,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'a str>,
    ncalls: u64,
    primitive_calls: u64,
    ncalls_from: &'static str,
    ncalls_error: Option<f64>,
    tottime_s: f64,
    cumtime_s: f64,
    callers: Vec<CallerRow<'a>>,
    lines: Vec<LineRow>,
}

#[derive(Serialize)]
struct CallerRow<'a> {
    file: &'a str,
    line: u32,
    name: &'a str,
    ncalls: u64,
    primitive_calls: u64,
    /// `None` where the source knows only how often.
    tottime_s: Option<f64>,
    cumtime_s: Option<f64>,
}

#[derive(Serialize)]
struct LineRow {
    line: u32,
    self_s: f64,
}

#[derive(Serialize)]
struct ThreadRow<'a> {
    id: u64,
    name: Option<&'a str>,
    samples: u64,
    python_id: u64,
    pid: Option<i32>,
    /// `None` where it was not recorded.
    states: Option<ThreadStatesRow>,
}

/// Rows of [`waits`] that are written.
const MOST_WAITS: usize = 1000;

#[derive(Serialize)]
struct FunctionName<'a> {
    file: &'a str,
    line: u32,
    name: &'a str,
}

#[derive(Serialize)]
struct PlaceRow<'a> {
    #[serde(flatten)]
    function: FunctionName<'a>,
    /// Who called it, where it is a function of C.
    #[serde(skip_serializing_if = "Option::is_none")]
    caller: Option<FunctionName<'a>>,
}

#[derive(Serialize)]
struct WaitRow<'a> {
    /// `None` where no thread was seen to hold the GIL.
    holder: Option<PlaceRow<'a>>,
    waiter: PlaceRow<'a>,
    waited_s: f64,
}

/// Seconds by state; a moment may count in several of them.
#[derive(Serialize)]
struct ThreadStatesRow {
    wall_s: f64,
    on_cpu_s: f64,
    gil_s: f64,
    gil_wait_s: f64,
    on_cpu_without_gil_s: f64,
    idle_s: f64,
    gc_s: f64,
}

#[derive(Serialize)]
struct StatesRow {
    gil_held_s: f64,
    gil_waiting_threads: usize,
    gil_waited_s: f64,
    gc_s: f64,
}

#[derive(Serialize)]
struct ProcessRow<'a> {
    pid: i32,
    parent: Option<i32>,
    python: Option<&'a str>,
    command: Option<&'a str>,
}

impl<'a> Document<'a> {
    fn row(&self, row: &FunctionStats) -> FunctionRow<'a> {
        let tables = &self.profile.tables;
        let lines = self.lines.0.get(&(row.group, row.function));
        let estimate = self.estimates.get(&(row.group, row.function));
        let line = |&(line, wall_ns): &(u32, u64)| LineRow {
            line,
            self_s: wall_ns as f64 / 1e9,
        };
        let apart = self.stats.groups.len() > 1;
        let group = self
            .stats
            .groups
            .get(row.group as usize)
            .map(String::as_str);
        FunctionRow {
            file: self.options.file_name(tables.file(row.function)),
            line: tables.line(row.function),
            name: tables.name(row.function),
            qualname: tables.qualname(row.function),
            kind: match tables.get_function(row.function).kind {
                FunctionKind::Python => "python",
                FunctionKind::Builtin => "builtin",
                FunctionKind::Native => "native",
            },
            group: group.filter(|group| apart || !group.is_empty()),
            ncalls: row.ncalls,
            primitive_calls: row.primitive,
            ncalls_from: match estimate {
                _ if self.stats.exact => "exact",
                _ if row.lower_bound => CallSource::LowerBound.name(),
                Some(found) => found.source.name(),
                // Of a traced profile of which a part is shown: shared out by who called whom, with an unknown error.
                None => "estimated",
            },
            ncalls_error: match estimate.and_then(|found| found.error) {
                _ if self.stats.exact => Some(0.0),
                Some(error) if !row.lower_bound => {
                    Some(finite((error * 10.0).round() / 10.0).max(0.1))
                }
                _ => None,
            },
            tottime_s: self.time(row.tottime),
            cumtime_s: self.time(row.cumtime),
            callers: self.callers(row),
            lines: lines.map_or_else(Vec::new, |lines| lines.iter().map(line).collect()),
        }
    }

    fn callers(&self, row: &FunctionStats) -> Vec<CallerRow<'a>> {
        let tables = &self.profile.tables;
        let callers = row.callers.iter().map(|(caller, edge)| CallerRow {
            file: self.options.file_name(tables.file(*caller)),
            line: tables.line(*caller),
            name: tables.name(*caller),
            ncalls: edge.ncalls,
            primitive_calls: edge.primitive,
            tottime_s: (!edge.count_only).then(|| self.time(edge.tottime)),
            cumtime_s: (!edge.count_only).then(|| self.time(edge.cumtime)),
        });
        callers.collect()
    }

    /// Sampled times are whole microseconds, which sums of floats only nearly are; exact ones stay.
    fn time(&self, seconds: f64) -> f64 {
        let seconds = finite(seconds);
        if self.profile.exact.is_some() {
            seconds
        } else {
            (seconds * 1e6).round() / 1e6
        }
    }

    /// Biggest first; equal ones by name, so that the order is always the same.
    fn compare(&self, a: &FunctionStats, b: &FunctionStats) -> Ordering {
        let tables = &self.profile.tables;
        let key = |row: &FunctionStats| {
            let function = row.function;
            (
                tables.file(function),
                tables.line(function),
                tables.name(function),
                row.group,
            )
        };
        finite(b.cumtime)
            .total_cmp(&finite(a.cumtime))
            .then_with(|| finite(b.tottime).total_cmp(&finite(a.tottime)))
            .then_with(|| key(a).cmp(&key(b)))
    }

    fn wait(&self, wait: &Wait) -> WaitRow<'a> {
        let tables = &self.profile.tables;
        let named = |function| FunctionName {
            file: self.options.file_name(tables.file(function)),
            line: tables.line(function),
            name: tables.name(function),
        };
        let place = |place: Place| PlaceRow {
            function: named(place.function),
            caller: place.caller.map(named),
        };
        WaitRow {
            holder: wait.holder.map(place),
            waiter: place(wait.waiter),
            waited_s: wait.waited_us as f64 / 1e6,
        }
    }

    /// How threads shared the GIL; `None` where it was not recorded.
    fn states(&self, times: &[StateTimes]) -> Option<StatesRow> {
        let sums = Contention::of(times);
        self.profile.meta.has_states.then_some(StatesRow {
            gil_held_s: sums.held_us as f64 / 1e6,
            gil_waiting_threads: sums.waiting_threads,
            gil_waited_s: sums.waited_us as f64 / 1e6,
            gc_s: sums.gc_us as f64 / 1e6,
        })
    }

    fn threads(&self, times: &[StateTimes]) -> impl Iterator<Item = ThreadRow<'a>> {
        let profile = self.profile;
        let has_states = profile.meta.has_states;
        let wanted = self.options.filter.threads(profile);
        let mut samples = vec![0u64; profile.threads.len()];
        for run in self.options.filter.runs(profile) {
            samples[run.thread.index()] += u64::from(run.count);
        }
        let rows = profile
            .threads
            .iter()
            .zip(samples)
            .zip(times)
            .zip(wanted)
            .filter(|(_, wanted)| *wanted);
        rows.map(move |(((info, samples), times), _)| ThreadRow {
            id: if info.os_id != 0 {
                info.os_id
            } else {
                info.python_id
            },
            name: info.name.as_deref(),
            samples,
            python_id: info.python_id,
            pid: profile
                .processes
                .get(info.process.index())
                .map(|process| process.pid),
            states: has_states.then(|| states_row(times)),
        })
    }

    fn processes(&self) -> impl Iterator<Item = ProcessRow<'a>> {
        self.profile.processes.iter().map(|process| ProcessRow {
            pid: process.pid,
            parent: (process.parent != 0).then_some(process.parent),
            python: known(&process.python),
            command: known(&process.command),
        })
    }
}

fn states_row(times: &StateTimes) -> ThreadStatesRow {
    let seconds = |us: u64| us as f64 / 1e6;
    ThreadStatesRow {
        wall_s: seconds(times.wall_us),
        on_cpu_s: seconds(times.on_cpu_us),
        gil_s: seconds(times.gil_us),
        gil_wait_s: seconds(times.gil_wait_us),
        on_cpu_without_gil_s: seconds(times.released_us),
        idle_s: seconds(times.idle_us),
        gc_s: seconds(times.gc_us),
    }
}

fn known(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Sampled => "sampled",
        Origin::Exact => "exact",
        Origin::Collapsed => "collapsed",
    }
}

/// JSON has no infinity and no NaN; only damaged files do.
fn finite(value: f64) -> f64 {
    if value.is_nan() {
        0.0
    } else {
        value.clamp(f64::MIN, f64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_on_a_terminal_is_escaped() {
        let mut out = Vec::new();
        let mut serializer = serde_json::Serializer::with_formatter(&mut out, Escaping);
        "é\u{7f}\u{9b}2J\u{202e}\u{1b}\"\n"
            .serialize(&mut serializer)
            .expect("writes");
        assert_eq!(
            String::from_utf8(out).expect("UTF-8"),
            r#""é\u007f\u009b2J\u202e\u001b\"\n""#
        );
    }

    #[test]
    fn numbers_are_finite() {
        assert_eq!(finite(f64::NAN), 0.0);
        assert_eq!(finite(f64::INFINITY), f64::MAX);
        assert_eq!(finite(1.5), 1.5);
    }

    #[test]
    fn the_schema_stands_first_even_without_samples() {
        let mut out = Vec::new();
        let profile = Profile::default();
        Json.export(&profile, &ExportOptions::default(), &mut out)
            .expect("writes");
        assert!(out.starts_with(b"{\"schema\":\"biopsy.profile/1\",\"python\":null,"));
        assert!(serde_json::from_slice::<serde_json::Value>(&out).is_ok());
    }
}
