//! Where the collector says that it is at work: `collecting` in `struct _gc_runtime_state`
//! (Include/internal/pycore_pymem.h of 3.8, pycore_gc.h of 3.9, pycore_interp_structs.h of 3.14 and newer).
//!
//! The numbers are in `tables`. From 3.13 on the interpreter's own block of offsets has both, and goes before these.

use super::{debug_offsets, tables};

/// Where the collector's state is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GcPlace {
    /// At this offset in `_PyRuntime` (3.8): one for all interpreters.
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
    /// Where the interpreter says which thread has stopped all others, as one that collects does (free-threaded builds; its
    /// finalizers run when they go on).
    pub collector: Option<u32>,
    /// Youngest generation, and the pointer to it: they tell whether the struct is where it should be. `None` where
    /// the interpreter's own block of offsets says where it is.
    pub check: Option<(u32, u32)>,
}

impl GcOffsets {
    /// For Python 3.`minor`, whose `_PyRuntime` starts with `block`; `None` for versions that are not known, and
    /// for values that make no sense.
    pub fn of(minor: u32, block: &[u8]) -> Option<GcOffsets> {
        let table = tables::for_version(3, minor)?.gc;
        if table.check.is_some() {
            return Some(table);
        }
        let (place, collecting) = debug_offsets::gc(block, minor)?;
        Some(GcOffsets {
            place: GcPlace::Interpreter(place),
            collecting,
            ..table
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
            collector: None,
            check: None,
        };
        assert_eq!(GcOffsets::of(14, &block), Some(expected));
        block[656..664].copy_from_slice(&u64::MAX.to_ne_bytes());
        assert_eq!(GcOffsets::of(14, &block), None);
        assert_eq!(GcOffsets::of(14, &block[..100]), None);
        assert!(GcOffsets::of(11, b"").is_some());
        assert_eq!(GcOffsets::of(16, &block), None);
    }
}
