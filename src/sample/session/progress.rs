//! What a session tells while it runs.

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
    /// What was gathered so far, for those who look at it meanwhile.
    pub feed: Feed,
}
