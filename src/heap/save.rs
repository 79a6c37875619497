//! A snapshot of an image in a file.

use std::path::Path;

use super::census::{Census, Counting};
use super::store::{self, SnapshotHead};
use super::subject::open_heap;
use crate::error::{Error, ErrorKind, Result};
use crate::target::image::Captured;
use crate::target::{disk, process};
use crate::units::{Pid, format_bytes};

/// A snapshot may take this share of its process's memory: those of our tests take 1 to 2 bytes an object, a fortieth of
/// the memory and less, so this leaves room.
const ROOM_SHARE: u64 = 12;

/// When the process started, which with its PID says which one it is.
pub fn started(pid: Pid) -> Option<u64> {
    process::stat(pid).map(|stat| stat.start_ticks)
}

/// Fails before the process is stopped when the file cannot be written, or will hardly have room.
pub fn check_room(pid: Pid, path: &Path) -> Result<()> {
    disk::check_writable(path)?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let needed = process::resident(pid).unwrap_or(0) / ROOM_SHARE;
    match disk::free(folder) {
        Some(free) if free < needed => Err(Error::new(
            ErrorKind::CannotWrite,
            format!("cannot write {}", path.display()),
            format!(
                "a snapshot of process {pid} may take {}, and {} are free",
                format_bytes(needed),
                format_bytes(free)
            ),
        )
        .hint("name a file on another disk")),
        _ => Ok(()),
    }
}

/// Writes a snapshot, with both summaries; gives the one of everything.
pub fn save(
    captured: &Captured,
    started: Option<u64>,
    path: &Path,
    values: bool,
) -> Result<Census> {
    let heap = open_heap(captured)?;
    let census = heap.census(Counting::Reachable);
    let muppy = heap.census(Counting::Muppy);
    let graph = heap.graph(values)?;
    let account = heap.account(&graph).ok();
    let head = SnapshotHead {
        python: census.python.clone(),
        pid: census.pid,
        started,
        command: census.command.clone(),
        taken_at: census.taken_at,
        held: captured.held,
        rss: captured.rss,
        mappings: captured.mappings.clone(),
        threads: captured.threads.clone(),
        values,
        doubts: census.doubts,
        account,
    };
    let censuses = [census, muppy];
    disk::write_file(path, true, |file| {
        store::write(&head, &censuses, &graph, file)
    })?;
    let [census, _] = censuses;
    Ok(census)
}
