//! The formats made of stacks: golden files of one rich profile, and what readers that are not ours make
//! of them (callgrind_annotate, speedscope's importer, an XML parser).
//!
//! `BLESS=1` rewrites the golden files. speedscope is looked for in `test-node/node_modules` of what `.ci/run` keeps
//! (`npm install speedscope` there).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use biopsy::formats::callgrind::Callgrind;
use biopsy::formats::collapsed::Collapsed;
use biopsy::formats::flamegraph::{DifferentialOptions, FlameGraph, write_differential};
use biopsy::formats::speedscope::Speedscope;
use biopsy::formats::{ExportOptions, Exporter, Importer};
use biopsy::profile::record::Sample;
use biopsy::profile::{
    CallEstimate, CallSource, CallStats, Counted, EdgeStats, Filter, FunctionId, FunctionKind,
    FunctionStats, Meta, Origin, ProcessId, ProcessInfo, Profile, Recorder, RunState, Split,
    Tables, ThreadId, ThreadInfo,
};
use proptest::prelude::*;

/// One frame: file, first line, name, running line. File `~` makes a C function.
type Frame = (&'static str, u32, &'static str, u32);

const MODULE: Frame = ("/srv/app/main.py", 1, "<module>", 90);
const MAIN: Frame = ("/srv/app/main.py", 10, "main", 12);
const MAIN_LATER: Frame = ("/srv/app/main.py", 10, "main", 14);
const FIB: Frame = ("/srv/app/fib.py", 3, "fib", 5);
const FIB_BASE: Frame = ("/srv/app/fib.py", 3, "fib", 4);
const INIT_A: Frame = ("/srv/app/shapes.py", 5, "__init__", 6);
const INIT_B: Frame = ("/srv/app/shapes.py", 25, "__init__", 27);
const PACKAGE_A: Frame = ("/usr/lib/python3.11/json/__init__.py", 299, "loads", 346);
const PACKAGE_B: Frame = ("/usr/lib/python3.11/pickle/__init__.py", 299, "loads", 300);
const SUM: Frame = ("~", 0, "<built-in method builtins.sum>", 0);
const UNICODE: Frame = ("/srv/app/ünï <&>.py", 7, "größe_測", 8);
const HOSTILE: Frame = ("/srv/app/evil\n.py", 1, "a;b\x1b[2J\n 5", 2);
const WORKER: Frame = ("/usr/lib/python3.11/threading.py", 1002, "_bootstrap", 1002);
const EVEN: Frame = ("/srv/app/ring.py", 1, "even", 2);
const ODD: Frame = ("/srv/app/ring.py", 5, "odd", 6);

/// Adds samples of a thread: stack outermost first, milliseconds, fresh from depth.
fn record(recorder: &mut Recorder, thread: u64, samples: &[(&[Frame], u64, Option<u16>)]) {
    let thread = recorder.add_thread(ThreadInfo {
        process: ProcessId(0),
        os_id: thread,
        python_id: thread + 0x7f00_0000_0000,
        name: Some(
            if thread == 4711 {
                "MainThread"
            } else {
                "worker/1"
            }
            .to_string(),
        ),
        started_us: if thread == 4711 { 0 } else { 5_000 },
    });
    for (frames, ms, fresh_from) in samples {
        let tables = &mut recorder.profile.tables;
        let stack = frames.iter().fold(None, |stack, frame| {
            let function = function(tables, frame);
            let frame = tables.frame(function, frame.3);
            Some(tables.stack(stack, frame))
        });
        recorder.add(Sample {
            thread,
            stack: stack.expect("a frame"),
            count: 1,
            wall_us: ms * 1000 + 1,
            cpu_us: ms * 500,
            fresh_from: *fresh_from,
            state: RunState::ON_CPU,
        });
    }
}

fn function(tables: &mut Tables, &(file, line, name, _): &Frame) -> FunctionId {
    let kind = if file == "~" {
        FunctionKind::Builtin
    } else {
        FunctionKind::Python
    };
    tables.function(file, line, name, kind)
}

/// Says how often a function was called in a thread, by whom, and how far off that may be.
fn count(
    profile: &mut Profile,
    thread: u32,
    callee: &Frame,
    calls: f64,
    error: Option<f64>,
    callers: &[(Frame, f64)],
) {
    let tables = &mut profile.tables;
    profile.counts.push(Counted {
        thread: ThreadId(thread),
        function: function(tables, callee),
        estimate: CallEstimate {
            calls,
            error,
            source: match error {
                Some(_) => CallSource::Watchpoint,
                None => CallSource::LowerBound,
            },
        },
        callers: callers
            .iter()
            .map(|(caller, share)| (function(tables, caller), *share))
            .collect(),
    });
}

/// Recursion, direct and in a ring; two threads; a C function; equal names; odd names; a deep stack; calls that were
/// counted in both threads, in one and in none.
fn rich() -> Profile {
    let mut recorder = Recorder::default();
    recorder.profile.processes.push(ProcessInfo {
        pid: 4711,
        ..ProcessInfo::default()
    });
    let deep: Vec<Frame> = [MODULE, MAIN].into_iter().chain([FIB; 40]).collect();
    record(
        &mut recorder,
        4711,
        &[
            (&[MODULE, MAIN], 10, Some(0)),
            (&[MODULE, MAIN, FIB], 5, Some(2)),
            (&[MODULE, MAIN, FIB, FIB], 7, Some(3)),
            (&[MODULE, MAIN, FIB, FIB, FIB_BASE], 9, Some(4)),
            (&[MODULE, MAIN, FIB, FIB_BASE], 3, Some(3)),
            (&[MODULE, MAIN, FIB, SUM], 2, Some(3)),
            (&deep, 1, Some(2)),
            (&[MODULE, MAIN_LATER, INIT_A], 4, Some(2)),
            (&[MODULE, MAIN_LATER, INIT_B], 6, Some(2)),
            (&[MODULE, MAIN_LATER, INIT_B], 6, None),
            (&[MODULE, MAIN_LATER, PACKAGE_A], 2, Some(2)),
            (&[MODULE, MAIN_LATER, PACKAGE_B, UNICODE], 8, Some(2)),
            (&[MODULE, MAIN_LATER, HOSTILE], 3, Some(2)),
        ],
    );
    record(
        &mut recorder,
        4712,
        &[
            (&[WORKER, EVEN, ODD, EVEN, SUM], 11, Some(0)),
            (&[WORKER, EVEN, ODD], 13, Some(3)),
            (&[WORKER, ODD, EVEN, ODD, UNICODE], 17, Some(1)),
            // An outermost frame that is called elsewhere too.
            (&[FIB, FIB_BASE], 19, Some(0)),
        ],
    );
    let profile = &mut recorder.profile;
    let of_fib = [(MAIN, 0.05), (FIB, 0.95)];
    count(profile, 0, &FIB, 176.6, Some(5.3), &of_fib);
    count(profile, 0, &SUM, 8123.4, Some(97.0), &[(FIB, 1.0)]);
    count(profile, 1, &SUM, 12.0, None, &[]);
    let of_package = [(PACKAGE_B, 1.0)];
    count(profile, 0, &UNICODE, 250.2, Some(12.5), &of_package);
    count(profile, 1, &UNICODE, 64.0, Some(4.1), &[(ODD, 0.95)]);
    count(profile, 0, &INIT_B, 3.0, Some(0.2), &[(MAIN, 1.0)]);
    let of_even = [(WORKER, 0.1), (ODD, 0.9)];
    count(profile, 1, &EVEN, 33.3, Some(1.7), &of_even);
    count(profile, 1, &ODD, 41.0, Some(2.4), &[(EVEN, 0.97)]);
    recorder.profile.meta = Meta {
        command: "python3 /srv/app/main.py --größe <3".to_string(),
        python: "3.11.7".to_string(),
        pid: 4711,
        rate_hz: 1000.0,
        duration_us: 126_000,
        samples: 126,
        given_up: 1,
        approximate_stacks: true,
        has_cpu_time: true,
        ..Meta::default()
    };
    recorder.profile
}

/// Rows as cProfile has them, with both kinds of recursion.
fn exact() -> Profile {
    let mut tables = Tables::default();
    let mut id = |name: &str| {
        tables.function(
            "/srv/app/x.py",
            name.len() as u32,
            name,
            FunctionKind::Python,
        )
    };
    let mut row =
        |name: &str, ncalls, tottime, cumtime, callers: &[(&str, u64, f64)]| FunctionStats {
            function: id(name),
            group: 0,
            ncalls,
            primitive: ncalls,
            tottime,
            cumtime,
            callers: callers
                .iter()
                .map(|&(caller, ncalls, cumtime)| {
                    let edge = EdgeStats {
                        ncalls,
                        primitive: ncalls,
                        cumtime,
                        ..EdgeStats::default()
                    };
                    (id(caller), edge)
                })
                .collect(),
            lower_bound: false,
        };
    let rows = vec![
        row("main", 1, 0.5, 9.5, &[]),
        row("fib", 20, 3.0, 3.0, &[("main", 1, 3.0), ("fib", 19, 2.9)]),
        row(
            "is_even",
            6,
            1.5,
            4.0,
            &[("main", 2, 4.0), ("is_odd_", 4, 3.0)],
        ),
        row("is_odd_", 5, 2.5, 3.5, &[("is_even", 5, 3.5)]),
        row(
            "shared",
            4,
            2.5,
            2.5,
            &[("main", 3, 2.0), ("callback", 1, 0.5)],
        ),
        row("callback", 1, 0.0, 0.5, &[]),
    ];
    let stats = CallStats {
        rows,
        groups: vec![String::new()],
        exact: true,
    };
    let meta = Meta {
        origin: Origin::Exact,
        ..Meta::default()
    };
    Profile::from_exact(tables, meta, stats)
}

fn apart() -> ExportOptions {
    let filter = Filter {
        split: Split::Threads,
        ..Filter::default()
    };
    ExportOptions {
        filter,
        ..ExportOptions::default()
    }
}

fn export(exporter: &dyn Exporter, profile: &Profile, options: &ExportOptions) -> String {
    let mut out = Vec::new();
    exporter.export(profile, options, &mut out).expect("export");
    String::from_utf8(out).expect("UTF-8")
}

fn golden(path: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/golden")
        .join(path);
    let actual = actual.replace(
        concat!("biopsy ", env!("CARGO_PKG_VERSION")),
        "biopsy VERSION",
    );
    if std::env::var_os("BLESS").is_some() {
        std::fs::create_dir_all(path.parent().expect("folder")).expect("folder");
        std::fs::write(&path, &actual).expect("write");
    }
    let expected = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; BLESS=1 writes it", path.display()));
    assert!(
        expected == actual,
        "{} differs; BLESS=1 rewrites it\n{actual}",
        path.display()
    );
}

#[test]
fn golden_files() {
    let plain = ExportOptions::default();
    let stripped = ExportOptions {
        strip_dirs: true,
        ..ExportOptions::default()
    };
    let formats: [(&str, &str, &dyn Exporter); 4] = [
        ("callgrind", "callgrind", &Callgrind),
        ("collapsed", "collapsed", &Collapsed),
        ("speedscope", "speedscope.json", &Speedscope),
        ("flamegraph", "svg", &FlameGraph),
    ];
    for (folder, ending, exporter) in formats {
        golden(
            &format!("{folder}/rich.{ending}"),
            &export(exporter, &rich(), &plain),
        );
        golden(
            &format!("{folder}/threads.{ending}"),
            &export(exporter, &rich(), &apart()),
        );
        golden(
            &format!("{folder}/stripped.{ending}"),
            &export(exporter, &rich(), &stripped),
        );
        golden(
            &format!("{folder}/exact.{ending}"),
            &export(exporter, &exact(), &plain),
        );
    }
}

fn in_file(name: &str, content: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join(name);
    std::fs::write(&path, content).expect("write");
    (folder, path)
}

/// Wall time in microseconds by `file:function`, and the total, as callgrind_annotate prints them.
/// `None` when it is not installed.
fn annotate(content: &str, inclusive: bool) -> Option<(u64, BTreeMap<String, u64>)> {
    let (_folder, path) = in_file("callgrind.out.1", content);
    let inclusive = if inclusive { "yes" } else { "no" };
    let output = Command::new("callgrind_annotate")
        .args([
            &format!("--inclusive={inclusive}"),
            "--threshold=100",
            "--auto=no",
            "--show=Wall",
        ])
        .arg("--show-percs=no")
        .arg(&path)
        .output();
    let Ok(output) = output else {
        println!("skipped: callgrind_annotate is not installed");
        return None;
    };
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{errors}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let mut total = None;
    let mut rows = BTreeMap::new();
    for line in text.lines() {
        let Some((number, name)) = line.trim_start().split_once(' ') else {
            continue;
        };
        let Ok(number) = number.replace(',', "").parse::<u64>() else {
            continue;
        };
        if name.trim() == "PROGRAM TOTALS" {
            total = Some(number);
        } else {
            assert!(
                rows.insert(name.trim().to_string(), number).is_none(),
                "twice: {name}"
            );
        }
    }
    Some((total.expect("total"), rows))
}

/// What a second has of a callgrind file's units: traced calls are in nanoseconds.
fn units(stats: &CallStats) -> f64 {
    if stats.exact { 1e9 } else { 1e6 }
}

/// What our own table has: own or inclusive microseconds, sorted; names differ where they clash.
fn table(stats: &CallStats, inclusive: bool) -> Vec<u64> {
    let units = units(stats);
    let time = |row: &FunctionStats| if inclusive { row.cumtime } else { row.tottime };
    let mut times: Vec<u64> = stats
        .rows
        .iter()
        .map(|row| (time(row) * units).round() as u64)
        .filter(|&t| t > 0)
        .collect();
    times.sort_unstable();
    times
}

#[test]
fn callgrind_annotate_has_our_numbers() {
    for (profile, options) in [
        (rich(), ExportOptions::default()),
        (rich(), apart()),
        (exact(), ExportOptions::default()),
    ] {
        let content = export(&Callgrind, &profile, &options);
        let stats = profile.stats(&options.filter);
        for inclusive in [false, true] {
            let Some((total, rows)) = annotate(&content, inclusive) else {
                return;
            };
            assert_eq!(
                total,
                (stats.total_tottime() * units(&stats)).round() as u64
            );
            let mut times: Vec<u64> = rows
                .iter()
                .filter(|(name, time)| !name.contains("<root>") && **time > 0)
                .map(|(_, &time)| time)
                .collect();
            times.sort_unstable();
            assert_eq!(
                times,
                table(&stats, inclusive),
                "inclusive: {inclusive} {rows:#?}"
            );
            assert!(times.iter().all(|&time| time <= total));
        }
    }
}

#[test]
fn callgrind_tells_functions_apart() {
    let content = export(&Callgrind, &rich(), &ExportOptions::default());
    let Some((total, rows)) = annotate(&content, true) else {
        return;
    };
    assert_eq!(
        rows.get("/srv/app/shapes.py:__init__:5"),
        Some(&4_001),
        "{rows:#?}"
    );
    assert_eq!(rows.get("/srv/app/shapes.py:__init__:25"), Some(&12_002));
    let json = "/usr/lib/python3.11/json/__init__.py:loads (json/__init__.py)";
    assert_eq!(rows.get(json), Some(&2_001));
    assert_eq!(rows.get("/srv/app/main.py:<module>"), Some(&66_013));
    assert_eq!(rows.get("/srv/app/ring.py:even"), Some(&41_003));
    assert_eq!(rows.get("~:<root>"), Some(&total));
    assert!(content.contains("\nsummary: 126017 63000\n"), "{content}");
}

#[test]
fn collapsed_stacks_come_back() {
    for options in [ExportOptions::default(), apart()] {
        for profile in [rich(), exact()] {
            let text = export(&Collapsed, &profile, &options);
            assert!(Collapsed.recognises(text.as_bytes()));
            let again = Collapsed.import(text.as_bytes()).expect("import");
            assert_eq!(again.meta.origin, Origin::Collapsed);
            if profile.exact.is_none() {
                assert_eq!(export(&Collapsed, &again, &ExportOptions::default()), text);
                continue;
            }
            // Traced calls are in nanoseconds; what is read back is as fine as samples are.
            assert!(text.starts_with("# unit: nanoseconds 0\n"));
            let lines = text.lines().skip(1);
            let numbers = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
            assert_eq!(again.meta.duration_us, numbers.sum::<u64>() / 1000);
        }
    }
}

#[test]
fn collapsed_stacks_of_other_writers() {
    let text = "process 12:\"python x.py\";thread (34): MainThread;<module> (x.py:9);f (x.py:3) 7\n\
                P12;T34;/x/x.py:<module>:9;/x/x.py:f:3 5\n\
                main;std::vector<int, a>::push;[unknown] 2\n";
    let profile = Collapsed.import(text.as_bytes()).expect("import");
    let stats = profile.stats(&Filter::default());
    let own = |name: &str, file: &str| {
        let tables = &profile.tables;
        let found = stats
            .rows
            .iter()
            .find(|row| tables.name(row.function) == name && tables.file(row.function) == file);
        found.map(|row| (row.tottime * 1e6).round() as u64)
    };
    assert_eq!(own("f", "x.py"), Some(7));
    assert_eq!(own("f", "/x/x.py"), Some(5));
    assert_eq!(own("[unknown]", ""), Some(2));
    assert_eq!(profile.meta.samples, 14);
}

/// The text of all `<text>` and `<title>` elements.
fn svg_texts(svg: &str) -> Vec<String> {
    let options = roxmltree::ParsingOptions {
        allow_dtd: true,
        nodes_limit: u32::MAX,
    };
    let document = roxmltree::Document::parse_with_options(svg, options).expect("XML");
    document
        .descendants()
        .filter(|node| matches!(node.tag_name().name(), "text" | "title"))
        .filter_map(|node| node.text().map(str::to_string))
        .collect()
}

#[test]
fn flame_graphs_are_xml_with_the_facts() {
    let texts = svg_texts(&export(&FlameGraph, &rich(), &apart()));
    let has = |text: &str| texts.iter().any(|found| found == text);
    assert!(
        has("biopsy: python3 /srv/app/main.py --größe <3"),
        "{texts:#?}"
    );
    assert!(has(
        "sampled at 1000 Hz for 0.13 s: 126 samples, 1 given up; approximate stacks"
    ));
    assert!(has("all (126,017 us, 100%)"));
    assert!(has("[MainThread (4711)] (66,013 us, 52.38%)"), "{texts:#?}");
    assert!(has("größe_測 (/srv/app/ünï <&>.py:7) (8,001 us, 6.35%)"));

    let texts = svg_texts(&export(&FlameGraph, &exact(), &ExportOptions::default()));
    assert!(
        texts
            .iter()
            .any(|text| text.contains("estimated picture: "))
    );
}

#[test]
fn large_profiles_make_bounded_flame_graphs() {
    let mut recorder = Recorder::default();
    let deep: Vec<Frame> = [EVEN, ODD].into_iter().cycle().take(10_000).collect();
    record(&mut recorder, 4711, &[(&deep, 1000, Some(0))]);
    let tables = &mut recorder.profile.tables;
    let mut stacks = Vec::new();
    for at in 0..100_000u32 {
        let mut stack = None;
        for part in [at % 10, at % 1000, at] {
            let function = tables.function("many.py", part, "f", FunctionKind::Python);
            let frame = tables.frame(function, part);
            stack = Some(tables.stack(stack, frame));
        }
        stacks.extend(stack);
    }
    for stack in stacks {
        recorder.add(Sample {
            thread: biopsy::profile::ThreadId(0),
            stack,
            count: 1,
            wall_us: 100,
            cpu_us: 0,
            fresh_from: Some(0),
            state: RunState::default(),
        });
    }
    let profile = recorder.profile;
    let mut out = Vec::new();
    let losses = FlameGraph
        .export(&profile, &ExportOptions::default(), &mut out)
        .expect("export");
    assert!(
        losses.iter().any(|loss| loss.contains("deeper than 400")),
        "{losses:?}"
    );
    assert!(out.len() < 10_000_000, "{}", out.len());
    assert!(
        svg_texts(&String::from_utf8(out).expect("UTF-8"))
            .iter()
            .any(|text| text.contains("11,000,001 us, 100%"))
    );
    for exporter in [&Callgrind as &dyn Exporter, &Collapsed, &Speedscope] {
        exporter
            .export(&profile, &ExportOptions::default(), &mut std::io::sink())
            .expect("export");
    }
}

#[test]
fn differential_flame_graphs_show_what_changed() {
    let (old, mut new) = (rich(), rich());
    for run in &mut new.runs {
        run.wall_us *= 2;
    }
    new.runs[0].wall_us *= 10;
    for normalise in [false, true] {
        let mut out = Vec::new();
        let options = DifferentialOptions {
            normalise,
            ..DifferentialOptions::default()
        };
        write_differential(&old, &new, &options, &mut out).expect("write");
        let texts = svg_texts(&String::from_utf8(out).expect("UTF-8"));
        let sum = texts
            .iter()
            .find(|text| text.starts_with("<built-in method builtins.sum> (22,002"));
        let sum = sum.unwrap_or_else(|| panic!("{texts:#?}"));
        assert_eq!(sum.contains("; +"), !normalise, "{sum}");
    }
}

#[test]
fn speedscope_files_have_what_the_schema_requires() {
    for profile in [rich(), exact()] {
        let text = export(&Speedscope, &profile, &ExportOptions::default());
        let file: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(
            file["$schema"],
            "https://www.speedscope.app/file-format-schema.json"
        );
        let frames = file["shared"]["frames"].as_array().expect("frames");
        assert!(frames.iter().all(|frame| frame["name"].is_string()));
        for section in file["profiles"].as_array().expect("profiles") {
            assert_eq!(section["type"], "sampled");
            let unit = section["unit"].as_str().expect("text");
            assert!(["microseconds", "nanoseconds"].contains(&unit));
            assert!(section["name"].is_string());
            let samples = section["samples"].as_array().expect("samples");
            let weights = section["weights"].as_array().expect("weights");
            assert_eq!(samples.len(), weights.len());
            let sum: u64 = weights.iter().filter_map(serde_json::Value::as_u64).sum();
            let at = |key: &str| section[key].as_u64().expect("number");
            assert_eq!(at("endValue") - at("startValue"), sum);
            let known =
                |id: &serde_json::Value| id.as_u64().is_some_and(|id| (id as usize) < frames.len());
            assert!(
                samples
                    .iter()
                    .all(|stack| stack.as_array().expect("stack").iter().all(known))
            );
        }
    }
}

#[test]
fn speedscope_itself_has_our_numbers() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let modules = crate::common::kept_folder().join("test-node");
    let is_here = modules.join("node_modules/speedscope").exists();
    if !is_here || Command::new("node").arg("--version").output().is_err() {
        println!("not here: node, or speedscope (bash .ci/run fetches it)");
        return;
    }
    let profile = rich();
    let text = export(&Speedscope, &profile, &ExportOptions::default());
    let (_folder, path) = in_file("profile.json", &text);
    let output = Command::new("node")
        .arg(root.join("fixtures/readers/speedscope-import.mjs"))
        .args([&modules, &path])
        .output()
        .expect("node");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let read: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let profiles = &read["profiles"];
    let function = |at: usize, name: &str, file: &str, line: u32| {
        let frames = profiles[at]["frames"].as_array().expect("frames");
        let is_it =
            |f: &&serde_json::Value| f["name"] == name && f["file"] == file && f["line"] == line;
        let frame = frames.iter().find(is_it).expect("the function");
        (frame["self"].as_u64(), frame["total"].as_u64())
    };
    assert_eq!(profiles[0]["name"], "MainThread (4711)");
    assert_eq!(profiles[0]["unit"], "microseconds");
    assert_eq!(profiles[0]["total"], 66_013);
    let main = function(0, "main", "/srv/app/main.py", 10);
    assert_eq!(main, (Some(10_001), Some(66_013)));
    let fib = function(0, "fib", "/srv/app/fib.py", 3);
    assert_eq!(fib, (Some(25_005), Some(27_006)));
    assert_eq!(profiles[1]["total"], 60_004);
    let even = function(1, "even", "/srv/app/ring.py", 1);
    assert_eq!(even, (Some(0), Some(41_003)));
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(data in proptest::collection::vec(any::<u8>(), 0..300)) {
        Collapsed.recognises(&data);
        let _ = Collapsed.import(&data);
    }

    #[test]
    fn likely_lines_come_back(text in "([a-z():;. 0-9é\\n]{0,20}[a-z](;| \\(| 1|:1\\)| 7\\n){1,3}){0,8}") {
        if let Ok(profile) = Collapsed.import(text.as_bytes()) {
            let once = export(&Collapsed, &profile, &ExportOptions::default());
            if !once.is_empty() {
                let again = Collapsed.import(once.as_bytes()).expect("our own");
                let total = |p: &Profile| p.runs.iter().map(|r| u64::from(r.wall_us)).sum::<u64>();
                prop_assert_eq!(total(&again), total(&profile));
            }
        }
    }
}
