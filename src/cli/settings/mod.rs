//! Flag > environment > file > default.
//!
//! What is written anywhere must be understood: a key that nobody reads, a value of the wrong kind, a file
//! that was named and is not there are errors. A hook that quietly went on without them would archive to
//! another place, or end a recovery.

mod environment;
mod file;
mod fingerprint;
mod keys;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;

use self::file::Section;
use self::keys::Value;
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
    /// The cluster's name in the repository [default: main].
    #[arg(long, global = true, value_name = "NAME", env = "PITR_CLUSTER")]
    pub(super) cluster: Option<ClusterName>,
    /// The repository: file:///directory or s3://bucket/prefix.
    #[arg(long, global = true, value_name = "URL", env = "PITR_REPOSITORY", hide_env_values = true)]
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

/// Everything that was set, from wherever it came.
pub(super) struct Settings {
    /// All repositories, in order, with the options that reach them.
    pub(super) repositories: Vec<(String, Options)>,
    /// The cluster's name.
    pub(super) cluster: ClusterName,
    /// `postgres.conninfo`.
    pub(super) conninfo: Option<String>,
    /// `postgres.primary-conninfo`: asked to end its segment after a backup of its standby.
    pub(super) primary_conninfo: Option<String>,
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
    /// For how long `archive-push` tries a failing store again.
    pub(super) push_retry: Duration,
    /// For how long `archive-get` does.
    pub(super) get_retry: Duration,
    /// How many segments `archive-push` stores ahead of the one that the server asks for.
    pub(super) read_ahead: usize,
    /// How many segments `archive-get` holds ready ahead of recovery.
    pub(super) prefetch: usize,
}

const DEFAULT_CONFIG: &str = "/etc/pitr/pitr.toml";

/// Bytes of one object on its way to a bucket that a hook keeps in memory: more than most segments of 16 MiB have,
/// compressed, and several may be on their way.
const HOOK_IN_MEMORY: usize = 6 << 20;

/// The same where several are on their way at once. Most segments of 16 MiB have less when they are compressed.
const AT_ONCE_IN_MEMORY: usize = 5 << 19;

/// A minute outlasts a restart of most stores; the server calls a hook that failed again by itself.
const DEFAULT_RETRY: i64 = 60;

/// The variables that a hook reads besides its flags, none of them a secret: what a server that runs in
/// another environment has to be told.
pub(super) fn variables_of_hooks() -> impl Iterator<Item = String> {
    keys::KEYS
        .iter()
        .filter(|key| matches!(key.section, "repository" | "archive") && key.name != "url")
        .filter(|key| key.kind != keys::Kind::Secret)
        .map(keys::Key::variable)
}

impl Settings {
    /// Puts the settings together.
    pub(super) fn load(global: &Global) -> anyhow::Result<Self> {
        Self::put_together(global, std::env::vars_os(), Path::new(DEFAULT_CONFIG))
    }

    fn put_together(
        global: &Global,
        variables: impl Iterator<Item = (OsString, OsString)>,
        default_config: &Path,
    ) -> anyhow::Result<Self> {
        let (config, file) = match &global.config {
            Some(path) => match file::read(path)? {
                Some(file) => (Some(path.clone()), file),
                None => bail!("there is no configuration file {}", path.display()),
            },
            None => match file::read(default_config)? {
                Some(file) => (Some(default_config.to_owned()), file),
                None => (None, file::File::default()),
            },
        };
        let env = environment::read(variables)?;
        let none = Section::new();
        let layers = |section: &str| {
            [env.sections.get(section).unwrap_or(&none), file.sections.get(section).unwrap_or(&none)]
        };
        let (top, postgres, archive) = (layers(""), layers("postgres"), layers("archive"));
        let cluster = match (&global.cluster, text(&top, "cluster")) {
            (Some(name), _) => name.clone(),
            (None, name) => name.unwrap_or_else(|| "main".to_owned()).parse()?,
        };
        let level = number(&archive, "compression-level").unwrap_or(3);
        let seconds = |name| {
            let seconds = number(&archive, name).unwrap_or(DEFAULT_RETRY);
            Duration::from_secs(seconds.unsigned_abs())
        };
        let segments = |name, default| {
            usize::try_from(number(&archive, name).unwrap_or(default))
                .with_context(|| format!("archive.{name}"))
        };
        Ok(Self {
            repositories: repositories(global, env.sections.get("repository"), &file.repositories)?,
            cluster,
            conninfo: text(&postgres, "conninfo"),
            primary_conninfo: text(&postgres, "primary-conninfo"),
            level: i32::try_from(level).context("archive.compression-level")?,
            strict: flag(&archive, "strict").unwrap_or(false),
            timezone: text(&top, "timezone"),
            config,
            spool: text(&archive, "spool").map_or_else(state_dir, PathBuf::from),
            push_retry: seconds("push-retry"),
            get_retry: seconds("get-retry"),
            read_ahead: segments("read-ahead", 8)?,
            prefetch: segments("prefetch", 16)?,
        })
    }

    /// The storages, in order; nothing is reached yet. For commands that an operator waits for: each call
    /// is tried again by itself.
    pub(super) fn storages(&self) -> anyhow::Result<Vec<Arc<dyn Storage>>> {
        let buckets = self.repositories.iter().filter(|(url, _)| is_bucket(url)).count();
        // What goes to several at once waits in the memory of one.
        let in_memory = Options::default().in_memory / buckets.max(1);
        self.opened(Options::default().retry_budget, false, in_memory)
    }

    /// The storages, in order, for a hook: all that fails in its run is tried again for up to `budget`.
    pub(super) fn storages_within(&self, budget: Duration) -> anyhow::Result<Vec<Arc<dyn Storage>>> {
        self.opened(budget, true, HOOK_IN_MEMORY)
    }

    /// The storages, in order, for a process that outlives a call: each call is tried again for up to `budget`.
    pub(super) fn storages_tried_for(&self, budget: Duration) -> anyhow::Result<Vec<Arc<dyn Storage>>> {
        self.opened(budget, false, AT_ONCE_IN_MEMORY)
    }

    fn opened(
        &self,
        retry_budget: Duration,
        one_budget: bool,
        in_memory: usize,
    ) -> anyhow::Result<Vec<Arc<dyn Storage>>> {
        self.repositories
            .iter()
            .map(|(url, options)| {
                let temp_dir = self.spool.clone();
                let options = Options { retry_budget, one_budget, temp_dir, in_memory, ..options.clone() };
                let storage = crate::storage::open(url, &options).context("cannot use the repository")?;
                Ok(Arc::from(storage))
            })
            .collect()
    }

    /// Whether any repository is reached over a network.
    pub(super) fn has_bucket(&self) -> bool {
        self.repositories.iter().any(|(url, _)| is_bucket(url))
    }

    /// What this host remembers.
    pub(super) fn memory(&self) -> HostMemory {
        HostMemory::new(self.spool.join("known-repositories"))
    }
}

fn is_bucket(url: &str) -> bool {
    url.starts_with("s3://")
}

fn repositories(
    global: &Global,
    variables: Option<&Section>,
    tables: &[Section],
) -> anyhow::Result<Vec<(String, Options)>> {
    let none = Section::new();
    let variables = variables.unwrap_or(&none);
    // `--repository` or its variable: one repository, with what the file says about this URL.
    let chosen: Vec<(String, &Section)> = match &global.repository {
        Some(url) => {
            let table = tables.iter().find(|table| text(&[table], "url").as_deref() == Some(url));
            vec![(url.clone(), table.unwrap_or(&none))]
        }
        None => tables.iter().filter_map(|table| Some((text(&[table], "url")?, table))).collect(),
    };
    if chosen.is_empty() {
        bail!(
            "no repository is configured: set PITR_REPOSITORY, give --repository, or write a [[repository]] into {DEFAULT_CONFIG}"
        );
    }
    let twice = chosen.iter().enumerate().find(|(i, one)| chosen.iter().take(*i).any(|two| one.0 == two.0));
    if let Some((_, (url, _))) = twice {
        bail!("two [[repository]] have the url {}", without_credentials(url));
    }
    if let (Some(name), true) = (variables.keys().find(|name| **name != "url"), chosen.len() > 1) {
        bail!(
            "the configuration has {} repositories, and a variable for \"repository.{name}\" does not say which is meant: write it into the file",
            chosen.len()
        );
    }
    Ok(chosen
        .into_iter()
        .map(|(url, table)| {
            let layers = [variables, table];
            let options = Options {
                endpoint: text(&layers, "endpoint"),
                region: text(&layers, "region"),
                path_style: flag(&layers, "path-style"),
                profile: text(&layers, "profile"),
                ca_file: text(&layers, "ca-file").map(PathBuf::from),
                ..Options::default()
            };
            (url, options)
        })
        .collect())
}

/// Somebody may have written a password into it; what is refused later must not be repeated before.
fn without_credentials(url: &str) -> &str {
    url.rsplit_once('@').map_or(url, |(_, place)| place)
}

fn find<'a>(layers: &[&'a Section], name: &str) -> Option<&'a Value> {
    layers.iter().find_map(|layer| layer.get(name))
}

fn text(layers: &[&Section], name: &str) -> Option<String> {
    match find(layers, name) {
        Some(Value::Text(text)) => Some(text.clone()),
        _ => None,
    }
}

fn flag(layers: &[&Section], name: &str) -> Option<bool> {
    match find(layers, name) {
        Some(Value::Flag(flag)) => Some(*flag),
        _ => None,
    }
}

fn number(layers: &[&Section], name: &str) -> Option<i64> {
    match find(layers, name) {
        Some(Value::Number(number)) => Some(*number),
        _ => None,
    }
}

/// Where the server's own user can write without anything having been prepared.
fn state_dir() -> PathBuf {
    let system = PathBuf::from("/var/spool/pitr");
    if system.is_dir() && rustix::fs::access(&system, rustix::fs::Access::WRITE_OK).is_ok() {
        return system;
    }
    std::env::home_dir().unwrap_or_else(|| PathBuf::from("/var/tmp")).join(".local/state/pitr")
}

#[cfg(test)]
mod tests;
