//! What an object is, read off its name: the other direction of [`layout`](super::layout), which makes them.

use super::layout::{Epoch, RollupName, WalObjectName};
use crate::types::{BackupId, Lsn, SegmentName, TimelineId, WalFileName};

/// What an object below `<cluster>/` is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterObject<'n> {
    /// `cluster.json`
    Descriptor,
    /// `identity/<EPOCH>.json`
    Identity(Epoch),
    /// Of one epoch.
    OfEpoch(Epoch, EpochObject<'n>),
    /// No name that this version gives.
    Unknown,
}

/// What an object below `<cluster>/<EPOCH>/` is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EpochObject<'n> {
    /// A segment, partial segment or backup file, in the folder where it belongs.
    Wal(WalObjectName),
    /// A timeline's history file.
    History(WalObjectName),
    /// A refused file; with the file's name and the digest, and the text that both have in common with the
    /// operator's word.
    Conflict(WalObjectName, &'n str),
    /// The operator's word that a refused file is not wanted.
    Discarded(&'n str),
    /// A piece of a segment that is not complete: from its first byte to behind its last.
    Piece(TimelineId, Lsn, Lsn),
    /// What the segments of a LOG hold.
    Rollup(RollupName),
    /// Something of a backup, with the name below its folder.
    Backup(BackupId, BackupObject<'n>),
    /// No name that this version gives.
    Unknown,
}

/// What an object of a backup is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackupObject<'n> {
    /// `started.json`
    Started,
    /// `backup.json`
    Descriptor,
    /// `files.zst`
    Index,
    /// `backup_manifest.zst`
    Manifest,
    /// `catalogue.zst`
    Catalogue,
    /// A part of one of the server's streams: the archive's name and the part's number.
    Part(&'n str, u64),
    /// No name that this version gives.
    Unknown,
}

impl<'n> ClusterObject<'n> {
    /// Reads a name below `<cluster>/`.
    pub fn parse(name: &'n str) -> Self {
        match name.split_once('/') {
            None if name == "cluster.json" => Self::Descriptor,
            Some(("identity", rest)) => {
                let epoch = rest.strip_suffix(".json").and_then(|n| n.parse().ok());
                epoch.map_or(Self::Unknown, Self::Identity)
            }
            Some((epoch, rest)) => match epoch.parse() {
                Ok(epoch) => Self::OfEpoch(epoch, EpochObject::parse(rest)),
                Err(_) => Self::Unknown,
            },
            None => Self::Unknown,
        }
    }
}

impl<'n> EpochObject<'n> {
    /// Reads a name below `<cluster>/<EPOCH>/`.
    pub fn parse(name: &'n str) -> Self {
        let Some((kind, rest)) = name.split_once('/') else { return Self::Unknown };
        match kind {
            "wal" => wal(rest),
            "conflict" => conflict(rest),
            "stream" => piece(rest),
            "rollup" => rollup(rest),
            "backup" => match rest.split_once('/') {
                Some((id, rest)) => {
                    id.parse().map_or(Self::Unknown, |id| Self::Backup(id, BackupObject::parse(rest)))
                }
                None => Self::Unknown,
            },
            _ => Self::Unknown,
        }
    }
}

impl<'n> BackupObject<'n> {
    fn parse(name: &'n str) -> Self {
        match name {
            "started.json" => Self::Started,
            "backup.json" => Self::Descriptor,
            "files.zst" => Self::Index,
            "backup_manifest.zst" => Self::Manifest,
            "catalogue.zst" => Self::Catalogue,
            _ => part(name).unwrap_or(Self::Unknown),
        }
    }
}

fn part(name: &str) -> Option<BackupObject<'_>> {
    let (archive, number) = name.split_once('/')?;
    let known = archive == "base" || (!archive.is_empty() && archive.bytes().all(|b| b.is_ascii_digit()));
    let number = number.strip_suffix(".zst")?;
    let digits = number.len() == 10 && number.bytes().all(|b| b.is_ascii_digit());
    (known && digits).then(|| number.parse().ok().map(|n| BackupObject::Part(archive, n)))?
}

fn wal(rest: &str) -> EpochObject<'_> {
    let (folder, last) = rest.rsplit_once('/').unwrap_or(("", rest));
    let Some(known) = WalObjectName::parse(last) else { return EpochObject::Unknown };
    let place = |s: SegmentName| format!("{}/{:08X}", s.timeline.to_hex8(), s.log);
    match known.file {
        WalFileName::History(_) if folder.is_empty() => EpochObject::History(known),
        WalFileName::Segment(s) | WalFileName::Partial(s) | WalFileName::Backup(s, _)
            if folder == place(s) =>
        {
            EpochObject::Wal(known)
        }
        _ => EpochObject::Unknown,
    }
}

fn conflict(rest: &str) -> EpochObject<'_> {
    if let Some(stem) = rest.strip_suffix(".discarded.json") {
        return EpochObject::Discarded(stem);
    }
    let stem = rest.strip_suffix(".zst").unwrap_or_default();
    match stem.rsplit_once('.').and_then(|(file, digest)| Some((file.parse().ok()?, digest))) {
        Some((file, digest)) => {
            EpochObject::Conflict(WalObjectName { file, digest: Some(digest.to_owned()) }, stem)
        }
        None => EpochObject::Unknown,
    }
}

fn rollup(rest: &str) -> EpochObject<'_> {
    let read = || {
        let (timeline, last) = rest.split_once('/')?;
        RollupName::parse(timeline_of(timeline)?, last).map(EpochObject::Rollup)
    };
    read().unwrap_or(EpochObject::Unknown)
}

fn timeline_of(folder: &str) -> Option<TimelineId> {
    let number = (folder.len() == 8).then(|| u32::from_str_radix(folder, 16).ok()).flatten();
    number.filter(|number| *number > 0).map(TimelineId)
}

fn piece(rest: &str) -> EpochObject<'_> {
    let read = || {
        let (timeline, range) = rest.split_once('/')?;
        let timeline = timeline_of(timeline)?;
        let (from, to) = range.strip_suffix(".zst")?.split_once('-')?;
        let (from, to) = (Lsn::from_hex16(from).ok()?, Lsn::from_hex16(to).ok()?);
        (from < to).then_some(EpochObject::Piece(timeline, from, to))
    };
    read().unwrap_or(EpochObject::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::layout::EpochLayout;

    const DIGEST: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn every_name_that_the_layout_makes_is_known() {
        let cluster = "main".parse().unwrap();
        let layout = EpochLayout::new(&cluster, Epoch(1));
        let segment: SegmentName = "00000002000000010000000A".parse().unwrap();
        let id: BackupId = "20261120T220640Z-full".parse().unwrap();
        let read = |name: &str| match ClusterObject::parse(name.strip_prefix("main/").unwrap()) {
            ClusterObject::OfEpoch(Epoch(1), object) => format!("{object:?}"),
            other => format!("{other:?}"),
        };
        for (name, known) in [
            (cluster.descriptor(), "Descriptor"),
            (cluster.identity(Epoch(3)), "Identity"),
            (layout.segment(segment), "Wal("),
            (layout.sibling(segment, DIGEST), "Wal("),
            (layout.wal_file(WalFileName::Partial(segment), DIGEST), "Wal("),
            (layout.wal_file(WalFileName::Backup(segment, 0x28), DIGEST), "Wal("),
            (layout.history(TimelineId(2)), "History("),
            (layout.conflict(WalFileName::Segment(segment), DIGEST), "Conflict("),
            (layout.conflict(WalFileName::Partial(segment), DIGEST), "Conflict("),
            (layout.conflict(WalFileName::History(TimelineId(2)), DIGEST), "Conflict("),
            (layout.discarded(WalFileName::Segment(segment), DIGEST), "Discarded("),
            (layout.stream_piece(TimelineId(2), Lsn(0x100_0000), Lsn(0x100_2000)), "Piece("),
            (layout.started(&id), "Started"),
            (layout.backup_descriptor(&id), "Descriptor"),
            (layout.files(&id), "Index"),
            (layout.manifest(&id), "Manifest"),
            (layout.catalogue(&id), "Catalogue"),
            (layout.part(&id, "base", 7), "Part(\"base\", 7)"),
            (layout.part(&id, "16384", 0), "Part(\"16384\", 0)"),
        ] {
            assert!(read(&name).contains(known), "{name}: {}", read(&name));
        }
    }

    #[test]
    fn what_is_not_where_it_belongs_is_not_known() {
        for name in [
            "0001/wal/00000001/00000000/000000020000000000000003.zst",
            "0001/wal/00000001/00000001/000000010000000000000003.zst",
            "0001/wal/000000010000000000000003.zst",
            "0001/wal/00000001/00000000/000000010000000000000003",
            "0001/wal/00000001/00000000/notes.txt",
            "0001/wal/00000001/00000002.history.zst",
            "0001/stream/00000001/0000000000000000.zst",
            "0001/stream/00000001/0000000003000000-0000000002000000.zst",
            "0001/conflict/hello.zst",
            "0001/backup/hello/backup.json",
            "0001/other/thing",
            "0001",
            "1/wal/x",
            "readme",
            "identity/1.json",
        ] {
            let known = match ClusterObject::parse(name) {
                ClusterObject::Unknown | ClusterObject::OfEpoch(_, EpochObject::Unknown) => false,
                ClusterObject::OfEpoch(_, EpochObject::Backup(_, object)) => object != BackupObject::Unknown,
                _ => true,
            };
            assert!(!known, "{name}");
        }
        let part = "0001/backup/20261120T220640Z-full/base/000000001.zst";
        let ClusterObject::OfEpoch(_, EpochObject::Backup(_, object)) = ClusterObject::parse(part) else {
            panic!("{part}")
        };
        assert_eq!(object, BackupObject::Unknown);
    }
}
