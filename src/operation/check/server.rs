//! The server: its settings, its archiver, and this login's rights.

use super::{Finding, in_one_line};
use crate::postgres::replication::{OLDEST_MAJOR, ReplicationClient};
use crate::postgres::sql::SqlClient;
use crate::postgres::{ConnInfo, PostgresError};
use crate::types::Moment;

const REPLICATION: &str = "replication login";

/// A clock further off than this puts recovery to a moment, and the store's login, in doubt. Seconds.
const CLOCK_TOLERANCE: i64 = 60;

/// Looks at the server's settings and this login's rights.
pub async fn check_server(
    server: &mut SqlClient,
    connection: &ConnInfo,
    clock: &dyn Fn() -> Moment,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Err(error) = settings(server, clock, &mut findings).await {
        let advice = "is the server up, and does the login work in psql?";
        findings.push(Finding::problem("server settings", in_one_line(&error), advice));
    }
    findings.push(replication(connection).await);
    findings
}

async fn settings(
    server: &mut SqlClient,
    clock: &dyn Fn() -> Moment,
    findings: &mut Vec<Finding>,
) -> Result<(), PostgresError> {
    let version = server.server_version().await?;
    findings.push(match version / 10_000 {
        major if major < OLDEST_MAJOR => Finding::problem(
            "server version",
            format!("PostgreSQL {major}"),
            format!("pitr needs PostgreSQL {OLDEST_MAJOR} or newer"),
        ),
        major => Finding::ok("server version", format!("PostgreSQL {major}.{}", version % 10_000)),
    });

    let level = server.show("wal_level").await?;
    findings.push(match level.as_str() {
        "minimal" => Finding::problem("wal_level", level, "set wal_level = replica and restart the server"),
        _ => Finding::ok("wal_level", level),
    });

    let senders = server.show("max_wal_senders").await?;
    findings.push(match senders.parse::<u32>() {
        Ok(n) if n >= 2 => Finding::ok("max_wal_senders", senders),
        _ => Finding::problem(
            "max_wal_senders",
            senders,
            "set max_wal_senders = 10 and restart the server: a backup takes up to two",
        ),
    });

    let mode = server.show("archive_mode").await?;
    let standby = server.is_in_recovery().await?;
    findings.push(match (mode.as_str(), standby) {
        ("off", _) => Finding::problem("archive_mode", mode, "set archive_mode = on and restart the server"),
        ("on", true) => Finding::ok("archive_mode", "on: a standby archives only after its promotion"),
        _ => Finding::ok("archive_mode", mode),
    });
    findings.push(archive_command(server).await?);

    let archiver = server.archiver().await?;
    findings.push(match (archiver.failing, archiver.last_failed) {
        (true, Some(failed)) => Finding::problem(
            "archiver",
            format!("fails at {failed}, {} times so far", archiver.failed),
            "read the server's log: the hook says there what is wrong",
        ),
        _ => Finding::ok("archiver", format!("{} files archived", archiver.archived)),
    });

    let micros = server.clock_micros().await?;
    if let Ok(theirs) = jiff::Timestamp::from_microsecond(micros) {
        findings.push(clock_difference("server clock", "the server's", Moment(theirs), clock()));
    }
    Ok(())
}

async fn archive_command(server: &mut SqlClient) -> Result<Finding, PostgresError> {
    const COMMAND: &str = "archive_command";
    const RIGHT: &str = "set archive_command = 'pitr archive-push %p' and reload the server";
    let library = server.archive_library().await?;
    if !library.is_empty() {
        return Ok(Finding::problem(
            COMMAND,
            format!("archive_library is {library}: the command is not used"),
            "set archive_library = '' and archive_command = 'pitr archive-push %p', and reload the server",
        ));
    }
    let command = server.show("archive_command").await?;
    Ok(match command.as_str() {
        "" | "(disabled)" => Finding::problem(COMMAND, "empty", RIGHT),
        text if !text.contains("archive-push") => Finding::problem(COMMAND, text, RIGHT),
        text if !text.contains("%p") => Finding::problem(
            COMMAND,
            text,
            "archive-push takes %p, the file's path: set archive_command = 'pitr archive-push %p' and reload the server",
        ),
        text => Finding::ok(COMMAND, text),
    })
}

/// The login that backups use, tried: the role's right, `pg_hba.conf` and a free walsender in one.
async fn replication(connection: &ConnInfo) -> Finding {
    let error = match ReplicationClient::connect(connection).await {
        Ok(_) => return Finding::ok(REPLICATION, "this login may take base backups"),
        Err(error) => error,
    };
    let advice = match error.code() {
        Some("53300") => "raise max_wal_senders, or end what holds the walsenders (pg_stat_replication)",
        _ => "ALTER ROLE … REPLICATION, and a line for database \"replication\" in pg_hba.conf",
    };
    Finding::problem(REPLICATION, in_one_line(&error), advice)
}

/// How far another clock is from this host's.
pub fn clock_difference(subject: &'static str, whose: &str, theirs: Moment, ours: Moment) -> Finding {
    let seconds = theirs.0.duration_since(ours.0).as_secs();
    if seconds.abs() <= CLOCK_TOLERANCE {
        return Finding::ok(subject, format!("within {CLOCK_TOLERANCE} s of this host's"));
    }
    let (far, way) = (seconds.abs(), if seconds > 0 { "ahead of" } else { "behind" });
    Finding::problem(
        subject,
        format!("{whose} clock is {far} s {way} this host's"),
        "set both clocks by NTP: a target time means the server's clock, and a store refuses a login that is 15 minutes off",
    )
}
