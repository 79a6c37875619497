//! How deep stacks are written in formats that spell out each one: the file would grow with the square of the depth.
//!
//! Deeper stacks are written in pieces: one that is left out at its outer end keeps its innermost frames, so that each
//! function keeps its own time.

use super::Loss;

/// Frames written at most where stacks are estimates, some 80 MB of text.
const MOST_ESTIMATED: u64 = 4_000_000;
/// The same of stacks that were seen.
const MOST_SEEN: u64 = 40_000_000;
/// Pieces are not shorter than this, and stacks that are cut than two of them.
const LEAST_DEPTH: u32 = 16;

/// No stack is so deep.
const MOST_DEPTH: u32 = u32::MAX / 4;

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
            let lengths = depths.iter().map(|&depth| length(depth, piece));
            lengths.map(u64::from).sum()
        };
        if frames(MOST_DEPTH) <= most {
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
        let length = length(depth, self.depth.unwrap_or(MOST_DEPTH));
        (length as usize, length <= depth)
    }

    /// What is to be said of it.
    pub(super) fn loss(self) -> Option<Loss> {
        self.depth.map(|piece| {
            let whole = 2 * u64::from(piece);
            format!("stacks deeper than {whole} frames are written in pieces, with their outer frames left out")
        })
    }
}

/// Frames written of a stack of this depth (0-based): all of the first two pieces, else its own piece and the one before,
/// so that no stack is short and those of one piece begin with the same frame.
fn length(depth: u32, piece: u32) -> u32 {
    match depth.checked_sub(piece) {
        None => depth + 1,
        Some(deeper) => piece + deeper % piece + 1,
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
        assert!(pieces.shown(19_999).0 > 100);
        // A crowd of stacks is written, however short the pieces.
        let crowd = vec![1000; 1_000_000];
        let pieces = Pieces::of(&crowd, true);
        assert_eq!(pieces.shown(31), (32, false));
        assert_eq!(pieces.shown(1000), (25, true));
    }
}
