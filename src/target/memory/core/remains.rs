//! What is left of a Python in a core file that was cut before its runtime and its static types, which lie near the end where
//! Python is a shared library.
//!
//! Objects on the collector's lists are found by their links (Include/internal/pycore_gc.h). Where a libpython of this
//! machine has its types as far from each other as the objects say that theirs are, it is the one that was mapped: its
//! symbols tell which types are where. Nothing that can be
//! written to is taken from it, but the block of offsets that starts `_PyRuntime` (3.13 and newer), which nobody writes.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use regex::bytes::Regex;
use rustc_hash::{FxHashMap, FxHashSet};

use super::{half, is_python, open_regular};
use crate::layout::heap::{self, GC_HEAD, statics};
use crate::layout::{debug_offsets, int, version, word};
use crate::target::elf::Symbols;
use crate::target::image::{Constants, Image, Span};
use crate::target::locate::Version;
use crate::target::maps::Region;
use crate::target::memory::constants::Unwritten;
use crate::target::memory::pages::PAGE;
use crate::target::memory::{Memory, Range, Unreadable};
use crate::target::runtime::{Runtime, version_text};

/// Objects whose types are looked at: enough to know which types there are.
const MOST_OBJECTS: usize = 1 << 20;
const MOST_OPENED: usize = 1 << 14;
/// Types that have to be where the file says that they are. A wrong place has up to four of thirty by chance, the right one more
/// than twenty where the objects are all there and four where most are missing.
const LEAST_TYPES: usize = 3;
/// Types that are tried to find where a file was mapped.
const MOST_TYPES: usize = 64;
/// Folders of Pythons that are named in memory and looked into, and times that they are counted.
const MOST_FOLDERS: usize = 4;
const MOST_NAMES: usize = 1 << 16;
/// Where names of types are put: nobody can have mapped it (`vm.mmap_min_addr`).
const NAMES: u64 = 0x1000;

/// `tp_base` in a type (Include/cpython/object.h).
const BASE: u64 = 256;

/// Clears the marks in the words of a list.
const LINK_MASK: u64 = !7;

/// What was found.
pub struct Remains {
    /// The runtime, of which the core may have nothing.
    pub runtime: Runtime,
    /// What the loader mapped of the file and nobody can write to.
    pub constants: Box<dyn Constants>,
    /// Where `type` is.
    pub type_type: u64,
    /// Types that are missing, as far as their instances need them.
    pub types: Vec<Span>,
}

/// Finds it; `None` where nothing tells.
pub fn find(image: &Image, regions: &[Region]) -> Option<Remains> {
    let met = types_of_objects(image);
    let known = regions
        .iter()
        .filter(|region| region.offset == 0 && region.of_file() && is_python(&region.name));
    let known: Vec<String> = known.map(|region| region.name.clone()).collect();
    let paths = match known.is_empty() {
        true => guesses(image),
        false => known,
    };
    // The place that most types fit is the right one, not the first that some fit. Two that fit as well tell nothing.
    let mut best: Option<(usize, u64, Option<Remains>)> = None;
    for path in &paths {
        let Some(binary) = Binary::open(Path::new(path)) else {
            continue;
        };
        let Some(symbols) = Symbols::of_binary(&binary, binary.lowest) else {
            continue;
        };
        for bias in biases(&binary, &symbols, &met) {
            let found = Found {
                binary: &binary,
                symbols: &symbols,
                bias,
            };
            let fitting = found.fitting(&met);
            match &mut best {
                Some((most, other, remains)) if fitting == *most && bias != *other => {
                    *remains = None
                }
                Some((most, ..)) if fitting <= *most => {}
                _ if fitting < LEAST_TYPES => {}
                _ => best = Some((fitting, bias, found.remains(image, regions, path))),
            }
        }
    }
    best?.2
}

/// Where the file may have been mapped, by the types that most objects have and any that it has in the same place of a page.
fn biases(binary: &Binary, symbols: &Symbols, met: &Met) -> Vec<u64> {
    let mut types: Vec<(&u64, &u32)> = met.types.iter().collect();
    types.sort_unstable_by_key(|(kind, count)| (std::cmp::Reverse(**count), **kind));
    let known = statics::TYPES.iter();
    let known: Vec<u64> = known
        .filter_map(|kind| symbols.find(binary, kind.symbol))
        .collect();
    let mut biases: Vec<u64> = types
        .iter()
        .take(MOST_TYPES)
        .flat_map(|(kind, _)| known.iter().filter_map(|at| kind.checked_sub(*at)))
        .filter(|bias| bias.is_multiple_of(PAGE))
        .collect();
    biases.sort_unstable();
    biases.dedup();
    biases
}

/// Types that objects have.
#[derive(Debug, Default)]
struct Met {
    /// Of those on the collector's lists, with how many objects have them.
    types: FxHashMap<u64, u32>,
    /// Of what the first of these lead to.
    others: FxHashSet<u64>,
}

/// Types of objects on the collector's lists and of what these hold.
fn types_of_objects(image: &Image) -> Met {
    let mut met = Met::default();
    let mut left = MOST_OBJECTS;
    for span in image.spans() {
        for (index, head) in span.bytes().chunks_exact(16).enumerate() {
            let at = span.start() + index as u64 * 16;
            if !is_linked(image, at, head) {
                continue;
            }
            let object = at.wrapping_add(GC_HEAD);
            if let Some(kind) = read_word(image, object.wrapping_add(8)) {
                *met.types.entry(kind).or_default() += 1;
                left -= 1;
            }
            if MOST_OBJECTS - left <= MOST_OPENED {
                met.others.extend(types_of_fields(image, object));
            }
            if left == 0 {
                break;
            }
        }
    }
    // Classes lead to their type and base.
    let classes = met.types.keys();
    let led = classes.flat_map(|kind| [8, BASE].map(|at| read_word(image, kind.wrapping_add(at))));
    let led: Vec<u64> = led.flatten().collect();
    met.others.extend(led);
    met
}

/// Types of what the fields of an object may hold, at once or as the first of an array: anything else is no type's address.
fn types_of_fields(image: &Image, object: u64) -> impl Iterator<Item = u64> {
    let fields = [16, 24, 32].map(|at| read_word(image, object.wrapping_add(at)));
    let fields = fields.into_iter().flatten();
    fields.flat_map(move |field| {
        let first = read_word(image, field);
        let held = [Some(field), first].into_iter().flatten();
        held.filter_map(|held| read_word(image, held.wrapping_add(8)))
    })
}

/// Whether `head`, which is at `at`, is in a list: the next one in it knows it.
fn is_linked(image: &Image, at: u64, head: &[u8]) -> bool {
    let (Some(next), Some(previous)) = (word(head, 0), word(head, 8)) else {
        return false;
    };
    let next = next & LINK_MASK;
    next != 0
        && previous & LINK_MASK != 0
        && next != at
        && next.is_multiple_of(16)
        && read_word(image, next.wrapping_add(8)).is_some_and(|back| back & LINK_MASK == at)
}

fn read_word(image: &Image, address: u64) -> Option<u64> {
    word(image.bytes(address, 8)?, 0)
}

/// A libpython whose `type` is where the objects say.
struct Found<'a> {
    binary: &'a Binary,
    symbols: &'a Symbols,
    bias: u64,
}

impl Found<'_> {
    fn address(&self, symbol: &str) -> Option<u64> {
        let offset = self.symbols.find(self.binary, symbol)?;
        self.bias.checked_add(offset)
    }

    /// How many types are where the file says; none where `type` itself is not, which every class leads to.
    fn fitting(&self, met: &Met) -> usize {
        let is_met = |at: &u64| met.types.contains_key(at) || met.others.contains(at);
        if !self
            .address(statics::TYPE_TYPE)
            .is_some_and(|at| is_met(&at))
        {
            return 0;
        }
        let known = statics::TYPES.iter();
        let there = known.filter_map(|kind| self.address(kind.symbol));
        there.filter(is_met).count()
    }

    fn remains(&self, image: &Image, regions: &[Region], path: &str) -> Option<Remains> {
        let version = self.version(image, path)?;
        let layout = heap::for_version(version.major, version.minor)?;
        let types: Vec<_> = statics::of(version.minor)
            .filter_map(|kind| Some((kind, self.address(kind.0.symbol)?)))
            .collect();
        if regions.iter().any(|region| region.start <= NAMES) {
            return None;
        }
        let mut names: Vec<u8> = Vec::new();
        let mut spans = Vec::new();
        for (kind, address) in &types {
            let name = NAMES + names.len() as u64;
            names.extend(kind.0.name.as_bytes());
            names.push(0);
            let is_there = (0..layout.type_size).step_by(8).any(|at| {
                let word = address.checked_add(at);
                word.is_none_or(|word| image.bytes(word, 8).is_some())
            });
            if !is_there {
                let find = |symbol: &str| self.address(symbol).unwrap_or(0);
                let bytes = statics::image(&layout, *kind, *address, name, find);
                spans.push(Span::new(*address, bytes));
            }
        }
        spans.push(Span::new(NAMES, names));
        let runtime = self.address("_PyRuntime")?;
        let mut head = vec![0; debug_offsets::SIZE];
        if !image.read(runtime, &mut head) {
            let at = runtime.wrapping_sub(self.bias);
            let known = version.minor >= 13 && self.binary.read(at, &mut head).is_ok();
            // All else in it is written to.
            if !known || debug_offsets::version_hex(&head).is_none() {
                head = Vec::new();
            }
        }
        let runtime = Runtime {
            address: runtime,
            version,
            code_type: self.address("PyCode_Type"),
            rseq: None,
            head,
            others: Vec::new(),
        };
        Some(Remains {
            runtime,
            constants: Box::new(self.binary.constants(self.bias)?),
            type_type: self.address(statics::TYPE_TYPE)?,
            types: spans,
        })
    }

    /// By `Py_Version`, a constant (3.11 and newer), else by the file's name and what is left of `sys.version`.
    fn version(&self, image: &Image, path: &str) -> Option<Version> {
        let hex = self.symbols.find(self.binary, "Py_Version").and_then(|at| {
            let mut bytes = [0; 8];
            self.binary.read(at, &mut bytes).ok()?;
            int(&bytes, 0).map(|hex| hex as u32)
        });
        if let Some(release) = hex.and_then(version::from_hex) {
            return Some(Version {
                major: release.major,
                minor: release.minor,
                patch: release.micro,
                suffix: release.suffix,
                free_threaded: false,
            });
        }
        let minor = minor_of(path)?;
        let text = image.spans().iter().find_map(|span| {
            let found = version_text(span.bytes());
            found.filter(|version| version.minor == minor)
        });
        Some(text.unwrap_or(Version {
            major: 3,
            minor,
            patch: Version::UNKNOWN,
            suffix: String::new(),
            free_threaded: false,
        }))
    }
}

/// The 8 of `libpython3.8.so.1.0`.
fn minor_of(path: &str) -> Option<u32> {
    let name = path.rsplit('/').next()?;
    let (_, rest) = name.split_once("python3.")?;
    let end = rest.find(|c: char| !c.is_ascii_digit());
    rest.get(..end.unwrap_or(rest.len()))?.parse().ok()
}

/// Files that may be the libpython of a process whose mappings are not known: by the folders of the modules that it has
/// imported.
fn guesses(image: &Image) -> Vec<String> {
    let Ok(pattern) = Regex::new(r"/lib/python3\.(\d{1,2})/") else {
        return Vec::new();
    };
    let mut folders: FxHashMap<(String, u32), u32> = FxHashMap::default();
    let mut left = MOST_NAMES;
    for span in image.spans() {
        let bytes = span.bytes();
        for found in pattern.captures_iter(bytes).take(left) {
            left -= 1;
            let Some(whole) = found.get(0) else { continue };
            let minor = found
                .get(1)
                .and_then(|digits| std::str::from_utf8(digits.as_bytes()).ok()?.parse().ok());
            let before = bytes.get(..whole.start()).unwrap_or_default();
            let is_path = |byte: &&u8| byte.is_ascii_graphic() && !b"\"':<>|".contains(byte);
            let length = before.iter().rev().take(256).take_while(is_path).count();
            let folder = before.get(before.len() - length..).unwrap_or_default();
            if let (Some(minor), true) = (minor, length == 0 || folder.starts_with(b"/")) {
                let folder = String::from_utf8_lossy(folder).into_owned();
                *folders.entry((folder, minor)).or_default() += 1;
            }
        }
    }
    let mut folders: Vec<_> = folders.into_iter().collect();
    folders.sort_unstable_by(|(a, of_a), (b, of_b)| of_b.cmp(of_a).then_with(|| a.cmp(b)));
    let files = folders
        .into_iter()
        .take(MOST_FOLDERS)
        .flat_map(|((folder, minor), _)| {
            [
                format!("{folder}/lib/libpython3.{minor}.so.1.0"),
                format!("{folder}/lib64/libpython3.{minor}.so.1.0"),
                format!("{folder}/lib/x86_64-linux-gnu/libpython3.{minor}.so.1.0"),
                format!("{folder}/lib/aarch64-linux-gnu/libpython3.{minor}.so.1.0"),
                format!("{folder}/bin/python3.{minor}"),
            ]
        });
    files.collect()
}

/// A file as the loader would map it, at the addresses that it has for itself.
struct Binary {
    file: File,
    /// Address, offset and length of what comes from the file.
    loads: Vec<(u64, u64, u64)>,
    /// Those of them that are mapped read-only.
    constants: Vec<(u64, u64, u64)>,
    lowest: u64,
}

impl Binary {
    fn open(path: &Path) -> Option<Binary> {
        let file = open_regular(path)?;
        let mut head = [0; 64];
        file.read_exact_at(&mut head, 0).ok()?;
        if !head.starts_with(b"\x7fELF\x02\x01") {
            return None;
        }
        let (table, size, count) = (word(&head, 32)?, half(&head, 54)?, half(&head, 56)?);
        if size < 56 || count > 256 {
            return None;
        }
        let mut headers = vec![0; usize::from(size) * usize::from(count)];
        file.read_exact_at(&mut headers, table).ok()?;
        let load = |header: &[u8]| {
            let load = (word(header, 16)?, word(header, 8)?, word(header, 32)?);
            let is_written = int(header, 4)? & 2 != 0;
            (int(header, 0) == Some(super::PT_LOAD)).then_some((load, is_written))
        };
        let headers = headers.chunks_exact(usize::from(size));
        let all: Vec<_> = headers.filter_map(load).collect();
        let loads: Vec<(u64, u64, u64)> = all.iter().map(|(load, _)| *load).collect();
        let constants = all.iter().filter(|(_, is_written)| !is_written);
        let constants = constants.map(|(load, _)| *load).collect();
        let lowest = loads.iter().map(|load| load.0).min()? / PAGE * PAGE;
        Some(Binary {
            file,
            loads,
            constants,
            lowest,
        })
    }

    /// Its read-only part where it was mapped.
    fn constants(&self, bias: u64) -> Option<Unwritten> {
        let region = |(address, offset, length): &(u64, u64, u64)| {
            let start = bias.checked_add(address / PAGE * PAGE)?;
            let end = bias.checked_add(*address)?.checked_add(*length)?;
            Some(Region {
                start,
                end: end.checked_next_multiple_of(PAGE)?,
                permissions: *b"r--p",
                offset: offset / PAGE * PAGE,
                inode: 1,
                ..Region::default()
            })
        };
        let mut regions: Vec<Region> = self.constants.iter().filter_map(region).collect();
        regions.sort_by_key(|region| region.start);
        let file = self.file.try_clone().ok()?;
        Some(Unwritten::of_files(
            regions,
            vec![((1, String::new()), file)],
        ))
    }
}

impl Memory for Binary {
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Unreadable> {
        let end = address.checked_add(into.len() as u64);
        let end = end.ok_or(Unreadable::Nowhere)?;
        let holds = |load: &&(u64, u64, u64)| {
            // The loader maps whole pages.
            let start = load.0 / PAGE * PAGE;
            address >= start && end <= load.0.saturating_add(load.2)
        };
        let load = self.loads.iter().find(holds).ok_or(Unreadable::Nowhere)?;
        let at = (load.1 + address).checked_sub(load.0);
        let at = at.ok_or(Unreadable::Nowhere)?;
        let read = self.file.read_exact_at(into, at);
        read.map_err(|_| Unreadable::Nowhere)
    }

    fn read_ranges(&self, _: &[Range], _: &mut [u8]) -> Result<usize, Unreadable> {
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_tell_the_minor_version() {
        for (path, minor) in [
            ("/usr/lib/libpython3.8.so.1.0", Some(8)),
            ("/usr/bin/python3.14", Some(14)),
            ("/usr/bin/python3", None),
            ("python3.", None),
        ] {
            assert_eq!(minor_of(path), minor, "{path}");
        }
    }

    #[test]
    fn memory_without_objects_has_no_remains() {
        let image = Image::new(vec![Span::new(0x1000, vec![7; 4096])], None);
        assert!(find(&image, &[]).is_none());
    }
}
