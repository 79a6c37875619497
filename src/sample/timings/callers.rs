//! Who calls the functions that are counted: stacks, sampled a hundred or two times a second, that have one of them on
//! them, by its direct caller.

use std::sync::atomic::AtomicBool;

use rustc_hash::FxHashMap;

use super::Word;
use crate::profile::{FunctionId, FunctionKind, Tables};
use crate::sample::ThreadStacks;
use crate::sample::choose;
use crate::sample::clock::Clock;
use crate::sample::pyspy::ReaderOptions;
use crate::units::{Pid, Rate};

/// Samples a second.
const HZ: f64 = 150.0;

/// Faults in a row after which no more is read.
const MOST_FAULTS: u32 = 500;

/// A function that calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// `co_filename`; empty for none: the function is a thread's first.
    pub file: String,
    /// First line.
    pub line: u32,
    /// `co_name`.
    pub name: String,
    /// Stacks on which it is the direct caller.
    pub samples: u64,
}

/// What the stacks showed of one function.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Stacks that have it on them.
    pub samples: u64,
    /// By direct caller, most first.
    pub callers: Vec<Caller>,
}

/// Samples until `stop` is set; what was seen of each of `words`, and how many stacks were looked at in all.
pub fn watch(pid: Pid, words: &[Word], stop: &AtomicBool) -> (Vec<Seen>, u64) {
    let mut counts: Vec<FxHashMap<Option<FunctionId>, u64>> =
        vec![FxHashMap::default(); words.len()];
    let mut seen = vec![Seen::default(); words.len()];
    let options = ReaderOptions {
        no_builtins: true,
        ..ReaderOptions::default()
    };
    let Ok(mut opened) = choose::open(pid, options) else {
        return (seen, 0);
    };
    let (mut tables, mut stacks) = (Tables::default(), ThreadStacks::default());
    let mut clock = Clock::new(Rate::Hz(HZ), false);
    let mut known: FxHashMap<FunctionId, Option<usize>> = FxHashMap::default();
    let (mut looked, mut faults) = (0, 0);
    while clock.wait(stop) && faults < MOST_FAULTS {
        if opened.reader.read(&mut tables, &mut stacks).is_err() {
            faults += 1;
            continue;
        }
        faults = 0;
        looked += 1;
        for thread in &stacks.threads {
            let mut found = [false; crate::target::watchpoint::REGISTERS];
            for (depth, frame) in thread.frames.iter().enumerate().rev() {
                let function = tables.get_frame(frame.frame).function;
                let word = known
                    .entry(function)
                    .or_insert_with(|| which(&tables, function, words));
                let Some(word) = *word else { continue };
                // The innermost one of a stack stands for all.
                let Some(done) = found.get_mut(word).filter(|done| !**done) else {
                    continue;
                };
                *done = true;
                let before = depth
                    .checked_sub(1)
                    .and_then(|depth| thread.frames.get(depth));
                let caller = before.map(|frame| tables.get_frame(frame.frame).function);
                if let (Some(counts), Some(seen)) = (counts.get_mut(word), seen.get_mut(word)) {
                    seen.samples += 1;
                    *counts.entry(caller).or_default() += 1;
                }
            }
        }
    }
    for (seen, counts) in seen.iter_mut().zip(counts) {
        let caller = |function: Option<FunctionId>, samples| Caller {
            file: function.map_or(String::new(), |id| tables.file(id).to_string()),
            line: function.map_or(0, |id| tables.line(id)),
            name: function.map_or(String::new(), |id| tables.name(id).to_string()),
            samples,
        };
        seen.callers = counts
            .into_iter()
            .map(|(function, samples)| caller(function, samples))
            .collect();
        seen.callers.sort_by(|a, b| {
            let by_name = || (&a.file, a.line, &a.name).cmp(&(&b.file, b.line, &b.name));
            b.samples.cmp(&a.samples).then_with(by_name)
        });
    }
    (seen, looked)
}

fn which(tables: &Tables, function: FunctionId, words: &[Word]) -> Option<usize> {
    let is_python = tables.get_function(function).kind == FunctionKind::Python;
    let (file, line, name) = (
        tables.file(function),
        tables.line(function),
        tables.name(function),
    );
    let is = |word: &Word| word.first_line == line && word.name == name && word.file == file;
    words.iter().position(|word| is_python && is(word))
}
