//! The block of offsets with which `_PyRuntime` begins (3.13 and newer).
#![no_main]

use biopsy::layout::{debug_offsets, heap, tables};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let [minor, free_threaded, block @ ..] = data else {
        return;
    };
    let minor = 8 + u32::from(*minor) % 9;
    debug_offsets::version_hex(block);
    debug_offsets::gc(block, minor);
    if let Some(table) = tables::for_build(3, minor, *free_threaded & 1 == 1) {
        let _ = debug_offsets::apply(block, minor, table);
    }
    if let Some(table) = heap::for_version(3, minor) {
        let _ = heap::checked(block, table);
    }
});
