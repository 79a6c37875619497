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
        // What the depth leaves out is said.
        assert_eq!(document["cut_by_depth"], document["cut"], "{python}");
        let asked = [
            "heap",
            "referrers",
            &pid,
            "--address",
            &ids[1],
            "--depth",
            "2",
        ];
        let document = biopsy(&[&asked[..], &["--json"]].concat()).ok().json();
        assert_eq!(document["cut"], true, "{python}: {document:#}");
        let text = biopsy(&asked).ok();
        assert!(
            text.stdout.contains(" deeper than --depth)") && !text.stdout.contains("first place"),
            "{python}: {text}"
        );
        target.assert_free();
    }
}

/// An attribute of an object with a dict is in the dict and, from 3.13 on, in the object itself.
#[test]
fn each_reference_is_told_once_on_each_interpreter() {
    let _company = common::in_company();
    let program = "
import sys
class Holder: pass
class Held: pass
held = Held(); holder = Holder(); holder.end = held; vars(holder)
keys = {(1, 2): held, (3, 4): held}
print('ready', id(held), flush=True); sys.stdin.readline()
";
    for python in readable() {
        let mut target = python.start(&["-c", program]);
        let pid = target.pid.to_string();
        let id = target.ready.split_whitespace().last().expect("an id");
        let asked = [
            "heap",
            "referrers",
            &pid,
            "--address",
            id,
            "--depth",
            "3",
            "--json",
        ];
        let document = biopsy(&asked).ok().json();
        let edges = document["edges"].as_array().expect("edges");
        let mut by: Vec<(String, u64)> = edges
            .iter()
            .filter(|edge| edge["to"] == document["object"]["address"])
            .map(|edge| {
                let by = edge["by"].as_str().expect("words").to_string();
                (by, edge["references"].as_u64().expect("a number"))
            })
            .collect();
        by.sort();
        let expected = [(".end", 1), (".held", 1), ("[<tuple>]", 2)];
        let expected = expected.map(|(by, number)| (by.to_string(), number));
        assert_eq!(by, expected, "{python}: {document:#}");
        target.assert_free();
    }
}

/// What heap_growth.py says that grew: paths with bytes, and which of them hold it in pieces.
#[derive(serde::Deserialize)]
struct Growth {
    holders: BTreeMap<String, i64>,
    whole: Vec<String>,
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
        let truth: Growth = serde_json::from_str(truth).expect("JSON");
        let (name, size) = truth
            .holders
            .iter()
            .max_by_key(|(_, size)| **size)
            .expect("a holder");
        let first = &document["why"][0];
        let path = first["path"].as_str().expect("a path");
        // What is in pieces may be told by what its places have in common.
        let is_whole = truth.whole.contains(name);
        let rest = path.strip_prefix(name.as_str());
        let is_there =
            rest.is_some_and(|rest| rest.is_empty() || is_whole && rest.starts_with(['.', '[']));
        let right = is_there && bytes(first).abs_diff(*size as u64) * 100 <= *size as u64;
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

/// Things that a list and a dict hold, some of them a second dict; things that are in a set and in objects of another dict;
/// nodes that know their parents and neighbours; a text of bytes that a variable has too.
const SHARED: &str = "
import sys
class Thing:
    def __init__(self): self.text = 'y' * 300 + str(id(self))
class Conn: pass
class Wrap: pass
class Node: pass
LIST = []; BY_ID = {}; SOME = {}; POOL = set(); WRAPS = {}; TREE = []
print('ready', flush=True); sys.stdin.readline()
def main():
    global BLOB
    for at in range(10000):
        LIST.append(Thing()); BY_ID[at] = LIST[-1]
        if at < 3000: SOME[at] = LIST[-1]
    for at in range(500):
        wrap = WRAPS[at] = Wrap(); wrap.conn = Conn(); POOL.add(wrap.conn)
    for at in range(1000):
        node = Node(); child = Node(); node.kids = [child]; child.parent = node
        if TREE: node.before = TREE[-1]; TREE[-1].after = node
        TREE.append(node)
    del wrap, node, child
    BLOB = bytes(5_000_000)
    blob = BLOB
    print('grown', flush=True); sys.stdin.readline()
main()
";

#[test]
fn who_else_holds_what_came_is_told_with_true_numbers_on_each_interpreter() {
    let _company = common::in_company();
    for python in readable() {
        let stage = python.stage();
        let mut target = python.start(&[&stage.put("shared.py", SHARED)]);
        let (document, _) = grown(&mut target, &[]);
        let also = |kind: &str, path: &str| {
            let rows = rows(&document, kind);
            let row = rows.iter().find(|row| row["path"] == path);
            let row = row.unwrap_or_else(|| panic!("{python}: {kind} {path}: {document:#}"));
            let others = row["also_held_by"].as_array().expect("others").iter();
            let other = |other: &Value| {
                let path = other["path"].as_str().expect("a path").to_string();
                let number = |name: &str| other[name].as_u64().expect("a number");
                (path, number("objects"), number("of"))
            };
            others.map(other).collect::<Vec<_>>()
        };
        let held = |path: &str, objects, of| (format!("__main__.{path}[*]"), objects, of);
        let things = [held("BY_ID", 10_000, 10_000), held("SOME", 3000, 10_000)];
        for kind in ["__main__.Thing", "(all types)"] {
            let path = match kind {
                "(all types)" => "__main__.LIST",
                _ => "__main__.LIST[*]",
            };
            assert_eq!(also(kind, path), things, "{python}: {kind}");
        }
        let texts = things.map(|(path, objects, of)| (format!("{path}.text"), objects, of));
        assert_eq!(also("str", "__main__.LIST[*].text"), texts, "{python}");
        let conns = ("__main__.WRAPS[*].conn".to_string(), 500, 500);
        assert_eq!(
            also("__main__.Conn", "__main__.POOL.<member>"),
            [conns],
            "{python}"
        );
        assert_eq!(also("__main__.Node", "__main__.TREE[*]"), [], "{python}");
        // Which of the two is named first depends on the version.
        let blob = rows(&document, "bytes")[0];
        let mut holders = vec![&blob["path"]];
        let others = blob["also_held_by"].as_array().expect("others").iter();
        holders.extend(others.map(|other| &other["path"]));
        let mut holders: Vec<&str> = holders.iter().filter_map(|path| path.as_str()).collect();
        holders.sort_unstable();
        assert!(
            holders.len() == 2
                && holders[0].ends_with(", main()>.blob")
                && holders[1] == "__main__.BLOB",
            "{python}: {holders:?}"
        );
        target.assert_free();
    }
}

/// A dict and a list that are in the module and in an object of it, and grow.
const ALIASED: &str = "
import sys
class Registry: pass
class Thing: pass
registry = Registry(); cache = registry.cache = {}; big = registry.big = []
print('ready', flush=True); sys.stdin.readline()
def main():
    for at in range(2000): cache[at] = Thing()
    big.extend([None] * 100_000)
    print('grown', flush=True); sys.stdin.readline()
main()
";

#[test]
fn another_name_of_the_same_holder_is_told_on_each_interpreter() {
    let _company = common::in_company();
    for python in readable() {
        let stage = python.stage();
        let mut target = python.start(&[&stage.put("aliased.py", ALIASED)]);
        let (document, _) = grown(&mut target, &[]);
        for (kind, path, other) in [
            ("__main__.Thing", "cache[*]", "registry.cache[*]"),
            ("(all types)", "cache", "registry.cache"),
            ("(all types)", "big", "registry.big"),
            ("list", "big", "registry.big"),
        ] {
            let path = format!("__main__.{path}");
            let rows = rows(&document, kind);
            let row = rows.iter().find(|row| row["path"] == path.as_str());
            let row = row.unwrap_or_else(|| panic!("{python}: {kind} {path}: {document:#}"));
            let others = row["also_held_by"].as_array().expect("others").iter();
            let others: Vec<_> = others
                .map(|other| (other["path"].as_str(), other["same_holder"] == true))
                .collect();
            let other = format!("__main__.{other}");
            assert_eq!(others, [(Some(other.as_str()), true)], "{python}: {kind}");
        }
        target.assert_free();
    }
}

/// Sessions that are replaced at their addresses while more come, and jobs that go from one list to another.
const REPLACED: &str = "
import sys
class Session: pass
class Job: pass
class Plain: pass
CACHE = {at: Session() for at in range(1000)}
TODO = [Job() for _ in range(1000)]; DONE = []
EMPTY = []
print('ready', flush=True); sys.stdin.readline()
for at in range(1000):
    CACHE[at] = None
    CACHE[at] = Session()
for at in range(1000, 1500): CACHE[at] = Session()
while len(TODO) > 400: DONE.append(TODO.pop())
DONE.extend(Job() for _ in range(100))
EMPTY.extend(Plain() for _ in range(700))
print('grown', flush=True); sys.stdin.readline()
";

#[test]
fn numbers_of_new_objects_are_true_bounds_on_each_interpreter() {
    let _company = common::in_company();
    for python in readable() {
        let stage = python.stage();
        let mut target = python.start(&[&stage.put("replaced.py", REPLACED)]);
        let (document, _) = grown(&mut target, &[]);
        let row = |kind: &str| rows(&document, &format!("__main__.{kind}"))[0];
        let number = |row: &Value, name: &str| row[name].as_u64().expect("a number");
        // All 1500 are new, and the 1000 are gone; which of them is not known.
        let session = row("Session");
        assert_eq!(number(session, "objects"), 500, "{python}: {session}");
        let least = number(session, "new_at_least");
        let stayed = number(session, "stayed");
        assert!(
            (1..=1500).contains(&least) && stayed > 0 && number(session, "now") + stayed == 1500,
            "{python}: {session}"
        );
        // A hundred are new.
        let job = row("Job");
        assert_eq!(number(job, "objects"), 700, "{python}: {job}");
        assert_eq!(number(job, "new_at_least"), 100, "{python}: {job}");
        let fates = document["objects"].as_array().expect("fates").iter();
        let fates: Vec<&Value> = fates.filter(|row| row["type"] == "__main__.Job").collect();
        assert_eq!(
            fates[0]["new_at_old_addresses"], 600,
            "{python}: {document:#}"
        );
        let plain = row("Plain");
        assert_eq!(
            (number(plain, "new_at_least"), number(plain, "of_at_least")),
            (700, 700),
            "{python}: {plain}"
        );
        target.assert_free();
    }
}
