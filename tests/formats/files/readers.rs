//! What readers from elsewhere make of the files: protobuf's decoder, `go tool pprof`, and the shape of
//! profiles that the crate fxprof-processed-profile writes for the Firefox Profiler.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use biopsy::formats::ExportOptions;
use biopsy::profile::Profile;
use serde_json::{Value, json};

use super::{export, profiles, project};

/// A file in a folder that goes with the first part.
fn saved(profile: &Profile) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("a.pb.gz");
    let data = export("pprof", profile, &ExportOptions::default());
    std::fs::write(&path, data).expect("writes");
    (folder, path)
}

/// The Python that has the test's packages: `BIOPSY_TEST_PYTHON`, or the one of the venv that `.ci/run` makes.
fn python() -> Option<PathBuf> {
    let python = match std::env::var_os("BIOPSY_TEST_PYTHON") {
        Some(python) => PathBuf::from(python),
        None => crate::common::kept_folder().join("test-venv/bin/python"),
    };
    let packages = "import google.protobuf, grpc_tools.protoc";
    let found = Command::new(&python).args(["-c", packages]).output();
    if found.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    println!(
        "skipped: {} has no protobuf and grpcio-tools",
        python.display()
    );
    None
}

fn decoded(profile: &Profile) -> Option<Value> {
    let python = python()?;
    let (_folder, path) = saved(profile);
    let script = project("fixtures/readers/check_pprof.py");
    let output = Command::new(python)
        .arg(script)
        .arg(path)
        .output()
        .expect("runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Some(serde_json::from_slice(&output.stdout).expect("JSON"))
}

#[test]
fn protobuf_reads_what_was_sampled() {
    let profile = profiles::rich();
    let Some(value) = decoded(&profile) else {
        return;
    };
    let types = json!([
        ["samples", "count"],
        ["wall", "nanoseconds"],
        ["cpu", "nanoseconds"]
    ]);
    assert_eq!(value["types"], types);
    assert_eq!(value["period"], json!(["wall", "nanoseconds", 1_000_000]));
    assert_eq!(value["time_nanos"], json!(1_700_000_000_123_000_000_u64));
    assert_eq!(value["duration_nanos"], json!(2_500_000_000_u64));
    assert_eq!(value["default"], "wall");
    assert_eq!(
        value["comments"][0],
        "command: python3 server.py --name 'ü \\x1b[2J'"
    );
    let samples = value["samples"].as_array().expect("samples");
    let sum = |at: usize| -> u64 {
        samples
            .iter()
            .filter_map(|s| s["values"][at].as_u64())
            .sum()
    };
    let of_runs = |value: fn(&biopsy::profile::Run) -> u32| -> u64 {
        profile.runs.iter().map(|run| u64::from(value(run))).sum()
    };
    assert_eq!(sum(0), of_runs(|run| run.count));
    assert_eq!(sum(1), of_runs(|run| run.wall_us) * 1000);
    assert_eq!(sum(2), of_runs(|run| run.cpu_us) * 1000);
    let innermost = json!(["<built-in method builtins.sum>", "~", 0, 0]);
    let nested = samples
        .iter()
        .find(|s| s["frames"][0] == innermost)
        .expect("a C function");
    assert_eq!(nested["frames"][1], json!(["fib", "/srv/app.py", 1, 4]));
    assert_eq!(
        nested["labels"],
        json!({"thread": "MainThread", "thread_id": 4711, "pid": 4711})
    );
}

#[test]
fn protobuf_reads_exact_statistics() {
    let profile = profiles::exact();
    let Some(value) = decoded(&profile) else {
        return;
    };
    assert_eq!(
        value["types"],
        json!([["calls", "count"], ["wall", "nanoseconds"]])
    );
    assert!(
        value["samples"]
            .as_array()
            .is_some_and(|samples| !samples.is_empty())
    );
}

#[test]
fn protobuf_reads_an_empty_profile() {
    if let Some(value) = decoded(&Profile::default()) {
        assert_eq!(value["samples"], json!([]));
    }
}

#[test]
fn go_tool_pprof_prints_the_table() {
    let (folder, path) = saved(&profiles::rich());
    let mut command = Command::new("go");
    command
        .args(["tool", "pprof", "-top", "-sample_index=cpu", "-unit=us"])
        .arg(&path);
    // It keeps copies of profiles at home.
    command
        .env("PPROF_TMPDIR", folder.path())
        .env("HOME", folder.path());
    let Ok(output) = command.output() else {
        println!("skipped: no go");
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(text.contains("Type: cpu"), "{text}");
    // fib: 990 + 1001 in the main process and 990 in its child; with sum, 998 more.
    let row = text
        .lines()
        .find(|line| line.ends_with(" fib"))
        .expect("fib");
    let columns: Vec<&str> = row.split_whitespace().collect();
    assert_eq!((columns[0], columns[3]), ("2981us", "3979us"), "{text}");
}

/// Paths of all members; list elements share one.
fn shape(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let path = format!("{path}.{key}");
                found.insert(path.clone());
                shape(value, &path, found);
            }
        }
        Value::Array(values) => {
            for value in values {
                shape(value, path, found);
            }
        }
        _ => {}
    }
}

#[test]
fn gecko_has_every_member_that_the_crate_writes() {
    use fxprof_processed_profile as fx;
    let zero = fx::Timestamp::from_nanos_since_reference(0);
    let reference = fx::ReferenceTimestamp::from_millis_since_unix_epoch(0.0);
    let mut model = fx::Profile::new("a", reference, fx::SamplingInterval::from_millis(1));
    let process = model.add_process("a", 1, zero);
    let thread = model.add_thread(process, 1, zero, true);
    let frame = fx::FrameInfo {
        frame: fx::Frame::Label(model.intern_string("f")),
        category_pair: fx::CategoryHandle::OTHER.into(),
        flags: fx::FrameFlags::empty(),
    };
    let stack = model.intern_stack_frames(thread, std::iter::once(frame));
    model.add_sample(thread, zero, stack, fx::CpuDelta::ZERO, 1);
    let model = serde_json::to_value(&model).expect("JSON");
    let data = export("gecko", &profiles::rich(), &ExportOptions::default());
    let ours: Value = serde_json::from_slice(&data).expect("JSON");
    let version = |value: &Value| value["meta"]["preprocessedProfileVersion"].clone();
    assert_eq!(version(&ours), version(&model));
    let (mut wanted, mut found) = (BTreeSet::new(), BTreeSet::new());
    shape(&model, "", &mut wanted);
    shape(&ours, "", &mut found);
    let missing: Vec<_> = wanted.difference(&found).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn gecko_columns_are_whole_and_refer_to_what_is_there() {
    for profile in [profiles::rich(), profiles::exact(), Profile::default()] {
        let data = export("gecko", &profile, &ExportOptions::default());
        let value: Value = serde_json::from_slice(&data).expect("JSON");
        let threads = value["threads"].as_array().expect("threads");
        assert!(!threads.is_empty());
        let mut weight = 0.0;
        for thread in threads {
            let table = |name: &str| {
                let table = thread[name].as_object().expect("table");
                let length = table["length"].as_u64().expect("length") as usize;
                for (key, column) in table {
                    let rows = column.as_array().map_or(length, Vec::len);
                    assert_eq!(rows, length, "{name}.{key}");
                }
                length
            };
            let strings = thread["stringArray"].as_array().expect("strings").len();
            let (stacks, frames, functions) =
                (table("stackTable"), table("frameTable"), table("funcTable"));
            let refers = |name: &str, key: &str, end: usize| {
                for at in thread[name][key].as_array().expect("column") {
                    assert!(
                        at.as_u64().is_none_or(|at| (at as usize) < end),
                        "{name}.{key}"
                    );
                }
            };
            table("samples");
            refers("samples", "stack", stacks);
            refers("stackTable", "frame", frames);
            refers("stackTable", "prefix", stacks);
            refers("frameTable", "func", functions);
            refers("frameTable", "category", 5);
            refers("funcTable", "name", strings);
            refers("funcTable", "fileName", strings);
            let column = thread["samples"]["weight"].as_array().expect("weights");
            weight += column.iter().filter_map(Value::as_f64).sum::<f64>();
        }
        let expected: f64 = match &profile.exact {
            Some(_) => profile.tree(&Default::default()).0.total_wall_ns() as f64 / 1e6,
            None => profiles::wall_s(&profile) * 1e3,
        };
        assert!((weight - expected).abs() < 1e-3, "{weight} {expected}");
    }
}
