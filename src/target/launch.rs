//! Starting a program: what to run for the words that were typed, and its exit code.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use super::process;
use crate::error::{Error, ErrorKind, Result, io_reason};
use crate::units::Pid;

/// The words to execute for what a person typed after `--`: a first word that ends in `.py` or is
/// `-m`/`-c` is given to `python`.
pub fn words(typed: &[String], python: &str) -> Vec<String> {
    let first = typed.first().map_or("", String::as_str);
    let is_script = first.ends_with(".py") || first.ends_with(".pyz") || is_python_option(first);
    let mut words = Vec::with_capacity(typed.len() + 1);
    if is_script {
        words.push(python.to_string());
    }
    words.extend_from_slice(typed);
    words
}

/// `-m`, `-c`, and the joined forms `-mpkg`, `-ccode`.
fn is_python_option(word: &str) -> bool {
    word.starts_with("-m") || word.starts_with("-c")
}

/// How a Python command line is made up; see [`python_command`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PythonCommand {
    /// The interpreter.
    pub interpreter: String,
    /// Its own options, such as `-O`, `-W ignore`, `-X dev`.
    pub options: Vec<String>,
    /// What it runs.
    pub form: PythonForm,
    /// The script's path, the module's name or the code.
    pub target: String,
    /// Everything after that.
    pub arguments: Vec<String>,
}

/// What a Python interpreter is told to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PythonForm {
    /// A file or folder.
    Script,
    /// `-m`.
    Module,
    /// `-c`.
    Command,
}

/// Takes the words of a command apart that starts a Python interpreter (Python/initconfig.c,
/// `config_parse_cmdline`); `None` when its program is not called python, or it runs nothing (`-V`, stdin).
pub fn python_command(words: &[String]) -> Option<PythonCommand> {
    let (interpreter, rest) = words.split_first()?;
    let program = interpreter.rsplit('/').next()?;
    if !program.starts_with("python") && !program.starts_with("pypy") {
        return None;
    }
    let mut options = Vec::new();
    let mut rest = rest.iter();
    let (form, target) = loop {
        let word = rest.next()?;
        if word == "-" || !word.starts_with('-') {
            break (PythonForm::Script, word.clone());
        }
        if word == "--" {
            break (PythonForm::Script, rest.next()?.clone());
        }
        if word.starts_with("--") {
            options.push(word.clone());
            if word == "--check-hash-based-pycs" {
                options.push(rest.next()?.clone());
            }
            continue;
        }
        // Flags may be joined: `-IOm pkg`, `-Wignore`, `-Xdev`.
        let letters = &word[1..];
        match letters.find(['m', 'c', 'W', 'X']) {
            None => options.push(word.clone()),
            Some(at) => {
                let (before, after) = (&letters[..at], &letters[at + 1..]);
                let letter = &letters[at..=at];
                if letter == "m" || letter == "c" {
                    if !before.is_empty() {
                        options.push(format!("-{before}"));
                    }
                    let target = if after.is_empty() {
                        rest.next()?.clone()
                    } else {
                        after.to_string()
                    };
                    let form = if letter == "m" {
                        PythonForm::Module
                    } else {
                        PythonForm::Command
                    };
                    break (form, target);
                }
                options.push(word.clone());
                if after.is_empty() {
                    options.push(rest.next()?.clone());
                }
            }
        }
    };
    if target == "-" {
        return None;
    }
    Some(PythonCommand {
        interpreter: interpreter.clone(),
        options,
        form,
        target,
        arguments: rest.cloned().collect(),
    })
}

fn command(words: &[String]) -> Result<Command> {
    let Some((program, arguments)) = words.split_first() else {
        return Err(Error::usage("cannot start a program", "none is given"));
    };
    let mut command = Command::new(program);
    command.args(arguments);
    Ok(command)
}

/// A program that we started; its standard streams are ours.
#[derive(Debug)]
pub struct Launched {
    child: Child,
    running: Arc<AtomicI32>,
}

impl Launched {
    /// Starts `words`. `running` gets the process id for as long as the program has not been waited for, and
    /// 0 afterwards.
    pub fn start(words: &[String], running: Arc<AtomicI32>) -> Result<Launched> {
        Launched::start_with(words, Vec::new(), running)
    }

    /// The same with variables set in its environment.
    pub fn start_with(
        words: &[String],
        environment: Vec<(OsString, OsString)>,
        running: Arc<AtomicI32>,
    ) -> Result<Launched> {
        let mut command = command(words)?;
        command.envs(environment);
        Launched::spawn(command, words, running)
    }

    /// The same without our terminal: nothing to read, what it prints is lost, and its errors go to `errors`.
    pub fn start_apart(
        words: &[String],
        errors: File,
        running: Arc<AtomicI32>,
    ) -> Result<Launched> {
        let mut command = command(words)?;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors);
        Launched::spawn(command, words, running)
    }

    fn spawn(mut command: Command, words: &[String], running: Arc<AtomicI32>) -> Result<Launched> {
        let program = words.first().map_or("", String::as_str);
        command
            .spawn()
            .map(|child| {
                running.store(child.id() as i32, Ordering::SeqCst);
                Launched { child, running }
            })
            .map_err(|error| {
                let start = Error::new(
                    ErrorKind::CannotStart,
                    format!("cannot start '{program}'"),
                    io_reason(&error),
                );
                match error.kind() {
                    std::io::ErrorKind::NotFound => start.hint(
                        "give a program on the PATH, a script ending in .py, or -m MODULE; another interpreter: --python PATH",
                    ),
                    _ => start,
                }
            })
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid(self.child.id() as i32)
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        until_ended(self.pid());
        let status = self.child.wait();
        self.running.store(0, Ordering::SeqCst);
        status.map_err(|error| {
            Error::new(
                ErrorKind::Failed,
                "cannot wait for the program",
                io_reason(&error),
            )
        })
    }
}

/// Waits until our child has ended, and leaves it to be waited for. waitpid(2) alone would not do: while another
/// thread of ours traces the child it returns each of its stops, which that thread then waits for in vain
/// (kernel/exit.c, `wait_consider_task`).
fn until_ended(pid: Pid) {
    // SAFETY: pidfd_open(2) takes two integers.
    let opened = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.0, 0) };
    let Some(fd) = i32::try_from(opened).ok().filter(|fd| *fd >= 0) else {
        // Linux before 5.3.
        while process::is_alive(pid) {
            std::thread::sleep(Duration::from_millis(5));
        }
        return;
    };
    // SAFETY: the kernel has just made this descriptor, and nobody else has it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut poll = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    loop {
        // SAFETY: poll(2) reads and writes the one struct that it is handed, for whose time the descriptor is open.
        let ready = unsafe { libc::poll(&mut poll, 1, -1) };
        let interrupted =
            ready < 0 && std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted;
        if !interrupted {
            return;
        }
    }
}

/// Makes orphans in the tree of programs that we start our children instead of init's (PR_SET_CHILD_SUBREAPER, prctl(2)), so
/// that daemons that fork twice are found.
pub fn adopt_orphans() {
    // SAFETY: this option takes one number and changes who adopts orphans, nothing else.
    let _ = unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
}

/// Waits for those of our children that have ended, `but` one, which somebody else waits for: orphans that we have adopted.
pub fn reap_orphans(me: Pid, but: Pid) {
    for child in process::children(me) {
        if child != but && process::stat(child).is_some_and(|stat| stat.state == 'Z') {
            // SAFETY: waitpid(2) may be told to keep the status to itself.
            let _ = unsafe { libc::waitpid(child.0, std::ptr::null_mut(), libc::WNOHANG) };
        }
    }
}

/// The exit code to pass on: the program's own, or 128+N for signal N.
pub fn exit_code(status: ExitStatus) -> u8 {
    match (status.code(), status.signal()) {
        (Some(code), _) => code as u8,
        (None, Some(signal)) => 128u8.saturating_add(signal as u8),
        (None, None) => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_string).collect()
    }

    #[test]
    fn scripts_and_modules_are_given_to_python() {
        assert_eq!(words(&split("a.py x"), "python3"), split("python3 a.py x"));
        assert_eq!(words(&split("-m a.b x"), "p"), split("p -m a.b x"));
        assert_eq!(
            words(&split("gunicorn app:app"), "p"),
            split("gunicorn app:app")
        );
        assert_eq!(
            words(&split("python3.12 a.py"), "p"),
            split("python3.12 a.py")
        );
    }

    #[test]
    fn python_command_lines_are_taken_apart() {
        let parse = |text: &str| python_command(&split(text));
        let c = parse("/usr/bin/python3.12 -W ignore -OO -X dev -m pkg.mod -a b").expect("module");
        assert_eq!(c.options, split("-W ignore -OO -X dev"));
        assert_eq!((c.form, c.target.as_str()), (PythonForm::Module, "pkg.mod"));
        assert_eq!(c.arguments, split("-a b"));
        let c = parse("python -Imjson.tool x").expect("joined");
        assert_eq!((c.options, c.target.as_str()), (split("-I"), "json.tool"));
        let c = parse("python3 -Wignore -u s.py -c").expect("script");
        assert_eq!((c.form, c.arguments), (PythonForm::Script, split("-c")));
        let c = parse("python3 -c pass 1").expect("command");
        assert_eq!((c.form, c.target.as_str()), (PythonForm::Command, "pass"));
        assert_eq!(parse("gunicorn app:app"), None);
        assert_eq!(parse("python3"), None);
        assert_eq!(parse("python3 -V"), None);
        assert_eq!(parse("python3 -"), None);
    }

    #[test]
    fn a_missing_program_is_an_error_and_codes_are_passed_on() {
        let error = Launched::start(&split("/nonexistent/x"), Arc::default()).expect_err("missing");
        assert_eq!(error.kind(), ErrorKind::CannotStart);
        let run = |script: &str| {
            let words = ["sh", "-c", script].map(str::to_string);
            let status = Launched::start(&words, Arc::default())
                .and_then(|mut l| l.wait())
                .expect("runs");
            exit_code(status)
        };
        assert_eq!(run("exit 7"), 7);
        assert_eq!(run("kill -TERM $$"), 143);
    }
}
