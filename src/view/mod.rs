//! Text for people at a terminal, and JSON for programs. Takes results; starts no work and reads no files.

pub mod calls;
pub mod heap;
pub mod json;
pub mod stacks;
pub mod stats;
pub mod table;
pub mod waits;
