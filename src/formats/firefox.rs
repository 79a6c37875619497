//! The Firefox Profiler's processed profile, format version 55 (`docs-developer/CHANGELOG-formats.md` of
//! firefox-devtools/profiler), which profiler.firefox.com opens and brings up to date itself.
//!
//! Each thread of the target is one of the profile, with its samples in the order of time; weights are
//! milliseconds of wall time. Threads stay apart whatever the options say: a timeline has one stack at a
//! time. Written column by column, so that a long recording need not fit into memory twice. The crate
//! fxprof-processed-profile was not used: in its version 0.8 frames have no files or lines, and weights
//! are integers.

mod tables;
mod thread;

use std::io::{self, BufWriter, Write};

use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::{ExportOptions, Exporter, Loss, check_timeline};
use crate::error::{Error, Result};
use crate::profile::{Origin, Profile};
use thread::{Names, Thread};

/// `.gecko.json` files.
#[derive(Debug, Clone, Copy)]
pub struct Firefox;

/// The processed profile's version.
const VERSION: u32 = 55;

/// Categories of frames, by position; the profiler wants a grey one. Idle samples take their innermost
/// frame's from here, which leaves the timeline empty there.
const CATEGORIES: [(&str, &str); 5] = [
    ("Other", "grey"),
    ("Python", "yellow"),
    ("C function", "blue"),
    ("Native", "lightblue"),
    ("Idle", "transparent"),
];

impl Exporter for Firefox {
    fn needs_timeline(&self) -> bool {
        true
    }

    fn export(
        &self,
        profile: &Profile,
        options: &ExportOptions,
        out: &mut dyn Write,
    ) -> Result<Vec<Loss>> {
        check_timeline(profile)?;
        let mut losses = Vec::new();
        if profile.exact.is_some() {
            losses.push(
                "the profile has callers but no stacks or times; stacks and their order are \
                 estimates"
                    .to_string(),
            );
        }
        let document = Document { profile, options };
        let mut out = BufWriter::with_capacity(1 << 16, out);
        let done = serde_json::to_writer(&mut out, &document).map_err(io::Error::from);
        let done = done
            .and_then(|()| out.write_all(b"\n"))
            .and_then(|()| out.flush());
        done.map_err(|error| Error::write("the Firefox profile", &error))?;
        Ok(losses)
    }
}

struct Document<'a> {
    profile: &'a Profile,
    options: &'a ExportOptions,
}

impl Serialize for Document<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("meta", &self.meta())?;
        map.serialize_entry("libs", &json!([]))?;
        map.serialize_entry("threads", &Threads(self))?;
        map.serialize_entry("pages", &json!([]))?;
        map.serialize_entry("profilerOverhead", &json!([]))?;
        map.serialize_entry("counters", &json!([]))?;
        map.end()
    }
}

impl Document<'_> {
    fn meta(&self) -> Value {
        let meta = &self.profile.meta;
        let category = |(name, color): &(&str, &str)| json!({"name": name, "color": color, "subcategories": ["Other"]});
        let categories: Vec<Value> = CATEGORIES.iter().map(category).collect();
        let product = match self.options.title(self.profile) {
            "" => "python",
            title => title,
        };
        // The profiler divides by the interval; without a rate the one that was reached will do.
        let interval_ms = if meta.rate_hz > 0.0 {
            1e3 / meta.rate_hz
        } else if meta.samples > 0 && meta.duration_us > 0 {
            meta.duration_us as f64 / 1e3 / meta.samples as f64
        } else {
            1.0
        };
        json!({
            "categories": categories,
            "debug": false,
            "extensions": {"length": 0, "baseURL": [], "id": [], "name": []},
            "interval": interval_ms,
            "preprocessedProfileVersion": VERSION,
            "processType": 0,
            "product": product,
            "importedFrom": "biopsy",
            "sampleUnits": {"time": "ms", "eventDelay": "ms", "threadCPUDelta": "µs"},
            "startTime": meta.started_at_ms,
            "symbolicated": true,
            "pausedRanges": [],
            "version": 24,
            "usesOnlyOneStackType": true,
            "sourceCodeIsNotOnSearchfox": true,
            "markerSchema": [],
            "extra": [{"label": "biopsy", "entries": self.facts()}],
        })
    }

    /// What a reader should know about the numbers, for the panel about the profile.
    fn facts(&self) -> Vec<Value> {
        let meta = &self.profile.meta;
        let mut facts = vec![
            ("Python", meta.python.clone()),
            (
                "Samples that count",
                self.options.filter.mode.name().to_string(),
            ),
            ("Samples", meta.samples.to_string()),
            ("Given up", meta.given_up.to_string()),
        ];
        if meta.approximate_stacks {
            let how = "approximate: read without stopping the process";
            facts.push(("Stacks", how.to_string()));
        }
        match meta.origin {
            Origin::Sampled => {}
            Origin::Exact => facts.push(("Stacks", "estimated from exact callers".to_string())),
            Origin::Collapsed if meta.unit_is_unknown() => {
                facts.push(("Unit", "unknown (collapsed stacks)".to_string()));
            }
            Origin::Collapsed => {}
        }
        facts.push(("Shown", meta.narrowed.clone()));
        facts.retain(|(_, value)| !value.is_empty());
        let entry = |(label, value)| json!({"label": label, "format": "string", "value": value});
        facts.into_iter().map(entry).collect()
    }
}

/// The threads, each made when it is written and dropped after it.
struct Threads<'a>(&'a Document<'a>);

impl Serialize for Threads<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Document { profile, options } = self.0;
        let mut seq = serializer.serialize_seq(None)?;
        let mut names = Names::default();
        if profile.exact.is_some() || profile.threads.is_empty() {
            seq.serialize_element(&Thread::estimated(profile, options, &mut names))?;
            return seq.end();
        }
        let (starts, positions) = by_thread(profile);
        let wanted = options.filter.threads(profile);
        let mut any = false;
        for (at, wanted) in wanted.iter().enumerate() {
            let runs = positions
                .get(starts[at]..starts[at + 1])
                .unwrap_or_default();
            if *wanted {
                seq.serialize_element(&Thread::recorded(profile, options, at, runs, &mut names))?;
                any = true;
            }
        }
        if !any {
            // The profiler refuses a profile without threads.
            seq.serialize_element(&Thread::estimated(&Profile::default(), options, &mut names))?;
        }
        seq.end()
    }
}

/// Positions of the runs, those of one thread together and in order; where each thread's begin.
fn by_thread(profile: &Profile) -> (Vec<usize>, Vec<u32>) {
    let mut starts = vec![0; profile.threads.len() + 1];
    for run in &profile.runs {
        starts[run.thread.index() + 1] += 1;
    }
    for at in 1..starts.len() {
        starts[at] += starts[at - 1];
    }
    let mut next = starts.clone();
    let mut positions = vec![0; profile.runs.len()];
    for (at, run) in profile.runs.iter().enumerate() {
        let place = &mut next[run.thread.index()];
        positions[*place] = at as u32;
        *place += 1;
    }
    (starts, positions)
}
