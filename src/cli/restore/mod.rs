//! `pitr restore`

mod before;
mod environment;
mod progress;
mod recovery;
mod words;

pub(super) use words::window;

use std::path::PathBuf;

use clap::{ArgGroup, Args, ValueEnum};

use super::settings::{Global, Settings};
use super::{Stop, complain, cwd, now, say};
use crate::operation::events::EventId;
use crate::operation::restore::{Destination, prepare_from_any, restore};
use crate::pgdata::recovery_settings::{RecoverySettings, RecoveryTarget, Role};
use crate::plan::{RestorePlan, Target, TimelineChoice, Wanted};
use crate::repository::backup_set::format::Backup;
use crate::repository::{Create, Repository, RepositoryError};
use crate::types::{BackupId, Lsn, Moment, TimelineId};

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("kind").args(["target_time", "target_lsn", "target_xid", "target_name", "target", "before"])))]
pub(super) struct RestoreArgs {
    /// The new data directory: missing or empty.
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// A moment: 2026-04-07 15:22:59+00, RFC 3339, with a zone such as Europe/Berlin, or "5 minutes ago".
    #[arg(long, value_name = "TIME")]
    target_time: Option<String>,
    /// A position in the WAL.
    #[arg(long, value_name = "LSN")]
    target_lsn: Option<Lsn>,
    /// A transaction, by its number.
    #[arg(long, value_name = "XID")]
    target_xid: Option<u64>,
    /// A restore point.
    #[arg(long, value_name = "NAME")]
    target_name: Option<String>,
    /// Just before an event, by the id that pitr events prints.
    #[arg(long, value_name = "EVENT")]
    before: Option<EventId>,
    /// The end of the archive, or the first consistent state.
    #[arg(long, value_enum)]
    target: Option<Word>,
    /// Stops before the target time, LSN or transaction instead of behind it.
    #[arg(long, conflicts_with_all = ["target", "target_name", "before", "standby"], requires = "kind")]
    exclusive: bool,
    /// A number, latest (the newest in the archive) or current (the backup's) [default: the one that the
    /// target lies on].
    #[arg(long, value_name = "TIMELINE", value_parser = timeline)]
    target_timeline: Option<TimelineChoice>,
    /// The zone of a target time that names none, such as Europe/Berlin.
    #[arg(long, value_name = "ZONE")]
    timezone: Option<String>,
    /// What the server does at the target.
    #[arg(long, value_enum, default_value = "promote")]
    target_action: Action,
    /// Another backup than the newest that fits.
    #[arg(long, value_name = "ID")]
    backup: Option<BackupId>,
    /// Where a tablespace goes; may be repeated.
    #[arg(long, value_name = "OID=DIR", value_parser = recovery::tablespace)]
    tablespace: Vec<(String, PathBuf)>,
    /// Prints the plan and changes nothing.
    #[arg(long)]
    plan: bool,
    /// A standby: replays for ever, and follows the latest timeline.
    ///
    /// It is meant to become the primary: once promoted, it archives as the backup's configuration has it,
    /// into the same archive. A copy that must never do so is restored without this.
    #[arg(long, conflicts_with = "kind")]
    standby: bool,
    /// Where the standby streams from; a password belongs into a passfile.
    #[arg(long, value_name = "CONNINFO", requires = "standby", value_parser = recovery::without_password)]
    primary_conninfo: Option<String>,
    /// The standby's replication slot on the primary.
    #[arg(long, value_name = "NAME", requires = "primary_conninfo")]
    primary_slot: Option<String>,
    /// What a repository that cannot be asked counts as for the standby: with `absent` it goes on with
    /// streaming, with `abort` it stops.
    #[arg(long, value_enum, requires = "standby", default_value = "abort")]
    unreachable: super::archive_get::Unreachable,
    /// The copy becomes the cluster: it goes on writing into the archive.
    #[arg(long, conflicts_with = "standby")]
    takeover: bool,
    /// Whose the files are to be, as root [default: whoever owns the directory they go to, or who owned
    /// them on the server].
    #[arg(long, value_name = "USER[:GROUP]")]
    owner: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Word {
    Immediate,
    Latest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Action {
    Promote,
    Pause,
    Shutdown,
}

fn timeline(text: &str) -> Result<TimelineChoice, String> {
    match text {
        "latest" => Ok(TimelineChoice::Latest),
        "current" => Ok(TimelineChoice::Current),
        number => match number.strip_prefix("0x") {
            Some(hex) => u32::from_str_radix(hex, 16).ok(),
            None => number.parse().ok(),
        }
        .filter(|n| *n > 0)
        .map(|n| TimelineChoice::Number(TimelineId(n)))
        .ok_or_else(|| "expected a number, latest or current".to_owned()),
    }
}

impl RestoreArgs {
    pub(super) fn run(&self, global: &Global) -> Result<(), Stop> {
        let settings = Settings::load(global)?;
        let mut wanted = self.wanted(&settings)?;
        let dir = cwd()?.join(&self.to);
        let destination = Destination {
            ownership: recovery::ownership(self.owner.as_deref(), &dir)?,
            dir,
            tablespaces: recovery::tablespaces(&self.tablespace)?,
        };
        let (mut opened, mut silent) = (Vec::new(), Vec::new());
        for storage in settings.storages()? {
            let url = storage.url().to_owned();
            match Repository::open(storage, &settings.memory(), Create::Nothing, now()) {
                Ok(repository) => opened.push(repository),
                Err(error) => silent.push((url, error)),
            }
        }
        let (mut clusters, mut absent) = (Vec::new(), None);
        for repository in &opened {
            match repository.cluster(&settings.cluster, global.system_id) {
                Ok(cluster) => clusters.push(cluster),
                // It answered, and has never held this cluster.
                Err(error @ RepositoryError::NoCluster { .. }) => absent = Some(error),
                Err(error) => silent.push((repository.url().to_owned(), error)),
            }
        }
        if let (true, true, Some(absent)) = (clusters.is_empty(), silent.is_empty(), absent) {
            return Err(absent.into());
        }
        let mut said = None;
        if let (Some(id), false) = (self.before, clusters.is_empty()) {
            let event = before::event(&clusters, id)?;
            said = Some(before::note(&event));
            wanted.target = Target::Lsn(event.before);
            wanted.timeline = self.target_timeline.unwrap_or(TimelineChoice::Number(id.timeline));
        }
        let places = |backup: &Backup| destination.problems(backup);
        let mut served = prepare_from_any(&clusters, silent, &wanted, &places)?;
        served.prepared.plan.notes.extend(said);
        let (cluster, plan) = (served.cluster, &served.prepared.plan);
        let url = cluster.repository().url();
        if self.plan || !plan.problems.is_empty() {
            words::show(global, plan, url, &destination.dir)?;
        }
        let (true, Some(backup)) = (plan.problems.is_empty(), &served.prepared.backup) else {
            return Err(Stop::Code(1));
        };
        // Also where silence was asked for: without them the server will not start.
        let urls = settings.repositories.iter().map(|(url, _)| url.as_str());
        if let Some(warning) = environment::lacking(urls, |name| std::env::var(name).ok()) {
            complain(&warning);
        }
        if self.plan {
            return Ok(());
        }
        if !global.quiet {
            words::summary(plan, complain);
        }
        let recovery = self.settings(global, &settings, url, plan)?;
        // Writing waits for the disk, fetching for the store: more threads than processors, within memory.
        let threads = std::thread::available_parallelism().map_or(4, |n| (2 * n.get()).clamp(4, 8));
        let monitor = progress::Progress::new(backup.size, global.quiet);
        let outcome =
            restore(cluster, backup, served.prepared.piece, &destination, &recovery, threads, &monitor);
        monitor.finish();
        let written = outcome.map_err(|e| {
            let roots = destination.roots(backup);
            let hint = recovery::hint(&e, roots.iter().map(|(root, _)| root.as_path()));
            Stop::Failed(e.into(), Some(hint))
        })?;
        if !global.quiet {
            recovery::advice(&destination.dir, &written, &recovery.role)
                .iter()
                .for_each(|line| complain(line));
        }
        if global.json {
            say(&words::document(plan).to_string());
            return Ok(());
        }
        if global.quiet {
            return Ok(());
        }
        say(&format!(
            "restored backup {} into {}: {} files, every checksum is right; start it with: {}",
            backup.id,
            destination.dir.display(),
            written.files,
            recovery::how_to_start(&destination.dir, written.has_configuration)
        ));
        Ok(())
    }

    fn wanted(&self, settings: &Settings) -> Result<Wanted, Stop> {
        let target = match self {
            Self { target_time: Some(text), .. } => Target::Time(self.moment(text, settings)?),
            Self { target_lsn: Some(lsn), .. } => Target::Lsn(*lsn),
            // The server, too, compares the low half: the high one counts how often numbers began anew.
            Self { target_xid: Some(xid), .. } => {
                Target::Xid(u32::try_from(xid & 0xFFFF_FFFF).unwrap_or_default())
            }
            Self { target_name: Some(name), .. } => Target::Name(name.clone()),
            Self { target: Some(Word::Immediate), .. } => Target::Immediate,
            _ => Target::Latest,
        };
        Ok(Wanted {
            target,
            exclusive: self.exclusive,
            timeline: self.target_timeline.unwrap_or(TimelineChoice::Unsaid),
            backup: self.backup.clone(),
            standby: self.standby,
        })
    }

    fn moment(&self, text: &str, settings: &Settings) -> Result<Moment, Stop> {
        let zone = self.timezone.as_deref().or(settings.timezone.as_deref());
        Moment::parse(text, zone, now()).map_err(|e| {
            complain(&format!("pitr: --target-time: {e}"));
            complain(&format!("hint: {}", e.hint()));
            Stop::Code(2)
        })
    }

    fn settings(
        &self,
        global: &Global,
        settings: &Settings,
        url: &str,
        plan: &RestorePlan,
    ) -> anyhow::Result<RecoverySettings> {
        let unreachable = self.standby.then(|| self.unreachable.as_str());
        let named = global.repository.is_some().then_some(url);
        let command = recovery::restore_command(settings, named, unreachable)?;
        Ok(RecoverySettings {
            restore_command: command,
            target: recovery_target(&plan.recover),
            exclusive: plan.recover_exclusive,
            timeline: self.recovery_timeline(plan),
            action: match self.target_action {
                Action::Promote => "promote",
                Action::Pause => "pause",
                Action::Shutdown => "shutdown",
            },
            needed: plan.needed,
            role: if self.standby {
                Role::Standby {
                    primary_conninfo: self.primary_conninfo.clone(),
                    primary_slot: self.primary_slot.clone(),
                }
            } else if self.takeover {
                Role::Takeover
            } else {
                Role::Copy
            },
        })
    }

    /// A number, so that a timeline that begins meanwhile changes nothing; a standby follows the newest.
    fn recovery_timeline(&self, plan: &RestorePlan) -> String {
        match (self.standby, self.target_timeline, plan.timeline) {
            (true, None | Some(TimelineChoice::Unsaid | TimelineChoice::Latest), _) | (_, _, None) => {
                "latest".to_owned()
            }
            (_, _, Some(timeline)) => timeline.to_string(),
        }
    }
}

fn recovery_target(target: &Target) -> RecoveryTarget {
    match target {
        Target::Latest => RecoveryTarget::Latest,
        Target::Immediate => RecoveryTarget::Immediate,
        Target::Time(moment) => RecoveryTarget::Time(moment.to_string()),
        Target::Lsn(lsn) => RecoveryTarget::Lsn(lsn.to_string()),
        Target::Xid(xid) => RecoveryTarget::Xid(xid.to_string()),
        Target::Name(name) => RecoveryTarget::Name(name.clone()),
    }
}
