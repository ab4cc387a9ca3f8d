//! The change in place by which `DROP DATABASE` marks its row in `pg_database` before anything else.
//!
//! It belongs to no transaction: its record has no transaction number, it is not undone by a rollback, and
//! recovery that stops behind it leaves a database that nobody can connect to. What ties it to the drop is the
//! deletion of the same row that follows it. `VACUUM` changes rows of `pg_database` in place too: the last
//! change before the deletion is the drop's own.

use std::collections::VecDeque;

use crate::types::Lsn;
use crate::wal::block::first_block;
use crate::wal::ending::FileNode;
use crate::wal::le::u16_at;
use crate::wal::page::Magic;

/// `pg_database`: shared by all databases (tablespace `pg_global`), and its OID.
pub(super) const PG_DATABASE: FileNode = FileNode { tablespace: 1664, database: 0, number: 1262 };

/// Changes that wait for their deletion: drops that run at the same time, and what `VACUUM` left.
const REMEMBERED: usize = 64;

/// A row: its block, and its place in it.
type Row = (u32, u16);

/// The latest changes in place of `pg_database`: each with the start of the record before it.
#[derive(Debug, Default)]
pub(super) struct InPlace(VecDeque<(Row, Lsn)>);

impl InPlace {
    /// A record `INPLACE` of any table, with its main data.
    pub(super) fn changed(&mut self, body: &[u8], data: &[u8], previous: Lsn, magic: Magic) {
        // `xl_heap_inplace` begins with the row's place.
        let Some(row) = row(body, data, 0, magic) else { return };
        self.0.retain(|(known, _)| *known != row);
        if self.0.len() >= REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back((row, previous));
    }

    /// A record `DELETE` of `pg_database`, with its main data: where the record before the row's last change in
    /// place starts, if it had one.
    pub(super) fn deleted(&mut self, body: &[u8], data: &[u8], magic: Magic) -> Option<Lsn> {
        // `xl_heap_delete`: the deleting transaction, then the row's place.
        let row = row(body, data, 4, magic)?;
        let at = self.0.iter().position(|(known, _)| *known == row)?;
        self.0.remove(at).map(|(_, previous)| previous)
    }
}

fn row(body: &[u8], data: &[u8], at: usize, magic: Magic) -> Option<Row> {
    let (file, fork, block) = first_block(body, magic)?;
    let row = (block, u16_at(data, at)?);
    (file == PG_DATABASE && fork == 0).then_some(row)
}
