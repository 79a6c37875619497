//! Reads a recording. The bytes are hostile: nothing is allocated that the size of the file does not
//! justify, and every id is checked before it is used.

use rustc_hash::FxHashSet;

use super::{MAGIC, VERSION, WHAT, kind, runs};
use crate::blocks::bytes::{Cursor, unzigzag};
use crate::blocks::{BLOCK_HEAD, BlockHead, Unpacker, number};
use crate::error::{Error, Result};
use crate::profile::{
    CallEstimate, CallSource, CallStats, Counted, EdgeStats, Frame, FrameId, Function, FunctionId,
    FunctionKind, FunctionStats, LineCount, LineCounts, Meta, Mode, Origin, ProcessId, ProcessInfo,
    Profile, SourceFile, StackId, StringId, ThreadId, ThreadInfo,
};

/// Shares of callers may add up to so much, for they are rounded.
const MOST_SHARES: f64 = 1.0 + 1e-6;

/// Reads a whole recording.
pub(super) fn profile(data: &[u8]) -> Result<Profile> {
    let mut blocks = Blocks::open(data)?;
    let mut reader = Reader::default();
    let mut count = 0;
    loop {
        let Some((kind, offset)) = blocks.next()? else {
            let why = "the file is cut short: its last block is missing";
            return Err(Error::bad_file(WHAT, data.len() as u64, why));
        };
        let mut cursor = Cursor::new(&blocks.unpacker.raw, WHAT, offset);
        if count == 0 && kind != kind::META {
            return Err(cursor.bad("the first block is not the one about the recording"));
        }
        if kind == kind::END {
            let (blocks_before, runs) = (cursor.varint()?, cursor.varint()?);
            cursor.end()?;
            if blocks_before != count || runs != reader.profile.runs.len() as u64 {
                return Err(cursor.bad("blocks are missing, or there are too many"));
            }
            break;
        }
        reader.block(kind, &mut cursor, count)?;
        count += 1;
    }
    if let Some(rest) = blocks.rest() {
        return Err(Error::bad_file(
            WHAT,
            rest,
            "something follows the last block",
        ));
    }
    Ok(reader.profile)
}

/// The blocks of a file, checked and unpacked one after the other.
struct Blocks<'a> {
    data: &'a [u8],
    at: usize,
    /// Has the contents of the block that was read last.
    unpacker: Unpacker,
}

impl<'a> Blocks<'a> {
    fn open(data: &'a [u8]) -> Result<Blocks<'a>> {
        if !data.starts_with(MAGIC) {
            return Err(Error::bad_file(
                "not a recording",
                0,
                "it does not begin with 'biopsy'",
            ));
        }
        let Some(version) = number(data, MAGIC.len()) else {
            return Err(Error::bad_file(
                WHAT,
                data.len() as u64,
                "the file is cut short",
            ));
        };
        if version != VERSION {
            let why = format!(
                "it has format version {version}, and this biopsy reads format version {VERSION}"
            );
            let error = Error::bad_file("cannot read the recording", MAGIC.len() as u64, why);
            return Err(if version > VERSION {
                error.hint("a newer biopsy wrote it: update this one")
            } else {
                error
            });
        }
        Ok(Blocks {
            data,
            at: MAGIC.len() + 4,
            unpacker: Unpacker::new("the recording")?,
        })
    }

    /// Unpacks the next block; gives its kind and place. `None` at the end of the file.
    fn next(&mut self) -> Result<Option<(u32, u64)>> {
        if self.at == self.data.len() {
            return Ok(None);
        }
        let offset = self.at as u64;
        let bad = |why: &str| Error::bad_file(WHAT, offset, why);
        let rest = self.data.get(self.at..).unwrap_or_default();
        let head = BlockHead::read(rest).ok_or_else(|| bad("a block is cut short"))?;
        let end = BLOCK_HEAD + head.stored as usize;
        let stored = rest
            .get(BLOCK_HEAD..end)
            .ok_or_else(|| bad("a block is cut short"))?;
        Unpacker::check(&head, stored).map_err(bad)?;
        self.at += end;
        if kind::is_known(head.kind) {
            self.unpacker.unpack(&head, stored).map_err(bad)?;
        } else {
            self.unpacker.raw.clear();
        }
        Ok(Some((head.kind, offset)))
    }

    /// The place of what has not been read, if anything.
    fn rest(&self) -> Option<u64> {
        (self.at < self.data.len()).then_some(self.at as u64)
    }
}

#[derive(Default)]
struct Reader {
    profile: Profile,
    /// Whether each row of statistics says whether its calls are a lower bound.
    bounds_by_row: bool,
    /// Functions whose lines have been read.
    counted: FxHashSet<FunctionId>,
    order: Vec<StackId>,
}

impl Reader {
    fn block(&mut self, kind: u32, cursor: &mut Cursor<'_>, count: u64) -> Result<()> {
        match kind {
            kind::META if count > 0 => return Err(cursor.bad("facts about the recording twice")),
            kind::META => {
                self.profile.meta = meta(cursor)?;
                return Ok(());
            }
            kind::PROCESSES => self.processes(cursor)?,
            kind::THREADS => self.threads(cursor)?,
            kind::STRINGS => self.strings(cursor)?,
            kind::FUNCTIONS => self.functions(cursor)?,
            kind::FRAMES => self.frames(cursor)?,
            kind::STACKS => self.stacks(cursor)?,
            kind::ORDER => {
                let count = cursor.rows(1)?;
                let stacks = self.profile.tables.stacks().len();
                for value in cursor.column(count)? {
                    self.order.push(StackId(cursor.check_index(
                        value as i64,
                        stacks,
                        "stack",
                    )?));
                }
            }
            kind::RUNS => {
                let Profile {
                    tables,
                    threads,
                    runs,
                    ..
                } = &mut self.profile;
                runs::read(cursor, &self.order, tables, threads.len(), runs)?;
            }
            kind::EXACT => self.exact(cursor)?,
            kind::ROWS => self.rows(cursor)?,
            kind::COUNTS => self.counts(cursor)?,
            kind::SOURCES => self.sources(cursor)?,
            kind::TEXTS => self.texts(cursor)?,
            kind::QUALNAMES => self.qualnames(cursor)?,
            kind::LINES => self.lines(cursor)?,
            _ => return Ok(()),
        }
        cursor.end()
    }

    fn processes(&mut self, cursor: &mut Cursor<'_>) -> Result<()> {
        for _ in 0..cursor.rows(4)? {
            self.profile.processes.push(ProcessInfo {
                pid: cursor.varint_i32()?,
                parent: cursor.varint_i32()?,
                python: cursor.text()?.to_string(),
                command: cursor.text()?.to_string(),
            });
        }
        Ok(())
    }

    fn threads(&mut self, cursor: &mut Cursor<'_>) -> Result<()> {
        for _ in 0..cursor.rows(5)? {
            let process = ProcessId(cursor.index(self.profile.processes.len(), "process")?);
            let (os_id, python_id) = (cursor.varint()?, cursor.varint()?);
            self.profile.threads.push(ThreadInfo {
                process,
                os_id,
                python_id,
                started_us: cursor.varint()?,
                name: match flag(cursor)? {
                    true => Some(cursor.text()?.to_string()),
                    false => None,
                },
            });
        }
        Ok(())
    }

    fn strings(&mut self, cursor: &mut Cursor<'_>) -> Result<()> {
        let tables = &mut self.profile.tables;
        for _ in 0..cursor.rows(1)? {
            let next = tables.strings().len();
            let id = tables.string(cursor.text()?);
            is_new(cursor, id.index(), next)?;
        }
        Ok(())
    }

    fn functions(&mut self, cursor: &mut Cursor<'_>) -> Result<()> {
        let tables = &mut self.profile.tables;
        let strings = tables.strings().len();
        let count = cursor.rows(4)?;
        let files = cursor.column(count)?;
        let lines = cursor.column(count)?;
        let names = cursor.column(count)?;
        let kinds = cursor.column(count)?;
        let (mut file, mut name) = (0, 0);
        for (((file_step, line), name_step), kind) in
            files.into_iter().zip(lines).zip(names).zip(kinds)
        {
            let function = Function {
                file: StringId(step(cursor, &mut file, file_step, strings, "text")?),
                line: u32::try_from(line).map_err(|_| cursor.bad("a line is out of range"))?,
                name: StringId(step(cursor, &mut name, name_step, strings, "text")?),
                kind: match kind {
                    0 => FunctionKind::Python,
                    1 => FunctionKind::Builtin,
                    2 => FunctionKind::Native,
                    _ => return Err(cursor.bad(format_args!("no kind {kind} of function"))),
                },
            };
            let next = tables.functions().len();
            is_new(cursor, tables.add_function(function).index(), next)?;
        }
        Ok(())
    }

    fn frames(&mut self, cursor: &mut Cursor<'_>) -> Result<()> {
        let tables = &mut self.profile.tables;
        let functions = tables.functions().len();
        let count = cursor.rows(2)?;
        let (steps, lines) = (cursor.column(count)?, cursor.column(count)?);
        let mut last = 0;
        for (value, line) in steps.into_iter().zip(lines) {
            let function = FunctionId(step(cursor, &mut last, value, functions, "function")?);
            let line = i64::from(tables.line(function)).checked_add(unzigzag(line));
            let line = line.and_then(|line| u32::try_from(line).ok());
            let frame = Frame {
                function,
                line: line.ok_or_else(|| cursor.bad("a line is out of range"))?,
            };
            let next = tables.frames().len();
            is_new(
                cursor,
                tables.frame(frame.function, frame.line).index(),
                next,
            )?;
        }
        Ok(())
    }

    fn stacks(&mut self, cursor: &mut Cursor<'_>) -> Result<()> {
        let tables = &mut self.profile.tables;
        let frames = tables.frames().len();
        let count = cursor.rows(2)?;
        let (parents, steps) = (cursor.column(count)?, cursor.column(count)?);
        let mut last = 0;
        for (back, value) in parents.into_iter().zip(steps) {
            let next = tables.stacks().len();
            let parent = match back {
                0 => None,
                back => {
                    let parent = (next as i64).checked_sub_unsigned(back).unwrap_or(-1);
                    Some(StackId(cursor.check_index(parent, next, "stack")?))
                }
            };
            let frame = FrameId(step(cursor, &mut last, value, frames, "frame")?);
            is_new(cursor, tables.stack(parent, frame).index(), next)?;
        }
        Ok(())
    }

    fn exact(&mut self, cursor: &mut Cursor<'_>) -> Result<()> {
        if self.profile.exact.is_some() {
            return Err(cursor.bad("exact statistics twice"));
        }
        let mut exact = CallStats::default();
        for _ in 0..cursor.rows(1)? {
            exact.groups.push(cursor.text()?.to_string());
        }
        (exact.exact, self.bounds_by_row) = match cursor.byte()? {
            0 => (false, false),
            1 => (true, false),
            2 => (false, true),
            other => return Err(cursor.bad(format_args!("no kind {other} of statistics"))),
        };
        self.profile.exact = Some(exact);
        Ok(())
    }

    fn sources(&mut self, cursor: &mut Cursor<'_>) -> Result<()> {
        for _ in 0..cursor.rows(8)? {
            let (file, path) = (cursor.text()?.to_string(), cursor.text()?.to_string());
            let (modified_ms, size) = (cursor.varint()?, cursor.varint()?);
            let hash = number(cursor.take(4)?, 0).unwrap_or_default();
            self.profile.sources.push(SourceFile {
                file,
                path,
                modified_ms,
                size,
                hash,
                text: None,
            });
        }
        Ok(())
    }

    fn texts(&mut self, cursor: &mut Cursor<'_>) -> Result<()> {
        for _ in 0..cursor.rows(2)? {
            let at = cursor.index(self.profile.sources.len(), "source")?;
            let text = cursor.text()?;
            match self.profile.sources.get_mut(at as usize) {
                Some(source) if source.text.is_none() => source.text = Some(text.into()),
                _ => return Err(cursor.bad("a source has two texts")),
            }
        }
        Ok(())
    }

    fn qualnames(&mut self, cursor: &mut Cursor<'_>) -> Result<()> {
        let functions = self.profile.tables.functions().len();
        for _ in 0..cursor.rows(2)? {
            let function = FunctionId(cursor.index(functions, "function")?);
            let text = cursor.text()?;
            let tables = &mut self.profile.tables;
            let qualname = match text {
                "" => tables.name(function).to_string(),
                text => text.to_string(),
            };
            tables.set_qualname(function, &qualname);
        }
        Ok(())
    }

    fn lines(&mut self, cursor: &mut Cursor<'_>) -> Result<()> {
        let functions = self.profile.tables.functions().len();
        let unit = amount(cursor)?;
        if unit <= 0.0 {
            return Err(cursor.bad("times without a unit"));
        }
        let (at_least, by_line) = match cursor.byte()? {
            0 => (false, false),
            1 => (true, false),
            2 => (false, true),
            other => return Err(cursor.bad(format_args!("no kind {other} of hits"))),
        };
        let known = self.profile.lines.get_or_insert_with(|| LineCounts {
            unit,
            ..LineCounts::default()
        });
        known.at_least |= at_least;
        for _ in 0..cursor.rows(2)? {
            let function = FunctionId(cursor.index(functions, "function")?);
            if !self.counted.insert(function) {
                return Err(cursor.bad("the lines of a function twice"));
            }
            let mut lines: Vec<LineCount> = Vec::new();
            for _ in 0..cursor.rows(10)? {
                let before = lines.last().map_or(0, |last| last.line);
                let step = cursor.varint()?;
                if step == 0 && !lines.is_empty() {
                    return Err(cursor.bad("a line stands twice"));
                }
                let line = u32::try_from(step)
                    .ok()
                    .and_then(|step| before.checked_add(step));
                lines.push(LineCount {
                    line: line.ok_or_else(|| cursor.bad("a line is out of range"))?,
                    hits: cursor.varint()?,
                    time: amount(cursor)?,
                    at_least: by_line && flag(cursor)?,
                });
            }
            known.functions.push((function, lines));
        }
        Ok(())
    }

    fn counts(&mut self, cursor: &mut Cursor<'_>) -> Result<()> {
        let threads = self.profile.threads.len();
        let functions = self.profile.tables.functions().len();
        for _ in 0..cursor.rows(13)? {
            let thread = ThreadId(cursor.index(threads, "thread")?);
            let function = FunctionId(cursor.index(functions, "function")?);
            let source = match cursor.byte()? {
                0 => CallSource::Watchpoint,
                1 => CallSource::Samples,
                2 => CallSource::LowerBound,
                other => return Err(cursor.bad(format_args!("no source {other} of calls"))),
            };
            let calls = amount(cursor)?;
            let error = match flag(cursor)? {
                true => Some(amount(cursor)?),
                false => None,
            };
            let count = cursor.rows(9)?;
            let mut callers = Vec::with_capacity(count);
            let mut sum = 0.0;
            for _ in 0..count {
                let caller = FunctionId(cursor.index(functions, "function")?);
                let share = amount(cursor)?;
                sum += share;
                callers.push((caller, share));
            }
            if sum > MOST_SHARES {
                return Err(cursor.bad("callers have more than all calls"));
            }
            self.profile.counts.push(Counted {
                thread,
                function,
                estimate: CallEstimate {
                    calls,
                    error,
                    source,
                },
                callers,
            });
        }
        Ok(())
    }

    fn rows(&mut self, cursor: &mut Cursor<'_>) -> Result<()> {
        let functions = self.profile.tables.functions().len();
        let Some(exact) = &mut self.profile.exact else {
            return Err(cursor.bad("rows without exact statistics"));
        };
        for _ in 0..cursor.rows(21)? {
            let function = FunctionId(cursor.index(functions, "function")?);
            let group = cursor.index(exact.groups.len(), "group")?;
            let (ncalls, primitive) = (cursor.varint()?, cursor.varint()?);
            let (tottime, cumtime) = (cursor.f64()?, cursor.f64()?);
            let count = cursor.rows(20)?;
            let mut callers = Vec::with_capacity(count);
            for _ in 0..count {
                let caller = FunctionId(cursor.index(functions, "function")?);
                let edge = EdgeStats {
                    ncalls: cursor.varint()?,
                    primitive: cursor.varint()?,
                    tottime: cursor.f64()?,
                    cumtime: cursor.f64()?,
                    count_only: flag(cursor)?,
                    lower_bound: false,
                };
                callers.push((caller, edge));
            }
            let lower_bound = self.bounds_by_row && flag(cursor)?;
            for (_, edge) in &mut callers {
                edge.lower_bound = lower_bound;
            }
            exact.rows.push(FunctionStats {
                function,
                group,
                ncalls,
                primitive,
                tottime,
                cumtime,
                callers,
                lower_bound,
            });
        }
        Ok(())
    }
}

fn meta(cursor: &mut Cursor<'_>) -> Result<Meta> {
    let origin = match cursor.byte()? {
        0 => Origin::Sampled,
        1 => Origin::Exact,
        2 => Origin::Collapsed,
        other => return Err(cursor.bad(format_args!("no origin {other}"))),
    };
    let mode = match cursor.byte()? {
        0 => Mode::Wall,
        1 => Mode::Cpu,
        2 => Mode::Gil,
        3 => Mode::Exception,
        other => return Err(cursor.bad(format_args!("no mode {other}"))),
    };
    let flags = cursor.byte()?;
    Ok(Meta {
        origin,
        mode,
        approximate_stacks: flags & 1 != 0,
        blocking: flags & 2 != 0,
        split_threads: flags & 4 != 0,
        has_cpu_time: flags & 8 != 0,
        has_states: flags & 16 != 0,
        times_known: flags & 32 != 0,
        narrowed: String::new(),
        pid: cursor.varint_i32()?,
        rate_hz: cursor.f64()?,
        mean_lateness_us: cursor.f64()?,
        started_at_ms: cursor.varint()?,
        duration_us: cursor.varint()?,
        samples: cursor.varint()?,
        given_up: cursor.varint()?,
        command: cursor.text()?.to_string(),
        python: cursor.text()?.to_string(),
        reader: cursor.text()?.to_string(),
        retried: match cursor.end() {
            Ok(()) => 0,
            Err(_) => cursor.varint()?,
        },
    })
}

/// A number that is finite and not negative.
fn amount(cursor: &mut Cursor<'_>) -> Result<f64> {
    let value = cursor.f64()?;
    if value.is_finite() && value >= 0.0 {
        Ok(value)
    } else {
        Err(cursor.bad(format_args!("{value} is no number of calls")))
    }
}

fn flag(cursor: &mut Cursor<'_>) -> Result<bool> {
    match cursor.byte()? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(cursor.bad(format_args!("{other} is neither yes nor no"))),
    }
}

/// The id `value` (zigzag) away from `last`.
fn step(cursor: &Cursor<'_>, last: &mut i64, value: u64, length: usize, what: &str) -> Result<u32> {
    let id = last.checked_add(unzigzag(value)).unwrap_or(-1);
    let id = cursor.check_index(id, length, what)?;
    *last = i64::from(id);
    Ok(id)
}

/// Ids are positions: a row that is there already would shift all that follow.
fn is_new(cursor: &Cursor<'_>, id: usize, next: usize) -> Result<()> {
    if id == next {
        Ok(())
    } else {
        Err(cursor.bad("a row stands twice in its table"))
    }
}
