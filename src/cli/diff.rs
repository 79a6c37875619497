//! `biopsy diff`: what got slower and what got faster between two profiles.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use clap::Args;

use super::{input, json, output};
use crate::error::{Error, Result};
use crate::formats::ExportOptions;
use crate::formats::flamegraph::{self, DifferentialOptions};
use crate::profile::diff::{self, DiffRow};
use crate::profile::{Filter, Profile, Split};
use crate::view::table;

/// Compare two profiles: recordings, .prof files or collapsed stacks.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// The old profile
    old: PathBuf,
    /// The new profile
    new: PathBuf,
    /// Write a file: .svg is a differential flame graph, .json the rows (biopsy.profile-diff/1)
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Order by the change of: tottime or cumtime
    #[arg(short, long, value_name = "KEY", default_value = "tottime", value_parser = ["tottime", "cumtime", "cumulative"])]
    sort: String,
    /// At most this many rows [default: 30 on a terminal, all otherwise]
    #[arg(short, long, value_name = "N")]
    limit: Option<usize>,
    /// Flame graph: scale the old profile to the length of the new one
    #[arg(long)]
    normalise: bool,
    /// No notes
    #[arg(short, long)]
    quiet: bool,
}

pub fn run(args: DiffArgs, out: &mut dyn Write) -> Result<()> {
    let kind = match &args.output {
        None => Kind::Table,
        Some(path) => match path.extension().and_then(|e| e.to_str()) {
            Some("svg") => Kind::Svg,
            Some("json") => Kind::Json,
            _ => {
                return Err(Error::usage(
                    format!("cannot tell the format of '{}'", path.display()),
                    "a difference is written as .svg or .json",
                ));
            }
        },
    };
    if let Some(path) = &args.output {
        output::check_writable(path)?;
    }
    let (old, new) = (input::read(&args.old)?, input::read(&args.new)?);
    let (old_name, new_name) = (
        args.old.display().to_string(),
        args.new.display().to_string(),
    );
    match (kind, &args.output) {
        (Kind::Svg, Some(path)) => {
            let options = DifferentialOptions {
                export: ExportOptions::default(),
                normalise: args.normalise,
            };
            let losses = output::write_file(path, false, |file| {
                flamegraph::write_differential(&old, &new, &options, file)
            })?;
            if !args.quiet {
                for loss in losses {
                    eprintln!("biopsy: note: {loss}");
                }
            }
        }
        (Kind::Json, Some(path)) => {
            let text = json::diff(&old_name, &new_name, &rows(&args, &old, &new).0)?;
            output::write_file(path, false, |file| {
                file.write_all(text.as_bytes())
                    .map_err(|error| Error::write(path.display(), &error))
            })?;
        }
        _ => {
            let (mut rows, totals) = rows(&args, &old, &new);
            let all = rows.len();
            let limit = args
                .limit
                .or_else(|| std::io::stdout().is_terminal().then_some(30));
            rows.truncate(limit.unwrap_or(all));
            let mut text = table::differences(&rows, totals.0, totals.1);
            text.push_str(&format!(
                "\nold {old_name}: {:.3} s, new {new_name}: {:.3} s, change {:+.3} s",
                totals.0,
                totals.1,
                totals.1 - totals.0
            ));
            if rows.len() < all {
                text.push_str(&format!("; {} of {all} functions shown", rows.len()));
            }
            text.push('\n');
            out.write_all(text.as_bytes())
                .and_then(|()| out.flush())
                .map_err(|error| Error::write("stdout", &error))?;
        }
    }
    if let (Some(path), false) = (&args.output, args.quiet) {
        eprintln!("biopsy: wrote {}", path.display());
    }
    Ok(())
}

enum Kind {
    Table,
    Svg,
    Json,
}

/// The rows, biggest change first, and both profiles' total time in seconds.
fn rows(args: &DiffArgs, old: &Profile, new: &Profile) -> (Vec<DiffRow>, (f64, f64)) {
    let stats = |profile: &Profile| {
        let filter = Filter {
            split: Split::Merged,
            ..Filter::of(profile)
        };
        profile.stats(&filter)
    };
    let (old_stats, new_stats) = (stats(old), stats(new));
    let mut rows = diff::rows((&old_stats, &old.tables), (&new_stats, &new.tables));
    let by_tottime = args.sort == "tottime";
    let change = |row: &DiffRow| {
        if by_tottime {
            row.tottime_change()
        } else {
            row.cumtime_change()
        }
    };
    rows.sort_by(|a, b| change(b).abs().total_cmp(&change(a).abs()));
    (rows, (old_stats.total_tottime(), new_stats.total_tottime()))
}
