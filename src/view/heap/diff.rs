//! What changed between two heaps, and which rules that breaks.

use super::holders::shown;
use super::{Rows, changes, changes_table, counted, markup, signed, signed_bytes, type_text};
use crate::heap::diff::{Amount, Broken, CensusDiff, Fates};
use crate::heap::why::{Reason, TypeReason};
use crate::units::{format_bytes, printable};
use crate::view::table;

/// A comparison.
#[derive(Debug)]
pub struct Comparison<'a> {
    /// What the old heap is called.
    pub old: &'a str,
    /// What the new one is called.
    pub new: &'a str,
    /// By type.
    pub types: &'a CensusDiff,
    /// Object by object, for two snapshots of one process.
    pub fates: Option<&'a [Fates]>,
    /// Rules that were held against it, as they were typed.
    pub rules: &'a [String],
    /// Those of them that are broken; one by several types stands here several times.
    pub broken: &'a [Broken],
    /// Why types grew, where that was asked for.
    pub reasons: &'a [TypeReason],
}

impl Comparison<'_> {
    fn totals(&self) -> String {
        let side = |amount: Amount| {
            format!(
                "{}, {}",
                counted(amount.objects, "object", "objects"),
                format_bytes(amount.bytes)
            )
        };
        format!(
            "old {}: {}; new {}: {}; change {}, {}",
            printable(self.old),
            side(self.types.old),
            printable(self.new),
            side(self.types.new),
            signed(self.types.objects()),
            signed_bytes(self.types.bytes())
        )
    }
}

/// One broken rule in words: `myapp.*:+100 is broken by myapp.Session: +500 objects`.
pub fn broken_text(broken: &Broken) -> String {
    let by = broken
        .name
        .as_ref()
        .map_or(String::new(), |name| format!(" by {}", printable(name)));
    format!(
        "{} is broken{by}: {}",
        printable(&broken.rule),
        broken.actual
    )
}

/// Objects of one process that are new, gone, or survived: types with new or gone ones only.
fn moved<'a>(fates: &'a [Fates], rows: &Rows) -> (Vec<&'a Fates>, usize) {
    let moved = fates
        .iter()
        .filter(|row| row.new.objects > 0 || row.gone.objects > 0);
    rows.choose(moved, |row| {
        (
            &row.name,
            i128::from(row.new.bytes),
            i128::from(row.new.objects),
        )
    })
}

fn fate_cells(fates: &Fates, name: String) -> Vec<String> {
    let size = |amount: Amount| format_bytes(amount.bytes);
    vec![
        name,
        fates.new.objects.to_string(),
        size(fates.new),
        fates.gone.objects.to_string(),
        size(fates.gone),
        fates.survived.objects.to_string(),
        size(fates.survived),
    ]
}

const FATE_HEADER: [&str; 7] = [
    "type",
    "new",
    "new size",
    "gone",
    "gone size",
    "survived",
    "survived size",
];

fn left_out(shown: usize, all: usize) -> String {
    if shown < all {
        format!("\n{shown} of {all} types shown\n")
    } else {
        String::new()
    }
}

/// One reason in words.
fn reason_text(reason: &Reason) -> String {
    let part = if reason.objects == reason.of {
        format!("all {}", reason.of)
    } else {
        format!("{} of {}", reason.objects, reason.of)
    };
    let retained = format_bytes(reason.retained);
    format!("holds {part} new; they keep {retained} alive")
}

/// Why types grew, a line each; nothing when that was not asked for.
pub fn reasons(rows: &[TypeReason]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let lines = rows.iter().map(|row| {
        format!(
            "{}: {} {}\n",
            shown(&row.name),
            shown(&row.reason.path),
            reason_text(&row.reason)
        )
    });
    format!("\nwhy\n\n{}", lines.collect::<String>())
}

/// The table, and the verdict on each rule.
pub fn text(comparison: &Comparison, rows: &Rows) -> String {
    let mut text = format!("{}\n\n", comparison.totals());
    let (changed, all) = changes_table(comparison.types, rows);
    if changed.is_empty() {
        text.push_str("nothing changed\n");
    } else {
        text.push_str(&changed);
        text.push_str(&left_out(all.min(rows.limit.unwrap_or(all)), all));
    }
    if let Some(fates) = comparison.fates {
        let (chosen, all) = moved(fates, rows);
        if !chosen.is_empty() {
            let cells = chosen
                .iter()
                .map(|row| fate_cells(row, type_text(&row.name)));
            text.push_str("\nobject by object, in one process\n\n");
            text.push_str(&table::fates(&FATE_HEADER, cells.collect()));
            text.push_str(&left_out(chosen.len(), all));
        }
    }
    text.push_str(&reasons(comparison.reasons));
    if !comparison.rules.is_empty() {
        text.push('\n');
    }
    for rule in comparison.rules {
        let mut broken = comparison
            .broken
            .iter()
            .filter(|broken| broken.rule == *rule)
            .peekable();
        if broken.peek().is_none() {
            text.push_str(&format!("{} holds\n", printable(rule)));
        }
        for broken in broken {
            text.push_str(&format!("{}\n", broken_text(broken)));
        }
    }
    text
}

/// A comment for a pull request.
pub fn markdown(comparison: &Comparison, rows: &Rows) -> String {
    let types = comparison.types;
    let mut text = match (comparison.rules.len(), comparison.broken.len()) {
        (0, _) => "### Heap\n\n".to_string(),
        (_, 0) => "### Heap: within its limits\n\n".to_string(),
        (_, _) => "### Heap: beyond its limits\n\n".to_string(),
    };
    let side = |what: &str, name: &str, amount: Amount| {
        vec![
            format!("{what} ({})", markup::code(name)),
            amount.objects.to_string(),
            format_bytes(amount.bytes),
        ]
    };
    text.push_str(&markup::table(
        &["", "# objects", "total size"],
        [
            side("old", comparison.old, types.old),
            side("new", comparison.new, types.new),
            vec![
                "**change**".to_string(),
                format!("**{}**", signed(types.objects())),
                format!("**{}**", signed_bytes(types.bytes())),
            ],
        ],
    ));
    if !comparison.rules.is_empty() {
        text.push('\n');
        for rule in comparison.rules {
            let broken: Vec<&Broken> = comparison
                .broken
                .iter()
                .filter(|broken| broken.rule == *rule)
                .collect();
            if broken.is_empty() {
                text.push_str(&format!("- :white_check_mark: {}\n", markup::code(rule)));
            }
            for broken in broken {
                let name = broken.name.as_deref().map(markup::code);
                text.push_str(&format!(
                    "- :x: {}: {}{}\n",
                    markup::code(rule),
                    name.map_or(String::new(), |name| format!("{name} ")),
                    markup::plain(&broken.actual.to_string())
                ));
            }
        }
    }
    let (chosen, all) = changes(types, rows);
    if chosen.is_empty() {
        text.push_str("\nNo type changed.\n");
        return text;
    }
    text.push('\n');
    text.push_str(&markup::table(
        &[
            "type",
            "# objects",
            "total size",
            "old # objects",
            "new # objects",
        ],
        chosen.iter().map(|row| {
            let number = |side: Option<Amount>| side.map_or(0, |amount| amount.objects).to_string();
            vec![
                markup::code(&row.name),
                signed(row.objects()),
                signed_bytes(row.bytes()),
                number(row.old),
                number(row.new),
            ]
        }),
    ));
    text.push_str(&left_out(chosen.len(), all));
    if let Some(fates) = comparison.fates {
        let (chosen, all) = moved(fates, rows);
        if !chosen.is_empty() {
            text.push_str("\nObject by object:\n\n");
            text.push_str(&markup::table(
                &FATE_HEADER,
                chosen
                    .iter()
                    .map(|row| fate_cells(row, markup::code(&row.name))),
            ));
            text.push_str(&left_out(chosen.len(), all));
        }
    }
    if !comparison.reasons.is_empty() {
        text.push_str("\nWhy:\n\n");
        for row in comparison.reasons {
            text.push_str(&format!(
                "- {}: {} {}\n",
                markup::code(&shown(&row.name)),
                markup::code(&shown(&row.reason.path)),
                markup::plain(&reason_text(&row.reason))
            ));
        }
    }
    text
}

/// JUnit XML: a test for each rule, or one that passes when there is none.
pub fn junit(comparison: &Comparison, rows: &Rows) -> String {
    let types = comparison.types;
    let properties = [
        ("old", comparison.old.to_string()),
        ("new", comparison.new.to_string()),
        ("objects", signed(types.objects())),
        ("bytes", signed(types.bytes())),
    ];
    let mut cases: Vec<markup::TestCase> = comparison
        .rules
        .iter()
        .map(|rule| {
            let lines: Vec<String> = comparison
                .broken
                .iter()
                .filter(|broken| broken.rule == *rule)
                .map(broken_text)
                .collect();
            markup::TestCase {
                name: rule.clone(),
                failure: lines.first().map(|first| {
                    let more = match lines.len() {
                        1 => String::new(),
                        number => format!(", and {} more", number - 1),
                    };
                    (format!("{first}{more}"), lines.join("\n"))
                }),
            }
        })
        .collect();
    if cases.is_empty() {
        cases.push(markup::TestCase {
            name: "difference".to_string(),
            failure: None,
        });
    }
    markup::suite(
        "biopsy heap diff",
        &properties,
        &cases,
        &text(comparison, rows),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heap::diff::{Actual, DiffRow};

    fn amount(objects: u64, bytes: u64) -> Amount {
        Amount { objects, bytes }
    }

    fn types() -> CensusDiff {
        let row = |name: &str, old, new| DiffRow {
            name: name.to_string(),
            old,
            new,
        };
        CensusDiff {
            old: amount(105, 10_000),
            new: amount(601, 34_000),
            rows: vec![
                row("myapp.Session", None, Some(amount(500, 24_000))),
                row("same", Some(amount(1, 1)), Some(amount(1, 1))),
                row("dict", Some(amount(10, 5000)), Some(amount(6, 3000))),
            ],
        }
    }

    fn comparison<'a>(
        types: &'a CensusDiff,
        rules: &'a [String],
        broken: &'a [Broken],
        fates: Option<&'a [Fates]>,
    ) -> Comparison<'a> {
        Comparison {
            old: "main.heap",
            new: "4711",
            types,
            fates,
            rules,
            broken,
            reasons: &[],
        }
    }

    fn rules() -> (Vec<String>, Vec<Broken>) {
        let rules = vec!["myapp.*:+100".to_string(), "total:+1GiB".to_string()];
        let broken = vec![Broken {
            rule: "myapp.*:+100".to_string(),
            name: Some("myapp.Session".to_string()),
            actual: Actual::Objects(500),
        }];
        (rules, broken)
    }

    #[test]
    fn the_table_has_signs_and_the_verdicts_stand_below() {
        let (types, (rules, broken)) = (types(), rules());
        let found = text(&comparison(&types, &rules, &broken, None), &Rows::default());
        let expected = "\
old main.heap: 105 objects, 9.8 KiB; new 4711: 601 objects, 33.2 KiB; change +496, +23.4 KiB

          types |   # objects |   total size
=============== | =========== | ============
  myapp.Session |        +500 |    +23.44 KB
           dict |          -4 |     -1.95 KB

myapp.*:+100 is broken by myapp.Session: +500 objects
total:+1GiB holds
";
        assert_eq!(found, expected);
    }

    #[test]
    fn objects_of_one_process_are_told_apart() {
        let types = types();
        let fates = [Fates {
            name: "dict".to_string(),
            new: amount(2, 128),
            gone: amount(6, 400),
            survived: amount(4, 300),
        }];
        let found = text(
            &comparison(&types, &[], &[], Some(&fates)),
            &Rows::default(),
        );
        let line = found.lines().last().expect("a line");
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        assert_eq!(
            words,
            ["dict", "2", "128", "B", "6", "400", "B", "4", "300", "B"]
        );
    }

    #[test]
    fn a_pull_request_and_a_ci_server_are_told_of_each_rule() {
        let (types, (rules, broken)) = (types(), rules());
        let comparison = comparison(&types, &rules, &broken, None);
        let markdown = markdown(&comparison, &Rows::default());
        for line in [
            "### Heap: beyond its limits\n",
            "\n- :x: `myapp.*:+100`: `myapp.Session` +500 objects\n",
            "\n- :white_check_mark: `total:+1GiB`\n",
            "\n| `myapp.Session` | +500 | +23.4 KiB | 0 | 500 |\n",
        ] {
            assert!(markdown.contains(line), "{line}{markdown}");
        }
        let junit = junit(&comparison, &Rows::default());
        let document = roxmltree::Document::parse(&junit).expect("XML");
        let cases: Vec<(Option<&str>, Option<&str>)> = document
            .descendants()
            .filter(|node| node.has_tag_name("testcase"))
            .map(|node| {
                let failure = node.first_element_child();
                (
                    node.attribute("name"),
                    failure.and_then(|node| node.attribute("message")),
                )
            })
            .collect();
        assert_eq!(
            cases,
            [
                (
                    Some("myapp.*:+100"),
                    Some("myapp.*:+100 is broken by myapp.Session: +500 objects")
                ),
                (Some("total:+1GiB"), None)
            ]
        );
    }
}
