//! Processes of unusual kinds: names that are no UTF-8, forks that Python does not know of.

use crate::common;

use std::process::Command;

use common::{
    Python, Target, alone, biopsy, biopsy_command, find_program, in_company, is_root, not_here, run,
};
use serde_json::Value;

/// CPU time of all threads of a process, seconds, by the kernel's count.
fn cpu_s(pid: i32) -> f64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let used = |task: std::fs::DirEntry| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    };
    tasks.flatten().filter_map(used).sum::<f64>() / 1e9
}

/// Samples `pid` for its CPU time; fails when that is not what the kernel counts.
#[track_caller]
fn cpu_time_is_right(what: &str, pid: i32) -> Value {
    let before = cpu_s(pid);
    let id = pid.to_string();
    let profile = biopsy(&[
        "attach", &id, "-d", "0.6", "--mode", "cpu", "-f", "json", "-q",
    ])
    .ok();
    let most = cpu_s(pid) - before;
    let profile = profile.json();
    let seconds = |field: &str| profile[field].as_f64().expect("a number");
    // What was used before the first sample and after the last one is not in the recording.
    let share = seconds("duration_s");
    let (found, least) = (
        seconds("total_tottime_s"),
        0.6 * most * share.min(1.0) - 0.05,
    );
    assert!(
        (least..=1.1 * most + 0.05).contains(&found),
        "{what}: {found} s of {most} s"
    );
    profile
}

/// A program in a PID namespace of its own; `None` where that cannot be made. Its id, as we have it, is with it.
fn in_namespace(python: &Python, arguments: &[&str]) -> Option<(Target, i32)> {
    if !is_root() || find_program("unshare").is_none() {
        not_here("a PID namespace of our own");
        return None;
    }
    let mut command = Command::new("unshare");
    command.args(["-pf", "--mount-proc"]);
    command.args(python.words(arguments));
    let target = Target::start(&mut command);
    let children = format!("/proc/{pid}/task/{pid}/children", pid = target.pid);
    let children = std::fs::read_to_string(children).expect("it runs");
    let inside = children.trim().parse().expect("one child");
    Some((target, inside))
}

#[test]
fn names_of_threads_need_not_be_text() {
    let _alone = alone();
    for python in Python::all() {
        let stage = python.stage();
        let program = [&stage.fixture("odd_names.py"), "threads"];
        let mut target = python.start(&program);
        cpu_time_is_right(&python.to_string(), target.pid);
        biopsy(&["dump", &target.pid.to_string(), "--blocking"]).ok();
        target.assert_free();
        drop(target);
        if let Some((_target, inside)) = in_namespace(python, &program) {
            cpu_time_is_right(&format!("{python} in a namespace"), inside);
            let dump = biopsy(&["dump", &inside.to_string(), "--json"]).ok().json();
            for thread in dump["threads"].as_array().expect("threads") {
                let task = format!("/proc/{inside}/task/{}", thread["os_id"]);
                assert!(std::path::Path::new(&task).exists(), "{python}: {thread}");
                assert_ne!(thread["state"], "unknown", "{python}: {thread}");
            }
        }
    }
}

#[test]
fn a_mapped_file_may_have_any_name() {
    let _shared = in_company();
    for python in Python::all() {
        let stage = python.stage();
        let mut target = python.start(&[&stage.fixture("odd_names.py"), "file"]);
        let pid = target.pid.to_string();
        let listed = biopsy(&["ps", "--json"]).ok().json();
        let processes = listed["processes"].as_array().expect("processes");
        let ours = processes
            .iter()
            .find(|process| process["pid"] == target.pid);
        assert_eq!(ours.expect("listed")["python"], python.version.as_str());
        let words = "whose name is no UTF-8: ";
        // py-spy's reader, which takes no such process.
        biopsy(&["dump", &pid, "--locals"]).refused(1, words);
        if python.minor < 8 {
            biopsy(&["dump", &pid]).refused(1, words);
            continue;
        }
        let dump = biopsy(&["dump", &pid]).ok();
        assert!(dump.stdout.contains("burn"), "{dump}");
        let table = biopsy(&["attach", &pid, "-d", "0.4", "-q"]).ok();
        assert!(table.stdout.contains("(burn)"), "{table}");
        biopsy(&["heap", "summary", &pid]).ok();
        target.assert_free();
    }
}

#[test]
fn a_fork_that_python_does_not_know_of_has_threads_of_its_own() {
    let _alone = alone();
    for python in Python::all() {
        let stage = python.stage();
        let program = stage.fixture("forked.py");
        for arguments in [&[program.as_str()][..], &[&program, "threads"]] {
            let target = python.start(arguments);
            let child = target.ready.split(' ').nth(1).expect("the child");
            let child: i32 = child.parse().expect("a number");
            cpu_time_is_right(&format!("{python} {arguments:?}"), child);
            for options in [&["--json"][..], &["--json", "--blocking"]] {
                let id = child.to_string();
                let dump = biopsy(&[&["dump", &id], options].concat()).ok().json();
                let threads = dump["threads"].as_array().expect("threads");
                assert_eq!(threads.len(), if arguments.len() == 1 { 1 } else { 3 });
                for thread in threads {
                    if thread["frames"][0]["name"] == "burn" {
                        assert_eq!(thread["os_id"], child, "{python}: {thread}");
                        assert_ne!(thread["state"], "unknown", "{python}: {thread}");
                    } else {
                        assert_eq!(thread["os_id"], Value::Null, "{python}: {thread}");
                        assert_eq!(thread["state"], "unknown", "{python}: {thread}");
                    }
                }
            }
            if arguments.len() > 1 && python.minor >= 8 {
                let table = biopsy(&["attach", &child.to_string(), "-d", "0.4"]).ok();
                assert!(!table.stdout.contains("(doze)"), "{python}{table}");
                let note = "2 stacks were left out whose threads are none of the process";
                assert!(table.stderr.contains(note), "{python}{table}");
            }
        }
    }
}

/// A thread for each request, as `ThreadingHTTPServer` and Django's runserver have; they come at random.
const SHORT_THREADS: &str = "
import random, select, sys, threading, time
used = 0.0
def work():
    global used
    begin = time.thread_time()
    number = 0
    for one in range(8000):
        number += one
    used += time.thread_time() - begin
print('ready', flush=True)
while True:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    time.sleep(random.uniform(0.0001, 0.0015))
    if select.select([sys.stdin], [], [], 0)[0]:
        sys.stdin.readline()
        print(used, time.process_time(), time.monotonic(), flush=True)
";

#[test]
fn threads_that_end_before_they_are_seen_twice_have_their_cpu_time() {
    let _alone = alone();
    for python in Python::all().iter().filter(|python| python.minor >= 8) {
        let mut target = python.start(&["-c", SHORT_THREADS]);
        let pid = target.pid.to_string();
        let mut told = || {
            target.tell("");
            let line = target.line();
            let mut numbers = line
                .split_ascii_whitespace()
                .map(|one| one.parse::<f64>().expect("a number"));
            [0; 3].map(|_| numbers.next().expect("three numbers"))
        };
        // Beside busy CPUs there are fewer samples, and more threads that none finds.
        for burners in [0, 2] {
            let burners: Vec<Target> = (0..burners)
                .map(|_| python.start(&["-c", "print('ready', flush=True)\nwhile True: pass"]))
                .collect();
            let before = told();
            let words = [
                "attach", &pid, "-d", "1", "--mode", "cpu", "-f", "json", "-q",
            ];
            let profile = biopsy(&words).ok().json();
            let after = told();
            let per_second = |at: usize| (after[at] - before[at]) / (after[2] - before[2]);
            let duration = profile["duration_s"].as_f64().expect("a number");
            let functions = profile["functions"].as_array().expect("functions");
            let time_of = |name: &str| -> f64 {
                let rows = functions.iter().filter(|one| one["name"] == name);
                let times = rows.filter_map(|one| one["cumtime_s"].as_f64());
                times.sum::<f64>() / duration
            };
            let (work, unsampled) = (time_of("work"), time_of("<unsampled threads>"));
            let all = profile["total_tottime_s"].as_f64().expect("a number") / duration;
            let (own, own_all) = (per_second(0), per_second(1));
            common::say(format_args!(
                "  {python}, {} beside it: work {work:.3} of a CPU, {own:.3} by the threads' clocks; all {all:.3}, {own_all:.3} by \
                 the process's, {unsampled:.3} of unsampled threads",
                burners.len()
            ));
            if burners.is_empty() {
                assert!((work / own - 1.0).abs() < 0.35, "{python}");
            }
            // The kernel's count has all of them; what was asked for is a little longer than what was sampled.
            assert!((0.85..1.15).contains(&(all / own_all)), "{python}");
        }
    }
}

#[test]
fn interpreters_of_one_process_are_told_apart() {
    let _alone = alone();
    for python in Python::all().iter().filter(|python| python.minor >= 8) {
        let stage = python.stage();
        // One GIL for all up to 3.11: two threads of them would hardly let a third one start.
        let count = if python.minor >= 12 { 2 } else { 1 };
        let program = stage.fixture("subinterpreters.py");
        let mut target = python.start(&[&program, &count.to_string()]);
        let pid = target.pid.to_string();
        let is_burning = || {
            let dump = biopsy(&["dump", &pid]).ok().stdout;
            (1..=count).all(|number| dump.contains(&format!("burn_in_{number} ")))
        };
        common::wait_until("all burn", is_burning);
        for options in [&["--json"][..], &["--json", "--blocking"]] {
            let dump = biopsy(&[&["dump", &pid], options].concat()).ok().json();
            let threads = dump["threads"].as_array().expect("threads");
            assert_eq!(threads.len(), count + 1, "{python}: {dump:#}");
            for number in 1..=count {
                let name = format!("T{number}");
                let thread = threads
                    .iter()
                    .find(|thread| thread["name"] == name.as_str());
                let thread = thread.unwrap_or_else(|| panic!("{python}: {dump:#}"));
                let frames = thread["frames"].as_array().expect("frames");
                let names = frames.iter().filter_map(|frame| frame["name"].as_str());
                let ours = |name: &&str| {
                    name.starts_with("burn") || name.starts_with('<') || *name == "enter"
                };
                let names: Vec<&str> = names.filter(ours).collect();
                let burns = format!("burn_in_{number}");
                let interpreter = format!("<interpreter {number}>");
                let expected = [burns.as_str(), "<module>", &interpreter, "enter"];
                let at = names.iter().position(|name| *name == burns);
                assert_eq!(
                    names.get(at.expect("it burns")..),
                    Some(&expected[..]),
                    "{python}"
                );
            }
        }
        let profile = cpu_time_is_right(&python.to_string(), target.pid);
        let functions = profile["functions"].as_array().expect("functions");
        let cumtime = |name: &str| {
            let found = functions.iter().find(|function| function["name"] == name);
            found
                .and_then(|function| function["cumtime_s"].as_f64())
                .unwrap_or(0.0)
        };
        let total = profile["total_tottime_s"].as_f64().expect("a number");
        for number in 1..=count {
            let share = cumtime(&format!("<interpreter {number}>")) / total;
            let fair = 1.0 / count as f64;
            assert!(
                (share - fair).abs() < 0.25 * fair,
                "{python}: {number} has {share}"
            );
            let burnt = cumtime(&format!("burn_in_{number}"));
            assert!(burnt > 0.9 * share * total, "{python}: {burnt} s");
            let class = format!("*.OnlyIn{number}");
            let path = biopsy(&["heap", "path", &pid, "--type", &class]).ok();
            let begins = format!("<interpreter {number}>.__main__");
            assert!(path.stdout.contains(&begins), "{python}{path}");
        }
        let held = biopsy(&["heap", "retained", &pid, "--limit", "100"]).ok();
        assert!(
            held.stdout.contains("  <interpreter 1>.os"),
            "{python}{held}"
        );
        assert!(held.stdout.contains("  os"), "{python}{held}");
        target.assert_free();
    }
}

const DIES: &str = "
import os, sys, threading, time
def spin():
    while True:
        end = time.thread_time() + 0.02
        while time.thread_time() < end: pass
        time.sleep(0.03)
for _ in range(3):
    threading.Thread(target=spin, daemon=True).start()
time.sleep(0.8)
print(time.process_time(), flush=True)
if sys.argv[1] == 'exit': os._exit(0)
os.kill(os.getpid(), 15)
";

/// Threads that the last sample saw and that ended before the kernel was asked have their time once.
#[test]
fn threads_that_die_with_their_process_are_counted_once() {
    let _alone = alone();
    for python in Python::all().iter().filter(|python| python.minor >= 8) {
        let stage = python.stage();
        let script = stage.put("dies.py", DIES);
        for how in ["exit", "kill"] {
            let file = stage.path().join("dies.json");
            let file = file.to_str().expect("UTF-8");
            let words = ["run", "-q", "--mode", "cpu", "-o", file, "--"].map(str::to_string);
            let words = [words.to_vec(), python.words(&[&script, how])].concat();
            let ran = run(&mut biopsy_command(&words));
            let own: f64 = ran.stdout.trim().parse().expect("seconds");
            let text = std::fs::read_to_string(file).expect("written");
            let document: Value = serde_json::from_str(&text).expect("JSON");
            let seconds = document["total_tottime_s"].as_f64().expect("seconds");
            assert!(
                (0.8..1.1).contains(&(seconds / own)),
                "{python} {how}: {seconds} of {own} {ran}"
            );
        }
    }
}
