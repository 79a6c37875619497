//! The functions of a process: every code object with its name, module, lines and kind, found through function objects,
//! running frames and the constants of other code objects, and which of them a person means.
//!
//! Where code objects have no qualified name (up to 3.10) it is that of a function made from it, else the one that the
//! compiler would give: below the code object among whose constants it is.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use super::types::Types;
use super::{Heap, walk};
use crate::glob;
use crate::layout::heap::fields;
use crate::layout::linetable::Lines;
use crate::units::printable;

/// Bits of `co_flags` (Include/cpython/code.h): what is no body of a module or class, and what makes generators.
const OPTIMIZED: u32 = 1;
const GENERATOR: u32 = 0x20;
const COROUTINE: u32 = 0x80;
const ASYNC_GENERATOR: u32 = 0x200;

/// Longest line table that is read, bytes.
const TABLE: u64 = 1 << 20;
/// Most constants of a code object that are looked at.
const CONSTANTS: u64 = 1 << 16;
/// Deepest nesting of code objects for a name.
const NESTING: usize = 32;
/// Candidates that are named in an error.
const NAMED: usize = 8;

/// What a call of the code object gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodeKind {
    /// A result: the call lasts until it is there.
    Function,
    /// A generator.
    Generator,
    /// A coroutine.
    Coroutine,
    /// An asynchronous generator.
    AsyncGenerator,
}

impl CodeKind {
    /// Whether a call only makes an object that runs later.
    pub fn is_lazy(self) -> bool {
        self != CodeKind::Function
    }
}

/// A code object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeObject {
    /// Its address; its reference count is the first word there.
    pub address: u64,
    /// The module; the file's name without ending where no function tells.
    pub module: String,
    /// `co_qualname`.
    pub qualname: String,
    /// `co_name`.
    pub name: String,
    /// `co_filename`.
    pub file: String,
    /// `co_firstlineno`.
    pub first_line: u32,
    /// All its lines, rising, each once; empty where the table could not be read.
    pub lines: Vec<u32>,
    /// What a call gives.
    pub kind: CodeKind,
    /// Whether its reference count is never written (3.12 and newer).
    pub immortal: bool,
    /// Whether it is the body of a module or class.
    pub is_body: bool,
}

impl CodeObject {
    /// `module.qualname`.
    pub fn full_name(&self) -> String {
        format!("{}.{}", self.module, self.qualname)
    }
}

/// What a process's Python has that is called.
#[derive(Debug, Clone, Default)]
pub struct Functions {
    /// All code objects, by address.
    pub codes: Vec<CodeObject>,
}

/// What is known of a code object before it has a name.
struct Raw {
    address: u64,
    name: String,
    qualname: Option<String>,
    module: Option<String>,
    parent: Option<usize>,
    file: String,
    first_line: u32,
    lines: Vec<u32>,
    flags: u32,
    immortal: bool,
    constants: Vec<u64>,
}

impl Heap<'_> {
    /// All code objects.
    pub fn functions(&self) -> Functions {
        let walked = walk::walk(self);
        let mut types = Types::default();
        let (mut codes, mut functions) = (Vec::new(), Vec::new());
        self.memory
            .each_set(&walked.seen, 0, walked.seen.len(), |address, place| {
                let Some(index) = types.find(self, place.word_or_0(8)) else {
                    return;
                };
                match types.get(index).tp_name.as_str() {
                    "code" => codes.push(address),
                    "function" => functions.push(address),
                    _ => {}
                }
            });
        let mut raws: Vec<Raw> = codes.iter().filter_map(|code| self.raw(*code)).collect();
        let by_address: FxHashMap<u64, usize> = raws
            .iter()
            .enumerate()
            .map(|(index, raw)| (raw.address, index))
            .collect();
        self.name_by_functions(&functions, &by_address, &mut raws);
        for parent in 0..raws.len() {
            let constants = std::mem::take(&mut raws[parent].constants);
            for constant in constants {
                if let Some(child) = by_address.get(&constant)
                    && *child != parent
                {
                    raws[*child].parent.get_or_insert(parent);
                }
            }
        }
        Functions {
            codes: named(&raws),
        }
    }

    fn raw(&self, address: u64) -> Option<Raw> {
        let place = self.memory.place(address)?;
        let offsets = &self.offsets.code;
        let text = |offset: u32| self.text(place.word(offset)?);
        let first_line = place.int(offsets.first_line);
        let table = place.word(offsets.line_table)?;
        let lines = self.memory.place(table).and_then(|table| {
            let length = table.word(16).filter(|length| *length <= TABLE)?;
            let bytes = table.bytes(32, length)?;
            let lines = Lines::decode(offsets.lines, bytes, first_line as i32);
            Some(lines.all())
        });
        let constants = place.word(offsets.constants)?;
        let items = self.tuple_items(constants).unwrap_or_default();
        let mut constants: Vec<u64> = super::memory::each_word(items).collect();
        constants.truncate(CONSTANTS as usize);
        let qualname = self
            .layout
            .code
            .fields
            .iter()
            .find(|(name, _)| *name == "co_qualname")
            .and_then(|(_, offset)| text(*offset));
        // co_flags stands behind the exception table, or, where there is none, before the first line.
        let flags = match offsets.exception_table {
            Some(table) => table + 8,
            None => offsets.first_line.checked_sub(4)?,
        };
        Some(Raw {
            address,
            name: text(offsets.name)?,
            qualname,
            module: None,
            parent: None,
            file: text(offsets.filename)?,
            first_line,
            lines: lines.unwrap_or_default(),
            flags: place.int(flags),
            immortal: self.is_immortal(&place),
            constants,
        })
    }

    /// Takes names and modules from function objects.
    fn name_by_functions(
        &self,
        functions: &[u64],
        by_address: &FxHashMap<u64, usize>,
        raws: &mut [Raw],
    ) {
        let Some(fields) = fields::of(self.layout.minor, "function") else {
            return;
        };
        let offset = |wanted: &str| {
            let found = fields.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, offset)| *offset)
        };
        let (Some(code), Some(module), Some(qualname)) = (
            offset("__code__"),
            offset("__module__"),
            offset("__qualname__"),
        ) else {
            return;
        };
        for function in functions {
            let Some(place) = self.memory.place(*function) else {
                continue;
            };
            let index = by_address.get(&place.word_or_0(code));
            let Some(raw) = index.and_then(|index| raws.get_mut(*index)) else {
                continue;
            };
            let own = self.text(place.word_or_0(qualname));
            // functools.wraps gives a function another's name; its code keeps its own.
            let fits = |own: &String| own.rsplit('.').next() == Some(raw.name.as_str());
            if raw.qualname.is_none() {
                raw.qualname = own.clone().filter(fits);
            }
            if raw.module.is_none() && own.as_ref().is_some_and(fits) {
                raw.module = self.text(place.word_or_0(module));
            }
        }
    }
}

/// Gives each its name.
fn named(raws: &[Raw]) -> Vec<CodeObject> {
    let mut votes: FxHashMap<&str, BTreeMap<&str, u32>> = FxHashMap::default();
    for raw in raws {
        if let Some(module) = &raw.module {
            *votes
                .entry(&raw.file)
                .or_default()
                .entry(module)
                .or_default() += 1;
        }
    }
    let module_of = |raw: &Raw| {
        if let Some(module) = &raw.module {
            return module.clone();
        }
        let voted = votes.get(raw.file.as_str());
        let most = voted.and_then(|votes| votes.iter().max_by_key(|(_, count)| **count));
        most.map_or_else(
            || {
                let file = raw.file.rsplit('/').next().unwrap_or_default();
                file.strip_suffix(".py").unwrap_or(file).to_string()
            },
            |(module, _)| (*module).to_string(),
        )
    };
    let mut codes: Vec<CodeObject> = raws
        .iter()
        .map(|raw| CodeObject {
            address: raw.address,
            module: module_of(raw),
            qualname: qualname(raws, raw, NESTING),
            name: raw.name.clone(),
            file: raw.file.clone(),
            first_line: raw.first_line,
            lines: raw.lines.clone(),
            kind: match raw.flags {
                flags if flags & ASYNC_GENERATOR != 0 => CodeKind::AsyncGenerator,
                flags if flags & COROUTINE != 0 => CodeKind::Coroutine,
                flags if flags & GENERATOR != 0 => CodeKind::Generator,
                _ => CodeKind::Function,
            },
            immortal: raw.immortal,
            is_body: raw.flags & OPTIMIZED == 0,
        })
        .collect();
    codes.sort_by_key(|code| code.address);
    codes
}

fn qualname(raws: &[Raw], raw: &Raw, left: usize) -> String {
    if let Some(qualname) = &raw.qualname {
        return qualname.clone();
    }
    let parent = raw.parent.and_then(|parent| raws.get(parent));
    match parent {
        Some(parent) if left > 0 && parent.name != "<module>" => {
            let outer = qualname(raws, parent, left - 1);
            match parent.flags & OPTIMIZED {
                0 => format!("{outer}.{}", raw.name),
                _ => format!("{outer}.<locals>.{}", raw.name),
            }
        }
        _ => raw.name.clone(),
    }
}

/// Why a word of the command line names no function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoMatch {
    /// In a few words.
    pub why: String,
    /// What could have been meant; at most a few, as people may type them.
    pub candidates: Vec<String>,
}

impl Functions {
    /// The functions that `word` means: `module.qualname`, a glob over that, or `file.py:line`. At most `most`.
    pub fn select(&self, word: &str, most: usize) -> Result<Vec<&CodeObject>, NoMatch> {
        let mut found = match word.rsplit_once(':') {
            Some((file, line)) if !line.is_empty() && line.bytes().all(|b| b.is_ascii_digit()) => {
                self.at_line(file, line.parse().unwrap_or(u32::MAX))
            }
            _ => self
                .callable()
                .filter(|code| glob::matches(word, &code.full_name()))
                .collect(),
        };
        // The end of a name that only one function has: `View.get`, `get`.
        if found.is_empty() {
            let ends = self.callable().filter(|code| {
                let full = code.full_name();
                full.strip_suffix(word)
                    .is_some_and(|before| before.ends_with('.') && !word.is_empty())
            });
            let ends: Vec<&CodeObject> = ends.collect();
            let mut full: Vec<String> = ends.iter().map(|code| code.full_name()).collect();
            full.dedup();
            if full.len() == 1 {
                found = ends;
            }
        }
        let names = |codes: &[&CodeObject]| {
            let mut names: Vec<String> = codes.iter().map(|code| shown(code)).collect();
            names.sort();
            names.dedup();
            names.truncate(NAMED);
            names
        };
        if found.is_empty() {
            let similar = self.similar(word);
            return Err(NoMatch {
                why: "no function of the process has that name".to_string(),
                candidates: names(&similar),
            });
        }
        if found.len() > most {
            return Err(NoMatch {
                why: format!("{} functions match, and {most} can be counted", found.len()),
                candidates: names(&found),
            });
        }
        Ok(found)
    }

    fn callable(&self) -> impl Iterator<Item = &CodeObject> {
        self.codes.iter().filter(|code| !code.is_body)
    }

    /// The innermost function whose lines include `line`.
    fn at_line(&self, file: &str, line: u32) -> Vec<&CodeObject> {
        let is_file = |code: &CodeObject| {
            let before = code.file.strip_suffix(file);
            before.is_some_and(|before| {
                before.is_empty() || before.ends_with('/') || file.starts_with('/')
            })
        };
        let span = |code: &CodeObject| {
            let last = code.lines.last().copied().unwrap_or(code.first_line);
            (code.first_line..=last.max(code.first_line))
                .contains(&line)
                .then(|| last.saturating_sub(code.first_line))
        };
        let inside: Vec<(u32, &CodeObject)> = self
            .callable()
            .filter(|code| is_file(code))
            .filter_map(|code| Some((span(code)?, code)))
            .collect();
        let least = inside.iter().map(|(span, _)| *span).min();
        let most_inner = inside.iter().filter(|(span, _)| Some(*span) == least);
        // Of several on one line, those whose line it is first.
        let first = most_inner.clone().map(|(_, code)| code.first_line).max();
        most_inner
            .filter(|(_, code)| Some(code.first_line) == first)
            .map(|(_, code)| *code)
            .collect()
    }

    /// Functions whose last name is that of `word`, else those that contain it.
    fn similar(&self, word: &str) -> Vec<&CodeObject> {
        let last = word.rsplit(['.', '/']).next().unwrap_or(word);
        let last = last.split(':').next().unwrap_or(last).trim_matches('*');
        if last.is_empty() {
            return Vec::new();
        }
        let exact: Vec<&CodeObject> = self.callable().filter(|code| code.name == last).collect();
        if !exact.is_empty() {
            return exact;
        }
        let lower = last.to_lowercase();
        let contains = |code: &&CodeObject| {
            code.full_name().to_lowercase().contains(&lower)
                || code.file.to_lowercase().contains(&lower)
        };
        self.callable().filter(contains).take(NAMED * 4).collect()
    }
}

/// A function as it is named to people, safe to print.
pub fn shown(code: &CodeObject) -> String {
    printable(&code.full_name()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(module: &str, qualname: &str, first_line: u32, last: u32) -> CodeObject {
        CodeObject {
            address: u64::from(first_line),
            module: module.to_string(),
            qualname: qualname.to_string(),
            name: qualname.rsplit('.').next().unwrap_or_default().to_string(),
            file: format!("/srv/{}.py", module.replace('.', "/")),
            first_line,
            lines: vec![first_line, last],
            kind: CodeKind::Function,
            immortal: false,
            is_body: qualname == "<module>",
        }
    }

    fn functions() -> Functions {
        Functions {
            codes: vec![
                code("app.web", "<module>", 1, 90),
                code("app.web", "get", 10, 20),
                code("app.web", "get.<locals>.inner", 12, 14),
                code("app.web", "View.get", 30, 40),
                code("other", "get", 5, 9),
            ],
        }
    }

    fn selected(word: &str) -> Result<Vec<String>, NoMatch> {
        functions()
            .select(word, 2)
            .map(|codes| codes.iter().map(|code| code.full_name()).collect())
    }

    #[test]
    fn names_globs_and_lines_select() {
        assert_eq!(selected("app.web.get"), Ok(vec!["app.web.get".into()]));
        assert_eq!(selected("*.View.*"), Ok(vec!["app.web.View.get".into()]));
        assert_eq!(selected("View.get"), Ok(vec!["app.web.View.get".into()]));
        let inner = "app.web.get.<locals>.inner".to_string();
        assert_eq!(selected("web.py:13"), Ok(vec![inner.clone()]));
        assert_eq!(selected("app/web.py:11"), Ok(vec!["app.web.get".into()]));
        assert_eq!(selected("/srv/app/web.py:12"), Ok(vec![inner]));
        assert!(selected("eb.py:12").is_err());
        assert!(selected("web.py:99999999999").is_err());
    }

    #[test]
    fn what_does_not_select_names_candidates() {
        let many = selected("*get").expect_err("three");
        assert!(many.why.contains("3 functions match"), "{}", many.why);
        assert_eq!(many.candidates.len(), 3);
        let none = selected("get").expect_err("no module");
        assert_eq!(
            none.candidates,
            ["app.web.View.get", "app.web.get", "other.get"]
        );
        assert!(selected("").is_err());
        assert!(selected("<module>").is_err());
    }
}
