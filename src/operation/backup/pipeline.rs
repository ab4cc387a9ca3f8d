//! From raw frames to stored parts: N threads compress, one writes in order, one makes parts durable.
//!
//! Memory is a constant. A fixed number of buffers circulates: the receiving side takes an empty one, a compressing
//! thread passes on the one that it compressed into and keeps the other for its next frame, the writer gives back what
//! was written in its turn, so that nothing can pile up anywhere. One part is committed while the next is being filled.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::Scope;

use super::destinations::{Destinations, OpenPart};
use super::{BackupError, BackupOptions, Monitor};
use crate::codec::{FrameEncoder, MAX_FRAME_RAW, compress_bound};
use crate::repository::backup_set::format::{Archive, Entry, Frame, IndexLine};
use crate::repository::backup_set::{PART_SIZE, Spool};
use crate::types::BackupId;

/// One frame's raw bytes, or the start of an archive.
#[derive(Debug)]
pub(super) enum Job {
    /// A tar stream begins.
    Archive { name: String, location: Option<String> },
    /// The next frame of it.
    Frame {
        raw: Vec<u8>,
        /// Of those.
        blake3: String,
        /// What became complete within it.
        entries: Vec<Entry>,
    },
}

enum Done {
    Archive {
        name: String,
        location: Option<String>,
    },
    Frame {
        raw: usize,
        entries: Vec<Entry>,
        stored: Vec<u8>,
        blake3: String,
    },
    /// A thread has given up, and its frame will never come.
    Failed,
}

/// What was stored.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) archives: Vec<Archive>,
    pub(super) index: Spool,
}

/// The first failure of any thread: what the others say after it is only an echo.
#[derive(Debug, Default)]
pub(super) struct FirstFailure(Mutex<Option<BackupError>>);

impl FirstFailure {
    fn set(&self, error: BackupError) {
        let mut slot = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        slot.get_or_insert(error);
    }

    pub(super) fn take(&self) -> Option<BackupError> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
    }
}

/// The receiving side's end of the pipeline.
#[derive(Debug)]
pub(super) struct Feed {
    jobs: SyncSender<(u64, Job)>,
    empty: Receiver<Vec<u8>>,
    next: u64,
}

/// The pipeline has stopped; why is in [`FirstFailure`].
#[derive(Debug)]
pub(super) struct Stopped;

impl Feed {
    /// An empty buffer, once there is one.
    pub(super) fn buffer(&self) -> Result<Vec<u8>, Stopped> {
        self.empty.recv().map_err(|_| Stopped)
    }

    pub(super) fn send(&mut self, job: Job) -> Result<(), Stopped> {
        self.jobs.send((self.next, job)).map_err(|_| Stopped)?;
        self.next += 1;
        Ok(())
    }
}

/// Starts the threads. The returned handle gives what was stored once the feed is dropped; `None` after a
/// failure.
pub(super) fn start<'scope, 'env: 'scope>(
    scope: &'scope Scope<'scope, 'env>,
    destinations: &'env Destinations<'env>,
    id: &'env BackupId,
    options: &BackupOptions,
    monitor: &'env dyn Monitor,
    failure: &'env FirstFailure,
) -> Result<(Feed, std::thread::ScopedJoinHandle<'scope, Option<Stored>>), BackupError> {
    let (threads, level) = (options.threads.max(1), options.level);
    let (jobs, queue) = sync_channel(IN_FLIGHT);
    // Owned by the threads alone: when they are gone, the feed notices.
    let queue = Arc::new(Mutex::new(queue));
    let (give_back, empty) = channel();
    let frames = IN_FLIGHT.max(threads + 2);
    for _ in 0..frames {
        drop(give_back.send(buffer()));
    }
    let (to_writer, done) = channel();
    let index = Spool::new(level, &options.temp_dir)
        .map_err(BackupError::local("make a temporary file for the index"))?;
    for _ in 0..threads {
        let (queue, to_writer) = (Arc::clone(&queue), to_writer.clone());
        scope.spawn(move || {
            let _alarm = Alarm(to_writer.clone());
            if let Err(e) = compress(&queue, &to_writer, level) {
                failure.set(e);
                drop(to_writer.send((0, Done::Failed)));
            }
        });
    }
    drop(queue);
    drop(to_writer);
    let (to_committer, parts) = sync_channel::<OpenPart<'env>>(0);
    let committer = scope.spawn(move || {
        for part in parts {
            if let Err(e) = part.commit(destinations) {
                failure.set(e);
                return false;
            }
        }
        true
    });
    let handle = scope.spawn(move || {
        let mut ordered = Ordered {
            destinations,
            id,
            index,
            to_committer,
            archives: Vec::new(),
            part: None,
            monitor,
            stored: 0,
        };
        let result = ordered.run(&done, &give_back);
        let Ordered { archives, index, to_committer, .. } = ordered;
        drop(to_committer);
        // Not before the last part is durable is anything said to be stored.
        let committed = committer.join().unwrap_or(false);
        match result {
            Ok(()) if committed => Some(Stored { archives, index }),
            Ok(()) | Err(None) => None,
            Err(Some(e)) => {
                failure.set(e);
                None
            }
        }
    });
    Ok((Feed { jobs, empty, next: 0 }, handle))
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

fn compress(
    queue: &Mutex<Receiver<(u64, Job)>>,
    to_writer: &Sender<(u64, Done)>,
    level: i32,
) -> Result<(), BackupError> {
    let mut encoder = FrameEncoder::new(level).map_err(BackupError::local("compress"))?;
    let mut room = buffer();
    loop {
        // Held while it waits: the other threads wait for the lock instead of the queue, which is the same.
        let job = queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).recv();
        let Ok((number, job)) = job else { return Ok(()) };
        let done = match job {
            Job::Archive { name, location } => Done::Archive { name, location },
            Job::Frame { raw, blake3, entries } => {
                room.clear();
                encoder.append(&raw, &mut room).map_err(BackupError::local("compress"))?;
                // What the raw bytes were in is the next room: a frame never has two buffers while it waits.
                let (length, stored) = (raw.len(), std::mem::replace(&mut room, raw));
                Done::Frame { raw: length, entries, stored, blake3 }
            }
        };
        if to_writer.send((number, done)).is_err() {
            return Ok(());
        }
    }
}

struct Ordered<'a> {
    destinations: &'a Destinations<'a>,
    id: &'a BackupId,
    index: Spool,
    to_committer: SyncSender<OpenPart<'a>>,
    archives: Vec<Archive>,
    part: Option<OpenPart<'a>>,
    monitor: &'a dyn Monitor,
    stored: u64,
}

impl Ordered<'_> {
    /// `Err(None)`: another thread has said why.
    fn run(
        &mut self,
        done: &Receiver<(u64, Done)>,
        give_back: &Sender<Vec<u8>>,
    ) -> Result<(), Option<BackupError>> {
        let mut early = BTreeMap::new();
        let mut next = 0;
        for (number, result) in done {
            if matches!(result, Done::Failed) {
                return Err(None);
            }
            early.insert(number, result);
            while let Some(result) = early.remove(&next) {
                next += 1;
                if let Some(mut buffer) = self.take(result)? {
                    buffer.clear();
                    drop(give_back.send(buffer));
                }
            }
        }
        if !early.is_empty() {
            return Err(None);
        }
        self.end_part()?;
        self.index.flush().map_err(|e| Some(BackupError::Set(e.into())))
    }

    fn take(&mut self, done: Done) -> Result<Option<Vec<u8>>, Option<BackupError>> {
        match done {
            Done::Failed => Err(None),
            Done::Archive { name, location } => {
                self.end_part()?;
                self.line(&IndexLine::Archive { name: name.clone() })?;
                self.archives.push(Archive { name, location, parts: 0, size: 0, stored_size: 0 });
                Ok(None)
            }
            Done::Frame { raw, entries, stored, blake3 } => {
                let Some(archive) = self.archives.last_mut() else { return Err(None) };
                let part = match &mut self.part {
                    Some(part) => part,
                    none => {
                        archive.parts += 1;
                        none.insert(
                            OpenPart::begin(self.destinations, self.id, &archive.name, archive.parts - 1)
                                .map_err(Some)?,
                        )
                    }
                };
                let at = part.append(self.destinations, &stored).map_err(Some)?;
                let size = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
                let frame =
                    Frame { part: archive.parts - 1, at, stored: size(stored.len()), raw: size(raw), blake3 };
                archive.size += raw as u64;
                archive.stored_size += stored.len() as u64;
                self.stored += stored.len() as u64;
                let full = part.stored() >= PART_SIZE;
                self.monitor.stored(self.stored);
                self.line(&IndexLine::Frame(frame))?;
                for entry in entries {
                    self.line(&IndexLine::Entry(entry))?;
                }
                if full {
                    self.end_part()?;
                }
                Ok(Some(stored))
            }
        }
    }

    fn end_part(&mut self) -> Result<(), Option<BackupError>> {
        match self.part.take() {
            Some(part) => self.to_committer.send(part).map_err(|_| None),
            None => Ok(()),
        }
    }

    fn line(&mut self, line: &IndexLine) -> Result<(), Option<BackupError>> {
        let mut text =
            serde_json::to_vec(line).map_err(|e| Some(BackupError::local("write the index")(e)))?;
        text.push(b'\n');
        self.index.write(&text).map_err(|e| Some(BackupError::Set(e.into())))
    }
}

/// Raw bytes of a frame.
pub(super) const FRAME: usize = MAX_FRAME_RAW;

/// Frames on their way at least: a server sends in bursts, and compressing should never wait for the next.
const IN_FLIGHT: usize = 8;

/// For the raw bytes of a frame, or the compressed ones, even if they do not shrink.
fn buffer() -> Vec<u8> {
    Vec::with_capacity(compress_bound(FRAME))
}
