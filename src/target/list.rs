//! The Python processes of this machine.

use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System, UpdateKind, Users};

use super::locate::{self, ProgramKind};
use super::{access, process, runtime};
use crate::error::{Error, ErrorKind, Result};
use crate::units::Pid;

/// One Python process.
#[derive(Debug, Clone, PartialEq)]
pub struct PythonProcess {
    /// Process id.
    pub pid: Pid,
    /// Version, or why it is not known.
    pub python: Result<String, String>,
    /// Name of the user that it runs as, else the number.
    pub user: String,
    /// Resident memory in bytes.
    pub rss_bytes: u64,
    /// Number of threads.
    pub threads: usize,
    /// Share of one CPU over a short interval just now, percent.
    pub cpu_percent: f32,
    /// Command line.
    pub command: String,
}

/// All processes that look like Python, in the order of their ids. Takes about 0.2 s, the interval over
/// which CPU use is measured.
pub fn python_processes() -> Result<Vec<PythonProcess>> {
    let mut system = System::new();
    let kind = ProcessRefreshKind::nothing()
        .with_cpu()
        .with_memory()
        .with_user(UpdateKind::OnlyIfNotSet);
    system.refresh_processes_specifics(ProcessesToUpdate::All, true, kind);
    std::thread::sleep(sysinfo::MINIMUM_CPU_UPDATE_INTERVAL);
    system.refresh_processes_specifics(ProcessesToUpdate::All, true, kind);
    let users = Users::new_with_refreshed_list();
    let me = std::process::id();
    let mut found: Vec<PythonProcess> = system
        .processes()
        .iter()
        .filter(|(pid, info)| pid.as_u32() != me && info.thread_kind().is_none())
        .filter_map(|(pid, info)| {
            let pid = Pid(i32::try_from(pid.as_u32()).ok()?);
            let kind = locate::kind(pid);
            if kind == ProgramKind::Unknown || !process::is_alive(pid) {
                return None;
            }
            let user = info.user_id().map(|id| {
                users
                    .get_user_by_id(id)
                    .map_or_else(|| id.to_string(), |user| user.name().to_string())
            });
            Some(PythonProcess {
                pid,
                python: python_text(pid, kind),
                user: user.unwrap_or_default(),
                rss_bytes: info.memory(),
                threads: std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count),
                cpu_percent: info.cpu_usage(),
                command: process::command_line(pid),
            })
        })
        .collect();
    found.sort_by_key(|process| process.pid);
    Ok(found)
}

fn python_text(pid: Pid, kind: ProgramKind) -> Result<String, String> {
    if let ProgramKind::OtherPython(name) = kind {
        return Err(name.to_string());
    }
    access::check(pid)
        .and_then(|()| runtime::version(pid))
        .map(|version| version.to_string())
        .map_err(|error| match error.kind() {
            ErrorKind::NotPermitted => "not permitted".to_string(),
            ErrorKind::UnsupportedPython => "not supported".to_string(),
            _ => "unknown".to_string(),
        })
}

/// The one Python process whose command line contains `pattern`; an error when there is none or several.
pub fn find_by_name(pattern: &str) -> Result<Pid> {
    let mut matching: Vec<(Pid, String)> = all_pids()
        .into_iter()
        .filter(|pid| pid.0 != std::process::id() as i32)
        .filter(|pid| locate::kind(*pid) != ProgramKind::Unknown && process::is_alive(*pid))
        .map(|pid| (pid, process::command_line(pid)))
        .filter(|(_, command)| command.contains(pattern))
        .collect();
    matching.sort();
    match matching.as_slice() {
        [(pid, _)] => Ok(*pid),
        [] => Err(Error::new(
            ErrorKind::NoSuchProcess,
            format!("cannot find '{pattern}'"),
            "no Python process has that in its command line",
        )
        .hint("biopsy ps lists the Python processes of this machine")),
        several => {
            let list: Vec<String> = several
                .iter()
                .take(8)
                .map(|(pid, _)| pid.to_string())
                .collect();
            Err(Error::new(
                ErrorKind::NoSuchProcess,
                format!("cannot choose a process for '{pattern}'"),
                format!(
                    "{} Python processes match: {}",
                    several.len(),
                    list.join(", ")
                ),
            )
            .hint("name one by its PID, or write more of its command line"))
        }
    }
}

fn all_pids() -> Vec<Pid> {
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid))
        .collect()
}
