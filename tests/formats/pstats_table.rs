//! Our table beside pstats' own, to the byte, for every interpreter that is found, and of our files as of
//! its own. With no Python, the tables in `fixtures/golden/pstats` still speak.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use biopsy::formats::pstats::Pstats;
use biopsy::formats::{ExportOptions, Exporter, Importer};
use biopsy::profile::record::Sample;
use biopsy::profile::{
    CallStats, EdgeStats, Filter, FunctionId, FunctionKind, FunctionStats, Origin, ProcessId,
    ProcessInfo, Profile, Recorder, RunState, Split, Tables, ThreadInfo,
};
use biopsy::view::stats::{Restriction, SortKey, TableOptions, View, write_table};
use serde_json::{Value, json};

/// Asks pstats. Works on 3.6 to 3.15, and from behind a chroot: nothing is a file.
const DRIVER: &str = r#"
import base64, io, json, marshal, pstats, sys

request = json.load(sys.stdin)

def run(source, module):
    profiler = __import__(module).Profile()
    for folder in ("one", "two"):
        names = {"__name__": "__main__"}
        with_stdout, sys.stdout = sys.stdout, io.StringIO()
        try:
            code = compile(source, "/srv/%s/program.py" % folder, "exec")
            names["code"] = code
            # `python -m profile` hands over the code itself, which then stands in the file.
            profiler.runctx(code if request.get("as_code") else "exec(code)", names, names)
        finally:
            sys.stdout = with_stdout
    profiler.create_stats()
    return marshal.dumps(profiler.stats, request.get("version", marshal.version))

class Loaded:
    def __init__(self, data):
        self.stats = marshal.loads(data)
    def create_stats(self):
        pass

def table(data, case):
    stream = io.StringIO()
    stats = pstats.Stats(Loaded(data), stream=stream)
    if case["strip"]:
        stats.strip_dirs()
    try:
        if case["sort"]:
            stats.sort_stats(*case["sort"])
    except KeyError:
        return None
    getattr(stats, case["view"])(*case["limits"])
    return stream.getvalue()

if "source" in request:
    answer = base64.b64encode(run(request["source"], request["module"])).decode()
elif "expression" in request:
    answer = base64.b64encode(marshal.dumps(eval(request["expression"]), request["version"])).decode()
elif "same" in request:
    one, two = [marshal.loads(base64.b64decode(data)) for data in request["same"]]
    order = lambda d: [(k, v[:4], list(v[4].items())) for k, v in d.items()]
    answer = order(one) == order(two)
else:
    data = base64.b64decode(request["profile"])
    answer = [table(data, case) for case in request["cases"]]
json.dump(answer, sys.stdout)
"#;

/// Two files of one name, recursion, lambdas, C functions, names that are not ASCII, and equal counts.
const PROGRAM: &str = r#"
import os.path
def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)
def is_even(n):
    return True if n == 0 else is_odd(n - 1)
def is_odd(n):
    return False if n == 0 else is_even(n - 1)
class Größe:
    def __len__(self):
        return sum(n * n for n in range(300))
def main():
    fib(15)
    is_even(11)
    [len(Größe()) for _ in range(50)]
    for n in range(20):
        os.path.join("a", "b")
        sorted([3, 1, 2], key=lambda n: -n)
    exec("def made(n):\n    return n\n[made(n) for n in range(10)]", {})
main()
"#;

/// Rows that no profiler writes every day: none, huge and equal counts, negative and huge times, ties
/// that round, C functions without brackets, merged rows and callers, callers without a row.
const ODD: &str = r#"{
    ("~", 0, "<built-in method builtins.sum>"): (3, 3, 0.0625, 0.1875, {("/a/x.py", 10, "f"): (3, 3, 0.0625, 0.1875)}),
    ("~", 0, "plain"): (0, 0, 0, 0, {}),
    ("~", 0, "<"): (1, 1, 0.5, 0.5, {}),
    ("~", 7, "<seven>"): (1, 1, 0.5, 0.5, {}),
    ("/a/x.py", 10, "f"): (1, 4294967296, 2.0005, 1e9, {("/b/x.py", 10, "f"): (5, 2, 1.0, 2.5), ("/a/x.py", 10, "f"): (4, 4, 0.1, 0.2)}),
    ("/b/x.py", 10, "f"): (7, 7, -0.0001, 0.25, {("/c/y.py", 1, "g"): (1, 1, 0.1, 0.7), ("/d/y.py", 1, "g"): (2, 2, 0.3, 0.2)}),
    ("/c/y.py", 1, "g"): (0, 5, 0.1, 0.2, {("jprofile", 0, "profiler"): (1, 1, 0.0, 0.0)}),
    ("/d/y.py", 9, "g"): (9223372036854775807, 9223372036854775807, 123456789.0, 0.3, {}),
    ("/d/y.py", 100, "größe 計算"): (2, 2, 1e-9, 0.3, {}),
    ("", 0, ""): (2, 2, 0.0005, 0.0015, {("~", 0, "plain"): (1, 1, 0.5, 0.5)}),
}"#;

/// As the pure-Python `profile` writes callers.
const COUNTS: &str = r#"{
    ("/a/x.py", 1, "f"): (1, 3, 0.5, 1.5, {("/a/x.py", 1, "f"): 2, ("/b/x.py", 1, "f"): 1}),
    ("/b/x.py", 1, "f"): (0, 0, 0.25, 0, {("/b/x.py", 1, "f"): 4}),
    ("", 0, "it's"): (1, 1, 0.25, 0.75, {}),
}"#;

struct Python {
    version: String,
    command: Vec<String>,
}

impl Python {
    fn ask(&self, request: &Value) -> Value {
        let mut child = Command::new(&self.command[0])
            .args(&self.command[1..])
            .args(["-S", "-W", "ignore", "-c", DRIVER])
            .env("PYTHONIOENCODING", "utf-8")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python starts");
        let mut stdin = child.stdin.take().expect("piped");
        let text = request.to_string();
        let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
        let output = child.wait_with_output().expect("python ends");
        writer.join().expect("no panic").expect("python reads");
        assert!(output.status.success(), "{}: {request}", self.version);
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    fn bytes(&self, request: &Value) -> Vec<u8> {
        from_base64(self.ask(request).as_str().expect("text"))
    }
}

/// `python3` of the PATH and those of `fixtures/pythons.sh`; what is not found is printed.
fn pythons() -> Vec<Python> {
    let mut found: Vec<Python> = Vec::new();
    // What runs in the end: the name may be that of a script that starts it, slowly.
    let answer = Command::new("python3")
        .args([
            "-c",
            "import platform, sys; print(platform.python_version(), sys.executable, sep='\\t')",
        ])
        .output();
    match answer {
        Ok(output) if output.status.success() => {
            let answer = String::from_utf8_lossy(&output.stdout).trim().to_string();
            let (version, command) = answer.split_once('\t').expect("two words");
            found.push(Python {
                version: version.to_string(),
                command: vec![command.to_string()],
            });
        }
        _ => eprintln!("pstats_table: python3 is not on the PATH: not compared with it"),
    }
    let script = root().join("fixtures/pythons.sh");
    if !script.exists() {
        eprintln!("pstats_table: no fixtures/pythons.sh: other interpreters are not compared with");
        return found;
    }
    // It names the versions that are not there on stderr, which is left as ours.
    let output = Command::new("bash")
        .arg(script)
        .stderr(Stdio::inherit())
        .output()
        .expect("bash starts");
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        if let Some((version, command)) = line.split_once('\t')
            && found.iter().all(|python| python.version != version)
        {
            found.push(Python {
                version: version.to_string(),
                command: command.split(' ').map(str::to_string).collect(),
            });
        }
    }
    found
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// One table: pstats' arguments and ours are made of it.
fn case(view: &str, strip: bool, sort: &[&str], limits: Value) -> Value {
    json!({"view": view, "strip": strip, "sort": sort, "limits": limits})
}

fn cases() -> Vec<Value> {
    let words = [
        "calls",
        "ncalls",
        "cumtime",
        "cumulative",
        "filename",
        "line",
        "module",
        "name",
        "nfl",
        "pcalls",
        "stdname",
        "time",
        "tottime",
    ];
    let mut cases = Vec::new();
    for strip in [false, true] {
        for word in words {
            for end in 1..=word.len() {
                cases.push(case("print_stats", strip, &[&word[..end]], json!([])));
            }
            for view in ["print_callers", "print_callees"] {
                cases.push(case(view, strip, &[word], json!([])));
                cases.push(case(view, strip, &[word, "stdname"], json!(["f", 3])));
            }
            // What is stripped sorts no differently.
            for second in words.iter().filter(|_| !strip) {
                cases.push(case("print_stats", strip, &[word, *second], json!([5])));
            }
        }
        for view in ["print_stats", "print_callers", "print_callees"] {
            cases.push(case(view, strip, &[], json!([])));
            for limits in [
                json!([0]),
                json!([1]),
                json!([3]),
                json!([1000]),
                json!([0.1]),
                json!([0.0]),
                json!([0.5, 2]),
                json!([0.00005]),
                json!([1.0]),
                json!(["fib"]),
                json!(["nothing at all"]),
                json!([r"\d\)?"]),
                json!(["{built-in"]),
                json!(["^[^a-z]", 0.9, 2]),
                json!(["it's"]),
                json!(["f\"|'"]),
                json!(["größe|\u{1}"]),
                json!(["x?\\n|\t"]),
                json!([r"<module>|\<l|[[~]"]),
            ] {
                cases.push(case(
                    view,
                    strip,
                    &["calls", "name", "file name"][..1],
                    limits.clone(),
                ));
                cases.push(case(view, strip, &["cumulative", "nfl"], limits));
            }
        }
        cases.push(case(
            "print_stats",
            strip,
            &["time", "calls", "pcalls", "nfl"],
            json!([]),
        ));
    }
    cases
}

/// Our table of exact numbers.
fn ours(profile: &Profile, case: &Value) -> Option<String> {
    table(
        profile.exact.as_ref().expect("exact"),
        &profile.tables,
        case,
    )
}

/// Our table for a case; `None` where the sort key is refused.
fn table(stats: &CallStats, tables: &Tables, case: &Value) -> Option<String> {
    let list = |name: &str| case[name].as_array().expect("array").clone();
    let sort: Result<Vec<SortKey>, _> = list("sort")
        .iter()
        .map(|word| SortKey::parse(word.as_str().expect("text")))
        .collect();
    let restrictions = list("limits")
        .iter()
        .map(|limit| match limit {
            Value::String(pattern) => Restriction::matching(pattern),
            number => Restriction::parse(&number.to_string()),
        })
        .collect::<Result<_, _>>()
        .expect("restriction");
    let options = TableOptions {
        sort: sort.ok()?,
        restrictions,
        strip_dirs: case["strip"].as_bool().expect("bool"),
        view: match case["view"].as_str() {
            Some("print_callers") => View::Callers,
            Some("print_callees") => View::Callees,
            _ => View::Stats,
        },
        ..TableOptions::default()
    };
    let mut out = Vec::new();
    write_table(stats, tables, &options, &mut out).expect("written");
    Some(String::from_utf8(out).expect("UTF-8"))
}

fn export(profile: &Profile, options: &ExportOptions) -> Vec<u8> {
    let mut data = Vec::new();
    Pstats
        .export(profile, options, &mut data)
        .expect("exported");
    data
}

/// pstats' tables of `data` are ours, and so are those of what we make of `data`.
fn compare(python: &Python, what: &str, data: &[u8], cases: &[Value]) {
    let profile = Pstats.import(data).expect(what);
    let again = export(&profile, &ExportOptions::default());
    // The dicts are found to be equal below, so that a few tables of ours are enough.
    let few = &cases[..cases.len().min(30)];
    for (data, cases, whose) in [(data, cases, "its file"), (&again[..], few, "our file")] {
        let theirs = python.ask(&json!({"profile": base64(data), "cases": cases}));
        for (case, theirs) in cases.iter().zip(theirs.as_array().expect("array")) {
            let ours = ours(&profile, case);
            assert_eq!(
                ours.as_deref(),
                theirs.as_str(),
                "{} {what}, {whose}: {case}",
                python.version
            );
        }
    }
    let same = python.ask(&json!({"same": [base64(data), base64(&again)]}));
    assert_eq!(
        same,
        json!(true),
        "{} {what}: the dict there and back",
        python.version
    );
}

#[test]
fn every_table_is_pstats_own() {
    let cases = cases();
    let pythons = pythons();
    std::thread::scope(|scope| {
        for python in &pythons {
            scope.spawn(|| compare_all(python, &cases));
        }
    });
}

fn compare_all(python: &Python, cases: &[Value]) {
    // A sort key more (`file`), so that `f` and `fi` are ambiguous; what else 3.6 prints is the same.
    let old = python.version.starts_with("3.6.");
    let taken = |case: &&Value| !(old && case["sort"].to_string().contains("[\"f"));
    let cases: Vec<Value> = cases.iter().filter(taken).cloned().collect();
    let source = json!({"source": PROGRAM, "module": "cProfile"});
    compare(python, "cProfile", &python.bytes(&source), &cases);
    let source = json!({"source": PROGRAM, "module": "profile"});
    compare(
        python,
        "profile",
        &python.bytes(&source),
        &unstripped(&cases),
    );
    let mixed = root().join("fixtures/programs/mixed_lines.py");
    if let Ok(source) = std::fs::read_to_string(&mixed) {
        let source = json!({"source": source, "module": "cProfile"});
        compare(python, "mixed_lines.py", &python.bytes(&source), &cases);
    } else {
        eprintln!("pstats_table: no fixtures/programs/mixed_lines.py");
    }
    for version in 0..=4 {
        let odd = json!({"expression": ODD, "version": version});
        let cases = if version == 4 {
            &cases[..]
        } else {
            &cases[..40]
        };
        compare(
            python,
            &format!("odd, marshal {version}"),
            &python.bytes(&odd),
            cases,
        );
    }
    let data = python.bytes(&json!({"expression": COUNTS, "version": 2}));
    compare(python, "counts", &data, &unstripped(&cases));
}

/// Where callers are counts, pstats itself fails on callers that have no row, as stripping may make.
fn unstripped(cases: &[Value]) -> Vec<Value> {
    cases
        .iter()
        .filter(|case| case["strip"] == json!(false))
        .cloned()
        .collect()
}

#[test]
fn files_with_code_objects_in_them_are_read() {
    for python in pythons() {
        for version in 0..=4 {
            let source = json!({"source": PROGRAM, "module": "profile", "as_code": true, "version": version});
            let profile = Pstats.import(&python.bytes(&source)).expect("code");
            let wanted = "<code object <module>, file \"/srv/one/program.py\", line ";
            let mut names = profile.tables.strings().iter();
            assert!(
                names.any(|name| name.starts_with(wanted)),
                "{}",
                python.version
            );
        }
    }
}

#[test]
fn stripped_files_show_what_stripping_shows() {
    for python in pythons() {
        let data = python.bytes(&json!({"expression": ODD, "version": 4}));
        let profile = Pstats.import(&data).expect("odd");
        let stripped = ExportOptions {
            strip_dirs: true,
            ..ExportOptions::default()
        };
        let stripped = export(&profile, &stripped);
        let plain = [case("print_callers", false, &["stdname"], json!([]))];
        let strip = case("print_callers", true, &["stdname"], json!([]));
        let theirs = python.ask(&json!({"profile": base64(&stripped), "cases": plain}));
        assert_eq!(ours(&profile, &strip).as_deref(), theirs[0].as_str());
    }
}

#[test]
fn what_was_sampled_is_shown_by_pstats_as_by_us() {
    let profile = sampled();
    let merged = ExportOptions::default();
    let apart = ExportOptions {
        filter: Filter {
            split: Split::Threads,
            ..Filter::default()
        },
        ..ExportOptions::default()
    };
    for options in [merged, apart] {
        let mut data = Vec::new();
        let losses = Pstats
            .export(&profile, &options, &mut data)
            .expect("exported");
        let others = losses.iter().filter(|loss| !loss.contains("lower bounds"));
        assert_eq!(
            others.count(),
            usize::from(options.filter.split == Split::Threads)
        );
        // pstats does not look at what stands behind the dict, and so shows bounds as if they were counted.
        let behind = b"biopsy lower bounds";
        let place = data.windows(behind.len()).rposition(|part| part == behind);
        let dict = &data[..place.expect("the text") - 5];
        let again = Pstats.import(dict).expect("ours");
        let stats = unmarked(profile.stats(&options.filter));
        let cases = cases();
        for case in &cases {
            let sampled = table(&stats, &profile.tables, case);
            assert_eq!(sampled, ours(&again, case), "{case}");
        }
        for python in pythons() {
            compare(&python, "sampled", dict, &cases[..60]);
        }
    }
    let apart = Filter {
        split: Split::Threads,
        ..Filter::default()
    };
    let case = case("print_stats", true, &["stdname"], json!([]));
    assert_eq!(
        table(&unmarked(profile.stats(&apart)), &profile.tables, &case).expect("printed"),
        "         4 function calls in 0.004 seconds

   Ordered by: standard name

   ncalls  tottime  percall  cumtime  percall filename:lineno(function)
        1    0.001    0.001    0.001    0.001 <built-in method time.sleep> [one (7)]
        1    0.001    0.001    0.001    0.001 lib.so:0(malloc [two (8)])
        1    0.001    0.001    0.002    0.002 x.py:3(f [one (7)])
        1    0.001    0.001    0.002    0.002 x.py:3(f [two (8)])


"
    );
}

/// As a `.prof` file has it, which cannot say that a number is a lower bound.
fn unmarked(mut stats: CallStats) -> CallStats {
    for row in &mut stats.rows {
        row.lower_bound = false;
        for (_, edge) in &mut row.callers {
            edge.lower_bound = false;
        }
    }
    stats
}

/// `f` in two files of one name, counted in the one and not in the other, and what it calls.
fn partly_counted() -> (CallStats, Tables) {
    let mut tables = Tables::default();
    let mut id = |file: &str, name: &str| tables.function(file, 10, name, FunctionKind::Python);
    let row = |function, (ncalls, primitive), time, lower_bound, callers: &[(FunctionId, u64)]| {
        let edge = |&(caller, ncalls)| {
            let edge = EdgeStats {
                ncalls,
                primitive: ncalls,
                tottime: time / 2.0,
                cumtime: time,
                count_only: false,
                lower_bound,
            };
            (caller, edge)
        };
        FunctionStats {
            function,
            group: 0,
            ncalls,
            primitive,
            tottime: time,
            cumtime: time,
            callers: callers.iter().map(edge).collect(),
            lower_bound,
        }
    };
    let (main, f, other_f) = (
        id("/a/x.py", "main"),
        id("/a/x.py", "f"),
        id("/b/x.py", "f"),
    );
    let g = id("/a/x.py", "g");
    let rows = vec![
        row(main, (1, 1), 4.0, false, &[]),
        row(f, (23, 5), 2.0, true, &[(main, 23)]),
        row(other_f, (100, 100), 1.0, false, &[(main, 100)]),
        row(
            g,
            (1_234_567_890, 1_234_567_890),
            0.5,
            true,
            &[(f, 1_234_567_890)],
        ),
    ];
    let stats = CallStats {
        rows,
        groups: vec![String::new()],
        exact: false,
    };
    (stats, tables)
}

#[test]
fn lower_bounds_are_marked_and_have_no_time_per_call() {
    let (stats, tables) = partly_counted();
    let print = |view: &str, strip: bool| {
        table(&stats, &tables, &case(view, strip, &["stdname"], json!([]))).expect("printed")
    };
    assert_eq!(
        print("print_stats", false),
        "         at least 1234568014 function calls (1234567996 primitive calls) in 7.500 seconds

   Ordered by: standard name

   ncalls  tottime  percall  cumtime  percall filename:lineno(function)
   >=23/5    2.000             2.000          /a/x.py:10(f)
>=1234567890    0.500             0.500          /a/x.py:10(g)
        1    4.000    4.000    4.000    4.000 /a/x.py:10(main)
      100    1.000    0.010    1.000    0.010 /b/x.py:10(f)


"
    );
    // A sum with a lower bound is one.
    assert_eq!(
        print("print_stats", true),
        "         at least 1234568014 function calls (1234567996 primitive calls) in 7.500 seconds

   Ordered by: standard name

   ncalls  tottime  percall  cumtime  percall filename:lineno(function)
>=123/105    3.000             3.000          x.py:10(f)
>=1234567890    0.500             0.500          x.py:10(g)
        1    4.000    4.000    4.000    4.000 x.py:10(main)


"
    );
    assert_eq!(
        print("print_callers", false),
        "   Ordered by: standard name

Function          was called by...
                      ncalls  tottime  cumtime
/a/x.py:10(f)     <-    >=23    1.000    2.000  /a/x.py:10(main)
/a/x.py:10(g)     <- >=1234567890    0.250    0.500  /a/x.py:10(f)
/a/x.py:10(main)  <- 
/b/x.py:10(f)     <-     100    0.500    1.000  /a/x.py:10(main)


"
    );
    assert_eq!(
        print("print_callees", true),
        "   Ordered by: standard name

Function       called...
                   ncalls  tottime  cumtime
x.py:10(f)     -> >=1234567890    0.250    0.500  x.py:10(g)
x.py:10(g)     -> 
x.py:10(main)  ->   >=123    1.500    3.000  x.py:10(f)


"
    );
}

/// Two threads that run the same function, with a C function and a native frame.
fn sampled() -> Profile {
    let mut recorder = Recorder::default();
    recorder.profile.processes.push(ProcessInfo::default());
    for (id, name) in [(7, "one"), (8, "two")] {
        let thread = recorder.add_thread(ThreadInfo {
            process: ProcessId(0),
            os_id: id,
            python_id: id,
            name: Some(name.to_string()),
            started_us: 0,
        });
        let tables = &mut recorder.profile.tables;
        let f = tables.function("/srv/x.py", 3, "f", FunctionKind::Python);
        let frame = tables.frame(f, 4);
        let outer = tables.stack(None, frame);
        let called = match name {
            "one" => tables.function(
                "~",
                0,
                "<built-in method time.sleep>",
                FunctionKind::Builtin,
            ),
            _ => tables.function("/usr/lib.so", 0, "malloc", FunctionKind::Native),
        };
        let frame = tables.frame(called, 0);
        let inner = tables.stack(Some(outer), frame);
        for (stack, fresh_from) in [(outer, Some(0)), (inner, Some(1))] {
            recorder.add(Sample {
                thread,
                stack,
                count: 1,
                wall_us: 1000,
                cpu_us: 0,
                fresh_from,
                state: RunState::default(),
            });
        }
    }
    recorder.profile
}

const GOLDEN: [&str; 3] = ["cprofile-3.11", "profile-3.11", "cprofile-2.7"];

fn golden(name: &str) -> PathBuf {
    root().join("fixtures/golden/pstats").join(name)
}

#[test]
fn recorded_tables_are_printed_again() {
    for name in GOLDEN {
        let profile = Pstats
            .import(&std::fs::read(golden(&format!("{name}.prof"))).expect(name))
            .expect(name);
        assert_eq!(profile.meta.origin, Origin::Exact);
        let mut printed = String::new();
        for strip in [false, true] {
            for case in [
                case("print_stats", strip, &["stdname"], json!([])),
                case(
                    "print_stats",
                    strip,
                    &["tottime", "stdname"],
                    json!(["fib|is_", 0.5]),
                ),
                case("print_callers", strip, &["stdname"], json!([])),
                case("print_callees", strip, &["stdname"], json!([])),
            ] {
                printed.push_str(&ours(&profile, &case).expect("keys"));
            }
        }
        let expected = std::fs::read_to_string(golden(&format!("{name}.txt"))).expect(name);
        // Python 2's print leaves out a space before the end of a line.
        let printed = if name.ends_with("2.7") {
            printed.replace(" \n", "\n")
        } else {
            printed
        };
        assert_eq!(printed, expected, "{name}");
    }
}

fn base64(data: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(data.len().div_ceil(3) * 4);
    for chunk in data.chunks(3) {
        let bits = chunk
            .iter()
            .fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= chunk.len() {
                char::from(digit)
            } else {
                '='
            });
        }
    }
    text
}

fn from_base64(text: &str) -> Vec<u8> {
    let value = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let digits: Vec<u8> = text.bytes().filter(|c| *c != b'=').collect();
    let mut data = Vec::with_capacity(digits.len() * 3 / 4);
    for chunk in digits.chunks(4) {
        let bits = chunk
            .iter()
            .fold(0_u32, |bits, c| bits << 6 | u32::from(value(*c)))
            << (6 * (4 - chunk.len()));
        data.extend(&bits.to_be_bytes()[1..chunk.len()]);
    }
    data
}

#[test]
fn base64_is_its_own_inverse() {
    for length in 0..8 {
        let data: Vec<u8> = (0..length).map(|n| (n * 37) ^ 0xa5).collect();
        assert_eq!(from_base64(&base64(&data)), data);
    }
    assert!(Path::new(&golden("make.py")).exists());
}
