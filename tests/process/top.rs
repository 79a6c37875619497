//! `biopsy top` on a terminal: what it shows of real processes, its keys, and a terminal that is clean however it ends.

use crate::common;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::{
    PATIENCE, Python, biopsy, biopsy_command, in_company, send_signal, state, wait_until,
};

/// Leaves the alternate screen, and shows the cursor.
const CLEAN: [&str; 2] = ["\x1b[?1049l", "\x1b[?25h"];

/// Two threads that compute, and one that waits for them.
const PROGRAM: &str = "\
import threading, time

def fight(end):
    while time.time() < end:
        for number in range(20000):
            number * number

def measured(end):
    fight(end)

end = time.time() + 120
threads = [threading.Thread(target=measured, args=(end,), name='fight-%d' % i) for i in range(2)]
for thread in threads:
    thread.daemon = True
    thread.start()
print('ready', flush=True)
for thread in threads:
    thread.join()
";

/// A terminal with biopsy on it.
struct Terminal {
    child: Child,
    master: File,
    /// Kept open, so that the settings can be looked at when biopsy has ended.
    slave: OwnedFd,
    output: Arc<Mutex<Vec<u8>>>,
    closed: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

/// What the C library says of a terminal: cooked when lines are edited and echoed.
fn is_cooked(fd: &OwnedFd) -> bool {
    // SAFETY: termios is plain integers, and tcgetattr writes to it alone.
    let settings = unsafe {
        let mut settings: libc::termios = std::mem::zeroed();
        assert_eq!(libc::tcgetattr(fd.as_raw_fd(), &raw mut settings), 0);
        settings
    };
    settings.c_lflag & (libc::ICANON | libc::ECHO) == libc::ICANON | libc::ECHO
}

impl Terminal {
    fn start(arguments: &[&str], rows: u16, columns: u16) -> Terminal {
        let (mut master, mut slave) = (0, 0);
        let size = libc::winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // SAFETY: openpty writes two descriptors and reads the size; nobody else has the descriptors.
        let (master, slave) = unsafe {
            let none = std::ptr::null_mut();
            let made = libc::openpty(
                &raw mut master,
                &raw mut slave,
                none,
                none.cast(),
                &raw const size,
            );
            assert_eq!(made, 0);
            // No other program may keep it open: a lost connection would not be noticed.
            libc::fcntl(master, libc::F_SETFD, libc::FD_CLOEXEC);
            (File::from_raw_fd(master), OwnedFd::from_raw_fd(slave))
        };
        let mut command = biopsy_command(arguments);
        let end = || Stdio::from(slave.try_clone().expect("a descriptor"));
        command.stdin(end()).stdout(end()).stderr(end());
        command
            .env("TERM", "xterm-256color")
            .env("LC_ALL", "C.UTF-8");
        // SAFETY: both calls may be made between fork and exec.
        unsafe {
            command.pre_exec(|| {
                libc::setsid();
                libc::ioctl(0, libc::TIOCSCTTY, 0);
                Ok(())
            });
        }
        let child = command.spawn().expect("biopsy starts");
        let output = Arc::new(Mutex::new(Vec::new()));
        let (mut reader, sink) = (master.try_clone().expect("a descriptor"), output.clone());
        let closed = Arc::new(AtomicBool::new(false));
        let close = closed.clone();
        let read = move || {
            let mut bytes = [0; 4096];
            while !close.load(Ordering::SeqCst) {
                let mut poll = libc::pollfd {
                    fd: reader.as_raw_fd(),
                    events: libc::POLLIN,
                    revents: 0,
                };
                // SAFETY: poll reads and writes the one struct that it is handed.
                if unsafe { libc::poll(&raw mut poll, 1, 50) } == 0 {
                    continue;
                }
                let Ok(length @ 1..) = reader.read(&mut bytes) else {
                    return;
                };
                let mut sink = sink.lock().expect("lock");
                sink.extend_from_slice(&bytes[..length]);
            }
        };
        let reader = Some(std::thread::spawn(read));
        Terminal {
            child,
            master,
            slave,
            output,
            closed,
            reader,
        }
    }

    /// As when a connection is lost.
    fn hang_up(&mut self) {
        self.closed.store(true, Ordering::SeqCst);
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the reader ends");
        }
        self.master = File::open("/dev/null").expect("it is there");
    }

    fn bytes(&self) -> String {
        String::from_utf8_lossy(&self.output.lock().expect("lock")).into_owned()
    }

    /// The lines of the screen.
    fn screen(&self) -> String {
        let mut cells: BTreeMap<(usize, usize), char> = BTreeMap::new();
        let (mut row, mut column) = (1, 1);
        let text = self.bytes();
        let mut letters = text.chars();
        while let Some(letter) = letters.next() {
            match letter {
                '\x1b' => {
                    letters.next();
                    let mut sequence = String::new();
                    let end = loop {
                        match letters.next() {
                            Some(end) if end.is_ascii_alphabetic() => break end,
                            Some(more) => sequence.push(more),
                            None => break ' ',
                        }
                    };
                    if end == 'H' {
                        let mut numbers = sequence.split(';').map(|n| n.parse().unwrap_or(1));
                        row = numbers.next().unwrap_or(1);
                        column = numbers.next().unwrap_or(1);
                    } else if end == 'J' {
                        cells.clear();
                    }
                }
                '\r' => column = 1,
                '\n' => row += 1,
                letter => {
                    cells.insert((row, column), letter);
                    column += 1;
                }
            }
        }
        let mut lines = String::new();
        let mut at = (1, 1);
        for ((row, column), letter) in cells {
            while at.0 < row {
                lines.push('\n');
                at = (at.0 + 1, 1);
            }
            while at.1 < column {
                lines.push(' ');
                at.1 += 1;
            }
            lines.push(letter);
            at.1 += 1;
        }
        lines
    }

    fn wait_for(&self, words: &str) -> String {
        let start = Instant::now();
        loop {
            let screen = self.screen();
            if screen.contains(words) {
                return screen;
            }
            assert!(start.elapsed() < PATIENCE, "no '{words}' in\n{screen}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("keys");
    }

    /// Waits for the end; the terminal has to be as it was.
    fn end(&mut self) -> i32 {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                break status;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "does not end:\n{}",
                self.screen()
            );
            std::thread::sleep(Duration::from_millis(10));
        };
        wait_until("the last bytes have come", || {
            let bytes = self.bytes();
            CLEAN.iter().all(|code| bytes.contains(code))
        });
        assert!(is_cooked(&self.slave), "the terminal is left raw");
        status.code().unwrap_or(-1)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn every_python_is_shown_and_every_view_has_its_key() {
    let _company = in_company();
    for python in Python::all() {
        eprintln!("{python}");
        let stage = python.stage();
        let mut target = python.start(&[&stage.put("fighting.py", PROGRAM)]);
        let mut terminal = Terminal::start(&["top", &target.pid.to_string()], 24, 110);
        terminal.wait_for("(fight");
        terminal.wait_for("200 Hz");
        terminal.press("\r");
        let screen = terminal.wait_for("<- fighting.py");
        assert!(screen.contains("(measured)"), "{screen}");
        terminal.press("4");
        terminal.wait_for("def fight(end):");
        terminal.press("2");
        let screen = terminal.wait_for("TOTAL%");
        assert!(screen.contains("(fight"), "{screen}");
        terminal.press("5");
        let screen = terminal.wait_for("idle%");
        assert!(
            screen.contains("MainThread") || python.minor < 8,
            "{screen}"
        );
        terminal.press("1/measured\r");
        terminal.wait_for("filter /measured/");
        terminal.press("q");
        assert_eq!(terminal.end(), 0);
        target.assert_free();
    }
}

#[test]
fn what_was_gathered_is_written_in_any_format() {
    let _company = in_company();
    let python = Python::any();
    let stage = python.stage();
    let folder = tempfile::tempdir().expect("a folder");
    let target = python.start(&[&stage.put("fighting.py", PROGRAM)]);
    let mut terminal = Terminal::start(&["top", &target.pid.to_string()], 24, 120);
    terminal.wait_for("(fight");
    for ending in [
        "biopsy",
        "prof",
        "svg",
        "speedscope.json",
        "gecko.json",
        "pb.gz",
        "html",
        "json",
        "collapsed",
    ] {
        let path = folder.path().join(format!("x.{ending}"));
        let path = path.to_str().expect("UTF-8");
        terminal.press(&format!("w\x15{path}\r"));
        wait_until("it is written", || std::path::Path::new(path).exists());
        terminal.wait_for(&format!("x.{ending}: "));
    }
    terminal.press("w\x15/nonexistent/x.svg\r");
    terminal.wait_for("cannot write /nonexistent/x.svg");
    terminal.press("q");
    assert_eq!(terminal.end(), 0);
    let recording = folder.path().join("x.biopsy");
    let recording = recording.to_str().expect("UTF-8");
    let table = biopsy(&["report", recording]).ok();
    assert!(table.stdout.contains("(fight)"), "{table}");
    let mut terminal = Terminal::start(&["top", recording], 12, 60);
    terminal.wait_for("a recording of");
    terminal.press("5");
    terminal.wait_for("fight-0");
    terminal.press("\x03");
    assert_eq!(terminal.end(), 0);
}

#[test]
fn the_terminal_is_clean_however_it_ends() {
    let _company = in_company();
    let python = Python::any();
    let stage = python.stage();
    let mut target = python.start(&[&stage.put("fighting.py", PROGRAM)]);
    let pid = target.pid.to_string();
    for signal in ["TERM", "HUP", "INT", "QUIT"] {
        let mut terminal = Terminal::start(&["top", &pid], 12, 60);
        terminal.wait_for("(fight");
        send_signal(signal, terminal.child.id() as i32);
        assert_eq!(terminal.end(), 0, "{signal}");
    }
    // A connection that is lost.
    let mut terminal = Terminal::start(&["top", &pid], 12, 60);
    terminal.wait_for("(fight");
    terminal.hang_up();
    wait_until("it has ended", || {
        terminal.child.try_wait().expect("a child").is_some()
    });
    // Ctrl-Z, and on again.
    let mut terminal = Terminal::start(&["top", &pid], 12, 60);
    terminal.wait_for("(fight");
    terminal.press("\x1a");
    let own = terminal.child.id() as i32;
    wait_until("it is stopped", || state(own) == Some('T'));
    assert!(is_cooked(&terminal.slave));
    send_signal("CONT", own);
    terminal.press("5");
    terminal.wait_for("idle%");
    // Another size.
    let size = libc::winsize {
        ws_row: 30,
        ws_col: 130,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the request reads the one struct that it is handed.
    unsafe {
        libc::ioctl(
            terminal.master.as_raw_fd(),
            libc::TIOCSWINSZ,
            &raw const size,
        )
    };
    terminal.wait_for("7 memory");
    // The end of the process is told, and what was gathered stays.
    send_signal("KILL", target.pid);
    terminal.wait_for("PROCESS ENDED");
    terminal.press("1");
    terminal.wait_for("(fight");
    terminal.press("q");
    assert_eq!(terminal.end(), 0);
    assert!(!target.is_running());
    biopsy(&["top", "1"]).refused(2, "stdout is no terminal");
}

#[test]
fn a_program_is_started_and_its_end_is_ours() {
    let _company = in_company();
    let python = Python::any();
    let code = "import time\nend = time.time() + 2\nwhile time.time() < end: sum(range(1000))\nraise SystemExit('so it ended')";
    let words = python.words(&["-c", code]);
    let mut all = vec!["top", "--"];
    all.extend(words.iter().map(String::as_str));
    let mut terminal = Terminal::start(&all, 24, 80);
    terminal.wait_for("PROCESS ENDED");
    terminal.press("q");
    assert_eq!(terminal.end(), 1);
    wait_until("its last words are said", || {
        terminal.bytes().contains("so it ended")
    });
}
