//! Loops of a code object whose turns something counts (3.11 and newer): the iterator of a `for` loop, by its place on the
//! evaluation stack, or a local variable to which each turn adds the same number; and which calls every turn of a loop makes
//! exactly once, which are then counted too. And calls in no loop that every invocation makes exactly once, unless it
//! raises: there are as many of them as of invocations.
//!
//! Loops are natural ones: what leads back to the place that a jump back goes to, without passing it. A call is made
//! once a turn when no way through the body leaves it out. Loading a variable or an attribute is taken not to raise.

use super::{CallKind, Flow, Op, Opcodes, Protected};

/// Code of more units than that is not looked at.
const MOST_UNITS: usize = 1 << 15;

/// Most steps of the search in one code object; calls that are left by then are not told.
const MOST_STEPS: usize = 1 << 22;

/// Code of more loops, or with more protected pieces, is not looked at.
const MOST_LOOPS: usize = 256;
const MOST_PROTECTED: usize = 1024;

/// Arguments of BINARY_OP (Include/opcode.h, NB_ADD to NB_INPLACE_SUBTRACT).
const ADD: u32 = 0;
const SUBTRACT: u32 = 10;
const ADD_IN_PLACE: u32 = 13;
const SUBTRACT_IN_PLACE: u32 = 23;

/// What an instruction does to variables, as far as it is of use here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Loads null, or does nothing.
    Constant,
    /// Loads a constant of the code object by its index.
    LoadConstant,
    /// Loads its argument.
    LoadNumber,
    /// Replaces two values by what an operator makes of them.
    Binary,
    /// Moves or drops values.
    Discard,
    /// Loads a local variable.
    Local,
    /// Loads a variable of a cell.
    Cell,
    /// Loads a name.
    Name,
    /// Loads a name; bit 0 of the argument asks for a null.
    Global,
    /// Replaces an object by its attribute.
    Attribute,
    /// Loads two local variables.
    TwoLocals,
    /// Stores or deletes a local variable.
    StoreLocal,
    /// Stores a local variable and loads one.
    StoreLoad,
    /// Stores two local variables.
    StoreTwo,
    /// Stores or deletes a variable of a cell.
    StoreCell,
    /// Stores or deletes a name.
    StoreName,
    /// Takes the next value of an iterator.
    ForIter,
    /// Begins the call that the next instruction makes (3.11).
    Precall,
    /// Returns to the caller.
    Return,
    /// Makes a generator or coroutine of the frame.
    Generator,
}

/// What is around a loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outer {
    /// No loop.
    None,
    /// The loop at this position.
    Counted(usize),
    /// A loop whose turns nothing counts.
    Other,
}

/// What each turn adds to a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addend {
    /// This number.
    Number(i64),
    /// The constant of the code object at this index, or its negative.
    Constant {
        /// In `co_consts`.
        index: u32,
        /// Whether it is subtracted.
        negative: bool,
    },
}

/// A local variable to which each turn of a loop adds the same number, and which it does not assign otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counter {
    /// Index of the variable.
    pub local: u32,
    /// What is added.
    pub adds: Addend,
}

/// A loop whose turns something counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CountedLoop {
    /// First unit that a turn begins with: in a `for` loop, of the instruction that takes the next value.
    pub head: u32,
    /// Place of the iterator, counted from the bottom of the evaluation stack; `None` for a `while` loop.
    pub slot: Option<u32>,
    /// A variable that counts, if there is one.
    pub counter: Option<Counter>,
    /// What is around it in the same code object.
    pub outer: Outer,
    /// Whether there is a call that every turn makes once.
    pub counts: bool,
}

/// A call in the body of a loop and in no loop within, or in no loop at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Site {
    /// First unit and the one after the last inline cache.
    pub first: u32,
    /// See `first`.
    pub end: u32,
    /// Position of the loop.
    pub of: Option<usize>,
    /// Whether every turn, or every invocation that returns, makes it exactly once.
    pub once: bool,
    /// Whether what is called is the same each time, unless somebody else assigns it.
    pub steady: bool,
}

/// The loops of one code object whose turns something counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loops {
    /// The loops.
    pub loops: Vec<CountedLoop>,
    /// By rising unit.
    sites: Vec<Site>,
    /// By unit: the innermost loop, if that is one of those, plus 1. Empty where there is none.
    inside: Vec<u16>,
}

impl Loops {
    /// The loop in whose body a unit is, and in no loop within.
    pub fn at(&self, unit: u32) -> Option<usize> {
        let found = *self.inside.get(unit as usize)?;
        usize::from(found).checked_sub(1)
    }

    /// The call that a unit is part of.
    pub fn site(&self, unit: u32) -> Option<Site> {
        let after = self.sites.partition_point(|site| site.first <= unit);
        let site = self.sites.get(after.checked_sub(1)?)?;
        (unit < site.end).then_some(*site)
    }
}

/// An instruction with what extends it.
struct Step {
    first: usize,
    next: usize,
    op: Op,
    role: Option<Role>,
    argument: u32,
    depth: i64,
}

impl Step {
    /// The local variables that it stores or deletes.
    fn stored(&self) -> [Option<u32>; 2] {
        match self.role {
            Some(Role::StoreLocal) => [Some(self.argument), None],
            Some(Role::StoreLoad) => [Some(self.argument >> 4), None],
            Some(Role::StoreTwo) => [Some(self.argument >> 4), Some(self.argument & 15)],
            _ => [None, None],
        }
    }

    /// The local variable that it loads, if it loads one.
    fn loaded(&self) -> Option<u32> {
        match self.role {
            Some(Role::Local) => Some(self.argument),
            Some(Role::StoreLoad) => Some(self.argument & 15),
            _ => None,
        }
    }
}

/// Instructions and the ways between them, by position.
struct Graph {
    steps: Vec<Step>,
    ahead: Vec<Vec<u32>>,
    behind: Vec<Vec<u32>>,
}

impl Graph {
    fn new(
        opcodes: &Opcodes,
        code: &[u8],
        protected: &[Protected],
        depths: &[i64],
    ) -> Option<Graph> {
        let units = code.len() / 2;
        let mut steps = Vec::new();
        let mut position = vec![u32::MAX; units];
        let (mut unit, mut first, mut argument) = (0, 0, 0u32);
        while unit < units {
            let (opcode, low) = (*code.get(2 * unit)?, *code.get(2 * unit + 1)?);
            let op = opcodes.op(opcode)?;
            argument = (argument << 8) | u32::from(low);
            let next = unit + 1 + usize::from(op.caches);
            if op.flow != Flow::Extend {
                *position.get_mut(first)? = steps.len() as u32;
                steps.push(Step {
                    first,
                    next,
                    op,
                    role: opcodes.role(op.code),
                    argument,
                    depth: *depths.get(first)?,
                });
                (first, argument) = (next, 0);
            }
            unit = next;
        }
        let mut graph = Graph {
            ahead: vec![Vec::new(); steps.len()],
            behind: vec![Vec::new(); steps.len()],
            steps,
        };
        for at in 0..graph.steps.len() {
            let step = graph.steps.get(at)?;
            let distance = step.argument as usize;
            let jump = match step.op.flow {
                Flow::Jump | Flow::Branch => step.next.checked_add(distance),
                Flow::JumpBack | Flow::BranchBack => step.next.checked_sub(distance),
                _ => None,
            };
            let goes_on = !matches!(step.op.flow, Flow::Stop | Flow::Jump | Flow::JumpBack);
            // Nothing but a load is sure not to raise.
            let raises = matches!(step.role, None | Some(Role::ForIter | Role::Binary));
            let handler = protected.iter().find(|entry| entry.has(step.first));
            let handler = handler.filter(|_| raises).map(|entry| entry.target);
            let targets = [goes_on.then_some(step.next), jump, handler];
            for target in targets.into_iter().flatten() {
                let Some(&to) = position.get(target).filter(|to| **to != u32::MAX) else {
                    continue;
                };
                graph.ahead.get_mut(at)?.push(to);
                graph.behind.get_mut(to as usize)?.push(at as u32);
            }
        }
        Some(graph)
    }

    /// Everything that leads to one of `sources` without passing `head`, with `head`.
    fn body(&self, head: u32, sources: &[u32]) -> Vec<bool> {
        let mut body = vec![false; self.steps.len()];
        let mut open: Vec<u32> = sources.to_vec();
        if let Some(place) = body.get_mut(head as usize) {
            *place = true;
        }
        while let Some(at) = open.pop() {
            let Some(place) = body.get_mut(at as usize).filter(|place| !**place) else {
                continue;
            };
            *place = true;
            open.extend(self.behind.get(at as usize).into_iter().flatten());
        }
        body
    }

    /// A local variable to which every turn of `natural` adds the same number once, and which nothing else in it assigns.
    /// `inner`: loops that may be within.
    fn counter(&self, natural: &Natural, inner: &[Natural], budget: &mut usize) -> Option<Counter> {
        let inside = |at: &usize| natural.has(*at);
        (0..self.steps.len()).filter(inside).find_map(|at| {
            let counter = self.addition(at)?;
            let stores = (0..self.steps.len())
                .filter(inside)
                .filter_map(|at| self.steps.get(at))
                .flat_map(Step::stored)
                .filter(|stored| *stored == Some(counter.local));
            let is_within = inner.iter().any(|within| within.has(at));
            *budget = budget.saturating_sub(self.steps.len());
            let every_turn = stores.take(2).count() == 1
                && !is_within
                && !self.can_miss(Some(natural), u32::try_from(at).ok()?, budget);
            every_turn.then_some(counter)
        })
    }

    /// What the instruction at `at` counts, if it is the last one of `variable += number`, or of the like.
    fn addition(&self, at: usize) -> Option<Counter> {
        let first = at.checked_sub(3)?;
        let [load, number, add, store] = self.steps.get(first..=at)? else {
            return None;
        };
        let local = match store.role {
            Some(Role::StoreLocal) => store.argument,
            Some(Role::StoreLoad) => store.argument >> 4,
            _ => return None,
        };
        let negative = match (add.role, add.argument) {
            (Some(Role::Binary), ADD | ADD_IN_PLACE) => false,
            (Some(Role::Binary), SUBTRACT | SUBTRACT_IN_PLACE) => true,
            _ => return None,
        };
        let adds = match number.role {
            Some(Role::LoadConstant) => Addend::Constant {
                index: number.argument,
                negative,
            },
            Some(Role::LoadNumber) => {
                let number = i64::from(number.argument);
                Addend::Number(if negative { -number } else { number })
            }
            _ => return None,
        };
        // Nothing else leads into the middle of it.
        let ways = self.behind.get(first + 1..=at)?;
        let straight = ways.iter().all(|ways| ways.len() == 1);
        (straight && load.loaded() == Some(local)).then_some(Counter { local, adds })
    }

    /// Whether a turn from the head of a loop back to it can leave out `call`; without a loop, whether an invocation can return.
    fn can_miss(&self, natural: Option<&Natural>, call: u32, budget: &mut usize) -> bool {
        let mut seen = vec![false; self.steps.len()];
        let mut open = match natural {
            Some(natural) => self.ahead.get(natural.head as usize).cloned(),
            None => Some(vec![0]),
        }
        .unwrap_or_default();
        while let Some(at) = open.pop() {
            *budget = budget.saturating_sub(1);
            let role = self.steps.get(at as usize).and_then(|step| step.role);
            let is_end = match natural {
                Some(natural) => at == natural.head,
                None => role == Some(Role::Return),
            };
            if is_end || *budget == 0 {
                return true;
            }
            let inside = natural.is_none_or(|natural| natural.has(at as usize));
            let Some(seen) = seen.get_mut(at as usize).filter(|seen| !**seen) else {
                continue;
            };
            *seen = true;
            if at != call && inside {
                open.extend(self.ahead.get(at as usize).into_iter().flatten());
            }
        }
        false
    }
}

/// A natural loop.
struct Natural {
    head: u32,
    body: Vec<bool>,
    size: usize,
    /// Place of its iterator, if it is a `for` loop.
    slot: Option<u32>,
    /// Position among the loops whose turns something counts.
    counted: Option<usize>,
}

impl Natural {
    fn has(&self, at: usize) -> bool {
        self.body.get(at) == Some(&true)
    }
}

impl Opcodes {
    /// Finds the loops of a code object, as [`Opcodes::calls`] takes it. `None` when the walk does not fit the code, when
    /// it is too long, and for versions up to 3.10.
    pub fn loops(&self, code: &[u8], exceptions: &[u8], stack_size: u32) -> Option<Loops> {
        if self.roles.is_empty() || code.len() / 2 > MOST_UNITS {
            return None;
        }
        let protected = super::exception_table(exceptions);
        if protected.len() > MOST_PROTECTED {
            return None;
        }
        let (_, depths) = self.walk(code, &protected, stack_size)?;
        let graph = Graph::new(self, code, &protected, &depths)?;
        let mut found = Loops::default();
        let mut naturals = self.naturals(&graph)?;
        // The innermost first.
        naturals.sort_by_key(|natural| natural.size);
        let mut budget = MOST_STEPS;
        for at in 0..naturals.len() {
            let (inner, natural) = naturals
                .get(..=at)?
                .split_last()
                .map(|(own, inner)| (inner, own))?;
            let counter = graph.counter(natural, inner, &mut budget);
            let head = graph.steps.get(natural.head as usize)?.first as u32;
            let slot = natural.slot;
            if slot.is_some() || counter.is_some() {
                found.loops.push(CountedLoop {
                    head,
                    slot,
                    counter,
                    outer: Outer::Other,
                    counts: false,
                });
                naturals.get_mut(at)?.counted = Some(found.loops.len() - 1);
            }
        }
        for at in 0..naturals.len() {
            let natural = naturals.get(at)?;
            let head = natural.head as usize;
            let around = naturals.get(at + 1..)?.iter().find(|outer| outer.has(head));
            if let Some(of) = natural.counted.and_then(|of| found.loops.get_mut(of)) {
                of.outer = match around.map(|outer| outer.counted) {
                    None => Outer::None,
                    Some(None) => Outer::Other,
                    Some(Some(outer)) => Outer::Counted(outer),
                };
            }
        }
        self.add_sites(&graph, &naturals, &mut found, code.len() / 2);
        Some(found)
    }

    /// Finds the calls, and the loop of each unit.
    fn add_sites(&self, graph: &Graph, naturals: &[Natural], found: &mut Loops, units: usize) {
        found.inside = vec![0; units];
        let is_generator = |step: &Step| step.role == Some(Role::Generator);
        let is_plain = !graph.steps.iter().any(is_generator);
        let mut budget = MOST_STEPS;
        for (at, step) in graph.steps.iter().enumerate() {
            let innermost = naturals.iter().find(|natural| natural.has(at));
            let of = innermost.and_then(|natural| natural.counted);
            if let Some(of) = of {
                let places = found.inside.get_mut(step.first..step.next);
                places
                    .into_iter()
                    .flatten()
                    .for_each(|place| *place = u16::try_from(of + 1).unwrap_or(0));
            }
            let is_told = of.is_some() || (innermost.is_none() && is_plain);
            if step.op.call == CallKind::None || !is_told {
                continue;
            }
            // The two instructions of one call.
            let begun = found.sites.last_mut().filter(|last| {
                let before = at.checked_sub(1).and_then(|before| graph.steps.get(before));
                last.end == step.first as u32
                    && before.is_some_and(|before| before.role == Some(Role::Precall))
            });
            if let Some(site) = begun {
                site.end = step.next as u32;
                continue;
            }
            budget = budget.saturating_sub(graph.steps.len());
            let once = !graph.can_miss(innermost, at as u32, &mut budget);
            if let Some(counted) = of.and_then(|of| found.loops.get_mut(of)) {
                counted.counts |= once;
            }
            found.sites.push(Site {
                first: step.first as u32,
                end: step.next as u32,
                of,
                once,
                steady: budget > 0 && self.is_steady(graph, innermost, at),
            });
        }
    }

    /// The loops of any kind.
    fn naturals(&self, graph: &Graph) -> Option<Vec<Natural>> {
        let mut sources: std::collections::BTreeMap<u32, Vec<u32>> = Default::default();
        for (at, step) in graph.steps.iter().enumerate() {
            if matches!(step.op.flow, Flow::JumpBack | Flow::BranchBack) {
                let targets = graph.ahead.get(at).into_iter().flatten();
                for target in targets.filter(|target| **target <= at as u32) {
                    sources.entry(*target).or_default().push(at as u32);
                }
            }
        }
        if sources.len() > MOST_LOOPS {
            return None;
        }
        let mut naturals = Vec::new();
        for (head, sources) in sources {
            let body = graph.body(head, &sources);
            let slot = graph.steps.get(head as usize).and_then(|step| {
                let slot = step.depth.checked_sub(i64::from(self.for_values))?;
                let is_for = step.role == Some(Role::ForIter);
                u32::try_from(slot).ok().filter(|_| is_for)
            });
            naturals.push(Natural {
                head,
                size: body.iter().filter(|inside| **inside).count(),
                body,
                slot,
                counted: None,
            });
        }
        Some(naturals)
    }

    /// Whether what the call at `call` calls comes from names that the loop does not assign; without a loop, that nothing in the
    /// code object assigns and that are no arguments.
    fn is_steady(&self, graph: &Graph, natural: Option<&Natural>, call: usize) -> bool {
        let Some(step) = graph.steps.get(call) else {
            return false;
        };
        let arguments = i64::from(step.argument);
        let below = match step.op.call {
            CallKind::Positional => arguments + 2,
            CallKind::Keywords => arguments + 3,
            CallKind::None | CallKind::Method | CallKind::Unpacked => return false,
        };
        let base = step.depth - below;
        // Arguments lie above the callable, and what it consists of comes before them.
        let is_part = |step: &Step| step.depth < base + 2;
        let before = graph
            .steps
            .get(..call)
            .unwrap_or_default()
            .iter()
            .enumerate();
        for (at, step) in before.rev().skip_while(|(_, step)| !is_part(step)) {
            // Where ways meet, either may have loaded it.
            let meets = graph.behind.get(at + 1).is_none_or(|ways| ways.len() > 1);
            if step.depth < 0 || meets || !self.is_unchanged(graph, natural, step) {
                return false;
            }
            if step.depth <= base || step.role == Some(Role::StoreLoad) {
                return true;
            }
        }
        false
    }

    /// Whether an instruction loads what the loop does not store.
    fn is_unchanged(&self, graph: &Graph, natural: Option<&Natural>, load: &Step) -> bool {
        let stores = graph.steps.iter().enumerate();
        let inside = |at: usize| natural.is_none_or(|natural| natural.has(at));
        let stores = stores.filter(|(at, _)| inside(*at)).map(|(_, step)| step);
        let index = load.argument;
        let mut locals = stores.clone().flat_map(Step::stored);
        let others = |role: Role, index: u32| {
            !stores
                .clone()
                .any(|step| step.role == Some(role) && step.argument == index)
        };
        match load.role {
            Some(Role::Constant | Role::LoadConstant | Role::LoadNumber | Role::Attribute) => true,
            // What an invocation calls by an argument, the next one may not.
            Some(Role::Local | Role::StoreLoad) if natural.is_none() => false,
            Some(Role::Local) => !locals.any(|stored| stored == Some(index)),
            Some(Role::StoreLoad) => !locals.any(|stored| stored == Some(index & 15)),
            Some(Role::Cell) => others(Role::StoreCell, index),
            Some(Role::Name) => others(Role::StoreName, index),
            Some(Role::Global) => others(Role::StoreName, index >> 1),
            _ => false,
        }
    }
}
