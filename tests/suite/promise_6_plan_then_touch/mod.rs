//! Promise 6: `restore` proves its plan first. What cannot be reached is refused with the reason and nothing is written; what
//! is planned is what the server then does, for every kind of target, on every major, along every timeline.

mod borders;
mod other_objects;
mod refusals;
mod repositories;
mod targets;
mod timelines;

use std::path::PathBuf;

use crate::support::{Outcome, Pitr, Server, TestDir};

/// A restore's plan, as scripts read it; the exit code must go with what it says.
#[track_caller]
fn document(outcome: &Outcome) -> serde_json::Value {
    let plan: serde_json::Value = serde_json::from_str(&outcome.stdout)
        .unwrap_or_else(|e| panic!("{e}\nstdout: {}\nstderr: {}", outcome.stdout, outcome.stderr));
    let keys: Vec<&str> = plan.as_object().unwrap().keys().map(String::as_str).collect();
    for key in ["backup", "timeline", "target", "wal", "bytes", "problems"] {
        assert!(keys.contains(&key), "no {key} in {plan}");
    }
    outcome.expect_code(if plan["problems"].as_array().unwrap().is_empty() { 0 } else { 1 });
    plan
}

/// Restores, starts a server on it, and waits until it takes writes.
#[track_caller]
fn restored(dir: &TestDir, pitr: &Pitr, major: u32, name: &str, arguments: &[&str]) -> Server {
    let copy = dir.join(name);
    let to = format!("--to={}", copy.display());
    let mut all = vec!["restore", &to];
    all.extend(arguments);
    pitr.ok(all);
    let mut copy = Server::adopt(dir, copy, major);
    copy.set_env("PITR_ARCHIVE_SPOOL", dir.join("spool").display().to_string());
    copy.start();
    copy.wait_for("SELECT pg_is_in_recovery()", "f", 60);
    copy
}

/// The one file of a segment in a `file://` repository.
fn stored_segment(repository: &std::path::Path, segment: &str) -> PathBuf {
    repository.join("main/0001/wal").join(&segment[..8]).join(&segment[8..16]).join(format!("{segment}.zst"))
}

/// A moment of the server's clock between what was committed before and what will be after.
fn moment(server: &Server) -> String {
    server.sql("SELECT pg_sleep(0.02)");
    let moment = server
        .sql("SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || '+00'");
    server.sql("SELECT pg_sleep(0.02)");
    moment
}
