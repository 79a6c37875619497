//! `biopsy diff`: what got slower and what got faster between two profiles.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::args::{SelectArgs, parse_limit};
use super::input;
use crate::error::{Error, Result};
use crate::formats::ExportOptions;
use crate::formats::flamegraph::{self, DifferentialOptions};
use crate::formats::html;
use crate::profile::diff::{self, DiffRow};
use crate::profile::{Filter, Profile, Split};
use crate::target::disk;
use crate::units::{self, parse_duration};
use crate::view::json;
use crate::view::table;

/// Compare two profiles: recordings, .prof files or collapsed stacks.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// The old profile
    old: PathBuf,
    /// The new profile
    new: PathBuf,
    /// Write a file, or several by repeating it: .svg is a differential flame graph, .html a page with it and the rows, .json the rows (biopsy.profile-diff/1)
    #[arg(short, long = "output", value_name = "FILE")]
    outputs: Vec<PathBuf>,
    /// Order by the change of: tottime or cumtime
    #[arg(short, long, value_name = "KEY", default_value = "tottime", value_parser = ["tottime", "cumtime", "cumulative"])]
    sort: String,
    /// At most this many rows, or "all" [default: 30 on a terminal, all otherwise]
    #[arg(short, long, value_name = "N", value_parser = parse_limit)]
    limit: Option<usize>,
    /// Flame graph: scale the old profile to the length of the new one
    #[arg(long)]
    normalise: bool,
    /// No notes
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    select: SelectArgs,
    /// File names without folders
    #[arg(long)]
    strip_dirs: bool,
    /// Qualified names, A.foo instead of foo; known of Python 3.11 and newer
    #[arg(long)]
    qualnames: bool,
    /// Collapsed stacks: the numbers count samples, one each TIME, such as 10ms
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    period: Option<Duration>,
}

pub fn run(args: DiffArgs, out: &mut dyn Write) -> Result<()> {
    let mut kinds: Vec<(&Path, PictureFormat)> = Vec::new();
    for path in &args.outputs {
        let kind = match path.extension().and_then(|e| e.to_str()) {
            Some("svg") => PictureFormat::Svg,
            Some("html") => PictureFormat::Html,
            Some("json") => PictureFormat::Json,
            _ => {
                return Err(Error::usage(
                    format!("cannot tell the format of '{}'", path.display()),
                    "a difference is written as .svg, .html or .json",
                ));
            }
        };
        if kinds.iter().any(|(other, _)| other == path) {
            return Err(Error::usage(
                "cannot write twice",
                "the same output is named two times",
            ));
        }
        disk::check_writable(path)?;
        kinds.push((path, kind));
    }
    let selection = args.select.selection()?;
    let read = |path: &Path| -> Result<Profile> {
        let profile = input::read_with(path, args.period)?;
        input::check_functions(&profile, path)?;
        let narrowed = selection.narrowed(&profile);
        let narrowed = narrowed.map_err(|error| error.within(path.display().to_string()))?;
        let profile = narrowed.unwrap_or(profile);
        if profile.meta.unit_is_unknown() && !args.quiet {
            eprintln!("biopsy: note: {}: {}", path.display(), input::UNIT_UNKNOWN);
        }
        Ok(profile)
    };
    let (old, new) = (read(&args.old)?, read(&args.new)?);
    let modes = [&old, &new].map(|profile| profile.meta.mode.name());
    if modes[0] != modes[1] && !args.quiet {
        eprintln!(
            "biopsy: note: the old profile has times of --mode {}, the new one those of --mode {}: not every difference is a change of the program",
            modes[0], modes[1]
        );
    }
    for (path, kind) in &kinds {
        match kind {
            PictureFormat::Svg | PictureFormat::Html => {
                write_picture(&args, path, *kind, &old, &new)?
            }
            PictureFormat::Json => write_json(&args, path, &old, &new)?,
        }
        if !args.quiet {
            eprintln!("biopsy: wrote {}", path.display());
        }
    }
    if kinds.is_empty() || args.limit.is_some() {
        write_table(&args, &old, &new, out)?;
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum PictureFormat {
    Svg,
    Html,
    Json,
}

fn write_picture(
    args: &DiffArgs,
    path: &Path,
    kind: PictureFormat,
    old: &Profile,
    new: &Profile,
) -> Result<()> {
    let name = |path: &PathBuf| input::titles(std::slice::from_ref(path));
    let options = DifferentialOptions {
        export: ExportOptions {
            strip_dirs: args.strip_dirs,
            qualnames: args.qualnames,
            ..ExportOptions::default()
        },
        normalise: args.normalise,
        names: [name(&args.old), name(&args.new)],
    };
    let losses = disk::write_file(path, false, |file| {
        if let PictureFormat::Html = kind {
            let rows = rows(args, old, new).0;
            return html::write_difference(old, new, &options, &rows, file);
        }
        flamegraph::write_differential(old, new, &options, file)
    })?;
    if !args.quiet {
        for loss in losses {
            eprintln!("biopsy: note: {loss}");
        }
    }
    Ok(())
}

fn write_json(args: &DiffArgs, path: &Path, old: &Profile, new: &Profile) -> Result<()> {
    let (old_name, new_name) = (
        args.old.display().to_string(),
        args.new.display().to_string(),
    );
    let text = json::diff(&old_name, &new_name, &rows(args, old, new).0)?;
    disk::write_file(path, false, |file| {
        file.write_all(text.as_bytes())
            .map_err(|error| Error::write(path.display(), &error))
    })
}

fn write_table(args: &DiffArgs, old: &Profile, new: &Profile, out: &mut dyn Write) -> Result<()> {
    let (mut rows, totals) = rows(args, old, new);
    let all = rows.len();
    let limit = args
        .limit
        .or_else(|| std::io::stdout().is_terminal().then_some(30));
    rows.truncate(limit.unwrap_or(all));
    if args.strip_dirs {
        for row in &mut rows {
            row.file = row.file.rsplit('/').next().unwrap_or_default().to_string();
        }
    }
    let mut text = table::differences(&rows, totals.0, totals.1);
    text.push_str(&format!(
        "\nold {}: {:.3} s, new {}: {:.3} s, change {:+.3} s{}",
        args.old.display(),
        totals.0,
        args.new.display(),
        totals.1,
        totals.1 - totals.0,
        units::printable(&new.meta.shown())
    ));
    if rows.len() < all {
        text.push_str(&format!("; {} of {all} functions shown", rows.len()));
    }
    text.push('\n');
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Error::write("stdout", &error))
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
    if args.qualnames {
        // Rows are matched by the plain name, which every profile has.
        for row in &mut rows {
            if let Some(qualname) = row.qualname.take() {
                row.name = qualname;
            }
        }
    }
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
