//! The threads: fetch a frame, decode it, prove it, write what lies in it, while its bytes are still in their core's
//! cache. Another thread keeps the disk busy meanwhile, so that little is left to wait for at the end.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use super::claim::Claimed;
use super::schedule::{Plan, Schedule, Work};
use super::{Monitor, RestoreError};
use crate::codec::FrameDecoder;
use crate::repository::backup_set::Index;
use crate::repository::{Cluster, RepositoryError};

/// Writes every file but `pg_control`, whose bytes are the answer. Memory is a constant: each thread has
/// one stored and one raw frame, and waits for the next while the schedule waits for it.
pub(super) fn write_all(
    plan: &Plan<'_>,
    index: &Index,
    claims: &Claimed,
    threads: usize,
    monitor: &dyn Monitor,
) -> Result<Vec<u8>, RestoreError> {
    // The first failure of any thread: what the others say after it is only an echo.
    let failure = Mutex::new(None);
    let control = std::thread::scope(|scope| {
        let (flush, flushes) = sync_channel(1);
        let progress = Progress { failure: &failure, monitor, flush, written: AtomicU64::new(0) };
        scope.spawn(|| flush_ahead(claims, flushes, &failure));
        let progress = Arc::new(progress);
        let (work, queue) = sync_channel(threads.max(1));
        // Owned by the threads alone: when they are gone, the schedule notices.
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..threads.max(1) {
            let (queue, progress) = (Arc::clone(&queue), Arc::clone(&progress));
            scope.spawn(move || {
                if let Err(e) = work_off(plan.cluster, &queue, &progress) {
                    fail(progress.failure, e);
                }
            });
        }
        drop(queue);
        // With the last thread the flushes end, too.
        drop(progress);
        Schedule::run(plan, index, |piece| work.send(piece).is_ok())
    });
    if let Some(failure) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(failure);
    }
    let control = control?.and_then(|output| output.held());
    control.ok_or_else(|| {
        RestoreError::Taken("the restore stopped before its end, and no thread has said why".to_owned())
    })
}

/// So many bytes are given to the disk at once: enough for long runs of blocks, few enough that the last
/// ones take no time of their own.
const AHEAD: u64 = 64 << 20;

/// What the threads share.
struct Progress<'a> {
    failure: &'a Mutex<Option<RestoreError>>,
    monitor: &'a dyn Monitor,
    flush: SyncSender<()>,
    written: AtomicU64,
}

impl Progress<'_> {
    fn written(&self, bytes: u64) {
        self.monitor.written(bytes);
        let before = self.written.fetch_add(bytes, Ordering::Relaxed);
        if before / AHEAD != (before + bytes) / AHEAD {
            // A flush that has not begun yet will see these bytes, too.
            let _ = self.flush.try_send(());
        }
    }
}

fn flush_ahead(claims: &Claimed, flushes: Receiver<()>, failure: &Mutex<Option<RestoreError>>) {
    for () in flushes {
        if let Err(e) = claims.sync_ahead() {
            return fail(failure, e);
        }
    }
}

fn fail(failure: &Mutex<Option<RestoreError>>, error: RestoreError) {
    failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
}

fn work_off(
    cluster: &Cluster<'_>,
    queue: &Mutex<Receiver<Work>>,
    progress: &Progress<'_>,
) -> Result<(), RestoreError> {
    let codec = |e| RestoreError::File { action: "decompress", path: "a frame".to_owned(), source: e };
    let mut decoder = FrameDecoder::by_digest_alone().map_err(codec)?;
    let mut raw = Vec::new();
    loop {
        // Held while it waits: the others wait for the lock instead of the queue, which is the same.
        let work = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(work) = work else { return Ok(()) };
        if progress.failure.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            return Ok(());
        }
        let object = || cluster.object_url(&work.part);
        let frame = &work.frame;
        let stored = cluster
            .storage()
            .read_range(&work.part, frame.at..frame.at + u64::from(frame.stored))
            .map_err(RepositoryError::from)?
            .ok_or_else(|| RepositoryError::damaged(object(), "it is missing"))?;
        if stored.len() != frame.stored as usize {
            return Err(RepositoryError::damaged(object(), "it ends early").into());
        }
        decoder
            .decode(&stored, frame.raw as usize, frame.proof(), &mut raw)
            .map_err(|e| RepositoryError::codec(object(), e))?;
        drop(stored);
        let mut written = 0;
        for piece in work.pieces {
            let bytes = piece.of(&raw)?;
            piece.output.write(piece.at, bytes, crc32c::crc32c(bytes))?;
            written += bytes.len() as u64;
        }
        progress.written(written);
    }
}
