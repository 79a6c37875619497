//! Where a code object jumps back: what tells whether an instruction that was reached again means a new call, and
//! whether one invocation can execute an instruction twice.
//!
//! Up to 3.10 most jumps name their target, which may be ahead or behind. A jump to an exception's handler always goes
//! ahead. The end of a `finally` of 3.8 goes back to the instruction after the CALL_FINALLY that it was called by; as it
//! cannot be told for sure which end belongs to which `finally`, the last one of the code stands for all of them.

use super::{Flow, Opcodes};

/// Jumps back of one code object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shape {
    /// First and last unit of what jumps back can repeat, by rising unit: from a jump's target to its source, those that
    /// overlap in one. Whoever is in one of them can get anywhere in it.
    repeated: Vec<(u32, u32)>,
}

impl Shape {
    /// Joins `jumps`, targets with the last unit of their source.
    fn of(mut jumps: Vec<(u32, u32)>) -> Shape {
        jumps.sort_unstable();
        let mut repeated: Vec<(u32, u32)> = Vec::new();
        for (first, last) in jumps {
            match repeated.last_mut() {
                Some(before) if first <= before.1 => before.1 = before.1.max(last),
                _ => repeated.push((first, last)),
            }
        }
        Shape { repeated }
    }

    /// What can be repeated with a unit.
    fn around(&self, unit: u32) -> Option<(u32, u32)> {
        let after = self.repeated.partition_point(|(first, _)| *first <= unit);
        let found = *self.repeated.get(after.checked_sub(1)?)?;
        (unit <= found.1).then_some(found)
    }

    /// Whether one invocation can be at `to` after it was at `from`: ahead always, behind only by jumps back.
    /// `u32::MAX` stands for the place before the first instruction.
    pub fn leads(&self, from: u32, to: u32) -> bool {
        if from == u32::MAX || to == u32::MAX {
            return from == u32::MAX;
        }
        to >= from || self.around(from).is_some_and(|(first, _)| first <= to)
    }

    /// Whether one invocation can execute the instruction at `unit` a second time. `u32::MAX`, which also stands for a place
    /// that makes no sense, can be anywhere.
    pub fn repeats(&self, unit: u32) -> bool {
        unit == u32::MAX || self.around(unit).is_some()
    }
}

impl Opcodes {
    /// Finds the jumps back in `code`; `None` when it holds an opcode that is not known.
    pub fn shape(&self, code: &[u8]) -> Option<Shape> {
        let units = code.len() / 2;
        let mut jumps: Vec<(u32, u32)> = Vec::new();
        // Instructions after calls of a `finally`, with where that begins, and the last end of one.
        let mut returns: Vec<(u32, u32)> = Vec::new();
        let mut ends = None;
        let (mut unit, mut argument) = (0usize, 0u32);
        while unit < units {
            let (opcode, low) = (*code.get(2 * unit)?, *code.get(2 * unit + 1)?);
            let op = self.op(opcode)?;
            argument = (argument << 8) | u32::from(low);
            let next = unit + 1 + usize::from(op.caches);
            let last = next as u32 - 1;
            let distance = argument as usize / self.jump_unit;
            match op.flow {
                Flow::JumpBack | Flow::BranchBack => {
                    jumps.push((next.saturating_sub(distance) as u32, last));
                }
                Flow::JumpTo | Flow::BranchTo if distance <= unit => {
                    jumps.push((distance as u32, last));
                }
                Flow::Again => jumps.push((unit.saturating_sub(1) as u32, last)),
                Flow::CallFinally => {
                    returns.push((next as u32, next.saturating_add(distance) as u32));
                }
                Flow::EndFinally => ends = Some(last),
                _ => {}
            }
            if op.flow != Flow::Extend {
                argument = 0;
            }
            unit = next;
        }
        let finally = returns.into_iter().filter_map(|(next, begins)| {
            let last = ends.filter(|last| begins <= *last)?;
            (next <= last).then_some((next, last))
        });
        jumps.extend(finally);
        Some(Shape::of(jumps))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Opcodes, V3_8, V3_9, V3_10, V3_11, V3_12, V3_13, V3_14, V3_15};
    use super::Shape;

    fn shape(opcodes: Opcodes, code: &[u8]) -> Shape {
        opcodes.shape(code).expect("known opcodes")
    }

    /// The units that are repeated, of so many.
    fn repeated(shape: &Shape, units: u32) -> Vec<u32> {
        (0..units).filter(|unit| shape.repeats(*unit)).collect()
    }

    #[test]
    fn jumps_back_are_found() {
        // 3.12: RESUME, CALL with three caches, JUMP_BACKWARD to the CALL, POP_TOP.
        let code = [151, 0, 171, 0, 0, 0, 0, 0, 0, 0, 140, 5, 1, 0];
        let shape = shape(V3_12, &code);
        assert!(shape.leads(0, 5));
        assert!(shape.leads(5, 1));
        assert!(!shape.leads(6, 0));
        assert!(shape.leads(3, 2));
        assert!(!shape.leads(3, 0));
        assert!(shape.leads(u32::MAX, 0));
        assert!(!shape.leads(0, u32::MAX));
        assert_eq!(repeated(&shape, 8), [1, 2, 3, 4, 5]);
        assert!(shape.repeats(u32::MAX));
    }

    /// `i = 0; while i < n: f(i); i += 1`, then `return g(n)`, by the compilers of 3.8, 3.10 and 3.12.
    #[test]
    fn a_while_loop_is_a_loop_in_every_version() {
        let v3_8 = [
            100, 1, 125, 1, 124, 1, 124, 0, 107, 0, 114, 30, 116, 0, 124, 1, 131, 1, 1, 0, 124, 1,
            100, 2, 55, 0, 125, 1, 113, 4, 116, 1, 124, 0, 131, 1, 83, 0,
        ];
        for opcodes in [V3_8, V3_9] {
            let found = shape(opcodes, &v3_8);
            assert_eq!(repeated(&found, 19), (2..=14).collect::<Vec<_>>());
            // From the call of f to itself, in the next turn before it, and from that of g.
            assert!(found.leads(8, 8) && found.leads(12, 8) && found.leads(8, 4));
            assert!(!found.leads(17, 8) && !found.leads(8, 1));
        }
        let v3_10 = [
            100, 1, 125, 1, 124, 1, 124, 0, 107, 0, 114, 18, 116, 0, 124, 1, 131, 1, 1, 0, 124, 1,
            100, 2, 55, 0, 125, 1, 124, 1, 124, 0, 107, 0, 115, 6, 116, 1, 124, 0, 131, 1, 83, 0,
        ];
        let found = shape(V3_10, &v3_10);
        assert_eq!(repeated(&found, 22), (6..=17).collect::<Vec<_>>());
        assert!(found.leads(14, 8) && !found.leads(20, 8) && !found.leads(8, 4));
        let v3_12 = [
            151, 0, 100, 1, 125, 1, 124, 1, 124, 0, 107, 2, 0, 0, 114, 22, 116, 1, 0, 0, 0, 0, 0,
            0, 0, 0, 124, 1, 171, 1, 0, 0, 0, 0, 0, 0, 1, 0, 124, 1, 100, 2, 122, 13, 0, 0, 125, 1,
            124, 1, 124, 0, 107, 2, 0, 0, 114, 1, 140, 22, 116, 3, 0, 0, 0, 0, 0, 0, 0, 0, 124, 0,
            171, 1, 0, 0, 0, 0, 0, 0, 83, 0,
        ];
        let found = shape(V3_12, &v3_12);
        assert_eq!(repeated(&found, 41), (8..=29).collect::<Vec<_>>());
        assert!(found.leads(26, 14) && !found.leads(36, 14));
    }

    /// `while n: try: (if f(n): continue) finally: g(n)`, then `h(n)`: the `finally` goes back to the JUMP_ABSOLUTE at 9.
    #[test]
    fn a_finally_of_3_8_goes_back_to_where_it_was_called() {
        let code = [
            124, 0, 114, 36, 122, 18, 116, 1, 124, 0, 131, 1, 114, 20, 87, 0, 162, 6, 113, 0, 87,
            0, 53, 0, 116, 0, 124, 0, 131, 1, 1, 0, 88, 0, 113, 0, 116, 2, 124, 0, 131, 1, 1, 0,
            100, 0, 83, 0,
        ];
        let found = shape(V3_8, &code);
        assert!(found.leads(14, 9) && found.leads(14, 5));
        assert_eq!(repeated(&found, 24), (0..=17).collect::<Vec<_>>());
        // `try: return f(n)` with `finally: g(n)`: RETURN_VALUE at 6 comes after the `finally` at 7 to 11.
        let code = [
            122, 12, 116, 1, 124, 0, 131, 1, 87, 0, 162, 2, 83, 0, 116, 0, 124, 0, 131, 1, 1, 0,
            88, 0, 100, 0, 83, 0,
        ];
        let found = shape(V3_8, &code);
        assert!(found.leads(9, 6) && !found.leads(9, 3));
        assert!(!found.repeats(3) && !found.repeats(12));
    }

    /// `for x in n: try: f(x) except ValueError: g(x)`, then `h(n)`: a handler behind the loop jumps back into it.
    #[test]
    fn handlers_are_part_of_their_loop() {
        let v3_10 = [
            124, 0, 68, 0, 93, 21, 125, 1, 122, 6, 116, 0, 124, 1, 131, 1, 1, 0, 87, 0, 113, 2, 4,
            0, 116, 1, 121, 23, 1, 0, 1, 0, 1, 0, 116, 2, 124, 1, 131, 1, 1, 0, 89, 0, 113, 2, 119,
            0, 116, 3, 124, 0, 131, 1, 1, 0, 100, 0, 83, 0,
        ];
        let found = shape(V3_10, &v3_10);
        assert!(found.leads(19, 7) && !found.leads(26, 19));
        assert_eq!(repeated(&found, 30), (2..=22).collect::<Vec<_>>());
        let v3_12 = [
            151, 0, 124, 0, 68, 0, 93, 14, 0, 0, 125, 1, 9, 0, 116, 1, 0, 0, 0, 0, 0, 0, 0, 0, 124,
            1, 171, 1, 0, 0, 0, 0, 0, 0, 1, 0, 140, 16, 4, 0, 116, 7, 0, 0, 0, 0, 0, 0, 0, 0, 124,
            0, 171, 1, 0, 0, 0, 0, 0, 0, 1, 0, 121, 0, 35, 0, 116, 2, 0, 0, 0, 0, 0, 0, 0, 0, 36,
            0, 114, 14, 1, 0, 116, 5, 0, 0, 0, 0, 0, 0, 0, 0, 124, 1, 171, 1, 0, 0, 0, 0, 0, 0, 1,
            0, 89, 0, 140, 51, 119, 0, 120, 3, 89, 0, 119, 1,
        ];
        let found = shape(V3_12, &v3_12);
        assert!(found.leads(47, 13) && found.repeats(13) && found.repeats(47));
        assert!(!found.repeats(1) && !found.repeats(56));
    }

    /// `a(); yield from g; b()`: the frame stands before YIELD_FROM while it is suspended in it.
    #[test]
    fn what_is_yielded_from_is_resumed_again() {
        let code = [
            116, 0, 131, 0, 1, 0, 124, 0, 69, 0, 100, 0, 72, 0, 1, 0, 116, 1, 131, 0, 1, 0, 100, 0,
            83, 0,
        ];
        for opcodes in [V3_8, V3_9, V3_10] {
            let found = shape(opcodes, &code);
            assert_eq!(repeated(&found, 13), [5, 6]);
            assert!(found.leads(6, 5) && !found.leads(9, 6));
        }
    }

    #[test]
    fn any_bytes_are_walked_without_a_panic() {
        use rand::{Rng, SeedableRng};
        let mut random = rand::rngs::StdRng::seed_from_u64(5);
        let all = [V3_8, V3_9, V3_10, V3_11, V3_12, V3_13, V3_14, V3_15];
        for opcodes in all {
            for length in 0..200 {
                let mut code = vec![0u8; length];
                random.fill_bytes(&mut code);
                if let Some(shape) = opcodes.shape(&code) {
                    assert!(shape.leads(3, 9));
                    let _ = (shape.repeats(7), shape.leads(9, 3));
                }
            }
        }
    }
}
