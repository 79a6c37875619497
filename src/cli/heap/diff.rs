//! `biopsy heap diff`: what grew and what shrank between two heaps, and whether that is more than it may.

use std::io::Write;

use clap::Args;

use super::args::{CountingArgs, Form, FormArgs, ReportArgs, RowArgs, SizesArgs};
use super::html::PageArgs;
use super::input::PauseArgs;
use super::put;
use crate::cli::output;
use crate::error::{Error, Result};
use crate::heap::census::{Census, Counting};
use crate::heap::diff::{self, CensusDiff, Fates, Rule};
use crate::heap::graph::{Graph, Sizes};
use crate::heap::subject::Subject;
use crate::heap::why::{self, TypeReason};
use crate::view::heap::diff as view;
use crate::view::heap::diff::Comparison;
use crate::view::heap::json;
use crate::view::heap::page::Page;
use crate::view::heap::summary;

/// The exit code for a broken rule.
pub const BROKEN: u8 = 3;

/// Compare two heaps: snapshots, summaries in JSON, core files or processes.
///
/// Two snapshots of one process are compared object by object too: an object is the same when its address and type are and
/// something that held it still does, or its path has the same form; what has moved to other holders counts as gone and new.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// The old heap: a snapshot, what `heap summary --json` wrote, a core file or a process id
    old: String,
    /// The new heap
    new: String,
    #[command(flatten)]
    pause: PauseArgs,
    #[command(flatten)]
    counting: CountingArgs,
    /// Tell for the types that grew which paths hold their new instances and what these keep alive, the most first, and which
    /// objects grew where they were. Between two processes, paths are compared with paths
    #[arg(long, conflicts_with = "muppy")]
    why: bool,
    #[command(flatten)]
    sizes: SizesArgs,
    #[command(flatten)]
    rules: RuleArgs,
    #[command(flatten)]
    rows: RowArgs,
    #[command(flatten)]
    form: FormArgs,
    #[command(flatten)]
    reports: ReportArgs,
    #[command(flatten)]
    page: PageArgs,
}

/// Limits to growth.
#[derive(Debug, Clone, Args)]
pub struct RuleArgs {
    /// End with exit code 3 when more grows than this: total:+10%, total:+5MiB, objects:+1000, 'myapp.*:+100',
    /// dict:+1MiB; repeatable. Bytes are those of sys.getsizeof, as in the table
    #[arg(long = "fail-on", value_name = "RULE", value_parser = parse_rule)]
    rules: Vec<Rule>,
}

impl RuleArgs {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }
}

fn parse_rule(text: &str) -> Result<Rule, String> {
    Rule::parse(text).map_err(|error| error.to_string())
}

pub fn run(args: &DiffArgs, out: &mut dyn Write) -> Result<u8> {
    args.reports.check()?;
    args.page.check()?;
    let mut old = args.pause.open(&args.old)?;
    let mut new = args.pause.open(&args.new)?;
    let source = new.source();
    for subject in [&old, &new] {
        subject.whole("what grew", "what is missing may have been there")?;
    }
    // A summary has been counted: the other side follows.
    let counting = old
        .counting()
        .or(new.counting())
        .unwrap_or(args.counting.counting());
    let of = |subject: &mut Subject| {
        let counting = subject.counting().unwrap_or(counting);
        subject.census(counting)
    };
    let (old_census, new_census) = (of(&mut old)?, of(&mut new)?);
    let mut verdict = Verdict::of(&old_census, &new_census, &args.rules)?;
    let grown = match args.why {
        true => verdict.grown(&args.rows),
        false => Vec::new(),
    };
    let snapshots = matches!((&old, &new), (Subject::Snapshot(_), Subject::Snapshot(_)));
    let one_process = snapshots && old.is_same_process(&new);
    let mut graph = None;
    if counting == Counting::Reachable && (one_process || args.why) {
        let mut old = match old {
            Subject::Summary(_) => None,
            old => Some(old.graph(false)?),
        };
        let mut new = new.graph(false)?;
        if args.why {
            let graphs = old.iter_mut().chain([&mut new]);
            verdict.sizes = args.sizes.choose(graphs);
        }
        let types = grown.iter().map(String::as_str);
        let compared = why::compare(old.as_ref(), &new, types);
        verdict.fates = compared.fates.filter(|_| one_process);
        verdict.reasons = compared.reasons;
        graph = Some(new);
    } else if args.page.is_wanted() && !matches!(new, Subject::Summary(_)) {
        graph = Some(new.graph(false)?);
    }
    let names = (args.old.as_str(), args.new.as_str());
    let form = args.form.form();
    put(out, &verdict.in_form(form, names, &args.rows)?)?;
    args.reports
        .write(|form| verdict.in_form(form, names, &args.rows))?;
    if let (Some(graph), false) = (&mut graph, args.why) {
        args.sizes.choose(std::iter::once(graph));
    }
    let note = summary::note(&new_census, source);
    let note = match view::versions_note((&old_census.python, &new_census.python)) {
        Some(versions) => format!("{note}; {versions}"),
        None => note,
    };
    args.page.write(&Page {
        title: format!("{} and {}", args.old, args.new),
        note,
        census: &new_census,
        graph: graph.as_ref(),
        account: None,
        diff: Some(&verdict.types),
        reasons: &verdict.reasons,
        history: None,
    })?;
    args.page.show();
    Ok(verdict.exit_code())
}

/// Two heaps compared, and held against rules.
#[derive(Debug)]
pub struct Verdict {
    types: CensusDiff,
    pythons: (String, String),
    fates: Option<Vec<Fates>>,
    rules: Vec<String>,
    broken: Vec<diff::Broken>,
    reasons: Vec<TypeReason>,
    /// What bytes the reasons are in.
    pub sizes: Sizes,
}

impl Verdict {
    /// Compares two summaries.
    pub fn of(old: &Census, new: &Census, rules: &RuleArgs) -> Result<Verdict> {
        let types = diff::censuses(old, new)
            .map_err(|error| error.hint("count both with --muppy, or neither"))?;
        let broken = diff::evaluate(&rules.rules, &types);
        let pythons = (old.python.clone(), new.python.clone());
        if let Some(note) = view::versions_note((&pythons.0, &pythons.1)) {
            output::note(&note);
        }
        Ok(Verdict {
            types,
            pythons,
            fates: None,
            rules: rules.rules.iter().map(Rule::to_string).collect(),
            broken,
            reasons: Vec::new(),
            sizes: Sizes::default(),
        })
    }

    /// The types that grew, in number or in bytes, as far as the rows want them.
    fn grown(&self, rows: &RowArgs) -> Vec<String> {
        let grown = self.types.rows.iter();
        let grown = grown.filter(|row| row.objects() > 0 || row.bytes() > 0);
        let (chosen, _) = rows.all_rows().choose(grown, |row: &diff::DiffRow| {
            let (bytes, objects) = (row.bytes(), row.objects());
            (&row.name, i128::from(bytes), i128::from(objects))
        });
        let names = chosen.into_iter().map(|row| row.name.as_str());
        let all = rows.all_rows().wants(why::ALL_TYPES);
        let names = all.then_some(why::ALL_TYPES).into_iter().chain(names);
        names.map(str::to_string).collect()
    }

    /// Adds why the types grew that the rows want; what was there before is not known without `old`.
    pub fn explain(&mut self, old: Option<&Graph>, new: &Graph, rows: &RowArgs) {
        let grown = self.grown(rows);
        self.reasons = why::reasons(old, new, grown.iter().map(String::as_str));
    }

    /// The text in a form; `names` are those of the old and the new heap.
    pub fn in_form(&self, form: Form, names: (&str, &str), rows: &RowArgs) -> Result<String> {
        let comparison = Comparison {
            old: names.0,
            new: names.1,
            pythons: (&self.pythons.0, &self.pythons.1),
            types: &self.types,
            fates: self.fates.as_deref(),
            rules: &self.rules,
            broken: &self.broken,
            reasons: &self.reasons,
            sizes: self.sizes,
        };
        let rows = rows.rows(form);
        match form {
            Form::Table => Ok(view::text(&comparison, &rows)),
            Form::Json => json::diff(&comparison, &rows),
            Form::Markdown => Ok(view::markdown(&comparison, &rows)),
            Form::Junit => Ok(view::junit(&comparison, &rows)),
        }
    }

    /// 0, or [`BROKEN`], then with a line on stderr for each broken rule.
    pub fn exit_code(&self) -> u8 {
        for broken in &self.broken {
            eprintln!("biopsy: rule {}", view::broken_text(broken));
        }
        if self.broken.is_empty() { 0 } else { BROKEN }
    }
}

/// Fails for rules that nothing is compared for.
pub fn rules_need(what: &str) -> Error {
    Error::usage("cannot hold rules against nothing", what)
}
