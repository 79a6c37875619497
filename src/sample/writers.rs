//! Who writes a code object's reference count: the role of an instruction, from what it does and from which of the
//! interpreter's functions it is in.
//!
//! Calls are the writes that are nothing else. The others are in functions that every build exports
//! (`PyFunction_NewWithQualName`), or that types point to (`tp_dealloc`, the getters of `f_code` and `__code__`), or to which
//! one of these jumps at once, so that most of them are known in stripped builds too.

use rustc_hash::FxHashMap;

use crate::target::locate;
use crate::target::memory::{Live, Memory, read_c_string};
use crate::units::Pid;

/// What a write is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// A reference more: a call begins, unless what comes next says otherwise.
    Add,
    /// A reference less: a call ends, unless what came before says otherwise.
    Sub,
    /// A function object is made; the code object's load before it and the release after it belong to it.
    Create,
    /// `frame.f_code` or the like is read.
    Read,
    /// A function object is freed.
    FunctionEnd,
    /// A frame object is freed that has outlived its call.
    FrameEnd,
    /// A frame object takes over the frame of a call that ends.
    Keep,
    /// It could not be told whether it adds or takes.
    Unknown,
}

/// How calls of a version end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameEnds {
    /// With their frame object, in order or late (up to 3.10).
    AsCalls,
    /// One whose frame object outlives it is seen to end with that (3.11).
    Late,
    /// A frame object that takes over the frame has a reference of its own (3.12 and newer).
    Apart,
}

impl FrameEnds {
    /// Those of Python 3.`minor`.
    pub fn of(minor: u32) -> FrameEnds {
        match minor {
            ..=10 => FrameEnds::AsCalls,
            11 => FrameEnds::Late,
            _ => FrameEnds::Apart,
        }
    }
}

/// What a write to a code object's reference count is to its calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// A call begins.
    Begin,
    /// A call ends.
    End,
    /// Nothing.
    Nothing,
    /// The write before it was no call's beginning.
    NoBegin,
}

/// What the next write of a thread to one word may belong to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sequence {
    after_begin: bool,
    after_create: bool,
    reads: u32,
}

impl Sequence {
    /// Takes the next write.
    pub fn take(&mut self, role: Role, frames: FrameEnds) -> Meaning {
        let after_begin = std::mem::take(&mut self.after_begin);
        let after_create = std::mem::take(&mut self.after_create);
        match role {
            Role::Add => {
                self.after_begin = true;
                Meaning::Begin
            }
            // The code object was loaded for it, which is no call, and is released after it; 3.15 only borrows it.
            Role::Create if after_begin => {
                self.after_create = true;
                Meaning::NoBegin
            }
            Role::Sub if after_create => Meaning::Nothing,
            // What was read is released at once, as a rule; or else what ends before is taken for it, and it for that.
            Role::Sub if self.reads > 0 => {
                self.reads -= 1;
                Meaning::Nothing
            }
            Role::Sub => Meaning::End,
            Role::FrameEnd if frames == FrameEnds::Late => Meaning::End,
            Role::Read => {
                self.reads += 1;
                Meaning::Nothing
            }
            Role::Create | Role::FunctionEnd | Role::FrameEnd | Role::Keep | Role::Unknown => {
                Meaning::Nothing
            }
        }
    }
}

/// Bytes before an instruction's end that are looked at.
const BEFORE: usize = 16;

/// A function whose end is not known is taken to be at most this long.
const LONGEST: u64 = 0x600;

/// A function that does nothing but to jump to another one is at most this long.
const LONGEST_JUMP: u64 = 32;

/// What clears frames at the end of calls (Python/ceval.c of 3.14 and 3.15; not exported before).
const CLEARS_FRAMES: &str = "_PyEval_FrameClearAndPop";

/// Places in types (Include/cpython/object.h, the same from 3.8 to 3.15) and in `PyGetSetDef`, and most getters looked at.
const TP_DEALLOC: u64 = 48;
const TP_GETSET: u64 = 248;
const GETSET_SIZE: u64 = 40;
const MOST_GETTERS: u64 = 64;

/// Most instructions that are remembered.
const MOST: usize = 4096;

/// The functions whose writes are no calls, with their roles: symbols, static ones where a build keeps them.
const NAMES: [(&str, Role); 12] = [
    ("PyFunction_New", Role::Create),
    ("PyFunction_NewWithQualName", Role::Create),
    ("PyFrame_GetCode", Role::Read),
    ("PyMember_GetOne", Role::Read),
    ("func_get_code", Role::Read),
    ("frame_getcode", Role::Read),
    ("PyFunction_GetCode", Role::Read),
    ("func_dealloc", Role::FunctionEnd),
    ("func_clear", Role::FunctionEnd),
    ("_PyFrame_ClearExceptCode", Role::Keep),
    ("take_ownership", Role::Keep),
    ("frame_dealloc", Role::FrameEnd),
];

/// What is known of the writing functions of a process.
#[derive(Debug, Default)]
pub struct Writers {
    /// Starts of functions and their role; `None` for functions of no interest, which end the one before them.
    starts: Vec<(u64, Option<Role>)>,
    /// Between these, all functions' starts are known.
    bounds: Option<(u64, u64)>,
    known: FxHashMap<u64, Role>,
    /// Whether the making of functions can be told from calls.
    pub knows_create: bool,
    /// Whether frames that are kept can be told from calls by name.
    pub knows_keep: bool,
}

impl Writers {
    /// Looks into a process with Python 3.`minor`.
    pub fn find(pid: Pid, minor: u32) -> Writers {
        let memory = Live::new(pid);
        let symbols = locate::symbols(pid);
        let starts = locate::function_starts(pid, &memory, &symbols);
        Writers::new(&memory, &symbols, &starts, FrameEnds::of(minor))
    }

    /// From all symbols and from where functions start, rising.
    pub fn new(
        memory: &impl Memory,
        symbols: &[(u64, String)],
        starts: &[u64],
        ends: FrameEnds,
    ) -> Writers {
        let mut writers = Writers::default();
        for (address, name) in symbols {
            // A compiler's variants of a function: `func_clear.part.0`, `take_ownership.isra.0`.
            let stem = name.split('.').next().unwrap_or_default();
            let role = NAMES.iter().find(|(known, _)| *known == stem);
            let role = role.map(|(_, role)| *role);
            writers.knows_create |= role == Some(Role::Create);
            writers.knows_keep |= role == Some(Role::Keep);
            writers.starts.push((*address, role));
        }
        for (kind, free, getter) in [
            ("PyFunction_Type", Role::FunctionEnd, "__code__"),
            ("PyFrame_Type", Role::FrameEnd, "f_code"),
        ] {
            let of_type = symbols.iter().find(|(_, name)| name == kind);
            let Some((address, _)) = of_type else {
                continue;
            };
            let dealloc = memory.read_word(address.wrapping_add(TP_DEALLOC));
            writers.starts.extend(dealloc.map(|at| (at, Some(free))));
            let getter = getter_of(memory, *address, getter);
            writers
                .starts
                .extend(getter.map(|at| (at, Some(Role::Read))));
        }
        if ends == FrameEnds::AsCalls {
            for (_, role) in &mut writers.starts {
                if *role == Some(Role::FrameEnd) {
                    *role = None;
                }
            }
        }
        let jumps: Vec<(u64, Option<Role>)> = writers
            .starts
            .iter()
            .filter(|(_, role)| role.is_some())
            .filter_map(|(from, role)| Some((jumps_to(memory, *from, starts)?, *role)))
            .collect();
        writers.starts.extend(jumps);
        if !writers.knows_keep {
            // What clears the frame of a call that ends calls no Python; its callee that adds a reference makes frames outlive.
            let clears = symbols.iter().find(|(_, name)| name == CLEARS_FRAMES);
            let callees = clears.map_or_else(Vec::new, |(at, _)| calls_of(memory, *at, starts));
            writers.knows_keep = !callees.is_empty();
            writers
                .starts
                .extend(callees.into_iter().map(|at| (at, Some(Role::Keep))));
        }
        let ends_known = starts.iter().map(|start| (*start, None));
        writers.starts.extend(ends_known);
        writers.bounds = starts
            .first()
            .zip(starts.last())
            .map(|(first, last)| (*first, *last));
        // Of two at one address, the one with a role.
        writers
            .starts
            .sort_by_key(|(address, role)| (*address, role.is_none()));
        writers.starts.dedup_by_key(|(address, _)| *address);
        writers
    }

    /// The role of the instruction that ends at `end`.
    pub fn role_in(&mut self, memory: &impl Memory, end: u64) -> Role {
        self.role(end, |end| {
            let mut bytes = [0; BEFORE];
            let start = end.checked_sub(BEFORE as u64)?;
            memory.read(start, &mut bytes).ok().map(|()| bytes)
        })
    }

    /// The role of the instruction that ends at `end`; `read` gives the bytes before an address.
    pub fn role(&mut self, end: u64, read: impl FnOnce(u64) -> Option<[u8; BEFORE]>) -> Role {
        if let Some(role) = self.known.get(&end) {
            return *role;
        }
        let adds = read(end).and_then(|bytes| adds(&bytes));
        let role = decide(adds, self.function_of(end));
        if self.known.len() < MOST {
            self.known.insert(end, role);
        }
        role
    }

    fn function_of(&self, end: u64) -> Option<Role> {
        let after = self.starts.partition_point(|(start, _)| *start < end);
        let (start, role) = self.starts.get(after.checked_sub(1)?)?;
        let known = self
            .bounds
            .is_some_and(|(first, last)| first <= end && end < last);
        (known || end - start <= LONGEST).then_some(*role)?
    }
}

/// The functions that the one at `from` calls directly (`call`, opcode e8).
fn calls_of(memory: &impl Memory, from: u64, starts: &[u64]) -> Vec<u64> {
    let end = starts.partition_point(|start| *start <= from);
    let length = starts.get(end).map_or(0, |next| next - from).min(LONGEST);
    let mut code = vec![0; length as usize];
    if memory.read(from, &mut code).is_err() {
        return Vec::new();
    }
    let callee = |at: usize| {
        let [0xe8, a, b, c, d] = *code.get(at..at + 5)? else {
            return None;
        };
        let by = i64::from(i32::from_le_bytes([a, b, c, d]));
        let to = from.wrapping_add(at as u64 + 5).wrapping_add_signed(by);
        starts.binary_search(&to).is_ok().then_some(to)
    };
    (0..code.len()).filter_map(callee).collect()
}

/// The function that gives attribute `name` of a type's objects.
fn getter_of(memory: &impl Memory, of_type: u64, name: &str) -> Option<u64> {
    let table = memory.read_word(of_type.wrapping_add(TP_GETSET)).ok()?;
    for index in 0..MOST_GETTERS {
        let place = table.wrapping_add(index * GETSET_SIZE);
        let named = memory.read_word(place).ok().filter(|named| *named != 0)?;
        if read_c_string(memory, named, 32).as_deref() == Some(name) {
            let getter = memory.read_word(place.wrapping_add(8)).ok()?;
            return (getter != 0).then_some(getter);
        }
    }
    None
}

/// The function to which the short one at `from` jumps (`jmp`, opcodes e9 and eb).
fn jumps_to(memory: &impl Memory, from: u64, starts: &[u64]) -> Option<u64> {
    let own = starts.binary_search(&from).ok()?;
    let next = *starts.get(own + 1)?;
    let length = usize::try_from((next - from).min(LONGEST_JUMP)).ok()?;
    let mut code = [0; LONGEST_JUMP as usize];
    let code = code.get_mut(..length)?;
    memory.read(from, code).ok()?;
    (0..length).find_map(|at| {
        let (after, by) = match (code.get(at)?, code.get(at + 1..)?) {
            (0xe9, [a, b, c, d, ..]) => (at + 5, i64::from(i32::from_le_bytes([*a, *b, *c, *d]))),
            (0xeb, [by, ..]) => (at + 2, i64::from(*by as i8)),
            _ => return None,
        };
        let to = from.wrapping_add(after as u64).wrapping_add_signed(by);
        (to != from && starts.binary_search(&to).is_ok()).then_some(to)
    })
}

fn decide(adds: Option<bool>, function: Option<Role>) -> Role {
    match (function, adds) {
        (Some(role @ (Role::Create | Role::Read | Role::Keep)), Some(true) | None) => role,
        (Some(role @ (Role::FunctionEnd | Role::FrameEnd)), Some(false) | None) => role,
        (_, Some(true)) => Role::Add,
        (_, Some(false)) => Role::Sub,
        (_, None) => Role::Unknown,
    }
}

/// Whether the x86-64 instruction at the end of `bytes` adds one to a word in memory; false when it takes one, `None` when
/// it does neither. Where it only stores (3.12 and newer look for immortal objects in between), what the register got
/// before:
///
/// ```text
/// 48 83 03 01            add qword [rbx], 1
/// 49 83 2c 24 01         sub qword [r12], 1
/// 48 ff 4d 00            dec qword [rbp+0]
/// 83 c1 01 74 02 89 08   add ecx, 1; je; mov [rax], ecx
/// 48 8d 50 ff 48 89 17   lea rdx, [rax-1]; mov [rdi], rdx
/// ```
pub fn adds(bytes: &[u8]) -> Option<bool> {
    // The operand: [register], [rbp or r13 + 0], [rsp or r12] with a SIB byte.
    let operand = |bytes: &[u8]| -> Option<(usize, u8)> {
        let &[.., before, last] = bytes else {
            return None;
        };
        let field = |byte: u8| (byte >> 3) & 7;
        match (before, last) {
            (before, 0x24) if before & 0xc7 == 0x04 => Some((2, field(before))),
            (before, 0x00) if before & 0xc7 == 0x45 => Some((2, field(before))),
            (_, last) if last & 0xc0 == 0 && !matches!(last & 7, 4 | 5) => Some((1, field(last))),
            _ => None,
        }
    };
    let opcode = |bytes: &[u8], length: usize| {
        bytes
            .len()
            .checked_sub(length + 1)
            .map(|at| (at, bytes[at]))
    };
    if let Some((immediate, rest)) = bytes.split_last()
        && matches!(immediate, 0x01 | 0xff)
        && let Some((length, field)) = operand(rest)
        && let Some((_, 0x83)) = opcode(rest, length)
        && matches!(field, 0 | 5)
    {
        return Some((field == 0) == (*immediate == 1));
    }
    let (length, field) = operand(bytes)?;
    match opcode(bytes, length)? {
        (_, 0xff) if field <= 1 => Some(field == 0),
        (at, 0x89) => register_got(bytes.get(..at)?, field),
        _ => None,
    }
}

/// Whether the last instruction in `bytes` that changes register `register` (its low three bits) by one adds.
fn register_got(bytes: &[u8], register: u8) -> Option<bool> {
    (0..bytes.len().saturating_sub(1)).rev().find_map(|at| {
        let (first, second) = (*bytes.get(at)?, *bytes.get(at + 1)?);
        match (first, second & 0xf8, bytes.get(at + 2)) {
            (0x83, 0xc0, Some(1)) | (0x83, 0xe8, Some(0xff)) if second & 7 == register => {
                Some(true)
            }
            (0x83, 0xe8, Some(1)) | (0x83, 0xc0, Some(0xff)) if second & 7 == register => {
                Some(false)
            }
            (0xff, 0xc0, _) if second & 7 == register => Some(true),
            (0xff, 0xc8, _) if second & 7 == register => Some(false),
            (0x8d, _, Some(by @ (0x01 | 0xff)))
                if second >> 6 == 1 && (second >> 3) & 7 == register =>
            {
                Some(*by == 1)
            }
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::memory::{Range, Unreadable};

    fn of(hex: &str) -> Option<bool> {
        let bytes: Vec<u8> = hex
            .split(' ')
            .map(|byte| u8::from_str_radix(byte, 16).expect("hex"))
            .collect();
        adds(&bytes)
    }

    /// As compilers wrote them: 3.8 to 3.13.
    #[test]
    fn instructions_are_told_apart() {
        for more in [
            "06 01 8b 55 24 4c 89 73 18 48 83 45 00 01",
            "00 01 48 89 43 18 48 8b 45 20 48 83 00 01",
            "00 8b 08 48 89 55 10 83 c1 01 74 02 89 08",
            "48 8b 18 8b 45 00 83 c0 01 74 03 89 45 00",
            "4d 89 54 24 10 83 c2 01 74 04 41 89 55 00",
            "89 70 10 41 8b 07 83 c0 01 74 03 41 89 07",
            "8b 07 8d 48 01 85 c9 74 02 89 0f",
            "90 90 90 48 ff 03",
        ] {
            assert_eq!(of(more), Some(true), "{more}");
        }
        for less in [
            "9e f7 ff ff 66 0f 1f 44 00 00 48 83 2b 01",
            "ca 08 f8 ff 4d 85 e4 74 0b 49 83 2c 24 01",
            "48 8b 07 85 c0 78 10 48 83 e8 01 48 89 07",
            "04 24 85 c0 78 0e 48 83 e8 01 49 89 04 24",
            "45 00 85 c0 78 14 48 83 e8 01 49 89 45 00",
            "90 90 90 49 ff 0c 24",
            "90 90 90 48 83 03 ff",
        ] {
            assert_eq!(of(less), Some(false), "{less}");
        }
        for neither in ["90 90 90 90", "00", "48 c7 07 00 00 00 00", "48 89 07"] {
            assert_eq!(of(neither), None, "{neither}");
        }
    }

    #[test]
    fn any_bytes_give_an_answer() {
        use rand::{Rng, SeedableRng};
        let mut random = rand::rngs::StdRng::seed_from_u64(3);
        for length in 0..=BEFORE {
            for _ in 0..5000 {
                let mut bytes = vec![0; length];
                random.fill_bytes(&mut bytes);
                let _ = adds(&bytes);
            }
        }
    }

    #[test]
    fn the_function_that_writes_decides() {
        // A process with a wrapper of 9 bytes at 0x1100 and two types.
        let memory = Bytes(std::collections::BTreeMap::from([
            (0x1100, b"\xf3\x0f\x1e\xfa\xe9\xf7\x03\x00\x00".to_vec()),
            (0x8000 + TP_DEALLOC, 0x3000_u64.to_le_bytes().to_vec()),
            (0x9000 + TP_DEALLOC, 0x4000_u64.to_le_bytes().to_vec()),
            (0x9000 + TP_GETSET, 0xa000_u64.to_le_bytes().to_vec()),
            (0xa000, [0xb000_u64, 1].map(u64::to_le_bytes).concat()),
            (0xa028, [0xb010_u64, 0x5000].map(u64::to_le_bytes).concat()),
            (0xb000, b"f_back\0".to_vec()),
            (0xb010, b"f_code\0".to_vec()),
        ]));
        let symbols: Vec<(u64, String)> = [
            (0x1000, "PyFunction_NewWithQualName"),
            (0x1100, "PyFunction_New"),
            (0x1200, "else"),
            (0x2000, "take_ownership.isra.0"),
            (0x8000, "PyFunction_Type"),
            (0x9000, "PyFrame_Type"),
        ]
        .map(|(address, name)| (address, name.to_string()))
        .to_vec();
        let starts = [
            0x1000, 0x1100, 0x1120, 0x1500, 0x2000, 0x3000, 0x4000, 0x5000, 0x5100,
        ];
        let mut writers = Writers::new(&memory, &symbols, &starts, FrameEnds::Apart);
        assert!(writers.knows_create && writers.knows_keep);
        let more = |_| Some(*b"\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90\x48\x83\x03\x01");
        let less = |_| Some(*b"\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90\x48\x83\x2b\x01");
        assert_eq!(writers.role(0x1030, more), Role::Create);
        assert_eq!(writers.role(0x1031, less), Role::Sub);
        assert_eq!(writers.role(0x1130, more), Role::Add);
        assert_eq!(writers.role(0x1230, more), Role::Add);
        assert_eq!(writers.role(0x1fff, more), Role::Create);
        assert_eq!(writers.role(0x2030, more), Role::Keep);
        assert_eq!(writers.role(0x3030, less), Role::FunctionEnd);
        assert_eq!(writers.role(0x4030, less), Role::FrameEnd);
        assert_eq!(writers.role(0x5030, more), Role::Read);
        assert_eq!(writers.role(0x9730, less), Role::Sub);
        assert_eq!(writers.role(0x9731, |_| None), Role::Unknown);
        assert_eq!(writers.role(0x10, more), Role::Add);
        let mut old = Writers::new(&memory, &symbols, &starts, FrameEnds::AsCalls);
        assert_eq!(old.role(0x4030, less), Role::Sub);
        // Without the table for unwinding, functions are not too long.
        let mut bare = Writers::new(&memory, &symbols, &[], FrameEnds::Apart);
        assert_eq!(bare.role(0x2030, more), Role::Keep);
        assert_eq!(bare.role(0x2fff, more), Role::Add);
    }

    struct Bytes(std::collections::BTreeMap<u64, Vec<u8>>);

    impl Memory for Bytes {
        fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Unreadable> {
            into.fill(0);
            let (start, bytes) = self
                .0
                .range(..=address)
                .next_back()
                .ok_or(Unreadable::Nowhere)?;
            let from = usize::try_from(address - start).map_err(|_| Unreadable::Nowhere)?;
            let bytes = bytes.get(from..).ok_or(Unreadable::Nowhere)?;
            let length = bytes.len().min(into.len());
            into[..length].copy_from_slice(&bytes[..length]);
            Ok(())
        }

        fn read_ranges(&self, _: &[Range], _: &mut [u8]) -> Result<usize, Unreadable> {
            Err(Unreadable::Nowhere)
        }
    }
}
