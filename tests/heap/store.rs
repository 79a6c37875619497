//! Snapshots of heaps come back as they were written, are as small as promised, and say what is wrong with them.
//!
//! `BIOPSY_USERS=500000` makes the heaps whose sizes and times are printed as large as those that the goals are
//! stated for.

use crate::common;
use crate::graphs;

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use biopsy::error::{ErrorKind, Result};
use biopsy::heap::census::{Census, Counting};
use biopsy::heap::diff;
use biopsy::heap::graph::{Graph, Label, Rest, Shape, Type};
use biopsy::heap::store::{self, Reader, SnapshotHead};
use proptest::prelude::*;

fn written(head: &SnapshotHead, censuses: &[Census], graph: &Graph) -> Vec<u8> {
    let mut out = Vec::new();
    store::write(head, censuses, graph, &mut out).expect("writes");
    out
}

fn small() -> (SnapshotHead, [Census; 2], Graph) {
    let (head, graph) = (graphs::head(), graphs::users(30));
    let reachable = graphs::census(&head, Counting::Reachable, graphs::rows(&graph));
    let muppy = graphs::census(&head, Counting::Muppy, Vec::new());
    (head, [reachable, muppy], graph)
}

fn small_file() -> Vec<u8> {
    let (head, censuses, graph) = small();
    written(&head, &censuses, &graph)
}

/// Reads all there is in every way.
fn read_all(data: &[u8]) -> Result<Graph> {
    let mut reader = Reader::new(Cursor::new(data))?;
    reader.census(Counting::Reachable)?;
    reader.census(Counting::Muppy)?;
    let graph = reader.graph()?;
    let mut at = 0;
    reader.for_each_object(|row, name| {
        assert_eq!(row.address, graph.addresses[at]);
        assert_eq!(row.type_id, graph.type_ids[at]);
        assert_eq!(row.size, graph.sizes[at]);
        assert_eq!(row.refcount, graph.refcounts[at]);
        assert_eq!(row.flags, graph.flags[at]);
        assert_eq!(name, graph.name(graph.types[row.type_id as usize].name));
        at += 1;
        Ok(())
    })?;
    assert_eq!(at, graph.len());
    Ok(graph)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_snapshot_comes_back(head in graphs::any_head(), graph in graphs::any_graph(60)) {
        let censuses = [Counting::Reachable, Counting::Muppy]
            .map(|counting| graphs::census(&head, counting, graphs::rows(&graph)));
        let data = written(&head, &censuses, &graph);
        let mut reader = Reader::new(Cursor::new(&data)).expect("opens");
        prop_assert_eq!(reader.head(), &head);
        for census in censuses {
            prop_assert_eq!(reader.census(census.counting).expect("census"), census);
        }
        prop_assert_eq!(reader.counts().objects, graph.len());
        prop_assert_eq!(read_all(&data).expect("reads"), graph);
    }
}

#[test]
fn a_snapshot_of_several_blocks_comes_back() {
    let graph = graphs::users(20_000);
    assert!(graph.len() > 2 * 65_536 && graph.targets.len() > 3 * 65_536);
    let data = written(&graphs::head(), &[], &graph);
    let mut reader = Reader::new(Cursor::new(&data)).expect("opens");
    assert_eq!(reader.graph().expect("graph"), graph);
    let none = reader.census(Counting::Muppy).expect_err("there is none");
    assert_eq!(none.kind(), ErrorKind::NotAvailable);
}

#[test]
fn a_snapshot_of_very_many_blocks_comes_back() {
    let (head, graph) = (graphs::head(), graphs::users(3));
    let census = graphs::census(&head, Counting::Muppy, Vec::new());
    let data = written(&head, &vec![census.clone(); 5000], &graph);
    let mut reader = Reader::new(Cursor::new(&data)).expect("opens");
    assert_eq!(reader.census(Counting::Muppy).expect("census"), census);
    assert_eq!(reader.graph().expect("graph"), graph);
}

#[test]
fn an_empty_graph_comes_back() {
    let data = written(&graphs::head(), &[], &Graph::default());
    let graph = Reader::new(Cursor::new(&data)).and_then(|mut reader| reader.graph());
    let empty = Graph {
        starts: vec![0],
        ..Graph::default()
    };
    assert_eq!(graph.expect("graph"), empty);
}

#[test]
fn long_texts_are_cut_where_a_character_ends() {
    let mut graph = graphs::users(1);
    graph.names[0] = "é".repeat(600_000) + "x";
    graph.names[1] = "x".to_string() + &graph.names[0];
    let data = written(&graphs::head(), &[], &graph);
    let back = Reader::new(Cursor::new(&data)).and_then(|mut reader| reader.graph());
    let names = back.expect("reads").names;
    assert_eq!((names[0].len(), names[1].len()), (1 << 20, (1 << 20) - 1));
    assert!(graph.names[0].starts_with(&names[0]) && graph.names[1].starts_with(&names[1]));
}

#[test]
fn graphs_that_are_not_whole_are_not_written() {
    type Damage = fn(&mut Graph);
    let broken: [(&str, Damage); 9] = [
        ("a reference", |graph| graph.targets[0] = 1 << 30),
        ("no type", |graph| graph.type_ids[1] = 99),
        ("no shape", |graph| graph.shape_ids[1] = 99),
        ("rise", |graph| graph.addresses.swap(0, 1)),
        ("length", |graph| graph.sizes.truncate(3)),
        ("references do not", |graph| graph.starts[1] = 1 << 40),
        ("no name", |graph| graph.types[0].name = 1 << 20),
        ("texts", |graph| graph.texts = vec![(2, 0), (1, 0)]),
        ("root", |graph| {
            graph.roots = vec![(1 << 30, biopsy::heap::graph::Root::Tracked)];
        }),
    ];
    for (why, damage) in broken {
        let mut graph = graphs::users(3);
        damage(&mut graph);
        let error = store::write(&graphs::head(), &[], &graph, &mut Vec::new()).expect_err(why);
        assert!(error.to_string().contains(why), "{error}");
    }
}

#[test]
fn what_is_no_whole_snapshot_is_named_with_its_offset() {
    let data = small_file();
    let said = |data: &[u8]| read_all(data).expect_err("bad").to_string();
    for end in 0..data.len() {
        let error = read_all(&data[..end]).expect_err("cut short");
        assert_eq!(error.kind(), ErrorKind::BadFile, "{end}");
        assert!(error.to_string().contains("at byte"), "{error}");
    }
    let text = said(&data[..data.len() - 1]);
    let place = format!("cut short: its end is missing (at byte {})", data.len() - 1);
    assert!(text.contains(&place), "{text}");
    let text = said(b"\x80\x03pickled");
    assert!(
        text.contains("not a snapshot") && text.contains("at byte 0"),
        "{text}"
    );
    let mut newer = data.clone();
    newer[8] = 7;
    let error = read_all(&newer).expect_err("newer");
    let text = error.to_string();
    assert!(
        text.contains("version 7") && text.contains("version 1"),
        "{text}"
    );
    assert!(text.contains("at byte 8"), "{text}");
    assert_eq!(error.hints().count(), 1);
    // The first block starts behind magic and version.
    let mut damaged = data.clone();
    damaged[40] ^= 1;
    let text = said(&damaged);
    assert!(text.contains("checksum is wrong (at byte 12)"), "{text}");
    assert!(read_all(&[&data[..], b"x"].concat()).is_err());
}

#[test]
fn any_damaged_byte_is_found() {
    let data = small_file();
    let graph = read_all(&data).expect("whole");
    for at in 0..data.len() {
        let mut damaged = data.clone();
        damaged[at] ^= 1 << (at % 8);
        let error = read_all(&damaged).expect_err("damage");
        assert_eq!(error.kind(), ErrorKind::BadFile);
        assert!(error.to_string().contains("at byte"), "{at}: {error}");
    }
    assert_eq!(read_all(&data).expect("whole"), graph);
}

#[test]
fn files_are_told_apart_and_named() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("a.heap");
    assert!(!store::is_snapshot(&path));
    let missing = Reader::open(&path).expect_err("missing");
    assert_eq!(missing.kind(), ErrorKind::CannotRead);
    assert!(Reader::open(folder.path()).is_err());
    let mut data = small_file();
    std::fs::write(&path, &data).expect("write");
    assert!(store::is_snapshot(&path) && !store::is_snapshot(folder.path()));
    Reader::open(&path).expect("opens").graph().expect("reads");
    let middle = data.len() / 2;
    data[middle] ^= 4;
    std::fs::write(&path, &data).expect("write");
    let error = Reader::open(&path).and_then(|mut reader| {
        reader.census(Counting::Reachable)?;
        reader.census(Counting::Muppy)?;
        reader.graph()
    });
    let text = error.expect_err("damaged").to_string();
    let name = path.display().to_string();
    assert!(text.starts_with(&name), "{text}");
    assert_eq!(text.matches(&name).count(), 1, "{text}");
    std::fs::write(&path, "BIOPSY").expect("write");
    assert!(!store::is_snapshot(&path));
}

/// Writes `graph` to a file, prints sizes and times, and gives what was read back and the file's size.
fn measured(what: &str, graph: &Graph) -> (Graph, Census, u64) {
    let folder = tempfile::tempdir_in(common::target_folder()).expect("folder");
    let path = folder.path().join("users.heap");
    let head = graphs::head();
    let census = graphs::census(&head, Counting::Reachable, graphs::rows(graph));
    let begin = Instant::now();
    let mut out = std::io::BufWriter::new(std::fs::File::create(&path).expect("create"));
    store::write(&head, &[census], graph, &mut out).expect("writes");
    drop(out);
    let wrote = begin.elapsed();
    let size = std::fs::metadata(&path).expect("meta").len();
    let begin = Instant::now();
    let read = Reader::open(&path).and_then(|mut reader| reader.census(Counting::Reachable));
    let census = read.expect("census");
    let summed = begin.elapsed();
    let begin = Instant::now();
    let back = Reader::open(&path).and_then(|mut reader| reader.graph());
    let back = back.expect("graph");
    let read = begin.elapsed();
    let begin = Instant::now();
    let mut bytes = 0u64;
    let streamed = Reader::open(&path).and_then(|mut reader| {
        reader.for_each_object(|row, _| {
            bytes = bytes.wrapping_add(row.size);
            Ok(())
        })
    });
    streamed.expect("objects");
    let streamed = begin.elapsed();
    common::say(format_args!(
        "{what}: {} objects, {} references, {size} bytes: {:.2} an object; written in {wrote:.0?}, summary \
         {summed:.2?}, whole graph {read:.0?}, objects one by one {streamed:.0?}",
        graph.len(),
        graph.targets.len(),
        size as f64 / graph.len() as f64,
    ));
    (back, census, size)
}

fn users(default: usize) -> usize {
    std::env::var("BIOPSY_USERS").map_or(default, |users| users.parse().expect("a number"))
}

#[test]
fn many_users_pack_well() {
    let graph = graphs::users(users(20_000));
    let (back, _, size) = measured("made up", &graph);
    assert!(back == graph);
    assert!(size < 10 * graph.len() as u64, "{size} bytes");
}

#[test]
fn a_heap_in_disorder_packs_too() {
    let mut builder = graphs::users_builder(users(20_000));
    builder.shuffle();
    let graph = builder.build();
    let (back, _, size) = measured("made up, in disorder", &graph);
    assert!(back == graph);
    assert!(size < 30 * graph.len() as u64, "{size} bytes");
}

/// Reads what `own_graph.py` writes, and its count and bytes by type.
fn own_graph(path: &Path) -> (Graph, BTreeMap<String, (u64, u64)>) {
    let data = std::fs::read(path).expect("readable");
    let line = data.iter().position(|&byte| byte == b'\n').expect("a line");
    let head: serde_json::Value = serde_json::from_slice(&data[..line]).expect("JSON");
    let number = |key: &str| head[key].as_u64().expect("a number") as usize;
    let (objects, references) = (number("objects"), number("references"));
    let mut rest = &data[line + 1..];
    let mut column = |rows: usize, width: usize| -> Vec<u64> {
        let (taken, left) = rest.split_at(rows * width);
        rest = left;
        let value = |bytes: &[u8]| bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b));
        taken.chunks(width).map(value).collect()
    };
    let narrow = |values: Vec<u64>| -> Vec<u32> { values.iter().map(|&n| n as u32).collect() };
    let addresses = column(objects, 8);
    let type_ids = narrow(column(objects, 4));
    let sizes = column(objects, 8);
    let refcounts = narrow(column(objects, 4));
    let flags = column(objects, 1).iter().map(|&n| n as u8).collect();
    let degrees = column(objects, 4);
    let targets = narrow(column(references, 4));
    assert!(rest.is_empty());
    let names: Vec<String> = serde_json::from_value(head["types"].clone()).expect("names");
    let mut graph = Graph {
        types: (0..names.len() as u32)
            .map(|name| Type { name, object: None })
            .collect(),
        starts: vec![0],
        addresses,
        sizes,
        refcounts,
        flags,
        targets,
        ..Graph::default()
    };
    let mut shapes = std::collections::HashMap::new();
    for (&id, &degree) in type_ids.iter().zip(&degrees) {
        let (rest, labels) = match names[id as usize].as_str() {
            "builtins.dict" => (Rest::Pairs, 0),
            "builtins.list" | "builtins.tuple" => (Rest::Items, 0),
            "builtins.set" => (Rest::Members, 0),
            _ => (Rest::Nothing, degree as usize),
        };
        let shapes_so_far = shapes.len() as u32;
        let shape = *shapes.entry((id, labels)).or_insert_with(|| {
            let labels = vec![Label::Field(id); labels];
            graph.shapes.push(Shape { labels, rest });
            shapes_so_far
        });
        graph.shape_ids.push(shape);
        graph
            .starts
            .push(graph.starts.last().expect("one") + degree);
    }
    graph.type_ids = type_ids;
    graph.names = names;
    let census = serde_json::from_value(head["census"].clone()).expect("census");
    (graph, census)
}

#[test]
fn what_interpreters_say_of_themselves() {
    let mut tried = 0;
    for python in common::Python::all() {
        // Several times the same heap at its largest takes the memory of a small machine.
        if users(0) > 50_000 && python.minor != 11 {
            continue;
        }
        let stage = python.stage();
        let script = stage.fixture("own_graph.py");
        let (count, output) = (users(3000).to_string(), stage.inside("graph"));
        let status = python.command(&[&script, &count, &output]).status();
        assert!(status.is_ok_and(|status| status.success()), "{python}");
        let path = stage.path().join("graph");
        let (graph, expected) = own_graph(&path);
        let (back, census, size) = measured(&python.to_string(), &graph);
        assert!(back == graph, "{python}");
        let counted = census.types.into_iter();
        let counted: BTreeMap<String, (u64, u64)> = counted
            .map(|row| (row.name, (row.objects, row.bytes)))
            .collect();
        assert_eq!(counted, expected, "{python}");
        assert!(size < 30 * graph.len() as u64, "{python}: {size} bytes");
        tried += 1;
    }
    assert!(tried > 0, "no Python wrote its graph");
}

#[test]
fn differences_are_those_of_pympler() {
    let python = common::venv().map(|venv| venv.join("bin/python"));
    let code = "import json, sys\nfrom pympler import summary\n\
                left, right = json.load(sys.stdin)\njson.dump(summary.get_diff(left, right), sys.stdout)";
    let has = |python: &Path| {
        let import = Command::new(python)
            .args(["-c", "import pympler.summary"])
            .output();
        import.is_ok_and(|output| output.status.success())
    };
    let Some(python) = python.filter(|python| has(python)) else {
        common::not_here("pympler in the venv: its own differences");
        return;
    };
    let (head, graph) = (graphs::head(), graphs::users(40));
    let old = graphs::census(&head, Counting::Muppy, graphs::rows(&graph));
    let mut new = graphs::census(&head, Counting::Muppy, graphs::rows(&graphs::users(70)));
    new.types.remove(0);
    new.types.push(biopsy::heap::census::TypeCount {
        name: "module(json)".to_string(),
        objects: 1,
        bytes: 72,
    });
    let as_rows = |census: &Census| -> Vec<(String, u64, u64)> {
        let rows = census.types.iter();
        rows.map(|row| (row.name.clone(), row.objects, row.bytes))
            .collect()
    };
    let input = serde_json::to_string(&(as_rows(&old), as_rows(&new))).expect("JSON");
    let file = tempfile::NamedTempFile::new().expect("file");
    std::fs::write(file.path(), input).expect("write");
    let output = Command::new(python)
        .args(["-c", code])
        .stdin(std::fs::File::open(file.path()).expect("open"))
        .output()
        .expect("runs");
    let mut expected: Vec<(String, i64, i64)> =
        serde_json::from_slice(&output.stdout).expect("rows");
    expected.sort();
    let diff = diff::censuses(&old, &new).expect("same counting");
    let rows = diff.rows.iter();
    let mut found: Vec<(String, i64, i64)> = rows
        .map(|row| (row.name.clone(), row.objects(), row.bytes()))
        .collect();
    found.sort();
    assert!(found.len() > 5);
    assert_eq!(found, expected);
}
