//! Paths can be pasted into Python: the program itself looks where they lead.

use crate::common;

use common::{Python, biopsy, in_company, not_here};

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

/// A random generator whose state looks like references to an instance, and a lock beside it.
const NUMBERS: &str = "
import ctypes, random, threading
class Victim: pass
kept = [Victim()]
# A reference that nothing explains: such objects are looked for in structs that are not known.
ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept[0]))
address = id(kept[0])
state = random.Random()
lock = threading.RLock()
pairs = [address & 0xffffffff, address >> 32] * 312
# The state begins in the second half of a word.
state.setstate((3, tuple([7] + pairs[:623] + [624]), None))
print('ready', flush=True)
input()
";

#[test]
fn numbers_that_look_like_references_are_none() {
    for python in Python::all().iter().filter(|python| python.minor >= 8) {
        let target = python.start(&["-c", NUMBERS]);
        let pid = target.pid.to_string();
        let path = ["heap", "path", &pid, "--type", "__main__.Victim"];
        assert_eq!(
            biopsy(&path).ok().stdout,
            "__main__.kept[*] × 1\n",
            "{python}"
        );
        let address = ["heap", "referrers", &pid, "--type", "__main__.Victim"];
        let text = biopsy(&address).ok().stdout;
        assert!(
            text.contains("list") && !text.contains("Random"),
            "{python}: {text}"
        );
    }
}

/// 20 threads that each hold some of the same.
const THREADS: &str = "
import threading, time
class Buffer:
    def __init__(self):
        self.blocks = [bytes(1000 + number) for number in range(100)]
begun = threading.Semaphore(0)
def worker():
    buffer = Buffer()
    begun.release()
    threading.Event().wait()
for _ in range(20):
    threading.Thread(target=worker, daemon=True).start()
for _ in range(20):
    begun.acquire()
time.sleep(0.2)
print('ready', flush=True)
input()
";

#[test]
fn what_many_threads_hold_alike_is_one_line() {
    for python in Python::all().iter().filter(|python| python.minor >= 8) {
        let target = python.start(&["-c", THREADS]);
        let pid = target.pid.to_string();
        let path = ["heap", "path", &pid, "--type", "__main__.Buffer"];
        let text = biopsy(&path).ok().stdout;
        assert_eq!(text, "<20 threads, worker()>.buffer × 20\n", "{python}");
        let path = ["heap", "path", &pid, "--type", "bytes", "--limit", "all"];
        let text = biopsy(&path).ok().stdout;
        assert!(
            text.contains("<20 threads, worker()>.buffer.blocks[*] × 2000\n"),
            "{python}: {text}"
        );
        let retained = [
            "heap",
            "retained",
            &pid,
            "--type",
            "__main__.Buffer",
            "--limit",
            "all",
        ];
        let text = biopsy(&retained).ok().stdout;
        let rows: Vec<&str> = text
            .lines()
            .filter(|line| line.contains("Buffer"))
            .collect();
        assert!(
            rows.len() == 1 && rows[0].ends_with("  <20 threads, worker()>.buffer"),
            "{python}: {text}"
        );
        let objects: Vec<&str> = rows[0].split_whitespace().collect();
        // 100 blocks, the list and the instance of each, where it has one its dict.
        let held: u64 = objects[3].parse().expect("a number");
        assert!([2040, 2060].contains(&held), "{python}: {text}");
        // Programs get every object.
        let document = biopsy(&[&retained[..], &["--json"]].concat()).ok().json();
        let holders = document["holders"].as_array().map_or(0, Vec::len);
        assert_eq!(holders, 20, "{python}: {document}");
    }
}

/// A chain of lists and one of instances, each of which keeps all of the one below it, beside two plain holders.
const CHAINS: &str = "
import time
class Node:
    def __init__(self, next): self.next = next
deep, nodes = [], None
for _ in range(20000): deep, nodes = [deep], Node(nodes)
plain = [bytes(100) for _ in range(2000)]
table = {n: str(n) for n in range(4000)}
print('ready', flush=True)
time.sleep(600)
";

/// Where a chain begins says what it keeps; its links would be all that a table of the biggest has.
#[test]
fn a_chain_is_where_it_begins() {
    let _company = in_company();
    for python in Python::all().iter().filter(|python| python.minor >= 8) {
        let mut target = python.start(&["-c", CHAINS]);
        let pid = target.pid.to_string();
        let text = biopsy(&["heap", "retained", &pid]).ok().stdout;
        let paths: Vec<&str> = text
            .lines()
            .filter_map(|line| line.split_whitespace().last())
            .filter(|path| path.starts_with("__main__."))
            .collect();
        for path in ["deep", "deep[0]", "nodes", "nodes.next", "plain", "table"] {
            let path = format!("__main__.{path}");
            assert!(paths.contains(&path.as_str()), "{python}, {path}: {text}");
        }
        let links = |of: &str| paths.iter().filter(|path| path.starts_with(of)).count();
        assert_eq!(
            (links("__main__.deep"), links("__main__.nodes")),
            (3, 3),
            "{text}"
        );
        let left_out = text.lines().last().unwrap_or_default();
        let number = left_out
            .strip_prefix("without ")
            .and_then(|rest| rest.split(' ').next()?.replace(',', "").parse::<u64>().ok());
        // Near its end each one's own part is more than a tenth.
        assert!(
            number.is_some_and(|number| (39_900..=39_994).contains(&number)),
            "{python}: {text}"
        );
        let document = biopsy(&["heap", "retained", &pid, "--json"]).ok().json();
        assert_eq!(document["left_out_of_chains"].as_u64(), number, "{python}");
        target.assert_free();
    }
}

/// Static types are data of libraries: nothing frees them, whatever refers to them.
#[test]
fn no_static_type_is_garbage() {
    let _company = in_company();
    let program = "import asyncio, ctypes, datetime, decimal, gc, threading, zlib, time\ngc.collect()\nprint('ready', flush=True)\n\
                   time.sleep(600)";
    for python in Python::all().iter().filter(|python| python.minor >= 8) {
        let mut target = python.start(&["-c", program]);
        let pid = target.pid.to_string();
        let path = ["heap", "path", &pid, "--type", "type", "--limit", "all"];
        let text = biopsy(&path).ok().stdout;
        let garbage: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("<garbage>"))
            .collect();
        assert!(garbage.is_empty(), "{python}: {garbage:#?}");
        assert!(text.contains("<static type>"), "{python}: {text}");
        target.assert_free();
    }
}

/// What has an instance of R in a struct of C code.
const INSIDE: &str = "
import itertools as it, ctypes, time, functools, collections, csv
class R: pass
def r(): return [R()]
H={}
H['chain']=it.chain(r(), r()); next(H['chain'])
H['cycle']=it.cycle(r()); next(H['cycle'])
H['islice']=it.islice(iter(r()),5)
H['count']=it.count(10**30, 3)
H['repeat']=it.repeat(R(),3)
H['starmap']=it.starmap(R, iter(r()))
H['filterfalse']=it.filterfalse(R, iter(r()))
H['takewhile']=it.takewhile(R, iter(r()))
H['dropwhile']=it.dropwhile(R, iter(r()))
H['accumulate']=it.accumulate(r()); next(H['accumulate'])
H['compress']=it.compress(r(), [R()])
H['product']=it.product(r(), r()); next(H['product'])
H['permutations']=it.permutations(r()+r(),2); next(H['permutations'])
H['combinations']=it.combinations(r()+r(),2); next(H['combinations'])
H['cwr']=it.combinations_with_replacement(r()+r(),2); next(H['cwr'])
H['zip_longest']=it.zip_longest(r(), r(), fillvalue=R())
H['groupby']=it.groupby(r(), key=lambda x: x); next(H['groupby'])
a,b=it.tee(iter(r())); H['tee']=a; next(b)
if hasattr(it,'pairwise'): H['pairwise']=it.pairwise(r()+r()); next(H['pairwise'])
if hasattr(it,'batched'): H['batched']=it.batched(r(),2)
class P(ctypes.Structure): _fields_=[('a',ctypes.py_object),('b',ctypes.c_char_p)]
H['struct']=P(R(), b'x'*50)
H['ptr']=ctypes.pointer(ctypes.py_object(R()))
H['arr']=(ctypes.py_object*3)(R(),R(),R())
CB=ctypes.CFUNCTYPE(ctypes.c_int); H['cb']=CB(lambda x=R(): 3)
H['partial']=functools.partial(R, R(), x=R())
H['map']=map(lambda x:x, r()); H['zip']=zip(r(), r()); H['filter']=filter(None,r()); H['enum']=enumerate(r()); H['rev']=reversed(r())
H['cmp']=functools.cmp_to_key(lambda a,b:0)(R())
H['deque_it']=iter(collections.deque(r())); H['list_it']=iter(r()); H['set_it']=iter({R()}); H['dict_it']=iter({R():1}.items())
H['reader']=csv.reader(iter([R()])); 
H['callit']=iter(lambda x=R(): x, R())
H['seqit']=iter(type('Q',(),{'__getitem__':lambda s,i:R()})())
print('ready', flush=True)
input()
";

#[test]
fn what_iterators_and_ctypes_hold_is_named_as_their_structs_do() {
    for python in Python::all().iter().filter(|python| python.minor >= 8) {
        let target = python.start(&["-c", INSIDE]);
        let pid = target.pid.to_string();
        let words = ["heap", "path", &pid, "--type", "__main__.R", "--values"];
        let text = biopsy(&[&words[..], &["--count", "all"]].concat())
            .ok()
            .stdout;
        assert!(
            !text.contains("<inside>") && !text.contains(".?"),
            "{python}: {text}"
        );
        for path in [
            "__main__.H['groupby'].tgtkey",
            "__main__.H['zip_longest'].fillvalue",
            "__main__.H['chain'].active.sequence[0]",
            "__main__.H['reader'].input_iter.sequence[0]",
            "__main__.H['struct'].b_value",
            "__main__.H['deque_it'].deque[0]",
            "__main__.a.dataobj[*]",
        ] {
            assert!(text.contains(path), "{python}: {path}\n{text}");
        }
    }
}

/// Keys that are flags, attributes that Python cannot write behind a dot, and what only types of C code hold.
const WORDS: &str = "
import datetime, enum, sys
class Kept: pass
class Held: pass
class Fl(enum.Flag):
    A = 1
    B = 2
class Plain(enum.IntFlag):
    A = 1
    B = 2
BY_FLAG = {Fl.A | Fl.B: Kept(), Fl.A: Kept(), Plain.A | Plain.B: Kept(), Plain(4 | 1): Kept()}
held = Held(); setattr(held, 'a b', Kept()); setattr(held, 'class', Kept()); held.plain = Kept()
late = Held()
for at in range(50): setattr(late, 'x%d' % at, None)
vars(late)['c d'] = Kept()
print('ready', flush=True); sys.stdin.readline()
";

#[test]
fn keys_and_attributes_are_written_as_python_reads_them_on_each_interpreter() {
    let _company = common::in_company();
    for python in Python::all().iter().filter(|python| python.minor >= 8) {
        let stage = python.stage();
        let mut target = python.start(&[&stage.put("words.py", WORDS)]);
        let pid = target.pid.to_string();
        let paths = |kind: &str, more: &[&str]| {
            let asked = ["heap", "objects", &pid, "--type", kind, "--json"];
            let listed = biopsy(&asked).ok();
            let path = |row: &str| {
                let row: serde_json::Value = serde_json::from_str(row).expect("JSON");
                let address = row["address"].as_str().expect("an address");
                let asked = ["heap", "path", &pid, "--count", "1", "--address", address];
                let told = biopsy(&[&asked[..], more].concat()).ok();
                told.stdout.trim_end().to_string()
            };
            let mut found: Vec<String> = listed.stdout.lines().map(path).collect();
            found.sort();
            found
        };
        let found = paths("__main__.Kept", &["--values"]);
        let mut expected = vec![
            "__main__.BY_FLAG[__main__.Fl.A]",
            "__main__.held.__dict__['a b']",
            "__main__.held.__dict__['class']",
            "__main__.held.plain",
            "__main__.late.__dict__['c d']",
        ];
        // Before 3.11 what has no name of its own is told by its number; since then the order of the names is that of the class.
        match python.minor {
            ..11 => expected.extend([
                "__main__.BY_FLAG[__main__.Fl(3)]",
                "__main__.BY_FLAG[__main__.Plain(3)]",
                "__main__.BY_FLAG[__main__.Plain(5)]",
            ]),
            _ => expected.extend([
                "__main__.BY_FLAG[__main__.Fl.A|__main__.Fl.B]",
                "__main__.BY_FLAG[__main__.Plain.A|__main__.Plain.B]",
                "__main__.BY_FLAG[__main__.Plain.A|__main__.Plain(4)]",
            ]),
        }
        expected.sort_unstable();
        assert_eq!(found, expected, "{python}");
        let hidden = paths("__main__.Kept", &[]);
        assert!(
            hidden.contains(&"__main__.held.__dict__[<str>]".to_string()),
            "{python}: {hidden:?}"
        );
        let times = paths("datetime.time", &[]).join("\n");
        assert!(times.contains("datetime.time.m"), "{python}: {times}");
        let forms = biopsy(&["heap", "path", &pid, "--type", "datetime.time"]).ok();
        assert!(
            !forms.stdout.contains("<static type> type."),
            "{python}: {forms}"
        );
        target.assert_free();
    }
}
