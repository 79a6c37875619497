//! Living processes: sampled, attached to, started, counted; and left as they were.

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

mod asyncio;
mod attach;
mod call_counts;
mod calls;
mod capture;
mod cli;
mod deep_stacks;
mod exact;
mod fast_reader;
mod free_threaded;
mod hardness;
mod interrupted;
mod live;
mod processes;
mod run;
mod servers;
mod shares;
mod soak;
mod states;
mod top;
mod unharmed;
