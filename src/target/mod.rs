//! A Python process seen from outside: which ones there are, whether we may read them, which Python they
//! run, their threads, and programs that we start ourselves.
//!
//! Nothing in this layer knows about profiles or files' formats, and nothing writes to a target.

pub mod access;
pub mod cpu;
pub mod disk;
pub mod elf;
pub mod fifo;
pub mod image;
pub mod interrupt;
pub mod launch;
pub mod list;
pub mod locate;
pub mod maps;
pub mod memory;
pub mod open;
pub mod process;
pub mod runtime;
pub mod sharing;
pub mod signals;
pub mod syscalls;
pub mod threads;
pub mod watchpoint;
