//! `pitr archive-push`

use std::path::{Path, PathBuf};

use clap::Args;

use super::attend::{ahead_options, ask_attendant, push_options, put_away_what_recovery_left};
use super::settings::{Global, Settings};
use super::{Stop, complain, cwd, now};
use crate::daemon::{Answer, Work};
use crate::operation::archive_push::{Concern, PushAhead, PushError, Pushed, more_are_ready};
use crate::repository::wal_archive::{Beside, StoreOutcome};

/// How many files one run pushes at the same time: each takes some 10 MiB of memory.
const MOST_AT_ONCE: usize = 2;

#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 stored and durable in every repository; 1 not; 2 wrong usage.")]
pub(super) struct PushArgs {
    /// The file, as the server gives it for %p.
    path: PathBuf,
}

impl PushArgs {
    pub(super) fn run(&self, global: &Global) -> Result<(), Stop> {
        let settings = Settings::load(global)?;
        let cwd = cwd()?;
        if self.is_done_by_attendant(&settings, global, &cwd) {
            return Ok(());
        }
        put_away_what_recovery_left(&cwd);
        let options = push_options(&settings, global);
        let storages = settings.storages_within(settings.push_retry)?;
        let ahead = ahead_options(&settings, &cwd, MOST_AT_ONCE);
        let pushing = PushAhead::new(storages, settings.memory(), cwd, options, ahead, now);
        let pushed = pushing.push(&self.path);
        pushing.finish();
        let pushed = pushed.map_err(|e| {
            let hint = hint(&e).map(str::to_owned);
            Stop::Failed(e.into(), hint)
        })?;
        warn(&pushed);
        if global.verbose {
            complain(&format!("archived {}", pushed.name));
        }
        Ok(())
    }
}

impl PushArgs {
    /// Whether the process that stays has made the file durable, with nothing to be said about it.
    fn is_done_by_attendant(&self, settings: &Settings, global: &Global, cwd: &Path) -> bool {
        if settings.read_ahead == 0 {
            return false;
        }
        // One segment into a directory costs less than a process; a connection and a backlog are worth one.
        let worth = || settings.has_bucket() || more_are_ready(settings.read_ahead, &cwd.join(&self.path));
        let work = Work::Push(self.path.clone());
        ask_attendant(settings, global, cwd, &self.path, worth, work) == Some(Answer::Durable)
    }
}

/// What is stored all the same, and what that means for whoever reads the server's log.
fn warn(pushed: &Pushed) {
    let name = pushed.name;
    let spare = pushed.outcomes.contains(&StoreOutcome::Beside(Beside::OursDamaged));
    for outcome in &pushed.outcomes {
        match outcome {
            StoreOutcome::Beside(why) => {
                complain(&format!("pitr: warning: {name} is stored beside another copy: {why}"));
            }
            StoreOutcome::Discarded => complain(&format!(
                "pitr: warning: {name} differs from what is archived, and is not wanted (pitr repo resolve)"
            )),
            _ => {}
        }
    }
    if let Some(concern) = &pushed.concern {
        complain(&format!("pitr: warning: {name} is stored, but {concern}"));
        complain(match concern {
            Concern::Damaged(_) if spare => {
                "hint: an undamaged copy is archived; are this server's disk and memory healthy?"
            }
            Concern::Damaged(_) => {
                "hint: take a new base backup now; are this server's disk and memory healthy?"
            }
            Concern::NotChecked(_) => "hint: install a version of pitr that knows this server's",
            Concern::BadHistory(_) => "hint: was the file written or changed by hand?",
        });
    }
}

fn hint(error: &PushError) -> Option<&'static str> {
    Some(match error {
        PushError::Name { .. } => "is %f passed instead of %p, or a file that is no WAL file?",
        PushError::Read { .. } => {
            "is %f passed instead of %p? the server runs archive_command in its data directory"
        }
        PushError::Header { .. } | PushError::Length { .. } => {
            "is the file complete, and was it written by this server?"
        }
        PushError::Stranger { .. } => "was the file copied here from another server?",
        PushError::Conflict { .. } => {
            "are two servers archiving to this cluster? compare with `pitr repo cat`; `pitr repo resolve` settles it"
        }
        PushError::Strict { .. } => {
            "archive.strict refuses it; without it the segment is stored, marked, and the server goes on"
        }
        PushError::Control(_) | PushError::Repository { .. } => return None,
    })
}
