//! What the tests of the whole tool share: the interpreters that are here, programs that have said they are
//! ready, running biopsy with a limit on its time, and failures that show what was run and what it said.

#![allow(dead_code)]

pub mod page;

use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Nothing that a test waits for takes this long on a working machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The crate's folder.
pub fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Cargo's target folder, where `.ci/run` puts the readers that tests use.
pub fn target_folder() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| project().join("target"), PathBuf::from)
}

/// Where `.ci/run` keeps what it made.
pub fn kept_folder() -> PathBuf {
    let of = |name: &str| std::env::var_os(name).map(PathBuf::from);
    of("BIOPSY_CI_CACHE").unwrap_or_else(|| {
        let home = || of("HOME").unwrap_or_default().join(".cache");
        of("XDG_CACHE_HOME").unwrap_or_else(home).join("biopsy")
    })
}

/// A venv with gunicorn, Flask and readers of profiles: `$BIOPSY_TEST_VENV`, else as `.ci/run` makes it.
pub fn venv() -> Option<PathBuf> {
    let venv = std::env::var_os("BIOPSY_TEST_VENV")
        .map_or_else(|| kept_folder().join("test-venv"), PathBuf::from);
    venv.join("bin/python").exists().then_some(venv)
}

/// Which tests of this binary run, and which wait to.
#[derive(Default)]
struct Gate {
    in_company: usize,
    waiting: usize,
    alone: bool,
}

static GATE: Mutex<Gate> = Mutex::new(Gate {
    in_company: 0,
    waiting: 0,
    alone: false,
});
static OPENED: Condvar = Condvar::new();

/// Tests that run at a time where they do not mind: they wait for their programs for a part of the time. The test runner
/// starts far more (`.cargo/config.toml`), so that none of those that measure keeps the others from running.
const COMPANY: usize = 2;

/// What tests take longer than is named with its time.
const LONG: Duration = Duration::from_secs(20);

/// The right to run, until it is dropped.
pub struct Turn {
    alone: bool,
    began: Instant,
}

fn gate() -> MutexGuard<'static, Gate> {
    GATE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn wait_while(
    gate: MutexGuard<'static, Gate>,
    is_closed: fn(&mut Gate) -> bool,
) -> MutexGuard<'static, Gate> {
    OPENED
        .wait_while(gate, is_closed)
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Turn {
    fn new(alone: bool) -> Turn {
        Turn {
            alone,
            began: Instant::now(),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut gate = gate();
        match self.alone {
            true => gate.alone = false,
            false => gate.in_company -= 1,
        }
        drop(gate);
        OPENED.notify_all();
        let took = self.began.elapsed();
        if took > LONG {
            let thread = std::thread::current();
            let how = if self.alone { "alone" } else { "in company" };
            say(format_args!(
                "{}: {:.0} s, {how}",
                thread.name().unwrap_or_default(),
                took.as_secs_f64()
            ));
        }
    }
}

/// Held by a test that does not mind company.
pub fn in_company() -> Turn {
    let mut entered = gate();
    entered.waiting += 1;
    let mut entered = wait_while(entered, |gate| gate.alone || gate.in_company >= COMPANY);
    entered.waiting -= 1;
    entered.in_company += 1;
    Turn::new(false)
}

/// Held by a test that measures, while no other of its binary runs: when all others that were started are done.
pub fn alone() -> Turn {
    let is_closed = |gate: &mut Gate| gate.alone || gate.in_company > 0 || gate.waiting > 0;
    wait_while(gate(), is_closed).alone = true;
    Turn::new(true)
}

/// Says what this machine lacks, so that nothing is skipped in silence.
pub fn not_here(what: impl fmt::Display) {
    say(format_args!("not here: {what}"));
}

/// Writes a line that is seen even when the test passes, which `eprintln!` is not.
pub fn say(what: impl fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{what}");
}

/// The path of a program on the PATH.
pub fn find_program(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

/// Whether the tests run as root.
pub fn is_root() -> bool {
    status_field("self", "Uid:").is_some_and(|ids| ids.split_ascii_whitespace().nth(1) == Some("0"))
}

fn status_field(pid: impl fmt::Display, field: &str) -> Option<String> {
    let status = std::fs::read(format!("/proc/{pid}/status")).ok()?;
    // A thread's name may be no UTF-8.
    let status = String::from_utf8_lossy(&status);
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    Some(line.trim().to_string())
}

/// The state letter of a process: R, S, T (stopped), t (traced), Z ...; `None` when it is not there.
pub fn state(pid: i32) -> Option<char> {
    status_field(pid, "State:")?.chars().next()
}

/// The PID of the process that traces this one; 0 for none.
pub fn tracer(pid: i32) -> Option<i32> {
    status_field(pid, "TracerPid:")?.parse().ok()
}

/// Sends a signal, such as `KILL`; a negative PID means a process group. Fine when nobody is there.
pub fn send_signal(name: &str, pid: i32) {
    let _ = Command::new("sh")
        .args(["-c", &format!("kill -s {name} -- {pid}")])
        .stderr(Stdio::null())
        .status();
}

/// Waits until `condition` holds; panics with `what` when it does not in time.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// One interpreter.
#[derive(Debug, Clone)]
pub struct Python {
    /// Such as `3.11.7`.
    pub version: String,
    /// Such as 11.
    pub minor: u32,
    /// What starts it; several words when it stands in a chroot.
    pub command: Vec<String>,
    /// The folder that is its `/`, when it stands in a chroot.
    pub root: Option<PathBuf>,
}

impl Python {
    /// All that `fixtures/pythons.sh` finds; says which of 3.6 to 3.15 are not here.
    pub fn all() -> &'static [Python] {
        static FOUND: OnceLock<Vec<Python>> = OnceLock::new();
        FOUND.get_or_init(|| {
            let output = Command::new("bash")
                .arg(project().join("fixtures/pythons.sh"))
                .stdin(Stdio::null())
                .output()
                .expect("bash runs");
            let text = String::from_utf8(output.stdout).expect("UTF-8");
            let found: Vec<Python> = text.lines().map(Python::from_line).collect();
            for minor in 6..=15 {
                if !found.iter().any(|python| python.minor == minor) {
                    not_here(format!("python 3.{minor}"));
                }
            }
            assert!(!found.is_empty(), "no Python interpreter at all was found");
            found
        })
    }

    /// Those without a GIL that `fixtures/pythons.sh --free-threaded` finds, such as `3.13.15t`; says which of 3.13t to 3.15t are not here.
    pub fn free_threaded() -> &'static [Python] {
        static FOUND: OnceLock<Vec<Python>> = OnceLock::new();
        FOUND.get_or_init(|| {
            let output = Command::new("bash")
                .arg(project().join("fixtures/pythons.sh"))
                .arg("--free-threaded")
                .stdin(Stdio::null())
                .output()
                .expect("bash runs");
            let text = String::from_utf8(output.stdout).expect("UTF-8");
            let found: Vec<Python> = text.lines().map(Python::from_line).collect();
            for minor in 13..=15 {
                if !found.iter().any(|python| python.minor == minor) {
                    not_here(format!("python 3.{minor}t"));
                }
            }
            found
        })
    }

    fn from_line(line: &str) -> Python {
        let (version, command) = line.split_once('\t').expect("VERSION<TAB>COMMAND");
        let minor = version.split('.').nth(1).and_then(|word| word.parse().ok());
        let command: Vec<String> = command.split(' ').map(str::to_string).collect();
        let root = (command[0] == "chroot").then(|| PathBuf::from(&command[1]));
        Python {
            version: version.to_string(),
            minor: minor.expect("3.MINOR"),
            command,
            root,
        }
    }

    /// One that does for tests in which the version does not matter; never one in a chroot if that can be.
    pub fn any() -> &'static Python {
        let all = Python::all();
        all.iter()
            .rfind(|python| python.root.is_none())
            .unwrap_or(&all[0])
    }

    /// The test venv's interpreter, if it can import numpy.
    pub fn with_numpy() -> Option<Python> {
        Python::with_module("numpy")
    }

    /// The test venv's interpreter, if it can import a module.
    pub fn with_module(module: &str) -> Option<Python> {
        let python = venv().map(|venv| venv.join("bin/python"))?;
        let words = format!("import sys, {module}; print('%d.%d.%d' % sys.version_info[:3])");
        let output = Command::new(&python).args(["-c", &words]).output().ok()?;
        if !output.status.success() {
            not_here(format_args!("{module} in the test venv"));
            return None;
        }
        let version = String::from_utf8(output.stdout).ok()?.trim().to_string();
        let minor = version.split('.').nth(1)?.parse().ok()?;
        Some(Python {
            version: format!("{version} with {module}"),
            minor,
            command: vec![python.to_str()?.to_string()],
            root: None,
        })
    }

    /// A folder that this interpreter can see.
    pub fn stage(&self) -> Stage {
        let folder = match &self.root {
            Some(root) => TempDir::new_in(root.join("tmp")),
            None => TempDir::new(),
        };
        Stage {
            folder: folder.expect("a temporary folder"),
            root: self.root.clone(),
        }
    }

    /// The interpreter with arguments, as a command.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).args(arguments);
        command
    }

    /// The words that start it with `arguments`.
    pub fn words(&self, arguments: &[&str]) -> Vec<String> {
        let mut words = self.command.clone();
        words.extend(arguments.iter().map(|word| word.to_string()));
        words
    }

    /// Starts a program and waits for its line that begins with `ready`.
    pub fn start(&self, arguments: &[&str]) -> Target {
        Target::start(&mut self.command(arguments))
    }
}

impl fmt::Display for Python {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "python {}", self.version)
    }
}

/// A temporary folder with scripts, named as the interpreter sees it.
#[derive(Debug)]
pub struct Stage {
    folder: TempDir,
    root: Option<PathBuf>,
}

impl Stage {
    /// The folder, as this process sees it.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A path in the folder, as the interpreter sees it.
    pub fn inside(&self, name: &str) -> String {
        let path = self.path().join(name);
        let inside = match &self.root {
            Some(root) => Path::new("/").join(path.strip_prefix(root).expect("in the chroot")),
            None => path,
        };
        inside.to_str().expect("UTF-8").to_string()
    }

    /// Writes a file; gives its path as the interpreter sees it.
    pub fn put(&self, name: &str, text: &str) -> String {
        std::fs::write(self.path().join(name), text).expect("written");
        self.inside(name)
    }

    /// Copies one of `fixtures/programs`; gives its path as the interpreter sees it.
    pub fn fixture(&self, name: &str) -> String {
        self.put(name, &fixture_text(name))
    }
}

/// The text of one of `fixtures/programs`.
pub fn fixture_text(name: &str) -> String {
    std::fs::read_to_string(project().join("fixtures/programs").join(name)).expect(name)
}

/// A program that said that it is ready. It is killed, with its process group, when this is dropped.
#[derive(Debug)]
pub struct Target {
    child: Child,
    /// Its process id.
    pub pid: i32,
    /// The line that began with `ready`.
    pub ready: String,
    /// Lines before that.
    pub before: Vec<String>,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    stderr: Arc<Mutex<String>>,
}

impl Target {
    /// Starts `command` in a process group of its own and waits for its line that begins with `ready`.
    pub fn start(command: &mut Command) -> Target {
        let mut target = Target::launch(command);
        loop {
            let line = target.line();
            if line.starts_with("ready") {
                target.ready = line;
                return target;
            }
            target.before.push(line);
        }
    }

    /// Starts `command` and waits for nothing.
    pub fn launch(command: &mut Command) -> Target {
        let shown = format!("{command:?}");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{shown}: {error}"));
        let (sender, lines) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let stderr = Arc::new(Mutex::new(String::new()));
        let (said, errors) = (stderr.clone(), child.stderr.take().expect("piped"));
        std::thread::spawn(move || {
            for line in BufReader::new(errors).lines().map_while(Result::ok) {
                said.lock().expect("lock").push_str(&(line + "\n"));
            }
        });
        Target {
            pid: child.id() as i32,
            stdin: child.stdin.take(),
            child,
            ready: String::new(),
            before: Vec::new(),
            lines,
            stderr,
        }
    }

    /// The next line of its stdout.
    pub fn line(&mut self) -> String {
        self.lines.recv_timeout(PATIENCE).unwrap_or_else(|error| {
            panic!(
                "process {} (state {:?}) wrote no line: {error}; stderr:\n{}",
                self.pid,
                state(self.pid),
                self.stderr()
            )
        })
    }

    /// Writes a line to its stdin.
    pub fn tell(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("open");
        writeln!(stdin, "{line}")
            .and_then(|()| stdin.flush())
            .expect("it reads");
    }

    /// What it has written to stderr.
    pub fn stderr(&self) -> String {
        self.stderr.lock().expect("lock").clone()
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        drop(self.stdin.take());
        wait_for(&mut self.child, PATIENCE)
            .unwrap_or_else(|| panic!("process {} does not end", self.pid))
    }

    /// Fails when somebody traces it or it is stopped.
    pub fn assert_free(&mut self) {
        assert!(
            self.is_running(),
            "it has ended; stderr:\n{}",
            self.stderr()
        );
        assert_eq!(tracer(self.pid), Some(0), "TracerPid of {}", self.pid);
        let state = state(self.pid);
        assert!(
            !matches!(state, Some('T' | 't' | 'Z') | None),
            "state {state:?}"
        );
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        send_signal("KILL", -self.pid);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait_for(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("can wait") {
            return Some(status);
        }
        if start.elapsed() > limit {
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A command that has ended: biopsy, or a reader of its files.
#[derive(Clone)]
pub struct Ran {
    /// The words.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Its stdout.
    pub bytes: Vec<u8>,
    /// Its stdout as text.
    pub stdout: String,
    /// Its stderr.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "\n$ {}\n{} after {:.2?}\n--- stdout\n{:.6000}\n--- stderr\n{:.6000}",
            self.command, self.status, self.took, self.stdout, self.stderr
        )
    }
}

impl fmt::Debug for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Ran {
    /// Exit code, or 128+N for signal N.
    pub fn code(&self) -> i32 {
        let signal = self.status.signal().unwrap_or(0);
        self.status.code().unwrap_or(128 + signal)
    }

    /// Fails unless it ended with `code`.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Ran {
        assert_eq!(self.code(), code, "exit code{self}");
        assert!(!self.stderr.contains("panicked"), "{self}");
        self
    }

    /// Fails unless it ended with 0.
    #[track_caller]
    pub fn ok(self) -> Ran {
        self.expect_code(0)
    }

    /// Fails unless it is a refusal as cli.md wants it: exit code, one line `biopsy: ...: ...` that has
    /// `words`, then at most two lines of advice, and nothing on stdout.
    #[track_caller]
    pub fn refused(self, code: i32, words: &str) -> Ran {
        let ran = self.expect_code(code);
        assert_eq!(ran.stdout, "", "{ran}");
        let lines: Vec<&str> = ran.stderr.lines().collect();
        let first = lines.first().unwrap_or(&"");
        let message = first
            .strip_prefix("biopsy: ")
            .unwrap_or_else(|| panic!("{ran}"));
        assert!(message.contains(": "), "what failed, and why{ran}");
        assert!(!message.contains("os error"), "{ran}");
        assert!(first.contains(words), "no '{words}' in the message{ran}");
        assert!(lines.len() <= 3, "more than two lines of advice{ran}");
        for hint in &lines[1..] {
            assert!(hint.starts_with("  ") && !hint.trim().is_empty(), "{ran}");
        }
        assert!(
            !ran.stderr.chars().any(|c| c.is_control() && c != '\n'),
            "{ran}"
        );
        ran
    }

    /// Its stdout as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}{self}"))
    }
}

/// Runs `command` to its end with nothing on stdin.
pub fn run(command: &mut Command) -> Ran {
    run_with(command, b"", PATIENCE)
}

/// Runs `command` to its end, with `input` on stdin; fails when it takes longer than `limit`.
pub fn run_with(command: &mut Command, input: &[u8], limit: Duration) -> Ran {
    Running::start(command, input).finish(limit)
}

/// A command under way.
#[derive(Debug)]
pub struct Running {
    child: Child,
    command: String,
    started: Instant,
    stdout: JoinHandle<Vec<u8>>,
    stderr: JoinHandle<Vec<u8>>,
}

fn drain(mut reader: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = reader.read_to_end(&mut bytes);
        bytes
    })
}

impl Running {
    /// Starts `command` in a process group of its own, with `input` on stdin.
    pub fn start(command: &mut Command, input: &[u8]) -> Running {
        let shown = format!("{command:?}");
        let mut child = command
            .stdin(if input.is_empty() {
                Stdio::null()
            } else {
                Stdio::piped()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{shown}: {error}"));
        if let Some(mut stdin) = child.stdin.take() {
            let input = input.to_vec();
            std::thread::spawn(move || stdin.write_all(&input));
        }
        Running {
            command: shown,
            started: Instant::now(),
            stdout: drain(child.stdout.take().expect("piped")),
            stderr: drain(child.stderr.take().expect("piped")),
            child,
        }
    }

    /// Its process id, and that of its process group.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Kills it and it alone, at once.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
    }

    /// Waits for its end.
    #[track_caller]
    pub fn finish(mut self, limit: Duration) -> Ran {
        let status = wait_for(&mut self.child, limit);
        let took = self.started.elapsed();
        if status.is_none() {
            send_signal("KILL", -self.pid());
        }
        let ended = status.unwrap_or_else(|| self.child.wait().expect("killed"));
        let bytes = self.stdout.join().expect("read");
        let ran = Ran {
            command: self.command,
            status: ended,
            stdout: String::from_utf8_lossy(&bytes).into_owned(),
            bytes,
            stderr: String::from_utf8_lossy(&self.stderr.join().expect("read")).into_owned(),
            took,
        };
        assert!(status.is_some(), "not over after {limit:?}{ran}");
        ran
    }
}

/// biopsy with arguments, as a command.
pub fn biopsy_command<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_biopsy"));
    command.args(arguments);
    command
}

/// Runs biopsy to its end.
#[track_caller]
pub fn biopsy<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Ran {
    run(&mut biopsy_command(arguments))
}

/// One row of a table as pstats prints it.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// `3` or `3/1`; `>=3` for a lower bound.
    pub ncalls: String,
    /// Seconds.
    pub tottime: f64,
    /// Seconds.
    pub cumtime: f64,
    /// `file:line(name)` or `{built-in ...}`.
    pub function: String,
}

/// The rows of the tables in `text`, in their order.
pub fn rows(text: &str) -> Vec<Row> {
    let row = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let ncalls = words.next()?;
        let counted = ncalls.strip_prefix(">=");
        // There is no time per call where the number of calls is a lower bound.
        let columns = if counted.is_some() { 2 } else { 4 };
        let numbers: Vec<f64> = words
            .by_ref()
            .take(columns)
            .map_while(|word| word.parse().ok())
            .collect();
        let function: Vec<&str> = words.collect();
        let mut parts = counted.unwrap_or(ncalls).split('/');
        let is_count = parts.all(|part| part.parse::<u64>().is_ok());
        (is_count && numbers.len() == columns && !function.is_empty()).then(|| Row {
            ncalls: ncalls.to_string(),
            tottime: numbers[0],
            cumtime: numbers[columns / 2],
            function: function.join(" "),
        })
    };
    text.lines().filter_map(row).collect()
}
