//! Opens a page in the browser: what `$BROWSER` names, else what `xdg-open` finds. It is started and left alone, and that
//! there is none is no failure.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::output::note;

/// How long a browser may take to find out that it cannot open the page.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(10);

/// Opens `path`; says so when no browser does, unless `quiet`.
pub fn open(path: &Path, quiet: bool) {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let named = std::env::var("BROWSER").unwrap_or_default();
    let opened = commands(&named, &path).iter().any(|words| starts(words));
    if !opened && !quiet {
        note(&format!(
            "no browser was found ($BROWSER, xdg-open): open {} yourself",
            path.display()
        ));
    }
}

/// What to try, one after the other. `$BROWSER` is a list with colons between, as Python's `webbrowser` takes it: commands in
/// which `%s` stands for the page, or behind which it is put.
fn commands(named: &str, path: &Path) -> Vec<Vec<OsString>> {
    let mut all = Vec::new();
    for text in named.split(':').chain(["xdg-open"]) {
        let Ok(words) = shell_words::split(text) else {
            continue;
        };
        if words.is_empty() {
            continue;
        }
        let has_place = words.iter().any(|word| word.contains("%s"));
        let shown = path.to_string_lossy();
        let mut words: Vec<OsString> = words
            .iter()
            .map(|word| match word.as_str() {
                "%s" => path.into(),
                word => word.replace("%s", &shown).into(),
            })
            .collect();
        if !has_place {
            words.push(PathBuf::from(path).into());
        }
        all.push(words);
    }
    all
}

/// Whether it starts and does not give up at once.
fn starts(words: &[OsString]) -> bool {
    let Some((program, arguments)) = words.split_first() else {
        return false;
    };
    let started = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Ctrl-C for us is not for it.
        .process_group(0)
        .spawn();
    let Ok(mut browser) = started else {
        return false;
    };
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        match browser.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) => std::thread::sleep(LOOK),
            Err(_) => break,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_are_named_as_for_python() {
        let commands = |named: &str| -> Vec<String> {
            let all = commands(named, Path::new("/x/a b.html"));
            let shown = |words: &Vec<OsString>| words.join("|".as_ref()).into_string();
            all.iter().filter_map(|words| shown(words).ok()).collect()
        };
        let last = "xdg-open|/x/a b.html";
        assert_eq!(commands(""), [last]);
        assert_eq!(
            commands("lynx:'my browser' --new %s &:surf page=%s"),
            [
                "lynx|/x/a b.html",
                "my browser|--new|/x/a b.html|&",
                "surf|page=/x/a b.html",
                last
            ]
        );
        assert_eq!(commands("'"), [last]);
    }

    #[test]
    fn one_that_fails_or_is_not_there_opens_nothing() {
        let words = |text: &str| -> Vec<OsString> { text.split(' ').map(OsString::from).collect() };
        assert!(!starts(&words("/nonexistent/browser x")));
        assert!(!starts(&words("false")));
        assert!(starts(&words("true")));
        assert!(starts(&words("sleep 20")));
    }
}
