//! Our own stack reader beside what Python says of itself, on every interpreter that is found.

mod cost;
mod interrupts;
mod parallel;
mod random;
mod running;
mod steady;

use crate::common::in_company;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use biopsy::layout::linetable::Lines;
use biopsy::layout::tables::for_version;
use biopsy::profile::{FrameId, FunctionKind, Tables};
use biopsy::sample::fast::FastOptions;
use biopsy::sample::{Fault, StackReader, ThreadStack, ThreadStacks};
use running::{Running, all_pythons, pythons, truth_seconds};

/// `co_firstlineno`, the table in hex, and first byte, byte after the last and line of each range.
type LineTable = (i32, String, Vec<(u32, u32, Option<u32>)>);

fn names(tables: &Tables, frames: &[FrameId]) -> Vec<String> {
    frames
        .iter()
        .map(|frame| tables.get_frame(*frame).function)
        .filter(|function| tables.get_function(*function).kind == FunctionKind::Python)
        .map(|function| tables.name(function).to_string())
        .collect()
}

fn ids(stack: &ThreadStack) -> Vec<FrameId> {
    stack.frames.iter().map(|frame| frame.frame).collect()
}

#[test]
fn whole_stacks_are_those_that_python_sees() {
    let _company = in_company();
    for python in all_pythons() {
        let mut running = Running::start(&python, "stacks_blocked.py", &[]);
        let expected: serde_json::Value =
            serde_json::from_str(&running.line()).expect("JSON of the program");
        std::thread::sleep(Duration::from_millis(50));
        for blocking in [false, true] {
            let started = Instant::now();
            let options = FastOptions {
                blocking,
                ..FastOptions::default()
            };
            let mut reader = running.open(options);
            let mut tables = Tables::default();
            let mut stacks = ThreadStacks::default();
            let (mut read, mut torn) = (0, 0);
            while read < 3 {
                match reader.read(&mut tables, &mut stacks) {
                    Ok(()) => read += 1,
                    // Others had the CPU meanwhile.
                    Err(Fault::Torn) if torn < 200 => torn += 1,
                    Err(fault) => panic!("{python}: {fault:?}, {torn} torn"),
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            eprintln!(
                "{}: {} threads, {:?}, {}",
                python,
                stacks.threads.len(),
                started.elapsed(),
                reader.describe()
            );
            let mut seen = 0;
            for stack in &stacks.threads {
                let Some(wanted) = expected.get(stack.python_id.to_string()) else {
                    continue;
                };
                seen += 1;
                let got: Vec<serde_json::Value> = stack
                    .frames
                    .iter()
                    .map(|sample| tables.get_frame(sample.frame))
                    .filter(|frame| {
                        tables.get_function(frame.function).kind == FunctionKind::Python
                    })
                    .map(|frame| {
                        serde_json::json!([
                            tables.file(frame.function),
                            tables.line(frame.function),
                            tables.name(frame.function),
                            frame.line
                        ])
                    })
                    .collect();
                let wanted_stack = wanted["stack"].as_array().expect("a list");
                assert_eq!(
                    got.len(),
                    wanted_stack.len(),
                    "{} {}",
                    python,
                    wanted["name"]
                );
                for (depth, (got, wanted)) in got.iter().zip(wanted_stack).enumerate() {
                    assert_eq!(got, wanted, "{} depth {depth}", python);
                }
                assert_eq!(stack.name.as_deref(), wanted["name"].as_str(), "{}", python);
                assert_ne!(stack.os_id, 0);
            }
            assert_eq!(seen, expected.as_object().expect("an object").len());
        }
    }
}

#[test]
fn line_tables_give_the_lines_that_python_gives() {
    let _company = in_company();
    for python in all_pythons() {
        let coding = for_version(3, python.minor).expect("a table").code.lines;
        let mut running = Running::start(&python, "line_tables.py", &["60"]);
        let (mut codes, mut units) = (0, 0);
        loop {
            let line = running.line();
            if line.trim() == "end" {
                break;
            }
            let (first, table, ranges): LineTable = serde_json::from_str(&line).expect("JSON");
            let bytes: Vec<u8> = (0..table.len() / 2)
                .map(|at| u8::from_str_radix(&table[2 * at..2 * at + 2], 16).expect("hex"))
                .collect();
            let lines = Lines::decode(coding, &bytes, first);
            codes += 1;
            for (start, end, expected) in ranges {
                for unit in start / 2..end / 2 {
                    units += 1;
                    let got = lines.line(unit);
                    assert_eq!(
                        got,
                        expected.unwrap_or(0),
                        "{} unit {unit} of {line}",
                        python
                    );
                }
            }
        }
        eprintln!("{}: {codes} code objects, {units} units", python);
        assert!(codes > 1000);
    }
}

#[test]
fn c_functions_are_named_as_cprofile_names_them() {
    let _company = in_company();
    for python in all_pythons() {
        let mut running = Running::start(&python, "c_functions.py", &[]);
        let expected: Vec<String> = serde_json::from_str(&running.line()).expect("JSON");
        let mut reader = running.open(FastOptions::default());
        let mut tables = Tables::default();
        let mut stacks = ThreadStacks::default();
        let mut seen = BTreeMap::<(String, String, String), u32>::new();
        let (mut taken, mut torn) = (0u32, 0u32);
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(1500) {
            std::thread::sleep(Duration::from_micros(100));
            if reader.read(&mut tables, &mut stacks).is_err() {
                torn += 1;
                continue;
            }
            taken += 1;
            let frames = ids(&stacks.threads[0]);
            let name = |at: Option<usize>| {
                at.and_then(|at| frames.get(at))
                    .map_or(String::new(), |frame| {
                        tables.name(tables.get_frame(*frame).function).to_string()
                    })
            };
            for (depth, frame) in frames.iter().enumerate() {
                let function = tables.get_frame(*frame).function;
                if tables.get_function(function).kind == FunctionKind::Builtin {
                    let around = (
                        name(depth.checked_sub(1)),
                        name(Some(depth)),
                        name(Some(depth + 1)),
                    );
                    *seen.entry(around).or_default() += 1;
                }
            }
        }
        eprintln!("{}: {taken} samples, {torn} torn: {seen:#?}", python);
        for (_, name, _) in seen.keys() {
            assert!(
                // What said that it is ready may not have come back from that yet.
                expected.contains(name) || name == "<built-in method builtins.print>",
                "{}: {name} is not in {expected:?}",
                python
            );
        }
        let named = |caller: &str, name: &str, callee: &str| {
            let key = (caller.to_string(), name.to_string(), callee.to_string());
            assert!(seen.contains_key(&key), "{}: no {key:?}", python);
        };
        named("by_key", "<built-in method builtins.sorted>", "key");
        named(
            "of_generator",
            "<built-in method builtins.sum>",
            "generated",
        );
        named("unpacked", "<built-in method builtins.max>", "");
        named("keywords", "<built-in method builtins.sorted>", "");
        named("bound", "<method 'insert' of 'list' objects>", "");
        named("methods", "<method 'insert' of 'list' objects>", "");
        named("methods", "<method 'match' of 're.Pattern' objects>", "");
        named("in_try", "<built-in method time.sleep>", "");
        named("in_try", "<built-in method builtins.sum>", "");
        assert!(torn * 100 <= taken);
    }
}

#[test]
fn a_program_whose_file_was_replaced_is_read_all_the_same() {
    let _company = in_company();
    for python in pythons() {
        let started = Running::start_and_replace(&python, "stacks_deep_calls.py", &[]);
        let Some(running) = started else {
            eprintln!("skipped: 3.{} cannot be copied", python.minor);
            continue;
        };
        let mut reader = running.open(FastOptions::default());
        let mut tables = Tables::default();
        let mut stacks = ThreadStacks::default();
        // It says that it is ready before it goes down.
        let mut seen = Vec::new();
        for _ in 0..200 {
            reader.read(&mut tables, &mut stacks).expect("a sample");
            seen = names(&tables, &ids(&stacks.threads[0]));
            if seen.len() > 1 {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert!(
            seen.starts_with(&["<module>".into(), "down".into()]),
            "{seen:?}"
        );
    }
}

/// Whether a stack of stacks_alternating.py can have existed.
fn is_legal(names: &[String]) -> bool {
    let Some(start) = names
        .iter()
        .position(|name| name == "calls" || name == "generators")
    else {
        return true;
    };
    let rest: Vec<&str> = names[start + 1..].iter().map(String::as_str).collect();
    let orders: [&[&str]; 4] = [
        &["hot_a", "leaf_a"],
        &["hot_b", "leaf_b"],
        &["co_outer_a", "co_mid_a", "co_leaf_a", "__await__"],
        &["co_outer_b", "co_mid_b", "co_leaf_b", "__await__"],
    ];
    rest.is_empty() || orders.iter().any(|order| order.starts_with(&rest))
}

#[test]
fn no_stack_is_made_up() {
    let _company = in_company();
    let seconds = truth_seconds();
    let mut failures = Vec::new();
    for python in all_pythons() {
        for kind in ["calls", "generators", "threads"] {
            let mut running = Running::start(&python, "stacks_alternating.py", &[kind]);
            assert_eq!(running.line().trim(), "ready");
            std::thread::sleep(Duration::from_millis(100));
            let mut reader = running.open(FastOptions::default());
            if !reader.is_exact() {
                eprintln!("skipped: {}", reader.describe());
                return;
            }
            let mut tables = Tables::default();
            let mut stacks = ThreadStacks::default();
            let (mut taken, mut torn, mut wrong) = (0u32, 0u32, 0u32);
            let mut example = String::new();
            let mut times = Vec::new();
            let started = Instant::now();
            while started.elapsed().as_secs_f64() < seconds {
                std::thread::sleep(Duration::from_micros(60));
                let before = Instant::now();
                match reader.read(&mut tables, &mut stacks) {
                    Ok(()) => taken += 1,
                    Err(Fault::Torn) => {
                        torn += 1;
                        continue;
                    }
                    Err(fault) => panic!("{fault:?}"),
                }
                times.push(before.elapsed());
                for stack in &stacks.threads {
                    let names = names(&tables, &ids(stack));
                    if !is_legal(&names) {
                        wrong += 1;
                        example = names.join(" ");
                    }
                }
            }
            times.sort();
            eprintln!(
                "{} {kind}: {taken} samples, {wrong} impossible, {torn} given up, median {:?} {}",
                python,
                times.get(times.len() / 2),
                example
            );
            if wrong > 0
                || f64::from(torn) > 0.01 * f64::from(taken)
                || taken < 100
                || !reader.is_exact()
            {
                failures.push(format!(
                    "{} {kind}: {wrong} of {taken}, {torn}: {example}",
                    python
                ));
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

/// Whether the frames above and below of generated code belong together.
fn is_of_one_number(names: &[String]) -> bool {
    let number = |prefix: &str| {
        names.iter().find_map(|name| {
            name.strip_prefix(prefix)
                .and_then(|rest| rest.parse::<u32>().ok())
        })
    };
    match (number("made_"), number("leaf_")) {
        (Some(made), Some(leaf)) => made == leaf,
        (None, Some(_)) => false,
        _ => true,
    }
}

#[test]
fn code_and_threads_that_come_and_go_are_told_apart() {
    let _company = in_company();
    let mut failures = Vec::new();
    for python in all_pythons() {
        for kind in ["exec", "threads", "waits", "interpreters"] {
            let mut running = Running::start(&python, "stacks_churn.py", &[kind]);
            assert_eq!(running.line().trim(), "ready");
            std::thread::sleep(Duration::from_millis(200));
            let mut reader = running.open(FastOptions::default());
            let mut tables = Tables::default();
            let mut stacks = ThreadStacks::default();
            let (mut taken, mut torn, mut wrong, mut inner) = (0u32, 0u32, 0u32, 0u32);
            let mut example = String::new();
            for pause_us in [60, 1000] {
                let started = Instant::now();
                while started.elapsed() < Duration::from_millis(400) {
                    std::thread::sleep(Duration::from_micros(pause_us));
                    match reader.read(&mut tables, &mut stacks) {
                        Ok(()) => taken += 1,
                        Err(Fault::Torn) => torn += 1,
                        Err(fault) => panic!("{fault:?}"),
                    }
                    for stack in &stacks.threads {
                        let names = names(&tables, &ids(stack));
                        inner += u32::from(names.ends_with(&["outer".into(), "inner".into()]));
                        if !is_of_one_number(&names) {
                            wrong += 1;
                            example = names.join(" ");
                        }
                    }
                }
            }
            eprintln!(
                "{} {kind}: {taken} samples, {wrong} wrong, {torn} torn, {inner} inner {example}",
                python
            );
            // With thousands of threads a second the lock may be elsewhere each time that we get there; where threads
            // hand it on all the time, that depends on who else runs here.
            let most_torn = match kind {
                "threads" => 1.0,
                "waits" => 0.4,
                _ => 0.1,
            };
            if wrong > 0
                || f64::from(torn) > most_torn * f64::from(taken)
                || (kind == "interpreters") != (inner > taken / 2)
            {
                failures.push(format!(
                    "{} {kind}: {wrong} of {taken}, {torn}, {inner}: {example}",
                    python
                ));
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}
