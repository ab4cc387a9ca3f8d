//! Looking along a run for the record at which recovery will stop.

use super::coverage::Archive;
use super::evidence::{Place, SegmentFacts, WalReader};
use super::run::{Hit, Run, Visited};
use crate::repository::layout::{LogFacts, Xids};
use crate::types::{Lsn, Moment, SegmentName};
use crate::wal::{Joined, SegmentScan, Sought};

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
        match self {
            Self::Position(lsn) => {
                let size = archive.segment_size;
                let before =
                    |last: SegmentName| last.start(size).is_some_and(|s| s.plus(size.bytes()) <= *lsn);
                run.replay(
                    archive,
                    wal,
                    |_, last| before(last),
                    |wal, visited| position_in(*lsn, visited, wal),
                )
            }
            // In all but a few segments the summary excludes it: those are read side by side.
            Self::Record(sought @ Sought::Xid(_)) => {
                let listed = run.clone();
                let (run, places) = candidates(run, archive, sought, wal)?;
                for places in places.chunks(AT_ONCE) {
                    if let Some(found) = wal.seek(places, sought, from)?.filter(|f| f.lsn < run.end) {
                        let run = listed.through(found.lsn, archive).to_its_end(archive, wal)?;
                        return Ok((run, Some(found.into())));
                    }
                }
                Ok((run, None))
            }
            Self::Record(sought) => {
                let mut borders = Borders::default();
                run.replay(
                    archive,
                    wal,
                    |log, _| !may_hold_in_log(sought, log),
                    |wal, visited| {
                        let across = borders.before(visited, archive, sought);
                        let within = may_hold(sought, visited.facts).then_some(Place::In(visited.segment));
                        let places: Vec<Place> = across.into_iter().chain(within).collect();
                        Ok(if places.is_empty() {
                            None
                        } else {
                            wal.seek(&places, sought, from)?.map(Hit::from)
                        })
                    },
                )
            }
        }
    }
}

/// Segments that are read side by side.
const AT_ONCE: usize = 4;

/// The run as recovery would go along it, and all places of it that may hold what is sought.
fn candidates<W: WalReader>(
    run: Run,
    archive: &Archive,
    sought: &Sought,
    wal: &mut W,
) -> Result<(Run, Vec<Place>), W::Error> {
    let (mut places, mut borders) = (Vec::new(), Borders::default());
    let (run, _) = run.replay(
        archive,
        wal,
        |log, _| !may_hold_in_log(sought, log),
        |_, visited| {
            places.extend(borders.before(visited, archive, sought));
            places.extend(may_hold(sought, visited.facts).then_some(Place::In(visited.segment)));
            Ok(None)
        },
    )?;
    Ok((run, places))
}

/// The borders between segments, each of which a record may cross: such a one is in no segment's summary.
#[derive(Default)]
pub(super) struct Borders {
    previous: Option<(SegmentName, SegmentFacts)>,
}

impl Borders {
    /// The border in front of the next segment, where a record that is sought may cross it. Where that lies
    /// behind a LOG that was passed over, nothing in it was sought.
    pub(super) fn before(&mut self, next: Visited<'_>, archive: &Archive, sought: &Sought) -> Option<Place> {
        let previous = self.previous.replace((next.segment, next.facts.clone()));
        let before = next.before?;
        let place = Place::Across(before, next.segment);
        let Some((_, facts)) = previous.filter(|(segment, _)| *segment == before) else {
            return may_cross(sought, None, next.facts).then_some(place);
        };
        let size = archive.segment_size;
        let crossed = facts.may_go_on(before.start(size)?, size, next.facts);
        (crossed && may_cross(sought, Some(&facts), next.facts)).then_some(place)
    }
}

/// Whether a record on the border of two segments may be the one that is sought.
fn may_cross(sought: &Sought, before: Option<&SegmentFacts>, behind: &SegmentFacts) -> bool {
    match sought {
        Sought::Time { after, .. } => {
            // A single commit whose clock is further from its neighbours' than this does not exist.
            let far = |facts: &SegmentFacts| facts.times().is_some_and(|(_, latest)| later(latest) < *after);
            !(before.is_none_or(far) && far(behind))
        }
        Sought::Xid(xid) => match before.map(|before| before.crossing(behind)) {
            Some(Joined::Activity(activity)) => activity.xid == *xid,
            _ => true,
        },
        Sought::Name(_) | Sought::Transaction => true,
    }
}

/// Whether what a roll-up's name tells of a LOG allows for such a record, in it or on its border.
fn may_hold_in_log(sought: &Sought, log: &LogFacts) -> bool {
    match sought {
        Sought::Xid(xid) => log.xids.may_hold(*xid),
        Sought::Transaction => log.xids != Xids::None,
        Sought::Time { after, .. } => log.times.is_some_and(|(_, latest)| later(latest) >= *after),
        Sought::Name(_) => log.restore_points,
    }
}

/// A second later: more than the times of neighbouring commits are out of order where the clock was not set.
pub(super) fn later(moment: Moment) -> Moment {
    Moment(moment.0.saturating_add(SLACK).unwrap_or(moment.0))
}

/// How far the times of commits may be out of order without any doubt about what a time means.
pub(super) const SLACK: jiff::SignedDuration = jiff::SignedDuration::from_secs(1);

/// Whether a segment's summary allows for such a record; without a summary anything may be in it.
pub(super) fn may_hold(sought: &Sought, facts: &SegmentFacts) -> bool {
    let Some(content) = facts.content.as_ref().filter(|c| c.not_checked.is_none()) else { return true };
    match sought {
        Sought::Xid(xid) => content.xids.map_or(content.commits + content.aborts > 0, |(low, high)| {
            // In circular order.
            xid.wrapping_sub(low) <= high.wrapping_sub(low)
        }),
        Sought::Transaction => content.commits + content.aborts > 0,
        Sought::Time { after, or_at } => {
            content.times.is_some_and(|(_, latest)| latest > *after || (*or_at && latest == *after))
        }
        // The summary's list has an end.
        Sought::Name(name) => {
            content.restore_points.iter().any(|p| p.name == *name)
                || content.restore_points.len() >= SegmentScan::LISTED
        }
    }
}

/// A record that starts at or behind a position. Of a damaged segment the summary does not tell which is the last one
/// that recovery reads: there a transaction's end has to be found before the damage.
fn position_in<W: WalReader>(lsn: Lsn, visited: Visited<'_>, wal: &mut W) -> Result<Option<Hit>, W::Error> {
    let Some(content) = visited.facts.content.as_ref() else { return Ok(None) };
    if let Some(first) = content.first_record.filter(|record| *record >= lsn) {
        return Ok(Some(Hit { at: first, found: None }));
    }
    if content.last_record.is_none_or(|record| record < lsn) {
        return Ok(None);
    }
    if content.damage.is_some() {
        let within = [Place::In(visited.segment)];
        let found = wal.seek(&within, &Sought::Transaction, lsn)?;
        return Ok(found
            .filter(|found| found.lsn < content.end_of_valid)
            .map(|_| Hit { at: lsn, found: None }));
    }
    Ok(Some(Hit { at: lsn, found: None }))
}
