//! `biopsy heap path`: how an object, or the instances of a type, are reached from a root.

use std::io::Write;

use clap::Args;
use rustc_hash::FxHashMap;

use super::input::GraphArgs;
use super::put;
use super::referrers::{Asked, SubjectArgs};
use crate::cli::args::parse_limit;
use crate::error::Result;
use crate::heap::fold::Fold;
use crate::heap::graph::{Graph, ObjectId};
use crate::heap::paths::{Form, Paths};
use crate::heap::referrers::Referrers;
use crate::heap::steps;
use crate::view::heap::holders::{self, PathRow};
use crate::view::heap::json::holders as json;

/// Print the shortest path from a module, a thread's frame or the interpreter to an object; for a type, the forms of
/// the paths to its instances and how many share each; for several types, a line for each.
#[derive(Debug, Args)]
pub struct PathArgs {
    #[command(flatten)]
    target: GraphArgs,
    #[command(flatten)]
    subject: SubjectArgs,
    /// At most this many different paths, or types where several match, or "all" [default: 5, of types 20]
    #[arg(short, long, visible_alias = "limit", value_name = "N", value_parser = parse_limit)]
    count: Option<usize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Steps of a path that is shown as an example of its form.
const STEPS: usize = 24;

/// Rows where the command line names no other number.
const PATHS: usize = 5;
const TYPES: usize = 20;

pub fn run(args: &PathArgs, out: &mut dyn Write) -> Result<()> {
    let graph = args.target.graph()?;
    let fold = Fold::of(&graph);
    let paths = Paths::of(&graph, &fold);
    let (mut rows, all, count, what) = match args.subject.find(&graph)? {
        Asked::Object(object) => {
            let direct = Referrers::new(&graph, &fold).direct(object);
            let count = args.count.unwrap_or(PATHS);
            let found = paths.several(object, &direct, count);
            let rows = found.into_iter().map(|text| {
                PathRow::of(Form {
                    text,
                    objects: 1,
                    example: object,
                })
            });
            let rows: Vec<PathRow> = rows.collect();
            let all = rows.len();
            (rows, all, count, "paths")
        }
        Asked::Objects(objects, _) => {
            let types = by_type(&graph, objects);
            let count = args.count;
            match types.as_slice() {
                [(_, objects)] => {
                    let forms = paths.forms(objects.iter().copied());
                    let rows: Vec<PathRow> = forms.into_iter().map(PathRow::of).collect();
                    let all = rows.len();
                    (rows, all, count.unwrap_or(PATHS), "forms")
                }
                several => {
                    let count = count.unwrap_or(TYPES);
                    let shown = several.iter().take(count);
                    let rows = shown.map(|(name, objects)| of_type(&paths, name, objects));
                    (rows.collect(), several.len(), count, "types")
                }
            }
        }
    };
    rows.truncate(count);
    let hidden = all - rows.len();
    if args.target.values() && args.subject.address.is_none() {
        for row in &mut rows {
            let text = paths.text(row.form.example, STEPS);
            row.such_as = text.filter(|text| *text != row.form.text);
        }
    }
    if args.json {
        return put(out, &json::paths(&graph, &rows, hidden)?);
    }
    let mut text = match (rows.is_empty(), args.subject.address) {
        (true, _) if graph.missing > 0 => {
            "no root that is left reaches it: what holds it is missing from the core file\n"
                .to_string()
        }
        (true, _) => {
            "no root reaches it: garbage that is not collected yet, or held by C code\n".to_string()
        }
        (false, Some(_)) => holders::paths(&rows),
        (false, None) => holders::forms(&graph, &rows),
    };
    if hidden > 0 {
        text.push_str(&format!("({hidden} more {what}, not shown)\n"));
    }
    put(out, &text)
}

/// The objects by their types' names, the type with the most first.
fn by_type(graph: &Graph, objects: Vec<ObjectId>) -> Vec<(&str, Vec<ObjectId>)> {
    let mut types: FxHashMap<&str, Vec<ObjectId>> = FxHashMap::default();
    for object in objects {
        let name = steps::type_name(graph, object);
        types.entry(name).or_default().push(object);
    }
    let mut types: Vec<_> = types.into_iter().collect();
    types.sort_by(|(a, of_a), (b, of_b)| of_b.len().cmp(&of_a.len()).then_with(|| a.cmp(b)));
    types
}

/// The row of a type: the form that most of its instances share.
fn of_type(paths: &Paths, name: &str, objects: &[ObjectId]) -> PathRow {
    let mut forms = paths.forms(objects.iter().copied());
    let unknown = || Form {
        text: "no root reaches it".to_string(),
        objects: objects.len() as u64,
        example: objects.first().copied().unwrap_or(0),
    };
    let others = forms.len().saturating_sub(1);
    let first = if forms.is_empty() {
        unknown()
    } else {
        forms.swap_remove(0)
    };
    PathRow {
        kind: Some(name.to_string()),
        others,
        ..PathRow::of(first)
    }
}
