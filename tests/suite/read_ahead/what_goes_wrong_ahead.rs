//! What goes wrong with a file that nobody has asked for yet is told when it is asked for, and never before.

use std::fs;

use super::backlog::Backlog;
use crate::support::wal_bytes;

fn with_second(change: impl FnOnce(&str, &[u8]) -> Vec<u8>) -> (Backlog, String) {
    let backlog = Backlog::new();
    let (name, bytes) = &backlog.server.segments[1];
    backlog.server.put(name, &change(name, bytes));
    backlog.let_settle();
    let name = name.clone();
    (backlog, name)
}

#[test]
fn damage_is_told_when_that_very_file_is_asked_for() {
    let (backlog, second) = with_second(|name, bytes| wal_bytes::damaged(name, bytes, bytes.len() / 2));
    let first = backlog.push(&backlog.names[0]);
    first.expect_code(0);
    assert!(first.stderr.is_empty(), "{first:?}");
    let told = backlog.push(&second);
    told.expect_code(0);
    told.expect_said("damaged");
}

#[test]
fn a_conflict_is_told_when_that_very_file_is_asked_for_and_again() {
    let (backlog, second) = with_second(|_, bytes| bytes.to_vec());
    backlog
        .pitr
        .clone()
        .env("PITR_ARCHIVE_READ_AHEAD", "0")
        .run(["archive-push", &format!("pg_wal/{second}")])
        .expect_code(0);
    let bytes = &backlog.server.segments[1].1;
    backlog.server.put(&second, &wal_bytes::diverged(&second, bytes, bytes.len() / 2));
    backlog.let_settle();
    let first = backlog.push(&backlog.names[0]);
    first.expect_code(0);
    assert!(first.stderr.is_empty(), "{first:?}");
    for _ in 0..2 {
        let refused = backlog.push(&second);
        refused.expect_code(1);
        refused.expect_said("other bytes");
    }
    // What stands behind it is not held up.
    backlog.push(&backlog.names[2]).expect_code(0);
}

#[test]
fn a_stranger_s_segment_or_none_at_all_does_not_hold_up_what_was_asked_for() {
    let (backlog, second) = with_second(|_, bytes| {
        let mut other = bytes.to_vec();
        other[24] ^= 1;
        other
    });
    let first = backlog.push(&backlog.names[0]);
    first.expect_code(0);
    assert!(first.stderr.is_empty(), "{first:?}");
    backlog.push(&second).expect_code(1);
    fs::remove_file(backlog.segment(&second)).unwrap();
    // The server removes such an orphan's `.ready` by itself.
    backlog.push(&backlog.names[2]).expect_code(0);
}

#[test]
fn outside_of_a_data_directory_nothing_is_pushed_ahead() {
    let backlog = Backlog::new();
    let dir = &backlog.server.dir;
    dir.create_dir("elsewhere/pg_wal/archive_status");
    for (name, bytes) in &backlog.server.segments {
        dir.write(format!("elsewhere/pg_wal/{name}"), bytes);
        dir.write(format!("elsewhere/pg_wal/archive_status/{name}.ready"), "");
    }
    backlog.let_settle();
    let pitr = backlog.pitr.clone().in_dir(dir.join("elsewhere"));
    pitr.run(["archive-push", &format!("pg_wal/{}", backlog.names[0])]).expect_code(0);
    assert!(backlog.proofs().is_empty());
    assert_eq!(backlog.object(&backlog.names[1]), None);
}
