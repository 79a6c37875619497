//! Shares of C functions beside those that cProfile measures in the same process, on every interpreter whose
//! evaluation stack we read, and the walk along the bytecode that says where the callable is.

use crate::common;

use std::collections::BTreeMap;
use std::path::Path;

use biopsy::layout::tables::for_version;
use common::{Python, alone, biopsy, in_company, say};
use serde_json::Value;

/// Points that a C function's share may differ by.
const C_FUNCTIONS: f64 = 4.0;

/// Points for functions of Python, whose loops run slower under cProfile itself on 3.11.
const PYTHON_FUNCTIONS: f64 = 8.0;

/// The sampled time of each kind; the program is told the same.
const SECONDS: &str = "1.5";

/// File without folders, first line, name.
type Function = (String, u64, String);

/// Own time and time with callees, of the whole time of `loop`.
type Shares = BTreeMap<Function, (f64, f64)>;

fn function(file: &Value, line: &Value, name: &Value) -> Function {
    let file = Path::new(file.as_str().expect("file"));
    (
        file.file_name()
            .map_or(String::new(), |name| name.to_string_lossy().into_owned()),
        line.as_u64().expect("line"),
        name.as_str().expect("name").to_string(),
    )
}

fn shares(rows: impl Iterator<Item = (Function, f64, f64)>) -> Shares {
    let rows: Vec<_> = rows.collect();
    let whole = rows
        .iter()
        .find(|(function, ..)| function.2 == "loop")
        .expect("the outermost function")
        .2;
    rows.into_iter()
        .map(|(function, own, all)| (function, (100.0 * own / whole, 100.0 * all / whole)))
        .collect()
}

/// Shares as sampled and as cProfile has them, and the share of periods that passed without a sample.
fn measure(python: &Python) -> (Shares, Shares, f64) {
    let stage = python.stage();
    let script = stage.fixture("c_shares.py");
    let mut target = python.start(&[&script, "--seconds", SECONDS]);
    let pid = target.pid.to_string();
    // What counting does to shares is another matter: see below.
    let options = ["-r", "2000", "-d", SECONDS, "-f", "json", "--no-counts"];
    let profile = biopsy(&[&["attach", &pid], &options[..]].concat())
        .ok()
        .json();
    common::send_signal("USR1", target.pid);
    let rows: Vec<Value> = serde_json::from_str(&target.line()).expect("JSON");
    assert!(target.wait().success(), "{python}: {}", target.stderr());
    let functions = profile["functions"].as_array().expect("functions");
    let seconds = |value: &Value| value.as_f64().expect("seconds");
    let sampled = shares(functions.iter().map(|row| {
        (
            function(&row["file"], &row["line"], &row["name"]),
            seconds(&row["tottime_s"]),
            seconds(&row["cumtime_s"]),
        )
    }));
    let traced = shares(rows.iter().map(|row| {
        (
            function(&row[0], &row[1], &row[2]),
            seconds(&row[3]),
            seconds(&row[4]),
        )
    }));
    let due = 2000.0 * seconds(&profile["duration_s"]);
    let missed = 1.0 - seconds(&profile["samples"]) / due;
    (sampled, traced, missed)
}

#[test]
fn c_functions_have_the_shares_that_cprofile_gives_them() {
    let _alone = alone();
    let mut wrong = Vec::new();
    for python in Python::all().iter().filter(|python| python.minor >= 8) {
        // Where something else had the CPU for a while, that while is told of one stack.
        let (mut sampled, mut traced, mut missed) = measure(python);
        for _ in 0..2 {
            if missed > 0.1 {
                (sampled, traced, missed) = measure(python);
            }
        }
        let (mut c, mut python_own, mut python_all) = ((0.0f64, ""), 0.0f64, 0.0f64);
        for (function, (own, all)) in &traced {
            let (sampled_own, sampled_all) = sampled.get(function).unwrap_or(&(0.0, 0.0));
            let (own_off, all_off) = (sampled_own - own, sampled_all - all);
            let is_c = function.0 == "~";
            if is_c {
                if own_off.abs() > c.0.abs() {
                    c = (own_off, &function.2);
                }
            } else {
                python_own = python_own.max(own_off.abs());
                python_all = python_all.max(all_off.abs());
            }
            let limit = if is_c { C_FUNCTIONS } else { PYTHON_FUNCTIONS };
            if own_off.abs() > limit || all_off.abs() > PYTHON_FUNCTIONS {
                wrong.push(format!(
                    "{python}: {function:?}: sampled {sampled_own:.1} and {sampled_all:.1} %, cProfile {own:.1} and {all:.1} %"
                ));
            }
        }
        for (function, (own, _)) in &sampled {
            if function.0 == "~" && !traced.contains_key(function) {
                wrong.push(format!(
                    "{python}: cProfile has no {function:?} ({own:.1} %)"
                ));
            }
        }
        let named = traced.keys().filter(|function| function.0 == "~");
        let seen = named
            .clone()
            .filter(|function| sampled.contains_key(*function));
        let (named, seen) = (named.count(), seen.count());
        say(format_args!(
            "{python}: {seen} of {named} C functions seen; farthest from cProfile: C functions {:+.1} points ({}), Python functions {python_own:.1}, with callees {python_all:.1}; {:.0} % of samples missed",
            c.0,
            c.1,
            100.0 * missed
        ));
        // Those of a few nanoseconds a call may be missed.
        if seen * 2 < named {
            wrong.push(format!("{python}: {seen} of {named} C functions seen"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Watchpoints slow stores that cross cache lines down: list.insert took 5 to 7 points more of this program's time.
#[test]
fn counting_leaves_the_shares_as_they_are() {
    let _alone = alone();
    for python in Python::all().iter().filter(|p| [8, 12].contains(&p.minor)) {
        let stage = python.stage();
        let mut target = python.start(&[&stage.fixture("split_stores.py")]);
        let pid = target.pid.to_string();
        let mut mean = |lines: usize| {
            let shares = (0..lines).map(|_| target.line().parse::<f64>().expect("a share"));
            shares.sum::<f64>() / lines as f64
        };
        let before = mean(4);
        let options = [
            "attach", &pid, "-r", "1000", "-d", "7", "-o", "-", "-f", "json",
        ];
        let counting = std::thread::scope(|scope| {
            let profile = scope.spawn(|| biopsy(&options).ok().json());
            // Until it is known where the time goes.
            let at_first = mean(7);
            let then = mean(6);
            profile.join().expect("a profile");
            [at_first, then]
        });
        let _ = mean(2);
        let after = mean(4);
        let usual = (before + after) / 2.0;
        say(format_args!(
            "{python}: list.insert has {before:.1} % of the time, {:.1} and {:.1} % while calls are counted, {after:.1} % afterwards",
            counting[0], counting[1]
        ));
        assert!(counting[1] < usual + 2.5, "{python}: {counting:?}, {usual}");
        drop(target);
    }
}

const TRACED: &str = "
import sys, time
how = sys.argv[1]
numbers = list(range(30000, 0, -1))
def work(end):
    while time.monotonic() < end:
        sum(numbers)
        sorted(numbers)
def tracer(frame, event, argument):
    frame.f_trace_opcodes = how == 'opcodes'
    return tracer
if how in ('lines', 'opcodes'):
    sys.settrace(tracer)
elif how != 'nothing':
    own = sys.monitoring
    own.use_tool_id(3, 'test')
    for event in (own.events.LINE, own.events.INSTRUCTION):
        own.register_callback(3, event, lambda *_: None)
    own.set_events(3, own.events.LINE if how == 'LINE' else own.events.LINE | own.events.INSTRUCTION)
print('ready', flush=True)
work(time.monotonic() + 30)
";

/// Instrumented opcodes stand in the place of those that call.
#[test]
fn c_functions_that_traced_code_calls_have_their_time() {
    let _alone = alone();
    for python in Python::all().iter().filter(|python| python.minor >= 8) {
        let stage = python.stage();
        let script = stage.put("traced.py", TRACED);
        let monitored: &[&str] = match python.minor {
            12.. => &["LINE", "INSTRUCTION"],
            _ => &[],
        };
        for how in [&["nothing", "lines", "opcodes"], monitored].concat() {
            let target = python.start(&[&script, how]);
            let pid = target.pid.to_string();
            let ran = biopsy(&["attach", &pid, "-d", "0.5", "-q", "-f", "json"]).ok();
            let document = ran.json();
            let whole = document["total_tottime_s"].as_f64().expect("seconds");
            let functions = document["functions"].as_array().expect("functions");
            let of = functions.iter().filter(|row| {
                let name = row["name"].as_str().expect("name");
                ["sum", "sorted"].contains(
                    &name
                        .trim_matches(['<', '>'])
                        .rsplit('.')
                        .next()
                        .unwrap_or(""),
                )
            });
            let own: f64 = of
                .map(|row| row["tottime_s"].as_f64().expect("seconds"))
                .sum();
            assert!(own > 0.8 * whole, "{python} {how}: {own} of {whole} {ran}");
        }
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2)
        .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("hex"))
        .collect()
}

/// `co_stacksize`, code and exception table in hex, and the units of its calls as `dis` has them.
type CallSites = (u32, String, String, Vec<u32>);

#[test]
fn every_call_of_the_standard_library_has_a_depth() {
    let _shared = in_company();
    for python in Python::all().iter().filter(|python| python.minor >= 8) {
        let opcodes = for_version(3, python.minor)
            .and_then(|offsets| offsets.opcodes)
            .expect("opcodes");
        let stage = python.stage();
        let mut target = python.start(&[&stage.fixture("call_sites.py"), "40"]);
        let (mut codes, mut sites, mut missing, mut extra) = (0, 0, 0, 0);
        loop {
            let line = target.line();
            if line == "end" {
                break;
            }
            let (stack_size, code, exceptions, expected): CallSites =
                serde_json::from_str(&line).expect("JSON");
            let code = bytes(&code);
            codes += 1;
            let calls = opcodes
                .calls(&code, &bytes(&exceptions), stack_size)
                .unwrap_or_else(|| panic!("{python}: no depths for {line}"));
            for unit in 0..code.len() as u32 / 2 {
                match (calls.at(unit), expected.binary_search(&unit)) {
                    (Some(call), Ok(_)) => {
                        sites += 1;
                        assert!(call.depth <= stack_size, "{python}: {call:?} in {line}");
                        let slots = opcodes.slots(call);
                        assert!(
                            slots[0].or(slots[1]).is_some(),
                            "{python}: {call:?} in {line}"
                        );
                    }
                    (None, Ok(_)) => missing += 1,
                    // Inline caches, and prefixes of arguments.
                    (Some(_), Err(_)) => extra += 1,
                    (None, Err(_)) => {}
                }
            }
        }
        say(format_args!(
            "{python}: {codes} code objects, {sites} calls with a depth, {missing} that nothing leads to, {extra} units beside them"
        ));
        assert!(codes > 1000 && sites > 3000, "{python}");
        assert!(missing * 1000 < sites, "{python}: {missing} of {sites}");
    }
}
