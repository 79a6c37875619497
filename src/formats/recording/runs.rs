//! Runs to and from columns.

use crate::blocks::bytes::{Cursor, put_column, put_varint, unzigzag, zigzag};
use crate::error::Result;
use crate::profile::{Run, RunState, StackId, Tables, ThreadId};

/// Appends `runs` to a block; `ranks` has the position in ORDER of each stack. Places where
/// bytes of another distribution begin go to `cuts`.
pub(super) fn put(
    out: &mut Vec<u8>,
    runs: &[Run],
    ranks: &[u32],
    tables: &Tables,
    cuts: &mut Vec<usize>,
) {
    let least_wall = runs.iter().map(|run| run.wall_us).min().unwrap_or(0);
    put_varint(out, runs.len() as u64);
    put_varint(out, u64::from(least_wall));
    let mut values = Vec::with_capacity(runs.len());
    let mut column = |value: &dyn Fn(&Run) -> u64| {
        values.extend(runs.iter().map(value));
        put_column(out, &mut values, cuts);
    };
    column(&|run| u64::from(run.thread.0));
    column(&|run| {
        ranks
            .get(run.stack.index())
            .map_or(0, |&rank| u64::from(rank))
    });
    column(&|run| u64::from(run.wall_us - least_wall));
    // A thread on a CPU uses about as much CPU time as wall time passes; an idle one none.
    column(&|run| match run.cpu_us {
        0 => 0,
        cpu => 1 + zigzag(i64::from(run.wall_us) - i64::from(cpu)),
    });
    column(&|run| u64::from(run.count));
    column(&|run| match run.fresh_from {
        u16::MAX => 0,
        fresh => 1 + zigzag(depth(tables, run.stack) - i64::from(fresh)),
    });
    column(&|run| u64::from(run.state.0));
}

fn depth(tables: &Tables, stack: StackId) -> i64 {
    i64::from(tables.get_stack(stack).depth)
}

/// Reads one block's runs and appends them to `runs`.
pub(super) fn read(
    cursor: &mut Cursor<'_>,
    order: &[StackId],
    tables: &Tables,
    threads: usize,
    runs: &mut Vec<Run>,
) -> Result<()> {
    let count = cursor.rows(7)?;
    let least_wall = cursor.varint()?;
    let first = runs.len();
    for value in cursor.column(count)? {
        let thread = ThreadId(cursor.check_index(value as i64, threads, "thread")?);
        runs.push(Run {
            thread,
            stack: StackId(0),
            wall_us: 0,
            cpu_us: 0,
            count: 0,
            fresh_from: u16::MAX,
            state: RunState::default(),
        });
    }
    let new = &mut runs[first..];
    for (run, value) in new.iter_mut().zip(cursor.column(count)?) {
        let stack = usize::try_from(value).ok().and_then(|rank| order.get(rank));
        run.stack = *stack.ok_or_else(|| cursor.bad(format_args!("no stack {value}")))?;
    }
    for (run, value) in new.iter_mut().zip(cursor.column(count)?) {
        let wall = least_wall
            .checked_add(value)
            .and_then(|wall| u32::try_from(wall).ok());
        run.wall_us = wall.ok_or_else(|| cursor.bad("a wall time is out of range"))?;
    }
    for (run, value) in new.iter_mut().zip(cursor.column(count)?) {
        if let Some(value) = value.checked_sub(1) {
            let cpu = i64::from(run.wall_us).checked_sub(unzigzag(value));
            let cpu = cpu.and_then(|cpu| u32::try_from(cpu).ok());
            run.cpu_us = cpu.ok_or_else(|| cursor.bad("a CPU time is out of range"))?;
        }
    }
    for (run, value) in new.iter_mut().zip(cursor.column(count)?) {
        run.count = u32::try_from(value).map_err(|_| cursor.bad("a count is out of range"))?;
    }
    for (run, value) in new.iter_mut().zip(cursor.column(count)?) {
        if let Some(value) = value.checked_sub(1) {
            let fresh = depth(tables, run.stack).checked_sub(unzigzag(value));
            let fresh = fresh.and_then(|fresh| u16::try_from(fresh).ok());
            run.fresh_from = fresh.ok_or_else(|| cursor.bad("a depth is out of range"))?;
        }
    }
    for (run, value) in new.iter_mut().zip(cursor.column(count)?) {
        let state = u8::try_from(value).map_err(|_| cursor.bad("a state is out of range"))?;
        run.state = RunState(state);
    }
    Ok(())
}
