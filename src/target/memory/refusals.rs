//! The errors of copying a process's memory.

use super::stopped::Refusal;
use crate::error::{Error, ErrorKind};
use crate::target::{access, process};
use crate::units::Pid;

/// Anything else.
pub fn failed(pid: Pid, why: impl Into<String>) -> Error {
    Error::new(ErrorKind::Failed, format!("cannot copy process {pid}"), why)
}

/// It has ended meanwhile.
pub fn ended(pid: Pid) -> Error {
    Error::new(
        ErrorKind::ProcessEnded,
        format!("cannot copy process {pid}"),
        "it ended while it was read",
    )
}

/// It is traced by `tracer`, one of its threads.
pub fn traced(pid: Pid, tracer: Pid) -> Error {
    let tracer = process::of_thread(tracer);
    let name = process::command_line(tracer);
    let name = name.split(' ').next().unwrap_or_default();
    Error::new(
        ErrorKind::Failed,
        format!("cannot stop process {pid}"),
        format!("process {tracer} ({name}) traces it (a debugger, strace, or another profiler)"),
    )
    .hint("--pause none reads it without stopping it")
}

/// Why its threads could not be held.
pub fn refused(pid: Pid, why: Refusal) -> Error {
    match why {
        Refusal::Gone => ended(pid),
        Refusal::Traced(tracer) => traced(pid, tracer),
        Refusal::Denied => access::not_permitted(pid),
        Refusal::Restless(tid) => Error::new(
            ErrorKind::Failed,
            format!("cannot stop process {pid}"),
            format!("its thread {tid} does not stop"),
        )
        .hint("--pause none reads it without stopping it"),
    }
}
