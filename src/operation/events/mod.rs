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
        let mut walk = Walk::new(cluster, &survey.archive, query, files.as_ref(), monitor);
        walk.timeline(*timeline)?;
        let (told, points) = (walk.committed, walk.points);
        found.unread.extend(walk.unread);
        found.segments += walk.segments;
        found.readable += walk.readable;
        let mut events = resolver.tell(&told, query, &mut found.unread)?;
        events.extend(points);
        events.retain(|event| {
            // The nearest commits may be further away than what else is shown.
            let near = query.around.is_some() && event.kind == Kind::Commit;
            query.is_in_database(event) && (near || query.span.holds(event.time))
        });
        events.sort_by_key(|event| event.id);
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
    // Which of a record's events has which number depends on what else was asked for: the record counts.
    if let Some(event) = events.first().filter(|event| event.id.lsn == id.lsn) {
        return Ok(Ok(event.clone()));
    }
    let (mut nearest, commits): (Vec<_>, Vec<_>) = events.into_iter().partition(|e| e.kind != Kind::Commit);
    nearest.extend(commits);
    nearest.truncate(3);
    Ok(Err(NoSuchEvent { nearest, unread }))
}

/// Around a moment only the nearest commits are kept: those at or before it, and those behind.
fn nearest(mut events: Vec<Event>, query: &Query) -> Vec<Event> {
    let Some(moment) = query.around else { return events };
    if query.wants(Kind::Commit) {
        return events;
    }
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
