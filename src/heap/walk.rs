//! All objects: from the collector's lists and the other roots along their references, each once.
//!
//! One thread follows the lists and hands what it finds to the others in batches, then helps. What was seen is a
//! bitmap; each thread counts for itself.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use super::Heap;
use super::census::Doubts;
use super::decode::sinks::Targets;
use super::decode::{references, size};
use super::memory::{Bits, Place};
use super::open::LINK_MASK;
use super::types::{Holding, TypeIndex, TypeInfo, Types};
use super::{fragments, roots};
use crate::layout::heap::GC_HEAD;

/// Objects in a batch.
const BATCH: usize = 4096;
/// A stack this deep is shared with threads that wait.
const DEEP: usize = 256;

/// Objects and their bytes.
pub type Count = (u64, u64);

/// What a walk found.
#[derive(Debug)]
pub struct Walked {
    /// All objects.
    pub seen: Bits,
    /// Those on the lists that `gc.get_objects()` shows.
    pub young: Bits,
    /// Types as each thread met them, and how many objects of each it counted.
    pub counts: Vec<(Types, Vec<Count>)>,
    /// What was not sure.
    pub doubts: Doubts,
}

enum Work {
    /// Objects that may have been seen.
    Visit(Vec<u64>),
    /// Objects that this walk saw first.
    Open(Vec<u64>),
}

#[derive(Default)]
struct Queue {
    work: Vec<Work>,
    waiting: usize,
    over: bool,
}

/// What the threads share.
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    hungry: AtomicUsize,
    threads: usize,
}

impl Shared {
    fn new(threads: usize) -> Shared {
        Shared {
            queue: Mutex::default(),
            changed: Condvar::new(),
            hungry: AtomicUsize::new(0),
            threads,
        }
    }

    fn give(&self, work: Work) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.work.push(work);
        drop(queue);
        self.changed.notify_one();
    }

    /// Something to do, or nothing when all threads are done.
    fn take(&self) -> Option<Work> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.waiting += 1;
        loop {
            if let Some(work) = queue.work.pop() {
                queue.waiting -= 1;
                self.hungry.store(queue.waiting, Ordering::Relaxed);
                return Some(work);
            }
            if queue.waiting == self.threads {
                queue.over = true;
                self.changed.notify_all();
            }
            if queue.over {
                return None;
            }
            self.hungry.store(queue.waiting, Ordering::Relaxed);
            queue = self
                .changed
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Follows the list that starts at `head`; gives each object that `tracked` does not have yet. A list that is broken
/// is followed from its other end too; whether it was whole.
pub fn follow(heap: &Heap, head: u64, tracked: &Bits, mut each: impl FnMut(u64)) -> bool {
    for end in [0, 8] {
        let mut link = head;
        while let Some(next) = heap.memory.word(link + end) {
            let next = next & LINK_MASK;
            if next == head {
                return end == 0;
            }
            let Some(object) = heap.memory.place(next.wrapping_add(GC_HEAD)) else {
                break;
            };
            // A list that runs into itself ends here.
            if !tracked.set_alone(object.bit()) {
                break;
            }
            each(object.address());
            link = next;
        }
    }
    false
}

/// Walks everything.
pub fn walk(heap: &Heap) -> Walked {
    let seen = Bits::new(&heap.memory);
    let young = Bits::new(&heap.memory);
    let shared = Shared::new(heap.threads);
    let (counts, doubts) = std::thread::scope(|scope| {
        let helpers: Vec<_> = (1..heap.threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut walker = Walker::new(heap, &seen, &shared);
                    walker.work();
                    walker.finish()
                })
            })
            .collect();
        let mut walker = Walker::new(heap, &seen, &shared);
        walker.start(&young);
        walker.work();
        let (counts, doubts) = walker.finish();
        let mut doubts = sum(doubts, heap.doubts);
        let mut all = vec![counts];
        for helper in helpers {
            // A helper that failed has nothing to give; it cannot fail on what it reads.
            if let Ok((counts, more)) = helper.join() {
                all.push(counts);
                doubts = sum(doubts, more);
            }
        }
        (all, doubts)
    });
    Walked {
        seen,
        young,
        counts,
        doubts,
    }
}

fn sum(a: Doubts, b: Doubts) -> Doubts {
    Doubts {
        torn: a.torn + b.torn,
        unreadable: a.unreadable + b.unreadable,
        conservative: a.conservative + b.conservative,
        missing: a.missing.max(b.missing),
    }
}

struct Walker<'h, 'a> {
    heap: &'h Heap<'a>,
    seen: &'h Bits,
    shared: &'h Shared,
    alone: bool,
    types: Types,
    counts: Vec<Count>,
    stack: Vec<(u64, TypeIndex)>,
    sink: Targets,
    doubts: Doubts,
}

impl<'h, 'a> Walker<'h, 'a> {
    fn new(heap: &'h Heap<'a>, seen: &'h Bits, shared: &'h Shared) -> Walker<'h, 'a> {
        Walker {
            heap,
            seen,
            shared,
            alone: shared.threads == 1,
            types: Types::default(),
            counts: Vec::new(),
            stack: Vec::new(),
            sink: Targets::new(heap),
            doubts: Doubts::default(),
        }
    }

    fn finish(self) -> ((Types, Vec<Count>), Doubts) {
        ((self.types, self.counts), self.doubts)
    }

    /// The roots, and the collector's lists in batches.
    fn start(&mut self, young: &Bits) {
        let roots = roots::find(self.heap).into_iter().map(|(object, _)| object);
        self.shared.give(Work::Visit(roots.collect()));
        let permanent = Bits::new(&self.heap.memory);
        let mut batch = Vec::with_capacity(BATCH);
        let lists = [
            (&self.heap.young, young),
            (&self.heap.permanent, &permanent),
        ];
        for (heads, tracked) in lists {
            for head in heads.iter().rev() {
                let whole = follow(self.heap, *head, tracked, |object| {
                    batch.push(object);
                    if batch.len() == BATCH {
                        let full = std::mem::replace(&mut batch, Vec::with_capacity(BATCH));
                        self.shared.give(Work::Visit(full));
                    }
                });
                self.doubts.torn += u64::from(!whole);
            }
        }
        if self.heap.is_cut() {
            fragments::each(self.heap, |object| {
                if let Some(place) = self.heap.memory.place(object) {
                    young.set_alone(place.bit());
                }
                batch.push(object);
                if batch.len() == BATCH {
                    let full = std::mem::replace(&mut batch, Vec::with_capacity(BATCH));
                    self.shared.give(Work::Visit(full));
                }
                true
            });
        }
        self.shared.give(Work::Visit(batch));
    }

    fn work(&mut self) {
        while let Some(work) = self.shared.take() {
            match work {
                Work::Visit(objects) => {
                    for object in objects {
                        self.visit(object);
                        self.drain();
                    }
                }
                Work::Open(objects) => {
                    for object in objects {
                        let kind = self.heap.memory.word(object + 8).unwrap_or(0);
                        if let Some(index) = self.find_type(kind) {
                            self.stack.push((object, index));
                            self.drain();
                        }
                    }
                }
            }
        }
    }

    /// Opens what is on the stack, and what that leads to.
    fn drain(&mut self) {
        while let Some((object, index)) = self.stack.pop() {
            if self.stack.len() > DEEP && self.shared.hungry.load(Ordering::Relaxed) > 0 {
                let half = self.stack.len() / 2;
                let shared = self.stack.drain(..half).map(|(object, _)| object).collect();
                self.shared.hungry.store(0, Ordering::Relaxed);
                self.shared.give(Work::Open(shared));
            }
            if let Some(place) = self.heap.memory.place(object) {
                self.open(&place, index);
            }
        }
    }

    /// Looks at a reference.
    #[inline]
    fn visit(&mut self, object: u64) {
        let Some(place) = self.heap.memory.place(object) else {
            self.doubts.unreadable += 1;
            return;
        };
        if self.seen.has(place.bit()) {
            return;
        }
        let kind = place.word_or_0(8);
        match self.find_type(kind) {
            Some(index) => self.enter(&place, index),
            None => self.doubts.unreadable += 1,
        }
    }

    #[inline]
    fn find_type(&mut self, kind: u64) -> Option<TypeIndex> {
        let index = self.types.find(self.heap, kind)?;
        if index as usize >= self.counts.len() {
            self.meet_types();
        }
        Some(index)
    }

    /// Types that were found since the last time: the type of an object that exists is an object.
    #[cold]
    fn meet_types(&mut self) {
        while let Some(info) = self.types.all().get(self.counts.len()) {
            self.counts.push((0, 0));
            let address = info.address;
            self.visit(address);
        }
    }

    /// Counts an object that is seen for the first time, or puts it on the stack.
    #[inline]
    fn enter(&mut self, place: &Place, index: TypeIndex) {
        let first = if self.alone {
            self.seen.set_alone(place.bit())
        } else {
            self.seen.set(place.bit())
        };
        if !first {
            return;
        }
        if self.types.get(index).leaf {
            self.count(place, index);
        } else {
            self.stack.push((place.address(), index));
        }
    }

    #[inline]
    fn count(&mut self, place: &Place, index: TypeIndex) -> bool {
        let info = self.types.get(index);
        let (bytes, whole) = match size::size(self.heap, info, place) {
            Some(bytes) => (bytes, true),
            None => (info.basic, false),
        };
        self.doubts.torn += u64::from(!whole);
        if let Some(count) = self.counts.get_mut(index as usize) {
            count.0 += 1;
            count.1 = count.1.saturating_add(bytes);
        }
        whole
    }

    /// Counts an object and looks at what it refers to.
    fn open(&mut self, place: &Place, index: TypeIndex) {
        let whole = self.count(place, index);
        let info = self.types.get(index);
        self.doubts.conservative += u64::from(is_conservative(info));
        self.sink.targets.clear();
        self.sink.found.clear();
        let result = references(self.heap, info, place, true, &mut self.sink);
        self.doubts.torn += u64::from(whole && result.is_err());
        let targets = std::mem::take(&mut self.sink.targets);
        for target in &targets {
            self.visit(*target);
        }
        self.sink.targets = targets;
        if !self.sink.found.is_empty() {
            let found = std::mem::take(&mut self.sink.found);
            for word in &found {
                if let Some((place, index)) = plausible(self.heap, &mut self.types, *word) {
                    self.meet_types();
                    self.enter(&place, index);
                }
            }
            self.sink.found = found;
        }
    }
}

/// Whether the references of a type's instances are found by looking at a struct that is not known.
pub fn is_conservative(info: &TypeInfo) -> bool {
    info.holding == Holding::Unknown || info.scan.is_some()
}

/// The object at `word`, if what is there looks like one.
pub fn plausible<'a>(
    heap: &Heap<'a>,
    types: &mut Types,
    word: u64,
) -> Option<(Place<'a>, TypeIndex)> {
    let place = heap.memory.place(word)?;
    if !heap.counts_references(&place) {
        return None;
    }
    let index = types.find(heap, place.word(8)?)?;
    size::size(heap, types.get(index), &place)?;
    Some((place, index))
}
