//! What `/proc` tells about one process: state, command line, parent, children.

use std::fs;
use std::path::PathBuf;

use crate::error::{Error, ErrorKind, Result};
use crate::units::{Pid, Tid, printable};

/// Longest command line in a sentence, in characters.
const SHORT_COMMAND: usize = 80;

/// Most processes of one tree.
const LARGEST_TREE: usize = 4096;

/// Longest command line that is kept, in characters.
const COMMAND_LIMIT: usize = 4096;

/// The fields of `/proc/PID/stat` that we use (proc_pid_stat(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Field 3: R, S, D, T, t, Z, X ...
    pub state: char,
    /// Field 4.
    pub parent: Pid,
    /// Field 22, in clock ticks since boot: tells a reused PID from the old one.
    pub start_ticks: u64,
}

/// Reads `/proc/PID/stat`.
pub fn stat(pid: Pid) -> Option<Stat> {
    // A name may be no UTF-8.
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    parse_stat(&String::from_utf8_lossy(&stat))
}

/// The state letter of one thread.
pub fn state_of_thread(pid: Pid, tid: Tid) -> Option<char> {
    let stat = fs::read(format!("/proc/{pid}/task/{tid}/stat")).ok()?;
    Some(parse_stat(&String::from_utf8_lossy(&stat))?.state)
}

/// Resident memory in bytes.
pub fn resident(pid: Pid) -> Option<u64> {
    let text = fs::read(format!("/proc/{pid}/statm")).ok()?;
    let text = String::from_utf8_lossy(&text);
    let pages: u64 = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    pages.checked_mul(4096)
}

/// The process that the thread `tid` belongs to; itself where that is not known.
pub fn of_thread(tid: Pid) -> Pid {
    let status = fs::read(format!("/proc/{tid}/status")).unwrap_or_default();
    let group = status_field(&status, "Tgid:").and_then(|group| group.parse().ok());
    group.map_or(tid, Pid)
}

/// The thread that traces `pid`, if one does.
pub fn tracer(pid: Pid) -> Option<Pid> {
    tracer_in(&fs::read(format!("/proc/{pid}/status")).ok()?)
}

/// The thread that a `/proc/PID/status` names as tracer.
pub fn tracer_in(status: &[u8]) -> Option<Pid> {
    let tracer = status_field(status, "TracerPid:")?;
    Some(Pid(tracer.parse().ok()?)).filter(|tracer| tracer.0 != 0)
}

/// What a `/proc/PID/status` says behind `name`, such as `Tgid:`. Its first line is the thread's name, which may be any
/// bytes: one that was cut after 15 of them may end in the middle of a character.
pub fn status_field<'a>(status: &'a [u8], name: &str) -> Option<&'a str> {
    let mut lines = status.split(|byte| *byte == b'\n');
    let value = lines.find_map(|line| line.strip_prefix(name.as_bytes()))?;
    std::str::from_utf8(value).ok().map(str::trim)
}

/// The second field is the program's name in parentheses, which may hold spaces and parentheses itself.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = Pid(fields.next()?.parse().ok()?);
    let start_ticks = fields.nth(17)?.parse().ok()?;
    Some(Stat {
        state,
        parent,
        start_ticks,
    })
}

/// What is another after each exec: where the program's code and its stack begin and end, which the kernel draws by lot
/// (fields 26 to 28 of proc_pid_stat(5)), and which file it is.
pub fn program(pid: Pid) -> Option<([u64; 3], PathBuf)> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(23);
    let mut field = || fields.next()?.parse().ok();
    let places = [field()?, field()?, field()?];
    Some((places, fs::read_link(format!("/proc/{pid}/exe")).ok()?))
}

/// Whether the process exists and runs (a zombie does not).
pub fn is_alive(pid: Pid) -> bool {
    stat(pid).is_some_and(|stat| !matches!(stat.state, 'Z' | 'X' | 'x'))
}

/// The command line for people: words quoted as a shell would need them, control characters escaped,
/// cut after 4,096 characters.
pub fn command_line(pid: Pid) -> String {
    let raw = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<String> = raw
        .split(|byte| *byte == 0)
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect();
    let end = words
        .iter()
        .rposition(|word| !word.is_empty())
        .map_or(0, |at| at + 1);
    command_text(words[..end].iter().map(String::as_str))
}

/// The program of a command line as [`command_line`] gives it, and its script or module where it is Python; what else there
/// was is ` ...`, as arguments may be secrets. A title that the program has given itself counts as one.
pub fn without_arguments(command: &str) -> String {
    const MORE: &str = " ...";
    let whole = command.strip_suffix(MORE);
    let is_cut = whole.is_some();
    let command = whole.unwrap_or(command);
    let words = shell_words::split(command).unwrap_or_else(|_| {
        // It was cut inside a quoted word.
        command.split_whitespace().map(str::to_string).collect()
    });
    let Some((program, arguments)) = words.split_first() else {
        return String::new();
    };
    let name = program.rsplit('/').next().unwrap_or_default();
    let mut kept = vec![program.as_str()];
    // All in one word: a title, or a path with blanks.
    if let Some((first, _)) = program.split_once(char::is_whitespace)
        && !program.starts_with('/')
    {
        return format!("{}{MORE}", command_text([first]));
    }
    let mut left = arguments.iter();
    if name.starts_with("python") {
        while let Some(word) = left.next() {
            match word.as_str() {
                "-m" => kept.extend(
                    [word.as_str()]
                        .into_iter()
                        .chain(left.next().map(String::as_str)),
                ),
                "-c" => kept.push(word),
                "-X" | "-W" | "--check-hash-based-pycs" => {
                    left.next();
                    continue;
                }
                option if option.starts_with('-') && option != "-" => continue,
                script => kept.push(script),
            }
            break;
        }
    }
    let text = command_text(kept.iter().copied());
    if is_cut || kept.len() <= arguments.len() {
        format!("{text}{MORE}")
    } else {
        text
    }
}

/// A command line cut to what fits into a sentence.
pub fn short_command_line(pid: Pid) -> String {
    let mut text = command_line(pid);
    if let Some((cut, _)) = text.char_indices().nth(SHORT_COMMAND) {
        text.truncate(cut);
        text.push_str(" ...");
    }
    text
}

/// What a process calls itself: the name of the program in its command line, and the kernel's name of its first thread.
pub fn names(pid: Pid) -> [String; 2] {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let program = line.split(|byte| *byte == 0).next().unwrap_or_default();
    let name = program.rsplit(|byte| *byte == b'/').next();
    let comm = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    [text(name.unwrap_or_default()), text(comm.trim_ascii_end())]
}

/// A command for people, as [`command_line`] gives it.
pub fn command_text<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let joined = shell_words::join(words);
    let mut text = printable(&joined).into_owned();
    if let Some((cut, _)) = text.char_indices().nth(COMMAND_LIMIT) {
        text.truncate(cut);
        text.push_str(" ...");
    }
    text
}

/// The path of the program, as the target's mount namespace names it; without a trailing ` (deleted)`.
pub fn executable(pid: Pid) -> Option<PathBuf> {
    let path = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    match path.to_string_lossy().strip_suffix(" (deleted)") {
        Some(stripped) => Some(PathBuf::from(stripped)),
        None => Some(path),
    }
}

/// The processes whose parent is `pid`.
pub fn children(pid: Pid) -> Vec<Pid> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let mut found: Vec<Pid> = tasks
        .flatten()
        .filter_map(|task| fs::read(task.path().join("children")).ok())
        .flat_map(|text| {
            String::from_utf8_lossy(&text)
                .split_ascii_whitespace()
                .filter_map(|word| word.parse().ok().map(Pid))
                .collect::<Vec<_>>()
        })
        .collect();
    found.sort_unstable();
    found
}

/// `root` and all that it or its children have started, as far as they are alive, each before its children.
pub fn tree(root: Pid) -> Vec<Pid> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(pid) = found.get(next).copied()
        && found.len() < LARGEST_TREE
    {
        next += 1;
        for child in children(pid) {
            if !found.contains(&child) {
                found.push(child);
            }
        }
    }
    found
}

/// The error for a process that is not there (any more).
pub fn gone(pid: Pid) -> Error {
    Error::new(
        ErrorKind::NoSuchProcess,
        format!("cannot read process {pid}"),
        "there is no such process",
    )
    .hint("biopsy ps lists the Python processes of this machine")
}

/// Fails unless the process is there and running.
pub fn require_alive(pid: Pid) -> Result<Stat> {
    let stat = stat(pid).ok_or_else(|| gone(pid))?;
    if matches!(stat.state, 'Z' | 'X' | 'x') {
        return Err(Error::new(
            ErrorKind::ProcessEnded,
            format!("cannot read process {pid}"),
            "it has ended and only waits for its parent to notice (a zombie)",
        ));
    }
    Ok(stat)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_confuse_the_fields() {
        let line = "12 (a) b (c) S 3 12 12 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 9876 1 2";
        let stat = parse_stat(line).expect("parses");
        assert_eq!(
            stat,
            Stat {
                state: 'S',
                parent: Pid(3),
                start_ticks: 9876
            }
        );
        assert_eq!(parse_stat("12 (a"), None);
    }

    #[test]
    fn fields_are_found_behind_a_name_that_is_no_text() {
        let status = b"Name:\taaaaaaaaaaaaaa\xc3\nTgid:\t12\nTracerPid:\t0\nNSpid:\t12\t7\n";
        assert_eq!(status_field(status, "Tgid:"), Some("12"));
        assert_eq!(status_field(status, "NSpid:"), Some("12\t7"));
        assert_eq!(status_field(status, "Name:"), None);
        assert_eq!(status_field(status, "Uid:"), None);
        assert_eq!(tracer_in(status), None);
        assert_eq!(tracer_in(b"TracerPid:\t5\n"), Some(Pid(5)));
    }

    #[test]
    fn our_own_process_is_alive_and_has_a_command_line() {
        let me = Pid(std::process::id() as i32);
        assert!(is_alive(me));
        assert!(!command_line(me).is_empty());
        assert!(executable(me).is_some());
    }

    #[test]
    fn arguments_are_left_out() {
        for (whole, kept) in [
            ("python3 app.py --password x", "python3 app.py ..."),
            ("python3 app.py", "python3 app.py"),
            (
                "/usr/bin/python3.12 -u -X dev '/srv/my app.py' a",
                "/usr/bin/python3.12 '/srv/my app.py' ...",
            ),
            ("python -m gunicorn app:app", "python -m gunicorn ..."),
            ("python -c 'token = 1'", "python -c ..."),
            ("uwsgi --http :80", "uwsgi ..."),
            ("'celery worker --broker=redis://:pw@h'", "celery ..."),
            ("python -c 'cut inside a ...", "python -c ..."),
            ("-c x", "-c ..."),
            ("", ""),
        ] {
            assert_eq!(without_arguments(whole), kept, "{whole}");
            assert_eq!(without_arguments(kept), kept, "{kept}");
        }
    }

    #[test]
    fn command_lines_are_quoted_and_cut() {
        assert_eq!(command_text(["a", "b c"]), "a 'b c'");
        assert!(command_text(["\x1b[2J"]).contains("\\x1b"));
        assert!(command_text(["x".repeat(10_000).as_str()]).len() < 4200);
    }
}
