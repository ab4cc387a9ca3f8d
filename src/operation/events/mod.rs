//! `pitr events`: what the WAL says happened.
//!
//! Each timeline is gone through by itself: its segments' summaries, several at a time, and the bytes of those
//! whose summary is not enough. Transactions are [joined](join) from the segments they went through, named out
//! of the [catalogues](names) that backups brought along, and [told](tell) as events. What cannot be read is
//! said; nothing is passed over in silence.

mod event;
mod join;
mod name;
mod names;
mod part;
mod places;
mod resolve;
mod tell;
mod walk;

use std::collections::BTreeSet;

pub use event::{Event, EventId, Kind};
pub use name::TableName;
pub use places::Span;

use crate::operation::restore::Survey;
use crate::repository::backup_set::Spool;
use crate::repository::backup_set::catalogue::Name;
use crate::repository::{Cluster, RepositoryError};
use crate::types::{Lsn, Moment, TimelineId};
use resolve::Resolver;
use walk::Walk;

/// From how many rows on a DELETE or an UPDATE is an event, where nothing is said.
pub const ROWS: u64 = 100;

/// So many commits are shown on either side of a moment.
pub const NEAREST: usize = 5;

/// What is asked.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// When.
    pub span: Span,
    /// The nearest commits on either side of this moment are wanted.
    pub around: Option<Moment>,
    /// On this timeline only.
    pub timeline: Option<TimelineId>,
    /// Of these kinds only; otherwise all but commits.
    pub kinds: Option<BTreeSet<Kind>>,
    /// Deletes and updates from so many rows on.
    pub rows: Option<u64>,
    /// About this table only.
    pub table: Option<TableName>,
    /// In this database only.
    pub database: Option<String>,
    /// In the segment that holds this position only.
    pub at: Option<Lsn>,
}

impl Query {
    /// Whether a kind is wanted.
    fn wants(&self, kind: Kind) -> bool {
        self.kinds.as_ref().map_or(kind != Kind::Commit, |kinds| kinds.contains(&kind))
    }

    /// Commits are shown without being asked for around a moment, where nothing else is asked for.
    fn shows_commits(&self) -> bool {
        let unasked = self.around.is_some() && self.kinds.is_none();
        (self.wants(Kind::Commit) || unasked) && self.table.is_none()
    }

    fn is_in_database(&self, event: &Event) -> bool {
        let Some(name) = &self.database else { return true };
        let quoted = name::Quoted(&Name::Text(name.clone())).to_string();
        event.database.as_ref().is_some_and(|database| *database == *name || *database == quoted)
    }

    /// Whoever names a table or a kind wants to see all of it.
    fn least_rows(&self) -> u64 {
        let narrow = self.table.is_some() || self.kinds.is_some();
        self.rows.unwrap_or(if narrow { 1 } else { ROWS }).max(1)
    }
}

/// Whoever is told what happens meanwhile.
pub trait Monitor: Sync {
    /// So many of so many segments were looked at.
    fn looked_at(&self, _segments: u64, _of: u64) {}
}

/// Asks a server that is at hand for the lines of its catalogue; with what it does not tell.
pub type LiveCatalogue<'a> = &'a dyn Fn() -> Result<(Spool, Vec<String>), String>;

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// In the order of timelines and positions.
    pub events: Vec<Event>,
    /// What could not be read or asked, a line each.
    pub unread: Vec<String>,
    /// How many segments were looked at.
    pub segments: u64,
    /// How many of them could be read.
    pub readable: u64,
    /// How many timelines the archive has.
    pub timelines: usize,
}

/// Looks for events in one cluster.
pub fn events(
    cluster: &Cluster<'_>,
    query: &Query,
    live: Option<LiveCatalogue<'_>>,
    monitor: &dyn Monitor,
) -> Result<Found, RepositoryError> {
    let survey = Survey::of(cluster)?;
    let mut found = Found { timelines: survey.archive.timelines.len(), ..Found::default() };
    let mut resolver = Resolver::new(cluster, &survey, live);
    let files = query.table.as_ref().map(|table| resolver.files_of(table, &mut found.unread)).transpose()?;
    for timeline in
        survey.archive.timelines.keys().filter(|id| query.timeline.is_none_or(|only| only == **id))
    {
        let mut wider = query.clone();
        let mut wide =
            [jiff::SignedDuration::from_hours(1), jiff::SignedDuration::from_hours(48)].into_iter();
        let events = loop {
            let mut walk = Walk::new(cluster, &survey.archive, &wider, files.as_ref(), monitor);
            walk.timeline(*timeline)?;
            let (told, points) = (walk.committed, walk.points);
            let mut unread = walk.unread;
            let (segments, readable) = (walk.segments, walk.readable);
            let mut events = resolver.tell(&told, &wider, &mut unread)?;
            events.extend(points);
            events.retain(|event| {
                // The nearest commits may be further away than what else is shown.
                let near = query.around.is_some() && event.kind == Kind::Commit;
                query.is_in_database(event) && (near || wider.span.holds(event.time))
            });
            events.sort_by_key(|event| event.id);
            // What was said on a narrower look is said again.
            let fresh: Vec<_> = unread.into_iter().filter(|line| !found.unread.contains(line)).collect();
            found.unread.extend(fresh);
            if widen(&mut wider, &events, &mut wide) {
                continue;
            }
            found.segments += segments;
            found.readable += readable;
            break events;
        };
        found.events.extend(nearest(events, query));
    }
    Ok(found)
}

/// Why an event is not what it is said to be.
#[derive(Debug)]
pub struct NoSuchEvent {
    /// What is there instead, the nearest first.
    pub nearest: Vec<Event>,
    /// What could not be read on the way.
    pub unread: Vec<String>,
}

/// Finds an event again by its name.
pub fn find(cluster: &Cluster<'_>, id: EventId) -> Result<Result<Event, NoSuchEvent>, RepositoryError> {
    #[derive(Debug)]
    struct Silent;
    impl Monitor for Silent {}
    let query = Query {
        timeline: Some(id.timeline),
        kinds: Some(Kind::ALL.into()),
        at: Some(id.lsn),
        ..Query::default()
    };
    let Found { mut events, unread, .. } = events(cluster, &query, None, &Silent)?;
    let distance = |event: &Event| (event.id.lsn.0.abs_diff(id.lsn.0), event.id.number.abs_diff(id.number));
    events.sort_by_key(distance);
    if let Some(event) = events.iter().find(|event| event.id == id) {
        return Ok(Ok(event.clone()));
    }
    if events.first().is_some_and(|event| event.id.lsn == id.lsn) {
        events.retain(|event| event.id.lsn == id.lsn);
        return Ok(Err(NoSuchEvent { nearest: events, unread }));
    }
    let (mut nearest, commits): (Vec<_>, Vec<_>) = events.into_iter().partition(|e| e.kind != Kind::Commit);
    nearest.extend(commits);
    nearest.truncate(3);
    Ok(Err(NoSuchEvent { nearest, unread }))
}

/// Looks further out where one side of a moment has nothing of what is asked for; with whether that is needed.
fn widen(
    query: &mut Query,
    events: &[Event],
    steps: &mut impl Iterator<Item = jiff::SignedDuration>,
) -> bool {
    let Some(moment) = query.around else { return false };
    let counts = |event: &&Event| !query.shows_commits() || event.kind == Kind::Commit;
    let before = events.iter().filter(counts).any(|event| event.time <= moment);
    let behind = events.iter().filter(counts).any(|event| event.time > moment);
    let further = (!before && query.span.since.is_some(), !behind && query.span.until.is_some());
    if further == (false, false) {
        return false;
    }
    // In the end: everything.
    let step = steps.next();
    let at = |by: jiff::SignedDuration| moment.0.checked_add(by).ok().map(Moment);
    if further.0 {
        query.span.since = step.and_then(|step| at(-step));
    }
    if further.1 {
        query.span.until = step.and_then(at);
    }
    true
}

/// Around a moment are the nearest commits, those at or before it and those behind; of other kinds what is in its
/// span, and the nearest on either side.
fn nearest(mut events: Vec<Event>, query: &Query) -> Vec<Event> {
    let Some(moment) = query.around else { return events };
    let commits_too = query.kinds.is_none() && query.shows_commits();
    if !commits_too {
        let last = events.iter().map(|event| event.time).filter(|time| *time <= moment).max();
        let next = events.iter().map(|event| event.time).filter(|time| *time > moment).min();
        events.retain(|event| query.span.holds(event.time) || [last, next].contains(&Some(event.time)));
        return events;
    }
    events.retain(|event| event.kind == Kind::Commit || query.span.holds(event.time));
    let commits = || events.iter().filter(|event| event.kind == Kind::Commit);
    let mut times: Vec<Moment> = commits().map(|event| event.time).collect();
    times.sort_unstable();
    let split = times.partition_point(|time| *time <= moment);
    let from = times.get(split.saturating_sub(NEAREST)).copied();
    let to = times.get((split + NEAREST).min(times.len()).saturating_sub(1)).copied();
    events.retain(|event| {
        event.kind != Kind::Commit || from.zip(to).is_some_and(|(from, to)| (from..=to).contains(&event.time))
    });
    events
}
