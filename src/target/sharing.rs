//! Physical pages of several processes, each counted once (`/proc/PID/pagemap`).
//!
//! The kernel tells the numbers of page frames to those with CAP_SYS_ADMIN only. The processes run on meanwhile, so a page
//! may be counted that one of them has let go of since.

use rustc_hash::FxHashMap;

use super::maps;
use super::memory::pages::{PAGE, Pages};
use crate::units::Pid;

/// Frames of one piece of the set.
const PIECE: u64 = 1 << 15;

/// A set of page frames.
#[derive(Debug, Default)]
pub struct Frames {
    pieces: FxHashMap<u64, Box<[u64]>>,
    count: u64,
}

impl Frames {
    /// Adds the resident pages of `pid`. False when the kernel does not tell which those are.
    pub fn add(&mut self, pid: Pid) -> bool {
        let Ok(regions) = maps::regions(pid) else {
            return false;
        };
        let Ok(mut pages) = Pages::open(pid) else {
            return false;
        };
        // The kernel's own clock and the like are nobody's memory.
        let counted = regions
            .iter()
            .filter(|region| !region.name.starts_with("[vvar") && region.name != "[vsyscall]");
        for region in counted {
            let known = pages.frames(region, &mut |frame| self.insert(frame));
            // What is unmapped meanwhile has no pages any more.
            if !known.unwrap_or(true) {
                return false;
            }
        }
        true
    }

    /// Bytes of all of them.
    pub fn bytes(&self) -> u64 {
        self.count.saturating_mul(PAGE)
    }

    fn insert(&mut self, frame: u64) {
        let piece = self.pieces.entry(frame / PIECE);
        let piece = piece.or_insert_with(|| vec![0; PIECE as usize / 64].into_boxed_slice());
        let bit = frame % PIECE;
        if let Some(word) = piece.get_mut(bit as usize / 64) {
            self.count += u64::from(*word >> (bit % 64) & 1 == 0);
            *word |= 1 << (bit % 64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_frame_counts_once() {
        let mut frames = Frames::default();
        for frame in [1, 2, 1, PIECE, PIECE - 1, PIECE, (1 << 55) - 1] {
            frames.insert(frame);
        }
        assert_eq!(frames.bytes(), 5 * PAGE);
    }
}
