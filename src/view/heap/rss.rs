//! Where the resident memory is, for people.

use crate::heap::rss::{Account, Part};
use crate::units::format_bytes;
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
    let rows = Part::ALL
        .into_iter()
        .filter(|part| account.of(*part) > 0)
        .map(|part| {
            let bytes = account.of(part);
            vec![
                format_bytes(bytes),
                share(bytes),
                part.description().to_string(),
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
 1.0 KiB  25.0  malloc's heap

4.0 KiB in all; the kernel counts 4.0 KiB
reachable Python objects as sys.getsizeof counts them, wherever they are: 1000 B
";
        assert_eq!(text(&account), expected);
    }
}
