//! What `biopsy calls` prints: for each function its calls, durations, a histogram as bcc's `funclatency` prints it, and its
//! callers.

use std::fmt::Write;
use std::time::Duration;

use crate::heap::functions::{CodeKind, CodeObject, shown};
use crate::sample::timings::{Counted, Outcome, Sure};
use crate::units::printable;

/// Letters of the longest bar.
const BAR: usize = 40;

/// Callers that are shown.
const CALLERS: usize = 10;

/// All that is told.
#[derive(Debug)]
pub struct Report<'a> {
    /// The process.
    pub pid: i32,
    /// Its Python.
    pub python: String,
    /// Its command line.
    pub command: String,
    /// For how long it was stopped to find the functions; `None` when it was not.
    pub paused: Option<Duration>,
    /// The functions.
    pub codes: &'a [CodeObject],
    /// What was found of each.
    pub outcome: &'a Outcome,
}

/// What is counted of a function, in words: what a call makes, and what lasts how long.
pub fn counted(kind: CodeKind) -> (&'static str, &'static str) {
    match kind {
        CodeKind::Function => ("calls", "durations"),
        CodeKind::Generator => ("generators made", "lifetimes"),
        CodeKind::Coroutine => ("coroutines made", "lifetimes"),
        CodeKind::AsyncGenerator => ("asynchronous generators made", "lifetimes"),
    }
}

/// The report as text.
pub fn text(report: &Report) -> String {
    let outcome = report.outcome;
    let mut text = format!(
        "process {}, Python {}, {:.2} s, {} {} watched; a call takes {} longer meanwhile\n",
        report.pid,
        printable(&report.python),
        outcome.seconds,
        outcome.threads,
        if outcome.threads == 1 {
            "thread"
        } else {
            "threads"
        },
        time(2 * outcome.cost_ns),
    );
    if let Some(paused) = report.paused {
        let _ = writeln!(
            text,
            "stopped for {:.1} ms to find the functions",
            paused.as_secs_f64() * 1e3
        );
    }
    for (code, counted) in report.codes.iter().zip(&outcome.functions) {
        text.push('\n');
        function(&mut text, code, counted, outcome);
    }
    text
}

fn function(text: &mut String, code: &CodeObject, found: &Counted, outcome: &Outcome) {
    let (what, _) = counted(code.kind);
    let _ = writeln!(
        text,
        "{} ({}:{})",
        shown(code),
        printable(&code.file),
        code.first_line
    );
    let number = number(found);
    let mark = match found.sure {
        Sure::Counted => "",
        Sure::AtLeast => ">=",
        Sure::Estimated(_) => "~",
    };
    let rate = found.calls / outcome.seconds;
    let _ = writeln!(text, "  {what}: {number}, {mark}{}/s", short(rate));
    if code.kind.is_lazy() {
        let _ = writeln!(
            text,
            "  counted when they are made, not when they are resumed; lifetimes are not known"
        );
    } else {
        durations(text, found);
    }
    callers(text, found, outcome);
    for note in &found.notes {
        let _ = writeln!(text, "  note: {note}");
    }
}

fn number(found: &Counted) -> String {
    match found.sure {
        Sure::Counted => format!("{:.0}", found.calls),
        Sure::AtLeast => format!(">={:.0}", found.calls),
        Sure::Estimated(error) => format!("~{:.0} +- {error:.0}", found.calls),
    }
}

fn short(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

fn durations(text: &mut String, found: &Counted) {
    let all = &found.durations;
    let shares = all.percentiles([0.5, 0.9, 0.99]);
    let (Some([p50, p90, p99]), Some(min), Some(max)) = (shares, all.min(), all.max()) else {
        text.push_str("  no call was seen from its beginning to its end\n");
        return;
    };
    let mark = if matches!(found.sure, Sure::Estimated(_)) {
        "~"
    } else {
        ""
    };
    let _ = writeln!(
        text,
        "  min {}   p50 {mark}{}   p90 {mark}{}   p99 {mark}{}   max {}   (of {})",
        time(min),
        time(p50),
        time(p90),
        time(p99),
        time(max),
        all.count()
    );
    let (unit, name) = match p50 {
        ..10_000 => (1, "nsecs"),
        10_000..20_000_000 => (1_000, "usecs"),
        _ => (1_000_000, "msecs"),
    };
    let rows = all.powers(unit);
    let most = rows.iter().map(|row| row.2).fold(0.0, f64::max);
    let _ = writeln!(text, "{name:>10}{:>17}: count     distribution", "");
    for (from, to, count) in rows {
        let stars = "*".repeat((count / most.max(1e-9) * BAR as f64) as usize);
        let _ = writeln!(
            text,
            "{from:>10} -> {to:<10}  : {count:<8.0} |{stars:<BAR$}|"
        );
    }
}

fn callers(text: &mut String, found: &Counted, outcome: &Outcome) {
    let seen = &found.seen;
    if seen.samples == 0 {
        let _ = writeln!(
            text,
            "  callers: not seen on any of {} sampled stacks",
            outcome.stacks
        );
        return;
    }
    let _ = writeln!(
        text,
        "  callers, by share of the {} sampled stacks with it:",
        seen.samples
    );
    for caller in seen.callers.iter().take(CALLERS) {
        let share = caller.samples as f64 / seen.samples as f64 * 100.0;
        let name = match caller.name.as_str() {
            "" => "(none: it is a thread's first)".to_string(),
            name => format!(
                "{} ({}:{})",
                printable(name),
                printable(&caller.file),
                caller.line
            ),
        };
        let _ = writeln!(text, "  {share:>6.1} %  {name}");
    }
    if let Some(more) = seen.callers.len().checked_sub(CALLERS + 1) {
        let _ = writeln!(text, "            and {} more", more + 1);
    }
}

/// A time for people: three digits and a unit.
pub fn time(ns: u64) -> String {
    let digits = |value: f64, unit: &str| match value {
        value if value >= 100.0 => format!("{value:.0} {unit}"),
        value if value >= 10.0 => format!("{value:.1} {unit}"),
        value => format!("{value:.2} {unit}"),
    };
    match ns {
        ..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => digits(ns as f64 / 1e3, "us"),
        1_000_000..1_000_000_000 => digits(ns as f64 / 1e6, "ms"),
        _ => digits(ns as f64 / 1e9, "s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::timings::{Caller, Durations, Seen};

    #[test]
    fn times_have_three_digits() {
        let shown = [0, 999, 1_000, 12_345, 123_456, 9_999_999, 1_500_000_000].map(time);
        assert_eq!(
            shown,
            [
                "0 ns", "999 ns", "1.00 us", "12.3 us", "123 us", "10.00 ms", "1.50 s"
            ]
        );
    }

    #[test]
    fn a_report_says_all() {
        let code = |kind| CodeObject {
            address: 8,
            module: "app".to_string(),
            qualname: "evil\x1b[2J".to_string(),
            name: "evil".to_string(),
            file: "/srv/app.py".to_string(),
            first_line: 3,
            lines: vec![3],
            kind,
            immortal: false,
            is_body: false,
        };
        let mut durations = Durations::default();
        for value in 1..=1000 {
            durations.add(value * 100, 1.0);
        }
        let counted = |sure, durations| Counted {
            calls: 1000.0,
            sure,
            durations,
            left: 0,
            created: 0,
            reads: 0,
            seen: Seen {
                samples: 4,
                callers: vec![Caller {
                    file: "/srv/app.py".to_string(),
                    line: 9,
                    name: "main".to_string(),
                    samples: 3,
                }],
            },
            notes: vec!["a note".to_string()],
        };
        let outcome = Outcome {
            functions: vec![
                counted(Sure::Estimated(12.3), durations),
                counted(Sure::AtLeast, Durations::default()),
                Counted {
                    seen: Seen::default(),
                    ..counted(Sure::Counted, Durations::default())
                },
            ],
            seconds: 2.0,
            threads: 1,
            came: 0,
            unwatched: 0,
            hits: 2000,
            cost_ns: 7000,
            watched: 1.0,
            stacks: 300,
            notes: Vec::new(),
        };
        let codes = [
            code(CodeKind::Function),
            code(CodeKind::Function),
            code(CodeKind::Coroutine),
        ];
        let report = Report {
            pid: 5,
            python: "3.12.1".to_string(),
            command: String::new(),
            paused: Some(Duration::from_millis(3)),
            codes: &codes,
            outcome: &outcome,
        };
        let text = text(&report);
        for expected in [
            "process 5, Python 3.12.1, 2.00 s, 1 thread watched; a call takes 14.0 us longer",
            "stopped for 3.0 ms",
            "calls: ~1000 +- 12, ~500/s",
            "min 100 ns   p50 ~50.0 us   p90 ~90.0 us   p99 ~99.0 us   max 100 us   (of 1000)",
            "usecs",
            "        32 -> 63          : 320      |",
            "calls: >=1000, >=500/s",
            "no call was seen from its beginning to its end",
            "coroutines made: 1000, 500/s",
            "counted when they are made",
            "75.0 %  main (/srv/app.py:9)",
            "not seen on any of 300 sampled stacks",
            "note: a note",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
        assert!(!text.contains('\x1b'));
    }
}
