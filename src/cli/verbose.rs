//! `--verbose`: what the library says to `log`, line by line on stderr.

use std::io::{IsTerminal, Write};

use log::{LevelFilter, Log, Metadata, Record};

use crate::units::printable;

/// Our own messages; the crates that we use have a lot to say that is no help here.
struct Stderr;

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let module = metadata.target().split("::").next();
        module == Some(env!("CARGO_CRATE_NAME"))
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let level = record.level().as_str().to_ascii_lowercase();
            let text = record.args().to_string();
            let mut stderr = std::io::stderr().lock();
            // Nobody can be told that stderr is closed.
            let _ = writeln!(stderr, "biopsy: [{level}] {}", printable(&text));
        }
    }

    fn flush(&self) {}
}

/// Shows messages from now on; `in_pictures`: where the terminal is drawn on, only in a file or a pipe.
pub fn show(in_pictures: bool) {
    if in_pictures && std::io::stderr().is_terminal() {
        return;
    }
    if log::set_logger(&Stderr).is_ok() {
        log::set_max_level(LevelFilter::Debug);
    }
}

/// Whether messages are shown.
pub fn is_on() -> bool {
    log::max_level() > LevelFilter::Off
}
