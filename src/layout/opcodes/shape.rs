//! Where a code object calls and where it jumps back: what tells whether a frame that waits for a callee can be
//! where it is, and whether an instruction that was reached again means a new call.

use super::{CallKind, Flow, Opcodes};

/// Instructions of one code object, as far as calls are told apart by them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shape {
    /// First and last unit of each call with its inline caches, by rising unit.
    calls: Vec<(u32, u32)>,
    /// Source and target of each jump back.
    jumps_back: Vec<(u32, u32)>,
}

impl Shape {
    /// The first unit of the call that `unit` belongs to; `None` when it is part of no call.
    pub fn call_at(&self, unit: u32) -> Option<u32> {
        let after = self.calls.partition_point(|(start, _)| *start <= unit);
        let (start, last) = self.calls.get(after.checked_sub(1)?)?;
        (unit <= *last).then_some(*start)
    }

    /// Whether one invocation can be at `to` after it was at `from`: ahead always, behind only by jumps back from
    /// there or from further ahead. `u32::MAX` stands for the place before the first instruction.
    pub fn leads(&self, from: u32, to: u32) -> bool {
        if from == u32::MAX || to == u32::MAX {
            return from == u32::MAX;
        }
        let mut lowest = from;
        // Each round takes one more jump at least.
        for _ in 0..=self.jumps_back.len() {
            let ahead = |jump: &&(u32, u32)| jump.0 >= lowest;
            let Some(target) = self
                .jumps_back
                .iter()
                .filter(ahead)
                .map(|jump| jump.1)
                .min()
            else {
                break;
            };
            if target >= lowest || lowest <= to {
                break;
            }
            lowest = target;
        }
        lowest <= to
    }
}

impl Opcodes {
    /// Finds calls and jumps back in `code`; `None` when it holds an opcode that is not known.
    pub fn shape(&self, code: &[u8]) -> Option<Shape> {
        let units = code.len() / 2;
        let mut shape = Shape::default();
        let (mut unit, mut argument) = (0usize, 0u32);
        while unit < units {
            let (opcode, low) = (*code.get(2 * unit)?, *code.get(2 * unit + 1)?);
            let op = self.op(opcode)?;
            argument = (argument << 8) | u32::from(low);
            let next = unit + 1 + usize::from(op.caches);
            if op.call != CallKind::None {
                shape.calls.push((unit as u32, next as u32 - 1));
            }
            if matches!(op.flow, Flow::JumpBack | Flow::BranchBack) {
                let target = next.saturating_sub(argument as usize);
                shape.jumps_back.push((unit as u32, target as u32));
            }
            if op.flow != Flow::Extend {
                argument = 0;
            }
            unit = next;
        }
        Some(shape)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{V3_11, V3_12, V3_13, V3_14, V3_15};

    #[test]
    fn calls_and_loops_are_found() {
        // 3.12: RESUME, CALL with three caches, JUMP_BACKWARD to the CALL, POP_TOP.
        let code = [151, 0, 171, 0, 0, 0, 0, 0, 0, 0, 140, 5, 1, 0];
        let shape = V3_12.shape(&code).expect("known opcodes");
        assert_eq!(shape.call_at(0), None);
        assert_eq!(shape.call_at(1), Some(1));
        assert_eq!(shape.call_at(4), Some(1));
        assert_eq!(shape.call_at(5), None);
        assert!(shape.leads(0, 5));
        assert!(shape.leads(5, 1));
        assert!(!shape.leads(6, 0));
        assert!(shape.leads(3, 2));
        assert!(!shape.leads(3, 0));
        assert!(shape.leads(u32::MAX, 0));
        assert!(!shape.leads(0, u32::MAX));
    }

    #[test]
    fn any_bytes_are_walked_without_a_panic() {
        use rand::{RngCore, SeedableRng};
        let mut random = rand::rngs::StdRng::seed_from_u64(5);
        for opcodes in [V3_11, V3_12, V3_13, V3_14, V3_15] {
            for length in 0..200 {
                let mut code = vec![0u8; length];
                random.fill_bytes(&mut code);
                if let Some(shape) = opcodes.shape(&code) {
                    let _ = (shape.call_at(7), shape.leads(9, 3));
                }
            }
        }
    }
}
