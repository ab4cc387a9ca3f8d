//! `pitr archive-get`

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use super::attend::{ask_attendant, get_options};
use super::settings::{Global, Settings};
use super::{Stop, complain, cwd, now};
use crate::daemon::{Answer, Work};
use crate::operation::archive_get::window::deliver;
use crate::operation::archive_get::{GetError, archive_get, is_asked_by_the_server};
use crate::operation::data_directory::is_recovering;
use crate::types::WalFileName;

#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 delivered and verified; 1 proven absent in every repository, or counted as absent; 255 \
                  everything else, wrong usage and a gap or damage before later segments included: recovery stops, and nothing \
                  is lost."
)]
pub(super) struct GetArgs {
    /// The file's name, as the server gives it for %f.
    file: String,
    /// Where to put it, as the server gives it for %p.
    destination: PathBuf,
    /// What a repository that cannot be asked counts as, once archive.get-retry is used up.
    ///
    /// `abort` stops recovery, which can be started again. `absent` lets a standby go on with streaming from
    /// its primary; where there is none to stream from, recovery ends there, and what is archived later is
    /// lost to it. A repository that is the wrong one, or holds a damaged file, stops recovery in either case.
    #[arg(long, value_enum, default_value = "abort")]
    unreachable: Unreachable,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Unreachable {
    /// Exit 255: recovery stops and can be started again.
    Abort,
    /// Exit 1, after the retries: for a standby that can also stream.
    Absent,
}

impl Unreachable {
    /// As it stands on a command line.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Abort => "abort",
            Self::Absent => "absent",
        }
    }
}

impl GetArgs {
    pub(super) fn run(&self, global: &Global) -> Result<(), Stop> {
        let hint = "is %p passed instead of %f? restore_command = 'pitr archive-get %f %p'";
        let file: WalFileName = self
            .file
            .parse()
            .context("cannot get the file")
            .map_err(|e| Stop::Failed(e, Some(hint.to_owned())))?;
        let settings = Settings::load(global)?;
        let options = get_options(&settings, global);
        let (memory, cwd) = (settings.memory(), cwd()?);
        let within = |budget| {
            let storages = settings.storages_within(budget)?;
            anyhow::Ok(archive_get(storages, &memory, file, &self.destination, &cwd, &options, now()))
        };
        let found = match self.handed_over(&settings, global, &cwd, file) {
            Some(known) => known,
            // Any of several may have it: each is asked once before the patience for one of them holds up recovery.
            None if settings.repositories.len() > 1 => match within(Duration::ZERO)? {
                Err(e) if e.is_unreachable() => within(settings.get_retry)?,
                found => found,
            },
            None => within(settings.get_retry)?,
        };
        match found {
            Ok(true) => Ok(()),
            Ok(false) => {
                if global.verbose {
                    complain(&format!("{file} is in no archive"));
                }
                Err(Stop::Code(1))
            }
            Err(e) if self.unreachable == Unreachable::Absent && e.is_unreachable() => {
                complain(&format!("pitr: {:#}; counted as absent", anyhow::Error::from(e)));
                Err(Stop::Code(1))
            }
            Err(e @ GetError::Taken { .. }) => {
                let hint = "does archive_command call archive-get instead of archive-push?";
                Err(Stop::Failed(e.into(), Some(hint.to_owned())))
            }
            Err(e @ GetError::Elsewhere { .. }) => {
                let hint = "is %p passed as the destination? restore_command = 'pitr archive-get %f %p'";
                Err(Stop::Failed(e.into(), Some(hint.to_owned())))
            }
            Err(e @ GetError::Gap { from, .. }) => {
                let hint = format!(
                    "is it in a repository that is not configured here, or was the server lost while it was archived? to before the gap: pitr restore --target-lsn or --target-time, before {from}"
                );
                Err(Stop::Failed(e.into(), Some(hint)))
            }
            Err(e @ (GetError::CutShort { ends: at, .. } | GetError::Border { at, .. })) => {
                let hint = format!(
                    "is there a good copy in a server's pg_wal (pitr archive-push), or in a repository that is not configured here? to before that: pitr restore --target-lsn or --target-time, before {at}"
                );
                Err(Stop::Failed(e.into(), Some(hint)))
            }
            Err(e) => Err(e.into()),
        }
    }
}

impl GetArgs {
    /// What the process that stays knows: that the file is in its place now, or that it is in no repository. Everything
    /// else is found out by this one.
    fn handed_over(
        &self,
        settings: &Settings,
        global: &Global,
        cwd: &Path,
        file: WalFileName,
    ) -> Option<Result<bool, GetError>> {
        if settings.prefetch == 0 {
            return None;
        }
        let worth = || is_recovering(cwd);
        match ask_attendant(settings, global, cwd, &self.destination, worth, Work::Get(file.to_string()))? {
            Answer::Ready(path) => match deliver(&path, file, &self.destination, cwd) {
                Ok(false) => None,
                placed => Some(placed),
            },
            Answer::Absent if is_asked_by_the_server(file, &self.destination, cwd) => Some(Ok(false)),
            _ => None,
        }
    }
}
