//! The errors that a person can act on: what failed, why, and what to do about it.
//!
//! Library code returns [`Error`]; only `main` prints one and ends the process. The exit code and the
//! hints are decided from the kind, never from the text.

use std::fmt;

/// What kind of thing went wrong; decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The command line is wrong (exit code 2).
    Usage,
    /// No process has the PID or matches the name.
    NoSuchProcess,
    /// The process exists and is not a CPython.
    NotPython,
    /// A Python that biopsy cannot read (PyPy, too old, too new, another architecture).
    UnsupportedPython,
    /// The kernel does not let us read the process.
    NotPermitted,
    /// The process ended while it was being read.
    ProcessEnded,
    /// A file is not what its name says, is cut short, or is damaged.
    BadFile,
    /// A file cannot be read.
    CannotRead,
    /// An output cannot be written.
    CannotWrite,
    /// The reader at the other end of our stdout is gone; ends quietly with 0.
    BrokenPipe,
    /// The build or this version lacks what was asked for.
    NotAvailable,
    /// A program cannot be started.
    CannotStart,
    /// Anything else that could not be done.
    Failed,
}

/// One failure: `biopsy: <what>: <why>`, then at most two lines of advice.
#[derive(Debug, Clone)]
pub struct Error {
    kind: ErrorKind,
    what: String,
    why: String,
    hints: Vec<String>,
}

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind`: `what` failed (with its pid, path or address), and `why`.
    pub fn new(kind: ErrorKind, what: impl Into<String>, why: impl Into<String>) -> Self {
        Error {
            kind,
            what: what.into(),
            why: why.into(),
            hints: Vec::new(),
        }
    }

    /// A wrong command line.
    pub fn usage(what: impl Into<String>, why: impl Into<String>) -> Self {
        Error::new(ErrorKind::Usage, what, why)
    }

    /// A file that is not what it should be; `offset` is where that shows, in bytes from its start.
    pub fn bad_file(what: impl Into<String>, offset: u64, why: impl fmt::Display) -> Self {
        Error::new(
            ErrorKind::BadFile,
            what,
            format!("{why} (at byte {offset})"),
        )
    }

    /// Failure to write `what`; a closed pipe keeps its own kind so that it can end quietly.
    pub fn write(what: impl fmt::Display, error: &std::io::Error) -> Self {
        let kind = if error.kind() == std::io::ErrorKind::BrokenPipe {
            ErrorKind::BrokenPipe
        } else {
            ErrorKind::CannotWrite
        };
        Error::new(kind, format!("cannot write {what}"), io_reason(error))
    }

    /// Failure to read `what`.
    pub fn read(what: impl fmt::Display, error: &std::io::Error) -> Self {
        Error::new(
            ErrorKind::CannotRead,
            format!("cannot read {what}"),
            io_reason(error),
        )
    }

    /// Adds one line of advice; more than two are not printed.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Puts the name of a file or a step before what failed.
    #[must_use]
    pub fn within(mut self, context: impl fmt::Display) -> Self {
        self.what = format!("{context}: {}", self.what);
        self
    }

    /// The kind, for decisions.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Why it failed, without what.
    pub fn why(&self) -> &str {
        &self.why
    }

    /// The process exit code that this error asks for.
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            ErrorKind::Usage => 2,
            ErrorKind::BrokenPipe => 0,
            _ => 1,
        }
    }

    /// The lines of advice, at most two.
    pub fn hints(&self) -> impl Iterator<Item = &str> {
        self.hints.iter().take(2).map(String::as_str)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)
    }
}

impl std::error::Error for Error {}

/// The system's reason in its own words, without the number in brackets.
pub fn io_reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_lowercase(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_follow_the_contract() {
        assert_eq!(Error::usage("a", "b").exit_code(), 2);
        assert_eq!(Error::new(ErrorKind::NotPython, "a", "b").exit_code(), 1);
        let pipe = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert_eq!(Error::write("stdout", &pipe).exit_code(), 0);
    }

    #[test]
    fn no_more_than_two_hints_are_given() {
        let error = Error::usage("a", "b").hint("1").hint("2").hint("3");
        assert_eq!(error.hints().count(), 2);
        assert_eq!(error.to_string(), "a: b");
    }
}
