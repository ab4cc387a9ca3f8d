//! From what a transaction did to files, to what happened to tables.
//!
//! At `wal_level = replica` the WAL knows files, not statements; these are the marks that statements leave
//! there (majors 13 to 18):
//!
//! - A dropped relation's file is in the commit's list, and (from 15 on) its OID among the dropped statistics.
//! - TRUNCATE makes new files and drops the old ones. The new file of the table stays empty, which no rewrite
//!   of a table leaves behind: that goes through a transient table whose OID is its file's number, and which
//!   is dropped again at the end.
//! - Of an unlogged relation only the making of its init fork is in the WAL: it counts as its file's.
//! - A relation that is rewritten twice gives up the TOAST table that the first time has made: no DROP.
//! - REINDEX replaces an index's file and no table's.
//! - DROP DATABASE changes its row of `pg_database` in place, then removes the files, then commits.
//!
//! One event is told for each table: its TOAST table and its indexes go with it. What no catalogue knows is
//! told as one event of its transaction, in numbers: which of them is the table cannot be told.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::event::{Event, EventId, Kind};
use super::names::{Catalogues, Named, Wanted, When};
use crate::types::{Lsn, TimelineId};
use crate::wal::{Activity, End as CommitEnd, FileNode};

/// So many numbers are shown of what no catalogue knows.
const SHOWN: usize = 8;

/// A committed transaction, put together from all the segments that it went through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Committed {
    /// The timeline of its commit.
    pub(super) timeline: TimelineId,
    /// All of it; its own end is taken out.
    pub(super) activity: Activity,
    /// Its commit.
    pub(super) end: CommitEnd,
    /// The server lists dropped relations in its commits: 15 and later.
    pub(super) lists_relations: bool,
}

impl Committed {
    /// Whether it did something to files, which is told whatever the number of rows.
    pub(super) fn changed_files(&self) -> bool {
        self.activity.dropped_database.is_some()
            || !self.activity.truncated.is_empty()
            || !self.end.dropped.is_empty()
            || !self.end.dropped_stats.is_empty()
    }

    /// Adds what has to be looked up for it.
    pub(super) fn ask(&self, wanted: &mut Wanted) {
        wanted.relations.extend(self.end.dropped_stats.iter().chain(&self.activity.truncated));
        wanted.files.extend(&self.end.dropped);
        wanted.files.extend(self.activity.created.iter().map(|created| created.file));
        wanted.files.extend(self.activity.rows.iter().map(|rows| rows.file));
    }

    /// Everything that happened in it, but the commit itself.
    pub(super) fn tell(&self, catalogues: Catalogues<'_>) -> Vec<Event> {
        let mut teller = Teller::new(self, catalogues);
        if !teller.database() {
            teller.gone();
            teller.replaced();
            teller.rows();
        }
        teller.events
    }

    /// Remembers which relations have new files from now on.
    pub(super) fn teach(&self, catalogues: Catalogues<'_>) -> Vec<(FileNode, (u32, u32), bool)> {
        Teller::new(self, catalogues).lessons()
    }

    /// What a rewrite made beside the new file: a later one gives it up again.
    pub(super) fn passing(&self, catalogues: Catalogues<'_>) -> Vec<(u32, u32)> {
        if !Teller::new(self, catalogues).transient {
            return Vec::new();
        }
        self.activity.created.iter().map(|made| (made.file.database, made.file.number)).collect()
    }

    /// The commit as an event.
    pub(super) fn commit(&self, number: u32, catalogues: Catalogues<'_>) -> Event {
        let mut teller = Teller::new(self, catalogues);
        let database = self.end.database;
        teller.event(Kind::Commit, database, Object::None, None, When::Any);
        let mut event = teller.events.swap_remove(0);
        event.id.number = number;
        event.before = self.before();
        event
    }

    /// The last record of which recovery has nothing of the transaction's lasting effects.
    fn before(&self) -> Lsn {
        let Some(dropped) = self.activity.dropped_database else { return self.end.previous };
        // A database whose row was changed in place already cannot be connected to.
        self.activity.before_in_place.map_or(dropped.previous, |before| before.min(dropped.previous))
    }
}

struct Teller<'a> {
    of: &'a Committed,
    catalogues: Catalogues<'a>,
    /// Files that it made.
    created: HashSet<FileNode>,
    /// Files that were there before it, and are gone.
    lost: Vec<FileNode>,
    /// Relations that were there before it, and are gone (15 and later).
    gone: BTreeSet<(u32, u32)>,
    /// It made a table only to put its file into another's place.
    transient: bool,
    /// Some relation has a new file for its old one.
    replaces: bool,
    /// A new file stayed empty in the place of an old one.
    emptied: bool,
    events: Vec<Event>,
}

impl<'a> Teller<'a> {
    fn new(of: &'a Committed, catalogues: Catalogues<'a>) -> Self {
        let created: HashSet<FileNode> = of.activity.created.iter().map(|c| c.file).collect();
        let lost: Vec<_> = of.end.dropped.iter().copied().filter(|file| !created.contains(file)).collect();
        let numbered = |list: &[(u32, u32)], file: &FileNode| list.contains(&(file.database, file.number));
        let made = |(database, oid): &(u32, u32)| {
            created.iter().any(|file| file.number == *oid && file.database == *database)
        };
        let gone = of.end.dropped_stats.iter().copied().filter(|id| !made(id));
        // A new relation's file has its OID for a number, and so has a transient one's; a new file of an old
        // relation has a number of its own. Before 15 nothing tells the two kinds of relations apart: what has
        // lost a file beside either is told as rewritten then.
        let passing = if of.lists_relations { &of.end.dropped_stats } else { &of.end.invalidated };
        let transient = !lost.is_empty() && created.iter().any(|file| numbered(passing, file));
        let replacing = |file: &FileNode| !numbered(&of.end.invalidated, file);
        let gone: BTreeSet<_> = gone.filter(|id| !(transient && catalogues.is_passing(*id))).collect();
        // The commit would list the relation, were it gone.
        let lives = |file: &FileNode| match catalogues.file(*file, When::Before) {
            Some(named) => !catalogues.is_part(*file) && !gone.contains(&named.id),
            None => gone.is_empty(),
        };
        let replaces =
            transient || created.iter().any(replacing) || (of.lists_relations && lost.iter().any(lives));
        // SET TABLESPACE of an empty table makes an empty file as well, elsewhere.
        let emptied = !transient
            && of.activity.created.iter().any(|made| {
                let there = lost.iter().any(|file| file.tablespace == made.file.tablespace);
                made.written == 0 && there && replacing(&made.file)
            });
        Self { of, catalogues, created, lost, gone, transient, replaces, emptied, events: Vec::new() }
    }

    fn event(
        &mut self,
        kind: Kind,
        database: Option<u32>,
        object: Object<'_>,
        rows: Option<u64>,
        when: When,
    ) {
        let End { lsn, previous, time } = End::of(self.of);
        let number = u32::try_from(self.events.len() + 1).unwrap_or(u32::MAX);
        let database = database
            .filter(|oid| *oid > 0)
            .map(|oid| self.catalogues.database(oid, when).unwrap_or_else(|| format!("OID {oid}")));
        self.events.push(Event {
            id: EventId { timeline: self.of.timeline, lsn, number },
            time,
            xid: Some(self.of.activity.xid),
            kind,
            object: match (kind, &object) {
                (Kind::DropDatabase, _) => database.clone(),
                (_, Object::None) => None,
                (_, Object::Named(named)) => Some(named.words()),
                (_, Object::Numbers(words)) => Some(words.clone()),
            },
            of: if let Object::Named(named) = &object { Some(named.table()) } else { None },
            database,
            rows,
            before: previous,
        });
    }

    /// Whether it was a DROP DATABASE. Nothing else of it is worth a line then.
    fn database(&mut self) -> bool {
        let Some(dropped) = self.of.activity.dropped_database else { return false };
        self.event(Kind::DropDatabase, Some(dropped.database), Object::None, None, When::Before);
        if let Some(event) = self.events.last_mut() {
            event.before = self.of.before();
        }
        true
    }

    /// What was dropped.
    fn gone(&mut self) {
        let mut known: BTreeMap<(u32, u32), Named<'a>> = BTreeMap::new();
        for id in &self.gone {
            known.extend(self.catalogues.relation(*id, When::Before).map(|named| (*id, named)));
        }
        // Before 15 only the files tell, where nothing was put in their place.
        if !self.of.lists_relations && !self.replaces {
            for file in &self.lost {
                known.extend(self.catalogues.file(*file, When::Before).map(|named| (named.id, named)));
            }
        }
        let whole = |named: &Named<'a>| {
            let mut owner = named.owner();
            while let Some(named) = owner {
                if known.contains_key(&named.id) {
                    return false;
                }
                owner = named.owner();
            }
            // ALTER TABLE makes indexes and TOAST tables anew, and drops the old ones.
            let passing = named.is_toast() || (self.replaces && named.is_index());
            !passing && !named.is_internal() && named.relation.kind != 'c'
        };
        let told: Vec<_> = known.values().filter(|named| whole(named)).copied().collect();
        for named in told {
            self.event(Kind::Drop, Some(named.id.0), Object::Named(named), None, When::Before);
        }
        // Files of what is known, and of what is told elsewhere.
        let catalogues = self.catalogues;
        let told = |named: Named<'_>| {
            let owner = named.owner().is_some_and(|owner| known.contains_key(&owner.id));
            owner || known.contains_key(&named.id)
        };
        let accounted = |file: &FileNode| {
            known.contains_key(&(file.database, file.number))
                || catalogues.file(*file, When::Before).is_some_and(told)
        };
        let unknown: Vec<(u32, u32)> =
            self.gone.iter().filter(|id| !known.contains_key(*id)).copied().collect();
        let files: Vec<FileNode> = self.lost.iter().filter(|file| !accounted(file)).copied().collect();
        let own = |file: &FileNode| unknown.contains(&(file.database, file.number));
        // Statistics of a temporary table, or of a view, are dropped without a file.
        let files: Vec<FileNode> = if !self.replaces {
            files
        } else {
            // Whatever was replaced is told as that.
            files.into_iter().filter(own).collect()
        };
        if let Some(first) = files.first() {
            let words = numbers(&unknown, &files);
            self.event(Kind::Drop, Some(first.database), Object::Numbers(words), None, When::Before);
        }
        self.lost.retain(|file| !accounted(file) && !files.contains(file));
    }

    /// What has a new file in the place of the old one.
    fn replaced(&mut self) {
        if !self.replaces || self.lost.is_empty() {
            return;
        }
        let mut known: BTreeMap<(u32, u32), Named<'a>> = BTreeMap::new();
        let mut unknown = Vec::new();
        let mut parts = BTreeMap::new();
        for file in &self.lost {
            match self.catalogues.file(*file, When::Before) {
                Some(named) if self.catalogues.is_part(*file) => drop(parts.insert(named.id, named)),
                Some(named) => drop(known.insert(named.id, named)),
                None => unknown.push(*file),
            }
        }
        if known.is_empty() {
            known = parts;
        }
        if !unknown.is_empty() {
            // Where the new files are known, so is what they are of.
            let new = self.created.iter().filter_map(|file| self.catalogues.file(*file, When::Any));
            let new: Vec<_> = new.filter(|named| !known.contains_key(&named.id)).collect();
            if !new.is_empty() {
                unknown.clear();
                known.extend(new.into_iter().map(|named| (named.id, named)));
            }
        }
        let emptied = self.emptied;
        let tables: BTreeMap<_, _> = known
            .values()
            .map(|named| named.main())
            .filter(|named| !named.is_index())
            .map(|named| (named.id, named))
            .collect();
        let mut told = tables.clone();
        for index in known.values().map(|named| named.main()).filter(|named| named.is_index()) {
            if index.owner().is_none_or(|owner| !tables.contains_key(&owner.id)) {
                told.insert(index.id, index);
            }
        }
        let truncated = &self.of.activity.truncated;
        for (id, named) in told {
            // The server's own log of it is more than a conclusion.
            let empty = if truncated.is_empty() { emptied } else { truncated.contains(&id) };
            let kind = if empty && !named.is_index() { Kind::Truncate } else { Kind::Rewrite };
            if !(named.is_internal() && kind == Kind::Truncate) {
                self.event(kind, Some(id.0), Object::Named(named), None, When::Any);
            }
        }
        if let Some(first) = unknown.first().copied() {
            let kind = if emptied || !truncated.is_empty() { Kind::Truncate } else { Kind::Rewrite };
            let mut oids = self.of.activity.truncated.clone();
            if oids.is_empty() {
                // A relation that was never rewritten has its OID for its file's number.
                let forgotten = &self.of.end.invalidated;
                oids.extend(
                    unknown.iter().map(|f| (f.database, f.number)).filter(|id| forgotten.contains(id)),
                );
            }
            self.event(
                kind,
                Some(first.database),
                Object::Numbers(numbers(&oids, &unknown)),
                None,
                When::Any,
            );
        }
    }

    /// Which relations have new files: with whether the file is its own, or that of an index or TOAST table of it.
    fn lessons(&self) -> Vec<(FileNode, (u32, u32), bool)> {
        let created: Vec<FileNode> = self.of.activity.created.iter().map(|made| made.file).collect();
        if !self.replaces || self.lost.is_empty() {
            return Vec::new();
        }
        let known = |file: &FileNode| self.catalogues.file(*file, When::Before);
        if !self.transient {
            // Each old file was given up just before its new one was made, and the commit lists the last one first.
            let replacing: Vec<_> = created.iter().filter(|file| self.is_replacing(file)).collect();
            if replacing.len() != self.lost.len() {
                return Vec::new();
            }
            let pairs = replacing.into_iter().zip(self.lost.iter().rev());
            let lesson = |(new, old): (&FileNode, &FileNode)| {
                known(old).map(|named| (*new, named.id, !self.catalogues.is_part(*old)))
            };
            return pairs.filter_map(lesson).collect();
        }
        // The table's own new file is the first one; indexes that kept their OIDs were made anew in their order.
        let mains: BTreeMap<_, _> = self
            .lost
            .iter()
            .filter_map(known)
            .map(|n| n.main())
            .filter(|n| !n.is_index())
            .map(|n| (n.id, n))
            .collect();
        let mut tables = mains.values();
        let (Some(table), None) = (tables.next(), tables.next()) else { return Vec::new() };
        let indexes: Vec<_> =
            self.lost.iter().rev().filter_map(known).filter(|n| n.main().is_index()).collect();
        let replacing: Vec<_> = created.iter().filter(|file| self.is_replacing(file)).collect();
        let mut lessons: Vec<_> = Vec::new();
        if indexes.len() == replacing.len() {
            lessons.extend(replacing.into_iter().zip(indexes).map(|(file, named)| (*file, named.id, true)));
        }
        let lesson = |(at, file): (usize, &FileNode)| (*file, table.id, at == 0);
        lessons.extend(created.iter().enumerate().map(lesson));
        lessons
    }

    fn is_replacing(&self, file: &FileNode) -> bool {
        !self.of.end.invalidated.contains(&(file.database, file.number))
    }

    /// Rows deleted and updated, a line for each table.
    fn rows(&mut self) {
        let mut sums: BTreeMap<(u32, String), (Object<'a>, u64, u64)> = BTreeMap::new();
        for rows in self.of.activity.rows.iter().filter(|rows| !self.created.contains(&rows.file)) {
            let named = self.catalogues.file(rows.file, When::Any);
            let no_rows = |named: Named<'_>| named.is_toast() || named.is_index() || named.is_internal();
            if named.is_some_and(no_rows) || self.catalogues.is_part(rows.file) {
                continue;
            }
            let (words, object) = match named {
                Some(named) => (named.words(), Object::Named(named)),
                None => {
                    let words = numbers(&[], &[rows.file]);
                    (words.clone(), Object::Numbers(words))
                }
            };
            let sum = sums.entry((rows.file.database, words)).or_insert((object, 0, 0));
            sum.1 += rows.deleted;
            sum.2 += rows.updated;
        }
        for ((database, _), (object, deleted, updated)) in sums {
            for (kind, count) in [(Kind::Delete, deleted), (Kind::Update, updated)] {
                if count > 0 {
                    self.event(kind, Some(database), object.clone(), Some(count), When::Any);
                }
            }
        }
    }
}

/// What an event is about.
#[derive(Debug, Clone)]
enum Object<'k> {
    None,
    Named(Named<'k>),
    Numbers(String),
}

/// What every event of a transaction has in common.
struct End {
    lsn: Lsn,
    previous: Lsn,
    time: crate::types::Moment,
}

impl End {
    fn of(committed: &Committed) -> Self {
        let CommitEnd { lsn, previous, time, .. } = &committed.end;
        Self { lsn: *lsn, previous: *previous, time: *time }
    }
}

/// `OID 16384 (file 1663/5/16384)`
fn numbers(oids: &[(u32, u32)], files: &[FileNode]) -> String {
    let oids = listed("OID", "OIDs", oids.iter().map(|(_, oid)| oid.to_string()));
    let files = listed(
        "file",
        "files",
        files.iter().map(|f| format!("{}/{}/{}", f.tablespace, f.database, f.number)),
    );
    match (oids, files) {
        (Some(oids), Some(files)) => format!("{oids} ({files})"),
        (one, other) => one.or(other).unwrap_or_default(),
    }
}

fn listed(one: &str, several: &str, items: impl ExactSizeIterator<Item = String>) -> Option<String> {
    let count = items.len();
    let mut text = items.take(SHOWN).collect::<Vec<_>>().join(", ");
    if count > SHOWN {
        text.push_str(&format!(" and {} more", count - SHOWN));
    }
    match count {
        0 => None,
        1 => Some(format!("{one} {text}")),
        _ => Some(format!("{several} {text}")),
    }
}
