//! Which moments can be restored, and which segments are missing.

use super::coverage::{Archive, Lineage};
use super::evidence::WalReader;
use super::restore_plan::BackupFacts;
use super::run::Run;
use crate::types::{Lsn, Moment, SegmentName, SegmentSet, SegmentSize, TimelineId};

/// A range of moments, each of which can be restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// The timeline that it ends on.
    pub timeline: TimelineId,
    /// When its first backup ended.
    pub from: Moment,
    /// The latest moment of which its WAL tells.
    pub to: Moment,
}

struct Stretch {
    lineage: Lineage,
    first: BackupFacts,
    run: Run,
}

impl Stretch {
    fn owner(&self) -> TimelineId {
        self.lineage.history().timeline_at(Lsn(self.run.end.0.saturating_sub(1)))
    }
}

/// The recovery windows: from the end of a backup that may be chosen by itself to the end of the WAL that
/// follows it without a gap, once for each timeline that is not just on the way to another.
pub fn windows<W: WalReader>(
    archive: &Archive,
    backups: &[BackupFacts],
    wal: &mut W,
) -> Result<Vec<Window>, W::Error> {
    let mut stretches: Vec<Stretch> = Vec::new();
    for timeline in archive.timelines.keys() {
        let Ok(lineage) = archive.lineage(*timeline) else { continue };
        let mut here: Vec<&BackupFacts> = backups.iter().filter(|b| b.is_on(&lineage)).collect();
        here.sort_by_key(|b| b.stop);
        let mut reached = Lsn::INVALID;
        for backup in here {
            if backup.stop <= reached {
                continue;
            }
            let mut run = Run::listed(archive, &lineage, backup.start);
            run.settle_end(wal, archive)?;
            if run.end < backup.stop {
                continue;
            }
            reached = run.end;
            stretches.push(Stretch { lineage: lineage.clone(), first: backup.clone(), run });
        }
    }
    let mut windows = Vec::new();
    for a in &stretches {
        let passed = stretches.iter().any(|b| {
            let (own, other) = (a.lineage.timeline(), b.lineage.timeline());
            // Both stop at one place: the one whose own place it is speaks for it.
            let further =
                b.run.end > a.run.end || (b.run.end == a.run.end && a.owner() != own && a.owner() == other);
            own != other
                && further
                && b.first.stop <= a.first.stop
                && b.lineage.holds_before(a.owner(), a.run.end)
        });
        if passed {
            continue;
        }
        let to = a.run.until(wal, archive)?;
        windows.push(Window {
            timeline: a.lineage.timeline(),
            from: a.first.stop_time,
            to: to.map_or(a.first.stop_time, |to| to.max(a.first.stop_time)),
        });
    }
    Ok(windows)
}

/// The missing stretches between a timeline's first and last segment, in order.
pub fn gaps(
    segments: &SegmentSet,
    timeline: TimelineId,
    size: SegmentSize,
) -> Vec<(SegmentName, SegmentName)> {
    let between = |pair: &[std::ops::Range<u64>]| match pair {
        [a, b] => Some((
            SegmentName::from_number(timeline, a.end, size),
            SegmentName::from_number(timeline, b.start - 1, size),
        )),
        _ => None,
    };
    segments.runs().windows(2).filter_map(between).collect()
}
