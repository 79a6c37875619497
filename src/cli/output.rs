//! Results to files and stdout: formats by name, places checked before the work starts.

use std::borrow::Cow;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use super::args::{OutputArgs, ViewArgs};
use super::browser;
use super::sources::Sources;
use crate::error::{Error, ErrorKind, Result};
use crate::formats::registry::{self, Format};
use crate::formats::{ExportOptions, Loss};
use crate::profile::waits;
use crate::profile::{CallStats, CallTree, Certainty, Filter, Mode, Origin, Profile, Selection};
use crate::target::disk::{check_writable, write_file};
use crate::units::{printable, several};
use crate::view::stats::{self, LineOptions, Restriction, SortKey, SourceText, TableOptions};

/// Rows that a terminal gets without `--limit`.
const TERMINAL_ROWS: usize = 30;

/// One result.
#[derive(Debug)]
enum Form {
    Table,
    File(&'static Format),
}

#[derive(Debug)]
struct Output {
    /// `None` for stdout.
    path: Option<PathBuf>,
    kind: Form,
}

/// All results of a command.
#[derive(Debug)]
pub struct Outputs {
    outputs: Vec<Output>,
    /// Which of them is opened in a browser.
    opened: Option<PathBuf>,
    quiet: bool,
}

/// What is shown in a table.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    /// Sort keys, restrictions, view.
    pub table: TableOptions,
    /// The lines of functions instead: of those that are meant, or of all.
    pub lines: Option<Vec<String>>,
    /// A line above the table, such as pstats' file-name line.
    pub heading: Option<String>,
    /// What the profile is called where no command is known.
    pub title: String,
}

impl Outputs {
    /// Chooses the formats and checks that each place can be written.
    ///
    /// A table goes to stdout too, beside files, when `table` says that the command asks for one.
    pub fn prepare(args: &OutputArgs, table: bool) -> Result<Outputs> {
        if args.format.is_some() && args.outputs.len() > 1 {
            return Err(Error::usage(
                "cannot use --format",
                format!(
                    "it names the format of one output, and there are {}",
                    args.outputs.len()
                ),
            )
            .hint("leave it out: file names choose their formats"));
        }
        let kind_of = |name: &str| match name {
            "table" => Ok(Form::Table),
            name => registry::by_name(name).map(Form::File),
        };
        let mut outputs = Vec::new();
        for path in &args.outputs {
            let kind = match &args.format {
                Some(name) => kind_of(name)?,
                None if path.as_os_str() == "-" => Form::Table,
                None => Form::File(registry::by_file_name(path)?),
            };
            let path = (path.as_os_str() != "-").then(|| path.clone());
            if outputs.iter().any(|other: &Output| other.path == path) {
                return Err(Error::usage(
                    "cannot write twice",
                    "the same output is named two times",
                ));
            }
            outputs.push(Output { path, kind });
        }
        if outputs.is_empty() {
            outputs.push(Output {
                path: None,
                kind: args.format.as_deref().map_or(Ok(Form::Table), kind_of)?,
            });
        }
        let is_stdout = |output: &Output| output.path.is_none();
        let has_table = outputs.iter().any(|o| matches!(o.kind, Form::Table));
        if table && !has_table && !outputs.iter().any(is_stdout) {
            outputs.push(Output {
                path: None,
                kind: Form::Table,
            });
        }
        for output in &outputs {
            if let Form::File(format) = output.kind {
                format.exporter()?;
                if output.path.is_none() && is_binary(format) && std::io::stdout().is_terminal() {
                    return Err(Error::usage(
                        format!("cannot write {} to a terminal", format.name),
                        "it is binary",
                    )
                    .hint("name a file: -o FILE"));
                }
            }
            if let Some(path) = &output.path {
                check_writable(path)?;
            }
        }
        let is_page = |output: &&Output| match output.kind {
            Form::Table => false,
            Form::File(format) => matches!(format.name, "html" | "flamegraph"),
        };
        let page = outputs
            .iter()
            .filter(is_page)
            .find_map(|output| output.path.clone());
        if args.open && page.is_none() {
            return Err(Error::usage("nothing to open", "no output is a page")
                .hint("name one: -o page.html --open"));
        }
        Ok(Outputs {
            outputs,
            opened: page.filter(|_| args.open),
            quiet: args.quiet,
        })
    }

    /// Whether any of them shows when things happened.
    pub fn need_timeline(&self) -> bool {
        let mut files = self.outputs.iter().filter_map(|output| match output.kind {
            Form::Table => None,
            Form::File(format) => format.exporter().ok(),
        });
        files.any(|exporter| exporter.needs_timeline())
    }

    /// Whether a table goes to stdout.
    pub fn has_table(&self) -> bool {
        self.outputs
            .iter()
            .any(|output| matches!(output.kind, Form::Table))
    }

    /// Writes what `selection` says of the profile, but recordings whole. One failure does not keep the others from being
    /// written; the first is returned.
    pub fn write(
        &self,
        profile: &Profile,
        selection: &Selection,
        filter: &Filter,
        shown: &Shown,
        out: &mut dyn Write,
    ) -> Result<()> {
        let narrowed = selection.narrowed(profile)?;
        let whole = profile;
        let profile = narrowed.as_ref().unwrap_or(whole);
        let options = ExportOptions {
            filter: filter.clone(),
            line_functions: None,
            strip_dirs: shown.table.strip_dirs,
            qualnames: shown.table.qualnames,
            title: shown.title.clone(),
        };
        let mut first_error: Option<Error> = None;
        let mut open = false;
        let mut said: Vec<Loss> = Vec::new();
        for output in &self.outputs {
            let result = match (&output.path, &output.kind) {
                (None, Form::Table) => write_table(profile, filter, shown, out),
                (None, Form::File(format)) => export(format, profile, &options, shown, out),
                (Some(path), Form::Table) => write_file(path, false, |file| {
                    write_table(profile, filter, shown, file)
                }),
                (Some(path), Form::File(format)) => {
                    // They have the text of source files.
                    let private = matches!(format.name, "biopsy" | "html");
                    // What is narrowed can be widened again from a recording.
                    let is_recording = format.name == "biopsy";
                    let profile = if is_recording { whole } else { profile };
                    write_file(path, private, |file| {
                        export(format, profile, &options, shown, file)
                    })
                }
            };
            match result {
                Ok(losses) => {
                    if let (Some(path), false) = (&output.path, self.quiet) {
                        eprintln!("biopsy: wrote {}", path.display());
                    }
                    if self.opened.is_some() && self.opened == output.path {
                        open = true;
                    }
                    said.extend(losses);
                }
                Err(error) => match &first_error {
                    Some(first) => {
                        // What keeps several from being written is said once, with or without the file's name.
                        let (first, text) = (first.to_string(), error.to_string());
                        if !first.ends_with(&text) && !text.ends_with(&first) {
                            eprintln!("biopsy: {text}");
                        }
                    }
                    None => first_error = Some(error),
                },
            }
        }
        if profile.estimated.is_some() {
            said.push("traced calls know no stacks: the part that is shown is estimated from who called whom".to_string());
        }
        if shown.table.qualnames && !profile.tables.has_qualnames() {
            said.push(
                "no qualified names are known (recordings of Python 3.11 and newer have them)"
                    .to_string(),
            );
        }
        if !self.quiet {
            said.dedup();
            for loss in said {
                eprintln!("biopsy: note: {loss}");
            }
        }
        if let Some(page) = self.opened.as_ref().filter(|_| open) {
            browser::open(page, self.quiet);
        }
        first_error.map_or(Ok(()), Err)
    }
}

fn is_binary(format: &Format) -> bool {
    matches!(format.name, "pstats" | "pprof" | "biopsy" | "lprof")
}

fn export(
    format: &Format,
    profile: &Profile,
    options: &ExportOptions,
    shown: &Shown,
    out: &mut dyn Write,
) -> Result<Vec<Loss>> {
    if profile.has_line_times() && !matches!(format.name, "lprof" | "biopsy") {
        return Err(Error::new(
            ErrorKind::NotAvailable,
            format!("cannot write {}", format.name),
            "a line profile has times by line alone: no calls, no stacks",
        ));
    }
    let words = shown.lines.as_deref().unwrap_or_default();
    let mut options = Cow::Borrowed(options);
    if format.name == "lprof" && !words.is_empty() {
        let mut sources = Sources::new(profile);
        let mut read = source_texts(&mut sources);
        let chosen = stats::choose_lines(profile, &options.filter, words, &mut read)?;
        options.to_mut().line_functions = Some(chosen.functions());
    }
    let losses = format.exporter()?.export(profile, &options, out)?;
    out.flush()
        .map_err(|error| Error::write(format.name, &error))?;
    let name = |loss| format!("{}: {loss}", format.name);
    Ok(losses.into_iter().map(name).collect())
}

fn source_texts(sources: &mut Sources) -> impl FnMut(&str) -> Option<SourceText> + '_ {
    |file: &str| {
        let lines = sources.read(file)?;
        let is_same = !sources.is_doubtful(file);
        Some(SourceText { lines, is_same })
    }
}

fn write_table(
    profile: &Profile,
    filter: &Filter,
    shown: &Shown,
    out: &mut dyn Write,
) -> Result<Vec<Loss>> {
    let failed = |error: std::io::Error| Error::write("the table", &error);
    let mut sources = Sources::new(profile);
    // No heading stands above what is not there.
    let lines = match &shown.lines {
        Some(words) => {
            let mut read = source_texts(&mut sources);
            Some(stats::choose_lines(profile, filter, words, &mut read)?)
        }
        None => None,
    };
    let (stats, certainty) = match (&profile.exact, &shown.lines) {
        (Some(exact), _) => (exact.clone(), None),
        // Lines have no calls.
        (None, Some(_)) => (CallStats::default(), None),
        (None, None) => {
            let tree = CallTree::of(profile, filter);
            let stats = CallStats::of(&tree, &profile.tables);
            let certainty = stats.certainty(&tree);
            (stats, Some(certainty))
        }
    };
    let above = match (&shown.heading, profile.meta.origin) {
        (Some(heading), _) => Some(heading.clone()),
        (None, Origin::Sampled) => {
            let mut line = note_line(profile, certainty);
            if let (Some(_), Some(counts)) = (&shown.lines, &profile.lines) {
                line.push_str(match counts.at_least {
                    true => "; hits are lower bounds",
                    false => "; hits are counted",
                });
            }
            Some(line)
        }
        (None, _) => None,
    };
    if let Some(mut above) = above {
        if profile.meta.origin != Origin::Sampled && !profile.meta.narrowed.is_empty() {
            above.push_str(&format!("\n\nshown: {}", printable(&profile.meta.narrowed)));
            if profile.exact.is_some() {
                above.push_str("; estimated from who called whom");
            }
        }
        write!(out, "{above}\n\n").map_err(failed)?;
    }
    if let Some(chosen) = lines {
        let options = LineOptions {
            restrictions: shown.table.restrictions.clone(),
            strip_dirs: shown.table.strip_dirs,
        };
        let mut read = source_texts(&mut sources);
        stats::write_lines(profile, &chosen, &options, &mut read, out)?;
        drop(read);
        return Ok(sources.warnings);
    }
    let waits = || {
        let waits = waits::waits(profile, filter).unwrap_or_default();
        let table = &shown.table;
        crate::view::waits::table(profile, &waits, table.strip_dirs, table.qualnames)
    };
    let waits = if filter.mode == Mode::Gil {
        waits()
    } else {
        String::new()
    };
    if stats.groups.len() <= 1 {
        stats::write_table(&stats, &profile.tables, &shown.table, out)?;
        write!(out, "{waits}").map_err(failed)?;
        return Ok(Vec::new());
    }
    for (at, label) in stats.groups.iter().enumerate() {
        let group = stats.group(at as u32);
        if group.rows.is_empty() {
            continue;
        }
        writeln!(out, "{}\n", printable(label)).map_err(failed)?;
        stats::write_table(&group, &profile.tables, &shown.table, out)?;
    }
    write!(out, "{waits}").map_err(failed)?;
    Ok(Vec::new())
}

/// The one line above a table of sampled numbers; `certainty` where it shows numbers of calls.
fn note_line(profile: &Profile, certainty: Option<Certainty>) -> String {
    let meta = &profile.meta;
    let rate = if meta.rate_hz > 0.0 {
        format!("at {} Hz", meta.rate_hz)
    } else {
        "at full speed".to_string()
    };
    let mut line = format!(
        "sampled {rate} for {:.2} s: {}, {} given up",
        meta.duration_us as f64 / 1e6,
        several(meta.samples, "sample"),
        meta.given_up
    );
    if let Some(certainty) = certainty {
        line.push_str("; ");
        line.push_str(&certainty.words("ncalls"));
    }
    if meta.approximate_stacks {
        line.push_str("; approximate stacks");
    }
    line.push_str(&printable(&meta.shown()));
    line
}

/// Says something on stderr beside the results.
pub fn note(text: &str) {
    eprintln!("biopsy: note: {text}");
}

/// Why a sampled profile shows nothing; `None` when it does.
pub fn why_empty(profile: &Profile) -> Option<String> {
    let meta = &profile.meta;
    if profile.runs.is_empty() {
        return Some(match (meta.samples, meta.given_up) {
            (0, 0) => "no samples: the program was over too soon".to_string(),
            (0, given_up) => format!("no samples: {given_up} were given up"),
            (samples, _) => format!(
                "nothing is shown: no thread was in Python code in any of {samples} samples"
            ),
        });
    }
    let wall = meta.mode == Mode::Wall;
    let shows = wall || !profile.stats(&Filter::of(profile)).rows.is_empty();
    let mode = meta.mode.name();
    (!shows).then(|| format!("nothing is shown: none of the samples counts in --mode {mode}"))
}

/// The options of a table; `interactive` when it goes to a terminal.
pub fn table_options(args: &ViewArgs, interactive: bool) -> Result<TableOptions> {
    let mut options = TableOptions {
        strip_dirs: args.strip_dirs,
        qualnames: args.qualnames,
        ..TableOptions::default()
    };
    for key in &args.sort {
        options.sort.push(SortKey::parse(key)?);
    }
    if options.sort.is_empty() {
        options.sort.push(SortKey::parse("cumulative")?);
    }
    for restriction in &args.limit {
        options.restrictions.push(Restriction::parse(restriction)?);
    }
    if options.restrictions.is_empty() && interactive {
        options
            .restrictions
            .push(Restriction::parse(&TERMINAL_ROWS.to_string())?);
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_checked_before_the_work() {
        let prepare = |outputs: &[&str], format: Option<&str>| {
            let args = OutputArgs {
                outputs: outputs.iter().map(PathBuf::from).collect(),
                format: format.map(str::to_string),
                open: false,
                quiet: true,
            };
            Outputs::prepare(&args, false)
        };
        for (outputs, format) in [
            (vec!["/nonexistent/a.svg"], None),
            (vec!["/"], Some("json")),
            (vec!["a.unknown"], None),
            (vec!["/dev/null", "b.svg"], Some("json")),
            (vec![], Some("nope")),
        ] {
            assert!(prepare(&outputs, format).is_err(), "{outputs:?} {format:?}");
        }
        assert!(prepare(&["/dev/null"], Some("callgrind")).is_ok());
        assert!(prepare(&[], None).is_ok_and(|outputs| outputs.has_table()));
    }
}
