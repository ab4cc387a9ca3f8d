//! The stream from its start to its end, and what the server may say there.

use tokio::runtime::Runtime;

use super::destinations::Destinations;
use super::include::Reins;
use super::intake::{Intake, IntakeError};
use super::join::ManifestJoin;
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
    (destinations, id): (&Destinations<'_>, &BackupId),
    options: &BackupOptions,
    reins: &Reins,
    clock: &dyn Fn() -> Moment,
    monitor: &dyn Monitor,
) -> Result<Received, BackupError> {
    let failure = pipeline::FirstFailure::default();
    let result = std::thread::scope(|scope| {
        let (feed, stored) = pipeline::start(scope, destinations, id, options, monitor, &failure)?;
        let mut intake = Some(Intake::new(feed, monitor));
        let mut stored = Some(stored);
        let mut joined = None;
        let mut stop = None;
        let damage = loop {
            if reins.failed() {
                return Err(BackupError::local("go on")("the WAL stream has failed"));
            }
            let mut nowhere = Vec::new();
            let (room, most) = match &mut intake {
                Some(intake) => intake.room().map_err(|e| cause(e, &failure))?,
                None => (&mut nowhere, 0),
            };
            let event = match runtime.block_on(stream.next(room, most)) {
                Ok(Some(event)) => event,
                Ok(None) => break Vec::new(),
                Err(e) => break damage(e, stop.is_some(), stream, options.keep_damaged)?,
            };
            match event {
                BaseBackupEvent::Archive { name, location } => {
                    let intake = intake.as_mut().ok_or_else(|| unexpected("a second archive"))?;
                    intake.archive(name, location).map_err(|e| cause(e, &failure))?;
                }
                BaseBackupEvent::Data => {
                    let intake = intake.as_mut().ok_or_else(|| unexpected("data after the manifest"))?;
                    intake.data().map_err(|e| cause(e, &failure))?;
                }
                BaseBackupEvent::Manifest(bytes) => {
                    if let (Some(done), Some(handle)) = (intake.take(), stored.take()) {
                        let (_, files) = done.finish().map_err(|e| cause(e, &failure))?;
                        let stored = handle.join().ok().flatten();
                        let stored = stored.ok_or_else(|| cause(IntakeError::Stopped, &failure))?;
                        joined = Some((
                            ManifestJoin::new(&stored.index, options.level, &options.temp_dir)?,
                            stored,
                            files,
                        ));
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
