//! What only the state of a thread, an interpreter or the runtime holds has a name, and what a C module keeps behind
//! its own pointers is found.

use crate::common;

use common::{Python, biopsy};

/// How each class of heap_roots.py is held: what the path begins with, what it has in it, and from which minor version.
const HELD: [(&str, &str, &str, u32); 21] = [
    ("InSignal", "<interpreter>.signal_handlers[10]", "", 8),
    ("InAtexit", "<interpreter>.atexit[", "]", 8),
    ("InAtexitArgument", "<interpreter>.atexit[", "][*]", 8),
    ("InForkBefore", "<interpreter>.at_fork_before[*]", "", 8),
    (
        "InForkParent",
        "<interpreter>.at_fork_after_in_parent[*]",
        "",
        8,
    ),
    (
        "InForkChild",
        "<interpreter>.at_fork_after_in_child[*]",
        "",
        8,
    ),
    ("InCodecSearch", "<interpreter>.codec_search_path[*]", "", 8),
    (
        "InCodecError",
        "<interpreter>.codec_error_registry[*]",
        "",
        8,
    ),
    ("InAudit", "<interpreter>.audit_hooks[*]", "", 8),
    (
        "InMonitoring",
        "<interpreter>.monitoring_callables[3]",
        "",
        12,
    ),
    ("InContext", "<thread ", ".ctx_vars.root[*]", 8),
    ("InWideContext", "<thread ", ".ctx_vars.root.", 8),
    ("InFirst", "<thread ", ">.asyncgen_firstiter", 8),
    ("InFinalizer", "<thread ", ">.asyncgen_finalizer", 8),
    ("InHandled", "<thread ", ">.handled_exception.args[*]", 8),
    ("InFrame", "<thread ", ".<local kept>", 8),
    ("InOuter", "<thread ", ".args[*]", 8),
    ("InProfile", "<thread ", ">.profile_function", 8),
    ("InTrace", "<thread ", ">.trace_function", 8),
    ("InCachedOnly", "__main__.context.ctx_vars.root[*]", "", 8),
    ("InQueue", "__main__.QUEUE", "[*]", 8),
];

#[test]
fn what_only_c_structs_hold_has_its_name_on_each_interpreter() {
    let _company = common::in_company();
    for python in Python::all().iter().filter(|python| python.minor >= 8) {
        let stage = python.stage();
        let mut target = python.start(&[&stage.fixture("heap_roots.py")]);
        let pid = target.pid.to_string();
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("roots.heap").display().to_string();
        biopsy(&["heap", "snapshot", &pid, "-q", "-o", &file]).ok();
        target.assert_free();
        for (class, begins, has, since) in HELD {
            if python.minor < since {
                continue;
            }
            let name = format!("__main__.{class}");
            let found = biopsy(&["heap", "path", &file, "--type", &name, "--json"]).ok();
            let document = found.json();
            let paths = document["paths"].as_array().expect("paths");
            let objects: u64 = paths
                .iter()
                .filter_map(|path| path["objects"].as_u64())
                .sum();
            let expected = match class {
                "InQueue" => 1000,
                "InWideContext" => 100,
                _ => 1,
            };
            assert_eq!(objects, expected, "{python}: {class}: {document:#}");
            for path in paths {
                let path = path["path"].as_str().expect("a path");
                assert!(
                    path.starts_with(begins) && path.contains(has),
                    "{python}: {class}: {path}"
                );
            }
        }
        let summary = biopsy(&["heap", "summary", &file, "--json"]).ok().json();
        let bytes = |name: &str| -> u64 {
            let types = summary["types"].as_array().expect("types");
            let row = types.iter().find(|row| row["type"] == name);
            row.and_then(|row| row["bytes"].as_u64()).unwrap_or(0)
        };
        let buffers = bytes("_io.BytesIO") + bytes("bytes");
        assert!(
            (5_000_000..10_000_000).contains(&buffers),
            "{python}: {buffers}"
        );
    }
}

#[test]
fn objects_in_fields_of_arrays_are_held_by_the_array() {
    let _company = common::in_company();
    let Some(python) = Python::with_numpy() else {
        return;
    };
    let program = "
import sys, numpy
class InField: pass
class Nested: pass
class InSubarray: pass
class Plain: pass
inner = numpy.dtype([('n', 'u1'), ('o', 'O')])
FIELDS = numpy.zeros(1000, dtype=[('a', 'i4'), ('o', 'O'), ('in', inner), ('sub', 'O', (3,))])
for row in FIELDS:
    row['o'] = InField()
    row['in']['o'] = Nested()
    for at in range(3): row['sub'][at] = InSubarray()
PLAIN = numpy.zeros((4, 5), dtype='O')
for at in range(20): PLAIN.flat[at] = Plain()
del row
print('ready', flush=True)
sys.stdin.readline()
";
    let target = python.start(&["-c", program]);
    let pid = target.pid.to_string();
    for (class, path) in [
        ("InField", "__main__.FIELDS[*] × 1000"),
        ("Nested", "__main__.FIELDS[*] × 1000"),
        ("InSubarray", "__main__.FIELDS[*] × 3000"),
        ("Plain", "__main__.PLAIN[*] × 20"),
    ] {
        let name = format!("__main__.{class}");
        let found = biopsy(&["heap", "path", &pid, "--type", &name]).ok();
        assert_eq!(found.stdout.trim_end(), path, "{class}");
    }
}

/// The word that a coroutine has its origin in is never set in a generator: what was in the memory before stands there.
#[test]
fn generators_hold_nothing_in_the_word_that_they_never_set() {
    let _company = common::in_company();
    let program = "
import gc, sys
class Kept: pass
gc.disable()
DEEP = {'a': {'b': {'c': [Kept() for _ in range(10)]}}}
kept = DEEP['a']['b']['c'][0]
old = [(kept,) * size for size in range(4, 45) for _ in range(3000)]
del old
GENERATORS = [(i for i in ()) for _ in range(3000)]
del kept
print('ready', flush=True)
sys.stdin.readline()
";
    for python in Python::all().iter().filter(|python| python.minor >= 8) {
        let mut target = python.start(&["-c", program]);
        let pid = target.pid.to_string();
        let found = biopsy(&["heap", "path", &pid, "--type", "__main__.Kept"]).ok();
        let paths: Vec<&str> = found.stdout.lines().collect();
        assert_eq!(paths.len(), 1, "{python}: {found}");
        assert!(paths[0].ends_with(" × 10"), "{python}: {found}");
        target.assert_free();
    }
}

/// A type that no one has made ready up to 3.9, so that it has no base, and whose objects the collector does not know.
#[test]
fn what_a_key_of_a_comparison_wraps_is_held_by_it() {
    let _company = common::in_company();
    let code = "import functools, time\nclass Kept: pass\nH = functools.cmp_to_key(lambda a, b: 0)(Kept())\n\
                print('ready', flush=True)\ntime.sleep(60)";
    for python in Python::all().iter().filter(|python| python.minor >= 8) {
        let target = python.start(&["-c", code]);
        let pid = target.pid.to_string();
        let found = biopsy(&["heap", "path", &pid, "--type", "__main__.Kept"]).ok();
        assert_eq!(found.stdout, "__main__.H.obj × 1\n", "{python}");
    }
}

/// Classes whose bases keep the list of them in a table of the interpreter.
const SUBCLASSES: &str = "
import datetime, sys
class Number(int): pass
class Zone(datetime.tzinfo): pass
print('ready', flush=True)
sys.stdin.readline()
";

#[test]
fn lists_of_subclasses_are_held_by_their_base() {
    let _company = common::in_company();
    for python in Python::all().iter().filter(|python| python.minor >= 8) {
        let target = python.start(&["-c", SUBCLASSES]);
        let pid = target.pid.to_string();
        let text = biopsy(&["heap", "path", &pid, "--type", "weakref*", "--count", "all"])
            .ok()
            .stdout;
        assert!(text.contains("tp_subclasses"), "{python}: {text}");
        // The list of a base, held by nothing that is known.
        assert!(!text.contains("<C code> dict"), "{python}: {text}");
    }
}

/// Strings that are interned, which the dict of all of them borrows.
const INTERNED: &str = "
import sys
class Names: pass
Names.kept = [sys.intern('name number %d' % number) for number in range(5000)]
print('ready', flush=True)
sys.stdin.readline()
";

#[test]
fn interned_strings_are_held_by_what_counts_them() {
    let _company = common::in_company();
    for python in Python::all().iter().filter(|python| python.minor >= 8) {
        let target = python.start(&["-c", INTERNED]);
        let pid = target.pid.to_string();
        let rows = biopsy(&["heap", "retained", &pid, "--limit", "all"]);
        let rows = rows.ok().stdout;
        let list = rows
            .lines()
            .find(|row| row.ends_with(" __main__.Names.kept"));
        let list = list.unwrap_or_else(|| panic!("{python}: {rows}"));
        assert!(list.contains(" 5001 "), "{python}: {list}");
        if python.minor >= 14 {
            let own = "<interpreter>.interned_strings";
            assert!(rows.contains(own), "{python}: {rows}");
        }
    }
}

/// Tracing and monitoring (`coverage`, debuggers) put opcodes into a function's code that stand for any other one.
#[test]
fn the_evaluation_stack_of_traced_and_monitored_code_is_read() {
    let _company = common::in_company();
    let program = "
import sys
class InStack: pass
def held():
    for one in [InStack() for _ in range(4)]:
        try:
            found = [InStack(), max(1, 2), InStack(), sys.stdin.readline(print('ready', flush=True) or -1)]
        finally:
            found = None
def by_trace(frame, event, argument): return by_trace
def by_opcode(frame, event, argument):
    frame.f_trace_opcodes = True
    return by_opcode
def monitor(local, *names):
    events = sys.monitoring.events
    wanted = 0
    sys.monitoring.use_tool_id(3, 'test')
    for name in names:
        wanted |= getattr(events, name)
        sys.monitoring.register_callback(3, getattr(events, name), lambda *_: None)
    if local: sys.monitoring.set_local_events(3, held.__code__, wanted)
    else: sys.monitoring.set_events(3, wanted)
how = sys.argv[1]
if how == 'profile': sys.setprofile(lambda *_: None)
elif how == 'trace': sys.settrace(by_trace)
elif how == 'opcodes': sys.settrace(by_opcode)
else: monitor(how[0] == 'l', *how.split('-')[1:])
held()
";
    let monitored = [
        "global-LINE",
        "global-INSTRUCTION",
        "global-LINE-INSTRUCTION-PY_START-PY_RETURN-CALL-JUMP",
        "local-LINE",
        "local-INSTRUCTION-LINE",
    ];
    for python in Python::all().iter().filter(|python| python.minor >= 8) {
        let more = if python.minor >= 12 {
            &monitored[..]
        } else {
            &[]
        };
        for how in ["profile", "trace", "opcodes"].iter().chain(more) {
            let target = python.start(&["-c", program, how]);
            let pid = target.pid.to_string();
            let found = biopsy(&["heap", "path", &pid, "--type", "__main__.InStack"]).ok();
            let held: Vec<&str> = found.stdout.lines().collect();
            let on_stack = |line: &&&str| line.starts_with("<thread ") && line.contains("held()>.");
            assert_eq!(
                held.iter().filter(on_stack).count(),
                3,
                "{python} {how}: {held:#?}"
            );
        }
    }
}

/// Types and objects that the interpreter's state holds for `ast` and `typing`, whoever else does.
#[test]
fn types_that_the_interpreter_keeps_are_not_called_c_code() {
    let _company = common::in_company();
    let program = "
import ast, sys
tree = ast.parse('x = a + b and c')
print('ready', flush=True)
sys.stdin.readline()
";
    for python in Python::all().iter().filter(|python| python.minor >= 10) {
        let target = python.start(&["-c", program]);
        let pid = target.pid.to_string();
        let found = biopsy(&["heap", "path", &pid, "--type", "ast.*"]).ok();
        assert!(!found.stdout.contains("<C code>"), "{python}: {found}");
        let found = biopsy(&["heap", "path", &pid, "--type", "ast.Sub"]).ok();
        assert!(
            found.stdout.starts_with("<interpreter>.ast_state × 1"),
            "{python}: {found}"
        );
        let asked = ["heap", "path", &pid, "--type", "type", "--count", "1000"];
        let found = biopsy(&asked).ok();
        let typing = found
            .stdout
            .lines()
            .find(|line| line.starts_with("<interpreter>.cached_types"));
        assert_eq!(typing.is_some(), python.minor >= 12, "{python}: {found}");
    }
}

/// Modules that C code makes in one step, of whose dicts the interpreter keeps a copy.
const EXTENSIONS: &str = "
import ctypes, importlib, sys
names = ['_ctypes', '_curses', '_sqlite3', 'pyexpat']
for name in names:
    try: importlib.import_module(name)
    except ImportError: pass
print('ready', flush=True)
sys.stdin.readline()
";

#[test]
fn copies_of_the_dicts_of_extension_modules_are_held_by_the_interpreter() {
    let _company = common::in_company();
    for python in Python::all().iter().filter(|python| python.minor >= 8) {
        let target = python.start(&["-c", EXTENSIONS]);
        let pid = target.pid.to_string();
        let paths = |kind: &str| {
            let asked = ["heap", "path", &pid, "--type", kind, "--count", "all"];
            biopsy(&asked).ok().stdout
        };
        let dicts = paths("dict");
        assert!(!dicts.contains("<C code> dict"), "{python}: {dicts}");
        if python.minor < 12 {
            let definitions = paths("moduledef");
            let held = "<interpreter>.extensions[*] ";
            assert!(definitions.starts_with(held), "{python}: {definitions}");
            let copy = "<interpreter>.extensions[*].m_copy ";
            assert!(dicts.contains(copy), "{python}: {dicts}");
        }
        if python.minor == 12 {
            let copy = "<interpreter>.extensions['_ctypes'].m_copy ";
            assert!(dicts.contains(copy), "{python}: {dicts}");
        }
    }
}

/// What structs of C modules hold, and how it is reached.
const CALLBACKS: &str = "
import asyncio, sqlite3, ssl, sys, xml.parsers.expat
def kind(name): return type(name, (), {'__call__': lambda *_: 0})()
parser = xml.parsers.expat.ParserCreate()
parser.StartElementHandler = kind('InStart'); parser.SkippedEntityHandler = kind('InSkipped')
async def produced(): yield 1
generator = produced(); sent = generator.asend(kind('InSent'))
connection = sqlite3.connect(':memory:')
connection.set_trace_callback(kind('InTrace')); connection.set_authorizer(kind('InAuthorizer'))
connection.set_progress_handler(kind('InProgress'), 1000); connection.row_factory = kind('InFactory')
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); context.sni_callback = kind('InServerName')
print('ready', flush=True)
sys.stdin.readline()
";

#[test]
fn callbacks_in_structs_of_c_modules_have_their_paths_on_each_interpreter() {
    let _company = common::in_company();
    for python in Python::all().iter().filter(|python| python.minor >= 8) {
        let target = python.start(&["-c", CALLBACKS]);
        let pid = target.pid.to_string();
        let asked = [
            "heap",
            "path",
            &pid,
            "--type",
            "__main__.In*",
            "--count",
            "all",
        ];
        let text = biopsy(&asked).ok().stdout;
        for (class, path) in [
            ("InStart", "parser.StartElementHandler"),
            ("InSkipped", "parser.SkippedEntityHandler"),
            ("InSent", "sent.ags_sendval"),
            ("InTrace", "connection.trace_callback"),
            ("InAuthorizer", "connection.authorizer"),
            ("InProgress", "connection.progress_handler"),
            ("InFactory", "connection.row_factory"),
            ("InServerName", "context.sni_callback"),
        ] {
            let line = format!("__main__.{class}: __main__.{path} × 1");
            assert!(
                text.lines().any(|found| found == line),
                "{python}: no {line} in {text}"
            );
        }
    }
}
