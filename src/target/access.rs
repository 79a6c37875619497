//! May we read this process? If not, what it takes on this machine.

use std::fs;
use std::io::Read;

use remoteprocess::ProcessMemory;

use super::{maps, process};
use crate::error::{Error, ErrorKind, Result};
use crate::units::Pid;

/// Bit of CAP_SYS_PTRACE in `/proc/PID/status` (include/uapi/linux/capability.h).
const CAP_SYS_PTRACE: u32 = 19;

/// Mappings that are tried before memory is called unreadable.
const READS: usize = 8;

/// Fails with advice unless `pid` runs, is of our architecture, and lets us read its memory.
pub fn check(pid: Pid) -> Result<()> {
    if pid.0 == std::process::id() as i32 {
        return Err(Error::new(
            ErrorKind::NotPython,
            format!("cannot read process {pid}"),
            "that is biopsy itself",
        ));
    }
    process::require_alive(pid)?;
    let regions = maps::regions(pid).map_err(|error| unreadable(pid, &error))?;
    let readable = regions.iter().filter(|region| region.readable());
    let addresses: Vec<u64> = readable
        .filter(|region| !region.special())
        .map(|region| region.start)
        .take(READS)
        .collect();
    if addresses.is_empty() {
        // One that is about to end has none any more either. Kernel threads are children of process 2.
        let is_kernel = |stat: process::Stat| pid == Pid(2) || stat.parent == Pid(2);
        if !process::stat(pid).is_some_and(is_kernel) {
            return Err(process::gone(pid));
        }
        return Err(Error::new(
            ErrorKind::NotPython,
            format!("cannot read process {pid}"),
            "it has no memory of its own: it is a kernel thread",
        ));
    }
    check_architecture(pid)?;
    let opened = remoteprocess::Process::new(pid.0).map_err(|_| process::gone(pid))?;
    let mut bytes = [0; 8];
    let mut why = String::new();
    for address in addresses {
        match opened.read(address as usize, &mut bytes) {
            Ok(()) => return Ok(()),
            Err(_) if !process::is_alive(pid) => return Err(process::gone(pid)),
            Err(remoteprocess::Error::IOError(error))
                if error.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                return Err(not_permitted(pid));
            }
            // A mapping that went away since it was listed: the process is starting, or calls exec.
            Err(error) => why = error.to_string(),
        }
    }
    Err(Error::new(
        ErrorKind::Failed,
        format!("cannot read process {pid}"),
        format!("its memory cannot be read: {why}"),
    ))
}

fn unreadable(pid: Pid, error: &std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => not_permitted(pid),
        _ => process::gone(pid),
    }
}

/// Fails when the program is not of the architecture that biopsy was built for.
fn check_architecture(pid: Pid) -> Result<()> {
    let mut head = [0u8; 20];
    let read = fs::File::open(format!("/proc/{pid}/exe")).and_then(|mut f| f.read_exact(&mut head));
    if read.is_err() || head[..4] != *b"\x7fELF" {
        return Ok(());
    }
    let machine = u16::from_le_bytes([head[18], head[19]]);
    let ours = if cfg!(target_arch = "x86_64") {
        62
    } else {
        183
    };
    if head[4] == 2 && machine == ours {
        return Ok(());
    }
    let bits = if head[4] == 1 { "32-bit " } else { "" };
    Err(Error::new(
        ErrorKind::UnsupportedPython,
        format!("cannot read process {pid}"),
        format!("it is a {bits}program of another architecture (ELF machine {machine})"),
    )
    .hint("use a biopsy built for the same architecture as the target"))
}

/// The error for a target that was to be stopped or read and could not be: traced by another program, or not
/// permitted.
pub fn refused(pid: Pid) -> Error {
    match process::tracer(pid) {
        Some(tracer) => Error::new(
            ErrorKind::Failed,
            format!("cannot stop process {pid}"),
            format!("process {tracer} traces it (a debugger, strace, or another profiler)"),
        )
        .hint("leave out --blocking: it can be read without being stopped"),
        None if check(pid).is_ok() => Error::new(
            ErrorKind::Failed,
            format!("cannot stop process {pid}"),
            "it was busy with another tracer, or is ending",
        ),
        None => not_permitted(pid),
    }
}

/// What stands between us and the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Obstacles {
    root: bool,
    capable: bool,
    same_user: bool,
    yama_scope: u8,
    container: bool,
}

/// The error for a target that the kernel keeps from us, with what it takes on this machine.
pub fn not_permitted(pid: Pid) -> Error {
    let status = fs::read("/proc/self/status").unwrap_or_default();
    let field = |name: &str| process::status_field(&status, name);
    let uid = field("Uid:").and_then(|ids| ids.split_ascii_whitespace().nth(1));
    let target_status = fs::read(format!("/proc/{pid}/status")).unwrap_or_default();
    let target_uid = process::status_field(&target_status, "Uid:")
        .and_then(|ids| ids.split_ascii_whitespace().next());
    let capabilities = field("CapEff:").and_then(|hex| u64::from_str_radix(hex, 16).ok());
    let obstacles = Obstacles {
        root: uid == Some("0"),
        capable: capabilities.is_some_and(|bits| bits >> CAP_SYS_PTRACE & 1 == 1),
        same_user: uid.is_some() && uid == target_uid,
        yama_scope: fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope")
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0),
        container: std::path::Path::new("/.dockerenv").exists()
            || std::path::Path::new("/run/.containerenv").exists(),
    };
    log::debug!("process {pid} cannot be read: {obstacles:?}");
    advise(pid, obstacles)
}

fn advise(pid: Pid, obstacles: Obstacles) -> Error {
    let what = format!("cannot read process {pid}");
    let error = |why: &str| {
        Error::new(
            ErrorKind::NotPermitted,
            what.clone(),
            format!("not permitted: {why}"),
        )
    };
    let container_flag = "in a container: start it with --cap-add SYS_PTRACE (Docker, Podman), or add SYS_PTRACE to securityContext.capabilities (Kubernetes)";
    if obstacles.yama_scope == 3 {
        return error(
            "kernel.yama.ptrace_scope is 3, which forbids it even to root until the next boot",
        )
        .hint("set kernel.yama.ptrace_scope to 1 in /etc/sysctl.d and reboot");
    }
    if obstacles.root && !obstacles.capable {
        return error("this root lacks the capability CAP_SYS_PTRACE").hint(container_flag);
    }
    let sudo = format!("run it as root: sudo biopsy ... {pid}");
    if !obstacles.same_user && !obstacles.root {
        return error("the process belongs to another user")
            .hint(format!("{sudo}, or give biopsy CAP_SYS_PTRACE"));
    }
    if obstacles.yama_scope >= 1 && !obstacles.capable {
        let error = error(&format!(
            "kernel.yama.ptrace_scope is {}, so only root (CAP_SYS_PTRACE) may read processes it did not start",
            obstacles.yama_scope
        ))
        .hint(format!("{sudo}, or for all users: sudo sysctl kernel.yama.ptrace_scope=0"));
        return if obstacles.container {
            error.hint(container_flag)
        } else {
            error
        };
    }
    let error = error(
        "the kernel refused it (another user namespace, a security module, or a program that is not dumpable)",
    );
    let error = if obstacles.root {
        error
    } else {
        error.hint(sudo)
    };
    if obstacles.container {
        error.hint(container_flag)
    } else {
        error.hint("outside of containers: run biopsy on the host, in the target's own user namespace or above it")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: Obstacles = Obstacles {
        root: false,
        capable: false,
        same_user: true,
        yama_scope: 0,
        container: false,
    };

    #[test]
    fn each_obstacle_names_what_it_takes() {
        let text = |obstacles| {
            let error = advise(Pid(7), obstacles);
            assert_eq!(error.kind(), ErrorKind::NotPermitted);
            let hints: Vec<&str> = error.hints().collect();
            assert!(!hints.is_empty());
            format!("{error} {}", hints.join(" "))
        };
        assert!(
            text(Obstacles {
                yama_scope: 1,
                ..OPEN
            })
            .contains("ptrace_scope")
        );
        assert!(
            text(Obstacles {
                yama_scope: 3,
                root: true,
                ..OPEN
            })
            .contains("reboot")
        );
        assert!(
            text(Obstacles {
                same_user: false,
                ..OPEN
            })
            .contains("sudo")
        );
        let docker = Obstacles {
            root: true,
            container: true,
            ..OPEN
        };
        assert!(text(docker).contains("--cap-add SYS_PTRACE"));
        assert!(text(OPEN).contains("sudo"));
    }

    #[test]
    fn process_one_million_does_not_exist() {
        let error = check(Pid(i32::MAX - 1)).expect_err("no such process");
        assert_eq!(error.kind(), ErrorKind::NoSuchProcess);
    }
}
