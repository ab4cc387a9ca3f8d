//! Base backups into a real directory from real servers: what is stored is the cluster, and what fails leaves nothing that
//! counts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pitr::operation::backup::{
    BackupError, BackupOptions, BackupSource, Monitor, Target, Wal, WalSink, backup,
};
use pitr::postgres::ConnInfo;
use pitr::postgres::base_backup::Checkpoint;
use pitr::repository::backup_set::format::{Backup, IndexLine, Source, Status};
use pitr::repository::layout::{Epoch, EpochLayout};
use pitr::storage::{FsStorage, Storage};
use pitr::types::{BackupId, Lsn, Moment, SegmentName, TimelineId};

use crate::support::{Server, TestDir, all_majors};

fn info(server: &Server) -> ConnInfo {
    ConnInfo::resolve(Some(&server.conninfo()), &|_| None).unwrap()
}

fn options() -> BackupOptions {
    BackupOptions {
        label: "it's a test".to_owned(),
        annotations: BTreeMap::from([("ticket".to_owned(), "1".to_owned())]),
        checkpoint: Checkpoint::Fast,
        max_rate: None,
        wal_timeout: Duration::from_secs(30),
        keep_damaged: false,
        level: 1,
        threads: 2,
        host: "test".to_owned(),
    }
}

fn layout() -> EpochLayout {
    EpochLayout::new(&"main".parse().unwrap(), Epoch(1))
}

/// Puts archived segments where the layout wants them; what they hold does not matter to a backup.
fn archive_command(dir: &TestDir) -> String {
    let wal = dir.join("repo/main/0001/wal");
    format!(
        "f=%f; t=$(echo $f | cut -c1-8); l=$(echo $f | cut -c9-16); mkdir -p {0}/$t/$l && cp %p {0}/$t/$l/$f.zst",
        wal.display()
    )
}

#[derive(Debug, Default)]
struct Seen {
    ids: Mutex<Vec<BackupId>>,
    received: AtomicU64,
    waiting: Mutex<Vec<(SegmentName, bool)>>,
    warnings: Mutex<Vec<String>>,
    /// Called once when this many bytes were received.
    at: Mutex<Option<(u64, Action)>>,
}

struct Action(Box<dyn FnOnce() + Send>);

impl std::fmt::Debug for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Action")
    }
}

impl Monitor for Seen {
    fn started(&self, id: &BackupId, _estimate: Option<u64>) {
        self.ids.lock().unwrap().push(id.clone());
    }
    fn received(&self, bytes: u64) {
        self.received.store(bytes, Ordering::Relaxed);
        let mut at = self.at.lock().unwrap();
        if at.as_ref().is_some_and(|(when, _)| bytes >= *when) {
            let (_, action) = at.take().unwrap();
            (action.0)();
        }
    }
    fn waiting(&self, segment: SegmentName, by_itself: bool) {
        self.waiting.lock().unwrap().push((segment, by_itself));
    }
    fn warning(&self, text: &str) {
        self.warnings.lock().unwrap().push(text.to_owned());
    }
}

fn clock() -> Moment {
    Moment(jiff::Timestamp::now())
}

fn repository(dir: &TestDir) -> FsStorage {
    FsStorage::new(dir.create_dir("repo"))
}

fn take(
    server: &Server,
    primary: Option<&Server>,
    storage: &dyn Storage,
    options: &BackupOptions,
    seen: &Seen,
) -> Result<Backup, BackupError> {
    let mut source = BackupSource::connect(&info(server))?;
    let layout = layout();
    let target = Target { storage, layout: &layout };
    let primary = primary.map(info);
    backup(&mut source, Wal::Archive { primary: primary.as_ref() }, target, options, &clock, seen)
}

fn listed(storage: &dyn Storage) -> Vec<String> {
    let mut names = Vec::new();
    storage.list(&layout().backups(), None, &mut |info| names.push(info.name)).unwrap();
    names.retain(|name| name.ends_with("/backup.json"));
    names
}

/// By hand, as the manual says: `cat parts | zstd -d | tar -x`.
fn unpack(dir: &TestDir, id: &BackupId, archive: &str, to: &Path) {
    let parts = dir.join(format!("repo/main/0001/backup/{id}/{archive}"));
    let script = format!("cat {}/*.zst | zstd -qd | tar -x -C {}", parts.display(), to.display());
    let output = Command::new("sh").args(["-ec", &script]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The backup as a data directory, with its WAL and manifest, as `pg_verifybackup` wants to see it.
fn restore_by_hand(dir: &TestDir, backup: &Backup) -> PathBuf {
    let data = dir.create_dir("restored");
    unpack(dir, &backup.id, "base", &data);
    for archive in &backup.archives[..backup.archives.len() - 1] {
        let space = dir.create_dir(format!("restored-{}", archive.name));
        unpack(dir, &backup.id, &archive.name, &space);
        let map = std::fs::read_to_string(data.join("tablespace_map")).unwrap();
        let mapped = map.replace(archive.location.as_deref().unwrap(), space.to_str().unwrap());
        std::os::unix::fs::symlink(&space, data.join("pg_tblspc").join(&archive.name)).unwrap();
        std::fs::write(dir.join("map"), mapped).unwrap();
    }
    let manifest = dir.join(format!("repo/main/0001/backup/{}/backup_manifest.zst", backup.id));
    let to = data.join("backup_manifest");
    assert!(Command::new("zstd").arg("-qd").arg(manifest).arg("-o").arg(&to).status().unwrap().success());
    data
}

#[test]
fn a_backup_of_every_major_is_the_cluster_and_starts() {
    for major in all_majors() {
        let dir = TestDir::new();
        let storage = repository(&dir);
        let server =
            Server::build(&dir, "primary").major(major).archive_command(&archive_command(&dir)).start();
        let space = dir.create_dir("space");
        server.sql(&format!(
            "CREATE TABLESPACE s LOCATION '{}'; CREATE TABLE t TABLESPACE s AS SELECT generate_series(1, 300000) i;
             CREATE TABLE u AS SELECT generate_series(1, 300000) i;",
            space.display()
        ));
        let seen = Seen::default();
        let backup = take(&server, None, &storage, &options(), &seen).unwrap();
        assert_eq!(
            (backup.postgres_major, backup.status, backup.source),
            (major, Status::Complete, Source::Primary)
        );
        assert_eq!(backup.archives.len(), 2);
        assert_eq!(seen.received.load(Ordering::Relaxed), backup.size, "{major}");
        assert_eq!(listed(&storage).len(), 1);
        assert!(backup.start_lsn < backup.stop_lsn && backup.start_time <= backup.stop_time);

        // The index tells the truth about every frame and names every file.
        let index = storage.read(&layout().files(&backup.id)).unwrap().unwrap();
        let lines = pitr::codec::decode_frames(&index, backup.index.size, &backup.index.blake3).unwrap();
        let (mut archive, mut files, mut raw) = (String::new(), 0, 0);
        for line in lines.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
            match serde_json::from_slice(line).unwrap() {
                IndexLine::Archive { name } => archive = name,
                IndexLine::Frame(frame) => {
                    let part = layout().part(&backup.id, &archive, frame.part);
                    let range = frame.at..frame.at + u64::from(frame.stored);
                    let stored = storage.read_range(&part, range).unwrap().unwrap();
                    raw +=
                        pitr::codec::decode_frame(&stored, frame.raw as usize, &frame.blake3).unwrap().len();
                }
                IndexLine::Entry(entry) => files += u64::from(entry.crc32c.is_some()),
            }
        }
        assert_eq!((files, raw as u64), (backup.files, backup.size));

        // PostgreSQL's own tool agrees where there is one for this major (some packages have none, or one that does
        // not even say its version), and a server does for all.
        let data = restore_by_hand(&dir, &backup);
        let verify = server.installation();
        let works =
            |program: PathBuf| Command::new(program).arg("--version").output().unwrap().status.success();
        let oracle = verify.has_program("pg_verifybackup") && works(verify.program("pg_verifybackup"));
        assert!(oracle || major != crate::support::distribution_major());
        if oracle {
            let output =
                Command::new(verify.program("pg_verifybackup")).arg("-n").arg(&data).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        drop(server);
        std::fs::remove_file(data.join("backup_manifest")).unwrap();
        std::fs::rename(dir.join("map"), data.join("tablespace_map")).unwrap();
        std::fs::write(data.join("recovery.signal"), "").unwrap();
        dir.account().own_tree(&data);
        dir.account().own_tree(&dir.join(format!("restored-{}", backup.archives[0].name)));
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&data, PermissionsExt::from_mode(0o700)).unwrap();
        let mut copy = Server::adopt(&dir, &data, major);
        copy.append_setting("archive_mode", "off");
        let wal = dir.join("repo/main/0001/wal");
        copy.append_setting(
            "restore_command",
            &format!("f=%f; cp {}/$(echo $f | cut -c1-8)/$(echo $f | cut -c9-16)/$f.zst %p", wal.display()),
        );
        copy.start();
        copy.wait_for("SELECT pg_is_in_recovery()", "f", 60);
        assert_eq!(
            copy.sql("SELECT (SELECT count(*) FROM t) + (SELECT count(*) FROM u)"),
            "600000",
            "{major}"
        );
    }
}

#[test]
fn wal_that_never_arrives_means_no_backup_and_the_segment_is_named() {
    let dir = TestDir::new();
    let storage = repository(&dir);
    let server = Server::build(&dir, "primary").archive_command("false").start();
    let seen = Seen::default();
    let short = BackupOptions { wal_timeout: Duration::from_secs(3), ..options() };
    let error = take(&server, None, &storage, &short, &seen).unwrap_err();
    let segment = seen.waiting.lock().unwrap()[0].0.to_string();
    assert!(error.to_string().contains(&segment), "{error}");
    assert!(listed(&storage).is_empty());

    let off = Server::build(&dir, "off").start();
    let error = take(&off, None, &storage, &short, &Seen::default()).unwrap_err();
    assert!(error.to_string().starts_with("archive_mode is off"), "{error}");
}

/// A server with enough in it that something can go wrong in the middle.
fn large(dir: &TestDir) -> Server {
    let server = Server::build(dir, "primary").archive_command(&archive_command(dir)).start();
    server.sql("CREATE TABLE t AS SELECT generate_series(1, 1500000) i;");
    server
}

#[test]
fn a_walsender_that_is_killed_or_cancelled_means_a_clear_error_and_no_backup() {
    let dir = TestDir::new();
    let storage = repository(&dir);
    let server = large(&dir);
    for (function, expected) in [("pg_terminate_backend", "57P01"), ("pg_cancel_backend", "57014")] {
        let seen = Seen::default();
        let mut psql = server.psql();
        let sql = format!("SELECT {function}(pid) FROM pg_stat_replication");
        let kill = move || assert!(psql.args(["-c", &sql]).status().unwrap().success());
        *seen.at.lock().unwrap() = Some((1 << 20, Action(Box::new(kill))));
        // Slow enough that the server has not sent everything when it is told to stop.
        let slow = BackupOptions { max_rate: Some(20_000), ..options() };
        let error = take(&server, None, &storage, &slow, &seen).unwrap_err();
        let BackupError::Postgres(error) = error else { panic!("{error:?}") };
        assert!(
            error.code().is_none_or(|code| code == expected),
            "{function}: {error} {:?}",
            std::error::Error::source(&error)
        );
        assert!(listed(&storage).is_empty());
        assert_eq!(server.sql("SELECT count(*) FROM pg_replication_slots"), "0");
    }
    take(&server, None, &storage, &options(), &Seen::default()).unwrap();
    assert_eq!(listed(&storage).len(), 1);
}

#[test]
fn damaged_pages_fail_the_backup_unless_it_is_to_be_kept() {
    let dir = TestDir::new();
    let storage = repository(&dir);
    let mut server = Server::build(&dir, "primary")
        .initdb("--data-checksums")
        .archive_command(&archive_command(&dir))
        .start();
    server.sql("CREATE TABLE t AS SELECT generate_series(1, 10000) i;");
    let file = server.file(server.sql("SELECT pg_relation_filepath('t')"));
    server.stop(crate::support::StopMode::Fast);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[9000] ^= 0x40;
    std::fs::write(&file, bytes).unwrap();
    server.start();
    let name = file.file_name().unwrap().to_str().unwrap().to_owned();
    let error = take(&server, None, &storage, &options(), &Seen::default()).unwrap_err();
    let BackupError::DamagedPages { files } = &error else { panic!("{error:?}") };
    assert!(files.iter().any(|f| f.contains(&name)), "{files:?}");
    assert!(listed(&storage).is_empty());

    let keep = BackupOptions { keep_damaged: true, ..options() };
    let backup = take(&server, None, &storage, &keep, &Seen::default()).unwrap();
    assert_eq!(backup.status, Status::Damaged);
    assert!(backup.damage.iter().any(|line| line.contains(&name)));
}

#[test]
fn a_full_disk_means_a_clear_error_and_no_backup() {
    let dir = TestDir::new();
    let server = large(&dir);
    let mount = dir.create_dir("small");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "none"]).arg(&mount).status();
    assert!(mounted.is_ok_and(|s| s.success()), "mounting a tmpfs needs root");
    let storage = FsStorage::new(&mount);
    let result = take(&server, None, &storage, &options(), &Seen::default());
    let left = listed(&storage);
    drop(storage);
    assert!(Command::new("umount").arg("-l").arg(&mount).status().unwrap().success());
    let error = result.unwrap_err();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(e) = source {
        text = format!("{text}: {e}");
        source = e.source();
    }
    assert!(text.contains("No space left"), "{text}");
    assert!(left.is_empty());
    assert_eq!(server.sql("SELECT count(*) FROM pg_stat_replication"), "0");
}

#[test]
fn a_standbys_backup_ends_the_primarys_segment_or_says_that_it_waits_for_it() {
    let dir = TestDir::new();
    let storage = repository(&dir);
    let primary = Server::build(&dir, "primary").archive_command(&archive_command(&dir)).start();
    let mut standby = primary.standby(&dir, "standby");
    standby.start();
    primary.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) i; CHECKPOINT;");
    primary.wait_for_replay(&standby);
    standby.sql("CHECKPOINT");

    let short = BackupOptions { wal_timeout: Duration::from_secs(3), ..options() };
    let seen = Seen::default();
    let error = take(&standby, None, &storage, &short, &seen).unwrap_err();
    assert!(matches!(error, BackupError::WalMissing { .. }), "{error:?}");
    assert!(seen.waiting.lock().unwrap()[0].1, "the operator is told that the primary has to end it");
    assert!(listed(&storage).is_empty());

    let backup = take(&standby, Some(&primary), &storage, &options(), &Seen::default()).unwrap();
    assert_eq!(backup.source, Source::Standby);
    let last = SegmentName::holding(backup.stop_timeline, backup.stop_lsn, backup.segment_size);
    assert!(storage.size(&layout().segment(last)).unwrap().is_some());

    // A standby is no primary, and neither is another cluster.
    primary.sql("CREATE TABLE u AS SELECT generate_series(1, 1000) i; CHECKPOINT;");
    primary.wait_for_replay(&standby);
    standby.sql("CHECKPOINT");
    let error = take(&standby, Some(&standby), &storage, &options(), &Seen::default()).unwrap_err();
    assert_eq!(error.to_string(), "the server given as primary is a standby");
    let other = Server::build(&dir, "other").start();
    let error = take(&standby, Some(&other), &storage, &options(), &Seen::default()).unwrap_err();
    assert!(matches!(error, BackupError::OtherSystem { what: "primary", .. }), "{error:?}");
}

/// Keeps WAL as plain files in a directory.
struct Files(PathBuf);

type SinkResult = Result<(), Box<dyn std::error::Error + Send + Sync>>;

impl WalSink for Files {
    fn segment(&self, name: SegmentName, bytes: &[u8]) -> SinkResult {
        Ok(std::fs::write(self.0.join(name.to_string()), bytes)?)
    }
    fn history(&self, timeline: TimelineId, bytes: &[u8]) -> SinkResult {
        Ok(std::fs::write(self.0.join(format!("{}.history", timeline.to_hex8())), bytes)?)
    }
    fn piece(&self, timeline: TimelineId, from: Lsn, bytes: &[u8]) -> SinkResult {
        Ok(std::fs::write(self.0.join(format!("piece-{timeline}-{from}").replace('/', "-")), bytes)?)
    }
}

fn include(
    server: &Server,
    storage: &dyn Storage,
    sink: &dyn WalSink,
    seen: &Seen,
) -> Result<Backup, BackupError> {
    let layout = layout();
    let mut source = BackupSource::connect(&info(server))?;
    let connection = info(server);
    let wal = Wal::Include { connection: &connection, sink };
    backup(&mut source, wal, Target { storage, layout: &layout }, &options(), &clock, seen)
}

#[test]
fn wal_that_is_included_is_all_that_recovery_needs_and_no_slot_stays() {
    for major in all_majors() {
        let dir = TestDir::new();
        let storage = repository(&dir);
        let server = Server::build(&dir, "primary").major(major).start();
        server.sql("CREATE TABLE t AS SELECT generate_series(1, 300000) i;");
        // Traffic while the backup runs, so that there is WAL to bring along.
        let (seen, mut psql) = (Seen::default(), server.psql());
        let write = move || {
            let sql = "CREATE TABLE u AS SELECT generate_series(1, 300000) i; SELECT pg_switch_wal()";
            assert!(psql.args(["-c", sql]).output().unwrap().status.success());
        };
        *seen.at.lock().unwrap() = Some((1 << 20, Action(Box::new(write))));
        let wal = dir.create_dir("wal");
        let backup = include(&server, &storage, &Files(wal.clone()), &seen).unwrap();
        assert_eq!(server.sql("SELECT count(*) FROM pg_replication_slots"), "0", "{major}");
        drop(server);

        let data = restore_by_hand(&dir, &backup);
        std::fs::remove_file(data.join("backup_manifest")).unwrap();
        std::fs::write(data.join("recovery.signal"), "").unwrap();
        for tree in [&data, &wal] {
            dir.account().own_tree(tree);
        }
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&data, PermissionsExt::from_mode(0o700)).unwrap();
        let mut copy = Server::adopt(&dir, &data, major);
        copy.append_setting("restore_command", &format!("cp {}/%f %p", wal.display()));
        copy.start();
        copy.wait_for("SELECT pg_is_in_recovery()", "f", 60);
        assert_eq!(copy.sql("SELECT count(*) FROM t"), "300000", "{major}");
    }
}

#[test]
fn what_a_standbys_backup_leaves_unfinished_is_kept_as_a_piece() {
    let dir = TestDir::new();
    let storage = repository(&dir);
    let primary = Server::build(&dir, "primary").start();
    let mut standby = primary.standby(&dir, "standby");
    standby.start();
    primary.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) i; CHECKPOINT;");
    primary.wait_for_replay(&standby);
    let wal = dir.create_dir("wal");
    let backup = include(&standby, &storage, &Files(wal.clone()), &Seen::default()).unwrap();
    assert_eq!(backup.source, Source::Standby);
    let names: Vec<String> =
        std::fs::read_dir(&wal).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    let piece = names.iter().find(|n| n.starts_with("piece-1-")).expect("a piece");
    let start = backup.stop_lsn.0 & !0xFF_FFFF;
    assert!(start + wal.join(piece).metadata().unwrap().len() >= backup.stop_lsn.0);
    assert_eq!(standby.sql("SELECT count(*) FROM pg_replication_slots"), "0");
}

#[test]
fn wal_that_cannot_be_stored_ends_the_backup_with_its_own_reason() {
    struct Full;
    impl WalSink for Full {
        fn segment(&self, _: SegmentName, _: &[u8]) -> SinkResult {
            Err("the store is full".into())
        }
        fn history(&self, _: TimelineId, _: &[u8]) -> SinkResult {
            Ok(())
        }
        fn piece(&self, _: TimelineId, _: Lsn, _: &[u8]) -> SinkResult {
            Ok(())
        }
    }
    let dir = TestDir::new();
    let storage = repository(&dir);
    let server = Server::build(&dir, "primary").start();
    let error = include(&server, &storage, &Full, &Seen::default()).unwrap_err();
    assert!(error.to_string().starts_with("cannot store 0000000100000000"), "{error}");
    assert!(listed(&storage).is_empty());
    assert_eq!(server.sql("SELECT count(*) FROM pg_replication_slots"), "0");
}

/// A way to the server that ends after so many bytes, without a word.
fn cut_after(server: &Server, bytes: usize) -> u16 {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let (port, to) = (listener.local_addr().unwrap().port(), server.port);
    std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut upstream = std::net::TcpStream::connect(("127.0.0.1", to)).unwrap();
        let (mut from_client, mut to_server) = (client.try_clone().unwrap(), upstream.try_clone().unwrap());
        let forward = std::thread::spawn(move || drop(std::io::copy(&mut from_client, &mut to_server)));
        let (mut left, mut piece) = (bytes, vec![0; 64 << 10]);
        while left > 0 {
            let n = upstream.read(&mut piece).unwrap_or(0);
            if n == 0 || client.write_all(&piece[..n.min(left)]).is_err() {
                break;
            }
            left = left.saturating_sub(n);
        }
        for stream in [&client, &upstream] {
            drop(stream.shutdown(std::net::Shutdown::Both));
        }
        drop(forward.join());
    });
    port
}

#[test]
fn a_connection_that_is_cut_anywhere_means_an_error_and_no_backup() {
    let dir = TestDir::new();
    let storage = repository(&dir);
    let server = large(&dir);
    let whole = take(&server, None, &storage, &options(), &Seen::default()).unwrap();
    let size = usize::try_from(whole.size).unwrap();
    // In the login, the start, a file, a part, the manifest (which follows the last byte of the tar).
    for bytes in [10, 300, 1500, 100_000, size / 2, size - 5000, size + 100_000] {
        let port = cut_after(&server, bytes);
        let text = format!("host=127.0.0.1 port={port} user=postgres sslmode=disable");
        let info = ConnInfo::resolve(Some(&text), &|_| None).unwrap();
        let layout = layout();
        let result = BackupSource::connect(&info).and_then(|mut source| {
            let target = Target { storage: &storage, layout: &layout };
            let wal = Wal::Archive { primary: None };
            backup(&mut source, wal, target, &options(), &clock, &Seen::default())
        });
        assert!(matches!(result, Err(BackupError::Postgres(_))), "{bytes} of {size}: {result:?}");
        assert_eq!(listed(&storage).len(), 1);
    }
}

/// The process's greatest memory so far, in MiB.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
}

#[test]
fn a_backup_goes_into_a_bucket_in_parts_and_takes_little_memory() {
    let dir = TestDir::new();
    let store = crate::support::S3Server::start(crate::support::S3Kind::Ceph);
    let storage = store.storage("some/prefix");
    let server = Server::build(&dir, "primary").start();
    // Random enough that several parts are filled.
    server.sql("CREATE TABLE t AS SELECT decode(md5(i::text) || md5((i * 7)::text), 'hex') FROM generate_series(1, 2000000) i;");
    let wal = dir.create_dir("wal");
    let backup = include(&server, &storage, &Files(wal), &Seen::default()).unwrap();
    assert!(backup.archives[0].parts >= 2, "{:?}", backup.archives);
    assert_eq!(listed(&storage).len(), 1);

    let index = storage.read(&layout().files(&backup.id)).unwrap().unwrap();
    let peak = peak_memory();
    let mut raw = 0;
    for line in pitr::codec::decode_frames(&index, backup.index.size, &backup.index.blake3)
        .unwrap()
        .split(|b| *b == b'\n')
    {
        if let Ok(IndexLine::Frame(frame)) = serde_json::from_slice(line) {
            let part = layout().part(&backup.id, "base", frame.part);
            let range = frame.at..frame.at + u64::from(frame.stored);
            let stored = storage.read_range(&part, range).unwrap().unwrap();
            raw +=
                pitr::codec::decode_frame(&stored, frame.raw as usize, &frame.blake3).unwrap().len() as u64;
        }
    }
    assert_eq!(raw, backup.size);
    assert!(peak < 150, "{peak} MiB");
}

/// Not a test: the process that the next test kills.
#[test]
#[ignore = "run by the test of killed processes"]
fn the_process_that_is_killed() {
    let (conninfo, repo) = (std::env::var("KILLED_CONNINFO").unwrap(), std::env::var("KILLED_REPO").unwrap());
    let storage = FsStorage::new(PathBuf::from(&repo));
    let connection = ConnInfo::resolve(Some(&conninfo), &|_| None).unwrap();
    let mut source = BackupSource::connect(&connection).unwrap();
    let (sink, layout) = (Files(PathBuf::from(repo)), layout());
    let wal = Wal::Include { connection: &connection, sink: &sink };
    let slow = BackupOptions { max_rate: Some(60_000), ..options() };
    let target = Target { storage: &storage, layout: &layout };
    backup(&mut source, wal, target, &slow, &clock, &Seen::default()).unwrap();
}

#[test]
fn a_process_that_is_killed_leaves_no_backup_and_no_slot_and_the_next_one_succeeds() {
    let dir = TestDir::new();
    let storage = repository(&dir);
    let server = large(&dir);
    let run = || {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "backup::the_process_that_is_killed", "--ignored", "--quiet"])
            .env("KILLED_CONNINFO", server.conninfo())
            .env("KILLED_REPO", dir.join("repo"))
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap()
    };
    let begun = std::time::Instant::now();
    assert!(run().wait().unwrap().success());
    let whole = begun.elapsed();
    assert_eq!(listed(&storage).len(), 1);
    // Up to the middle of what the first one took: later ones may be done sooner.
    for step in 0..8 {
        let mut child = run();
        std::thread::sleep(whole * step / 16);
        child.kill().unwrap();
        child.wait().unwrap();
        server.wait_for("SELECT count(*) FROM pg_replication_slots", "0", 20);
        server.wait_for("SELECT count(*) FROM pg_stat_replication", "0", 20);
        assert_eq!(listed(&storage).len(), 1, "killed after {step}/16 of {whole:?}");
    }
    take(&server, None, &storage, &options(), &Seen::default()).unwrap();
    assert_eq!(listed(&storage).len(), 2);
}
