//! `pitr check --max-lag`: what would be lost if the server were lost now.
//!
//! With a server at hand the answer is exact: the WAL that it has and the archive has not is read, up to the
//! first commit in it. The moment of that commit is the recovery point; without one nothing would be lost,
//! however long ago the last segment came. Without a server the clock decides: everything after the moment
//! up to which the archive is known to be complete may be lost. Nothing is written, and the server is not
//! asked to end its segment.
//!
//! Each repository is judged by itself, because each is one that the operator relies on.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::runtime::Runtime;

use super::in_one_line;
use super::unarchived::{Unarchived, first_commit};
use crate::operation::restore::{ArchivedWal, Survey};
use crate::plan::{Archive, BackupFacts, Barrier, Lineage, Run, Timeline};
use crate::postgres::replication::{ReplicationClient, SystemIdentity};
use crate::postgres::{ConnInfo, PostgresError};
use crate::repository::layout::ClusterName;
use crate::repository::{Create, HostMemory, Repository, RepositoryError};
use crate::storage::Storage;
use crate::types::{Moment, SegmentSet};
use crate::wal::TimelineHistory;

/// What is asked for.
pub struct AskLag<'a> {
    /// All repositories.
    pub storages: Vec<Arc<dyn Storage>>,
    /// What this host remembers of them.
    pub memory: &'a HostMemory,
    /// The cluster's name in them.
    pub cluster: &'a ClusterName,
    /// The server, or why it is not known.
    pub connection: Result<&'a ConnInfo, String>,
    /// How much may be lost.
    pub limit: Duration,
    /// Now.
    pub now: Moment,
    /// The question that an operator should ask about an error.
    pub advice: &'a dyn Fn(&RepositoryError) -> Option<String>,
}

/// By what a recovery point was found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Basis {
    /// The server's own WAL was compared.
    Server,
    /// This host's clock, against the latest moment of which the archive tells.
    Clock,
}

/// How far back the recovery point of one repository is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RecoveryPoint {
    /// The repository.
    pub repository: String,
    /// Within the limit.
    pub ok: bool,
    /// Seconds; `None` where nothing can be restored, or nobody knows.
    pub lag_seconds: Option<f64>,
    /// By what.
    pub basis: Option<Basis>,
    /// In words.
    pub seen: String,
    /// What to do about it.
    pub advice: Option<String>,
}

impl RecoveryPoint {
    fn problem(repository: &str, seen: String, advice: impl Into<String>) -> Self {
        let advice = Some(advice.into());
        Self { repository: repository.to_owned(), ok: false, lag_seconds: None, basis: None, seen, advice }
    }
}

struct AtHand {
    runtime: Runtime,
    client: ReplicationClient,
    identity: SystemIdentity,
    /// It knows only what has reached it.
    standby: bool,
}

/// Judges each repository.
pub fn recovery_points(ask: &AskLag<'_>) -> Vec<RecoveryPoint> {
    let mut server = ask.connection.clone().and_then(|info| connect(info).map_err(|e| in_one_line(&e)));
    ask.storages
        .iter()
        .map(|storage| {
            let url = storage.url();
            judge(ask, storage, &mut server).unwrap_or_else(|e| {
                let advice = (ask.advice)(&e).unwrap_or_else(|| "is this the right repository?".to_owned());
                RecoveryPoint::problem(url, in_one_line(&e), advice)
            })
        })
        .collect()
}

fn connect(info: &ConnInfo) -> Result<AtHand, PostgresError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| PostgresError::Protocol(format!("cannot start what speaks to the server: {e}")))?;
    let (client, identity, standby) = runtime.block_on(async {
        let mut client = ReplicationClient::connect(info).await?;
        let identity = client.identify_system().await?;
        let standby = client.is_standby().await?;
        Ok::<_, PostgresError>((client, identity, standby))
    })?;
    Ok(AtHand { runtime, client, identity, standby })
}

/// What the archive can bring back: the newest backup, and the WAL behind it without a gap.
struct Chain {
    lineage: Lineage,
    run: Run,
}

fn judge(
    ask: &AskLag<'_>,
    storage: &Arc<dyn Storage>,
    server: &mut Result<AtHand, String>,
) -> Result<RecoveryPoint, RepositoryError> {
    let repository = Repository::open(Arc::clone(storage), ask.memory, Create::Nothing, ask.now)?;
    let system = server.as_ref().ok().map(|server| server.identity.system_id);
    let cluster = repository.cluster(ask.cluster, system)?;
    let url = repository.url();
    let mut survey = Survey::of(&cluster)?;
    if let Ok(server) = server
        && let Err(e) = add_histories(&mut survey.archive, server)
    {
        return Ok(RecoveryPoint::problem(
            url,
            format!(
                "the server's timeline {} is not known here: {}",
                server.identity.timeline,
                in_one_line(&e)
            ),
            "is its history file still in pg_wal? pitr archive-push brings it into the archive",
        ));
    }
    // Segments that a roll-up tells of may be gone: this is what cron relies on.
    if let Some(start) = survey.facts().iter().filter(|b| b.complete).max_by_key(|b| b.stop).map(|b| b.start)
    {
        survey.list_sealed_from(&cluster, start)?;
    }
    let mut wal = ArchivedWal::new(&cluster).believing(&survey.archive);
    let chain = loop {
        match chain(&survey, server.as_ref().ok().map(|s| s.identity), &mut wal) {
            Err(e) if !wal.doubt(&mut survey.archive)? => return Err(e),
            Err(_) => {}
            // What turned out to be damaged while it was read counts as damaged, not as empty.
            Ok(_) if wal.has_learned() => {}
            Ok(Ok(chain)) => break chain,
            Ok(Err((seen, advice))) => return Ok(RecoveryPoint::problem(url, seen, advice)),
        }
    };
    let clock = |why: &str, wal: &mut ArchivedWal<'_>| {
        let until = chain.run.until(wal)?;
        Ok::<_, RepositoryError>(by_clock(ask, url, until, why))
    };
    let server = match server {
        Ok(server) => server,
        Err(why) => return clock(&format!("no server could be asked ({why})"), &mut wal),
    };
    let known = if server.standby { ", as far as this standby knows" } else { "" };
    let position = server.identity.position;
    let end = chain.run.end;
    if end >= position {
        return Ok(told(
            ask,
            url,
            Duration::ZERO,
            format!("all that the server has written, up to {position}, is there{known}"),
        ));
    }
    Ok(match first_commit(&server.runtime, &mut server.client, &cluster, &chain.lineage, end, position) {
        Ok(Unarchived::Nothing) => told(
            ask,
            url,
            Duration::ZERO,
            format!("the archive goes up to {end}, and nothing was committed behind that{known}"),
        ),
        Ok(Unarchived::Commit(found)) => {
            let lag = ask.now.0.duration_since(found.time.0).unsigned_abs();
            let lag = if found.time > ask.now { Duration::ZERO } else { lag };
            let xid = found.xid.map_or_else(String::new, |xid| format!(" of transaction {xid}"));
            told(
                ask,
                url,
                lag,
                format!(
                    "the archive goes up to {end}, and the first commit behind it{xid} was at {}",
                    found.time
                ),
            )
        }
        Ok(Unarchived::TooMuch { segments }) => clock(
            &format!("{segments} segments behind {end} hold no commit, and the server has more"),
            &mut wal,
        )?,
        Err(super::unarchived::UnarchivedError::Postgres(e)) if e.code() == Some("58P01") => {
            RecoveryPoint::problem(
                url,
                format!(
                    "the archive ends at {end}, and the server has removed what follows: {}",
                    in_one_line(&e)
                ),
                "run pitr backup: nothing after that position can be restored until there is one",
            )
        }
        Err(e) => clock(&format!("the server's WAL could not be read ({})", in_one_line(&e)), &mut wal)?,
    })
}

/// A promotion's history may be on its way into the archive; the server has it at hand.
fn add_histories(archive: &mut Archive, server: &mut AtHand) -> Result<(), PostgresError> {
    let timeline = server.identity.timeline;
    if timeline.0 == 1 || archive.timelines.get(&timeline).is_some_and(|held| held.history.is_ok()) {
        return Ok(());
    }
    let (_, bytes) = server.runtime.block_on(server.client.timeline_history(timeline))?;
    let history = TimelineHistory::parse(timeline, &bytes)
        .map_err(|e| PostgresError::Protocol(format!("a history that cannot be read: {e}")))?;
    let held = archive.timelines.entry(timeline).or_insert_with(|| Timeline {
        history: Err(String::new()),
        orphan: false,
        segments: SegmentSet::default(),
        sealed: Default::default(),
        pieces: Vec::new(),
    });
    (held.history, held.orphan) = (Ok(history), false);
    Ok(())
}

type Refused = (String, &'static str);

/// `Err`: what is wrong, and what to do.
fn chain(
    survey: &Survey,
    server: Option<SystemIdentity>,
    wal: &mut ArchivedWal<'_>,
) -> Result<Result<Chain, Refused>, RepositoryError> {
    const BACK_UP: &str = "run pitr backup: a new window begins with it";
    let archive = &survey.archive;
    let newest = archive.timelines.keys().next_back().copied();
    let Some(timeline) = server.map(|server| server.timeline).or(newest) else {
        return Ok(Err(("there is no WAL, and no backup".to_owned(), "run pitr backup")));
    };
    let lineage = match archive.lineage(timeline) {
        Ok(lineage) => lineage,
        Err(why) => {
            return Ok(Err((why, "does a server still have it in pg_wal? pitr archive-push brings it")));
        }
    };
    let facts = survey.facts();
    let usable = facts.iter().filter(|b| b.complete && b.is_on(&lineage));
    let Some(backup): Option<&BackupFacts> = usable.max_by_key(|b| b.stop) else {
        let seen = match facts.len() {
            0 => "there is no backup: nothing can be restored".to_owned(),
            n => format!("none of {n} backups leads to timeline {timeline}"),
        };
        return Ok(Err((seen, "run pitr backup")));
    };
    let run = Run::listed(archive, &lineage, backup.start).to_its_end(archive, wal)?;
    Ok(match &run.barrier {
        Some(Barrier::Missing { first, last }) => Err((
            format!("WAL segments {first} to {last} are missing behind backup {}", backup.id),
            "are they still in pg_wal, or in another repository? else run pitr backup: a new window begins with it",
        )),
        Some(Barrier::Broken { segment, why }) => Err((
            format!("WAL segment {segment}, behind backup {}, cannot be replayed: {why}", backup.id),
            BACK_UP,
        )),
        Some(Barrier::Minimal { at, .. }) => Err((
            format!(
                "from {at} on, behind backup {}, the server wrote with wal_level=minimal: no recovery passes over that",
                backup.id
            ),
            BACK_UP,
        )),
        None if run.end < backup.stop => Err((
            format!(
                "backup {} needs the WAL up to {}, and the archive ends at {}",
                backup.id, backup.stop, run.end
            ),
            "is the server's archiver at work? its log and pitr check say more",
        )),
        None => Ok(Chain { lineage, run }),
    })
}

const ARCHIVER: &str =
    "does the server archive (pitr check), and is archive_timeout no longer than what may be lost?";

fn told(ask: &AskLag<'_>, repository: &str, lag: Duration, seen: String) -> RecoveryPoint {
    let ok = lag <= ask.limit;
    RecoveryPoint {
        repository: repository.to_owned(),
        ok,
        lag_seconds: Some(lag.as_secs_f64()),
        basis: Some(Basis::Server),
        seen,
        advice: (!ok).then(|| ARCHIVER.to_owned()),
    }
}

/// Clocks that are kept right differ by less.
const SKEW: jiff::SignedDuration = jiff::SignedDuration::from_secs(60);

fn by_clock(ask: &AskLag<'_>, repository: &str, until: Option<Moment>, why: &str) -> RecoveryPoint {
    let Some(until) = until else {
        return RecoveryPoint::problem(
            repository,
            format!("{why}, and the archive tells of no moment"),
            ARCHIVER,
        );
    };
    let ahead = until.0.duration_since(ask.now.0);
    if ahead > SKEW {
        return RecoveryPoint::problem(
            repository,
            format!(
                "{why}, and the archive is complete up to {until}, which this host's clock has not reached: how far back that is is not known"
            ),
            "is this host's clock right, and the server's?",
        );
    }
    let lag = if ahead.is_positive() { Duration::ZERO } else { ahead.unsigned_abs() };
    RecoveryPoint {
        basis: Some(Basis::Clock),
        ..told(
            ask,
            repository,
            lag,
            format!("{why}: by this host's clock, after {until}, up to when the archive is complete"),
        )
    }
}

/// Whether any repository's recovery point is too far back, or is not known: exit code 3.
pub fn is_behind(points: &[RecoveryPoint]) -> bool {
    points.iter().any(|point| !point.ok)
}
