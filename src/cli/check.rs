//! `pitr check`: asks every part of the way, and prints a line for each.

use std::time::Duration;

use anyhow::Context;
use clap::Args;

use crate::operation::check::{Finding, check_segment, check_server, check_store, has_problems};
use crate::postgres::ConnInfo;
use crate::postgres::sql::SqlClient;
use crate::repository::layout::EpochLayout;
use crate::storage::Storage;

/// The exit code when a check found problems.
pub const EXIT_PROBLEMS: u8 = 3;

/// Checks configuration, login, permissions, the create-only probe, and one real segment through the
/// whole path.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// How many seconds the segment may take to arrive.
    #[arg(long, value_name = "SECONDS", default_value = "60")]
    segment_timeout: u64,
    /// The server, as a connection string or URI; otherwise the configuration or libpq's variables say.
    #[arg(long, value_name = "CONNINFO")]
    conninfo: Option<String>,
}

/// What the repository and the configuration say beforehand.
pub struct Surroundings<'a> {
    /// The repository's storage.
    pub storage: &'a dyn Storage,
    /// What the repository's descriptor says about create-only, where there is one.
    pub create_only: Option<bool>,
    /// The cluster's names, where the repository knows the cluster.
    pub layout: Option<&'a EpochLayout>,
    /// The configuration's connection string.
    pub conninfo: Option<&'a str>,
    /// The environment.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Makes this run's probe names its own: the moment and the process, say.
    pub token: &'a str,
}

impl CheckArgs {
    /// Looks at everything. What could not be looked at is a problem among the findings.
    pub fn run(&self, around: &Surroundings<'_>) -> anyhow::Result<Vec<Finding>> {
        let mut findings = check_store(around.storage, around.token, around.create_only).findings;
        let info = ConnInfo::resolve(self.conninfo.as_deref().or(around.conninfo), around.env)
            .context("cannot tell where the server is")?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start what speaks to the server")?;
        runtime.block_on(async {
            let mut server = match SqlClient::connect(&info).await {
                Ok(server) => server,
                Err(error) => return findings.push(Finding::unreachable(&error)),
            };
            findings.extend(check_server(&mut server).await);
            findings.push(match around.layout {
                Some(layout) => {
                    let patience = Duration::from_secs(self.segment_timeout);
                    check_segment(&mut server, around.storage, layout, patience).await
                }
                None => Finding::unknown_cluster(),
            });
            server.close().await;
        });
        Ok(findings)
    }
}

/// The findings as lines: `ok`, or `PROBLEM` and what to do.
pub fn words(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let mark = if finding.ok { "ok     " } else { "PROBLEM" };
        text.push_str(&format!("{mark}  {}: {}\n", finding.subject, finding.seen));
        if let Some(advice) = &finding.advice {
            text.push_str(&format!("         hint: {advice}\n"));
        }
    }
    let problems = findings.iter().filter(|finding| !finding.ok).count();
    text.push_str(&match problems {
        0 => format!("{} checks, all ok\n", findings.len()),
        1 => format!("{} checks, 1 problem\n", findings.len()),
        n => format!("{} checks, {n} problems\n", findings.len()),
    });
    text
}

/// The findings as one document: `{"ok":…,"checks":[…]}`.
pub fn json(findings: &[Finding]) -> serde_json::Value {
    serde_json::json!({ "ok": !has_problems(findings), "checks": findings })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_says_ok_or_what_to_do() {
        let text = words(&[Finding::unknown_cluster()]);
        assert!(text.starts_with("PROBLEM  one segment through the whole path: "), "{text}");
        assert!(text.contains("hint: "), "{text}");
        assert!(text.ends_with("1 checks, 1 problem\n"), "{text}");
        let document = json(&[Finding::unknown_cluster()]);
        assert_eq!(document["ok"], false);
        assert_eq!(document["checks"][0]["ok"], false);
    }
}
