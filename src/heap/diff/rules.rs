//! Limits to growth, as `--fail-on` has them: `total:+10%`, `total:+5MiB`, `objects:+1000`, `myapp.*:+100`,
//! `dict:+1MiB`.
//!
//! Before the last colon stands what is limited: `total` is the bytes of all objects, `objects` the number of
//! all objects, anything else a pattern (`*`, `?`) over names of types, each of which is held to the limit by
//! itself. Behind it stands by how much it may grow: a number of objects, bytes with a unit, or a percentage of
//! what there was before, of objects for `objects` and else of bytes. A rule is broken by growing more.

use std::fmt;

use super::{Amount, CensusDiff, signed};
use crate::error::{Error, Result};
use crate::glob;
use crate::units;

/// What a rule is about.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Subject {
    /// Bytes of all objects.
    Total,
    /// Number of all objects.
    Objects,
    /// Each type whose name matches.
    Types(String),
}

/// By how much it may grow.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Limit {
    Objects(u64),
    Bytes(u64),
    /// Per cent of what there was.
    Percent(f64),
}

/// One limit.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    text: String,
    subject: Subject,
    limit: Limit,
}

/// By how much something grew.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Actual {
    /// In objects.
    Objects(i64),
    /// In bytes.
    Bytes(i64),
    /// In per cent of what there was; infinite when there was nothing.
    Percent(f64),
}

impl fmt::Display for Actual {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Actual::Objects(objects) => write!(f, "{objects:+} objects"),
            Actual::Bytes(bytes) => {
                let sign = if bytes < 0 { '-' } else { '+' };
                write!(f, "{sign}{}", units::format_bytes(bytes.unsigned_abs()))
            }
            Actual::Percent(percent) if percent.is_infinite() => {
                f.write_str("there was none before")
            }
            Actual::Percent(percent) => write!(f, "{percent:+.1}%"),
        }
    }
}

/// A limit that was exceeded.
#[derive(Debug, Clone, PartialEq)]
pub struct Broken {
    /// The rule, as it was typed.
    pub rule: String,
    /// The type that grew; `None` for rules about all objects.
    pub name: Option<String>,
    /// By how much, in the unit of the rule.
    pub actual: Actual,
}

impl Rule {
    /// Reads a rule as it is typed. What is wrong with it is a usage error.
    pub fn parse(text: &str) -> Result<Rule> {
        let wrong = |why: String| {
            Error::usage(format!("wrong rule '{text}'"), why)
                .hint("a rule is such as total:+10%, total:+5MiB, objects:+1000, 'myapp.*:+100' or dict:+1MiB")
        };
        let (subject, limit) = text
            .rsplit_once(':')
            .ok_or_else(|| wrong("there is no ':' between what and how much".to_string()))?;
        let subject = match subject.trim() {
            "" => return Err(wrong("it does not say what may not grow".to_string())),
            "total" => Subject::Total,
            "objects" => Subject::Objects,
            pattern => Subject::Types(pattern.to_string()),
        };
        let limit = limit
            .trim()
            .strip_prefix('+')
            .ok_or_else(|| wrong("how much it may grow begins with '+'".to_string()))?;
        let limit = parse_limit(limit).map_err(wrong)?;
        match (&subject, limit) {
            (Subject::Total, Limit::Objects(number)) => Err(wrong(format!(
                "total is in bytes: {number}B, {number}KiB or {number}%"
            ))),
            (Subject::Objects, Limit::Bytes(_)) => {
                Err(wrong("objects are counted, without a unit".to_string()))
            }
            _ => Ok(Rule {
                text: text.to_string(),
                subject,
                limit,
            }),
        }
    }

    /// By how much something grew, when that is more than it may.
    fn excess(&self, old: Amount, new: Amount) -> Option<Actual> {
        let (bytes, objects) = (
            signed(old.bytes, new.bytes),
            signed(old.objects, new.objects),
        );
        let exceeds = |growth: i64, limit: u64| u64::try_from(growth).is_ok_and(|by| by > limit);
        match self.limit {
            Limit::Objects(limit) => exceeds(objects, limit).then_some(Actual::Objects(objects)),
            Limit::Bytes(limit) => exceeds(bytes, limit).then_some(Actual::Bytes(bytes)),
            Limit::Percent(limit) => {
                let (before, growth) = match self.subject {
                    Subject::Objects => (old.objects, objects),
                    Subject::Total | Subject::Types(_) => (old.bytes, bytes),
                };
                if growth <= 0 {
                    return None;
                }
                let percent = growth as f64 / before as f64 * 100.0;
                (percent > limit).then_some(Actual::Percent(percent))
            }
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn parse_limit(text: &str) -> Result<Limit, String> {
    if let Some(number) = text.strip_suffix('%') {
        let percent = number.trim().parse::<f64>();
        return match percent {
            Ok(percent) if (0.0..=1e9).contains(&percent) && is_plain(number.trim()) => {
                Ok(Limit::Percent(percent))
            }
            _ => Err(format!("'{number}' is no percentage")),
        };
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let number = text.parse();
        return number
            .map(Limit::Objects)
            .map_err(|_| format!("{text} is too many"));
    }
    units::parse_bytes(text).map(Limit::Bytes).map_err(|why| {
        format!("'{text}' is no number of objects, no size and no percentage: {why}")
    })
}

/// Whether a number is written without signs, exponents and names.
fn is_plain(number: &str) -> bool {
    number
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.')
}

/// The rules that `diff` breaks: in their order, types by how much they grew as in [`CensusDiff::rows`].
pub fn evaluate(rules: &[Rule], diff: &CensusDiff) -> Vec<Broken> {
    let mut broken = Vec::new();
    for rule in rules {
        let mut hold = |name: Option<&str>, old: Amount, new: Amount| {
            if let Some(actual) = rule.excess(old, new) {
                broken.push(Broken {
                    rule: rule.text.clone(),
                    name: name.map(str::to_string),
                    actual,
                });
            }
        };
        match &rule.subject {
            Subject::Total | Subject::Objects => hold(None, diff.old, diff.new),
            Subject::Types(pattern) => {
                for row in &diff.rows {
                    if glob::matches(pattern, &row.name) {
                        let (old, new) = (row.old, row.new);
                        hold(
                            Some(&row.name),
                            old.unwrap_or_default(),
                            new.unwrap_or_default(),
                        );
                    }
                }
            }
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::super::DiffRow;
    use super::*;

    fn amount(objects: u64, bytes: u64) -> Amount {
        Amount { objects, bytes }
    }

    fn diff() -> CensusDiff {
        let row = |name: &str, old: Option<Amount>, new: Option<Amount>| DiffRow {
            name: name.to_string(),
            old,
            new,
        };
        CensusDiff {
            old: amount(1000, 100_000),
            new: amount(1250, 120_000),
            rows: vec![
                row("dict", Some(amount(100, 20_000)), Some(amount(90, 36_384))),
                row("myapp.User", Some(amount(10, 480)), Some(amount(160, 7680))),
                row("myapp.Order", None, Some(amount(5, 240))),
                row("list", Some(amount(50, 5000)), None),
            ],
        }
    }

    #[test]
    fn rules_hold_or_break() {
        let all = |rule: &str| -> Vec<(Option<String>, String)> {
            let rule = Rule::parse(rule).expect("a rule");
            let broken = evaluate(std::slice::from_ref(&rule), &diff());
            assert!(broken.iter().all(|broken| broken.rule == rule.to_string()));
            broken
                .into_iter()
                .map(|broken| (broken.name, broken.actual.to_string()))
                .collect()
        };
        let whole = |actual: &str| vec![(None, actual.to_string())];
        let typed = |name: &str, actual: &str| (Some(name.to_string()), actual.to_string());
        for (rule, expected) in [
            ("total:+20%", vec![]),
            ("total:+19.9%", whole("+20.0%")),
            ("total:+20000B", vec![]),
            ("total:+20KB", vec![]),
            ("total:+19999B", whole("+19.5 KiB")),
            ("total:+5MiB", vec![]),
            ("objects:+250", vec![]),
            ("objects:+249", whole("+250 objects")),
            ("objects:+0", whole("+250 objects")),
            ("objects:+24%", whole("+25.0%")),
            ("objects:+25%", vec![]),
            ("myapp.*:+100", vec![typed("myapp.User", "+150 objects")]),
            (
                "myapp.*:+4",
                vec![
                    typed("myapp.User", "+150 objects"),
                    typed("myapp.Order", "+5 objects"),
                ],
            ),
            (
                "myapp.*:+1500%",
                vec![typed("myapp.Order", "there was none before")],
            ),
            ("dict:+16KiB", vec![]),
            ("dict:+15.5KiB", vec![typed("dict", "+16.0 KiB")]),
            ("dict:+0", vec![]),
            ("list:+0%", vec![]),
            ("list:+0B", vec![]),
            ("nothing.here:+0", vec![]),
            (
                "*:+0",
                vec![
                    typed("myapp.User", "+150 objects"),
                    typed("myapp.Order", "+5 objects"),
                ],
            ),
        ] {
            assert_eq!(all(rule), expected, "{rule}");
        }
    }

    #[test]
    fn nothing_before_and_nothing_now_breaks_nothing() {
        let empty = CensusDiff {
            old: amount(0, 0),
            new: amount(0, 0),
            rows: Vec::new(),
        };
        let rules =
            ["total:+0%", "objects:+0%", "*:+0%"].map(|rule| Rule::parse(rule).expect("rule"));
        assert_eq!(evaluate(&rules, &empty), []);
    }

    #[test]
    fn wrong_rules_are_usage_errors_that_say_why() {
        for (rule, why) in [
            ("", "no ':'"),
            ("total", "no ':'"),
            (":+5", "what may not grow"),
            ("total:5MiB", "begins with '+'"),
            ("total:-5MiB", "begins with '+'"),
            ("total:+1000", "in bytes"),
            ("objects:+5MiB", "without a unit"),
            ("dict:+", "no number"),
            ("dict:+5XiB", "no number"),
            ("dict:+-5", "no number"),
            ("dict:+%", "no percentage"),
            ("dict:+nan%", "no percentage"),
            ("dict:+inf%", "no percentage"),
            ("dict:+1e3%", "no percentage"),
            ("dict:+99999999999999999999", "too many"),
            ("dict:+99999999999999999999GiB", "no number"),
        ] {
            let error = Rule::parse(rule).expect_err(rule);
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(why), "{rule}: {error}");
            assert_eq!(error.hints().count(), 1);
        }
    }

    #[test]
    fn names_may_hold_colons() {
        let rule = Rule::parse("<enum 'a:b'>:+1").expect("a rule");
        assert_eq!(rule.subject, Subject::Types("<enum 'a:b'>".to_string()));
    }
}
