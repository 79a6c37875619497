//! Which threads handle an exception: the chain of `_PyErr_StackItem`s that `exc_info` of a thread's state begins.
//!
//! An item has the exception for which an `except` or `finally` block runs; a generator that runs has one of its own, in front of
//! those of its callers (Python/errors.c, `_PyErr_GetTopmostException`).

use super::super::builtins;
use super::codes;
use super::window::Window;
use crate::layout::{self, HandledOffsets, Offsets, at, object};
use crate::target::memory::Memory;

/// Items that are followed: generators that run within each other.
const MOST_ITEMS: usize = 64;

/// Items that are remembered, to be in the copy; those of generators come and go.
const REMEMBERED: usize = 16;

/// Bytes of an object that have its type, in all builds.
const HEAD: usize = 32;

/// Bytes of an item, at most.
const ITEM: usize = 32;

/// What a thread handles.
#[derive(Debug, Default)]
pub struct Handled {
    /// Whether that is looked at.
    pub wanted: bool,
    /// Items that were there lately.
    items: Vec<u64>,
    /// What those of the last walk have, the innermost first; None too.
    values: Vec<u64>,
}

fn length(offsets: &HandledOffsets) -> u32 {
    offsets.value.max(offsets.previous) + 8
}

impl Handled {
    /// Adds what has to be copied.
    pub fn want(&self, offsets: &HandledOffsets, window: &mut Window) {
        for item in &self.items {
            window.want(*item, length(offsets).into());
        }
    }

    /// Follows the chain from `innermost` on: whether an item was not in the copy and was read later. `None` where there is none.
    pub fn follow(
        &mut self,
        offsets: &HandledOffsets,
        memory: &impl Memory,
        window: &Window,
        innermost: u64,
    ) -> Option<bool> {
        self.values.clear();
        if !self.wanted {
            return Some(false);
        }
        let (mut item, mut beside) = (innermost, false);
        for _ in 0..MOST_ITEMS {
            if item == 0 {
                break;
            }
            let mut bytes = [0; ITEM];
            let room = bytes.get_mut(..at(length(offsets)))?;
            match window.get(item, room.len(), &mut 0) {
                Some(copied) => room.copy_from_slice(copied),
                None => {
                    memory.read(item, room).ok()?;
                    beside = true;
                    if self.items.len() >= REMEMBERED {
                        self.items.clear();
                    }
                    self.items.push(item);
                }
            }
            let value = layout::word(&bytes, at(offsets.value))?;
            self.values.extend((value != 0).then_some(value));
            item = layout::word(&bytes, at(offsets.previous))?;
        }
        Some(beside)
    }
}

/// What is known of the values of items.
#[derive(Debug, Default)]
pub struct Handling {
    /// The address of `None`, which stands in an item where nothing is handled any more.
    none: Option<u64>,
}

impl Handling {
    /// Whether a thread handles an exception.
    pub fn is_any(&mut self, offsets: &Offsets, memory: &impl Memory, handled: &Handled) -> bool {
        handled.values.iter().any(|value| match self.none {
            Some(none) => *value != none,
            None => {
                let mut head = [0; HEAD];
                let is_exception = memory.read(*value, &mut head).is_ok()
                    && codes::is_a(offsets, memory, &head, object::IS_EXCEPTION);
                // Of a copy that is approximate it may be neither.
                if !is_exception && is_none(offsets, memory, &head) {
                    self.none = Some(*value);
                }
                is_exception
            }
        })
    }
}

fn is_none(offsets: &Offsets, memory: &impl Memory, head: &[u8]) -> bool {
    let kind = layout::word(head, at(offsets.object.kind));
    let name = kind.and_then(|kind| builtins::type_name(&offsets.object, memory, kind));
    name.as_deref() == Some("NoneType")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::memory::Live;
    use crate::units::Pid;

    const OFFSETS: HandledOffsets = HandledOffsets {
        innermost: 0,
        value: 0,
        previous: 8,
    };

    /// The chain of `items`, of which only what is remembered is in the copy.
    fn follow(handled: &mut Handled, items: &[[u64; 2]]) -> Option<bool> {
        let mut window = Window::default();
        let me = Live::new(Pid(std::process::id() as i32));
        handled.want(&OFFSETS, &mut window);
        window.plan(std::iter::empty());
        window.fill(&me).expect("read");
        handled.follow(&OFFSETS, &me, &window, items.as_ptr() as u64)
    }

    #[test]
    fn chains_are_followed_and_never_without_end() {
        let mut handled = Handled::default();
        let mut items = vec![[0u64; 2]; 3];
        let at = |items: &[[u64; 2]], index: usize| (&raw const items[index]) as u64;
        items[0] = [0, at(&items, 1)];
        items[1] = [7, at(&items, 2)];
        items[2] = [8, 0];
        assert_eq!(follow(&mut handled, &items), Some(false));
        assert!(handled.values.is_empty());
        handled.wanted = true;
        assert_eq!(follow(&mut handled, &items), Some(true));
        assert_eq!(follow(&mut handled, &items), Some(false));
        assert_eq!(handled.values, [7, 8]);
        items[2][1] = at(&items, 0);
        assert_eq!(follow(&mut handled, &items), Some(false));
        assert!(handled.values.len() < MOST_ITEMS);
        items[0][1] = 16;
        assert_eq!(follow(&mut handled, &items), None);
    }
}
