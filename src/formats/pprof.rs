//! pprof: `profile.proto` of google/pprof (package `perftools.profiles`), packed with gzip, for
//! `go tool pprof`, Pyroscope and Parca.
//!
//! One sample for each distinct stack of each thread, with labels `thread`, `thread_id` and `pid`; viewers
//! merge or split by them, so that what the options keep apart is always there. Order in time is lost.

mod proto;

use std::io::{BufWriter, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;
use prost::encoding::{WireType, encode_key};
use rustc_hash::FxHashMap;

use super::depth::Pieces;
use super::{ExportOptions, Exporter, Loss};
use crate::error::{Error, Result};
use crate::profile::{FrameId, FunctionId, Origin, Profile, StackId, ThreadId};
use crate::units::{printable, several};

/// `.pb.gz` files.
#[derive(Debug, Clone, Copy)]
pub struct Pprof;

impl Exporter for Pprof {
    fn export(
        &self,
        profile: &Profile,
        options: &ExportOptions,
        out: &mut dyn Write,
    ) -> Result<Vec<Loss>> {
        let out = GzEncoder::new(BufWriter::new(out), Compression::default());
        let mut writer = Writer::new(profile, options, out);
        let losses = if profile.exact.is_some() {
            writer.estimated()?;
            let mut losses =
                vec!["the profile has callers but no stacks; the stacks are estimates".to_string()];
            losses.extend(writer.pieces.loss());
            losses
        } else {
            writer.sampled()?;
            writer.pieces.loss().into_iter().collect()
        };
        writer.end()?;
        Ok(losses)
    }
}

struct Writer<'a, W: Write> {
    profile: &'a Profile,
    options: &'a ExportOptions,
    out: GzEncoder<BufWriter<W>>,
    /// All but the samples.
    head: proto::Profile,
    strings: FxHashMap<String, i64>,
    /// Location and function ids; 0 for one that is not in the file yet.
    locations: Vec<u64>,
    functions: Vec<u64>,
    pieces: Pieces,
    buffer: Vec<u8>,
}

fn failed(error: &std::io::Error) -> Error {
    Error::write("the pprof profile", error)
}

impl<'a, W: Write> Writer<'a, W> {
    fn new(
        profile: &'a Profile,
        options: &'a ExportOptions,
        out: GzEncoder<BufWriter<W>>,
    ) -> Writer<'a, W> {
        let mut writer = Writer {
            profile,
            options,
            out,
            head: proto::Profile::default(),
            strings: FxHashMap::default(),
            locations: vec![0; profile.tables.frames().len()],
            functions: vec![0; profile.tables.functions().len()],
            pieces: Pieces::of(&[], false),
            buffer: Vec::new(),
        };
        // Position 0 is the empty string in every file.
        writer.string("");
        writer
    }

    fn string(&mut self, text: &str) -> i64 {
        if let Some(&at) = self.strings.get(text) {
            return at;
        }
        let at = self.head.string_table.len() as i64;
        self.head.string_table.push(text.to_string());
        self.strings.insert(text.to_string(), at);
        at
    }

    fn value_type(&mut self, kind: &str, unit: &str) -> proto::ValueType {
        proto::ValueType {
            kind: self.string(kind),
            unit: self.string(unit),
        }
    }

    /// One sample for each stack of each thread, in the order in which they were first seen.
    fn sampled(&mut self) -> Result<()> {
        let has_cpu_time = self.profile.meta.has_cpu_time;
        self.head.sample_type = vec![
            self.value_type("samples", "count"),
            self.value_type("wall", "nanoseconds"),
        ];
        if has_cpu_time {
            let cpu = self.value_type("cpu", "nanoseconds");
            self.head.sample_type.push(cpu);
        }
        let mut positions: FxHashMap<(StackId, ThreadId), usize> = FxHashMap::default();
        let mut sums: Vec<(StackId, ThreadId, [u64; 3])> = Vec::new();
        for run in self.options.filter.runs(self.profile) {
            let at = *positions.entry((run.stack, run.thread)).or_insert_with(|| {
                sums.push((run.stack, run.thread, [0; 3]));
                sums.len() - 1
            });
            let values = [run.count, run.wall_us, run.cpu_us];
            for (sum, value) in sums[at].2.iter_mut().zip(values) {
                *sum = sum.saturating_add(u64::from(value));
            }
        }
        drop(positions);
        let labels: Vec<Vec<proto::Label>> = (0..self.profile.threads.len())
            .map(|at| self.labels(at))
            .collect();
        let profile = self.profile;
        let stacks = sums.iter().map(|(stack, ..)| *stack);
        let depths: Vec<u32> = stacks
            .map(|stack| profile.tables.get_stack(stack).depth)
            .collect();
        let pieces = Pieces::of(&depths, false);
        self.pieces = pieces;
        for (stack, thread, [count, wall_us, cpu_us]) in sums {
            let mut value = vec![signed(count), nanoseconds(wall_us)];
            if has_cpu_time {
                value.push(nanoseconds(cpu_us));
            }
            let label = labels[thread.index()].clone();
            let (length, _) = pieces.shown(profile.tables.get_stack(stack).depth);
            self.sample(profile.tables.frames_of(stack).take(length), value, label)?;
        }
        Ok(())
    }

    /// Samples of the call tree that was estimated from exact statistics.
    fn estimated(&mut self) -> Result<()> {
        self.head.sample_type = vec![
            self.value_type("calls", "count"),
            self.value_type("wall", "nanoseconds"),
        ];
        let (tree, _) = self.profile.tree(&self.options.filter);
        let mut depths: Vec<u32> = Vec::with_capacity(tree.nodes.len());
        for node in &tree.nodes {
            depths.push(node.parent.map_or(0, |parent| depths[parent as usize] + 1));
        }
        let pieces = Pieces::of(&depths, true);
        self.pieces = pieces;
        for (at, node) in tree.nodes.iter().enumerate() {
            let (length, _) = pieces.shown(depths[at]);
            if node.calls > 0 || node.self_wall_ns > 0 {
                let path = tree.path(at as u32).take(length);
                let frames = path.map(|at| tree.nodes[at as usize].frame);
                let value = vec![signed(node.calls), signed(node.self_wall_ns)];
                self.sample(frames, value, Vec::new())?;
            }
        }
        Ok(())
    }

    fn labels(&mut self, thread: usize) -> Vec<proto::Label> {
        let info = &self.profile.threads[thread];
        let mut labels = Vec::new();
        if let Some(name) = &info.name {
            labels.push(proto::Label {
                key: self.string("thread"),
                str: self.string(&printable(name)),
                num: 0,
            });
        }
        let thread_id = if info.os_id != 0 {
            info.os_id
        } else {
            info.python_id
        };
        let pid = self
            .profile
            .processes
            .get(info.process.index())
            .map_or(0, |process| process.pid);
        for (key, num) in [("thread_id", signed(thread_id)), ("pid", i64::from(pid))] {
            if num != 0 {
                labels.push(proto::Label {
                    key: self.string(key),
                    str: 0,
                    num,
                });
            }
        }
        labels
    }

    /// Writes one sample; `frames` are innermost first.
    fn sample(
        &mut self,
        frames: impl Iterator<Item = FrameId>,
        value: Vec<i64>,
        label: Vec<proto::Label>,
    ) -> Result<()> {
        let sample = proto::Sample {
            location_id: frames.map(|frame| self.location(frame)).collect(),
            value,
            label,
        };
        self.buffer.clear();
        encode_key(
            proto::SAMPLE_TAG,
            WireType::LengthDelimited,
            &mut self.buffer,
        );
        let encoded = sample.encode_length_delimited(&mut self.buffer);
        // A vector has no end to run into.
        encoded.map_err(|error| failed(&std::io::Error::other(error)))?;
        self.out
            .write_all(&self.buffer)
            .map_err(|error| failed(&error))
    }

    fn location(&mut self, frame: FrameId) -> u64 {
        let known = self.locations[frame.index()];
        if known != 0 {
            return known;
        }
        let parts = self.profile.tables.get_frame(frame);
        let id = self.head.location.len() as u64 + 1;
        self.locations[frame.index()] = id;
        let function_id = self.function(parts.function);
        self.head.location.push(proto::Location {
            id,
            mapping_id: 1,
            line: vec![proto::Line {
                function_id,
                line: i64::from(parts.line),
            }],
        });
        id
    }

    fn function(&mut self, function: FunctionId) -> u64 {
        let known = self.functions[function.index()];
        if known != 0 {
            return known;
        }
        let tables = &self.profile.tables;
        let id = self.head.function.len() as u64 + 1;
        self.functions[function.index()] = id;
        let name = self.string(&printable(
            tables.shown_name(function, self.options.qualnames),
        ));
        let filename = self.string(&printable(self.options.file_name(tables.file(function))));
        self.head.function.push(proto::Function {
            id,
            name,
            // Viewers that find a mangled name take `<module>` for C++ with template arguments.
            system_name: 0,
            filename,
            start_line: i64::from(tables.line(function)),
        });
        id
    }

    /// Writes what the samples refer to; a message's fields may come in any order.
    fn end(mut self) -> Result<()> {
        let meta = &self.profile.meta;
        self.head.time_nanos = signed(meta.started_at_ms.saturating_mul(1_000_000));
        self.head.duration_nanos = nanoseconds(meta.duration_us);
        if meta.rate_hz > 0.0 {
            self.head.period_type = Some(self.value_type("wall", "nanoseconds"));
            self.head.period = (1e9 / meta.rate_hz) as i64;
        }
        self.head.default_sample_type = self.string("wall");
        // Tells viewers that there is nothing left to look up in a binary.
        let program = if meta.python.is_empty() {
            "python".to_string()
        } else {
            format!("python {}", meta.python)
        };
        let filename = self.string(&printable(&program));
        self.head.mapping.push(proto::Mapping {
            id: 1,
            filename,
            has_functions: true,
            has_filenames: true,
            has_line_numbers: true,
        });
        for comment in comments(self.profile, self.options) {
            let comment = self.string(&comment);
            self.head.comment.push(comment);
        }
        let head = self.head.encode_to_vec();
        self.out.write_all(&head).map_err(|error| failed(&error))?;
        let mut out = self.out.finish().map_err(|error| failed(&error))?;
        out.flush().map_err(|error| failed(&error))
    }
}

/// What a reader should know about the numbers, one line each.
fn comments(profile: &Profile, options: &ExportOptions) -> Vec<String> {
    let meta = &profile.meta;
    let mut lines = Vec::new();
    if !meta.command.is_empty() {
        lines.push(format!("command: {}", printable(&meta.command)));
    }
    match meta.origin {
        Origin::Sampled => {
            let rate = if meta.rate_hz > 0.0 {
                format!("at {} Hz", meta.rate_hz)
            } else {
                "at full speed".to_string()
            };
            lines.push(format!(
                "sampled {rate}, mode {}: {}, {} given up",
                options.filter.mode.name(),
                several(meta.samples, "sample"),
                meta.given_up
            ));
        }
        Origin::Exact => lines.push("exact calls and times; stacks are estimates".to_string()),
        Origin::Collapsed if meta.unit_is_unknown() => {
            lines.push("from collapsed stacks: the unit is not known".to_string());
        }
        Origin::Collapsed => lines.push("from collapsed stacks".to_string()),
    }
    if !meta.narrowed.is_empty() {
        lines.push(format!("shown: {}", printable(&meta.narrowed)));
    }
    if meta.approximate_stacks {
        let why = "stacks are approximate: they were read without stopping the process";
        lines.push(why.to_string());
    }
    lines
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn nanoseconds(us: u64) -> i64 {
    signed(us.saturating_mul(1000))
}
