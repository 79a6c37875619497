//! Quantities: process and thread ids, target addresses, rates and durations as people type them, and
//! text from the target made safe to print.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A process id in our own PID namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pid(pub i32);

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An OS thread id in our own PID namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tid(pub i32);

impl fmt::Display for Tid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An address in the target's memory, never in ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Addr(pub u64);

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// How often to sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rate {
    /// Samples a second, more than 0 and at most 1,000,000.
    Hz(f64),
    /// As fast as one core goes.
    Max,
}

impl Rate {
    /// Samples a second; for `Max` there is no number.
    pub fn hz(self) -> Option<f64> {
        match self {
            Rate::Hz(hz) => Some(hz),
            Rate::Max => None,
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rate::Hz(hz) => write!(f, "{hz} Hz"),
            Rate::Max => f.write_str("full speed"),
        }
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Rate::Max);
        }
        let (number, factor) = match text.strip_suffix(['k', 'K']) {
            Some(number) => (number, 1000.0),
            None => (text, 1.0),
        };
        let hz = number
            .parse::<f64>()
            .map_err(|_| "expected samples a second such as 1000 or 10k, or max".to_string())?
            * factor;
        if hz > 0.0 && hz <= 1e6 {
            Ok(Rate::Hz(hz))
        } else {
            Err("must be more than 0 and at most 1000k".to_string())
        }
    }
}

/// `1 sample`, `2 samples`.
pub fn several(count: u64, noun: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{ending}")
}

/// As [`parse_duration`], and 0: the beginning of a recording.
pub fn parse_moment(text: &str) -> Result<Duration, String> {
    match text {
        "0" | "0s" | "0.0" => Ok(Duration::ZERO),
        _ => parse_duration(text),
    }
}

/// Parses `30`, `30s`, `1.5m`, `250ms`, `2h`; at most 10,000 hours.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let seconds = match unit {
        "" | "s" => 1.0,
        "ms" => 0.001,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err("expected a time such as 30, 30s, 5m or 250ms".to_string()),
    };
    let value = number
        .parse::<f64>()
        .map_err(|_| "expected a time such as 30, 30s, 5m or 250ms".to_string())?
        * seconds;
    if value > 0.0 && value <= 3.6e7 {
        Ok(Duration::from_secs_f64(value))
    } else {
        Err("must be more than 0 and at most 10000h".to_string())
    }
}

/// Parses `512B`, `5KiB`, `1.5MiB`, `2GiB` and, by thousands, `5KB`, `5MB`, `5GB`, without regard to case; a
/// bare number is bytes. Rounded to bytes, at most 2^53.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let wrong = || "expected a size such as 512B, 64KiB, 1.5MiB or 5MB".to_string();
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        "kib" => 1024.0,
        "mib" => 1024.0 * 1024.0,
        "gib" => 1024.0 * 1024.0 * 1024.0,
        _ => return Err(wrong()),
    };
    let bytes = number.parse::<f64>().map_err(|_| wrong())? * factor;
    if bytes <= (1u64 << 53) as f64 {
        Ok(bytes.round() as u64)
    } else {
        Err("must be at most 8 PiB".to_string())
    }
}

/// Bytes for people: `512 B`, `1.5 KiB`, `335.2 MiB`.
pub fn format_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// What stands at the end of a text of which so many characters are left out.
pub fn cut_mark(left_out: u64) -> String {
    format!("… (+{left_out} characters)")
}

/// At most `most` characters of `text`, and a [`cut_mark`] where some are left out. What marks in the part that is left out
/// say is counted too.
pub fn shortened(text: &str, most: usize) -> Cow<'_, str> {
    let Some((end, _)) = text.char_indices().nth(most) else {
        return Cow::Borrowed(text);
    };
    let mut left_out = 0u64;
    for (at, part) in text[end..].split("… (+").enumerate() {
        let marked = part.split_once(" characters)").filter(|_| at > 0);
        let counted = marked.and_then(|(count, rest)| Some((count.parse::<u64>().ok()?, rest)));
        let (before, rest) = match counted {
            Some(counted) => counted,
            // Letters that only look like the beginning of a mark.
            None => (if at > 0 { 4 } else { 0 }, part),
        };
        left_out = left_out.saturating_add(before);
        left_out = left_out.saturating_add(rest.chars().count() as u64);
    }
    Cow::Owned(format!("{}{}", &text[..end], cut_mark(left_out)))
}

/// Text from the target with control characters written as escapes (`\x1b`, `\n`, `\u{202e}`), so that it
/// cannot move a terminal's cursor or break a line-based format.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(needs_escape) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\n' => safe.push_str("\\n"),
            '\t' => safe.push_str("\\t"),
            '\r' => safe.push_str("\\r"),
            c if needs_escape(c) && (c as u32) < 0x100 => {
                safe.push_str(&format!("\\x{:02x}", c as u32));
            }
            c if needs_escape(c) => safe.push_str(&format!("\\u{{{:x}}}", c as u32)),
            c => safe.push(c),
        }
    }
    Cow::Owned(safe)
}

/// Control characters, line separators, and the marks that reorder or hide text on a terminal.
fn needs_escape(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{feff}'
        )
        || ('\u{202a}'..='\u{202e}').contains(&c)
        || ('\u{2066}'..='\u{2069}').contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_is_counted() {
        assert_eq!(shortened("früh", 4), "früh");
        assert_eq!(shortened("früher", 4), "früh… (+2 characters)");
        let cut = format!("früher{}[0]", cut_mark(1000));
        assert_eq!(shortened(&cut, 100), cut.as_str());
        assert_eq!(shortened(&cut, 4), "früh… (+1005 characters)");
        assert_eq!(shortened("a… (+x characters)", 1), "a… (+17 characters)");
    }

    #[test]
    fn rates_as_people_type_them() {
        assert_eq!("1000".parse(), Ok(Rate::Hz(1000.0)));
        assert_eq!("10k".parse(), Ok(Rate::Hz(10_000.0)));
        assert_eq!("0.5".parse(), Ok(Rate::Hz(0.5)));
        assert_eq!("max".parse(), Ok(Rate::Max));
        for wrong in ["", "0", "-1", "nan", "inf", "1e9", "fast", "k"] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations_as_people_type_them() {
        assert_eq!(parse_duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        for wrong in ["", "s", "0", "-3", "3x", "1..2", "999999999999h"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_as_people_type_them() {
        for (text, bytes) in [
            ("512", 512),
            ("0B", 0),
            ("1.5KiB", 1536),
            ("5MB", 5_000_000),
            ("5mib", 5 << 20),
            ("2 GiB", 2 << 30),
            ("1GB", 1_000_000_000),
            ("3kb", 3000),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for wrong in [
            "",
            "B",
            "-1",
            "1e3",
            "1..2",
            "5X",
            "5 M B",
            "nan",
            "99999999GiB",
        ] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn bytes_for_people() {
        assert_eq!(format_bytes(512), "512 B");
        assert_eq!(format_bytes(1536), "1.5 KiB");
        assert_eq!(format_bytes(5 << 30), "5.0 GiB");
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(printable("plain é"), "plain é");
        assert_eq!(printable("a\x1b[2Jb\n"), "a\\x1b[2Jb\\n");
        assert_eq!(printable("\u{202e}x"), "\\u{202e}x");
    }
}
