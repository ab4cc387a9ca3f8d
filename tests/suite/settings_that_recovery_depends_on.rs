//! What the primary had set while it wrote the WAL, the restored server must have: a raised `max_connections` is written into
//! its settings, and WAL with too little in it is refused before anything is written.

use crate::support::{Pitr, Server, StopMode, TestDir};

fn to(dir: &std::path::Path) -> String {
    format!("--to={}", dir.display())
}

fn a_raised_setting_is_written_into_the_restored_settings_on(major: u32) {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let pitr = Pitr::new(&dir);
    let mut server = Server::build(&dir, "primary")
        .major(major)
        .set("max_connections", "20")
        .archive_command(&pitr.hook("archive-push %p"))
        .start();
    server.sql("CREATE TABLE t AS SELECT 1 AS n");
    let pitr = pitr.connecting_to(&server);
    pitr.ok(["backup"]);
    server.append_setting("max_connections", "123");
    server.append_setting("max_prepared_transactions", "7");
    server.restart();
    server.sql("INSERT INTO t VALUES (2)");
    server.archive_now();
    server.stop(StopMode::Fast);

    let copy = dir.join("copy");
    let restored = pitr.run(["restore", &to(&copy)]);
    restored.expect_code(0);
    restored.expect_said("max_connections = 123, max_prepared_transactions = 7 is set");
    // Without it, a server of 14 or later pauses for ever, and one of 13 does not start.
    let mut copy = Server::adopt(&dir, copy, server.major);
    copy.start();
    copy.wait_for("SELECT pg_is_in_recovery()", "f", 60);
    assert_eq!(copy.sql("SELECT count(*) FROM t"), "2");
    assert_eq!(copy.sql("SHOW max_connections"), "123");
}

#[test]
fn a_raised_setting_is_written_into_the_restored_settings_on_13() {
    a_raised_setting_is_written_into_the_restored_settings_on(13);
}

#[test]
fn a_raised_setting_is_written_into_the_restored_settings_on_18() {
    a_raised_setting_is_written_into_the_restored_settings_on(18);
}

#[test]
fn wal_of_too_low_a_level_is_refused_before_anything_is_written() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let pitr = Pitr::new(&dir);
    let hook = pitr.hook("archive-push %p");
    let mut server = Server::build(&dir, "primary").archive_command(&hook).start();
    server.sql("CREATE TABLE t AS SELECT 1 AS n");
    let pitr = pitr.connecting_to(&server);
    pitr.ok(["backup"]);
    server.sql("INSERT INTO t VALUES (2)");
    let before = server.sql("SELECT pg_current_wal_insert_lsn()");
    let last = server.sql("BEGIN; INSERT INTO t VALUES (3); SELECT txid_current(); COMMIT;");
    // As for a quick bulk load: nothing is archived meanwhile, but all of it stays within one segment.
    for (name, value) in [("wal_level", "minimal"), ("max_wal_senders", "0"), ("archive_mode", "off")] {
        server.append_setting(name, value);
    }
    server.restart();
    server.sql("CREATE TABLE loaded AS SELECT 1 AS n");
    for (name, value) in [("wal_level", "replica"), ("max_wal_senders", "10"), ("archive_mode", "on")] {
        server.append_setting(name, value);
    }
    server.restart();
    let behind = server.sql("SELECT pg_current_wal_insert_lsn()");
    server.archive_now();

    let copy = dir.join("copy");
    for target in [vec!["--target=latest"], vec!["--target-lsn", &behind]] {
        let mut arguments = vec!["restore".to_owned(), to(&copy)];
        arguments.extend(target.iter().map(ToString::to_string));
        let refused = pitr.run(&arguments);
        refused.expect_code(1);
        refused.expect_said("the server wrote with wal_level=minimal");
        assert!(!copy.exists());
    }
    let info: serde_json::Value = serde_json::from_str(&pitr.ok(["info", "--json"])).unwrap();
    let windows = info["clusters"][0]["recovery_windows"].as_array().unwrap();
    assert_eq!(windows.len(), 1, "{info}");
    assert_eq!(windows[0]["last_commit"]["xid"].to_string(), last, "{info}");
    // A new backup begins a new window.
    pitr.ok(["backup"]);
    server.sql("INSERT INTO t VALUES (4)");
    server.archive_now();
    server.stop(StopMode::Fast);
    let info: serde_json::Value = serde_json::from_str(&pitr.ok(["info", "--json"])).unwrap();
    assert_eq!(info["clusters"][0]["recovery_windows"].as_array().unwrap().len(), 2, "{info}");
    for (name, target, rows) in
        [("before", vec!["--target-lsn", &before], "2"), ("latest", vec!["--target=latest"], "4")]
    {
        let copy = dir.join(name);
        let mut arguments = vec!["restore".to_owned(), to(&copy)];
        arguments.extend(target.iter().map(ToString::to_string));
        pitr.ok(&arguments);
        let mut copy = Server::adopt(&dir, copy, server.major);
        copy.start();
        copy.wait_for("SELECT pg_is_in_recovery()", "f", 60);
        assert_eq!(copy.sql("SELECT count(*) FROM t"), rows, "{name}");
    }
}
