//! One real segment through the whole path: ended by the server, archived by its command, read back and
//! verified as `archive-get` would.

use std::time::{Duration, Instant};

use super::{Finding, in_one_line, unusable};
use crate::postgres::PostgresError;
use crate::postgres::sql::SqlClient;
use crate::repository::layout::ClusterName;
use crate::repository::{Repository, RepositoryError};
use crate::types::{SegmentName, SystemId, WalFileName};

const SEGMENT: &str = "one segment through the whole path";

/// The archiver tries a file three times before it pauses for up to a minute.
const FAILURES: u64 = 3;

type Advice<'a> = &'a dyn Fn(&RepositoryError) -> Option<String>;

/// Makes the server end its segment, waits until the segment is in the repository, and reads it back.
pub async fn check_segment(
    server: &mut SqlClient,
    repository: &Repository,
    cluster: &ClusterName,
    system: Option<SystemId>,
    patience: Duration,
    advice: Advice<'_>,
) -> Finding {
    match follow(server, repository, cluster, system, patience, advice).await {
        Ok(finding) => finding,
        Err(error) => Finding::problem(
            SEGMENT,
            in_one_line(&error),
            "is the server up, and does the login work in psql?",
        ),
    }
}

async fn follow(
    server: &mut SqlClient,
    repository: &Repository,
    cluster: &ClusterName,
    system: Option<SystemId>,
    patience: Duration,
    advice: Advice<'_>,
) -> Result<Finding, PostgresError> {
    if server.is_in_recovery().await? {
        return Ok(Finding::problem(
            SEGMENT,
            "not tried: this server is a standby and cannot end a segment",
            "run the check against the primary",
        ));
    }
    if server.show("archive_mode").await? == "off" {
        return Ok(Finding::problem(
            SEGMENT,
            "not tried: the server does not archive",
            "set archive_mode = on and restart the server",
        ));
    }
    if !server.may_switch_wal().await? {
        return Ok(Finding::problem(
            SEGMENT,
            "not tried: this login may not end a segment",
            "GRANT EXECUTE ON FUNCTION pg_switch_wal() TO this role",
        ));
    }
    server.write_something().await?;
    let before = server.archiver().await?.failed;
    let segment = server.end_segment().await?;
    let begun = Instant::now();
    loop {
        match arrived(repository, cluster, system, segment) {
            Ok(Some(bytes)) => {
                let took = begun.elapsed().as_secs_f64();
                let seen = format!("{segment} was archived and read back in {took:.1} s, {bytes} bytes");
                return Ok(Finding::ok(SEGMENT, seen));
            }
            Ok(None) => {}
            Err(error) => return Ok(unusable(SEGMENT, &error, advice)),
        }
        let archiver = server.archiver().await?;
        if archiver.failed >= before + FAILURES {
            let file = archiver.last_failed.unwrap_or_default();
            return Ok(Finding::problem(
                SEGMENT,
                format!("{segment} did not arrive: archive_command failed {FAILURES} times, for {file}"),
                "read the server's log: the hook says there what is wrong",
            ));
        }
        if begun.elapsed() >= patience {
            return Ok(Finding::problem(
                SEGMENT,
                format!("{segment} did not arrive within {} s", patience.as_secs()),
                "does the server's archive_command name this repository and this cluster? read the server's log",
            ));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The segment's size once it is there, verified.
fn arrived(
    repository: &Repository,
    cluster: &ClusterName,
    system: Option<SystemId>,
    segment: SegmentName,
) -> Result<Option<u64>, RepositoryError> {
    let cluster = match repository.cluster(cluster, system) {
        Ok(cluster) => cluster,
        // This may be the first segment of all: the hook makes the cluster.
        Err(RepositoryError::NoCluster { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    if repository.storage().size(&cluster.layout().segment(segment))?.is_none() {
        return Ok(None);
    }
    let bytes = std::cell::Cell::new(0u64);
    let found = cluster.fetch(
        WalFileName::Segment(segment),
        || {
            bytes.set(0);
            Ok::<(), RepositoryError>(())
        },
        |chunk| {
            bytes.set(bytes.get() + chunk.len() as u64);
            Ok(())
        },
    )?;
    let url = cluster.object_url(&cluster.layout().segment(segment));
    match bytes.get() {
        _ if found.is_none() => {
            Err(RepositoryError::damaged(url, "it was there a moment ago and cannot be read"))
        }
        bytes if bytes != cluster.segment_size().bytes() => {
            Err(RepositoryError::damaged(url, format!("it holds {bytes} bytes")))
        }
        bytes => Ok(Some(bytes)),
    }
}
