//! A summary: the table of `pympler.summary.print_` below one line that says what was counted.

use super::{Rows, counted, header, markup, muppy_table, pretty_size, type_text};
use crate::heap::census::{Census, Counting};
use crate::heap::subject::Source;
use crate::units::{format_bytes, printable};

/// What a heap is of, in a few words.
pub fn title(census: &Census) -> String {
    let command = printable(&census.command);
    match (command.is_empty(), census.pid) {
        (false, _) => format!("Heap of {command}"),
        (true, Some(pid)) => format!("Heap of process {pid}"),
        (true, None) => "Heap".to_string(),
    }
}

/// The line above a summary.
pub fn note(census: &Census, source: Source) -> String {
    let (objects, bytes) = census.total();
    let counting = match census.counting {
        Counting::Reachable => "everything reachable",
        Counting::Muppy => "counted as muppy.get_objects() does",
    };
    let mut line = if census.is_cut() {
        format!(
            "what is left of a core file that was cut short: at least {}, {}; ",
            counted(objects, "object", "objects"),
            format_bytes(bytes)
        )
    } else {
        format!(
            "{counting}: {}, {}, with garbage that is not collected yet; ",
            counted(objects, "object", "objects"),
            format_bytes(bytes)
        )
    };
    if let Some(pid) = census.pid {
        line.push_str(&format!("process {pid}, "));
    }
    line.push_str(&format!("Python {}", printable(&census.python)));
    match (source, census.pause_ms) {
        (Source::Running, _) => line.push_str(
            ", not stopped: what changed meanwhile may be missing, wrong or counted twice",
        ),
        (_, Some(pause)) => line.push_str(&format!(", stopped for {pause:.1} ms")),
        (Source::Held, None) => line.push_str(", was stopped already"),
        (Source::File, None) => {}
    }
    if let Some(doubts) = doubts(census) {
        line.push_str(&format!("; {doubts}"));
    }
    line
}

/// Types that are named in one line.
const TYPES: usize = 3;

/// What was not sure, in words; `None` when all was.
pub fn doubts(census: &Census) -> Option<String> {
    let doubts = census.doubts;
    let layouts = match types(&census.unsure.layout) {
        Some(types) => format!("of unknown layout ({types})"),
        None => "of unknown layout".to_string(),
    };
    let mut parts: Vec<String> = [
        (
            doubts.torn,
            match census.is_cut() {
                true => "of which parts are missing",
                false => "caught in the middle of a change",
            },
        ),
        (doubts.conservative, &layouts),
        (
            if census.is_cut() {
                0
            } else {
                doubts.unreadable
            },
            "not readable",
        ),
    ]
    .into_iter()
    .filter(|(number, _)| *number > 0)
    .map(|(number, what)| format!("{} {what}", counted(number, "object", "objects")))
    .collect();
    if census.is_cut() && doubts.unreadable > 0 {
        let references = counted(doubts.unreadable, "reference", "references");
        parts.push(format!("{references} to what is missing"));
    }
    parts.extend(own_sizes(&census.unsure.size));
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// What is said of classes with a `__sizeof__` in Python; `None` where there is none.
pub fn own_sizes(found: &[(String, u64)]) -> Option<String> {
    let types = types(found)?;
    Some(format!(
        "sizes without what a __sizeof__ in Python adds, which is not run: {types}"
    ))
}

/// The first types with their numbers of objects; `None` where there is none.
fn types(found: &[(String, u64)]) -> Option<String> {
    let shown = found.iter().take(TYPES);
    let shown: Vec<String> = shown
        .map(|(name, objects)| format!("{} {objects}", printable(name)))
        .collect();
    let more = found.len() - shown.len();
    let more = match more {
        0 => String::new(),
        1 => " and 1 more type".to_string(),
        more => format!(" and {more} more types"),
    };
    (!shown.is_empty()).then(|| shown.join(", ") + &more)
}

/// What stands before numbers: nothing, or that they are lower bounds.
fn least(census: &Census) -> &'static str {
    if census.is_cut() { ">=" } else { "" }
}

/// The same before a size that is padded.
fn at_least(census: &Census, size: &str) -> String {
    let number = size.trim_start();
    let width = size.chars().count();
    format!("{:>width$}", format!("{}{number}", least(census)))
}

/// The table that `pympler.summary.print_` prints for the chosen rows.
pub fn table(census: &Census, rows: &Rows) -> String {
    let (chosen, _) = rows.of_types(&census.types);
    let least = least(census);
    let mut lines = vec![header()];
    lines.extend(chosen.iter().map(|row| {
        [
            type_text(&row.name),
            format!("{least}{}", row.objects),
            at_least(census, &pretty_size(row.bytes)),
        ]
    }));
    muppy_table(&lines)
}

/// The note, the table, and how many rows were left out.
pub fn text(census: &Census, source: Source, rows: &Rows) -> String {
    let (shown, all) = rows.of_types(&census.types);
    let mut text = format!("{}\n\n{}", note(census, source), table(census, rows));
    if shown.len() < all {
        text.push_str(&format!("\n{} of {all} types shown\n", shown.len()));
    }
    text
}

/// The same as Markdown.
pub fn markdown(census: &Census, source: Source, rows: &Rows) -> String {
    let (chosen, all) = rows.of_types(&census.types);
    let cells = chosen.iter().map(|row| {
        vec![
            markup::code(&row.name),
            format!("{}{}", least(census), row.objects),
            format!("{}{}", least(census), format_bytes(row.bytes)),
        ]
    });
    let mut text = format!(
        "{}\n\n{}",
        markup::plain(&note(census, source)),
        markup::table(&["type", "# objects", "total size"], cells)
    );
    if chosen.len() < all {
        text.push_str(&format!("\n{} of {all} types shown\n", chosen.len()));
    }
    text
}

/// The same as JUnit XML: one test, which passes, with the numbers as properties and the table as output.
pub fn junit(census: &Census, source: Source, rows: &Rows) -> String {
    let (objects, bytes) = census.total();
    let properties = [
        ("python", census.python.clone()),
        ("command", census.command.clone()),
        ("objects", objects.to_string()),
        ("bytes", bytes.to_string()),
        ("lower_bounds", census.is_cut().to_string()),
    ];
    let known = if census.is_cut() { 5 } else { 4 };
    let case = markup::TestCase {
        name: "summary".to_string(),
        failure: None,
    };
    markup::suite(
        "biopsy heap summary",
        properties.get(..known).unwrap_or(&properties),
        &[case],
        &text(census, source, rows),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heap::census::{Doubts, TypeCount, Unsure};
    use std::time::SystemTime;

    fn census() -> Census {
        let row = |name: &str, objects, bytes| TypeCount {
            name: name.to_string(),
            objects,
            bytes,
        };
        Census {
            counting: Counting::Reachable,
            python: "3.12.1".to_string(),
            pid: Some(42),
            command: "python a.py".to_string(),
            taken_at: SystemTime::UNIX_EPOCH,
            pause_ms: Some(8.06),
            rss_bytes: Some(1 << 20),
            types: vec![
                row("tuple", 1, 1024),
                row("dict", 1234, 5_000_000_000),
                row("myapp.models.User", 10, 1025),
                row("function (näme)", 987_654_321, 123_456_789),
            ],
            doubts: Doubts::default(),
            unsure: Unsure::default(),
        }
    }

    #[test]
    fn the_table_is_pympler_s() {
        // What pympler 1.1 prints for these rows.
        let expected = "
              types |   # objects |   total size
=================== | =========== | ============
               dict |        1234 |      4.66 GB
    function (näme) |   987654321 |    117.74 MB
  myapp.models.User |          10 |      1.00 KB
              tuple |           1 |   1024     B
";
        assert_eq!(
            format!("\n{}", table(&census(), &Rows::default())),
            expected
        );
    }

    #[test]
    fn the_note_says_what_is_counted_and_what_was_not_sure() {
        let mut census = census();
        assert_eq!(
            note(&census, Source::Held),
            "everything reachable: 987655566 objects, 4.8 GiB, with garbage that is not collected yet; process 42, Python 3.12.1, stopped for 8.1 ms"
        );
        census.counting = Counting::Muppy;
        census.pause_ms = None;
        census.doubts.torn = 1;
        census.doubts.conservative = 3;
        let line = note(&census, Source::Running);
        assert!(line.starts_with("counted as muppy.get_objects() does: "));
        assert!(line.contains(", not stopped: "), "{line}");
        assert!(
            line.ends_with(
                "; 1 object caught in the middle of a change, 3 objects of unknown layout"
            ),
            "{line}"
        );
        let row = |name: &str, objects| (name.to_string(), objects);
        census.unsure.layout = vec![row("a.A", 2), row("b", 1)];
        census.unsure.size = vec![row("c", 4), row("d", 3), row("e", 2), row("f", 1)];
        assert_eq!(
            doubts(&census).as_deref(),
            Some(
                "1 object caught in the middle of a change, 3 objects of unknown layout (a.A 2, b 1), \
                 sizes without what a __sizeof__ in Python adds, which is not run: c 4, d 3, e 2 and 1 more type"
            )
        );
    }

    #[test]
    fn rows_left_out_are_told_and_other_forms_have_the_same_rows() {
        let census = census();
        let rows = Rows {
            limit: Some(1),
            ..Rows::default()
        };
        assert!(text(&census, Source::Held, &rows).ends_with("\n1 of 4 types shown\n"));
        let markdown = markdown(&census, Source::Held, &rows);
        assert!(
            markdown.contains("| `dict` | 1234 | 4.7 GiB |\n"),
            "{markdown}"
        );
        let junit = junit(&census, Source::Held, &rows);
        let document = roxmltree::Document::parse(&junit).expect("XML");
        assert!(
            document
                .descendants()
                .any(|node| node.attribute("value") == Some("987655566"))
        );
    }
}
