//! Pieces: the start of a segment that was not complete when its stream ended. What a standby's backup with
//! `--wal include` leaves behind, kept apart from segments and never taken for one.

use super::StoredWal;
use crate::repository::{Cluster, RepositoryError};
use crate::types::SegmentName;

impl Cluster<'_> {
    /// The piece that holds the longest start of a segment, opened; `None` where there is none.
    pub fn piece_of(&self, segment: SegmentName) -> Result<Option<StoredWal<'_>>, RepositoryError> {
        let Some(start) = segment.start(self.segment_size()) else { return Ok(None) };
        let pieces = self.stream_pieces(segment.timeline)?;
        let Some((from, to)) = pieces.into_iter().filter(|(from, _)| *from == start).max() else {
            return Ok(None);
        };
        let name = self.layout().stream_piece(segment.timeline, from, to);
        let piece = StoredWal::open(self.storage(), &name, true)?.ok_or_else(|| {
            RepositoryError::damaged(self.object_url(&name), "it vanished while it was read")
        })?;
        let said = piece.summary();
        if said.name != name || said.size > self.segment_size().bytes() || said.size != to.0 - from.0 {
            let why = format!("it says that it holds {} bytes of {}", said.size, said.name.escape_debug());
            return Err(RepositoryError::damaged(self.object_url(&name), why));
        }
        Ok(Some(piece))
    }
}
