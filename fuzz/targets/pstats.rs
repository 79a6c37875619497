//! The reader of cProfile's files.
#![no_main]

use biopsy::formats::Importer;
use biopsy::formats::pstats::Pstats;
use biopsy_fuzz::{bounded, show};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    Pstats.recognises(&data[..data.len().min(64 << 10)]);
    if let Ok(profile) = bounded(data.len(), FACTOR, || Pstats.import(data)) {
        show(&profile);
    }
});

/// Bytes of memory for each of a file.
const FACTOR: usize = 4096;
