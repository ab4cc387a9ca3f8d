//! The threads: fetch a frame, decode it, prove it, write the files that lie in it. Pieces of larger files go
//! to one thread that writes them in turn: a file's lock lets in one writer at a time, and several that meet
//! there wait longer than they work. Another thread keeps the disk busy meanwhile, so that little is left to
//! wait for at the end.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use super::claim::Claimed;
use super::schedule::{Piece, Plan, Schedule, Work};
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
        let (to_writer, shared) = sync_channel(1);
        let (give_back, buffers) = channel();
        for _ in 0..threads.max(1) + 2 {
            drop(give_back.send(Vec::new()));
        }
        let buffers = Arc::new(Mutex::new(buffers));
        let writing = Arc::clone(&progress);
        let returned = give_back.clone();
        scope.spawn(move || {
            if let Err(e) = write_shared(shared, &returned, &writing) {
                fail(writing.failure, e);
            }
        });
        for _ in 0..threads.max(1) {
            let pool = Pool {
                buffers: Arc::clone(&buffers),
                give_back: give_back.clone(),
                to_writer: to_writer.clone(),
            };
            let (queue, progress) = (Arc::clone(&queue), Arc::clone(&progress));
            scope.spawn(move || {
                if let Err(e) = work_off(plan.cluster, &queue, &pool, &progress) {
                    fail(progress.failure, e);
                }
            });
        }
        drop((queue, to_writer, buffers, give_back));
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

/// A frame's raw bytes, with the pieces of larger files in it and the CRC32C of each.
type Shared = (Vec<u8>, Vec<(Piece, u32)>);

/// The buffers for raw bytes, which go round: constant memory, and nothing can pile up anywhere.
struct Pool {
    buffers: Arc<Mutex<Receiver<Vec<u8>>>>,
    give_back: Sender<Vec<u8>>,
    to_writer: SyncSender<Shared>,
}

fn write_shared(
    shared: Receiver<Shared>,
    give_back: &Sender<Vec<u8>>,
    progress: &Progress<'_>,
) -> Result<(), RestoreError> {
    for (raw, pieces) in shared {
        let mut written = 0;
        for (piece, sum) in &pieces {
            piece.output.write(piece.at, piece.of(&raw)?, *sum)?;
            written += piece.length as u64;
        }
        progress.written(written);
        drop(give_back.send(raw));
    }
    Ok(())
}

fn work_off(
    cluster: &Cluster<'_>,
    queue: &Mutex<Receiver<Work>>,
    pool: &Pool,
    progress: &Progress<'_>,
) -> Result<(), RestoreError> {
    let codec = |e| RestoreError::File { action: "decompress", path: "a frame".to_owned(), source: e };
    let mut decoder = FrameDecoder::by_digest_alone().map_err(codec)?;
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
        let buffer = pool.buffers.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(mut raw) = buffer else { return Ok(()) };
        decoder
            .decode(&stored, frame.raw as usize, frame.proof(), &mut raw)
            .map_err(|e| RepositoryError::codec(object(), e))?;
        drop(stored);
        let (mut written, mut shared) = (0, Vec::new());
        for piece in work.pieces {
            let bytes = piece.of(&raw)?;
            let sum = crc32c::crc32c(bytes);
            if piece.output.is_shared() {
                shared.push((piece, sum));
            } else {
                piece.output.write(piece.at, bytes, sum)?;
                written += bytes.len() as u64;
            }
        }
        progress.written(written);
        if shared.is_empty() {
            drop(pool.give_back.send(raw));
        } else if pool.to_writer.send((raw, shared)).is_err() {
            // It has failed, and has said why.
            return Ok(());
        }
    }
}
