//! Which invocations two consecutive samples of a thread can tell apart.
//!
//! From the outside in, a frame is a new invocation when its function differs from the one seen before,
//! when the reader gives it another identity, when its caller is new, when its caller has moved to another line or
//! instruction meanwhile (a caller stands still while its callee runs), or when it has gone back to an earlier instruction without a loop that leads there. Calls that leave no such trace
//! between two samples count as one, so the count is a lower estimate for short calls.

use super::FrameSample;
use crate::profile::Tables;

/// The depth from which on `now` differs in invocation from `before` (0 for all of it); `None` when every
/// frame of `now` is the invocation that was there before. `leads` is that of the reader.
pub fn fresh_from(
    tables: &Tables,
    leads: &mut impl FnMut(u32, u32, u32) -> bool,
    before: &[FrameSample],
    now: &[FrameSample],
) -> Option<usize> {
    for (depth, frame) in now.iter().enumerate() {
        let Some(old) = before.get(depth) else {
            return Some(depth);
        };
        if frame.invocation != old.invocation {
            return Some(depth);
        }
        let has_callee = depth + 1 < now.len();
        if frame.frame == old.frame && frame.instruction == old.instruction {
            continue;
        }
        let (new_at, old_at) = (tables.get_frame(frame.frame), tables.get_frame(old.frame));
        if new_at.function != old_at.function {
            return Some(depth);
        }
        if frame.code == old.code && !leads(frame.code, old.instruction, frame.instruction) {
            return Some(depth);
        }
        // Same invocation at another place: it ran meanwhile, so what it had called has returned.
        return has_callee.then_some(depth + 1);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::FunctionKind;

    fn stack(tables: &mut Tables, text: &str) -> Vec<FrameSample> {
        text.split_whitespace()
            .map(|part| {
                let mut fields = part.split(':');
                let name = fields.next().unwrap_or_default();
                let line = fields.next().and_then(|l| l.parse().ok()).unwrap_or(0);
                let mut number = || fields.next().and_then(|i| i.parse().ok()).unwrap_or(0);
                let (invocation, instruction) = (number(), number() as u32);
                let function = tables.function("a.py", 1, name, FunctionKind::Python);
                FrameSample {
                    frame: tables.frame(function, line),
                    invocation,
                    instruction,
                    code: 1,
                    from_c: false,
                }
            })
            .collect()
    }

    #[test]
    fn evidence_is_found_from_the_outside_in() {
        let mut tables = Tables::default();
        let mut check = |before: &str, now: &str, expected| {
            let before = stack(&mut tables, before);
            let now = stack(&mut tables, now);
            let mut leads = |_, from, to| to >= from;
            let found = fresh_from(&tables, &mut leads, &before, &now);
            assert_eq!(found, expected);
        };
        check("", "main:1", Some(0));
        check("main:1 f:2", "main:1 f:2", None);
        check("main:1 f:2", "main:1 f:3", None);
        check("main:1 f:2", "main:1 g:2", Some(1));
        check("main:1 f:2", "main:2 f:2", Some(1));
        check("main:1 f:2", "main:1", None);
        check("main:1", "main:1 f:2", Some(1));
        check("main:1 f:2:7", "main:1 f:2:8", Some(1));
        check("main:1 f:2 g:3", "main:1 f:4 g:3", Some(2));
        // Back to where no loop leads.
        check("main:1 f:2:0:3", "main:1 f:2:0:7", None);
        check("main:1 f:2:0:7", "main:1 f:2:0:3", Some(1));
    }
}
