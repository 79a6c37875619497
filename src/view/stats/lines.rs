//! The table of line_profiler: function by function, how often each line was hit and what it took.
//!
//! Spec: `show_text` and `show_func` of line_profiler 5.1. Where we differ: functions with the most time come first,
//! control characters are escaped, hits that were not counted are left empty or are a lower bound (`>=23`, without a
//! time per hit), and of a module's own code only lines with numbers are shown. The source text is read by the caller.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

use regex::Regex;

use super::block;
use super::restriction::{Restriction, compile};
use super::rows;
use crate::error::{Error, ErrorKind, Result};
use crate::glob;
use crate::profile::{
    Filter, FunctionId, Hits, LineRow, LineTable, LineTables, Origin, Profile, Tables,
};
use crate::units::printable;

/// Seconds in a unit of the times that are shown, as `python -m line_profiler` has it.
const UNIT: f64 = 1e-6;

/// Letters of a source line that are shown.
const MOST_LETTERS: usize = 1000;

/// Most lines of a function that are shown when they have no numbers.
const MOST_LINES: usize = 5000;

/// Widths of the columns `Hits`, `Time` and `Per Hit`, which grow with what is in them.
const WIDTHS: [usize; 3] = [9, 12, 8];

/// What of the functions that were chosen is shown, and how.
#[derive(Debug, Clone, Default)]
pub struct LineOptions {
    /// Applied one after the other to the functions.
    pub restrictions: Vec<Restriction>,
    /// File names without folders.
    pub strip_dirs: bool,
}

/// The text of a file.
#[derive(Debug, Clone)]
pub struct SourceText {
    /// Its lines.
    pub lines: Arc<Vec<String>>,
    /// Whether it is the text of the code that ran, as far as that is known.
    pub is_same: bool,
}

/// Source files; `None` for a file that is not there.
pub type Sources<'a> = dyn FnMut(&str) -> Option<SourceText> + 'a;

/// The lines of functions that are meant.
#[derive(Debug, Clone)]
pub struct ChosenLines {
    found: LineTables,
    /// Positions of tables, those with the most time first.
    list: Vec<usize>,
}

impl ChosenLines {
    /// The functions.
    pub fn functions(&self) -> Vec<FunctionId> {
        self.tables().map(|table| table.function).collect()
    }

    fn tables(&self) -> impl Iterator<Item = &LineTable> {
        self.list.iter().filter_map(|at| self.found.tables.get(*at))
    }
}

/// The functions that `words` mean: a name, the end of `module.qualname`, a glob over that, `file.py:LINE`; else part of the name
/// as printed (`file:line(name)`), or a regular expression for it. No word means all. Fails when the profile knows no lines, and when no
/// function has one of the names.
pub fn choose_lines(
    profile: &Profile,
    filter: &Filter,
    words: &[String],
    sources: &mut Sources<'_>,
) -> Result<ChosenLines> {
    let Some(found) = profile.line_tables(filter) else {
        return Err(Error::new(
            ErrorKind::NotAvailable,
            "cannot show lines",
            "the profile counts functions and knows no lines",
        )
        .hint("record samples instead: biopsy run -o FILE.biopsy -- COMMAND"));
    };
    let mut list = choose(&found.tables, &profile.tables, words, sources)?;
    if words.is_empty() && profile.lines.is_some() {
        list.retain(|at| found.tables.get(*at).is_some_and(|table| table.counted));
    }
    Ok(ChosenLines { found, list })
}

/// Prints the tables of the functions that were chosen, those with the most time first.
pub fn write_lines(
    profile: &Profile,
    chosen: &ChosenLines,
    options: &LineOptions,
    sources: &mut Sources<'_>,
    out: &mut dyn Write,
) -> Result<()> {
    let ChosenLines { found, list } = chosen;
    let mut list = list.clone();
    let tables = &profile.tables;
    let timed = profile.meta.samples > 0 || profile.meta.origin != Origin::Sampled;
    let names: Vec<String> = found
        .tables
        .iter()
        .map(|table| rows::name(tables, table.function, options.strip_dirs, false))
        .collect();
    for restriction in &options.restrictions {
        restriction.apply(&mut list, |at| names.get(at).map_or("", String::as_str));
    }
    let out = &mut io::BufWriter::new(out);
    let mut write = || {
        write!(out, "Timer unit: {} s\n\n", general(UNIT, 6))?;
        for table in list.iter().filter_map(|at| found.tables.get(*at)) {
            let text = sources(tables.file(table.function));
            let head = Head {
                file: match options.strip_dirs {
                    true => tables.file(table.function).rsplit('/').next().unwrap_or(""),
                    false => tables.file(table.function),
                },
                // As line_profiler 5 has it, where it is known.
                name: tables.shown_name(table.function, true),
                plain: tables.name(table.function),
                first: tables.line(table.function),
                unit: found.unit,
                timed,
            };
            write_function(&head, table, text.as_ref(), out)?;
        }
        out.flush()
    };
    write().map_err(|error| Error::write("the lines", &error))
}

/// Positions of the tables that are meant, in order.
fn choose(
    found: &[LineTable],
    tables: &Tables,
    words: &[String],
    sources: &mut Sources<'_>,
) -> Result<Vec<usize>> {
    if words.is_empty() {
        return Ok((0..found.len()).collect());
    }
    let mut wanted = vec![false; found.len()];
    for word in words {
        let mut one = meant(found, tables, word, sources);
        if one.is_empty() {
            let regex: Option<Regex> = compile(word).ok();
            one = (0..found.len())
                .filter(|at| {
                    let name = rows::name(tables, found[*at].function, false, false);
                    name.contains(word.as_str())
                        || regex.as_ref().is_some_and(|r| r.is_match(&name))
                })
                .collect();
        }
        if one.is_empty() {
            return Err(Error::new(
                ErrorKind::Failed,
                format!("no lines of '{}'", printable(word)),
                "no function with that name has any time",
            ));
        }
        one.into_iter().for_each(|at| wanted[at] = true);
    }
    Ok((0..found.len()).filter(|at| wanted[*at]).collect())
}

/// Those whose name is `word`, exactly or as `biopsy calls` takes it.
fn meant(
    found: &[LineTable],
    tables: &Tables,
    word: &str,
    sources: &mut Sources<'_>,
) -> Vec<usize> {
    let all = || found.iter().enumerate();
    // A whole name means that function, even where it is part of other names and of paths.
    let is_name =
        |function| tables.name(function) == word || tables.qualname(function) == Some(word);
    let exact: Vec<usize> = all()
        .filter(|(_, table)| is_name(table.function))
        .map(|(at, _)| at)
        .collect();
    if !exact.is_empty() {
        return exact;
    }
    if let Some((file, line)) = word.rsplit_once(':')
        && let Ok(line) = line.parse::<u32>()
    {
        return at_line(found, tables, file, line, sources);
    }
    let plain = word.strip_prefix("__main__.").unwrap_or(word);
    let ending = format!("*.{plain}");
    all()
        .filter(|(_, table)| !is_body(tables.name(table.function)))
        .filter(|(_, table)| {
            let full = full_name(tables, table.function);
            glob::matches(plain, &full) || glob::matches(&ending, &full)
        })
        .map(|(at, _)| at)
        .collect()
}

/// `srv.app.views.View.get` of `/srv/app/views.py`: which of its folders are packages is not known.
fn full_name(tables: &Tables, function: FunctionId) -> String {
    let file = tables.file(function);
    let file = file.strip_suffix(".py").unwrap_or(file);
    let file = file.strip_suffix("/__init__").unwrap_or(file);
    let name = tables
        .qualname(function)
        .unwrap_or_else(|| tables.name(function));
    format!("{}.{name}", file.trim_start_matches('/').replace('/', "."))
}

/// The innermost functions that have that line.
fn at_line(
    found: &[LineTable],
    tables: &Tables,
    file: &str,
    line: u32,
    sources: &mut Sources<'_>,
) -> Vec<usize> {
    let is_file = |own: &str| {
        own.strip_suffix(file).is_some_and(|before| {
            before.is_empty() || before.ends_with('/') || file.starts_with('/')
        })
    };
    let mut inside: Vec<(u32, u32, usize)> = Vec::new();
    for (at, table) in found.iter().enumerate() {
        let own = tables.file(table.function);
        let first = tables.line(table.function);
        if !is_file(own) || first > line || tables.name(table.function).starts_with('<') {
            continue;
        }
        let seen = table.rows.last().map_or(first, |row| row.line);
        let text = sources(own);
        let end = text.map_or(0, |text| block::end(&text.lines, first as usize));
        let last = seen.max(u32::try_from(end).unwrap_or(u32::MAX));
        if line <= last {
            inside.push((last - first.min(last), first, at));
        }
    }
    let least = inside.iter().map(|(span, ..)| *span).min();
    inside.retain(|(span, ..)| Some(*span) == least);
    let first = inside.iter().map(|(_, first, _)| *first).max();
    inside.retain(|(_, of, _)| Some(*of) == first);
    inside.into_iter().map(|(.., at)| at).collect()
}

/// Whether it is the code of a module, which has all functions between its lines.
fn is_body(name: &str) -> bool {
    name == "<module>"
}

struct Head<'a> {
    file: &'a str,
    name: &'a str,
    /// Without its class.
    plain: &'a str,
    first: u32,
    unit: f64,
    /// Whether there are any times.
    timed: bool,
}

/// The columns of a line: `Hits`, `Time`, `Per Hit`, `% Time`.
type Columns = [String; 4];

fn write_function(
    head: &Head<'_>,
    table: &LineTable,
    text: Option<&SourceText>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let source = text.map(|text| text.lines.as_slice());
    let total = table.total();
    match head.timed {
        true => writeln!(out, "Total time: {} s", general(total * head.unit, 6))?,
        false => writeln!(out, "Total time: unknown")?,
    }
    let missing = if source.is_none() { " (no source)" } else { "" };
    writeln!(out, "File: {}{missing}", printable(head.file))?;
    writeln!(
        out,
        "Function: {} at line {}\n",
        printable(head.name),
        head.first
    )?;
    let line_text = |line: u32| -> &str {
        let at = (line as usize).checked_sub(1);
        at.and_then(|at| source?.get(at)).map_or("", String::as_str)
    };
    let lines = shown_lines(head, table, source);
    // New calls are seen where it is no generator or coroutine, which only the text tells.
    let is_all = |lines: &[String]| {
        table
            .rows
            .iter()
            .all(|row| row.line as usize <= lines.len())
    };
    // Where hits are counted, a line without any has none to tell.
    let tells_hits = !table.counted
        && text.is_some_and(|text| text.is_same && is_all(&text.lines))
        && head.plain != "<genexpr>"
        && !lines.iter().any(|(line, _)| may_resume(line_text(*line)));
    let cells: Vec<(u32, Columns)> = lines
        .into_iter()
        .map(|(line, row)| {
            let cells = row.map(|row| columns(row, total, tells_hits, head));
            (line, cells.unwrap_or_default())
        })
        .collect();
    let mut widths = WIDTHS;
    for (at, width) in widths.iter_mut().enumerate() {
        let lengths = cells.iter().filter_map(|(_, cells)| cells.get(at));
        *width = lengths.map(String::len).fold(*width, usize::max);
    }
    let [hits, time, per_hit] = widths;
    let line_of = |number: &str, cells: &Columns, text: &str| {
        let [a, b, c, d] = cells;
        format!("{number:>6} {a:>hits$} {b:>time$} {c:>per_hit$} {d:>8}  {text}")
    };
    let titles = ["Hits", "Time", "Per Hit", "% Time"].map(str::to_string);
    let heading = line_of("Line #", &titles, "Line Contents");
    writeln!(out, "{heading}\n{}", "=".repeat(heading.len()))?;
    for (line, cells) in &cells {
        // Line 0: it is not known which.
        let number = match line {
            0 => "-".to_string(),
            line => line.to_string(),
        };
        let cut: String = line_text(*line).chars().take(MOST_LETTERS).collect();
        writeln!(out, "{}", line_of(&number, cells, &shown(&cut)).trim_end())?;
    }
    writeln!(out)
}

/// The lines to print: those with numbers, and all others of the function where there is a source.
fn shown_lines<'a>(
    head: &Head<'_>,
    table: &'a LineTable,
    source: Option<&[String]>,
) -> Vec<(u32, Option<&'a LineRow>)> {
    let mut lines: BTreeMap<u32, Option<&LineRow>> = BTreeMap::new();
    if let Some(source) = source.filter(|_| !is_body(head.plain)) {
        let last = table.rows.last().map_or(0, |row| row.line as usize);
        let end = block::end(source, head.first as usize).max(last);
        let end = end
            .min(source.len())
            .min((head.first as usize).saturating_add(MOST_LINES));
        let lines_of = head.first..=u32::try_from(end).unwrap_or(u32::MAX);
        lines.extend(lines_of.map(|line| (line, None)));
    }
    lines.extend(table.rows.iter().map(|row| (row.line, Some(row))));
    lines.into_iter().collect()
}

/// Whether a line may make its function one that is left and taken up again.
fn may_resume(text: &str) -> bool {
    ["yield", "await", "async"]
        .iter()
        .any(|word| text.contains(word))
}

fn columns(row: &LineRow, total: f64, tells_hits: bool, head: &Head<'_>) -> Columns {
    let shown = row.time * (head.unit / UNIT);
    let share = match total > 0.0 {
        true => format!("{:.1}", 100.0 * row.time / total),
        false => String::new(),
    };
    let per_hit = match row.hits {
        Some(Hits::Counted(hits)) if hits > 0 => narrow(shown / hits as f64, WIDTHS[2]),
        _ => String::new(),
    };
    let hits = match row.hits {
        Some(Hits::Counted(hits)) => count(hits),
        Some(Hits::AtLeast(hits)) => format!(">={}", count(hits)),
        // That a line with time was hit once goes without saying.
        None if tells_hits && row.seen > 1 => format!(">={}", count(row.seen)),
        None => String::new(),
    };
    match head.timed {
        true => [hits, narrow(shown, WIDTHS[1]), per_hit, share],
        false => [hits, String::new(), String::new(), String::new()],
    }
}

fn count(hits: u64) -> String {
    let text = hits.to_string();
    match text.len() > WIDTHS[0] {
        true => general(hits as f64, 6),
        false => text,
    }
}

/// Python's `'%5.1f'`, or `'%5.3g'` where that is wider than its column.
fn narrow(value: f64, width: usize) -> String {
    let text = format!("{value:.1}");
    match text.len() > width {
        true => general(value, 3),
        false => text,
    }
}

/// Python's `'%.Ng'`.
fn general(value: f64, digits: usize) -> String {
    if value == 0.0 || !value.is_finite() {
        return format!("{value}").to_lowercase();
    }
    let scientific = format!("{value:.*e}", digits.saturating_sub(1));
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trimmed = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => text.to_string(),
    };
    if exponent < -4 || exponent >= digits as i32 {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", trimmed(mantissa), exponent.abs());
    }
    let decimals = (digits as i32 - 1 - exponent).max(0) as usize;
    trimmed(&format!("{value:.decimals$}"))
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
    use crate::profile::{
        FunctionKind, LineCount, LineCounts, ProcessId, Recorder, RunState, ThreadInfo,
    };

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
                    "f" => tables.function("/x/a.py", 1, name, FunctionKind::Python),
                    _ => tables.function("/x/a.py", 5, name, FunctionKind::Python),
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
                fresh_from: Some(1),
                state: RunState::default(),
            });
        }
        recorder.profile.meta.samples = samples.len() as u64;
        recorder.profile
    }

    fn lines(profile: &Profile, functions: &[&str], source: Option<&str>) -> String {
        let mut out = Vec::new();
        let words: Vec<String> = functions.iter().map(|word| word.to_string()).collect();
        let options = LineOptions {
            strip_dirs: true,
            ..LineOptions::default()
        };
        let text =
            source.map(|text| Arc::new(text.lines().map(str::to_string).collect::<Vec<_>>()));
        let mut sources = |_: &str| {
            let lines = text.clone()?;
            Some(SourceText {
                lines,
                is_same: true,
            })
        };
        let written = choose_lines(profile, &Filter::default(), &words, &mut sources)
            .and_then(|chosen| write_lines(profile, &chosen, &options, &mut sources, &mut out));
        match written {
            Ok(()) => String::from_utf8(out).expect("text"),
            Err(error) => error.to_string(),
        }
    }

    const SOURCE: &str =
        "def f():\n\tif x: f()\n\tsleep()\n\ndef main():\n    f()\n# end\nmain()\n";

    #[test]
    fn recursion_counts_the_innermost_line() {
        let profile = profile(&[
            ("main:6 f:2", 500),
            ("main:6 f:2 f:2", 250),
            ("main:6 f:2 f:3 sleep:0", 250),
        ]);
        assert_eq!(
            lines(&profile, &[], Some(SOURCE)),
            "\
Timer unit: 1e-06 s

Total time: 1 s
File: a.py
Function: f at line 1

Line #      Hits         Time  Per Hit   % Time  Line Contents
==============================================================
     1                                           def f():
     2       >=4     750000.0              75.0          if x: f()
     3               250000.0              25.0          sleep()

Total time: 1 s
File: a.py
Function: main at line 5

Line #      Hits         Time  Per Hit   % Time  Line Contents
==============================================================
     5                                           def main():
     6              1000000.0             100.0      f()

"
        );
        for (word, functions) in [
            ("f", "f"),
            ("a.f", "f"),
            ("__main__.f", "f"),
            ("x.a.*", "f main"),
            ("a.py:3", "f"),
            ("/x/a.py:6", "main"),
            ("*.m?in", "main"),
            (r"\(f\)$", "f"),
        ] {
            let text = lines(&profile, &[word], Some(SOURCE));
            let found: Vec<&str> = text
                .lines()
                .filter_map(|line| line.strip_prefix("Function: ")?.split(' ').next())
                .collect();
            assert_eq!(found.join(" "), functions, "{word}: {text}");
        }
        for word in ["(nothing", "a.py:7", "b.py:1", "x.f"] {
            assert!(
                lines(&profile, &[word], Some(SOURCE)).contains("no lines of"),
                "{word}"
            );
        }
    }

    #[test]
    fn hits_that_were_counted_have_a_time_each() {
        let mut profile = profile(&[("main:6 f:2", 500), ("main:6 f:3", 250)]);
        let function = profile
            .tables
            .function("/x/a.py", 1, "f", FunctionKind::Python);
        let count = |line, hits| LineCount {
            line,
            hits,
            time: 0.0,
            at_least: false,
        };
        profile.lines = Some(LineCounts {
            unit: 1e-6,
            at_least: false,
            functions: vec![(function, vec![count(2, 4), count(3, 12_345_678_901)])],
        });
        let text = lines(&profile, &["f"], Some(SOURCE));
        let row = |text: &str, number: &str| {
            let row = text
                .lines()
                .find(|row| row.trim_start().starts_with(number));
            row.map(|row| row.split_whitespace().take(5).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(
            row(&text, "2 ").as_deref(),
            Some("2 4 500000.0 125000.0 66.7"),
            "{text}"
        );
        assert_eq!(
            row(&text, "3 ").as_deref(),
            Some("3 1.23457e+10 250000.0 0.0 33.3"),
            "{text}"
        );
        if let Some(counts) = &mut profile.lines {
            counts.at_least = true;
        }
        let text = lines(&profile, &["f"], None);
        assert_eq!(
            row(&text, "2 ").as_deref(),
            Some("2 >=4 500000.0 66.7"),
            "{text}"
        );
        assert!(text.contains("File: a.py (no source)\n"), "{text}");
    }

    #[test]
    fn deep_stacks_and_short_files_are_no_matter() {
        let stack = vec!["f:7"; 20_000].join(" ");
        let text = lines(&profile(&[(&stack, 10)]), &[], Some("only\none"));
        assert_eq!(text.lines().count(), 12, "{text}");
        assert!(!text.contains(">="), "{text}");
    }

    #[test]
    fn numbers_are_as_python_prints_them() {
        for (value, digits, text) in [
            (0.0, 6, "0"),
            (1e-6, 6, "1e-06"),
            (1e-9, 6, "1e-09"),
            (0.007899, 6, "0.007899"),
            (123_456.7, 6, "123457"),
            (1_234_567.0, 6, "1.23457e+06"),
            (0.0001, 6, "0.0001"),
            (1_170_000.0, 3, "1.17e+06"),
            (999_999.9, 6, "1e+06"),
            (5.0, 6, "5"),
            (f64::INFINITY, 6, "inf"),
        ] {
            assert_eq!(general(value, digits), text);
        }
    }
}
