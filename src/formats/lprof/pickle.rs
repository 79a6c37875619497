//! Python's pickle, as far as an object with plain data needs it: what would be called is never called, an object is its
//! class's name and its state. And a writer of the little that we write.
//!
//! Spec: `Lib/pickletools.py` of CPython 3.15; the binary opcodes of protocols 2 to 5. The bytes are hostile: every length is
//! bounded by what is there, what is referred to twice is there once, nothing recurses, and errors name the offset.
//! (serde-pickle copies what is referred to, for which a small file may ask without end, and writes no objects.)

use std::borrow::Cow;
use std::io::{self, Write};

use rustc_hash::FxHashMap;

use crate::error::{Error, Result};

/// The highest protocol that is read.
pub(super) const HIGHEST: u8 = 5;

/// What errors say has failed.
const WHAT: &str = "cannot read the line_profiler file";

/// Larger files are refused: each byte may become a node.
const MOST_BYTES: usize = 32 << 20;

/// The error for something at `at` that should not be there.
pub(super) fn bad(at: usize, why: impl std::fmt::Display) -> Error {
    Error::bad_file(WHAT, at as u64, why)
}

/// The position of a node in its document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct NodeId(u32);

/// An object.
#[derive(Debug, Clone)]
pub(super) enum Value<'a> {
    None,
    Bool,
    Int(i64),
    Float(f64),
    /// Text, or bytes of Python 2.
    Text(Cow<'a, str>),
    Tuple(Vec<NodeId>),
    List(Vec<NodeId>),
    Dict(Vec<(NodeId, NodeId)>),
    /// A class or function.
    Class {
        module: Cow<'a, str>,
        name: Cow<'a, str>,
    },
    /// What a class makes.
    Object {
        class: NodeId,
        state: Option<NodeId>,
    },
}

/// All that was read.
#[derive(Debug)]
pub(super) struct Document<'a> {
    nodes: Vec<(usize, Value<'a>)>,
    /// The outermost object.
    pub(super) root: NodeId,
}

impl<'a> Document<'a> {
    /// The object at a position.
    pub(super) fn get(&self, id: NodeId) -> &Value<'a> {
        self.nodes
            .get(id.0 as usize)
            .map_or(&Value::None, |(_, value)| value)
    }

    /// Where it begins in the file.
    pub(super) fn at(&self, id: NodeId) -> usize {
        self.nodes.get(id.0 as usize).map_or(0, |(at, _)| *at)
    }
}

/// Reads the object at the start of `data`.
pub(super) fn read(data: &[u8]) -> Result<Document<'_>> {
    if data.len() > MOST_BYTES {
        return Err(bad(MOST_BYTES, "the file is too large"));
    }
    let mut machine = Machine {
        data,
        at: 0,
        opcode_at: 0,
        nodes: Vec::new(),
        stack: Vec::new(),
        memo: FxHashMap::default(),
    };
    loop {
        if let Some(root) = machine.step()? {
            return Ok(Document {
                nodes: machine.nodes,
                root,
            });
        }
    }
}

/// What is on the stack.
#[derive(Debug, Clone, Copy)]
enum Slot {
    Mark,
    Node(NodeId),
}

struct Machine<'a> {
    data: &'a [u8],
    at: usize,
    /// Of the opcode that is carried out.
    opcode_at: usize,
    nodes: Vec<(usize, Value<'a>)>,
    stack: Vec<Slot>,
    memo: FxHashMap<u32, NodeId>,
}

impl<'a> Machine<'a> {
    /// Carries out one opcode; gives what is left at the end.
    fn step(&mut self) -> Result<Option<NodeId>> {
        self.opcode_at = self.at;
        let opcode = self.byte()?;
        match opcode {
            0x80 => {
                let version = self.byte()?;
                if version > HIGHEST {
                    return Err(self.wrong(format_args!("a pickle of protocol {version}")));
                }
            }
            0x95 => drop(self.take(8)?),
            b'.' => return self.pop().map(Some),
            b'(' => self.stack.push(Slot::Mark),
            b'0' => {
                self.stack
                    .pop()
                    .ok_or_else(|| self.wrong("nothing to take"))?;
            }
            b'1' => drop(self.pop_to_mark()?),
            b'2' => {
                let top = self.top()?;
                self.stack.push(Slot::Node(top));
            }
            b'N' => self.push(Value::None),
            0x88 | 0x89 => self.push(Value::Bool),
            b'J' => {
                let value = i32::from_le_bytes(self.array()?);
                self.push(Value::Int(value.into()));
            }
            b'K' => {
                let value = self.byte()?;
                self.push(Value::Int(value.into()));
            }
            b'M' => {
                let value = u16::from_le_bytes(self.array()?);
                self.push(Value::Int(value.into()));
            }
            0x8a => {
                let length = usize::from(self.byte()?);
                self.long(length)?;
            }
            b'G' => {
                let value = f64::from_be_bytes(self.array()?);
                self.push(Value::Float(value));
            }
            b'X' | b'T' | b'B' => {
                let length = u32::from_le_bytes(self.array()?);
                self.text(u64::from(length))?;
            }
            0x8c | b'U' | b'C' => {
                let length = self.byte()?;
                self.text(length.into())?;
            }
            0x8d | 0x8e => {
                let length = u64::from_le_bytes(self.array()?);
                self.text(length)?;
            }
            _ => self.container(opcode)?,
        }
        Ok(None)
    }

    fn container(&mut self, opcode: u8) -> Result<()> {
        match opcode {
            b')' => self.push(Value::Tuple(Vec::new())),
            b']' => self.push(Value::List(Vec::new())),
            b'}' => self.push(Value::Dict(Vec::new())),
            0x85..=0x87 => {
                let mut items = Vec::new();
                for _ in 0..opcode - 0x84 {
                    items.push(self.pop()?);
                }
                items.reverse();
                self.push(Value::Tuple(items));
            }
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Value::Tuple(items));
            }
            b'l' => {
                let items = self.pop_to_mark()?;
                self.push(Value::List(items));
            }
            b'd' => {
                let items = self.pop_to_mark()?;
                let pairs = self.pairs(&items)?;
                self.push(Value::Dict(pairs));
            }
            b'a' => {
                let item = self.pop()?;
                self.append(&[item])?;
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.append(&items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set(&[(key, value)])?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                let pairs = self.pairs(&items)?;
                self.set(&pairs)?;
            }
            _ => self.object(opcode)?,
        }
        Ok(())
    }

    fn object(&mut self, opcode: u8) -> Result<()> {
        match opcode {
            b'c' => {
                let module = self.line()?;
                let name = self.line()?;
                self.push(Value::Class { module, name });
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Value::Text(name), Value::Text(module)) = (self.get(name), self.get(module))
                else {
                    return Err(self.wrong("a class without a name"));
                };
                // Each may be named again and again: only what has a bounded length is copied.
                if name.len() + module.len() > 1000 {
                    return Err(self.wrong("a class with a long name"));
                }
                let (module, name) = (module.clone(), name.clone());
                self.push(Value::Class { module, name });
            }
            // Whatever they are made with: nothing is called.
            b'R' | 0x81 => {
                self.pop()?;
                let class = self.pop()?;
                self.push(Value::Object { class, state: None });
            }
            0x92 => {
                self.pop()?;
                self.pop()?;
                let class = self.pop()?;
                self.push(Value::Object { class, state: None });
            }
            b'b' => {
                let new = self.pop()?;
                let object = self.top()?;
                match self.nodes.get_mut(object.0 as usize) {
                    Some((_, Value::Object { state, .. })) => *state = Some(new),
                    _ => return Err(self.wrong("a state of what has none")),
                }
            }
            0x94 => {
                let number = self.memo.len() as u32;
                self.remember(number)?;
            }
            b'q' => {
                let number = self.byte()?;
                self.remember(number.into())?;
            }
            b'r' => {
                let number = u32::from_le_bytes(self.array()?);
                self.remember(number)?;
            }
            b'h' => {
                let number = self.byte()?;
                self.recall(number.into())?;
            }
            b'j' => {
                let number = u32::from_le_bytes(self.array()?);
                self.recall(number)?;
            }
            other => return Err(self.wrong(format_args!("opcode {other:#04x} is not expected"))),
        }
        Ok(())
    }

    fn wrong(&self, why: impl std::fmt::Display) -> Error {
        bad(self.opcode_at, why)
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8]> {
        let end = usize::try_from(length)
            .ok()
            .and_then(|length| self.at.checked_add(length));
        let bytes = end.and_then(|end| self.data.get(self.at..end));
        let bytes = bytes.ok_or_else(|| bad(self.data.len(), "the file is cut short"))?;
        self.at += bytes.len();
        Ok(bytes)
    }

    fn byte(&mut self) -> Result<u8> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes = self.take(N as u64)?;
        bytes
            .try_into()
            .map_err(|_| self.wrong("the file is cut short"))
    }

    fn line(&mut self) -> Result<Cow<'a, str>> {
        let rest = self.data.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|byte| *byte == b'\n');
        let length = length.ok_or_else(|| self.wrong("a name without an end"))?;
        let bytes = self.take(length as u64)?;
        self.take(1)?;
        Ok(String::from_utf8_lossy(bytes))
    }

    fn text(&mut self, length: u64) -> Result<()> {
        let bytes = self.take(length)?;
        self.push(Value::Text(String::from_utf8_lossy(bytes)));
        Ok(())
    }

    /// A number of any size, little-endian in two's complement; one of more than 64 bits as a float.
    fn long(&mut self, length: usize) -> Result<()> {
        let bytes = self.take(length as u64)?;
        let sign = bytes.last().is_some_and(|byte| *byte >= 0x80);
        if length <= 8 {
            let mut wide = [if sign { 0xff } else { 0 }; 8];
            for (to, from) in wide.iter_mut().zip(bytes) {
                *to = *from;
            }
            self.push(Value::Int(i64::from_le_bytes(wide)));
            return Ok(());
        }
        let fill = if sign {
            256.0f64.powi(length as i32)
        } else {
            0.0
        };
        let sum = bytes
            .iter()
            .rev()
            .fold(0.0, |sum, byte| sum * 256.0 + f64::from(*byte));
        self.push(Value::Float(sum - fill));
        Ok(())
    }

    fn push(&mut self, value: Value<'a>) {
        // As many as there are bytes at most, which are fewer than 2^32.
        let id = NodeId(self.nodes.len() as u32);
        self.nodes.push((self.opcode_at, value));
        self.stack.push(Slot::Node(id));
    }

    fn get(&self, id: NodeId) -> &Value<'a> {
        self.nodes
            .get(id.0 as usize)
            .map_or(&Value::None, |(_, value)| value)
    }

    fn top(&self) -> Result<NodeId> {
        match self.stack.last() {
            Some(Slot::Node(id)) => Ok(*id),
            _ => Err(self.wrong("nothing to work on")),
        }
    }

    fn pop(&mut self) -> Result<NodeId> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_to_mark(&mut self) -> Result<Vec<NodeId>> {
        let mut items = Vec::new();
        loop {
            match self.stack.pop() {
                Some(Slot::Node(id)) => items.push(id),
                Some(Slot::Mark) => break,
                None => return Err(self.wrong("no mark")),
            }
        }
        items.reverse();
        Ok(items)
    }

    fn pairs(&self, items: &[NodeId]) -> Result<Vec<(NodeId, NodeId)>> {
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(self.wrong("a key without a value"));
        }
        Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect())
    }

    fn append(&mut self, items: &[NodeId]) -> Result<()> {
        let list = self.top()?;
        match self.nodes.get_mut(list.0 as usize) {
            Some((_, Value::List(list))) => list.extend_from_slice(items),
            _ => return Err(self.wrong("items of what is no list")),
        }
        Ok(())
    }

    fn set(&mut self, pairs: &[(NodeId, NodeId)]) -> Result<()> {
        let dict = self.top()?;
        match self.nodes.get_mut(dict.0 as usize) {
            Some((_, Value::Dict(dict))) => dict.extend_from_slice(pairs),
            _ => return Err(self.wrong("keys of what is no dict")),
        }
        Ok(())
    }

    fn remember(&mut self, number: u32) -> Result<()> {
        let top = self.top()?;
        self.memo.insert(number, top);
        Ok(())
    }

    fn recall(&mut self, number: u32) -> Result<()> {
        let known = self.memo.get(&number).copied();
        let id = known.ok_or_else(|| self.wrong("a reference to what is not there"))?;
        self.stack.push(Slot::Node(id));
        Ok(())
    }
}

/// Writes one object with a state, in protocol 2, which all Pythons read.
pub(super) struct Encoder<'a> {
    out: io::BufWriter<&'a mut dyn Write>,
}

impl<'a> Encoder<'a> {
    pub(super) fn new(out: &'a mut dyn Write) -> Encoder<'a> {
        Encoder {
            out: io::BufWriter::new(out),
        }
    }

    /// Begins an object; its attributes follow, each after its name.
    pub(super) fn begin_object(&mut self, module: &str, class: &str) -> io::Result<()> {
        self.out.write_all(b"\x80\x02")?;
        write!(self.out, "c{module}\n{class}\n").and_then(|()| self.out.write_all(b")\x81}("))
    }

    pub(super) fn end_object(&mut self) -> io::Result<()> {
        self.out.write_all(b"ub.")?;
        self.out.flush()
    }

    /// Begins a dict; values follow, each after its key.
    pub(super) fn begin_dict(&mut self) -> io::Result<()> {
        self.out.write_all(b"}(")
    }

    pub(super) fn end_dict(&mut self) -> io::Result<()> {
        self.out.write_all(b"u")
    }

    pub(super) fn begin_list(&mut self) -> io::Result<()> {
        self.out.write_all(b"](")
    }

    pub(super) fn end_list(&mut self) -> io::Result<()> {
        self.out.write_all(b"e")
    }

    /// Makes a tuple of the three objects before it.
    pub(super) fn end_tuple(&mut self) -> io::Result<()> {
        self.out.write_all(b"\x87")
    }

    pub(super) fn text(&mut self, text: &str) -> io::Result<()> {
        let length = u32::try_from(text.len())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a name of 4 GiB"))?;
        self.out.write_all(b"X")?;
        self.out.write_all(&length.to_le_bytes())?;
        self.out.write_all(text.as_bytes())
    }

    pub(super) fn int(&mut self, value: u64) -> io::Result<()> {
        if let Ok(value) = i32::try_from(value) {
            self.out.write_all(b"J")?;
            return self.out.write_all(&value.to_le_bytes());
        }
        // A ninth byte keeps the sign away.
        let length = 8 + u8::from(value >> 63 != 0);
        self.out.write_all(&[0x8a, length])?;
        self.out.write_all(&value.to_le_bytes())?;
        self.out.write_all(if length > 8 { b"\0" } else { b"" })
    }

    /// A whole number as an int, any other as a float.
    pub(super) fn number(&mut self, value: f64) -> io::Result<()> {
        match value {
            0.0..9e15 if value.fract() == 0.0 => self.int(value as u64),
            _ => self.float(value),
        }
    }

    pub(super) fn float(&mut self, value: f64) -> io::Result<()> {
        self.out.write_all(b"G")?;
        self.out.write_all(&value.to_be_bytes())
    }
}
