//! Durations with weights: exact up to a number of them, then in buckets of less than 1 % of their value; percentiles
//! and powers of two. The smallest and the largest one are always exact.

use std::collections::BTreeMap;

/// Durations that are kept exactly: 1 MiB.
const EXACT: usize = 1 << 16;
/// Buckets of a power of two, as a logarithm: a bucket is 1/128 of its value wide.
const FINE: u32 = 7;

/// Durations, nanoseconds.
#[derive(Debug, Clone, Default)]
pub struct Durations {
    exact: Vec<(u64, f64)>,
    /// By the lower end of the bucket.
    buckets: BTreeMap<u64, f64>,
    count: u64,
    weight: f64,
    sum: f64,
    shortest: Option<u64>,
    longest: u64,
}

/// The first value of a value's bucket.
fn bucket(value: u64) -> u64 {
    let shift = value.checked_ilog2().unwrap_or(0).saturating_sub(FINE);
    value >> shift << shift
}

/// The middle of a bucket that starts at `start`.
fn middle(start: u64) -> u64 {
    let shift = start.checked_ilog2().unwrap_or(0).saturating_sub(FINE);
    start + (1 << shift) / 2
}

impl Durations {
    /// Adds one that stands for `weight` of them.
    pub fn add(&mut self, value: u64, weight: f64) {
        self.count += 1;
        self.weight += weight;
        self.sum += value as f64 * weight;
        self.shortest = Some(self.shortest.map_or(value, |least| least.min(value)));
        self.longest = self.longest.max(value);
        if !self.buckets.is_empty() {
            *self.buckets.entry(bucket(value)).or_default() += weight;
            return;
        }
        self.exact.push((value, weight));
        if self.exact.len() > EXACT {
            for (value, weight) in std::mem::take(&mut self.exact) {
                *self.buckets.entry(bucket(value)).or_default() += weight;
            }
        }
    }

    /// How many were added.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The shortest one.
    pub fn min(&self) -> Option<u64> {
        self.shortest
    }

    /// The longest one.
    pub fn max(&self) -> Option<u64> {
        self.shortest.map(|_| self.longest)
    }

    /// Their mean.
    pub fn mean(&self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.sum / self.weight)
    }

    /// The smallest value that at least `share` (0 to 1) of all are not above; for each of `shares`.
    pub fn percentiles<const N: usize>(&self, shares: [f64; N]) -> Option<[u64; N]> {
        let (shortest, longest) = (self.min()?, self.max()?);
        let sorted = self.sorted();
        let mut found = [longest; N];
        for (share, found) in shares.iter().zip(&mut found) {
            let wanted = self.weight * share * (1.0 - 1e-12);
            let mut sum = 0.0;
            for (value, weight) in &sorted {
                sum += weight;
                if sum >= wanted {
                    *found = (*value).clamp(shortest, longest);
                    break;
                }
            }
        }
        Some(found)
    }

    /// How many there are of each power of two of `unit_ns` nanoseconds: 0 to 1, 2 to 3, 4 to 7, ...; from the first
    /// that has any to the last one.
    pub fn powers(&self, unit_ns: u64) -> Vec<(u64, u64, f64)> {
        let mut rows: BTreeMap<u32, f64> = BTreeMap::new();
        for (value, weight) in self.sorted() {
            let power = (value / unit_ns.max(1)).checked_ilog2().unwrap_or(0);
            *rows.entry(power).or_default() += weight;
        }
        let (Some(first), Some(last)) = (
            rows.first_key_value().map(|(power, _)| *power),
            rows.last_key_value().map(|(power, _)| *power),
        ) else {
            return Vec::new();
        };
        (first..=last)
            .map(|power| {
                let from = if power == 0 { 0 } else { 1u64 << power };
                let to = (1u64 << power).saturating_mul(2).saturating_sub(1);
                (from, to, rows.get(&power).copied().unwrap_or(0.0))
            })
            .collect()
    }

    fn sorted(&self) -> Vec<(u64, f64)> {
        if self.buckets.is_empty() {
            let mut sorted = self.exact.clone();
            sorted.sort_unstable_by_key(|(value, _)| *value);
            return sorted;
        }
        self.buckets
            .iter()
            .map(|(start, weight)| (middle(*start), *weight))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};

    #[test]
    fn few_are_exact() {
        let mut durations = Durations::default();
        assert_eq!(durations.percentiles([0.5]), None);
        assert!(durations.powers(1).is_empty());
        for value in (1..=100).rev() {
            durations.add(value * 1000, 1.0);
        }
        assert_eq!(
            durations.percentiles([0.0, 0.5, 0.9, 0.99, 1.0]),
            Some([1000, 50_000, 90_000, 99_000, 100_000])
        );
        assert_eq!(
            (durations.min(), durations.max()),
            (Some(1000), Some(100_000))
        );
        assert_eq!(durations.mean(), Some(50_500.0));
        let powers = durations.powers(1000);
        assert_eq!(powers.first(), Some(&(0, 1, 1.0)));
        assert_eq!(powers.last(), Some(&(64, 127, 37.0)));
        assert_eq!(powers.iter().map(|row| row.2).sum::<f64>(), 100.0);
    }

    #[test]
    fn many_are_within_a_percent() {
        let mut random = rand::rngs::StdRng::seed_from_u64(7);
        let mut durations = Durations::default();
        let mut all: Vec<u64> = (0..EXACT * 3)
            .map(|_| (random.random_range(0.0..20.0f64)).exp2() as u64)
            .collect();
        for value in &all {
            durations.add(*value, 1.0);
        }
        all.sort_unstable();
        let shares = [0.01, 0.25, 0.5, 0.9, 0.99, 0.999];
        let found = durations.percentiles(shares).expect("many");
        for (share, found) in shares.iter().zip(found) {
            let truth = all[(share * all.len() as f64).ceil() as usize - 1] as f64;
            let off = (found as f64 - truth).abs();
            assert!(off <= 1.0 + truth * 0.01, "{share}: {found} {truth}");
        }
        assert_eq!(durations.max(), all.last().copied());
        assert!(durations.buckets.len() < 4000);
        durations.add(u64::MAX, 1.0);
        assert_eq!(durations.max(), Some(u64::MAX));
        assert!(durations.powers(1).len() <= 64);
    }

    #[test]
    fn weights_count() {
        let mut durations = Durations::default();
        durations.add(10, 1.0);
        durations.add(20, 3.0);
        assert_eq!(durations.percentiles([0.25, 0.26]), Some([10, 20]));
        assert_eq!(durations.mean(), Some(17.5));
    }
}
