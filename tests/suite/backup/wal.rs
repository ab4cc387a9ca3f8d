//! The WAL that a backup cannot do without: chosen, waited for, brought along, and never taken for there when it is not.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, Stdio};

use pitr::types::{SegmentName, SegmentSize};
use pitr::wal::{SegmentScan, SegmentScanner};

use super::{archiving, listed, no_traces, restore_by_hand, started, take};
use crate::support::{Pitr, Server, StopMode, TestDir, wait_until};

#[test]
fn the_archiver_is_relied_on_only_where_its_segments_have_arrived() {
    let dir = TestDir::new();
    let (server, pitr) = archiving(&dir);
    // Nothing has been archived yet: the setting alone proves nothing.
    let first = pitr.run(["backup"]);
    first.expect_code(0);
    first.expect_said("WAL: include, because");
    first.expect_said("has none of the server's last segments");
    server.sql("CREATE TABLE t ()");
    let segment = server.archive_now();
    let second = pitr.run(["backup"]);
    second.expect_code(0);
    second.expect_said(&format!("WAL: archive, because segment {segment} has been archived"));

    // What has arrived proves nothing about what comes.
    server.append_setting("archive_command", "false");
    server.sql("SELECT pg_reload_conf()");
    server.sql("CREATE TABLE u ()");
    server.sql("SELECT pg_switch_wal()");
    wait_until("the archiver has failed", 60, || {
        server.sql("SELECT last_failed_time > last_archived_time FROM pg_stat_archiver") == "t"
    });
    let failing = pitr.run(["backup"]);
    failing.expect_code(0);
    failing.expect_said("WAL: include, because the server's archiver fails");

    let off = Server::build(&dir, "off").start();
    let other = Pitr::new(&dir).repository(format!("file://{}/other", dir.path().display()));
    let third = other.connecting_to(&off).run(["backup"]);
    third.expect_code(0);
    third.expect_said("WAL: include, because archive_mode is off on the server");
}

#[test]
fn wal_that_never_arrives_means_no_backup_and_the_segment_and_the_archiver_are_named() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let server = Server::build(&dir, "primary").archive_command("false").start();
    let pitr = Pitr::new(&dir).connecting_to(&server);
    let failed = pitr.run(["backup", "--wal=archive", "--wal-timeout=3s"]);
    failed.expect_code(1);
    failed.expect_said("waiting for WAL segment 0000000100000000");
    failed.expect_said("does not have WAL segment 0000000100000000");
    failed.expect_said("the server's archiver fails");
    failed.expect_said("hint: does archive_command work");
    let (backups, unfinished) = listed(&pitr);
    assert_eq!((backups.len(), unfinished.len()), (0, 1));

    let off = Server::build(&dir, "off").start();
    let other = Pitr::new(&dir).repository(format!("file://{}/other", dir.path().display()));
    let failed = other.connecting_to(&off).run(["backup", "--wal=archive"]);
    failed.expect_code(1);
    failed.expect_said("archive_mode is off");
    failed.expect_said("hint: switch archiving on, or take the backup with --wal include");
}

/// Where the segment of the backup's end is archived.
fn last_segment(dir: &TestDir, backup: &pitr::repository::backup_set::format::Backup) -> std::path::PathBuf {
    let last = SegmentName::holding(
        backup.stop_timeline,
        pitr::types::Lsn(backup.stop_lsn.0 - 1),
        SegmentSize::DEFAULT,
    )
    .to_string();
    dir.join(format!("repo/main/0001/wal/{}/{}/{last}.zst", &last[..8], &last[8..16]))
}

#[test]
fn a_standbys_backup_ends_the_primarys_segment_or_says_that_it_waits_for_it() {
    let dir = TestDir::new();
    let (primary, pitr) = archiving(&dir);
    let mut standby = primary.standby(&dir, "standby");
    standby.start();
    let write = |table: &str| {
        primary.sql(&format!("CREATE TABLE {table} AS SELECT generate_series(1, 1000) i; CHECKPOINT;"));
        primary.wait_for_replay(&standby);
        standby.sql("CHECKPOINT");
    };
    write("t");
    let of_standby = pitr.clone().connecting_to(&standby);
    // With nobody to ask, a second connection is the only way that is sure to end.
    let auto = of_standby.run(["backup"]);
    auto.expect_code(0);
    auto.expect_said("WAL: include, because this is a standby, and no --primary is given");
    drop(std::fs::remove_dir_all(dir.join("repo/main/0001/backup")));
    let arguments = ["backup", "--wal=archive", "--wal-timeout=4s"];
    let failed = of_standby.run(arguments);
    failed.expect_code(1);
    failed.expect_said("it ends when the primary has filled it or somebody calls pg_switch_wal() there");
    assert_eq!(listed(&pitr).0.len(), 0);

    let backup = take(&of_standby, &["--wal=archive", &format!("--primary={}", primary.conninfo())]);
    assert!(last_segment(&dir, &backup).exists());

    // A role that may not is told so before the backup, and then the primary's traffic does it.
    primary.sql("CREATE ROLE weak LOGIN REPLICATION");
    write("u");
    let weak = format!("--primary={}", primary.conninfo().replace("user=postgres", "user=weak"));
    let mut waiting = of_standby.command(["backup", "--wal=archive", &weak]);
    let mut child = waiting.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut lines = String::new();
    while !lines.contains("waiting for WAL segment") {
        let n = said.read_line(&mut lines).unwrap();
        assert!(n > 0, "{lines}");
    }
    assert!(lines.contains("the role may not call pg_switch_wal() on the primary"), "{lines}");
    primary.switch_wal();
    assert!(child.wait().unwrap().success());

    // A standby is no primary, and neither is another cluster: known before anything is read.
    let unfinished = listed(&pitr).1;
    let refused = of_standby.run(["backup", "--wal=archive", &format!("--primary={}", standby.conninfo())]);
    refused.expect_code(1);
    refused.expect_said("the server given as primary is a standby");
    let other = Server::build(&dir, "other").start();
    let refused = of_standby.run(["backup", "--wal=archive", &format!("--primary={}", other.conninfo())]);
    refused.expect_code(1);
    refused.expect_said("the primary is system");
    let gone = of_standby.run(["backup", "--wal=archive", "--primary=host=127.0.0.1 port=1 user=u"]);
    gone.expect_code(1);
    assert_eq!(listed(&pitr).1, unfinished, "nothing was begun");
}

#[test]
fn a_backup_after_a_promotion_brings_the_history_that_was_never_archived() {
    let dir = TestDir::new();
    let (primary, pitr) = archiving(&dir);
    let mut standby = primary.standby(&dir, "standby");
    // Promoted while it does not archive; archiving is switched on later.
    standby.append_setting("archive_mode", "off");
    standby.start();
    primary.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) i;");
    primary.wait_for_replay(&standby);
    drop(primary);
    standby.promote();
    standby.stop(StopMode::Fast);
    standby.append_setting("archive_mode", "on");
    standby.start();
    let history = dir.join("repo/main/0001/wal/00000002.history.zst");
    assert!(!history.exists());
    let backup = take(&pitr.clone().connecting_to(&standby), &["--wal=archive"]);
    assert_eq!((backup.timeline.0, backup.stop_timeline.0), (2, 2));
    assert!(history.exists());
    standby.sql("CREATE TABLE u AS SELECT generate_series(1, 1000) i;");
    standby.archive_now();
    let data = restore_by_hand(&dir.join("repo"), &backup, &dir.join("restored"));
    let copy = started(&dir, &pitr, &backup, &data);
    assert_eq!(copy.sql("SELECT count(*) FROM u"), "1000");
}

/// A server whose archiver waits for the file `go`, so that the test can put something into the archive first.
struct Held {
    dir: TestDir,
    server: Server,
    pitr: Pitr,
}

impl Held {
    fn new() -> Self {
        let dir = TestDir::new();
        dir.create_dir("repo");
        let pitr = Pitr::new(&dir);
        let go = dir.join("go");
        let command = format!("test -e {} && {}", go.display(), pitr.hook("archive-push %p"));
        let server = Server::build(&dir, "primary").archive_command(&command).start();
        let pitr = pitr.connecting_to(&server);
        Self { dir, server, pitr }
    }

    /// A backup that has come to the point where it waits for this segment; what it says goes on to be read.
    fn waiting(&self, timeout: &str) -> (Child, BufReader<ChildStderr>, SegmentName) {
        let mut command = self.pitr.command(["backup", "--wal=archive", timeout]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let segment = loop {
            let mut line = String::new();
            assert!(said.read_line(&mut line).unwrap() > 0, "it never waited");
            if let Some((_, rest)) = line.split_once("waiting for WAL segment ") {
                break rest[..24].parse().unwrap();
            }
        };
        (child, said, segment)
    }

    /// Puts other bytes than the server's into the archive, under the segment's name.
    fn push(&self, segment: SegmentName, change: impl Fn(&mut Vec<u8>)) {
        let mut bytes = std::fs::read(self.server.file(format!("pg_wal/{segment}"))).unwrap();
        change(&mut bytes);
        let path = self.dir.join(format!("changed/{segment}"));
        self.dir.create_dir("changed");
        self.dir.write(&path, bytes);
        let outcome = self.pitr.clone().in_dir(&self.server.data);
        outcome.run(["archive-push", path.to_str().unwrap()]).expect_code(0);
    }
}

fn scan(segment: SegmentName, bytes: &[u8]) -> SegmentScan {
    let mut scanner = SegmentScanner::new(segment, SegmentSize::DEFAULT);
    scanner.push(bytes);
    scanner.finish()
}

/// Where the record of the backup's end starts: the one before the switch.
fn last_but_one(segment: SegmentName, bytes: &[u8]) -> usize {
    let mut cut = bytes.to_vec();
    let mut at = 0;
    for _ in 0..2 {
        at = usize::try_from(scan(segment, &cut).last_record.unwrap().0 % SegmentSize::DEFAULT.bytes())
            .unwrap();
        cut[at..].fill(0);
    }
    at
}

#[test]
fn a_segment_that_ends_before_the_backup_is_waited_for_until_a_longer_copy_stands_beside_it() {
    // As a cascaded standby leaves it: the cut-off segment came first, under the full name.
    let held = Held::new();
    let cut = |segment| {
        move |bytes: &mut Vec<u8>| {
            let at = last_but_one(segment, bytes);
            bytes[at..].fill(0);
        }
    };
    let (mut child, mut said, segment) = held.waiting("--wal-timeout=5s");
    held.push(segment, cut(segment));
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(rest.contains("has only up to") && rest.contains(&segment.to_string()), "{rest}");
    assert_eq!(listed(&held.pitr).0.len(), 0);

    let (mut child, mut said, segment) = held.waiting("--wal-timeout=60s");
    held.push(segment, cut(segment));
    held.dir.write("go", "");
    // After three failures the archiver sleeps until there is something new.
    held.server.switch_wal();
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    assert!(child.wait().unwrap().success(), "{rest}");
    assert_eq!(listed(&held.pitr).0.len(), 1);
    let folder = held.dir.join("repo/main/0001/wal/00000001/00000000");
    let names = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let copies = names.filter(|n| n.starts_with(&segment.to_string()) && !n.ends_with(".backup.zst"));
    assert_eq!(copies.count(), 2);
}

#[test]
fn a_segment_that_is_archived_with_damage_is_not_taken_for_there() {
    let held = Held::new();
    let (mut child, mut said, segment) = held.waiting("--wal-timeout=60s");
    held.push(segment, |bytes| {
        let at = last_but_one(segment, bytes);
        bytes[at + 20] ^= 0x40;
    });
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(rest.contains(&segment.to_string()) && rest.contains("holds it damaged"), "{rest}");
    assert_eq!(listed(&held.pitr).0.len(), 0);
}

#[test]
fn what_a_standbys_backup_leaves_unfinished_is_kept_as_a_piece() {
    let dir = TestDir::new();
    let pitr = Pitr::new(&dir);
    let primary = Server::build(&dir, "primary").start();
    let mut standby = primary.standby(&dir, "standby");
    standby.start();
    primary.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) i; CHECKPOINT;");
    primary.wait_for_replay(&standby);
    let backup = take(&pitr.connecting_to(&standby), &["--wal=include"]);
    let pieces = dir.join("repo/main/0001/stream/00000001");
    let names: Vec<_> = std::fs::read_dir(pieces).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 1, "{names:?}");
    let name = names[0].to_str().unwrap();
    let bound = |range: std::ops::Range<usize>| u64::from_str_radix(&name[range], 16).unwrap();
    assert_eq!(bound(0..16), backup.stop_lsn.0 & !0xFF_FFFF);
    assert!(bound(17..33) >= backup.stop_lsn.0);
    // It is never stored under a segment's name.
    assert!(!last_segment(&dir, &backup).exists());
    no_traces(&standby);
}

#[test]
fn a_busy_primary_that_has_gone_on_into_the_next_segment_keeps_no_backup_waiting() {
    let dir = TestDir::new();
    let server = Server::build(&dir, "primary").set("synchronous_commit", "off").start();
    server.sql("CREATE TABLE t (i int)");
    let pitr = Pitr::new(&dir).connecting_to(&server);
    let mut work = server.psql();
    work.args(["-c", "DO $$ BEGIN LOOP INSERT INTO t VALUES (1); COMMIT; END LOOP; END $$"]);
    let mut work = work.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    server.wait_for("SELECT count(*) > 0 FROM t", "t", 60);
    let backup = take(&pitr, &["--wal=include", "--wal-timeout=60s"]);
    assert!(work.try_wait().unwrap().is_none(), "the server was not busy all the time");
    work.kill().unwrap();
    work.wait().unwrap();
    assert!(last_segment(&dir, &backup).exists());
}

#[test]
fn one_archive_whoever_fills_it() {
    // The second connection and the archiver store the same segments: neither is in the other's way.
    let dir = TestDir::new();
    let (server, pitr) = archiving(&dir);
    server.sql("CREATE TABLE t AS SELECT generate_series(1, 100000) i;");
    let backup = take(&pitr, &["--wal=include"]);
    assert!(last_segment(&dir, &backup).exists());
    wait_until("everything is archived", 60, || {
        let status = std::fs::read_dir(server.file("pg_wal/archive_status")).unwrap().flatten();
        status.into_iter().all(|e| e.path().extension().is_none_or(|x| x != "ready"))
    });
    assert_eq!(server.sql("SELECT failed_count FROM pg_stat_archiver"), "0");
    assert!(!dir.join("repo/main/0001/conflict").exists());
}

#[test]
fn no_commit_ever_waits_for_a_backup() {
    let dir = TestDir::new();
    let server = Server::build(&dir, "primary")
        .set("synchronous_standby_names", "*")
        .set("synchronous_commit", "local")
        .set("wal_sender_timeout", "2s")
        .start();
    server.sql("CREATE TABLE t AS SELECT generate_series(1, 100000) i;");
    let pitr = Pitr::new(&dir).connecting_to(&server);
    let mut child = pitr
        .command(["backup", "--wal=include", "--max-rate=2M"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // The server has heard from the stream how far it is, and still does not count it among its standbys.
    server.wait_for(
        "SELECT sync_state || coalesce(flush_lsn::text, '') FROM pg_stat_replication \
         WHERE state = 'streaming' AND write_lsn IS NOT NULL",
        "async",
        60,
    );
    child.kill().unwrap();
    child.wait().unwrap();
}
