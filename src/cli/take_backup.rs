//! `pitr backup`, from the settings to the last line.

use super::backup::{BackupArgs, Progress, Surroundings, hint, summary};
use super::settings::{Global, Settings};
use super::{Stop, now, say};
use crate::operation::backup::{BackupSource, Target};
use crate::operation::stored_wal_sink::StoredWalSink;
use crate::repository::{Create, Repository, SystemIdentity};

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
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        clock: &now,
    };
    let mut source = BackupSource::connect(&args.connection(&around)?).map_err(|e| with_hint(e.into()))?;
    let repository =
        Repository::open(settings.first_storage()?, &settings.memory(), Create::RootAndIdentity, now())?;
    let system = SystemIdentity {
        system_identifier: source.system_id(),
        segment_size: source.segment_size(),
        postgres_major: Some(source.major()),
    };
    let cluster = repository.cluster_for_writing(&settings.cluster, &system, now())?;
    repository.remember(&settings.memory(), &cluster)?;
    let target = Target { storage: repository.storage(), layout: cluster.layout() };
    let sink = StoredWalSink::new(&cluster, settings.level);
    let progress = Progress::new(global.quiet);
    let taken = args.run(&mut source, target, &sink, &around, &progress);
    progress.finish();
    let backup = taken.map_err(with_hint)?;
    if global.json {
        say(&serde_json::to_string(&backup)?);
    } else {
        say(&summary(&backup));
    }
    Ok(())
}
