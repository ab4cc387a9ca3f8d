//! Pieces: the start of a segment that was not complete when its stream ended. What a standby's backup with
//! `--wal include` leaves behind, kept apart from segments and never taken for one.

use super::StoredWal;
use crate::repository::backup_set::format::Backup;
use crate::repository::{Cluster, RepositoryError};
use crate::types::{Lsn, SegmentName, WalFileName};

impl Cluster<'_> {
    /// The piece that holds the end of a backup's WAL, opened, with the segment it is the start of; `None`
    /// where no piece reaches that far, and where the segment itself is in the archive.
    pub fn piece_for(
        &self,
        backup: &Backup,
    ) -> Result<Option<(SegmentName, StoredWal<'_>)>, RepositoryError> {
        let size = self.segment_size();
        let last = Lsn(backup.stop_lsn.0.saturating_sub(1));
        let segment = SegmentName::holding(backup.stop_timeline, last, size);
        let Some(start) = segment.start(size) else { return Ok(None) };
        let pieces = self.stream_pieces(segment.timeline)?;
        let reaching = pieces.into_iter().filter(|(from, to)| *from == start && *to > last);
        let Some((from, to)) = reaching.max() else { return Ok(None) };
        let name = self.layout().stream_piece(segment.timeline, from, to);
        if !self.wal_copies(WalFileName::Segment(segment))?.is_empty() {
            return Ok(None);
        }
        let piece = StoredWal::open(self.storage(), &name, true)?.ok_or_else(|| {
            RepositoryError::damaged(self.object_url(&name), "it vanished while it was read")
        })?;
        let said = piece.summary();
        if said.name != name || said.size > size.bytes() || said.size <= last.0 - start.0 {
            let why = format!("it says that it holds {} bytes of {}", said.size, said.name);
            return Err(RepositoryError::damaged(self.object_url(&name), why));
        }
        Ok(Some((segment, piece)))
    }
}
