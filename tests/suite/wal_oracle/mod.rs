//! What the WAL reader says of real segments, compared with PostgreSQL's own `pg_waldump`; and that it tells damage from
//! everything that a healthy server leaves behind.

mod server;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use pitr::pgdata::control_file::ControlFile;
use pitr::types::{Lsn, SegmentName, SegmentSize, SystemId, TimelineId, WalFileName};
use pitr::wal::{EarlyEnd, Ends, Magic, SegmentScan, SegmentScanner};

use server::{Installation, Server, StopMode, TestDir, all_majors};

/// In pieces of a size that fits neither pages nor records.
fn scan_bytes(name: SegmentName, bytes: &[u8]) -> SegmentScan {
    let size = SegmentSize::new(bytes.len() as u64).unwrap();
    let mut scanner = SegmentScanner::new(name, size);
    for piece in bytes.chunks(100_003) {
        scanner.push(piece);
    }
    scanner.finish()
}

/// One line of `pg_waldump`.
#[derive(Debug, Clone)]
struct Line {
    manager: String,
    total: u64,
    lsn: Lsn,
    description: String,
}

fn parse_waldump(text: &str) -> Vec<Line> {
    text.lines().filter(|line| line.starts_with("rmgr: ")).map(parse_line).collect()
}

fn parse_line(line: &str) -> Line {
    let field = |from: &str, to: &str| {
        let (_, rest) = line.split_once(from).unwrap_or_else(|| panic!("no {from} in {line}"));
        rest.split_once(to).unwrap_or_else(|| panic!("no {to} in {line}")).0.trim().to_owned()
    };
    Line {
        manager: field("rmgr: ", " "),
        total: field("(rec/tot):", ", tx").split_once('/').unwrap().1.trim().parse().unwrap(),
        lsn: field("lsn: ", ",").parse().unwrap(),
        description: line.split_once("desc: ").unwrap().1.to_owned(),
    }
}

/// All records from the first segment on, as far as `pg_waldump` gets.
fn waldump(
    installation: &Installation,
    directory: &Path,
    first: SegmentName,
    last: SegmentName,
) -> Vec<Line> {
    let output = Command::new(installation.program("pg_waldump"))
        .env("TZ", "UTC")
        .arg("-p")
        .arg(directory)
        .args([first.to_string(), last.to_string()])
        .output()
        .unwrap();
    // It ends with an error where the last segment is cut off; what it printed before that counts.
    parse_waldump(&String::from_utf8_lossy(&output.stdout))
}

/// Compares a scan with the oracle's lines for the records that start in its segment.
fn assert_agrees(scan: &SegmentScan, lines: &[Line], only_some_managers: bool) {
    let name = scan.name;
    assert_eq!(scan.problem, None, "{name}");
    assert_eq!(scan.damage, None, "{name}");
    // A record that goes on in the next segment is the oracle's, but not yet complete here.
    let unfinished = match scan.ends {
        Ends::ContinuesInNext { record } => record,
        _ => None,
    };
    let complete: Vec<&Line> = lines.iter().filter(|line| Some(line.lsn) != unfinished).collect();
    if !only_some_managers {
        assert_eq!(scan.records, complete.len() as u64, "records of {name}");
        assert_eq!(scan.first_record, lines.first().map(|line| line.lsn), "first record of {name}");
        assert_eq!(scan.last_record, complete.last().map(|line| line.lsn), "last record of {name}");
    }
    let of = |manager: &str, start: &str| -> Vec<&Line> {
        let is = |line: &&&Line| line.manager == manager && line.description.starts_with(start);
        complete.iter().filter(is).copied().collect()
    };
    let (commits, aborts) = (of("Transaction", "COMMIT"), of("Transaction", "ABORT"));
    assert_eq!(scan.commits, commits.len() as u64, "commits of {name}");
    assert_eq!(scan.aborts, aborts.len() as u64, "aborts of {name}");
    let ended =
        |line: &&Line| line.description.starts_with("COMMIT") || line.description.starts_with("ABORT");
    let mut transactions = of("Transaction", "").into_iter().filter(ended);
    let first = transactions.next();
    for (ours, theirs) in
        [(scan.first_transaction, first), (scan.last_transaction, transactions.next_back().or(first))]
    {
        assert_eq!(ours.map(|ours| ours.lsn), theirs.map(|line| line.lsn), "{name}");
        let (Some(ours), Some(line)) = (ours, theirs) else { continue };
        let time = ours.time.to_string().replace("+00", " UTC");
        assert!(line.description.contains(&time), "{name}: {ours:?} is not {line:?}");
        if let Some((_, prepared)) = line.description.split_once("_PREPARED ") {
            assert!(prepared.starts_with(&format!("{}:", ours.xid)), "{name}: {ours:?} is not {line:?}");
        }
    }
    let points: Vec<_> = scan.restore_points.iter().map(|point| (point.lsn, point.name.as_str())).collect();
    let name_of =
        |line: &&Line| (line.lsn, line.description.strip_prefix("RESTORE_POINT ").unwrap().to_owned());
    let expected: Vec<_> = of("XLOG", "RESTORE_POINT").iter().map(name_of).collect();
    let expected: Vec<_> = expected.iter().map(|(lsn, name)| (*lsn, name.as_str())).collect();
    assert_eq!(points, expected, "restore points of {name}");
    let checkpoints: Vec<_> = scan.checkpoints.iter().map(|c| (c.lsn, c.redo)).collect();
    let redo = |line: &&Line| {
        let text = line.description.split_once(" redo ").unwrap().1.split(';').next().unwrap();
        (line.lsn, text.parse::<Lsn>().unwrap())
    };
    let is_checkpoint = |line: &&&Line| !line.description.starts_with("CHECKPOINT_REDO");
    let expected: Vec<_> = of("XLOG", "CHECKPOINT_").iter().filter(is_checkpoint).map(redo).collect();
    assert_eq!(checkpoints, expected, "checkpoints of {name}");
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

/// Marks the bytes of a record: everything that a checksum covers, over page borders.
fn mark(covered: &mut [bool], start: u64, line: &Line) {
    let mut at = line.lsn.0 - start;
    let mut left = line.total;
    while left > 0 {
        if at.is_multiple_of(8192) {
            at += 24;
        }
        covered[usize::try_from(at).unwrap()] = true;
        at += 1;
        left -= 1;
    }
}

#[test]
fn a_flipped_bit_in_a_complete_record_or_a_page_header_is_found() {
    let dir = TestDir::new();
    let (mut server, archive) = archiving(&dir, "--wal-segsize=1");
    pgbench(&server, &["-q", "-i", "-s", "1"]);
    pgbench(&server, &["-c", "2", "-t", "3000"]);
    server.archive_now();
    server.stop(StopMode::Fast);
    let system_id: SystemId =
        ControlFile::parse(&std::fs::read(server.file(ControlFile::PATH)).unwrap()).unwrap().system_id;

    let size = SegmentSize::new(1 << 20).unwrap();
    let files = segments(&archive);
    let names: Vec<SegmentName> = files.keys().copied().map(stem).collect();
    let lines = waldump(server.installation(), &archive, names[0], *names.last().unwrap());
    // One full of small records, and the last one, which ends with a switch and zeros.
    for name in [names[names.len() - 3], names[names.len() - 1]] {
        let mut bytes = std::fs::read(&files[&WalFileName::Segment(name)]).unwrap();
        let start = name.start(size).unwrap().0;
        let intact = scan_bytes(name, &bytes);
        let last = intact.last_record.unwrap();
        let mut covered = vec![false; bytes.len()];
        for line in lines.iter().filter(|line| intact.first_record <= Some(line.lsn) && line.lsn < last) {
            mark(&mut covered, start, line);
        }
        let used = usize::try_from(intact.end_of_valid.0 - start).unwrap();
        let mut flips = 0;
        for at in (0..used).step_by(251).chain((0..used).step_by(8192).flat_map(|page| page..page + 20)) {
            let in_header = at % 8192 < 20 || at < 40;
            let mask = 1 << (at % 8);
            // 4 says that a backup may remove the page's images: it changes nothing for anybody.
            if !(covered[at] || in_header) || (at % 8192 == 2 && mask == 4) {
                continue;
            }
            bytes[at] ^= mask;
            let scan = scan_bytes(name, &bytes);
            bytes[at] ^= mask;
            flips += 1;
            let foreign = scan.header.is_some_and(|header| header.system_id != system_id);
            let seen =
                scan.damage.is_some() || scan.problem.is_some() || scan.newer_magic().is_some() || foreign;
            // The length of a continuation has no effect where there is none. On the first page the record before cannot be
            // seen, and a length that ends within the same eight bytes leads to the same next record.
            let unused = (16..20).contains(&(at % 8192)) && (!begins_with_rest(&bytes, at) || at == 16);
            // A length on the last page that leads out of the segment can only be told from the next one.
            let leads_out =
                matches!(scan.ends, Ends::ContinuesInNext { .. }) && at / 8192 == bytes.len() / 8192 - 1;
            // A wrong length on the last page in use hides the records behind it, and nothing else is there to prove it:
            // the segment then ends early.
            let last_used = at / 8192 == (used - 1) / 8192;
            let early = last_used && matches!(scan.ends, Ends::Early { .. });
            assert!(seen || unused || leads_out || early, "byte {at} of {name}, record part {}", covered[at]);
        }
        assert!(flips > 500, "{flips}");
        // The very last record has nothing behind it that could prove that it was damaged: it reads as an early end.
        let at = usize::try_from(last.0 - start).unwrap() + 20;
        bytes[at] ^= 1;
        let scan = scan_bytes(name, &bytes);
        let early = matches!(scan.ends, Ends::Early { why: EarlyEnd::NoRecord, .. });
        assert!(scan.damage.is_some() || early, "{:?}", scan.ends);
    }
}

/// Whether the page that holds byte `at` begins with the rest of a record.
fn begins_with_rest(bytes: &[u8], at: usize) -> bool {
    bytes[at / 8192 * 8192 + 2] & 1 != 0
}

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
