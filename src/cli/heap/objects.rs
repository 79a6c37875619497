//! `biopsy heap objects`: one line an object.

use std::cmp::Reverse;
use std::io::{BufWriter, Write};

use clap::{Args, ValueEnum};
use rustc_hash::FxHashMap;

use super::args::CountingArgs;
use super::input::HeapTargetArgs;
use crate::cli::args::parse_limit;
use crate::error::{Error, Result};
use crate::glob;
use crate::heap::Object;
use crate::units::parse_bytes;
use crate::view::heap::json;
use crate::view::heap::objects;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OrderArg {
    /// By address
    Address,
    /// Biggest first
    Size,
    /// Most references first
    Refcount,
    /// By name of type
    Type,
}

/// Print one line for each object: address, size, reference count, type.
///
/// The address is what id() gives in the process.
#[derive(Debug, Args)]
pub struct ObjectsArgs {
    #[command(flatten)]
    target: HeapTargetArgs,
    #[command(flatten)]
    counting: CountingArgs,
    /// Order of the lines
    #[arg(
        short,
        long,
        value_enum,
        default_value = "address",
        help_heading = "Rows"
    )]
    sort: OrderArg,
    /// At most this many lines, or "all" [default: all]
    #[arg(short, long, value_name = "N", value_parser = parse_limit, help_heading = "Rows")]
    limit: Option<usize>,
    /// Only objects whose type has such a name: myapp.*, dict; repeatable
    #[arg(short, long = "type", value_name = "GLOB", help_heading = "Rows")]
    types: Vec<String>,
    /// Only objects of at least this size: 512, 4KiB, 1MiB
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, help_heading = "Rows")]
    min_size: Option<u64>,
    /// Only objects of at most this size
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, help_heading = "Rows")]
    max_size: Option<u64>,
    /// Print one JSON object a line: address, type, bytes, refcount
    #[arg(long, help_heading = "Output")]
    json: bool,
}

pub fn run(args: &ObjectsArgs, out: &mut dyn Write) -> Result<()> {
    let mut subject = args.target.open()?;
    let mut lines = Lines {
        json: args.json,
        left: args.limit.unwrap_or(usize::MAX),
        out: BufWriter::new(out),
    };
    if !args.json {
        lines.put(&objects::header())?;
    }
    let counting = args.counting.counting();
    let mut wanted = Wanted {
        args,
        known: FxHashMap::default(),
    };
    if args.sort == OrderArg::Address {
        subject.objects(counting, &mut |object| match wanted.wants(&object) {
            true => lines.object(&object),
            false => Ok(()),
        })?;
    } else {
        let mut waiting = Waiting::default();
        subject.objects(counting, &mut |object| {
            if wanted.wants(&object) {
                waiting.push(&object);
            }
            Ok(())
        })?;
        waiting.write(args.sort, &mut lines)?;
    }
    lines
        .out
        .flush()
        .map_err(|error| Error::write("stdout", &error))
}

/// Which objects are listed.
struct Wanted<'a> {
    args: &'a ObjectsArgs,
    /// By type.
    known: FxHashMap<String, bool>,
}

impl Wanted<'_> {
    fn wants(&mut self, object: &Object) -> bool {
        let args = self.args;
        if object.bytes < args.min_size.unwrap_or(0)
            || object.bytes > args.max_size.unwrap_or(u64::MAX)
        {
            return false;
        }
        if args.types.is_empty() {
            return true;
        }
        if let Some(known) = self.known.get(object.kind) {
            return *known;
        }
        let matched = args
            .types
            .iter()
            .any(|pattern| glob::matches(pattern, object.kind));
        self.known.insert(object.kind.to_string(), matched);
        matched
    }
}

/// What is written.
struct Lines<'a> {
    json: bool,
    /// Objects that may still be written.
    left: usize,
    out: BufWriter<&'a mut dyn Write>,
}

impl Lines<'_> {
    fn put(&mut self, text: &str) -> Result<()> {
        self.out
            .write_all(text.as_bytes())
            .map_err(|error| Error::write("stdout", &error))
    }

    fn object(&mut self, object: &Object) -> Result<()> {
        if self.left == 0 {
            return Ok(());
        }
        self.left -= 1;
        let line = if self.json {
            json::object(object)?
        } else {
            objects::line(object)
        };
        self.put(&line)
    }
}

/// Objects that wait for their place in the order.
#[derive(Default)]
struct Waiting {
    names: Vec<String>,
    ids: FxHashMap<String, usize>,
    /// With the index of their name in place of it.
    objects: Vec<(Object<'static>, usize)>,
}

impl Waiting {
    fn push(&mut self, object: &Object) {
        let id = match self.ids.get(object.kind) {
            Some(id) => *id,
            None => {
                let id = self.names.len();
                self.names.push(object.kind.to_string());
                self.ids.insert(object.kind.to_string(), id);
                id
            }
        };
        self.objects.push((
            Object {
                kind: "",
                ..*object
            },
            id,
        ));
    }

    fn write(mut self, order: OrderArg, lines: &mut Lines) -> Result<()> {
        let names = &self.names;
        let name = |id: usize| names.get(id).map_or("?", String::as_str);
        // Stable: equals stay by address.
        match order {
            OrderArg::Address => {}
            OrderArg::Size => self
                .objects
                .sort_by_key(|(object, _)| Reverse(object.bytes)),
            OrderArg::Refcount => self
                .objects
                .sort_by_key(|(object, _)| Reverse(object.refcount)),
            OrderArg::Type => self.objects.sort_by(|a, b| name(a.1).cmp(name(b.1))),
        }
        self.objects.iter().try_for_each(|(object, id)| {
            lines.object(&Object {
                kind: name(*id),
                ..*object
            })
        })
    }
}
