//! Interned strings, functions, frames and parent-pointer stacks.
//!
//! Ids are positions; a parent's id is always lower than its child's, so one pass from the end sums
//! subtrees.

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::{FrameId, FunctionId, StackId, StringId};

/// What stands for the garbage collector on stacks, a function as those of C.
pub const GC: &str = "<GC>";

/// What stands for threads that used the CPU and ended before a sample found them.
pub const UNSAMPLED: &str = "<unsampled threads>";

/// What a row stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FunctionKind {
    /// A Python function, with a file and a first line (1-based).
    Python,
    /// A C function as cProfile names it: file `~`, line 0, `<built-in method builtins.sum>`.
    Builtin,
    /// A native frame: file is the library or source file, line as the debug information has it or 0.
    Native,
}

/// cProfile's triple: file, first line of the code object (1-based, 0 for none), `co_name`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Function {
    /// Path as the code object has it.
    pub file: StringId,
    /// First line of the code object.
    pub line: u32,
    /// `co_name`, not the qualified name.
    pub name: StringId,
    /// What it is.
    pub kind: FunctionKind,
}

/// A function at the line that was running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Frame {
    /// The function.
    pub function: FunctionId,
    /// The line that was running, 1-based; 0 when unknown.
    pub line: u32,
}

/// One stack: its innermost frame on top of its parent stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StackNode {
    /// The stack of the caller; `None` for an outermost frame.
    pub parent: Option<StackId>,
    /// The innermost frame.
    pub frame: FrameId,
    /// Number of frames below this one; 0 for an outermost frame.
    pub depth: u32,
}

/// All names and stacks of a profile.
#[derive(Debug, Clone, Default)]
pub struct Tables {
    strings: Vec<Arc<str>>,
    functions: Vec<Function>,
    frames: Vec<Frame>,
    stacks: Vec<StackNode>,
    string_ids: FxHashMap<Arc<str>, StringId>,
    function_ids: FxHashMap<Function, FunctionId>,
    frame_ids: FxHashMap<Frame, FrameId>,
    stack_ids: FxHashMap<(Option<StackId>, FrameId), StackId>,
    /// Only of functions whose qualified name is another than their name.
    qualnames: FxHashMap<FunctionId, StringId>,
    /// Functions whose qualified name is known to be their name.
    plain: FxHashSet<FunctionId>,
}

impl Tables {
    /// The id of `text`, added when it is new.
    pub fn string(&mut self, text: &str) -> StringId {
        if let Some(&id) = self.string_ids.get(text) {
            return id;
        }
        let id = StringId(self.strings.len() as u32);
        let text: Arc<str> = text.into();
        self.strings.push(text.clone());
        self.string_ids.insert(text, id);
        id
    }

    /// The id of a function, added when it is new.
    pub fn function(
        &mut self,
        file: &str,
        line: u32,
        name: &str,
        kind: FunctionKind,
    ) -> FunctionId {
        let function = Function {
            file: self.string(file),
            line,
            name: self.string(name),
            kind,
        };
        self.add_function(function)
    }

    /// As [`Tables::function`], for strings that are interned already.
    pub fn add_function(&mut self, function: Function) -> FunctionId {
        let next = FunctionId(self.functions.len() as u32);
        *self.function_ids.entry(function).or_insert_with(|| {
            self.functions.push(function);
            next
        })
    }

    /// The id of `function` at `line` (1-based, 0 unknown).
    pub fn frame(&mut self, function: FunctionId, line: u32) -> FrameId {
        let frame = Frame { function, line };
        let next = FrameId(self.frames.len() as u32);
        *self.frame_ids.entry(frame).or_insert_with(|| {
            self.frames.push(frame);
            next
        })
    }

    /// The id of `function` at `line` if it is known.
    pub fn find_frame(&self, function: FunctionId, line: u32) -> Option<FrameId> {
        self.frame_ids.get(&Frame { function, line }).copied()
    }

    /// The id of the stack with `frame` on top of `parent`.
    pub fn stack(&mut self, parent: Option<StackId>, frame: FrameId) -> StackId {
        let next = StackId(self.stacks.len() as u32);
        *self.stack_ids.entry((parent, frame)).or_insert_with(|| {
            let depth = parent.map_or(0, |parent| self.stacks[parent.index()].depth + 1);
            self.stacks.push(StackNode {
                parent,
                frame,
                depth,
            });
            next
        })
    }

    /// Takes over what `newer` has beyond this one, which was equal to it once: ids stay what they are.
    pub fn follow(&mut self, newer: &Tables) {
        for text in newer.strings.iter().skip(self.strings.len()) {
            self.string_ids
                .insert(text.clone(), StringId(self.strings.len() as u32));
            self.strings.push(text.clone());
        }
        for function in newer.functions.iter().skip(self.functions.len()) {
            self.add_function(*function);
        }
        for frame in newer.frames.iter().skip(self.frames.len()) {
            self.frame(frame.function, frame.line);
        }
        for node in newer.stacks.iter().skip(self.stacks.len()) {
            self.stack(node.parent, node.frame);
        }
    }

    /// The text of `id`.
    pub fn text(&self, id: StringId) -> &str {
        &self.strings[id.index()]
    }

    /// A function's parts.
    pub fn get_function(&self, id: FunctionId) -> Function {
        self.functions[id.index()]
    }

    /// A function's file, as the code object has it.
    pub fn file(&self, id: FunctionId) -> &str {
        self.text(self.functions[id.index()].file)
    }

    /// A function's first line, 1-based, 0 for none.
    pub fn line(&self, id: FunctionId) -> u32 {
        self.functions[id.index()].line
    }

    /// A function's `co_name`.
    pub fn name(&self, id: FunctionId) -> &str {
        self.text(self.functions[id.index()].name)
    }

    /// A function's qualified name (`co_qualname`); `None` where it is not known.
    pub fn qualname(&self, id: FunctionId) -> Option<&str> {
        match self.qualnames.get(&id) {
            Some(&name) => Some(self.text(name)),
            None => self.plain.contains(&id).then(|| self.name(id)),
        }
    }

    /// Whether any qualified name is known.
    pub fn has_qualnames(&self) -> bool {
        !(self.qualnames.is_empty() && self.plain.is_empty())
    }

    /// A function's name for people: the qualified one where that is wanted and known.
    pub fn shown_name(&self, id: FunctionId, qualified: bool) -> &str {
        let qualname = self.qualname(id).filter(|_| qualified);
        qualname.unwrap_or_else(|| self.name(id))
    }

    /// Says what a function's qualified name is. Functions that only that tells apart keep the first.
    pub fn set_qualname(&mut self, id: FunctionId, qualname: &str) {
        if self.qualname(id).is_some() {
            return;
        }
        if self.name(id) == qualname {
            self.plain.insert(id);
        } else {
            let qualname = self.string(qualname);
            self.qualnames.insert(id, qualname);
        }
    }

    /// Adds the functions of `other`, in its order; gives their ids here.
    pub fn take_functions(&mut self, other: &Tables) -> Vec<FunctionId> {
        let strings: Vec<StringId> = other.strings.iter().map(|text| self.string(text)).collect();
        (other.functions.iter().enumerate())
            .map(|(at, function)| {
                let id = self.add_function(Function {
                    file: strings[function.file.index()],
                    name: strings[function.name.index()],
                    ..*function
                });
                if let Some(qualname) = other.qualname(FunctionId(at as u32)) {
                    self.set_qualname(id, qualname);
                }
                id
            })
            .collect()
    }

    /// A frame's parts.
    pub fn get_frame(&self, id: FrameId) -> Frame {
        self.frames[id.index()]
    }

    /// A stack's parts.
    pub fn get_stack(&self, id: StackId) -> StackNode {
        self.stacks[id.index()]
    }

    /// The frames of a stack, innermost first.
    pub fn frames_of(&self, stack: StackId) -> impl Iterator<Item = FrameId> + '_ {
        let mut next = Some(stack);
        std::iter::from_fn(move || {
            let node = self.stacks[next?.index()];
            next = node.parent;
            Some(node.frame)
        })
    }

    /// All strings, in id order.
    pub fn strings(&self) -> &[Arc<str>] {
        &self.strings
    }

    /// All functions, in id order.
    pub fn functions(&self) -> &[Function] {
        &self.functions
    }

    /// All frames, in id order.
    pub fn frames(&self) -> &[Frame] {
        &self.frames
    }

    /// All stacks, in id order: parents before children.
    pub fn stacks(&self) -> &[StackNode] {
        &self.stacks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_things_get_equal_ids() {
        let mut tables = Tables::default();
        let f = tables.function("a.py", 3, "f", FunctionKind::Python);
        assert_eq!(f, tables.function("a.py", 3, "f", FunctionKind::Python));
        assert_ne!(f, tables.function("a.py", 4, "f", FunctionKind::Python));
        let frame = tables.frame(f, 5);
        let outer = tables.stack(None, frame);
        let inner = tables.stack(Some(outer), frame);
        assert_ne!(outer, inner);
        assert_eq!(inner, tables.stack(Some(outer), frame));
        assert_eq!(tables.get_stack(inner).depth, 1);
        assert_eq!(tables.frames_of(inner).count(), 2);
    }
}
