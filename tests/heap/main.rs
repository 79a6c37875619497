//! Heaps of living processes, snapshots and core files.

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
