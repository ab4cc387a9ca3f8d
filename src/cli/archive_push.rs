//! `pitr archive-push`

use std::path::PathBuf;

use clap::Args;

use super::settings::{Global, Settings};
use super::{Stop, complain, cwd, now};
use crate::operation::archive_push::{PushError, PushOptions, archive_push};
use crate::repository::wal_archive::StoreOutcome;

#[derive(Debug, Args)]
pub(super) struct PushArgs {
    /// The file, as the server gives it for %p.
    path: PathBuf,
}

impl PushArgs {
    pub(super) fn run(&self, global: &Global) -> Result<(), Stop> {
        let settings = Settings::load(global)?;
        let options =
            PushOptions { cluster: settings.cluster.clone(), level: settings.level, strict: settings.strict };
        let pushed = archive_push(
            settings.storages_within(settings.push_retry)?,
            &settings.memory(),
            &self.path,
            &cwd()?,
            &options,
            now(),
        )
        .map_err(|e| {
            let hint = hint(&e).map(str::to_owned);
            Stop::Failed(e.into(), hint)
        })?;
        if let Some(damage) = &pushed.damage {
            complain(&format!(
                "pitr: warning: {} is stored, but {damage}: recovery will end there, take a new base backup",
                pushed.name
            ));
        }
        for outcome in &pushed.outcomes {
            match outcome {
                StoreOutcome::Beside { why } => {
                    complain(&format!("pitr: warning: {} is stored beside another copy: {why}", pushed.name));
                }
                StoreOutcome::Discarded => complain(&format!(
                    "pitr: warning: {} differs from what is archived, and is not wanted (pitr repo resolve)",
                    pushed.name
                )),
                _ => {}
            }
        }
        if global.verbose {
            complain(&format!("archived {}", pushed.name));
        }
        Ok(())
    }
}

fn hint(error: &PushError) -> Option<&'static str> {
    Some(match error {
        PushError::Name { .. } => "is %f passed instead of %p, or a file that is no WAL file?",
        PushError::Read { .. } => {
            "is %f passed instead of %p? the server runs archive_command in its data directory"
        }
        PushError::Header { .. } => "is the file complete, and is it a WAL segment of this server?",
        PushError::Stranger { .. } => "was the file copied here from another server?",
        PushError::Conflict { .. } => {
            "are two servers archiving to this cluster? compare with `pitr repo cat`; `pitr repo resolve` settles it"
        }
        PushError::NoSystem { .. } => "run it in the data directory, as the server does",
        PushError::Damaged { .. } => {
            "archive.strict refuses damaged content; without it the segment is stored, marked"
        }
        PushError::Control(_) | PushError::Repository { .. } => return None,
    })
}
