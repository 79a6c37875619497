//! What is written and read: tables, files, and the programs that open them.

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
