//! Paths can be pasted into Python: the program itself looks where they lead.

mod common;

use common::{Python, biopsy, not_here};

/// Keys of `TABLE` in the program.
const KEYS: usize = 28;

#[test]
fn every_kind_of_key_can_be_pasted() {
    for python in Python::all().iter().filter(|python| python.minor >= 8) {
        let stage = python.stage();
        let mut target = python.start(&[&stage.fixture("crash_stacks.py")]);
        let pid = target.pid.to_string();
        let file = stage.path().join("values.heap");
        let file = file.to_str().expect("UTF-8");
        biopsy(&["heap", "snapshot", &pid, "-o", file, "--values"]).ok();
        let list = [
            "heap",
            "objects",
            &pid,
            "--type",
            "__main__.Record",
            "--json",
        ];
        let objects: Vec<serde_json::Value> = biopsy(&list)
            .ok()
            .stdout
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        assert_eq!(objects.len(), KEYS, "{python}");
        for object in objects {
            let address = object["address"].as_str().expect("an address");
            let asked = ["heap", "path", file, "--address", address, "--count", "1"];
            let path = biopsy(&asked).ok().stdout;
            target.tell(&format!("path {address} {}", path.trim_end()));
            assert_eq!(target.line(), "True", "{python}: {path}");
        }
    }
}

#[test]
fn several_types_have_a_line_each() {
    let python = Python::any();
    let stage = python.stage();
    let target = python.start(&[&stage.fixture("crash_stacks.py")]);
    let pid = target.pid.to_string();
    let one = ["heap", "path", &pid, "--type", "__main__.Record"];
    assert_eq!(
        biopsy(&one).ok().stdout,
        format!("__main__.TABLE[*] × {KEYS}\n")
    );
    let text = biopsy(&[&one[..], &["--values"]].concat()).ok().stdout;
    assert!(text.contains(", such as __main__.TABLE["), "{text}");
    let all = ["heap", "path", &pid, "--type", "__main__.*"];
    let text = biopsy(&all).ok().stdout;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert_eq!(
        lines[0],
        format!("__main__.Record: __main__.TABLE[*] × {KEYS}")
    );
    assert!(lines[1].starts_with("__main__.Color: "), "{text}");
    let first = biopsy(&[&all[..], &["--count", "1"]].concat()).ok().stdout;
    assert!(first.ends_with("(1 more types, not shown)\n"), "{first}");
    let document = biopsy(&[&all[..], &["--json"]].concat()).ok().json();
    assert_eq!(document["paths"][0]["type"], "__main__.Record");
    assert!(document["paths"][1]["other_forms"].is_u64());
}

/// Objects that the collector does not know and that hold others all the same.
const STRUCTS: &str = "
import msgspec, sys
class Loose(msgspec.Struct, gc=False):
    x: int
    y: object = None
class Looser(Loose, gc=False):
    z: object = None
kept = [Looser(n, bytes([n]) * 100, complex(n)) for n in range(50)]
print('ready', sys.getsizeof(kept[0]), flush=True)
sys.stdin.readline()
";

#[test]
fn structs_that_the_collector_does_not_know_are_read_by_their_members() {
    let Some(python) = Python::with_numpy() else {
        return;
    };
    let known = python.command(&["-c", "import msgspec"]).status();
    if !known.is_ok_and(|status| status.success()) {
        return not_here("msgspec in the test venv");
    }
    let target = python.start(&["-c", STRUCTS]);
    let size: u64 = target.ready[6..].trim().parse().expect("a size");
    let pid = target.pid.to_string();
    let path = biopsy(&["heap", "path", &pid, "--type", "complex", "--count", "1"]);
    assert_eq!(path.ok().stdout, "__main__.kept[*].z × 50\n");
    let kinds = ["heap", "summary", &pid, "--type", "__main__.*", "--json"];
    let document = biopsy(&kinds).ok().json();
    let row = &document["types"][0];
    assert_eq!(row["type"], "__main__.Looser", "{document:#}");
    assert_eq!(row["bytes"], 50 * size, "{document:#}");
    assert_eq!(document["doubts"]["torn"], 0);
}
