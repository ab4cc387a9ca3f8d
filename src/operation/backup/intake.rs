//! The receiving side: cuts the tar streams into frames and keeps the index of what is in them.

use super::pipeline::{FRAME, Feed, Job, Stopped};
use super::{BackupError, Monitor};
use crate::pgdata::tar::{TarEntry, TarError, TarEvent, TarKind, TarReader};
use crate::repository::backup_set::format::{Entry, EntryKind};

/// Bytes that are looked at in one go, while they are in a core's own cache.
const PIECE: usize = 128 << 10;

/// See the module's text.
pub(super) struct Intake<'a> {
    feed: Feed,
    raw: Vec<u8>,
    /// Bytes of it that were looked at.
    seen: usize,
    /// Of those, while they are in the cache: it took longer once a frame was compressed.
    digest: blake3::Hasher,
    /// Entries that became complete within `raw`.
    entries: Vec<Entry>,
    archive: Option<(String, TarReader)>,
    file: Option<(Entry, u32)>,
    monitor: &'a dyn Monitor,
    pub(super) received: u64,
    pub(super) files: u64,
}

/// Either side's failure.
pub(super) enum IntakeError {
    /// The pipeline has stopped and has said why.
    Stopped,
    /// The stream itself.
    Stream(BackupError),
}

impl From<Stopped> for IntakeError {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

impl<'a> Intake<'a> {
    pub(super) fn new(feed: Feed, monitor: &'a dyn Monitor) -> Self {
        Self {
            feed,
            raw: Vec::new(),
            seen: 0,
            digest: blake3::Hasher::new(),
            entries: Vec::new(),
            archive: None,
            file: None,
            monitor,
            received: 0,
            files: 0,
        }
    }

    /// A tar stream begins.
    pub(super) fn archive(&mut self, name: String, location: Option<String>) -> Result<(), IntakeError> {
        self.end_archive()?;
        self.archive = Some((name.clone(), TarReader::new()));
        Ok(self.feed.send(Job::Archive { name, location })?)
    }

    /// Where the next bytes of it belong, and how many may be there then.
    pub(super) fn room(&mut self) -> Result<(&mut Vec<u8>, usize), IntakeError> {
        if self.raw.capacity() == 0 {
            self.raw = self.feed.buffer()?;
        }
        let most = FRAME.min(self.raw.len() + PIECE);
        Ok((&mut self.raw, most))
    }

    /// More is there.
    pub(super) fn data(&mut self) -> Result<(), IntakeError> {
        let raw = std::mem::take(&mut self.raw);
        let new = raw.get(self.seen..).unwrap_or_default();
        self.index(new)?;
        self.digest.update(new);
        self.received += new.len() as u64;
        self.seen = raw.len();
        self.raw = raw;
        if self.seen == FRAME {
            self.end_frame()?;
        }
        self.monitor.received(self.received);
        Ok(())
    }

    /// All streams have ended.
    pub(super) fn finish(mut self) -> Result<(u64, u64), IntakeError> {
        self.end_archive()?;
        Ok((self.received, self.files))
    }

    fn end_archive(&mut self) -> Result<(), IntakeError> {
        if let Some((archive, reader)) = self.archive.take() {
            reader.finish().map_err(|source| tar(&archive, source))?;
            if !self.raw.is_empty() || !self.entries.is_empty() {
                self.end_frame()?;
            }
        }
        Ok(())
    }

    fn end_frame(&mut self) -> Result<(), IntakeError> {
        self.seen = 0;
        let blake3 = self.digest.finalize().to_hex().to_string();
        self.digest.reset();
        let (raw, entries) = (std::mem::take(&mut self.raw), std::mem::take(&mut self.entries));
        let job = Job::Frame { raw, blake3, entries };
        Ok(self.feed.send(job)?)
    }

    fn index(&mut self, mut bytes: &[u8]) -> Result<(), IntakeError> {
        let Some((archive, reader)) = &mut self.archive else {
            return Err(IntakeError::Stream(BackupError::Argument(
                "the server sent data before any archive".into(),
            )));
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

fn tar(archive: &str, source: TarError) -> IntakeError {
    IntakeError::Stream(BackupError::Tar { archive: archive.to_owned(), source })
}

fn entry(archive: &str, header: TarEntry) -> Result<Entry, IntakeError> {
    let text = |bytes: Vec<u8>| {
        String::from_utf8(bytes).map_err(|e| {
            IntakeError::Stream(BackupError::Setting(format!(
                "the archive {archive} holds a file whose name is not UTF-8: {:?}; rename it or move it out of the \
                 data directory",
                String::from_utf8_lossy(e.as_bytes())
            )))
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
