//! The reader of core files, and of the heap in one.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use biopsy::heap::Heap;
use biopsy::heap::census::Counting;
use biopsy::target::memory::core;

static PATH: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder =
        std::env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/dev/shm"), PathBuf::from);
    folder.join(format!("biopsy-fuzz-{}.core", std::process::id()))
});

// What memory it says that it had is reserved, not taken, so that nothing is counted here: libFuzzer looks at what is resident.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    core::is_core(data);
    std::fs::write(&*PATH, data).expect("written");
    let Ok((captured, _)) = core::read(&PATH) else {
        return;
    };
    if let Ok(heap) = Heap::open(&captured) {
        heap.census(Counting::Reachable);
    }
});
