//! The first and the last commit or abort of a run, without reading more of it than is needed.

use super::coverage::Archive;
use super::evidence::{Place, WalReader};
use super::run::{Run, Visited};
use super::search::Borders;
use crate::repository::wal_archive::EndedTransaction;
use crate::types::Lsn;
use crate::wal::{Found, Sought};

fn found(ended: EndedTransaction) -> Found {
    let EndedTransaction { lsn, xid, time, commit } = ended;
    Found { lsn, time, xid: Some(xid), commit }
}

/// The last commit or abort of a run that recovery replays, at or behind a position.
pub(super) fn last_transaction<W: WalReader>(
    run: &Run,
    archive: &Archive,
    from: Lsn,
    only_commits: bool,
    wal: &mut W,
) -> Result<Option<Found>, W::Error> {
    let size = archive.segment_size;
    let fits = |found: &Found| found.lsn >= from && found.lsn < run.end && (found.commit || !only_commits);
    for (at, segment) in run.segments.iter().enumerate().rev() {
        let Some(start) = segment.start(size) else { continue };
        if start.plus(size.bytes()) <= from {
            return Ok(None);
        }
        let facts = wal.facts(*segment)?;
        if let Some(next) = run.segments.get(at + 1) {
            let behind = wal.facts(*next)?;
            let place = [Place::Across(*segment, *next)];
            if facts.may_go_on(start, size, &behind)
                && let Some(found) = wal.seek(&place, &Sought::Transaction, from)?
                && fits(&found)
            {
                return Ok(Some(found));
            }
        }
        if !facts.may_have_transactions() {
            continue;
        }
        let told = facts.content.as_ref().filter(|c| c.damage.is_none()).and_then(|c| c.last_transaction);
        if let Some(last) = told.map(found).filter(fits) {
            return Ok(Some(last));
        }
        let last = wal.fold(*segment, None, |last, found| {
            if fits(&found) {
                *last = Some(found);
            }
        })?;
        if last.is_some() {
            return Ok(last);
        }
    }
    Ok(None)
}

/// The first commit or abort of a run at or behind a position.
pub(super) fn first_transaction<W: WalReader>(
    run: &Run,
    archive: &Archive,
    from: Lsn,
    wal: &mut W,
) -> Result<Option<Found>, W::Error> {
    let (mut borders, mut before) = (Borders::default(), None);
    for segment in &run.segments {
        let facts = wal.facts(*segment)?;
        let visited = Visited { before: before.replace(*segment), segment: *segment, facts: &facts };
        let across = borders.before(visited, archive, &Sought::Transaction);
        let behind =
            segment.start(archive.segment_size).is_some_and(|s| s.plus(archive.segment_size.bytes()) > from);
        let within = (behind && facts.may_have_transactions()).then_some(Place::In(*segment));
        for place in across.filter(|_| behind).into_iter().chain(within) {
            if let Some(found) = wal.seek(&[place], &Sought::Transaction, from)?.filter(|f| f.lsn < run.end) {
                return Ok(Some(found));
            }
        }
    }
    Ok(None)
}
