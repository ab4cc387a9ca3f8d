//! The server's lines, and the segment that goes through it.

use super::{Checked, SEGMENT};
use crate::support::{Pitr, Server, StopMode, TestDir};

#[test]
fn a_fresh_set_up_lacks_only_its_backup_and_then_nothing() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let pitr = Pitr::new(&dir);
    let server = Server::build(&dir, "primary").archive_command(&pitr.hook("archive-push %p")).start();
    let pitr = pitr.connecting_to(&server);
    // Nothing was ever archived: the check itself makes the server archive its first segment.
    let checked = Checked::run(&pitr);
    assert_eq!(checked.problems(), ["backup"], "{:?}", checked.lines);
    assert!(checked.line(SEGMENT)["seen"].as_str().unwrap().contains("archived and read back in"));
    pitr.ok(["backup"]);
    let checked = Checked::run(&pitr);
    assert!(checked.problems().is_empty(), "{:?}", checked.lines);
    let left = std::fs::read_dir(dir.join("repo/probe")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "probes were left behind");
    // For people: a line each, and a sum.
    let text = pitr.ok(["check"]);
    assert!(
        text.lines()
            .all(|l| l.starts_with("ok ") || l.trim_start().starts_with("hint:") || l.ends_with("all ok")),
        "{text}"
    );
    assert_eq!(text.lines().last(), Some(format!("{} checks, all ok", checked.lines.len()).as_str()));
    assert_eq!(pitr.ok(["check", "-q"]), "", "cron would mail it every hour");
}

#[test]
fn every_setting_of_the_server_that_is_wrong_is_a_problem() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let pitr = Pitr::new(&dir);
    let hook = pitr.hook("archive-push %p");
    let mut server = Server::build(&dir, "primary").archive_command(&hook).start();
    let pitr = pitr.connecting_to(&server);
    pitr.ok(["backup"]);
    let set = |server: &Server, name: &str, value: &str| {
        server.sql(&format!("ALTER SYSTEM SET {name} = '{}'", value.replace('\'', "''")));
        server.sql("SELECT pg_reload_conf()");
        server.wait_for(
            &format!("SELECT current_setting('{name}') = '{}'", value.replace('\'', "''")),
            "t",
            10,
        );
    };

    set(&server, "archive_command", &hook.replace("%p", "%f"));
    let checked = Checked::run(&pitr);
    checked.expect("archive_command", "takes %p");
    // The archiver's third failure ends the waiting.
    checked.expect(SEGMENT, "archive_command failed 3 times");
    let checked = Checked::run(&pitr);
    checked.expect("archiver", "read the server's log");

    set(&server, "archive_command", "true");
    let checked = Checked::of(&pitr.run(["check", "--json", "--segment-timeout", "2"]));
    checked.expect("archive_command", "pitr archive-push %p");
    checked.expect(SEGMENT, "did not arrive within 2 s");
    // What `true` swallowed is missing now, behind the backup.
    checked.expect_ok("backup");

    server.sql("CREATE ROLE limited LOGIN");
    let checked = Checked::of(
        &pitr.clone().env("PGUSER", "limited").env("PGDATABASE", "postgres").run(["check", "--json"]),
    );
    checked.expect("replication login", "ALTER ROLE … REPLICATION");
    checked.expect(SEGMENT, "GRANT EXECUTE ON FUNCTION pg_switch_wal()");

    set(&server, "archive_command", &hook);
    server.sql("ALTER SYSTEM SET max_wal_senders = 1");
    server.restart();
    let checked = Checked::run(&pitr);
    checked.expect("max_wal_senders", "max_wal_senders = 10");
    checked.expect("WAL without gaps", "pitr backup");

    server.sql("ALTER SYSTEM SET max_wal_senders = 0");
    server.sql("ALTER SYSTEM SET wal_level = 'minimal'");
    server.sql("ALTER SYSTEM SET archive_mode = 'off'");
    server.restart();
    let checked = Checked::run(&pitr);
    checked.expect("wal_level", "wal_level = replica");
    checked.expect("archive_mode", "archive_mode = on");
    checked.expect("replication login", "max_wal_senders");
    checked.expect(SEGMENT, "the server does not archive");

    server.stop(StopMode::Fast);
    let checked = Checked::run(&pitr);
    checked.expect("server", "is the server up");
    checked.expect_ok("repository root");
    checked.expect_ok("backup");
}

#[test]
fn an_archive_library_is_seen_where_it_is_set() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let pitr = Pitr::new(&dir);
    // From 15 on, a library is used instead of the command; basic_archive comes with the server's contrib modules.
    let server = Server::build(&dir, "primary")
        .set("archive_mode", "on")
        .set("archive_library", "basic_archive")
        .start();
    let checked =
        Checked::of(&pitr.connecting_to(&server).run(["check", "--json", "--segment-timeout", "1"]));
    checked.expect("archive_command", "archive_library is basic_archive");
}

#[test]
fn another_system_and_a_standby_are_told_apart() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let pitr = Pitr::new(&dir);
    let hook = pitr.hook("archive-push %p");
    let server = Server::build(&dir, "primary").archive_command(&hook).start();
    server.archive_now();
    let stranger = Server::build(&dir, "stranger").archive_command(&hook).start();
    let checked = Checked::run(&pitr.clone().connecting_to(&stranger));
    checked.expect("cluster", "pitr accept-system");
    let seen = checked.line(SEGMENT);
    assert_eq!(seen["ok"], false, "{seen}");
    let checked = Checked::run(&pitr.connecting_to(&server));
    checked.expect_ok("cluster");
}

#[test]
fn what_arrives_damaged_is_a_problem() {
    let dir = TestDir::new();
    let root = dir.create_dir("repo");
    let elsewhere = dir.create_dir("elsewhere");
    let pitr = Pitr::new(&dir);
    let server = Server::build(&dir, "primary").archive_command(&pitr.hook("archive-push %p")).start();
    server.archive_now();
    // A way on which bytes are altered: four of each segment, before the segment shows up in the repository.
    let spoil = format!(
        "{} && f=$(find {} -name %f.zst) && dd if=/dev/zero of=$f bs=1 count=4 seek=2000 conv=notrunc status=none \
         && mv $f {}/main/0001/wal/00000001/00000000/",
        pitr.clone().repository(format!("file://{}", elsewhere.display())).hook("archive-push %p"),
        elsewhere.display(),
        root.display()
    );
    server.sql(&format!("ALTER SYSTEM SET archive_command = '{}'", spoil.replace('\'', "''")));
    server.sql("SELECT pg_reload_conf()");
    server.wait_for("SELECT current_setting('archive_command') LIKE '%elsewhere%'", "t", 10);
    server.sql("CREATE TABLE t AS SELECT random() FROM generate_series(1, 10000)");
    let checked = Checked::run(&pitr.connecting_to(&server));
    checked.expect(SEGMENT, "is damaged");
}
