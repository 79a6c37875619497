//! What a session tells while it runs.

use std::sync::atomic::AtomicU64;

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
}
