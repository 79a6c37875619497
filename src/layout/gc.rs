//! Where the collector says that it is at work: `collecting` in `struct _gc_runtime_state`
//! (Include/internal/pycore_pymem.h of 3.8, pycore_gc.h of 3.9, pycore_interp_structs.h of 3.14 and newer).
//!
//! `offsetof` compiled against the headers of 3.8.18, 3.9.18, 3.10.13, 3.11.7, 3.12.1, 3.13.0, 3.14.10 and 3.15.2. From
//! 3.13 on the interpreter's own block of offsets has both numbers, and goes before these.

use super::{debug_offsets, word};

/// Where the collector's state is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GcPlace {
    /// At this offset in `_PyRuntime`: one for all interpreters.
    Runtime(u32),
    /// At this offset in the interpreter state.
    Interpreter(u32),
}

/// `struct _gc_runtime_state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GcOffsets {
    /// The struct.
    pub place: GcPlace,
    /// Int: not 0 while a collection runs, finalizers and callbacks of weak references included.
    pub collecting: u32,
}

/// Offsets beyond this are not believed (the interpreter state of 3.15 has 226 KB).
const LARGEST: u64 = 4 << 20;

impl GcOffsets {
    /// For Python 3.`minor`, whose `_PyRuntime` starts with `block`; `None` for versions that are not known, and
    /// for values that make no sense.
    pub fn of(minor: u32, block: &[u8]) -> Option<GcOffsets> {
        let (place, collecting) = match minor {
            8 => (GcPlace::Runtime(344), 200),
            9 | 10 => (GcPlace::Interpreter(616), 200),
            11 => (GcPlace::Interpreter(648), 200),
            12 => (GcPlace::Interpreter(112), 200),
            13 => (GcPlace::Interpreter(7400), 200),
            14 => (GcPlace::Interpreter(7408), 192),
            15 => (GcPlace::Interpreter(7400), 112),
            _ => return None,
        };
        let table = GcOffsets { place, collecting };
        // Positions of `interpreter_state.gc` and `gc.collecting` in the block.
        let (gc, collecting) = match minor {
            13 => (80, 576),
            14 => (88, 656),
            15 => (88, 760),
            _ => return Some(table),
        };
        if !block.starts_with(debug_offsets::COOKIE) {
            return None;
        }
        let offset = |position| {
            let value = word(block, position)?;
            u32::try_from(value).ok().filter(|_| value < LARGEST)
        };
        Some(GcOffsets {
            place: GcPlace::Interpreter(offset(gc)?),
            collecting: offset(collecting)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interpreters_own_block_goes_before_the_table() {
        let mut block = vec![0; debug_offsets::SIZE];
        assert_eq!(GcOffsets::of(14, &block), None);
        block[..8].copy_from_slice(debug_offsets::COOKIE);
        block[88..96].copy_from_slice(&7000u64.to_ne_bytes());
        block[656..664].copy_from_slice(&180u64.to_ne_bytes());
        let expected = GcOffsets {
            place: GcPlace::Interpreter(7000),
            collecting: 180,
        };
        assert_eq!(GcOffsets::of(14, &block), Some(expected));
        block[656..664].copy_from_slice(&u64::MAX.to_ne_bytes());
        assert_eq!(GcOffsets::of(14, &block), None);
        assert_eq!(GcOffsets::of(14, &block[..100]), None);
        assert!(GcOffsets::of(11, b"").is_some());
        assert_eq!(GcOffsets::of(16, &block), None);
    }
}
