//! No false alarm: every legitimate history gives exit 0.

use super::{Archive, Verified};
use crate::support::{Pitr, Server, StopMode, TestDir};

#[track_caller]
fn expect_healthy(pitr: &Pitr) -> Verified {
    let quick = Verified::run(pitr, &["--quick"]);
    assert!(quick.kinds().is_empty(), "{:#}", quick.document);
    let verified = Verified::run(pitr, &[]);
    assert!(verified.kinds().is_empty(), "{:#}", verified.document);
    verified
}

#[test]
fn a_promotion_and_backups_on_both_timelines_are_no_problem() {
    let archive = Archive::new();
    let verified = expect_healthy(&archive.pitr);
    let cluster = verified.clusters().next().unwrap();
    assert_eq!((&cluster["name"], &cluster["epoch"]), (&"main".into(), &1.into()));
    // Every byte that is stored but the descriptors: index and manifest are read in full, too.
    let stored: u64 = walk(&archive.root().join("main/0001/wal"));
    assert!(verified.amount("checked", "bytes") >= stored, "{}", verified.document);
    let text = archive.pitr.ok(["verify"]);
    assert!(text.contains("no problem"), "{text}");
    // What was kept for --resume is gone.
    let left = std::fs::read_dir(archive.dir.join("spool/verify"));
    assert_eq!(left.map_or(0, Iterator::count), 0);
}

fn walk(path: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(path).unwrap().map(|e| e.unwrap().path());
    entries.map(|p| if p.is_dir() { walk(&p) } else { p.metadata().unwrap().len() }).sum()
}

#[test]
fn backups_that_bring_their_wal_along_and_leave_holes_between_them_are_no_problem() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let server = Server::build(&dir, "primary").start();
    let pitr = Pitr::new(&dir).connecting_to(&server);
    pitr.ok(["backup", "--wal", "include"]);
    for _ in 0..3 {
        server.switch_wal();
    }
    pitr.ok(["backup", "--wal", "include"]);
    let verified = expect_healthy(&pitr);
    let notes = verified.clusters().next().unwrap()["notes"].to_string();
    assert!(notes.contains("brought its WAL along"), "{notes}");

    // A standby's ends in a piece; its primary goes on, archives, and makes the segment whole.
    let mut standby = server.standby(&dir, "standby");
    standby.start();
    server.sql("CREATE TABLE t AS SELECT 1 AS n");
    server.wait_for_replay(&standby);
    let of_standby = pitr.clone().connecting_to(&standby);
    of_standby.ok(["backup", "--wal", "include"]);
    expect_healthy(&pitr);
    server.sql(&format!(
        "ALTER SYSTEM SET archive_command = '{}'",
        pitr.hook("archive-push %p").replace('\'', "''")
    ));
    server.sql("ALTER SYSTEM SET archive_mode = on");
    let mut server = server;
    standby.stop(StopMode::Immediate);
    server.restart();
    server.archive_now();
    expect_healthy(&pitr);
}

#[test]
fn a_cascade_a_partial_file_a_settled_conflict_and_another_epoch_are_no_problem() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let pitr = Pitr::new(&dir);
    let mut primary = Server::build(&dir, "primary").archive_command(&pitr.hook("archive-push %p")).start();
    let of_primary = pitr.clone().connecting_to(&primary);
    of_primary.ok(["backup"]);
    // Both archive everything, the standby also what it received: the same files come twice.
    let mut standby = primary.standby(&dir, "standby");
    standby.append_setting("archive_mode", "always");
    standby.start();
    primary.sql("CREATE TABLE t AS SELECT 1 AS n");
    let last = primary.archive_now();
    primary.wait_for_replay(&standby);
    standby.wait_for(
        &format!("SELECT coalesce(last_archived_wal, '') >= '{last}' FROM pg_stat_archiver"),
        "t",
        60,
    );
    primary.sql("INSERT INTO t VALUES (2)");
    primary.wait_for_replay(&standby);
    standby.promote();
    standby.sql("INSERT INTO t VALUES (3)");
    standby.archive_now();
    // The old primary goes on, too: the cut-off copy gets a longer sibling.
    primary.sql("INSERT INTO t VALUES (4)");
    primary.archive_now();
    expect_healthy(&pitr);

    // Other bytes under a stored name, which the operator has decided about.
    let stored = primary.file(format!("pg_wal/{last}"));
    let other = crate::support::wal_bytes::diverged(&last, &std::fs::read(&stored).unwrap(), 0x1000);
    dir.create_dir("other");
    let refused = dir.write(format!("other/{last}"), other);
    let done = pitr.clone().in_dir(&primary.data).run(["archive-push", refused.to_str().unwrap()]);
    done.expect_code(1);
    let found = Verified::run(&pitr, &[]);
    assert_eq!(found.kinds(), ["conflict"], "{}", found.document);
    let todo = found.problem("conflict")["todo"].as_str().unwrap().to_owned();
    let digest = todo.split("--discard ").nth(1).unwrap().split(' ').next().unwrap();
    pitr.ok(["repo", "resolve", &last, "--discard", digest]);
    expect_healthy(&pitr);

    // A new initdb, and so a second epoch.
    primary.stop(StopMode::Immediate);
    standby.stop(StopMode::Immediate);
    let next = Server::build(&dir, "next").archive_command(&pitr.hook("archive-push %p")).start();
    pitr.ok(["accept-system", "--pgdata", next.data.to_str().unwrap()]);
    pitr.clone().connecting_to(&next).ok(["backup"]);
    next.archive_now();
    let verified = expect_healthy(&pitr);
    assert_eq!(verified.clusters().count(), 2);
}
