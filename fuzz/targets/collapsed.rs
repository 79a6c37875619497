//! The reader of collapsed stacks.
#![no_main]

use biopsy::formats::Importer;
use biopsy::formats::collapsed::Collapsed;
use biopsy_fuzz::{bounded_but, show};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    Collapsed.recognises(&data[..data.len().min(64 << 10)]);
    if let Ok(profile) = bounded_but(SLACK, data.len(), FACTOR, || Collapsed.import(data)) {
        show(&profile);
    }
});

/// Bytes of memory for each of a file.
const FACTOR: usize = 4096;

/// A number of more than 32 bits is several runs, of which a file may have a million.
const SLACK: usize = 96 << 20;
