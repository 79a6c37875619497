//! The parts of all samplers, put together, with what is known of the whole.

use super::assemble::assemble;
use super::family::Gathered;
use super::{Outcome, Progress, Root};
use crate::error::Result;
use crate::sample::SampleOptions;

/// Puts the parts together, with what is known of the whole.
pub(super) fn finish(
    gathered: Gathered,
    root: Root,
    options: &SampleOptions,
    started_at_ms: u64,
    end_us: u64,
    progress: Option<&Progress>,
) -> Result<Outcome> {
    // The recording begins when the first process could be read, not when we began to look for it.
    let opened = gathered
        .parts
        .iter()
        .filter_map(|(_, part)| part.as_ref().ok().map(|part| part.opened_us));
    let opened_us = opened.min().unwrap_or(end_us);
    let mut outcome = assemble(gathered, root, options, progress)?;
    let profile = &mut outcome.profile;
    for thread in &mut profile.threads {
        thread.started_us = thread.started_us.saturating_sub(opened_us);
    }
    profile.meta.command = profile
        .processes
        .first()
        .map_or_else(String::new, |process| process.command.clone());
    profile.meta.pid = root.pid().0;
    profile.meta.started_at_ms = started_at_ms + opened_us / 1000;
    profile.meta.duration_us = end_us - opened_us;
    Ok(outcome)
}
