//! Pictures of the pages beside kept ones (`fixtures/pages/*.png`; `BLESS=1` rewrites them), at 375, 800 and 1600 pixels. The
//! inputs are kept too: a recording with threads and tasks, two snapshots of a small heap.

use std::fs;

use serde_json::json;
use tempfile::TempDir;

use crate::common::page::drive;
use crate::common::{biopsy_command, in_company, project, run, say, target_folder};

/// Share of a picture's squares that may look different: letters, where the browser or its fonts are others.
const TOLERANCE: f64 = 0.04;

#[test]
fn pages_look_as_they_did() {
    let _company = in_company();
    let folder = TempDir::new().expect("folder");
    let kept = project().join("fixtures/pages");
    let file = |name: &str| kept.join(name).to_string_lossy().into_owned();
    let page = |name: &str| {
        let path = folder.path().join(name).with_extension("html");
        path.to_string_lossy().into_owned()
    };
    let outputs = ["profile", "difference", "heap", "growth"].map(page);
    let [profile, difference, heap, growth] = &outputs;
    // By names alone: headings show what was typed.
    let biopsy = |words: &[&str]| run(biopsy_command(words).current_dir(&kept)).ok();
    biopsy(&["report", "tasks.biopsy", "-q", "-o", profile]);
    biopsy(&[
        "diff",
        "old.collapsed",
        "new.collapsed",
        "-q",
        "-o",
        difference,
    ]);
    biopsy(&["heap", "html", "before.heap", "-o", heap]);
    biopsy(&["heap", "diff", "before.heap", "after.heap", "-o", growth]);
    let seen = target_folder().join("pages");
    fs::create_dir_all(&seen).expect("a folder");
    for path in &outputs {
        let path = std::path::Path::new(path);
        let name = path
            .file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let task = json!({
            "golden": file(&name), "seen": seen.join(&name), "height": 1600,
            "keep": std::env::var_os("BLESS").is_some(),
        });
        let Some(widths) = drive("formats/screens.cjs", path, &task) else {
            return;
        };
        for at in widths.as_array().expect("widths") {
            let share = |field: &str| at[field].as_f64().expect("a share");
            say(format_args!(
                "{name}, {} pixels: {:.2} % of the squares look different",
                at["width"],
                100.0 * share("different")
            ));
            assert!(
                share("different") <= TOLERANCE,
                "{name}: {at}; seen: {}; BLESS=1 keeps it",
                seen.display()
            );
            // The comparison sees what has moved, and other colours.
            assert!(
                share("moved") > TOLERANCE && share("dark") > 0.5,
                "{name}: {at}"
            );
        }
    }
}
