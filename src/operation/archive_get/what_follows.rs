//! What is stored behind a segment, and would be lost to a server that opens at it.

use std::path::Path;
use std::sync::Arc;

use super::{Get, GetError, absence, cluster_of};
use crate::operation::data_directory::{opens_at_the_end, replay_begins};
use crate::repository::wal_archive::{Behind, Reach};
use crate::repository::{Create, Repository};
use crate::storage::Storage;
use crate::types::{SegmentName, WalFileName};

impl Get<'_> {
    /// What is proven absent is the archive's end, unless more of the timeline follows it.
    pub(super) fn refuse_gap(&self, storages: &[Arc<dyn Storage>], server: &Path) -> Result<(), GetError> {
        let lost = |own| absence::gap_would_be_lost(self.file, own, server);
        let Some((missing, from)) = self.own.and_then(lost) else { return Ok(()) };
        match self.behind(missing, storages)? {
            Some((behind, url)) => Err(GetError::Gap { missing, behind, url, from }),
            None => Ok(()),
        }
    }

    /// The same of a segment of which the rest cannot be read.
    pub(super) fn refuse_cut(
        &self,
        storages: &[Arc<dyn Storage>],
        reach: Reach,
        server: &Path,
    ) -> Result<(), GetError> {
        let WalFileName::Segment(cut) = self.file else { return Ok(()) };
        let Some(ends) = reach.end_of_valid().filter(|_| self.own.is_some() && opens_at_the_end(server))
        else {
            return Ok(());
        };
        match self.behind(cut, storages)? {
            Some((behind, url)) => Err(GetError::CutShort { cut, ends, behind, url }),
            None => Ok(()),
        }
    }

    /// The same of one that is whole by itself.
    pub(super) fn refuse_border(&self, storage: &Arc<dyn Storage>, server: &Path) -> Result<(), GetError> {
        let (WalFileName::Segment(next), Some(own)) = (self.file, self.own) else { return Ok(()) };
        if !opens_at_the_end(server) {
            return Ok(());
        }
        // Whoever begins in this segment reads nothing that comes before.
        let begins = replay_begins(server)?.zip(next.start(own.segment_size));
        if begins.is_none_or(|(replay, segment)| replay >= segment) {
            return Ok(());
        }
        let error = |source| GetError::Repository { name: self.file.to_string(), source };
        let repository =
            Repository::open(Arc::clone(storage), self.memory, Create::Nothing, self.now).map_err(error)?;
        let cluster = cluster_of(&repository, self.own, self.options).map_err(error)?;
        match cluster.damaged_border(next).map_err(error)? {
            Some((before, at)) => Err(GetError::Border { at, before, next, url: storage.url().to_owned() }),
            None => Ok(()),
        }
    }

    /// What any repository has of the timeline behind a segment, and where.
    fn behind(
        &self,
        segment: SegmentName,
        storages: &[Arc<dyn Storage>],
    ) -> Result<Option<(Behind, String)>, GetError> {
        let error = |source| GetError::Repository { name: self.file.to_string(), source };
        for storage in storages {
            let repository = Repository::open(Arc::clone(storage), self.memory, Create::Nothing, self.now)
                .map_err(error)?;
            let cluster = cluster_of(&repository, self.own, self.options).map_err(error)?;
            if let Some(behind) = cluster.gap_at(segment).map_err(error)? {
                return Ok(Some((behind, storage.url().to_owned())));
            }
        }
        Ok(None)
    }
}
