//! Recordings, JSON, pprof and Firefox profiles: what is written against goldens (`BLESS=1` rewrites them)
//! and against readers that biopsy has no part in; recordings that are damaged in many ways.

#[path = "formats_files/profiles.rs"]
mod profiles;
#[path = "formats_files/readers.rs"]
mod readers;
#[path = "formats_files/recordings.rs"]
mod recordings;

use std::io::Read;
use std::path::{Path, PathBuf};

use biopsy::formats::{ExportOptions, registry};
use biopsy::profile::{Filter, Profile, Split};

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
        strip_dirs: false,
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
