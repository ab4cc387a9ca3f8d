//! What the numbers in the WAL were called: looked up in the catalogues that backups brought along, then in
//! the server's own.
//!
//! A relation is known by its OID, or by its file. The catalogue nearest before a transaction goes first: it
//! has the name that the object had then. One from behind it knows what was made in between, but never what
//! was dropped: a number that it has is another object's. What no catalogue knows stays a number.

use std::collections::{HashMap, HashSet};

use super::name::{Quoted, TableName};
use crate::repository::backup_set::catalogue::{CatalogueLine, Name, Relation};
use crate::wal::{FileNode, RelationId};

/// What is asked of a catalogue.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub(super) relations: HashSet<RelationId>,
    pub(super) files: HashSet<FileNode>,
    /// Every relation that is called so.
    pub(super) table: Option<TableName>,
    /// Every file's number.
    pub(super) all_files: bool,
}

/// What a catalogue answered.
#[derive(Debug, Default)]
pub(super) struct Known {
    databases: HashMap<u32, Name>,
    relations: HashMap<RelationId, Relation>,
    files: HashMap<FileNode, RelationId>,
    /// Files of relations that were not asked for.
    others: HashSet<FileNode>,
}

/// The tablespace of what all databases share.
const SHARED: u32 = 1664;

fn file_of(database: u32, relation: &Relation) -> Option<FileNode> {
    let database = if relation.tablespace == SHARED { 0 } else { database };
    (relation.file > 0).then_some(FileNode {
        tablespace: relation.tablespace,
        database,
        number: relation.file,
    })
}

impl Wanted {
    /// Goes through a catalogue; again only where an owner, or an owner's owner, came before what it owns.
    pub(super) fn look_up<L, E>(mut self, mut lines: impl FnMut() -> Result<L, E>) -> Result<Known, E>
    where
        L: Iterator<Item = Result<CatalogueLine, E>>,
    {
        let mut known = Known::default();
        loop {
            let mut owners = HashSet::new();
            let mut database = 0;
            for line in lines()? {
                match line? {
                    CatalogueLine::Database(line) => {
                        database = line.oid;
                        known.databases.insert(line.oid, line.name);
                    }
                    CatalogueLine::Relation(relation) => {
                        let id = (database, relation.oid);
                        let file = file_of(database, &relation);
                        let named = |table: &TableName| table.fits(&relation.schema, &relation.name);
                        let sought = self.relations.contains(&id)
                            || file.is_some_and(|file| self.files.contains(&file))
                            || self.table.as_ref().is_some_and(named);
                        if sought {
                            known.files.extend(file.map(|file| (file, id)));
                            owners.extend(relation.owner.map(|owner| (database, owner)));
                            known.relations.insert(id, relation);
                        } else if self.all_files {
                            known.others.extend(file);
                        }
                    }
                }
            }
            owners.retain(|id| !known.relations.contains_key(id));
            if owners.is_empty() || owners == self.relations {
                return Ok(known);
            }
            self = Self { relations: owners, ..Self::default() };
        }
    }
}

impl Known {
    /// The files of what was asked for.
    pub(super) fn own_files(&self) -> impl Iterator<Item = FileNode> + '_ {
        self.files.keys().copied()
    }

    /// Every file that it knows.
    pub(super) fn files(&self) -> impl Iterator<Item = FileNode> + '_ {
        self.files.keys().chain(&self.others).copied()
    }
}

/// A relation that a catalogue knows, with the way to what owns it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Named<'k> {
    pub(super) id: RelationId,
    pub(super) relation: &'k Relation,
    known: &'k Known,
}

impl<'k> Named<'k> {
    /// The table of an index, or of a TOAST table.
    pub(super) fn owner(self) -> Option<Self> {
        let id = (self.id.0, self.relation.owner?);
        Some(Self { id, relation: self.known.relations.get(&id)?, known: self.known })
    }

    /// A TOAST table or the index of one.
    pub(super) fn is_toast(self) -> bool {
        self.relation.kind == 't' || self.owner().is_some_and(|owner| owner.relation.kind == 't')
    }

    /// The table whose rows are here: of a TOAST table its owner.
    pub(super) fn main(self) -> Self {
        match self.owner() {
            Some(owner) if self.is_toast() => owner.main(),
            _ => self,
        }
    }

    pub(super) fn is_index(self) -> bool {
        matches!(self.relation.kind, 'i' | 'I')
    }

    /// The server's own, or of one session: nobody's data.
    pub(super) fn is_internal(self) -> bool {
        let Name::Text(schema) = &self.relation.schema else { return false };
        schema == "pg_catalog"
            || schema == "information_schema"
            || schema.starts_with("pg_temp_")
            || schema.starts_with("pg_toast_temp_")
    }

    /// Schema and name of the table that an operator would name.
    pub(super) fn table(self) -> (Name, Name) {
        match self.owner() {
            Some(owner) => owner.table(),
            None => (self.relation.schema.clone(), self.relation.name.clone()),
        }
    }

    /// `public.orders`, and what it is where it is no table.
    pub(super) fn words(self) -> String {
        let kind = match self.relation.kind {
            'i' | 'I' => "index ",
            'S' => "sequence ",
            'm' => "materialized view ",
            'v' => "view ",
            'f' => "foreign table ",
            'c' => "type ",
            't' => "TOAST table ",
            _ => "",
        };
        format!("{kind}{}.{}", Quoted(&self.relation.schema), Quoted(&self.relation.name))
    }
}

/// Files that came to their relations after the catalogues were read, as the WAL itself tells.
#[derive(Debug, Default)]
pub(super) struct Learned {
    /// The relation; `false` where it is only known to be one of the table's indexes, its TOAST table or the like.
    files: HashMap<FileNode, (RelationId, bool)>,
    /// Made by a rewrite beside the relation's new file.
    passing: HashSet<RelationId>,
}

impl Learned {
    /// A rewrite made these.
    pub(super) fn pass(&mut self, made: Vec<RelationId>) {
        self.passing.extend(made);
    }

    /// A relation has this file from now on.
    pub(super) fn own(&mut self, file: FileNode, id: RelationId) {
        self.files.insert(file, (id, true));
    }

    /// The file belongs to something that belongs to this table.
    pub(super) fn part(&mut self, file: FileNode, id: RelationId) {
        self.files.entry(file).or_insert((id, false));
    }
}

/// The catalogues for one transaction, the nearest first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Catalogues<'k> {
    /// What earlier transactions told.
    pub(super) learned: &'k Learned,
    /// From before it, the nearest first.
    pub(super) before: &'k [&'k Known],
    /// From behind it.
    pub(super) behind: &'k [&'k Known],
}

/// Which catalogues may answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// For what the transaction made an end to.
    Before,
    /// For what it left there.
    Any,
}

impl<'k> Catalogues<'k> {
    fn asked(self, when: When) -> impl Iterator<Item = &'k Known> {
        let behind = if when == When::Any { self.behind } else { &[] };
        self.before.iter().chain(behind).copied()
    }

    pub(super) fn database(self, oid: u32, when: When) -> Option<String> {
        self.asked(when).find_map(|known| known.databases.get(&oid)).map(|name| Quoted(name).to_string())
    }

    pub(super) fn relation(self, id: RelationId, when: When) -> Option<Named<'k>> {
        self.asked(when)
            .find_map(|known| known.relations.get(&id).map(|relation| Named { id, relation, known }))
    }

    /// The relation that a file is of, or the table whose index or TOAST table it is of.
    pub(super) fn file(self, file: FileNode, when: When) -> Option<Named<'k>> {
        let known = self.asked(when).find_map(|known| {
            let id = *known.files.get(&file)?;
            known.relations.get(&id).map(|relation| Named { id, relation, known })
        });
        known.or_else(|| self.relation(self.learned.files.get(&file)?.0, when))
    }

    /// Whether a relation was made by a rewrite, and not by anybody's CREATE.
    pub(super) fn is_passing(self, id: RelationId) -> bool {
        self.learned.passing.contains(&id)
    }

    /// Whether a file holds no rows of the table that [`Catalogues::file`] gives for it.
    pub(super) fn is_part(self, file: FileNode) -> bool {
        self.learned.files.get(&file).is_some_and(|(_, own)| !own)
    }
}
