//! marshal's bytes, which cProfile's files are.
#![no_main]

use biopsy::formats::marshal;
use biopsy_fuzz::bounded;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = bounded(data.len(), 256, || marshal::read(data));
});
