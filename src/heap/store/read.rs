//! Reads a snapshot, only the blocks that are asked for. The bytes are hostile: nothing is allocated that
//! the size of the file does not justify, and every index is checked before it is used.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use super::file::{BEGIN, Block, Blocks, Entry, SNAPSHOT, bad, spend, text};
use super::objects::{BlockSizes, Columns, State};
use super::references::{Guesser, ObjectShapes};
use super::{MAGIC, SnapshotHead, VERSION, kind, parts, rows_per_byte};
use crate::blocks::bytes::unzigzag;
use crate::blocks::{BLOCK_HEAD, Unpacker, number};
use crate::error::{Error, ErrorKind, Result};
use crate::heap::census::{Census, Counting, Doubts};
use crate::heap::graph::{Graph, ObjectId, Root, Type, flags};

/// How many rows the tables of a snapshot have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Texts.
    pub names: usize,
    /// Types.
    pub types: usize,
    /// Shapes.
    pub shapes: usize,
    /// Objects.
    pub objects: usize,
    /// References.
    pub references: usize,
    /// Roots.
    pub roots: usize,
    /// Texts of objects.
    pub texts: usize,
}

/// One object of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectRow {
    /// Its address.
    pub address: u64,
    /// Index in [`Objects::type_names`].
    pub type_id: u32,
    /// `sys.getsizeof`, in bytes.
    pub size: u64,
    /// Reference count.
    pub refcount: u32,
    /// See [`crate::heap::graph::flags`].
    pub flags: u8,
}

/// A snapshot that is open. Opening reads head and index; all else is read when it is asked for.
///
/// Errors are of the kind [`ErrorKind::BadFile`] and say at which byte of the file the reason is; those
/// of a reader that was opened by path name the file.
#[derive(Debug)]
pub struct Reader<R = File> {
    file: Blocks<R>,
    entries: Vec<Entry>,
    /// Where the index is.
    index: u64,
    counts: Counts,
    head: SnapshotHead,
}

impl Reader<File> {
    /// Opens the snapshot at `path`.
    pub fn open(path: &Path) -> Result<Reader> {
        let shown = path.display().to_string();
        let failed = |error: &io::Error| Error::read(&shown, error);
        let file = File::open(path).map_err(|error| failed(&error))?;
        if !file.metadata().map_err(|error| failed(&error))?.is_file() {
            let what = format!("cannot read {shown}");
            return Err(Error::new(
                ErrorKind::CannotRead,
                what,
                "it is no regular file",
            ));
        }
        let mut reader = Reader::new(file).map_err(|error| error.within(&shown))?;
        reader.file.name = Some(shown);
        Ok(reader)
    }
}

impl<R: Read + Seek> Reader<R> {
    /// Opens the snapshot that `source` is.
    pub fn new(mut source: R) -> Result<Reader<R>> {
        let failed = |error: io::Error| Error::read(SNAPSHOT, &error);
        let length = source.seek(SeekFrom::End(0)).map_err(failed)?;
        source.rewind().map_err(failed)?;
        let mut begin = Vec::new();
        source
            .by_ref()
            .take(BEGIN)
            .read_to_end(&mut begin)
            .map_err(failed)?;
        check_begin(&begin)?;
        let mut file = Blocks {
            source,
            stored: Vec::new(),
            unpacker: Unpacker::new(SNAPSHOT)?,
            name: None,
        };
        let index = file.find_index(length)?;
        let block = file.block(&index)?;
        let (counts, entries) = read_index(block, index.offset)?;
        let mut head = None;
        let (mut mappings, mut threads, mut account) = (Vec::new(), Vec::new(), None);
        for (at, entry) in entries.iter().enumerate() {
            match entry.kind {
                kind::HEAD if at == 0 => head = Some(parts::head(&mut file.block(entry)?.cursor)?),
                kind::HEAD => return Err(bad(entry.offset, "it has two heads")),
                kind::MAPPINGS => file.block(entry)?.each(|block| {
                    mappings.push(parts::mapping(&mut block.cursor)?);
                    Ok(())
                })?,
                kind::ACCOUNT => {
                    let mut block = file.block(entry)?;
                    account = Some(parts::account(&mut block.cursor)?);
                }
                kind::THREADS => file.block(entry)?.each(|block| {
                    threads.push(parts::thread(&mut block.cursor)?);
                    Ok(())
                })?,
                _ => {}
            }
        }
        let head = head.ok_or_else(|| bad(BEGIN, "the first block is not its head"))?;
        Ok(Reader {
            file,
            entries,
            index: index.offset,
            counts,
            head: SnapshotHead {
                mappings,
                threads,
                account,
                ..head
            },
        })
    }

    /// What it says of its process.
    pub fn head(&self) -> &SnapshotHead {
        &self.head
    }

    /// How many rows its tables have.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The summary that was made with the snapshot; takes as long as reading its rows. Fails with
    /// [`ErrorKind::NotAvailable`] when the snapshot was written without one of this counting.
    pub fn census(&mut self, counting: Counting) -> Result<Census> {
        let mut types = Vec::new();
        let mut found: Option<Doubts> = None;
        self.each_block(kind::CENSUS, |block| {
            let (of, doubts) = parts::counting(&mut block.cursor)?;
            if of != counting {
                return Ok(());
            }
            found = Some(doubts);
            block.each(|block| {
                types.push(parts::type_count(&mut block.cursor)?);
                Ok(())
            })
        })?;
        let Some(doubts) = found else {
            let what = "cannot summarise the snapshot";
            let why = "it was written without the rows of this way of counting";
            return Err(self
                .file
                .named(Error::new(ErrorKind::NotAvailable, what, why)));
        };
        let mut census = self.head.census(counting, types, doubts);
        self.each_block(kind::UNSURE, |block| {
            if parts::counting(&mut block.cursor)?.0 != counting {
                return Ok(());
            }
            block.each(|block| parts::add_unsure(&mut block.cursor, &mut census.unsure))
        })?;
        Ok(census)
    }

    /// All objects one after the other, by address, in memory for one block of them and the names of types.
    pub fn objects(&mut self) -> Result<Objects<'_, R>> {
        let type_names = self.type_names()?;
        let (shapes, references) = (self.counts.shapes, self.counts.references as u64);
        let blocks = self.entries.iter();
        let blocks = blocks.filter(|entry| entry.kind == kind::OBJECTS).copied();
        Ok(Objects {
            state: State::new(type_names.len(), shapes, references),
            type_names,
            blocks: blocks.collect(),
            columns: Columns::default(),
            at: 0,
            left: self.counts.objects,
            reader: self,
        })
    }

    /// Calls `each` for all objects, by address, with the name of the object's type; ends with the first error.
    pub fn for_each_object(
        &mut self,
        mut each: impl FnMut(ObjectRow, &str) -> Result<()>,
    ) -> Result<()> {
        let mut objects = self.objects()?;
        while let Some(row) = objects.next_object()? {
            let name = objects.type_names.get(row.type_id as usize);
            each(row, name.map_or("?", String::as_str))?;
        }
        Ok(())
    }

    /// The whole graph.
    pub fn graph(&mut self) -> Result<Graph> {
        let counts = self.counts;
        let mut graph = Graph {
            names: Vec::with_capacity(counts.names),
            ..Graph::default()
        };
        self.each_block(kind::NAMES, |block| {
            block.each(|block| {
                graph.names.push(text(&mut block.cursor)?.to_string());
                Ok(())
            })
        })?;
        self.complete("names", graph.names.len(), counts.names)?;
        let mut types = Vec::with_capacity(counts.types);
        self.each_type(|row| types.push(row))?;
        graph.types = types;
        self.each_block(kind::SHAPES, |block| {
            block.each(|block| {
                let budget = &mut block.budget;
                let shape = parts::shape(&mut block.cursor, counts.names, |cursor, labels| {
                    spend(cursor, budget, labels)
                })?;
                graph.shapes.push(shape);
                Ok(())
            })
        })?;
        self.complete("shapes", graph.shapes.len(), counts.shapes)?;
        let mut columns = Columns::default();
        columns.reserve(counts.objects);
        let mut state = State::new(counts.types, counts.shapes, counts.references as u64);
        self.each_block(kind::OBJECTS, |block| {
            let rows = block.column_rows()?;
            columns.read(&mut block.cursor, rows, &mut state)?;
            block.cursor.end()
        })?;
        self.complete("objects", columns.addresses.len(), counts.objects)?;
        self.references(&mut graph, &columns, &state)?;
        graph.starts.reserve_exact(counts.objects + 1);
        graph.starts.push(0);
        graph.starts.append(&mut columns.ends);
        graph.addresses = columns.addresses;
        graph.type_ids = columns.type_ids;
        graph.sizes = columns.sizes;
        graph.refcounts = columns.refcounts;
        graph.flags = columns.flags;
        graph.shape_ids = columns.shape_ids;
        self.blocks(&mut graph)?;
        self.roots(&mut graph)?;
        self.caches(&mut graph)?;
        self.texts(&mut graph)?;
        Ok(graph)
    }

    fn references(&mut self, graph: &mut Graph, columns: &Columns, state: &State) -> Result<()> {
        let total = self.counts.references;
        if state.references() != total as u64 {
            return Err(self.bad("the objects' references are not as many as it says"));
        }
        graph.targets.reserve_exact(total);
        let objects = ObjectShapes {
            shapes: &columns.shape_ids,
            ends: &columns.ends,
        };
        let mut guesser = Guesser::new(&graph.shapes);
        let targets = &mut graph.targets;
        self.each_block(kind::REFERENCES, |block| {
            let rows = block.column_rows()?;
            guesser.read(&objects, &mut block.cursor, rows, targets)?;
            block.cursor.end()
        })?;
        self.complete("references", graph.targets.len(), total)
    }

    /// Sizes of blocks, where the file has them.
    fn blocks(&mut self, graph: &mut Graph) -> Result<()> {
        let mut sizes = BlockSizes::new(self.counts.types);
        let has_any = self.entries.iter().any(|entry| entry.kind == kind::BLOCKS);
        if !has_any {
            return Ok(());
        }
        graph.blocks.reserve_exact(self.counts.objects);
        self.each_block(kind::BLOCKS, |block| {
            graph.debug_blocks |= block.cursor.byte()? & 1 != 0;
            let rows = block.column_rows()?;
            sizes.read(&mut block.cursor, rows, graph)?;
            block.cursor.end()
        })?;
        self.complete("blocks", graph.blocks.len(), self.counts.objects)
    }

    fn roots(&mut self, graph: &mut Graph) -> Result<()> {
        let counts = self.counts;
        let mut last = 0i64;
        graph.roots.reserve_exact(counts.roots);
        self.each_block(kind::ROOTS, |block| {
            block.each(|block| {
                let cursor = &mut block.cursor;
                let object = last.checked_add(unzigzag(cursor.varint()?)).unwrap_or(-1);
                let object = cursor.check_index(object, counts.objects, "object")?;
                last = i64::from(object);
                let root = match parts::root(cursor, counts.names)? {
                    Root::Tracked if has_flag(graph, object, flags::GARBAGE) => Root::Garbage,
                    root => root,
                };
                graph.roots.push((object, root));
                Ok(())
            })
        })?;
        self.complete("roots", graph.roots.len(), counts.roots)
    }

    fn caches(&mut self, graph: &mut Graph) -> Result<()> {
        let counts = self.counts;
        self.each_block(kind::CACHES, |block| {
            block.each(|block| {
                let cursor = &mut block.cursor;
                graph
                    .caches
                    .push(parts::cache(cursor, counts.objects, counts.names)?);
                Ok(())
            })
        })
    }

    fn texts(&mut self, graph: &mut Graph) -> Result<()> {
        let counts = self.counts;
        let mut last: Option<ObjectId> = None;
        graph.texts.reserve_exact(counts.texts);
        self.each_block(kind::TEXTS, |block| {
            let rows = block.column_rows()?;
            let steps = block.cursor.column(rows)?;
            for (step, name) in steps.into_iter().zip(block.cursor.column(rows)?) {
                let object = match last {
                    None => Some(step),
                    Some(_) if step == 0 => None,
                    Some(last) => u64::from(last).checked_add(step),
                };
                let cursor = &block.cursor;
                let object = object.ok_or_else(|| cursor.bad("texts do not stand by object"))?;
                let object = cursor.check_index(object as i64, counts.objects, "object")?;
                last = Some(object);
                let name = cursor.check_index(name as i64, counts.names, "name")?;
                graph.texts.push((object, name));
            }
            block.cursor.end()
        })?;
        self.complete("texts", graph.texts.len(), counts.texts)
    }

    /// Names of the types, by their index.
    fn type_names(&mut self) -> Result<Vec<String>> {
        let mut wanted = Vec::with_capacity(self.counts.types);
        self.each_type(|row| wanted.push((row.name, wanted.len())))?;
        let mut names = vec![String::new(); wanted.len()];
        wanted.sort_unstable();
        let (mut id, mut next) = (0, wanted.into_iter().peekable());
        self.each_block(kind::NAMES, |block| {
            block.each(|block| {
                let name = text(&mut block.cursor)?;
                while let Some((_, at)) = next.next_if(|(wanted, _)| *wanted == id) {
                    if let Some(place) = names.get_mut(at) {
                        *place = name.to_string();
                    }
                }
                id += 1;
                Ok(())
            })
        })?;
        self.complete("names", id as usize, self.counts.names)?;
        Ok(names)
    }

    fn each_type(&mut self, mut each: impl FnMut(Type)) -> Result<()> {
        let counts = self.counts;
        let mut count = 0;
        self.each_block(kind::TYPES, |block| {
            let rows = block.column_rows()?;
            let names = block.cursor.column(rows)?;
            count += rows;
            for (name, object) in names.into_iter().zip(block.cursor.column(rows)?) {
                let cursor = &block.cursor;
                each(Type {
                    name: cursor.check_index(name as i64, counts.names, "name")?,
                    object: match object.checked_sub(1) {
                        None => None,
                        Some(id) => {
                            Some(cursor.check_index(id as i64, counts.objects, "object")?)
                        }
                    },
                });
            }
            block.cursor.end()
        })?;
        self.complete("types", count, counts.types)
    }

    /// Reads all blocks of a kind.
    fn each_block(
        &mut self,
        kind: u32,
        mut read: impl FnMut(&mut Block<'_>) -> Result<()>,
    ) -> Result<()> {
        for entry in self.entries.iter().filter(|entry| entry.kind == kind) {
            let mut block = self.file.block(entry)?;
            let result = read(&mut block);
            result.map_err(|error| self.file.named(error))?;
        }
        Ok(())
    }

    /// Fails when a table does not have as many rows as the index says.
    fn complete(&self, what: &str, found: usize, expected: usize) -> Result<()> {
        if found == expected {
            return Ok(());
        }
        Err(self.bad(format_args!(
            "there are {found} {what} where its index says {expected}"
        )))
    }

    /// An error in the index.
    fn bad(&self, why: impl std::fmt::Display) -> Error {
        self.file.named(bad(self.index, why))
    }
}

/// The objects of a snapshot, by address.
#[derive(Debug)]
pub struct Objects<'r, R = File> {
    reader: &'r mut Reader<R>,
    type_names: Vec<String>,
    /// Blocks that have not been read.
    blocks: VecDeque<Entry>,
    state: State,
    columns: Columns,
    /// The next row of `columns`.
    at: usize,
    /// Objects that have not been given.
    left: usize,
}

impl<R: Read + Seek> Objects<'_, R> {
    /// Names of the types; several may have the same.
    pub fn type_names(&self) -> &[String] {
        &self.type_names
    }

    /// The next object; `None` behind the last.
    pub fn next_object(&mut self) -> Result<Option<ObjectRow>> {
        while self.at >= self.columns.ends.len() {
            let Some(entry) = self.blocks.pop_front() else {
                let missing = "there are fewer objects than its index says";
                return match self.left {
                    0 => Ok(None),
                    _ => Err(self.reader.bad(missing)),
                };
            };
            self.columns.clear();
            self.at = 0;
            let mut block = self.reader.file.block(&entry)?;
            let (columns, state) = (&mut self.columns, &mut self.state);
            let result = block.column_rows().and_then(|rows| {
                columns.read(&mut block.cursor, rows, state)?;
                block.cursor.end()
            });
            result.map_err(|error| self.reader.file.named(error))?;
            let left = self.left.checked_sub(self.columns.ends.len());
            self.left = left.ok_or_else(|| {
                self.reader
                    .bad("there are more objects than its index says")
            })?;
        }
        let (at, columns) = (self.at, &self.columns);
        self.at += 1;
        // Each column has as many rows as the one that ended last.
        Ok(Some(ObjectRow {
            address: columns.addresses.get(at).copied().unwrap_or_default(),
            type_id: columns.type_ids.get(at).copied().unwrap_or_default(),
            size: columns.sizes.get(at).copied().unwrap_or_default(),
            refcount: columns.refcounts.get(at).copied().unwrap_or_default(),
            flags: columns.flags.get(at).copied().unwrap_or_default(),
        }))
    }
}

/// Checks magic and version.
fn check_begin(begin: &[u8]) -> Result<()> {
    if !begin.starts_with(MAGIC) {
        let why = "it does not begin with 'BIOPSYHP'";
        return Err(Error::bad_file("not a snapshot", 0, why));
    }
    let version = number(begin, MAGIC.len())
        .ok_or_else(|| bad(begin.len() as u64, "the file is cut short"))?;
    if version == VERSION {
        return Ok(());
    }
    let why =
        format!("it has format version {version}, and this biopsy reads format version {VERSION}");
    let error = Error::bad_file("cannot read the snapshot", MAGIC.len() as u64, why);
    Err(if version > VERSION {
        error.hint("a newer biopsy wrote it: update this one")
    } else {
        error
    })
}

/// Reads the index at `offset`.
fn read_index(mut block: Block<'_>, offset: u64) -> Result<(Counts, Vec<Entry>)> {
    let cursor = &mut block.cursor;
    let mut totals = [0; 7];
    for total in &mut totals {
        *total = cursor.varint()?;
    }
    let rows = cursor.rows(2)?;
    spend(cursor, &mut block.budget, rows)?;
    let kinds = cursor.column(rows)?;
    let mut entries = Vec::with_capacity(rows);
    let mut end = BEGIN;
    // How many rows the blocks of each kind may have: totals beyond are lies.
    let mut budgets = [0u64; 12];
    for (kind, length) in kinds.into_iter().zip(cursor.column(rows)?) {
        let kind = u32::try_from(kind).map_err(|_| cursor.bad("a kind is out of range"))?;
        let next = end.checked_add(length).filter(|next| *next <= offset);
        let next = next.filter(|_| length >= BLOCK_HEAD as u64);
        let next = next.ok_or_else(|| cursor.bad("its blocks do not fit before it"))?;
        if let Some(budget) = budgets.get_mut(kind as usize) {
            *budget = budget.saturating_add(length.saturating_mul(rows_per_byte(kind)));
        }
        entries.push(Entry {
            kind,
            offset: end,
            length,
        });
        end = next;
    }
    if end != offset {
        return Err(cursor.bad("blocks are missing in its index"));
    }
    let mut checked = [0; 7];
    for ((checked, total), kind) in checked.iter_mut().zip(totals).zip([
        kind::NAMES,
        kind::TYPES,
        kind::SHAPES,
        kind::OBJECTS,
        kind::REFERENCES,
        kind::ROOTS,
        kind::TEXTS,
    ]) {
        let most = budgets.get(kind as usize).copied().unwrap_or_default();
        *checked = usize::try_from(total)
            .ok()
            .filter(|_| total <= most)
            .ok_or_else(|| cursor.bad("it counts more rows than its size allows"))?;
    }
    let [names, types, shapes, objects, references, roots, texts] = checked;
    let counts = Counts {
        names,
        types,
        shapes,
        objects,
        references,
        roots,
        texts,
    };
    Ok((counts, entries))
}

fn has_flag(graph: &Graph, object: ObjectId, flag: u8) -> bool {
    let bits = graph.flags.get(object as usize);
    bits.is_some_and(|bits| bits & flag != 0)
}
