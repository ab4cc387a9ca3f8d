//! `pitr events` says what happened, and a restore to just before it has the object whole.

mod joined;
mod kinds;
mod names;
mod rewritten;
mod unread;

use serde_json::Value;

use crate::support::{Outcome, Pitr, Server, TestDir};

/// `pitr events --json` with these arguments.
#[track_caller]
pub(crate) fn events(pitr: &Pitr, arguments: &[&str]) -> Vec<Value> {
    let document: Value =
        serde_json::from_str(&pitr.ok(["events", "--json"].iter().chain(arguments))).unwrap();
    assert_eq!(document.as_object().unwrap().keys().collect::<Vec<_>>(), ["events"]);
    document["events"].as_array().unwrap().clone()
}

/// Kind, object and rows of each.
pub(crate) fn short(events: &[Value]) -> Vec<String> {
    let text = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
    let one = |event: &Value| {
        let rows = event["rows"].as_u64().map(|n| format!(" {n}")).unwrap_or_default();
        format!("{} {}{rows}", text(event, "kind"), text(event, "object"))
    };
    events.iter().map(one).collect()
}

/// A server of a major that archives segments of 1 MB into the repository.
#[track_caller]
pub(crate) fn archiving(dir: &TestDir, major: u32, settings: &[(&str, &str)]) -> (Server, Pitr) {
    dir.create_dir("repo");
    let pitr = Pitr::new(dir);
    let mut server = Server::build(dir, "primary").major(major).initdb("--wal-segsize=1");
    server = server.archive_command(&pitr.hook("archive-push %p"));
    for (name, value) in settings {
        server = server.set(name, value);
    }
    let server = server.start();
    let pitr = pitr.connecting_to(&server);
    (server, pitr)
}

/// Restores a copy with these arguments and starts it.
#[track_caller]
pub(crate) fn restored(dir: &TestDir, pitr: &Pitr, major: u32, name: &str, arguments: &[&str]) -> Server {
    let to = format!("--to={}", dir.join(name).display());
    let outcome: Outcome = pitr.run(["restore", &to].iter().chain(arguments));
    outcome.expect_code(0);
    let mut copy = Server::adopt(dir, dir.join(name), major);
    copy.start();
    copy.wait_for("SELECT pg_is_in_recovery()", "f", 60);
    copy
}
