//! The ground the other tests stand on: every major starts, streams, is promoted and stops.

use crate::support::{Pitr, Server, StopMode, TestDir, all_majors};

#[test]
fn every_major_starts_and_copies_itself_to_a_standby_that_can_be_promoted() {
    for major in all_majors() {
        let dir = TestDir::new();
        let mut primary = Server::build(&dir, "primary").major(major).initdb("--wal-segsize=1").start();
        assert_eq!(primary.sql("SHOW wal_segment_size"), "1MB");
        primary.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n");
        let mut standby = primary.standby(&dir, "standby");
        standby.start();
        primary.sql("INSERT INTO t SELECT generate_series(1, 500)");
        primary.wait_for_replay(&standby);
        assert_eq!(standby.sql("SELECT count(*) FROM t"), "1500");
        primary.stop(StopMode::Kill);
        standby.promote();
        standby.sql("INSERT INTO t VALUES (1)");
        standby.stop(StopMode::Fast);
    }
}

#[test]
fn the_binary_can_be_run_by_the_account_of_the_server() {
    let dir = TestDir::new();
    let outcome = Pitr::new(&dir).run(["--version"]);
    assert!(outcome.code.is_some(), "{outcome:?}");
}
