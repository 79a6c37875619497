//! The command line: one file a command, each with its arguments and a `run` that writes to the writer it
//! is handed.

pub mod args;
mod attach;
mod browser;
mod calls;
mod diff;
mod dump;
mod heap;
mod input;
mod output;
mod progress;
mod ps;
mod report;
mod run;
mod shell;
mod sources;
mod top;
mod verbose;

use std::ffi::OsString;
use std::io::Write;

use clap::{CommandFactory, Parser, Subcommand};

use crate::error::{Error, Result};

/// Takes samples from a living Python process, from outside: where its time goes.
///
/// Nothing is injected into the target and nothing in it is changed. By default it is never stopped.
#[derive(Debug, Parser)]
#[command(name = "biopsy", version, max_term_width = 100, after_help = EXAMPLES)]
#[command(disable_help_subcommand = true, arg_required_else_help = false)]
pub struct Opt {
    /// Say on stderr what is done and why: which reader, what was refused, retried and waited for
    #[arg(short, long, global = true)]
    verbose: bool,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  biopsy attach 4711 -d 30                       cProfile's table of a running server, 30 seconds
  biopsy run -- script.py --option               run a script and print its table
  biopsy run -o callgrind.out.x -o x.svg -- -m package.module
                                                 files for KCachegrind and a browser
  biopsy report old.prof -s tottime -l 20        print a file of cProfile's own
  biopsy heap summary 4711                       objects by type, as muppy prints it";

#[derive(Debug, Subcommand)]
enum Command {
    /// List the Python processes of this machine
    Ps(ps::PsArgs),
    /// Sample a running process
    Attach(attach::AttachArgs),
    /// Start a program and sample it to its end
    Run(run::RunArgs),
    /// Watch a process, a program or a recording on the terminal
    Top(top::TopArgs),
    /// Count every call of up to four functions while they run: rate, durations, callers
    Calls(calls::CallsArgs),
    /// Print every thread's stack, once
    Dump(dump::DumpArgs),
    /// Print or convert a recording, a .prof file or collapsed stacks
    Report(report::ReportArgs),
    /// Compare two profiles
    Diff(diff::DiffArgs),
    /// Objects and memory: summaries, snapshots, differences
    Heap(heap::HeapArgs),
    /// Print a completion script for a shell
    Completions(shell::CompletionsArgs),
    /// Print the manual page
    Man(shell::ManArgs),
}

/// Parses `arguments`, runs the command, and gives the exit code.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> Result<u8> {
    let stdout = std::io::stdout();
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let opt = match Opt::try_parse_from(&arguments) {
        Ok(opt) => opt,
        Err(error) if !error.use_stderr() => {
            let mut out = stdout.lock();
            return write!(out, "{}", error.render())
                .and_then(|()| out.flush())
                .map(|()| 0)
                .map_err(|error| Error::write("stdout", &error));
        }
        Err(error) => return Err(usage_error(&error, &arguments)),
    };
    if opt.verbose {
        verbose::show(matches!(opt.command, Command::Top(_)));
    }
    let mut out = std::io::LineWriter::new(stdout.lock());
    match opt.command {
        Command::Ps(args) => ps::run(&args, &mut out).map(|()| 0),
        Command::Attach(args) => attach::run(args, &mut out).map(|()| 0),
        Command::Run(args) => run::run(args, &mut out),
        Command::Top(args) => top::run(args),
        Command::Calls(args) => calls::run(args, &mut out),
        Command::Dump(args) => dump::run(&args, &mut out).map(|()| 0),
        Command::Report(args) => report::run(args, &mut out).map(|()| 0),
        Command::Diff(args) => diff::run(args, &mut out).map(|()| 0),
        Command::Heap(args) => heap::run(args, &mut out),
        Command::Completions(args) => shell::completions(&args, &mut out).map(|()| 0),
        Command::Man(args) => shell::man(&args, &mut out).map(|()| 0),
    }
}

/// clap's message in our form: one line, then where the help is.
fn usage_error(error: &clap::Error, arguments: &[OsString]) -> Error {
    let text = error.render().to_string();
    let message: Vec<&str> = text
        .lines()
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"))
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let message = message.join(" ");
    let message = message.strip_prefix("error: ").unwrap_or(&message);
    let mut help = "see: biopsy".to_string();
    let mut command = Opt::command();
    for word in arguments.iter().skip(1).map_while(|word| word.to_str()) {
        let Some(named) = command.find_subcommand(word) else {
            break;
        };
        help = format!("{help} {word}");
        command = named.clone();
    }
    help.push_str(" --help");
    let mut error = Error::usage("wrong command line", crate::units::printable(message));
    if let Some(taken) = taken_for_function(arguments) {
        error = error.hint(format!(
            "--lines took {} for a function: write -- before the command",
            crate::units::printable(taken)
        ));
    }
    error.hint(help)
}

/// The program after `--lines` that was to be the command.
fn taken_for_function(arguments: &[OsString]) -> Option<&str> {
    let words: Vec<&str> = arguments.iter().map_while(|word| word.to_str()).collect();
    let [.., before, last] = words.as_slice() else {
        return None;
    };
    let is_lines = *before == "--lines" && matches!(words.get(1), Some(&("run" | "top")));
    (is_lines && std::path::Path::new(last).exists()).then_some(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent_and_every_command_is_described() {
        Opt::command().debug_assert();
        let mut commands = vec![Opt::command()];
        while let Some(parent) = commands.pop() {
            for command in parent.get_subcommands() {
                assert!(command.get_about().is_some(), "{}", command.get_name());
                for argument in command.get_arguments() {
                    assert!(
                        argument.get_help().is_some(),
                        "{} {}",
                        command.get_name(),
                        argument.get_id()
                    );
                }
                commands.push(command.clone());
            }
        }
    }

    #[test]
    fn flags_after_the_command_belong_to_it() {
        let opt = Opt::try_parse_from([
            "biopsy",
            "run",
            "-r",
            "2k",
            "--",
            "a.py",
            "-o",
            "x",
            "--threads",
        ])
        .expect("parses");
        match opt.command {
            Command::Run(args) => assert_eq!(args.command, ["a.py", "-o", "x", "--threads"]),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn wrong_words_are_usage_errors_in_one_line() {
        for words in [
            vec!["biopsy"],
            vec!["biopsy", "frobnicate"],
            vec!["biopsy", "attach", "notapid"],
            vec!["biopsy", "attach", "1", "--rate", "fast"],
            vec!["biopsy", "run"],
        ] {
            let error = Opt::try_parse_from(&words).expect_err("wrong");
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            let error = usage_error(&error, &words);
            assert_eq!(error.exit_code(), 2, "{words:?}");
            assert!(!error.to_string().contains('\n'), "{error}");
        }
    }
}
