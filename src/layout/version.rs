//! Versions as the interpreter encodes them (`Py_Version`, `PY_VERSION_HEX`; Include/patchlevel.h).

/// A version number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// 3.
    pub major: u32,
    /// Such as 13.
    pub minor: u32,
    /// Such as 2.
    pub micro: u32,
    /// `a1`, `b2`, `rc1`, or nothing for a release.
    pub suffix: String,
}

/// Decodes `PY_VERSION_HEX`; `None` when it cannot be one.
pub fn from_hex(hex: u32) -> Option<Release> {
    let serial = hex & 0xf;
    let suffix = match (hex >> 4) & 0xf {
        0xa => format!("a{serial}"),
        0xb => format!("b{serial}"),
        0xc => format!("rc{serial}"),
        0xf => String::new(),
        _ => return None,
    };
    let release = Release {
        major: hex >> 24,
        minor: (hex >> 16) & 0xff,
        micro: (hex >> 8) & 0xff,
        suffix,
    };
    (2..=4).contains(&release.major).then_some(release)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_versions() {
        let release = from_hex(0x030e_0af0).expect("a version");
        assert_eq!((release.major, release.minor, release.micro), (3, 14, 10));
        assert_eq!(release.suffix, "");
        assert_eq!(from_hex(0x030f_00b2).expect("a version").suffix, "b2");
        assert_eq!(from_hex(0), None);
        assert_eq!(from_hex(0xffff_ffff), None);
    }
}
