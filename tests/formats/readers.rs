//! The files, opened by the readers that they are for: pstats, gprof2dot, snakeviz, callgrind_annotate,
//! KCachegrind in a window, speedscope's importer, go's pprof, protobuf's decoder, a browser.

use crate::common;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use common::{
    Python, Ran, biopsy, find_program, in_company, kept_folder, not_here, project, run, run_with,
    venv,
};
use serde_json::Value;
use tempfile::TempDir;

/// One recording of known_shares.py in every format, and what our own JSON says of it.
struct Files {
    folder: TempDir,
    json: Value,
}

const NAMES: [&str; 8] = [
    "a.prof",
    "callgrind.out.a",
    "a.svg",
    "a.collapsed",
    "a.speedscope.json",
    "a.gecko.json",
    "a.pb.gz",
    "a.json",
];

fn files() -> &'static Files {
    static FILES: OnceLock<Files> = OnceLock::new();
    FILES.get_or_init(|| {
        let python = Python::any();
        let stage = python.stage();
        let script = stage.fixture("known_shares.py");
        let folder = TempDir::new().expect("folder");
        let recording = path_in(&folder, "a.biopsy");
        let mut words = vec![
            "run".to_string(),
            "-q".into(),
            "-o".into(),
            recording.clone(),
            "--".into(),
        ];
        words.extend(python.words(&[&script, "--seconds", "2"]));
        biopsy(&words).ok();
        let mut words = vec!["report".to_string(), recording];
        for name in NAMES {
            words.extend(["-o".to_string(), path_in(&folder, name)]);
        }
        biopsy(&words).ok();
        let text = std::fs::read_to_string(folder.path().join("a.json")).expect("written");
        Files {
            json: serde_json::from_str(&text).expect("JSON"),
            folder,
        }
    })
}

fn path_in(folder: &TempDir, name: &str) -> String {
    folder
        .path()
        .join(name)
        .to_str()
        .expect("UTF-8")
        .to_string()
}

impl Files {
    fn path(&self, name: &str) -> String {
        path_in(&self.folder, name)
    }

    /// (own, total) seconds of a function.
    fn seconds(&self, name: &str) -> (f64, f64) {
        let functions = self.json["functions"].as_array().expect("functions");
        let of = |field: &str| -> f64 {
            functions
                .iter()
                .filter(|f| f["name"] == name)
                .filter_map(|f| f[field].as_f64())
                .sum()
        };
        (of("tottime_s"), of("cumtime_s"))
    }

    fn total(&self) -> f64 {
        let functions = self.json["functions"].as_array().expect("functions");
        functions
            .iter()
            .filter_map(|function| function["tottime_s"].as_f64())
            .sum()
    }

    /// Fails unless `seconds` is what a function has: (own, total).
    #[track_caller]
    fn check(&self, name: &str, own: f64, total: f64) {
        let (expected_own, expected_total) = self.seconds(name);
        assert!(
            (own - expected_own).abs() < 0.005,
            "own {name}: {own}, should be {expected_own}"
        );
        assert!(
            (total - expected_total).abs() < 0.005,
            "total {name}: {total}, should be {expected_total}"
        );
    }
}

const BURNERS: [&str; 4] = ["burn_50", "burn_30", "burn_15", "burn_05"];

fn in_venv(module: &str, script: &str, arguments: &[&str]) -> Option<Ran> {
    let python = venv()?.join("bin/python");
    let has = Command::new(&python)
        .args(["-c", &format!("import {module}")])
        .output()
        .ok()?;
    has.status
        .success()
        .then(|| run(Command::new(python).args(["-c", script]).args(arguments)).ok())
}

#[test]
fn pstats_of_every_python() {
    let _shared = in_company();
    let files = files();
    let script = "import json, pstats, sys\ns = pstats.Stats(sys.argv[1])\n\
                  s.sort_stats('cumulative').print_stats().print_callers()\n\
                  print('\\n' + json.dumps({k[2]: v[2:4] for k, v in s.stats.items()}))";
    for python in Python::all() {
        let stage = python.stage();
        std::fs::copy(files.path("a.prof"), stage.path().join("a.prof")).expect("copied");
        let ran = run(&mut python.command(&["-c", script, &stage.inside("a.prof")])).ok();
        let last = ran.stdout.lines().last().expect("a line");
        let times: BTreeMap<String, (f64, f64)> = serde_json::from_str(last).expect("JSON");
        for name in BURNERS {
            files.check(name, times[name].0, times[name].1);
        }
    }
}

#[test]
fn files_of_profiling_sampling_have_no_call_counts() {
    let _shared = in_company();
    let Some(python) = Python::all().iter().find(|python| python.minor >= 15) else {
        not_here("Python 3.15 with profiling.sampling");
        return;
    };
    let stage = python.stage();
    let program = "def inner():\n    return sum(range(999))\ndef outer():\n    for _ in range(30_000): inner()\nouter()\n";
    let program = stage.put("calls.py", program);
    let out = stage.inside("sampling.prof");
    let words = ["-m", "profiling.sampling", "run", "--pstats", "-o", &out];
    let mut command = python.command(&[&words[..], &[program.as_str()]].concat());
    // The set of locales that 3.15 finds may have none of its name.
    command.env_remove("LANG").env("LC_ALL", "C");
    run(&mut command).ok();
    let file = stage.path().join("sampling.prof");
    let json = biopsy(&["report", "-f", "json", file.to_str().expect("UTF-8")]).ok();
    let json = json.json();
    let functions = json["functions"].as_array().expect("functions");
    let named = |name: &str| functions.iter().find(|row| row["name"] == name);
    for name in ["inner", "outer"] {
        let row = named(name).expect(name);
        assert_eq!(row["ncalls_from"], "lower-bound", "{row}");
        assert!(
            row["ncalls"] == 1 && row["cumtime_s"].as_f64() > Some(0.01),
            "{row}"
        );
    }
}

#[test]
fn gprof2dot_and_snakeviz() {
    let _shared = in_company();
    let files = files();
    let prof = files.path("a.prof");
    for (format, file) in [
        ("pstats", "a.prof"),
        ("callgrind", "callgrind.out.a"),
        ("collapse", "a.collapsed"),
    ] {
        let script = "import gprof2dot, sys; gprof2dot.main(sys.argv[1:])";
        match in_venv(
            "gprof2dot",
            script,
            &["-n0", "-e0", "-f", format, &files.path(file)],
        ) {
            Some(ran) => {
                assert!(
                    ran.stdout.starts_with("digraph") && ran.stdout.contains("burn_50"),
                    "{format}{ran}"
                );
            }
            None => not_here("gprof2dot (bash .ci/run makes a venv with it)"),
        }
    }
    let script = "import sys, json\nfrom pstats import Stats\nfrom snakeviz.stats import table_rows, json_stats\n\
                  s = Stats(sys.argv[1])\nassert table_rows(s)\nd = json_stats(s)\nprint(d if isinstance(d, str) else json.dumps(d))";
    match in_venv("snakeviz", script, &[&prof]) {
        Some(ran) => {
            let document = ran.json();
            let function = document
                .as_object()
                .and_then(|map| map.iter().find(|(name, _)| name.contains("(burn_30)")))
                .unwrap_or_else(|| panic!("{ran}"));
            let of = |at: usize| function.1["stats"][at].as_f64().expect("number");
            files.check("burn_30", of(2), of(3));
        }
        None => not_here("snakeviz (bash .ci/run makes a venv with it)"),
    }
}

/// `1,234,567 (12.3%)  rest`.
fn leading_number(line: &str) -> Option<f64> {
    let word = line.split_ascii_whitespace().next()?;
    word.replace(',', "").parse().ok()
}

#[test]
fn callgrind_annotate_gives_the_same_total() {
    let _shared = in_company();
    let files = files();
    if find_program("callgrind_annotate").is_none() {
        return not_here("callgrind_annotate (Debian: valgrind)");
    }
    let ran = run(Command::new("callgrind_annotate")
        .args(["--threshold=100", &files.path("callgrind.out.a")]))
    .ok();
    let line = ran
        .stdout
        .lines()
        .find(|line| line.contains("PROGRAM TOTALS"))
        .expect("totals");
    let total = leading_number(line).expect("number");
    // The first event is wall time; its unit follows from the file's own total.
    let unit = if total > 1e8 { 1e9 } else { 1e6 };
    assert!(
        (total / unit - files.total()).abs() < 0.005,
        "{total}, should be {} s{ran}",
        files.total()
    );
    for name in BURNERS {
        let line = ran.stdout.lines().find(|line| {
            line.contains(&format!(":{name} ")) || line.ends_with(&format!(":{name}"))
        });
        let own = line
            .and_then(leading_number)
            .unwrap_or_else(|| panic!("no {name}{ran}"));
        let (expected, _) = files.seconds(name);
        assert!(
            (own / unit - expected).abs() < 0.005,
            "{name}: {own}, should be {expected} s{ran}"
        );
    }
    let ran = run(Command::new("callgrind_annotate").args([
        "--inclusive=yes",
        "--tree=both",
        &files.path("callgrind.out.a"),
    ]))
    .ok();
    assert!(ran.stdout.contains("main"), "{ran}");
}

#[test]
fn kcachegrind_opens_it_in_a_window() {
    let _shared = in_company();
    let files = files();
    for program in [
        "kcachegrind",
        "xvfb-run",
        "dbus-run-session",
        "xdotool",
        "import",
    ] {
        if find_program(program).is_none() {
            return not_here(program);
        }
    }
    let folder = TempDir::new().expect("folder");
    let (picture, log) = (path_in(&folder, "window.png"), path_in(&folder, "log"));
    let mut command = Command::new("dbus-run-session");
    command
        .args([
            "--",
            "xvfb-run",
            "-a",
            "-s",
            "-screen 0 1280x900x24",
            "bash",
        ])
        .arg(project().join("fixtures/readers/kcachegrind-open.sh"))
        .args([&files.path("callgrind.out.a"), &picture, &log]);
    let ran = run_with(&mut command, b"", Duration::from_secs(90)).ok();
    let said = std::fs::read_to_string(&log).unwrap_or_default();
    for word in ["rror", "nvalid", "arning: "] {
        let complaint = said
            .lines()
            .find(|line| line.contains(word) && line.contains("callgrind.out"));
        assert!(complaint.is_none(), "{complaint:?}{ran}");
    }
    assert!(
        std::fs::metadata(&picture).expect("a picture").len() > 10_000,
        "{ran}"
    );
}

#[test]
fn speedscope_imports_every_file_that_it_knows() {
    let _shared = in_company();
    let files = files();
    let modules = kept_folder().join("test-node");
    if find_program("node").is_none() || !modules.join("node_modules/speedscope").is_dir() {
        return not_here("node with speedscope (bash .ci/run fetches it)");
    }
    for file in [
        "a.speedscope.json",
        "callgrind.out.a",
        "a.collapsed",
        "a.pb.gz",
        "a.gecko.json",
    ] {
        let ran = run(Command::new("node")
            .arg(project().join("fixtures/readers/speedscope-import.mjs"))
            .arg(&modules)
            .arg(files.path(file)));
        if file == "a.gecko.json" && ran.code() != 0 {
            // speedscope reads Firefox's older format only.
            continue;
        }
        let document = ran.ok().json();
        let mut own = BTreeMap::new();
        for profile in document["profiles"].as_array().expect("profiles") {
            let unit = match profile["unit"].as_str().expect("unit") {
                "seconds" => 1.0,
                "milliseconds" => 1e-3,
                "microseconds" => 1e-6,
                "nanoseconds" => 1e-9,
                _ => 0.0,
            };
            for frame in profile["frames"].as_array().expect("frames") {
                let name = frame["name"].as_str().expect("name");
                let burner = BURNERS.iter().find(|burner| name.contains(*burner));
                if let Some(burner) = burner {
                    *own.entry(*burner).or_insert(0.0) +=
                        frame["self"].as_f64().expect("self") * unit;
                }
            }
        }
        assert_eq!(own.len(), 4, "{file}: {own:?}");
        for (name, seconds) in own {
            let (expected, _) = files.seconds(name);
            assert!(
                seconds == 0.0 || (seconds - expected).abs() < 0.005,
                "{file} {name}: {seconds}, not {expected}"
            );
        }
    }
}

#[test]
fn gos_pprof_and_protobufs_decoder() {
    let _shared = in_company();
    let files = files();
    let file = files.path("a.pb.gz");
    if find_program("go").is_some() {
        let home = TempDir::new().expect("folder");
        let mut command = Command::new("go");
        command
            .env("HOME", home.path())
            .env("GOTOOLCHAIN", "local")
            .env("GOFLAGS", "-mod=mod");
        command.args([
            "tool",
            "pprof",
            "-top",
            "-sample_index=wall",
            "-unit=ms",
            &file,
        ]);
        let ran = run_with(&mut command, b"", Duration::from_secs(120)).ok();
        for name in BURNERS {
            let line = ran
                .stdout
                .lines()
                .find(|line| line.ends_with(name))
                .unwrap_or_else(|| panic!("{name}{ran}"));
            let ms = |at: usize| -> f64 {
                let word = line.split_ascii_whitespace().nth(at).unwrap_or("");
                word.trim_end_matches("ms")
                    .parse()
                    .unwrap_or_else(|_| panic!("{line}{ran}"))
            };
            files.check(name, ms(0) / 1000.0, ms(3) / 1000.0);
        }
        // Not the name of the mapping.
        assert!(ran.stdout.contains(" <module>\n"), "{ran}");
    } else {
        not_here("go");
    }
    let schema = ["/usr/share/gocode/src/github.com/google/pprof/proto"].map(Path::new);
    let schema = schema
        .into_iter()
        .find(|folder| folder.join("profile.proto").exists());
    match (find_program("protoc"), schema) {
        (Some(_), Some(folder)) => {
            let packed = std::fs::read(&file).expect("read");
            let plain = run_with(Command::new("gzip").arg("-dc"), &packed, common::PATIENCE).ok();
            let mut command = Command::new("protoc");
            command.arg(format!("-I{}", folder.display()));
            command.args(["--decode=perftools.profiles.Profile", "profile.proto"]);
            let ran = run_with(&mut command, &plain.bytes, common::PATIENCE).ok();
            assert!(
                ran.stdout.contains("burn_50") && ran.stdout.contains("sample_type {"),
                "{ran}"
            );
            // Fields that the schema does not know are shown by their numbers.
            let unknown = ran
                .stdout
                .lines()
                .find(|line| line.trim_start().starts_with(|c: char| c.is_ascii_digit()));
            assert_eq!(unknown, None);
        }
        _ => not_here("protoc with the published schema (Debian: golang-github-google-pprof-dev)"),
    }
}

#[test]
fn flame_graph_in_a_browser_or_as_xml() {
    let _shared = in_company();
    let files = files();
    let svg = files.path("a.svg");
    let script = "import sys, xml.dom.minidom as m\nd = m.parse(sys.argv[1])\n\
                  print(d.documentElement.tagName)\nfor t in d.getElementsByTagName('title'): print(t.firstChild.data)";
    let python = Python::any();
    let stage = python.stage();
    std::fs::copy(&svg, stage.path().join("a.svg")).expect("copied");
    let ran = run(&mut python.command(&["-c", script, &stage.inside("a.svg")])).ok();
    assert!(ran.stdout.starts_with("svg\n"), "{ran}");
    for name in BURNERS {
        assert!(ran.stdout.contains(name), "{name}{ran}");
    }
    let browsers = ["chromium", "chromium-browser", "google-chrome"];
    let Some(browser) = browsers.into_iter().find_map(find_program) else {
        return not_here("a browser (chromium)");
    };
    let folder = TempDir::new().expect("folder");
    let picture = folder.path().join("a.png");
    let mut command = Command::new(browser);
    command
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--window-size=1280,800",
            "--virtual-time-budget=2000",
        ])
        .arg(format!(
            "--user-data-dir={}",
            folder.path().join("profile").display()
        ))
        .arg(format!("--screenshot={}", picture.display()))
        .arg(format!("file://{svg}"));
    let ran = run_with(&mut command, b"", Duration::from_secs(90)).ok();
    assert!(
        std::fs::metadata(&picture).expect("a picture").len() > 10_000,
        "{ran}"
    );
}

#[test]
fn collapsed_stacks_by_flamegraphs_own_rules() {
    let _shared = in_company();
    let files = files();
    let text = std::fs::read_to_string(files.path("a.collapsed")).expect("read");
    let mut total = 0u64;
    assert!(text.starts_with("# unit: microseconds 0\n"));
    for line in text.lines() {
        let (stack, count) = line.rsplit_once(' ').expect("STACK COUNT");
        assert!(stack.split(';').all(|frame| !frame.is_empty()), "{line}");
        total += count.parse::<u64>().expect("a whole number");
    }
    assert!(
        (total as f64 / 1e6 - files.total()).abs() < 0.01,
        "microseconds: {total}"
    );
    // And the table made of it again.
    let ran = biopsy(&["report", &files.path("a.collapsed"), "-f", "json"]).ok();
    assert!(!ran.stderr.contains("--period"), "{ran}");
    let ran = ran.json();
    let functions = ran["functions"].as_array().expect("functions");
    assert!(functions.iter().any(|function| {
        function["name"]
            .as_str()
            .is_some_and(|name| name.contains("burn_50"))
    }));
}

#[test]
fn firefoxs_profile_is_whole() {
    let _shared = in_company();
    let files = files();
    let text = std::fs::read_to_string(files.path("a.gecko.json")).expect("read");
    let document: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(document["meta"]["interval"].as_f64(), Some(1.0));
    let length_of = |thread: &Value| thread["samples"]["length"].as_u64().expect("length");
    let threads = document["threads"].as_array().expect("threads");
    let thread = threads
        .iter()
        .max_by_key(|thread| length_of(thread))
        .expect("a thread");
    let length = length_of(thread);
    assert!(length > 100);
    let stacks = thread["stackTable"]["length"].as_u64().expect("length");
    for stack in thread["samples"]["stack"].as_array().expect("stacks") {
        assert!(
            stack.is_null() || stack.as_u64().is_some_and(|stack| stack < stacks),
            "{stack}"
        );
    }
}
