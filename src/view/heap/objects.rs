//! One line an object: address, type, size, reference count.

use crate::heap::Object;
use crate::units::printable;

/// Larger reference counts belong to objects that live as long as the interpreter: 3.12 and newer set the upper
/// half of the 32 bits (Include/refcount.h), and nobody has memory for as many real references.
const IMMORTAL: u64 = 1 << 31;

/// The header, with a rule below it.
pub fn header() -> String {
    format!(
        "{:>16} | {:>12} | {:>10} | {}\n{} | {} | {} | {}\n",
        "address",
        "size",
        "refcount",
        "type",
        "=".repeat(16),
        "=".repeat(12),
        "=".repeat(10),
        "=".repeat(24)
    )
}

/// The line of one object.
pub fn line(object: &Object) -> String {
    let refcount = match object.refcount {
        IMMORTAL.. => "immortal".to_string(),
        count => count.to_string(),
    };
    format!(
        "{:>16} | {:>12} | {refcount:>10} | {}\n",
        format!("{:#x}", object.address),
        object.bytes,
        printable(object.kind)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_stand_below_their_header() {
        let object = Object {
            address: 0x7f12_3456_7890,
            kind: "my\u{1b}app.User",
            bytes: 48,
            refcount: 0xc000_0000,
        };
        let lines = header() + &line(&object);
        let bars: Vec<Vec<usize>> = lines
            .lines()
            .map(|line| line.match_indices(" | ").map(|(at, _)| at).collect())
            .collect();
        assert_eq!(bars[0], bars[1]);
        assert_eq!(bars[1], bars[2]);
        assert!(lines.ends_with("  immortal | my\\x1bapp.User\n"), "{lines}");
    }
}
