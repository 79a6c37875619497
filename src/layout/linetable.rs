//! From a code unit to its line, for each of the encodings that CPython has had.
//!
//! `co_lnotab` of 3.6 to 3.9: Objects/lnotab_notes.txt of 3.9. `co_linetable` of 3.10: PEP 626 and
//! Objects/lnotab_notes.txt of 3.10. Location table of 3.11 and newer: Objects/locations.md of 3.11 (it moved to
//! InternalDocs/code_objects.md). Bytes come from the target: any content gives some answer, never a panic.

use super::LineCoding;

/// The lines of one code object: `(first unit, line)` by rising unit; line 0 for units without one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lines {
    runs: Vec<(u32, u32)>,
    first_line: u32,
}

impl Lines {
    /// Decodes a table; `first_line` is `co_firstlineno`.
    pub fn decode(coding: LineCoding, table: &[u8], first_line: i32) -> Lines {
        let mut lines = Lines {
            runs: Vec::new(),
            first_line: u32::try_from(first_line).unwrap_or(0),
        };
        match coding {
            LineCoding::Lnotab => lines.lnotab(table, i64::from(first_line)),
            LineCoding::Pep626 => lines.pep626(table, i64::from(first_line)),
            LineCoding::Locations => lines.locations(table, i64::from(first_line)),
        }
        lines
    }

    /// The line of the 2-byte unit `unit`, 0 when it has none; the function's first line before the table starts.
    pub fn line(&self, unit: u32) -> u32 {
        let after = self.runs.partition_point(|(start, _)| *start <= unit);
        match after.checked_sub(1).and_then(|at| self.runs.get(at)) {
            Some((_, line)) => *line,
            None => self.first_line,
        }
    }

    /// All lines that there are, rising, each once.
    pub fn all(&self) -> Vec<u32> {
        let mut lines: Vec<u32> = self.runs.iter().map(|(_, line)| *line).collect();
        lines.sort_unstable();
        lines.dedup();
        lines.retain(|line| *line != 0);
        lines
    }

    fn push(&mut self, byte: u64, line: i64) {
        let unit = u32::try_from(byte / 2).unwrap_or(u32::MAX);
        let line = u32::try_from(line).unwrap_or(0);
        match self.runs.last_mut() {
            // Two entries for the same place: the later one counts.
            Some(last) if last.0 == unit => last.1 = line,
            Some(last) if last.1 == line => {}
            _ => self.runs.push((unit, line)),
        }
    }

    /// Pairs (unsigned byte delta, signed line delta): the line changes after the bytes have passed.
    fn lnotab(&mut self, table: &[u8], first_line: i64) {
        let (mut byte, mut line) = (0u64, first_line);
        self.push(byte, line);
        for pair in table.chunks_exact(2) {
            byte += u64::from(pair[0]);
            line += i64::from(pair[1] as i8);
            self.push(byte, line);
        }
    }

    /// Pairs (unsigned byte delta, signed line delta): the line holds for these bytes; -128 stands for none.
    fn pep626(&mut self, table: &[u8], first_line: i64) {
        let (mut byte, mut line) = (0u64, first_line);
        for pair in table.chunks_exact(2) {
            let delta = pair[1] as i8;
            if delta != -128 {
                line += i64::from(delta);
            }
            if pair[0] > 0 {
                self.push(byte, if delta == -128 { 0 } else { line });
            }
            byte += u64::from(pair[0]);
        }
    }

    /// Entries of `1 cccc nnn` (kind, units - 1) and bytes below 128 after it.
    fn locations(&mut self, table: &[u8], first_line: i64) {
        let (mut byte, mut line) = (0u64, first_line);
        let mut rest = table;
        while let Some((&head, tail)) = rest.split_first() {
            rest = tail;
            let units = u64::from(head & 7) + 1;
            let kind = (head >> 3) & 15;
            let shown = match kind {
                15 => 0,
                14 | 13 => {
                    line = line.saturating_add(signed_varint(&mut rest));
                    line
                }
                10..=12 => {
                    line = line.saturating_add(i64::from(kind) - 10);
                    line
                }
                _ => line,
            };
            self.push(byte, shown);
            byte += units * 2;
            // What is left of the entry: columns. The next entry's first byte has its highest bit set.
            let next = rest.iter().position(|byte| byte & 0x80 != 0);
            rest = next.map_or(&[][..], |at| rest.get(at..).unwrap_or(&[]));
        }
    }
}

/// Six bits a byte, lowest first; bit 6 says that more follow. Bit 0 of the value is the sign.
fn signed_varint(rest: &mut &[u8]) -> i64 {
    let (mut value, mut shift) = (0u64, 0u32);
    while let Some((&byte, tail)) = rest.split_first() {
        if byte & 0x80 != 0 {
            break;
        }
        *rest = tail;
        if shift < 60 {
            value |= u64::from(byte & 63) << shift;
        }
        shift += 6;
        if byte & 64 == 0 {
            break;
        }
    }
    let magnitude = i64::try_from(value >> 1).unwrap_or(0);
    if value & 1 == 1 {
        -magnitude
    } else {
        magnitude
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signed_deltas_of_the_old_table() {
        // def f(): four bytes on line 11, then back to line 10.
        let lines = Lines::decode(LineCoding::Lnotab, &[0, 1, 4, 255], 10);
        assert_eq!((lines.line(0), lines.line(1), lines.line(2)), (11, 11, 10));
    }

    #[test]
    fn ranges_without_a_line() {
        let lines = Lines::decode(LineCoding::Pep626, &[2, 1, 4, 128, 2, 2], 10);
        assert_eq!(
            (lines.line(0), lines.line(1), lines.line(2), lines.line(3)),
            (11, 0, 0, 13)
        );
    }

    #[test]
    fn any_bytes_are_decoded_without_a_panic() {
        use rand::{Rng, SeedableRng};
        let mut random = rand::rngs::StdRng::seed_from_u64(1);
        for length in 0..300 {
            let mut table = vec![0u8; length];
            random.fill_bytes(&mut table);
            for coding in [
                LineCoding::Lnotab,
                LineCoding::Pep626,
                LineCoding::Locations,
            ] {
                for first in [i32::MIN, -1, 1, i32::MAX] {
                    let lines = Lines::decode(coding, &table, first);
                    assert!(lines.runs.is_sorted_by_key(|run| run.0));
                    let _ = lines.line(7);
                }
            }
        }
    }
}
