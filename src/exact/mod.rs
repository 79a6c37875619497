//! Deterministic mode: the program runs under its own interpreter's cProfile, switched on by a small
//! bootstrap script in front of it, for the main thread and every thread that is started later.
//!
//! The bootstrap writes a pstats file when the program ends; nothing is read from the process. With lines it writes how
//! often each line was hit instead, and the times come from samples, which know nothing of the bootstrap's own frames.

mod lines;

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result, io_reason};
use crate::formats::Importer;
use crate::formats::pstats::Pstats;
use crate::profile::{Origin, Profile};
use crate::target::launch::{PythonCommand, PythonForm, python_command};
use crate::target::process::command_text;

/// The script that stands in front of the program.
const BOOTSTRAP: &str = include_str!("bootstrap.py");

/// What counts lines, and its places in the script.
const LINES: &str = include_str!("lines.py");
const LINES_PLACE: &str = "    line_collector = None\n";
const WORDS_PLACE: &str = "    line_words = ()\n";

/// A program made ready for exact profiling. Its temporary folder goes away with it.
#[derive(Debug)]
pub struct Prepared {
    folder: tempfile::TempDir,
    words: Vec<String>,
}

impl Prepared {
    /// Puts the bootstrap in front of the Python program that `words` start. `lines`: hits of lines are counted, of the
    /// functions that are meant, or of all of the program's own when there is none.
    pub fn new(words: &[String], lines: Option<&[String]>) -> Result<Prepared> {
        let command = python_command(words).or_else(|| script_on_path(words)).ok_or_else(|| {
            Error::usage(
                format!("cannot profile '{}' exactly", words.first().map_or("", String::as_str)),
                "it is no Python script, module or command",
            )
            .hint("give script.py, -m MODULE, -c CODE or a script that starts with #!...python; or sample it: leave out --exact")
        })?;
        let conflict = |option: &&String| matches!(option.as_str(), "-i" | "-x");
        if let Some(option) = command.options.iter().find(conflict) {
            return Err(Error::usage(
                "cannot profile exactly",
                format!("the interpreter's option {option} does not go with it"),
            ));
        }
        let failed = |error: std::io::Error| {
            Error::new(
                ErrorKind::Failed,
                "cannot make a temporary folder",
                io_reason(&error),
            )
        };
        let folder = tempfile::Builder::new()
            // CPython's warnings skip frames of files with these two words in their paths (Lib/warnings.py,
            // _is_internal_frame), so that `stacklevel` counts as without us.
            .prefix("biopsy-importlib-")
            .tempdir()
            .map_err(failed)?;
        let bootstrap = folder.path().join("biopsy_bootstrap.py");
        let script = match lines {
            None => BOOTSTRAP.to_string(),
            Some(functions) => with_lines(functions),
        };
        fs::write(&bootstrap, script).map_err(failed)?;
        let form = match command.form {
            PythonForm::Script => "script",
            PythonForm::Module => "module",
            PythonForm::Command => "command",
        };
        let mut words = vec![command.interpreter];
        words.extend(command.options);
        words.push(bootstrap.to_string_lossy().into_owned());
        words.push(result_path(&folder).to_string_lossy().into_owned());
        words.push(form.to_string());
        words.push(command.target);
        words.extend(command.arguments);
        Ok(Prepared { folder, words })
    }

    /// The words to execute.
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// What the program left behind; `None` when it ended without leaving anything. `typed` are the words
    /// without the bootstrap.
    pub fn profile(&self, typed: &[String]) -> Result<Option<Profile>> {
        let Some(data) = self.result()? else {
            return Ok(None);
        };
        let mut profile = Pstats
            .import(&data)
            .map_err(|e| e.within("the program's profile"))?;
        profile.meta.origin = Origin::Exact;
        profile.meta.command = command_text(typed.iter().map(String::as_str));
        Ok(Some(profile))
    }

    /// Takes the bootstrap's frames out of samples of the program, and adds the hits of lines that it left behind.
    /// Gives what is to be said about them.
    pub fn add_lines(&self, profile: &mut Profile, typed: &[String]) -> Result<Vec<String>> {
        let own = self
            .words
            .iter()
            .find(|word| word.ends_with("/biopsy_bootstrap.py"));
        if let Some(own) = own {
            lines::without_frames(profile, own);
        }
        profile.meta.command = command_text(typed.iter().map(String::as_str));
        for process in profile.processes.iter_mut().take(1) {
            process.command.clone_from(&profile.meta.command);
        }
        match self.result()? {
            Some(data) => lines::add(profile, &data),
            None => Ok(vec![
                "no hits: the program did not end in a way that lets them be written".to_string(),
            ]),
        }
    }

    fn result(&self) -> Result<Option<Vec<u8>>> {
        match fs::read(result_path(&self.folder)) {
            Ok(data) => Ok(Some(data)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::read("the program's profile", &error)),
        }
    }
}

/// The script with what counts lines of `functions` in it.
fn with_lines(functions: &[String]) -> String {
    let code: String = LINES
        .lines()
        .map(|line| match line.is_empty() {
            true => "\n".to_string(),
            false => format!("    {line}\n"),
        })
        .collect();
    let words: String = functions
        .iter()
        .map(|word| format!("{}, ", python_text(word)))
        .collect();
    BOOTSTRAP.replacen(LINES_PLACE, &code, 1).replacen(
        WORDS_PLACE,
        &format!("    line_words = ({words})\n"),
        1,
    )
}

/// A text as Python spells it, whatever is in it.
fn python_text(text: &str) -> String {
    let letters = text.chars().map(|letter| match letter {
        ' '..='~' if letter != '\'' && letter != '\\' => letter.to_string(),
        other => format!("\\U{:08x}", u32::from(other)),
    });
    format!("'{}'", letters.collect::<String>())
}

fn result_path(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("result.prof")
}

/// A program on the PATH that is a Python script, such as `gunicorn`: its first line names the interpreter.
fn script_on_path(words: &[String]) -> Option<PythonCommand> {
    let (program, arguments) = words.split_first()?;
    let path = find_program(program)?;
    let mut head = Vec::new();
    fs::File::open(&path)
        .ok()?
        .take(4096)
        .read_to_end(&mut head)
        .ok()?;
    let line = head
        .strip_prefix(b"#!")?
        .split(|byte| *byte == b'\n')
        .next()?;
    let line = std::str::from_utf8(line).ok()?.trim();
    let mut parts: Vec<String> = line.split_ascii_whitespace().map(str::to_string).collect();
    if parts.first()?.ends_with("/env") {
        parts.remove(0);
        parts.retain(|word| word != "-S");
    }
    parts.push(path.to_string_lossy().into_owned());
    parts.extend(arguments.iter().cloned());
    python_command(&parts)
}

fn find_program(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(PathBuf::from(program));
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|candidate| Path::is_file(candidate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bootstrap_stands_before_the_program() {
        let words = ["python3", "-O", "a.py", "x"].map(str::to_string);
        let prepared = Prepared::new(&words, None).expect("prepared");
        let words = prepared.words();
        assert_eq!(words[..2], ["python3", "-O"]);
        assert!(words[2].ends_with("biopsy_bootstrap.py") && Path::new(&words[2]).is_file());
        assert_eq!(words[4..], ["script", "a.py", "x"]);
    }

    #[test]
    fn what_counts_lines_stands_in_the_script() {
        assert!(BOOTSTRAP.contains(LINES_PLACE) && BOOTSTRAP.contains(WORDS_PLACE));
        let script = with_lines(&["a.b".to_string(), "it's\\ é\n".to_string()]);
        assert!(script.contains(
            "\n    line_words = ('a.b', 'it\\U00000027s\\U0000005c \\U000000e9\\U0000000a', )\n"
        ));
        assert!(script.contains("\n    def line_collector(words):\n"));
        assert!(!script.contains(LINES_PLACE));
    }

    #[test]
    fn a_script_that_names_python_is_taken_and_another_is_not() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("tool");
        fs::write(&path, "#!/usr/bin/env python3\nprint()\n").expect("write");
        let words = [path.to_string_lossy().into_owned(), "app:app".to_string()];
        let prepared = Prepared::new(&words, None).expect("prepared");
        assert_eq!(prepared.words()[0], "python3");
        assert_eq!(prepared.words()[3], "script");
        let error = Prepared::new(&["/bin/sh".to_string()], None).expect_err("no Python");
        assert_eq!(error.exit_code(), 2);
    }
}
