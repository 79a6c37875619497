//! What one sample copies from the target: wanted ranges, merged and sorted, read in one system call into one
//! buffer, and looked up by the target's addresses.

use std::cell::Cell;

use crate::target::memory::{Memory, Range, Unreadable};

/// Ranges with at most this much between them are read as one. Each range costs 0.3 to 0.4 us, a page 0.15 us, a byte
/// 0.2 ns at most. Less than a page, so that no hole in the address space can be in between.
const MERGE_GAP: usize = 4095;

/// Most bytes that one sample copies; 20,000 frames are 4 MB.
const MOST_BYTES: usize = 64 << 20;

/// Less than that in all is copied at one instant like everything else, even if it lasts.
const LEAST_LASTING: usize = 256 << 10;

/// Addresses that a program can have: not the first page, and 57 bits at most (x86-64 with five levels).
const LOWEST: usize = 4096;
const HIGHEST: usize = 1 << 57;

/// Ranges of the target's memory and a copy of them.
#[derive(Debug, Default)]
pub struct Window {
    /// With whether it is expected to stay as it is from sample to sample.
    wanted: Vec<(Range, bool)>,
    /// Which of `ranges` are so, and large.
    lasting: Vec<usize>,
    /// Merged, by rising address, then the extras and the tail in the order of their adding.
    ranges: Vec<Range>,
    /// Where each of `ranges` starts in `buffer`; as many.
    starts: Vec<usize>,
    /// How many of `ranges` are sorted, and how many extras follow.
    sorted: usize,
    extras: Vec<Range>,
    tail: Vec<Range>,
    buffer: Vec<u8>,
    /// Whether `buffer` has what was expected to stay, as it was at the last look.
    kept: bool,
    /// Whether `ranges` may overlap.
    overlaps: bool,
}

impl Window {
    /// Forgets all wanted ranges.
    pub fn clear(&mut self) {
        self.wanted.clear();
    }

    /// Wants `length` bytes at `address`; nonsense is left out.
    pub fn want(&mut self, address: u64, length: u64) {
        self.add(address, length, false);
    }

    /// The same of what hardly ever changes, such as the outer frames of a deep stack: too much to be copied at one
    /// instant, but enough when it is the same before and after the rest.
    pub fn want_lasting(&mut self, address: u64, length: u64) {
        self.add(address, length, true);
    }

    fn add(&mut self, address: u64, length: u64, lasts: bool) {
        let (Ok(address), Ok(length)) = (usize::try_from(address), usize::try_from(length)) else {
            return;
        };
        if address > LOWEST && address < HIGHEST && length > 0 && length <= MOST_BYTES {
            self.wanted.push((Range { address, length }, lasts));
        }
    }

    /// Sorts and merges what is wanted, and adds `tail`, which is read after everything else.
    pub fn plan(&mut self, tail: impl IntoIterator<Item = Range>) {
        self.wanted.sort_unstable_by_key(|(range, _)| range.address);
        self.ranges.clear();
        self.lasting.clear();
        (self.kept, self.overlaps) = (false, false);
        let mut last_lasts = false;
        for (range, lasts) in &self.wanted {
            let gap = if *lasts == last_lasts {
                MERGE_GAP + 1
            } else {
                0
            };
            if let Some(last) = self.ranges.last_mut()
                && range.address < last.address + last.length + gap
            {
                let end = (range.address + range.length).max(last.address + last.length);
                last.length = end - last.address;
                continue;
            }
            if *lasts {
                self.lasting.push(self.ranges.len());
            }
            last_lasts = *lasts;
            self.ranges.push(*range);
        }
        let length = |at: &usize| self.ranges.get(*at).map_or(0, |range| range.length);
        if self.lasting.iter().map(length).sum::<usize>() < LEAST_LASTING {
            self.lasting.clear();
        }
        self.lasting.retain(|at| length(at) > MERGE_GAP);
        self.sorted = self.ranges.len();
        self.tail.clear();
        self.tail.extend(tail);
        self.lay_out();
    }

    /// Sets what is read beside the planned ranges, in this sample only, say.
    pub fn set_extras(&mut self, extras: impl Iterator<Item = Range>) {
        let were_there = !self.extras.is_empty();
        let sensible = |range: &Range| range.address > LOWEST && range.address < HIGHEST;
        self.extras.clear();
        self.extras.extend(extras.filter(sensible));
        if were_there || !self.extras.is_empty() {
            self.lay_out();
        }
    }

    fn lay_out(&mut self) {
        self.ranges.truncate(self.sorted);
        self.ranges.extend_from_slice(&self.extras);
        self.ranges.extend_from_slice(&self.tail);
        self.starts.clear();
        let mut at = 0;
        for range in &self.ranges {
            self.starts.push(at);
            at += range.length;
        }
        self.buffer.resize(at.min(MOST_BYTES), 0);
    }

    /// Takes ranges that somebody else has copied, each from its place in `data`, instead of those that were planned.
    pub fn load(&mut self, parts: impl Iterator<Item = (Range, usize)>, data: &[u8]) {
        self.wanted.clear();
        self.lasting.clear();
        self.extras.clear();
        self.tail.clear();
        let mut parts: Vec<(Range, usize)> = parts.collect();
        parts.sort_unstable_by_key(|(range, _)| range.address);
        self.ranges.clear();
        self.starts.clear();
        self.ranges.extend(parts.iter().map(|(range, _)| *range));
        self.starts.extend(parts.iter().map(|(_, start)| *start));
        self.sorted = self.ranges.len();
        self.buffer.clear();
        self.buffer.extend_from_slice(data);
        (self.kept, self.overlaps) = (false, true);
    }

    /// Copies everything; false when a part of it could not be read, which is then all zeroes.
    pub fn fill(&mut self, memory: &impl Memory) -> Result<bool, Unreadable> {
        let copied = match memory.read_ranges(&self.ranges, &mut self.buffer) {
            Ok(copied) => copied,
            Err(Unreadable::Nowhere) => 0,
            Err(error) => return Err(error),
        };
        self.kept = true;
        if copied == self.buffer.len() {
            return Ok(true);
        }
        for (range, start) in self.ranges.iter().zip(&self.starts) {
            let Some(part) = self.buffer.get_mut(*start..start + range.length) else {
                break;
            };
            match memory.read(range.address as u64, part) {
                Ok(()) => {}
                Err(Unreadable::Nowhere) => part.fill(0),
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// Whether the copy of what is expected to stay was still right when it was compared last.
    pub fn has_kept(&self) -> bool {
        self.kept
    }

    /// Whether much of it is expected to stay as it is.
    pub fn has_lasting(&self) -> bool {
        !self.lasting.is_empty()
    }

    /// Copies once more what is not expected to stay.
    pub fn fill_changing(&mut self, memory: &impl Memory) -> Result<(), Unreadable> {
        let mut from = 0;
        let ends = self.lasting.iter().copied().chain([self.ranges.len()]);
        for end in ends {
            let ranges = self.ranges.get(from..end).unwrap_or_default();
            let length: usize = ranges.iter().map(|range| range.length).sum();
            let start = self.starts.get(from).copied().unwrap_or(0);
            if let Some(part) = self.buffer.get_mut(start..start + length)
                && length > 0
            {
                match memory.read_ranges(ranges, part) {
                    Ok(read) if read == length => {}
                    Ok(_) | Err(Unreadable::Nowhere) => part.fill(0),
                    Err(error) => return Err(error),
                }
            }
            from = end + 1;
        }
        Ok(())
    }

    /// Whether what was expected to stay is still as it was copied.
    pub fn lasts(&mut self, memory: &impl Memory) -> bool {
        let mut now = Vec::new();
        self.kept = self.lasting.iter().all(|at| {
            let place = self.ranges.get(*at).zip(self.starts.get(*at));
            place.is_some_and(|(range, start)| {
                now.resize(range.length, 0);
                memory.read(range.address as u64, &mut now).is_ok()
                    && self.buffer.get(*start..start + range.length) == Some(now.as_slice())
            })
        });
        self.kept
    }

    /// What [`Window::fill`] copies.
    pub fn ranges(&self) -> &[Range] {
        &self.ranges
    }

    /// The copy of `length` bytes at `address`. `hint` makes the next look-up nearby cheap.
    #[inline]
    pub fn get(&self, address: u64, length: usize, hint: &mut usize) -> Option<&[u8]> {
        let address = address as usize;
        let inside = |index: usize| -> Option<usize> {
            let range = self.ranges.get(index)?;
            let offset = address.checked_sub(range.address)?;
            (offset.checked_add(length)? <= range.length).then_some(offset)
        };
        let offset = match inside(*hint) {
            Some(offset) if *hint < self.sorted => offset,
            _ => {
                let sorted = self.ranges.get(..self.sorted)?;
                let after = sorted.partition_point(|range| range.address <= address);
                // Those that somebody else has copied may overlap.
                let most = if self.overlaps { after } else { 1 };
                let mut before = (0..after).rev().take(most);
                let known = before.find(|index| inside(*index).is_some());
                let mut extras = self.sorted..self.sorted + self.extras.len();
                *hint = known.or_else(|| extras.find(|index| inside(*index).is_some()))?;
                inside(*hint)?
            }
        };
        let start = self.starts.get(*hint)? + offset;
        self.buffer.get(start..start + length)
    }

    /// The copy of the range `index` of the tail.
    pub fn tail(&self, index: usize) -> &[u8] {
        let at = self.sorted + self.extras.len() + index;
        match (self.ranges.get(at), self.starts.get(at)) {
            (Some(range), Some(start)) => self
                .buffer
                .get(*start..start + range.length)
                .unwrap_or_default(),
            _ => &[],
        }
    }
}

/// The target's memory, where a sample has a copy of it as it was in the sample.
pub struct Beside<'a, M> {
    /// The copy.
    pub window: &'a Window,
    /// The target.
    pub memory: &'a M,
    /// How often the target was read because there was no copy.
    pub reads: Cell<u64>,
    /// Whether the target has gone on since the copy, and something was wanted that is not in it.
    has_gone_on: bool,
    missed: Cell<bool>,
}

impl<'a, M: Memory> Beside<'a, M> {
    /// Beside a copy of a target that has not gone on since.
    pub fn new(window: &'a Window, memory: &'a M) -> Beside<'a, M> {
        Beside {
            window,
            memory,
            reads: Cell::new(0),
            has_gone_on: false,
            missed: Cell::new(false),
        }
    }

    /// Beside one of a target that has.
    pub fn copy_of(window: &'a Window, memory: &'a M) -> Beside<'a, M> {
        Beside {
            has_gone_on: true,
            ..Beside::new(window, memory)
        }
    }

    /// A word that the target changes all the time.
    pub fn changing_word(&self, address: u64) -> Option<u64> {
        if self.has_gone_on && self.window.get(address, 8, &mut 0).is_none() {
            self.missed.set(true);
            return None;
        }
        self.read_word(address).ok()
    }

    /// Whether such a word was not in the copy.
    pub fn has_missed(&self) -> bool {
        self.missed.get()
    }
}

impl<M: Memory> Memory for Beside<'_, M> {
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Unreadable> {
        if let Some(copy) = self.window.get(address, into.len(), &mut 0) {
            into.copy_from_slice(copy);
            return Ok(());
        }
        self.reads.set(self.reads.get() + 1);
        self.memory.read(address, into)
    }

    fn is_copy(&self, address: u64, length: usize) -> bool {
        self.window.get(address, length, &mut 0).is_some()
    }

    fn read_now(&self, address: u64, into: &mut [u8]) -> Result<(), Unreadable> {
        self.memory.read(address, into)
    }

    fn read_ranges(&self, ranges: &[Range], into: &mut [u8]) -> Result<usize, Unreadable> {
        self.reads.set(self.reads.get() + 1);
        self.memory.read_ranges(ranges, into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::memory::Live;
    use crate::units::Pid;

    #[test]
    fn ranges_are_merged_and_found_again() {
        let data: Vec<u8> = (0..=255).cycle().take(8192).collect();
        let base = data.as_ptr() as u64;
        let me = Live::new(Pid(std::process::id() as i32));
        let mut window = Window::default();
        window.want(base + 5000, 10);
        window.want(base, 16);
        window.want(base + 100, 16);
        window.want(0, 8);
        window.want(base, u64::MAX);
        window.plan([Range {
            address: base as usize + 1,
            length: 2,
        }]);
        assert_eq!(window.fill(&me), Ok(true));
        assert_eq!(window.buffer.len(), 116 + 10 + 2);
        let mut hint = 0;
        assert_eq!(window.get(base + 100, 2, &mut hint), Some(&data[100..102]));
        assert_eq!(
            window.get(base + 5004, 6, &mut hint),
            Some(&data[5004..5010])
        );
        assert_eq!(window.get(base + 5004, 7, &mut hint), None);
        assert_eq!(window.get(base - 1, 1, &mut hint), None);
        assert_eq!(window.get(u64::MAX, 1, &mut hint), None);
        assert_eq!(window.tail(0), &[1, 2]);
        assert!(window.tail(1).is_empty());
        window.clear();
        let large = vec![7u8; 2 * LEAST_LASTING];
        let at = large.as_ptr() as u64;
        window.want(at, 100);
        window.want_lasting(at + 100, LEAST_LASTING as u64);
        window.want(at + 100 + LEAST_LASTING as u64, 100);
        window.plan([Range {
            address: base as usize + 1,
            length: 2,
        }]);
        assert!(window.has_lasting());
        window.fill(&me).expect("read");
        window.buffer.fill(0);
        window.fill_changing(&me).expect("read");
        assert!(!window.lasts(&me), "it was not copied");
        assert_eq!(window.get(at, 1, &mut hint), Some(&[7][..]));
        assert_eq!(window.get(at + 100, 1, &mut hint), Some(&[0][..]));
        let after = at + 100 + LEAST_LASTING as u64;
        assert_eq!(window.get(after, 1, &mut hint), Some(&[7][..]));
        assert_eq!(window.tail(0), &[1, 2]);
        window.fill(&me).expect("read");
        assert!(window.lasts(&me));
        window.clear();
        window.want(base, 116);
        window.want(base + 5000, 10);
        window.plan([Range {
            address: base as usize + 1,
            length: 2,
        }]);
        let extra = Range {
            address: base as usize + 8000,
            length: 8,
        };
        window.set_extras([extra, Range::default()].into_iter());
        assert_eq!(window.fill(&me), Ok(true));
        assert_eq!(
            window.get(base + 8004, 4, &mut hint),
            Some(&data[8004..8008])
        );
        assert_eq!(window.tail(0), &[1, 2]);
        window.set_extras(std::iter::empty());
        assert_eq!(window.buffer.len(), 116 + 10 + 2);
        assert_eq!(window.get(base + 8004, 4, &mut hint), None);
    }
}
