//! What grows from summary to summary: the types that grew in every step, and how fast.

use std::time::SystemTime;

use rustc_hash::FxHashMap;

use super::census::{Census, TypeCount};

/// A type that grew in every step so far.
#[derive(Debug, Clone, PartialEq)]
pub struct Growth {
    /// The type.
    pub name: String,
    /// Objects more than at the start.
    pub objects: i64,
    /// Bytes more than at the start.
    pub bytes: i64,
    /// Objects more in a minute.
    pub objects_per_minute: f64,
    /// Bytes more in a minute.
    pub bytes_per_minute: f64,
}

#[derive(Debug, Clone, Copy)]
struct Numbers {
    objects: u64,
    bytes: u64,
}

impl Numbers {
    fn of(row: &TypeCount) -> Numbers {
        Numbers {
            objects: row.objects,
            bytes: row.bytes,
        }
    }

    /// More objects, or as many with more bytes.
    fn grew_from(self, before: Numbers) -> bool {
        self.objects > before.objects
            || (self.objects == before.objects && self.bytes > before.bytes)
    }
}

/// Follows a process from summary to summary; remembers the first one and the types that still qualify.
#[derive(Debug, Clone)]
pub struct Growing {
    started: SystemTime,
    latest: SystemTime,
    steps: u64,
    /// A type's numbers at the start and now. Types that were not there at the start began with nothing.
    still: FxHashMap<String, (Numbers, Numbers)>,
}

impl Growing {
    /// Starts with a first summary.
    pub fn from(first: &Census) -> Growing {
        let still = first.types.iter().map(|row| {
            let numbers = Numbers::of(row);
            (row.name.clone(), (numbers, numbers))
        });
        Growing {
            started: first.taken_at,
            latest: first.taken_at,
            steps: 0,
            still: still.collect(),
        }
    }

    /// Takes the next summary in.
    pub fn step(&mut self, census: &Census) {
        let nothing = Numbers {
            objects: 0,
            bytes: 0,
        };
        let mut still = FxHashMap::default();
        for row in &census.types {
            let now = Numbers::of(row);
            let known = match self.still.get(&row.name) {
                Some(known) => *known,
                None if self.steps == 0 => (nothing, nothing),
                None => continue,
            };
            if now.grew_from(known.1) {
                still.insert(row.name.clone(), (known.0, now));
            }
        }
        self.still = still;
        self.steps += 1;
        self.latest = census.taken_at;
    }

    /// Number of steps taken in.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Seconds from the first summary to the latest.
    pub fn seconds(&self) -> f64 {
        self.latest
            .duration_since(self.started)
            .map_or(0.0, |time| time.as_secs_f64())
    }

    /// The types that grew in every step, most bytes first; nothing before the first step.
    pub fn growths(&self) -> Vec<Growth> {
        if self.steps == 0 {
            return Vec::new();
        }
        let minutes = self.seconds() / 60.0;
        let rate = |change: i64| {
            if minutes > 0.0 {
                change as f64 / minutes
            } else {
                0.0
            }
        };
        let mut growths: Vec<Growth> = self
            .still
            .iter()
            .map(|(name, (first, now))| {
                let objects = change(first.objects, now.objects);
                let bytes = change(first.bytes, now.bytes);
                Growth {
                    name: name.clone(),
                    objects,
                    bytes,
                    objects_per_minute: rate(objects),
                    bytes_per_minute: rate(bytes),
                }
            })
            .collect();
        growths.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.name.cmp(&b.name)));
        growths
    }
}

/// From `old` to `new`, kept within what an `i64` can say.
fn change(old: u64, new: u64) -> i64 {
    let change = i128::from(new) - i128::from(old);
    i64::try_from(change).unwrap_or(if change < 0 { i64::MIN } else { i64::MAX })
}

/// Moments that are kept; where there were more, every other one.
const MOST_MOMENTS: usize = 2000;

/// Types that are followed.
const MOST_FOLLOWED: usize = 4096;

/// The numbers of one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MomentTotals {
    /// When.
    pub at: SystemTime,
    /// Objects and bytes of all types.
    pub total: (u64, u64),
    /// Resident memory.
    pub rss: Option<u64>,
}

/// All numbers over time, of a bounded number of moments and types.
#[derive(Debug, Clone, Default)]
pub struct History {
    moments: Vec<MomentTotals>,
    /// Objects and bytes of a type at each moment from the first at which it was there.
    types: FxHashMap<String, (usize, Vec<(u64, u64)>)>,
    /// Of so many moments one is kept, and how many have gone by since the last that was.
    of: usize,
    passed: usize,
}

impl History {
    /// Takes a summary in.
    pub fn add(&mut self, census: &Census) {
        if self.passed + 1 < self.of {
            self.passed += 1;
            return;
        }
        self.passed = 0;
        if self.moments.len() >= MOST_MOMENTS {
            self.halve();
        }
        let now = self.moments.len();
        self.moments.push(MomentTotals {
            at: census.taken_at,
            total: census.total(),
            rss: census.rss_bytes,
        });
        for row in &census.types {
            if !self.types.contains_key(&row.name) && self.types.len() >= MOST_FOLLOWED {
                continue;
            }
            let (first, points) = self
                .types
                .entry(row.name.clone())
                .or_insert((now, Vec::new()));
            // It may have been gone meanwhile.
            points.resize(now - *first, (0, 0));
            points.push((row.objects, row.bytes));
        }
    }

    /// Keeps every other moment.
    fn halve(&mut self) {
        let mut at = 0;
        self.moments.retain(|_| {
            at += 1;
            at % 2 == 1
        });
        for (first, points) in self.types.values_mut() {
            let mut at = *first;
            points.retain(|_| {
                at += 1;
                at % 2 == 1
            });
            *first = first.div_ceil(2);
        }
        self.of = self.of.max(1) * 2;
    }

    /// The moments.
    pub fn moments(&self) -> &[MomentTotals] {
        &self.moments
    }

    /// Each type with its objects and bytes at each moment.
    pub fn types(&self) -> impl Iterator<Item = (&str, Vec<(u64, u64)>)> {
        self.types.iter().map(|(name, (first, points))| {
            let mut all = vec![(0, 0); *first];
            all.extend(points);
            all.resize(self.moments.len(), (0, 0));
            (name.as_str(), all)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heap::census::{Counting, Doubts, Unsure};
    use std::time::Duration;

    fn census(seconds: u64, rows: &[(&str, u64, u64)]) -> Census {
        Census {
            counting: Counting::Reachable,
            python: "3.12.1".to_string(),
            pid: None,
            command: String::new(),
            taken_at: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
            pause_ms: None,
            rss_bytes: None,
            types: rows
                .iter()
                .map(|(name, objects, bytes)| TypeCount {
                    name: name.to_string(),
                    objects: *objects,
                    bytes: *bytes,
                })
                .collect(),
            doubts: Doubts::default(),
            unsure: Unsure::default(),
        }
    }

    #[test]
    fn only_what_grew_in_every_step_is_named_with_its_rate() {
        let mut growing = Growing::from(&census(
            0,
            &[("a", 10, 100), ("b", 5, 50), ("c", 1, 10), ("d", 3, 30)],
        ));
        assert_eq!(growing.growths(), []);
        // c holds its number and grows in bytes; e is new.
        growing.step(&census(
            30,
            &[
                ("a", 20, 200),
                ("b", 6, 60),
                ("c", 1, 20),
                ("d", 3, 30),
                ("e", 1, 8),
            ],
        ));
        growing.step(&census(
            60,
            &[
                ("a", 30, 300),
                ("b", 6, 60),
                ("c", 1, 30),
                ("e", 2, 16),
                ("f", 9, 9),
            ],
        ));
        let found: Vec<_> = growing
            .growths()
            .into_iter()
            .map(|g| (g.name, g.objects, g.bytes, g.objects_per_minute))
            .collect();
        assert_eq!(
            found,
            [
                ("a".to_string(), 20, 200, 20.0),
                ("c".to_string(), 0, 20, 0.0),
                ("e".to_string(), 2, 16, 2.0),
            ]
        );
        assert_eq!((growing.steps(), growing.seconds()), (2, 60.0));
    }

    #[test]
    fn changes_do_not_overflow() {
        assert_eq!(change(5, 3), -2);
        assert_eq!(change(0, u64::MAX), i64::MAX);
        assert_eq!(change(u64::MAX, 0), i64::MIN);
    }

    #[test]
    fn a_history_of_any_length_is_kept_with_fewer_moments() {
        let mut history = History::default();
        let at = |step: u64| census(step, &[("a", step, 10 * step)]);
        for step in 0..9000u64 {
            let mut now = at(step);
            if step >= 5001 {
                now.types.push(TypeCount {
                    name: "late".to_string(),
                    objects: 1,
                    bytes: step,
                });
            }
            history.add(&now);
        }
        let moments = history.moments();
        assert!((1000..=2000).contains(&moments.len()), "{}", moments.len());
        let seconds = |at: SystemTime| {
            at.duration_since(SystemTime::UNIX_EPOCH)
                .expect("after")
                .as_secs()
        };
        for (name, points) in history.types() {
            assert_eq!(points.len(), moments.len());
            for (moment, point) in moments.iter().zip(points) {
                let step = seconds(moment.at);
                let expected = match name {
                    "a" => (step, 10 * step),
                    _ if step >= 5001 => (1, step),
                    _ => (0, 0),
                };
                assert_eq!(point, expected, "{name} at {step}");
            }
        }
    }
}
