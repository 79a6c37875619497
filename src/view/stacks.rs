//! The text of `dump`: every thread's stack.

use std::io::Write;

use crate::error::{Error, Result};
use crate::sample::dump::Dump;
use crate::units::printable;

/// Writes `dump` as py-spy's users know it: innermost frame first.
pub fn write_dump(dump: &Dump, out: &mut dyn Write) -> Result<()> {
    let mut write = || -> std::io::Result<()> {
        writeln!(out, "Process {}: {}", dump.pid, printable(&dump.command))?;
        writeln!(out, "Python {}", dump.python)?;
        for thread in &dump.threads {
            let id = if thread.os_id != 0 {
                thread.os_id.to_string()
            } else {
                format!("{:#x}", thread.python_id)
            };
            write!(out, "\nThread {id} ({})", thread.state())?;
            match &thread.name {
                Some(name) => writeln!(out, ": \"{}\"", printable(name))?,
                None => writeln!(out)?,
            }
            for frame in &thread.frames {
                writeln!(
                    out,
                    "    {} ({}:{})",
                    printable(&frame.name),
                    printable(&frame.file),
                    frame.line
                )?;
                for (name, value) in frame.locals.iter().flatten() {
                    writeln!(out, "        {}: {}", printable(name), printable(value))?;
                }
            }
        }
        out.flush()
    };
    write().map_err(|error| Error::write("stdout", &error))
}
