//! The server: its settings, this login's rights, and one real segment through the whole path.

use std::time::{Duration, Instant};

use super::{Finding, SEGMENT, in_one_line};
use crate::postgres::PostgresError;
use crate::postgres::sql::SqlClient;
use crate::repository::layout::EpochLayout;
use crate::storage::Storage;

/// Looks at the server's settings and this login's rights.
pub async fn check_server(server: &mut SqlClient) -> Vec<Finding> {
    let mut findings = Vec::new();
    let looked = settings(server, &mut findings).await;
    if let Err(error) = looked {
        findings.push(unanswered("server settings", &error));
    }
    findings
}

async fn settings(server: &mut SqlClient, findings: &mut Vec<Finding>) -> Result<(), PostgresError> {
    let level = server.show("wal_level").await?;
    findings.push(match level.as_str() {
        "minimal" => Finding::problem("wal_level", level, "set wal_level = replica and restart the server"),
        _ => Finding::ok("wal_level", level),
    });

    let senders = server.show("max_wal_senders").await?;
    let enough = senders.parse::<u32>().is_ok_and(|n| n >= 2);
    findings.push(match enough {
        true => Finding::ok("max_wal_senders", senders),
        false => Finding::problem(
            "max_wal_senders",
            senders,
            "set max_wal_senders = 10 and restart the server: a backup takes up to two",
        ),
    });

    findings.push(match server.may_replicate().await? {
        true => Finding::ok("replication permission", "this login may take base backups"),
        false => Finding::problem(
            "replication permission",
            "this login may not take base backups",
            "ALTER ROLE … REPLICATION, and a line for database replication in pg_hba.conf",
        ),
    });

    let mode = server.show("archive_mode").await?;
    findings.push(match mode.as_str() {
        "off" => Finding::problem("archive_mode", mode, "set archive_mode = on and restart the server"),
        _ => Finding::ok("archive_mode", mode),
    });

    let command = server.show("archive_command").await?;
    let right = command.contains("archive-push") && command.contains("%p");
    findings.push(match right {
        true => Finding::ok("archive_command", command),
        false => Finding::problem(
            "archive_command",
            if command.is_empty() { "empty".to_owned() } else { command },
            "set archive_command = 'pitr archive-push %p' and reload the server",
        ),
    });

    let archiver = server.archiver().await?;
    findings.push(match (archiver.failing, archiver.last_failed) {
        (true, Some(failed)) => Finding::problem(
            "archiver",
            format!("fails at {failed}, {} times so far", archiver.failed),
            "read the server's log: the hook says there what is wrong",
        ),
        _ => Finding::ok("archiver", format!("{} files archived", archiver.archived)),
    });
    Ok(())
}

/// Makes the server end its segment, and waits until the segment is in the repository.
pub async fn check_segment(
    server: &mut SqlClient,
    storage: &dyn Storage,
    layout: &EpochLayout,
    patience: Duration,
) -> Finding {
    match follow_segment(server, storage, layout, patience).await {
        Ok(finding) => finding,
        Err(error) => unanswered(SEGMENT, &error),
    }
}

async fn follow_segment(
    server: &mut SqlClient,
    storage: &dyn Storage,
    layout: &EpochLayout,
    patience: Duration,
) -> Result<Finding, PostgresError> {
    if server.is_in_recovery().await? {
        return Ok(Finding::problem(
            SEGMENT,
            "not tried: this server is a standby and cannot end a segment",
            "run the check against the primary",
        ));
    }
    if !server.may_switch_wal().await? {
        return Ok(Finding::problem(
            SEGMENT,
            "not tried: this login may not end a segment",
            "GRANT EXECUTE ON FUNCTION pg_switch_wal() TO this role",
        ));
    }
    // A segment in which nothing was written since the last switch would not be switched.
    server.connection().query("SELECT pg_create_restore_point('pitr check')", "a restore point").await?;
    let segment = server.current_segment().await?;
    server.switch_wal().await?;
    let begun = Instant::now();
    let name = layout.segment(segment);
    loop {
        match storage.size(&name) {
            Ok(Some(size)) => {
                let took = begun.elapsed().as_secs_f64();
                let seen = format!("{segment} arrived in {took:.1} s, {size} bytes as stored");
                return Ok(Finding::ok(SEGMENT, seen));
            }
            Ok(None) if begun.elapsed() < patience => {}
            Ok(None) => {
                return Ok(Finding::problem(
                    SEGMENT,
                    format!("{segment} did not arrive within {} s", patience.as_secs()),
                    "read the server's log for what its archive_command says",
                ));
            }
            Err(error) => {
                return Ok(Finding::problem(SEGMENT, in_one_line(&error), "is the repository reachable?"));
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn unanswered(subject: &'static str, error: &PostgresError) -> Finding {
    Finding::problem(subject, in_one_line(error), "is the server up, and does the login work in psql?")
}
