//! `pitr check`: asks every part of the way, and prints a line for each; with `--max-lag`, only how far back
//! the recovery point is.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use super::hint::repository_hint;
use super::settings::{Global, Settings};
use super::{Stop, now, say};
use crate::operation::check::{
    Ask, AskLag, Finding, RecoveryPoint, check, has_problems, is_behind, recovery_points,
};
use crate::postgres::ConnInfo;

/// The exit code when a check found problems.
const EXIT_PROBLEMS: u8 = 3;

/// Checks configuration, login, permissions, the create-only probe, and one real segment through the
/// whole path.
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// How many seconds the segment may take to arrive.
    #[arg(long, value_name = "SECONDS", default_value = "60")]
    segment_timeout: u64,
    /// The server, as a connection string or URI; otherwise the configuration or libpq's variables say.
    #[arg(long, value_name = "CONNINFO")]
    conninfo: Option<String>,
    /// Checks only how much would be lost now, and exits 3 where that is more than this (as 5m, 1h30m or 1d), or not
    /// known. For cron: one line for each repository, and nothing is written.
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "segment_timeout")]
    max_lag: Option<Duration>,
}

/// As `90s`, `5m`, `1h30m`, `1d`: a day has 24 hours.
fn duration(text: &str) -> Result<Duration, String> {
    let words = || "a duration is written as 90s, 5m, 1h30m or 1d".to_owned();
    let (days, rest) = match text.split_once('d') {
        Some((days, rest)) => (days.trim().parse::<u32>().map_err(|_| words())?, rest.trim()),
        None => (0, text),
    };
    let days = Duration::from_secs(u64::from(days) * 24 * 3600);
    if rest.is_empty() && text.contains('d') {
        return Ok(days);
    }
    let parsed = rest.parse::<jiff::SignedDuration>().map_err(|_| words())?;
    let parsed = Duration::try_from(parsed).map_err(|_| "a duration is not negative".to_owned())?;
    Ok(days.saturating_add(parsed))
}

impl CheckArgs {
    pub(super) fn run(&self, global: &Global) -> Result<(), Stop> {
        let settings = Settings::load(global)?;
        if let Some(limit) = self.max_lag {
            return self.lag(global, &settings, limit);
        }
        let conninfo = self.conninfo.as_deref().or(settings.conninfo.as_deref());
        let connection = ConnInfo::resolve(conninfo, &|name| std::env::var(name).ok())
            .context("cannot tell where the server is")?;
        let token = format!("check-{}-{}", now().0.as_microsecond(), std::process::id());
        let mut findings = Vec::new();
        let several = settings.repositories.len() > 1;
        let mut report = |finding: Finding| {
            if !global.json && (!global.quiet || !finding.ok) {
                say(&line(&finding, several));
            }
            findings.push(finding);
        };
        report(configuration(&settings));
        let ask = Ask {
            storages: settings.storages_within(settings.get_retry)?,
            memory: &settings.memory(),
            cluster: &settings.cluster,
            connection: &connection,
            patience: Duration::from_secs(self.segment_timeout),
            token: &token,
            clock: &now,
            advice: &repository_hint,
        };
        check(&ask, &mut report).context("cannot start what speaks to the server")?;
        if global.json {
            say(&json(&findings).to_string());
        } else if !global.quiet || has_problems(&findings) {
            say(&total(&findings));
        }
        if has_problems(&findings) { Err(Stop::Code(EXIT_PROBLEMS)) } else { Ok(()) }
    }

    fn lag(&self, global: &Global, settings: &Settings, limit: Duration) -> Result<(), Stop> {
        let conninfo = self.conninfo.as_deref().or(settings.conninfo.as_deref());
        let connection = ConnInfo::resolve(conninfo, &|name| std::env::var(name).ok());
        let points = recovery_points(&AskLag {
            storages: settings.storages_within(settings.get_retry)?,
            memory: &settings.memory(),
            cluster: &settings.cluster,
            connection: connection.as_ref().map_err(ToString::to_string),
            limit,
            now: now(),
            advice: &repository_hint,
        });
        if global.json {
            let document = serde_json::json!({
                "ok": !is_behind(&points), "max_lag_seconds": limit.as_secs_f64(), "recovery_points": points,
            });
            say(&document.to_string());
        } else {
            for point in points.iter().filter(|point| !global.quiet || !point.ok) {
                say(&lag_line(point, limit, points.len() > 1));
            }
        }
        if is_behind(&points) { Err(Stop::Code(EXIT_PROBLEMS)) } else { Ok(()) }
    }
}

fn lag_line(point: &RecoveryPoint, limit: Duration, several: bool) -> String {
    let mark = if point.ok { "ok     " } else { "PROBLEM" };
    let place = if several { format!(" ({})", point.repository) } else { String::new() };
    let seconds = |seconds: f64| {
        if seconds > 0.0 && seconds < 1.0 {
            return format!("{:.0}ms", (seconds * 1e3).ceil());
        }
        let whole = jiff::SignedDuration::try_from_secs_f64(seconds.round()).unwrap_or_default();
        format!("{whole:#}")
    };
    let lag = match point.lag_seconds {
        Some(lag) => format!("{} behind, at most {} may be: ", seconds(lag), seconds(limit.as_secs_f64())),
        None => String::new(),
    };
    let mut text = format!("{mark}  recovery point{place}: {lag}{}", point.seen);
    if let Some(advice) = &point.advice {
        text.push_str(&format!("\n         hint: {advice}"));
    }
    text
}

/// The configuration was understood, or nothing would be checked; who else can read it?
fn configuration(settings: &Settings) -> Finding {
    const CONFIGURATION: &str = "configuration";
    let Some(path) = &settings.config else {
        return Finding::ok(CONFIGURATION, "from flags and variables; no file");
    };
    let mode = std::fs::metadata(path).map_or(0, |facts| facts.permissions().mode());
    let secret = [&settings.conninfo, &settings.primary_conninfo]
        .into_iter()
        .flatten()
        // As libpq writes it, or between a URI's user and host.
        .any(|text| text.contains("password") || text.contains("://") && text.contains('@'));
    if secret && mode & 0o004 != 0 {
        return Finding::problem(
            CONFIGURATION,
            format!("{} may hold a password, and everybody can read it", path.display()),
            format!("chmod o-r {}, or keep the password in a passfile", path.display()),
        );
    }
    Finding::ok(CONFIGURATION, path.display().to_string())
}

/// `ok`, or `PROBLEM` and what to do.
fn line(finding: &Finding, several: bool) -> String {
    let mark = if finding.ok { "ok     " } else { "PROBLEM" };
    let place = match &finding.repository {
        Some(url) if several => format!(" ({url})"),
        _ => String::new(),
    };
    let mut text = format!("{mark}  {}{place}: {}", finding.subject, finding.seen);
    if let Some(advice) = &finding.advice {
        text.push_str(&format!("\n         hint: {advice}"));
    }
    text
}

fn total(findings: &[Finding]) -> String {
    match findings.iter().filter(|finding| !finding.ok).count() {
        0 => format!("{} checks, all ok", findings.len()),
        1 => format!("{} checks, 1 problem", findings.len()),
        n => format!("{} checks, {n} problems", findings.len()),
    }
}

/// The findings as one document: `{"ok":…,"checks":[…]}`.
fn json(findings: &[Finding]) -> serde_json::Value {
    serde_json::json!({ "ok": !has_problems(findings), "checks": findings })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_days_and_are_refused_in_plain_words() {
        let seconds = |text| duration(text).map(|d| d.as_secs());
        assert_eq!(seconds("1d"), Ok(86_400));
        assert_eq!(seconds("2d12h"), Ok(216_000));
        assert_eq!(seconds("1h30m"), Ok(5_400));
        for bad in ["", "d", "soon", "1w", "-1d", "5"] {
            assert_eq!(
                seconds(bad),
                Err("a duration is written as 90s, 5m, 1h30m or 1d".to_owned()),
                "{bad}"
            );
        }
        assert!(seconds("-5m").is_err());
    }

    #[test]
    fn each_line_says_ok_or_what_to_do() {
        let bad = Finding::problem("backup", "there is none", "run pitr backup");
        assert_eq!(line(&bad, false), "PROBLEM  backup: there is none\n         hint: run pitr backup");
        let mut good = Finding::ok("wal_level", "replica");
        good.repository = Some("file:///r".to_owned());
        assert_eq!(line(&good, false), "ok       wal_level: replica");
        assert_eq!(line(&good, true), "ok       wal_level (file:///r): replica");
        assert_eq!(total(&[bad.clone(), good.clone()]), "2 checks, 1 problem");
        let document = json(&[bad, good]);
        assert_eq!(document["ok"], false);
        assert_eq!(document["checks"][1]["ok"], true);
    }
}
