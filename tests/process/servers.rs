//! Servers under load: gunicorn with a plain WSGI application and with Flask. The hot handler is at the top, and
//! the server answers every request during and after, untraced and as fast as before.

use crate::common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{
    Row, alone, biopsy, not_here, project, rows, send_signal, state, tracer, venv, wait_until,
};

/// A gunicorn, killed with its workers when this is dropped.
struct Server {
    child: std::process::Child,
    port: u16,
}

impl Server {
    fn start(venv: &Path, application: &str) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        drop(listener);
        let mut command = Command::new(venv.join("bin/gunicorn"));
        command
            .args([
                "--workers",
                "2",
                "--threads",
                "2",
                "--log-level",
                "error",
                "--bind",
            ])
            .arg(format!("127.0.0.1:{port}"))
            .arg(application)
            .current_dir(project().join("fixtures/programs"));
        let child = std::os::unix::process::CommandExt::process_group(&mut command, 0)
            .spawn()
            .expect("gunicorn starts");
        let server = Server { child, port };
        wait_until("gunicorn answers", || get(port, "/cold").is_ok());
        server
    }

    fn master(&self) -> i32 {
        self.child.id() as i32
    }

    /// The master and its workers.
    fn processes(&self) -> Vec<i32> {
        let path = format!("/proc/{0}/task/{0}/children", self.master());
        let children = std::fs::read_to_string(path).unwrap_or_default();
        let mut all = vec![self.master()];
        all.extend(
            children
                .split_ascii_whitespace()
                .filter_map(|pid| pid.parse::<i32>().ok()),
        );
        all
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        send_signal("KILL", -self.master());
        let _ = self.child.wait();
    }
}

/// One request; fails unless it is answered with 200 within ten seconds.
fn get(port: u16, path: &str) -> Result<(), String> {
    let request = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = request().map_err(|error| error.to_string())?;
    let first = answer.lines().next().unwrap_or("");
    if first.contains(" 200 ") {
        Ok(())
    } else {
        Err(format!("{answer:?}"))
    }
}

/// Threads that ask all the time: three of four requests are for the hot page.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    threads: Vec<std::thread::JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(port: u16) -> Load {
        let (stop, answered) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let client = |_| {
            let (stop, answered) = (stop.clone(), answered.clone());
            std::thread::spawn(move || {
                let mut failures = Vec::new();
                for number in 0u64.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let path = if number % 4 == 0 { "/cold" } else { "/hot" };
                    match get(port, path) {
                        Ok(()) => drop(answered.fetch_add(1, Ordering::Relaxed)),
                        Err(error) => failures.push(error),
                    }
                }
                failures
            })
        };
        let threads = (0..3).map(client).collect();
        Load {
            stop,
            answered,
            threads,
        }
    }

    /// Requests a second over the next while.
    fn rate(&self) -> f64 {
        let (start, before) = (Instant::now(), self.answered.load(Ordering::Relaxed));
        std::thread::sleep(Duration::from_millis(1500));
        (self.answered.load(Ordering::Relaxed) - before) as f64 / start.elapsed().as_secs_f64()
    }

    /// Ends it; fails when a request was not answered with 200.
    fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            let failures = thread.join().expect("joined");
            assert!(
                failures.is_empty(),
                "{} failed: {:?}",
                failures.len(),
                failures.first()
            );
        }
        self.answered.load(Ordering::Relaxed)
    }
}

fn top(text: &str) -> Row {
    let best = |a: Row, b: Row| if b.tottime > a.tottime { b } else { a };
    rows(text)
        .into_iter()
        .reduce(best)
        .unwrap_or_else(|| panic!("no rows in:\n{text}"))
}

fn profiled(venv: &Path, application: &str) {
    let server = Server::start(venv, application);
    let load = Load::start(server.port);
    let before = load.rate();
    let (master, workers) = (server.master().to_string(), server.processes().split_off(1));
    assert_eq!(workers.len(), 2, "two workers");

    let worker = workers[0].to_string();
    let ran = biopsy(&[
        "attach", &worker, "-d", "2", "-r", "500", "--mode", "cpu", "-s", "tottime", "-q",
    ])
    .ok();
    assert!(
        top(&ran.stdout).function.ends_with("(hot_handler)"),
        "{application}, a worker{ran}"
    );
    assert!(
        rows(&ran.stdout)[0].function.ends_with("(hot_handler)"),
        "sorted by tottime{ran}"
    );

    let ran = biopsy(&[
        "attach",
        &master,
        "--subprocesses",
        "-d",
        "2",
        "-r",
        "500",
        "--mode",
        "cpu",
        "-s",
        "tottime",
        "-q",
    ])
    .ok();
    assert!(
        top(&ran.stdout).function.ends_with("(hot_handler)"),
        "{application}, the family{ran}"
    );
    for worker in &workers {
        assert!(
            ran.stdout.contains(&worker.to_string()),
            "rows of worker {worker}{ran}"
        );
    }
    let is_hot = |row: &&Row| row.function.ends_with("(hot_handler)") && row.tottime > 0.1;
    assert_eq!(
        rows(&ran.stdout).iter().filter(is_hot).count(),
        2,
        "each worker keeps its own rows{ran}"
    );
    biopsy(&[
        "attach",
        &worker,
        "-d",
        "1",
        "-r",
        "100",
        "--blocking",
        "-q",
    ])
    .ok();

    let after = load.rate();
    let answered = load.finish();
    common::say(format_args!(
        "{application}: {before:.0} requests a second before, {after:.0} after; {answered} answered"
    ));
    assert!(
        after > before / 3.0,
        "{before:.0} requests a second before, {after:.0} after"
    );
    assert_eq!(
        server.processes().split_off(1),
        workers,
        "the same workers as before"
    );
    for pid in server.processes() {
        assert_eq!(tracer(pid), Some(0), "{pid}");
        assert!(
            matches!(state(pid), Some('S' | 'R')),
            "{pid}: {:?}",
            state(pid)
        );
    }
    for path in ["/hot", "/cold"] {
        get(server.port, path).expect("answered");
    }
}

#[test]
fn gunicorn_with_wsgi_and_flask_applications() {
    let _quiet = alone();
    let Some(venv) = venv().filter(|venv| venv.join("bin/gunicorn").exists()) else {
        return not_here("gunicorn (bash .ci/run makes a venv with it)");
    };
    profiled(&venv, "gunicorn_app:app");
    let flask = Command::new(venv.join("bin/python"))
        .args(["-c", "import flask"])
        .status();
    if flask.is_ok_and(|status| status.success()) {
        profiled(&venv, "flask_app:app");
    } else {
        not_here("flask in the venv that bash .ci/run makes");
    }
}

/// The leaks of a worker under load are named, and the server goes on answering.
fn leaks_are_named(venv: &Path, application: &str) {
    let module = application.split(':').next().unwrap_or_default();
    let server = Server::start(venv, application);
    let load = Load::start(server.port);
    load.rate();
    let worker = server.processes()[1].to_string();
    let folder = tempfile::tempdir().expect("a folder");
    let before = folder.path().join("before.heap").display().to_string();
    biopsy(&["heap", "snapshot", &worker, "-q", "-o", &before]).ok();
    load.rate();
    let rule = format!("{module}.*:+10");
    let pattern = format!("{module}.*");
    let ran = biopsy(&[
        "heap",
        "diff",
        &before,
        &worker,
        "--why",
        "--json",
        "--type",
        &pattern,
        "--fail-on",
        &rule,
    ]);
    let ran = ran.expect_code(3);
    let document = ran.json();
    let why = &document["why"][0];
    assert_eq!(why["type"], format!("{module}.Record"), "{ran}");
    assert_eq!(
        why["path"],
        format!("{module}.REGISTRY.by_path[*][*]"),
        "{ran}"
    );
    let (held, of) = (why["objects"].as_u64(), why["of"].as_u64());
    assert!(held == of && of > Some(10), "{ran}");
    // A record of 48 bytes at least, and its text of more than 60.
    let least = of.unwrap_or(0) * 100;
    assert!(why["retained_bytes"].as_u64() >= Some(least), "{ran}");
    assert_eq!(
        document["broken"][0]["type"],
        format!("{module}.Record"),
        "{ran}"
    );

    let after = folder.path().join("after.heap").display().to_string();
    biopsy(&["heap", "snapshot", &worker, "-q", "-o", &after]).ok();
    let caches = biopsy(&["heap", "caches", &after, "--json"]).ok().json();
    let first = &caches["caches"][0];
    assert_eq!(first["function"], format!("{module}.price"), "{caches:#}");
    assert_eq!(first["limit"], serde_json::Value::Null);
    let summary = biopsy(&["heap", "summary", &after, "--json"]).ok().json();
    let records = summary["types"]
        .as_array()
        .and_then(|rows| {
            rows.iter()
                .find(|row| row["type"] == format!("{module}.Record"))
        })
        .and_then(|row| row["objects"].as_u64())
        .expect("records");
    // One result for each record; two threads of the worker may be between the two, or have made one twice.
    let size = first["size"].as_u64().expect("a size");
    assert!(
        size.abs_diff(records) <= 4 + records / 50,
        "{size} results, {records} records"
    );
    let answered = load.finish();
    common::say(format_args!(
        "{application}: {records} records found, {answered} requests answered"
    ));
    for pid in server.processes() {
        assert_eq!(tracer(pid), Some(0), "{pid}");
    }
}

#[test]
fn leaks_of_servers_under_load_are_named() {
    let _quiet = alone();
    let Some(venv) = venv().filter(|venv| venv.join("bin/gunicorn").exists()) else {
        return not_here("gunicorn (bash .ci/run makes a venv with it)");
    };
    for (package, application) in [("flask", "leaky_flask:app"), ("django", "leaky_django:app")] {
        let found = Command::new(venv.join("bin/python"))
            .args(["-c", &format!("import {package}")])
            .status();
        if found.is_ok_and(|status| status.success()) {
            leaks_are_named(&venv, application);
        } else {
            not_here(format_args!(
                "{package} in the venv that bash .ci/run makes"
            ));
        }
    }
}
