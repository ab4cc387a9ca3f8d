//! `pitr backup`: a base backup over the replication protocol, stored while it arrives.
//!
//! A byte's way: socket → frames of 4 MiB, with the tar's entries and their checksums noted on the way
//! ([`intake`]) → compressed on several threads → written in order into parts ([`pipeline`]). The manifest
//! comes last and is compared with what was noted ([`join`]). Then the index and the manifest are stored,
//! the WAL that the backup needs is waited for ([`wal`]) or was brought along meanwhile (`include`), and
//! one small object makes it a backup.
//!
//! Whatever fails before that leaves nothing that any command lists. The protocol cannot resume a backup.

mod error;
mod include;
mod intake;
mod join;
mod pipeline;
mod wal;

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::runtime::Runtime;

pub use error::BackupError;
pub use include::WalSink;

use crate::postgres::base_backup::{BaseBackup, BaseBackupEvent, BaseBackupOptions, Checkpoint};
use crate::postgres::replication::{ReplicationClient, SystemIdentity};
use crate::postgres::{ConnInfo, PostgresError};
pub use crate::repository::backup_set::format::Backup;
use crate::repository::backup_set::format::{FORMAT, Source, Started, Status, WalMode};
use crate::repository::backup_set::{BackupSetError, BackupWriter, Spool};
use crate::repository::layout::EpochLayout;
use crate::storage::Storage;
use crate::types::{BackupId, BackupType, Lsn, Moment, SegmentName, SegmentSize, SystemId, TimelineId};
use intake::{Intake, IntakeError};
use join::ManifestJoin;

/// Whoever shows what happens. Called from several threads.
pub trait Monitor: Sync + std::fmt::Debug {
    /// The backup has a name, and the server has said how large it thinks it is.
    fn started(&self, _id: &BackupId, _estimate: Option<u64>) {}
    /// Raw bytes received so far.
    fn received(&self, _bytes: u64) {}
    /// Bytes stored so far.
    fn stored(&self, _bytes: u64) {}
    /// All files are stored; this segment of WAL is not, yet. `by_itself`: only the primary's own traffic
    /// (or somebody who calls `pg_switch_wal()` there) will end it.
    fn waiting(&self, _segment: SegmentName, _by_itself: bool) {}
    /// Something that the operator should know and that stops nothing.
    fn warning(&self, _text: &str) {}
}

/// Where a backup goes: one epoch of one cluster in a repository.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The repository's storage.
    pub storage: &'a dyn Storage,
    /// The names of its objects.
    pub layout: &'a EpochLayout,
}

/// Where the WAL from the backup's start to its end comes from.
#[derive(Clone, Copy)]
pub enum Wal<'a> {
    /// The server's archiver.
    Archive {
        /// Asked to end its segment where the backup is of a standby.
        primary: Option<&'a ConnInfo>,
    },
    /// A second connection.
    Include {
        /// To the server that is backed up.
        connection: &'a ConnInfo,
        /// Where it goes.
        sink: &'a dyn WalSink,
    },
}

impl std::fmt::Debug for Wal<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Archive { .. } => "Archive",
            Self::Include { .. } => "Include",
        })
    }
}

/// What the operator chose.
#[derive(Debug, Clone)]
pub struct BackupOptions {
    /// In one line.
    pub label: String,
    /// Notes.
    pub annotations: BTreeMap<String, String>,
    /// How soon the server begins.
    pub checkpoint: Checkpoint,
    /// kB/s.
    pub max_rate: Option<u32>,
    /// How long to wait for the last WAL.
    pub wal_timeout: Duration,
    /// Keep a backup in which the server found damaged pages.
    pub keep_damaged: bool,
    /// zstd's.
    pub level: i32,
    /// Compressing threads.
    pub threads: usize,
    /// This host's name.
    pub host: String,
}

/// A server that can be backed up: reached, and asked who it is.
#[derive(Debug)]
pub struct BackupSource {
    runtime: Runtime,
    client: ReplicationClient,
    identity: SystemIdentity,
    segment_size: SegmentSize,
    standby: bool,
    archive_mode: String,
}

impl BackupSource {
    /// Logs in and asks.
    pub fn connect(info: &ConnInfo) -> Result<Self, BackupError> {
        let runtime = wal::runtime()?;
        let (client, identity, segment_size, standby, archive_mode) = runtime.block_on(async {
            let mut client = ReplicationClient::connect(info).await?;
            let identity = client.identify_system().await?;
            let size = client.segment_size().await?;
            let standby = client.is_standby().await?;
            let archive_mode = client.show("archive_mode").await?;
            Ok::<_, PostgresError>((client, identity, size, standby, archive_mode))
        })?;
        Ok(Self { runtime, client, identity, segment_size, standby, archive_mode })
    }

    /// Whether the server archives at all.
    pub fn archives(&self) -> bool {
        self.archive_mode != "off"
    }

    /// The cluster's number: what the repository's cluster must be bound to.
    pub fn system_id(&self) -> SystemId {
        self.identity.system_id
    }

    /// The cluster's segment size.
    pub fn segment_size(&self) -> SegmentSize {
        self.segment_size
    }

    /// 13, 14, …
    pub fn major(&self) -> u32 {
        self.client.major()
    }
}

/// Takes a backup.
pub fn backup(
    source: &mut BackupSource,
    wal: Wal<'_>,
    target: Target<'_>,
    options: &BackupOptions,
    clock: &(dyn Fn() -> Moment + Sync),
    monitor: &dyn Monitor,
) -> Result<Backup, BackupError> {
    check(source, wal, options)?;
    let (size, system) = (source.segment_size, source.identity.system_id);
    let start_time = clock();
    // Before the backup begins: the slot is what keeps its WAL.
    let included = match wal {
        Wal::Include { connection, .. } => {
            Some(include::Included::prepare(connection, system, size, source.standby, start_time)?)
        }
        Wal::Archive { .. } => None,
    };
    let begin = BaseBackupOptions {
        label: options.label.clone(),
        checkpoint: options.checkpoint,
        max_rate: options.max_rate,
        manifest_checksums: "CRC32C",
    };
    let version = source.client.server_version();
    let mut stream = source.runtime.block_on(source.client.base_backup(&begin))?;
    let Some(BaseBackupEvent::Start { lsn, timeline, tablespaces }) =
        source.runtime.block_on(stream.next())?
    else {
        return Err(PostgresError::Protocol("no start of the backup".to_owned()).into());
    };

    let mut started = Started {
        format: FORMAT,
        id: BackupId::new(start_time.0, BackupType::Full),
        start_time,
        start_lsn: lsn,
        timeline,
        host: options.host.clone(),
        pid: std::process::id(),
    };
    claim(target, &mut started)?;
    let writer = BackupWriter::new(target.storage, target.layout, &started.id);
    let estimate = tablespaces.iter().map(|t| t.size).try_fold(0u64, |sum, size| Some(sum + size?));
    monitor.started(&started.id, estimate);

    let reins = include::Reins::default();
    let mut received = std::thread::scope(|scope| {
        let streaming = match (included, wal) {
            (Some(included), Wal::Include { sink, .. }) => {
                let (reins, limit) = (&reins, options.wal_timeout);
                Some(scope.spawn(move || included.run(lsn, timeline, sink, reins, limit, clock)))
            }
            _ => None,
        };
        let received = receive(&source.runtime, &mut stream, writer, options, &reins, clock, monitor);
        match &received {
            Ok(received) => reins.stop_at(received.stop.0),
            Err(_) => reins.cancel(),
        }
        let streamed = streaming.map_or(Ok(()), |handle| {
            handle.join().unwrap_or_else(|_| Err(BackupError::local("stream WAL")("its thread has panicked")))
        });
        // A stream that failed is why the backup was given up, so it goes first.
        match (received, streamed) {
            (Ok(received), Ok(())) => Ok(received),
            (_, Err(e)) | (Err(e), Ok(())) => Err(e),
        }
    })?;
    let stop_time = received.stop_time;
    if let Some(found) = received.manifest.system_identifier.filter(|id| *id != system) {
        return Err(BackupError::OtherSystem { what: "manifest", expected: system, found });
    }
    writer.files(&mut received.index)?;
    writer.manifest(&mut received.manifest_spool)?;

    if let Wal::Archive { primary } = wal {
        let segments = wal::segments(&received.manifest.wal_ranges, size);
        let nudge = match (source.standby, primary) {
            (false, _) => wal::Nudge::NotNeeded,
            (true, Some(info)) => wal::Nudge::Primary(info),
            (true, None) => wal::Nudge::Nobody,
        };
        wal::wait(target, &segments, size, &nudge, system, options.wal_timeout, monitor)?;
    }

    let damaged = !received.damage.is_empty();
    let backup = Backup {
        format: FORMAT,
        id: started.id.clone(),
        kind: BackupType::Full,
        label: options.label.clone(),
        annotations: options.annotations.clone(),
        start_time,
        stop_time,
        start_lsn: lsn,
        stop_lsn: received.stop.0,
        timeline,
        stop_timeline: received.stop.1,
        system_identifier: system,
        postgres_major: version / 10_000,
        server_version: version,
        source: if source.standby { Source::Standby } else { Source::Primary },
        segment_size: size,
        size: received.archives.iter().map(|a| a.size).sum(),
        stored_size: received.archives.iter().map(|a| a.stored_size).sum(),
        archives: std::mem::take(&mut received.archives),
        files: received.files,
        index: received.index.digest(),
        manifest: received.manifest_spool.digest(),
        wal: if matches!(wal, Wal::Include { .. }) { WalMode::Include } else { WalMode::Archive },
        status: if damaged { Status::Damaged } else { Status::Complete },
        damage: received.damage,
        pitr_version: env!("CARGO_PKG_VERSION").to_owned(),
        host: options.host.clone(),
    };
    writer.commit(&backup)?;
    Ok(backup)
}

/// What the server would refuse only after a checkpoint, or never.
fn check(source: &BackupSource, wal: Wal<'_>, options: &BackupOptions) -> Result<(), BackupError> {
    if options.label.contains(['\n', '\r']) || options.label.len() >= 1024 {
        return Err(BackupError::Argument("a label is one line of less than 1024 bytes".to_owned()));
    }
    if options.max_rate.is_some_and(|rate| !(32..=1_048_576).contains(&rate)) {
        return Err(BackupError::Argument("the server takes rates from 32 kB/s to 1 GB/s".to_owned()));
    }
    if source.archive_mode == "off" && matches!(wal, Wal::Archive { .. }) {
        return Err(BackupError::Setting(
            "archive_mode is off on the server: the WAL that the backup needs would never be in the repository"
                .to_owned(),
        ));
    }
    Ok(())
}

/// Writes `started.json`; a name that is taken (backups begun in one second, as a loop over a server that
/// refuses makes them) is moved on by a second. The name is no clock: the times are in the object.
fn claim(target: Target<'_>, started: &mut Started) -> Result<(), BackupError> {
    for later in 0..60 {
        let moment = started.start_time.0 + jiff::SignedDuration::from_secs(later);
        started.id = BackupId::new(moment, BackupType::Full);
        if BackupWriter::start(target.storage, target.layout, started)? {
            return Ok(());
        }
    }
    Err(BackupError::Set(BackupSetError::Taken(target.layout.started(&started.id))))
}

struct Received {
    archives: Vec<crate::repository::backup_set::format::Archive>,
    index: Spool,
    manifest: crate::pgdata::backup_manifest::Manifest,
    manifest_spool: Spool,
    stop: (Lsn, TimelineId),
    stop_time: Moment,
    files: u64,
    damage: Vec<String>,
}

/// Runs the stream to its end. Nothing that blocks on the store runs inside of the connection's runtime.
fn receive(
    runtime: &Runtime,
    stream: &mut BaseBackup<'_>,
    writer: BackupWriter<'_>,
    options: &BackupOptions,
    reins: &include::Reins,
    clock: &dyn Fn() -> Moment,
    monitor: &dyn Monitor,
) -> Result<Received, BackupError> {
    let failure = pipeline::FirstFailure::default();
    let result = std::thread::scope(|scope| {
        let (feed, stored) =
            pipeline::start(scope, writer, options.threads.max(1), options.level, monitor, &failure)?;
        let mut intake = Some(Intake::new(feed, monitor));
        let mut stored = Some(stored);
        let mut joined = None;
        let mut stop = None;
        let damage = loop {
            if reins.failed() {
                return Err(BackupError::local("go on")("the WAL stream has failed"));
            }
            let event = match runtime.block_on(stream.next()) {
                Ok(Some(event)) => event,
                Ok(None) => break Vec::new(),
                Err(e) => break damage(e, stop.is_some(), stream, options.keep_damaged)?,
            };
            match event {
                BaseBackupEvent::Archive { name, location } => {
                    let intake = intake.as_mut().ok_or_else(|| unexpected("a second archive"))?;
                    intake.archive(name, location).map_err(|e| cause(e, &failure))?;
                }
                BaseBackupEvent::Data(bytes) => {
                    let intake = intake.as_mut().ok_or_else(|| unexpected("data after the manifest"))?;
                    intake.data(&bytes).map_err(|e| cause(e, &failure))?;
                }
                BaseBackupEvent::Manifest(bytes) => {
                    if let (Some(done), Some(handle)) = (intake.take(), stored.take()) {
                        let (_, files) = done.finish().map_err(|e| cause(e, &failure))?;
                        let stored = handle.join().ok().flatten();
                        let stored = stored.ok_or_else(|| cause(IntakeError::Stopped, &failure))?;
                        joined = Some((ManifestJoin::new(&stored.index, options.level)?, stored, files));
                    }
                    let (join, ..) = joined.as_mut().ok_or_else(|| unexpected("a manifest"))?;
                    join.push(&bytes)?;
                }
                BaseBackupEvent::End { lsn, timeline } => stop = Some(((lsn, timeline), clock())),
                BaseBackupEvent::Progress(_) => {}
                BaseBackupEvent::Start { .. } => return Err(unexpected("a second start").into()),
            }
        };
        let (join, stored, files) = joined.ok_or_else(|| unexpected("no manifest"))?;
        let (manifest, manifest_spool) = join.finish()?;
        let (stop, stop_time) = stop.ok_or_else(|| unexpected("no end of the backup"))?;
        Ok(Received {
            archives: stored.archives,
            index: stored.index,
            manifest,
            manifest_spool,
            stop,
            stop_time,
            files,
            damage,
        })
    });
    for notice in stream.take_notices() {
        if notice.severity == "WARNING" {
            monitor.warning(&notice.message);
        }
    }
    result
}

fn unexpected(what: &str) -> PostgresError {
    PostgresError::Protocol(what.to_owned())
}

fn cause(error: IntakeError, failure: &pipeline::FirstFailure) -> BackupError {
    match error {
        IntakeError::Stream(e) => e,
        IntakeError::Stopped => failure.take().unwrap_or_else(|| {
            BackupError::local("go on")("a thread of the backup has ended without saying why")
        }),
    }
}

/// An error at the stream's end: the server reports damaged pages after it has sent everything.
fn damage(
    error: PostgresError,
    ended: bool,
    stream: &mut BaseBackup<'_>,
    keep: bool,
) -> Result<Vec<String>, BackupError> {
    if !(ended && error.code() == Some("XX001")) {
        return Err(error.into());
    }
    let mut files: Vec<String> =
        stream.take_notices().into_iter().filter(|n| n.severity == "WARNING").map(|n| n.message).collect();
    if files.is_empty() {
        files.push(error.server().map_or_else(|| error.to_string(), |e| e.message.clone()));
    }
    if keep { Ok(files) } else { Err(BackupError::DamagedPages { files }) }
}
