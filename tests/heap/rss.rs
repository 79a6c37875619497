//! Where the resident memory is, beside what malloc and the kernel say of it themselves.

use crate::common;

use std::process::Command;

use common::{Python, biopsy};
use serde_json::Value;

/// Interpreters whose heaps can be read.
fn readable() -> impl Iterator<Item = &'static Python> {
    Python::all().iter().filter(|python| python.minor >= 8)
}

/// A line of `/proc/PID/smaps_rollup`, in bytes.
fn rollup(pid: i64, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("readable");
    let line = text
        .lines()
        .find(|line| line.split(':').next() == Some(name));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    1024 * kib.unwrap_or_else(|| panic!("{name} in {text}"))
}

fn private(pid: i64) -> u64 {
    rollup(pid, "Private_Clean") + rollup(pid, "Private_Dirty")
}

#[track_caller]
fn number(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("no number: {value}"))
}

/// Fails unless both are the same but for one in `share`.
#[track_caller]
fn assert_near(found: u64, expected: u64, share: u64, what: &str) {
    assert!(
        found.abs_diff(expected) <= expected / share,
        "{what}: {found} found, {expected} expected"
    );
}

fn part(document: &Value, name: &str, column: &str) -> u64 {
    let parts = document["parts"].as_array().expect("parts");
    let found = parts.iter().find(|part| part["part"] == name);
    number(&found.unwrap_or_else(|| panic!("no {name}"))[column])
}

#[test]
fn mallocs_used_and_free_memory_is_what_it_says_itself_on_each_interpreter() {
    let _company = common::in_company();
    for python in readable() {
        let stage = python.stage();
        let script = stage.fixture("malloc_blocks.py");
        let mut target = python.start(&[&script]);
        let pid = target.pid.to_string();
        // The second answer needs no more memory than the first.
        for _ in 0..2 {
            target.tell("");
            target.line();
        }
        let document = biopsy(&["heap", "rss", &pid, "--json"]).ok().json();
        target.tell("");
        let said: Value = serde_json::from_str(&target.line()).expect("JSON");
        let malloc = &document["malloc"];
        common::say(format_args!("{python}: {malloc} of {said}"));
        assert_eq!(malloc["allocator"], "glibc", "{python}");
        assert_eq!(malloc["why_not_split"], Value::Null, "{python}");
        assert_eq!(malloc["torn_lists"], 0, "{python}");
        assert!(number(&malloc["arenas"]) >= 3, "{python}: {malloc}");
        let used = number(&malloc["used_bytes"]) + number(&malloc["cached_bytes"]);
        for (name, found, expected) in [
            ("system", number(&malloc["system_bytes"]), "arena"),
            ("used", used, "uordblks"),
            ("free", number(&malloc["free_bytes"]), "fordblks"),
            ("mapped", number(&malloc["mapped_bytes"]), "hblkhd"),
        ] {
            let expected = number(&said[expected]);
            assert!(expected > 10_000_000, "{python}: {said}");
            assert_near(found, expected, 100, &format!("{python}: {name}"));
        }
        // Caches of three threads, with chunks of many sizes.
        let cached = number(&malloc["cached_bytes"]);
        assert!((50_000..2_000_000).contains(&cached), "{python}: {malloc}");
        // Blocks that were written and are in use are resident.
        assert_near(
            part(&document, "large-blocks", "resident_bytes"),
            number(&malloc["mapped_bytes"]),
            20,
            &format!("{python}: mapped blocks"),
        );
        let free = part(&document, "malloc-free", "resident_bytes");
        let top = part(&document, "malloc-top", "resident_bytes");
        assert!(
            free + top <= number(&malloc["free_bytes"]) + cached,
            "{python}"
        );
        // Every second block was freed, few of which are as large as a page and were never touched.
        assert!(
            free > number(&malloc["free_bytes"]) / 2,
            "{python}: {document:#}"
        );
        let in_use = part(&document, "malloc-heap", "resident_bytes")
            + part(&document, "malloc-thread-heaps", "resident_bytes");
        assert!(
            in_use <= number(&malloc["used_bytes"]) + 1_000_000,
            "{python}: {document:#}"
        );
        assert!(
            in_use > number(&malloc["used_bytes"]) / 2,
            "{python}: {document:#}"
        );
        let file = stage.path().join("a.heap").display().to_string();
        biopsy(&["heap", "snapshot", &pid, "-q", "-o", &file]).ok();
        let saved = biopsy(&["heap", "rss", &file, "--json"]).ok().json();
        assert_eq!(saved["malloc"]["arenas"], malloc["arenas"], "{python}");
        assert_near(
            number(&saved["malloc"]["used_bytes"]),
            number(&malloc["used_bytes"]),
            100,
            "saved",
        );
        assert!(saved["sharing"]["pss_bytes"].is_u64(), "{python}");
        target.assert_free();
    }
}

/// Workers share their parent's memory until they write to it: it is counted once, and stays shared when we have read it.
#[test]
fn pages_that_a_family_shares_count_once_and_stay_shared() {
    let _alone = common::alone();
    for python in readable().filter(|python| matches!(python.minor, 8 | 12 | 14)) {
        let stage = python.stage();
        let script = stage.fixture("prefork_heap.py");
        let mut target = python.start(&[&script]);
        let words: Vec<String> = target
            .ready
            .split(' ')
            .skip(1)
            .map(str::to_string)
            .collect();
        let pids: Vec<i64> = words
            .iter()
            .map(|word| word.parse().expect("a pid"))
            .collect();
        let private_before: Vec<u64> = pids.iter().map(|pid| private(*pid)).collect();
        let mut arguments = vec!["heap", "rss", "--json"];
        arguments.extend(words.iter().map(String::as_str));
        let document = biopsy(&arguments).ok().json();
        assert_eq!(document["schema"], "biopsy.heap-rss-family/1");
        let sum = |name| pids.iter().map(|pid| rollup(*pid, name)).sum::<u64>();
        let (rss, pss) = (sum("Rss"), sum("Pss"));
        common::say(format_args!(
            "{python}: {rss} resident, {} once, {} divided, {pss} says the kernel",
            document["once_bytes"], document["pss_bytes"]
        ));
        assert_near(number(&document["sum_bytes"]), rss, 50, "RSS");
        assert_near(number(&document["pss_bytes"]), pss, 50, "PSS");
        // The workers have 2 MB of their own and touched an eighth of what all share; files are shared with others too.
        let once = number(&document["once_bytes"]);
        assert!(
            once >= pss - pss / 50 && once < rss / 2,
            "{python}: {once} once, {pss} divided, {rss} in all"
        );
        assert_eq!(
            document["counted_by"] == "pagemap",
            common::is_root(),
            "{document:#}"
        );
        let parts = document["parts"].as_array().expect("parts");
        let parts: u64 = parts.iter().map(|part| number(&part["pss_bytes"])).sum();
        assert_near(parts, pss, 50, "the parts");
        assert!(
            part(&document, "pymalloc-objects", "pss_bytes")
                < part(&document, "pymalloc-objects", "resident_bytes") / 3
        );
        for (index, pid) in pids.iter().enumerate() {
            let (before, now) = (private_before[index], private(*pid));
            assert!(
                now < before + (1 << 20),
                "{python}: process {pid} had {before} private bytes, and {now} after it was read"
            );
        }
        // A snapshot has no numbers of pages.
        let file = stage.path().join("a.heap").display().to_string();
        biopsy(&["heap", "snapshot", &words[1], "-q", "-o", &file]).ok();
        let mixed = biopsy(&["heap", "rss", &words[0], &file, "--json"])
            .ok()
            .json();
        assert_eq!(mixed["counted_by"], "pss", "{mixed:#}");
        biopsy(&["heap", "rss", &words[0], &words[0]]).refused(2, "named twice");
        target.assert_free();
    }
}

/// A heap of another allocator is named, and left whole.
#[test]
fn another_allocator_is_named_and_its_heaps_are_left_whole() {
    let _company = common::in_company();
    let Some(cc) = common::find_program("cc") else {
        common::not_here("a C compiler");
        return;
    };
    let Some(python) = readable().find(|python| python.root.is_none()) else {
        common::not_here("an interpreter whose heap can be read");
        return;
    };
    let stage = python.stage();
    let source = stage.put("allocator.c", ALLOCATOR);
    let library = stage.inside("libjemalloc.so.2");
    let built = Command::new(cc)
        .args(["-shared", "-fPIC", "-O1", "-o", &library, &source])
        .output()
        .expect("started");
    assert!(built.status.success(), "{built:?}");
    let text = "
import sys
kept = [bytes(3000) for _ in range(20000)]
print('ready', flush=True)
sys.stdin.readline()
";
    let script = stage.put("plain.py", text);
    let mut command = python.command(&[&script]);
    let mut target = common::Target::start(command.env("LD_PRELOAD", &library));
    let pid = target.pid.to_string();
    let document = biopsy(&["heap", "rss", &pid, "--json"]).ok().json();
    assert_eq!(document["malloc"]["allocator"], "jemalloc", "{document:#}");
    assert_eq!(document["malloc"]["used_bytes"], Value::Null);
    assert!(
        part(&document, "large-blocks", "resident_bytes") > 60_000_000,
        "{document:#}"
    );
    assert_eq!(part(&document, "malloc-free", "resident_bytes"), 0);
    let shown = biopsy(&["heap", "rss", &pid]).ok().stdout;
    let expected = "malloc (jemalloc): not split into used and free: only glibc's heaps can be";
    assert!(shown.contains(expected), "{shown}");
    target.assert_free();
}

/// Takes memory in pieces of 64 MB and gives none of it back.
const ALLOCATOR: &str = r#"
#define _GNU_SOURCE
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
static char *next, *end;
static int lock;
static void *take(size_t size, size_t align) {
    size_t need = ((size + 15) & ~(size_t)15) + align + 16, piece = 64 << 20;
    while (__atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE)) {}
    if ((size_t)(end - next) < need || !next) {
        if (need > piece) piece = (need + 4095) & ~(size_t)4095;
        next = mmap(0, piece, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        end = next + piece;
    }
    char *block = (char *)(((size_t)next + 16 + align - 1) & ~(align - 1));
    next = block + ((size + 15) & ~(size_t)15);
    __atomic_store_n(&lock, 0, __ATOMIC_RELEASE);
    ((size_t *)block)[-1] = size;
    return block;
}
void *malloc(size_t size) { return take(size, 16); }
void free(void *block) {}
void *calloc(size_t count, size_t size) { return take(count * size, 16); }
void *memalign(size_t align, size_t size) { return take(size, align < 16 ? 16 : align); }
void *aligned_alloc(size_t align, size_t size) { return memalign(align, size); }
int posix_memalign(void **to, size_t align, size_t size) { *to = memalign(align, size); return 0; }
void *realloc(void *old, size_t size) {
    void *block = take(size, 16);
    if (old) { size_t had = ((size_t *)old)[-1]; memcpy(block, old, had < size ? had : size); }
    return block;
}
size_t malloc_usable_size(void *block) { return block ? ((size_t *)block)[-1] : 0; }
"#;
