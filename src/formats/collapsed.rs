//! Collapsed (folded) stacks: one line for each distinct stack, `outer (file:line);inner (file:line) 1234`.
//!
//! The number is wall time in microseconds, so that every reader draws true proportions; frames are
//! functions at their first line. There is no written standard: this is what flamegraph.pl
//! (<https://github.com/brendangregg/FlameGraph>), inferno and speedscope read, with frames in the form
//! of `py-spy record --format raw`. The importer reads those of all of them and Austin's
//! (`P1;T2;file:function:line 3`); the unit of their numbers is unknown, each 1 becomes one sample.

use std::io::{BufWriter, Write};

use rustc_hash::FxHashMap;

use super::{ExportOptions, Exporter, Importer, Loss, unsaid};
use crate::error::{Error, Result};
use crate::profile::{
    CallTree, FunctionId, FunctionKind, Meta, Origin, ProcessId, ProcessInfo, Profile, Run,
    RunState, StackId, Tables, ThreadId, ThreadInfo,
};
use crate::units;

/// Longer names are cut: a name may have a million characters and stands in every line.
const MAX_TEXT_CHARS: usize = 1000;
/// A weight fills several runs when it needs more than 32 bits; more of these in all than this are
/// refused, as a short file could ask for any amount of memory.
const MAX_EXTRA_RUNS: u64 = 1_000_000;

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
        let write = || -> std::io::Result<()> {
            let mut out = BufWriter::new(out);
            for (at, node) in stacks.nodes.iter().enumerate() {
                if node.own[0] > 0 {
                    for (depth, label) in stacks.path(at).enumerate() {
                        if depth > 0 {
                            out.write_all(b";")?;
                        }
                        out.write_all(label.as_bytes())?;
                    }
                    writeln!(out, " {}", node.own[0])?;
                }
            }
            out.flush()
        };
        write().map_err(|error| Error::write("collapsed stacks", &error))?;
        let mut losses = Vec::new();
        if estimated {
            losses.push("stacks are estimated from caller edges".to_string());
        }
        losses.extend(unsaid(profile));
        Ok(losses)
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
    /// Microseconds with exactly this stack, of each side.
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
                    let label = self.label(frame_text(tables, function, options.strip_dirs));
                    labels[function.index()] = Some(label);
                    label
                }
            };
            let parent = match node.parent {
                Some(parent) => Some(places[parent as usize]),
                None => groups[node.group as usize].map(|label| self.node(None, label)),
            };
            let place = self.node(parent, label);
            self.nodes[place as usize].own[side as usize] += node.self_wall_us;
            places.push(place);
        }
    }

    /// The labels of a node's stack, outermost first.
    pub fn path(&self, at: usize) -> impl Iterator<Item = &str> {
        let mut labels = Vec::with_capacity(self.nodes[at].depth as usize + 1);
        let mut next = Some(at as u32);
        while let Some(at) = next {
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
fn frame_text(tables: &Tables, function: FunctionId, strip_dirs: bool) -> String {
    let parts = tables.get_function(function);
    let name = clean(tables.text(parts.name));
    let file = tables.text(parts.file);
    let file = clean(if strip_dirs { base_name(file) } else { file });
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

impl Importer for Collapsed {
    fn recognises(&self, head: &[u8]) -> bool {
        // The last line may have been cut off.
        let whole = match head.iter().rposition(|&b| b == b'\n') {
            Some(end) => &head[..end],
            None => head,
        };
        if whole
            .iter()
            .any(|&b| b < b' ' && !matches!(b, b'\n' | b'\r' | b'\t'))
        {
            return false;
        }
        let mut lines = lines(whole)
            .filter(|(_, line)| !is_ignored(line))
            .take(100)
            .peekable();
        lines.peek().is_some() && lines.all(|(_, line)| parse_line(&line).is_some())
    }

    fn import(&self, data: &[u8]) -> Result<Profile> {
        let mut reader = Reader::default();
        for (offset, line) in lines(data).filter(|(_, line)| !is_ignored(line)) {
            let damaged = |why| Error::bad_file("cannot read collapsed stacks", offset, why);
            let (stack, weight) = parse_line(&line)
                .ok_or_else(|| damaged("a line does not end in a space and a number"))?;
            let stack = reader.stack(stack);
            reader
                .add(stack, weight)
                .ok_or_else(|| damaged("the numbers are too large"))?;
        }
        if reader.profile.tables.stacks().is_empty() {
            return Err(Error::bad_file(
                "cannot read collapsed stacks",
                0,
                "there are no stacks",
            ));
        }
        Ok(reader.finish())
    }
}

/// Lines with their offsets.
fn lines(data: &[u8]) -> impl Iterator<Item = (u64, std::borrow::Cow<'_, str>)> {
    let mut offset = 0;
    data.split(|&b| b == b'\n').map(move |line| {
        let start = offset;
        offset += line.len() as u64 + 1;
        (start, String::from_utf8_lossy(line))
    })
}

fn is_ignored(line: &str) -> bool {
    line.trim().is_empty() || line.starts_with("# ")
}

/// `a;b c;d 12` or `a;b c;d 12.7` to the stack and its weight.
fn parse_line(line: &str) -> Option<(&str, u64)> {
    let (stack, number) = line.trim_end().rsplit_once([' ', '\t'])?;
    let stack = stack.trim();
    let weight = match number.parse::<u64>() {
        Ok(weight) => weight,
        Err(_) => {
            let decimal = number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
            let number = number
                .parse::<f64>()
                .ok()
                .filter(|n| decimal && *n < 1e18)?;
            number.round() as u64
        }
    };
    (!stack.is_empty() && !number.starts_with('+')).then_some((stack, weight))
}

/// A frame's name, file and line.
///
/// ```text
/// work (app/jobs.py:12)       py-spy, biopsy
/// app/jobs.py:work:12         Austin
/// work                        all others
/// ```
fn parse_frame(text: &str) -> (&str, &str, u32) {
    if let Some(open) = opening_bracket(text) {
        let (name, inside) = (text[..open].trim_end(), &text[open + 1..text.len() - 1]);
        if !name.is_empty() && !inside.is_empty() {
            return match inside
                .rsplit_once(':')
                .map(|(file, line)| (file, line.parse()))
            {
                Some((file, Ok(line))) if !file.is_empty() => (name, file, line),
                _ => (name, inside, 0),
            };
        }
    }
    let mut parts = text.rsplitn(3, ':');
    if let (Some(line), Some(name), Some(file)) = (parts.next(), parts.next(), parts.next())
        && let Ok(line) = line.parse()
        && !name.is_empty()
        && (file.ends_with(".py") || file.starts_with(['/', '<']))
    {
        return (name, file, line);
    }
    (text, "", 0)
}

/// Where the bracket opens that the last character closes; a space stands before it.
fn opening_bracket(text: &str) -> Option<usize> {
    if !text.ends_with(')') {
        return None;
    }
    let mut open = 0usize;
    for (at, byte) in text.bytes().enumerate().rev() {
        match byte {
            b')' => open += 1,
            b'(' => open = open.saturating_sub(1),
            _ => continue,
        }
        if open == 0 {
            return text[..at].ends_with(' ').then_some(at);
        }
    }
    None
}

#[derive(Default)]
struct Reader {
    profile: Profile,
    total: u64,
    extra_runs: u64,
}

impl Reader {
    fn stack(&mut self, text: &str) -> Option<StackId> {
        let tables = &mut self.profile.tables;
        text.split(';').fold(None, |parent, frame| {
            let (name, file, line) = parse_frame(frame);
            // Only C functions have such names, and cProfile gives them this file.
            let builtin = file.is_empty()
                && (name.starts_with("<built-in ") || name.starts_with("<method '"));
            let function = if builtin {
                tables.function("~", 0, name, FunctionKind::Builtin)
            } else {
                tables.function(file, line, name, FunctionKind::Python)
            };
            let frame = tables.frame(function, line);
            Some(tables.stack(parent, frame))
        })
    }

    /// `None` when there is too much.
    fn add(&mut self, stack: Option<StackId>, weight: u64) -> Option<()> {
        let stack = stack?;
        self.total = self.total.checked_add(weight)?;
        let mut left = weight;
        while left > 0 {
            let part = u32::try_from(left).unwrap_or(u32::MAX);
            left -= u64::from(part);
            self.extra_runs += u64::from(left > 0);
            if self.extra_runs > MAX_EXTRA_RUNS {
                return None;
            }
            self.profile.runs.push(Run {
                thread: ThreadId(0),
                stack,
                wall_us: part,
                cpu_us: 0,
                count: part,
                fresh_from: u16::MAX,
                state: RunState::default(),
            });
        }
        Some(())
    }

    fn finish(mut self) -> Profile {
        self.profile.meta = Meta {
            origin: Origin::Collapsed,
            duration_us: self.total,
            samples: self.total,
            ..Meta::default()
        };
        self.profile.processes.push(ProcessInfo::default());
        self.profile.threads.push(ThreadInfo {
            process: ProcessId(0),
            os_id: 0,
            python_id: 0,
            name: None,
            started_us: 0,
        });
        self.profile
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_all_writers() {
        for (text, parts) in [
            ("work (app/jobs.py:12)", ("work", "app/jobs.py", 12)),
            ("work (jobs.py)", ("work", "jobs.py", 0)),
            ("f (/home/a (b)/x.py:3)", ("f", "/home/a (b)/x.py", 3)),
            ("/x/a.py:work:12", ("work", "/x/a.py", 12)),
            ("<frozen os>:walk:2", ("walk", "<frozen os>", 2)),
            ("std::vector:12", ("std::vector:12", "", 0)),
            ("operator()", ("operator()", "", 0)),
            ("f(int) (a.c:99999999999)", ("f(int)", "a.c:99999999999", 0)),
            ("(x)", ("(x)", "", 0)),
            (") (é)", (")", "é", 0)),
            ("", ("", "", 0)),
        ] {
            assert_eq!(parse_frame(text), parts, "{text}");
        }
    }

    #[test]
    fn heads_are_told_apart() {
        let yes = [
            "a;b 1\n",
            "a 1",
            "# x\na b;c 2.5\r\nd 3\nhalf a li",
            "P1;T2;a.py:f:3 4\n",
        ];
        let no = [
            "",
            "\n\n",
            "a;b\n",
            "{\"a\": 1}\n",
            "a 1\nb\nc",
            "a\x001 5\n",
            "version: 1\nevents: Ir\n",
        ];
        assert!(yes.iter().all(|head| Collapsed.recognises(head.as_bytes())));
        assert!(no.iter().all(|head| !Collapsed.recognises(head.as_bytes())));
    }

    #[test]
    fn damaged_lines_name_their_offset() {
        let error = Collapsed
            .import(b"a;b 1\nc;d\n")
            .expect_err("no number")
            .to_string();
        assert!(error.ends_with("(at byte 6)"), "{error}");
        assert!(Collapsed.import(b"").is_err());
        assert!(Collapsed.import(b"a 18446744073709551615\n").is_err());
    }

    #[test]
    fn large_weights_fill_several_runs() {
        let profile = Collapsed.import(b"a;b 10000000000\na 7\n").expect("import");
        assert_eq!(profile.runs.len(), 4);
        let total: u64 = profile.runs.iter().map(|run| u64::from(run.wall_us)).sum();
        assert_eq!(total, 10_000_000_007);
    }

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
