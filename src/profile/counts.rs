//! How often functions were called: what was counted while the program was recorded, and how sure that is.
//!
//! Samples alone see only part of the calls: those that they can tell apart are a lower bound of the true number.

use super::{FunctionId, ThreadId};

/// Where a number of calls comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallSource {
    /// A watchpoint of the hardware counted them.
    Watchpoint,
    /// Samples, of calls that are long enough to be seen.
    Samples,
    /// At least so many.
    LowerBound,
}

impl CallSource {
    /// The word in files.
    pub fn name(self) -> &'static str {
        match self {
            CallSource::Watchpoint => "watchpoint",
            CallSource::Samples => "samples",
            CallSource::LowerBound => "lower-bound",
        }
    }
}

/// A number of calls.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CallEstimate {
    /// Calls.
    pub calls: f64,
    /// Standard error of `calls` (68 %); `None` for a lower bound.
    pub error: Option<f64>,
    /// Where it comes from.
    pub source: CallSource,
}

/// Calls of one function in one thread, as found while it was recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Counted {
    /// The thread.
    pub thread: ThreadId,
    /// The function.
    pub function: FunctionId,
    /// How often it was called.
    pub estimate: CallEstimate,
    /// Callers with their shares of the calls, which add up to at most 1; empty where not known.
    pub callers: Vec<(FunctionId, f64)>,
}
