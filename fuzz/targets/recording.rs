//! The reader of our recordings, behind its checksums: what blocks say that no writer would write.
#![no_main]

use biopsy::formats::Importer;
use biopsy::formats::recording::Recording;
use biopsy_fuzz::{Parts, bounded, put_block, put_varint, show};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let parts = Parts::read(data, 1);
    let mut file = b"biopsy\x1a\n\x01\0\0\0".to_vec();
    for (kind, contents) in &parts.blocks {
        put_block(&mut file, *kind, contents);
    }
    let mut end = Vec::new();
    put_varint(&mut end, parts.blocks.len() as u64);
    put_varint(&mut end, parts.totals[0]);
    put_block(&mut file, 0, &end);
    if let Ok(profile) = bounded(file.len(), 4096, || Recording.import(&file)) {
        show(&profile);
    }
});
