//! Moments of a program that we start: a small script in the place of `sitecustomize` says when they come, and
//! waits until we have done what we do then. What it does in the program stands in `bootstrap.py`.

mod watched;

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::str::FromStr;

pub use watched::{Taken, WatchOptions, Watched};

use crate::error::{Error, ErrorKind, Result, io_reason};
use crate::target::fifo;
use crate::target::launch::python_command;

/// The script; its line `MOMENTS = ()` is filled in.
const BOOTSTRAP: &str = include_str!("bootstrap.py");

/// A longer line than this does not come from the bootstrap.
const LINE_LIMIT: u64 = 4096;

/// When to take a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Moment {
    /// After the main module, threads and exit handlers, before the interpreter takes itself apart.
    Exit,
    /// At calls of a function.
    Call {
        /// The module, as it is imported, or `__main__`.
        module: String,
        /// The function's name, or `Class.method`.
        function: String,
        /// Before the call.
        before: bool,
        /// When it has returned, or raised.
        after: bool,
        /// Every so many calls, at least 1.
        every: u32,
    },
}

impl FromStr for Moment {
    type Err = String;

    /// `exit`, or `call:MODULE:FUNCTION[:before|after|both][:N]`.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "exit" {
            return Ok(Moment::Exit);
        }
        let wrong = || "expected exit or call:MODULE:FUNCTION[:before|after|both][:N]".to_string();
        let mut parts = text
            .strip_prefix("call:")
            .ok_or_else(wrong)?
            .split(':')
            .peekable();
        let mut name = || parts.next().filter(|name| is_dotted_name(name));
        let module = name().ok_or_else(wrong)?.to_string();
        let function = name().ok_or_else(wrong)?.to_string();
        let side = parts.next_if(|part| matches!(*part, "before" | "after" | "both"));
        let every = match parts.next() {
            None => 1,
            Some(number) => number.parse().ok().filter(|n| *n > 0).ok_or_else(wrong)?,
        };
        if parts.next().is_some() {
            return Err(wrong());
        }
        let side = side.unwrap_or("after");
        Ok(Moment::Call {
            module,
            function,
            before: side != "after",
            after: side != "before",
            every,
        })
    }
}

/// Names with dots between them; so they need no quoting in Python either.
fn is_dotted_name(text: &str) -> bool {
    text.split('.').all(|name| {
        name.starts_with(|c: char| c.is_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_alphanumeric() || c == '_')
    })
}

/// What the program tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// The first Python has started; its process id.
    Hello(i32),
    /// [`Moment::Exit`] is here.
    Exit,
    /// A call is about to begin, or has ended.
    Call {
        /// Index among the moments.
        moment: usize,
        /// `before` or `after`.
        side: &'static str,
        /// Which call it is, from 1.
        call: u64,
    },
    /// A moment cannot come.
    Problem(String),
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Told::Hello(_) => f.write_str("start"),
            Told::Exit => f.write_str("exit"),
            Told::Call { side, call, .. } => write!(f, "{side} call {call}"),
            Told::Problem(problem) => f.write_str(problem),
        }
    }
}

fn told(line: &str) -> Option<Told> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    match word {
        "hello" => rest.parse().ok().filter(|pid| *pid > 0).map(Told::Hello),
        "exit" => Some(Told::Exit),
        "problem" => Some(Told::Problem(rest.to_string())),
        "call" => {
            let mut words = rest.split(' ');
            let moment = words.next()?.parse().ok()?;
            let side = match words.next()? {
                "before" => "before",
                "after" => "after",
                _ => return None,
            };
            let call = words.next()?.parse().ok()?;
            Some(Told::Call { moment, side, call })
        }
        _ => None,
    }
}

/// The bootstrap made ready. Its folder goes away with it.
#[derive(Debug)]
pub struct Prepared {
    folder: tempfile::TempDir,
    up: Option<File>,
    down: File,
}

impl Prepared {
    /// Makes the folder with the script and the pipes for `moments` of the program that `words` start.
    pub fn new(moments: &[Moment], words: &[String]) -> Result<Prepared> {
        refuse_closed(words)?;
        let failed = |error: std::io::Error| {
            Error::new(
                ErrorKind::Failed,
                "cannot make a temporary folder",
                io_reason(&error),
            )
        };
        let folder = tempfile::Builder::new()
            .prefix("biopsy-heap-")
            .tempdir()
            .map_err(failed)?;
        let script =
            BOOTSTRAP.replacen("MOMENTS = ()", &format!("MOMENTS = {}", python(moments)), 1);
        fs::write(folder.path().join("sitecustomize.py"), script).map_err(failed)?;
        let up = fifo::create(&folder.path().join("up")).map_err(failed)?;
        let down = fifo::create(&folder.path().join("down")).map_err(failed)?;
        Ok(Prepared {
            folder,
            up: Some(up),
            down,
        })
    }

    /// What is to be set in the program's environment.
    pub fn environment(&self) -> Vec<(OsString, OsString)> {
        let mut path = self.folder.path().as_os_str().to_os_string();
        if let Some(own) = std::env::var_os("PYTHONPATH").filter(|own| !own.is_empty()) {
            path.push(":");
            path.push(own);
        }
        vec![("PYTHONPATH".into(), path)]
    }

    /// Waits in a thread of its own for what the program tells, and gives it to `tell`, until that returns false.
    pub fn listen(&mut self, tell: impl Fn(Told) -> bool + Send + 'static) -> Result<()> {
        let Some(up) = self.up.take() else {
            return Ok(());
        };
        std::thread::Builder::new()
            .name("moments".into())
            .spawn(move || {
                let mut reader = BufReader::new(up);
                let mut line = Vec::new();
                loop {
                    line.clear();
                    let read = reader
                        .by_ref()
                        .take(LINE_LIMIT)
                        .read_until(b'\n', &mut line);
                    if !matches!(read, Ok(1..)) {
                        return;
                    }
                    let text = String::from_utf8_lossy(&line);
                    if told(text.trim_end()).is_some_and(|told| !tell(told)) {
                        return;
                    }
                }
            })
            .map(drop)
            .map_err(|error| {
                Error::new(
                    ErrorKind::Failed,
                    "cannot start a thread",
                    io_reason(&error),
                )
            })
    }

    /// Lets the program go on after something that it told.
    pub fn go_on(&self) {
        // It may have ended meanwhile; the pipe is ours too and holds one byte for each that it told.
        let _ = (&self.down).write_all(b".");
    }
}

/// Fails for options with which the interpreter would not see us.
fn refuse_closed(words: &[String]) -> Result<()> {
    let Some(command) = python_command(words) else {
        return Ok(());
    };
    let short = |option: &&String| {
        !option.starts_with("--")
            && !option.starts_with("-W")
            && !option.starts_with("-X")
            && option.starts_with('-')
            && option.contains(['I', 'E', 'S'])
    };
    match command.options.iter().find(short) {
        None => Ok(()),
        Some(option) => Err(Error::usage(
            "cannot take snapshots at moments of the program",
            format!("the interpreter's option {option} shuts out what would tell of them"),
        )
        .hint("leave the option out, or take snapshots by the clock: --every TIME")),
    }
}

/// The moments as a Python expression.
fn python(moments: &[Moment]) -> String {
    let flag = |value: bool| if value { "True" } else { "False" };
    let mut text = "(".to_string();
    for (number, moment) in moments.iter().enumerate() {
        match moment {
            Moment::Exit => text.push_str("('exit',), "),
            Moment::Call {
                module,
                function,
                before,
                after,
                every,
            } => text.push_str(&format!(
                "('call', {number}, '{module}', '{function}', {}, {}, {every}), ",
                flag(*before),
                flag(*after)
            )),
        }
    }
    text + ")"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_as_people_type_them() {
        assert_eq!("exit".parse(), Ok(Moment::Exit));
        let call = |text: &str| match text.parse() {
            Ok(Moment::Call {
                module,
                function,
                before,
                after,
                every,
            }) => (module, function, before, after, every),
            other => panic!("{text}: {other:?}"),
        };
        let expected = |before, after, every| {
            (
                "myapp.jobs".to_string(),
                "Job.run".to_string(),
                before,
                after,
                every,
            )
        };
        assert_eq!(call("call:myapp.jobs:Job.run"), expected(false, true, 1));
        assert_eq!(
            call("call:myapp.jobs:Job.run:before:100"),
            expected(true, false, 100)
        );
        assert_eq!(
            call("call:myapp.jobs:Job.run:both"),
            expected(true, true, 1)
        );
        assert_eq!(call("call:myapp.jobs:Job.run:7"), expected(false, true, 7));
        for wrong in [
            "",
            "start",
            "call",
            "call:a",
            "call:a:",
            "call::f",
            "call:a:f:0",
            "call:a:f:x",
            "call:a:f:before:1:2",
            "call:a b:f",
            "call:a:'f",
            "call:a..b:f",
            "call:1a:f",
        ] {
            assert!(wrong.parse::<Moment>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_the_program_tells_is_taken_apart() {
        assert_eq!(told("hello 42"), Some(Told::Hello(42)));
        assert_eq!(told("exit"), Some(Told::Exit));
        assert_eq!(
            told("call 1 after 300"),
            Some(Told::Call {
                moment: 1,
                side: "after",
                call: 300
            })
        );
        for wrong in [
            "",
            "hello",
            "hello -1",
            "call 1",
            "call 1 during 2",
            "call x after 1",
        ] {
            assert_eq!(told(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_script_is_filled_in_and_closed_interpreters_are_refused() {
        let moments = [Moment::Exit, "call:a.b:f:both:3".parse().expect("a moment")];
        let words = |text: &str| -> Vec<String> { text.split(' ').map(str::to_string).collect() };
        let prepared =
            Prepared::new(&moments, &words("python3 -Wignore -XIES a.py")).expect("ready");
        let script = fs::read_to_string(prepared.folder.path().join("sitecustomize.py"));
        let line = "\nMOMENTS = (('exit',), ('call', 1, 'a.b', 'f', True, True, 3), )\n";
        assert!(script.is_ok_and(|script| script.contains(line)));
        for wrong in ["python3 -I a.py", "python3 -sE -m x", "python3.12 -S a.py"] {
            let error = Prepared::new(&moments, &words(wrong)).expect_err(wrong);
            assert_eq!(error.exit_code(), 2);
        }
        assert!(Prepared::new(&moments, &words("gunicorn -E app:app")).is_ok());
    }
}
