//! The sort keys of `pstats.Stats.sort_stats()` and their abbreviations.

use std::cmp::Ordering;

use crate::error::{Error, Result};

/// What rows are sorted by: biggest numbers first, names and lines in ascending order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SortKey {
    /// All calls.
    Calls,
    /// Cumulative time.
    Cumulative,
    /// File.
    File,
    /// First line.
    Line,
    /// Name.
    Name,
    /// Name, then file, then line.
    NameFileLine,
    /// Calls that were not recursive.
    PrimitiveCalls,
    /// The name as printed; `10` stands before `9` in it.
    StandardName,
    /// Own time.
    Time,
}

/// The words, in the order of `sort_arg_dict_default`: it decides which abbreviations are left.
const WORDS: [(&str, SortKey); 13] = [
    ("calls", SortKey::Calls),
    ("ncalls", SortKey::Calls),
    ("cumtime", SortKey::Cumulative),
    ("cumulative", SortKey::Cumulative),
    ("filename", SortKey::File),
    ("line", SortKey::Line),
    ("module", SortKey::File),
    ("name", SortKey::Name),
    ("nfl", SortKey::NameFileLine),
    ("pcalls", SortKey::PrimitiveCalls),
    ("stdname", SortKey::StandardName),
    ("time", SortKey::Time),
    ("tottime", SortKey::Time),
];

/// What a comparison needs of a row.
pub(super) struct SortRow<'a> {
    pub(super) ncalls: u64,
    pub(super) primitive: u64,
    pub(super) tottime: f64,
    pub(super) cumtime: f64,
    pub(super) file: &'a str,
    pub(super) line: u32,
    pub(super) name: &'a str,
    pub(super) standard_name: &'a str,
}

impl SortKey {
    /// The key of a word or of an abbreviation that pstats takes too, or of the numbers -1 to 2 of the
    /// old profiler.
    pub fn parse(word: &str) -> Result<SortKey> {
        match word {
            "-1" => return Ok(SortKey::StandardName),
            "0" => return Ok(SortKey::Calls),
            "1" => return Ok(SortKey::Time),
            "2" => return Ok(SortKey::Cumulative),
            _ => {}
        }
        let known = abbreviations();
        if let Some((_, key)) = known.iter().find(|(known, _)| *known == word) {
            return Ok(*key);
        }
        let meant: Vec<&str> = WORDS
            .iter()
            .map(|(whole, _)| *whole)
            .filter(|whole| !word.is_empty() && whole.starts_with(word))
            .collect();
        let why = if meant.is_empty() {
            "pstats has no such key".to_string()
        } else {
            format!("may mean {}", meant.join(" or "))
        };
        let words: Vec<&str> = WORDS.iter().map(|(word, _)| *word).collect();
        Err(Error::usage(
            format!("cannot sort by '{}'", crate::units::printable(word)),
            why,
        )
        .hint(format!("keys: {}", words.join(", "))))
    }

    /// The words of the line `Ordered by:`.
    pub fn description(self) -> &'static str {
        match self {
            SortKey::Calls => "call count",
            SortKey::Cumulative => "cumulative time",
            SortKey::File => "file name",
            SortKey::Line => "line number",
            SortKey::Name => "function name",
            SortKey::NameFileLine => "name/file/line",
            SortKey::PrimitiveCalls => "primitive call count",
            SortKey::StandardName => "standard name",
            SortKey::Time => "internal time",
        }
    }

    /// Text compares by code point, as in Python, which is what Rust's byte order amounts to.
    pub(super) fn compare(self, left: &SortRow<'_>, right: &SortRow<'_>) -> Ordering {
        match self {
            SortKey::Calls => right.ncalls.cmp(&left.ncalls),
            SortKey::Cumulative => compare_times(right.cumtime, left.cumtime),
            SortKey::File => left.file.cmp(right.file),
            SortKey::Line => left.line.cmp(&right.line),
            SortKey::Name => left.name.cmp(right.name),
            SortKey::NameFileLine => {
                (left.name, left.file, left.line).cmp(&(right.name, right.file, right.line))
            }
            SortKey::PrimitiveCalls => right.primitive.cmp(&left.primitive),
            SortKey::StandardName => left.standard_name.cmp(right.standard_name),
            SortKey::Time => compare_times(right.tottime, left.tottime),
        }
    }
}

/// Zeros of either sign are equal; what is not a number has a place of its own, for a sort has to be
/// given a total order.
fn compare_times(left: f64, right: f64) -> Ordering {
    left.partial_cmp(&right)
        .unwrap_or_else(|| left.is_nan().cmp(&right.is_nan()))
}

/// Every abbreviation that pstats takes. It walks from each word to its first letter and stops at the
/// first piece that an earlier word has taken, which then counts for neither: `cum` is ambiguous, `cu` is
/// not.
fn abbreviations() -> Vec<(&'static str, SortKey)> {
    let mut known: Vec<(&str, SortKey)> = Vec::new();
    let mut ambiguous: Vec<&str> = Vec::new();
    for (word, key) in WORDS {
        for end in (1..=word.len()).rev() {
            let piece = &word[..end];
            if known.iter().any(|(taken, _)| *taken == piece) {
                ambiguous.push(piece);
                break;
            }
            known.push((piece, key));
        }
    }
    known.retain(|(piece, _)| !ambiguous.contains(piece));
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn abbreviations_are_those_of_pstats() {
        assert_eq!(SortKey::parse("tot").ok(), Some(SortKey::Time));
        assert_eq!(SortKey::parse("cu").ok(), Some(SortKey::Cumulative));
        assert_eq!(SortKey::parse("cumu").ok(), Some(SortKey::Cumulative));
        assert_eq!(SortKey::parse("s").ok(), Some(SortKey::StandardName));
        for wrong in ["", "n", "c", "t", "cum", "file names", "Time", "ä"] {
            assert_eq!(
                SortKey::parse(wrong).map_err(|error| error.exit_code()),
                Err(2),
                "{wrong}"
            );
        }
        let error = SortKey::parse("cum").expect_err("ambiguous");
        assert_eq!(
            error.to_string(),
            "cannot sort by 'cum': may mean cumtime or cumulative"
        );
    }

    #[test]
    fn the_order_is_total_whatever_the_times() {
        let mut times = [f64::NAN, 1.0, -0.0, f64::INFINITY, 0.0, f64::NAN, -1.0];
        times.sort_by(|a, b| compare_times(*a, *b));
        assert_eq!(times[..2], [-1.0, -0.0]);
        assert!(times[5].is_nan() && times[6].is_nan());
    }
}
