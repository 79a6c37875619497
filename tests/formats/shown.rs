//! What of a profile is shown and how: sums of files, parts of a profile, qualified names, units, sources.

use crate::common;

use std::fs;
use std::path::Path;

use biopsy::formats::pstats::Pstats;
use biopsy::formats::{ExportOptions, Exporter};
use biopsy::profile::{
    CallStats, EdgeStats, FunctionKind, FunctionStats, Meta, Origin, Profile, Tables,
};
use common::{Python, biopsy, find_program, fixture_text, in_company, not_here, rows, run};
use serde_json::Value;
use std::process::Command;
use tempfile::TempDir;

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// A `.prof` file. Rows: name, calls, own time, cumulative time, caller.
fn prof(path: &Path, functions: &[(String, u64, f64, f64, Option<&str>)]) -> String {
    let mut tables = Tables::default();
    let mut id = |name: &str| tables.function("/srv/app.py", 1, name, FunctionKind::Python);
    let rows = functions
        .iter()
        .map(|(name, calls, tottime, cumtime, caller)| FunctionStats {
            function: id(name),
            group: 0,
            ncalls: *calls,
            primitive: *calls,
            tottime: *tottime,
            cumtime: *cumtime,
            callers: caller
                .iter()
                .map(|caller| {
                    let edge = EdgeStats {
                        ncalls: *calls,
                        primitive: *calls,
                        tottime: *tottime,
                        cumtime: *cumtime,
                        ..EdgeStats::default()
                    };
                    (id(caller), edge)
                })
                .collect(),
            lower_bound: false,
        })
        .collect();
    let stats = CallStats {
        rows,
        groups: vec![String::new()],
        exact: true,
    };
    let meta = Meta {
        origin: Origin::Exact,
        ..Meta::default()
    };
    let mut data = Vec::new();
    Pstats
        .export(
            &Profile::from_exact(tables, meta, stats),
            &ExportOptions::default(),
            &mut data,
        )
        .expect("exported");
    fs::write(path, data).expect("written");
    text(path).to_string()
}

/// 500 functions of 0.4 µs below `main`.
fn small(folder: &Path) -> String {
    let mut rows = vec![("main".to_string(), 1, 1e-6, 201e-6, None)];
    rows.extend((0..500).map(|at| (format!("f{at}"), 1, 0.4e-6, 0.4e-6, Some("main"))));
    prof(&folder.join("small.prof"), &rows)
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).expect("read")).expect("JSON")
}

#[test]
fn times_below_a_microsecond_stay_in_every_format() {
    let _company = in_company();
    let folder = TempDir::new().expect("folder");
    let file = small(folder.path());
    let out = |name: &str| folder.path().join(name);
    let outputs = [
        "a.collapsed",
        "a.callgrind",
        "a.speedscope.json",
        "a.gecko.json",
        "a.html",
        "a.json",
    ];
    let mut arguments = vec!["report".to_string(), file];
    for name in outputs {
        arguments.extend(["-o".to_string(), text(&out(name)).to_string()]);
    }
    let ran = biopsy(&arguments).ok();
    assert!(
        ran.stderr.contains("collapsed: numbers are nanoseconds"),
        "{ran}"
    );
    let collapsed = fs::read_to_string(out("a.collapsed")).expect("read");
    assert!(
        collapsed.starts_with("# unit: nanoseconds 0\n"),
        "{collapsed}"
    );
    assert_eq!(collapsed.matches(" 400\n").count(), 500);
    let callgrind = fs::read_to_string(out("a.callgrind")).expect("read");
    assert!(
        callgrind.contains("event: Wall : Wall time (ns)\n"),
        "{callgrind}"
    );
    assert!(callgrind.contains("\ntotals: 201000\n"), "{callgrind}");
    let speedscope = json(&out("a.speedscope.json"));
    let profile = &speedscope["profiles"][0];
    assert_eq!(
        (&profile["unit"], &profile["endValue"]),
        (&"nanoseconds".into(), &201_000.into())
    );
    assert_eq!(speedscope["name"], "small.prof");
    let weights = json(&out("a.gecko.json"))["threads"][0]["samples"]["weight"].clone();
    let weights: f64 = weights
        .as_array()
        .expect("weights")
        .iter()
        .filter_map(Value::as_f64)
        .sum();
    assert!((weights - 0.201).abs() < 1e-9, "{weights}");
    let page = fs::read_to_string(out("a.html")).expect("read");
    let head = crate::page::head(&page);
    let own = |row: &Value| row[3].as_f64().expect("seconds");
    let rows = head["views"][0]["rows"].as_array().expect("rows");
    let total: f64 = rows.iter().map(own).sum();
    assert!((total - 201e-6).abs() < 1e-12, "{total}");
    assert_eq!(head["tick_ns"], 1);
    // The numbers come back as the times they are.
    let back = biopsy(&["report", text(&out("a.collapsed")), "-f", "json"]).ok();
    assert_eq!(back.json()["total_tottime_s"], 0.000_201);
    assert!(!back.stderr.contains("does not say"), "{back}");
}

#[test]
fn several_files_are_added_as_pstats_does() {
    let _company = in_company();
    let folder = TempDir::new().expect("folder");
    let row = |name: &str, calls, own, all, caller| (name.to_string(), calls, own, all, caller);
    let one = prof(
        &folder.path().join("one.prof"),
        &[
            row("main", 1, 0.5, 2.0, None),
            row("f", 3, 1.5, 1.5, Some("main")),
        ],
    );
    let two = prof(
        &folder.path().join("two.prof"),
        &[
            row("g", 2, 0.25, 1.0, None),
            row("f", 4, 0.75, 0.75, Some("g")),
            row("main", 1, 0.1, 0.1, None),
        ],
    );
    let Some(python) = find_program("python3") else {
        return not_here("python3");
    };
    for (ours, theirs) in [
        (&[][..], "print_stats()"),
        (&["--callers"][..], "print_callers()"),
        (&["--callees"][..], "print_callees()"),
    ] {
        let script = format!(
            "import pstats, sys; pstats.Stats(*sys.argv[1:]).sort_stats('cumulative').{theirs}"
        );
        let expected = run(Command::new(&python).args(["-c", &script, &one, &two])).ok();
        let words = [&["report", &one, &two][..], ours].concat();
        assert_eq!(biopsy(&words).ok().stdout, expected.stdout, "{theirs}");
    }
    let collapsed = folder.path().join("a.txt");
    fs::write(&collapsed, "a;b 1\n").expect("written");
    biopsy(&["report", &one, text(&collapsed)]).refused(1, "traced and collapsed stacks");
}

#[test]
fn a_table_that_is_asked_for_stands_beside_files() {
    let _company = in_company();
    let folder = TempDir::new().expect("folder");
    let file = small(folder.path());
    let svg = folder.path().join("a.svg");
    let page = folder.path().join("a.html");
    for (option, value) in [("-s", "ncalls"), ("-l", "3")] {
        let ran = biopsy(&["report", &file, option, value, "-o", text(&svg)]).ok();
        assert!(ran.stdout.contains("function calls in"), "{ran}");
    }
    let ran = biopsy(&["report", &file, "-o", text(&svg), "-o", text(&page)]).ok();
    assert_eq!(ran.stdout, "");
    // The prefix of the format stands once.
    assert!(
        ran.stderr.contains("note: html: ") && !ran.stderr.contains("html: html:"),
        "{ran}"
    );
    let drawn = fs::read_to_string(&svg).expect("read");
    assert!(drawn.contains(">biopsy: small.prof<"), "no title");
    assert!(
        drawn.contains("estimated picture: "),
        "no word that it is estimated"
    );
    biopsy(&["report", &file, "-o", "a.nothing"]).expect_code(2);
    let ran = biopsy(&["report", &file, "-o", "a.nothing"]);
    assert!(ran.stderr.contains(".html"), "{ran}");
    // A difference has several files too.
    let json = folder.path().join("a.json");
    biopsy(&["diff", &file, &file, "-o", text(&svg), "-o", text(&json)]).ok();
    assert!(
        fs::read_to_string(&svg)
            .expect("read")
            .contains("small.prof → small.prof")
    );
    assert!(json.exists());
}

#[test]
fn stacks_of_other_samplers_have_their_units() {
    let _company = in_company();
    let folder = TempDir::new().expect("folder");
    let put = |name: &str, content: &str| {
        let path = folder.path().join(name);
        fs::write(&path, content).expect("written");
        text(&path).to_string()
    };
    let pyspy = put(
        "pyspy.txt",
        "main (a.py:9);work (a.py:3) 4\nmain (a.py:9);work (a.py:4) 6\n 2\n",
    );
    let ran = biopsy(&["report", &pyspy]).ok();
    assert!(ran.stderr.contains("--period 10ms"), "{ran}");
    let ran = biopsy(&["report", &pyspy, "--period", "10ms"]).ok();
    assert!(
        ran.stdout.contains("in 0.120 seconds") && ran.stderr.is_empty(),
        "{ran}"
    );
    let found = rows(&ran.stdout);
    let own = |name: &str| {
        found
            .iter()
            .find(|row| row.function.contains(name))
            .map(|row| row.tottime)
    };
    assert_eq!((own("work"), own("<no stack>")), (Some(0.1), Some(0.02)));
    let austin = put(
        "austin.txt",
        "# austin: 4.0.0\n# mode: wall\n\nP7;T0:84;/w/a.py:K.hot:67 2000000\nP7;T0:84;/w/a.py:K.hot:68 1000000\nP7;T0:61 500000\n",
    );
    let ran = biopsy(&["report", &austin]).ok();
    let found = rows(&ran.stdout);
    assert_eq!(found[0].function, "/w/a.py:0(K.hot)", "{ran}");
    assert!(
        (found[0].tottime - 3.0).abs() < 1e-9 && ran.stderr.is_empty(),
        "{ran}"
    );
    let sampling = put(
        "sampling.txt",
        "tid:4566;<frozen runpy>:_run_code:87;gunicorn:<module>:7;jobs.py:A.foo:5 431\n",
    );
    let ran = biopsy(&["report", &sampling, "--period", "1ms", "--threads"]).ok();
    assert!(
        ran.stdout.contains("gunicorn:0(<module>)") && ran.stdout.contains("0.431"),
        "{ran}"
    );
    let bytes = put("bytes.txt", "# mode: memory\n\nP1;T0:1;/a.py:f:6 4096\n");
    biopsy(&["report", &bytes]).refused(1, "bytes of memory");
    let prof = small(folder.path());
    biopsy(&["report", &prof, "--period", "10ms"]).refused(2, "--period");
}

#[test]
fn deep_stacks_make_bounded_files() {
    let _company = in_company();
    let folder = TempDir::new().expect("folder");
    let depth = 20_000usize;
    let names: Vec<String> = (0..depth).map(|at| format!("f{at}")).collect();
    let rows: Vec<_> = (0..depth)
        .map(|at| {
            let caller = at.checked_sub(1).map(|at| names[at].as_str());
            (
                names[at].clone(),
                1,
                1e-6,
                (depth - at) as f64 * 1e-6,
                caller,
            )
        })
        .collect();
    let file = prof(&folder.path().join("deep.prof"), &rows);
    for name in ["a.collapsed", "a.speedscope.json", "a.pb.gz"] {
        let path = folder.path().join(name);
        let ran = biopsy(&["report", &file, "-o", text(&path)]).ok();
        assert!(ran.stderr.contains("written in pieces"), "{ran}");
        let size = fs::metadata(&path).expect("written").len();
        assert!(size < 100_000_000, "{name}: {size} bytes");
    }
    let collapsed = fs::read_to_string(folder.path().join("a.collapsed")).expect("read");
    // Each function keeps its own time.
    assert_eq!(collapsed.matches(" 1000\n").count(), depth);
}

/// Rows of a report: function and cumulative time.
fn shown(arguments: &[&str]) -> Vec<(String, f64)> {
    let ran = biopsy(arguments).ok();
    let rows = rows(&ran.stdout).into_iter();
    rows.map(|row| (row.function, row.cumtime)).collect()
}

#[test]
fn parts_of_a_profile_and_names_and_sources() {
    for python in Python::all() {
        let _company = in_company();
        let stage = python.stage();
        let folder = stage.path();
        let script = "two_foos.py";
        stage.put(script, &fixture_text(script));
        let recording = folder.join("a.biopsy");
        let recording = text(&recording);
        let inside = stage.inside(script);
        let words = python.words(&[&inside]);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        biopsy(&[&["run", "-q", "-o", recording, "--"][..], &words].concat()).ok();
        let has = |rows: &[(String, f64)], name: &str| {
            let found = rows.iter().find(|row| row.0.contains(name));
            found.map(|row| row.1)
        };
        let near = |found: Option<f64>, expected: f64| {
            assert!(
                found.is_some_and(|found| (found - expected).abs() < 0.4),
                "{}: {found:?}, not {expected}",
                python.version
            );
        };
        let focus = shown(&["report", recording, "--focus", "^second$"]);
        near(has(&focus, "(<module>)"), 0.6);
        assert_eq!(has(&focus, "(first)"), None, "{}", python.version);
        let ignore = shown(&[
            "report",
            recording,
            "--ignore",
            "^second$",
            "--hide",
            "wrap|perf_counter",
        ]);
        near(has(&ignore, "(first)"), 0.6);
        assert!(has(&ignore, "(second)").is_none() && has(&ignore, "wrap").is_none());
        let part = shown(&["report", recording, "--from", "200ms", "--to", "500ms"]);
        let whole = part.iter().map(|row| row.1).fold(0.0, f64::max);
        assert!(whole > 0.05 && whole < 0.32, "{}: {whole}", python.version);
        // A recording that is made of one is whole.
        let again = folder.join("b.biopsy");
        biopsy(&[
            "report",
            recording,
            "-q",
            "--focus",
            "nobody",
            "-o",
            text(&again),
        ])
        .ok();
        assert_eq!(
            shown(&["report", text(&again)]),
            shown(&["report", recording])
        );

        let document = biopsy(&["report", recording, "-f", "json"]).ok().json();
        let functions = document["functions"].as_array().expect("functions");
        let mut names: Vec<&str> = (functions.iter().filter(|f| f["name"] == "foo"))
            .filter_map(|f| f["qualname"].as_str())
            .collect();
        names.sort_unstable();
        let is_new = python.minor >= 11;
        let expected: &[&str] = if is_new { &["A.B.foo", "A.foo"] } else { &[] };
        assert_eq!(names, expected, "{}", python.version);
        let table = biopsy(&["report", recording, "--qualnames"]).ok();
        assert_eq!(table.stdout.contains("(A.B.foo)"), is_new, "{table}");
        assert_eq!(
            table.stderr.contains("no qualified names"),
            !is_new,
            "{table}"
        );

        let lines = biopsy(&["report", recording, "--lines", "first"]).ok();
        if python.root.is_some() {
            // What such a program saw lies elsewhere for us.
            continue;
        }
        assert!(lines.stdout.contains("      wrap(A().foo, 0.6)"), "{lines}");
        assert!(lines.stderr.is_empty(), "{lines}");
        stage.put(script, &format!("\n{}", fixture_text(script)));
        // The text is that of the code that ran.
        let again = biopsy(&["report", recording, "--lines", "first"]).ok();
        assert_eq!((&again.stdout, &*again.stderr), (&lines.stdout, ""));
    }
}

#[test]
fn relative_sources_are_found_from_anywhere() {
    let _company = in_company();
    let Some(python) = Python::all().iter().find(|python| python.root.is_none()) else {
        return not_here("a Python outside of a root of its own");
    };
    let stage = python.stage();
    stage.put("two_foos.py", &fixture_text("two_foos.py"));
    let recording = stage.path().join("a.biopsy");
    let words = python.words(&["two_foos.py"]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let arguments = [&["run", "-q", "-o", text(&recording), "--"][..], &words].concat();
    run(common::biopsy_command(&arguments).current_dir(stage.path())).ok();
    let mut report = common::biopsy_command(&["report", text(&recording), "--lines", "first"]);
    let lines = run(report.current_dir("/")).ok();
    assert!(lines.stdout.contains("      wrap(A().foo, 0.6)"), "{lines}");
}

#[test]
fn patterns_and_times_that_make_no_sense_are_refused() {
    let _company = in_company();
    let folder = TempDir::new().expect("folder");
    let file = small(folder.path());
    biopsy(&["report", &file, "--focus", "("]).refused(2, "--focus");
    biopsy(&["report", &file, "--from", "1s"]).refused(1, "when things happened");
    let part = biopsy(&["report", &file, "--focus", "^f7$", "-f", "json"])
        .ok()
        .json();
    for row in part["functions"].as_array().expect("rows") {
        assert_eq!(
            (row["ncalls_from"].as_str(), &row["ncalls_error"]),
            (Some("estimated"), &serde_json::Value::Null),
            "{row}"
        );
    }
    let ran = biopsy(&["report", &file, "--focus", "^f7$"]).ok();
    let found = rows(&ran.stdout);
    assert_eq!(found.len(), 2, "{ran}");
    assert!(
        ran.stdout.contains("shown: stacks with '^f7$'; estimated"),
        "{ran}"
    );
}
