//! One listing of all that an epoch holds: what there is, how much of it, and what has no business there.

use std::collections::{BTreeMap, BTreeSet};

use super::wal::{Holds, Listed};
use crate::repository::layout::RollupName;
use crate::repository::object_name::{BackupObject, ClusterObject, EpochObject};
use crate::repository::{Cluster, RepositoryError};
use crate::storage::ObjectInfo;
use crate::types::{BackupId, Lsn, SegmentSet, SegmentSize, TimelineId, WalFileName};

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    /// The numbers of the segments of each timeline.
    pub(super) segments: BTreeMap<TimelineId, SegmentSet>,
    /// History files, all copies.
    pub(super) histories: Vec<Listed>,
    /// Pieces of segments that are not complete.
    pub(super) pieces: Vec<(TimelineId, Lsn, Lsn)>,
    pub(super) backups: BTreeMap<BackupId, BackupFolder>,
    /// Refused files: their objects' names, and what they share with the operator's word.
    pub(super) conflicts: Vec<(String, String)>,
    pub(super) discarded: BTreeSet<String>,
    /// Roll-ups, by timeline and LOG.
    pub(super) rollups: BTreeMap<(TimelineId, u32), Vec<RollupName>>,
    /// Names that this version does not give: the first ones, and how many there are.
    pub(super) strangers: (Vec<String>, u64),
    /// Objects and bytes below each LOG of a timeline, `conflict/` and `stream/`, by the number of the LOG's
    /// last segment; for an estimate.
    pub(super) wal: BTreeMap<u64, (u64, u64)>,
}

/// A backup's folder.
#[derive(Debug, Default, Clone)]
pub(super) struct BackupFolder {
    pub(super) complete: bool,
    pub(super) objects: u64,
    pub(super) bytes: u64,
}

/// So many strangers are named.
const NAMED: usize = 100;

impl Inventory {
    pub(super) fn of(cluster: &Cluster<'_>) -> Result<Self, RepositoryError> {
        let mut inventory = Self::default();
        let above = format!("{}/", cluster.name());
        let size = cluster.segment_size();
        cluster.storage().list(&cluster.layout().all(), None, &mut |object| {
            let below = object.name.strip_prefix(&above).unwrap_or_default().to_owned();
            match ClusterObject::parse(&below) {
                ClusterObject::OfEpoch(_, known) => inventory.note(known, object, size),
                _ => inventory.stranger(object.name),
            }
        })?;
        Ok(inventory)
    }

    fn note(&mut self, known: EpochObject<'_>, object: ObjectInfo, size: SegmentSize) {
        match known {
            EpochObject::Wal(wal) => {
                let segment = match wal.file {
                    WalFileName::Segment(s) | WalFileName::Partial(s) | WalFileName::Backup(s, _) => s,
                    WalFileName::History(_) => return,
                };
                let Some(number) = segment.number(size) else { return self.stranger(object.name) };
                if matches!(wal.file, WalFileName::Segment(_)) {
                    self.segments.entry(segment.timeline).or_default().insert(number..number + 1);
                }
                let last_of_log = number - number % size.per_log() + size.per_log() - 1;
                self.count(last_of_log, object.size);
            }
            EpochObject::History(wal) => {
                let holds = Holds::File(wal);
                self.histories.push(Listed { name: object.name, size: object.size, holds });
            }
            EpochObject::Conflict(_, stem) => {
                self.count(u64::MAX, object.size);
                self.conflicts.push((object.name, stem.to_owned()));
            }
            EpochObject::Discarded(stem) => {
                self.discarded.insert(stem.to_owned());
            }
            EpochObject::Piece(timeline, from, to) => {
                self.count(u64::MAX, object.size);
                self.pieces.push((timeline, from, to));
            }
            EpochObject::Rollup(name) => {
                self.rollups.entry((name.timeline, name.log)).or_default().push(name);
            }
            EpochObject::Backup(id, what) => {
                let folder = self.backups.entry(id).or_default();
                folder.complete |= what == BackupObject::Descriptor;
                folder.objects += 1;
                folder.bytes += object.size;
                if what == BackupObject::Unknown {
                    self.stranger(object.name);
                }
            }
            EpochObject::Unknown => self.stranger(object.name),
        }
    }

    fn count(&mut self, last_of_log: u64, bytes: u64) {
        let (objects, all) = self.wal.entry(last_of_log).or_default();
        *objects += 1;
        *all += bytes;
    }

    fn stranger(&mut self, name: String) {
        let (names, count) = &mut self.strangers;
        *count += 1;
        if names.len() < NAMED {
            names.push(name);
        }
    }

    /// Objects and bytes of the WAL from a segment on, roughly: whole LOGs.
    pub(super) fn wal_from(&self, first: u64) -> (u64, u64) {
        let rest = self.wal.range(first..).map(|(_, counted)| counted);
        rest.fold((0, 0), |(objects, bytes), (o, b)| (objects + o, bytes + b))
    }

    /// The timelines that have segments, or at least the beginning of one.
    pub(super) fn begun(&self) -> BTreeSet<TimelineId> {
        self.segments.keys().copied().chain(self.pieces.iter().map(|(timeline, ..)| *timeline)).collect()
    }
}
