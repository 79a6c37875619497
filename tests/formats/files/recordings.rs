//! `.biopsy`: round trips, size and time of long recordings, damage.

use std::time::{Duration, Instant};

use biopsy::error::Result;
use biopsy::formats::{ExportOptions, registry};
use biopsy::profile::{
    CallEstimate, CallSource, Counted, FunctionId, LineCount, LineCounts, Profile, ThreadId,
};
use proptest::prelude::*;

use super::profiles::{self, Noise};

fn write(profile: &Profile) -> Vec<u8> {
    super::export("biopsy", profile, &ExportOptions::default())
}

fn read(data: &[u8]) -> Result<Profile> {
    let format = registry::by_name("biopsy").expect("format");
    format.importer.expect("importer").import(data)
}

/// Samples with calls that were counted in some threads, of some functions.
fn counted() -> Profile {
    let mut profile = profiles::rich();
    let functions = profile.tables.functions().len() as u32;
    for at in 0..2 * functions {
        profile.counts.push(Counted {
            thread: ThreadId(at % profile.threads.len() as u32),
            function: FunctionId(at % functions),
            estimate: CallEstimate {
                calls: 1000.5 * f64::from(at),
                error: (at % 3 != 0).then_some(f64::from(at)),
                source: [
                    CallSource::Watchpoint,
                    CallSource::Samples,
                    CallSource::LowerBound,
                ][at as usize % 3],
            },
            callers: (0..at % 4)
                .map(|caller| (FunctionId(caller % functions), 0.25))
                .collect(),
        });
    }
    let line = |line: u32| LineCount {
        line,
        hits: u64::from(line) << 30,
        time: f64::from(line) / 3.0,
        at_least: false,
    };
    profile.lines = Some(LineCounts {
        unit: 1e-7,
        at_least: true,
        functions: (0..functions)
            .map(|at| (FunctionId(at), (at..3 * at).step_by(2).map(line).collect()))
            .collect(),
    });
    profile
}

/// Some lines of it have lower bounds for hits, and others do not.
fn bounded() -> Profile {
    let mut profile = counted();
    if let Some(lines) = &mut profile.lines {
        lines.at_least = false;
        for (_, counts) in &mut lines.functions {
            for (at, count) in counts.iter_mut().enumerate() {
                count.at_least = at % 3 == 1;
            }
        }
    }
    profile
}

fn assert_equal(a: &Profile, b: &Profile) {
    assert_eq!(a.meta, b.meta);
    assert_eq!(a.processes, b.processes);
    assert_eq!(a.threads, b.threads);
    assert_eq!(a.tables.strings(), b.tables.strings());
    assert_eq!(a.tables.functions(), b.tables.functions());
    assert_eq!(a.tables.frames(), b.tables.frames());
    assert_eq!(a.tables.stacks(), b.tables.stacks());
    assert!(a.runs == b.runs, "runs differ");
    assert_eq!(a.counts, b.counts);
    assert_eq!(a.lines, b.lines);
    assert_eq!(a.exact, b.exact);
}

#[test]
fn a_recording_is_read_back_equal() {
    for profile in [
        Profile::default(),
        profiles::rich(),
        counted(),
        bounded(),
        profiles::exact(),
        profiles::deep(10_000),
    ] {
        assert_equal(&profile, &read(&write(&profile)).expect("reads"));
    }
}

#[test]
fn extreme_numbers_come_back() {
    let mut profile = profiles::rich();
    profile.meta.rate_hz = -0.0;
    profile.meta.samples = u64::MAX;
    profile.meta.pid = i32::MIN;
    profile.threads[0].os_id = u64::MAX;
    for (at, run) in profile.runs.iter_mut().enumerate() {
        run.wall_us = [0, u32::MAX, 1][at % 3];
        run.cpu_us = [u32::MAX, 0, 1, 2][at % 4];
        run.count = [u32::MAX, 0][at % 2];
        run.fresh_from = [0, u16::MAX, u16::MAX - 1][at % 3];
        run.state.0 = at as u8 * 25;
    }
    let again = read(&write(&profile)).expect("reads");
    assert_eq!(again.meta.rate_hz.to_bits(), (-0.0f64).to_bits());
    assert_equal(&profile, &again);

    let mut exact = profiles::exact();
    let rows = &mut exact.exact.as_mut().expect("exact").rows;
    rows[0].tottime = f64::NAN;
    rows[1].cumtime = f64::from_bits(1);
    let bits = |profile: &Profile| -> Vec<[u64; 2]> {
        let rows = profile.exact.iter().flat_map(|exact| &exact.rows);
        rows.map(|row| [row.tottime.to_bits(), row.cumtime.to_bits()])
            .collect()
    };
    let again = read(&write(&exact)).expect("reads");
    assert_eq!(bits(&exact), bits(&again));
}

#[test]
fn names_of_a_million_characters_come_back() {
    let mut profile = Profile::default();
    for letter in ["a", "ü", "\u{0}"] {
        profile.tables.string(&letter.repeat(1_000_000));
    }
    profile.meta.command = "x".repeat(3_000_000);
    assert_equal(&profile, &read(&write(&profile)).expect("reads"));
}

#[test]
fn runs_that_pack_too_well_come_back() {
    let mut profile = profiles::deep(3);
    profile.runs = vec![profile.runs[0]; 200_000];
    assert_equal(&profile, &read(&write(&profile)).expect("reads"));
}

/// The measure is 20 MB for an hour at 1 kHz: 5.5 bytes a tick.
#[test]
fn a_server_takes_few_bytes() {
    measure(60_000);
}

/// `cargo test --release --test formats_files -- --ignored --nocapture an_hour`
#[test]
fn an_hour_at_a_thousand_samples_a_second() {
    measure(3_600_000);
}

fn measure(ticks: u64) {
    let profile = profiles::server(ticks);
    let began = Instant::now();
    let data = write(&profile);
    let written = began.elapsed();
    let began = Instant::now();
    let again = read(&data).expect("reads");
    let took = began.elapsed();
    let memory = profile.runs.len() * size_of_val(&profile.runs[0]);
    println!(
        "{ticks} ticks: {} runs, {:.1} MB in memory, {:.2} MB in the file ({:.2} bytes a run), \
         written in {written:?}, read in {took:?}",
        profile.runs.len(),
        memory as f64 / 1e6,
        data.len() as f64 / 1e6,
        data.len() as f64 / profile.runs.len() as f64,
    );
    assert!(profile.runs == again.runs);
    for format in ["json", "pprof", "gecko", "html"] {
        let began = Instant::now();
        let size = super::export(format, &profile, &ExportOptions::default()).len();
        println!(
            "{format}: {:.2} MB in {:?}",
            size as f64 / 1e6,
            began.elapsed()
        );
    }
    // Tables are a fixed cost, about 100 kB, that an hour does not notice.
    assert!(
        data.len() as f64 <= 200_000.0 + ticks as f64 * 5.5,
        "{} bytes",
        data.len()
    );
    assert!(memory as u64 <= 200_000_000, "{memory} bytes");
}

/// A file's blocks as kind and raw contents.
fn unpack(data: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let number = |at: usize| u32::from_le_bytes(data[at..at + 4].try_into().expect("four"));
    let mut blocks = Vec::new();
    let mut at = 12;
    while at < data.len() {
        let (stored, raw) = (number(at + 4) as usize, number(at + 8) as usize);
        let raw = zstd::bulk::decompress(&data[at + 16..at + 16 + stored], raw).expect("zstd");
        blocks.push((number(at), raw));
        at += 16 + stored;
    }
    blocks
}

/// The file of such blocks, checksums right.
fn pack(blocks: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let mut data = b"biopsy\x1a\n\x01\0\0\0".to_vec();
    for (kind, raw) in blocks {
        let stored = zstd::bulk::compress(raw, 1).expect("zstd");
        let numbers = [*kind, stored.len() as u32, raw.len() as u32];
        let mut block: Vec<u8> = numbers
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect();
        let crc = crc32fast::hash(&[&block[..], &stored].concat());
        block.extend(crc.to_le_bytes());
        block.extend(stored);
        data.extend(block);
    }
    data
}

/// An error, or a profile that can be used.
fn survives(data: &[u8]) -> bool {
    let began = Instant::now();
    let result = read(data);
    if let Ok(profile) = &result {
        for format in ["json", "pprof", "gecko", "html", "biopsy"] {
            super::export(format, profile, &ExportOptions::default());
        }
    }
    assert!(began.elapsed() < Duration::from_secs(5), "took too long");
    result.is_ok()
}

#[test]
fn damaged_files_are_errors() {
    let mut noise = Noise(7);
    for original in [write(&profiles::rich()), write(&profiles::exact())] {
        for _ in 0..5000 {
            let mut data = original.clone();
            match noise.below(3) {
                0 => data.truncate(noise.below(data.len() as u64) as usize),
                1 => {
                    let at = noise.below(data.len() as u64) as usize;
                    data[at] ^= 1 << noise.below(8);
                }
                _ => {
                    let at = noise.below(data.len() as u64) as usize;
                    let end = (at + noise.below(64) as usize).min(data.len());
                    data.drain(at..end);
                    data.extend(std::iter::repeat_n(0xa5, noise.below(9) as usize));
                }
            }
            let result = read(&data);
            assert!(data == original || result.is_err(), "damage was not found");
        }
    }
}

/// The same inside of blocks whose checksums are right: a malicious writer.
#[test]
fn hostile_contents_do_no_harm() {
    let mut noise = Noise(99);
    let mut accepted = 0;
    for original in [counted(), profiles::exact(), profiles::deep(20)] {
        let blocks = unpack(&write(&original));
        assert!(survives(&pack(&blocks)));
        for _ in 0..3500 {
            let mut blocks = blocks.clone();
            for _ in 0..=noise.below(3) {
                let at = noise.below(blocks.len() as u64) as usize;
                mutate(&mut blocks, at, &mut noise);
            }
            accepted += u32::from(survives(&pack(&blocks)));
        }
    }
    assert!(
        accepted > 100,
        "the damage was too coarse to test anything: {accepted}"
    );
}

fn mutate(blocks: &mut Vec<(u32, Vec<u8>)>, at: usize, noise: &mut Noise) {
    let (kind, raw) = &mut blocks[at];
    let place = noise.below(raw.len() as u64) as usize;
    match noise.below(8) {
        0 => raw.truncate(place),
        1 => raw.insert(place, noise.next() as u8),
        2 => *kind = noise.below(16) as u32,
        3 => {
            let other = noise.below(blocks.len() as u64) as usize;
            blocks.swap(at, other);
        }
        4 => {
            let copy = blocks[at].clone();
            blocks.insert(at, copy);
        }
        5 if !raw.is_empty() => raw[place] = [0, 0x7f, 0x80, 0xff][noise.below(4) as usize],
        _ if !raw.is_empty() => raw[place] = raw[place].wrapping_add(1 + noise.below(3) as u8),
        _ => {}
    }
}

#[test]
fn a_small_file_cannot_ask_for_much() {
    // A million rows promised, with few bytes to back them.
    for kind in (1..12).chain([14]) {
        let mut raw = vec![0xff, 0xff, 0xff, 0xff, 0x0f];
        raw.resize(4000, 0);
        let meta = unpack(&write(&Profile::default())).remove(0);
        assert!(read(&pack(&[meta, (kind, raw)])).is_err(), "{kind}");
    }
}

proptest! {
    #[test]
    fn random_bytes_are_errors(data: Vec<u8>) {
        prop_assert!(read(&data).is_err());
        let mut with_head = b"biopsy\x1a\n\x01\0\0\0".to_vec();
        with_head.extend(&data);
        prop_assert!(read(&with_head).is_err());
    }

    #[test]
    fn random_contents_do_no_harm(kind in 0u32..16, data: Vec<u8>) {
        let mut blocks = unpack(&write(&profiles::exact()));
        let end = blocks.len() - 1;
        blocks.insert(end, (kind, data));
        survives(&pack(&blocks));
    }
}
