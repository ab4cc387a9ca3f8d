//! `pitr accept-system`

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use super::settings::{Global, Settings};
use super::{Stop, now, say};
use crate::pgdata::control_file::ControlFile;
use crate::repository::{Create, Repository, SystemIdentity};

#[derive(Debug, Args)]
pub(super) struct AcceptArgs {
    /// The data directory of the new system.
    #[arg(long, value_name = "DIR", env = "PGDATA")]
    pgdata: PathBuf,
}

impl AcceptArgs {
    pub(super) fn run(&self, global: &Global) -> Result<(), Stop> {
        let settings = Settings::load(global)?;
        let path = self.pgdata.join(ControlFile::PATH);
        let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let control =
            ControlFile::parse(&bytes).with_context(|| format!("cannot understand {}", path.display()))?;
        let system = SystemIdentity {
            system_identifier: control.system_id,
            segment_size: control.segment_size,
            postgres_major: Some(u32::from(control.major)),
        };
        let mut accepted = Vec::new();
        for storage in settings.storages()? {
            let repository = Repository::open(storage, &settings.memory(), Create::RootAndIdentity, now())?;
            let (cluster, new) = repository.open_epoch(&settings.cluster, &system, now())?;
            repository.remember(&settings.memory(), &cluster)?;
            if global.json {
                accepted.push(serde_json::json!({
                    "repository": repository.url(), "name": cluster.name().as_str(), "new": new,
                    "system_identifier": system.system_identifier, "epoch": cluster.epoch().0,
                }));
                continue;
            }
            let done = if new { "is now bound" } else { "was already bound" };
            say(&format!(
                "cluster \"{}\" in {} {done} to system identifier {} (epoch {})",
                cluster.name(),
                repository.url(),
                system.system_identifier,
                cluster.epoch()
            ));
        }
        if global.json {
            say(&serde_json::json!({ "accepted": accepted }).to_string());
        }
        Ok(())
    }
}
