//! Every kind of accident, told apart, and undone.

use super::{archiving, events, restored, short};
use crate::support::{Installation, Server, StopMode, TestDir};

/// Accident after accident, and what is told of each; with how the object is seen to be whole again.
struct Accident {
    sql: &'static str,
    told: &'static [&'static str],
    /// A query, and what it answers just before the accident.
    whole: (&'static str, &'static str),
}

const ACCIDENTS: &[Accident] = &[
    Accident {
        sql: "DROP TABLE shop.a CASCADE",
        told: &["drop shop.a", "drop materialized view public.mv"],
        whole: ("SELECT (SELECT count(*) FROM shop.a), (SELECT count(*) FROM mv)", "1000|1000"),
    },
    Accident {
        sql: "TRUNCATE shop.b",
        told: &["truncate shop.b"],
        whole: ("SELECT count(*) FROM shop.b", "1000"),
    },
    Accident {
        sql: "DELETE FROM shop.c WHERE i <= 500",
        told: &["delete shop.c 500"],
        whole: ("SELECT count(*) FROM shop.c", "1000"),
    },
    Accident {
        sql: "UPDATE shop.c SET t = 'x' WHERE i > 600",
        told: &["update shop.c 400"],
        whole: ("SELECT count(*), count(*) FILTER (WHERE t = 'x') FROM shop.c", "500|0"),
    },
    Accident {
        sql: "VACUUM FULL shop.d",
        told: &["rewrite shop.d"],
        whole: ("SELECT count(*) FROM shop.d", "1000"),
    },
    Accident {
        sql: "REINDEX TABLE shop.d",
        told: &["rewrite index shop.d_pkey"],
        whole: ("SELECT count(*) FROM shop.d", "1000"),
    },
    // Its file is in no catalogue any more: the WAL itself has told whose it is.
    Accident {
        sql: "DELETE FROM shop.d WHERE i > 900",
        told: &["delete shop.d 100"],
        whole: ("SELECT count(*) FROM shop.d", "1000"),
    },
    Accident {
        sql: "ALTER TABLE shop.e ALTER i TYPE bigint",
        told: &["rewrite shop.e"],
        whole: ("SELECT pg_typeof(i), count(*) FROM shop.e GROUP BY 1", "integer|1000"),
    },
    Accident { sql: "DROP DATABASE gone", told: &["drop-database gone"], whole: ("SELECT 1", "1") },
    Accident {
        sql: "SELECT pg_create_restore_point('here')",
        told: &["restore-point here"],
        whole: ("SELECT 1", "1"),
    },
    Accident {
        sql: "ALTER TABLE shop.f DROP CONSTRAINT f_pkey",
        told: &["drop index shop.f_pkey"],
        whole: ("SELECT count(*) FROM pg_indexes WHERE indexname = 'f_pkey'", "1"),
    },
    Accident {
        sql: "DROP SEQUENCE sq",
        told: &["drop sequence public.sq"],
        whole: ("SELECT last_value FROM sq", "7"),
    },
    Accident {
        sql: "TRUNCATE shop.g, shop.f",
        told: &["truncate shop.f", "truncate shop.g"],
        whole: ("SELECT (SELECT count(*) FROM shop.f), (SELECT count(*) FROM shop.g)", "1000|1000"),
    },
    Accident {
        sql: "DROP SCHEMA shop CASCADE",
        told: &["drop shop.b", "drop shop.c", "drop shop.d", "drop shop.e", "drop shop.f", "drop shop.g"],
        whole: ("SELECT (SELECT count(*) FROM shop.c), (SELECT count(*) FROM shop.d)", "500|900"),
    },
];

fn every_kind(major: u32) {
    let dir = TestDir::new();
    let (mut server, pitr) = archiving(&dir, major, &[]);
    server.sql("CREATE SCHEMA shop; CREATE SEQUENCE sq; SELECT setval('sq', 7);");
    for table in ["a", "b", "c", "d", "e", "f", "g"] {
        server.sql(&format!(
            "CREATE TABLE shop.{table} (i int PRIMARY KEY, t text);
             INSERT INTO shop.{table} SELECT i, 'row ' || i FROM generate_series(1, 1000) i;"
        ));
    }
    server.sql("CREATE MATERIALIZED VIEW mv AS SELECT * FROM shop.a");
    server.sql("CREATE DATABASE gone");
    server.psql_at(
        &server.conninfo().replace("dbname=postgres", "dbname=gone"),
        "CREATE TABLE inside AS SELECT 42 i",
    );
    drop(pitr.ok(["backup", "--wal=archive"]));
    let mut expected = Vec::new();
    for accident in ACCIDENTS {
        // What is nobody's accident in between: temporary and new tables, churn of the catalogues, small changes.
        server.sql("CREATE TEMP TABLE passing AS SELECT 1; DROP TABLE passing; CREATE TABLE new (i int); INSERT INTO new VALUES (1); DELETE FROM new; ANALYZE;");
        server.sql("BEGIN; CREATE TABLE brief (i int); INSERT INTO brief SELECT generate_series(1, 500); DELETE FROM brief; DROP TABLE brief; COMMIT;");
        server.sql("BEGIN; DELETE FROM new; ROLLBACK; ALTER TABLE new RENAME TO renamed; ALTER TABLE renamed RENAME TO old;");
        server.sql("BEGIN; DROP TABLE old; ROLLBACK; ALTER TABLE old RENAME TO kept_1; CREATE TABLE IF NOT EXISTS kept (i int); DROP TABLE kept; ALTER TABLE kept_1 RENAME TO kept_2; SELECT 1;");
        server.sql("DROP TABLE kept_2");
        server.sql(accident.sql);
        expected.extend(accident.told.iter().map(|text| (*text).to_owned()));
    }
    server.archive_now();
    server.stop(StopMode::Fast);

    let all = events(&pitr, &[]);
    let named: Vec<_> = all
        .iter()
        .filter(|e| e["kind"] != "drop" || !e["object"].as_str().unwrap().contains("file"))
        .filter(|e| e["object"] != "switch")
        .cloned()
        .collect();
    assert_eq!(short(&named), expected, "{all:#?}");
    // Tables that were made after the backup have no name anywhere: numbers, and nothing is guessed.
    let unnamed =
        all.iter().filter(|e| e["kind"] == "drop" && e["object"].as_str().unwrap().contains("file ")).count();
    assert_eq!(unnamed, 2 * ACCIDENTS.len(), "{:?}", short(&all));

    for (number, accident) in ACCIDENTS.iter().enumerate() {
        let event = named.iter().find(|e| short(std::slice::from_ref(e)) == [accident.told[0]]).unwrap();
        let lsn = event["restore_before"]["value"].as_str().unwrap();
        let id = event["id"].as_str().unwrap();
        // By the target that is shown, and by the event's id.
        let target = if number % 2 == 0 { ["--target-lsn", lsn] } else { ["--before", id] };
        let mut copy = restored(&dir, &pitr, major, &format!("copy{number}"), &target);
        let (query, answer) = accident.whole;
        assert_eq!(copy.sql(query), answer, "just before {}", accident.sql);
        if accident.sql == "DROP DATABASE gone" {
            let to = copy.conninfo().replace("dbname=postgres", "dbname=gone");
            assert_eq!(copy.psql_at(&to, "SELECT i FROM inside"), "42", "it can be connected to");
            // The commit of it is the same moment.
            let commits = events(&pitr, &["--kind", "commit"]);
            let commit = commits.iter().find(|commit| commit["xid"] == event["xid"]).unwrap();
            assert_eq!(commit["restore_before"], event["restore_before"]);
            // Its own first step is not undone by stopping before its commit: who asks for that is told so.
            let to = dir.path().join("half").display().to_string();
            let xid = event["xid"].to_string();
            let plan = pitr.ok(["restore", "--to", &to, "--plan", "--target-xid", &xid, "--exclusive"]);
            let told = format!("--target-lsn {lsn} stops before it began");
            assert!(plan.contains("in the midst of the DROP DATABASE"), "{plan:?}");
            assert!(plan.contains(&told), "{plan:?}");
            let plan = pitr.ok(["restore", "--to", &to, "--plan", "--target-lsn", lsn]);
            assert!(!plan.contains("in the midst"), "{plan:?}");
        }
        copy.stop(StopMode::Immediate);
        std::fs::remove_dir_all(&copy.data).unwrap();
    }
}

#[test]
fn every_kind_is_told_apart_and_undone_on_15() {
    every_kind(15);
}

#[test]
fn every_kind_is_told_apart_and_undone_before_commits_list_dropped_relations() {
    every_kind(13);
}

#[test]
fn every_kind_is_told_apart_and_undone_on_18() {
    every_kind(18);
}

/// What `pg_waldump` says: position, transaction and time of commits.
fn waldump(server: &Server, segment: &str) -> Vec<(String, u64, String)> {
    let program = Installation::of(server.major).program("pg_waldump");
    let output = std::process::Command::new(program)
        .args(["-r", "Transaction", "-p"])
        .arg(server.data.join("pg_wal"))
        .arg(segment)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let commits = text.lines().filter(|line| line.contains("desc: COMMIT"));
    commits
        .map(|line| {
            let field =
                |name: &str| line.split_once(name).unwrap().1.trim_start().split([',', ';']).next().unwrap();
            let (high, low) = field("lsn:").split_once('/').unwrap();
            let number = |hex: &str| u64::from_str_radix(hex, 16).unwrap();
            let time =
                field(if line.contains("COMMIT_PREPARED") { "COMMIT_PREPARED" } else { "desc: COMMIT" });
            let time = time.split_once(": ").map_or(time, |(_, time)| time).trim_end_matches(" UTC");
            (
                format!("{:X}/{:X}", number(high), number(low)),
                field("tx:").parse().unwrap(),
                time.replace(' ', "T"),
            )
        })
        .collect()
}

#[test]
fn commits_are_those_that_pg_waldump_shows() {
    let dir = TestDir::new();
    let (server, pitr) = archiving(&dir, 15, &[("timezone", "UTC")]);
    server.sql("CREATE TABLE t (i int)");
    for _ in 0..40 {
        server.sql("INSERT INTO t SELECT generate_series(1, 50)");
    }
    let segment = server.switch_wal();
    server.sql("SELECT 1");
    let expected = waldump(&server, &segment);
    server.archive_now();
    let commits = events(&pitr, &["--kind", "commit"]);
    let found: Vec<_> = commits
        .iter()
        .map(|e| {
            let time = e["time"].as_str().unwrap().trim_end_matches('Z').to_owned();
            (e["lsn"].as_str().unwrap().to_owned(), e["xid"].as_u64().unwrap(), time)
        })
        .collect();
    assert!(expected.len() > 20, "{expected:?}");
    let times = |list: &[(String, u64, String)]| -> Vec<_> {
        // Trailing zeros of a fraction are written by the one and not by the other.
        list.iter()
            .map(|(lsn, xid, time)| (lsn.clone(), *xid, time.trim_end_matches('0').to_owned()))
            .collect()
    };
    let found = times(&found);
    for commit in times(&expected) {
        assert!(found.contains(&commit), "{commit:?} is not among {found:?}");
    }
}

#[test]
fn an_event_that_is_not_there_is_refused_with_what_is() {
    let dir = TestDir::new();
    let (server, pitr) = archiving(&dir, 15, &[]);
    server.sql("CREATE TABLE t AS SELECT generate_series(1, 10) i");
    drop(pitr.ok(["backup", "--wal=archive"]));
    server.sql("DROP TABLE t");
    server.archive_now();
    let drops = events(&pitr, &["--kind", "drop"]);
    let id = drops[0]["id"].as_str().unwrap();
    let wrong = format!("{}8", &id[..id.len() - 1]);
    let wrong = if wrong == id { format!("{}0", &id[..id.len() - 1]) } else { wrong };
    let to = format!("--to={}", dir.join("copy").display());
    let refused = pitr.run(["restore", &to, "--before", &wrong]);
    refused.expect_code(1);
    refused.expect_said("is not in the archive");
    refused.expect_said(&format!("(--before {id})"));
    assert!(!dir.join("copy").exists());
    let absent = pitr.run(["restore", &to, "--before", &format!("{id}-9")]);
    absent.expect_code(1);
    absent.expect_said(&format!("(--before {id})"));
    for wrong in ["7", "0/3000028", ""] {
        pitr.run(["restore", &to, "--before", wrong]).expect_code(2);
    }
    pitr.run(["restore", &to, "--before", id, "--target-xid", "7"]).expect_code(2);
    pitr.run(["restore", &to, "--before", id, "--exclusive"]).expect_code(2);
    let plan = pitr.run(["restore", &to, "--before", id, "--plan"]);
    plan.expect_code(0);
    assert!(plan.stdout.contains(&format!("event {id}: DROP public.t (xid ")), "{}", plan.stdout);
    assert!(!dir.join("copy").exists());
}

/// Keys of one event, exactly.
#[test]
fn an_event_has_the_fields_that_the_manual_names() {
    let dir = TestDir::new();
    let (server, pitr) = archiving(&dir, 15, &[]);
    assert_eq!(pitr.run(["events", "--json"]).code, Some(1), "there is no cluster yet");
    server.sql("CREATE TABLE t AS SELECT generate_series(1, 300) i");
    drop(pitr.ok(["backup", "--wal=archive"]));
    server.sql("DELETE FROM t");
    server.archive_now();
    let events = events(&pitr, &["--kind", "delete"]);
    let [event] = &events[..] else { panic!("{events:#?}") };
    let mut keys: Vec<_> = event.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(
        keys,
        ["database", "id", "kind", "lsn", "object", "restore_before", "rows", "time", "timeline", "xid"]
    );
    let before = event["restore_before"].as_object().unwrap();
    assert_eq!(before.keys().collect::<Vec<_>>(), ["target", "value"]);
    assert_eq!(
        (&event["database"], &event["rows"], &event["timeline"]),
        (&"postgres".into(), &300.into(), &1.into())
    );
    let text = pitr.ok(["events", "--kind", "delete"]);
    for part in
        ["  xid ", "DELETE public.t in database postgres: 300 rows; restore just before: --target-lsn 0/"]
    {
        assert!(text.contains(part), "{text}");
    }
}
