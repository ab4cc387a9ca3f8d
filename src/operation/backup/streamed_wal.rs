//! WAL that came over a connection, into every repository: one archive, whoever fills it.

use std::fs::File;
use std::io::Write;

use super::BackupError;
use super::destinations::Destinations;
use crate::repository::wal_archive::{EncodedFrames, StoreOutcome, WalContent, WalFile};
use crate::types::{Lsn, SegmentName, SegmentSize, TimelineId, WalFileName};
use crate::wal::SegmentScanner;

/// Stores what is streamed as the archiver would have. Durable when `Ok`.
#[derive(Debug, Clone, Copy)]
pub(super) struct StreamedWal<'d> {
    pub(super) destinations: &'d Destinations<'d>,
    pub(super) size: SegmentSize,
    /// zstd's.
    pub(super) level: i32,
}

impl StreamedWal<'_> {
    /// A whole segment.
    pub(super) fn segment(&self, name: SegmentName, bytes: &[u8]) -> Result<(), BackupError> {
        self.store(WalFileName::Segment(name), bytes)
    }

    /// A timeline's history file.
    pub(super) fn history(&self, timeline: TimelineId, bytes: &[u8]) -> Result<(), BackupError> {
        self.store(WalFileName::History(timeline), bytes)
    }

    /// The start of a segment that is not complete: the WAL from `from` on.
    pub(super) fn piece(&self, timeline: TimelineId, from: Lsn, bytes: &[u8]) -> Result<(), BackupError> {
        let what = format!("the WAL of timeline {timeline} from {from}");
        let mut frames = self.encode(bytes, &what, |_| {})?;
        self.destinations.each(|cluster| {
            let name = cluster.layout().stream_piece(timeline, from, from.plus(bytes.len() as u64));
            frames.store(cluster.storage(), &name, &name, None, None)?;
            Ok(())
        })
    }

    fn store(&self, name: WalFileName, bytes: &[u8]) -> Result<(), BackupError> {
        let text = name.to_string();
        let mut scanner = match name {
            WalFileName::Segment(s) => Some(SegmentScanner::new(s, self.size)),
            _ => None,
        };
        let frames = self.encode(bytes, &text, |chunk| {
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
        let file = spooled(bytes).map_err(BackupError::local("write a temporary file of WAL (TMPDIR)"))?;
        let mut wal = WalFile { name, file: &file, modified: None, content, frames };
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
        mut bytes: &[u8],
        what: &str,
        inspect: impl FnMut(&[u8]),
    ) -> Result<EncodedFrames, BackupError> {
        let length = bytes.len() as u64;
        EncodedFrames::encode(&mut bytes, length, self.level, &std::env::temp_dir(), what, inspect)
            .map_err(|source| BackupError::Wal { what: what.to_owned(), source: source.into() })
    }
}

fn spooled(bytes: &[u8]) -> std::io::Result<File> {
    let mut file = tempfile::tempfile()?;
    file.write_all(bytes)?;
    Ok(file)
}
