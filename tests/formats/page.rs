//! The page (`.html`) in a real Chromium without a network: what it shows is what the JSON says; clicks, search, zoom,
//! ranges of time and keys do what they say, on screens of 375, 800 and 1600 pixels.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::{Python, biopsy, fixture_text, in_company, project};

pub use crate::common::page::head;

/// What `tests/formats/page.cjs` does with a page and tells of it; `None` where there is no Chromium.
fn drive(page: &Path, task: &Value) -> Option<Value> {
    crate::common::page::drive("formats/page.cjs", page, task)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// `program` recorded for a while, as a page and as JSON.
fn recorded(python: &Python, program: &str, arguments: &[&str], folder: &Path) -> Value {
    let stage = python.stage();
    let script = stage.fixture(program);
    let recording = folder.join("a.biopsy");
    let words = python.words(&[&[script.as_str()][..], arguments].concat());
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let recording = text(&recording);
    biopsy(&[&["run", "-q", "-o", recording, "--"][..], &words].concat()).ok();
    let (page, json) = (folder.join("a.html"), folder.join("a.json"));
    biopsy(&[
        "report",
        recording,
        "-q",
        "-o",
        text(&page),
        "-o",
        text(&json),
    ])
    .ok();
    serde_json::from_str(&fs::read_to_string(&json).expect("read")).expect("JSON")
}

/// Fails unless the rows that were seen are those of the JSON, with calls or (of a part) without.
#[track_caller]
fn same_rows(seen: &Value, document: &Value, with_calls: bool) {
    let seen = seen.as_array().expect("rows");
    let functions = document["functions"].as_array().expect("functions");
    assert_eq!(seen.len(), functions.len(), "{seen:?}");
    for function in functions {
        let place = match function["line"].as_u64() {
            Some(line) if line > 0 => format!("{}:{line}", function["file"].as_str().unwrap()),
            _ => function["file"].as_str().expect("file").to_string(),
        };
        let found = seen.iter().find(|row| {
            row["function"] == function["name"] && row["file"].as_str() == Some(&place)
        });
        let row = found.unwrap_or_else(|| panic!("no {function}"));
        for (shown, field) in [("tottime", "tottime_s"), ("cumtime", "cumtime_s")] {
            let shown: f64 = row[shown].as_str().expect("text").parse().expect("seconds");
            let expected = function[field].as_f64().expect("seconds");
            assert!((shown - expected).abs() <= 0.000_501, "{row} {function}");
        }
        let bound = function["ncalls_from"] == "lower-bound";
        let (all, primitive) = (&function["ncalls"], &function["primitive_calls"]);
        let mark = if bound { "≥" } else { "" };
        let calls = match all == primitive {
            _ if !with_calls => String::new(),
            true => format!("{mark}{all}"),
            false => format!("{mark}{all}/{primitive}"),
        };
        assert_eq!(row["ncalls"], calls, "{function}");
        assert_eq!(row["percall"] == "", bound || !with_calls, "{row}");
    }
}

/// Fails unless the lines that were seen are those of the JSON's functions of `script`, beside their text.
#[track_caller]
fn same_lines(seen: &Value, document: &Value, script: &str) {
    let file = seen["name"].as_str().expect("name");
    assert!(file.ends_with("/known_shares.py"), "{file}");
    assert_eq!(seen["note"], "");
    let current = seen["current"].as_str().expect("name");
    assert!(current.ends_with("known_shares.py"), "{current}");
    let text: Vec<&str> = script.lines().collect();
    assert_eq!(seen["count"], text.len());
    let mut own: BTreeMap<u64, f64> = BTreeMap::new();
    let functions = document["functions"].as_array().expect("functions").iter();
    for function in functions.filter(|function| function["file"] == file) {
        for line in function["lines"].as_array().expect("lines") {
            let seconds = line["self_s"].as_f64().expect("seconds");
            *own.entry(line["line"].as_u64().expect("line")).or_default() += seconds;
        }
    }
    let mut found = 0;
    for line in seen["lines"].as_array().expect("lines") {
        let part = |at: usize| line[at].as_str().expect("text");
        let number: usize = part(0).parse().expect("a line");
        assert_eq!(part(3), text[number - 1]);
        let (shown, total): (f64, f64) = (part(1).parse().expect("s"), part(2).parse().expect("s"));
        let expected = own.get(&(number as u64)).copied().unwrap_or(0.0);
        found += usize::from(expected > 0.0);
        assert!((shown - expected).abs() <= 0.000_501, "{line} {expected}");
        assert!(total >= shown);
    }
    let with_time = own.values().filter(|seconds| **seconds > 0.0).count();
    assert_eq!(found, with_time, "{own:?}");
}

#[test]
fn a_page_shows_what_the_json_says_and_can_be_used() {
    let _company = in_company();
    let folder = TempDir::new().expect("folder");
    let python = Python::any();
    let document = recorded(
        python,
        "known_shares.py",
        &["--seconds", "2"],
        folder.path(),
    );
    let page = folder.path().join("a.html");
    let script = fixture_text("known_shares.py");
    let Some(seen) = drive(
        &page,
        &json!({"do": "use", "search": "burn_", "choose": "main"}),
    ) else {
        return;
    };
    let widths = seen["widths"].as_array().expect("widths");
    assert_eq!(widths.len(), 3);
    let seconds = |name: &str| {
        let functions = document["functions"].as_array().expect("functions");
        let found = functions.iter().find(|function| function["name"] == name);
        found.expect("function")["cumtime_s"]
            .as_f64()
            .expect("seconds")
    };
    // Importing has time outside of the script's `<module>`.
    let all = document["total_tottime_s"].as_f64().expect("seconds");
    let burns = ["burn_50", "burn_30", "burn_15", "burn_05"];
    let functions = document["functions"].as_array().expect("functions").iter();
    let own = |function: &&Value| function["tottime_s"].as_f64().expect("seconds");
    let most_own = functions.max_by(|a, b| own(a).total_cmp(&own(b)));
    let most_own = &most_own.expect("a function")["name"];
    for at in widths {
        assert_eq!(at["errors"], json!([]), "{at}");
        assert_eq!(at["requests"], json!([]), "{at}");
        assert_eq!(at["overflow"], 0, "{at}");
        same_rows(&at["rows"], &document, true);
        // The picture: the widest box of each level, and its share.
        assert_eq!(at["boxes"][0]["name"], "<module>", "{at}");
        // Which one had the most time depends on who else was on this CPU.
        let widest = burns
            .into_iter()
            .max_by(|a, b| seconds(a).total_cmp(&seconds(b)));
        let widest = widest.expect("a name");
        assert_eq!(at["boxes"][2]["name"], widest, "{at}");
        let share = seconds(widest) / all;
        assert!((at["boxes"][2]["share"].as_f64().expect("share") - share).abs() < 0.01);
        assert_eq!(&at["inverted"], most_own, "{at}");
        assert!(at["flame_is_turned"].as_bool().expect("flag"), "{at}");
        // Search, and the share that it matches.
        let part: f64 = burns.into_iter().map(seconds).sum::<f64>() / all;
        let expected = format!(
            "4 found, on the stack for {:.1} % of the time",
            100.0 * part
        );
        assert_eq!(at["found"], expected);
        assert_eq!(at["found_rows"], 4);
        // Callees with their seconds.
        assert_eq!(
            at["callees"][0],
            format!("{widest} {:.3} s", seconds(widest))
        );
        assert_eq!(at["callers"], json!(["<module>"]));
        same_lines(&at["source"], &document, &script);
        // A range of time that is dragged: what --from and --to show.
        let time = |end: usize| {
            let us = at["range"][end].as_f64().expect("a range");
            format!("{:.6}s", us / 1e6)
        };
        let recording = folder.path().join("a.biopsy");
        let words = ["report", text(&recording), "-q", "-f", "json"];
        let part = biopsy(&[&words[..], &["--from", &time(0), "--to", &time(1)]].concat());
        same_rows(&at["range_rows"], &part.ok().json(), false);
        let range_text = at["range_text"].as_str().expect("text");
        assert!(range_text.contains("calls are known for the whole alone"));
        assert_eq!(at["whole_again"], true);
        // A click on a box zooms, Escape leaves; the arrows and Enter do it without a mouse.
        assert_eq!(at["zoomed"], json!(["burn_30", true]), "{at}");
        assert_eq!(at["left"], json!([null, false]), "{at}");
        assert_eq!(at["by_keys"], json!(["main", "main"]), "{at}");
        let names = document["functions"].as_array().expect("functions").iter();
        let first = names.filter_map(|function| function["name"].as_str()).min();
        assert_eq!(at["sorted_by_name"], first.expect("a name"));
        assert!(at["themes"][0] != at["themes"][1], "{at}");
    }
    assert_eq!(seen["without_streams"]["rows"], widths[2]["rows"]);
}

#[test]
fn a_difference_has_the_changes_of_the_json_in_red_and_blue() {
    let _company = in_company();
    let folder = TempDir::new().expect("folder");
    let put = |name: &str, content: &str| {
        let path = folder.path().join(name);
        fs::write(&path, content).expect("written");
        text(&path).to_string()
    };
    let stack = "main (a.py:9);work (a.py:3)";
    let old = put(
        "old.txt",
        &format!("{stack};slow (a.py:20) 50\n{stack};gone (a.py:30) 20\n"),
    );
    let new = put(
        "new.txt",
        &format!("{stack};slow (a.py:20) 90\n{stack};come (a.py:40) 10\n"),
    );
    let page = folder.path().join("a.html");
    let json = folder.path().join("a.json");
    let outputs = ["-o", text(&page), "-o", text(&json)];
    let words = ["diff", &old, &new, "-q", "--period", "10ms"];
    biopsy(&[&words[..], &outputs].concat()).ok();
    let document: Value =
        serde_json::from_str(&fs::read_to_string(&json).expect("read")).expect("JSON");
    let Some(seen) = drive(&page, &json!({"do": "compare"})) else {
        return;
    };
    for at in seen["widths"].as_array().expect("widths") {
        assert_eq!(at["errors"], json!([]), "{at}");
        assert_eq!(at["requests"], json!([]), "{at}");
        assert_eq!(at["overflow"], 0, "{at}");
        let note = at["note"].as_str().expect("note");
        assert!(
            note.starts_with("old 0.700 s, new 1.000 s, change +0.300 s"),
            "{note}"
        );
        let rows = at["newer"]["rows"].as_array().expect("rows");
        assert_eq!(&at["older"]["rows"], &at["newer"]["rows"]);
        let functions = document["functions"].as_array().expect("functions");
        assert_eq!((rows.len(), functions.len()), (5, 5));
        for function in functions {
            let row = rows
                .iter()
                .find(|row| row[8] == function["name"])
                .expect("a row");
            let time = |side: &str, field: &str| function[side][field].as_f64();
            for (first, field) in [(0, "tottime_s"), (3, "cumtime_s")] {
                let (before, after) = (time("old", field), time("new", field));
                let shown = |side: Option<f64>| side.map_or(String::new(), |s| format!("{s:.3}"));
                assert_eq!(row[first + 1], shown(before), "{row} {function}");
                assert_eq!(row[first + 2], shown(after), "{row} {function}");
                let change = after.unwrap_or(0.0) - before.unwrap_or(0.0);
                let seen: f64 = row[first]
                    .as_str()
                    .expect("text")
                    .parse()
                    .expect("a number");
                assert!((seen - change).abs() < 0.000_501, "{row} {function}");
            }
        }
        // The biggest change is first.
        assert_eq!(rows[0][8], "slow");
        assert_eq!(rows[0][0], "+0.400");
        let colored = |boxes: &Value, name: &str| {
            let boxes = boxes.as_array().expect("boxes");
            let found = boxes.iter().find(|at| at[0] == name)?;
            let change = found[1].as_f64().expect("seconds");
            Some((
                format!("{change:.3}"),
                found[2].as_str().expect("text").to_string(),
            ))
        };
        let is = |change: &str, color: &str| Some((change.to_string(), color.to_string()));
        for shape in [&at["newer"]["boxes"], &at["inverted"]] {
            assert_eq!(colored(shape, "slow"), is("0.400", "hsl(5 8"));
            assert_eq!(colored(shape, "come"), is("0.100", "hsl(5 8"));
            assert_eq!(colored(shape, "gone"), None);
        }
        assert_eq!(
            colored(&at["older"]["boxes"], "gone"),
            is("-0.200", "hsl(215")
        );
        assert_eq!(colored(&at["older"]["boxes"], "come"), None);
        let callees = at["callees"].as_array().expect("callees");
        assert!(
            callees.contains(&json!("slow0.500 s, 71.4 %, +0.400 s")),
            "{callees:?}"
        );
    }
}

/// What is chosen on the page is what `--focus` and `--from` and `--to` of `report` choose.
#[test]
fn tasks_and_threads_can_be_chosen() {
    let _company = in_company();
    let folder = TempDir::new().expect("folder");
    let recording = project().join("fixtures/pages/tasks.biopsy");
    let page = folder.path().join("a.html");
    biopsy(&["report", text(&recording), "-q", "-o", text(&page)]).ok();
    let report = |options: &[&str]| {
        let words = ["report", text(&recording), "-q", "-f", "json"];
        biopsy(&[&words[..], options].concat()).ok().json()
    };
    let task = json!({"do": "choose", "task": "<task feed>", "thread": "indexer"});
    let Some(seen) = drive(&page, &task) else {
        return;
    };
    let (all, feed) = (report(&[]), report(&["--focus", "task feed"]));
    let own = |document: &Value, name: &str| {
        let functions = document["functions"].as_array().expect("functions").iter();
        let found = functions.filter(|function| function["name"] == name);
        found
            .map(|f| f["tottime_s"].as_f64().expect("s"))
            .sum::<f64>()
    };
    for at in seen["widths"].as_array().expect("widths") {
        assert_eq!(
            (&at["errors"], &at["overflow"]),
            (&json!([]), &json!(0)),
            "{at}"
        );
        let tasks = at["tasks"].as_array().expect("tasks");
        assert_eq!(tasks.len(), 6, "{tasks:?}");
        for task in tasks {
            assert_eq!(task[2], true, "{task}");
        }
        assert_eq!(at["none"], 0);
        same_rows(&at["of_task"], &feed, false);
        let part = at["text"].as_str().expect("text");
        assert!(part.contains("some of the tasks"), "{part}");
        let rows = |field: &str, name: &str| -> f64 {
            let rows = at[field].as_array().expect("rows").iter();
            let found = rows.filter(|row| row["function"] == name);
            let own = found.map(|row| row["tottime"].as_str().expect("text"));
            own.map(|own| own.parse::<f64>().expect("seconds")).sum()
        };
        // Sleeping is the other thread's, outside of all tasks.
        let sleep = "<built-in method time.sleep>";
        assert!(own(&all, sleep) > 0.3);
        assert_eq!(rows("of_task", sleep), 0.0);
        assert!((rows("of_task_and_outside", sleep) - own(&all, sleep)).abs() < 0.001);
        assert_eq!(rows("without_thread", sleep), 0.0);
        assert_eq!(
            (&at["all_again"], &at["with_thread"]),
            (&json!(true), &json!(true))
        );
        let range = |index: usize| {
            let ends = at["ranges"][index].as_array().expect("a range");
            [&ends[0], &ends[1]].map(|end| end.as_f64().expect("us"))
        };
        let (shorter, right, left, wider) = (range(0), range(1), range(3), range(4));
        let length = |range: [f64; 2]| range[1] - range[0];
        assert!(right[0] > shorter[0] && left[0] < right[0], "{at}");
        assert!(length(wider) > length(left), "{at}");
        assert_eq!(at["after_escape"], json!([null, null, null]));
    }
}

/// A million samples of eight threads on 50,000 distinct stacks, whose order nothing predicts.
fn a_million_samples() -> biopsy::profile::Profile {
    use biopsy::profile::{FunctionKind, ProcessId, Recorder, ThreadInfo, record::Sample};
    let mut state = 1u64;
    let mut random = move |below: u64| {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 33) % below
    };
    let mut recorder = Recorder::default();
    recorder.profile.meta.duration_us = 125_000_000;
    recorder.profile.meta.samples = 1_000_000;
    recorder.profile.meta.rate_hz = 1000.0;
    recorder.profile.meta.has_states = true;
    recorder.profile.processes.push(Default::default());
    let thread = |os_id| ThreadInfo {
        process: ProcessId(0),
        os_id,
        python_id: os_id,
        name: None,
        started_us: 0,
    };
    let threads: Vec<_> = (1..=8).map(|id| recorder.add_thread(thread(id))).collect();
    let mut frames = Vec::new();
    let tables = &mut recorder.profile.tables;
    for at in 0..3000u32 {
        let (file, line) = (
            format!("/srv/app/part{}/m{}.py", at % 30, at % 300),
            at % 900,
        );
        let function = tables.function(&file, line, &format!("name_{at}"), FunctionKind::Python);
        frames.push(tables.frame(function, line + 3));
    }
    let mut stacks = vec![tables.stack(None, frames[0])];
    while stacks.len() < 50_000 {
        let parent = stacks[random(stacks.len() as u64) as usize];
        stacks.push(tables.stack(Some(parent), frames[random(3000) as usize]));
    }
    for at in 0..1_000_000 {
        // A few stacks have most samples, as in programs.
        let among = 50_000 >> random(10);
        recorder.add(Sample {
            thread: threads[at % 8],
            stack: stacks[random(among) as usize],
            count: 1,
            wall_us: 1000 + random(20),
            cpu_us: 0,
            fresh_from: None,
            state: biopsy::profile::RunState(random(4) as u8),
        });
    }
    recorder.profile
}

#[test]
fn a_million_samples_fit_on_a_page() {
    use biopsy::formats::{ExportOptions, Exporter, html::Html};
    let _company = in_company();
    let profile = a_million_samples();
    let folder = TempDir::new().expect("folder");
    let page = folder.path().join("a.html");
    let mut out = Vec::new();
    Html.export(&profile, &ExportOptions::default(), &mut out)
        .expect("written");
    println!("{} bytes, {} runs", out.len(), profile.runs.len());
    assert!(out.len() <= 10 << 20, "{}", out.len());
    fs::write(&page, out).expect("written");
    let Some(seen) = drive(&page, &json!({"do": "look"})) else {
        return;
    };
    for at in seen["widths"].as_array().expect("widths") {
        println!("ready after {} ms", at["ready_ms"]);
        assert_eq!(at["errors"], json!([]), "{}", at["errors"]);
        assert_eq!(at["rows"].as_array().expect("rows").len(), 200);
    }
}

/// Functions whose calls go 100,000 deep, and hours of a thread that does something else each millisecond.
#[test]
fn deep_stacks_and_long_recordings_are_shown() {
    use biopsy::formats::{ExportOptions, Exporter, html::Html};
    use biopsy::profile::{FunctionKind, ProcessId, Recorder, ThreadInfo, record::Sample};
    let _company = in_company();
    let folder = TempDir::new().expect("folder");
    for (name, samples) in [("deep", 2u64), ("long", 4 * 3_600_000)] {
        let mut recorder = Recorder::default();
        recorder.profile.meta.duration_us = 1000 * samples;
        recorder.profile.meta.samples = samples;
        recorder.profile.processes.push(Default::default());
        let thread = recorder.add_thread(ThreadInfo {
            process: ProcessId(0),
            os_id: 1,
            python_id: 1,
            name: None,
            started_us: 0,
        });
        let tables = &mut recorder.profile.tables;
        let mut stacks = Vec::new();
        let mut parent = None;
        let frames: Vec<_> = (0..40)
            .map(|at| {
                let function = tables.function("a.py", at, &format!("f{at}"), FunctionKind::Python);
                tables.frame(function, at + 1)
            })
            .collect();
        for depth in 0..100_000 {
            let frame = frames[depth % frames.len()];
            let stack = tables.stack(if name == "deep" { parent } else { None }, frame);
            parent = Some(stack);
            stacks.push(stack);
            if name == "long" && depth > 38 {
                break;
            }
        }
        let mut random = 1u64;
        for _ in 0..samples {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1);
            let at = match name {
                "deep" => stacks.len() - 1,
                _ => (random >> 40) as usize % stacks.len(),
            };
            recorder.add(Sample {
                thread,
                stack: stacks[at],
                count: 1,
                wall_us: 1000,
                cpu_us: 0,
                fresh_from: None,
                state: Default::default(),
            });
        }
        let page = folder.path().join(name).with_extension("html");
        let mut out = Vec::new();
        Html.export(&recorder.profile, &ExportOptions::default(), &mut out)
            .expect("written");
        println!("{name}: {} bytes", out.len());
        assert!(out.len() <= 10 << 20, "{name}: {} bytes", out.len());
        fs::write(&page, out).expect("written");
        let Some(seen) = drive(&page, &json!({"do": "look"})) else {
            return;
        };
        for at in seen["widths"].as_array().expect("widths") {
            println!("{name}: ready after {} ms", at["ready_ms"]);
            assert_eq!(at["errors"], json!([]), "{}", at["errors"]);
            let rows = at["rows"].as_array().expect("rows");
            assert_eq!(rows.len(), 40);
            let total: f64 = rows
                .iter()
                .map(|row| {
                    row["tottime"]
                        .as_str()
                        .expect("text")
                        .parse::<f64>()
                        .expect("s")
                })
                .sum();
            let expected = samples as f64 / 1000.0;
            assert!(
                (total - expected).abs() < 0.03,
                "{total} and not {expected}"
            );
        }
    }
}

#[test]
fn names_of_any_kind_are_only_text() {
    use biopsy::formats::{ExportOptions, Exporter, html::Html};
    use biopsy::profile::{FunctionKind, Profile};
    let _company = in_company();
    let long = "x".repeat(10_000);
    let names = [
        "",
        "</script><script>document.title='gone'</script>",
        "<img src=x onerror=document.title='gone'>",
        "\u{202e}reversed",
        "שלום עולם",
        "zero\u{200b}width",
        "__proto__",
        long.as_str(),
    ];
    let mut recorder = biopsy::profile::Recorder::default();
    recorder.profile.meta.duration_us = 8000;
    recorder.profile.meta.samples = 8;
    recorder.profile.processes.push(Default::default());
    let thread = recorder.add_thread(biopsy::profile::ThreadInfo {
        process: biopsy::profile::ProcessId(0),
        os_id: 1,
        python_id: 1,
        name: Some("<b>thread</b>".to_string()),
        started_us: 0,
    });
    let mut stack = None;
    for name in names {
        let tables = &mut recorder.profile.tables;
        let function = tables.function("<i>a</i>.py", 1, name, FunctionKind::Python);
        let frame = tables.frame(function, 2);
        stack = Some(tables.stack(stack, frame));
        recorder.add(biopsy::profile::record::Sample {
            thread,
            stack: stack.expect("a stack"),
            count: 1,
            wall_us: 1000,
            cpu_us: 0,
            fresh_from: Some(0),
            state: Default::default(),
        });
    }
    let folder = TempDir::new().expect("folder");
    for (name, profile) in [("a", recorder.profile), ("none", Profile::default())] {
        let page = folder.path().join(name).with_extension("html");
        let mut out = Vec::new();
        Html.export(&profile, &ExportOptions::default(), &mut out)
            .expect("written");
        fs::write(&page, out).expect("written");
        let Some(seen) = drive(&page, &json!({"do": "look"})) else {
            return;
        };
        for at in seen["widths"].as_array().expect("widths") {
            assert_eq!(at["errors"], json!([]), "{at}");
            assert_eq!(at["requests"], json!([]), "{at}");
            assert_eq!(at["overflow"], 0, "{at}");
            assert_eq!(at["title"], "Python - biopsy");
            assert_eq!(at["elements"], json!([0, 0, 0]), "img, i and b of names");
            let rows = at["rows"].as_array().expect("rows");
            if name == "none" {
                assert_eq!((rows.len(), &at["detail"]), (0, &json!("no samples")));
                continue;
            }
            assert_eq!(rows.len(), names.len());
            let has = |text: &str| rows.iter().any(|row| row["function"] == text);
            assert!(has("(no name)") && has(names[1]) && has(names[4]));
            // What is too long for a few lines is cut in the middle, as a flame graph's box cuts it.
            let cut = |row: &Value| {
                let text = row["function"].as_str().expect("text");
                text.chars().count() < 250
                    && text
                        .split_once(" … ")
                        .is_some_and(|(head, tail)| long.starts_with(head) && long.ends_with(tail))
            };
            assert!(rows.iter().any(cut));
            assert!(has("\\u{202e}reversed"));
        }
    }
}
