//! Short texts of objects as `repr()` gives them: of those that can be typed into Python again, such as keys of dicts, and
//! of others what they are.

use std::fmt::Write as _;

use super::Heap;
use super::decode::sinks::Named;
use super::decode::{Name, dict, references};
use super::memory::{Place, each_word};
use super::steps::quoted;
use super::types::{self, Holding, Sizing, TypeInfo, Types, field};
use super::values::is_identifier;
use crate::layout::heap::IntSize;
use crate::layout::object;

/// Most characters of one string or bytes that are kept.
pub const SHORT: usize = 60;

/// Where a text ends that has many parts, how many of a container's items are looked at, and how deep they may lie.
const LONG: usize = 400;
const ITEMS: usize = 16;
const DEEPEST: usize = 4;

/// Digits of 30 bits of an int that are written out: 309 decimal digits.
const DIGITS: u64 = 35;

/// Bases of an enum's metatype that are followed.
const BASES: usize = 16;

/// Writes texts of objects.
#[derive(Debug)]
pub struct Repr<'h, 'm> {
    heap: &'h Heap<'m>,
    types: Types,
    sink: Named,
}

/// What stands for an object that has no text of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Other {
    /// Nothing: there is no text.
    None,
    /// `<type at 0x...>`, and containers that are no keys are shown too.
    Address,
}

impl<'h, 'm> Repr<'h, 'm> {
    /// For objects of `heap`, of which `types` are known.
    pub fn new(heap: &'h Heap<'m>, types: Types) -> Self {
        Repr {
            heap,
            types,
            sink: Named::new(heap),
        }
    }

    /// An expression that gives an equal object, as far as it is not cut; `None` where there is none.
    pub fn literal(&mut self, object: u64) -> Option<String> {
        self.text(object, Other::None, 0)
    }

    /// The same, or what the object is.
    pub fn describe(&mut self, object: u64) -> String {
        let text = self.text(object, Other::Address, 0);
        text.unwrap_or_else(|| format!("<? at {object:#x}>"))
    }

    fn text(&mut self, object: u64, other: Other, depth: usize) -> Option<String> {
        // Memory may say that an object is inside of itself.
        if depth > DEEPEST + 2 {
            return None;
        }
        let heap = self.heap;
        let place = heap.memory.place(object)?;
        let index = self.types.find(heap, place.word(8)?)?;
        let info = self.types.get(index).clone();
        let known = self.known(&info, &place, other, depth);
        if known.is_some() || other == Other::None {
            return known;
        }
        let name = match info.holding {
            Holding::Type => types::resolve(heap, object).map(|own| format!("class {}", own.name)),
            Holding::Module => {
                super::muppy::module_name(heap, &place).map(|name| format!("module {name}"))
            }
            _ if info.tp_name == "function" => self
                .attribute_text(&info, &place, &["__qualname__", "__name__"])
                .map(|name| format!("function {name}")),
            _ => None,
        };
        let name = name.unwrap_or(info.name);
        Some(format!("<{name} at {object:#x}>"))
    }

    fn known(
        &mut self,
        info: &TypeInfo,
        place: &Place<'m>,
        other: Other,
        depth: usize,
    ) -> Option<String> {
        let heap = self.heap;
        if let Some(text) = self.enum_member(info, place) {
            return Some(text);
        }
        match info.sizing {
            Sizing::Int if info.tp_name == "bool" => {
                let text = if int(heap, place)? == "0" {
                    "False"
                } else {
                    "True"
                };
                return Some(text.to_string());
            }
            Sizing::Int => return int(heap, place),
            Sizing::Text => return Some(text(&heap.text(place.address())?)),
            _ => {}
        }
        let items = match info.holding {
            Holding::Type if other == Other::None => {
                return types::resolve(heap, place.address()).map(|own| own.name);
            }
            Holding::Tuple | Holding::StructSeq(_) if depth < DEEPEST => {
                return self.sequence(info, place, ["(", ")"], other, depth);
            }
            Holding::Set if info.tp_name == "frozenset" && depth < DEEPEST => {
                return self.sequence(info, place, ["frozenset({", "})"], other, depth);
            }
            Holding::List if other == Other::Address && depth < DEEPEST => ["[", "]"],
            Holding::Set if other == Other::Address && depth < DEEPEST => ["{", "}"],
            Holding::Dict | Holding::DefaultDict | Holding::OrderedDict
                if other == Other::Address && depth < DEEPEST =>
            {
                return self.mapping(place, depth);
            }
            _ => ["", ""],
        };
        if !items[0].is_empty() {
            return self.sequence(info, place, items, other, depth);
        }
        if info.name == "uuid.UUID" {
            return self.uuid(info, place);
        }
        if info.is_heap() && !info.name.starts_with("datetime.") {
            return None;
        }
        match info.tp_name.as_str() {
            "NoneType" => Some("None".to_string()),
            "ellipsis" => Some("...".to_string()),
            "cell" if other == Other::Address && depth < DEEPEST => match place.word(16)? {
                0 => None,
                inner => self.text(inner, other, depth + 1),
            },
            "float" => Some(float(f64::from_bits(place.word(16)?))),
            "complex" => {
                let part = |at| Some(f64::from_bits(place.word(at)?));
                let (real, imaginary) = (part(16)?, part(24)?);
                Some(format!("complex({}, {})", float(real), float(imaginary)))
            }
            "bytes" => {
                let length = place.word(16)?;
                let bytes = place.bytes(object::BYTES_DATA, length.min(SHORT as u64))?;
                let more = if length > SHORT as u64 { "…" } else { "" };
                Some(format!("b'{}{more}'", bytes.escape_ascii()))
            }
            "datetime.date" => Some(format!("datetime.date({})", date(place)?)),
            "datetime.datetime" => self.moment(place, true, depth),
            "datetime.time" => self.moment(place, false, depth),
            "datetime.timedelta" => {
                let part = |at| place.int(at) as i32;
                Some(format!(
                    "datetime.timedelta({}, {}, {})",
                    part(24),
                    part(28),
                    part(32)
                ))
            }
            "datetime.timezone" => self.timezone(place, depth),
            _ => None,
        }
    }

    /// `module.Color.RED` of an enum's member, `module.Flag.A|module.Flag.B` of a flag with several.
    fn enum_member(&mut self, info: &TypeInfo, place: &Place) -> Option<String> {
        let heap = self.heap;
        if !info.is_heap() {
            return None;
        }
        let mut meta = heap.memory.word(info.address + 8)?;
        let mut is_enum = false;
        for _ in 0..BASES {
            if meta == heap.type_type || meta == 0 {
                break;
            }
            let index = self.types.find(heap, meta)?;
            let found = self.types.get(index);
            is_enum = matches!(found.name.as_str(), "enum.EnumMeta" | "enum.EnumType");
            if is_enum {
                break;
            }
            meta = heap.memory.word(meta + u64::from(field::BASE))?;
        }
        if !is_enum {
            return None;
        }
        let name = self.attribute(info, place, "_name_")?;
        if let Some(name) = heap.text(name) {
            let parts: Vec<&str> = name.split('|').collect();
            let part = |part: &&str| match is_identifier(part) {
                true => format!("{}.{part}", info.name),
                // Bits that have no name, as a number.
                false => format!("{}({part})", info.name),
            };
            return Some(parts.iter().map(part).collect::<Vec<_>>().join("|"));
        }
        // Up to 3.10 only members that the class names have a name.
        let value = self.attribute(info, place, "_value_")?;
        let digits = self.describe(value);
        let is_number = digits
            .bytes()
            .all(|digit| digit.is_ascii_digit() || digit == b'-');
        is_number.then(|| format!("{}({digits})", info.name))
    }

    /// What an instance has under `name`, in a slot, its dict, or in place of one.
    fn attribute(&mut self, info: &TypeInfo, place: &Place, name: &str) -> Option<u64> {
        let heap = self.heap;
        self.sink.clear();
        references(heap, info, place, true, &mut self.sink).ok()?;
        let mut by_dict = None;
        for (target, found) in &self.sink.fields {
            match found {
                Name::Attribute(text) if heap.text_is(*text, name) => return Some(*target),
                Name::Slot(text)
                    if heap.memory.c_string(*text, name.len() + 1).as_deref() == Some(name) =>
                {
                    return Some(*target);
                }
                Name::Field(known) if *known == name => return Some(*target),
                Name::Field("__dict__") => by_dict = heap.dict_entry(*target, name),
                _ => {}
            }
        }
        by_dict
    }

    fn attribute_text(&mut self, info: &TypeInfo, place: &Place, names: &[&str]) -> Option<String> {
        let found = names
            .iter()
            .find_map(|name| self.attribute(info, place, name))?;
        self.heap.text(found)
    }

    fn uuid(&mut self, info: &TypeInfo, place: &Place) -> Option<String> {
        let number = self.attribute(info, place, "int")?;
        let digits = digits(self.heap, &self.heap.memory.place(number)?)?.0;
        let mut value: u128 = 0;
        for (at, digit) in digits.iter().enumerate().take(5) {
            value |= u128::from(*digit).checked_shl(30 * at as u32)?;
        }
        let hex = format!("{value:032x}");
        let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
        Some(format!(
            "uuid.UUID('{}-{}-{}-{}-{}')",
            part(0, 8),
            part(8, 12),
            part(12, 16),
            part(16, 20),
            part(20, 32)
        ))
    }

    /// `datetime.datetime(...)` or `datetime.time(...)` (Include/datetime.h): a hash, whether there is a zone, bytes of
    /// the numbers, the fold, and the zone.
    fn moment(&mut self, place: &Place, has_date: bool, depth: usize) -> Option<String> {
        let from = if has_date { 29 } else { 25 };
        let byte = |at: u32| u32::from(place.byte(from + at));
        let microsecond = byte(3) << 16 | byte(4) << 8 | byte(5);
        let mut text = match has_date {
            true => format!("datetime.datetime({}, ", date(place)?),
            false => "datetime.time(".to_string(),
        };
        write!(text, "{}, {}", byte(0), byte(1)).ok()?;
        if byte(2) != 0 || microsecond != 0 {
            write!(text, ", {}", byte(2)).ok()?;
        }
        if microsecond != 0 {
            write!(text, ", {microsecond}").ok()?;
        }
        if place.byte(24) != 0 {
            let zone = place.word(if has_date { 40 } else { 32 })?;
            let zone = self.text(zone, Other::Address, depth + 1)?;
            write!(text, ", tzinfo={zone}").ok()?;
        }
        if byte(6) != 0 {
            text.push_str(", fold=1");
        }
        text.push(')');
        Some(text)
    }

    fn timezone(&mut self, place: &Place, depth: usize) -> Option<String> {
        let (offset, name) = (place.word(16)?, place.word(24)?);
        let delta = self.heap.memory.place(offset)?;
        if delta.word(24)? == 0 && delta.int(32) == 0 && name == 0 {
            return Some("datetime.timezone.utc".to_string());
        }
        let offset = self.text(offset, Other::None, depth + 1)?;
        Some(match self.heap.text(name) {
            Some(name) => format!("datetime.timezone({offset}, {})", quoted(&name)),
            None => format!("datetime.timezone({offset})"),
        })
    }

    fn sequence(
        &mut self,
        info: &TypeInfo,
        place: &Place,
        [open, close]: [&str; 2],
        other: Other,
        depth: usize,
    ) -> Option<String> {
        let heap = self.heap;
        let words: Vec<u64> = match info.holding {
            // What a subclass has of its own is no item.
            Holding::Tuple | Holding::StructSeq(_) => {
                let items = heap.tuple_items(place.address())?;
                each_word(items).take(ITEMS + 1).collect()
            }
            _ => {
                self.sink.clear();
                references(heap, info, place, true, &mut self.sink).ok()?;
                self.sink.targets.iter().copied().take(ITEMS + 1).collect()
            }
        };
        let mut text = open.to_string();
        for (at, item) in words.iter().enumerate() {
            if at > 0 {
                text.push_str(", ");
            }
            if at == ITEMS || text.len() > LONG {
                text.push('…');
                break;
            }
            // What holds a part that has no expression has none, but it is seen what the others are.
            text.push_str(
                &self
                    .text(*item, other, depth + 1)
                    .or_else(|| self.bare(*item))?,
            );
        }
        if words.len() == 1 && open == "(" {
            text.push(',');
        }
        let is_empty_set = words.is_empty() && info.holding == Holding::Set;
        if is_empty_set {
            return Some(match open {
                "{" => "set()".to_string(),
                _ => "frozenset()".to_string(),
            });
        }
        text.push_str(close);
        Some(text)
    }

    /// `<type>`.
    fn bare(&mut self, object: u64) -> Option<String> {
        let kind = self.heap.memory.place(object)?.word(8)?;
        let index = self.types.find(self.heap, kind)?;
        Some(format!("<{}>", self.types.get(index).name))
    }

    fn mapping(&mut self, place: &Place, depth: usize) -> Option<String> {
        let heap = self.heap;
        let keys = dict::Keys::read(heap, place.word(dict::KEYS)?)?;
        let mut pairs = Vec::new();
        keys.each(heap, place.word(dict::VALUES)?, |key, value| {
            if value != 0 {
                pairs.push((key, value));
            }
            pairs.len() <= ITEMS
        });
        let mut text = "{".to_string();
        for (at, (key, value)) in pairs.iter().enumerate() {
            if at > 0 {
                text.push_str(", ");
            }
            if at == ITEMS || text.len() > LONG {
                text.push('…');
                break;
            }
            for (part, after) in [(*key, ": "), (*value, "")] {
                let part = self.text(part, Other::Address, depth + 1);
                text.push_str(part.as_deref().unwrap_or("<?>"));
                text.push_str(after);
            }
        }
        text.push('}');
        Some(text)
    }
}

/// A string's literal, cut.
fn text(whole: &str) -> String {
    let mut short: String = whole.chars().take(SHORT).collect();
    if whole.chars().count() > SHORT {
        short.push('…');
    }
    quoted(&short)
}

/// As Python reads it.
fn float(value: f64) -> String {
    if value.is_finite() {
        format!("{value:?}")
    } else {
        format!("float('{value}')").to_lowercase()
    }
}

/// Year, month and day.
fn date(place: &Place) -> Option<String> {
    let year = u32::from(place.byte(25)) << 8 | u32::from(place.byte(26));
    (place.room() >= 29).then_some(())?;
    Some(format!("{year}, {}, {}", place.byte(27), place.byte(28)))
}

/// Digits of 30 bits of an int, the lowest first, and whether it is negative; `None` for more than are written out.
fn digits(heap: &Heap, place: &Place) -> Option<(Vec<u32>, bool)> {
    let (count, negative) = size(heap, place)?;
    if count > DIGITS {
        return None;
    }
    let bytes = place.bytes(24, 4 * count)?;
    let (digits, _) = bytes.as_chunks::<4>();
    let digits = digits.iter().map(|digit| u32::from_le_bytes(*digit));
    Some((digits.collect(), negative))
}

/// How many digits an int has, and whether it is negative.
fn size(heap: &Heap, place: &Place) -> Option<(u64, bool)> {
    let word = place.word(16)?;
    Some(match heap.layout.int {
        IntSize::Tag => (word >> 3, word & 3 == 2),
        IntSize::Signed(_) => ((word as i64).unsigned_abs(), (word as i64) < 0),
    })
}

/// An int, or how long it is.
fn int(heap: &Heap, place: &Place) -> Option<String> {
    let Some((digits, negative)) = digits(heap, place) else {
        let (count, _) = size(heap, place)?;
        return Some(format!("<int of {count} digits of 30 bits>"));
    };
    let mut left = digits;
    let mut groups: Vec<u32> = Vec::new();
    while left.last() == Some(&0) {
        left.pop();
    }
    while !left.is_empty() {
        let mut rest = 0u64;
        for digit in left.iter_mut().rev() {
            let all = rest << 30 | u64::from(*digit & 0x3fff_ffff);
            *digit = (all / 1_000_000_000) as u32;
            rest = all % 1_000_000_000;
        }
        groups.push(rest as u32);
        while left.last() == Some(&0) {
            left.pop();
        }
    }
    let mut text = String::new();
    if negative && !groups.is_empty() {
        text.push('-');
    }
    match groups.split_last() {
        None => text.push('0'),
        Some((first, rest)) => {
            write!(text, "{first}").ok()?;
            for group in rest.iter().rev() {
                write!(text, "{group:09}").ok()?;
            }
        }
    }
    Some(text)
}
