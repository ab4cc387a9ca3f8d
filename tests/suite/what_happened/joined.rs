//! What spans segments is put together: every row is counted, wherever its record is.

use super::{archiving, events, restored, short};
use crate::support::{StopMode, TestDir};

/// A transaction over many segments, with subtransactions of which one is rolled back.
#[test]
fn a_deletion_over_many_segments_is_counted_to_the_row() {
    let dir = TestDir::new();
    let (mut server, pitr) = archiving(&dir, 15, &[]);
    server.sql("CREATE TABLE big (i int PRIMARY KEY, t text); INSERT INTO big SELECT i, repeat('x', 20) FROM generate_series(1, 90000) i;");
    drop(pitr.ok(["backup", "--wal=archive"]));
    let first = server.sql("SELECT pg_walfile_name(pg_current_wal_lsn())");
    let moment = server.sql(
        "BEGIN;
         DELETE FROM big WHERE i <= 30000;
         SAVEPOINT a; DELETE FROM big WHERE i <= 40000; UPDATE big SET t = 'gone'; ROLLBACK TO a;
         SAVEPOINT b; DELETE FROM big WHERE i > 80000; SAVEPOINT c; UPDATE big SET t = '' WHERE i BETWEEN 40001 AND 40333; RELEASE b;
         SELECT FROM pg_switch_wal();
         SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"');
         COMMIT;",
    );
    let last = server.archive_now();
    let segments =
        u64::from_str_radix(&last[8..], 16).unwrap() - u64::from_str_radix(&first[8..], 16).unwrap();
    assert!(segments >= 5, "from {first} to {last}");
    let expected = ["delete public.big 40000", "update public.big 333"];
    let all: Vec<_> = events(&pitr, &["--kind", "delete,update"]);
    assert_eq!(short(&all), expected);
    let unasked: Vec<_> = events(&pitr, &[]).into_iter().filter(|e| e["kind"] != "restore-point").collect();
    assert_eq!(short(&unasked), expected);
    // Nothing but the commit lies behind this moment: what was done before it counts all the same.
    let late: Vec<_> = events(&pitr, &["--since", moment.trim(), "--kind", "delete,update"]);
    assert_eq!(short(&late), expected);
    server.stop(StopMode::Fast);
    let copy = restored(&dir, &pitr, 15, "copy", &["--before", all[0]["id"].as_str().unwrap()]);
    assert_eq!(copy.sql("SELECT count(*), count(*) FILTER (WHERE t = '') FROM big"), "90000|0");
}

/// Many small transactions in between, as a busy server has them, so that no list holds all.
#[test]
fn a_deletion_in_small_steps_among_thousands_of_others_is_counted_to_the_row() {
    let dir = TestDir::new();
    let (server, pitr) = archiving(&dir, 15, &[]);
    server.sql("CREATE TABLE big (i int); INSERT INTO big SELECT generate_series(1, 30000); CREATE TABLE busy (i int, n int); INSERT INTO busy SELECT generate_series(1, 500), 0;");
    drop(pitr.ok(["backup", "--wal=archive"]));
    // One backend deletes; the other's transactions end in between. A savepoint for each step makes numbers of its own.
    let mut deleting = String::from("BEGIN;\n");
    for step in 0..40 {
        deleting.push_str(&format!(
            "SAVEPOINT s; DELETE FROM big WHERE i BETWEEN {} AND {}; RELEASE s; SELECT pg_sleep(0.02);\n",
            step * 500,
            step * 500 + 499
        ));
    }
    deleting.push_str("COMMIT;");
    std::thread::scope(|scope| {
        scope.spawn(|| server.sql(&deleting));
        for round in 0..4 {
            server.sql(&format!(
                "DO $$BEGIN FOR row IN 1..500 LOOP UPDATE busy SET n = n + 1 WHERE i = row; COMMIT; END LOOP; END$$; SELECT {round}"
            ));
        }
    });
    server.archive_now();
    let table = events(&pitr, &["--table", "big"]);
    assert_eq!(short(&table), ["delete public.big 19999"]);
    let all: Vec<_> = events(&pitr, &[]).into_iter().filter(|e| e["kind"] == "delete").collect();
    assert_eq!(short(&all), ["delete public.big 19999"]);
    let busy = events(&pitr, &["--table", "busy", "--kind", "update"]);
    assert_eq!(busy.iter().map(|e| e["rows"].as_u64().unwrap()).sum::<u64>(), 2000);
}

#[test]
fn a_prepared_transaction_counts_where_it_is_committed() {
    for major in [15, 14] {
        let dir = TestDir::new();
        let (mut server, pitr) = archiving(&dir, major, &[("max_prepared_transactions", "5")]);
        server.sql("CREATE TABLE p (i int); INSERT INTO p SELECT generate_series(1, 700); CREATE TABLE q AS SELECT * FROM p; CREATE TABLE r AS SELECT * FROM p;");
        drop(pitr.ok(["backup", "--wal=archive"]));
        server.sql("BEGIN; DELETE FROM p WHERE i <= 600; DROP TABLE r; PREPARE TRANSACTION 'one'; BEGIN; DELETE FROM q; PREPARE TRANSACTION 'two';");
        server.archive_now();
        server.sql("INSERT INTO p SELECT generate_series(1, 5000)");
        server.archive_now();
        server.sql("COMMIT PREPARED 'one'; ROLLBACK PREPARED 'two';");
        server.archive_now();
        server.stop(StopMode::Fast);
        let told: Vec<_> = events(&pitr, &[]).into_iter().filter(|e| e["kind"] != "restore-point").collect();
        assert_eq!(short(&told), ["drop public.r", "delete public.p 600"], "{major}");
        let copy = restored(&dir, &pitr, major, "copy", &["--before", told[0]["id"].as_str().unwrap()]);
        copy.sql("ROLLBACK PREPARED 'one'");
        assert_eq!(
            copy.sql("SELECT (SELECT count(*) FROM p), (SELECT count(*) FROM r)"),
            "5700|700",
            "{major}"
        );
    }
}

/// Commits whose records lie across a border: there is one at nearly every border of segments this small.
#[test]
fn no_commit_is_lost_between_two_segments() {
    let dir = TestDir::new();
    let (server, pitr) = archiving(&dir, 15, &[]);
    server.sql("CREATE TABLE t (i int)");
    let before: u64 = server.sql("SELECT pg_current_xact_id()").parse().unwrap();
    server.sql("DO $$BEGIN FOR i IN 1..30000 LOOP PERFORM pg_current_xact_id(); INSERT INTO t VALUES (i); COMMIT; END LOOP; END$$");
    server.archive_now();
    let commits = events(&pitr, &["--kind", "commit"]);
    let xids: Vec<u64> =
        commits.iter().map(|e| e["xid"].as_u64().unwrap()).filter(|xid| *xid > before).collect();
    let missing: Vec<u64> =
        (before + 1..=before + 30000).filter(|xid| xids.binary_search(xid).is_err()).collect();
    assert_eq!(missing, Vec::<u64>::new());
}

/// The commit of a DROP of many tables lists more than a summary keeps of a record that crosses a border.
#[test]
fn a_long_commit_across_a_border_is_read_from_both_segments() {
    let dir = TestDir::new();
    let (server, pitr) = archiving(&dir, 15, &[]);
    server.sql("CREATE SCHEMA many; DO $$BEGIN FOR i IN 1..120 LOOP EXECUTE format('CREATE TABLE many.t%s (i int PRIMARY KEY, t text)', i); END LOOP; END$$;");
    drop(pitr.ok(["backup", "--wal=archive"]));
    // Fills the segment up to a few kilobytes before its end, page headers counted.
    server.sql(
        "BEGIN; DROP SCHEMA many CASCADE;
         SELECT FROM pg_logical_emit_message(true, 'fill', repeat('x', greatest(0, ((1048576
             - mod(pg_current_wal_insert_lsn() - '0/0'::pg_lsn, 1048576)) * 8168 / 8192)::int - 3000)));
         COMMIT;",
    );
    server.archive_now();
    let drops = events(&pitr, &["--kind", "drop"]);
    assert_eq!(drops.len(), 120, "{:?}", short(&drops));
    let at = drops[0]["lsn"].as_str().unwrap().split_once('/').unwrap().1;
    let into_segment = u64::from_str_radix(at, 16).unwrap() % (1 << 20);
    assert!(into_segment > (1 << 20) - 4000, "the record at {at} crosses no border");
}
