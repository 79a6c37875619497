//! Core files, the kernel's and gcore's, hold what the process held.

use crate::common;

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use biopsy::error::ErrorKind;
use biopsy::layout::heap::{self as layout, statics};
use biopsy::target::image::{Captured, Held};
use biopsy::target::locate;
use biopsy::target::memory::copy::{CaptureOptions, Pause, capture};
use biopsy::target::memory::core;
use biopsy::target::memory::moment::HeapState;
use biopsy::target::open;
use biopsy::units::Pid;
use common::{Python, Target, biopsy, find_program, in_company, not_here, run, say, send_signal};
use rand::RngExt;

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
    assert_eq!(report.moment, HeapState::Quiet, "{python}, {how}");
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
                // What is known of types by their symbols is not in the file.
                assert!(captured.image.size() <= damaged.len() as u64 + (64 << 10));
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
    assert!(refused > 8);
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

/// Has many instances of classes, lists, dicts and texts, and tells where its classes are.
const MANY: &str = "
import sys, collections, decimal
class Record:
    def __init__(self, i): self.number = i; self.text = str(i)
class Slotted:
    __slots__ = ('value',)
    def __init__(self, i): self.value = [i]
records = [Record(i) for i in range(20000)]
slotted = {i: Slotted(i) for i in range(20000)}
blobs = [bytes(100000) for i in range(20)]
print('ready', hex(id(Record)), hex(id(Slotted)), flush=True)
sys.stdin.readline()
";

/// Objects and bytes by type, and in all, as `heap summary --json` has them.
struct Counts {
    types: Vec<(String, u64, u64)>,
    total: (u64, u64),
}

impl Counts {
    fn of(document: &serde_json::Value) -> Counts {
        let pair = |row: &serde_json::Value| {
            let number = |key: &str| row[key].as_u64().expect("a number");
            (number("objects"), number("bytes"))
        };
        let types = document["types"].as_array().expect("types").iter();
        Counts {
            types: types
                .map(|row| {
                    let (objects, bytes) = pair(row);
                    (
                        row["type"].as_str().expect("a name").to_string(),
                        objects,
                        bytes,
                    )
                })
                .collect(),
            total: pair(&document["total"]),
        }
    }

    /// Those of types that `wants` likes.
    fn sum(&self, wants: impl Fn(&str) -> bool) -> (u64, u64) {
        let wanted = self.types.iter().filter(|(name, _, _)| wants(name));
        wanted.fold((0, 0), |sum, (_, objects, bytes)| {
            (sum.0 + objects, sum.1 + bytes)
        })
    }

    /// What of a type that is shown as `name` there can be at most: its module's name may be missing, or all of it.
    fn at_most(&self, name: &str, classes: &[(String, &str)]) -> (u64, u64) {
        if let Some(short) = name.strip_prefix("?.") {
            return self.sum(|known| known.rsplit('.').next() == Some(short));
        }
        let class = classes.iter().find(|(address, _)| name.contains(address));
        match (class, name.contains("name missing")) {
            (Some((_, class)), _) => self.sum(|known| known == *class),
            (None, true) => self.total,
            (None, false) => self.sum(|known| known == name),
        }
    }
}

#[test]
fn what_is_told_of_a_core_file_that_was_cut_is_never_more_than_there_was() {
    let _shared = in_company();
    let by_kernel = kernel_writes_cores();
    for python in Python::all() {
        if python.minor < 8 || python.root.is_some() {
            continue;
        }
        let stage = python.stage();
        let words = python.words(&["-c", MANY]);
        let mut command = Command::new("sh");
        let limited = ["-c", "ulimit -c unlimited; exec \"$@\"", "sh"];
        command.current_dir(stage.path()).args(limited);
        let mut target = Target::start(command.args(&words));
        let classes: Vec<(String, &str)> = target
            .ready
            .split_whitespace()
            .skip(1)
            .map(str::to_string)
            .zip(["__main__.Record", "__main__.Slotted"])
            .collect();
        assert_eq!(classes.len(), 2, "{python}");
        std::thread::sleep(Duration::from_millis(50));
        let pid = target.pid.to_string();
        let truth = Counts::of(&biopsy(&["heap", "summary", &pid, "--json"]).ok().json());
        let mut cores = Vec::new();
        if find_program("gcore").is_some() {
            let made = stage.path().join("made");
            let made = made.to_str().expect("UTF-8");
            run(Command::new("gcore").args(["-o", made, &pid])).ok();
            cores.push((format!("{made}.{pid}"), "gcore"));
        }
        if by_kernel {
            send_signal("ABRT", target.pid);
            target.wait();
            cores.push((core_in(stage.path()), "kernel"));
        }
        for (core, how) in cores {
            assert_cuts(python, &core, how, &truth, &classes);
        }
    }
}

/// Cuts the file shorter and shorter.
fn assert_cuts(python: &Python, core: &str, how: &str, truth: &Counts, classes: &[(String, &str)]) {
    let length = std::fs::metadata(core).expect("there").len();
    let file = File::options().write(true).open(core).expect("ours");
    let mut told = Vec::new();
    let mut cuts: Vec<u64> = (1..20).rev().map(|twentieth| twentieth * 5).collect();
    // gcore's are laid out alike: some of them will do.
    if how == "gcore" {
        cuts = vec![95, 90, 70, 50, 25, rand::rng().random_range(5..95)];
        cuts.sort_unstable_by_key(|percent| std::cmp::Reverse(*percent));
    }
    for percent in std::iter::once(99).chain(cuts) {
        file.set_len(length * percent / 100).expect("cut");
        let found = biopsy(&["heap", "summary", core, "--json"]);
        assert!(
            found.stderr.contains("cut short"),
            "{python}: {}",
            found.stderr
        );
        if found.code() != 0 {
            assert!(
                found.stderr.contains("ulimit -c"),
                "{python}: {}",
                found.stderr
            );
            assert_eq!(found.code(), 1, "{python}, {how}, {percent} %");
            continue;
        }
        let document = found.json();
        assert_eq!(document["lower_bounds"], true);
        assert!(document["doubts"]["missing_bytes"].as_u64() > Some(0));
        let counts = Counts::of(&document);
        for (name, objects, bytes) in &counts.types {
            let most = truth.at_most(name, classes);
            assert!(
                *objects <= most.0 && *bytes <= most.1,
                "{python}, {how}, {percent} %: {name}: {objects}, {bytes} of {most:?}"
            );
        }
        assert!(counts.total.0 <= truth.total.0 && counts.total.1 <= truth.total.1);
        let known = counts.sum(|name| {
            let is_one = |(address, class): &(String, &str)| {
                name == *class
                    || name.contains(address)
                    || name.strip_prefix("?.") == class.get(9..)
            };
            classes.iter().any(is_one)
        });
        told.push((percent, known.0));
        if percent == 90 {
            let text = biopsy(&["heap", "summary", core]).ok().stdout;
            assert!(text.starts_with("what is left of a core file that was cut short: at least "));
            assert!(text.contains(" >="), "{python}: {text}");
            let path = biopsy(&["heap", "path", core, "--type", "list"])
                .ok()
                .stdout;
            assert!(
                path.contains(" × >=") && !path.contains("<C code>"),
                "{python}: {path}"
            );
            for command in ["retained", "caches"] {
                let refused = biopsy(&["heap", command, core]);
                assert_eq!(refused.code(), 1, "{python}: {command}");
                assert!(refused.stderr.contains("cannot tell"), "{}", refused.stderr);
            }
        }
    }
    say(format_args!(
        "{python}, {how}: instances of 40000 told at each cut: {told:?}"
    ));
    let at_95 = told.iter().find(|(percent, _)| *percent == 95);
    assert!(
        at_95.is_some_and(|(_, known)| *known > 20_000),
        "{python}, {how}"
    );
}

#[test]
fn types_that_are_known_by_their_symbols_are_as_the_interpreter_has_them() {
    let _shared = in_company();
    for python in Python::all().iter().filter(|python| python.minor >= 8) {
        let target = python.start(&["-c", "print('ready', flush=True); input()"]);
        let pid = Pid(target.pid);
        let (captured, _) = capture(pid, CaptureOptions::default()).expect("captured");
        let word = |address: u64| {
            let bytes = captured.image.bytes(address, 8);
            bytes.map_or(0, |bytes| {
                u64::from_le_bytes(bytes.try_into().expect("8 bytes"))
            })
        };
        let address = |symbol: &str| locate::symbol(pid, symbol).unwrap_or(0);
        let minor = python.minor;
        let layout = layout::for_version(3, minor).expect("known");
        let mut checked = 0;
        for (kind, basic) in statics::of(minor) {
            let at = address(kind.symbol);
            assert!(at != 0, "{python}: {}", kind.symbol);
            let made = statics::image(&layout, (kind, basic), at, 0, address);
            let made =
                |at: usize| u64::from_le_bytes(made[at..at + 8].try_into().expect("8 bytes"));
            let mut name = [0; 64];
            assert!(captured.image.read(word(at + 24), &mut name));
            let end = name.iter().position(|byte| *byte == 0).expect("an end");
            assert_eq!(&name[..end], kind.name.as_bytes(), "{python}");
            assert_eq!(
                word(at + 168) & statics::FLAGS,
                made(168),
                "{python}: {}",
                kind.name
            );
            // ob_type, tp_basicsize, tp_base
            for offset in [8, 32, 256] {
                assert_eq!(
                    word(at + offset as u64),
                    made(offset),
                    "{python}: {} at {offset}",
                    kind.name
                );
            }
            let is_sized = !["code", "generator"].contains(&kind.name);
            assert!(
                !is_sized || word(at + 40) == made(40),
                "{python}: {}",
                kind.name
            );
            // Nobody derives a class from a function.
            let is_base = kind.name != "function";
            assert!(
                !is_base || word(at + 288) == made(288),
                "{python}: {}",
                kind.name
            );
            checked += 1;
        }
        assert!(checked > 27, "{python}: {checked}");
    }
}

/// Replaces `old` everywhere in a file by `new`, which is as long.
fn replace(path: &Path, old: &str, new: &str) {
    assert_eq!(old.len(), new.len());
    let mut bytes = std::fs::read(path).expect("a core file");
    let mut at = 0;
    while let Some(found) = memchr(&bytes[at..], old.as_bytes()) {
        bytes[at + found..at + found + old.len()].copy_from_slice(new.as_bytes());
        at += found + old.len();
    }
    assert!(at > 0, "{old} is not in the file");
    std::fs::write(path, bytes).expect("written");
}

fn memchr(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|part| part == wanted)
}

/// A core file of a container, as seen from outside of it: its libpython is at a path that leads to nothing here, or to another
/// file.
#[test]
fn a_core_of_other_files_says_which_builds_it_needs() {
    let _shared = in_company();
    if !kernel_writes_cores() {
        return;
    }
    let here = Python::all();
    let mut libraries: Vec<(&Python, String)> = Vec::new();
    for python in here.iter().filter(|python| python.minor >= 8) {
        let target = python.start(&["-c", "print('ready', flush=True); input()"]);
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", target.pid)).expect("maps");
        let mut paths = maps.split_whitespace().filter(|word| {
            word.starts_with('/') && word.contains("/libpython") && python.root.is_none()
        });
        libraries.extend(paths.next().map(|path| (python, path.to_string())));
    }
    let [(python, library), (_, other), ..] = libraries.as_slice() else {
        return not_here("two Pythons with a shared library");
    };
    let stage = python.stage();
    let words = python.words(&["-c", "import os; os.abort()"]);
    let limited = ["-c", "ulimit -c unlimited; \"$@\"; true", "sh"];
    let mut command = Command::new("sh");
    command.current_dir(stage.path()).args(limited).args(&words);
    run(&mut command).ok();
    let path = core_in(stage.path());
    // As long a path, to a folder of ours.
    let name = library.rsplit('/').next().expect("a name");
    let room = library.len() - name.len();
    let folder = format!("/tmp/{}", std::process::id());
    assert!(folder.len() < room, "{library}");
    let folder = format!("{folder:x<width$}", width = room - 1);
    let moved = format!("{folder}/{name}");
    replace(Path::new(&path), library, &moved);
    let refused = biopsy(&["heap", "summary", &path]);
    assert_eq!(refused.code(), 1, "{refused}");
    let absent = format!("{moved} (build id ");
    assert!(
        refused.stderr.contains(&absent) && refused.stderr.contains(") is not on this machine"),
        "{refused}"
    );
    std::fs::create_dir(&folder).expect("a folder");
    std::fs::copy(other, &moved).expect("copied");
    let refused = biopsy(&["heap", "summary", &path]);
    std::fs::remove_dir_all(&folder).expect("ours");
    let replaced =
        format!("{moved} is not the file that the core was made with: that has build id ");
    assert!(
        refused.stderr.contains(&replaced) && refused.stderr.contains(", here is build id "),
        "{refused}"
    );
}
