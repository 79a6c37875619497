//! The reader of line_profiler's files, which are pickles.
#![no_main]

use biopsy::formats::Importer;
use biopsy::formats::lprof::Lprof;
use biopsy_fuzz::{bounded, show};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    Lprof.recognises(&data[..data.len().min(64 << 10)]);
    if let Ok(profile) = bounded(data.len(), FACTOR, || Lprof.import(data)) {
        show(&profile);
    }
});

/// Bytes of memory for each of a file.
const FACTOR: usize = 4096;
