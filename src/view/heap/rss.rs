//! Where the resident memory is, for people.

use super::counted;
use crate::heap::malloc::Malloc;
use crate::heap::rss::{Account, Family, Pages, Part};
use crate::units::{format_bytes, printable};
use crate::view::table;

/// The table; parts without a byte are left out.
pub fn text(account: &Account) -> String {
    let total = account.total();
    let share = |bytes: u64| {
        if total == 0 {
            "-".to_string()
        } else {
            format!("{:.1}", 100.0 * bytes as f64 / total as f64)
        }
    };
    let is_split = account.is_split();
    let rows = Part::SHOWN
        .into_iter()
        .filter(|part| account.of(*part) > 0)
        .map(|part| {
            let bytes = account.of(part);
            vec![
                format_bytes(bytes),
                share(bytes),
                part.description(is_split).to_string(),
            ]
        });
    let mut text = table::columns(&["resident", "%", "what"], &[0, 1], rows);
    text.push_str(&format!("\n{} in all", format_bytes(total)));
    if let Some(rss) = account.rss {
        text.push_str(&format!("; the kernel counts {}", format_bytes(rss)));
    }
    if account.swap > 0 {
        text.push_str(&format!("; {} are swapped out", format_bytes(account.swap)));
    }
    if let Some(pages) = &account.sharing {
        text.push_str(&format!("\n{}", sharing(pages)));
    }
    if let Some(malloc) = &account.malloc {
        text.push_str(&format!("\n{}", blocks(malloc)));
    }
    text.push_str(&format!(
        "\nreachable Python objects as sys.getsizeof counts them, wherever they are: {}",
        format_bytes(account.objects_bytes)
    ));
    if account.numpy_bytes > 0 {
        text.push_str(&format!(
            " (numpy arrays: {})",
            format_bytes(account.numpy_bytes)
        ));
    }
    text.push('\n');
    text
}

/// The tables of several processes.
pub fn family(family: &Family) -> String {
    let rows = family.members.iter().map(|member| {
        let pages = member.account.sharing.unwrap_or_default();
        vec![
            printable(&member.name).into_owned(),
            format_bytes(member.account.total()),
            format_bytes(pages.private),
            format_bytes(pages.shared),
            format_bytes(pages.pss),
        ]
    });
    let header = ["process", "resident", "private", "shared", "PSS"];
    let mut text = table::columns(&header, &[1, 2, 3, 4], rows);
    let is_split = family.is_split();
    let rows = Part::SHOWN.into_iter().filter_map(|part| {
        let bytes = family.sum(|account| account.of(part));
        let shared = family.sum(|account| account.pss_of(part).unwrap_or(0));
        (bytes > 0).then(|| {
            vec![
                format_bytes(bytes),
                format_bytes(shared),
                part.description(is_split).to_string(),
            ]
        })
    });
    text.push('\n');
    text.push_str(&table::columns(&["resident", "PSS", "what"], &[0, 1], rows));
    text.push_str(&format!(
        "\n{} when each process is counted for itself; ",
        format_bytes(family.sum(Account::total))
    ));
    text.push_str(&match family.once {
        Some(once) => format!(
            "{} when each physical page is counted once (pagemap)\nPSS: each page divided by the number of processes that map it: {} in all{}",
            format_bytes(once),
            format_bytes(family.pss()),
            if family.pss() < once {
                "; what is missing is shared with other processes"
            } else {
                ""
            }
        ),
        None => format!(
            "{} when each page is divided by the number of processes that map it (PSS): less than they have where other processes share pages with them (which pages those are needs CAP_SYS_ADMIN)",
            format_bytes(family.pss())
        ),
    });
    text.push('\n');
    text
}

/// Who shares the pages.
fn sharing(pages: &Pages) -> String {
    let mut text = format!(
        "of it {} are private, {} are shared with other processes (divided among them: {}, PSS)",
        format_bytes(pages.private),
        format_bytes(pages.shared),
        format_bytes(pages.pss)
    );
    for (bytes, what) in [
        (pages.copied, "pages of files copied on write"),
        (pages.huge, "in huge pages"),
        (pages.hugetlb, "more in pages of hugetlbfs"),
    ] {
        if bytes > 0 {
            text.push_str(&format!("; {} {what}", format_bytes(bytes)));
        }
    }
    text
}

/// What malloc has, touched or not.
fn blocks(malloc: &Malloc) -> String {
    if let Some(why) = &malloc.why {
        let name = match malloc.allocator.as_str() {
            "" => "malloc".to_string(),
            name => format!("malloc ({name})"),
        };
        return format!("{name}: not split into used and free: {why}");
    }
    let mut text = format!(
        "malloc ({}, {}): of {} {} are in use, {} are free in its bins, {} at the ends of heaps, {} in caches of threads",
        malloc.allocator,
        counted(malloc.arenas, "arena", "arenas"),
        format_bytes(malloc.system),
        format_bytes(malloc.used()),
        format_bytes(malloc.free.saturating_sub(malloc.top)),
        format_bytes(malloc.top),
        format_bytes(malloc.cached)
    );
    if malloc.mapped_blocks > 0 {
        text.push_str(&format!(
            "; {} of {} have mappings of their own",
            counted(malloc.mapped_blocks, "block", "blocks"),
            format_bytes(malloc.mapped)
        ));
    }
    if malloc.torn > 0 {
        text.push_str(&format!(
            "; {} were being changed and were read in part",
            counted(malloc.torn, "list", "lists")
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_there_is_shown() {
        let mut account = Account {
            rss: Some(4096),
            objects_bytes: 1000,
            ..Account::default()
        };
        account.parts[0] = 3072;
        account.parts[8] = 1024;
        let expected = "\
resident     %  what
 3.0 KiB  75.0  reachable Python objects in pymalloc's blocks
 1.0 KiB  25.0  malloc's heap: used and free blocks

4.0 KiB in all; the kernel counts 4.0 KiB
reachable Python objects as sys.getsizeof counts them, wherever they are: 1000 B
";
        assert_eq!(text(&account), expected);
    }
}
