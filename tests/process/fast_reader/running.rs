//! The interpreters to test on, and programs that run on them.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use biopsy::sample::fast::{FastOptions, FastReader};
use biopsy::target::memory::{Live, Memory};
use biopsy::target::runtime;
use biopsy::units::Pid;

/// An interpreter to test on.
pub struct Python {
    /// Such as 11.
    pub minor: u32,
    /// Whether threads run at the same time in it.
    pub free_threaded: bool,
    command: Vec<String>,
}

impl std::fmt::Display for Python {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let suffix = if self.free_threaded { "t" } else { "" };
        write!(f, "3.{}{suffix}", self.minor)
    }
}

/// Those that our own reader reads.
pub fn pythons() -> Vec<Python> {
    listed(&[])
}

/// Those too that have no GIL.
pub fn all_pythons() -> Vec<Python> {
    let mut all = pythons();
    all.extend(free_threaded());
    all
}

/// Those that have no GIL.
pub fn free_threaded() -> Vec<Python> {
    listed(&["--free-threaded"])
}

fn listed(options: &[&str]) -> Vec<Python> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/pythons.sh");
    let mut command = Command::new("bash");
    let output = command.arg(script).args(options).output().expect("bash");
    let found: Vec<Python> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| {
            let (version, command) = line.split_once('\t')?;
            let minor = version.split('.').nth(1)?.parse().ok()?;
            let command = command.split(' ').map(str::to_string).collect();
            Some(Python {
                minor,
                free_threaded: version.ends_with('t'),
                command,
            })
        })
        .filter(|python| python.minor >= 8)
        .filter(|python| match std::env::var("ONLY_MINOR") {
            Ok(only) => only
                .split(',')
                .any(|minor| python.to_string() == format!("3.{minor}")),
            Err(_) => true,
        })
        .collect();
    if found.is_empty() {
        eprintln!("skipped: no CPython 3.8 or newer found {options:?}");
    }
    found
}

/// Caller, line, callee.
pub type Call = (String, u32, String);

/// How long each program is sampled for the truth of its stacks: `TRUTH_SECONDS`, else 0.7.
pub fn truth_seconds() -> f64 {
    let asked = std::env::var("TRUTH_SECONDS").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(0.7)
}

fn program_file(program: &str) -> PathBuf {
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/programs");
    programs.join(program)
}

/// A running program; killed when it is dropped.
pub struct Running {
    child: Child,
    output: BufReader<ChildStdout>,
    copy: Option<PathBuf>,
}

impl Running {
    /// Starts a program of fixtures/programs.
    pub fn start(python: &Python, program: &str, args: &[&str]) -> Running {
        Running::start_file(python, &program_file(program), program, args)
    }

    /// Starts a random program for some seconds; gives the calls that can happen in it, too.
    pub fn start_random(
        python: &Python,
        seed: u64,
        threads: bool,
        seconds: f64,
    ) -> (Running, HashSet<Call>) {
        let folder = tempfile::tempdir().expect("a folder");
        let source = folder.path().join("random.py");
        let made = Command::new("python3")
            .arg(program_file("random_calls.py"))
            .arg(seed.to_string())
            .arg(&source)
            .args(threads.then_some("threads"))
            .status()
            .expect("python3");
        assert!(made.success());
        let calls = std::fs::read(folder.path().join("random.py.calls")).expect("written");
        let calls = serde_json::from_slice(&calls).expect("JSON");
        let seconds = seconds.to_string();
        let mut running = Running::start_file(python, &source, "random.py", &[&seconds]);
        // It is read before it prints; then its file may go.
        assert!(running.line().starts_with("ready"));
        (running, calls)
    }

    fn start_file(python: &Python, source: &Path, program: &str, args: &[&str]) -> Running {
        let mut script = source.to_path_buf();
        let mut copy = None;
        if python.command[0] == "chroot" {
            let unique = format!(
                "{}-{:?}-{program}",
                std::process::id(),
                std::thread::current().id()
            );
            let inside = Path::new(&python.command[1]).join("tmp").join(&unique);
            std::fs::create_dir_all(inside.parent().expect("a folder")).expect("a folder");
            std::fs::copy(source, &inside).expect("a copy in the chroot");
            script = Path::new("/tmp").join(unique);
            copy = Some(inside);
        }
        let mut child = Command::new(&python.command[0])
            .args(&python.command[1..])
            .arg(script)
            .args(args)
            .env("PYTHONIOENCODING", "utf-8")
            .env("PYTHONUTF8", "1")
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        Running {
            child,
            output,
            copy,
        }
    }

    /// Starts a program on a copy of the interpreter, which is overwritten by something else then; `None` where
    /// that interpreter cannot be copied.
    pub fn start_and_replace(python: &Python, program: &str, args: &[&str]) -> Option<Running> {
        let original = Path::new(&python.command[0]);
        let prefix = original.parent()?.parent()?;
        if python.command[0] == "chroot" {
            return None;
        }
        let name = format!("python-{}-{}", python.minor, std::process::id());
        let copy = std::env::temp_dir().join(name);
        std::fs::copy(original, &copy).ok()?;
        let mut child = Command::new(&copy)
            .arg(program_file(program))
            .args(args)
            .env("PYTHONHOME", prefix)
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        let output = BufReader::new(child.stdout.take()?);
        let mut running = Running {
            child,
            output,
            copy: Some(copy.clone()),
        };
        if running.line().trim() != "ready" {
            return None;
        }
        std::fs::remove_file(&copy).ok()?;
        std::fs::copy("/proc/self/exe", &copy).ok()?;
        Some(running)
    }

    /// Its next line.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("a line");
        line
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid(self.child.id() as i32)
    }

    /// Opens it.
    pub fn open(&self, options: FastOptions) -> FastReader {
        FastReader::open(self.pid(), options).expect("opens").0
    }

    /// Opens it, to be read by way of `memory`.
    pub fn open_over<M: Memory>(&self, memory: M) -> FastReader<M> {
        let runtime = runtime::find(self.pid(), &Live::new(self.pid())).expect("Python");
        FastReader::over(self.pid(), memory, &runtime, FastOptions::default()).expect("opens")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(copy) = &self.copy {
            let _ = std::fs::remove_file(copy);
        }
    }
}
