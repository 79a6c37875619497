//! Garbage collection as a row: `<GC>` on the stacks of threads that were collecting when they were sampled.
//!
//! A collection begins below the frame that is innermost then. Frames that are seen above that depth while it goes on are those of
//! finalizers and callbacks which the collector calls.

use super::ThreadStack;
use crate::profile::{FrameId, FunctionKind, GC, StackId, Tables, ThreadId};

/// What collects when it is called.
const COLLECT: &str = "<built-in method gc.collect>";

/// Which thread collects, of each lock. While a collection goes on, others may have the lock where the collector calls Python code, and
/// nothing in memory says whose it is: it is known where there is one thread, and where `gc.collect` is on the stack. A collection of
/// which it is not known is time of the function that it interrupts.
#[derive(Debug, Default)]
pub struct Collectors(Vec<(u64, ThreadId)>);

/// Whether a thread collects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collects {
    Yes,
    No,
    /// A collection is under way, and it may be this thread's.
    Perhaps,
}

impl Collectors {
    /// Whether a thread that was sampled is the one that collects; `is_certain` where it is if any is.
    pub fn ask(&mut self, id: ThreadId, thread: &ThreadStack, is_certain: bool) -> Collects {
        if thread.gil.is_empty() {
            // Without a lock, each thread says for itself whether it is the one that collects.
            return match thread.collects {
                true => Collects::Yes,
                false => Collects::No,
            };
        }
        let lock = thread.gil.start;
        let known = self.0.iter().position(|(of, _)| *of == lock);
        match (known, thread.holds_gil, thread.collects) {
            (Some(at), true, false) => {
                self.0.swap_remove(at);
                Collects::No
            }
            (Some(at), ..) => match self.0.get(at) {
                Some((_, collector)) if *collector == id => Collects::Yes,
                _ => Collects::No,
            },
            (None, true, true) if is_certain => {
                self.0.push((lock, id));
                Collects::Yes
            }
            (None, _, true) => Collects::Perhaps,
            (None, _, false) => Collects::No,
        }
    }
}

/// The number of frames below a collection that a stack calls itself.
pub fn called(
    tables: &Tables,
    frames: impl DoubleEndedIterator<Item = FrameId> + ExactSizeIterator,
) -> Option<usize> {
    let is_collect = |frame: FrameId| tables.name(tables.get_frame(frame).function) == COLLECT;
    frames
        .enumerate()
        .rev()
        .find(|(_, frame)| is_collect(*frame))
        .map(|(at, _)| at + 1)
}

/// The collection that a thread was seen in last.
#[derive(Debug, Default)]
pub struct Collection {
    /// Number of frames below it; `None` outside of one.
    below: Option<usize>,
}

impl Collection {
    /// Whether it was collecting when it was sampled last.
    pub fn is_under_way(&self) -> bool {
        self.below.is_some()
    }

    /// What a sample shows: `stacks` up to each of its `frames`, the depth from which on they are fresh, and whether the thread
    /// was collecting, from which depth on where that is known. Gives the stack and the depth to record.
    pub fn show(
        &mut self,
        tables: &mut Tables,
        stacks: &[StackId],
        frames: impl ExactSizeIterator<Item = FrameId>,
        fresh: Option<usize>,
        collects: bool,
        called: Option<usize>,
    ) -> Option<(StackId, Option<usize>)> {
        if !collects {
            self.below = None;
            return None;
        }
        let is_new = self.below.is_none();
        let depth = frames.len();
        let below = called.unwrap_or(self.below.unwrap_or(depth)).min(depth);
        self.below = Some(below);
        let function = tables.function("~", 0, GC, FunctionKind::Builtin);
        let collector = tables.frame(function, 0);
        let parent = below.checked_sub(1).and_then(|at| stacks.get(at).copied());
        let mut stack = tables.stack(parent, collector);
        for frame in frames.skip(below) {
            stack = tables.stack(Some(stack), frame);
        }
        let fresh = match fresh {
            _ if is_new => Some(fresh.map_or(below, |fresh| fresh.min(below))),
            Some(fresh) if fresh >= below => Some(fresh + 1),
            fresh => fresh,
        };
        Some((stack, fresh))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_is_known_or_nobody_is() {
        let mut collectors = Collectors::default();
        let mut ask = |id, holds_gil, collects, is_certain| {
            let thread = ThreadStack {
                holds_gil,
                collects,
                gil: 8..16,
                ..ThreadStack::default()
            };
            collectors.ask(ThreadId(id), &thread, is_certain)
        };
        assert_eq!(ask(1, true, false, true), Collects::No);
        // It may be another one's.
        assert_eq!(ask(2, true, true, false), Collects::Perhaps);
        assert_eq!(ask(1, true, true, true), Collects::Yes);
        // A finalizer waits, and another thread has the lock.
        assert_eq!(ask(2, true, true, false), Collects::No);
        assert_eq!(ask(1, false, false, true), Collects::Yes);
        assert_eq!(ask(1, true, false, true), Collects::No);
        assert_eq!(ask(1, false, false, true), Collects::No);
    }

    #[test]
    fn collections_stand_below_what_they_call() {
        let mut tables = Tables::default();
        let mut frames = Vec::new();
        let mut stacks = Vec::new();
        for name in ["main", "work", "__del__"] {
            let function = tables.function("a.py", 1, name, FunctionKind::Python);
            frames.push(tables.frame(function, 2));
            stacks.push(tables.stack(stacks.last().copied(), frames[frames.len() - 1]));
        }
        let mut collection = Collection::default();
        let mut show = |depth: usize, fresh, collects| {
            let frames = frames.iter().take(depth).copied();
            let (stack, fresh) =
                collection.show(&mut tables, &stacks[..depth], frames, fresh, collects, None)?;
            let mut names = Vec::new();
            let mut next = Some(stack);
            while let Some(at) = next {
                let node = tables.get_stack(at);
                let function = tables.get_frame(node.frame).function;
                names.insert(0, tables.name(function).to_string());
                next = node.parent;
            }
            Some((names.join(" "), fresh))
        };
        let is = |stack: &str, fresh| Some((stack.to_string(), fresh));
        assert_eq!(show(2, Some(0), false), None);
        assert_eq!(show(2, None, true), is("main work <GC>", Some(2)));
        assert_eq!(
            show(3, Some(2), true),
            is("main work <GC> __del__", Some(3))
        );
        assert_eq!(show(3, None, true), is("main work <GC> __del__", None));
        assert_eq!(show(2, None, true), is("main work <GC>", None));
        // The collection had begun deeper than it was first seen: in a finalizer.
        assert_eq!(show(1, None, true), is("main <GC>", None));
        assert_eq!(show(1, None, false), None);
        assert_eq!(show(0, None, true), is("<GC>", Some(0)));
    }
}
