//! Processes that are not simply one Python that runs: several libpythons, an interpreter inside a C program, trees of
//! processes, exec into another version, rights that are missing, and programs that are no Python.

use crate::common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::{
    Python, Stage, Target, alone, biopsy, biopsy_command, find_program, in_company, is_root,
    not_here, rows, run, run_with,
};

const BUSY: &str = "
import ctypes, os, sys, time
for library in sys.argv[1:]:
    ctypes.CDLL(library)
def busy(end):
    while time.time() < end:
        sum(range(1000))
print('ready', flush=True)
busy(time.time() + 60)
";

/// Where a Python has its shared library, and what it takes to link with it.
struct Library {
    python: &'static Python,
    path: PathBuf,
    include: String,
    name: String,
}

fn libraries() -> Vec<Library> {
    let words = "import sysconfig as s; v = s.get_config_var; print(v('LIBDIR'), v('INSTSONAME'), s.get_paths()['include'], \
                 v('LDVERSION'))";
    let library = |python: &'static Python| {
        let output = python.command(&["-c", words]).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let words: Vec<&str> = text.split_whitespace().collect();
        let [folder, file, include, name] = words[..] else {
            return None;
        };
        let path = Path::new(folder).join(file);
        (python.root.is_none() && file.contains(".so") && path.is_file()).then(|| Library {
            python,
            path,
            include: include.to_string(),
            name: name.to_string(),
        })
    };
    Python::all().iter().filter_map(library).collect()
}

fn pid_of(target: &Target) -> String {
    target.pid.to_string()
}

#[test]
fn of_several_libpythons_the_living_one_is_read() {
    let _shared = in_company();
    let libraries = libraries();
    for (at, library) in libraries.iter().enumerate() {
        let python = library.python;
        let stage = python.stage();
        let script = stage.put("busy.py", BUSY);
        // A copy of its own, an older one and a newer one.
        for (other_at, other) in libraries.iter().enumerate() {
            if other_at.abs_diff(at) > 1 {
                continue;
            }
            let copy = stage.path().join(format!("libpython3.copy-{other_at}.so"));
            fs::copy(&other.path, &copy).expect("copied");
            let target = python.start(&[&script, copy.to_str().expect("UTF-8")]);
            let pid = pid_of(&target);
            let ran = biopsy(&["dump", "--json", &pid]).ok();
            let json = ran.json();
            assert_eq!(
                json["python"],
                python.version.as_str(),
                "{}{ran}",
                other.python
            );
            let frames = json["threads"][0]["frames"].as_array().expect("frames");
            assert!(frames.iter().any(|frame| frame["name"] == "busy"), "{ran}");
            let ran = biopsy(&["attach", &pid, "-d", "0.3", "-f", "json"]).ok();
            assert_eq!(ran.json()["python"], python.version.as_str(), "{ran}");
            if python.minor >= 8 {
                biopsy(&["heap", "summary", &pid]).ok();
            }
            if python.minor < 8 {
                assert!(ran.stderr.contains("read by py-spy's reader"), "{ran}");
            }
        }
    }
}

const IDLE: &str = r#"
#include <Python.h>
#include <stdio.h>
#include <unistd.h>
int main(void) {
    Py_Initialize();
    PyRun_SimpleString("class Emb: pass\nHELD = [Emb() for _ in range(55)]\n");
    puts("ready");
    fflush(stdout);
    sleep(60);
    return 0;
}
"#;

/// Compiles a C program that embeds a Python.
fn embedder(library: &Library, stage: &Stage, text: &str) -> Option<PathBuf> {
    let source = stage.put("embedder.c", text);
    let program = stage.path().join("embedder");
    let folder = library.path.parent()?.to_str()?;
    let output = Command::new(find_program("cc")?)
        .args([&source, "-o", program.to_str()?])
        .arg(format!("-I{}", library.include))
        .args([format!("-L{folder}"), format!("-lpython{}", library.name)])
        .arg(format!("-Wl,-rpath,{folder}"))
        .output()
        .ok()?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{}: {error}", library.python);
    Some(program)
}

#[test]
fn an_interpreter_that_is_in_c_is_idle() {
    let _shared = in_company();
    for library in libraries() {
        let python = library.python;
        let stage = python.stage();
        let Some(program) = embedder(&library, &stage, IDLE) else {
            not_here("a C compiler");
            return;
        };
        let target = Target::start(&mut Command::new(program));
        let pid = pid_of(&target);
        for _ in 0..3 {
            let ran = biopsy(&["dump", &pid]).ok();
            assert!(ran.stdout.contains("(idle"), "{python}{ran}");
        }
        if python.minor >= 8 {
            let ran = biopsy(&["heap", "objects", &pid, "--type", "*Emb"]).ok();
            assert!(ran.stdout.lines().count() >= 55, "{python}{ran}");
        }
        let names = [
            "a.prof",
            "callgrind.out.a",
            "a.svg",
            "a.collapsed",
            "a.speedscope.json",
            "a.gecko.json",
            "a.pb.gz",
            "a.html",
            "a.json",
            "a.biopsy",
        ];
        let paths: Vec<String> = names.iter().map(|name| stage.inside(name)).collect();
        let mut words = vec!["attach", &pid, "-d", "0.2"];
        words.extend(paths.iter().flat_map(|path| ["-o", path]));
        let ran = biopsy(&words).ok();
        assert!(
            ran.stderr.contains("no thread was in Python code"),
            "{python}{ran}"
        );
        for path in &paths {
            assert!(Path::new(path).is_file(), "{path}{ran}");
        }
        let words = "import pstats, sys; pstats.Stats(sys.argv[1]).print_stats()";
        let ran = run(&mut python.command(&["-c", words, &paths[0]])).ok();
        assert!(
            ran.stdout.contains("0 function calls in 0.000 seconds"),
            "{ran}"
        );
        let words = "import sys, json, xml.dom.minidom as x; x.parse(sys.argv[1]); json.load(open(sys.argv[2]))['profiles'][0]";
        run(&mut python.command(&["-c", words, &paths[2], &paths[4]])).ok();
        for path in [&paths[0], &paths[9]] {
            let ran = biopsy(&["report", path]).ok();
            assert!(ran.stdout.contains("0 function calls"), "{ran}");
        }
    }
}

/// Python now and then, as a server in C does for its requests: a third of the CPU time is C's.
const VISITS: &str = r#"
#include <Python.h>
#include <poll.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>
static double now(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}
int main(void) {
    Py_Initialize();
    PyRun_SimpleString("def work():\n    x = 0\n    for i in range(6000):\n        x += i\n");
    PyObject *work = PyObject_GetAttrString(PyImport_AddModule("__main__"), "work");
    struct pollfd in = {0, POLLIN, 0};
    char line[64];
    double used = 0;
    puts("ready");
    fflush(stdout);
    for (;;) {
        double from = now(CLOCK_THREAD_CPUTIME_ID);
        Py_XDECREF(PyObject_CallObject(work, NULL));
        double to = now(CLOCK_THREAD_CPUTIME_ID);
        used += to - from;
        while (now(CLOCK_THREAD_CPUTIME_ID) < to + (to - from) / 2) {
        }
        usleep(500);
        if (poll(&in, 1, 0) > 0) {
            if (!fgets(line, sizeof line, stdin))
                return 0;
            printf("%f %f\n", used, now(CLOCK_MONOTONIC));
            fflush(stdout);
        }
    }
}
"#;

#[test]
fn cpu_time_of_a_thread_that_is_in_python_now_and_then() {
    let _alone = alone();
    for library in libraries() {
        let python = library.python;
        let stage = python.stage();
        let Some(program) = embedder(&library, &stage, VISITS) else {
            not_here("a C compiler");
            return;
        };
        let mut target = Target::start(&mut Command::new(program));
        let pid = pid_of(&target);
        let mut told = || {
            target.tell("");
            let line = target.line();
            let mut numbers = line.split(' ').map(|one| one.trim().parse::<f64>());
            let mut next = || numbers.next().expect("a number").expect("a number");
            (next(), next())
        };
        let before = told();
        let words = ["attach", &pid, "-d", "1.5", "--mode", "cpu", "-f", "json"];
        let found = biopsy(&words).ok().json();
        let after = told();
        let truth = (after.0 - before.0) / (after.1 - before.1);
        let number = |name: &str| found[name].as_f64().expect("a number");
        let rate = number("total_tottime_s") / number("duration_s");
        common::say(format_args!(
            "  {python}: {rate:.3} of a CPU, {truth:.3} by its own clock"
        ));
        assert!(
            (rate / truth - 1.0).abs() < 0.3,
            "{python}: {rate} and not {truth}"
        );
    }
}

#[test]
fn a_mode_in_which_nothing_counts_is_told() {
    let _shared = in_company();
    let python = Python::any();
    let stage = python.stage();
    let script = stage.put(
        "naps.py",
        "import time\nprint('ready', flush=True)\ntime.sleep(60)\n",
    );
    let target = python.start(&[&script]);
    let ran = biopsy(&["attach", &pid_of(&target), "-d", "0.3", "--mode", "cpu"]).ok();
    assert!(
        ran.stderr
            .contains("none of the samples counts in --mode cpu"),
        "{ran}"
    );
}

#[test]
fn after_an_exec_the_version_is_the_new_one() {
    let _alone = alone();
    let mut pythons = Python::all()
        .iter()
        .filter(|python| python.minor >= 8 && python.root.is_none());
    let (Some(old), Some(new)) = (pythons.next(), pythons.next_back()) else {
        not_here("two versions of Python");
        return;
    };
    let text = "
import os, sys, time
class Rec: pass
HELD = [Rec() for _ in range(5000)]
print('ready', flush=True)
def work(end):
    while time.time() < end: sum(range(1000))
work(time.time() + 2)
if len(sys.argv) > 1: os.execv(sys.argv[1], [sys.argv[1], '-c', open(sys.argv[0]).read().replace('+ 2', '+ 20').replace('5000', '50')])
";
    let stage = old.stage();
    let script = stage.put("execs.py", text);
    let start = || old.start(&[&script, &new.command[0]]);
    let target = start();
    let ran = biopsy(&["attach", &pid_of(&target), "-d", "4", "-f", "json"]).ok();
    assert_eq!(ran.json()["python"], new.version.as_str(), "{ran}");
    assert_eq!(ran.json()["processes"][0]["python"], new.version.as_str());
    // One program after the other has a GIL.
    assert!(!ran.stderr.contains("GILs of their own"), "{ran}");
    let target = start();
    let watched = ["heap", "watch", &pid_of(&target), "-e", "1", "-c", "4"];
    let ran = biopsy(&watched).ok();
    assert!(ran.stderr.contains("has called exec"), "{ran}");
    // No difference is between two programs.
    assert!(
        !ran.stdout.contains("-5000") && !ran.stdout.contains("-4950"),
        "{ran}"
    );
    assert!(
        ran.stdout.contains(&format!("Python {}", new.version)),
        "{ran}"
    );
}

const TREE: &str = "
import subprocess, sys, time
child = subprocess.Popen([sys.executable, '-c', 'import time\\nprint(1, flush=True)\\ndef child_work(end):\\n  while time.time() < end: sum(range(1000))\\nchild_work(time.time() + 60)'], stdout=subprocess.PIPE)
child.stdout.readline()
print('ready', child.pid, flush=True)
def parent_work(end):
    while time.time() < end: sum(range(1000))
parent_work(time.time() + 60)
";

#[test]
fn a_whole_tree_is_dumped() {
    let _shared = in_company();
    for python in Python::all() {
        let stage = python.stage();
        let script = stage.put("tree.py", TREE);
        let target = python.start(&[&script]);
        let ran = biopsy(&["dump", "--subprocesses", &pid_of(&target)]).ok();
        for name in ["parent_work", "child_work"] {
            assert!(ran.stdout.contains(name), "{python}{ran}");
        }
        let ran = biopsy(&["dump", "--subprocesses", "--json", &pid_of(&target)]).ok();
        let documents = serde_json::Deserializer::from_str(&ran.stdout);
        let pids: Vec<i64> = documents
            .into_iter::<serde_json::Value>()
            .map(|document| document.expect("JSON")["pid"].as_i64().expect("a number"))
            .collect();
        assert_eq!(pids.len(), 2, "{python}{ran}");
        assert_eq!(pids[0], i64::from(target.pid), "{python}{ran}");
    }
}

#[test]
fn the_duration_holds_where_the_root_cannot_be_read() {
    let _shared = in_company();
    let python = Python::any();
    let stage = python.stage();
    let script = stage.put("tree.py", TREE);
    let shell = format!("{} {script}; true", python.command.join(" "));
    let target = Target::start(Command::new("sh").args(["-c", &shell]));
    let words = ["attach", &pid_of(&target), "--subprocesses", "-d", "1"];
    let ran = run_with(&mut biopsy_command(&words), b"", Duration::from_secs(20)).ok();
    assert!(
        ran.stderr.contains("only its children are followed"),
        "{ran}"
    );
    assert!(
        ran.stdout.contains("parent_work") && ran.stdout.contains("child_work"),
        "{ran}"
    );
    let target = Target::start(Command::new("sh").args(["-c", "echo ready; sleep 60; true"]));
    let words = ["attach", &pid_of(&target), "--subprocesses", "-d", "1"];
    let ran = run_with(&mut biopsy_command(&words), b"", Duration::from_secs(20)).expect_code(1);
    assert!(ran.stderr.contains("not a Python process"), "{ran}");
}

#[test]
fn daemons_are_followed_and_what_goes_on_is_named() {
    let _shared = in_company();
    let python = Python::any();
    let stage = python.stage();
    let text = "
import os, time
def daemon_work(end):
    while time.time() < end: sum(range(1000))
def front_work(end):
    while time.time() < end: sum(range(1000))
pid = os.fork()
if not pid:
    os.setsid()
    if os.fork(): os._exit(0)
    daemon_work(time.time() + DAEMON)
    os._exit(0)
os.waitpid(pid, 0)
front_work(time.time() + 2)
";
    for (seconds, outlives) in [("1.5", false), ("5", true)] {
        let script = stage.put("daemon.py", &text.replace("DAEMON", seconds));
        let mut words = vec!["run", "--subprocesses", "--"];
        let program = python.words(&[&script]);
        words.extend(program.iter().map(String::as_str));
        let ran = biopsy(&words).ok();
        let rows = rows(&ran.stdout);
        for name in ["daemon_work", "front_work"] {
            let row = rows.iter().find(|row| row.function.contains(name));
            assert!(row.is_some_and(|row| row.cumtime > 1.0), "{name}{ran}");
        }
        assert_eq!(ran.stderr.contains("goes on after"), outlives, "{ran}");
    }
}

#[test]
fn why_nothing_was_sampled_is_told() {
    let _alone = alone();
    let python = Python::any();
    let shell = format!(
        "{} -c 'import time; time.sleep(0.7)'; true",
        python.command.join(" ")
    );
    let ran = biopsy(&["run", "--", "sh", "-c", &shell]).ok();
    assert!(ran.stderr.contains("is not a Python process"), "{ran}");
    assert!(ran.stderr.contains("add --subprocesses"), "{ran}");
    let ran = biopsy(&["run", "--subprocesses", "--", "sh", "-c", &shell]).ok();
    assert!(!ran.stderr.contains("not a Python"), "{ran}");
    let words = format!(
        "{} -c 'print(\"ready\", flush=True); import time; time.sleep(60)'; true",
        python.command.join(" ")
    );
    let target = Target::start(Command::new("sh").args(["-c", &words]));
    for command in ["attach", "dump"] {
        let ran = biopsy(&[command, &pid_of(&target)]).refused(1, "is not a Python process");
        assert!(ran.stderr.contains("which it started, is one"), "{ran}");
    }
    drop(target);
    for _ in 0..50 {
        let ran = biopsy(&["run", "-q", "--", "true"]).ok();
        assert_eq!(ran.stderr, "", "{ran}");
    }
    match find_program("python2.7") {
        Some(old) if run(Command::new(&old).arg("-V")).code() == 0 => {
            let old = old.to_str().expect("UTF-8");
            let words = ["run", "--", old, "-c", "import time; time.sleep(0.5)"];
            let ran = biopsy(&words).ok();
            assert!(ran.stderr.contains("Python 2.7"), "{ran}");
            assert!(ran.stderr.contains("not supported"), "{ran}");
        }
        _ => not_here("python 2.7"),
    }
}

#[test]
fn what_may_not_be_read_is_listed() {
    let _shared = in_company();
    let python = Python::any();
    let as_nobody = |words: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        command.arg(env!("CARGO_BIN_EXE_biopsy")).args(words);
        run(&mut command)
    };
    if !is_root() || find_program("setpriv").is_none() || as_nobody(&["--version"]).code() != 0 {
        not_here("root and a place where another user can start biopsy");
        return;
    }
    let stage = python.stage();
    let script = stage.put("tree.py", TREE);
    let target = python.start(&[&script]);
    let ran = as_nobody(&["ps", "--json"]).ok();
    let json = ran.json();
    let processes = json["processes"].as_array().expect("a list");
    let found = processes
        .iter()
        .find(|process| process["pid"] == target.pid);
    assert_eq!(found.expect("listed")["note"], "not permitted", "{ran}");
    let pid = pid_of(&target);
    as_nobody(&["attach", "-d", "1", "--name", &script]).refused(1, "not permitted");
    let ran = as_nobody(&["attach", &pid, "--subprocesses", "-d", "1"]).expect_code(1);
    assert!(ran.stderr.contains("is left out: not permitted"), "{ran}");
    assert!(ran.stderr.contains("another user"), "{ran}");
}

/// Starts each of the libpythons that it is given.
const TWO: &str = r#"
#include <dlfcn.h>
#include <stdio.h>
#include <unistd.h>
int main(int argc, char **argv) {
    for (int at = 1; at < argc; at++) {
        void *library = dlopen(argv[at], RTLD_NOW | RTLD_LOCAL | 8 /* RTLD_DEEPBIND */);
        if (!library) return 1;
        ((void (*)(void))dlsym(library, "Py_Initialize"))();
    }
    puts("ready");
    fflush(stdout);
    sleep(60);
    return 0;
}
"#;

#[test]
fn a_second_python_that_is_alive_is_told() {
    let _shared = in_company();
    let (Some(compiler), libraries) = (find_program("cc"), libraries()) else {
        return not_here("a C compiler");
    };
    for pair in libraries.windows(2) {
        let [one, other] = pair else { continue };
        if one.python.minor < 8 || one.python.root.is_some() || other.python.root.is_some() {
            continue;
        }
        let stage = one.python.stage();
        let source = stage.put("two.c", TWO);
        let program = stage.path().join("two");
        let made = Command::new(&compiler)
            .args([&source, "-o", program.to_str().expect("UTF-8"), "-ldl"])
            .status()
            .expect("compiled");
        assert!(made.success());
        let mut command = Command::new(&program);
        let target = Target::start(command.args([&one.path, &other.path]));
        let pid = pid_of(&target);
        for words in [
            &["dump", &pid][..],
            &["heap", "summary", &pid],
            &["heap", "path", &pid, "--type", "dict"],
        ] {
            let ran = biopsy(words).ok();
            let versions = [&one.python.version, &other.python.version];
            let said = versions.iter().any(|version| {
                ran.stderr.contains(&format!(
                    "runs a second Python in it: {version} is not read"
                ))
            });
            assert!(said, "{} and {}: {ran}", one.python, other.python);
        }
    }
}
