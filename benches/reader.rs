//! What a sample costs once its bytes are here, and how fast profiles are written (`cargo bench -p biopsy-benches`).
//!
//! A fixture (`peers_target.py`, about 43 frames) is started with `$PYTHON` (default `python3`), its memory copied at a
//! few moments, and ended: stacks are read from the copies, so that neither the kernel nor another process counts.
//! The copying itself, one system call a sample, is not in these numbers: `peers.py` measures the whole.

use std::cell::Cell;
use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

use biopsy::formats::{ExportOptions, registry};
use biopsy::layout::linetable::Lines;
use biopsy::layout::tables;
use biopsy::profile::record::Sample;
use biopsy::profile::{
    FunctionKind, Meta, ProcessId, ProcessInfo, Profile, Recorder, RunState, Tables, ThreadInfo,
};
use biopsy::sample::fast::{FastOptions, FastReader};
use biopsy::sample::{StackReader, ThreadStacks};
use biopsy::target::image::{Captured, Image};
use biopsy::target::memory::copy::{CaptureOptions, capture};
use biopsy::target::memory::{Memory, Range, Unreadable};
use biopsy::units::Pid;

/// Copies of the fixture's memory that are read in turn.
const MOMENTS: usize = 8;

/// Frames that the fixture has at least at each of them.
const DEPTH: usize = 30;

/// Samples of the profile that is written.
const SAMPLES: u64 = 120_000;

fn python() -> String {
    std::env::var("PYTHON").unwrap_or_else(|_| "python3".to_string())
}

/// A process that is ended with us.
struct Fixture(Child);

impl Fixture {
    fn start() -> Fixture {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers_target.py");
        let mut child = Command::new(python())
            .arg(script)
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 starts");
        let output = child.stdout.take().expect("piped");
        let fixture = Fixture(child);
        let mut line = String::new();
        BufReader::new(output)
            .read_line(&mut line)
            .expect("a line from the fixture");
        assert_eq!(line.trim(), "ready");
        fixture
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One process at several moments.
struct Moments {
    all: Vec<Captured>,
    now: Cell<usize>,
}

impl Moments {
    /// Copies a fixture's memory until there are enough moments at which its stack can be read.
    fn record() -> Moments {
        let fixture = Fixture::start();
        let pid = Pid(i32::try_from(fixture.0.id()).expect("a process id"));
        std::thread::sleep(Duration::from_millis(50));
        let mut moments = Moments {
            all: Vec::new(),
            now: Cell::new(0),
        };
        let mut seen = HashSet::new();
        for _ in 0..4 * MOMENTS {
            let (captured, _) =
                capture(pid, CaptureOptions::default()).expect("the fixture can be copied");
            moments.all.push(captured);
            moments.now.set(moments.all.len() - 1);
            // A function may just be entered or left at such a moment: no whole stack.
            let stack = moments.stack().filter(|stack| stack.len() >= DEPTH);
            match stack {
                Some(stack) => seen.insert(stack),
                None => moments.all.pop().is_none(),
            };
            if moments.all.len() == MOMENTS {
                break;
            }
        }
        assert_eq!(moments.all.len(), MOMENTS, "too few moments with a stack");
        assert!(seen.len() > 1, "the stack is the same at all moments");
        moments
    }

    fn image(&self) -> &Image {
        &self.all[self.now.get()].image
    }

    fn step(&self) {
        self.now.set((self.now.get() + 1) % self.all.len());
    }

    /// A reader that has read nothing yet.
    fn reader(&self) -> FastReader<&Moments> {
        let us = Pid(i32::try_from(std::process::id()).expect("a process id"));
        let options = FastOptions {
            // No moves to the CPU that the fixture was on.
            cross_cpu: true,
            ..FastOptions::default()
        };
        FastReader::over(us, self, &self.all[0].runtime, options).expect("a Python that is known")
    }

    /// The stack at this moment: frames by address and instruction.
    fn stack(&self) -> Option<Vec<(u64, u32)>> {
        let mut stacks = ThreadStacks::default();
        self.reader()
            .read(&mut Tables::default(), &mut stacks)
            .ok()?;
        let frames = &stacks.threads.first()?.frames;
        Some(
            frames
                .iter()
                .map(|frame| (frame.invocation, frame.instruction))
                .collect(),
        )
    }
}

impl Memory for &Moments {
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Unreadable> {
        match self.image().read(address, into) {
            true => Ok(()),
            false => Err(Unreadable::Nowhere),
        }
    }

    fn read_ranges(&self, ranges: &[Range], into: &mut [u8]) -> Result<usize, Unreadable> {
        let mut done = 0;
        for range in ranges {
            let room = into.get_mut(done..done + range.length);
            let copied = room.is_some_and(|room| self.image().read(range.address as u64, room));
            if !copied {
                break;
            }
            done += range.length;
        }
        Ok(done)
    }
}

/// Reading and decoding stacks of about 40 frames: other innermost frames each time, the same ones, and all for the
/// first time with their code objects.
fn stacks(criterion: &mut Criterion) {
    let moments = Moments::record();
    let version = &moments.all[0].runtime.version;
    let mut group = criterion.benchmark_group("stack");

    let (mut reader, mut tables, mut stacks) =
        (moments.reader(), Tables::default(), ThreadStacks::default());
    group.bench_function(BenchmarkId::new("next", version), |bencher| {
        bencher.iter(|| {
            moments.step();
            reader.read(&mut tables, &mut stacks).expect("a stack")
        });
    });
    group.bench_function(BenchmarkId::new("same", version), |bencher| {
        bencher.iter(|| reader.read(&mut tables, &mut stacks).expect("a stack"));
    });
    group.bench_function(BenchmarkId::new("first", version), |bencher| {
        bencher.iter(|| {
            let mut stacks = ThreadStacks::default();
            moments
                .reader()
                .read(&mut Tables::default(), &mut stacks)
                .expect("a stack")
        });
    });
    group.finish();
}

/// A code object as Python tells it.
struct Code {
    version: (u32, u32),
    first_line: i32,
    stack_size: u32,
    lines: Vec<u8>,
    code: Vec<u8>,
    exceptions: Vec<u8>,
}

impl Code {
    /// That of a long function of the standard library.
    fn ask() -> Code {
        let script = "import sys, argparse\n\
            c = argparse.ArgumentParser._parse_known_args.__code__\n\
            print(*sys.version_info[:2], c.co_firstlineno, c.co_stacksize)\n\
            for n in ('co_linetable' if sys.version_info >= (3, 10) else 'co_lnotab', 'co_code', 'co_exceptiontable'):\n \
            print(getattr(c, n, b'').hex())";
        let output = Command::new(python())
            .args(["-c", script])
            .output()
            .expect("python3 runs");
        let text = String::from_utf8(output.stdout).expect("text");
        let mut lines = text.lines();
        let numbers: Vec<u32> = lines
            .next()
            .expect("a line of numbers")
            .split(' ')
            .map(|number| number.parse().expect("a number"))
            .collect();
        let mut bytes = || hex(lines.next().expect("a line of bytes"));
        Code {
            version: (numbers[0], numbers[1]),
            first_line: numbers[2] as i32,
            stack_size: numbers[3],
            lines: bytes(),
            code: bytes(),
            exceptions: bytes(),
        }
    }
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len() / 2)
        .map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).expect("hexadecimal"))
        .collect()
}

/// What is done once for each code object.
fn code_objects(criterion: &mut Criterion) {
    let code = Code::ask();
    let (major, minor) = code.version;
    let offsets = tables::for_version(major, minor).expect("a Python that is known");
    let mut group = criterion.benchmark_group("code");
    group.throughput(Throughput::Bytes(code.lines.len() as u64));
    group.bench_function("lines", |bencher| {
        bencher.iter(|| Lines::decode(offsets.code.lines, &code.lines, code.first_line));
    });
    if let Some(opcodes) = offsets.opcodes {
        group.throughput(Throughput::Bytes(code.code.len() as u64));
        group.bench_function("calls", |bencher| {
            bencher.iter(|| {
                opcodes
                    .calls(&code.code, &code.exceptions, code.stack_size)
                    .expect("fits the code")
            });
        });
    }
    group.finish();
}

/// A profile of two minutes at 1 kHz: 120000 samples of 4 threads in 300 functions, with some 2000 stacks of 10 to 40
/// frames.
fn profile() -> Profile {
    let mut noise = 0x9e37_79b9_7f4a_7c15u64;
    // xorshift64*: always the same numbers.
    let mut below = move |end: u64| {
        noise ^= noise >> 12;
        noise ^= noise << 25;
        noise ^= noise >> 27;
        (noise.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % end
    };
    let mut recorder = Recorder::default();
    recorder.profile.meta = Meta {
        command: "python3 server.py".to_string(),
        python: "3.12.1".to_string(),
        rate_hz: 1000.0,
        duration_us: 120_000_000,
        samples: SAMPLES,
        has_cpu_time: true,
        ..Meta::default()
    };
    recorder.profile.processes.push(ProcessInfo::default());
    let threads: Vec<_> = (0..4u64)
        .map(|index| {
            recorder.add_thread(ThreadInfo {
                process: ProcessId(0),
                os_id: 100 + index,
                python_id: 1 + index,
                name: Some(format!("worker-{index}")),
                started_us: 0,
            })
        })
        .collect();
    let functions: Vec<_> = (0..300u32)
        .map(|index| {
            let file = format!(
                "/usr/lib/python3/site-packages/package/module_{}.py",
                index / 12
            );
            let tables = &mut recorder.profile.tables;
            tables.function(
                &file,
                10 + 7 * (index % 12),
                &format!("function_{index}"),
                FunctionKind::Python,
            )
        })
        .collect();
    // Each function calls a few others, from a few lines: frames by the way they were reached.
    for at in 0..SAMPLES {
        let path = below(2000);
        let depth = 10 + path % 31;
        let (mut function, mut stack) = (0usize, None);
        for level in 0..depth {
            let choice = if level < 8 {
                0
            } else {
                (path >> (level % 11)) as usize % 3
            };
            function = (7 * function + 13 * choice + 5) % functions.len();
            let tables = &mut recorder.profile.tables;
            let line = tables.line(functions[function]) + choice as u32;
            let frame = tables.frame(functions[function], line);
            stack = Some(tables.stack(stack, frame));
        }
        recorder.add(Sample {
            thread: threads[(at % 4) as usize],
            stack: stack.expect("ten frames at least"),
            count: 1,
            wall_us: 990 + below(20),
            cpu_us: below(900),
            fresh_from: Some(below(depth) as u16),
            state: RunState::ON_CPU,
        });
    }
    recorder.profile
}

/// Writing a profile in each format, and reading it back where that can be done.
fn formats(criterion: &mut Criterion) {
    let profile = profile();
    let options = ExportOptions::default();
    let mut group = criterion.benchmark_group("formats");
    group.sample_size(10);
    for name in ["pstats", "callgrind", "flamegraph", "collapsed", "biopsy"] {
        let format = registry::by_name(name).expect("a format");
        let exporter = format.exporter().expect("is written");
        let mut file = Vec::new();
        exporter
            .export(&profile, &options, &mut file)
            .expect("is written");
        group.throughput(Throughput::ElementsAndBytes {
            elements: SAMPLES,
            bytes: file.len() as u64,
        });
        group.bench_function(BenchmarkId::new("write", name), |bencher| {
            bencher.iter(|| {
                let mut out = Vec::with_capacity(file.len());
                exporter
                    .export(&profile, &options, &mut out)
                    .expect("is written")
            });
        });
        if let Some(importer) = format.importer {
            group.bench_function(BenchmarkId::new("read", name), |bencher| {
                bencher.iter(|| importer.import(&file).expect("is read"));
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = stacks, code_objects, formats
}
criterion_main!(benches);
