//! Reads collapsed stacks of all writers, a line each: frames, outermost first, and a number.
//!
//! ```text
//! main (app.py:9);work (app/jobs.py:12) 7             biopsy (first lines), py-spy (running lines)
//!  2                                                  py-spy, of a thread without Python frames
//! P12;T0:34;/app/jobs.py:Jobs.work:12 5021            Austin: process, thread; file, function, running line
//! tid:4566;<frozen runpy>:_run_code:87;jobs.py:work:5 431    profiling.sampling of Python 3.15
//! main;std::vector<int>::push 2                       all others
//! ```
//!
//! The number is a time in microseconds (biopsy, Austin), or in what a line `# unit: nanoseconds 0` or `# unit: microseconds 0`
//! says, or counts samples (py-spy, profiling.sampling); the files do not tell. Each 1 becomes a microsecond and a sample,
//! unless the caller knows how long a sample is.

use std::borrow::Cow;
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::{Collapsed, MICROSECONDS, NANOSECONDS};
use crate::error::{Error, ErrorKind, Result};
use crate::formats::Importer;
use crate::profile::{
    FunctionKind, Meta, Origin, ProcessId, ProcessInfo, Profile, Run, RunState, StackId, ThreadId,
    ThreadInfo,
};

/// A weight fills several runs when it needs more than 32 bits; more of these in all than this are
/// refused, as a short file could ask for any amount of memory.
const MAX_EXTRA_RUNS: u64 = 1_000_000;

/// What stands for the stack of a thread that had no Python frames.
const NO_STACK: &str = "<no stack>";

impl Importer for Collapsed {
    fn recognises(&self, head: &[u8]) -> bool {
        // The last line may have been cut off.
        let whole = match head.iter().rposition(|&b| b == b'\n') {
            Some(end) => &head[..end],
            None => head,
        };
        if whole
            .iter()
            .any(|&b| b < b' ' && !matches!(b, b'\n' | b'\r' | b'\t'))
        {
            return false;
        }
        // Where nothing was sampled, ours has this line alone.
        let is_ours = lines(head)
            .next()
            .is_some_and(|(_, line)| unit(&line).is_some());
        let mut lines = lines(whole)
            .filter(|(_, line)| !is_ignored(line))
            .take(100)
            .peekable();
        (lines.peek().is_some() || is_ours) && lines.all(|(_, line)| parse_line(&line).is_some())
    }

    fn import(&self, data: &[u8]) -> Result<Profile> {
        import_with(data, None)
    }
}

/// Reads a whole file whose numbers are samples, each of which stands for `period`; `None` when that is not known.
pub fn import_with(data: &[u8], period: Option<Duration>) -> Result<Profile> {
    let mut reader = Reader {
        period_ns: period.map(|period| period.as_nanos().max(1)),
        only_austin: true,
        ..Reader::default()
    };
    for (offset, line) in lines(data) {
        let damaged = |why| Error::bad_file("cannot read collapsed stacks", offset, why);
        if is_ignored(&line) {
            reader.header(line.trim())?;
            continue;
        }
        let (stack, weight) = parse_line(&line)
            .ok_or_else(|| damaged("a line does not end in a space and a number"))?;
        let (thread, stack) = reader.stack(stack);
        reader
            .add(thread, stack, weight)
            .ok_or_else(|| damaged("the numbers are too large"))?;
    }
    if reader.profile.tables.stacks().is_empty() && !reader.unit_known {
        return Err(Error::bad_file(
            "cannot read collapsed stacks",
            0,
            "there are no stacks",
        ));
    }
    Ok(reader.finish())
}

/// The profile of an empty file.
pub fn without_stacks() -> Profile {
    Reader::default().finish()
}

/// Lines with their offsets.
fn lines(data: &[u8]) -> impl Iterator<Item = (u64, Cow<'_, str>)> {
    let mut offset = 0;
    data.split(|&b| b == b'\n').map(move |line| {
        let start = offset;
        offset += line.len() as u64 + 1;
        (start, String::from_utf8_lossy(line))
    })
}

/// What a line says that the numbers are.
fn unit(line: &str) -> Option<&'static str> {
    // Older files have no number there.
    let line = line.trim();
    let line = line.strip_suffix(" 0").unwrap_or(line);
    [NANOSECONDS, MICROSECONDS]
        .into_iter()
        .find(|unit| *unit == line)
}

fn is_ignored(line: &str) -> bool {
    line.trim().is_empty() || line.starts_with("# ")
}

/// `a;b c;d 12` or `a;b c;d 12.7` to the stack, which may be empty, and its weight. Austin's full metrics,
/// `12,0,4096`, begin with the time.
fn parse_line(line: &str) -> Option<(&str, u64)> {
    let (stack, number) = line.trim_end().rsplit_once([' ', '\t'])?;
    let stack = stack.trim();
    let number = match number.split_once(',') {
        Some((time, rest))
            if rest
                .bytes()
                .all(|b| b.is_ascii_digit() || b"-,".contains(&b)) =>
        {
            time
        }
        _ => number,
    };
    let weight = match number.parse::<u64>() {
        Ok(weight) => weight,
        Err(_) => {
            let decimal = number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
            let number = number
                .parse::<f64>()
                .ok()
                .filter(|n| decimal && *n < 1e18)?;
            number.round() as u64
        }
    };
    (!number.starts_with('+')).then_some((stack, weight))
}

/// A frame of text.
#[derive(Debug, PartialEq, Eq)]
struct FrameText<'a> {
    name: &'a str,
    file: &'a str,
    /// The function's first line, 0 when unknown.
    first_line: u32,
    /// The running line, 0 when unknown.
    line: u32,
}

/// A frame's name, file and line; `strict` where nothing says that frames are `file:function:line`.
fn parse_frame(text: &str, strict: bool) -> FrameText<'_> {
    let frame = |name, file, line| FrameText {
        name,
        file,
        first_line: line,
        line,
    };
    if let Some(open) = opening_bracket(text).filter(|_| strict) {
        let (name, inside) = (text[..open].trim_end(), &text[open + 1..text.len() - 1]);
        if !name.is_empty() && !inside.is_empty() {
            return match inside
                .rsplit_once(':')
                .map(|(file, line)| (file, line.parse()))
            {
                Some((file, Ok(line))) if !file.is_empty() => frame(name, file, line),
                _ => frame(name, inside, 0),
            };
        }
    }
    let mut parts = text.rsplitn(3, ':');
    if let (Some(line), Some(name), Some(file)) = (parts.next(), parts.next(), parts.next())
        && let Ok(line) = line.parse()
        && !name.is_empty()
        && (!strict || file.ends_with(".py") || file.starts_with(['/', '<']))
    {
        return FrameText {
            name,
            file,
            first_line: 0,
            line,
        };
    }
    frame(text, "", 0)
}

/// Where the bracket opens that the last character closes; a space stands before it.
fn opening_bracket(text: &str) -> Option<usize> {
    if !text.ends_with(')') {
        return None;
    }
    let mut open = 0usize;
    for (at, byte) in text.bytes().enumerate().rev() {
        match byte {
            b')' => open += 1,
            b'(' => open = open.saturating_sub(1),
            _ => continue,
        }
        if open == 0 {
            return text[..at].ends_with(' ').then_some(at);
        }
    }
    None
}

/// What a line begins with, of writers that keep threads apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Place<'a> {
    /// Nothing that is known.
    Any,
    /// Austin's process and thread: `P12`, `T0:34`.
    Austin(i32, &'a str),
    /// The thread of profiling.sampling: `tid:4566`.
    Thread(u64),
}

/// Where a stack was seen, and its frames.
fn place(stack: &str) -> (Place<'_>, &str) {
    let (first, rest) = stack.split_once(';').unwrap_or((stack, ""));
    if let Some(Ok(id)) = first.strip_prefix("tid:").map(str::parse) {
        return (Place::Thread(id), rest);
    }
    if let Some(Ok(pid)) = first.strip_prefix('P').map(str::parse) {
        let (thread, rest) = rest.split_once(';').unwrap_or((rest, ""));
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
        if (thread.strip_prefix('T')).is_some_and(|id| !id.is_empty() && digits(id)) {
            return (Place::Austin(pid, thread), rest);
        }
    }
    (Place::Any, stack)
}

#[derive(Default)]
struct Reader {
    profile: Profile,
    threads: FxHashMap<String, ThreadId>,
    processes: FxHashMap<i32, ProcessId>,
    total_us: u64,
    samples: u64,
    extra_runs: u64,
    /// How long a sample is, where that is known.
    period_ns: Option<u128>,
    /// Nanoseconds that have not made a microsecond yet.
    carried_ns: u128,
    /// Whether the numbers are nanoseconds.
    nanoseconds: bool,
    /// Whether the file says what its numbers are.
    unit_known: bool,
    /// Whether all lines are Austin's, which are in microseconds.
    only_austin: bool,
}

impl Reader {
    /// A line that says something of the others.
    fn header(&mut self, line: &str) -> Result<()> {
        if let Some(unit) = unit(line) {
            self.nanoseconds = unit == NANOSECONDS;
            self.unit_known = true;
            if self.period_ns.is_some() {
                return Err(Error::usage(
                    "cannot use --period",
                    format!(
                        "the file says what its numbers are: {}",
                        unit.trim_start_matches("# ")
                    ),
                ));
            }
        }
        if line == "# mode: memory" {
            return Err(Error::new(
                ErrorKind::NotAvailable,
                "cannot read collapsed stacks",
                "their numbers are bytes of memory, no times (Austin's memory mode)",
            ));
        }
        Ok(())
    }

    fn stack(&mut self, text: &str) -> (ThreadId, Option<StackId>) {
        let (place, frames) = place(text);
        let thread = self.thread(place);
        self.only_austin &= matches!(place, Place::Austin(..));
        let frames = if frames.is_empty() { NO_STACK } else { frames };
        // Whoever counts samples writes the running line behind a name; biopsy, which counts time, the first.
        let are_first = self.period_ns.is_none();
        let tables = &mut self.profile.tables;
        let stack = frames.split(';').fold(None, |parent, text| {
            let frame = parse_frame(text, place == Place::Any);
            let (name, file) = (frame.name, frame.file);
            // Only C functions have such names, and cProfile gives them this file.
            let builtin = file.is_empty()
                && (name.starts_with("<built-in ") || name.starts_with("<method '"));
            let function = if builtin {
                tables.function("~", 0, name, FunctionKind::Builtin)
            } else {
                let first_line = if are_first { frame.first_line } else { 0 };
                tables.function(file, first_line, name, FunctionKind::Python)
            };
            // The first line of a function says nothing of the one that ran.
            let line = if are_first { 0 } else { frame.line };
            let frame = tables.frame(function, line);
            Some(tables.stack(parent, frame))
        });
        (thread, stack)
    }

    fn thread(&mut self, place: Place<'_>) -> ThreadId {
        let (key, pid, os_id, name) = match place {
            Place::Any => (String::new(), 0, 0, None),
            Place::Thread(id) => (format!("tid:{id}"), 0, id, None),
            Place::Austin(pid, thread) => {
                (format!("{pid};{thread}"), pid, 0, Some(thread.to_string()))
            }
        };
        if let Some(thread) = self.threads.get(&key) {
            return *thread;
        }
        let profile = &mut self.profile;
        let process = *self.processes.entry(pid).or_insert_with(|| {
            profile.processes.push(ProcessInfo {
                pid,
                ..ProcessInfo::default()
            });
            ProcessId(profile.processes.len() as u32 - 1)
        });
        profile.threads.push(ThreadInfo {
            process,
            os_id,
            python_id: 0,
            name,
            started_us: 0,
        });
        let thread = ThreadId(profile.threads.len() as u32 - 1);
        self.threads.insert(key, thread);
        thread
    }

    /// `None` when there is too much.
    fn add(&mut self, thread: ThreadId, stack: Option<StackId>, weight: u64) -> Option<()> {
        let stack = stack?;
        let (wall_us, samples) = if self.nanoseconds || self.period_ns.is_some() {
            let each_ns = self.period_ns.unwrap_or(1);
            let ns = u128::from(weight)
                .checked_mul(each_ns)?
                .checked_add(self.carried_ns)?;
            self.carried_ns = ns % 1000;
            let us = u64::try_from(ns / 1000).ok()?;
            (us, if self.nanoseconds { us } else { weight })
        } else {
            (weight, weight)
        };
        self.total_us = self.total_us.checked_add(wall_us)?;
        self.samples = self.samples.checked_add(samples)?;
        let (mut left_us, mut left) = (wall_us, samples);
        while left_us > 0 || left > 0 {
            let part_us = u32::try_from(left_us).unwrap_or(u32::MAX);
            let part = u32::try_from(left).unwrap_or(u32::MAX);
            left_us -= u64::from(part_us);
            left -= u64::from(part);
            self.extra_runs += u64::from(left_us > 0 || left > 0);
            if self.extra_runs > MAX_EXTRA_RUNS {
                return None;
            }
            self.profile.runs.push(Run {
                thread,
                stack,
                wall_us: part_us,
                cpu_us: 0,
                count: part,
                fresh_from: u16::MAX,
                state: RunState::default(),
            });
        }
        Some(())
    }

    fn finish(mut self) -> Profile {
        let rate_hz = self.period_ns.map_or(0.0, |ns| 1e9 / ns as f64);
        self.profile.meta = Meta {
            origin: Origin::Collapsed,
            duration_us: self.total_us,
            samples: self.samples,
            rate_hz,
            times_known: self.unit_known || self.only_austin || rate_hz > 0.0,
            ..Meta::default()
        };
        self.profile
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_all_writers() {
        for (text, parts) in [
            ("work (app/jobs.py:12)", ("work", "app/jobs.py", 12)),
            ("work (jobs.py)", ("work", "jobs.py", 0)),
            ("f (/home/a (b)/x.py:3)", ("f", "/home/a (b)/x.py", 3)),
            ("/x/a.py:work:12", ("work", "/x/a.py", 12)),
            ("<frozen os>:walk:2", ("walk", "<frozen os>", 2)),
            ("std::vector:12", ("std::vector:12", "", 0)),
            ("operator()", ("operator()", "", 0)),
            ("f(int) (a.c:99999999999)", ("f(int)", "a.c:99999999999", 0)),
            ("(x)", ("(x)", "", 0)),
            (") (é)", (")", "é", 0)),
            ("", ("", "", 0)),
        ] {
            let frame = parse_frame(text, true);
            assert_eq!((frame.name, frame.file, frame.line), parts, "{text}");
        }
    }

    #[test]
    fn heads_are_told_apart() {
        let yes = [
            "a;b 1\n",
            "a 1",
            "# x\na b;c 2.5\r\nd 3\nhalf a li",
            "P1;T2;a.py:f:3 4\n",
        ];
        let no = [
            "",
            "\n\n",
            "a;b\n",
            "{\"a\": 1}\n",
            "a 1\nb\nc",
            "a\x001 5\n",
            "version: 1\nevents: Ir\n",
        ];
        assert!(yes.iter().all(|head| Collapsed.recognises(head.as_bytes())));
        assert!(no.iter().all(|head| !Collapsed.recognises(head.as_bytes())));
    }

    #[test]
    fn damaged_lines_name_their_offset() {
        let error = Collapsed
            .import(b"a;b 1\nc;d\n")
            .expect_err("no number")
            .to_string();
        assert!(error.ends_with("(at byte 6)"), "{error}");
        assert!(Collapsed.import(b"").is_err());
        assert!(Collapsed.import(b"a 18446744073709551615\n").is_err());
    }

    #[test]
    fn large_weights_fill_several_runs() {
        let profile = Collapsed.import(b"a;b 10000000000\na 7\n").expect("import");
        assert_eq!(profile.runs.len(), 4);
        let total: u64 = profile.runs.iter().map(|run| u64::from(run.wall_us)).sum();
        assert_eq!(total, 10_000_000_007);
    }

    #[test]
    fn threads_and_running_lines_of_other_samplers() {
        let text = b"# austin: 4.0.0\n# mode: wall\n\nP7;T0:84;/a.py:K.f:3 40\nP7;T0:84;/a.py:K.f:4 2\nP7;T0:85 8\n";
        let profile = Collapsed.import(text).expect("Austin's");
        assert!(profile.meta.times_known);
        assert_eq!((profile.processes[0].pid, profile.threads.len()), (7, 2));
        let stats = profile.stats(&Default::default());
        let rows: Vec<(&str, u32, u64)> = (stats.rows.iter())
            .map(|row| {
                let tables = &profile.tables;
                let us = (row.tottime * 1e6).round() as u64;
                (tables.name(row.function), tables.line(row.function), us)
            })
            .collect();
        assert_eq!(rows, [("K.f", 0, 42), (NO_STACK, 0, 8)]);
        let text = b"tid:4566;<frozen runpy>:_run_code:87;gunicorn:<module>:7;<built-in f> 431\ntid:9;a.py:g:1 2\n";
        let profile = Collapsed.import(text).expect("profiling.sampling's");
        assert!(!profile.meta.times_known);
        assert_eq!(profile.threads[0].os_id, 4566);
        let files: Vec<&str> = (0..4)
            .map(|at| profile.tables.file(crate::profile::FunctionId(at)))
            .collect();
        assert_eq!(files, ["<frozen runpy>", "gunicorn", "~", "a.py"]);
    }

    #[test]
    fn samples_have_the_time_that_is_told() {
        let text = b"main;work 10\n 2\n";
        let profile = import_with(text, Some(Duration::from_millis(10))).expect("py-spy's");
        assert_eq!(
            (profile.meta.samples, profile.meta.duration_us),
            (12, 120_000)
        );
        assert_eq!(profile.meta.rate_hz, 100.0);
        let unknown = Collapsed.import(text).expect("py-spy's");
        assert!(!unknown.meta.times_known && unknown.meta.samples == 12);
        assert!(Collapsed.recognises(text));
    }

    #[test]
    fn nanoseconds_add_up() {
        let text: String = (0..500).map(|at| format!("f{at} 400\n")).collect();
        let text = format!("# unit: nanoseconds\n{text}");
        let profile = Collapsed.import(text.as_bytes()).expect("our own");
        assert_eq!(profile.meta.duration_us, 200);
        assert!(profile.meta.times_known);
    }

    #[test]
    fn a_unit_that_is_told_is_known() {
        let text = b"# unit: microseconds 0\nmain;work 1500\n";
        let profile = Collapsed.import(text).expect("our own");
        assert!(profile.meta.times_known && profile.meta.duration_us == 1500);
        let error = import_with(text, Some(Duration::from_millis(1))).expect_err("told twice");
        assert!(error.to_string().contains("unit: microseconds"), "{error}");
        // Nothing was sampled.
        let none = b"# unit: microseconds 0\n";
        assert!(Collapsed.recognises(none) && Collapsed.import(none).is_ok());
        assert!(!Collapsed.recognises(b"# unit: bytes\n"));
    }

    #[test]
    fn bytes_are_no_times() {
        let error = Collapsed.import(b"# mode: memory\n\nP1;T0:1;/a.py:f:6 4096\n");
        assert!(error.expect_err("bytes").to_string().contains("bytes"));
    }
}
