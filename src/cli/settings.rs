//! Flag > environment > file > default.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use serde::Deserialize;

use crate::repository::HostMemory;
use crate::repository::layout::ClusterName;
use crate::storage::{Options, Storage};
use crate::types::SystemId;

/// What every verb takes.
#[derive(Debug, Clone, Args)]
pub(super) struct Global {
    /// The configuration file [default: /etc/pitr/pitr.toml, where it is].
    #[arg(long, global = true, value_name = "FILE", env = "PITR_CONFIG")]
    pub(super) config: Option<PathBuf>,
    /// The cluster's name in the repository.
    #[arg(long, global = true, value_name = "NAME", env = "PITR_CLUSTER")]
    pub(super) cluster: Option<ClusterName>,
    /// The repository: file:///directory or s3://bucket/prefix.
    #[arg(long, global = true, value_name = "URL", env = "PITR_REPOSITORY")]
    pub(super) repository: Option<String>,
    /// Which of the cluster's systems is meant, where there are several.
    #[arg(long, global = true, value_name = "ID")]
    pub(super) system_id: Option<SystemId>,
    /// One JSON document on stdout.
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Says more, on stderr.
    #[arg(short, long, global = true)]
    pub(super) verbose: bool,
    /// Says only errors.
    #[arg(short, long, global = true)]
    pub(super) quiet: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct File {
    cluster: Option<String>,
    timezone: Option<String>,
    repository: Vec<RepositoryTable>,
    postgres: Postgres,
    archive: Archive,
    retention: toml::Table,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RepositoryTable {
    url: String,
    endpoint: Option<String>,
    region: Option<String>,
    path_style: Option<bool>,
    profile: Option<String>,
    ca_file: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct Postgres {
    conninfo: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct Archive {
    compression_level: Option<i32>,
    strict: Option<bool>,
    spool: Option<PathBuf>,
    /// Seconds that a failing store is tried again.
    timeout: Option<u64>,
    // Read by later versions; accepted so that one file serves both.
    read_ahead: Option<u32>,
    prefetch: Option<u32>,
}

/// Everything that was set, from wherever it came.
#[derive(Debug)]
pub(super) struct Settings {
    /// All repositories, in order.
    pub(super) repositories: Vec<(String, Options)>,
    /// The cluster's name.
    pub(super) cluster: ClusterName,
    /// `postgres.conninfo`.
    pub(super) conninfo: Option<String>,
    /// zstd's level.
    pub(super) level: i32,
    /// Refuse damaged content.
    pub(super) strict: bool,
    /// The zone of moments that name none.
    pub(super) timezone: Option<String>,
    /// The configuration file that was read.
    pub(super) config: Option<PathBuf>,
    /// Where this host keeps what it knows.
    pub(super) spool: PathBuf,
}

const DEFAULT_CONFIG: &str = "/etc/pitr/pitr.toml";

impl Settings {
    /// Puts the settings together.
    pub(super) fn load(global: &Global) -> anyhow::Result<Self> {
        let path = global.config.clone().or_else(|| {
            let default = PathBuf::from(DEFAULT_CONFIG);
            default.exists().then_some(default)
        });
        let file = match &path {
            Some(path) => read(path)?,
            None => File::default(),
        };
        let env = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        let seconds = match env("PITR_ARCHIVE_TIMEOUT") {
            Some(text) => {
                text.parse().with_context(|| format!("PITR_ARCHIVE_TIMEOUT={text}: not seconds"))?
            }
            None => file.archive.timeout.unwrap_or(60),
        };
        let options = |r: Option<&RepositoryTable>| Options {
            endpoint: env("PITR_REPOSITORY_ENDPOINT").or_else(|| r.and_then(|r| r.endpoint.clone())),
            region: env("PITR_REPOSITORY_REGION").or_else(|| r.and_then(|r| r.region.clone())),
            path_style: r.and_then(|r| r.path_style),
            profile: r.and_then(|r| r.profile.clone()),
            ca_file: env("PITR_REPOSITORY_CA_FILE")
                .map(Into::into)
                .or_else(|| r.and_then(|r| r.ca_file.clone())),
            retry_budget: Duration::from_secs(seconds),
        };
        let repositories: Vec<_> = match &global.repository {
            Some(url) => {
                let table = file.repository.iter().find(|r| r.url == *url);
                vec![(url.clone(), options(table))]
            }
            None => file.repository.iter().map(|r| (r.url.clone(), options(Some(r)))).collect(),
        };
        if repositories.is_empty() {
            bail!(
                "no repository is configured (set PITR_REPOSITORY, give --repository, or write a [[repository]] into {DEFAULT_CONFIG})"
            );
        }
        let cluster = match (&global.cluster, &file.cluster) {
            (Some(name), _) => name.clone(),
            (None, Some(name)) => name.parse()?,
            (None, None) => "main".parse()?,
        };
        let level = match env("PITR_ARCHIVE_COMPRESSION_LEVEL") {
            Some(text) => text.parse().with_context(|| format!("PITR_ARCHIVE_COMPRESSION_LEVEL={text}"))?,
            None => file.archive.compression_level.unwrap_or(3),
        };
        if !(-7..=19).contains(&level) {
            bail!("archive.compression-level is {level}; it must lie between -7 and 19");
        }
        let strict = match env("PITR_ARCHIVE_STRICT").as_deref() {
            Some("true" | "on" | "1") => true,
            Some("false" | "off" | "0") => false,
            Some(other) => bail!("PITR_ARCHIVE_STRICT={other}: expected true or false"),
            None => file.archive.strict.unwrap_or(false),
        };
        Ok(Self {
            repositories,
            cluster,
            conninfo: file.postgres.conninfo,
            level,
            strict,
            spool: env("PITR_ARCHIVE_SPOOL").map(Into::into).or(file.archive.spool).unwrap_or_else(state_dir),
            timezone: file.timezone,
            config: path,
        })
    }

    /// The storages, in order; nothing is reached yet.
    pub(super) fn storages(&self) -> anyhow::Result<Vec<Arc<dyn Storage>>> {
        self.repositories
            .iter()
            .map(|(url, options)| {
                let storage = crate::storage::open(url, options).context("cannot use the repository")?;
                Ok(Arc::from(storage))
            })
            .collect()
    }

    /// What this host remembers.
    pub(super) fn memory(&self) -> HostMemory {
        HostMemory::new(self.spool.join("known-repositories"))
    }
}

fn read(path: &Path) -> anyhow::Result<File> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let file: File =
        toml::from_str(&text).with_context(|| format!("cannot understand {}", path.display()))?;
    if file.archive.read_ahead.is_some() || file.archive.prefetch.is_some() || !file.retention.is_empty() {
        tracing::info!("read-ahead, prefetch and [retention] have no effect in this version");
    }
    Ok(file)
}

/// Where the server's own user can write without anything having been prepared.
fn state_dir() -> PathBuf {
    let system = PathBuf::from("/var/spool/pitr");
    if system.is_dir() && rustix::fs::access(&system, rustix::fs::Access::WRITE_OK).is_ok() {
        return system;
    }
    std::env::home_dir().unwrap_or_else(|| PathBuf::from("/var/tmp")).join(".local/state/pitr")
}
