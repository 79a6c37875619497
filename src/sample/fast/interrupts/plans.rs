//! What is to be copied of a thread in its interrupts, and where the copies are in a record.

use super::FastReader;
use crate::layout::{self, CurrentFrame};
use crate::sample::builtins::Builtins;
use crate::sample::fast::lock::LockWords;
use crate::sample::fast::thread;
use crate::sample::fast::window::Window;
use crate::target::interrupt::program::{self, Part, Plan, record};
use crate::target::memory::{Memory, Range};

/// Plans of which copies may still be in the ring.
const MOST_LAYOUTS: usize = 4;

/// Frames outside of the data stack whose places are worth remembering.
const MOST_LOOSE: usize = 24;

/// What a plan copies where.
#[derive(Debug)]
pub(super) struct Layout {
    /// [`Plan::version`].
    pub version: u64,
    parts: Vec<(Range, usize)>,
    bytes: usize,
}

impl<M: Memory> FastReader<M> {
    /// Says what is to be copied of each thread from now on, where that has changed.
    pub(super) fn plan_interrupts(&mut self) {
        let Some(mut all) = self.interruptions.take() else {
            return;
        };
        let heads: Vec<Range> = {
            let codes = self.codes.heads();
            codes
                .chain(self.builtins.iter_mut().flat_map(Builtins::heads))
                .collect()
        };
        let mut failed = None;
        for known in &mut all.known {
            let mut threads = self.threads.iter_mut();
            let Some(thread) = threads.find(|thread| thread.address == known.address) else {
                continue;
            };
            let followed = known.follows > 0;
            known.follows = known.follows.saturating_sub(1);
            let changed = known.replan
                || thread.replan
                || known.has_heads
                || !heads.is_empty()
                || followed != (known.follows > 0);
            if !changed {
                continue;
            }
            known.replan = false;
            known.has_heads = !heads.is_empty();
            let words = LockWords::of(&self.offsets, thread, &self.domains, &self.interpreters);
            let window = &mut all.window;
            window.clear();
            thread.find_stack(&self.offsets, &self.memory);
            thread.want_but(MOST_LOOSE, &self.offsets, window);
            words.want(window);
            for head in &heads {
                window.want(head.address as u64, head.length as u64);
            }
            window.plan(std::iter::empty());
            all.versions += 1;
            let mut plan = Plan {
                room: known.room,
                version: all.versions,
                follows: u32::from(followed || self.offsets.thread.stack.is_none()),
                previous: u64::from(self.offsets.frame.previous),
                frame: thread::frame_length(&self.offsets) as u64,
                ..Plan::default()
            };
            (plan.low, plan.high) = thread.newest_chunk();
            match self.offsets.thread.current {
                CurrentFrame::CFrame {
                    cframe, current, ..
                } => {
                    plan.innermost = thread.address.wrapping_add(u64::from(cframe));
                    plan.indirect = u64::from(current);
                }
                CurrentFrame::Thread(offset) if plan.follows > 0 => {
                    plan.innermost = thread.address.wrapping_add(u64::from(offset));
                }
                CurrentFrame::Thread(_) => {}
            }
            let (parts, bytes) = put_parts(window.ranges(), &mut plan);
            let holds = |(range, _): &(Range, usize)| {
                range.address as u64 <= plan.low
                    && (range.address + range.length) as u64 >= plan.high
            };
            if !parts.iter().any(holds) {
                (plan.low, plan.high) = (0, 0);
            }
            known.plan = plan;
            known.layouts.push_back(Layout {
                version: plan.version,
                parts,
                bytes,
            });
            if known.layouts.len() > MOST_LAYOUTS {
                known.layouts.pop_front();
            }
            if let Err(why) = all.source.set_plan(known.tid, &known.plan) {
                failed = Some(why);
                break;
            }
        }
        self.interruptions = Some(all);
        if let Some(why) = failed {
            self.end_interrupts(&why);
        }
    }
}

/// Puts the ranges that fit into the plan; gives them with their places in the copy, and how long that is.
fn put_parts(ranges: &[Range], plan: &mut Plan) -> (Vec<(Range, usize)>, usize) {
    let (mut parts, mut bytes) = (Vec::new(), 0usize);
    for range in ranges {
        let Some(place) = plan.parts.get_mut(parts.len()) else {
            break;
        };
        if bytes + range.length > program::MOST_BYTES as usize {
            continue;
        }
        *place = Part {
            address: range.address as u64,
            length: range.length as u32,
            offset: bytes as u32,
        };
        parts.push((*range, bytes));
        bytes += range.length;
    }
    (plan.count, plan.bytes) = (parts.len() as u32, bytes as u32);
    (parts, bytes)
}

/// Puts a record's copies, and the blocks of frames that were followed, where they are looked up by address.
pub(super) fn load(window: &mut Window, layout: &Layout, bytes: &[u8]) {
    let data = bytes.get(record::HEAD..).unwrap_or_default();
    let failed = layout::word(bytes, record::FAILED).unwrap_or(u64::MAX);
    let copied = layout
        .parts
        .iter()
        .enumerate()
        .filter(|(index, _)| failed >> index & 1 == 0)
        .map(|(_, part)| *part);
    window.load(copied.chain(blocks(layout, bytes)), data);
}

/// The frames that were followed, and where their copies are after the head.
pub(super) fn blocks(layout: &Layout, bytes: &[u8]) -> impl Iterator<Item = (Range, usize)> {
    let start = record::HEAD.saturating_add(layout.bytes);
    let blocks = bytes.get(start..).unwrap_or_default();
    let first = layout.bytes;
    let size = program::BLOCK as usize;
    blocks
        .chunks_exact(size)
        .enumerate()
        .map(move |(index, block)| {
            let range = Range {
                address: layout::word(block, 0).unwrap_or(0) as usize,
                length: program::BLOCK_BYTES as usize,
            };
            (range, first + index * size + 8)
        })
}
