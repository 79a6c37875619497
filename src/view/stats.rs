//! cProfile's table: to the byte what `pstats.Stats(file).sort_stats(...).print_stats(...)`, and its
//! `print_callers` and `print_callees`, print below the line with the file's name.
//!
//! Spec: `Lib/pstats.py` of CPython 3.7 to 3.15, which print the same (3.6 has the sort key `file` too;
//! 3.15 prints other headings for files of its own sampling profiler). Where we differ: control characters
//! in names are escaped, names are padded to at most [`MAX_PADDING`], and a number of calls that is a lower
//! bound is marked (`>=23`) and has no time per call, since that would be an upper bound that looks like a mean.

mod block;
mod lines;
mod restriction;
pub mod rows;
mod sort;

use std::io::{self, Write};

pub use self::lines::{
    ChosenLines, LineOptions, SourceText, choose_lines, shown as source_text, write_lines,
};
pub use self::restriction::Restriction;
pub use self::sort::SortKey;
use crate::error::{Error, Result};
use crate::formats::pstats::dict::{DictRow, KeyId, StatsDict};
use crate::profile::{CallStats, EdgeStats, Tables};
use crate::units::printable;

/// Columns to which a function is padded beside its callers. Names may have a million characters, and
/// every line would.
pub const MAX_PADDING: usize = 1000;

/// Which of pstats' tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum View {
    /// A line a function.
    #[default]
    Stats,
    /// Who called each function.
    Callers,
    /// What each function called.
    Callees,
}

/// What is printed and in which order.
#[derive(Debug, Clone, Default)]
pub struct TableOptions {
    /// Most important key first; none: the order of the source.
    pub sort: Vec<SortKey>,
    /// Applied one after the other.
    pub restrictions: Vec<Restriction>,
    /// File names without folders; functions that become equal are added up.
    pub strip_dirs: bool,
    /// Qualified names where they are known.
    pub qualnames: bool,
    /// Which table.
    pub view: View,
}

/// Prints the table of `stats`, from the headline on. Groups that are kept apart have rows of their own,
/// with their label after the name.
pub fn write_table(
    stats: &CallStats,
    tables: &Tables,
    options: &TableOptions,
    out: &mut dyn Write,
) -> Result<()> {
    let mut dict = StatsDict::of(stats, tables, options.qualnames);
    if options.strip_dirs {
        dict = dict.strip_dirs();
    }
    let names: Vec<String> = dict.keys().iter().map(|key| key.standard_name()).collect();
    let table = Table { dict, names };
    let out = &mut io::BufWriter::new(out);
    table
        .write(options, out)
        .and_then(|()| out.flush())
        .map_err(|error| Error::write("the table", &error))
}

struct Table<'a> {
    dict: StatsDict<'a>,
    /// Printed names, by key.
    names: Vec<String>,
}

impl Table<'_> {
    fn write(&self, options: &TableOptions, out: &mut dyn Write) -> io::Result<()> {
        if options.view == View::Stats {
            self.write_headline(out)?;
        }
        let (list, message) = self.select(options);
        if list.is_empty() {
            // pstats says nothing at all then, not even why.
            return Ok(());
        }
        writeln!(out, "{message}")?;
        match options.view {
            View::Stats => self.write_rows(&list, out)?,
            View::Callers => self.write_callers(&list, out)?,
            View::Callees => self.write_callees(&list, out)?,
        }
        out.write_all(b"\n\n")
    }

    fn name(&self, key: KeyId) -> &str {
        &self.names[key.index()]
    }

    fn row(&self, at: usize) -> &DictRow {
        &self.dict.rows()[at]
    }

    fn write_headline(&self, out: &mut dyn Write) -> io::Result<()> {
        let dict = &self.dict;
        for function in &dict.top_level {
            writeln!(out, "         {}", printable(&dict.get(*function).name))?;
        }
        let bound = dict.rows().iter().any(|row| row.lower_bound);
        let at_least = if bound { "at least " } else { "" };
        let total = dict.total_calls;
        write!(out, "         {at_least}{total} function calls ")?;
        if dict.total_calls != dict.primitive_calls {
            write!(out, "({} primitive calls) ", dict.primitive_calls)?;
        }
        writeln!(out, "in {} seconds\n", fixed(dict.total_tottime))
    }

    /// Positions of the rows to print, and the lines that say how they were chosen.
    fn select(&self, options: &TableOptions) -> (Vec<usize>, String) {
        let mut list: Vec<usize> = (0..self.dict.rows().len()).collect();
        let mut message = if options.sort.is_empty() {
            "   Random listing order was used\n".to_string()
        } else {
            let rows: Vec<sort::SortRow<'_>> = self
                .dict
                .rows()
                .iter()
                .map(|row| self.sort_row(row))
                .collect();
            list.sort_by(|&left, &right| {
                options
                    .sort
                    .iter()
                    .map(|key| key.compare(&rows[left], &rows[right]))
                    .find(|order| order.is_ne())
                    .unwrap_or(std::cmp::Ordering::Equal)
            });
            let by: Vec<&str> = options.sort.iter().map(|key| key.description()).collect();
            format!("   Ordered by: {}\n", by.join(", "))
        };
        for restriction in &options.restrictions {
            let before = list.len();
            restriction.apply(&mut list, |row| self.name(self.row(row).key));
            if list.len() != before {
                message.push_str(&format!(
                    "   List reduced from {before} to {} due to restriction <{}>\n",
                    list.len(),
                    restriction.python_repr()
                ));
            }
        }
        (list, message)
    }

    fn sort_row<'a>(&'a self, row: &DictRow) -> sort::SortRow<'a> {
        let key = self.dict.get(row.key);
        sort::SortRow {
            ncalls: row.ncalls,
            primitive: row.primitive,
            tottime: row.tottime,
            cumtime: row.cumtime,
            file: key.file,
            line: key.line,
            name: &key.name,
            standard_name: self.name(row.key),
        }
    }

    fn write_rows(&self, list: &[usize], out: &mut dyn Write) -> io::Result<()> {
        out.write_all(
            b"   ncalls  tottime  percall  cumtime  percall filename:lineno(function)\n",
        )?;
        for &at in list {
            let row = self.row(at);
            writeln!(
                out,
                "{:>9} {} {} {} {} {}",
                calls(row.ncalls, row.primitive, row.lower_bound),
                f8(row.tottime),
                per_call(row.tottime, row.ncalls, row.lower_bound),
                f8(row.cumtime),
                per_call(row.cumtime, row.primitive, row.lower_bound),
                printable(self.name(row.key))
            )?;
        }
        Ok(())
    }

    fn write_callers(&self, list: &[usize], out: &mut dyn Write) -> io::Result<()> {
        let width = self.width(list);
        self.write_call_heading(width, "was called by...", out)?;
        for &at in list {
            let row = self.row(at);
            let callers = row.callers.iter().map(|(key, edge)| (*key, edge)).collect();
            self.write_calls(width, row.key, callers, "<-", out)?;
        }
        Ok(())
    }

    fn write_callees(&self, list: &[usize], out: &mut dyn Write) -> io::Result<()> {
        let mut callees: Vec<Vec<(KeyId, &EdgeStats)>> = vec![Vec::new(); self.names.len()];
        for row in self.dict.rows() {
            for (caller, edge) in &row.callers {
                callees[caller.index()].push((row.key, edge));
            }
        }
        let width = self.width(list);
        self.write_call_heading(width, "called...", out)?;
        for &at in list {
            let key = self.row(at).key;
            let called = std::mem::take(&mut callees[key.index()]);
            self.write_calls(width, key, called, "->", out)?;
        }
        Ok(())
    }

    /// Columns for the names of `list`.
    fn width(&self, list: &[usize]) -> usize {
        let width = list
            .iter()
            .map(|&at| printable(self.name(self.row(at).key)).chars().count())
            .max()
            .unwrap_or(0);
        width.min(MAX_PADDING) + 2
    }

    fn write_call_heading(&self, width: usize, title: &str, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{:<width$}{title}", "Function ")?;
        // Python asks the first caller there is.
        let first = self.dict.rows().iter().find_map(|row| row.callers.first());
        match first {
            Some((_, edge)) if !edge.count_only => {
                writeln!(out, "{:width$}    ncalls  tottime  cumtime", "")
            }
            _ => Ok(()),
        }
    }

    fn write_calls(
        &self,
        width: usize,
        function: KeyId,
        mut others: Vec<(KeyId, &EdgeStats)>,
        arrow: &str,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        write!(out, "{:<width$}{arrow} ", printable(self.name(function)))?;
        if others.is_empty() {
            return writeln!(out);
        }
        others.sort_by(|left, right| self.dict.get(left.0).cmp(self.dict.get(right.0)));
        for (place, (other, edge)) in others.iter().enumerate() {
            let name = printable(self.name(*other));
            // From the second line on the function's own column is left blank.
            let (blank, number_width) = if place == 0 { (0, 7) } else { (width, 9) };
            if edge.count_only {
                let blank = if place == 0 { 0 } else { blank + 3 };
                let cumtime = self.dict.row(*other).map_or(0.0, |row| row.cumtime);
                writeln!(out, "{:blank$}{name}({}) {}", "", edge.ncalls, f8(cumtime))?;
            } else {
                let blank = if place == 0 { 0 } else { blank + 1 };
                writeln!(
                    out,
                    "{:blank$}{:>number_width$} {} {}  {name}",
                    "",
                    calls(edge.ncalls, edge.primitive, edge.lower_bound),
                    f8(edge.tottime),
                    f8(edge.cumtime)
                )?;
            }
        }
        Ok(())
    }
}

/// `n`, or `n/primitive` where they differ; `>=n` for a lower bound.
fn calls(ncalls: u64, primitive: u64, lower_bound: bool) -> String {
    let sign = if lower_bound { ">=" } else { "" };
    if ncalls == primitive {
        format!("{sign}{ncalls}")
    } else {
        format!("{sign}{ncalls}/{primitive}")
    }
}

/// Blank where pstats leaves it so, and where nobody knows how many calls there were.
fn per_call(time: f64, calls: u64, lower_bound: bool) -> String {
    if calls == 0 || lower_bound {
        " ".repeat(8)
    } else {
        f8(time / calls as f64)
    }
}

/// Python's `"%8.3f"`.
fn f8(value: f64) -> String {
    format!("{:>8}", fixed(value))
}

/// Python's `"%.3f"`; both round ties to even.
fn fixed(value: f64) -> String {
    if value.is_nan() {
        "nan".to_string()
    } else {
        format!("{value:.3}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_as_pythons_do() {
        for (value, text) in [
            (0.0625, "   0.062"),
            (0.1875, "   0.188"),
            (2.0005, "   2.001"),
            (1.0015, "   1.002"),
            (-0.0, "  -0.000"),
            (-0.0001, "  -0.000"),
            (123_456_789.0, "123456789.000"),
            (1e22, "10000000000000000000000.000"),
            (f64::INFINITY, "     inf"),
            (f64::NAN, "     nan"),
        ] {
            assert_eq!(f8(value), text);
        }
    }
}
