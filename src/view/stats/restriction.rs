//! The restrictions of `print_stats()`: a number of rows, a share of them, or a pattern for the name.
//!
//! Patterns are written for Python's `re`; what differs in the regex crate's syntax is brought over, and
//! what it has not (looking around, references back) is refused.

use regex::Regex;

use crate::error::{Error, Result};

/// One restriction; several apply one after the other.
#[derive(Debug, Clone)]
pub enum Restriction {
    /// The first rows.
    First(u64),
    /// That share of the rows, 0 to 1.
    Share(f64),
    /// The rows whose printed name has the pattern.
    Matching {
        /// As it was typed.
        pattern: String,
        /// Compiled.
        regex: Regex,
    },
}

impl Restriction {
    /// Takes what `python -m pstats` takes: an integer, a fraction, else a pattern.
    pub fn parse(text: &str) -> Result<Restriction> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(Restriction::First(text.parse().unwrap_or(u64::MAX)));
        }
        // Not `nan` and `inf`, which Rust takes for numbers and a person for names.
        let numeric = text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c));
        if let (true, Ok(share)) = (numeric, text.parse::<f64>()) {
            if (0.0..=1.0).contains(&share) {
                return Ok(Restriction::Share(share));
            }
            return Err(Error::usage(
                format!("no restriction '{text}'"),
                "a share of the rows must be 0 to 1",
            )
            .hint(
                "10: the first ten rows; 0.1: a tenth of them; anything else: a pattern for names",
            ));
        }
        Restriction::matching(text)
    }

    /// The rows whose printed name has the pattern, even one that looks like a number.
    pub fn matching(pattern: &str) -> Result<Restriction> {
        let regex = compile(pattern).map_err(|error| {
            let text = error.to_string();
            // The crate draws the place on several lines and says what is wrong on the last.
            let why = text
                .lines()
                .last()
                .unwrap_or_default()
                .trim()
                .trim_start_matches("error: ");
            let shown = crate::units::printable(pattern);
            Error::usage(format!("cannot use the pattern '{shown}'"), why.to_string()).hint(
                "patterns are those of Python's re, without looking around and references back",
            )
        })?;
        Ok(Restriction::Matching {
            pattern: pattern.to_string(),
            regex,
        })
    }

    /// The rows that are left of `list`; `name` gives a row's printed name.
    pub(super) fn apply<'n>(&self, list: &mut Vec<usize>, name: impl Fn(usize) -> &'n str) {
        match self {
            Restriction::First(count) => {
                list.truncate(usize::try_from(*count).unwrap_or(usize::MAX));
            }
            Restriction::Share(share) if (0.0..1.0).contains(share) => {
                list.truncate((list.len() as f64 * share + 0.5) as usize);
            }
            Restriction::Share(_) => {}
            Restriction::Matching { regex, .. } => list.retain(|&row| regex.is_match(name(row))),
        }
    }

    /// The restriction as Python's `%r` has it.
    pub(super) fn python_repr(&self) -> String {
        match self {
            Restriction::First(count) => count.to_string(),
            Restriction::Share(share) => float_repr(*share),
            Restriction::Matching { pattern, .. } => text_repr(pattern),
        }
    }
}

/// Compiles a pattern in Python's syntax.
pub(super) fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    Regex::new(&translate(pattern))
}

/// Both write the shortest digits that read back, with an exponent below 1e-4; Python gives it two digits.
fn float_repr(value: f64) -> String {
    let text = format!("{value:?}");
    match text.split_once("e-") {
        Some((digits, exponent)) if exponent.len() == 1 => format!("{digits}e-0{exponent}"),
        _ => text,
    }
}

/// `repr()` of a str: single quotes unless there are single and no double quotes in it.
fn text_repr(text: &str) -> String {
    // Python escapes what is not printable: the Unicode categories "other" and "separator".
    let unprintable = Regex::new(r"^[\p{C}\p{Z}--\x20]$").ok();
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    let mut repr = String::from(quote);
    for c in text.chars() {
        let mut buffer = [0; 4];
        match c {
            '\\' => repr.push_str("\\\\"),
            '\n' => repr.push_str("\\n"),
            '\r' => repr.push_str("\\r"),
            '\t' => repr.push_str("\\t"),
            c if c == quote => repr.extend(['\\', c]),
            c if unprintable
                .as_ref()
                .is_some_and(|u| u.is_match(c.encode_utf8(&mut buffer))) =>
            {
                repr.push_str(&match c as u32 {
                    code @ ..0x100 => format!("\\x{code:02x}"),
                    code @ ..0x1_0000 => format!("\\u{code:04x}"),
                    code => format!("\\U{code:08x}"),
                });
            }
            c => repr.push(c),
        }
    }
    repr.push(quote);
    repr
}

/// What means something else in the regex crate: a brace that begins no repetition is itself in Python
/// (`{built-in`), `\<` is a plain `<`, `\Z` is the very end, and classes have no operators and no nesting.
fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut rest = pattern;
    // Position in a class: None outside, else characters since its `[` (a first `]` is plain).
    let mut class: Option<usize> = None;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        let mut length = c.len_utf8();
        match (c, class) {
            ('\\', _) => {
                let escaped = after.chars().next();
                length += escaped.map_or(0, char::len_utf8);
                match escaped {
                    Some(plain @ ('<' | '>')) => out.push(plain),
                    Some('Z') if class.is_none() => out.push_str("\\z"),
                    _ => out.push_str(&rest[..length]),
                }
            }
            ('[', None) => {
                out.push('[');
                if after.starts_with('^') {
                    out.push('^');
                    length += 1;
                }
                class = Some(0);
                rest = &rest[length..];
                continue;
            }
            (']', Some(0)) => out.push_str("\\]"),
            (']', Some(_)) => {
                out.push(']');
                class = None;
                rest = after;
                continue;
            }
            ('[' | '&' | '~', Some(_)) => out.extend(['\\', c]),
            ('-', Some(_)) if after.starts_with('-') => out.push_str("\\-"),
            ('{', None) => match repetition(after) {
                Some((low, high, end)) => {
                    out.push_str(&format!("{{{low}{high}}}"));
                    length += end;
                }
                None => out.push_str("\\{"),
            },
            ('}', None) => out.push_str("\\}"),
            _ => out.push(c),
        }
        class = class.map(|seen| seen + 1);
        rest = &rest[length..];
    }
    out
}

/// `3}`, `3,}`, `,5}` or `3,5}` at the start of `text`: lower bound, the rest, and its length.
fn repetition(text: &str) -> Option<(&str, String, usize)> {
    let end = text.find('}')?;
    let inner = &text[..end];
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (low, high) = match inner.split_once(',') {
        Some((low, high)) => (low, Some(high)),
        None => (inner, None),
    };
    if !digits(low) || !digits(high.unwrap_or_default()) || inner.is_empty() {
        return None;
    }
    let low = if low.is_empty() { "0" } else { low };
    let high = high.map_or(String::new(), |high| format!(",{high}"));
    Some((low, high, end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restrictions_as_people_type_them() {
        assert!(matches!(
            Restriction::parse("10"),
            Ok(Restriction::First(10))
        ));
        assert!(matches!(
            Restriction::parse("99999999999999999999"),
            Ok(Restriction::First(u64::MAX))
        ));
        assert!(matches!(
            Restriction::parse(".5"),
            Ok(Restriction::Share(_))
        ));
        assert!(matches!(
            Restriction::parse("inf"),
            Ok(Restriction::Matching { .. })
        ));
        for wrong in ["-1", "1.5", "(", "a(?=b)", "*"] {
            assert_eq!(
                Restriction::parse(wrong).map_err(|e| e.exit_code()).err(),
                Some(2),
                "{wrong}"
            );
        }
    }

    #[test]
    fn reprs_are_those_of_python() {
        for (value, repr) in [
            (0.1, "0.1"),
            (0.00005, "5e-05"),
            (0.0001, "0.0001"),
            (1e-12, "1e-12"),
            (0.0, "0.0"),
        ] {
            assert_eq!(float_repr(value), repr);
        }
        for (text, repr) in [
            ("a", "'a'"),
            ("it's", "\"it's\""),
            ("'\"", "'\\'\"'"),
            (
                "\\d\n\u{1}\u{a0}\u{2028}é 𝄞\u{e0001}",
                "'\\\\d\\n\\x01\\xa0\\u2028é 𝄞\\U000e0001'",
            ),
        ] {
            assert_eq!(text_repr(text), repr);
        }
    }

    #[test]
    fn python_syntax_is_brought_over() {
        for (pattern, matched, not) in [
            ("{built-in", "{built-in method}", "built-in"),
            ("a{2}b", "aab", "ab"),
            ("^a{,2}b", "aab", "aaab"),
            ("{}", "{}", "{"),
            (r"\<module\>\)\Z", "a.py:1(<module>)", "<module>) "),
            ("[[]x[]]", "[x]", "x"),
            ("[^]]$", "a", "]"),
            ("[a&&b]", "&", "c"),
            ("[^a-z]{3}", "123", "abc"),
        ] {
            let regex = compile(pattern).expect(pattern);
            assert!(regex.is_match(matched) && !regex.is_match(not), "{pattern}");
        }
    }
}
