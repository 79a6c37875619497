//! Recordings, JSON, pprof and Firefox profiles: what is written against goldens (`BLESS=1` rewrites them)
//! and against readers that biopsy has no part in; recordings that are damaged in many ways.

mod profiles;
mod readers;
mod recordings;

use std::io::Read;
use std::path::{Path, PathBuf};

use biopsy::formats::pstats::Pstats;
use biopsy::formats::{ExportOptions, Importer, registry};
use biopsy::profile::{Filter, ProcessId, Profile, Split};

/// What the exporter of `format` writes.
fn export(format: &str, profile: &Profile, options: &ExportOptions) -> Vec<u8> {
    let exporter = registry::by_name(format)
        .and_then(|f| f.exporter())
        .expect("exporter");
    let mut out = Vec::new();
    exporter
        .export(profile, options, &mut out)
        .expect("exports");
    out
}

fn split(split: Split) -> ExportOptions {
    ExportOptions {
        filter: Filter {
            split,
            ..Filter::default()
        },
        ..ExportOptions::default()
    }
}

fn gunzip(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    flate2::read::GzDecoder::new(data)
        .read_to_end(&mut out)
        .expect("gzip");
    out
}

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Compares with `fixtures/golden/NAME`; a missing one fails.
fn assert_golden(name: &str, actual: &[u8]) {
    let path = project("fixtures/golden").join(name);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, actual).expect("writes the golden");
        return;
    }
    let expected = std::fs::read(&path).unwrap_or_else(|error| {
        panic!("{}: {error}; BLESS=1 writes it", path.display());
    });
    assert!(
        expected == actual,
        "{} differs (BLESS=1 rewrites it); now:\n{}",
        path.display(),
        String::from_utf8_lossy(actual)
    );
}

/// JSON as a golden is kept: a line a value.
fn pretty(json: &[u8]) -> Vec<u8> {
    let value: serde_json::Value = serde_json::from_slice(json).expect("JSON");
    let mut text = serde_json::to_vec_pretty(&value).expect("JSON");
    text.push(b'\n');
    text
}

#[test]
fn json_is_as_it_was() {
    let rich = profiles::rich();
    assert_golden(
        "json/rich.json",
        &export("json", &rich, &ExportOptions::default()),
    );
    assert_golden(
        "json/threads.json",
        &export("json", &rich, &split(Split::Threads)),
    );
    let exact = profiles::exact();
    assert_golden(
        "json/exact.json",
        &export("json", &exact, &ExportOptions::default()),
    );
}

#[test]
fn json_keeps_the_contract() {
    let json = export("json", &profiles::rich(), &split(Split::Processes));
    assert!(json.starts_with(b"{\"schema\":\"biopsy.profile/1\","));
    let value: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
    for field in [
        "python",
        "pid",
        "command",
        "mode",
        "rate_hz",
        "duration_s",
        "samples",
        "given_up",
        "retried",
        "calls_exact",
        "approximate_stacks",
        "functions",
        "threads",
        "processes",
    ] {
        assert!(value.get(field).is_some(), "{field}");
    }
    let functions = value["functions"].as_array().expect("functions");
    let times: Vec<f64> = functions
        .iter()
        .filter_map(|f| f["cumtime_s"].as_f64())
        .collect();
    assert_eq!(times.len(), functions.len());
    assert!(times.is_sorted_by(|a, b| a >= b), "biggest first");
    for function in functions {
        for field in [
            "file",
            "line",
            "name",
            "ncalls",
            "primitive_calls",
            "ncalls_from",
            "tottime_s",
            "callers",
            "lines",
            "group",
        ] {
            assert!(function.get(field).is_some(), "{field}");
        }
        let by_line: f64 = function["lines"]
            .as_array()
            .expect("lines")
            .iter()
            .map(|line| line["self_s"].as_f64().expect("seconds"))
            .sum();
        let own = function["tottime_s"].as_f64().expect("seconds");
        assert!((by_line - own).abs() < 1e-9, "{function}");
    }
    let own: f64 = functions
        .iter()
        .filter_map(|f| f["tottime_s"].as_f64())
        .sum();
    assert!((own - profiles::wall_s(&profiles::rich())).abs() < 1e-9);
}

#[test]
fn json_tells_exact_estimated_and_least_numbers_apart() {
    let kinds = |profile: &Profile| -> Vec<(String, Option<f64>)> {
        let json = export("json", profile, &ExportOptions::default());
        let value: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
        let functions = value["functions"].as_array().expect("functions");
        let kind = |row: &serde_json::Value| {
            let from = row["ncalls_from"].as_str().expect("text");
            (from.to_string(), row["ncalls_error"].as_f64())
        };
        functions.iter().map(kind).collect()
    };
    let exact = kinds(&profiles::exact());
    assert!(
        exact
            .iter()
            .all(|kind| *kind == ("exact".to_string(), Some(0.0)))
    );
    let rich = kinds(&profiles::rich());
    for (from, error) in &rich {
        match from.as_str() {
            "lower-bound" => assert_eq!(*error, None),
            "samples" | "watchpoint" => {
                assert!(error.is_some_and(|error| error > 0.0), "{error:?}");
            }
            other => panic!("{other}"),
        }
    }
    let count = |from: &str| rich.iter().filter(|kind| kind.0 == from).count();
    let counts = ["watchpoint", "samples", "lower-bound"].map(count);
    assert_eq!(counts, [3, 2, 5]);
}

#[test]
fn files_without_words_say_how_many_numbers_are_lower_bounds() {
    let losses = |format: &str, profile: &Profile| {
        let exporter = registry::by_name(format).and_then(|format| format.exporter());
        exporter
            .and_then(|it| it.export(profile, &ExportOptions::default(), &mut std::io::sink()))
            .expect("written")
    };
    let note = "the calls of 5 of 10 functions are lower bounds, which ";
    let says = |format: &str, profile: &Profile| {
        let said = losses(format, profile);
        said.iter()
            .filter(|loss| loss.contains("lower bounds"))
            .cloned()
            .collect::<Vec<_>>()
    };
    for format in ["pstats", "callgrind"] {
        let said = says(format, &profiles::rich());
        assert!(said.len() == 1 && said[0].starts_with(note), "{said:?}");
        assert_eq!(says(format, &profiles::exact()), [""; 0], "{format}");
    }
    // These have no calls of sampled profiles, or a place to say it.
    for format in [
        "pprof",
        "html",
        "json",
        "gecko",
        "speedscope",
        "collapsed",
        "biopsy",
    ] {
        assert_eq!(says(format, &profiles::rich()), [""; 0], "{format}");
    }
}

#[test]
fn lower_bounds_come_back() {
    let profile = profiles::rich();
    let data = export("pstats", &profile, &ExportOptions::default());
    let again = Pstats.import(&data).expect("our own");
    // And from a recording that is made of it.
    let recording = export("biopsy", &again, &ExportOptions::default());
    let importer = registry::by_name("biopsy").expect("a format").importer;
    let third = importer.expect("read").import(&recording).expect("our own");
    let rows = |profile: &Profile| {
        let stats = profile.stats(&Default::default());
        let rows = stats.rows.iter().map(|row| {
            let tables = &profile.tables;
            let name = (
                tables.file(row.function).to_string(),
                tables.name(row.function).to_string(),
            );
            (name, row.ncalls, row.lower_bound)
        });
        let mut rows: Vec<_> = rows.collect();
        rows.sort();
        (rows, stats.exact)
    };
    let (of_samples, exact) = rows(&profile);
    let bounds = of_samples.iter().filter(|row| row.2).count();
    assert!(bounds > 0 && bounds < of_samples.len() && !exact);
    assert_eq!(rows(&again), (of_samples.clone(), false));
    assert_eq!(rows(&third), (of_samples, false));
    // What was traced says nothing.
    let traced = export("pstats", &profiles::exact(), &ExportOptions::default());
    assert!(
        traced.ends_with(b"0")
            && Pstats
                .import(&traced)
                .is_ok_and(|it| it.exact.is_some_and(|it| it.exact))
    );
    // A file that is cut within that text is no traced one.
    for end in traced_end(&data) + 1..data.len() {
        assert!(Pstats.import(&data[..end]).is_err(), "{end}");
    }
}

/// Where the dict ends and the text behind it begins.
fn traced_end(data: &[u8]) -> usize {
    let text = b"biopsy lower bounds";
    let at = data.windows(text.len()).rposition(|part| part == text);
    at.expect("the text") - 5
}

#[test]
fn callgrind_says_what_its_calls_are() {
    let file = export("callgrind", &profiles::rich(), &ExportOptions::default());
    let file = String::from_utf8(file).expect("UTF-8");
    let words =
        "given up; call counts: 5 estimates (± 5 % in the median), 5 lower bounds; approximate";
    assert!(file.contains(words), "{file}");
}

#[test]
fn pages_mark_lower_bounds() {
    for profile in [profiles::rich(), profiles::exact()] {
        let page = export("html", &profile, &ExportOptions::default());
        let page = String::from_utf8(page).expect("UTF-8");
        let head = crate::page::head(&page);
        let rows = head["views"][0]["rows"].as_array().expect("rows");
        let stats = profile.stats(&Default::default());
        for (row, stats) in rows.iter().zip(&stats.rows) {
            assert_eq!(row[1], stats.ncalls);
            assert_eq!(row[5], u8::from(stats.lower_bound));
        }
        let is_sampled = profile.exact.is_none();
        assert_eq!(rows.iter().any(|row| row[5] == 1), is_sampled);
        let note = head["note"].as_str().expect("note");
        assert_eq!(note.contains("5 lower bounds"), is_sampled, "{note}");
    }
}

#[test]
fn reports_and_differences_show_lower_bounds() {
    let folder = tempfile::tempdir().expect("folder");
    let path = |name: &str| folder.path().join(name);
    let mut profile = profiles::rich();
    profile.processes.truncate(1);
    for thread in &mut profile.threads {
        thread.process = ProcessId(0);
    }
    let recording = export("biopsy", &profile, &ExportOptions::default());
    std::fs::write(path("a.biopsy"), recording).expect("written");
    let biopsy = |words: &[&str], files: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_biopsy"))
            .args(words)
            .args(files.iter().map(|name| path(name)))
            .output()
            .expect("biopsy starts");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        (text(output.stdout), text(output.stderr))
    };
    let (table, _) = biopsy(&["report", "-s", "stdname"], &["a.biopsy"]);
    for line in [
        "sampled at 1000 Hz for 2.50 s: 2480 samples, 20 given up; \
         ncalls: 5 estimates (± 5 % in the median), 5 lower bounds; approximate stacks\n",
        "\n         at least 12558 function calls (12406 primitive calls) in 4297.474 seconds\n",
        "\n  >=155/3    0.003             0.004          /srv/app.py:1(fib)\n",
        "\n        5    0.000    0.000    0.005    0.001 /srv/app.py:1(main)\n",
        "\n        1    0.000    0.000    0.501    0.501 /srv/app.py:1(run)\n",
        "\n    12346    0.002    0.000    0.002    0.000 {built-in method builtins.sum}\n",
    ] {
        assert!(table.contains(line), "{line}\n{table}");
    }
    let (lines, _) = biopsy(&["report", "--lines", "fib"], &["a.biopsy"]);
    assert!(
        lines.starts_with("sampled") && !lines.contains("ncalls"),
        "{lines}"
    );
    let (_, said) = biopsy(&["report", "-f", "pstats", "-o"], &["a.prof", "a.biopsy"]);
    let note = "biopsy: note: pstats: the calls of 5 of 10 functions are lower bounds, which";
    assert_eq!(said.matches(note).count(), 1, "{said}");
    let (table, said) = biopsy(&["diff"], &["a.biopsy", "a.prof"]);
    let modes = |said: &str| said.contains("times of --mode");
    assert!(!modes(&said), "{said}");
    let fib = table.lines().find(|line| line.ends_with("app.py:1(fib)"));
    let words: Vec<&str> = fib.expect("fib").split_whitespace().collect();
    assert_eq!(words[8..10], [">=155", ">=155"], "{table}");
    profile.meta.mode = biopsy::profile::Mode::Cpu;
    let recording = export("biopsy", &profile, &ExportOptions::default());
    std::fs::write(path("b.biopsy"), recording).expect("written");
    let (_, said) = biopsy(&["diff"], &["a.biopsy", "b.biopsy"]);
    let note = "the old profile has times of --mode wall, the new one those of --mode cpu";
    assert!(said.contains(note), "{said}");
    biopsy(&["diff", "-q", "-o"], &["d.json", "a.biopsy", "a.prof"]);
    let json = std::fs::read(path("d.json")).expect("read");
    let value: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
    let functions = value["functions"].as_array().expect("functions");
    let fib = functions
        .iter()
        .find(|row| row["name"] == "fib")
        .expect("fib");
    assert_eq!(fib["old"]["ncalls_lower_bound"], true);
    assert_eq!(fib["new"]["ncalls_lower_bound"], true);
}

#[test]
fn pprof_is_as_it_was() {
    let options = ExportOptions::default();
    assert_golden(
        "pprof/rich.pb",
        &gunzip(&export("pprof", &profiles::rich(), &options)),
    );
    assert_golden(
        "pprof/exact.pb",
        &gunzip(&export("pprof", &profiles::exact(), &options)),
    );
}

#[test]
fn gecko_is_as_it_was() {
    let options = ExportOptions::default();
    let rich = pretty(&export("gecko", &profiles::rich(), &options));
    assert_golden("gecko/rich.gecko.json", &rich);
    let exact = pretty(&export("gecko", &profiles::exact(), &options));
    assert_golden("gecko/exact.gecko.json", &exact);
}

#[test]
fn empty_profiles_are_written_too() {
    for format in ["json", "pprof", "gecko", "html", "biopsy"] {
        let out = export(format, &Profile::default(), &ExportOptions::default());
        assert!(!out.is_empty(), "{format}");
    }
}

#[test]
fn deep_stacks_need_no_recursion() {
    let deep = profiles::deep(10_000);
    for format in ["json", "pprof", "gecko", "html", "biopsy"] {
        assert!(
            !export(format, &deep, &ExportOptions::default()).is_empty(),
            "{format}"
        );
    }
}
