//! Writes a recording, block by block.

use std::io::Write;

use super::{MAGIC, VERSION, kind, runs};
use crate::blocks::Packer;
use crate::blocks::bytes::{put_f64, put_text, put_varint, zigzag};
use crate::error::{Error, Result};
use crate::profile::{
    CallSource, CallStats, Counted, EdgeStats, FunctionId, FunctionKind, FunctionStats, LineCounts,
    Meta, Mode, Origin, Profile, Tables,
};

/// Rows of a table, and runs, in one block. At 24 bytes a run a block is 1.5 MiB in memory, and one
/// lost block costs about a minute of a recording at 1 kHz.
const BLOCK_ROWS: usize = 65_536;

/// Raw bytes after which a block of rows of varying size is closed.
const BLOCK_BYTES: usize = 1 << 20;

/// Writes everything in `profile`.
pub(super) fn profile(profile: &Profile, out: &mut dyn Write) -> Result<()> {
    let mut writer = Writer::new(out)?;
    put_meta(&mut writer.packer.raw, &profile.meta);
    writer.block(kind::META)?;
    put_varint(&mut writer.packer.raw, profile.processes.len() as u64);
    for process in &profile.processes {
        put_varint(&mut writer.packer.raw, zigzag(i64::from(process.pid)));
        put_varint(&mut writer.packer.raw, zigzag(i64::from(process.parent)));
        put_text(&mut writer.packer.raw, &process.python);
        put_text(&mut writer.packer.raw, &process.command);
    }
    writer.block(kind::PROCESSES)?;
    put_varint(&mut writer.packer.raw, profile.threads.len() as u64);
    for thread in &profile.threads {
        for value in [u64::from(thread.process.0), thread.os_id, thread.python_id] {
            put_varint(&mut writer.packer.raw, value);
        }
        put_varint(&mut writer.packer.raw, thread.started_us);
        writer.packer.raw.push(u8::from(thread.name.is_some()));
        if let Some(name) = &thread.name {
            put_text(&mut writer.packer.raw, name);
        }
    }
    writer.block(kind::THREADS)?;
    writer.tables(&profile.tables)?;
    writer.runs(profile)?;
    writer.counts(&profile.counts)?;
    writer.sources(profile)?;
    writer.qualnames(&profile.tables)?;
    if let Some(lines) = &profile.lines {
        writer.lines(lines)?;
    }
    if let Some(exact) = &profile.exact {
        writer.exact(exact)?;
    }
    put_varint(&mut writer.packer.raw, writer.blocks);
    put_varint(&mut writer.packer.raw, profile.runs.len() as u64);
    writer.block(kind::END)
}

fn put_meta(out: &mut Vec<u8>, meta: &Meta) {
    out.push(match meta.origin {
        Origin::Sampled => 0,
        Origin::Exact => 1,
        Origin::Collapsed => 2,
    });
    out.push(match meta.mode {
        Mode::Wall => 0,
        Mode::Cpu => 1,
        Mode::Gil => 2,
        Mode::Exception => 3,
    });
    out.push(
        u8::from(meta.approximate_stacks)
            | u8::from(meta.blocking) << 1
            | u8::from(meta.split_threads) << 2
            | u8::from(meta.has_cpu_time) << 3
            | u8::from(meta.has_states) << 4
            | u8::from(meta.times_known) << 5,
    );
    put_varint(out, zigzag(i64::from(meta.pid)));
    put_f64(out, meta.rate_hz);
    put_f64(out, meta.mean_lateness_us);
    for value in [
        meta.started_at_ms,
        meta.duration_us,
        meta.samples,
        meta.given_up,
    ] {
        put_varint(out, value);
    }
    for text in [&meta.command, &meta.python, &meta.reader] {
        put_text(out, text);
    }
    put_varint(out, meta.retried);
}

struct Writer<'a> {
    out: &'a mut dyn Write,
    packer: Packer,
    /// Blocks written so far.
    blocks: u64,
}

impl Writer<'_> {
    fn new(out: &mut dyn Write) -> Result<Writer<'_>> {
        let failed = |error| Error::write("the recording", &error);
        out.write_all(MAGIC).map_err(failed)?;
        out.write_all(&VERSION.to_le_bytes()).map_err(failed)?;
        Ok(Writer {
            out,
            packer: Packer::new("the recording")?,
            blocks: 0,
        })
    }

    /// Writes what has been gathered in `raw` as one block.
    fn block(&mut self, kind: u32) -> Result<()> {
        let block = self.packer.block(kind, 0)?;
        self.out
            .write_all(&block)
            .map_err(|error| Error::write("the recording", &error))?;
        self.blocks += 1;
        Ok(())
    }

    fn column(&mut self, values: impl Iterator<Item = u64>) {
        self.packer.column(&mut values.collect());
    }

    fn tables(&mut self, tables: &Tables) -> Result<()> {
        let mut rows = 0;
        let mut texts = Vec::new();
        for (at, text) in tables.strings().iter().enumerate() {
            put_text(&mut texts, text);
            rows += 1;
            if texts.len() >= BLOCK_BYTES || at + 1 == tables.strings().len() {
                put_varint(&mut self.packer.raw, rows);
                self.packer.raw.append(&mut texts);
                self.block(kind::STRINGS)?;
                rows = 0;
            }
        }
        for chunk in tables.functions().chunks(BLOCK_ROWS) {
            put_varint(&mut self.packer.raw, chunk.len() as u64);
            self.column(differences(chunk.iter().map(|f| f.file.0)));
            self.column(chunk.iter().map(|f| u64::from(f.line)));
            self.column(differences(chunk.iter().map(|f| f.name.0)));
            self.column(chunk.iter().map(|f| match f.kind {
                FunctionKind::Python => 0,
                FunctionKind::Builtin => 1,
                FunctionKind::Native => 2,
            }));
            self.block(kind::FUNCTIONS)?;
        }
        for chunk in tables.frames().chunks(BLOCK_ROWS) {
            put_varint(&mut self.packer.raw, chunk.len() as u64);
            self.column(differences(chunk.iter().map(|f| f.function.0)));
            self.column(chunk.iter().map(|frame| {
                let first_line = i64::from(tables.line(frame.function));
                zigzag(i64::from(frame.line) - first_line)
            }));
            self.block(kind::FRAMES)?;
        }
        let mut first = 0;
        for chunk in tables.stacks().chunks(BLOCK_ROWS) {
            put_varint(&mut self.packer.raw, chunk.len() as u64);
            let rows = (first..).zip(chunk);
            self.column(rows.map(|(at, s)| s.parent.map_or(0, |p| at - u64::from(p.0))));
            self.column(differences(chunk.iter().map(|s| s.frame.0)));
            self.block(kind::STACKS)?;
            first += chunk.len() as u64;
        }
        Ok(())
    }

    fn runs(&mut self, profile: &Profile) -> Result<()> {
        let tables = &profile.tables;
        let mut uses = vec![0u64; tables.stacks().len()];
        for run in &profile.runs {
            uses[run.stack.index()] += 1;
        }
        let mut order: Vec<u32> = (0..uses.len() as u32).collect();
        order.retain(|&stack| uses[stack as usize] > 0);
        order.sort_by_key(|&stack| std::cmp::Reverse(uses[stack as usize]));
        let mut ranks = vec![0; uses.len()];
        for (rank, &stack) in order.iter().enumerate() {
            ranks[stack as usize] = rank as u32;
        }
        for chunk in order.chunks(BLOCK_ROWS) {
            put_varint(&mut self.packer.raw, chunk.len() as u64);
            self.column(chunk.iter().map(|&stack| u64::from(stack)));
            self.block(kind::ORDER)?;
        }
        for chunk in profile.runs.chunks(BLOCK_ROWS) {
            runs::put(
                &mut self.packer.raw,
                chunk,
                &ranks,
                tables,
                &mut self.packer.cuts,
            );
            self.block(kind::RUNS)?;
        }
        Ok(())
    }

    fn counts(&mut self, counts: &[Counted]) -> Result<()> {
        let mut rows = 0;
        let mut bytes = Vec::new();
        for (at, counted) in counts.iter().enumerate() {
            put_counted(&mut bytes, counted);
            rows += 1;
            if bytes.len() >= BLOCK_BYTES || at + 1 == counts.len() {
                put_varint(&mut self.packer.raw, rows);
                self.packer.raw.append(&mut bytes);
                self.block(kind::COUNTS)?;
                rows = 0;
            }
        }
        Ok(())
    }

    fn sources(&mut self, profile: &Profile) -> Result<()> {
        for chunk in profile.sources.chunks(1000) {
            let raw = &mut self.packer.raw;
            put_varint(raw, chunk.len() as u64);
            for source in chunk {
                put_text(raw, &source.file);
                put_text(raw, &source.path);
                put_varint(raw, source.modified_ms);
                put_varint(raw, source.size);
                raw.extend_from_slice(&source.hash.to_le_bytes());
            }
            self.block(kind::SOURCES)?;
        }
        let texts = profile.sources.iter().zip(0u64..);
        let texts = texts.filter_map(|(source, at)| source.text.as_ref().map(|text| (text, at)));
        let (mut rows, mut bytes) = (0, Vec::new());
        let mut texts = texts.peekable();
        while let Some((text, at)) = texts.next() {
            put_varint(&mut bytes, at);
            put_text(&mut bytes, text);
            rows += 1;
            if bytes.len() >= BLOCK_BYTES || texts.peek().is_none() {
                put_varint(&mut self.packer.raw, rows);
                self.packer.raw.append(&mut bytes);
                self.block(kind::TEXTS)?;
                rows = 0;
            }
        }
        Ok(())
    }

    fn qualnames(&mut self, tables: &Tables) -> Result<()> {
        let functions = (0..tables.functions().len() as u32).map(FunctionId);
        let known: Vec<(FunctionId, &str)> = functions
            .filter_map(|function| Some((function, tables.qualname(function)?)))
            .collect();
        for chunk in known.chunks(BLOCK_ROWS) {
            put_varint(&mut self.packer.raw, chunk.len() as u64);
            for (function, qualname) in chunk {
                put_varint(&mut self.packer.raw, u64::from(function.0));
                let is_plain = *qualname == tables.name(*function);
                put_text(&mut self.packer.raw, if is_plain { "" } else { qualname });
            }
            self.block(kind::QUALNAMES)?;
        }
        Ok(())
    }

    fn lines(&mut self, lines: &LineCounts) -> Result<()> {
        let mut rows = 0;
        let mut bytes = Vec::new();
        let mut of_all = lines.functions.iter().flat_map(|(_, counts)| counts);
        let by_line = !lines.at_least && of_all.any(|count| count.at_least);
        let last = lines.functions.len().max(1);
        for at in 0..last {
            if let Some((function, counts)) = lines.functions.get(at) {
                put_varint(&mut bytes, u64::from(function.0));
                put_varint(&mut bytes, counts.len() as u64);
                let mut before = 0;
                for count in counts {
                    put_varint(&mut bytes, u64::from(count.line.saturating_sub(before)));
                    put_varint(&mut bytes, count.hits);
                    put_f64(&mut bytes, count.time);
                    if by_line {
                        bytes.push(u8::from(count.at_least));
                    }
                    before = count.line;
                }
                rows += 1;
            }
            if bytes.len() >= BLOCK_BYTES || at + 1 == last {
                put_f64(&mut self.packer.raw, lines.unit);
                self.packer.raw.push(match by_line {
                    true => 2,
                    false => u8::from(lines.at_least),
                });
                put_varint(&mut self.packer.raw, rows);
                self.packer.raw.append(&mut bytes);
                self.block(kind::LINES)?;
                rows = 0;
            }
        }
        Ok(())
    }

    fn exact(&mut self, exact: &CallStats) -> Result<()> {
        put_varint(&mut self.packer.raw, exact.groups.len() as u64);
        for group in &exact.groups {
            put_text(&mut self.packer.raw, group);
        }
        let by_row = !exact.exact && exact.rows.iter().any(|row| row.lower_bound);
        self.packer.raw.push(match by_row {
            true => 2,
            false => u8::from(exact.exact),
        });
        self.block(kind::EXACT)?;
        let mut rows = 0;
        let mut bytes = Vec::new();
        for (at, row) in exact.rows.iter().enumerate() {
            put_row(&mut bytes, row);
            if by_row {
                bytes.push(u8::from(row.lower_bound));
            }
            rows += 1;
            if bytes.len() >= BLOCK_BYTES || at + 1 == exact.rows.len() {
                put_varint(&mut self.packer.raw, rows);
                self.packer.raw.append(&mut bytes);
                self.block(kind::ROWS)?;
                rows = 0;
            }
        }
        Ok(())
    }
}

fn put_counted(out: &mut Vec<u8>, counted: &Counted) {
    put_varint(out, u64::from(counted.thread.0));
    put_varint(out, u64::from(counted.function.0));
    out.push(match counted.estimate.source {
        CallSource::Watchpoint => 0,
        CallSource::Samples => 1,
        CallSource::LowerBound => 2,
    });
    put_f64(out, counted.estimate.calls);
    out.push(u8::from(counted.estimate.error.is_some()));
    if let Some(error) = counted.estimate.error {
        put_f64(out, error);
    }
    put_varint(out, counted.callers.len() as u64);
    for (caller, share) in &counted.callers {
        put_varint(out, u64::from(caller.0));
        put_f64(out, *share);
    }
}

fn put_row(out: &mut Vec<u8>, row: &FunctionStats) {
    for value in [
        u64::from(row.function.0),
        u64::from(row.group),
        row.ncalls,
        row.primitive,
    ] {
        put_varint(out, value);
    }
    put_f64(out, row.tottime);
    put_f64(out, row.cumtime);
    put_varint(out, row.callers.len() as u64);
    for (caller, edge) in &row.callers {
        put_varint(out, u64::from(caller.0));
        put_edge(out, edge);
    }
}

fn put_edge(out: &mut Vec<u8>, edge: &EdgeStats) {
    put_varint(out, edge.ncalls);
    put_varint(out, edge.primitive);
    put_f64(out, edge.tottime);
    put_f64(out, edge.cumtime);
    out.push(u8::from(edge.count_only));
}

/// Each id as zigzag of its difference to the one before.
fn differences(ids: impl Iterator<Item = u32>) -> impl Iterator<Item = u64> {
    let mut last = 0;
    ids.map(move |id| {
        let difference = i64::from(id) - last;
        last = i64::from(id);
        zigzag(difference)
    })
}
