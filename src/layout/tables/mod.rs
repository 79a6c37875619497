//! One table a minor version, and one for its free-threaded build. [`for_build`] is the only place that asks for a version.

mod v3_10;
mod v3_11;
mod v3_12;
mod v3_13;
mod v3_13t;
mod v3_14;
mod v3_14t;
mod v3_15;
mod v3_15t;
mod v3_8;
mod v3_9;

use super::Offsets;

/// The minor versions of Python 3 that have a table.
pub const MINORS: std::ops::RangeInclusive<u32> = 8..=15;

/// The offsets of a version with a GIL; `None` for one that is not known. A neighbour's are never used.
pub fn for_version(major: u32, minor: u32) -> Option<Offsets> {
    for_build(major, minor, false)
}

/// The same, of its free-threaded build where that is meant.
pub fn for_build(major: u32, minor: u32, free_threaded: bool) -> Option<Offsets> {
    if free_threaded {
        return Some(match (major, minor) {
            (3, 13) => v3_13t::OFFSETS,
            (3, 14) => v3_14t::OFFSETS,
            (3, 15) => v3_15t::OFFSETS,
            _ => return None,
        });
    }
    Some(match (major, minor) {
        (3, 8) => v3_8::OFFSETS,
        (3, 9) => v3_9::OFFSETS,
        (3, 10) => v3_10::OFFSETS,
        (3, 11) => v3_11::OFFSETS,
        (3, 12) => v3_12::OFFSETS,
        (3, 13) => v3_13::OFFSETS,
        (3, 14) => v3_14::OFFSETS,
        (3, 15) => v3_15::OFFSETS,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_minor_version_has_one_table_of_its_own() {
        let mut tables: Vec<Offsets> = MINORS.filter_map(|minor| for_version(3, minor)).collect();
        assert_eq!(tables.len(), MINORS.count());
        assert!(tables.iter().all(|table| !table.is_free_threaded()));
        let without_gil = MINORS.filter_map(|minor| for_build(3, minor, true));
        tables.extend(without_gil);
        assert_eq!(tables.len(), MINORS.count() + 3);
        assert!(tables.iter().rev().take(3).all(Offsets::is_free_threaded));
        for (index, table) in tables.iter().enumerate() {
            assert!(!tables[..index].contains(table), "table {index} is a copy");
        }
        assert_eq!(for_version(3, 16), None);
        assert_eq!(for_version(2, 8), None);
        assert_eq!(for_build(3, 12, true), None);
    }
}
