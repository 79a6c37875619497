//! Text of what is found in a heap: tables as pympler prints them, Markdown, JUnit XML and JSON.

pub mod diff;
pub mod holders;
pub mod json;
pub mod markup;
pub mod objects;
pub mod page;
pub mod reasons;
pub mod rss;
pub mod summary;
pub mod watch;

use crate::glob;
use crate::heap::census::TypeCount;
use crate::heap::diff::{CensusDiff, DiffRow};
use crate::units::{format_bytes, printable};

/// Order of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SortKey {
    /// Total size, biggest first.
    #[default]
    Size,
    /// Number of objects, most first.
    Count,
    /// Name, a to z.
    Type,
}

/// Which rows are shown, in which order.
#[derive(Debug, Clone, Default)]
pub struct Rows {
    /// The order; rows that are equal in it stand by name.
    pub sort: SortKey,
    /// The other way round.
    pub reverse: bool,
    /// At most so many.
    pub limit: Option<usize>,
    /// Only types that one of these patterns is about; none means all.
    pub types: Vec<String>,
}

impl Rows {
    /// Whether a type is wanted.
    pub fn wants(&self, name: &str) -> bool {
        self.types.is_empty() || self.types.iter().any(|glob| glob::matches(glob, name))
    }

    /// The wanted of `rows` in order, and how many there are without the limit. `key` gives name, bytes and
    /// objects of a row; signed ones go from growth to shrinking.
    pub fn choose<'a, T: 'a>(
        &self,
        rows: impl IntoIterator<Item = &'a T>,
        key: impl Fn(&T) -> (&str, i128, i128),
    ) -> (Vec<&'a T>, usize) {
        let mut chosen: Vec<&T> = rows
            .into_iter()
            .filter(|row| self.wants(key(row).0))
            .collect();
        chosen.sort_by(|a, b| {
            let (a, b) = (key(a), key(b));
            let order = match self.sort {
                SortKey::Size => b.1.cmp(&a.1),
                SortKey::Count => b.2.cmp(&a.2),
                SortKey::Type => std::cmp::Ordering::Equal,
            };
            order.then_with(|| a.0.cmp(b.0))
        });
        if self.reverse {
            chosen.reverse();
        }
        let all = chosen.len();
        chosen.truncate(self.limit.unwrap_or(all));
        (chosen, all)
    }

    /// The wanted types of a census.
    pub fn of_types<'a>(&self, types: &'a [TypeCount]) -> (Vec<&'a TypeCount>, usize) {
        self.choose(types, |row| {
            (&row.name, i128::from(row.bytes), i128::from(row.objects))
        })
    }
}

/// A size as `pympler.util.stringutils.pp` prints it: `  24     B`, `   1.17 KB`.
pub fn pretty_size(bytes: u64) -> String {
    const SCALES: [&str; 6] = ["B", "KB", "MB", "GB", "TB", "PB"];
    if bytes <= 1024 {
        return format!("{bytes:4}     B");
    }
    let mut value = bytes as f64;
    let mut scale = 0;
    while value > 1024.0 && scale + 1 < SCALES.len() {
        value /= 1024.0;
        scale += 1;
    }
    format!("{value:7.2} {}", SCALES[scale])
}

/// A change of a size in the same form, with its sign: ` +24     B`, `  -1.17 KB`.
pub fn pretty_change(bytes: i64) -> String {
    let text = pretty_size(bytes.unsigned_abs());
    let number = text.trim_start();
    let sign = match bytes {
        0 => "",
        1.. => "+",
        _ => "-",
    };
    let width = text.chars().count();
    format!("{:>width$}", format!("{sign}{number}"))
}

/// A change of a size in running text: `+1.2 KiB`.
pub fn signed_bytes(bytes: i64) -> String {
    let sign = match bytes {
        0 => "",
        1.. => "+",
        _ => "-",
    };
    format!("{sign}{}", format_bytes(bytes.unsigned_abs()))
}

/// A change of a number, with its sign.
pub fn signed(change: i64) -> String {
    if change > 0 {
        format!("+{change}")
    } else {
        change.to_string()
    }
}

/// A table with the columns, the rules and the widths of `pympler.summary.print_`; the first row is the header.
pub fn muppy_table(rows: &[[String; 3]]) -> String {
    let width = |at: usize| {
        let widths = rows.iter().map(|row| row[at].chars().count() + 2);
        widths.max().unwrap_or(0)
    };
    let widths = [width(0), width(1), width(2)];
    let mut text = String::new();
    for (at, row) in rows.iter().enumerate() {
        let [a, b, c] = row;
        let [x, y, z] = widths;
        text.push_str(&format!("{a:>x$} | {b:>y$} | {c:>z$}\n"));
        if at == 0 {
            text.push_str(&widths.map(|width| "=".repeat(width)).join(" | "));
            text.push('\n');
        }
    }
    text
}

/// What changed, as `SummaryTracker.print_diff` prints it, with signs, and how many rows there are without the
/// limit; no text when nothing did.
fn changes_table(diff: &CensusDiff, rows: &Rows) -> (String, usize) {
    let (chosen, all) = changes(diff, rows);
    if chosen.is_empty() {
        return (String::new(), all);
    }
    let mut lines = vec![header()];
    lines.extend(chosen.iter().map(|row| {
        [
            type_text(&row.name),
            signed(row.objects()),
            pretty_change(row.bytes()),
        ]
    }));
    (muppy_table(&lines), all)
}

/// The chosen rows that changed, and how many there are without the limit.
fn changes<'a>(diff: &'a CensusDiff, rows: &Rows) -> (Vec<&'a DiffRow>, usize) {
    let changed = diff
        .rows
        .iter()
        .filter(|row| row.objects() != 0 || row.bytes() != 0);
    rows.choose(changed, |row| {
        (
            &row.name,
            i128::from(row.bytes()),
            i128::from(row.objects()),
        )
    })
}

/// The header of those tables.
fn header() -> [String; 3] {
    ["types", "# objects", "total size"].map(str::to_string)
}

/// Names of types as they stand in a table.
fn type_text(name: &str) -> String {
    printable(name).into_owned()
}

/// A number of things, with its noun.
pub fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_pympler_s() {
        // pympler 1.1: stringutils.pp of each number.
        for (bytes, text) in [
            (0, "   0     B"),
            (24, "  24     B"),
            (1024, "1024     B"),
            (1025, "   1.00 KB"),
            (1200, "   1.17 KB"),
            (1_048_576, "1024.00 KB"),
            (1_048_577, "   1.00 MB"),
            (123_456_789, " 117.74 MB"),
            (5_000_000_000, "   4.66 GB"),
        ] {
            assert_eq!(pretty_size(bytes), text);
        }
        assert_eq!(pretty_change(24), " +24     B");
        assert_eq!(pretty_change(-1200), "  -1.17 KB");
        assert_eq!(pretty_change(0), "   0     B");
        assert_eq!(pretty_change(i64::MIN).trim(), "-8192.00 PB");
    }

    #[test]
    fn rows_are_chosen_as_asked() {
        let row = |name: &str, objects, bytes| TypeCount {
            name: name.into(),
            objects,
            bytes,
        };
        let types = [
            row("b", 1, 30),
            row("app.A", 9, 10),
            row("a", 1, 30),
            row("app.B", 4, 20),
        ];
        let names = |rows: &Rows| -> Vec<String> {
            let (chosen, _) = rows.of_types(&types);
            chosen.iter().map(|row| row.name.clone()).collect()
        };
        let mut rows = Rows::default();
        assert_eq!(names(&rows), ["a", "b", "app.B", "app.A"]);
        rows.sort = SortKey::Count;
        rows.limit = Some(3);
        assert_eq!(names(&rows), ["app.A", "app.B", "a"]);
        assert_eq!(rows.of_types(&types).1, 4);
        rows.sort = SortKey::Type;
        rows.reverse = true;
        assert_eq!(names(&rows), ["b", "app.B", "app.A"]);
        rows.types = vec!["app.*".into(), "a".into()];
        assert_eq!(names(&rows), ["app.B", "app.A", "a"]);
    }
}
