//! Tables of processes and of differences. The profile's own table is in [`super::stats`].

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use crate::profile::diff::{DiffRow, Side};
use crate::target::list::PythonProcess;
use crate::units::{format_bytes, printable};

fn plain(header: &[&str], right: &[usize]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.to_vec());
    for at in right {
        if let Some(column) = table.column_mut(*at) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// Lines without the blanks that the table library pads their ends with.
fn text(table: &Table) -> String {
    let mut text: String = table
        .lines()
        .map(|line| {
            format!(
                "{}\n",
                line.trim_end().strip_prefix(' ').unwrap_or(line.trim_end())
            )
        })
        .collect();
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// Rows in columns under `header`; those at `right` are aligned to the right.
pub fn columns(
    header: &[&str],
    right: &[usize],
    rows: impl IntoIterator<Item = Vec<String>>,
) -> String {
    let mut table = plain(header, right);
    for row in rows {
        table.add_row(row);
    }
    text(&table)
}

/// The text of `ps`. `width` is the terminal's, to cut command lines; `None` for no limit.
pub fn processes(processes: &[PythonProcess], width: Option<u16>) -> String {
    let mut table = plain(
        &["pid", "python", "user", "rss", "threads", "cpu", "command"],
        &[0, 3, 4, 5],
    );
    for process in processes {
        let python = match &process.python {
            Ok(version) => version.clone(),
            Err(reason) => format!("({reason})"),
        };
        table.add_row(vec![
            process.pid.to_string(),
            python,
            printable(&process.user).into_owned(),
            format_bytes(process.rss_bytes),
            process.threads.to_string(),
            format!("{:.1} %", process.cpu_percent),
            process.command.clone(),
        ]);
    }
    let text = text(&table);
    match width {
        None => text,
        Some(width) => text
            .lines()
            .map(|line| cut(line, usize::from(width)) + "\n")
            .collect(),
    }
}

fn cut(line: &str, width: usize) -> String {
    if line.chars().count() <= width {
        return line.to_string();
    }
    let mut cut: String = line.chars().take(width.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// The text of `diff`: seconds and shares of the whole, old and new. Numbers of calls stand side by side, for there is no
/// change between a number and a lower bound (`>=7`).
pub fn differences(rows: &[DiffRow], old_total: f64, new_total: f64) -> String {
    let mut table = plain(
        &[
            "old tottime",
            "new tottime",
            "change",
            "old %",
            "new %",
            "old cumtime",
            "new cumtime",
            "change",
            "old ncalls",
            "new ncalls",
            "filename:lineno(function)",
        ],
        &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
    );
    let seconds = |value: Option<f64>| value.map_or("-".to_string(), |v| format!("{v:.3}"));
    let share = |value: Option<f64>, total: f64| match value {
        Some(value) if total > 0.0 => format!("{:.1}", 100.0 * value / total),
        _ => "-".to_string(),
    };
    let calls = |side: Option<Side>| match side {
        Some(side) if side.lower_bound => format!(">={}", side.ncalls),
        Some(side) => side.ncalls.to_string(),
        None => "-".to_string(),
    };
    for row in rows {
        let (old, new) = (row.old, row.new);
        table.add_row(vec![
            seconds(old.map(|s| s.tottime)),
            seconds(new.map(|s| s.tottime)),
            format!("{:+.3}", row.tottime_change()),
            share(old.map(|s| s.tottime), old_total),
            share(new.map(|s| s.tottime), new_total),
            seconds(old.map(|s| s.cumtime)),
            seconds(new.map(|s| s.cumtime)),
            format!("{:+.3}", row.cumtime_change()),
            calls(old),
            calls(new),
            function_text(row),
        ]);
    }
    text(&table)
}

/// Classes that are followed: name, objects, size and, where there is a step before, their changes.
pub fn classes(rows: Vec<Vec<String>>) -> String {
    let header = ["type", "objects", "size", "change", "change of size"];
    let columns = rows
        .first()
        .map_or(header.len(), Vec::len)
        .min(header.len());
    let mut table = plain(&header[..columns], &[1, 2, 3, 4]);
    table.add_rows(rows);
    text(&table)
}

/// What became of the objects of each type, below `header`.
pub fn fates(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = plain(header, &[1, 2, 3, 4, 5, 6]);
    table.add_rows(rows);
    text(&table)
}

/// Types that grew: name, objects and bytes more, and both in a minute.
pub fn growth(rows: Vec<Vec<String>>) -> String {
    let header = ["type", "objects", "size", "objects/min", "size/min"];
    let mut table = plain(&header, &[1, 2, 3, 4]);
    table.add_rows(rows);
    text(&table)
}

/// As pstats prints a function: `file:line(name)`, C functions in braces.
fn function_text(row: &DiffRow) -> String {
    let name = printable(&row.name);
    if row.file == "~" && row.line == 0 {
        return match name
            .strip_prefix('<')
            .and_then(|name| name.strip_suffix('>'))
        {
            Some(inner) => format!("{{{inner}}}"),
            None => name.into_owned(),
        };
    }
    format!("{}:{}({name})", printable(&row.file), row.line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Pid;

    #[test]
    fn a_lower_bound_is_no_number_to_take_a_difference_of() {
        let side = |ncalls, lower_bound| {
            Some(Side {
                ncalls,
                lower_bound,
                ..Side::default()
            })
        };
        let rows =
            [(side(7, true), side(90, false)), (None, side(5, true))].map(|(old, new)| DiffRow {
                file: "a.py".to_string(),
                line: 1,
                qualname: None,
                name: "f".to_string(),
                old,
                new,
                functions: [None; 2],
            });
        let text = differences(&rows, 1.0, 1.0);
        let ends: Vec<String> = text
            .lines()
            .map(|line| {
                line.split_whitespace()
                    .skip(8)
                    .collect::<Vec<_>>()
                    .join(" ")
            })
            .collect();
        assert_eq!(ends[1..], [">=7 90 a.py:1(f)", "- >=5 a.py:1(f)"], "{text}");
    }

    #[test]
    fn processes_stand_in_columns_without_trailing_blanks() {
        let process = PythonProcess {
            pid: Pid(42),
            python: Ok("3.11.7".to_string()),
            user: "me".to_string(),
            rss_bytes: 5 << 20,
            threads: 3,
            cpu_percent: 12.34,
            command: "python3 a.py".to_string(),
        };
        let text = processes(std::slice::from_ref(&process), None);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(
            lines[0].contains("pid") && lines[0].ends_with("command"),
            "{text}"
        );
        assert!(
            lines[1].contains("5.0 MiB") && lines[1].ends_with("python3 a.py"),
            "{text}"
        );
        assert!(
            processes(&[process], Some(30))
                .lines()
                .all(|line| line.chars().count() <= 30)
        );
    }
}
