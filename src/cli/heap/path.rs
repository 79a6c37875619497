//! `biopsy heap path`: how an object, or the instances of a type, are reached from a root.

use std::io::Write;

use clap::Args;

use super::holders_json as json;
use super::input::GraphArgs;
use super::put;
use super::referrers::{Asked, SubjectArgs};
use crate::error::Result;
use crate::heap::fold::Fold;
use crate::heap::paths::{Form, Paths};
use crate::heap::referrers::Referrers;
use crate::view::heap::holders;

/// Print the shortest path from a module, a thread's frame or the interpreter to an object; for a type, the forms of
/// the paths to its instances and how many share each.
#[derive(Debug, Args)]
pub struct PathArgs {
    #[command(flatten)]
    target: GraphArgs,
    #[command(flatten)]
    subject: SubjectArgs,
    /// At most this many different paths
    #[arg(short, long, value_name = "N", default_value_t = 5)]
    count: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &PathArgs, out: &mut dyn Write) -> Result<()> {
    let graph = args.target.graph()?;
    let fold = Fold::of(&graph);
    let paths = Paths::of(&graph, &fold);
    let asked = args.subject.find(&graph)?;
    let (mut rows, hidden) = match asked {
        Asked::Object(object) => {
            let direct = Referrers::new(&graph, &fold).direct(object);
            let found = paths.several(object, &direct, args.count);
            let texts = found.into_iter().map(|text| Form {
                text,
                objects: 1,
                example: object,
            });
            (texts.collect(), 0)
        }
        Asked::Objects(objects, _) => {
            let forms = paths.forms(objects);
            let hidden = forms.len().saturating_sub(args.count);
            (forms, hidden)
        }
    };
    rows.truncate(args.count);
    if args.json {
        return put(out, &json::paths(&graph, &rows, hidden)?);
    }
    let mut text = match (rows.is_empty(), args.subject.address) {
        (true, _) => {
            "no root reaches it: garbage that is not collected yet, or held by C code\n".to_string()
        }
        (false, Some(_)) => holders::paths(&rows),
        (false, None) => holders::forms(&rows),
    };
    if hidden > 0 {
        text.push_str(&format!("({hidden} more forms, not shown)\n"));
    }
    put(out, &text)
}
