//! How far a restore is: a bar on a terminal, a plain line now and then elsewhere. On stderr.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::super::backup::quantity;
use super::super::complain;
use crate::operation::restore::Monitor;

/// Between two plain lines.
const INTERVAL: Duration = Duration::from_secs(15);

/// See the module's text.
#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
    plain: bool,
    total: u64,
    written: AtomicU64,
    begun: Instant,
    said: Mutex<Instant>,
}

impl Progress {
    /// Of so many bytes; with `quiet`, nothing is shown.
    pub(super) fn new(total: u64, quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target = if terminal && !quiet {
            ProgressDrawTarget::stderr_with_hz(5)
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        if let Ok(style) = ProgressStyle::with_template(
            "{bar:30} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {msg}",
        ) {
            bar.set_style(style);
        }
        let now = Instant::now();
        let written = AtomicU64::new(0);
        Self { bar, plain: !terminal && !quiet, total, written, begun: now, said: Mutex::new(now) }
    }

    /// Takes the bar away.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Monitor for Progress {
    fn written(&self, bytes: u64) {
        let all = self.written.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.bar.set_position(all);
        if !self.plain {
            return;
        }
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.elapsed() > INTERVAL {
            *said = Instant::now();
            let rate = all / self.begun.elapsed().as_secs().max(1);
            complain(&format!(
                "{} of {} written, {}/s",
                quantity::bytes(all),
                quantity::bytes(self.total),
                quantity::bytes(rate)
            ));
        }
    }

    fn syncing(&self) {
        self.bar.set_message("waiting for the disk");
    }
}
