//! `biopsy calls`: every call of a few functions, counted and timed while the process runs.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::{Duration, Instant};

use clap::Args;

use crate::error::{Error, ErrorKind, Result};
use crate::heap::Heap;
use crate::heap::functions::{CodeObject, Functions, NoMatch, shown};
use crate::sample::timings::{self, CountOptions, MOST_FUNCTIONS, Word};
use crate::sample::writers::Writers;
use crate::target::image::Held;
use crate::target::launch::{self, Launched};
use crate::target::memory::copy::{self, CaptureOptions, Pause};
use crate::target::memory::{Live, Memory};
use crate::target::signals::{self, OnSignal};
use crate::target::{list, process};
use crate::units::{Pid, parse_duration};
use crate::view::calls::{self as view, Report};
use crate::view::json;

/// How often a program that we started is looked at until it has the functions.
const AGAIN: Duration = Duration::from_millis(20);

/// Attempts at a copy of a running process: what changes meanwhile may make no sense.
const ATTEMPTS: usize = 3;

/// Count every call of up to four functions while they run: calls, calls a second, durations (min, p50, p90, p99, max and
/// a histogram), and who calls them.
///
/// A FUNCTION is module.qualname (app.views.View.get), a pattern over that ('app.views.*.get'), the end of such a name
/// where only one function has it (View.get), or file.py:LINE, which means the innermost function with that line. Nothing in the process is changed: hardware watchpoints tell of each call. A call
/// takes some 10 to 20 microseconds longer meanwhile; where that would be more than a tenth of a thread's time, only windows
/// at random moments are watched and the numbers are estimates. Generators and coroutines are counted when they are made.
#[derive(Debug, Args)]
pub struct CallsArgs {
    /// Process id, then functions (app.views.View.get, 'app.views.*', views.py:30, or the end of a name that only one
    /// function has: View.get); functions only, with --name or a COMMAND
    #[arg(required = true, value_name = "PID|FUNCTION")]
    words: Vec<String>,
    /// The one Python process that has this in its command line
    #[arg(long, value_name = "PATTERN", conflicts_with = "command")]
    name: Option<String>,
    /// Stop after this time: 30, 30s, 5m [default: to the end, or Ctrl-C]
    #[arg(short, long, value_name = "TIME", value_parser = parse_duration)]
    duration: Option<Duration>,
    /// Watch every call, whatever that costs the process
    #[arg(long)]
    all: bool,
    /// Print JSON (biopsy.calls/1)
    #[arg(long)]
    json: bool,
    /// No notes
    #[arg(short, long)]
    quiet: bool,
    /// The interpreter for scripts, -m and -c
    #[arg(long, value_name = "PATH", default_value = "python3")]
    python: String,
    /// Start this program and count from when it has the functions: script.py ARGS, -m MODULE ARGS, -c CODE, or any program
    #[arg(last = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// The functions that are meant, and what is known of the process.
struct Found {
    codes: Vec<CodeObject>,
    writers: Writers,
    minor: u32,
    python: String,
    paused: Option<Duration>,
}

pub fn run(args: CallsArgs, out: &mut dyn Write) -> Result<u8> {
    if !args.command.is_empty() {
        check_number(&args.words)?;
        return run_program(&args, out);
    }
    let (pid, functions) = match (&args.name, args.words.split_first()) {
        (Some(pattern), _) => {
            check_number(&args.words)?;
            (list::find_by_name(pattern)?, args.words.as_slice())
        }
        (None, Some((first, rest))) => {
            let pid = first.parse().ok().filter(|pid| *pid > 0).map(Pid);
            let pid = pid.ok_or_else(|| {
                Error::usage(format!("no process '{first}'"), "the first word is no process id")
                    .hint("biopsy ps lists the Python processes of this machine; or start one: biopsy calls FUNCTION -- script.py")
            })?;
            check_number(rest)?;
            (pid, rest)
        }
        (None, None) => return Err(Error::usage("no process", "give a PID or --name PATTERN")),
    };
    let stop = Arc::new(AtomicBool::new(false));
    signals::handle(OnSignal::Stop(stop.clone()))?;
    let found = find(pid, functions)?;
    count(&args, pid, found, &stop, out)?;
    Ok(0)
}

fn check_number(functions: &[String]) -> Result<()> {
    match functions.len() {
        0 => Err(
            Error::usage("no function", "name one to four functions to count")
                .hint("such as app.views.index, 'app.models.*.save' or views.py:42"),
        ),
        1..=MOST_FUNCTIONS => Ok(()),
        number => Err(too_many(number)),
    }
}

fn too_many(number: usize) -> Error {
    Error::usage(
        format!("cannot count {number} functions"),
        "a CPU has four debug registers, one for each function",
    )
}

fn run_program(args: &CallsArgs, out: &mut dyn Write) -> Result<u8> {
    let words = launch::words(&args.command, &args.python);
    let running = Arc::new(AtomicI32::new(0));
    signals::handle(OnSignal::PassOn(running.clone()))?;
    let mut launched = Launched::start(&words, running)?;
    let pid = launched.pid();
    let stop = Arc::new(AtomicBool::new(false));
    let waiter = {
        let stop = stop.clone();
        std::thread::spawn(move || {
            let status = launched.wait();
            stop.store(true, Ordering::SeqCst);
            status.map(launch::exit_code)
        })
    };
    let started = Instant::now();
    let result = loop {
        match find(pid, &args.words) {
            Ok(found) => {
                if !args.quiet {
                    eprintln!(
                        "biopsy: note: counting began {:.2} s after the start: calls before that are missing",
                        started.elapsed().as_secs_f64()
                    );
                }
                break count(args, pid, found, &stop, out);
            }
            Err(error)
                if stop.load(Ordering::SeqCst) || error.kind() == ErrorKind::NotPermitted =>
            {
                break Err(error);
            }
            Err(_) => std::thread::sleep(AGAIN),
        }
    };
    let code = waiter.join().unwrap_or_else(|_| {
        Err(Error::new(
            ErrorKind::Failed,
            "cannot wait for the program",
            "the thread that waits has failed",
        ))
    })?;
    match result {
        Ok(()) => Ok(code),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(code),
        Err(error) if code == 0 => Err(error),
        Err(error) => {
            eprintln!("biopsy: {error}");
            Ok(code)
        }
    }
}

/// Finds the functions in a copy of the process, taken while it runs; when that shows no such function, in one that is taken
/// while it stands still.
fn find(pid: Pid, words: &[String]) -> Result<Found> {
    let mut result = attempt(pid, words, Pause::Running);
    for _ in 1..ATTEMPTS {
        match &result {
            Err(error) if !is_final(error.kind()) => result = attempt(pid, words, Pause::Running),
            _ => break,
        }
    }
    match result {
        Err(error) if !is_final(error.kind()) => attempt(pid, words, Pause::Stop),
        result => result,
    }
}

fn is_final(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::NoSuchProcess
            | ErrorKind::NotPython
            | ErrorKind::NotPermitted
            | ErrorKind::ProcessEnded
            | ErrorKind::UnsupportedPython
            | ErrorKind::Usage
            | ErrorKind::NotAvailable
    )
}

fn attempt(pid: Pid, words: &[String], pause: Pause) -> Result<Found> {
    let options = CaptureOptions {
        pause,
        mappings: false,
    };
    let (captured, _) = copy::capture(pid, options)?;
    let heap = Heap::open(&captured).map_err(|error| match error.kind() {
        ErrorKind::UnsupportedPython => error.hint(
            "functions are found in the heap: calls are counted in CPython 3.8 to 3.15, free-threaded builds excepted",
        ),
        _ => error,
    })?;
    let functions = heap.functions();
    let version = &captured.runtime.version;
    let codes = select(pid, words, &functions)?;
    let memory = Live::new(pid);
    for code in &codes {
        let kind = |address: u64| memory.read_word(address.wrapping_add(8)).ok();
        let copied = captured.image.bytes(code.address.wrapping_add(8), 8);
        let copied = copied.and_then(|bytes| Some(u64::from_ne_bytes(bytes.try_into().ok()?)));
        if copied.is_none() || kind(code.address) != copied {
            return Err(Error::new(
                ErrorKind::Failed,
                format!("cannot count calls of {}", shown(code)),
                "it has just been freed",
            ));
        }
    }
    let writers = Writers::find(pid, version.minor);
    Ok(Found {
        codes,
        writers,
        minor: version.minor,
        python: version.to_string(),
        paused: match captured.held {
            Held::Stopped(time) => Some(time),
            Held::Running | Held::Already | Held::Core => None,
        },
    })
}

fn select(pid: Pid, words: &[String], functions: &Functions) -> Result<Vec<CodeObject>> {
    let mut codes: Vec<CodeObject> = Vec::new();
    for word in words {
        let found = functions
            .select(word, MOST_FUNCTIONS)
            .map_err(|why| no_match(pid, word, &why))?;
        for code in found {
            if code.immortal {
                return Err(Error::new(
                    ErrorKind::NotAvailable,
                    format!("cannot count calls of {}", shown(code)),
                    "its code object lives as long as the interpreter: calls leave no trace in it",
                )
                .hint("so it is with what is frozen into the interpreter: count a caller of it"));
            }
            if codes.iter().all(|known| known.address != code.address) {
                codes.push(code.clone());
            }
        }
    }
    match codes.len() {
        0..=MOST_FUNCTIONS => Ok(codes),
        number => Err(Error::new(
            ErrorKind::Failed,
            format!("cannot count {number} functions"),
            "a CPU has four debug registers, one for each function",
        )),
    }
}

fn no_match(pid: Pid, word: &str, no_match: &NoMatch) -> Error {
    let error = Error::new(
        ErrorKind::Failed,
        format!(
            "cannot count calls of '{}' in process {pid}",
            crate::units::printable(word)
        ),
        no_match.why.clone(),
    );
    match no_match.candidates.as_slice() {
        [] => error.hint("a function is module.qualname, a pattern over that such as '*.View.get', or file.py:LINE"),
        candidates => error.hint(format!("there are: {}", candidates.join(", "))),
    }
}

fn count(
    args: &CallsArgs,
    pid: Pid,
    found: Found,
    stop: &AtomicBool,
    out: &mut dyn Write,
) -> Result<()> {
    let words: Vec<Word> = found
        .codes
        .iter()
        .map(|code| Word {
            address: code.address,
            lazy: code.kind.is_lazy(),
            file: code.file.clone(),
            first_line: code.first_line,
            name: code.name.clone(),
        })
        .collect();
    let command = process::command_line(pid);
    let began = || {
        if !args.quiet {
            let names: Vec<String> = found.codes.iter().map(shown).collect();
            eprintln!(
                "biopsy: counting calls of {} in process {pid}",
                names.join(", ")
            );
        }
    };
    let options = CountOptions {
        duration: args.duration,
        everything: args.all,
        stop,
        minor: found.minor,
        began: &began,
    };
    let outcome = timings::count(pid, &words, found.writers, &options)?;
    let report = Report {
        pid: pid.0,
        python: found.python,
        command,
        paused: found.paused,
        codes: &found.codes,
        outcome: &outcome,
    };
    if !args.quiet {
        for note in &outcome.notes {
            eprintln!("biopsy: note: {note}");
        }
    }
    let text = match args.json {
        true => json::calls(&report)?,
        false => view::text(&report),
    };
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Error::write("stdout", &error))
}
