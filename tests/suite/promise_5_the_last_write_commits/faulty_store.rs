//! A store that fails, answers too late, or loses its answer, at every call that a backup makes.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use pitr::operation::backup::{
    BackupError, BackupOptions, BackupSource, Monitor, Taken, Wal, backup as take_backup,
};
use pitr::postgres::ConnInfo;
use pitr::postgres::base_backup::Checkpoint;
use pitr::repository::{Create, HostMemory, Repository, SystemIdentity};
use pitr::storage::faulty::{Call, Fault, FaultyStorage};
use pitr::storage::{FsStorage, RetryStorage, Storage, StorageErrorKind};
use pitr::types::Moment;

use crate::backup::{listed, no_traces, restore_by_hand, take, verify};
use crate::support::{Answer, BrokenS3, Pitr, S3Kind, S3Server, Server, TestDir};

/// Counts the backups after which stretches of WAL could not be rolled up: that is done behind the last write, and
/// is no failure of the backup.
#[derive(Debug, Default)]
struct NotRolledUp(AtomicU64);

/// How far a backup was.
#[derive(Debug, Default)]
struct Received(AtomicU64);

impl Monitor for Received {
    fn received(&self, bytes: u64) {
        self.0.fetch_max(bytes, Ordering::Relaxed);
    }
}

impl Monitor for NotRolledUp {
    fn warning(&self, text: &str) {
        if text.starts_with("the backup is complete, but") {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn clock() -> Moment {
    Moment(jiff::Timestamp::now())
}

/// As many as a machine with so many cores has, in turn: who has which frame differs, what is stored must not.
fn threads() -> usize {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    [2, 1, 6][CALLS.fetch_add(1, Ordering::Relaxed) % 3]
}

/// One backup over this storage, the repository's identity included.
fn over(storage: Arc<dyn Storage>, connection: &ConnInfo, dir: &TestDir) -> Result<Taken, String> {
    watched(storage, connection, dir, None, &NotRolledUp::default())
}

fn watched(
    storage: Arc<dyn Storage>,
    connection: &ConnInfo,
    dir: &TestDir,
    max_rate: Option<u32>,
    monitor: &dyn Monitor,
) -> Result<Taken, String> {
    let text = |e: &dyn std::error::Error| {
        let mut text = e.to_string();
        let mut source = e.source();
        while let Some(cause) = source {
            text.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        text
    };
    let mut source = BackupSource::connect(connection).map_err(|e| text(&e))?;
    let memory = HostMemory::new(dir.join("memory"));
    let repository =
        Repository::open(storage, &memory, Create::RootAndIdentity, clock()).map_err(|e| text(&e))?;
    let system = SystemIdentity {
        system_identifier: source.system_id(),
        segment_size: source.segment_size(),
        postgres_major: Some(source.major()),
    };
    let cluster =
        repository.cluster_for_writing(&"main".parse().unwrap(), &system, clock()).map_err(|e| text(&e))?;
    let options = BackupOptions {
        label: "faulty".to_owned(),
        annotations: Default::default(),
        checkpoint: Checkpoint::Fast,
        max_rate,
        wal_timeout: Duration::from_secs(30),
        keep_damaged: false,
        catalogue: true,
        level: -7,
        threads: threads(),
        temp_dir: dir.join("temporary"),
        host: "test".to_owned(),
    };
    let wal = Wal::Include { connection };
    let clusters = [cluster];
    take_backup(&mut source, wal, &clusters, &options, &clock, monitor).map_err(|e: BackupError| text(&e))
}

/// A small server whose backups go into a directory of their own, and the calls that one backup makes.
struct Faults {
    dir: TestDir,
    server: Server,
    connection: ConnInfo,
}

impl Faults {
    fn new() -> Self {
        let dir = TestDir::new();
        dir.create_dir("repo");
        let server = Server::build(&dir, "primary").initdb("--wal-segsize=1").start();
        let connection = ConnInfo::resolve(Some(&server.conninfo()), &|_| None).unwrap();
        // The identity is there from now on, so that every run makes the same calls.
        over(Arc::new(FsStorage::new(dir.join("repo"))), &connection, &dir).unwrap();
        Self { dir, server, connection }
    }

    /// Nothing listed, or what is listed is whole.
    fn judge(&self, what: &str, result: &Result<Taken, String>) {
        let repo = self.dir.join("repo");
        let memory = HostMemory::new(self.dir.join("memory"));
        let storage = Arc::new(FsStorage::new(&repo));
        let repository = Repository::open(storage, &memory, Create::Nothing, clock()).unwrap();
        let cluster = repository.cluster(&"main".parse().unwrap(), None).unwrap();
        let listed = cluster.backups().unwrap();
        match result {
            Ok(taken) => {
                assert_eq!(listed.len(), 1, "{what}");
                let data = self.dir.join("restored");
                verify(&self.server, &restore_by_hand(&repo, &taken.backup, &data));
                the_wal_is_there(&repo, &taken.backup);
                std::fs::remove_dir_all(data).unwrap();
            }
            Err(error) => assert!(listed.is_empty(), "{what} failed ({error}), and is listed"),
        }
        no_traces(&self.server);
        std::fs::remove_dir_all(repo.join("main/0001/backup")).unwrap_or_default();
    }

    /// One backup without a fault, and the storage that has counted its calls.
    fn counted(&self) -> Arc<FaultyStorage<FsStorage>> {
        drop(std::fs::remove_dir_all(self.dir.join("repo/main/0001/backup")));
        let storage = Arc::new(FaultyStorage::new(FsStorage::new(self.dir.join("repo"))));
        let result = over(Arc::clone(&storage) as Arc<dyn Storage>, &self.connection, &self.dir);
        self.judge("no fault", &result);
        storage
    }

    /// Runs a backup for every call, with the fault at it; how many met it (one backup may need a call less
    /// than another), and how many failed, or could not roll up behind it.
    fn every_call(&self, fault: Fault) -> (u64, u64) {
        let (mut hit, mut failed) = (0, 0);
        let monitor = NotRolledUp::default();
        for k in 1..=self.counted().total() {
            let storage = Arc::new(FaultyStorage::new(FsStorage::new(self.dir.join("repo"))));
            storage.on(None, k, fault);
            let watched_over = Arc::clone(&storage) as Arc<dyn Storage>;
            let result = watched(watched_over, &self.connection, &self.dir, None, &monitor);
            hit += u64::from(storage.total() >= k);
            failed += u64::from(result.is_err());
            self.judge(&format!("{fault:?} at call {k}"), &result);
        }
        (hit, failed + monitor.0.into_inner())
    }
}

fn the_wal_is_there(repo: &Path, backup: &pitr::repository::backup_set::format::Backup) {
    let size = backup.segment_size;
    let wal = repo.join("main/0001/wal");
    for number in size.number_of(backup.start_lsn)..=size.number_of(pitr::types::Lsn(backup.stop_lsn.0 - 1)) {
        let name = pitr::types::SegmentName::from_number(backup.timeline, number, size).to_string();
        let object = wal.join(&name[..8]).join(&name[8..16]).join(format!("{name}.zst"));
        assert!(Command::new("zstd").arg("-qt").arg(&object).status().unwrap().success(), "{object:?}");
    }
}

#[test]
fn a_call_that_fails_or_loses_its_answer_never_lists_half_a_backup_for_every_call() {
    let faults = Faults::new();
    let (hit, failed) = faults.every_call(Fault::Fail(StorageErrorKind::Permanent));
    assert!(hit > 20, "{hit} calls");
    assert_eq!(failed, hit, "a permanent failure was overlooked");
    // A lost answer to the last write is found to be stored.
    let (hit, failed) = faults.every_call(Fault::LoseAnswer);
    assert!((hit / 2..hit).contains(&failed), "{failed} of {hit}");
}

#[test]
fn what_passes_within_the_budget_costs_no_backup_for_every_call() {
    let faults = Faults::new();
    let counted = faults.counted();
    // All but writes in the middle of an object: how much of it arrived is not known, so they are not tried again.
    let calls = [
        Call::Begin,
        Call::Commit,
        Call::Create,
        Call::Read,
        Call::ReadRange,
        Call::Size,
        Call::List,
        Call::ListFolders,
    ];
    for fault in [Fault::LoseAnswer, Fault::Fail(StorageErrorKind::Transient)] {
        for call in calls {
            for k in 1..=counted.count(call) {
                let faulty = FaultyStorage::new(FsStorage::new(faults.dir.join("repo")));
                faulty.on(Some(call), k, fault);
                let storage = Arc::new(RetryStorage::new(faulty, Duration::from_secs(5)));
                let result = over(storage, &faults.connection, &faults.dir);
                assert!(result.is_ok(), "{fault:?} at {call:?} {k}: {result:?}");
                faults.judge(&format!("{fault:?} at {call:?} {k}"), &result);
            }
        }
    }
}

#[test]
fn what_cannot_be_stored_is_not_received_any_more() {
    let faults = Faults::new();
    faults.counted();
    let faulty = FaultyStorage::new(FsStorage::new(faults.dir.join("repo")));
    // The first part, for which a frame of 4 MiB is ready then. The server takes as long for another one.
    faulty.on(Some(Call::Begin), 1, Fault::Fail(StorageErrorKind::Full));
    let received = Received::default();
    let result = watched(Arc::new(faulty), &faults.connection, &faults.dir, Some(2048), &received);
    let received = received.0.into_inner() >> 10;
    assert!(result.as_ref().is_err_and(|e| e.contains("/base/")), "{result:?}");
    assert!((4096..6144).contains(&received), "{received} KiB");
    faults.judge("full", &result);
}

#[test]
fn what_is_read_short_is_never_taken_for_what_is_there() {
    let faults = Faults::new();
    for length in [0, 7] {
        faults.every_call(Fault::Truncate(length));
    }
}

#[test]
fn a_bucket_that_takes_longer_than_the_server_waits_for_a_word_costs_no_backup() {
    let dir = TestDir::new();
    let server =
        Server::build(&dir, "primary").initdb("--wal-segsize=1").set("wal_sender_timeout", "2s").start();
    let store = S3Server::start(S3Kind::Ceph);
    let slow = AtomicUsize::new(0);
    let proxy = BrokenS3::start(Some(&store.endpoint), move |first, _| {
        let wal = first.starts_with("PUT") && first.contains("/wal/");
        if wal && slow.fetch_add(1, Ordering::Relaxed) == 0 {
            std::thread::sleep(Duration::from_secs(6));
        }
        Answer::PassOn
    });
    let mut pitr =
        Pitr::new(&dir).repository(format!("s3://{}/prefix", store.bucket())).connecting_to(&server);
    for (name, value) in store.environment() {
        pitr = pitr.env(name, value);
    }
    let pitr = pitr.env("PITR_REPOSITORY_ENDPOINT", &proxy.endpoint);
    let backup = std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..30 {
                server.sql("SELECT pg_logical_emit_message(false, 'x', 'y')");
                server.sql("SELECT pg_switch_wal()");
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        take(&pitr, &["--wal=include", "--max-rate=8M"])
    });
    assert_eq!(listed(&pitr), (vec![backup.id.to_string()], vec![]));
    assert!(!server.log().contains("terminating walsender process"), "{}", server.log());
    no_traces(&server);
}

#[test]
fn answers_of_a_bucket_that_are_lost_cost_no_backup() {
    let dir = TestDir::new();
    let server = Server::build(&dir, "primary").start();
    let store = S3Server::start(S3Kind::Ceph);
    let bucket = store.bucket();
    // The first PUT of each of these is stored, and its answer never comes.
    let lost = [
        "/started.json",
        "/base/0000000000.zst",
        "/files.zst",
        "/backup_manifest.zst",
        "/backup.json",
        "/wal/",
    ];
    let left = std::sync::Mutex::new(lost.to_vec());
    let proxy = BrokenS3::start(Some(&store.endpoint), move |first, _| {
        let mut left = left.lock().unwrap();
        let hit = left.iter().position(|name| first.starts_with("PUT") && first.contains(name));
        hit.map_or(Answer::PassOn, |at| {
            left.remove(at);
            Answer::StoreAndHangUp
        })
    });
    let to = |endpoint: &str| {
        let mut pitr = Pitr::new(&dir).repository(format!("s3://{bucket}/prefix")).connecting_to(&server);
        for (name, value) in store.environment() {
            pitr = pitr.env(name, value);
        }
        pitr.env("PITR_REPOSITORY_ENDPOINT", endpoint)
    };
    let backup = take(&to(&proxy.endpoint), &["--wal=include"]);
    let direct = to(&store.endpoint);
    assert_eq!(listed(&direct), (vec![backup.id.to_string()], vec![]));

    // What is refused for good ends it, and nothing more is listed.
    let refusing = BrokenS3::start(Some(&store.endpoint), |first, _| {
        let refused = first.starts_with("PUT") && first.contains("/backup_manifest.zst");
        if refused { Answer::Error(403, "AccessDenied") } else { Answer::PassOn }
    });
    let failed = to(&refusing.endpoint).run(["backup", "--wal=include"]);
    failed.expect_code(1);
    failed.expect_said("/backup_manifest.zst");
    let (backups, unfinished) = listed(&direct);
    assert_eq!((backups.len(), unfinished.len()), (1, 1));
    no_traces(&server);
}
