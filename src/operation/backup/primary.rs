//! The primary of a standby that is backed up: nobody but it can end the backup's last segment.

use super::source::runtime;
use super::{BackupError, Monitor};
use crate::operation::in_full::in_full;
use crate::postgres::ConnInfo;
use crate::postgres::sql::SqlClient;
use crate::types::{Lsn, SystemId};

/// What can be done so that the last segment ends.
#[derive(Debug)]
pub(super) enum Nudge<'a> {
    /// The server that was backed up is a primary: it has ended the segment itself.
    NotNeeded,
    /// A standby's primary.
    Primary(&'a ConnInfo, SystemId),
    /// A standby, and nobody to ask.
    Nobody,
}

impl Nudge<'_> {
    /// Before the backup begins, because hours later is late for a typing mistake: the server given as
    /// primary is one, and of this cluster.
    pub(super) fn check(&self, monitor: &dyn Monitor) -> Result<(), BackupError> {
        let Self::Primary(info, system) = self else { return Ok(()) };
        runtime()?.block_on(async {
            let mut sql = SqlClient::connect(info).await?;
            let found = sql.system_id().await?;
            if found != *system {
                return Err(BackupError::OtherSystem { what: "primary", expected: *system, found });
            }
            if sql.is_in_recovery().await? {
                return Err(BackupError::Setting("the server given as primary is a standby".to_owned()));
            }
            if !sql.may_switch_wal().await? {
                monitor.warning(
                    "the role may not call pg_switch_wal() on the primary (GRANT EXECUTE ON FUNCTION pg_switch_wal() TO …): \
                     the backup's last segment ends when it is full",
                );
            }
            sql.close().await;
            Ok(())
        })
    }

    /// Ends the primary's segment where it is still the one that is needed, which ends at `end`. A primary
    /// that cannot be asked now is no reason to throw the backup away: its traffic will end the segment too.
    pub(super) fn give(&self, end: Option<Lsn>, monitor: &dyn Monitor) {
        let Self::Primary(info, _) = self else { return };
        if let Err(error) = switch(info, end) {
            monitor.warning(&format!("cannot end the primary's WAL segment: {}", in_full(&error)));
        }
    }
}

fn switch(info: &ConnInfo, end: Option<Lsn>) -> Result<(), BackupError> {
    runtime()?.block_on(async {
        let mut sql = SqlClient::connect(info).await?;
        if sql.may_switch_wal().await? && Some(sql.wal_position().await?) < end {
            sql.switch_wal().await?;
        }
        sql.close().await;
        Ok(())
    })
}
