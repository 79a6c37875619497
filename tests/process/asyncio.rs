//! `--async` beside what programs know of their own tasks: `asyncio.all_tasks`, `cr_frame` and `cr_await`,
//! `asyncio.capture_call_graph` where there is one, and the CPU time that each task used.

use crate::common;

use std::collections::BTreeMap;

use common::{Python, alone, biopsy, in_company, not_here, page, run};
use serde_json::Value;

/// Interpreters whose tasks are shown, and those whose are not.
fn pythons() -> Vec<&'static Python> {
    let (able, unable): (Vec<_>, Vec<_>) =
        Python::all().iter().partition(|python| python.minor >= 11);
    if able.is_empty() {
        not_here("an interpreter from 3.11 on");
    }
    eprintln!("not shown by design: {unable:?}");
    able
}

fn frames(task: &Value) -> Vec<Value> {
    let frames = task["frames"].as_array().expect("frames");
    frames
        .iter()
        .rev()
        .map(|frame| {
            serde_json::json!([
                frame["file"],
                frame["line"],
                frame["first_line"],
                frame["name"]
            ])
        })
        .collect()
}

fn names(list: &Value) -> Vec<String> {
    let names = list.as_array().expect("names").iter();
    let mut names: Vec<String> = names
        .filter_map(Value::as_str)
        .map(str::to_string)
        .collect();
    names.sort();
    names
}

#[test]
fn chains_are_what_the_program_itself_says() {
    let _shared = in_company();
    for python in pythons() {
        eprintln!("{python}");
        let stage = python.stage();
        let mut target = python.start(&[&stage.fixture("await_chains.py"), "still"]);
        let told = target.ready.strip_prefix("ready ").expect("JSON after it");
        let told: BTreeMap<String, Value> = serde_json::from_str(told).expect("JSON");
        let pid = target.pid.to_string();
        for options in [&["--json"][..], &["--json", "--blocking"]] {
            let words = [&["dump", "--async", &pid], options].concat();
            let dump = biopsy(&words).ok().json();
            let tasks = dump["tasks"].as_array().expect("tasks");
            let mut seen = Vec::new();
            for task in tasks {
                let name = task["name"].as_str().expect("a name");
                seen.push(name.to_string());
                let Some(told) = told.get(name) else {
                    // The one that tells is running.
                    assert_eq!((name, &task["state"]), ("Task-1", &"running".into()));
                    let all = frames(task);
                    assert_eq!(
                        all.first().expect("frames")[3],
                        "still",
                        "{python}: {all:?}"
                    );
                    assert_eq!(task["thread_id"], dump["threads"][0]["id"], "{python}");
                    continue;
                };
                assert_eq!(
                    Value::from(frames(task)),
                    told["frames"],
                    "{python}, {name}"
                );
                let state = if name == "unstarted" {
                    "created"
                } else {
                    "suspended"
                };
                assert_eq!(task["state"], state, "{python}, {name}");
                let waiters = names(&task["awaited_by"]);
                match &told["awaited_by"] {
                    // The program cannot tell before 3.14.
                    Value::Null => {
                        let expected: &[&str] = match name {
                            "outer" => &["waits for outer"],
                            "gathered" => &["gathers"],
                            "in group 1" | "in group 2" => &["group"],
                            // One of them is gathered.
                            _ if name.starts_with("Task-") && !waiters.is_empty() => &["gathers"],
                            _ => &[],
                        };
                        assert_eq!(waiters, expected, "{python}, {name}");
                    }
                    known => assert_eq!(waiters, names(known), "{python}, {name}"),
                }
            }
            seen.sort();
            let mut expected: Vec<String> = told.keys().cloned().collect();
            expected.push("Task-1".to_string());
            expected.sort();
            assert_eq!(seen, expected, "{python}");
        }
        let text = biopsy(&["dump", "--async", &pid]).ok().stdout;
        assert!(
            text.contains("Task \"outer\" (suspended), awaited by \"waits for outer\""),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'), "a name acts on the terminal");
        let plain = biopsy(&["dump", "--json", &pid]).ok().json();
        assert_eq!(plain["tasks"], Value::Null);
        target.assert_free();
        target.tell("");
        assert_eq!(target.line(), "over");
        assert!(target.wait().success(), "{python}: {}", target.stderr());
    }
}

/// Microseconds by stack of a collapsed file.
fn stacks(text: &str) -> Vec<(Vec<&str>, f64)> {
    text.lines()
        .filter_map(|line| {
            let (stack, weight) = line.rsplit_once(' ')?;
            Some((stack.split(';').collect(), weight.parse().ok()?))
        })
        .collect()
}

#[test]
fn tasks_have_their_time_in_every_format() {
    let _alone = alone();
    const SECONDS: f64 = 1.5;
    for python in pythons() {
        for mode in ["wall", "cpu"] {
            eprintln!("{python} {mode}");
            let stage = python.stage();
            let folder = tempfile::tempdir().expect("a folder");
            let path = |name: &str| {
                folder
                    .path()
                    .join(name)
                    .to_str()
                    .expect("UTF-8")
                    .to_string()
            };
            let files = [
                "a.txt",
                "a.json",
                "a.prof",
                "a.svg",
                "a.speedscope.json",
                "a.pb.gz",
                "a.html",
                "a.gecko.json",
                "callgrind.out.a",
                "a.biopsy",
            ]
            .map(path);
            let program = python.words(&[
                &stage.fixture("await_chains.py"),
                "busy",
                &SECONDS.to_string(),
            ]);
            let mut words = vec!["run", "--async", "--mode", mode];
            for file in &files {
                words.extend(["-o", file]);
            }
            words.push("--");
            words.extend(program.iter().map(String::as_str));
            let ran = biopsy(&words).ok();
            let told = ran
                .stdout
                .lines()
                .find(|line| line.starts_with('{'))
                .expect("numbers");
            let told: Value = serde_json::from_str(told).expect("JSON");
            let read = |at: usize| std::fs::read_to_string(&files[at]).expect("a file");
            let text = read(0);
            let of = |task: &str, function: &str| -> f64 {
                let root = format!("<task {task}>");
                let of_task = stacks(&text).into_iter().filter(|(stack, _)| {
                    stack.iter().any(|frame| frame.starts_with(&root))
                        && (function.is_empty()
                            || stack.iter().any(|frame| frame.starts_with(function)))
                });
                of_task.map(|(_, us)| us).sum::<f64>() / 1e6
            };
            for task in ["heavy", "light"] {
                let cpu = told["cpu_s"][task].as_f64().expect("seconds");
                let (burn, all) = (of(task, "burn "), of(task, ""));
                eprintln!("  {task}: burns {burn:.3} s, program {cpu:.3} s; all {all:.3} s");
                // Wall time has that of the samples themselves, which are taken on the same CPU.
                assert!(
                    (burn - cpu).abs() < 0.2 * SECONDS,
                    "{python} {mode} {task}: {burn} and not {cpu}"
                );
                // A task that waits has wall time, but no CPU time.
                let expected = if mode == "wall" {
                    told["wall_s"].as_f64().expect("seconds")
                } else {
                    cpu
                };
                assert!(
                    (all - expected).abs() < 0.15 * SECONDS,
                    "{python} {mode} {task}: {all} and not {expected}"
                );
                // Its first coroutine stands below the task, and no frame of the loop between.
                for (stack, _) in stacks(&text) {
                    let at = stack
                        .iter()
                        .position(|frame| frame.starts_with(&format!("<task {task}>")));
                    if let Some(next) = at.and_then(|at| stack.get(at + 1)) {
                        assert!(next.starts_with("burns "), "{stack:?}");
                    }
                }
            }
            let document: Value = serde_json::from_str(&read(1)).expect("JSON");
            let functions = document["functions"].as_array().expect("functions");
            assert!(functions.iter().any(|row| row["name"] == "<task heavy>"));
            for at in [3, 4, 7, 8] {
                assert!(read(at).contains("task heavy"), "{}", files[at]);
            }
            let page = page::head(&read(6)).to_string();
            assert!(page.contains("<task heavy>"), "{page}");
            let later = biopsy(&["report", &files[9], "--mode", mode, "-q"])
                .ok()
                .stdout;
            assert!(later.contains("{task heavy}"), "{later}");
            let shown = run(&mut python.command(&["-c", "0"]));
            assert_eq!(shown.code(), 0);
        }
    }
}

const NESTED: &str = "
import asyncio
async def b(): await asyncio.sleep(1000)
async def a(): await asyncio.create_task(b(), name='B')
async def top(): await asyncio.create_task(a(), name='A')
async def main():
    print('ready', flush=True)
    await asyncio.create_task(top(), name='TOP')
asyncio.run(main())
";

/// A task that only waits for another one is above it in that one's stack, and has no stack of its own beside that.
#[test]
fn tasks_that_wait_for_each_other_are_one_stack() {
    let _alone = alone();
    for python in pythons() {
        let stage = python.stage();
        let target = python.start(&[&stage.put("nested.py", NESTED)]);
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name).display().to_string();
        let (recording, collapsed) = (path("a.biopsy"), path("a.collapsed"));
        let pid = target.pid.to_string();
        let words = [
            "attach", &pid, "--async", "-d", "1", "-q", "-o", &recording, "-o", &collapsed,
        ];
        biopsy(&words).ok();
        let text = std::fs::read_to_string(&collapsed).expect("written");
        let of_tasks: Vec<&str> = text
            .lines()
            .filter(|line| line.contains("<task "))
            .collect();
        let [line] = of_tasks.as_slice() else {
            panic!("{python}: {text}");
        };
        let (stack, _) = line.rsplit_once(' ').expect("a weight");
        let names: Vec<&str> = stack
            .split(';')
            .map(|frame| frame.split(" (").next().expect("a name"))
            .collect();
        assert_eq!(
            names,
            [
                "<task Task-1>",
                "main",
                "<task TOP>",
                "top",
                "<task A>",
                "a",
                "<task B>",
                "b",
                "sleep"
            ],
            "{python}"
        );
        for format in ["prof", "collapsed", "biopsy"] {
            let file = path(&format!("b.{format}"));
            biopsy(&["report", &recording, "-q", "-o", &file]).ok();
            let later = biopsy(&["report", &file, "-q", "-f", "json"]).ok().json();
            let rows = later["functions"].as_array().expect("functions");
            let row = rows.iter().find(|row| row["name"] == "main").expect("main");
            let seconds = |key: &str| row[key].as_f64().expect("seconds");
            assert!(
                (0.9..1.1).contains(&seconds("cumtime_s")) && seconds("tottime_s") < 0.01,
                "{python} {format}: {row}"
            );
        }
    }
}

const TURNS: &str = "
import asyncio, time
def burn():
    end = time.perf_counter() + 0.05
    while time.perf_counter() < end: pass
async def pause(): await asyncio.sleep(0.05)
async def works():
    while True:
        burn()
        await pause()
async def main():
    others = [asyncio.create_task(asyncio.sleep(1000)) for _ in range(300)]
    print('ready', flush=True)
    await asyncio.create_task(works(), name='WORKS')
asyncio.run(main())
";

/// A task that runs while all are looked at, and waits again before the next look, waits where it does: the function
/// that ran has no time of its own. Its time was a quarter of the recording.
#[test]
fn tasks_that_ran_when_they_were_looked_at_wait_where_they_do() {
    let _alone = alone();
    for python in pythons() {
        let stage = python.stage();
        let target = python.start(&[&stage.put("turns.py", TURNS)]);
        let pid = target.pid.to_string();
        let words = ["attach", &pid, "--async", "-d", "2", "-q", "-f", "json"];
        let json = biopsy(&words).ok().json();
        let seconds = |name: &str, key: &str| {
            let rows = json["functions"].as_array().expect("functions");
            let row = rows.iter().find(|row| row["name"] == name);
            row.and_then(|row| row[key].as_f64()).expect("seconds")
        };
        let whole = json["duration_s"].as_f64().expect("seconds");
        assert!(
            seconds("works", "tottime_s") < 0.02 * whole,
            "{python}: {json}"
        );
        for name in ["main", "works"] {
            let share = seconds(name, "cumtime_s") / whole;
            assert!((0.95..1.05).contains(&share), "{python} {name}: {share}");
        }
    }
}

const WAITERS: &str = "
import asyncio
async def leaf(event): await event.wait()
async def shielded(event): await asyncio.shield(leaf(event))
async def limited(event): await asyncio.wait_for(leaf(event), 1000)
async def waits(event): await asyncio.wait([asyncio.create_task(leaf(event), name='waited')])
async def inner(event): await asyncio.gather(asyncio.gather(shielded(event), limited(event)), waits(event))
async def group(event):
    async with asyncio.TaskGroup() as group:
        group.create_task(inner(event), name='in group')
async def main():
    event = asyncio.Event()
    asyncio.get_running_loop().call_later(0.2, lambda: print('ready', flush=True))
    await asyncio.create_task(group(event), name='group')
asyncio.run(main())
";

/// Whoever waits by way of `gather`, `shield`, `wait` or a group is found in all versions, and from the first sample
/// on: no chain is cut.
#[test]
fn chains_lead_through_what_gathers_and_shields() {
    let _alone = alone();
    for python in pythons() {
        let stage = python.stage();
        let mut program = python.start(&[&stage.put("waiters.py", WAITERS)]);
        let pid = program.pid.to_string();
        for _ in 0..5 {
            let words = [
                "attach",
                &pid,
                "--async",
                "-d",
                "0.3",
                "-q",
                "-f",
                "collapsed",
            ];
            let text = biopsy(&words).ok().stdout;
            let of_tasks: Vec<&str> = text
                .lines()
                .filter(|line| line.contains("<task "))
                .collect();
            let chains: Vec<String> = of_tasks
                .iter()
                .map(|line| {
                    let names = line.split(';').map(|frame| frame.split(" (").next());
                    let own = names.flatten().filter(|name| {
                        [
                            "main", "group", "inner", "shielded", "limited", "waits", "leaf",
                        ]
                        .contains(name)
                    });
                    own.collect::<Vec<_>>().join(" ")
                })
                .collect();
            let mut sorted = chains.clone();
            sorted.sort();
            assert_eq!(
                sorted,
                [
                    "main group inner limited leaf",
                    "main group inner shielded leaf",
                    "main group inner waits leaf"
                ],
                "{python}: {text}"
            );
        }
        program.assert_free();
    }
}

#[test]
fn thousands_of_tasks_are_bounded() {
    let _alone = alone();
    for python in pythons() {
        eprintln!("{python}");
        let stage = python.stage();
        let mut target = python.start(&[&stage.fixture("await_chains.py"), "many", "12000"]);
        let pid = target.pid.to_string();
        let ran = biopsy(&["attach", &pid, "--async", "-d", "1", "-f", "json"]).ok();
        assert!(
            ran.stderr.contains("only 10000 of them are shown"),
            "{}",
            ran.stderr
        );
        let document = ran.json();
        let functions = document["functions"].as_array().expect("functions");
        let sleeper = functions
            .iter()
            .find(|row| row["name"] == "sleeper")
            .expect("sleeper");
        let seconds = sleeper["cumtime_s"].as_f64().expect("seconds");
        let duration = document["duration_s"].as_f64().expect("seconds");
        assert!(
            (0.9..1.01).contains(&(seconds / duration / 10_000.0)),
            "{seconds} in {duration}"
        );
        target.tell("");
        assert_eq!(target.line(), "over");
    }
}

const RESTS: &str = "
import asyncio, sys, time
async def wait(seconds):
    await asyncio.sleep(seconds)
async def first():
    await wait(2.5)
async def late():
    await wait(1)
async def main():
    loop = asyncio.get_running_loop()
    print('ready', flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    started = loop.time()
    one = asyncio.create_task(first())
    await asyncio.sleep(1)
    created = loop.time()
    await asyncio.gather(*[late() for _ in range(20)])
    lived = loop.time() - created
    await one
    print(loop.time() - started, 20 * lived, flush=True)
asyncio.run(main())
";

/// A process at rest is looked at seldom, and its tasks not at all: what they do then must not be missed.
#[test]
fn tasks_that_begin_and_end_between_rests_have_their_time() {
    let _alone = alone();
    for python in pythons() {
        let stage = python.stage();
        let mut target = python.start(&[&stage.put("rests.py", RESTS)]);
        let pid = target.pid.to_string();
        let sampling = common::Running::start(
            &mut common::biopsy_command(&["attach", &pid, "--async", "-q", "-f", "json"]),
            b"",
        );
        std::thread::sleep(std::time::Duration::from_millis(700));
        target.tell("");
        let own = target.line();
        target.wait();
        let document = sampling.finish(common::PATIENCE).ok().json();
        let functions = document["functions"].as_array().expect("functions");
        let own = own
            .split(' ')
            .map(|text| text.parse::<f64>().expect("number"));
        for (name, own) in ["first", "late"].iter().zip(own) {
            let row = functions.iter().find(|row| row["name"] == *name);
            let seconds = row.map_or(0.0, |row| row["cumtime_s"].as_f64().expect("number"));
            eprintln!("{python}: {name} {seconds:.3} s of {own:.3} s");
            assert!((0.93..1.07).contains(&(seconds / own)), "{name}");
        }
    }
}

const BRIEF: &str = "
import asyncio, time
waited = 0.0
async def idle():
    await asyncio.sleep(100000)
async def brief():
    global waited
    started = time.perf_counter()
    await asyncio.sleep(0.004)
    waited += time.perf_counter() - started
async def one_by_one(end):
    while time.perf_counter() < end:
        await asyncio.create_task(brief())
async def main():
    tasks = [asyncio.create_task(idle()) for _ in range(3000)]
    await asyncio.sleep(0.01)
    print('ready', flush=True)
    end = time.perf_counter() + 3
    await asyncio.gather(*(one_by_one(end) for _ in range(20)))
    print(waited, flush=True)
    for task in tasks:
        task.cancel()
asyncio.run(main())
";

/// A first look at thousands of tasks takes a tenth of a second: those that live for milliseconds must not be gone by
/// then, nor may the next look wait for seconds.
#[test]
fn brief_tasks_beside_thousands_have_their_time() {
    let _alone = alone();
    for python in pythons() {
        let stage = python.stage();
        let mut target = python.start(&[&stage.put("brief.py", BRIEF)]);
        let pid = target.pid.to_string();
        let document = biopsy(&["attach", &pid, "--async", "-q", "-f", "json"])
            .ok()
            .json();
        let own: f64 = target.line().parse().expect("seconds");
        let functions = document["functions"].as_array().expect("functions");
        let row = functions.iter().find(|row| row["name"] == "brief");
        let seconds = row.map_or(0.0, |row| row["cumtime_s"].as_f64().expect("number"));
        eprintln!("{python}: brief {seconds:.2} s of {own:.2} s");
        assert!(
            (0.65..1.25).contains(&(seconds / own)),
            "{python}: {seconds} s of {own} s, from looks every 50 to 200 ms; a busy machine makes them fewer"
        );
    }
}

const UNNAMED: &str = "
import asyncio, time
def spin(ms):
    end = time.monotonic() + ms / 1000
    while time.monotonic() < end: pass
async def leaf():
    spin(1)
    await asyncio.sleep(0.005)
async def worker():
    while True:
        await asyncio.gather(leaf(), leaf())
async def main():
    print('ready', flush=True)
    await asyncio.gather(*(worker() for _ in range(4)))
asyncio.run(main())
";

/// The name that nobody gave a task is a number up to the time that somebody asks for it (3.12 and newer): what lies behind that
/// in memory was shown as its text, and tasks of the same text were one.
#[test]
fn names_that_nobody_gave_are_numbers() {
    let _shared = in_company();
    for python in pythons() {
        let stage = python.stage();
        let target = python.start(&[&stage.put("unnamed.py", UNNAMED)]);
        let pid = target.pid.to_string();
        let json = biopsy(&["attach", &pid, "--async", "-d", "1.5", "-q", "-f", "json"])
            .ok()
            .json();
        let functions = json["functions"].as_array().expect("functions");
        let names = functions.iter().filter_map(|row| row["name"].as_str());
        let tasks: Vec<&str> = names
            .filter_map(|name| name.strip_prefix("<task ")?.strip_suffix('>'))
            .collect();
        assert!(tasks.len() > 20, "{python}: {tasks:?}");
        for name in tasks {
            let number = name.strip_prefix("Task-").map(str::parse::<u64>);
            assert!(matches!(number, Some(Ok(_))), "{python}: {name:?}");
        }
    }
}

#[test]
fn versions_without_it_are_refused_by_name() {
    let _shared = in_company();
    for python in Python::all().iter().filter(|python| python.minor < 11) {
        let stage = python.stage();
        let mut target = python.start(&[&stage.fixture("thread_states.py"), "sleepers"]);
        let pid = target.pid.to_string();
        for words in [
            &["dump", "--async", &pid][..],
            &["attach", "--async", "-d", "1", &pid],
        ] {
            biopsy(words).refused(1, &format!("this is {}", python.version));
        }
        target.assert_free();
        target.tell("");
    }
}

#[test]
fn no_chain_of_a_suspended_task_is_one_that_never_was() {
    let _alone = alone();
    for python in pythons() {
        let stage = python.stage();
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("tasks.collapsed");
        let file = file.to_str().expect("UTF-8");
        let program = python.words(&[&stage.fixture("await_alternating.py"), "30", "3"]);
        let mut words = vec!["run", "-q", "--async", "--rate", "2000", "-o", file, "--"];
        words.extend(program.iter().map(String::as_str));
        biopsy(&words).ok();
        let text = std::fs::read_to_string(file).expect("written");
        let mut whole = BTreeMap::from([("odd", 0), ("even", 0)]);
        for line in text.lines() {
            let (stack, weight) = line.rsplit_once(' ').expect("a weight");
            let chain: Vec<(&str, usize)> = stack
                .split(';')
                .filter_map(|frame| {
                    let (kind, level) = frame.split(' ').next()?.split_once('_')?;
                    let level = level.parse().ok()?;
                    whole.contains_key(kind).then_some((kind, level))
                })
                .collect();
            for (at, (kind, level)) in chain.iter().enumerate() {
                let fits = *level == at + 1 && *kind == chain[0].0;
                assert!(fits, "{python}: {line}");
            }
            if let [(kind, _), _, _] = chain.as_slice() {
                let weight: u64 = weight.parse().expect("microseconds");
                *whole.get_mut(kind).expect("known") += weight;
            }
        }
        // Thirty tasks for three seconds, suspended in one of the two chains nearly all of the time.
        common::say(format_args!("{python}: {whole:?} us"));
        assert!(
            whole.values().all(|us| *us > 15_000_000),
            "{python}: {whole:?}"
        );
    }
}
