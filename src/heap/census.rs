//! Objects by type: what `pympler.summary` calls a summary, with how it came about.

use std::time::SystemTime;

/// Which objects are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Counting {
    /// Everything that is reachable from the collector's lists, the interpreter, types and thread frames.
    Reachable,
    /// What `muppy.get_objects()` gives: tracked objects without frames, and the untracked ones that they refer
    /// to directly (pympler 1.1, muppy.py). Rows are named as `pympler.summary` names them.
    Muppy,
}

/// Objects of one type, or one of muppy's rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeCount {
    /// Such as `dict` or `myapp.models.User`; under [`Counting::Muppy`] also `function (name)`, `module(name)`.
    pub name: String,
    /// Number of objects.
    pub objects: u64,
    /// Their `sys.getsizeof` added up, in bytes.
    pub bytes: u64,
}

/// What could not be read as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Doubts {
    /// Objects caught in the middle of a change: counted, with what could be read of them.
    pub torn: u64,
    /// Pointers that led to no object.
    pub unreadable: u64,
    /// Objects of C types whose layout is not known: found through them is whatever looks like an object.
    pub conservative: u64,
    /// Bytes of memory that a core file lacks since it was cut short: with any, all numbers are lower bounds.
    pub missing: u64,
}

/// Types of which something could not be told, each with the number of its objects, most objects first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unsure {
    /// Types of C code whose layout is not known: [`Doubts::conservative`] counts their objects.
    pub layout: Vec<(String, u64)>,
    /// Classes with a `__sizeof__` in Python, which is not run: their objects are counted with what `object.__sizeof__` gives.
    pub size: Vec<(String, u64)>,
}

/// A summary of one process at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Census {
    /// Which objects.
    pub counting: Counting,
    /// Version of its Python, such as `3.12.1`.
    pub python: String,
    /// The process.
    pub pid: Option<i32>,
    /// Its command line without arguments.
    pub command: String,
    /// When.
    pub taken_at: SystemTime,
    /// How long it stood still, in milliseconds; `None` when it was not stopped (or was no living process).
    pub pause_ms: Option<f64>,
    /// Its resident memory, in bytes.
    pub rss_bytes: Option<u64>,
    /// Rows, in no certain order; names are unique.
    pub types: Vec<TypeCount>,
    /// What was not sure.
    pub doubts: Doubts,
    /// Where it was read from memory: of which types.
    pub unsure: Unsure,
}

impl Census {
    /// Whether all numbers are lower bounds.
    pub fn is_cut(&self) -> bool {
        self.doubts.missing > 0
    }

    /// Number of objects and their bytes.
    pub fn total(&self) -> (u64, u64) {
        self.types.iter().fold((0, 0), |(objects, bytes), row| {
            (
                objects.saturating_add(row.objects),
                bytes.saturating_add(row.bytes),
            )
        })
    }
}
