//! Memory: what is resident, and a summary of the heap when it is asked for, since that stops the target.

use std::thread::JoinHandle;
use std::time::Instant;

use rustc_hash::FxHashMap;

use super::draw::broken;
use super::page::{Page, Row, key_of};
use super::tree::Look;
use crate::error::{Error, ErrorKind, Result};
use crate::heap::census::{Census, Counting};
use crate::heap::subject::{Source, open_heap};
use crate::target::memory::copy::{self, CaptureOptions};
use crate::target::process;
use crate::units::{Pid, format_bytes, printable};
use crate::view::heap::{pretty_change, pretty_size, signed, signed_bytes, summary};

/// What is known of the memory.
#[derive(Default)]
pub struct Memory {
    pub pid: Option<Pid>,
    first_rss: Option<u64>,
    rss: Option<u64>,
    most_rss: u64,
    counting: Option<JoinHandle<Result<Census>>>,
    census: Option<(Census, Instant)>,
    /// By type, of the look before: objects and bytes.
    before: Option<FxHashMap<String, (u64, u64)>>,
    failed: Option<String>,
}

/// A type: its name, objects and bytes, and by how much these have changed.
type Counted<'a> = (&'a str, u64, u64, Option<(i64, i64)>);

impl Memory {
    /// Looks at what is resident, and whether a summary is ready; whether anything of the heap is new.
    pub fn look(&mut self) -> bool {
        if let Some(rss) = self.pid.and_then(process::resident) {
            self.first_rss.get_or_insert(rss);
            self.most_rss = self.most_rss.max(rss);
            self.rss = Some(rss);
        }
        if !self.counting.as_ref().is_some_and(JoinHandle::is_finished) {
            return false;
        }
        let Some(counting) = self.counting.take() else {
            return false;
        };
        let failed = || {
            Error::new(
                ErrorKind::Failed,
                "cannot count objects",
                "the thread failed",
            )
        };
        match counting.join().unwrap_or_else(|_| Err(failed())) {
            Ok(census) => {
                self.before = self.census.take().map(|(census, _)| {
                    let types = census.types.into_iter();
                    types
                        .map(|row| (row.name, (row.objects, row.bytes)))
                        .collect()
                });
                self.census = Some((census, Instant::now()));
                self.failed = None;
            }
            Err(error) => self.failed = Some(error.to_string()),
        }
        true
    }

    pub fn rss(&self) -> Option<u64> {
        self.rss
    }

    /// Begins to count objects, which stops the target while its memory is copied.
    pub fn count(&mut self) {
        let Some(pid) = self.pid.filter(|_| self.counting.is_none()) else {
            return;
        };
        let count = move || {
            let (captured, _) = copy::capture(pid, CaptureOptions::default())?;
            Ok(open_heap(&captured)?.census(Counting::Reachable))
        };
        match std::thread::Builder::new().name("heap".into()).spawn(count) {
            Ok(counting) => self.counting = Some(counting),
            Err(error) => self.failed = Some(error.to_string()),
        }
    }

    /// The summary.
    pub fn page(&self, look: &Look<'_>) -> Page {
        let mut page = Page {
            head: format!(
                "{:>10} {:>10} {:>10} {:>10}  type",
                "objects", "change", "size", "change"
            ),
            empty: match self.pid {
                Some(_) => "m reads the heap: that stops the process while its memory is copied"
                    .to_string(),
                None if self.rss.is_some() => "the process has ended".to_string(),
                None => "a recording knows nothing of memory".to_string(),
            },
            ..Page::default()
        };
        let note = |text: String, strong: bool| Row {
            key: key_of(&text),
            name: printable(&text).into_owned(),
            strong,
            ..Row::default()
        };
        if let (Some(rss), Some(first)) = (self.rss, self.first_rss) {
            let change = rss as i64 - first as i64;
            page.rows.push(note(
                format!(
                    "resident {}, {} since top began, at most {}",
                    format_bytes(rss),
                    signed_bytes(change),
                    format_bytes(self.most_rss)
                ),
                true,
            ));
        }
        if self.counting.is_some() {
            page.rows
                .push(note("reading the heap ...".to_string(), false));
        } else if let Some(failed) = &self.failed {
            let lines = broken(failed, look.width.into()).into_iter();
            page.rows.extend(lines.map(|line| note(line, false)));
        }
        let Some((census, at)) = &self.census else {
            if self.counting.is_none() && self.pid.is_some() {
                page.rows.push(note(page.empty.clone(), false));
            }
            return page;
        };
        let text = format!(
            "{} s ago: {}",
            at.elapsed().as_secs(),
            summary::note(census, Source::Held)
        );
        // A line is cut at the edge: its parts have some each.
        let parts = text.split("; ");
        let lines = parts.flat_map(|part| broken(part, look.width.into()));
        page.rows.extend(lines.map(|line| note(line, false)));
        let mut rows: Vec<Counted<'_>> = census
            .types
            .iter()
            .map(|row| {
                let change = self.before.as_ref().map(|before| {
                    let (objects, bytes) = before.get(&row.name).copied().unwrap_or_default();
                    (
                        row.objects as i64 - objects as i64,
                        row.bytes as i64 - bytes as i64,
                    )
                });
                (row.name.as_str(), row.objects, row.bytes, change)
            })
            .filter(|row| look.pattern.is_none_or(|pattern| pattern.is_match(row.0)))
            .collect();
        // What grew is what one asks for again and again.
        rows.sort_by(|a, b| {
            let grown = |row: &Counted<'_>| row.3.map_or(0, |change| change.1);
            (grown(b), b.2).cmp(&(grown(a), a.2)).then(a.0.cmp(b.0))
        });
        let (_, whole) = census.total();
        page.rows
            .extend(rows.into_iter().map(|(name, objects, bytes, change)| Row {
                key: key_of(name),
                columns: format!(
                    "{objects:>10} {:>10} {:>10} {:>10} ",
                    change.map_or("-".to_string(), |change| signed(change.0)),
                    pretty_size(bytes),
                    change.map_or("-".to_string(), |change| pretty_change(change.1)),
                ),
                name: printable(name).into_owned(),
                heat: bytes as f64 / whole.max(1) as f64,
                ..Row::default()
            }));
        page
    }
}
