//! The `biopsy` command: parse, run, print an error and its hints, exit.

use std::process::ExitCode;

fn main() -> ExitCode {
    match biopsy::cli::main(std::env::args_os()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            if error.kind() != biopsy::error::ErrorKind::BrokenPipe {
                eprintln!("biopsy: {error}");
                for hint in error.hints() {
                    eprintln!("  {hint}");
                }
            }
            ExitCode::from(error.exit_code())
        }
    }
}
