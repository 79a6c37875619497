//! Targets that die, become others, stand still, are held by a debugger, run on CPUs that are closed to us, or write
//! nonsense into what is read, in the middle of sampling: no crash, no hang, and what could not be read is counted.

use crate::common;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::{
    Python, Ran, Running, alone, biopsy, biopsy_command, find_program, in_company, not_here, run,
    send_signal, tracer,
};

/// How long biopsy samples, and the most that it may take for that.
const SECONDS: &str = "0.8";
const PATIENCE: Duration = Duration::from_secs(20);

/// Most memory that biopsy may map, KiB.
const MOST_KIB: u32 = 4_000_000;

/// What a target does after it said `ready`; each goes on for two seconds at least, unless it ends.
const DEEDS: [(&str, &str); 7] = [
    ("dies", "time.sleep(0.5); os.kill(os.getpid(), 9)"),
    ("ends", "work(0.5)"),
    (
        "execs",
        "work(0.5); os.execv(sys.executable, [sys.executable, '-c', \
         'import time\\nend = time.time() + 2\\nwhile time.time() < end: pass'])",
    ),
    (
        "execs no Python",
        "work(0.5); os.execv('/bin/sleep', ['sleep', '2'])",
    ),
    (
        "forks",
        "
for _ in range(40):
    pid = os.fork()
    if pid == 0:
        work(0.01)
        os._exit(0)
    os.waitpid(pid, 0)
    work(0.03)
",
    ),
    (
        "loads modules",
        "
import importlib, pkgutil
work(0.3)
for module in list(pkgutil.iter_modules())[:160]:
    if module.name not in ('antigravity', 'this', 'idlelib', 'turtle', '__main__', 'turtledemo', 'tkinter'):
        try:
            importlib.import_module(module.name)
        except BaseException:
            pass
work(1)
",
    ),
    (
        "makes code and frees it",
        "
end = time.time() + 2
while time.time() < end:
    space = {}
    exec('def made():\\n' + '    sum(range(50))\\n' * 20, space)
    space['made']()
",
    ),
];

const PROGRAM: &str = "
import os, sys, time
def work(seconds):
    end = time.time() + seconds
    while time.time() < end:
        sum(range(100))
print('ready', flush=True)
";

/// Samples `pid`, with bounds on memory.
fn sample(pid: i32, options: &[&str], out: &std::path::Path) -> Ran {
    let biopsy = biopsy_command(&["attach"]);
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("ulimit -v {MOST_KIB}; exec \"$0\" \"$@\"")])
        .arg(biopsy.get_program())
        .args([
            "attach",
            &pid.to_string(),
            "-q",
            "-r",
            "1000",
            "-d",
            SECONDS,
        ])
        .args(options)
        .arg("-o")
        .arg(out);
    let started = Instant::now();
    let ran = run(&mut command);
    assert!(started.elapsed() < PATIENCE, "{ran}");
    assert!(!ran.stderr.contains("panicked"), "{ran}");
    assert!(ran.code() <= 8, "{ran}");
    ran
}

/// Samples that were taken and given up.
fn counts(out: &std::path::Path) -> (u64, u64) {
    let text = std::fs::read_to_string(out).expect("a result");
    let result: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let number = |key: &str| result[key].as_u64().expect("a number");
    (number("samples"), number("given_up"))
}

#[test]
fn whatever_a_target_does_meanwhile_is_survived() {
    let _company = in_company();
    let folder = tempfile::tempdir().expect("a folder");
    for python in Python::all().iter().filter(|python| python.minor >= 8) {
        for (name, deed) in DEEDS {
            let target = python.start(&["-c", &format!("{PROGRAM}{deed}")]);
            let out = folder.path().join("out.json");
            let ran = sample(target.pid, &[], &out);
            let (samples, given_up) = counts(&out);
            common::say(format_args!(
                "{} {name}: {samples} samples, {given_up} given up, {:.2?}, code {}",
                python.version,
                ran.took,
                ran.code()
            ));
            assert!(samples > 50, "{} {name}{ran}", python.version);
        }
    }
}

#[test]
fn a_target_that_writes_nonsense_does_no_harm() {
    let _company = in_company();
    let folder = tempfile::tempdir().expect("a folder");
    for python in Python::all().iter().filter(|python| python.minor >= 8) {
        let stage = python.stage();
        let program = stage.fixture("hostile.py");
        let interrupts = ["--reader", "interrupt"];
        for (seed, options) in [("1", &[][..]), ("2", &[]), ("3", &[]), ("4", &interrupts)] {
            let target = python.start(&[&program, seed]);
            let out = folder.path().join("out.json");
            let ran = sample(target.pid, options, &out);
            let (samples, given_up) = counts(&out);
            common::say(format_args!(
                "{} hostile {seed}: {samples} samples, {given_up} given up, {:.2?}, code {}",
                python.version,
                ran.took,
                ran.code()
            ));
        }
    }
}

#[test]
fn a_target_that_is_stopped_or_debugged_stays_so() {
    let _company = in_company();
    let folder = tempfile::tempdir().expect("a folder");
    let python = Python::any();
    let strace = find_program("strace");
    if strace.is_none() {
        not_here("strace");
    }
    for debugged in [false, true] {
        let target = python.start(&["-c", &format!("{PROGRAM}work(60)")]);
        let pid = target.pid;
        let mut debugger = None;
        let meanwhile = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(250));
            if !debugged {
                send_signal("STOP", pid);
                std::thread::sleep(Duration::from_millis(300));
                assert_eq!(common::state(pid), Some('T'));
                send_signal("CONT", pid);
            }
        });
        if let (true, Some(strace)) = (debugged, &strace) {
            let mut command = Command::new(strace);
            command.args(["-f", "-o", "/dev/null", "-p", &pid.to_string()]);
            command.stderr(std::process::Stdio::null());
            debugger = Some(command.spawn().expect("strace"));
            common::wait_until("strace traces", || tracer(pid) != Some(0));
        }
        let out = folder.path().join("out.json");
        sample(pid, &[], &out).ok();
        meanwhile.join().expect("stopped and continued");
        let (samples, given_up) = counts(&out);
        common::say(format_args!(
            "debugged {debugged}: {samples} samples, {given_up} given up"
        ));
        assert!(samples > 100);
        if let Some(mut debugger) = debugger {
            assert_eq!(tracer(pid), Some(debugger.id() as i32));
            send_signal("INT", debugger.id() as i32);
            let _ = debugger.wait();
        }
    }
}

/// A cpuset with one CPU, where this machine lets us make one (cpuset(7); both kinds of control groups).
struct Cpuset(PathBuf);

impl Cpuset {
    fn new(cpu: u32) -> Option<Cpuset> {
        let name = format!("biopsy-test-{}-{cpu}", std::process::id());
        for root in ["/sys/fs/cgroup/cpuset", "/sys/fs/cgroup"] {
            let set = Cpuset(Path::new(root).join(&name));
            if std::fs::create_dir(&set.0).is_err() {
                continue;
            }
            // The second kind needs no memory nodes; the first takes no processes without.
            let _ = std::fs::write(set.0.join("cpuset.mems"), "0");
            if std::fs::write(set.0.join("cpuset.cpus"), cpu.to_string()).is_ok() {
                return Some(set);
            }
        }
        not_here("control groups with cpusets that may be made");
        None
    }

    /// Where processes are written to.
    fn members(&self) -> PathBuf {
        self.0.join("cgroup.procs")
    }
}

impl Drop for Cpuset {
    fn drop(&mut self) {
        for _ in 0..200 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            // Processes that have just ended may be in it still.
            std::thread::sleep(Duration::from_millis(10));
        }
        common::say(format_args!("{} stays behind", self.0.display()));
    }
}

/// Starts biopsy in a cpuset.
fn start_in(set: &Cpuset, words: &[&str]) -> Running {
    let biopsy = biopsy_command(words);
    let mut command = Command::new("sh");
    command
        .args(["-c", "echo $$ >\"$0\" && exec \"$@\""])
        .arg(set.members())
        .arg(biopsy.get_program())
        .args(biopsy.get_args());
    Running::start(&mut command, b"")
}

/// Two functions that call each other's leaf in turn; a stack that mixes them never was.
const TURNS: &str = "
import os, sys
if len(sys.argv) > 1:
    os.sched_setaffinity(0, {int(sys.argv[1])})
def leaf_a(): return sum(range(50))
def leaf_b(): return sum(range(60))
def hot_a(): return leaf_a()
def hot_b(): return leaf_b()
print('ready', flush=True)
while True:
    hot_a()
    hot_b()
";

/// Files in every format; the table goes to stdout.
const EVERY_FORMAT: [&str; 10] = [
    "a.json",
    "a.svg",
    "a.html",
    "callgrind.out.a",
    "a.speedscope.json",
    "a.gecko.json",
    "a.pb.gz",
    "a.biopsy",
    "a.txt",
    "a.prof",
];

/// Fails unless every file says that its stacks are approximate, or `stderr` does for those that cannot.
fn assert_approximate(folder: &Path, ran: &Ran) {
    let stderr = &ran.stderr;
    assert!(ran.stdout.contains("; approximate stacks"), "{ran}");
    for name in EVERY_FORMAT {
        let path = folder.join(name);
        let bytes = std::fs::read(&path).expect(name);
        let mut text = String::from_utf8_lossy(&bytes).into_owned();
        match name {
            "a.pb.gz" => {
                let mut unpacked = Vec::new();
                flate2::read::GzDecoder::new(&bytes[..])
                    .read_to_end(&mut unpacked)
                    .expect("gzip");
                text = String::from_utf8_lossy(&unpacked).into_owned();
            }
            "a.biopsy" => {
                text = biopsy(&["report", path.to_str().expect("UTF-8")])
                    .ok()
                    .stdout
            }
            "a.json" => {
                let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
                assert_eq!(json["approximate_stacks"], true);
                let reader = json["reader"].as_str().expect("a reader");
                text = reader.to_string();
            }
            "a.html" => {
                assert_eq!(common::page::head(&text)["approximate"], true, "{name}");
                continue;
            }
            "a.txt" => text = line_of(stderr, "collapsed: "),
            "a.prof" => text = line_of(stderr, "pstats: "),
            _ => {}
        }
        assert!(text.contains("approximate"), "{name}: {text:.3000}");
    }
    assert!(
        stderr.contains("stacks are approximate: the target's CPUs are not open to us"),
        "{stderr}"
    );
}

fn line_of(text: &str, words: &str) -> String {
    let mut lines = text.lines();
    let line = lines.find(|line| line.contains(words));
    line.unwrap_or_default().to_string()
}

/// Words that sample `pid` into every format.
fn into_every_format(pid: i32, folder: &Path) -> Vec<String> {
    let mut words: Vec<String> = ["attach", &pid.to_string(), "-d", SECONDS, "-o", "-"]
        .map(str::to_string)
        .to_vec();
    for name in EVERY_FORMAT {
        let path = folder.join(name);
        words.extend(["-o".to_string(), path.to_str().expect("UTF-8").to_string()]);
    }
    words
}

#[test]
fn stacks_from_cpus_that_are_closed_to_us_are_called_approximate() {
    // One of two CPUs is all that it may use.
    let _alone = alone();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    if cpus < 2 {
        return not_here("a second CPU");
    }
    let Some(set) = Cpuset::new(1) else {
        return;
    };
    for python in Python::all().iter().filter(|python| python.minor >= 8) {
        // One that may run anywhere, one that runs where we may not, and one that shuts us out in the middle.
        for (what, pinned, late) in [
            ("anywhere", None, false),
            ("elsewhere", Some("0"), false),
            ("elsewhere, later", Some("0"), true),
        ] {
            let mut words = vec!["-c", TURNS];
            words.extend(pinned);
            let target = python.start(&words);
            let folder = tempfile::tempdir().expect("a folder");
            let words = into_every_format(target.pid, folder.path());
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let sampling = if late {
                let sampling = Running::start(&mut biopsy_command(&words), b"");
                std::thread::sleep(Duration::from_millis(400));
                std::fs::write(set.members(), sampling.pid().to_string()).expect("moved");
                sampling
            } else {
                start_in(&set, &words)
            };
            let ran = sampling.finish(PATIENCE).ok();
            let (samples, given_up) = counts(&folder.path().join("a.json"));
            common::say(format_args!(
                "{} {what}: {samples} samples, {given_up} given up, {} retried, {:.2?}",
                python.version,
                retried(&folder.path().join("a.json")),
                ran.took
            ));
            assert!(samples > 100, "{} {what}{ran}", python.version);
            assert_approximate(folder.path(), &ran);
        }
        // Where it may follow, nothing of the kind is said.
        let target = python.start(&["-c", TURNS, "1"]);
        let pid = target.pid.to_string();
        let ran = start_in(&set, &["attach", &pid, "-d", "0.5", "-f", "json"]).finish(PATIENCE);
        let ran = ran.ok();
        assert_eq!(ran.json()["approximate_stacks"], false, "{ran}");
        assert!(!ran.stderr.contains("approximate"), "{ran}");
    }
}

/// Reads that had to be made again.
fn retried(out: &Path) -> u64 {
    let text = std::fs::read_to_string(out).expect("a result");
    let result: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    result["retried"].as_u64().expect("a number")
}

/// A debugger at its plainest: attaches and holds the target, and does what it is told: `go`, `hold` or `end`. The target
/// stays traced until the end.
const TRACER: &str = "
import ctypes, os, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
ATTACH, CONT, DETACH = 16, 7, 17
pid, wall = int(sys.argv[1]), 0x40000000
while libc.ptrace(ATTACH, pid, None, None) != 0:
    time.sleep(0.0005)
os.waitpid(pid, wall)
print('ready', flush=True)
for line in sys.stdin:
    if line == 'go\\n':
        libc.ptrace(CONT, pid, None, None)
    elif line == 'hold\\n':
        os.kill(pid, 19)
        os.waitpid(pid, wall)
    else:
        break
    print('done', flush=True)
libc.ptrace(DETACH, pid, None, None)
print('over', flush=True)
";

#[test]
fn a_target_that_is_traced_and_stopped_is_sampled_and_counted() {
    let _company = in_company();
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out.json");
    for python in Python::all().iter().filter(|python| python.minor >= 8) {
        let mut target = python.start(&["-c", &format!("{PROGRAM}work(60)")]);
        let (pid, pid_text) = (target.pid, target.pid.to_string());
        let mut debugger = Python::any().start(&["-c", TRACER, &pid_text]);
        let debugger_pid = debugger.pid;
        let script = std::thread::spawn(move || {
            for word in ["go", "hold"] {
                std::thread::sleep(Duration::from_millis(250));
                debugger.tell(word);
                assert_eq!(debugger.line(), "done");
            }
            debugger
        });
        sample(pid, &[], &out).ok();
        let mut debugger = script.join().expect("it obeys");
        let (samples, given_up) = counts(&out);
        common::say(format_args!(
            "{} traced: {samples} samples, {given_up} given up, {} retried",
            python.version,
            retried(&out)
        ));
        assert!(samples > 100, "{}", python.version);
        let refuses = |words: &[&str]| {
            let ran = run(&mut biopsy_command(words)).refused(1, "traces it");
            let who = format!("process {debugger_pid} ");
            assert!(ran.stderr.contains(&who) && ran.took < PATIENCE, "{ran}");
        };
        // It stands still, so nobody has to stop it.
        let heap = biopsy(&["heap", "summary", &pid_text]).ok();
        assert!(heap.stdout.contains("was stopped already"), "{heap}");
        refuses(&["attach", &pid_text, "--blocking", "-d", "1"]);
        debugger.tell("go");
        assert_eq!(debugger.line(), "done");
        refuses(&["dump", &pid_text, "--blocking"]);
        refuses(&["heap", "summary", &pid_text]);
        biopsy(&["dump", &pid_text]).ok();
        biopsy(&["heap", "summary", &pid_text, "--pause", "none"]).ok();
        assert_eq!(tracer(pid), Some(debugger_pid));
        debugger.tell("hold");
        debugger.tell("end");
        debugger.wait();
        let ran = biopsy(&["attach", &pid_text, "--blocking", "-d", "0.5", "-f", "json"]).ok();
        let samples = ran.json()["samples"].as_u64();
        assert!(samples.expect("a number") > 50, "{ran}");
        target.assert_free();
    }
}

#[test]
fn a_tracer_that_comes_in_between_is_waited_for() {
    let _company = in_company();
    let python = Python::any();
    let mut target = python.start(&["-c", &format!("{PROGRAM}work(60)")]);
    let pid = target.pid.to_string();
    // One that stays for a moment, and one that stays for good.
    for ends_early in [false, true] {
        let words = ["attach", &pid, "--blocking", "-d", "4", "-f", "json"];
        let sampling = Running::start(&mut biopsy_command(&words), b"");
        std::thread::sleep(Duration::from_millis(800));
        let mut debugger = python.start(&["-c", TRACER, &pid]);
        std::thread::sleep(Duration::from_millis(600));
        if !ends_early {
            debugger.tell("end");
            debugger.wait();
        }
        let ran = sampling.finish(PATIENCE).ok();
        if ends_early {
            debugger.tell("end");
            debugger.wait();
        }
        let result = ran.json();
        let number = |key: &str| result[key].as_f64().expect("a number");
        common::say(format_args!(
            "a tracer that stays {}: {} samples, {} given up, {:.2} s",
            if ends_early { "for good" } else { "0.6 s" },
            number("samples"),
            number("given_up"),
            number("duration_s")
        ));
        assert!(number("samples") > 100.0, "{ran}");
        assert!(number("given_up") >= 1.0, "{ran}");
        assert_eq!(number("duration_s") < 3.9, ends_early, "{ran}");
        assert_eq!(ran.stderr.contains("traces it"), ends_early, "{ran}");
        target.assert_free();
    }
}

/// Lets gdb go on when it goes.
struct HeldByGdb(PathBuf);

impl Drop for HeldByGdb {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_target_in_gdb_is_sampled() {
    let _company = in_company();
    let Some(gdb) = find_program("gdb") else {
        return not_here("gdb");
    };
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out.json");
    let mut target = Python::any().start(&["-c", &format!("{PROGRAM}work(60)")]);
    let pid = target.pid;
    let mut command = Command::new(gdb);
    // The target stands still while the file is there.
    let held = HeldByGdb(folder.path().join("held"));
    let file = held.0.to_str().expect("UTF-8");
    let wait = format!("shell touch {file}; while test -e {file}; do sleep 0.05; done");
    command.args(["-nx", "-batch", "-p", &pid.to_string()]);
    for words in ["set pagination off", &wait, "detach"] {
        command.args(["-ex", words]);
    }
    let gdb = Running::start(&mut command, b"");
    common::wait_until("gdb holds it", || {
        held.0.exists() && common::state(pid) == Some('t')
    });
    sample(pid, &[], &out).ok();
    let (samples, given_up) = counts(&out);
    common::say(format_args!(
        "in gdb: {samples} samples, {given_up} given up"
    ));
    assert!(samples > 100);
    let pid_text = pid.to_string();
    biopsy(&["attach", &pid_text, "--blocking", "-d", "1"]).refused(1, "traces it");
    let heap = biopsy(&["heap", "summary", &pid_text]).ok();
    assert!(heap.stdout.contains("was stopped already"), "{heap}");
    assert_eq!(common::state(pid), Some('t'));
    drop(held);
    gdb.finish(common::PATIENCE);
    target.assert_free();
    let after = biopsy(&["attach", &pid_text, "-d", "0.3", "-f", "json"]).ok();
    assert!(after.json()["samples"].as_u64().expect("a number") > 50);
}
