//! The stream from its start to its end, and what the server may say there.

use tokio::runtime::Runtime;

use super::destinations::Destinations;
use super::include::Reins;
use super::intake::{Intake, unexpected};
use super::join::ManifestJoin;
use super::pipeline::Archives;
use super::{BackupError, BackupOptions, Monitor, pipeline};
use crate::pgdata::backup_manifest::Manifest;
use crate::postgres::PostgresError;
use crate::postgres::base_backup::{BaseBackup, BaseBackupEvent};
use crate::repository::backup_set::Spool;
use crate::repository::backup_set::format::Archive;
use crate::types::{BackupId, Lsn, Moment, TimelineId};

/// Everything that is known once the stream has ended well.
pub(super) struct Received {
    pub(super) archives: Vec<Archive>,
    pub(super) index: Spool,
    pub(super) manifest: Manifest,
    pub(super) manifest_spool: Spool,
    pub(super) stop: (Lsn, TimelineId),
    pub(super) stop_time: Moment,
    pub(super) files: u64,
    pub(super) damage: Vec<String>,
}

/// Runs the stream to its end. Nothing that blocks on the store runs inside of the connection's runtime.
pub(super) fn receive(
    runtime: &Runtime,
    stream: &mut BaseBackup<'_>,
    to: (&Destinations<'_>, &BackupId),
    options: &BackupOptions,
    reins: &Reins,
    clock: &dyn Fn() -> Moment,
    monitor: &dyn Monitor,
) -> Result<Received, BackupError> {
    let intake = Intake::new(runtime, stream, reins, monitor);
    let received = pipeline::run(intake, to, options, monitor)
        .and_then(|archives| finish(runtime, stream, archives, options, reins, clock));
    for notice in stream.take_notices() {
        if notice.severity == "WARNING" {
            monitor.warning(&notice.message);
        }
    }
    received
}

/// What comes behind the archives: the manifest, and the backup's end.
fn finish(
    runtime: &Runtime,
    stream: &mut BaseBackup<'_>,
    archives: Archives,
    options: &BackupOptions,
    reins: &Reins,
    clock: &dyn Fn() -> Moment,
) -> Result<Received, BackupError> {
    let Archives { stored, files, manifest } = archives;
    let mut join = ManifestJoin::new(&stored.index, options.level, &options.temp_dir)?;
    join.push(&manifest)?;
    let mut stop = None;
    let damage = loop {
        reins.check()?;
        match runtime.block_on(stream.next(&mut Vec::new(), 0)) {
            Ok(Some(BaseBackupEvent::Manifest(bytes))) => join.push(&bytes)?,
            Ok(Some(BaseBackupEvent::End { lsn, timeline })) => stop = Some(((lsn, timeline), clock())),
            Ok(Some(BaseBackupEvent::Progress(_))) => {}
            Ok(Some(BaseBackupEvent::Archive { .. })) => return Err(unexpected("a second archive").into()),
            Ok(Some(BaseBackupEvent::Data)) => return Err(unexpected("data after the manifest").into()),
            Ok(Some(BaseBackupEvent::Start { .. })) => return Err(unexpected("a second start").into()),
            Ok(None) => break Vec::new(),
            Err(e) => break damage(e, stop.is_some(), stream, options.keep_damaged)?,
        }
    };
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
