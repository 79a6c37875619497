//! Fingerprints of the local variables of frames that wait for a callee: a change proves that they ran meanwhile.

use super::thread::Thread;
use super::window::Window;
use crate::layout::{Offsets, at};
use crate::sample::ThreadStack;

/// A number that differs when any word does, in all likelihood.
#[derive(Debug, Clone, Copy)]
pub struct Fingerprint(u64);

impl Default for Fingerprint {
    fn default() -> Fingerprint {
        Fingerprint(0x9e37_79b9_7f4a_7c15)
    }
}

impl Fingerprint {
    /// Takes a word in.
    pub fn add(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    /// The number, never 0.
    pub fn finish(self) -> u64 {
        self.0.max(1)
    }
}

/// That of the words in `bytes`.
pub fn fingerprint(bytes: &[u8]) -> u64 {
    let mut sum = Fingerprint::default();
    for word in bytes.chunks_exact(8) {
        sum.add(word.try_into().map_or(0, u64::from_ne_bytes));
    }
    sum.finish()
}

/// Marks all frames on the data stack but the innermost one. Elsewhere the variables are in the copy only by chance.
pub fn mark(offsets: &Offsets, window: &Window, thread: &Thread, stack: &mut ThreadStack) {
    if offsets.thread.stack.is_none() {
        return;
    }
    let mut hint = 0;
    let waiting = thread.raw.len().saturating_sub(1);
    let frames = thread.raw.iter().zip(&thread.places).zip(&thread.words);
    for ((raw, place), words) in frames.take(waiting) {
        let Some(frame) = stack.frames.get_mut(at(*place)) else {
            return;
        };
        let first = raw
            .address
            .wrapping_add(u64::from(offsets.frame.localsplus));
        let copied = thread.is_on_stack(raw.address);
        frame.locals = copied
            .then(|| window.get(first, at(*words) * 8, &mut hint))
            .flatten()
            .map_or(0, fingerprint);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_differ_with_any_word() {
        let words = |a: u64, b: u64| [a.to_ne_bytes(), b.to_ne_bytes()].concat();
        assert_eq!(fingerprint(&words(1, 2)), fingerprint(&words(1, 2)));
        assert_ne!(fingerprint(&words(1, 2)), fingerprint(&words(2, 1)));
        assert_ne!(fingerprint(&words(1, 2)), fingerprint(&words(1, 3)));
        assert_ne!(fingerprint(&[]), 0);
    }
}
