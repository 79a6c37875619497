//! What is written and read: tables, files, and the programs that open them.

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

mod files;
mod page;
mod pstats_files;
mod pstats_table;
mod readers;
mod screens;
mod shown;
mod stacks;
