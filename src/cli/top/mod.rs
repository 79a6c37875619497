//! `biopsy top`: a live view of a running process, of a program that it starts, or of a recording.

mod app;
mod data;
mod draw;
mod functions;
mod memory;
mod page;
mod screen;
mod source;
mod threads;
mod tree;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clap::Args;
use ratatui::crossterm::event::{self, Event, KeyEventKind};

use self::app::{App, Then};
use self::data::Data;
use self::draw::{Abilities, Status};
use self::screen::Screen;
use super::args::SampleArgs;
use super::input;
use crate::error::{Error, ErrorKind, Result, io_reason};
use crate::formats::ExportOptions;
use crate::formats::registry;
use crate::profile::{Filter, Profile};
use crate::sample::SampleOptions;
use crate::sample::session::{self, Outcome, Progress, Root};
use crate::target::disk::{check_writable, write_file};
use crate::target::launch::{self, Launched};
use crate::target::list;
use crate::target::process;
use crate::target::signals::{self, OnSignal};
use crate::units::{Pid, Rate, printable};
use crate::view::stats::SortKey;

/// How often it is looked whether we are to end.
const TICK: Duration = Duration::from_millis(100);

/// How often the process's memory and samples are looked at.
const LOOK: Duration = Duration::from_millis(200);

/// There is nothing more to sample.
const SAMPLING_ENDED: &str = "SAMPLING ENDED";

/// How long a program that we started may take to end when it is asked to.
const GRACE: Duration = Duration::from_secs(5);

/// The last of what the program complained of, in bytes.
const MOST_SAID: u64 = 8 << 10;

/// Watch a running process, a program, or browse a recording: functions, call tree, source, threads, memory.
///
/// By default 200 samples a second are taken and CPU time is shown; ? lists the keys.
#[derive(Debug, Args)]
#[command(mut_arg("rate", |rate| rate.default_value("200")), mut_arg("mode", |mode| mode.default_value("cpu")))]
pub struct TopArgs {
    /// Process id, or a recording (.biopsy, .prof, collapsed stacks)
    #[arg(value_name = "PID|FILE")]
    target: Option<String>,
    /// The one Python process that has this in its command line
    #[arg(long, value_name = "PATTERN", conflicts_with_all = ["target", "command"])]
    name: Option<String>,
    #[command(flatten)]
    sample: SampleArgs,
    /// Order of the rows at first: a key of pstats' sort_stats [default: tottime]
    #[arg(short, long = "sort", value_name = "KEY")]
    sort: Option<String>,
    /// The interpreter for scripts, -m and -c
    #[arg(long, value_name = "PATH", default_value = "python3")]
    python: String,
    /// A program to start and watch: script.py ARGS, -m MODULE ARGS, -c CODE. What it prints is not shown
    #[arg(last = true, value_name = "COMMAND", conflicts_with = "target")]
    command: Vec<String>,
}

/// What is watched.
enum Subject {
    Process(Pid),
    Program(Program),
    File(PathBuf, Box<Profile>),
}

/// A program that we started.
struct Program {
    running: Arc<AtomicI32>,
    pid: Pid,
    waiter: JoinHandle<Result<u8>>,
    errors: File,
}

pub fn run(args: TopArgs) -> Result<u8> {
    let sort = SortKey::parse(args.sort.as_deref().unwrap_or("tottime"))?;
    screen::check()?;
    let quit = Arc::new(AtomicBool::new(false));
    let subject = open(&args)?;
    signals::handle(OnSignal::Stop(quit.clone()))?;
    let options = SampleOptions {
        // They are known at the end only.
        no_counts: true,
        ..args.sample.options(true)
    };
    match subject {
        Subject::File(path, profile) => {
            let status = Status {
                title: format!("top {}", path.display()),
                python: profile.meta.python.clone(),
                rate: match profile.meta.rate_hz {
                    0.0 => "not sampled at a rate".to_string(),
                    hz => format!("{hz} Hz"),
                },
                samples: profile.meta.samples,
                dropped: profile.meta.given_up,
                ..Status::default()
            };
            let mode = profile.meta.mode;
            let mut app = App::new(Data::of_file(*profile), mode, sort);
            app.offered = "recording.svg".to_string();
            watch(&mut app, status, None, &quit).map(|()| 0)
        }
        Subject::Process(pid) => live(pid, Root::Running(pid), options, sort, &quit).map(|()| 0),
        Subject::Program(program) => {
            let pid = program.pid;
            let result = live(pid, Root::Started(pid), options, sort, &quit);
            let code = program.end();
            result.and(code)
        }
    }
}

fn open(args: &TopArgs) -> Result<Subject> {
    if !args.command.is_empty() {
        return Ok(Subject::Program(Program::start(&launch::words(
            &args.command,
            &args.python,
        ))?));
    }
    if let Some(pattern) = &args.name {
        return list::find_by_name(pattern).map(Subject::Process);
    }
    let Some(target) = &args.target else {
        return Err(
            Error::usage("nothing to watch", "give a PID, a recording, or -- COMMAND")
                .hint("biopsy ps lists the Python processes of this machine"),
        );
    };
    if !target.is_empty() && target.bytes().all(|byte| byte.is_ascii_digit()) {
        let pid = target.parse().ok().filter(|pid| *pid > 0);
        let wrong = || Error::usage(format!("wrong process id {target}"), "it is out of range");
        return pid.map(|pid| Subject::Process(Pid(pid))).ok_or_else(wrong);
    }
    let path = PathBuf::from(target);
    let profile = Box::new(input::read_with(&path, None)?);
    input::check_functions(&profile, &path)?;
    Ok(Subject::File(path, profile))
}

impl Program {
    fn start(words: &[String]) -> Result<Program> {
        let failed = |error: std::io::Error| {
            Error::new(ErrorKind::Failed, "cannot keep errors", io_reason(&error))
        };
        let errors = tempfile::tempfile().map_err(failed)?;
        let running = Arc::new(AtomicI32::new(0));
        let theirs = errors.try_clone().map_err(failed)?;
        let mut launched = Launched::start_apart(words, theirs, running.clone())?;
        let pid = launched.pid();
        let waiter = std::thread::spawn(move || launched.wait().map(launch::exit_code));
        Ok(Program {
            running,
            pid,
            waiter,
            errors,
        })
    }

    /// Ends the program if it runs, says the last of what it complained of, and gives its exit code: 0 when it was we
    /// who ended it.
    fn end(mut self) -> Result<u8> {
        let ours = !self.waiter.is_finished();
        signals::ask_to_end(&self.running);
        let since = Instant::now();
        while !self.waiter.is_finished() && since.elapsed() < GRACE {
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut said = Vec::new();
        let length = self.errors.seek(SeekFrom::End(0)).unwrap_or(0);
        let from = SeekFrom::Start(length.saturating_sub(MOST_SAID));
        if self.errors.seek(from).is_ok() {
            // What cannot be read is not said.
            let _ = Read::by_ref(&mut self.errors)
                .take(MOST_SAID)
                .read_to_end(&mut said);
        }
        for line in String::from_utf8_lossy(&said).lines() {
            eprintln!("{}", printable(line));
        }
        if !self.waiter.is_finished() {
            eprintln!(
                "biopsy: note: process {} goes on: it was asked to end",
                self.pid
            );
            return Ok(0);
        }
        let failed = || {
            Error::new(
                ErrorKind::Failed,
                "cannot wait for the program",
                "the thread failed",
            )
        };
        let code = self.waiter.join().unwrap_or_else(|_| Err(failed()))?;
        Ok(if ours { 0 } else { code })
    }
}

/// A session that runs behind the view.
struct Session {
    pid: Pid,
    progress: Arc<Progress>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Outcome>>>,
    outcome: Option<Outcome>,
}

impl Session {
    fn start(pid: Pid, root: Root, options: SampleOptions) -> Result<Session> {
        let progress = Arc::new(Progress::default());
        let stop = Arc::new(AtomicBool::new(false));
        progress.feed.open();
        let (theirs, flag) = (progress.clone(), stop.clone());
        let record = move || session::record(root, &options, flag, theirs);
        let thread = std::thread::Builder::new()
            .name("session".into())
            .spawn(record);
        let thread = thread.map_err(|error| {
            Error::new(
                ErrorKind::Failed,
                "cannot start a thread",
                io_reason(&error),
            )
        })?;
        Ok(Session {
            pid,
            progress,
            stop,
            thread: Some(thread),
            outcome: None,
        })
    }

    fn is_over(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits for the end.
    fn join(&mut self) -> Result<()> {
        if let Some(thread) = self.thread.take() {
            let failed = |_| {
                Err(Error::new(
                    ErrorKind::Failed,
                    "cannot sample",
                    "the session failed",
                ))
            };
            self.outcome = Some(thread.join().unwrap_or_else(failed)?);
        }
        Ok(())
    }
}

fn live(
    pid: Pid,
    root: Root,
    options: SampleOptions,
    sort: SortKey,
    quit: &AtomicBool,
) -> Result<()> {
    let rate = match options.rate {
        Rate::Max => "full speed".to_string(),
        Rate::Hz(hz) => format!("{hz} Hz"),
    };
    let mode = options.mode;
    let status = Status {
        title: title(pid, &process::command_line(pid)),
        rate,
        ..Status::default()
    };
    let mut session = Session::start(pid, root, options)?;
    // What cannot be read is told without a picture.
    let since = Instant::now();
    while session.progress.processes.load(Ordering::Relaxed) == 0
        && !session.is_over()
        && since.elapsed() < Duration::from_secs(1)
    {
        std::thread::sleep(Duration::from_millis(5));
    }
    if session.is_over() && session.progress.processes.load(Ordering::Relaxed) == 0 {
        session.join()?;
    }
    let mut app = App::new(Data::live(), mode, sort);
    app.offered = format!("{pid}.svg");
    app.memory.pid = Some(pid);
    let watched = watch(&mut app, status, Some(&mut session), quit);
    session.stop.store(true, Ordering::SeqCst);
    session.join()?;
    for note in session.outcome.iter().flat_map(|outcome| &outcome.notes) {
        eprintln!("biopsy: note: {note}");
    }
    watched
}

fn title(pid: Pid, command: &str) -> String {
    format!("top {pid} {}", brief(command))
}

/// A command line with the interpreter's folder left out: there is no room for what is the same in all of them.
fn brief(command: &str) -> &str {
    let program = command.find(' ').unwrap_or(command.len());
    let name = command.get(..program).and_then(|path| path.rfind('/'));
    name.and_then(|slash| command.get(slash + 1..))
        .unwrap_or(command)
}

/// Shows the view until it is left.
fn watch(
    app: &mut App,
    mut status: Status,
    mut session: Option<&mut Session>,
    quit: &AtomicBool,
) -> Result<()> {
    let able = Abilities::of_environment();
    let mut screen = Screen::open()?;
    let failed = |error: std::io::Error| {
        Error::new(
            ErrorKind::Failed,
            "cannot use the terminal",
            io_reason(&error),
        )
    };
    let mut began = Instant::now();
    let mut looked = began - LOOK;
    let mut counted = (began, 0);
    let mut stale = true;
    let keys = keys()?;
    if let Ok(size) = screen.terminal.size() {
        app.width = size.width;
    }
    while !quit.load(Ordering::SeqCst) {
        if let Some(session) = session.as_deref_mut()
            && status.ended.is_none()
            && looked.elapsed() >= LOOK
        {
            looked = Instant::now();
            // Asked first: what it hands over at its end is taken in then.
            let over = session.is_over();
            app.data.take(&session.progress, app.paused);
            update(&mut status, session, &mut counted);
            status.elapsed = began.elapsed();
            if over {
                session.join()?;
                status.reached = None;
                status.ended = Some(SAMPLING_ENDED);
                app.renew();
                stale = true;
            }
        }
        // It may end later than what is sampled of it.
        if let Some(session) = session.as_deref()
            && status.ended == Some(SAMPLING_ENDED)
            && !process::is_alive(session.pid)
        {
            status.ended = Some("PROCESS ENDED");
            app.data.ended = true;
            app.memory.pid = None;
            app.renew();
            stale = true;
        }
        if app.is_due() {
            if status.ended.is_none() || stale {
                app.renew();
            }
            stale = true;
        }
        if stale {
            stale = false;
            screen
                .terminal
                .draw(|frame| draw::draw(frame, app, &status, able))
                .map_err(failed)?;
        }
        let event = match keys.recv_timeout(TICK) {
            Ok(event) => event.map_err(failed)?,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        stale = true;
        match event {
            Event::Key(key) if key.kind != KeyEventKind::Release => match app.key(key) {
                Then::Nothing => {}
                Then::Quit => break,
                Then::Suspend => {
                    let since = Instant::now();
                    screen.suspend()?;
                    app.data.skip(since.elapsed());
                    began += since.elapsed();
                }
                Then::Write(path) => {
                    let path = PathBuf::from(path);
                    let said = match write(&path, app, session.as_deref()) {
                        Ok(said) => said,
                        Err(error) => error.to_string(),
                    };
                    app.say(said);
                }
            },
            Event::Resize(width, _) => {
                app.width = width;
                app.lay_out();
            }
            _ => {}
        }
    }
    Ok(())
}

/// What is typed, from a thread of its own: reading from a terminal that has been hung up may never come back
/// (crossterm's `poll` then turns round in itself), and we have to end all the same.
fn keys() -> Result<Receiver<std::io::Result<Event>>> {
    let (sender, receiver) = mpsc::channel();
    let read = move || {
        loop {
            let event = event::read();
            let failed = event.is_err();
            if sender.send(event).is_err() || failed {
                return;
            }
        }
    };
    let started = std::thread::Builder::new().name("keys".into()).spawn(read);
    started.map(|_| receiver).map_err(|error| {
        Error::new(
            ErrorKind::Failed,
            "cannot start a thread",
            io_reason(&error),
        )
    })
}

fn update(status: &mut Status, session: &Session, counted: &mut (Instant, u64)) {
    let progress = &session.progress;
    // A program that was just started has no command line, and then perhaps that of what starts it.
    let command = process::command_line(session.pid);
    if !command.is_empty() {
        status.title = title(session.pid, &command);
    }
    status.samples = progress.samples.load(Ordering::Relaxed);
    status.dropped = progress.given_up.load(Ordering::Relaxed);
    let since = counted.0.elapsed();
    if since >= Duration::from_secs(2) {
        let new = status.samples.saturating_sub(counted.1);
        status.reached = Some(new as f64 / since.as_secs_f64());
        *counted = (Instant::now(), status.samples);
    }
}

/// Writes all that was gathered, of all threads, in the mode that is looked at.
fn write(path: &Path, app: &App, session: Option<&Session>) -> Result<String> {
    let format = registry::by_file_name(path)?;
    let exporter = format.exporter()?;
    check_writable(path)?;
    let gathered;
    let profile = match session {
        None => app.data.profile(),
        Some(session) => match &session.outcome {
            Some(outcome) => &outcome.profile,
            None => {
                gathered = session.progress.feed.gathered()?.profile;
                &gathered
            }
        },
    };
    let options = ExportOptions {
        filter: Filter {
            mode: app.choice.mode,
            ..Filter::of(profile)
        },
        strip_dirs: false,
        ..ExportOptions::default()
    };
    let losses = write_file(path, format.name == "biopsy", |out| {
        let losses = exporter.export(profile, &options, out)?;
        out.flush()
            .map_err(|error| Error::write(format.name, &error))?;
        Ok(losses)
    })?;
    let mut said = format!("wrote {}: {}", path.display(), format.name);
    if profile.meta.samples > 0 {
        said.push_str(&format!(", {} samples", profile.meta.samples));
    }
    if let Some(loss) = losses.first() {
        said.push_str(&format!("; {loss}"));
    }
    Ok(said)
}

#[cfg(test)]
mod tests;
