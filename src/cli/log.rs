//! What is said on stderr beside results and errors.
//!
//! Only pitr's own words ever come out, whatever `RUST_LOG` asks for: the libraries' trace of a request
//! repeats its headers, and with them tokens that open a bucket.

use std::io::IsTerminal;

use tracing::Level;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::settings::Global;

/// Starts the log: `-q` and `-v` choose the level, `RUST_LOG` (as `debug` or `pitr::storage=trace`) beats
/// them.
pub(super) fn start(global: &Global) {
    let level = match (global.quiet, global.verbose) {
        (true, _) => Level::ERROR,
        (_, true) => Level::INFO,
        _ => Level::WARN,
    };
    let asked = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let targets = asked.and_then(|text| text.parse::<Targets>().ok());
    let targets = targets.unwrap_or_else(|| Targets::new().with_default(level));
    let own = filter_fn(|event| event.target() == "pitr" || event.target().starts_with("pitr::"));
    // A hook's stderr is the server's log.
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .without_time()
        .with_target(false);
    drop(tracing_subscriber::registry().with(lines.with_filter(own).with_filter(targets)).try_init());
}
