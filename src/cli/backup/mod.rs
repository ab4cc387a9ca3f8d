//! `pitr backup`: from words to [`BackupOptions`], and back to words.

mod hint;
mod progress;
pub(super) mod quantity;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};

pub use hint::hint;
pub use progress::Progress;

use crate::operation::backup::{Backup, BackupOptions, BackupSource, Taken, Wal, backup};
use crate::postgres::ConnInfo;
use crate::postgres::base_backup::Checkpoint;
use crate::repository::Cluster;
use crate::types::Moment;

/// More threads than these compress faster than any server sends, and each holds two frames of 4 MiB in memory.
const MOST_THREADS: usize = 6;

/// Takes a base backup over the replication protocol, from a primary or a standby.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// What the backup holds.
    #[arg(long = "type", value_enum, default_value = "full")]
    kind: Kind,
    /// A name for people; the server keeps it in backup_label.
    #[arg(long, default_value = "pitr")]
    label: String,
    /// A note that is kept with the backup; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = annotation)]
    annotate: Vec<(String, String)>,
    /// Whether the server makes its checkpoint at once or over time.
    #[arg(long, value_enum, default_value = "fast")]
    checkpoint: CheckpointArg,
    /// At most this much a second, as 20M or 512k (a number alone: kB).
    #[arg(long, value_name = "RATE", value_parser = quantity::rate)]
    max_rate: Option<u32>,
    /// Where the WAL from start to end comes from: the server's archiver, or a second connection. With
    /// auto it is the archiver where the server's last segments have arrived (for a standby: and --primary is
    /// given), and the command says which.
    #[arg(long, value_enum, default_value = "auto")]
    wal: WalArg,
    /// How long to wait for the last WAL, as 10min or 90s.
    #[arg(long, value_name = "TIME", default_value = "10min", value_parser = quantity::duration)]
    wal_timeout: Duration,
    /// The primary, where a standby is backed up: asked to end its WAL segment (pg_switch_wal). A password belongs into the
    /// configuration (postgres.primary-conninfo) or a passfile.
    #[arg(long, value_name = "CONNINFO")]
    primary: Option<String>,
    /// Keeps a backup in which the server found damaged pages; it is marked as such.
    #[arg(long)]
    keep_damaged: bool,
    /// Does not record what the cluster's objects are called, which takes a login for SQL: pitr events then
    /// shows numbers.
    #[arg(long)]
    no_catalogue: bool,
    /// The server, as a connection string or URI; otherwise the configuration or libpq's variables say.
    #[arg(long, value_name = "CONNINFO")]
    conninfo: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Full,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CheckpointArg {
    Fast,
    Spread,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum WalArg {
    Auto,
    Archive,
    Include,
}

/// What the configuration and the process bring.
pub struct Surroundings<'a> {
    /// `postgres.conninfo` of the configuration.
    pub conninfo: Option<&'a str>,
    /// `postgres.primary-conninfo` of the configuration.
    pub primary: Option<&'a str>,
    /// The environment.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// zstd's level.
    pub level: i32,
    /// Where temporary files go.
    pub temp_dir: PathBuf,
    /// This host's name.
    pub host: String,
    /// The clock.
    pub clock: &'a (dyn Fn() -> Moment + Sync),
}

impl std::fmt::Debug for Surroundings<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Surroundings").field("host", &self.host).finish_non_exhaustive()
    }
}

impl BackupArgs {
    /// Where the server is, by argument, configuration and environment.
    pub fn connection(&self, around: &Surroundings<'_>) -> anyhow::Result<ConnInfo> {
        let explicit = self.conninfo.as_deref().or(around.conninfo);
        ConnInfo::resolve(explicit, around.env).context("cannot tell where the server is")
    }

    /// Takes the backup. `source` was made from [`BackupArgs::connection`], and `clusters` are those of its
    /// system identifier.
    pub fn run(
        &self,
        source: &mut BackupSource,
        clusters: &[Cluster<'_>],
        around: &Surroundings<'_>,
        progress: &Progress,
    ) -> anyhow::Result<Taken> {
        let Kind::Full = self.kind;
        let mut annotations = BTreeMap::new();
        for (key, value) in &self.annotate {
            if annotations.insert(key.clone(), value.clone()).is_some() {
                anyhow::bail!("--annotate gives \"{key}\" twice");
            }
        }
        let options = BackupOptions {
            label: self.label.clone(),
            annotations,
            checkpoint: match self.checkpoint {
                CheckpointArg::Fast => Checkpoint::Fast,
                CheckpointArg::Spread => Checkpoint::Spread,
            },
            max_rate: self.max_rate,
            wal_timeout: self.wal_timeout,
            keep_damaged: self.keep_damaged,
            catalogue: !self.no_catalogue,
            level: around.level,
            threads: std::thread::available_parallelism().map_or(2, usize::from).min(MOST_THREADS),
            temp_dir: around.temp_dir.clone(),
            host: around.host.clone(),
        };
        let connection = self.connection(around)?;
        let primary = match self.primary.as_deref().or(around.primary) {
            // Only what is said here: the variables are about the standby.
            Some(text) => Some(
                ConnInfo::resolve(Some(text), &|name| {
                    (name == "HOME" || name == "PGPASSFILE").then(|| (around.env)(name)).flatten()
                })
                .context("cannot tell where the primary is")?,
            ),
            None => None,
        };
        let archive = match self.wal {
            WalArg::Archive => true,
            WalArg::Include => false,
            WalArg::Auto => {
                let archiving = source.archiving(&connection, clusters, primary.is_some());
                let (mode, why) = (if archiving.works { "archive" } else { "include" }, archiving.why);
                progress.say(&format!("WAL: {mode}, because {why}"));
                archiving.works
            }
        };
        let wal = if archive {
            Wal::Archive { connection: &connection, primary: primary.as_ref() }
        } else {
            Wal::Include { connection: &connection }
        };
        backup(source, wal, clusters, &options, around.clock, progress).map_err(Into::into)
    }
}

/// The one line that says what was done.
pub fn summary(backup: &Backup) -> String {
    format!(
        "backup {} is complete: {} in {} files, {} stored, WAL from {} to {}{}",
        backup.id,
        quantity::bytes(backup.size),
        backup.files,
        quantity::bytes(backup.stored_size),
        backup.start_lsn,
        backup.stop_lsn,
        if backup.damage.is_empty() { "" } else { " (kept although the server found damaged pages)" },
    )
}

fn annotation(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}
