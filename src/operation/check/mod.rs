//! `pitr check`: asks every part of the way, and says for each `ok` or what to do.
//!
//! A check can fail: what could not be looked at is a problem, never a pass. The parts are separate calls,
//! so that a repository that is away does not keep the server from being looked at.

mod server;
mod store;

use serde::Serialize;

pub use server::{check_segment, check_server};
pub use store::{StoreChecks, check_store};

const SEGMENT: &str = "one segment through the whole path";

/// One line of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub subject: &'static str,
    /// Whether it is as it must be.
    pub ok: bool,
    /// What was seen.
    pub seen: String,
    /// What to do about it, where something is to be done; also for an `ok` that has a price.
    pub advice: Option<String>,
}

impl Finding {
    fn ok(subject: &'static str, seen: impl Into<String>) -> Self {
        Self { subject, ok: true, seen: seen.into(), advice: None }
    }

    fn problem(subject: &'static str, seen: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { subject, ok: false, seen: seen.into(), advice: Some(advice.into()) }
    }

    /// No connection to the server came about: neither its settings nor a segment could be looked at.
    pub fn unreachable(error: &crate::postgres::PostgresError) -> Self {
        let advice = "is the server up, and does the login work in psql? nothing of it was looked at";
        Self::problem("server", in_one_line(error), advice)
    }

    /// The repository does not know the cluster yet, so that there is no place where a segment would arrive.
    pub fn unknown_cluster() -> Self {
        let advice = "archive one segment first: SELECT pg_switch_wal(), then run the check again";
        Self::problem(SEGMENT, "not tried: nothing was ever archived here from this cluster", advice)
    }

    fn with_advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }
}

/// Whether any finding is a problem: exit code 3.
pub fn has_problems(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| !finding.ok)
}

/// An error with its causes, in one line.
fn in_one_line(error: &(dyn std::error::Error + 'static)) -> String {
    let causes: Vec<String> =
        std::iter::successors(Some(error), |&e| e.source()).map(ToString::to_string).collect();
    causes.join(": ")
}
