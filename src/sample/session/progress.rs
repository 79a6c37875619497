//! What a session tells while it runs.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;

use super::live::Feed;

/// Numbers that grow while a session runs, for progress displays.
#[derive(Debug, Default)]
pub struct Progress {
    /// Samples taken, of all processes.
    pub samples: AtomicU64,
    /// Samples given up.
    pub given_up: AtomicU64,
    /// Reads beyond the first of a sample.
    pub retried: AtomicU64,
    /// Processes that are or were sampled.
    pub processes: AtomicU64,
    /// Where notes go that cannot wait for the end; nowhere when it is not set.
    pub tell: OnceLock<fn(&str)>,
    /// What was gathered so far, for those who look at it meanwhile.
    pub feed: Feed,
}

impl Progress {
    /// Says something at once.
    pub(super) fn say(&self, note: &str) {
        if let Some(tell) = self.tell.get() {
            tell(note);
        }
    }
}
