//! The command line as cli.md has it: help, exit codes, one clear line for each wrong use, and pipes that close.

use crate::common;

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{
    PATIENCE, Python, Ran, biopsy, biopsy_command, find_program, in_company, is_root, not_here,
    rows, run, run_with, state, wait_until,
};
use tempfile::TempDir;

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// A `.prof` file of cProfile's own.
fn prof_file(folder: &Path) -> String {
    let path = folder.join("own.prof");
    let script = folder.join("work.py");
    fs::write(
        &script,
        "def f(n):\n    return sum(range(n))\nfor n in range(50): f(n)\n",
    )
    .expect("written");
    let python = Python::any();
    if python.root.is_some() {
        let stage = python.stage();
        let inside = stage.put(
            "work.py",
            "def f(n):\n    return sum(range(n))\nfor n in range(50): f(n)\n",
        );
        run(&mut python.command(&["-m", "cProfile", "-o", &stage.inside("own.prof"), &inside]))
            .ok();
        fs::copy(stage.path().join("own.prof"), &path).expect("copied");
    } else {
        run(&mut python.command(&["-m", "cProfile", "-o", text(&path), text(&script)])).ok();
    }
    text(&path).to_string()
}

#[test]
fn help_names_every_command_and_option() {
    let _company = in_company();
    let help = biopsy(&["--help"]).ok();
    for command in [
        "ps",
        "attach",
        "run",
        "dump",
        "report",
        "diff",
        "completions",
        "man",
    ] {
        let named = help
            .stdout
            .lines()
            .any(|line| line.trim_start().starts_with(&format!("{command} ")));
        assert!(named, "{command}{help}");
    }
    let shared = [
        "--rate",
        "--duration",
        "--output",
        "--format",
        "--mode",
        "--threads",
        "--subprocesses",
        "--blocking",
        "--native",
        "--sort",
        "--limit",
        "--strip-dirs",
        "--quiet",
        "-r",
        "-d",
        "-o",
        "-f",
        "-s",
        "-l",
        "-q",
    ];
    for (command, more) in [
        ("attach", &[&shared[..], &["--name"]].concat()),
        ("run", &[&shared[..], &["--exact", "--python"]].concat()),
        ("dump", &vec!["--locals", "--json", "--name", "--blocking"]),
        (
            "report",
            &vec![
                "--output",
                "--sort",
                "--limit",
                "--callers",
                "--callees",
                "--lines",
                "--thread",
                "--strip-dirs",
            ],
        ),
        ("diff", &vec!["--output", "--sort", "--limit"]),
        ("ps", &vec!["--json"]),
    ] {
        let help = biopsy(&[command, "--help"]).ok();
        for option in more {
            assert!(help.stdout.contains(option), "{command} {option}{help}");
        }
        assert_eq!(help.stderr, "");
    }
    let version = biopsy(&["--version"]).ok();
    assert_eq!(
        version.stdout,
        concat!("biopsy ", env!("CARGO_PKG_VERSION"), "\n")
    );
    assert!(biopsy(&["man"]).ok().stdout.contains(".TH biopsy"));
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            biopsy(&["completions", shell])
                .ok()
                .stdout
                .contains("attach"),
            "{shell}"
        );
    }
}

#[test]
fn wrong_command_lines_are_one_line_and_code_2() {
    let _company = in_company();
    let folder = TempDir::new().expect("folder");
    let prof = prof_file(folder.path());
    let out = |name: &str| text(&folder.path().join(name)).to_string();
    let (svg, json) = (out("a.svg"), out("b.json"));
    for (words, says) in [
        (&[][..], ""),
        (&["frobnicate"], "frobnicate"),
        (&["attach"], "no process"),
        (&["attach", "0"], "0"),
        (&["attach", "-5"], "-5"),
        (&["attach", "99999999999999"], "99999999999999"),
        (&["attach", "12x"], "12x"),
        (&["attach", "1", "--name", "x"], "--name"),
        (&["dump", ""], ""),
        (&["attach", "1", "-r", "0"], "0"),
        (&["attach", "1", "-r", "fast"], "fast"),
        (&["attach", "1", "-r", "-3"], "-3"),
        (&["attach", "1", "-r", "nan"], "nan"),
        (&["attach", "1", "-d", "0"], "0"),
        (&["attach", "1", "-d", "5x"], "5x"),
        (&["attach", "1", "-d", "inf"], "inf"),
        (&["attach", "1", "--mode", "idle"], "idle"),
        (&["attach", "1", "-s", "speed"], "speed"),
        (&["attach", "1", "-f", "nope"], "nope"),
        (&["attach", "1", "-o", "result.unknown"], "result.unknown"),
        (&["attach", "1", "-o", "noending"], "noending"),
        (&["attach", "1", "-o", &svg, "-o", &svg], "twice"),
        (
            &["attach", "1", "-o", &svg, "-o", &json, "-f", "json"],
            "--format",
        ),
        (&["attach", "1", "--frob"], "--frob"),
        (&["attach", "1", "--exact"], "--exact"),
        (&["run"], ""),
        (&["run", "--"], ""),
        (&["run", "--exact", "-r", "10", "--", "x.py"], "--rate"),
        (&["run", "--exact", "--", "/bin/true"], "/bin/true"),
        (&["report"], ""),
        (&["report", &prof, "-s", "speed"], "speed"),
        (&["report", &prof, "-l", "(unclosed"], "(unclosed"),
        (&["report", &prof, "--callers", "--callees"], "--callees"),
        (&["report", &prof, "--thread", "nobody"], "nobody"),
        (&["report", &prof, "--lines"], "line"),
        (&["diff", &prof], ""),
        (&["diff", &prof, &prof, "-o", "x.prof"], "x.prof"),
        (&["completions", "tcsh-next"], "tcsh-next"),
    ] {
        biopsy(words).refused(2, says);
    }
    assert!(!Path::new(&svg).exists());
}

#[test]
fn processes_that_cannot_be_sampled_say_why() {
    let _shared = in_company();
    let no_such = (1 << 22) + 7;
    for command in ["attach", "dump"] {
        biopsy(&[command, &no_such.to_string()]).refused(1, "no such process");
        biopsy(&[command, "2147483647"]).refused(1, "no such process");
        let mut sleep = Command::new("sleep").arg("60").spawn().expect("sleep");
        biopsy(&[command, &sleep.id().to_string()]).refused(1, "not a Python process");
        sleep.kill().expect("killed");
        let pid = sleep.id() as i32;
        wait_until("it is a zombie", || state(pid) == Some('Z'));
        biopsy(&[command, &pid.to_string()]).refused(1, "zombie");
        sleep.wait().expect("ended");
        biopsy(&[command, "--name", "no process has this in its command line"])
            .refused(1, "cannot find");
    }
    let kernel_thread = (2..100).find(|pid| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|words| words.is_empty())
            && fs::read_to_string(format!("/proc/{pid}/maps")).is_ok_and(|maps| maps.is_empty())
            && state(*pid) != Some('Z')
    });
    match kernel_thread {
        Some(pid) => drop(biopsy(&["attach", &pid.to_string()]).refused(1, "kernel thread")),
        None => not_here("a kernel thread that can be seen"),
    }
    // The first process: no Python, or kept from us.
    let ran = biopsy(&["dump", "1"]);
    if ran.code() != 0 {
        let ran = ran.refused(1, "cannot read process 1: ");
        assert!(
            ran.stderr.contains("not a Python process") || ran.stderr.contains("not permitted"),
            "{ran}"
        );
    }
}

#[test]
fn several_processes_of_a_name_are_listed() {
    let _shared = in_company();
    let python = Python::any();
    let stage = python.stage();
    let script = stage.fixture("exits.py");
    let word = format!("several-{}", std::process::id());
    let mut first = python.start(&[&script, "sleep", "60", &word, "first"]);
    let ran = biopsy(&["dump", "--name", &word]).ok();
    assert!(
        ran.stdout.contains(&format!("Process {}:", first.pid)),
        "{ran}"
    );
    let second = python.start(&[&script, "sleep", "60", &word, "second"]);
    let ran = biopsy(&["attach", "--name", &word]).refused(1, "2 Python processes match");
    for pid in [first.pid, second.pid] {
        assert!(ran.stderr.contains(&pid.to_string()), "{ran}");
    }
    let listed = biopsy(&["ps", "--json"]).ok().json();
    let processes = listed["processes"].as_array().expect("processes");
    let row = processes
        .iter()
        .find(|row| row["pid"] == first.pid)
        .expect("listed");
    assert_eq!(row["python"], python.version.as_str());
    assert!(
        row["rss_bytes"].as_u64() > Some(1 << 20) && row["threads"] == 1,
        "{row}"
    );
    assert!(row["command"].as_str().expect("text").contains(&word));
    assert!(biopsy(&["ps"]).ok().stdout.contains(&python.version));
    first.assert_free();
}

#[test]
fn python_2_is_not_supported_and_said_with_its_version() {
    let _shared = in_company();
    let pyenv = std::env::var_os("PYENV_ROOT")
        .map(Into::into)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".pyenv")));
    let own = pyenv
        .map(|root| root.join("versions/2.7.18/bin/python2.7"))
        .filter(|path| path.exists());
    let Some(python) = own.or_else(|| find_program("python2.7")) else {
        return not_here("python 2.7");
    };
    let script = "import sys; print('ready'); sys.stdout.flush(); sys.stdin.readline()";
    let target = common::Target::start(Command::new(python).args(["-c", script]));
    for command in ["attach", "dump"] {
        let ran = biopsy(&[command, &target.pid.to_string()]).refused(1, "Python 2.7");
        assert!(ran.stderr.contains("not supported"), "{ran}");
    }
}

#[test]
fn files_that_are_not_what_they_should_be() {
    let _shared = in_company();
    let folder = TempDir::new().expect("folder");
    let path = |name: &str| text(&folder.path().join(name)).to_string();
    let prof = prof_file(folder.path());
    let recording = path("good.biopsy");
    let python = Python::any();
    let code = "import time\ndef f():\n    end = time.time() + 0.4\n    while time.time() < end: sum(range(99))\nf()";
    let mut words = vec![
        "run".to_string(),
        "-q".into(),
        "-o".into(),
        recording.clone(),
        "--".into(),
    ];
    words.extend(python.words(&["-c", code]));
    biopsy(&words).ok();
    assert!(biopsy(&["report", &recording]).ok().stdout.contains("(f)"));
    let mode = fs::metadata(&recording)
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600, "readable by its owner alone");

    biopsy(&["report", &path("nowhere.biopsy")]).refused(1, "no such file");
    biopsy(&["report", text(folder.path())]).refused(1, "it is a folder");
    biopsy(&["diff", &prof, &path("nowhere.prof")]).refused(1, "nowhere.prof");
    fs::write(path("empty.biopsy"), "").expect("written");
    biopsy(&["report", &path("empty.biopsy")]).refused(1, "it is empty");
    fs::write(path("letter.txt"), "Dear reader,\nthis is no profile.\n").expect("written");
    biopsy(&["report", &path("letter.txt")]).refused(1, "letter.txt");
    fs::write(
        path("noise.prof"),
        [0x7f, b'E', b'L', b'F', 0, 255, 3, 9].repeat(50),
    )
    .expect("written");
    biopsy(&["report", &path("noise.prof")]).refused(1, "noise.prof");

    for (whole, name) in [(&recording, "cut.biopsy"), (&prof, "cut.prof")] {
        let bytes = fs::read(whole).expect("read");
        let cut = path(name);
        for part in [1, 2, 3, 5, 9]
            .map(|tenth| bytes.len() * tenth / 10)
            .into_iter()
            .chain([bytes.len() - 1])
        {
            fs::write(&cut, &bytes[..part]).expect("written");
            biopsy(&["report", &cut]).refused(1, "at byte");
        }
        // One bit in each of many places: refused, or still the same kind of table; never a crash.
        for at in (0..bytes.len()).step_by(bytes.len() / 40 + 1) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x41;
            fs::write(&cut, &damaged).expect("written");
            let ran = biopsy(&["report", &cut]);
            if ran.code() != 0 {
                ran.refused(1, name);
            } else {
                assert!(
                    whole == &prof,
                    "a checked file is damaged at byte {at}{ran}"
                );
            }
        }
    }
    if is_root() {
        unreadable_for_others(&prof);
    }
}

/// A folder with a copy of biopsy that anyone may run.
fn for_everyone() -> (TempDir, String) {
    let folder = TempDir::new().expect("folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).expect("changed");
    let copy = folder.path().join("biopsy");
    fs::copy(env!("CARGO_BIN_EXE_biopsy"), &copy).expect("copied");
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).expect("changed");
    let copy = text(&copy).to_string();
    (folder, copy)
}

fn as_nobody(biopsy: &str, words: &[&str]) -> Ran {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", biopsy]);
    run(command.args(words).current_dir("/"))
}

fn unreadable_for_others(prof: &str) {
    if find_program("setpriv").is_none() {
        return not_here("setpriv");
    }
    let (folder, copy) = for_everyone();
    let secret = folder.path().join("secret.prof");
    fs::copy(prof, &secret).expect("copied");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("changed");
    as_nobody(&copy, &["report", text(&secret)]).refused(1, "permission denied");
}

#[test]
fn what_is_not_permitted_says_what_it_takes() {
    let _shared = in_company();
    if !is_root() || find_program("setpriv").is_none() {
        return not_here("root and setpriv, to be somebody else");
    }
    let (folder, copy) = for_everyone();
    let python = Python::any();
    let stage = python.stage();
    let mut target = python.start(&[&stage.fixture("exits.py"), "sleep", "60"]);
    let pid = target.pid.to_string();
    for words in [
        &["attach", &pid][..],
        &["dump", &pid],
        &["attach", &pid, "--blocking"],
    ] {
        let ran = as_nobody(&copy, words).refused(1, "not permitted");
        assert!(
            ran.stderr.contains("another user") && ran.stderr.contains("sudo"),
            "{ran}"
        );
        assert!(ran.stderr.contains("CAP_SYS_PTRACE"), "{ran}");
    }
    let listed = as_nobody(&copy, &["ps"]).ok();
    assert_eq!(listed.stderr, "", "{listed}");
    // Root without the capability, as in a container.
    let mut bare = Command::new("setpriv");
    bare.args([
        "--bounding-set",
        "-sys_ptrace",
        "--inh-caps",
        "-sys_ptrace",
        &copy,
        "dump",
        &pid,
    ]);
    let ran = run(&mut bare);
    if ran.code() == 0 {
        // Reading a process of the same user takes no capability where Yama does not forbid it.
        assert!(ran.stdout.contains("sleep"), "{ran}");
    } else {
        let ran = ran.refused(1, "not permitted");
        assert!(ran.stderr.contains("--cap-add SYS_PTRACE"), "{ran}");
    }
    // A folder that nobody may write to is found out before the work.
    let closed = folder.path().join("closed");
    fs::create_dir(&closed).expect("made");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o755)).expect("changed");
    let file = closed.join("a.svg");
    let ran = as_nobody(&copy, &["attach", &pid, "-o", text(&file)]);
    ran.refused(1, "permission denied");
    target.assert_free();
}

#[test]
fn outputs_are_checked_before_the_work() {
    let _shared = in_company();
    let folder = TempDir::new().expect("folder");
    let path = |name: &str| text(&folder.path().join(name)).to_string();
    let marker = path("marker");
    fs::create_dir(path("folder.svg")).expect("made");
    fs::write(path("file"), "").expect("written");
    let code = format!("open({marker:?}, 'w')");
    for (output, says) in [
        (path("missing/a.svg"), "folder does not exist"),
        (path("folder.svg"), "it is a folder"),
        (path("file/a.svg"), "a.svg"),
    ] {
        let mut words = vec!["run".to_string(), "-o".into(), output, "--".into()];
        words.extend(Python::any().words(&["-c", &code]));
        biopsy(&words).refused(1, says);
        assert!(!Path::new(&marker).exists(), "the program was started");
    }
    let prof = prof_file(folder.path());
    let ran =
        biopsy(&["report", &prof, "-o", "/dev/full", "-f", "json"]).refused(1, "no space left");
    assert!(ran.stderr.contains("/dev/full"), "{ran}");
    let full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .expect("there");
    let mut child = biopsy_command(&["report", &prof]);
    let mut child = child
        .stdout(full)
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut said = String::new();
    child
        .stderr
        .take()
        .expect("piped")
        .read_to_string(&mut said)
        .expect("UTF-8");
    assert_eq!(child.wait().expect("ends").code(), Some(1), "{said}");
    assert!(
        said.contains("no space left") && said.lines().count() == 1,
        "{said}"
    );
    full_disk(&prof);
}

/// On a disk that is full the old file stays, whole.
fn full_disk(prof: &str) {
    let folder = TempDir::new().expect("folder");
    let mount = [
        "-t",
        "tmpfs",
        "-o",
        "size=16k",
        "tmpfs",
        text(folder.path()),
    ];
    if !is_root()
        || !Command::new("mount")
            .args(mount)
            .status()
            .is_ok_and(|status| status.success())
    {
        return not_here("a small file system of its own (mount as root)");
    }
    let output = folder.path().join("a.json");
    fs::write(&output, "old").expect("written");
    let filled = fs::write(folder.path().join("rest"), vec![0; 64 << 10]);
    let ran = biopsy(&["report", prof, "-o", text(&output), "-f", "json"]);
    let old = fs::read_to_string(&output);
    let names = fs::read_dir(folder.path()).map(|entries| entries.count());
    let unmounted = Command::new("umount").arg(folder.path()).status();
    assert!(filled.is_err() && unmounted.is_ok());
    let ran = ran.refused(1, "no space left");
    assert!(ran.stderr.contains("a.json"), "{ran}");
    assert_eq!(old.expect("read"), "old");
    assert_eq!(names.expect("list"), 2, "no half file is left behind");
}

#[test]
fn programs_that_cannot_be_started() {
    let _shared = in_company();
    let folder = TempDir::new().expect("folder");
    let script = folder.path().join("plain");
    fs::write(&script, "no program").expect("written");
    biopsy(&["run", "--", "/nonexistent/program"])
        .refused(1, "cannot start '/nonexistent/program'");
    biopsy(&["run", "--", "no-such-program-anywhere", "x"]).refused(1, "no such file");
    biopsy(&["run", "--", text(&script)]).refused(1, "permission denied");
    biopsy(&["run", "--python", "/nonexistent/python", "--", "x.py"])
        .refused(1, "/nonexistent/python");
    biopsy(&[
        "run",
        "--exact",
        "--python",
        "/nonexistent/python",
        "--",
        "x.py",
    ])
    .refused(1, "/nonexistent/python");
}

#[test]
fn what_this_build_lacks_is_said_with_what_to_do() {
    let _shared = in_company();
    let folder = TempDir::new().expect("folder");
    let prof = prof_file(folder.path());
    let html = folder.path().join("a.html");
    let ran = biopsy(&["report", &prof, "-o", text(&html)]);
    if ran.code() == 0 {
        assert!(
            fs::read_to_string(&html)
                .expect("written")
                .contains("<html"),
            "{ran}"
        );
    } else {
        ran.refused(1, "html");
        assert!(!html.exists());
    }
    if cfg!(feature = "native") {
        biopsy(&["attach", "1", "--native"]).refused(2, "native");
    } else {
        for words in [
            &["attach", "1", "--native", "--blocking"][..],
            &["dump", "1", "--native", "--blocking"],
        ] {
            let ran = biopsy(words).refused(1, "built without");
            assert!(
                ran.stderr.contains("libunwind") && ran.stderr.contains("--features native"),
                "{ran}"
            );
        }
    }
}

#[test]
fn a_page_is_opened_and_none_is_no_failure() {
    let folder = TempDir::new().expect("folder");
    let prof = prof_file(folder.path());
    let browser = folder.path().join("my browser");
    let script = "#!/bin/sh\nprintf '%s' \"$1|$2\" > \"$0.opened\"\n";
    std::fs::write(&browser, script).expect("written");
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&browser, mode).expect("executable");
    let page = folder.path().join("a.html");
    let opened = |named: &str| {
        let words = ["report", &prof, "-o", text(&page), "--open"];
        run(biopsy_command(&words)
            .env("BROWSER", named)
            .env("PATH", folder.path()))
        .ok()
    };
    let ran = opened(&format!("'{}' --new %s", text(&browser)));
    assert!(!ran.stderr.contains("no browser"), "{ran}");
    let place = folder.path().join("my browser.opened");
    let said = std::fs::read_to_string(&place).expect("it was started");
    assert_eq!(said, format!("--new|{}", text(&page)), "{ran}");
    for none in ["", "/nonexistent/browser"] {
        let ran = opened(none);
        assert!(ran.stderr.contains("no browser was found"), "{ran}");
    }
    biopsy(&["report", &prof, "--open"]).refused(2, "nothing to open");
    biopsy(&["report", &prof, "-o", "x.json", "--open"]).refused(2, "nothing to open");
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let _shared = in_company();
    let folder = TempDir::new().expect("folder");
    let prof = prof_file(folder.path());
    let python = Python::any();
    let stage = python.stage();
    let target = python.start(&[&stage.fixture("blocked.py")]);
    let pid = target.pid.to_string();
    for words in [
        &["report", &prof][..],
        &["report", &prof, "-f", "json"],
        &["report", &prof, "--callers"],
        &["report", &prof, "-f", "pstats"],
        &["diff", &prof, &prof],
        &["dump", &pid],
        &["dump", &pid, "--json"],
        &["attach", &pid, "-q", "-d", "0.2"],
        &["ps"],
        &["man"],
        &["completions", "bash"],
        &["--help"],
        &["--version"],
    ] {
        let mut command = biopsy_command(words);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        drop(child.stdout.take());
        let mut said = String::new();
        child
            .stderr
            .take()
            .expect("piped")
            .read_to_string(&mut said)
            .expect("UTF-8");
        let code = child.wait().expect("ends").code();
        assert_eq!((code, said.as_str()), (Some(0), ""), "{words:?}");
    }
}

#[test]
fn report_reads_stdin_and_writes_stdout() {
    let _shared = in_company();
    let folder = TempDir::new().expect("folder");
    let prof = prof_file(folder.path());
    let data = fs::read(&prof).expect("read");
    let ran = run_with(
        &mut biopsy_command(&["report", "-", "-s", "ncalls"]),
        &data,
        PATIENCE,
    )
    .ok();
    assert_eq!(rows(&ran.stdout)[0].ncalls, "50", "{ran}");
    let ran = run_with(
        &mut biopsy_command(&["report", "-", "-f", "pstats"]),
        &data,
        PATIENCE,
    )
    .ok();
    let again = run_with(
        &mut biopsy_command(&["report", "-", "-s", "ncalls"]),
        &ran.bytes,
        PATIENCE,
    )
    .ok();
    assert_eq!(rows(&again.stdout)[0].ncalls, "50", "{again}");
    run_with(&mut biopsy_command(&["report", "-"]), b"", PATIENCE).refused(1, "it is empty");
}

#[test]
fn what_is_no_process_id_is_told_for_what_it_is() {
    let _company = in_company();
    let file = common::project().join("Cargo.toml");
    let file = file.to_str().expect("UTF-8");
    biopsy(&["attach", file]).refused(2, "it is a file, not a process id");
    biopsy(&["attach", "abc"]).refused(2, "--name PATTERN");
    biopsy(&["attach", "0"]).refused(2, "it is not a process id");
}

/// The lines of `--verbose`.
fn messages(ran: &Ran) -> Vec<&str> {
    let lines = ran.stderr.lines();
    lines
        .filter_map(|line| line.strip_prefix("biopsy: [debug] "))
        .collect()
}

#[test]
fn verbose_says_what_is_done_and_why_and_nothing_else_does() {
    let _company = in_company();
    let python = Python::any();
    let target = python.start(&[
        "-c",
        "import time\nprint('ready', flush=True)\ntime.sleep(60)",
    ]);
    let pid = target.pid.to_string();
    let sampled = ["attach", &pid, "-d", "0.2"];
    let verbose = |words: &[&str]| biopsy(&[words, &["-v"]].concat()).ok();

    let quiet = biopsy(&sampled).ok();
    assert!(messages(&quiet).is_empty(), "{quiet}");
    let said = verbose(&sampled);
    let of_process = format!("process {pid}: Python {}, own reader", python.version);
    let has = |words: &str| messages(&said).iter().any(|line| line.contains(words));
    assert!(has(&of_process), "{said}");
    assert!(has("reads made again"), "{said}");

    let said = biopsy(&["--verbose", "heap", "summary", &pid]).ok();
    let has = |words: &str| messages(&said).iter().any(|line| line.contains(words));
    assert!(has("waited for") && has("stops"), "{said}");
    assert!(has("types have the size that is expected"), "{said}");
    let quiet = biopsy(&["heap", "summary", &pid]).ok();
    assert!(messages(&quiet).is_empty(), "{quiet}");

    // What stands after the command is the command's own.
    let words = [
        "run",
        "--python",
        &python.command[0],
        "--",
        "-c",
        "import sys; print(sys.argv)",
    ];
    if python.command.len() == 1 {
        let ran = biopsy(&[&words[..], &["-v"]].concat()).ok();
        assert!(ran.stdout.contains("['-c', '-v']"), "{ran}");
        assert!(messages(&ran).is_empty(), "{ran}");
        let ran = biopsy(&[&["-v"], &words[..]].concat()).ok();
        assert!(
            messages(&ran)
                .iter()
                .any(|line| line.contains("own reader")),
            "{ran}"
        );
    }
}

#[test]
fn verbose_says_which_right_is_missing() {
    let _company = in_company();
    let python = Python::any();
    let target = python.start(&[
        "-c",
        "import time\nprint('ready', flush=True)\ntime.sleep(60)",
    ]);
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]);
    command.args(biopsy_command::<&str>(&[]).get_program().to_str());
    command.args(["-v", "attach", &target.pid.to_string(), "-d", "1"]);
    let ran = if is_root() && find_program("setpriv").is_some() {
        run(&mut command)
    } else {
        not_here("root with setpriv");
        return;
    };
    if ran.code() == 127 || ran.code() == 126 {
        not_here("a folder that others may read");
        return;
    }
    let ran = ran.expect_code(1);
    let said = messages(&ran);
    let named = |line: &&str| line.contains("capable: false") && line.contains("same_user: false");
    assert!(said.iter().any(named), "{ran}");
}
