//! Segments and control files of every major, compared with what their own server and `pg_controldata` say of them.

use pitr::pgdata::control_file::ControlFile;
use pitr::types::{SegmentName, SegmentSize};

use super::waldump::{Line, assert_agrees, waldump};
use super::{scan_bytes, segments, stem};
use crate::support::{Server, StopMode, TestDir, all_majors};

/// The majors out of npm have no `pg_waldump`: there the server itself is asked, by SQL.
#[test]
fn segments_and_control_files_of_every_major_read_as_their_server_says() {
    for major in all_majors() {
        let dir = TestDir::new();
        let archive = dir.create_dir("archive");
        let mut server = Server::build(&dir, "primary")
            .major(major)
            .initdb("--wal-segsize=1")
            .archive_command(&format!("cp %p {}/%f", archive.display()))
            .set("max_prepared_transactions", "7")
            .set("max_connections", "33")
            .set("autovacuum", "off")
            .start();
        server.sql(
            "CREATE TABLE t (id int PRIMARY KEY, v text);
             INSERT INTO t SELECT i, repeat(md5(i::text), 8) FROM generate_series(1, 10000) i;
             CREATE TABLE gone (id int PRIMARY KEY, v text);
             SELECT FROM pg_logical_emit_message(false, 'big', repeat('y', 3000000));
             CHECKPOINT;",
        );
        let xid = server.sql(
            "SELECT FROM pg_switch_wal();
             BEGIN; SAVEPOINT a; INSERT INTO t VALUES (-1); SAVEPOINT b; DROP TABLE gone; CREATE TABLE n (i int);
             SELECT pg_current_xact_id(); PREPARE TRANSACTION 'p'; COMMIT PREPARED 'p';",
        );
        let last = server.archive_now();
        // The newest checkpoint is one that the scanner has in its archive, and nothing is written behind our back.
        server.sql("CHECKPOINT");
        let control = ControlFile::parse(&std::fs::read(server.file(ControlFile::PATH)).unwrap()).unwrap();
        let expected = server.sql(
            "SELECT system_identifier, pg_control_version, catalog_version_no, checkpoint_lsn, redo_lsn, timeline_id,
                    extract(epoch FROM checkpoint_time)::bigint, database_block_size, wal_block_size,
                    bytes_per_wal_segment, data_page_checksum_version, current_setting('max_prepared_transactions'),
                    current_setting('max_connections'), min_recovery_end_lsn, backup_start_lsn
             FROM pg_control_system(), pg_control_checkpoint(), pg_control_init(), pg_control_recovery()",
        );
        let found = [
            control.system_id.to_string(),
            control.control_version.to_string(),
            control.catalog_version.to_string(),
            control.checkpoint.to_string(),
            control.redo.to_string(),
            control.timeline.to_string(),
            control.checkpoint_time.0.as_second().to_string(),
            control.block_size.to_string(),
            control.wal_block_size.to_string(),
            control.segment_size.bytes().to_string(),
            control.data_checksums.to_string(),
            control.max_prepared_transactions.to_string(),
            control.max_connections.to_string(),
            control.min_recovery_point.to_string(),
            control.backup_start.to_string(),
        ];
        assert_eq!(found.join("|"), expected, "pg_control of {major}");
        assert_eq!(u32::from(control.major), major);
        server.stop(StopMode::Fast);

        let size = SegmentSize::new(1 << 20).unwrap();
        let files = segments(&archive);
        let names: Vec<SegmentName> = files.keys().copied().map(stem).collect();
        let lines = server
            .installation()
            .has_program("pg_waldump")
            .then(|| waldump(server.installation(), &archive, names[0], *names.last().unwrap()));
        let mut checkpoints = Vec::new();
        for (name, path) in &files {
            let scan = scan_bytes(stem(*name), &std::fs::read(path).unwrap());
            assert_eq!((scan.problem, scan.damage), (None, None), "{name} of {major}");
            let header = scan.header.unwrap();
            assert_eq!((header.magic.major(), header.system_id), (Some(control.major), control.system_id));
            if name.to_string() == last {
                assert_eq!(
                    scan.last_transaction.unwrap().xid.to_string(),
                    xid,
                    "the prepared one of {major}"
                );
                assert_eq!(scan.restore_points.last().unwrap().name, "switch");
            }
            if let Some(lines) = &lines {
                let number = stem(*name).number(size).unwrap();
                let own: Vec<Line> =
                    lines.iter().filter(|l| size.number_of(l.lsn) == number).cloned().collect();
                assert_agrees(&scan, &own, false);
            }
            checkpoints.extend(scan.checkpoints);
        }
        assert!(files.len() > 4, "{} of {major}", files.len());
        let last = checkpoints.last().unwrap();
        let age = control.checkpoint_time.0.as_second() - last.time.0.as_second();
        assert!((0..60).contains(&age), "the checkpoint's time of {major}: {last:?}");
    }
}

#[test]
fn the_control_file_reads_as_pg_controldata_reads_it() {
    let dir = TestDir::new();
    let mut server = Server::build(&dir, "primary")
        .initdb("--wal-segsize=4")
        .initdb("--data-checksums")
        .set("max_connections", "37")
        .set("max_worker_processes", "9")
        .set("max_prepared_transactions", "5")
        .set("max_locks_per_transaction", "70")
        .start();
    server.sql("CHECKPOINT");
    server.stop(StopMode::Fast);
    let mut command = server.account().command(server.installation().program("pg_controldata"));
    let output = command.env("TZ", "UTC").arg("-D").arg(&server.data).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(&format!("{name}:")));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).split_once(':').unwrap().1.trim().to_owned()
    };
    let control = ControlFile::parse(&std::fs::read(server.file(ControlFile::PATH)).unwrap()).unwrap();
    assert_eq!(u32::from(control.major), server.major);
    assert!(control.state.is_shut_down());
    for (ours, theirs) in [
        (control.system_id.to_string(), "Database system identifier"),
        (control.control_version.to_string(), "pg_control version number"),
        (control.catalog_version.to_string(), "Catalog version number"),
        (control.checkpoint.to_string(), "Latest checkpoint location"),
        (control.redo.to_string(), "Latest checkpoint's REDO location"),
        (control.timeline.to_string(), "Latest checkpoint's TimeLineID"),
        (control.previous_timeline.to_string(), "Latest checkpoint's PrevTimeLineID"),
        (control.min_recovery_point.to_string(), "Minimum recovery ending location"),
        (control.min_recovery_timeline.to_string(), "Min recovery ending loc's timeline"),
        (control.backup_start.to_string(), "Backup start location"),
        (control.max_connections.to_string(), "max_connections setting"),
        (control.max_worker_processes.to_string(), "max_worker_processes setting"),
        (control.max_wal_senders.to_string(), "max_wal_senders setting"),
        (control.max_prepared_transactions.to_string(), "max_prepared_xacts setting"),
        (control.max_locks_per_transaction.to_string(), "max_locks_per_xact setting"),
        (control.block_size.to_string(), "Database block size"),
        (control.wal_block_size.to_string(), "WAL block size"),
        (control.segment_size.bytes().to_string(), "Bytes per WAL segment"),
        (control.data_checksums.to_string(), "Data page checksum version"),
    ] {
        assert_eq!(ours, field(theirs), "{theirs}");
    }
    let time = control.checkpoint_time.0.strftime("%a %b %e %H:%M:%S %Y").to_string();
    assert_eq!(
        time.replace("  ", " "),
        field("Time of latest checkpoint").replace(" UTC", "").replace("  ", " ")
    );
}
