//! The receiving side: cuts the tar streams into frames and keeps the index of what is in them.

use bytes::Bytes;
use tokio::runtime::Runtime;

use super::failure::FirstFailure;
use super::include::Reins;
use super::{BackupError, Monitor};
use crate::codec::MAX_FRAME_RAW;
use crate::pgdata::tar::{TarEntry, TarError, TarEvent, TarKind, TarReader};
use crate::postgres::PostgresError;
use crate::postgres::base_backup::{BaseBackup, BaseBackupEvent};
use crate::repository::backup_set::format::{Entry, EntryKind};

/// Raw bytes of a frame.
pub(super) const FRAME: usize = MAX_FRAME_RAW;

/// Bytes that are looked at in one go, while they are in a core's own cache. A server on the same machine fills the
/// socket meanwhile: digested behind the frame's end, they took 6 % longer, and twice as many switches of threads.
const PIECE: usize = 128 << 10;

/// What a thread does next.
#[derive(Debug)]
pub(super) enum Job {
    /// A tar stream begins.
    Archive { name: String, location: Option<String> },
    /// The next frame of it.
    Frame {
        /// Of its bytes.
        blake3: String,
        /// What became complete within it.
        entries: Vec<Entry>,
    },
}

/// See the module's text.
pub(super) struct Intake<'a, 'c> {
    runtime: &'a Runtime,
    stream: &'a mut BaseBackup<'c>,
    reins: &'a Reins,
    monitor: &'a dyn Monitor,
    /// Jobs so far.
    pub(super) jobs: u64,
    archive: Option<(String, TarReader)>,
    /// One that begins with the next job.
    next: Option<(String, Option<String>)>,
    file: Option<(Entry, u32)>,
    /// Of the frame that is being received.
    digest: blake3::Hasher,
    /// Entries that became complete within it.
    entries: Vec<Entry>,
    /// What came behind the last archive.
    pub(super) manifest: Option<Bytes>,
    /// Nothing more can be had, for that reason or a failure.
    over: bool,
    received: u64,
    pub(super) files: u64,
}

impl<'a, 'c> Intake<'a, 'c> {
    pub(super) fn new(
        runtime: &'a Runtime,
        stream: &'a mut BaseBackup<'c>,
        reins: &'a Reins,
        monitor: &'a dyn Monitor,
    ) -> Self {
        Self {
            runtime,
            stream,
            reins,
            monitor,
            jobs: 0,
            archive: None,
            next: None,
            file: None,
            digest: blake3::Hasher::new(),
            entries: Vec::new(),
            manifest: None,
            over: false,
            received: 0,
            files: 0,
        }
    }

    /// What comes next, and its number; a frame's bytes are in `raw` then. `None` behind the last archive, and once
    /// anything has failed.
    pub(super) fn job(
        &mut self,
        raw: &mut Vec<u8>,
        failure: &FirstFailure,
    ) -> Result<Option<(u64, Job)>, BackupError> {
        raw.clear();
        if self.over || failure.is_stopped() {
            return Ok(None);
        }
        self.over = true;
        let Some(job) = self.read(raw, failure)? else { return Ok(None) };
        self.over = false;
        self.jobs += 1;
        Ok(Some((self.jobs - 1, job)))
    }

    fn read(&mut self, raw: &mut Vec<u8>, failure: &FirstFailure) -> Result<Option<Job>, BackupError> {
        loop {
            if let Some((name, location)) = self.next.take() {
                self.archive = Some((name.clone(), TarReader::new()));
                return Ok(Some(Job::Archive { name, location }));
            }
            if self.manifest.is_some() {
                return Ok(None);
            }
            self.reins.check()?;
            let seen = raw.len();
            let event = self.runtime.block_on(async {
                tokio::select! {
                    biased;
                    () = failure.stopped() => None,
                    event = self.stream.next(raw, FRAME.min(seen + PIECE)) => Some(event),
                }
            });
            let Some(event) = event else { return Ok(None) };
            match event? {
                Some(BaseBackupEvent::Data) => {
                    let new = raw.get(seen..).unwrap_or_default();
                    self.index(new)?;
                    self.digest.update(new);
                    self.received += new.len() as u64;
                    self.monitor.received(self.received);
                    if raw.len() == FRAME {
                        return Ok(Some(self.frame()));
                    }
                    continue;
                }
                Some(BaseBackupEvent::Progress(_)) => continue,
                Some(BaseBackupEvent::Archive { name, location }) => self.next = Some((name, location)),
                Some(BaseBackupEvent::Manifest(bytes)) => self.manifest = Some(bytes),
                Some(BaseBackupEvent::Start { .. }) => return Err(unexpected("a second start").into()),
                Some(BaseBackupEvent::End { .. }) | None => return Err(unexpected("no manifest").into()),
            }
            if let Some((archive, reader)) = self.archive.take() {
                reader.finish().map_err(|source| tar(&archive, source))?;
            }
            if !raw.is_empty() || !self.entries.is_empty() {
                return Ok(Some(self.frame()));
            }
        }
    }

    fn frame(&mut self) -> Job {
        let blake3 = self.digest.finalize().to_hex().to_string();
        self.digest.reset();
        Job::Frame { blake3, entries: std::mem::take(&mut self.entries) }
    }

    fn index(&mut self, mut bytes: &[u8]) -> Result<(), BackupError> {
        let Some((archive, reader)) = &mut self.archive else {
            return Err(unexpected("data before any archive").into());
        };
        while let Some(event) = reader.next(&mut bytes).map_err(|source| tar(archive, source))? {
            match event {
                TarEvent::Entry(header) => {
                    let entry = entry(archive, header)?;
                    match entry.kind {
                        EntryKind::File => self.file = Some((entry, 0)),
                        _ => self.entries.push(entry),
                    }
                }
                TarEvent::Data(data) => {
                    if let Some((_, crc)) = &mut self.file {
                        *crc = crc32c::crc32c_append(*crc, data);
                    }
                }
                TarEvent::FileEnd => {
                    if let Some((mut entry, crc)) = self.file.take() {
                        entry.crc32c = Some(crc);
                        self.entries.push(entry);
                        self.files += 1;
                    }
                }
            }
        }
        Ok(())
    }
}

fn tar(archive: &str, source: TarError) -> BackupError {
    BackupError::Tar { archive: archive.to_owned(), source }
}

pub(super) fn unexpected(what: &str) -> PostgresError {
    PostgresError::Protocol(what.to_owned())
}

fn entry(archive: &str, header: TarEntry) -> Result<Entry, BackupError> {
    let text = |bytes: Vec<u8>| {
        String::from_utf8(bytes).map_err(|e| {
            BackupError::Setting(format!(
                "the archive {archive} holds a file whose name is not UTF-8: {:?}; rename it or move it out of the \
                 data directory",
                String::from_utf8_lossy(e.as_bytes())
            ))
        })
    };
    let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    let (kind, target) = match header.kind {
        TarKind::File => (EntryKind::File, None),
        TarKind::Directory => (EntryKind::Dir, None),
        TarKind::Symlink { target } => (EntryKind::Link, Some(text(target)?)),
    };
    Ok(Entry {
        path: text(header.path)?,
        kind,
        mode: header.mode,
        uid: small(header.uid),
        gid: small(header.gid),
        mtime: i64::try_from(header.mtime).unwrap_or(i64::MAX),
        size: header.size,
        at: header.data_offset,
        crc32c: None,
        target,
    })
}
