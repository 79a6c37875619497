//! Arguments that several heap commands share, and what they turn into.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::cli::args::parse_limit;
use crate::cli::output;
use crate::error::{Error, Result};
use crate::heap::census::Counting;
use crate::heap::graph::{Graph, Sizes};
use crate::target::disk;
use crate::view::heap::{Rows, SortKey};

/// Rows of a table without `--limit`, as `summary.print_` has it.
const TABLE_ROWS: usize = 15;

/// Order of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SortArg {
    /// Biggest first
    Size,
    /// Most objects first
    Count,
    /// By name, a to z
    Type,
}

/// Which rows.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Rows")]
pub struct RowArgs {
    /// Order of the rows
    #[arg(short, long, value_enum, default_value = "size")]
    sort: SortArg,
    /// The other way round
    #[arg(long)]
    reverse: bool,
    /// At most this many rows, or "all" [default: 15 in tables, all in JSON]
    #[arg(short, long, value_name = "N", value_parser = parse_limit)]
    limit: Option<usize>,
    /// Only types with such a name: myapp.*, dict; repeatable
    #[arg(short, long = "type", value_name = "GLOB")]
    pub types: Vec<String>,
}

impl RowArgs {
    /// The rows of a form; `unless` is how many there are when nothing was said of it.
    pub fn rows(&self, form: Form) -> Rows {
        let limit = match (self.limit, form) {
            (Some(limit), _) => Some(limit),
            (None, Form::Json) => None,
            (None, _) => Some(TABLE_ROWS),
        };
        Rows {
            sort: match self.sort {
                SortArg::Size => SortKey::Size,
                SortArg::Count => SortKey::Count,
                SortArg::Type => SortKey::Type,
            },
            reverse: self.reverse,
            limit,
            types: self.types.clone(),
        }
    }

    /// The rows where there is no limit unless one was asked for.
    pub fn all_rows(&self) -> Rows {
        self.rows(Form::Json)
    }
}

/// Which bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SizesArg {
    /// Blocks of the allocators: what is free when it goes
    Blocks,
    /// What sys.getsizeof says, which leaves out the attributes of instances from Python 3.11 on
    Getsizeof,
}

/// Which bytes of objects are added up.
#[derive(Debug, Clone, Args)]
pub struct SizesArgs {
    /// Which bytes are added up; a snapshot of an older biopsy has no blocks
    #[arg(long, value_enum, value_name = "WHAT", default_value = "blocks")]
    sizes: SizesArg,
}

impl SizesArgs {
    /// Lets `graphs` count so, all of them in the same way; says when that can't be.
    pub fn choose<'g>(&self, graphs: impl Iterator<Item = &'g mut Graph>) -> Sizes {
        let mut graphs: Vec<&mut Graph> = graphs.collect();
        let have_blocks = graphs.iter().all(|graph| graph.has_blocks());
        let wanted = match self.sizes {
            SizesArg::Getsizeof => Sizes::GetSizeOf,
            SizesArg::Blocks if !have_blocks => {
                output::note(
                    "a snapshot of an older biopsy has no sizes of blocks: sizes are those of sys.getsizeof",
                );
                Sizes::GetSizeOf
            }
            SizesArg::Blocks => Sizes::Blocks,
        };
        let counted = graphs.iter_mut().map(|graph| graph.count_in(wanted));
        counted.last().unwrap_or(wanted)
    }
}

/// Which objects are counted.
#[derive(Debug, Clone, Args)]
pub struct CountingArgs {
    /// Count what muppy.get_objects() counts, and name rows as muppy does [default: everything reachable]
    #[arg(long)]
    muppy: bool,
}

impl CountingArgs {
    /// The counting.
    pub fn counting(&self) -> Counting {
        if self.muppy {
            Counting::Muppy
        } else {
            Counting::Reachable
        }
    }
}

/// A form of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// For people at a terminal
    Table,
    /// For programs
    Json,
    /// For a comment on a pull request
    Markdown,
    /// For a CI server
    Junit,
}

impl Form {
    /// The form that the name of a file asks for.
    fn of_file(path: &Path) -> Result<Form> {
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("json") => Ok(Form::Json),
            Some("md") => Ok(Form::Markdown),
            Some("xml") => Ok(Form::Junit),
            Some("txt") => Ok(Form::Table),
            _ => Err(Error::usage(
                format!("cannot tell the form of '{}'", path.display()),
                "a report is .txt (table), .json, .md (Markdown) or .xml (JUnit)",
            )),
        }
    }
}

/// The form of what goes to stdout.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output")]
pub struct FormArgs {
    /// Print JSON; the same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Form of the output
    #[arg(short, long, value_enum, default_value = "table")]
    format: Form,
}

impl FormArgs {
    /// The form.
    pub fn form(&self) -> Form {
        if self.json { Form::Json } else { self.format }
    }
}

/// Files that get the result too.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output")]
pub struct ReportArgs {
    /// Write the result to a file too, in the form of its name: .txt, .json, .md (Markdown), .xml (JUnit);
    /// repeatable
    #[arg(long = "report", value_name = "FILE")]
    reports: Vec<PathBuf>,
}

impl ReportArgs {
    /// Fails unless each file can be written and has a form.
    pub fn check(&self) -> Result<()> {
        self.reports.iter().try_for_each(|path| {
            Form::of_file(path)?;
            disk::check_writable(path)
        })
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.reports.is_empty()
    }

    /// Writes each file with the text that `text` makes in its form.
    pub fn write(&self, text: impl Fn(Form) -> Result<String>) -> Result<()> {
        for path in &self.reports {
            let text = text(Form::of_file(path)?)?;
            disk::write_file(path, false, |file| {
                file.write_all(text.as_bytes())
                    .map_err(|error| Error::write(path.display(), &error))
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_have_the_form_of_their_name() {
        let form = |name: &str| Form::of_file(Path::new(name)).ok();
        assert_eq!(form("a.md"), Some(Form::Markdown));
        assert_eq!(form("junit.xml"), Some(Form::Junit));
        assert_eq!(form("a.json"), Some(Form::Json));
        assert_eq!(form("a.txt"), Some(Form::Table));
        assert_eq!(form("a.heap"), None);
    }
}
