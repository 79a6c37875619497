//! The table of who made whom wait for the GIL.

use super::stats::rows;
use super::table;
use crate::profile::Profile;
use crate::profile::waits::{Place, Wait};
use crate::units::printable;

/// Most rows: what comes after them is added up.
const MOST: usize = 15;

/// Seconds waited, their share, who held the GIL and who waited for it; empty where nobody waited.
pub fn table(profile: &Profile, waits: &[Wait], strip_dirs: bool, qualnames: bool) -> String {
    let all: u64 = waits.iter().map(|wait| wait.waited_us).sum();
    if all == 0 {
        return String::new();
    }
    let name = |function| {
        let name = rows::name(&profile.tables, function, strip_dirs, qualnames);
        printable(&name).into_owned()
    };
    let place = |place: Place| match place.caller {
        Some(caller) => format!("{} in {}", name(place.function), name(caller)),
        None => name(place.function),
    };
    let numbers = |us: u64| {
        let share = 100.0 * us as f64 / all as f64;
        [format!("{:.3}", us as f64 / 1e6), format!("{share:.1}")]
    };
    let shown = waits.iter().take(MOST).map(|wait| {
        let [seconds, share] = numbers(wait.waited_us);
        let holder = wait
            .holder
            .map_or("(nobody was seen to)".to_string(), place);
        vec![seconds, share, holder, place(wait.waiter)]
    });
    let rest: u64 = waits.iter().skip(MOST).map(|wait| wait.waited_us).sum();
    let others = waits.len().saturating_sub(MOST);
    let rest = (others > 0).then(|| {
        let [seconds, share] = numbers(rest);
        vec![
            seconds,
            share,
            format!("({others} more pairs)"),
            String::new(),
        ]
    });
    let header = [
        "waited",
        "%",
        "while this held the GIL",
        "this waited for it",
    ];
    let rows = table::columns(&header, &[0, 1], shown.chain(rest));
    let seconds = all as f64 / 1e6;
    format!(
        "who made whom wait for the GIL: {seconds:.3} seconds of waiting in all threads\n\n{rows}\n"
    )
}
