//! `pitr archive-get`

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use super::settings::{Global, Settings};
use super::{Stop, complain, cwd, now};
use crate::operation::archive_get::archive_get;
use crate::types::WalFileName;

#[derive(Debug, Args)]
pub(super) struct GetArgs {
    /// The file's name, as the server gives it for %f.
    file: String,
    /// Where to put it, as the server gives it for %p.
    destination: PathBuf,
    /// What a repository that cannot be asked counts as. With `absent`, a standby goes on with streaming;
    /// without a primary to stream from, recovery would end and lose what is archived later.
    #[arg(long, value_enum, default_value = "abort")]
    unreachable: Unreachable,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Unreachable {
    /// Exit 255: recovery stops and can be started again.
    Abort,
    /// Exit 1, after the retries: for a standby that can also stream.
    Absent,
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
        let found = archive_get(
            settings.storages_within(settings.get_retry)?,
            &settings.memory(),
            &settings.cluster,
            global.system_id,
            file,
            &self.destination,
            &cwd()?,
            now(),
        );
        match found {
            Ok(true) => Ok(()),
            Ok(false) => Err(Stop::Code(1)),
            Err(e) if self.unreachable == Unreachable::Absent => {
                complain(&format!("pitr: {:#}; counted as absent", anyhow::Error::from(e)));
                Err(Stop::Code(1))
            }
            Err(e) => Err(e.into()),
        }
    }
}
