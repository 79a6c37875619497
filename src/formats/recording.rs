//! biopsy's own recording, `.biopsy`: a whole [`Profile`], written and read back equal.
//!
//! Format version 1. All fixed-size numbers are little-endian; a *varint* is LEB128 (7 bits a byte, lowest
//! first, high bit set on all but the last byte, at most 64 bits), *zigzag* maps 0, -1, 1, -2 … to 0, 1, 2,
//! 3 …; *text* is a varint length in bytes and UTF-8; `f64` is 8 bytes, bit for bit.
//!
//! ```text
//! file    magic "biopsy\x1a\n" (8), version u32, then blocks up to and including END; nothing follows
//! block   as `blocks/mod.rs` says: kind, lengths, checksum, zstd
//! ```
//!
//! A reader skips a block of unknown kind once its crc fits, and ignores bytes after the last field that
//! it knows of META. Rows of one table may be spread over several blocks; an id is a row's position in its
//! table, and rows refer only to rows that stand before them in the file. Raw contents by kind:
//!
//! ```text
//! 1 META       first, once: origin u8 (0 sampled, 1 exact, 2 collapsed), mode u8 (0 wall, 1 cpu, 2 gil),
//!              flags u8 (1 approximate_stacks, 2 blocking, 4 split_threads, 8 has_cpu_time, 16 has_states,
//!              32 times_known),
//!              pid zigzag, rate_hz f64, mean_lateness_us f64, varints started_at_ms, duration_us,
//!              samples, given_up; texts command, python, reader; varint retried (none in older files)
//! 2 PROCESSES  varint n, n times: pid zigzag, parent zigzag, text python, text command
//! 3 THREADS    varint n, n times: varints process, os_id, python_id, started_us;
//!              name: u8 0 for none, or u8 1 and text
//! 4 STRINGS    varint n, n texts; no text stands twice in the table (nor does any row of 5 to 7)
//! 5 FUNCTIONS  varint n, columns: file (zigzag of the difference to the row before, 0 before the first
//!              of a block), line, name (likewise), kind (0 Python, 1 builtin, 2 native)
//! 6 FRAMES     varint n, columns: function (zigzag difference to the row before), line (zigzag
//!              difference to the function's line)
//! 7 STACKS     varint n, columns: parent (0 for none, else own id - parent id, so never 0 or ahead),
//!              frame (zigzag difference to the row before)
//! 8 ORDER      varint n, column: stack ids, those with the most runs first
//! 9 RUNS       varint n, varint w (the smallest wall_us of the block), columns:
//!              thread; stack (position in ORDER); wall_us - w; cpu_us (0 for 0, else 1 + zigzag of
//!              wall_us - cpu_us); count; fresh_from (0 for 65535, else 1 + zigzag of
//!              depth of the stack - fresh_from); state
//! 10 EXACT     varint n, n texts: the groups of exact statistics; u8 1 when exact, 2 when they are of samples and each row says
//!              whether its calls are a lower bound; once at most
//! 11 ROWS      varint n, n rows of exact statistics in their order: varints function, group, ncalls,
//!              primitive; f64 tottime, cumtime; varint m, m callers: varint function, edge; of 2: u8 1 when a lower bound
//!              edge: varints ncalls, primitive, f64 tottime, f64 cumtime, u8 1 when count_only
//! 12, 13       what older writers guessed of calls: skipped like an unknown kind
//! 14 COUNTS    varint n, n times: varints thread, function; u8 source (0 watchpoint, 1 samples, 2 lower bound);
//!              f64 calls; u8 0, or u8 1 and f64 error; varint m, m callers: varint function, f64 share. All of these
//!              f64 are finite and not negative, and the shares add up to at most 1
//! 15 SOURCES   varint n, n times: texts file, path; varints modified_ms, size; u32 CRC-32 of the file's bytes
//! 16 QUALNAMES varint n, n times: varint function (each later than the one before); text, empty for the name itself
//! 17 LINES     f64 seconds in a unit of the times (positive); u8 1 when the hits are lower bounds, 2 when each line says
//!              whether they are; varint n, n times: varint function (in one of these at most); varint m, m times: varint
//!              line - the line before (0 before the first), varint hits, f64 time; of 2: u8 1 when a lower bound
//! 18 TEXTS     varint n, n times: varint place of a row of SOURCES (each later than the one before); text: the file's
//! 0 END        last: varints number of blocks before this one, number of runs
//! ```
//!
//! A *column* of n values is laid out by bytes: the first varint byte of every value, then the second
//! byte of each value that has one, and so on: bytes of like distribution stand together, each with a code
//! of its own.

mod read;
mod runs;
mod write;

use std::io::Write;

use super::{ExportOptions, Exporter, Importer, Loss, check_timeline};
use crate::error::Result;
use crate::profile::Profile;

/// What a file begins with; the control characters catch transfers as text.
const MAGIC: &[u8; 8] = b"biopsy\x1a\n";

/// The format version that is written and read.
const VERSION: u32 = 1;

/// What a block is called in errors.
const WHAT: &str = "not a whole recording";

/// Kinds of blocks.
mod kind {
    pub(super) const END: u32 = 0;
    pub(super) const META: u32 = 1;
    pub(super) const PROCESSES: u32 = 2;
    pub(super) const THREADS: u32 = 3;
    pub(super) const STRINGS: u32 = 4;
    pub(super) const FUNCTIONS: u32 = 5;
    pub(super) const FRAMES: u32 = 6;
    pub(super) const STACKS: u32 = 7;
    pub(super) const ORDER: u32 = 8;
    pub(super) const RUNS: u32 = 9;
    pub(super) const EXACT: u32 = 10;
    pub(super) const ROWS: u32 = 11;
    pub(super) const COUNTS: u32 = 14;
    pub(super) const SOURCES: u32 = 15;
    pub(super) const QUALNAMES: u32 = 16;
    pub(super) const LINES: u32 = 17;
    pub(super) const TEXTS: u32 = 18;

    /// Whether blocks of a kind are unpacked: 12 and 13 are of older writers.
    pub(super) fn is_known(kind: u32) -> bool {
        kind <= ROWS || (COUNTS..=TEXTS).contains(&kind)
    }
}

/// `.biopsy` files.
#[derive(Debug, Clone, Copy)]
pub struct Recording;

impl Exporter for Recording {
    fn needs_timeline(&self) -> bool {
        true
    }

    /// Writes everything there is: a filter narrows what is made from a recording later, not the recording.
    fn export(
        &self,
        profile: &Profile,
        _: &ExportOptions,
        out: &mut dyn Write,
    ) -> Result<Vec<Loss>> {
        check_timeline(profile)?;
        write::profile(profile, out)?;
        Ok(Vec::new())
    }
}

impl Importer for Recording {
    fn recognises(&self, head: &[u8]) -> bool {
        head.starts_with(MAGIC)
    }

    fn import(&self, data: &[u8]) -> Result<Profile> {
        read::profile(data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::bytes;
    use crate::blocks::{BLOCK_HEAD, block};
    use crate::error::ErrorKind;

    fn written(profile: &Profile) -> Vec<u8> {
        let mut out = Vec::new();
        Recording
            .export(profile, &ExportOptions::default(), &mut out)
            .expect("writes");
        out
    }

    #[test]
    fn an_empty_profile_round_trips() {
        let data = written(&Profile::default());
        assert!(Recording.recognises(&data));
        let read = Recording.import(&data).expect("reads");
        assert_eq!(read.meta, Profile::default().meta);
        assert!(read.runs.is_empty() && read.exact.is_none());
    }

    #[test]
    fn a_newer_version_is_named() {
        let mut data = written(&Profile::default());
        data[8] = 7;
        let error = Recording.import(&data).expect_err("newer");
        assert_eq!(error.kind(), ErrorKind::BadFile);
        let text = error.to_string();
        assert!(
            text.contains("version 7") && text.contains("version 1"),
            "{text}"
        );
    }

    #[test]
    fn a_damaged_block_is_found_with_its_offset() {
        let mut data = written(&Profile::default());
        data[12 + BLOCK_HEAD + 3] ^= 1;
        let text = Recording.import(&data).expect_err("damaged").to_string();
        assert!(text.contains("at byte 12"), "{text}");
    }

    #[test]
    fn every_truncation_is_an_error() {
        let data = written(&Profile::default());
        for end in 0..data.len() {
            assert!(Recording.import(&data[..end]).is_err(), "{end}");
        }
        let longer = [&data[..], b"x"].concat();
        assert!(Recording.import(&longer).is_err());
    }

    #[test]
    fn blocks_of_unknown_kind_are_skipped() {
        let data = written(&Profile::default());
        // After META, before what follows.
        let meta_end = 12 + BLOCK_HEAD + data[16] as usize;
        let stored = zstd::bulk::compress(b"from a later writer", 3).expect("compresses");
        let later = block(4711, 19, &stored);
        let longer = [&data[..meta_end], &later[..], &data[meta_end..]].concat();
        // The END block counts blocks: it must be told.
        let end = longer.len() - (data.len() - blocks(&data).last().expect("END"));
        let raw = [
            bytes::varint(blocks(&longer[..end]).len() as u64),
            bytes::varint(0),
        ]
        .concat();
        let stored = zstd::bulk::compress(&raw, 3).expect("compresses");
        let fixed = [&longer[..end], &block(kind::END, raw.len() as u32, &stored)].concat();
        assert!(Recording.import(&fixed).is_ok());
        assert!(
            Recording.import(&longer).is_err(),
            "a block too many must show"
        );
    }

    /// Calls of a function in two threads, one with callers.
    fn counted() -> Profile {
        use crate::profile::{
            CallEstimate, CallSource, Counted, FunctionKind, ProcessId, ProcessInfo, ThreadId,
            ThreadInfo,
        };
        let mut profile = Profile::default();
        let mut function = |name| {
            let tables = &mut profile.tables;
            tables.function("a.py", 1, name, FunctionKind::Python)
        };
        let (f, g) = (function("f"), function("g"));
        profile.processes.push(ProcessInfo::default());
        for os_id in 1..3 {
            profile.threads.push(ThreadInfo {
                process: ProcessId(0),
                os_id,
                python_id: 7,
                name: None,
                started_us: 0,
            });
        }
        let row = |thread, calls, error, source, callers| Counted {
            thread: ThreadId(thread),
            function: f,
            estimate: CallEstimate {
                calls,
                error,
                source,
            },
            callers,
        };
        let callers = vec![(g, 0.25), (f, 0.75)];
        profile.counts = vec![
            row(0, 1e12 + 0.5, Some(3.5), CallSource::Watchpoint, callers),
            row(1, 0.0, None, CallSource::LowerBound, Vec::new()),
            row(1, 17.0, Some(0.0), CallSource::Samples, vec![(g, 1.0)]),
        ];
        profile
    }

    #[test]
    fn what_was_counted_round_trips() {
        let profile = counted();
        let data = written(&profile);
        let read = Recording.import(&data).expect("reads");
        assert_eq!(read.counts, profile.counts);
        for end in 0..data.len() {
            assert!(Recording.import(&data[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn what_is_no_number_of_calls_is_refused_with_its_offset() {
        let check = |spoil: &dyn Fn(&mut Profile)| {
            let mut profile = counted();
            spoil(&mut profile);
            let data = written(&profile);
            let error = Recording.import(&data).expect_err("refused");
            assert_eq!(error.kind(), ErrorKind::BadFile);
            let block = blocks(&data);
            let offset = block[block.len() - 2];
            let text = error.to_string();
            assert!(text.contains(&format!("at byte {offset}")), "{text}");
        };
        for number in [f64::NAN, f64::INFINITY, -1.0] {
            check(&|profile| profile.counts[0].estimate.calls = number);
            check(&|profile| profile.counts[0].estimate.error = Some(number));
            check(&|profile| profile.counts[0].callers[0].1 = number);
        }
        check(&|profile| profile.counts[0].callers[0].1 = 0.5);
    }

    /// A file with `raw` as a block before the END.
    fn with_block(data: &[u8], kind: u32, raw: &[u8]) -> Vec<u8> {
        let starts = blocks(data);
        let end = *starts.last().expect("END");
        let stored = zstd::bulk::compress(raw, 3).expect("compresses");
        let more = block(kind, raw.len() as u32, &stored);
        let last = [bytes::varint(starts.len() as u64), bytes::varint(0)].concat();
        let stored = zstd::bulk::compress(&last, 3).expect("compresses");
        let last = block(kind::END, last.len() as u32, &stored);
        [&data[..end], &more, &last].concat()
    }

    #[test]
    fn texts_of_sources_round_trip() {
        use crate::profile::SourceFile;
        let source = |file: &str, text: Option<&str>| SourceFile {
            file: file.to_string(),
            path: format!("/srv/{file}"),
            modified_ms: 17,
            size: 5,
            hash: 7,
            text: text.map(Into::into),
        };
        let long = "x = 1\n".repeat(400_000);
        let profile = Profile {
            sources: vec![
                source("a.py", Some(&long)),
                source("b.py", None),
                source("c.py", Some("é\n")),
            ],
            ..Profile::default()
        };
        let data = written(&profile);
        let read = Recording.import(&data).expect("reads");
        assert_eq!(read.sources, profile.sources);
        // A second text, and one of no file.
        for place in [0, 3] {
            let data = with_block(&data, kind::TEXTS, &[1, place, 1, b'x']);
            assert!(Recording.import(&data).is_err(), "{place}");
        }
        let data = with_block(&data, kind::TEXTS, &[1, 1, 1, b'x']);
        let read = Recording.import(&data).expect("reads");
        assert_eq!(read.sources[1].text.as_deref(), Some("x"));
    }

    #[test]
    fn guesses_of_older_writers_are_skipped() {
        let profile = counted();
        for kind in [12, 13] {
            let data = with_block(&written(&profile), kind, &[0xff; 40]);
            let read = Recording.import(&data).expect("reads");
            assert_eq!(read.counts, profile.counts);
        }
        // Not so a block that is known.
        let data = with_block(&written(&profile), kind::COUNTS, &[0xff; 40]);
        assert!(Recording.import(&data).is_err());
    }

    fn blocks(data: &[u8]) -> Vec<usize> {
        let (mut at, mut starts) = (12, Vec::new());
        while at < data.len() {
            starts.push(at);
            let stored = u32::from_le_bytes(data[at + 4..at + 8].try_into().expect("four"));
            at += BLOCK_HEAD + stored as usize;
        }
        starts
    }

    #[test]
    fn a_bomb_is_refused_before_it_is_unpacked() {
        let zeros = vec![0; 1 << 20];
        let stored = zstd::bulk::compress(&zeros, 3).expect("compresses");
        let mut data = [&MAGIC[..], &VERSION.to_le_bytes()].concat();
        data.extend(block(kind::META, 1 << 20, &stored));
        let text = Recording.import(&data).expect_err("bomb").to_string();
        assert!(text.contains("unpack"), "{text}");
        // Lying about the size does not help.
        let mut data = [&MAGIC[..], &VERSION.to_le_bytes()].concat();
        data.extend(block(kind::META, 4000, &stored));
        assert!(Recording.import(&data).is_err());
    }
}
