//! Core files, the kernel's and gcore's, hold what the process held.

mod common;

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use biopsy::error::ErrorKind;
use biopsy::target::image::{Captured, Held};
use biopsy::target::memory::copy::{CaptureOptions, Pause, capture};
use biopsy::target::memory::core;
use biopsy::target::memory::moment::Moment;
use biopsy::target::open;
use biopsy::units::Pid;
use common::{Python, Target, biopsy, find_program, in_company, not_here, run, say, send_signal};
use rand::Rng;

/// Holds some megabytes and waits.
const HOLDER: &str = "
import sys, threading, time
store = [{'k': i, 'v': [str(i)]} for i in range(20000)]
threading.Thread(target=threading.Event().wait, daemon=True).start()
time.sleep(0.3)
print('ready', flush=True)
sys.stdin.readline()
";

/// Pages of the copy's writable memory in which another image differs, and all that were compared.
fn differing_pages(target: &Captured, other: &Captured) -> (usize, usize) {
    let (mut differ, mut all) = (0, 0);
    for span in target.image.spans() {
        for (index, page) in span.bytes().chunks_exact(4096).enumerate() {
            let mut bytes = vec![0; 4096];
            if page.iter().all(|byte| *byte == 0) {
                continue;
            }
            all += 1;
            let address = span.start() + index as u64 * 4096;
            differ += usize::from(!other.image.read(address, &mut bytes) || bytes != page);
        }
    }
    (differ, all)
}

fn assert_core(python: &Python, living: &Captured, path: &Path, how: &str) {
    let target = open::Target::of_file(path).expect("a core");
    assert_eq!(target, open::Target::Core(path.to_path_buf()));
    let opened = open::open(&target, CaptureOptions::default());
    let (core, report) = opened
        .unwrap_or_else(|error| panic!("{python}, {how}: {error}"))
        .expect("memory");
    assert_eq!(core.held, Held::Core);
    assert_eq!(
        core.runtime.address, living.runtime.address,
        "{python}, {how}"
    );
    assert_eq!(core.runtime.version, living.runtime.version);
    assert_eq!(core.pid, living.pid, "{python}, {how}");
    assert_eq!(core.threads.len(), living.threads.len(), "{python}, {how}");
    assert!(core.command.contains("python"), "{:?}", core.command);
    assert_eq!(report.moment, Moment::Quiet, "{python}, {how}");
    let (differ, all) = differing_pages(living, &core);
    say(format_args!(
        "{python}, {how}: {all} pages, {differ} differ; {} mappings, {}",
        core.mappings.len(),
        core.command
    ));
    // Its stacks: the threads have come to where they died.
    assert!(
        all > 1000 && differ <= 12,
        "{python}, {how}: {differ} of {all}"
    );
    let mappings = |captured: &Captured, name: &str| -> Vec<(u64, u64)> {
        let named = captured
            .mappings
            .iter()
            .filter(|mapping| mapping.name.ends_with(name));
        named.map(|mapping| (mapping.start, mapping.end)).collect()
    };
    let libc = mappings(living, "libc.so.6");
    assert!(libc.len() > 2);
    assert_eq!(mappings(&core, "libc.so.6"), libc, "{python}, {how}");
}

#[test]
fn a_core_file_is_read_as_the_process_was() {
    let _shared = in_company();
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    let by_kernel = !pattern.contains(['/', '|', '%']);
    if !by_kernel {
        not_here(format!(
            "core files in the working folder: core_pattern is {pattern}"
        ));
    }
    if find_program("gcore").is_none() {
        not_here("gcore");
    }
    let options = CaptureOptions {
        pause: Pause::Stop,
        mappings: true,
    };
    for python in Python::all().iter().filter(|python| python.minor >= 8) {
        let stage = python.stage();
        let words = python.words(&["-c", HOLDER]);
        let mut command = Command::new("sh");
        command
            .current_dir(stage.path())
            .args(["-c", "ulimit -c unlimited; exec \"$@\"", "sh"]);
        let mut target = Target::start(command.args(&words));
        std::thread::sleep(Duration::from_millis(50));
        let living = capture(Pid(target.pid), options);
        let (living, _) = living.unwrap_or_else(|error| panic!("{python}: {error}"));
        // Every interpreter's gcore takes a second of reading symbols.
        if [8, 12, 15].contains(&python.minor) && find_program("gcore").is_some() {
            let path = stage.path().join("made");
            let made = path.to_str().expect("UTF-8");
            let pid = target.pid.to_string();
            run(Command::new("gcore").args(["-o", made, &pid])).ok();
            let path = stage.path().join(format!("made.{pid}"));
            assert_core(python, &living, &path, "gcore");
            // Cut short.
            let file = File::options().write(true).open(&path).expect("ours");
            let length = file.metadata().expect("there").len() / 2;
            file.set_len(length).expect("cut");
            match core::read(&path) {
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::BadFile);
                    let at = format!("at byte {length}");
                    assert!(error.to_string().contains(&at), "{error}");
                }
                Ok((core, report)) => {
                    let dead = core.dead.expect("what is missing");
                    let caveats = dead.caveats.join("; ");
                    assert!(caveats.contains("cut short"), "{caveats}");
                    assert!(report.unreadable > 0, "{python}");
                }
            }
        }
        // In a chroot the names of the files in a core lead elsewhere.
        if by_kernel && python.root.is_none() {
            send_signal("ABRT", target.pid);
            target.wait();
            let names = std::fs::read_dir(stage.path()).expect("there").flatten();
            let core = names.map(|entry| entry.path()).find(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                name.starts_with("core")
            });
            assert_core(python, &living, &core.expect("a core file"), "kernel");
        }
    }
}

#[test]
fn damaged_core_files_are_refused_or_read_and_never_crash() {
    let _shared = in_company();
    if find_program("gcore").is_none() {
        return not_here("gcore");
    }
    let python = Python::any();
    let target = python.start(&["-c", "print('ready', flush=True); input()"]);
    let stage = python.stage();
    let made = stage.inside("made");
    let pid = target.pid.to_string();
    run(Command::new("gcore").args(["-o", &made, &pid])).ok();
    let path = stage.path().join(format!("made.{pid}"));
    let bytes = std::fs::read(&path).expect("a core file");
    let mut random = rand::rng();
    let (mut read, mut refused) = (0, 0);
    for round in 0..120 {
        let mut damaged = bytes.clone();
        // The headers and notes of a core come first.
        let reach = if round % 2 == 0 { 4096 } else { 40_000 };
        for _ in 0..random.random_range(1..20) {
            damaged[random.random_range(0..reach)] = random.random();
        }
        if round % 5 == 0 {
            damaged.truncate(random.random_range(0..bytes.len()));
        }
        std::fs::write(&path, &damaged).expect("written");
        match core::read(&path) {
            Ok((captured, _)) => {
                assert!(captured.image.size() <= damaged.len() as u64);
                read += 1;
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                refused += 1;
            }
        }
    }
    say(format_args!(
        "damaged core files: {read} read, {refused} refused"
    ));
    assert!(refused > 24);
}

/// Whether the kernel writes core files to the working folder of who dies.
fn kernel_writes_cores() -> bool {
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    let by_kernel = !pattern.contains(['/', '|', '%']);
    if !by_kernel {
        not_here(format!(
            "core files in the working folder: core_pattern is {pattern}"
        ));
    }
    by_kernel
}

/// The core file in a folder.
fn core_in(folder: &Path) -> String {
    let names = std::fs::read_dir(folder).expect("there").flatten();
    let found = names.map(|entry| entry.path()).find(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("core")
    });
    let found = found.expect("a core file");
    found.to_str().expect("UTF-8").to_string()
}

/// Starts a program of the fixtures that may leave a core file in its stage.
fn start_to_die(python: &Python, stage: &common::Stage, program: &str) -> Target {
    let words = python.words(&[&stage.fixture(program)]);
    let mut command = Command::new("sh");
    let limited = ["-c", "ulimit -c unlimited; exec \"$@\"", "sh"];
    command.current_dir(stage.path()).args(limited);
    Target::start(command.args(&words))
}

/// The threads of `dump --json`, in the order of their names: name, signal, system call, and name and line of each frame.
fn threads(document: &serde_json::Value) -> Vec<String> {
    let threads = document["threads"].as_array().expect("threads");
    let mut found: Vec<String> = threads
        .iter()
        .map(|thread| {
            let frames = thread["frames"].as_array().expect("frames").iter();
            let frames: Vec<String> = frames
                .map(|frame| format!("{}:{}", frame["name"], frame["line"]))
                .collect();
            format!(
                "{} {} {} {} {}",
                thread["name"],
                thread["os_id"],
                thread["activity"],
                thread["system_call"],
                frames.join(" ")
            )
        })
        .collect();
    found.sort();
    found
}

#[test]
fn dump_shows_the_stacks_in_a_core_file_as_those_of_the_process() {
    let _shared = in_company();
    if find_program("gcore").is_none() {
        return not_here("gcore");
    }
    for python in Python::all().iter().filter(|python| python.minor >= 8) {
        let stage = python.stage();
        let target = start_to_die(python, &stage, "crash_stacks.py");
        std::thread::sleep(Duration::from_millis(50));
        let pid = target.pid.to_string();
        let living = biopsy(&["dump", &pid, "--json"]).ok().json();
        let made = stage.path().join("made");
        let made = made.to_str().expect("UTF-8");
        run(Command::new("gcore").args(["-o", made, &pid])).ok();
        let path = format!("{made}.{pid}");
        let dead = biopsy(&["dump", &path, "--json"]).ok();
        // gdb leaves out stacks whose guard page is no mapping of its own (glibc 2.42).
        if python.root.is_some() && dead.stderr.contains("the core file lacks") {
            let main = |document| threads(document).into_iter().next();
            assert_eq!(main(&dead.json()), main(&living), "{python}");
        } else {
            assert_eq!(dead.stderr, "", "{python}");
            assert_eq!(threads(&dead.json()), threads(&living), "{python}");
        }
        let text = biopsy(&["dump", &path, "--locals"]).ok();
        for line in [
            "        argument: {'k': 1}",
            "        items: [1, 'two', None, (3.0,)]",
            "        day: datetime.date(2026, 1, 2)",
            "        kind: __main__.Color.RED",
            "        big: 1237940039285380274899124224",
            "        options: {'a': [1, 2.5]}",
        ] {
            let found = text.stdout.lines().any(|found| found == line);
            assert!(found, "{python}: {line}\n{}", text.stdout);
        }
    }
}

#[test]
fn the_thread_that_died_is_told() {
    let _shared = in_company();
    if !kernel_writes_cores() {
        return;
    }
    for python in Python::all() {
        if python.minor < 8 || python.root.is_some() {
            continue;
        }
        for (how, signal, innermost) in [
            ("abort", "SIGABRT", "main"),
            ("segv", "SIGSEGV", "string_at"),
        ] {
            let stage = python.stage();
            let mut target = start_to_die(python, &stage, "crash_stacks.py");
            target.tell(how);
            target.wait();
            let core = core_in(stage.path());
            let found = biopsy(&["dump", &core, "--json"]).ok();
            assert_eq!(found.stderr, "", "{python}");
            let document = found.json();
            let threads = document["threads"].as_array().expect("threads");
            assert_eq!(threads.len(), 3, "{python}");
            for thread in threads {
                let frames = thread["frames"].as_array().expect("frames");
                if thread["name"] == "MainThread" {
                    assert_eq!(thread["signal"], signal, "{python}");
                    assert_eq!(thread["state"], "active+gil", "{python}");
                    assert_eq!(frames[0]["name"], innermost, "{python}");
                    assert_eq!(thread["os_id"], document["pid"], "{python}");
                } else {
                    assert!(thread.get("signal").is_none(), "{python}: {thread}");
                    assert_eq!(thread["system_call"], "futex", "{python}");
                    assert_eq!(frames[0]["name"], "worker", "{python}");
                }
            }
            // As far as it goes.
            let length = std::fs::metadata(&core).expect("there").len();
            let file = File::options().write(true).open(&core).expect("ours");
            for share in [99, 95, 90, 60, 30] {
                file.set_len(length * share / 100).expect("cut");
                let cut = biopsy(&["dump", &core, "--locals"]);
                assert!(cut.stderr.contains("cut short"), "{python}: {}", cut.stderr);
                let summary = biopsy(&["heap", "summary", &core]);
                assert!(
                    summary.stderr.contains("cut short")
                        && !summary.stderr.contains("differs from"),
                    "{python}: {}",
                    summary.stderr
                );
            }
        }
    }
}
