//! Looking along a run for the record at which recovery will stop.

use super::coverage::Archive;
use super::evidence::{SegmentFacts, WalReader};
use super::run::{Hit, Run};
use crate::types::{Lsn, SegmentName};
use crate::wal::{Found, Sought};

/// What is looked for along a run.
pub(super) enum Search {
    /// A record that starts at or behind a position.
    Position(Lsn),
    /// A record that says something.
    Record(Sought),
}

impl Search {
    /// Goes along a run until it is found.
    pub(super) fn along<W: WalReader>(
        &self,
        run: Run,
        archive: &Archive,
        from: Lsn,
        wal: &mut W,
    ) -> Result<(Run, Option<Hit>), W::Error> {
        let listed = run.clone();
        let (run, hit) = run.replay(archive, wal, |wal, segment, facts| match self {
            Self::Position(lsn) => Ok(position_in(*lsn, facts)),
            Self::Record(sought) if may_hold(sought, facts) => {
                Ok(wal.seek(segment, sought, from)?.map(Hit::from))
            }
            Self::Record(_) => Ok(None),
        })?;
        match (self, hit) {
            // A record that begins in one segment and ends in the next is in no segment's summary.
            (Self::Record(sought), None) => {
                let here = near_the_end(&run, sought, wal)?;
                let Some(found) = split_record(&here, archive, sought, from, run.end, wal)? else {
                    return Ok((run, None));
                };
                let (run, _) = listed.through(found.lsn, archive).replay(archive, wal, |_, _, _| Ok(None))?;
                Ok((run, Some(found.into())))
            }
            (_, hit) => Ok((run, hit)),
        }
    }
}

/// Whether a segment's summary allows for such a record; without a summary anything may be in it.
pub(super) fn may_hold(sought: &Sought, facts: &SegmentFacts) -> bool {
    let Some(content) = &facts.content else { return true };
    match sought {
        Sought::Xid(_) | Sought::Transaction => content.commits + content.aborts > 0,
        Sought::Time { after, or_at } => {
            content.times.is_some_and(|(_, latest)| latest > *after || (*or_at && latest == *after))
        }
        // The summary's list has an end.
        Sought::Name(name) => {
            content.restore_points.iter().any(|p| p.name == *name)
                || content.restore_points.len() >= crate::wal::SegmentScan::LISTED
        }
    }
}

fn position_in(lsn: Lsn, facts: &SegmentFacts) -> Option<Hit> {
    let content = facts.content.as_ref()?;
    let first = content.first_record.filter(|r| *r >= lsn);
    let at = first.or_else(|| content.last_record.filter(|r| *r >= lsn).map(|_| lsn))?;
    Some(Hit { at, found: None })
}

/// The segments whose borders are looked at. Commits come nearly in the order of their times: one later than
/// all that were seen can only be near the last of them.
fn near_the_end<W: WalReader>(run: &Run, sought: &Sought, wal: &mut W) -> Result<Vec<SegmentName>, W::Error> {
    if !matches!(sought, Sought::Time { .. }) {
        return Ok(run.segments.clone());
    }
    for (at, segment) in run.segments.iter().enumerate().rev() {
        if wal.facts(*segment)?.content.is_some_and(|c| c.times.is_some()) {
            let range = at.saturating_sub(1)..(at + 3).min(run.segments.len());
            return Ok(run.segments.get(range).unwrap_or_default().to_vec());
        }
    }
    Ok(run.segments.iter().copied().take(2).collect())
}

fn split_record<W: WalReader>(
    segments: &[SegmentName],
    archive: &Archive,
    sought: &Sought,
    from: Lsn,
    end: Lsn,
    wal: &mut W,
) -> Result<Option<Found>, W::Error> {
    for pair in segments.windows(2) {
        let [first, second] = pair else { continue };
        if archive.has(*first)
            && archive.has(*second)
            && let Some(found) = wal.seek_split(*first, *second, sought)?
            && found.lsn >= from
            && found.lsn < end
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}
