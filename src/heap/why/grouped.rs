//! Growth in pieces: what many attributes of one instance, globals of one module, variables of one function or keys of one
//! dict hold more than before, each only a little, is the instance's, module's, function's or dict's.
//!
//! From the longest paths to their beginnings: at each place what stands out from all that is at and below it is told alone, and the
//! rest together. Attributes that are values stand out later than such that are holders of many objects themselves.

use std::collections::BTreeMap;

use super::counted::Side;
use super::held::Held;
use crate::heap::graph::ObjectId;
use crate::heap::paths::{FormKeys, Hold};

/// Fewer pieces are told one by one.
const PIECES: usize = 3;
/// More new objects at one place are no value, but what a holder has.
const VALUE: u64 = 8;

/// More than so much of what is left stands out, in per cent: of an instance or a class a value and a holder, of a
/// module or a function the same.
const OF_INSTANCE: (i64, i64) = (40, 15);
const OF_ROOT: (i64, i64) = (15, 13);

/// What holds more than before, at one place or in pieces.
#[derive(Debug, Clone)]
pub struct Holder {
    pub key: u32,
    pub bytes: i64,
    pub objects: i64,
    /// What came to it.
    pub came: Vec<ObjectId>,
    /// One that grew itself there, when nothing came.
    pub grown: Option<ObjectId>,
    /// The form of its path, or of one that begins with its path.
    pub form: u32,
    /// Forms of its pieces and what they hold; empty when it is whole.
    pub parts: Vec<(u32, i64)>,
    is_value: bool,
}

impl Holder {
    /// What is held at one place; `objects_of` says how many objects came with one.
    fn of(key: u32, held: &Held, objects_of: &impl Fn(ObjectId) -> u64) -> Option<Holder> {
        let mut objects = 0u64;
        for object in &held.came {
            objects = objects.saturating_add(objects_of(*object));
        }
        Some(Holder {
            key,
            bytes: held.bytes,
            objects: held.objects,
            came: held.came.clone(),
            grown: held.grown.filter(|_| held.came.is_empty()),
            form: held.form?,
            parts: Vec::new(),
            is_value: (1..=VALUE).contains(&objects),
        })
    }

    fn take(&mut self, part: Holder) {
        self.bytes = self.bytes.saturating_add(part.bytes);
        self.objects = self.objects.saturating_add(part.objects);
        self.parts.push((part.form, part.bytes));
        self.came.extend(part.came);
        self.is_value = false;
    }
}

/// What is at a place and below it.
#[derive(Debug, Default)]
struct Below {
    holders: Vec<Holder>,
    /// By how much each of its own parts holds less.
    less: Vec<i64>,
}

/// The holders of all that `by_key` has, in pieces where that says more.
pub fn holders<'h>(
    keys: &FormKeys,
    side: &Side<'_>,
    by_key: impl Iterator<Item = (u32, &'h Held)>,
    objects_of: impl Fn(ObjectId) -> u64,
) -> Vec<Holder> {
    let mut own: BTreeMap<u32, (Option<&Held>, Below)> = BTreeMap::new();
    for (key, held) in by_key {
        own.insert(key, (Some(held), Below::default()));
    }
    let mut found = Vec::new();
    // What is before a key has a lower number.
    while let Some((key, (held, below))) = own.pop_last() {
        let before = keys.before(key);
        let mut less = 0;
        let mut whole = None;
        match held {
            Some(held) if held.bytes > 0 => whole = Holder::of(key, held, &objects_of),
            Some(held) => less = held.bytes,
            None => {}
        }
        let told = together(keys, key, whole, below, before.is_none());
        match before {
            Some((before, hold)) => {
                let (_, above) = own.entry(before).or_default();
                above.holders.extend(told);
                if less < 0 && hold == Hold::Named {
                    above.less.push(less);
                }
            }
            None => found.extend(told),
        }
    }
    // A path that begins with that of a holder names it.
    for holder in &mut found {
        while side.key_of(holder.form) != Some(holder.key) {
            match side.forms.before(holder.form) {
                Some(before) => holder.form = before,
                None => break,
            }
        }
    }
    found
}

/// Whether `below` is what `key` has under a name, or elements of that.
fn is_near(keys: &FormKeys, key: u32, mut below: u32) -> bool {
    while let Some((before, hold)) = keys.before(below) {
        match hold {
            _ if before == key => return true,
            Hold::Element => below = before,
            Hold::Named | Hold::Root => return false,
        }
    }
    false
}

/// What is told of a place that is `whole` itself and has `below` below it.
fn together(
    keys: &FormKeys,
    key: u32,
    mut whole: Option<Holder>,
    below: Below,
    is_root: bool,
) -> Vec<Holder> {
    let bars = if is_root { OF_ROOT } else { OF_INSTANCE };
    let mut holders = below.holders;
    if let Some(whole) = &mut whole {
        // New elements, and old ones that hold more.
        let is_element = |holder: &Holder| keys.before(holder.key) == Some((key, Hold::Element));
        let (elements, others) = holders.into_iter().partition(is_element);
        holders = others;
        let alone = (whole.form, whole.bytes);
        Vec::into_iter(elements).for_each(|element| whole.take(element));
        if !whole.parts.is_empty() {
            whole.parts.push(alone);
        }
    }
    let (mut told, mut near): (Vec<Holder>, Vec<Holder>) = (Vec::new(), Vec::new());
    for holder in holders {
        match is_near(keys, key, holder.key) {
            true => near.push(holder),
            false => told.push(holder),
        }
    }
    near.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.key.cmp(&b.key)));
    let sum = |holders: &mut dyn Iterator<Item = &Holder>| {
        holders.fold(0i64, |sum, holder| sum.saturating_add(holder.bytes))
    };
    let all = sum(&mut near.iter());
    let values = sum(&mut near.iter().filter(|holder| holder.is_value));
    // Of an instance of values its lists are a part; a module's are not.
    let (values, holders): (Vec<Holder>, Vec<Holder>) = match is_root || values <= all / 2 {
        true => near.into_iter().partition(|holder| holder.is_value),
        false => (near, Vec::new()),
    };
    let mut pieces = Vec::new();
    for (mut some, bar) in [(values, bars.0), (holders, bars.1)] {
        let mut left = sum(&mut some.iter());
        let stands_out = |holder: &mut Holder| {
            let stands_out = i128::from(holder.bytes) * 100 > i128::from(left) * i128::from(bar);
            left = left.saturating_sub(if stands_out { holder.bytes } else { 0 });
            stands_out
        };
        told.extend(some.extract_if(.., stands_out));
        match some.len() < PIECES {
            true => told.extend(some),
            false => pieces.extend(some),
        }
    }
    if pieces.is_empty() {
        told.extend(whole);
        return told;
    }
    // What left another attribute may be what came to these.
    let most = pieces
        .first()
        .map_or(0, |piece| piece.bytes)
        .saturating_mul(2);
    let less = below
        .less
        .iter()
        .filter(|less| less.saturating_neg() <= most);
    let less = less.fold(0i64, |sum, less| sum.saturating_add(*less));
    let form = pieces.first().map_or(u32::MAX, |piece| piece.form);
    let mut group = whole.unwrap_or(Holder {
        key,
        bytes: 0,
        objects: 0,
        came: Vec::new(),
        grown: None,
        form,
        parts: Vec::new(),
        is_value: false,
    });
    if group.bytes > 0 && group.parts.is_empty() {
        group.parts.push((group.form, group.bytes));
    }
    pieces.into_iter().for_each(|piece| group.take(piece));
    group.grown = None;
    group.bytes = group.bytes.saturating_add(less);
    if group.bytes > 0 {
        told.push(group);
    }
    told
}

#[cfg(test)]
mod tests {
    use super::super::{ALL_TYPES, reasons};
    use crate::heap::graph::testing::{name, object, shape};
    use crate::heap::graph::{Graph, Label, Rest, Root};

    /// `app.bag` with five attributes and `app.big`, which have a value each of the sizes given; 0 for none.
    fn app(values: u64, big: u64) -> Graph {
        let mut graph = Graph::default();
        let labels = ["bag", "big"].map(|word| Label::Attribute(name(&mut graph, word)));
        let places = ["a", "b", "c", "d", "e"].map(|word| name(&mut graph, word));
        let places = places.map(Label::Attribute);
        let module = shape(&mut graph, &labels, Rest::Nothing);
        let bag = shape(&mut graph, &places, Rest::Nothing);
        let leaf = shape(&mut graph, &[], Rest::Nothing);
        let is_new = values > 0;
        let targets: &[u32] = if is_new { &[1, 2] } else { &[1] };
        object(&mut graph, "module", 72, module, targets);
        let targets: &[u32] = if is_new { &[3, 4, 5, 6, 7] } else { &[] };
        object(&mut graph, "app.Bag", 48, bag, targets);
        for size in [big, values, values, values, values, values] {
            if is_new {
                object(&mut graph, "bytes", size, leaf, &[]);
            }
        }
        let own = name(&mut graph, "app");
        graph.roots.push((0, Root::Module(own)));
        graph
    }

    #[test]
    fn values_of_one_instance_are_its_growth_together() {
        let rows = reasons(Some(&app(0, 0)), &app(21_000, 60_000), [ALL_TYPES]);
        let told = rows[0].reasons.iter();
        let told: Vec<_> = told
            .map(|row| (row.path.as_str(), row.retained, row.parts.len()))
            .collect();
        assert_eq!(told, [("app.bag", 105_000, 5), ("app.big", 60_000, 0)]);
        assert_eq!(
            rows[0].reasons[0].parts[0],
            ("app.bag.a".to_string(), 21_000)
        );
    }

    #[test]
    fn what_has_most_of_an_instance_stands_alone() {
        let mut new = app(21_000, 60_000);
        new.sizes[3] = 400_000;
        let rows = reasons(Some(&app(0, 0)), &new, [ALL_TYPES]);
        let first = &rows[0].reasons[0];
        assert_eq!(
            (first.path.as_str(), first.retained),
            ("app.bag.a", 400_000)
        );
        assert_eq!(rows[0].reasons[1].path, "app.bag");
        assert_eq!(rows[0].reasons[1].retained, 84_000);
    }
}
