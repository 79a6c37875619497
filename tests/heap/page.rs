//! Pages of heaps in a real Chromium: what they show is what the other commands say of the same heap.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::page::{drive, head};
use crate::common::{Python, biopsy, in_company};

/// A leak, a cache and names that are no names of types.
const PROGRAM: &str = "
import functools, sys
class Session:
    def __init__(self, i): self.user = 'user %d' % i; self.cart = [i, str(i)]
SESSIONS = {i: Session(i) for i in range(3000)}
@functools.lru_cache(maxsize=None)
def slow(n): return [n] * 100
for i in range(500): slow(i)
Odd = type('<b>x</b></script><!--', (), {})
Long = type('n' * 5000, (), {})
Empty = type('', (), {})
Bidi = type('\\u202e<img src=x>', (), {})
KEPT = [kind() for kind in (Odd, Long, Empty, Bidi) for _ in range(40)]
BUFFER = bytearray(2_000_000)
print('ready', flush=True)
for line in sys.stdin:
    for i in range(1000): SESSIONS[len(SESSIONS)] = Session(i)
    print('grown', flush=True)
";

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn asked(words: &[&str]) -> Value {
    biopsy(words).ok().json()
}

/// The number that a page shows of bytes.
fn bytes_text(bytes: u64) -> String {
    let mut value = bytes as f64;
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    for unit in ["KiB", "MiB", "GiB"] {
        value /= 1024.0;
        if value < 1024.0 {
            return format!("{value:.1} {unit}");
        }
    }
    panic!("{bytes}")
}

fn widths(seen: &Value) -> &[Value] {
    let widths = seen["widths"].as_array().expect("widths");
    assert_eq!(widths.len(), 3);
    for at in widths {
        assert_eq!(at["errors"], json!([]), "{at}");
        assert_eq!(at["requests"], json!([]), "{at}");
        assert_eq!(at["overflow"], 0, "{at}");
    }
    widths
}

#[test]
fn a_page_shows_what_the_other_commands_say_and_can_be_used() {
    let _company = in_company();
    let folder = TempDir::new().expect("folder");
    for python in Python::all().iter().filter(|python| python.minor >= 8) {
        let target = python.start(&["-c", PROGRAM]);
        let pid = target.pid.to_string();
        let (snapshot, page) = (folder.path().join("a.heap"), folder.path().join("a.html"));
        let (snapshot, page_text) = (text(&snapshot), text(&page));
        biopsy(&["heap", "snapshot", &pid, "-q", "-o", snapshot]).ok();
        biopsy(&["heap", "html", snapshot, "-q", "-o", page_text]).ok();
        let data = head(&fs::read_to_string(&page).expect("read"));
        let types = data["types"].as_array().expect("types");

        let summary = asked(&["heap", "summary", snapshot, "--json"]);
        let rows = summary["types"].as_array().expect("types");
        assert_eq!(types.len(), rows.len(), "{python}");
        let of = |name: &str| {
            let found = types.iter().find(|row| row["name"] == name);
            found.unwrap_or_else(|| panic!("{python}: {name}"))
        };
        let (mut bytes, mut objects) = (0, 0);
        for row in rows
            .iter()
            .filter(|row| row["type"] != "\u{202e}<img src=x>")
        {
            let name = row["type"].as_str().expect("a name");
            if name.chars().all(|letter| letter.is_ascii_graphic()) {
                let shown = of(name);
                assert_eq!(shown["objects"], row["objects"], "{python}: {name}");
                assert_eq!(shown["bytes"], row["bytes"], "{python}: {name}");
            }
        }
        for row in types {
            bytes += row["bytes"].as_u64().expect("bytes");
            objects += row["objects"].as_u64().expect("objects");
        }
        assert_eq!(
            summary["total"],
            json!({"objects": objects, "bytes": bytes})
        );

        let retained = asked(&[
            "heap", "retained", snapshot, "--by", "type", "--json", "-l", "all",
        ]);
        for row in retained["holders"].as_array().expect("rows") {
            let name = row["type"].as_str().expect("a name");
            if name.starts_with("__main__.S") || name == "dict" {
                assert_eq!(
                    of(name)["retained"],
                    row["retained_bytes"],
                    "{python}: {name}"
                );
            }
        }
        assert_eq!(data["whole"], retained["total_bytes"], "{python}");

        let path = ["heap", "path", snapshot, "--type", "__main__.Session"];
        let path = biopsy(&path).ok().stdout;
        let forms = of("__main__.Session")["paths"].as_array().expect("paths");
        let lines = forms
            .iter()
            .map(|form| format!("{} × {}\n", form[0].as_str().expect("a path"), form[1]));
        assert_eq!(lines.collect::<String>(), path, "{python}");

        let account = asked(&["heap", "rss", snapshot, "--json"]);
        let parts = data["parts"].as_array().expect("parts");
        let known = account["parts"].as_array().expect("parts");
        for part in parts {
            let found = known.iter().find(|known| known["part"] == part["name"]);
            assert_eq!(
                found.expect("known")["resident_bytes"],
                part["bytes"],
                "{python}"
            );
        }
        let slow = data["caches"].as_array().expect("caches");
        let slow = slow
            .iter()
            .find(|cache| cache["function"] == "__main__.slow");
        let slow = slow.unwrap_or_else(|| panic!("{python}: {}", data["caches"]));
        assert_eq!(
            (&slow["size"], &slow["misses"], &slow["limit"]),
            (&json!(500), &json!(500), &Value::Null)
        );

        if python.minor != 12 && python.minor != 8 {
            continue;
        }
        let Some(seen) = drive(
            "heap/page.cjs",
            &page,
            &json!({"do": "use", "search": "__main__.ses"}),
        ) else {
            continue;
        };
        let holders = asked(&["heap", "retained", snapshot, "--json", "-l", "1"]);
        let biggest = &holders["holders"][0];
        for at in widths(&seen) {
            let first = &at["rows"][0];
            assert_eq!(first[0], types[0]["name"], "{at}");
            assert_eq!(
                first[2],
                bytes_text(types[0]["bytes"].as_u64().expect("bytes"))
            );
            assert_eq!(at["found_rows"], json!(["__main__.Session"]));
            assert_eq!(at["type"], "__main__.Session");
            assert_eq!(at["paths"], json!(["3000 × __main__.SESSIONS[*]"]));
            let found = at["found"].as_str().expect("text");
            assert!(found.starts_with("1 type found"), "{found}");
            assert_eq!(at["all_rows"].as_u64(), Some(types.len().min(100) as u64));
            assert_eq!(at["boxes"][0][0], biggest["path"], "{at}");
            assert_eq!(at["boxes"][0][1], biggest["retained_bytes"], "{at}");
            let area = at["boxes"][0][2].as_f64().expect("area");
            let part = biggest["retained_bytes"].as_f64().expect("bytes")
                / data["whole"].as_f64().expect("bytes");
            assert!((area - part).abs() < 0.01, "{area} {part}");
            let marked = at["marked"].as_str().expect("text");
            assert!(
                marked.contains(biggest["path"].as_str().expect("a path")),
                "{marked}"
            );
            assert_eq!(at["zoomed"], json!(["everything", "module"]));
            assert_eq!(at["left"], json!(["everything"]));
            let below = at["below"].as_array().expect("lines");
            assert!(
                below.iter().any(|line| line == "dict  __main__.SESSIONS"),
                "{at}"
            );
            assert!(
                below
                    .iter()
                    .any(|line| line == "bytearray  __main__.BUFFER"),
                "{at}"
            );
            assert_eq!(at["folded"], 0);
            assert_ne!(at["themes"][0], at["themes"][1]);
            assert!(!at["parts"].as_array().expect("parts").is_empty());
        }
        let Some(seen) = drive("heap/page.cjs", &page, &json!({"do": "look"})) else {
            continue;
        };
        for at in widths(&seen) {
            assert_eq!(at["elements"], json!([0, 0, 0, 0]));
        }
    }
}

#[test]
fn what_grew_is_in_the_pages_of_diff_and_watch() {
    let _company = in_company();
    let folder = TempDir::new().expect("folder");
    let python = Python::any();
    let mut target = python.start(&["-c", PROGRAM]);
    let pid = target.pid.to_string();
    let file = |name: &str| folder.path().join(name);
    let (old, new, page) = (file("old.heap"), file("new.heap"), file("diff.html"));
    biopsy(&["heap", "snapshot", &pid, "-q", "-o", text(&old)]).ok();
    target.tell("grow");
    assert_eq!(target.line(), "grown");
    biopsy(&["heap", "snapshot", &pid, "-q", "-o", text(&new)]).ok();
    let words = [
        "heap",
        "diff",
        text(&old),
        text(&new),
        "--why",
        "--json",
        "-o",
        text(&page),
    ];
    let diff = asked(&words);
    let data = head(&fs::read_to_string(&page).expect("read"));
    let rows = diff["types"].as_array().expect("types");
    let session = rows.iter().find(|row| row["type"] == "__main__.Session");
    assert_eq!(session.expect("a row")["objects"], json!(1000));
    let shown = data["types"].as_array().expect("types").iter();
    let shown = shown
        .clone()
        .find(|row| row["name"] == "__main__.Session")
        .expect("shown");
    assert_eq!(
        (&shown["objects"], &shown["old"][0]),
        (&json!(4000), &json!(3000))
    );
    let why = shown["why"][0].as_str().expect("a reason");
    assert!(
        why.starts_with("__main__.SESSIONS[*] holds >=1000 new"),
        "{why}"
    );

    let watched = file("watch.html");
    let words = [
        "heap",
        "watch",
        &pid,
        "--every",
        "1s",
        "-c",
        "2",
        "--json",
        "-o",
        text(&watched),
    ];
    let steps = biopsy(&words).ok().stdout;
    let last: Value = serde_json::from_str(steps.lines().nth(2).expect("a step")).expect("JSON");
    let data = head(&fs::read_to_string(&watched).expect("read"));
    let history = &data["history"];
    assert_eq!(history["seconds"].as_array().map(Vec::len), Some(3));
    assert_eq!(history["objects"][2], last["total"]["objects"], "{last}");

    let task = json!({"do": "use", "search": "__main__.ses"});
    for (page, has_tree) in [(&page, true), (&watched, false)] {
        let Some(seen) = drive("heap/page.cjs", page, &task) else {
            return;
        };
        for at in widths(&seen) {
            assert_eq!(at["found_rows"], json!(["__main__.Session"]));
            if has_tree {
                assert!(
                    at["why"][0]
                        .as_str()
                        .expect("a reason")
                        .contains("holds >=1000 new")
                );
                assert_eq!(at["lines"], json!([]));
                let row = &at["rows"][0];
                assert_eq!(row.as_array().map(Vec::len), Some(6));
            } else {
                assert!(!at["lines"].as_array().expect("lines").is_empty());
                assert_eq!(at["tree"], json!([]));
            }
        }
    }
    let refused = biopsy(&["heap", "html", &pid, "-o", text(&file("page.txt"))]);
    assert_eq!(refused.code(), 2);
    assert!(
        refused.stderr.contains("a page ends in .html"),
        "{}",
        refused.stderr
    );
}
