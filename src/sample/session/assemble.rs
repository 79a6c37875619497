//! What the processes of a session brought, put together.

use super::family::Gathered;
use super::{LATE, Outcome, Progress, Root};
use crate::error::{ErrorKind, Result};
use crate::profile::{Meta, Origin, Profile};
use crate::sample::SampleOptions;

/// Puts the parts together. The root's failure is an error, unless its children were followed and gave
/// samples, or it was started by us and ended too early.
pub(super) fn assemble(
    gathered: Gathered,
    root: Root,
    options: &SampleOptions,
    progress: Option<&Progress>,
) -> Result<Outcome> {
    let mut profile = Profile::default();
    let mut notes = gathered.notes;
    let mut first_error = None;
    let mut meta = Meta {
        origin: Origin::Sampled,
        mode: options.mode,
        rate_hz: options.rate.hz().unwrap_or(0.0),
        blocking: options.blocking,
        split_threads: options.threads,
        has_cpu_time: true,
        ..Meta::default()
    };
    let mut lateness = 0.0;
    for (pid, part) in gathered.parts {
        match part {
            Ok(part) => {
                if meta.python.is_empty() {
                    meta.python.clone_from(&part.python);
                    meta.reader.clone_from(&part.reader);
                }
                meta.approximate_stacks |= !part.exact_stacks;
                meta.has_states |= part.has_states;
                meta.samples += part.samples;
                meta.given_up += part.given_up;
                meta.retried += part.retried;
                lateness += part.lateness_us * part.samples as f64;
                for note in part.notes {
                    if !notes.contains(&note) {
                        notes.push(note);
                    }
                }
                profile.absorb(&part.recorder.profile);
            }
            Err(error) if pid == root.pid() => first_error = Some(error),
            // A child that is no Python, or ended at once, is no failure; what else was left out stands in the notes.
            Err(_) => {}
        }
    }
    if let Some(error) = first_error {
        let too_early = matches!(root, Root::Started(_))
            && matches!(
                error.kind(),
                ErrorKind::ProcessEnded | ErrorKind::NoSuchProcess
            );
        let not_ours = matches!(root, Root::Started(_))
            && matches!(
                error.kind(),
                ErrorKind::NotPython | ErrorKind::UnsupportedPython
            );
        if let Some(child) = gathered.python_child {
            notes.push(format!(
                "{}; it starts Python in a child process ({child}): add --subprocesses to follow those",
                error.why()
            ));
        } else if too_early {
            notes.push("the program ended before its Python could be read".to_string());
        } else if not_ours {
            let supported = match error.hints().next() {
                Some(hint) if error.kind() == ErrorKind::UnsupportedPython => format!(" ({hint})"),
                _ if options.subprocesses => ", nor has it started one that was read".to_string(),
                _ => "; if it starts one, add --subprocesses".to_string(),
            };
            if profile.runs.is_empty() {
                notes.push(format!("nothing was sampled: {}{supported}", error.why()));
            }
        } else if profile.runs.is_empty() {
            if let Some(progress) = progress {
                notes.iter().for_each(|note| progress.say(note));
            }
            return Err(error);
        } else if progress.is_none_or(|progress| progress.tell.get().is_none()) {
            notes.push(error.to_string());
        }
    }
    if meta.samples > 0 {
        meta.mean_lateness_us = lateness / meta.samples as f64;
    }
    let period_us = options.rate.hz().map_or(f64::INFINITY, |hz| 1e6 / hz);
    if meta.mean_lateness_us > LATE * period_us {
        notes.push(format!(
            "samples came {:.0} us late on average: the machine is too busy, or stacks are too deep, for the rate; functions that sleep \
             may have got time of others",
            meta.mean_lateness_us
        ));
    }
    profile.meta = meta;
    Ok(Outcome { profile, notes })
}
