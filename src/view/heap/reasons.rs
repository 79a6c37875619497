//! Why types grew, in words.

use super::holders::shown;
use crate::heap::graph::Sizes;
use crate::heap::why::{Change, Least, Reason, TypeReason};
use crate::units::format_bytes;

/// Places of a holder that are named.
const MOST_PARTS: usize = 4;

/// One reason in words, behind its path; with who else holds the objects.
pub fn reason_text(reason: &Reason) -> String {
    let mut text = change_text(reason);
    text.push_str(&parts_text(reason));
    for (at, also) in reason.also.iter().enumerate() {
        text.push_str(if at == 0 { "; " } else { ", " });
        match (also.objects == also.of, reason.change) {
            (true, _) if also.of == 1 || also.same => {}
            (true, Change::Holds) => text.push_str("all that is new there "),
            (true, _) => text.push_str("all of them "),
            (false, _) => text.push_str(&format!("{} of these {} ", also.objects, also.of)),
        }
        let how = if also.same { "as" } else { "held by" };
        text.push_str(&format!("also {how} {}", shown(&also.path)));
    }
    text
}

/// Where a holder has what it holds more, when that is in several places.
fn parts_text(reason: &Reason) -> String {
    if reason.parts.is_empty() {
        return String::new();
    }
    let part = |(path, bytes): &(String, u64)| {
        let place = match path.strip_prefix(reason.path.as_str()) {
            Some("") => "itself".to_string(),
            Some(rest) => shown(rest).to_string(),
            None => shown(path).to_string(),
        };
        format!("{place} {}", format_bytes(*bytes))
    };
    let shown: Vec<String> = reason.parts.iter().take(MOST_PARTS).map(part).collect();
    let more = match reason.parts.len().saturating_sub(MOST_PARTS) {
        0 => String::new(),
        more => format!(", {more} more"),
    };
    let count = reason.parts.len();
    format!(" in {count} places: {}{more}", shown.join(", "))
}

fn change_text(reason: &Reason) -> String {
    let bytes = format_bytes(reason.retained);
    if let Change::New { came, gone, least } = reason.change {
        return new_text(reason, came, gone, least);
    }
    let part = match reason.objects == reason.of {
        true => format!("all {}", reason.of),
        false => format!("{} of {}", reason.objects, reason.of),
    };
    let keep = match reason.objects {
        1 => "it keeps",
        _ => "they keep",
    };
    match reason.change {
        Change::Holds => format!("holds {bytes} more than before"),
        Change::Grew if reason.objects == 1 => format!("grew by {bytes}"),
        Change::Grew => format!("grew by {bytes}, {} objects together", reason.objects),
        Change::Paths { now, .. } => format!(
            "holds +{} of {now}; they keep {bytes} more alive",
            reason.objects
        ),
        Change::Unknown | Change::New { .. } => format!("holds {part}; {keep} {bytes} alive"),
    }
}

/// Objects that are new, as far as that is certain.
fn new_text(reason: &Reason, came: u64, gone: u64, least: Least) -> String {
    let bytes = format_bytes(reason.retained);
    let keep = match reason.objects {
        1 => "it keeps",
        _ => "they keep",
    };
    let number = |all: u64, certain: u64| match certain == all && least.stayed == 0 {
        true => all.to_string(),
        false => format!(">={certain}"),
    };
    let (new, went) = (number(came, least.came), number(gone, least.gone));
    let is_exact = least.came == came && least.stayed == 0;
    if gone == 0 && is_exact {
        let part = match (reason.objects == reason.of, least.of_is_exact) {
            (true, true) => format!("all {}", reason.of),
            (false, true) => format!("{} of {}", reason.objects, reason.of),
            (_, false) => format!("{} of >={}", reason.objects, least.of),
        };
        return format!("holds {part} new; {keep} {bytes} alive");
    }
    if gone == 0 && least.came == came {
        return format!("holds {new} new; {keep} {bytes} alive");
    }
    let went = match gone {
        0 => String::new(),
        _ => format!(", {went} gone"),
    };
    let more = if gone == 0 { "" } else { "more " };
    format!(
        "holds +{} ({new} new{went}); {keep} {bytes} {more}alive",
        reason.objects
    )
}

/// What is not told of a type; nothing when all is.
pub fn rest_text((paths, objects, bytes): (u64, u64, u64)) -> Option<String> {
    let paths = match paths {
        0 => return None,
        1 => "1 more path".to_string(),
        paths => format!("{paths} more paths"),
    };
    Some(match bytes {
        0 => format!("{paths} with {objects}"),
        bytes if objects == 0 => format!("{paths}, {}", format_bytes(bytes)),
        bytes => format!("{paths} with {objects}, {}", format_bytes(bytes)),
    })
}

/// What the reasons are about, where it is not what is new.
pub fn heading(rows: &[TypeReason]) -> &'static str {
    let changes = rows.iter().flat_map(|row| &row.reasons);
    for change in changes.map(|reason| reason.change) {
        match change {
            Change::Paths { .. } => {
                return "why: not known to be one process, so paths now are compared with the same paths before";
            }
            Change::Unknown => {
                return "why: what was there before is not known object by object, so all that is there now is told";
            }
            Change::New { .. } | Change::Grew | Change::Holds => {}
        }
    }
    "why"
}

/// Why types grew, a line each; nothing when that was not asked for.
pub fn reasons(rows: &[TypeReason], sizes: Sizes) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut text = format!("\n{}; {}\n\n", heading(rows), sizes.description());
    for row in rows {
        let name = shown(&row.name);
        for reason in &row.reasons {
            let path = shown(&reason.path);
            text.push_str(&format!("{name}: {path} {}\n", reason_text(reason)));
        }
        if let Some(rest) = rest_text(row.rest) {
            text.push_str(&format!("{name}: {rest}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heap::why::Also;

    #[test]
    #[allow(clippy::too_many_lines)]
    fn reasons_say_what_is_known() {
        let reason = |change, objects, of| Reason {
            path: "app.SESSIONS[*]".to_string(),
            change,
            objects,
            of,
            retained: 2048,
            parts: Vec::new(),
            also: Vec::new(),
        };
        let certain = |came, gone, stayed, of| Least {
            came,
            gone,
            stayed,
            of,
            of_is_exact: of == 9 && stayed == 0,
        };
        let new = |came, gone| Change::New {
            came,
            gone,
            least: certain(came, gone, 0, 9),
        };
        let words = [
            (
                Change::New {
                    came: 9,
                    gone: 4,
                    least: certain(7, 4, 0, 7),
                },
                5,
                9,
                "holds +5 (>=7 new, 4 gone); they keep 2.0 KiB more alive",
            ),
            (
                Change::New {
                    came: 5,
                    gone: 0,
                    least: certain(5, 0, 1000, 9),
                },
                5,
                9,
                "holds >=5 new; they keep 2.0 KiB alive",
            ),
            (
                Change::New {
                    came: 3,
                    gone: 0,
                    least: certain(3, 0, 0, 7),
                },
                3,
                9,
                "holds 3 of >=7 new; they keep 2.0 KiB alive",
            ),
            (new(3, 0), 3, 3, "holds all 3 new; they keep 2.0 KiB alive"),
            (new(1, 0), 1, 9, "holds 1 of 9 new; it keeps 2.0 KiB alive"),
            (
                new(9, 4),
                5,
                9,
                "holds +5 (9 new, 4 gone); they keep 2.0 KiB more alive",
            ),
            (Change::Grew, 1, 1, "grew by 2.0 KiB"),
            (
                Change::Paths {
                    now: 175,
                    before: 25,
                },
                150,
                175,
                "holds +150 of 175; they keep 2.0 KiB more alive",
            ),
            (
                Change::Unknown,
                3,
                9,
                "holds 3 of 9; they keep 2.0 KiB alive",
            ),
        ];
        for (change, objects, of, words) in words {
            assert_eq!(reason_text(&reason(change, objects, of)), words);
        }
        let mut shared = reason(new(3, 0), 3, 3);
        for (path, objects) in [("app.BY_ID[*]", 3), ("app.LATEST", 1)] {
            shared.also.push(Also {
                path: path.to_string(),
                objects,
                of: 3,
                same: false,
            });
        }
        assert_eq!(
            reason_text(&shared),
            "holds all 3 new; they keep 2.0 KiB alive; all of them also held by app.BY_ID[*], 1 of these 3 also held by app.LATEST"
        );
        let mut aliased = reason(new(3, 0), 3, 3);
        aliased.also.push(Also {
            path: "app.registry.sessions[*]".to_string(),
            objects: 3,
            of: 3,
            same: true,
        });
        assert_eq!(
            reason_text(&aliased),
            "holds all 3 new; they keep 2.0 KiB alive; also as app.registry.sessions[*]"
        );
        let row = TypeReason {
            name: "app.Session".to_string(),
            reasons: vec![reason(Change::Grew, 1, 1)],
            rest: (2, 7, 100),
        };
        assert_eq!(
            reasons(&[row], Sizes::Blocks),
            "\nwhy; sizes in the allocators' blocks\n\napp.Session: app.SESSIONS[*] grew by 2.0 KiB\napp.Session: 2 more paths with 7, 100 B\n"
        );
    }
}
