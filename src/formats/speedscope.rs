//! speedscope's own file: the samples of each thread in the order of time, for
//! <https://www.speedscope.app>.
//!
//! Written to `src/lib/file-format-spec.ts` of speedscope 1.25, whose JSON schema is
//! <https://www.speedscope.app/file-format-schema.json>: one "sampled" profile a thread, stacks outermost
//! first, weights in microseconds of wall time, nanoseconds for traced calls. Frames are functions at their first line, as speedscope
//! takes every other line for another function.

use std::io::{self, BufWriter, Write};

use rustc_hash::FxHashMap;

use super::depth::Pieces;
use super::{ExportOptions, Exporter, Loss, check_timeline};
use crate::error::{Error, Result};
use crate::profile::{CallTree, FunctionId, FunctionKind, Origin, Profile, Run, Tables, ThreadId};
use crate::units;

/// Writes speedscope files.
#[derive(Debug, Clone, Copy)]
pub struct Speedscope;

impl Exporter for Speedscope {
    fn needs_timeline(&self) -> bool {
        true
    }

    fn export(
        &self,
        profile: &Profile,
        options: &ExportOptions,
        out: &mut dyn Write,
    ) -> Result<Vec<Loss>> {
        check_timeline(profile)?;
        let mut losses = Vec::new();
        let mut sections = if profile.exact.is_some() {
            losses.push(
                "stacks are estimated from caller edges and stand in no order of time".to_string(),
            );
            estimated(profile, options)
        } else {
            by_thread(profile, options)
        };
        if sections.is_empty() {
            // speedscope refuses a file without a profile.
            sections.push(Section {
                name: "no samples".to_string(),
                start: 0,
                samples: Vec::new(),
                paths: std::rc::Rc::default(),
            });
        }
        let depths: Vec<u32> = (sections.iter())
            .flat_map(|section| {
                (section.samples.iter()).map(|(at, _)| section.paths.depths[*at as usize])
            })
            .collect();
        let pieces = Pieces::of(&depths, profile.exact.is_some());
        losses.extend(pieces.loss());
        let mut out = BufWriter::new(out);
        write(profile, options, &sections, pieces, &mut out)
            .and_then(|()| out.flush())
            .map_err(|error| Error::write("the speedscope file", &error))?;
        Ok(losses)
    }
}

/// One profile of the file.
struct Section {
    name: String,
    start: u64,
    /// Position in the paths, and time.
    samples: Vec<(u32, u64)>,
    paths: std::rc::Rc<Paths>,
}

/// Distinct stacks of functions.
#[derive(Default)]
struct Paths {
    nodes: Vec<(Option<u32>, FunctionId)>,
    depths: Vec<u32>,
    ids: FxHashMap<(Option<u32>, FunctionId), u32>,
}

impl Paths {
    fn add(&mut self, parent: Option<u32>, function: FunctionId) -> u32 {
        let next = self.nodes.len() as u32;
        *self.ids.entry((parent, function)).or_insert_with(|| {
            self.nodes.push((parent, function));
            let depth = parent.and_then(|parent| self.depths.get(parent as usize));
            self.depths.push(depth.map_or(0, |depth| depth + 1));
            next
        })
    }

    /// The innermost `length` functions of a stack, outermost first, into `path`.
    fn fill(&self, at: u32, length: usize, path: &mut Vec<FunctionId>) {
        path.clear();
        let mut next = Some(at);
        while let Some(at) = next.filter(|_| path.len() < length) {
            let (parent, function) = self.nodes[at as usize];
            path.push(function);
            next = parent;
        }
        path.reverse();
    }
}

/// A section for each thread with samples that count.
fn by_thread(profile: &Profile, options: &ExportOptions) -> Vec<Section> {
    let tables = &profile.tables;
    let mut paths = Paths::default();
    let mut places: Vec<u32> = Vec::with_capacity(tables.stacks().len());
    for stack in tables.stacks() {
        let parent = stack.parent.map(|parent| places[parent.index()]);
        places.push(paths.add(parent, tables.get_frame(stack.frame).function));
    }
    let mut samples: Vec<Vec<(u32, u64)>> = vec![Vec::new(); profile.threads.len()];
    for run in options.filter.runs(profile) {
        let Run { thread, stack, .. } = *run;
        let weight_us = options.filter.weight_us(profile, run);
        if weight_us == 0 {
            continue;
        }
        let (place, samples) = (places[stack.index()], &mut samples[thread.index()]);
        match samples.last_mut() {
            Some((last, weight)) if *last == place => *weight += u64::from(weight_us),
            _ => samples.push((place, u64::from(weight_us))),
        }
    }
    let paths = std::rc::Rc::new(paths);
    let several = profile.processes.len() > 1;
    samples
        .into_iter()
        .enumerate()
        .filter(|(_, samples)| !samples.is_empty())
        .map(|(at, samples)| {
            let info = &profile.threads[at];
            let thread = match profile.meta.origin {
                Origin::Collapsed if info.os_id == 0 && info.name.is_none() => {
                    "collapsed stacks".to_string()
                }
                _ => profile.thread_label(ThreadId(at as u32)),
            };
            let name = if several {
                format!("{}, {thread}", profile.process_label(info.process))
            } else {
                thread
            };
            Section {
                name,
                start: info.started_us,
                samples,
                paths: paths.clone(),
            }
        })
        .collect()
}

/// One section for each group of an estimated tree.
fn estimated(profile: &Profile, options: &ExportOptions) -> Vec<Section> {
    let (tree, _) = profile.tree(&options.filter);
    let mut paths = Paths::default();
    let mut places: Vec<u32> = Vec::with_capacity(tree.nodes.len());
    for (at, node) in tree.nodes.iter().enumerate() {
        let parent = node.parent.map(|parent| places[parent as usize]);
        places.push(paths.add(parent, tree.function(&profile.tables, at as u32)));
    }
    let mut samples: Vec<Vec<(u32, u64)>> = vec![Vec::new(); tree.groups.len()];
    for at in in_order(&tree) {
        let node = tree.nodes[at as usize];
        if node.self_wall_ns > 0 {
            samples[node.group as usize].push((places[at as usize], node.self_wall_ns));
        }
    }
    let paths = std::rc::Rc::new(paths);
    let sections = samples.into_iter().zip(&tree.groups);
    sections
        .filter(|(samples, _)| !samples.is_empty())
        .map(|(samples, group)| {
            let label = if group.label.is_empty() {
                "estimated stacks"
            } else {
                &group.label
            };
            Section {
                name: label.to_string(),
                start: 0,
                samples,
                paths: paths.clone(),
            }
        })
        .collect()
}

/// The nodes with subtrees together, so that a call is drawn as one box.
fn in_order(tree: &CallTree) -> Vec<u32> {
    let mut order = Vec::with_capacity(tree.nodes.len());
    tree.walk(|at| order.push(at), |_| {});
    order
}

/// Functions with equal names are one frame; positions by first use.
struct Frames<'a> {
    tables: &'a Tables,
    strip_dirs: bool,
    ids: Vec<Option<u32>>,
    by_name: FxHashMap<(&'a str, u32, &'a str), u32>,
    list: Vec<FunctionId>,
}

impl<'a> Frames<'a> {
    fn id(&mut self, function: FunctionId) -> u32 {
        if let Some(id) = self.ids[function.index()] {
            return id;
        }
        let tables = self.tables;
        let key = (
            self.file(function),
            tables.line(function),
            tables.name(function),
        );
        let next = self.list.len() as u32;
        let id = *self.by_name.entry(key).or_insert_with(|| {
            self.list.push(function);
            next
        });
        self.ids[function.index()] = Some(id);
        id
    }

    fn file(&self, function: FunctionId) -> &'a str {
        let file = self.tables.file(function);
        if self.strip_dirs {
            file.rsplit(['/', '\\']).next().unwrap_or(file)
        } else {
            file
        }
    }
}

/// The whole file. Frames stand last: they are known when all samples are written.
fn write(
    profile: &Profile,
    options: &ExportOptions,
    sections: &[Section],
    pieces: Pieces,
    out: &mut impl Write,
) -> io::Result<()> {
    let command = match options.title(profile) {
        "" => "biopsy",
        title => title,
    };
    out.write_all(b"{\"$schema\":\"https://www.speedscope.app/file-format-schema.json\",")?;
    write!(
        out,
        "\"exporter\":\"biopsy {}\",\"name\":",
        env!("CARGO_PKG_VERSION")
    )?;
    if profile.meta.approximate_stacks {
        string(out, &format!("{command} (approximate stacks)"))?;
    } else {
        string(out, command)?;
    }
    out.write_all(b",\"activeProfileIndex\":0,\"profiles\":[")?;
    let mut frames = Frames {
        tables: &profile.tables,
        strip_dirs: options.strip_dirs,
        ids: vec![None; profile.tables.functions().len()],
        by_name: FxHashMap::default(),
        list: Vec::new(),
    };
    let unit = if profile.exact.is_some() {
        "nanoseconds"
    } else if profile.meta.unit_is_unknown() {
        "none"
    } else {
        "microseconds"
    };
    for (at, section) in sections.iter().enumerate() {
        out.write_all(if at == 0 { b"\n" } else { b",\n" })?;
        write_section(section, unit, pieces, &mut frames, out)?;
    }
    out.write_all(b"\n],\"shared\":{\"frames\":[")?;
    for (at, &function) in frames.list.iter().enumerate() {
        out.write_all(if at == 0 { b"\n" } else { b",\n" })?;
        out.write_all(b"{\"name\":")?;
        string(out, profile.tables.shown_name(function, options.qualnames))?;
        let file = frames.file(function);
        let parts = profile.tables.get_function(function);
        if !file.is_empty() && parts.kind != FunctionKind::Builtin {
            out.write_all(b",\"file\":")?;
            string(out, file)?;
            if parts.line > 0 {
                write!(out, ",\"line\":{}", parts.line)?;
            }
        }
        out.write_all(b"}")?;
    }
    out.write_all(b"\n]}}\n")
}

fn write_section(
    section: &Section,
    unit: &str,
    pieces: Pieces,
    frames: &mut Frames<'_>,
    out: &mut impl Write,
) -> io::Result<()> {
    let length: u64 = section.samples.iter().map(|(_, weight)| weight).sum();
    out.write_all(b"{\"type\":\"sampled\",\"name\":")?;
    string(out, &section.name)?;
    write!(
        out,
        ",\"unit\":\"{unit}\",\"startValue\":{},\"endValue\":{},\n\"samples\":[",
        section.start,
        section.start.saturating_add(length)
    )?;
    let mut path = Vec::new();
    for (at, (place, _)) in section.samples.iter().enumerate() {
        let (length, _) = pieces.shown(section.paths.depths[*place as usize]);
        section.paths.fill(*place, length, &mut path);
        out.write_all(if at == 0 { b"[" } else { b",[" })?;
        for (depth, &function) in path.iter().enumerate() {
            if depth > 0 {
                out.write_all(b",")?;
            }
            write!(out, "{}", frames.id(function))?;
        }
        out.write_all(b"]")?;
    }
    out.write_all(b"],\n\"weights\":[")?;
    for (at, (_, weight)) in section.samples.iter().enumerate() {
        if at > 0 {
            out.write_all(b",")?;
        }
        write!(out, "{weight}")?;
    }
    out.write_all(b"]}")
}

/// A JSON string with what could reorder or break text on a screen escaped.
fn string(out: &mut impl Write, text: &str) -> io::Result<()> {
    serde_json::to_writer(out, &units::printable(text)).map_err(io::Error::from)
}
