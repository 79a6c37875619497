//! Which invocations two consecutive samples of a thread can tell apart.
//!
//! From the outside in, a frame is a new invocation when its function differs from the one seen before,
//! when the reader gives it another identity, when its caller is new, when its caller has moved to another line or
//! instruction meanwhile (a caller stands still while its callee runs), or when it has gone back to an earlier instruction without a loop that leads there. Calls that leave no such trace
//! between two samples count as one, so the count is a lower estimate for short calls.
//!
//! What is counted never exceeds the truth. Samples are compared only with those of the same outermost frame ([`Roots`]): for
//! a moment a thread may show nothing, or only a part of its stack such as a generator that is being resumed, and what
//! is there again after that is not new. A generator or coroutine is called each time that it is resumed, as profilers of
//! Python count.

use rustc_hash::FxHashSet;

use super::FrameSample;
use crate::profile::{FunctionId, Tables};

/// Most outermost frames of a thread that are remembered.
const MOST_ROOTS: usize = 8;

/// The last sample of a thread for each outermost frame but that of its last sample.
#[derive(Debug, Clone, Default)]
pub struct Roots {
    /// The oldest first; none is empty.
    others: Vec<Vec<FrameSample>>,
    /// Whether some are not remembered: then one that is not known need not be new.
    forgot: bool,
}

impl Roots {
    /// Nothing is known of what there was.
    pub fn forgotten() -> Roots {
        Roots {
            others: Vec::new(),
            forgot: true,
        }
    }

    /// As [`fresh_from`], `last` being the last sample; empty where there is none.
    pub fn fresh_from(
        &mut self,
        tables: &Tables,
        leads: &mut impl FnMut(u32, u32, u32) -> bool,
        last: &[FrameSample],
        now: &[FrameSample],
    ) -> Option<usize> {
        let root = now.first().map(|root| key(tables, root))?;
        let is_root = |frames: &[FrameSample]| frames.first().map(|f| key(tables, f)) == Some(root);
        if is_root(last) {
            return fresh_from(tables, leads, last, now);
        }
        let known = self.others.iter().position(|frames| is_root(frames));
        let before = known.map(|at| self.others.remove(at));
        let fresh = match before {
            Some(before) => fresh_from(tables, leads, &before, now),
            None => (!self.forgot).then_some(0),
        };
        // A call that was seen below another outermost frame since then was counted there.
        let since = self.others.iter().skip(known.unwrap_or(0));
        let since = since.map(Vec::as_slice).chain([last]);
        let elsewhere: FxHashSet<_> = since.flatten().map(|frame| key(tables, frame)).collect();
        let is_elsewhere = |frame: &FrameSample| elsewhere.contains(&key(tables, frame));
        let counted = now.iter().rposition(is_elsewhere);
        self.add(last);
        let from = fresh?.max(counted.map_or(0, |depth| depth + 1));
        (from < now.len()).then_some(from)
    }

    /// Remembers the last sample of a thread.
    pub fn add(&mut self, last: &[FrameSample]) {
        if last.is_empty() {
            return;
        }
        if self.others.len() + 1 >= MOST_ROOTS {
            self.others.remove(0);
            self.forgot = true;
        }
        self.others.push(last.to_vec());
    }
}

/// What makes two frames one invocation, as far as can be told by themselves.
fn key(tables: &Tables, frame: &FrameSample) -> (FunctionId, u64) {
    (tables.get_frame(frame.frame).function, frame.invocation)
}

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
    /// The depths that are new in each of the samples of a thread.
    fn fresh(samples: &[&str]) -> Vec<Option<usize>> {
        let mut tables = Tables::default();
        let mut roots = Roots::default();
        let mut last = Vec::new();
        let fresh = samples.iter().map(|text| {
            let now = stack(&mut tables, text);
            let fresh = roots.fresh_from(&tables, &mut |_, from, to| to >= from, &last, &now);
            last = now;
            fresh
        });
        fresh.collect()
    }

    #[test]
    fn a_root_that_is_back_is_not_new() {
        // Two resumptions of a generator, the second of which is seen at an instant of its own.
        assert_eq!(
            fresh(&[
                "main:1:8 f:2:9",
                "gen:3:5:4",
                "main:1:8 f:2:9",
                "gen:3:5:2",
                "main:1:8 f:2:9"
            ]),
            [Some(0), Some(0), None, Some(0), None]
        );
        // What has changed meanwhile shows.
        assert_eq!(
            fresh(&["main:1:8 f:2:9 g:1:7", "gen:3:5", "main:1:8 f:4:9 g:1:7"]),
            [Some(0), Some(0), Some(2)]
        );
        // A function at the place of another one is another root.
        assert_eq!(fresh(&["main:1:8", "exit:1:8"]), [Some(0), Some(0)]);
    }

    #[test]
    fn a_call_that_is_seen_below_two_roots_counts_once() {
        // A generator that is being resumed, or is about to yield.
        assert_eq!(
            fresh(&["main:1:8 f:2:9", "gen:3:5", "main:1:8 f:2:9 gen:3:5"]),
            [Some(0), Some(0), None]
        );
        assert_eq!(
            fresh(&["main:1:8 f:2:9 gen:3:5:4", "gen:3:5:2", "main:1:8 f:2:9"]),
            [Some(0), None, None]
        );
        // Below it what was not seen elsewhere is new.
        assert_eq!(
            fresh(&["main:1:8", "gen:3:5", "main:1:8 gen:3:5 h:1:6"]),
            [Some(0), Some(0), Some(2)]
        );
        // Others in between make no difference.
        assert_eq!(
            fresh(&[
                "main:1:8",
                "gen:3:5 h:1:6",
                "x:1:4",
                "main:1:8 gen:3:5 h:1:6"
            ]),
            [Some(0), Some(0), Some(0), None]
        );
        // It was away in between: resumed again.
        assert_eq!(
            fresh(&["main:1:8", "gen:3:5", "main:1:8", "main:1:8 gen:3:5"]),
            [Some(0), Some(0), None, Some(1)]
        );
    }

    #[test]
    fn roots_that_are_forgotten_are_not_new() {
        let names: Vec<String> = (0..12).map(|at| format!("root{at}:1:8 f:1:9")).collect();
        let mut samples: Vec<&str> = names.iter().map(String::as_str).collect();
        samples.push("root0:1:8 g:1:7");
        samples.push("root0:1:8 h:1:7");
        let found = fresh(&samples);
        assert_eq!(found[0], Some(0));
        // The same f below another root, as far as can be told.
        assert_eq!(found[1], None);
        assert_eq!(found[12], None);
        assert_eq!(found[13], Some(1));
        let mut tables = Tables::default();
        let now = stack(&mut tables, "main:1:8");
        let mut leads = |_, _, _| true;
        let mut roots = Roots::forgotten();
        assert_eq!(roots.fresh_from(&tables, &mut leads, &[], &now), None);
        let mut roots = Roots::default();
        roots.add(&now);
        assert_eq!(roots.fresh_from(&tables, &mut leads, &[], &now), None);
        assert_eq!(roots.fresh_from(&tables, &mut leads, &now, &[]), None);
    }
}
