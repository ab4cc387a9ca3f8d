//! What transactions did, compared with what the server was told to do, on every major, and with what its own
//! `pg_waldump` reads in the same segments, where that major has one.

mod told;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pitr::repository::wal_archive::WalContent;
use pitr::types::{Lsn, SegmentName, SegmentSize, WalFileName};
use pitr::wal::{Activity, FileNode, Joined, SegmentScanner};

use super::waldump::{Line, assert_agrees, waldump};
use super::{scan_bytes, segments, stem};
use crate::support::{Server, StopMode, TestDir, all_majors, distribution_major};

/// What a summary may take, so that one small read brings it: see `wal_archive::object`.
const FIRST_READ: usize = 16 << 10;

/// Every transaction that ended, put together from its parts in all segments.
fn ended(files: &BTreeMap<WalFileName, PathBuf>, size: SegmentSize) -> Vec<Activity> {
    let mut open: BTreeMap<u32, Activity> = BTreeMap::new();
    let mut whole = Vec::new();
    let files: Vec<_> = files.iter().collect();
    for (at, (name, path)) in files.iter().enumerate() {
        let mut scanner = SegmentScanner::detailed(stem(**name), size);
        let mut parts = Vec::new();
        for piece in std::fs::read(path).unwrap().chunks(100_003) {
            scanner.push(piece);
            parts.extend(scanner.drain());
        }
        if let Some((_, next)) = files.get(at + 1) {
            scanner.finish_split(&std::fs::read(next).unwrap());
        }
        let scan = scanner.finish();
        assert_eq!(scan.activities_left_out, 0, "{name}");
        for part in parts.into_iter().chain(scan.activities) {
            let Some(end) = part.end.clone() else {
                open.entry(part.xid).or_default().absorb(part);
                continue;
            };
            let mut all = Activity { xid: part.xid, ..Activity::default() };
            let own = std::iter::once(part.xid).chain(end.subtransactions);
            own.filter_map(|xid| open.remove(&xid)).for_each(|earlier| all.absorb(earlier));
            all.absorb(part);
            whole.push(all);
        }
    }
    whole
}

/// All that is asked of a run: which server, and how its WAL is written.
struct Run<'r> {
    major: u32,
    segment_mib: u64,
    settings: &'r [(&'r str, &'r str)],
}

/// What the server was told to do.
struct Truth {
    /// Of a transaction: its number, a table's file, rows deleted and updated in it.
    rows: Vec<(&'static str, u32, FileNode, u64, u64)>,
    /// Of a table: the files that went, its OID, whether the table went with them, and whether another file
    /// took its place, and with rows in it.
    files: Vec<(&'static str, FileNode, u32, Fate)>,
    database: u32,
    truncated: Vec<u32>,
    rolled_back: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Dropped,
    Emptied,
    Rewritten,
}

fn transaction(server: &Server, statements: &str, end: &str) -> u32 {
    let said = server.sql(&format!("BEGIN; {statements}; SELECT 'xid ' || pg_current_xact_id(); {end};"));
    said.lines().find_map(|line| line.strip_prefix("xid ")).unwrap().parse().unwrap()
}

fn file(server: &Server, table: &str) -> FileNode {
    let said = server.sql(&format!(
        "SELECT d.oid, pg_relation_filenode('{table}') FROM pg_database d WHERE datname = current_database()"
    ));
    let (database, number) = said.split_once('|').unwrap();
    FileNode { tablespace: 1663, database: database.parse().unwrap(), number: number.parse().unwrap() }
}

fn work(server: &mut Server, logical: bool) -> Truth {
    server.sql(
        "CREATE TABLE t (id int PRIMARY KEY, v text);
         INSERT INTO t SELECT i, repeat(md5(i::text), 2) FROM generate_series(1, 12000) i;
         CREATE TABLE p (id int, v int) PARTITION BY LIST (v);
         CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1);
         CREATE TABLE p2 PARTITION OF p FOR VALUES IN (2);
         INSERT INTO p SELECT i, 1 FROM generate_series(1, 50) i;
         CREATE DATABASE gone;",
    );
    for table in ["dropped", "emptied", "vacuumed", "clustered", "altered", "reindexed", "later"] {
        server.sql(&format!(
            "CREATE TABLE {table} (id int CONSTRAINT {table}_key PRIMARY KEY, v text);
             INSERT INTO {table} SELECT i, repeat('v', 60) FROM generate_series(1, 500) i;"
        ));
    }
    let oid = |table: &str| server.sql(&format!("SELECT '{table}'::regclass::oid")).parse::<u32>().unwrap();
    let t = file(server, "t");
    let mut rows = Vec::new();
    server.sql("CHECKPOINT");
    let xid = transaction(server, "UPDATE t SET v = 'short' WHERE id <= 9000", "COMMIT");
    rows.push(("an update of many", xid, t, 0, 9000));
    let xid = transaction(server, "DELETE FROM t WHERE id <= 8000", "COMMIT");
    rows.push(("a delete of many", xid, t, 8000, 0));
    let xid = transaction(
        server,
        "DELETE FROM t WHERE id BETWEEN 8001 AND 8010; SAVEPOINT a; DELETE FROM t WHERE id BETWEEN 8011 AND 8040;
         ROLLBACK TO a; SAVEPOINT b; DELETE FROM t WHERE id BETWEEN 8041 AND 8060; SAVEPOINT c;
         UPDATE t SET v = 'c' WHERE id BETWEEN 8061 AND 8065",
        "COMMIT",
    );
    rows.push(("subtransactions, one rolled back", xid, t, 30, 5));
    let xid = transaction(server, "UPDATE p SET v = 2 WHERE id <= 40", "COMMIT");
    rows.push(("rows that move to another partition", xid, file(server, "p1"), 0, 40));
    let rolled_back = transaction(server, "DELETE FROM t", "ROLLBACK");
    let xid = transaction(
        server,
        "DELETE FROM t WHERE id BETWEEN 8101 AND 8150; SAVEPOINT d; DELETE FROM t WHERE id BETWEEN 8151 AND 8160",
        "PREPARE TRANSACTION 'p'; SELECT pg_switch_wal(); INSERT INTO t VALUES (-1);
         SELECT pg_switch_wal(); COMMIT PREPARED 'p'",
    );
    rows.push(("a prepared one over a border of segments", xid, t, 60, 0));

    let mut files = Vec::new();
    let mut note = |what, table: &str, fate| files.push((what, file(server, table), oid(table), fate));
    note("DROP TABLE", "dropped", Fate::Dropped);
    note("TRUNCATE", "emptied", Fate::Emptied);
    note("VACUUM FULL", "vacuumed", Fate::Rewritten);
    note("CLUSTER", "clustered", Fate::Rewritten);
    note("ALTER TABLE", "altered", Fate::Rewritten);
    note("REINDEX", "reindexed_key", Fate::Rewritten);
    note("a prepared DROP TABLE", "later", Fate::Dropped);
    let database = server.sql("SELECT oid FROM pg_database WHERE datname = 'gone'").parse().unwrap();
    let truncated = if logical { vec![oid("emptied")] } else { Vec::new() };
    for statement in [
        "DROP TABLE dropped",
        "TRUNCATE emptied",
        "VACUUM FULL vacuumed",
        "CLUSTER clustered USING clustered_key",
        "ALTER TABLE altered ALTER id TYPE bigint",
        "REINDEX TABLE reindexed",
        "DROP DATABASE gone",
        "BEGIN; DROP TABLE later; PREPARE TRANSACTION 'later'; SELECT pg_switch_wal(); COMMIT PREPARED 'later'",
        "VACUUM t",
    ] {
        server.sql(statement);
    }
    Truth { rows, files, database, truncated, rolled_back }
}

fn check(run: &Run<'_>) {
    let major = run.major;
    let dir = TestDir::new();
    let archive = dir.create_dir("archive");
    let logical = run.settings.contains(&("wal_level", "logical"));
    let mut builder = Server::build(&dir, "primary")
        .major(major)
        .initdb(&format!("--wal-segsize={}", run.segment_mib))
        .archive_command(&format!("cp %p {}/%f", archive.display()))
        .set("max_prepared_transactions", "7")
        .set("autovacuum", "off");
    for (name, value) in run.settings {
        builder = builder.set(name, value);
    }
    let mut server = builder.start();
    server.append_setting("max_connections", "41");
    server.restart();
    let truth = work(&mut server, logical);
    server.archive_now();
    server.stop(StopMode::Fast);

    let size = SegmentSize::new(run.segment_mib << 20).unwrap();
    let files = segments(&archive);
    let ended = ended(&files, size);
    assert_truth(&truth, &ended, major);
    let names: Vec<SegmentName> = files.keys().copied().map(stem).collect();
    let lines = server
        .installation()
        .has_program("pg_waldump")
        .then(|| waldump(server.installation(), &archive, names[0], *names.last().unwrap()));
    if let Some(lines) = &lines {
        assert_as_told(&told::told(lines), &ended, major);
    }
    assert_summaries(&files, size, &ended, lines.as_deref(), major);
}

fn assert_truth(truth: &Truth, ended: &[Activity], major: u32) {
    let of = |xid: u32| {
        let found: Vec<_> = ended.iter().filter(|a| a.xid == xid).collect();
        assert_eq!(found.len(), 1, "{xid} of {major}: {found:?}");
        found[0]
    };
    for (what, xid, file, deleted, updated) in &truth.rows {
        let activity = of(*xid);
        assert!(activity.end.as_ref().unwrap().commit, "{what} of {major}");
        let rows =
            activity.rows.iter().find(|r| r.file == *file).unwrap_or_else(|| panic!("{what} of {major}"));
        assert_eq!((rows.deleted, rows.updated), (*deleted, *updated), "{what} of {major}");
    }
    assert!(!of(truth.rolled_back).end.as_ref().unwrap().commit, "{major}");
    for (what, file, oid, fate) in &truth.files {
        let dropping =
            |a: &&Activity| a.end.as_ref().is_some_and(|end| end.commit && end.dropped.contains(file));
        let found: Vec<_> = ended.iter().filter(dropping).collect();
        assert_eq!(found.len(), 1, "{what} of {major}: {found:?}");
        let end = found[0].end.as_ref().unwrap();
        let created = &found[0].created;
        let relation = (file.database, *oid);
        assert!(end.invalidated.contains(&relation), "{what} of {major}: {end:?}");
        // What tells a dropped table from one with a new file.
        if major >= 15 {
            let gone = end.dropped_stats.contains(&relation);
            assert_eq!(gone, *fate == Fate::Dropped, "{what} of {major}: {end:?}");
        }
        assert_eq!(created.is_empty(), *fate == Fate::Dropped, "{what} of {major}: {created:?}");
        if *fate == Fate::Emptied {
            assert!(created.iter().any(|c| c.written == 0), "{what} of {major}: {created:?}");
        } else if *fate == Fate::Rewritten {
            // A table's TOAST table is rewritten too, and may be empty.
            assert!(created.iter().any(|c| c.written > 0), "{what} of {major}: {created:?}");
        }
    }
    let dropped: Vec<_> = ended.iter().filter(|a| a.dropped_database.is_some()).collect();
    assert_eq!(dropped.len(), 1, "{major}: {dropped:?}");
    let database = dropped[0].dropped_database.unwrap();
    assert_eq!(database.database, truth.database, "{major}");
    // The releases of 2023 and later mark a database as invalid, in place, before they touch its files.
    assert!(
        dropped[0].before_in_place.is_some_and(|before| before < database.previous),
        "{major}: {dropped:?}"
    );
    let truncated: Vec<u32> = ended.iter().flat_map(|a| a.truncated.iter().map(|(_, oid)| *oid)).collect();
    assert_eq!(truncated, truth.truncated, "{major}");
}

/// Everything that ended, and nothing else, did what the server's own tool says.
fn assert_as_told(told: &BTreeMap<(u32, Lsn), told::Told>, ended: &[Activity], major: u32) {
    let ours: BTreeMap<(u32, Lsn), told::Told> = ended
        .iter()
        .map(|activity| {
            let end = activity.end.clone().unwrap();
            assert_eq!(end.left_out, 0, "{major}");
            let told = told::Told {
                prev: end.previous,
                commit: end.commit,
                time: end.time.to_string().replace("+00", " UTC"),
                subtransactions: end.subtransactions.into_iter().collect(),
                dropped: end.dropped.into_iter().collect(),
                dropped_stats: end.dropped_stats.into_iter().collect(),
                invalidated: end.invalidated.into_iter().map(|(_, oid)| oid).collect(),
                rows: activity.rows.iter().map(|r| (r.file, (r.deleted, r.updated))).collect(),
                created: activity.created.iter().map(|c| c.file).collect(),
                database: activity.dropped_database.map(|d| (d.database, d.lsn)),
            };
            ((activity.xid, end.lsn), told)
        })
        .collect();
    assert_eq!(ours.keys().collect::<Vec<_>>(), told.keys().collect::<Vec<_>>(), "{major}");
    for (which, told) in told {
        assert_eq!(&ours[which], told, "{which:?} of {major}");
    }
}

/// The summaries name what is worth it, are small, and say what the whole scan says.
fn assert_summaries(
    files: &BTreeMap<WalFileName, PathBuf>,
    size: SegmentSize,
    ended: &[Activity],
    lines: Option<&[Line]>,
    major: u32,
) {
    let mut before: Option<WalContent> = None;
    let (mut listed, mut joined, mut borders) = (0, 0, 0);
    let mut settings = Vec::new();
    for (name, path) in files {
        let name = stem(*name);
        let scan = scan_bytes(name, &read(path));
        let number = name.number(size).unwrap();
        if let Some(lines) = lines {
            let own: Vec<Line> = lines.iter().filter(|l| size.number_of(l.lsn) == number).cloned().collect();
            assert_agrees(&scan, &own, false);
        }
        let content = WalContent::from(&scan);
        let length = serde_json::to_vec(&content).unwrap().len();
        assert!(length < FIRST_READ, "{length} bytes of summary for {name} of {major}");
        settings.extend(content.parameters.iter().map(|p| p.max_connections));
        let activities = content.activity.as_ref().unwrap();
        let unfinished = content.unfinished.as_ref().map(|u| u.lsn);
        for whole in ended {
            let end = whole.end.as_ref().unwrap();
            if size.number_of(end.lsn) != number || Some(end.lsn) == unfinished || !end.commit {
                continue;
            }
            if end.dropped.is_empty() && whole.dropped_database.is_none() {
                continue;
            }
            let here = activities.iter().find(|a| a.xid == whole.xid);
            let Some(here) = here else {
                assert!(content.activity_left_out > 0, "{} is not in {name} of {major}", whole.xid);
                continue;
            };
            assert_eq!(here.end.as_ref().unwrap(), end, "{name} of {major}");
            listed += 1;
        }
        if let Some(before) = &before
            && let (Some(start), Some(rest)) = (&before.unfinished, &content.rest)
        {
            assert_eq!(start.is_intact_with(rest), Some(true), "over the border to {name} of {major}");
            borders += 1;
        }
        if let Some(before) = &before
            && let (Some(start), Some(rest)) = (&before.unfinished, &content.rest)
            && let Joined::Activity(activity) = start.join(rest, content.magic().unwrap())
        {
            joined += 1;
            if let Some(end) = activity.end {
                let whole = ended.iter().find(|a| a.end.as_ref().is_some_and(|e| e.lsn == end.lsn));
                assert_eq!(
                    whole.and_then(|a| a.end.as_ref()),
                    Some(&end),
                    "over the border to {name} of {major}"
                );
            }
        }
        before = Some(content);
    }
    assert!(listed >= 7, "{listed} of {major}");
    assert_eq!(settings.last(), Some(&41), "{major}");
    // Most borders lie within the deletion or change of a row.
    assert!(size.bytes() > 1 << 20 || joined > 0, "{major}");
    assert!(borders >= joined, "{major}");
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

#[test]
fn what_transactions_did_is_what_they_were_told_to_do_on_every_major() {
    for major in all_majors() {
        check(&Run { major, segment_mib: 1, settings: &[] });
    }
}

#[test]
fn what_transactions_did_is_told_alike_for_logical_decoding_and_with_compressed_pages() {
    let settings = [("wal_level", "logical"), ("wal_compression", "on")];
    for (major, segment_mib) in [(13, 1), (distribution_major(), 64), (18, 1)] {
        check(&Run { major, segment_mib, settings: &settings });
    }
}

#[test]
fn what_transactions_did_is_told_alike_with_every_way_to_compress_pages() {
    for method in ["pglz", "lz4", "zstd"] {
        let settings = [("wal_compression", method)];
        check(&Run { major: distribution_major(), segment_mib: 1, settings: &settings });
    }
}
