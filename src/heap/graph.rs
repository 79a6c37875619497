//! The object graph in flat arrays: objects in the order of their addresses, their references, and names on them.
//! No Python knowledge beyond names.

/// Index of an object in a [`Graph`].
pub type ObjectId = u32;

/// Index of a text in [`Graph::names`].
pub type NameId = u32;

/// What a reference is called from the side of its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Label {
    /// An instance attribute or slot: `.name`.
    Attribute(NameId),
    /// A field of the interpreter's own struct: `__closure__`, `co_consts`, `__class__` and the like.
    Field(NameId),
    /// A local variable of a frame or generator.
    Local(NameId),
    /// Found by looking at an unknown struct: existence only.
    Found,
}

/// What follows after a shape's labelled references.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rest {
    /// Nothing.
    Nothing,
    /// Items `[0]`, `[1]`, … of a sequence.
    Items,
    /// Keys and values of a mapping, alternating.
    Pairs,
    /// Members of a set.
    Members,
}

/// How the references of an object are labelled: those in `labels` first, one each, then all others as `rest` says.
/// Objects share shapes: there are a few per type.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Labels of the first references.
    pub labels: Vec<Label>,
    /// What the others are.
    pub rest: Rest,
}

/// A type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Type {
    /// As [`super::census::TypeCount::name`] gives it.
    pub name: NameId,
    /// Its own object, where it is one of the graph's.
    pub object: Option<ObjectId>,
}

/// Bits of [`Graph::flags`].
pub mod flags {
    /// The collector tracks it.
    pub const TRACKED: u8 = 1;
    /// `muppy.get_objects()` has it.
    pub const MUPPY: u8 = 2;
    /// Its references were found by looking at an unknown struct.
    pub const CONSERVATIVE: u8 = 4;
    /// It was caught in the middle of a change.
    pub const TORN: u8 = 8;
    /// It lives as long as the interpreter (3.12 and newer): its reference count says nothing.
    pub const IMMORTAL: u8 = 16;
    /// Only roots of the kinds [`super::Root::Tracked`] and [`super::Root::Garbage`] lead to it.
    pub const LOST: u8 = 32;
    /// It is [`LOST`], and no reference comes from outside of what is lost: it waits for the collector.
    pub const GARBAGE: u8 = 64;
}

/// What keeps an object alive from outside of the graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Root {
    /// A module, by its name in `sys.modules`.
    Module(NameId),
    /// A local variable or value on the stack of a running function.
    Frame {
        /// OS id of the thread, 0 when not known.
        thread: i32,
        /// Position in the stack, 0 innermost.
        depth: u32,
        /// The function's qualified name.
        function: NameId,
        /// The variable; `None` for a value on the evaluation stack.
        local: Option<NameId>,
    },
    /// What a thread's state holds, such as `handled_exception`.
    Thread {
        /// OS id of the thread, 0 when not known.
        thread: i32,
        /// What it is.
        field: NameId,
    },
    /// A field of the interpreter's state, such as `sysdict`.
    Interpreter(NameId),
    /// A type that is not made by a program.
    StaticType,
    /// On a list of the collector, and not reachable from any other root: something that is not seen keeps it, C code.
    Tracked,
    /// The same, and all references to it come from objects that nothing keeps: not collected yet.
    Garbage,
}

impl Root {
    /// Whether nothing but the type of its object tells it from others of its kind.
    pub fn is_unnamed(&self) -> bool {
        matches!(self, Root::StaticType | Root::Tracked | Root::Garbage)
    }
}

/// Which bytes of objects are added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sizes {
    /// Those of `sys.getsizeof`.
    #[default]
    GetSizeOf,
    /// Those of the allocators' blocks.
    Blocks,
    /// The same, with what the allocators' debug hooks add.
    DebugBlocks,
}

impl Sizes {
    /// The word for it in files.
    pub fn name(self) -> &'static str {
        match self {
            Sizes::GetSizeOf => "getsizeof",
            Sizes::Blocks => "blocks",
            Sizes::DebugBlocks => "debug-blocks",
        }
    }

    /// What sizes are, in words.
    pub fn description(self) -> &'static str {
        match self {
            Sizes::GetSizeOf => "sizes as sys.getsizeof counts",
            Sizes::Blocks => "sizes in the allocators' blocks",
            Sizes::DebugBlocks => {
                "sizes in the allocators' blocks, with what their debug hooks add"
            }
        }
    }
}

/// A `functools.lru_cache`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cache {
    /// The wrapper.
    pub object: ObjectId,
    /// The function, with its module: `app.views.lookup`.
    pub function: NameId,
    /// The function's file; empty when it is not known.
    pub file: NameId,
    /// Its first line; 0 when it is not known.
    pub line: u32,
    /// Calls that were answered from the cache.
    pub hits: u64,
    /// Calls that were not.
    pub misses: u64,
    /// Results that are kept.
    pub size: u64,
    /// Results that are kept at most; `None` for no limit.
    pub limit: Option<u64>,
}

/// The object graph.
///
/// Arrays named in the plural have one entry an object and the same length; object `i` refers to
/// `targets[starts[i]..starts[i + 1]]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Graph {
    /// Texts: types, attributes, modules, variables. Sorted by nothing; each is there once.
    pub names: Vec<String>,
    /// Types.
    pub types: Vec<Type>,
    /// Shapes.
    pub shapes: Vec<Shape>,
    /// Addresses, rising.
    pub addresses: Vec<u64>,
    /// Index in `types`.
    pub type_ids: Vec<u32>,
    /// `sys.getsizeof`, in bytes.
    pub sizes: Vec<u64>,
    /// Bytes of all allocators' blocks that each takes (`heap/decode/blocks.rs`); empty where that is not known.
    pub blocks: Vec<u64>,
    /// Whether these have the bytes that debug hooks of the allocators add.
    pub debug_blocks: bool,
    /// What [`Graph::bytes`] gives; see [`Graph::count_in`].
    pub counted: Sizes,
    /// Reference counts.
    pub refcounts: Vec<u32>,
    /// See [`flags`].
    pub flags: Vec<u8>,
    /// Index in `shapes`.
    pub shape_ids: Vec<u32>,
    /// Where an object's references start; one more entry than objects.
    pub starts: Vec<u64>,
    /// The objects referred to.
    pub targets: Vec<ObjectId>,
    /// Roots and what they hold.
    pub roots: Vec<(ObjectId, Root)>,
    /// Texts of objects that name something: functions, modules, types, and strings that are keys of a module's, class's or
    /// instance's dict or names of keyword arguments; by object, rising. With `--values` short reprs of others too.
    pub texts: Vec<(ObjectId, NameId)>,
    /// Caches of functions, by object.
    pub caches: Vec<Cache>,
    /// Bytes of memory that a core file lacks since it was cut short: with any, what refers to an object may be missing, and
    /// all numbers are lower bounds.
    pub missing: u64,
}

impl Graph {
    /// Number of objects.
    pub fn len(&self) -> usize {
        self.addresses.len()
    }

    /// Whether there is no object.
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    /// The object at `address`.
    pub fn object_at(&self, address: u64) -> Option<ObjectId> {
        let index = self.addresses.binary_search(&address).ok()?;
        ObjectId::try_from(index).ok()
    }

    /// What `object` refers to, in the order of its shape.
    pub fn references(&self, object: ObjectId) -> &[ObjectId] {
        let at = object as usize;
        let range = self.starts.get(at).zip(self.starts.get(at + 1));
        range
            .and_then(|(from, to)| {
                let (from, to) = (usize::try_from(*from).ok()?, usize::try_from(*to).ok()?);
                self.targets.get(from..to)
            })
            .unwrap_or_default()
    }

    /// Counts in blocks from now on where that is wanted and their sizes are known, else as `sys.getsizeof` does; gives which
    /// of them it is.
    pub fn count_in(&mut self, wanted: Sizes) -> Sizes {
        self.counted = match wanted {
            Sizes::Blocks | Sizes::DebugBlocks if self.has_blocks() => match self.debug_blocks {
                true => Sizes::DebugBlocks,
                false => Sizes::Blocks,
            },
            _ => Sizes::GetSizeOf,
        };
        self.counted
    }

    /// Whether sizes of blocks are known.
    pub fn has_blocks(&self) -> bool {
        self.blocks.len() == self.len()
    }

    /// Bytes of each object, as [`Graph::count_in`] was told.
    pub fn bytes(&self) -> &[u64] {
        match self.counted {
            Sizes::GetSizeOf => &self.sizes,
            Sizes::Blocks | Sizes::DebugBlocks => &self.blocks,
        }
    }

    /// A text.
    pub fn name(&self, name: NameId) -> &str {
        self.names.get(name as usize).map_or("?", String::as_str)
    }
}

/// Graphs for tests.
#[cfg(test)]
pub mod testing {
    use super::*;

    /// Adds a text, or finds it.
    pub fn name(graph: &mut Graph, text: &str) -> NameId {
        let at = graph.names.iter().position(|name| name == text);
        at.unwrap_or_else(|| {
            graph.names.push(text.to_string());
            graph.names.len() - 1
        }) as NameId
    }

    /// Adds a shape, or finds it.
    pub fn shape(graph: &mut Graph, labels: &[Label], rest: Rest) -> u32 {
        let shape = Shape {
            labels: labels.to_vec(),
            rest,
        };
        let at = graph.shapes.iter().position(|known| *known == shape);
        at.unwrap_or_else(|| {
            graph.shapes.push(shape);
            graph.shapes.len() - 1
        }) as u32
    }

    /// Adds an object that refers to `targets`, which may not exist yet.
    pub fn object(
        graph: &mut Graph,
        kind: &str,
        size: u64,
        shape: u32,
        targets: &[ObjectId],
    ) -> ObjectId {
        let kind_name = name(graph, kind);
        let known = graph.types.iter().position(|known| known.name == kind_name);
        let type_id = known.unwrap_or_else(|| {
            graph.types.push(Type {
                name: kind_name,
                object: None,
            });
            graph.types.len() - 1
        });
        if graph.starts.is_empty() {
            graph.starts.push(0);
        }
        graph
            .addresses
            .push(0x1000 + 64 * graph.addresses.len() as u64);
        graph.type_ids.push(type_id as u32);
        graph.sizes.push(size);
        graph.blocks.push(size.next_multiple_of(16));
        graph.refcounts.push(1);
        graph.flags.push(0);
        graph.shape_ids.push(shape);
        graph.targets.extend_from_slice(targets);
        graph.starts.push(graph.targets.len() as u64);
        graph.len() as ObjectId - 1
    }

    /// A graph of lists with `targets[i]` in object `i`, all sizes different.
    pub fn lists(targets: &[Vec<ObjectId>], roots: &[ObjectId]) -> Graph {
        let mut graph = Graph::default();
        let items = shape(&mut graph, &[], Rest::Items);
        for (at, targets) in targets.iter().enumerate() {
            object(&mut graph, "list", 100 + at as u64, items, targets);
        }
        for root in roots {
            let module = name(&mut graph, &format!("module{root}"));
            graph.roots.push((*root, Root::Module(module)));
        }
        graph
    }
}
