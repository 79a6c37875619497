//! What was measured, as pure data: interned names and stacks, samples in time, exact call statistics,
//! and what can be computed from them (call tree, rows per function, differences).
//!
//! Nothing here reads a process, a file or a clock.

mod add;
pub mod aggregate;
pub mod counts;
pub mod diff;
pub mod estimate;
pub mod filter;
mod fresh;
pub mod lines;
mod ncalls;
pub mod record;
pub mod select;
pub mod states;
pub mod tables;
pub mod tree;
pub mod waits;

pub use aggregate::{CallStats, Certainty, EdgeStats, FunctionStats};
pub use counts::{CallEstimate, CallSource, Counted};
pub use filter::{Filter, Mode, Split};
pub use lines::{Hits, LineCount, LineCounts, LineRow, LineTable, LineTables};
pub use record::{
    MOST_TEXT, Meta, Origin, ProcessInfo, Profile, Recorder, Run, RunState, SourceFile, ThreadInfo,
};
pub use select::Selection;
pub use tables::{Frame, Function, FunctionKind, GC, StackNode, Tables, UNSAMPLED};
pub use tree::{CallTree, Group, TreeNode};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u32);

        impl $name {
            /// The position in its table.
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }
    };
}

id!(
    /// An interned string of [`Tables`].
    StringId
);
id!(
    /// A function of [`Tables`]: file, first line, name, kind.
    FunctionId
);
id!(
    /// A function at a line, of [`Tables`].
    FrameId
);
id!(
    /// A stack of [`Tables`]: its innermost frame and its parent stack.
    StackId
);
id!(
    /// A thread of a [`Profile`].
    ThreadId
);
id!(
    /// A process of a [`Profile`].
    ProcessId
);
