//! What things are called: by the nearest catalogue, and by no guess.

use super::{archiving, events, restored, short};
use crate::support::{StopMode, TestDir};

fn but_points(events: Vec<serde_json::Value>) -> Vec<String> {
    short(&events.into_iter().filter(|e| e["kind"] != "restore-point").collect::<Vec<_>>())
}

#[test]
fn a_table_has_the_name_of_the_nearest_backup_before() {
    let dir = TestDir::new();
    let (mut server, pitr) = archiving(&dir, 15, &[]);
    server.sql("CREATE TABLE \"Old name\" AS SELECT generate_series(1, 500) i; CREATE DATABASE other;");
    drop(pitr.ok(["backup", "--wal=archive"]));
    server.sql("ALTER TABLE \"Old name\" RENAME TO new_name; DELETE FROM new_name WHERE i <= 150;");
    drop(pitr.ok(["backup", "--wal=archive"]));
    server.sql("DELETE FROM new_name WHERE i <= 300; CREATE TABLE fresh AS SELECT generate_series(1, 400) i; DELETE FROM fresh; CREATE TABLE lost (i int); DROP TABLE lost;");
    let to = server.conninfo().replace("dbname=postgres", "dbname=other");
    server.psql_at(&to, "CREATE TABLE new_name AS SELECT generate_series(1, 300) i");
    server.psql_at(&to, "DELETE FROM new_name");
    let dropped = server.sql("CREATE TABLE x (i int); SELECT 'x'::regclass::oid; DROP TABLE x;");
    server.archive_now();
    let live = but_points(events(&pitr, &[]));
    let unknown = |oid: &str| format!("drop OID {oid} (file 1663/5/{oid})");
    assert_eq!(live.len(), 6, "{live:?}");
    assert_eq!(
        live[..3],
        ["delete public.\"Old name\" 150", "delete public.new_name 150", "delete public.fresh 400"]
    );
    assert!(live[3].starts_with("drop OID "), "a later catalogue has no name for what is gone: {live:?}");
    assert_eq!(live[4..], ["delete public.new_name 300".to_owned(), unknown(&dropped)]);

    let own = but_points(events(&pitr, &["--table", "public.new_name", "--database", "postgres"]));
    assert_eq!(own, ["delete public.new_name 150"]);
    let both = events(&pitr, &["--table", "new_name"]);
    let databases: Vec<_> = both.iter().map(|e| e["database"].as_str().unwrap()).collect();
    assert_eq!(databases, ["postgres", "other"]);
    assert_eq!(but_points(events(&pitr, &["--table", "\"Old name\""])), ["delete public.\"Old name\" 150"]);
    assert_eq!(but_points(events(&pitr, &["--table", "old name"])), Vec::<String>::new());

    // Without a server at hand what is newer than the last backup stays a number.
    server.stop(StopMode::Fast);
    let alone = pitr.without("PGHOST");
    let outcome = alone.run(["events"]);
    outcome.expect_code(0);
    assert!(outcome.stdout.contains("DELETE file 1663/5/"), "{}", outcome.stdout);
    assert_eq!(outcome.stderr, "");
}

#[test]
fn around_a_moment_are_the_nearest_commits_however_far() {
    let dir = TestDir::new();
    let (server, pitr) = archiving(&dir, 15, &[]);
    server.sql("CREATE TABLE t AS SELECT generate_series(1, 500) i");
    drop(pitr.ok(["backup", "--wal=archive"]));
    for _ in 0..10 {
        server.sql("INSERT INTO t VALUES (1)");
    }
    let xid = server.sql("BEGIN; DELETE FROM t; SELECT pg_current_xact_id(); COMMIT;");
    let moment = server.sql("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')");
    for _ in 0..10 {
        server.sql("INSERT INTO t VALUES (1)");
    }
    server.archive_now();
    let around = events(&pitr, &["--around", &moment]);
    let commits: Vec<_> = around.iter().filter(|e| e["kind"] == "commit").collect();
    assert_eq!(commits.len(), 10, "{around:#?}");
    assert_eq!(commits[4]["xid"].to_string(), xid, "the last one before the moment");
    assert!(short(&around).contains(&"delete public.t 510".to_owned()), "{around:#?}");
    // An hour in which nothing was done: what was last before it.
    let idle = events(&pitr, &["--around", "2031-01-01 00:00:00Z"]);
    assert_eq!(short(&idle).len(), 5, "{idle:#?}");
    for when in ["2031-01-01 00:00:00Z", "2001-01-01 00:00:00Z"] {
        let delete = events(&pitr, &["--around", when, "--kind", "delete"]);
        assert_eq!(short(&delete), ["delete public.t 510"], "the nearest one");
        assert_eq!(events(&pitr, &["--around", when, "--kind", "commit"]).len(), 1);
    }
    assert_eq!(events(&pitr, &["--until", "2001-01-01 00:00:00Z"]), Vec::<serde_json::Value>::new());
    pitr.run(["events", "--since", "2026-01-01 00:00:00"]).expect_code(2);
    pitr.run(["events", "--kind", "vacuum"]).expect_code(2);
    pitr.run(["events", "--around", "5 minutes ago", "--since", "1 hour ago"]).expect_code(2);
}

#[test]
fn each_timeline_tells_its_own_and_is_restored_on_it() {
    let dir = TestDir::new();
    let (mut server, pitr) = archiving(&dir, 15, &[]);
    server.sql("CREATE TABLE x AS SELECT generate_series(1, 300) i; CREATE TABLE y AS SELECT * FROM x;");
    drop(pitr.ok(["backup", "--wal=archive"]));
    server.sql("DROP TABLE x");
    server.archive_now();
    server.stop(StopMode::Fast);
    let drops = events(&pitr, &["--kind", "drop"]);
    let mut second =
        restored(&dir, &pitr, 15, "second", &["--takeover", "--before", drops[0]["id"].as_str().unwrap()]);
    assert_eq!(second.sql("SELECT count(*) FROM x"), "300");
    second.sql("TRUNCATE y");
    second.archive_now();
    second.stop(StopMode::Fast);
    let told: Vec<_> = events(&pitr, &["--kind", "drop,truncate"]);
    assert_eq!(short(&told), ["drop public.x", "truncate public.y"]);
    assert_eq!((&told[0]["timeline"], &told[1]["timeline"]), (&1.into(), &2.into()));
    let text = pitr.ok(["events", "--kind", "truncate"]);
    assert!(text.contains("--target-timeline 2"), "{text}");
    assert_eq!(short(&events(&pitr, &["--timeline", "1", "--kind", "drop,truncate"])), ["drop public.x"]);
    let copy = restored(&dir, &pitr, 15, "copy", &["--before", told[1]["id"].as_str().unwrap()]);
    assert_eq!(copy.sql("SELECT (SELECT count(*) FROM x), (SELECT count(*) FROM y)"), "300|300");
}

#[test]
fn logical_wal_names_the_truncated_tables_itself() {
    let dir = TestDir::new();
    let (server, pitr) = archiving(&dir, 15, &[("wal_level", "logical")]);
    server.sql("CREATE TABLE a AS SELECT generate_series(1, 300) i; CREATE TABLE b AS SELECT * FROM a; CREATE TABLE d AS SELECT * FROM a;");
    drop(pitr.ok(["backup", "--wal=archive"]));
    // Filled again in the same transaction: the files alone would tell a rewrite.
    server.sql("BEGIN; TRUNCATE a; INSERT INTO a VALUES (1); COMMIT; VACUUM FULL b; BEGIN; DELETE FROM d WHERE i > 200; COMMIT;");
    server.archive_now();
    assert_eq!(
        but_points(events(&pitr, &[])),
        ["truncate public.a", "rewrite public.b", "delete public.d 100"]
    );
}
