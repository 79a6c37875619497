//! The Python package of the wheel, `python -m biopsy`: it finds the program of its own installation and becomes it.

// What a test did not expect is its failure, in what several tests share too.
#![allow(
    missing_docs,
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    clippy::unwrap_used
)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::{Python, Ran, Stage, run};

/// Prints its arguments as JSON, and ends as its last one says.
const PROGRAM: &str = "import json, os, sys
print(json.dumps([os.path.dirname(sys.argv[0]), sys.argv[1:], os.getpid()]))
sys.exit(int(sys.argv[-1]) if sys.argv[-1].isdigit() else 0)
";

/// An installation's folders: the package in `site`, the program at `program`, and the list of both if `listed`.
fn installed(python: &Python, site: &str, program: &str, listed: Option<&str>) -> Stage {
    let stage = python.stage();
    let folder = stage.path().join(site);
    fs::create_dir_all(folder.join("biopsy")).expect("made");
    let package = common::project().join("python/biopsy");
    for name in ["__init__.py", "__main__.py"] {
        fs::copy(package.join(name), folder.join("biopsy").join(name)).expect("copied");
    }
    let path = stage.path().join(program);
    fs::create_dir_all(path.parent().expect("in a folder")).expect("made");
    let interpreter = python.words(&[]).pop().expect("a word");
    fs::write(&path, format!("#!{interpreter}\n{PROGRAM}")).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("set");
    if let Some(listed) = listed {
        let info = folder.join("biopsy-0.1.0.dist-info");
        fs::create_dir(&info).expect("made");
        let lines = format!(
            "biopsy/__init__.py,sha256=x,1\n{listed},sha256=x,2\n\"biopsy-0.1.0.dist-info/RECORD\",,\n"
        );
        fs::write(info.join("RECORD"), lines).expect("written");
    }
    stage
}

fn started(python: &Python, stage: &Stage, site: &str, words: &[&str]) -> Ran {
    let code = format!(
        "import sys, runpy; sys.path.insert(0, {:?}); sys.argv = ['biopsy'] + {words:?}; \
         runpy.run_module('biopsy', run_name='__main__', alter_sys=True)",
        stage.inside(site)
    );
    run(&mut python.command(&["-c", &code]))
}

/// The program that was started, by its folder, and what it was given.
fn given(ran: &Ran) -> (String, Vec<String>) {
    let (folder, words, _): (String, Vec<String>, u64) =
        serde_json::from_value(ran.json()).unwrap_or_else(|error| panic!("{error}{ran}"));
    (folder, words)
}

#[test]
fn the_program_of_the_same_installation_is_started_with_its_exit_code() {
    let venv = "venv/lib/python3/site-packages";
    for python in Python::all() {
        // As pip lists it in a virtual environment, for a user, in Debian's folders; and where --target puts it.
        for (site, program, listed) in [
            (venv, "venv/bin/biopsy", Some("../../../bin/biopsy")),
            (
                "local/dist packages",
                "usr/bin/biopsy",
                Some("../../usr/bin/biopsy"),
            ),
            ("[target]", "[target]/bin/biopsy", Some("../../bin/biopsy")),
            ("target", "target/bin/biopsy", None),
        ] {
            let stage = installed(python, site, program, listed);
            let ran = started(python, &stage, site, &["dump", "a b", "7"]).expect_code(7);
            let (folder, words) = given(&ran);
            let wanted = stage.inside(program);
            assert_eq!(
                Some(Path::new(&folder)),
                Path::new(&wanted).parent(),
                "{python}{ran}"
            );
            assert_eq!(words, ["dump", "a b", "7"], "{python}");
        }
    }
}

#[test]
fn scripts_are_run_by_the_interpreter_that_was_typed() {
    let site = "lib";
    for python in Python::all() {
        let stage = installed(python, site, "lib/bin/biopsy", None);
        let own = run(&mut python.command(&["-c", "import sys; print(sys.executable)"]));
        let own = own.stdout.trim_end();
        for (typed, passed) in [
            (
                &["run", "--", "a.py"][..],
                &["run", "--python", own, "--", "a.py"][..],
            ),
            (
                &["heap", "run", "a.py"],
                &["heap", "run", "--python", own, "a.py"],
            ),
            (
                &["calls", "f", "--", "a.py"],
                &["calls", "--python", own, "f", "--", "a.py"],
            ),
            // The script's own options are not ours.
            (
                &["run", "--", "a.py", "--python=x"],
                &["run", "--python", own, "--", "a.py", "--python=x"],
            ),
            (
                &["run", "--python", "x", "--", "a.py"],
                &["run", "--python", "x", "--", "a.py"],
            ),
            (&["attach", "4711x"], &["attach", "4711x"]),
            (&[], &[]),
        ] {
            let ran = started(python, &stage, site, typed).ok();
            assert_eq!(given(&ran).1, passed, "{python}");
        }
    }
}

#[test]
fn a_package_without_its_program_says_where_it_looked() {
    for python in Python::all() {
        let stage = installed(python, "lib", "elsewhere/biopsy", Some("../bin/biopsy"));
        // The environment's own scripts come last, and a machine may have biopsy there.
        let scripts = "import sysconfig, os; print(os.path.exists(sysconfig.get_path('scripts') + '/biopsy'))";
        if run(&mut python.command(&["-c", scripts])).stdout.trim() == "True" {
            common::say(format!("{python} has biopsy among its scripts"));
            continue;
        }
        let ran = started(python, &stage, "lib", &["ps"]).refused(1, "cannot start the program");
        assert!(
            ran.stderr.contains(&stage.inside("bin/biopsy")),
            "{python}{ran}"
        );
    }
}
