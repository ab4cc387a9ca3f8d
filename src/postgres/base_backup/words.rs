//! What is asked for, and how the answers are read.

use std::fmt::Write as _;

use bytes::{Buf, Bytes};

use super::{BaseBackupOptions, Checkpoint, Tablespace};
use crate::postgres::connection::Row;
use crate::postgres::error::PostgresError;
use crate::types::{Lsn, TimelineId};

pub(super) fn cstring(bytes: &mut Bytes) -> Option<String> {
    let end = bytes.iter().position(|b| *b == 0)?;
    let text = bytes.split_to(end);
    bytes.advance(1);
    String::from_utf8(text.to_vec()).ok()
}

pub(super) fn position(row: &Row) -> Result<(Lsn, TimelineId), PostgresError> {
    Ok((row.parse(0, "WAL position")?, TimelineId(row.parse(1, "timeline")?)))
}

pub(super) fn tablespace(row: &Row) -> Result<Tablespace, PostgresError> {
    let oid = row.text(0).map(|_| row.parse(0, "tablespace OID")).transpose()?;
    Ok(Tablespace {
        oid,
        location: row.text(1).map(str::to_owned).filter(|l| oid.is_some() && !l.is_empty()),
        size: row.text(2).and_then(|t| t.parse::<u64>().ok()).map(|kb| kb.saturating_mul(1024)),
    })
}

pub(super) fn command(options: &BaseBackupOptions, typed: bool) -> String {
    let label = options.label.replace('\'', "''");
    let fast = options.checkpoint == Checkpoint::Fast;
    let sums = options.manifest_checksums;
    let mut text = String::new();
    let written = if typed {
        let checkpoint = if fast { "fast" } else { "spread" };
        write!(
            text,
            "BASE_BACKUP (LABEL '{label}', PROGRESS, CHECKPOINT '{checkpoint}', WAIT false, TABLESPACE_MAP, \
             MANIFEST 'yes', MANIFEST_CHECKSUMS '{sums}'"
        )
        .and_then(|()| options.max_rate.map_or(Ok(()), |rate| write!(text, ", MAX_RATE {rate}")))
        .and_then(|()| text.write_char(')'))
    } else {
        let checkpoint = if fast { " FAST" } else { "" };
        write!(
            text,
            "BASE_BACKUP LABEL '{label}' PROGRESS{checkpoint} NOWAIT TABLESPACE_MAP MANIFEST 'yes' \
             MANIFEST_CHECKSUMS '{sums}'"
        )
        .and_then(|()| options.max_rate.map_or(Ok(()), |rate| write!(text, " MAX_RATE {rate}")))
    };
    debug_assert!(written.is_ok(), "writing to a String cannot fail");
    text
}
