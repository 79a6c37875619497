//! Ctrl-C and its kin: end in order, and pass on to a program that we started.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level::siginfo::{Cause, Origin};

use crate::error::{Error, ErrorKind, Result, io_reason};

/// Signals that follow the first one so closely are the same: `timeout` sends each to its child and to the group.
const ONE: Duration = Duration::from_millis(200);

/// The name of a signal that ends a process with a core file (signal(7)); a debugger's SIGTRAP is not among them.
pub fn fatal(signal: i32) -> Option<&'static str> {
    let named = [
        (libc::SIGQUIT, "SIGQUIT"),
        (libc::SIGILL, "SIGILL"),
        (libc::SIGABRT, "SIGABRT"),
        (libc::SIGBUS, "SIGBUS"),
        (libc::SIGFPE, "SIGFPE"),
        (libc::SIGSEGV, "SIGSEGV"),
        (libc::SIGXCPU, "SIGXCPU"),
        (libc::SIGXFSZ, "SIGXFSZ"),
        (libc::SIGSYS, "SIGSYS"),
    ];
    let mut named = named.iter();
    Some(named.find(|(number, _)| *number == signal)?.1)
}

/// What the arrival of a stop signal does.
#[derive(Debug, Clone)]
pub enum OnSignal {
    /// Sets the flag; a second signal, [`ONE`] later or more, ends biopsy at once with 128+N.
    Stop(Arc<AtomicBool>),
    /// Leaves the end to our child with this PID: a signal from the terminal has reached it already, one that
    /// was sent to biopsy alone is passed on. 0 once the child has ended: signals are ignored then, as one that
    /// ended the child may come to us late, and results are being written.
    PassOn(Arc<AtomicI32>),
}

/// Handles SIGINT, SIGTERM, SIGHUP and SIGQUIT from now on in a thread of its own. The number of the last
/// one is in the returned cell (0 for none yet).
pub fn handle(on_signal: OnSignal) -> Result<Arc<AtomicI32>> {
    let failed = |error: std::io::Error| {
        Error::new(
            ErrorKind::Failed,
            "cannot handle signals",
            io_reason(&error),
        )
    };
    let mut signals =
        SignalsInfo::<WithOrigin>::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT]).map_err(failed)?;
    let last = Arc::new(AtomicI32::new(0));
    let seen = last.clone();
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            let mut began = None;
            for origin in &mut signals {
                let began = *began.get_or_insert_with(Instant::now);
                let first = seen.swap(origin.signal, Ordering::SeqCst) == 0;
                match &on_signal {
                    OnSignal::Stop(stop) if first => stop.store(true, Ordering::SeqCst),
                    OnSignal::Stop(_) if began.elapsed() < ONE => {}
                    OnSignal::Stop(_) => signal_hook::low_level::exit(128 + origin.signal),
                    OnSignal::PassOn(child) => pass_on(child.load(Ordering::SeqCst), &origin),
                }
            }
        })
        .map_err(failed)?;
    Ok(last)
}

fn pass_on(child: i32, origin: &Origin) {
    if child <= 0 || matches!(origin.cause, Cause::Kernel) {
        return;
    }
    // SAFETY: kill(2) takes two integers. The PID is that of our child; it is set to 0 as soon as the child has
    // been waited for, so that it does not name another process.
    unsafe {
        libc::kill(child, origin.signal);
    }
}

/// Stops this process as Ctrl-Z does, until it is told to go on.
pub fn suspend() {
    // Where it cannot be, nothing happens.
    let _ = signal_hook::low_level::emulate_default_handler(signal_hook::consts::SIGTSTP);
}

/// Asks our child to end, unless it has been waited for: 0.
pub fn ask_to_end(child: &AtomicI32) {
    let pid = child.load(Ordering::SeqCst);
    if pid > 0 {
        // SAFETY: as in `pass_on`.
        unsafe {
            libc::kill(pid, SIGTERM);
        }
    }
}
