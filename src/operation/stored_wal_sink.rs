//! Streamed WAL into the archive: one archive, whoever fills it.

use std::io::Write;

use super::backup::WalSink;
use crate::repository::Cluster;
use crate::repository::wal_archive::{EncodedFrames, StoreOutcome, WalContent, WalFile};
use crate::types::{Lsn, SegmentName, TimelineId, WalFileName};
use crate::wal::SegmentScanner;

type SinkResult = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// Stores whole segments and history files as the archiver would have.
#[derive(Debug)]
pub struct StoredWalSink<'c> {
    cluster: &'c Cluster<'c>,
    level: i32,
}

impl<'c> StoredWalSink<'c> {
    /// Into this cluster, at a zstd level.
    pub fn new(cluster: &'c Cluster<'c>, level: i32) -> Self {
        Self { cluster, level }
    }

    fn store(&self, name: WalFileName, bytes: &[u8]) -> SinkResult {
        // The file is compared byte by byte where the name is taken.
        let mut file = tempfile::tempfile()?;
        file.write_all(bytes)?;
        let mut scanner = match name {
            WalFileName::Segment(s) => Some(SegmentScanner::new(s, self.cluster.segment_size())),
            _ => None,
        };
        let mut source = bytes;
        let text = name.to_string();
        let frames = EncodedFrames::encode(
            &mut source,
            bytes.len() as u64,
            self.level,
            &std::env::temp_dir(),
            &text,
            |chunk| {
                if let Some(scanner) = &mut scanner {
                    scanner.push(chunk);
                }
            },
        )?;
        let scan = scanner.map(SegmentScanner::finish);
        if let Some(problem) = scan.as_ref().and_then(|s| s.problem) {
            return Err(problem.into());
        }
        let content = scan.as_ref().map(WalContent::from);
        let mut wal = WalFile { name, file: &file, modified: None, content, frames };
        match self.cluster.store_wal(&mut wal)? {
            StoreOutcome::Conflict { with, kept, .. } => {
                Err(format!("{with} holds other bytes than the server streams; those are kept as {kept}")
                    .into())
            }
            _ => Ok(()),
        }
    }
}

impl WalSink for StoredWalSink<'_> {
    fn segment(&self, name: SegmentName, bytes: &[u8]) -> SinkResult {
        self.store(WalFileName::Segment(name), bytes)
    }

    fn history(&self, timeline: TimelineId, bytes: &[u8]) -> SinkResult {
        self.store(WalFileName::History(timeline), bytes)
    }

    fn piece(&self, timeline: TimelineId, from: Lsn, bytes: &[u8]) -> SinkResult {
        let name = self.cluster.layout().stream_piece(timeline, from, from.plus(bytes.len() as u64));
        let mut source = bytes;
        let mut frames = EncodedFrames::encode(
            &mut source,
            bytes.len() as u64,
            self.level,
            &std::env::temp_dir(),
            &name,
            |_| {},
        )?;
        frames.store(self.cluster.storage(), &name, &name, None, None)?;
        Ok(())
    }
}
