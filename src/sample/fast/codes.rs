//! Code objects: read once, remembered by address, looked at again now and then, since they die and their
//! addresses are used for others.

use rustc_hash::FxHashMap;

use crate::layout::linetable::Lines;
use crate::layout::opcodes::Calls;
use crate::layout::{self, Bytecode, Offsets, Shape, at, object};
use crate::profile::{FrameId, FunctionId, FunctionKind, Tables};
use crate::sample::Watchable;
use crate::target::memory::{Memory, Range, read_c_string};
use crate::target::watchpoint::Access;

/// How long a code object that comes onto a stack anew is believed to be the one it was; then the next sample copies its
/// first bytes along. If that sample does not come soon, or it is on no stack by then, it is read by itself.
const BELIEVED_US: u64 = 5000;
const BELIEVED_UNSEEN_US: u64 = 15_000;

/// A code object that is newer than this to us may be one of those that are made, run and dropped: it is looked
/// at in every sample. Once one was seen to take another's address, that goes for longer.
const SETTLED_US: u64 = 50_000;
const SETTLED_AMONG_CHURN_US: u64 = 1_000_000;

/// How long it counts that an address was used again.
const CHURN_US: u64 = 10_000_000;

/// Most code objects that are remembered; then all are forgotten.
const MOST_CODES: usize = 100_000;

/// Most code objects that one sample copies.
const MOST_WANTED: usize = 8;

/// Most units of bytecode of one function (2 bytes each), and most bytes of a line table, that are believed.
const MOST_UNITS: u64 = 8 << 20;

/// Most copies of one function's bytecode that are remembered.
const MOST_COPIES: usize = 1024;

/// No unit: the frame has not started, or its instruction makes no sense.
pub const NO_UNIT: u32 = u32::MAX;

/// `co_flags` (Include/cpython/code.h): defined in a function; a generator, a coroutine, or both.
const NESTED: u32 = 0x10;
const GENERATORS: u32 = 0x20 | 0x80 | 0x200;

/// What makes a code object the same one as before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    kind: u64,
    filename: u64,
    name: u64,
    line_table: u64,
    first_line: i32,
}

/// Name and file of `_Py_InitCleanup` (Python/specialize.c, 3.13 and newer), which has no line.
const CONSTRUCTOR: &str = "__init__";

/// A code object.
#[derive(Debug)]
pub struct Code {
    identity: Identity,
    function: FunctionId,
    address: u64,
    /// `co_flags`.
    flags: u32,
    /// Whether its name is no name that a statement gives: `<lambda>`, `<listcomp>`.
    is_unnamed: bool,
    /// Whether it is what the interpreter puts below `__init__` where a class is called.
    is_shim: bool,
    /// Address of its first unit.
    start: u64,
    /// Those of copies of its bytecode that threads have for themselves, by index.
    copies: Vec<(u32, u64)>,
    units: u32,
    /// Local variables, cells and free variables in a frame.
    nlocalsplus: u32,
    /// Size of the evaluation stack.
    stack_size: u32,
    exceptions: u64,
    /// Calls by unit; `None` inside where they cannot be told.
    calls: Option<Option<Calls>>,
    /// Jumps back; `None` inside where they cannot be told.
    shape: Option<Option<Shape>>,
    lines: Option<Lines>,
    /// Frame by unit, plus 1; 0 for none yet.
    frames: Vec<u32>,
    checked_us: u64,
    /// When it was seen first.
    since_us: u64,
}

impl Code {
    /// Its instructions, as they are without tracing and monitoring; `None` where they cannot be read.
    fn bytecode(&self, offsets: &Offsets, memory: &impl Memory) -> Option<Vec<u8>> {
        let mut bytecode = vec![0; self.units as usize * 2];
        memory.read(self.start, &mut bytecode).ok()?;
        if let (Some(monitored), Some(opcodes)) = (offsets.code.monitored, &offsets.opcodes) {
            let read = |address, into: &mut [u8]| memory.read(address, into).is_ok();
            monitored.restore(opcodes, self.address, &mut bytecode, read);
        }
        Some(bytecode)
    }
}

/// All code objects seen.
#[derive(Debug)]
pub struct Codes {
    offsets: Offsets,
    code_type: Option<u64>,
    /// Those that the next sample is to copy, and those that this one has copied.
    wanted: Vec<u64>,
    copied: Vec<u64>,
    by_address: FxHashMap<u64, u32>,
    codes: Vec<Code>,
    /// Until when addresses are taken to be used again soon.
    churn_until_us: u64,
    /// Whether what a frame has as its code object is taken for one where the name of its type cannot be read.
    pub trusting: bool,
    /// Whether what is asked for is of a moment ago: an address that is used again may have been another code object's then.
    pub late: bool,
    /// How often an address was seen to be used again.
    pub replaced: u64,
}

/// Which code object; valid until the next [`Codes::trim`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeId(u32);

impl CodeId {
    /// As a number.
    pub fn index(self) -> u32 {
        self.0
    }
}

impl Codes {
    /// None yet. `code_type` is the address of `PyCode_Type` where it is known.
    pub fn new(offsets: Offsets, code_type: Option<u64>) -> Codes {
        Codes {
            offsets,
            code_type,
            wanted: Vec::new(),
            copied: Vec::new(),
            by_address: FxHashMap::default(),
            codes: Vec::new(),
            churn_until_us: 0,
            trusting: false,
            late: false,
            replaced: 0,
        }
    }

    /// Address of the type of code objects, where it is known.
    pub fn code_type(&self) -> Option<u64> {
        self.code_type
    }

    /// What a sample is to copy of code objects, so that it can be seen whether they are what they were.
    pub fn heads(&mut self) -> impl Iterator<Item = Range> + '_ {
        let length = at(self.offsets.code.head);
        std::mem::swap(&mut self.wanted, &mut self.copied);
        self.wanted.clear();
        self.copied.iter().map(move |address| Range {
            address: *address as usize,
            length,
        })
    }

    fn want(&mut self, address: u64) {
        if self.wanted.len() < MOST_WANTED && !self.wanted.contains(&address) {
            self.wanted.push(address);
        }
    }

    /// Forgets everything when there is too much of it; true if it did.
    pub fn trim(&mut self) -> bool {
        let full = self.codes.len() > MOST_CODES;
        if full {
            self.by_address.clear();
            self.codes.clear();
        }
        full
    }

    /// The code object at `address`; `None` when there is none. Reads when it is new or was not looked at for
    /// a while.
    pub fn find(
        &mut self,
        memory: &impl Memory,
        tables: &mut Tables,
        address: u64,
        now_us: u64,
    ) -> Option<CodeId> {
        if let Some(&index) = self.by_address.get(&address) {
            let settles_us = self.settles_us(now_us);
            let code = self.codes.get(index as usize)?;
            let is_settled = code.since_us.saturating_add(settles_us) <= now_us;
            let age_us = now_us.saturating_sub(code.checked_us);
            if age_us == 0 || (is_settled && age_us < BELIEVED_US) {
                return Some(CodeId(index));
            }
            let is_late = !is_settled || age_us >= BELIEVED_UNSEEN_US;
            let is_copied = match self.late {
                false => self.copied.contains(&address),
                true => memory.is_copy(address, at(self.offsets.code.head)),
            };
            // If samples come seldom, it is due in the next one again.
            self.want(address);
            if !is_late && !is_copied {
                return Some(CodeId(index));
            }
            let (identity, _) = head(&self.offsets, memory, address)?;
            let code = self.codes.get_mut(index as usize)?;
            if identity == code.identity {
                code.checked_us = now_us;
                // Where addresses are used again, others may have been there meanwhile.
                let is_sure = !self.late || is_copied || now_us >= self.churn_until_us;
                return Some(CodeId(index)).filter(|_| is_sure);
            }
            // Another one at the same address.
            self.churn_until_us = now_us.saturating_add(CHURN_US);
            self.replaced += 1;
            let mut code = self.read(memory, tables, address)?;
            if !self.is_there_still(memory, &code) {
                return None;
            }
            (code.checked_us, code.since_us) = (now_us, now_us);
            *self.codes.get_mut(index as usize)? = code;
            return Some(CodeId(index)).filter(|_| !self.late || is_copied);
        }
        let mut code = self.read(memory, tables, address)?;
        if !self.is_there_still(memory, &code) {
            return None;
        }
        (code.checked_us, code.since_us) = (now_us, now_us);
        let index = u32::try_from(self.codes.len()).ok()?;
        self.codes.push(code);
        self.by_address.insert(address, index);
        let is_sure = !self.late
            || now_us >= self.churn_until_us
            || memory.is_copy(address, at(self.offsets.code.head));
        Some(CodeId(index)).filter(|_| is_sure)
    }

    /// Whether a code object that was read late, its names with it, was there all the time until now.
    fn is_there_still(&self, memory: &impl Memory, code: &Code) -> bool {
        let mut bytes = [0; 256];
        let room = bytes.get_mut(..at(self.offsets.code.head));
        !self.late
            || room.is_some_and(|room| memory.read_now(code.address, room).is_ok())
                && identity(&self.offsets, &bytes) == Some(code.identity)
    }

    /// From `now_us` on, for a while, addresses are taken to be used again soon: until it is known whether they are.
    pub fn beware(&mut self, now_us: u64) {
        self.churn_until_us = self.churn_until_us.max(now_us.saturating_add(SETTLED_US));
    }

    fn settles_us(&self, now_us: u64) -> u64 {
        if now_us < self.churn_until_us {
            SETTLED_AMONG_CHURN_US
        } else {
            SETTLED_US
        }
    }

    /// Whether a code object that was found is no function of anybody's.
    pub fn is_shim(&self, id: CodeId) -> bool {
        self.get(id).is_some_and(|code| code.is_shim)
    }

    /// Whether a code object that was found has been there for long.
    pub fn is_settled(&self, id: CodeId, now_us: u64) -> bool {
        let settles_us = self.settles_us(now_us);
        self.get(id)
            .is_some_and(|code| code.since_us.saturating_add(settles_us) <= now_us)
    }

    /// A code object that was found.
    pub fn get(&self, id: CodeId) -> Option<&Code> {
        self.codes.get(id.0 as usize)
    }

    /// Where each call writes: at the reference count. By [`CodeId::index`]; `None` for generators, whose calls are resumptions,
    /// which leave it alone, and for code objects that live for ever (3.12 and newer).
    pub fn watchable(&self, memory: &impl Memory, index: u32) -> Option<Watchable> {
        let code = self.get(CodeId(index))?;
        let address = code.address;
        let references = memory.read_word(address).ok()?;
        let lives_for_ever = (references as u32 as i32) < 0;
        if code.flags & GENERATORS != 0 || lives_for_ever || !address.is_multiple_of(8) {
            return None;
        }
        Some(Watchable {
            address,
            access: Access::Write,
            // A module's code object may have a function made of it in each turn of a loop as well.
            shared: code.flags & NESTED != 0 || code.is_unnamed,
        })
    }

    /// Its jumps back, where they can be told.
    fn shape(&mut self, memory: &impl Memory, id: CodeId) -> Option<&Shape> {
        let opcodes = self.offsets.opcodes?;
        let code = self.codes.get_mut(id.0 as usize)?;
        if code.shape.is_none() {
            let bytecode = code.bytecode(&self.offsets, memory);
            code.shape = Some(bytecode.and_then(|bytecode| opcodes.shape(&bytecode)));
        }
        code.shape.as_ref()?.as_ref()
    }

    /// Whether one invocation can get from one unit to another; `code` is [`CodeId::index`] and one. True where
    /// that cannot be told.
    pub fn leads_to(&mut self, memory: &impl Memory, code: u32, from: u32, to: u32) -> bool {
        let Some(id) = code.checked_sub(1).map(CodeId) else {
            return true;
        };
        self.shape(memory, id)
            .is_none_or(|shape| shape.leads(from, to))
    }

    /// Whether one invocation can execute the instruction at a unit a second time; likewise.
    pub fn repeats(&mut self, memory: &impl Memory, code: u32, unit: u32) -> bool {
        let Some(id) = code.checked_sub(1).map(CodeId) else {
            return true;
        };
        self.shape(memory, id)
            .is_none_or(|shape| shape.repeats(unit))
    }

    fn read(&mut self, memory: &impl Memory, tables: &mut Tables, address: u64) -> Option<Code> {
        let (identity, bytes) = head(&self.offsets, memory, address)?;
        match self.code_type {
            Some(known) if known == identity.kind => {}
            Some(_) => return None,
            None => {
                let name = memory.read_word(
                    identity
                        .kind
                        .checked_add(self.offsets.object.place(object::TYPE_NAME) as u64)?,
                );
                match read_c_string(memory, name.ok()?, 8) {
                    Some(name) if name == "code" => {}
                    None if self.trusting => {}
                    _ => return None,
                }
                self.code_type = Some(identity.kind);
            }
        }
        let coding = &self.offsets.code;
        // A code object all the same if its name is a subclass of str, say.
        let text = |address| read_text(&self.offsets, memory, address);
        let file = text(identity.filename).unwrap_or_else(|| "?".to_string());
        let name = text(identity.name).unwrap_or_else(|| "?".to_string());
        let int_at =
            |offset: u32| layout::int(&bytes, at(offset)).and_then(|n| u32::try_from(n).ok());
        let (start, units) = match coding.bytecode {
            Bytecode::Inline(offset) => {
                let units = layout::word(&bytes, at(self.offsets.object.head))?;
                (address.checked_add(u64::from(offset))?, units)
            }
            Bytecode::Bytes(offset) => {
                let bytecode = layout::word(&bytes, at(offset))?;
                let head = u64::from(self.offsets.object.head);
                let size = memory.read_word(bytecode.checked_add(head)?).ok()?;
                (bytecode.checked_add(bytes_data(&self.offsets))?, size / 2)
            }
        };
        if units > MOST_UNITS {
            return None;
        }
        let first_line = u32::try_from(identity.first_line).unwrap_or(0);
        let function = tables.function(&file, first_line, &name, FunctionKind::Python);
        let qualname = coding.qualname();
        let qualname = qualname.and_then(|offset| text(layout::word(&bytes, at(offset))?));
        if let Some(qualname) = qualname {
            tables.set_qualname(function, &qualname);
        }
        Some(Code {
            identity,
            function,
            address,
            flags: int_at(coding.flags).unwrap_or(0),
            is_unnamed: name.starts_with('<'),
            is_shim: first_line == 0 && name == CONSTRUCTOR && file == CONSTRUCTOR,
            start,
            copies: Vec::new(),
            units: units as u32,
            nlocalsplus: coding.nlocalsplus.and_then(int_at).unwrap_or(0),
            stack_size: int_at(coding.stack_size).unwrap_or(0),
            exceptions: coding
                .exception_table
                .and_then(|offset| layout::word(&bytes, at(offset)))
                .unwrap_or(0),
            calls: None,
            shape: None,
            lines: None,
            frames: Vec::new(),
            checked_us: 0,
            since_us: 0,
        })
    }

    /// The unit that a frame's stored instruction stands for; [`NO_UNIT`] before the first one. `None` where it is of a copy of
    /// the bytecode that is not to be found.
    pub fn unit(
        &mut self,
        memory: &impl Memory,
        id: CodeId,
        instruction: u64,
        copy: u32,
    ) -> Option<u32> {
        let offsets = &self.offsets;
        let code = self.codes.get_mut(id.0 as usize)?;
        let unit_from = |start| {
            let unit = offsets.frame.coding.unit(instruction, start);
            Some(unit).filter(|unit| *unit < code.units)
        };
        let Some(array) = offsets.code.bytecode_copies.filter(|_| copy != 0) else {
            return Some(unit_from(code.start).unwrap_or(NO_UNIT));
        };
        let mut known = code.copies.iter();
        let known = known.find(|(index, _)| *index == copy);
        if let Some(unit) = known.and_then(|(_, start)| unit_from(*start)) {
            return Some(unit);
        }
        // Not known yet, or another thread's by now, which has a copy of its own.
        let start = copy_of_bytecode(memory, code.address, array, copy)?;
        let unit = unit_from(start)?;
        code.copies.retain(|(index, _)| *index != copy);
        if code.copies.len() < MOST_COPIES {
            code.copies.push((copy, start));
        }
        Some(unit)
    }

    /// The frame of a code object at a unit. Lines are decoded when the first one is asked for.
    pub fn frame(
        &mut self,
        memory: &impl Memory,
        tables: &mut Tables,
        id: CodeId,
        unit: u32,
    ) -> Option<FrameId> {
        let line_coding = self.offsets.code.lines;
        let code = self.codes.get_mut(id.0 as usize)?;
        if unit == NO_UNIT {
            let first = u32::try_from(code.identity.first_line).unwrap_or(0);
            return Some(tables.frame(code.function, first));
        }
        let slot = unit as usize;
        if let Some(&known) = code.frames.get(slot)
            && known != 0
        {
            return Some(FrameId(known - 1));
        }
        if code.lines.is_none() {
            let table =
                read_bytes(&self.offsets, memory, code.identity.line_table).unwrap_or_default();
            code.lines = Some(Lines::decode(line_coding, &table, code.identity.first_line));
        }
        let line = code.lines.as_ref().map_or(0, |lines| lines.line(unit));
        let frame = tables.frame(code.function, line);
        if code.frames.len() <= slot {
            code.frames.resize(slot + 1, 0);
        }
        if let Some(place) = code.frames.get_mut(slot) {
            *place = frame.0 + 1;
        }
        Some(frame)
    }

    /// The places of the evaluation stack, counted in words from the frame's first local variable, where the
    /// callable may be of the call that `unit` is part of.
    pub fn callable_slots(
        &mut self,
        memory: &impl Memory,
        id: CodeId,
        unit: u32,
    ) -> Option<[Option<u32>; 2]> {
        let opcodes = self.offsets.opcodes?;
        let code = self.codes.get_mut(id.0 as usize)?;
        if unit == NO_UNIT {
            return None;
        }
        if code.calls.is_none() {
            let exceptions = read_bytes(&self.offsets, memory, code.exceptions).unwrap_or_default();
            let bytecode = code.bytecode(&self.offsets, memory);
            code.calls = Some(
                bytecode
                    .and_then(|bytecode| opcodes.calls(&bytecode, &exceptions, code.stack_size)),
            );
        }
        let call = code.calls.as_ref()?.as_ref()?.at(unit)?;
        let first = code.nlocalsplus;
        Some(opcodes.slots(call).map(|slot| slot?.checked_add(first)))
    }
}

/// Where the copy of a code object's bytecode with that index starts; the pointer to all of them is at `array` in the code
/// object (`_PyCodeArray`).
fn copy_of_bytecode(memory: &impl Memory, code: u64, array: u32, index: u32) -> Option<u64> {
    let word = |address: u64, offset: u64| memory.read_word(address.checked_add(offset)?).ok();
    let array = word(code, u64::from(array))?;
    let index = u64::from(index);
    (index < word(array, 0)?).then_some(())?;
    word(array, 8 + 8 * index)
}

/// What identifies the code object at `address`, and its first bytes.
fn head(offsets: &Offsets, memory: &impl Memory, address: u64) -> Option<(Identity, [u8; 256])> {
    let mut bytes = [0; 256];
    let code = &offsets.code;
    memory.read(address, bytes.get_mut(..at(code.head))?).ok()?;
    Some((identity(offsets, &bytes)?, bytes))
}

fn identity(offsets: &Offsets, bytes: &[u8]) -> Option<Identity> {
    let code = &offsets.code;
    Some(Identity {
        kind: layout::word(bytes, at(offsets.object.kind))?,
        filename: layout::word(bytes, at(code.filename))?,
        name: layout::word(bytes, at(code.name))?,
        line_table: layout::word(bytes, at(code.line_table))?,
        first_line: layout::int(bytes, at(code.first_line))?,
    })
}

/// The string object at `address`, cut at [`object::TEXT_LIMIT`] characters.
pub fn read_text(offsets: &Offsets, memory: &impl Memory, address: u64) -> Option<String> {
    let mut head = [0; object::TEXT_HEAD];
    let needed = at(offsets.text.state) + 8;
    memory.read(address, head.get_mut(..needed)?).ok()?;
    // Of what is no string, and of what lies behind it, all that is looked at may be as in one.
    if !is_a(offsets, memory, &head, object::IS_TEXT) {
        return None;
    }
    let text = object::text(&head, offsets.text)?;
    let mut data = vec![0; text.length as usize * usize::from(text.width)];
    memory
        .read(address.checked_add(u64::from(text.data))?, &mut data)
        .ok()?;
    Some(object::decode_text(&data, text))
}

/// Whether the type of the object that begins with `head` has that flag.
pub fn is_a(offsets: &Offsets, memory: &impl Memory, head: &[u8], flag: u64) -> bool {
    let kind = layout::word(head, at(offsets.object.kind));
    let place = offsets.object.place(object::TYPE_FLAGS) as u64;
    let flags = kind.and_then(|kind| kind.checked_add(place));
    let flags = flags.and_then(|place| memory.read_word(place).ok());
    flags.is_some_and(|flags| flags & flag != 0)
}

/// Where the characters of a bytes object start.
fn bytes_data(offsets: &Offsets) -> u64 {
    offsets.object.place(object::BYTES_DATA as usize) as u64
}

/// The contents of the bytes object at `address`.
pub fn read_bytes(offsets: &Offsets, memory: &impl Memory, address: u64) -> Option<Vec<u8>> {
    let head = u64::from(offsets.object.head);
    let size = memory.read_word(address.checked_add(head)?).ok()?;
    if size > MOST_UNITS * 2 {
        return None;
    }
    let mut data = vec![0; usize::try_from(size).ok()?];
    memory
        .read(address.checked_add(bytes_data(offsets))?, &mut data)
        .ok()?;
    Some(data)
}
