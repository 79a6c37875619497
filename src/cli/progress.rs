//! The line on stderr while a recording runs.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::verbose;
use crate::sample::session::Progress;

/// Shows elapsed time, samples, given up, reads made again and the rate really reached until it is dropped.
pub struct ProgressLine {
    bar: ProgressBar,
    done: Arc<std::sync::atomic::AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl ProgressLine {
    /// A line that follows `progress`; nothing when `quiet`, among messages, or when stderr is no terminal.
    pub fn show(progress: Arc<Progress>, quiet: bool) -> Option<ProgressLine> {
        if quiet || verbose::is_on() || !std::io::stderr().is_terminal() {
            return None;
        }
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (shown, stop) = (bar.clone(), done.clone());
        let thread = std::thread::Builder::new()
            .name("progress".into())
            .spawn(move || {
                let started = Instant::now();
                let mut last = (started, 0);
                while !stop.load(Ordering::Relaxed) {
                    let samples = progress.samples.load(Ordering::Relaxed);
                    let given_up = progress.given_up.load(Ordering::Relaxed);
                    let retried = progress.retried.load(Ordering::Relaxed);
                    let now = Instant::now();
                    let since = now.duration_since(last.0).as_secs_f64();
                    let rate = if since > 0.0 {
                        (samples - last.1) as f64 / since
                    } else {
                        0.0
                    };
                    last = (now, samples);
                    shown.set_message(format!(
                    "{:.0} s, {samples} samples, {given_up} given up, {retried} retried, {rate:.0}/s (Ctrl-C ends it)",
                    started.elapsed().as_secs_f64()
                ));
                    shown.tick();
                    std::thread::sleep(Duration::from_millis(200));
                }
            });
        Some(ProgressLine {
            bar,
            done,
            thread: thread.ok(),
        })
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A progress line that failed is no reason to fail.
            let _ = thread.join();
        }
        self.bar.finish_and_clear();
    }
}
