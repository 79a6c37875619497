//! One sample of the threads of one lock: what to copy, the copy, the proof that nothing moved, and trying again
//! where something had to be learnt first.

use std::time::Duration;

use super::decode::Decoder;
use super::hold::Held;
use super::lock::collects;
use super::thread::Walk;
use super::window::Beside;
use super::{CLOSED_CPUS, Domain, FastReader, Stillness, fault};
use crate::layout;
use crate::profile::Tables;
use crate::sample::{Fault, ThreadStacks};
use crate::target::cpu;
use crate::target::memory::{Memory, Range};

/// Reads of one sample before it is given up. On the target's CPU nothing changes between them: they are for
/// learning where things are, not for luck.
const ATTEMPTS: usize = 16;

/// Moves to another CPU in one sample before it is given up.
const MOST_MOVES: usize = 5;

/// How long a state that is no stack may last.
const UNFINISHED: Duration = Duration::from_micros(20);

/// How an attempt at a sample ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    Done,
    /// Something was learnt; nothing has changed meanwhile.
    Again,
    /// We are on another CPU now.
    Moved,
    /// We were interrupted.
    Interrupted,
    /// The list of threads has changed.
    Stale,
    /// The last holder of the lock is to be stopped, and is not.
    Loose(u64),
    /// A stack in the making.
    Unfinished,
    /// A thread that is ending holds the lock.
    Ending,
}

impl<M: Memory> FastReader<M> {
    /// Reads the stacks of the threads of one lock that may have changed.
    pub(super) fn read_domain(
        &mut self,
        domain: usize,
        tables: &mut Tables,
        stacks: &mut ThreadStacks,
        held: &mut Held,
        now_us: u64,
    ) -> Result<(), Fault> {
        let (mut moves, mut unfinished) = (0, 0);
        self.copies = 0;
        for _ in 0..ATTEMPTS {
            // Before the copy: it is of a later time.
            let slices = self.slices(domain, stacks);
            if self.has_not_run(domain, slices) && !self.stale {
                return Ok(());
            }
            match self.attempt(domain, tables, stacks, held, now_us)? {
                Attempt::Done => {
                    if let Some(thread) = self.threads.get_mut(domain) {
                        thread.slices = slices;
                    }
                    return Ok(());
                }
                Attempt::Again | Attempt::Interrupted => {}
                Attempt::Moved => {
                    moves += 1;
                    if moves > MOST_MOVES {
                        break;
                    }
                }
                Attempt::Stale => {
                    self.relisted_us = Some(now_us);
                    // The lists may change while they are read: we may be on another CPU.
                    match self.relist() {
                        Err(Fault::Torn) => continue,
                        outcome => outcome?,
                    }
                    self.arrange(stacks);
                    if self.domains.len() <= domain {
                        return Ok(());
                    }
                }
                Attempt::Loose(holder) => self.hold_holder(held, holder, stacks)?,
                Attempt::Ending => std::thread::sleep(UNFINISHED),
                Attempt::Unfinished => {
                    unfinished += 1;
                    if unfinished > 1 {
                        break;
                    }
                    if self.stillness != Stillness::None {
                        std::thread::sleep(UNFINISHED);
                    }
                }
            }
        }
        self.stale = true;
        Err(Fault::Torn)
    }

    /// Wants what has to be copied for the threads of `domain` that may have changed.
    fn plan(&mut self, domain: usize, lock: Domain, holder_ident: Option<u64>) {
        self.window.clear();
        for thread in &mut self.threads {
            if thread.domain == domain && thread.dirty {
                thread.want(&self.offsets, &mut self.window);
            }
        }
        (self.collecting, self.collector) = self.collecting_words(lock);
        self.window.want(self.collecting, 4);
        self.window.want(self.collector, 8);
        let rseq = holder_ident
            .filter(|_| self.stillness == Stillness::SameCpu)
            .and_then(|ident| self.rseq_number(ident));
        // Where nobody but the holder is copied, the lock may be read at any time of the copy: the holder stands still
        // from before to after it, as the CPU proves, and nobody else changes what is copied.
        self.alone = !self
            .threads
            .iter()
            .any(|thread| thread.domain == domain && thread.dirty && thread.address != lock.holder);
        let words = lock.words(&self.offsets);
        self.lock_inside = self.alone && rseq.is_some();
        if self.lock_inside {
            (self.window).want(words.address as u64, words.length as u64);
        }
        let number = rseq.map(|address| Range {
            address: address as usize,
            length: 4,
        });
        let words = (!self.lock_inside).then_some(words);
        self.window.plan(words.into_iter().chain(number));
        self.planned = Some((domain, lock.holder));
    }

    /// Where the interpreter of a lock's holder says whether it collects garbage, and in which thread; 0 when that is not known.
    fn collecting_words(&self, lock: Domain) -> (u64, u64) {
        let mut threads = self.threads.iter();
        let holder = threads.find(|thread| thread.address == lock.holder);
        let mut interpreters = self.interpreters.iter();
        holder
            .and_then(|holder| interpreters.find(|known| known.address == holder.interpreter))
            .map_or((0, 0), |known| (known.collecting, known.collector))
    }

    fn attempt(
        &mut self,
        domain: usize,
        tables: &mut Tables,
        stacks: &mut ThreadStacks,
        held: &Held,
        now_us: u64,
    ) -> Result<Attempt, Fault> {
        let Some(lock) = self.domains.get(domain).copied() else {
            return Ok(Attempt::Done);
        };
        if self.stale {
            return Ok(Attempt::Stale);
        }
        let holder = self
            .threads
            .iter_mut()
            .find(|thread| thread.address == lock.holder && thread.domain == domain);
        let holder_ident = holder.map(|thread| {
            // Whoever had the lock last may have run since.
            thread.replan |= !thread.dirty;
            thread.dirty = true;
            thread.user.unwrap_or(thread.ident)
        });
        let stopped = self.stillness == Stillness::Stopped;
        if stopped && holder_ident.is_some() && !held.has(lock.holder) {
            return Ok(Attempt::Loose(lock.holder));
        }
        let replan = self
            .threads
            .iter()
            .any(|thread| thread.dirty && thread.replan && thread.domain == domain);
        if replan || self.planned != Some((domain, lock.holder)) {
            self.plan(domain, lock, holder_ident);
        }
        // Whoever runs in the middle of the copy, however briefly, may leave no other trace: not on the CPU's number, and
        // hardly on the clock.
        let proves = self.stillness == Stillness::SameCpu && holder_ident.is_some();
        let mut pauses = proves.then(cpu::pauses);
        let lasting = proves && self.window.has_lasting();
        if !lasting || !self.window.has_kept() {
            self.window.fill(&self.memory).map_err(fault)?;
        }
        if lasting {
            // Too much for one instant: the outer frames of a deep stack are compared after the rest. The scheduler sends
            // the target elsewhere meanwhile, so they are not copied again for that.
            pauses = Some(cpu::pauses());
            self.window.fill_changing(&self.memory).map_err(fault)?;
        }
        self.retried += u64::from(self.copies > 0);
        self.copies += 1;
        let copied_at_once = pauses.is_some_and(|pauses| pauses == cpu::pauses());

        if let Some(attempt) = self.check_lock(domain, lock)? {
            return Ok(attempt);
        }
        let is_locked = self.domains.get(domain).is_some_and(|lock| lock.locked);
        if holder_ident.is_none() && is_locked && self.dead.is_none() {
            // New to us; or it is ending, and out of the list already: it has no stack, but time to get by.
            return Ok(if self.relisted_us == Some(now_us) {
                Attempt::Ending
            } else {
                Attempt::Stale
            });
        }
        if self.stillness == Stillness::SameCpu
            && let Some(ident) = holder_ident
        {
            let Some(cpu) = self.holder_cpu(ident, stacks) else {
                return Ok(Attempt::Stale);
            };
            if !self.pin.is_on(cpu) {
                if self.pin.move_to(cpu) {
                    return Ok(Attempt::Moved);
                }
                self.pin.let_go();
                self.stillness = Stillness::None;
                self.why_approximate = Some(CLOSED_CPUS);
                self.planned = None;
            }
        }
        if lasting && !copied_at_once {
            // To decode a deep stack takes longer than to copy it again.
            return Ok(Attempt::Interrupted);
        }
        let (result, beside) = self.decode(domain, tables, stacks, now_us)?;
        if result != Attempt::Done {
            return Ok(result);
        }
        if proves && self.stillness == Stillness::SameCpu {
            let stood_still = if beside {
                pauses.is_some_and(|pauses| pauses == cpu::pauses())
            } else {
                copied_at_once
            };
            if !stood_still || (lasting && !self.window.lasts(&self.memory)) {
                return Ok(Attempt::Interrupted);
            }
        }
        if beside && !held.is_all() && !self.is_unchanged(domain, holder_ident, stacks)? {
            return Ok(Attempt::Again);
        }
        // The holder goes on running; all others stand still until the lock is given away.
        let holder = self.domains.get(domain).map_or(0, |lock| lock.holder);
        for thread in &mut self.threads {
            if thread.domain == domain && thread.address != holder && thread.dirty {
                thread.dirty = false;
                self.planned = None;
            }
        }
        Ok(Attempt::Done)
    }

    /// Compares the lock at the end of the copy with what the copy was planned for.
    fn check_lock(&mut self, domain: usize, before: Domain) -> Result<Option<Attempt>, Fault> {
        let words = if self.lock_inside {
            let range = before.words(&self.offsets);
            let inside = (self.window).get(range.address as u64, range.length, &mut 0);
            inside.unwrap_or_default()
        } else {
            self.window.tail(0)
        };
        let mut now = before.read(&self.offsets, words);
        now.collecting = collects(&self.window, self.collecting, self.collector, now.holder);
        if let Some(known) = self.domains.get_mut(domain) {
            *known = now;
        }
        if now.switches == before.switches && now.holder == before.holder {
            return Ok(None);
        }
        // One switch: only the old and the new holder have run. More: anybody.
        let all = now.switches.wrapping_sub(before.switches) != 1;
        for thread in &mut self.threads {
            let ran = all || thread.address == now.holder || thread.address == before.holder;
            if thread.domain == domain && ran && !thread.dirty {
                thread.dirty = true;
                self.planned = None;
            }
        }
        if !self.same_lists()? {
            return Ok(Some(Attempt::Stale));
        }
        if self.stillness == Stillness::None && self.planned.is_some() {
            // Everybody who ran is in the copy; it is approximate anyway.
            return Ok(None);
        }
        Ok(Some(Attempt::Again))
    }

    /// Whether what was read after the copy is of the same instant: the last holder of the lock has not run since, nor
    /// has any other thread whose stack was copied.
    fn is_unchanged(
        &mut self,
        domain: usize,
        holder_ident: Option<u64>,
        stacks: &ThreadStacks,
    ) -> Result<bool, Fault> {
        let may_have_run = match self.stillness {
            Stillness::SameCpu => {
                if let Some(ident) = holder_ident
                    && !self.is_here(ident, stacks)
                {
                    return Ok(false);
                }
                !self.alone
            }
            Stillness::Stopped => true,
            Stillness::None | Stillness::Dead => false,
        };
        Ok(!may_have_run || self.same_lock(domain)?)
    }

    /// Whether a thread ran on our CPU last. The scheduler may have moved it to another one, where it runs.
    fn is_here(&mut self, ident: u64, stacks: &ThreadStacks) -> bool {
        let cpu = self.cpu_now(ident, stacks);
        cpu.is_some_and(|cpu| self.pin.is_on(cpu))
    }

    /// The CPU that a thread ran on last, read now.
    fn cpu_now(&mut self, ident: u64, stacks: &ThreadStacks) -> Option<u32> {
        let number = self.rseq_number(ident).and_then(|address| {
            let mut bytes = [0; 4];
            self.memory.read(address, &mut bytes).ok()?;
            layout::int(&bytes, 0)
        });
        self.cpu_of(ident, number, stacks)
    }

    /// Goes to the CPU of the one lock's last holder, if we are to be there: it stands still then, for a while.
    pub(super) fn follow_holder(&mut self, stacks: &ThreadStacks) {
        let [lock] = self.domains.as_slice() else {
            return;
        };
        let mut threads = self.threads.iter();
        let holder = threads.find(|thread| thread.address == lock.holder);
        if let Some(ident) = holder.map(|thread| thread.user.unwrap_or(thread.ident))
            && self.stillness == Stillness::SameCpu
            && let Some(cpu) = self.cpu_now(ident, stacks)
            && !self.pin.is_on(cpu)
        {
            self.pin.move_to(cpu);
        }
    }

    /// Whether no Python has run since the locks were read, unless we were interrupted: of the one lock the last holder is on
    /// our CPU, and nobody else has had it.
    pub(super) fn stands_still(&mut self, stacks: &ThreadStacks) -> Result<bool, Fault> {
        let [lock] = self.domains.as_slice() else {
            return Ok(false);
        };
        let mut threads = self.threads.iter();
        let holder = threads.find(|thread| thread.address == lock.holder);
        let Some(ident) = holder.map(|thread| thread.user.unwrap_or(thread.ident)) else {
            return Ok(false);
        };
        Ok(self.stillness == Stillness::SameCpu
            && self.is_here(ident, stacks)
            && self.same_lock(0)?)
    }

    /// Where a thread has the number of the CPU that it ran on last: `cpu_id` of its `struct rseq` (linux/rseq.h).
    fn rseq_number(&self, ident: u64) -> Option<u64> {
        ident.checked_add_signed(self.rseq?)?.checked_add(4)
    }

    /// The CPU of the last holder at the end of the copy; `None` when it cannot be told.
    fn holder_cpu(&mut self, ident: u64, stacks: &ThreadStacks) -> Option<u32> {
        let place = usize::from(!self.lock_inside);
        let number = self
            .rseq
            .and_then(|_| layout::int(self.window.tail(place), 0));
        self.cpu_of(ident, number, stacks)
    }

    /// The CPU that a thread ran on last: `number` is what it says itself, negative where it does not.
    fn cpu_of(&mut self, ident: u64, number: Option<i32>, stacks: &ThreadStacks) -> Option<u32> {
        if let Some(cpu) = number.and_then(|number| u32::try_from(number).ok()) {
            return Some(cpu);
        }
        let stack = stacks
            .threads
            .iter()
            .find(|stack| stack.python_id == ident && stack.inside.is_none())
            .or_else(|| stacks.threads.iter().find(|stack| stack.python_id == ident))?;
        let tid = self.os_threads.resolve(i32::try_from(stack.os_id).ok()?)?;
        cpu::last_cpu(self.pid, tid)
    }

    /// Decodes the copied stacks; whether something was read beside the copy.
    fn decode(
        &mut self,
        domain: usize,
        tables: &mut Tables,
        stacks: &mut ThreadStacks,
        now_us: u64,
    ) -> Result<(Attempt, bool), Fault> {
        let (mut any_late, mut again) = (false, false);
        let memory = Beside::new(&self.window, &self.memory);
        let mut decoder = Decoder {
            offsets: &self.offsets,
            memory: &memory,
            codes: &mut self.codes,
            builtins: self.builtins.as_mut(),
            tables,
            now_us,
            approximate: self.stillness == Stillness::None,
            lost: self.dead.as_mut().map(|dead| &mut dead.lost_frames),
        };
        for (thread, stack) in self.threads.iter_mut().zip(&mut stacks.threads) {
            if thread.domain != domain || !thread.dirty {
                continue;
            }
            match thread.walk(&self.offsets, &self.memory, &self.window, &mut self.frames) {
                Walk::Whole { late } => any_late |= late,
                Walk::Again => {
                    again = true;
                    continue;
                }
                Walk::Stale => return Ok((Attempt::Stale, any_late)),
                // As far as it goes.
                Walk::Broken | Walk::TooDeep if decoder.lost.is_some() => {
                    if let Some(lost) = &mut decoder.lost {
                        lost.insert(thread.ident);
                    }
                }
                Walk::Broken => return Ok((Attempt::Unfinished, any_late)),
                Walk::TooDeep => {
                    self.too_deep = true;
                    return Ok((Attempt::Unfinished, any_late));
                }
            }
            self.longest = self.longest.max(self.frames.len());
            self.version += 1;
            stack.version = self.version;
            if !decoder.decode(thread, &self.frames, stack) {
                return Ok((Attempt::Unfinished, any_late));
            }
            if let Some(handling) = &mut self.handling {
                stack.handles = handling.is_any(&self.offsets, &memory, &thread.handled);
            }
        }
        let attempt = if again { Attempt::Again } else { Attempt::Done };
        Ok((attempt, any_late || memory.reads.get() > 0))
    }
}
