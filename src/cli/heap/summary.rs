//! `biopsy heap summary`: objects by type.

use std::io::Write;

use clap::Args;

use super::args::{CountingArgs, Form, FormArgs, RowArgs};
use super::input::HeapTargetArgs;
use super::put;
use crate::error::Result;
use crate::heap::census::Census;
use crate::heap::subject::Source;
use crate::units::parse_bytes;
use crate::view::heap::Rows;
use crate::view::heap::json;
use crate::view::heap::summary;

/// Count the objects of a process, snapshot or core by type, as muppy prints it.
///
/// Sizes are those of sys.getsizeof. Counted is everything reachable, which is more than muppy sees: muppy knows
/// what the collector tracks and what that refers to directly. --muppy counts as muppy does.
#[derive(Debug, Args)]
pub struct SummaryArgs {
    #[command(flatten)]
    target: HeapTargetArgs,
    #[command(flatten)]
    counting: CountingArgs,
    #[command(flatten)]
    rows: RowArgs,
    /// Count only objects of at least this size: 512, 4KiB, 1MiB
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, conflicts_with = "muppy", help_heading = "Rows")]
    min_size: Option<u64>,
    #[command(flatten)]
    form: FormArgs,
}

pub fn run(args: &SummaryArgs, out: &mut dyn Write) -> Result<()> {
    let form = args.form.form();
    let mut subject = args.target.open()?;
    let census = match args.min_size {
        Some(least) => subject.census_of_big(least)?,
        None => {
            let counting = subject.counting().unwrap_or(args.counting.counting());
            subject.census(counting)?
        }
    };
    let text = in_form(form, &census, subject.source(), &args.rows.rows(form))?;
    put(out, &text)
}

/// A summary in a form.
pub fn in_form(form: Form, census: &Census, source: Source, rows: &Rows) -> Result<String> {
    match form {
        Form::Table => Ok(summary::text(census, source, rows)),
        Form::Json => json::summary(census, rows),
        Form::Markdown => Ok(summary::markdown(census, source, rows)),
        Form::Junit => Ok(summary::junit(census, source, rows)),
    }
}
