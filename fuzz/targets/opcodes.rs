//! What is taken from a code object: its calls, the depth of its stack, its jumps back, its lines, its exception table.
#![no_main]

use biopsy::layout::LineCoding;
use biopsy::layout::linetable::Lines;
use biopsy::layout::opcodes::{Opcodes, V3_8, V3_9, V3_10, V3_11, V3_12, V3_13, V3_14, V3_15};
use biopsy_fuzz::bounded;

static VERSIONS: [Opcodes; 8] = [V3_8, V3_9, V3_10, V3_11, V3_12, V3_13, V3_14, V3_15];

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let [version, stack_size, split, rest @ ..] = data else {
        return;
    };
    let opcodes = &VERSIONS[usize::from(*version) % VERSIONS.len()];
    let (table, code) = rest.split_at(usize::from(*split).min(rest.len()));
    let stack_size = u32::from(*stack_size);
    bounded(data.len(), 4096, || {
        let units = code.len() as u32 / 2;
        if let Some(calls) = opcodes.calls(code, table, stack_size) {
            for unit in 0..=units {
                if let Some(call) = calls.at(unit) {
                    opcodes.slots(call);
                }
            }
        }
        opcodes.depth(code, table, stack_size, units as usize / 2);
        if let Some(shape) = opcodes.shape(code) {
            for unit in (0..units).chain([u32::MAX]) {
                shape.repeats(unit);
                shape.leads(unit, units / 2);
            }
        }
        for coding in [
            LineCoding::Lnotab,
            LineCoding::Pep626,
            LineCoding::Locations,
        ] {
            for first in [0, -1, i32::MAX, i32::MIN] {
                let lines = Lines::decode(coding, table, first);
                lines.line(units);
                lines.all();
            }
        }
    });
});
