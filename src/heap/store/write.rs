//! Writes a snapshot, block by block.

use std::io::Write;

use super::objects::{self, BlockSizes, State};
use super::references::{Guesser, ObjectShapes};
use super::{
    BLOCK_BYTES, BLOCK_ROWS, END_MAGIC, MAGIC, MOST_RAW, SnapshotHead, VERSION, kind, parts,
    rows_per_byte,
};
use crate::blocks::bytes::{put_varint, zigzag};
use crate::blocks::{BLOCK_HEAD, Packer};
use crate::error::{Error, ErrorKind, Result};
use crate::heap::census::Census;
use crate::heap::graph::{Graph, Label, ObjectId, Root};

/// What is written, for errors.
const SNAPSHOT: &str = "the snapshot";

/// Writes a snapshot of `graph`, with the rows and doubts of `censuses` (what else they say is in the head).
/// Fails when the graph is not in itself as [`Graph`] says, or `out` cannot be written.
pub fn write(
    head: &SnapshotHead,
    censuses: &[Census],
    graph: &Graph,
    out: &mut dyn Write,
) -> Result<()> {
    check(graph)?;
    let mut writer = Writer {
        out,
        packer: Packer::new(SNAPSHOT)?,
        blocks: Vec::new(),
        offset: 0,
    };
    writer.bytes(MAGIC)?;
    writer.bytes(&VERSION.to_le_bytes())?;
    parts::put_head(&mut writer.packer.raw, head);
    writer.block(kind::HEAD, 0)?;
    writer.rows(kind::MAPPINGS, &[], &head.mappings, |out, mapping| {
        parts::put_mapping(out, mapping);
        1
    })?;
    if let Some(account) = &head.account {
        parts::put_account(&mut writer.packer.raw, account);
        writer.block(kind::ACCOUNT, 1)?;
    }
    writer.rows(kind::THREADS, &[], &head.threads, |out, thread| {
        parts::put_thread(out, thread);
        1
    })?;
    for census in censuses {
        let mut first = Vec::new();
        parts::put_counting(&mut first, census.counting, census.doubts);
        writer.rows(kind::CENSUS, &first, &census.types, |out, row| {
            parts::put_type_count(out, row);
            1
        })?;
        let rows: Vec<_> = parts::unsure_rows(&census.unsure).collect();
        if !rows.is_empty() {
            writer.rows(kind::UNSURE, &first, &rows, |out, row| {
                parts::put_unsure(out, row);
                1
            })?;
        }
    }
    writer.graph(graph)?;
    writer.index(graph)
}

struct Writer<'a> {
    out: &'a mut dyn Write,
    packer: Packer,
    /// Kind and length of each block so far.
    blocks: Vec<(u32, u64)>,
    /// Bytes written so far.
    offset: u64,
}

impl Writer<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.offset += bytes.len() as u64;
        self.out
            .write_all(bytes)
            .map_err(|error| Error::write(SNAPSHOT, &error))
    }

    /// Writes what the packer has gathered as one block of so many rows.
    fn block(&mut self, kind: u32, rows: u64) -> Result<()> {
        if self.packer.raw.len() as u64 > u64::from(MOST_RAW) {
            return Err(Error::new(
                ErrorKind::CannotWrite,
                "cannot write the snapshot",
                "a type has more attributes than the format allows",
            ));
        }
        let least = rows.div_ceil(rows_per_byte(kind));
        let least = least.saturating_sub(BLOCK_HEAD as u64);
        let block = self.packer.block(kind, least)?;
        self.blocks.push((kind, block.len() as u64));
        self.bytes(&block)
    }

    /// Writes rows of varying size in as many blocks as it takes, each with `first` before its rows; none
    /// when there is neither. `put` gives what a row counts for.
    fn rows<T>(
        &mut self,
        kind: u32,
        first: &[u8],
        rows: &[T],
        mut put: impl FnMut(&mut Vec<u8>, &T) -> u64,
    ) -> Result<()> {
        let mut bytes = Vec::new();
        let (mut count, mut weight) = (0, 0);
        for (at, row) in rows.iter().enumerate() {
            weight += put(&mut bytes, row);
            count += 1;
            if bytes.len() >= BLOCK_BYTES || at + 1 == rows.len() {
                self.packer.raw.extend_from_slice(first);
                put_varint(&mut self.packer.raw, count);
                self.packer.raw.append(&mut bytes);
                self.block(kind, weight)?;
                (count, weight) = (0, 0);
            }
        }
        if rows.is_empty() && !first.is_empty() {
            self.packer.raw.extend_from_slice(first);
            put_varint(&mut self.packer.raw, 0);
            self.block(kind, 0)?;
        }
        Ok(())
    }

    /// Writes rows of two columns.
    fn pairs<T>(
        &mut self,
        kind: u32,
        rows: &[T],
        mut left: impl FnMut(&T) -> u64,
        right: impl Fn(&T) -> u64,
    ) -> Result<()> {
        for chunk in rows.chunks(BLOCK_ROWS) {
            put_varint(&mut self.packer.raw, chunk.len() as u64);
            self.packer
                .column(&mut chunk.iter().map(&mut left).collect());
            self.packer.column(&mut chunk.iter().map(&right).collect());
            self.block(kind, chunk.len() as u64)?;
        }
        Ok(())
    }

    fn graph(&mut self, graph: &Graph) -> Result<()> {
        self.rows(kind::NAMES, &[], &graph.names, |out, name| {
            parts::put_text(out, name);
            1
        })?;
        self.pairs(
            kind::TYPES,
            &graph.types,
            |row| u64::from(row.name),
            |row| row.object.map_or(0, |object| u64::from(object) + 1),
        )?;
        self.rows(kind::SHAPES, &[], &graph.shapes, |out, shape| {
            parts::put_shape(out, shape);
            1 + shape.labels.len() as u64
        })?;
        let mut state = State::new(graph.types.len(), graph.shapes.len(), u64::MAX);
        for from in (0..graph.len()).step_by(BLOCK_ROWS) {
            let to = graph.len().min(from + BLOCK_ROWS);
            objects::put(&mut self.packer, graph, from, to, &mut state);
            self.block(kind::OBJECTS, (to - from) as u64)?;
        }
        let mut sizes = BlockSizes::new(graph.types.len());
        for from in (0..graph.blocks.len()).step_by(BLOCK_ROWS) {
            let to = graph.len().min(from + BLOCK_ROWS);
            sizes.put(&mut self.packer, graph, from, to);
            self.block(kind::BLOCKS, (to - from) as u64)?;
        }
        let mut guesser = Guesser::new(&graph.shapes);
        let shapes = ObjectShapes {
            shapes: &graph.shape_ids,
            ends: graph.starts.get(1..).unwrap_or_default(),
        };
        let mut values = Vec::new();
        for from in (0..graph.targets.len()).step_by(BLOCK_ROWS) {
            let to = graph.targets.len().min(from + BLOCK_ROWS);
            guesser.column(&shapes, &graph.targets, from, to, &mut values);
            put_varint(&mut self.packer.raw, (to - from) as u64);
            self.packer.column(&mut values);
            self.block(kind::REFERENCES, (to - from) as u64)?;
        }
        let mut last = 0;
        self.rows(kind::ROOTS, &[], &graph.roots, |out, (object, root)| {
            put_varint(out, zigzag(i64::from(*object) - last));
            last = i64::from(*object);
            parts::put_root(out, root);
            1
        })?;
        let mut last = 0;
        self.pairs(
            kind::TEXTS,
            &graph.texts,
            |(object, _)| u64::from(object - std::mem::replace(&mut last, *object)),
            |(_, name)| u64::from(*name),
        )?;
        self.rows(kind::CACHES, &[], &graph.caches, |out, cache| {
            parts::put_cache(out, cache);
            1
        })
    }

    fn index(&mut self, graph: &Graph) -> Result<()> {
        let offset = self.offset;
        let blocks = std::mem::take(&mut self.blocks);
        for total in [
            graph.names.len(),
            graph.types.len(),
            graph.shapes.len(),
            graph.len(),
            graph.targets.len(),
            graph.roots.len(),
            graph.texts.len(),
            blocks.len(),
        ] {
            put_varint(&mut self.packer.raw, total as u64);
        }
        let mut values: Vec<u64> = blocks.iter().map(|(kind, _)| u64::from(*kind)).collect();
        self.packer.column(&mut values);
        values.extend(blocks.iter().map(|(_, length)| length));
        self.packer.column(&mut values);
        self.block(kind::INDEX, blocks.len() as u64)?;
        self.bytes(&offset.to_le_bytes())?;
        self.bytes(END_MAGIC)
    }
}

fn root_names(root: &Root) -> [Option<u32>; 2] {
    match *root {
        Root::Module(name) | Root::Interpreter(name) | Root::Thread { field: name, .. } => {
            [Some(name), None]
        }
        Root::Frame {
            function, local, ..
        } => [Some(function), local],
        Root::StaticType | Root::Tracked | Root::Garbage => [None, None],
    }
}

fn label_name(label: &Label) -> Option<u32> {
    match *label {
        Label::Attribute(name) | Label::Field(name) | Label::Local(name) => Some(name),
        Label::Found => None,
    }
}

/// Fails unless all of the graph's indices lead somewhere: a file that cannot be read back helps nobody.
fn check(graph: &Graph) -> Result<()> {
    let objects = graph.len();
    let is_object = |id: ObjectId| (id as usize) < objects;
    let is_name = |id: u32| (id as usize) < graph.names.len();
    let starts_fit = match graph.starts.as_slice() {
        [] => objects == 0 && graph.targets.is_empty(),
        [first, .., last] => *first == 0 && *last == graph.targets.len() as u64,
        [only] => *only == 0 && graph.targets.is_empty(),
    };
    let is_label = |label: &Label| label_name(label).is_none_or(is_name);
    let lengths = [
        graph.type_ids.len(),
        graph.sizes.len(),
        graph.refcounts.len(),
        graph.flags.len(),
        graph.shape_ids.len(),
    ];
    let rules = [
        ("too many objects", ObjectId::try_from(objects).is_ok()),
        (
            "columns differ in length",
            lengths.iter().all(|length| *length == objects)
                && (graph.has_blocks() || graph.blocks.is_empty())
                && (graph.starts.len() == objects + 1 || graph.starts.is_empty()),
        ),
        (
            "addresses do not rise",
            graph.addresses.is_sorted_by(|a, b| a < b),
        ),
        (
            "references do not fit objects",
            starts_fit && graph.starts.is_sorted(),
        ),
        (
            "a reference leads to no object",
            graph.targets.iter().all(|&id| is_object(id)),
        ),
        (
            "an object has no type",
            graph
                .type_ids
                .iter()
                .all(|&id| (id as usize) < graph.types.len()),
        ),
        (
            "an object has no shape",
            graph
                .shape_ids
                .iter()
                .all(|&id| (id as usize) < graph.shapes.len()),
        ),
        (
            "a type is no object or has no name",
            graph
                .types
                .iter()
                .all(|row| is_name(row.name) && row.object.is_none_or(is_object)),
        ),
        (
            "a label has no name",
            graph
                .shapes
                .iter()
                .all(|shape| shape.labels.iter().all(is_label)),
        ),
        (
            "a root leads nowhere",
            graph.roots.iter().all(|(id, root)| {
                is_object(*id) && root_names(root).into_iter().flatten().all(is_name)
            }),
        ),
        (
            "a cache is no object or has no name",
            graph.caches.iter().all(|cache| {
                is_object(cache.object) && is_name(cache.function) && is_name(cache.file)
            }),
        ),
        (
            "texts do not fit objects",
            graph.texts.is_sorted_by(|a, b| a.0 < b.0)
                && graph
                    .texts
                    .iter()
                    .all(|(id, name)| is_object(*id) && is_name(*name)),
        ),
    ];
    match rules.iter().find(|(_, holds)| !holds) {
        None => Ok(()),
        Some((why, _)) => Err(Error::new(
            ErrorKind::Failed,
            "cannot write the snapshot",
            format!("its object graph is not whole: {why}"),
        )),
    }
}
