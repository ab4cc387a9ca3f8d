//! `pitr check`: asks every part of the way, and says for each `ok` or what to do.
//!
//! A check can fail: what could not be looked at is a problem, never a pass. A part that is away does not
//! keep the others from being looked at. What is somebody else's is not written to.

mod archive;
mod recovery_point;
mod segment;
mod server;
mod store;
mod unarchived;

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

pub use archive::check_archive;
pub use recovery_point::{AskLag, Basis, RecoveryPoint, is_behind, recovery_points};
pub use segment::check_segment;
pub use server::{check_server, clock_difference};
pub use store::{StoreChecks, check_store};

use crate::postgres::ConnInfo;
use crate::postgres::sql::SqlClient;
use crate::repository::layout::ClusterName;
use crate::repository::{Create, HostMemory, Repository, RepositoryError};
use crate::storage::Storage;
use crate::types::{Moment, SystemId};

const IDENTITY: &str = "repository";
const OWNER: &str = "repository owner";

/// One line of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub subject: &'static str,
    /// The repository it is about; `None` for the server and this host.
    pub repository: Option<String>,
    /// Whether it is as it must be.
    pub ok: bool,
    /// What was seen.
    pub seen: String,
    /// What to do about it, where something is to be done; also for an `ok` that has a price.
    pub advice: Option<String>,
}

impl Finding {
    /// It is as it must be.
    pub fn ok(subject: &'static str, seen: impl Into<String>) -> Self {
        Self { subject, repository: None, ok: true, seen: seen.into(), advice: None }
    }

    /// It is not.
    pub fn problem(subject: &'static str, seen: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { subject, repository: None, ok: false, seen: seen.into(), advice: Some(advice.into()) }
    }

    fn with_advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    fn of(mut self, repository: &str) -> Self {
        self.repository = Some(repository.to_owned());
        self
    }
}

/// Whether any finding is a problem: exit code 3.
pub fn has_problems(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| !finding.ok)
}

/// What is looked at, and how.
pub struct Ask<'a> {
    /// All repositories.
    pub storages: Vec<Arc<dyn Storage>>,
    /// What this host remembers of them.
    pub memory: &'a HostMemory,
    /// The cluster's name in them.
    pub cluster: &'a ClusterName,
    /// The server.
    pub connection: &'a ConnInfo,
    /// How long a segment may take to arrive.
    pub patience: Duration,
    /// Makes this run's probe names its own.
    pub token: &'a str,
    /// The clock.
    pub clock: &'a dyn Fn() -> Moment,
    /// The question that an operator should ask about an error.
    pub advice: &'a dyn Fn(&RepositoryError) -> Option<String>,
}

/// Looks at everything; each finding is reported as soon as it is there.
pub fn check(ask: &Ask<'_>, report: &mut dyn FnMut(Finding)) -> std::io::Result<()> {
    let repositories: Vec<Repository> =
        ask.storages.iter().filter_map(|storage| check_repository(storage, ask, report)).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let system = runtime.block_on(look_at_the_server(ask, &repositories, report));
    for repository in &repositories {
        for finding in check_archive(repository, ask.cluster, system, ask.advice) {
            report(finding.of(repository.url()));
        }
    }
    Ok(())
}

fn check_repository(
    storage: &Arc<dyn Storage>,
    ask: &Ask<'_>,
    report: &mut dyn FnMut(Finding),
) -> Option<Repository> {
    let url = storage.url().to_owned();
    if let Some(problem) = store::somebody_elses(&url) {
        report(problem.of(&url));
        return None;
    }
    // An operator types this: the root may be made, and the identity, so that what is checked is real.
    match Repository::open(Arc::clone(storage), ask.memory, Create::RootAndIdentity, (ask.clock)()) {
        Ok(repository) => {
            let seen = format!("{url} has identity {}", repository.descriptor().identity);
            report(Finding::ok(IDENTITY, seen).of(&url));
            let recorded = Some(repository.descriptor().create_only);
            for finding in check_store(&**storage, ask.token, recorded, (ask.clock)(), ask.advice).findings {
                report(finding.of(&url));
            }
            Some(repository)
        }
        Err(error) => {
            report(unusable(IDENTITY, &error, ask.advice).of(&url));
            None
        }
    }
}

async fn look_at_the_server(
    ask: &Ask<'_>,
    repositories: &[Repository],
    report: &mut dyn FnMut(Finding),
) -> Option<SystemId> {
    let mut server = match SqlClient::connect(ask.connection).await {
        Ok(server) => server,
        Err(error) => {
            let advice = "is the server up, and does the login work in psql? nothing of it was looked at";
            report(Finding::problem("server", in_one_line(&error), advice));
            return None;
        }
    };
    for finding in check_server(&mut server, ask.connection, ask.clock).await {
        report(finding);
    }
    let system = server.system_id().await.ok();
    for repository in repositories {
        let finding =
            check_segment(&mut server, repository, ask.cluster, system, ask.patience, ask.advice).await;
        report(finding.of(repository.url()));
    }
    server.close().await;
    system
}

/// A repository that gave an error where an answer was expected.
fn unusable(
    subject: &'static str,
    error: &RepositoryError,
    advice: &dyn Fn(&RepositoryError) -> Option<String>,
) -> Finding {
    let advice = advice(error).unwrap_or_else(|| "is this the right repository?".to_owned());
    Finding::problem(subject, in_one_line(error), advice)
}

/// An error with its causes, in one line.
fn in_one_line(error: &(dyn std::error::Error + 'static)) -> String {
    let mut causes: Vec<String> =
        std::iter::successors(Some(error), |&e| e.source()).map(ToString::to_string).collect();
    // A transparent error has its cause's own text.
    causes.dedup();
    causes.join(": ")
}
