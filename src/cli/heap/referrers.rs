//! `biopsy heap referrers`: who refers to an object, or to the instances of a type.

use std::io::Write;

use clap::Args;

use super::input::GraphArgs;
use super::put;
use super::retained::{instances, kind_of};
use crate::cli::args::parse_limit;
use crate::error::{Error, ErrorKind, Result};
use crate::heap::fold::Fold;
use crate::heap::graph::{Graph, ObjectId};
use crate::heap::referrers::{Limits, MOST_SHOWN, Referrers};
use crate::units::printable;
use crate::view::heap::holders;
use crate::view::heap::json::holders as json;

/// Deeper trees are asked for by mistake, and each level is a pass over all references.
const DEEPEST: usize = 100;

/// Print the tree of who refers to an object, or to the instances of a type.
#[derive(Debug, Args)]
pub struct ReferrersArgs {
    #[command(flatten)]
    target: GraphArgs,
    #[command(flatten)]
    subject: SubjectArgs,
    /// Levels
    #[arg(long, value_name = "N", default_value_t = 3)]
    depth: usize,
    /// Children of one node, or "all"
    #[arg(long, visible_alias = "limit", value_name = "N", default_value = "10", value_parser = parse_limit)]
    max: usize,
    /// Print the tree of one object in Graphviz's language: dot -Tsvg
    #[arg(long, conflicts_with = "json")]
    dot: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Which objects it is about.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub struct SubjectArgs {
    /// The object at this address, which is its id(): 0x7f12 or decimal
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address)]
    pub address: Option<u64>,
    /// The objects whose type has such a name: myapp.User, myapp.*
    #[arg(short, long = "type", value_name = "GLOB")]
    pub pattern: Option<String>,
}

/// Names that are offered in the place of one that no type has.
const NAMES: usize = 3;

/// What [`SubjectArgs`] found.
pub enum Asked<'a> {
    /// One object.
    Object(ObjectId),
    /// Objects, and what to call them.
    Objects(Vec<ObjectId>, &'a str),
}

impl SubjectArgs {
    /// Looks for it; fails when there is none.
    pub fn find<'a>(&'a self, graph: &'a Graph) -> Result<Asked<'a>> {
        if let Some(address) = self.address {
            return graph.object_at(address).map(Asked::Object).ok_or_else(|| {
                Error::new(
                    ErrorKind::Failed,
                    format!("no object at {address:#x}"),
                    "nothing that is reachable starts there",
                )
                .hint("biopsy heap objects lists addresses; objects move when they die and are made again")
            });
        }
        let pattern = self.pattern.as_deref().unwrap_or("*");
        let objects = instances(graph, pattern);
        if objects.is_empty() {
            return Err(Error::new(
                ErrorKind::Failed,
                format!("no object of a type {}", printable(pattern)),
                "no type of that name has instances",
            )
            .hint(other_names(graph, pattern)));
        }
        let kind = kind_of(graph, pattern, &objects);
        Ok(Asked::Objects(objects, kind))
    }
}

/// What may have been meant by a name that no type has: types have the module before their name.
fn other_names(graph: &Graph, pattern: &str) -> String {
    let ending = format!(".{pattern}");
    let known = graph.types.iter().map(|found| graph.name(found.name));
    let alike: Vec<_> = known
        .filter(|name| name.ends_with(&ending))
        .take(NAMES)
        .map(|name| printable(name).into_owned())
        .collect();
    match alike.is_empty() {
        true => "biopsy heap summary lists the types; quote a pattern: 'myapp.*'".to_string(),
        false => format!("meant: {}?", alike.join(" or ")),
    }
}

/// An address as Python prints one, or in hexadecimal.
fn parse_address(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| "expected an address such as 0x7f1234 or what id() gave".to_string())
}

pub fn run(args: &ReferrersArgs, out: &mut dyn Write) -> Result<()> {
    if args.dot && args.subject.address.is_none() {
        return Err(Error::usage(
            "wrong command line",
            "--dot draws the referrers of one object: give its --address",
        ));
    }
    let graph = args.target.graph()?;
    let fold = Fold::of(&graph);
    let referrers = Referrers::new(&graph, &fold);
    if args.depth > DEEPEST {
        eprintln!(
            "biopsy: note: --depth {} is cut to {DEEPEST} levels",
            args.depth
        );
    }
    let limits = Limits {
        depth: args.depth.min(DEEPEST),
        children: args.max,
    };
    let text = match args.subject.find(&graph)? {
        Asked::Object(object) => {
            let (tree, is_cut) = referrers.tree(object, limits);
            if is_cut {
                eprintln!("biopsy: note: there are more referrers: {MOST_SHOWN} of them are shown");
            }
            if args.dot {
                holders::referrers_dot(&graph, &tree)
            } else if args.json {
                json::referrers(&graph, &tree, is_cut)?
            } else {
                holders::referrers(&graph, &tree)
            }
        }
        Asked::Objects(objects, kind) => {
            let tree = referrers.groups(kind, &objects, limits);
            if args.json {
                json::referrer_groups(&graph, &tree)?
            } else {
                holders::referrer_groups(&graph, &tree)
            }
        }
    };
    put(out, &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_people_paste_them() {
        assert_eq!(parse_address("0x7f12"), Ok(0x7f12));
        assert_eq!(parse_address("140237"), Ok(140_237));
        assert!(parse_address("7fzz").is_err() && parse_address("-1").is_err());
    }
}
