//! What the WAL reader says of real segments, compared with PostgreSQL's own `pg_waldump`; and that it tells damage from
//! everything that a healthy server leaves behind.

mod activity;
mod damage;
mod every_major;
mod waldump;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pitr::types::{SegmentName, SegmentSize, TimelineId, WalFileName};
use pitr::wal::{Ends, Magic, SegmentScan, SegmentScanner};

use crate::support::{Installation, Server, StopMode, TestDir};
use waldump::{Line, assert_agrees, parse_waldump, waldump};

/// In pieces of a size that fits neither pages nor records.
fn scan_bytes(name: SegmentName, bytes: &[u8]) -> SegmentScan {
    let size = SegmentSize::new(bytes.len() as u64).unwrap();
    let mut scanner = SegmentScanner::new(name, size);
    for piece in bytes.chunks(100_003) {
        scanner.push(piece);
    }
    scanner.finish()
}

/// The segments and partial segments in a directory, in order.
fn segments(directory: &Path) -> BTreeMap<WalFileName, PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap();
    let named = entries.filter_map(|entry| {
        let path = entry.unwrap().path();
        let name: WalFileName = path.file_name()?.to_str()?.parse().ok()?;
        matches!(name, WalFileName::Segment(_) | WalFileName::Partial(_)).then_some((name, path))
    });
    named.collect()
}

fn stem(name: WalFileName) -> SegmentName {
    match name {
        WalFileName::Segment(name) | WalFileName::Partial(name) | WalFileName::Backup(name, _) => name,
        WalFileName::History(_) => panic!("no segment"),
    }
}

/// A server that keeps every segment it finishes in `archive`.
fn archiving(dir: &TestDir, initdb: &str) -> (Server, PathBuf) {
    let archive = dir.create_dir("archive");
    let command = format!("cp %p {}/%f", archive.display());
    let server = Server::build(dir, "primary")
        .initdb(initdb)
        .archive_command(&command)
        .set("max_prepared_transactions", "10")
        .set("max_wal_size", "64MB")
        .set("min_wal_size", "32MB")
        .start();
    (server, archive)
}

fn pgbench(server: &Server, arguments: &[&str]) {
    let mut command = server.account().command(Installation::of_distribution().program("pgbench"));
    let output = command.args(arguments).arg(server.conninfo()).output().unwrap();
    assert!(output.status.success(), "pgbench: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_mixed_workload_reads_as_the_servers_own_tool_reads_it() {
    let dir = TestDir::new();
    let (mut server, archive) = archiving(&dir, "--wal-segsize=1");
    server.sql(
        "CREATE TABLE t (id int PRIMARY KEY, v text);
         INSERT INTO t SELECT i, repeat('x', 100) FROM generate_series(1, 5000) i;
         BEGIN; INSERT INTO t VALUES (-1); PREPARE TRANSACTION 'stays'; COMMIT PREPARED 'stays';
         BEGIN; CREATE TABLE gone (x int); INSERT INTO t VALUES (-2); SAVEPOINT a; INSERT INTO t VALUES (-3);
         SAVEPOINT b; DELETE FROM t WHERE id = 7; DROP TABLE gone; PREPARE TRANSACTION 'with lists';
         SELECT FROM pg_create_restore_point('before the second phase');
         COMMIT PREPARED 'with lists';
         BEGIN; INSERT INTO t VALUES (-4); PREPARE TRANSACTION 'goes'; ROLLBACK PREPARED 'goes';
         SELECT FROM pg_switch_wal();
         BEGIN; SAVEPOINT s; INSERT INTO t VALUES (-5); ROLLBACK TO s; INSERT INTO t VALUES (-6); COMMIT;
         BEGIN; DELETE FROM t; ROLLBACK;
         SELECT FROM pg_logical_emit_message(false, 'big', repeat('y', 5000000));
         SELECT FROM pg_create_restore_point('nach dem Großen');
         SELECT FROM pg_logical_emit_message(true, 'big', repeat('z', 1048576));
         VACUUM FULL t; TRUNCATE t; CHECKPOINT; DROP TABLE t;",
    );
    pgbench(&server, &["-q", "-i", "-s", "1"]);
    pgbench(&server, &["-c", "2", "-t", "500"]);
    server.archive_now();
    server.stop(StopMode::Fast);

    let files = segments(&archive);
    let size = SegmentSize::new(1 << 20).unwrap();
    let names: Vec<SegmentName> = files.keys().copied().map(stem).collect();
    let mut lines: BTreeMap<u64, Vec<Line>> = BTreeMap::new();
    for line in waldump(server.installation(), &archive, names[0], *names.last().unwrap()) {
        lines.entry(size.number_of(line.lsn)).or_default().push(line);
    }
    let mut whole_records = 0;
    for (name, path) in &files {
        let scan = scan_bytes(stem(*name), &std::fs::read(path).unwrap());
        let own = lines.remove(&stem(*name).number(size).unwrap()).unwrap_or_default();
        assert_agrees(&scan, &own, false);
        assert_eq!(scan.cut_off_at(), None, "{name}: {:?}", scan.ends);
        whole_records += u64::from(scan.first_record.is_none());
    }
    assert!(files.len() > 15, "{}", files.len());
    assert!(whole_records >= 3, "a record of 5 MB spans whole segments of 1 MB");
}

#[test]
fn segments_of_19_read_as_its_own_tool_reads_them() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/wal19");
    let lines = parse_waldump(&std::fs::read_to_string(directory.join("waldump.txt")).unwrap());
    for name in ["000000010000000000000006", "000000010000000000000008", "00000001000000000000000A"] {
        let stored = std::fs::read(directory.join(format!("{name}.zst"))).unwrap();
        let bytes = zstd::decode_all(&stored[..]).unwrap();
        let name: SegmentName = name.parse().unwrap();
        let scan = scan_bytes(name, &bytes);
        let number = name.number(SegmentSize::DEFAULT).unwrap();
        let own: Vec<Line> =
            lines.iter().filter(|l| SegmentSize::DEFAULT.number_of(l.lsn) == number).cloned().collect();
        assert_agrees(&scan, &own, true);
        let header = scan.header.unwrap();
        assert_eq!((header.magic, header.magic.major()), (Magic(0xD122), Some(19)));
        assert_eq!(scan.ends, Ends::Switch { zero_tail: true });
        assert_eq!(scan.last_record, own.last().map(|line| line.lsn), "the switch is the last one");
    }
}

#[test]
fn no_segment_of_a_healthy_server_is_called_damaged() {
    let dir = TestDir::new();
    let (mut server, archive) = archiving(&dir, "--wal-segsize=1");
    server.append_setting("wal_compression", "on");
    server.append_setting("full_page_writes", "on");
    server.restart();
    pgbench(&server, &["-q", "-i", "-s", "2"]);
    // A crash in the middle of it, again and again: records are left unfinished and overwritten.
    for mode in [StopMode::Kill, StopMode::Immediate, StopMode::Kill, StopMode::Immediate, StopMode::Kill] {
        let mut load = server.account().command(Installation::of_distribution().program("pgbench"));
        load.args(["-c", "4", "-T", "30"]).arg(server.conninfo());
        load.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let mut load = load.spawn().unwrap();
        let from = server.sql("SELECT pg_current_wal_insert_lsn()");
        let far = format!("SELECT pg_current_wal_insert_lsn() - '{from}' > 3000000");
        server.wait_for(&far, "t", 60);
        server.stop(mode);
        load.wait().unwrap();
        // A killed postmaster leaves its processes a moment longer; a new one refuses to start beside them.
        let mut left = 100;
        while server.try_start(60).is_err() {
            left -= 1;
            assert!(left > 0, "{}", server.log_tail());
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }
    // A timeline switch in the middle of a segment, and the old timeline's last segment cut off.
    let mut standby = server.standby(&dir, "standby");
    standby.append_setting("archive_mode", "always");
    standby.start();
    pgbench(&server, &["-c", "2", "-t", "300"]);
    server.wait_for_replay(&standby);
    server.stop(StopMode::Immediate);
    standby.promote();
    pgbench(&standby, &["-c", "2", "-t", "2000"]);
    standby.archive_now();
    standby.stop(StopMode::Fast);

    let size = SegmentSize::new(1 << 20).unwrap();
    let (mut checked, mut partial, mut crossed) = (0, 0, 0);
    let mut live = segments(&standby.data.join("pg_wal"));
    live.extend(segments(&server.data.join("pg_wal")));
    let archived = segments(&archive);
    for (name, path) in archived.iter().chain(&live) {
        let scan = scan_bytes(stem(*name), &std::fs::read(path).unwrap());
        if scan.problem.is_some() && !archived.contains_key(name) {
            // Recycled for later, and still what it was before.
            assert!(matches!(
                scan.problem,
                Some(pitr::wal::HeaderProblem::Address { .. } | pitr::wal::HeaderProblem::ZeroFilled)
            ));
            continue;
        }
        assert_eq!(scan.problem, None, "{name}");
        assert_eq!(scan.damage, None, "{name} of {}: {:?}", path.display(), scan.ends);
        checked += 1;
        if matches!(name, WalFileName::Partial(_)) {
            assert!(scan.cut_off_at().is_some(), "{name}: {:?}", scan.ends);
            partial += 1;
        }
        let begins_on = scan.header.unwrap().timeline;
        if begins_on < name.timeline() {
            assert_eq!((begins_on, name.timeline()), (TimelineId(1), TimelineId(2)));
            assert_eq!(scan.timeline_changes.len(), 1, "{name}");
            let change = scan.timeline_changes[0];
            assert_eq!((change.previous, change.timeline), (TimelineId(1), TimelineId(2)));
            // What the partial segment holds is a prefix of this one.
            let old = path.with_file_name(format!("{:08X}{}.partial", 1, &name.to_string()[8..]));
            let cut = scan_bytes(stem(*name).of_timeline(1), &std::fs::read(&old).unwrap());
            let common =
                usize::try_from(cut.cut_off_at().unwrap().0 - stem(*name).start(size).unwrap().0).unwrap();
            assert_eq!(std::fs::read(&old).unwrap()[..common], std::fs::read(path).unwrap()[..common]);
            crossed += 1;
        }
    }
    assert!(checked > 20 && partial > 0 && crossed > 0, "{checked} {partial} {crossed}");
}

trait OfTimeline {
    fn of_timeline(self, number: u32) -> Self;
}

impl OfTimeline for SegmentName {
    fn of_timeline(self, number: u32) -> Self {
        Self { timeline: TimelineId(number), ..self }
    }
}
