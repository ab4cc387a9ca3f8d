//! 13 to 18, from a primary and from its standby, with a tablespace, with the archiver's WAL and with their own.

use pitr::repository::backup_set::format::{IndexLine, Source, Status, WalMode};
use pitr::repository::layout::{Epoch, EpochLayout};
use pitr::storage::{FsStorage, Storage};

use super::{listed, no_traces, restore_by_hand, started, take, verify};
use crate::support::{Pitr, Server, TestDir, all_majors};

#[test]
fn a_backup_of_every_major_is_the_cluster_and_starts() {
    for major in all_majors() {
        let dir = TestDir::new();
        dir.create_dir("repo");
        let pitr = Pitr::new(&dir);
        let server = Server::build(&dir, "primary")
            .major(major)
            .archive_command(&pitr.hook("archive-push %p"))
            .start();
        let of_primary = pitr.clone().connecting_to(&server);
        let space = dir.create_dir("space");
        server.sql(&format!(
            "CREATE TABLESPACE s LOCATION '{}'; CREATE TABLE t TABLESPACE s AS SELECT generate_series(1, 300000) i;
             CREATE TABLE u AS SELECT generate_series(1, 300000) i;",
            space.display()
        ));
        let backup = take(
            &of_primary,
            &["--wal=archive", "--label=it's a test", "--annotate=ticket=1", "--annotate=by=a = b"],
        );
        assert_eq!(
            (backup.postgres_major, backup.status, backup.source, backup.wal),
            (major, Status::Complete, Source::Primary, WalMode::Archive)
        );
        assert_eq!((backup.annotations["ticket"].as_str(), &*backup.annotations["by"]), ("1", "a = b"));
        assert_eq!(backup.archives.len(), 2);
        assert!(backup.start_lsn < backup.stop_lsn && backup.start_time <= backup.stop_time);
        assert_eq!(listed(&pitr), (vec![backup.id.to_string()], vec![]));
        the_index_tells_the_truth(&dir, &backup);

        let data = restore_by_hand(&dir.join("repo"), &backup, &dir.join("restored"));
        let label = std::fs::read_to_string(data.join("backup_label")).unwrap();
        assert!(label.contains("LABEL: it's a test\n"), "{label}");
        verify(&server, &data);
        let copy = started(&dir, &pitr, &backup, &data);
        let count = "SELECT (SELECT count(*) FROM t) + (SELECT count(*) FROM u)";
        assert_eq!(copy.sql(count), "600000", "{major}");
        drop(copy);

        // The standby has no room for the primary's tablespace on the same machine: its own server has none.
        drop(server);
        from_a_standby(major);
    }
}

fn the_index_tells_the_truth(dir: &TestDir, backup: &pitr::repository::backup_set::format::Backup) {
    let storage = FsStorage::new(dir.join("repo"));
    let layout = EpochLayout::new(&"main".parse().unwrap(), Epoch(1));
    let index = storage.read(&layout.files(&backup.id)).unwrap().unwrap();
    let lines = pitr::codec::decode_frames(&index, backup.index.size, &backup.index.blake3).unwrap();
    let (mut archive, mut files, mut raw) = (String::new(), 0, 0);
    for line in lines.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
        match serde_json::from_slice(line).unwrap() {
            IndexLine::Archive { name } => archive = name,
            IndexLine::Frame(frame) => {
                let part = layout.part(&backup.id, &archive, frame.part);
                let range = frame.at..frame.at + u64::from(frame.stored);
                let stored = storage.read_range(&part, range).unwrap().unwrap();
                raw += pitr::codec::decode_frame(&stored, frame.raw as usize, frame.proof()).unwrap().len();
            }
            IndexLine::Entry(entry) => files += u64::from(entry.crc32c.is_some()),
        }
    }
    assert_eq!((files, raw as u64), (backup.files, backup.size));
}

/// Both ways to the WAL: the primary is asked to end its segment, or a second connection brings it.
fn from_a_standby(major: u32) {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let pitr = Pitr::new(&dir);
    let primary =
        Server::build(&dir, "primary").major(major).archive_command(&pitr.hook("archive-push %p")).start();
    let mut standby = primary.standby(&dir, "standby");
    standby.start();
    primary.sql("CREATE TABLE t AS SELECT generate_series(1, 100000) i; CHECKPOINT;");
    primary.wait_for_replay(&standby);
    standby.sql("CHECKPOINT");
    let of_standby = pitr.clone().connecting_to(&standby);
    let to_primary = format!("--primary={}", primary.conninfo());
    for (arguments, mode, name) in [
        (vec!["--wal=archive", &to_primary], WalMode::Archive, "archived"),
        (vec!["--wal=include"], WalMode::Include, "included"),
    ] {
        let backup = take(&of_standby, &arguments);
        assert_eq!((backup.source, backup.wal, backup.postgres_major), (Source::Standby, mode, major));
        no_traces(&standby);
        let data = restore_by_hand(&dir.join("repo"), &backup, &dir.join(name));
        verify(&primary, &data);
        if mode == WalMode::Archive {
            let copy = started(&dir, &pitr, &backup, &data);
            assert_eq!(copy.sql("SELECT count(*) FROM t"), "100000", "{major}");
        }
    }
}

#[test]
fn wal_that_is_included_is_all_that_recovery_needs_and_no_slot_stays() {
    for major in all_majors() {
        let dir = TestDir::new();
        let pitr = Pitr::new(&dir);
        let server = Server::build(&dir, "primary").major(major).start();
        server.sql("CREATE TABLE t AS SELECT generate_series(1, 300000) i;");
        // Traffic while the backup runs, so that there is WAL to bring along.
        let mut psql = server.psql();
        let sql = "CREATE TABLE u AS SELECT generate_series(1, 300000) i; SELECT pg_switch_wal()";
        let writing = psql.args(["-c", sql]).stdout(std::process::Stdio::null()).spawn().unwrap();
        let backup = take(&pitr.clone().connecting_to(&server), &["--wal=include"]);
        assert!({ writing }.wait().unwrap().success());
        assert_eq!(backup.wal, WalMode::Include);
        no_traces(&server);
        drop(server);
        let data = restore_by_hand(&dir.join("repo"), &backup, &dir.join("restored"));
        let copy = started(&dir, &pitr, &backup, &data);
        assert_eq!(copy.sql("SELECT count(*) FROM t"), "300000", "{major}");
    }
}
