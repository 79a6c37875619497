//! The terminal: taken over, and given back clean however this ends.

use std::io::{IsTerminal, Stdout, Write, stdout};

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};

use crate::error::{Error, ErrorKind, Result, io_reason};
use crate::target::signals;

/// A terminal that is ours until this is dropped.
pub struct Screen {
    pub terminal: Terminal<CrosstermBackend<Stdout>>,
}

fn failed(error: &std::io::Error) -> Error {
    Error::new(
        ErrorKind::Failed,
        "cannot use the terminal",
        io_reason(error),
    )
}

/// Fails unless there is a terminal.
pub fn check() -> Result<()> {
    if stdout().is_terminal() {
        return Ok(());
    }
    Err(
        Error::usage("cannot show the live view", "stdout is no terminal")
            .hint("biopsy attach PID -d 10 prints a table"),
    )
}

impl Screen {
    pub fn open() -> Result<Screen> {
        // A panic's message has to be seen, and on a terminal that works.
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            before(panic);
        }));
        take_over().map_err(|error| failed(&error))?;
        let made = Terminal::new(CrosstermBackend::new(stdout()));
        let terminal = made.map_err(|error| {
            restore();
            failed(&error)
        })?;
        Ok(Screen { terminal })
    }

    /// Ctrl-Z: back to the shell until it lets us go on.
    pub fn suspend(&mut self) -> Result<()> {
        restore();
        signals::suspend();
        // Not `clear`, which asks the terminal where its cursor is.
        let made = take_over()
            .and_then(|()| execute!(stdout(), Clear(ClearType::All)))
            .and_then(|()| Terminal::new(CrosstermBackend::new(stdout())));
        self.terminal = made.map_err(|error| failed(&error))?;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

fn take_over() -> std::io::Result<()> {
    enable_raw_mode()?;
    execute!(stdout(), EnterAlternateScreen).inspect_err(|_| restore())
}

/// Whatever of it fails, there is nobody left to tell.
fn restore() {
    let _ = disable_raw_mode();
    let _ = execute!(stdout(), LeaveAlternateScreen, Show);
    let _ = stdout().flush();
}
