//! biopsy takes samples from a *living* Python process, from outside: where its time goes and where its
//! memory went.
//!
//! The library is layered; a file imports only from layers with a lower number, or from its own folder:
//!
//! ```text
//! L5  main.rs, cli       the command line
//! L4  view               text for people at a terminal
//! L3  sample, exact      stacks over time; deterministic mode
//! L2  target, formats    a Python process; profiles to and from files
//! L1  profile            what was measured, as pure data
//! L0  error, units
//! ```
#![deny(missing_docs)]

pub mod cli;
pub mod error;
pub mod exact;
pub mod formats;
pub mod layout;
pub mod profile;
pub mod sample;
pub mod target;
pub mod units;
pub mod view;
