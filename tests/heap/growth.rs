//! Why a heap grew, asked about programs that know who holds what is new.

use crate::common;

use std::collections::BTreeMap;

use common::{Python, Target, biopsy};
use serde_json::Value;

/// Interpreters whose heaps can be read.
fn readable() -> impl Iterator<Item = &'static Python> {
    Python::all().iter().filter(|python| python.minor >= 8)
}

/// The difference of two snapshots of `target`, which grows between them; with the line that it says then.
fn grown(target: &mut Target, with: &[&str]) -> (Value, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let pid = target.pid.to_string();
    let files = ["old.heap", "new.heap"].map(|name| folder.path().join(name).display().to_string());
    biopsy(&["heap", "snapshot", &pid, "-q", "-o", &files[0]]).ok();
    target.tell("");
    let line = target.line();
    biopsy(&["heap", "snapshot", &pid, "-q", "-o", &files[1]]).ok();
    let asked = ["heap", "diff", &files[0], &files[1], "--why", "--json"];
    let document = biopsy(&[&asked[..], with].concat()).ok().json();
    (document, line)
}

fn rows<'d>(document: &'d Value, kind: &str) -> Vec<&'d Value> {
    let rows = document["why"].as_array().expect("reasons").iter();
    rows.filter(|row| row["type"] == kind).collect()
}

fn bytes(row: &Value) -> u64 {
    row["retained_bytes"].as_u64().expect("bytes")
}

/// One large list and ten small ones, one large text of bytes and twenty small ones; a list that gets longer.
const MANY_SMALL: &str = "
import sys
class App: pass
app = App(); app.small = []; app.big = None; app.old = [None] * 10
print('ready', flush=True); sys.stdin.readline()
app.big = [None] * 5_000_000
app.small = [[i] for i in range(10)]
app.blob = bytes(30_000_000)
app.blobs = [bytes(i) for i in range(100, 120)]
app.old.extend([None] * 1_000_000)
print('grown', sys.getsizeof(app.old), flush=True); sys.stdin.readline()
";

#[test]
fn each_path_has_its_own_bytes_and_what_grew_is_told_apart_on_each_interpreter() {
    let _company = common::in_company();
    for python in readable() {
        let stage = python.stage();
        let mut target = python.start(&[&stage.put("many_small.py", MANY_SMALL)]);
        let (document, _) = grown(&mut target, &[]);
        let lists = rows(&document, "list");
        let (big, old) = (lists[0], lists[1]);
        assert_eq!(big["path"], "__main__.app.big", "{python}: {document:#}");
        assert_eq!((&big["kind"], &big["objects"]), (&"new".into(), &1.into()));
        assert!(bytes(big).abs_diff(40_000_056) < 40_000, "{python}: {big}");
        assert_eq!(old["path"], "__main__.app.old", "{python}: {document:#}");
        assert_eq!(old["kind"], "grew", "{python}: {old}");
        assert!(
            bytes(old).abs_diff(8_000_000) < 1_200_000,
            "{python}: {old}"
        );
        assert_eq!(lists.len(), 2, "{python}: {document:#}");
        let texts = rows(&document, "bytes");
        assert_eq!(texts.len(), 1, "{python}: {document:#}");
        assert_eq!(texts[0]["path"], "__main__.app.blob", "{python}");
        assert_eq!(
            document["why"][0]["path"], "__main__.app.big",
            "{python}: {document:#}"
        );
        target.assert_free();
    }
}

/// A thousand objects go, and three thousand come, of which the first have their addresses.
const REUSE: &str = "
import sys
class Item: pass
cache = [Item() for _ in range(1000)]
print('ready', flush=True); sys.stdin.readline()
cache.clear(); LEAK = [Item() for _ in range(3000)]
print('grown', flush=True); sys.stdin.readline()
";

#[test]
fn an_address_that_is_used_again_is_a_new_object_on_each_interpreter() {
    let _company = common::in_company();
    for python in readable() {
        let stage = python.stage();
        let mut target = python.start(&[&stage.put("reuse.py", REUSE)]);
        let (document, _) = grown(&mut target, &[]);
        let items = rows(&document, "__main__.Item");
        assert_eq!(items.len(), 1, "{python}: {document:#}");
        assert_eq!(items[0]["path"], "__main__.LEAK[*]", "{python}");
        assert_eq!(items[0]["objects"], 3000, "{python}: {document:#}");
        let fates = document["objects"].as_array().expect("fates").iter();
        let fates: Vec<_> = fates.filter(|row| row["type"] == "__main__.Item").collect();
        for (what, number) in [("new", 3000), ("gone", 1000), ("survived", 0)] {
            assert_eq!(fates[0][what]["objects"], number, "{python}: {}", fates[0]);
        }
        target.assert_free();
    }
}

/// A parent and its child, which both have records; the child has more.
const FORK: &str = "
import os, sys
class Record: pass
class Own: pass
DATA = [Record() for _ in range(25)]
child = os.fork()
if not child:
    DATA.extend(Record() for _ in range(150))
    own = [Own() for _ in range(1000)]
    sys.stdin.close()
    import time
    time.sleep(1000)
print('ready', child, flush=True); sys.stdin.readline()
os.kill(child, 9)
";

/// The same records in two processes that have nothing to do with each other.
const APART: &str = "
import sys
class Record: pass
DATA = [Record() for _ in range(int(sys.argv[1]))]
print('ready', flush=True); sys.stdin.readline()
";

#[test]
fn another_process_is_compared_by_paths_and_a_fork_by_its_objects_on_each_interpreter() {
    let _company = common::in_company();
    for python in readable() {
        let stage = python.stage();
        let mut parent = python.start(&[&stage.put("fork.py", FORK)]);
        let child = parent
            .ready
            .split_whitespace()
            .find_map(|word| word.parse::<u32>().ok());
        let child = child.expect("a child").to_string();
        let pid = parent.pid.to_string();
        let file = stage.path().join("parent.heap").display().to_string();
        std::thread::sleep(std::time::Duration::from_millis(200));
        biopsy(&["heap", "snapshot", &pid, "-q", "-o", &file]).ok();
        let why = biopsy(&["heap", "diff", &file, &child, "--why", "--json"])
            .ok()
            .json();
        let (records, own) = (rows(&why, "__main__.Record"), rows(&why, "__main__.Own"));
        assert_eq!(records[0]["path"], "__main__.DATA[*]", "{python}: {why:#}");
        assert_eq!(
            (&records[0]["objects"], &records[0]["of"]),
            (&150.into(), &150.into()),
            "{python}: {why:#}"
        );
        assert_eq!(own[0]["objects"], 1000, "{python}: {why:#}");
        parent.assert_free();

        let script = stage.put("apart.py", APART);
        let mut old = python.start(&[&script, "25"]);
        let mut new = python.start(&[&script, "175"]);
        let (before, now) = (old.pid.to_string(), new.pid.to_string());
        let asked = [
            "heap", "diff", &before, &now, "--why", "--json", "--type", "*.Record",
        ];
        let why = biopsy(&asked).ok().json();
        let row = rows(&why, "__main__.Record")[0];
        assert_eq!(
            (&row["now"], &row["before"], &row["objects"]),
            (&175.into(), &25.into(), &150.into()),
            "{python}: {row}"
        );
        assert_eq!(row["kind"], "paths", "{python}: {row}");
        let told = biopsy(&["heap", "diff", &before, &now, "--why", "--type", "*.Record"]).ok();
        assert!(
            told.stdout.contains("__main__.DATA[*] holds +150 of 175;"),
            "{python}: {told}"
        );
        old.assert_free();
        new.assert_free();
    }
}

/// Rings that nothing holds, rings that C code holds, and a ring below each kind.
const GARBAGE: &str = "
import ctypes, gc, sys
gc.disable()
class Node: pass
class Kept: pass
print('ready', flush=True); sys.stdin.readline()
def ring(kind):
    a = kind(); b = kind(); a.other = b; b.other = a
    return a
for i in range(1000):
    ring(Node)
keep = ctypes.pythonapi.Py_IncRef
keep.argtypes = [ctypes.py_object]
keep.restype = None
for i in range(10):
    keep(ring(Kept))
print('grown', flush=True); sys.stdin.readline()
";

#[test]
fn garbage_is_told_apart_from_what_c_code_holds_on_each_interpreter() {
    let _company = common::in_company();
    for python in readable() {
        let stage = python.stage();
        let mut target = python.start(&[&stage.put("garbage.py", GARBAGE)]);
        let (document, _) = grown(&mut target, &[]);
        for (kind, begin, count) in [("Node", "<garbage> ", 2000), ("Kept", "<C code> ", 20)] {
            let name = format!("__main__.{kind}");
            let found = rows(&document, &name);
            let path = found[0]["path"].as_str().expect("a path");
            assert!(path.starts_with(begin), "{python}: {path}");
            assert_eq!(found[0]["of"], count, "{python}: {document:#}");
            let pid = target.pid.to_string();
            let forms = biopsy(&["heap", "path", &pid, "--type", &name]).ok();
            let lines: Vec<&str> = forms.stdout.lines().collect();
            assert_eq!(lines.len(), 2, "{python}: {forms}");
            let half = format!("{begin}{name} × {}", count / 2);
            assert!(lines.contains(&half.as_str()), "{python}: {forms}");
        }
        target.assert_free();
    }
}

/// Layers of objects that each hold the whole next layer, and objects that all hold each other.
const SHAPES: &str = "
import sys
class Node: pass
class Last: pass
layers = [[Node(), Node()] for _ in range(40)]
for above, below in zip(layers, layers[1:]):
    for node in above: node.kids = below
end = Last()
for node in layers[-1]: node.kids = [end]
ROOT = layers[0]
mesh = [Node() for _ in range(12)]
for node in mesh: node.peers = [other for other in mesh if other is not node]
print('ready', id(end), id(mesh[0]), flush=True)
del layers, above, below, node, end
sys.stdin.readline()
";

#[test]
fn referrers_of_shared_objects_are_followed_once_on_each_interpreter() {
    let _company = common::in_company();
    for python in readable() {
        let stage = python.stage();
        let mut target = python.start(&[&stage.put("shapes.py", SHAPES)]);
        let pid = target.pid.to_string();
        let ids: Vec<String> = target
            .ready
            .split_whitespace()
            .filter(|word| word.parse::<u64>().is_ok())
            .map(str::to_string)
            .collect();
        for (id, depth, most) in [(&ids[0], "50", 20_000), (&ids[1], "30", 20_000)] {
            let asked = [
                "heap",
                "referrers",
                &pid,
                "--address",
                id,
                "--depth",
                depth,
                "--max",
                "100",
            ];
            let text = biopsy(&asked).ok();
            let lines = text.stdout.lines().count();
            assert!((40..most).contains(&lines), "{python}: {lines} lines");
            let dot = biopsy(&[&asked[..], &["--dot"]].concat()).ok();
            let mut edges: Vec<&str> = dot
                .stdout
                .lines()
                .filter(|line| line.contains(" -> "))
                .collect();
            let all = edges.len();
            edges.sort_unstable();
            edges.dedup();
            // Two keys of one dict may have the same words.
            assert!(
                edges.len() * 100 >= all * 99,
                "{python}: references are told twice"
            );
        }
        let asked = [
            "heap",
            "referrers",
            &pid,
            "--address",
            &ids[1],
            "--depth",
            "8",
            "--json",
        ];
        let document = biopsy(&asked).ok().json();
        let nodes = document["nodes"].as_array().expect("nodes");
        let mut addresses: Vec<&str> = nodes
            .iter()
            .filter_map(|node| node["address"].as_str())
            .collect();
        let all = addresses.len();
        addresses.sort_unstable();
        addresses.dedup();
        assert_eq!(addresses.len(), all, "{python}");
        target.assert_free();
    }
}

#[test]
fn the_largest_holder_of_random_growth_is_named_first_with_its_bytes() {
    let _company = common::in_company();
    let graphs = std::env::var("BIOPSY_GRAPHS")
        .ok()
        .and_then(|number| number.parse().ok());
    let pythons: Vec<&Python> = readable().collect();
    let count: usize = graphs.unwrap_or(2 * pythons.len());
    let mut wrong = Vec::new();
    for (seed, python) in (0..count).zip(pythons.iter().cycle()) {
        let stage = python.stage();
        let script = stage.fixture("heap_growth.py");
        let mut target = python.start(&[&script, &seed.to_string()]);
        let (document, line) = grown(&mut target, &["--sizes", "getsizeof"]);
        let truth = line.strip_prefix("grown ").expect("what grew");
        let truth: BTreeMap<String, i64> = serde_json::from_str(truth).expect("JSON");
        let (name, size) = truth
            .iter()
            .max_by_key(|(_, size)| **size)
            .expect("a holder");
        let first = &document["why"][0];
        let right = first["path"] == format!("__main__.app.{name}").as_str()
            && bytes(first).abs_diff(*size as u64) * 100 <= *size as u64;
        if !right {
            wrong.push(format!(
                "{python}: seed {seed}: {name} {size}, told is {first}"
            ));
        }
        target.assert_free();
    }
    common::say(format_args!("{count} graphs, {} wrong", wrong.len()));
    assert!(wrong.len() * 100 <= count, "{}", wrong.join("\n"));
}
