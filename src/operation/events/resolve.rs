//! Which catalogue names which transaction.

use std::collections::BTreeMap;
use std::io::BufRead;

use super::event::{Event, Kind};
use super::name::TableName;
use super::names::{Catalogues, Known, Learned, Wanted};
use super::tell::Committed;
use super::walk::TableFiles;
use super::{LiveCatalogue, Query};
use crate::operation::restore::Survey;
use crate::plan::Archive;
use crate::repository::backup_set::Spool;
use crate::repository::backup_set::catalogue::{CatalogueLine, Name};
use crate::repository::backup_set::format::Backup;
use crate::repository::{Cluster, RepositoryError};
use crate::types::{Lsn, TimelineId};

/// So many catalogues from before a transaction are asked: one may lack a database that the next one has.
const BEFORE: usize = 2;
/// And so many from behind it.
const BEHIND: usize = 1;

/// The catalogues of one cluster.
pub(super) struct Resolver<'a> {
    cluster: &'a Cluster<'a>,
    archive: &'a Archive,
    /// Those that have one, in the order of their positions.
    backups: Vec<&'a Backup>,
    live: Option<LiveCatalogue<'a>>,
    /// What the server has told, once.
    told: Option<Spool>,
}

/// Where a backup's names were read.
fn position(backup: &Backup) -> Lsn {
    backup.catalogue.as_ref().and_then(|catalogue| catalogue.lsn).unwrap_or(backup.stop_lsn)
}

impl<'a> Resolver<'a> {
    pub(super) fn new(cluster: &'a Cluster<'a>, survey: &'a Survey, live: Option<LiveCatalogue<'a>>) -> Self {
        let has_one = |backup: &&Backup| backup.catalogue.as_ref().is_some_and(|c| c.object.is_some());
        let mut backups: Vec<_> = survey.backups.iter().filter(has_one).collect();
        backups.sort_by_key(|backup| position(backup));
        Self { cluster, archive: &survey.archive, backups, live, told: None }
    }

    /// The backups whose names serve a transaction: from before it, the nearest first, and from behind.
    fn candidates(&self, timeline: TimelineId, lsn: Lsn) -> (Vec<usize>, Vec<usize>) {
        let lineage = self.archive.named_lineage(timeline).ok();
        let on_the_way = |backup: &Backup| {
            lineage
                .as_ref()
                .is_none_or(|lineage| lineage.holds_before(backup.stop_timeline, position(backup)))
        };
        let numbered = || self.backups.iter().enumerate();
        let before = numbered().rev().filter(|(_, b)| position(b) <= lsn && on_the_way(b)).map(|(at, _)| at);
        let behind = numbered().filter(|(_, b)| position(b) > lsn || !on_the_way(b)).map(|(at, _)| at);
        (before.take(BEFORE).collect(), behind.take(BEHIND).collect())
    }

    /// What happened in these transactions, with names, and only what is asked for.
    pub(super) fn tell(
        &mut self,
        transactions: &[Committed],
        query: &Query,
        unread: &mut Vec<String>,
    ) -> Result<Vec<Event>, RepositoryError> {
        let candidates: Vec<_> =
            transactions.iter().map(|t| self.candidates(t.timeline, t.end.lsn)).collect();
        let mut wanted: BTreeMap<usize, Wanted> = BTreeMap::new();
        for (transaction, (before, behind)) in transactions.iter().zip(&candidates) {
            for at in before.iter().chain(behind) {
                transaction.ask(wanted.entry(*at).or_default());
            }
        }
        let mut known: BTreeMap<usize, Known> = BTreeMap::new();
        for (at, wanted) in wanted {
            let Some(backup) = self.backups.get(at) else { continue };
            known.extend(self.look_up(backup, wanted, unread)?.map(|answer| (at, answer)));
        }
        let named = |list: &[usize]| list.iter().filter_map(|at| known.get(at)).collect::<Vec<_>>();
        let tell = |live: Option<&Known>| {
            let mut learned = Learned::default();
            let mut all = Vec::new();
            for (transaction, (before, behind)) in transactions.iter().zip(&candidates) {
                let (before, mut behind) = (named(before), named(behind));
                behind.extend(live);
                let catalogues = Catalogues { learned: &learned, before: &before, behind: &behind };
                all.push(told(transaction, catalogues, query));
                let (lessons, passing) = (transaction.teach(catalogues), transaction.passing(catalogues));
                learned.pass(passing);
                for (file, id, own) in lessons {
                    if own { learned.own(file, id) } else { learned.part(file, id) }
                }
            }
            all
        };
        let mut events = tell(None);
        let short = |events: &[Event]| events.iter().any(Event::is_unnamed);
        if self.live.is_some() && events.iter().any(|events| short(events)) {
            let mut wanted = Wanted::default();
            for (transaction, _) in transactions.iter().zip(&events).filter(|(_, events)| short(events)) {
                transaction.ask(&mut wanted);
            }
            match self.ask_live(wanted, unread) {
                Ok(live) => events = tell(Some(&live)),
                Err(why) => unread.push(format!("the server cannot be asked for names: {why}")),
            }
        }
        let mut events: Vec<Event> = events.into_iter().flatten().collect();
        if let Some(table) = &query.table {
            events.retain(|e| e.of.as_ref().is_some_and(|(schema, name)| table.fits(schema, name)));
        }
        Ok(events)
    }

    /// The files of a table, in all catalogues.
    pub(super) fn files_of(
        &mut self,
        table: &TableName,
        unread: &mut Vec<String>,
    ) -> Result<TableFiles, RepositoryError> {
        let mut files = TableFiles::default();
        for backup in &self.backups {
            let wanted = || Wanted { table: Some(table.clone()), all_files: true, ..Wanted::default() };
            if let Some(known) = self.look_up(backup, wanted(), unread)? {
                files.own.extend(known.own_files());
                files.known.extend(known.files());
            }
        }
        let wanted = Wanted { table: Some(table.clone()), all_files: true, ..Wanted::default() };
        if self.live.is_some()
            && let Ok(known) = self.ask_live(wanted, unread)
        {
            files.own.extend(known.own_files());
            files.known.extend(known.files());
        }
        if files.own.is_empty() && !files.known.is_empty() {
            unread.push(
                "no catalogue that was asked knows a table of that name: it is looked for in vain".to_owned(),
            );
        }
        Ok(files)
    }

    fn ask_live(&mut self, wanted: Wanted, unread: &mut Vec<String>) -> Result<Known, String> {
        let spool = match (self.told.take(), self.live) {
            (Some(spool), _) => spool,
            (None, Some(live)) => {
                let (spool, lacking) = live()?;
                unread.extend(
                    lacking.into_iter().map(|what| format!("the server's names are not all known: {what}")),
                );
                spool
            }
            (None, None) => return Err("there is none".to_owned()),
        };
        let known = wanted.look_up(|| lines_of(&spool));
        self.told = Some(spool);
        known
    }

    /// What one backup's catalogue answers; `None`, and said, where it cannot be read.
    fn look_up(
        &self,
        backup: &Backup,
        wanted: Wanted,
        unread: &mut Vec<String>,
    ) -> Result<Option<Known>, RepositoryError> {
        let object = match self.cluster.catalogue(backup) {
            Ok(Some(object)) => object,
            Ok(None) => return Ok(None),
            Err(e @ RepositoryError::Damaged { .. }) => {
                unread.push(format!("the names that backup {} brought along are not used: {e}", backup.id));
                return Ok(None);
            }
            Err(e) => return Err(e),
        };
        match wanted.look_up(|| object.lines()) {
            Ok(known) => Ok(Some(known)),
            Err(e @ RepositoryError::Damaged { .. }) => {
                unread.push(format!("the names that backup {} brought along are not used: {e}", backup.id));
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }
}

fn lines_of(spool: &Spool) -> Result<impl Iterator<Item = Result<CatalogueLine, String>> + use<>, String> {
    let reader = spool.reader().map_err(|e| e.to_string())?;
    Ok(reader.split(b'\n').map(|line| {
        let line = line.map_err(|e| e.to_string())?;
        serde_json::from_slice(&line).map_err(|e| e.to_string())
    }))
}

/// The server's own catalogues are rewritten by every VACUUM FULL of a database: shown where one is named.
fn is_hidden(event: &Event, query: &Query) -> bool {
    let own = event.of.as_ref().is_some_and(|(schema, _)| *schema == Name::Text("pg_catalog".to_owned()));
    own && query.table.is_none() && query.at.is_none() && event.kind == Kind::Rewrite
}

/// A transaction's events, of the kinds and sizes that are asked for.
fn told(transaction: &Committed, catalogues: Catalogues<'_>, query: &Query) -> Vec<Event> {
    let all = transaction.tell(catalogues);
    let number = u32::try_from(all.len() + 1).unwrap_or(u32::MAX);
    let least = query.least_rows();
    let mut events: Vec<Event> = all
        .into_iter()
        .filter(|event| {
            query.wants(event.kind) && event.rows.is_none_or(|rows| rows >= least) && !is_hidden(event, query)
        })
        .collect();
    if query.shows_commits() {
        events.push(transaction.commit(number, catalogues));
    }
    events
}
