//! From the stream to stored parts: N threads receive and compress, one writes in order, one makes parts durable.
//!
//! A thread receives itself what it compresses, so that the bytes are still in its core's cache, and the others wait for
//! their turn or compress meanwhile. No more threads than cores: with one more, that there is always somebody who
//! receives, the server had to wait for a core and they for the server (a tenth longer, with both on one machine).
//!
//! Memory is a constant. Each thread has one buffer for what it receives, and a fixed number of buffers for what was
//! compressed circulates between the threads and the writer, so that nothing can pile up anywhere. One part is committed
//! while the next is being filled.

use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use super::destinations::{Destinations, OpenPart};
use super::failure::FirstFailure;
use super::in_order::{Done, Ordered, Stored};
use super::intake::{FRAME, Intake, Job, unexpected};
use super::{BackupError, BackupOptions, Monitor};
use crate::codec::{FrameEncoder, compress_bound};
use crate::repository::backup_set::Spool;
use crate::types::BackupId;

/// The archives.
#[derive(Debug)]
pub(super) struct Archives {
    pub(super) stored: Stored,
    pub(super) files: u64,
    /// What came behind them: the first bytes of the manifest.
    pub(super) manifest: Bytes,
}

/// Where the threads get their work from, one at a time.
struct Source<'a, 'c> {
    intake: Intake<'a, 'c>,
    empty: Receiver<Vec<u8>>,
}

/// Receives and stores all archives. When it returns, they are durable.
pub(super) fn run(
    intake: Intake<'_, '_>,
    (destinations, id): (&Destinations<'_>, &BackupId),
    options: &BackupOptions,
    monitor: &dyn Monitor,
) -> Result<Archives, BackupError> {
    let (threads, level) = (options.threads.max(1), options.level);
    let index = Spool::new(level, &options.temp_dir)
        .map_err(BackupError::local("make a temporary file for the index"))?;
    let (give_back, empty) = channel();
    for _ in 0..IN_FLIGHT.max(threads + 2) {
        drop(give_back.send(Vec::with_capacity(compress_bound(FRAME))));
    }
    let (to_writer, done) = channel();
    let failure = FirstFailure::default();
    let source = Mutex::new(Source { intake, empty });
    let stored = std::thread::scope(|scope| {
        for _ in 0..threads {
            let (source, failure, to_writer) = (&source, &failure, to_writer.clone());
            scope.spawn(move || {
                let _alarm = Alarm(to_writer.clone());
                if let Err(e) = work(source, &to_writer, level, failure) {
                    failure.set(e);
                    drop(to_writer.send((0, Done::Failed)));
                }
            });
        }
        drop(to_writer);
        let (to_committer, parts) = sync_channel::<OpenPart<'_>>(0);
        let failed = &failure;
        let committer = scope.spawn(move || {
            for part in parts {
                if let Err(e) = part.commit(destinations) {
                    failed.set(e);
                    return false;
                }
            }
            true
        });
        let ordered = Ordered::new(destinations, id, index, to_committer, monitor);
        let stored = ordered.run(&done, &give_back);
        // The threads wait for either, or for the server, and must not if there is nobody any more.
        drop((done, give_back));
        if stored.is_err() {
            failure.stop();
        }
        // Not before the last part is durable is anything said to be stored.
        let committed = committer.join().unwrap_or(false);
        match stored {
            Ok(stored) if committed => Some(stored),
            Ok(_) | Err(None) => None,
            Err(Some(e)) => {
                failure.set(e);
                None
            }
        }
    });
    let Some(stored) = stored else { return Err(failure.take()) };
    let Source { intake, .. } = source.into_inner().unwrap_or_else(PoisonError::into_inner);
    if stored.jobs != intake.jobs {
        return Err(failure.take());
    }
    let manifest = intake.manifest.ok_or_else(|| unexpected("no manifest"))?;
    Ok(Archives { stored, files: intake.files, manifest })
}

/// A thread that panics would leave everybody waiting for its frame: the panic must end the backup instead.
struct Alarm(Sender<(u64, Done)>);

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            drop(self.0.send((0, Done::Failed)));
        }
    }
}

/// One thread, until there is nothing more, or nobody who would take it.
fn work(
    source: &Mutex<Source<'_, '_>>,
    to_writer: &Sender<(u64, Done)>,
    level: i32,
    failure: &FirstFailure,
) -> Result<(), BackupError> {
    let mut encoder = FrameEncoder::new(level).map_err(BackupError::local("compress"))?;
    let mut raw = Vec::with_capacity(FRAME);
    loop {
        let mut turn = source.lock().unwrap_or_else(PoisonError::into_inner);
        // In the order of the frames, or later ones could take all of them while the writer waits for this one.
        let Ok(mut stored) = turn.empty.recv() else { return Ok(()) };
        let Some((number, job)) = turn.intake.job(&mut raw, failure)? else { return Ok(()) };
        drop(turn);
        let done = match job {
            Job::Archive { name, location } => Done::Archive { name, location, buffer: stored },
            Job::Frame { blake3, entries } => {
                encoder.append(&raw, &mut stored).map_err(BackupError::local("compress"))?;
                Done::Frame { raw: raw.len(), entries, stored, blake3 }
            }
        };
        if to_writer.send((number, done)).is_err() {
            return Ok(());
        }
    }
}

/// Buffers for compressed frames at least: the writer may wait for a store.
const IN_FLIGHT: usize = 8;
