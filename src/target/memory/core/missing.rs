//! What a core file that was cut short does not have, by kind.

use super::{Segment, is_python};
use crate::target::maps::Region;
use crate::units::{format_bytes, printable};

/// Bytes that are missing, by what was there.
#[derive(Debug, Default)]
struct Kinds {
    python: u64,
    files: u64,
    others: u64,
}

/// What is missing of which kind, for people; empty where no mapping has a name.
pub fn kinds(loads: &[Segment], regions: &[Region]) -> String {
    let mut kinds = Kinds::default();
    let (mut python, mut named) = ("", false);
    let mut before: Option<&Region> = None;
    for load in loads {
        let at = regions.partition_point(|region| region.start <= load.address);
        let region = at.checked_sub(1).and_then(|at| regions.get(at));
        let Some(region) = region else { continue };
        named |= region.of_file();
        // What follows a file's data without a gap and a name is its zeroed data.
        let owner = match before {
            Some(owner) if !region.of_file() && owner.end == region.start => owner,
            _ => region,
        };
        before = Some(owner).filter(|owner| owner.of_file()).map(|_| region);
        if owner.of_file() && is_python(&owner.name) {
            kinds.python += load.missing;
            python = owner.name.as_str();
        } else if owner.of_file() {
            kinds.files += load.missing;
        } else {
            kinds.others += load.missing;
        }
    }
    if !named {
        return String::new();
    }
    let name = python.rsplit('/').next().unwrap_or_default();
    let parts = [
        (kinds.others, "of the heap and of stacks".to_string()),
        (kinds.python, format!("of the data of {}", printable(name))),
        (kinds.files, "of the data of other files".to_string()),
    ];
    let parts: Vec<String> = parts
        .iter()
        .filter(|(bytes, _)| *bytes > 0)
        .map(|(bytes, what)| format!("{} {what}", format_bytes(*bytes)))
        .collect();
    match parts.is_empty() {
        true => String::new(),
        false => format!(" ({})", parts.join(", ")),
    }
}
