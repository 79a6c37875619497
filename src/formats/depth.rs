//! How deep stacks are written in formats that spell out each one: the file would grow with the square of the depth.
//!
//! Deeper stacks are written in pieces: one that is left out at its outer end keeps its innermost frames, so that each
//! function keeps its own time.

use super::Loss;

/// Frames written at most where stacks are estimates, some 80 MB of text.
const MOST_ESTIMATED: u64 = 4_000_000;
/// The same of stacks that were seen.
const MOST_SEEN: u64 = 40_000_000;
/// Pieces are not shorter than this.
const LEAST_DEPTH: u32 = 16;

/// What stands for outer frames that are left out.
pub(super) const LEFT_OUT: &str = "[outer frames left out]";

/// The depth at which a new piece begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pieces {
    depth: Option<u32>,
}

impl Pieces {
    /// For stacks of which each one's innermost frame has a depth (0-based) of `depths`.
    pub(super) fn of(depths: &[u32], estimated: bool) -> Pieces {
        let most = if estimated { MOST_ESTIMATED } else { MOST_SEEN };
        let frames = |piece: u32| -> u64 {
            let lengths = depths.iter().map(|depth| u64::from(depth % piece) + 1);
            lengths.sum()
        };
        if frames(u32::MAX) <= most {
            return Pieces { depth: None };
        }
        let mut piece = depths.iter().max().copied().unwrap_or(0).max(LEAST_DEPTH);
        while piece > LEAST_DEPTH && frames(piece) > most {
            piece = (piece / 2).max(LEAST_DEPTH);
        }
        Pieces { depth: Some(piece) }
    }

    /// How many frames are written of a stack whose innermost one has this depth, and whether that is not all.
    pub(super) fn shown(self, depth: u32) -> (usize, bool) {
        match self.depth {
            Some(piece) => (depth as usize % piece as usize + 1, depth >= piece),
            None => (depth as usize + 1, false),
        }
    }

    /// What is to be said of it.
    pub(super) fn loss(self) -> Option<Loss> {
        self.depth.map(|piece| {
            format!("stacks deeper than {piece} frames are written in pieces, with their outer frames left out")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deep_stacks_are_bounded_and_others_whole() {
        let whole = Pieces::of(&[3, 400, 10_000], true);
        assert_eq!(whole.shown(10_000), (10_001, false));
        assert_eq!(whole.loss(), None);
        let depths: Vec<u32> = (0..20_000).collect();
        let pieces = Pieces::of(&depths, true);
        let frames: usize = depths.iter().map(|&depth| pieces.shown(depth).0).sum();
        assert!(
            frames as u64 <= MOST_ESTIMATED && frames > 1_000_000,
            "{frames}"
        );
        assert_eq!(pieces.shown(7), (8, false));
        assert!(pieces.shown(19_999).1 && pieces.loss().is_some());
        // A crowd of stacks is written, however short the pieces.
        let crowd = vec![1000; 1_000_000];
        assert_eq!(Pieces::of(&crowd, true).shown(16), (1, true));
    }
}
