//! The reader of snapshots of heaps, behind its checksums: what blocks say that no writer would write.
#![no_main]

use std::io::Cursor;

use biopsy::heap::census::Counting;
use biopsy::heap::store::Reader;
use biopsy_fuzz::{Parts, bounded, put_block, put_column, put_varint};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let parts = Parts::read(data, 7);
    let mut file = b"BIOPSYHP\x01\0\0\0".to_vec();
    let blocks = parts.blocks.iter();
    let lengths: Vec<u64> = blocks
        .map(|(kind, contents)| put_block(&mut file, *kind, contents))
        .collect();
    let place = file.len() as u64;
    let mut index = Vec::new();
    for total in &parts.totals {
        put_varint(&mut index, *total);
    }
    put_varint(&mut index, lengths.len() as u64);
    let kinds: Vec<u64> = parts
        .blocks
        .iter()
        .map(|(kind, _)| u64::from(*kind))
        .collect();
    put_column(&mut index, &kinds);
    put_column(&mut index, &lengths);
    put_block(&mut file, 0, &index);
    file.extend(place.to_le_bytes());
    file.extend(b"BIOPSYHE");
    bounded(file.len(), 256, || {
        let Ok(mut reader) = Reader::new(Cursor::new(&file)) else {
            return;
        };
        for counting in [Counting::Reachable, Counting::Muppy] {
            let _ = reader.census(counting);
        }
        let _ = reader.for_each_object(|_, _| Ok(()));
        let _ = reader.graph();
    });
});
