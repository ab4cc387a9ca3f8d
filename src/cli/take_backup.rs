//! `pitr backup`, from the settings to the last line.

use serde_json::json;

use super::backup::{BackupArgs, Progress, Surroundings, hint, summary};
use super::settings::{Global, Settings};
use super::{Stop, complain, now, say};
use crate::operation::backup::BackupSource;
use crate::repository::{Cluster, Create, Repository, RepositoryError, SystemIdentity};

pub(super) fn run(args: &BackupArgs, global: &Global) -> Result<(), Stop> {
    let with_hint = |e: anyhow::Error| {
        let hint = hint(&e).map(str::to_owned);
        Stop::Failed(e, hint)
    };
    let settings = Settings::load(global)?;
    let around = Surroundings {
        conninfo: settings.conninfo.as_deref(),
        primary: settings.primary_conninfo.as_deref(),
        env: &|name| std::env::var(name).ok(),
        level: settings.level,
        temp_dir: settings.spool.clone(),
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        clock: &now,
    };
    let mut source = BackupSource::connect(&args.connection(&around)?).map_err(|e| with_hint(e.into()))?;
    if source.may_leave_tablespaces_out() {
        complain(
            "warning: allow_in_place_tablespaces is on: PostgreSQL 15 sends no tablespace that is a directory in pg_tblspc, and the backup will not hold it",
        );
    }
    let system = SystemIdentity {
        system_identifier: source.system_id(),
        segment_size: source.segment_size(),
        postgres_major: Some(source.major()),
    };
    let mut failed: Vec<(String, String)> = Vec::new();
    let mut repositories = Vec::new();
    let wanted = settings.repositories.len();
    for storage in settings.storages()? {
        let url = storage.url().to_owned();
        match Repository::open(storage, &settings.memory(), Create::RootAndIdentity, now()) {
            Ok(repository) => repositories.push(repository),
            Err(error) => left_behind(error, url, wanted, &mut failed)?,
        }
    }
    let mut clusters: Vec<Cluster<'_>> = Vec::new();
    for repository in &repositories {
        let bound = repository.cluster_for_writing(&settings.cluster, &system, now()).and_then(|cluster| {
            repository.remember(&settings.memory(), &cluster)?;
            Ok(cluster)
        });
        match bound {
            Ok(cluster) => clusters.push(cluster),
            Err(error) => left_behind(error, repository.url().to_owned(), wanted, &mut failed)?,
        }
    }
    if clusters.is_empty() {
        return Err(anyhow::anyhow!("no repository can be written").into());
    }
    let progress = Progress::new(global.quiet);
    let taken = args.run(&mut source, &clusters, &around, &progress);
    progress.finish();
    let taken = taken.map_err(with_hint)?;
    failed.extend(taken.failed.into_iter().map(|f| (f.url, format!("{:#}", anyhow::Error::from(f.error)))));
    if global.json {
        let mut document = serde_json::to_value(&taken.backup)?;
        if let Some(fields) = document.as_object_mut() {
            let failed: Vec<_> =
                failed.iter().map(|(url, error)| json!({ "repository": url, "error": error })).collect();
            fields.insert("failed_repositories".to_owned(), failed.into());
        }
        say(&document.to_string());
    } else if !global.quiet {
        say(&summary(&taken.backup));
    }
    if failed.is_empty() {
        return Ok(());
    }
    let list: Vec<_> = failed.iter().map(|(url, error)| format!("{url}: {error}")).collect();
    let (missing, text) = (failed.len(), list.join("; "));
    Err(anyhow::anyhow!("{missing} of {wanted} repositories do not have the backup: {text}").into())
}

/// A store that does not answer is left behind where there are others. What is somebody else's, or not what
/// this host remembers, ends the command: the server or the configuration may be the wrong one.
fn left_behind(
    error: RepositoryError,
    url: String,
    wanted: usize,
    failed: &mut Vec<(String, String)>,
) -> Result<(), Stop> {
    if wanted == 1 || !matches!(error, RepositoryError::Storage(_)) {
        return Err(error.into());
    }
    let text = format!("{:#}", anyhow::Error::from(error));
    complain(&format!("warning: {url} is left behind, the others go on: {text}"));
    failed.push((url, text));
    Ok(())
}
