//! Objects, their sizes and what they refer to, address by address, as the process itself says with
//! `sys.getsizeof` and `gc.get_referents`; on every interpreter that is here.

use crate::common;

use std::collections::{BTreeMap, HashMap, HashSet};

use biopsy::heap::Heap;
use biopsy::heap::census::Counting;
use biopsy::target::image::Captured;
use biopsy::target::memory::copy::{CaptureOptions, capture};
use biopsy::units::Pid;
use common::{Python, say};

/// The first version of Python 3 whose heap is read.
const FIRST_MINOR: u32 = 8;

/// Types whose references are known in full and yet are not those of `gc.get_referents`, each with the reason.
const OTHER_REFERENTS: [(&str, &str); 1] = [(
    "PyCapsule",
    "since 3.13 a capsule may bring a `tp_traverse` of its own, which visits what only C code knows: that of _socket its class",
)];

/// Types that are searched for references and have some elsewhere, each with the reason.
const MISSED_REFERENTS: [(&str, &str); 1] = [(
    "module",
    "a C module's own state lies behind a pointer of its own, which only its `m_traverse` follows: signals of _decimal \
     (which are in its dict too), functions of atexit",
)];

/// What the process says of an object.
struct Said {
    address: u64,
    size: i64,
    kind: String,
    referents: Vec<u64>,
}

fn said(text: &str) -> Vec<Said> {
    let line = |line: &str| {
        let mut fields = line.split('\t');
        let mut next = || {
            fields
                .next()
                .unwrap_or_else(|| panic!("short line: {line:.200}"))
        };
        let (address, size, kind) = (next(), next(), next());
        let _tracked = next();
        let referents = next();
        Said {
            address: address.parse().expect("an address"),
            size: size.parse().expect("a size"),
            kind: kind.to_string(),
            referents: referents
                .split_ascii_whitespace()
                .map(|word| word.parse().expect("an address"))
                .collect(),
        }
    };
    text.lines().map(line).collect()
}

fn captured(pid: i32) -> Captured {
    capture(Pid(pid), CaptureOptions::default())
        .expect("captured")
        .0
}

/// Counts of what agreed and what did not, by type, with one example each.
#[derive(Default)]
struct Tally {
    all: usize,
    wrong: BTreeMap<String, (usize, String)>,
}

impl Tally {
    fn add(&mut self, kind: &str, right: bool, example: impl FnOnce() -> String) {
        self.all += 1;
        if !right {
            let entry = self
                .wrong
                .entry(kind.to_string())
                .or_insert_with(|| (0, example()));
            entry.0 += 1;
        }
    }

    fn count(&self) -> usize {
        self.wrong.values().map(|(count, _)| count).sum()
    }

    fn report(&self, what: &str) -> String {
        let mut text = format!("{what}: {} of {} wrong", self.count(), self.all);
        for (kind, (count, example)) in &self.wrong {
            text += &format!("\n    {count} {kind}: {example}");
        }
        text
    }
}

struct Outcome {
    version: String,
    types: usize,
    names: Tally,
    sizes: Tally,
    exact: Tally,
    missed: Tally,
    unseen: Tally,
    guessed: (usize, usize, usize),
}

fn compare(python: &Python, text: &str) -> Outcome {
    let stage = python.stage();
    let program = stage.put("heap_kinds.py", text);
    let out = stage.inside("said.txt");
    let target = python.start(&["-W", "ignore", &program, &out]);
    let captured = captured(target.pid);
    let heap = Heap::open(&captured).expect("opened");
    let said = said(&std::fs::read_to_string(stage.path().join("said.txt")).expect("written"));
    let mut listed = HashMap::new();
    heap.objects(Counting::Reachable, &mut |object| {
        listed.insert(object.address, (object.bytes, object.kind.to_string()));
    });
    let names: HashMap<u64, &str> = said
        .iter()
        .map(|said| (said.address, said.kind.as_str()))
        .collect();
    let mut outcome = Outcome {
        version: python.version.clone(),
        types: said
            .iter()
            .map(|said| &said.kind)
            .collect::<HashSet<_>>()
            .len(),
        names: Tally::default(),
        sizes: Tally::default(),
        exact: Tally::default(),
        missed: Tally::default(),
        unseen: Tally::default(),
        guessed: (0, 0, 0),
    };
    for said in &said {
        let Some((bytes, kind)) = listed.get(&said.address) else {
            outcome
                .unseen
                .add(&said.kind, false, || format!("{:#x}", said.address));
            continue;
        };
        outcome.unseen.add(&said.kind, true, String::new);
        outcome
            .names
            .add(&said.kind, *kind == said.kind, || kind.clone());
        if said.size >= 0 {
            let right = i64::try_from(*bytes) == Ok(said.size);
            outcome.sizes.add(&said.kind, right, || {
                format!("{bytes}, {} expected", said.size)
            });
        }
        let expected = &said.referents;
        let Some(found) = heap.referents(said.address) else {
            outcome
                .exact
                .add(&said.kind, false, || format!("torn at {:#x}", said.address));
            continue;
        };
        let of = |addresses: &[u64]| -> Vec<String> {
            let name = |address: &u64| match names.get(address) {
                Some(name) => name.to_string(),
                None => listed
                    .get(address)
                    .map_or("?".to_string(), |(_, name)| format!("~{name}")),
            };
            addresses.iter().take(6).map(name).collect()
        };
        let missing = difference(expected, &found.addresses);
        let extra = difference(&found.addresses, expected);
        if found.conservative {
            outcome.guessed.0 += expected.len() - missing.len();
            outcome.guessed.1 += extra.len();
            outcome.guessed.2 += missing.len();
            outcome.missed.add(&said.kind, missing.is_empty(), || {
                format!("missing {:?}", of(&missing))
            });
        } else {
            let right = missing.is_empty() && extra.is_empty();
            let example = || {
                format!(
                    "missing {:?}, extra {:?} at {:#x}",
                    of(&missing),
                    of(&extra),
                    said.address
                )
            };
            outcome.exact.add(&said.kind, right, example);
        }
    }
    outcome
}

/// What of `a` is not in `b`, as often as it is there.
fn difference(a: &[u64], b: &[u64]) -> Vec<u64> {
    let mut counts: HashMap<u64, i64> = HashMap::new();
    for address in b {
        *counts.entry(*address).or_default() += 1;
    }
    let missing = |address: &&u64| {
        let count = counts.entry(**address).or_default();
        *count -= 1;
        *count < 0
    };
    a.iter().filter(missing).copied().collect()
}

#[test]
fn every_object_is_as_the_process_says() {
    let text = common::fixture_text("heap_kinds.py");
    let mut wrong = Vec::new();
    let with_numpy = Python::with_numpy();
    for python in Python::all()
        .iter()
        .chain(&with_numpy)
        .filter(|python| python.minor >= FIRST_MINOR)
    {
        let outcome = compare(python, &text);
        let (hits, extra, missing) = outcome.guessed;
        say(format_args!(
            "python {}: {} types\n{}\n{}\n{}\n{}\n{}\n  guessed: {hits} right, {extra} extra, {missing} missing",
            outcome.version,
            outcome.types,
            outcome.unseen.report("  seen"),
            outcome.names.report("  names"),
            outcome.sizes.report("  sizes"),
            outcome.exact.report("  exact referents"),
            outcome.missed.report("  guessed referents"),
        ));
        if outcome.types < 600 {
            wrong.push(format!("{}: {} types", outcome.version, outcome.types));
        }
        let unexpected = |tally: &Tally, known: &[(&str, &str)]| -> Vec<String> {
            let kinds = tally.wrong.iter();
            kinds
                .filter(|(kind, _)| !known.iter().any(|(known, _)| kind.starts_with(known)))
                .map(|(kind, (count, example))| format!("{count} {kind}: {example}"))
                .collect()
        };
        wrong.extend(unexpected(&outcome.names, &[]));
        wrong.extend(unexpected(&outcome.sizes, &[]));
        wrong.extend(unexpected(&outcome.exact, &OTHER_REFERENTS));
        wrong.extend(unexpected(&outcome.missed, &MISSED_REFERENTS));
        wrong.extend(unexpected(&outcome.unseen, &[]));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
