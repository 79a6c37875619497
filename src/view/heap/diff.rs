//! What changed between two heaps, and which rules that breaks.

use super::holders::shown;
use super::{
    Rows, changes, changes_table, counted, markup, reasons, signed, signed_bytes, type_text,
};
use crate::heap::diff::{Amount, Broken, CensusDiff, Fates};
use crate::heap::graph::Sizes;
use crate::heap::why::{ALL_TYPES, TypeReason};
use crate::units::{format_bytes, printable};
use crate::view::table;

/// A comparison.
#[derive(Debug)]
pub struct Comparison<'a> {
    /// What the old heap is called.
    pub old: &'a str,
    /// What the new one is called.
    pub new: &'a str,
    /// The versions of Python of both.
    pub pythons: (&'a str, &'a str),
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
    /// What bytes these are in.
    pub sizes: Sizes,
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

/// What must be known of two heaps of different Pythons; nothing when they are alike.
pub fn versions_note((old, new): (&str, &str)) -> Option<String> {
    let minor = |version: &str| {
        let mut parts = version.split('.').map(str::to_string);
        (parts.next(), parts.next())
    };
    (minor(old) != minor(new)).then(|| {
        format!(
            "the old heap is of Python {}, the new one of {}: numbers and sizes of objects change with the version, not only with the program",
            printable(old),
            printable(new)
        )
    })
}

/// Whether types changed and none of them grew.
fn all_shrank(types: &CensusDiff) -> bool {
    let mut rows = types.rows.iter();
    let changed = types.rows.iter();
    let mut changed = changed.filter(|row| row.objects() != 0 || row.bytes() != 0);
    changed.next().is_some() && !rows.any(|row| row.objects() > 0 || row.bytes() > 0)
}

const ALL_SHRANK: &str = "nothing grew: every type that changed shrank";

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

/// Objects of one process that are new, gone, or survived: types with new or gone ones, or some that grew.
fn moved<'a>(fates: &'a [Fates], rows: &Rows) -> (Vec<&'a Fates>, usize) {
    let moved = fates
        .iter()
        .filter(|row| row.new.objects > 0 || row.gone.objects > 0 || row.grew != 0);
    rows.choose(moved, |row| {
        (
            &row.name,
            i128::from(row.new.bytes) + i128::from(row.grew),
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
        signed_bytes(fates.grew),
    ]
}

const FATE_HEADER: [&str; 8] = [
    "type",
    "new",
    "new size",
    "gone",
    "gone size",
    "survived",
    "survived size",
    "grew",
];

/// What of new, gone and survived is not certain.
fn certain_text(fates: &[Fates]) -> String {
    let survived = "\nsurvived: address, type and holder or path are those of an old object; one that replaced it there counts too\n";
    match fates.iter().map(|row| row.in_place).sum::<u64>() {
        0 => survived.to_string(),
        moved => format!(
            "{survived}new: {moved} of them have the address, type and size of a gone one: moved to another holder, or the address was used again\n"
        ),
    }
}

fn left_out(shown: usize, all: usize) -> String {
    if shown < all {
        format!("\n{shown} of {all} types shown\n")
    } else {
        String::new()
    }
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
    if all_shrank(comparison.types) {
        text.push_str(&format!("\n{ALL_SHRANK}\n"));
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
            text.push_str(&certain_text(fates));
        }
    }
    text.push_str(&reasons::reasons(comparison.reasons, comparison.sizes));
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

/// Each rule of a comment, and what broke it.
fn put_rules(comparison: &Comparison, text: &mut String) {
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
        put_rules(comparison, &mut text);
    }
    if let Some(note) = versions_note(comparison.pythons) {
        text.push_str(&format!("\n:warning: {}\n", markup::plain(&note)));
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
    if all_shrank(types) {
        text.push_str(&format!("\n{}\n", ALL_SHRANK.replacen('n', "N", 1)));
    }
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
            text.push_str(&certain_text(fates));
        }
    }
    if !comparison.reasons.is_empty() {
        let heading = reasons::heading(comparison.reasons).replacen("why", "Why", 1);
        let sizes = comparison.sizes.description();
        text.push_str(&format!("\n{heading}; {sizes}:\n\n"));
        for row in comparison.reasons {
            let name = markup::code(&shown(&row.name));
            for reason in &row.reasons {
                text.push_str(&format!(
                    "- {name}: {} {}\n",
                    markup::code(&shown(&reason.path)),
                    markup::plain(&reasons::reason_text(reason))
                ));
            }
            if let Some(rest) = reasons::rest_text(row.rest) {
                text.push_str(&format!("- {name}: {rest}\n"));
            }
        }
    }
    text
}

/// The reasons that have to do with the types that broke a rule; of a rule for all types those for all.
fn causes(rows: &[TypeReason], broken: &[&Broken], sizes: Sizes) -> String {
    let of_rule = |row: &TypeReason| {
        let mut names = broken.iter().map(|broken| broken.name.as_deref());
        names.any(|name| name.unwrap_or(ALL_TYPES) == row.name)
    };
    let rows: Vec<TypeReason> = rows.iter().filter(|row| of_rule(row)).cloned().collect();
    reasons::reasons(&rows, sizes)
}

/// JUnit XML: a test for each rule, or one that passes when there is none.
pub fn junit(comparison: &Comparison, rows: &Rows) -> String {
    let types = comparison.types;
    let properties = [
        ("old", comparison.old.to_string()),
        ("new", comparison.new.to_string()),
        ("objects", signed(types.objects())),
        ("bytes", signed(types.bytes())),
        ("sizes", Sizes::GetSizeOf.name().to_string()),
    ];
    let mut cases: Vec<markup::TestCase> = comparison
        .rules
        .iter()
        .map(|rule| {
            let broken = comparison.broken.iter();
            let broken: Vec<&Broken> = broken.filter(|broken| broken.rule == *rule).collect();
            let mut lines: Vec<String> = Vec::new();
            lines.extend(broken.iter().map(|broken| broken_text(broken)));
            let causes = causes(comparison.reasons, &broken, comparison.sizes);
            markup::TestCase {
                name: rule.clone(),
                failure: lines.first().map(|first| {
                    let more = match lines.len() {
                        1 => String::new(),
                        number => format!(", and {} more", number - 1),
                    };
                    let whole = format!("{}\n{causes}", lines.join("\n"));
                    (format!("{first}{more}"), whole.trim_end().to_string())
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
    let note = versions_note(comparison.pythons).map_or(String::new(), |note| note + "\n\n");
    let whole = format!("{note}{}", text(comparison, rows));
    markup::suite("biopsy heap diff", &properties, &cases, &whole)
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
            pythons: ("3.12.1", "3.12.4"),
            types,
            fates,
            rules,
            broken,
            reasons: &[],
            sizes: Sizes::GetSizeOf,
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
            grew: 64,
            in_place: 0,
        }];
        let found = text(
            &comparison(&types, &[], &[], Some(&fates)),
            &Rows::default(),
        );
        let line = found.lines().find(|line| line.contains("400 B"));
        let line = line.expect("a line");
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        assert_eq!(
            words,
            [
                "dict", "2", "128", "B", "6", "400", "B", "4", "300", "B", "+64", "B"
            ]
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

    #[test]
    fn it_is_said_when_nothing_grew() {
        let mut types = types();
        let rows = Rows::default();
        assert!(!text(&comparison(&types, &[], &[], None), &rows).contains(ALL_SHRANK));
        types.rows.remove(0);
        let shown = text(&comparison(&types, &[], &[], None), &rows);
        assert!(shown.contains(&format!("\n\n{ALL_SHRANK}\n")), "{shown}");
        let shown = markdown(&comparison(&types, &[], &[], None), &rows);
        assert!(shown.contains("\nNothing grew: every type"), "{shown}");
        types.rows.remove(1);
        assert!(!text(&comparison(&types, &[], &[], None), &rows).contains(ALL_SHRANK));
    }

    #[test]
    fn versions_that_lay_objects_out_alike_are_not_told() {
        assert_eq!(versions_note(("3.12.1", "3.12.7")), None);
        assert!(versions_note(("3.11.7", "3.12.1")).is_some_and(|note| note.contains("3.11.7")));
    }
}
