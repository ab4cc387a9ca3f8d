//! How far a verification is, and how long it will take: a bar on a terminal, a plain line now and then
//! elsewhere. On stderr.

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::super::backup::quantity;
use super::super::complain;
use crate::operation::verify::Monitor;

/// Between two plain lines.
const INTERVAL: Duration = Duration::from_secs(15);

/// See the module's text.
#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
    plain: bool,
    quiet: bool,
    counted: Mutex<Counted>,
}

#[derive(Debug)]
struct Counted {
    all: (u64, u64),
    done: (u64, u64),
    /// When the first object was looked at, and how much an earlier run had done by then.
    begun: Instant,
    said: Instant,
}

impl Progress {
    /// With `quiet`, only warnings are shown.
    pub(super) fn new(quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target = if terminal && !quiet {
            ProgressDrawTarget::stderr_with_hz(5)
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(None, target);
        let now = Instant::now();
        let counted = Counted { all: (0, 0), done: (0, 0), begun: now, said: now };
        Self { bar, plain: !terminal && !quiet, quiet, counted: Mutex::new(counted) }
    }

    /// Takes the bar away, for a text.
    pub(super) fn pause(&self) {
        self.bar.finish_and_clear();
    }
}

impl Counted {
    fn line(&self) -> String {
        let (objects, bytes) = self.done;
        let (all, all_bytes) = self.all;
        let left =
            left(self.begun.elapsed(), if all_bytes > 0 { (bytes, all_bytes) } else { (objects, all) });
        let bytes = match all_bytes {
            0 => String::new(),
            all => format!(", {} of {}", quantity::bytes(bytes), quantity::bytes(all)),
        };
        format!("{objects} of {all} WAL objects{bytes} verified{left}")
    }
}

/// By the pace so far.
fn left(elapsed: Duration, (done, all): (u64, u64)) -> String {
    let rest = all.saturating_sub(done);
    if done == 0 || rest == 0 {
        return String::new();
    }
    let seconds = u128::from(rest) * elapsed.as_millis() / u128::from(done) / 1000;
    format!(
        ", about {} left",
        indicatif::HumanDuration(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
    )
}

impl Monitor for Progress {
    fn began(&self, cluster: &str, objects: u64, bytes: u64) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        *counted = Counted { all: (objects, bytes), done: (0, 0), begun: now, said: now };
        self.bar.reset();
        let template = if bytes > 0 {
            self.bar.set_length(bytes);
            "{bar:20} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}, {eta} left {wide_msg}"
        } else {
            self.bar.set_length(objects);
            "{bar:20} {pos}/{len} objects, {eta} left {wide_msg}"
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
        self.bar.set_message(cluster.to_owned());
        if self.plain {
            let bytes = if bytes > 0 { format!(", {}", quantity::bytes(bytes)) } else { String::new() };
            complain(&format!("verifying {cluster}: {objects} WAL objects{bytes}"));
        }
    }

    fn checked(&self, objects: u64, bytes: u64) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        counted.done.0 += objects;
        counted.done.1 += bytes;
        self.bar.set_position(if counted.all.1 > 0 { counted.done.1 } else { counted.done.0 });
        if self.plain && counted.said.elapsed() > INTERVAL {
            counted.said = Instant::now();
            complain(&counted.line());
        }
    }

    fn warning(&self, text: &str) {
        if self.plain || self.quiet {
            complain(&format!("warning: {text}"));
        } else {
            self.bar.println(format!("warning: {text}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_goes_by_the_pace_so_far() {
        assert_eq!(left(Duration::from_secs(60), (100, 300)), ", about 2 minutes left");
        assert_eq!(left(Duration::from_secs(60), (0, 300)), "");
        assert_eq!(left(Duration::from_secs(60), (300, 300)), "");
    }
}
