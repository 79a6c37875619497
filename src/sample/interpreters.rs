//! Stacks of sub-interpreters. A thread has a state, with a stack, in each interpreter that it has entered: while it runs
//! code in one, its frames in the one that it came from stay where they are. Readers give each stack by itself; here
//! those of one thread become one, with a row for each interpreter but the main one, so that the thread's time is counted
//! once and each interpreter has its share.

use std::borrow::Cow;

use super::{FrameSample, ThreadStack, ThreadStacks};

/// What a reader says of a stack in an interpreter that is not the main one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inside {
    /// The interpreter's id.
    pub interpreter: u64,
    /// The row that stands for the interpreter.
    pub root: FrameSample,
    /// `pthread_self()` of the thread whose stack it is; `None` when that is not known.
    pub user: Option<u64>,
    /// The thread state's address, which tells it from others.
    pub state: u64,
}

/// The stacks with one for each thread; as they were read where `tasks` refer to them.
pub fn shown(stacks: &ThreadStacks, tasks: bool) -> Cow<'_, ThreadStacks> {
    match joined(stacks).filter(|_| !tasks) {
        Some(joined) => Cow::Owned(joined),
        None => Cow::Borrowed(stacks),
    }
}

/// The stacks with one for each thread; `None` when they are so already.
fn joined(stacks: &ThreadStacks) -> Option<ThreadStacks> {
    let inside = |stack: &ThreadStack| stack.inside.filter(|_| !stack.frames.is_empty());
    if stacks.threads.iter().all(|stack| inside(stack).is_none()) {
        return None;
    }
    // The main interpreter's first: who runs code in another one comes from an older one, as a rule.
    let mut order: Vec<&ThreadStack> = stacks.threads.iter().collect();
    order.sort_by_key(|stack| stack.inside.map_or(0, |inside| inside.interpreter));
    let mut threads: Vec<ThreadStack> = Vec::with_capacity(order.len());
    for stack in order {
        let Some(inside) = inside(stack) else {
            // States without frames in other interpreters say nothing of their threads.
            if stack.inside.is_none() {
                threads.push(stack.clone());
            }
            continue;
        };
        let same = |known: &&mut ThreadStack| Some(known.python_id) == inside.user;
        let whole = match threads.iter_mut().find(same) {
            Some(whole) => whole,
            None => {
                threads.push(ThreadStack {
                    python_id: inside.user.unwrap_or(inside.state),
                    os_id: inside.user.map_or(0, |_| stack.os_id),
                    name: stack.name.clone(),
                    gone: stack.gone,
                    inside: Some(inside),
                    ..ThreadStack::default()
                });
                let Some(whole) = threads.last_mut() else {
                    continue;
                };
                whole
            }
        };
        whole.frames.push(inside.root);
        whole.frames.extend_from_slice(&stack.frames);
        whole.holds_gil |= stack.holds_gil;
        whole.attached |= stack.attached;
        whole.collects |= stack.collects;
        whole.gone &= !stack.runs_python();
        whole.gil = stack.gil.clone();
        // Numbers rise from stack to stack that is read: it changes when any of them has.
        whole.version = whole.version.max(stack.version);
    }
    Some(ThreadStacks {
        threads,
        locals: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::FrameId;

    fn frame(number: u32) -> FrameSample {
        FrameSample {
            frame: FrameId(number),
            invocation: number.into(),
            instruction: 0,
            code: 0,
            from_c: false,
        }
    }

    fn stack(ident: u64, version: u64, frames: &[u32]) -> ThreadStack {
        ThreadStack {
            python_id: ident,
            os_id: ident,
            version,
            frames: frames.iter().map(|number| frame(*number)).collect(),
            ..ThreadStack::default()
        }
    }

    fn within(mut stack: ThreadStack, interpreter: u64, user: Option<u64>) -> ThreadStack {
        stack.inside = Some(Inside {
            interpreter,
            root: frame(100 + interpreter as u32),
            user,
            state: 0xabc0 + interpreter,
        });
        stack
    }

    #[test]
    fn a_thread_in_two_interpreters_has_one_stack() {
        let mut inner = within(stack(1, 9, &[5, 6]), 2, Some(7));
        inner.holds_gil = true;
        let stacks = ThreadStacks {
            threads: vec![inner, stack(7, 4, &[1, 2]), stack(1, 3, &[8])],
            ..ThreadStacks::default()
        };
        let joined = joined(&stacks).expect("two interpreters");
        assert_eq!(joined.threads.len(), 2);
        let first = &joined.threads[0];
        let frames: Vec<u32> = first.frames.iter().map(|f| f.frame.0).collect();
        assert_eq!((first.python_id, first.version), (7, 9));
        assert_eq!(frames, [1, 2, 102, 5, 6]);
        assert!(first.holds_gil);
        assert_eq!(joined.threads[1].python_id, 1);
    }

    #[test]
    fn a_stack_whose_thread_is_not_known_stays_alone() {
        let stacks = ThreadStacks {
            threads: vec![within(stack(1, 9, &[5]), 1, None), stack(1, 3, &[8])],
            ..ThreadStacks::default()
        };
        let joined = joined(&stacks).expect("two interpreters");
        let ids: Vec<(u64, u64)> = joined
            .threads
            .iter()
            .map(|thread| (thread.python_id, thread.os_id))
            .collect();
        assert_eq!(ids, [(1, 1), (0xabc1, 0)]);
        let alone = ThreadStacks {
            threads: vec![stack(1, 3, &[8]), within(stack(1, 9, &[]), 1, Some(1))],
            ..ThreadStacks::default()
        };
        assert!(super::joined(&alone).is_none());
    }
}
