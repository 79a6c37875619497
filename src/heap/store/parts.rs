//! Rows of the small tables to bytes and back: head, mappings, threads, summaries, shapes, roots.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{MOST_TEXT, SnapshotHead};
use crate::blocks::bytes::{self, Cursor, put_varint, unzigzag, zigzag};
use crate::error::Result;
use crate::heap::census::{Counting, Doubts, TypeCount, Unsure};
use crate::heap::graph::{Cache, Label, NameId, Rest, Root, Shape};
use crate::heap::malloc::Malloc;
use crate::heap::rss::{Account, Pages, Part};
use crate::target::image::{Held, Mapping, ThreadName};

/// Appends a text, of which at most [`MOST_TEXT`] bytes are kept.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    let mut end = text.len().min(MOST_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    bytes::put_text(out, &text[..end]);
}

fn put_option<T>(out: &mut Vec<u8>, value: Option<T>, put: impl Fn(&mut Vec<u8>, T)) {
    out.push(u8::from(value.is_some()));
    if let Some(value) = value {
        put(out, value);
    }
}

fn option<'a, T>(
    cursor: &mut Cursor<'a>,
    take: impl Fn(&mut Cursor<'a>) -> Result<T>,
) -> Result<Option<T>> {
    match cursor.byte()? {
        0 => Ok(None),
        1 => take(cursor).map(Some),
        other => Err(cursor.bad(format_args!("{other} is neither yes nor no"))),
    }
}

fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_varint(out, zigzag(value));
}

fn put_varints(out: &mut Vec<u8>, values: impl IntoIterator<Item = u64>) {
    for value in values {
        put_varint(out, value);
    }
}

fn narrow(cursor: &Cursor<'_>, value: u64, what: &str) -> Result<u32> {
    u32::try_from(value).map_err(|_| cursor.bad(format_args!("{what} {value} is out of range")))
}

/// Seconds since 1970, rounded down, and nanoseconds.
fn since_1970(time: SystemTime) -> (i64, u32) {
    let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => (seconds(after), after.subsec_nanos()),
        Err(error) => {
            let before = error.duration();
            match before.subsec_nanos() {
                0 => (-seconds(before), 0),
                nanos => (-seconds(before) - 1, 1_000_000_000 - nanos),
            }
        }
    }
}

pub(super) fn put_head(out: &mut Vec<u8>, head: &SnapshotHead) {
    put_text(out, &head.python);
    put_option(out, head.pid, |out, pid| put_signed(out, i64::from(pid)));
    put_option(out, head.started, put_varint);
    put_text(out, &head.command);
    let (seconds, nanos) = since_1970(head.taken_at);
    put_signed(out, seconds);
    put_varint(out, u64::from(nanos));
    match head.held {
        Held::Stopped(pause) => {
            out.push(0);
            put_varint(out, u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX));
        }
        Held::Running => out.push(1),
        Held::Already => out.push(2),
        Held::Core => out.push(3),
    }
    put_option(out, head.rss, put_varint);
    out.push(u8::from(head.values));
    put_doubts(out, head.doubts);
}

/// Without mappings and threads.
pub(super) fn head(cursor: &mut Cursor<'_>) -> Result<SnapshotHead> {
    let python = cursor.text()?.to_string();
    let pid = option(cursor, Cursor::varint_i32)?;
    let started = option(cursor, Cursor::varint)?;
    let command = cursor.text()?.to_string();
    let (seconds, nanos) = (unzigzag(cursor.varint()?), cursor.varint()?);
    let length = Duration::from_secs(seconds.unsigned_abs());
    let whole = match seconds {
        0.. => UNIX_EPOCH.checked_add(length),
        _ => UNIX_EPOCH.checked_sub(length),
    };
    let taken_at = whole
        .filter(|_| nanos < 1_000_000_000)
        .and_then(|time| time.checked_add(Duration::from_nanos(nanos)))
        .ok_or_else(|| cursor.bad("its time is out of range"))?;
    let held = match cursor.byte()? {
        0 => Held::Stopped(Duration::from_nanos(cursor.varint()?)),
        1 => Held::Running,
        2 => Held::Already,
        3 => Held::Core,
        other => return Err(cursor.bad(format_args!("no way {other} of holding a process"))),
    };
    Ok(SnapshotHead {
        python,
        pid,
        started,
        command,
        taken_at,
        held,
        rss: option(cursor, Cursor::varint)?,
        mappings: Vec::new(),
        threads: Vec::new(),
        values: cursor.byte()? & 1 != 0,
        doubts: doubts(cursor)?,
        account: None,
    })
}

fn put_doubts(out: &mut Vec<u8>, doubts: Doubts) {
    put_varints(out, [doubts.torn, doubts.unreadable, doubts.conservative]);
}

fn doubts(cursor: &mut Cursor<'_>) -> Result<Doubts> {
    Ok(Doubts {
        missing: 0,
        torn: cursor.varint()?,
        unreadable: cursor.varint()?,
        conservative: cursor.varint()?,
    })
}

pub(super) fn put_mapping(out: &mut Vec<u8>, mapping: &Mapping) {
    put_varints(out, [mapping.start, mapping.end]);
    put_text(out, &mapping.permissions);
    put_text(out, &mapping.name);
    put_varints(
        out,
        [
            mapping.rss,
            mapping.private,
            mapping.anonymous,
            mapping.swap,
        ],
    );
}

pub(super) fn mapping(cursor: &mut Cursor<'_>) -> Result<Mapping> {
    Ok(Mapping {
        start: cursor.varint()?,
        end: cursor.varint()?,
        permissions: cursor.text()?.to_string(),
        name: cursor.text()?.to_string(),
        rss: cursor.varint()?,
        private: cursor.varint()?,
        anonymous: cursor.varint()?,
        swap: cursor.varint()?,
    })
}

pub(super) fn put_account(out: &mut Vec<u8>, account: &Account) {
    put_varint(out, account.parts.len() as u64);
    put_varints(out, account.parts);
    put_varint(out, account.swap);
    put_option(out, account.rss, put_varint);
    put_varints(out, [account.objects_bytes, account.numpy_bytes]);
    put_option(out, account.malloc.as_ref(), |out, malloc| {
        put_text(out, &malloc.allocator);
        put_option(out, malloc.why.as_deref(), put_text);
        put_varints(
            out,
            [
                malloc.arenas,
                malloc.system,
                malloc.free,
                malloc.top,
                malloc.cached,
                malloc.mapped,
                malloc.mapped_blocks,
                malloc.torn,
            ],
        );
    });
    put_option(out, account.sharing, |out, pages| {
        put_varints(
            out,
            [
                pages.pss,
                pages.private,
                pages.shared,
                pages.copied,
                pages.huge,
                pages.hugetlb,
            ],
        );
        put_varint(out, pages.parts.len() as u64);
        put_varints(out, pages.parts);
    });
}

/// As many numbers as the block says that there are parts; those that this version does not know are left out.
fn part_bytes(cursor: &mut Cursor<'_>) -> Result<[u64; Part::ALL.len()]> {
    let mut parts = [0; Part::ALL.len()];
    for at in 0..cursor.varint()? {
        let bytes = cursor.varint()?;
        let place = usize::try_from(at).ok();
        if let Some(part) = place.and_then(|at| parts.get_mut(at)) {
            *part = bytes;
        }
    }
    Ok(parts)
}

/// Older versions end after the data of numpy arrays.
pub(super) fn account(cursor: &mut Cursor<'_>) -> Result<Account> {
    let mut account = Account {
        parts: part_bytes(cursor)?,
        swap: cursor.varint()?,
        rss: option(cursor, Cursor::varint)?,
        objects_bytes: cursor.varint()?,
        numpy_bytes: cursor.varint()?,
        ..Account::default()
    };
    if cursor.end().is_ok() {
        return Ok(account);
    }
    account.malloc = option(cursor, |cursor| {
        Ok(Malloc {
            allocator: cursor.text()?.to_string(),
            why: option(cursor, |cursor| cursor.text().map(str::to_string))?,
            arenas: cursor.varint()?,
            system: cursor.varint()?,
            free: cursor.varint()?,
            top: cursor.varint()?,
            cached: cursor.varint()?,
            mapped: cursor.varint()?,
            mapped_blocks: cursor.varint()?,
            torn: cursor.varint()?,
        })
    })?;
    account.sharing = option(cursor, |cursor| {
        Ok(Pages {
            pss: cursor.varint()?,
            private: cursor.varint()?,
            shared: cursor.varint()?,
            copied: cursor.varint()?,
            huge: cursor.varint()?,
            hugetlb: cursor.varint()?,
            parts: part_bytes(cursor)?,
        })
    })?;
    Ok(account)
}

pub(super) fn put_thread(out: &mut Vec<u8>, thread: &ThreadName) {
    put_signed(out, i64::from(thread.tid));
    put_text(out, &thread.name);
}

pub(super) fn thread(cursor: &mut Cursor<'_>) -> Result<ThreadName> {
    Ok(ThreadName {
        tid: cursor.varint_i32()?,
        name: cursor.text()?.to_string(),
    })
}

pub(super) fn put_counting(out: &mut Vec<u8>, counting: Counting, doubts: Doubts) {
    out.push(match counting {
        Counting::Reachable => 0,
        Counting::Muppy => 1,
    });
    put_doubts(out, doubts);
}

pub(super) fn counting(cursor: &mut Cursor<'_>) -> Result<(Counting, Doubts)> {
    let counting = match cursor.byte()? {
        0 => Counting::Reachable,
        1 => Counting::Muppy,
        other => return Err(cursor.bad(format_args!("no way {other} of counting"))),
    };
    Ok((counting, doubts(cursor)?))
}

pub(super) fn put_type_count(out: &mut Vec<u8>, row: &TypeCount) {
    put_text(out, &row.name);
    put_varints(out, [row.objects, row.bytes]);
}

pub(super) fn type_count(cursor: &mut Cursor<'_>) -> Result<TypeCount> {
    Ok(TypeCount {
        name: cursor.text()?.to_string(),
        objects: cursor.varint()?,
        bytes: cursor.varint()?,
    })
}

/// What of a type is not sure, with its name and objects.
type UnsureRow<'a> = (u8, &'a (String, u64));

/// What of a type is not sure.
const LAYOUT: u8 = 0;
const SIZE: u8 = 1;

pub(super) fn unsure_rows(unsure: &Unsure) -> impl Iterator<Item = UnsureRow<'_>> {
    let layout = unsure.layout.iter().map(|row| (LAYOUT, row));
    layout.chain(unsure.size.iter().map(|row| (SIZE, row)))
}

pub(super) fn put_unsure(out: &mut Vec<u8>, (what, (name, objects)): &UnsureRow<'_>) {
    out.push(*what);
    put_text(out, name);
    put_varint(out, *objects);
}

pub(super) fn add_unsure(cursor: &mut Cursor<'_>, unsure: &mut Unsure) -> Result<()> {
    let what = cursor.byte()?;
    let row = (cursor.text()?.to_string(), cursor.varint()?);
    match what {
        LAYOUT => unsure.layout.push(row),
        SIZE => unsure.size.push(row),
        other => return Err(cursor.bad(format_args!("nothing {other} is unsure of a type"))),
    }
    Ok(())
}

pub(super) fn put_shape(out: &mut Vec<u8>, shape: &Shape) {
    out.push(match shape.rest {
        Rest::Nothing => 0,
        Rest::Items => 1,
        Rest::Pairs => 2,
        Rest::Members => 3,
    });
    put_varint(out, shape.labels.len() as u64);
    for label in &shape.labels {
        let (kind, name) = match *label {
            Label::Found => (0, None),
            Label::Attribute(name) => (1, Some(name)),
            Label::Field(name) => (2, Some(name)),
            Label::Local(name) => (3, Some(name)),
        };
        out.push(kind);
        if let Some(name) = name {
            put_varint(out, u64::from(name));
        }
    }
}

/// A shape; `allow` is asked whether there may be so many labels.
pub(super) fn shape(
    cursor: &mut Cursor<'_>,
    names: usize,
    allow: impl FnOnce(&Cursor<'_>, usize) -> Result<()>,
) -> Result<Shape> {
    let rest = match cursor.byte()? {
        0 => Rest::Nothing,
        1 => Rest::Items,
        2 => Rest::Pairs,
        3 => Rest::Members,
        other => return Err(cursor.bad(format_args!("no kind {other} of shape"))),
    };
    let count = cursor.rows(1)?;
    allow(cursor, count)?;
    let mut labels = Vec::with_capacity(count);
    for _ in 0..count {
        labels.push(match cursor.byte()? {
            0 => Label::Found,
            1 => Label::Attribute(name(cursor, names)?),
            2 => Label::Field(name(cursor, names)?),
            3 => Label::Local(name(cursor, names)?),
            other => return Err(cursor.bad(format_args!("no kind {other} of label"))),
        });
    }
    Ok(Shape { labels, rest })
}

fn name(cursor: &mut Cursor<'_>, names: usize) -> Result<NameId> {
    cursor.index(names, "name")
}

pub(super) fn put_cache(out: &mut Vec<u8>, cache: &Cache) {
    put_varints(
        out,
        [cache.object, cache.function, cache.file, cache.line].map(u64::from),
    );
    put_varints(out, [cache.hits, cache.misses, cache.size]);
    put_option(out, cache.limit, put_varint);
}

pub(super) fn cache(cursor: &mut Cursor<'_>, objects: usize, names: usize) -> Result<Cache> {
    let object = cursor.varint()?;
    let object = cursor.check_index(i64::try_from(object).unwrap_or(-1), objects, "object")?;
    let (function, file) = (name(cursor, names)?, name(cursor, names)?);
    let line = cursor.varint()?;
    Ok(Cache {
        object,
        function,
        file,
        line: narrow(cursor, line, "line")?,
        hits: cursor.varint()?,
        misses: cursor.varint()?,
        size: cursor.varint()?,
        limit: option(cursor, Cursor::varint)?,
    })
}

pub(super) fn put_root(out: &mut Vec<u8>, root: &Root) {
    match *root {
        Root::Module(name) => {
            out.push(0);
            put_varint(out, u64::from(name));
        }
        Root::Frame {
            thread,
            depth,
            function,
            local,
        } => {
            out.push(1);
            put_signed(out, i64::from(thread));
            put_varints(out, [depth, function].map(u64::from));
            put_varint(out, local.map_or(0, |name| u64::from(name) + 1));
        }
        Root::Interpreter(name) => {
            out.push(2);
            put_varint(out, u64::from(name));
        }
        Root::StaticType => out.push(3),
        // Which of the two it is stands in the object's flags.
        Root::Tracked | Root::Garbage => out.push(4),
        Root::Thread { thread, field } => {
            out.push(5);
            put_signed(out, i64::from(thread));
            put_varint(out, u64::from(field));
        }
    }
}

pub(super) fn root(cursor: &mut Cursor<'_>, names: usize) -> Result<Root> {
    Ok(match cursor.byte()? {
        0 => Root::Module(name(cursor, names)?),
        1 => Root::Frame {
            thread: cursor.varint_i32()?,
            depth: {
                let depth = cursor.varint()?;
                narrow(cursor, depth, "depth")?
            },
            function: name(cursor, names)?,
            local: match cursor.varint()?.checked_sub(1) {
                None => None,
                Some(id) => Some(cursor.check_index(id as i64, names, "name")?),
            },
        },
        2 => Root::Interpreter(name(cursor, names)?),
        3 => Root::StaticType,
        4 => Root::Tracked,
        5 => Root::Thread {
            thread: cursor.varint_i32()?,
            field: name(cursor, names)?,
        },
        other => return Err(cursor.bad(format_args!("no kind {other} of root"))),
    })
}
