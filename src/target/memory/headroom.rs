//! How much memory we may still take: what the machine has left, our control group's limit, and `ulimit -v`.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What stands in the way of taking memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headroom {
    /// Bytes that may be taken.
    pub memory: u64,
    /// What says so.
    pub limit: &'static str,
    /// Bytes of addresses that may be reserved (RLIMIT_AS).
    pub addresses: u64,
}

/// What there is for this process now.
pub fn here() -> Headroom {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let mut headroom = Headroom {
        memory: kilobytes(&meminfo, "MemAvailable:").unwrap_or(u64::MAX),
        limit: "available on this machine",
        addresses: addresses(),
    };
    if let Some(left) = group()
        && left < headroom.memory
    {
        headroom.memory = left;
        headroom.limit = "left in biopsy's own control group (container, service)";
    }
    if headroom.addresses < headroom.memory {
        headroom.memory = headroom.addresses;
        headroom.limit = "left of biopsy's own address space limit (ulimit -v)";
    }
    headroom
}

/// `Name:   123 kB` in bytes.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let number: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    number.checked_mul(1024)
}

/// Addresses that may be mapped still.
fn addresses() -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel fills one `rlimit`.
    let answer = unsafe { libc::getrlimit(libc::RLIMIT_AS, &raw mut limit) };
    if answer != 0 || limit.rlim_cur == libc::RLIM_INFINITY {
        return u64::MAX;
    }
    let status = fs::read("/proc/self/status").unwrap_or_default();
    let status = String::from_utf8_lossy(&status);
    let used = kilobytes(&status, "VmSize:").unwrap_or(0);
    limit.rlim_cur.saturating_sub(used)
}

/// What our control group and those above it leave.
fn group() -> Option<u64> {
    let text = fs::read("/proc/self/cgroup").ok()?;
    // Whoever made a group has named it: a line may be no UTF-8.
    let lines = text.split(|byte| *byte == b'\n');
    lines.filter_map(left_in).min()
}

/// `0::/user.slice/a` (version 2) or `5:memory:/docker/b` (version 1).
fn left_in(line: &[u8]) -> Option<u64> {
    let mut fields = line.splitn(3, |byte| *byte == b':');
    let mut text = || std::str::from_utf8(fields.next()?).ok();
    let (number, controllers) = (text()?, text()?);
    let path = fields.next()?.strip_prefix(b"/")?;
    let (root, limit, usage, cache) = if number == "0" {
        (
            "/sys/fs/cgroup",
            "memory.max",
            "memory.current",
            "inactive_file ",
        )
    } else if controllers.split(',').any(|name| name == "memory") {
        (
            "/sys/fs/cgroup/memory",
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_inactive_file ",
        )
    } else {
        return None;
    };
    let number = |folder: &Path, name: &str| {
        let text = fs::read_to_string(folder.join(name)).ok()?;
        text.trim().parse::<u64>().ok()
    };
    let left = |folder: &Path| {
        let (limit, usage) = (number(folder, limit)?, number(folder, usage)?);
        let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
        // Cached files give way.
        let cached = stat.lines().find_map(|line| line.strip_prefix(cache));
        let cached: u64 = cached
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0);
        Some(limit.saturating_sub(usage.saturating_sub(cached)))
    };
    // In a container the path may be the host's, and the group's own files stand at the root.
    let folder = Path::new(root).join(OsStr::from_bytes(path));
    let folder = if folder.is_dir() {
        folder
    } else {
        Path::new(root).to_path_buf()
    };
    folder
        .ancestors()
        .take_while(|folder| folder.starts_with(root))
        .filter_map(left)
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_and_nonsense_is_no_limit() {
        let text = "MemTotal:       24 kB\nMemAvailable:   12 kB\n";
        assert_eq!(kilobytes(text, "MemAvailable:"), Some(12 * 1024));
        assert_eq!(kilobytes(text, "MemFree:"), None);
        for line in [
            "",
            "0::/no/such/group\u{0}",
            "3:cpu:/",
            "::",
            "0::/../../etc",
        ] {
            let _ = left_in(line.as_bytes());
        }
        assert!(here().memory > 0);
    }
}
