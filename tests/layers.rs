//! The layers of the crate hold: nobody imports upward or sideways, each outside crate has its door, and only
//! `main.rs` prints to stdout or ends the process.

// What a test did not expect is its failure, in what several tests share too.
#![allow(
    missing_docs,
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    clippy::unwrap_used
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Modules by layer, L0 first. Those of one layer do not know each other.
const LAYERS: [&[&str]; 6] = [
    &["error", "units", "glob"],
    &["layout", "profile", "blocks"],
    &["target", "formats"],
    &["sample", "heap", "exact"],
    &["view"],
    &["cli"],
];

/// Outside crates and the files or folders that may name them.
const DOORS: [(&str, &[&str]); 10] = [
    ("clap", &["cli/"]),
    ("comfy_table", &["view/table.rs"]),
    ("ratatui", &["cli/top/"]),
    ("inferno", &["formats/flamegraph.rs", "formats/flamegraph/"]),
    ("py_spy", &["target/locate.rs", "sample/pyspy.rs"]),
    ("remoteprocess", &["target/"]),
    ("sysinfo", &["target/list.rs"]),
    ("libc", &["target/", "sample/clock.rs"]),
    (
        "perf_event_open_sys",
        &[
            "target/watchpoint.rs",
            "target/watchpoint/",
            "target/interrupt.rs",
        ],
    ),
    ("object", &["target/elf.rs", "target/memory/core.rs"]),
];

struct Source {
    /// Path below `src`.
    path: String,
    /// Code without comments, strings' contents and unit tests.
    code: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("readable").flatten() {
            let path: PathBuf = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let text = fs::read_to_string(&path).expect("UTF-8");
                let relative = path.strip_prefix(&root).expect("below src");
                found.push(Source {
                    path: relative.to_str().expect("UTF-8").to_string(),
                    code: code_of(&text),
                });
            }
        }
    }
    assert!(found.len() > 20, "the sources were not found");
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// Without unit tests at the foot, comments and the contents of strings.
fn code_of(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or(text);
    let mut code = String::with_capacity(text.len());
    for line in text.lines() {
        let line = line.trim_start();
        if line.starts_with("//") {
            continue;
        }
        let mut in_string = false;
        let mut before = ' ';
        for letter in line.chars() {
            if letter == '"' && before != '\\' && before != '\'' {
                in_string = !in_string;
            }
            if !in_string && letter == '/' && before == '/' {
                code.pop();
                break;
            }
            if !in_string {
                code.push(letter);
            }
            before = letter;
        }
        code.push('\n');
    }
    code
}

/// The modules of the crate that `code` names after `crate::`, those in braces included.
fn imported(code: &str) -> BTreeSet<String> {
    let mut modules = BTreeSet::new();
    for (at, word) in code.match_indices("crate::") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &code[at + word.len()..];
        let name = |text: &str| -> String {
            text.trim_start()
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect()
        };
        if let Some(list) = rest.strip_prefix('{') {
            let mut depth = 0usize;
            let mut item = String::new();
            for letter in list.chars() {
                match letter {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        modules.insert(name(&item));
                        item.clear();
                    }
                    _ if depth == 0 => item.push(letter),
                    _ => {}
                }
            }
            modules.insert(name(&item));
        } else {
            modules.insert(name(rest));
        }
    }
    modules.retain(|module| !module.is_empty());
    modules
}

/// The first part of a path below `src`: `target` of `target/list.rs`, `error` of `error.rs`.
fn module_of(path: &str) -> &str {
    path.split('/')
        .next()
        .unwrap_or(path)
        .trim_end_matches(".rs")
}

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

#[test]
fn nobody_imports_upward_or_sideways() {
    let mut wrong = Vec::new();
    for source in sources() {
        let own = module_of(&source.path);
        if matches!(own, "lib" | "main") {
            continue;
        }
        let Some(layer) = layer_of(own) else {
            wrong.push(format!("{}: belongs to no layer", source.path));
            continue;
        };
        for module in imported(&source.code) {
            let below = layer_of(&module).is_some_and(|other| other < layer);
            if module != own && !below {
                wrong.push(format!("{} imports crate::{module}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_listed_files_touch_outside_crates() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (name, doors) in DOORS {
            // In files that import our own `layout::object`, that is what the word means.
            let ours = format!("use crate::layout::{name}");
            let ours_in_list = source
                .code
                .split("use crate::layout::{")
                .skip(1)
                .any(|rest| {
                    rest.split('}')
                        .next()
                        .is_some_and(|list| list.split(", ").any(|item| item.trim() == name))
                });
            if source.code.contains(&ours) || ours_in_list {
                continue;
            }
            let named = source
                .code
                .match_indices(&format!("{name}::"))
                .any(|(at, _)| {
                    let before = source.code[..at].chars().next_back().unwrap_or(' ');
                    !before.is_alphanumeric() && !matches!(before, '_' | ':' | '.')
                })
                || source.code.contains(&format!("use {name};"));
            let open = doors.iter().any(|door| {
                source.path == *door || (door.ends_with('/') && source.path.starts_with(door))
            });
            if named && !open {
                wrong.push(format!(
                    "{} uses {name}, whose door is {doors:?}",
                    source.path
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_main_prints_to_stdout_or_ends_the_process() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| source.path != "main.rs") {
        for word in [
            "process::exit(",
            "println!(",
            "print!(",
            "dbg!(",
            "todo!(",
            "unimplemented!(",
        ] {
            let named = source.code.match_indices(word).any(|(at, _)| {
                let before = source.code[..at].chars().next_back().unwrap_or(' ');
                !before.is_alphanumeric() && before != '_'
            });
            if named {
                wrong.push(format!("{} says {word}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// musl, which the wheels are built with, declares these and lets them fail with ENOSYS (src/sched/sched_*.c): the
/// build succeeds, and only a user of the wheel would see what is missing.
#[test]
fn no_function_is_called_that_musl_only_declares() {
    let mut wrong = Vec::new();
    for source in sources() {
        for name in [
            "libc::sched_getscheduler",
            "libc::sched_setscheduler",
            "libc::sched_getparam",
            "libc::sched_setparam",
        ] {
            if source.code.contains(name) {
                wrong.push(format!("{} calls {name}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_answers_and_is_not_too_long() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for source in sources() {
        let text = fs::read_to_string(root.join(&source.path)).expect("UTF-8");
        if !text.starts_with("//! ") {
            wrong.push(format!("{} does not open with //!", source.path));
        }
        let lines = text.lines().count();
        if lines > 700 {
            wrong.push(format!("{} has {lines} lines", source.path));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn imports_are_read_as_rust_reads_them() {
    let code = code_of(
        "use crate::error::{Error, Result};\nuse crate::{units::{Pid, Tid}, view};\n// crate::cli\n\
         let x = crate::sample::X; let s = \"crate::heap\"; // crate::exact\n#[cfg(test)]\nmod tests { crate::cli }",
    );
    let found: Vec<String> = imported(&code).into_iter().collect();
    assert_eq!(found, ["error", "sample", "units", "view"]);
}
