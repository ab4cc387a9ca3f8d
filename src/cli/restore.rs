//! `pitr restore`

use std::collections::HashMap;
use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};
use clap::{ArgGroup, Args, ValueEnum};

use super::settings::{Global, Settings};
use super::{Stop, complain, now, say};
use crate::operation::restore::{coverage, restore, target_problems};
use crate::pgdata::recovery_settings::{RecoverySettings, RecoveryTarget, shell_word};
use crate::repository::backup_set::format::{Backup, Status};
use crate::repository::wal_archive::StoredWal;
use crate::repository::{Cluster, Create, Repository};
use crate::types::{BackupId, Lsn, Moment, SegmentName};

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("kind").args(["target_time", "target_lsn", "target_xid", "target_name", "target"])))]
pub(super) struct RestoreArgs {
    /// The new data directory: missing or empty.
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// A moment, as 2026-04-07 15:22:59+00.
    #[arg(long, value_name = "TIME")]
    target_time: Option<String>,
    /// A position in the WAL.
    #[arg(long, value_name = "LSN")]
    target_lsn: Option<Lsn>,
    /// A transaction.
    #[arg(long, value_name = "XID")]
    target_xid: Option<u64>,
    /// A restore point.
    #[arg(long, value_name = "NAME")]
    target_name: Option<String>,
    /// The end of the archive, or the first consistent state.
    #[arg(long, value_enum)]
    target: Option<Target>,
    /// Stops before the target instead of behind it.
    #[arg(long)]
    exclusive: bool,
    /// What the server does at the target.
    #[arg(long, value_enum, default_value = "promote")]
    target_action: Action,
    /// Another backup than the newest that fits.
    #[arg(long, value_name = "ID")]
    backup: Option<BackupId>,
    /// Where a tablespace goes; may be repeated.
    #[arg(long, value_name = "OID=DIR", value_parser = tablespace)]
    tablespace: Vec<(String, PathBuf)>,
    /// Prints the plan and changes nothing.
    #[arg(long)]
    plan: bool,
    /// A standby: replays for ever, and follows the latest timeline.
    #[arg(long, conflicts_with = "kind")]
    standby: bool,
    /// The copy becomes the cluster: it goes on writing into the archive.
    #[arg(long)]
    takeover: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Target {
    Immediate,
    Latest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Action {
    Promote,
    Pause,
    Shutdown,
}

fn tablespace(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((oid, dir)) if oid.parse::<u32>().is_ok() && dir.starts_with('/') => {
            Ok((oid.to_owned(), dir.into()))
        }
        _ => Err("expected OID=/absolute/directory".to_owned()),
    }
}

impl RestoreArgs {
    pub(super) fn run(&self, global: &Global) -> Result<(), Stop> {
        let settings = Settings::load(global)?;
        let (url, _) = settings.repositories.first().ok_or_else(|| anyhow!("no repository"))?;
        let storage = settings.storages()?.into_iter().next().ok_or_else(|| anyhow!("no repository"))?;
        let repository = Repository::open(storage, &settings.memory(), Create::Nothing, now())?;
        let cluster = repository.cluster(&settings.cluster, global.system_id)?;
        let moment = match &self.target_time {
            Some(text) => Some(Moment::parse(text, settings.timezone.as_deref())?),
            None => None,
        };
        let dir = std::path::absolute(&self.to).context("cannot tell where the target directory is")?;
        let Some(backup) = self.choose(&cluster, moment)? else {
            return Err(anyhow!("no complete backup in {url} ends before the target").into());
        };
        let (run, mut problems) = coverage(&cluster, &backup)?;
        problems.extend(target_problems(&dir, backup.size));
        problems.extend(self.target_reached(&cluster, &run, moment)?);
        for archive in backup.archives.iter().filter(|a| a.location.is_some()) {
            match self.tablespace.iter().find(|(oid, _)| *oid == archive.name) {
                Some((_, place)) => problems.extend(target_problems(place, archive.size)),
                None => problems.push(format!(
                    "tablespace {} was in {}: say where it goes with --tablespace {}=DIR",
                    archive.name,
                    archive.location.as_deref().unwrap_or_default(),
                    archive.name
                )),
            }
        }
        self.show(global, &cluster, &backup, &run, moment, &problems)?;
        if !problems.is_empty() {
            return Err(Stop::Code(1));
        }
        if self.plan {
            return Ok(());
        }
        let recovery = self.settings(global, &settings, url, &backup, moment)?;
        let tablespaces: HashMap<_, _> = self.tablespace.iter().cloned().collect();
        restore(&cluster, &backup, &dir, &tablespaces, &recovery, self.standby)?;
        say(&format!(
            "restored backup {} into {}: {}; start it with pg_ctl -D {} start",
            backup.id,
            dir.display(),
            if self.takeover || self.standby {
                "archiving is as the backup's configuration has it"
            } else {
                "a copy, archive_mode is off (remove the lines written by pitr restore when it becomes the cluster)"
            },
            dir.display()
        ));
        if !dir.join("postgresql.conf").exists() {
            complain(
                "hint: the backup holds no postgresql.conf (Debian keeps it in /etc): start with -o '-c config_file=FILE'",
            );
        }
        Ok(())
    }

    fn choose(&self, cluster: &Cluster<'_>, moment: Option<Moment>) -> anyhow::Result<Option<Backup>> {
        if let Some(id) = &self.backup {
            let backup = cluster.backup(id)?.ok_or_else(|| anyhow!("there is no backup {id}"))?;
            if moment.is_some_and(|m| m < backup.stop_time) {
                bail!("backup {id} ended at {}, after the target", backup.stop_time);
            }
            return Ok(Some(backup));
        }
        Ok(cluster.backups()?.into_iter().rev().find(|b| {
            b.status == Status::Complete
                && moment.is_none_or(|m| b.stop_time <= m)
                && self.target_lsn.is_none_or(|l| b.stop_lsn <= l)
        }))
    }

    /// Recovery must be able to reach the target: found out now, not hours into it.
    fn target_reached(
        &self,
        cluster: &Cluster<'_>,
        run: &[SegmentName],
        moment: Option<Moment>,
    ) -> anyhow::Result<Vec<String>> {
        let size = cluster.segment_size();
        if let (Some(lsn), Some(last)) = (self.target_lsn, run.last()) {
            let end = last.next(size).and_then(|n| n.start(size)).unwrap_or(Lsn::INVALID);
            if lsn >= end {
                return Ok(vec![format!("the archive ends at {end}, before the target {lsn}")]);
            }
        }
        let points = self.target_name.as_deref();
        if moment.is_none() && points.is_none() {
            return Ok(Vec::new());
        }
        let mut latest = None;
        for segment in run.iter().rev() {
            let name = cluster.layout().segment(*segment);
            let Some(stored) = StoredWal::open(cluster.storage(), &name, false)? else { continue };
            let Some(wal) = stored.summary().wal.clone() else { continue };
            if points.is_some_and(|p| wal.restore_points.iter().any(|found| found.name == p)) {
                return Ok(Vec::new());
            }
            if let (Some((_, time)), Some(moment)) = (wal.times, moment) {
                latest = latest.max(Some(time));
                if time > moment {
                    return Ok(Vec::new());
                }
            }
        }
        Ok(vec![match (moment, latest) {
            (Some(moment), Some(latest)) => format!(
                "the last commit in the archive is at {latest}, not after the target {moment}: use --target latest"
            ),
            (Some(moment), None) => format!("no commit in the archive is after the target {moment}"),
            _ => format!("no restore point \"{}\" is in the archive", points.unwrap_or_default()),
        }])
    }

    fn settings(
        &self,
        global: &Global,
        settings: &Settings,
        url: &str,
        backup: &Backup,
        moment: Option<Moment>,
    ) -> anyhow::Result<RecoverySettings> {
        let binary = std::env::current_exe().context("cannot tell where pitr is installed")?;
        let mut command = shell_word(&binary.display().to_string());
        if let Some(config) = &settings.config {
            let config = std::path::absolute(config).context("cannot tell where the configuration is")?;
            command.push_str(&format!(" --config {}", shell_word(&config.display().to_string())));
        }
        if global.repository.is_some() {
            command.push_str(&format!(" --repository {}", shell_word(url)));
        }
        command.push_str(&format!(" --cluster {}", shell_word(settings.cluster.as_str())));
        command.push_str(" archive-get");
        if self.standby {
            command.push_str(" --unreachable=abort");
        }
        command.push_str(" %f %p");
        let target = match (self, moment) {
            (_, Some(moment)) => RecoveryTarget::Time(moment.to_string()),
            (Self { target_lsn: Some(lsn), .. }, _) => RecoveryTarget::Lsn(lsn.to_string()),
            (Self { target_xid: Some(xid), .. }, _) => RecoveryTarget::Xid(xid.to_string()),
            (Self { target_name: Some(name), .. }, _) => RecoveryTarget::Name(name.clone()),
            (Self { target: Some(Target::Immediate), .. }, _) => RecoveryTarget::Immediate,
            _ => RecoveryTarget::Latest,
        };
        Ok(RecoverySettings {
            restore_command: command,
            target,
            exclusive: self.exclusive,
            timeline: if self.standby { "latest".to_owned() } else { backup.stop_timeline.to_string() },
            action: match self.target_action {
                Action::Promote => "promote",
                Action::Pause => "pause",
                Action::Shutdown => "shutdown",
            },
            archive_mode_off: !self.takeover && !self.standby,
        })
    }

    fn show(
        &self,
        global: &Global,
        cluster: &Cluster<'_>,
        backup: &Backup,
        run: &[SegmentName],
        moment: Option<Moment>,
        problems: &[String],
    ) -> anyhow::Result<()> {
        let bytes = run.len() as u64 * cluster.segment_size().bytes();
        if global.json {
            let target = serde_json::json!({
                "time": moment, "lsn": self.target_lsn, "xid": self.target_xid, "name": self.target_name,
                "exclusive": self.exclusive,
            });
            if self.plan || !problems.is_empty() {
                say(&serde_json::to_string(&serde_json::json!({
                    "backup": backup.id, "timeline": backup.stop_timeline, "target": target,
                    "wal": {
                        "first": run.first(), "last": run.last(), "segments": run.len(), "bytes": bytes,
                    },
                    "bytes": backup.size, "problems": problems,
                }))?);
            }
            return Ok(());
        }
        let what = moment.map_or_else(|| "as asked".to_owned(), |m| m.to_string());
        complain(&format!(
            "plan: backup {} ({} bytes), {} WAL segments on timeline {}, target {what}",
            backup.id,
            backup.size,
            run.len(),
            backup.stop_timeline
        ));
        for problem in problems {
            complain(&format!("problem: {problem}"));
        }
        if !problems.is_empty() {
            complain("nothing was changed");
        }
        Ok(())
    }
}
