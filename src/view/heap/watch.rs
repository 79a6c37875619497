//! What `heap watch` shows: a summary, then what changed from step to step, and what grew in all of them.

use std::time::Duration;

use super::{Rows, changes_table, counted, signed, signed_bytes, type_text};
use crate::heap::census::Census;
use crate::heap::diff::CensusDiff;
use crate::heap::growth::Growing;
use crate::units::format_bytes;
use crate::view::table;

/// One step: a summary and how it differs from the one before.
#[derive(Debug)]
pub struct Step<'a> {
    /// Time since the first summary.
    pub since: Duration,
    /// The summary.
    pub census: &'a Census,
    /// The difference; `None` at the start.
    pub diff: Option<&'a CensusDiff>,
    /// Resident memory at the step before; `None` at the start, and where it is not known.
    pub rss_before: Option<u64>,
}

/// The line above a step: time since the first summary, totals and their change.
fn step_line(step: &Step) -> String {
    let (objects, bytes) = step.census.total();
    let mut line = match step.diff {
        None => "at the start".to_string(),
        Some(_) => format!("after {:.1} s", step.since.as_secs_f64()),
    };
    line.push_str(&format!(": {}", counted(objects, "object", "objects")));
    if let Some(diff) = step.diff {
        line.push_str(&format!(" ({})", signed(diff.objects())));
    }
    line.push_str(&format!(", {}", format_bytes(bytes)));
    if let Some(diff) = step.diff {
        line.push_str(&format!(" ({})", signed_bytes(diff.bytes())));
    }
    if let Some(rss) = step.census.rss_bytes {
        line.push_str(&format!("; RSS {}", format_bytes(rss)));
        if let Some(before) = step.rss_before {
            let change = i64::try_from(i128::from(rss) - i128::from(before));
            line.push_str(&format!(" ({})", signed_bytes(change.unwrap_or(0))));
        }
    }
    if let Some(pause) = step.census.pause_ms {
        line.push_str(&format!(", stopped for {pause:.1} ms"));
    }
    line
}

/// What changed since the step before, as `SummaryTracker.print_diff` prints it, with signs.
pub fn difference(step: &Step, rows: &Rows) -> String {
    let line = step_line(step);
    let changed = step
        .diff
        .map_or_else(String::new, |diff| changes_table(diff, rows).0);
    if changed.is_empty() {
        return format!("{line}\n\nnothing changed\n");
    }
    format!("{line}\n\n{changed}")
}

/// Classes that are followed: their numbers now, and how they changed since the step before.
pub fn classes(step: &Step, rows: &Rows) -> String {
    let (chosen, _) = rows.of_types(&step.census.types);
    let line = step_line(step);
    if chosen.is_empty() {
        return format!("{line}\n\nno object of these types\n");
    }
    let cells = chosen.iter().map(|row| {
        let mut cells = vec![
            type_text(&row.name),
            row.objects.to_string(),
            format_bytes(row.bytes),
        ];
        if let Some(diff) = step.diff {
            let changed = diff.rows.iter().find(|change| change.name == row.name);
            let (objects, bytes) = changed.map_or((0, 0), |row| (row.objects(), row.bytes()));
            cells.push(signed(objects));
            cells.push(signed_bytes(bytes));
        }
        cells
    });
    format!("{line}\n\n{}", table::classes(cells.collect()))
}

/// The types that grew in every step, with their rates.
pub fn growth(growing: &Growing, rows: &Rows) -> String {
    let over = format!(
        "{} over {:.1} s",
        counted(growing.steps(), "step", "steps"),
        growing.seconds()
    );
    let growths = growing.growths();
    let (chosen, all) = rows.choose(&growths, |row| {
        (&row.name, i128::from(row.bytes), i128::from(row.objects))
    });
    if chosen.is_empty() {
        return format!("{over}: no type grew in every one\n");
    }
    let cells = chosen.iter().map(|row| {
        vec![
            type_text(&row.name),
            signed(row.objects),
            signed_bytes(row.bytes),
            format!("{:+.1}", row.objects_per_minute),
            signed_bytes(row.bytes_per_minute.round() as i64),
        ]
    });
    let mut text = format!(
        "{over}: {} grew in every one\n\n{}",
        counted(all as u64, "type", "types"),
        table::growth(cells.collect())
    );
    if chosen.len() < all {
        text.push_str(&format!("\n{} of {all} types shown\n", chosen.len()));
    }
    text
}
