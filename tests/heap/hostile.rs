//! A heap in which random words were overwritten: it is read to the end or refused, in bounded time and without a
//! panic.

use crate::common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use biopsy::heap::Heap;
use biopsy::heap::census::Counting;
use biopsy::target::image::{Captured, Constants, Image, Span};
use biopsy::target::memory::copy::{CaptureOptions, capture};
use biopsy::units::Pid;
use common::{Python, in_company, say};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Corrupted heaps for each interpreter.
const ROUNDS: u64 = 40;

/// `BIOPSY_ROUNDS=1250` makes 10,000 of them; with `BIOPSY_FIRST=1250` as well, the next ones.
fn seeds() -> std::ops::Range<u64> {
    let asked = |name: &str, default| {
        let text = std::env::var(name).ok();
        text.and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let first: u64 = asked("BIOPSY_FIRST", 0);
    first..first + asked("BIOPSY_ROUNDS", ROUNDS)
}

/// A heap of this size takes a hundredth of that; a list that never ends takes for ever.
const LIMIT: Duration = Duration::from_secs(30);

/// Read-only memory as it was.
struct Unchanged(Arc<Captured>);

impl Constants for Unchanged {
    fn read(&self, address: u64, into: &mut [u8]) -> bool {
        self.0.image.bytes(address, 1).is_none() && self.0.image.read(address, into)
    }
}

fn corrupted(captured: &Arc<Captured>, random: &mut StdRng) -> Captured {
    let mut spans: Vec<(u64, Vec<u8>)> = captured
        .image
        .spans()
        .iter()
        .map(|span| (span.start(), span.bytes().to_vec()))
        .collect();
    let places: Vec<(u64, usize)> = spans
        .iter()
        .map(|(start, bytes)| (*start, bytes.len()))
        .collect();
    let total: usize = places.iter().map(|(_, length)| length).sum();
    let at = |random: &mut StdRng| {
        let mut offset = random.random_range(0..total);
        let span = places.iter().position(|(_, length)| {
            let inside = offset < *length;
            if !inside {
                offset -= length;
            }
            inside
        });
        (span.expect("a span"), offset & !7)
    };
    // From a few words to one in a hundred of those that are not 0.
    let changes = 1 << random.random_range(0..16);
    for _ in 0..changes {
        let (mut span, mut offset) = at(random);
        for _ in 0..20 {
            let used = spans[span]
                .1
                .get(offset..offset + 8)
                .is_some_and(|word| word != [0; 8]);
            if used {
                break;
            }
            (span, offset) = at(random);
        }
        let old = spans[span].1.get(offset..offset + 8).map_or(0, |word| {
            u64::from_le_bytes(word.try_into().expect("eight bytes"))
        });
        let value: u64 = match random.random_range(0..8) {
            0 => 0,
            1 => u64::MAX,
            2 => 1 << random.random_range(0..64),
            3 => old ^ 1 << random.random_range(0..64),
            4 => random.random(),
            5 => places[span].0 + offset as u64,
            6 => old.wrapping_add(8),
            _ => {
                let (span, offset) = at(random);
                places[span].0 + offset as u64
            }
        };
        if let Some(word) = spans[span].1.get_mut(offset..offset + 8) {
            word.copy_from_slice(&value.to_le_bytes());
        }
    }
    let spans = spans
        .into_iter()
        .map(|(start, bytes)| Span::new(start, bytes))
        .collect();
    Captured {
        image: Image::new(spans, Some(Box::new(Unchanged(captured.clone())))),
        runtime: captured.runtime.clone(),
        pid: captured.pid,
        command: captured.command.clone(),
        taken_at: captured.taken_at,
        held: captured.held,
        rss: captured.rss,
        mappings: captured.mappings.clone(),
        threads: Vec::new(),
        static_data: captured.static_data.clone(),
        dead: None,
    }
}

#[test]
fn corrupted_heaps_are_read_to_the_end_or_refused() {
    let _noise = in_company();
    for python in Python::all().iter().filter(|python| python.minor >= 8) {
        let code = "import time; kept = [{i: [str(i), float(i), {i}]} for i in range(3000)]; print('ready', flush=True); time.sleep(3600)";
        let target = python.start(&["-S", "-E", "-c", code]);
        let options = CaptureOptions {
            mappings: true,
            ..CaptureOptions::default()
        };
        let captured = capture(Pid(target.pid), options).expect("captured").0;
        let resident: u64 = captured.mappings.iter().map(|mapping| mapping.rss).sum();
        let captured = Arc::new(captured);
        let (mut read, mut refused, mut longest) = (0, 0, Duration::ZERO);
        let mut split = 0;
        let mut why: BTreeMap<String, u32> = BTreeMap::new();
        for seed in seeds() {
            let broken = corrupted(&captured, &mut StdRng::seed_from_u64(seed));
            let started = Instant::now();
            match Heap::open(&broken) {
                Ok(heap) => {
                    let heap = heap.with_threads(1 + seed as usize % 2);
                    let (objects, _) = heap.census(Counting::Reachable).total();
                    let graph = heap.graph(true).expect("a graph");
                    assert_eq!(graph.len() as u64, objects, "{python}, seed {seed}");
                    heap.census(Counting::Muppy);
                    let account = heap.account(&graph).expect("an account");
                    assert_eq!(account.total(), resident, "{python}, seed {seed}");
                    split += u32::from(account.is_split());
                    read += 1;
                }
                Err(error) => {
                    assert!(
                        error.to_string().contains("heap"),
                        "{python}, seed {seed}: {error}"
                    );
                    refused += 1;
                    let text = error.to_string();
                    let reason = text.rsplit(": ").next().unwrap_or_default();
                    *why.entry(reason.to_string()).or_default() += 1;
                }
            }
            longest = longest.max(started.elapsed());
            assert!(longest < LIMIT, "{python}, seed {seed}: {longest:?}");
        }
        say(format_args!(
            "{python}: {read} read, malloc's state of {split}, {refused} refused, the longest took {longest:.2?}; {why:?}"
        ));
        // One broken link, or a few, must not hide everything that is whole: ten in a hundred are refused here.
        assert!(
            read > 2 * refused,
            "{python}: {read} read, {refused} refused: {why:?}"
        );
    }
}
