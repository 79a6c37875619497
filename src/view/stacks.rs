//! The text of `dump`: every thread's stack.

use std::io::Write;

use crate::error::{Error, Result};
use crate::sample::dump::{Dump, DumpFrame};
use crate::units::printable;

/// Writes `dump` as py-spy's users know it: innermost frame first.
pub fn write_dump(dump: &Dump, out: &mut dyn Write) -> Result<()> {
    let mut write = || -> std::io::Result<()> {
        match dump.pid.0 {
            0 => writeln!(out, "Process unknown")?,
            pid => writeln!(out, "Process {pid}: {}", printable(&dump.command))?,
        }
        writeln!(out, "Python {}", dump.python)?;
        for thread in &dump.threads {
            let id = if thread.os_id != 0 {
                thread.os_id.to_string()
            } else {
                format!("{:#x}", thread.python_id)
            };
            write!(out, "\nThread {id} ({})", thread.activity())?;
            match &thread.name {
                Some(name) => writeln!(out, ": \"{}\"", printable(name))?,
                None => writeln!(out)?,
            }
            for frame in &thread.frames {
                write_frame(frame, out)?;
                for (name, value) in frame.locals.iter().flatten() {
                    writeln!(out, "        {}: {}", printable(name), printable(value))?;
                }
            }
        }
        for task in dump.tasks.iter().flatten() {
            write!(out, "\nTask \"{}\" ({})", printable(&task.name), task.state)?;
            for (at, name) in task.awaited_by.iter().enumerate() {
                let before = if at == 0 { ", awaited by" } else { "," };
                write!(out, "{before} \"{}\"", printable(name))?;
            }
            writeln!(out)?;
            for frame in &task.frames {
                write_frame(frame, out)?;
            }
        }
        out.flush()
    };
    write().map_err(|error| Error::write("stdout", &error))
}

fn write_frame(frame: &DumpFrame, out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(
        out,
        "    {} ({}:{})",
        printable(&frame.name),
        printable(&frame.file),
        frame.line
    )
}
