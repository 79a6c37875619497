//! The JSON documents of `ps`, `dump`, `diff` and `calls`. A field is never lost or renamed within a version.

use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};
use crate::heap::functions::CodeObject;
use crate::profile::diff::{DiffRow, Side};
use crate::sample::dump::{self, Dump};
use crate::sample::timings::{Counted, Sure};
use crate::target::list::PythonProcess;
use crate::view::calls::{Report, counted};

fn text(document: &impl Serialize) -> Result<String> {
    serde_json::to_string_pretty(document)
        .map(|text| text + "\n")
        .map_err(|error| Error::new(ErrorKind::Failed, "cannot write JSON", error.to_string()))
}

#[derive(Serialize)]
struct PsDocument<'a> {
    schema: &'static str,
    processes: Vec<PsProcess<'a>>,
}

#[derive(Serialize)]
struct PsProcess<'a> {
    pid: i32,
    /// Null when it is not known; `note` says why.
    python: Option<&'a str>,
    user: &'a str,
    rss_bytes: u64,
    threads: usize,
    cpu_percent: f32,
    command: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'a str>,
}

/// `biopsy.ps/1`.
pub fn processes(processes: &[PythonProcess]) -> Result<String> {
    text(&PsDocument {
        schema: "biopsy.ps/1",
        processes: processes
            .iter()
            .map(|process| PsProcess {
                pid: process.pid.0,
                python: process.python.as_deref().ok(),
                user: &process.user,
                rss_bytes: process.rss_bytes,
                threads: process.threads,
                cpu_percent: process.cpu_percent,
                command: &process.command,
                note: process.python.as_ref().err().map(String::as_str),
            })
            .collect(),
    })
}

#[derive(Serialize)]
struct DumpDocument<'a> {
    schema: &'static str,
    pid: i32,
    python: &'a str,
    command: &'a str,
    steady: bool,
    threads: Vec<DumpThread<'a>>,
    /// With --async.
    #[serde(skip_serializing_if = "Option::is_none")]
    tasks: Option<Vec<DumpTask<'a>>>,
}

#[derive(Serialize)]
struct DumpTask<'a> {
    name: &'a str,
    state: &'static str,
    /// Null when no thread runs it.
    thread_id: Option<u64>,
    awaited_by: &'a [String],
    frames: Vec<DumpFrame<'a>>,
}

#[derive(Serialize)]
struct DumpThread<'a> {
    id: u64,
    os_id: Option<u64>,
    name: Option<&'a str>,
    state: &'static str,
    /// `state` in full.
    activity: String,
    waits_for_gil: bool,
    collects_garbage: bool,
    /// Null when it did not sleep.
    system_call: Option<&'a str>,
    /// Of a core file: the signal that ended the process, where this thread was given it.
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<&'static str>,
    frames: Vec<DumpFrame<'a>>,
}

#[derive(Serialize)]
struct DumpFrame<'a> {
    file: &'a str,
    line: u32,
    first_line: u32,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    locals: Option<serde_json::Map<String, serde_json::Value>>,
}

/// `biopsy.dump/1`; frames stand innermost first.
pub fn dump(dump: &Dump) -> Result<String> {
    text(&DumpDocument {
        schema: "biopsy.dump/1",
        pid: dump.pid.0,
        python: &dump.python,
        command: &dump.command,
        steady: dump.steady,
        threads: dump
            .threads
            .iter()
            .map(|thread| DumpThread {
                id: thread.python_id,
                os_id: (thread.os_id != 0).then_some(thread.os_id),
                name: thread.name.as_deref(),
                state: thread.state(),
                activity: thread.activity(),
                waits_for_gil: thread.waits_for_gil,
                collects_garbage: thread.collects,
                system_call: thread.system_call.as_deref(),
                signal: thread.signal,
                frames: thread.frames.iter().map(frame).collect(),
            })
            .collect(),
        tasks: dump.tasks.as_ref().map(|tasks| {
            tasks
                .iter()
                .map(|task| DumpTask {
                    name: &task.name,
                    state: task.state,
                    thread_id: task.python_id,
                    awaited_by: &task.awaited_by,
                    frames: task.frames.iter().map(frame).collect(),
                })
                .collect()
        }),
    })
}

fn frame(frame: &dump::DumpFrame) -> DumpFrame<'_> {
    DumpFrame {
        file: &frame.file,
        line: frame.line,
        first_line: frame.first_line,
        name: &frame.name,
        locals: frame.locals.as_ref().map(|locals| {
            locals
                .iter()
                .map(|(name, value)| (name.clone(), value.clone().into()))
                .collect()
        }),
    }
}

#[derive(Serialize)]
struct DiffDocument<'a> {
    schema: &'static str,
    old: &'a str,
    new: &'a str,
    functions: Vec<DiffFunction<'a>>,
}

#[derive(Serialize)]
struct DiffFunction<'a> {
    file: &'a str,
    line: u32,
    name: &'a str,
    qualname: Option<&'a str>,
    tottime_change_s: f64,
    cumtime_change_s: f64,
    old: Option<DiffSide>,
    new: Option<DiffSide>,
}

#[derive(Serialize)]
struct DiffSide {
    ncalls: u64,
    /// At least so many calls: no difference of such numbers means anything.
    ncalls_lower_bound: bool,
    tottime_s: f64,
    cumtime_s: f64,
}

/// `biopsy.profile-diff/1`.
pub fn diff(old: &str, new: &str, rows: &[DiffRow]) -> Result<String> {
    let side = |side: Side| DiffSide {
        ncalls: side.ncalls,
        ncalls_lower_bound: side.lower_bound,
        tottime_s: side.tottime,
        cumtime_s: side.cumtime,
    };
    text(&DiffDocument {
        schema: "biopsy.profile-diff/1",
        old,
        new,
        functions: rows
            .iter()
            .map(|row| DiffFunction {
                file: &row.file,
                line: row.line,
                name: &row.name,
                qualname: row.qualname.as_deref(),
                tottime_change_s: row.tottime_change(),
                cumtime_change_s: row.cumtime_change(),
                old: row.old.map(side),
                new: row.new.map(side),
            })
            .collect(),
    })
}

#[derive(Serialize)]
struct CallsDocument<'a> {
    schema: &'static str,
    pid: i32,
    python: &'a str,
    command: &'a str,
    duration_s: f64,
    /// Null when the process was not stopped.
    pause_ms: Option<f64>,
    threads: u64,
    threads_came: u64,
    threads_unwatched: u64,
    hits: u64,
    hit_cost_ns: u64,
    /// Share of the time in which calls were watched.
    watched: f64,
    stacks: u64,
    notes: &'a [String],
    functions: Vec<CallsFunction<'a>>,
}

#[derive(Serialize)]
struct CallsFunction<'a> {
    function: String,
    module: &'a str,
    qualname: &'a str,
    file: &'a str,
    line: u32,
    /// `calls`, or what a call makes.
    counted: &'static str,
    calls: u64,
    /// `counted`, `estimated` or `lower-bound`.
    calls_from: &'static str,
    /// Standard error; null for a lower bound.
    calls_error: Option<f64>,
    calls_per_s: f64,
    /// Null when no call was seen from its beginning to its end.
    durations: Option<CallsDurations>,
    without_duration: u64,
    histogram: Vec<CallsBucket>,
    functions_created: u64,
    code_reads: u64,
    stacks: u64,
    callers: Vec<CallsCaller<'a>>,
    notes: &'a [String],
}

#[derive(Serialize)]
struct CallsDurations {
    count: u64,
    min_ns: u64,
    p50_ns: u64,
    p90_ns: u64,
    p99_ns: u64,
    max_ns: u64,
    /// Null where only windows were watched: the waits for a CPU that fall into one are shared by the fewer calls that fit into it.
    mean_ns: Option<f64>,
}

#[derive(Serialize)]
struct CallsBucket {
    from_ns: u64,
    to_ns: u64,
    count: f64,
}

#[derive(Serialize)]
struct CallsCaller<'a> {
    /// Null for a function that is a thread's first.
    name: Option<&'a str>,
    file: &'a str,
    line: u32,
    samples: u64,
    share: f64,
}

/// `biopsy.calls/1`.
pub fn calls(report: &Report) -> Result<String> {
    let outcome = report.outcome;
    let functions = report.codes.iter().zip(&outcome.functions);
    text(&CallsDocument {
        schema: "biopsy.calls/1",
        pid: report.pid,
        python: &report.python,
        command: &report.command,
        duration_s: outcome.seconds,
        pause_ms: report.paused.map(|pause| pause.as_secs_f64() * 1e3),
        threads: outcome.threads,
        threads_came: outcome.came,
        threads_unwatched: outcome.unwatched,
        hits: outcome.hits,
        hit_cost_ns: outcome.cost_ns,
        watched: outcome.watched,
        stacks: outcome.stacks,
        notes: &outcome.notes,
        functions: functions
            .map(|(code, found)| calls_function(code, found, outcome.seconds))
            .collect(),
    })
}

fn calls_function<'a>(code: &'a CodeObject, found: &'a Counted, seconds: f64) -> CallsFunction<'a> {
    let (calls_from, calls_error) = match found.sure {
        Sure::Counted => ("counted", Some(0.0)),
        Sure::AtLeast => ("lower-bound", None),
        Sure::Estimated(error) => ("estimated", Some(error)),
    };
    let all = &found.durations;
    let shares = all.percentiles([0.5, 0.9, 0.99]);
    let durations = shares.and_then(|[p50_ns, p90_ns, p99_ns]| {
        Some(CallsDurations {
            count: all.count(),
            min_ns: all.min()?,
            p50_ns,
            p90_ns,
            p99_ns,
            max_ns: all.max()?,
            mean_ns: all
                .mean()
                .filter(|_| !matches!(found.sure, Sure::Estimated(_))),
        })
    });
    let histogram = all.powers(1).into_iter();
    let seen = &found.seen;
    CallsFunction {
        function: code.full_name(),
        module: &code.module,
        qualname: &code.qualname,
        file: &code.file,
        line: code.first_line,
        counted: counted(code.kind).0,
        calls: found.calls.round() as u64,
        calls_from,
        calls_error,
        calls_per_s: found.calls / seconds,
        durations,
        without_duration: found.left,
        histogram: histogram
            .map(|(from_ns, to_ns, count)| CallsBucket {
                from_ns,
                to_ns,
                count,
            })
            .collect(),
        functions_created: found.created,
        code_reads: found.reads,
        stacks: seen.samples,
        callers: seen
            .callers
            .iter()
            .map(|caller| CallsCaller {
                name: (!caller.name.is_empty()).then_some(&caller.name),
                file: &caller.file,
                line: caller.line,
                samples: caller.samples,
                share: caller.samples as f64 / seen.samples.max(1) as f64,
            })
            .collect(),
        notes: &found.notes,
    }
}
