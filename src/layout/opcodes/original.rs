//! The opcodes of code that is traced or monitored (3.12 and newer): `sys.settrace`, line and instruction events of
//! `sys.monitoring`, coverage and debuggers put one of two opcodes in the place of any other one, which is kept beside the
//! code object (`_PyCoMonitoringData`; Include/cpython/code.h up to 3.13, Include/internal/pycore_instruments.h from 3.14 on).

use super::Opcodes;

/// Most bytes of an entry of `lines` that are believed: an opcode and the difference of a line.
const LONGEST_ENTRY: usize = 8;

/// The opcodes that stand for any other one. The other instrumented ones each have a base of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instrumented {
    /// INSTRUMENTED_LINE.
    pub line: u8,
    /// INSTRUMENTED_INSTRUCTION.
    pub instruction: u8,
}

/// How long an entry of `lines` is; it begins with the opcode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineEntry {
    /// So many bytes (3.12, 3.13).
    Fixed(u32),
    /// As the first byte says; the entries begin so far behind it (3.14 and newer).
    Counted(u32),
}

/// Where the original opcodes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Monitored {
    /// `_co_monitoring` in a code object; null of one that never was.
    pub data: u32,
    /// `lines` in what it points at: an entry for each unit.
    pub lines: u32,
    /// Their length.
    pub line_entry: LineEntry,
    /// `per_instruction_opcodes` in the same place: a byte for each unit.
    pub instructions: u32,
}

impl Monitored {
    /// Puts the original opcodes into `bytecode`, that of the code object at `code`. `read` fills the bytes from an address, or
    /// gives false. What cannot be read stays as it is. Inline caches may look like such an opcode and change too: nobody
    /// reads them as instructions.
    pub fn restore(
        &self,
        opcodes: &Opcodes,
        code: u64,
        bytecode: &mut [u8],
        read: impl Fn(u64, &mut [u8]) -> bool,
    ) {
        let Some(instrumented) = opcodes.instrumented else {
            return;
        };
        let has = |bytecode: &[u8], wanted: u8| bytecode.chunks(2).any(|unit| unit[0] == wanted);
        if !has(bytecode, instrumented.line) && !has(bytecode, instrumented.instruction) {
            return;
        }
        let word = |address: u64, offset: u32| {
            let mut bytes = [0; 8];
            let at = address.checked_add(offset.into())?;
            read(at, &mut bytes).then_some(u64::from_ne_bytes(bytes))
        };
        let bytes = |address: u64, length: usize| {
            let mut bytes = vec![0; length];
            (address != 0 && read(address, &mut bytes)).then_some(bytes)
        };
        let Some(data) = word(code, self.data).filter(|data| *data != 0) else {
            return;
        };
        let units = bytecode.len() / 2;
        // An opcode for lines may stand for one for instructions, never the other way round.
        if let Some(lines) = word(data, self.lines).filter(|lines| *lines != 0) {
            let (entry, start) = match self.line_entry {
                LineEntry::Fixed(length) => (length as usize, Some(lines)),
                LineEntry::Counted(offset) => (
                    bytes(lines, 1).map_or(0, |length| usize::from(length[0])),
                    lines.checked_add(offset.into()),
                ),
            };
            let is_possible = (1..=LONGEST_ENTRY).contains(&entry);
            let entries = start
                .filter(|_| is_possible)
                .and_then(|start| bytes(start, units * entry));
            if let Some(entries) = entries {
                put(bytecode, instrumented.line, entries.chunks(entry));
            }
        }
        if let Some(instructions) = word(data, self.instructions)
            && let Some(opcodes) = bytes(instructions, units)
        {
            put(bytecode, instrumented.instruction, opcodes.chunks(1));
        }
    }
}

/// Puts the first byte of its entry in the place of each opcode that is `wanted`.
fn put<'a>(bytecode: &mut [u8], wanted: u8, entries: impl Iterator<Item = &'a [u8]>) {
    for (unit, entry) in bytecode.chunks_mut(2).zip(entries) {
        if let (Some(opcode), Some(original)) = (unit.first_mut(), entry.first())
            && *opcode == wanted
        {
            *opcode = *original;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{V3_12, V3_14};
    use super::*;

    const OLD: Monitored = Monitored {
        data: 8,
        lines: 0,
        line_entry: LineEntry::Fixed(2),
        instructions: 8,
    };

    /// Memory from 1000 on: a code object, its data at 1016, both arrays behind it.
    fn memory(lines: &[u8], instructions: &[u8]) -> Vec<u8> {
        let after = 1032 + lines.len() as u64;
        let mut bytes: Vec<u8> = [0, 1016, 1032, after]
            .iter()
            .flat_map(|word: &u64| word.to_ne_bytes())
            .collect();
        bytes.extend(lines);
        bytes.extend(instructions);
        bytes
    }

    fn restored(at: Monitored, opcodes: Opcodes, memory: &[u8], code: &[u8]) -> Vec<u8> {
        let mut code = code.to_vec();
        at.restore(&opcodes, 1000, &mut code, |address, into| {
            let start = address.checked_sub(1000).map(|start| start as usize);
            let found = start.and_then(|start| memory.get(start..start.checked_add(into.len())?));
            found.map(|found| into.copy_from_slice(found)).is_some()
        });
        code
    }

    #[test]
    fn lines_and_instructions_have_their_originals_again() {
        let code = [151, 0, 254, 1, 253, 2, 254, 3];
        let memory = memory(&[9, 9, 124, 0, 9, 9, 253, 0], &[9, 9, 125, 83]);
        let expected = [151, 0, 124, 1, 125, 2, 83, 3];
        assert_eq!(restored(OLD, V3_12, &memory, &code), expected);
    }

    #[test]
    fn entries_of_any_length_are_read_and_impossible_ones_left() {
        let at = Monitored {
            line_entry: LineEntry::Counted(1),
            ..OLD
        };
        let code = [254, 1, 254, 2];
        let lines = [3, 80, 0, 0, 81, 0, 0];
        let found = restored(at, V3_14, &memory(&lines, &[]), &code);
        assert_eq!(found, [80, 1, 81, 2]);
        for length in [0, 9, 255] {
            let lines = [length, 80, 0, 0, 81, 0, 0];
            assert_eq!(restored(at, V3_14, &memory(&lines, &[]), &code), code);
        }
        // What lies beyond the memory.
        assert_eq!(restored(OLD, V3_12, &memory(&[], &[]), &code), code);
        assert_eq!(restored(OLD, V3_12, &[], &code), code);
    }
}
