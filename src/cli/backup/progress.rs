//! A bar on a terminal, a plain line now and then elsewhere. On stderr: stdout is for data.
#![allow(clippy::print_stderr, reason = "the command line is what speaks to people")]

use std::io::IsTerminal;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::quantity;
use crate::operation::backup::Monitor;
use crate::types::{BackupId, SegmentName};

/// Between two plain lines.
const INTERVAL: Duration = Duration::from_secs(15);

/// Shows a backup's progress.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    plain: bool,
    quiet: bool,
    /// When the server's checkpoint was done: the rate is that of the stream.
    begun: Mutex<Instant>,
    last: Mutex<Instant>,
    said: Mutex<Instant>,
    received: AtomicU64,
    stored: AtomicU64,
}

impl Progress {
    /// With `quiet`, only warnings are shown.
    pub fn new(quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target = if terminal && !quiet {
            ProgressDrawTarget::stderr_with_hz(5)
        } else {
            ProgressDrawTarget::hidden()
        };
        let style = ProgressStyle::with_template(
            "{bar:20} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {wide_msg}",
        );
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = style {
            bar.set_style(style);
        }
        let now = Instant::now();
        Self {
            bar,
            plain: !terminal,
            quiet,
            begun: Mutex::new(now),
            last: Mutex::new(now),
            said: Mutex::new(now),
            received: AtomicU64::new(0),
            stored: AtomicU64::new(0),
        }
    }

    /// Takes the bar away; elsewhere the last line says how it went.
    pub fn finish(&self) {
        let received = self.received.load(Ordering::Relaxed);
        self.bar.finish_and_clear();
        if self.plain && received > 0 {
            self.line(received);
        }
    }

    fn line(&self, received: u64) {
        let begun = *self.begun.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let last = *self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let millis = u64::try_from(last.duration_since(begun).as_millis()).unwrap_or(u64::MAX).max(1);
        self.say(&format!(
            "{} received, {} stored, {}/s",
            quantity::bytes(received),
            quantity::bytes(self.stored.load(Ordering::Relaxed)),
            quantity::bytes(received.saturating_mul(1000) / millis),
        ));
    }

    /// A line that is no warning.
    pub(super) fn say(&self, text: &str) {
        if self.quiet {
            return;
        }
        if self.plain { eprintln!("{text}") } else { self.bar.println(text) }
    }
}

impl Monitor for Progress {
    fn started(&self, id: &BackupId, estimate: Option<u64>) {
        *self.begun.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Instant::now();
        self.bar.reset_elapsed();
        if let Some(estimate) = estimate {
            self.bar.set_length(estimate);
        }
        let size = estimate.map(|e| format!(", about {}", quantity::bytes(e))).unwrap_or_default();
        self.say(&format!("backup {id} has started{size}"));
    }

    fn received(&self, bytes: u64) {
        // Past the server's estimate the bar would stand at its end.
        if self.bar.length().is_some_and(|length| bytes > length) {
            self.bar.set_length(bytes);
        }
        self.bar.set_position(bytes);
        self.received.store(bytes, Ordering::Relaxed);
        *self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Instant::now();
        let mut said = self.said.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if self.plain && said.elapsed() > INTERVAL {
            *said = Instant::now();
            self.line(bytes);
        }
    }

    fn stored(&self, bytes: u64) {
        self.stored.store(bytes, Ordering::Relaxed);
        self.bar.set_message(format!("({} stored)", quantity::bytes(bytes)));
    }

    fn waiting(&self, segment: SegmentName, repository: &str, by_itself: bool) {
        let how = if by_itself {
            "; it ends when the primary has filled it or somebody calls pg_switch_wal() there (--primary lets pitr do it)"
        } else {
            ""
        };
        self.say(&format!(
            "all files are stored; waiting for WAL segment {segment} to arrive in {repository}{how}"
        ));
    }

    fn warning(&self, text: &str) {
        if self.plain || self.quiet {
            eprintln!("warning: {text}");
        } else {
            self.bar.println(format!("warning: {text}"));
        }
    }
}
