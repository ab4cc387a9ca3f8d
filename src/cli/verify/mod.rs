//! `pitr verify`: every repository against itself.

mod progress;
mod words;

use std::path::Path;
use std::sync::Arc;

use clap::Args;

use super::backup::quantity;
use super::settings::{Global, Settings};
use super::{Stop, complain, now, say};
use crate::operation::verify::{Lives, Options, Problem, Report, verify, verify_root};
use crate::repository::{Create, Repository};
use crate::storage::{PacedStorage, Storage};
use crate::types::Moment;
use progress::Progress;

/// The exit code when a check found problems.
const EXIT_PROBLEMS: u8 = 3;

/// Verifies every object and every backup in every repository, and says of each problem what can no longer be
/// restored because of it, and what to do.
///
/// Exits 0 when all is well, 3 with problems, 1 where a repository could not be read. As JSON:
/// {"ok", "mode": "bytes"|"quick", "repositories": [{"url", "error", "problems": [...], "clusters": [{"name",
/// "epoch", "system_identifier", "checked": {"objects", "bytes"}, "resumed": {"objects", "bytes"}, "problems":
/// [{"kind", "object", "what", "lost": [...], "todo"}], "notes": [...]}]}]}; "lost" is empty where nothing is.
///
/// Kinds: missing-wal, cut-off, damaged-wal (it came so from the server), damaged-object, misnamed, foreign,
/// summary-lies, missing-history, bad-history; backup-without-wal, missing-part, damaged-part, damaged-index,
/// damaged-manifest, backup-mismatch, damaged-pages (the server found them), damaged-catalogue;
/// no-backup, damaged-descriptor, missing-descriptor, damaged-rollup, rollup-lies, conflict, leftover,
/// newer-format, unreadable.
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// Names, sizes, summaries, indexes and coverage; not the bytes behind them.
    #[arg(long)]
    quick: bool,
    /// Only what restores to this moment and later ones need: 2026-04-07 15:22:59+00, RFC 3339, or "2 days ago".
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// The zone of a time that names none, such as Europe/Berlin.
    #[arg(long, value_name = "ZONE")]
    timezone: Option<String>,
    /// Goes on where an earlier run was interrupted; what it found is told again.
    #[arg(long)]
    resume: bool,
    /// Reads no faster than this from a repository, from 32k to 1G a second.
    #[arg(long, value_name = "RATE", value_parser = quantity::rate)]
    max_rate: Option<u32>,
    /// How many objects are read at a time [default: twice the processors, from 2 to 8].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: Option<u16>,
}

/// What came of one repository.
struct Verified {
    url: String,
    clusters: Vec<Report>,
    problems: Vec<Problem>,
    error: Option<anyhow::Error>,
}

impl VerifyArgs {
    pub(super) fn run(&self, global: &Global) -> Result<(), Stop> {
        let settings = Settings::load(global)?;
        let options = Options {
            quick: self.quick,
            since: self.moment(&settings)?,
            threads: self.threads.map_or_else(default_threads, usize::from),
            state_dir: Some(settings.spool.join("verify")),
            resume: self.resume,
        };
        let progress = Progress::new(global.quiet);
        let mut all = Vec::new();
        for storage in settings.storages()? {
            let mut verified = Verified {
                url: storage.url().to_owned(),
                clusters: Vec::new(),
                problems: Vec::new(),
                error: None,
            };
            verified.error = self.one(storage, &settings, global, &options, &progress, &mut verified).err();
            progress.pause();
            if !global.json {
                words::show(&verified, global.quiet);
            }
            if let Some(error) = &verified.error {
                complain(&format!("pitr: {} could not be verified: {error:#}", verified.url));
                super::hint::hint(error).iter().for_each(|hint| complain(&format!("hint: {hint}")));
                complain("hint: --resume goes on where this run has stopped");
            }
            all.push(verified);
        }
        if global.json {
            say(&words::document(&all, &options).to_string());
        }
        let failed = all.iter().any(|v| v.error.is_some());
        match (failed, words::problems(&all)) {
            (true, _) => Err(Stop::Code(1)),
            (false, 0) => Ok(()),
            _ => Err(Stop::Code(EXIT_PROBLEMS)),
        }
    }

    fn one(
        &self,
        storage: Arc<dyn Storage>,
        settings: &Settings,
        global: &Global,
        options: &Options,
        progress: &Progress,
        verified: &mut Verified,
    ) -> anyhow::Result<()> {
        let storage: Arc<dyn Storage> = match self.max_rate {
            Some(rate) => Arc::new(PacedStorage::new(storage, u64::from(rate) << 10)),
            None => storage,
        };
        let repository = Repository::open(storage, &settings.memory(), Create::Nothing, now())?;
        verified.problems = verify_root(&repository, global.cluster.as_ref(), now())?;
        let names = match &global.cluster {
            Some(name) => vec![name.clone()],
            None => repository.cluster_names()?,
        };
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let alive = |pid: u32| Path::new("/proc").join(pid.to_string()).exists();
        let lives = Lives { now: now(), host: &host, alive: &alive };
        for name in names {
            let epochs = repository.epochs(&name)?;
            if epochs.is_empty() && global.cluster.is_some() && verified.problems.is_empty() {
                // Asked for by name: that there is none is an error, and it says which there are.
                repository.cluster(&name, None)?;
            }
            for cluster in epochs {
                if global.system_id.is_none_or(|system| cluster.identity().system_identifier == system) {
                    verified.clusters.push(verify(&cluster, options, &lives, progress)?);
                }
            }
        }
        Ok(())
    }

    fn moment(&self, settings: &Settings) -> Result<Option<Moment>, Stop> {
        let Some(text) = &self.since else { return Ok(None) };
        let zone = self.timezone.as_deref().or(settings.timezone.as_deref());
        let moment = Moment::parse(text, zone, now()).map_err(|e| {
            complain(&format!("pitr: --since: {e}"));
            complain(&format!("hint: {}", e.hint()));
            Stop::Code(2)
        })?;
        complain(&format!("since {moment}"));
        Ok(Some(moment))
    }
}

/// Reading waits for the disk or the store: more than there are processors, within memory.
fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(4, |n| (2 * n.get()).clamp(2, 8))
}
