//! Heaps of living processes, snapshots and core files.

// What a test did not expect is its failure, in what several tests share too.
#![allow(
    missing_docs,
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    clippy::unwrap_used
)]

#[path = "../common/mod.rs"]
mod common;

mod blocks;
mod caches;
mod cli;
mod core_files;
mod counts;
mod graphs;
mod growth;
mod holders;
mod hostile;
mod objects;
mod page;
mod paths;
mod reports;
mod roots;
mod rss;
mod secrets;
mod store;
