//! Which value of a frame's evaluation stack is the callable of the call that it is in: depths of the stack by
//! instruction, from a walk along the bytecode (3.8 to 3.15).
//!
//! `dis` is wrong in two places: 3.11 pops nothing at PRECALL and everything at CALL, and RETURN_GENERATOR of 3.11
//! and 3.12 pushes one value. Exception handlers start one value (two with `lasti`) above their entry's depth
//! (Objects/exception_handling_notes.txt of 3.11), up to 3.10 six values above that of their SETUP instruction.
//! 3.8 has one copy of the body of a `finally`, which starts at another depth for each way into it
//! (Python/ceval.c, BEGIN_FINALLY); the walk takes that of the end of the `try`, else that of a `return` in it.

use std::collections::BTreeMap;

mod original;
mod shape;
mod v3_10;
mod v3_11;
mod v3_12;
mod v3_13;
mod v3_14;
mod v3_15;
mod v3_8;
mod v3_9;

pub use original::{Instrumented, LineEntry, Monitored};
pub use shape::Shape;

/// Effect on the stack's depth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Always this.
    Fixed(i8),
    /// This and so much for each of the argument.
    PerArgument(i8, i8),
    /// This and so much more if the argument is odd.
    LowBit(i8, i8),
    /// BUILD_SLICE with two or three values.
    BuildSlice,
    /// FORMAT_VALUE with or without a format.
    FormatValue,
    /// MAKE_FUNCTION with up to four parts by bits.
    MakeFunction,
    /// The same with a name on top (up to 3.10).
    MakeFunctionNamed,
    /// UNPACK_EX: values before and after the starred one.
    UnpackEx,
}

/// Where execution goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// At the next instruction.
    Next,
    /// Nowhere.
    Stop,
    /// Somewhere ahead.
    Jump,
    /// Somewhere behind.
    JumpBack,
    /// At the next instruction or ahead.
    Branch,
    /// At the next instruction or behind.
    BranchBack,
    /// At a place that is counted from the start of the code.
    JumpTo,
    /// At the next instruction or at such a place.
    BranchTo,
    /// At the next instruction, and ahead when something is raised.
    Handler,
    /// The body of a `finally` ahead, then the next instruction (3.8).
    CallFinally,
    /// At the next instruction, unless the `finally` was for an exception (3.8).
    EndFinally,
    /// At the next instruction, and once more at this one each time that the frame is resumed (`YIELD_FROM` up to 3.10,
    /// which moves the frame's instruction back when it yields).
    Again,
    /// The next instruction's argument is longer.
    Extend,
}

/// How an instruction calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallKind {
    /// It does not.
    None,
    /// With as many values as the argument says.
    Positional,
    /// The same, of an attribute: with method and self, or null and the callable, below (up to 3.10).
    Method,
    /// As positional, and names of the last ones on top.
    Keywords,
    /// `f(*a, **b)`.
    Unpacked,
}

/// An opcode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Op {
    code: u8,
    caches: u8,
    effect: Effect,
    effect_jumping: Effect,
    flow: Flow,
    call: CallKind,
}

const fn op(
    code: u8,
    caches: u8,
    effect: Effect,
    effect_jumping: Effect,
    flow: Flow,
    call: CallKind,
) -> Op {
    Op {
        code,
        caches,
        effect,
        effect_jumping,
        flow,
        call,
    }
}

/// Where the callable is below the arguments of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Callable {
    /// Method and self, or null and the callable (3.11, 3.12).
    OrMethodBelow,
    /// The callable, then self or null (3.13 and newer).
    BelowSelfOrNull,
    /// The callable alone (up to 3.10).
    BelowArguments,
}

/// The opcodes of a version.
#[derive(Debug, Clone, Copy)]
pub struct Opcodes {
    base: &'static [u8; 256],
    ops: &'static [Op],
    callable: Callable,
    /// How far below the top the callable of `f(*a, **b)` is, for an even and an odd argument.
    unpacked: [u32; 2],
    /// What a jump's argument counts: bytes of a unit or units.
    jump_unit: usize,
    /// Opcodes that stand for any other one (3.12 and newer).
    instrumented: Option<Instrumented>,
}

/// No opcode stands for another one.
static IDENTITY: [u8; 256] = {
    let mut base = [0; 256];
    let mut code = 0;
    while code < base.len() {
        base[code] = code as u8;
        code += 1;
    }
    base
};

impl PartialEq for Opcodes {
    fn eq(&self, other: &Opcodes) -> bool {
        std::ptr::eq(self.ops, other.ops)
    }
}

impl Eq for Opcodes {}

/// 3.8.
pub const V3_8: Opcodes = v3_8::OPCODES;
/// 3.9.
pub const V3_9: Opcodes = v3_9::OPCODES;
/// 3.10.
pub const V3_10: Opcodes = v3_10::OPCODES;
/// 3.11.
pub const V3_11: Opcodes = v3_11::OPCODES;
/// 3.12.
pub const V3_12: Opcodes = v3_12::OPCODES;
/// 3.13.
pub const V3_13: Opcodes = v3_13::OPCODES;
/// 3.14.
pub const V3_14: Opcodes = v3_14::OPCODES;
/// 3.15.
pub const V3_15: Opcodes = v3_15::OPCODES;

/// A call that a frame may be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Depth of the stack before the call.
    pub depth: u32,
    /// The instruction's argument.
    pub argument: u32,
    /// How it calls.
    pub kind: CallKind,
}

/// The calls of one code object by unit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Calls {
    /// By rising unit; each counts for its inline caches too.
    calls: Vec<(u32, u32, Call)>,
}

impl Calls {
    /// The call at `unit`, which may be one of its inline caches.
    pub fn at(&self, unit: u32) -> Option<Call> {
        let after = self.calls.partition_point(|(start, ..)| *start <= unit);
        let (_, end, call) = self.calls.get(after.checked_sub(1)?)?;
        (unit < *end).then_some(*call)
    }
}

impl Effect {
    fn of(self, argument: u32) -> i64 {
        let argument = i64::from(argument);
        match self {
            Effect::Fixed(effect) => i64::from(effect),
            Effect::PerArgument(base, each) => i64::from(base) + i64::from(each) * argument,
            Effect::LowBit(base, more) => i64::from(base) + i64::from(more) * (argument & 1),
            Effect::BuildSlice => -1 - i64::from(argument == 3),
            Effect::FormatValue => -i64::from(argument & 4 == 4),
            Effect::MakeFunction => -i64::from((argument & 15).count_ones()),
            Effect::MakeFunctionNamed => -1 - i64::from((argument & 15).count_ones()),
            Effect::UnpackEx => (argument & 0xff) + (argument >> 8),
        }
    }
}

impl Opcodes {
    /// The places of the evaluation stack in which the callable may be: the first one that is not null has it.
    pub fn slots(&self, call: Call) -> [Option<u32>; 2] {
        let below = |values: u32| call.depth.checked_sub(values);
        let arguments = call.argument;
        match (call.kind, self.callable) {
            (CallKind::None, _) => [None, None],
            (CallKind::Unpacked, _) => {
                let [even, odd] = self.unpacked;
                [below(if arguments & 1 == 1 { odd } else { even }), None]
            }
            (CallKind::Method, _) | (_, Callable::OrMethodBelow) => [
                below(arguments.saturating_add(2)),
                below(arguments.saturating_add(1)),
            ],
            (CallKind::Positional, Callable::BelowArguments) => {
                [below(arguments.saturating_add(1)), None]
            }
            (CallKind::Keywords, Callable::BelowArguments) => {
                [below(arguments.saturating_add(2)), None]
            }
            (CallKind::Positional, _) => [below(arguments.saturating_add(2)), None],
            (CallKind::Keywords, _) => [below(arguments.saturating_add(3)), None],
        }
    }

    /// Finds the calls of a code object. `stack_size` is `co_stacksize`; `None` when the walk does not fit the
    /// code (instrumented beyond recognition, or no code at all).
    pub fn calls(&self, code: &[u8], exceptions: &[u8], stack_size: u32) -> Option<Calls> {
        let (calls, _) = self.walk(code, exceptions, stack_size)?;
        Some(calls)
    }

    /// Values on the evaluation stack before the instruction that `unit` is part of; `None` where that cannot be told.
    pub fn depth(
        &self,
        code: &[u8],
        exceptions: &[u8],
        stack_size: u32,
        unit: usize,
    ) -> Option<u32> {
        let (_, depths) = self.walk(code, exceptions, stack_size)?;
        // Inline caches follow their instruction.
        let caches = self.ops.iter().map(|op| usize::from(op.caches)).max()?;
        let before = depths.get(..=unit)?.iter().rev().take(caches + 1);
        before.copied().find_map(|depth| u32::try_from(depth).ok())
    }

    /// The opcode that a number in the code stands for.
    fn op(&self, code: u8) -> Option<Op> {
        let base = *self.base.get(usize::from(code))?;
        let at = self.ops.binary_search_by_key(&base, |op| op.code).ok()?;
        self.ops.get(at).copied()
    }

    /// The calls, and the depth of the stack before each unit where an instruction starts; -1 where it is not reached.
    fn walk(&self, code: &[u8], exceptions: &[u8], stack_size: u32) -> Option<(Calls, Vec<i64>)> {
        let units = code.len() / 2;
        let mut index = [None; 256];
        for op in self.ops {
            index[usize::from(op.code)] = Some(*op);
        }
        let mut depths = vec![-1i64; units];
        let mut calls = Vec::new();
        let mut places = Places::new(exception_table(exceptions));
        while let Some((mut unit, mut depth)) = places.next() {
            let (mut argument, mut first) = (0u32, unit);
            while unit < units && depths[unit] < 0 {
                if !(0..=i64::from(stack_size) + 1).contains(&depth) {
                    if places.is_unsure {
                        break;
                    }
                    return None;
                }
                depths[unit] = depth;
                let (opcode, low) = (code[2 * unit], code[2 * unit + 1]);
                let op = index[usize::from(self.base[usize::from(opcode)])]?;
                argument = (argument << 8) | u32::from(low);
                let next = unit + 1 + usize::from(op.caches);
                if op.flow == Flow::Extend {
                    unit = next;
                    continue;
                }
                if op.call != CallKind::None {
                    let call = Call {
                        depth: u32::try_from(depth).ok()?,
                        argument,
                        kind: op.call,
                    };
                    // Up to 3.10 the instruction that a frame stores is the first one that extends it.
                    calls.push((first as u32, next as u32, call));
                }
                let distance = argument as usize / self.jump_unit;
                let depth_jumping = depth + op.effect_jumping.of(argument);
                depth += op.effect.of(argument);
                match op.flow {
                    Flow::Jump | Flow::Branch => {
                        places.add(next.checked_add(distance), depth_jumping)
                    }
                    Flow::JumpBack | Flow::BranchBack => {
                        places.add(next.checked_sub(distance), depth_jumping);
                    }
                    Flow::JumpTo | Flow::BranchTo => places.add(Some(distance), depth_jumping),
                    Flow::Handler => places
                        .handlers
                        .push((next.saturating_add(distance), depth_jumping)),
                    Flow::CallFinally => {
                        places
                            .called
                            .insert(next.saturating_add(distance), depth_jumping);
                    }
                    Flow::EndFinally => places.late.push((next, depth)),
                    Flow::Next | Flow::Again | Flow::Stop | Flow::Extend => {}
                }
                match op.flow {
                    Flow::Stop | Flow::Jump | Flow::JumpBack | Flow::JumpTo | Flow::EndFinally => {
                        break;
                    }
                    _ => {}
                }
                argument = 0;
                unit = next;
                first = next;
            }
        }
        calls.sort_unstable_by_key(|(start, ..)| *start);
        Some((Calls { calls }, depths))
    }
}

/// A unit at which the walk has to go on, and the depth there.
type Place = (usize, i64);

/// Where the walk has to go on, the surest depths first.
#[derive(Default)]
struct Places {
    reached: Vec<Place>,
    handlers: Vec<Place>,
    /// Depths of handlers that are called as `finally` too.
    called: BTreeMap<usize, i64>,
    /// What follows the end of a handler, or of a `finally`.
    late: Vec<Place>,
    /// Whether it came to those: code that is reached from nowhere else may be never reached.
    is_unsure: bool,
}

impl Places {
    fn new(handlers: Vec<Place>) -> Places {
        Places {
            reached: vec![(0, 0)],
            handlers,
            ..Places::default()
        }
    }

    fn add(&mut self, unit: Option<usize>, depth: i64) {
        self.reached.extend(unit.map(|unit| (unit, depth)));
    }

    fn next(&mut self) -> Option<Place> {
        if let Some(place) = self.reached.pop() {
            return Some(place);
        }
        if let Some(place) = self.handlers.pop() {
            let depth = self.called.get(&place.0).copied();
            return Some((place.0, depth.unwrap_or(place.1)));
        }
        self.called.pop_first().or_else(|| {
            self.is_unsure = true;
            self.late.pop()
        })
    }
}

/// Entries of start, length, target and depth with `lasti` in bit 0, each a number of six bits a byte, highest
/// first; the first byte of an entry has its highest bit set. In units; gives where the handlers start.
fn exception_table(table: &[u8]) -> Vec<Place> {
    let mut rest = table;
    let mut number = || {
        let mut value = 0u64;
        loop {
            let (&byte, tail) = rest.split_first()?;
            rest = tail;
            value = (value << 6 | u64::from(byte & 63)) & 0xffff_ffff;
            if byte & 64 == 0 {
                return Some(value);
            }
        }
    };
    let mut handlers = Vec::new();
    while let (Some(_), Some(_), Some(target), Some(depth)) =
        (number(), number(), number(), number())
    {
        let depth = (depth >> 1) as i64 + 1 + (depth & 1) as i64;
        handlers.push((target as usize, depth));
    }
    handlers
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Opcodes; 8] = [V3_8, V3_9, V3_10, V3_11, V3_12, V3_13, V3_14, V3_15];

    #[test]
    fn any_bytes_are_walked_without_a_panic() {
        use rand::{Rng, SeedableRng};
        let mut random = rand::rngs::StdRng::seed_from_u64(3);
        for opcodes in ALL {
            for length in 0..200 {
                let mut code = vec![0u8; length];
                let mut table = vec![0u8; length];
                random.fill_bytes(&mut code);
                random.fill_bytes(&mut table);
                if let Some(calls) = opcodes.calls(&code, &table, 10) {
                    let _ = calls.at(7);
                }
            }
        }
    }

    #[test]
    fn every_opcode_has_a_row_of_its_own() {
        for opcodes in ALL {
            assert!(
                opcodes
                    .ops
                    .windows(2)
                    .all(|pair| pair[0].code < pair[1].code)
            );
            for base in opcodes.base.iter().filter(|base| **base != 0) {
                if std::ptr::eq(opcodes.base, &IDENTITY) {
                    continue;
                }
                assert!(opcodes.ops.iter().any(|op| op.code == *base));
            }
        }
    }
}
