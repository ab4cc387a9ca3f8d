//! Archive, back up, work, an accident: and every kind of target gives back the rows of its moment.

use super::{document, moment, restored};
use crate::support::{Pitr, Server, StopMode, TestDir, distribution_major};

/// A cluster's history, with the targets that were noted on the way. Table `t` holds 1 to 100 at the backup, then to 200,
/// 300 and 400 in one transaction each, and is dropped.
struct History {
    dir: TestDir,
    pitr: Pitr,
    major: u32,
    /// Between 200 and 300.
    time: String,
    lsn: String,
    /// The transaction that brings 300.
    xid: String,
}

impl History {
    fn on(major: u32) -> Self {
        let dir = TestDir::new();
        dir.create_dir("repo");
        let pitr = Pitr::new(&dir);
        let mut server = Server::build(&dir, "primary")
            .major(major)
            .archive_command(&pitr.hook("archive-push %p"))
            .start();
        server.sql("CREATE TABLE t AS SELECT n FROM generate_series(1, 100) n");
        let pitr = pitr.connecting_to(&server);
        pitr.ok(["backup"]);
        let add = |from: u32, to: u32| {
            server.sql(&format!(
                "BEGIN; INSERT INTO t SELECT n FROM generate_series({from}, {to}) n; SELECT txid_current(); COMMIT;"
            ))
        };
        add(101, 200);
        let time = moment(&server);
        let lsn = server.sql("SELECT pg_current_wal_insert_lsn()");
        server.sql("SELECT FROM pg_create_restore_point('before the import')");
        let xid = add(201, 300);
        add(301, 400);
        server.sql("DROP TABLE t");
        server.archive_now();
        server.stop(StopMode::Fast);
        Self { dir, pitr, major, time, lsn, xid }
    }

    /// Restores to a target, and the rows must be 1 to `last`; none at all means that the table is gone.
    #[track_caller]
    fn gives_back(&self, name: &str, arguments: &[&str], last: Option<u64>) {
        let to = format!("--to={}", self.dir.join(name).display());
        let words = self.pitr.ok(["restore", &to, "--plan"].iter().chain(arguments));
        let copy = restored(&self.dir, &self.pitr, self.major, name, arguments);
        // What was planned is what the server did, to the record.
        if let Some((side, transaction)) = planned_stop(&words) {
            let stopped = format!("recovery stopping {side} commit of transaction {transaction},");
            assert!(copy.log().contains(&stopped), "not \"{stopped}\": {words}\n{}", copy.log());
        }
        let rows = match last {
            Some(_) => copy.sql("SELECT count(*), coalesce(sum(n), 0) FROM t"),
            None => copy.sql("SELECT coalesce(to_regclass('t')::text, 'gone')"),
        };
        let expected = last.map_or_else(|| "gone".to_owned(), |n| format!("{n}|{}", n * (n + 1) / 2));
        assert_eq!(rows, expected, "PostgreSQL {}: {arguments:?}", self.major);
    }
}

/// `before`, `741` out of "stops   before the commit of transaction 741 at …".
fn planned_stop(words: &str) -> Option<(&'static str, &str)> {
    let (head, tail) = words.split_once(" the commit of transaction ")?;
    let side = if head.ends_with("before") { "before" } else { "after" };
    Some((side, tail.split(' ').next()?))
}

fn time_lsn_xid_and_name_on(major: u32) {
    let history = History::on(major);
    history.gives_back("time", &["--target-time", &history.time], Some(200));
    history.gives_back("lsn", &["--target-lsn", &history.lsn], Some(200));
    history.gives_back("xid", &["--target-xid", &history.xid], Some(300));
    history.gives_back("name", &["--target-name", "before the import"], Some(200));
}

#[test]
fn time_lsn_xid_and_name_give_back_the_rows_of_their_moment_on_13() {
    time_lsn_xid_and_name_on(13);
}

#[test]
fn time_lsn_xid_and_name_give_back_the_rows_of_their_moment_on_14() {
    time_lsn_xid_and_name_on(14);
}

#[test]
fn time_lsn_xid_and_name_give_back_the_rows_of_their_moment_on_15() {
    time_lsn_xid_and_name_on(15);
}

#[test]
fn time_lsn_xid_and_name_give_back_the_rows_of_their_moment_on_16() {
    time_lsn_xid_and_name_on(16);
}

#[test]
fn time_lsn_xid_and_name_give_back_the_rows_of_their_moment_on_17() {
    time_lsn_xid_and_name_on(17);
}

#[test]
fn time_lsn_xid_and_name_give_back_the_rows_of_their_moment_on_18() {
    time_lsn_xid_and_name_on(18);
}

#[test]
fn immediate_latest_and_exclusive_targets_stop_where_the_plan_says() {
    let history = History::on(distribution_major());
    history.gives_back("immediate", &["--target=immediate"], Some(100));
    history.gives_back("latest", &["--target=latest"], None);
    history.gives_back("before", &["--target-xid", &history.xid, "--exclusive"], Some(200));
    // The plan of the last one in words, and as the document.
    let to = format!("--to={}", history.dir.join("plan").display());
    let words = history.pitr.ok(["restore", &to, "--plan", "--target-xid", &history.xid, "--exclusive"]);
    assert!(words.contains(&format!("before the commit of transaction {}", history.xid)), "{words}");
    assert!(words.contains("MiB") && words.contains("stored in"), "no sizes: {words}");
    assert!(
        words.contains(&format!("told    recovery_target_xid = '{}', exclusive", history.xid)),
        "{words}"
    );
    assert!(words.contains("fetch   about") && words.contains("a second this backup was stored"), "{words}");
    // Where the backup was quicker than the archiver it has streamed its segments, and they have no times.
    let replay = ["replay  at most", "replay  nobody knows how long"];
    assert!(replay.iter().any(|said| words.contains(said)), "{words}");
    let plan =
        document(&history.pitr.run(["restore", &to, "--plan", "--json", "--target-time", &history.time]));
    assert_eq!(plan["timeline"], 1);
    assert_eq!(plan["target"]["type"], "time");
    let segments = plan["wal"]["segments"].as_u64().unwrap();
    assert_eq!(plan["wal"]["bytes"].as_u64().unwrap(), segments * (16 << 20));
    assert!(plan["bytes"].as_u64().unwrap() > 1 << 20);
    assert_eq!(plan["recover"]["time"], plan["target"]["time"]);
    for stored in [&plan["stored"], &plan["wal"]["stored"]] {
        assert!((1000..16 << 20).contains(&stored.as_u64().unwrap()), "{plan}");
    }
    assert!(plan["estimate"]["fetch"]["seconds"].as_f64().unwrap() > 0.0, "{plan}");
    assert!(plan["estimate"]["fetch"]["basis"].as_str().unwrap().contains("stored"), "{plan}");
    for list in ["notes", "hints", "switches", "out_of_order"] {
        assert_eq!(plan[list], serde_json::json!([]), "{plan}");
    }
    assert!(!history.dir.join("plan").exists());
}

#[test]
fn a_time_after_the_last_commit_is_reached_although_the_server_alone_would_give_up() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let pitr = Pitr::new(&dir);
    let mut server = Server::build(&dir, "primary").archive_command(&pitr.hook("archive-push %p")).start();
    server.sql("CREATE TABLE t AS SELECT n FROM generate_series(1, 100) n");
    let pitr = pitr.connecting_to(&server);
    pitr.ok(["backup"]);
    server.sql("INSERT INTO t VALUES (101)");
    let idle = moment(&server);
    // A restore point tells that the WAL goes on behind the moment; nothing is committed any more.
    server.archive_now();
    server.stop(StopMode::Immediate);
    let copy = restored(&dir, &pitr, server.major, "copy", &["--target-time", &idle]);
    assert_eq!(copy.sql("SELECT count(*) FROM t"), "101");
    let settings = std::fs::read_to_string(copy.file("postgresql.auto.conf")).unwrap();
    assert!(settings.contains("recovery_target_lsn = '0/"), "{settings}");
}
