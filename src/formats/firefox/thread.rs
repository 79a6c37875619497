//! One thread of the Firefox Profiler's profile: its samples and the tables that they refer to.

use rustc_hash::FxHashMap;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::json;

use super::tables::StackTables;
use crate::formats::ExportOptions;
use crate::profile::{Origin, Profile, RunState};

/// Process and thread ids that have been used: the profiler wants them unique, and kernels use them again.
#[derive(Default)]
pub(super) struct Names {
    threads: FxHashMap<u64, u32>,
    processes: FxHashMap<i32, Vec<u32>>,
}

impl Names {
    fn thread(&mut self, id: u64) -> String {
        let uses = self.threads.entry(id).or_insert(0);
        *uses += 1;
        match *uses {
            1 => id.to_string(),
            again => format!("{id}.{}", again - 1),
        }
    }

    fn process(&mut self, pid: i32, process: u32) -> String {
        let uses = self.processes.entry(pid).or_default();
        let place = uses
            .iter()
            .position(|known| *known == process)
            .unwrap_or_else(|| {
                uses.push(process);
                uses.len() - 1
            });
        match place {
            0 => pid.to_string(),
            again => format!("{pid}.{again}"),
        }
    }
}

/// One sample of the timeline.
struct Tick {
    stack: u32,
    /// Since the thread's previous tick.
    delta_ns: u64,
    weight_ns: u64,
    cpu_us: u64,
}

/// One thread, ready to be written.
pub(super) struct Thread<'a> {
    name: String,
    is_main: bool,
    pid: String,
    tid: String,
    process_name: String,
    started_us: u64,
    has_cpu_time: bool,
    ticks: Vec<Tick>,
    tables: StackTables<'a>,
}

impl<'a> Thread<'a> {
    /// The thread at `at`, whose runs are those at `positions`.
    pub(super) fn recorded(
        profile: &'a Profile,
        options: &'a ExportOptions,
        at: usize,
        positions: &[u32],
        names: &mut Names,
    ) -> Thread<'a> {
        let info = &profile.threads[at];
        let process = profile.processes.get(info.process.index());
        let pid = process.map_or(profile.meta.pid, |process| process.pid);
        let id = if info.os_id != 0 {
            info.os_id
        } else {
            info.python_id
        };
        let mut thread = Thread {
            name: info.name.clone().unwrap_or_else(|| format!("thread {id}")),
            is_main: info.os_id == u64::from(pid.unsigned_abs())
                || info.name.as_deref() == Some("MainThread"),
            pid: names.process(pid, info.process.0),
            tid: names.thread(id),
            process_name: process.map_or_else(String::new, |process| process.command.clone()),
            started_us: info.started_us,
            has_cpu_time: profile.meta.has_cpu_time,
            ticks: Vec::with_capacity(positions.len()),
            tables: StackTables::new(&profile.tables, options),
        };
        let sampled = profile.meta.origin == Origin::Sampled;
        let mut passed_us = info.started_us;
        for &position in positions {
            let run = &profile.runs[position as usize];
            let (wall_us, cpu_us) = (u64::from(run.wall_us), u64::from(run.cpu_us));
            if !options.filter.accepts_state(run.state) {
                passed_us += wall_us;
                continue;
            }
            let idle = sampled && !run.state.has(RunState::ON_CPU);
            let stack = thread.tables.stack(run.stack, idle);
            // The timeline draws a sample half-way to its neighbours: a long run needs both of its ends.
            let count = u64::from(run.count.max(1));
            let (first_us, first_cpu_us) = (wall_us / count, cpu_us / count);
            let weight_us = u64::from(options.filter.weight_us(profile, run));
            let first_weight_us = weight_us / count;
            let last = (
                wall_us - first_us,
                weight_us - first_weight_us,
                cpu_us - first_cpu_us,
            );
            let first = (first_us, first_weight_us, first_cpu_us);
            for (delta_us, weight_us, cpu_us) in [first, last] {
                thread.ticks.push(Tick {
                    stack,
                    delta_ns: (passed_us + delta_us).saturating_mul(1000),
                    weight_ns: weight_us.saturating_mul(1000),
                    cpu_us,
                });
                passed_us = 0;
                if count == 1 {
                    break;
                }
            }
        }
        thread
    }

    /// One thread for a profile without any: the estimated stacks of exact statistics, side by side.
    pub(super) fn estimated(
        profile: &'a Profile,
        options: &'a ExportOptions,
        names: &mut Names,
    ) -> Thread<'a> {
        let (tree, _) = profile.tree(&options.filter);
        let mut tables = StackTables::new(&profile.tables, options);
        let mut stacks: Vec<u32> = Vec::with_capacity(tree.nodes.len());
        for node in &tree.nodes {
            let parent = node.parent.map(|parent| stacks[parent as usize]);
            stacks.push(tables.push(parent, node.frame, false));
        }
        let mut ticks = Vec::new();
        let enter = |at: u32| {
            let wall_ns = tree.nodes[at as usize].self_wall_ns;
            if wall_ns > 0 {
                ticks.push(Tick {
                    stack: stacks[at as usize],
                    delta_ns: wall_ns,
                    weight_ns: wall_ns,
                    cpu_us: 0,
                });
            }
        };
        tree.walk(enter, |_| {});
        let pid = profile.meta.pid;
        Thread {
            name: "all threads".to_string(),
            is_main: true,
            pid: names.process(pid, 0),
            tid: names.thread(pid.unsigned_abs().into()),
            process_name: profile.meta.command.clone(),
            started_us: 0,
            has_cpu_time: false,
            ticks,
            tables,
        }
    }
}

impl Serialize for Thread<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let tables = &self.tables;
        let no_rows = json!([]);
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("frameTable", &tables.frame_table())?;
        map.serialize_entry("funcTable", &tables.func_table())?;
        map.serialize_entry(
            "markers",
            &json!({"length": 0, "category": [], "data": [], "endTime": [], "name": [], "phase": [],
                "startTime": []}),
        )?;
        map.serialize_entry("name", &self.name)?;
        map.serialize_entry("isMainThread", &self.is_main)?;
        map.serialize_entry(
            "nativeSymbols",
            &json!({"length": 0, "address": [], "functionSize": [], "libIndex": [], "name": []}),
        )?;
        map.serialize_entry("pausedRanges", &no_rows)?;
        map.serialize_entry("pid", &self.pid)?;
        map.serialize_entry("processName", &self.process_name)?;
        map.serialize_entry("processShutdownTime", &())?;
        map.serialize_entry("processStartupTime", &0)?;
        map.serialize_entry("processType", "default")?;
        map.serialize_entry("registerTime", &(self.started_us as f64 / 1e3))?;
        map.serialize_entry(
            "resourceTable",
            &json!({"length": 0, "lib": [], "name": [], "host": [], "type": []}),
        )?;
        map.serialize_entry("samples", &Samples(self))?;
        map.serialize_entry("stackTable", &tables.stack_table())?;
        map.serialize_entry("stringArray", tables.strings())?;
        map.serialize_entry("tid", &self.tid)?;
        map.serialize_entry("unregisterTime", &())?;
        map.serialize_entry("showMarkersInTimeline", &false)?;
        map.end()
    }
}

struct Samples<'a>(&'a Thread<'a>);

impl Serialize for Samples<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let ticks = &self.0.ticks;
        let column = |value: fn(&Tick) -> f64| Column(move || ticks.iter().map(value));
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("length", &ticks.len())?;
        map.serialize_entry("weightType", "tracing-ms")?;
        map.serialize_entry("stack", &Column(|| ticks.iter().map(|tick| tick.stack)))?;
        map.serialize_entry("timeDeltas", &column(|tick| milliseconds(tick.delta_ns)))?;
        map.serialize_entry("weight", &column(|tick| milliseconds(tick.weight_ns)))?;
        if self.0.has_cpu_time {
            map.serialize_entry(
                "threadCPUDelta",
                &Column(|| ticks.iter().map(|tick| tick.cpu_us)),
            )?;
        }
        map.end()
    }
}

/// Values that are made one at a time while they are written.
pub(super) struct Column<F>(pub(super) F);

impl<F: Fn() -> I, I: Iterator<Item: Serialize>> Serialize for Column<F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((self.0)())
    }
}

fn milliseconds(ns: u64) -> f64 {
    ns as f64 / 1e6
}
