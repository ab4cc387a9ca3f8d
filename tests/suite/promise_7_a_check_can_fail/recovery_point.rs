//! `--max-lag`: what would be lost now, by the server's own WAL where it can be asked, by the clock where it cannot.

use crate::support::{Pitr, Server, StopMode, TestDir};

/// The one recovery point; the exit code must go with it.
#[track_caller]
fn point(pitr: &Pitr, limit: &str) -> serde_json::Value {
    let done = pitr.run(["check", "--json", "--max-lag", limit]);
    let document: serde_json::Value = serde_json::from_str(&done.stdout)
        .unwrap_or_else(|e| panic!("{e}\nstdout: {}\nstderr: {}", done.stdout, done.stderr));
    let points = document["recovery_points"].as_array().unwrap();
    assert_eq!(points.len(), 1, "{document}");
    assert_eq!(document["ok"], points[0]["ok"], "{document}");
    done.expect_code(if document["ok"] == true { 0 } else { 3 });
    points[0].clone()
}

#[track_caller]
fn expect(pitr: &Pitr, limit: &str, ok: bool, basis: Option<&str>, words: &str) {
    let point = point(pitr, limit);
    assert_eq!(point["ok"], ok, "{point}");
    assert_eq!(point["basis"].as_str(), basis, "{point}");
    assert!(point["seen"].as_str().unwrap().contains(words), "nothing about \"{words}\": {point}");
    assert!(ok || point["advice"].is_string(), "a problem without advice: {point}");
}

#[test]
fn a_recovery_point_too_far_back_is_a_problem_and_an_idle_server_is_none() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let pitr = Pitr::new(&dir);
    let hook = pitr.hook("archive-push %p");
    let mut server = Server::build(&dir, "primary").set("autovacuum", "off").archive_command(&hook).start();
    let pitr = pitr.connecting_to(&server);
    server.sql("CREATE TABLE t (n int)");
    server.archive_now();
    expect(&pitr, "1h", false, None, "there is no backup");
    pitr.ok(["backup"]);

    server.sql("INSERT INTO t VALUES (1)");
    expect(&pitr, "1ms", false, Some("server"), "the first commit behind it of transaction");
    expect(&pitr, "1h", true, Some("server"), "the first commit behind it of transaction");
    let text = pitr.run(["check", "--max-lag", "1ms"]);
    text.expect_code(3);
    assert_eq!(text.stdout.lines().filter(|l| l.starts_with("PROBLEM  recovery point: ")).count(), 1);
    assert_eq!(pitr.ok(["check", "-q", "--max-lag", "1h30m"]), "", "cron would mail it every minute");

    // Archived: nothing would be lost. Nor is it by what comes after, as long as that is no commit.
    server.archive_now();
    expect(&pitr, "0s", true, Some("server"), "");
    server.sql("CHECKPOINT");
    server.sql("BEGIN; INSERT INTO t VALUES (2); ROLLBACK");
    expect(&pitr, "0s", true, Some("server"), "nothing was committed behind");

    // The archiver fails: what it has not archived is segments by now.
    server.sql("ALTER SYSTEM SET archive_command = 'false'");
    server.sql("SELECT pg_reload_conf()");
    server.wait_for("SELECT current_setting('archive_command')", "false", 10);
    server.switch_wal();
    server.sql("BEGIN; INSERT INTO t VALUES (2); ROLLBACK");
    server.switch_wal();
    expect(&pitr, "0s", true, Some("server"), "nothing was committed behind");
    server.sql("INSERT INTO t VALUES (3)");
    server.switch_wal();
    expect(&pitr, "1ms", false, Some("server"), "the first commit behind it of transaction");
    server.sql(&format!("ALTER SYSTEM SET archive_command = '{}'", hook.replace('\'', "''")));
    server.sql("SELECT pg_reload_conf()");
    let last = server.archive_now();
    expect(&pitr, "0s", true, Some("server"), "");

    // Nobody to ask: the clock, and it says so.
    server.stop(StopMode::Fast);
    expect(&pitr, "1ms", false, Some("clock"), "by this host's clock");
    expect(&pitr, "1h", true, Some("clock"), "no server could be asked");
    server.start();

    // A gap behind the newest backup, a repository that is away, and no chain at all are never fine.
    let before: u64 = u64::from_str_radix(&last[16..], 16).unwrap() - 1;
    let before = format!("{}{before:08X}", &last[..16]);
    let object =
        dir.join("repo/main/0001/wal").join(&last[..8]).join(&last[8..16]).join(format!("{before}.zst"));
    let kept = std::fs::read(&object).unwrap();
    std::fs::remove_file(&object).unwrap();
    expect(&pitr, "1h", false, None, &format!("{before} to {before} are missing"));
    std::fs::write(&object, kept).unwrap();
    dir.account().own(&object);
    expect(&pitr, "1h", true, Some("server"), "");
    // Of several repositories each is judged, and the worst counts.
    let second = dir.create_dir("second");
    let both = format!(
        "[[repository]]\nurl = \"file://{}\"\n[[repository]]\nurl = \"file://{}\"\n",
        dir.join("repo").display(),
        second.display()
    );
    let config = dir.write("both.toml", both);
    let two = Pitr::new(&dir).without("PITR_REPOSITORY").env("PITR_CONFIG", config.display().to_string());
    let done = two.connecting_to(&server).run(["check", "--max-lag", "1h"]);
    done.expect_code(3);
    let lines: Vec<&str> = done.stdout.lines().filter(|l| l.contains("recovery point (file://")).collect();
    assert!(lines.len() == 2 && lines[0].starts_with("ok ") && lines[1].starts_with("PROBLEM"), "{lines:?}");
    std::fs::rename(dir.join("repo"), dir.join("away")).unwrap();
    expect(&pitr, "1h", false, None, "cannot");
}

#[test]
fn after_a_promotion_the_recovery_point_is_that_of_the_new_timeline() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let pitr = Pitr::new(&dir);
    let hook = pitr.hook("archive-push %p");
    let server = Server::build(&dir, "primary").set("autovacuum", "off").archive_command(&hook).start();
    server.sql("CREATE TABLE t (n int)");
    let pitr = pitr.connecting_to(&server);
    pitr.ok(["backup"]);
    server.sql("INSERT INTO t VALUES (1)");
    server.archive_now();
    let major = server.installation().major;
    drop(server);
    let copy = dir.join("copy");
    pitr.ok(["restore", &format!("--to={}", copy.display()), "--takeover"]);
    let mut copy = Server::adopt(&dir, copy, major);
    copy.append_setting("archive_command", "false");
    copy.start();
    copy.wait_for("SELECT pg_is_in_recovery()", "f", 60);
    let pitr = pitr.connecting_to(&copy);
    // Its history is not in the archive: the server has it.
    expect(&pitr, "0s", true, Some("server"), "nothing was committed behind");
    copy.sql("INSERT INTO t VALUES (2)");
    expect(&pitr, "1ms", false, Some("server"), "the first commit behind it of transaction");
    expect(&pitr, "1h", true, Some("server"), "the first commit behind it of transaction");
}
