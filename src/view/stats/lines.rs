//! Cost by source line, of each function that is asked for: where in a function its time goes.
//!
//! The source text is read by the caller; a line that the file no longer has is shown without text.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

use regex::Regex;
use rustc_hash::FxHashMap;

use super::restriction::compile;
use super::rows;
use crate::error::{Error, ErrorKind, Result};
use crate::profile::aggregate::seconds;
use crate::profile::{CallTree, Filter, FunctionId, FunctionKind, Profile, Tables};
use crate::units::printable;

/// Which functions are shown.
#[derive(Debug, Clone, Default)]
pub struct LineOptions {
    /// A function's name; else part of the name as printed (`file:line(name)`), or a regular expression for
    /// it. `None` for all that have lines.
    pub function: Option<String>,
    /// File names without folders in the headings.
    pub strip_dirs: bool,
    /// Qualified names in the headings, where they are known.
    pub qualnames: bool,
}

/// Prints the costs by line, functions with the most own time first. `source` gives the lines of a file,
/// or `None` when there is no such file. Fails when the profile has no stacks, and when no function has
/// the name.
pub fn write_lines(
    profile: &Profile,
    filter: &Filter,
    options: &LineOptions,
    source: &mut dyn FnMut(&str) -> Option<Arc<Vec<String>>>,
    out: &mut dyn Write,
) -> Result<()> {
    let (tree, estimated) = profile.tree(filter);
    if estimated {
        return Err(Error::new(
            ErrorKind::NotAvailable,
            "cannot show lines",
            "the profile counts functions and knows no lines",
        )
        .hint("record samples instead: biopsy run -o FILE.biopsy -- COMMAND"));
    }
    let costs = costs(&tree, &profile.tables);
    let whole_ns = tree.total_wall_ns();
    let chosen = choose(&costs, &profile.tables, options)?;
    let out = &mut io::BufWriter::new(out);
    for function in chosen {
        let heading = rows::name(
            &profile.tables,
            function,
            options.strip_dirs,
            options.qualnames,
        );
        let Some(cost) = costs.get(&function) else {
            continue;
        };
        let text = match profile.tables.get_function(function).kind {
            FunctionKind::Builtin => None,
            _ => source(profile.tables.file(function)),
        };
        write_function(&heading, cost, whole_ns, text.as_deref(), out)
            .map_err(|error| Error::write("the lines", &error))?;
    }
    out.flush()
        .map_err(|error| Error::write("the lines", &error))
}

/// Times in nanoseconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    /// Of the function or line itself.
    pub own_ns: u64,
    /// With all that it called.
    pub total_ns: u64,
}

#[derive(Debug, Default)]
struct FunctionCost {
    whole: Cost,
    lines: BTreeMap<u32, Cost>,
}

/// A function or line that is on the stack several times counts the time once.
fn costs(tree: &CallTree, tables: &Tables) -> FxHashMap<FunctionId, FunctionCost> {
    let mut costs: FxHashMap<FunctionId, FunctionCost> = FxHashMap::default();
    let open_functions = std::cell::RefCell::new(FxHashMap::<FunctionId, u32>::default());
    let open_lines = std::cell::RefCell::new(FxHashMap::<(FunctionId, u32), u32>::default());
    tree.walk(
        |at| {
            let node = &tree.nodes[at as usize];
            let frame = tables.get_frame(node.frame);
            let cost = costs.entry(frame.function).or_default();
            let line = cost.lines.entry(frame.line).or_default();
            line.own_ns += node.self_wall_ns;
            cost.whole.own_ns += node.self_wall_ns;
            let mut open_lines = open_lines.borrow_mut();
            let open = open_lines.entry((frame.function, frame.line)).or_default();
            if *open == 0 {
                line.total_ns += node.total_wall_ns;
            }
            *open += 1;
            let mut open_functions = open_functions.borrow_mut();
            let open = open_functions.entry(frame.function).or_default();
            if *open == 0 {
                cost.whole.total_ns += node.total_wall_ns;
            }
            *open += 1;
        },
        |at| {
            let frame = tables.get_frame(tree.nodes[at as usize].frame);
            if let Some(open) = open_lines
                .borrow_mut()
                .get_mut(&(frame.function, frame.line))
            {
                *open -= 1;
            }
            if let Some(open) = open_functions.borrow_mut().get_mut(&frame.function) {
                *open -= 1;
            }
        },
    );
    costs
}

/// The cost of each line of one function; line 0 stands for what is not known.
pub fn line_costs(tree: &CallTree, tables: &Tables, function: FunctionId) -> BTreeMap<u32, Cost> {
    let found = costs(tree, tables).remove(&function);
    found.map(|cost| cost.lines).unwrap_or_default()
}

fn choose(
    costs: &FxHashMap<FunctionId, FunctionCost>,
    tables: &Tables,
    options: &LineOptions,
) -> Result<Vec<FunctionId>> {
    let regex: Option<Regex> = options
        .function
        .as_ref()
        .and_then(|text| compile(text).ok());
    // A whole name means that function, even where it is part of other names and of paths.
    let whole_name = |text: &str| {
        costs
            .keys()
            .any(|function| is_name(tables, *function, text))
    };
    let is_whole_name = options.function.as_deref().is_some_and(whole_name);
    let wanted = |function: FunctionId, cost: &FunctionCost| match &options.function {
        // C functions have no lines.
        None => cost.lines.keys().any(|line| *line > 0),
        Some(text) if is_whole_name => is_name(tables, function, text),
        Some(text) => {
            let name = rows::name(tables, function, false, false);
            name.contains(text.as_str()) || regex.as_ref().is_some_and(|r| r.is_match(&name))
        }
    };
    let mut chosen: Vec<(FunctionId, Cost)> = costs
        .iter()
        .filter(|(function, cost)| cost.whole.total_ns > 0 && wanted(**function, cost))
        .map(|(function, cost)| (*function, cost.whole))
        .collect();
    chosen.sort_by_key(|(function, cost)| {
        (
            std::cmp::Reverse((cost.own_ns, cost.total_ns)),
            // The map has no order of its own.
            (
                tables.file(*function),
                tables.line(*function),
                tables.name(*function),
                *function,
            ),
        )
    });
    match (&options.function, chosen.is_empty()) {
        (Some(pattern), true) => Err(Error::new(
            ErrorKind::Failed,
            format!("no lines of '{}'", printable(pattern)),
            "no function with that name has any time",
        )),
        _ => Ok(chosen.into_iter().map(|(function, _)| function).collect()),
    }
}

fn is_name(tables: &Tables, function: FunctionId, text: &str) -> bool {
    tables.name(function) == text || tables.qualname(function) == Some(text)
}

fn write_function(
    heading: &str,
    cost: &FunctionCost,
    whole_ns: u64,
    source: Option<&Vec<String>>,
    out: &mut dyn Write,
) -> io::Result<()> {
    writeln!(
        out,
        "{}: {:.3} s, {:.3} s of it its own{}",
        printable(heading),
        seconds(cost.whole.total_ns),
        seconds(cost.whole.own_ns),
        if source.is_none() { " (no source)" } else { "" }
    )?;
    let text_title = if source.is_some() { " | source" } else { "" };
    writeln!(
        out,
        "    line    self s      %     cum s      %{text_title}"
    )?;
    let texts: Vec<String> = cost
        .lines
        .keys()
        .map(|line| {
            let at = (*line as usize).checked_sub(1);
            at.and_then(|at| source?.get(at))
                .map(|text| shown(text))
                .unwrap_or_default()
        })
        .collect();
    let indent = texts
        .iter()
        .filter(|text| !text.is_empty())
        .map(|text| text.len() - text.trim_start_matches(' ').len())
        .min()
        .unwrap_or(0);
    for ((line, at_line), text) in cost.lines.iter().zip(&texts) {
        // Line 0: it is not known which.
        let number = if *line == 0 {
            "-".to_string()
        } else {
            line.to_string()
        };
        let row = format!(
            "{number:>8} {} {}",
            columns(at_line.own_ns, whole_ns),
            columns(at_line.total_ns, whole_ns),
        );
        let text = text.get(indent..).unwrap_or_default();
        let bar = if source.is_some() { " | " } else { "" };
        writeln!(out, "{}", format!("{row}{bar}{text}").trim_end())?;
    }
    writeln!(out)
}

/// Seconds and the share of the whole profile; nothing is shown as a dot, so that the eye finds the rest.
fn columns(ns: u64, whole_ns: u64) -> String {
    if ns == 0 {
        return format!("{:>9} {:>6}", ".", "");
    }
    let share = ns as f64 * 100.0 / whole_ns.max(1) as f64;
    format!("{:>9.3} {share:>5.1}%", seconds(ns))
}

/// A source line with tabs as wide as Python takes them and nothing at its end.
pub fn shown(text: &str) -> String {
    let mut expanded = String::with_capacity(text.len());
    for c in text.trim_end().chars() {
        if c == '\t' {
            let width = 8 - expanded.chars().count() % 8;
            expanded.extend(std::iter::repeat_n(' ', width));
        } else {
            expanded.push(c);
        }
    }
    printable(&expanded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::record::Sample;
    use crate::profile::{ProcessId, Recorder, RunState, ThreadInfo};

    /// Stacks outermost first, `name:line`, with milliseconds.
    fn profile(samples: &[(&str, u64)]) -> Profile {
        let mut recorder = Recorder::default();
        recorder.profile.processes.push(Default::default());
        let thread = recorder.add_thread(ThreadInfo {
            process: ProcessId(0),
            os_id: 1,
            python_id: 1,
            name: None,
            started_us: 0,
        });
        for (text, ms) in samples {
            let tables = &mut recorder.profile.tables;
            let mut stack = None;
            for part in text.split(' ') {
                let (name, line) = part.split_once(':').expect("name:line");
                let function = match name {
                    "sleep" => tables.function("~", 0, "<built-in sleep>", FunctionKind::Builtin),
                    _ => tables.function("/x/a.py", 1, name, FunctionKind::Python),
                };
                let frame = tables.frame(function, line.parse().expect("line"));
                stack = Some(tables.stack(stack, frame));
            }
            recorder.add(Sample {
                thread,
                stack: stack.expect("not empty"),
                count: 1,
                wall_us: ms * 1000,
                cpu_us: 0,
                fresh_from: None,
                state: RunState::default(),
            });
        }
        recorder.profile
    }

    fn lines(profile: &Profile, function: Option<&str>, source: Option<&str>) -> String {
        let mut out = Vec::new();
        let options = LineOptions {
            function: function.map(str::to_string),
            strip_dirs: true,
            qualnames: false,
        };
        let text =
            source.map(|text| Arc::new(text.lines().map(str::to_string).collect::<Vec<_>>()));
        match write_lines(
            profile,
            &Filter::default(),
            &options,
            &mut |_| text.clone(),
            &mut out,
        ) {
            Ok(()) => String::from_utf8(out).expect("text"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn recursion_counts_a_line_once() {
        let profile = profile(&[
            ("main:4 f:2", 500),
            ("main:4 f:2 f:2", 250),
            ("main:4 f:2 f:3 sleep:0", 250),
        ]);
        let source = "def f():\n\tf()\n\tsleep()\nf()\n";
        assert_eq!(
            lines(&profile, None, Some(source)),
            "\
a.py:1(f): 1.000 s, 0.750 s of it its own
    line    self s      %     cum s      % | source
       2     0.750  75.0%     1.000 100.0% | f()
       3         .            0.250  25.0% | sleep()

a.py:1(main): 1.000 s, 0.000 s of it its own
    line    self s      %     cum s      % | source
       4         .            1.000 100.0% | f()

"
        );
        assert_eq!(
            lines(&profile, Some("built-in"), None),
            "\
{built-in sleep}: 0.250 s, 0.250 s of it its own (no source)
    line    self s      %     cum s      %
       -     0.250  25.0%     0.250  25.0%

"
        );
        assert!(lines(&profile, Some(r"\(f\)$"), None).starts_with("a.py:1(f)"));
        assert!(lines(&profile, Some("(nothing"), None).contains("no lines of"));
    }

    #[test]
    fn deep_stacks_and_short_files_are_no_matter() {
        let stack = vec!["f:7"; 20_000].join(" ");
        let text = lines(&profile(&[(&stack, 10)]), None, Some("only\none"));
        assert_eq!(text.lines().count(), 4, "{text}");
    }
}
