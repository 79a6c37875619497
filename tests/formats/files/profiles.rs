//! Profiles made in code.

use biopsy::profile::record::Sample;
use biopsy::profile::{
    CallEstimate, CallSource, CallStats, Counted, EdgeStats, FrameId, FunctionId, FunctionKind,
    FunctionStats, Meta, Mode, Origin, ProcessId, ProcessInfo, Profile, Recorder, Run, RunState,
    StackId, Tables, ThreadId, ThreadInfo,
};

/// Numbers that look random and are always the same (xorshift64*).
pub struct Noise(pub u64);

impl Noise {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    /// Below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }
}

pub fn wall_s(profile: &Profile) -> f64 {
    profile
        .runs
        .iter()
        .map(|run| f64::from(run.wall_us))
        .sum::<f64>()
        / 1e6
}

/// Everything at once: two processes, threads with and without names, recursion, all kinds of functions,
/// all states, names that hurt, calls that were counted in all threads, in some and in none.
pub fn rich() -> Profile {
    let mut recorder = Recorder::default();
    let profile = &mut recorder.profile;
    profile.meta = Meta {
        origin: Origin::Sampled,
        command: "python3 server.py --name 'ü \u{1b}[2J'".to_string(),
        python: "3.11.7".to_string(),
        pid: 4711,
        mode: Mode::Wall,
        rate_hz: 1000.0,
        started_at_ms: 1_700_000_000_123,
        duration_us: 2_500_000,
        samples: 2480,
        given_up: 20,
        retried: 31,
        mean_lateness_us: 12.25,
        approximate_stacks: true,
        blocking: false,
        split_threads: false,
        has_cpu_time: true,
        has_states: false,
        reader: "fast: 3.11".to_string(),
        ..Meta::default()
    };
    for (pid, parent) in [(4711, 1), (4712, 4711)] {
        profile.processes.push(ProcessInfo {
            pid,
            parent,
            python: "3.11.7".to_string(),
            command: "python3 server.py".to_string(),
        });
    }
    let thread = |process: u32, os_id: u64, name: Option<&str>, started_us: u64| ThreadInfo {
        process: ProcessId(process),
        os_id,
        python_id: 0x7f00_0000_0000 + os_id,
        name: name.map(str::to_string),
        started_us,
    };
    let main = recorder.add_thread(thread(0, 4711, Some("MainThread"), 0));
    let worker = recorder.add_thread(thread(0, 4720, Some("work\ner \"1\""), 500_000));
    let child = recorder.add_thread(thread(1, 4712, Some("MainThread"), 1_000_000));
    let nameless = recorder.add_thread(thread(1, 0, None, 1_000_000));
    let both = RunState::ON_CPU.with(RunState::GIL);
    let idle = RunState::default();
    for (thread, text, wall_us, cpu_us, fresh, state) in [
        (main, "<module>:40 main:12 fib:3", 1003, 990, Some(0), both),
        (
            main,
            "<module>:40 main:12 fib:3 fib:3",
            1001,
            1001,
            Some(3),
            both,
        ),
        (
            main,
            "<module>:40 main:12 fib:3 fib:4 sum:0",
            998,
            998,
            Some(3),
            both,
        ),
        (
            main,
            "<module>:40 main:13 sum:0",
            1000,
            1000,
            Some(2),
            RunState::ON_CPU,
        ),
        (worker, "run:7 wait:99 acquire:0", 250_000, 0, Some(0), idle),
        (worker, "run:7 wait:99 acquire:0", 250_000, 0, None, idle),
        (
            worker,
            "run:7 native:0",
            1500,
            1200,
            Some(1),
            both.with(RunState::GC),
        ),
        (
            main,
            "<module>:41 odd:5",
            2_000_000,
            7,
            Some(1),
            RunState::GIL_WAIT,
        ),
        (child, "<module>:40 main:12 fib:3", 1003, 990, Some(0), both),
        (nameless, "lambda:8", 4_294_967_295, 0, Some(0), idle),
        (nameless, "lambda:8", 1, 2, None, idle),
    ] {
        let stack = stack(&mut recorder.profile.tables, text);
        recorder.add(Sample {
            thread,
            stack,
            count: 1,
            wall_us,
            cpu_us,
            fresh_from: fresh,
            state,
        });
    }
    let watched = CallSource::Watchpoint;
    let counts: [(_, _, _, _, _, &[_]); 10] = [
        (main, "<module>", 1.0, Some(0.1), CallSource::Samples, &[]),
        (main, "main", 3.4, Some(0.7), watched, &[("<module>", 1.0)]),
        (child, "main", 2.0, Some(0.3), watched, &[("<module>", 1.0)]),
        (
            main,
            "fib",
            177.2,
            Some(9.1),
            watched,
            &[("main", 0.02), ("fib", 0.98)],
        ),
        (child, "fib", 5.0, None, CallSource::LowerBound, &[]),
        (
            main,
            "sum",
            12_345.6,
            Some(123.5),
            watched,
            &[("fib", 0.8), ("main", 0.15)],
        ),
        (worker, "run", 1.0, Some(0.02), CallSource::Samples, &[]),
        (
            worker,
            "wait",
            2.0,
            Some(0.1),
            CallSource::Samples,
            &[("run", 1.0)],
        ),
        (
            worker,
            "acquire",
            41.7,
            Some(4.1),
            watched,
            &[("wait", 1.0)],
        ),
        (main, "odd", 3.0, None, CallSource::LowerBound, &[]),
    ];
    for (thread, name, calls, error, source, callers) in counts {
        let tables = &mut recorder.profile.tables;
        let counted = Counted {
            thread,
            function: function(tables, name),
            estimate: CallEstimate {
                calls,
                error,
                source,
            },
            callers: callers
                .iter()
                .map(|(caller, share)| (function(tables, caller), *share))
                .collect(),
        };
        recorder.profile.counts.push(counted);
    }
    recorder.profile
}

fn stack(tables: &mut Tables, text: &str) -> StackId {
    let mut stack = None;
    for part in text.split(' ') {
        let (name, line) = part.split_once(':').expect("name:line");
        let function = function(tables, name);
        let frame = tables.frame(function, line.parse().expect("line"));
        stack = Some(tables.stack(stack, frame));
    }
    stack.expect("not empty")
}

/// The function with a name of [`rich`]'s stacks.
fn function(tables: &mut Tables, name: &str) -> FunctionId {
    let (file, first, name, kind) = match name {
        "sum" => (
            "~",
            0,
            "<built-in method builtins.sum>",
            FunctionKind::Builtin,
        ),
        "acquire" => {
            let name = "<method 'acquire' of '_thread.lock' objects>";
            ("~", 0, name, FunctionKind::Builtin)
        }
        "native" => ("/usr/lib/libssl.so.3", 0, "SSL_read", FunctionKind::Native),
        "odd" => (
            "/srv/a b/\u{202e}.py",
            5,
            "</script>\n\u{1b}\"\u{0}\u{10348}",
            FunctionKind::Python,
        ),
        "lambda" => ("/srv/app.py", 8, "<lambda>", FunctionKind::Python),
        name => ("/srv/app.py", 1, name, FunctionKind::Python),
    };
    tables.function(file, first, name, kind)
}

/// Exact statistics with floats that have no short decimal form, and edges of both kinds.
pub fn exact() -> Profile {
    let mut tables = Tables::default();
    let main = tables.function("/srv/app.py", 1, "main", FunctionKind::Python);
    let fib = tables.function("/srv/app.py", 9, "fib", FunctionKind::Python);
    let sum = tables.function(
        "~",
        0,
        "<built-in method builtins.sum>",
        FunctionKind::Builtin,
    );
    let edge =
        |ncalls: u64, primitive: u64, tottime: f64, cumtime: f64, count_only: bool| EdgeStats {
            ncalls,
            primitive,
            tottime,
            cumtime,
            count_only,
            lower_bound: false,
        };
    let row = |function, ncalls, primitive, tottime, cumtime, callers| FunctionStats {
        function,
        group: 0,
        ncalls,
        primitive,
        tottime,
        cumtime,
        callers,
        lower_bound: false,
    };
    let rows = vec![
        row(
            fib,
            177,
            1,
            0.1 + 0.2,
            0.75,
            vec![
                (main, edge(1, 1, 1.0 / 3.0, 0.75, false)),
                (fib, edge(176, 1, 0.25, 0.5, false)),
            ],
        ),
        row(
            sum,
            12,
            12,
            1e-7,
            1e-7,
            vec![(main, edge(12, 0, 0.0, 0.0, true))],
        ),
        row(main, 1, 1, 0.0625, 0.8125, vec![]),
    ];
    let stats = CallStats {
        rows,
        groups: vec![String::new()],
        exact: true,
    };
    let meta = Meta {
        origin: Origin::Exact,
        command: "python3 app.py".to_string(),
        ..Meta::default()
    };
    Profile::from_exact(tables, meta, stats)
}

/// One stack of `depth` frames.
pub fn deep(depth: u32) -> Profile {
    let mut recorder = Recorder::default();
    recorder.profile.processes.push(ProcessInfo::default());
    let thread = recorder.add_thread(ThreadInfo {
        process: ProcessId(0),
        os_id: 1,
        python_id: 1,
        name: None,
        started_us: 0,
    });
    let tables = &mut recorder.profile.tables;
    let function = tables.function("a.py", 1, "down", FunctionKind::Python);
    let mut stack = None;
    for line in 0..depth {
        let frame = tables.frame(function, line % 7);
        stack = Some(tables.stack(stack, frame));
    }
    recorder.add(Sample {
        thread,
        stack: stack.expect("deep"),
        count: 1,
        wall_us: 1000,
        cpu_us: 1000,
        fresh_from: Some(0),
        state: RunState::ON_CPU,
    });
    recorder.profile
}

/// A server under load, `ticks` samples at 1 kHz: eight threads, one always busy, one a third of the time,
/// the others asleep; 5,000 stacks, the k-th as often as 1/k; times with 30 % of noise.
pub fn server(ticks: u64) -> Profile {
    let mut noise = Noise(42);
    let mut recorder = Recorder::default();
    let profile = &mut recorder.profile;
    profile.meta.rate_hz = 1000.0;
    profile.meta.has_cpu_time = true;
    profile.meta.samples = ticks;
    profile.meta.duration_us = ticks * 1000;
    profile.processes.push(ProcessInfo::default());
    for id in 0..8 {
        recorder.add_thread(ThreadInfo {
            process: ProcessId(0),
            os_id: 100 + id,
            python_id: 100 + id,
            name: Some(format!("worker-{id}")),
            started_us: 0,
        });
    }
    let stacks = server_stacks(&mut recorder.profile.tables, &mut noise);
    let mut weights = Vec::new();
    let mut total = 0.0;
    for rank in 1..=stacks.len() {
        total += 1.0 / rank as f64;
        weights.push(total);
    }
    for id in 2..8 {
        recorder.profile.runs.push(Run {
            thread: ThreadId(id),
            stack: stacks[id as usize],
            wall_us: u32::try_from(ticks * 1000).unwrap_or(u32::MAX),
            cpu_us: 0,
            count: ticks as u32,
            fresh_from: 0,
            state: RunState::default(),
        });
    }
    let mut busy = false;
    for _ in 0..ticks {
        if noise.below(20) == 0 {
            busy = noise.below(3) == 0;
        }
        let wall_us = 700 + noise.below(601);
        for thread in 0..2 {
            let mut sample = Sample {
                thread: ThreadId(thread),
                stack: stacks[9],
                count: 1,
                wall_us,
                cpu_us: 0,
                fresh_from: None,
                state: RunState::default(),
            };
            if thread == 0 || busy {
                let at = noise.below(1 << 32) as f64 / (1u64 << 32) as f64 * total;
                let rank = weights.partition_point(|&weight| weight < at);
                sample.stack = stacks[rank.min(stacks.len() - 1)];
                sample.cpu_us = wall_us - noise.below(wall_us / 10);
                let depth = recorder.profile.tables.get_stack(sample.stack).depth as u64;
                let fresh = depth.saturating_sub(noise.below(8));
                sample.fresh_from = (noise.below(5) > 0).then_some(fresh as u16);
                sample.state = RunState::ON_CPU.with(RunState(noise.below(2) as u8 * 2));
            }
            recorder.add(sample);
        }
    }
    recorder.profile
}

/// 5,000 stacks of 10 to 40 frames that share their outer parts.
fn server_stacks(tables: &mut Tables, noise: &mut Noise) -> Vec<StackId> {
    let frames: Vec<FrameId> = (0..3000)
        .map(|at| {
            let (file, name) = (
                format!("/srv/app/module_{}.py", at / 60),
                format!("handle_{}", at / 3),
            );
            let function = tables.function(&file, 10 + at / 3, &name, FunctionKind::Python);
            tables.frame(function, 10 + at / 3 + at % 3 * 4)
        })
        .collect();
    let mut stacks: Vec<StackId> = Vec::new();
    while stacks.len() < 5000 {
        let mut stack = stacks
            .get(noise.below(stacks.len() as u64 + 1) as usize)
            .copied();
        for _ in 0..10 + noise.below(10) {
            if let Some(shallower) = stack
                && tables.get_stack(shallower).depth > 25
            {
                stack = tables.get_stack(shallower).parent;
            }
        }
        for _ in 0..=10 + noise.below(5) {
            let frame = frames[noise.below(frames.len() as u64) as usize];
            stack = Some(tables.stack(stack, frame));
        }
        stacks.push(stack.expect("frames"));
    }
    stacks
}
