//! `biopsy heap rss`: where the resident memory is, of one process or of several that share pages.

use std::io::Write;

use clap::Args;

use super::input::{PauseArgs, no_heap};
use super::put;
use crate::error::{Error, ErrorKind, Result};
use crate::heap::rss::{Family, Member};
use crate::heap::subject::Subject;
use crate::target::list;
use crate::target::sharing::Frames;
use crate::view::heap::json::holders as json;
use crate::view::heap::rss;

/// Tell where the resident memory of a process is: Python objects, free memory that the allocators keep, C's heap, files,
/// stacks. Answers whether a leak is in Python at all.
///
/// Of several, such as the workers of a server that forks them, the pages that they share are counted once.
#[derive(Debug, Args)]
pub struct RssArgs {
    /// Process id or snapshot; of several the memory is added up, shared pages once
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// The one Python process that has this in its command line
    #[arg(long, value_name = "PATTERN", conflicts_with = "targets")]
    name: Option<String>,
    #[command(flatten)]
    pause: PauseArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &RssArgs, out: &mut dyn Write) -> Result<()> {
    let pause = args.pause.with_mappings();
    let text = match (args.targets.as_slice(), &args.name) {
        ([], None) => return Err(no_heap()),
        ([], Some(pattern)) => {
            let pid = list::find_by_name(pattern)?;
            one(args, pause.open_process(pid)?)?
        }
        ([target], _) => one(args, pause.open(target)?)?,
        (targets, _) => {
            let family = family(targets, &pause)?;
            if args.json {
                json::family(&family)?
            } else {
                rss::family(&family)
            }
        }
    };
    put(out, &text)
}

fn one(args: &RssArgs, subject: Subject) -> Result<String> {
    let account = subject.account()?;
    if args.json {
        json::account(&account)
    } else {
        Ok(rss::text(&account))
    }
}

/// One after the other, so that there is one copy of a process at a time.
fn family(targets: &[String], pause: &PauseArgs) -> Result<Family> {
    let cannot = |why: String| {
        Error::new(
            ErrorKind::NotAvailable,
            "cannot add up the resident memory",
            why,
        )
    };
    let mut members: Vec<Member> = Vec::new();
    let mut frames = Some(Frames::default());
    for target in targets {
        if members.iter().any(|known| known.name == *target) {
            let why = format!("{target} is named twice");
            return Err(Error::usage("cannot add up the resident memory", why));
        }
        let subject = pause.open(target)?;
        let process = subject.process();
        let account = subject.account()?;
        if account.sharing.is_none() {
            let why = format!("{target} does not say which of its pages are shared");
            return Err(cannot(why).hint("take a new snapshot of it: biopsy heap snapshot"));
        }
        // A snapshot does not say which pages it had, only how many.
        frames = frames.filter(|_| process.is_some());
        members.push(Member {
            name: target.clone(),
            process,
            account,
        });
    }
    // All together, at the end: what happened meanwhile is the same for all.
    if let Some(found) = &mut frames {
        let mut processes = members.iter().filter_map(|member| member.process);
        if !processes.all(|pid| found.add(pid)) {
            frames = None;
        }
    }
    Ok(Family {
        members,
        once: frames.map(|frames| frames.bytes()),
    })
}
