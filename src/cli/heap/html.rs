//! `biopsy heap html`: a heap as a page to explore.

use std::path::{Path, PathBuf};

use clap::Args;

use super::args::SizesArgs;
use super::input::GraphArgs;
use crate::cli::browser;
use crate::error::{Error, Result};
use crate::target::disk;
use crate::view::heap::page::{self, Page};
use crate::view::heap::summary;

/// Write a page to explore a heap with: types, a treemap and tree of who holds how much, paths to the instances of a type,
/// modules, caches, where the resident memory is.
///
/// It is one file that loads nothing; what is small is folded. It names attributes, variables and modules, and has no values
/// unless --values asks for them.
#[derive(Debug, Args)]
pub struct HtmlArgs {
    #[command(flatten)]
    target: GraphArgs,
    /// The page to write
    #[arg(short, long, value_name = "FILE.html")]
    output: PathBuf,
    /// Open it in the browser
    #[arg(long)]
    open: bool,
    #[command(flatten)]
    sizes: SizesArgs,
    /// No notes
    #[arg(short, long)]
    quiet: bool,
}

/// A page beside what is printed.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output")]
pub struct PageArgs {
    /// Write a page to explore it with too
    #[arg(short, long, value_name = "FILE.html")]
    output: Option<PathBuf>,
    /// Open that page in the browser
    #[arg(long, requires = "output")]
    open: bool,
}

impl PageArgs {
    /// Fails unless the page can be written.
    pub fn check(&self) -> Result<()> {
        self.output.as_deref().map_or(Ok(()), check)
    }

    /// Whether a page is wanted.
    pub fn is_wanted(&self) -> bool {
        self.output.is_some()
    }

    /// Writes it, if it is wanted.
    pub fn write(&self, page: &Page<'_>) -> Result<()> {
        self.output
            .as_deref()
            .map_or(Ok(()), |path| save(page, path))
    }

    /// Opens it, if that is wanted.
    pub fn show(&self) {
        if let Some(path) = self.output.as_deref().filter(|_| self.open) {
            browser::open(path, false);
        }
    }
}

fn check(path: &Path) -> Result<()> {
    let ending = path.extension().and_then(|ending| ending.to_str());
    if !matches!(ending, Some("html" | "htm")) && !disk::is_special(path) {
        let what = format!("cannot tell the form of '{}'", path.display());
        return Err(Error::usage(what, "a page ends in .html"));
    }
    disk::check_writable(path)
}

/// Readable by its owner alone, as snapshots are.
fn save(page: &Page<'_>, path: &Path) -> Result<()> {
    disk::write_file(path, true, |file| page::write(page, file))
}

pub fn run(args: &HtmlArgs) -> Result<()> {
    check(&args.output)?;
    let (whole, source) = args.target.whole()?;
    let (census, mut graph) = (whole.census, whole.graph);
    args.sizes.choose(std::iter::once(&mut graph));
    let page = Page {
        title: summary::title(&census),
        note: summary::note(&census, source),
        census: &census,
        graph: Some(&graph),
        account: whole.account.as_ref(),
        diff: None,
        reasons: &[],
        history: None,
    };
    save(&page, &args.output)?;
    if !args.quiet {
        eprintln!("biopsy: wrote {}", args.output.display());
    }
    if args.open {
        browser::open(&args.output, args.quiet);
    }
    Ok(())
}
