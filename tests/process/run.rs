//! `biopsy run`: exit codes, signals and streams are the program's own; children, forks and exec are followed;
//! the results are written whatever happens.

use crate::common;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{
    PATIENCE, Python, Ran, Running, Stage, alone, biopsy, biopsy_command, in_company, rows, run,
    send_signal, wait_until,
};
use serde_json::Value;

/// `biopsy run OPTIONS -- PYTHON ARGUMENTS`.
fn run_command(options: &[&str], python: &Python, arguments: &[&str]) -> Command {
    let mut words = vec!["run".to_string()];
    words.extend(options.iter().map(|word| word.to_string()));
    words.push("--".to_string());
    words.extend(python.words(arguments));
    biopsy_command(&words)
}

fn has_row(text: &str, function: &str) -> bool {
    let end = format!("({function})");
    rows(text).iter().any(|row| row.function.ends_with(&end))
}

/// The table in a file beside, since the program's own stdout is in the way.
fn table_path(stage: &Stage) -> String {
    stage
        .path()
        .join("table")
        .to_str()
        .expect("UTF-8")
        .to_string()
}

#[test]
fn exit_codes_output_and_arguments_are_the_programs_own() {
    let _shared = in_company();
    for python in Python::all() {
        eprintln!("{python}");
        let stage = python.stage();
        let script = stage.fixture("exits.py");
        for arguments in [
            &["argv", "a b", "--rate", "-o", "x"][..],
            &["code", "7"],
            &["code", "0"],
            &["raise"],
            &["exit-text", "so long"],
            &["signal", "TERM"],
            &["signal", "KILL"],
            &["atexit"],
            &["threads"],
            &["nonsense"],
        ] {
            let words = [&[script.as_str()], arguments].concat();
            let plain = run(&mut python.command(&words));
            let table = table_path(&stage);
            let ours = run(&mut run_command(
                &["-q", "-o", &table, "-f", "table"],
                python,
                &words,
            ));
            assert_eq!(ours.code(), plain.code(), "{python}{plain}{ours}");
            assert_eq!(ours.stdout, plain.stdout, "{python}{plain}{ours}");
            assert_eq!(ours.stderr, plain.stderr, "{python}{plain}{ours}");
            let text = std::fs::read_to_string(&table)
                .unwrap_or_else(|error| panic!("{python}, results: {error}{ours}"));
            assert!(text.contains("function calls"), "{python}: {text}");
            std::fs::remove_file(&table).expect("removed");
        }
        // What Python itself says of a script that is not there.
        let ran = run(&mut run_command(&["-q"], python, &["/nonexistent/x.py"])).expect_code(2);
        assert!(ran.stderr.contains("can't open file"), "{ran}");
        assert!(!ran.stderr.contains("biopsy:"), "{ran}");
    }
}

#[test]
fn modules_commands_and_stdin_work() {
    let _shared = in_company();
    let python = Python::any();
    let with_python = |words: &[&str]| {
        let mut all = vec![
            "run",
            "-q",
            "--python",
            &python.command[0],
            "-o",
            "/dev/null",
            "-f",
            "table",
            "--",
        ];
        all.extend(words);
        biopsy_command(&all)
    };
    let ran = run(&mut with_python(&[
        "-c",
        "import sys; print(sys.argv, sys.stdin.read())",
        "x",
    ]))
    .ok();
    assert_eq!(ran.stdout, "['-c', 'x'] \n");
    let mut typed = with_python(&["-c", "print(input()[::-1])"]);
    assert_eq!(
        common::run_with(&mut typed, b"abc\n", PATIENCE).ok().stdout,
        "cba\n"
    );
    let ran = run(&mut with_python(&["-m", "json.tool", "--help"])).ok();
    assert!(ran.stdout.contains("usage:"), "{ran}");
    // A program that is no Python is run all the same; there is nothing to sample.
    let ran = biopsy(&["run", "--", "sh", "-c", "echo out; exit 3"]).expect_code(3);
    assert!(ran.stdout.starts_with("out\n"), "{ran}");
}

#[test]
fn a_program_shorter_than_the_attach_is_no_failure() {
    let _shared = in_company();
    for python in Python::all() {
        let ran = run(&mut run_command(
            &["-f", "json"],
            python,
            &["-S", "-c", "pass"],
        ))
        .ok();
        assert_eq!(ran.json()["schema"], "biopsy.profile/1", "{python}{ran}");
        let ran = run(&mut run_command(
            &[],
            python,
            &["-c", "import os; os._exit(9)"],
        ))
        .expect_code(9);
        assert!(ran.stdout.contains("function calls"), "{python}{ran}");
    }
}

const INTERRUPTED: &str = "
import signal, sys, time
def on_term(number, frame):
    raise SystemExit(77)
signal.signal(signal.SIGTERM, on_term)
def busy_until_stopped():
    print('ready', flush=True)
    end = time.time() + 50
    while time.time() < end:
        sum(range(1000))
try:
    busy_until_stopped()
except KeyboardInterrupt:
    print('interrupted', flush=True)
    time.sleep(0.3)
    print('cleaned up', flush=True)
    raise
";

/// Starts `biopsy run` on INTERRUPTED and waits until the program is under way.
fn interrupted(python: &Python, stage: &Stage, table: &str) -> Running {
    let script = stage.put("interrupted.py", INTERRUPTED);
    let mut command = run_command(&["-q", "-o", table, "-f", "table"], python, &[&script]);
    let running = Running::start(&mut command, b"");
    // `ready` goes to a pipe that is read at the end; the child's CPU time tells that it is at work.
    wait_until("the program is busy", || {
        let children =
            std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", running.pid()))
                .unwrap_or_default();
        children.split_ascii_whitespace().any(|child| {
            let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            let after_name = stat.rsplit(')').next().unwrap_or("");
            let ticks = after_name.split_ascii_whitespace().nth(11);
            ticks.and_then(|ticks| ticks.parse().ok()).unwrap_or(0) >= 30
        })
    });
    running
}

#[test]
fn signals_reach_the_program_and_the_results_are_written() {
    let _shared = in_company();
    for python in Python::all() {
        eprintln!("{python}");
        for (signal, to_group, code) in
            [("INT", true, 130), ("INT", false, 130), ("TERM", false, 77)]
        {
            let stage = python.stage();
            let table = table_path(&stage);
            let running = interrupted(python, &stage, &table);
            let pid = running.pid();
            send_signal(signal, if to_group { -pid } else { pid });
            let ran = running.finish(PATIENCE);
            // Before 3.8 an interrupted Python ended with 1.
            let expected = if code == 130 && python.minor < 8 {
                1
            } else {
                code
            };
            assert_eq!(
                ran.code(),
                expected,
                "{python} {signal} group {to_group}{ran}"
            );
            let text = std::fs::read_to_string(&table).expect("written");
            assert!(
                has_row(&text, "busy_until_stopped"),
                "{python} {signal}: {text}"
            );
            if signal == "INT" {
                assert!(ran.stderr.contains("KeyboardInterrupt"), "{ran}");
                // `kill` to a group is not told from one to biopsy alone, so the program gets it twice then.
                assert!(
                    to_group || ran.stdout.ends_with("cleaned up\n"),
                    "{python}{ran}"
                );
            }
        }
    }
}

/// Types Ctrl-C in a terminal of its own; prints what was shown there and the exit code.
const TERMINAL: &str = r#"
import os, pty, sys, time
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
shown = b""
typed = False
while True:
    try:
        data = os.read(terminal, 4096)
    except OSError:
        break
    if not data:
        break
    shown += data
    if not typed and b"ready" in shown:
        time.sleep(1.0)
        os.write(terminal, b"\x03")
        typed = True
status = os.waitpid(pid, 0)[1]
sys.stdout.write(shown.decode("utf-8", "replace"))
print("CODE", os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status))
"#;

fn in_terminal(words: &[String]) -> Ran {
    let mut command = Python::any().command(&["-c", TERMINAL, env!("CARGO_BIN_EXE_biopsy")]);
    run(command.args(words)).ok()
}

#[test]
fn control_c_in_a_terminal_ends_the_program_and_shows_the_table() {
    let _shared = in_company();
    let python = Python::any();
    let stage = python.stage();
    let script = stage.put("interrupted.py", INTERRUPTED);
    let words = ["run", "--python", &python.command[0], "--", &script].map(str::to_string);
    let ran = in_terminal(&words);
    assert!(ran.stdout.contains("CODE 130"), "{ran}");
    assert_eq!(ran.stdout.matches("interrupted\r").count(), 1, "{ran}");
    assert!(
        ran.stdout.contains("cleaned up"),
        "one signal, not two{ran}"
    );
    assert!(has_row(&ran.stdout, "busy_until_stopped"), "{ran}");
    let exact = [
        "run",
        "--exact",
        "--python",
        &python.command[0],
        "--",
        &script,
    ]
    .map(str::to_string);
    let ran = in_terminal(&exact);
    assert!(
        ran.stdout.contains("CODE 130") && ran.stdout.contains("cleaned up"),
        "{ran}"
    );
    assert!(has_row(&ran.stdout, "busy_until_stopped"), "{ran}");
}

#[test]
fn control_c_ends_attach_with_its_table_and_leaves_the_target_alone() {
    let _shared = in_company();
    for (signal, arguments) in [("INT", &["-q"][..]), ("TERM", &["-q", "--blocking"])] {
        let python = Python::any();
        let stage = python.stage();
        let mut target = python.start(&[&stage.fixture("threaded_server.py")]);
        let pid = target.pid.to_string();
        let attach = Running::start(
            &mut biopsy_command(&[&["attach", &pid], arguments].concat()),
            b"",
        );
        std::thread::sleep(Duration::from_secs(1));
        send_signal(signal, attach.pid());
        let ran = attach.finish(PATIENCE).ok();
        assert!(has_row(&ran.stdout, "housekeeping"), "{ran}");
        target.assert_free();
    }
}

#[test]
fn each_process_keeps_its_own_rows() {
    let _shared = in_company();
    for python in Python::all() {
        eprintln!("{python}");
        let stage = python.stage();
        let script = stage.fixture("multi_process.py");
        let table = table_path(&stage);
        let options = [
            "--subprocesses",
            "-r",
            "200",
            "-q",
            "-o",
            &table,
            "-f",
            "table",
        ];
        let ran = run(&mut run_command(
            &options,
            python,
            &[&script, "--seconds", "1"],
        ))
        .ok();
        let text = std::fs::read_to_string(&table).expect("written");
        // Each group begins with a line that names its process.
        let groups: Vec<&str> = text.split("function calls").collect();
        for (name, others) in [
            (
                "burn_primes",
                ["burn_strings", "burn_tables", "crunch_in_subprocess"],
            ),
            (
                "burn_strings",
                ["burn_primes", "burn_tables", "crunch_in_subprocess"],
            ),
            (
                "burn_tables",
                ["burn_strings", "burn_primes", "crunch_in_subprocess"],
            ),
            (
                "crunch_in_subprocess",
                ["burn_strings", "burn_tables", "burn_primes"],
            ),
        ] {
            let own: Vec<&&str> = groups.iter().filter(|group| has_row(group, name)).collect();
            assert_eq!(own.len(), 1, "{python}: {name} in one process{ran}\n{text}");
            for other in others {
                assert!(
                    !has_row(own[0], other),
                    "{python}: {name} beside {other}\n{text}"
                );
            }
            let line = ran
                .stdout
                .lines()
                .find(|line| line.starts_with("child") && line.contains(name))
                .unwrap_or_else(|| panic!("{ran}"));
            let pid = line.rsplit(' ').next().expect("PID");
            assert!(
                text.contains(pid),
                "{python}: process {pid} of {name} is named\n{text}"
            );
        }
        // Without the option only the parent's rows are there.
        let ran = run(&mut run_command(
            &["-q", "-f", "table", "-o", &table],
            python,
            &[&script, "--seconds", "1"],
        ));
        ran.ok();
        let text = std::fs::read_to_string(&table).expect("written");
        assert!(
            has_row(&text, "wait_for_children") && !has_row(&text, "burn_primes"),
            "{text}"
        );
    }
}

const FORKS: &str = "
import os, sys, time
def burn(seconds):
    end = time.time() + seconds
    while time.time() < end:
        sum(range(500))
def in_child():
    burn(0.7)
def in_parent():
    burn(0.7)
child = os.fork()
if child == 0:
    in_child()
    os._exit(5)
in_parent()
print(os.waitpid(child, 0)[1])
";

#[test]
fn a_program_that_forks_or_execs_is_followed() {
    let _shared = in_company();
    for python in Python::all() {
        eprintln!("{python}");
        let stage = python.stage();
        let table = table_path(&stage);
        let script = stage.put("forks.py", FORKS);
        let ran = run(&mut run_command(
            &["--subprocesses", "-q", "-o", &table, "-f", "table"],
            python,
            &[&script],
        ))
        .ok();
        assert_eq!(ran.stdout, "1280\n");
        let text = std::fs::read_to_string(&table).expect("written");
        assert!(
            has_row(&text, "in_child") && has_row(&text, "in_parent"),
            "{python}: {text}"
        );

        let script = stage.fixture("exits.py");
        let ran = run(&mut run_command(
            &["-q", "-o", &table, "-f", "table"],
            python,
            &[&script, "exec", "1"],
        ))
        .ok();
        assert!(ran.stdout.ends_with("slept\n"), "{python}{ran}");
        let text = std::fs::read_to_string(&table).expect("written");
        let slept = rows(&text)
            .into_iter()
            .find(|row| row.function.ends_with("(sleep)"))
            .unwrap_or_else(|| panic!("{python}: nothing after the exec: {text}{ran}"));
        assert!((0.5..1.5).contains(&slept.cumtime), "{python}: {slept:?}");
    }
}

const BURNS: &str = "
import time
def burn(begin):
    while time.perf_counter() < begin + 0.3:
        pass
    return time.perf_counter() - begin
print(burn(time.perf_counter()))
";

/// A program's start is not the time of what it does first, and nothing of that is lost while we begin.
#[test]
fn what_a_program_does_first_has_its_own_time() {
    let _alone = alone();
    for python in Python::all().iter().filter(|python| python.minor >= 8) {
        let stage = python.stage();
        let table = table_path(&stage);
        let script = stage.put("burns.py", BURNS);
        let mut off: Vec<f64> = (0..5)
            .map(|_| {
                let options = ["-q", "-o", &table, "-f", "json"];
                let ran = run(&mut run_command(&options, python, &[&script])).ok();
                let own: f64 = ran.stdout.trim().parse().expect("seconds");
                let text = std::fs::read_to_string(&table).expect("written");
                let document: Value = serde_json::from_str(&text).expect("JSON");
                let functions = document["functions"].as_array().expect("functions");
                let row = functions.iter().find(|row| row["name"] == "burn");
                row.map_or(0.0, |row| row["cumtime_s"].as_f64().expect("seconds")) - own
            })
            .collect();
        off.sort_by(f64::total_cmp);
        eprintln!("{python}: off by {off:.4?} s");
        // One sample stands for a millisecond, and it takes some to find the interpreter; single runs may lose a CPU for a while.
        assert!((-0.015..0.004).contains(&off[2]), "{python}: {off:?}");
    }
}

#[test]
fn a_target_that_ends_while_it_is_sampled_gives_what_there_is() {
    let _shared = in_company();
    for python in Python::all() {
        let stage = python.stage();
        let mut target = python.start(&[&stage.fixture("exits.py"), "sleep", "1"]);
        let recording = stage.path().join("a.biopsy");
        let recording = recording.to_str().expect("UTF-8");
        let pid = target.pid.to_string();
        let ran = biopsy(&["attach", &pid, "-q", "-o", recording]).ok();
        assert!(Path::new(recording).exists(), "{ran}");
        assert!(target.wait().success());
        let ran = biopsy(&["report", recording]).ok();
        assert!(has_row(&ran.stdout, "sleep"), "{python}{ran}");
        // Killed hard, in the middle.
        let mut target = python.start(&[&stage.fixture("threaded_server.py")]);
        let pid = target.pid.to_string();
        let attach = Running::start(
            &mut biopsy_command(&["attach", &pid, "-q", "-f", "json"]),
            b"",
        );
        std::thread::sleep(Duration::from_millis(700));
        send_signal("KILL", target.pid);
        target.wait();
        let profile: Value = attach.finish(PATIENCE).ok().json();
        assert!(profile["samples"].as_u64() > Some(0), "{python}");
    }
}

#[test]
fn a_full_disk_or_a_closed_pipe_does_not_change_the_programs_code() {
    let _shared = in_company();
    let python = Python::any();
    let ran = run(&mut run_command(
        &["-o", "/dev/full", "-f", "json"],
        python,
        &["-c", "exit(4)"],
    ));
    let ran = ran.expect_code(4);
    assert!(
        ran.stderr.contains("/dev/full") && ran.stderr.contains("no space left on device"),
        "{ran}"
    );
    let mut command = run_command(&["-q"], python, &["-c", "exit(6)"]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("ends").code(), Some(6));
}

#[test]
fn a_program_that_is_stopped_for_each_sample_ends_with_its_own_code() {
    let _shared = in_company();
    let python = Python::any();
    let program = "
import sys, time
end = time.time() + 0.5
while time.time() < end:
    sum(range(1000))
    time.sleep(0.0005)
sys.exit(7)
";
    let words = ["run", "--blocking", "-q", "-r", "1000", "--"].map(str::to_string);
    let words = [&words[..], &python.words(&["-c", program])].concat();
    let ran = biopsy(&words).expect_code(7);
    assert!(!ran.stderr.contains("traces it"), "{ran}");
    assert!(ran.stdout.contains("<module>"), "{ran}");
}
