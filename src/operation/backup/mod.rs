//! `pitr backup`: a base backup over the replication protocol, stored while it arrives.
//!
//! A byte's way: socket → frames of 4 MiB, with the tar's entries and their checksums noted on the way
//! ([`intake`]), each compressed by the thread that received it ([`pipeline`]) → written in order into parts
//! ([`in_order`]), of every repository ([`destinations`]). The manifest comes last and is compared with what was noted ([`join`]).
//! Then the index and the manifest are stored, the WAL that the backup needs is waited for ([`wal`]) or was
//! brought along meanwhile (`include`), and one small object makes it a backup.
//!
//! Whatever fails before that leaves nothing that is listed as a backup. The protocol cannot resume one.

mod catalogue;
mod destinations;
mod error;
mod failure;
mod in_order;
mod include;
mod intake;
mod join;
mod options;
mod pipeline;
mod primary;
mod receive;
mod source;
mod streamed_wal;
mod wal;

pub use catalogue::live_catalogue;
pub use destinations::Failure;
pub use error::BackupError;
pub use options::{BackupOptions, Monitor, Wal};
pub use source::{Archiving, BackupSource};

use std::time::{Duration, Instant};

use super::seal::seal_complete;
use crate::durable;
use crate::operation::in_full::in_full;
use crate::postgres::PostgresError;
use crate::postgres::base_backup::{BaseBackupEvent, BaseBackupOptions};
use crate::repository::Cluster;
pub use crate::repository::backup_set::format::Backup;
use crate::repository::backup_set::format::{FORMAT, Source, Started, Status, WalMode};
use crate::repository::wal_archive::Workroom;
use crate::types::{BackupId, BackupType, Moment, TimelineId};
use destinations::{Destinations, writer};
use primary::Nudge;
use receive::Received;
use streamed_wal::StreamedWal;

/// What was done.
#[derive(Debug)]
pub struct Taken {
    /// The backup.
    pub backup: Backup,
    /// Repositories that do not have it.
    pub failed: Vec<Failure>,
}

/// Takes a backup into all of `clusters`, which are the same cluster in several repositories.
pub fn backup(
    source: &mut BackupSource,
    wal: Wal<'_>,
    clusters: &[Cluster<'_>],
    options: &BackupOptions,
    clock: &(dyn Fn() -> Moment + Sync),
    monitor: &dyn Monitor,
) -> Result<Taken, BackupError> {
    check(source, wal, options)?;
    let destinations = Destinations::new(clusters, monitor);
    let (size, system) = (source.segment_size, source.identity.system_id);
    let nudge = match wal {
        Wal::Archive { primary: Some(info), .. } if source.standby => Nudge::Primary(info, system),
        _ if source.standby => Nudge::Nobody,
        _ => Nudge::NotNeeded,
    };
    nudge.check(monitor)?;
    durable::create_dirs(&options.temp_dir, durable::DIR_MODE)
        .map_err(BackupError::local("make the directory for temporary files"))?;
    let start_time = clock();
    // Before the backup begins: the slot is what keeps its WAL.
    let included = match wal {
        Wal::Include { connection } => {
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
        source.runtime.block_on(stream.next(&mut Vec::new(), 0))?
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
    destinations.claim(&mut started)?;
    let estimate = tablespaces.iter().map(|t| t.size).try_fold(0u64, |sum, size| Some(sum + size?));
    monitor.started(&started.id, estimate);

    let workroom = Workroom::new(options.level, 1);
    let streamed =
        StreamedWal { destinations: &destinations, size, workroom: &workroom, temp_dir: &options.temp_dir };
    let reins = include::Reins::default();
    let (mut received, catalogue) = std::thread::scope(|scope| {
        let streaming = included.map(|included| {
            let (reins, limit) = (&reins, options.wal_timeout);
            scope.spawn(move || included.run(lsn, timeline, streamed, reins, limit, clock))
        });
        let names = options.catalogue.then(|| {
            let connection = match wal {
                Wal::Archive { connection, .. } | Wal::Include { connection } => connection,
            };
            let (reins, to) = (&reins, (options.level, options.temp_dir.as_path()));
            scope.spawn(move || catalogue::read(connection, system, to, reins, monitor))
        });
        let to = (&destinations, &started.id);
        let received = receive::receive(&source.runtime, &mut stream, to, options, &reins, clock, monitor);
        match &received {
            Ok(received) => reins.stop_at(received.stop.0),
            Err(_) => reins.cancel(),
        }
        let streamed = streaming.map_or(Ok(()), |handle| {
            handle.join().unwrap_or_else(|_| Err(BackupError::local("stream WAL")("its thread has panicked")))
        });
        if streamed.is_err() {
            reins.cancel();
        }
        let names = names.and_then(|handle| handle.join().ok());
        // A stream that failed is why the backup was given up, so it goes first.
        match (received, streamed) {
            (Ok(received), Ok(())) => Ok((received, names)),
            (_, Err(e)) | (Err(e), Ok(())) => Err(e),
        }
    })?;
    if let Some(found) = received.manifest.system_identifier.filter(|id| *id != system) {
        return Err(BackupError::OtherSystem { what: "manifest", expected: system, found });
    }
    destinations.each(|cluster| Ok(writer(cluster, &started.id).files(&mut received.index)?))?;
    destinations.each(|cluster| Ok(writer(cluster, &started.id).manifest(&mut received.manifest_spool)?))?;
    let catalogue = match catalogue {
        Some((Some(mut spool), facts)) => {
            destinations.each(|cluster| Ok(writer(cluster, &started.id).catalogue(&mut spool)?))?;
            Some(facts)
        }
        Some((None, facts)) => Some(facts),
        None => None,
    };

    if let Wal::Archive { connection, .. } = wal {
        // The server has them at hand, and a promotion before archiving was set up has archived none.
        for timeline in histories(timeline, &received) {
            let history = source.client.timeline_history(timeline);
            let (_, bytes) = source.runtime.block_on(history)?;
            streamed.history(timeline, &bytes)?;
        }
        let needs = wal::needs(&received.manifest.wal_ranges, size);
        let patience = wal::Patience { limit: options.wal_timeout, nudge, connection, size };
        wal::wait(&destinations, &needs, &patience, monitor)?;
    }

    let damaged = !received.damage.is_empty();
    let backup = Backup {
        format: FORMAT,
        id: started.id.clone(),
        kind: BackupType::Full,
        label: options.label.clone(),
        annotations: options.annotations.clone(),
        start_time,
        stop_time: received.stop_time,
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
        catalogue,
        wal: if matches!(wal, Wal::Include { .. }) { WalMode::Include } else { WalMode::Archive },
        status: if damaged { Status::Damaged } else { Status::Complete },
        damage: received.damage,
        pitr_version: env!("CARGO_PKG_VERSION").to_owned(),
        host: options.host.clone(),
    };
    destinations.each(|cluster| Ok(writer(cluster, &started.id).commit(&backup)?))?;
    seal(&destinations, monitor);
    Ok(Taken { backup, failed: destinations.failures() })
}

/// Seals the WAL that became complete since the last backup. The backup is made: what fails here is said,
/// and done by the next one.
fn seal(destinations: &Destinations<'_>, monitor: &dyn Monitor) {
    /// For an archive that was never sealed: each backup takes it a part further.
    const AT_MOST: Duration = Duration::from_secs(60);
    for (_, cluster) in destinations.alive() {
        let begun = Instant::now();
        if let Err(e) = seal_complete(cluster, &|| begun.elapsed() < AT_MOST) {
            let url = cluster.repository().url();
            monitor.warning(&format!(
                "the backup is complete, but not every complete stretch of WAL in {url} was rolled up: {}",
                in_full(&e)
            ));
        }
    }
}

/// The timelines from start to stop that have a history.
fn histories(start: TimelineId, received: &Received) -> Vec<TimelineId> {
    let ranges = received.manifest.wal_ranges.iter().map(|range| range.timeline);
    let mut timelines: Vec<_> = ranges.chain([start, received.stop.1]).filter(|t| t.0 > 1).collect();
    timelines.sort_unstable();
    timelines.dedup();
    timelines
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
