//! Collapsed (folded) stacks: one line for each distinct stack, `outer (file:line);inner (file:line) 1234`.
//!
//! The number is wall time in microseconds, so that every reader draws true proportions; of traced calls, which may be
//! shorter, in nanoseconds. A first line `# unit: microseconds 0` says which: to readers it is a comment, or a stack without
//! time; gprof2dot takes no line without a number. Frames are functions at their first line. There is no written standard: this is what flamegraph.pl
//! (<https://github.com/brendangregg/FlameGraph>), inferno and speedscope read, with frames in the form
//! of `py-spy record --format raw`. `collapsed/read.rs` reads those of all of them and of others.

mod read;

use std::io::{BufWriter, Write};

use rustc_hash::FxHashMap;

pub use self::read::{import_with, without_stacks};
use super::depth::{LEFT_OUT, Pieces};
use super::{ExportOptions, Exporter, Loss, unsaid};
use crate::error::{Error, Result};
use crate::profile::{CallTree, FunctionId, FunctionKind, Profile, Tables};
use crate::units;

/// Longer names are cut: a name may have a million characters and stands in every line.
const MAX_TEXT_CHARS: usize = 1000;
/// Says the unit of the numbers; a 0 follows.
const NANOSECONDS: &str = "# unit: nanoseconds";
/// The same of the usual one.
const MICROSECONDS: &str = "# unit: microseconds";

/// Writes and reads collapsed stacks.
#[derive(Debug, Clone, Copy)]
pub struct Collapsed;

impl Exporter for Collapsed {
    fn export(
        &self,
        profile: &Profile,
        options: &ExportOptions,
        out: &mut dyn Write,
    ) -> Result<Vec<Loss>> {
        let (tree, estimated) = profile.tree(&options.filter);
        let mut stacks = StackTree::default();
        stacks.add(profile, &tree, options, Side::Only);
        let unit_ns = unit_ns(&[profile]);
        let written = stacks.nodes.iter().filter(|node| node.own[0] > 0);
        let depths: Vec<u32> = written.map(|node| node.depth).collect();
        let pieces = Pieces::of(&depths, estimated);
        let write = || -> std::io::Result<()> {
            let mut out = BufWriter::new(out);
            // What came from a file that does not say it cannot say it either.
            if !profile.meta.unit_is_unknown() {
                let unit = if unit_ns == 1 {
                    NANOSECONDS
                } else {
                    MICROSECONDS
                };
                writeln!(out, "{unit} 0")?;
            }
            for (at, node) in stacks.nodes.iter().enumerate() {
                let number = node.own[0] / unit_ns;
                if number == 0 {
                    continue;
                }
                let (length, is_piece) = pieces.shown(node.depth);
                if is_piece {
                    write!(out, "{LEFT_OUT};")?;
                }
                for (place, label) in stacks.path(at, length).enumerate() {
                    if place > 0 {
                        out.write_all(b";")?;
                    }
                    out.write_all(label.as_bytes())?;
                }
                writeln!(out, " {number}")?;
            }
            out.flush()
        };
        write().map_err(|error| Error::write("collapsed stacks", &error))?;
        let mut losses = Vec::new();
        if estimated {
            losses.push("stacks are estimated from caller edges".to_string());
        }
        if unit_ns == 1 {
            losses.push("numbers are nanoseconds".to_string());
        }
        losses.extend(pieces.loss());
        losses.extend(unsaid(profile));
        Ok(losses)
    }
}

/// What the numbers of line-based formats count: microseconds, but nanoseconds where calls were traced.
pub(super) fn unit_ns(profiles: &[&Profile]) -> u64 {
    if profiles.iter().any(|profile| profile.exact.is_some()) {
        1
    } else {
        1000
    }
}

/// Which of two compared profiles a stack is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The older one, or the only one.
    Only,
    /// The newer one.
    New,
}

/// One distinct stack of labels.
#[derive(Debug, Clone, Copy)]
pub(super) struct StackNode {
    /// Position of the node below, always lower.
    pub parent: Option<u32>,
    /// Position in [`StackTree::labels`].
    pub label: u32,
    /// Number of nodes below.
    pub depth: u32,
    /// Nanoseconds with exactly this stack, of each side.
    pub own: [u64; 2],
}

/// Stacks as people see them in a flame graph: lines of a function merged, names made fit for line-based
/// formats, groups as outermost frames.
#[derive(Debug, Default)]
pub(super) struct StackTree {
    pub nodes: Vec<StackNode>,
    pub labels: Vec<String>,
    /// Whether a function that calls itself directly is shown once.
    fold_recursion: bool,
    /// Deeper frames count for the last one of this many.
    max_depth: Option<u32>,
    /// Whether some stack was cut by `max_depth`.
    pub was_cut: bool,
    label_ids: FxHashMap<String, u32>,
    node_ids: FxHashMap<(Option<u32>, u32), u32>,
}

impl StackTree {
    /// A tree that shows no more than `max_depth` frames of a stack, and direct recursion as one frame
    /// when `fold_recursion` is set.
    pub fn limited(max_depth: u32, fold_recursion: bool) -> StackTree {
        StackTree {
            max_depth: Some(max_depth),
            fold_recursion,
            ..StackTree::default()
        }
    }

    /// Adds the stacks of `tree`, which is of `profile`.
    pub fn add(&mut self, profile: &Profile, tree: &CallTree, options: &ExportOptions, side: Side) {
        let tables = &profile.tables;
        let mut labels: Vec<Option<u32>> = vec![None; tables.functions().len()];
        let groups: Vec<Option<u32>> = tree
            .groups
            .iter()
            .map(|group| (!group.label.is_empty()).then(|| self.label(group_text(&group.label))))
            .collect();
        let mut places: Vec<u32> = Vec::with_capacity(tree.nodes.len());
        for (at, node) in tree.nodes.iter().enumerate() {
            let function = tree.function(tables, at as u32);
            let label = match labels[function.index()] {
                Some(label) => label,
                None => {
                    let label = self.label(frame_text(tables, function, options));
                    labels[function.index()] = Some(label);
                    label
                }
            };
            let parent = match node.parent {
                Some(parent) => Some(places[parent as usize]),
                None => groups[node.group as usize].map(|label| self.node(None, label)),
            };
            let place = self.node(parent, label);
            let own = &mut self.nodes[place as usize].own[side as usize];
            *own = own.saturating_add(node.self_wall_ns);
            places.push(place);
        }
    }

    /// The labels of the innermost `length` frames of a node's stack, outermost first.
    pub fn path(&self, at: usize, length: usize) -> impl Iterator<Item = &str> {
        let mut labels = Vec::new();
        let mut next = Some(at as u32);
        while let Some(at) = next.filter(|_| labels.len() < length) {
            let node = self.nodes[at as usize];
            labels.push(node.label);
            next = node.parent;
        }
        labels
            .into_iter()
            .rev()
            .map(|label| self.labels[label as usize].as_str())
    }

    fn label(&mut self, text: String) -> u32 {
        let next = self.labels.len() as u32;
        *self.label_ids.entry(text).or_insert_with_key(|text| {
            self.labels.push(text.clone());
            next
        })
    }

    fn node(&mut self, parent: Option<u32>, label: u32) -> u32 {
        let depth = match parent {
            None => 0,
            Some(parent) => {
                let below = self.nodes[parent as usize];
                if self.fold_recursion && below.label == label {
                    return parent;
                }
                if self.max_depth.is_some_and(|max| below.depth + 1 >= max) {
                    self.was_cut = true;
                    return parent;
                }
                below.depth + 1
            }
        };
        let next = self.nodes.len() as u32;
        *self.node_ids.entry((parent, label)).or_insert_with(|| {
            self.nodes.push(StackNode {
                parent,
                label,
                depth,
                own: [0; 2],
            });
            next
        })
    }
}

/// `name (file:line)`, or the name alone where there is no file.
fn frame_text(tables: &Tables, function: FunctionId, options: &ExportOptions) -> String {
    let parts = tables.get_function(function);
    let name = clean(tables.shown_name(function, options.qualnames));
    let file = tables.text(parts.file);
    let file = clean(if options.strip_dirs {
        base_name(file)
    } else {
        file
    });
    if file.is_empty() || parts.kind == FunctionKind::Builtin {
        guard(name)
    } else if parts.line == 0 {
        guard(format!("{name} ({file})"))
    } else {
        guard(format!("{name} ({file}:{})", parts.line))
    }
}

/// Brackets keep a thread's number from being read as a file.
fn group_text(label: &str) -> String {
    format!("[{}]", clean(label))
}

/// The part of a path behind its last folder.
pub(super) fn base_name(path: &str) -> &str {
    path.rsplit(['/', '\\']).next().unwrap_or(path)
}

/// Text without what would end a frame or a line, or what XML 1.0 forbids; cut when it is very long.
fn clean(text: &str) -> String {
    let cut = text
        .char_indices()
        .nth(MAX_TEXT_CHARS)
        .map(|(end, _)| &text[..end]);
    let text = units::printable(cut.unwrap_or(text));
    let mut text = text
        .trim()
        .replace(';', ",")
        .replace(['\u{fffe}', '\u{ffff}'], "\u{fffd}");
    if cut.is_some() {
        text.push('…');
    }
    text
}

/// Readers skip lines that begin with `# `, and take a last word that is a number for a second weight.
fn guard(text: String) -> String {
    if text.is_empty() {
        return "<unnamed>".to_string();
    }
    let text = match text.strip_prefix("# ") {
        Some(rest) => format!("#_{rest}"),
        None => text,
    };
    match text.rsplit_once(char::is_whitespace) {
        Some((head, last)) if last.bytes().all(|b| b.is_ascii_digit() || b == b'.') => {
            format!("{head}_{last}")
        }
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_would_be_misread_are_guarded() {
        assert_eq!(guard(clean("a;b\n")), "a,b\\n");
        assert_eq!(guard(clean("foo 12")), "foo_12");
        assert_eq!(guard(clean("# foo")), "#_foo");
        assert_eq!(guard(clean("  ")), "<unnamed>");
        assert_eq!(
            clean(&"x".repeat(1_000_000)).chars().count(),
            MAX_TEXT_CHARS + 1
        );
    }
}
