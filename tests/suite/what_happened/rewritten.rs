//! What has a new file is not gone.

use super::{archiving, events, short};
use crate::support::{StopMode, TestDir};

fn rewritten_and_unlogged(major: u32) {
    let dir = TestDir::new();
    let (mut server, pitr) = archiving(&dir, major, &[]);
    server.sql(
        "CREATE TABLE big (i int, t text); INSERT INTO big SELECT 1, repeat('x', 100);
         CREATE UNLOGGED TABLE ul (i int PRIMARY KEY, t text); INSERT INTO ul SELECT generate_series(1, 100);
         CREATE UNLOGGED TABLE plain (i int); INSERT INTO plain SELECT generate_series(1, 100);
         CREATE UNLOGGED TABLE last (i int, t text);",
    );
    drop(pitr.ok(["backup", "--wal=archive"]));
    for sql in [
        "ALTER TABLE big ALTER i TYPE bigint",
        "ALTER TABLE big ALTER i TYPE int",
        "ALTER TABLE big ALTER i TYPE bigint",
        "VACUUM FULL ul",
        "TRUNCATE plain",
        "VACUUM FULL plain",
        "ALTER TABLE ul SET LOGGED",
        "ALTER TABLE ul SET UNLOGGED",
        "REINDEX TABLE ul",
        "DROP TABLE last",
        "DROP TABLE big",
    ] {
        server.sql(sql);
    }
    server.archive_now();
    server.stop(StopMode::Fast);
    let told = short(&events(&pitr.without("PGHOST"), &["--kind", "drop,truncate,rewrite"]));
    assert_eq!(
        told,
        [
            "rewrite public.big",
            "rewrite public.big",
            "rewrite public.big",
            "rewrite public.ul",
            "truncate public.plain",
            "rewrite public.plain",
            "rewrite public.ul",
            "rewrite public.ul",
            "rewrite index public.ul_pkey",
            "drop public.last",
            "drop public.big",
        ]
    );
}

#[test]
fn what_is_rewritten_or_unlogged_is_not_called_dropped_on_13() {
    rewritten_and_unlogged(13);
}

#[test]
fn what_is_rewritten_or_unlogged_is_not_called_dropped_on_15() {
    rewritten_and_unlogged(15);
}

#[test]
fn what_is_rewritten_or_unlogged_is_not_called_dropped_on_18() {
    rewritten_and_unlogged(18);
}
