//! WAL that came over a connection, into every repository: one archive, whoever fills it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::BackupError;
use super::destinations::Destinations;
use crate::durable;
use crate::repository::wal_archive::{EncodedFrames, Encoding, StoreOutcome, WalContent, WalFile, Workroom};
use crate::types::{Lsn, SegmentName, SegmentSize, TimelineId, WalFileName};
use crate::wal::SegmentScanner;

/// Stores what is streamed as the archiver would have. Durable when `Ok`.
#[derive(Debug, Clone, Copy)]
pub(super) struct StreamedWal<'d> {
    pub(super) destinations: &'d Destinations<'d>,
    pub(super) size: SegmentSize,
    pub(super) workroom: &'d Workroom,
    pub(super) temp_dir: &'d Path,
}

impl<'d> StreamedWal<'d> {
    /// An unnamed file for the segment that is being streamed: it may be of 1 GiB.
    pub(super) fn buffer(&self) -> Result<File, BackupError> {
        durable::unnamed_file(self.temp_dir).map_err(BackupError::local("buffer WAL"))
    }

    /// A whole segment: the first bytes of the file.
    pub(super) fn segment(&self, name: SegmentName, file: &File) -> Result<(), BackupError> {
        self.store(WalFileName::Segment(name), file, self.size.bytes())
    }

    /// A timeline's history file.
    pub(super) fn history(&self, timeline: TimelineId, bytes: &[u8]) -> Result<(), BackupError> {
        let mut file = self.buffer()?;
        file.write_all(bytes).map_err(BackupError::local("buffer WAL"))?;
        self.store(WalFileName::History(timeline), &file, bytes.len() as u64)
    }

    /// The start of a segment that is not complete: the WAL from `from` on, `length` bytes of the file.
    pub(super) fn piece(
        &self,
        timeline: TimelineId,
        from: Lsn,
        file: &File,
        length: u64,
    ) -> Result<(), BackupError> {
        let what = format!("the WAL of timeline {timeline} from {from}");
        let mut frames = self.encode(file, length, &what, |_| {})?;
        self.destinations.each(|cluster| {
            let name = cluster.layout().stream_piece(timeline, from, from.plus(length));
            frames.store(cluster.storage(), &name, &name, None, None)?;
            Ok(())
        })
    }

    fn store(&self, name: WalFileName, file: &File, length: u64) -> Result<(), BackupError> {
        let text = name.to_string();
        let mut scanner = match name {
            WalFileName::Segment(s) => Some(SegmentScanner::new(s, self.size)),
            _ => None,
        };
        let frames = self.encode(file, length, &text, |chunk| {
            if let Some(scanner) = &mut scanner {
                scanner.push(chunk);
            }
        })?;
        let scan = scanner.map(SegmentScanner::finish);
        if let Some(problem) = scan.as_ref().and_then(|s| s.problem) {
            return Err(BackupError::Wal { what: text, source: problem.into() });
        }
        let content = scan.as_ref().map(WalContent::from);
        // Where the name is taken, the two are compared byte by byte.
        let mut wal = WalFile { name, file, modified: None, content, frames };
        self.destinations.each(|cluster| match cluster.store_wal(&mut wal)? {
            StoreOutcome::Conflict { with, kept, .. } => Err(BackupError::Wal {
                what: text.clone(),
                source: format!("{with} holds other bytes than the server has; those are kept as {kept}")
                    .into(),
            }),
            _ => Ok(()),
        })
    }

    fn encode(
        &self,
        mut file: &File,
        length: u64,
        what: &str,
        inspect: impl FnMut(&[u8]) + Send,
    ) -> Result<EncodedFrames<'d>, BackupError> {
        file.seek(SeekFrom::Start(0)).map_err(BackupError::local("read buffered WAL"))?;
        let encoding = Encoding {
            workroom: self.workroom,
            temp_dir: self.temp_dir,
            in_memory: 12 << 20,
            together: true,
        };
        EncodedFrames::encode(&mut file.take(length), length, encoding, what, inspect)
            .map_err(|source| BackupError::Wal { what: what.to_owned(), source: source.into() })
    }
}
