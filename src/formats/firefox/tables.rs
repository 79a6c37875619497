//! What the samples of one thread refer to: stacks, frames, functions and strings, each with positions of
//! its own. Only what is used is written.

use std::hash::Hash;

use rustc_hash::FxHashMap;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::thread::Column;
use crate::formats::ExportOptions;
use crate::profile::{FrameId, FunctionId, FunctionKind, StackId, Tables};

/// Positions in the list of categories.
const PYTHON: u8 = 1;
const C_FUNCTION: u8 = 2;
const NATIVE: u8 = 3;
const IDLE: u8 = 4;

/// Distinct values in the order in which they came, with their positions.
struct Interner<T> {
    values: Vec<T>,
    positions: FxHashMap<T, u32>,
}

impl<T: Copy + Eq + Hash> Interner<T> {
    fn new() -> Interner<T> {
        Interner {
            values: Vec::new(),
            positions: FxHashMap::default(),
        }
    }

    /// The position of `value`, and whether it is new.
    fn add(&mut self, value: T) -> (u32, bool) {
        let next = self.values.len() as u32;
        let at = *self.positions.entry(value).or_insert(next);
        if at == next {
            self.values.push(value);
        }
        (at, at == next)
    }
}

/// A frame: the function's position, the line, the category.
type FrameRow = (u32, u32, u8);

/// A function: positions of name and file (`None` for C functions), first line.
struct FunctionRow {
    name: u32,
    file: Option<u32>,
    line: u32,
}

/// The tables of one thread.
pub(super) struct StackTables<'a> {
    tables: &'a Tables,
    options: &'a ExportOptions,
    /// Caller's position and frame.
    stacks: Interner<(Option<u32>, u32)>,
    frames: Interner<FrameRow>,
    functions: Interner<FunctionId>,
    function_rows: Vec<FunctionRow>,
    strings: Interner<&'a str>,
    /// Positions of whole stacks of the profile, innermost frame idle or not.
    known: FxHashMap<(StackId, bool), u32>,
}

impl<'a> StackTables<'a> {
    pub(super) fn new(tables: &'a Tables, options: &'a ExportOptions) -> StackTables<'a> {
        StackTables {
            tables,
            options,
            stacks: Interner::new(),
            frames: Interner::new(),
            functions: Interner::new(),
            function_rows: Vec::new(),
            strings: Interner::new(),
            known: FxHashMap::default(),
        }
    }

    /// The position of a stack of the profile.
    pub(super) fn stack(&mut self, stack: StackId, idle: bool) -> u32 {
        if let Some(&at) = self.known.get(&(stack, idle)) {
            return at;
        }
        let mut missing = Vec::new();
        let mut outer = None;
        let mut next = self.tables.get_stack(stack).parent;
        while let Some(stack) = next {
            outer = self.known.get(&(stack, false)).copied();
            if outer.is_some() {
                break;
            }
            missing.push(stack);
            next = self.tables.get_stack(stack).parent;
        }
        while let Some(stack) = missing.pop() {
            let at = self.push(outer, self.tables.get_stack(stack).frame, false);
            self.known.insert((stack, false), at);
            outer = Some(at);
        }
        let at = self.push(outer, self.tables.get_stack(stack).frame, idle);
        self.known.insert((stack, idle), at);
        at
    }

    /// The position of the stack with `frame` on top of the one at `outer`.
    pub(super) fn push(&mut self, outer: Option<u32>, frame: FrameId, idle: bool) -> u32 {
        let parts = self.tables.get_frame(frame);
        let kind = self.tables.get_function(parts.function).kind;
        let function = self.function(parts.function, kind);
        let category = match kind {
            _ if idle => IDLE,
            FunctionKind::Python => PYTHON,
            FunctionKind::Builtin => C_FUNCTION,
            FunctionKind::Native => NATIVE,
        };
        let (frame, _) = self.frames.add((function, parts.line, category));
        self.stacks.add((outer, frame)).0
    }

    fn function(&mut self, function: FunctionId, kind: FunctionKind) -> u32 {
        let (at, is_new) = self.functions.add(function);
        if is_new {
            let tables = self.tables;
            let file = self.options.file_name(tables.file(function));
            let row = FunctionRow {
                name: self
                    .strings
                    .add(tables.shown_name(function, self.options.qualnames))
                    .0,
                file: (kind != FunctionKind::Builtin).then(|| self.strings.add(file).0),
                line: tables.line(function),
            };
            self.function_rows.push(row);
        }
        at
    }

    pub(super) fn strings(&self) -> &[&'a str] {
        &self.strings.values
    }

    pub(super) fn stack_table(&self) -> StackTable<'_> {
        StackTable(&self.stacks.values)
    }

    pub(super) fn frame_table(&self) -> FrameTable<'_> {
        FrameTable(&self.frames.values)
    }

    pub(super) fn func_table(&self) -> FuncTable<'_> {
        FuncTable(&self.function_rows)
    }
}

/// Callers and frames of stacks.
pub(super) struct StackTable<'a>(&'a [(Option<u32>, u32)]);

impl Serialize for StackTable<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let rows = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("length", &rows.len())?;
        map.serialize_entry("prefix", &Column(|| rows.iter().map(|row| row.0)))?;
        map.serialize_entry("frame", &Column(|| rows.iter().map(|row| row.1)))?;
        map.end()
    }
}

/// Functions at lines.
pub(super) struct FrameTable<'a>(&'a [FrameRow]);

impl Serialize for FrameTable<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let rows = self.0;
        let all = |value: Option<i32>| Column(move || rows.iter().map(move |_| value));
        let line = |line: u32| (line != 0).then_some(line);
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("length", &rows.len())?;
        map.serialize_entry("address", &all(Some(-1)))?;
        map.serialize_entry("inlineDepth", &all(Some(0)))?;
        map.serialize_entry("category", &Column(|| rows.iter().map(|row| row.2)))?;
        map.serialize_entry("subcategory", &all(Some(0)))?;
        map.serialize_entry("func", &Column(|| rows.iter().map(|row| row.0)))?;
        map.serialize_entry("nativeSymbol", &all(None))?;
        map.serialize_entry("innerWindowID", &all(Some(0)))?;
        map.serialize_entry("line", &Column(|| rows.iter().map(|row| line(row.1))))?;
        map.serialize_entry("column", &all(None))?;
        map.end()
    }
}

/// Functions.
pub(super) struct FuncTable<'a>(&'a [FunctionRow]);

impl Serialize for FuncTable<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let rows = self.0;
        let no = || Column(|| rows.iter().map(|_| false));
        let line = |row: &FunctionRow| (row.line != 0).then_some(row.line);
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("length", &rows.len())?;
        map.serialize_entry("name", &Column(|| rows.iter().map(|row| row.name)))?;
        map.serialize_entry("isJS", &no())?;
        map.serialize_entry("relevantForJS", &no())?;
        map.serialize_entry("resource", &Column(|| rows.iter().map(|_| -1)))?;
        map.serialize_entry("fileName", &Column(|| rows.iter().map(|row| row.file)))?;
        map.serialize_entry("lineNumber", &Column(|| rows.iter().map(line)))?;
        map.serialize_entry("columnNumber", &Column(|| rows.iter().map(|_| ())))?;
        map.end()
    }
}
