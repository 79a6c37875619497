//! biopsy takes samples from a *living* Python process, from outside: where its time goes and where its
//! memory went.
//!
//! The library is layered; a file imports only from layers with a lower number, or from its own folder:
//!
//! ```text
//! L5  main.rs, cli       the command line
//! L4  view               text for people at a terminal
//! L3  sample, exact, heap  stacks over time; deterministic mode; objects and memory
//! L2  target, formats    a Python process; profiles to and from files
//! L1  profile, layout, blocks  what was measured; structs of CPython; packed bytes: pure data
//! L0  error, units, glob
//! ```

mod blocks;
pub mod cli;
pub mod error;
pub mod exact;
pub mod formats;
pub mod glob;
pub mod heap;
pub mod layout;
pub mod profile;
pub mod sample;
pub mod target;
pub mod units;
pub mod view;
