//! Graphs for the tests of snapshots: any that the types allow, one as a program with many users has it, and
//! those that interpreters write of themselves.

#![allow(dead_code)]

use std::time::{Duration, UNIX_EPOCH};

use biopsy::heap::census::{Census, Counting, Doubts, TypeCount, Unsure};
use biopsy::heap::graph::{Graph, Label, Rest, Root, Shape, Type, flags};
use biopsy::heap::store::SnapshotHead;
use biopsy::target::image::{Held, Mapping, ThreadName};
use proptest::prelude::*;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;

/// A head with something in every field.
pub fn head() -> SnapshotHead {
    SnapshotHead {
        python: "3.12.1".to_string(),
        pid: Some(4711),
        started: Some(123_456_789),
        command: "python3 app.py --wörter".to_string(),
        taken_at: UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789),
        held: Held::Stopped(Duration::from_micros(23_456)),
        rss: Some(335 << 20),
        mappings: (0..20)
            .map(|at| Mapping {
                start: 0x7f00_0000_0000 + at * 0x10_0000,
                end: 0x7f00_0000_0000 + at * 0x10_0000 + 0x8000,
                permissions: "rw-p".to_string(),
                name: format!("/usr/lib/lib{at}.so"),
                rss: at * 4096,
                private: at * 2048,
                anonymous: at,
                swap: 0,
            })
            .collect(),
        threads: vec![ThreadName {
            tid: 4711,
            name: "python3".to_string(),
        }],
        values: false,
        account: None,
        doubts: Doubts {
            missing: 0,
            torn: 1,
            unreadable: 2,
            conservative: 300,
        },
    }
}

/// A summary of such a head.
pub fn census(head: &SnapshotHead, counting: Counting, types: Vec<TypeCount>) -> Census {
    let unsure = match types.is_empty() {
        true => Unsure::default(),
        false => Unsure {
            layout: vec![("a.Layout".to_string(), 3)],
            size: vec![("a.Size".to_string(), 2), ("b".to_string(), 1)],
        },
    };
    Census {
        counting,
        python: head.python.clone(),
        pid: head.pid,
        command: head.command.clone(),
        taken_at: head.taken_at,
        pause_ms: head.pause_ms(),
        rss_bytes: head.rss,
        types,
        doubts: head.doubts,
        unsure,
    }
}

/// Rows of all objects of `graph` by type name.
pub fn rows(graph: &Graph) -> Vec<TypeCount> {
    let mut rows = std::collections::BTreeMap::<&str, (u64, u64)>::new();
    for (id, size) in graph.type_ids.iter().zip(&graph.sizes) {
        let row = rows.entry(graph.name(graph.types[*id as usize].name));
        let row = row.or_default();
        row.0 += 1;
        row.1 = row.1.wrapping_add(*size);
    }
    let row = |(name, (objects, bytes)): (&&str, &(u64, u64))| TypeCount {
        name: (*name).to_string(),
        objects: *objects,
        bytes: *bytes,
    };
    rows.iter().map(row).collect()
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..100u64, any::<u64>()]
}

/// Any head.
pub fn any_head() -> impl Strategy<Value = SnapshotHead> {
    let mapping = (
        any::<[u64; 2]>(),
        "[rwxp-]{4}",
        ".{0,20}",
        any::<[u64; 4]>(),
    )
        .prop_map(|([start, end], permissions, name, numbers)| Mapping {
            start,
            end,
            permissions,
            name,
            rss: numbers[0],
            private: numbers[1],
            anonymous: numbers[2],
            swap: numbers[3],
        });
    let thread = (any::<i32>(), ".{0,15}").prop_map(|(tid, name)| ThreadName { tid, name });
    let held = prop_oneof![
        (any::<u32>(), 0..1_000_000_000u32)
            .prop_map(|(s, n)| Held::Stopped(Duration::new(u64::from(s), n))),
        Just(Held::Running),
        Just(Held::Already),
        Just(Held::Core),
    ];
    let texts = (".{0,8}", ".{0,40}");
    let ids = (
        any::<Option<i32>>(),
        any::<Option<u64>>(),
        any::<Option<u64>>(),
    );
    let time = (any::<i32>(), 0..1_000_000_000u32);
    let lists = (
        prop::collection::vec(mapping, 0..5),
        prop::collection::vec(thread, 0..5),
    );
    let doubts = (number(), number(), number());
    (texts, ids, time, held, lists, any::<bool>(), doubts).prop_map(
        |(texts, ids, time, held, lists, values, doubts)| SnapshotHead {
            account: None,
            python: texts.0,
            pid: ids.0,
            started: ids.1,
            command: texts.1,
            taken_at: if time.0 < 0 {
                UNIX_EPOCH - Duration::new(u64::from(time.0.unsigned_abs()), time.1)
            } else {
                UNIX_EPOCH + Duration::new(time.0 as u64, time.1)
            },
            held,
            rss: ids.2,
            mappings: lists.0,
            threads: lists.1,
            values,
            doubts: Doubts {
                missing: 0,
                torn: doubts.0,
                unreadable: doubts.1,
                conservative: doubts.2,
            },
        },
    )
}

/// One object to be: step to its address, type, shape, size, count of references and refcount, flags, targets.
type Object = (u64, u32, u32, u64, u32, u8, Vec<u32>);

/// Any graph, of at most `objects`.
pub fn any_graph(objects: usize) -> impl Strategy<Value = Graph> {
    let object = (
        prop_oneof![(1..9u64).prop_map(|n| n * 16), 1..1u64 << 40],
        any::<u32>(),
        any::<u32>(),
        number(),
        prop_oneof![0..5u32, any::<u32>()],
        any::<u8>(),
        prop::collection::vec(any::<u32>(), 0..9),
    );
    let label = (0..4u8, any::<u32>());
    let shape = (0..4u8, prop::collection::vec(label, 0..6));
    let root = (any::<u32>(), 0..5u8, any::<[u32; 3]>(), any::<i32>());
    (
        prop::collection::vec(".{0,12}", 1..20),
        prop::collection::vec((any::<u32>(), any::<Option<u32>>()), 1..8),
        prop::collection::vec(shape, 1..8),
        prop::collection::vec(object, 0..objects),
        prop::collection::vec(root, 0..10),
        prop::collection::vec((any::<u32>(), any::<u32>()), 0..10),
    )
        .prop_map(|(names, types, shapes, objects, roots, texts)| {
            assemble(names, &types, shapes, objects, &roots, &texts)
        })
}

type ShapeSeed = (u8, Vec<(u8, u32)>);

fn assemble(
    names: Vec<String>,
    types: &[(u32, Option<u32>)],
    shapes: Vec<ShapeSeed>,
    objects: Vec<Object>,
    roots: &[(u32, u8, [u32; 3], i32)],
    texts: &[(u32, u32)],
) -> Graph {
    let name = |id: u32| id % names.len() as u32;
    let total = objects.len() as u32;
    let object = |id: u32| (total > 0).then(|| id % total);
    let label = |(kind, id): (u8, u32)| match kind {
        0 => Label::Found,
        1 => Label::Attribute(name(id)),
        2 => Label::Field(name(id)),
        _ => Label::Local(name(id)),
    };
    let mut graph = Graph {
        types: types
            .iter()
            .map(|(id, of)| Type {
                name: name(*id),
                object: of.and_then(object),
            })
            .collect(),
        shapes: shapes
            .into_iter()
            .map(|(rest, labels)| Shape {
                labels: labels.into_iter().map(label).collect(),
                rest: [Rest::Nothing, Rest::Items, Rest::Pairs, Rest::Members][rest as usize],
            })
            .collect(),
        starts: vec![0],
        ..Graph::default()
    };
    let mut address = 0;
    for (step, kind, shape, size, refcount, flags, targets) in objects {
        address += step;
        graph.addresses.push(address);
        graph.type_ids.push(kind % graph.types.len() as u32);
        graph.shape_ids.push(shape % graph.shapes.len() as u32);
        graph.sizes.push(size);
        graph.refcounts.push(refcount);
        graph.flags.push(flags);
        let targets = targets.into_iter().filter_map(object);
        graph.targets.extend(targets);
        graph.starts.push(graph.targets.len() as u64);
    }
    // Every other graph is one of a biopsy that knew no blocks.
    if address % 2 == 0 {
        let blocks = graph.sizes.iter().map(|size| size / 2 / 16 * 16);
        graph.blocks = blocks.collect();
        graph.debug_blocks = address % 4 == 0 && total > 0;
    }
    for &(id, kind, names, thread) in roots {
        let root = match kind {
            0 => Root::Module(name(names[0])),
            1 => Root::Frame {
                thread,
                depth: names[0],
                function: name(names[1]),
                local: (names[2] % 2 == 0).then(|| name(names[2])),
            },
            2 => Root::Interpreter(name(names[0])),
            3 => Root::StaticType,
            _ => Root::Tracked,
        };
        let root = |id: u32| match root {
            // Which of the two it is stands in the object's flags.
            Root::Tracked if graph.flags[id as usize] & flags::GARBAGE != 0 => Root::Garbage,
            root => root,
        };
        let found = object(id).map(|id| (id, root(id)));
        graph.roots.extend(found);
    }
    let texts = texts
        .iter()
        .filter_map(|(id, text)| Some((object(*id)?, name(*text))));
    graph.texts = texts.collect();
    graph.texts.sort_unstable();
    graph.texts.dedup_by_key(|(object, _)| *object);
    graph.names = names;
    graph
}

/// Makes a graph of objects that are added in any order.
#[derive(Default)]
pub struct Builder {
    graph: Graph,
    objects: Vec<(u64, u32, u64, Vec<usize>)>,
}

impl Builder {
    /// A type of which all objects have the same shape.
    pub fn add_type(&mut self, name: &str, labels: &[&str], rest: Rest) -> u32 {
        let names = &mut self.graph.names;
        let labels = labels.iter().map(|label| {
            names.push((*label).to_string());
            Label::Attribute(names.len() as u32 - 1)
        });
        let labels = labels.collect();
        self.graph.shapes.push(Shape { labels, rest });
        names.push(name.to_string());
        self.graph.types.push(Type {
            name: names.len() as u32 - 1,
            object: None,
        });
        self.graph.types.len() as u32 - 1
    }

    /// An object; gives what to refer to it by.
    pub fn add(&mut self, address: u64, kind: u32, size: u64, targets: Vec<usize>) -> usize {
        self.objects.push((address, kind, size, targets));
        self.objects.len() - 1
    }

    /// Gives every object the address of another, as if the heap had been used for long.
    pub fn shuffle(&mut self) {
        let mut random = SmallRng::seed_from_u64(4);
        for at in (1..self.objects.len()).rev() {
            let other = random.random_range(0..=at);
            let address = self.objects[at].0;
            self.objects[at].0 = std::mem::replace(&mut self.objects[other].0, address);
        }
    }

    /// The graph, by address; reference counts are what the references say.
    pub fn build(mut self) -> Graph {
        let mut order: Vec<usize> = (0..self.objects.len()).collect();
        order.sort_by_key(|&at| self.objects[at].0);
        let mut ids = vec![0u32; order.len()];
        for (id, &at) in order.iter().enumerate() {
            ids[at] = id as u32;
        }
        let graph = &mut self.graph;
        graph.starts.push(0);
        graph.refcounts = vec![0; order.len()];
        for at in order {
            let (address, kind, size, targets) = &self.objects[at];
            graph.addresses.push(*address);
            graph.type_ids.push(*kind);
            graph.shape_ids.push(*kind);
            graph.sizes.push(*size);
            graph.blocks.push(size.next_multiple_of(16));
            graph.flags.push(3);
            for &target in targets {
                graph.targets.push(ids[target]);
                graph.refcounts[ids[target] as usize] += 1;
            }
            graph.starts.push(graph.targets.len() as u64);
        }
        self.graph
    }
}

/// The heap of `users_heap.py`, laid out as pymalloc does: pools of 16 KiB, each of one size class.
pub fn users(count: usize) -> Graph {
    users_builder(count).build()
}

/// The same before it is put together.
pub fn users_builder(count: usize) -> Builder {
    let mut builder = Builder::default();
    let user = builder.add_type(
        "__main__.User",
        &["__class__", "id", "name", "tags", "meta"],
        Rest::Nothing,
    );
    let [list, dict] = [("list", Rest::Items), ("dict", Rest::Pairs)]
        .map(|(name, rest)| builder.add_type(name, &[], rest));
    let [text, int, float, class] =
        ["str", "int", "float", "type"].map(|name| builder.add_type(name, &[], Rest::Nothing));
    let mut pools = [(0u64, 0u64); 64];
    let mut next_pool = 0x7f12_3400_0000;
    let mut place = |size: u64| {
        let class = size.div_ceil(16).min(40);
        let (next, end) = &mut pools[class as usize];
        if *next + class * 16 > *end {
            *next = next_pool + 48;
            *end = next_pool + 16_384;
            next_pool += 16_384;
        }
        *next += class * 16;
        *next - class * 16
    };
    let class_object = builder.add(place(600), class, 1072, Vec::new());
    let keys = [50, 50].map(|size| builder.add(place(size), text, size, Vec::new()));
    let mut pairs = Vec::new();
    for at in 0..count {
        let digits = |number: usize| number.max(1).ilog10() as u64 + 1;
        let id = builder.add(place(28), int, 28, Vec::new());
        let name = 49 + 4 + digits(at);
        let name = builder.add(place(name), text, name, Vec::new());
        let tags = [1 + digits(at % 100), digits(at)];
        let tags =
            tags.map(|length| builder.add(place(49 + length), text, 49 + length, Vec::new()));
        let tags = builder.add(place(72), list, 72, tags.to_vec());
        let float = builder.add(place(24), float, 24, Vec::new());
        let meta = vec![keys[0], id, keys[1], float];
        let meta = builder.add(place(80), dict, 184, meta);
        let fields = vec![class_object, id, name, tags, meta];
        pairs.extend([id, builder.add(place(72), user, 56, fields)]);
    }
    builder.add(0x7f00_0000_0010, dict, 20_971_608, pairs);
    builder
}
