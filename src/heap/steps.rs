//! References by the names that a Python programmer would write: `.name`, `['key']`, `[3]`.

use std::fmt::Write;

use super::fold::Fold;
use super::graph::{Graph, Label, NameId, ObjectId, Rest, Root};
use super::values::{HIDDEN, is_identifier};

/// One reference, by what it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// `.name`: an attribute, a slot, or an entry of a module's, class's or instance's dict.
    Attribute(NameId),
    /// `.__closure__`: a field of an interpreter's struct.
    Field(NameId),
    /// A variable of a frame or generator.
    Local(NameId),
    /// `[3]`.
    Item(u32),
    /// `['key']`: the value of a string whose text is known.
    Value(NameId),
    /// `[812]`, `[module.Class]`: the value of another key whose text is known.
    ValueAt(NameId),
    /// The value of a key whose text is not kept: the key.
    ValueOf(ObjectId),
    /// The same of a key of an object's own dict.
    Entry(ObjectId),
    /// It is a key of the mapping.
    Key,
    /// It is in the set.
    Member,
    /// Somewhere in a struct whose layout is not known.
    Inside,
}

/// Which texts objects have, for looking them up.
fn text(graph: &Graph, object: ObjectId) -> Option<NameId> {
    let at = graph
        .texts
        .binary_search_by_key(&object, |(owner, _)| *owner)
        .ok()?;
    graph.texts.get(at).map(|(_, name)| *name)
}

/// The text of an object that has one: a type's is its name.
pub fn text_of(graph: &Graph, object: ObjectId) -> Option<&str> {
    text(graph, object).map(|name| graph.name(name))
}

/// What the reference of `owner` at `position` is called.
pub fn step(graph: &Graph, fold: &Fold, owner: ObjectId, position: usize) -> Step {
    let shape = graph
        .shape_ids
        .get(owner as usize)
        .and_then(|shape| graph.shapes.get(*shape as usize));
    let Some(shape) = shape else {
        return Step::Inside;
    };
    if let Some(label) = shape.labels.get(position) {
        return match label {
            Label::Attribute(name) => Step::Attribute(*name),
            Label::Field(name) => Step::Field(*name),
            Label::Local(name) => Step::Local(*name),
            Label::Found => Step::Inside,
        };
    }
    let at = position - shape.labels.len();
    match shape.rest {
        Rest::Nothing => Step::Inside,
        Rest::Members => Step::Member,
        Rest::Items => Step::Item(u32::try_from(at).unwrap_or(u32::MAX)),
        Rest::Pairs if at.is_multiple_of(2) => Step::Key,
        Rest::Pairs => {
            let Some(key) = graph.references(owner).get(position - 1) else {
                return Step::Inside;
            };
            match text(graph, *key) {
                Some(name) if fold.is_part(owner) => Step::Attribute(name),
                Some(name) if type_name(graph, *key) == "str" => Step::Value(name),
                Some(name) => Step::ValueAt(name),
                None if fold.is_part(owner) => Step::Entry(*key),
                None => Step::ValueOf(*key),
            }
        }
    }
}

impl Step {
    /// The same for all items, values and variables at that place: what instances in one container share.
    #[must_use]
    pub fn general(self) -> Step {
        match self {
            Step::Item(_) => Step::Item(u32::MAX),
            Step::Value(_) | Step::ValueAt(_) | Step::ValueOf(_) => Step::ValueOf(ObjectId::MAX),
            Step::Entry(_) => Step::Entry(ObjectId::MAX),
            other => other,
        }
    }

    /// Whether it leads to an element of a container: an item, a key or value, a member.
    pub fn is_element(self) -> bool {
        match self {
            Step::Item(_) | Step::Value(_) | Step::ValueAt(_) | Step::ValueOf(_) => true,
            Step::Entry(_) | Step::Key | Step::Member => true,
            Step::Attribute(_) | Step::Field(_) | Step::Local(_) | Step::Inside => false,
        }
    }

    /// Adds it to a path. General steps are shown with a star.
    pub fn write(self, graph: &Graph, path: &mut String) {
        // Writing to a String does not fail.
        let _ = match self {
            Step::Attribute(name) if graph.name(name) == HIDDEN => {
                write!(path, ".__dict__[{HIDDEN}]")
            }
            Step::Attribute(name) if !is_attribute(graph.name(name)) => {
                write!(path, ".__dict__[{}]", quoted(graph.name(name)))
            }
            Step::Attribute(name) | Step::Field(name) => {
                write!(path, ".{}", graph.name(name))
            }
            Step::Local(name) => write!(path, ".<local {}>", graph.name(name)),
            Step::Item(u32::MAX) | Step::ValueOf(ObjectId::MAX) => write!(path, "[*]"),
            Step::Item(index) => write!(path, "[{index}]"),
            Step::Value(name) => write!(path, "[{}]", quoted(graph.name(name))),
            Step::ValueAt(name) => write!(path, "[{}]", graph.name(name)),
            Step::Entry(ObjectId::MAX) => write!(path, ".__dict__[*]"),
            Step::Entry(key) => write!(path, ".__dict__[<{}>]", type_name(graph, key)),
            Step::ValueOf(key) => write!(path, "[<{}>]", type_name(graph, key)),
            Step::Key => write!(path, ".<key>"),
            Step::Member => write!(path, ".<member>"),
            Step::Inside => write!(path, ".<inside>"),
        };
    }
}

/// The name of an object's type.
pub fn type_name(graph: &Graph, object: ObjectId) -> &str {
    graph
        .type_ids
        .get(object as usize)
        .and_then(|type_id| graph.types.get(*type_id as usize))
        .map_or("?", |found| graph.name(found.name))
}

/// Words of the language that stand behind no dot.
const KEYWORDS: [&str; 35] = [
    "False", "None", "True", "and", "as", "assert", "async", "await", "break", "class", "continue",
    "def", "del", "elif", "else", "except", "finally", "for", "from", "global", "if", "import",
    "in", "is", "lambda", "nonlocal", "not", "or", "pass", "raise", "return", "try", "while",
    "with", "yield",
];

/// Whether Python reads `object.name`; a name that is not known (`?`) is left.
fn is_attribute(name: &str) -> bool {
    name == "?" || is_identifier(name) && !KEYWORDS.contains(&name)
}

/// A key as `repr()` of the text shows it; it came from the target, so nothing in it reaches a terminal raw.
pub fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('\'');
    for letter in text.chars() {
        match letter {
            '\'' | '\\' => {
                quoted.push('\\');
                quoted.push(letter);
            }
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            other if other.is_control() => {
                let _ = write!(quoted, "\\x{:02x}", u32::from(other));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('\'');
    quoted
}

/// How the name of a thread begins, by its OS id.
pub fn thread_name(thread: i32) -> String {
    match thread {
        0 => "<thread ?".to_string(),
        known => format!("<thread {known}"),
    }
}

/// What stands before the name of something in an interpreter that is not the main one.
pub fn in_interpreter(id: u64) -> String {
    format!("<interpreter {id}>.")
}

/// What [`in_interpreter`] has put before a name, without the dot.
pub fn interpreter_of(name: &str) -> Option<&str> {
    let (interpreter, _) = name.split_once('.')?;
    let is_one = interpreter.starts_with("<interpreter ") && interpreter.ends_with('>');
    is_one.then_some(interpreter)
}

/// How a path begins.
pub fn root(graph: &Graph, root: &Root) -> String {
    match root {
        Root::Module(name) => graph.name(*name).to_string(),
        Root::Frame {
            thread,
            function,
            local,
            ..
        } => {
            let function = graph.name(*function);
            let variable = local.map_or("<stack>", |local| graph.name(local));
            format!("{}, {function}()>.{variable}", thread_name(*thread))
        }
        Root::Thread { thread, field } => {
            format!("{}>.{}", thread_name(*thread), graph.name(*field))
        }
        Root::Interpreter(name) => {
            let name = graph.name(*name);
            match interpreter_of(name) {
                Some(_) => name.to_string(),
                None => format!("<interpreter>.{name}"),
            }
        }
        Root::StaticType => "<static type>".to_string(),
        Root::Tracked | Root::Garbage if graph.missing > 0 => "<missing>".to_string(),
        Root::Tracked => "<C code>".to_string(),
        Root::Garbage => "<garbage>".to_string(),
    }
}
